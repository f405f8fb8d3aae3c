"""create_bin.py from the command line: photos, segmented PNGs, the released layout, and bad input."""

import os
import re

import cv2
import numpy as np
import pytest
import skimage.data

import create_bin
from facegcn.errors import Rejected
from facegcn.landmarks import read_points, write_points
from facegcn.photos import packed_file, packing, reading

SIZE = 64
FACE = np.array([[-0.32, 0.28, 0.2], [0.32, 0.28, 0.2], [0.0, -0.03, 0.57], [-0.25, -0.42, 0.28],
                 [0.25, -0.42, 0.28]], np.float32)


class _Model:
    five_points = FACE


@pytest.fixture
def folder(tmp_path, rng):
    """A folder of 12 segmented PNGs; one with 68 points beside it, one with five."""
    path = tmp_path / "images"
    path.mkdir()
    for i in range(12):
        rgba = rng.integers(0, 256, (SIZE, SIZE, 4), np.uint8)
        rgba[:8, :, 3], rgba[20:30, :, 3] = 0, 255
        assert cv2.imwrite(str(path / f"face{i:02d}.png"), rgba)
    write_points(str(path / "face03.txt"), rng.random((68, 2)) * SIZE)
    write_points(str(path / "face04.txt"), FACE[:, :2] * 10 + 30)
    return path


def _run(tmp_path, *arguments):
    return create_bin.main([*map(str, arguments), "--root_dir", str(tmp_path / "data"), "--img_size", str(SIZE)])


def test_segmented_pngs_are_packed_with_all_that_belongs_to_them(tmp_path, folder, capsys):
    assert _run(tmp_path, "--input", folder, "--set", "val_count=2", "--set", "test_count=3", "--seed", 5) == 0
    path = str(tmp_path / "data" / "faces.bin")
    names = packed_file.read_names(path)
    assert names == [f"face{i:02d}" for i in range(12)]
    first = reading.read_image(str(folder / "face00.png"))
    np.testing.assert_array_equal(packed_file.read_records(path, [0])[0], first)
    points, landmarks = packed_file.read_landmarks(path)
    assert list(np.flatnonzero(np.isfinite(points).all(axis=(1, 2)))) == [3, 4]
    assert list(np.flatnonzero(np.isfinite(landmarks).all(axis=(1, 2)))) == [3]
    split = packed_file.read_split(path)
    assert {part: len(rows) for part, rows in split.items()} == {"train": 7, "val": 2, "test": 3}
    assert split["test"].tolist() == [names.index(n) for n in packed_file.split_names(names, 2, 3, 5).test]
    assert reading.read_image(packed_file.companion(path, "sheet.png")).shape[1] > 500
    assert "packed 12 of 12 images" in capsys.readouterr().out


