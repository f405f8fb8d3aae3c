"""What a photo says of a whole face's albedo: how far each seen colour is trusted, and the smoothest completion.

Ours. De-lit photo colours replace the coarse albedo where the camera sees the face well; their difference from the
coarse albedo spreads smoothly over the mesh, and to the mirrored vertex, where it does not: the fine
texture without a network. Letters: B photos, N vertices.

The constants were chosen on 48 made portraits of the ict model, by the views of the true face from the front and from
40 and 70 degrees to the side that the portrait hides; between mirror trusts of 0.15 and 0.25, alike there, the
heads of docs/deviations.md decided.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from facegcn.graph import SparseProduct

SMOOTHNESS = 0.1  # of the difference, against trust 1 in a colour that is seen
MIRROR_TRUST = 0.25  # in the difference at the mirrored vertex
DECAY = 0.005  # pull to the coarse albedo of what is not trusted
UNLIKELY = 0.6  # difference from the coarse albedo, of [-1, 1], that halves the trust: hair, glasses, another's shadow
UNKNOWN = 0.25  # likewise, that leaves 1/e of the belief in a network's correction of what is shown
LITTLE_TRUST = 0.02  # with which a vertex is half shown, half hidden
GRAZING_POWER = 2  # of the normal's z: at grazing angles a colour is off by 23 levels, face on by 13
ROUNDS = 40  # of relaxation: where much is hidden it ends early, and 160 rounds are no nearer to the truth


def angle_weight(normals) -> tf.Tensor:
    """Trust (B, N) in a colour for the angle at which it is seen, in [0, 1].

    Less towards the silhouette, where light, position and mask are at their least certain.

    Args:
        normals: (B, N, 3) unit, world axes; the camera looks along -z.
    """
    return tf.clip_by_value(tf.convert_to_tensor(normals, tf.float32)[..., 2], 0.0, 1.0) ** GRAZING_POWER


def likelihood_weight(coarse, seen) -> tf.Tensor:
    """Trust (B, N) in a colour for its distance from what the coarse face explains, in (0, 1]: far ones are often
    something in front of it.

    Args:
        coarse: (B, N, 3) albedo in [-1, 1].
        seen: (B, N, 3) de-lit sampled colour in [-1, 1].
    """
    difference = tf.reduce_mean(tf.abs(seen - coarse), axis=-1)
    return 1.0 / (1.0 + (difference / UNLIKELY) ** 2)


def correction_weight(coarse, completed, trust) -> tf.Tensor:
    """How far (B, N, 1) a network's correction of a completed albedo is believed, in (0, 1].

    Less where the photo shows what the morphable model does not know, such as teeth, eyes or a moustache: networks
    trained on made faces take these for light or occluders.

    Args:
        coarse, completed: (B, N, 3) albedo in [-1, 1].
        trust: (B, N) in the colour that the photo shows, in [0, 1].
    """
    farthest = tf.reduce_max(tf.abs(completed - coarse), axis=-1, keepdims=True)
    shown = trust[..., None] / (trust[..., None] + LITTLE_TRUST)
    return 1.0 - shown * (1.0 - tf.exp(-((farthest / UNKNOWN) ** 2)))


def vertex_adjacency(triangles, vertex_count: int) -> sp.csr_matrix:
    """(N, N) float32, 1 for vertices that share an edge of the triangles (F, 3)."""
    edges = np.concatenate([np.asarray(triangles)[:, pair] for pair in ((0, 1), (1, 2), (2, 0))])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    half = sp.coo_matrix((np.ones(len(edges), np.float32), edges.T), (vertex_count, vertex_count))
    return (half + half.T).tocsr()


class TextureCompletion:
    """The smoothest texture that has the trusted colours, and elsewhere is the coarse one.

    Per face and channel, the difference d from the coarse albedo minimises
    sum_v t_v (d_v - r_v)^2 + m_v (d_v - r_v')^2 + e (1 - t_v) d_v^2 + s sum_edges (d_v - d_w)^2, with t the trust,
    r the seen difference, v' the mirror image of v, m = MIRROR_TRUST (1 - t_v) t_v', e = DECAY, s = SMOOTHNESS, by
    Jacobi's relaxation.

    Args:
        triangles: (F, 3) of the template.
        mirror: (N,) index of each vertex's mirror image.
    """

    def __init__(self, triangles, mirror):
        self._mirror = np.asarray(mirror, np.int32)
        adjacency = vertex_adjacency(triangles, len(self._mirror))
        self._neighbours = SparseProduct(adjacency, symmetric=True)
        self._degree = np.asarray(adjacency.sum(axis=1), np.float32)  # (N, 1)

    def __call__(self, coarse, seen, trust, rounds: int = ROUNDS) -> tf.Tensor:
        """(B, N, 3) albedo in [-1, 1]; no gradient.

        Args:
            coarse: (B, N, 3) albedo in [-1, 1].
            seen: (B, N, 3) de-lit sampled colour in [-1, 1]; of no account where trust is 0.
            trust: (B, N) in each of them, in [0, 1].
            rounds: of relaxation.
        """
        coarse, seen = (tf.transpose(tf.convert_to_tensor(a, tf.float32), (1, 0, 2)) for a in (coarse, seen))
        own = tf.transpose(tf.convert_to_tensor(trust, tf.float32))[..., None]  # (N, B, 1)
        mirrored = MIRROR_TRUST * (1.0 - own) * tf.gather(own, self._mirror)
        difference = tf.where(own > 0.0, seen - coarse, 0.0)
        wanted = own * difference + mirrored * tf.gather(difference, self._mirror)
        weight = own + mirrored + DECAY * (1.0 - own) + SMOOTHNESS * self._degree[:, None]
        shape, found = tf.shape(wanted), wanted / (weight - SMOOTHNESS * self._degree[:, None])
        for _ in range(rounds):
            around = tf.reshape(self._neighbours.plain(tf.reshape(found, (shape[0], -1))), shape)
            found = (wanted + SMOOTHNESS * around) / weight
        return tf.stop_gradient(tf.transpose(tf.clip_by_value(coarse + found, -1.0, 1.0), (1, 0, 2)))
