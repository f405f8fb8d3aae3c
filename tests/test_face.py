"""One reconstructed face: its files open elsewhere, its rig is the photo's face, its views turn and are lit."""

import dataclasses
import json
import os
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import trimesh
from PIL import Image

from facegcn import files
from facegcn.animation import Clip
from facegcn.errors import UserError
from facegcn.export.photo_camera import pixels_of
from facegcn.face_model import FaceModel
from facegcn.face_parts import FaceParts
from facegcn.reconstruction import views
from facegcn.reconstruction.face import Face, FaceTools, check_texture_size
from facegcn.reconstruction.face_files import FaceFiles, Wanted
from facegcn.reconstruction.results import USUAL
from tests.faces import half_ellipsoid
from tests.gltf_files import accessor, glb_parts

SIZE, TEXTURE = 64, 256
NAMES = ("jawOpen", "browInnerUp", "mouthSmileLeft", "eyeBlinkRight")
TRANSFORM = np.array([[0.4, 0.05, -10.0], [-0.05, 0.4, -14.0]])


def with_expressions(model, parts=False):
    """The model whose expression components have names, and one part that goes with them."""
    beside = None
    if parts:
        corners = np.float32([[0, 0, 0.5], [0.1, 0, 0.5], [0, 0.1, 0.5]])
        moves = np.zeros((3, 3, len(NAMES)), np.float32)
        moves[:, 1, 0] = -0.1
        beside = FaceParts(("lowerTeeth",), np.zeros(3, np.int32), corners, np.int32([[0, 1, 2]]),
                           np.full((3, 3), 200, np.float32), np.zeros((1, 4, 3, model.id_basis.shape[2]), np.float32),
                           moves, np.int32([0, 1]), np.full(model.vertex_count, 0.01, np.float32))
    return dataclasses.replace(model, blendshapes=np.ascontiguousarray(4.0 * model.exp_basis), blendshape_names=NAMES,
                               parts=beside)


def found(model, exp=(0.8, 0.4, 0.0, 1.2), picture=None):
    """A face of a model as test mode finds it, in a photo twice as large as the crop."""
    face_model = FaceModel(model, image_size=SIZE)
    coeff = np.zeros((1, model.coefficient_count), np.float32)
    parts = model.split(coeff)
    parts.id[:], parts.exp[:], parts.angles[:] = 0.3, exp, (0.05, 0.2, -0.1)
    outputs = {name: np.asarray(array) for name, array in face_model.coarse(coeff).items() if name != "rasterization"}
    single = {name: array[0] for name, array in outputs.items()}
    single |= {"fine_texture": single["coarse_texture"], "fine_color": single["coarse_color"],
               "fine_render": single["coarse_render"], "fine_light": single["shading"],
               "projected_color": np.ones((model.vertex_count, 4), np.float32)}
    if picture is None:
        back = cv2.invertAffineTransform(TRANSFORM)
        crop = np.uint8(np.round((single["coarse_render"][..., :3] * 0.5 + 0.5) * 255))
        picture = cv2.warpAffine(crop, back, (200, 190))
    return Face(FaceTools(model, TEXTURE), picture, TRANSFORM, single["coarse_render"][..., 3] > 0.5, coeff[0],
                single), single


@pytest.fixture(scope="module")
def face():
    return found(with_expressions(half_ellipsoid(33, 41)))[0]


# ---------------------------------------------------------------- files
@pytest.mark.parametrize("kind", ["albedo", "lit", "colors", "rig"])
def test_trimesh_reads_every_scene(face, kind, tmp_path):
    face.save(str(tmp_path / "x.glb"), kind)
    scene = trimesh.load(tmp_path / "x.glb")
    (mesh,) = scene.geometry.values()
    points = trimesh.transform_points(mesh.vertices, scene.graph[scene.graph.nodes_geometry[0]][0])
    wanted = face.vertices_posed * 0.1
    if kind == "rig":  # neutral
        wanted = (face.neutral @ face.rotation.T + face.coefficients["translation"]) * 0.1
    assert len(mesh.faces) == len(face.triangles)
    np.testing.assert_allclose(np.sort(points[:, 1])[[0, -1]], np.sort(wanted[:, 1])[[0, -1]], atol=1e-5)


def test_the_photos_camera_shows_the_face_where_the_photo_does(face):
    photo, crop = face.cameras
    where = face.photo_pixels(face.vertices_posed)
    off = np.linalg.norm(pixels_of(photo, face.vertices_posed, face.picture.shape[1::-1]) - where, axis=1)
    assert off.max() < 0.6  # pixels
    assert off.max() == pytest.approx(photo.extras["reprojection_max_pixels"], abs=1e-3)
    inside = pixels_of(crop, face.vertices_posed, (SIZE, SIZE))
    np.testing.assert_allclose(where @ TRANSFORM[:, :2].T + TRANSFORM[:, 2], inside, atol=1e-3)


