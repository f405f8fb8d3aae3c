"""Losses of the texture networks and of the image critic, as named terms.

Letters: B images, N vertices, H W pixels. All colours are in [-1, 1]. Two sets: ``released`` is
what the released code trains, ``paper`` trains the pixel loss as well and takes L2 distances.

Where a step runs on several replicas, a term is that of one replica's part of the batch, and the mean over the replicas
is the term of the whole batch: what is divided by a number that is counted (pixels of a mask, known values) is divided
by the mean of all replicas' numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from facegcn import replicas
from facegcn.report import overlay
from facegcn.sampling import eroded_mask

LOSS_SETS = ("released", "paper")
SCHEDULES = ("released", "paper")
CRITIC_TERMS = ("critic", "wasserstein", "gradient_penalty")
_HIDDEN_WEIGHT = 0.3  # of the projection term on vertices the photo does not show [released code]
_GRADIENT_PENALTY = 10.0  # [paper]
_RENDER_RISE = 0.2  # of the render weight, per epoch [released code]
_LEAST_REFINE = 0.2  # the refine weight's end [released code]
_TINY = 1e-16  # under a root, so that its gradient stays finite [released code]


class LossWeights(NamedTuple):
    """How the terms add up to the total; numbers or scalar tensors.

    Attributes:
        refine: of ``refine``, see ``schedule``.
        render: of all terms that look at the photo or at the fine albedo alone, see ``schedule``.
        identity: inside ``render`` [paper].
        symmetry: inside ``render`` [released code].
        variance: inside ``render`` [released code].
        pixel: inside ``render``; used by the set ``paper`` only.
        losses: ``released`` or ``paper``.
        schedule: ``released`` or ``paper``: how ``refine`` and ``render`` weigh the terms, see ``schedule``.
    """

    refine: object = 1.0
    render: object = 0.0
    identity: object = 0.2
    symmetry: object = 0.5
    variance: object = 0.01
    pixel: object = 1.0
    losses: str = "released"
    schedule: str = "released"


def schedule(epoch: int, render_start: float = 0.0, kind: str = "released") -> tuple[float, float]:
    """Weights (render, refine) of an epoch, counted from 0.

    ``released`` [released code]: the total is refine * (distance from the coarse albedo) + render * (everything
    that looks at the photo or at the fine albedo alone), and refine does not fall below 0.2.

    ``paper``: the total is render * (pixel + identity + adversarial) + refine * (both vertex terms: distance from
    the coarse albedo, and from the sampled colours); render goes from 0 to 1 while refine goes from 1 to 0. By a
    second-hand note on the paper that could not be verified; how fast they go is taken from the released code.

    Args:
        epoch: 0, 1, ...
        render_start: added to the render weight before it is clipped [ours].
        kind: ``released`` or ``paper``.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {kind!r}")
    render = min(max(_RENDER_RISE * epoch + render_start, 0.0), 1.0)
    return render, 1.0 - render if kind == "paper" else min(max(1.0 - render, _LEAST_REFINE), 1.0)


def texture_losses(outputs: dict, rgba, morphable, weights: LossWeights, network=None,
                   identity=None) -> dict[str, tf.Tensor]:
    """Every term of the texture networks' loss, and their weighted ``total``.

    Args:
        outputs: of ``FaceModel.reconstruct``: ``coarse_texture``, ``fine_texture``,
            ``coarse_color``, ``fine_color`` (B, N, 3), ``projected_color`` (B, N, 4), RGB in
            [-1, 1]; ``coarse_render``, ``fine_render`` (B, H, W, 4), RGB in [-1, 1], alpha =
            coverage. ``skin_mask`` (B, H, W, 1), the eroded alpha, is used when it is there.
        rgba: photos (B, H, W, 4), RGB in [-1, 1], skin alpha in [0, 1].
        morphable: for its ``skin_index`` and ``symmetry_pairs``.
        weights: see ``LossWeights``.
        network: the texture network; its layers' losses are the term ``regularization``.
        identity: value of the identity term (``identity_loss``); None leaves it out.

    Returns:
        scalars ``refine``, ``project``, ``pixel``, ``coarse_pixel``, ``symmetry``, ``variance``,
        where given ``identity`` and ``regularization``, and ``total``.

    Raises:
        ValueError: an unknown set of losses or schedule, or the paper's schedule with a set that does not train
            the pixel loss.
    """
    if weights.losses not in LOSS_SETS:
        raise ValueError(f"losses must be one of {', '.join(LOSS_SETS)}, got {weights.losses!r}")
    if weights.schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {weights.schedule!r}")
    if weights.schedule == "paper" and weights.losses != "paper":
        raise ValueError("the paper's schedule weighs the pixel loss, which only the set 'paper' trains")
    squared = weights.losses == "paper"
    fine = outputs["fine_texture"]
    mask = outputs["skin_mask"] if "skin_mask" in outputs else eroded_mask(rgba[..., 3:])
    mask = mask * tf.stop_gradient(tf.round(outputs["fine_render"][..., 3:]))
    terms = {
        "refine": refine_loss(fine, outputs["coarse_texture"], squared),
        "project": project_loss(outputs["fine_color"], outputs["coarse_color"], outputs["projected_color"],
                                masked_twice=weights.losses == "released"),
        "pixel": pixel_loss(outputs["fine_render"], rgba, mask, squared),
        "coarse_pixel": pixel_loss(outputs["coarse_render"], rgba, mask, squared),
        "symmetry": symmetry_loss(fine, morphable.symmetry_pairs),
        "variance": variance_loss(fine, morphable.skin_index),
    }
    if identity is not None:
        terms["identity"] = tf.convert_to_tensor(identity, tf.float32)
    if network is not None:
        terms["regularization"] = tf.add_n(network.losses)
    terms["total"] = _total(terms, weights)
    return terms


