"""Basel Face Models: conversion against an independent slow one, fallbacks, names, and BFM 2017."""

import os
import shutil
import struct

import h5py
import numpy as np
import pytest
import scipy.io

from facegcn.assets import __main__ as assets
from facegcn.assets import bfm09, bfm17, bfm_files, bfm_regions, matfile, worlds
from facegcn.config import load_config
from facegcn.errors import BrokenFile, UserError
from facegcn.morphable import MorphableModel
from tests import standins
from tests.faces import half_ellipsoid

SAMPLE = 97  # every so many vertices are compared number for number


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder of stand-ins under the official names."""
    folder = tmp_path_factory.mktemp("bfm")
    standins.write_standins(folder, components=80)
    return folder


@pytest.fixture(scope="module")
def slow(source):
    """``_slow_model`` of the folder."""
    return _slow_model(source)


def _slow_model(source):
    """The model's arrays, one vertex at a time, straight from the files: an oracle that shares no code."""
    def mat(name):
        return scipy.io.loadmat(source / name)

    bfm, info = mat("01_MorphableModel.mat"), mat("facemodel_info.mat")
    front, trim = mat("BFM_front_idx.mat")["idx"], mat("BFM_exp_idx.mat")["trimIndex"]
    with open(source / "Exp_Pca.bin", "rb") as file:
        count, = struct.unpack("<i", file.read(4))
        file.seek(4 + 4 * 3 * standins.COVERED)  # past the mean
        expressions = np.frombuffer(file.read(), "<f4").reshape(count, 3 * standins.COVERED)
    spread = [float(word) for word in (source / "std_exp.txt").read_text().split()]
    model = {name: [] for name in ("mean_shape", "id_basis", "exp_basis", "mean_albedo", "albedo_basis")}
    crop = []
    for row in range(len(front)):
        covered = int(front[row, 0]) - 1
        whole = int(trim[covered, 0]) - 1
        crop.append(whole)
        if row % SAMPLE:
            continue
        three = slice(3 * whole, 3 * whole + 3)
        model["mean_shape"].append(bfm["shapeMU"][three, 0] / 1e5)
        model["mean_albedo"].append(bfm["texMU"][three, 0])
        model["id_basis"].append([[bfm["shapePC"][r, k] * float(bfm["shapeEV"][k, 0]) / 1e5 for k in range(80)]
                                  for r in range(three.start, three.stop)])
        model["albedo_basis"].append([[bfm["texPC"][r, k] * float(bfm["texEV"][k, 0]) for k in range(80)]
                                      for r in range(three.start, three.stop)])
        model["exp_basis"].append([[expressions[k, r] * spread[k] / 1e5 for k in range(64)]
                                   for r in range(3 * covered, 3 * covered + 3)])
    place = {whole: row for row, whole in enumerate(crop)}
    labels = mat("face05_4seg.mat")["face05_4seg"]
    pairs = [tuple(map(int, line.split())) for line in (source / "face05_symlist.txt").read_text().splitlines()]
    return {**{name: np.array(rows) for name, rows in model.items()},
            "triangles": info["tri"].astype(int) - 1, "landmarks": info["keypoints"].astype(int)[0] - 1,
            "skin_index": np.array([row for row, whole in enumerate(crop) if labels[whole, 0] == 3]),
            "symmetry_pairs": np.array([(place[a], place[b]) for a, b in pairs if a in place and b in place]),
            "skinmask": np.flatnonzero(info["skinmask"][0])}


@pytest.fixture(scope="module")
def converted(source):
    """(model, what was said)."""
    said = []
    return bfm09.convert_bfm09(str(source), said.append), said


@pytest.fixture(scope="module")
def finished(source, converted, tmp_path_factory):
    """A folder with BFM_model_front.mat alone."""
    model, info = converted[0], scipy.io.loadmat(source / "facemodel_info.mat")
    folder = tmp_path_factory.mktemp("finished")
    scipy.io.savemat(folder / "BFM_model_front.mat", {
        "meanshape": model.mean_shape.reshape(1, -1), "meantex": model.mean_albedo.reshape(1, -1),
        "idBase": model.id_basis.reshape(-1, 80), "exBase": model.exp_basis.reshape(-1, 64).astype(np.float64),
        "texBase": model.albedo_basis.reshape(-1, 80),
        **{name: info[name] for name in ("tri", "keypoints", "skinmask")}})
    return folder


