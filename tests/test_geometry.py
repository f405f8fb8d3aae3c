"""facegcn.geometry and facegcn.camera: known values, slow oracles, gradients, bad shapes."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.spatial.transform import Rotation

from facegcn import camera, geometry
from facegcn.backends.row_gathers import gather_rows, resolve_backend, scatter_rows

BACKENDS = ("numba", "tensorflow")
TETRAHEDRON = np.float32([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
TETRAHEDRON_FACES = np.int32([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])  # all face outwards


def directional_error(function, value, rng, step=1e-2):
    """Relative difference of the gradient of sum(weights * function) from central differences."""
    value = tf.constant(value, tf.float32)
    weights = rng.normal(size=function(value).shape).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(value)
        total = tf.reduce_sum(function(value) * weights)
    direction = rng.normal(size=value.shape).astype(np.float32)
    predicted = float(tf.reduce_sum(tape.gradient(total, value) * direction))
    ahead, behind = (np.sum(np.float64(function(value + sign * step * direction)) * weights)
                     for sign in (1, -1))
    measured = (ahead - behind) / (2 * step)
    return abs(predicted - measured) / max(abs(measured), 0.1)


# ---------------------------------------------------------------- rotations
def test_rotation_matrix_turns_about_x_then_y_then_z(rng):
    angles = rng.uniform(-3, 3, (5, 3)).astype(np.float32)
    expected = Rotation.from_euler("xyz", angles).as_matrix()
    np.testing.assert_allclose(geometry.rotation_matrix(angles), expected, atol=2e-6)


def test_positive_yaw_turns_the_nose_to_plus_x():
    nose = np.float32([[[0, 0, 1]]])
    turned = geometry.rotate(nose, np.float32([[0, np.pi / 2, 0]]))
    np.testing.assert_allclose(turned, [[[1, 0, 0]]], atol=1e-6)


def test_rotate_is_points_times_transposed_matrix(rng):
    points = rng.normal(size=(2, 7, 3)).astype(np.float32)
    angles = rng.normal(size=(2, 3)).astype(np.float32)
    matrices = geometry.rotation_matrix(angles).numpy()
    expected = np.stack([[matrices[b] @ p for p in points[b]] for b in range(2)])
    np.testing.assert_allclose(geometry.rotate(points, angles), expected, atol=1e-5)
    assert directional_error(lambda a: geometry.rotate(points, a), angles, rng) < 1e-2


# ---------------------------------------------------------------- normals
def normals_oracle(vertices, triangles):
    """Vertex normals of one mesh (N, 3), face by face."""
    sums = np.zeros(vertices.shape)
    for face in triangles:
        a, b, c = np.float64(vertices[face])
        sums[face] += np.cross(a - b, b - c)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.divide(sums, lengths, out=np.zeros_like(sums), where=lengths > 0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_vertex_normals_match_the_oracle(rng, backend):
    vertices = rng.normal(size=(3, 30, 3)).astype(np.float32)
    triangles = np.int32([rng.choice(30, 3, replace=False) for _ in range(50)])
    normals = geometry.vertex_normals(vertices, triangles, backend).numpy()
    for image in range(3):
        np.testing.assert_allclose(normals[image], normals_oracle(vertices[image], triangles), atol=1e-5)


def test_normals_point_outwards():
    normals = geometry.vertex_normals(TETRAHEDRON[None], TETRAHEDRON_FACES)[0].numpy()
    outwards = TETRAHEDRON - TETRAHEDRON.mean(axis=0)
    assert ((normals * outwards).sum(axis=1) > 0.3).all()
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_vertex_normals_gradient(rng, backend):
    vertices = TETRAHEDRON[None] + rng.normal(scale=0.1, size=(2, 4, 3)).astype(np.float32)
    error = directional_error(
        lambda v: geometry.vertex_normals(v, TETRAHEDRON_FACES, backend), vertices, rng, step=1e-3)
    assert error < 1e-2


@pytest.mark.parametrize("backend", BACKENDS)
def test_lonely_vertex_and_flat_face_have_zero_normal_and_finite_gradient(backend):
    vertices = tf.constant([[[0, 0, 0], [1, 0, 0], [2, 0, 0], [5, 5, 5]]], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(vertices)
        normals = geometry.vertex_normals(vertices, [[0, 1, 2]], backend)
    np.testing.assert_array_equal(normals, np.zeros((1, 4, 3)))
    assert np.isfinite(tape.gradient(normals, vertices)).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", (0, 1, 3))
def test_vertex_normals_of_any_batch_in_a_compiled_function(backend, batch):
    @tf.function(input_signature=[tf.TensorSpec((None, 4, 3))])
    def normals(vertices):
        result = geometry.vertex_normals(vertices, TETRAHEDRON_FACES, backend)
        assert result.shape.as_list() == [None, 4, 3]
        return result

    result = normals(np.repeat(TETRAHEDRON[None], batch, axis=0)).numpy()
    assert result.shape == (batch, 4, 3)
    np.testing.assert_allclose(np.linalg.norm(result, axis=2), 1, atol=1e-6)


def test_geometry_refuses_bad_shapes():
    with pytest.raises(ValueError, match=r"angles must have shape \(B, 3\), got \(4, 2\)"):
        geometry.rotation_matrix(np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"points must have shape \(B, N, 3\), got \(4, 3\)"):
        geometry.rotate(np.zeros((4, 3)), np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"triangles must have shape \(F, 3\), got \(2, 4\)"):
        geometry.vertex_normals(np.zeros((1, 4, 3)), np.zeros((2, 4), np.int32))
    with pytest.raises(Exception, match="only rows 0..3"):
        geometry.vertex_normals(np.zeros((1, 4, 3)), [[0, 1, 4]], "numba")


# ---------------------------------------------------------------- gather and scatter
@pytest.mark.parametrize("backend", BACKENDS)
def test_scatter_rows_adds_and_gather_is_its_gradient(rng, backend):
    values = rng.normal(size=(2, 6, 3)).astype(np.float32)
    index = rng.integers(0, 4, (6, 2)).astype(np.int32)
    expected = np.zeros((2, 5, 3))
    for image, row, column in np.ndindex(2, 6, 2):
        expected[image, index[row, column]] += values[image, row]
    np.testing.assert_allclose(scatter_rows(values, tf.constant(index), 5, backend), expected, atol=1e-5)
    for function in (lambda v: scatter_rows(v, tf.constant(index), 6, backend),
                     lambda v: gather_rows(v, tf.constant(index), backend)):
        assert directional_error(function, values, rng) < 1e-2


def test_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="backend must be one of auto, numba, tensorflow, got 'cuda'"):
        resolve_backend("cuda")


# ---------------------------------------------------------------- camera
def test_projection_of_known_points():
    half = 10 * np.tan(np.radians(12.5936 / 2))  # half height of the picture in the plane z = 0
    points = np.float32([[[0, 0, 0], [half, half, 0], [0, -half, 0], [half / 2, 0, 5]]])
    np.testing.assert_allclose(camera.project(points)[0], [[0, 0], [1, -1], [0, 1], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(camera.to_pixels([[-1.0, -1], [0, 1]], 224), [[0, 0], [112, 224]], atol=1e-4)


def test_clip_coordinates_agree_with_the_projection_and_the_planes(rng):
    points = rng.uniform(-1, 1, (2, 9, 3)).astype(np.float32)
    clip = camera.clip_coordinates(points, 224, 224).numpy()
    np.testing.assert_allclose(clip[..., :2] / clip[..., 3:] * [1, -1], camera.project(points), atol=1e-6)
    np.testing.assert_allclose(clip[..., 3], camera.CAMERA_DISTANCE - points[..., 2], rtol=1e-6)
    on_planes = np.float32([[[0, 0, 10 - camera.NEAR], [0, 0, 10 - camera.FAR]]])
    clip = camera.clip_coordinates(on_planes, 224, 224).numpy()[0]
    np.testing.assert_allclose(clip[:, 2] / clip[:, 3], [-1, 1], atol=2e-3)
    wide = camera.clip_coordinates(points, 100, 200).numpy()
    np.testing.assert_allclose(wide[..., 0] * 2, camera.clip_coordinates(points, 100, 100)[..., 0], rtol=1e-5)


def test_look_at_maps_eye_centre_and_up(rng):
    eye, centre, up = rng.normal(size=(3, 4, 3)).astype(np.float32)
    view = camera.look_at(eye, centre, up).numpy()
    origin = camera.transform(eye[:, None], view).numpy()[:, 0]
    np.testing.assert_allclose(origin, np.tile([0, 0, 0, 1], (4, 1)), atol=1e-5)
    gaze = camera.transform(centre[:, None], view).numpy()[:, 0]
    distance = np.linalg.norm(centre - eye, axis=1)
    np.testing.assert_allclose(gaze[:, :3], np.stack([0 * distance, 0 * distance, -distance], 1), atol=1e-5)
    above = camera.transform((eye + up)[:, None], view).numpy()[:, 0]
    np.testing.assert_allclose(above[:, 0], 0, atol=1e-5)
    assert (above[:, 1] > 0).all()
    np.testing.assert_allclose(np.linalg.det(view[:, :3, :3]), 1, rtol=1e-5)


def test_perspective_puts_the_frustum_on_the_cube():
    matrices = camera.perspective(2.0, [90.0, 60.0], 0.5, 10.0).numpy()
    assert matrices.shape == (2, 4, 4)
    for matrix, tangent in zip(matrices, (1.0, np.tan(np.radians(30)))):
        for depth, z in ((0.5, -1), (10.0, 1)):
            corner = matrix @ [2 * tangent * depth, tangent * depth, -depth, 1]
            np.testing.assert_allclose(corner[:3] / corner[3], [1, 1, z], atol=1e-5)


def test_degenerate_cameras_are_refused():
    eye = np.float32([[0, 0, 1]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="position is the point it looks at"):
        camera.look_at(eye, eye, [[0.0, 1, 0]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="up vector"):
        camera.look_at(eye, [[0.0, 0, 0]], [[0.0, 0, 2]])
    with pytest.raises(ValueError, match=r"vertices must have shape \(B, N, 3\), got \(5, 3\)"):
        camera.project(np.zeros((5, 3)))
