"""Reading .glb files by hand, as the specification says, and scenes of every kind that is written."""

import json
import struct

import cv2
import numpy as np

from facegcn.export.gltf import Animation, Camera, Mesh, Morphs, Pose, Scene, quaternions, with_layout
from facegcn.geometry import rotation_matrix
from tests.faces import half_ellipsoid

_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_KINDS = {5123: "<u2", 5125: "<u4", 5126: "<f4"}
NAMES = ("jawOpen", "mouthSmileLeft", "eyeBlinkLeft")


def glb_parts(path):
    """(JSON tree, binary chunk) of a .glb."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    json_length, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and json_length % 4 == 0
    binary_length, kind = struct.unpack_from("<I4s", data, 20 + json_length)
    binary = data[20 + json_length + 8:]
    assert kind == b"BIN\0" and len(binary) == binary_length
    return json.loads(data[20:20 + json_length]), binary


def accessor(tree, binary, index):
    """(count, width) numbers of an accessor, a sparse one's too."""
    entry = tree["accessors"][index]
    width = _WIDTHS[entry["type"]]

    def numbers(view, count, kind):
        start = tree["bufferViews"][view]["byteOffset"]
        return np.frombuffer(binary, _KINDS[kind], count, start)

    if "bufferView" in entry:
        values = numbers(entry["bufferView"], entry["count"] * width, entry["componentType"]).reshape(-1, width)
    else:
        values = np.zeros((entry["count"], width), np.float32)
    if "sparse" in entry:
        sparse, values = entry["sparse"], values.copy()
        rows = numbers(sparse["indices"]["bufferView"], sparse["count"], sparse["indices"]["componentType"])
        values[rows] = numbers(sparse["values"]["bufferView"], sparse["count"] * width, 5126).reshape(-1, width)
    return values


def picture(ending=".png", size=16):
    """Bytes of a small picture, coloured by place."""
    ramp = np.linspace(0, 255, size).astype(np.uint8)
    image = np.stack(np.broadcast_arrays(ramp[None], ramp[:, None], np.uint8(90)), axis=-1)
    return cv2.imencode(ending, image)[1].tobytes()


def face_mesh(**changes):
    """A mesh of the half ellipsoid with vertex colours."""
    face = half_ellipsoid()
    return Mesh("face", **dict(vertices=face.mean_shape, triangles=face.triangles,
                               colors=face.mean_albedo / 255) | changes)


def planar_uv(vertices):
    """(N, 2) texture coordinates seen from the front, v up."""
    low, high = vertices[:, :2].min(axis=0), vertices[:, :2].max(axis=0)
    return (vertices[:, :2] - low) / (high - low)


def morphs(count, rng, weights=None):
    """Three targets: one moves every vertex, one a few, one none."""
    deltas = 0.1 * rng.normal(size=(3, count, 3))
    deltas[1, count // 5:] = 0
    deltas[2] = 0
    return Morphs(NAMES, deltas, weights)


def clip(frames=5, names=NAMES, seed=0):
    """An animation of weights and the head's pose."""
    rng = np.random.default_rng(seed)
    turns = rotation_matrix(np.float32(np.linspace(0, 1, frames)[:, None] * [0.1, 0.5, 0])).numpy()
    return Animation(np.arange(frames) / 30, names, rng.random((frames, len(names))), quaternions(turns),
                     0.1 * rng.normal(size=(frames, 3)))


def every_kind():
    """Scenes by name: each way to colour, several meshes, both kinds of morph targets, cameras, animation."""
    rng, face = np.random.default_rng(0), face_mesh()
    count, uv = len(face.vertices), planar_uv(face.vertices)
    plain = face_mesh(colors=None)
    textured = face_mesh(colors=None, uv=uv, texture=picture())
    seams = np.arange(face.triangles.size).reshape(-1, 3)  # every triangle an island of its own
    split = with_layout(face_mesh(colors=None, texture=picture(), morphs=morphs(count, rng)),
                        uv[face.triangles.ravel()], seams)
    eye = Mesh("eye", face.vertices * 0.1, face.triangles, uv=uv, texture=picture(".jpg"),
               morphs=Morphs(("eyeLookUpLeft", "jawOpen"), 0.01 * rng.normal(size=(2, count, 3)), (0.5, 0.25)))
    cameras = [Camera("crop", 0.22, 1.0, np.eye(4) + np.outer([0, 0, 10, 0], [0, 0, 0, 1])),
               Camera("photo", 0.5, 1.5, np.eye(4), extras={"reprojection_rms_pixels": np.float32(0.1)})]
    head = Pose(rotation_matrix(np.float32([[0.1, -0.4, 0.2]]))[0].numpy(), (0.1, 0.2, -0.3))
    grid = np.stack(np.meshgrid(np.arange(257.0), np.arange(257.0)), -1).reshape(-1, 2)
    rim = np.arange(len(grid) - 2)
    return {
        "plain": Scene([plain]), "colors": Scene([face]), "unlit colors": Scene([face_mesh(unlit=True)]),
        "albedo texture": Scene([textured]), "lit texture": Scene([face_mesh(
            colors=None, uv=uv, texture=picture(".jpg"), unlit=True)]),
        "split": Scene([split]),
        "everything": Scene([face_mesh(morphs=morphs(count, rng, (0.2, 0, 1))), eye], cameras, head, clip(),
                            {"coefficients": rng.random(4), "note": "in metres"}),
        "one frame": Scene([face_mesh(morphs=morphs(count, rng))], animation=clip(1)),
        "only the head moves": Scene([textured], animation=Animation([0, 1], translations=np.eye(3)[:2])),
        "large": Scene([Mesh("grid", np.column_stack([grid, grid[:, 0] ** 2 / 99]),
                             np.column_stack([rim, rim + 1, rim + 2]),
                             morphs=morphs(len(grid), rng))])}
