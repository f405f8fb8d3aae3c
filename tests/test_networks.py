"""Texture networks, critic, and carrying weights over from the released code."""

import keras
import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf

from mesh_sampling import MeshHierarchy, generate_transform_matrices
from model import build_critic, build_texture_network, load_released_weights, released_names
from tests.test_mesh_sampling import bumpy

EMBEDDING = 12


@pytest.fixture(scope="module")
def hierarchy() -> MeshHierarchy:
    return generate_transform_matrices(*bumpy(np.random.default_rng(0), 34, 33))


def inputs(hierarchy, count=2, channels=7, seed=0):
    rng = np.random.default_rng(seed)
    known = rng.uniform(-0.8, 0.8, (count, hierarchy.sizes[0], channels)).astype(np.float32)
    visible = rng.integers(0, 2, (*known.shape[:2], 1))
    known[..., 3:6] *= visible
    known[..., 6:7] = visible
    known[..., 7:] *= visible
    return rng.normal(size=(count, EMBEDDING)).astype(np.float32), known


class DenseNetwork:
    """The layers of paper_spec.md in NumPy, one mesh at a time, weights by TF1 name."""

    def __init__(self, hierarchy, weights):
        self.h, self.w = hierarchy, {name.removeprefix("mesh_generator/"): w for name, w in weights.items()}

    def conv(self, x, scope, level, bias=None):
        shifted = self.h.laplacians[level] - sp.identity(len(x))
        terms = [x, shifted @ x]
        for _ in range(2, 6):
            terms.append(2.0 * (shifted @ terms[-1]) - terms[-2])
        stacked = np.stack(terms, axis=2).reshape(len(x), -1)  # column f * 6 + k
        y = stacked @ self.w[f"{scope}/weights"]
        return y if bias is None else self.elu(y + self.w[f"{bias}/bias"])

    @staticmethod
    def elu(x):
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))

    def dense(self, x, scope):
        return np.maximum(x.ravel() @ self.w[f"{scope}/weights"] + self.w[f"{scope}/bias"], 0)

    def block(self, x, scope, level):
        y = self.conv(x, f"{scope}/filter1", level, f"{scope}/bias_relu1")
        y = self.conv(y, f"{scope}/filter2", level)
        if f"{scope}/shortcut/weights" in self.w:
            x = x @ self.w[f"{scope}/shortcut/weights"]
        return self.elu(x + y + self.w[f"{scope}/bias_relu2/bias"])

    def resnet(self, embedding, known):
        x = self.dense(embedding, "mesh_decoder/fc").reshape(self.h.sizes[4], -1)
        for i in range(4):
            x = self.block(self.h.upsamples[3 - i] @ x, f"mesh_decoder/resblock{i + 1}", 3 - i)
        y = self.block(known, "mesh_refiner/resblock1", 0)
        y = self.block(self.h.downsamples[0] @ y, "mesh_refiner/resblock2", 1)
        y = self.block(y, "mesh_refiner/resblock3", 1)
        y = self.block(self.h.upsamples[0] @ y, "mesh_refiner/resblock4", 0)
        y = self.block(y, "mesh_refiner/resblock5", 0)
        return np.tanh(self.conv(np.concatenate([x, y], axis=1), "mesh_concat", 0))

    def normal(self, embedding, known):
        x = self.dense(embedding, "mesh_decoder/fc").reshape(self.h.sizes[4], -1)
        for i in range(4):
            scope = f"mesh_decoder/upconv{i + 1}"
            x = self.conv(self.h.upsamples[3 - i] @ x, scope, 3 - i, scope)
        x = self.conv(x, "mesh_decoder", 0, "mesh_decoder")
        y, skips = self.conv(known, "mesh_refiner/graph_conv0", 0), {}
        for i in range(1, 5):
            scope = f"mesh_refiner/graph_conv{i}"
            y = skips[i] = self.conv(self.h.downsamples[i - 1] @ y, scope, i, scope)
        y = self.dense(self.dense(y, "mesh_refiner/fc"), "mesh_refiner/fc2").reshape(self.h.sizes[4], -1)
        for i, level in zip(range(5, 9), (3, 2, 1, 0)):
            y = self.h.upsamples[level] @ y
            if level >= 2:
                y = np.concatenate([y, skips[level]], axis=1)
            y = self.conv(y, f"mesh_refiner/graph_conv{i}", level, f"mesh_refiner/graph_conv{i}")
        y = self.conv(y, "mesh_refiner", 0, "mesh_refiner")
        return np.tanh(self.conv(np.concatenate([x, y], axis=1), "mesh_concat", 0))


