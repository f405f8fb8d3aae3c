"""Plain references for the benchmark: the same work done the obvious way, as the released code does it.

Automatic gradients of gathers, COO products, a full search at each edge collapse, float32 records
read by one Python call each. Nothing but the benchmark uses them.

Letters: B images, N vertices, F triangles, M candidates, H W pixels, K Chebyshev order.
"""

from __future__ import annotations

import keras
import numpy as np
import scipy.sparse as sp
import tensorflow as tf

from facegcn.graph import ChebConv, MeshPool


def naive_decimate(vertices, triangles, target: int) -> np.ndarray:
    """Vertices kept by quadric edge collapse that looks at every edge and every face each time."""
    points = np.concatenate([vertices, np.ones((len(vertices), 1))], axis=1)
    corners = vertices[triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    planes = np.concatenate([normals, -(normals * corners[:, 0]).sum(axis=1, keepdims=True)], axis=1)
    quadrics = np.zeros((len(vertices), 4, 4))
    np.add.at(quadrics, triangles, (planes[:, :, None] * planes[:, None, :])[:, None])
    faces = triangles.copy()
    while len(np.unique(faces)) > target:
        edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
        both = quadrics[edges].sum(axis=1)
        costs = np.einsum("eki,eij,ekj->ek", points[edges], both, points[edges])
        edge, end = np.unravel_index(costs.argmin(), costs.shape)
        keep, gone = edges[edge, end], edges[edge, 1 - end]
        quadrics[keep] += quadrics[gone]
        faces[faces == gone] = keep
        faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    return np.unique(faces)


# ---------------------------------------------------------------- drawing
def naive_rasterize(clip, triangles, height: int, width: int):
    """Ids (B, H, W), -1 where none, and barycentrics (B, H, W, 3) by a scatter-minimum: every pixel in
    the bounding box of every triangle is tested. Screen space, so for meshes before the camera."""
    batch, count = tf.shape(clip)[0], tf.shape(triangles)[0]
    screen = tf.concat([clip[..., :3] / clip[..., 3:] * (width / 2, -height / 2, 1)
                        + (width / 2 - 0.5, height / 2 - 0.5, 0), clip[..., 3:]], axis=-1)
    corners = tf.reshape(tf.gather(screen, triangles, axis=1), (-1, 3, 4))
    limit = (width - 1.0, height - 1.0)
    first = tf.cast(tf.math.ceil(tf.maximum(tf.reduce_min(corners[..., :2], axis=1), 0)), tf.int32)
    last = tf.cast(tf.floor(tf.minimum(tf.reduce_max(corners[..., :2], axis=1), limit)), tf.int32)
    spans = tf.maximum(last - first + 1, 0)
    boxes = spans[:, 0] * spans[:, 1]
    owner = tf.repeat(tf.range(tf.size(boxes)), boxes)  # (M,) triangles of all images
    place = tf.range(tf.size(owner)) - tf.gather(tf.cumsum(boxes, exclusive=True), owner)
    column = tf.gather(first[:, 0], owner) + place % tf.gather(spans[:, 0], owner)
    row = tf.gather(first[:, 1], owner) + place // tf.gather(spans[:, 0], owner)
    weights = _screen_weights(tf.gather(corners, owner), column, row)
    inside = tf.reduce_all(weights >= 0, axis=1)
    depth = tf.reduce_sum(weights * tf.gather(corners[..., 2], owner), axis=1)[inside]
    pixel = ((owner // count * height + row) * width + column)[inside]
    nearest = tf.gather(tf.math.unsorted_segment_min(depth, pixel, batch * height * width), pixel)
    wins = depth <= nearest
    best = tf.math.unsorted_segment_min(owner[inside][wins], pixel[wins], batch * height * width)
    covered = best < tf.int32.max
    best, position = tf.where(covered, best, 0), tf.range(tf.size(best))
    seen = tf.gather(corners, best)
    weights = _screen_weights(seen, position % width, position // width % height) / seen[..., 3]
    weights = tf.where(covered[:, None], weights / tf.reduce_sum(weights, axis=1, keepdims=True), 0.0)
    ids = tf.where(covered, best % count, -1)
    return tf.reshape(ids, (batch, height, width)), tf.reshape(weights, (batch, height, width, 3))


def _screen_weights(corners, column, row):
    """Barycentrics (M, 3) of pixels in triangles (M, 3, 4), on the screen; NaN for flat triangles."""
    x = corners[..., 0] - tf.cast(column, tf.float32)[:, None]
    y = corners[..., 1] - tf.cast(row, tf.float32)[:, None]
    areas = (tf.roll(x, -1, axis=1) * tf.roll(y, -2, axis=1)
             - tf.roll(x, -2, axis=1) * tf.roll(y, -1, axis=1))
    return areas / tf.reduce_sum(areas, axis=1, keepdims=True)


def naive_draw(clip, triangles, color_sets, pixels: int) -> list:
    """The same; every colour set is rasterized anew, and the gradient is TensorFlow's."""
    pictures = []
    for colors in color_sets:
        ids, weights = naive_rasterize(clip, triangles, pixels, pixels)
        corners = tf.gather(colors, tf.gather(triangles, tf.maximum(ids, 0)), axis=1, batch_dims=1)
        pictures.append(tf.reduce_sum(corners * weights[..., None], axis=3))
    return pictures


# ---------------------------------------------------------------- graph layers
def coo_tensor(matrix) -> tf.SparseTensor:
    """A SciPy matrix as a float32 tensor."""
    matrix = matrix.tocsr().tocoo()
    indices = np.stack([matrix.row, matrix.col], axis=1)
    return tf.SparseTensor(indices, matrix.data.astype(np.float32), matrix.shape)


class NaiveChebConv(ChebConv):
    """``graph.ChebConv``, vertex-major, by COO products: always on F_in features, no gradient of its own."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._shifted = coo_tensor(self._laplacian - sp.identity(self._laplacian.shape[0]))

    def call(self, x):
        """Convolves (N, B, F_in)."""
        batch, features = tf.shape(x)[1], x.shape[2]
        terms = [tf.reshape(tf.transpose(x, (0, 2, 1)), (x.shape[0], features * batch))]
        for k in range(1, self.order):
            product = tf.sparse.sparse_dense_matmul(self._shifted, terms[-1])
            terms.append(product if k == 1 else 2.0 * product - terms[-2])
        stacked = tf.reshape(tf.stack(terms), (self.order, x.shape[0], features, batch))
        stacked = tf.reshape(tf.transpose(stacked, (1, 3, 2, 0)), (x.shape[0], batch, features * self.order))
        result = tf.matmul(stacked, self.kernel)
        return self.activation(result + self.bias if self.use_bias else result)


class NaiveMeshPool(MeshPool):
    """``graph.MeshPool``, vertex-major, by a COO product."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self._coo = coo_tensor(self._matrix)

    def call(self, x):
        """Samples (N, B, F)."""
        batch, features = tf.shape(x)[1], x.shape[2]
        sampled = tf.sparse.sparse_dense_matmul(self._coo, tf.reshape(x, (x.shape[0], batch * features)))
        return tf.ensure_shape(tf.reshape(sampled, (-1, batch, features)), (self._matrix.shape[0], None, features))


def naive_network(network: keras.Model) -> keras.Model:
    """A texture network of ``model`` again, with the same weights, its graph layers replaced by naive ones."""
    naive_layers = {ChebConv: NaiveChebConv, MeshPool: NaiveMeshPool}

    def naive(layer):
        return naive_layers.get(type(layer), type(layer)).from_config(layer.get_config())

    result = keras.models.clone_model(network, clone_function=naive)
    result.set_weights(network.get_weights())
    return result


# ---------------------------------------------------------------- packed images
def naive_write(path: str, images) -> None:
    """Float32 records, RGB in [-1, 1], alpha in [0, 1], one after the other, without a header."""
    with open(path, "wb") as file:
        for image in images:
            rgba = image.astype(np.float32) / 255.0
            rgba[..., :3] = rgba[..., :3] * 2.0 - 1.0
            file.write(rgba.tobytes())


def naive_dataset(path: str, count: int, shape: tuple, batch: int, workers: int = 2) -> tf.data.Dataset:
    """Batches of such records in random order, each record sought and read by a Python call of its own.

    ``workers`` calls run in parallel: the released code has a flag for them.
    """
    size = int(np.prod(shape))

    def read(index):
        return np.fromfile(path, np.float32, size, offset=4 * size * index).reshape(shape)
    order = np.random.default_rng(0).permutation(count)
    records = tf.data.Dataset.from_tensor_slices(order).map(lambda i: tf.numpy_function(read, [i], tf.float32), workers)
    return records.batch(batch).prefetch(2)
