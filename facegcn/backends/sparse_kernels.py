"""Products of a constant sparse matrix with a dense one, compiled by Numba; the loops release Python's lock.

The matrix is a table of ``WIDTH`` columns and weights a row, so that one inner loop, over the columns of the dense
matrix, adds so many of its rows at once; the few entries that rows have beyond that follow. The order of the sums is
that of TensorFlow's CSR product.

Letters: M rows and N columns of the sparse matrix, C columns of the dense one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numba import njit

from facegcn.backends.row_gathers import aligned_empty, cores, map_images

WIDTH = 8  # entries; six neighbours are usual in a mesh
LEAST_ROWS = 4_000  # below, the call from TensorFlow takes longer than the loop saves
_WORTH_A_THREAD = 50_000  # numbers of the result
_compiled = njit(nogil=True, cache=True, error_model="numpy")
# Indices have no sign: else each access would look whether it counts from the end, and the compiler could not work on
# several numbers at once.
_U = np.uintp
_1, _2, _3, _4, _5, _6, _7, _8 = (np.uintp(n) for n in range(1, 9))


class Table(NamedTuple):
    """A sparse matrix for the loops.

    Attributes:
        shape: M, N.
        columns, weights: (M WIDTH,) uint32 and float32; shorter rows end in zeros at a column of theirs, and rows
            without entries have them at their own vertex.
        more_rows, more_columns, more_weights: entries of longer rows, sorted by row.
    """

    shape: tuple
    columns: np.ndarray
    weights: np.ndarray
    more_rows: np.ndarray
    more_columns: np.ndarray
    more_weights: np.ndarray


def worth_a_table(matrix: sp.spmatrix) -> bool:
    """Whether a matrix is large enough, and its rows long enough that zeros at their ends cost less than is saved."""
    return matrix.shape[0] >= LEAST_ROWS and matrix.nnz >= matrix.shape[0] * WIDTH // 2


def table(matrix: sp.spmatrix) -> Table:
    """The ``Table`` of a SciPy matrix (M, N), N > 0."""
    matrix = sp.csr_matrix(matrix, dtype=np.float32, copy=True)
    matrix.sum_duplicates()
    lengths, starts = np.diff(matrix.indptr), matrix.indptr[:-1]
    rows = np.repeat(np.arange(matrix.shape[0]), lengths)
    place = np.arange(matrix.nnz) - np.repeat(starts, lengths)
    weights = np.zeros((matrix.shape[0], WIDTH), np.float32)
    own = np.minimum(np.arange(matrix.shape[0], dtype=np.uint32), matrix.shape[1] - 1)  # for rows without entries
    columns, filled = np.repeat(own[:, None], WIDTH, axis=1), lengths > 0
    columns[filled] = matrix.indices[starts[filled], None]
    near, far = place < WIDTH, place >= WIDTH
    columns[rows[near], place[near]], weights[rows[near], place[near]] = matrix.indices[near], matrix.data[near]
    return Table(matrix.shape, columns.reshape(-1), weights.reshape(-1), np.uint32(rows[far]),
                 np.uint32(matrix.indices[far]), matrix.data[far])


@_compiled
def _multiply_rows(columns, weights, x, less, width, first, last, result):
    """Rows first .. last - 1 of M x - less for x (N C,) and less (M C,), or an empty one for 0; C is ``width``."""
    subtract = len(less) > 0
    for n in range(first, last):
        at, q = n * width, n * _8
        i0, i1 = _U(columns[q]) * width, _U(columns[q + _1]) * width
        i2, i3 = _U(columns[q + _2]) * width, _U(columns[q + _3]) * width
        i4, i5 = _U(columns[q + _4]) * width, _U(columns[q + _5]) * width
        i6, i7 = _U(columns[q + _6]) * width, _U(columns[q + _7]) * width
        w0, w1, w2, w3 = weights[q], weights[q + _1], weights[q + _2], weights[q + _3]
        w4, w5, w6, w7 = weights[q + _4], weights[q + _5], weights[q + _6], weights[q + _7]
        if subtract:
            for c in range(width):
                result[at + c] = (w0 * x[i0 + c] + w1 * x[i1 + c] + w2 * x[i2 + c] + w3 * x[i3 + c] + w4 * x[i4 + c]
                                  + w5 * x[i5 + c] + w6 * x[i6 + c] + w7 * x[i7 + c]) - less[at + c]
        else:
            for c in range(width):
                result[at + c] = (w0 * x[i0 + c] + w1 * x[i1 + c] + w2 * x[i2 + c] + w3 * x[i3 + c] + w4 * x[i4 + c]
                                  + w5 * x[i5 + c] + w6 * x[i6 + c] + w7 * x[i7 + c])


@_compiled
def _add_entries(rows, columns, weights, x, width, result):
    """Adds single entries of a sparse matrix times x to the result."""
    for m in range(_U(len(rows))):
        at, i, w = _U(rows[m]) * width, _U(columns[m]) * width, weights[m]
        for c in range(width):
            result[at + c] += w * x[i + c]


def multiply(matrix: Table, x: np.ndarray, less: np.ndarray | None = None) -> np.ndarray:
    """M x - less, rows side by side in threads.

    Args:
        matrix: (M, N).
        x: (N, C) float32.
        less: (M, C) float32; default: 0.

    Returns:
        (M, C) float32.

    Raises:
        ValueError: shapes do not fit.
    """
    shape = matrix.shape[0], x.shape[1]
    if len(x) != matrix.shape[1] or less is not None and less.shape != shape:
        raise ValueError(f"a product of {matrix.shape} with {x.shape}"
                         + ("" if less is None else f", less {less.shape}"))
    result = aligned_empty(shape, np.float32)
    width, flat, x = _U(shape[1]), result.reshape(-1), np.ascontiguousarray(x).reshape(-1)
    less = np.empty(0, np.float32) if less is None else np.ascontiguousarray(less).reshape(-1)
    parts = min(cores(), 1 + result.size // _WORTH_A_THREAD)
    edges = [shape[0] * part // parts for part in range(parts + 1)]
    entries = np.searchsorted(matrix.more_rows, edges)

    def run(part):
        _multiply_rows(matrix.columns, matrix.weights, x, less, width, _U(edges[part]), _U(edges[part + 1]), flat)
        far = slice(entries[part], entries[part + 1])
        if far.stop > far.start:
            _add_entries(matrix.more_rows[far], matrix.more_columns[far], matrix.more_weights[far], x, width, flat)

    map_images(run, parts)
    return result
