"""A fine texture without training: the coarse one completed with the colours seen in the photo.

Ours. The de-lit photo colours replace the coarse albedo where the camera sees the face well; their
difference from the coarse albedo spreads smoothly over the mesh, and to the mirrored vertex, where
it does not. Used by test mode until a texture network is trained.

The constants were chosen on 32 validation portraits of the demo world so that skin which the portrait hides is no
worse than the coarse face's, and seen skin as good as can be under that condition.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

SMOOTHNESS = 0.02  # of the difference, against trust 1 in a colour that is seen
MIRROR_TRUST = 0.05  # in the difference at the mirrored vertex
DECAY = 0.04  # pull to the coarse albedo of what is not trusted
UNLIKELY = 0.4  # difference from the coarse albedo, of [-1, 1], that halves the trust: hair, glasses, another's shadow
GRAZING_POWER = 2  # of the normal's z: at grazing angles a colour is off by 23 levels, face on by 13


def color_trust(coarse, seen, visible, normals) -> np.ndarray:
    """How far the photo's colour at each vertex is taken for the skin's own.

    Less towards the silhouette, where light, position and mask are at their least certain, and less where a colour is
    far from what the coarse face explains: that is often something in front of it.

    Args:
        coarse: (B, N, 3) albedo in [-1, 1].
        seen: (B, N, 3) de-lit sampled colour in [-1, 1]; of no account where not visible.
        visible: (B, N) 1 where the photo shows the vertex, 0 where not.
        normals: (B, N, 3) unit, world axes; the camera looks along -z.

    Returns:
        (B, N) float64 in [0, 1].
    """
    coarse, seen, visible, normals = (np.asarray(a, np.float64) for a in (coarse, seen, visible, normals))
    facing = np.clip(normals[..., 2], 0.0, 1.0) ** GRAZING_POWER
    difference = np.abs(seen - coarse).mean(axis=-1)
    return visible * facing / (1.0 + (difference / UNLIKELY) ** 2)


def complete_texture(coarse, seen, trust, adjacency, symmetry_pairs) -> np.ndarray:
    """The smoothest texture that has the trusted colours, and elsewhere is the coarse one.

    Per face and channel, the difference d from the coarse albedo minimises
    sum_v t_v (d_v - r_v)^2 + m_v (d_v - r_v')^2 + e (1 - t_v) d_v^2 + s sum_edges (d_v - d_w)^2, with t the trust,
    r the seen difference, v' the mirror image of v, m = MIRROR_TRUST (1 - t_v) t_v', e = DECAY, s = SMOOTHNESS.

    Args:
        coarse: (B, N, 3) albedo in [-1, 1].
        seen: (B, N, 3) de-lit sampled colour in [-1, 1].
        trust: (B, N) in each of them, in [0, 1], see ``color_trust``.
        adjacency: (N, N) sparse, symmetric.
        symmetry_pairs: (P, 2) mirrored vertices.

    Returns:
        (B, N, 3) float32 albedo in [-1, 1].
    """
    coarse, seen, trust = (np.asarray(array, np.float64) for array in (coarse, seen, trust))
    adjacency = (sp.csr_matrix(adjacency) > 0).astype(np.float64)
    laplacian = sp.diags(np.asarray(adjacency.sum(axis=1)).ravel()) - adjacency
    mirror = np.arange(adjacency.shape[0])
    mirror[symmetry_pairs[:, 0]], mirror[symmetry_pairs[:, 1]] = symmetry_pairs[:, 1], symmetry_pairs[:, 0]
    completed = np.empty(coarse.shape, np.float32)
    for i, own in enumerate(trust):
        mirrored = MIRROR_TRUST * (1.0 - own) * own[mirror]
        difference = seen[i] - coarse[i]
        system = sp.diags(own + mirrored + DECAY * (1.0 - own)) + SMOOTHNESS * laplacian
        right = own[:, None] * difference + mirrored[:, None] * difference[mirror]
        completed[i] = coarse[i] + scipy.sparse.linalg.splu(system.tocsc()).solve(right)
    return np.clip(completed, -1.0, 1.0)
