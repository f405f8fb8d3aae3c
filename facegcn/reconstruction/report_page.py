"""``report.html``: a folder of test mode's results as one page that needs no network, with faces to turn.

The page's parts, three.js among them, lie in the folder ``report``, whose README describes them.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from facegcn.errors import UserError
from facegcn.files import check_name, written_whole
from facegcn.reconstruction.report_faces import FacePacker
from facegcn.reconstruction.report_pictures import (
    LARGEST,
    KeptFaces,
    View,
    escaped,
    figures_in,
    link,
    longest_side,
    view_in,
)
from facegcn.reconstruction.results import ENDINGS

REPORT = "report.html"
_PARTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "report")
_SCRIPTS = ("shading.js", "viewer.js", "page.js")


_READERS = 2  # threads

#: What the page calls a figure, and what it is.
FIGURES = {
    "l1": ("L1", "mean absolute difference of render and photo on the skin, colours in [0, 1]; less is better"),
    "psnr": ("PSNR", "the same as a peak signal-to-noise ratio, dB; more is better"),
    "ssim": ("SSIM", "structural similarity of render and photo on the skin; 1 is equal"),
    "landmark_residual": ("landmarks", "how far the face's landmarks are from those found, pixels of a 224 crop"),
    "unexplained": ("unexplained", "share of the seen skin that the face model cannot explain"),
    "skin_seen": ("skin seen", "share of the model's skin that the photo shows"),
    "landmark_error": ("landmark error", "distance of the landmarks from a made portrait's true ones, pixels"),
    "albedo_visible": ("albedo, seen", "error of the albedo beside a made portrait's, seen vertices, levels of 255"),
    "albedo_hidden": ("albedo, hidden", "the same on vertices that the picture hides"),
    "light_cnn": ("LightCNN", "cosine similarity of the identity features of render and photo, LightCNN-29"),
    "ir50": ("IR-50", "cosine similarity of the identity features of render and photo, face.evoLVe IR-50")}


def kept_faces(folder: str, morphable, count: int) -> KeptFaces | None:
    """What a report of so many photos will show, to be made while they are written; None: they are too many."""
    return None if count > LARGEST else KeptFaces(folder, _packer(morphable), count)


def _packer(morphable) -> FacePacker:
    """Packs faces of a model, or of none."""
    blendshapes = getattr(morphable, "blendshapes", None)
    return FacePacker(None if blendshapes is None else np.asarray(blendshapes),
                      getattr(morphable, "blendshape_names", None) or ())


def write_report(folder: str, morphable=None, about: Mapping[str, object] | None = None,
                 kept: KeptFaces | None = None) -> str:
    """Writes ``report.html`` into a folder of test mode's results.

    Pictures, textures, arrays and files are shown where they are there; a photo whose arrays are absent or broken has
    its pictures and a word why its face cannot be turned. Text of any file is shown as text only.

    Args:
        folder: with ``metrics.json`` and the files of each photo.
        morphable: the MorphableModel; its ``blendshapes`` (N, 3, A), decimetre, and ``blendshape_names`` (A,) make the
            expression sliders. None, or a model without them: no sliders.
        about: more to say at the top, such as the run and the config, by title.
        kept: pictures and faces of photos that were written just now, as ``kept_faces`` made it for this folder and
            model; files of others are read.

    Returns:
        path of the page.

    Raises:
        UserError: it is no folder of test mode's results.
        OSError: the page cannot be written; a former one stays.
    """
    metrics = _metrics(folder)
    path = os.path.join(folder, REPORT)
    packer = _packer(morphable) if kept is None else kept.packer
    with written_whole(path) as partial, open(partial, "w", encoding="utf-8", errors="replace", newline="\n") as file:
        for text in _page(folder, metrics, {**_facts(metrics, morphable), **(about or {})}, packer,
                          kept or ()):
            file.write(text)
    return path


def _metrics(folder) -> dict:
    """What ``metrics.json`` of a folder says."""
    path = os.path.join(folder, "metrics.json")
    cure = "give a folder that test mode wrote (its --output)"
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        if not (isinstance(found, dict) and isinstance(found.get("photos"), dict)
                and all(isinstance(row, dict) for row in found["photos"].values())):
            raise ValueError("it does not list photos")
    except OSError as error:
        raise UserError(f"{folder} is no results folder: its metrics.json cannot be read: {error.strerror}; "
                        f"{cure}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{folder} is no results folder: its metrics.json is damaged: {error}; {cure}") from error
    return found


def _facts(metrics, morphable) -> dict[str, object]:
    """What is said at the top: entries of ``metrics.json`` beside the photos, and the model."""
    facts = {key.replace("_", " "): value for key, value in metrics.items()
             if key not in ("photos", "count", "mean_of", "mean")}
    if morphable is not None:
        sizes = morphable.part_sizes
        facts["face model"] = (f"{morphable.vertex_count:,} vertices; components: {sizes[0]} identity, "
                               f"{sizes[1]} expression, {sizes[2]} albedo"
                               + (f"; made by {morphable.made_by}" if morphable.made_by else ""))
    return facts


# ---------------------------------------------------------------- the page
def _page(folder, metrics, facts, packer, kept) -> Iterator[str]:
    """The page's text, piece by piece: photos are read when their turn comes."""
    rows = metrics["photos"]
    failed = {name: row for name, row in rows.items() if not _written(folder, name)}
    good = {name: row for name, row in rows.items() if name not in failed}
    style, script, three = _part("page.css"), "\n".join(map(_part, _SCRIPTS)), _part("three.min.js")
    allowed = " ".join(f"'{_hash(text)}'" for text in (three, script))
    policy = f"default-src 'none'; img-src data: blob:; style-src '{_hash(style)}'; script-src {allowed}"
    written = os.path.getmtime(os.path.join(folder, "metrics.json"))
    stamp = datetime.datetime.fromtimestamp(written, datetime.timezone.utc)
    title = f"Faces of {os.path.basename(os.path.abspath(folder))}"
    parts = {
        "policy": escaped(policy), "title": escaped(title), "style": style, "script": script, "three": three,
        "three_license": _part("three.LICENSE").replace("--", "- -"),
        "lead": escaped(f"{_counted(len(good))} reconstructed" + (f", {len(failed)} not" if failed else "")
                      + f"; results of {stamp:%Y-%m-%d %H:%M} UTC"),
        "facts": "".join(f"<div><dt>{escaped(key)}</dt><dd>{escaped(_words(value))}</dd></div>"
                         for key, value in facts.items()),
        "failed": _failures(failed), "table": _table(good, metrics.get("mean"))}
    for i, piece in enumerate(re.split(r"\{\{(\w+)\}\}", _part("page.html"))):
        if i % 2 == 0 or piece != "photos":
            yield piece if i % 2 == 0 else parts[piece]
        else:
            yield from _photos(folder, good, packer, kept)


