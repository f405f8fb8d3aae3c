"""Differentiable pictures of a mesh: lit vertex colours, or Phong shading with point lights.

``mesh_renderer`` takes the arguments of the function of that name in the package mesh-renderer
1.4 (Genova et al. 2018), which cannot be installed beside TensorFlow 2, and draws the same
pictures, but for two things. Highlights: that package divides the cosine r.v by its norm over the
whole picture, so that they all but vanish; here they are Phong's. Equally near triangles: the
first wins here, the last there.
Letters: B images, N vertices, F triangles, L lights, H W pixels. Picture row 0 is the top.
"""

from __future__ import annotations

import tensorflow as tf

from facegcn import camera
from facegcn.rasterizer import Rasterization, interpolate, rasterize


def render_colors(rasterization: Rasterization, triangles, colors) -> tf.Tensor:
    """Draws colours that are already lit, on black.

    Args:
        rasterization: result of ``rasterizer.rasterize``.
        triangles: (F, 3) int32, those that were rasterized.
        colors: (B, N, 3) RGB of the vertices, usually in [0, 1].

    Returns:
        (B, H, W, 4) RGBA: RGB in the range of ``colors``, 0 where there is no triangle; alpha is
        coverage, 0 or 1, without gradient.

    Raises:
        ValueError: ``colors`` has another shape.
    """
    colors = tf.convert_to_tensor(colors, tf.float32)
    if colors.shape.rank != 3 or colors.shape[2] != 3:
        raise ValueError(f"colors must have shape (B, N, 3), got {colors.shape}")
    return tf.concat([interpolate(colors, triangles, rasterization), _coverage(rasterization)], axis=3)


def mesh_renderer(vertices, triangles, normals, diffuse_colors, camera_position, camera_lookat,
                  camera_up, light_positions, light_intensities, image_width, image_height,
                  specular_colors=None, shininess_coefficients=None, ambient_color=None,
                  fov_y=40.0, near_clip=0.01, far_clip=10.0) -> tf.Tensor:
    """Draws a mesh with Phong shading, seen by a perspective camera.

    Colour = ambient x diffuse + sum over the lights of
    intensity x (diffuse x max(n.l, 0) + specular x max(r.v, 0)^shininess),
    n normal, l towards the light, r = 2 (n.l) n - l, v towards the camera, all unit vectors at
    the pixel; no specular part where n.l <= 0. Lights do not fade with distance or cast shadows.

    "Per image" below means (B, ...), or one value without the leading B for all images.

    Args:
        vertices: (B, N, 3) world positions.
        triangles: (F, 3) int32 vertex indices, 0-based; both sides are drawn.
        normals: (B, N, 3) unit normals in world axes.
        diffuse_colors: (B, N, 3) RGB in [0, 1].
        camera_position: per image (3,), world position of the camera.
        camera_lookat: per image (3,), world point it looks at.
        camera_up: per image (3,), world direction that is up in the picture.
        light_positions: per image (L, 3), world positions.
        light_intensities: per image (L, 3), RGB, may be above 1.
        image_width, image_height: size W, H of the picture in pixels.
        specular_colors: None or (B, N, 3) RGB in [0, 1]; needs shininess_coefficients.
        shininess_coefficients: None, a number, (B,) or (B, N): the exponent, >= 0.
        ambient_color: None (black) or per image (3,), RGB.
        fov_y: per image, vertical field of view in degrees.
        near_clip, far_clip: per image, distances of the clipping planes, 0 < near < far.

    Returns:
        (B, H, W, 4) RGBA: linear RGB >= 0, not clipped at 1, black where there is no triangle;
        alpha is coverage, 0 or 1. Differentiable in every float argument; coverage has no gradient.

    Raises:
        ValueError: an argument has another shape, or only one of the specular pair is given.
        tf.errors.InvalidArgumentError: the camera's directions are degenerate.
    """
    vertices = _per_vertex("vertices", vertices)
    normals = _per_vertex("normals", normals, like=vertices)
    diffuse_colors = _per_vertex("diffuse_colors", diffuse_colors, like=vertices)
    image_width, image_height = _pixels("image_width", image_width), _pixels("image_height", image_height)
    if (specular_colors is None) != (shininess_coefficients is None):
        raise ValueError("specular_colors and shininess_coefficients must be given together")
    attributes = [normals, vertices, diffuse_colors]
    shininess = None
    if specular_colors is not None:
        attributes.append(_per_vertex("specular_colors", specular_colors, like=vertices))
        shininess = _shininess(shininess_coefficients, vertices)
        attributes.append(shininess)

    eye, lookat, up = (_per_image(name, value, vertices, (3,)) for name, value in (
        ("camera_position", camera_position), ("camera_lookat", camera_lookat), ("camera_up", camera_up)))
    fov_y, near_clip, far_clip = (_per_image(name, value, vertices, ()) for name, value in (
        ("fov_y", fov_y), ("near_clip", near_clip), ("far_clip", far_clip)))
    lights = [_per_image(name, value, vertices, (None, 3)) for name, value in (
        ("light_positions", light_positions), ("light_intensities", light_intensities))]
    if not lights[0].shape.is_compatible_with(lights[1].shape):
        raise ValueError(f"light_positions {lights[0].shape} and light_intensities {lights[1].shape} "
                         "must hold the same number of lights")
    ambient_color = tf.zeros(3) if ambient_color is None else ambient_color
    ambient = _per_image("ambient_color", ambient_color, vertices, (3,))

    matrices = tf.matmul(camera.perspective(image_width / image_height, fov_y, near_clip, far_clip),
                         camera.look_at(eye, lookat, up))
    rasterization = rasterize(camera.transform(vertices, matrices), triangles, image_height, image_width)
    pixels = interpolate(tf.concat(attributes, axis=2), triangles, rasterization)
    rgb = _phong(pixels, eye, *lights, ambient)
    return tf.concat([rgb, _coverage(rasterization)], axis=3)


