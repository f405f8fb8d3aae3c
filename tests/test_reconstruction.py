"""Test mode with photos of every kind of trouble: each is told of, and the others are written."""

import csv
import errno
import gc
import json
import os
import signal
import threading
import unicodedata
import weakref

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

import main
import model
from facegcn import files
from facegcn.config import Config
from facegcn.errors import PhotoError, UserError
from facegcn.face_model import FaceModel
from facegcn.fitting import CoefficientFitter
from facegcn.landmarks import write_points
from facegcn.photos.packed_photos import PackedPhotos
from facegcn.portraits.light_prior import light_prior
from facegcn.portraits.maker import PortraitMaker
from facegcn.reconstruction import evaluation, jobs, reconstructor, results
from facegcn.reconstruction.jobs import Job, PhotosAhead
from facegcn.reconstruction.results import ENDINGS, USUAL, result_names
from facegcn.report import CROP_TEXT, write_png
from model import build_face_model
from tests.faces import embedded, half_ellipsoid

SIZE = 64


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """Of test mode in a small world without anything trained."""
    folder = tmp_path_factory.mktemp("world")
    half_ellipsoid(25, 31).save(str(folder / "model.npz"))
    config = folder / "small.yaml"
    config.write_text(yaml.safe_dump({
        "model_file": "model.npz", "root_dir": str(folder), "runs_dir": str(folder / "runs"), "img_size": SIZE,
        "regressor_pixels": 32, "regressor_start": "", "test_batch_size": 2}))
    return ["--config", str(config), "--mode", "test"]


@pytest.fixture(autouse=True)
def no_networks(request, monkeypatch):
    """No network finds a face in ``segmented``, and each takes a tenth of a second to say so."""
    if "portraits" not in request.fixturenames:
        monkeypatch.setattr(jobs, "dense_of_crop", lambda rgba, points=None: None)


def segmented(shade=0):
    """An aligned crop with a skin mask."""
    rows, columns = np.indices((SIZE, SIZE))
    return np.stack([rows * 3, columns * 2 + 20 * shade, 255 - rows - columns,
                     255 * (np.hypot(rows - 32, columns - 32) < 22)], axis=-1).astype(np.uint8)


