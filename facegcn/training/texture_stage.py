"""Stage ``render``: training the texture networks, with the regressor frozen.

Optimiser, schedule and losses of the paper (facegcn.losses); the coefficients and embeddings of
the photos come ready from facegcn.training.encoding, so a step runs only the texture network, one
rasterization and the losses.
"""

from __future__ import annotations

import functools
import os

import keras
import numpy as np
import tensorflow as tf

from facegcn import replicas
from facegcn.errors import log
from facegcn.losses import (
    CRITIC_TERMS,
    LossWeights,
    critic_losses,
    generator_adversarial_loss,
    identity_loss,
    schedule,
    second_view_loss,
    texture_losses,
    truth_loss,
)
from facegcn.networks.precision import compute_in
from facegcn.photos.packed_file import damage_named
from facegcn.photos.packed_photos import Examples, PackedPhotos, alternated, batches
from facegcn.report import contact_sheet, overlay, to_uint8
from facegcn.training.callbacks import (
    EpochBoard,
    Progress,
    SaveCheckpoints,
    ShowProgress,
    StatsLog,
    StopOnNonFinite,
)
from facegcn.training.checkpoints import Checkpoints, TrainingState
from facegcn.training.devices import ONE, WHOLE, Devices, Share, Trainer
from facegcn.training.encoding import Encoding
from facegcn.training.finite import BatchPart, Norms, name_rows
from facegcn.training.loss_scale import LossScale
from facegcn.training.optimizer import adam

_SHEET_FACES = 6  # as many as can be looked at


