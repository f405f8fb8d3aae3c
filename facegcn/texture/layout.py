"""The texture layout of a face model: its own where that can be used, else one made here.

Made: what a point inside the head sees of the surface, spread so that the face's front gets most, is one symmetric
island. What that point sees at a grazing angle, from behind or not at all (inside of lips, lids and nostrils) is
flattened by xatlas; parts of their own (eyeballs) are spread like the face. These lie in rows below the front.
Letters as in ``texture_layout``.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from facegcn import files
from facegcn.morphable import MorphableModel
from facegcn.rasterizer import rasterize_numpy
from facegcn.texture_layout import TextureLayout, signed_areas

MOST_OVERLAP = 0.01  # share of covered texels on which several triangles of a usable layout may lie
_MEASURED_AT = 1024  # texels a side for overlaps
_INSIDE = 0.9  # decimetre behind the foremost point: from there the front is seen
_SPREAD = 0.65  # of the angle: its sine is the distance from the middle; 0.5 keeps areas, 1 is the view from the front
_GRAZING = 0.15  # of the median texels per area: below it a triangle is no part of the front
_SMALLEST_PART = 16  # triangles
_TALL = 1.25  # times as high as wide: such an island is laid down
_FOLDED = 0.7  # texels along folded parts, against the front's
_MARGIN = 8 / 1024  # between islands, of the texture's side
_MOST_ROWS = 0.5  # of the texture's height that the rows may take
_ROUNDS = 20  # of making room for the rows


def layout_of(morphable: MorphableModel) -> TextureLayout:
    """The layout of a face model: the one that it holds, its ``uv``, or a made one (seconds).

    ``uv`` serves where it spans an area and at most ``MOST_OVERLAP`` of its texels belong to several triangles.
    """
    if morphable.texture is not None:
        return morphable.texture
    if morphable.uv is not None and overlap(own := _own(morphable)) <= MOST_OVERLAP:
        return own
    return made_layout(morphable.mean_shape, morphable.triangles)


def ensure_layout(config, morphable: MorphableModel) -> MorphableModel:
    """The model with a texture layout: its own, or one made now and kept in the data folder.

    Args:
        config: gives the data folder.
        morphable: any model.
    """
    if morphable.texture is not None:
        return morphable
    names = [field.name for field in dataclasses.fields(TextureLayout)]
    key = files.digest(morphable.digest, files.code_version("facegcn.texture.layout"))
    arrays = files.kept_npz(config.path(f"texture-{key}.npz"), names, lambda: vars(layout_of(morphable)),
                            "the face model's texture layout, once (seconds)")
    return dataclasses.replace(morphable, texture=TextureLayout(**arrays))


def overlap(layout: TextureLayout) -> float:
    """Share of the covered texels whose centre lies in several triangles; 1 where nothing is covered or a coordinate is
    not in [0, 1]."""
    uv, count = layout.uv, len(layout.triangles)
    if not np.isfinite(uv).all() or uv.min() < 0.0 or uv.max() > 1.0:
        return 1.0
    first = _drawn(uv, layout.triangles)  # of triangles at the same depth the first is drawn
    last = _drawn(uv, layout.triangles[::-1])
    covered = first >= 0
    return float((first != count - 1 - last)[covered].mean()) if covered.any() else 1.0


def _own(morphable) -> TextureLayout:
    """The model's coordinates as a layout."""
    return TextureLayout(morphable.uv, morphable.triangles, np.arange(morphable.vertex_count, dtype=np.int32))


def _drawn(uv, triangles, depth=0.0) -> np.ndarray:
    """Triangle of each texel, -1 = none; the least depth (M,) in [-1, 1] wins."""
    clip = np.column_stack([uv * 2.0 - 1.0, np.broadcast_to(depth, len(uv)), np.ones(len(uv))])
    return rasterize_numpy(clip, triangles, _MEASURED_AT, _MEASURED_AT)[0]


