"""Models whose bases have no components: everything after the file works with them."""

import json

import numpy as np
import pytest
import yaml

import create_bin
import main
from facegcn.assets import regressor_errors
from facegcn.face_model import FaceModel
from facegcn.fitting import CoefficientFitter
from facegcn.landmarks import landmark_targets
from facegcn.networks.regressor import build_regressor, load_weights, save_weights
from facegcn.portraits.light_prior import light_prior
from facegcn.portraits.maker import PortraitMaker
from facegcn.training.regressor_stage import TruthLoss
from tests.faces import embedded, half_ellipsoid

SIZE = 64


@pytest.mark.parametrize("components", [(6, 0, 5), (0, 4, 5), (6, 4, 0), (0, 0, 0)])
def test_portraits_regressor_loss_and_fit(components, tmp_path):
    face = half_ellipsoid(25, 31, components)
    portraits = [PortraitMaker(face, size=SIZE, seed=1).make(number) for number in range(2)]
    rgba = np.stack([portrait.rgba for portrait in portraits]).astype(np.float32) / 255.0
    rgba[..., :3] = rgba[..., :3] * 2.0 - 1.0
    truth = np.stack([portrait.coeff for portrait in portraits])
    assert truth.shape == (2, face.coefficient_count) and np.isfinite(truth).all()
    regressor = build_regressor("small", face, SIZE, 32)
    coeff, _ = regressor(rgba[..., :3])
    assert coeff.shape == truth.shape
    save_weights(regressor, str(tmp_path / "regressor.npz"))
    load_weights(regressor, str(tmp_path / "regressor.npz"))
    terms = TruthLoss(face, SIZE)(coeff, truth)
    assert all(np.isfinite(term) for term in terms.values())
    errors = regressor_errors.measure_errors(FaceModel(face, regressor=regressor, image_size=SIZE), 4, 2, SIZE)
    fitter = CoefficientFitter(face, light_prior(face, 64), errors)
    targets = np.stack([landmark_targets(None, portrait.landmarks) for portrait in portraits])
    fit = fitter(rgba, np.zeros_like(truth), targets)
    assert fit.coefficients.shape == truth.shape and np.isfinite(fit.coefficients).all()
    assert (fit.landmark_residual < 3.0).all() and (fit.unexplained < 1.0).all()


def test_the_three_commands_without_expressions(tmp_path, monkeypatch):
    monkeypatch.setattr(regressor_errors, "COUNT", 16)
    embedded(half_ellipsoid(25, 31, (6, 0, 5))).save(str(tmp_path / "data" / "model.npz"))
    config = tmp_path / "still.yaml"
    config.write_text(yaml.safe_dump({
        "root_dir": str(tmp_path / "data"), "runs_dir": str(tmp_path / "runs"), "model_file": "model.npz",
        "demo_portraits": 6, "val_count": 1, "test_count": 1, "img_size": SIZE, "regressor_pixels": 32,
        "regressor_start": "", "rec_steps": 2, "rec_batch_size": 2, "rec_reuse": 1, "rec_photo_batch": 2, "epoch": 1,
        "batch_size": 2, "log_steps": 1, "buffer_size": 4, "render_start": 0.0, "made_portraits": 2, "fit": True}))
    flags = ["--config", str(config)]
    assert create_bin.main(flags) == 0
    assert main.main([*flags, "--mode", "train"]) == 0
    assert main.main([*flags, "--mode", "test", "--output", str(tmp_path / "out")]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert np.isfinite(metrics["mean"]["fine_l1"])
    assert all(np.isfinite(metrics["mean"][name]) for name in ("unexplained", "skin_seen"))
    saved, = (tmp_path / "out").glob("*.npz")
    with np.load(saved) as data:
        assert any(array.shape[-1:] == (6 + 5 + 33,) for array in (data[name] for name in data.files))
    # What the run leaves to begin with is the same network, for whoever has the same face model.
    run, = (tmp_path / "runs").iterdir()
    errors, = (tmp_path / "data").glob("regressor-errors-*.npz")  # measured once for training and test
    errors.unlink()
    start = [*flags, "--set", f"texture_start={run / 'texture_start.npz'}",
             "--set", f"regressor_start={run / 'regressor.npz'}", "--set", f"runs_dir={tmp_path / 'others'}"]
    assert main.main([*start, "--mode", "test", "--output", str(tmp_path / "begun")]) == 0
    assert not errors.exists(), "they come with the starting weights"
    begun = json.loads((tmp_path / "begun" / "metrics.json").read_text())
    assert begun["fine_texture"] == "texture network"
    assert begun["mean"]["fine_l1"] == pytest.approx(metrics["mean"]["fine_l1"], rel=0.02)