class TextureTrainer(Trainer):
    """One training step of the texture network, and of the critic when there is one.

    Args:
        face_model: a FaceModel with a texture network; the identity term is there when it has FaceNet.
        config: the weights of the loss terms, ``drop_rate``, ``clip_norm``, ``critic_steps``; ``precision``, in which
            both networks compute from now on.
        critic: the image critic, or None.

    Attributes:
        critic_learns: whether the critic's losses count, as far as the render weight is known outside of the step.
    """

    critic_learns = False

    def __init__(self, face_model, config, critic=None):
        super().__init__(name="texture_trainer")
        self.face_model = face_model
        self.network = face_model.texture_network
        self.critic = critic
        self._config = config
        self.render_weight = tf.Variable(0.0, trainable=False, name="render_weight")
        self.refine_weight = tf.Variable(1.0, trainable=False, name="refine_weight")
        self.norms = [Norms(self.network)]
        self.loss_scales = [LossScale(config.precision), LossScale(config.precision)]  # the network's, the critic's
        compute_in(self.network, config.precision)
        if critic is not None:
            compute_in(critic, config.precision)
            self.norms.append(Norms(critic))
            # Replicas cannot meet inside of what XLA compiles.
            alone = self.distribute_strategy.num_replicas_in_sync == 1
            self._critic_gradients = (tf.function(self._critic_gradients_of, jit_compile=True, autograph=False)
                                      if config.xla and alone else self._critic_gradients_of)
            self.critic_optimizer = adam(config.lr, config.clip_norm)
            self.critic_optimizer.build(critic.trainable_variables)

    def variant(self):
        """A step with and one without the critic's learning, on several replicas."""
        return self.critic_learns

    def weights_now(self) -> LossWeights:
        """The loss weights at the current epoch."""
        config = self._config
        return LossWeights(render=self.render_weight, refine=self.refine_weight,
                           identity=config.identity_weight, symmetry=config.symmetry_weight,
                           variance=config.variance_weight, pixel=config.pixel_weight,
                           losses=config.losses, schedule=config.schedule)

    def generator_terms(self, rgba, coeff, embedding, second=None, truth=None, training: bool = False, seen=None):
        """(loss terms, outputs of FaceModel.reconstruct) for a batch; arguments as in ``train_step``.

        ``seen`` is the embedding as the network gets it, with dropout; None = as it is.
        """
        outputs = self.face_model.reconstruct(rgba, coeff, embedding if seen is None else seen, training=training)
        terms = texture_losses(outputs, rgba, self.face_model.morphable, self.weights_now(), network=self.network,
                               identity=self._identity(outputs, rgba, embedding))
        if truth is not None:
            terms["truth"] = truth_loss(outputs["fine_texture"], truth)
            terms["total"] += self._config.truth_weight * terms["truth"]
            if self._config.second_view_weight:
                terms["second_view"] = second_view_loss(self.face_model, outputs["fine_texture"], truth, second)
                terms["total"] += self._config.second_view_weight * terms["second_view"]
        return terms, outputs

    def _identity(self, outputs, rgba, embedding):
        """The identity term, or None without FaceNet or weight; the photo's features end its embedding."""
        facenet = self.face_model.facenet
        if facenet is None or not self._config.identity_weight:
            return None
        return identity_loss(embedding[:, -facenet.feature_count:], facenet(overlay(outputs["fine_render"], rgba)))

    def train_step(self, batch):
        """Batch: (rgba, coeff, embedding); where made portraits take part, also the coefficients of another picture of
        each person (B, K) and the true albedo (B, N, 3), both NaN for photos."""
        rgba, coeff, embedding, *truth = batch
        seen = embedding
        if self._config.drop_rate:
            kept = replicas.drawn(tf.shape(embedding)[0], lambda count: tf.nn.experimental.stateless_dropout(
                tf.ones((count, embedding.shape[-1])), self._config.drop_rate, self._random_seed(0)))
            seen = embedding * kept
        terms = {}
        if self.critic is not None:
            terms.update(self._critic_terms(rgba, coeff, seen))
        with tf.GradientTape() as tape:
            found, outputs = self.generator_terms(rgba, coeff, embedding, *truth, training=True, seen=seen)
            if self.critic is not None:
                adversarial = generator_adversarial_loss(self.critic, outputs["fine_render"], rgba)
                found["adversarial"] = adversarial
                found["total"] += self._adversarial_share() * self._config.adv_lambda * adversarial
        weights, scale = self.network.trainable_variables, self.loss_scales[0]
        gradients = replicas.mean(scale.gradients(tape, found["total"], weights))
        found["gradient_norm"] = scale.apply(self.optimizer, gradients, weights, self.norms[0].note(gradients))
        return replicas.mean({**terms, **found})

    def _adversarial_share(self):
        """Factor of the generator's adversarial term: the render weight, or 0 and 1 [released code]."""
        if self._config.schedule == "paper":
            return self.render_weight
        return tf.cast(self.render_weight > 0.0, tf.float32)

    def _random_seed(self, use: int):
        """Seed (2,) of a random choice in this step; the same again in a run that is continued."""
        step = tf.cast(self.optimizer.iterations, tf.int64)
        return tf.random.experimental.stateless_fold_in(tf.stack([tf.constant(self._config.seed, tf.int64), step]), use)

    def _critic_terms(self, rgba, coeff, embedding):
        """The critic's terms and its step, from the moment the generator's image losses count; until then 0."""
        def learn():
            return self._critic_step(rgba, coeff, embedding)

        def wait():
            return dict.fromkeys(CRITIC_TERMS, tf.constant(0.0))

        if replicas.count() > 1:  # they cannot meet inside of tf.cond
            return learn() if self.critic_learns else wait()
        return tf.cond(self.render_weight > 0.0, learn, wait)

    def _critic_step(self, rgba, coeff, embedding):
        """``critic_steps`` updates of the critic on this batch's renders; the terms of the last."""
        fake = tf.stop_gradient(self.face_model.reconstruct(rgba, coeff, embedding)["fine_render"])
        self.critic_optimizer.learning_rate.assign(self.optimizer.learning_rate)  # they decay together
        if replicas.count() > 1:  # nor inside of a loop
            for number in range(self._config.critic_steps):
                terms = self._critic_update(rgba, fake, number)
            return terms
        # A loop, not repetitions: those are traced, optimised and kept in memory one beside the other.
        return tf.while_loop(lambda number, terms: number < self._config.critic_steps,
                             lambda number, terms: (number + 1, self._critic_update(rgba, fake, number)),
                             (0, dict.fromkeys(CRITIC_TERMS, tf.constant(0.0))), parallel_iterations=1)[1]

    def _critic_update(self, rgba, fake, number):
        """Update ``number`` of the critic in this step; its terms."""
        share = replicas.drawn(tf.shape(rgba)[0], lambda count: tf.random.stateless_uniform(
            (count, 1, 1, 1), self._random_seed(1 + number)))
        terms, gradients = self._critic_gradients(rgba, fake, share)
        gradients = replicas.mean(gradients)
        norm = self.norms[1].note(gradients, fresh=tf.equal(number, 0))
        self.loss_scales[1].apply(self.critic_optimizer, gradients, self.critic.trainable_variables, norm)
        return terms

    def _critic_gradients_of(self, rgba, fake, share):
        """The critic's terms on photos and renders, and their gradients."""
        with tf.GradientTape() as tape:
            terms = critic_losses(self.critic, fake, rgba, share)
            # The released code weighs this side too; it decides how often the clipped norm is reached.
            weighed = self._config.adv_lambda * terms["critic"]
        return terms, self.loss_scales[1].gradients(tape, weighed, self.critic.trainable_variables)

    def trained_variables(self) -> list:
        """Every variable that a step changes: of networks and optimisers."""
        found = [*self.network.variables, *self.optimizer.variables]
        return found if self.critic is None else [*found, *self.critic.variables, *self.critic_optimizer.variables]

    def test_step(self, batch):
        """The loss terms of a validation batch."""
        terms, _ = self.generator_terms(*batch)
        return replicas.mean(terms)


