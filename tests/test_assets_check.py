"""The check of a config's files: what is absent or broken is named, one by one and all at once."""

import os
import shutil

import h5py
import numpy as np
import pytest
import scipy.io

import main
from facegcn import asset_check, assets, bfm_files
from facegcn.config import UserError, load_config
from tests import standins
from tests.faces import half_ellipsoid
from tests.standin_graphs import write_standin_graphs


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A folder with a stand-in of every licensed file."""
    folder = tmp_path_factory.mktemp("complete")
    standins.write_standins(folder, components=80)
    write_standin_graphs(str(folder))
    return folder


@pytest.fixture
def folder(complete, tmp_path):
    """The same by links, to spoil."""
    path = tmp_path / "data"
    path.mkdir()
    for name in os.listdir(complete):
        os.symlink(complete / name, path / name)
    return path


def _config(folder, **settings):
    return load_config("configs/bfm09.yaml", {"root_dir": str(folder), **settings})


def _status(folder, **settings):
    return {os.path.basename(a.path): a.status for a in asset_check.list_assets(_config(folder, **settings))}


def _broken(folder, message, **settings):
    """Asserts that the check complains once, in these words, and that training would not start."""
    with pytest.raises(UserError, match=message):
        asset_check.require_assets(_config(folder, **settings))


def _put(path, write):
    """Replaces a link by a file of its own."""
    if os.path.lexists(path):
        os.remove(path)
    write(str(path))


def _mat(**arrays):
    return lambda path: scipy.io.savemat(path, arrays)


# ---------------------------------------------------------------- whole sets
def test_a_complete_set_passes_and_the_model_is_made_on_first_use(folder, capsys):
    assert assets.main(["check", "--config", "configs/bfm09.yaml", "--set", f"root_dir={folder}"]) == 0
    text = capsys.readouterr().out
    assert "to be made" in text and "everything that is needed is there" in text
    for word in ("01_MorphableModel.mat", "bfm2009_symlist.txt", "faces.dmi.unibas.ch", "CoarseData", "licence",
                 "shapePC (160470, 80 or more)", "davidsandberg/facenet", "coeff:0"):
        assert word in text, word
    half_ellipsoid(components=(80, 64, 80)).save(str(folder / "model.npz"))
    asset_check.require_assets(_config(folder))
    assert _status(folder)["model.npz"] == "present"


def test_with_the_model_made_its_parts_are_not_needed(tmp_path):
    half_ellipsoid(components=(80, 64, 80)).save(str(tmp_path / "model.npz"))
    _broken(tmp_path, "(?s)2 files .*FaceReconModel.pb.*FaceNetModel.pb")
    with pytest.raises(UserError) as error:
        asset_check.require_assets(_config(tmp_path))
    assert "Exp_Pca.bin" not in str(error.value)


def test_an_empty_folder_gives_one_message_with_everything(tmp_path, capsys):
    for mode in ("train", "test"):
        assert main.main(["--mode", mode, "--config", "configs/bfm09.yaml", "--root_dir", str(tmp_path)]) == 2
        message = capsys.readouterr().err
        assert message.count("error:") == 1
        for name in ("model.npz", *(part.names[0] for part in bfm_files.PARTS), "FaceReconModel.pb", "FaceNetModel.pb"):
            assert str(tmp_path / name) in message, name
        for source in ("faces.dmi.unibas.ch", "Juyong/3DFace", "microsoft/Deep3DFaceReconstruction", "facenet"):
            assert source in message, source
    assert assets.main(["check", "--config", "configs/bfm09.yaml", "--set", f"root_dir={tmp_path}"]) == 2


def test_demo_needs_nothing_and_ict_its_model(tmp_path, capsys):
    assert assets.main(["check"]) == 0
    assert "nothing is needed" in capsys.readouterr().out
    config = load_config("configs/ict.yaml", {"root_dir": str(tmp_path)})
    with pytest.raises(UserError, match="facegcn.assets ict --source ICT-FaceKit"):
        asset_check.require_assets(config)
    half_ellipsoid().save(str(tmp_path / "model.npz"))
    asset_check.require_assets(config)


def test_released_codes_names_count_as_present(folder):
    os.rename(folder / "select_vertex_id.mat", folder / "bfm2009_face_idx.mat")
    os.rename(folder / "face05_4seg.mat", folder / "bfm2009_4seg.mat")
    os.rename(folder / "face05_symlist.txt", folder / "bfm2009_symlist.txt")
    status = _status(folder)
    assert status["bfm2009_face_idx.mat"] == status["bfm2009_4seg.mat"] == status["bfm2009_symlist.txt"] == "present"


@pytest.mark.parametrize("name", [part.names[0] for part in bfm_files.PARTS if part is not bfm_files.TRIM]
                         + ["FaceReconModel.pb", "FaceNetModel.pb"])
def test_each_absent_file_is_named_alone(folder, name):
    os.remove(folder / name)
    with pytest.raises(UserError) as error:
        asset_check.require_assets(_config(folder))
    absent = [line for line in str(error.value).splitlines() if line.strip().startswith("absent:")]
    wanted = [str(folder / name)] if name.endswith(".pb") else [str(folder / "model.npz"), str(folder / name)]
    assert [line.split()[1] for line in absent] == wanted
    assert "official name " + name in str(error.value)


def test_files_that_can_be_done_without_are_not_missed(folder):
    for name in ("BFM_exp_idx.mat", "face05_4seg.mat", "face05_symlist.txt"):
        os.remove(folder / name)
    asset_check.require_assets(_config(folder))


def test_identity_networks_are_asked_for_when_set(folder):
    _broken(folder, "(?s)light.npz.*facegcn.assets light-cnn.*ir.npz.*facegcn.assets ir50",
            light_cnn_file="light.npz", ir50_file="ir.npz")
    (folder / "ir.npz").write_bytes(b"nothing")
    _broken(folder, "broken: .*ir.npz", ir50_file="ir.npz")


# ---------------------------------------------------------------- broken, one by one
def _hdf5(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file["shapeMU"] = np.zeros(3)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(126) + b"IM")


def _info(complete, **changes):
    info = scipy.io.loadmat(complete / "facemodel_info.mat")
    arrays = {name: info[name].copy() for name in ("tri", "keypoints", "skinmask")}
    for name, change in changes.items():
        change(arrays[name])
    return lambda path: scipy.io.savemat(path, arrays)


@pytest.mark.parametrize("name, write, message", [
    ("01_MorphableModel.mat", _mat(texMU=np.zeros((300, 1))), "lacks the array 'shapeMU'.*it has texMU"),
    ("01_MorphableModel.mat", _mat(shapeMU=np.zeros((300, 1))), r"'shapeMU' has shape \(300, 1\), expected \(160470\)"),
    ("BFM_front_idx.mat", _mat(idx=np.ones((35000, 1))), r"'idx' has shape \(35000, 1\), expected \(35709\)"),
    ("BFM_front_idx.mat", _mat(idx=np.full((35709, 1), "a", object)), "'idx' is of class cell"),
    ("BFM_front_idx.mat", _mat(idx=np.full((35709, 1), 53216.0)), "out of range: 53216..53216, expected 1..53215"),
    ("BFM_front_idx.mat", _mat(idx=np.full((35709, 1), 1.5)), "no whole numbers"),
    ("BFM_exp_idx.mat", _mat(trimIndex=np.zeros((53215, 1), np.uint16)), "out of range: 0..0, expected 1..53490"),
    ("select_vertex_id.mat", _mat(select_id=np.full((35709, 1), 60000, np.uint16)), "index out of range: 60000"),
    ("face05_4seg.mat", _mat(face05_4seg=np.full((53490, 1), 4)), "out of range: 4..4, expected 0..3"),
    ("face05_4seg.mat", _mat(other=np.zeros(3)), "lacks the array 'face05_4seg'.*it has other"),
    ("01_MorphableModel.mat", _hdf5, "v7.3 .*save"),
    ("facemodel_info.mat", lambda path: open(path, "w").close(), "is empty"),
    ("facemodel_info.mat", lambda path: open(path, "w").write("<html>" * 60), "no MATLAB file"),
    ("std_exp.txt", lambda path: open(path, "w").write("1 2 3"), "64 or more standard deviations.*has 3"),
    ("std_exp.txt", lambda path: open(path, "w").write("1 two"), "numbers between spaces"),
    ("face05_symlist.txt", lambda path: open(path, "w").write("1 2\n3\n"), "two vertex numbers a line: line 2 is '3'"),
    ("face05_symlist.txt", lambda path: open(path, "w").write("1 70000\n"), "index out of range: 1..70000"),
    ("face05_symlist.txt", lambda path: open(path, "w").close(), "is empty"),
    ("Exp_Pca.bin", lambda path: open(path, "wb").write(b"\0\0"), r"ends too early \(2 bytes\)"),
    ("Exp_Pca.bin", lambda path: np.array([3, 0], "<i4").tofile(path), "begins with 3 as the number of components"),
    ("Exp_Pca.bin", lambda path: np.array([79] + [0] * 9, "<i4").tofile(path), "cut short; it has 40 bytes, 79 comp"),
    ("FaceReconModel.pb", lambda path: open(path, "w").write("no graph"), "no frozen TensorFlow graph"),
    ("FaceReconModel.pb", lambda path: open(path, "w").close(), "no frozen TensorFlow graph"),
])
def test_each_broken_file_is_named_with_the_reason(folder, name, write, message):
    _put(folder / name, write)
    _broken(folder, f"1 file .*\n  broken: {folder / name}: .*{message}")
    assert _status(folder)[name] == "broken"


def test_wrong_shapes_and_types_of_the_large_arrays(folder):
    good = {"shapeMU": np.zeros((160470, 1), np.float32), "shapeEV": np.ones((80, 1), np.float32)}
    _put(folder / "01_MorphableModel.mat", _mat(**good, shapePC=np.zeros((160470, 2), np.float32)))
    _broken(folder, r"'shapePC' has shape \(160470, 2\), expected \(160470, 80 or more\)")
    _put(folder / "01_MorphableModel.mat", _mat(**good, shapePC=np.zeros((160470, 80), np.uint8)))
    _broken(folder, "'shapePC' is of class uint8, expected .* single/double")


def test_indices_out_of_range_in_facemodel_info(folder, complete):
    _put(folder / "facemodel_info.mat", _info(complete, tri=lambda a: a.__setitem__((5, 1), 35710)))
    _broken(folder, "'tri' has an index out of range: 1..35710, expected 1..35709")
    _put(folder / "facemodel_info.mat", _info(complete, keypoints=lambda a: a.__setitem__((0, 3), 0)))
    _broken(folder, "'keypoints' has an index out of range: 0..")


def test_files_cut_short(folder, complete):
    for name, message in (("01_MorphableModel.mat", "ends too early"), ("Exp_Pca.bin", "cut short")):
        size = os.path.getsize(complete / name)
        os.remove(folder / name)
        shutil.copy(complete / name, folder / name)
        os.truncate(folder / name, size - 1000)
        _broken(folder, f"{name}: .*{message}")
        os.remove(folder / name)
        os.symlink(complete / name, folder / name)


def test_a_graph_without_the_tensors(folder):
    os.remove(folder / "FaceNetModel.pb")
    os.symlink(os.path.realpath(folder / "FaceReconModel.pb"), folder / "FaceNetModel.pb")
    _broken(folder, "FaceNetModel.pb: is a graph without .*AvgPool_1a_8x8")


@pytest.mark.parametrize("change, message", [
    ({"triangles": np.full((4, 3), 999)}, "'triangles' has an index out of range: 999..999, expected 0..356"),
    ({"landmarks": np.zeros(5, int)}, r"'landmarks' has shape \(5,\)"),
    ({"mean_shape": np.zeros((357, 3), int)}, "'mean_shape' is int64, expected float32"),
    ({"skin_index": np.zeros(3)}, "'skin_index' is float64, expected int32"),
    ({"exp_basis": np.zeros((7, 3, 2))}, "'exp_basis' has shape"),
    ({"exp_basis": None}, "lacks the arrays exp_basis"),
    ({"id_basis": np.zeros((357, 3, 50), np.float32)}, "194 identity, expression and .*.pb gives 224"),
])
def test_broken_models_are_named(folder, change, message):
    face = half_ellipsoid(components=(80, 64, 80))
    arrays = {name: getattr(face, name) for name in asset_check._MODEL_SHAPES if name != "uv"}
    arrays = {name: array for name, array in {**arrays, **change}.items() if array is not None}
    np.savez(folder / "model.npz", **arrays)
    _broken(folder, f"broken: {folder}/model.npz: .*{message}")


def test_a_model_cut_short(folder):
    path = folder / "model.npz"
    half_ellipsoid(components=(80, 64, 80)).save(str(path))
    os.truncate(path, os.path.getsize(path) // 2)
    _broken(folder, "model.npz: is no whole .npz")
