"""CelebA's landmark list and CelebAMask-HQ's masks, alone and through create_bin.py."""

import cv2
import numpy as np
import pytest
import skimage.data

import create_bin
from facegcn.assets import worlds
from facegcn.errors import Rejected, UserError
from facegcn.landmarks import read_landmark_list, write_points
from facegcn.photos import companions, packed_file, packing, reading

SIZE = 64
FACE = np.array([[-0.32, 0.28, 0.2], [0.32, 0.28, 0.2], [0.0, -0.03, 0.57], [-0.25, -0.42, 0.28],
                 [0.25, -0.42, 0.28]], np.float32)
POINTS = np.array([[203, 101], [246, 103], [224, 127], [203, 140], [245, 140]], np.float32)
CELEBA = ("2\nlefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y "
          "rightmouth_x rightmouth_y\n")


class _Model:
    five_points = FACE


def _line(name, points, between="  "):
    return name + between + between.join(f"{v:.0f}" for v in points.ravel()) + "\n"


def _mask_of(file, folder, labels=(), photo=None):
    """The crop's mask (SIZE, SIZE) of one photo."""
    source = companions.MaskSource(str(folder), labels)
    return packing.load_photo(str(file), FACE, SIZE, source, {file.stem: photo}).rgba[..., 3]


@pytest.fixture
def photo(tmp_path):
    """A 1024 x 1024 photo named as in CelebA-HQ; its points are 2 * POINTS."""
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = cv2.resize(skimage.data.astronaut()[..., ::-1], (1024, 1024), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(folder / "2001.jpg"), picture)
    return folder / "2001.jpg"


