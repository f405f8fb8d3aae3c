"""Numbers that go bad in training: named, and passed over where that is asked."""

import dataclasses
import logging

import numpy as np
import pytest
import tensorflow as tf

from facegcn.errors import TrainingStopped
from facegcn.portraits.maker import PortraitMaker
from facegcn.runs import RunFolder
from facegcn.training import callbacks, regressor_stage, texture_stage
from facegcn.training.checkpoints import TrainingState
from facegcn.training.encoding import Encoding
from facegcn.training.finite import BatchPart, Norms, cause, names_of
from model import build_critic
from tests.small_training import SIZE, face_model, small_world

NAN = float("nan")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A ``small_world``."""
    return small_world(tmp_path_factory.mktemp("finite"))


@pytest.fixture
def eagerly():
    """Training steps run op by op: a few of them are over before one would be compiled."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


class Network:
    """Two weights with the names that Keras gives them."""

    def __init__(self, *values):
        self.trainable_variables = [tf.Variable(value) for value in values]
        for variable, path in zip(self.trainable_variables, ("fc/kernel", "fc/bias")):
            variable.path = path


def noted(weights, gradients):
    norms = Norms(Network(*weights))
    return norms, float(norms.note([None if g is None else tf.constant(g) for g in gradients]))


def test_norms_are_lengths_and_name_what_is_bad():
    norms, length = noted(([3.0, 4.0], [1.0]), ([1.0, 2.0], [2.0]))
    assert length == pytest.approx(3.0) and norms.bad_weight() is None and norms.bad_gradient() is None
    assert noted(([1.0], [1.0]), ([2.0], None))[1] == pytest.approx(2.0)
    assert noted(([1.0], [NAN]), ([2.0], [1.0]))[0].bad_weight() == "fc/bias"
    assert noted(([1.0], [1.0]), ([np.inf], [1.0]))[0].bad_gradient() == "fc/kernel"


def test_within_a_batch_the_first_bad_step_is_kept():
    norms, _ = noted(([1.0], [1.0]), ([1.0], [NAN]))
    norms.note([tf.constant([NAN])] * 2, fresh=False)
    assert norms.bad_gradient() == "fc/bias"
    length = norms.note([tf.constant([3.0]), tf.constant([4.0])], fresh=False)
    assert norms.bad_gradient() == "fc/bias" and float(length) == 5.0, "what is returned is this step's"
    norms.note([tf.constant([1.0])] * 2, fresh=True)
    assert norms.bad_gradient() is None


def test_the_cause_is_the_first_link_of_the_chain():
    fine, _ = noted(([1.0], [1.0]), ([1.0], [1.0]))
    steep, _ = noted(([1.0], [1.0]), ([NAN], [1.0]))
    broken, _ = noted(([NAN], [1.0]), ([NAN], [1.0]))
    photo = np.zeros((3, 2, 2, 4))
    coeff = np.zeros((3, 5))
    parts = [BatchPart(["one", b"zw\xc3\xb6lf", "three"], {"photo": photo, "coefficients": coeff})]
    terms = {"total": NAN, "refine": 1.0, "pixel": NAN, "gradient_norm": NAN}
    assert cause(terms, [fine, broken], parts) == ("the weight 'fc/kernel' is not finite", True)
    coeff[1:, 3] = np.inf
    assert cause(terms, [fine, steep], parts) == ("the coefficients of zwölf, three are not finite", False)
    photo[1, 0, 0, 0] = NAN
    assert cause(terms, [fine, steep], parts).text == "the photo of zwölf is not finite"
    photo[:], coeff[:] = 0, 0
    assert cause(terms, [fine, steep], parts).text == "the loss term 'pixel' is not finite"
    assert cause({"total": 1.0, "gradient_norm": NAN}, [steep], parts).text == \
        "the gradient of 'fc/kernel' is not finite"
    assert names_of(parts) == "one, zwölf, three"
    assert names_of([BatchPart(list("abcdefghij"), {})]) == "a, b, c, d, e, f, g, h and 2 more"


def test_many_bad_batches_in_a_row_end_the_training(monkeypatch, caplog):
    monkeypatch.setattr(callbacks, "MOST_SKIPPED", 3)
    weight = tf.Variable([1.0])
    norms, _ = noted(([1.0], [1.0]), ([1.0], [NAN]))
    callback = callbacks.StopOnNonFinite(TrainingState(step=6), lambda: [BatchPart(["x"], {})], [norms], [weight])

    def step(loss):
        callback.on_train_batch_begin(0)
        weight.assign_add([1.0])
        logs = {"total": loss}
        callback.on_train_batch_end(0, logs)
        return logs

    with caplog.at_level(logging.WARNING, "facegcn"):
        assert step(NAN) == {} and step(NAN) == {} and step(1.0) == {"total": 1.0}
        assert weight.numpy() == [2.0], "bad steps are undone, good ones are not"
        step(NAN), step(NAN)
        with pytest.raises(TrainingStopped, match="3 batches in a row .* step 7: the gradient of 'fc/bias'"):
            step(NAN)
    assert weight.numpy() == [2.0]
    assert caplog.messages[-1].endswith("its batch: x (5 so far)")


