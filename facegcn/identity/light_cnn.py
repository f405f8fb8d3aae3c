"""LightCNN-29, the first of the two networks the paper measures identity with.

X. Wu, R. He, Z. Sun, T. Tan, "A Light CNN for Deep Face Representation with Noisy Labels", IEEE
TIFS 13(11), 2018. The layer table and the names of the weights are those of the authors' PyTorch
version (github.com/AlfredXiangWu/LightCNN), where each of our layers has the same name.
"""

from __future__ import annotations

import keras
from keras import layers

INPUT_SIZE = 128  # pixels, one grey channel
EMBEDDING_SIZE = 256
_FIRST_WIDTH = 48
#: Residual blocks, their width, the width that the stage's group ends with, and whether a pool follows.
_STAGES = ((1, 48, 96, True), (2, 96, 192, True), (3, 192, 128, False), (4, 128, 128, True))


def build_light_cnn(version: int) -> keras.Model:
    """Keras model: grey (B, 128, 128, 1) in [0, 1] -> identity feature (B, 256).

    Convolution and max-feature-map, 29 convolutional layers, four poolings by two. The classifier
    behind the feature (``fc2``) and its dropout are left out.

    Args:
        version: 1 (max pooling; the feature is a max-feature-map of 512) or 2 (max plus average
            pooling; the feature is linear).

    Raises:
        ValueError: another version.
    """
    if version not in (1, 2):
        raise ValueError(f"LightCNN-29 has versions 1 and 2, got {version!r}")
    pool = ceil_max_pool if version == 1 else max_and_mean_pool
    image = keras.Input((INPUT_SIZE, INPUT_SIZE, 1), name="grey")
    x = pool(_mfm_convolution(image, _FIRST_WIDTH, 5, "conv1"))
    for number, (blocks, width, width_after, pooled) in enumerate(_STAGES, start=1):
        for block in range(blocks):
            name = f"block{number}.{block}"
            inner = _mfm_convolution(x, width, 3, f"{name}.conv1")
            x = layers.Add(name=name)([x, _mfm_convolution(inner, width, 3, f"{name}.conv2")])
        x = _mfm_convolution(x, width, 1, f"group{number}.conv_a")
        x = _mfm_convolution(x, width_after, 3, f"group{number}.conv")
        x = pool(x) if pooled else x
    # PyTorch flattens channel by channel, Keras pixel by pixel.
    x = layers.Flatten(name="flat")(layers.Permute((3, 1, 2), name="channels_first")(x))
    if version == 1:
        x = max_feature_map(layers.Dense(2 * EMBEDDING_SIZE, name="fc.filter")(x))
    else:
        x = layers.Dense(EMBEDDING_SIZE, name="fc")(x)
    return keras.Model(image, x, name=f"light_cnn_29_v{version}")


def max_feature_map(x):
    """The larger of the first and the second half of the channels: (..., 2C) -> (..., C)."""
    half = x.shape[-1] // 2
    return keras.ops.maximum(x[..., :half], x[..., half:])


def _mfm_convolution(x, width, kernel, name):
    return max_feature_map(layers.Conv2D(2 * width, kernel, padding="same", name=f"{name}.filter")(x))


def ceil_max_pool(x):
    """Largest of each 2 x 2 window; a window cut by an odd border counts, as with PyTorch's ``ceil_mode``."""
    return layers.MaxPooling2D(2, padding="same")(x)


def max_and_mean_pool(x):
    """Largest plus mean of each whole 2 x 2 window."""
    return layers.Add()([layers.MaxPooling2D(2)(x), layers.AveragePooling2D(2)(x)])
