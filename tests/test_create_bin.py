"""create_bin.py from the command line: photos, segmented PNGs, the released layout, and bad input."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import types

import cv2
import numpy as np
import pytest
import skimage.data

import create_bin
from facegcn.assets import worlds
from facegcn.config import Config
from facegcn.errors import Rejected
from facegcn.landmarks import read_points, write_points
from facegcn.photos import packed_file, packing, reading
from facegcn.photos.splits import split_names
from tests.faces import half_ellipsoid

SIZE = 64
FACE = np.array([[-0.32, 0.28, 0.2], [0.32, 0.28, 0.2], [0.0, -0.03, 0.57], [-0.25, -0.42, 0.28],
                 [0.25, -0.42, 0.28]], np.float32)


class _Model:
    five_points = FACE


@pytest.fixture(autouse=True)
def no_networks(request, monkeypatch):
    """Networks need a tenth of a second a crop to say that noise is no face: the first test alone asks them."""
    if request.node.originalname != "test_segmented_pngs_are_packed_with_all_that_belongs_to_them":
        monkeypatch.setattr(packing, "dense_of_crop", lambda rgba, points=None: None)


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
    return create_bin.main(["--root_dir", str(tmp_path / "data"), "--img_size", str(SIZE), *map(str, arguments)])


def test_segmented_pngs_are_packed_with_all_that_belongs_to_them(tmp_path, folder, capsys):
    assert _run(tmp_path, "--input", folder, "--set", "val_count=2", "--set", "test_count=3", "--seed", 5) == 0
    path = str(tmp_path / "data" / "faces.bin")
    records = packed_file.read_companion(path)
    names, points, landmarks, split = records.names, records.points, records.landmarks, records.splits
    assert names == [f"face{i:02d}" for i in range(12)] and records.truth_folder == ""
    first = reading.read_image(str(folder / "face00.png"))
    np.testing.assert_array_equal(packed_file.read_records(path, [0])[0], first)
    assert list(np.flatnonzero(np.isfinite(points).all(axis=(1, 2)))) == [3, 4]
    assert list(np.flatnonzero(np.isfinite(landmarks).all(axis=(1, 2)))) == [3]
    assert {part: len(rows) for part, rows in split.items()} == {"train": 7, "val": 2, "test": 3}
    assert split["test"].tolist() == split_names(names, 2, 3, 5)[0]["test"].tolist()
    lists = {part: (tmp_path / "data" / f"faces.{part}.txt").read_text().split() for part in split}
    assert lists == {part: [names[row] for row in rows] for part, rows in split.items()}
    assert reading.read_image(packed_file.companion(path, "sheet.png")).shape[1] > 500
    printed = capsys.readouterr().out
    assert "packed 12 of 12 images" in printed and "train 7, val 2, test 3" in printed
    for file in ("faces.records.npz", "faces.train.txt", "faces.sheet.png"):
        assert str(tmp_path / "data" / file) in printed and (tmp_path / "data" / file).exists()


def test_every_rejected_file_is_named_with_reason_and_cure_and_shifts_nothing(tmp_path, folder, capsys):
    grey = np.full((SIZE, SIZE), 90, np.uint8)
    good = reading.read_image(str(folder / "face05.png"))
    cv2.imwrite(str(folder / "aaa_no_alpha.png"), np.dstack([grey] * 3))
    cv2.imwrite(str(folder / "bbb_transparent.png"), np.dstack([grey] * 3 + [grey * 0]))
    cv2.imwrite(str(folder / "ccc_size.png"), np.full((20, 30, 4), 255, np.uint8))
    (folder / "ddd_broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    cv2.imwrite(str(folder / "eee_points.png"), np.dstack([grey] * 4))
    (folder / "eee_points.txt").write_text("1 2\n")
    latin = os.path.join(os.fsencode(folder), b"fff_\xe9.png")
    open(latin, "wb").write((folder / "face00.png").read_bytes())
    (folder / "ggg_two\nlines.png").write_bytes((folder / "face00.png").read_bytes())
    assert _run(tmp_path, "--input", folder, "--out", tmp_path / "own.bin") == 0
    text = capsys.readouterr().out
    for name, reason in (("aaa_no_alpha.png", "no alpha channel.*--photos"), ("bbb_transparent.png", "alpha 0"),
                         ("ccc_size.png", "30 x 20.*64 x 64.*--img_size"), ("ddd_broken.png", "cut short or damaged"),
                         ("eee_points.png", "eee_points.txt: has 1 points"),
                         ("fff_\\udce9.png", "no text"), (r"ggg_two\nlines.png", "line break")):
        line = next(line for line in text.splitlines() if line.strip().startswith(name))
        assert re.search(reason, line), line
    assert "packed 12 of 19 images" in text and "rejected 7:" in text
    path = str(tmp_path / "own.bin")
    place = packed_file.read_companion(path).names.index("face05")
    np.testing.assert_array_equal(packed_file.read_records(path, [place])[0], good)


def test_nothing_packed_is_exit_code_1_and_leaves_no_file(tmp_path, capsys):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    assert _run(tmp_path, "--input", tmp_path / "images") == 1
    text = capsys.readouterr().out
    assert "a.png" in text and "nothing was packed" in text
    assert not os.listdir(tmp_path / "data")


@pytest.mark.parametrize("arguments, message", [
    (["--input", "absent"], "no such file or folder"), (["--masks", "m"], "go with --photos"),
    (["--input", ".", "--set", "sed=1"], "did you mean 'seed'"), (["--config", "absent.yaml"], "absent.yaml"),
    (["--legacy-float32", "absent.bin"], "absent.bin"),
    (["--photos", ".", "--masks", ".", "--skin-labels", "one"], "--skin-labels one"),
    (["--photos", ".", "--skin-labels", "1"], "goes with --masks"),
    (["--photos", ".", "--masks", "absent"], "--masks absent"),
    (["--set", "world=ict"], "--photos DIR"),
    (["--input", ""], "--input is empty"), (["--photos", ""], "--photos is empty"), (["--out", ""], "--out is empty"),
    (["--legacy-float32", ""], "--legacy-float32 is empty"), (["--root_dir", ""], "--root_dir is empty"),
    (["--photos", ".", "--masks", ""], "--masks is empty"), (["--legacy-float32", "."], "is a folder or a pipe"),
    (["--workers", "100000000000"], "'workers'"), (["--workers", "0"], "'workers'"), (["--seed", "-1"], "'seed'"),
    (["--img_size", "7"], "'img_size'"), (["--img_size", "99999999"], "'img_size'"),
    (["--out", "/proc/x/y.bin"], "/proc/x"), (["--out", "."], "is a folder")])
def test_mistakes_are_one_message_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert _run(tmp_path, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert _run(tmp_path, *arguments, "--debug") == 2 and "Traceback" in capsys.readouterr().err


def test_photos_become_segmented_pngs_and_a_packed_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(worlds, "load_morphable", lambda config: _Model)
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
    belonging = packed_file.read_companion(path)
    names, points, landmarks = belonging.names, belonging.points, belonging.landmarks
    assert names == ["found", "given", "masked"]
    records, crops = packed_file.read_records(path, range(3)), tmp_path / "data" / "crops-faces"
    assert str(crops) in text
    for i, name in enumerate(names):
        kept = str(crops / name)
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
    assert packed_file.read_companion(path).names == ["record_000000", "record_000002"]
    np.testing.assert_array_equal(packed_file.read_records(path, [0, 1]), images[[0, 2]])


def test_without_arguments_the_demo_portraits_are_packed(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(worlds, "ensure_demo_portraits",
                        lambda config: [str(folder / f"face{i:02d}.png") for i in range(5)])
    (folder / "truth").mkdir()
    assert _run(tmp_path) == 0
    path = str(tmp_path / "data" / "faces.bin")
    assert packed_file.read_header(path).count == 5, "what was asked for, whatever else is in the folder"
    assert packed_file.read_companion(path).truth_folder == str(folder / "truth")


def test_made_portraits_of_any_world_are_packed(tmp_path, capsys):
    half_ellipsoid(25, 31).save(str(tmp_path / "data" / "model.npz"))
    flags = ["--set", "world=ict", "--set", "demo_portraits=6", "--set", "val_count=2", "--set", "test_count=1"]
    assert _run(tmp_path, *flags) == 2
    assert "no segmented images" in capsys.readouterr().err, "an open-model world has none of its own"
    assert _run(tmp_path, *flags, "--made", "--out", tmp_path / "made.bin") == 0
    records = packed_file.read_companion(str(tmp_path / "made.bin"))
    assert len(records.names) == 6 and {name: len(rows) for name, rows in records.splits.items()} == {
        "train": 3, "val": 2, "test": 1}
    with np.load(os.path.join(records.truth_folder, records.names[0] + ".npz")) as truth:
        assert truth["albedo"].shape == (775, 3)


def test_made_portraits_go_with_no_other_source(tmp_path, folder, capsys):
    for flags in (["--input", folder], ["--photos", folder]):
        with pytest.raises(SystemExit) as caught:
            _run(tmp_path, "--made", *flags)
        assert caught.value.code == 2 and "not allowed with" in capsys.readouterr().err


# ---------------------------------------------------------------- each packing holds what it was asked for
@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of photos that are aligned at once, by a stand-in."""
    monkeypatch.setattr(worlds, "load_morphable", lambda config: _Model)
    source = tmp_path / "photos"
    source.mkdir()

    def load(path, size, **others):
        rgba = np.full((size, size, 4), len(path) % 200, np.uint8)
        rgba[..., 3] = 255
        return packing.Item(os.path.splitext(os.path.basename(path))[0], rgba, np.zeros((5, 2)))

    monkeypatch.setattr(packing, "load_photo", load)

    def write(*names):
        for name in names:
            cv2.imwrite(str(source / name), np.zeros((9, 9, 3), np.uint8))
        return source

    return write


