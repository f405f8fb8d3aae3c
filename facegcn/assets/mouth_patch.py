"""Closes the mouth opening of a face mesh with a recessed surface between the lips."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse

from facegcn.errors import UserError


class Patch(NamedTuple):
    """A surface across a hole, in terms of the vertices around it.

    Attributes:
        matrix: SciPy CSR (p, N), new vertices as mixes of the old: rows sum to 1.
        depth: (p,) in [0, 1], how far a new vertex is from the rim: 1 in the middle.
        triangles: (f, 3) int32, old vertices and new ones numbered from N on; the two halves of a
            quad follow each other. Oriented as the mesh around the hole.
    """

    matrix: scipy.sparse.csr_matrix
    depth: np.ndarray
    triangles: np.ndarray


def border_loops(triangles: np.ndarray) -> list[np.ndarray]:
    """The closed borders of a mesh: vertices in the direction of the triangles along them.

    Raises:
        UserError: two borders touch in a vertex, so they cannot be told apart.
    """
    directed = triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    edges = set(map(tuple, directed.tolist()))
    border = [(a, b) for a, b in edges if (b, a) not in edges]
    after = dict(border)
    if len(after) != len(border):
        raise UserError("the mesh has holes that touch each other; is its region cut cleanly?")
    loops = []
    while after:
        loop = [min(after)]
        while (following := after.pop(loop[-1])) != loop[0]:
            loop.append(following)
        loops.append(np.array(loop))
    return loops


def mouth_patch(vertices: np.ndarray, triangles: np.ndarray, lips: np.ndarray, shares=(0.2, 0.4)) -> Patch:
    """A surface across the hole nearest the inner lips, which follows the lips whatever they do.

    The rim is cut at its corners (smallest and largest x) into an upper and a lower chain. Each
    of their vertices gets a point on the other chain at the same fraction of its length, and one
    new vertex on the way there for every share; the innermost rows are then zipped together.

    Args:
        vertices: (N, 3).
        triangles: (F, 3).
        lips: (3,) a point between the lips.
        shares: ascending, below 0.5: places of the new vertices on the way across.

    Raises:
        UserError: the mesh has no hole.
    """
    loops = border_loops(triangles)
    if len(loops) < 2:
        raise UserError("the face mesh has no mouth opening to close")
    loop = min(loops, key=lambda ring: np.linalg.norm(vertices[ring] - lips, axis=1).mean())
    loop = np.roll(loop, -vertices[loop, 0].argmin())
    corner = vertices[loop, 0].argmax()
    chains = loop[:corner + 1], np.append(loop[0], loop[:corner - 1:-1])  # both from corner to corner
    along = [_length_fraction(vertices[chain]) for chain in chains]
    rows, rules, depth, count = [], [], [], len(vertices)
    for here, (mine, others) in enumerate((chains, chains[::-1])):
        across = _interpolation(along[here][1:-1], along[1 - here], others, len(vertices))
        own = scipy.sparse.identity(len(vertices), format="csr")[mine[1:-1]]
        rows.append([mine])
        for share in shares:
            rules.append((1 - share) * own + share * across)
            depth.append(np.sqrt(np.sin(np.pi * along[here][1:-1])) * np.sin(np.pi * share))
            rows[here].append(np.concatenate([mine[:1], count + np.arange(len(mine) - 2), mine[-1:]]))
            count += len(mine) - 2
    # the surface around runs along the first chain in its direction, so the patch runs against it
    strips = [_strip(outer, inner) for outer, inner in zip(rows[0][:-1], rows[0][1:])]
    strips += [_strip(outer, inner)[::-1, [0, 2, 1]] for outer, inner in zip(rows[1][:-1], rows[1][1:])]
    strips.append(_zip(rows[0][-1], rows[1][-1], *along))
    return Patch(scipy.sparse.vstack(rules, format="csr"), np.concatenate(depth),
                 np.vstack(strips).astype(np.int32))


def _length_fraction(points):
    """Place of each point (n, 3) along their polyline, 0 to 1."""
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    return np.append(0, np.cumsum(lengths)) / lengths.sum()


def _interpolation(places, along, chain, vertex_count):
    """Matrix (len(places), N): points at ``places`` of a chain whose vertices lie at ``along``."""
    right = np.clip(np.searchsorted(along, places), 1, len(along) - 1)
    share = (places - along[right - 1]) / (along[right] - along[right - 1])
    return scipy.sparse.csr_matrix(
        (np.stack([1 - share, share], axis=1).ravel(), np.stack([chain[right - 1], chain[right]], axis=1).ravel(),
         np.arange(0, 2 * len(places) + 1, 2)), shape=(len(places), vertex_count))


def _strip(outer, inner):
    """Triangles between two rows of one length that share their ends; against ``outer``'s direction."""
    a, b, c, d = outer[1:-2], outer[2:-1], inner[2:-1], inner[1:-2]
    quads = np.stack([b, a, d, b, d, c], axis=1).reshape(-1, 3)
    ends = [[outer[1], outer[0], inner[1]], [outer[-1], outer[-2], inner[-2]]]
    return np.vstack([quads, ends])


def _zip(one, other, along_one, along_other):
    """Triangles between two rows that share their ends, edges taken in order of their middles."""
    middles = [(along[:-1] + along[1:]) / 2 for along in (along_one, along_other)]
    from_one = np.arange(len(one) + len(other) - 2) < len(one) - 1
    from_one = from_one[np.argsort(np.concatenate(middles), kind="stable")]
    i, j = np.cumsum(from_one), np.cumsum(~from_one)
    band = np.where(from_one[:, None], np.stack([one[i], one[i - from_one], other[j]], axis=1),
                    np.stack([other[j - ~from_one], other[j], one[i]], axis=1))
    distinct = (band[:, 0] != band[:, 2]) & (band[:, 1] != band[:, 2])
    return band[distinct]
