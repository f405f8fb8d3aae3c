"""The check of a config's files: what is absent or broken is named, one by one and all at once."""

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys
import time
import types
import zipfile

import numpy as np
import pytest
import scipy.io

import main
from facegcn.assets import __main__ as assets
from facegcn.assets import bfm_files, check, converters, tf1_checkpoint, worlds
from facegcn.config import load_config
from facegcn.errors import UserError
from facegcn.identity.torch_weights import load_converted, save_converted
from facegcn.morphable import MorphableModel
from facegcn.networks.regressor import build_regressor, load_weights, save_weights
from tests import standins
from tests.faces import half_ellipsoid
from tests.standin_graphs import regressor_graph, write_standin_graphs


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
    return {os.path.basename(a.path): a.status for a in check.list_assets(_config(folder, **settings))}


def _assert_broken(folder, message, **settings):
    """Asserts that the check complains once, in these words, and that test mode would not start."""
    with pytest.raises(UserError, match=message):
        check.require_assets(_config(folder, **settings), "test")


def _complaint(folder, **settings):
    with pytest.raises(UserError) as caught:
        check.require_assets(_config(folder, **settings), "train")
    return str(caught.value)


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
                 "shapePC (160470, 80 or more)", "davidsandberg/facenet"):
        assert word in text, word
    for shapes in ("input_imgs:0 (?, 224, 224, 3) BGR 0..255 -> coeff:0 (?, 257), resnet_v1_50/pool5:0 (?, 1, 1, 2048)",
                   "input:0 (?, 160, 160, 3), phase_train:0 -> InceptionResnetV1/Logits/AvgPool_1a_8x8/AvgPool:0 "
                   "(?, 1, 1, 1792)"):
        assert shapes in " ".join(text.split()), shapes
    half_ellipsoid(components=(80, 64, 80)).save(str(folder / "model.npz"))
    check.require_assets(_config(folder), "train")
    assert _status(folder)["model.npz"] == "present"


def test_with_the_model_made_its_parts_are_not_needed(tmp_path):
    half_ellipsoid(components=(80, 64, 80)).save(str(tmp_path / "model.npz"))
    _assert_broken(tmp_path, "(?s)2 files .*FaceReconModel.pb.*FaceNetModel.pb")
    assert "Exp_Pca.bin" not in _complaint(tmp_path)


def test_an_empty_folder_gives_one_message_with_everything(tmp_path, capsys):
    for mode in ("train", "test"):
        assert main.main(["--mode", mode, "--config", "configs/bfm09.yaml", "--root_dir", str(tmp_path)]) == 2
        message = capsys.readouterr().err
        assert message.count("error:") == 1
        for name in ("model.npz", *(part.names[0] for part in bfm_files.PARTS), "FaceReconModel.pb", "FaceNetModel.pb"):
            assert str(tmp_path / name) in message, name
        for source in ("faces.dmi.unibas.ch", "Juyong/3DFace", "microsoft/Deep3DFaceReconstruction", "facenet"):
            assert source in message, source
        for words in ("BFM_model_front.mat (or bfm2009_face.mat) does instead of the six parts 01_MorphableModel.mat, "
                      "Exp_Pca.bin, std_exp.txt, BFM_front_idx.mat, BFM_exp_idx.mat, facemodel_info.mat",
                      "face05_4seg.mat and face05_symlist.txt are used when they are there", "two small loss terms"):
            assert words in message, words
    assert assets.main(["check", "--config", "configs/bfm09.yaml", "--set", f"root_dir={tmp_path}"]) == 2


def test_demo_needs_nothing_and_ict_its_model(tmp_path, capsys):
    assert assets.main(["check"]) == 0
    assert "nothing is needed" in capsys.readouterr().out
    config = load_config("configs/ict.yaml", {"root_dir": str(tmp_path)})
    with pytest.raises(UserError, match="facegcn.assets ict --source ICT-FaceKit"):
        check.require_assets(config, "train")
    half_ellipsoid().save(str(tmp_path / "model.npz"))
    check.require_assets(config, "train")


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
    message = _complaint(folder)
    absent = [line for line in message.splitlines() if line.strip().startswith("absent:")]
    wanted = [str(folder / name)] if name.endswith(".pb") else [str(folder / "model.npz"), str(folder / name)]
    assert [line.split()[1] for line in absent] == wanted
    assert "official name " + name in message and ("six parts" in message) != name.endswith(".pb")


def test_files_that_can_be_done_without_are_not_missed(folder):
    for name in ("BFM_exp_idx.mat", "face05_4seg.mat", "face05_symlist.txt"):
        os.remove(folder / name)
    check.require_assets(_config(folder), "train")


