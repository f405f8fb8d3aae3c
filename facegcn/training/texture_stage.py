"""Stage ``render``: training the texture networks, with the regressor frozen.

Optimiser, schedule and losses of the paper (facegcn.losses); the coefficients and embeddings of
the photos come ready from facegcn.training.encoding, so a step runs only the texture network, one
rasterization and the losses.
"""

from __future__ import annotations

import os

import keras
import tensorflow as tf

from facegcn.losses import (
    CRITIC_TERMS,
    LossWeights,
    critic_losses,
    generator_adversarial_loss,
    identity_loss,
    schedule,
    texture_losses,
    truth_loss,
)
from facegcn.losses import overlay as skin_overlay
from facegcn.photos.packed_photos import PackedPhotos, batches
from facegcn.report import contact_sheet, overlay, to_uint8
from facegcn.training.callbacks import Progress, SaveCheckpoints, StatsLog, StopOnNonFinite
from facegcn.training.encoding import Encoding


class TextureTrainer(keras.Model):
    """One training step of the texture network, and of the critic when there is one.

    Args:
        face_model: a FaceModel with a texture network; the identity term is there when it has FaceNet.
        config: the weights of the loss terms, ``drop_rate``, ``clip_norm``, ``critic_steps``.
        critic: the image critic, or None.
    """

    def __init__(self, face_model, config, critic=None):
        super().__init__(name="texture_trainer")
        self.face_model = face_model
        self.network = face_model.texture_network
        self.critic = critic
        self._config = config
        self.render_weight = tf.Variable(0.0, trainable=False, name="render_weight")
        self.refine_weight = tf.Variable(1.0, trainable=False, name="refine_weight")
        if critic is not None:
            self.critic_optimizer = adam(config.lr, config.clip_norm)
            self.critic_optimizer.build(critic.trainable_variables)

    def weights_now(self) -> LossWeights:
        """The loss weights at the current epoch."""
        config = self._config
        return LossWeights(render=self.render_weight, refine=self.refine_weight,
                           identity=config.identity_weight, symmetry=config.symmetry_weight,
                           variance=config.variance_weight, pixel=config.pixel_weight,
                           losses=config.losses)

    def generator_terms(self, rgba, coeff, embedding, truth=None, training: bool = False, seen=None):
        """(loss terms, outputs of FaceModel.reconstruct) for a batch; arguments as in ``train_step``.

        ``seen`` is the embedding as the network gets it, with dropout; None = as it is.
        """
        outputs = self.face_model.reconstruct(rgba, coeff, embedding if seen is None else seen, training=training)
        terms = texture_losses(outputs, rgba, self.face_model.morphable, self.weights_now(), network=self.network,
                               identity=self._identity(outputs, rgba, embedding))
        if truth is not None:
            terms["truth"] = truth_loss(outputs["fine_texture"], truth)
            terms["total"] += self._config.truth_weight * terms["truth"]
        return terms, outputs

    def _identity(self, outputs, rgba, embedding):
        """The identity term, or None without FaceNet or weight; the photo's features end its embedding."""
        facenet = self.face_model.facenet
        if facenet is None or not self._config.identity_weight:
            return None
        return identity_loss(embedding[:, -facenet.feature_count:], facenet(skin_overlay(outputs["fine_render"], rgba)))

    def train_step(self, batch):
        """Batch: (rgba, coeff, embedding), and the true albedo (B, N, 3) where made portraits take part."""
        rgba, coeff, embedding, *truth = batch
        seen = tf.nn.dropout(embedding, self._config.drop_rate) if self._config.drop_rate else embedding
        terms = {}
        if self.critic is not None:
            # The critic learns from the moment the generator's image losses count.
            terms.update(tf.cond(self.render_weight > 0.0, lambda: self._critic_step(rgba, coeff, seen),
                                 lambda: dict.fromkeys(CRITIC_TERMS, tf.constant(0.0))))
        with tf.GradientTape() as tape:
            found, outputs = self.generator_terms(rgba, coeff, embedding, *truth, training=True, seen=seen)
            if self.critic is not None:
                adversarial = generator_adversarial_loss(self.critic, outputs["fine_render"], rgba)
                active = tf.cast(self.render_weight > 0.0, tf.float32)
                found["adversarial"] = adversarial
                found["total"] += active * self._config.adv_lambda * adversarial
        gradients = tape.gradient(found["total"], self.network.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.network.trainable_variables))
        return {**terms, **found}

    def _critic_step(self, rgba, coeff, embedding):
        """``critic_steps`` updates of the critic on this batch's renders."""
        fake = tf.stop_gradient(self.face_model.reconstruct(rgba, coeff, embedding)["fine_render"])
        self.critic_optimizer.learning_rate.assign(self.optimizer.learning_rate)  # they decay together
        for _ in range(self._config.critic_steps):
            with tf.GradientTape() as tape:
                terms = critic_losses(self.critic, fake, rgba)
                # The released code weighs this side too; it decides how often the clipped norm is reached.
                weighed = self._config.adv_lambda * terms["critic"]
            gradients = tape.gradient(weighed, self.critic.trainable_variables)
            self.critic_optimizer.apply_gradients(zip(gradients, self.critic.trainable_variables))
        return terms

    def test_step(self, batch):
        """The loss terms of a validation batch."""
        terms, _ = self.generator_terms(*batch)
        return terms


def adam(learning_rate, clip_norm: float) -> keras.optimizers.Adam:
    """Adam with TensorFlow 1's epsilon, 1e-8; each variable's gradient is clipped to a norm [released code].

    Keras' own epsilon of 1e-7 would slow the weights whose gradients are small.

    Args:
        learning_rate: a number or a Keras schedule.
        clip_norm: greatest norm of a variable's gradient.
    """
    return keras.optimizers.Adam(learning_rate, epsilon=1e-8, clipnorm=clip_norm)