def _part(name: str) -> str:
    with open(os.path.join(_PARTS, name), encoding="utf-8") as file:
        return file.read()


def _hash(text: str) -> str:
    """What a content security policy names an inline script or style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _words(value) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _counted(count: int) -> str:
    return f"{count} photo{'' if count == 1 else 's'}"


def _written(folder, name) -> bool:
    """Whether a photo of ``metrics.json`` has files in the folder."""
    try:
        check_name(name)
    except UserError:
        return False
    return any(os.path.isfile(os.path.join(folder, name + ending)) for ending in (".npz", "_input.png"))


def _failures(rows) -> str:
    """The section of photos without a result; "" without such."""
    if not rows:
        return ""
    items = "".join(f"<li><strong><bdi>{escaped(name)}</bdi></strong> <span class=\"status bad\">"
                    f"{escaped(row.get('status', ''))}</span> "
                    f"{escaped(row.get('reason', 'its files are not in this folder'))}</li>"
                    for name, row in rows.items())
    return (f'<section class="failed" aria-labelledby="failed-title"><h2 id="failed-title">'
            f"Not reconstructed ({len(rows)})</h2><ul>{items}</ul></section>")


# ---------------------------------------------------------------- figures
def _columns(rows) -> list[str]:
    """Figures of any photo, in the order of appearance."""
    found = dict.fromkeys(key for row in rows.values() for key in row if key not in ("status", "reason"))
    return [key for key in found if any(_number(row.get(key)) for row in rows.values())]


def _number(value) -> bool:
    """Whether it can be shown as one: JSON has whole numbers of any length."""
    return isinstance(value, float) or type(value) is int and abs(value) <= sys.float_info.max


def _figure(key: str) -> tuple[str, str]:
    """What a figure is called, and what it is."""
    kind, _, rest = key.partition("_")
    prefix, known = (f"{kind} ", rest) if kind in ("coarse", "fine") else ("", key)
    label, meaning = FIGURES.get(known, (known.replace("_", " "), ""))
    return prefix + label, meaning


def _shown_number(value) -> str:
    """With as many decimals as its size asks for, so that a column's points stand below each other."""
    if not _number(value):
        return "–"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}" if abs(value) < 1e6 else f"{value:.3g}"


