"""Published PyTorch weights for our Keras networks: safe reading, checking, and our ``.npz`` files.

A network takes part when its layers are named like the modules of the PyTorch original
(``body.0.res_layer.1``). Reading checkpoints needs an optional package, PyTorch
(``pip install torch``) or safetensors (``pip install safetensors``); converted files need neither.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from facegcn.errors import BrokenFile, UserError
from facegcn.files import read_npz, write_npz

FORMAT = 1  # of the converted files
_SAFE_TORCH = (2, 6)  # the first whose weights_only runs nothing of a file (CVE-2025-32434)


class Slot(NamedTuple):
    """Where one PyTorch tensor belongs.

    Attributes:
        variable: of the Keras network.
        shape: of the PyTorch tensor.
        axes: its axes in Keras's order.
    """

    variable: object
    shape: tuple[int, ...]
    axes: tuple[int, ...]


def weight_slots(network: keras.Model) -> dict[str, Slot]:
    """The PyTorch name of every weight of a network and where it belongs.

    Convolution (out, in, h, w) and linear (out, in) kernels change their axes; biases, the four
    arrays of a batch norm and a PReLU's slope of each channel are vectors in both.
    """
    slots = {}
    for layer in network.layers:
        if isinstance(layer, (layers.Conv2D, layers.Dense)):
            shape = tuple(layer.kernel.shape)
            axes = (2, 3, 1, 0) if len(shape) == 4 else (1, 0)
            there = tuple(int(size) for _, size in sorted(zip(axes, shape)))
            slots[f"{layer.name}.weight"] = Slot(layer.kernel, there, axes)
            if layer.use_bias:
                slots[f"{layer.name}.bias"] = _vector(layer.bias)
        elif isinstance(layer, layers.BatchNormalization):
            for name, variable in (("weight", layer.gamma), ("bias", layer.beta),
                                   ("running_mean", layer.moving_mean), ("running_var", layer.moving_variance)):
                slots[f"{layer.name}.{name}"] = _vector(variable)
        elif isinstance(layer, layers.PReLU):
            slots[f"{layer.name}.weight"] = _vector(layer.alpha)
    return slots


def _vector(variable) -> Slot:
    return Slot(variable, (int(variable.shape[-1]),), (0,))


def fitting_arrays(network: keras.Model, arrays: Mapping[str, np.ndarray], path: str, title: str,
                   superfluous: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Those of a file's arrays that the network needs, float32, still in PyTorch's layout.

    Args:
        network: named like the PyTorch original.
        arrays: by PyTorch name.
        path, title: of the file and of the network, for messages.
        superfluous: ends of the names that are of no use here and are left out.

    Raises:
        UserError: arrays are missing, of the wrong shape, not numbers, or of a network that this is not;
            one message names all of them.
    """
    slots = weight_slots(network)
    if not slots.keys() & arrays.keys():
        some = ", ".join(list(arrays)[:3]) or "none at all"
        raise UserError(f"{path} is of another architecture than {title}: "
                        f"not one of its entries ({some} ...) belongs to it")
    shapes = {name: np.shape(arrays[name]) for name in slots if name in arrays}
    faults = {
        "missing": [name for name in slots if name not in arrays],
        "of the wrong shape": [f"{name} {shape} instead of {slots[name].shape}" for name, shape in shapes.items()
                               if shape != slots[name].shape],
        "not all finite numbers": [name for name in shapes if not _finite(arrays[name])],
        "unknown": [name for name in arrays if name not in slots and not name.endswith(superfluous)]}
    if any(faults.values()):
        text = "; ".join(f"{fault}: {', '.join(names)}" for fault, names in faults.items() if names)
        raise UserError(f"{path} does not fit {title}. {text[0].upper()}{text[1:]}")
    return {name: np.asarray(arrays[name], np.float32) for name in slots}


def _finite(array) -> bool:
    return np.issubdtype(array.dtype, np.floating) and bool(np.isfinite(array).all())


def assign_weights(network: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Puts arrays in PyTorch's layout (``fitting_arrays``) into the network."""
    for name, slot in weight_slots(network).items():
        slot.variable.assign(arrays[name].transpose(slot.axes).reshape(slot.variable.shape))


# ---------------------------------------------------------------- PyTorch's files
def read_state_dict(path: str) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch checkpoint or of a ``.safetensors`` file, by name; nothing in it is run.

    A wrapping ``{"state_dict": ...}`` is opened, the ``module.`` that DataParallel puts before names
    is taken off, floating-point tensors become float32.

    Raises:
        UserError: the file is absent or broken, holds more than tensors or something else than named
            tensors, or the optional package that reads it is not installed.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no weight file {path}")
    tensors = _read_safetensors(path) if path.endswith(".safetensors") else _read_torch(path)
    return {name.removeprefix("module."): array for name, array in tensors.items()}


def _read_safetensors(path):
    try:
        from safetensors.numpy import load_file
    except ImportError as error:
        raise UserError(f"reading {path} needs an optional package: pip install safetensors") from error
    try:
        tensors = load_file(path)
    except Exception as error:  # the package has its own kinds, and NumPy's for types it does not know
        raise UserError(f"{path} is not a readable .safetensors file: {error}") from error
    return {name: array.astype(np.float32) if np.issubdtype(array.dtype, np.floating) else array
            for name, array in tensors.items()}


def _read_torch(path):
    try:
        import torch
    except ImportError as error:
        raise UserError(f"reading {path} needs PyTorch, an optional package: pip install torch "
                        "(its CPU version will do; only the conversion needs it)") from error
    version = tuple(int(number) for number in re.findall(r"\d+", torch.__version__)[:2])
    if version < _SAFE_TORCH:
        needed = ".".join(map(str, _SAFE_TORCH))
        raise UserError(f"PyTorch {torch.__version__} can be made to run programs by the file that it reads; reading "
                        f"{path} needs {needed} or later: pip install 'torch>={needed}'; or save the checkpoint's "
                        "state dict as .safetensors where you trust it")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is no PyTorch checkpoint of tensors alone. Other pickles are not opened, for they "
                        "can run programs; save its state dict as .safetensors where you trust it") from error
    except Exception as error:  # a broken archive shows itself in many ways
        raise UserError(f"{path} is not a readable PyTorch checkpoint, download it again: "
                        f"{type(error).__name__} {error}") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path} holds no state dict: expected names with tensors, or that under 'state_dict'")
    return {name: (value.float() if value.is_floating_point() else value).detach().numpy()
            for name, value in content.items()}


# ---------------------------------------------------------------- our files
def save_converted(path: str, architecture: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes float32 arrays under their PyTorch names, ``architecture`` and ``format``, as an ``.npz``, whole.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        write_npz(path, {"architecture": np.array(architecture), "format": np.int32(FORMAT), **arrays},
                  compressed=False)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def load_converted(path: str) -> tuple[str, dict[str, np.ndarray]]:
    """Architecture and arrays of a file that ``save_converted`` wrote; never unpickles.

    Raises:
        UserError: absent, or not such a file.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no weight file {path}")
    try:
        arrays = read_npz(path)
        architecture, version = str(arrays.pop("architecture")), int(arrays.pop("format"))
    except (BrokenFile, KeyError, ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path} is not a converted weight file") from error
    if version != FORMAT:
        raise UserError(f"{path} has format {version}, this version reads {FORMAT}; convert it anew")
    return architecture, arrays
