"""``from facegcn import reconstruct``: paths and pixels in, faces out; the documented code runs."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import skimage.data
import skimage.io
import yaml
from PIL import Image

import facegcn
from facegcn import api
from facegcn.assets import regressor_errors
from facegcn.config import Config, load_config
from facegcn.errors import PhotoError, UserError
from tests.conftest import ROOT
from tests.faces import embedded, half_ellipsoid

SIZE = 64


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> str:
    """Config file of a small face model whose networks are not trained."""
    folder = tmp_path_factory.mktemp("world")
    embedded(half_ellipsoid(25, 31, (6, 4, 5))).save(str(folder / "data" / "model.npz"))
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({
        "root_dir": str(folder / "data"), "runs_dir": str(folder / "runs"), "model_file": "model.npz", "fit": True,
        "img_size": SIZE, "regressor_pixels": 32, "regressor_start": ""}))
    return str(path)


@pytest.fixture(scope="module")
def reconstruction(world) -> api.Reconstruction:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regressor_errors, "COUNT", 16)
        return api.Reconstruction(world, texture_size=256)


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("photos") / "me.jpg"
    Image.fromarray(skimage.data.astronaut()).save(path, quality=95)
    return str(path)


def test_the_package_is_light_and_knows_its_names():
    code = ("import sys, facegcn; from facegcn import reconstruct, Reconstruction; "
            "print([name for name in ('tensorflow', 'keras', 'cv2', 'numba') if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="nothing_such"):
        facegcn.nothing_such  # noqa: B018 - that it is not there is the test


def test_a_path_and_its_pixels_give_the_same_face(reconstruction, photo, tmp_path):
    face, pixels = reconstruction(photo), skimage.io.imread(photo)
    other, third = reconstruction([pixels, np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])])
    for one in (other, third):
        np.testing.assert_allclose(one.vertices_posed, face.vertices_posed, atol=1e-3)
        np.testing.assert_array_equal(one.picture, face.picture)
    assert face.vertices_posed.shape == face.albedo.shape == (25 * 31, 3)
    assert face.textures.albedo.shape == (256, 256, 3) and face.pasted.shape == pixels.shape
    assert 0 < face.metrics["skin_seen"] <= 1
    reconstruction.texture_size = 512
    assert reconstruction(pixels).textures.lit.shape == (512, 512, 3)
    reconstruction.texture_size = 256
    for name in ("me.glb", "me.obj", "me.npz"):
        face.save(str(tmp_path / name))
        assert (tmp_path / name).stat().st_size > 1000


def test_bad_photos_and_settings_have_reasons(reconstruction, photo, tmp_path):
    blank = np.full((120, 160, 3), 200, np.uint8)
    with pytest.raises(PhotoError, match="^no face was found") as caught:
        reconstruction(blank)
    assert caught.value.status == "no face"
    with pytest.raises(PhotoError, match="^photo 2: no face was found"):
        reconstruction([photo, blank])
    skimage.io.imsave(tmp_path / "blank.png", blank, check_contrast=False)
    for path, reason in ((tmp_path / "blank.png", "no face was found"), (tmp_path / "absent.png", "cannot be read")):
        with pytest.raises(PhotoError, match=f"^{re.escape(str(path))}: {reason}"):
            reconstruction(path)
    for bad in (blank / 255.0, blank[..., 0], blank[None], blank[:0], None):
        with pytest.raises(PhotoError, match="a photo is a path, or pixels"):
            reconstruction(bad)
    assert reconstruction([]) == []
    with pytest.raises(UserError, match="texels a side, not 0"):
        api.Reconstruction(texture_size=0)
    with pytest.raises(UserError, match="--face second"):
        api.Reconstruction(face="second")
    with pytest.raises(UserError, match="cannot read the config nowhere.yaml"):
        api.Reconstruction("nowhere.yaml")


def test_what_was_loaded_is_kept_until_other_settings_come(monkeypatch):
    made = []
    monkeypatch.setattr(api, "_last", {})
    monkeypatch.setattr(api, "Reconstruction", lambda *how: made.append(how) or (lambda photo: (photo, len(made))))
    assert [api.reconstruct(name) for name in "ab"] == [("a", 1), ("b", 1)]
    assert api.reconstruct("c", texture_size=512) == ("c", 2) and len(api._last) == 1
    assert api.reconstruct("d", Config(seed=3)) == ("d", 3) and api.reconstruct("e", Config(seed=4)) == ("e", 4)


def test_configs_are_the_projects_from_any_folder(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    config = api._settings("configs/ict.yaml")
    assert config.world == "ict" and config.root_dir == str(ROOT / "data" / "ict")
    there = os.path.exists(load_config(str(ROOT / "configs" / "ict.yaml")).path("model.npz"))
    assert api.default_config() == str(ROOT / "configs" / ("ict.yaml" if there else "demo.yaml"))
    real = os.path.exists
    monkeypatch.setattr(os.path, "exists", lambda path: not str(path).endswith("model.npz") and real(path))
    caplog.clear()
    assert api.default_config().endswith("demo.yaml") and len(caplog.records) == 1
    assert "procedural face stands in" in caplog.text


def test_a_script_of_the_same_name_is_told_of(tmp_path):
    (tmp_path / "utils.py").write_text("")
    code = "import utils\nfrom facegcn import api\napi._model_script()"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert "UserError: a module 'utils' was imported from" in done.stderr


def test_the_documented_code_runs(reconstruction, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("me.jpg", "you.jpg"):
        os.symlink(photo, name)
    skimage.io.imsave("empty_street.jpg", np.full((120, 160, 3), 200, np.uint8), check_contrast=False)
    monkeypatch.setattr(api, "Reconstruction", lambda *args, **kinds: reconstruction)
    monkeypatch.setattr(api, "_last", {})
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)
    readme, = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(blocks) == 3
    names = {}
    for block in (readme, *blocks):
        exec(block, names)
    assert (tmp_path / "me.glb").stat().st_size > 1000 and len(names["faces"]) == 2
    assert "(775, 3) (775, 3) (256, 256, 3)" in (said := capsys.readouterr().out)
    assert "no face empty_street.jpg: no face was found" in said
