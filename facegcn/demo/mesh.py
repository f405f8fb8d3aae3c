"""The template mesh of the procedural face: any density, mirror-symmetric to the last vertex.

The half with x >= 0 is meshed and mirrored. Its skin is a centroidal Voronoi tessellation
(Du, Faber, Gunzburger, SIAM Review 41, 1999) of the template plane, measured on the surface and
finer at the eyes, nose and mouth; its holes (eye, nostril, mouth) are closed by rings that fold
inwards, an eyeball and a mouth bag with teeth. Millimetres, see ``demo.surface``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.spatial import Delaunay, cKDTree
from skimage.measure import points_in_poly

from facegcn.demo import parts, surface
from facegcn.demo.parts import BOTTOM, TOP, Half
from facegcn.demo.triangulation import flip_edges, recover_edges, turns

SIDE = 97.0  # template coordinate s of the skin's border
LLOYD_STEPS = 14
SAMPLES_PER_SITE = 30


@dataclass
class Template:
    """The mean neutral face, registered: every generated face has these vertices.

    Attributes:
        points: (N, 3) positions, millimetres.
        st: (N, 2) template coordinates; a vertex of a fold has those of the rim it hangs from.
        part: (N,) part number, one of ``demo.parts``' constants.
        depth: (N,) how far along its part a vertex is: ring of a fold, radius on the iris in mm,
            row of the mouth bag; 0 on the skin.
        triangles: (F, 3) counter-clockwise from outside.
        pairs: (P, 2) mirrored vertices, (x < 0, x > 0); those on the midline are left out.
        landmarks: (68,) vertices in iBUG order.
        uv: (N, 2) in [0, 1].
    """

    points: np.ndarray
    st: np.ndarray
    part: np.ndarray
    depth: np.ndarray
    triangles: np.ndarray
    pairs: np.ndarray
    landmarks: np.ndarray
    uv: np.ndarray


class _Outline(NamedTuple):
    """Fixed points of the half skin: (n, 2) template coordinates and named index groups."""

    points: np.ndarray
    groups: dict


def make_template(vertices: int) -> Template:
    """Meshes the mean face with ``vertices`` vertices, or one more.

    Args:
        vertices: at least 2000, below which eyes and lips cannot be shaped.

    Raises:
        ValueError: ``vertices`` is below 2000.
    """
    if vertices < 2000:
        raise ValueError(f"a face needs at least 2000 vertices, got {vertices}")
    rng = np.random.default_rng(20)  # the template does not depend on the model's seed
    samples, edge = _samples(vertices, rng)
    outline = _outline(edge)
    extras = [parts.eyeball(edge), parts.mouth_bag(edge)]
    folds, folds_middle = _fold_sizes(outline)
    middle = (len(outline.groups["upper midline"]) + len(outline.groups["lower midline"]) + folds_middle
              + sum(extra.middle.sum() for extra in extras))
    half = int(np.ceil((vertices + middle) / 2))  # those on the midline serve both halves
    free = half - len(outline.points) - folds - sum(len(extra.points) for extra in extras)
    sites = _relax(outline.points, samples, free, rng)
    skin = _skin_with_folds(sites, _triangulate(sites, outline), outline)
    return _mirror(parts.join([skin, *extras]), _landmarks(sites, outline))


# ------------------------------------------------------------------ density
def edge_length(x, y):
    """Relative edge length wanted at (|x|, y): 1 at eyes, nostrils and lips, 3 at the borders."""
    b = surface.bump
    fine = np.maximum.reduce([
        b(x, y, 31, 0, 24, 15, power=1.5), b(x, y, 9, -41, 15, 12, power=1.5),
        b(x, y, 0, -71, 36, 17, power=1.5), 0.75 * b(x, y, 0, -20, 20, 32), 0.55 * b(x, y, 30, -25, 45, 40),
        0.75 * b(x, y, 30, 20, 26, 10), 0.5 * b(x, y, 0, -100, 30, 20)])
    return 3.0 - 2.0 * np.minimum(fine, 1.0)


def _inside(st):
    """Whether points of the half plane lie on the skin (not in a hole)."""
    s, t = st.T
    x, y = plain_features(s, t)
    inside = s < _border(t)
    eye = (x > surface.INNER_CANTHUS) & (x < surface.OUTER_CANTHUS)
    eye &= (y < surface.upper_lid(x)) & (y > surface.lower_lid(x))
    mouth = np.abs(t - surface.mouth_line(x)) < surface.mouth_opening(x)
    nostril = parts.nostril_distance(x, y) < 1
    return inside & ~eye & ~mouth & ~nostril


def _border(t):
    """s of the skin's border at t (0 beyond top and bottom)."""
    room = 1 - (np.clip(t + 5, 0, None) / (TOP + 5)) ** 2.6 - (np.clip(-50 - t, 0, None) / (-50 - BOTTOM)) ** 2.2
    return SIDE * np.sqrt(np.clip(room, 0, None))


