"""Blender opens the exported files and renders with their cameras what the project renders.

It is found by BLENDER_PYTHON (a Python that imports ``bpy``), as the module ``bpy`` of this Python, or as ``blender``.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from facegcn.camera import CAMERA_DISTANCE, FAR, NEAR
from facegcn.export.gltf import Mesh, Morphs, Scene, write_glb
from facegcn.export.obj import write_obj, write_textured_obj
from facegcn.export.photo_camera import crop_camera, photo_camera
from facegcn.rasterizer import rasterize
from facegcn.renderer import render_colors
from tests.conftest import ROOT
from tests.gltf_files import NAMES, every_kind, face_mesh, picture, planar_uv
from tests.test_photo_camera import SIZE, in_photo, posed, similarity

PICTURE = 256  # width of the texture
PHOTO, TRANSFORM = (200, 150), similarity(2.0, 20, (70, 60))


def _blender():
    """The beginning of a command that runs a Python file in Blender, or None."""
    if os.environ.get("BLENDER_PYTHON"):
        return [os.environ["BLENDER_PYTHON"]]
    if importlib.util.find_spec("bpy"):
        return [sys.executable]
    return ["blender", "--background", "--python"] if shutil.which("blender") else None


def _colors(uv):
    """(N, 3) what ``picture`` has at texture coordinates."""
    row, column = ((1 - uv[:, 1]) * PICTURE - 0.5) / (PICTURE - 1), (uv[:, 0] * PICTURE - 0.5) / (PICTURE - 1)
    return np.stack([np.full(len(uv), 90 / 255), row, column], axis=1).clip(0, 1)  # OpenCV's pictures are BGR


def _ours(pixels, depth, triangles, colors, size):
    """(H, W, 4) the project's render of vertices at these pixels of a picture, in 0..255."""
    width, height = size
    normal = (pixels / (width, height) * 2 - 1) * (1, -1)
    near_to_far = (NEAR + FAR - 2 * NEAR * FAR / depth) / (FAR - NEAR)
    clip = np.column_stack([normal, near_to_far, np.ones(len(depth))]) * depth[:, None]
    found = rasterize(np.float32(clip[None]), triangles, height, width)
    return render_colors(found, triangles, np.float32(colors[None]))[0].numpy() * 255


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """By name: what Blender says of each file, and its render as RGBA or None."""
    blender = _blender()
    if blender is None:
        pytest.skip("needs Blender: BLENDER_PYTHON, the module bpy, or the program blender")
    folder = tmp_path_factory.mktemp("blender")
    vertices, triangles = posed()
    uv = planar_uv(vertices)
    cameras = [crop_camera(), photo_camera(vertices, TRANSFORM, SIZE, PHOTO)]
    shape = dict(name="face", vertices=vertices, triangles=triangles)
    write_glb(str(folder / "colors.glb"), Scene([Mesh(**shape, colors=_colors(uv), unlit=True)], cameras,
                                                extras={"note": 1}))
    write_glb(str(folder / "texture.glb"),
              Scene([Mesh(**shape, uv=uv, texture=picture(size=PICTURE), unlit=True)], cameras))
    write_obj(str(folder / "colors.obj"), vertices, triangles, _colors(uv))
    write_textured_obj(str(folder / "texture.obj"), vertices, triangles, uv, picture(size=PICTURE))
    write_glb(str(folder / "moving.glb"), every_kind()["everything"])
    still = face_mesh()
    targets = Morphs(NAMES, np.repeat(0.1 * np.float64(still.vertices)[None], 3, axis=0), (0.25, 0, 1))
    write_glb(str(folder / "still.glb"), Scene([face_mesh(morphs=targets)]))
    by_hand = {"fov_y": crop_camera().fov_y, "pose": _in_metres(crop_camera().pose)}
    exact = {key: np.asarray(cameras[1].extras["exact"][key]).tolist() for key in ("fov_y", "pose", "shift")}
    views = {"colors.glb": [("crop", (SIZE, SIZE)), ("photo", PHOTO), (exact, PHOTO)],
             "texture.glb": [("crop", (SIZE, SIZE))], "colors.obj": [(by_hand, (SIZE, SIZE))],
             "texture.obj": [(by_hand, (SIZE, SIZE))]}
    jobs = [{"file": str(folder / file), "camera": camera, "size": size, "png": str(folder / f"{file}{number}.png")}
            for file, several in views.items() for number, (camera, size) in enumerate(several)]
    jobs += [{"file": str(folder / "moving.glb"), "frame": 3}, {"file": str(folder / "still.glb")}]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    script = [str(ROOT / "tests" / "blender_open.py")] + (["--"] if blender[0] == "blender" else [])
    subprocess.run([*blender, *script, str(folder / "jobs.json"), str(folder / "results.json")], check=True,
                   capture_output=True, timeout=540)
    results = json.loads((folder / "results.json").read_text())
    return {os.path.basename(job.get("png", job["file"])): (result, _read(job["png"]) if "png" in job else None)
            for job, result in zip(jobs, results)}


