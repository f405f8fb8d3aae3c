"""The detail step behind the texture network: what the photo shows sharply, without its light and its occluders.

Ours. The network knows what faces are like and smooths what it is not sure of; the photo knows pores, lashes and moles.
Of the vertex colours that reproduce the photo best, the fine scales that the network's face lacks go into the albedo
where the camera sees the face; broad differences do where the photo's colour is trusted, else they are light that the
nine harmonics cannot hold, such as cast shadows. What is left, gloss, occluders and noise, stays in the lit colours
alone, which are the photo's own where it shows the face. Letters: N vertices, F triangles, H W pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

from facegcn.completion import vertex_adjacency

STRENGTH = 0.7  # share of the detail that is believed, where the surface faces the camera
BROAD_POWER = 0.5  # of the trust, to which broad differences are believed
_BROAD, _FINE = 60, 6  # rounds of smoothing from which on a difference is broad; that local light has
_GREATEST = 1.2  # logarithm of the factor by which detail may change an albedo
_GREATEST_LIGHT = 1.0  # and local light a shading
_HOLD = 0.003  # pull of each vertex to its colour before, against one pixel
_DARKEST, _BRIGHTEST, _DARKEST_SHADING = 0.02, 1.3, 0.1
_LEAST_PIXELS = 0.25  # of a vertex that is half believed
_ITERATIONS = 30


class Detail(NamedTuple):
    """What the step finds.

    Attributes:
        albedo: (N, 3) in [0, 1], with detail.
        light: (N, 3) smooth factor of the shading that the harmonics lack; 1 where nothing is seen.
        lit: (N, 3) in [0, 1], the photo's colours, as near as vertices can draw them; albedo in light where it shows
            nothing.
    """

    albedo: np.ndarray
    light: np.ndarray
    lit: np.ndarray


class Missing(NamedTuple):
    """What a photo shows that a face lacks: logarithms of factors of its lit colours.

    Attributes:
        whole: (N, 3).
        broad: (N, 3) its broad scales.
        fine: (N, 3) the rest.
        seen: (N,) how far they are known, in [0, 1]: less where the surface turns away.
        visible: (N,) the same without regard to that.
    """

    whole: np.ndarray
    broad: np.ndarray
    fine: np.ndarray
    seen: np.ndarray
    visible: np.ndarray


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
        missing = self.missing(albedo, shading, facing, photo, mask, ids, barycentrics)
        believed = np.clip(trust, 0.0, 1.0) ** BROAD_POWER
        detailed = with_detail(albedo, STRENGTH * missing.seen[:, None] * missing.fine
                               + believed[:, None] * missing.broad)
        light = self.local_light(albedo, detailed, missing.whole, missing.visible)
        shading = np.maximum(np.asarray(shading, np.float32), _DARKEST_SHADING)
        return Detail(detailed, light, self.lit(detailed * shading * light, photo, mask, ids, barycentrics))

    def missing(self, albedo, shading, facing, photo, mask, ids, barycentrics) -> Missing:
        """What a photo shows that a face lacks; arguments as for a call."""
        albedo = np.clip(np.asarray(albedo, np.float32), _DARKEST, 1.0)
        shading = np.maximum(np.asarray(shading, np.float32), _DARKEST_SHADING)
        shown = self._shown(photo, mask, ids, barycentrics)
        whole = _log(shown.reproduced(albedo * shading)) - np.log(albedo * shading)
        seen = shown.visible * np.clip(facing, 0.0, 1.0)
        broad = self._smooth(whole, seen, _BROAD)
        fine = np.clip(whole - broad, -_GREATEST, _GREATEST)
        return Missing(whole, np.clip(broad, -_GREATEST, _GREATEST), fine, seen, shown.visible)

    def local_light(self, albedo, detailed, whole, visible) -> np.ndarray:
        """Factor (N, 3) of the shading that a photo's harmonics lack.

        Args:
            albedo: (N, 3) in [0, 1], beside which the photo was looked at.
            detailed: (N, 3) the same with detail.
            whole, visible: of its ``Missing``.
        """
        left = whole + np.log(np.clip(albedo, _DARKEST, 1.0)) - np.log(np.maximum(detailed, _DARKEST))
        local = self._smooth(left, visible, _FINE) * visible[:, None]
        return np.exp(np.clip(local, -_GREATEST_LIGHT, _GREATEST_LIGHT))

    def lit(self, colors, photo, mask, ids, barycentrics) -> np.ndarray:
        """The photo's colours (N, 3) in [0, 1], as near as vertices can draw them; ``colors`` (N, 3) where it shows
        nothing. Other arguments as for a call."""
        shown = self._shown(photo, mask, ids, barycentrics)
        return np.clip(shown.reproduced(np.asarray(colors, np.float32)), 0.0, 1.0)

    def _shown(self, photo, mask, ids, barycentrics):
        return _Pixels(self._triangles, self._average.shape[0], photo, mask & (ids >= 0), ids, barycentrics)

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


def with_detail(albedo, change) -> np.ndarray:
    """Albedo (N, 3) in [0, 1] times the exponential of a change (N, 3)."""
    return np.clip(np.clip(np.asarray(albedo, np.float32), _DARKEST, 1.0) * np.exp(change), 0.0, 1.0)
