"""Pose, expression and identity from landmarks: the most likely face, by the Levenberg-Marquardt method.

The unknowns x of a photo are identity and expression (standard deviations), angles (radians) and translation
(decimetre), in this order. Minimised is twice the negative logarithm of their probability,

    sum_l t_l huber(|e_l| / noise_l)^2 + |u|^2 + (x - m)' P (x - m),   e = projection(x) + bias + factors u - points

over x and over the errors u that points share (``surface_points``). Given the weights of Huber's function (iteratively
reweighted least squares) u is eliminated exactly (Woodbury's identity), so 468 correlated points cost little more than
468 independent ones. A point that the face cannot explain, such as one on a hand, loses its weight.

Sources: Levenberg 1944; Marquardt 1963; Huber, Robust Statistics, 1981. Letters: B photos, L points of the detector, M
of them on the surface, R shared errors, K shape components, D = K + 6 unknowns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facegcn import camera
from facegcn.backends.row_gathers import map_images
from facegcn.surface_points import CROP_PIXELS, SurfacePoints

POSE_SIZE = 6  # unknowns after the shape: angles, translation
#: Deviation of the prior on the angles (radians) and on the translation (decimetre): so wide that it decides nothing
#: that points can see, and holds what five points leave open.
POSE_PRIOR = np.repeat((0.6, 0.6), 3)
HUBER = 3.0  # standard deviations of a point's own error from which on it counts less
ROUNDS = 25
_POSE_NOISE = 8.0  # crop pixels: the mean face's points lie so far from those of a face of the same pose
_POSE_ROUNDS = 12
_LEAST_POINTS = 4
_STILL = 1e-3  # sum of squared steps, in standard deviations of the result, below which it has converged
_FIRST_DAMPING, _MOST_DAMPING = 1e-4, 1e6
_NEAREST = 0.5  # decimetre from the camera; a step that brings a point nearer is refused
_FLAT = 1e-3  # decimetre squared: pulls the affine camera of few points towards the frontal one
_FOCAL = CROP_PIXELS / (2.0 * camera.TAN_HALF_FOV)  # crop pixels


@dataclass(frozen=True)
class LandmarkFit:
    """The most likely faces of B photos.

    Attributes:
        parameters: (B, D) float64 identity, expression, angles, translation.
        precision: (B, D, D) float64 inverse covariance of the parameters, prior included (Gauss-Newton).
        residual: (B,) mean distance, pixels of a 224 crop, of the trusted points to where the face has them; NaN where
            nothing was fitted.
        median_residual: (B,) their median.
        weights: (B, L) float64 in [0, 1]: trust of each point times what the fit left of it; 0 where unknown.
        rounds: (B,) int that it took.
        converged: (B,) bool; False where points are too few or not finite (then the start is returned), or where the
            rounds did not suffice.
        sizes: widths of identity and expression.
    """

    parameters: np.ndarray
    precision: np.ndarray
    residual: np.ndarray
    median_residual: np.ndarray
    weights: np.ndarray
    rounds: np.ndarray
    converged: np.ndarray
    sizes: tuple[int, int]

    @property
    def id(self) -> np.ndarray:
        """(B, Ki) identity."""
        return self.parameters[:, :self.sizes[0]]

    @property
    def exp(self) -> np.ndarray:
        """(B, Ke) expression."""
        return self.parameters[:, self.sizes[0]:sum(self.sizes)]

    @property
    def angles(self) -> np.ndarray:
        """(B, 3) radians."""
        return self.parameters[:, -POSE_SIZE:-3]

    @property
    def translation(self) -> np.ndarray:
        """(B, 3) decimetre."""
        return self.parameters[:, -3:]


def parameter_columns(morphable) -> np.ndarray:
    """(D,) places of a fit's parameters in a coefficient vector (K,), as ``MorphableModel.split`` cuts it."""
    parts = morphable.split(np.arange(morphable.coefficient_count))
    return np.concatenate([parts.id, parts.exp, parts.angles, parts.translation])


