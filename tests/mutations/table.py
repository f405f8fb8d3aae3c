"""The formulas that are broken on purpose: each with its place, its change, and the tests that have to notice."""

from __future__ import annotations

from pathlib import PurePath
from typing import NamedTuple


class Mutation(NamedTuple):
    """One formula, broken.

    Attributes:
        file: path from the root of the tree.
        formula: what the formula says; with the kind it names the mutation.
        kind: ``sign``, ``factor``, ``axis`` (another component, a transpose, two swapped) or ``term`` (one left out).
        old: text that occurs exactly once in the file.
        new: what takes its place.
        tests: files of tests (from ``tests/``) that run until one fails.
    """

    file: str
    formula: str
    kind: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        """For ``--only`` and the table: the module, the formula and the kind."""
        return f"{PurePath(self.file).stem}: {self.formula}, {self.kind}"


def _of(file: str, tests: tuple[str, ...], *rows: tuple[str, str, str, str]) -> list[Mutation]:
    """Mutations of one file; a row that needs other tests than the file's begins with them."""
    return [Mutation(file, *row[-4:], tests=row[0] if len(row) == 5 else tests) for row in rows]


_LIGHTING = _of(
    "facegcn/lighting.py", ("test_lighting.py",),
    ("constant harmonic", "factor", "_A0 * _C0 * tf.ones_like(x),", "_A1 * _C0 * tf.ones_like(x),"),
    ("harmonic of y", "sign", "        -_A1 * _C1 * y,", "        _A1 * _C1 * y,"),
    ("harmonic of z", "axis", "        _A1 * _C1 * z,", "        _A1 * _C1 * y,"),
    ("harmonic of x z", "axis", "-_A2 * _C2 * x * z,", "-_A2 * _C2 * x * y,"),
    ("harmonic of 3 z^2 - 1", "sign", "(3 * z * z - 1)", "(3 * z * z + 1)"),
    ("harmonic of x^2 - y^2", "factor", "_A2 * _C2 / 2 * (x * x - y * y)", "_A2 * _C2 * (x * x - y * y)"),
    ("norm of order 2", "factor", "math.sqrt(5) / math.sqrt(12 * math.pi)", "math.sqrt(5) / math.sqrt(4 * math.pi)"),
    ("ambient offset", "sign", "(-1, 3, HARMONICS)) + offset", "(-1, 3, HARMONICS)) - offset"),
    ("channels of gamma", "axis", "tf.reshape(gamma, (-1, 3, HARMONICS)) + offset",
     "tf.transpose(tf.reshape(gamma, (-1, HARMONICS, 3)), (0, 2, 1)) + offset"),
    ("lit colour", "sign", "clip_by_value(albedo01 * shading", "clip_by_value(albedo01 / shading"),
    ("metered exposure", "sign", "0.9 * (0.5 / skin) ** 0.1", "0.9 * (skin / 0.5) ** 0.1"),
    ("metered exposure", "factor", "0.9 * (0.5 / skin)", "0.8 * (0.5 / skin)"),
    ("frontal brightness", "factor", "2.0 / 3.0 * mean[:, 2]", "1.0 / 3.0 * mean[:, 2]"),
    ("frontal brightness", "axis", "3.0 * mean[:, 2]", "3.0 * mean[:, 1]"),
    ("frontal brightness", "sign", "+ _A2 * _C2 / (4.0", "- _A2 * _C2 / (4.0"),
    ("fitted light's residual", "sign", "colors01 - albedo01 * shading", "colors01 + albedo01 * shading"),
    ("fitted light's matrix", "factor", "albedo01 * albedo01 * weight", "albedo01 * weight"),
    ("fitted light's ridge", "factor", "pull = ridge * tf", "pull = 100 * ridge * tf"),
    ("fitted light's step", "sign", "gamma + tf.reshape(change", "gamma - tf.reshape(change"))

_CAMERA = _of(
    "facegcn/camera.py", ("test_geometry.py", "test_renderer.py"),
    ("projection, y down", "sign", "tf.constant([1.0, -1.0]) / (depth", "tf.constant([1.0, 1.0]) / (depth"),
    ("projection's depth", "sign", "depth = CAMERA_DISTANCE - vertices", "depth = CAMERA_DISTANCE + vertices"),
    ("projection's lens", "factor", "(depth * TAN_HALF_FOV)", "(2 * depth * TAN_HALF_FOV)"),
    (("test_sampling.py", "test_geometry.py"), "pixels", "factor", "* (size / 2) + size / 2",
     "* (size / 2) + (size - 1) / 2"),
    ("clip space's origin", "sign", "transform(vertices - tf", "transform(vertices + tf"),
    ("homogeneous transform", "axis", "transpose_b=True) + offset", "transpose_b=False) + offset"),
    ("homogeneous transform's offset", "axis", "matrices[:, :, 3]", "matrices[:, 3, :]"),
    ("half the field of view", "factor", "math.radians(FOV_Y) / 2", "math.radians(FOV_Y)"),
    ("perspective's angle", "factor", "math.pi / 360.0", "math.pi / 180.0"),
    ("perspective's aspect ratio", "factor", "focal / aspect_ratio", "focal * aspect_ratio"),
    ("perspective's depth", "sign", "(near + far) / (near - far)", "(near + far) / (far - near)"),
    ("perspective's depth", "factor", "2.0 * near * far", "near * far"),
    ("perspective's w", "sign", "(zero, zero, -one, zero)", "(zero, zero, one, zero)"),
    ("view's side", "sign", "cross(forward, world_up)", "cross(world_up, forward)"),
    ("view's up", "sign", "cross(side, forward)", "cross(forward, side)"),
    ("view's third axis", "sign", "[side, up, -forward]", "[side, up, forward]"),
    ("view's offset", "sign", "offset = -tf.matmul", "offset = tf.matmul"))