# ---------------------------------------------------------------- made layouts
def made_layout(shape: np.ndarray, triangles: np.ndarray) -> TextureLayout:
    """A layout of a face (N, 3), decimetre, y up, that looks along +z, with triangles (F, 3)."""
    shape, triangles = np.asarray(shape, np.float64), np.asarray(triangles, np.int64)
    uv, depth = _seen_from_inside(shape)
    front = _front(uv, depth, shape, triangles)
    inner = np.unique(triangles[front])
    low, size = uv[inner].min(axis=0), np.ptp(uv[inner], axis=0)
    uv = _MARGIN / 2 + (uv - low) / size * (1.0 - _MARGIN)
    if front.all():
        return _layout(uv[inner], front, triangles, inner, [])
    islands = _whole_parts(shape, triangles, ~front)
    taken = np.isin(np.arange(len(front)), np.concatenate([np.zeros(0, int), *(i.triangles for i in islands)]))
    islands += _flattened(shape, triangles, np.flatnonzero(~front & ~taken))
    density = np.median(signed_areas(uv, triangles[front]) / _spatial_areas(shape, triangles[front]))
    height = 0.0
    for _ in range(_ROUNDS):  # smaller rows as the front makes room for them
        places, wanted = _rows([island.uv for island in islands], np.sqrt(density * (1.0 - height)))
        height = min(0.5 * (height + wanted), _MOST_ROWS)
    places, wanted = _rows([island.uv for island in islands], np.sqrt(density * (1.0 - height)))
    uv[:, 1] = height + uv[:, 1] * (1.0 - height)
    places = [place * (1.0, min(1.0, height / wanted)) for place in places]
    return _layout(uv[inner], front, triangles, inner, [island._replace(uv=place)
                                                        for island, place in zip(islands, places)])


class _Island(NamedTuple):
    """A part of the surface that is flat in the texture.

    Attributes:
        uv: (K, 2) of its texture vertices.
        corners: (L, 3) texture vertices of its triangles.
        vertices: (K,) of the model.
        triangles: (L,) which of the model's triangles.
    """

    uv: np.ndarray
    corners: np.ndarray
    vertices: np.ndarray
    triangles: np.ndarray


def _seen_from_inside(shape):
    """The vertices (N, 2) as a point inside the head sees them, not yet in [0, 1], and depths (N,): the outermost is
    nearest to who looks from outside."""
    low, high = shape.min(axis=0), shape.max(axis=0)
    sight = shape - ((low[0] + high[0]) / 2, (low[1] + high[1]) / 2, high[2] - _INSIDE)
    distance = np.linalg.norm(sight, axis=1)
    return _spread(sight), -distance / distance.max()


def _spread(sight):
    """Directions (N, 3) to places (N, 2) about +z."""
    aside = np.linalg.norm(sight[:, :2], axis=1)
    return sight[:, :2] * (np.sin(_SPREAD * np.arctan2(aside, sight[:, 2])) / np.maximum(aside, 1e-9))[:, None]


def _front(uv, depth, shape, triangles):
    """Which triangles (F,) bool lie side by side in the front's island: in one piece, none behind another."""
    dense = signed_areas(uv, triangles) / _spatial_areas(shape, triangles)
    front = dense > _GRAZING * np.median(dense)
    unit = (uv - uv.min(axis=0)) / np.ptp(uv, axis=0)
    front &= _largest_piece(triangles, np.ones_like(front))
    while True:
        chosen = np.flatnonzero(front)
        outer, inner = (_drawn(unit, triangles[chosen], sign * depth) for sign in (1.0, -1.0))
        hidden = np.unique(inner[inner != outer])
        if not len(hidden):
            return _largest_piece(triangles, front)
        front[chosen[hidden]] = False


def _largest_piece(triangles, among):
    """Which of some triangles (F,) bool belong to the largest piece that hangs together by edges."""
    chosen = np.flatnonzero(among)
    labels = _pieces(triangles[chosen])
    found = np.zeros(len(triangles), bool)
    found[chosen[labels == np.bincount(labels).argmax()]] = True
    return found


def _pieces(triangles):
    """Number (F,) of the piece of each triangle; pieces hang together by edges."""
    edges = np.sort(np.concatenate([triangles[:, pair] for pair in ((0, 1), (1, 2), (2, 0))]), axis=1)
    owners = np.tile(np.arange(len(triangles)), 3)
    _, numbers = np.unique(edges, axis=0, return_inverse=True)
    shares = sp.csr_matrix((np.ones(len(owners), np.int8), (owners, numbers.ravel())))
    return connected_components(shares @ shares.T, directed=False)[1]


def _spatial_areas(shape, triangles):
    a, b, c = (shape[corner] for corner in triangles.T)
    return np.maximum(np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2, 1e-12)


