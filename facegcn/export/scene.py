"""What a glTF file holds: meshes with their morph targets, cameras, the head's pose, an animation.

Everything comes in as this project has it: decimetre, right-handed, y up, cameras that look along their own -z; colours
and textures in sRGB; texture coordinates with v up, as in the model files. The writer converts to glTF.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Morphs:
    """Morph targets (blendshapes) of one mesh.

    Attributes:
        names: K distinct names, such as those of ARKit; written as ``extras.targetNames``.
        deltas: (K, N, 3) what weight 1 adds to the vertices, decimetre, before the head's pose.
        weights: (K,) with which the file opens; None is all zero, the neutral face.
    """

    names: Sequence[str]
    deltas: np.ndarray
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class Mesh:
    """One mesh with vertex colours, or a texture, or neither; never both.

    Attributes:
        name: of the object; distinct in a scene.
        vertices: (N, 3), decimetre; of a mesh with morph targets the neutral shape.
        triangles: (F, 3) int, 0-based, counter-clockwise seen from outside.
        normals: (N, 3), any length; None: smooth ones of the vertices (give them where seams split vertices).
        uv: (N, 2) texture coordinates, (0, 0) the lower left corner of the picture, v up.
        texture: the bytes of a PNG or JPEG file, sRGB, without a colour profile: some programs heed it.
        colors: (N, 3) sRGB in [0, 1].
        morphs: morph targets or None.
        unlit: colours are shown as they are (they hold the light already); else as a rough dielectric under the
            program's own light.
    """

    name: str
    vertices: np.ndarray
    triangles: np.ndarray
    normals: np.ndarray | None = None
    uv: np.ndarray | None = None
    texture: bytes | None = None
    colors: np.ndarray | None = None
    morphs: Morphs | None = None
    unlit: bool = False


@dataclass(frozen=True)
class Camera:
    """A perspective camera whose principal point is the middle of its picture.

    Attributes:
        name: of the object; distinct in a scene.
        fov_y: vertical field of view in radians, in (0, pi).
        aspect: width / height of the picture.
        pose: (4, 4) camera space to world, rotation and translation in decimetre; looks along its -z, y up.
        near: distance of the near plane, decimetre.
        extras: further facts about it, JSON values or NumPy arrays.
    """

    name: str
    fov_y: float
    aspect: float
    pose: np.ndarray
    near: float = 0.1
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pose:
    """A rigid pose: world = rotation @ model + translation.

    Attributes:
        rotation: (3, 3), for column vectors.
        translation: (3,), decimetre.
    """

    rotation: np.ndarray
    translation: np.ndarray


@dataclass(frozen=True)
class Animation:
    """Weights of morph targets and the head's pose, changing in time (linear between the frames).

    Attributes:
        times: (T,) seconds, from 0 or later, strictly rising.
        names: K names of morph targets. Each mesh follows those that it has; its others keep their weight.
        weights: (T, K), or None.
        rotations: (T, 4) unit quaternions x, y, z, w of the head (``quaternions`` makes them of matrices), or None.
        translations: (T, 3) of the head, decimetre, or None.
        name: of the animation.
    """

    times: np.ndarray
    names: Sequence[str] = ()
    weights: np.ndarray | None = None
    rotations: np.ndarray | None = None
    translations: np.ndarray | None = None
    name: str = "animation"


@dataclass(frozen=True)
class Scene:
    """Everything in one file.

    Attributes:
        meshes: at least one; all hang on one node, ``head``.
        cameras: each is a node of its own beside the head.
        head: pose of all meshes; None leaves them where they are.
        animation: of the head and the morph targets, or None.
        extras: further facts, JSON values or NumPy arrays; programs show them as the scene's properties.
    """

    meshes: Sequence[Mesh]
    cameras: Sequence[Camera] = ()
    head: Pose | None = None
    animation: Animation | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
