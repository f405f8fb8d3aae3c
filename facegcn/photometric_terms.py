"""What a photo's colours say about a face: residuals of the model's colours, and how each unknown changes them.

At vertex v, which the camera sees at pixel p, a residual of three channels is

    r_v = albedo_v(tex, d) * light(normal_v, gamma) - photo(p_v)

Shape and pose move p_v over the photo and turn normal_v under the light. The second is what shading knows of a shape;
without it a fit bends the face until the colours match. Normals move with the shape as they do around the mean face
(first order), and turn exactly with the head.

The unknowns u are identity, expression, angles, translation (``landmark_fitting``), albedo coefficients, amounts of the
details that the albedo has beyond its basis, light.
Letters: N vertices, S take part, R of them seen, U unknowns, K of those shape, Ka albedo, D details, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from facegcn import camera
from facegcn.backends import kernels
from facegcn.files import finite_as_float32
from facegcn.landmark_fitting import POSE_SIZE, rotation
from facegcn.lighting import AMBIENT_OFFSET, HARMONICS, ORDER_FACTORS

LIGHT_SIZE = 3 * HARMONICS
_WHITE = 0.97  # a photo's channel from which on it may be clipped: a model that is brighter is not wrong there
_LEAST_LENGTH = 1e-10  # of a normal before it is normalised
_MOST_DETAILS = 256


@dataclass(frozen=True)
class DetailPrior:
    """Distribution of what people's albedo has beyond a model's basis: beards, brows, lips, lids, uneven skin.

    Without it a fit takes the dark lower half of a bearded face for light from above.

    Attributes:
        mean: (N, 3) of the difference from the basis' albedo, in [-1, 1] of colours in [0, 1].
        modes: (N, 3, D) its main directions, each as long as the standard deviation that is expected along it.

    Raises:
        ValueError: the shapes do not fit, there are more than ``_MOST_DETAILS``, or something is not finite.
    """

    mean: np.ndarray
    modes: np.ndarray

    def __post_init__(self):
        if self.mean.shape[1:] != (3,) or self.modes.ndim != 3 or self.modes.shape[:2] != self.mean.shape \
                or self.modes.shape[2] > _MOST_DETAILS:
            raise ValueError(f"details need a mean (N, 3) and modes (N, 3, D), D up to {_MOST_DETAILS}, got "
                             f"{self.mean.shape} and {self.modes.shape}")
        if not (finite_as_float32(self.mean) and finite_as_float32(self.modes)):
            raise ValueError("a prior of details is not finite")


def harmonics(normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nine harmonics of ``lighting.sh_basis`` and their derivatives by the normal.

    Args:
        normals: (S, 3) unit vectors in world axes.

    Returns:
        (S, 9) values, (S, 9, 3) derivatives of the polynomials.
    """
    x, y, z = normals.T
    constant, first, second = ORDER_FACTORS
    middle = second / (2 * np.sqrt(3.0))
    values = np.stack([np.full_like(x, constant), -first * y, first * z, -first * x, second * x * y, -second * y * z,
                       middle * (3 * z * z - 1), -second * x * z, second / 2 * (x * x - y * y)], axis=1)
    slopes = np.zeros((len(normals), HARMONICS, 3), normals.dtype)
    slopes[:, 1, 1], slopes[:, 2, 2], slopes[:, 3, 0] = -first, first, -first
    slopes[:, 4, 0], slopes[:, 4, 1] = second * y, second * x
    slopes[:, 5, 1], slopes[:, 5, 2] = -second * z, -second * y
    slopes[:, 6, 2] = 6 * middle * z
    slopes[:, 7, 0], slopes[:, 7, 2] = -second * z, -second * x
    slopes[:, 8, 0], slopes[:, 8, 1] = second * x, -second * y
    return values, slopes


