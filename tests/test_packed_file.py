"""The packed file: format, damage, splits, landmarks, the released layout, reading speed."""

import os
import struct

import numpy as np
import pytest
import tensorflow as tf

from facegcn.errors import BinFileError
from facegcn.photos import packed_file


@pytest.fixture
def packed(tmp_path, rng):
    """(path, names, images) of a packed file of 40 small images."""
    images = rng.integers(0, 256, (40, 6, 5, 4), np.uint8)
    names = [f"face {i}" for i in range(40)]
    path = str(tmp_path / "sub" / "faces.bin")
    packed_file.write_bin(path, names, images)
    return path, names, images


def test_header_bytes_are_as_documented(packed):
    path, _, images = packed
    data = open(path, "rb").read()
    magic, version, count, height, width, channels, dtype = struct.unpack_from("<8sIQIII8s", data)
    assert (magic, version, count, height, width, channels) == (b"FACEGCN\0", 1, 40, 6, 5, 4)
    assert dtype.rstrip(b"\0") == b"uint8" and len(data) == 64 + images.nbytes
    assert data[64:] == images.tobytes()


def test_tensorflow_reads_the_records_without_our_reader(packed):
    path, _, images = packed
    header = packed_file.read_header(path)
    records = tf.data.FixedLengthRecordDataset(path, header.record_bytes, header_bytes=packed_file.HEADER_BYTES)
    decoded = [tf.reshape(tf.io.decode_raw(r, tf.uint8), header.shape).numpy() for r in records]
    np.testing.assert_array_equal(decoded, images)


def test_random_access_and_pipelines_agree(packed):
    path, names, images = packed
    chosen = [39, 0, 7, 7, 12]
    assert packed_file.read_names(path) == names
    np.testing.assert_array_equal(packed_file.read_records(path, chosen), images[chosen])
    np.testing.assert_array_equal(list(packed_file.dataset(path).as_numpy_iterator()), images)
    np.testing.assert_array_equal(list(packed_file.dataset(path, chosen).as_numpy_iterator()), images[chosen])
    batches = list(packed_file.dataset(path, chosen, batch_size=2).as_numpy_iterator())
    assert [len(b) for b in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches), images[chosen])
    assert packed_file.dataset(path, chosen).element_spec == tf.TensorSpec((6, 5, 4), tf.uint8)
    assert packed_file.read_records(path, []).shape == (0, 6, 5, 4)


@pytest.mark.parametrize("index", [-1, 40])
def test_index_outside_is_refused(packed, index):
    with pytest.raises(BinFileError, match="holds images 0..39"):
        packed_file.read_records(packed[0], [0, index])


@pytest.mark.parametrize("cut, message", [(1, "cut short"), (500, "cut short"), (-3, "too long")])
def test_wrong_length_is_found_before_anything_else(packed, cut, message):
    path = packed[0]
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - cut)
    for read in (packed_file.read_header, packed_file.read_names, packed_file.dataset, packed_file.read_landmarks):
        with pytest.raises(BinFileError, match=message):
            read(path)


def test_other_files_are_refused(packed, tmp_path):
    with pytest.raises(BinFileError, match="create_bin.py"):
        packed_file.read_header(str(tmp_path / "absent.bin"))
    headerless = tmp_path / "released.bin"
    np.zeros((2, 8, 8, 4), np.float32).tofile(headerless)
    with pytest.raises(BinFileError, match="--legacy-float32"):
        packed_file.read_header(str(headerless))
    data = bytearray(open(packed[0], "rb").read())
    data[8] = 9
    newer = tmp_path / "newer.bin"
    newer.write_bytes(data)
    with pytest.raises(BinFileError, match="version 9"):
        packed_file.read_header(str(newer))


def test_names_list_of_another_length_is_refused(packed):
    with open(packed_file.companion(packed[0], "names.txt"), "a") as file:
        file.write("one more\n")
    with pytest.raises(BinFileError, match="41 names"):
        packed_file.read_names(packed[0])


@pytest.mark.parametrize("names, images, message", [
    (["a", "b"], [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 5, 4), np.uint8)], r"'b'.*\(4, 5, 4\).*\(4, 4, 4\)"),
    (["a"], [np.zeros((4, 4, 4), np.float32)], "'a' must be uint8"),
    (["a"], [np.zeros((4, 4, 3), np.uint8)], r"\(4, 4, 3\)"),
    (["a", "a"], [np.zeros((4, 4, 4), np.uint8)] * 2, "occurs twice"),
    (["a\nb"], [np.zeros((4, 4, 4), np.uint8)], "line break"),
    (["a", "b"], [np.zeros((4, 4, 4), np.uint8)], "shorter"),
    ([], [], "no image"),
])
def test_what_cannot_be_packed_leaves_the_old_file(tmp_path, names, images, message):
    path = tmp_path / "faces.bin"
    path.write_bytes(b"old")
    with pytest.raises(BinFileError, match=message):
        packed_file.write_bin(str(path), names, images)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["faces.bin"]


