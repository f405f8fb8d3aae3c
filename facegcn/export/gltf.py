"""Binary glTF 2.0 (Khronos; ISO/IEC 12113): textures or vertex colours, morph targets, cameras, animation.

Decimetres become metres; sRGB vertex colours become linear light, as glTF defines them; v runs down. The two chunks
of the container and the JSON tree are written here: trimesh reads these files but has no morph targets, animations or
second camera, and encodes textures anew; pygltflib carries the tree but leaves accessors and buffers to its user,
which is all that there is to do.
"""

from __future__ import annotations

import functools
import json
import struct
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from facegcn.export.arrays import (
    checked,
    checked_colors,
    checked_layout,
    checked_mesh,
    layout_vertices,
    linear_from_srgb,
    smooth_normals,
    unit_normals,
)
from facegcn.export.pictures import picture_type
from facegcn.export.scene import Animation, Camera, Mesh, Morphs, Pose, Scene
from facegcn.files import write_bytes

__all__ = ["Animation", "Camera", "Mesh", "Morphs", "Pose", "Scene", "glb_bytes", "quaternions", "with_layout",
           "write_glb"]

_METRES = 0.1  # a decimetre
_MATERIAL = {"metallicFactor": 0.0, "roughnessFactor": 0.9}
_UNLIT = "KHR_materials_unlit"
# Numbers of the specification: component types, targets of buffer views, and a sampler's filters and wrapping.
_NUMBERS = {"uint16": 5123, "uint32": 5125, "float32": 5126}
_VERTEX_DATA, _INDICES = 34962, 34963
_SAMPLER = {"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}  # linear, mipmaps, clamped
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_RIGID = 1e-4  # how far a rotation matrix may be from one
#: A sparse accessor costs an index beside each value; it must save a third to be worth its reader's effort.
_SPARSE_SHARE = 0.5


def write_glb(path: str, scene: Scene) -> None:
    """Writes a scene as binary glTF, in metres.

    Raises:
        ValueError: as ``glb_bytes``.
        OSError: the file cannot be written.
    """
    write_bytes(path, glb_bytes(scene))


def glb_bytes(scene: Scene) -> bytes:
    """The content of a .glb file of a scene, in metres.

    Raises:
        ValueError: shapes that do not fit, an index outside, values that are not finite, names that are there twice,
            vertex colours beside a texture, a texture without coordinates or of no known kind, a pose that is not
            rigid, times that do not rise, an animation that moves nothing.
    """
    return _Writer(scene).content()


def quaternions(rotations: np.ndarray) -> np.ndarray:
    """(T, 4) unit quaternions x, y, z, w of rotation matrices (T, 3, 3), each on the side of the one before.

    Raises:
        ValueError: a matrix is no rotation.
    """
    rotations = checked("rotations", rotations, (-1, 3, 3))
    if not (np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=_RIGID)
            and (np.linalg.det(rotations) > 0).all()):
        raise ValueError("a rotation matrix is not orthonormal, or mirrors")
    return _on_one_side(Rotation.from_matrix(rotations).as_quat())


def with_layout(mesh: Mesh, uv: np.ndarray, uv_triangles: np.ndarray,
                vertices: np.ndarray | None = None) -> Mesh:
    """The same mesh with texture coordinates, its vertices doubled where the layout splits them at a seam.

    Args:
        mesh: N vertices; smooth normals are made before the split where it has none, so that no seam shows.
        uv: (M, 2) texture coordinates, v up.
        uv_triangles: (F, 3) int into ``uv``, corner by corner those of ``mesh.triangles``.
        vertices: (M,) int, the mesh's vertex of each texture coordinate; None finds it by the triangles.

    Raises:
        ValueError: as ``arrays.layout_vertices``; ``vertices`` that do not fit the triangles.
    """
    of = layout_vertices(mesh.triangles, uv_triangles, len(uv)) if vertices is None else np.asarray(vertices, np.int64)
    if vertices is not None and (of.shape != (len(uv),) or not np.array_equal(
            of[checked_layout(mesh.triangles, uv_triangles, len(uv))], mesh.triangles)):
        raise ValueError("vertices must tell, of each texture coordinate, the vertex that the triangles have there")
    points, triangles = checked_mesh(mesh.vertices, mesh.triangles)
    normals = smooth_normals(points, triangles) if mesh.normals is None else np.asarray(mesh.normals)
    morphs = mesh.morphs
    if morphs is not None:
        morphs = Morphs(morphs.names, np.asarray(morphs.deltas)[:, of], morphs.weights)
    return Mesh(mesh.name, points[of], uv_triangles, normals[of], uv, mesh.texture,
                None if mesh.colors is None else np.asarray(mesh.colors)[of], morphs, mesh.unlit)


