"""How close a result is to its photo and, where the truth is known, to the true albedo.

The paper names L1, PSNR and SSIM on the masked face; the exact definitions are ours and stand here.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os

import numpy as np
from skimage.metrics import structural_similarity

from facegcn.files import write_text

IMAGE_METRICS = ("l1", "psnr", "ssim")
_SSIM_SIGMA = 1.5  # pixels, of the Gaussian window
_SSIM_WINDOW = 11  # pixels, what scikit-image makes of that sigma


def image_metrics(overlay: np.ndarray, photo: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Differences between overlay and photo over the pixels of a mask.

    Args:
        overlay: (H, W, 3) in [0, 1], the render inside coverage and skin mask, the photo elsewhere
            (``report.overlay``).
        photo: (H, W, 3) in [0, 1].
        mask: (H, W), true where skin mask and coverage are both on.

    Returns:
        ``l1``: mean absolute difference over pixels and channels; ``psnr``: 10 log10(1 / MSE) over
        the same, dB, infinite for equal pictures; ``ssim``: structural similarity (Z. Wang et al.
        2004, Gaussian weights of sigma 1.5), its map averaged over the same pixels. All NaN where
        the mask is empty.

    Raises:
        ValueError: shapes differ, the picture is smaller than the window, or values outside [0, 1].
    """
    overlay, photo, mask = (np.asarray(a) for a in (overlay, photo, mask))
    if overlay.shape != photo.shape or photo.ndim != 3 or mask.shape != photo.shape[:2]:
        raise ValueError(f"overlay {overlay.shape}, photo {photo.shape} and mask {mask.shape} do not fit; "
                         "expected (H, W, 3) twice and (H, W)")
    if min(photo.shape[:2]) < _SSIM_WINDOW:
        raise ValueError(f"pictures of {photo.shape[:2]} are smaller than the {_SSIM_WINDOW}-pixel window")
    for name, image in (("overlay", overlay), ("photo", photo)):
        if not (image.min() >= -1e-3 and image.max() <= 1.001):
            raise ValueError(f"{name} must lie in [0, 1], got {image.min():.3g} to {image.max():.3g}")
    mask = mask.astype(bool)
    if not mask.any():
        return dict.fromkeys(IMAGE_METRICS, math.nan)
    # No pixel of the mask, nor of its windows, lies outside this: structural similarity takes most of the time.
    rows, columns = (_around(mask.any(axis=axis)) for axis in (1, 0))
    overlay, photo, mask = (array[rows, columns] for array in (overlay, photo, mask))
    overlay, photo = overlay.astype(np.float64), photo.astype(np.float64)
    difference = (overlay - photo)[mask]
    mse = float(np.mean(difference ** 2))
    similarity = structural_similarity(overlay, photo, gaussian_weights=True, sigma=_SSIM_SIGMA,
                                       channel_axis=-1, data_range=1.0, full=True)[1]
    return {"l1": float(np.mean(np.abs(difference))),
            "psnr": 10.0 * math.log10(1.0 / mse) if mse else math.inf,
            "ssim": float(similarity[mask].mean())}


def _around(used) -> slice:
    """The rows, or columns, between the first and the last that are used (H,), and a window's width to either side."""
    first, last = np.flatnonzero(used)[[0, -1]]
    return slice(max(first - _SSIM_WINDOW, 0), last + 1 + _SSIM_WINDOW)


def texture_errors(albedo: np.ndarray, truth: np.ndarray, visible: np.ndarray) -> dict[str, float]:
    """Mean absolute error of an albedo, in levels of [0, 255].

    Args:
        albedo, truth: (N, 3), RGB in [0, 255].
        visible: (N,) bool, the vertices seen in the photo.

    Returns:
        ``visible`` and ``hidden``: mean over those vertices and channels; NaN where there is none.

    Raises:
        ValueError: shapes differ.
    """
    albedo, truth, visible = np.asarray(albedo), np.asarray(truth), np.asarray(visible, bool)
    if albedo.shape != truth.shape or albedo.ndim != 2 or visible.shape != albedo.shape[:1]:
        raise ValueError(f"albedo {albedo.shape}, truth {truth.shape} and visible {visible.shape} do not fit")
    error = np.abs(albedo.astype(np.float64) - truth).mean(axis=1)
    return {name: float(error[chosen].mean()) if chosen.any() else math.nan
            for name, chosen in (("visible", visible), ("hidden", ~visible))}