def passed_over(caplog):
    return [message for message in caplog.messages if message.startswith("passed over")]


def poisoned(world, bad):
    """The world's encoding with NaN among the coefficients of some records."""
    coeff = world[3].coeff.copy()
    coeff[bad, 0] = NAN
    return Encoding(coeff, world[3].embedding)


def texture_trainer(world, tmp_path, **settings):
    config = dataclasses.replace(world[0], runs_dir=str(tmp_path), **settings)
    critic = build_critic(SIZE) if config.gan else None
    return texture_stage.TextureTrainer(face_model(world), config, critic), config, RunFolder.create(config)


def test_bad_coefficients_stop_stage_render_and_are_named(world, tmp_path, eagerly):
    trainer, config, run = texture_trainer(world, tmp_path)
    with pytest.raises(TrainingStopped, match=r"step [12]: the coefficients of c are not finite; its batch: ., .\."):
        texture_stage.train_texture(trainer, config, run, world[2], poisoned(world, [2]))


def test_a_bad_gradient_and_then_a_bad_weight_stop_stage_render(world, tmp_path, monkeypatch, eagerly):
    real = texture_stage.texture_losses

    def steep(outputs, *args, **more):
        terms = real(outputs, *args, **more)
        terms["total"] += tf.sqrt(tf.reduce_sum(outputs["fine_texture"]) * 0.0)  # 0, of slope 0 * infinity
        return terms

    trainer, config, run = texture_trainer(world, tmp_path)
    monkeypatch.setattr(texture_stage, "texture_losses", steep)
    with pytest.raises(TrainingStopped, match="step 1: the gradient of 'mesh.*' is not finite"):
        texture_stage.train_texture(trainer, config, run, world[2], world[3])
    with pytest.raises(TrainingStopped, match="step 1: the weight 'mesh.*' is not finite") as stopped:
        texture_stage.train_texture(trainer, dataclasses.replace(config, skip_bad_batches=True), run, *world[2:4])
    assert "skip_bad_batches" not in str(stopped.value), "the weights were bad before the batch"


def test_bad_batches_of_stage_render_leave_network_critic_and_optimisers_as_they_were(world, tmp_path, caplog, eagerly):
    trainer, config, run = texture_trainer(world, tmp_path, gan=True, skip_bad_batches=True, drop_rate=0.0)
    before = [variable.numpy() for variable in (*trainer.network.variables, *trainer.critic.variables)]
    with caplog.at_level(logging.WARNING, "facegcn"):
        texture_stage.train_texture(trainer, config, run, world[2], poisoned(world, [0, 1, 2, 3]))
    after = [variable.numpy() for variable in (*trainer.network.variables, *trainer.critic.variables)]
    for one, other in zip(before, after):
        np.testing.assert_array_equal(one, other)
    assert trainer.optimizer.iterations.numpy() == trainer.critic_optimizer.iterations.numpy() == 0
    assert all(not np.any(moment.numpy()) for moment in trainer.optimizer._momentums)
    assert len(passed_over(caplog)) == 2 and "(2 so far)" in passed_over(caplog)[-1]
    assert open(run.file("stats.jsonl")).read().count('"step": 2') >= 1


def test_a_bad_made_portrait_is_passed_over_in_stage_rec(world, tmp_path, monkeypatch, caplog, eagerly):
    config = dataclasses.replace(world[0], runs_dir=str(tmp_path), skip_bad_batches=True, rec_steps=4, rec_reuse=1)
    real = PortraitMaker.make

    def make(maker, number):
        portrait = real(maker, number)
        return dataclasses.replace(portrait, coeff=portrait.coeff * NAN) if number == 5 else portrait

    monkeypatch.setattr(PortraitMaker, "make", make)
    model, run = face_model(world), RunFolder.create(config)
    with caplog.at_level(logging.WARNING, "facegcn"):
        regressor_stage.train_regressor(model, config, run, world[2])
    message, = passed_over(caplog)
    assert "step 3: the coefficients of made portrait 5 are not finite; its batch: made portrait 4, made portrait 5" \
        in message
    assert any(f", {name} (1 so far)" in message for name in "abcd"), "the photo, too"
    assert all(np.isfinite(variable.numpy()).all() for variable in model.regressor.variables)
