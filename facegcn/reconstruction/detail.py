"""The detail step behind the texture network: what the photo shows sharply, without its light and its occluders.

Ours. The network knows what faces are like and smooths what it is not sure of; the photo knows pores, lashes and moles.
Of the vertex colours that reproduce the photo best, the fine scales that the network's face lacks go into the albedo
where the camera sees the face; broad differences do where the photo's colour is trusted. All else stays in the lit
colours, which are the photo's own where it shows the face: light that the nine harmonics cannot hold, such as cast
shadows and gloss, occluders, noise. Letters: N vertices, F triangles, H W pixels, M pixels that show the face.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

from facegcn.completion import vertex_adjacency

STRENGTH = 0.78  # share of the detail that is believed, where the surface faces the camera
BROAD_POWER = 0.5  # of the trust, to which broad differences are believed
_BROAD = 60  # rounds of smoothing from which on a difference is broad
_GREATEST = 1.2  # logarithm of the factor by which detail may change an albedo
_GREATEST_LIGHT = 2.0  # and local light a shading
_HOLD = 0.01  # pull of each vertex to its colour before, against one pixel
_DARKEST, _BRIGHTEST, _DARKEST_SHADING = 0.02, 1.3, 0.1
_LEAST_PIXELS = 0.25  # of a vertex that is half believed
_ITERATIONS = 20


class Detail(NamedTuple):
    """What the step finds.

    Attributes:
        albedo: (N, 3) in [0, 1], with detail.
        light: (N, 3) factor of the shading that makes the lit colours the photo's; 1 where nothing is seen.
    """

    albedo: np.ndarray
    light: np.ndarray


class DetailStep:
    """Adds the photo's detail to textures of one template.

    Args:
        triangles: (F, 3).
        vertex_count: N.
    """

    def __init__(self, triangles, vertex_count: int):
        self._triangles = np.asarray(triangles)
        average = vertex_adjacency(triangles, vertex_count) + sp.identity(vertex_count, np.float32, "csr")
        self._average = sp.diags(1.0 / np.asarray(average.sum(axis=1)).ravel()).astype(np.float32) @ average

    def __call__(self, albedo, shading, facing, trust, photo, mask, ids, barycentrics) -> Detail:
        """One face.

        Args:
            albedo: (N, 3) of the network, in [0, 1].
            shading: (N, 3), see ``lighting.shading``.
            facing: (N,) the normal's z.
            trust: (N,) in the photo's colour, in [0, 1] (``completion``).
            photo: (H, W, 3) in [0, 1].
            mask: (H, W) bool, skin.
            ids: (H, W) triangle of each pixel, -1 = none.
            barycentrics: (H, W, 3) of each pixel.
        """
        albedo = np.clip(np.asarray(albedo, np.float32), _DARKEST, 1.0)
        shading = np.maximum(np.asarray(shading, np.float32), _DARKEST_SHADING)
        shown = _Pixels(self._triangles, len(albedo), photo, mask & (ids >= 0), ids, barycentrics)
        missing = _log(shown.reproduced(albedo * shading)) - np.log(albedo * shading)
        seen = shown.visible * np.clip(facing, 0.0, 1.0)
        broad = self._smooth(missing, seen, _BROAD)
        fine = np.clip(missing - broad, -_GREATEST, _GREATEST)
        believed = np.clip(trust, 0.0, 1.0) ** BROAD_POWER
        change = STRENGTH * seen[:, None] * fine + believed[:, None] * np.clip(broad, -_GREATEST, _GREATEST)
        detailed = np.clip(albedo * np.exp(change), 0.0, 1.0)
        lit = np.maximum(detailed, _DARKEST) * shading
        local = _log(shown.reproduced(lit)) - _log(lit)
        return Detail(detailed, np.exp(np.clip(local, -_GREATEST_LIGHT, _GREATEST_LIGHT)))

    def _smooth(self, values, weight, rounds):
        """Values (N, 3) averaged over ever wider neighbourhoods, each by its weight (N,)."""
        both = np.concatenate([values * weight[:, None], weight[:, None]], axis=1).astype(np.float32)
        for _ in range(rounds):
            both = self._average @ both
        return both[:, :3] / np.maximum(both[:, 3:], 1e-6)


class _Pixels:
    """The pixels of a photo that show a face, as its vertices draw them.

    Attributes:
        visible: (N,) how far each vertex's colour follows from the photo, in [0, 1].
    """

    def __init__(self, triangles, vertex_count, photo, mask, ids, barycentrics):
        corners = triangles[ids[mask]]
        rows = np.repeat(np.arange(len(corners)), 3)
        self._drawing = sp.csr_matrix((barycentrics[mask].astype(np.float32).ravel(), (rows, corners.ravel())),
                                      (len(corners), vertex_count))
        self._back = self._drawing.T.tocsr()
        self._normal = (self._back @ self._drawing + _HOLD * sp.identity(vertex_count, np.float32)).tocsr()
        self._inverse_diagonal = sp.diags(1.0 / self._normal.diagonal())
        self._photo = np.asarray(photo, np.float32)[mask]
        pixels = self._back @ np.ones(len(corners), np.float32)  # that each vertex has a share in
        self.visible = pixels / (pixels + _LEAST_PIXELS)

    def reproduced(self, colors) -> np.ndarray:
        """Vertex colours (N, 3) near ``colors`` whose picture is nearest to the photo: regularised least squares."""
        right = self._back @ (self._photo - self._drawing @ colors)
        change = [scipy.sparse.linalg.cg(self._normal, right[:, c], rtol=1e-3, maxiter=_ITERATIONS,
                                         M=self._inverse_diagonal)[0] for c in range(3)]
        return colors + np.stack(change, axis=1)


def _log(colors):
    return np.log(np.clip(colors, _DARKEST, _BRIGHTEST))
