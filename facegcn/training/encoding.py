"""Coefficients and features of packed photos, computed once and kept beside the packed file."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import time
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from facegcn.errors import BrokenFile, log
from facegcn.files import code_version, digest, read_npz, write_npz, written_whole
from facegcn.fitting import CoefficientFit, CoefficientFitter
from facegcn.networks.regressor import digest as regressor_digest
from facegcn.photos import packed_file
from facegcn.photos.packed_photos import PackedPhotos, batches

_PART = 1024  # photos of a part: with features of 3,840 numbers 17 MB, and a minute or two of work to lose
_GIVEN_UP = 24 * 3600  # seconds after which parts that do not grow belong to no program that runs


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
        fitter: what fits them; None = the regressor's word is final.
    """

    def __init__(self, face_model, fitter: CoefficientFitter | None = None):
        self.face_model, self.fitter = face_model, fitter

    def __call__(self, rgba, targets, dense=None) -> tuple[Encoding, CoefficientFit | None]:
        """Encodes a batch; also gives its fit, where there is one.

        Args:
            rgba: (B, H, W, 4), RGB in [-1, 1].
            targets: (B, 73, 2) landmark targets, see landmarks.landmark_targets; NaN where unknown.
            dense: (B, 468, 3) dense landmarks, see ``AlignedPhoto.dense``; or None.
        """
        coeff, embedding = (np.array(part) for part in self.face_model.regress(rgba))
        if self.fitter is None:
            return Encoding(coeff, embedding), None
        fit = self.fitter(rgba, coeff, targets, dense)
        return Encoding(fit.coefficients, embedding), fit


@packed_file.damage_named()
def encode_packed(encoder: PhotoEncoder, packed: PackedPhotos, batch_size: int = 16) -> Encoding:
    """Encodes every record of a packed file, or opens the result kept beside it.

    The kept file's name holds a digest of all that the result depends on: the networks, the morphable model, the
    packed file, the landmark targets, the fit, and the code. Older ones are removed; a damaged one is made anew. What
    is encoded is kept in parts until all is, so that an interrupted training goes on with the next part.

    Args:
        encoder: what encodes a batch.
        packed: the packed photos.
        batch_size: photos at a time.

    Returns:
        memory maps: what does not fit into memory is read when it is used.
    """
    stem = f"{packed.path}.encoding-"
    path = f"{stem}{_key(encoder, packed)}.npy"
    width = encoder.face_model.morphable.coefficient_count
    if not os.path.exists(path):
        _encode(encoder, packed, batch_size, path)
        _remove_stale(stem, path)
    shutil.rmtree(_parts_folder(path), ignore_errors=True)  # of a program that was killed when all was done
    try:
        return _opened(path, len(packed.names), width)
    except BrokenFile as error:
        log.warning("%s is damaged (%s); it is made anew", error.path, error.reason)
        _encode(encoder, packed, batch_size, path)
        return _opened(path, len(packed.names), width)


def _opened(path: str, count: int, coefficients: int) -> Encoding:
    """The two parts of a kept file, read when used; raises BrokenFile."""
    try:
        rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BrokenFile(path, f"is no whole array: {error}") from error
    if rows.ndim != 2 or rows.shape[0] != count or rows.shape[1] <= coefficients or rows.dtype != np.float32:
        raise BrokenFile(path, f"holds {rows.dtype} {rows.shape}")
    return Encoding(rows[:, :coefficients], rows[:, coefficients:])


def _encode(encoder, packed, batch_size, path) -> None:
    """Writes the rows of all records, coefficients before features, to ``path``; they wait in parts beside it."""
    count, folder, begin = len(packed.names), _parts_folder(path), time.monotonic()
    stretches = [np.arange(start, min(start + _PART, count)) for start in range(0, count, _PART)]

    def part(records, advance=lambda photos: None):
        return _part(encoder, packed, batch_size, os.path.join(folder, f"{records[0]:09d}.npz"), records, advance)

    with tqdm(total=count, desc="encoding photos", unit="photo", dynamic_ncols=True, leave=False,
              mininterval=1.0) as bar:
        for records in stretches:
            part(records, bar.update)
    # One after the other, not through a memory map, whose pages would count as this program's memory.
    with written_whole(path) as partial, open(partial, "wb") as file:
        for number, records in enumerate(stretches):
            rows = part(records)
            if not number:
                np.lib.format.write_array_header_1_0(file, {
                    "descr": np.lib.format.dtype_to_descr(rows.dtype), "fortran_order": False,
                    "shape": (count, rows.shape[1])})
            file.write(np.ascontiguousarray(rows).data)  # unlike ``tofile`` it says what the system does not allow
    shutil.rmtree(folder, ignore_errors=True)
    log.info("encoding photos: %d in %.0f s", count, time.monotonic() - begin)


def _parts_folder(path: str) -> str:
    return path + ".parts"


def _part(encoder, packed, batch_size, path, records, advance) -> np.ndarray:
    """(len(records), K + E) float32 rows of some records, kept in a file until all are there."""
    with contextlib.suppress(FileNotFoundError, BrokenFile):  # then it is encoded, or encoded again
        rows = read_npz(path, ["rows"])["rows"]
        if rows.dtype == np.float32 and rows.ndim == 2 and len(rows) == len(records):
            advance(len(records))
            return rows
    found = []
    for rgba, targets, dense in batches(packed.examples(records, (packed.targets, packed.dense)), batch_size):
        found.append(np.concatenate(encoder(rgba, targets.numpy(), dense.numpy())[0], axis=1))
        advance(len(found[-1]))
    rows = np.concatenate(found).astype(np.float32)
    write_npz(path, {"rows": rows}, compressed=False)
    return rows


def _remove_stale(stem: str, path: str) -> None:
    """Removes what other networks or older versions said of these photos, but not what a training may be writing."""
    for stale in glob.glob(glob.escape(stem) + "*.np[yz]"):
        if stale != path:
            os.remove(stale)
    for parts in glob.glob(glob.escape(stem) + "*.parts"):
        with contextlib.suppress(OSError):
            if time.time() - os.path.getmtime(parts) > _GIVEN_UP:
                shutil.rmtree(parts)


def _key(encoder, packed) -> str:
    """Digest of everything the encoding depends on; the packed file's header holds one of its records."""
    face_model = encoder.face_model
    facenet = face_model.facenet.digest if face_model.facenet is not None else ""
    return digest(regressor_digest(face_model.regressor), facenet, face_model.morphable.digest,
                  "" if encoder.fitter is None else encoder.fitter.digest,
                  tuple(packed_file.read_header(packed.path)), packed.targets, packed.dense,
                  code_version("facegcn.training.encoding", "facegcn.fitting", "facegcn.face_model"))
