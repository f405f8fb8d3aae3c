"""Graph layers: Chebyshev convolution and pooling by a sparse matrix.

Letters: B meshes in a batch, N vertices, F features, K Chebyshev order. Networks keep their
features vertex-major, (N, B, F), because then every product with a sparse (N, N) matrix is one
product with a dense (N, B*F) matrix and nothing is transposed.

Sources: Defferrard et al. 2016 (Chebyshev filters), Ranjan et al. 2018 (on face meshes);
Clenshaw 1955 (evaluating a Chebyshev series from its end).
"""

from __future__ import annotations

import functools

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from facegcn.backends import sparse_kernels
from facegcn.backends.row_gathers import resolve_backend

try:
    # The one thing the public API lacks: a CSR variant that knows its shape inside tf.function. requirements.txt holds
    # TensorFlow below the first version it was not tried with; without the class, COO products do the same, slower.
    from tensorflow.python.ops.linalg.sparse.sparse_csr_matrix_ops import CSRSparseMatrix
except ImportError:
    CSRSparseMatrix = None


class SparseProduct:
    """x -> M x for a constant sparse matrix M, with the gradient M^T g computed the same way.

    On the CPU a compiled loop where the matrix is large; else CSR variants made once, where TensorFlow has that
    kernel, else COO tensors.
    """

    def __init__(self, matrix: sp.spmatrix, symmetric: bool = False, backend: str = "auto"):
        """
        Args:
            matrix: (M, N) sparse, cast to float32.
            symmetric: M equals its transpose, so that it need not be stored twice.
            backend: see ``row_gathers.resolve_backend``.
        """
        self.shape = matrix.shape
        backend = resolve_backend(backend)
        self._forward = _constant(matrix, backend)
        self._backward = self._forward if symmetric else _constant(matrix.T, backend)

    def __call__(self, x):
        """Product (M, C) float32 with a dense matrix x (N, C)."""
        @tf.custom_gradient
        def product(x):
            return _multiply(self._forward, x), lambda g: _multiply(self._backward, g)
        return product(x)

    def transposed(self, x, less=None):
        """Product (N, C) of the transpose with a dense matrix x (M, C), less another one; no gradient of its own."""
        return _multiply(self._backward, x, less)

    def plain(self, x, less=None):
        """Product (M, C) with x (N, C), less a matrix (M, C); no gradient of its own."""
        return _multiply(self._forward, x, less)


@functools.cache
def csr_product_available() -> bool:
    """Whether this TensorFlow can multiply CSR matrices by dense ones on its default device."""
    if CSRSparseMatrix is None:
        return False
    try:
        with tf.init_scope():
            one = CSRSparseMatrix(tf.SparseTensor([[0, 0]], [1.0], [1, 1]))
            _multiply(one, tf.ones((1, 1)))
    except (AttributeError, tf.errors.NotFoundError, tf.errors.UnimplementedError,
            tf.errors.InvalidArgumentError):
        return False
    return True


def _constant(matrix, backend: str):
    """A SciPy matrix as ``_multiply`` takes it; tensors are made eagerly, so graphs only capture them."""
    matrix = matrix.tocsr()
    if backend == "numba" and sparse_kernels.worth_a_table(matrix):
        return sparse_kernels.table(matrix)
    matrix = sp.coo_matrix(matrix)  # sums duplicates, sorts rows
    with tf.init_scope():
        indices = np.stack([matrix.row, matrix.col], axis=1).astype(np.int64)
        tensor = tf.sparse.reorder(tf.SparseTensor(indices, matrix.data.astype(np.float32), matrix.shape))
        return CSRSparseMatrix(tensor) if csr_product_available() else tensor


