"""Several pictures of one made person, and expressions that open the mouth of any model."""

import dataclasses

import numpy as np
import pytest

from facegcn import lighting
from facegcn.morphable import MorphableModel
from facegcn.portraits import expressions, looks
from facegcn.portraits import maker as portraits
from tests.plain_face import landmark_places, plain_face, posed

SIZE = 96


@pytest.fixture(scope="module")
def face():
    return plain_face()


@pytest.fixture(scope="module")
def maker(face):
    return portraits.PortraitMaker(face, size=SIZE, seed=5)


@pytest.fixture(scope="module")
def pairs(maker):
    return [(maker.make(index), maker.make(index, 1)) for index in range(12)]


# -------------------------------------------------------------------- pictures of one person
def test_pictures_of_one_person_share_identity_and_albedo_and_nothing_else(face, pairs):
    for first, second in pairs:
        one, other = face.split(first.coeff), face.split(second.coeff)
        np.testing.assert_array_equal(one.id, other.id)
        np.testing.assert_array_equal(one.tex, other.tex)
        np.testing.assert_array_equal(first.albedo, second.albedo)
        assert np.abs(one.gamma - other.gamma).max() > 0.02
        assert np.abs(one.exp - other.exp).max() > 0.01
        assert np.abs(one.translation - other.translation).max() > 1e-4
        assert np.abs(first.rgba[..., :3].astype(int) - second.rgba[..., :3]).mean() > 10
        assert (first.visible != second.visible).mean() > 0.02
    persons = np.stack([first.coeff[:face.part_sizes[0]] for first, _ in pairs])
    assert np.abs(persons[1:] - persons[:-1]).max(axis=1).min() > 0.1


def test_further_pictures_are_turned_to_all_sides_and_away_from_the_first(maker):
    split = [sum(maker.morphable.part_sizes[:3]) + k for k in range(3)]
    coeff = np.stack([[maker.coefficients(index, picture) for picture in range(3)] for index in range(150)])
    degrees = np.degrees(coeff[..., split])
    pitch, yaw, roll = np.moveaxis(degrees, -1, 0)
    assert np.abs(yaw[:, 0]).max() <= 40 + 1e-3 and np.abs(yaw[:, 1:]).max() <= 60 + 1e-3
    assert np.abs(yaw[:, 1:] - yaw[:, :1]).min() >= 20 - 1e-3
    assert np.abs(pitch).max() <= 20 + 1e-3 and np.abs(roll).max() <= 20 + 1e-3
    counts, _ = np.histogram(yaw[:, 1:], bins=(-60, -30, 0, 30, 60))
    assert (counts > 0.12 * yaw[:, 1:].size).all()
    assert len(np.unique(yaw)) == yaw.size


def test_coefficients_are_those_of_the_picture(maker, pairs):
    for index, pair in enumerate(pairs):
        for picture, portrait in enumerate(pair):
            coeff = maker.coefficients(index, picture)
            assert coeff.dtype == np.float32
            np.testing.assert_array_equal(coeff, portrait.coeff)


def test_any_picture_is_the_same_whenever_it_is_made(face, pairs):
    other = portraits.PortraitMaker(face, size=SIZE, seed=5)
    for index in (3, 1):
        for picture in (1, 0):
            again = other.make(index, picture)
            for field in dataclasses.fields(portraits.Portrait):
                np.testing.assert_array_equal(getattr(again, field.name), getattr(pairs[index][picture], field.name))


def test_further_pictures_of_different_streams_differ(face):
    coeff = np.stack([portraits.PortraitMaker(face, size=32, seed=5, stream=stream).coefficients(index, picture)
                      for stream in portraits.Stream for index in (0, 1) for picture in (0, 1, 2)])
    distances = np.abs(coeff[:, None] - coeff).max(axis=2) + np.eye(len(coeff))
    assert distances.min() > 1e-3


@pytest.mark.parametrize("numbers", [(-1, 0), (0, -1), (0, -2)])
def test_numbers_below_0_are_refused(maker, numbers):
    for make in (maker.make, maker.coefficients):
        with pytest.raises(ValueError, match="counted from 0"):
            make(*numbers)


