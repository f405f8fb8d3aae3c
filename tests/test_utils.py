"""Root helpers: file lists, run folders, the cached hierarchy."""

import os

import numpy as np
import pytest

import utils
from facegcn.errors import UserError
from tests.faces import half_ellipsoid


def test_find_images(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert [os.path.basename(p) for p in utils.find_images(str(tmp_path))] == ["a.jpg", "b.PNG"]
    assert utils.find_images(str(tmp_path / "notes.txt")) == [str(tmp_path / "notes.txt")]
    with pytest.raises(UserError, match="--photos .*nowhere"):
        utils.find_images(str(tmp_path / "nowhere"), "--photos")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no image in this folder"):
        utils.find_images(str(tmp_path / "empty"))


def test_the_hierarchy_is_cached_by_the_template(tmp_path, capsys):
    model = half_ellipsoid(25, 31)
    first = utils.init_sampling(model.mean_shape, model.triangles, str(tmp_path))
    assert "making the mesh hierarchy" in capsys.readouterr().out
    again = utils.init_sampling(model.mean_shape, model.triangles, str(tmp_path))
    assert capsys.readouterr().out == ""
    for a, b in zip(first.laplacians, again.laplacians):
        assert abs(a - b).max() == 0
    moved = model.mean_shape + np.float32([0.1, 0, 0])
    utils.init_sampling(moved, model.triangles, str(tmp_path))
    assert len(list(tmp_path.glob("sampling-*.npz"))) == 2, "another template never meets a stale file"
