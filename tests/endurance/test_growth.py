"""The long checks of size and of damaged files, each as a command, on a part of what it can do."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.long


@pytest.mark.parametrize("command", [
    ["endurance.many_photos", "--count", "400"],
    ["endurance.scale_records", "--sparse", "--records", "20000", "--steps", "50", "--out"],
    ["fuzzing", "--count", "2000", "--failures"]], ids=lambda command: command[0])
def test_nothing_is_lost_or_grows(command, tmp_path):
    folder = [str(tmp_path / "out")] if command[-1].startswith("--") else []
    done = subprocess.run([sys.executable, "-m", f"tests.{command[0]}", *command[1:], *folder], capture_output=True,
                          text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