def test_every_rejected_file_is_named_with_reason_and_cure_and_shifts_nothing(tmp_path, folder, capsys):
    grey = np.full((SIZE, SIZE), 90, np.uint8)
    good = reading.read_image(str(folder / "face05.png"))
    cv2.imwrite(str(folder / "aaa_no_alpha.png"), np.dstack([grey] * 3))
    cv2.imwrite(str(folder / "bbb_transparent.png"), np.dstack([grey] * 3 + [grey * 0]))
    cv2.imwrite(str(folder / "ccc_size.png"), np.full((20, 30, 4), 255, np.uint8))
    (folder / "ddd_broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    cv2.imwrite(str(folder / "eee_points.png"), np.dstack([grey] * 4))
    (folder / "eee_points.txt").write_text("1 2\n")
    cv2.imwrite(str(folder / "face05.tiff"), np.dstack([grey] * 4))
    assert _run(tmp_path, "--input", folder, "--out", tmp_path / "own.bin") == 0
    text = capsys.readouterr().out
    for name, reason in (("aaa_no_alpha.png", "no alpha channel.*--photos"), ("bbb_transparent.png", "alpha 0"),
                         ("ccc_size.png", "30 x 20.*64 x 64.*--img_size"), ("ddd_broken.png", "cut short or damaged"),
                         ("eee_points.png", "eee_points.txt: has 1 points"), ("face05.tiff", "face05 is packed")):
        line = next(line for line in text.splitlines() if line.strip().startswith(name))
        assert re.search(reason, line), line
    assert "packed 12 of 18 images" in text
    path = str(tmp_path / "own.bin")
    place = packed_file.read_names(path).index("face05")
    np.testing.assert_array_equal(packed_file.read_records(path, [place])[0], good)


def test_nothing_packed_is_exit_code_1_and_leaves_no_file(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    assert _run(tmp_path, "--input", tmp_path / "images") == 1
    text = capsys.readouterr().out
    assert "a.png" in text and "nothing was packed" in text
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("arguments, message", [
    (["--input", "absent"], "no such file or folder"), (["--masks", "m"], "go with --photos"),
    (["--input", ".", "--set", "sed=1"], "did you mean 'seed'"), (["--config", "absent.yaml"], "absent.yaml"),
    (["--legacy-float32", "absent.bin"], "absent.bin"),
    (["--photos", ".", "--masks", ".", "--skin-labels", "one"], "--skin-labels one"),
    (["--photos", ".", "--skin-labels", "1"], "goes with --masks"),
    (["--photos", ".", "--masks", "absent"], "--masks absent"),
    (["--set", "world=ict"], "--photos DIR")])
def test_mistakes_are_one_message_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert _run(tmp_path, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_photos_become_segmented_pngs_and_a_packed_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(create_bin, "load_morphable", lambda config: _Model)
    source, masks = tmp_path / "photos", tmp_path / "masks"
    source.mkdir(), masks.mkdir()
    astronaut = skimage.data.astronaut()[..., ::-1]
    cv2.imwrite(str(source / "found.png"), astronaut)
    cv2.imwrite(str(source / "given.jpg"), astronaut)
    (source / "given.txt").write_text("203 101\n246 103\n224 127\n203 140\n245 140\n")
    cv2.imwrite(str(source / "nobody.png"), skimage.data.coffee())
    cv2.imwrite(str(source / "masked.jpg"), astronaut)
    labels = np.zeros(astronaut.shape[:2], np.uint8)
    labels[80:180, 180:222], labels[80:180, 222:260] = 3, 7
    cv2.imwrite(str(masks / "masked.png"), labels)
    assert _run(tmp_path, "--photos", source, "--masks", masks, "--skin-labels", "1,3") == 0
    text = capsys.readouterr().out
    assert "packed 3 of 4" in text and "nobody.png: no face was found" in text and "NAME.txt" in text
    path = str(tmp_path / "data" / "faces.bin")
    names = packed_file.read_names(path)
    assert names == ["found", "given", "masked"]
    records, (points, landmarks) = packed_file.read_records(path, range(3)), packed_file.read_landmarks(path)
    for i, name in enumerate(names):
        kept = os.path.join(tmp_path, "data", "segmented", name)
        np.testing.assert_array_equal(reading.read_image(kept + ".png"), records[i])
        np.testing.assert_allclose(read_points(kept + ".txt"), points[i], atol=0.006)
    assert np.isnan(landmarks).all()
    assert np.abs(points[0] - points[1]).max() < 3
    # The mask of the user's own keeps label 3, the left half of the face, and nothing else.
    nose = round(float(points[2, 2, 0]))
    own = records[2, ..., 3] > 0
    assert own[:, :nose - 2].any() and not own[:, nose + 3:].any()
    assert (records[1, ..., 3] > 0)[:, nose + 3:].any()


@pytest.mark.parametrize("mask, message", [(np.zeros((9, 9), np.uint8), "9 x 9"),
                                           (np.zeros((512, 512, 3), np.uint8), "grey"),
                                           (np.zeros((512, 512), np.uint8), "empty")])
def test_masks_that_do_not_fit_are_named(tmp_path, mask, message):
    cv2.imwrite(str(tmp_path / "face.png"), mask)
    source = tmp_path / "photos"
    source.mkdir()
    cv2.imwrite(str(source / "face.png"), skimage.data.astronaut())
    write_points(str(source / "face.txt"),
                        np.array([[203, 101], [246, 103], [224, 127], [203, 140], [245, 140]]))
    with pytest.raises(Rejected, match=message):
        packing.load_photo(str(source / "face.png"), FACE, SIZE, packing.MaskSource(str(tmp_path)))


def test_the_released_layout_is_converted(tmp_path, rng):
    images = rng.integers(0, 256, (3, SIZE, SIZE, 4), np.uint8)
    images[1, ..., 3] = 0
    np.concatenate([images[..., :3] / 127.5 - 1, images[..., 3:] / 255.0], axis=-1).astype(np.float32).tofile(
        tmp_path / "released.bin")
    assert _run(tmp_path, "--legacy-float32", tmp_path / "released.bin") == 0
    path = str(tmp_path / "data" / "faces.bin")
    assert packed_file.read_names(path) == ["record_000000", "record_000002"]
    np.testing.assert_array_equal(packed_file.read_records(path, [0, 1]), images[[0, 2]])


def test_without_arguments_the_demo_portraits_are_packed(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(create_bin, "ensure_demo_portraits", lambda config: str(folder))
    assert _run(tmp_path) == 0
    assert packed_file.read_header(str(tmp_path / "data" / "faces.bin")).count == 12


def test_memory_stays_bounded_while_reading_ahead(tmp_path):
    """No more images are loaded ahead of the packed file than the readers need."""
    from facegcn.config import Config
    alive, most = set(), [0]

    def load(index):
        alive.add(index)
        most[0] = max(most[0], len(alive))
        return packing.Item(f"{index:03d}", np.full((2, 2, 4), index % 200 + 1, np.uint8))

    summary = packing.Summary("none")
    for item in packing._usable(range(300), load, Config(workers=2).workers, summary):
        alive.discard(int(item.name))
    assert most[0] <= 2 * 8 + 3
