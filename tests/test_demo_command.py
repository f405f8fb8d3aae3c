"""``python -m facegcn.demo``: the face it writes, and what it says of bad values."""

import cv2
import pytest

from facegcn.demo import face
from facegcn.demo.__main__ import main
from facegcn.morphable import MorphableModel
from tests.faces import half_ellipsoid


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """A model that is made at once; the working directory is a test's own."""
    monkeypatch.setattr(face, "make_demo_face", lambda vertices, seed: half_ellipsoid(seed=seed))
    monkeypatch.chdir(tmp_path)


def test_the_model_and_a_preview_are_written(tmp_path, capsys):
    assert main(["--out", "new/face.npz", "--seed", "3", "--preview", "new/face.png"]) == 0
    assert MorphableModel.load("new/face.npz").digest == half_ellipsoid(seed=3).digest
    assert cv2.imread("new/face.png") is not None and "357 vertices" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"face.npz", "face.png"}


@pytest.mark.parametrize("arguments, message", [
    (["--vertices", "1"], "--vertices"), (["--vertices", "1999"], "2,000"), (["--vertices", "999999999"], "200,000"),
    (["--seed", "-1"], "--seed"), (["--out", ""], "--out"), (["--out", "face.bin"], ".npz"),
    (["--out", "/proc/x/face.npz"], "/proc/x"), (["--preview", ""], "--preview"),
    (["--preview", "/proc/x/a.png"], "/proc/x"), (["--preview", "a.jpg"], ".png")])
def test_bad_values_are_one_message_before_anything_is_made(monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(face, "make_demo_face", None)
    assert main(["--out", "face.npz", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error
