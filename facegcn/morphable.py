"""The 3D morphable model: one linear face model, whatever its origin, in one ``.npz`` file.

Letters: N vertices, F triangles, B faces in a batch, Ki / Ke / Ka identity, expression and
albedo components. Unit decimetre, right-handed axes, y up, the face looks along +z.
The file format is described for model makers in ``docs/model_format.md``.
"""

from __future__ import annotations

import functools
import os
import zipfile
import zlib
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from facegcn import files
from facegcn.errors import ModelFileError

LIGHTING_COEFFICIENTS = 27  # 9 spherical harmonics for each of 3 channels
LANDMARK_COUNT = 68  # iBUG / Multi-PIE order

#: The five alignment points: left eye, right eye, nose tip, left and right mouth corner
#: ("left" = left in the picture), as groups of iBUG landmarks whose mean is taken.
FIVE_POINT_LANDMARKS = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47), (30,), (48,), (54,))


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

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                dtype = np.int32 if field.name in _INDEX_ARRAYS else np.float32
                setattr(self, field.name, np.ascontiguousarray(value, dtype=dtype))
        _check_arrays(self)
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
        """Twelve hexadecimal digits that differ for models that differ in any array."""
        return files.digest(*(f.name if getattr(self, f.name) is None else getattr(self, f.name) for f in fields(self)))

    @property
    def five_points(self) -> np.ndarray:
        """(5, 3) float32: eyes, nose tip, mouth corners of the mean face, decimetre, centred."""
        points = self.mean_shape[self.landmarks] - self._centroid
        return np.stack([points[list(group)].mean(axis=0) for group in FIVE_POINT_LANDMARKS])

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
        offsets = _combine(self.id_basis, id) + _combine(self.exp_basis, exp)
        return (self.mean_shape - self._centroid)[None] + offsets

    def albedo(self, tex) -> tf.Tensor:
        """Per-vertex albedo (B, N, 3), RGB in [0, 255]: mean + B_tex c, clipped.

        Args:
            tex: albedo coefficients (B, Ka).
        """
        return tf.clip_by_value(self.mean_albedo[None] + _combine(self.albedo_basis, tex), 0.0, 255.0)

    # ---------------------------------------------------------------- files
    def save(self, path: str) -> None:
        """Writes the model as a compressed ``.npz`` (to a temporary name, renamed when whole)."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)
                  if getattr(self, f.name) is not None}
        partial = f"{path}.partial.npz"
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        np.savez_compressed(partial, **arrays)
        os.replace(partial, path)

    @classmethod
    def load(cls, path: str) -> MorphableModel:
        """Reads a ``.npz`` model; never unpickles.

        Raises:
            ModelFileError: the file is absent or no ``.npz``, an array is missing, of object
                type, mis-shaped, or an index is out of range; the message names it.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                arrays = {f.name: data[f.name] for f in fields(cls) if f.name in data.files}
        except FileNotFoundError as error:
            raise ModelFileError(f"there is no morphable model at {path}") from error
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ModelFileError(f"{path} is not a readable .npz morphable model: {error}") from error
        missing = [f.name for f in fields(cls) if f.name != "uv" and f.name not in arrays]
        if missing:
            raise ModelFileError(f"{path} lacks the arrays {', '.join(missing)} "
                                 "(docs/model_format.md describes them)")
        try:
            return cls(**arrays)
        except ValueError as error:
            raise ModelFileError(f"{path}: {error}") from error


_INDEX_ARRAYS = ("triangles", "landmarks", "skin_index", "symmetry_pairs")


def _combine(basis: np.ndarray, coefficients) -> tf.Tensor:
    """Basis (N, 3, K) times coefficients (B, K) -> (B, N, 3)."""
    flat = basis.reshape(-1, basis.shape[2])
    product = tf.matmul(tf.convert_to_tensor(coefficients, tf.float32), flat, transpose_b=True)
    return tf.reshape(product, (-1, basis.shape[0], 3))


def _check_arrays(model: MorphableModel) -> None:
    """Raises ValueError naming the first array whose shape or index range is wrong."""
    count = model.mean_shape.shape[0] if model.mean_shape.ndim == 2 else -1
    expected = {"mean_shape": (count, 3), "id_basis": (count, 3, None),
                "exp_basis": (count, 3, None), "mean_albedo": (count, 3),
                "albedo_basis": (count, 3, None), "triangles": (None, 3),
                "landmarks": (LANDMARK_COUNT,), "skin_index": (None,),
                "symmetry_pairs": (None, 2), "uv": (count, 2)}
    for name, shape in expected.items():
        array = getattr(model, name)
        if array is None:
            continue
        fits = array.ndim == len(shape) and all(
            want is None or want == have for want, have in zip(shape, array.shape))
        if not fits:
            wanted = str(tuple("any" if s is None else "N" if s == -1 else s for s in shape))
            raise ValueError(f"array '{name}' has shape {array.shape}, expected {wanted}")
        if name in _INDEX_ARRAYS and array.size and not 0 <= array.min() <= array.max() < count:
            raise ValueError(f"array '{name}' has an index outside 0..{count - 1}")
        if name not in _INDEX_ARRAYS and not np.isfinite(array).all():
            raise ValueError(f"array '{name}' has values that are not finite")
