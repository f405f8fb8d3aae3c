"""The packed photos of a config: the truth of made ones takes room for made ones only, and is where it was packed."""

import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from facegcn.config import Config
from facegcn.errors import BinFileError, BrokenFile, UserError
from facegcn.landmarks import known_dense
from facegcn.photos import packed_file
from facegcn.photos.packed_photos import PackedPhotos, albedo_truth, read_packed
from facegcn.reconstruction.jobs import packed_jobs
from facegcn.training import encoding


@pytest.fixture
def folder(tmp_path, rng):
    """The truth of two of four records."""
    for name in ("b", "d"):
        np.savez(tmp_path / f"{name}.npz", albedo=rng.uniform(0, 255, (5, 3)).astype(np.float32))
    return tmp_path


def test_the_truth_is_a_table_of_made_portraits_and_a_row_of_each_record(folder):
    truth, rows = albedo_truth(str(folder), list("abcd"), 5)
    assert rows.dtype == np.int32 and rows.tolist() == [-1, 0, -1, 1]
    assert truth.shape == (2, 5, 3) and truth.dtype == np.float16
    for row, name in enumerate("bd"):
        albedo = np.load(folder / f"{name}.npz")["albedo"]
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
    whole = (folder / "d.npz").read_bytes()
    (folder / "d.npz").write_bytes(whole[:-9])
    with pytest.raises(BrokenFile, match=r"d\.npz"):
        albedo_truth(str(folder), list("abcd"), 5)


# ---------------------------------------------------------------- packed, read, reconstructed
@pytest.fixture
def world(tmp_path, rng):
    """A config whose packed file holds the photo ``p`` and the made portraits ``made`` and ``held``."""
    truth = tmp_path / "pictures" / "truth"
    truth.mkdir(parents=True)
    for name in ("made", "held"):
        np.savez(truth / f"{name}.npz", albedo=np.full((5, 3), 255.0, np.float32), coeff=np.zeros(3, np.float32),
                 landmarks=np.ones((68, 2), np.float32), visible=np.ones(5, bool))
    config = Config(root_dir=str(tmp_path / "data"), img_size=32)
    images = rng.integers(0, 256, (3, 32, 32, 4), np.uint8)
    splits = {"train": [0, 1], "test": [2]}
    dense = np.tile(known_dense(None), (3, 1, 1))
    dense[1:] = rng.random((2, 468, 3))
    packed_file.write_bin(config.path("faces.bin"), ["p", "made", "held"], images, lambda names: packed_file.Records(
        names, splits, landmarks=np.ones((3, 68, 2)), truth_folder=str(truth), dense=dense))
    return config


def test_a_photo_keeps_its_landmarks_and_a_made_portrait_its_truth(world):
    packed = read_packed(world, 5)
    assert packed.truth_row.tolist() == [-1, 0, 1] and packed.truth.shape == (2, 5, 3)
    assert np.isfinite(packed.targets[0, :68]).all()
    assert np.isnan(packed.targets[1:]).all(), "exact landmarks are for measuring"
    photo, held = (job.load() for job in packed_jobs(packed, [0, 2], 5))
    assert photo.truth is None and set(held.truth) == {"landmarks", "albedo", "visible"}


def test_dense_landmarks_of_photos_and_made_portraits_are_kept_alike(world):
    """The networks see no more of a made portrait than of a photo."""
    packed = read_packed(world, 5)
    assert packed.dense.shape == (3, 468, 3) and packed.dense.dtype == np.float32
    unknown, known = (job.load() for job in packed_jobs(packed, [0, 1], 5))
    assert unknown.dense is None and np.isnan(packed.dense[0, :, :2]).all() and not packed.dense[0, :, 2].any()
    np.testing.assert_array_equal(known.dense, packed.dense[1])
    assert np.isfinite(packed.dense[1:]).all()


def test_a_missing_truth_folder_and_a_damaged_truth_are_named(world, tmp_path):
    path = tmp_path / "pictures" / "truth" / "held.npz"
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(BrokenFile, match="held.npz"):
        read_packed(world, 5)
    shutil.rmtree(tmp_path / "pictures")
    with pytest.raises(UserError, match="truth.*is not there.*create_bin.py"):
        read_packed(world, 5)


def test_what_is_wrong_with_a_packed_file_is_said(world):
    with pytest.raises(UserError, match="img_size 64"):
        read_packed(Config(root_dir=world.root_dir, img_size=64), 5)
    os.remove(world.path("faces.records.npz"))
    with pytest.raises(BinFileError, match="faces.records.npz is not there"):
        read_packed(world, 5)
    os.remove(world.path("faces.bin"))
    with pytest.raises(UserError, match="there are no packed photos"):
        read_packed(world, 5)


def test_a_damaged_record_is_named_wherever_it_is_met(world, monkeypatch):
    packed = read_packed(world, 5)
    with open(packed.path, "r+b") as file:
        file.seek(packed_file.HEADER_BYTES + 5)
        file.write(b"damaged")
    with pytest.raises(BinFileError, match="image 0 is damaged"):
        packed.photos([0])
    monkeypatch.setattr(encoding, "_key", lambda *arguments: "key")
    encoder = SimpleNamespace(face_model=SimpleNamespace(morphable=SimpleNamespace(coefficient_count=3)))
    with pytest.raises(BinFileError, match="image 0 is damaged"):
        encoding.encode_packed(encoder, packed)
