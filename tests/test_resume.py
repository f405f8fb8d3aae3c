"""--resume: a second start does what is missing, trusts nothing that is not whole, and says what it cannot do."""

import json
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from facegcn.errors import PhotoError
from facegcn.photos import reading
from facegcn.reconstruction import jobs, results
from facegcn.reconstruction.jobs import stamp
from facegcn.reconstruction.journal import Journal
from facegcn.reconstruction.reconstructor import _may_pass
from tests import test_reconstruction
from tests.conftest import ROOT
from tests.test_reconstruction import photos_in, reconstruct

flags = test_reconstruction.flags  # a fixture
NAMES = "abcde"


@pytest.fixture
def loaded(monkeypatch):
    """Stems of the photos that are loaded, as they are."""
    right, found = jobs.load_photo, []

    def load(path, *how):
        found.append(os.path.splitext(os.path.basename(path))[0])
        return right(path, *how)
    monkeypatch.setattr(jobs, "load_photo", load)
    return found


def test_a_second_start_does_what_is_missing(flags, tmp_path, capsys, monkeypatch, loaded):
    monkeypatch.setattr(results, "PAGE_ROWS", 2)
    monkeypatch.setattr("facegcn.reconstruction.journal.PAGE_ROWS", 2)
    photos, out = photos_in(tmp_path / "in", *(f"{name}.png" for name in NAMES)), tmp_path / "out"
    (photos / "z.png").write_bytes(b"no picture")
    assert reconstruct(flags, photos, tmp_path / "whole")[0] == 0
    wanted = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    with monkeypatch.context() as patch:
        right = test_reconstruction.files.write_bytes

        def killed(path, data):
            if path.endswith("d_fine.glb"):
                raise KeyboardInterrupt
            right(path, data)
        patch.setattr("facegcn.export.gltf.write_bytes", killed)
        assert reconstruct(flags, photos, out)[0] == 130
    with open(out / "results.jsonl", "a") as file:
        file.write('{"name": "d", "sta')  # cut short
    done = {line["name"] for line in map(json.loads, open(out / "results.jsonl").readlines()[:-1]) if "name" in line}
    assert {"a", "b", "c"} <= done and "d" not in done
    capsys.readouterr()

    def again(*more):
        loaded.clear()
        code, rows = reconstruct(flags, photos, out, "--resume", *more)
        found = json.loads((out / "metrics.json").read_text())
        assert code == 0 and list(rows) == [*NAMES, "z"] and "interrupted_before" not in found
        for name, row in rows.items():
            assert row == pytest.approx(wanted["photos"][name], nan_ok=True)
        assert len(list(out.glob("overview*.png"))) == 3 and (out / "report.html").read_text().count("<article") == 5
        return sorted(loaded)

    assert again() == sorted({*NAMES, "z"} - done), "what is whole stays"
    assert f"{len(done)} of 6 photos are done" in capsys.readouterr().out
    assert again() == [], "nothing is missing"

    os.truncate(out / "b_coarse.obj", 100)
    os.remove(out / "c_input.png")
    os.utime(photos / "e.png", (1, 1))
    assert again() == ["b", "c", "e"], "a cut or absent file, another photo"
    assert os.path.getsize(out / "b_coarse.obj") > 1000
    (photos / "z.png").unlink()
    cv2.imwrite(str(photos / "z.png"), np.zeros((9, 9, 3), np.uint8))
    loaded.clear()
    reconstruct(flags, photos, out, "--resume")
    assert loaded == ["z"], "a photo that could not be used is looked at again when it was changed"
    loaded.clear()
    assert reconstruct(flags, photos, out, "--resume", "--set", "detail=false")[0] == 2
    assert loaded == [] and "give the same flags as before" in capsys.readouterr().err
    reconstruct(flags, photos, out, "--resume")
    assert loaded == [], "nothing is lost by that"
    reconstruct(flags, photos, out, "--set", "detail=false")
    assert sorted(loaded) == [*NAMES, "z"], "without --resume all are made anew"


@pytest.mark.parametrize(("more", "words"), [
    (["--person"], "leave it out with --person"), ([], "leave it out without --input")])
