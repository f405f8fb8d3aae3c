"""Exported meshes, read back by trimesh and by hand."""

import errno
import io
import json
import struct

import numpy as np
import pytest
import trimesh

from facegcn import export, files
from tests.faces import half_ellipsoid

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.25]], np.float32)
TRIANGLES = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], np.int32)
COLORS = np.array([[0, 0.5, 1], [1, 0, 0], [0.2, 0.4, 0.6], [1, 1, 1]], np.float32)


def _glb_parts(path):
    """(JSON tree, binary chunk) of a .glb."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    json_length = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20:20 + json_length]), data[20 + json_length + 8:]


def _accessor(tree, binary, index, width):
    accessor = tree["accessors"][index]
    view = tree["bufferViews"][accessor["bufferView"]]
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    return np.frombuffer(binary, "<f4", accessor["count"] * width, start).reshape(-1, width)


def test_obj_text_is_one_based_with_colours(tmp_path):
    path = tmp_path / "face.obj"
    export.write_obj(str(path), VERTICES, TRIANGLES, COLORS)
    header, *lines = path.read_text().splitlines()
    assert header.startswith("#") and "decimetre" in header
    assert lines[0] == "v 0.000000 0.000000 0.000000 0.0000 0.5000 1.0000"
    assert lines[4] == "f 1 3 2" and len(lines) == 8


def test_obj_round_trip(tmp_path, rng):
    vertices, colors = rng.normal(size=(50, 3)), rng.random((50, 3))
    triangles = np.arange(48).reshape(16, 3)
    path = str(tmp_path / "face.obj")
    export.write_obj(path, vertices, triangles, colors)
    read = trimesh.load(path, process=False, maintain_order=True)
    np.testing.assert_allclose(read.vertices, vertices[:len(read.vertices)], atol=1e-6)
    np.testing.assert_array_equal(read.faces, triangles)
    np.testing.assert_allclose(read.visual.vertex_colors[:, :3] / 255, colors[:len(read.vertices)], atol=3e-3)


def test_glb_round_trip_keeps_order_area_and_direction(tmp_path):
    path = tmp_path / "face.glb"
    export.write_glb(str(path), VERTICES, TRIANGLES, COLORS)
    read = trimesh.load(io.BytesIO(path.read_bytes()), file_type="glb", process=False).to_geometry()
    np.testing.assert_allclose(read.vertices, VERTICES / 10, atol=1e-7)
    np.testing.assert_array_equal(read.faces, TRIANGLES)
    assert read.volume == pytest.approx(1.25 / 6 / 1000) and read.area == pytest.approx(
        trimesh.Trimesh(VERTICES, TRIANGLES).area / 100)


def test_a_face_is_as_high_as_a_face_in_metres(tmp_path):
    face, path = half_ellipsoid(), tmp_path / "face.glb"
    export.write_glb(str(path), face.mean_shape, face.triangles, face.mean_albedo / 255)
    height = np.ptp(trimesh.load(str(path), force="mesh").vertices[:, 1])
    assert 0.15 < height < 0.25
    assert _glb_parts(path)[0]["asset"]["extras"] == {"unit": "metre"}
    export.write_obj(str(tmp_path / "face.obj"), face.mean_shape, face.triangles, face.mean_albedo / 255)
    assert np.ptp(trimesh.load(str(tmp_path / "face.obj")).vertices[:, 1]) == pytest.approx(10 * height, rel=1e-5)


@pytest.mark.parametrize("write", [export.write_obj, export.write_glb])
def test_a_full_disk_is_named_and_leaves_the_former_file(tmp_path, monkeypatch, write):
    path = tmp_path / "face.mesh"
    path.write_bytes(b"former")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(str(path), VERTICES, TRIANGLES, COLORS)
    assert caught.value.filename == str(path)
    assert [p.name for p in tmp_path.iterdir()] == ["face.mesh"] and path.read_bytes() == b"former"


def test_glb_colours_are_linear_floats_with_normals_and_a_matt_material(tmp_path):
    path = tmp_path / "face.glb"
    export.write_glb(str(path), VERTICES, TRIANGLES, COLORS)
    tree, binary = _glb_parts(path)
    primitive = tree["meshes"][0]["primitives"][0]
    colors = _accessor(tree, binary, primitive["attributes"]["COLOR_0"], 3)
    assert tree["accessors"][primitive["attributes"]["COLOR_0"]]["componentType"] == 5126
    np.testing.assert_allclose(colors, export.linear_from_srgb(COLORS), atol=1e-6)
    normals = _accessor(tree, binary, primitive["attributes"]["NORMAL"], 3)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0, atol=1e-5)
    assert tree["materials"][primitive["material"]]["pbrMetallicRoughness"]["metallicFactor"] == 0.0
    assert "extensionsUsed" not in tree


def test_linear_light_known_values():
    np.testing.assert_allclose(export.linear_from_srgb([0.0, 0.04, 0.5, 1.0]), [0, 0.0030960, 0.2140411, 1],
                               atol=1e-6)


@pytest.mark.parametrize("write", [export.write_obj, export.write_glb])
@pytest.mark.parametrize("change, message", [
    (dict(vertices=VERTICES[:, :2]), "do not fit"), (dict(colors=COLORS[:2]), "do not fit"),
    (dict(triangles=TRIANGLES + 1), r"outside 0\.\.3"), (dict(vertices=VERTICES * np.nan), "not finite")])
def test_bad_meshes_are_refused(tmp_path, write, change, message):
    arguments = dict(vertices=VERTICES, triangles=TRIANGLES, colors=COLORS) | change
    with pytest.raises(ValueError, match=message):
        write(str(tmp_path / "face"), **arguments)
    assert not (tmp_path / "face").exists()
