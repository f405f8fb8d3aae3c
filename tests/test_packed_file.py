"""The packed file and the one beside it: format, damage, splits, points, the released layout, reading speed."""

import ctypes
import gc
import os
import shutil
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from facegcn.errors import BinFileError, UserError
from facegcn.files import check_name, read_npz, write_npz
from facegcn.photos import packed_file, released_layout
from facegcn.photos.packed_file import Records
from facegcn.photos.splits import split_names


def _beside(path):
    return path.replace(".bin", ".records.npz")


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
    assert (magic, version, count, height, width, channels) == (b"FACEGCN\0", 2, 40, 6, 5, 4)
    assert dtype.rstrip(b"\0") == b"uint8" and len(data) == 64 + images.nbytes
    assert data[40:56] == packed_file.read_header(path).identity == bytes(read_npz(_beside(path))["identity"])
    assert data[56:64] == bytes(8)
    assert data[64:] == images.tobytes()


def test_tensorflow_reads_the_records_without_our_reader(packed):
    path, _, images = packed
    header = packed_file.read_header(path)
    records = tf.data.FixedLengthRecordDataset(path, header.record_bytes, header_bytes=packed_file.HEADER_BYTES)
    decoded = [tf.reshape(tf.io.decode_raw(r, tf.uint8), header.shape).numpy() for r in records]
    np.testing.assert_array_equal(decoded, images)


@pytest.mark.parametrize("pread", [True, False])
def test_chosen_records_come_in_the_order_asked_for(packed, pread, monkeypatch):
    path, names, images = packed
    monkeypatch.setattr(packed_file.record_kernels, "HAS_PREAD", pread)
    chosen = [39, 0, 7, 7, 12]
    assert packed_file.read_companion(path).names == names
    np.testing.assert_array_equal(packed_file.read_records(path, chosen), images[chosen])
    np.testing.assert_array_equal(packed_file.read_records(path, range(40)), images)
    assert packed_file.read_records(path, []).shape == (0, 6, 5, 4)
    reader, rows = packed_file.Reader(path), np.zeros((7, 6, 5, 4), np.uint8)
    reader.into(rows, np.array([5, 1]), np.array([3, 30]))
    np.testing.assert_array_equal(rows[[5, 1]], images[[3, 30]])
    assert not rows[[0, 2, 3, 4, 6]].any()


def test_a_reader_keeps_the_records_it_was_opened_with(packed):
    """As when photos are packed again while a training runs."""
    path, names, images = packed
    reader = packed_file.Reader(path)
    packed_file.write_bin(path, names, images ^ 255)
    np.testing.assert_array_equal(reader(range(40)), images)
    np.testing.assert_array_equal(packed_file.read_records(path, range(40)), images ^ 255)


def test_readers_close_their_files(packed):
    readers = [packed_file.Reader(packed[0]) for _ in range(3)]
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    files = [reader._file for reader in readers]
    del readers
    gc.collect()
    assert all(file.closed for file in files)
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before - 3


def test_a_file_cut_short_or_unreadable_while_it_is_read_is_named(packed):
    path = packed[0]
    reader = packed_file.Reader(path)
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 1)
    assert reader([0]).shape == (1, 6, 5, 4)
    with pytest.raises(BinFileError, match="faces.bin became shorter"):
        reader([0, 39])
    reader._file.close()
    reader._file = open(os.devnull, "wb", buffering=0)  # not for reading
    with pytest.raises(BinFileError, match="image 3 cannot be read"):
        reader([3])


@pytest.mark.parametrize("index", [-1, 40])
def test_index_outside_is_refused(packed, index):
    with pytest.raises(BinFileError, match="holds images 0..39"):
        packed_file.read_records(packed[0], [0, index])


@pytest.mark.parametrize("cut, message", [(1, "cut short"), (500, "cut short"), (-3, "too long")])
def test_wrong_length_is_found_before_anything_else(packed, cut, message):
    path = packed[0]
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - cut)
    for read in (packed_file.read_header, packed_file.read_companion, packed_file.Reader, packed_file.verify):
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


