"""OBJ and PLY, read back by trimesh and by hand."""

import errno

import numpy as np
import pytest
import trimesh

from facegcn import files
from facegcn.errors import UserError
from facegcn.export.arrays import layout_vertices, linear_from_srgb, smooth_normals
from facegcn.export.gltf import Mesh, Scene, write_glb
from facegcn.export.obj import write_obj, write_textured_obj
from facegcn.export.ply import write_ply
from facegcn.geometry import vertex_normals
from tests.faces import half_ellipsoid
from tests.gltf_files import picture

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.25]], np.float32)
TRIANGLES = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], np.int32)
COLORS = np.array([[0, 0.5, 1], [1, 0, 0], [0.2, 0.4, 0.6], [1, 1, 1]], np.float32)
UV = np.array([[0, 0], [1, 0], [0, 1], [0.25, 0.5]])


def colored_glb(path, vertices, triangles, colors):
    """``write_glb`` with the arguments of the other writers."""
    write_glb(path, Scene([Mesh("face", vertices, triangles, colors=colors)]))


def textured(path, vertices, triangles, colors):
    """``write_textured_obj`` with the arguments of the other writers."""
    write_textured_obj(path, vertices, triangles, colors[:, :2], picture())


def test_obj_text_is_one_based_with_colours(tmp_path):
    path = tmp_path / "face.obj"
    write_obj(str(path), VERTICES, TRIANGLES, COLORS)
    header, *lines = path.read_text().splitlines()
    assert header.startswith("#") and "decimetre" in header
    assert lines[0] == "v 0.000000 0.000000 0.000000 0.0000 0.5000 1.0000"
    assert lines[4] == "f 1 3 2" and len(lines) == 8


def test_obj_round_trip(tmp_path, rng):
    vertices, colors = rng.normal(size=(50, 3)), rng.random((50, 3))
    triangles = np.arange(48).reshape(16, 3)
    path = str(tmp_path / "face.obj")
    write_obj(path, vertices, triangles, colors)
    read = trimesh.load(path, process=False, maintain_order=True)
    np.testing.assert_allclose(read.vertices, vertices[:len(read.vertices)], atol=1e-6)
    np.testing.assert_array_equal(read.faces, triangles)
    np.testing.assert_allclose(read.visual.vertex_colors[:, :3] / 255, colors[:len(read.vertices)], atol=3e-3)


def test_obj_keeps_decimetres(tmp_path):
    face = half_ellipsoid()
    write_obj(str(tmp_path / "face.obj"), face.mean_shape, face.triangles, face.mean_albedo / 255)
    assert np.ptp(trimesh.load(str(tmp_path / "face.obj")).vertices[:, 1]) == pytest.approx(
        np.ptp(face.mean_shape[:, 1]), rel=1e-5)


# ---------------------------------------------------------------- with a texture
def test_textured_obj_text(tmp_path):
    write_textured_obj(str(tmp_path / "me.obj"), VERTICES, TRIANGLES, UV, picture())
    lines = (tmp_path / "me.obj").read_text().splitlines()
    assert lines[1] == "mtllib me.mtl" and "vt 0.250000 0.500000" in lines and "f 1/1 3/3 2/2" in lines
    assert "v 1.000000 0.000000 0.000000" in lines, "no colours beside a texture"
    assert "map_Kd me.png" in (tmp_path / "me.mtl").read_text().splitlines()
    assert (tmp_path / "me.png").read_bytes() == picture()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["me.mtl", "me.obj", "me.png"]


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_textured_obj_is_read_with_its_seams(tmp_path, ending):
    """Each corner has a texture coordinate of its own; vertices stay as they are."""
    corners = np.arange(12).reshape(4, 3)
    uv = UV[TRIANGLES.ravel()] * 0.5 + corners.reshape(-1, 1) / 50
    path = tmp_path / "two words.obj"
    write_textured_obj(str(path), VERTICES, TRIANGLES, uv, picture(ending), corners)
    assert sum(line.startswith("v ") for line in path.read_text().splitlines()) == 4
    read = trimesh.load(str(path), force="mesh", process=False)
    np.testing.assert_allclose(read.vertices[read.faces], VERTICES[TRIANGLES], atol=1e-6)
    np.testing.assert_allclose(read.visual.uv[read.faces], uv[corners], atol=1e-6)
    assert read.visual.material.image.size == (16, 16)


