"""The path of the released code, spelled out slowly in double precision, as an oracle for tests.

Follows paper_spec.md line by line: geometry, sampled colours, both texture networks, light,
pictures, losses, critic. Nothing of the package is used: geometry, morphology and rasterization
are NumPy loops, whatever needs a gradient is plain TensorFlow on dense float64 matrices.

Letters: B images, N vertices, F features, K Chebyshev terms, H W pixels.
"""

import math
from itertools import pairwise

import cv2
import numpy as np
import tensorflow as tf

TAN_HALF_FOV = math.tan(math.radians(12.5936) / 2)
CAMERA_Z = 10.0
TERMS = 6
L2 = 5e-4
DECODER_WIDTHS = {"resnet": {False: (32, 16, 16, 16, 3), True: (32, 64, 128, 256, 3)},
                  "normal": {False: (32, 16, 16, 16, 16), True: (32, 32, 64, 128, 256)}}
RESNET_REFINER = {False: (16, 32, 32, 16, 3), True: (16, 32, 64, 128, 3)}
NORMAL_REFINER = (16, 32, 64, 128)
CRITIC_WIDTHS = (16, 32, 64, 128, 256, 512)


# ---------------------------------------------------------------- weights by TF1 name
def texture_variables(kind, wide, coarsest, embedding, nz=512):
    """Name -> shape of every weight of a texture network on a mesh with ``coarsest`` vertices at level 4."""
    shapes = {"mesh_decoder/fc/weights": (embedding, coarsest * 32), "mesh_decoder/fc/bias": (coarsest * 32,)}
    widths = DECODER_WIDTHS[kind][wide]
    if kind == "resnet":
        for i, (before, after) in enumerate(pairwise(widths), 1):
            shapes |= _block(f"mesh_decoder/resblock{i}", before, after)
        for i, (before, after) in enumerate(pairwise((7, *RESNET_REFINER[wide])), 1):
            shapes |= _block(f"mesh_refiner/resblock{i}", before, after)
    else:
        for i, (before, after) in enumerate(pairwise(widths), 1):
            shapes |= _conv(f"mesh_decoder/upconv{i}", before, after)
        shapes |= _conv("mesh_decoder", widths[-1], 3)
        shapes |= _normal_refiner(coarsest, nz)
    shapes["mesh_concat/weights"] = (6 * TERMS, 3)
    return {f"mesh_generator/{name}:0": shape for name, shape in shapes.items()}


def _normal_refiner(coarsest, nz):
    shapes = {"mesh_refiner/graph_conv0/weights": (7 * TERMS, 16)}
    for i, (before, after) in enumerate(((16, 16), (16, 32), (32, 64), (64, 128)), 1):
        shapes |= _conv(f"mesh_refiner/graph_conv{i}", before, after)
    shapes |= {"mesh_refiner/fc/weights": (coarsest * 128, nz), "mesh_refiner/fc/bias": (nz,),
               "mesh_refiner/fc2/weights": (nz, coarsest * 128), "mesh_refiner/fc2/bias": (coarsest * 128,)}
    # the first two see the skip of their level beside the features that come up
    for i, (before, after) in enumerate(((128 + 64, 128), (128 + 32, 64), (64, 32), (32, 16)), 5):
        shapes |= _conv(f"mesh_refiner/graph_conv{i}", before, after)
    return shapes | _conv("mesh_refiner", 16, 3)


def _conv(scope, before, after):
    return {f"{scope}/weights": (before * TERMS, after), f"{scope}/bias": (1, 1, after)}


def _block(scope, before, after):
    shapes = {f"{scope}/filter1/weights": (before * TERMS, after), f"{scope}/bias_relu1/bias": (1, 1, after),
              f"{scope}/filter2/weights": (after * TERMS, after), f"{scope}/bias_relu2/bias": (1, 1, after)}
    return shapes if before == after else {f"{scope}/shortcut/weights": (before, after), **shapes}