def _table(rows, mean) -> str:
    """The table of figures, one row a photo, in an order that the reader chooses."""
    if not rows:
        return ""
    columns, mean = _columns(rows), mean if isinstance(mean, dict) else {}

    def head(label, meaning=""):
        tip = f' title="{escaped(meaning)}"' if meaning else ""
        return f'<th scope="col"><button type="button"{tip}>{escaped(label)}</button></th>'

    def cell(value):
        sortable = f' data-value="{value!r}"' if _number(value) else ""
        return f'<td class="number"{sortable}>{_shown_number(value)}</td>'
    body = "".join(
        f'<tr><th scope="row" data-value="{escaped(name)}"><a href="#photo-{i}"><bdi>{escaped(name)}</bdi></a></th>'
        f'<td data-value="{escaped(row.get("status", ""))}">{escaped(row.get("status", ""))}</td>'
        + "".join(cell(row.get(key)) for key in columns) + "</tr>" for i, (name, row) in enumerate(rows.items()))
    foot = "".join(f'<td class="number">{_shown_number(mean.get(key))}</td>' for key in columns)
    known = dict.fromkeys((label.removeprefix("coarse ").removeprefix("fine "), meaning)
                          for label, meaning in map(_figure, columns) if meaning)
    words = "".join(f"<div><dt>{escaped(label)}</dt><dd>{escaped(meaning)}</dd></div>" for label, meaning in known)
    return (f'<section aria-labelledby="table-title"><h2 id="table-title">Figures</h2>'
            '<div class="wide" tabindex="0" role="region" aria-labelledby="table-title"><table class="sortable">'
            f'<thead><tr>{head("photo")}{head("status")}{"".join(head(*_figure(key)) for key in columns)}</tr></thead>'
            f'<tbody>{body}</tbody><tfoot><tr><th scope="row">mean</th><td></td>{foot}</tr></tfoot></table></div>'
            f'<details><summary>What the figures are</summary><dl class="meanings">{words}</dl></details></section>')


# ---------------------------------------------------------------- a photo
def _photos(folder, rows, packer, kept) -> Iterator[str]:
    """The photos, one after the other."""
    most = longest_side(len(rows))
    yield _data(kept.blocks if kept else {})
    with ThreadPoolExecutor(_READERS, "facegcn-report") as pool:  # most of the time goes with reading pictures
        pictures = pool.map(lambda name: figures_in(folder, name, most), [name for name in rows if name not in kept])
        for i, (name, row) in enumerate(tqdm(rows.items(), desc="writing report.html", unit="photo", delay=2.0,
                                             dynamic_ncols=True)):
            figures, view = kept.of(name) if name in kept else (next(pictures), view_in(packer, folder, name))
            yield _photo(folder, i, name, row, figures, view)
    if not rows:
        yield '<p class="notice">No photo has a result.</p>'


def _photo(folder, i, name, row, pictures, view) -> str:
    """One photo: its face, pictures, figures, files."""
    there = [name + ending for ending in ENDINGS if os.path.isfile(os.path.join(folder, name + ending))]
    status, reason = row.get("status") or "", row.get("reason") or ""
    figures = "".join(f"<div><dt>{escaped(_figure(key)[0])}</dt><dd>{_shown_number(row[key])}</dd></div>"
                      for key in row if _number(row[key]))
    links = "".join(f'<li><a href="{link(file)}">{escaped(file.removeprefix(name).lstrip("_."))}</a> '
                    f"<small>{_size(os.path.getsize(os.path.join(folder, file)))}</small></li>" for file in there)
    return (
        f'<article class="photo" id="photo-{i}" aria-labelledby="name-{i}">'
        f'<h3 id="name-{i}"><bdi>{escaped(name)}</bdi> <span class="status {"good" if status == "ok" else "fair"}">'
        f"{escaped(status)}</span></h3>"
        + (f'<p class="remark">{escaped(reason)}</p>' if reason else "")
        + f'<div class="sides">{_view(i, name, view)}<div>'
        f'<div class="pictures">{pictures}</div><dl class="figures">{figures}</dl>'
        f"<details><summary>Files ({len(there)})</summary>"
        f'<ul class="files">{links}</ul></details></div></div></article>\n')


def _view(i, name, view: View | str) -> str:
    """The place of the face, with its data; or why it cannot be turned."""
    if isinstance(view, str):
        return f'<div class="view missing"><p class="notice">This face cannot be turned: {escaped(view)}</p></div>'
    return (f'{_data({**view.blocks, f"face-{i}": view.face})}<div class="view" data-face="face-{i}" '
            f'data-name="{escaped(name)}"><p class="notice">'
            "The face appears when it is scrolled to.</p></div>")


def _data(blocks: Mapping[str, str]) -> str:
    """JSON by id, for the page's script."""
    return "".join(f'<script type="application/json" id="{key}">{block}</script>' for key, block in blocks.items())


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{max(1, round(count / 1e3))} kB"
