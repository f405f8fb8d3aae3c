"""Made portraits: pictures of a morphable model with known truth, for training and for measuring.

Identity, expression, pose, light, skin detail, hair, glasses, background and camera are drawn at
random, so widely that real photographs look like one more variation (domain randomisation, Tobin
et al. 2017). Of each made person there are as many pictures as one likes, so that a texture taken from
one can be judged on another. The face itself is formed exactly as the pipeline forms it: posed vertices, clipped
albedo x spherical-harmonics shading, the face camera, perspective-correct interpolation.

    python -m facegcn.portraits --model model.npz --count 64 --out made --sheet made/sheet.png
"""

from __future__ import annotations

import concurrent.futures
import enum
import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import tqdm

from facegcn import camera, geometry
from facegcn.files import write_npz, write_text
from facegcn.morphable import MorphableModel
from facegcn.portraits import formation, looks, shine
from facegcn.portraits import overlay as portrait_overlay
from facegcn.portraits import scene as portrait_scene
from facegcn.portraits.details import AlbedoDetails
from facegcn.portraits.mouth import add_mouth
from facegcn.portraits.occluders import add_occluder
from facegcn.portraits.sampling import CoefficientSampler
from facegcn.rasterizer import rasterize_numpy
from facegcn.report import CROP_TEXT, write_png

_SUBPIXELS = 2  # a pixel is the mean of 2 x 2 samples
_DEPTH_TOLERANCE = 0.03  # decimetre a vertex may lie behind the drawn surface and still be seen
_SKIN_SAMPLES = 400  # vertices that are enough for the mean skin colour


class Stream(enum.IntEnum):
    """The uses of made portraits. Each draws from a series of its own, however many it takes: none is measured on
    what another has learnt from."""

    PACKED = 0  # by create_bin.py, the held-out ones included
    REGRESSOR = 1  # stage rec learns from them
    MIXED = 2  # stage render learns from them, among photos


@dataclass
class Portrait:
    """One made portrait and its truth.

    Attributes:
        rgba: (H, W, 4) uint8, the whole picture; alpha 255 = face surface of the model in sight
            over the whole pixel, 0 = everything else.
        coeff: (K,) float32 coefficients, as ``MorphableModel.split`` cuts them.
        albedo: (N, 3) float32 levels in [0, 255] with every detail.
        landmarks: (68, 2) float32 pixels, x right, y down; (0, 0) is the picture's corner.
        visible: (N,) bool, vertices seen in the picture.
    """

    rgba: np.ndarray
    coeff: np.ndarray
    albedo: np.ndarray
    landmarks: np.ndarray
    visible: np.ndarray