_GEOMETRY = _of(
    "facegcn/geometry.py", ("test_geometry.py",),
    ("rotation", "sign", "sin_y * sin_x - sin_z * cos_x", "sin_y * sin_x + sin_z * cos_x"),
    ("rotation's last row", "sign", "(-sin_y, cos_y", "(sin_y, cos_y"),
    ("rotation's angles", "axis", "sin_x, sin_y, sin_z = ", "sin_x, sin_z, sin_y = "),
    ("turned points", "axis", "rotation_matrix(angles), transpose_b=True",
     "rotation_matrix(angles), transpose_b=False"),
    ("normals (TensorFlow)", "sign", "cross(first - second, second - third)", "cross(second - third, first - second)"),
    ("normals (TensorFlow)", "axis", "cross(first - second, second - third)", "cross(first, second - third)"),
    (("test_geometry.py", "test_photometric_fitting.py"), "normals (NumPy)", "sign", "x * x + y * y + z * z",
     "x * x + y * y - z * z"))

_COMPLETION = _of(
    "facegcn/completion.py", ("test_completion.py", "test_face.py"),
    ("trust by angle", "axis", "tf.float32)[..., 2], 0.0, 1.0)", "tf.float32)[..., 1], 0.0, 1.0)"),
    ("trust by angle", "factor", "1.0) ** GRAZING_POWER", "1.0)"),
    ("trust by likelihood", "sign", "(1.0 + (difference / UNLIKELY) ** 2)", "(1.0 - (difference / UNLIKELY) ** 2)"),
    ("trust by likelihood", "factor", "(difference / UNLIKELY) ** 2", "(difference / UNLIKELY)"),
    ("belief in a correction", "sign", "1.0 - shown * (1.0 -", "1.0 - shown * (1.0 +"),
    ("belief in a correction", "factor", "(farthest / UNKNOWN) ** 2", "(farthest / UNKNOWN)"),
    ("shown or hidden", "factor", "+ LITTLE_TRUST)", "+ 2 * LITTLE_TRUST)"),
    ("adjacency", "axis", "(half + half.T)", "(half + half)"),
    ("trust in the mirror image", "sign", "MIRROR_TRUST * (1.0 - own)", "MIRROR_TRUST * (1.0 + own)"),
    ("trust in the mirror image", "axis", "tf.gather(own, self._mirror)", "own"),
    ("seen difference", "sign", "seen - coarse, 0.0", "coarse - seen, 0.0"),
    ("difference at the mirror image", "axis", "mirrored * tf.gather(difference, self._mirror)",
     "mirrored * difference"),
    ("pull to the coarse albedo", "factor", "DECAY * (1.0 - own)", "4 * DECAY * (1.0 - own)"),
    ("relaxation", "sign", "wanted + SMOOTHNESS * around", "wanted - SMOOTHNESS * around"),
    ("relaxation's weight", "factor", "(1.0 - own) + SMOOTHNESS * self._degree",
     "(1.0 - own) + 2 * SMOOTHNESS * self._degree"),
    ("completed albedo", "sign", "clip_by_value(coarse + found", "clip_by_value(coarse - found"))

_MORPHABLE = _of(
    "facegcn/morphable.py", ("test_morphable.py",),
    ("vertices' centroid", "sign", "(self.mean_shape - self._centroid)[None]",
     "(self.mean_shape + self._centroid)[None]"),
    ("vertices' expression", "sign", "id) + _combine(exp_basis", "id) - _combine(exp_basis"),
    ("vertices' identity", "factor", "_combine(id_basis, id) + ", "0.5 * _combine(id_basis, id) + "),
    ("albedo", "sign", "self.mean_albedo[None] + _combine", "self.mean_albedo[None] - _combine"),
    ("albedo's range", "factor", "tex), 0.0, 255.0)", "tex), 0.0, 1.0)"),
    ("basis by coefficients", "axis", "flat = tf.reshape(basis, ",
     "flat = tf.reshape(tf.transpose(basis, (1, 0, 2)), "),
    ("cut of a coefficient vector", "axis", "coeff[..., stop - size:stop]", "coeff[..., stop - 1:stop - size - 1:-1]"),
    ("five points' centroid", "sign", "[self.landmarks] - self._centroid", "[self.landmarks] + self._centroid"))