def _phong(pixels, eye, light_positions, light_intensities, ambient) -> tf.Tensor:
    """Phong shading of interpolated attributes -> RGB (B, H, W, 3).

    ``pixels`` (B, H, W, 9 or 13) holds normal, position and diffuse colour, then perhaps specular
    colour and shininess.
    """
    normal = _unit(pixels[..., 0:3])[:, None]  # from here on (B, lights, H, W, channels)
    position, diffuse = pixels[..., 3:6][:, None], pixels[..., 6:9][:, None]
    to_light = _unit(light_positions[:, :, None, None] - position)
    intensity = light_intensities[:, :, None, None]
    # pixels without a triangle have the colour 0: black, and without gradient
    cosine = tf.clip_by_value(_dot(normal, to_light), 0.0, 1.0)
    light = diffuse * cosine
    if pixels.shape[-1] > 9:
        specular, shininess = pixels[..., 9:12][:, None], pixels[..., 12:][:, None]
        mirrored = _unit(2.0 * cosine * normal - to_light)
        to_camera = _unit(eye[:, None, None, None] - position)
        glance = _dot(mirrored, to_camera)
        lit = (cosine > 0) & (glance > 0)
        power = tf.pow(tf.where(lit, tf.minimum(glance, 1.0), 1.0), shininess)  # no 0 ** s: no NaN gradient
        light += specular * tf.where(lit, power, 0.0)
    return ambient[:, None, None] * pixels[..., 6:9] + tf.reduce_sum(light * intensity, axis=1)


def _coverage(rasterization: Rasterization) -> tf.Tensor:
    """Alpha (B, H, W, 1): 1 where there is a triangle, else 0."""
    return tf.cast(rasterization.triangle_ids >= 0, tf.float32)[..., None]


def _unit(vectors) -> tf.Tensor:
    """Vectors of length 1 along the last axis; zero vectors stay zero, with finite gradient."""
    return tf.math.l2_normalize(vectors, axis=-1)


def _dot(first, second) -> tf.Tensor:
    """Dot product along the last axis, which stays."""
    return tf.reduce_sum(first * second, axis=-1, keepdims=True)


# -------------------------------------------------------------------- checks
def _pixels(name: str, value) -> int:
    """A picture size as an int >= 1, or ValueError."""
    if int(value) != value or value < 1:
        raise ValueError(f"{name} must be a whole number of pixels >= 1, got {value!r}")
    return int(value)


def _per_vertex(name: str, value, like=None) -> tf.Tensor:
    """A (B, N, 3) argument as a tensor, or ValueError; B and N those of ``like`` (``vertices``)."""
    value = tf.convert_to_tensor(value, tf.float32)
    if value.shape.rank != 3 or value.shape[2] not in (3, None):
        raise ValueError(f"{name} must have shape (B, N, 3), got {value.shape}")
    if like is not None and not value.shape.is_compatible_with(like.shape):
        raise ValueError(f"{name} must have the shape of vertices, {like.shape}, got {value.shape}")
    return value


def _per_image(name: str, value, vertices, trailing: tuple) -> tf.Tensor:
    """An argument of shape ``trailing`` or (B, *trailing) as (B, *trailing), or ValueError."""
    value = tf.convert_to_tensor(value, tf.float32)
    if value.shape.rank == len(trailing):
        value = value[None]
    wanted = tf.TensorShape((None, *trailing))
    batch = vertices.shape[0]
    if not value.shape.is_compatible_with(wanted) or (
            batch is not None and value.shape[0] not in (1, batch, None)):
        inner = ", ".join("L" if size is None else str(size) for size in trailing)
        raise ValueError(f"{name} must have shape ({inner}) or (B{', ' * bool(trailing)}{inner}) "
                         f"with B = {batch} images, got {value.shape}")
    full = tf.concat([tf.shape(vertices)[:1], tf.shape(value)[1:]], axis=0)
    result = tf.broadcast_to(value, full)
    result.set_shape((batch, *value.shape[1:]))
    return result


def _shininess(value, vertices) -> tf.Tensor:
    """The shininess argument, a number, (B,) or (B, N), as (B, N, 1), or ValueError."""
    value = tf.convert_to_tensor(value, tf.float32)
    if value.shape.rank == 2:
        if not value.shape.is_compatible_with(vertices.shape[:2]):
            raise ValueError(f"shininess_coefficients must be a number, (B,) or (B, N) like vertices "
                             f"{vertices.shape}, got {value.shape}")
        return value[..., None]
    per_image = _per_image("shininess_coefficients", value, vertices, ())
    return tf.broadcast_to(per_image[:, None, None], tf.concat([tf.shape(vertices)[:2], (1,)], axis=0))