def truth_metrics(truth: dict, landmarks: np.ndarray, textures: dict) -> dict[str, float]:
    """Distances of a reconstruction from a made portrait's truth.

    Args:
        truth: ``landmarks`` (68, 2) pixels, ``albedo`` (N, 3) levels of 255, ``visible`` (N,) bool.
        landmarks: (68, 2) of the reconstruction, pixels.
        textures: ``coarse_texture`` and ``fine_texture`` (N, 3) in [-1, 1].

    Returns:
        ``landmark_error``: pixels, mean of 68; and, coarse and fine, ``albedo_visible`` and ``albedo_hidden``: mean
        absolute difference in levels of 255 on vertices that the portrait shows, and does not show.

    Raises:
        ValueError: shapes differ.
    """
    found = {"landmark_error": float(np.linalg.norm(landmarks - truth["landmarks"], axis=1).mean())}
    for kind in ("coarse", "fine"):
        errors = texture_errors((textures[f"{kind}_texture"] + 1.0) * 127.5, truth["albedo"], truth["visible"])
        found.update({f"{kind}_albedo_{name}": value for name, value in errors.items()})
    return found


def mean_row(rows: dict[str, dict]) -> dict[str, float]:
    """Mean of every numeric column over the photos where it is finite; columns without one are left out."""
    means = {}
    for key in _columns(rows):
        values = [row[key] for row in rows.values() if _finite(row.get(key))]
        if values:
            means[key] = float(np.mean(values))
    return means


def measured(rows: dict[str, dict]) -> int:
    """How many photos have a metric at all, so that a mean is one of these."""
    return sum(any(map(_finite, row.values())) for row in rows.values())


def write_metrics(folder: str, rows: dict[str, dict], **about) -> None:
    """Writes ``metrics.json`` and ``metrics.csv``, whole.

    The JSON is strict: a value that is not finite becomes null. In the table it is empty; its column ``kind`` tells
    photos from their mean, and a text that a spreadsheet would take for a formula has an apostrophe before it.

    Args:
        folder: an existing folder.
        rows: photo name -> metric name -> number or text, for example ``coarse_l1`` or ``status``.
        about: further entries of the JSON file, for example settings.

    Raises:
        OSError: a file cannot be written.
    """
    mean, count = mean_row(rows), measured(rows)
    content = {**about, "count": len(rows), "mean_of": count, "mean": mean, "photos": rows}
    write_text(os.path.join(folder, "metrics.json"), json.dumps(_strict(content), indent=2, allow_nan=False) + "\n")
    columns, table = _columns(rows), io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["photo", "kind", *columns])
    for name, row in rows.items():
        writer.writerow([_harmless(name), "photo", *(_harmless(_strict(row.get(key))) for key in columns)])
    writer.writerow(["", f"mean of {count}", *(_harmless(_strict(mean.get(key))) for key in columns)])
    write_text(os.path.join(folder, "metrics.csv"), table.getvalue())


def summary_table(rows: dict[str, dict], most: int = 50) -> str:
    """A text table of the photos (the first ``most``) and their mean; long texts, such as reasons, are left out."""
    columns = [key for key in _columns(rows) if key != "reason"]
    lines = [["photo", *columns]]
    lines += [[name, *(_cell(row.get(key)) for key in columns)] for name, row in list(rows.items())[:most]]
    mean = mean_row(rows)
    lines.append([f"mean of {measured(rows)}", *(_cell(mean.get(key)) for key in columns)])
    name_width, *widths = (max(len(line[i]) for line in lines) for i in range(len(columns) + 1))
    text = []
    for name, *cells in lines:
        text.append("  ".join([name.ljust(name_width), *map(str.rjust, cells, widths)]))
    if len(rows) > most:
        text.insert(-1, f"... {len(rows) - most} more in metrics.csv")
    return "\n".join(text)


def _harmless(value):
    """What a table's cell holds: "" for nothing; a text that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return "" if value is None else value


def _columns(rows: dict[str, dict]) -> list[str]:
    """Every column of any row, in the order of appearance."""
    return list(dict.fromkeys(key for row in rows.values() for key in row))


def _finite(value) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)


def _cell(value) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.4g}" if _finite(value) else "-"


def _strict(value):
    """The value with NumPy numbers made plain and numbers that are not finite made None."""
    if isinstance(value, dict):
        return {key: _strict(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