_LOSSES = _of(
    "facegcn/losses.py", ("test_losses.py",),
    ("render weight's rise", "factor", "_RENDER_RISE = 0.2", "_RENDER_RISE = 0.1"),
    ("render weight's start", "sign", "_RENDER_RISE * epoch + render_start", "_RENDER_RISE * epoch - render_start"),
    ("least refine weight", "factor", "_LEAST_REFINE = 0.2", "_LEAST_REFINE = 0.1"),
    ("refine weight of the paper", "sign", '1.0 - render if kind == "paper"', 'render if kind == "paper"'),
    ("refine", "sign", "difference = fine - coarse", "difference = fine + coarse"),
    ("refine", "factor", "tf.square(difference) if squared", "2 * tf.square(difference) if squared"),
    ("project, seen", "sign", "fine_color * visible - target", "fine_color * visible + target"),
    ("project, hidden", "sign", "(fine_color - coarse_color) *", "(fine_color + coarse_color) *"),
    ("project, hidden share", "sign", "* (1.0 - visible)))", "* (1.0 + visible)))"),
    ("project, hidden weight", "factor", "_HIDDEN_WEIGHT = 0.3", "_HIDDEN_WEIGHT = 0.6"),
    ("project, masked twice", "term", "projected_color[..., :3] * visible if", "projected_color[..., :3] if"),
    ("pixel", "sign", "(render[..., :3] - rgba[..., :3]) * mask", "(render[..., :3] + rgba[..., :3]) * mask"),
    ("pixel's norm", "factor", "no_nan(tf.reduce_sum(distance),",
     "no_nan(3.0 * tf.reduce_sum(distance),"),
    ("pixel, euclidean", "axis", "tf.reduce_sum(tf.square(difference), axis=-1) + _TINY",
     "tf.reduce_sum(tf.square(difference), axis=1) + _TINY"),
    ("pixel's mask", "term", 'mask = mask * tf.stop_gradient(tf.round(outputs["fine_render"][..., 3:]))',
     "mask = mask * 1.0"),
    ("symmetry", "sign", "pairs[:, 0], axis=1) - tf.gather", "pairs[:, 0], axis=1) + tf.gather"),
    ("symmetry", "axis", "tf.gather(texture, pairs[:, 1], axis=1)", "tf.gather(texture, pairs[:, 0], axis=1)"),
    ("variance", "sign", "tf.square(texture - mean)", "tf.square(texture + mean)"),
    ("variance's weights", "factor", "(counts / len(skin_index))", "(counts / len(counts))"),
    ("identity", "sign", "1.0 - tf.reduce_mean(tf.reduce_sum(features", "1.0 + tf.reduce_mean(tf.reduce_sum(features"),
    ("identity's lengths", "factor", "tf.norm(features, axis=1) * tf.norm(other, axis=1)",
     "tf.norm(features, axis=1) * tf.norm(features, axis=1)"),
    ("distance from the truth", "sign", "tf.abs(texture - tf.where(known", "tf.abs(texture + tf.where(known"),
    ("distance from the truth, known rows", "term", "truth, 0.0)) * tf.cast(known, tf.float32)", "truth, 0.0))"),
    (("test_second_view.py",), "second view's picture", "sign", "(texture - truth) * 0.5", "(texture + truth) * 0.5"),
    (("test_second_view.py",), "second view's picture", "factor", "* weight) * 2.0, 3.0", "* weight) * 2.0, 1.0"),
    (("test_second_view.py",), "second view's light", "term", "* 0.5 * light * 0.5 + 0.5", "* 0.5 * 0.5 + 0.5"),
    ("critic", "sign", '"critic": penalty - distance', '"critic": penalty + distance'),
    ("distance of critic's scores", "sign", "critic(real, training=True)) - tf", "critic(real, training=True)) + tf"),
    ("gradient penalty", "sign", "tf.sqrt(squares + _TINY) - 1.0", "tf.sqrt(squares + _TINY) + 1.0"),
    ("gradient penalty", "factor", "_GRADIENT_PENALTY = 10.0", "_GRADIENT_PENALTY = 1.0"),
    ("gradient penalty", "axis", "axis=[1, 2, 3])\n    return _GRADIENT", "axis=[0, 1, 2, 3])\n    return _GRADIENT"),
    ("gradient penalty's point", "axis", "share * real + (1.0 - share) * fake", "share * fake + (1.0 - share) * real"),
    ("adversarial", "sign", "return -tf.reduce_mean(critic(overlay", "return tf.reduce_mean(critic(overlay"),
    ("total, symmetry and variance", "sign", 'terms["symmetry"] + weights.variance',
     'terms["symmetry"] - weights.variance'),
    ("total, identity", "factor", "from_picture = weights.identity *", "from_picture = 2 * weights.identity *"),
    ("total, pixel", "sign", "from_picture += weights.pixel", "from_picture -= weights.pixel"),
    ("total of the paper's schedule", "sign", 'weights.refine * (terms["refine"] + terms["project"])',
     'weights.refine * (terms["refine"] - terms["project"])'),
    ("total, regularisation", "sign", 'total + terms.get("regularization"', 'total - terms.get("regularization"'))

