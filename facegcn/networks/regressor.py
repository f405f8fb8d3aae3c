"""The regressor: a CNN from the aligned crop to morphable-model coefficients and pooled features.

In the paper it is a ResNet-50 with 257 outputs and a 2048-d pooled feature (Deng et al. 2019).
Output layers start at zero, so an untrained regressor gives the mean face.
"""

from __future__ import annotations

import hashlib

import keras
import numpy as np
from keras import layers

from facegcn.errors import BrokenFile, UserError
from facegcn.files import finite_as_float32, read_npz, write_npz
from facegcn.morphable import PART_SCALES, MorphableModel
from facegcn.networks.frozen import FrozenRegressor

_FLOAT16_ERROR = 2.0 ** -11  # float16 keeps eleven binary digits
_SMALL_WIDTHS = (24, 40, 64, 96, 160)


def build_regressor(kind: str, morphable: MorphableModel, image_size: int, inner_size: int,
                    frozen_file: str = "") -> keras.Model | FrozenRegressor:
    """RGB (B, image_size, image_size, 3) in [-1, 1] -> [coefficients (B, K), features (B, E)].

    Args:
        kind: ``resnet50`` (features 2048), ``small`` (a residual net for laptops, features 160), or
            ``frozen`` (the paper's network from its file, features 2048), which cannot be trained.
        morphable: gives the widths of the coefficient parts.
        image_size: width and height of the input, pixels; the frozen network takes any.
        inner_size: the CNN sees the image shrunk to this width by averaging; divides image_size.
        frozen_file: ``FaceReconModel.pb`` of the frozen kind.

    Returns:
        a Keras model, or a ``frozen.FrozenRegressor``, which is called alike.

    Raises:
        UserError: inner_size does not divide image_size, or the frozen network's file will not do.
        ValueError: unknown kind.
    """
    if kind == "frozen":
        return FrozenRegressor(frozen_file, morphable.coefficient_count)
    if image_size % inner_size:
        widths = [n for n in range(1, image_size + 1) if image_size % n == 0]
        width = min(widths, key=lambda n: abs(n - inner_size))
        raise UserError(f"regressor_pixels={inner_size} must divide img_size={image_size}: add --set "
                        f"regressor_pixels={width} (and --set regressor_start=, since starting weights go with one "
                        "width), in training and in tests alike")
    image = keras.Input((image_size, image_size, 3), name="rgb")
    shrunk = image
    if inner_size != image_size:
        shrunk = layers.AveragePooling2D(image_size // inner_size, name="shrink")(image)
    if kind == "resnet50":
        feature_map = _resnet50(inner_size)(shrunk)
        features = layers.GlobalAveragePooling2D(name="pool5")(feature_map)
        seen = layers.Concatenate(name="seen")([features, _where(feature_map)])
    elif kind == "small":
        seen = features = _small_backbone(shrunk)
    else:
        raise ValueError(f"unknown regressor '{kind}', expected 'small', 'resnet50' or 'frozen'")
    parts = [layers.Rescaling(scale, name=f"{name}_scale")(
                 layers.Dense(size, kernel_initializer="zeros", name=name)(seen))
             for (name, scale), size in zip(PART_SCALES.items(), morphable.part_sizes) if size]
    coefficients = layers.Concatenate(name="coefficients")(parts)
    return keras.Model(image, [coefficients, features], name=f"regressor_{kind}")


def _resnet50(size):
    """Keras's ResNet-50 without its top; each residual branch starts at zero (Goyal et al. 2017).

    So it starts as a shallow network, which learns much sooner from few pictures.
    """
    backbone = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(size, size, 3))
    for layer in backbone.layers:
        if layer.name.endswith("_3_bn"):
            layer.gamma.assign(keras.ops.zeros_like(layer.gamma))
    return backbone


def _where(feature_map):
    """512 features that keep where in the picture things are, which the average forgets.

    Ours: with them a ResNet-50 finds the pose after thousands of portraits rather than many
    tens of thousands.
    """
    x = layers.Conv2D(96, 1, use_bias=False, name="where_conv")(feature_map)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.95, name="where_norm1")(x))
    x = layers.Dense(512, use_bias=False, name="where")(layers.Flatten()(x))
    return layers.ReLU()(layers.BatchNormalization(momentum=0.95, name="where_norm2")(x))