# ---------------------------------------------------------------- landmarks
def test_celebas_list_is_read_as_published(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(CELEBA + _line("000001.jpg", POINTS) + _line("000002.jpg", POINTS + 3, "    ") + "\n")
    found = read_landmark_list(str(path))
    assert list(found) == ["000001", "000002"]
    np.testing.assert_array_equal(found["000001"], POINTS)
    np.testing.assert_array_equal(found["000002"], POINTS + 3)
    path.write_text("image_id,a,b\n" + _line("a.png", np.arange(136.0), ","))
    assert read_landmark_list(str(path))["a"].shape == (68, 2)


@pytest.mark.parametrize("text, message", [
    (None, "cannot be read"), ("", "no line has"), (CELEBA, "no line has"),
    (CELEBA + "000001.jpg 1 2 3\n", "line 3: expected a file name and 10 numbers.*000001.jpg 1 2 3"),
    (CELEBA + _line("a", POINTS).replace("203", "x"), "line 3"),
    (CELEBA + _line("a", POINTS).replace("203", "nan"), "line 3")])
def test_bad_lists_are_named(tmp_path, text, message):
    path = tmp_path / "list.txt"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_landmark_list(str(path))


def test_listed_points_align_the_photo_before_those_beside_it(photo, tmp_path):
    write_points(str(photo.with_suffix(".txt")), POINTS + 40)
    listed = tmp_path / "list.txt"
    listed.write_text(CELEBA + _line("2001.jpg", 2 * POINTS))
    found = read_landmark_list(str(listed))
    item = packing.load_photo(str(photo), FACE, SIZE, packing.MaskSource(), found)
    transform = reading.alignment_transform(2 * POINTS, FACE, SIZE)
    np.testing.assert_allclose(item.points, reading.transform_points(2 * POINTS, transform), atol=1e-4)
    beside = packing.load_photo(str(photo), FACE, SIZE, packing.MaskSource(), {"another": POINTS})
    transform = reading.alignment_transform(POINTS + 40, FACE, SIZE)
    np.testing.assert_allclose(beside.points, reading.transform_points(POINTS + 40, transform), atol=1e-4)


# ---------------------------------------------------------------- masks
def test_label_names_are_celebamask_hqs():
    assert companions.label_numbers("skin, nose,hair,cloth") == (1, 2, 13, 18)
    assert companions.label_numbers("1,2,u_lip,l_lip") == (1, 2, 11, 12)
    assert companions.label_numbers(None) == ()
    with pytest.raises(UserError, match="'lips' is no whole number .*skin, nose, eye_g"):
        companions.label_numbers("skin,lips")


@pytest.mark.parametrize("width", [512, 1024, 2048])
def test_a_label_map_of_another_size_lands_in_the_same_place(photo, tmp_path, width):
    """Against each crop pixel carried back into the photo, one by one."""
    labels = np.zeros((1024, 1024), np.uint8)
    cv2.ellipse(labels, (448, 240), (90, 120), 0, 0, 360, 1, -1)
    cv2.circle(labels, (448, 254), 24, 2, -1)
    cv2.circle(labels, (600, 240), 40, 13, -1)
    cv2.imwrite(str(tmp_path / "2001.png"), cv2.resize(labels, (width, width), interpolation=cv2.INTER_NEAREST))
    mask = _mask_of(photo, tmp_path, (1, 2), 2 * POINTS)
    transform = reading.alignment_transform(2 * POINTS, FACE, SIZE)
    expected = np.zeros((SIZE, SIZE), bool)
    for row in range(SIZE):
        for column in range(SIZE):
            x, y = (np.array([column + 0.5, row + 0.5]) - transform[:, 2]) / transform[0, 0]
            if 0 <= x < 1024 and 0 <= y < 1024:
                expected[row, column] = labels[int(y), int(x)] in (1, 2)
    assert expected.sum() > 300
    assert ((mask > 0) != expected).sum() <= 0.02 * expected.sum()  # the border, at another width


def test_parts_are_merged_as_celebamask_hq_merges_them(photo, tmp_path):
    folder = tmp_path / "CelebAMask-HQ-mask-anno" / "1"
    folder.mkdir(parents=True)
    skin, nose, hair = (np.zeros((512, 512), np.uint8) for _ in range(3))
    skin[60:180, 180:270], nose[110:140, 212:236], hair[60:90, 180:270] = 255, 255, 255
    for part, mask in (("skin", skin), ("nose", nose), ("hair", hair)):
        cv2.imwrite(str(folder / f"02001_{part}.png"), np.dstack([mask] * 3))
    merged = np.where(hair > 0, 13, np.where(nose > 0, 2, np.where(skin > 0, 1, 0))).astype(np.uint8)
    (tmp_path / "maps").mkdir()
    cv2.imwrite(str(tmp_path / "maps" / "2001.png"), merged)
    for text in ("skin,nose", "skin", "hair,2"):
        labels = companions.label_numbers(text)
        parts = _mask_of(photo, folder.parent, labels, 2 * POINTS)
        np.testing.assert_array_equal(parts, _mask_of(photo, tmp_path / "maps", labels, 2 * POINTS))
        np.testing.assert_array_equal(parts, _mask_of(photo, folder, labels, 2 * POINTS))
        assert parts.any()
    with pytest.raises(Rejected, match="--skin-labels skin,nose"):
        _mask_of(photo, folder, (), 2 * POINTS)
    cv2.imwrite(str(folder / "02001_nose.png"), np.zeros((100, 100), np.uint8))
    with pytest.raises(Rejected, match="02001_nose.png is no PNG, or not as large"):
        _mask_of(photo, folder, (1,), 2 * POINTS)


@pytest.mark.parametrize("shape", [(512, 500), (100, 100)])
def test_masks_of_other_proportions_are_refused(photo, tmp_path, shape):
    cv2.imwrite(str(tmp_path / "2001.png"), np.full(shape, 255, np.uint8))
    with pytest.raises(Rejected, match=f"{shape[1]} x {shape[0]} pixels, the photo 1024 x 1024"):
        _mask_of(photo, tmp_path, (), 2 * POINTS)


def test_create_bin_takes_list_and_parts(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(worlds, "load_morphable", lambda config: _Model)
    masks = tmp_path / "anno" / "1"
    masks.mkdir(parents=True)
    part = np.zeros((512, 512), np.uint8)
    part[60:180, 180:222] = 255
    cv2.imwrite(str(masks / "02001_skin.png"), part)
    (tmp_path / "list.txt").write_text(CELEBA + _line("2001.jpg", 2 * POINTS))

    def run(*arguments):
        return create_bin.main([*map(str, arguments), "--root_dir", str(tmp_path / "data"), "--img_size", str(SIZE)])

    assert run("--photos", photo.parent, "--landmarks", tmp_path / "list.txt", "--masks", masks.parent,
               "--skin-labels", "skin,nose") == 0
    path = str(tmp_path / "data" / "faces.bin")
    alpha = packed_file.read_records(path, [0])[0, ..., 3] > 0
    nose = round(float(packed_file.read_companion(path).points[0, 2, 0]))
    assert alpha[:, :nose - 2].any() and not alpha[:, nose + 3:].any()
    assert run("--photos", photo.parent, "--landmarks", tmp_path / "none.txt") == 2
    assert run("--landmarks", tmp_path / "list.txt") == 2
    message = capsys.readouterr().err
    assert "none.txt: cannot be read" in message and "go with --photos" in message
