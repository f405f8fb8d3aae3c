"""How far a regressor is off, and in which directions: measured on made portraits of its face model.

The errors of identity, expression and pose go together (a face that is taken for nearer is taken for smaller), so their
whole covariance is kept, as ``fitting.CoefficientFitter`` weighs the regressor against landmarks with it. Letters: C
portraits, D unknowns of a fit, as in ``landmark_fitting``.
"""

from __future__ import annotations

import concurrent.futures

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from facegcn import files
from facegcn.assets.starting_weights import StartingWeights
from facegcn.fitting import RegressorErrors
from facegcn.landmark_fitting import parameter_columns
from facegcn.networks.regressor import digest
from facegcn.photos.packed_photos import to_network_range
from facegcn.portraits.maker import PortraitMaker, Stream

COUNT = 2500  # portraits at most
_EACH = 16  # portraits for each unknown: the covariance has the square of these in entries
#: Share of the covariance that is taken as diagonal, there being few portraits for so many entries. More (0.6) makes
#: held-out errors likelier, and faces worse: what matters is which errors go together.
_SHRINKAGE = 0.1
_SERIES = 3_000_468  # seed of the portraits: no regressor has learnt from them, nothing is measured on them
_FLOOR = 1e-6  # variance added to each unknown's
_BATCH = 16


def ensure_regressor_errors(config, face_model) -> RegressorErrors:
    """The errors of a face model's regressor: those of the starting weights where it is theirs, else measured on first
    use and kept in the data folder.

    Args:
        config: gives data folder and threads.
        face_model: with a regressor.

    Raises:
        UserError: the starting weights do not fit.
    """
    own = digest(face_model.regressor)
    if config.texture_start:
        start = StartingWeights(config.texture_start, face_model.morphable)
        if start.regressor == own:
            return start.errors
    width = face_model.image_size if config.regressor == "frozen" else config.regressor_pixels
    count = min(COUNT, _EACH * len(parameter_columns(face_model.morphable)))
    key = files.digest(face_model.morphable.digest, own, face_model.image_size, width, count,
                       files.code_version("facegcn.assets.regressor_errors"))
    arrays = files.kept_npz(
        config.path(f"regressor-errors-{key}.npz"), ["bias", "covariance"],
        lambda: vars(measure_errors(face_model, count, config.workers, width)),
        f"the regressor's errors, measured once on {count:,} made portraits (half a minute)")
    return RegressorErrors(**arrays)


def measure_errors(face_model, count: int, workers: int, width: int) -> RegressorErrors:
    """Measures them; some 30 ms a portrait and thread, less for small ones.

    Args:
        face_model: with a regressor.
        count: made portraits.
        workers: threads.
        width: of the portraits, pixels; divides the crops'. They are enlarged by repeating pixels, which a regressor
            that averages its input to this width takes back exactly.

    Raises:
        ValueError: as ``errors_from``.
    """
    maker = PortraitMaker(face_model.morphable, width, _SERIES, Stream.REGRESSOR)
    repeat = face_model.image_size // width
    columns, off = parameter_columns(face_model.morphable), []
    maker.make(0)  # compiles the kernels before the threads need them
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    try:
        with tqdm(total=count, desc="regressor's errors", unit="portrait", dynamic_ncols=True) as bar:
            for start in range(0, count, _BATCH):
                portraits = list(pool.map(maker.make, range(start, min(start + _BATCH, count))))
                seen = to_network_range(np.stack([portrait.rgba for portrait in portraits]))
                seen = tf.repeat(tf.repeat(seen[..., :3], repeat, axis=1), repeat, axis=2)
                found, _ = face_model.regressor(seen, training=False)
                off.append(np.stack([p.coeff for p in portraits])[:, columns] - np.asarray(found)[:, columns])
                bar.update(len(portraits))
    finally:
        pool.shutdown(cancel_futures=True)
    return errors_from(np.concatenate(off).astype(np.float64))


def errors_from(differences: np.ndarray) -> RegressorErrors:
    """Mean and covariance of differences (C, D), truth less regressed, the covariance shrunk towards its diagonal;
    portraits with a difference that is not finite do not count.

    Raises:
        ValueError: fewer than two portraits count.
    """
    known = differences[np.isfinite(differences).all(axis=1)]
    if len(known) < 2:
        raise ValueError(f"a covariance needs two portraits, {len(known)} of {len(differences)} are of use")
    covariance = np.cov(known.T)
    diagonal = np.diag(np.diag(covariance))
    return RegressorErrors(known.mean(axis=0), (1.0 - _SHRINKAGE) * covariance + _SHRINKAGE * diagonal
                           + _FLOOR * np.eye(len(covariance)))