def critic_variables(size):
    """Name -> shape of every variable of the critic of size x size images, moving averages included."""
    shapes = {}
    for i, (before, after) in enumerate(pairwise((3, *CRITIC_WIDTHS)), 1):
        width = 1 if i == 1 else 3
        shapes[f"conv{i}_1/weights"] = (width, width, before, after)
        for name in ("bias", "BatchNorm/beta", "BatchNorm/moving_mean", "BatchNorm/moving_variance"):
            shapes[f"conv{i}_1/{name}"] = (after,)
    last = math.ceil(size / 32)
    shapes |= {"outputs/weights": (last, last, CRITIC_WIDTHS[-1], 1), "outputs/bias": (1,)}
    return {f"image_disc/{name}:0": shape for name, shape in shapes.items()}


def random_weights(shapes, rng, gain=0.8):
    """Weights of these shapes that keep features at a moderate size; biases are not zero."""
    weights = {}
    for name, shape in shapes.items():
        fan_in = int(np.prod(shape[:-1])) if name.endswith("weights:0") else 100
        weights[name] = (rng.normal(size=shape) * gain / np.sqrt(fan_in)).astype(np.float32)
        if "moving_variance" in name:
            weights[name] = rng.uniform(0.5, 2.0, shape).astype(np.float32)
    return weights


# ---------------------------------------------------------------- geometry, NumPy
def split(coeff, model):
    """Identity, expression, albedo, angles 3, light 27, translation 3."""
    sizes = [np.shape(basis)[-1] for basis in (model.id_basis, model.exp_basis, model.albedo_basis)]
    return np.split(np.asarray(coeff, np.float64), np.cumsum([*sizes, 3, 27]), axis=1)


def rotation(angles):
    """Rz(c) Ry(b) Rx(a), (3, 3)."""
    (sa, sb, sc), (ca, cb, cc) = np.sin(angles), np.cos(angles)
    about_x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    about_y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    about_z = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def geometry(model, coeff):
    """vertices, world, normals (B, N, 3), coarse albedo in [-1, 1], projected (B, N, 2), shading (B, N, 3)."""
    mean = np.asarray(model.mean_shape, np.float64)
    found = {name: [] for name in ("vertices", "world", "normals", "coarse_texture", "projected", "shading")}
    for identity, expression, albedo, angles, gamma, translation in zip(*split(coeff, model)):
        vertices = mean + model.id_basis @ identity + model.exp_basis @ expression - mean.mean(axis=0)
        turn = rotation(angles)
        world = vertices @ turn.T + translation
        normals = vertex_normals(vertices, model.triangles) @ turn.T
        texture = np.clip(model.mean_albedo + model.albedo_basis @ albedo, 0, 255) / 127.5 - 1
        towards = CAMERA_Z - world[:, 2]
        projected = np.stack([world[:, 0], -world[:, 1]], axis=1) / (towards * TAN_HALF_FOV)[:, None]
        for name, value in zip(found, (vertices, world, normals, texture, projected, shading(normals, gamma))):
            found[name].append(value)
    return {name: np.stack(values) for name, values in found.items()}


def vertex_normals(vertices, triangles):
    """Sum of cross(v1 - v2, v2 - v3) over each vertex's faces, normalised."""
    sums = np.zeros_like(vertices)
    for first, second, third in triangles:
        cross = np.cross(vertices[first] - vertices[second], vertices[second] - vertices[third])
        for corner in (first, second, third):
            sums[corner] += cross
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def shading(normals, gamma):
    """sum_k Y_k gamma_k per channel, (N, 3)."""
    x, y, z = normals.T
    a0, a1, a2 = np.pi, 2 * np.pi / np.sqrt(3), 2 * np.pi / np.sqrt(8)
    c0, c1 = 1 / np.sqrt(4 * np.pi), np.sqrt(3) / np.sqrt(4 * np.pi)
    c2 = 3 * np.sqrt(5) / np.sqrt(12 * np.pi)
    harmonics = np.stack([np.full_like(x, a0 * c0), -a1 * c1 * y, a1 * c1 * z, -a1 * c1 * x, a2 * c2 * x * y,
                          -a2 * c2 * y * z, a2 * c2 * (3 * z * z - 1) / (2 * np.sqrt(3)), -a2 * c2 * x * z,
                          a2 * c2 * (x * x - y * y) / 2])
    light = gamma.reshape(3, 9).copy()
    light[:, 0] += 0.8
    return (light @ harmonics).T