def test_what_does_not_go_with_it_is_said_at_once(flags, tmp_path, capsys, more, words):
    given = ["--input", str(photos_in(tmp_path / "in", "a.png"))] if more else []
    assert test_reconstruction.main.main([*flags, *given, *more, "--resume", "--output", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("line", [
    "null", "[]", "{", '{"name": []}', '{"name": "a"}', "[" * 100_000, "\0\xff",
    '{"page": "1", "names": [[]], "files": {}}',
    '{"page": 0, "names": [[]], "files": {}}',
    '{"name": "a", "photo": 1, "status": "ok", "message": "", "metrics": {}, "files": {}}'])
def test_lines_that_make_no_sense_are_passed_over(tmp_path, line):
    (tmp_path / "a.png").write_bytes(b"1")
    (tmp_path / "results.jsonl").write_text(f'{{"key": "k"}}\n{line}\n', encoding="latin-1")
    path = str(tmp_path / "a.png")
    job = jobs.Job("a", None, path=path, stamp=stamp(path))
    journal = Journal(str(tmp_path), "k", [job], resume=True)
    assert not job.status and journal.pages == []
    job.status = "no face"
    journal.add(job)
    again = jobs.Job("a", None, path=path, stamp=stamp(path))
    Journal(str(tmp_path), "k", [again], resume=True)
    assert again.status == "no face" and not again.written


#: Test mode in which one photo ends the program as a crash in a decoder does, or a want of memory.
_DEADLY = """
import os, signal, sys
from facegcn.backends.start import tensorflow
tensorflow()
from facegcn.reconstruction import jobs
import main
right = jobs.load_photo

def load(path, *how):
    if os.path.basename(path) == "c.png" and os.path.getsize(path) == {size}:
        signal.raise_signal(signal.{end})  # in this thread
    return right(path, *how)
jobs.load_photo, jobs.dense_of_crop = load, lambda rgba, points=None: None
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["SIGSEGV", "SIGKILL"])
def test_a_photo_that_ends_the_program_costs_no_other(flags, tmp_path, end):
    photos, out = photos_in(tmp_path / "in", *(f"{name}.png" for name in "abcdefg")), tmp_path / "out"
    (photos / "d.png").write_bytes(b"no picture")
    code = _DEADLY.format(size=os.path.getsize(photos / "c.png"), end=end)
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONFAULTHANDLER"}

    def start(*more):
        done = subprocess.run([sys.executable, "-c", code, *flags, "--input", str(photos), "--output", str(out),
                               "--texture", "none", *more], cwd=ROOT, capture_output=True, text=True, env=surroundings)
        return -done.returncode, done.stdout + done.stderr

    def there():
        return {name for name in "abcdefg" if (out / f"{name}.npz").exists()}

    def rows():
        return json.loads((out / "metrics.json").read_text())["photos"]
    number = getattr(signal, end)
    assert start()[0] == number
    assert start("--resume")[0] == number and not there() & set("efg")
    if end == "SIGKILL":  # whoever sent it: only the second time is strange
        code_of, words = start("--resume")
        assert code_of == number and "come last" not in words
    code_of, words = start("--resume")
    assert code_of == number and "come last, one at a time" in words
    assert there() >= {"f", "g"} and rows().keys() >= {"f", "g"}, "what was not under way is done first, and told"
    code_of, words = start("--resume")
    if end == "SIGKILL":
        for _ in range(2):
            assert code_of == number and there() >= set("abfg"), "nobody is blamed for it"
            code_of, words = start("--resume")
    else:
        assert code_of == 0 and there() == set("abefg")
        assert rows()["c"]["status"] == "failed" and "without --resume it is tried again" in rows()["c"]["reason"]
        assert rows()["d"]["status"] == "unreadable" and rows()["e"]["status"] == "ok"
        assert start("--resume")[0] == 0, "and stays so"
    with open(photos / "c.png", "ab") as file:
        file.write(b"saved anew")
    assert start("--resume")[0] == 0 and there() == set("abcefg"), "until the photo is another"
    assert reconstruct(flags, photos, tmp_path / "fresh", "--texture", "none")[0] == 0
    assert list(rows()) == [*"abcdefg"]
    first, second = (cv2.imread(str(folder / "overview.png")) for folder in (out, tmp_path / "fresh"))
    assert first.shape == second.shape and np.abs(first.astype(int) - second).max() <= 2, "in the same order"


def test_only_what_was_begun_and_not_left_is_suspected(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    path = str(tmp_path / "a.png")
    begun = {"begun": "a", "photo": stamp(path), "alone": False}
    line = {"name": "a", "photo": stamp(path), "status": "failed", "message": "", "metrics": {}, "files": {"lost": 1}}
    alone, crash = {**begun, "alone": True}, "Fatal Python error: Segmentation fault"
    started, ended = {"started": True}, {"ended": True}
    for lines, suspect, status in [
            ([begun], False, ""), ([begun, started, begun], True, ""), ([begun, crash], True, ""),
            ([begun, started], False, ""), ([begun, crash, started, ended], True, ""),
            ([begun, started, ended, started, begun], True, ""), ([begun, ended, started, begun], False, ""),
            ([alone], False, ""), ([alone, started, alone], True, ""), ([begun, crash, started, alone], True, ""),
            ([alone, crash], False, "failed"), ([begun, crash, started, alone, crash, "Thread"], False, "failed"),
            ([begun, {"left": "a"}, crash], False, ""), ([begun, {"left": "b"}, crash], True, ""),
            ([begun, crash, started, alone, {"left": "a"}], False, ""), ([begun, ended, crash], False, ""),
            ([begun, line, crash], False, ""), ([line, begun, crash], True, ""),
            ([{**begun, "photo": []}, crash], False, ""), ([{**begun, "alone": 1}, crash], False, "")]:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in ({"key": "k"}, *lines)]
        (tmp_path / "results.jsonl").write_text("\n".join(texts))
        job = jobs.Job("a", None, path=path, stamp=stamp(path))
        Journal(str(tmp_path), "k", [job], resume=True)
        assert (job.suspect, job.status) == (suspect, status), lines


def test_a_stamp_changes_with_photo_and_points(tmp_path):
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"1")
    stamps = [stamp(str(photo))]
    for change in (lambda: photo.write_bytes(b"12"), lambda: (tmp_path / "a.txt").write_text("1 2"),
                   lambda: os.utime(photo, (5, 5)), lambda: (tmp_path / "a.lm68.txt").write_text("1 2")):
        change()
        stamps.append(stamp(str(photo)))
    assert all(one != other for i, one in enumerate(stamps) for other in stamps[:i])


def test_what_a_start_without_resume_has_not_made_anew_is_still_known(flags, tmp_path, capsys, monkeypatch, loaded):
    photos, out = photos_in(tmp_path / "in", *(f"{name}.png" for name in "abc")), tmp_path / "out"
    assert reconstruct(flags, photos, out)[0] == 0
    sheet = (out / "overview.png").read_bytes()
    assert reconstruct(flags, photos, out, "--texture", "2000")[0] == 2, "flags are tried before anything is lost"
    with monkeypatch.context() as patch:
        def stopped(self, batch):
            raise KeyboardInterrupt
        patch.setattr("facegcn.reconstruction.reconstructor.Reconstructor._reconstructed", stopped)
        capsys.readouterr()
        assert reconstruct(flags, photos, out)[0] == 130
        assert "3 photos of an earlier run" in capsys.readouterr().out
    loaded.clear()
    assert reconstruct(flags, photos, out, "--resume")[0] == 0 and loaded == []
    os.remove(out / "c.npz")
    assert reconstruct(flags, photos, out, "--resume")[0] == 0 and loaded == ["c"]
    assert (out / "overview.png").read_bytes() == sheet, "with the view from the side of those that were kept"
    cv2.imwrite(str(photos / "d.png"), cv2.imread(str(photos / "a.png")))
    cv2.imwrite(str(out / ".overview" / "b.png"), np.zeros((9, 9, 3), np.uint8))
    (out / ".overview" / "c.png").unlink()
    assert reconstruct(flags, photos, out, "--resume")[0] == 0 and loaded == ["c", "d"]
    assert [path.name for path in out.glob("overview*")] == ["overview.png"], "a page that is not full goes on"
    assert reconstruct(flags, photos, out, "--resume", "--face", "largest")[0] == 0, "the same in other words"
    assert loaded == ["c", "d"]


def test_a_start_that_makes_nothing_loses_nothing(flags, tmp_path, monkeypatch, loaded):
    photos, out = photos_in(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    assert reconstruct(flags, photos, out)[0] == 0
    there = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}

    def stopped(*_):
        raise KeyboardInterrupt
    for what, more in (("Reconstructor._reconstructed", ["--set", "detail=false"]),
                       ("Reconstructor._batches", ["--person"])):
        with monkeypatch.context() as patch:
            patch.setattr(f"facegcn.reconstruction.reconstructor.{what}", stopped)
            assert reconstruct(flags, photos, out, *more)[0] == 130
        assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == there
    loaded.clear()
    assert reconstruct(flags, photos, out, "--resume")[0] == 0 and loaded == []
    with monkeypatch.context() as patch:  # before the first of other results is on the disk
        patch.setattr("facegcn.reconstruction.face_files.FaceFiles.write", stopped)
        assert reconstruct(flags, photos, out, "--set", "detail=false")[0] == 130
    assert reconstruct(flags, photos, out, "--resume")[0] == 2, "what is there may be of either"
    loaded.clear()
    assert reconstruct(flags, photos, out, "--resume", "--set", "detail=false")[0] == 0
    assert sorted(loaded) == ["a", "b"]


def pages_of(folder, names, *lines):
    """Pages that a journal of such lines believes, photos (a name) and pages (a list of names) in order."""
    photos = {name: str(folder / f"{name}.png") for name in names}
    for path in photos.values():
        if not os.path.exists(path):
            cv2.imwrite(path, np.zeros((2, 2, 3), np.uint8))

    def line(of):
        if isinstance(of, list):
            return {"page": 0, "names": of, "files": {}}
        return {"name": of, "photo": stamp(photos[of]), "status": "ok", "message": "", "metrics": {},
                "files": {f"{of}.npz": 1}}
    for name in names:
        (folder / f"{name}.npz").write_bytes(b"1")
    (folder / "results.jsonl").write_text("\n".join(map(json.dumps, ({"key": "k"}, *map(line, lines)))))
    found = [jobs.Job(name, None, path=path, stamp=stamp(path)) for name, path in photos.items()]
    # What a start without --resume keeps of it must say the same.
    Journal(str(folder), "k", found).begin()
    journal = Journal(str(folder), "k", found, resume=True)
    assert all(job.written for job in found)
    return journal.pages


def test_a_photo_that_cannot_be_used_overwrites_nothing(flags, tmp_path, monkeypatch, loaded):
    photos, out = photos_in(tmp_path / "in", "b.png", "c.png"), tmp_path / "out"
    (photos / "a.png").write_bytes(b"no picture")
    assert reconstruct(flags, photos, out)[0] == 0
    with monkeypatch.context() as patch:
        def stopped(*_):
            raise KeyboardInterrupt
        patch.setattr("facegcn.reconstruction.reconstructor.Reconstructor._reconstructed", stopped)
        assert reconstruct(flags, photos, out, "--set", "detail=false")[0] == 130
    loaded.clear()
    assert reconstruct(flags, photos, out, "--resume")[0] == 0 and loaded == []
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no picture")
    assert reconstruct(flags, tmp_path / "bad", tmp_path / "none")[0] == 1
    loaded.clear()
    assert reconstruct(flags, tmp_path / "bad", tmp_path / "none", "--resume")[0] == 1 and loaded == []


def test_an_orderly_end_suspects_nobody_and_acquits_nobody(flags, tmp_path, monkeypatch, capsys):
    photos, out = photos_in(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    assert reconstruct(flags, photos, out)[0] == 0
    os.remove(out / "a.npz")

    def stopped(*_):
        raise KeyboardInterrupt
    for where in ("report_page.kept_faces", "reconstructor.Reconstructor._reconstructed"):
        with monkeypatch.context() as patch:
            patch.setattr(f"facegcn.reconstruction.{where}", stopped)
            assert reconstruct(flags, photos, out, "--resume")[0] == 130
    line = json.dumps({"begun": "a", "photo": stamp(str(photos / "a.png")), "alone": False})
    with open(out / "results.jsonl", "a") as file:
        file.write(f"{line}\nFatal Python error: Segmentation fault\n")
    capsys.readouterr()
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr("facegcn.reconstruction.reconstructor.Reconstructor._batches", stopped)
            assert reconstruct(flags, photos, out, "--resume")[0] == 130
        assert "1 photos were under way" in capsys.readouterr().out
    assert reconstruct(flags, photos, out, "--resume")[1]["a"]["status"] == "ok"


def test_a_page_is_believed_while_its_photos_are_what_it_shows(tmp_path):
    assert pages_of(tmp_path, "ab", "a", "b", ["a", "b"]) == [["a", "b"]]
    assert pages_of(tmp_path, "ab", "a", "b", ["a", "b"], "a") == [], "one was made anew"
    assert pages_of(tmp_path, "ab", "a", "b", ["a", "b"], "a", ["a", "b"]) == [["a", "b"]], "and then the page"
    assert pages_of(tmp_path, "ab", "a", ["a"], "b") == [], "there is more to come on a short page"


def test_a_start_that_writes_no_photo_by_photo_leaves_no_rows_of_one_that_did(flags, tmp_path):
    photos, out = photos_in(tmp_path / "in", "a.png"), tmp_path / "out"
    assert reconstruct(flags, photos, out)[0] == 0 and (out / ".overview" / "a.png").exists()
    results.forget_journal(str(out))
    assert not (out / ".overview").exists() and not (out / "results.jsonl").exists()


def test_strangers_among_the_kept_rows_cost_nothing(flags, tmp_path):
    photos, out = photos_in(tmp_path / "in", "a.png"), tmp_path / "out"
    (out / ".overview" / "@eaDir").mkdir(parents=True)
    assert reconstruct(flags, photos, out)[0] == 0 and (out / "report.html").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".overview").write_text("a file")
    code, rows = reconstruct(flags, photos, tmp_path / "other")
    assert code == 0 and rows["a"]["status"] == "ok"


def test_a_journal_that_is_none_is_named(flags, tmp_path, capsys):
    photos, out = photos_in(tmp_path / "in", "a.png"), tmp_path / "out"
    (out / "results.jsonl").mkdir(parents=True)
    assert reconstruct(flags, photos, out)[0] == 2
    assert "results.jsonl is a folder" in capsys.readouterr().err


def test_a_missing_package_may_come(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_openers", lambda: ("JPEG", "PNG"))
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    with pytest.raises(PhotoError, match="pip install pillow-heif") as caught:
        reading.read_photo(str(tmp_path / "a.heic"))
    assert _may_pass(caught.value)


@pytest.mark.parametrize(("error", "kept"), [(OSError(5, "Input/output error"), False), (MemoryError(), False),
                                             (OSError("image file is truncated"), True)])
def test_a_photo_that_the_system_refuses_once_is_tried_again(flags, tmp_path, monkeypatch, loaded, error, kept):
    photos, out = photos_in(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    with monkeypatch.context() as patch:
        right = jobs.load_photo

        def load(path, *how):
            if path.endswith("b.png"):
                with reading._damage_named(path):
                    raise error
            return right(path, *how)
        patch.setattr(jobs, "load_photo", load)
        assert reconstruct(flags, photos, out)[1]["b"]["status"] == "unreadable"
    loaded.clear()
    assert reconstruct(flags, photos, out, "--resume")[1]["b"]["status"] == ("unreadable" if kept else "ok")
    assert loaded == ([] if kept else ["b"])


def test_a_photo_that_changes_while_it_is_reconstructed_is_done_again(flags, tmp_path, monkeypatch, loaded):
    photos, out = photos_in(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    with monkeypatch.context() as patch:
        right = Journal.add

        def add(journal, job):
            os.utime(photos / "b.png", (1, 1))
            right(journal, job)
        patch.setattr(Journal, "add", add)
        assert reconstruct(flags, photos, out)[0] == 0
    loaded.clear()
    assert reconstruct(flags, photos, out, "--resume")[0] == 0 and loaded == ["b"]
