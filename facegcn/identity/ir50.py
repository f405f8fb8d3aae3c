"""face.evoLVe IR-50, the second of the two networks the paper measures identity with.

An "improved residual" ResNet-50 (J. Deng et al., "ArcFace", CVPR 2019). The layer table and the
names of the weights are those of github.com/ZhaoJ9014/face.evoLVe (backbone ``IR_50``, input 112),
where each of our layers has the same name.
"""

from __future__ import annotations

import keras
from keras import layers

INPUT_SIZE = 112  # pixels, RGB
EMBEDDING_SIZE = 512
_STAGES = ((3, 64), (4, 128), (14, 256), (3, 512))  # residual units and their width
_EPSILON = 1e-5  # PyTorch's batch norm


def build_ir50() -> keras.Model:
    """Keras model: RGB (B, 112, 112, 3) in [-1, 1] -> identity feature (B, 512), not normalised.

    Four stages of residual units, each stage halving the picture; batch norms use their stored
    statistics when the model is called with ``training=False``.
    """
    image = keras.Input((INPUT_SIZE, INPUT_SIZE, 3), name="rgb")
    x = _convolution(image, 64, 3, 1, "input_layer.0")
    x = _prelu(_norm(x, "input_layer.1"), "input_layer.2")
    number = 0
    for units, width in _STAGES:
        for unit in range(units):
            x = residual_unit(x, width, 1 if unit else 2, f"body.{number}")
            number += 1
    x = _norm(x, "output_layer.0")
    # PyTorch flattens channel by channel, Keras pixel by pixel.
    x = layers.Flatten(name="output_layer.2")(layers.Permute((3, 1, 2), name="channels_first")(x))
    x = layers.Dense(EMBEDDING_SIZE, name="output_layer.3")(x)
    return keras.Model(image, _norm(x, "output_layer.4"), name="ir50")


def residual_unit(x, width, stride, name):
    """Norm, convolution, PReLU, strided convolution, norm; added to the picture or its projection."""
    if x.shape[-1] == width:
        shortcut = layers.MaxPooling2D(1, strides=stride, name=f"{name}.shortcut_layer")(x) if stride > 1 else x
    else:
        shortcut = _convolution(x, width, 1, stride, f"{name}.shortcut_layer.0")
        shortcut = _norm(shortcut, f"{name}.shortcut_layer.1")
    y = _convolution(_norm(x, f"{name}.res_layer.0"), width, 3, 1, f"{name}.res_layer.1")
    y = _convolution(_prelu(y, f"{name}.res_layer.2"), width, 3, stride, f"{name}.res_layer.3")
    return layers.Add(name=name)([_norm(y, f"{name}.res_layer.4"), shortcut])


def _convolution(x, width, kernel, stride, name):
    if kernel > 1:
        # PyTorch pads both sides alike; Keras's 'same' pads a strided convolution on one side only.
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}.padding")(x)
    return layers.Conv2D(width, kernel, strides=stride, use_bias=False, name=name)(x)


def _norm(x, name):
    return layers.BatchNormalization(epsilon=_EPSILON, name=name)(x)


def _prelu(x, name):
    return layers.PReLU(shared_axes=[1, 2], name=name)(x)
