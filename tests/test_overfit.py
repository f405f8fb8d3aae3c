"""Learning is real: each network under each loss set learns one batch of four made portraits by heart.

The measure is the released code's plain pixel loss: absolute colour differences in [-1, 1], summed
over the channels, mean over the skin pixels that trained and that the face covers.
"""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from facegcn.config import Config
from facegcn.demo.face import make_demo_face
from facegcn.losses import LOSS_SETS, pixel_loss
from facegcn.portraits import looks
from facegcn.portraits.maker import PortraitMaker
from facegcn.training.optimizer import adam
from facegcn.training.texture_stage import TextureTrainer
from mesh_sampling import generate_transform_matrices
from model import FaceModel, build_texture_network

SIZE, EMBEDDING = 112, 32
#: Patches, stubble, make-up, a grey picture: what the coarse albedo explains worst among the first 160 portraits.
PORTRAITS = (141, 104, 147, 117)
RATE = 2e-3
#: Steps in which the albedo first comes near the coarse one, as in the schedule's first epoch, and
#: steps with the image losses at full weight. The residual head starts at the coarse albedo.
STEPS = {False: (40, 120), True: (0, 50)}
#: Greatest pixel loss at the end, by (loss set, residual head); the coarse face has COARSE. The
#: released set does not train the pixels themselves, and keeps the albedo symmetric.
LIMITS = {("released", False): 0.42, ("paper", False): 0.36, ("released", True): 0.34, ("paper", True): 0.26}
COARSE = 0.46


@pytest.fixture(scope="module")
def scene():
    """A small demo face, its hierarchy, and a batch: photos, true coefficients, a random embedding."""
    face = make_demo_face(2000)
    maker = PortraitMaker(face, SIZE, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looks.SHADOW, "chance", 0.0)  # a symmetric albedo cannot explain them
        portraits = [maker.make(index) for index in PORTRAITS]
    rgba = np.stack([portrait.rgba for portrait in portraits]) / np.array([127.5, 127.5, 127.5, 255.0])
    parts = (rgba - [1.0, 1.0, 1.0, 0.0], np.stack([portrait.coeff for portrait in portraits]),
             np.random.default_rng(0).normal(size=(len(portraits), EMBEDDING)))
    return SimpleNamespace(face=face, hierarchy=generate_transform_matrices(face.mean_shape, face.triangles),
                           batch=tuple(tf.constant(part, tf.float32) for part in parts))


def trainer_for(scene, kind, loss_set, residual):
    """A trainer with the released head, or with residual head, de-lit samples and depth test."""
    keras.utils.set_random_seed(0)  # the released head starts with its tanh saturated; some starts take much longer
    config = Config(model=kind, losses=loss_set, residual=residual, delit=residual, relight=False, nz=64, erosion=5,
                    img_size=SIZE, visibility="depth" if residual else "normal",
                    sampling="bilinear" if residual else "released")
    network = build_texture_network(kind, scene.hierarchy, EMBEDDING, nz=config.nz, residual=residual,
                                    refiner_channels=10 if residual else 7)
    model = FaceModel(scene.face, network, image_size=SIZE, visibility=config.visibility, delit=config.delit,
                      erosion=config.erosion, sampling=config.sampling)
    trainer = TextureTrainer(model, config)
    warm, steps = STEPS[residual]
    trainer.compile(optimizer=adam(keras.optimizers.schedules.ExponentialDecay(RATE, warm + steps, 0.2),
                                   config.clip_norm))
    trainer.optimizer.build(network.trainable_variables)
    return trainer


def pixel_losses(trainer, batch):
    """(coarse, fine) pixel loss of a batch, plain sum of absolute differences in either loss set."""
    outputs = trainer.face_model.reconstruct(*batch)
    mask = outputs["skin_mask"] * outputs["fine_render"][..., 3:]
    return tuple(float(pixel_loss(outputs[f"{kind}_render"], batch[0], mask)) for kind in ("coarse", "fine"))


@pytest.mark.parametrize("loss_set", LOSS_SETS)
@pytest.mark.parametrize("kind, residual", [("resnet", False), ("normal", False), ("resnet", True)])
def test_a_batch_is_learnt_by_heart(kind, residual, loss_set, scene):
    trainer = trainer_for(scene, kind, loss_set, residual)
    coarse, start = pixel_losses(trainer, scene.batch)
    assert coarse > COARSE
    assert start == pytest.approx(coarse, rel=1e-5) if residual else start > 2 * coarse
    step = tf.function(trainer.train_step)
    warm, steps = STEPS[residual]
    for render, refine, count in ((0.0, 1.0, warm), (1.0, 0.2, steps)):
        trainer.render_weight.assign(render)
        trainer.refine_weight.assign(refine)
        for _ in range(count):
            step(scene.batch)
    end = pixel_losses(trainer, scene.batch)[1]
    print(f"{kind} {loss_set} residual={residual}: coarse {coarse:.3f}, fine {start:.3f} -> {end:.3f}")
    assert end < LIMITS[loss_set, residual] < coarse