def _multiply(constant, x, less=None):
    if isinstance(constant, sparse_kernels.Table):
        arguments = [x] if less is None else [x, less]
        product = tf.numpy_function(lambda *arrays: sparse_kernels.multiply(constant, *arrays), arguments, tf.float32,
                                    stateful=False)
        product.set_shape((constant.shape[0], x.shape[1]))
        return product
    if isinstance(constant, tf.SparseTensor):
        product = tf.sparse.sparse_dense_matmul(constant, x)
    else:
        product = tf.raw_ops.SparseMatrixMatMul(a=constant._matrix, b=x)
    return product if less is None else product - less


class ChebyshevSeries:
    """The map X -> sum_k T_k(L - I) X W_k and its exact gradient.

    With L' = L - I: T_0 = I, T_1 = L', T_k = 2 L' T_(k-1) - T_(k-2). The recursion runs on
    min(F_in, F_out) features in both directions: over T_k X when F_in is the smaller, else over
    the products X W_k (Clenshaw).
    """

    def __init__(self, laplacian: sp.spmatrix, order: int, backend: str = "auto"):
        """
        Args:
            laplacian: normalised graph Laplacian L (N, N), eigenvalues in [0, 2].
            order: number K of Chebyshev terms.
            backend: see ``row_gathers.resolve_backend``.
        """
        self.order = order
        shifted = (laplacian - sp.identity(laplacian.shape[0], format="csr")).tocsr()
        symmetric = abs(shifted - shifted.T).max() == 0
        self._shifted = SparseProduct(shifted, symmetric, backend) if order > 1 else None
        self._doubled = SparseProduct(2.0 * shifted, symmetric, backend) if order > 2 else None

    def __call__(self, x, kernel, product_dtype="float32"):
        """
        Args:
            x: (N, B, F_in) float32.
            kernel: (F_in * K, F_out) float32; row f * K + k belongs to T_k of feature f.
            product_dtype: type that the factors of dense products are rounded to; all else is float32.

        Returns:
            (N, B, F_out) float32.
        """
        features_out = kernel.shape[1]
        features_in = kernel.shape[0] // self.order
        convolve = self._direct if features_in <= features_out else self._clenshaw
        shape = tf.shape(x)
        # (K, F_in, F_out): the weights of each term together.
        weights = tf.transpose(tf.reshape(kernel, (features_in, self.order, features_out)), (1, 0, 2))
        result = convolve(tf.reshape(x, (-1, features_in)), weights, shape[0], _dense_product(product_dtype))
        return tf.reshape(result, (shape[0], shape[1], features_out))

    def _direct(self, x, weights, count, matmul=tf.matmul):
        """sum_k (T_k X) W_k for x (N*B, F_in), weights (K, F_in, F_out)."""
        @tf.custom_gradient
        def convolve(x, weights):
            terms = self._terms(x, count, SparseProduct.plain)
            stacked = tf.reshape(weights, (-1, weights.shape[2]))  # (K*F_in, F_out)

            def gradient(g):
                inner = [matmul(g, weights[k], transpose_b=True) for k in range(self.order)]
                by_weight = matmul(terms, g, transpose_a=True)
                return (self._sum(inner, count, SparseProduct.transposed),
                        tf.reshape(by_weight, tf.shape(weights)))
            return matmul(terms, stacked), gradient
        return convolve(x, weights)

    def _clenshaw(self, x, weights, count, matmul=tf.matmul):
        """sum_k T_k (X W_k) for x (N*B, F_in), weights (K, F_in, F_out)."""
        @tf.custom_gradient
        def convolve(x, weights):
            beside = tf.reshape(tf.transpose(weights, (1, 0, 2)), (weights.shape[1], -1))  # (F_in, K*F_out)

            def gradient(g):
                terms = self._terms(g, count, SparseProduct.transposed)
                by_weight = tf.reshape(matmul(terms, x, transpose_a=True),
                                       (self.order, weights.shape[2], weights.shape[1]))
                return matmul(terms, beside, transpose_b=True), tf.transpose(by_weight, (0, 2, 1))
            inner = [matmul(x, weights[k]) for k in range(self.order)]
            return self._sum(inner, count, SparseProduct.plain), gradient
        return convolve(x, weights)

    def _terms(self, x, count, multiply):
        """T_0 X, T_1 X, ... side by side: (N*B, K*F)."""
        shape = tf.shape(x)
        terms = [tf.reshape(x, (count, -1))]
        if self.order > 1:
            terms.append(multiply(self._shifted, terms[0]))
        for _ in range(2, self.order):
            terms.append(multiply(self._doubled, terms[-1], terms[-2]))
        return tf.concat([tf.reshape(term, shape) for term in terms], axis=1)

    def _sum(self, parts, count, multiply):
        """sum_k T_k P_k for K matrices P_k (N*B, F), from the last to the first."""
        if self.order == 1:
            return parts[0]
        shape = tf.shape(parts[0])
        parts = [tf.reshape(part, (count, -1)) for part in parts]
        last, before = parts[-1], None  # b_k and b_(k+1) of the recursion
        for k in range(self.order - 2, 0, -1):
            last, before = parts[k] + multiply(self._doubled, last, before), last
        return tf.reshape(parts[0] + multiply(self._shifted, last, before), shape)


