"""facegcn.backends.sparse_kernels against SciPy, and the graph layers on both backends."""

import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf

from facegcn import graph
from facegcn.backends import sparse_kernels
from tests.test_graph import VERTICES, random_laplacian


def matrix_of(rng, rows, columns, longest):
    """Rows of 0 to ``longest`` entries."""
    dense = np.zeros((rows, columns), np.float32)
    for row in dense:
        chosen = rng.choice(columns, rng.integers(0, min(longest, columns) + 1), replace=False)
        row[chosen] = rng.normal(size=len(chosen))
    return sp.csr_matrix(dense)


@pytest.mark.parametrize("shape, longest", [((30, 30), 8), ((30, 50), 20), ((7, 3), 3), ((1, 9), 9), ((0, 5), 5)])
@pytest.mark.parametrize("width", [1, 3, 16, 70])
def test_product_equals_scipy_s(rng, monkeypatch, shape, longest, width):
    monkeypatch.setattr(sparse_kernels, "_WORTH_A_THREAD", 1)
    monkeypatch.setattr(sparse_kernels, "cores", lambda: 3)
    matrix = matrix_of(rng, *shape, longest)
    x, less = (rng.normal(size=(rows, width)).astype(np.float32) for rows in reversed(shape))
    table = sparse_kernels.table(matrix)
    np.testing.assert_allclose(sparse_kernels.multiply(table, x), matrix @ x, atol=1e-5)
    np.testing.assert_allclose(sparse_kernels.multiply(table, x, less), matrix @ x - less, atol=1e-5)


def test_duplicates_are_summed_and_the_matrix_is_left_alone():
    matrix = sp.coo_matrix(([1.0, 2.0, 4.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    np.testing.assert_array_equal(sparse_kernels.multiply(sparse_kernels.table(matrix), np.eye(2, dtype=np.float32)),
                                  [[0, 3], [4, 0]])
    assert matrix.nnz == 3


def test_a_number_that_is_not_finite_spreads_no_further_than_its_entries():
    """Nothing is read, and multiplied by 0, that the row does not name."""
    matrix = sparse_kernels.table(sp.csr_matrix(np.float32([[0, 2, 0], [0, 0, 3], [0, 4, 0]])))
    found = sparse_kernels.multiply(matrix, np.float32([[1], [5], [np.nan]]))
    assert found[0] == 10 and np.isnan(found[1]) and found[2] == 20
    found = sparse_kernels.multiply(matrix, np.float32([[np.nan], [5], [1]]))
    np.testing.assert_array_equal(found, [[10], [3], [20]])
    lonely = sparse_kernels.table(sp.csr_matrix(np.float32([[0, 2, 0], [0, 0, 0], [0, 0, 3]])))
    found = sparse_kernels.multiply(lonely, np.float32([[np.nan], [5], [1]]))
    np.testing.assert_array_equal(found, [[10], [0], [3]])


def test_shapes_that_do_not_fit_are_refused():
    table = sparse_kernels.table(sp.identity(3, format="csr"))
    for x, less in ((np.ones((4, 2)), None), (np.ones((3, 2)), np.ones((3, 1)))):
        with pytest.raises(ValueError, match="product of"):
            sparse_kernels.multiply(table, np.float32(x), less)


@pytest.mark.parametrize("order", [1, 2, 3, 6])
@pytest.mark.parametrize("features", [(2, 4), (4, 2)])
def test_both_backends_give_the_same_series_and_gradient(rng, monkeypatch, order, features):
    monkeypatch.setattr(sparse_kernels, "LEAST_ROWS", 1)
    laplacian = random_laplacian(rng)
    laplacian = sp.csr_matrix(laplacian.toarray() * rng.uniform(0.5, 1.0, laplacian.shape)).astype(np.float32)
    x = tf.constant(rng.normal(size=(VERTICES, 3, features[0])), tf.float32)
    kernel = tf.constant(rng.normal(size=(features[0] * order, features[1])), tf.float32)
    found = []
    for backend in ("numba", "tensorflow"):
        series = graph.ChebyshevSeries(laplacian, order, backend)
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            result = series(x, kernel)
            loss = tf.reduce_sum(tf.sin(result))
        found.append([result, *tape.gradient(loss, [x, kernel])])
        tables = [isinstance(product._forward, sparse_kernels.Table)
                  for product in (series._shifted, series._doubled) if product is not None]
        assert all(tables) if backend == "numba" else not any(tables)
    for one, other in zip(*found):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_table_is_for_large_matrices_of_long_rows():
    ring = sp.diags([1.0, 1.0, 1.0, 1.0], [-2, -1, 1, 2], shape=(5_000, 5_000), format="csr")
    assert not sparse_kernels.worth_a_table(ring[:3_000])
    assert sparse_kernels.worth_a_table(ring + sp.identity(5_000))
    assert not sparse_kernels.worth_a_table(sp.identity(5_000))
