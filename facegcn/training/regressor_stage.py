"""Stage ``rec``: training the regressor on made portraits of known truth, and on packed photos.

The portraits give exact supervision of geometry, albedo and light; photos add the weakly
supervised losses of Deng et al. 2019 (photometric, and landmarks where a photo has them). Ours:
the paper starts from a regressor that others trained.
"""

from __future__ import annotations

import functools

import keras
import numpy as np
import tensorflow as tf

from facegcn import camera, replicas
from facegcn.fitting import photo_losses
from facegcn.geometry import rotate
from facegcn.lighting import shading
from facegcn.networks.precision import compute_in
from facegcn.photos.packed_file import damage_named
from facegcn.portraits.maker import PortraitMaker, Stream
from facegcn.training.callbacks import Progress, SaveCheckpoints, ShowProgress, StatsLog, StopOnNonFinite
from facegcn.training.checkpoints import Checkpoints, TrainingState
from facegcn.training.devices import ONE, WHOLE, Devices, Share, Trainer
from facegcn.training.finite import BatchPart, Norms, name_rows
from facegcn.training.loss_scale import LossScale
from facegcn.training.optimizer import Adam
from facegcn.training.reused_portraits import ReusedPortraits

_PROBE_VERTICES = 400  # random vertices that stand for the surface in the losses, besides the landmarks
_PROBE_NORMALS = 64  # directions in which predicted and true light are compared
WEIGHTS = {"pixels": 1.0, "shape": 40.0, "depth": 2.0, "albedo": 20.0, "light": 4.0, "lit": 20.0,
           "coefficients": 0.05}
_PHOTO_SHARE = 4.0  # of photo_losses, which is about 0.2 when the truth losses are about 10


class TruthLoss:
    """Distances between predicted and true coefficients, measured on the face they describe."""

    def __init__(self, morphable, image_size: int, seed: int = 0):
        rng = np.random.default_rng(seed)
        count = min(_PROBE_VERTICES, morphable.vertex_count)
        probes = np.concatenate([morphable.landmarks,
                                 rng.choice(morphable.vertex_count, count, replace=False)])
        self._morphable, self._image_size = morphable, image_size
        self._mean = (morphable.mean_shape - morphable.mean_shape.mean(axis=0))[probes]
        self._shape_basis = np.concatenate([morphable.id_basis, morphable.exp_basis], axis=2)[probes]
        self._mean_albedo = morphable.mean_albedo[probes] / 255.0
        self._albedo_basis = morphable.albedo_basis[probes] / 255.0
        normals = rng.normal(size=(1, _PROBE_NORMALS, 3))
        normals[..., 2] = np.abs(normals[..., 2])
        self._normals = (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32)

    def _describe(self, coeff):
        """Unposed shape, pixels, distance, albedo and light of coefficients (B, K)."""
        parts = self._morphable.split(coeff)
        shape = self._mean + tf.einsum("vck,bk->bvc", self._shape_basis,
                                       tf.concat([parts.id, parts.exp], axis=-1))
        world = rotate(shape, parts.angles) + parts.translation[:, None]
        pixels = camera.to_pixels(camera.project(world), self._image_size)
        albedo = self._mean_albedo + tf.einsum("vck,bk->bvc", self._albedo_basis, parts.tex)
        light = shading(tf.repeat(self._normals, tf.shape(coeff)[0], axis=0), parts.gamma)
        return shape, pixels, world[..., 2], albedo, light

    def __call__(self, predicted, truth) -> dict[str, tf.Tensor]:
        """Named scalar terms and ``total``; ``pixels`` is a mean distance at 224 px."""
        shape, pixels, depth, albedo, light = self._describe(predicted)
        shape_t, pixels_t, depth_t, albedo_t, light_t = self._describe(truth)
        unit = self._image_size / 224.0
        squared = tf.reduce_sum(tf.square((pixels - pixels_t) / unit), axis=-1)
        sizes = self._morphable.part_sizes
        basis_part = slice(0, sum(sizes[:3]))
        mean_light, mean_light_t = (tf.reduce_mean(x, axis=1, keepdims=True) for x in (light, light_t))
        terms = {
            "pixels": tf.reduce_mean(tf.sqrt(squared + 1e-3)),
            "shape": tf.reduce_mean(tf.sqrt(tf.reduce_sum(tf.square(shape - shape_t), axis=-1) + 1e-6)),
            "depth": tf.reduce_mean(tf.abs(depth - depth_t)),
            "albedo": tf.reduce_mean(tf.abs(albedo - albedo_t)),
            "light": tf.reduce_mean(tf.abs(light - light_t)),
            "lit": tf.reduce_mean(tf.abs(albedo * mean_light - albedo_t * mean_light_t)),
            "coefficients": tf.reduce_mean(tf.square((predicted - truth)[:, basis_part])) if basis_part.stop
            else tf.constant(0.0),  # a model without components has no mean
        }
        terms["total"] = tf.add_n([WEIGHTS[name] * value for name, value in terms.items()])
        return terms


