"""The 3D morphable model: one linear face model, whatever its origin, in one ``.npz`` file.

Letters: N vertices, F triangles, B faces in a batch, Ki / Ke / Ka identity, expression and
albedo components. Unit decimetre, right-handed axes, y up, the face looks along +z.
The file format is described for model makers in ``docs/model_format.md``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from facegcn import files
from facegcn.errors import ModelFileError
from facegcn.face_parts import FaceParts
from facegcn.landmarks import five_points
from facegcn.model_format import (
    ARRAYS,
    BLENDSHAPE_ARRAYS,
    EMBEDDING_ARRAYS,
    MADE_BY,
    PART_ARRAYS,
    TEXTURE_ARRAYS,
    check_conventions,
    check_headers,
    check_values,
    read_model_file,
)
from facegcn.surface_points import LandmarkEmbedding
from facegcn.texture_layout import TextureLayout

LIGHTING_COEFFICIENTS = 27  # 9 spherical harmonics for each of 3 channels


#: Typical size of each part of the coefficients, in its unit, over photographs: standard deviations of the model; a
#: head turns by some 0.3 radians, light varies by a third, an aligned face moves by 2 cm.
PART_SCALES = {"id": 1.0, "exp": 1.0, "tex": 1.0, "angles": 0.3, "gamma": 0.3, "translation": 0.2}


class Coefficients(NamedTuple):
    """A coefficient vector cut into its named parts; each keeps the leading batch axis.

    Attributes:
        id: identity (B, Ki), in standard deviations.
        exp: expression (B, Ke), in standard deviations.
        tex: albedo (B, Ka), in standard deviations.
        angles: rotation about x, y, z (B, 3), radians.
        gamma: spherical-harmonics lighting (B, 27), channel by channel.
        translation: (B, 3), decimetre.
    """

    id: object
    exp: object
    tex: object
    angles: object
    gamma: object
    translation: object


@dataclass
class MorphableModel:
    """Linear model of face shape and albedo.

    Attributes:
        mean_shape: (N, 3) float32, decimetre.
        id_basis: (N, 3, Ki) float32, decimetre per standard deviation.
        exp_basis: (N, 3, Ke) float32, decimetre per standard deviation.
        mean_albedo: (N, 3) float32, RGB in [0, 255].
        albedo_basis: (N, 3, Ka) float32, RGB levels per standard deviation.
        triangles: (F, 3) int32, 0-based, counter-clockwise seen from outside.
        landmarks: (68,) int32 vertex indices, iBUG order.
        skin_index: (S,) int32 vertices of the skin region (no eyes, lips' inside, nostrils).
        symmetry_pairs: (P, 2) int32 vertex pairs (left, right) that mirror each other.
        uv: optional (N, 2) float32 texture coordinates in [0, 1], v up.
        made_by: the converter that made it, in which version; "" for others.
        embedding: where the dense landmarks lie on it, or None where that is not known yet.
        blendshapes: optional (N, 3, A) float32, decimetre, displacement by each named expression at full activation.
        blendshape_names: A of ``blendshapes.ARKIT_NAMES``; () where there are none.
        parts: eyeballs, teeth, gums and tongue, or None; only beside blendshapes.
        texture: where its surface lies in a texture, or None where no layout was made yet.

    A basis may have no components: (N, 3, 0).

    Raises:
        ModelFileError: an array is mis-shaped, not of numbers, not finite, or has an index out of range.
    """

    mean_shape: np.ndarray
    id_basis: np.ndarray
    exp_basis: np.ndarray
    mean_albedo: np.ndarray
    albedo_basis: np.ndarray
    triangles: np.ndarray
    landmarks: np.ndarray
    skin_index: np.ndarray
    symmetry_pairs: np.ndarray
    uv: np.ndarray | None = None
    made_by: str = ""
    embedding: LandmarkEmbedding | None = None
    blendshapes: np.ndarray | None = None
    blendshape_names: tuple[str, ...] = ()
    parts: FaceParts | None = None
    texture: TextureLayout | None = None

    def __post_init__(self):
        arrays = {name: np.asarray(getattr(self, name)) for name in ARRAYS if getattr(self, name) is not None}
        embedded = {name: np.asarray(array) for name, array in self._embedding_arrays().items()}
        named, beside = self._blendshape_arrays(), self._part_arrays()
        laid = {name: np.asarray(array) for name, array in self._texture_arrays().items()}
        checked = {**arrays, **embedded, **named, **beside, **laid}
        check_headers({name: (array.shape, array.dtype) for name, array in checked.items()})
        check_values(checked)
        for name, array in arrays.items():
            setattr(self, name, _stored(array, ARRAYS[name]))
        if embedded:
            self.embedding = _embedding({name: _stored(embedded[name], EMBEDDING_ARRAYS[name]) for name in embedded})
        if named:
            self.blendshapes = np.ascontiguousarray(self.blendshapes, np.float32)
            self.blendshape_names = tuple(str(name) for name in self.blendshape_names)
        if beside:
            self.parts = _parts(beside)
        if laid:
            self.texture = _texture({name: _stored(laid[name], TEXTURE_ARRAYS[name]) for name in laid})
        self._centroid = self.mean_shape.mean(axis=0)

    # ---------------------------------------------------------------- sizes
    @property
    def vertex_count(self) -> int:
        """Number of vertices N."""
        return self.mean_shape.shape[0]

    @property
    def part_sizes(self) -> tuple[int, int, int, int, int, int]:
        """Widths of identity, expression, albedo, angles, lighting and translation."""
        return (self.id_basis.shape[2], self.exp_basis.shape[2], self.albedo_basis.shape[2],
                3, LIGHTING_COEFFICIENTS, 3)

    @property
    def coefficient_count(self) -> int:
        """Length of a coefficient vector (257 for BFM09)."""
        return sum(self.part_sizes)

    @functools.cached_property
    def digest(self) -> str:
        """Twelve hexadecimal digits that differ for models that differ in any array. Some do not count, since
        nothing that is trained, fitted or kept depends on them: embedding and texture layout, which are made from the
        others on demand, and the named expressions and parts, which only animate what was reconstructed."""
        return files.digest(*(name if getattr(self, name) is None else getattr(self, name) for name in ARRAYS))

    @property
    def five_points(self) -> np.ndarray:
        """(5, 3) float32: eyes, nose tip, mouth corners of the mean face, decimetre, centred."""
        return five_points(self.mean_shape[self.landmarks] - self._centroid)

    # ---------------------------------------------------------------- evaluation
    def split(self, coeff) -> Coefficients:
        """Cuts coefficient vectors (B, K) into their parts.

        Raises:
            ValueError: the last axis is not ``coefficient_count`` long.
        """
        if coeff.shape[-1] != self.coefficient_count:
            raise ValueError(f"expected {self.coefficient_count} coefficients "
                             f"{self.part_sizes}, got shape {tuple(coeff.shape)}")
        stops = np.cumsum(self.part_sizes)
        return Coefficients(*(coeff[..., stop - size:stop]
                              for stop, size in zip(stops, self.part_sizes)))

    def vertices(self, id, exp) -> tf.Tensor:
        """Vertices (B, N, 3) in decimetre before pose: mean + B_id a + B_exp b - centroid(mean).

        Args:
            id: identity coefficients (B, Ki).
            exp: expression coefficients (B, Ke).
        """
        id_basis, exp_basis, _ = self._bases
        offsets = _combine(id_basis, id) + _combine(exp_basis, exp)
        return (self.mean_shape - self._centroid)[None] + offsets

    def albedo(self, tex) -> tf.Tensor:
        """Per-vertex albedo (B, N, 3), RGB in [0, 255]: mean + B_tex c, clipped.

        Args:
            tex: albedo coefficients (B, Ka).
        """
        return tf.clip_by_value(self.mean_albedo[None] + _combine(self._bases[2], tex), 0.0, 255.0)

    @functools.cached_property
    def _bases(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Bases (N, 3, K) of identity, expression and albedo. Made eagerly, so that graphs only capture them: a graph
        with such constants has a copy, some hundred megabytes, in each of the forms that TensorFlow gives it."""
        with tf.init_scope():
            return tuple(map(tf.constant, (self.id_basis, self.exp_basis, self.albedo_basis)))

    # ---------------------------------------------------------------- files
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, ``uv`` where there is one; those of the embedding, named expressions, parts and texture
        layout aside."""
        return {name: getattr(self, name) for name in ARRAYS if getattr(self, name) is not None}

    def _embedding_arrays(self) -> dict[str, np.ndarray]:
        """The embedding's arrays by their names in a file; {} where there is none."""
        if self.embedding is None:
            return {}
        return {name: getattr(self.embedding, name.removeprefix("dense_")) for name in EMBEDDING_ARRAYS}

    def _blendshape_arrays(self) -> dict[str, np.ndarray]:
        """The named expressions' arrays by their names in a file; {} where there are none."""
        given = {"blendshapes": self.blendshapes, "blendshape_names": tuple(self.blendshape_names) or None}
        return {name: np.asarray(given[name]) for name in BLENDSHAPE_ARRAYS if given[name] is not None}

    def _part_arrays(self) -> dict[str, np.ndarray]:
        """The parts' arrays by their names in a file; {} where there are none."""
        if self.parts is None:
            return {}
        return {name: np.asarray(getattr(self.parts, name.removeprefix("part_"))) for name in PART_ARRAYS}

    def _texture_arrays(self) -> dict[str, np.ndarray]:
        """The texture layout's arrays by their names in a file; {} where there is none."""
        if self.texture is None:
            return {}
        return {name: getattr(self.texture, name.removeprefix("texture_")) for name in TEXTURE_ARRAYS}

    def save(self, path: str) -> None:
        """Writes the model as a compressed ``.npz``, whole. Raises OSError as ``files.written_whole``."""
        made_by = {MADE_BY: np.array(self.made_by)} if self.made_by else {}
        files.write_npz(path, {**self.arrays(), **self._embedding_arrays(), **self._blendshape_arrays(),
                               **self._part_arrays(), **self._texture_arrays(), **made_by})

    @classmethod
    def load(cls, path: str) -> MorphableModel:
        """Reads a ``.npz`` model; never unpickles.

        Raises:
            ModelFileError: the file is absent or no whole ``.npz``; an array is missing, mis-shaped, not of numbers
                or out of range; or the model breaks a convention of the format (unit, axes, order of landmarks and
                triangles, range of colours). The message names it, and the cure.
        """
        arrays = read_model_file(path)
        made_by = str(arrays.pop(MADE_BY, ""))
        embedded = {name: arrays.pop(name) for name in EMBEDDING_ARRAYS if name in arrays}
        beside = {name: arrays.pop(name) for name in PART_ARRAYS if name in arrays}
        if "blendshape_names" in arrays:
            arrays["blendshape_names"] = tuple(arrays["blendshape_names"].tolist())
        laid = {name: arrays.pop(name) for name in TEXTURE_ARRAYS if name in arrays}
        try:
            model = cls(**arrays, made_by=made_by, embedding=_embedding(embedded) if embedded else None,
                        parts=_parts(beside) if beside else None, texture=_texture(laid) if laid else None)
            model.check_conventions()
        except ModelFileError as error:
            raise ModelFileError(f"{path}: {error}") from error
        return model

    def check_conventions(self) -> None:
        """Raises ModelFileError where ``load`` would, for a model that is not from a file."""
        check_conventions({**self.arrays(), **self._blendshape_arrays()})


def _stored(array, wanted) -> np.ndarray:
    """The array in the type of its ``ArrayFormat``."""
    return np.ascontiguousarray(array, dtype=np.int32 if wanted.index else np.float32)


def _embedding(arrays) -> LandmarkEmbedding:
    """From arrays by their names in a file."""
    return LandmarkEmbedding(**{name.removeprefix("dense_"): array for name, array in arrays.items()})


def _parts(arrays) -> FaceParts:
    """From arrays by their names in a file, in the types of the format."""
    stored = {name: tuple(array.tolist()) if PART_ARRAYS[name].text else _stored(array, PART_ARRAYS[name])
              for name, array in arrays.items()}
    return FaceParts(**{name.removeprefix("part_"): array for name, array in stored.items()})


def _texture(arrays) -> TextureLayout:
    """From arrays by their names in a file."""
    return TextureLayout(**{name.removeprefix("texture_"): array for name, array in arrays.items()})


def _combine(basis: tf.Tensor, coefficients) -> tf.Tensor:
    """Basis (N, 3, K) times coefficients (B, K) -> (B, N, 3); zeros where K is 0."""
    flat = tf.reshape(basis, (3 * basis.shape[0], basis.shape[2]))
    product = tf.matmul(tf.convert_to_tensor(coefficients, tf.float32), flat, transpose_b=True)
    return tf.reshape(product, (-1, basis.shape[0], 3))