def _total(terms, weights):
    """Weighted sum of the terms as the schedule groups them; the dense layers' L2 counts in full in both."""
    from_picture = weights.identity * terms.get("identity", 0.0)
    if weights.losses == "paper":
        from_picture += weights.pixel * terms["pixel"]
    if weights.schedule == "paper":
        total = weights.render * from_picture + weights.refine * (terms["refine"] + terms["project"])
    else:
        from_albedo = weights.symmetry * terms["symmetry"] + weights.variance * terms["variance"]
        total = weights.refine * terms["refine"] + weights.render * (terms["project"] + from_albedo + from_picture)
    return total + terms.get("regularization", 0.0)


# ---------------------------------------------------------------- terms
def refine_loss(fine, coarse, squared: bool = False) -> tf.Tensor:
    """Mean distance of the fine albedo (B, N, 3) from the coarse one: absolute, or squared."""
    difference = fine - coarse
    return tf.reduce_mean(tf.square(difference) if squared else tf.abs(difference))


def project_loss(fine_color, coarse_color, projected_color, masked_twice: bool = False) -> tf.Tensor:
    """Lit fine albedo against the photo where visible, against the lit coarse albedo elsewhere.

    Means over ALL vertices and channels, so a vertex counts the same in either part.

    Args:
        fine_color, coarse_color: (B, N, 3).
        projected_color: (B, N, 4), see ``facegcn.sampling.sample_colors``.
        masked_twice: the sampled colour, which is times visible already, is so once more: with a soft skin
            mask its target is then darker than the photo [released code].
    """
    visible = projected_color[..., 3:]
    target = projected_color[..., :3] * visible if masked_twice else projected_color[..., :3]
    seen = tf.reduce_mean(tf.abs(fine_color * visible - target))
    hidden = tf.reduce_mean(tf.abs((fine_color - coarse_color) * (1.0 - visible)))
    return seen + _HIDDEN_WEIGHT * hidden


def pixel_loss(render, rgba, mask, euclidean: bool = False) -> tf.Tensor:
    """Colour distance of a render from the photo, per pixel of a mask; 0 where the mask is empty.

    Args:
        render, rgba: (B, H, W, 4), only RGB is used.
        mask: (B, H, W, 1) in [0, 1].
        euclidean: length of the colour difference [paper] instead of the sum of its absolute
            components [released code].
    """
    difference = (render[..., :3] - rgba[..., :3]) * mask
    if euclidean:
        distance = tf.sqrt(tf.reduce_sum(tf.square(difference), axis=-1) + _TINY)
    else:
        distance = tf.reduce_sum(tf.abs(difference), axis=-1)
    return tf.math.divide_no_nan(tf.reduce_sum(distance), replicas.mean(tf.reduce_sum(mask)))


def symmetry_loss(texture, pairs) -> tf.Tensor:
    """Mean colour distance of mirrored vertices.

    Args:
        texture: (B, N, 3).
        pairs: (P, 2) vertex indices, left and right.
    """
    difference = tf.gather(texture, pairs[:, 0], axis=1) - tf.gather(texture, pairs[:, 1], axis=1)
    return tf.reduce_mean(tf.sqrt(tf.reduce_sum(tf.square(difference) + _TINY, axis=-1)))


def variance_loss(texture, skin_index) -> tf.Tensor:
    """Variance of the albedo over the skin vertices, mean of images and channels.

    Args:
        texture: (B, N, 3).
        skin_index: (S,) vertex indices.
    """
    # Weighted means over all vertices: the gradient of a gather would be a serial scatter.
    counts = np.bincount(skin_index, minlength=texture.shape[1])
    weights = (counts / len(skin_index)).astype(np.float32)[:, None]
    mean = tf.reduce_sum(texture * weights, axis=1, keepdims=True)
    return tf.reduce_mean(tf.reduce_sum(tf.square(texture - mean) * weights, axis=1))


