"""Parts that a face may carry beside its surface: eyeballs, teeth, gums and tongue, for animation.

They are meshes of their own, in the frame and unit of the face model, follow its identity and its named expressions,
and take no part in fitting or training. Letters: Q parts, M vertices of all parts, T triangles, A named shapes, Ki
identity components, N and F vertices and triangles of the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class FaceParts:
    """Meshes beside a face.

    Attributes:
        names: Q, such as ``eyeballLeft`` and ``upperTeeth``.
        of: (M,) int32, the part that each vertex belongs to.
        vertices: (M, 3) float32, decimetre, neutral mean face; the frame of ``mean_shape``.
        triangles: (T, 3) int32 into ``vertices``, counter-clockwise seen from outside.
        colors: (M, 3) float32 albedo, RGB in [0, 255].
        identity: (Q, 4, 3, Ki) float32: component k moves a vertex p of part q by ``[p, 1] @ identity[q, :, :, k]``
            decimetre per standard deviation. An affine map, since such parts change little more than place and size.
        blendshapes: (M, 3, A) float32, decimetre, by the model's ``blendshape_names``.
        replaces: (R,) int32 triangles of the face that give way where the parts are shown: the fronts of the eyes.
        recess: (N,) float32 decimetre that each vertex of the face goes back (-z) where the parts are shown: the dark
            surface in the mouth, which would hide the teeth.
    """

    names: tuple[str, ...]
    of: np.ndarray
    vertices: np.ndarray
    triangles: np.ndarray
    colors: np.ndarray
    identity: np.ndarray
    blendshapes: np.ndarray
    replaces: np.ndarray
    recess: np.ndarray

    def shaped(self, id) -> np.ndarray:
        """Neutral vertices (M, 3) float32 of a person, decimetre, in the frame of ``mean_shape``.

        Subtract the centroid of ``mean_shape`` for that of ``MorphableModel.vertices``.

        Args:
            id: (Ki,) identity coefficients.
        """
        maps = self.identity @ np.asarray(id, np.float32)  # (Q, 4, 3)
        ones = np.hstack([self.vertices, np.ones((len(self.vertices), 1), np.float32)])
        return self.vertices + np.einsum("mi,mij->mj", ones, maps[self.of])

    def part(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """One part: its vertices (indices, (n,)) and its triangles (t, 3), numbered among these.

        Raises:
            ValueError: there is no such part.
        """
        if name not in self.names:
            raise ValueError(f"this face has no part '{name}'; it has {', '.join(self.names)}")
        chosen = np.flatnonzero(self.of == self.names.index(name))
        place = np.full(len(self.of), -1)
        place[chosen] = np.arange(len(chosen))
        own = place[self.triangles]
        return chosen, own[(own >= 0).all(axis=1)]
