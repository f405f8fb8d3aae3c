"""How good texture and shape are, measured where the truth is known and copying does not win.

A picture of a made person goes through what test mode does; what is found is held against the truth, and against a
second picture of the same person. A texture that holds the photo's light reproduces that photo well and no other:
so the albedo is drawn in the other picture, with light fitted anew, and on the true face turned to the side that the
picture hides. All ours.

Letters: N vertices, F triangles, H W pixels, P of them that count, Q harmonics (nine). Colours in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from facegcn import camera
from facegcn.landmarks import landmark_targets
from facegcn.lighting import sh_basis
from facegcn.photos.alignment import dense_of_crop
from facegcn.portraits.maker import Portrait, PortraitMaker, Stream
from facegcn.reconstruction.evaluation import texture_errors
from facegcn.reconstruction.jobs import Photo
from facegcn.reconstruction.reconstructor import PhotosToFaces

#: Added to the config's seed: the people are those of no training, packed file or learnt landmark (those draw from
#: the seed itself), unless a config's own seed is so large.
SERIES = 1_000_003
PICTURES = 2  # of each person
BORDER = 5  # pixels, width of the ellipse that is taken off the true alpha
VIEWS = {"front": 0.0, "side40": 40.0, "side70": 70.0}  # degrees of yaw, to the side that the picture hides
#: What is drawn: what was found; the mean face's albedo, for doing nothing; and, in the pictures, the true albedo, to
#: which shape, pose and kind of light that were found set a limit. What is above it in its own picture is copied.
TEXTURES = ("coarse", "fine", "mean_face", "true")
_MILLIMETRES = 100.0  # of a decimetre


# ---------------------------------------------------------------- drawing
class Pixels(NamedTuple):
    """The pixels of a picture that show a face.

    Attributes:
        corners: (P, 3) vertices of each pixel's triangle.
        weights: (P, 3) of them.
    """

    corners: np.ndarray
    weights: np.ndarray

    def draw(self, values) -> np.ndarray:
        """Vertex values (N, C) at each pixel, (P, C) float64."""
        return np.einsum("pk,pkc->pc", self.weights, np.asarray(values, np.float64)[self.corners])


def face_pixels(triangles, ids, barycentrics, mask=None) -> Pixels:
    """The pixels of a rasterized picture, row by row, that the face covers.

    Args:
        triangles: (F, 3).
        ids: (H, W) triangle of each pixel, -1 = none.
        barycentrics: (H, W, 3) of each pixel.
        mask: (H, W) bool, where only; default: everywhere.

    Raises:
        ValueError: shapes differ.
    """
    ids, barycentrics = np.asarray(ids), np.asarray(barycentrics, np.float64)
    mask = np.ones(ids.shape, bool) if mask is None else np.asarray(mask, bool)
    if ids.ndim != 2 or barycentrics.shape != (*ids.shape, 3) or mask.shape != ids.shape:
        raise ValueError(f"ids {ids.shape}, barycentrics {barycentrics.shape} and mask {mask.shape} do not fit")
    shown = mask & (ids >= 0)
    return Pixels(np.asarray(triangles)[ids[shown]], barycentrics[shown])


def inner_alpha(alpha) -> np.ndarray:
    """Where (H, W) bool a made portrait's alpha (H, W) uint8 shows the face, without a border of two pixels."""
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (BORDER, BORDER))
    return cv2.erode(np.uint8(np.asarray(alpha) == 255), ellipse, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0


# ---------------------------------------------------------------- texture
def psnr(picture, truth) -> float:
    """10 log10(1 / MSE) of two arrays of colours, dB; infinite for equal ones, NaN for empty ones.

    Raises:
        ValueError: shapes differ.
    """
    picture, truth = np.asarray(picture, np.float64), np.asarray(truth, np.float64)
    if picture.shape != truth.shape:
        raise ValueError(f"picture {picture.shape} and truth {truth.shape} do not fit")
    if not picture.size:
        return math.nan
    mse = float(np.mean((picture - truth) ** 2))
    return 10.0 * math.log10(1.0 / mse) if mse else math.inf


def relit_psnr(albedo, harmonics, pixels: Pixels, colors) -> float:
    """How well an albedo explains a picture in the light that suits it best, dB.

    Per channel the nine coefficients of the light minimise sum_p (drawn(albedo Y . g) - colour)^2 [least squares].

    Args:
        albedo: (N, 3).
        harmonics: (N, Q) of the normals in the picture, ``lighting.sh_basis``.
        pixels: of the face in the picture.
        colors: (P, 3) of the picture there.

    Returns:
        ``psnr`` of the drawn face, clipped to [0, 1].

    Raises:
        ValueError: shapes differ.
    """
    albedo, harmonics = np.asarray(albedo, np.float64), np.asarray(harmonics, np.float64)
    colors = np.asarray(colors, np.float64)
    if albedo.ndim != 2 or harmonics.shape[:1] != albedo.shape[:1] or colors.shape != (len(pixels.corners), 3):
        raise ValueError(f"albedo {albedo.shape}, harmonics {harmonics.shape}, {len(pixels.corners)} pixels and "
                         f"colors {colors.shape} do not fit")
    drawn = np.zeros_like(colors)
    for channel in range(3):
        light = pixels.draw(albedo[:, channel, None] * harmonics)
        drawn[:, channel] = light @ np.linalg.lstsq(light, colors[:, channel], rcond=None)[0]
    return psnr(np.clip(drawn, 0.0, 1.0), colors)


def gain_psnr(colors, truth) -> float:
    """PSNR in dB after one gain a channel: how bright light and how dark skin are cannot be told apart.

    Args:
        colors, truth: (P, 3), not clipped.

    Raises:
        ValueError: shapes differ.
    """
    colors, truth = np.asarray(colors, np.float64), np.asarray(truth, np.float64)
    if colors.shape != truth.shape or colors.ndim != 2:
        raise ValueError(f"colors {colors.shape} and truth {truth.shape} do not fit")
    gain = (colors * truth).sum(axis=0) / np.maximum((colors * colors).sum(axis=0), 1e-12)
    return psnr(colors * gain, truth)


# ---------------------------------------------------------------- shape, landmarks, light
def shape_error(found, truth) -> float:
    """Mean distance of vertices in mm after the similarity that brings them nearest [Umeyama 1991].

    Args:
        found, truth: (N, 3) decimetre; the second stays as it is.

    Raises:
        ValueError: shapes differ.
    """
    found, truth = np.asarray(found, np.float64), np.asarray(truth, np.float64)
    if found.shape != truth.shape or found.ndim != 2 or found.shape[1] != 3:
        raise ValueError(f"shapes {found.shape} and {truth.shape} do not fit; expected (N, 3) twice")
    source, target = found - found.mean(axis=0), truth - truth.mean(axis=0)
    left, stretch, right = np.linalg.svd(target.T @ source)
    stretch[2] *= np.sign(np.linalg.det(left @ right))  # a rotation, no mirroring
    rotation = (left * (1.0, 1.0, np.sign(np.linalg.det(left @ right)))) @ right
    scale = stretch.sum() / max(float((source ** 2).sum()), 1e-12)
    return float(np.linalg.norm(scale * source @ rotation.T - target, axis=1).mean()) * _MILLIMETRES


def landmark_error(found, truth) -> float:
    """Mean distance (pixels) of points (L, 2).

    Raises:
        ValueError: shapes differ.
    """
    found, truth = np.asarray(found, np.float64), np.asarray(truth, np.float64)
    if found.shape != truth.shape or found.ndim != 2:
        raise ValueError(f"landmarks {found.shape} and {truth.shape} do not fit")
    return float(np.linalg.norm(found - truth, axis=1).mean())


def light_error(found, truth, visible) -> float:
    """Mean absolute difference of shadings (N, 3) on the vertices (N,) bool that the picture shows; NaN for none.

    Raises:
        ValueError: shapes differ.
    """
    found, truth, visible = np.asarray(found, np.float64), np.asarray(truth, np.float64), np.asarray(visible, bool)
    if found.shape != truth.shape or visible.shape != found.shape[:1]:
        raise ValueError(f"shadings {found.shape} and {truth.shape} and visible {visible.shape} do not fit")
    return float(np.abs(found - truth)[visible].mean()) if visible.any() else math.nan


# ---------------------------------------------------------------- people
def made_people(morphable, size: int, seed: int) -> PortraitMaker:
    """The made people that nothing else uses.

    Args:
        morphable: the face model.
        size: width of the pictures, pixels.
        seed: of the config.
    """
    return PortraitMaker(morphable, size, SERIES + seed, Stream.PACKED)


def measure(faces_of: PhotosToFaces, maker: PortraitMaker, count: int, batch_size: int = 8) -> list[dict[str, float]]:
    """The yardsticks of each person, means over the two pictures.

    Args:
        faces_of: the reconstruction.
        maker: of the portraits, of the same morphable model and size.
        count: people.
        batch_size: pictures reconstructed together, two at least.

    Returns:
        by person, name -> value. With ``coarse_``, ``fine_`` and ``mean_face_`` (its albedo) before them: ``own``,
        ``swap`` (``relit_psnr`` in the same and in the other picture), ``front``, ``side40``, ``side70``
        (``gain_psnr`` on the true face) in dB, ``visible`` and ``hidden`` (``evaluation.texture_errors``) in levels
        of 255; ``true_own`` and ``true_swap`` of the true albedo, alike in the mean; ``coarse_light`` and
        ``fine_light``, see ``light_error``; ``shape`` and ``mean_face_shape`` in mm; ``landmarks`` in pixels;
        ``covered``, the share of the true face in the picture, without its border, that the found one covers, where
        alone ``own`` and ``swap`` look; ``seen``, the share of pictures in which the landmark network saw a face. NaN
        where a picture shows nothing of the face.
    """
    rows = []
    at_once = max(1, batch_size // PICTURES)
    with tqdm(total=count, desc="measuring", unit="person", dynamic_ncols=True) as bar:
        for start in range(0, count, at_once):
            numbers = range(start, min(start + at_once, count))
            portraits = [maker.make(number, picture) for number in numbers for picture in range(PICTURES)]
            found = list(_pictures(faces_of, portraits))
            for first in range(0, len(found), PICTURES):
                rows.append(_person(found[first:first + PICTURES]))
            bar.update(len(numbers))
    return rows


class Picture(NamedTuple):
    """One picture of a person: what is found in it, and what it has to do with the truth.

    Attributes:
        albedos: by name of ``TEXTURES``, (N, 3).
        harmonics: (N, Q) of the found normals.
        pixels, colors: those of the true face, without its border, that the found one covers.
        measured: the yardsticks that need no other picture.
    """

    albedos: dict[str, np.ndarray]
    harmonics: np.ndarray
    pixels: Pixels
    colors: np.ndarray
    measured: dict[str, float]


def _pictures(faces_of: PhotosToFaces, portraits: Sequence[Portrait]) -> Iterator[Picture]:
    """Reconstructs some portraits together and measures each."""
    dense = [dense_of_crop(portrait.rgba) for portrait in portraits]
    faces = faces_of([Photo(portrait.rgba, landmark_targets(None), dense=points)
                      for portrait, points in zip(portraits, dense)])
    model, truth = faces_of.face_model, faces_of.face_model.geometry(np.stack([p.coeff for p in portraits]))
    arrays = {name: np.asarray(faces.outputs[name]) for name in ("vertices", "normals", "shading", "landmarks")}
    arrays["fine_shading"] = np.asarray(faces.outputs.get("fine_shading", arrays["shading"]))
    arrays.update({f"{kind}_texture": np.asarray(faces.outputs[f"{kind}_texture"]) for kind in ("coarse", "fine")})
    raster, triangles = faces.outputs["rasterization"], model.morphable.triangles
    harmonics = sh_basis(arrays["normals"]).numpy()
    for i, portrait in enumerate(portraits):
        found = {name: array[i] for name, array in arrays.items()}
        albedos = {kind: np.clip(found[f"{kind}_texture"] * 0.5 + 0.5, 0.0, 1.0) for kind in ("coarse", "fine")}
        albedos["mean_face"] = np.clip(model.morphable.mean_albedo / 255.0, 0.0, 1.0)
        inner, ids = inner_alpha(portrait.rgba[..., 3]), np.asarray(raster.triangle_ids[i])
        pixels = face_pixels(triangles, ids, raster.barycentrics[i], inner)
        colors = portrait.rgba[..., :3][inner & (ids >= 0)] / 255.0
        measured = {**_seen_from_all_sides(model, portrait, albedos), **_beside_the_truth(model, portrait, found, {
            name: np.asarray(truth[name][i]) for name in ("vertices", "shading")})}
        measured |= {"covered": len(colors) / inner.sum() if inner.any() else math.nan,
                     "seen": float(dense[i] is not None)}
        for kind, albedo in albedos.items():
            errors = texture_errors(albedo * 255.0, portrait.albedo, portrait.visible)
            measured |= {f"{kind}_{name}": value for name, value in errors.items()}
        yield Picture({**albedos, "true": portrait.albedo / 255.0}, harmonics[i], pixels, colors, measured)


def _seen_from_all_sides(model, portrait: Portrait, albedos) -> dict[str, float]:
    """``VIEWS`` of each albedo: on the true face in the true light, beside the true albedo there."""
    morphable, found = model.morphable, {}
    turned = model.geometry(turned_to_hidden(morphable, portrait.coeff))
    raster = turned["rasterization"]
    for i, view in enumerate(VIEWS):
        pixels = face_pixels(morphable.triangles, raster.triangle_ids[i], raster.barycentrics[i])
        light = np.asarray(turned["shading"][i], np.float64)
        truth = pixels.draw(portrait.albedo / 255.0 * light)
        for kind, albedo in albedos.items():
            found[f"{kind}_{view}"] = gain_psnr(pixels.draw(albedo * light), truth)
    return found


def turned_to_hidden(morphable, coeff) -> np.ndarray:
    """Coefficients (V, K) of a face (K,) with the yaw of each of ``VIEWS``, against the sense of its own yaw."""
    yaw = sum(morphable.part_sizes[:3]) + 1
    turned = np.tile(np.asarray(coeff, np.float32), (len(VIEWS), 1))
    turned[:, yaw] = np.radians(list(VIEWS.values())) * (-1.0 if coeff[yaw] > 0 else 1.0)
    return turned


def _beside_the_truth(model, portrait: Portrait, found, truth) -> dict[str, float]:
    """Shape, landmarks and light of a picture's face, as ``measure`` names them."""
    mean = model.morphable.mean_shape
    landmarks = camera.to_pixels(tf.constant(found["landmarks"]), model.image_size).numpy()
    return {"shape": shape_error(found["vertices"], truth["vertices"]),
            "mean_face_shape": shape_error(mean, truth["vertices"]),
            "landmarks": landmark_error(landmarks, portrait.landmarks),
            "coarse_light": light_error(found["shading"], truth["shading"], portrait.visible),
            "fine_light": light_error(found["fine_shading"], truth["shading"], portrait.visible)}


def _person(pictures: Sequence[Picture]) -> dict[str, float]:
    """The yardsticks of one person."""
    measured = [picture.measured for picture in pictures]
    row = {name: _mean([values[name] for values in measured]) for name in measured[0]}
    for kind in TEXTURES:
        for name, others in (("own", pictures), ("swap", pictures[::-1])):
            row[f"{kind}_{name}"] = _mean([relit_psnr(other.albedos[kind], picture.harmonics, picture.pixels,
                                                      picture.colors) for picture, other in zip(pictures, others)])
    return row


# ---------------------------------------------------------------- the table
#: Rows of the table: name, words, unit.
_TABLE = (("own", "own picture, light refitted", "dB"), ("swap", "the person's other picture, likewise", "dB"),
          ("front", "true face and light, from the front", "dB"),
          ("side40", "  from 40 degrees, the hidden side", "dB"), ("side70", "  from 70 degrees", "dB"),
          ("visible", "albedo error, visible vertices", "levels"),
          ("hidden", "albedo error, hidden vertices", "levels"),
          ("light", "shading error, visible vertices", ""), ("shape", "shape error", "mm"),
          ("landmarks", "landmark error", "px"))


def means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each yardstick over the people of whom it is known."""
    return {name: _mean([row[name] for row in rows]) for name in rows[0]}


def _mean(values) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def table(mean: dict[str, float]) -> str:
    """The means as a table: coarse, fine, the mean face, which is doing nothing, and the true albedo."""
    lines = [f"{'yardstick':46s}{'coarse':>9s}{'fine':>9s}{'mean face':>11s}{'true':>9s}"]
    for name, words, unit in _TABLE:
        coarse, fine = (mean.get(f"{kind}_{name}", mean.get(name)) for kind in ("coarse", "fine"))
        nothing, best = mean.get(f"mean_face_{name}"), mean.get(f"true_{name}")
        cells = f"{_number(coarse):>9s}{_number(fine):>9s}{_number(nothing):>11s}{_number(best):>9s}"
        lines.append(f"{words + (f', {unit}' if unit else ''):46s}{cells}".rstrip())
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
