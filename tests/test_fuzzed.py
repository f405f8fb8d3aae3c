"""Files that are not what they should be: some inputs for each reader, and those that once were answered wrongly.

``python -m tests.fuzzing`` reads as many as one likes, each kind in a process of its own.
"""

import importlib
import io
import json
import os
import pkgutil
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
import scipy.io
import tensorflow as tf
import yaml
from PIL import Image

from facegcn import files
from facegcn.animation import read_clip
from facegcn.assets import bfm_files
from facegcn.assets.ict_source import read_checkout
from facegcn.assets.matfile import ArraySpec, read_arrays
from facegcn.assets.tf1_checkpoint import read_checkpoint
from facegcn.config import Config, load_config, parse_assignments
from facegcn.errors import BrokenFile, PhotoError, UserError
from facegcn.identity.torch_weights import load_converted
from facegcn.networks.frozen import FrozenGraph, read_graph
from facegcn.networks.regressor import load_weights
from facegcn.photos.reading import PIXEL_LIMIT, read_photo
from facegcn.reconstruction.report_page import write_report
from tests.fuzzing import __main__ as fuzzing
from tests.fuzzing import attempts, readers
from tests.fuzzing.archives import packed_arrays, raw_array
from tests.fuzzing.pictures import png_bytes, png_chunk
from tests.fuzzing.readers import graphs, journal, obj, weights
from tests.fuzzing.worker import Status

NAMES = sorted(module.name for module in pkgutil.iter_modules(readers.__path__))
#: Inputs of each kind: as many as a second has room for.
COUNTS = {"config": 60, "results": 50, "weights": 60, "model": 60, "films": 20, "graphs": 60, "checkpoint": 60,
          "extracts": 60, "runs": 40, "bfm17": 60,
          "journal": 60}
USUAL_COUNT = 150


@pytest.mark.parametrize("name", NAMES)
def test_damaged_and_forged_files_are_refused_or_read_as_they_are(tmp_path, monkeypatch, name):
    monkeypatch.setattr(bfm_files, "EXPRESSION_VERTICES", bfm_files.EXPRESSION_VERTICES)
    reader = importlib.import_module(f"tests.fuzzing.readers.{name}").Reader(str(tmp_path / "own"))
    judge, kinds = attempts.Judge(reader, str(tmp_path / "input")), set()
    for number in range(COUNTS.get(name, USUAL_COUNT)):
        outcome = judge.attempt(judge.case(11, number))
        assert outcome.kind != "failed", f"input {number}: {outcome.text}"
        assert outcome.kind == "accepted" or outcome.text.strip(), "a refusal says why"
        kinds.add(outcome.kind)
    assert kinds == {"accepted", "refused"}


# ---------------------------------------------------------------- the machinery
class _Reader(attempts.Reader):
    """Believes all that it reads, or fails."""

    checksums = True

    def seeds(self):
        return [{"a.txt": b"sound"}]

    def read(self, folder):
        with open(os.path.join(folder, "a.txt"), "rb") as file:
            content = file.read()
        if content == b"odd":
            raise KeyError("odd")
        if content == b"bad":
            raise UserError("bad")
        return content


def test_a_judge_tells_refusals_from_failures(tmp_path):
    judge = attempts.Judge(_Reader(str(tmp_path)), str(tmp_path / "input"))
    for content, sealed, kind in ((b"sound", True, "accepted"), (b"other", False, "accepted"),
                                  (b"other", True, "failed"), (b"odd", False, "failed"), (b"bad", True, "refused")):
        assert judge.attempt(attempts.Case({"a.txt": content}, sealed)).kind == kind
    assert [judge.case(1, k) for k in range(9)] == [judge.case(1, k) for k in range(9)]
    assert len({judge.case(1, k).files["a.txt"] for k in range(99)}) > 50


def test_answers_are_compared_to_the_last_bit():
    assert attempts.same({"a": [np.float32([1, np.nan])]}, {"a": [np.float32([1, np.nan])]})
    assert attempts.same(float("nan"), float("nan")) and attempts.same(Config(), Config())
    for one, other in ((np.float32([1]), np.float64([1])), (np.zeros(2), np.zeros((2, 1))), ([1], (1, 2)), ({1: 2}, {}),
                       (Config(), Config(seed=3))):
        assert not attempts.same(one, other)


