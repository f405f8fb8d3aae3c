"""facegcn.renderer: known values, a NumPy Phong, gradients of every input, a pose that is found."""

import numpy as np
import pytest
import tensorflow as tf

from facegcn import camera, geometry
from facegcn.rasterizer import rasterize
from facegcn.renderer import mesh_renderer, render_colors

SQUARE = np.float32([[-4, -4, 0], [4, -4, 0], [4, 4, 0], [-4, 4, 0]])  # fills the picture, faces +z
SQUARE_FACES = np.int32([[0, 1, 2], [0, 2, 3]])
FACING = np.float32([[0, 0, 1]] * 4)

CUBE = np.float32([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
CUBE_FACES = np.int32([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                       [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])


def square_scene(**changes):
    """Arguments that draw a white square, seen and lit from (0, 0, 5)."""
    scene = dict(vertices=SQUARE[None], triangles=SQUARE_FACES, normals=FACING[None],
                 diffuse_colors=np.ones((1, 4, 3), np.float32), camera_position=[0.0, 0, 5],
                 camera_lookat=[0.0, 0, 0], camera_up=[0.0, 1, 0], light_positions=[[0.0, 0, 5]],
                 light_intensities=[[1.0, 1, 1]], image_width=9, image_height=7)
    return {**scene, **changes}


def smooth_scene(rng, batch=2):
    """A bumpy sheet beyond the borders of the picture, with every float argument a tensor.

    Its picture is smooth in all of them: no silhouette, every light in front, colours that
    hardly bend from one triangle to the next.
    """
    side = 7
    u, v = np.meshgrid(np.linspace(-4, 4, side), np.linspace(-4, 4, side))
    sheet = np.stack([u, v, 0.2 * np.sin(u) * np.cos(v)], axis=-1).reshape(-1, 3)
    cell = np.arange(side * side).reshape(side, side)
    triangles = np.concatenate([
        np.stack([cell[:-1, :-1], cell[:-1, 1:], cell[1:, 1:]], -1).reshape(-1, 3),
        np.stack([cell[:-1, :-1], cell[1:, 1:], cell[1:, :-1]], -1).reshape(-1, 3)]).astype(np.int32)
    vertices = np.float32([sheet + rng.normal(scale=0.03, size=sheet.shape) for _ in range(batch)])

    def uniform(low, high, *shape):
        return rng.uniform(low, high, shape).astype(np.float32)

    def gradual(low, high, channels):
        waves = np.sin(sheet[:, :1] * rng.uniform(0.2, 0.6, channels) + rng.uniform(0, 6, channels)
                       + sheet[:, 1:2] * rng.uniform(0.2, 0.6, channels))
        return np.float32([low + (high - low) * (0.5 + 0.5 * waves)] * batch)

    floats = dict(
        vertices=vertices, normals=geometry.vertex_normals(vertices, triangles).numpy(),
        diffuse_colors=gradual(0.2, 1, 3),
        camera_position=np.float32([0.3, 0.2, 5]) + uniform(-0.2, 0.2, batch, 3),
        camera_lookat=uniform(-0.1, 0.1, batch, 3), camera_up=np.float32([0.1, 1, 0.1]),
        light_positions=np.float32([[1, 2, 4], [-2, 0, 3]]) + uniform(-0.3, 0.3, batch, 2, 3),
        light_intensities=uniform(0.3, 1, batch, 2, 3), specular_colors=gradual(0.2, 1, 3),
        shininess_coefficients=gradual(2, 5, 1)[..., 0], ambient_color=uniform(0.1, 0.3, batch, 3),
        fov_y=uniform(35, 40, batch), near_clip=np.float32(0.1), far_clip=np.float32(20))
    return floats, dict(triangles=triangles, image_width=26, image_height=20)


# ---------------------------------------------------------------- known values
def test_colours_are_drawn_as_they_are():
    colors = np.float32([[0.2, 0.4, 0.6]] * 3)
    corner = np.float32([[-1, 1, 0, 1], [-1, -1, 0, 1], [1, 1, 0, 1]])
    drawn = rasterize(corner[None], [[0, 1, 2]], 8, 8)
    image = render_colors(drawn, [[0, 1, 2]], colors[None])[0].numpy()
    covered = drawn.triangle_ids[0].numpy() == 0
    assert covered[0, 0] and not covered[7, 7]
    np.testing.assert_allclose(image[covered], np.tile([0.2, 0.4, 0.6, 1], (covered.sum(), 1)), atol=1e-6)
    np.testing.assert_array_equal(image[~covered], 0)


def test_centre_of_a_square_seen_and_lit_from_the_front():
    diffuse, intensity = np.float32([0.2, 0.4, 0.8]), np.float32([2, 1, 0.5])
    scene = square_scene(diffuse_colors=np.tile(diffuse, (1, 4, 1)), light_intensities=[intensity])
    np.testing.assert_allclose(mesh_renderer(**scene)[0, 3, 4], [*diffuse * intensity, 1], atol=1e-6)
    scene.update(ambient_color=[0.1, 0.2, 0.3], specular_colors=np.full((1, 4, 3), 0.5, np.float32),
                 shininess_coefficients=6.0)
    expected = diffuse * intensity + 0.5 * intensity + diffuse * [0.1, 0.2, 0.3]
    np.testing.assert_allclose(mesh_renderer(**scene)[0, 3, 4], [*expected, 1], atol=1e-5)


def test_light_behind_the_surface_gives_nothing():
    scene = square_scene(light_positions=[[0.0, 0, -5]], shininess_coefficients=2.0,
                         specular_colors=np.ones((1, 4, 3), np.float32))
    np.testing.assert_array_equal(mesh_renderer(**scene)[..., :3], 0)
    np.testing.assert_array_equal(mesh_renderer(**scene)[..., 3], 1)


def test_clipping_planes_and_background():
    for planes in (dict(far_clip=4.0), dict(near_clip=6.0)):
        np.testing.assert_array_equal(mesh_renderer(**square_scene(**planes)), np.zeros((1, 7, 9, 4)))


def phong_oracle(scene, image, row, column):
    """RGB of one pixel of the plane z = 0, one light after the other."""
    aspect = scene["image_width"] / scene["image_height"]
    tangent = np.tan(np.radians(scene["fov_y"] / 2))
    x = ((2 * column + 1) / scene["image_width"] - 1) * tangent * aspect
    y = (1 - (2 * row + 1) / scene["image_height"]) * tangent
    eye = np.float64(scene["camera_position"])
    point = eye + np.array([x, y, -1]) * eye[2]  # the camera looks along -z

    def unit(vector):
        return vector / np.linalg.norm(vector)

    normal = unit(np.float64(scene["normals"][image, 0]))
    diffuse, specular = scene["diffuse_colors"][image, 0], scene["specular_colors"][image, 0]
    colour = np.float64(scene["ambient_color"][image]) * diffuse
    for position, intensity in zip(scene["light_positions"][image], scene["light_intensities"][image]):
        light = unit(position - point)
        cosine = max(normal @ light, 0)
        mirrored = 2 * cosine * normal - light
        glance = max(mirrored @ unit(eye - point), 0) if cosine > 0 else 0
        colour += intensity * (diffuse * cosine + specular * glance ** scene["shininess_coefficients"][image])
    return colour


def test_phong_matches_the_oracle(rng):
    normals = np.float32([[0.3, -0.2, 1], [-0.5, 0.1, 1]])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    scene = square_scene(
        vertices=np.stack([SQUARE] * 2), normals=np.repeat(normals[:, None], 4, axis=1),
        diffuse_colors=np.repeat(rng.uniform(size=(2, 1, 3)), 4, axis=1).astype(np.float32),
        specular_colors=np.repeat(rng.uniform(size=(2, 1, 3)), 4, axis=1).astype(np.float32),
        light_positions=rng.uniform(-3, 3, (2, 3, 3)).astype(np.float32),
        light_intensities=rng.uniform(0, 2, (2, 3, 3)).astype(np.float32),
        ambient_color=rng.uniform(0, 0.5, (2, 3)).astype(np.float32),
        shininess_coefficients=np.float32([2, 7]), fov_y=30.0)
    images = mesh_renderer(**scene).numpy()
    for image, row, column in np.ndindex(2, 7, 9):
        np.testing.assert_allclose(images[image, row, column, :3], phong_oracle(scene, image, row, column),
                                   atol=2e-5)


def test_picture_agrees_with_the_face_camera():
    """The face camera is mesh_renderer's camera with its own numbers."""
    vertices = geometry.rotate(0.5 * CUBE[None], [[0.4, 0.3, 0.2]])
    colors = (CUBE[None] + 1) / 2
    drawn = rasterize(camera.clip_coordinates(vertices, 40, 60), CUBE_FACES, 40, 60)
    expected = render_colors(drawn, CUBE_FACES, colors)
    image = mesh_renderer(vertices, CUBE_FACES, vertices, colors, [0.0, 0, 10], [0.0, 0, 0], [0.0, 1, 0],
                          [[0.0, 0, 0]], [[0.0, 0, 0]], 60, 40, ambient_color=[1.0, 1, 1],
                          fov_y=camera.FOV_Y, near_clip=camera.NEAR, far_clip=camera.FAR)
    assert 0.1 < expected[..., 3].numpy().mean() < 0.9
    np.testing.assert_allclose(image, expected, atol=1e-4)


# ---------------------------------------------------------------- shapes
def test_shared_values_equal_values_per_image(rng):
    floats, fixed = smooth_scene(rng)
    shared = {name: value[0] if name in ("camera_position", "camera_lookat", "light_positions",
                                         "light_intensities", "ambient_color", "fov_y") else value
              for name, value in floats.items()}
    shared["shininess_coefficients"] = 3.0
    repeated = {name: np.stack([value] * 2) if name in (
        "camera_position", "camera_lookat", "camera_up", "light_positions", "light_intensities",
        "ambient_color", "fov_y", "near_clip", "far_clip") else value for name, value in shared.items()}
    repeated["shininess_coefficients"] = np.full(floats["shininess_coefficients"].shape, 3, np.float32)
    one, other = (mesh_renderer(**floats, **fixed) for floats in (shared, repeated))
    np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("batch", (0, 1, 3))
def test_any_batch_in_a_compiled_function(batch):
    @tf.function(input_signature=[tf.TensorSpec((None, 4, 3))])
    def draw(vertices):
        with tf.GradientTape() as tape:
            tape.watch(vertices)
            image = mesh_renderer(**square_scene(
                vertices=vertices, normals=vertices, diffuse_colors=vertices))
        assert image.shape.as_list() == [None, 7, 9, 4]
        return image, tape.gradient(image, vertices)

    image, gradient = draw(np.repeat(SQUARE[None] + 5, batch, axis=0))
    assert image.shape == (batch, 7, 9, 4) and gradient.shape == (batch, 4, 3)
    assert np.isfinite(image).all() and np.isfinite(gradient).all()


@pytest.mark.parametrize("change, message", (
    (dict(vertices=SQUARE), r"vertices must have shape \(B, N, 3\), got \(4, 3\)"),
    (dict(normals=FACING), r"normals must have shape \(B, N, 3\), got \(4, 3\)"),
    (dict(diffuse_colors=np.ones((1, 5, 3))), r"diffuse_colors must have the shape of vertices, \(1, 4, 3\)"),
    (dict(camera_position=[0.0, 0]), r"camera_position must have shape \(3\) or \(B, 3\) .* got \(1, 2\)"),
    (dict(camera_lookat=np.zeros((2, 3))), r"camera_lookat must .* B = 1 images, got \(2, 3\)"),
    (dict(camera_up=np.zeros((1, 1, 3))), r"camera_up must have shape"),
    (dict(light_positions=[0.0, 0, 5]), r"light_positions must have shape \(L, 3\) or \(B, L, 3\)"),
    (dict(light_intensities=np.ones((2, 3))), "must hold the same number of lights"),
    (dict(ambient_color=np.ones((1, 4))), "ambient_color must have shape"),
    (dict(fov_y=[40.0, 30.0]), "fov_y must have shape"),
    (dict(near_clip=np.ones((1, 1))), "near_clip must have shape"),
    (dict(image_width=0), "image_width must be a whole number of pixels >= 1, got 0"),
    (dict(image_height=2.5), "image_height must be a whole number"),
    (dict(triangles=np.zeros((2, 4), np.int32)), r"triangles must have shape \(F, 3\)"),
    (dict(specular_colors=np.ones((1, 4, 3))), "specular_colors and shininess_coefficients must be given"),
    (dict(shininess_coefficients=2.0), "must be given together"),
    (dict(specular_colors=np.ones((1, 4, 3)), shininess_coefficients=np.ones((1, 5))),
     r"shininess_coefficients must be a number, \(B,\) or \(B, N\)")))
def test_bad_shapes_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        mesh_renderer(**square_scene(**change))


# ---------------------------------------------------------------- gradients
def test_gradients_of_every_input_match_finite_differences(rng):
    floats, fixed = smooth_scene(rng)
    weights = tf.constant(rng.uniform(size=(2, 20, 26, 4)), tf.float64)

    @tf.function
    def total(inputs):
        return tf.reduce_sum(tf.cast(mesh_renderer(**inputs, **fixed), tf.float64) * weights)

    inputs = {name: tf.constant(value) for name, value in floats.items()}
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = total(inputs)
    gradients = tape.gradient(value, inputs)
    for name in floats:
        if name in ("near_clip", "far_clip"):
            continue
        # along the gradient, where the many pixels' terms do not cancel
        direction = gradients[name] / tf.sqrt(tf.reduce_mean(tf.square(gradients[name])))
        step = 5e-3 if name == "fov_y" else 5e-4
        ahead, behind = (total({**inputs, name: inputs[name] + sign * step * direction}) for sign in (1, -1))
        measured = float(ahead - behind) / (2 * step)
        predicted = float(tf.reduce_sum(gradients[name] * direction))
        assert abs(measured - predicted) < 0.01 * abs(measured), (name, measured, predicted)
    for name in ("near_clip", "far_clip"):  # they move depth, which no colour depends on
        assert abs(float(gradients[name])) < 1e-3


def test_gradients_are_finite_where_highlights_end(rng):
    """At n.l = 0, r.v = 0 and on the background."""
    scene = square_scene(vertices=0.2 * SQUARE[None], light_positions=[[5.0, 0, 0], [0, 0, -3]],
                         light_intensities=[[1.0, 1, 1]] * 2,
                         specular_colors=np.ones((1, 4, 3), np.float32), shininess_coefficients=0.5)
    inputs = {name: tf.constant(scene.pop(name), tf.float32) for name in (
        "vertices", "normals", "light_positions", "specular_colors", "shininess_coefficients")}
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        image = mesh_renderer(**inputs, **scene)
    assert 0 < image[..., 3].numpy().mean() < 1
    for name, gradient in tape.gradient(image, inputs).items():
        assert np.isfinite(gradient).all(), name


@pytest.mark.parametrize("target", ((0.35, -0.3, 0.25), (0.3, 0.4, -0.5)))
def test_pose_of_a_cube_is_found_by_gradient_descent(target):
    """From a wrong pose, the difference of pictures leads to the true rotation."""
    angles = tf.Variable(np.zeros((1, 3), np.float32))
    steps = 60
    optimizer = tf.keras.optimizers.Adam(tf.keras.optimizers.schedules.CosineDecay(0.1, steps))
    colors = (CUBE[None] + 1) / 2

    def draw(rotation):
        vertices = geometry.rotate(CUBE[None], rotation)
        return mesh_renderer(vertices, CUBE_FACES, vertices / np.sqrt(3.0), colors, [0.0, 0, 6], [0.0, 0, 0],
                             [0.0, 1, 0], [[0.0, 0, 6]], [[1.0, 1, 1]], 64, 48, ambient_color=[0.3] * 3)

    wanted = draw([target])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(draw(angles) - wanted))
        optimizer.apply_gradients([(tape.gradient(loss, angles), angles)])
        return loss

    losses = [float(step()) for _ in range(steps)]
    assert losses[-1] < 0.02 * losses[0]
    np.testing.assert_allclose(angles, [target], atol=0.03)