def test_a_rig_opens_in_the_photos_expression_and_can_be_neutral(face, tmp_path):
    face.save(str(tmp_path / "x.glb"), "rig")
    tree, binary = glb_parts(tmp_path / "x.glb")
    (mesh,) = tree["meshes"]
    assert mesh["extras"]["targetNames"] == list(NAMES)
    (primitive,) = mesh["primitives"]
    shape = accessor(tree, binary, primitive["attributes"]["POSITION"])
    layout = face.layout
    np.testing.assert_allclose(shape, 0.1 * face.neutral[layout.vertices], atol=1e-6)
    for target, weight in zip(primitive["targets"], mesh["weights"]):
        shape = shape + weight * accessor(tree, binary, target["POSITION"])
    np.testing.assert_allclose(shape, 0.1 * face.vertices[layout.vertices], atol=1e-4)  # metre: 0.1 mm
    np.testing.assert_allclose(mesh["weights"], np.array([0.8, 0.4, 0.0, 1.2]) / 4, atol=0.02)
    assert np.ptp(shape, axis=0).max() > 0.1
    assert tree["scenes"][0]["extras"]["expression"]["jawOpen"] == pytest.approx(0.2, abs=0.02)


def test_parts_go_with_the_rig_and_what_they_replace_gives_way(tmp_path):
    face, _ = found(with_expressions(half_ellipsoid(17, 21), parts=True))
    meshes = {mesh.name: mesh for mesh in face.scene("rig").meshes}
    assert set(meshes) == {"face", "lowerTeeth"} and len(meshes["face"].triangles) == len(face.triangles) - 2
    np.testing.assert_allclose(meshes["face"].vertices, face.neutral[face.layout.vertices] - (0, 0, 0.01), atol=1e-6)
    teeth = meshes["lowerTeeth"]
    assert list(teeth.morphs.names) == list(NAMES) and teeth.morphs.deltas[0, 0, 1] == pytest.approx(-0.1)
    face.save(str(tmp_path / "x.glb"), "rig")


def test_a_clip_moves_the_rig(face, tmp_path):
    clip = Clip(np.array([0.0, 0.5, 1.0]), ("jawOpen", "tongueOut"), np.array([[0, 0], [1, 1], [0, 0.5]]),
                np.array([[0, 0, 0], [0.1, 0.2, 0], [0, 0, 0]]))
    scene = face.animated(clip)
    assert scene.animation.names == ["jawOpen"] and scene.animation.weights[:, 0].tolist() == [0, 1, 0]
    np.testing.assert_allclose(scene.head.rotation, np.eye(3))
    np.testing.assert_allclose(np.linalg.norm(scene.animation.rotations, axis=1), 1.0)
    assert face.animated(dataclasses.replace(clip, head=None)).animation.rotations is None


def test_textured_obj_and_ply_and_pictures(face, tmp_path):
    for name in ("a.obj", "a.ply", "a.npz", "b.png", "c.jpg"):
        face.save(str(tmp_path / name), "lit")
    assert sorted(os.listdir(tmp_path)) == ["a.mtl", "a.npz", "a.obj", "a.ply", "a.png", "b.png", "c.jpg"]
    mesh = trimesh.load(tmp_path / "a.obj", process=False)
    assert mesh.visual.uv is not None and len(mesh.faces) == len(face.triangles)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), face.textures.lit)
    with np.load(tmp_path / "a.npz") as arrays:
        np.testing.assert_array_equal(arrays["texture_vertices"][arrays["texture_triangles"]], face.triangles)
        np.testing.assert_allclose(arrays["blendshape_weights"], face.expression, atol=1e-6)


@pytest.mark.parametrize(("name", "kind", "words"), [
    ("x.fbx", "albedo", "saved as .glb"), ("x.obj", "rig", "albedo or lit"), ("x.glb", "shiny", "albedo, lit, colors")])
def test_unknown_files_and_kinds_are_named(face, name, kind, words, tmp_path):
    with pytest.raises(UserError, match=words):
        face.save(str(tmp_path / name), kind)
    assert not os.listdir(tmp_path)


def test_a_model_without_named_expressions_has_no_rig(tmp_path):
    face, _ = found(half_ellipsoid(17, 21))
    assert face.expression is None
    with pytest.raises(UserError, match="no named expressions"):
        face.save(str(tmp_path / "x.glb"), "rig")


@pytest.mark.parametrize("size", [0, -1, 1000, 100_000])
def test_textures_have_usual_sizes(size):
    with pytest.raises(UserError, match="256, 512, 1024, 2048, 4096 or 8192 texels"):
        check_texture_size(size)


