"""report.html in a headless Chromium: drawn, turned, lit, animated; by mouse, keys and on a phone's width."""

import base64
import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from facegcn import geometry, lighting
from facegcn.reconstruction.report_page import write_report
from tests.chromium import Chromium, found_or_skip
from tests.results_folder import SIZE, face, model, shading, write_results

WICKED = "<img src=x onerror=document.title='hit'>\"'"
FIRST = 3000  # milliseconds until the first face is drawn
TRIES = 6  # of a time, on a machine that others use
CANVAS = "document.querySelector('#photo-0 canvas')"
BOX = "document.querySelector('#photo-0 .view')"


@pytest.fixture(scope="module")
def made():
    return model()


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_results(folder, made, ["me", WICKED, "torn"], {"dark": f"no face in {WICKED}"})
    (folder / "torn.npz").write_bytes(b"no zip")
    write_report(str(folder), made)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    path = found_or_skip()
    with Chromium(path, str(tmp_path_factory.mktemp("profile"))) as found:
        yield found


@pytest.fixture
def page(browser, folder):
    """The report in a window, its first face drawn."""
    return opened(browser, folder)


def opened(browser, folder, *size, **more):
    browser.size(*(size or (1000, 900)), **more)
    browser.open(folder / "report.html")
    browser.wait("document.documentElement?.dataset.firstFace")
    browser.value(f"{BOX}.scrollIntoView()")
    settle(browser)
    return browser


def settle(browser):
    """Waits until what was asked for is drawn."""
    browser.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def drawn(browser):
    """The view's pixels, (H, W, 4) uint8."""
    settle(browser)
    url = browser.value(f"{CANVAS}.toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"))


def state(browser):
    return hashlib.sha256(drawn(browser).tobytes()).hexdigest()


def focus(browser, selector):
    browser.value(f"{BOX}.querySelector({selector!r}).focus()")


# ---------------------------------------------------------------- the first look
def test_the_first_face_is_there_soon_without_a_word_in_the_console_or_a_request(browser, folder):
    found = []
    for _ in range(TRIES):
        opened(browser, folder)
        found.append(int(browser.value("document.documentElement.dataset.firstFace")))
        if found[-1] < FIRST:
            break
    assert min(found) < FIRST
    assert browser.messages == [] and browser.requests == [(folder / "report.html").as_uri()]
    assert browser.value("document.title") == f"Faces of {folder.name}"


def test_a_face_starts_as_test_mode_drew_it(page, made):
    """Both views, drawn at the size of test mode's renders, within what edges and rounding differ by."""
    page.value(f"{CANVAS}.style.width = '{SIZE}px'")
    for view, kind in ((1, "coarse"), (2, "fine")):
        page.value(f"{BOX}.querySelector('[data-view=\"{view}\"]').click()")
        found, known = drawn(page).astype(float), face(made, 0)[1][kind].astype(float)
        assert found.shape == known.shape
        inside = (found[..., 3] == 255) & (known[..., 3] == 255)
        assert (np.abs(found[..., 3] - known[..., 3]) > 128).sum() < 0.02 * inside.sum()
        assert np.abs(found - known)[inside][:, :3].mean() < 2.0


def test_the_photo_lies_on_the_face(page, made):
    found = drawn(page).astype(float)
    known = Image.fromarray(face(made, 0)[1]["input"]).resize(found.shape[1::-1], Image.Resampling.BILINEAR)
    inside = found[..., 3] == 255
    assert inside.mean() > 0.2
    assert np.abs(found[..., :3] - np.asarray(known, float))[inside].mean() < 6.0


