"""Coefficients and features of packed photos, computed once and kept beside the packed file."""

from __future__ import annotations

import glob
import hashlib
import os
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from facegcn.fitting import FIT_VERSION, CoefficientFitter
from facegcn.networks.regressor import digest as regressor_digest
from facegcn.photos.packed_file import damage_named
from facegcn.photos.packed_photos import PackedPhotos, batches


class Encoding(NamedTuple):
    """What the frozen networks say of each packed photo.

    Attributes:
        coeff: (M, K) float32 coefficients.
        embedding: (M, E) float32 features of the regressor, then of FaceNet where the model has it.
    """

    coeff: np.ndarray
    embedding: np.ndarray


class PhotoEncoder:
    """Regresses photos, and then fits their coefficients where that is asked.

    Args:
        face_model: a FaceModel with a regressor.
        fit_steps: descent steps after regression; 0 = the regressor's word is final.
    """

    def __init__(self, face_model, fit_steps: int = 0):
        self.face_model, self.fit_steps = face_model, fit_steps
        self._fitter = CoefficientFitter(face_model, fit_steps) if fit_steps else None

    def __call__(self, rgba, targets) -> Encoding:
        """Encodes a batch.

        Args:
            rgba: (B, H, W, 4), RGB in [-1, 1].
            targets: (B, 73, 2) landmark targets, see landmarks.landmark_targets; NaN where unknown.
        """
        coeff, embedding = (np.array(part) for part in self.face_model.regress(rgba))
        if self._fitter is not None:
            coeff = self._fitter(rgba, coeff, targets)
        return Encoding(coeff, embedding)


@damage_named()
def encode_packed(encoder: PhotoEncoder, packed: PackedPhotos, batch_size: int = 16) -> Encoding:
    """Encodes every record of a packed file, or reads the result kept beside it.

    The kept file's name holds a hash of the regressor, FaceNet's file, the morphable model, the
    packed file's size and time, the landmark targets and the fit, so a stale one is never used;
    older ones are removed.

    Args:
        encoder: what encodes a batch.
        packed: the packed photos.
        batch_size: photos at a time.
    """
    path = f"{packed.path}.encoding-{_key(encoder, packed)}.npz"
    if os.path.exists(path):
        with np.load(path) as kept:
            return Encoding(kept["coeff"], kept["embedding"])
    for stale in glob.glob(f"{glob.escape(packed.path)}.encoding-*.npz"):
        if ".partial-" not in stale:  # another training may be writing one
            os.remove(stale)
    rows, parts = np.arange(len(packed.names)), []
    with tqdm(total=len(rows), desc="encoding photos", unit="photo", dynamic_ncols=True) as bar:
        for rgba, targets in batches(packed.examples(rows, (packed.targets,)), batch_size):
            parts.append(encoder(rgba, targets.numpy()))
            bar.update(len(rgba))
    encoding = Encoding(*(np.concatenate(arrays) for arrays in zip(*parts)))
    partial = f"{path}.partial-{os.getpid()}.npz"
    np.savez(partial, coeff=encoding.coeff, embedding=encoding.embedding)
    os.replace(partial, path)
    return encoding


def _key(encoder, packed) -> str:
    """Sixteen hexadecimal digits over everything the encoding depends on."""
    face_model, status = encoder.face_model, os.stat(packed.path)
    facenet = face_model.facenet.digest if face_model.facenet is not None else ""
    digest = hashlib.sha256(np.ascontiguousarray(packed.targets).tobytes())
    digest.update(f"{regressor_digest(face_model.regressor)} {facenet} {face_model.morphable.digest} "
                  f"{status.st_size} {status.st_mtime_ns} {encoder.fit_steps} {FIT_VERSION}".encode())
    digest.update(face_model.morphable.landmarks.tobytes())
    return digest.hexdigest()[:16]