@pytest.mark.parametrize("kind, wide", [("resnet", False), ("resnet", True), ("normal", False),
                                        ("normal", True)])
def test_networks_equal_the_specification(kind, wide, hierarchy):
    """Random weights are carried over by their TF1 names into network and oracle alike."""
    network = build_texture_network(kind, hierarchy, EMBEDDING, wide=wide, nz=20)
    rng = np.random.default_rng(1)
    weights = {name: rng.normal(size=v.shape, scale=0.7 / np.sqrt(v.shape[0])).astype(np.float32)
               for name, v in released_names(network).items()}
    load_released_weights(network, {f"{name}:0": w.reshape(1, 1, -1) if "conv" in name and w.ndim == 1 else w
                                    for name, w in weights.items()})
    embedding, known = inputs(hierarchy, 1)
    expected = getattr(DenseNetwork(hierarchy, weights), kind)(embedding[0], known[0])
    np.testing.assert_allclose(network([embedding, known])[0], expected, atol=3e-4)


@pytest.mark.parametrize("kind, wide, widths", [
    ("resnet", False, [16, 16, 16, 3]), ("resnet", True, [64, 128, 256, 3]),
    ("normal", False, [16, 16, 16, 16]), ("normal", True, [32, 64, 128, 256])])
def test_decoder_widths(kind, wide, widths, hierarchy):
    network = build_texture_network(kind, hierarchy, EMBEDDING, wide=wide)
    name = {"resnet": "mesh_decoder.resblock{}.filter1", "normal": "mesh_decoder.upconv{}"}[kind]
    assert [network.get_layer(name.format(i)).filters for i in range(1, 5)] == widths
    assert network.get_layer("mesh_decoder.fc").units == 32 * hierarchy.sizes[4]


def test_regularisation_is_that_of_the_dense_layers(hierarchy):
    network = build_texture_network("normal", hierarchy, EMBEDDING, nz=20)
    dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    assert len(dense) == 3
    for layer in dense:
        layer.bias.assign(layer.bias + 0.5)
    expected = 5e-4 * sum(float(np.sum(np.square(v)) / 2) for layer in dense for v in layer.get_weights())
    np.testing.assert_allclose(float(sum(network.losses)), expected, rtol=1e-5)


def test_hidden_vertices_can_take_their_mirror_s_colour_in_one_linear_step(hierarchy):
    network = build_texture_network("resnet", hierarchy, EMBEDDING, residual=True, refiner_channels=14)
    embedding, known = inputs(hierarchy, channels=14)
    coarse, visible, mirrored_visible = known[..., :3], known[..., 6:7], np.float32(known[..., 13:] > 0)
    known = np.concatenate([known[..., :10], known[..., 10:13] * mirrored_visible, mirrored_visible], axis=-1)
    kernel = network.get_layer("mesh_concat").kernel
    copying = np.zeros(kernel.shape, np.float32)
    for channel in range(3):
        copying[(12 + channel) * 6, channel] = 1.0  # T_0 of the last group of features
    kernel.assign(copying)
    target = np.where((visible == 0) & (mirrored_visible == 1), known[..., 10:13], coarse)
    np.testing.assert_allclose(network([embedding, known]), target, atol=1e-6)


@pytest.mark.parametrize("channels", [7, 10, 14])
def test_a_colour_that_is_half_trusted_is_copied_by_half(hierarchy, channels, rng):
    """What is seen comes times the trust in it; the same linear step then blends it with the coarse albedo."""
    network = build_texture_network("resnet", hierarchy, EMBEDDING, residual=True, refiner_channels=channels)
    embedding, known = inputs(hierarchy, channels=channels)
    coarse, (seen, mirrored) = known[..., :3], rng.uniform(-0.8, 0.8, (2, *known[..., :3].shape))
    trust, mirrored_trust = rng.random((2, *known.shape[:2], 1))
    places = [(6, slice(7, 10) if channels > 7 else slice(3, 6), seen, trust, 6, trust)]
    if channels == 14:
        places.append((12, slice(10, 13), mirrored, mirrored_trust, 13, (1 - trust) * mirrored_trust))
    kernel = network.get_layer("mesh_concat").kernel
    copying, wanted = np.zeros(kernel.shape, np.float32), coarse
    for group, columns, colors, weight, place, share in places:
        known[..., columns], known[..., place] = colors * weight, weight[..., 0]
        copying[(group + np.arange(3)) * 6, np.arange(3)] = 1.0
        wanted = wanted + share * (colors - coarse)
    kernel.assign(copying)
    np.testing.assert_allclose(network([embedding, known]), np.clip(wanted, -1, 1), atol=1e-5)