def _dense_product(dtype: str):
    """tf.matmul of float32 matrices whose factors are rounded to a type first."""
    if dtype == "float32":
        return tf.matmul
    return lambda a, b, **options: tf.cast(tf.matmul(tf.cast(a, dtype), tf.cast(b, dtype), **options), tf.float32)


class ChebConv(keras.layers.Layer):
    """Chebyshev graph convolution: activation(sum_k T_k(L - I) X W_k + bias).

    Input (B, N, F_in), output (B, N, filters); with ``vertex_major`` (N, B, F_in) and
    (N, B, filters). The kernel has shape (F_in * order, filters), row f * order + k.

    Attributes:
        product_dtype: see ``ChebyshevSeries``; how to compute is no part of ``get_config``.
    """

    product_dtype = "float32"

    def __init__(self, filters, laplacian, order=6, activation=None, use_bias=True,
                 kernel_initializer="he_normal", vertex_major=False, **kwargs):
        """
        Args:
            filters: number of output features, positive int.
            laplacian: normalised graph Laplacian (N, N), SciPy sparse; the layer itself subtracts
                the identity (largest eigenvalue taken as 2).
            order: number of Chebyshev terms K, positive int; 1 is a dense layer at each vertex.
            activation: Keras activation or None.
            use_bias: adds one bias per filter.
            kernel_initializer: Keras initializer.
            vertex_major: features come as (N, B, F).

        Raises:
            ValueError: filters or order is no positive integer, or laplacian is not square.
        """
        super().__init__(**kwargs)
        for name, value in (("filters", filters), ("order", order)):
            if not isinstance(value, (int, np.integer)) or value <= 0:
                raise ValueError(f"expected a positive integer, received {name}={value!r}")
        if len(laplacian.shape) != 2 or laplacian.shape[0] != laplacian.shape[1]:
            raise ValueError(f"laplacian must be square, received shape {tuple(laplacian.shape)}")
        self.supports_jit = False  # XLA has no CSR product, and recomputes the recursion if it had
        self.filters, self.order, self.use_bias = int(filters), int(order), use_bias
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.vertex_major = vertex_major
        self._laplacian = sp.csr_matrix(laplacian, dtype=np.float32)
        self._series = ChebyshevSeries(self._laplacian, self.order)

    def build(self, input_shape):
        """Makes the weights; raises ValueError when the vertex count is not the Laplacian's."""
        _check_vertices(self, input_shape, self._laplacian.shape[0])
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1] * self.order, self.filters),
                                      initializer=self.kernel_initializer)
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, x):
        """Convolves (B, N, F_in), or (N, B, F_in) when vertex-major."""
        kernel = tf.convert_to_tensor(self.kernel)
        result = _in_vertex_major(self.vertex_major, lambda y: self._series(y, kernel, self.product_dtype), x)
        if self.use_bias:
            result = result + self.bias
        return self.activation(result)

    def compute_output_shape(self, input_shape):
        """The input's shape with ``filters`` features."""
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        """Everything the constructor takes; the Laplacian as lists."""
        return {**super().get_config(), "filters": self.filters, "laplacian": _to_lists(self._laplacian),
                "order": self.order, "activation": keras.activations.serialize(self.activation),
                "use_bias": self.use_bias, "vertex_major": self.vertex_major,
                "kernel_initializer": keras.initializers.serialize(self.kernel_initializer)}

    @classmethod
    def from_config(cls, config):
        """A layer from ``get_config``."""
        return cls(**{**config, "laplacian": _from_lists(config["laplacian"])})


