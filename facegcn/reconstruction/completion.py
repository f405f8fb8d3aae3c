"""A fine texture without training: the coarse one completed with the colours seen in the photo.

Ours. The de-lit photo colours replace the coarse albedo where the camera sees the face; their
difference from the coarse albedo spreads smoothly over the mesh, and to the mirrored vertex, where
it does not. Used by test mode until a texture network is trained.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg

SMOOTHNESS = 0.02  # of the difference, against trust 1 in a colour that is seen
MIRROR_TRUST = 0.05  # in the difference at the mirrored vertex
DECAY = 1e-4  # pull to the coarse albedo; far from everything seen it wins


def complete_texture(coarse, seen, visible, adjacency, symmetry_pairs) -> np.ndarray:
    """Minimises, per face and channel, the squared distance to what is seen plus roughness.

    The difference d from the coarse albedo solves
    (V + m M + s (D - A) + e I) d = (V + m M P) r, with V the visible, M the hidden vertices whose
    mirror image P is visible, A the adjacency, D its degrees and r the seen difference.

    Args:
        coarse: (B, N, 3) albedo in [-1, 1].
        seen: (B, N, 3) de-lit sampled colour in [-1, 1].
        visible: (B, N) 1 where seen, 0 elsewhere.
        adjacency: (N, N) sparse, symmetric.
        symmetry_pairs: (P, 2) mirrored vertices.

    Returns:
        (B, N, 3) float32 albedo in [-1, 1].
    """
    adjacency = (sp.csr_matrix(adjacency) > 0).astype(np.float64)
    laplacian = sp.diags(np.asarray(adjacency.sum(axis=1)).ravel()) - adjacency
    mirror = np.arange(adjacency.shape[0])
    mirror[symmetry_pairs[:, 0]], mirror[symmetry_pairs[:, 1]] = symmetry_pairs[:, 1], symmetry_pairs[:, 0]
    completed = np.empty_like(np.asarray(coarse, np.float32))
    for i in range(len(completed)):
        trust = np.asarray(visible[i], np.float64)
        mirrored = (1.0 - trust) * trust[mirror] * MIRROR_TRUST
        difference = np.asarray(seen[i] - coarse[i], np.float64) * trust[:, None]
        system = sp.diags(trust + mirrored + DECAY) + SMOOTHNESS * laplacian
        right = difference + mirrored[:, None] * difference[mirror]
        completed[i] = coarse[i] + scipy.sparse.linalg.splu(system.tocsc()).solve(right)
    return np.clip(completed, -1.0, 1.0)