@pytest.mark.parametrize("channels", [13, 17])
def test_residual_head_starts_at_the_completed_albedo(channels, hierarchy, rng):
    network = build_texture_network("resnet", hierarchy, EMBEDDING, residual=True, refiner_channels=channels)
    embedding, known = inputs(hierarchy, channels=channels)
    known[..., -3:] = completed = rng.uniform(-0.9, 0.9, known[..., -3:].shape)
    np.testing.assert_allclose(network([embedding, known]), completed, atol=1e-6)
    kernel = network.get_layer("mesh_concat").kernel
    back = np.zeros(kernel.shape, np.float32)
    back[(12 + np.arange(3)) * 6, np.arange(3)] = -1.0  # what was completed, taken back in one linear step
    kernel.assign(back)
    np.testing.assert_allclose(network([embedding, known]), known[..., :3], atol=1e-5)


@pytest.mark.parametrize("kind, channels", [("resnet", 10), ("normal", 7), ("resnet", 14)])
def test_residual_head_starts_at_the_coarse_albedo_and_learns(kind, channels, hierarchy):
    keras.utils.set_random_seed(0)
    network = build_texture_network(kind, hierarchy, EMBEDDING, nz=20, residual=True,
                                    refiner_channels=channels)
    embedding, known = inputs(hierarchy, channels=channels)
    coarse, visible = known[..., :3], known[..., 6:7]
    np.testing.assert_array_equal(network([embedding, known]), coarse)
    seen = known[..., 3:6] if channels == 7 else known[..., 7:10]
    target = coarse + visible * (seen - coarse)  # what was seen, where it was seen
    kernel = network.get_layer("mesh_concat").kernel
    copying = np.zeros(kernel.shape, np.float32)
    for channel in range(3):
        copying[(6 + channel) * 6, channel] = 1.0  # T_0 of the third group of features
    kernel.assign(copying)
    np.testing.assert_allclose(network([embedding, known]), target, atol=1e-6)
    kernel.assign(np.zeros(kernel.shape))
    optimizer = keras.optimizers.Adam(0.003)
    optimizer.build(network.trainable_variables)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(network([embedding, known]) - target))
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables))
        return loss, gradients

    first, _ = step()
    _, gradients = step()  # the correction is no longer zero, so all layers learn
    assert all(np.abs(g).max() > 0 for g, v in zip(gradients, network.trainable_variables)
               if v.name == "kernel")
    for _ in range(20):
        last, _ = step()
    assert last < 0.7 * first


def test_batch_equals_single_faces(hierarchy):
    network = build_texture_network("normal", hierarchy, EMBEDDING, nz=20)
    embedding, known = inputs(hierarchy, 3)
    singles = [network([embedding[i:i + 1], known[i:i + 1]]) for i in range(3)]
    np.testing.assert_allclose(network([embedding, known]), np.concatenate(singles), atol=1e-5)


def test_weights_survive_a_file(hierarchy, tmp_path):
    first, second = (build_texture_network("resnet", hierarchy, EMBEDDING) for _ in range(2))
    embedding, known = inputs(hierarchy, 1)
    assert np.abs(first([embedding, known]) - second([embedding, known])).max() > 1e-3
    first.save_weights(str(tmp_path / "texture.weights.h5"))
    second.load_weights(str(tmp_path / "texture.weights.h5"))
    np.testing.assert_array_equal(first([embedding, known]), second([embedding, known]))


@pytest.mark.parametrize("change, message", [
    (dict(kind="unet"), "kind must be"), (dict(refiner_channels=8), "7, 10, 13, 14 or 17, got 8"),
    (dict(embedding_dim=0), "embedding_dim=0"), (dict(nz=0), "nz=0")])
