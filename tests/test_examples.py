"""The order of examples: a function of seed and epoch, from any example on, without a table over all photos."""

import numpy as np
import pytest
import tensorflow as tf

from facegcn.errors import BinFileError
from facegcn.photos.packed_file import damage_named, write_bin
from facegcn.photos.packed_photos import PackedPhotos, alternated, batches

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


def numbers(examples, count):
    return [int(rgba[0, 0, 0]) for rgba, *_ in examples.take(count).as_numpy_iterator()]


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
    expected = [whole[begin:begin + 32] for begin in range(first, 568, 32)]
    assert all(call in read for call in expected[:2]) and all(call in expected for call in read)


def test_in_order_and_once(packed):
    examples = packed.examples([5, 3, 3, 60], (np.arange(COUNT) * 2,))
    assert [(int(rgba[0, 0, 0]), int(row)) for rgba, row in examples] == [(5, 10), (3, 6), (3, 6), (60, 120)]
    assert numbers(packed.examples([5, 3, 60], (), first=2), 9) == [60]


def test_each_example_has_its_rows_and_its_truth(packed, tmp_path):
    np.save(tmp_path / "rows.npy", np.arange(COUNT * 2, dtype=np.float32).reshape(COUNT, 2))
    rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for rgba, row, truth in batches(packed.examples(np.arange(COUNT), (rows,), 3, 10, 5), 8).take(20):
        for picture, own, albedo in zip(rgba.numpy(), row.numpy(), truth.numpy()):
            number = round((picture[0, 0, 0] + 1) * 127.5)
            np.testing.assert_array_equal(own, [2 * number, 2 * number + 1])
            assert (albedo == number // 10).all() if number % 10 == 0 else np.isnan(albedo).all()
    assert packed.examples(np.arange(COUNT), (rows,), 3, 0, 5).element_spec == (
        tf.TensorSpec((4, 4, 4), tf.uint8), tf.TensorSpec((2,), tf.float32), tf.TensorSpec((5, 3), tf.float16))


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
    with pytest.raises(BinFileError, match="faces.bin"), damage_named():
        numbers(examples, COUNT)
