"""Stand-ins for the licensed files of the paper's world: right names, shapes and types, made-up content.

    python -m tests.standins --out DIR

writes a face-like surface with smooth random components, nobody's likeness. Everything the conversion,
the check and training need is there. Index files and landmarks are those of the folder given with --layout
(Deep3DFaceReconstruction's ``BFM``, MIT); without it a grid takes their place.
"""

import argparse
import os
import shutil
import sys
from typing import NamedTuple

import h5py
import numpy as np
import scipy.io
import scipy.sparse as sp
import scipy.sparse.linalg
from scipy.interpolate import RBFInterpolator

from facegcn.mesh.symmetry import mirror_pairs
from tests.faces import half_ellipsoid

FULL, COVERED, CROP = 53490, 53215, 35709
TRIANGLES = 106466  # of the whole model
COMPONENTS, EXPRESSIONS = 199, 79
MICROMETRE = 1e5  # per decimetre
OFFSET = np.array([0.002, -0.05, 0.7])  # decimetre: BFM09's mean face is not centred either

_INDEX_FILES = ("BFM_exp_idx.mat", "BFM_front_idx.mat", "facemodel_info.mat", "select_vertex_id.mat",
                "similarity_Lm3D_all.mat", "std_exp.txt")


class Layout(NamedTuple):
    """Indices count from 0; ``points`` (CROP, 3) decimetre, centred."""

    covered: np.ndarray  # (COVERED,) vertices of the whole model
    front: np.ndarray  # (CROP,) of the covered ones
    triangles: np.ndarray
    landmarks: np.ndarray
    points: np.ndarray

    @property
    def crop(self):
        """(CROP,) vertices of the whole model."""
        return self.covered[self.front]


# ---------------------------------------------------------------- topology and surface
def read_layout(folder) -> Layout:
    """The layout of the published index files, on a made-up surface through the mean face's landmarks."""
    def load(name, key):
        return scipy.io.loadmat(os.path.join(folder, name))[key]

    triangles = load("facemodel_info.mat", "tri").astype(np.int64) - 1
    landmarks = load("facemodel_info.mat", "keypoints").ravel().astype(np.int64) - 1
    targets = load("similarity_Lm3D_all.mat", "lm").astype(np.float64)
    return Layout(load("BFM_exp_idx.mat", "trimIndex").ravel().astype(np.int64) - 1,
                  load("BFM_front_idx.mat", "idx").ravel().astype(np.int64) - 1,
                  triangles, landmarks, surface(triangles, landmarks, targets))


def grid_layout() -> Layout:
    """A 189 x 189 grid less six vertices at either end of its last row, where there are no index files."""
    face = half_ellipsoid(189, 189, (1, 1, 1))
    last = np.arange(188 * 189, 189 * 189)
    keep = np.setdiff1d(np.arange(189 * 189), np.concatenate([last[:6], last[-6:]]))
    number = np.full(189 * 189, -1)
    number[keep] = np.arange(len(keep))
    triangles = number[face.triangles]
    return Layout(np.delete(np.arange(FULL), np.linspace(50, FULL - 50, FULL - COVERED).astype(int)),
                  np.linspace(0, COVERED - 1, CROP).round().astype(int), triangles[(triangles >= 0).all(axis=1)],
                  number[face.landmarks], face.mean_shape[keep].astype(np.float64))


def surface(triangles, landmarks, targets):
    """(CROP, 3) face-like surface: the mesh flattened onto a disk, then bent through the landmarks' places.

    Args:
        triangles: (F, 3).
        landmarks: (68,) vertices.
        targets: (68, 3) where they belong, decimetre.
    """
    flat, border = flattened(triangles)
    design = np.column_stack([flat[landmarks], np.ones(len(landmarks))])
    flat = np.column_stack([flat, np.ones(len(flat))]) @ np.linalg.lstsq(design, targets[:, :2], rcond=None)[0]
    rim = flat[border[::12]]
    rim = rim[rim[:, 1] > targets[17:27, 1].max()]  # the jaw's landmarks hold the lower part
    turn = np.arctan2(rim[:, 1] - 0.2, rim[:, 0])
    forehead = np.column_stack([0.73 * np.cos(turn), 0.2 + 0.75 * np.sin(turn), -0.55 * np.ones(len(turn))])
    places = np.concatenate([flat[landmarks], rim])
    bend = RBFInterpolator(places, np.concatenate([targets, forehead]), kernel="thin_plate_spline", smoothing=1e-3)
    return bend(flat)


