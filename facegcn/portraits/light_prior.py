"""The light of photographs as the made portraits have it: the prior of ``photometric_fitting``."""

from __future__ import annotations

import numpy as np

from facegcn.morphable import LIGHTING_COEFFICIENTS, MorphableModel
from facegcn.photometric_fitting import LightPrior
from facegcn.portraits.maker import PortraitMaker

_COUNT = 512  # lights
_FLOOR = 1e-5  # variance added to each coefficient's, so that none is taken for certain


def light_prior(morphable: MorphableModel, count: int = _COUNT) -> LightPrior:
    """Mean and precision of the lighting coefficients of made portraits; the same for the same model.

    Args:
        morphable: the face model, whose skin the light is metered on.
        count: of lights drawn; more than 27.

    Raises:
        ValueError: count is too small for a covariance.
    """
    if count <= LIGHTING_COEFFICIENTS:
        raise ValueError(f"count must be more than {LIGHTING_COEFFICIENTS}, got {count}")
    maker = PortraitMaker(morphable)
    lights = np.stack([morphable.split(maker.coefficients(index)).gamma for index in range(count)]).astype(np.float64)
    covariance = np.cov(lights.T) + _FLOOR * np.eye(LIGHTING_COEFFICIENTS)
    return LightPrior(lights.mean(axis=0), np.linalg.inv(covariance))
