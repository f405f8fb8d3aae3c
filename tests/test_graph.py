"""Chebyshev convolution and mesh pooling: dense oracle, gradients, layouts, bad input."""

import keras
import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf

from facegcn import graph
from facegcn.graph import ChebConv, MeshPool, SparseProduct

VERTICES = 14


def random_laplacian(rng, count=VERTICES):
    """Normalised Laplacian of a random graph."""
    upper = np.triu(rng.integers(0, 3, (count, count)), 1)
    weights = (upper + upper.T).astype(np.float64)
    scale = 1.0 / np.sqrt(weights.sum(axis=0))
    return sp.csr_matrix(np.eye(count) - scale[:, None] * weights * scale[None, :], dtype=np.float32)


def dense_convolution(laplacian, x, kernel, order):
    """The definition with dense matrices: column f * K + k of the stack is T_k of feature f."""
    shifted = laplacian.toarray().astype(np.float64) - np.eye(laplacian.shape[0])
    polynomials = [np.eye(laplacian.shape[0]), shifted]
    while len(polynomials) < order:
        polynomials.append(2.0 * shifted @ polynomials[-1] - polynomials[-2])
    result = []
    for mesh in np.asarray(x, np.float64):
        columns = [polynomials[k] @ mesh[:, f] for f in range(mesh.shape[1]) for k in range(order)]
        result.append(np.stack(columns, axis=1) @ np.asarray(kernel, np.float64))
    return np.stack(result)


@pytest.mark.parametrize("order", [1, 2, 3, 6])
@pytest.mark.parametrize("features", [(2, 5), (5, 2), (3, 3)])
@pytest.mark.parametrize("vertex_major", [False, True])
def test_convolution_equals_dense_oracle(order, features, vertex_major, rng):
    laplacian = random_laplacian(rng)
    layer = ChebConv(features[1], laplacian, order, activation="elu", vertex_major=vertex_major)
    x = rng.normal(size=(3, VERTICES, features[0])).astype(np.float32)
    swap = (1, 0, 2) if vertex_major else (0, 1, 2)
    layer.build(x.transpose(swap).shape)
    layer.bias.assign(rng.normal(size=features[1]))
    assert layer.kernel.shape == (features[0] * order, features[1])
    expected = dense_convolution(laplacian, x, layer.kernel, order) + layer.bias.numpy()
    expected = np.where(expected > 0, expected, np.expm1(np.minimum(expected, 0)))
    np.testing.assert_allclose(np.transpose(layer(x.transpose(swap)), swap), expected, atol=2e-5)


def test_known_value():
    """Two joined vertices: L - I = [[0, -1], [-1, 0]], so T_2 = 2 (L - I)^2 - I = I."""
    laplacian = sp.csr_matrix([[1.0, -1.0], [-1.0, 1.0]])
    layer = ChebConv(1, laplacian, order=3, use_bias=False)
    layer.build((None, 2, 1))
    layer.kernel.assign([[1.0], [10.0], [100.0]])
    np.testing.assert_allclose(layer(np.array([[[1.0], [2.0]]], np.float32)), [[[81.0], [192.0]]])


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("features", [(2, 4), (4, 2)])
def test_gradients_equal_finite_differences(features, symmetric, rng):
    laplacian = random_laplacian(rng)
    if not symmetric:
        laplacian = sp.csr_matrix(laplacian.toarray() * rng.uniform(0.5, 1.0, laplacian.shape))
    series = graph.ChebyshevSeries(laplacian.astype(np.float32), 4)
    x = tf.constant(rng.normal(size=(VERTICES, 2, features[0])), tf.float32)
    kernel = tf.constant(rng.normal(size=(features[0] * 4, features[1])), tf.float32)
    target = tf.constant(rng.normal(size=(VERTICES, 2, features[1])), tf.float32)

    def value(x, kernel):
        return tf.reduce_sum(series(x, kernel) * target)  # linear in each, so differences are exact

    theory, numeric = tf.test.compute_gradient(value, [x, kernel], delta=0.1)
    for exact, estimate in zip(theory, numeric):
        np.testing.assert_allclose(exact, estimate, atol=2e-3)


def test_batch_equals_single_meshes(rng):
    layer = ChebConv(3, random_laplacian(rng))
    x = rng.normal(size=(4, VERTICES, 2)).astype(np.float32)
    singles = np.concatenate([layer(x[i:i + 1]) for i in range(4)])
    np.testing.assert_allclose(layer(x), singles, atol=1e-6)


def test_clenshaw_equals_direct(rng):
    series = graph.ChebyshevSeries(random_laplacian(rng), 6)
    x = tf.constant(rng.normal(size=(VERTICES * 2, 5)), tf.float32)
    weights = tf.constant(rng.normal(size=(6, 5, 3)), tf.float32)
    results = []
    for method in (series._direct, series._clenshaw):
        with tf.GradientTape() as tape:
            tape.watch([x, weights])
            result = method(x, weights, VERTICES)
            loss = tf.reduce_sum(tf.sin(result))
        results.append([result, *tape.gradient(loss, [x, weights])])
    for first, second in zip(*results):
        np.testing.assert_allclose(first, second, atol=2e-4)