def test_builder_refuses(change, message, hierarchy):
    with pytest.raises(ValueError, match=message):
        build_texture_network(**{"kind": "normal", "hierarchy": hierarchy, "embedding_dim": 3, **change})


def test_builder_needs_four_levels(hierarchy):
    shallow = MeshHierarchy(*(part[:-1] for part in hierarchy))
    with pytest.raises(ValueError, match="4 levels below the template, got 3"):
        build_texture_network("resnet", shallow, EMBEDDING)


def test_released_weights_that_do_not_fit_are_all_named(hierarchy):
    network = build_texture_network("resnet", hierarchy, EMBEDDING)
    arrays = {name: np.ones(v.shape) for name, v in released_names(network).items()}
    before = network.get_weights()
    del arrays["mesh_generator/mesh_decoder/resblock2/bias_relu1/bias"]
    arrays["mesh_generator/mesh_concat/weights"] = np.ones((36, 4))
    with pytest.raises(ValueError) as caught:
        load_released_weights(network, arrays)
    assert "mesh_decoder/resblock2/bias_relu1/bias is missing" in str(caught.value)
    assert "mesh_concat/weights has shape (36, 4), expected (36, 3)" in str(caught.value)
    for old, new in zip(before, network.get_weights()):
        np.testing.assert_array_equal(old, new)


def test_names_of_the_reference_case(released_case, hierarchy):
    expected = {name[2:-2] for name in released_case if name.startswith("w/")}
    assert set(released_names(build_texture_network("resnet", hierarchy, EMBEDDING))) == expected


def test_critic_layers_and_carry_over():
    critic = build_critic(64)
    rng = np.random.default_rng(0)
    arrays = {}
    for i, (before, after) in enumerate(zip((3, 16, 32, 64, 128, 256), (16, 32, 64, 128, 256, 512)), 1):
        size = 1 if i == 1 else 3
        scope = f"image_disc/conv{i}_1"
        arrays[f"{scope}/weights:0"] = rng.normal(size=(size, size, before, after)) * 0.1
        arrays[f"{scope}/bias:0"] = rng.normal(size=after)
        arrays[f"{scope}/BatchNorm/beta:0"] = rng.normal(size=after)
        arrays[f"{scope}/BatchNorm/moving_mean:0"] = rng.normal(size=after)
        arrays[f"{scope}/BatchNorm/moving_variance:0"] = rng.uniform(0.5, 2, after)
    arrays["image_disc/outputs/weights:0"] = rng.normal(size=(2, 2, 512, 1)) * 0.1
    arrays["image_disc/outputs/bias:0"] = rng.normal(size=1)
    load_released_weights(critic, arrays)
    x = tf.constant(rng.uniform(-1, 1, (2, 64, 64, 3)), tf.float32)
    score = critic(x)
    for i in range(1, 7):
        scope = f"image_disc/conv{i}_1"
        if i > 1:
            x = tf.nn.max_pool2d(x, 2, 2, "SAME")
        x = tf.nn.conv2d(x, tf.cast(arrays[f"{scope}/weights:0"], tf.float32), 1, "SAME")
        mean, variance, beta = (arrays[f"{scope}/BatchNorm/{n}:0"] for n in
                                ("moving_mean", "moving_variance", "beta"))
        x = (x + arrays[f"{scope}/bias:0"] - mean) / np.sqrt(variance + 0.001) + beta
        x = tf.maximum(x, 0.2 * x)
    expected = np.sum(x * arrays["image_disc/outputs/weights:0"][..., 0], axis=(1, 2, 3))
    np.testing.assert_allclose(score[:, 0], expected + arrays["image_disc/outputs/bias:0"], rtol=1e-4)


def test_critic_norms_and_sizes():
    assert build_critic(224).output_shape == (None, 1)
    assert build_critic(224).get_layer("outputs").kernel.shape == (7, 7, 512, 1)
    kinds = {norm: {type(layer).__name__ for layer in build_critic(32, norm).layers}
             for norm in ("batch", "layer", "none")}
    assert "BatchNorm" in kinds["batch"] and "ImageNorm" in kinds["layer"]
    assert not any("Norm" in name for name in kinds["none"])
    with pytest.raises(ValueError, match="norm must be"):
        build_critic(64, "instance")
    with pytest.raises(ValueError, match="at least 32 pixels, got 16"):
        build_critic(16)