def _on_one_side(turns):
    """Quaternions (T, 4) of length 1, none opposite to the one before: programs that do not look go the long way."""
    lengths = np.linalg.norm(turns, axis=1, keepdims=True)
    if not (lengths > 0.5).all():
        raise ValueError("a quaternion must have length 1")
    turns = turns / lengths
    flips = np.where((turns[1:] * turns[:-1]).sum(axis=1) < 0, -1.0, 1.0)
    return turns * np.cumprod(np.concatenate([[1.0], flips]))[:, None]


class Moves(NamedTuple):
    """What a morph target moves, as bytes: of all vertices, or of those whose indices are there.

    Attributes:
        values: float32, metre.
        indices: of the vertices; None: all.
        low, high: bounds of all values.
    """

    values: bytes
    indices: bytes | None
    low: list[float]
    high: list[float]


@functools.lru_cache(maxsize=4)  # the rigs of a run have the same targets
def _moves(deltas: bytes, count: int) -> list[Moves]:
    """What each of some targets moves, of float32 (K, N, 3) in decimetre; only the vertices that move where that is
    shorter.

    Raises:
        ValueError: values that are not finite.
    """
    found = []
    for values in np.frombuffer(deltas, np.float32).reshape(-1, count, 3):
        if not np.isfinite(values).all():
            raise ValueError("deltas have values that are not finite")
        values = values * np.float32(_METRES)
        rows = np.flatnonzero(values.any(axis=1))
        indices = None
        low, high = values.min(axis=0), values.max(axis=0)
        if len(rows) <= _SPARSE_SHARE * count:
            rows = rows if len(rows) else np.zeros(1, np.int64)  # a sparse accessor holds at least one value
            values, indices = values[rows], rows.astype(_index_type(count)).tobytes()
        found.append(Moves(values.tobytes(), indices, low.tolist(), high.tolist()))
    return found


class _Buffer:
    """The binary chunk, with the views and accessors into it."""

    def __init__(self):
        self.views, self.accessors, self.length = [], [], 0
        self._pieces = []

    def view(self, data: bytes, target: int | None = None) -> int:
        """Adds bytes, aligned to four; returns the number of their view."""
        self.views.append({"buffer": 0, "byteOffset": self.length, "byteLength": len(data)}
                          | ({} if target is None else {"target": target}))
        padding = -len(data) % 4
        self._pieces += [data, b"\0" * padding]
        self.length += len(data) + padding
        return len(self.views) - 1

    def accessor(self, values: np.ndarray, target: int | None = None, bounds: bool = False) -> int:
        """Adds numbers (n,) or (n, d), float32 or unsigned; returns the number of their accessor."""
        entry = {"bufferView": self.view(values.tobytes(), target), "componentType": _NUMBERS[values.dtype.name],
                 "count": len(values), "type": _TYPES[values.shape[1] if values.ndim == 2 else 1]}
        if bounds:
            entry |= {"min": np.atleast_1d(values.min(axis=0)).tolist(),
                      "max": np.atleast_1d(values.max(axis=0)).tolist()}
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def target(self, moves: Moves, count: int) -> int:
        """Adds what a morph target moves of so many vertices."""
        entry = {"componentType": _NUMBERS["float32"], "count": count, "type": "VEC3", "min": moves.low,
                 "max": moves.high}
        if moves.indices is None:
            entry["bufferView"] = self.view(moves.values, _VERTEX_DATA)
        else:
            kind = np.dtype(_index_type(count))
            entry["sparse"] = {
                "count": len(moves.indices) // kind.itemsize, "values": {"bufferView": self.view(moves.values)},
                "indices": {"bufferView": self.view(moves.indices), "componentType": _NUMBERS[kind.name]}}
        self.accessors.append(entry)
        return len(self.accessors) - 1

    def content(self) -> bytes:
        return b"".join(self._pieces)


def _index_type(count):
    """The narrowest type for indices of this many vertices; its largest number is not an index in glTF."""
    return np.uint16 if count < 65535 else np.uint32