def test_inside_tf_function_with_unknown_batch(rng):
    layer = ChebConv(3, random_laplacian(rng))
    layer.build((None, VERTICES, 2))
    compiled = tf.function(layer, input_signature=[tf.TensorSpec((None, VERTICES, 2))])
    for count in (1, 5):
        x = tf.constant(rng.normal(size=(count, VERTICES, 2)), tf.float32)
        np.testing.assert_allclose(compiled(x), layer(x), atol=1e-6)


def test_without_csr_kernels_the_result_is_the_same(rng, monkeypatch):
    laplacian, x = random_laplacian(rng), rng.normal(size=(2, VERTICES, 3)).astype(np.float32)
    layer = ChebConv(2, laplacian)
    expected = layer(x)
    monkeypatch.setattr(graph, "resolve_backend", lambda backend: "tensorflow")
    monkeypatch.setattr(graph, "csr_product_available", lambda: False)
    fallback = ChebConv(2, laplacian)
    fallback.build(x.shape)
    fallback.kernel.assign(layer.kernel)
    assert isinstance(fallback._series._shifted._forward, tf.SparseTensor)
    np.testing.assert_allclose(fallback(x), expected, atol=1e-6)


@pytest.mark.parametrize("width", [7, 5])
def test_sparse_product_sums_duplicates_and_has_the_transposed_gradient(rng, width):
    rows, columns = rng.integers(0, 5, 30), rng.integers(0, width, 30)
    matrix = sp.coo_matrix((rng.normal(size=30), (rows, columns)), shape=(5, width))
    x = tf.constant(rng.normal(size=(width, 4)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = SparseProduct(matrix)(x)
        loss = tf.reduce_sum(y * y)
    np.testing.assert_allclose(y, matrix.toarray() @ x.numpy(), atol=1e-5)
    np.testing.assert_allclose(tape.gradient(loss, x), 2 * matrix.T.toarray() @ y.numpy(), atol=1e-4)


@pytest.mark.parametrize("vertex_major", [False, True])
def test_pool_equals_matrix_product(vertex_major, rng):
    matrix = sp.random(5, VERTICES, 0.4, random_state=0, format="csr")
    x = rng.normal(size=(3, VERTICES, 2)).astype(np.float32)
    swap = (1, 0, 2) if vertex_major else (0, 1, 2)
    pooled = MeshPool(matrix, vertex_major=vertex_major)(x.transpose(swap))
    expected = np.einsum("mn,bnf->bmf", matrix.toarray(), x)
    np.testing.assert_allclose(np.transpose(pooled, swap), expected, atol=1e-6)


def test_config_round_trip(rng):
    x = rng.normal(size=(1, VERTICES, 2)).astype(np.float32)
    pool = MeshPool(sp.random(5, VERTICES, 0.4, random_state=0, format="csr"))
    for layer in (ChebConv(3, random_laplacian(rng), 4, activation="tanh"), pool):
        layer(x)
        copy = type(layer).from_config(layer.get_config())
        copy(x)
        copy.set_weights(layer.get_weights())
        np.testing.assert_allclose(copy(x), layer(x), atol=1e-6)
        assert copy.compute_output_shape(x.shape) == tuple(layer(x).shape)


def test_a_training_step_lowers_the_loss(rng):
    layers = ChebConv(4, random_laplacian(rng), activation="elu"), ChebConv(1, random_laplacian(rng))
    model = keras.Sequential([keras.Input((VERTICES, 2)), *layers])
    x = rng.normal(size=(8, VERTICES, 2)).astype(np.float32)
    model.compile(keras.optimizers.Adam(0.02), "mse")
    losses = model.fit(x, x[..., :1] * x[..., 1:], epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("arguments, message", [
    (dict(filters=0), "filters=0"), (dict(filters=2.5), "filters=2.5"), (dict(order=-1), "order=-1"),
    (dict(laplacian=sp.eye(3, 4)), r"square, received shape \(3, 4\)")])
def test_constructor_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        ChebConv(**{"filters": 2, "laplacian": sp.eye(4), **arguments})


def test_wrong_shapes_are_named(rng):
    layer = ChebConv(2, random_laplacian(rng), name="block")
    with pytest.raises(ValueError, match=f"'block' is made for {VERTICES} vertices"):
        layer.build((None, VERTICES + 1, 2))
    with pytest.raises(ValueError, match="three axes"):
        layer.build((None, VERTICES))
    with pytest.raises(ValueError, match="made for 7 vertices"):
        MeshPool(sp.random(3, 7, 0.5)).build((2, 6, 1))