def test_crops_are_those_of_the_latest_packing_alone_and_of_no_other(tmp_path, photos, folder, monkeypatch):
    assert _run(tmp_path, "--photos", photos("a.png", "b.png")) == 0
    data = tmp_path / "data"
    assert sorted(os.listdir(data / "crops-faces")) == ["a.png", "a.txt", "b.png", "b.txt"]
    os.remove(tmp_path / "photos" / "a.png")
    assert _run(tmp_path, "--photos", photos("c.png"), "--out", data / "other.bin") == 0
    assert _run(tmp_path, "--photos", photos("d.png")) == 0
    assert packed_file.read_companion(str(data / "faces.bin")).names == ["b", "c", "d"]
    assert sorted(os.listdir(data / "crops-faces")) == ["b.png", "b.txt", "c.png", "c.txt", "d.png", "d.txt"]
    assert sorted(os.listdir(data / "crops-other")) == ["b.png", "b.txt", "c.png", "c.txt"]
    # The demo world's portraits are packed without the crops.
    monkeypatch.setattr(worlds, "ensure_demo_portraits", lambda config: [str(folder / "face00.png")])
    assert _run(tmp_path) == 0
    assert packed_file.read_companion(str(data / "faces.bin")).names == ["face00"]
    assert not [name for name in os.listdir(data) if "partial" in name or name.endswith(".try")]


