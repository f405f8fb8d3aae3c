"""The page: what it does with a photo; then in a real browser, where gradio, playwright and Chromium are here."""

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from unittest.mock import MagicMock, call

import numpy as np
import pytest
import skimage.data
import skimage.io
import yaml

from facegcn.app import __main__ as program
from facegcn.app import page, workshop
from facegcn.assets import regressor_errors
from facegcn.errors import UserError
from tests.conftest import ROOT
from tests.faces import embedded, half_ellipsoid

WAIT = 240_000  # milliseconds: a loaded machine, and everything compiled for the first time


@pytest.fixture
def small_world(tmp_path, monkeypatch):
    """The page's only face model is a small one."""
    embedded(half_ellipsoid(25, 31, (6, 4, 5))).save(str(tmp_path / "data" / "model.npz"))
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({
        "root_dir": str(tmp_path / "data"), "runs_dir": str(tmp_path / "runs"), "model_file": "model.npz", "fit": True,
        "img_size": 64, "regressor_pixels": 32, "regressor_start": ""}))
    monkeypatch.setattr(workshop, "_config", lambda world: str(path))
    monkeypatch.setattr(workshop, "worlds", lambda: ["small"])
    monkeypatch.setattr(workshop, "TEXTURES", (256, 512))
    monkeypatch.setattr(regressor_errors, "COUNT", 16)


@pytest.fixture
def astronaut(tmp_path) -> str:
    path = tmp_path / "me & you.png"
    skimage.io.imsave(path, skimage.data.astronaut())
    return str(path)


def test_a_photo_becomes_files_and_a_zip(small_world, astronaut, tmp_path):
    (tmp_path / "served").mkdir()
    work, steps = workshop.Workshop(str(tmp_path / "served")), []
    found = work(astronaut, "small", 256, True, True, lambda share, text: steps.append(share))
    assert steps == sorted(steps) and 0 < steps[0] < steps[-1] < 1
    assert found.words.startswith("Done: 775 vertices, textures of 256 texels")
    paths = [path for path, _ in found.pictures] + list(found.models.values()) + [found.archive]
    assert all(os.path.getsize(path) > 100 and path.startswith(str(tmp_path / "served")) for path in paths)
    with zipfile.ZipFile(found.archive) as archive:
        names = archive.namelist()
        assert archive.testzip() is None
    stem = os.path.basename(found.archive).removesuffix(".zip")
    assert {f"{stem}_albedo.glb", f"{stem}_views.png", f"{stem}.npz"} <= set(names)
    loaded = work._reconstruction
    again = work(astronaut, "small", 512, False, True, lambda share, text: None)
    assert work._reconstruction is loaded and "512 texels" in again.words and again.archive != found.archive
    assert not any(path.endswith("_views.png") for path, _ in again.pictures)


def test_a_photo_without_a_face_has_a_reason_and_no_folders_name(small_world, tmp_path):
    path = tmp_path / "blank.png"
    skimage.io.imsave(path, np.full((120, 160, 3), 200, np.uint8), check_contrast=False)
    (tmp_path / "served").mkdir()
    work = workshop.Workshop(str(tmp_path / "served"))
    with pytest.raises(UserError, match="^blank.png: no face was found$"):
        work(str(path), "small", 256, False, True, lambda share, text: None)
    for world, texture in (("../../etc", 256), ("small", 999)):
        with pytest.raises(UserError, match="there is no face model"):
            work(str(path), world, texture, False, True, lambda share, text: None)
    assert os.listdir(tmp_path / "served") == []


def test_the_demo_world_is_always_there():
    assert workshop.worlds()[-1] == "demo"


