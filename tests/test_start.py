"""A normal run on a machine without a GPU shows no line that is not ours; on one with a GPU, all of TensorFlow's."""

import os
import subprocess
import sys

import pytest

from facegcn.backends import kept_loops, start

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run(code):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True,
                          check=True)


@pytest.mark.skipif(start.has_gpu(), reason="this machine has a GPU, whose lines are shown")
def test_start_is_silent_without_a_gpu():
    found = run("from facegcn.backends import start; tf = start.tensorflow(); print(float(tf.constant(1.0) + 1))")
    assert found.stdout.strip() == "2.0" and found.stderr == ""


def test_a_gpu_s_lines_are_not_held_back():
    found = run("import sys, types, os\n"
                "from facegcn.backends import start\n"
                "start.has_gpu = lambda: True\n"
                "def load(name):\n"
                "    os.write(2, b'W0000 cuda driver is too old\\n')\n"
                "    return types.SimpleNamespace()\n"
                "start.importlib.import_module = load\n"
                "start.tensorflow()\n")
    assert "cuda driver is too old" in found.stderr


def test_what_is_no_known_note_comes_out_after_the_import():
    found = run("import types, os\n"
                "from facegcn.backends import start\n"
                "start.has_gpu = lambda: False\n"
                "def load(name):\n"
                "    os.write(2, b'I0000 oneDNN custom operations are on\\nE0000 the library is broken\\n')\n"
                "    config = types.SimpleNamespace(list_physical_devices=lambda: [])\n"
                "    return types.SimpleNamespace(config=config)\n"
                "start.importlib.import_module = load\n"
                "start.tensorflow()\n")
    assert "the library is broken" in found.stderr and "oneDNN" not in found.stderr


def test_what_the_import_goes_without_is_there_afterwards():
    found = run("import gc, sys\n"
                "from facegcn.backends import start\n"
                "start.tensorflow()\n"
                "assert not any(name.split('.')[0] == 'sklearn' for name in sys.modules)\n"
                "assert gc.isenabled()\n"
                "frozen = gc.get_freeze_count()\n"
                "start.tensorflow()\n"
                "assert gc.get_freeze_count() == frozen > 0, 'what is made later is looked at'\n"
                "from sklearn.decomposition import PCA\n"
                "import keras; print(PCA().n_components, keras.backend.backend())\n")
    assert found.stdout.strip() == "None tensorflow"


def test_what_is_imported_already_is_not_hidden(monkeypatch):
    with start._hidden("os"):
        import os as again
    assert again is os and sys.modules["os"] is os


def test_devices_are_looked_for(monkeypatch):
    monkeypatch.setattr(start.glob, "glob", lambda pattern: ["/dev/nvidia0"] if "nvidia" in pattern else [])
    assert start.has_gpu()
    monkeypatch.setattr(start.glob, "glob", lambda pattern: [])
    assert not start.has_gpu()


@pytest.mark.parametrize(("package", "home", "kept"), [(True, False, ""), (False, True, ""), (False, False, "own")])
def test_loops_are_kept_where_it_is_allowed_and_needed(package, home, kept, tmp_path, monkeypatch):
    """Numba refuses to work where it finds no place for them."""
    allowed = {str(tmp_path / "package"): package, str(tmp_path / "home" / ".cache" / "numba"): home}
    monkeypatch.setattr(kept_loops.os, "access", lambda path, mode: allowed[path])
    monkeypatch.setattr(kept_loops.atexit, "register", lambda *_, **__: None)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(kept_loops.tempfile, "mkdtemp", lambda prefix: "own")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    kept_loops.find_place(str(tmp_path / "package"))
    assert os.environ["NUMBA_CACHE_DIR"] == kept
    monkeypatch.setenv("NUMBA_CACHE_DIR", "chosen")
    kept_loops.find_place(str(tmp_path / "package"))
    assert os.environ["NUMBA_CACHE_DIR"] == "chosen"
