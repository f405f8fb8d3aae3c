"""Helpers of the root scripts: file lists, run folders, and the cached mesh hierarchy."""

from __future__ import annotations

import os

import numpy as np

import mesh_sampling
from facegcn.errors import UserError
from facegcn.files import code_version, digest, kept_npz
from facegcn.runs import RunFolder
from mesh_sampling import MeshHierarchy

__all__ = ["IMAGE_EXTENSIONS", "RunFolder", "find_images", "init_sampling"]

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def find_images(path: str, flag: str = "--input") -> list[str]:
    """The image files at a path: itself when a file, else those directly in the folder, by name.

    Args:
        path: file or folder.
        flag: what the user wrote it behind; part of the message.

    Raises:
        UserError: nothing is there, or the folder holds no image.
    """
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        raise UserError(f"{flag} {path}: there is no such file or folder")
    found = sorted(os.path.join(path, name) for name in os.listdir(path)
                   if name.lower().endswith(IMAGE_EXTENSIONS))
    if not found:
        raise UserError(f"{flag} {path}: no image in this folder (looked for {', '.join(IMAGE_EXTENSIONS)})")
    return found


def init_sampling(vertices: np.ndarray, triangles: np.ndarray, folder: str,
                  factors: tuple[float, ...] = (4, 4, 4, 4)) -> MeshHierarchy:
    """The mesh hierarchy of a template, from a kept file where there is a whole one.

    Args:
        vertices: (N, 3) mean shape.
        triangles: (F, 3).
        folder: where ``sampling-<digest>.npz`` is kept; the digest covers vertices, triangles,
            factors and the code that makes hierarchies. A damaged file is made anew.
        factors: each level keeps ceil(N / factor) vertices.
    """
    makers = code_version("facegcn.mesh.decimation", "facegcn.mesh.closest_point", "mesh_sampling")
    key = digest(np.asarray(vertices), np.asarray(triangles), np.asarray(factors, float), makers)
    arrays = kept_npz(
        os.path.join(folder, f"sampling-{key}.npz"), mesh_sampling.array_names(len(factors)),
        lambda: mesh_sampling.to_arrays(mesh_sampling.generate_transform_matrices(vertices, triangles, factors)),
        f"the mesh hierarchy of {len(vertices):,} vertices")
    return mesh_sampling.from_arrays(arrays)
