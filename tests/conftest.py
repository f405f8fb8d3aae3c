"""Shared fixtures: development data, numbers of the released code, a quiet TensorFlow."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
RENDER_STEPS = 8191  # of the travelling case's renders: 0 to 1 in 16-bit integers
sys.path.insert(0, str(ROOT))

from facegcn.backends.start import tensorflow  # noqa: E402

tensorflow()  # before any test module imports it: without its start-up notes

# A shared machine stalls now and then, so no example has a deadline; where CI is set, every run tries the same ones.
settings.register_profile("facegcn", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "facegcn")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data beside the repository; tests skip where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the development data folder '../shared' is not here")
    return folder


@pytest.fixture(scope="session", params=["travelling", "whole"])
def released_case(request) -> dict[str, np.ndarray]:
    """Inputs and results of one training step of the released code, see tests/data/README.md.

    The travelling case is in the repository; the whole one is in '../shared' and skipped where that is absent.
    """
    if request.param == "travelling":
        path = ROOT / "tests" / "data" / "released_case.npz"
    else:
        path = request.getfixturevalue("shared") / "reference" / "released_code_resnet.npz"
        if not path.is_file():
            pytest.skip(f"{path} is not here")
    with np.load(path, allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    return {name: np.float32(array / RENDER_STEPS) if array.dtype == np.int16 else array
            for name, array in arrays.items()}


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded random generator."""
    return np.random.default_rng(0)