_SAMPLING = _of(
    "facegcn/sampling.py", ("test_sampling.py", "test_visibility.py"),
    ("closed mask", "factor", "_DILATION = 5", "_DILATION = 3"),
    ("eroded mask", "factor", "for _ in range(2):", "for _ in range(1):"),
    ("eroded mask", "sign", "mask = 1.0 - _dilate(1.0 - mask, erosion)", "mask = _dilate(mask, erosion)"),
    ("ellipse", "axis", "int((row_widths >= w).sum()), int(w)", "int(w), int(w)"),
    ("released pixel", "factor", "tf.round(points * half + half)", "tf.floor(points * half + half)"),
    ("released pixel", "axis", "tf.shape(rgba)[2:0:-1] // 2", "tf.shape(rgba)[1:3] // 2"),
    ("released sample's visibility", "term", "visible = facing * sampled[..., 3:]", "visible = sampled[..., 3:]"),
    ("sample's visibility", "term", "return facing * _bilinear", "return _bilinear"),
    ("sampled colour's mask", "term", "rgba[..., :3] * mask, mask], axis=-1), points)",
     "rgba[..., :3], mask], axis=-1), points)"),
    ("pixel centre", "sign", "points * half + half - 0.5", "points * half + half + 0.5"),
    ("bilinear weights", "axis", "right, down = tf.split", "down, right = tf.split"),
    ("bilinear rows", "sign", "upper * (1.0 - down) + lower * down", "upper * down + lower * (1.0 - down)"),
    ("bilinear columns", "sign", "corner) * (1.0 - right) + _pixels(image, corner + (1, 0)) * right",
     "corner) * right + _pixels(image, corner + (1, 0)) * (1.0 - right)"),
    ("picture's half", "axis", "tf.shape(image)[2:0:-1], tf.float32) / 2.0", "tf.shape(image)[1:3], tf.float32) / 2.0"),
    ("pixel's number", "axis", "row * width + column", "column * width + row"),
    ("seen colour", "sign", "* 0.5 + 0.5\n\n\ndef delit", "* 0.5 - 0.5\n\n\ndef delit"),
    ("de-lit colour", "factor", "seen_colors01(projected_color) / tf.maximum",
     "seen_colors01(projected_color) * tf.maximum"),
    ("de-lit colour's darkest light", "factor", "_DARKEST_SHADING = 0.1", "_DARKEST_SHADING = 0.01"),
    ("de-lit albedo", "sign", "(albedo01 * 2.0 - 1.0)", "(albedo01 * 2.0 + 1.0)"),
    ("depth test", "sign", "front - world[..., 2] < DEPTH", "world[..., 2] - front < DEPTH"),
    ("depth test's pixel", "axis", "pixels[..., ::-1], batch_dims=1", "pixels, batch_dims=1"),
    ("depth test's background", "sign", "-camera.FAR))", "camera.FAR))"),
    ("depth test's tolerance", "factor", "DEPTH_TOLERANCE = 0.05", "DEPTH_TOLERANCE = 5.0"))

_FITTING = _of(
    "facegcn/fitting.py", ("test_fitting.py", "test_regressor_errors.py"),
    ("lit coarse face", "sign", '["coarse_texture"] * 0.5 + 0.5)', '["coarse_texture"] * 0.5 - 0.5)'),
    ("landmark pixels of any crop", "factor", "(CROP_PIXELS / face_model.image_size) ** 2",
     "(CROP_PIXELS / face_model.image_size)"),
    ("total, exposure", "sign", '+ EXPOSURE_WEIGHT * terms["exposure"]', '- EXPOSURE_WEIGHT * terms["exposure"]'),
    ("total, landmarks", "factor", 'LANDMARK_WEIGHT * terms["landmark"]', '2 * LANDMARK_WEIGHT * terms["landmark"]'),
    ("photometric distance", "sign", "(rgba[..., :3] - render[..., :3]) * 0.5",
     "(rgba[..., :3] + render[..., :3]) * 0.5"),
    ("photometric distance", "factor", "render[..., :3]) * 0.5)", "render[..., :3]) * 1.0)"),
    ("photometric distance's pixels", "term", "rgba[..., 3] * tf.stop_gradient(render[..., 3])",
     "tf.stop_gradient(render[..., 3])"),
    ("landmarks in pixels", "sign", "projected * (size / 2.0) + size / 2.0", "projected * (size / 2.0) - size / 2.0"),
    ("jaw's importance", "factor", "importance[:17] = 0.1", "importance[:17] = 1.0"),
    ("landmark distance", "factor", "trust * 2.0 * squared", "trust * squared"),
    ("landmark distance", "sign", "five], axis=1) - tf.where", "five], axis=1) + tf.where"),
    ("prior of expression", "factor", '"exp": 0.8', '"exp": 1.6'),
    ("grey light", "sign", "tf.square(gamma - grey)", "tf.square(gamma + grey)"),
    ("grey light", "axis", "tf.reduce_mean(gamma, axis=1, keepdims", "tf.reduce_mean(gamma, axis=2, keepdims"),
    ("exposure", "sign", "light / metered_exposure", "light * metered_exposure"),
    ("exposure", "factor", "tf.square(tf.math.log(exposure))", "tf.math.log(exposure)"),
    ("skin's brightness", "sign", "mean + tf.reduce_sum(tex * basis", "mean - tf.reduce_sum(tex * basis"),
    ("regressor's bias", "sign", "regressed + self._errors.bias", "regressed - self._errors.bias"),
    ("joined statement", "sign", "alone + share * (self", "alone - share * (self"),
    ("joined precision", "sign", "precision[b] += share * self", "precision[b] -= share * self"),
    ("contradicted regressor", "sign", "share /= self._contradiction", "share *= self._contradiction"),
    ("contradiction", "factor", "expected, apart)) / POSE_SIZE", "expected, apart))"),
    ("contradiction", "sign", "apart = (parameters - word)", "apart = (parameters + word)"),
    ("five points of dense ones", "sign", "*= ~(dense_trust", "*= (dense_trust"),
    ("knowledge beyond the prior", "sign", "(axes * (lengths - 1.0))", "(axes * (lengths + 1.0))"),
    ("knowledge beyond the prior", "axis", "known = lengths > 1.0", "known = lengths < 1.0"),
    ("knowledge beyond the prior", "factor", "axes, lengths = root[:, None] * axes",
     "axes, lengths = axes / root[:, None]"),
    ("statement of a mean", "sign", "(axes * lengths) @ axes.T", "(axes * (lengths - 1.0)) @ axes.T"))