def photos_in(folder, *names):
    """A folder with such pictures."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        write_png(os.path.join(folder, os.fsdecode(name)), segmented(number), CROP_TEXT)
    return folder


def reconstruct(flags, photos, out, *more):
    """(exit code, rows of metrics.json by name)."""
    code = main.main([*flags, "--input", str(photos), "--output", str(out), *more])
    path = out / "metrics.json"
    return code, json.loads(path.read_text())["photos"] if path.exists() else {}


def table(out):
    with open(out / "metrics.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------- names
@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.text(max_size=300) | st.text("aA.é\u0301e-2/\\\n\udcff", max_size=6),
                          st.sampled_from(["", ".png", ".jpg", ".JPG"])), max_size=12))
@example([("x", ".jpg"), ("x", ".png"), ("x.jpg", ".png")])
@example([("a", ""), ("A", ""), ("a-2", ""), ("a", "")])
@example([("../../escape/evil", ""), ("..", ""), (".", ""), ("", "")])
@example([("é", ".png"), ("e\u0301", ".png"), ("ß", ""), ("ss", "")])
@example([("n" * 240, ".jpg"), ("n" * 240, ".png"), ("\U0001f600" * 60, "")])
def test_any_names_give_distinct_names_that_stay_in_the_folder(pairs):
    names = result_names(*zip(*pairs)) if pairs else result_names([])
    assert len(names) == len(pairs)
    found = [unicodedata.normalize("NFD", name).casefold() for name in names]
    assert len(set(found)) == len(names)
    for name in names:
        assert files.check_name(name) == name
        assert all(len(f"{name}{ending}".encode()) < 255 for ending in ENDINGS)
        assert os.path.dirname(os.path.normpath(os.path.join("out", name + ".npz"))) == "out"


def test_usual_names_stay_as_they_are():
    assert result_names(["b", "a.1", "a_fine", "é"], [".png"] * 4) == ["b", "a.1", "a_fine", "é"]
    assert result_names(["x", "x", "x.jpg"], [".jpg", ".png", ".png"]) == ["x.jpg", "x.png", "x.jpg.png"]


def test_no_ending_of_results_ends_another_so_names_never_share_a_file():
    assert not [(a, b) for a in ENDINGS for b in ENDINGS if a != b and a.endswith(b)]


# ---------------------------------------------------------------- one photo and the others
def test_unusual_photos_do_not_end_the_batch(flags, tmp_path, capsys, monkeypatch):
    photos = photos_in(tmp_path / "in", "good.png", b"not\xffutf8.png", "n" * 240 + ".png", "line\nbreak.png",
                       "=1+1.png", "mean.png")
    write_png(str(photos / "slim.png"), np.zeros((3000, 1, 3), np.uint8))
    (photos / "broken.jpg").write_bytes(b"no picture")
    gone = photos / "zgone.png"
    gone.write_bytes(b"")
    load = jobs.load_photo

    def unlinking(path, *how):
        gone.unlink(missing_ok=True)  # when the first photo is loaded
        return load(path, *how)

    monkeypatch.setattr(jobs, "load_photo", unlinking)
    code, rows = reconstruct(flags, photos, tmp_path / "out")
    assert code == 0 and len(rows) == 9
    written = [name for name, row in rows.items() if row["status"] == "ok"]
    assert {"good", "not_utf8", "line_break", "=1+1", "mean"} < set(written) and len(written) == 6
    for name in written:
        assert all((tmp_path / "out" / f"{name}{ending}").exists() for ending in USUAL)
    assert rows["broken"]["status"] == rows["zgone"]["status"] == "unreadable"
    assert rows["slim"]["status"] in ("failed", "no face", "unreadable") and rows["slim"]["reason"]
    assert "not\\udcffutf8.png" in rows["not_utf8"]["reason"] and "line\\nbreak.png" in rows["line_break"]["reason"]
    lines = table(tmp_path / "out")
    assert [line["kind"] for line in lines] == ["photo"] * 9 + ["mean of 6"]
    assert "'=1+1" in [line["photo"] for line in lines]
    said = capsys.readouterr()
    assert "6 of 9 written" in said.out and "zgone: " in said.err and "Traceback" not in said.err


def test_a_name_in_a_packed_file_cannot_leave_the_output_folder(tmp_path):
    names = ["../../escape/evil", "/tmp/evil", "a"]
    packed = PackedPhotos(str(tmp_path / "faces.bin"), names, {"test": np.arange(3)}, np.zeros((3, 73, 2)))
    found = jobs.packed_jobs(packed, packed.splits["test"], 10)
    assert [job.name for job in found] == [".._.._escape_evil", "_tmp_evil", "a"]
    assert "escape" in found[0].remark and not found[2].remark


@pytest.mark.parametrize(("where", "flag"), [("load_photo", []), ("_write", []), ("_write", ["--debug"])])
def test_a_photo_that_fails_unforeseen_is_one_photo(flags, tmp_path, capsys, monkeypatch, where, flag):
    photos = photos_in(tmp_path / "in", "a.png", "b.png", "c.png")
    owner = reconstructor.Reconstructor if where == "_write" else jobs
    right = getattr(owner, where)

    def failing(*arguments, **options):
        if any(getattr(a, "name", a) in ("b", str(photos / "b.png")) for a in arguments[:2] if not hasattr(a, "shape")):
            raise cv2.error("an assertion\nof OpenCV")
        return right(*arguments, **options)

    monkeypatch.setattr(owner, where, failing)
    code, rows = reconstruct(flags, photos, tmp_path / "out", *flag)
    assert code == 0 and {name: row["status"] for name, row in rows.items()} == {"a": "ok", "b": "failed", "c": "ok"}
    assert rows["b"]["reason"] == "error: an assertion of OpenCV" and "coarse_l1" not in rows["b"]
    said = capsys.readouterr().err
    assert ("Traceback" in said) == bool(flag) and "b: error: an assertion" in said


def test_a_batch_that_fails_as_a_whole_is_tried_photo_by_photo(flags, tmp_path, monkeypatch):
    photos = photos_in(tmp_path / "in", "a.png", "b.png", "c.png")
    right = FaceModel.reconstruct

    def failing(self, rgba, *arguments, **options):
        if np.isclose(np.asarray(rgba)[:, 0, 0, 1], 20 / 127.5 - 1).any():  # b
            raise ValueError("singular")
        return right(self, rgba, *arguments, **options)

    monkeypatch.setattr(FaceModel, "reconstruct", failing)
    code, rows = reconstruct(flags, photos, tmp_path / "out")
    assert code == 0 and {name: row["status"] for name, row in rows.items()} == {"a": "ok", "b": "failed", "c": "ok"}


def test_a_damaged_truth_costs_only_the_comparison(flags, tmp_path):
    photos = photos_in(tmp_path / "in", "a.png", "b.png", "c.png")
    face = half_ellipsoid(25, 31)
    truth = {"albedo": face.mean_albedo, "landmarks": np.full((68, 2), 30.0),
             "visible": np.arange(len(face.mean_albedo)) % 2 == 0}
    (photos / "truth").mkdir()
    for name in "abc":
        np.savez(photos / "truth" / f"{name}.npz", **truth)
    cut = photos / "truth" / "b.npz"
    cut.write_bytes(cut.read_bytes()[:-300])
    np.savez(photos / "truth" / "c.npz", **truth | {"albedo": truth["albedo"][:-1]})
    code, rows = reconstruct(flags, photos, tmp_path / "out")
    assert code == 0 and all(row["status"] == "ok" and "fine_l1" in row for row in rows.values())
    assert ["landmark_error" in rows[name] for name in "abc"] == [True, False, False]
    assert "b.npz" in rows["b"]["reason"] and "another face model" in rows["c"]["reason"]


def test_metrics_are_those_of_the_overlays_that_are_written(flags, tmp_path):
    """With half of the face outside the skin mask, where the overlay is the photo, also inside SSIM's window."""
    picture = segmented()
    picture[:, :32, 3] = 0
    (tmp_path / "in").mkdir()
    write_png(str(tmp_path / "in" / "a.png"), picture, CROP_TEXT)
    _, rows = reconstruct(flags, tmp_path / "in", tmp_path / "out")

    def read(ending):
        return cv2.imread(str(tmp_path / "out" / f"a_{ending}.png"), cv2.IMREAD_UNCHANGED)
    photo, mask = read("input") / 255, read("mask") == 255
    np.testing.assert_array_equal(mask, picture[..., 3] == 255)
    for kind in ("coarse", "fine"):
        render, overlay = read(kind), read(f"{kind}_overlay") / 255
        inside = mask & (render[..., 3] == 255)
        np.testing.assert_array_equal(overlay[~inside], photo[~inside])
        assert (render[~mask][:, 3] == 255).any(), "the render reaches beyond the mask"
        for name, value in evaluation.image_metrics(overlay, photo, inside).items():
            rounding = {"psnr": 100.0 if value > 45 else 0.0, "l1": 0.5 / 255}.get(name, 0.0)  # of the files' 8 bits
            assert rows["a"][f"{kind}_{name}"] == pytest.approx(value, rel=0.01, abs=rounding)


