"""Helpers of the root scripts: file lists, run folders, and the cached mesh hierarchy."""

from __future__ import annotations

import hashlib
import os

import numpy as np

from facegcn.errors import UserError
from facegcn.runs import RunFolder
from mesh_sampling import MeshHierarchy, generate_transform_matrices, load_hierarchy, save_hierarchy

__all__ = ["IMAGE_EXTENSIONS", "RunFolder", "find_images", "init_sampling", "template_hash"]

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
                  factors: tuple[int, ...] = (4, 4, 4, 4)) -> MeshHierarchy:
    """The mesh hierarchy of a template, from the cache when the template is the same.

    Args:
        vertices: (N, 3) mean shape.
        triangles: (F, 3).
        folder: where ``sampling-<hash>.npz`` is kept; the hash covers vertices, triangles and
            factors, so a stale file is never used.
        factors: each level keeps ceil(N / factor) vertices.
    """
    digest = template_hash(vertices, triangles, np.asarray(factors, np.int32))
    path = os.path.join(folder, f"sampling-{digest}.npz")
    if os.path.exists(path):
        return load_hierarchy(path)
    print(f"making the mesh hierarchy of {len(vertices):,} vertices: {path}")
    hierarchy = generate_transform_matrices(vertices, triangles, factors)
    os.makedirs(folder, exist_ok=True)
    save_hierarchy(path, hierarchy)
    return hierarchy


def template_hash(*arrays: np.ndarray) -> str:
    """Twelve hexadecimal digits that change when any array changes."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:12]