def _finished(complete, path):
    """A sound BFM_model_front.mat; zeros will do, as only headers and indices are looked into."""
    info = scipy.io.loadmat(complete / "facemodel_info.mat")
    vertices = standins.CROP
    scipy.io.savemat(path, {
        "meanshape": np.zeros((1, 3 * vertices)), "meantex": np.zeros((1, 3 * vertices)),
        "idBase": np.zeros((3 * vertices, 80), np.float32), "exBase": np.zeros((3 * vertices, 64), np.float32),
        "texBase": np.zeros((3 * vertices, 80), np.float32), "tri": info["tri"], "keypoints": info["keypoints"]})


def test_a_broken_file_that_is_not_used_does_not_block(folder, complete):
    (folder / "BFM_model_front.mat").write_bytes(b"nothing")
    check.require_assets(_config(folder), "train")
    row = next(a for a in check.list_assets(_config(folder)) if a.path.endswith("BFM_model_front.mat"))
    assert row.status == "broken" and not row.missed and "not used" in row.note
    os.remove(folder / "std_exp.txt")  # and now it is
    _assert_broken(folder, "broken: .*BFM_model_front.mat")

    _finished(complete, folder / "BFM_model_front.mat")
    for name in ("01_MorphableModel.mat", "Exp_Pca.bin", "facemodel_info.mat"):
        _put(folder / name, lambda path: open(path, "w").close())
    check.require_assets(_config(folder), "train")
    _put(folder / "BFM_exp_idx.mat", lambda path: open(path, "w").close())  # read with BFM_front_idx.mat
    _assert_broken(folder, "1 file .*\n  broken: .*BFM_exp_idx.mat: is empty")
    os.remove(folder / "BFM_front_idx.mat")
    check.require_assets(_config(folder), "train")


def test_a_broken_part_beside_a_finished_mat_says_what_does_instead(folder, complete):
    _finished(complete, folder / "BFM_model_front.mat")
    _put(folder / "std_exp.txt", lambda path: open(path, "w").close())
    _assert_broken(folder, "1 file .*\n  broken: .*std_exp.txt.*\n.*or remove it: .*BFM_model_front.mat does instead")


def test_files_newer_than_the_model_are_told_of(folder, complete, caplog):
    caplog.set_level("INFO", "facegcn")
    time.sleep(0.05)
    half_ellipsoid(components=(80, 64, 80)).save(str(folder / "model.npz"))
    check.require_assets(_config(folder), "train")
    assert "note:" not in caplog.text
    time.sleep(0.05)
    _put(folder / "face05_4seg.mat", lambda path: shutil.copy(complete / "face05_4seg.mat", path))
    os.utime(folder / "face05_4seg.mat", (1.2e9, 1.2e9))  # out of an archive: written in 2008
    for mode in ("train", "test"):
        check.require_assets(_config(folder), mode)
        text = caplog.text
        caplog.clear()
        assert text.count("note:") == 1 and "face05_4seg.mat is newer than" in text
        assert "not in it: delete model.npz to make it anew" in text
    config = _config(folder)
    assert "delete model.npz to make it anew" in " ".join(
        check.table(config, check.list_assets(config)).split())
    os.remove(folder / "Exp_Pca.bin")  # nothing could be made anew
    check.require_assets(_config(folder), "train")
    assert "note:" not in caplog.text


def test_a_newer_file_that_conversion_would_not_use_is_no_news(folder, caplog):
    caplog.set_level("INFO", "facegcn")
    half_ellipsoid(components=(80, 64, 80)).save(str(folder / "model.npz"))
    time.sleep(0.05)
    (folder / "BFM_model_front.mat").write_bytes(b"nothing")
    check.require_assets(_config(folder), "train")
    assert "note:" not in caplog.text


def test_models_of_an_older_converter_are_told_of(tmp_path, monkeypatch, caplog):
    """A note, not an error: the model stays usable."""
    caplog.set_level("INFO", "facegcn")
    config = load_config("configs/ict.yaml", {"root_dir": str(tmp_path), "facenet_file": ""})
    face, path = half_ellipsoid(), str(tmp_path / "model.npz")
    for made_by, note in (("", ""), ("ict " + "0" * 12, "made by an older version of the converter: python -m "
                                                         "facegcn.assets ict makes it anew"),
                          ("blender 4", ""), (converters.converter_version("ict"), "")):
        face.made_by = made_by
        face.save(path)
        row = check.list_assets(config)[0]
        assert (row.status, row.note) == ("present", note)
        caplog.clear()
        check.require_assets(config, "train")
        assert ("is made by an older version" in caplog.text) == bool(note)
        assert MorphableModel.load(path).digest == face.digest
    monkeypatch.setattr(converters, "code_version", lambda *modules: "another")
    assert check.list_assets(config)[0].note.startswith("made by an older version")


