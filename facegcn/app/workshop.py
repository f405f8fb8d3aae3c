"""What the page does with a photo, without the page: one photo in, its files in a folder, and a zip of them."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Callable
from typing import NamedTuple

from facegcn import api
from facegcn.config import PROJECT, WORLDS, load_config
from facegcn.errors import UserError
from facegcn.files import written_whole

#: Texels a side that the page offers.
TEXTURES = (1024, 2048, 4096)
#: What is shown of a face, by the ending of its file, in this order.
_SHOWN = {
    "_pasted.png": "face drawn back into the photo",
    "_fine_overlay.png": "face over the aligned crop",
    "_input.png": "aligned crop",
    "_albedo.png": "texture without light",
    "_lit.png": "texture in the photo's light",
    "_confidence.png": "how far the texture is known",
    "_views.png": "turned, and in other light",
}


class Result(NamedTuple):
    """The files of one photo.

    Attributes:
        pictures: (path, caption) of what is shown.
        models: ``albedo`` and ``lit``: paths of GLB files.
        archive: path of the zip of all files.
        words: what is to be said of it.
    """

    pictures: list[tuple[str, str]]
    models: dict[str, str]
    archive: str
    words: str


class Workshop:
    """Reconstructs photos one by one, with what was loaded last.

    Args:
        folder: results are written into folders of their own in it.
    """

    def __init__(self, folder: str):
        self._folder, self._world, self._reconstruction = folder, None, None

    def __call__(self, photo: str, world: str, texture: int, views: bool, rig: bool,
                 progress: Callable[[float, str], None]) -> Result:
        """All files of one photo.

        Args:
            photo: path of the picture file.
            world: one of ``worlds``.
            texture: texels a side, one of ``TEXTURES``.
            views: also a strip of novel views and lights.
            rig: also the face with named expressions, where the model has such.
            progress: is told the share that is done, in [0, 1], and what comes next.

        Raises:
            UserError: the photo cannot be used, or the world's files are absent; names no folder of this machine.
        """
        from facegcn.reconstruction.face_files import FaceFiles, Wanted
        from facegcn.reconstruction.results import result_names

        if world not in worlds() or texture not in TEXTURES:
            raise UserError(f"there is no face model {world!r} here, or no texture of {texture} texels a side")
        name, = result_names([os.path.splitext(os.path.basename(photo))[0]])
        progress(0.05, "loading the face model and its networks" if world != self._world else "looking for the face")
        reconstruction = self._loaded(world, texture)
        progress(0.2, "looking for the face")
        try:
            read = reconstruction.read(photo)
        except UserError as error:
            raise UserError(str(error).replace(photo, os.path.basename(photo)).split("; give its points")[0]) from error
        progress(0.3, "finding shape, light and colour")
        found = next(reconstruction.found([read]))
        progress(0.6, "drawing the textures and writing the files")
        folder = tempfile.mkdtemp(prefix="face-", dir=self._folder)
        files = os.path.join(folder, name)
        os.mkdir(files)
        FaceFiles(files, Wanted(views=views, rig=rig)).write(name, found.face, found.rgba, found.outputs)
        progress(0.95, "packing the zip")
        archive = os.path.join(folder, f"{name}.zip")
        _zip(files, archive)
        return _result(os.path.join(files, name), archive, found.face)

    def _loaded(self, world, texture):
        if self._world != world:
            self._world = self._reconstruction = None  # the former goes before the next comes
            self._reconstruction = api.Reconstruction(_config(world), texture_size=texture)
            self._world = world
        self._reconstruction.texture_size = texture
        return self._reconstruction


def _config(world: str) -> str:
    return os.path.join(PROJECT, "configs", f"{world}.yaml")


def worlds() -> list[str]:
    """Worlds whose files are here, the best likeness first."""
    there = [world for world in WORLDS if world == "demo" or _has_model(world)]
    return sorted(there, key=lambda world: world == "demo")


def _has_model(world: str) -> bool:
    """Whether a world's face model has been made."""
    path = _config(world)
    return os.path.exists(path) and os.path.exists(load_config(path).path("model.npz"))


def _zip(folder: str, path: str) -> None:
    """Packs a folder's files; nearly all of them are compressed already."""
    with written_whole(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as packed:
        for name in sorted(os.listdir(folder)):
            packed.write(os.path.join(folder, name), name)


def _result(stem: str, archive: str, face) -> Result:
    pictures = [(stem + ending, caption) for ending, caption in _SHOWN.items() if os.path.exists(stem + ending)]
    models = {kind: f"{stem}_{kind}.glb" for kind in ("albedo", "lit")}
    words = [f"Done: {len(face.vertices):,} vertices, textures of {len(face.textures.albedo):,} texels a side."]
    if face.remark:
        words.append(f"Note: {face.remark}.")
    if (seen := face.metrics.get("skin_seen")) is not None:
        words.append(f"The photo shows {seen:.0%} of the face's skin; the rest is an extrapolation.")
    return Result(pictures, models, archive, " ".join(words))
