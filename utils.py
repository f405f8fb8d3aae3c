"""Helpers of the root scripts: file lists, run folders, and the cached mesh hierarchy."""

from __future__ import annotations

import hashlib
import os

import numpy as np

from facegcn.errors import UserError
from facegcn.photos.reading import IMAGE_ENDINGS
from facegcn.runs import RunFolder
from mesh_sampling import MeshHierarchy, generate_transform_matrices, load_hierarchy, save_hierarchy

__all__ = ["RunFolder", "find_images", "init_sampling", "template_hash"]

def find_images(path: str, flag: str = "--input") -> list[str]:
    """The picture files at a path: itself when a file, else those directly in the folder, by name.

    Hidden files (macOS leaves ``._NAME.JPG`` on foreign disks) and what only is called like a picture, folders and
    pipes, are passed over.

    Args:
        path: file or folder.
        flag: what the user wrote it behind; part of the message.

    Raises:
        UserError: nothing is there, it is a pipe or a device, or the folder holds no image.
    """
    if os.path.isfile(path):
        return [path]
    if not os.path.isdir(path):
        what = "it is a pipe or a device" if os.path.exists(path) else "there is no such file or folder"
        raise UserError(f"{flag} {path}: {what}")
    found = sorted(os.path.join(path, name) for name in os.listdir(path)
                   if name.lower().endswith(IMAGE_ENDINGS) and not name.startswith("."))
    # A link that leads nowhere stays: the user wanted that photo and should read why it is absent.
    found = [file for file in found if os.path.isfile(file) or not os.path.exists(file)]
    if not found:
        raise UserError(f"{flag} {path}: no image in this folder (looked for {', '.join(IMAGE_ENDINGS)})")
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
