"""What the trainings are made of: callbacks, the truth loss, batches of portraits, the encoding's cache."""

import dataclasses
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from facegcn.config import Config
from facegcn.errors import TrainingStopped
from facegcn.portraits.maker import PortraitMaker
from facegcn.training import callbacks, regressor_stage
from facegcn.training.checkpoints import TrainingState
from facegcn.training.reused_portraits import ReusedPortraits
from tests.faces import half_ellipsoid


class Diverging(keras.Model):
    """A model whose third step has a bad term."""

    def __init__(self, value):
        super().__init__()
        self.count, self.value = tf.Variable(0), value
        self.seen = []

    def train_step(self, data):
        self.count.assign_add(1)
        bad = self.count == 3
        return {"total": tf.where(bad, self.value, 1.0), "symmetry": tf.where(bad, self.value, 2.0)}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_bad_loss_stops_the_training_and_is_named(value):
    model = Diverging(value)
    model.compile()
    data = tf.data.Dataset.from_tensors(np.zeros((1, 1), np.float32)).repeat()
    with pytest.raises(TrainingStopped, match="'symmetry' is not finite"):
        model.fit(data, steps_per_epoch=5, verbose=0, callbacks=[callbacks.StopOnNonFinite(TrainingState(), list, [])])
    assert int(model.count) == 3


def test_statistics_are_means_of_windows_and_epochs():
    lines = []
    model = Diverging(4.0)
    model.compile()
    data = tf.data.Dataset.from_tensors(np.zeros((1, 1), np.float32)).repeat()
    log = callbacks.StatsLog(lambda **values: lines.append(values), "render", log_steps=2)
    history = model.fit(data, steps_per_epoch=4, epochs=1, verbose=0, callbacks=[log]).history
    assert [(line["step"], line["total"]) for line in lines] == [(2, 1.0), (4, 2.5)]
    assert history["total"] == [1.75]


@pytest.fixture(scope="module")
def morphable():
    return half_ellipsoid()


def test_the_truth_has_no_truth_loss_and_errors_are_measured(morphable):
    loss = regressor_stage.TruthLoss(morphable, 64)
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(3, morphable.coefficient_count)).astype(np.float32) * 0.3
    same = loss(truth, truth)
    assert all(float(value) < 0.05 for name, value in same.items() if name != "total")
    moved = truth.copy()
    moved[:, -3] += 0.1  # translation along x, decimetre
    terms = loss(moved, truth)
    # 112 / tan(fov / 2) pixels a decimetre at a distance of 10, at 224 px.
    assert 9 < float(terms["pixels"]) < 13 and float(terms["shape"]) < 2e-3
    for part, term in (("id", "shape"), ("tex", "albedo"), ("gamma", "light")):
        changed = truth.copy()
        getattr(morphable.split(changed), part)[:] += 1.0
        assert float(loss(changed, truth)[term]) > 10 * float(same[term])


def reused(morphable, **settings):
    config = dataclasses.replace(Config(), **{"rec_batch_size": 4, "rec_reuse": 3, "workers": 2, **settings})
    return ReusedPortraits(PortraitMaker(morphable, size=32, seed=1), config)


def drawn(batches):
    return tuple(np.concatenate(parts) for parts in zip(*((a.numpy(), b.numpy()) for a, b in batches)))


def test_portrait_batches_repeat_each_portrait_and_enlarge_exactly(morphable):
    portraits = reused(morphable)
    rgb, coeff = drawn(portraits.batches(64).take(30))
    assert rgb.shape == (120, 64, 64, 3) and -1 <= rgb.min() and rgb.max() <= 1
    np.testing.assert_array_equal(rgb[:, ::2, ::2], rgb[:, 1::2, 1::2])
    _, counts = np.unique(coeff, axis=0, return_counts=True)
    assert counts.max() == 3
    for example in (0, 50, 119):
        made = PortraitMaker(morphable, size=32, seed=1).make(portraits.portrait_of(example))
        np.testing.assert_array_equal(coeff[example], made.coeff)
        kept = made.rgba[..., 3] > 0
        np.testing.assert_allclose((rgb[example, ::2, ::2][kept] + 1) * 127.5, made.rgba[..., :3][kept], atol=1e-3)


@pytest.mark.parametrize(("batch_size", "uses"), [(32, 3), (4, 2), (1, 1), (5, 7), (2, 100)])
def test_each_portrait_is_used_equally_often_and_far_apart(morphable, batch_size, uses):
    portraits = reused(morphable, rec_batch_size=batch_size, rec_reuse=uses)
    numbers = np.array([portraits.portrait_of(example) for example in range(30_000)])
    found, counts = np.unique(numbers, return_counts=True)
    margin = uses * portraits._block  # those at either end have uses outside
    inner = (found >= margin) & (found < found.max() - margin)
    assert inner.sum() > 20 and (counts[inner] == uses).all() and counts.max() <= uses
    if uses == 3:
        first = np.array([np.flatnonzero(numbers == number)[[0, -1]] for number in found[inner]])
        distance = np.diff(first) / batch_size
        assert 8 < distance.mean() < 16, "about a dozen batches"


def test_portraits_go_on_in_the_middle_of_the_series(morphable):
    whole = drawn(reused(morphable).batches(32).take(20))
    rest = drawn(reused(morphable, workers=1).batches(32, step=7).take(13))
    for all_of_it, part in zip(whole, rest):
        np.testing.assert_array_equal(all_of_it[28:], part)
    other = drawn(reused(morphable, seed=5).batches(32).take(20))
    assert np.abs(whole[1] - other[1]).max() > 0, "the order is the seed's"


def test_the_background_is_blanked_in_some_examples_only(morphable):
    portraits = reused(morphable)
    rgb, _ = drawn(portraits.batches(32).take(50))
    blank = 0
    for example in range(200):
        rgba = portraits._portrait(portraits.portrait_of(example))[0]
        blank += (rgb[example][rgba[..., 3] == 0] == -1).all()
    assert 25 < blank < 85
