"""Every program explains itself at once: --help without TensorFlow."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("program", ["main.py", "create_bin.py", "mesh_sampling.py", "-m facegcn.assets check",
                                     "-m facegcn.benchmark", "-m facegcn.portraits", "-m facegcn.demo"])
def test_help_comes_without_tensorflow(program):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found = subprocess.run([sys.executable, "-X", "importtime", *program.split(), "--help"], cwd=root, check=True,
                           capture_output=True, text=True)
    assert "usage:" in found.stdout and "--debug" in found.stdout
    assert "tensorflow" not in found.stderr and "keras" not in found.stderr