@pytest.fixture(scope="module")
def portraits(flags, tmp_path_factory):
    """A folder with two portraits of the world's model; points lie beside the first."""
    folder = tmp_path_factory.mktemp("portraits")
    maker = PortraitMaker(half_ellipsoid(25, 31), SIZE, seed=1)
    for number, name in enumerate("ab"):
        portrait = maker.make(number)
        write_png(str(folder / f"{name}.png"), portrait.rgba, CROP_TEXT)
        if not number:
            write_points(str(folder / f"{name}.txt"), portrait.landmarks)
    return folder


def test_metrics_tell_how_well_the_fit_explains_each_photo(flags, portraits, tmp_path):
    assert not {"landmark_residual", "unexplained", "skin_seen"} & set(
        reconstruct(flags, portraits, tmp_path / "plain")[1]["a"])
    embedded(half_ellipsoid(25, 31)).save(str(tmp_path / "model.npz"))
    code, rows = reconstruct(flags, portraits, tmp_path / "out", "--set", "fit=true",
                             "--set", f"model_file={tmp_path / 'model.npz'}")
    assert code == 0
    assert 0.0 < rows["a"]["landmark_residual"] < 3.0, "pixels of a crop 224 wide"
    assert rows["b"]["landmark_residual"] is None, "nobody knows its landmarks"
    assert all(0.0 <= row["unexplained"] <= 1.0 and 0.2 < row["skin_seen"] < 1.0 for row in rows.values())
    assert rows["a"]["unexplained"] < 0.3
    first = table(tmp_path / "out")[0]
    assert float(first["unexplained"]) == pytest.approx(rows["a"]["unexplained"])