def _read(path):
    """RGBA of a PNG."""
    return cv2.cvtColor(cv2.imread(path, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)


def _in_metres(pose):
    pose = pose.copy()
    pose[:3, 3] /= 10
    return pose.tolist()


@pytest.mark.parametrize("name", ["colors.glb0.png", "colors.glb1.png", "colors.glb2.png", "texture.glb0.png",
                                  "colors.obj0.png", "texture.obj0.png"])
def test_blender_renders_what_the_project_renders(opened, name):
    """Measured: see docs/blender.md. Colours are mixed in linear light there, as sRGB here."""
    vertices, triangles = posed()
    in_crop = name not in ("colors.glb1.png", "colors.glb2.png")
    size = (SIZE, SIZE) if in_crop else PHOTO
    pixels = in_photo(vertices, np.eye(3)[:2] if in_crop else TRANSFORM)
    ours = _ours(pixels, CAMERA_DISTANCE - vertices[:, 2], triangles, _colors(planar_uv(vertices)), size)
    theirs = opened[name][1]
    covered = (ours[..., 3] > 127) & (theirs[..., 3] > 127)
    differ = (ours[..., 3] > 127) != (theirs[..., 3] > 127)
    off = np.abs(ours[..., :3] - theirs[..., :3])[covered]
    print(name, "mean", off.mean(), "99 %", np.percentile(off, 99), "cover", covered.sum(), differ.sum())
    assert covered.sum() > 2000 and differ.sum() < 0.01 * covered.sum()
    assert off.mean() < 1.0 and np.percentile(off, 99) < 6


def test_blender_has_the_cameras_and_their_facts(opened):
    found = opened["colors.glb0.png"][0]
    assert found["objects"] == ["crop", "face", "head", "photo"] and "note" in found["extras"]
    assert {"exact", "reprojection_rms_pixels"} <= set(found["cameras"]["photo"])


def test_blender_has_the_pictures(opened):
    for name in ("texture.glb0.png", "texture.obj0.png"):
        mesh, = opened[name][0]["meshes"].values()
        assert mesh["images"] == [[PICTURE, PICTURE]]


def test_blender_opens_in_the_stored_expression(opened):
    mesh = opened["still.glb"][0]["meshes"]["face"]
    assert mesh["keys"] == pytest.approx({"Basis": 1, "jawOpen": 0.25, "mouthSmileLeft": 0, "eyeBlinkLeft": 1})
    np.testing.assert_allclose(mesh["vertices"], _z_up(face_mesh().vertices * 1.125) / 10, atol=1e-5)


def test_blender_moves_head_and_targets_as_the_animation_says(opened):
    scene, found = every_kind()["everything"], opened["moving.glb"][0]
    face, clip = scene.meshes[0], scene.animation
    model = face.vertices + np.tensordot(clip.weights[3], face.morphs.deltas, axes=1)
    world = Rotation.from_quat(clip.rotations[3]).apply(model) + clip.translations[3]
    np.testing.assert_allclose(found["meshes"]["face"]["vertices"], _z_up(world) / 10, atol=1e-4)
    assert {"eyeLookUpLeft", "jawOpen"} <= set(found["meshes"]["eye"]["keys"])


def _z_up(points):
    """Blender's axes: z up, y away from the viewer."""
    return np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1)