_LANDMARK_FITTING = _of(
    "facegcn/landmark_fitting.py", ("test_landmark_fitting.py",),
    ("rotation about x", "sign", "[0, cx, -sx], [0, sx, cx]", "[0, cx, sx], [0, -sx, cx]"),
    ("rotation's slope about y", "sign", "[-cy, 0, -sy]", "[cy, 0, -sy]"),
    ("rotation's slope", "axis", "derivatives[axis] = z @ y @ x", "derivatives[axis] = x @ y @ z"),
    ("angles of a matrix", "sign", "np.clip(-matrix[2, 0]", "np.clip(matrix[2, 0]"),
    ("angles of a matrix", "axis", "np.arctan2(matrix[1, 0], matrix[0, 0])", "np.arctan2(matrix[0, 1], matrix[0, 0])"),
    ("projection", "sign", "world[:, :2] * (1.0, -1.0) * scale", "world[:, :2] * (1.0, 1.0) * scale"),
    ("projection's focal length", "factor", "CROP_PIXELS / (2.0 * camera.TAN_HALF_FOV)",
     "CROP_PIXELS / camera.TAN_HALF_FOV"),
    ("projection's slope", "sign", "lens[:, 1, 1] = scale, -scale", "lens[:, 1, 1] = scale, scale"),
    ("projection's slope along the view", "sign", "= (pixels - CROP_PIXELS / 2.0) / depth",
     "= (CROP_PIXELS / 2.0 - pixels) / depth"),
    ("turn's slope", "axis", "\"aij,mj->mia\", turn_slopes", "\"aji,mj->mia\", turn_slopes"),
    ("Huber's weight", "factor", "np.minimum(1.0, HUBER / np", "np.minimum(1.0, 10 * HUBER / np"),
    ("shared errors taken off", "sign", "(errors - self.factors @ shared)", "(errors + self.factors @ shared)"),
    ("pull of the prior", "sign", "@ (x - self.prior_mean)\n        gradient",
     "@ (x + self.prior_mean)\n        gradient"),
    ("gradient's shared errors", "sign", "errors - common_slopes.T @ common + pull",
     "errors + common_slopes.T @ common + pull"),
    ("Hessian's shared errors", "sign", "jacobian - common_slopes.T @ common_slopes",
     "jacobian + common_slopes.T @ common_slopes"),
    ("Woodbury's identity", "factor", "+ scaled.T @ scaled)", "+ 4 * scaled.T @ scaled)"),
    ("whitening", "factor", "np.sqrt(weights) / self.noise", "weights / self.noise"),
    ("step", "sign", "np.diag(np.diag(hessian)), -gradient)", "np.diag(np.diag(hessian)), gradient)"),
    ("affine camera, y down", "sign", "(targets - CROP_PIXELS / 2.0) * (1.0, -1.0)",
     "(targets - CROP_PIXELS / 2.0) * (1.0, 1.0)"),
    ("affine camera's third row", "sign", "np.cross(rows[0], rows[1])", "np.cross(rows[1], rows[0])"),
    ("affine camera's depth", "sign", "[camera.CAMERA_DISTANCE - depth]", "[camera.CAMERA_DISTANCE + depth]"),
    ("affine camera's place", "sign", "/ _FOCAL - moved[:2]", "/ _FOCAL + moved[:2]"),
    ("flat similarity", "sign", "points[:, 0] * targets[:, 1] - points", "points[:, 0] * targets[:, 1] + points"),
    ("flat similarity", "axis", "[[real, -imaginary], [imaginary, real]]", "[[real, imaginary], [-imaginary, real]]"),
    ("detector's bias", "sign", "points - surface.bias @", "points + surface.bias @"),
    ("bias turned with the head", "sign", "np.array([0.0, 0.0, -x[-4]])", "np.array([0.0, 0.0, x[-4]])"),
    ("pixels of any crop", "factor", "points[b] * (CROP_PIXELS / image_size)",
     "points[b] * (image_size / CROP_PIXELS)"),
    ("prior of pose", "factor", "POSE_PRIOR ** -2])", "POSE_PRIOR ** 2])"))

