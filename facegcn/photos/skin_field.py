"""How unlike this face's own skin every pixel is: logarithmic colours beside a smooth field of lit skin.

Light multiplies skin's colour, so it adds to the logarithm: lightness varies over a face as a polynomial of second
degree, tint far less. The field is fitted by iteratively reweighted least squares (Tukey's weights, Beaton and Tukey
1974), first to patches where skin is bare on almost every face, then to whatever in the outline agrees with them.
"""

from __future__ import annotations

import cv2
import numpy as np

from facegcn.photos.face_regions import FaceRegions

_NOISE = 0.8  # pixels, standard deviation of the blur that removes noise
_DARK = 16.0  # levels added before the logarithm: black has no tint
_STRIDE = 3  # every how many pixels the field is fitted to
_ROUNDS = 4
#: Least and most deviation of lightness and of both tints, logarithms; a photo's own noise decides between them.
_LEAST, _MOST = np.float32((0.09, 0.040, 0.040)), np.float32((0.20, 0.075, 0.075))
_CUT = 3.5  # deviations from which a pixel has no weight in the fit
_ODD_PATCH = np.float32((1.2, 0.16, 0.16))  # from the patches' median: such a patch is covered
#: A patch that is redder than the first has the second more votes: masks cover both cheeks, and are seldom as red.
_SKIN_RED, _RED_VOTES = 0.08, 2.5
#: Shadows and highlights change lightness, and tint little: a deviation of lightness counts by these parts.
_DARKER, _BRIGHTER = 0.62, 0.62
_REDDER = 0.5  # the same of red: cheeks, a blush


def log_colors(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32: lightness, red against green, blue against green, natural logarithms.

    Args:
        image: (H, W, 3) uint8 or float, levels in [0, 255].
    """
    logs = np.log(cv2.GaussianBlur(np.float32(image), (0, 0), _NOISE) + _DARK)
    red, green, blue = logs[..., 0], logs[..., 1], logs[..., 2]
    return np.stack([(red + green + blue) / 3.0, red - green, blue - green], axis=-1)


def residuals(colors: np.ndarray, regions: FaceRegions, usable: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """What a smooth field of lit skin leaves of a face's colours.

    Args:
        colors: (H, W, 3) as ``log_colors``, or what remains of them beside a render's.
        regions: of the face.
        usable: (H, W) bool, pixels that may count as skin.

    Returns:
        (H, W, 3) residuals and (3,) robust deviations; None where no bare patch is in sight.
    """
    right, down = regions.coordinates()
    one = np.ones_like(right)
    basis = np.stack([one, right, down, right * right, right * down, down * down], axis=-1)
    candidates = regions.oval & usable & ~regions.features()
    thinned = np.zeros_like(candidates)
    thinned[::_STRIDE, ::_STRIDE] = True
    start = _agreeing(colors, regions.safe(), candidates)
    if start is None:
        return None
    first = colors[start]
    centre = np.median(first, axis=0)
    # Tint, then lightness, may vary the more terms the more of the face has been looked at.
    where = candidates & thinned
    rows, samples, near_start = basis[where], colors[where], start[where]
    predicted = np.broadcast_to(centre, samples.shape)
    spread = _MOST
    for turn in range(_ROUNDS):
        left = (samples - predicted) / spread
        weight = np.square(np.clip(1.0 - np.square(left / _CUT).sum(axis=1) / 2.0, 0.0, 1.0))
        weight = weight + 0.5 * near_start if turn < 2 else weight
        solutions = [_solved(rows[:, :terms], samples[:, channel], weight)
                     for channel, terms in enumerate((3 if turn < 1 else 6, 3, 3))]
        predicted = np.stack([rows[:, :len(found)] @ found for found in solutions], axis=-1)
        kept = weight > 0.1
        if kept.sum() > 30:
            spread = np.clip(1.4826 * np.median(np.abs(samples - predicted)[kept], axis=0), _LEAST, _MOST)
    field = np.stack([basis[..., :len(found)] @ found for found in solutions], axis=-1)
    return np.float32(colors - field), np.float32(spread)


def distance(left: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """(H, W) float32 robust distance of residuals (H, W, 3) from skin, in deviations (3,)."""
    light = left[..., 0] * np.where(left[..., 0] < 0.0, np.float32(_DARKER), np.float32(_BRIGHTER)) / spread[0]
    red = left[..., 1] * np.where(left[..., 1] > 0.0, np.float32(_REDDER), np.float32(1.0)) / spread[1]
    return np.sqrt(light * light + red * red + np.square(left[..., 2] / spread[2]))


def smoothed(value: np.ndarray, guide: np.ndarray, radius: int, contrast: float) -> np.ndarray:
    """Guided filter (He, Sun and Tang 2010): a picture smoothed but for the guide's edges.

    Args:
        value, guide: (H, W) float32.
        radius: of the window, pixels.
        contrast: of the guide, below which it is no edge.
    """
    def mean(picture):
        return cv2.blur(picture, (2 * radius + 1, 2 * radius + 1))

    average, level = mean(guide), mean(value)
    slope = (mean(guide * value) - average * level) / (mean(guide * guide) - average * average + contrast ** 2)
    return mean(slope) * guide + mean(level - slope * average)


def _agreeing(colors, patches, candidates):
    """The patches together, but for those whose colour is not that of most; None without any."""
    patches = [patch & candidates for patch in patches]
    patches = [patch for patch in patches if patch.any()]
    if not patches:
        return None
    medians = np.array([np.median(colors[patch], axis=0) for patch in patches])
    apart = (np.abs(medians[:, None] - medians[None]) < _ODD_PATCH).all(axis=-1)
    best = apart[(apart.sum(axis=1) + _RED_VOTES * (medians[:, 1] > _SKIN_RED)).argmax()]
    return np.any([patch for patch, agrees in zip(patches, best) if agrees], axis=0)


def _solved(rows, values, weight):
    """Weighted least squares, slightly drawn to a constant."""
    weighted = rows * weight[:, None]
    ridge = 0.002 * len(rows) * np.diag(np.arange(rows.shape[1]) > 0) + 1e-6 * np.eye(rows.shape[1])
    return np.float32(np.linalg.solve(np.float64(weighted.T @ rows) + ridge, weighted.T @ values))