def test_the_second_picture_shows_the_same_albedo_in_its_own_light(face, pairs):
    """Visible vertices of the second picture, drawn from the albedo of the first, have the picture's colours."""
    errors = []
    for first, second in pairs:
        _, normals = posed(face, second)
        colors = lighting.illuminate(first.albedo[None] / 255, normals, face.split(second.coeff).gamma[None])[0]
        columns, rows = np.floor(_pixels(face, second)).astype(int)[second.visible].T
        seen = second.rgba[rows, columns, :3] / 255
        errors.append(np.median(np.abs(seen - colors.numpy()[second.visible])))
    assert np.median(errors) < 0.05


def _pixels(model, portrait):
    vertices, _ = posed(model, portrait)
    return portraits.formation.to_pixels(vertices[0].numpy(), SIZE)


# -------------------------------------------------------------------- open mouths
def _jaw_model(mouth=0.04, gape=0.0):
    """68 landmark vertices whose expression basis drops the lower lip (component 2), pulls the corners (component 0)
    and raises the brows (component 1); ``gape`` is what one deviation of component 2 opens, dm."""
    places = np.concatenate([landmark_places(), np.zeros((68, 1))], axis=1)
    basis = np.zeros((68, 3, 3))
    basis[[48, 60], 0, 0], basis[[54, 64], 0, 0] = -0.03, 0.03
    basis[[48, 60, 54, 64], 1, 0] = 0.03
    basis[17:27, 1, 1] = mouth
    basis[[56, 57, 58, 65, 66, 67], 1, 2] = -gape
    basis[6:11, 1, 2] = -0.7 * gape
    return MorphableModel(
        mean_shape=places, id_basis=np.zeros((68, 3, 1)), exp_basis=basis, mean_albedo=np.full((68, 3), 150.0),
        albedo_basis=np.zeros((68, 3, 1)), triangles=np.int32([(0, 1, 2)]), landmarks=np.arange(68),
        skin_index=np.arange(68), symmetry_pairs=np.zeros((0, 2)))


def _gaps(model, drawn):
    """Gap between the inner lips of expressions (n, Ke), mm."""
    marks = model.mean_shape + np.einsum("nck,ik->inc", model.exp_basis, drawn)
    return 100 * (marks[:, 62, 1] - marks[:, 66, 1])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_third_of_the_mouths_is_open_whatever_component_opens_them(rng, sign):
    model = _jaw_model(gape=sign * 0.1)
    sampler = expressions.ExpressionSampler(model, 0.0)  # no expression but mouths
    drawn = np.stack([sampler.draw(rng) for _ in range(600)])
    rest = _gaps(model, np.zeros((1, 3)))[0]
    gaps = _gaps(model, drawn)
    assert np.abs(drawn).max() <= 2.5 + 1e-6
    assert 0.25 < (gaps > rest + 1).mean() < 0.42
    assert np.percentile(gaps, 99) > rest + 15
    smiles = (drawn[:, 0] > 0.3) & (gaps < rest + 1)
    assert 0.2 < smiles.mean() < 0.45


def test_a_mouth_opens_by_as_much_as_it_is_told_up_to_the_spread():
    model = _jaw_model(gape=0.05)
    sampler = expressions.ExpressionSampler(model, 0.7)
    rest = _gaps(model, np.zeros((1, 3)))[0]
    for gap in (8.0, 12.0):
        for kind in ("speech", "laughter", "surprise"):
            opened = sampler._opened(np.float32([0.1, 0.1, 0.3]), kind, gap / 100)
            assert _gaps(model, opened[None])[0] == pytest.approx(gap, abs=0.05)
    wide = np.clip(sampler._opened(np.zeros(3), "surprise", 5.0), -2.5, 2.5)
    assert _gaps(model, wide[None])[0] == pytest.approx(rest + 2.5 * 5, abs=0.3)
    open_already = np.float32([0, 0, 2.0])
    np.testing.assert_array_equal(sampler._opened(open_already, "speech", 0.03), open_already)


def test_a_model_whose_lips_do_not_part_has_plain_expressions(rng):
    sampler = expressions.ExpressionSampler(_jaw_model(gape=0.0), 0.7)
    drawn = np.stack([sampler.draw(rng) for _ in range(50)])
    assert np.isfinite(drawn).all() and np.abs(drawn).max() <= 2.5


def test_the_chances_of_expressions_are_whole():
    assert sum(looks.EXPRESSION.kinds.values()) == pytest.approx(1)
