"""report.html without a browser: what it holds, what it lets through, what it says of bad folders."""

import base64
import hashlib
import json
import os
import zlib
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from facegcn.errors import BrokenFile, UserError
from facegcn.files import read_npz, write_npz
from facegcn.reconstruction import report_page, report_pictures
from facegcn.reconstruction.report_faces import FacePacker, read_face
from facegcn.reconstruction.report_page import write_report
from tests.results_folder import EXPRESSIONS, face, layout, model, write_results

WICKED = "<img src=x onerror=document.title='hit'>\"'&amp;"


class Page(HTMLParser):
    """What a browser would make of the page: elements with attributes, and texts of scripts and styles."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.elements, self.raw, self.text = [], [], ""
        with open(path, encoding="utf-8") as file:
            self.feed(file.read())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.raw.append([tag, dict(attrs), ""])

    def handle_data(self, data):
        if self.cdata_elem:
            self.raw[-1][2] += data
        else:
            self.text += data

    def all(self, tag, **attributes):
        return [found for name, found in self.elements if name == tag
                and all(found.get(key) == value for key, value in attributes.items())]

    def data(self):
        """JSON blocks by id."""
        return {attrs["id"]: json.loads(text) for _, attrs, text in self.raw
                if attrs.get("type") == "application/json"}


@pytest.fixture(scope="module")
def made():
    return model()


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_results(folder, made, ["me", "a#b?c%20", WICKED], {"dark": "no face: <script>alert(1)</script>"},
                  textured=True)
    write_report(str(folder), made, {"run": "runs/00003", "config": "<b>demo</b>"})
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page(folder / "report.html")


def unpacked(block):
    return zlib.decompress(base64.b64decode(block["data"]))


# ---------------------------------------------------------------- what it holds
def test_every_photo_has_pictures_figures_files_and_a_face(page, folder):
    assert len(page.all("article")) == 3
    assert [view["data-face"] for view in page.all("div", **{"class": "view"})] == ["face-0", "face-1", "face-2"]
    kinds = [image["data-kind"] for image in page.all("img")]
    assert sorted(kinds) == sorted(3 * ["input", "mask", "coarse", "fine", "pasted", "albedo", "lit"])
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [link["href"] for link in page.all("a") if link["href"].startswith("./")]
    assert {unquote(link[2:]) for link in links} == set(os.listdir(folder)) - {
        "report.html", "metrics.json", "metrics.csv"}
    for words in ("texture network", "runs/00003", "<b>demo</b>", "775 vertices", "no face: <script>alert(1)</script>",
                  "fine PSNR", "3 photos reconstructed, 1 not"):
        assert words in page.text


def test_nothing_is_asked_of_the_network(page):
    for tag, attributes in page.elements:
        for key in ("src", "srcset", "data", "action", "poster"):
            assert attributes.get(key, "data:").startswith("data:")
        if "href" in attributes:
            assert tag == "a" and attributes["href"].startswith(("./", "#"))
    assert "url(" not in next(text for tag, _, text in page.raw if tag == "style")


def test_text_of_names_and_reasons_does_nothing(page):
    assert WICKED in page.text
    assert not [attributes for _, attributes in page.elements if any(key.startswith("on") for key in attributes)]
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert len([1 for tag, attrs, _ in page.raw if tag == "script" and "type" not in attrs]) == 2


def test_the_policy_names_these_scripts_and_this_style_only(page):
    policy, = (meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    found = {tag: ["'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
                   for name, attrs, text in page.raw if name == tag and "type" not in attrs]
             for tag in ("script", "style")}
    assert rules == {"default-src": "'none'", "img-src": "data: blob:", "style-src": " ".join(found["style"]),
                     "script-src": " ".join(found["script"])}


def test_the_licence_of_three_goes_with_it(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "The MIT License" in text and "three.js authors" in text and "WITHOUT WARRANTY OF ANY KIND" in text


# ---------------------------------------------------------------- faces
def test_a_face_comes_back_as_it_was(page, folder):
    blocks = page.data()
    for i, name in enumerate(["me", "a#b?c%20", WICKED]):
        known, packed = read_npz(str(folder / f"{name}.npz")), blocks[f"face-{i}"]
        count, data = packed["count"], unpacked(blocks[f"face-{i}"])
        steps = np.frombuffer(data, "<i2", 3 * count).reshape(3, count).T.astype(np.float64)
        rest = packed["low"] + packed["step"] * (steps + 32768)
        np.testing.assert_allclose(rest, known["vertices"], atol=0.51 * packed["step"] + 1e-6)
        pose = np.reshape(packed["pose"], (3, 4))
        np.testing.assert_allclose(known["vertices"] @ pose[:, :3].T + pose[:, 3], known["vertices_posed"], atol=1e-5)
        levels = np.frombuffer(data, np.uint8, offset=6 * count)
        for place, key in enumerate(("coarse_texture", "fine_texture", "fine_color")):
            found = levels[3 * count * place:3 * count * (place + 1)].reshape(count, 3) / 127.5 - 1
            np.testing.assert_allclose(found, known[key], atol=0.51 / 127.5)
        np.testing.assert_array_equal(levels[9 * count:], np.rint(255 * known["visible"]))
        triangles = np.frombuffer(unpacked(blocks[packed["triangles"]]), "<u4")
        np.testing.assert_array_equal(triangles, known["triangles"].ravel())
        np.testing.assert_allclose(packed["gamma"], known["coeff_gamma"], atol=1e-6)
        assert packed["weights"] == [0.2, 0.0, 0.0, 0.5, 0.0]


def test_what_faces_share_is_there_once(page, made):
    blocks = page.data()
    shared = {key for key in blocks if key.startswith("block-")}
    faces = [blocks[f"face-{i}"] for i in range(3)]
    assert shared == {faces[0][key] for key in ("triangles", "layout", "shapes")} and len(shared) == 3
    assert all(one[key] == faces[0][key] for one in faces for key in ("triangles", "layout", "shapes"))
    known, layout_block = layout(made), blocks[faces[0]["layout"]]
    data, count = unpacked(layout_block), layout_block["count"]
    np.testing.assert_array_equal(np.frombuffer(data, "<u4", count), known["texture_vertices"])
    uv = np.frombuffer(data, "<u2", offset=4 * count + 4 * known["texture_triangles"].size).reshape(-1, 2)
    np.testing.assert_allclose(uv / 65535, known["texture_uv"], atol=1e-5)


def test_what_was_kept_while_writing_makes_the_page_that_the_files_make(made, tmp_path):
    """One photo's pictures and face were kept, the other's files are read: the same page, what they share first."""
    write_results(tmp_path, made, ["a", "b"], textured=True)
    wanted = Page(write_report(str(tmp_path), made))
    kept = report_page.kept_faces(str(tmp_path), made, 2)
    pictures = {}
    for kind in report_pictures.PICTURES:
        if (tmp_path / f"b_{kind}.png").exists():
            with Image.open(tmp_path / f"b_{kind}.png") as image:
                pictures[kind] = np.asarray(image)
            (tmp_path / f"b_{kind}.png").write_bytes(b"not read")
    kept.add("b", pictures, read_npz(str(tmp_path / "b.npz")))
    (tmp_path / "b.npz").write_bytes(b"not read")
    found = Page(write_report(str(tmp_path), made, kept=kept))
    assert [image["src"] for image in found.all("img")] == [image["src"] for image in wanted.all("img")]
    assert found.data() == wanted.data()
    order = [attrs["id"] for _, attrs, _ in found.raw if attrs.get("type") == "application/json"]
    assert order[-2:] == ["face-0", "face-1"] and len(order) > 3
    assert report_page.kept_faces(str(tmp_path), made, report_page.LARGEST + 1) is None


def test_expressions_keep_the_corners_that_move(page, made):
    block = page.data()[page.data()["face-0"]["shapes"]]
    data, total, start = unpacked(block), sum(block["counts"]), 0
    corners, moves = np.frombuffer(data, "<u4", total), np.frombuffer(data, "<i2", offset=4 * total).reshape(-1, 3)
    assert block["names"] == list(EXPRESSIONS) and block["counts"][-1] == 0
    found = np.zeros_like(made.blendshapes)
    for i, count in enumerate(block["counts"]):
        found[corners[start:start + count], :, i] = moves[start:start + count] * block["step"]
        start += count
    np.testing.assert_allclose(found, made.blendshapes, atol=block["step"])


def test_a_model_without_expressions_or_of_another_size_has_no_sliders(made):
    arrays, _ = face(made)
    for packer in (FacePacker(), FacePacker(np.zeros((3, 3, 2)), ["a", "b"]), FacePacker(made.blendshapes, ["a"])):
        assert "shapes" not in packer.pack(arrays)[1]


def test_a_layout_that_does_not_fit_is_left_out(made):
    arrays, _ = face(made)
    known = layout(made)
    broken = [{}, {**known, "texture_uv": known["texture_uv"][1:]},
              {**known, "texture_vertices": known["texture_vertices"] + 10},
              {**known, "texture_triangles": known["texture_triangles"].ravel()}]
    for wrong in broken:
        assert "layout" not in FacePacker().pack({**arrays, **wrong})[1]
    assert "layout" in FacePacker().pack({**arrays, **known})[1]


@pytest.mark.parametrize(("change", "words"), [
    ({"fine_color": None}, "fine_color"), ({"visible": np.ones(3)}, "visible"),
    ({"vertices": np.full((775, 3), np.nan)}, "finite"), ({"triangles": np.full((4, 3), 775)}, "triangles"),
    ({"triangles": np.zeros((0, 3), int)}, "triangles"), ({"vertices": np.float32(1)}, "vertices")])
def test_broken_arrays_are_told_of(made, tmp_path, change, words):
    arrays = {key: value for key, value in {**face(made)[0], **change}.items() if value is not None}
    write_npz(str(tmp_path / "me.npz"), arrays)
    with pytest.raises(BrokenFile, match=words):
        read_face(str(tmp_path / "me.npz"))


# ---------------------------------------------------------------- what is not as it should be
def test_photos_with_broken_or_absent_files_are_shown_as_far_as_they_go(made, tmp_path):
    write_results(tmp_path, made, ["none", "torn", "blind"])
    (tmp_path / "none.npz").unlink()
    (tmp_path / "torn.npz").write_bytes(b"no zip")
    (tmp_path / "blind_input.png").write_bytes(b"no picture")
    page = Page(write_report(str(tmp_path), made))
    assert page.text.count("This face cannot be turned") == 2 and "blind_input.png cannot be read" in page.text
    assert [view["data-face"] for view in page.all("div", **{"class": "view"})] == ["face-2"]
    assert len(page.all("img", **{"data-kind": "input"})) == 2


def test_names_that_lead_out_of_the_folder_are_no_files(made, tmp_path):
    inner = tmp_path / "inner"
    write_results(tmp_path, made, ["secret"])
    write_results(inner, made, [])
    rows = {name: {"status": "ok"} for name in ("../secret", "", ".", "gone")}
    (inner / "metrics.json").write_text(json.dumps({"photos": rows}))
    page = Page(write_report(str(inner)))
    assert not page.all("img") and page.text.count("its files are not in this folder") == 4


def test_large_pictures_are_embedded_smaller(made, tmp_path, monkeypatch):
    write_results(tmp_path, made, ["a", "b"], textured=True)

    def sizes():
        page = Page(write_report(str(tmp_path), made))
        return {image["data-kind"]: (int(image["width"]), int(image["height"])) for image in page.all("img")}
    found = sizes()
    assert found["albedo"] == (1024, 1024) and found["pasted"] == (768, 576) and found["input"] == (96, 96)
    monkeypatch.setattr(report_pictures, "_MANY", 1)
    assert sizes()["albedo"] == (512, 512)


def test_pictures_are_small_and_true(made, tmp_path):
    write_results(tmp_path, made, ["a"])
    page = Page(write_report(str(tmp_path), made))
    for kind, mode in (("input", "RGB"), ("fine", "RGBA"), ("mask", "L")):
        source, = (image["src"] for image in page.all("img", **{"data-kind": kind}))
        found = tmp_path / "found"
        found.write_bytes(base64.b64decode(source.split(",")[1]))
        with Image.open(tmp_path / f"a_{kind}.png") as known, Image.open(found) as image:
            both = [np.asarray(one.convert(mode), float) for one in (known, image)]
        assert np.abs(both[0] - both[1]).mean() < (6 if kind == "input" else 8)


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"photos": []}', '{"photos": {"a": 1}}'])
def test_a_folder_that_is_no_results_folder_gets_one_message_and_keeps_its_page(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    (tmp_path / "report.html").write_text("former")
    with pytest.raises(UserError, match="is no results folder.*--output"):
        write_report(str(tmp_path))
    assert (tmp_path / "report.html").read_text() == "former"


def test_no_folder_at_all(tmp_path):
    with pytest.raises(UserError, match="is no results folder"):
        write_report(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_an_interruption_leaves_the_former_page(made, tmp_path, monkeypatch):
    write_results(tmp_path, made, ["a", "b"])
    (tmp_path / "report.html").write_text("former")
    before = sorted(os.listdir(tmp_path))

    def stop(self, arrays):
        raise KeyboardInterrupt
    monkeypatch.setattr(FacePacker, "pack", stop)
    with pytest.raises(KeyboardInterrupt):
        write_report(str(tmp_path), made)
    assert (tmp_path / "report.html").read_text() == "former" and sorted(os.listdir(tmp_path)) == before


def test_without_photos_the_page_says_so(made, tmp_path):
    write_results(tmp_path, made, [], {"dark": "too dark"})
    page = Page(write_report(str(tmp_path), made))
    assert "No photo has a result." in page.text and "too dark" in page.text and not page.all("table")


def test_whole_numbers_beyond_any_float_are_no_figures():
    """JSON has them, and no page could show them."""
    assert [report_page._shown_number(value) for value in (10 ** 400, -10 ** 400, True, 3, 0.25)] == [
        "–", "–", "–", "3.00", "0.2500"]