@pytest.fixture
def linked(source, tmp_path):
    """A copy of the folder by links, to take files out of or to rename."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in os.listdir(source):
        os.symlink(source / name, folder / name)
    return folder


def _assert_same(model, slow, but=()):
    for name in ("mean_shape", "id_basis", "exp_basis", "mean_albedo", "albedo_basis"):
        ours = getattr(model, name)[::SAMPLE]
        np.testing.assert_allclose(ours, slow[name], rtol=2e-6, atol=1e-9, err_msg=name)
    for name in ("triangles", "landmarks", "skin_index", "symmetry_pairs"):
        if name not in but:
            np.testing.assert_array_equal(getattr(model, name), slow[name], err_msg=name)


def test_conversion_agrees_with_a_slow_one(converted, slow):
    model, said = converted
    assert model.vertex_count == 35709 and model.part_sizes == (80, 64, 80, 3, 27, 3)
    assert model.coefficient_count == 257
    _assert_same(model, slow)
    assert any("vertex numbers of the whole model, counted from 0" in line for line in said)


def test_expressions_mean_is_not_applied_and_the_mean_face_is_centred_once(converted):
    model, _ = converted
    assert np.abs(model.mean_shape.mean(axis=0)).max() > 0.1  # stored where BFM09 has it
    neutral = model.vertices(np.zeros((1, 80), np.float32), np.zeros((1, 64), np.float32))[0].numpy()
    np.testing.assert_allclose(neutral.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(neutral, model.mean_shape - model.mean_shape.mean(axis=0), atol=1e-6)


def test_standins_are_a_face_seen_from_the_front(converted):
    model, _ = converted
    corners = model.mean_shape[model.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[:, 2] > 0).mean() > 0.95
    eyes, nose, mouth = model.five_points[:2], model.five_points[2], model.five_points[3:]
    assert eyes[0, 0] < nose[0] < eyes[1, 0] and mouth[:, 1].max() < nose[1] < eyes[:, 1].min()
    assert nose[2] > max(eyes[:, 2].max(), mouth[:, 2].max())


def test_released_codes_names_and_folders_are_accepted(linked, converted, slow):
    (linked / "data").mkdir()
    for old, new in (("face05_4seg.mat", "bfm2009_4seg.mat"), ("select_vertex_id.mat", "bfm2009_face_idx.mat"),
                     ("face05_symlist.txt", "bfm2009_symlist.txt")):
        os.rename(linked / old, linked / "data" / new)
    (linked / "BFM").mkdir()
    os.rename(linked / "facemodel_info.mat", linked / "BFM" / "facemodel_info.mat")
    os.remove(linked / "BFM_exp_idx.mat")  # select_vertex_id.mat, renamed, tells the same
    _assert_same(bfm09.convert_bfm09(str(linked), lambda line: None), slow)


def test_a_finished_mat_gives_the_same_model(tmp_path, finished, source, converted, slow):
    model, _ = converted
    os.symlink(finished / "BFM_model_front.mat", tmp_path / "bfm2009_face.mat")
    said = []
    alone = bfm09.convert_bfm09(str(tmp_path), said.append)
    _assert_same(alone, slow, but=("skin_index", "symmetry_pairs"))
    np.testing.assert_array_equal(alone.skin_index, slow["skinmask"])
    assert len(alone.symmetry_pairs) > 0.4 * 35709
    assert sum(line.startswith("note:") for line in said) == 2
    for name in ("face05_4seg.mat", "select_vertex_id.mat", "face05_symlist.txt"):
        shutil.copy(source / name, tmp_path)
    with_companions = bfm09.convert_bfm09(str(tmp_path / "bfm2009_face.mat"), said.append)
    _assert_same(with_companions, slow)
    assert with_companions.digest == model.digest


def test_matlab_7_3_files_give_the_same_model(linked, slow):
    """HDF5 has the axes in reverse; every file of the set may have been saved again by a newer MATLAB."""
    for name in (name for name in os.listdir(linked) if name.endswith(".mat")):
        arrays = {key: array for key, array in scipy.io.loadmat(linked / name).items() if not key.startswith("__")}
        os.remove(linked / name)
        standins.save_mat73(linked / name, arrays)
    for name, specs in (("01_MorphableModel.mat", bfm_files.MORPHABLE_ARRAYS), ("facemodel_info.mat",
                                                                                bfm_files.INFO_ARRAYS)):
        matfile.check_arrays(str(linked / name), specs)
    _assert_same(bfm09.convert_bfm09(str(linked), lambda line: None), slow)


def test_matlab_7_3_files_that_are_not_what_they_say(tmp_path):
    spec, path = {"a": matfile.ArraySpec((matfile.AtLeast(3), 2))}, str(tmp_path / "a.mat")

    def refused(words):
        with pytest.raises(BrokenFile, match=words):
            matfile.read_arrays(path, spec)

    standins.save_mat73(path, {"a": np.arange(8.0).reshape(4, 2)})
    np.testing.assert_array_equal(matfile.read_arrays(path, spec)["a"], np.arange(8.0).reshape(4, 2))
    whole = open(path, "rb").read()
    for size in (600, len(whole) // 2, len(whole) - 10):
        with open(path, "wb") as file:
            file.write(whole[:size])
        refused("a.mat: (is no readable|cannot be read)")
    standins.save_mat73(path, {"a": np.full((4, 2), np.nan)})
    refused("not finite")
    with h5py.File(path, "w") as file:  # by another program: no header, no attribute
        file["a"] = np.zeros((2, 3), np.float32)
    assert matfile.read_arrays(path, spec)["a"].shape == (3, 2)
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (2, 10 ** 12), "f4", chunks=(1, 1024))
    refused("would take 8,000,000,000,000 bytes")
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (2, 3), "f4", external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])
    refused("lies in another file")
    with h5py.File(path, "w") as file:  # it would end the process in the HDF5 library
        file.create_dataset("a", (2, 3), "f4", chunks=(2, 3), fletcher32=True).id.write_direct_chunk((0, 0), b"abc")
    refused("a part of no length")
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.arange(6.0).reshape(2, 3), chunks=(1, 2), fletcher32=True, compression="gzip")
    np.testing.assert_array_equal(matfile.read_arrays(path, spec)["a"], np.arange(6.0).reshape(2, 3).T)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = np.zeros((2, 3))
    with h5py.File(path, "w") as file:
        file["a"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "a")
    refused("lacks the array 'a'")


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("whole", [True, False])
def test_symmetry_lists_are_read_in_either_numbering(source, converted, slow, whole, shift):
    model, pairs = converted[0], slow["symmetry_pairs"]
    crop = scipy.io.loadmat(source / "select_vertex_id.mat")["select_id"][:, 0].astype(int) - 1
    rows = (crop[pairs] if whole else pairs) + shift
    found, reading = bfm_regions.crop_pairs(rows, crop, model.mean_shape)
    np.testing.assert_array_equal(found, pairs)
    assert f"counted from {shift}" in reading and ("whole" in reading) == whole


def test_a_symmetry_list_of_another_mesh_is_refused(linked, rng):
    os.remove(linked / "face05_symlist.txt")
    np.savetxt(linked / "face05_symlist.txt", rng.integers(0, standins.FULL, (900, 2)), fmt="%d")
    with pytest.raises(UserError, match="face05_symlist.txt: .*mirror"):
        bfm09.convert_bfm09(str(linked), lambda line: None)


def test_pairs_found_in_the_mean_face_mirror_each_other():
    face = half_ellipsoid()
    moved = face.mean_shape + np.float32([0.3, 0, 0])
    found = bfm_regions.found_pairs(moved, face.landmarks)
    assert {frozenset(p) for p in found.tolist()} == {frozenset(p) for p in face.symmetry_pairs.tolist()}
    crooked = moved + np.random.default_rng(0).normal(0, 0.2, moved.shape)
    with pytest.raises(UserError, match="face05_symlist.txt"):
        bfm_regions.found_pairs(crooked, face.landmarks)


def test_contradicting_index_files_are_refused(linked):
    selected = scipy.io.loadmat(linked / "select_vertex_id.mat")["select_id"]
    os.remove(linked / "select_vertex_id.mat")
    scipy.io.savemat(linked / "select_vertex_id.mat", {"select_id": selected[::-1]})
    with pytest.raises(UserError, match="select_vertex_id.mat: chooses other vertices"):
        bfm09.convert_bfm09(str(linked), lambda line: None)


def test_deviations_of_another_basis_are_refused(linked):
    os.remove(linked / "std_exp.txt")
    (linked / "std_exp.txt").write_text(" ".join(["1.0"] * 70))
    with pytest.raises(UserError, match="70 standard deviations, .* has 64 components"):
        bfm09.convert_bfm09(str(linked), lambda line: None)


def test_command_writes_the_model(source, converted, tmp_path, capsys):
    out = tmp_path / "out" / "model.npz"
    assert assets.main(["bfm09", "--source", str(source), "--out", str(out)]) == 0
    assert "35709 vertices" in capsys.readouterr().out
    assert MorphableModel.load(str(out)).digest == converted[0].digest


def test_the_world_makes_its_model_where_the_files_are(linked, monkeypatch, caplog):
    caplog.set_level("INFO", "facegcn")
    small = half_ellipsoid()
    monkeypatch.setattr(bfm09, "convert_bfm09", lambda folder: small if folder == str(linked) else None)
    config = load_config(overrides={"world": "bfm09", "root_dir": str(linked)})
    assert worlds.load_morphable(config).digest == small.digest
    assert (linked / "model.npz").exists() and "making" in caplog.text
    monkeypatch.setattr(bfm09, "convert_bfm09", None)  # not asked again
    assert worlds.load_morphable(config).digest == small.digest
    os.remove(linked / "model.npz")
    os.remove(linked / "Exp_Pca.bin")
    with pytest.raises(UserError, match="python -m facegcn.assets bfm09 --source DIR"):
        worlds.load_morphable(config)


def test_command_names_all_absent_files_at_once(tmp_path, capsys):
    assert assets.main(["bfm09", "--source", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert all(part.names[0] in message for part in (*bfm_files.PARTS, bfm_files.FINISHED))
    assert assets.main(["bfm09", "--source", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_the_published_index_files_convert_too(shared, tmp_path):
    layout = standins.write_standins(tmp_path, 80, shared / "bfm_layout")
    model = bfm09.convert_bfm09(str(tmp_path), lambda line: None)
    _assert_same(model, _slow_model(tmp_path))
    np.testing.assert_allclose(model.mean_shape, layout.points + standins.OFFSET, atol=1e-5)
    np.testing.assert_array_equal(model.triangles, layout.triangles)
    assert len(model.symmetry_pairs) > 0.4 * 35709


# ---------------------------------------------------------------- a finished .mat and its companions
def _with(finished, source, tmp_path, *companions):
    for path in (finished / "BFM_model_front.mat", *(source / name for name in companions)):
        os.symlink(path, tmp_path / path.name)
    return str(tmp_path)


def test_a_list_of_the_whole_model_without_the_crops_numbers_is_left_out(finished, source, tmp_path, slow):
    said = []
    model = bfm09.convert_bfm09(_with(finished, source, tmp_path, "face05_symlist.txt"), said.append)
    notes = [line for line in said if "left/right pairs" in line]
    assert len(notes) == 1 and notes[0].startswith("note: ")
    assert "face05_symlist.txt" in notes[0] and "needs select_vertex_id.mat" in notes[0]
    assert {frozenset(pair) for pair in model.symmetry_pairs.tolist()} == {
        frozenset(pair) for pair in bfm_regions.found_pairs(model.mean_shape, model.landmarks).tolist()}


def test_a_list_of_the_crop_needs_no_numbers(finished, source, tmp_path, slow):
    np.savetxt(tmp_path / "face05_symlist.txt", slow["symmetry_pairs"] + 1, fmt="%d")
    said = []
    model = bfm09.convert_bfm09(_with(finished, source, tmp_path), said.append)
    np.testing.assert_array_equal(model.symmetry_pairs, slow["symmetry_pairs"])
    assert any("of the crop, counted from 1" in line for line in said)


def test_a_list_without_any_reading_is_refused_without_a_distance():
    face = half_ellipsoid()
    with pytest.raises(UserError, match="none of its pairs lies within the face") as caught:
        bfm_regions.crop_pairs(np.array([[900, 901]]), None, face.mean_shape)
    assert "inf" not in str(caught.value) and " cm" not in str(caught.value)


def test_files_that_are_read_are_those_that_conversion_opens(finished, source, tmp_path, monkeypatch):
    """``read_files`` against what is really opened, for sets of files."""
    opened = set()
    for module in (bfm09, bfm_files):
        for name in ("read_arrays", "read_deviations", "read_symmetry_list", "read_expressions"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, _noting(getattr(module, name), opened))
    everything = [name for name in os.listdir(source) if name != "similarity_Lm3D_all.mat"]
    for number, names in enumerate((everything, ["face05_4seg.mat", "face05_symlist.txt", "facemodel_info.mat"],
                                    ["face05_4seg.mat", "select_vertex_id.mat", "std_exp.txt"],
                                    ["BFM_exp_idx.mat", "face05_4seg.mat"],
                                    ["BFM_exp_idx.mat", "BFM_front_idx.mat", "face05_4seg.mat"])):
        (tmp_path / str(number)).mkdir()
        folder = _with(finished, source, tmp_path / str(number), *names)
        opened.clear()
        bfm09.convert_bfm09(folder, lambda line: None)
        assert opened == {bfm_files.locate(folder, file) for file in bfm_files.read_files(folder)}, names


def _noting(function, opened):
    def noting(path, *arguments):
        opened.add(path)
        return function(path, *arguments)
    return noting


# ---------------------------------------------------------------- numbers that are not finite
def test_expressions_that_are_not_finite_are_refused(linked):
    content = bytearray((linked / "Exp_Pca.bin").read_bytes())
    front = scipy.io.loadmat(linked / "BFM_front_idx.mat")["idx"][100, 0]
    place = 4 + 4 * 3 * (standins.COVERED * (1 + 2) + int(front) - 1)  # third component, x
    content[place:place + 4] = struct.pack("<f", np.nan)
    os.remove(linked / "Exp_Pca.bin")
    (linked / "Exp_Pca.bin").write_bytes(content)
    with pytest.raises(UserError, match="Exp_Pca.bin: component 3 has values that are not finite"):
        bfm09.convert_bfm09(str(linked), lambda line: None)


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_model_beyond_single_precision_is_refused(linked, bfm17_files):
    os.remove(linked / "std_exp.txt")
    (linked / "std_exp.txt").write_text(" ".join(["1e300"] * 64))
    with pytest.raises(UserError, match="(?s)make no face model: array 'exp_basis' has values that are not finite"):
        bfm09.convert_bfm09(str(linked), lambda line: None)
    _, path, landmarks = bfm17_files
    with h5py.File(path, "a") as file:
        _replace(file, "color/model/pcaVariance", np.full(8, 1e300))
    with pytest.raises(UserError, match="makes no face model: array 'albedo_basis' has values that are not finite"):
        bfm17.convert_bfm17(str(path), str(landmarks), lambda line: None)


# ---------------------------------------------------------------- BFM 2017
@pytest.fixture
def bfm17_files(tmp_path):
    """(face, path of a stand-in .h5, path of its landmarks)."""
    face, path, rng = half_ellipsoid(41, 41, (9, 7, 8)), tmp_path / "model2017-1_face12_nomouth.h5", \
        np.random.default_rng(5)
    offset = np.zeros((face.vertex_count, 3))
    offset[:, 1] = 0.02
    with h5py.File(path, "w") as file:
        for part, mean, basis, scale in (
                ("shape", face.mean_shape - offset, face.id_basis, 100), ("expression", offset, face.exp_basis, 100),
                ("color", face.mean_albedo, face.albedo_basis, 1 / 255)):
            columns = basis.reshape(-1, basis.shape[2]).astype(np.float64)
            variance = rng.uniform(1, 4, columns.shape[1])
            file[f"{part}/model/mean"] = (mean * scale).reshape(-1).astype(np.float32)
            file[f"{part}/model/pcaBasis"] = (columns * scale / np.sqrt(variance)).astype(np.float32)
            file[f"{part}/model/pcaVariance"] = variance.astype(np.float32)
        file["shape/representer/cells"] = face.triangles[:, ::-1].T.astype(np.int32)
    landmarks = tmp_path / "landmarks.txt"
    landmarks.write_text("# iBUG\n" + "\n".join(map(str, face.landmarks)))
    return face, path, landmarks


def test_bfm17_is_converted(bfm17_files, tmp_path, capsys):
    face, path, landmarks = bfm17_files
    model = bfm17.convert_bfm17(str(path), str(landmarks), lambda line: None)
    for name in ("mean_shape", "id_basis", "exp_basis", "mean_albedo", "albedo_basis"):
        np.testing.assert_allclose(getattr(model, name), getattr(face, name), rtol=1e-4, atol=2e-5, err_msg=name)
    np.testing.assert_array_equal(model.triangles, face.triangles)
    np.testing.assert_array_equal(model.landmarks, face.landmarks)
    assert {frozenset(p) for p in model.symmetry_pairs.tolist()} == {frozenset(p) for p in face.symmetry_pairs.tolist()}
    skin = set(model.skin_index.tolist())
    assert skin and not skin & set(face.landmarks[36:48].tolist())  # no eyes
    assert assets.main(["bfm17", "--source", str(path), "--landmarks", str(landmarks),
                        "--out", str(tmp_path / "m.npz")]) == 0
    assert "1681 vertices" in capsys.readouterr().out


@pytest.mark.parametrize("spoil, message", [
    (lambda file: file.pop("color/model/mean"), "lacks the array 'color/model/mean'"),
    (lambda file: _replace(file, "expression/model/pcaVariance", np.ones(3)), "'expression/model' has a mean"),
    (lambda file: _replace(file, "shape/representer/cells", np.full((3, 5), 9999)), "index out of range"),
    (lambda file: _replace(file, "shape/representer/cells", np.zeros((4, 5))), "expected whole numbers"),
    (lambda file: _replace(file, "color/model/pcaVariance", -np.ones(8)), "negative"),
    (lambda file: _replace(file, "shape/model/mean", np.full(3 * 1681, np.nan)), "finite"),
])
def test_bfm17_broken_files_are_named(bfm17_files, spoil, message):
    _, path, landmarks = bfm17_files
    with h5py.File(path, "a") as file:
        spoil(file)
    with pytest.raises(UserError, match=message):
        bfm17.convert_bfm17(str(path), str(landmarks), lambda line: None)


def _replace(file, name, values):
    del file[name]
    file[name] = values


@pytest.mark.parametrize("text, message", [
    ("1 2 3", "has 3 numbers, expected 68"), ("a " * 68, "whole numbers"),
    (" ".join(["99999"] * 68), "the model has 0..1680"), (None, "cannot be read")])
def test_bfm17_bad_landmarks_are_named(bfm17_files, text, message):
    _, path, landmarks = bfm17_files
    landmarks.unlink() if text is None else landmarks.write_text(text)
    with pytest.raises(UserError, match=message):
        bfm17.convert_bfm17(str(path), str(landmarks), lambda line: None)


def test_bfm17_without_landmarks_or_file_says_what_to_do(bfm17_files, tmp_path):
    _, path, landmarks = bfm17_files
    with pytest.raises(UserError, match="--landmarks FILE is needed"):
        bfm17.convert_bfm17(str(path), None, lambda line: None)
    with pytest.raises(UserError, match="no such file"):
        bfm17.convert_bfm17(str(tmp_path / "none.h5"), str(landmarks), lambda line: None)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="no whole HDF5 file"):
        bfm17.convert_bfm17(str(path), str(landmarks), lambda line: None)