class PortraitMaker:
    """Makes portraits of person number ``index`` of an endless series; the same numbers give the same portrait.

    Safe to call from several threads.
    """

    def __init__(self, morphable: MorphableModel, size: int = 224, seed: int = 0, stream: Stream = Stream.PACKED,
                 expression_spread: float = 0.7, albedo_spread: float = 1.0):
        """Prepares what all portraits share.

        Args:
            morphable: the face model.
            size: width and height of the pictures in pixels.
            seed: the series, 0 or more.
            stream: what the portraits are for; others of the same seed have nothing in common.
            expression_spread: deviation of the coefficients of a usual expression.
            albedo_spread: deviation of the albedo coefficients; colours that no human skin has are
                pulled back towards the mean whatever it is.

        Raises:
            ValueError: size is not positive or seed is negative.
        """
        if size <= 0 or seed < 0:
            raise ValueError(f"size must be positive and seed 0 or more, got {size} and {seed}")
        self.morphable, self.size, self.seed, self.stream = morphable, int(size), int(seed), Stream(stream)
        self._sampler = CoefficientSampler(morphable, expression_spread, albedo_spread)
        self._details = AlbedoDetails(morphable)
        self._centered = morphable.mean_shape - morphable.mean_shape.mean(axis=0)
        skin = morphable.skin_index if morphable.skin_index.size else np.arange(morphable.vertex_count)
        self._skin = skin[::max(skin.size // _SKIN_SAMPLES, 1)]

    def make(self, index: int, picture: int = 0) -> Portrait:
        """Makes one portrait.

        Args:
            index: the person, 0 or more.
            picture: which picture of the person, 0 or more. All have the same identity, albedo and hair colour; pose,
                expression, light, hairstyle, what is worn and the camera differ. Picture 0 is posed as people sit for
                portraits; the others have any yaw up to ``looks.POSE.turned`` that is not near that of picture 0.

        Raises:
            ValueError: index or picture is negative.
        """
        person, hair, _, albedo, beard = self._person(index)
        parts, rng = self._parts(index, picture, person)
        shape = self._shape(parts["id"], parts["exp"])
        marks = shape[self.morphable.landmarks]
        rgba, visible = self._take(_Subject(shape, marks, parts, albedo, hair / 255, beard), rng)
        rotation = formation.rotation_matrix(parts["angles"])
        landmarks = formation.to_pixels(marks @ rotation.T + parts["translation"], self.size)
        return Portrait(rgba, _joined(parts), albedo, landmarks, visible)

    def coefficients(self, index: int, picture: int = 0) -> np.ndarray:
        """Coefficients (K,) float32 of a portrait, those of ``make(index, picture)``, without drawing it: fast.

        Args and raises: as ``make``.
        """
        return _joined(self._parts(index, picture, self._sampler.person(self._generator(index)))[0])

    def albedo(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Albedo (N, 3) float32 of a person by the model's basis alone, and with every detail, levels in [0, 255].

        Args and raises: as ``make``.
        """
        _, _, bare, painted, _ = self._person(index)
        return bare, painted

    def _person(self, index):
        """What all pictures of a person share: coefficients by name, hair colour, albedo of the basis and with details,
        fullness of the beard."""
        rng = self._generator(index)
        person = self._sampler.person(rng)
        hair = portrait_scene.hair_color(rng)
        bare = self._basis_albedo(person["tex"])
        return person, hair, bare, *self._details.paint(bare, hair, rng)

    def _generator(self, index, picture=None):
        """The random numbers of a person's picture, or of what is common to all of them."""
        if min(index, picture or 0) < 0:
            raise ValueError(f"persons and pictures are counted from 0, got {index} and {picture or 0}")
        part = 0 if picture is None else 1 + picture
        return np.random.default_rng(np.random.SeedSequence([self.seed, index], spawn_key=(int(self.stream), part)))

    def _parts(self, index, picture, person):
        """Coefficients by name, and the generator that goes on with the picture."""
        rng = self._generator(index, picture)
        angles = self._sampler.angles(rng)
        if picture:
            first = self._sampler.angles(self._generator(index, 0))
            angles = self._sampler.turned(angles, first, rng)
        return self._sampler.picture(person, angles, rng), rng

    def _shape(self, identity, expression):
        """Unposed vertices (N, 3), decimetre."""
        model = self.morphable
        return (self._centered + np.tensordot(model.id_basis, identity, 1)
                + np.tensordot(model.exp_basis, expression, 1))

    def _basis_albedo(self, tex):
        """Albedo (N, 3) of the basis alone, levels in [0, 255]."""
        return np.clip(self.morphable.mean_albedo + np.tensordot(self.morphable.albedo_basis, tex, 1), 0, 255)

    # ---------------------------------------------------------------- the picture
    def _take(self, subject, rng):
        """The finished picture (H, W, 4) uint8 and the visible vertices (N,)."""
        size, samples = self.size, self.size * _SUBPIXELS
        scene = self._scene(subject, rng)
        ids, barycentrics, _ = rasterize_numpy(formation.clip_coordinates(scene.vertices, scene.push),
                                               scene.triangles, samples, samples)
        image, face_cover, hair_cover = formation.resolve(
            ids, barycentrics, scene.triangles, scene.colors, scene.groups, portrait_scene.HAIR,
            portrait_overlay.hair_texture(size, rng), portrait_scene.background(size, rng), _SUBPIXELS)
        alpha = np.where(face_cover > 0.999, 255, 0).astype(np.uint8)
        if rng.random() < looks.SHADOW.chance:
            person = ids[::_SUBPIXELS, ::_SUBPIXELS] >= 0
            shine.cast_shadow(image, person, formation.to_pixels(subject.pose(subject.marks), size), rng)
        self._draw_over(portrait_overlay.Overlay(image, alpha), hair_cover, subject, scene, rng)
        rgba = np.dstack([portrait_overlay.photograph(image, rng), alpha])
        face = scene.vertices[:len(subject.shape)]
        view = np.float32((0, 0, camera.CAMERA_DISTANCE)) - face
        facing = np.einsum("ni,ni->n", view, scene.normals) > 0
        depths = camera.CAMERA_DISTANCE - scene.vertices[:, 2] + scene.push
        visible = formation.visible_vertices(
            formation.to_pixels(face, size), depths, facing, ids, barycentrics, scene.triangles, alpha,
            _SUBPIXELS, _DEPTH_TOLERANCE)
        return rgba, visible

    def _scene(self, subject, rng):
        """Face and surroundings as one mesh with lit colours."""
        forehead = subject.albedo[self._details.forehead].mean(axis=0) / 255
        crown = subject.shape[self._details.crown]
        surfaces = portrait_scene.head_surfaces(subject.marks, crown, forehead, subject.hair, rng)
        vertices, triangles = subject.pose(subject.shape), self.morphable.triangles
        normals = geometry.vertex_normals_numpy(vertices, triangles)
        pieces = [(vertices, normals, subject.albedo / 255, triangles, portrait_scene.FACE, 0.0)]
        start = len(vertices)
        for surface in surfaces:
            turned = surface.normals @ subject.rotation(surface.follows_head).T
            triangles = surface.triangles
            if surface.closed:
                triangles = triangles[(turned[:, 2] > -0.3)[triangles].any(axis=1)]
            pieces.append((subject.pose(surface.vertices, surface.follows_head), turned, surface.colors,
                           triangles + start, surface.group, surface.push))
            start += len(surface.vertices)
        vertices, all_normals, albedo, triangles, groups, push = zip(*pieces)
        colors = np.concatenate(albedo) * formation.shading(np.concatenate(all_normals), subject.parts["gamma"])
        if rng.random() < looks.GLOSS.chance:
            colors[self.morphable.skin_index] += shine.gloss(
                normals[self.morphable.skin_index], subject.parts["gamma"], rng)
        return _Scene(
            vertices=np.concatenate(vertices), normals=normals, triangles=np.concatenate(triangles),
            colors=np.clip(colors, 0, 1).astype(np.float32),
            groups=np.repeat(np.int32(groups), [len(t) for t in triangles]),
            push=np.repeat(np.float32(push), [len(v) for v in vertices]))

    def _draw_over(self, overlay, hair_cover, subject, scene, rng):
        """Teeth, beard, loose hair, glasses and other things in front of the face."""
        def to_pixels(points):
            return formation.to_pixels(subject.pose(points), self.size)

        if rng.random() < looks.MOUTH.drawn_chance:
            lips = self.morphable.landmarks[48:60]
            light = scene.colors[lips].mean() * 255 / max(subject.albedo[lips].mean(), 12)
            add_mouth(overlay, subject.marks, to_pixels, light, hair_cover, rng)
        roots = self._details.beard
        if subject.beard > 0.45 and rng.random() < 0.7 and roots.size:
            ids = rng.choice(roots, size=min(roots.size, int(900 * subject.beard)), replace=False)
            ids = ids[scene.normals[ids, 2] > -0.3]
            shade = scene.colors[ids].mean(axis=1) * 255 / np.maximum(subject.albedo[ids].mean(axis=1), 12)
            length = rng.uniform(0.03, 0.05 + 0.2 * subject.beard)
            portrait_overlay.add_beard(overlay, scene.vertices[ids], scene.normals[ids], length,
                                       subject.hair * np.clip(shade, 0, 2)[:, None], rng)
        if rng.random() < 0.45:
            skin = np.maximum(subject.albedo[self._skin].mean(axis=0) / 255, 0.02)
            light = np.clip(scene.colors[self._skin].mean(axis=0) / skin, 0.1, 1.5)
            portrait_overlay.add_strands(overlay, hair_cover, subject.hair * light, rng)
        if rng.random() < 0.28:
            portrait_overlay.add_glasses(overlay, subject.marks, to_pixels, rng)
        lit = scene.colors[self._skin].mean(axis=0)
        add_occluder(overlay, looks.choice(looks.OCCLUDERS, rng), subject.marks, to_pixels, lit, rng)


def _joined(parts):
    """Coefficients (K,) as ``MorphableModel.split`` cuts them."""
    return np.concatenate([parts[name] for name in ("id", "exp", "tex", "angles", "gamma", "translation")])


@dataclass
class _Subject:
    """Who is portrayed: unposed shape (N, 3) and landmarks (68, 3) in decimetre, coefficients by
    name, albedo (N, 3) in levels, hair colour (3,) in [0, 1], fullness of the beard."""

    shape: np.ndarray
    marks: np.ndarray
    parts: dict
    albedo: np.ndarray
    hair: np.ndarray
    beard: float

    def rotation(self, share=1.0):
        """Rotation matrix (3, 3) of a part that follows this share of the head's angles."""
        return formation.rotation_matrix(self.parts["angles"] * np.float32(share))

    def pose(self, points, share=1.0):
        """Points (M, 3) of the unposed head to world axes."""
        return points @ self.rotation(share).T + self.parts["translation"]


@dataclass
class _Scene:
    """Face (first) and surroundings: vertices (M, 3), the face's normals (N, 3), triangles, lit
    colours (M, 3), group of each triangle, extra distance from the camera of each vertex."""

    vertices: np.ndarray
    normals: np.ndarray
    triangles: np.ndarray
    colors: np.ndarray
    groups: np.ndarray
    push: np.ndarray


# -------------------------------------------------------------------- many portraits
def write_portraits(maker: PortraitMaker, directory: str, numbers: Iterable[int], workers: int = 2) -> list[str]:
    """Writes NAME.png (RGBA), NAME.txt (68 rows "x y", pixels, y down) and truth/NAME.npz; each file whole, the
    truth last, so that a portrait with a truth is complete.

    The ``.npz`` holds coeff, albedo, landmarks and visible as ``Portrait`` describes them.

    Args:
        maker: where they come from.
        directory: made if absent.
        numbers: which portraits; see ``portrait_name``.
        workers: threads.

    Returns:
        The names, in order.

    Raises:
        OSError: a file cannot be written.
    """
    numbers = list(numbers)

    def write(number):
        portrait, name = maker.make(number), portrait_name(number)
        path = os.path.join(directory, name)
        write_png(path + ".png", portrait.rgba, CROP_TEXT)
        write_text(path + ".txt", "".join(f"{x:.3f} {y:.3f}\n" for x, y in portrait.landmarks))
        write_npz(os.path.join(directory, "truth", name + ".npz"),
                  {"coeff": portrait.coeff, "albedo": portrait.albedo, "landmarks": portrait.landmarks,
                   "visible": portrait.visible})
        return name

    pool = concurrent.futures.ThreadPoolExecutor(max(workers, 1))
    try:
        return list(tqdm.tqdm(pool.map(write, numbers), total=len(numbers), desc="portraits", unit="portrait",
                              dynamic_ncols=True))
    finally:  # Ctrl-C waits for the portraits in hand, not for those ahead
        pool.shutdown(cancel_futures=True)


def portrait_name(number: int) -> str:
    """Name of a portrait's files: ``portrait_000007``."""
    return f"portrait_{number:06d}"