def test_crops_cannot_be_packed_as_photos_over_themselves(tmp_path, photos, capsys):
    assert _run(tmp_path, "--photos", photos("a.png")) == 0
    crops = tmp_path / "data" / "crops-faces"
    assert _run(tmp_path, "--photos", crops) == 2 and "--input" in capsys.readouterr().err
    assert os.listdir(crops)
    assert _run(tmp_path, "--input", crops) == 0


def test_files_that_differ_in_their_ending_are_both_packed(tmp_path, photos):
    assert _run(tmp_path, "--photos", photos("x.jpg", "x.png", "x.jpg.png", "y.png")) == 0
    assert packed_file.read_companion(str(tmp_path / "data" / "faces.bin")).names == ["x", "x.jpg", "x.png", "y"]
    summary = packing.Summary("none")
    paths = []
    for folder in "abc":
        (tmp_path / folder).mkdir()
        paths.append(str(tmp_path / folder / "x.jpg"))
        (tmp_path / folder / "x.jpg").write_bytes(b"")
    found = [item.name for item in packing._usable(paths, _item, 2, summary)]
    assert found == ["x", "x.jpg"] and "x.jpg is packed already" in summary.rejected[0][1]


def _item(path):
    return packing.Item(os.path.splitext(os.path.basename(path))[0], np.full((4, 4, 4), 255, np.uint8))


# ---------------------------------------------------------------- what nobody foresaw
@pytest.mark.parametrize("error", [cv2.error("resize: inv_scale_x > 0"), MemoryError(), ValueError("a bug"),
                                   RecursionError("deep"), OSError(5, "broken disk")])