@pytest.mark.parametrize("names, images, message", [
    (["a", "b"], [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 5, 4), np.uint8)], r"'b'.*\(4, 5, 4\).*\(4, 4, 4\)"),
    (["a"], [np.zeros((4, 4, 4), np.float32)], "'a' must be uint8"),
    (["a"], [np.zeros((4, 4, 3), np.uint8)], r"\(4, 4, 3\)"),
    (["a", "a"], [np.zeros((4, 4, 4), np.uint8)] * 2, "occurs twice"),
    (["a\nb"], [np.zeros((4, 4, 4), np.uint8)], "line break"),
    (["../../evil"], [np.zeros((4, 4, 4), np.uint8)], "slash"),
    (["caf\udce9"], [np.zeros((4, 4, 4), np.uint8)], "no text"),
    ([""], [np.zeros((4, 4, 4), np.uint8)], "must say something"),
    (["a", "b"], [np.zeros((4, 4, 4), np.uint8)], "more names than images"),
    (["a"], [np.zeros((4, 4, 4), np.uint8)] * 2, "fewer names than images"),
    (["a"], [np.zeros((0, 4, 4), np.uint8)], "'a' must be uint8"),
    ([], [], "no image"),
])
def test_what_cannot_be_packed_leaves_the_old_file(tmp_path, names, images, message):
    path = tmp_path / "faces.bin"
    path.write_bytes(b"old")
    with pytest.raises(BinFileError, match=message):
        packed_file.write_bin(str(path), names, images)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["faces.bin"]


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), MemoryError(), IndexError(3)])
def test_mistakes_of_a_lazy_loader_go_through_unchanged(tmp_path, error):
    def images():
        yield "a", np.zeros((4, 4, 4), np.uint8)
        raise error

    with pytest.raises(type(error)) as raised:
        packed_file.write_bin(str(tmp_path / "faces.bin"), None, images())
    assert raised.value is error and not os.listdir(tmp_path)


def test_a_loader_s_own_file_is_named_not_the_packed_one(tmp_path):
    def images():
        yield "a", np.zeros((4, 4, 4), np.uint8)
        open(tmp_path / "crop.png")

    with pytest.raises(FileNotFoundError, match="crop.png"):
        packed_file.write_bin(str(tmp_path / "faces.bin"), None, images())


# ---------------------------------------------------------------- the file beside
def _records(names, rng, folder=""):
    splits, _ = split_names(names, 2, 3, seed=1)
    points = rng.normal(size=(len(names), 5, 2)).astype(np.float32)
    landmarks = np.full((len(names), 68, 2), np.nan, np.float32)
    return Records(names, splits, points, landmarks, folder)


def _assert_same(found, expected):
    assert found.names == expected.names
    for part in packed_file.SPLIT_NAMES:
        np.testing.assert_array_equal(found.splits[part], expected.splits[part])
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.landmarks, expected.landmarks)


def test_without_a_description_all_is_for_training_and_points_are_unknown(packed):
    records = packed_file.read_companion(packed[0])
    assert {part: len(rows) for part, rows in records.splits.items()} == {"train": 40, "val": 0, "test": 0}
    assert records.points.shape == (40, 5, 2) and records.landmarks.shape == (40, 68, 2)
    assert np.isnan(records.points).all() and np.isnan(records.landmarks).all() and records.truth_folder == ""


def test_all_that_belongs_to_the_records_stands_in_one_file_that_moves_along(tmp_path, rng):
    images, names = rng.integers(0, 256, (9, 3, 3, 4), np.uint8), [f"n{i}" for i in range(9)]
    records = _records(names, rng, str(tmp_path / "a" / "pictures" / "truth"))
    packed_file.write_bin(str(tmp_path / "a" / "faces.bin"), names, images, lambda written: records)
    assert sorted(os.listdir(tmp_path / "a")) == ["faces.bin", "faces.records.npz"]
    shutil.move(tmp_path / "a", tmp_path / "b")
    found = packed_file.read_companion(str(tmp_path / "b" / "faces.bin"))
    _assert_same(found, records)
    assert found.truth_folder == str(tmp_path / "b" / "pictures" / "truth")


def test_a_second_packed_file_in_the_folder_harms_nothing(tmp_path, rng):
    for name, count in (("faces", 12), ("second", 7)):
        names = [f"{i:02d}" for i in range(count)]  # those of the second are among those of the first
        packed_file.write_bin(str(tmp_path / f"{name}.bin"), names, rng.integers(0, 256, (count, 3, 3, 4), np.uint8),
                              lambda written: _records(written, rng))
    before = packed_file.read_companion(str(tmp_path / "faces.bin"))
    assert len(before.names) == 12 and len(before.splits["train"]) == 7
    assert len(packed_file.read_companion(str(tmp_path / "second.bin")).names) == 7


@pytest.mark.parametrize("change", ["other images", "other names", "other order"])
def test_a_packed_file_of_the_same_size_is_not_taken_for_the_former(packed, change):
    """As after a crash between the two files, or a copy of one of them alone."""
    path, names, images = packed
    kept = path + ".kept"
    shutil.copy(_beside(path), kept)
    packed_file.write_bin(path, names[::-1] if change == "other names" else names,
                          {"other images": images ^ 1, "other order": images[::-1]}.get(change, images))
    shutil.move(kept, _beside(path))
    for read in (packed_file.read_companion, packed_file.Reader, packed_file.verify):
        with pytest.raises(BinFileError, match="do not belong together.*create_bin.py"):
            read(path)


