"""Root helpers: file lists, run folders, the cached hierarchy."""

import os

import pytest

import utils
from facegcn.errors import UserError


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
