"""Contact sheet of a morphable model: the mean face from all sides, faces, expressions, skins."""

from __future__ import annotations

import numpy as np

from facegcn import camera, geometry, lighting, rasterizer, renderer, report
from facegcn.morphable import MorphableModel

_YAWS = (0, 30, 60, 90, -30, -60)  # degrees
# Soft light from above and a little from the left: factors of the harmonics 1, y, z, x.
_LIGHT = (-0.22, -0.26, 0.26, 0.12)


def render(model: MorphableModel, offsets, albedo, yaw: float = 0.0, size: int = 224) -> np.ndarray:
    """One picture: uint8 (size, size, 4), alpha = coverage.

    Args:
        model: the face.
        offsets: (N, 3) added to the centred mean shape, decimetre.
        albedo: (N, 3) RGB in [0, 255].
        yaw: turn about the vertical axis, degrees.
        size: pixels.
    """
    centred = model.mean_shape - model.mean_shape.mean(axis=0) + offsets
    vertices = geometry.rotate(centred[None].astype(np.float32), np.array([[0, np.radians(yaw), 0]], np.float32))
    normals = geometry.vertex_normals(vertices, model.triangles)
    gamma = np.zeros((3, 9), np.float32)
    gamma[:, :4] = _LIGHT
    colors = lighting.illuminate((albedo / 255)[None].astype(np.float32), normals, gamma.reshape(1, 27))
    seen = rasterizer.rasterize(camera.clip_coordinates(vertices, size, size), model.triangles, size, size)
    picture = renderer.render_colors(seen, model.triangles, colors)[0].numpy()
    return np.round(255 * picture).astype(np.uint8)


def write_preview(model: MorphableModel, path: str, size: int = 224, seed: int = 0) -> None:
    """Writes the contact sheet as PNG.

    Raises:
        OSError: the file cannot be written.
    """
    rng = np.random.default_rng(seed)
    still, mean = np.zeros_like(model.mean_shape), model.mean_albedo
    clay = np.full_like(mean, 205.0)
    columns = len(_YAWS)

    def draw(basis):
        return basis @ np.clip(rng.normal(size=basis.shape[2]), -2, 2)

    def skin():
        return np.clip(mean + draw(model.albedo_basis), 0, 255)

    rows = {
        "mean shape": [render(model, still, clay, yaw, size) for yaw in _YAWS],
        "mean shape and albedo": [render(model, still, mean, yaw, size) for yaw in _YAWS],
        "random identities": [render(model, draw(model.id_basis), clay, 0, size) for _ in range(columns)],
        "random expressions": [render(model, draw(model.exp_basis), mean, 0, size) for _ in range(columns)],
        "random albedos": [render(model, still, skin(), 0, size) for _ in range(columns)],
        "everything random": [render(model, draw(model.id_basis) + 0.7 * draw(model.exp_basis), skin(),
                                     rng.uniform(-40, 40), size) for _ in range(columns)]}
    report.contact_sheet(list(rows.values()), list(rows), path, width=size)
