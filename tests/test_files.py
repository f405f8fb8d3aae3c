"""Files that are whole or not there, names that stay in their folder, keys of what is kept."""

import errno
import hashlib
import os
import re
import signal
import string
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facegcn import files
from facegcn.errors import BrokenFile, UserError
from tests.conftest import ROOT


def test_a_file_appears_whole(tmp_path):
    path = str(tmp_path / "new" / "a.npz")
    with files.written_whole(path) as partial:
        assert os.path.dirname(partial) == os.path.dirname(path) and partial.endswith(".npz")
        with open(partial, "w") as file:
            file.write("x")
        assert not os.path.exists(path)
    assert open(path).read() == "x" and os.listdir(tmp_path / "new") == ["a.npz"]


def test_keras_ending_is_kept(tmp_path):
    with files.written_whole(str(tmp_path / "texture.weights.h5")) as partial:
        assert partial.endswith(".weights.h5")
        open(partial, "w").close()


def test_a_failure_leaves_the_former_file_and_nothing_else(tmp_path):
    path = str(tmp_path / "a.txt")
    files.write_text(path, "former")
    with pytest.raises(RuntimeError), files.written_whole(path) as partial:
        with open(partial, "w") as file:
            file.write("half")
        raise RuntimeError
    assert open(path).read() == "former" and os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    path = str(tmp_path / "a.npz")

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError) as caught:
        files.write_npz(path, {"a": np.zeros(3)})
    assert caught.value.filename == path and caught.value.errno == errno.ENOSPC and not os.listdir(tmp_path)


def test_another_file_s_error_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, files.written_whole(str(tmp_path / "a.bin")):
        open(tmp_path / "absent.png")
    assert caught.value.filename == str(tmp_path / "absent.png")


@pytest.mark.parametrize("folder", ["/proc/x", "file", "file/deeper"])
def test_a_folder_that_cannot_be_made_is_the_user_s_to_mend(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for write in (files.make_folder, lambda folder: files.check_writable(os.path.join(folder, "a.bin")),
                  lambda folder: files.write_text(os.path.join(folder, "a.txt"), "")):
        with pytest.raises(UserError, match=f"the folder .*{folder} cannot be made"):
            write(folder)


def test_what_can_be_written_is_found_out_without_a_trace(tmp_path):
    files.write_text(str(tmp_path / "a.bin"), "former")
    files.check_writable(str(tmp_path / "a.bin"))
    assert os.listdir(tmp_path) == ["a.bin"] and (tmp_path / "a.bin").read_text() == "former"
    with pytest.raises(UserError, match="is a folder"):
        files.check_writable(str(tmp_path))


def test_content_is_on_the_disk_before_the_name_appears(tmp_path, monkeypatch):
    order = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    files.write_bytes(str(tmp_path / "a.bin"), b"x")
    assert order[:2] == ["fsync", "replace"]


def test_leftovers_of_killed_programs_go_and_those_of_others_stay(tmp_path):
    def left(place, process, ending):
        path = tmp_path / f".partial-{place}-{process}-7{ending}"
        path.mkdir() if not ending else path.write_bytes(b"half")
        return path

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    gone = [left(files._place(), dead.pid, ".npz"), left(files._place(), dead.pid, "")]
    stays = [left("0123456789ab", dead.pid, ".npz"), left(files._place(), os.getpid(), ".npz"), tmp_path / ".partial-x"]
    stays[-1].write_bytes(b"somebody's")
    old = left("ba9876543210", 1, ".npz")
    os.utime(old, (1.0, 1.0))
    files.write_text(str(tmp_path / "a.txt"), "new")
    assert not any(path.exists() for path in [*gone, old]) and all(path.exists() for path in stays)
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_folder_takes_the_place_of_another_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "crops"
    for number in range(2):
        with files.folder_written_whole(str(folder)) as partial:
            files.write_text(os.path.join(partial, f"{number}.txt"), "")
            assert not (folder / f"{number}.txt").exists()
        assert os.listdir(folder) == [f"{number}.txt"]
    with pytest.raises(KeyboardInterrupt), files.folder_written_whole(str(folder)):
        raise KeyboardInterrupt
    assert os.listdir(folder) == ["1.txt"] and os.listdir(tmp_path) == ["crops"]


def test_a_stop_between_two_folders_leaves_the_former_one(tmp_path, monkeypatch):
    folder, rename = tmp_path / "crops", os.rename
    with files.folder_written_whole(str(folder)) as partial:
        files.write_text(os.path.join(partial, "kept.txt"), "")

    def stopped(source, target):
        if target == str(folder) and "former" not in source:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", stopped)
    with pytest.raises(KeyboardInterrupt), files.folder_written_whole(str(folder)):
        pass
    assert os.listdir(folder) == ["kept.txt"] and os.listdir(tmp_path) == ["crops"]


def test_a_kill_between_two_folders_leaves_the_former_one(tmp_path):
    """The next one that writes there gives it its name back."""
    code = ("import os, sys\nfrom facegcn import files\nrename = os.rename\n"
            "def killed(source, target):\n"
            "    if target == sys.argv[1]: os.kill(os.getpid(), 9)\n"
            "    rename(source, target)\n"
            "os.rename = killed\n"
            "with files.folder_written_whole(sys.argv[1]) as partial:\n"
            "    open(os.path.join(partial, 'new'), 'w').close()\n")
    folder = tmp_path / "crops"
    folder.mkdir()
    (folder / "kept.txt").write_text("kept")
    assert subprocess.run([sys.executable, "-c", code, str(folder)], cwd=ROOT).returncode == -signal.SIGKILL
    assert not folder.exists() and len(os.listdir(tmp_path)) == 2
    files.write_text(str(tmp_path / "a.txt"), "new")
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "crops"] and os.listdir(folder) == ["kept.txt"]