# ---------------------------------------------------------------- the camera
def rotation(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R = Rz Ry Rx (3, 3), as ``geometry.rotation_matrix``, and its derivatives (3, 3, 3), the angle first."""
    (sx, sy, sz), (cx, cy, cz) = np.sin(angles), np.cos(angles)
    around = [np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]]), np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]),
              np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])]
    slopes = [np.array([[0, 0, 0], [0, -sx, -cx], [0, cx, -sx]]), np.array([[-sy, 0, cy], [0, 0, 0], [-cy, 0, -sy]]),
              np.array([[-sz, -cz, 0], [cz, -sz, 0], [0, 0, 0]])]
    derivatives = np.empty((3, 3, 3))
    for axis in range(3):
        x, y, z = (slopes[k] if k == axis else around[k] for k in range(3))
        derivatives[axis] = z @ y @ x
    return around[2] @ around[1] @ around[0], derivatives


def angles_of(matrix: np.ndarray) -> np.ndarray:
    """Angles (3,) of a rotation matrix (3, 3): the inverse of ``rotation`` for |angle about y| < 90 degrees."""
    return np.array([np.arctan2(matrix[2, 1], matrix[2, 2]), np.arcsin(np.clip(-matrix[2, 0], -1.0, 1.0)),
                     np.arctan2(matrix[1, 0], matrix[0, 0])])


def project(mean: np.ndarray, basis: np.ndarray, x: np.ndarray, slopes: bool = True):
    """Where the camera sees surface points, and how that changes with the unknowns.

    Args:
        mean: (M, 3) points of the mean face, decimetre, centred as ``MorphableModel.vertices``.
        basis: (M, 3, K) decimetre per standard deviation.
        x: (K + 6,) unknowns.
        slopes: False leaves the derivatives out (None).

    Returns:
        pixels (M, 2) of a 224 crop, x right, y down; derivatives (M, 2, K + 6); the least distance from the camera.
    """
    count = basis.shape[2]
    shape = mean + basis @ x[:count]
    turn, turn_slopes = rotation(x[count:count + 3])
    world = shape @ turn.T + x[count + 3:]
    depth = camera.CAMERA_DISTANCE - world[:, 2]
    scale = _FOCAL / depth
    pixels = world[:, :2] * (1.0, -1.0) * scale[:, None] + CROP_PIXELS / 2.0
    if not slopes:
        return pixels, None, depth.min()
    lens = np.zeros((len(mean), 2, 3))  # of the pixels by the world point
    lens[:, 0, 0], lens[:, 1, 1] = scale, -scale
    lens[:, :, 2] = (pixels - CROP_PIXELS / 2.0) / depth[:, None]
    jacobian = np.empty((len(mean), 2, count + POSE_SIZE))
    jacobian[:, :, :count] = (lens @ turn) @ basis
    jacobian[:, :, count:count + 3] = lens @ np.einsum("aij,mj->mia", turn_slopes, shape)
    jacobian[:, :, count + 3:] = lens
    return pixels, jacobian, depth.min()


# ---------------------------------------------------------------- one photo
@dataclass
class _Problem:
    """One photo's terms: the surface points (M, 3) with their basis (M, 3, K), targets (M, 2) crop pixels without bias,
    trust (M,), noise (M,), shared errors (2 M, R), prior's mean (D,) and precision (D, D)."""

    mean: np.ndarray
    basis: np.ndarray
    targets: np.ndarray
    trust: np.ndarray
    noise: np.ndarray
    factors: np.ndarray
    prior_mean: np.ndarray
    prior_precision: np.ndarray

    def at(self, x, slopes=True):
        """Errors (2 M,) of the projected points, derivatives (2 M, D) or None; errors are inf behind the camera."""
        pixels, jacobian, nearest = project(self.mean, self.basis, x, slopes)
        errors = (pixels - self.targets).ravel() if nearest > _NEAREST else np.full(2 * len(self.mean), np.inf)
        return errors, None if jacobian is None else jacobian.reshape(len(errors), -1)

    def weights(self, errors, whitening):
        """Trust times Huber's weights (M,) for what the shared errors, judged by the weights before, leave of them."""
        scale, root, project_out = whitening
        shared = np.linalg.solve(root.T, project_out @ (scale * errors))
        left = np.linalg.norm((errors - self.factors @ shared).reshape(-1, 2), axis=1) / self.noise
        return self.trust * np.minimum(1.0, HUBER / np.maximum(left, 1e-9))

    def normal_equations(self, x, whitening):
        """Cost, half its gradient (D,) and half its Hessian (D, D)."""
        errors, jacobian = self.at(x)
        scale, _, project_out = whitening
        errors, jacobian = scale * errors, scale[:, None] * jacobian
        common, common_slopes = project_out @ errors, project_out @ jacobian
        pull = self.prior_precision @ (x - self.prior_mean)
        gradient = jacobian.T @ errors - common_slopes.T @ common + pull
        hessian = jacobian.T @ jacobian - common_slopes.T @ common_slopes + self.prior_precision
        return errors @ errors - common @ common + (x - self.prior_mean) @ pull, gradient, hessian

    def cost(self, x, whitening):
        """The cost alone; inf where a point is behind the camera."""
        errors, _ = self.at(x, slopes=False)
        if not np.isfinite(errors).all():
            return np.inf
        scale, _, project_out = whitening
        errors = scale * errors
        common = project_out @ errors
        return errors @ errors - common @ common + (x - self.prior_mean) @ (
            self.prior_precision @ (x - self.prior_mean))

    def whitening(self, weights):
        """Of points' weights (M,): scale (2 M,) of the errors; root L (R, R) with L L' = I + F' F of the scaled factors
        F; L^-1 F' (R, 2 M)."""
        scale = np.repeat(np.sqrt(weights) / self.noise, 2)
        scaled = scale[:, None] * self.factors
        root = np.linalg.cholesky(np.eye(scaled.shape[1]) + scaled.T @ scaled)
        return scale, root, np.linalg.solve(root, scaled.T)


def _descend(problem: _Problem, x: np.ndarray, rounds: int):
    """Unknowns, half the Hessian at the last round, weights, rounds taken, whether it converged."""
    damping = _FIRST_DAMPING
    weights = problem.weights(problem.at(x, slopes=False)[0], problem.whitening(problem.trust))
    for taken in range(1, rounds + 1):
        whitening = problem.whitening(weights)
        cost, gradient, hessian = problem.normal_equations(x, whitening)
        while True:
            step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), -gradient)
            if problem.cost(x + step, whitening) <= cost:
                break
            damping *= 10.0
            if damping > _MOST_DAMPING:  # no direction leads down: rounding
                return x, hessian, weights, taken, True
        x, damping = x + step, max(damping / 10.0, 1e-9)
        weights = problem.weights(problem.at(x, slopes=False)[0], whitening)
        if step @ hessian @ step < _STILL:
            return x, hessian, weights, taken, True
    return x, hessian, weights, rounds, False