def test_a_photo_that_fails_in_an_unforeseen_way_is_rejected_and_the_rest_packed(tmp_path, folder, monkeypatch, capsys,
                                                                                 error):
    def load(path, size):
        if "face07" in path:
            raise error
        return load_segmented(path, size)

    load_segmented = packing.load_segmented
    monkeypatch.setattr(packing, "load_segmented", load)
    assert _run(tmp_path, "--input", folder) == 0
    captured = capsys.readouterr()
    line = next(line for line in captured.out.splitlines() if line.strip().startswith("face07.png"))
    assert type(error).__name__ in line and str(error).split("\n")[0] in line and "--debug" in line
    assert "packed 11 of 12" in captured.out and "Traceback" not in captured.out + captured.err
    assert _run(tmp_path, "--input", folder, "--debug") == 0
    captured = capsys.readouterr()
    assert "Traceback" in captured.out + captured.err
    assert logging.getLogger("facegcn").level != logging.DEBUG, "--debug ends with the program"


def test_a_pipe_among_the_images_is_rejected_and_nobody_waits_for_it(tmp_path, folder):
    os.mkfifo(folder / "face99.png")
    summary = packing.Summary("none")
    names = sorted(os.listdir(folder))
    found = list(packing._usable([str(folder / name) for name in names if name.endswith("png")], _item, 2, summary))
    assert len(found) == 12 and "a pipe" in dict(summary.rejected)["face99.png"]


def test_a_bug_while_packing_keeps_its_traceback(tmp_path, folder, monkeypatch, capsys):
    monkeypatch.setattr(packing, "draw_points", None)
    assert _run(tmp_path, "--input", folder) == 70
    assert "TypeError" in capsys.readouterr().err


def test_a_full_disk_is_named_and_leaves_the_former_file(tmp_path, folder, monkeypatch, capsys):
    assert _run(tmp_path, "--input", folder) == 0
    before = {name: (tmp_path / "data" / name).read_bytes() for name in os.listdir(tmp_path / "data")}
    full = types.SimpleNamespace(crc32=lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    monkeypatch.setattr(packed_file, "zlib", full)
    assert _run(tmp_path, "--input", folder) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'data' / 'faces.bin'}: No space left" in error and "Traceback" not in error
    assert {name: (tmp_path / "data" / name).read_bytes() for name in os.listdir(tmp_path / "data")} == before


def test_an_output_that_cannot_be_written_is_noticed_before_any_photo_is_read(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(packing, "load_photo", None)
    (tmp_path / "file").write_text("")
    assert _run(tmp_path, "--photos", photos("a.png"), "--out", tmp_path / "file" / "x.bin") == 2


# ---------------------------------------------------------------- Ctrl-C, start-up
def test_ctrl_c_ends_at_once_and_leaves_nothing(tmp_path, folder, monkeypatch, capsys):
    begun = []

    def load(path, size):
        begun.append(path)
        if len(begun) == 3:
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        time.sleep(0.3)
        return _item(path)

    monkeypatch.setattr(packing, "load_segmented", load)
    for i in range(12, 40):
        (folder / f"face{i:02d}.png").write_bytes(b"")
    assert _run(tmp_path, "--input", folder) == 130
    assert len(begun) <= 8, "those read ahead are not begun any more"
    assert not os.listdir(tmp_path / "data") and "stopped; nothing was packed" in capsys.readouterr().err


@pytest.mark.parametrize("program", [["create_bin.py"], ["-m", "facegcn.portraits"], ["-m", "facegcn.demo"]])
def test_help_waits_for_no_tensorflow(program):
    root = os.path.dirname(os.path.abspath(create_bin.__file__))
    found = subprocess.run([sys.executable, "-X", "importtime", *program, "--help"], cwd=root, capture_output=True,
                           text=True, check=True)
    assert "usage" in found.stdout and "tensorflow" not in found.stderr and "keras" not in found.stderr


def test_memory_stays_bounded_while_reading_ahead(tmp_path):
    """No more images are loaded ahead of the packed file than the readers need."""
    alive, most = set(), [0]

    def load(index):
        alive.add(index)
        most[0] = max(most[0], len(alive))
        return packing.Item(f"{index:03d}", np.full((2, 2, 4), index % 200 + 1, np.uint8))

    summary = packing.Summary("none")
    for item in packing._usable(range(300), load, Config(workers=2).workers, summary):
        alive.discard(int(item.name))
    assert most[0] <= 2 * 8 + 3
