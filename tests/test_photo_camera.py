"""The cameras of exported files show the face where the project's camera, and the photo, do."""

import math

import numpy as np
import pytest
import trimesh

from facegcn import camera
from facegcn.export.gltf import Mesh, Scene, write_glb
from facegcn.export.photo_camera import crop_camera, photo_camera, pixels_of
from facegcn.export.scene import Camera
from facegcn.geometry import rotate
from tests.faces import half_ellipsoid
from tests.gltf_files import accessor, glb_parts

SIZE = 224


def posed():
    """(N, 3) vertices of a turned face, and its triangles."""
    face = half_ellipsoid()
    turned = rotate(np.float32(face.mean_shape[None]), np.float32([[0.1, -0.5, 0.05]]))[0].numpy()
    return turned + np.float32([0.1, -0.05, 0.2]), face.triangles


def similarity(scale, degrees, crop_center):
    """(2, 3) photo to crop, which brings a place of the photo to the crop's centre."""
    angle = math.radians(degrees)
    linear = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.column_stack([linear, np.full(2, SIZE / 2) - linear @ crop_center])


def in_photo(vertices, transform):
    """Pixels of the photo: the crop's, carried back."""
    crop = camera.to_pixels(camera.project(vertices[None]), SIZE)[0].numpy().astype(np.float64)
    return (crop - transform[:, 2]) @ np.linalg.inv(transform[:, :2]).T


def node_pixels(path, name, size):
    """Pixels (N, 2) of the mesh in a .glb through its camera node of a name, by the specification's formulas."""
    tree, binary = glb_parts(path)
    node, = (node for node in tree["nodes"] if node["name"] == name)
    lens = tree["cameras"][node["camera"]]["perspective"]
    x, y, z, w = node["rotation"]
    pose = trimesh.transformations.quaternion_matrix([w, x, y, z])
    pose[:3, 3] = node["translation"]
    points = accessor(tree, binary, tree["meshes"][0]["primitives"][0]["attributes"]["POSITION"])
    seen = trimesh.transform_points(points, np.linalg.inv(pose))
    tangent = math.tan(lens["yfov"] / 2)
    normal = seen[:, :2] / -seen[:, 2:] / (tangent * lens["aspectRatio"], tangent)
    return (normal * (1, -1) + 1) / 2 * size


def test_the_crop_camera_is_the_projects_own(tmp_path):
    vertices, triangles = posed()
    write_glb(str(tmp_path / "face.glb"), Scene([Mesh("face", vertices, triangles)], [crop_camera()]))
    own = camera.to_pixels(camera.project(vertices[None]), SIZE)[0].numpy()
    np.testing.assert_allclose(node_pixels(tmp_path / "face.glb", "crop", (SIZE, SIZE)), own, atol=2e-3)
    np.testing.assert_allclose(pixels_of(crop_camera(), vertices, (SIZE, SIZE)), own, atol=2e-3)


@pytest.mark.parametrize("photo_size, center, degrees, most", [
    ((1024, 1024), (512, 512), 0, 1e-3), ((1024, 768), (512, 384), 30, 1e-3), ((768, 1024), (400, 480), -10, 0.15),
    ((1024, 1024), (512, 250), 0, 1.1), ((1024, 700), (150, 150), 90, 1.4), ((1024, 700), (-50, 350), 180, 1.5)])
def test_the_photo_camera_of_a_file_shows_the_face_where_the_photo_does(tmp_path, photo_size, center, degrees, most):
    """A face of 350 pixels in photos of 1024; ``most``, pixels, is what was measured, rounded up."""
    vertices, triangles = posed()
    transform = similarity(0.55, degrees, center)
    found = photo_camera(vertices, transform, SIZE, photo_size)
    write_glb(str(tmp_path / "face.glb"), Scene([Mesh("face", vertices, triangles)], [found]))
    tree, _ = glb_parts(tmp_path / "face.glb")
    facts = tree["nodes"][-1]["extras"]
    shown = node_pixels(tmp_path / "face.glb", "photo", photo_size)
    off = np.linalg.norm(shown - in_photo(vertices, transform), axis=1)
    assert off.max() == pytest.approx(facts["reprojection_max_pixels"], abs=5e-3)
    assert np.sqrt(np.square(off).mean()) == pytest.approx(facts["reprojection_rms_pixels"], abs=5e-3)
    assert facts["reprojection_rms_pixels"] < most and facts["picture_size"] == list(photo_size)


@pytest.mark.parametrize("degrees", [0, 25, -100])
def test_the_off_centre_camera_is_exact(degrees):
    vertices, _ = posed()
    transform, size = similarity(0.4, degrees, (700, 200)), (1200, 900)
    exact = photo_camera(vertices, transform, SIZE, size).extras["exact"]
    pose = np.array(exact["pose"])
    pose[:3, 3] *= 10  # decimetre
    shift = np.array(exact["principal_point"]) - np.array(size) / 2
    np.testing.assert_allclose(exact["shift"], shift * (-1, 1) / 900)
    found = pixels_of(Camera("exact", exact["fov_y"], 4 / 3, pose), vertices, size) + shift
    np.testing.assert_allclose(found, in_photo(vertices, transform), atol=5e-3)


@pytest.mark.parametrize("change, message", [
    (dict(vertices=np.zeros((5, 3))), "at least 6"), (dict(vertices=np.full((9, 3), 10.0)), "before the camera"),
    (dict(vertices=np.full((9, 3), np.nan)), "not finite"), (dict(crop_transform=np.eye(3)), "crop_transform"),
    (dict(crop_transform=np.diag([1, -1, 1])[:2]), "scale, turn and move"),
    (dict(crop_transform=np.diag([1, 2, 1])[:2]), "scale, turn and move"),
    (dict(vertices=np.zeros((9, 3))), "span a volume")])
def test_what_no_camera_can_show_is_refused(change, message):
    arguments = dict(vertices=posed()[0], crop_transform=np.eye(3)[:2], crop_size=SIZE, photo_size=(SIZE, SIZE))
    with pytest.raises(ValueError, match=message):
        photo_camera(**arguments | change)


@pytest.mark.parametrize("place", [(1600, 1600), (7200, 5000)])
def test_a_far_face_beside_the_middle_of_a_large_photo(place):
    vertices, _ = posed()
    transform = similarity(SIZE / 1.3 / 60, 0, place)  # a face of about 60 pixels
    found = photo_camera(vertices, transform, SIZE, (8000, 8000))
    off = np.linalg.norm(pixels_of(found, vertices, (8000, 8000)) - in_photo(vertices, transform), axis=1)
    assert found.extras["reprojection_rms_pixels"] == pytest.approx(np.sqrt(np.square(off).mean()), rel=1e-3)
    assert off.max() < 5
