"""Person mode as a program: photos of one made person in, one face with files of its own out."""

import json

import numpy as np
import pytest
import trimesh
import yaml

import main
import model
from facegcn.portraits.maker import PortraitMaker
from facegcn.reconstruction import person_files
from facegcn.reconstruction.results import USUAL
from facegcn.report import CROP_TEXT, write_png
from tests.faces import embedded, half_ellipsoid

SIZE = 64


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Flags of a small world whose photos are fitted, and a folder with two portraits."""
    folder = tmp_path_factory.mktemp("world")
    face = embedded(half_ellipsoid(25, 31))
    face.save(str(folder / "model.npz"))
    (folder / "small.yaml").write_text(yaml.safe_dump({
        "model_file": "model.npz", "root_dir": str(folder), "runs_dir": str(folder / "runs"), "img_size": SIZE,
        "regressor_pixels": 32, "regressor_start": "", "test_batch_size": 2, "fit": True}))
    photos = folder / "photos"
    photos.mkdir()
    maker = PortraitMaker(face, SIZE, seed=1)
    for name in "ab":  # the same person twice
        write_png(str(photos / f"{name}.png"), maker.make(0).rgba, CROP_TEXT)
    return ["--config", str(folder / "small.yaml"), "--mode", "test", "--texture", "256"], photos


@pytest.fixture(autouse=True)
def _errors_not_measured(monkeypatch):
    """How far the untrained regressor is off takes half a minute to measure; landmarks alone count then."""
    monkeypatch.setattr(model, "ensure_regressor_errors", lambda *_: None)


def test_photos_and_the_person_have_files(world, tmp_path, capsys):
    flags, photos = world
    assert main.main([*flags, "--person", "--input", str(photos), "--output", str(tmp_path / "out")]) == 0
    out = tmp_path / "out"
    assert all((out / f"{name}{ending}").exists() for name in ("a", "b", "person") for ending in USUAL)
    assert json.loads((out / "metrics.json").read_text())["photos"]["person"]["reason"] == "one face of 2 photos"
    report = json.loads((out / "person.json").read_text())
    assert report["used"] == 2 and set(report["photos"]) == {"a", "b"}
    first, second = (np.load(out / f"{name}.npz") for name in "ab")
    np.testing.assert_array_equal(first["coeff_id"], second["coeff_id"])
    np.testing.assert_allclose(first["fine_texture"], second["fine_texture"], atol=1e-6)
    assert len(trimesh.load(out / "person_albedo.glb").geometry) == 1
    assert "earlier run" not in capsys.readouterr().err


def test_photos_that_agree_too_little_are_doubted(world, tmp_path, capsys, monkeypatch):
    flags, photos = world
    given = [*flags, "--person", "--input", str(photos), "--output", str(tmp_path / "out"), "--texture", "none"]
    for usual, doubted in ((3.5, False), (-1.0, True)):
        monkeypatch.setattr(person_files, "FAR", usual)
        assert main.main(given) == 0
        assert ("may not show one person" in capsys.readouterr().err) == doubted


def test_a_photo_called_person_keeps_its_name(world, tmp_path):
    flags, photos = world
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "person.png").write_bytes((photos / "a.png").read_bytes())
    assert main.main([*flags, "--person", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"),
                      "--texture", "none"]) == 0
    assert (tmp_path / "out" / "person.npz").exists() and (tmp_path / "out" / "person-2.json").exists()


def test_a_folder_in_which_nothing_can_be_used(world, tmp_path):
    flags, _ = world
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    assert main.main([*flags, "--person", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 1
    assert not list((tmp_path / "out").glob("person*"))


@pytest.mark.parametrize(("more", "words"), [
    (["--texture", "0"], "256, 512"), (["--texture", "100000"], "not 100000"), (["--texture", "big"], "such as 2048"),
    (["--texture", "none", "--views"], "not go with --texture none"), (["--animate", "no.csv"], "no.csv"),
    (["--set", "fit=false", "--person"], "fit=true")])
def test_flags_that_cannot_be_are_named(world, tmp_path, capsys, more, words):
    flags, photos = world
    assert main.main([*flags[:4], *more, "--input", str(photos), "--output", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err
    assert not [path for path in (tmp_path / "out").glob("*") if path.suffix != ".json" and path.suffix != ".csv"]