class RegressorTrainer(Trainer):
    """One training step of the regressor on portraits, and on photos when the batch brings them.

    On several replicas its batch normalisation takes the moments of all replicas' pictures.

    Args:
        face_model: a FaceModel with a regressor.
        precision: in which the regressor computes from now on.
    """

    def __init__(self, face_model, precision: str = "float32"):
        super().__init__(name="regressor_trainer")
        self.face_model = face_model
        self.regressor = face_model.regressor
        self.norms = [Norms(self.regressor)]
        self.loss_scales = [LossScale(precision)]
        compute_in(self.regressor, precision)
        if self.distribute_strategy.num_replicas_in_sync > 1:
            for layer in self.regressor._flatten_layers():
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True
        self._truth_loss = TruthLoss(face_model.morphable, face_model.image_size)

    def train_step(self, batch):
        """Batch: (rgb, coeff) or (rgb, coeff, photos (P, H, W, 4), targets (P, 73, 2))."""
        rgb, truth, *photos = batch
        with tf.GradientTape() as tape:
            # One forward pass, so that batch normalisation sees portraits and photos together.
            seen = tf.concat([rgb, photos[0][..., :3]], axis=0) if photos else rgb
            coeff, _ = self.regressor(seen, training=True)
            terms = self._truth_loss(coeff[:tf.shape(rgb)[0]], truth)
            total = terms["total"]
            if photos:
                found = photo_losses(self.face_model, photos[0], coeff[tf.shape(rgb)[0]:], photos[1])
                total += _PHOTO_SHARE * found["total"]
                terms.update({f"photo_{name}": value for name, value in found.items()}, total=total)
        weights, scale = self.regressor.trainable_variables, self.loss_scales[0]
        gradients = replicas.mean(scale.gradients(tape, total, weights))
        terms["gradient_norm"] = scale.apply(self.optimizer, gradients, weights, self.norms[0].note(gradients))
        return replicas.mean(terms)

    def trained_variables(self) -> list:
        """Every variable that a step changes: of network and optimiser."""
        return [*self.regressor.variables, *self.optimizer.variables]