def test_an_absent_file_beside_is_named(packed):
    os.remove(_beside(packed[0]))
    with pytest.raises(BinFileError, match=r"faces\.records\.npz is not there.*create_bin.py"):
        packed_file.read_companion(packed[0])


@pytest.mark.parametrize("changes, message", [
    ({"names": np.frombuffer(b"../../evil", np.uint8)}, "do not belong together"),
    ({"points": np.zeros((2, 5, 2))}, "points of shape"), ({"landmarks": np.zeros(3)}, "landmarks of shape"),
    ({"train": np.array([0, 0])}, "each of 1 once"), ({"val": np.array([5])}, "each of 1 once"),
    ({"test": np.array(["x"])}, "damaged"), ({"names": np.zeros((2, 2))}, "do not belong|damaged")])
def test_a_forged_file_beside_is_refused(tmp_path, changes, message):
    path = str(tmp_path / "faces.bin")
    packed_file.write_bin(path, ["a"], [np.zeros((2, 2, 4), np.uint8)])
    write_npz(_beside(path), {**read_npz(_beside(path)), **changes})
    with pytest.raises(BinFileError, match=message):
        packed_file.read_companion(path)


def test_names_that_leave_the_folder_are_refused_when_read(tmp_path, monkeypatch):
    path = str(tmp_path / "faces.bin")
    with monkeypatch.context() as patch:
        patch.setattr(packed_file, "check_name", lambda name, what: name)
        packed_file.write_bin(path, ["../../evil"], [np.zeros((2, 2, 4), np.uint8)])
    with pytest.raises(BinFileError, match="evil"):
        packed_file.read_companion(path)


def test_a_changed_picture_is_found_where_it_is_read(packed):
    path, _, images = packed
    with open(path, "r+b") as file:
        file.seek(packed_file.HEADER_BYTES + 7 * 120 + 50)
        file.write(b"\x00\x01")
    np.testing.assert_array_equal(packed_file.read_records(path, [6, 8]), images[[6, 8]])
    with pytest.raises(BinFileError, match="image 7 is damaged"):
        packed_file.read_records(path, [6, 7])
    with pytest.raises(BinFileError, match="image 7 is damaged"):
        packed_file.verify(path)
    with pytest.raises(BinFileError, match="image 7 is damaged .*'face 7'.*make both again with create_bin.py"):
        packed_file.Reader(path)([7])
    with pytest.raises(tf.errors.InvalidArgumentError), packed_file.damage_named():
        tf.debugging.assert_equal(1, 2)


_NAMES = st.text(min_size=1, max_size=12).filter(lambda name: _is_name(name))


def _is_name(name):
    try:
        return bool(check_name(name))
    except UserError:
        return False


@settings(max_examples=40, deadline=None)
@given(names=st.lists(_NAMES, min_size=1, max_size=6, unique=True), seed=st.integers(0, 99),
       height=st.integers(1, 5), width=st.integers(1, 5))