def test_the_detail_step_brings_the_fine_face_nearer_to_the_photo(flags, portraits, tmp_path):
    found = [reconstruct(flags, portraits, tmp_path / detail, "--set", f"detail={detail}")[1]
             for detail in ("false", "true")]
    for name in "ab":
        assert found[1][name]["fine_l1"] < 0.7 * found[0][name]["fine_l1"]
        assert found[1][name]["coarse_l1"] == found[0][name]["coarse_l1"]
        arrays = [np.load(tmp_path / detail / f"{name}.npz") for detail in ("false", "true")]
        albedo, color = ([np.array(part[key]) for part in arrays] for key in ("fine_texture", "fine_color"))
        assert np.abs(albedo[1] - albedo[0]).max() > 0.02 and np.abs(albedo[1]).max() <= 1.0
        assert np.abs(color[1]).max() <= 1.0 and (color[1] != color[0]).any()
        render = cv2.imread(str(tmp_path / "true" / f"{name}_fine.png"), cv2.IMREAD_UNCHANGED)
        photo = cv2.imread(str(tmp_path / "true" / f"{name}_input.png"))
        inside = (render[..., 3] == 255) & (cv2.imread(str(tmp_path / "true" / f"{name}_mask.png"), 0) == 255)
        off = np.abs(render[..., :3].astype(float) - photo)[inside].mean() / 255
        measured = found[1][name]["fine_l1"]
        assert off == pytest.approx(measured, rel=0.02, abs=0.1 / 255), "the picture is drawn of the new colours"


@pytest.mark.parametrize("fit", [True, False])
def test_an_estimated_mask_loses_what_the_fitted_face_cannot_explain(flags, portraits, tmp_path, monkeypatch, fit):
    """A given mask stays; so does an estimated one of which nothing would be left."""
    cut = {"estimated": lambda mask: mask * (np.arange(SIZE) < SIZE // 2), "lost": lambda mask: 0 * mask}
    asked = []

    def refine(rgba, render, coverage, dense=None):
        asked.append((render.dtype, render.shape, coverage.shape))
        return cut["estimated" if len(asked) == 1 else "lost"](rgba[..., 3])

    monkeypatch.setattr(reconstructor, "refine_mask", refine)
    morphable = embedded(half_ellipsoid(25, 31))
    config = Config(img_size=SIZE, regressor_pixels=32, root_dir=str(tmp_path))
    face_model = build_face_model(config, morphable, with_texture=False)
    fitter = CoefficientFitter(morphable, light_prior(morphable, 64)) if fit else None
    photos = {name: jobs.photo_jobs([str(portraits / f"{file}.png")], morphable, SIZE)[0].load()._replace(
        estimated=name != "given") for name, file in (("estimated", "a"), ("lost", "b"), ("given", "a"))}
    whole = {name: photo.rgba.copy() for name, photo in photos.items()}
    rows = reconstructor.Reconstructor(face_model, str(tmp_path / "out"), fitter).run(
        PhotosAhead([Job(name, lambda photo=photo: photo) for name, photo in photos.items()], 3))
    assert all(row["status"] == "ok" for row in rows.values()), rows
    assert asked == [(np.uint8, (SIZE, SIZE, 3), (SIZE, SIZE))] * 2 * fit
    for name, rgba in whole.items():
        wanted = cut["estimated"](rgba[..., 3]) if fit and name == "estimated" else rgba[..., 3]
        mask = cv2.imread(str(tmp_path / "out" / f"{name}_mask.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(mask > 127, wanted > 127)
        with np.load(tmp_path / "out" / f"{name}.npz") as arrays:
            seen = arrays["landmarks"][arrays["visible"][morphable.landmarks] > 0]
        assert (seen[:, 0].max() < SIZE // 2) == (fit and name == "estimated"), "colours are taken inside the mask only"


# ---------------------------------------------------------------- the end of a run
def test_the_summary_of_ten_thousand_photos_is_short(tmp_path, caplog):
    jobs = [Job(f"p{number}", lambda: None, status="unreadable", message="cut short") for number in range(10_000)]
    rows = {job.name: {"status": job.status, "reason": job.message} for job in jobs}
    with caplog.at_level("INFO", "facegcn"):
        results.log_summary(rows, jobs, str(tmp_path), results.Overview(str(tmp_path), ()))
    lines = caplog.text.splitlines()
    assert len(lines) < 120 and any("9950 more reasons in metrics.csv" in line for line in lines)
    assert "none of the 10000 photos could be used" in lines[-1]


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(errno.ENOSPC, "No space left"), 2)])
def test_what_was_written_before_the_end_has_its_metrics(flags, tmp_path, capsys, monkeypatch, error, code):
    photos = photos_in(tmp_path / "in", *(f"{name}.png" for name in "abcdef"))
    right = files.write_bytes

    def ending(path, data):
        if path.endswith("d_fine.glb"):
            raise error
        right(path, data)

    monkeypatch.setattr("facegcn.export.gltf.write_bytes", ending)
    found, rows = reconstruct(flags, photos, tmp_path / "out")
    assert found == code and [name for name, row in rows.items() if row["status"] == "ok"] == ["a", "b", "c"]
    assert set(rows) <= {"a", "b", "c", "d"} and len(table(tmp_path / "out")) == len(rows) + 1
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["interrupted_before"] == 6 - len(rows)
    assert "3 of 6 photos were written" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob(".partial*"))


def test_photos_are_read_batch_by_batch_and_let_go(flags, tmp_path, monkeypatch):
    photos = photos_in(tmp_path / "in", *(f"{number:02d}.png" for number in range(20)))
    alive, most = [], []
    right = jobs.load_photo

    def counted(*arguments):
        photo = right(*arguments)
        gc.collect()
        alive.append(weakref.ref(photo.rgba))
        most.append(sum(reference() is not None for reference in alive))
        return photo

    monkeypatch.setattr(jobs, "load_photo", counted)
    assert reconstruct(flags, photos, tmp_path / "out")[0] == 0
    assert len(most) == 20 and max(most) <= 8, "the batch that is written, the one in hand, and two ahead"


def test_arrays_are_read_as_they_were_given(tmp_path, monkeypatch):
    arrays = {"points": np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32), "size": np.int32(224),
              "none": np.zeros((0, 3)), "turned": np.arange(6).reshape(2, 3).T}
    path = tmp_path / "a.npz"
    results.write_arrays(str(path), arrays)
    found = files.read_npz(str(path))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.asarray(array).dtype
    former = path.read_bytes()

    def full(*_, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="a.npz") as caught:
        results.write_arrays(str(path), arrays)
    assert caught.value.errno == errno.ENOSPC and path.read_bytes() == former and len(os.listdir(tmp_path)) == 1