def test_landmarks_round_trip_and_absent_ones_are_nan(packed):
    path = packed[0]
    points, landmarks = packed_file.read_landmarks(path)
    assert points.shape == (40, 5, 2) and landmarks.shape == (40, 68, 2)
    assert np.isnan(points).all() and np.isnan(landmarks).all()
    points[3], landmarks[4] = 1.5, 2.5
    packed_file.write_landmarks(path, points, landmarks)
    for read, written in zip(packed_file.read_landmarks(path), (points, landmarks)):
        np.testing.assert_array_equal(read, written)
    packed_file.write_landmarks(path, points[:3], landmarks[:3])
    with pytest.raises(BinFileError, match="create_bin.py"):
        packed_file.read_landmarks(path)


# ---------------------------------------------------------------- splits
def test_split_is_seeded_disjoint_complete_and_ignores_the_order():
    names = [f"n{i:03d}" for i in range(100)]
    split = packed_file.split_names(names, 10, 20, seed=2)
    assert (len(split.train), len(split.val), len(split.test), split.remark) == (70, 10, 20, "")
    assert sorted(split.train + split.val + split.test) == names
    assert packed_file.split_names(names[::-1], 10, 20, seed=2) == split
    assert packed_file.split_names(names, 10, 20, seed=3) != split


@pytest.mark.parametrize("count, val, test, sizes", [
    (16, 4096, 4096, (12, 2, 2)), (16, 4096, 0, (12, 4, 0)), (3, 4096, 4096, (1, 1, 1)), (2, 1, 1, (2, 0, 0)),
    (1, 1, 1, (1, 0, 0)), (100, 30, 90, (75, 6, 19)), (8, 4, 0, (4, 4, 0))])
def test_small_sets_shrink_the_hold_out_in_proportion(count, val, test, sizes):
    split = packed_file.split_names([str(i) for i in range(count)], val, test, seed=0)
    assert (len(split.train), len(split.val), len(split.test)) == sizes
    shrunk = (len(split.val), len(split.test)) != (val, test)
    assert bool(split.remark) == shrunk
    if shrunk:
        assert f"{count} images are too few" in split.remark and str(val) in split.remark


def test_split_lists_round_trip_and_unknown_names_are_named(packed):
    path, names, _ = packed
    split = packed_file.split_names(names, 4, 6, seed=0)
    packed_file.write_split(path, split)
    indices = packed_file.read_split(path)
    assert [names[i] for i in indices["test"]] == split.test and len(indices["train"]) == 30
    with open(os.path.join(os.path.dirname(path), "val.txt"), "a") as file:
        file.write("nobody\n")
    with pytest.raises(BinFileError, match="'nobody'"):
        packed_file.read_split(path)


# ---------------------------------------------------------------- the released layout
def test_released_layout_becomes_the_same_levels(tmp_path, rng):
    images = rng.integers(0, 256, (3, 8, 8, 4), np.uint8)
    floats = np.concatenate([images[..., :3] / 127.5 - 1.0, images[..., 3:] / 255.0], axis=-1).astype(np.float32)
    path = str(tmp_path / "released.bin")
    floats.tofile(path)
    records = packed_file.open_legacy(path, 8)
    np.testing.assert_array_equal([packed_file.legacy_to_uint8(r) for r in records], images)
    with pytest.raises(BinFileError, match="--img_size"):
        packed_file.open_legacy(path, 9)
    with pytest.raises(BinFileError, match="outside RGB"):
        packed_file.legacy_to_uint8(images[0].astype(np.float32))


def test_many_images_are_one_call(packed, monkeypatch):
    """What makes reading fast (facegcn.benchmark times it): no Python call for each image."""
    path, _, images = packed
    calls, gather = [], packed_file._gather
    monkeypatch.setattr(packed_file, "_gather", lambda *a: calls.append(len(a[2])) or gather(*a))
    assert len(list(packed_file.dataset(path))) == 40
    assert sorted(calls) == [8, 32]
    calls.clear()
    assert len(list(packed_file.dataset(path, batch_size=16))) == 3
    assert sorted(calls) == [8, 16, 16]