def test_any_names_and_pictures_come_back(tmp_path_factory, names, seed, height, width):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (len(names), height, width, 4), np.uint8)
    path = str(tmp_path_factory.mktemp("any") / "faces.bin")
    records = packed_file.write_bin(path, names, images, lambda written: _records(written, rng))
    _assert_same(packed_file.read_companion(path), records)
    packed_file.verify(path)
    np.testing.assert_array_equal(packed_file.read_records(path, range(len(names))), images)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small packed file and the bytes of both files."""
    rng = np.random.default_rng(0)
    path = str(tmp_path_factory.mktemp("whole") / "faces.bin")
    packed_file.write_bin(path, list("abcdef"), rng.integers(0, 256, (6, 2, 3, 4), np.uint8),
                          lambda written: _records(written, rng, os.path.dirname(path)))
    files = (path, _beside(path))
    return path, {file: open(file, "rb").read() for file in files}, packed_file.read_companion(path)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_any_damaged_byte_is_our_error_or_changes_nothing(whole, data):
    path, contents, records = whole
    file = data.draw(st.sampled_from(sorted(contents)))
    damaged = bytearray(contents[file])
    place = data.draw(st.integers(0, len(damaged) - 1))
    damaged[place] ^= data.draw(st.integers(1, 255))
    for name, content in contents.items():
        with open(name, "wb") as handle:
            handle.write(damaged if name == file else content)
    try:
        found = packed_file.read_companion(path)
        packed_file.verify(path)
    except BinFileError:
        return
    assert file != path, "every byte of the packed file counts"
    _assert_same(found, records)
    assert found.truth_folder == records.truth_folder


# ---------------------------------------------------------------- splits
def _sizes(splits):
    return tuple(len(splits[part]) for part in packed_file.SPLIT_NAMES)


def test_split_is_seeded_disjoint_complete_and_ignores_the_order():
    names = [f"n{i:03d}" for i in range(100)]
    splits, remark = split_names(names, 10, 20, seed=2)
    assert _sizes(splits) == (70, 10, 20) and remark == ""
    assert sorted(np.concatenate(list(splits.values()))) == list(range(100))
    backwards, _ = split_names(names[::-1], 10, 20, seed=2)
    for part, rows in splits.items():
        assert [names[row] for row in rows] == [names[::-1][row] for row in backwards[part]]
    assert (split_names(names, 10, 20, seed=3)[0]["test"] != splits["test"]).any()


@pytest.mark.parametrize("count, val, test, sizes", [
    (16, 4096, 4096, (12, 2, 2)), (16, 4096, 0, (12, 4, 0)), (3, 4096, 4096, (1, 1, 1)), (2, 1, 1, (2, 0, 0)),
    (1, 1, 1, (1, 0, 0)), (100, 30, 90, (75, 6, 19)), (8, 4, 0, (4, 4, 0))])
def test_small_sets_shrink_the_hold_out_in_proportion(count, val, test, sizes):
    splits, remark = split_names([str(i) for i in range(count)], val, test, seed=0)
    assert _sizes(splits) == sizes
    shrunk = sizes[1:] != (val, test)
    assert bool(remark) == shrunk
    if shrunk:
        assert f"{count} images are too few" in remark and str(val) in remark


# ---------------------------------------------------------------- the released layout
def test_released_layout_becomes_the_same_levels(tmp_path, rng):
    images = rng.integers(0, 256, (3, 8, 8, 4), np.uint8)
    floats = np.concatenate([images[..., :3] / 127.5 - 1.0, images[..., 3:] / 255.0], axis=-1).astype(np.float32)
    path = str(tmp_path / "released.bin")
    floats.tofile(path)
    records = released_layout.open_legacy(path, 8)
    np.testing.assert_array_equal([released_layout.legacy_to_uint8(r) for r in records], images)
    with pytest.raises(BinFileError, match="--img_size"):
        released_layout.open_legacy(path, 9)
    with pytest.raises(BinFileError, match="outside RGB"):
        released_layout.legacy_to_uint8(images[0].astype(np.float32))
    for path in (tmp_path, tmp_path / "absent.bin"):
        with pytest.raises(BinFileError, match=path.name):
            released_layout.open_legacy(str(path), 8)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BinFileError, match="pipe"):
        released_layout.open_legacy(str(tmp_path / "pipe"), 8)


def test_a_system_that_gives_a_few_bytes_at_a_time_is_asked_again(packed, monkeypatch):
    """The compiled loop as plain Python; also what it says of a file that ends too early."""
    path, _, images = packed
    with open(path, "rb") as file:
        def pread(handle, place, size, offset):
            found = os.pread(handle, min(size, 7), offset)
            ctypes.memmove(place, found, len(found))
            return len(found)
        monkeypatch.setattr(packed_file.record_kernels, "_pread", pread)
        out, offsets = np.zeros((3, 120), np.uint8), 64 + 120 * np.array([39, 5, 40])
        rows = np.array([2, 0, 1])
        assert packed_file.record_kernels.fetch.py_func(file.fileno(), offsets, rows, out) == 2
    np.testing.assert_array_equal(out.reshape(3, 6, 5, 4)[[2, 0]], images[[39, 5]])
    assert not out[1].any()


def test_many_images_are_one_call_and_tried_once(packed, monkeypatch):
    """What makes reading fast (facegcn.benchmark times it): no Python call for each image, but for its first."""
    path, _, images = packed
    calls, tried = [], []
    fetch, crc32 = packed_file.record_kernels.fetch, packed_file.zlib.crc32
    monkeypatch.setattr(packed_file.record_kernels, "fetch", lambda *a: calls.append(len(a[1])) or fetch(*a))
    monkeypatch.setattr(packed_file, "zlib", SimpleNamespace(crc32=lambda data: tried.append(1) or crc32(data)))
    reader = packed_file.Reader(path)
    monkeypatch.setattr(reader, "_read", None)
    for chosen in (range(40), range(20), [3, 3]):
        np.testing.assert_array_equal(reader(chosen), images[list(chosen)])
    assert calls == [40, 20, 2] and len(tried) == 40
