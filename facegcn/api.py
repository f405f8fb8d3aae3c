"""Python's way in: a photo to a ``reconstruction.face.Face``.

    from facegcn import reconstruct
    face = reconstruct("me.jpg")
    face.save("me.glb")

TensorFlow is imported when the first ``Reconstruction`` is made.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from facegcn.config import PROJECT, Config, load_config
from facegcn.errors import PhotoError, UserError, log

if TYPE_CHECKING:
    from facegcn.reconstruction.face import Face
    from facegcn.reconstruction.jobs import Photo

__all__ = ["Found", "Reconstruction", "reconstruct"]

_BEST, _ALWAYS = (os.path.join("configs", f"{world}.yaml") for world in ("ict", "demo"))
_SCRIPTS = ("model", "mesh_sampling", "utils")  # at the project's top


class Found(NamedTuple):
    """One reconstructed photo with what ``reconstruction.face_files.FaceFiles.write`` takes.

    Attributes:
        face: the face.
        rgba: (S, S, 4) crop, RGB in [-1, 1], skin alpha.
        outputs: arrays of the face by name.
    """

    face: Face
    rgba: np.ndarray
    outputs: dict[str, np.ndarray]


class Reconstruction:
    """A face model and its networks, loaded once: call it with photos.

    Args:
        config: a YAML file of settings, relative to the working directory or to the project; or a ``Config``. None:
            ``configs/ict.yaml`` where its model is there, else ``configs/demo.yaml``.
        face: which of several faces of a photo: ``largest``, ``center``, or a number, counted from the left, from 1.
        texture_size: texels a side of the faces' textures.

    Attributes:
        config: the settings.
        tools: what all its faces share, a ``reconstruction.face.FaceTools``.

    Raises:
        UserError: a file of the config is absent or broken, or an argument is not one of those above.
    """

    def __init__(self, config: str | os.PathLike | Config | None = None, face: str | int = "largest",
                 texture_size: int = 2048):
        from facegcn.backends import start
        start.tensorflow()
        from facegcn.assets.check import require_assets
        from facegcn.assets.worlds import load_morphable
        from facegcn.photos import litert
        from facegcn.photos.choosing import face_choice
        from facegcn.reconstruction.face import FaceTools, check_texture_size
        from facegcn.reconstruction.reconstructor import PhotosToFaces
        from facegcn.texture.layout import ensure_layout

        check_texture_size(texture_size)
        self._face, self.config = face_choice(str(face)), _settings(config)
        litert.check()
        require_assets(self.config, "test")
        morphable, model = load_morphable(self.config), _model_script()
        self.config, run = model.find_trained(self.config, morphable)
        face_model, fitter = model.load_trained(self.config, morphable, run)
        self.tools = FaceTools(ensure_layout(self.config, morphable), texture_size)
        self._sized = {texture_size: self.tools}
        self._faces_of = PhotosToFaces(face_model, fitter, self.config.detail)

    @property
    def texture_size(self) -> int:
        """Texels a side of the textures of faces to come. Setting it raises UserError where there is no such size."""
        return self.tools.texture_size

    @texture_size.setter
    def texture_size(self, size: int) -> None:
        if size not in self._sized:
            from facegcn.reconstruction.face import FaceTools
            self._sized[size] = FaceTools(self.tools.morphable, size)
        self.tools = self._sized[size]

    def __call__(self, photo: Any) -> Face | list[Face]:
        """The face of a photo; of a list of photos, the list of their faces.

        Args:
            photo: path of a picture file, or its pixels, (h, w, 3) or (h, w, 4) uint8 RGB or RGBA; or a list of these.

        Raises:
            PhotoError: a photo that cannot be used: unreadable, without a face, ...; the message says which and why.
        """
        if not isinstance(photo, (list, tuple)):
            return next(self.found([self.read(photo)])).face
        photos = (self.read(one, f"photo {number}: ") for number, one in enumerate(photo, 1))
        return [found.face for found in self.found(list(photos))]

    def read(self, photo: Any, called: str = "") -> Photo:
        """One photo, its face found, aligned and masked.

        Args:
            photo: path or pixels.
            called: what messages about it begin with.

        Raises:
            PhotoError: as above.
        """
        from facegcn.photos.reading import opaque
        from facegcn.reconstruction.jobs import load_photo, photo_of

        how = (self.tools.morphable, self.config.img_size)
        try:
            if isinstance(photo, (str, os.PathLike)):
                called = f"{os.fspath(photo)}: "
                return load_photo(os.fspath(photo), *how, face=self._face)
            pixels = _checked_pixels(photo)
            return photo_of(pixels, None, lambda: opaque(pixels), *how, self._face)
        except PhotoError as error:
            raise PhotoError(called + str(error).removeprefix(called), error.status) from error

    def found(self, photos: list[Photo]) -> Iterator[Found]:
        """The faces of photos, ``config.test_batch_size`` of them together."""
        from facegcn.reconstruction.face import Face

        size = self.config.test_batch_size
        for batch in (photos[first:first + size] for first in range(0, len(photos), size)):
            faces = self._faces_of(batch)
            rgba = np.asarray(faces.rgba)
            each = zip(batch, faces.outputs_of_each(), faces.quality())
            for i, (photo, outputs, quality) in enumerate(each):
                remark = "; ".join(text for text in (photo.status, photo.remark) if text not in ("", "ok"))
                yield Found(Face(self.tools, photo.picture(), photo.transform, rgba[i, ..., 3] > 0.5,
                                 faces.coeff[i], outputs, quality, remark), rgba[i], outputs)


_last: dict[tuple, Reconstruction] = {}


def reconstruct(photo: Any, config: str | os.PathLike | Config | None = None, face: str | int = "largest",
                texture_size: int = 2048) -> Face | list[Face]:
    """The face of a photo, see ``Reconstruction``; what it loaded is kept for calls with the same settings.

    Args:
        photo: as ``Reconstruction.__call__``.
        config, face, texture_size: as ``Reconstruction``.

    Raises:
        UserError: as both; its kind ``PhotoError`` for a photo that cannot be used.
    """
    key = (repr(config), str(face), texture_size)
    if key not in _last:
        _last.clear()  # one at a time: each holds its networks
        _last[key] = Reconstruction(config, face, texture_size)
    return _last[key](photo)


# ---------------------------------------------------------------- what is asked for
def _settings(config) -> Config:
    """The config with whole paths: the working directory may change later."""
    if config is None:
        config = default_config()
    if not isinstance(config, Config):
        path = os.fspath(config)
        own = os.path.join(PROJECT, path)
        config = load_config(own if not os.path.exists(path) and os.path.exists(own) else path)
    config.root_dir, config.runs_dir = os.path.abspath(config.root_dir), os.path.abspath(config.runs_dir)
    return config


def default_config() -> str:
    """Path of the config that is used where none is named; says so."""
    best = os.path.join(PROJECT, _BEST)
    model = load_config(best).path("model.npz")
    if os.path.exists(model):
        log.info("the face model is ICT-FaceKit's, %s", model)
        return best
    log.warning("there is no %s: the demo's procedural face stands in, a simple one. For a better likeness: "
                "git clone https://github.com/ICT-VGL/ICT-FaceKit, then python -m facegcn.assets ict --source "
                "ICT-FaceKit", model)
    return os.path.join(PROJECT, _ALWAYS)


def _checked_pixels(photo) -> np.ndarray:
    pixels = np.asarray(photo)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or not pixels.size:
        raise PhotoError(f"a photo is a path, or pixels (h, w, 3) or (h, w, 4) of uint8, RGB or RGBA; this is "
                         f"{pixels.dtype} {pixels.shape}", "unreadable")
    return pixels


def _model_script():
    """The project's script ``model``, which knows how networks are loaded; its folder need not be on ``sys.path``."""
    if clash := _in_the_way():
        raise UserError(clash)
    with _first_on_path(PROJECT):
        return importlib.import_module("model")


@contextlib.contextmanager
def _first_on_path(folder: str) -> Iterator[None]:
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _in_the_way() -> str:
    """Says which module of the caller's has the name of one of ours; "" where none has."""
    for name in _SCRIPTS:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None and os.path.realpath(os.path.dirname(file)) != os.path.realpath(PROJECT):
            return (f"a module '{name}' was imported from {file}, and facegcn has one of that name: rename yours, or "
                    "import it after the first reconstruction")
    return ""
