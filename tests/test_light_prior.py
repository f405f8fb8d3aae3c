"""The light of made portraits as a prior."""

import numpy as np
import pytest

from facegcn import lighting
from facegcn.portraits.light_prior import light_prior
from facegcn.portraits.maker import PortraitMaker
from tests.plain_face import plain_face


def test_the_prior_is_the_distribution_of_other_made_lights():
    face = plain_face()
    prior, maker = light_prior(face), PortraitMaker(face, seed=9)
    lights = np.stack([face.split(maker.coefficients(index)).gamma for index in range(300)])
    deviations = lights.std(axis=0)
    assert (np.abs(prior.mean - lights.mean(axis=0)) < 0.25 * deviations).all()
    off = lights - prior.mean
    assert np.einsum("bi,ij,bj->b", off, prior.precision, off).mean() == pytest.approx(27, rel=0.2)  # chi squared
    assert 0.6 < lighting.frontal_brightness(np.float32(prior.mean[None])).numpy()[0] < 1.2


def test_the_same_model_gives_the_same_prior_and_few_lights_are_refused():
    face = plain_face()
    first, again = light_prior(face, 40), light_prior(face, 40)
    np.testing.assert_array_equal(first.precision, again.precision)
    with pytest.raises(ValueError, match="more than 27"):
        light_prior(face, 27)
