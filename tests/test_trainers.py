"""The training steps themselves: how they are compiled, on which backend they run, what is random in them."""

import dataclasses
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from facegcn.backends import kernels
from facegcn.losses import second_view_loss
from facegcn.portraits.maker import PortraitMaker
from facegcn.runs import RunFolder
from facegcn.training import regressor_stage, texture_stage
from facegcn.training.encoding import Encoding
from facegcn.training.regressor_stage import RegressorTrainer
from facegcn.training.texture_stage import TextureTrainer
from model import build_critic
from tests.small_training import SIZE, face_model, small_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A ``small_world``."""
    return small_world(tmp_path_factory.mktemp("trainers"))


@pytest.fixture
def with_a_gpu(monkeypatch):
    """Makes Keras believe in a GPU, where it compiles with XLA unless it is told not to."""
    found = tf.config.list_physical_devices()
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [
        *found, tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")])


def test_neither_stage_is_compiled_with_xla_on_a_gpu(world, with_a_gpu, monkeypatch):
    """XLA refuses the rasterizer's data-dependent shapes."""
    plain = keras.Sequential([keras.layers.Dense(1)])
    plain.compile(loss="mse", optimizer="adam")
    assert plain.jit_compile, "Keras does choose XLA here"
    config, _, packed, encoding, _ = world
    model, run, fitted = face_model(world), RunFolder.create(config), []

    class Fitted(Exception):
        pass

    def fit(trainer, *_, **__):
        fitted.append((type(trainer), trainer.jit_compile))
        raise Fitted

    monkeypatch.setattr(keras.Model, "fit", fit)
    with pytest.raises(Fitted):
        regressor_stage.train_regressor(model, config, run, packed)
    with pytest.raises(Fitted):
        texture_stage.train_texture(TextureTrainer(model, config), config, run, packed, encoding)
    assert fitted == [(RegressorTrainer, False), (TextureTrainer, False)]


def texture_trainer(world, **settings):
    def make(model):
        config = dataclasses.replace(world[0], **settings)
        critic = build_critic(SIZE, "layer") if config.gan else None
        trainer = TextureTrainer(model, config, critic)
        trainer.render_weight.assign(1.0)
        return trainer, lambda trainer: trainer.network.trainable_variables
    return make


def regressor_trainer(model):
    return RegressorTrainer(model), lambda trainer: trainer.regressor.trainable_variables


def regressor_batch(world):
    _, _, packed, encoding, (rgba, coeff, _) = world
    return rgba[..., :3], coeff, rgba[:1], tf.constant(packed.targets[:1])


def test_what_is_random_in_a_step_depends_on_seed_and_step_only(world):
    def terms(seed, done, global_seed):
        trainer, _ = texture_trainer(world, gan=True, seed=seed)(face_model(world, residual=False))
        tf.random.set_seed(global_seed)
        trainer.compile(optimizer=keras.optimizers.SGD(0.0), jit_compile=False)
        trainer.optimizer.iterations.assign(done)
        found = trainer.train_step(world[4])
        return float(found["refine"]), float(found["gradient_penalty"])

    first = terms(4, 7, 0)
    assert terms(4, 7, 99) == first, "not on how often TensorFlow was asked for numbers before"
    for other in (terms(4, 8, 0), terms(5, 7, 0)):
        assert other[0] != first[0], "dropout changes"
        assert other[1] != first[1], "the points between photo and overlay change"


@pytest.fixture(scope="module")
def made(world):
    """Three packed portraits with their truth and second pictures, and their encoding."""
    config, morphable, packed, encoding, _ = world
    maker = PortraitMaker(morphable, SIZE, seed=1)
    truth = np.stack([maker.make(number).albedo / np.float32(127.5) - 1 for number in range(3)]).astype(np.float16)
    second = np.stack([maker.coefficients(number, 1) for number in range(3)])
    splits = {"train": np.arange(3)}
    rows = {"truth_row": np.arange(3, dtype=np.int32), "targets": packed.targets[:3], "dense": packed.dense[:3]}
    return (dataclasses.replace(packed, names=list("abc"), splits=splits, truth=truth, second=second, **rows),
            Encoding(*(part[:3] for part in encoding)))