@pytest.mark.parametrize("change, message", [
    (dict(texture=b"GIF89a"), "PNG or JPEG"), (dict(uv=UV[:3]), "uv"), (dict(uv=UV + np.nan), "not finite"),
    (dict(uv_triangles=TRIANGLES[:2]), "do not fit"), (dict(uv_triangles=TRIANGLES + 1), r"outside 0\.\.3")])
def test_textures_that_do_not_fit_are_refused(tmp_path, change, message):
    arguments = dict(vertices=VERTICES, triangles=TRIANGLES, uv=UV, texture=picture()) | change
    with pytest.raises(ValueError, match=message):
        write_textured_obj(str(tmp_path / "face.obj"), **arguments)
    assert not list(tmp_path.iterdir())


def test_a_name_that_obj_cannot_hold_is_refused(tmp_path):
    with pytest.raises(UserError, match="line break"):
        write_textured_obj(str(tmp_path / "a\nb.obj"), VERTICES, TRIANGLES, UV, picture())


# ---------------------------------------------------------------- PLY
def test_ply_round_trip(tmp_path, rng):
    face = half_ellipsoid()
    colors = rng.random(face.mean_shape.shape)
    write_ply(str(tmp_path / "face.ply"), face.mean_shape, face.triangles, colors)
    header = (tmp_path / "face.ply").read_bytes().split(b"end_header")[0].decode()
    assert "comment unit: decimetre" in header and "property float nx" in header
    read = trimesh.load(str(tmp_path / "face.ply"), process=False)
    np.testing.assert_allclose(read.vertices, face.mean_shape, atol=1e-6)
    np.testing.assert_array_equal(read.faces, face.triangles)
    np.testing.assert_array_equal(read.visual.vertex_colors[:, :3], np.round(colors * 255))
    found = read.metadata["_ply_raw"]["vertex"]["data"]
    np.testing.assert_allclose(np.column_stack([found[name] for name in ("nx", "ny", "nz")]),
                               smooth_normals(face.mean_shape, face.triangles), atol=1e-6)


# ---------------------------------------------------------------- all of them
@pytest.mark.parametrize("write", [write_obj, write_ply, colored_glb, textured])
def test_a_full_disk_is_named_and_leaves_the_former_file(tmp_path, monkeypatch, write):
    path = tmp_path / "face.mesh"
    path.write_bytes(b"former")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write(str(path), VERTICES, TRIANGLES, COLORS)
    assert caught.value.filename in (str(path), str(path.with_suffix(".png")))
    assert [p.name for p in tmp_path.iterdir()] == ["face.mesh"] and path.read_bytes() == b"former"


@pytest.mark.parametrize("write", [write_obj, write_ply, colored_glb])
@pytest.mark.parametrize("change, message", [
    (dict(vertices=VERTICES[:, :2]), "do not fit"), (dict(colors=COLORS[:2]), "do not fit"),
    (dict(triangles=TRIANGLES + 1), r"outside 0\.\.3"), (dict(vertices=VERTICES * np.nan), "not finite"),
    (dict(colors=COLORS * np.nan), "not finite")])
def test_bad_meshes_are_refused(tmp_path, write, change, message):
    arguments = dict(vertices=VERTICES, triangles=TRIANGLES, colors=COLORS) | change
    with pytest.raises(ValueError, match=message):
        write(str(tmp_path / "face"), **arguments)
    assert not (tmp_path / "face").exists()


def test_linear_light_known_values():
    np.testing.assert_allclose(linear_from_srgb([0.0, 0.04, 0.5, 1.0]), [0, 0.0030960, 0.2140411, 1], atol=1e-6)


def test_smooth_normals_are_those_of_the_renderer():
    face = half_ellipsoid()
    np.testing.assert_allclose(smooth_normals(np.float64(face.mean_shape), face.triangles),
                               vertex_normals(np.float32(face.mean_shape[None]), face.triangles)[0], atol=1e-5)


def test_a_vertex_without_triangle_has_a_normal_too():
    vertices = np.vstack([VERTICES, [[5, 5, 5]]])
    np.testing.assert_array_equal(smooth_normals(vertices, TRIANGLES)[4], [0, 0, 1])


def test_layout_vertices_by_hand():
    np.testing.assert_array_equal(layout_vertices([[0, 1, 2], [2, 1, 3]], [[4, 0, 1], [3, 0, 2]], 5), [1, 2, 3, 2, 0])