def _whole_parts(shape, triangles, among) -> list[_Island]:
    """Parts of their own among some triangles (F,) bool, such as eyeballs, each as an island without a seam: spread
    about its front as the middle of the sphere that fits it sees it. Parts that would overlap so are left out."""
    labels, islands = _pieces(triangles), []
    for label in np.unique(labels[among]):
        mine = np.flatnonzero(labels == label)
        if not among[mine].all() or len(mine) < _SMALLEST_PART:
            continue
        inside, corners = np.unique(triangles[mine], return_inverse=True)
        points, corners = shape[inside], corners.reshape(-1, 3)
        fitted = np.linalg.lstsq(np.column_stack([2.0 * points, np.ones(len(points))]), (points ** 2).sum(axis=1),
                                 rcond=None)[0][:3]  # |p|^2 = 2 p . middle + constant
        island = _Island(_spread(points - fitted), corners, inside, mine)
        unit = (island.uv - island.uv.min(axis=0)) / np.ptp(island.uv, axis=0)
        areas = signed_areas(unit, corners)
        if (areas > 0.0).mean() >= 1.0 - MOST_OVERLAP and \
                overlap(TextureLayout(unit, corners, inside)) <= MOST_OVERLAP:
            islands.append(island._replace(uv=_upright(island, shape)))
    return islands


def _flattened(shape, triangles, chosen) -> list[_Island]:
    """Some triangles flattened by xatlas: islands, see ``_upright``."""
    import xatlas

    used, corners = np.unique(triangles[chosen], return_inverse=True)
    atlas, how = xatlas.Atlas(), xatlas.ChartOptions()
    how.max_cost, how.normal_deviation_weight, how.straightness_weight = 16.0, 1.0, 1.0  # few islands
    how.normal_seam_weight = 0.0
    atlas.add_mesh(shape[used].astype(np.float32), corners.reshape(-1, 3).astype(np.uint32))
    atlas.generate(how)
    origin, corners, uv = (np.asarray(array) for array in atlas[0])
    corners, uv, labels = corners.astype(np.int64), uv.astype(np.float64), _pieces(corners.astype(np.int64))
    islands = []
    for label in range(labels.max() + 1):
        mine = np.flatnonzero(labels == label)
        inside, own = np.unique(corners[mine], return_inverse=True)
        island = _Island(uv[inside], own.reshape(-1, 3), used[origin[inside]], chosen[mine])
        islands.append(island._replace(uv=_FOLDED * _upright(island, shape)))
    return islands


def _upright(island, shape):
    """Its coordinates in decimetres, with the winding of the surface, lying where they are tall, from 0 on."""
    uv, flat = island.uv, signed_areas(island.uv, island.corners)
    if flat.sum() < 0:
        uv = uv * (-1.0, 1.0)
    wanted = _spatial_areas(shape[island.vertices], island.corners).sum()
    uv = uv * np.sqrt(wanted / max(np.abs(flat).sum(), 1e-12))
    if np.ptp(uv[:, 1]) > _TALL * np.ptp(uv[:, 0]):
        uv = uv[:, ::-1] * (1.0, -1.0)  # a quarter turn
    return uv - uv.min(axis=0)


def _rows(islands, scale):
    """Islands (K, 2) times a scale, laid in rows from v = 0 upwards, the highest first: their places, and how high all
    rows are together."""
    boxes = [np.ptp(uv, axis=0) * scale for uv in islands]
    order = sorted(range(len(islands)), key=lambda i: (-boxes[i][1], -boxes[i][0], i))
    places, left, bottom, height = [None] * len(islands), _MARGIN / 2, _MARGIN / 2, 0.0
    for i in order:
        wide, high = boxes[i]
        if left + wide > 1.0 - _MARGIN / 2 and height:
            left, bottom, height = _MARGIN / 2, bottom + height + _MARGIN, 0.0
        height = height or high  # the first of a row is its highest
        narrowed = min(1.0, (1.0 - _MARGIN) / max(wide, 1e-12))
        places[i] = islands[i] * (scale * narrowed, scale) + (left, bottom)
        left += wide * narrowed + _MARGIN
    return places, bottom + height + _MARGIN / 2


def _layout(front_uv, front, triangles, inner, islands) -> TextureLayout:
    """Puts the front and the islands together."""
    corners = np.zeros(triangles.shape, np.int64)
    corners[front] = np.searchsorted(inner, triangles[front])
    count = len(inner)
    for island in islands:
        corners[island.triangles] = island.corners + count
        count += len(island.vertices)
    return TextureLayout(np.concatenate([front_uv, *(island.uv for island in islands)]).astype(np.float32),
                         corners.astype(np.int32),
                         np.concatenate([inner, *(island.vertices for island in islands)]).astype(np.int32))