_PHOTOMETRIC_TERMS = _of(
    "facegcn/photometric_terms.py", ("test_photometric_fitting.py",),
    ("harmonic of y z", "sign", "-second * y * z,", "second * y * z,"),
    ("harmonic's slope by z", "factor", "6 * middle * z", "3 * middle * z"),
    ("harmonic's slope by y", "sign", "slopes[:, 8, 1] = second * x, -second * y",
     "slopes[:, 8, 1] = second * x, second * y"),
    ("harmonic's slope", "axis", "slopes[:, 4, 0], slopes[:, 4, 1] = ", "slopes[:, 4, 1], slopes[:, 4, 0] = "),
    ("pixel centre", "factor", "np.clip(pixels - 0.5, 0.0,", "np.clip(pixels, 0.0,"),
    ("between pixels", "sign", "upper * (1 - down) + lower * down", "upper * down + lower * (1 - down)"),
    ("between pixels", "axis", "corner[:, 1] * width + corner[:, 0]", "corner[:, 0] * width + corner[:, 1]"),
    ("ambient offset", "sign", "light[:, 0] += AMBIENT_OFFSET", "light[:, 0] -= AMBIENT_OFFSET"),
    ("residual", "sign", "albedo * shading - photo,", "albedo * shading + photo,"),
    ("turned normals", "axis", 'place["normals"][rows] @ rotation(angles)[0].astype(np.float32).T',
     'place["normals"][rows] @ rotation(angles)[0].astype(np.float32)'),
    ("albedo beyond the basis", "sign", "albedo = albedo + beyond[rows]",
     "albedo = albedo - beyond[rows]"),
    ("slope by place", "sign", "by_world = -gradient @", "by_world = gradient @"),
    ("slope by place", "axis", "[layers[:, 3:6], layers[:, 6:9]], axis=2", "[layers[:, 6:9], layers[:, 3:6]], axis=2"),
    ("slope by shape", "axis", "[by_world @ turn, by_normal @ turn]", "[by_world @ turn.T, by_normal @ turn.T]"),
    ("slope by angles", "sign", '            + by_normal @ np.einsum("aij', '            - by_normal @ np.einsum("aij'),
    ("slope by albedo", "term", "self._albedo_basis[rows] * shading[:, :, None]", "self._albedo_basis[rows]"),
    ("slope by light", "sign", "HARMONICS] = albedo[:, channel, None] * values",
     "HARMONICS] = -albedo[:, channel, None] * values"),
    ("overexposed", "sign", "(colors > _WHITE) & (errors > 0)", "(colors > _WHITE) & (errors < 0)"),
    ("details' mean", "sign", "self._bare + details.mean", "self._bare - details.mean"),
    ("coarse basis", "term", "self._albedo_basis[rows, :, :self.basis_size]", "self._albedo_basis[rows]"),
    ("pixels, y down", "sign", "np.float32((1, -1)) * scale", "np.float32((1, 1)) * scale"),
    ("viewing angle", "sign", "camera.CAMERA_DISTANCE)) - world", "camera.CAMERA_DISTANCE)) + world"),
    ("lens", "sign", "-world[:, 1] * scale / depth", "world[:, 1] * scale / depth"),
    ("normals' slope by the edges", "sign", "second) + np.cross(first, d_second)",
     "second) - np.cross(first, d_second)"),
    ("normals' slope", "sign", "change - normals * along", "change + normals * along"))

_PHOTOMETRIC_FITTING = _of(
    "facegcn/photometric_fitting.py", ("test_photometric_fitting.py",),
    ("prior of light", "sign", "parameters, self._light.mean", "parameters, -self._light.mean"),
    ("prior of light", "factor", "LIGHT_WEIGHT * self._light.precision", "self._light.precision"),
    ("coarse albedo, weight of a photo", "term", "weights = share * np.repeat", "weights = np.repeat"),
    ("coarse albedo, prior", "term", "matrix, vector = np.eye(len(tex)),", "matrix, vector = 1e-9 * np.eye(len(tex)),"),
    ("coarse albedo, residual", "sign", "astype(np.float32)) * shading - colors",
     "astype(np.float32)) * shading + colors"),
    ("coarse albedo, overexposed", "term", " * known.ravel()", ""),
    ("coarse albedo in the quality", "term", "self.quality(u, layers, tex)", "self.quality(u, layers)"),
    ("pull of the prior", "sign", "found[1] + prior @ (u - prior_mean)", "found[1] - prior @ (u - prior_mean)"),
    ("step", "sign", "u = u - np.linalg.solve", "u = u + np.linalg.solve"),
    ("gradient", "sign", "((errors.ravel() * root) @", "(-(errors.ravel() * root) @"),
    ("albedo beyond the basis", "sign", "found[rows] = -errors /",
     "found[rows] = errors /"),
    ("weight of what is beyond", "term", '.mean(axis=1) ** 2 * place["facing"][rows] /',
     ".mean(axis=1) ** 2 /"),
    ("depth test", "sign", "(surface - world[:, 2] < DEPTH", "(world[:, 2] - surface < DEPTH"),
    ("depth in clip space", "sign", "* depth - 2 * camera.FAR * _NEAR", "* depth + 2 * camera.FAR * _NEAR"),
    ("pixel of a vertex", "axis", "column, row = np.clip", "row, column = np.clip"),
    ("face's colours", "term", "np.clip(albedo * (harmonics", "np.clip((harmonics"),
    ("robust deviation", "factor", "_MEDIAN_LENGTH = 0.888", "_MEDIAN_LENGTH = 0.0888"),
    ("explained", "sign", "np.maximum(1 - (off / (_BIWEIGHT", "np.maximum(1 + (off / (_BIWEIGHT"),
    ("unexplained", "sign", "(off > _OUTLIER * deviation)", "(off < _OUTLIER * deviation)"),
    ("vertices' areas", "term", "whole * np.maximum(towards, 0)", "whole * 1.0"),
    ("vertices' areas", "axis", "np.cross(b - a, c - a)", "np.cross(b - a, b - a)"),
    ("photo's colours", "sign", "(rgba[..., :3] * 0.5 + 0.5)", "(rgba[..., :3] * 0.5 - 0.5)"),
    ("photo's slopes", "factor", "ksize=3) / 8", "ksize=3) / 4"),
    ("photo's slopes", "axis", "((1, 0), (0, 1)))", "((0, 1), (1, 0)))"),
    ("blurred inside the mask", "term", "GaussianBlur(self._masked, (0, 0), sigma) / share[..., None]",
     "GaussianBlur(self._masked, (0, 0), sigma)"),
    ("Geman and McClure's weight", "sign", "towards / (1 + squares) ** 2", "towards * (1 + squares) ** 2"),
    ("evidence", "factor", "(3 * NOISE ** 2 * towards.sum())", "(3000 * NOISE ** 2 * towards.sum())"))