def flattened(triangles):
    """((N, 2) planar embedding, outer border in order): every inner vertex is the mean of its neighbours [Tutte]."""
    count = triangles.max() + 1
    edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    edges, uses = np.unique(edges, axis=0, return_counts=True)
    links = sp.coo_matrix((np.ones(len(edges)), edges.T), (count, count)).tocsr()
    links = links + links.T
    border = outer_border(edges[uses == 1], count)
    turn = 2 * np.pi * np.arange(len(border)) / len(border)
    flat = np.zeros((count, 2))
    flat[border] = np.column_stack([np.cos(turn), np.sin(turn)])
    inner = np.setdiff1d(np.arange(count), border)
    laplacian = (sp.diags(np.asarray(links.sum(axis=1)).ravel()) - links).tocsr()
    right = -laplacian[inner][:, border] @ flat[border]
    flat[inner] = scipy.sparse.linalg.splu(laplacian[inner][:, inner].tocsc()).solve(right)
    return flat, border


def outer_border(edges, count):
    """(M,) vertices of the longest loop of border edges, in order."""
    links = sp.coo_matrix((np.ones(len(edges)), edges.T), (count, count)).tocsr()
    links = (links + links.T).tocsr()
    _, label = sp.csgraph.connected_components(links)
    start = np.flatnonzero(label == np.bincount(label).argmax())[0]
    loop, before = [start], -1
    while True:
        here = loop[-1]
        onward = [v for v in links.indices[links.indptr[here]:links.indptr[here + 1]] if v != before]
        if onward[0] == start:
            return np.array(loop)
        before = here
        loop.append(onward[0])


# ---------------------------------------------------------------- content
def whole_points(layout):
    """(FULL, 3) decimetre: the crop, and the rest of the head around it."""
    points = np.zeros((FULL, 3))
    rest = np.setdiff1d(np.arange(FULL), layout.crop)
    height = np.linspace(-1, 1, len(rest))
    turn = np.pi * (1 + np.sin(np.arange(len(rest)) * 2.399963) * 0.5)  # behind the face
    points[rest] = np.column_stack([0.8 * np.sin(turn), height, 0.8 * np.cos(turn) - 0.6])
    points[layout.crop] = layout.points
    return points + OFFSET


def smooth_components(points, count, seed):
    """(3N, count) float32 unit columns: one slow wave in one direction each."""
    rng = np.random.default_rng(seed)
    waves = np.sin(points.astype(np.float32) @ rng.normal(0, 2, (3, count)).astype(np.float32)
                   + rng.uniform(0, 6, count).astype(np.float32))
    directions = rng.normal(size=(3, count)).astype(np.float32)
    columns = (waves[:, None] * directions).reshape(-1, count)
    return columns / np.linalg.norm(columns, axis=0)


def deviations(count, first, vertices):
    """(count, 1) float32 falling from the one that moves a vertex by about ``first``."""
    return (first * np.sqrt(vertices) / (1 + np.arange(count)[:, None] / 4)).astype(np.float32)


def segment_labels(layout):
    """(FULL, 1) 0 nose, 1 eyes, 2 mouth, 3 the rest of the face."""
    labels = np.full((FULL, 1), 3.0)
    for label, part, reach in ((0, range(27, 36), 0.09), (1, range(36, 48), 0.12), (2, range(48, 68), 0.08)):
        away = np.linalg.norm(layout.points[:, None, :2] - layout.points[layout.landmarks[list(part)], :2], axis=2)
        labels[layout.crop[away.min(axis=1) < reach]] = label
    return labels


# ---------------------------------------------------------------- writing
def write_standins(folder, components=COMPONENTS, layout_folder=None, graphs=False) -> Layout:
    """Writes the set.

    Args:
        folder: made when absent.
        components: of identity and albedo, 80 to 199; fewer expression components go with fewer.
        layout_folder: of the published index files; None for a grid in their place.
        graphs: also the frozen networks.
    """
    os.makedirs(folder, exist_ok=True)
    known = layout_folder is not None
    layout = read_layout(layout_folder) if known else grid_layout()
    expressions = EXPRESSIONS if components >= COMPONENTS else 64
    if known:
        for name in _INDEX_FILES[:-1]:
            shutil.copyfile(os.path.join(layout_folder, name), os.path.join(folder, name))
    else:
        _write_index_files(folder, layout)
    _write_deviations(os.path.join(folder, "std_exp.txt"), layout_folder if known else None, expressions)
    points = whole_points(layout)
    _write_morphable(os.path.join(folder, "01_MorphableModel.mat"), points, layout, components)
    _write_expressions(os.path.join(folder, "Exp_Pca.bin"), points[layout.covered], expressions)
    scipy.io.savemat(os.path.join(folder, "face05_4seg.mat"), {"face05_4seg": segment_labels(layout)})
    pairs = layout.crop[mirror_pairs(layout.points, 0.05)]
    rest = np.setdiff1d(np.arange(FULL), layout.crop)
    outside = np.column_stack([rest[:500], layout.crop[:500]])  # as ears and neck: not in the crop
    np.savetxt(os.path.join(folder, "face05_symlist.txt"), np.concatenate([pairs, outside]), fmt="%d")
    if graphs:
        from tests.standin_graphs import write_standin_graphs
        write_standin_graphs(folder)
    return layout