# ---------------------------------------------------------------- the formulas
def test_harmonics_and_normals_are_those_of_the_package(page, made):
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(20, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    found = np.array(page.value(f"{normals.tolist()}.map(harmonics)"))
    np.testing.assert_allclose(found, np.asarray(lighting.sh_basis(normals[None]))[0], atol=1e-5)
    points, triangles = made.mean_shape, made.triangles
    found = page.value(f"Array.from(vertexNormals({points.ravel().tolist()}, {triangles.ravel().tolist()}))")
    known = np.asarray(geometry.vertex_normals(points[None], triangles))[0]
    np.testing.assert_allclose(np.reshape(found, (-1, 3)), known, atol=1e-4)


def test_a_lamp_is_a_cosine_to_second_order(page):
    """Beside the clamped cosine's series 1/4 + t/2 + 5/16 (3 t^2 - 1)/2 (Ramamoorthi and Hanrahan 2001)."""
    angles = np.linspace(0, np.pi, 7)
    normals = np.stack([np.sin(angles), np.zeros(7), np.cos(angles)], axis=1)
    light = np.array(page.value("lampLight(0, 0).map(v => v.x)"))
    gamma = np.tile(light - lighting.AMBIENT_OFFSET * (np.arange(9) == 0), 3)
    scale, ambient = page.value("[LAMP, LAMP_AMBIENT]")
    t = np.cos(angles)
    series = scale * (0.25 + t / 2 + 5 / 16 * (3 * t * t - 1) / 2) + ambient
    np.testing.assert_allclose(shading(normals, gamma)[:, 0], series, atol=1e-5)


# ---------------------------------------------------------------- turning
def test_keys_turn_zoom_and_reset(page):
    start = state(page)
    focus(page, "canvas")
    seen = {start}
    for key in ("ArrowLeft", "ArrowUp", "+", "+", "-", "ArrowRight", "ArrowRight", "ArrowDown"):
        page.key(key)
        seen.add(state(page))
    assert len(seen) >= 8  # one + and the - cancel
    page.key("0")
    assert state(page) == start


def test_the_mouse_turns_and_the_button_resets(page):
    start = state(page)
    left, top, size = page.value(f"(b => [b.left, b.top, b.width])({CANVAS}.getBoundingClientRect())")
    middle = (left + size / 2, top + size / 2)
    page.drag(middle, (middle[0] + 60, middle[1] + 10))
    assert state(page) != start
    assert page.value("document.activeElement.tagName") == "CANVAS"
    focus(page, "[data-do=reset]")
    page.key("Enter")
    assert state(page) == start


def test_the_wheel_zooms_only_after_a_click(page):
    start = state(page)
    left, top, size = page.value(f"(b => [b.left, b.top, b.width])({CANVAS}.getBoundingClientRect())")
    where = {"x": left + size / 2, "y": top + size / 2}
    turn = {"type": "mouseWheel", "deltaX": 0, "deltaY": 0}
    page.call("Input.dispatchMouseEvent", **where, **{**turn, "deltaY": 40})
    assert state(page) == start
    page.value("scrollTo(0, 0)")
    page.value(f"{BOX}.scrollIntoView()")
    focus(page, "canvas")
    page.call("Input.dispatchMouseEvent", **where, **{**turn, "deltaY": -40})
    assert state(page) != start


# ---------------------------------------------------------------- views, light, expressions
def test_views_are_buttons_that_say_which_is_on(page):
    seen = set()
    for view in range(4):
        focus(page, f'[data-view="{view}"]')
        page.key("Enter")
        pressed = page.value(f"[...{BOX}.querySelectorAll('[data-view]')].map(b => b.ariaPressed)")
        assert pressed == ["true" if i == view else "false" for i in range(4)]
        seen.add(state(page))
    assert len(seen) == 4


@pytest.mark.parametrize("light", ["turn", "lamp", "side", "height", "strength"])
def test_every_light_slider_changes_the_picture_by_keys(page, light):
    start = state(page)
    page.value(f"{BOX}.querySelector('details.light').open = true")
    focus(page, f"[data-light={light}]")
    for _ in range(8):
        page.key("ArrowRight")
    assert state(page) != start
    lamp = page.value(f"Number({BOX}.querySelector('[data-light=lamp]').value)")
    assert lamp == {"lamp": 8, "side": 80, "height": 80}.get(light, 0)  # a lamp that is moved is put on
    page.value(f"{BOX}.querySelector('[data-do=light]').click()")
    assert state(page) == start


def test_a_lamp_lights_the_side_it_stands_on(page):
    page.value(f"{BOX}.querySelector('[data-view=\"2\"]').click()")

    def halves(side):
        page.value(f"put({BOX}.querySelector('[data-light=lamp]'), 100)")
        page.value(f"put({BOX}.querySelector('[data-light=side]'), {side})")
        picture = drawn(page)[..., :3].mean(axis=-1)
        middle = picture.shape[1] // 2
        return picture[:, :middle].mean(), picture[:, middle:].mean()
    left, right = halves(80)
    assert right > 1.3 * left
    left, right = halves(-80)
    assert left > 1.3 * right


def test_expressions_move_the_face_and_go_back(page):
    start = state(page)
    page.value(f"{BOX}.querySelector('details.expression').open = true")
    groups = page.value(f"[...{BOX}.querySelectorAll('.groups label')].map(l => l.firstChild.textContent.trim())")
    assert groups == ["Open jaw", "Smile", "Raise brows"]
    names = page.value(f"[...{BOX}.querySelectorAll('.all label')].map(l => l.firstChild.textContent.trim())")
    assert names == ["jawOpen", "mouthSmile_L", "mouthSmile_R", "browInnerUp", "noseSneer_L"]
    focus(page, ".groups label:nth-child(2) input")
    page.key("End")
    assert page.value(f"{BOX}.view.face.weights") == [0, 1, 1, 0, 0]
    assert state(page) != start
    page.value(f"{BOX}.querySelector('[data-do=photo]').click()")
    assert state(page) == start


def test_moved_corners_are_the_photos_and_the_weights_differences(page, made):
    rest = face(made, 0)[0]["vertices"]
    page.value(f"{BOX}.view.express([0.5, 0, 0, 1, 0])")
    found = np.reshape(page.value(f"Array.from({BOX}.view.face.shape.points)"), (-1, 3))
    np.testing.assert_allclose(found, rest + made.blendshapes @ [0.5, 0, 0, 1, 0], atol=2e-4)


def test_textures_layouts_and_weights_of_the_photo(browser, made, tmp_path):
    write_results(tmp_path, made, ["me"], textured=True)
    write_report(str(tmp_path), made)
    page = opened(browser, tmp_path)
    uniforms = page.value(f"(u => [u.hasAlbedo.value, u.hasLit.value])({BOX}.view.face.uniforms)")
    assert uniforms == [True, True] and page.messages == []
    middle = drawn(page)
    middle = middle[middle[..., 3] == 255][:, :3].astype(int)
    for shade in (80, 200):  # the texture's checks
        assert (np.abs(middle - shade).max(axis=1) < 12).mean() > 0.25
    np.testing.assert_allclose(page.value(f"{BOX}.view.face.weights"), [0.2, 0, 0, 0.5, 0], atol=1e-6)
    page.value(f"{BOX}.querySelector('[data-do=neutral]').click()")
    found = np.reshape(page.value(f"Array.from({BOX}.view.face.shape.points)"), (-1, 3))
    known = face(made, 0)[0]["vertices"] - made.blendshapes @ [0.2, 0, 0, 0.5, 0]
    np.testing.assert_allclose(found, known, atol=2e-4)


# ---------------------------------------------------------------- the page
def test_a_browser_without_webgl_says_so_and_shows_the_rest(browser, folder):
    script = "HTMLCanvasElement.prototype.getContext = () => null"
    number = browser.call("Page.addScriptToEvaluateOnNewDocument", source=script)["identifier"]
    try:
        browser.open(folder / "report.html")
        browser.wait("document.querySelector('.view')?.textContent.includes('cannot be turned here')")
        assert browser.value("document.querySelectorAll('img').length") == 12
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", identifier=number)


def test_a_lost_graphics_context_comes_back(page):
    start = state(page)
    page.value("painter.renderer.forceContextLoss()")
    settle(page)
    page.value("new Promise(done => setTimeout(done, 50))")
    page.value("painter.renderer.forceContextRestore()")
    page.wait("!painter.renderer.getContext().isContextLost()")
    page.value(f"{BOX}.view.face.request()")
    assert state(page) == start


def test_nothing_sticks_out_on_a_phone(browser, folder):
    page = opened(browser, folder, 360, 740, dark=True, mobile=True)
    assert page.value("document.documentElement.scrollWidth") <= 360
    page.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.value("document.documentElement.scrollWidth") <= 360
    assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(19, 20, 23)"
    assert page.value(f"{CANVAS}.style.touchAction") == "pan-y"


def test_the_table_sorts_by_any_column(page):
    order = "[...document.querySelectorAll('tbody tr')].map(row => row.cells[0].textContent)"
    head = "document.querySelector('thead th:nth-child(4) button')"
    assert page.value(order) == ["me", WICKED, "torn"]
    page.value(f"{head}.click()")
    assert page.value(order) == ["torn", WICKED, "me"]
    assert page.value(f"{head}.parentElement.ariaSort") == "ascending"
    page.value(f"{head}.click()")
    assert page.value(order) == ["me", WICKED, "torn"]


def test_a_face_without_arrays_says_why(page):
    page.wait("!queue.busy")
    assert "is no whole .npz" in page.value("document.querySelector('#photo-2 .view').textContent")
    assert page.messages == []


def test_a_page_whose_first_face_is_far_below_has_it_ready(browser, folder):
    browser.size(360, 300, mobile=True)
    browser.open(folder / "report.html")
    browser.wait("document.documentElement?.dataset.firstFace")
    assert browser.value(f"{BOX}.getBoundingClientRect().top") > 700


def test_many_faces_load_when_scrolled_to_and_are_let_go(browser, tmp_path):
    write_results(tmp_path, model(9, 11), [f"photo{i:02d}" for i in range(24)])
    write_report(str(tmp_path))
    page = opened(browser, tmp_path)
    assert page.value("views.length") <= 5
    for i in range(0, 24, 3):
        page.value(f"document.getElementById('photo-{i}').scrollIntoView()")
        page.wait(f"document.querySelector('#photo-{i} canvas')?.width > 0")
    page.wait("!queue.busy")
    assert page.value("queue.loaded.size") <= 9 and page.value("painter.renderer.info.memory.geometries") <= 9
    page.value(f"{BOX}.scrollIntoView()")
    page.wait(f"{CANVAS}.width > 0")
    assert drawn(page)[..., 3].any() and page.messages == []