def between_pixels(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Bilinear values (S, C) of an image (H, W, C) at pixels (S, 2), x right, y down, the first pixel's centre at
    (0.5, 0.5); beyond the border those of the border."""
    height, width = image.shape[:2]
    place = np.clip(pixels - 0.5, 0.0, np.array([width - 1.0, height - 1.0]))
    corner = np.minimum(place.astype(np.int64), (max(width - 2, 0), max(height - 2, 0)))
    right, down = (place - corner).astype(np.float32).T[..., None]
    rows, column = image.reshape(height * width, -1), corner[:, 1] * width + corner[:, 0]
    across, below = min(width - 1, 1), min(height - 1, 1) * width
    upper = rows[column] * (1 - right) + rows[column + across] * right
    lower = rows[column + below] * (1 - right) + rows[column + below + across] * right
    return upper * (1 - down) + lower * down


class ColorTerms:
    """Residuals of a fixed choice of a model's vertices, and their derivatives.

    Args:
        morphable: a ``MorphableModel``.
        chosen: (S,) int vertices that take part.
        size: width of the square photo, pixels.
        details: what the albedo has beyond its basis; None = nothing.

    Attributes:
        chosen, details: the same.
        shape_size, basis_size, albedo_size: K, Ka, and Ka + D.
    """

    def __init__(self, morphable, chosen: np.ndarray, size: float, details: DetailPrior | None = None):
        self.chosen, self.details, self._half = chosen, details, size / 2.0
        self.shape_size = morphable.id_basis.shape[2] + morphable.exp_basis.shape[2]
        self.basis_size = morphable.albedo_basis.shape[2]
        ring, self._triangles, self._inner = _surroundings(morphable.triangles, chosen, morphable.vertex_count)
        centered = morphable.mean_shape - morphable.mean_shape.mean(axis=0, dtype=np.float64)
        self._mean = centered[ring].astype(np.float32)
        self._basis = np.concatenate([morphable.id_basis[ring], morphable.exp_basis[ring]], axis=2)
        # Side by side, so that one product per vertex serves both ways in which the shape shows
        self._moves = np.concatenate([self._basis[self._inner], _normal_slopes(
            self._mean.astype(np.float64), self._basis, self._triangles, self._inner)], axis=1)
        self._bare = self._albedo = morphable.mean_albedo[chosen] / np.float32(255)
        self._albedo_basis = morphable.albedo_basis[chosen] / np.float32(255)
        if details is not None:
            self._albedo = self._bare + details.mean[chosen].astype(np.float32)
            self._albedo_basis = np.concatenate([self._albedo_basis, details.modes[chosen]], axis=2, dtype=np.float32)
        self.albedo_size = self._albedo_basis.shape[2]

    @property
    def unknowns(self) -> int:
        """U."""
        return self.shape_size + POSE_SIZE + self.albedo_size + LIGHT_SIZE

    def split(self, u):
        """Shape (K,), angles (3,), translation (3,), albedo (Ka + D,), light (3, 9) with the ambient offset."""
        stops = np.cumsum([self.shape_size, 3, 3, self.albedo_size])
        *parts, gamma = np.split(u, stops)
        light = gamma.reshape(3, HARMONICS).copy()
        light[:, 0] += AMBIENT_OFFSET
        return (*parts, light)

    def place(self, u: np.ndarray) -> dict[str, np.ndarray]:
        """Where the vertices are.

        Args:
            u: (U,) unknowns.

        Returns:
            float32 by name: ``shape`` and ``normals`` before pose (S, 3), ``world`` (S, 3), ``pixels`` (S, 2) and
            ``facing`` (S,), the cosine of the viewing angle.
        """
        coefficients, angles, translation, _, _ = self.split(u)
        around = self._mean + self._basis @ coefficients.astype(np.float32)
        sums = np.zeros_like(around)
        kernels.normal_sums(around, self._triangles, sums)
        shape, normals = around[self._inner], unit(sums[self._inner])
        turn = rotation(angles)[0].astype(np.float32)
        world = shape @ turn.T + translation.astype(np.float32)
        return {"shape": shape, "normals": normals, "world": world, "pixels": to_pixels(world, self._half),
                "facing": facing(world, normals @ turn.T)}

    def errors(self, u, place, rows, photo, beyond=None):
        """Residuals (R, 3), the albedo (R, 3), harmonics (R, 9) and their slopes (R, 9, 3), light (R, 3).

        Args:
            u: (U,) unknowns.
            place: as ``place`` returns it.
            rows: (R,) int which of the S vertices.
            photo: (R, 3) colours there, in [0, 1].
            beyond: (S, 3) what the albedo has that basis and details lack, in [0, 1]; None = nothing.
        """
        _, angles, _, tex, light = self.split(u)
        normals = place["normals"][rows] @ rotation(angles)[0].astype(np.float32).T
        values, slopes = harmonics(normals)
        albedo = self._albedo[rows] + self._albedo_basis[rows] @ tex.astype(np.float32)
        if beyond is not None:
            albedo = albedo + beyond[rows]
        shading = values @ light.astype(np.float32).T
        return albedo * shading - photo, albedo, values, slopes, shading

    def coarse(self, rows):
        """Of vertices (R,), the mean albedo (R, 3) in [0, 1] and its basis (R, 3, Ka), without details."""
        return self._bare[rows], self._albedo_basis[rows, :, :self.basis_size]

    def linearised(self, u, place, rows, layers, beyond=None):
        """Residuals and their derivatives.

        Args:
            u: (U,) unknowns.
            place: as ``place`` returns it.
            rows: (R,) int which of the S vertices.
            layers: (R, >= 9) of the photo at their pixels: colours in [0, 1], their derivatives along x, along y, per
                pixel.
            beyond: as for ``errors``.

        Returns:
            (R, 3) and (R, 3, U), float32; both 0 where the photo is overexposed and the face brighter.
        """
        _, angles, _, _, light = self.split(u)
        errors, albedo, values, slopes, shading = self.errors(u, place, rows, layers[:, :3], beyond)
        turn, turn_slopes = (part.astype(np.float32) for part in rotation(angles))
        gradient = np.stack([layers[:, 3:6], layers[:, 6:9]], axis=2)
        by_world = -gradient @ _lens(place["world"][rows], self._half)
        by_normal = albedo[:, :, None] * np.tensordot(slopes, light.astype(np.float32), (1, 1)).transpose(0, 2, 1)
        jacobian = np.zeros((len(rows), 3, self.unknowns), np.float32)
        pose = self.shape_size
        jacobian[:, :, :pose] = np.concatenate([by_world @ turn, by_normal @ turn], axis=2) @ self._moves[rows]
        jacobian[:, :, pose:pose + 3] = (
            by_world @ np.einsum("aij,mj->mia", turn_slopes, place["shape"][rows])
            + by_normal @ np.einsum("aij,mj->mia", turn_slopes, place["normals"][rows]))
        jacobian[:, :, pose + 3:pose + POSE_SIZE] = by_world
        lit = pose + POSE_SIZE + self.albedo_size
        jacobian[:, :, pose + POSE_SIZE:lit] = self._albedo_basis[rows] * shading[:, :, None]
        for channel in range(3):
            start = lit + channel * HARMONICS
            jacobian[:, channel, start:start + HARMONICS] = albedo[:, channel, None] * values
        open_end = overexposed(layers[:, :3], errors)
        errors[open_end], jacobian[open_end] = 0.0, 0.0
        return errors, jacobian


def overexposed(colors, errors):
    """Which channels (R, 3) of a photo say only that the face is no darker: they may be clipped, and it is brighter."""
    return (colors > _WHITE) & (errors > 0)


# ---------------------------------------------------------------- geometry of one face
def to_pixels(world, half):
    """World points (S, 3) to pixels (S, 2), x right, y down, of a square picture twice ``half`` wide."""
    scale = half / (camera.TAN_HALF_FOV * (camera.CAMERA_DISTANCE - world[:, 2:]))
    return world[:, :2] * np.float32((1, -1)) * scale + np.float32(half)


def facing(world, normals):
    """Cosine (S,) between normals (S, 3) and the way to the camera."""
    view = np.float32((0, 0, camera.CAMERA_DISTANCE)) - world
    return np.einsum("si,si->s", view, normals) / np.linalg.norm(view, axis=1)


def unit(vectors):
    """Vectors (S, 3) of length 1; zero ones stay so."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _LEAST_LENGTH)


def _lens(world, half):
    """Derivatives (R, 2, 3) of the pixels by the world points (R, 3)."""
    depth = camera.CAMERA_DISTANCE - world[:, 2]
    scale = half / (camera.TAN_HALF_FOV * depth)
    lens = np.zeros((len(world), 2, 3), np.float32)
    lens[:, 0, 0], lens[:, 1, 1] = scale, -scale
    lens[:, 0, 2], lens[:, 1, 2] = world[:, 0] * scale / depth, -world[:, 1] * scale / depth
    return lens


def _surroundings(triangles, chosen, count):
    """Vertices that share a triangle with the chosen ones, those triangles among them, and the chosen ones' rows."""
    needed = np.zeros(count, bool)
    needed[chosen] = True
    kept = triangles[needed[triangles].any(axis=1)]
    ring = np.union1d(kept, chosen)
    return ring, np.searchsorted(ring, kept).astype(np.int32), np.searchsorted(ring, chosen)


def _normal_slopes(mean, basis, triangles, rows):
    """Derivatives (S, 3, K) float32 of the unit normals at some rows by the shape, at the mean shape."""
    corners = [np.array(triangles[:, k]) for k in range(3)]
    first, second = mean[corners[0]] - mean[corners[1]], mean[corners[1]] - mean[corners[2]]
    faces = np.arange(len(triangles))
    sums = scipy.sparse.coo_matrix((np.ones(triangles.size), (triangles.T.ravel(), np.tile(faces, 3))),
                                   (len(mean), len(triangles))).tocsr()[rows]
    total = sums @ np.cross(first, second)
    lengths = np.maximum(np.linalg.norm(total, axis=1), _LEAST_LENGTH)
    normals = total / lengths[:, None]
    slopes = np.empty((len(rows), 3, basis.shape[2]), np.float32)
    for k in range(basis.shape[2]):
        move = basis[..., k].astype(np.float64)
        d_first, d_second = move[corners[0]] - move[corners[1]], move[corners[1]] - move[corners[2]]
        change = sums @ (np.cross(d_first, second) + np.cross(first, d_second))
        along = np.einsum("si,si->s", normals, change)
        slopes[..., k] = (change - normals * along[:, None]) / lengths[:, None]
    return slopes
