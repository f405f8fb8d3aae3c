"""A small world whose two stages take a training step in a moment."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from facegcn.config import Config
from facegcn.photos.packed_file import write_bin
from facegcn.photos.packed_photos import PackedPhotos
from facegcn.portraits.maker import PortraitMaker
from facegcn.training.encoding import Encoding
from model import build_face_model
from tests.faces import half_ellipsoid

SIZE = 64
SETTINGS = {"img_size": SIZE, "regressor_pixels": 32, "rec_steps": 2, "rec_batch_size": 2, "rec_photo_batch": 1,
            "epoch": 1, "batch_size": 2, "render_start": 1.0, "drop_rate": 0.3, "critic_steps": 1, "log_steps": 1,
            "seed": 4}


def small_world(folder):
    """(config, morphable model, packed photos, encoding, batch of a texture step)."""
    config = dataclasses.replace(Config(), root_dir=str(folder), runs_dir=str(folder / "runs"), **SETTINGS)
    morphable = half_ellipsoid(25, 31)
    portraits = [PortraitMaker(morphable, SIZE, seed=1).make(number) for number in range(4)]
    path = str(folder / "faces.bin")
    write_bin(path, list("abcd"), [portrait.rgba for portrait in portraits])
    targets = np.full((4, 73, 2), np.nan, np.float32)
    targets[:, :68] = [portrait.landmarks for portrait in portraits]
    splits = {"train": np.arange(4), "val": np.arange(0), "test": np.arange(0)}
    packed = PackedPhotos(path, list("abcd"), splits, targets)
    coeff = np.stack([portrait.coeff for portrait in portraits])
    features = np.random.default_rng(0).normal(size=(4, 160)).astype(np.float32)
    batch = tuple(tf.constant(part[:2]) for part in (packed.photos(range(4)), coeff, features))
    return config, morphable, packed, Encoding(coeff, features), batch


def face_model(world, **settings):
    """The untrained FaceModel of such a world, the same at every call."""
    keras.utils.set_random_seed(0)
    return build_face_model(dataclasses.replace(world[0], **settings), world[1])