def test_a_folder_gets_what_is_wanted(face, tmp_path):
    _, outputs = found(with_expressions(half_ellipsoid(33, 41)))
    rgba = np.dstack([outputs["coarse_render"][..., :3], np.ones((SIZE, SIZE))]).astype(np.float32)
    clip = Clip(np.array([0.0, 0.5]), ("jawOpen",), np.array([[0.0], [1.0]]))
    pictures, metrics = FaceFiles(str(tmp_path), Wanted(clip=clip, views=True, turntable="gif")).write(
        "x", face, rgba, outputs)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"x{ending}" for ending in (*USUAL, "_rig.glb", "_animated.glb", "_views.png", "_turntable.gif")}
    assert len(pictures) == 3 and metrics["fine_psnr"] > 30
    os.mkdir(tmp_path / "plain")
    FaceFiles(str(tmp_path / "plain"), Wanted(texture=False)).write("x", face, rgba, outputs)
    assert not [name for name in os.listdir(tmp_path / "plain") if "lit" in name or "pasted" in name]


def test_the_pasted_photo_is_the_photo_where_the_face_reproduces_it(face):
    assert face.pasted.shape == face.picture.shape
    difference = np.abs(face.pasted.astype(int) - face.picture)
    assert difference.mean() < 3 and face.pasted.dtype == np.uint8


def test_extras_are_json_numbers(face, tmp_path):
    face.save(str(tmp_path / "x.glb"))
    tree, _ = glb_parts(tmp_path / "x.glb")
    extras = json.loads(json.dumps(tree["scenes"][0]["extras"]))
    assert extras["units"]["vertices"] == "metre" and len(extras["coefficients"]["gamma"]) == 27
    names = [camera["name"] for camera in tree["cameras"]]
    assert names == ["photo", "crop"]


# ---------------------------------------------------------------- views
def test_a_strip_has_a_row_for_each_light_and_a_column_for_each_turn(face):
    picture = views.strip(face)
    rows, columns = len(views.LIGHTS), len(views.YAWS)
    assert picture.shape[0] / rows == picture.shape[1] / columns and picture.dtype == np.uint8


def test_turned_faces_turn_and_lights_come_from_their_side(face):
    def middle(yaw):
        covered = (views.picture(face, yaw, views.LIGHTS["front"], 96) < 255).any(axis=2)
        return np.flatnonzero(covered.any(axis=0)).mean()

    bright = {name: views.picture(face, 0, light, 96).astype(float) for name, light in views.LIGHTS.items()}
    covered = (bright["front"] < 255).any(axis=2)
    half = np.arange(96) < 48
    sides = {name: (image[:, half][covered[:, half]].mean(), image[:, ~half][covered[:, ~half]].mean())
             for name, image in bright.items()}
    assert sides["left"][0] > 1.1 * sides["left"][1] and sides["right"][1] > 1.1 * sides["right"][0]
    assert abs(middle(40) - middle(-40)) < 96 and not np.array_equal(
        views.picture(face, 40, views.LIGHTS["front"], 96), views.picture(face, -40, views.LIGHTS["front"], 96))


@pytest.mark.parametrize("ending", views.FILMS)
def test_films_hold_their_frames(ending, tmp_path):
    frames = [np.full((48, 64, 3), (20 * k, 255 - 20 * k, 100), np.uint8) for k in range(10)]
    path = tmp_path / f"x.{ending}"
    views.write_film(str(path), iter(frames), ending, 10, (64, 48))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if ending == "gif":
        film = Image.open(path)
        assert film.n_frames == 10 and film.info["duration"] == 100
        return
    film, count = cv2.VideoCapture(str(path)), 0
    while film.read()[0]:
        count += 1
    assert count == 10


@pytest.mark.parametrize("ending", ["mp4", "webm"])
def test_a_film_that_has_no_room_or_lost_frames_leaves_nothing(ending, tmp_path, monkeypatch):
    """OpenCV does not tell of either."""
    frames = [np.full((48, 64, 3), 20 * k, np.uint8) for k in range(4)]
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "disk_usage", lambda folder: SimpleNamespace(free=64 * 48 * 3 - 1))
        with pytest.raises(OSError, match=f"No space left.*x.{ending}"):
            views.write_film(str(tmp_path / f"x.{ending}"), iter(frames), ending, 10, (64, 48))
    with monkeypatch.context() as patch:
        patch.setattr(views, "_frames_of", lambda path: 3)
        with pytest.raises(OSError, match=f"Input/output error.*x.{ending}"):
            views.write_film(str(tmp_path / f"x.{ending}"), iter(frames), ending, 10, (64, 48))
    assert not os.listdir(tmp_path)


def test_an_unknown_film_is_named_and_a_broken_one_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"\.gif, \.mp4, \.webm"):
        views.write_film(str(tmp_path / "x.avi"), iter([]), "avi", 10, (8, 8))

    def frames():
        yield np.zeros((48, 64, 3), np.uint8)
        raise RuntimeError("no more")

    for ending in views.FILMS:
        with pytest.raises(RuntimeError):
            views.write_film(str(tmp_path / f"x.{ending}"), frames(), ending, 10, (64, 48))
    assert not os.listdir(tmp_path)