def plain_features(s, t):
    """Feature coordinates with the mouth left open."""
    return surface.row_weights(t) @ surface.ROWS[:, 2] * np.sin(np.abs(s) / 100 * surface.SWEEP), t


def _opened_skin(st):
    """Skin points with the mouth open, so that the lips are not near each other: distances."""
    points = surface.skin(*st.T)[0]
    points[:, 1] += st[:, 1] - surface.feature_coordinates(*st.T)[1]
    return points


class _Samples(NamedTuple):
    """A dense random covering of the half skin, each sample standing for as many vertices."""

    st: np.ndarray  # (m, 2) template coordinates
    points: np.ndarray  # (m, 3) on the surface, mouth open
    weight: np.ndarray  # (m,) for Lloyd's algorithm


def _samples(vertices, rng):
    """Samples of the skin, and the edge length (mm, where ``edge_length`` is 1) for ``vertices``."""
    s, t = np.meshgrid(np.arange(0.4, SIDE, 0.8), np.arange(BOTTOM + 0.4, TOP, 0.8))
    cells = np.stack([s.ravel(), t.ravel()], axis=1)
    cells = cells[_inside(cells)]
    step = 0.05
    points = _opened_skin(cells)
    across = (_opened_skin(cells + (step, 0)) - points) / step
    along = (_opened_skin(cells + (0, step)) - points) / step
    area = 0.64 * np.linalg.norm(np.cross(across, along), axis=1)
    mass = area / edge_length(*plain_features(*cells.T)) ** 2
    # 0.866 edge^2 is the area per vertex of a triangular lattice; 0.83 leaves room for the parts.
    edge = np.sqrt(mass.sum() / (0.866 * 0.83 * vertices / 2))
    chosen = rng.choice(len(cells), SAMPLES_PER_SITE * vertices // 2, p=mass / mass.sum())
    st = cells[chosen] + rng.uniform(-0.4, 0.4, (len(chosen), 2))
    st = st[_inside(st)]
    # Vertices get as dense as the square root of the weight; the samples are as dense as wanted.
    return _Samples(st, _opened_skin(st), edge_length(*plain_features(*st.T)) ** -2.0), edge


# ------------------------------------------------------------------ fixed points
def _outline(edge) -> _Outline:
    """Border, midline, rims of the holes, vermilion borders and landmarks of the half skin."""
    opening, line = surface.MOUTH_OPENING, float(surface.mouth_line(0))
    guides = parts.guides()
    lips = [parts.vermilion()[name][0] for name in ("upper lip", "lower lip")]
    curves = {
        "upper midline": parts.column([TOP, *parts.MIDLINE_KNOTS, lips[0][0, 1], line + opening]),
        "mouth": parts.mouth_rim(),
        "lower midline": parts.column([line - opening, lips[1][0, 1], -112.0, BOTTOM]),
        "border": [_border_curve()], "eye": parts.eye_rim(), "nostril": parts.nostril_rim(),
        "upper lip": [lips[0]], "lower lip": [lips[1]], **guides}
    points = {name: parts.resample(pieces, edge, _length) for name, pieces in curves.items()}
    # Ends that belong to another curve, or close their own, are dropped.
    for name, kept in (("mouth", slice(1, -1)), ("border", slice(1, -1)), ("eye", slice(-1)),
                       ("nostril", slice(-1)), ("upper lip", slice(1, None)), ("lower lip", slice(1, None))):
        points[name] = points[name][kept]
    for name in guides:
        points[name] = _with_room(points[name], points, edge)
    points["landmarks"] = parts.skin_landmarks()
    stops = np.cumsum([len(p) for p in points.values()])
    groups = {name: np.arange(stop - len(p), stop) for (name, p), stop in zip(points.items(), stops)}
    groups["mouth"] = np.concatenate([groups["upper midline"][-1:], groups["mouth"], groups["lower midline"][:1]])
    return _Outline(np.concatenate(list(points.values())), groups)


def _with_room(guide, points, edge):
    """Those of a guide's points that keep their distance from all points of other curves."""
    others = np.concatenate([p for p in points.values() if p is not guide])
    near = cKDTree(_opened_skin(others)).query(_opened_skin(guide))[0]
    return guide[near > 0.62 * edge * edge_length(*plain_features(*guide.T))]


def _border_curve():
    """The skin's border from the top of the midline to its bottom."""
    angle = np.linspace(0, np.pi, 600)
    t = (TOP + BOTTOM) / 2 + (TOP - BOTTOM) / 2 * np.cos(angle)
    return np.stack([_border(t), t], axis=1)


def _length(st):
    """Length of each step of a polyline on the surface, in wanted edges."""
    points = _opened_skin(st)
    middle = (st[1:] + st[:-1]) / 2
    return np.linalg.norm(np.diff(points, axis=0), axis=1) / edge_length(*plain_features(*middle.T))


# ------------------------------------------------------------------ free points
def _relax(fixed, samples, free, rng):
    """Fixed points, then ``free`` ones spread by Lloyd's algorithm; (n, 2) template coordinates."""
    sites = samples.st[rng.choice(len(samples.st), free, replace=False)]
    anchors = _opened_skin(fixed)
    for _ in range(LLOYD_STEPS):
        tree = cKDTree(np.concatenate([anchors, _opened_skin(sites)]))
        owner = tree.query(samples.points, workers=-1)[1] - len(fixed)
        mine = owner >= 0
        total = np.bincount(owner[mine], samples.weight[mine], free)
        for axis in range(2):
            moment = np.bincount(owner[mine], (samples.weight * samples.st[:, axis])[mine], free)
            sites[:, axis] = np.where(total > 0, moment / np.maximum(total, 1e-12), sites[:, axis])
    return np.concatenate([fixed, sites])


def _ghosts(sites, outline):
    """Points inside the holes; with them Delaunay's triangles keep to the rims."""
    ghosts = []
    for name in ("eye", "nostril"):
        rim = sites[outline.groups[name]]
        ghosts += [rim.mean(axis=0) + factor * (rim - rim.mean(axis=0)) for factor in (0.8, 0.5)]
    rim = sites[outline.groups["mouth"]][1:-1]
    line = np.stack([rim[:, 0], surface.mouth_line(plain_features(*rim.T)[0])], axis=1)
    wide = np.abs(rim - line)[:, 1] > 0.3  # a ghost in the corner would lie on its vertex
    return np.concatenate([*ghosts, (line + 0.5 * (rim - line))[wide]])


def _triangulate(sites, outline):
    """Triangles of the half skin: Delaunay in the plane, then edges flipped to suit the surface."""
    plane = _unrolled(np.concatenate([sites, _ghosts(sites, outline)]))
    triangles = Delaunay(plane).simplices
    area = turns(plane, *triangles.T)
    triangles = np.where((area > 0)[:, None], triangles, triangles[:, ::-1])[np.abs(area) > 1e-6]
    rims = [outline.groups[name] for name in ("eye", "nostril")]
    edges = [np.stack([rim, np.roll(rim, -1)], axis=1) for rim in rims]
    rim = outline.groups["mouth"]
    recover_edges(triangles, plane, np.concatenate([*edges, np.stack([rim[:-1], rim[1:]], axis=1)]))
    triangles = triangles[(triangles < len(sites)).all(axis=1)]
    triangles = triangles[_on_skin(sites[triangles].mean(axis=1), sites, outline)]
    return flip_edges(triangles, plane, _opened_skin(sites))


def _unrolled(st):
    """The template plane with the lips' steep inner faces laid flat, so that Delaunay sees their length."""
    s, t = st.T
    x = plain_features(s, t)[0]
    gap = t - surface.mouth_line(x)
    beyond = np.clip(np.abs(gap) - surface.mouth_opening(x), 0, None)
    room = np.clip(1 - (x / (surface.MOUTH_HALF_WIDTH + 1.5)) ** 2, 0, 1) ** 0.7
    return np.stack([s, t + np.sign(gap) * 4.5 * room * (1 - np.exp(-beyond / 1.0))], axis=1)


def _on_skin(st, sites, outline):
    """Whether points lie inside the border's polygon and outside the holes'."""
    groups = outline.groups
    ring = [groups["upper midline"][:1], groups["border"], groups["lower midline"][::-1], groups["upper midline"][::-1]]
    skin = points_in_poly(st, sites[np.concatenate(ring)])
    for name in ("eye", "nostril", "mouth"):
        skin &= ~points_in_poly(st, sites[groups[name]])
    return skin


# ------------------------------------------------------------------ putting it together
def _fold_sizes(outline):
    """Vertices of the folds: (all, on the midline)."""
    size = {name: len(group) for name, group in outline.groups.items()}
    return 2 * size["eye"] + 4 * size["nostril"] + 3 * size["mouth"], 3 * 2


def _skin_with_folds(sites, triangles, outline):
    """The half skin with its lids' edges, nostrils and the inner side of its lips."""
    count = len(sites)
    middle = np.zeros(count, bool)
    middle[np.concatenate([outline.groups["upper midline"], outline.groups["lower midline"]])] = True
    half = Half(surface.skin(*sites.T)[0], sites, np.full(count, parts.SKIN), np.zeros(count), triangles,
                parts.plane_uv(sites), middle)
    for name, rings, part, closed in (("eye", parts.lid_rings, parts.LID, True),
                                      ("nostril", parts.nostril_rings, parts.NOSTRIL, True),
                                      ("mouth", parts.lip_rings, parts.LIP, False)):
        rim = outline.groups[name]
        half = parts.add_fold(half, rim, rings(sites[rim]), part, closed)
    return half


def _landmarks(sites, outline):
    """Half-mesh vertices of the landmarks: on the midline (7 + chin) and for x > 0, iBUG numbers as keys."""
    groups = outline.groups
    marks = dict(zip([*range(9, 17), *range(22, 27), 34, 35], groups["landmarks"]))
    x, y = surface.feature_coordinates(*sites.T)

    def near(name, px, py):
        group = groups[name]
        return group[np.argmin((x[group] - px) ** 2 + (y[group] - py) ** 2)]

    for number, height in zip((27, 28, 29, 30, 33), parts.MIDLINE_KNOTS):
        marks[number] = near("upper midline", 0, height)
    marks[8] = near("lower midline", 0, -112.0)
    for number, name, border in ((51, "upper midline", surface.upper_lip), (57, "lower midline", surface.lower_lip)):
        marks[number] = near(name, 0, border(0))
    for lid, spots in ((surface.upper_lid, {42: 16.0, 43: 25.0, 44: 36.5, 45: 45.5}),
                       (surface.lower_lid, {46: 36.5, 47: 25.0})):
        marks.update({number: near("eye", at, lid(at)) for number, at in spots.items()})
    for name, border, spots in (("upper lip", surface.upper_lip, {52: 5.5, 53: 15.0}),
                                ("lower lip", surface.lower_lip, {56: 7.0, 55: 15.0})):
        marks.update({number: near(name, at, border(at)) for number, at in spots.items()})
    rim = groups["mouth"]
    corner = np.argmax(x[rim])
    marks[62], marks[54], marks[66] = rim[0], rim[corner], rim[-1]
    for number, px, side in ((63, 8.0, rim[:corner]), (64, 22.5, rim[:corner]), (65, 8.0, rim[corner + 1:])):
        marks[number] = side[np.argmin(np.abs(x[side] - px))]
    return marks


# iBUG numbers of the landmarks with x > 0 and of their mirror images.
_MIRRORED = {**{8 + k: 8 - k for k in range(1, 9)}, **{22 + k: 21 - k for k in range(5)}, 34: 32, 35: 31,
             42: 39, 43: 38, 44: 37, 45: 36, 46: 41, 47: 40, 52: 50, 53: 49, 54: 48, 55: 59, 56: 58,
             63: 61, 64: 60, 65: 67}


def _mirror(half, marks) -> Template:
    """Both halves; vertices: x > 0, their mirror images, the midline."""
    side, middle = np.flatnonzero(~half.middle), np.flatnonzero(half.middle)
    count = len(side)
    right = np.empty(len(half.points), int)
    right[side], right[middle] = np.arange(count), 2 * count + np.arange(len(middle))
    left = right.copy()
    left[side] += count
    flip = np.array([-1.0, 1.0, 1.0])

    def both(values, mirrored):
        return np.concatenate([values[side], mirrored[side], values[middle]])

    points = both(half.points, half.points * flip)
    points[2 * count:, 0] = 0.0
    landmarks = np.zeros(68, int)
    for number, vertex in marks.items():
        landmarks[number] = right[vertex]
        if number in _MIRRORED:
            landmarks[_MIRRORED[number]] = left[vertex]
    return Template(
        points=points, st=both(half.st, half.st * (-1, 1)), part=both(half.part, half.part),
        depth=both(half.depth, half.depth),
        triangles=np.concatenate([right[half.triangles], left[half.triangles[:, ::-1]]]),
        pairs=np.stack([np.arange(count) + count, np.arange(count)], axis=1), landmarks=landmarks,
        uv=both(half.uv, np.array([1.0, 0.0]) + half.uv * (-1, 1)))