def identity_loss(features, other) -> tf.Tensor:
    """1 - cosine of two feature vectors (B, E), mean of images [paper]."""
    lengths = tf.norm(features, axis=1) * tf.norm(other, axis=1) + 1e-8
    return 1.0 - tf.reduce_mean(tf.reduce_sum(features * other, axis=1) / lengths)


def truth_loss(texture, truth) -> tf.Tensor:
    """Mean absolute distance of the albedo (B, N, 3) from its truth, where that is known [ours].

    Args:
        texture: (B, N, 3).
        truth: (B, N, 3), NaN for photos, whose true albedo nobody knows.
    """
    truth = tf.cast(truth, tf.float32)
    known = tf.math.is_finite(truth)
    distance = tf.abs(texture - tf.where(known, truth, 0.0)) * tf.cast(known, tf.float32)
    return tf.reduce_sum(distance) / (replicas.mean(tf.reduce_sum(tf.cast(known, tf.float32))) + 1e-6)


def second_view_loss(face_model, texture, truth, second) -> tf.Tensor:
    """How far the albedo is from the truth as another picture of the same person would show it [ours].

    Both are drawn with the shape, pose, expression and light of that picture, so that a texture which only copies the
    first one pays for what it did not see and for the light it took along.

    Args:
        face_model: gives ``geometry`` and ``render``.
        texture: fine albedo (B, N, 3) in [-1, 1].
        truth: (B, N, 3), NaN for photos, whose true albedo nobody knows.
        second: (B, K) coefficients of the other picture, NaN for photos.

    Returns:
        mean absolute distance of the drawn colours in [-1, 1], over the pixels that the face covers.
    """
    truth = tf.cast(truth, tf.float32)
    known = tf.reduce_all(tf.math.is_finite(second), axis=-1) & tf.reduce_all(tf.math.is_finite(truth), axis=(1, 2))
    geometry = face_model.geometry(tf.where(known[:, None], second, 0.0))
    light = tf.maximum(geometry["shading"], 0.0)
    truth = tf.where(known[:, None, None], truth, 0.0)
    # One picture of the difference: drawing is linear in the colours.
    drawn = face_model.render(geometry["rasterization"], (texture - truth) * 0.5 * light * 0.5 + 0.5)
    weight = drawn[..., 3:] * tf.cast(known, tf.float32)[:, None, None, None]
    covered = replicas.mean(tf.reduce_sum(weight))
    return tf.math.divide_no_nan(tf.reduce_sum(tf.abs(drawn[..., :3]) * weight) * 2.0, 3.0 * covered)


# ---------------------------------------------------------------- critic
def critic_losses(critic, fake_render, rgba, share=None) -> dict[str, tf.Tensor]:
    """Terms of the critic's loss (WGAN-GP); the render is taken as given.

    Args:
        critic: model (B, H, W, 3) in [-1, 1] -> (B, 1).
        fake_render: (B, H, W, 4), seen by the critic as overlay on the photo.
        rgba: photos (B, H, W, 4).
        share: as for ``gradient_penalty``.

    Returns:
        ``critic``, to be minimised; ``wasserstein``, score of photos less that of overlays;
        ``gradient_penalty``.
    """
    real, fake = rgba[..., :3], tf.stop_gradient(overlay(fake_render, rgba))
    distance = (tf.reduce_mean(critic(real, training=True)) - tf.reduce_mean(critic(fake, training=True)))
    penalty = gradient_penalty(critic, real, fake, share)
    return {"critic": penalty - distance, "wasserstein": distance, "gradient_penalty": penalty}


def gradient_penalty(critic, real, fake, share=None) -> tf.Tensor:
    """10 * mean (|gradient of the score| - 1)^2 at a random point between each two images.

    Args:
        critic: as for ``critic_losses``.
        real, fake: (B, H, W, 3).
        share: (B, 1, 1, 1) of ``real`` in each point, in [0, 1]; None draws it.
    """
    if share is None:
        share = tf.random.uniform((tf.shape(real)[0], 1, 1, 1))
    between = share * real + (1.0 - share) * fake
    with tf.GradientTape() as tape:
        tape.watch(between)
        score = tf.reduce_sum(critic(between, training=True))
    squares = tf.reduce_sum(tf.square(tape.gradient(score, between)), axis=[1, 2, 3])
    return _GRADIENT_PENALTY * tf.reduce_mean(tf.square(tf.sqrt(squares + _TINY) - 1.0))


def generator_adversarial_loss(critic, fine_render, rgba) -> tf.Tensor:
    """Minus the critic's mean score of the overlay; to be weighted (1e-3 in the paper)."""
    return -tf.reduce_mean(critic(overlay(fine_render, rgba), training=True))