def test_made_portraits_are_also_judged_by_a_second_picture(world, made):
    (rgba, coeff, features), packed = world[4], made[0]
    truth, second = tf.constant(packed.truth[:2]), tf.constant(packed.second[:2])

    def terms(**weights):
        trainer, _ = texture_trainer(world, truth_weight=2.0, **weights)(face_model(world))
        found, outputs = trainer.generator_terms(rgba, coeff, features, second, truth)
        return {name: float(value) for name, value in found.items()}, trainer, outputs

    plain, _, _ = terms()
    both, trainer, outputs = terms(second_view_weight=3.0)
    assert "second_view" not in plain and both["second_view"] > 0.01
    assert both["second_view"] == pytest.approx(float(
        second_view_loss(trainer.face_model, outputs["fine_texture"], truth, second)), rel=1e-4)
    assert both["total"] == pytest.approx(plain["total"] + 3.0 * both["second_view"], rel=1e-4)
    unknown = [tf.fill(part.shape, tf.constant(np.nan, part.dtype)) for part in (second, truth)]
    photos = {name: float(value) for name, value in trainer.generator_terms(rgba, coeff, features, *unknown)[0].items()}
    assert photos["second_view"] == 0.0 and photos["truth"] == 0.0 and np.isfinite(photos["total"])


def test_photos_and_made_portraits_take_turns_with_and_without_truth(world, made, tmp_path):
    config = dataclasses.replace(world[0], second_view_weight=3.0, runs_dir=str(tmp_path))
    data = texture_stage._Data(world[2], world[3], made, config, world[1].vertex_count)
    rgba, coeff, features, second, truth = next(iter(data.training(0)))
    assert second.shape == coeff.shape and truth.shape == (2, world[1].vertex_count, 3)
    assert np.isnan(second).all(axis=1).tolist() == np.isnan(truth).all(axis=(1, 2)).tolist() == [True, False]
    assert any(np.array_equal(second[1], row) for row in made[0].second)
    run, model = RunFolder.create(config), face_model(world)
    texture_stage.train_texture(TextureTrainer(model, config), config, run, world[2], world[3], made)
    lines = [json.loads(line) for line in open(run.file("stats.jsonl"))]
    assert all(0.0 < line["second_view"] < 2.0 and np.isfinite(line["total"]) for line in lines)


@pytest.mark.parametrize(("size", "inner"), [(96, 48), (256, 64)])
def test_other_crop_sizes_train(world, size, inner):
    """One step of either stage, with a critic."""
    config, settings = world[0], {"img_size": size, "regressor_pixels": inner, "gan": True}
    model = face_model(world, **settings)
    portrait = PortraitMaker(world[1], size, seed=1).make(0)
    rgba = tf.constant(portrait.rgba[None] / np.float32([127.5, 127.5, 127.5, 255]) - np.float32([1, 1, 1, 0]))
    coeff = tf.constant(portrait.coeff[None])
    trainer = TextureTrainer(model, dataclasses.replace(config, **settings), build_critic(size))
    trainer.render_weight.assign(1.0)
    stage_rec = RegressorTrainer(model)
    for one, batch in ((trainer, (rgba, coeff, model.regress(rgba)[1])), (stage_rec, (rgba[..., :3], coeff))):
        one.compile(optimizer=keras.optimizers.SGD(1e-3), jit_compile=False)
        assert all(np.isfinite(float(value)) for value in one.train_step(batch).values())


@pytest.mark.parametrize(("settings", "steps", "validated"), [
    ({"batch_size": 1, "eval": 0.0}, [1, 2, 3, 4, 5, 6], [6]), ({"batch_size": 50}, [1, 2], [1, 2]),
    ({"epoch": 0}, [], [])])