def test_what_is_forbidden_ends_an_input_and_is_kept(tmp_path):
    """In a process of its own: nothing takes an audit hook away again."""
    program = f"""
import os, sys, pickle
from types import SimpleNamespace
from tests.fuzzing import attempts, worker
def read(what):
    return {{"eval": lambda: eval("1 + 1"), "pickle": lambda: pickle.loads(pickle.dumps(len)),
             "system": lambda: os.system("false"), "write": lambda: open({str(tmp_path / "outside")!r}, "w"),
             "inside": lambda: open(os.path.join({str(tmp_path / "in")!r}, "x"), "w").close(), "sleep": sleep}}[what]()
def sleep():
    while True: pass
os.makedirs({str(tmp_path / "in")!r})
watch = worker.Watch({str(tmp_path / "in")!r})
worker.MOST_SECONDS = 0.2
import signal; signal.signal(signal.SIGALRM, worker._too_slow)
for what in sys.argv[1:]:
    judge = SimpleNamespace(attempt=lambda case: (read(what), attempts.Outcome("accepted", "", 0.0))[1])
    failure, kind, seconds = worker._guarded(judge, attempts.Case({{}}), watch)
    print(what, kind, failure.strip().splitlines()[-1] if failure else "")
"""
    words = ["eval", "pickle", "system", "write", "sleep", "inside"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": os.getcwd()})
    lines = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert list(lines) == words, done.stderr
    assert lines["inside"].startswith("accepted")
    assert all(lines[word].startswith("failed") for word in words[:-1]), lines
    assert "pickle.find_class" in lines["pickle"] and "TooSlow" in lines["sleep"] and "outside" in lines["write"]


def test_a_worker_s_crash_is_counted_and_kept(tmp_path, monkeypatch, capsys):
    program = ("import os, signal, sys; from tests.fuzzing import attempts, worker; scratch = sys.argv[1]\n"
               "status = worker.Status(os.path.join(scratch, 'status'))\n"
               "if status.number == 0:\n"
               "    status.number, status.begun = 1, 1e-9 + __import__('time').monotonic(); status.tell()\n"
               "    attempts.place(os.path.join(scratch, 'input'), {'a.txt': b'x'})\n"
               "    os.kill(os.getpid(), signal.SIGSEGV)\n"
               "status.number, status.done, status.refused = 2, 2, 1; status.tell()\n")
    popen = subprocess.Popen
    monkeypatch.setattr(fuzzing.subprocess, "Popen", lambda words, **options: popen(
        [words[0], "-c", program, words[words.index("--scratch") + 1]], **options))
    kept = tmp_path / "kept"
    assert fuzzing.main(["--reader", "points", "--count", "2", "--failures", str(kept)]) == 1
    assert (kept / "points-0-1" / "input" / "a.txt").read_bytes() == b"x"
    assert "ended with code -11" in (kept / "points-0-1" / "why.txt").read_text()
    assert capsys.readouterr().out.splitlines()[1].split()[:5] == ["points", "2", "1", "0", "1"]


def test_a_kept_failure_is_read_again(tmp_path, capsys):
    folder = tmp_path / "points-0-7"
    (folder / "input").mkdir(parents=True)
    (folder / "input" / "a.txt").write_text("1 2\n" * 5)
    (folder / "why.txt").write_text("sealed=False\n")
    assert fuzzing.main(["--replay", str(folder)]) == 0 and ": accepted after" in capsys.readouterr().out


def test_status_is_shared(tmp_path):
    one, other = Status(str(tmp_path / "status")), Status(str(tmp_path / "status"))
    one.number, one.worst = 7, 0.5
    one.tell()
    other.load()
    assert (other.number, other.worst, other.failed) == (7, 0.5, 0)


# ---------------------------------------------------------------- settings
_BOMB = "found:\n  a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"  {after}: &{after} [{', '.join(['*' + before] * 9)}]\n" for before, after in zip("abcdefgh", "bcdefghi"))


@pytest.mark.parametrize("text", [
    "name: 2020-13-01\n", "lr: " + "9" * 5000 + "\n", "lr: 1" + "0" * 400 + "\n", "[" * 20_000, "seed: 0x" + "f" * 4000,
    "lr: !!timestamp x\n", "seed: !!python/object/apply:os.system ['false']\n", _BOMB + "lr: *h\n", "? [a, b]\n: c\n",
    "seed: !!int x\n", "a" * 9999 + ": 1\n"], ids=range(11))
def test_settings_that_yaml_itself_gives_up_on(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(str(path))
    assert str(path) in str(caught.value) and len(str(caught.value)) < 2000


def test_numbers_beyond_floats_on_the_command_line():
    for value in ("1" + "0" * 400, "9" * 5000, "0o17"):
        for key in ("lr", "seed", "wide"):
            with pytest.raises(UserError, match=f"'{key}' must be"):
                load_config(None, {key: value})
    assert load_config(None, {"buffer_size": "1" + "0" * 400}).buffer_size == 10 ** 400, "nothing forbids it"
    assert yaml.safe_load("9.0") == 9.0


def test_settings_without_an_equals_sign_are_shown_in_part():
    with pytest.raises(UserError) as caught:
        parse_assignments(["(" * 40_000])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("moments", [["0", "1e300"], ["1e300", "2e300"], ["-1e308", "1e308"], ["0", "3e6"]])
def test_clips_of_more_than_a_month(tmp_path, moments):
    path = tmp_path / "clip.csv"
    path.write_text("time,jawOpen\n" + "".join(f"{moment},0.5\n" for moment in moments))
    with pytest.raises(UserError, match="more than 30 days"):
        read_clip(str(path))


def test_timecodes_of_no_clock_and_columns_of_no_name(tmp_path):
    path = tmp_path / "clip.csv"
    path.write_text(f"Timecode,jawOpen\n10:20:30:1,0.5\n10:20:1{'0' * 400}:1,0.5\n")
    with pytest.raises(UserError, match="more than 30 days"):
        read_clip(str(path))
    path.write_text(f"time,{'[' * 20_000}\n0,1\n")
    with pytest.raises(UserError) as caught:
        read_clip(str(path))
    assert len(str(caught.value)) < 1000


# ---------------------------------------------------------------- MATLAB
def _mat(change):
    held = io.BytesIO()
    scipy.io.savemat(held, {"values": np.arange(6.0).reshape(2, 3)})
    content = bytearray(held.getvalue())
    change(content)
    return bytes(content)


#: Offsets in a file of one array: its header has 128 bytes, its tag 8, flags and lengths 16 each, its name 16.
@pytest.mark.parametrize("offset, order, value", [
    (184, "B", 0xD5), (184, "I", 14), (188, "I", 8), (188, "I", 2 ** 31), (160, "i", -2), (160, "i", 3), (144, "B", 1),
    (144, "I", 6 | 0x800), (172, "I", 2 ** 31 - 1), (140, "I", 0), (136, "I", 5), (152, "I", 6)], ids=range(12))
def test_matlab_s_types_and_lengths_are_not_believed(tmp_path, offset, order, value):
    """An unknown type, such as the first, made SciPy end the process."""
    path = tmp_path / "a.mat"
    path.write_bytes(_mat(lambda content: struct.pack_into("<" + order, content, offset, value)))
    with pytest.raises(BrokenFile):
        read_arrays(str(path), {"values": ArraySpec((2, 3))})


def test_matlab_values_without_fractions_and_a_header_of_zeros(tmp_path):
    """MATLAB keeps numbers of class double as bytes where they fit; SciPy gives them back so."""
    path = tmp_path / "a.mat"
    held = io.BytesIO()
    scipy.io.savemat(held, {"values": np.arange(8, dtype=np.uint8).reshape(1, 8)})
    content = bytearray(held.getvalue())
    content[144] = 6  # class double
    path.write_bytes(content)
    found = read_arrays(str(path), {"values": ArraySpec((8,))})["values"]
    assert found.dtype == np.float64 and found.tolist() == list(range(8))
    path.write_bytes(bytes(20) + _mat(lambda content: None)[20:])
    with pytest.raises(BrokenFile, match="no readable MATLAB file"):
        read_arrays(str(path), {"values": ArraySpec((2, 3))})


@pytest.mark.parametrize("packed", [False, True])
def test_matlab_arrays_of_every_type_are_read(tmp_path, packed):
    arrays = {f"a{k}": np.arange(1, 7).reshape(2, 3).astype(kind) for k, kind in enumerate("bBhHiIlLfd")}
    path = str(tmp_path / "a.mat")
    scipy.io.savemat(path, {**arrays, "text": "word", "cell": np.array([1, "b"], object), "a_name_of_many_letters": 1.0,
                            "s": {"field": 1}}, do_compression=packed)
    found = read_arrays(path, {name: ArraySpec((2, 3), "index", 6) for name in arrays}
                        | {"a_name_of_many_letters": ArraySpec((1,))})
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array.astype(np.int64) - 1)
    assert found["a_name_of_many_letters"] == 1.0
    with pytest.raises(BrokenFile, match="of class char"):
        read_arrays(path, {"text": ArraySpec((1, 4))})


# ---------------------------------------------------------------- archives
def test_arrays_that_say_too_much_are_refused_before_they_are_made(tmp_path):
    path = tmp_path / "a.npz"
    for header in ("{'descr': '<f4', 'fortran_order': False, 'shape': (4000000000000,), }", "(" * 20_000,
                   "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "__import__('os').system('false')",
                   "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
                   "{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }",
                   "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,), }"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", raw_array(header, bytes(8)))
        with pytest.raises(BrokenFile):
            files.read_npz(str(path))


def test_arrays_of_nothing_cannot_be_many(tmp_path):
    """They take no byte in a file, and eight each when they become numbers."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", raw_array("{'descr': '<U0', 'fortran_order': False, 'shape': (2147483648,), }", b""))
    with pytest.raises(BrokenFile, match="no whole array"):
        files.read_npz(str(path))


def test_the_other_byte_order_is_read(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(packed_arrays({"a": np.arange(3).astype(">f4"), "b": np.array(["ab"], ">U2")}))
    found = files.read_npz(str(path))
    assert found["a"].dtype == np.float32 and found["a"].dtype.isnative and found["a"].tolist() == [0, 1, 2]
    assert found["b"].tolist() == ["ab"]


@pytest.mark.parametrize("value, good", [(1e300, False), (np.inf, False), (1e30, True)])
def test_weights_beyond_single_precision(tmp_path, value, good):
    network = weights._network()
    arrays = {weight.path: np.full(weight.shape, value) for weight in network.weights}
    path = tmp_path / "a.npz"
    path.write_bytes(packed_arrays(arrays))
    if good:
        load_weights(network, str(path))
        assert network.weights[0].value[0, 0] == np.float32(value)
    else:
        with pytest.raises(UserError, match="a/kernel is not finite"):
            load_weights(network, str(path))


def test_a_converted_recognizer_of_no_version(tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(packed_arrays({"architecture": np.array("ir50"), "format": np.float64(np.inf)}))
    with pytest.raises(UserError, match="no converted weight file|not a converted weight file"):
        load_converted(str(path))


# ---------------------------------------------------------------- checkouts, checkpoints, results
def _checkout(folder, **changes):
    seed = dict(obj.Reader(str(folder)).seeds()[0])
    for name, (before, after) in changes.items():
        file = next(key for key in seed if key.startswith(name))
        assert before in seed[file]
        seed[file] = seed[file].replace(before, after, 1)
    attempts.place(str(folder / "in"), seed)
    return str(folder / "in")


@pytest.mark.parametrize("changes", [
    {"generic": (b"f 10/1", b"f 17/1")}, {"generic": (b"f 10/1", b"f -1/1")}, {"generic": (b"f 10/1", b"f 0/1")},
    {"generic": (b"f 10/1 11/2 12/3", b"f 10/1 11/2")}, {"identity": (b"v ", b"v nan 0 0\n#")},
    {"jawOpen": (b"v ", b"v 1e400 0 0\n#")}, {"vertex": (b" 5,", b" -2147483649,")}, {"vertex": (b" 5,", b" 5.5,")},
    {"vertex": (b'"jawOpen"', b"7")}], ids=range(9))
def test_checkouts_with_faces_of_nothing_and_numbers_of_no_place(tmp_path, changes):
    assert read_checkout(_checkout(tmp_path), obj._LAYOUT).identity.shape[2] == 1
    with pytest.raises(UserError):
        read_checkout(_checkout(tmp_path, **changes), obj._LAYOUT)


@pytest.mark.parametrize("content", [b"\xff\xfe model", b"all_model_checkpoint_paths: 'x'", b"{", b""])
def test_a_checkpoint_file_that_names_none(tmp_path, content):
    (tmp_path / "checkpoint").write_bytes(content)
    with pytest.raises(UserError, match="there is no TF1 checkpoint"):
        read_checkpoint(str(tmp_path))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a\0b", "..", ""])
def test_a_report_shows_nothing_from_outside_its_folder(tmp_path, name):
    folder = tmp_path / "results"
    folder.mkdir()
    (tmp_path / "secret_input.png").write_bytes(png_bytes(np.zeros((4, 4, 3), np.uint8)))
    (folder / "metrics.json").write_text(json.dumps({"photos": {name: {"status": "ok"}}}))
    with open(write_report(str(folder)), encoding="utf-8") as page:
        assert "<img data-kind" not in page.read()
    assert sorted(os.listdir(folder)) == ["metrics.json", "report.html"]


def test_a_journal_s_line_of_another_photo_s_files_is_not_believed(tmp_path):
    reader = journal.Reader(str(tmp_path / "own"))
    seed = reader.seeds()[0]
    lines = seed["results.jsonl"].replace(b'"metrics": {}, "files": {}', b'"metrics": {}, "files": {"a.npz": 5}')
    assert lines != seed["results.jsonl"]
    attempts.place(str(tmp_path / "in"), {**seed, "results.jsonl": lines})
    jobs, _, _ = reader.read(str(tmp_path / "in"))
    assert [job.written for job in jobs] == [True, False, False] and not jobs[1].status


# ---------------------------------------------------------------- photos
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pictures_that_say_too_much_are_refused_before_they_are_decoded(tmp_path):
    path = tmp_path / "a.png"
    for width, height in ((2 ** 31 - 1, 2 ** 31 - 1), (PIXEL_LIMIT // 100 + 1, 100), (20_000, 20_000)):
        header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
                         + png_chunk(b"IDAT", zlib.compress(bytes(99))) + png_chunk(b"IEND", b""))
        with pytest.raises(PhotoError, match="more than 200 megapixels"):
            read_photo(str(path))


def test_what_fails_behind_the_decoder_is_damage_too(tmp_path, monkeypatch):
    """Such as a transparent colour of a palette that is not there, of which Pillow asserts that it is."""
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(np.zeros((4, 4, 3), np.uint8)))

    def broken(self):
        assert self.palette is not None

    monkeypatch.setattr(Image.Image, "has_transparency_data", property(broken))
    with pytest.raises(PhotoError, match="is damaged"):
        read_photo(str(path))


# ---------------------------------------------------------------- graphs
@pytest.mark.parametrize("operation", graphs._OTHERS)
def test_graphs_that_do_more_than_compute_are_refused_by_name(tmp_path, operation):
    graph = graphs.small_graph()
    extra = graph.node.add()
    extra.name, extra.op = "extra", operation
    next(node for node in graph.node if node.op == "MatMul").input.append("^extra")
    path = tmp_path / "net.pb"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(UserError, match=operation if operation != "VarHandleOp" else "not frozen"):
        read_graph(str(path), graphs._NETWORK)


@pytest.mark.parametrize("kind", [tf.variant, tf.resource, tf.string])
def test_constants_of_other_types_are_refused(tmp_path, kind):
    """A handle that calls itself a number made TensorFlow end the process."""
    graph = graphs.small_graph()
    next(node for node in graph.node if node.op == "Const").attr["value"].tensor.dtype = kind.as_datatype_enum
    path = tmp_path / "net.pb"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(UserError, match=f"computes with .*DT_{kind.name.upper()}"):
        read_graph(str(path), graphs._NETWORK)


def test_two_nodes_of_one_name_and_outputs_that_never_run(tmp_path):
    path = tmp_path / "net.pb"
    graph = graphs.small_graph()
    next(node for node in graph.node if node.op == "Const").name = "Merge"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(UserError, match="two nodes of one name"):
        read_graph(str(path), graphs._NETWORK)
    graph = graphs.small_graph()
    dead = next(node for node in graph.node if "Switch:1" in node.input)  # the branch of training
    next(node for node in graph.node if node.name == "out").input.append("^" + dead.name)
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(UserError, match="these tensors are missing:\n  out:0"):
        read_graph(str(path), graphs._NETWORK)


def test_a_join_of_a_picture_and_a_number(tmp_path):
    """The convolution behind it made TensorFlow end the process."""
    graph = graphs.small_graph()
    for node in graph.node:
        if node.op == "Merge":
            node.input.append("add/y")
    path = tmp_path / "net.pb"
    path.write_bytes(graph.SerializeToString())
    with pytest.raises(UserError, match="cannot run .* joins tensors of 0 and 4 dimensions"):
        FrozenGraph(str(path), graphs._NETWORK)


def test_a_switch_without_a_condition(tmp_path):
    graph = graphs.small_graph()
    del next(node for node in graph.node if node.op == "Switch").input[1:]
    path = tmp_path / "net.pb"
    path.write_bytes(graph.SerializeToString())
    read_graph(str(path), graphs._NETWORK)  # TensorFlow says the rest
    with pytest.raises(UserError, match="cannot run"):
        FrozenGraph(str(path), graphs._NETWORK)


def test_what_hides_behind_the_inputs_or_in_functions_is_not_there(tmp_path):
    graph = graphs.small_graph()
    extra = graph.node.add()
    extra.name, extra.op = "extra", "WriteFile"
    next(node for node in graph.node if node.name == "input").input.append("^extra")
    graph.library.function.add().signature.name = "f"
    path = tmp_path / "net.pb"
    path.write_bytes(graph.SerializeToString())
    read, _, _ = read_graph(str(path), graphs._NETWORK)
    assert isinstance(read, tf.compat.v1.GraphDef)
    assert "WriteFile" not in {node.op for node in read.node} and not read.library.function
