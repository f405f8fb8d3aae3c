"""The long checks of this folder, each as a command; a few kills of each kind, a few disks, some minutes of soak."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.endurance.disks import may_mount

pytestmark = pytest.mark.long


def run(module, *arguments):
    """Runs a module of this folder; returns what it shows."""
    done = subprocess.run([sys.executable, "-m", f"tests.endurance.{module}", *arguments], capture_output=True,
                          text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("name", ["KILL", "TERM", "INT"])
def test_what_was_killed_or_stopped_goes_on(tmp_path_factory, name):
    folder = os.path.join(tmp_path_factory.getbasetemp(), "kills")  # the three share their base world
    assert "packing" in run("kills", "--count", "20", "--signal", name, "--folder", folder)


@pytest.mark.skipif(not may_mount(), reason="mounting small disks needs root")
def test_full_and_read_only_disks_are_named(tmp_path):
    run("disks", "--folder", str(tmp_path), "--free", "read-only,0,64,1024")


@pytest.mark.parametrize("what", ["train", "test"])
def test_nothing_grows_for_long(tmp_path, what):
    assert "an hour" in run("soak", "--what", what, "--minutes", "6", "--every", "5", "--folder", str(tmp_path))
