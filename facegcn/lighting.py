"""Light from far away as spherical harmonics of order 2 (Ramamoorthi and Hanrahan 2001).

The constants are those of Deng et al. 2019. Letters: B images, N vertices.
"""

from __future__ import annotations

import math

import tensorflow as tf

HARMONICS = 9  # functions of order 0, 1 and 2
AMBIENT_OFFSET = 0.8  # added to each channel's first coefficient, so that gamma = 0 is plain light

_A0, _A1, _A2 = math.pi, 2 * math.pi / math.sqrt(3), 2 * math.pi / math.sqrt(8)
_C0 = 1 / math.sqrt(4 * math.pi)
_C1 = math.sqrt(3) / math.sqrt(4 * math.pi)
_C2 = 3 * math.sqrt(5) / math.sqrt(12 * math.pi)
ORDER_FACTORS = (_A0 * _C0, _A1 * _C1, _A2 * _C2)  # of the polynomials in the normal, by order


def sh_basis(normals) -> tf.Tensor:
    """The nine spherical harmonics, each times its cosine-lobe factor.

    Args:
        normals: (B, N, 3) unit vectors in world axes.

    Returns:
        (B, N, 9).

    Raises:
        ValueError: the last axis is not 3 long.
    """
    normals = tf.convert_to_tensor(normals, tf.float32)
    if normals.shape[-1] != 3:
        raise ValueError(f"normals must have shape (B, N, 3), got {normals.shape}")
    x, y, z = tf.unstack(normals, axis=-1)
    return tf.stack([
        _A0 * _C0 * tf.ones_like(x),
        -_A1 * _C1 * y,
        _A1 * _C1 * z,
        -_A1 * _C1 * x,
        _A2 * _C2 * x * y,
        -_A2 * _C2 * y * z,
        _A2 * _C2 / (2 * math.sqrt(3)) * (3 * z * z - 1),
        -_A2 * _C2 * x * z,
        _A2 * _C2 / 2 * (x * x - y * y)], axis=-1)


def shading(normals, gamma) -> tf.Tensor:
    """Light that reaches each vertex, the factor of its albedo.

    Args:
        normals: (B, N, 3) unit vectors in world axes.
        gamma: (B, 27) lighting coefficients: nine for red, nine for green, nine for blue.

    Returns:
        (B, N, 3) RGB; 1 leaves an albedo as it is. Can be negative in deep shadow.

    Raises:
        ValueError: an argument has another shape.
    """
    gamma = tf.convert_to_tensor(gamma, tf.float32)
    if gamma.shape.rank != 2 or gamma.shape[1] != 3 * HARMONICS:
        raise ValueError(f"gamma must have shape (B, {3 * HARMONICS}), got {gamma.shape}")
    offset = tf.constant([AMBIENT_OFFSET] + [0.0] * (HARMONICS - 1))
    per_channel = tf.reshape(gamma, (-1, 3, HARMONICS)) + offset
    return tf.matmul(sh_basis(normals), per_channel, transpose_b=True)


def illuminate(albedo01, normals, gamma) -> tf.Tensor:
    """Lit vertex colours: albedo times shading, clipped.

    Args:
        albedo01: (B, N, 3) RGB in [0, 1].
        normals: (B, N, 3) unit vectors in world axes.
        gamma: (B, 27) lighting coefficients, channel by channel.

    Returns:
        (B, N, 3) RGB in [0, 1]. No gradient where the colour is clipped.
    """
    return tf.clip_by_value(albedo01 * shading(normals, gamma), 0.0, 1.0)


def metered_exposure(skin):
    """Brightness of the light that a face of this skin is usually photographed in [ours].

    Light on dark skin is a little brighter, as cameras and photographers make up for a part of it.

    Args:
        skin: mean skin albedo in [0, 1], a number or a tensor.

    Returns:
        the mean shading, see ``frontal_brightness``.
    """
    return 0.9 * (0.5 / skin) ** 0.1


def frontal_brightness(gamma) -> tf.Tensor:
    """Mean shading (B,) of the surfaces that face the camera, by their share of the picture.

    That is the mean over channels and over the front half of a sphere as seen from the front,
    integral of Y_k(n) n_z over integral of n_z; only three harmonics have one.

    Args:
        gamma: (B, 27) lighting coefficients.
    """
    per_channel = tf.reshape(gamma, (-1, 3, HARMONICS))
    mean = tf.reduce_mean(per_channel, axis=1)
    return (_A0 * _C0 * (mean[:, 0] + AMBIENT_OFFSET) + _A1 * _C1 * 2.0 / 3.0 * mean[:, 2]
            + _A2 * _C2 / (4.0 * math.sqrt(3)) * mean[:, 6])


def fit_light(albedo01, normals, colors01, weight, gamma, ridge: float = 0.005) -> tf.Tensor:
    """Light that best explains seen colours with a given albedo: weighted least squares [ours].

    Per channel it minimises sum_v w_v (albedo_v Y_v . g - colour_v)^2 + ridge sum_v w_v |g - g0|^2
    around the light g0 that is given; with nothing seen it is g0. No gradient.

    Args:
        albedo01: (B, N, 3) in [0, 1].
        normals: (B, N, 3) unit.
        colors01: (B, N, 3) seen colours in [0, 1].
        weight: (B, N) trust in each, 0 = not seen.
        gamma: (B, 27) the light to start from.
        ridge: pull to it.

    Returns:
        (B, 27) float32; NaN where what is given is not finite.
    """
    basis, batch = sh_basis(normals), tf.shape(gamma)[0]
    residual = colors01 - albedo01 * shading(normals, gamma)
    squares = tf.reshape(basis[..., :, None] * basis[..., None, :], (batch, -1, HARMONICS * HARMONICS))
    matrix = tf.matmul(albedo01 * albedo01 * weight[..., None], squares, transpose_a=True)
    matrix = tf.reshape(matrix, (batch, 3, HARMONICS, HARMONICS))
    pull = ridge * tf.reduce_sum(weight, axis=1)[:, None, None, None] + 1e-6
    right = tf.matmul(albedo01 * residual * weight[..., None], basis, transpose_a=True)
    matrix += pull * tf.eye(HARMONICS)
    finite = tf.reduce_all(tf.math.is_finite(matrix), axis=(2, 3), keepdims=True)
    # The solver ends the program where a matrix is not finite.
    change = tf.linalg.solve(tf.where(finite, matrix, tf.eye(HARMONICS)), right[..., None])
    change = tf.where(finite, change, math.nan)[..., 0]
    return tf.stop_gradient(gamma + tf.reshape(change, (batch, 3 * HARMONICS)))