def _small_backbone(image):
    """Residual network with five widths, stride 32, ending in the pooled features."""
    x = layers.Conv2D(_SMALL_WIDTHS[0], 5, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.95, name="stem_norm")(x))
    for level, width in enumerate(_SMALL_WIDTHS):
        for block in range(2 if level else 1):
            x = _residual_block(x, width, stride=2 if level and block == 0 else 1, name=f"block{level}{block}")
    x = layers.Flatten()(x)
    x = layers.Dense(_SMALL_WIDTHS[-1], use_bias=False, name="pooled")(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.95, name="pooled_norm")(x))


def _residual_block(x, width, stride, name):
    """Two 3x3 convolutions with batch norm around a shortcut (1x1 where the shape changes)."""
    shortcut = x
    if stride != 1 or x.shape[-1] != width:
        shortcut = layers.Conv2D(width, 1, strides=stride, use_bias=False, name=f"{name}_shortcut")(x)
    y = layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False, name=f"{name}_conv1")(x)
    y = layers.ReLU()(layers.BatchNormalization(momentum=0.95, name=f"{name}_norm1")(y))
    y = layers.Conv2D(width, 3, padding="same", use_bias=False, name=f"{name}_conv2")(y)
    y = layers.BatchNormalization(momentum=0.95, name=f"{name}_norm2")(y)
    return layers.ReLU()(layers.Add()([shortcut, y]))


def feature_count(regressor) -> int:
    """Width E of a regressor's features."""
    return regressor.feature_count if isinstance(regressor, FrozenRegressor) else regressor.output[1].shape[-1]


def says_anything(regressor) -> bool:
    """False for a regressor as it is built, whose coefficients are zero for every photo whatever its other weights."""
    return isinstance(regressor, FrozenRegressor) or any(
        np.any(weight.numpy()) for layer in regressor.layers if layer.name in PART_SCALES for weight in layer.weights)


def digest(regressor) -> str:
    """Sixteen hexadecimal digits that differ for regressors that say different things of a photo."""
    if isinstance(regressor, FrozenRegressor):
        return regressor.digest
    found = hashlib.sha256()
    for weight in regressor.weights:
        found.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return found.hexdigest()[:16]


def save_weights(network: keras.Model, path: str) -> None:
    """Writes the weights in an ``.npz``, whole or not at all; as float16: small enough to be kept in a repository.

    An array that float16 cannot hold (a value above 65,504 or so small that it would become 0) stays float32.

    Raises:
        UserError: a weight is not finite: the training has gone wrong.
        OSError: as ``files.written_whole``.
    """
    arrays = {weight.path: weight.numpy() for weight in network.weights}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{path} was not written: the weight {name} is not finite. Train again from the last whole "
                            "checkpoint or from nothing, with a lower rec_lr")
    write_npz(path, {name: _as_small(array) for name, array in arrays.items()})


def _as_small(array: np.ndarray) -> np.ndarray:
    """The array in float16 where that loses nothing beside its largest value; else as it is."""
    with np.errstate(over="ignore"):
        small = array.astype(np.float16)
    lost = np.abs(small - array).max(initial=0.0)  # infinite when a value is above 65,504
    return small if lost <= _FLOAT16_ERROR * np.abs(array).max(initial=0.0) else array


def load_weights(network: keras.Model, path: str) -> None:
    """Reads weights written by ``save_weights``; all or none are loaded.

    Raises:
        UserError: the file is absent, unreadable, or does not fit the network; names the first misfit.
    """
    cure = "for starting weights, set regressor_start to '' to train from nothing"
    try:
        arrays = read_npz(path)
    except FileNotFoundError as error:
        raise UserError(f"cannot read the regressor's weights {path}: there is no such file; {cure}") from error
    except BrokenFile as error:
        raise UserError(f"cannot read the regressor's weights {path}: it {error.reason}; {cure}") from error
    for weight in network.weights:
        if weight.path not in arrays or arrays[weight.path].shape != tuple(weight.shape):
            have = arrays[weight.path].shape if weight.path in arrays else "none"
            raise UserError(f"{path} does not fit this regressor: {weight.path} needs shape "
                            f"{tuple(weight.shape)}, the file has {have}; {cure}")
        if arrays[weight.path].dtype.kind != "f" or not finite_as_float32(arrays[weight.path]):
            raise UserError(f"{path} is damaged: {weight.path} is not finite; {cure}")
    for weight in network.weights:
        weight.assign(arrays[weight.path].astype(np.float32))
