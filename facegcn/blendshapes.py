"""Named expressions: Apple ARKit's list of blendshapes, and how much of each explains an expression.

A face model may carry named shapes beside its orthogonal expression basis (``MorphableModel.blendshapes``). The basis
fits photos; the names animate. Letters: N vertices, A named shapes, Ke expression components, B expressions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_EYE = ("eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeSquint", "eyeWide")
_MOUTH = ("mouthSmile", "mouthFrown", "mouthDimple", "mouthStretch", "mouthPress", "mouthLowerDown", "mouthUpperUp")

#: ARKit's 52 blendshapes (ARFaceAnchor.BlendShapeLocation). Left and right are the person's own; the person's left
#: lies at +x of a face model, on the right of the picture.
ARKIT_NAMES = (
    *(f"{stem}{side}" for side in ("Left", "Right") for stem in _EYE),
    "jawForward", "jawLeft", "jawRight", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft",
    "mouthRight", *(f"{stem}{side}" for stem in _MOUTH for side in ("Left", "Right")), "mouthRollLower",
    "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "browDownLeft", "browDownRight", "browInnerUp",
    "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft",
    "noseSneerRight", "tongueOut")

_MILLIMETRES = 100.0  # in a decimetre
_RIDGE = 1e-2  # of a shape's own energy: what its full activation costs
_STILL = 1e-6  # of the largest displacement: less is no movement
_CORNERS = 1e-10  # of weights, and of the gradient's scale: smaller ones are zero
_MOST_EXCHANGES = 20  # times the number of unknowns; only rounding makes so many
_BLOCK_TRIES = 3  # exchanges of all misfits at once without progress, before they are exchanged one at a time


class ExpressionWeights(NamedTuple):
    """An expression in named shapes.

    Attributes:
        weights: (A,) in [0, 1], in the order of ``blendshape_names``.
        residual: (N, 3) decimetre, what the shapes leave of the expression's displacement; 0 where no expression
            moves the vertex (eyeballs, which only named shapes turn).
        rms: root mean square of the residual's length over the vertices that move, millimetre.
    """

    weights: np.ndarray
    residual: np.ndarray
    rms: float


def expression_weights(morphable, exp) -> ExpressionWeights:
    """How much of each named shape explains one expression; see ``BlendshapeFitter`` for many.

    Args:
        morphable: a ``MorphableModel`` with blendshapes.
        exp: (Ke,) expression coefficients.

    Raises:
        ValueError: the model has no blendshapes, or ``exp`` is not (Ke,) finite numbers.
    """
    exp = np.asarray(exp, np.float64)
    if exp.ndim != 1:
        raise ValueError(f"expected one expression (Ke,), got shape {exp.shape}")
    fitter = BlendshapeFitter(morphable)
    weights, rms = fitter.weights(exp[None])
    residual = morphable.exp_basis @ exp - morphable.blendshapes @ weights[0]
    residual[~fitter.moved] = 0.0
    return ExpressionWeights(weights[0], residual.astype(np.float32), float(rms[0]))


class BlendshapeFitter:
    """Bounded least squares of expressions by a model's named shapes.

    It minimises ``|sum_i w_i S_i - D|^2 + ridge sum_i w_i^2 |S_i|^2`` over 0 <= w <= 1, S the shapes, D the
    displacement of an expression, both over the vertices that expressions move. The small ridge keeps opposing shapes
    (jawLeft and jawRight) from cancelling each other; it is in proportion to each shape's own energy, so that lids
    count as much as the jaw. All that vertices are needed for is summed up beforehand, in the Gram matrices.

    Args:
        morphable: a ``MorphableModel`` with blendshapes.

    Attributes:
        moved: (N,) bool, vertices that expressions move.

    Raises:
        ValueError: the model has no blendshapes, or none that moves what its expressions move.
    """

    def __init__(self, morphable):
        if morphable.blendshapes is None:
            raise ValueError("this face model has no blendshapes")
        reach = np.sqrt((np.asarray(morphable.exp_basis, np.float64) ** 2).sum(axis=(1, 2)))
        self.moved = reach > _STILL * reach.max(initial=0.0)
        count = max(int(self.moved.sum()), 1)
        shapes = morphable.blendshapes[self.moved].reshape(3 * self.moved.sum(), -1).astype(np.float64)
        basis = morphable.exp_basis[self.moved].reshape(3 * self.moved.sum(), -1).astype(np.float64)
        scale = _MILLIMETRES ** 2 / count  # energies are mean squares in millimetres
        self._gram, self._cross, self._own = (scale * (a.T @ b) for a, b in (
            (shapes, shapes), (shapes, basis), (basis, basis)))
        if not np.diag(self._gram).any():
            raise ValueError("no blendshape of this face model moves what its expressions move")
        self._used = np.flatnonzero(np.diag(self._gram) > 0)
        ridged = self._gram + _RIDGE * np.diag(np.diag(self._gram))
        self._system = ridged[np.ix_(self._used, self._used)]

    def weights(self, exp) -> tuple[np.ndarray, np.ndarray]:
        """Weights of many expressions; faster where neighbours are alike, as in a video.

        Args:
            exp: (B, Ke) expression coefficients.

        Returns:
            weights (B, A) float64 in [0, 1], and the residuals' rms (B,) in millimetre, as ``ExpressionWeights.rms``.

        Raises:
            ValueError: ``exp`` is not (B, Ke) finite numbers.
        """
        exp = np.asarray(exp, np.float64)
        if exp.ndim != 2 or exp.shape[1] != self._own.shape[0] or not np.isfinite(exp).all():
            raise ValueError(f"expected finite expressions (B, {self._own.shape[0]}), got shape {exp.shape}")
        result = np.zeros((len(exp), self._gram.shape[0]))
        state = None
        for row, wanted in zip(result, exp @ self._cross.T):
            row[self._used], state = bounded_minimum(self._system, wanted[self._used], state)
        squares = (np.einsum("ba,ac,bc->b", result, self._gram, result) + np.einsum("bk,kl,bl->b", exp, self._own, exp)
                   - 2 * np.einsum("ba,ak,bk->b", result, self._cross, exp))
        return result, np.sqrt(np.maximum(squares, 0.0))


def bounded_minimum(matrix: np.ndarray, vector: np.ndarray, state: np.ndarray | None = None
                    ) -> tuple[np.ndarray, np.ndarray]:
    """The minimum of w M w / 2 - v w over 0 <= w <= 1, exact up to rounding, by block principal pivoting.

    Each unknown is free or at one of its bounds. Solving for the free ones shows which are misplaced: free ones
    beyond a bound, bound ones whose gradient points inwards. All change places at once; where that makes no progress,
    only the last one does, which ends for every positive definite matrix (Judice and Pires 1994).

    Args:
        matrix: (A, A) symmetric, positive definite.
        vector: (A,).
        state: (A,) where to begin: -1 at zero, 0 free, 1 at one; the former result's for a problem like it.

    Returns:
        w (A,) and its state.
    """
    state = np.full(len(vector), -1) if state is None else state.copy()
    tolerance = _CORNERS * np.abs(vector).max(initial=1.0)
    fewest, tries = len(vector) + 1, _BLOCK_TRIES
    for _ in range(_MOST_EXCHANGES * len(vector)):
        free = state == 0
        weights = (state == 1).astype(np.float64)
        if free.any():
            weights[free] = np.linalg.solve(matrix[np.ix_(free, free)],
                                            vector[free] - matrix[np.ix_(free, ~free)] @ weights[~free])
        gradient = matrix @ weights - vector
        after = state.copy()
        after[free & (weights < -_CORNERS)], after[free & (weights > 1 + _CORNERS)] = -1, 1
        after[(state == -1) & (gradient < -tolerance) | (state == 1) & (gradient > tolerance)] = 0
        misplaced = np.flatnonzero(after != state)
        if not misplaced.size:
            break
        if misplaced.size < fewest:
            fewest, tries = misplaced.size, _BLOCK_TRIES
        elif tries:
            tries -= 1
        else:
            misplaced = misplaced[-1:]
        state[misplaced] = after[misplaced]
    return np.clip(weights, 0.0, 1.0), state
