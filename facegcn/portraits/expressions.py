"""Random expressions of any morphable model: plain ones, smiles, and mouths that speak, laugh or gape.

Nobody says what the components of a model's expression basis do. What a mouth's opening or a smile is in them follows
from the landmarks: a ridge solution for the coefficients that move some landmarks as told and leave the others.
"""

from __future__ import annotations

import numpy as np

from facegcn.landmarks import LANDMARK_COUNT
from facegcn.morphable import MorphableModel
from facegcn.portraits import looks

_LIMIT = 2.5  # standard deviations
_CORNERS = (((48, 60), -1), ((54, 64), 1))
_UPPER, _LOWER = [50, 51, 52, 61, 62, 63], [56, 57, 58, 65, 66, 67]
_CHIN, _BROWS = [6, 7, 8, 9, 10], list(range(17, 27))
_MM = 0.01  # decimetre


class ExpressionSampler:
    """Draws expression coefficients of one morphable model."""

    def __init__(self, morphable: MorphableModel, spread: float):
        """Args: the model; spread, the deviation of the coefficients of a usual expression."""
        self._size, self._spread = morphable.exp_basis.shape[2], spread
        marks = morphable.mean_shape[morphable.landmarks]
        self._gap = marks[62, 1] - marks[66, 1]
        self._gap_basis = morphable.exp_basis[morphable.landmarks[62], 1] \
            - morphable.exp_basis[morphable.landmarks[66], 1]
        width = np.linalg.norm(marks[54] - marks[48])
        self._smile = _limited(_solve(morphable, _smiling(width), width), 0.8 * _LIMIT)
        self._mouths = {kind: _solve(morphable, target, width) for kind, target in _open_mouths(width).items()}

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Coefficients (Ke,) float32, each within 2.5 deviations."""
        kinds = looks.EXPRESSION
        strength = looks.choice(kinds.strengths, rng) * self._spread
        active = rng.random(self._size) < rng.uniform(*kinds.active)
        expression = rng.normal(size=self._size) * strength * active
        kind = looks.choice(kinds.kinds, rng)
        if kind == "smile":
            expression = kinds.beside * expression + rng.uniform(*kinds.smile) * self._smile
        elif kind != "plain":
            expression = self._opened(kinds.beside * expression, kind, rng.uniform(*getattr(kinds, kind)) * _MM)
        return np.clip(expression, -_LIMIT, _LIMIT).astype(np.float32)

    def _opened(self, expression, kind, gap):
        """The expression with as much of a kind of open mouth as brings the gap between the lips (decimetre) about,
        or as much as the model's spread allows."""
        mouth = self._mouths[kind]
        gain, peak = self._gap_basis @ mouth, np.abs(mouth).max(initial=0.0)
        if gain <= 0 or not peak:
            return expression
        missing = gap - self._gap - self._gap_basis @ expression
        return expression + np.clip(missing / gain, 0, _LIMIT / peak) * mouth


# -------------------------------------------------------------------- what landmarks say of a component
def _solve(morphable, target, width):
    """Expression coefficients (Ke,) that move the landmarks by a target (68, 4): x, y, z, weight; decimetre."""
    weight = target[:, 3:]
    basis = weight[..., None] * morphable.exp_basis[morphable.landmarks]
    basis = basis.reshape(3 * LANDMARK_COUNT, basis.shape[2])
    stiffness = (0.03 * width) ** 2 * np.eye(basis.shape[1])
    return np.linalg.solve(basis.T @ basis + stiffness, basis.T @ (weight * target[:, :3]).ravel())


def _limited(coefficients, most):
    """Coefficients scaled down to a greatest magnitude."""
    return coefficients / max(np.abs(coefficients).max(initial=0.0) / most, 1.0)


def _still():
    """A target (68, 4) that leaves all landmarks where they are, those of the mouth above all."""
    target = np.zeros((LANDMARK_COUNT, 4))
    target[:, 3] = 0.1
    target[48:, 3] = 0.5
    return target


def _smiling(width):
    """The corners of the mouth go up, out and back."""
    target = _still()
    for corners, side in _CORNERS:
        target[list(corners)] = (0.14 * width * side, 0.13 * width, -0.08 * width, 2.0)
    target[_UPPER, 1] = 0.05 * width
    return target


def _open_mouths(width):
    """Targets of open mouths by kind: the jaw falls; in laughter the corners go up and out and the upper lip shows the
    teeth, in surprise they go in and the brows up."""
    speech, laughter, surprise = _still(), _smiling(width), _still()
    for target, fall, lift in ((speech, 0.35, 0.02), (laughter, 0.3, 0.1), (surprise, 0.6, 0.03)):
        target[_LOWER, 1], target[_LOWER, 3] = -fall * width, 1.0
        target[_UPPER, 1], target[_UPPER, 3] = lift * width, 1.0
        target[_CHIN, 1], target[_CHIN, 3] = -0.8 * fall * width, 0.3
    for corners, side in _CORNERS:
        surprise[list(corners), 0] = -0.08 * width * side
    surprise[_BROWS, 1], surprise[_BROWS, 3] = 0.1 * width, 0.3
    return {"speech": speech, "laughter": laughter, "surprise": surprise}