# ---------------------------------------------------------------- sampled colours, NumPy
def eroded_mask(alpha):
    """Grey-scale morphology with additive 0/1 ellipses; positions outside (B, H, W) do not count."""
    def extremum(image, width, sign):
        element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)).astype(float)
        margin = width // 2
        padded = np.pad(sign * image, ((0, 0), (margin, margin), (margin, margin)), constant_values=-np.inf)
        best = np.full_like(image, -np.inf)
        for dy in range(width):
            for dx in range(width):
                moved = padded[:, dy:dy + image.shape[1], dx:dx + image.shape[2]]
                best = np.maximum(best, moved + element[dy, dx])
        return sign * best

    mask = extremum(np.asarray(alpha, np.float64), 5, 1.0) - 1.0
    for _ in range(2):
        mask = extremum(mask, 9, -1.0) + 1.0
    return mask


def sample_colors(rgba, mask, projected, normals):
    """RGB times visible, and visible (B, N, 4)."""
    size = rgba.shape[1]
    sampled = np.zeros((*projected.shape[:2], 4))
    for b, n in np.ndindex(projected.shape[:2]):
        column, row = np.clip(np.round(projected[b, n] * (size // 2) + size // 2).astype(int), 0, size - 1)
        visible = float(normals[b, n, 2] > 0) * mask[b, row, column]
        sampled[b, n] = *(rgba[b, row, column, :3] * visible), visible
    return sampled


def decisions_margin(projected, normals, size):
    """How far, in pixels, the nearest vertex inside the picture is from a choice of another pixel or side."""
    pixels = projected * (size // 2) + size // 2
    inside = ((pixels > -1) & (pixels < size)).all(axis=-1)
    to_boundary = np.abs(pixels - np.floor(pixels) - 0.5)[inside].min()
    return min(to_boundary, np.abs(normals[..., 2]).min() * size)


# ---------------------------------------------------------------- pictures
def rasterize(world, triangles, size):
    """Triangle (H, W), -1 for none, and perspective-correct weights (H, W, 3) of one face."""
    towards = CAMERA_Z - world[:, 2]
    pixels = (np.stack([world[:, 0], -world[:, 1]], axis=1) / (towards * TAN_HALF_FOV)[:, None] + 1) * size / 2
    ids, weights, nearest = np.full((size, size), -1), np.zeros((size, size, 3)), np.zeros((size, size))
    for f, corners in enumerate(triangles):
        (ax, ay), (bx, by), (cx, cy) = triangle = pixels[corners]
        low = np.clip(np.floor(triangle.min(axis=0) - 0.5).astype(int), 0, size)
        high = np.clip(np.ceil(triangle.max(axis=0) + 0.5).astype(int), 0, size)
        x, y = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5)
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0 or x.size == 0:
            continue
        flat = np.stack([(bx - x) * (cy - y) - (cx - x) * (by - y), (cx - x) * (ay - y) - (ax - x) * (cy - y),
                         (ax - x) * (by - y) - (bx - x) * (ay - y)], axis=-1) / area
        inverse = flat / towards[corners]
        closeness = inverse.sum(axis=-1)
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        wins = (flat >= 0).all(axis=-1) & (closeness > nearest[window])
        ids[window][wins], nearest[window][wins] = f, closeness[wins]
        weights[window][wins] = (inverse / closeness[..., None])[wins]
    return ids, weights


def draw(colors01, triangles, drawn):
    """RGB in [-1, 1] on -1 and coverage (B, H, W, 4) of lit colours (B, N, 3), differentiable in these."""
    pictures = []
    for colors, (ids, weights) in zip(tf.unstack(colors01), drawn):
        corners = tf.gather(colors, np.asarray(triangles)[np.maximum(ids, 0)])  # (H, W, 3, 3)
        rgb = tf.reduce_sum(corners * weights[..., None], axis=2)
        pictures.append(tf.concat([rgb * 2 - 1, (ids >= 0).astype(float)[..., None]], axis=-1))
    return tf.stack(pictures)


# ---------------------------------------------------------------- texture networks
class TextureNetwork:
    """(embedding (B, E), known (B, N, 7)) -> fine albedo (B, N, 3); which network the weights' names tell."""

    def __init__(self, hierarchy, weights):
        self.laplacians = [_dense(m) - np.eye(m.shape[0]) for m in hierarchy.laplacians]
        self.down = [_dense(m) for m in hierarchy.downsamples]
        self.up = [_dense(m) for m in hierarchy.upsamples]
        self.variables = {name: tf.Variable(value, dtype=tf.float64) for name, value in weights.items()
                          if name.startswith("mesh_generator/")}

    def weight(self, name):
        return self.variables[f"mesh_generator/{name}:0"]

    def __contains__(self, name):
        return f"mesh_generator/{name}:0" in self.variables

    def conv(self, x, scope, level, terms=TERMS):
        """Chebyshev convolution without bias: column f * terms + k of the stacked features is T_k x_f."""
        basis, move = [x], self.laplacians[level]
        if terms > 1:
            basis.append(_spread(move, x))
        while len(basis) < terms:
            basis.append(2 * _spread(move, basis[-1]) - basis[-2])
        stacked = tf.stack(basis, axis=-1)
        stacked = tf.reshape(stacked, (*x.shape[:2], x.shape[2] * terms))
        return tf.matmul(stacked, self.weight(f"{scope}/weights"))

    def elu(self, x, scope):
        return tf.nn.elu(x + self.weight(f"{scope}/bias"))

    def conv_elu(self, x, scope, level):
        return self.elu(self.conv(x, scope, level), scope)

    def block(self, x, scope, level):
        shortcut = self.conv(x, f"{scope}/shortcut", level, 1) if f"{scope}/shortcut/weights" in self else x
        y = self.elu(self.conv(x, f"{scope}/filter1", level), f"{scope}/bias_relu1")
        return self.elu(self.conv(y, f"{scope}/filter2", level) + shortcut, f"{scope}/bias_relu2")

    def dense(self, x, scope):
        return tf.nn.relu(tf.matmul(x, self.weight(f"{scope}/weights")) + self.weight(f"{scope}/bias"))

    def __call__(self, embedding, known):
        embedding, known = (tf.cast(x, tf.float64) for x in (embedding, known))
        kind = self._normal if "mesh_decoder/upconv1/weights" in self else self._resnet
        decoded, refined = kind(embedding, known)
        return tf.tanh(self.conv(tf.concat([decoded, refined], axis=-1), "mesh_concat", 0))

    def _decode(self, embedding, step):
        x = tf.reshape(self.dense(embedding, "mesh_decoder/fc"), (len(embedding), len(self.laplacians[4]), 32))
        for i, level in ((1, 3), (2, 2), (3, 1), (4, 0)):
            x = step(_spread(self.up[level], x), i, level)
        return x

    def _resnet(self, embedding, known):
        decoded = self._decode(embedding, lambda x, i, level: self.block(x, f"mesh_decoder/resblock{i}", level))
        y = self.block(known, "mesh_refiner/resblock1", 0)
        y = self.block(_spread(self.down[0], y), "mesh_refiner/resblock2", 1)
        y = self.block(y, "mesh_refiner/resblock3", 1)
        y = self.block(_spread(self.up[0], y), "mesh_refiner/resblock4", 0)
        return decoded, self.block(y, "mesh_refiner/resblock5", 0)

    def _normal(self, embedding, known):
        decoded = self._decode(embedding, lambda x, i, level: self.conv_elu(x, f"mesh_decoder/upconv{i}", level))
        decoded = self.conv_elu(decoded, "mesh_decoder", 0)
        y = self.conv(known, "mesh_refiner/graph_conv0", 0)
        skips = {}
        for i in (1, 2, 3, 4):
            y = skips[i] = self.conv_elu(_spread(self.down[i - 1], y), f"mesh_refiner/graph_conv{i}", i)
        shape = y.shape
        y = self.dense(tf.reshape(y, (shape[0], shape[1] * shape[2])), "mesh_refiner/fc")
        y = tf.reshape(self.dense(y, "mesh_refiner/fc2"), shape)
        for i, level in ((5, 3), (6, 2), (7, 1), (8, 0)):
            y = _spread(self.up[level], y)
            if level in (3, 2):
                y = tf.concat([y, skips[level]], axis=-1)
            y = self.conv_elu(y, f"mesh_refiner/graph_conv{i}", level)
        return decoded, self.conv_elu(y, "mesh_refiner", 0)

    def regularization(self):
        """5e-4 * sum of squares / 2 over the dense layers' weights and biases."""
        dense = [v for name, v in self.variables.items() if name.split("/")[-2] in ("fc", "fc2")]
        return L2 * sum(tf.reduce_sum(v * v) / 2 for v in dense)


def _dense(matrix):
    return np.asarray(matrix.todense(), np.float64)


def _spread(matrix, x):
    """M x for each image: (M, N) times (B, N, F)."""
    return tf.einsum("mn,bnf->bmf", tf.constant(matrix), x)


# ---------------------------------------------------------------- the whole
def released_run(model, hierarchy, weights, rgba, coeff, embedding, lambdas, identity=0.0, critic=None):
    """One evaluation of the released code: outputs and losses by name, and gradients of ``all_loss``.

    Args:
        lambdas: dict with ``render``, ``refine``, ``symmetry``, ``variance``, ``adversarial``.
        identity: value of 0.2 times the identity term, a constant here.
        critic: a ``Critic``, for the adversarial term; None leaves it out.

    Returns:
        outputs (dict of arrays), losses (dict of floats), gradients (dict of arrays by TF1 name).
    """
    rgba, size = np.asarray(rgba, np.float64), rgba.shape[1]
    outputs = geometry(model, coeff)
    mask = eroded_mask(rgba[..., 3])
    sampled = sample_colors(rgba, mask, outputs["projected"], outputs["normals"])
    drawn = [rasterize(world, model.triangles, size) for world in outputs["world"]]
    coarse, light = outputs["coarse_texture"], outputs["shading"]
    coarse_color = np.clip((coarse + 1) / 2 * light, 0, 1)
    network = TextureNetwork(hierarchy, weights)
    with tf.GradientTape() as tape:
        fine = network(embedding, np.concatenate([coarse, sampled], axis=-1))
        fine_color = tf.clip_by_value((fine + 1) / 2 * light, 0.0, 1.0)
        outputs |= {"fine_texture": fine, "fine_color": fine_color * 2 - 1, "coarse_color": coarse_color * 2 - 1,
                    "projected_color": sampled, "skin_mask": mask[..., None],
                    "coarse_render": draw(tf.constant(coarse_color), model.triangles, drawn),
                    "fine_render": draw(fine_color, model.triangles, drawn)}
        losses = _losses(outputs, rgba, model)
        total = lambdas["refine"] * losses["refine"] + lambdas["render"] * (
            losses["project"] + identity + lambdas["symmetry"] * losses["symmetry"]
            + lambdas["variance"] * losses["variance"])
        losses["regularization"] = network.regularization()
        total += losses["regularization"]
        if critic is not None:
            losses["adversarial"] = -tf.reduce_mean(critic(overlay(outputs["fine_render"], rgba)))
            total += lambdas["adversarial"] * losses["adversarial"]
        losses["total"] = total
    gradients = tape.gradient(total, network.variables)
    return ({name: np.asarray(value) for name, value in outputs.items()},
            {name: float(value) for name, value in losses.items()},
            {name: value.numpy() for name, value in gradients.items()})


def _losses(outputs, rgba, model):
    fine, visible = outputs["fine_texture"], outputs["projected_color"][..., 3:]
    region = outputs["skin_mask"] * np.round(outputs["fine_render"][..., 3:])
    seen = tf.abs((outputs["fine_color"] - outputs["projected_color"][..., :3]) * visible)
    hidden = tf.abs((outputs["fine_color"] - outputs["coarse_color"]) * (1 - visible))
    skin = tf.gather(fine, model.skin_index, axis=1)
    left, right = (tf.gather(fine, model.symmetry_pairs[:, side], axis=1) for side in (0, 1))
    return {"refine": tf.reduce_mean(tf.abs(fine - outputs["coarse_texture"])),
            "project": tf.reduce_mean(seen) + 0.3 * tf.reduce_mean(hidden),
            "pixel": _pixel(outputs["fine_render"], rgba, region),
            "coarse_pixel": _pixel(outputs["coarse_render"], rgba, region),
            "symmetry": tf.reduce_mean(tf.sqrt(tf.reduce_sum((left - right) ** 2 + 1e-16, axis=-1))),
            "variance": tf.reduce_mean(tf.math.reduce_variance(skin, axis=1))}


def _pixel(render, rgba, region):
    return tf.reduce_sum(tf.abs(render[..., :3] - rgba[..., :3]) * region) / tf.reduce_sum(region)


def overlay(render, rgba):
    """The render where it covers the unshrunk skin mask, the photo elsewhere."""
    inside = render[..., 3:] * rgba[..., 3:]
    return render[..., :3] * inside + rgba[..., :3] * (1 - inside)


# ---------------------------------------------------------------- critic
class Critic:
    """Score (B,) of images (B, H, W, 3); batch norm by the batch's own moments, as in training."""

    def __init__(self, weights, training=True):
        self.training = training
        self.variables = {name: tf.Variable(value, dtype=tf.float64, trainable="moving" not in name)
                          for name, value in weights.items()}

    def weight(self, name):
        return self.variables[f"image_disc/{name}:0"]

    def __call__(self, x):
        x = tf.cast(x, tf.float64)
        for i in range(1, len(CRITIC_WIDTHS) + 1):
            scope = f"conv{i}_1"
            if i > 1:
                x = tf.nn.max_pool2d(x, 2, 2, "SAME")
            x = tf.nn.conv2d(x, self.weight(f"{scope}/weights"), 1, "SAME") + self.weight(f"{scope}/bias")
            if self.training:
                mean, variance = tf.reduce_mean(x, (0, 1, 2)), tf.math.reduce_variance(x, (0, 1, 2))
            else:
                mean, variance = (self.weight(f"{scope}/BatchNorm/moving_{m}") for m in ("mean", "variance"))
            x = (x - mean) / tf.sqrt(variance + 0.001) + self.weight(f"{scope}/BatchNorm/beta")
            x = tf.where(x > 0, x, 0.2 * x)
        return tf.reduce_sum(x * self.weight("outputs/weights")[..., 0], axis=(1, 2, 3)) + self.weight("outputs/bias")

    def losses(self, real, fake, share):
        """WGAN-GP terms and the gradients of ``critic`` by TF1 name; ``share`` (B, 1, 1, 1) of the photo."""
        real, fake = (tf.constant(np.asarray(image, np.float64)) for image in (real, fake))
        trained = {name: v for name, v in self.variables.items() if v.trainable}
        between = share * real + (1 - share) * fake
        with tf.GradientTape() as tape:
            distance = tf.reduce_mean(self(real)) - tf.reduce_mean(self(fake))
            with tf.GradientTape() as inner:
                inner.watch(between)
                score = tf.reduce_sum(self(between))
            lengths = tf.sqrt(tf.reduce_sum(inner.gradient(score, between) ** 2, axis=(1, 2, 3)))
            penalty = 10.0 * tf.reduce_mean((lengths - 1) ** 2)
            total = penalty - distance
        gradients = {name: g.numpy() for name, g in tape.gradient(total, trained).items()}
        return {"critic": float(total), "wasserstein": float(distance), "gradient_penalty": float(penalty)}, gradients