class _Writer:
    """The JSON tree of one scene, and its buffer."""

    def __init__(self, scene: Scene):
        names = [thing.name for thing in (*scene.meshes, *scene.cameras)]
        if len({*names, "head"}) <= len(names) or not scene.meshes:
            raise ValueError(f"a scene needs at least one mesh, and names that differ (from 'head', too), got {names}")
        self._buffer, self._images, self._scene = _Buffer(), {}, scene
        head = {"name": "head", "children": list(range(1, len(scene.meshes) + 1))}
        if scene.head is not None:
            head |= _rigid("the head's pose", scene.head.rotation, scene.head.translation)
        self._tree = {
            "asset": {"version": "2.0", "generator": "facegcn", "extras": {"unit": "metre"}}, "scene": 0,
            "scenes": [{"name": "scene", "nodes": [0]} | ({"extras": dict(scene.extras)} if scene.extras else {})],
            "nodes": [head], "meshes": [], "materials": []}
        for mesh in scene.meshes:
            self._add_mesh(mesh)
        for camera in scene.cameras:
            self._add_camera(camera)
        if scene.animation is not None:
            self._add_animation(scene.animation)

    def content(self) -> bytes:
        """Header and the two chunks, see the specification's section 4."""
        binary = self._buffer.content()
        tree = self._tree | {"accessors": self._buffer.accessors, "bufferViews": self._buffer.views,
                             "buffers": [{"byteLength": len(binary)}]}
        text = json.dumps(tree, separators=(",", ":"), allow_nan=False, default=_plain).encode()
        text += b" " * (-len(text) % 4)
        header = struct.pack("<4sIIII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(binary), len(text), 0x4E4F534A)
        return b"".join([header, text, struct.pack("<II", len(binary), 0x004E4942), binary])

    # ---------------------------------------------------------------- meshes
    def _add_mesh(self, mesh: Mesh):
        """A mesh of one primitive, and its node below the head."""
        if mesh.texture is not None and (mesh.colors is not None or mesh.uv is None):
            raise ValueError(f"mesh {mesh.name!r}: a texture needs uv, and no vertex colours beside it")
        vertices, triangles = checked_mesh(mesh.vertices, mesh.triangles)
        if not triangles.size:
            raise ValueError(f"mesh {mesh.name!r} has no triangles")
        count, add = len(vertices), self._buffer.accessor
        normals = smooth_normals(vertices, triangles) if mesh.normals is None \
            else unit_normals(checked("normals", mesh.normals, (count, 3)))
        attributes = {"POSITION": add(np.float32(vertices * _METRES), _VERTEX_DATA, bounds=True),
                      "NORMAL": add(np.float32(normals), _VERTEX_DATA)}
        if mesh.uv is not None:
            uv = checked("uv", mesh.uv, (count, 2))
            attributes["TEXCOORD_0"] = add(np.float32(uv * (1, -1) + (0, 1)), _VERTEX_DATA)
        if mesh.colors is not None:
            linear = linear_from_srgb(checked_colors(mesh.colors, count))
            attributes["COLOR_0"] = add(np.float32(linear), _VERTEX_DATA)
        primitive = {"attributes": attributes, "indices": add(triangles.ravel().astype(_index_type(count)), _INDICES),
                     "material": len(self._tree["meshes"])}
        entry = {"name": mesh.name, "primitives": [primitive]}
        if mesh.morphs is not None:
            entry |= self._morphs(mesh.morphs, primitive, count)
        self._tree["nodes"].append({"name": mesh.name, "mesh": len(self._tree["meshes"])})
        self._tree["meshes"].append(entry)
        self._tree["materials"].append(self._material(mesh))

    def _morphs(self, morphs: Morphs, primitive: dict, count: int) -> dict:
        """Adds the targets to a primitive; returns what the mesh says of them."""
        names = [str(name) for name in morphs.names]
        if len(set(names)) < len(names) or not names:
            raise ValueError(f"morph targets need names, each another, got {names}")
        deltas = np.asarray(morphs.deltas, np.float32)
        if deltas.shape != (len(names), count, 3):
            raise ValueError(f"deltas {deltas.shape} do not fit; expected {(len(names), count, 3)}")
        weights = np.zeros(len(names)) if morphs.weights is None else checked("weights", morphs.weights, (len(names),))
        primitive["targets"] = [{"POSITION": self._buffer.target(moves, count)}
                                for moves in _moves(deltas.tobytes(), count)]
        return {"weights": weights.tolist(), "extras": {"targetNames": names}}

    def _material(self, mesh: Mesh) -> dict:
        """A rough dielectric, seen from both sides; unlit where the colours hold the light."""
        surface = dict(_MATERIAL)
        if mesh.texture is not None:
            surface["baseColorTexture"] = {"index": self._texture(mesh.texture)}
        material = {"name": mesh.name, "pbrMetallicRoughness": surface, "doubleSided": True}
        if mesh.unlit:
            material["extensions"] = {_UNLIT: {}}
            self._tree["extensionsUsed"] = [_UNLIT]
        return material

    def _texture(self, data: bytes) -> int:
        """The number of a texture; the same picture is written once."""
        if data not in self._images:
            kind = picture_type(data)
            self._images[data] = number = len(self._images)
            self._tree["samplers"] = [_SAMPLER]
            self._tree.setdefault("images", []).append({"bufferView": self._buffer.view(data), "mimeType": kind})
            self._tree.setdefault("textures", []).append({"sampler": 0, "source": number})
        return self._images[data]

    # ---------------------------------------------------------------- cameras and animation
    def _add_camera(self, camera: Camera):
        """A camera and its node in the scene."""
        pose = checked(f"pose of camera {camera.name!r}", camera.pose, (4, 4))
        if not (0 < camera.fov_y < np.pi and camera.aspect > 0 and camera.near > 0):
            raise ValueError(f"camera {camera.name!r} has an impossible field of view, aspect or near plane")
        cameras = self._tree.setdefault("cameras", [])
        cameras.append({"name": camera.name, "type": "perspective", "perspective": {
            "yfov": float(camera.fov_y), "aspectRatio": float(camera.aspect), "znear": float(camera.near * _METRES)}})
        self._tree["scenes"][0]["nodes"].append(len(self._tree["nodes"]))
        self._tree["nodes"].append(
            {"name": camera.name, "camera": len(cameras) - 1, **_rigid(camera.name, pose[:3, :3], pose[:3, 3])}
            | ({"extras": dict(camera.extras)} if camera.extras else {}))

    def _add_animation(self, animation: Animation):
        """Channels of the head and of each mesh that has one of the named targets."""
        times = checked("times", animation.times, (-1,))
        if not len(times) or times[0] < 0 or (np.diff(np.float32(times)) <= 0).any():
            raise ValueError("the times of an animation must be from 0 on, and rise")
        channels, add = [], self._buffer.accessor
        if animation.rotations is not None:
            turns = checked("rotations", animation.rotations, (len(times), 4))
            channels.append((0, "rotation", add(np.float32(_on_one_side(turns)))))
        if animation.translations is not None:
            moved = checked("translations", animation.translations, (len(times), 3)) * _METRES
            channels.append((0, "translation", add(np.float32(moved))))
        if animation.weights is not None:
            weights = checked("weights", animation.weights, (len(times), len(animation.names)))
            for node, mesh in enumerate(self._scene.meshes, start=1):
                if mesh.morphs is not None and set(mesh.morphs.names) & set(animation.names):
                    channels.append((node, "weights", add(_weights_of(mesh.morphs, animation.names, weights))))
        if not channels:
            raise ValueError("the animation moves nothing: neither the head nor a morph target of a mesh")
        clock = add(np.float32(times), bounds=True)
        self._tree["animations"] = [{
            "name": animation.name,
            "samplers": [{"input": clock, "output": output, "interpolation": "LINEAR"} for *_, output in channels],
            "channels": [{"sampler": number, "target": {"node": node, "path": path}}
                         for number, (node, path, _) in enumerate(channels)]}]


def _weights_of(morphs, names, weights):
    """(T K,) float32: frame by frame the weights of one mesh's targets, out of named columns (T, names)."""
    columns = {name: column for column, name in enumerate(names)}
    still = np.zeros(len(morphs.names)) if morphs.weights is None else morphs.weights
    own = [weights[:, columns[name]] if name in columns else np.full(len(weights), still[number])
           for number, name in enumerate(morphs.names)]
    return np.stack(own, axis=1).astype(np.float32).ravel()


def _rigid(name, rotation, translation) -> dict:
    """Rotation and translation of a node; an animated node may not have a matrix."""
    try:
        turn = quaternions(np.asarray(rotation, np.float64)[None])[0]
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return {"rotation": turn.tolist(), "translation": (checked(name, translation, (3,)) * _METRES).tolist()}


def _plain(value):
    """What ``json`` writes of a NumPy value."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"extras hold a {type(value).__name__}, which JSON cannot")