def test_any_batch_size_and_validation_trains(world, tmp_path, settings, steps, validated):
    """A single photo a step with validation at the end only; more photos a step than there are; nothing."""
    _, morphable, packed, encoding, _ = world
    config = dataclasses.replace(world[0], **{"epoch": 2, "runs_dir": str(tmp_path), **settings})
    splits = {"train": np.arange(3), "val": np.arange(3, 4), "test": np.arange(0)}
    packed = dataclasses.replace(packed, splits=splits)
    run, model = RunFolder.create(config), face_model(world)
    texture_stage.train_texture(TextureTrainer(model, config), config, run, packed, encoding)
    lines = [json.loads(line) for line in open(run.file("stats.jsonl"))] if steps else []
    assert [line["step"] for line in lines if "total" in line] == steps
    assert [line["step"] for line in lines if "val_total" in line] == validated
    assert os.path.exists(run.file("texture.weights.h5")) == bool(steps)


def gradients_of(world, make_trainer, batch):
    """Loss terms of a compiled step, and the gradients that it gives to the optimiser."""
    found = []

    class Kept(keras.optimizers.SGD):
        def apply_gradients(self, pairs):
            found.extend(gradient for gradient, _ in pairs)

    trainer, _ = make_trainer(face_model(world))
    trainer.compile(optimizer=Kept(), jit_compile=False)

    def step(*parts):
        found.clear()
        terms = trainer.train_step(parts)
        return terms, tuple(found)

    return tf.function(step, autograph=False)(*batch)


@pytest.fixture
def computing_on_a_gpu(monkeypatch):
    """Makes the code here choose what it would where TensorFlow computes on a GPU; no Numba loop may then run."""
    seen = tf.config.get_visible_devices
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "get_visible_devices",
                        lambda kind=None: [gpu] if kind == "GPU" else [*seen(kind), gpu])

    def refused(*_, **__):
        raise AssertionError("a compiled loop of the CPU in a step of a GPU")

    for name in [name for name in dir(kernels) if hasattr(getattr(kernels, name), "py_func")]:
        monkeypatch.setattr(kernels, name, refused)
    monkeypatch.setattr(tf, "numpy_function", refused)


@pytest.mark.parametrize("kind", ["rec", "resnet", "normal", pytest.param("gan", marks=pytest.mark.long)])
def test_a_step_on_a_gpus_backend_has_the_gradients_of_the_cpus(world, kind, request):
    make, batch = (regressor_trainer, regressor_batch(world)) if kind == "rec" else (texture_trainer(
        world, drop_rate=0.0, model="normal" if kind == "normal" else "resnet", gan=kind == "gan"), world[4])
    world = (dataclasses.replace(world[0], model="normal" if kind == "normal" else "resnet"), *world[1:])
    terms, gradients = gradients_of(world, make, batch)
    request.getfixturevalue("computing_on_a_gpu")
    other_terms, other_gradients = gradients_of(world, make, batch)
    for name, value in terms.items():
        assert float(other_terms[name]) == pytest.approx(float(value), rel=2e-4, abs=2e-6), name
    assert len(gradients) == len(other_gradients) and any(np.abs(gradient).max() > 1e-4 for gradient in gradients)
    for one, other in zip(gradients, other_gradients):
        np.testing.assert_allclose(other, one, rtol=1e-3, atol=2e-4 * float(np.abs(one).max()) + 1e-7)


def test_what_xla_refuses_of_a_gpus_step_is_named(world, computing_on_a_gpu):
    """Keras would compile the step with XLA on a GPU: that is why both stages tell it not to."""
    trainer, _ = texture_trainer(world, drop_rate=0.0)(face_model(world))
    trainer.compile(optimizer=keras.optimizers.SGD(1e-2))
    assert not trainer.jit_compile, "Keras asks the graph layers, and these say no"
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.UnimplementedError), match="(?i)SparseMatrix|Where"):
        tf.function(trainer.train_step, jit_compile=True, autograph=False)(world[4])