_PRIORS = _of(
    "facegcn/assets/priors.py", ("test_priors.py",),
    ("details", "sign", "np.subtract(painted.ravel(), bare.ravel()", "np.subtract(bare.ravel(), painted.ravel()"),
    ("details' mean", "term", "    details -= mean\n", "\n"),
    ("lengths of directions", "factor", "SPREAD / np.sqrt(count)", "SPREAD / count"),
    ("largest first", "axis", "np.argsort(variances)[::-1][:modes]", "np.argsort(variances)[:modes]"))

_GRAPH = _of(
    "facegcn/graph.py", ("test_graph.py",),
    ("shifted Laplacian", "sign", "(laplacian - sp.identity", "(laplacian + sp.identity"),
    ("doubled Laplacian", "factor", "2.0 * shifted, symmetric", "1.0 * shifted, symmetric"),
    ("Chebyshev recursion", "axis", "multiply(self._doubled, terms[-1], terms[-2])",
     "multiply(self._doubled, terms[-1], terms[0])"),
    ("Clenshaw's recursion", "term", "parts[k] + multiply(self._doubled, last, before), last",
     "parts[k] + multiply(self._doubled, last), last"),
    ("Clenshaw's last step", "term", "parts[0] + multiply(self._shifted, last, before)",
     "parts[0] + multiply(self._shifted, last)"),
    ("kernel's rows", "axis", "tf.transpose(tf.reshape(kernel, (features_in, self.order, features_out)), (1, 0, 2))",
     "tf.reshape(kernel, (self.order, features_in, features_out))"),
    ("gradient by weight (direct)", "factor", "matmul(terms, g, transpose_a=True)",
     "2 * matmul(terms, g, transpose_a=True)"),
    ("gradient by weight (Clenshaw)", "sign", "tf.transpose(by_weight", "-tf.transpose(by_weight"),
    ("sparse product's gradient", "axis", "lambda g: _multiply(self._backward, g)",
     "lambda g: _multiply(self._forward if self.shape[0] == self.shape[1] else self._backward, g)"),
    ("bias", "sign", "result = result + self.bias", "result = result - self.bias"))

_KERNELS = _of(
    "facegcn/backends/kernels.py", ("test_geometry.py", "test_rasterizer.py"),
    ("edges' weight", "sign", "weight = e0 * w0 + e1 * w1 + e2 * w2", "weight = e0 * w0 + e1 * w1 - e2 * w2"),
    ("depth test", "sign", "depth < nearest", "depth > nearest"),
    ("gradient along y", "sign", "d_clip[n, 1] -= dy * height", "d_clip[n, 1] += dy * height"),
    ("gradient along w", "sign", "d_clip[n, 3] += dx * (width - px)", "d_clip[n, 3] += dx * (width + px)"),
    ("gradient of the edges", "axis", "dx = g[before] * y[after] - g[after] * y[before]",
     "dx = g[before] * x[after] - g[after] * x[before]"),
    ("interpolation", "axis", "share[2] * attributes[k, c]", "share[1] * attributes[k, c]"),
    ("interpolation's gradient by attributes", "sign", "d_attributes[n, c] += share * upstream",
     "d_attributes[n, c] -= share * upstream"),
    ("interpolation's gradient by shares", "sign", "inner += attributes[n, c] * upstream",
     "inner -= attributes[n, c] * upstream"),
    ("scattered rows", "sign", "result[n, c] += values[m, c]", "result[n, c] -= values[m, c]"),
    ("normals", "sign", "n0, n1, n2 = p1 * q2 - p2 * q1", "n0, n1, n2 = p1 * q2 + p2 * q1"),
    ("normals' gradient", "sign", "d_vertices[j, axis] += d_q - d_p", "d_vertices[j, axis] += d_p - d_q"),
    ("normals' gradient", "axis", "d_q = g_u * p_v - g_v * p_u", "d_q = g_v * p_v - g_u * p_u"))

_SPARSE_KERNELS = _of(
    "facegcn/backends/sparse_kernels.py", ("test_sparse_kernels.py",),
    ("product's columns", "axis", "i6, i7 = _U(columns[q + _6])", "i7, i6 = _U(columns[q + _6])"),
    ("what is taken off", "sign", "w7 * x[i7 + c]) - less[at + c]", "w7 * x[i7 + c]) + less[at + c]"),
    ("entries beyond the table", "sign", "result[at + c] += w *", "result[at + c] -= w *"),
    ("entries beyond the table", "term", "place < WIDTH, place >= WIDTH", "place < WIDTH, place > WIDTH"),
    ("zeros at the ends of rows", "axis", "matrix.indices[starts[filled], None]", "0"))

