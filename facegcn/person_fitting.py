"""One identity and one albedo for several photos of a person; pose, expression and light for each.

Every photo b is fitted by itself first (``photometric_fitting``). Around that fit its landmarks, the regressor's word
and its colours say F_b(s, p): a quadratic in the shared unknowns s (identity, albedo coefficients and details) and in
its own p (expression, pose, light), the priors of p among it. Minimised is

    |s|^2 + sum_b t_b F_b(s, p_b),

the prior of s once. Each p_b leaves its quadratic by the Schur complement, so the cost grows with the number of photos
only linearly; Gauss-Newton goes on from the minimum of the first quadratics. In later rounds a photo's colours are held
not against the albedo basis and its details alone, but against what the other photos show there beyond them: that is
what tells depth by parallax.

Errors of photos are alike (a detector's habits, a model that lacks the face), and photos of one pose, expression and
light add nothing: with R their correlations, the best weights are t = R^-1 1, none negative (generalised least squares;
Aitken 1935). Equal photos then weigh as one, B photos that have nothing in common but ``HABIT`` B / (1 + (B-1) HABIT).

A photo of somebody else is the one whose shared unknowns lie farthest from those of the others, by what both know.
Letters: B photos, U unknowns as in ``photometric_terms``, S shared, K coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.optimize
from threadpoolctl import threadpool_limits

from facegcn.backends.row_gathers import map_images
from facegcn.errors import UserError
from facegcn.fitting import CoefficientFit
from facegcn.photometric_fitting import BLURS, DAMPING, Layers

HABIT = 0.3  # correlation of the errors of any two photos of a person
TURN, CHANGE = 0.15, 0.5  # radians of head; root mean square of expression coefficients: so much makes a photo another
LIGHT_CHANGE = 0.15  # root mean square of light coefficients, likewise
ROUNDS = 2  # with the albedo of the basis and its details
TRACKED = 6  # against what the other photos show
TRACKED_EVIDENCE = 3.0  # times as much as colours say then: what is left of them errs less alike
UNSURE = 0.3  # weight of that albedo, against that of one photo that faces a vertex in full light
FAR = 3.5  # mean squared distance, in standard deviations, from which on a photo may be another person's
FARTHER = 2.0  # times as far as photos are in the median
_KNOWN = 2.0  # information of directions that are compared, against the prior's 1
_NUGGET = 1e-6


class PersonFit(NamedTuple):
    """Coefficients fitted to all photos of a person.

    Attributes:
        fit: as of photos by themselves; the rows of ``used`` share identity and albedo, the others are what the photo
            says by itself, or, where nothing could be fitted, what the regressor says.
        used: (B,) bool photos that take part.
        weights: (B,) t_b; 0 of those that do not.
        distances: (B,) mean squared distance of a photo's identity and albedo from the others', in standard deviations
            of what both know; NaN where there are none to compare.
        reasons: why a photo does not take part, "" of those that do.
    """

    fit: CoefficientFit
    used: np.ndarray
    weights: np.ndarray
    distances: np.ndarray
    reasons: list[str]


@dataclass
class _Statement:
    """What one photo says: what gives its picture, its unknowns (U,) by itself, mean (U,) and precision (U, U) of what
    was known before its colours, information (S, S) of the shared unknowns without their prior, and that times their
    mean."""

    picture: Callable[[], np.ndarray]
    unknowns: np.ndarray
    mean: np.ndarray
    prior: np.ndarray
    information: np.ndarray
    vector: np.ndarray


class PersonFitter:
    """Fits photos of one person together.

    Args:
        fitter: the ``fitting.CoefficientFitter`` of photos by themselves.
    """

    def __init__(self, fitter):
        self._fitter, self._colors = fitter, fitter.colors
        self._shared, self._own = self._colors.shared, np.setdiff1d(np.arange(self._colors.unknowns),
                                                                     self._colors.shared)

    def __call__(self, pictures: Sequence[np.ndarray], coeff, targets, dense=None) -> PersonFit:
        """The joint fit.

        Args:
            pictures: B photos (H, H, 4), RGB in [-1, 1], skin alpha in [0, 1], all of one size; taken when they are
                looked at, so that a lazy sequence need not hold them all.
            coeff: (B, K) what the regressor says of them.
            targets, dense: as for ``fitting.CoefficientFitter``.

        Raises:
            UserError: no photo shows enough of a face.
            ValueError: the numbers of pictures, coefficients and targets differ, or are 0.
        """
        coeff, count = np.array(coeff, np.float32), len(pictures)
        if not count or len(coeff) != count or len(targets) != count:
            raise ValueError(f"{count} pictures, {len(coeff)} coefficients and {len(targets)} targets do not fit")
        # Photos are fitted side by side, one a core: more threads in each product would only wait for each other.
        with threadpool_limits(1, user_api="blas"):
            before = self._fitter.before_colors(pictures[0].shape[0], coeff, targets, dense)
            said = [None] * count

            def say(b):
                said[b] = self._statement(lambda: pictures[b], before.parameters[b], before.precision[b])
            map_images(say, count)
            reasons = ["" if one else "too little of the face is seen" for one in said]
            if not any(said):
                raise UserError(f"none of the {count} photos shows enough of a face; give photos on which the face is "
                                "in plain sight, or its points in files NAME.txt")
            distances = self._tell_others(said, reasons)
            used = np.array([not reason for reason in reasons])
            chosen = np.flatnonzero(used)
            weights = np.zeros(count)
            weights[chosen] = self._shares([said[b].unknowns for b in chosen])
            unknowns = {b: one.unknowns for b, one in enumerate(said) if one}
            if len(chosen) > 1:
                together = self._together([said[b] for b in chosen], weights[chosen])
                unknowns.update(zip(chosen, together))
            fit = self._judged(pictures, coeff, unknowns, before.residual, {b: weights[b] for b in chosen})
            return PersonFit(fit, used, weights, distances, reasons)

    # ---------------------------------------------------------------- photos by themselves
    def _statement(self, picture, parameters, precision) -> _Statement | None:
        """What a photo says, or None where it shows too little."""
        mean, prior = self._colors.prior(parameters, precision)
        layers = Layers(np.asarray(picture(), np.float32))
        unknowns = self._colors.descend(layers, mean, prior)
        if unknowns is None:
            return None
        one = _Statement(picture, unknowns, mean, prior, np.empty(0), np.empty(0))
        found = self._equations(one, unknowns, layers, self._colors.visible(unknowns))
        if found is None:
            return None
        one.information, one.vector, _, _ = self._without_own(found[0], found[0] @ unknowns - found[1])
        return one

    @staticmethod
    def _layers(one) -> Layers:
        """A photo's layers, made anew each time: those of all photos would fill the memory."""
        return Layers(np.asarray(one.picture(), np.float32))

    def _equations(self, one, unknowns, layers, visible, beyond=None):
        """Half the Hessian (U, U) and gradient (U,) of F_b: the prior of shared unknowns is not in it; or None."""
        found = self._colors.equations(unknowns, layers, BLURS[-1], visible, beyond)
        if found is None:
            return None
        share = 1.0 if beyond is None else TRACKED_EVIDENCE
        hessian = share * found[0] + one.prior
        slope = share * found[1] + one.prior @ (unknowns - one.mean)
        hessian[self._shared, self._shared] -= 1.0
        slope[self._shared] -= unknowns[self._shared]
        return hessian, slope

    def _without_own(self, hessian, vector):
        """A quadratic's matrix (S, S) and vector (S,) after its minimum over a photo's own unknowns; and what gives
        those: (U - S, S), (U - S,)."""
        shared, own = self._shared, self._own
        solved = np.linalg.solve(hessian[np.ix_(own, own)], np.c_[hessian[np.ix_(own, shared)], vector[own]])
        across = hessian[np.ix_(shared, own)]
        return (hessian[np.ix_(shared, shared)] - across @ solved[:, :-1], vector[shared] - across @ solved[:, -1],
                solved[:, :-1], solved[:, -1])

    # ---------------------------------------------------------------- who is who
    def _tell_others(self, said, reasons) -> np.ndarray:
        """Distances (B,); names in ``reasons`` photos that are too far from the others, the farthest first."""
        distances = np.full(len(said), np.nan)
        while True:
            left = [b for b, reason in enumerate(reasons) if not reason]
            if len(left) < 2:
                return distances
            found = np.array([self._distance(said[b], [said[c] for c in left if c != b]) for b in left])
            distances[left] = found
            worst = int(np.argmax(found))
            # Of two, either may be the other: the one that says less leaves.
            if len(left) == 2:
                worst = int(np.argmin([np.trace(said[b].information) for b in left]))
            usual = np.median(np.delete(found, worst)) if len(left) > 2 else 0.0
            if found[worst] <= max(FAR, FARTHER * usual):
                return distances
            reasons[left[worst]] = (f"shows another person, or too little of this one: {found[worst]:.1f} variances "
                                    f"from the other photos, where up to {FAR:g} are usual")

    def _distance(self, one, others) -> float:
        """Mean squared distance of a photo's shared unknowns from others' in the directions that it knows."""
        share = 1.0 / (1.0 + (len(others) - 1) * HABIT)
        known = np.eye(len(self._shared)) + share * sum(other.information for other in others)
        middle = np.linalg.solve(known, share * sum(other.vector for other in others))
        lengths, axes = np.linalg.eigh(one.information)
        told = lengths > _KNOWN
        lengths, axes = lengths[told], axes[:, told]
        if not told.any():
            return 0.0
        apart = axes.T @ (one.vector - one.information @ middle) / lengths
        expected = np.diag(1.0 / lengths) + axes.T @ np.linalg.solve(known, axes)
        return float(apart @ np.linalg.solve(expected, apart)) / len(lengths)

    def _shares(self, unknowns) -> np.ndarray:
        """Weights (B,) of photos by what they have in common."""
        shape, angles, _, _, light = zip(*(self._colors.split(u) for u in unknowns))
        expression = np.stack(shape)[:, self._colors.identity_size:]
        apart = (_distances(np.stack(angles)) / TURN ** 2 + _distances(expression, True) / CHANGE ** 2
                 + _distances(np.stack(light).reshape(len(light), -1), True) / LIGHT_CHANGE ** 2)
        alike = HABIT + (1.0 - HABIT) * np.exp(-0.5 * apart) + _NUGGET * np.eye(len(unknowns))
        root = np.linalg.cholesky(alike)  # min t'Rt - 2 t'1 = |L't - L^-1 1|^2
        return scipy.optimize.nnls(root.T, np.linalg.solve(root, np.ones(len(root))))[0]

    # ---------------------------------------------------------------- all photos together
    def _together(self, said, weights):
        """Unknowns (U,) of each photo, the shared ones equal."""
        size, count = len(self._shared), len(said)
        shared = np.linalg.solve(np.eye(size) + sum(t * one.information for t, one in zip(weights, said)),
                                 sum(t * one.vector for t, one in zip(weights, said)))
        at, visible = [one.unknowns.copy() for one in said], [None] * count

        def begin(b):
            hessian, slope = self._equations(said[b], at[b], self._layers(said[b]), self._colors.visible(at[b]))
            *_, by_shared, alone = self._without_own(hessian, slope)
            at[b][self._own] -= alone + by_shared @ (shared - at[b][self._shared])
            at[b][self._shared] = shared
            visible[b] = self._colors.visible(at[b])
        map_images(begin, count)
        for turn in range(ROUNDS + TRACKED):
            beyond = self._beyond(said, at, visible) if turn >= ROUNDS else [None] * count
            following = self._round(said, weights, at, visible, beyond)
            if not all(map(self._colors.possible, following)):
                break
            at = following
        return at

    def _round(self, said, weights, at, visible, beyond):
        """Unknowns (U,) of each photo after a step of Gauss and Newton; a photo without colours keeps its own."""
        found = [None] * len(said)

        def look(b):
            equations = self._equations(said[b], at[b], self._layers(said[b]), visible[b], beyond[b])
            if equations is not None:
                equations[0][np.diag_indices_from(equations[0])] *= 1.0 + DAMPING
                found[b] = self._without_own(*equations)
        map_images(look, len(said))
        shared = at[0][self._shared]
        step = self._step(shared, weights, found)
        following = [u.copy() for u in at]
        for u, one in zip(following, found):
            if one is not None:
                u[self._own] -= one[3] + one[2] @ step
            u[self._shared] = shared + step
        return following

    def _step(self, shared, weights, found):
        """Step (S,) of the shared unknowns (S,)."""
        heard = [(t, one) for t, one in zip(weights, found) if one is not None]
        matrix = np.eye(len(shared)) * (1.0 + DAMPING) + sum(t * one[0] for t, one in heard)
        return -np.linalg.solve(matrix, shared + sum(t * one[1] for t, one in heard))

    def _beyond(self, said, at, visible):
        """Of each photo, what the others show (vertices, 3) of the albedo beyond its basis and details."""
        each = [None] * len(said)

        def look(b):
            each[b] = self._colors.beyond(at[b], self._layers(said[b]), BLURS[-1], visible[b])
        map_images(look, len(said))
        sums = sum(difference * weight[:, None] for difference, weight in each)
        total = sum(weight for _, weight in each)
        return [(sums - difference * weight[:, None]) / (total - weight + UNSURE)[:, None]
                for difference, weight in each]

    def _judged(self, pictures, coeff, unknowns, residual, weights) -> CoefficientFit:
        """Coefficients, and how well they explain the photos; those of the person, whose weights are given by their
        places, have one albedo."""
        unexplained, seen = np.ones(len(pictures)), np.zeros(len(pictures))

        def photo(b, weight=1.0):
            return unknowns[b], Layers(np.asarray(pictures[b], np.float32)), weight

        albedo = self._colors.coarse_albedo(photo(b, weight) for b, weight in weights.items())

        def judge(b):
            if b in unknowns:
                one = photo(b)
                tex = albedo if b in weights else self._colors.coarse_albedo([one])
                coeff[b] = self._colors.coefficients(unknowns[b], tex)
                _, unexplained[b], shown, _ = self._colors.quality(*one[:2], tex)
                seen[b] = self._fitter.skin_seen(shown[None])[0]
        map_images(judge, len(pictures))
        return CoefficientFit(coeff, residual, unexplained, seen)


def _distances(values, mean: bool = False) -> np.ndarray:
    """Squared distances (B, B) of rows (B, C); their mean over C where asked."""
    squares = ((values[:, None] - values[None]) ** 2)
    return squares.sum(axis=-1) / (max(values.shape[1], 1) if mean else 1)
