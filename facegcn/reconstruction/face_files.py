"""The files of one face in the folder of results; ``results.ENDINGS`` names them all."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from facegcn.animation import Clip
from facegcn.export import gltf, obj, ply
from facegcn.files import write_bytes
from facegcn.reconstruction import evaluation, views
from facegcn.reconstruction.face import Face, FaceTools
from facegcn.reconstruction.report_pictures import KeptFaces
from facegcn.reconstruction.results import write_arrays
from facegcn.report import overlay, to_uint8, write_png

#: Kinds of pictures that stand in the overview.
OVERVIEW = ("input", "coarse_overlay", "fine_overlay")


class Wanted(NamedTuple):
    """What is written of each face, besides what always is.

    Attributes:
        texture: baked textures, the files that show them, and the photo with the face pasted back.
        clip: animates a rig of its own.
        views: a strip of novel views and lights.
        turntable: ending of a film of the turning face: ``gif``, ``mp4`` or ``webm``; "" for none.
        rig: with texture, the face with a morph target for each named expression, where the model has such.
    """

    texture: bool = True
    clip: Clip | None = None
    views: bool = False
    turntable: str = ""
    rig: bool = True


class FaceFiles:
    """Writes the files of faces into a folder.

    Args:
        folder: of the results; there.
        wanted: which files.
        kept: keeps what ``report.html`` will show of each face (``report_page.kept_faces``); None: it reads the files.
    """

    def __init__(self, folder: str, wanted: Wanted, kept: KeptFaces | None = None):
        self._folder, self._wanted, self._kept = folder, wanted, kept

    def prepare(self, tools: FaceTools) -> None:
        """Makes what the files of every face need."""
        if self._wanted.texture:
            tools.baker  # noqa: B018 - made when it is first asked for

    def write(self, name: str, face: Face, rgba, outputs) -> tuple[list[np.ndarray], dict[str, float]]:
        """All files of one face.

        Args:
            name: stem of the files.
            face: what was found.
            rgba: (S, S, 4) crop, RGB in [-1, 1], skin alpha.
            outputs: arrays of this face, see ``Face``.

        Returns:
            pictures (S, S, 3) for an overview: the photo, and the overlays of the coarse and the fine face; and metrics
            of these.

        Raises:
            OSError: a file cannot be written.
        """
        def path(ending):
            return os.path.join(self._folder, f"{name}{ending}")

        pictures, metrics = self._pictures(path, rgba, outputs)
        for kind, albedo in (("coarse", face.coarse_albedo), ("fine", face.albedo)):
            obj.write_obj(path(f"_{kind}.obj"), face.vertices_posed, face.triangles, albedo)
        ply.write_ply(path("_fine.ply"), face.vertices_posed, face.triangles, face.albedo, face.normals)
        gltf.write_glb(path("_fine.glb"), face.scene("colors"))
        if self._wanted.texture:
            self._write_textured(path, face)
            pictures |= {"pasted": face.pasted, "albedo": face.textures.albedo, "lit": face.textures.lit}
        if self._wanted.views:
            write_png(path("_views.png"), views.strip(face))
        if self._wanted.turntable:
            views.write_turntable(path(f"_turntable.{self._wanted.turntable}"), face)
        arrays = {**face.arrays(), **(face.layout_arrays() if self._wanted.texture else {})}
        write_arrays(path(".npz"), arrays)
        if self._kept is not None:
            self._kept.add(name, pictures, arrays)
        return [pictures[kind] for kind in OVERVIEW], metrics

    @staticmethod
    def _pictures(path, rgba, outputs):
        """Photo, mask, renders and overlays of a crop, by kind; and metrics of the overlays."""
        picture, mask, metrics = rgba[..., :3], rgba[..., 3] > 0.5, {}
        found = {"input": to_uint8(picture), "mask": np.where(mask, 255, 0).astype(np.uint8)}
        for kind in ("coarse", "fine"):
            render = outputs[f"{kind}_render"]
            covered = overlay(render, rgba)
            alpha = np.round(render[..., 3:] * 255).astype(np.uint8)
            found[kind] = np.concatenate([to_uint8(render[..., :3]), alpha], axis=-1)
            found[f"{kind}_overlay"] = to_uint8(covered)
            measured = evaluation.image_metrics(covered * 0.5 + 0.5, picture * 0.5 + 0.5,
                                                mask & (render[..., 3] > 0.5))
            metrics.update({f"{kind}_{name}": value for name, value in measured.items()})
        for kind, image in found.items():
            write_png(path(f"_{kind}.png"), image)
        return found, metrics

    def _write_textured(self, path, face):
        """Textures and what shows them."""
        for kind in ("albedo", "lit"):
            face.save(path(f"_{kind}.obj"), kind)  # with its .mtl and .png
            face.save(path(f"_{kind}.glb"), kind)
        for kind in ("visibility", "confidence"):
            write_bytes(path(f"_{kind}.png"), face.png(kind))
        write_png(path("_pasted.png"), face.pasted)
        if face.expression is None:
            return
        if self._wanted.rig:
            face.save(path("_rig.glb"), "rig")
        if self._wanted.clip is not None:
            gltf.write_glb(path("_animated.glb"), face.animated(self._wanted.clip))
