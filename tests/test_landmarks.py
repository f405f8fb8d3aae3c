"""Points on faces: files beside photos, lists, roll, and the targets of a fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facegcn import landmarks
from facegcn.errors import PhotoError, UserError

POINTS = np.array([[40.0, 50], [80, 52], [61, 75], [45, 95], [77, 96]], np.float32)
LIST_HEAD = "1\nlefteye_x lefteye_y\n"


def test_landmark_files_of_5_and_68_rows(tmp_path, rng):
    path = tmp_path / "a.txt"
    path.write_text("# left eye first\n40 50\n80,52\n 61\t75\n\n45.0, 95\n77 96\n")
    np.testing.assert_array_equal(landmarks.read_points(str(path)), POINTS)
    many = rng.random((68, 2)).astype(np.float32) * 200
    landmarks.write_points(str(tmp_path / "a.lm68.txt"), many)
    found = landmarks.points_beside(str(tmp_path / "a.jpg"))
    np.testing.assert_allclose(found, many, atol=0.006)
    five = landmarks.five_points(found)
    np.testing.assert_allclose(five[0], found[36:42].mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(five[2:], found[[30, 48, 54]])
    assert landmarks.points_beside(str(tmp_path / "b.jpg")) is None


@pytest.mark.parametrize("text", [
    "\ufeff40 50\n80 52\n61 75\n45 95\n77 96\n", "40;50\n80; 52\n61 ;75\n45 ; 95\n77;96", "40,0 50,0\n80,0 52,0\n"
    "61,0\t75,0\n45,0 95,0\n77,0  96,0", "40,0;50\n80;52,0\n61,0;75,0\n45;95\n77;96", "40.0 50\r\n80 52\r\n61 75\r\n"
    "45 95\r\n77 96\r\n"])
def test_signatures_semicolons_and_decimal_commas_are_read(tmp_path, text):
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    np.testing.assert_array_equal(landmarks.points_beside(str(tmp_path / "a.jpg")), POINTS)


@pytest.mark.parametrize("text, message", [
    ("1 2\n3 4\n", "has 2 points, expected 5"), ("1 2\n3 x\n", r"line 2: expected 'x y', got '3 x'"),
    ("1 2 3\n", "line 1"), ("1 nan\n", "line 1"), ("1 1e300\n", "line 1"), ("", "has 0 points"),
    ("\ufeff# only a remark", "has 0 points"), ("1,5,2,5\n", "line 1")])
def test_bad_landmark_files_are_named(tmp_path, text, message):
    path = tmp_path / "bad.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PhotoError, match=rf"bad\.txt.*{message}") as raised:
        landmarks.read_points(str(path))
    assert raised.value.status == "bad points"


@pytest.mark.parametrize("caption", ["a photo of 2 women, smiling", "1girl, solo", "M\u00fcller\n2019-05-01\n", "",
                                     "portrait\n\n# tags: 1, 2"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_caption_beside_a_photo_is_passed_over_with_a_remark(tmp_path, caplog, caption, encoding):
    (tmp_path / "a.txt").write_text(caption, encoding=encoding)
    assert landmarks.points_beside(str(tmp_path / "a.jpg")) is None
    assert "a.txt has no rows 'x y' of points: it is passed over" in caplog.text


def test_a_points_file_with_a_mistake_is_no_caption(tmp_path):
    (tmp_path / "a.txt").write_text("left eye: 40 50\n80 52\n")
    with pytest.raises(PhotoError, match="line 1: expected 'x y', got 'left eye: 40 50'"):
        landmarks.points_beside(str(tmp_path / "a.jpg"))
    (tmp_path / "b.txt").mkdir()
    assert landmarks.points_beside(str(tmp_path / "b.jpg")) is None


@settings(max_examples=300, deadline=None)
@given(content=st.one_of(st.binary(max_size=200),
                         st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
                         st.text("0123456789.,; -\ne#\ufeff", max_size=200).map(str.encode)))
def test_any_file_gives_points_or_a_photo_error(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("points")
    (folder / "a.txt").write_bytes(content)
    for reader, name in ((landmarks.read_points, "a.txt"), (landmarks.points_beside, "a.jpg")):
        try:
            found = reader(str(folder / name))
        except PhotoError as error:
            assert error.status == "bad points"
        else:
            assert found is None or found.shape in ((5, 2), (68, 2)) and np.isfinite(found).all()
    try:
        landmarks.read_landmark_list(str(folder / "a.txt"))
    except UserError as error:
        assert "a.txt" in str(error)


@given(st.lists(st.tuples(st.floats(-900, 9000), st.floats(-900, 9000)), min_size=5, max_size=5))
def test_points_that_are_written_are_read(tmp_path_factory, points):
    path = str(tmp_path_factory.mktemp("points") / "a.txt")
    landmarks.write_points(path, np.array(points))
    np.testing.assert_allclose(landmarks.read_points(path), points, atol=0.006)


# ---------------------------------------------------------------- lists
def _line(name, between):
    return name + between + between.join(f"{value:.0f}" for value in POINTS.ravel()) + "\n"


@pytest.mark.parametrize("head", ["", LIST_HEAD, "\ufeff" + LIST_HEAD])
@pytest.mark.parametrize("between", [" ", ",", ";", "\t", ", "])
def test_lists_between_any_signs(tmp_path, head, between):
    path = tmp_path / "list.txt"
    path.write_text(head + _line("000001.jpg", between) + _line("../../etc/000002.jpg", between), encoding="utf-8")
    found = landmarks.read_landmark_list(str(path))
    assert list(found) == ["000001", "000002"]  # folders before a name lead nowhere
    np.testing.assert_array_equal(found["000001"], POINTS)


def test_a_signature_before_the_first_name_is_not_part_of_it(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("\ufeff" + _line("a.jpg", " "), encoding="utf-8")
    assert list(landmarks.read_landmark_list(str(path))) == ["a"]


# ---------------------------------------------------------------- roll and targets
@given(degrees=st.floats(-179, 179), scale=st.floats(0.1, 50), x=st.floats(-500, 500), y=st.floats(-500, 500))
def test_the_roll_of_a_turned_face_is_the_turn(degrees, scale, x, y):
    face = np.array([[-0.32, -0.28], [0.32, -0.28], [0.0, 0.03], [-0.25, 0.42], [0.25, 0.42]])
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert abs(landmarks.roll(scale * face @ turn.T + (x, y)) - degrees) < 1e-6


@pytest.mark.parametrize("yaw, pitch", [(60, 0), (0, 40), (50, 25), (-50, 25), (40, -30)])
def test_a_head_turned_aside_or_bowed_is_hardly_rolled(yaw, pitch):
    face = np.array([[-0.32, 0.28, 0.2], [0.32, 0.28, 0.2], [0.0, -0.03, 0.57], [-0.25, -0.42, 0.28],
                     [0.25, -0.42, 0.28]])
    a, b = np.radians([yaw, pitch])
    around_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    around_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    seen = (face @ (around_x @ around_y).T)[:, :2] * (1, -1)
    assert abs(landmarks.roll(seen)) < 15  # the eyes' line alone would say up to 27 degrees


def test_68_points_make_the_five_superfluous(rng):
    many = rng.random((68, 2)).astype(np.float32)
    assert np.isnan(landmarks.landmark_targets(None)).all()
    np.testing.assert_array_equal(landmarks.landmark_targets(POINTS)[68:], POINTS)
    targets = landmarks.landmark_targets(POINTS, many)
    np.testing.assert_array_equal(targets[:68], many)
    assert np.isnan(targets[68:]).all()
    np.testing.assert_array_equal(landmarks.landmark_targets(POINTS, np.full((68, 2), np.nan))[68:], POINTS)