_BAKING_KERNEL = _of(
    "facegcn/backends/baking_kernel.py", ("test_baking_kernel.py", "test_texture_baking.py"),
    ("logarithm", "sign", "power * _LN2_LOW - _HALF * square", "power * _LN2_LOW + _HALF * square"),
    ("exponential", "sign", "- power * _LN2_HIGH - power * _LN2_LOW", "- power * _LN2_HIGH + power * _LN2_LOW"),
    ("cubic weights", "factor", "(f - _ONE) * f * f * _HALF", "(f - _ONE) * f * f"),
    ("averaged colour's columns", "axis", "((left, _ONE - across), (right, across))",
     "((left, across), (right, _ONE - across))"),
    ("averaged colour's channels", "axis", "(color >> _EIGHT)", "(color >> _SIXTEEN)"),
    ("share of a level", "axis", "((finer, _ONE - share), (min(finer + 1, last), share))",
     "((finer, share), (min(finer + 1, last), _ONE - share))"),
    ("texel between corners", "sign", "c = _ONE - a - b", "c = _ONE - a + b"),
    ("texel in the photo", "sign", "half - down[k] * scale", "half + down[k] * scale"),
    ("trust by place", "sign", "upper + (lower - upper) * dy", "upper - (lower - upper) * dy"),
    ("depth test", "sign", "2.0 - (nearest[k] - depth[k])", "2.0 + (nearest[k] - depth[k])"),
    ("depth test's slope", "term", "certain + sloping * slope", "certain"),
    ("trust by angle", "factor", "(3.0 - 2.0 * turned)", "(3.0 - turned)"),
    ("noise in the albedo", "sign", "square / (square + noise * noise", "square / (square - noise * noise"))

_RECORD_KERNELS = _of(
    "facegcn/backends/record_kernels.py", ("test_examples.py",),
    ("network range", "sign", "np.float32(rgba8[4 * p + 1]) * color - one",
     "np.float32(rgba8[4 * p + 1]) * color + one"),
    (("test_packed_file.py",), "what is still to be read", "term", "offsets[i] + done)", "offsets[i])"))

_OPTIMIZER = _of(
    "facegcn/training/optimizer.py", ("test_optimizer.py",),
    ("correction of the second moment", "term", "beta2_power=self.beta_2 ** step", "beta2_power=self.beta_2"),
    ("gradient's length", "factor", "tf.sqrt(2.0 * tf.nn", "tf.sqrt(tf.nn"),
    ("clipped gradient", "sign", "self.clipnorm / tf.maximum(", "self.clipnorm / tf.minimum("),
    (("test_devices.py",), "gradients of all replicas", "factor", "return grads_and_vars",
     "return super()._all_reduce_sum_gradients(grads_and_vars)"))

_LOSS_SCALE = _of(
    "facegcn/training/loss_scale.py", ("test_precision.py",),
    ("unscaled gradient", "sign", "scaled / factor", "scaled * factor"),
    ("smaller factor", "factor", "tf.maximum(self._factor / 2.0, _LEAST)", "tf.maximum(self._factor / 4.0, _LEAST)"),
    ("steps since the factor changed", "term", "self._good.assign(0)", "self._good.assign_add(0)"))

_REPLICAS = _of(
    "facegcn/replicas.py", ("test_devices.py",),
    ("mean over replicas", "factor", "ReduceOp.MEAN", "ReduceOp.SUM"),
    ("drawn for a part", "axis", "[place:place + size]", "[:size]"))

_NORMALIZATION = _of(
    "facegcn/networks/normalization.py", ("test_normalization.py",),
    ("variance", "term", "tf.square(x - mean)", "tf.square(x)"),
    (("test_devices.py",), "moments of all replicas", "term", "return replicas.mean(mean) if 0 in axes else mean",
     "return mean"),
    ("moving averages", "axis", "average * self.momentum + tf.reshape(now, (-1,)) * (1.0 - self.momentum)",
     "average * (1.0 - self.momentum) + tf.reshape(now, (-1,)) * self.momentum"),
    ("batch normalisation's offset", "sign", "self.epsilon) + self.beta", "self.epsilon) - self.beta"),
    ("image normalisation", "axis", "moments(x, (1, 2, 3))", "moments(x, (1, 2))"))

_WEIGHT_DECAY = _of(
    "facegcn/networks/weight_decay.py", ("test_optimizer.py",),
    ("half the squares", "factor", "self.factor * tf.nn.l2_loss", "2.0 * self.factor * tf.nn.l2_loss"))

_TENSORFLOW_RASTERIZER = _of(
    "facegcn/backends/tensorflow_rasterizer.py", ("test_rasterizer.py",),
    ("pixels, y down", "sign", "(w - y) * height", "(w + y) * height"),
    ("edges", "sign", "x2 * y0 - x0 * y2", "x2 * y0 + x0 * y2"),
    ("candidates of a box", "axis", "place // box_width, tf.gather(left, owner) + place % box_width",
     "place % box_width, tf.gather(left, owner) + place // box_width"),
    ("top-left rule", "sign", "(right == 0) & (down > 0)", "(right == 0) & (down < 0)"),
    ("near plane", "term", "(depth >= -1) & (depth <= 1)", "(depth <= 1)"))

_PNG = _of(
    "facegcn/png.py", ("test_png.py",),
    ("difference from the row above", "sign", "np.subtract(rows[1:], rows[:-1]",
     "np.subtract(rows[:-1], rows[1:]"),
    ("checksum", "term", "zlib.crc32(data, zlib.crc32(kind))", "zlib.crc32(data)"))

#: All of them, file by file.
MUTATIONS = [*_LIGHTING, *_CAMERA, *_GEOMETRY, *_MORPHABLE, *_SAMPLING, *_COMPLETION, *_GRAPH, *_KERNELS,
             *_SPARSE_KERNELS, *_BAKING_KERNEL, *_RECORD_KERNELS, *_TENSORFLOW_RASTERIZER, *_LOSSES, *_FITTING,
             *_LANDMARK_FITTING, *_PHOTOMETRIC_TERMS, *_PHOTOMETRIC_FITTING, *_PRIORS, *_OPTIMIZER, *_LOSS_SCALE,
             *_REPLICAS, *_NORMALIZATION, *_WEIGHT_DECAY, *_PNG]