def test_identity_networks_stop_test_mode_only(folder):
    config = _config(folder, light_cnn_file="light.npz", ir50_file="ir.npz")
    check.require_assets(config, "train")
    with pytest.raises(UserError, match="2 files"):
        check.require_assets(config, "test")


def test_identity_networks_are_asked_for_when_set(folder):
    _assert_broken(folder, "(?s)light.npz.*facegcn.assets light-cnn.*ir.npz.*facegcn.assets ir50",
            light_cnn_file="light.npz", ir50_file="ir.npz")
    (folder / "ir.npz").write_bytes(b"nothing")
    _assert_broken(folder, "broken: .*ir.npz", ir50_file="ir.npz")


# ---------------------------------------------------------------- broken, one by one
def _mat73(**arrays):
    return lambda path: standins.save_mat73(path, arrays)


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
    ("01_MorphableModel.mat", _mat73(texMU=np.zeros((300, 1))), "lacks the array 'shapeMU'.*it has texMU"),
    ("01_MorphableModel.mat", _mat73(shapeMU=np.zeros((1, 300))), r"'shapeMU' has shape \(1, 300\), expected"),
    ("BFM_front_idx.mat", _mat73(idx=np.full((35709, 1), 53216.0)), "out of range: 53216..53216, expected 1..53215"),
    ("BFM_front_idx.mat", _mat73(idx=np.full((35709, 1), "a", "S1")), "'idx' is of class char, expected"),
    ("facemodel_info.mat", _mat73(tri=np.ones((3, 70789), np.uint16)), r"'tri' has shape \(3, 70789\), expected"),
    ("facemodel_info.mat", lambda path: open(path, "wb").write(b"MATLAB 7.3 MAT-file".ljust(600)),
     "is no readable MATLAB file"),
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
    ("FaceReconModel.pb", lambda path: open(path, "w").write("no graph"), "is a text file that begins with"),
    ("FaceReconModel.pb", lambda path: open(path, "w").close(), "is empty"),
    ("FaceReconModel.pb", lambda path: open(path, "wb").write(b"\x0a\xff\x01"), "is not a frozen TensorFlow graph"),
])
def test_each_broken_file_is_named_with_the_reason(folder, name, write, message):
    _put(folder / name, write)
    _assert_broken(folder, f"1 file .*\n  broken: {folder / name}: .*{message}")
    assert _status(folder)[name] == "broken"


def test_wrong_shapes_and_types_of_the_large_arrays(folder):
    good = {"shapeMU": np.zeros((160470, 1), np.float32), "shapeEV": np.ones((80, 1), np.float32)}
    _put(folder / "01_MorphableModel.mat", _mat(**good, shapePC=np.zeros((160470, 2), np.float32)))
    _assert_broken(folder, r"'shapePC' has shape \(160470, 2\), expected \(160470, 80 or more\)")
    _put(folder / "01_MorphableModel.mat", _mat(**good, shapePC=np.zeros((160470, 80), np.uint8)))
    _assert_broken(folder, "'shapePC' is of class uint8, expected .* single/double")


def test_indices_out_of_range_in_facemodel_info(folder, complete):
    _put(folder / "facemodel_info.mat", _info(complete, tri=lambda a: a.__setitem__((5, 1), 35710)))
    _assert_broken(folder, "'tri' has an index out of range: 1..35710, expected 1..35709")
    _put(folder / "facemodel_info.mat", _info(complete, keypoints=lambda a: a.__setitem__((0, 3), 0)))
    _assert_broken(folder, "'keypoints' has an index out of range: 0..")


def test_files_cut_short(folder, complete):
    for name, message in (("01_MorphableModel.mat", "ends too early"), ("Exp_Pca.bin", "cut short")):
        size = os.path.getsize(complete / name)
        os.remove(folder / name)
        shutil.copy(complete / name, folder / name)
        os.truncate(folder / name, size - 1000)
        _assert_broken(folder, f"{name}: .*{message}")
        os.remove(folder / name)
        os.symlink(complete / name, folder / name)


def test_a_graph_without_the_tensors(folder):
    os.remove(folder / "FaceNetModel.pb")
    os.symlink(os.path.realpath(folder / "FaceReconModel.pb"), folder / "FaceNetModel.pb")
    _assert_broken(folder, "(?s)FaceNetModel.pb: is not FaceNet.*missing:.*AvgPool_1a_8x8")


