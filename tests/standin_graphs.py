"""Small frozen TF1 graphs with the tensors of the paper's networks, for tests.

Random smooth networks: their coefficients are near zero, so faces are near the mean face and look
ahead. The layers are TF1's own: binary GraphDefs with constants, and in FaceNet batch
normalisation that a boolean placeholder switches (``Switch`` / ``Merge``), as slim built it.
"""

import os

import numpy as np
import tensorflow as tf

POSE_AND_LIGHT = {"angles": (3, 0.05), "gamma": (27, 0.1), "translation": (3, 0.05)}
_SHAPE_SIZE = 0.3  # largest coefficient of identity, expression and albedo, standard deviations
REGRESSOR_WIDTH, FACENET_WIDTH = 2048, 1792


def write_standin_graphs(folder: str, coefficient_count: int = 257, image_size: int = 224, seed: int = 0) -> None:
    """Writes ``FaceReconModel.pb`` and ``FaceNetModel.pb`` into a folder, which is made when absent.

    Args:
        folder: where to.
        coefficient_count: of the morphable model; the last 33 are pose and light.
        image_size: input width of FaceReconModel.pb; the real one takes 224 pixels.
        seed: of the random weights.
    """
    os.makedirs(folder, exist_ok=True)
    for name, graph_def in (("FaceReconModel.pb", regressor_graph(coefficient_count, image_size, seed)),
                            ("FaceNetModel.pb", facenet_graph(seed))):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(graph_def.SerializeToString())


def regressor_graph(coefficient_count: int = 257, image_size: int = 224, seed: int = 0, batch: int | None = None):
    """GraphDef of a regressor: BGR levels ``input_imgs`` -> ``coeff``, ``resnet_v1_50/pool5``."""
    rng = np.random.default_rng(seed)
    with tf.Graph().as_default() as graph:
        levels = tf.compat.v1.placeholder(tf.float32, (batch, image_size, image_size, 3), "input_imgs")
        x = (levels - tf.constant([104.0, 117.0, 124.0], name="resnet_v1_50/mean_rgb")) / 64.0
        x = _features(rng, x, REGRESSOR_WIDTH, "resnet_v1_50")
        pooled = tf.reduce_mean(x, axis=[1, 2], keepdims=True, name="resnet_v1_50/pool5")
        shapes = coefficient_count - sum(count for count, _ in POSE_AND_LIGHT.values())
        scale = np.concatenate([np.full(shapes, _SHAPE_SIZE)] + [np.full(*part) for part in POSE_AND_LIGHT.values()])
        kernel = rng.normal(size=(REGRESSOR_WIDTH, coefficient_count), scale=REGRESSOR_WIDTH ** -0.5)
        flat = tf.reshape(pooled, (-1, REGRESSOR_WIDTH))
        tf.multiply(tf.tanh(flat @ tf.constant(kernel, tf.float32)), tf.constant(scale, tf.float32), name="coeff")
    return graph.as_graph_def()


def facenet_graph(seed: int = 0, with_default: bool = False):
    """GraphDef of a recognition network: ``input``, ``phase_train`` -> InceptionResnetV1's pooled features."""
    rng = np.random.default_rng(seed + 1)
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, (None, 160, 160, 3), "input")
        if with_default:
            phase = tf.compat.v1.placeholder_with_default(True, (), "phase_train")
        else:
            phase = tf.compat.v1.placeholder(tf.bool, (), "phase_train")
        x = _switched_norm(rng, image, phase, "InceptionResnetV1/Conv2d_1a_3x3/BatchNorm")
        x = _features(rng, x, FACENET_WIDTH, "InceptionResnetV1")
        tf.nn.avg_pool2d(x, [1, 5, 5, 1], 1, "VALID", name="InceptionResnetV1/Logits/AvgPool_1a_8x8/AvgPool")
    return graph.as_graph_def()


def _features(rng, x, width, scope):
    """(B, S, S, 3) -> (B, S/32, S/32, width) in (-1, 1): two strided convolutions, averaging, one 1x1 convolution."""
    for i, (size, stride, channels) in enumerate(((5, 4, 12), (3, 2, 24))):
        kernel = rng.normal(size=(size, size, x.shape[-1], channels), scale=(size * size * x.shape[-1]) ** -0.5)
        x = tf.nn.elu(tf.nn.conv2d(x, tf.constant(kernel, tf.float32), stride, "SAME"), name=f"{scope}/conv{i}/Elu")
    x = tf.nn.avg_pool2d(x, 4, 4, "SAME")
    kernel = rng.normal(size=(1, 1, 24, width), scale=1.5 * 24 ** -0.5)
    bias = rng.normal(size=width, scale=0.3)
    return tf.tanh(tf.nn.conv2d(x, tf.constant(kernel, tf.float32), 1, "SAME") + tf.constant(bias, tf.float32))


def _switched_norm(rng, x, phase, scope):
    """Batch normalisation whose statistics a boolean chooses: the batch's own (true) or the stored (false)."""
    mean = tf.constant(rng.normal(size=3, scale=0.1), tf.float32, name=f"{scope}/moving_mean")
    variance = tf.constant(rng.uniform(0.3, 0.6, 3), tf.float32, name=f"{scope}/moving_variance")
    beta = tf.constant(rng.normal(size=3, scale=0.1), tf.float32, name=f"{scope}/beta")
    stored, _ = tf.raw_ops.Switch(data=x, pred=phase, name=f"{scope}/cond/Switch")
    _, batch = tf.raw_ops.Switch(data=x, pred=phase, name=f"{scope}/cond/Switch_1")
    moments = tf.nn.moments(batch, axes=[0, 1, 2])
    branches = [tf.nn.batch_normalization(stored, mean, variance, beta, None, 1e-3),
                tf.nn.batch_normalization(batch, *moments, beta, None, 1e-3)]
    merged = tf.raw_ops.Merge(inputs=branches, name=f"{scope}/cond/Merge").output
    merged.set_shape(x.shape)
    return merged
