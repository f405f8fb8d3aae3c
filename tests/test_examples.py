"""The order of examples: a function of seed and epoch, from any example on, without a table over all photos."""

import gc

import numpy as np
import pytest
import tensorflow as tf

from facegcn.backends import record_kernels
from facegcn.errors import BinFileError
from facegcn.landmarks import landmark_targets
from facegcn.photos.buffers import Buffers
from facegcn.photos.packed_file import damage_named, write_bin
from facegcn.photos.packed_photos import PackedPhotos, alternated, batches, targets_of, to_network_range

COUNT = 70  # more than are fetched by one call


@pytest.fixture
def packed(tmp_path):
    """Records whose pixels are their number; every tenth has a truth."""
    path, names = str(tmp_path / "faces.bin"), [f"n{i}" for i in range(COUNT)]
    write_bin(path, names, [np.full((4, 4, 4), i, np.uint8) for i in range(COUNT)])
    rows = np.full(COUNT, -1, np.int32)
    rows[::10] = np.arange(7)
    truth = np.arange(7, dtype=np.float16)[:, None, None] * np.ones((7, 5, 3), np.float16)
    return PackedPhotos(path, names, {}, np.zeros((COUNT, 73, 2), np.float32), truth, rows)


def numbers(examples, count, **parts):
    """What the first ``count`` examples show, read in batches of 3."""
    shown = []
    for rgba, *_ in batches(examples, 3, **parts):
        shown += [round((value + 1) * 127.5) for value in rgba.numpy()[:, 0, 0, 0].tolist()]
        if len(shown) >= count:
            break
    return shown[:count]


def test_every_epoch_is_a_permutation_of_all_records(packed):
    indices = np.arange(3, 60)
    found = np.reshape(numbers(packed.examples(indices, (), seed=7), 4 * 57), (4, 57))
    for epoch in found:
        np.testing.assert_array_equal(np.sort(epoch), indices)
    assert len({tuple(epoch) for epoch in found}) == 4, "each in another order"
    np.testing.assert_array_equal(found[2], np.random.default_rng([7, 2]).permutation(indices))
    moved = np.abs(np.argsort(found[0]) - np.arange(57))
    assert moved.mean() > 10, "far from where they lie in the file"


@pytest.mark.parametrize("first", [0, 1, 31, 57, 58, 200])
def test_examples_begin_anywhere_and_nothing_before_is_read(packed, first, monkeypatch):
    indices = np.arange(57)
    whole = numbers(packed.examples(indices, (), seed=1), 600)
    calls, original = [], packed.truth_of
    monkeypatch.setattr(packed, "truth_of", lambda chosen, count: calls.append(list(chosen)) or original(chosen, count))
    assert numbers(packed.examples(indices, (), seed=1, first=first, truth_vertices=5), 40) == whole[first:first + 40]
    read = [call for call in calls if call]
    expected = [whole[begin:begin + 3] for begin in range(first, 300, 3)]
    assert all(call in read for call in expected[:14]) and all(call in expected for call in read)


def test_in_order_and_once(packed):
    examples = packed.examples([5, 3, 3, 60], (np.arange(COUNT) * 2,))
    found = [(rgba.numpy()[:, 0, 0, 0], rows.numpy().tolist()) for rgba, rows in batches(examples, 3)]
    assert [rows for _, rows in found] == [[10, 6, 6], [120]] and examples.count == 4
    np.testing.assert_allclose(np.concatenate([values for values, _ in found]), np.array([5, 3, 3, 60]) / 127.5 - 1)
    assert numbers(packed.examples([5, 3, 60], (), first=2), 9) == [60]


