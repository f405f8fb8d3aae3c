"""The published face-recognition networks for tests: their weights' names and shapes, and slow NumPy forward passes.

The forward passes are channels first and work on state dicts, so they share nothing with the Keras networks.
"""

import numpy as np

from facegcn.identity.recognizers import ARCHITECTURES

# name, output and input channels, kernel width: LightCNN-29's convolutions in order
LIGHT_CNN_CONVOLUTIONS = """
conv1 96 1 5
block1.0.conv1 96 48 3
block1.0.conv2 96 48 3
group1.conv_a 96 48 1
group1.conv 192 48 3
block2.0.conv1 192 96 3
block2.0.conv2 192 96 3
block2.1.conv1 192 96 3
block2.1.conv2 192 96 3
group2.conv_a 192 96 1
group2.conv 384 96 3
block3.0.conv1 384 192 3
block3.0.conv2 384 192 3
block3.1.conv1 384 192 3
block3.1.conv2 384 192 3
block3.2.conv1 384 192 3
block3.2.conv2 384 192 3
group3.conv_a 384 192 1
group3.conv 256 192 3
block4.0.conv1 256 128 3
block4.0.conv2 256 128 3
block4.1.conv1 256 128 3
block4.1.conv2 256 128 3
block4.2.conv1 256 128 3
block4.2.conv2 256 128 3
block4.3.conv1 256 128 3
block4.3.conv2 256 128 3
group4.conv_a 256 128 1
group4.conv 256 128 3
"""

#: Input width, output width and stride of IR-50's 24 units.
IR50_UNITS = ([(64, 64, 2)] + [(64, 64, 1)] * 2 + [(64, 128, 2)] + [(128, 128, 1)] * 3
              + [(128, 256, 2)] + [(256, 256, 1)] * 13 + [(256, 512, 2)] + [(512, 512, 1)] * 2)


def light_cnn_shapes(version):
    """Names and shapes of a LightCNN-29 checkpoint without its classifier."""
    shapes = {}
    for line in LIGHT_CNN_CONVOLUTIONS.split("\n")[1:-1]:
        name, after, before, kernel = line.split()
        shapes[f"{name}.filter.weight"] = (int(after), int(before), int(kernel), int(kernel))
        shapes[f"{name}.filter.bias"] = (int(after),)
    last, width = ("fc.filter", 512) if version == 1 else ("fc", 256)
    return {**shapes, f"{last}.weight": (width, 128 * 8 * 8), f"{last}.bias": (width,)}


def ir50_shapes():
    """Names and shapes of an IR-50 checkpoint, without the counters of its batch norms."""
    def norm(name, width):
        return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
    shapes = {"input_layer.0.weight": (64, 3, 3, 3), **norm("input_layer.1", 64), "input_layer.2.weight": (64,)}
    for number, (before, after, _) in enumerate(IR50_UNITS):
        unit = f"body.{number}"
        if before != after:
            shapes[f"{unit}.shortcut_layer.0.weight"] = (after, before, 1, 1)
            shapes.update(norm(f"{unit}.shortcut_layer.1", after))
        shapes.update(norm(f"{unit}.res_layer.0", before))
        shapes[f"{unit}.res_layer.1.weight"] = (after, before, 3, 3)
        shapes[f"{unit}.res_layer.2.weight"] = (after,)
        shapes[f"{unit}.res_layer.3.weight"] = (after, after, 3, 3)
        shapes.update(norm(f"{unit}.res_layer.4", after))
    return {**shapes, **norm("output_layer.0", 512), "output_layer.3.weight": (512, 512 * 7 * 7),
            "output_layer.3.bias": (512,), **norm("output_layer.4", 512)}


#: Of every published network, by the key of ``facegcn.identity.recognizers.ARCHITECTURES``.
SHAPES = {"light_cnn_29": light_cnn_shapes(1), "light_cnn_29_v2": light_cnn_shapes(2), "ir50": ir50_shapes()}


def random_inputs(name, rng, count=2):
    """Inputs (count, S, S, C) of a network."""
    architecture = ARCHITECTURES[name]
    return architecture.prepare(rng.random((count, architecture.size, architecture.size, 3), np.float32))