def learning_rate(peak: float, steps: int):
    """A short warm-up, then a cosine to zero."""
    warm_up = max(1, min(100, steps // 10))
    return keras.optimizers.schedules.CosineDecay(peak * 0.1, max(1, steps - warm_up), warmup_target=peak,
                                                  warmup_steps=warm_up)


@damage_named()
def train_regressor(face_model, config, run, packed, devices: Devices = ONE) -> None:
    """Runs stage ``rec``: trains ``face_model.regressor`` in place.

    Args:
        face_model: a FaceModel whose regressor is trained in place.
        config: settings ``rec_*``, ``precision``, ``seed``, ``workers``, ``log_steps``.
        run: the run folder (``stats``, ``file``); a checkpoint in it is continued.
        packed: the packed photos (facegcn.photos.packed_photos); those of the train split take part.
        devices: to train on; the networks' variables are on them.

    Raises:
        UserError: a batch cannot be split evenly over the devices.
        TrainingStopped: a loss term is not finite.
        KeyboardInterrupt: Ctrl-C or SIGTERM; all is saved.
    """
    devices.check_batches(rec_batch_size=config.rec_batch_size, rec_photo_batch=config.rec_photo_batch)
    maker = PortraitMaker(face_model.morphable, size=config.regressor_pixels, seed=config.seed,
                          stream=Stream.REGRESSOR)
    with devices.scope():
        trainer = RegressorTrainer(face_model, config.precision)
        # The step with photos rasterizes, which XLA refuses; Keras would choose XLA where there is a GPU.
        trainer.compile(optimizer=Adam(learning_rate(config.rec_lr, config.rec_steps), clipnorm=config.clip_norm),
                        jit_compile=False)
        trainer.optimizer.build(trainer.regressor.trainable_variables)
    state = TrainingState(loss_scales=trainer.loss_scales)
    with devices.chief_first():
        checkpoints = Checkpoints(run.file("checkpoints", "regressor"), state, config.checkpoint_seconds,
                                  devices.chief, regressor=trainer.regressor, optimizer=trainer.optimizer)
        checkpoints.restore()
    devices.check_same("checkpoints", state.step)
    run.forget_stats("rec", state.step)
    portraits = ReusedPortraits(maker, config)
    with devices.stop_request() as trainer.stop, Progress("regressor", config.rec_steps, state.step) as bar:
        bad = StopOnNonFinite(state, lambda: _parts(portraits, config, packed, state.step), trainer.norms,
                              trainer.trained_variables() if config.skip_bad_batches else None)
        callbacks = [bad, StatsLog(run.stats, "rec", config.log_steps, state), ShowProgress(bar),
                     SaveCheckpoints(checkpoints, trainer.stop)]
        for start, end, data in _phases(portraits, config, packed, state.step):
            trainer.fit(devices.batches(data), steps_per_epoch=end - start, epochs=1, verbose=0, shuffle=False,
                        callbacks=callbacks)
    compute_in(face_model.regressor, "float32")  # as photos are encoded with it, now and by whoever finds its weights


def _phases(portraits, config, packed, done: int):
    """(first, last step, batches of a Share) of the portraits-only phase and of one with photos, from step ``done``."""
    def examples(share: Share, start: int, with_photos: bool):
        data = portraits.batches(config.img_size, start, share)
        if not with_photos:
            return data
        photos = _photos(config, packed, start, (packed.targets,), share)
        return tf.data.Dataset.zip(data, photos).map(lambda made, real: (*made, *real))

    alone = _steps_alone(config)
    for start, end in ((done, alone), (max(done, alone), config.rec_steps)):
        if start >= end:
            continue
        yield start, end, functools.partial(examples, start=start, with_photos=end > alone)


def _steps_alone(config) -> int:
    """Steps of made portraits only."""
    return int(config.rec_steps * config.rec_photo_after) if config.rec_photo_batch else config.rec_steps


def _photos(config, packed, step: int, arrays, share: Share = WHOLE) -> tf.data.Dataset:
    """Batches of photos, and of their rows of some arrays, from that of training step ``step`` on."""
    first = (step - _steps_alone(config)) * config.rec_photo_batch
    examples = packed.examples(packed.splits["train"], arrays, config.seed, first)
    return share.batches(examples, config.rec_photo_batch)


def _parts(portraits, config, packed, step: int) -> list[BatchPart]:
    """The batch of training step ``step``, with the names of its records."""
    rgb, coeff = next(portraits.batches(config.img_size, step).as_numpy_iterator())
    numbers = [portraits.portrait_of(step * config.rec_batch_size + place) for place in range(len(rgb))]
    parts = [BatchPart([f"made portrait {number}" for number in numbers], {"photo": rgb, "coefficients": coeff})]
    if step >= _steps_alone(config):
        rgba, names = next(_photos(config, packed, step, (name_rows(packed.names),)).as_numpy_iterator())
        parts.append(BatchPart(list(names), {"photo": rgba}))
    return parts