# ---------------------------------------------------------------- the threads
def ours():
    """Names of threads that test mode has begun and not ended."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("facegcn-photos",
                                                                                       "facegcn-files"))]


def test_photos_are_loaded_and_results_written_while_the_networks_work(flags, tmp_path, monkeypatch):
    photos = photos_in(tmp_path / "in", *(f"{name}.png" for name in "abcdef"))
    happened = {name: threading.Event() for name in ("d loaded", "b written", "second batch", "third batch")}
    load, write, regress = jobs.load_photo, reconstructor.Reconstructor._write, FaceModel.regress
    batches = iter(("first batch", "second batch", "third batch"))

    def loading(path, *how):
        photo = load(path, *how)
        if path.endswith("d.png"):
            happened["d loaded"].set()
        return photo

    def regressing(self, rgba):
        batch = next(batches)
        assert threading.current_thread() is threading.main_thread()
        assert batch != "first batch" or happened["d loaded"].wait(60), "the second batch is loaded meanwhile"
        if batch in happened:
            happened[batch].set()
        assert batch != "third batch" or happened["b written"].is_set(), "one batch at a time waits to be written"
        return regress(self, rgba)

    def writing(self, job, *rest):
        assert job.name not in "ab" or happened["second batch"].wait(60), "written while the second is in hand"
        row = write(self, job, *rest)
        if job.name == "b":
            happened["b written"].set()
        return row

    monkeypatch.setattr(jobs, "load_photo", loading)
    monkeypatch.setattr(FaceModel, "regress", regressing)
    monkeypatch.setattr(reconstructor.Reconstructor, "_write", writing)
    code, rows = reconstruct(flags, photos, tmp_path / "out")
    assert code == 0 and {name: row["status"] for name, row in rows.items()} == dict.fromkeys("abcdef", "ok")
    assert not ours()


def test_rows_keep_the_order_of_the_photos_whatever_fails_where(flags, tmp_path, monkeypatch):
    photos = photos_in(tmp_path / "in", *(f"{name}.png" for name in "abcdefgh"))
    load, write, sheets, bars = jobs.load_photo, reconstructor.Reconstructor._write, [], {}

    class Bar(reconstructor.tqdm):
        def update(self, n=1):
            super().update(n)
            bars.setdefault(self.desc, []).append(self.n)

    def loading(path, *how):
        if path.endswith("c.png"):
            raise PhotoError("nobody is there", "no face")
        if path.endswith("e.png"):
            raise OSError(errno.EIO, "Input/output error")
        return load(path, *how)

    def writing(self, job, *rest):
        if job.name == "b":
            raise ValueError("not finite")
        return write(self, job, *rest)

    monkeypatch.setattr(jobs, "load_photo", loading)
    monkeypatch.setattr(reconstructor.Reconstructor, "_write", writing)
    monkeypatch.setattr(results, "contact_sheet", lambda rows, labels, *rest, **options: sheets.append(labels))
    monkeypatch.setattr(reconstructor, "tqdm", Bar)
    code, rows = reconstruct(flags, photos, tmp_path / "out")
    states = {"b": "failed", "c": "no face", "e": "failed"}
    assert code == 0 and [(name, row["status"]) for name, row in rows.items()] == [
        (name, states.get(name, "ok")) for name in "abcdefgh"]
    assert sheets == [["a", "d", "f", "g", "h"]]
    assert bars["reconstructing"] == sorted(bars["reconstructing"]) and bars["reconstructing"][-1] == 8
    assert [line["photo"] for line in table(tmp_path / "out")[:-1]] == list(rows)
    assert "nobody is there" in rows["c"]["reason"] and "Input/output" in rows["e"]["reason"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_both_threads_and_keeps_what_was_written(flags, tmp_path, capsys, monkeypatch, number, code):
    photos = photos_in(tmp_path / "in", *(f"{number:02d}.png" for number in range(20)))
    regress, write, load = FaceModel.regress, reconstructor.Reconstructor._write, jobs.load_photo
    begun, asked, loaded = threading.Event(), threading.Event(), []

    def loading(path, *how):
        loaded.append(path)
        return load(path, *how)

    def regressing(self, rgba):
        if begun.wait(0.0 if not regressed else 60):  # the second batch, while the first is written
            asked.set()
            signal.raise_signal(number)
        regressed.append(len(rgba))
        return regress(self, rgba)

    def writing(self, job, *rest):
        begun.set()
        assert asked.wait(60)
        return write(self, job, *rest)

    regressed = []
    monkeypatch.setattr(jobs, "load_photo", loading)
    monkeypatch.setattr(FaceModel, "regress", regressing)
    monkeypatch.setattr(reconstructor.Reconstructor, "_write", writing)
    found, rows = reconstruct(flags, photos, tmp_path / "out")
    assert found == code and regressed == [2] and not ours()
    assert "00" in rows and set(rows) <= {"00", "01"} and all(row["status"] == "ok" for row in rows.values())
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["interrupted_before"] == 20 - len(rows)
    assert len(loaded) < 12 and not list((tmp_path / "out").glob(".partial*"))
    assert f"{len(rows)} of 20 photos were written" in capsys.readouterr().err


def test_what_ends_the_program_before_the_first_batch_ends_the_reading(flags, tmp_path, capsys, monkeypatch):
    photos = photos_in(tmp_path / "in", *(f"{number:02d}.png" for number in range(20)))
    load, loaded = jobs.load_photo, []

    def loading(path, *how):
        loaded.append(path)
        return load(path, *how)

    def refusing(*_):
        raise UserError("the weights do not fit")

    monkeypatch.setattr(jobs, "load_photo", loading)
    monkeypatch.setattr(model, "load_trained", refusing)
    assert reconstruct(flags, photos, tmp_path / "out") == (2, {})
    assert len(loaded) <= 4 and not ours() and "the weights do not fit" in capsys.readouterr().err


def test_the_overview_has_pages_and_says_how_many_photos(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "PAGE_ROWS", 3)
    picture = np.zeros((8, 8, 3), np.uint8)

    def made(count):
        overview = results.Overview(str(tmp_path), ("photo",))
        for number in range(count):
            overview.add(f"p{number}", [picture])
        overview.finish()
        return sorted(path.name for path in tmp_path.iterdir()), overview.words()

    assert made(8)[0] == ["overview-2.png", "overview-3.png", "overview.png"]
    assert "overview.png to overview-3.png (8 photos)" in made(8)[1]
    (tmp_path / "overview-mine.png").write_bytes(b"")
    names, words = made(2)
    assert names == ["overview-mine.png", "overview.png"] and words.endswith("overview.png (2 photos)")


# ---------------------------------------------------------------- the folders
@pytest.mark.parametrize(("given", "words"), [
    (["--input", ""], "--input ''"), (["--input", "photos", "--output", ""], "--output ''"),
    (["--input", "photos", "--output", "photos"], "is the folder of the photos"),
    (["--input", "photos", "--output", "photos/../photos/"], "is the folder of the photos"),
    (["--input", "photos", "--output", "link"], "is the folder of the photos"),
    (["--input", "photos/a.png", "--output", "photos"], "is the folder of the photos"),
    (["--input", "photos", "--output", "file"], "no results can be written there"),
    (["--input", "photos", "--output", "file/below"], "no results can be written there"),
    (["--input", "photos", "--output", "/proc/x"], "no results can be written there")])
def test_folders_that_cannot_be_used_are_noticed_before_any_photo_is_read(flags, tmp_path, capsys, monkeypatch, given,
                                                                          words):
    photos_in(tmp_path / "photos", "a.png")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("facegcn.assets.worlds.load_morphable", None)  # not even the model
    assert main.main([*flags, *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error
    assert sorted(os.listdir(tmp_path / "photos")) == ["a.png"]


def test_a_full_or_read_only_disk_is_noticed_at_once(tmp_path, monkeypatch):
    for number in (errno.ENOSPC, errno.EROFS):
        def refuse(path, data, number=number):
            raise OSError(number, os.strerror(number), path)
        monkeypatch.setattr(results, "write_bytes", refuse)
        with pytest.raises(UserError, match=os.strerror(number)):
            results.prepare_output(str(tmp_path / "out"))
    monkeypatch.undo()
    results.prepare_output(str(tmp_path / "out"))
    assert not os.listdir(tmp_path / "out"), "the trial leaves nothing"


def test_files_of_an_earlier_run_are_mentioned_and_are_no_photos(flags, tmp_path, capsys):
    out = tmp_path / "out"
    assert reconstruct(flags, photos_in(tmp_path / "first", "a.png", "b.png"), out)[0] == 0
    assert "earlier run" not in capsys.readouterr().err
    assert reconstruct(flags, photos_in(tmp_path / "second", "b.png", "a_fine.png"), out)[0] == 0
    said = capsys.readouterr().err
    assert f"{len(USUAL)} files of an earlier run are left in" in said and "of photos a\n" in said
    photos_in(out, "new.png", "new_input.png")
    code, rows = reconstruct(flags, out, tmp_path / "third")
    assert code == 0 and set(rows) == {"new", "new_input"}
    assert "34 pictures in" in capsys.readouterr().err


def test_a_folder_of_nothing_but_results_is_refused(flags, tmp_path, capsys):
    out = tmp_path / "out"
    assert reconstruct(flags, photos_in(tmp_path / "in", "a.png"), out)[0] == 0
    assert reconstruct(flags, out, tmp_path / "again")[0] == 2
    assert "are results of test mode" in capsys.readouterr().err


def test_own_crops_are_taken_as_they_are_when_told_so(flags, tmp_path):
    """A picture that does not say that it is a crop is one under --segmented only, and must then look like one."""
    photos = tmp_path / "photos"
    photos.mkdir()
    write_png(str(photos / "mine.png"), segmented())  # no text chunk: another program's crop
    write_png(str(photos / "opaque.png"), segmented()[..., :3])
    write_png(str(photos / "large.png"), np.repeat(segmented(), 2, axis=0))
    empty = segmented()
    empty[..., 3] = 0
    write_png(str(photos / "empty.png"), empty)
    code, rows = reconstruct(flags, photos, tmp_path / "out", "--segmented")
    assert code == 0 and rows["mine"]["status"] == "ok"
    for name, words in (("opaque", "no alpha"), ("large", "64 x 128"), ("empty", "transparent everywhere")):
        assert rows[name]["status"] == "no crop" and words in rows[name]["reason"]
    taken = cv2.imread(str(tmp_path / "out" / "mine_mask.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(taken, segmented()[..., 3])
    code, rows = reconstruct(flags, photos, tmp_path / "other")
    assert code == 1 and rows["mine"]["status"] == "no face"