def test_a_line_that_has_no_room_names_its_file(tmp_path):
    files.append_line(str(tmp_path / "a.jsonl"), "{}")
    files.append_line(str(tmp_path / "a.jsonl"), "[]")
    assert (tmp_path / "a.jsonl").read_bytes() == b"{}\n[]\n"
    with pytest.raises(OSError, match="absent") as caught:
        files.append_line(str(tmp_path / "absent" / "a.jsonl"), "")
    assert caught.value.filename == str(tmp_path / "absent" / "a.jsonl")
    with pytest.raises(OSError, match="a.jsonl") as caught:
        files.require_room(str(tmp_path / "a.jsonl"), 1 << 62)
    assert caught.value.errno == errno.ENOSPC


def test_an_archive_whose_list_lost_an_array_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    arrays = {name: np.arange(20) for name in "abc"}
    for compressed in (True, False):
        for lost in range(3):
            files.write_npz(str(path), arrays, compressed)
            assert set(files.npz_headers(str(path))) == set(arrays)
            data = path.read_bytes()
            *places, end = [match.start() for match in re.finditer(b"PK\x01\x02|PK\x05\x06", data)]
            begin, after = places[lost], (places[1:] + [end])[lost]
            tail = bytearray(data[end:])
            size = after - begin
            struct.pack_into("<HHI", tail, 8, 2, 2, struct.unpack_from("<I", tail, 12)[0] - size)
            path.write_bytes(data[:begin] + data[after:end] + tail)
            assert len(zipfile.ZipFile(path).infolist()) == 2
            with pytest.raises(BrokenFile, match="list does not name"):
                files.npz_headers(str(path))


def test_npz_round_trip_and_what_is_missing(tmp_path):
    path = str(tmp_path / "a.npz")
    files.write_npz(path, {"a": np.arange(5), "b": np.float32([1.5])})
    assert set(files.read_npz(path)) == {"a", "b"} and list(files.read_npz(path, ["b"])) == ["b"]
    with pytest.raises(BrokenFile, match="lacks the arrays c"):
        files.read_npz(path, ["a", "c"])
    with pytest.raises(FileNotFoundError):
        files.read_npz(str(tmp_path / "no.npz"))