def test_a_graph_for_pictures_of_another_size(folder):
    os.remove(folder / "FaceReconModel.pb")
    (folder / "FaceReconModel.pb").write_bytes(regressor_graph(image_size=128).SerializeToString())
    _assert_broken(folder, r"FaceReconModel.pb: the input input_imgs:0 has shape \(\?, 128, 128, 3\), expected")


@pytest.mark.parametrize("change, message", [
    ({"triangles": np.full((4, 3), 999)}, "'triangles' has an index outside 0..356: 999..999"),
    ({"landmarks": np.zeros(5, int)}, r"'landmarks' has shape \(5,\)"),
    ({"mean_shape": np.zeros((357, 3), bool)}, "'mean_shape' is bool, expected float32"),
    ({"skin_index": np.full(3, 0.5)}, "'skin_index' must hold vertex numbers, but has some that are not whole"),
    ({"triangles": half_ellipsoid().triangles[:, ::-1]}, "the triangles are clockwise"),
    ({"exp_basis": np.zeros((7, 3, 2))}, "'exp_basis' has shape"),
    ({"exp_basis": None}, "lacks the arrays exp_basis"),
    ({"id_basis": np.zeros((357, 3, 50), np.float32)}, "194 identity, expression and .*.pb gives 224"),
])
def test_broken_models_are_named(folder, change, message):
    face = half_ellipsoid(components=(80, 64, 80))
    arrays = {name: array for name, array in {**face.arrays(), **change}.items() if array is not None}
    np.savez(folder / "model.npz", **arrays)
    _assert_broken(folder, f"broken: {folder}/model.npz: .*{message}")