def test_each_example_has_its_rows_and_its_truth(packed, tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(COUNT * 2, dtype=np.float32).reshape(COUNT, 2))
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for rgba, row, truth in batches(packed.examples(np.arange(COUNT), (rows,), 3, 10, 5), 8).take(20):
        for picture, own, albedo in zip(rgba.numpy(), row.numpy(), truth.numpy()):
            number = round((picture[0, 0, 0] + 1) * 127.5)
            np.testing.assert_array_equal(own, [2 * number, 2 * number + 1])
            assert (albedo == number // 10).all() if number % 10 == 0 else np.isnan(albedo).all()
    assert batches(packed.examples(np.arange(COUNT), (rows,), 3, 0, 5), 2).element_spec == (
        tf.TensorSpec((None, 4, 4, 4), tf.float32), tf.TensorSpec((None, 2), tf.float32),
        tf.TensorSpec((None, 5, 3), tf.float16))


def test_pictures_are_what_tensorflow_makes_of_them_bit_for_bit(tmp_path):
    """Every value in every channel."""
    path = str(tmp_path / "all.bin")
    levels = np.arange(1024, dtype=np.uint32).reshape(1, 16, 16, 4) // 4 % 256
    write_bin(path, ["a", "b"], [levels[0].astype(np.uint8), (255 - levels[0]).astype(np.uint8)])
    packed = PackedPhotos(path, ["a", "b"], {}, np.zeros((2, 73, 2), np.float32))
    (found,), = batches(packed.examples([1, 0], ()), 2)
    np.testing.assert_array_equal(found, to_network_range(packed._reader([1, 0])))
    assert found.numpy().min() == -1 and found.numpy().max() == 1
    interpreted = np.empty(1024, np.float32)
    record_kernels.to_network_range.py_func(packed._reader([1]).reshape(-1), interpreted)
    np.testing.assert_array_equal(interpreted, found[0].numpy().ravel())


@pytest.mark.parametrize("batch_size, parts", [(6, 2), (6, 3), (5, 2), (2, 3)])
def test_parts_of_batches_are_the_batches_and_only_they_are_read(packed, batch_size, parts, monkeypatch):
    examples = packed.examples(np.arange(57), (np.arange(COUNT),), seed=4, first=50)
    shared = [list(batches(examples, batch_size, part, parts).take(9)) for part in range(parts)]
    for step, (rgba, rows) in enumerate(batches(examples, batch_size).take(9)):
        for place, whole in ((0, rgba), (1, rows)):
            np.testing.assert_array_equal(np.concatenate([part[step][place] for part in shared]), whole)
    read, into = [], packed._reader.into
    monkeypatch.setattr(packed._reader, "into", lambda images, rows, indices: read.append(len(indices))
                        or into(images, rows, indices))
    list(batches(packed.examples(np.arange(12), ()), 6, 1, 3))
    assert read == [2, 2]


def test_targets_of_many_photos_are_those_of_each(rng):
    points, landmarks = rng.random((6, 5, 2)).astype(np.float32), rng.random((6, 68, 2)).astype(np.float32)
    landmarks[:3] = np.nan
    landmarks[3, 1:] = points[0] = np.nan
    expected = np.stack([landmark_targets(*pair) for pair in zip(points, landmarks)])
    np.testing.assert_array_equal(targets_of(points, landmarks), expected)


# ---------------------------------------------------------------- memory
def test_memory_comes_back_only_when_no_view_of_it_is_left():
    buffers = Buffers()
    first = buffers.take((3, 4), np.float32)
    assert first.shape == (3, 4) and first.dtype == np.float32 and first.ctypes.data % 64 == 0
    place, view = first.ctypes.data, first[1:, 2:].T
    del first
    other = buffers.take((3, 4), np.float32)
    assert other.ctypes.data != place
    del view
    assert buffers.take((3, 4), np.float32).ctypes.data == place
    assert buffers.take((3, 5), np.float32).ctypes.data != place


def test_batches_that_are_kept_do_not_change(packed):
    kept = [rgba for rgba, in batches(packed.examples(np.arange(COUNT), (), 9), 4).take(40)]
    views = [rgba.numpy() for rgba in kept]
    whole = numbers(packed.examples(np.arange(COUNT), (), 9), 160)
    del kept
    gc.collect()
    list(batches(packed.examples(np.arange(COUNT), (), 2), 4).take(40))
    assert [round((view[i, 0, 0, 0] + 1) * 127.5) for view in views for i in range(4)] == whole


def test_memory_goes_from_one_series_to_the_next(packed):
    """TensorFlow keeps the functions of datasets for good: memory of their own would add up."""
    series = [packed.examples(np.arange(COUNT), ()) for _ in range(2)]
    places = {examples.read(np.arange(4))[0].ctypes.data for examples in series}
    assert len(places) == 1


@pytest.mark.parametrize("first", [0, 1, 6, 7])
def test_two_series_take_turns_from_any_example_on(packed, first):
    def series(indices):
        return lambda begin: packed.examples(indices, (), 5, begin)
    one, other = series(np.arange(10)), series(np.arange(40, 70))
    whole = numbers(alternated(one, other, 0), 80)
    assert whole[::2] == numbers(one(0), 40) and whole[1::2] == numbers(other(0), 40)
    assert numbers(alternated(one, other, first), 60) == whole[first:first + 60]


def test_a_file_that_is_damaged_while_it_is_read_is_named(packed):
    examples = packed.examples(np.arange(COUNT), (), 1)
    with open(packed.path, "r+b") as file:
        file.seek(64 + 20 * 64)
        file.write(b"\xff" * 64)
    message = r"faces\.bin: image 20 is damaged \(its name is 'n20', .*; make both again with create_bin\.py"
    with pytest.raises(BinFileError, match=message), damage_named():
        numbers(examples, COUNT)
