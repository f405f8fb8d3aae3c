"""The packed photos of a config: the truth of made ones takes room for made ones only."""

import numpy as np
import pytest

from facegcn.errors import BrokenFile, UserError
from facegcn.photos.packed_photos import PackedPhotos, albedo_truth


@pytest.fixture
def folder(tmp_path, rng):
    """A folder with the truth of two of four records."""
    (tmp_path / "truth").mkdir()
    for name in ("b", "d"):
        np.savez(tmp_path / "truth" / f"{name}.npz", albedo=rng.uniform(0, 255, (5, 3)).astype(np.float32))
    return tmp_path


def test_the_truth_is_a_table_of_made_portraits_and_a_row_of_each_record(folder):
    truth, rows = albedo_truth(str(folder), list("abcd"), 5)
    assert rows.dtype == np.int32 and rows.tolist() == [-1, 0, -1, 1]
    assert truth.shape == (2, 5, 3) and truth.dtype == np.float16
    for row, name in enumerate("bd"):
        albedo = np.load(folder / "truth" / f"{name}.npz")["albedo"]
        np.testing.assert_allclose(truth[row], albedo / 127.5 - 1, atol=1e-3)
    packed = PackedPhotos("x.bin", list("abcd"), {}, np.zeros((4, 73, 2)), truth, rows)
    found = packed.truth_of([3, 0, 1], 5)
    np.testing.assert_array_equal(found[[0, 2]], truth[[1, 0]])
    assert np.isnan(found[1]).all()


def test_photos_alone_have_no_table(tmp_path):
    truth, rows = albedo_truth(str(tmp_path), ["a", "b"], 5)
    assert truth is None and rows.tolist() == [-1, -1]
    packed = PackedPhotos("x.bin", ["a", "b"], {}, np.zeros((2, 73, 2)))
    assert packed.truth_row.tolist() == [-1, -1] and np.isnan(packed.truth_of([1], 5)).all()


def test_the_truth_of_another_model_and_a_cut_one_are_named(folder):
    with pytest.raises(UserError, match=r"b\.npz holds the truth of another model \(5 vertices, not 6\)"):
        albedo_truth(str(folder), list("abcd"), 6)
    whole = (folder / "truth" / "d.npz").read_bytes()
    (folder / "truth" / "d.npz").write_bytes(whole[:-9])
    with pytest.raises(BrokenFile, match=r"d\.npz"):
        albedo_truth(str(folder), list("abcd"), 5)