def _affine_pose(points, targets, trust):
    """Pose (6,) of surface points (M, 3) by an affine camera, fitted by weighted least squares, points that lie far off
    counting less; then the nearest rotation."""
    towards = (targets - CROP_PIXELS / 2.0) * (1.0, -1.0)
    weights = trust
    for _ in range(5):
        share = weights / weights.sum()
        middle, centre = share @ points, share @ towards
        deviations, seen = points - middle, towards - centre
        spread = (deviations * share[:, None]).T @ deviations
        crossed = (seen * share[:, None]).T @ deviations
        frontal = np.hstack([_similarity(deviations[:, :2], seen, share), np.zeros((2, 1))])
        camera_rows = np.linalg.solve(spread + _FLAT * np.eye(3), (crossed + _FLAT * frontal).T).T
        off = np.linalg.norm(seen - deviations @ camera_rows.T, axis=1)
        weights = trust * np.minimum(1.0, _POSE_NOISE / np.maximum(off, 1e-9))
    left, lengths, right = np.linalg.svd(camera_rows, full_matrices=False)
    rows = left @ right
    turn = np.vstack([rows, np.cross(rows[0], rows[1])])
    depth = _FOCAL / max(lengths.mean(), 1e-6)
    moved = turn @ middle
    across = centre * (depth - moved[2]) / _FOCAL - moved[:2]
    return np.concatenate([angles_of(turn), across, [camera.CAMERA_DISTANCE - depth]])


def _similarity(points, targets, share):
    """(2, 2) turn and scale that bring centred points (M, 2) nearest to targets (M, 2)."""
    size = max(share @ (points * points).sum(axis=1), 1e-12)
    real = share @ (points * targets).sum(axis=1) / size
    imaginary = share @ (points[:, 0] * targets[:, 1] - points[:, 1] * targets[:, 0]) / size
    return np.array([[real, -imaginary], [imaginary, real]])