class Schedule(keras.callbacks.Callback):
    """Sets the render and refine weights of each epoch (facegcn.losses.schedule)."""

    def __init__(self, render_start: float, kind: str = "released"):
        super().__init__()
        self._render_start, self._kind = render_start, kind

    def on_epoch_begin(self, epoch, logs=None):
        render, refine = schedule(epoch, self._render_start, self._kind)
        self.model.render_weight.assign(render)
        self.model.critic_learns = self.model.critic is not None and render > 0.0
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


@damage_named()
def train_texture(trainer: TextureTrainer, config, run, packed: PackedPhotos, encoding: Encoding,
                  made: tuple[PackedPhotos, Encoding] | None = None, epochs_done: int = 0,
                  devices: Devices = ONE) -> None:
    """Runs stage ``render``; writes checkpoints, statistics, sample sheets and ``texture.weights.h5``.

    A run that is continued goes on exactly where its checkpoint was written, in the middle of an epoch too.

    Args:
        trainer: holds the networks; trained in place.
        config: optimiser and schedule settings.
        run: the run folder; a checkpoint in it is continued.
        packed: the packed photos; ``train`` and ``val`` of its splits are used.
        encoding: of all its records.
        made: made portraits and their encoding; every second example is one of them. With a dozen
            photos alone the networks would learn these photos by heart.
        epochs_done: epochs that imported weights have behind them; a checkpoint in the run knows better.
        devices: to train on; the trainer was made in their scope.

    Raises:
        UserError: a batch cannot be split evenly over the devices.
        TrainingStopped: a loss term is not finite.
        KeyboardInterrupt: Ctrl-C or SIGTERM; all is saved.
    """
    devices.check_batches(batch_size=config.batch_size)
    steps = max(1, (len(packed.splits["train"]) + (len(made[0].names) if made else 0)) // config.batch_size)
    decayed = keras.optimizers.schedules.ExponentialDecay(config.lr, steps, config.lr_decay, staircase=True)
    with devices.scope():
        # XLA over the texture network computes its recursion again and again, and refuses the rasterizer.
        trainer.compile(optimizer=adam(decayed, config.clip_norm), jit_compile=False)
        trainer.optimizer.build(trainer.network.trainable_variables)
    state = TrainingState(steps * epochs_done, epochs_done, trainer.loss_scales)
    with devices.chief_first():
        checkpoints = texture_checkpoints(trainer, run, state, config.checkpoint_seconds, devices.chief)
        checkpoints.restore()
    devices.check_same("checkpoints", state.step)
    if state.steps != steps:  # of other batches: the epoch that was under way begins anew
        state.steps, state.in_epoch, state.epoch_sums = steps, 0, {}
    run.forget_stats("render", state.step)
    if state.epoch >= config.epoch:
        log.info("stage render: %d of %d epochs are done; --epoch N goes on to N", state.epoch, config.epoch)
        return
    data = _Data(packed, encoding, made, config, trainer.face_model.morphable.vertex_count)
    every = max(1, round(config.eval)) if config.eval else config.epoch
    validated = every if data.validation_steps else None
    with devices.stop_request() as trainer.stop, Progress(
            "texture", steps * config.epoch, steps * state.epoch + state.in_epoch) as bar:
        callbacks = [Schedule(config.render_start, config.schedule),
                     StopOnNonFinite(state, lambda: data.parts(state.epoch * steps + state.in_epoch), trainer.norms,
                                     trainer.trained_variables() if config.skip_bad_batches else None),
                     StatsLog(run.stats, "render", config.log_steps, state), ShowProgress(bar)]
        if devices.chief:
            callbacks += [Samples(run.file("samples"), *data.faces(), every),
                          SaveCheckpoints(checkpoints, trainer.stop, validated, run.file("texture.weights.h5"),
                                          trainer.network),
                          EpochBoard(run.file("tensorboard"), write_graph=False)]
        else:
            callbacks.append(SaveCheckpoints(checkpoints, trainer.stop, validated))
        while state.epoch < config.epoch:
            # Keras cannot begin within an epoch: the rest of one is a fit of its own.
            until = state.epoch + 1 if state.in_epoch else config.epoch
            trainer.fit(
                devices.batches(functools.partial(data.training, state.epoch * steps + state.in_epoch)),
                steps_per_epoch=steps - state.in_epoch, initial_epoch=state.epoch, epochs=until, verbose=0,
                shuffle=False, callbacks=callbacks,
                validation_data=devices.batches(data.validation) if data.validation_steps else None,
                validation_freq=every, validation_steps=data.validation_steps)


class _Data:
    """The batches of stage ``render``: those of training from any step on, those of validation, and the sheet's faces.

    Args:
        packed, encoding, made: as for ``train_texture``.
        config: ``batch_size``, ``seed``.
        vertex_count: of the face model.
    """

    def __init__(self, packed, encoding, made, config, vertex_count: int):
        self._packed, self._encoding, self._made, self._config = packed, encoding, made, config
        self._truth_vertices = vertex_count if made is not None or packed.truth is not None else 0
        self.validation_steps = -(-len(packed.splits["val"]) // config.batch_size)

    def training(self, step: int, share: Share = WHOLE) -> tf.data.Dataset:
        """Endless batches, from that of training step ``step`` on; of each one replica's part at a time."""
        def series(packed, encoding):
            return lambda first: packed.examples(packed.splits["train"], self._arrays(packed, encoding),
                                                 self._config.seed, first, self._truth_vertices)

        return share.batches(self._in_turn(series, step), self._config.batch_size)

    def _in_turn(self, series, step: int) -> Examples:
        """Endless examples of the photos, in turn with the made portraits, from training step ``step`` on;
        ``series(packed, encoding)`` gives each one's examples from a given one on."""
        first = step * self._config.batch_size
        photos = series(self._packed, self._encoding)
        return photos(first) if self._made is None else alternated(photos, series(*self._made), first)

    def parts(self, step: int) -> list[BatchPart]:
        """The batch of training step ``step``, with the names of its records."""
        def series(packed, encoding):
            return lambda first: packed.examples(packed.splits["train"], (*encoding, name_rows(packed.names)),
                                                 self._config.seed, first)

        found = batches(self._in_turn(series, step), self._config.batch_size)
        rgba, coeff, embedding, names = next(found.as_numpy_iterator())
        return [BatchPart(list(names), {"photo": rgba, "coefficients": coeff, "features": embedding})]

    def validation(self, share: Share = WHOLE) -> tf.data.Dataset:
        """The held-out photos once, likewise; a last batch that is short goes to every replica as a whole."""
        size, held_out = self._config.batch_size, self._packed.splits["val"]
        whole = len(held_out) // size * size

        def examples(records):
            return self._packed.examples(records, self._arrays(self._packed, self._encoding),
                                         truth_vertices=self._truth_vertices)

        return share.batches(examples(held_out[:whole]), size).concatenate(
            batches(examples(held_out[whole:]), size).repeat(share.local_replicas))

    def _arrays(self, packed, encoding):
        """What each example holds beside its picture, but for the true albedo."""
        if not self._truth_vertices:
            return encoding
        unknown = np.broadcast_to(np.float32(np.nan), encoding.coeff.shape)
        return *encoding, unknown if packed.second is None else packed.second

    def faces(self):
        """Photos, coefficients and embeddings of the faces that every sheet shows."""
        splits = self._packed.splits
        chosen = (splits["val"] if len(splits["val"]) else splits["train"])[:_SHEET_FACES]
        return self._packed.photos(chosen), *(rows[chosen] for rows in self._encoding)


def texture_checkpoints(trainer: TextureTrainer, run, state: TrainingState, seconds: float,
                        writes: bool = True) -> Checkpoints:
    """Checkpoints of network, optimiser and critic in the run's ``checkpoints/texture``; see ``Checkpoints``."""
    parts = {"network": trainer.network, "optimizer": trainer.optimizer}
    if trainer.critic is not None:
        parts.update(critic=trainer.critic, critic_optimizer=trainer.critic_optimizer)
    return Checkpoints(run.file("checkpoints", "texture"), state, seconds, writes, **parts)