def test_pickles_and_bombs_are_refused(tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez(path, a=np.array([{}], object))
    with pytest.raises(BrokenFile):
        files.read_npz(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.npy", bytes(8 << 20))
    assert os.path.getsize(path) < 10_000
    with pytest.raises(BrokenFile, match="unpacks to"):
        files.read_npz(path)


@given(data=st.data())
def test_no_damage_raises_anything_but_broken_file(tmp_path_factory, data):
    path = str(tmp_path_factory.mktemp("npz") / "a.npz")
    files.write_npz(path, {"a": np.arange(40), "b": np.ones((3, 2))})
    content = bytearray(open(path, "rb").read())
    if data.draw(st.booleans()):
        content = content[:data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with open(path, "wb") as file:
        file.write(content)
    try:
        found = files.read_npz(path, ["a", "b"])
    except BrokenFile as error:
        assert error.path == path
    else:  # a byte that says nothing, such as a time
        np.testing.assert_array_equal(found["a"], np.arange(40))


def test_kept_arrays_are_made_once_and_again_when_damaged(tmp_path, caplog):
    path, made = str(tmp_path / "kept.npz"), []

    def make():
        made.append(1)
        return {"a": np.full(3, len(made))}

    with caplog.at_level("INFO", "facegcn"):
        for _ in range(2):
            assert files.kept_npz(path, ["a"], make, "the answer")["a"][0] == 1
        with open(path, "r+b") as file:
            file.truncate(40)
        assert files.kept_npz(path, ["a"], make, "the answer")["a"][0] == 2
    assert len(made) == 2 and "making the answer" in caplog.text and "is damaged" in caplog.text


def test_digest_tells_values_types_and_borders_apart():
    values = [(1,), (1.0,), ("1",), (True,), ("1", "2"), ("12",), (np.arange(2),), (np.arange(2.0),),
              (np.zeros((1, 2)),), (np.zeros((2, 1)),), (None,)]
    assert len({files.digest(*value) for value in values}) == len(values)
    assert files.digest(np.arange(6)[::2]) == files.digest(np.array([0, 2, 4])), "layout in memory does not count"


@pytest.mark.parametrize("value", [np.float32(1.5) * np.ones((2, 3), np.float32), np.arange(1), np.zeros((0, 4)),
                                   np.array(["a", "bc"]), np.arange(12.0).reshape(3, 4).T, np.array([True, False])])
def test_digest_is_that_of_the_bytes(value):
    """By which files were named that earlier versions kept; large arrays are not copied for it."""
    expected = hashlib.sha256(f"array {value.dtype} {value.shape}".encode() + value.tobytes() + b"\0").hexdigest()[:12]
    assert files.digest(value) == expected


def test_code_version_follows_what_is_computed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "toy"
    package.mkdir()
    (package / "__init__.py").write_text("")
    sources = {"one": '"""Doc."""\nX = 1  # why\n', "two": '"""Other words."""\n\n\nX = 1\n', "three": "X = 2\n"}
    for name, text in sources.items():
        (package / f"{name}.py").write_text(text)
    # The name of the module is part of the key, so its code is compared under one name.
    trees = {name: files.ast.dump(files._code(f"toy.{name}")) for name in sources}
    assert trees["one"].replace("Pass()", "", 1) == trees["two"].replace("Pass()", "", 1) != trees["three"]


def test_code_version_covers_what_is_imported(monkeypatch):
    before = files.code_version.__wrapped__("facegcn.lighting")
    inner = files.code_version.__wrapped__("facegcn.portraits.formation")
    code = files._code

    def changed(module):
        tree = code(module)
        if module == "facegcn.lighting":
            tree.body.append(files.ast.parse("EXTRA = 1").body[0])
        return tree

    monkeypatch.setattr(files, "_code", changed)
    assert files.code_version.__wrapped__("facegcn.lighting") != before
    assert files.code_version.__wrapped__("facegcn.portraits.formation") != inner, "it imports facegcn.lighting"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\\b", "a\nb", "a\tb", "a\0b", "\udcff.jpg",
                                  "n" * 201])
def test_names_that_leave_their_folder_or_are_no_text_are_refused(name):
    with pytest.raises(UserError, match="the photo"):
        files.check_name(name, "the photo")


@given(st.text(string.printable + "äß日本 é", max_size=60))
def test_a_name_that_passes_stays_in_its_folder(name):
    try:
        files.check_name(name)
    except UserError as error:
        str(error).encode("utf-8")  # the message itself can always be written
        return
    folder = os.path.abspath("folder")
    assert os.path.dirname(os.path.abspath(os.path.join(folder, name + ".png"))) == folder


@pytest.mark.parametrize("name", ["[" * 40_000, "a/" * 40_000, "\n" * 40_000])
def test_a_name_that_is_a_page_long_is_refused_in_a_line(name):
    with pytest.raises(UserError) as caught:
        files.check_name(name)
    assert len(str(caught.value)) < 300