def test_without_gradio_one_message(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert program.main(["--port", "0"]) == 2
    assert "error: the page needs gradio, which is not installed here: pip install gradio" in capsys.readouterr().err


# ---------------------------------------------------------------- with a stand-in for gradio
def refused(photo, *_):
    raise UserError("no face was found")


def broken(photo, *_):
    raise ZeroDivisionError("a secret")


def done(photo, world, texture, views, rig, progress):
    progress(0.5, "half")
    return workshop.Result([("a.png", "A")], {"albedo": "plain.glb", "lit": "lit.glb"}, "all.zip",
                           f"Done: {world} {texture} {views} {rig}")


@pytest.mark.parametrize("work, photo, words", [
    (done, "me.png", "Done: demo 2048 False True"), (done, None, "No photo yet"),
    (refused, "me.png", "cannot be used:** no face was found"), (broken, "me.png", "not by your mistake")])
def test_the_page_shows_what_became_of_a_photo(work, photo, words, caplog):
    gradio, progress = MagicMock(), MagicMock()
    assert page.build(gradio, work) is gradio.Blocks.return_value.__enter__.return_value.queue.return_value
    reconstruct = gradio.Button.return_value.click.return_value.then.call_args.args[0]
    gradio.DownloadButton.reset_mock()
    said, _, model, pictures, models = reconstruct(photo, "demo", 2048, False, True, "in the photo's light", progress)
    assert words in said and "secret" not in said and ("secret" in caplog.text) == (work is broken)
    good = words.startswith("Done")
    gradio.DownloadButton.assert_called_once_with(value="all.zip" if good else None, interactive=good)
    assert (model, pictures, len(models)) == (("lit.glb", [("a.png", "A")], 2) if good else (None, [], 0))
    assert progress.call_args_list == ([call(0.5, desc="half")] if good else [])
    change = gradio.Radio.return_value.change.call_args.args[0]
    assert change("without light", models) == ("plain.glb" if good else None)


@pytest.mark.parametrize("space, host", [(False, "127.0.0.1"), (True, "0.0.0.0")])
def test_the_page_stays_at_home_and_ends_when_it_is_stopped(monkeypatch, capsys, space, host):
    blocks = MagicMock()
    blocks.launch.return_value = (None, "http://127.0.0.1:7/", None)
    environment = {key: value for key, value in os.environ.items() if key != "SPACE_ID"}
    monkeypatch.setattr(os, "environ", {**environment, **({"SPACE_ID": "me/face"} if space else {})})
    monkeypatch.setitem(sys.modules, "gradio", MagicMock())
    monkeypatch.setattr(page, "build", lambda *_: blocks)
    monkeypatch.setattr(program.time, "sleep", MagicMock(side_effect=KeyboardInterrupt))
    assert program.main(["--port", "0"]) == 130
    given = blocks.launch.call_args.kwargs
    assert given["server_name"] == host and given["server_port"] > 0 and not given["share"]
    assert given["max_file_size"] == page.UPLOAD_LIMIT and str(ROOT) in map(str, given["blocked_paths"])
    blocks.close.assert_called_once()
    assert not os.path.exists(os.environ["GRADIO_TEMP_DIR"]) and "http://127.0.0.1:7/" in capsys.readouterr().out
    blocks.launch.side_effect = OSError("in use")
    assert program.main(["--port", "7"]) == 2 and "cannot use port 7: in use" in capsys.readouterr().err


# ---------------------------------------------------------------- with gradio
@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Address of a page, started by its path from another folder; the folder of its temporary files."""
    pytest.importorskip("gradio", reason="needs pip install gradio")
    temporary = tmp_path_factory.mktemp("temporary")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "SPACE_ID")}
    environment.update(TMPDIR=str(temporary), PYTHONUNBUFFERED="1")
    script = str(ROOT / "facegcn" / "app" / "__main__.py")
    process = subprocess.Popen([sys.executable, script, "--port", "0"], cwd=temporary, env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        line = process.stdout.readline()
        yield re.search(r"http://127\.0\.0\.1:\d+/", line)[0], temporary
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert not list(temporary.glob("facegcn-page-*")), "uploads and results are removed"


def status(request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def upload(address, name, size):
    body = (b'--x\r\nContent-Disposition: form-data; name="files"; filename="' + name.encode()
            + b'"\r\nContent-Type: image/png\r\n\r\n' + bytes(size) + b"\r\n--x--\r\n")
    return urllib.request.Request(f"{address}gradio_api/upload", body,
                                  {"Content-Type": "multipart/form-data; boundary=x"})


def test_no_file_outside_its_folder_is_served(served):
    address, temporary = served
    assert status(address) == 200
    (temporary / "secret.txt").write_text("secret")
    folder, = temporary.glob("facegcn-page-*")
    beside = [str(temporary / "secret.txt"), f"{folder}/../secret.txt", f"{folder}/%2e%2e/secret.txt", "/etc/passwd",
              "../../../../etc/passwd", "..%2f..%2f..%2fetc/passwd", str(ROOT / "README.md"), "secret.txt",
              "file:///etc/passwd", "http://127.0.0.1:1/"]
    for path in beside:
        for route in ("gradio_api/file=", "file="):
            assert status(f"{address}{route}{path}") in (400, 403, 404), path
    (folder / "own.txt").write_text("result")
    assert status(f"{address}gradio_api/file={folder}/own.txt") == 200


def test_uploads_have_a_limit(served):
    address, temporary = served
    assert status(upload(address, "small.png", 1000)) == 200
    assert status(upload(address, "large.png", (20 << 20) + 1000)) == 413
    assert status(upload(address, "../../escaped.png", 1000)) in (200, 400, 403)
    assert not list(temporary.glob("escaped.png")) and not (temporary.parent / "escaped.png").exists()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs the program chromium")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=[
            "--no-sandbox", "--use-gl=swiftshader", "--enable-unsafe-swiftshader"])
        yield opened
        opened.close()


def test_a_photo_in_the_browser(served, browser, astronaut, tmp_path):
    address, _ = served
    blank = tmp_path / "blank.png"
    skimage.io.imsave(blank, np.full((120, 160, 3), 200, np.uint8), check_contrast=False)
    page, outside = browser.new_page(viewport={"width": 1280, "height": 1000}), []
    page.set_default_timeout(WAIT)
    page.on("request", lambda request: outside.append(request.url))

    def send(path, expected):
        page.goto(address)
        page.set_input_files("#photo input[type=file]", path)
        page.wait_for_selector("#photo table")
        page.click("#start")
        page.wait_for_function("text => document.querySelector('#words').innerText.includes(text)", arg=expected)

    send(str(blank), "This photo cannot be used: blank.png: no face was found")
    assert "Traceback" not in page.content()
    send(astronaut, "Done:")
    page.wait_for_selector("#model canvas")
    assert page.locator("#pictures img").count() >= 5
    with page.expect_download() as download:
        page.click("#archive")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None and any(name.endswith("_lit.glb") for name in archive.namelist())
    before = page.locator("#model").screenshot()
    page.click("text=in the photo's light")
    page.wait_for_timeout(5000)
    assert page.locator("#model").screenshot() != before
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400, "a phone's width is enough"
    assert [url for url in outside if not url.startswith((address, "blob:", "data:"))] == [], "nothing from elsewhere"
    page.close()