class MeshPool(keras.layers.Layer):
    """Carries features from one level of a mesh hierarchy to another: Y = M X.

    Input (B, N, F), output (B, M, F); with ``vertex_major`` (N, B, F) and (M, B, F).
    """

    def __init__(self, matrix, vertex_major=False, **kwargs):
        """
        Args:
            matrix: (M, N) SciPy sparse: a down- or up-sampling matrix.
            vertex_major: features come as (N, B, F).
        """
        super().__init__(**kwargs)
        if len(matrix.shape) != 2:
            raise ValueError(f"matrix must have two axes, received shape {tuple(matrix.shape)}")
        self.supports_jit = False  # XLA has no CSR product
        self.vertex_major = vertex_major
        self._matrix = sp.csr_matrix(matrix, dtype=np.float32)
        self._product = SparseProduct(self._matrix)

    def build(self, input_shape):
        """Raises ValueError when the vertex count is not the matrix's number of columns."""
        _check_vertices(self, input_shape, self._matrix.shape[1])

    def call(self, x):
        """Samples (B, N, F), or (N, B, F) when vertex-major."""
        def sample(y):
            shape = tf.shape(y)
            flat = self._product(tf.reshape(y, (shape[0], -1)))
            return tf.reshape(flat, (self._matrix.shape[0], shape[1], y.shape[2]))
        return _in_vertex_major(self.vertex_major, sample, x)

    def compute_output_shape(self, input_shape):
        """The input's shape with M vertices."""
        axis = 0 if self.vertex_major else 1
        return (*input_shape[:axis], self._matrix.shape[0], *input_shape[axis + 1:])

    def get_config(self):
        """Everything the constructor takes; the matrix as lists."""
        return {**super().get_config(), "matrix": _to_lists(self._matrix),
                "vertex_major": self.vertex_major}

    @classmethod
    def from_config(cls, config):
        """A layer from ``get_config``."""
        return cls(**{**config, "matrix": _from_lists(config["matrix"])})


def _in_vertex_major(already, function, x):
    """Applies a function of (N, B, F) to x, turning (B, N, F) there and back if need be."""
    if already:
        return function(x)
    return tf.transpose(function(tf.transpose(x, (1, 0, 2))), (1, 0, 2))


def _check_vertices(layer, input_shape, count):
    axis = 0 if layer.vertex_major else 1
    if len(input_shape) != 3 or input_shape[-1] is None:
        raise ValueError(f"layer '{layer.name}' expects three axes, the last of known size, "
                         f"received shape {tuple(input_shape)}")
    if input_shape[axis] not in (None, count):
        raise ValueError(f"layer '{layer.name}' is made for {count} vertices, "
                         f"received shape {tuple(input_shape)}")


def _to_lists(matrix):
    matrix = matrix.tocoo()
    return {"row": matrix.row.tolist(), "col": matrix.col.tolist(), "data": matrix.data.tolist(),
            "shape": list(matrix.shape)}


def _from_lists(parts):
    return sp.csr_matrix((parts["data"], (parts["row"], parts["col"])), shape=parts["shape"])