# ---------------------------------------------------------------- many photos
class LandmarkFitter:
    """Fits one model to one kind of points; every photo by itself, so that none depends on its batch.

    Args:
        morphable: a ``MorphableModel``.
        surface: where the detector's points lie on it (``surface_points.dense_points``, ``target_points``).
    """

    def __init__(self, morphable, surface: SurfacePoints):
        self._surface, self._sizes = surface, morphable.part_sizes[:2]
        self._columns = parameter_columns(morphable)
        self._mean = surface.of(morphable.mean_shape) - morphable.mean_shape.mean(axis=0, dtype=np.float64)
        self._basis = np.concatenate([surface.of(morphable.id_basis), surface.of(morphable.exp_basis)], axis=2)

    @property
    def unknowns(self) -> int:
        """D."""
        return len(self._columns)

    def prior(self, identity: float = 1.0, expression: float = 1.0) -> np.ndarray:
        """(D,) diagonal of the usual prior's precision: 1 for shape, ``POSE_PRIOR`` for pose.

        Args:
            identity, expression: factors of those parts; a large one keeps them at the prior's mean.
        """
        return np.concatenate([np.full(self._sizes[0], identity), np.full(self._sizes[1], expression),
                               POSE_PRIOR ** -2])

    def shape(self, parameters) -> np.ndarray:
        """(M, 3) decimetre: the surface points of parameters (D,), before their pose."""
        return self._mean + self._basis @ parameters[:-POSE_SIZE]

    def fit(self, points, trust=None, image_size: float = CROP_PIXELS, start=None, prior_mean=None,
            prior_precision=None, rounds: int = ROUNDS) -> LandmarkFit:
        """The most likely faces.

        Args:
            points: (B, L, 2) pixels of aligned crops, NaN where unknown.
            trust: (B, L) factors of each point's information in [0, 1], or None for 1; 0 and NaN: not looked at.
            image_size: width of the crops, pixels.
            start: (B, K) coefficients to begin with, or None for the mean face and a closed-form pose.
            prior_mean: (D,) or (B, D), or None for 0.
            prior_precision: (D,) or (B, D, D), or None for ``prior()``.
            rounds: at most.

        Raises:
            ValueError: an array has another shape.
        """
        points = np.asarray(points, np.float64)
        batch, size = len(points), self.unknowns
        trust = np.ones((batch, self._surface.count)) if trust is None else np.asarray(trust, np.float64)
        if points.shape != (batch, self._surface.count, 2) or trust.shape != points.shape[:2]:
            raise ValueError(f"expected points (B, {self._surface.count}, 2) and trust (B, {self._surface.count}), "
                             f"got {points.shape} and {trust.shape}")
        means = np.broadcast_to(0.0 if prior_mean is None else prior_mean, (batch, size))
        prior = self.prior() if prior_precision is None else np.asarray(prior_precision, np.float64)
        precisions = np.broadcast_to(np.diag(prior) if prior.ndim == 1 else prior, (batch, size, size))
        starts = None if start is None else np.asarray(start, np.float64)[:, self._columns]
        fits = [None] * batch

        def fit_one(b):
            fits[b] = self._fit_one(points[b] * (CROP_PIXELS / image_size), trust[b],
                                    None if starts is None else starts[b], means[b], precisions[b], rounds)

        map_images(fit_one, batch)
        stacked = [np.stack(column) if batch else np.zeros((0, *shape)) for column, shape in zip(
            zip(*fits) if batch else [()] * 7, ((size,), (size, size), (), (), (self._surface.count,), (), ()))]
        return LandmarkFit(*stacked[:5], stacked[5].astype(int), stacked[6].astype(bool), self._sizes)

    def _fit_one(self, points, trust, start, prior_mean, prior_precision, rounds):
        """The columns of ``LandmarkFit`` for one photo."""
        surface = self._surface
        points, trust = points[surface.rows], trust[surface.rows]
        known = np.isfinite(points).all(axis=1) & (trust > 0)
        nothing = (prior_mean if start is None else start, prior_precision, np.nan, np.nan, np.zeros(surface.count), 0,
                   False)
        if known.sum() < _LEAST_POINTS or not np.isfinite(nothing[0]).all():
            return nothing
        points, trust = np.where(known[:, None], points, 0.0), np.where(known, np.minimum(trust, 1.0), 0.0)
        if (np.ptp(points[known], axis=0) < 1.0).all():  # all on one spot
            return nothing
        try:
            x = self._start(points, trust, start, prior_mean)
            upright = rotation(np.array([0.0, 0.0, -x[-4]]))[0][:2, :2]  # picture axes: y down
            factors = np.einsum("ij,mjr->mir", upright, surface.factors).reshape(2 * len(points), -1)
            targets = points - surface.bias @ upright.T
            problem = _Problem(self._mean, self._basis, targets, trust, surface.noise, factors, prior_mean,
                               prior_precision)
            x, precision, kept, taken, converged = _descend(problem, x, rounds)
        except np.linalg.LinAlgError:
            return nothing
        if not np.isfinite(x).all():
            return nothing
        off = np.linalg.norm(problem.at(x, slopes=False)[0].reshape(-1, 2), axis=1)
        weights = np.zeros(surface.count)
        weights[surface.rows] = kept
        return x, precision, trust @ off / trust.sum(), np.median(off[known]), weights, taken, converged

    def _start(self, points, trust, start, prior_mean):
        """Unknowns (D,) with the pose in which the start's, else the prior's, shape fits best."""
        x = np.array(prior_mean if start is None else start, np.float64)
        shape = self._mean + self._basis @ x[:-POSE_SIZE]
        pose = x[-POSE_SIZE:] if start is not None else _affine_pose(shape, points, trust)
        rough = _Problem(shape, np.zeros((len(shape), 3, 0)), points, trust, np.full(len(shape), _POSE_NOISE),
                         np.zeros((2 * len(shape), 0)), np.zeros(POSE_SIZE), np.diag(POSE_PRIOR ** -2))
        x[-POSE_SIZE:] = _descend(rough, pose, _POSE_ROUNDS)[0]
        return x
