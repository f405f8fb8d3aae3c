"""A folder as test mode writes it, of made faces, without running test mode."""

import os

import numpy as np
import tensorflow as tf

from facegcn import camera, geometry, lighting
from facegcn.files import write_npz
from facegcn.rasterizer import rasterize
from facegcn.reconstruction.evaluation import write_metrics
from facegcn.renderer import render_colors
from facegcn.report import to_uint8, write_png
from tests.faces import half_ellipsoid

SIZE = 96
EXPRESSIONS = ("jawOpen", "mouthSmile_L", "mouthSmile_R", "browInnerUp", "noseSneer_L")


def model(rows=25, columns=31):
    """A small model with named expressions; the last one moves nothing."""
    made = half_ellipsoid(rows, columns)
    x, y, _ = made.mean_shape.T
    shapes = np.zeros((made.vertex_count, 3, len(EXPRESSIONS)), np.float32)
    shapes[:, 1, 0] = -0.3 * (y < -0.3)
    shapes[:, 0, 1], shapes[:, 0, 2] = 0.1 * ((y < 0) & (x > 0.1)), -0.1 * ((y < 0) & (x < -0.1))
    shapes[:, 1, 3] = 0.15 * (y > 0.4)
    made.blendshapes, made.blendshape_names = shapes, EXPRESSIONS
    return made


def face(made, seed=0):
    """A photo's arrays, and its pictures by kind: photo and renders."""
    rng = np.random.default_rng(seed)
    angles = np.float32([[0.1, 0.25, -0.05]])
    rest = made.mean_shape + 0.02 * rng.normal(size=3)
    posed = geometry.rotate(rest[None], angles) + np.float32([0.05, -0.03, 0.1])
    normals, gamma = geometry.vertex_normals(posed, made.triangles), 0.2 * rng.normal(size=(1, 27))
    coarse = made.mean_albedo[None] / 255.0
    fine = np.clip(coarse * rng.uniform(0.7, 1.2, (1, made.vertex_count, 1)), 0, 1).astype(np.float32)
    raster = rasterize(camera.clip_coordinates(posed, SIZE, SIZE), made.triangles, SIZE, SIZE)
    arrays = {
        "coeff_gamma": gamma[0], "vertices": rest, "vertices_posed": posed[0], "normals": normals[0],
        "triangles": made.triangles, "visible": np.asarray(normals)[0, :, 2] > 0.2,
        "camera_position": [0, 0, camera.CAMERA_DISTANCE], "camera_fov_y": camera.FOV_Y}
    pictures = {}
    for kind, albedo in (("coarse", coarse), ("fine", fine)):
        lit = lighting.illuminate(albedo, normals, gamma)
        render = np.asarray(render_colors(raster, made.triangles, lit))[0]
        arrays[f"{kind}_texture"], arrays[f"{kind}_color"] = (np.asarray(a)[0] * 2 - 1 for a in (albedo, lit))
        pictures[kind] = np.dstack([to_uint8(render[..., :3] * 2 - 1), np.uint8(255 * render[..., 3])])
    pictures["input"] = np.where(pictures["fine"][..., 3:] > 0, pictures["fine"][..., :3], 90).astype(np.uint8)
    pictures["mask"] = pictures["fine"][..., 3]
    single = {"visible": np.float32, "triangles": np.int32}
    return {key: np.asarray(value, single.get(key, np.float32)) for key, value in arrays.items()}, pictures


def layout(made):
    """A texture layout that has the first ten vertices twice."""
    vertices = np.r_[np.arange(made.vertex_count), np.arange(10)]
    low, high = made.mean_shape[:, :2].min(axis=0), made.mean_shape[:, :2].max(axis=0)
    return {"texture_vertices": vertices.astype(np.int32), "texture_triangles": made.triangles,
            "texture_uv": ((made.mean_shape[vertices, :2] - low) / (high - low)).astype(np.float32)}


def write_results(folder, made, names, failed=None, textured=False):
    """Results of photos of these names, and rows of those that failed: a reason by name."""
    os.makedirs(folder, exist_ok=True)
    rows = {}
    for seed, name in enumerate(names):
        arrays, pictures = face(made, seed)
        if textured:
            arrays |= {**layout(made), "blendshape_weights": np.float32([0.2, 0.0, 0.0, 0.5, 0.0])}
            checks = np.uint8(np.indices((1500, 1500)).sum(axis=0) // 100 % 2 * 120 + 80)
            pictures |= {"albedo": np.dstack([checks] * 3), "lit": np.dstack([checks] * 3),
                         "pasted": np.zeros((900, 1200, 3), np.uint8)}
        write_npz(os.path.join(folder, f"{name}.npz"), arrays)
        for kind, picture in pictures.items():
            write_png(os.path.join(folder, f"{name}_{kind}.png"), picture)
        rows[name] = {"status": "ok", "coarse_psnr": 20.0 + seed, "fine_psnr": 30.0 - seed, "unexplained": 0.05}
    for name, reason in (failed or {}).items():
        rows[name] = {"status": "no face", "reason": reason}
    write_metrics(str(folder), rows, fine_texture="texture network")
    return folder


def shading(normals, gamma):
    """``lighting.shading`` of one face."""
    return np.asarray(lighting.shading(tf.constant(normals, tf.float32)[None], np.asarray(gamma)[None]))[0]
