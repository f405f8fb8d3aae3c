"""Pictures and faces as ``report.html`` holds them, made while test mode has them in memory, or of its files."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import tempfile
import threading
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote

import cv2
import numpy as np
from PIL import Image

from facegcn.errors import BrokenFile
from facegcn.reconstruction.report_faces import FacePacker, checked_face, read_face
from facegcn.reconstruction.results import shown


class Picture(NamedTuple):
    """A kind of picture of a photo.

    Attributes:
        title: what the page calls it.
        form: JPEG; WEBP where it has coverage; PNG for masks.
        side: the longest that is embedded, pixels.
        quality: of JPEG and WebP.
    """

    title: str
    form: str = "JPEG"
    side: int = 512
    quality: int = 88


#: By what comes between a photo's name and ``.png``.
PICTURES = {"input": Picture("Photo", quality=92), "mask": Picture("Skin mask", "PNG"),
            "coarse": Picture("Coarse", "WEBP"), "fine": Picture("Fine", "WEBP"),
            "coarse_overlay": Picture("Coarse on the photo"), "fine_overlay": Picture("Fine on the photo"),
            "pasted": Picture("In the whole photo", side=768),
            "albedo": Picture("Albedo texture", side=1024, quality=85),
            "lit": Picture("Lit texture", side=1024, quality=85)}
LARGEST = 500  # photos of a page
_MANY, _SIDE_OF_MANY = 40, 512  # so many photos have smaller pictures


class View(NamedTuple):
    """A face's data for the page, as JSON: blocks by id that no face before it needed, and its own."""

    blocks: dict[str, str]
    face: str


class KeptFaces:
    """Pictures and faces of a page to come, in a file that has no name: so many do not stay in memory.

    Args:
        folder: of the results.
        packer: packs the faces of this page.
        count: of photos that the page will show at most.

    Attributes:
        packer: the same; what the kept faces share it will not give again.
        blocks: JSON by id of what they share: it stands in the page before all faces.
    """

    def __init__(self, folder: str, packer: FacePacker, count: int):
        self._file = tempfile.TemporaryFile(prefix=".report-", dir=folder)
        self.packer, self._most = packer, longest_side(count)
        self._places, self._lock = {}, threading.Lock()
        self.blocks: dict[str, str] = {}

    def add(self, name: str, pictures: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray]) -> None:
        """Keeps a photo's pictures, uint8, by the kinds of ``PICTURES``, and its face by the arrays of its ``.npz``.

        Raises:
            OSError: the disk is full.
        """
        figures = "".join(figure(name, kind, pictures[kind], self._most) for kind in PICTURES if kind in pictures)
        try:
            checked = checked_face(arrays, f"{name}.npz")
        except BrokenFile:
            return  # the page will say so when it reads the file
        with self._lock:
            view = view_of(self.packer, checked)
            self.blocks |= view.blocks
            data = json.dumps([figures, view.face]).encode()
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(data)
            self._places[name] = place, len(data)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def of(self, name: str) -> tuple[str, View]:
        """The pictures as HTML and the face of a photo that was kept."""
        with self._lock:
            place, length = self._places[name]
            self._file.seek(place)
            figures, face = json.loads(self._file.read(length))
        return figures, View({}, face)


def longest_side(count: int) -> int:
    """Pixels that no picture of a page of so many photos is longer than."""
    return _SIDE_OF_MANY if count > _MANY else 1 << 16


def view_of(packer: FacePacker, arrays: Mapping[str, np.ndarray]) -> View:
    """A face's data; arrays of ``report_faces.checked_face``."""
    blocks, face = packer.pack(arrays)
    return View({key: _json(block) for key, block in blocks.items()}, _json(face))


def view_in(packer: FacePacker, folder: str, name: str) -> View | str:
    """The data of a face by its ``.npz``, or why it cannot be read."""
    try:
        return view_of(packer, read_face(os.path.join(folder, f"{name}.npz")))
    except (BrokenFile, OSError) as error:
        return error.reason if isinstance(error, BrokenFile) else f"{name}.npz: {error.strerror}"


def figures_in(folder: str, name: str, most: int) -> str:
    """The pictures of a photo that are in the folder, as HTML."""
    return "".join(_figure_in(folder, name, kind, most) for kind in PICTURES
                   if os.path.isfile(os.path.join(folder, f"{name}_{kind}.png")))


def _figure_in(folder, name, kind, most) -> str:
    """A picture by its file; a word where it cannot be read."""
    file = f"{name}_{kind}.png"
    try:
        with Image.open(os.path.join(folder, file), formats=["PNG"]) as image:
            picture = np.asarray(image.convert({"JPEG": "RGB", "WEBP": "RGBA", "PNG": "L"}[PICTURES[kind].form]))
    except Exception as error:  # whatever Pillow's decoders raise
        return f'<figure><p class="notice">{escaped(file)} cannot be read: {escaped(error)}</p></figure>'
    return figure(name, kind, picture, most)


def figure(name: str, kind: str, picture: np.ndarray, most: int) -> str:
    """A picture as HTML that leads to its file.

    Args:
        name: of the photo.
        kind: of ``PICTURES``.
        picture: uint8, (h, w) of a mask, (h, w, 4) of what has coverage, else (h, w, 3).
        most: pixels that it is no longer than, whatever its kind allows.
    """
    about = PICTURES[kind]
    source, (width, height) = _embedded(picture, about, min(about.side, most))
    return (f'<figure><a href="{link(f"{name}_{kind}.png")}"><img data-kind="{kind}" loading="lazy" decoding="async" '
            f'width="{width}" height="{height}" alt="{escaped(about.title)} of {escaped(name)}" src="{source}"></a>'
            f"<figcaption>{escaped(about.title)}</figcaption></figure>")


def _embedded(picture, about: Picture, side: int) -> tuple[str, tuple[int, int]]:
    """A picture as a data URL, no longer than some pixels, and its width and height."""
    height, width = picture.shape[:2]
    if max(width, height) > side:
        scale = side / max(width, height)
        smaller = max(1, round(width * scale)), max(1, round(height * scale))
        picture = cv2.resize(picture, smaller, interpolation=cv2.INTER_AREA)
    held = io.BytesIO()
    Image.fromarray(picture).save(held, about.form, **(
        {"optimize": True} if about.form == "PNG" else {"quality": about.quality}))
    data = base64.b64encode(held.getvalue()).decode("ascii")
    return f"data:image/{about.form.lower()};base64,{data}", picture.shape[1::-1]


def escaped(value) -> str:
    """Any text as HTML that shows it, and does nothing else."""
    return html.escape(shown(str(value)), quote=True)


def link(file: str) -> str:
    """A relative link to a file of the folder, whatever signs its name has."""
    return "./" + quote(file)


def _json(value) -> str:
    """JSON that ends no script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