def test_a_model_cut_short(folder):
    path = folder / "model.npz"
    half_ellipsoid(components=(80, 64, 80)).save(str(path))
    os.truncate(path, os.path.getsize(path) // 2)
    _assert_broken(folder, "model.npz: is no whole .npz.*\n.*delete it; it is made anew from the official files")
    os.remove(folder / "Exp_Pca.bin")
    _assert_broken(folder, "model.npz: is no whole .npz.*\n.*delete it, and put the files")


@pytest.mark.parametrize("world", ["bfm09", "ict", "demo"])
def test_a_model_of_ones_own_has_its_own_cure(world, tmp_path):
    config = load_config(overrides={"world": world, "root_dir": str(tmp_path), "model_file": "own.npz"})
    row, = check.list_assets(config)
    assert row.status == "absent" and row.source == "yours (docs/model_format.md)"
    with pytest.raises(UserError) as at_once:
        check.require_assets(config, "train")
    with pytest.raises(UserError) as late:
        worlds.load_morphable(config)
    for message in (str(at_once.value), str(late.value)):
        assert "correct model_file, or convert a model (docs/model_format.md)" in message
        assert ("procedural face" in message) == (world == "demo")


# ---------------------------------------------------------------- damaged compressed members
def _damage(path, member, part=0.0):
    """Overwrites a part of a member's compressed bytes, from the start: zlib gives up; headers and directory stay."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    with open(path, "r+b") as file:
        file.seek(info.header_offset + 26)
        name, extra = np.frombuffer(file.read(4), "<u2")
        start = info.header_offset + 30 + int(name) + int(extra)
        first = int(part * info.compress_size)
        file.seek(start + first)
        file.write(b"\xff" * min(64, info.compress_size - first))


def _rewritten_compressed(path):
    with np.load(path) as data:
        arrays = dict(data)
    np.savez_compressed(path, **arrays)


@pytest.mark.parametrize("part", [0.0, 0.5])
def test_a_damaged_model(tmp_path, part):
    path = str(tmp_path / "model.npz")
    half_ellipsoid(components=(80, 64, 80)).save(path)
    _damage(path, "triangles.npy", part)
    _assert_broken(tmp_path, "broken: .*model.npz: is no whole .npz")
    with pytest.raises(UserError, match="model.npz: is no whole .npz"):
        worlds.load_morphable(_config(tmp_path))


def test_damaged_weights_of_an_identity_network(tmp_path):
    path = str(tmp_path / "ir.npz")
    save_converted(path, "ir50", {"weight": np.random.default_rng(0).normal(size=(40, 40)).astype(np.float32)})
    assert load_converted(path)[0] == "ir50"
    _rewritten_compressed(path)
    _damage(path, "weight.npy")
    with pytest.raises(UserError, match="not a converted weight file"):
        load_converted(path)


def test_damaged_weights_of_the_regressor(tmp_path):
    path, network = str(tmp_path / "regressor.npz"), build_regressor("small", half_ellipsoid(), 32, 32)
    save_weights(network, path)
    load_weights(network, path)
    _damage(path, max(zipfile.ZipFile(path).infolist(), key=lambda info: info.compress_size).filename)
    with pytest.raises(UserError, match="cannot read the regressor's weights .*regressor.npz"):
        load_weights(network, path)
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)
    with pytest.raises(UserError, match="cannot read the regressor's weights"):
        load_weights(network, path)


def test_models_damaged_anywhere_end_with_one_message(tmp_path):
    whole, path = tmp_path / "whole.npz", tmp_path / "own.npz"
    half_ellipsoid().save(str(whole))
    names = zipfile.ZipFile(whole).namelist()
    config = load_config(overrides={"root_dir": str(tmp_path), "model_file": "own.npz"})
    for name in names:
        shutil.copy(whole, path)
        _damage(path, name)
        with pytest.raises(UserError, match="own.npz: is no whole .npz"):
            worlds.load_morphable(config)
    shutil.copy(whole, path)
    assert worlds.load_morphable(config).digest == MorphableModel.load(str(whole)).digest


# ---------------------------------------------------------------- the commands
@pytest.mark.parametrize("arguments", [["--help"], ["bfm09", "--help"], ["nonsense"]])
def test_help_and_mistyped_commands_need_no_tensorflow(arguments):
    """TensorFlow takes four seconds to import; it did so before the arguments were read."""
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "facegcn.assets", *arguments], capture_output=True,
                          text=True, check=False)
    assert done.returncode == (2 if arguments == ["nonsense"] else 0)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert "facegcn.config" in imported
    assert not {name for name in imported if name.split(".")[0] in ("tensorflow", "keras", "scipy", "h5py", "cv2")}


@pytest.mark.parametrize("command", list(assets.COMMANDS))
def test_every_command_has_its_help_and_debug(command, capsys):
    with pytest.raises(SystemExit) as ended:
        assets.main([command, "--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--debug" in text and " ".join(assets.COMMANDS[command].description.split())[:60] in text


def test_debug_shows_where_a_mistake_was_noticed(tmp_path, capsys):
    arguments = ["bfm09", "--source", str(tmp_path / "none")]
    assert assets.main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert assets.main([*arguments, "--debug"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" in error and "convert_bfm09" in error


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch, capsys):
    def fail(*_):
        raise IndexError("a bug")

    monkeypatch.setattr("facegcn.assets.bfm09.convert_bfm09", fail)
    assert assets.main(["bfm09", "--source", "."]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_converter_refuses_to_write_what_would_not_load(tmp_path, monkeypatch, capsys):
    face = half_ellipsoid()
    face.triangles = face.triangles[:, ::-1].copy()
    monkeypatch.setattr("facegcn.assets.bfm09.convert_bfm09", lambda source: face)
    assert assets.main(["bfm09", "--source", ".", "--out", str(tmp_path / "m.npz")]) == 2
    assert "clockwise" in capsys.readouterr().err and not (tmp_path / "m.npz").exists()


def test_an_operating_systems_error_ends_with_one_message(monkeypatch, capsys):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "data/bfm09")

    monkeypatch.setattr("facegcn.assets.bfm09.convert_bfm09", refuse)
    assert assets.main(["bfm09", "--source", "."]) == 2
    assert capsys.readouterr().err == "error: data/bfm09: Permission denied\n"


def test_commands_for_an_imported_run_name_what_the_checkpoint_decided(tmp_path, monkeypatch, capsys):
    asked = []

    def imported(config, source, network_shapes, epochs_done):
        asked.append(epochs_done)
        return types.SimpleNamespace(path="runs/00000"), dataclasses.replace(config, gan=False, nz=512, wide=True)

    monkeypatch.setattr(tf1_checkpoint, "import_checkpoint", imported)
    config = tmp_path / "my world.yaml"
    config.write_text("world: bfm09\n")
    command = ["tf1-checkpoint", "--source", "x", "--config", str(config)]
    for setting in ("gan=true", "nz=64", "lr=1e-3", "model=resnet", f"root_dir={tmp_path}/my data"):
        command += ["--set", setting]
    assert assets.main(command) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()[1:]]
    flags = ["--config", str(config), "--set", "lr=1e-3", "--set", f"root_dir={tmp_path}/my data", "--model", "resnet",
             "--wide"]
    assert lines == [["python", "main.py", "--mode", "test", *flags],
                     ["python", "main.py", "--mode", "train", "--restore", *flags]]
    assert assets.main([*command, "--epochs-done", "0"]) == 0
    assert asked == [tf1_checkpoint.FULL_RENDER_EPOCH, 0]
