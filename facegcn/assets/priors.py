"""What a fit to colours expects: the light of photographs, and what people's albedo has beyond a model's basis.

Both are learnt from made portraits (the light in ``portraits.light_prior``). A basis of smooth skin knows no beards,
brows, lipstick, dark rings or flushed cheeks. Made people have them (``portraits.details``), so the main directions of
what is painted on them say where an albedo may differ from the basis.
Letters: C people, N vertices, D directions.
"""

from __future__ import annotations

import numpy as np

from facegcn import files
from facegcn.assets.starting_weights import PRIOR_NAMES, StartingWeights, join_priors, split_priors
from facegcn.morphable import MorphableModel
from facegcn.photometric_fitting import LightPrior
from facegcn.photometric_terms import DetailPrior
from facegcn.portraits.light_prior import light_prior
from facegcn.portraits.maker import PortraitMaker, Stream

COUNT = 1200  # people; with a third of them the directions are noisy, which costs heads from the side 0.07 dB
MODES = 30  # 20 are as good, 80 and more worse: tones and details are then taken for each other
SPREAD = 1.5  # of the standard deviations of made people: real ones differ more, and made ones lose nothing by it
_SERIES = 5_000_468  # seed of the people: nothing is measured on them


def ensure_priors(config, morphable: MorphableModel) -> tuple[LightPrior, DetailPrior]:
    """Both priors of a model: those of the starting weights, else made on first use and kept in the data folder.

    Args:
        config: gives the data folder and the starting weights.
        morphable: any model.

    Raises:
        UserError: the starting weights do not fit.
    """
    if config.texture_start:
        known = StartingWeights(config.texture_start, morphable).priors
        if known is not None:
            return known
    key = files.digest(morphable.digest, COUNT, MODES, SPREAD, files.code_version("facegcn.assets.priors"))

    def make():
        return join_priors(light_prior(morphable), detail_prior(morphable, COUNT, MODES))

    return split_priors(files.kept_npz(config.path(f"priors-{key}.npz"), PRIOR_NAMES, make, (
        f"what the light of photographs and the albedo of {COUNT} made people are like, once (some seconds)")))


def detail_prior(morphable: MorphableModel, count: int = COUNT, modes: int = MODES) -> DetailPrior:
    """Mean and main directions (principal components) of the details of made people.

    Args:
        morphable: the face model.
        count: people, two at least.
        modes: directions, of which those that no two people differ in are left out.

    Raises:
        ValueError: count is too small.
    """
    if count < 2:
        raise ValueError(f"count must be 2 or more, got {count}")
    maker = PortraitMaker(morphable, seed=_SERIES, stream=Stream.REGRESSOR)
    details = np.empty((count, 3 * morphable.vertex_count), np.float32)
    for row, index in zip(details, range(count)):
        bare, painted = maker.albedo(index)
        np.subtract(painted.ravel(), bare.ravel(), out=row)
    details /= np.float32(255)
    mean = details.mean(axis=0)
    details -= mean
    # People are fewer than vertices: the directions follow from their (C, C) products.
    variances, people = np.linalg.eigh((details @ details.T).astype(np.float64) / count)
    chosen = [k for k in np.argsort(variances)[::-1][:modes] if variances[k] > 1e-6 * max(variances[-1], 1e-12)]
    found = details.T @ people[:, chosen].astype(np.float32) * np.float32(SPREAD / np.sqrt(count))
    return DetailPrior(mean.reshape(-1, 3), found.reshape(morphable.vertex_count, 3, len(chosen)))
