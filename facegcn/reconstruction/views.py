"""Novel views of a face: turned, and in other light; as a strip of pictures, or as a film.

Letters: N vertices.
"""

from __future__ import annotations

import errno
import functools
import os

import cv2
import numpy as np
from PIL import Image

from facegcn.errors import UserError
from facegcn.files import require_room, written_whole
from facegcn.geometry import rotation_matrix, vertex_normals
from facegcn.lighting import shading
from facegcn.texture.drawing import Drawing

YAWS = (-60, -30, 0, 30, 60)  # degrees; positive turns to the person's left
#: Harmonics of order 1 (``lighting.shading``: -y, z, -x) of three lights, a little from above; sides of the picture.
LIGHTS = {"front": (-0.05, 0.26, 0.0), "left": (-0.05, 0.15, 0.26), "right": (-0.05, 0.15, -0.26)}
FILMS = ("gif", "mp4", "webm")
_AMBIENT = -0.18  # of the constant harmonic, beside lighting's own 0.8: shadows stay dark, skin below white
_STRIP, _FILM = 384, 512  # pixels of a view; of a film's frame
_FRAMES, _RATE = 48, 24  # of a turntable, and frames a second
_WIDEST = 60.0  # degrees that the turntable turns to each side
_CODECS = {"mp4": "mp4v", "webm": "VP80"}
_PAPER = 255


def strip(face) -> np.ndarray:
    """(rows, columns, 3) uint8: a row for each of ``LIGHTS``, the face turned by each of ``YAWS``.

    Args:
        face: a ``face.Face``.
    """
    return np.concatenate([np.concatenate([picture(face, yaw, light, _STRIP) for yaw in YAWS], axis=1)
                           for light in LIGHTS.values()])


def picture(face, yaw: float, light, size: int) -> np.ndarray:
    """(size, size, 3) uint8: the face upright, turned by ``yaw`` degrees, on white.

    Args:
        face: a ``face.Face``.
        yaw: positive turns to the person's left.
        light: three harmonics, as those of ``LIGHTS``.
        size: pixels.
    """
    drawing, normals = _posed(face, yaw, size)
    harmonics = np.zeros((1, 3, 9), np.float32)
    harmonics[:, :, 0], harmonics[:, :, 1:4] = _AMBIENT, light
    lit = drawing.relit(face.textures.albedo, np.maximum(_shading(normals, harmonics), 0.0))
    return np.where(drawing.covered[..., None], lit, np.uint8(_PAPER))


def _shading(normals, harmonics):
    return np.asarray(shading(normals[None].astype(np.float32), harmonics.reshape(1, 27)))[0]


def _posed(face, yaw, size):
    """The drawing of a turned face, its middle in the picture's, and its normals."""
    turn = np.asarray(rotation_matrix(np.float32([[0.0, np.radians(yaw), 0.0]])))[0]
    centred = face.vertices - (face.vertices.min(axis=0) + face.vertices.max(axis=0)) / 2
    vertices = centred @ turn.T
    normals = np.asarray(vertex_normals(vertices[None].astype(np.float32), face.triangles))[0]
    return Drawing(vertices, face.layout, size, size), normals


def write_turntable(path: str, face, size: int = _FILM) -> None:
    """Writes a film of the face turning from side to side and back; its ending says which kind.

    Args:
        path: the file, ``.gif``, ``.mp4`` or ``.webm``.
        face: a ``face.Face``.
        size: pixels of a frame's side.

    Raises:
        UserError: another ending, or OpenCV here cannot write this kind.
        OSError: the file cannot be written.
    """
    ending = os.path.splitext(path)[1].lower().removeprefix(".")
    yaws = _WIDEST * np.sin(np.arange(_FRAMES) * 2.0 * np.pi / _FRAMES)
    frames = (picture(face, yaw, LIGHTS["front"], size) for yaw in yaws)
    write_film(path, frames, ending, _RATE, (size, size))


def write_film(path: str, frames, ending: str, rate: float, size: tuple[int, int]) -> None:
    """Writes frames as they come as a film, whole or not at all.

    Args:
        path: the file.
        frames: of (h, w, 3) uint8 RGB pictures; a GIF's wait in memory.
        ending: one of ``FILMS``.
        rate: frames a second.
        size: width and height of each, pixels.

    Raises:
        UserError: another ending, or OpenCV here cannot write this kind.
        OSError: the file cannot be written.
    """
    if ending not in FILMS:
        raise UserError(f"a film ends with .{', .'.join(FILMS)}, not .{ending}")
    write = _write_gif if ending == "gif" else functools.partial(_write_video, codec=_CODECS[ending], size=size)
    with written_whole(path) as partial:
        write(partial, frames, rate=rate, ending=ending)


def _write_gif(path, frames, rate, ending):
    first, *others = [Image.fromarray(frame).quantize(colors=256, dither=Image.Dither.NONE) for frame in frames]
    first.save(path, "GIF", save_all=True, append_images=others, duration=round(1000 / rate), loop=0)


def _write_video(path, frames, rate, ending, codec, size):
    named = f"{path}.{ending}"  # OpenCV chooses the container by the ending
    writer = cv2.VideoWriter(named, cv2.VideoWriter_fourcc(*codec), rate, size)
    try:
        if not writer.isOpened():
            raise UserError(f"this OpenCV writes no .{ending} films: choose another of {', '.join(FILMS)}")
        count = 0
        for frame in frames:
            require_room(path, frame.nbytes)  # OpenCV does not say that a frame could not be written
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            count += 1
        writer.release()
        if _frames_of(named) < count:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        os.replace(named, path)
    finally:
        writer.release()
        if os.path.exists(named):
            os.remove(named)


def _frames_of(path: str) -> int:
    """How many frames a film says that it has; 0 where it cannot be read."""
    film = cv2.VideoCapture(path)
    try:
        return int(film.get(cv2.CAP_PROP_FRAME_COUNT)) if film.isOpened() else 0
    finally:
        film.release()