class Schedule(keras.callbacks.Callback):
    """Sets the render and refine weights of each epoch (facegcn.losses.schedule)."""

    def __init__(self, render_start: float):
        super().__init__()
        self._render_start = render_start

    def on_epoch_begin(self, epoch, logs=None):
        render, refine = schedule(epoch, self._render_start)
        self.model.render_weight.assign(render)
        self.model.refine_weight.assign(refine)


class Samples(keras.callbacks.Callback):
    """Writes a sheet of the same faces (photo, coarse, fine) before training and each ``every`` epochs.

    Args:
        folder: where the sheets go.
        rgba, coeff, embedding: the fixed faces.
        every: epochs between sheets.
    """

    def __init__(self, folder: str, rgba, coeff, embedding, every: int):
        super().__init__()
        self._folder, self._faces, self._every = folder, (rgba, coeff, embedding), every

    def on_train_begin(self, logs=None):
        if not os.path.exists(os.path.join(self._folder, "start.png")):
            self._sheet("start.png")

    def on_epoch_end(self, epoch, logs=None):
        if (epoch + 1) % self._every == 0:
            self._sheet(f"epoch{epoch + 1:03d}.png")

    def _sheet(self, name):
        outputs = self.model.face_model.reconstruct(*self._faces)
        photo = self._faces[0][..., :3]
        rows = [[to_uint8(photo[i])] + [to_uint8(overlay(outputs[f"{kind}_render"], self._faces[0])[i])
                                        for kind in ("coarse", "fine")] for i in range(len(photo))]
        contact_sheet(rows, [""] * len(rows), os.path.join(self._folder, name),
                      headings=("photo", "coarse", "fine"))


def train_texture(trainer: TextureTrainer, config, run, packed: PackedPhotos, encoding: Encoding,
                  made: tuple[PackedPhotos, Encoding] | None = None, epochs_done: int = 0) -> None:
    """Runs stage ``render``; writes checkpoints, statistics, sample sheets and ``texture.weights.h5``.

    Args:
        trainer: holds the networks; trained in place.
        config: optimiser and schedule settings.
        run: the run folder; a checkpoint in it is continued.
        packed: the packed photos; ``train`` and ``val`` of its splits are used.
        encoding: of all its records.
        made: made portraits and their encoding; every second example is one of them. With a dozen
            photos alone the networks would learn these photos by heart.
        epochs_done: epochs that imported weights have behind them; a checkpoint in the run knows better.

    Raises:
        TrainingStopped: a loss term is not finite.
    """
    train, val = packed.splits["train"], packed.splits["val"]
    vertex_count = trainer.face_model.morphable.vertex_count
    with_truth = packed.truth is not None or made is not None
    rows = _rows(packed, encoding, vertex_count, with_truth)
    examples = packed.examples(train, rows, config.buffer_size, config.seed)
    count = len(train)
    if made is not None:
        count += len(made[0].names)
        made_rows = _rows(*made, vertex_count, with_truth)
        portraits = made[0].examples(made[0].splits["train"], made_rows, config.buffer_size, config.seed)
        examples = tf.data.Dataset.sample_from_datasets([examples, portraits], [0.5, 0.5], seed=config.seed)
    steps = max(1, count // config.batch_size)
    decayed = keras.optimizers.schedules.ExponentialDecay(config.lr, steps, config.lr_decay, staircase=True)
    trainer.compile(optimizer=adam(decayed, config.clip_norm))
    trainer.optimizer.build(trainer.network.trainable_variables)
    manager = checkpoint_manager(trainer, run, epochs_done)
    manager.restore_or_initialize()
    first_epoch = int(manager.checkpoint.epoch.numpy())
    every = max(1, round(config.eval)) if config.eval else config.epoch
    faces = val[:6] if len(val) else train[:6]
    sheet = Samples(run.file("samples"), packed.photos(faces), encoding.coeff[faces],
                    encoding.embedding[faces], every)
    validation = batches(packed.examples(val, rows), config.batch_size) if len(val) else None
    trainer.fit(
        batches(examples, config.batch_size), steps_per_epoch=steps, epochs=config.epoch,
        initial_epoch=first_epoch, verbose=0, shuffle=False,
        validation_data=validation, validation_freq=every,
        validation_steps=-(-len(val) // config.batch_size),
        callbacks=[Schedule(config.render_start), StopOnNonFinite(),
                   StatsLog(run.stats, "render", config.log_steps, steps * first_epoch),
                   SaveCheckpoints(manager, run.file("texture.weights.h5")), sheet,
                   Progress("texture", steps * config.epoch, steps * first_epoch),
                   keras.callbacks.TensorBoard(run.file("tensorboard"), write_graph=False)])


def _rows(packed: PackedPhotos, encoding: Encoding, vertex_count: int, with_truth: bool):
    """Coefficients, embeddings, and where it is asked the true albedo, NaN for photos."""
    if not with_truth:
        return tuple(encoding)
    return (*encoding, packed.truth_of(range(len(packed.names)), vertex_count))


def checkpoint_manager(trainer: TextureTrainer, run, epochs_done: int = 0) -> tf.train.CheckpointManager:
    """Checkpoints of network, optimiser, critic and epoch in the run's ``checkpoints/texture``."""
    parts = {"network": trainer.network, "optimizer": trainer.optimizer,
             "epoch": tf.Variable(epochs_done, dtype=tf.int64, trainable=False)}
    if trainer.critic is not None:
        parts.update(critic=trainer.critic, critic_optimizer=trainer.critic_optimizer)
    return tf.train.CheckpointManager(tf.train.Checkpoint(**parts), run.file("checkpoints", "texture"),
                                      max_to_keep=2)
