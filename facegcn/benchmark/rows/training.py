"""The rows of real trainings of stage render: the trainer's own step through Keras, from the call of ``fit`` on.

Each is asked for alone, so that the memory that the process took is that of a training.
"""

from __future__ import annotations

import dataclasses
import time

import keras
import numpy as np
import tensorflow as tf

from facegcn.benchmark.rows.timing import STEP_REPETITIONS, Parts, Row, Sizes, bumpy_mesh, compiled
from facegcn.config import CHOICES, Config
from facegcn.face_model import FaceModel
from facegcn.morphable import MorphableModel
from facegcn.training.optimizer import adam
from facegcn.training.texture_stage import TextureTrainer

_COMPONENTS = {"id_basis": 80, "exp_basis": 64, "albedo_basis": 80}  # of the paper's face model
#: The paper's networks on the released code's seven channels, with its losses.
_SETTINGS = dict(residual=False, delit=False, mirror=False, trust=False, completed=False, relight=False,
                 visibility="normal", sampling="released", losses="released")


def training_resnet_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """The paper's network."""
    return _rows(sizes, parts, "resnet", "<= 0.5 s", model="resnet")


def training_normal_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """The released code's default network."""
    return _rows(sizes, parts, "normal", "", model="normal")


def training_gan_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """The paper's network against the image critic, in five steps of it each."""
    return _rows(sizes, parts, "resnet, --gan", "", model="resnet", gan=True)


def training_precision_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """A step of the paper's network in each precision beside one in float32, without and with the image critic.

    Processor time, as the steps' machine may have more to do; the naive column is float32.
    """
    rows, precisions = [], CHOICES["precision"]
    for name, gan in (("resnet", False), ("resnet, --gan", True)):
        config = dataclasses.replace(Config(), **_SETTINGS, gan=gan)
        steps = {precision: _step(sizes, parts, dataclasses.replace(config, precision=precision))
                 for precision in precisions}
        times = {precision: [] for precision in steps}
        for _ in range(1 + min(sizes.repetitions, STEP_REPETITIONS)):
            for precision, step in steps.items():
                start = time.process_time()
                step()
                times[precision].append(time.process_time() - start)
        whole, *others = (float(np.median(times[precision][1:])) for precision in precisions)
        rows += [Row(f"step {name}, {precision}", seconds, whole, "")
                 for precision, seconds in zip(precisions[1:], others)]
    return rows


def _step(sizes, parts, config):
    """A function that does one training step; its first call compiles."""
    trainer, batch = _training(sizes, parts, config)
    step = compiled(trainer.train_step)
    return lambda: float(step(batch)["total"])


def _rows(sizes, parts, name, bar, **settings) -> list[Row]:
    times = _StepTimes()
    trainer, batch = _training(sizes, parts, dataclasses.replace(Config(), **_SETTINGS, **settings))
    data = tf.data.Dataset.from_tensors(batch).repeat()
    trainer.fit(data, steps_per_epoch=1 + sizes.repetitions, verbose=0, shuffle=False, callbacks=[times])
    first, *others = np.diff(times.at)
    work = f"batch {sizes.batch}, {trainer.face_model.morphable.vertex_count:,} vertices"
    return [Row(f"training {name}, first step", first, None, "<= 12 s"),
            Row(f"  step, {work}", float(np.median(others)), None, bar)]


class _StepTimes(keras.callbacks.Callback):
    """When the training began and each step ended, seconds."""

    def on_train_begin(self, logs=None):
        self.at = [time.perf_counter()]

    def on_train_batch_end(self, batch, logs=None):
        self.at.append(time.perf_counter())


def _training(sizes, parts, config):
    """A compiled TextureTrainer of a made face model, and a batch for it."""
    morphable = _face(sizes.vertices)
    model = FaceModel(morphable, None, None, sizes.pixels, config.visibility, config.delit, config.mirror,
                      config.erosion, config.relight, None, config.sampling, config.trust, config.completed)
    model.texture_network = parts.network(
        kind=config.model, hierarchy=parts.hierarchy(morphable.mean_shape, morphable.triangles),
        embedding_dim=sizes.embedding, residual=config.residual, refiner_channels=model.refiner_channels)
    critic = parts.critic(sizes.pixels, config.critic_norm) if config.gan else None
    trainer = TextureTrainer(model, config, critic)
    trainer.compile(optimizer=adam(config.lr, config.clip_norm), jit_compile=False)
    trainer.optimizer.build(trainer.network.trainable_variables)
    trainer.render_weight.assign(1.0)
    rng = np.random.default_rng(0)
    rgba = rng.uniform(-1, 1, (sizes.batch, sizes.pixels, sizes.pixels, 4)).astype(np.float32)
    rgba[..., 3] = 1.0
    coeff = np.zeros((sizes.batch, morphable.coefficient_count), np.float32)
    embedding = rng.normal(size=(sizes.batch, sizes.embedding)).astype(np.float32)
    return trainer, tuple(map(tf.constant, (rgba, coeff, embedding)))


def _face(vertices: int) -> MorphableModel:
    """A bulge with components of the paper's numbers, which are small noise."""
    shape, triangles = bumpy_mesh(vertices)
    count, rng = len(shape), np.random.default_rng(0)
    side = round(count ** 0.5)
    grid = np.arange(count).reshape(side, side)
    pairs = np.stack([grid[:, :side // 2], grid[:, ::-1][:, :side // 2]], axis=-1).reshape(-1, 2)
    bases = {name: 0.01 * rng.standard_normal((count, 3, size), np.float32) for name, size in _COMPONENTS.items()}
    return MorphableModel(mean_shape=shape, mean_albedo=np.full((count, 3), 150.0), triangles=triangles,
                          landmarks=np.linspace(0, count - 1, 68).astype(int), skin_index=np.arange(count),
                          symmetry_pairs=pairs, **bases)