def random_weights(shapes, seed):
    """Random float32 weights that keep signals of about 1 through many layers; nothing is 0 or 1."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        if name.endswith("running_var"):
            value = rng.uniform(0.5, 2.0, shape)
        elif len(shape) > 1:
            value = rng.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("weight"):
            value = rng.uniform(-0.4, 0.8, shape)  # gains of batch norms and slopes of PReLUs
        else:
            value = rng.normal(0, 0.2, shape)
        weights[name] = value.astype(np.float32)
    return weights


# ---------------------------------------------------------------- building blocks, (C, H, W)
def convolve(x, weight, bias=None, stride=1):
    """Convolution with (k - 1) / 2 zeros on every side."""
    kernel = weight.shape[-1]
    padded = np.pad(x, ((0, 0), (kernel // 2,) * 2, (kernel // 2,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), axis=(1, 2))[:, ::stride, ::stride]
    y = np.tensordot(weight, windows, axes=((1, 2, 3), (0, 3, 4)))
    return y if bias is None else y + bias[:, None, None]


def mfm(x):
    """Largest of channel i and channel i + C."""
    return np.array([np.maximum(x[i], x[i + len(x) // 2]) for i in range(len(x) // 2)])


def pool(x, reduce, ceil):
    """2 x 2 windows reduced over their values; a window cut by an odd border counts with ``ceil``, else not."""
    rows, columns = ((size + ceil) // 2 * 2 for size in x.shape[1:])
    whole = np.full((len(x), rows, columns), np.nan, x.dtype)
    whole[:, :x.shape[1], :x.shape[2]] = x[:, :rows, :columns]
    return reduce([whole[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], axis=0)


def prelu(x, slope):
    """x where positive, slope x elsewhere; one slope a channel."""
    return np.where(x > 0, x, slope[:, None, None] * x)


def normalise(x, weights, name):
    """Batch norm by stored statistics, epsilon 1e-5; channels first."""
    gain, offset, mean, variance = (weights[f"{name}.{part}"].reshape(-1, *[1] * (x.ndim - 1))
                                    for part in ("weight", "bias", "running_mean", "running_var"))
    return (x - mean) / np.sqrt(variance + 1e-5) * gain + offset


def bottleneck(x, weights, name, stride):
    """A unit of IR-50."""
    y = normalise(x, weights, f"{name}.res_layer.0")
    y = prelu(convolve(y, weights[f"{name}.res_layer.1.weight"]), weights[f"{name}.res_layer.2.weight"])
    y = normalise(convolve(y, weights[f"{name}.res_layer.3.weight"], stride=stride), weights, f"{name}.res_layer.4")
    if f"{name}.shortcut_layer.0.weight" not in weights:
        return y + x[:, ::stride, ::stride]
    shortcut = convolve(x, weights[f"{name}.shortcut_layer.0.weight"], stride=stride)
    return y + normalise(shortcut, weights, f"{name}.shortcut_layer.1")


# ---------------------------------------------------------------- networks, one picture
def light_cnn_forward(weights, image, version):
    """Feature (256,) of a grey (128, 128) picture in [0, 1]."""
    def layer(x, name):
        return mfm(convolve(x, weights[f"{name}.filter.weight"], weights[f"{name}.filter.bias"]))

    def halve(x):
        largest = pool(x, np.nanmax, ceil=version == 1)
        return largest if version == 1 else largest + pool(x, np.mean, ceil=False)
    x = halve(layer(image[None], "conv1"))
    for number in (1, 2, 3, 4):
        for block in range(number):
            x = x + layer(layer(x, f"block{number}.{block}.conv1"), f"block{number}.{block}.conv2")
        x = layer(layer(x, f"group{number}.conv_a"), f"group{number}.conv")
        x = x if number == 3 else halve(x)
    if version == 2:
        return weights["fc.weight"] @ x.ravel() + weights["fc.bias"]
    return mfm(weights["fc.filter.weight"] @ x.ravel() + weights["fc.filter.bias"])


def ir50_forward(weights, image):
    """Feature (512,) of a (3, 112, 112) RGB picture in [-1, 1]."""
    x = convolve(image, weights["input_layer.0.weight"])
    x = prelu(normalise(x, weights, "input_layer.1"), weights["input_layer.2.weight"])
    for number, (_, _, stride) in enumerate(IR50_UNITS):
        x = bottleneck(x, weights, f"body.{number}", stride)
    x = normalise(x, weights, "output_layer.0").ravel()
    return normalise(weights["output_layer.3.weight"] @ x + weights["output_layer.3.bias"], weights, "output_layer.4")