def _write_morphable(path, points, layout, components):
    tone = np.array([190.0, 140.0, 115.0]) + 12 * np.sin(4 * points[:, [1, 0, 2]])
    rest = np.setdiff1d(np.arange(FULL), layout.crop)
    strip = np.column_stack([rest[:-2], rest[1:-1], rest[2:]])
    triangles = np.concatenate([layout.crop[layout.triangles], strip, strip])[:TRIANGLES]
    triangles = np.concatenate([triangles, np.repeat(strip[-1:], TRIANGLES - len(triangles), axis=0)])
    scipy.io.savemat(path, {
        "shapeMU": (points * MICROMETRE).astype(np.float32).reshape(-1, 1),
        "shapePC": smooth_components(points, components, 1),
        "shapeEV": deviations(components, 0.02 * MICROMETRE, FULL),
        "texMU": tone.astype(np.float32).reshape(-1, 1), "texPC": smooth_components(points, components, 2),
        "texEV": deviations(components, 8.0, FULL), "tl": triangles.astype(np.float64) + 1})


def _write_expressions(path, points, count):
    rng = np.random.default_rng(4)
    with open(path, "wb") as file:
        np.array([count], "<i4").tofile(file)
        rng.normal(0, 100, 3 * COVERED).astype("<f4").tofile(file)  # a mean that must not be applied
        np.ascontiguousarray(smooth_components(points, count, 3).T).astype("<f4").tofile(file)


def _write_deviations(path, layout_folder, count):
    if layout_folder is None:
        values = 4.5e5 * np.exp(-np.arange(count) * np.log(4.5e5 / 276) / 78)
    else:
        values = np.loadtxt(os.path.join(layout_folder, "std_exp.txt"))[:count]
    with open(path, "w", encoding="utf-8") as file:
        file.write(" ".join(f"{value:g}" for value in values))


def _write_index_files(folder, layout):
    """Files like the published ones, of the grid."""
    skin = np.zeros((1, CROP), np.float32)
    skin[0, np.abs(layout.points[:, 0]) < 0.4] = 1
    for name, arrays in (
            ("BFM_exp_idx.mat", {"trimIndex": (layout.covered[:, None] + 1).astype(np.uint16)}),
            ("BFM_front_idx.mat", {"idx": (layout.front[:, None] + 1).astype(np.float32)}),
            ("select_vertex_id.mat", {"select_id": (layout.crop[:, None] + 1).astype(np.uint16)}),
            ("similarity_Lm3D_all.mat", {"lm": layout.points[layout.landmarks].astype(np.float32)}),
            ("facemodel_info.mat", {"tri": (layout.triangles + 1).astype(np.float32), "skinmask": skin,
                                    "keypoints": (layout.landmarks[None] + 1).astype(np.float32)})):
        scipy.io.savemat(os.path.join(folder, name), arrays)


def save_mat73(path, arrays):
    """Writes arrays as MATLAB does with -v7.3: HDF5 behind 512 bytes of header, axes in reverse, class attribute."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            kind = {"float64": "double", "float32": "single", "bytes8": "char"}.get(array.dtype.name, array.dtype.name)
            data = array.view(np.uint16 if array.dtype.itemsize == 2 else np.uint8) if kind == "char" else array
            file.create_dataset(name, data=data.T, compression="gzip", compression_opts=1)
            file[name].attrs["MATLAB_class"] = np.bytes_(kind)
        file.create_group("#refs#")["a"] = np.zeros(2)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def main(arguments=None) -> int:
    """Writes the set to --out; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.standins", description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--components", type=int, default=COMPONENTS, help="80 to 199 (default %(default)s)")
    parser.add_argument("--layout", metavar="DIR", help="Deep3DFaceReconstruction's BFM folder (default: a grid)")
    parser.add_argument("--no-graphs", action="store_true", help="leave out the frozen networks")
    options = parser.parse_args(arguments)
    write_standins(options.out, options.components, options.layout, not options.no_graphs)
    for name in sorted(os.listdir(options.out)):
        print(f"{os.path.getsize(os.path.join(options.out, name)):>12,} bytes  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
