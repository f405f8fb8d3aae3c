"""Helpers of the root scripts: file lists, run folders, and the cached mesh hierarchy."""

from __future__ import annotations

import os

import numpy as np

import mesh_sampling
from facegcn.errors import UserError
from facegcn.files import code_version, digest, kept_npz
from facegcn.photos.reading import IMAGE_ENDINGS
from facegcn.runs import RunFolder
from mesh_sampling import MeshHierarchy

__all__ = ["RunFolder", "find_images", "init_sampling"]



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
