"""How close a result is to its photo and, where the truth is known, to the true albedo.

The paper names L1, PSNR and SSIM on the masked face; the exact definitions are ours and stand here.
"""

from __future__ import annotations

import csv
import json
import math
import os

import numpy as np
from skimage.metrics import structural_similarity

IMAGE_METRICS = ("l1", "psnr", "ssim")
_SSIM_SIGMA = 1.5  # pixels, of the Gaussian window
_SSIM_WINDOW = 11  # pixels, what scikit-image makes of that sigma


def image_metrics(overlay: np.ndarray, photo: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Differences between overlay and photo over the pixels of a mask.

    Args:
        overlay: (H, W, 3) in [0, 1], the render inside the mask and the photo outside.
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
    overlay, photo = overlay.astype(np.float64), photo.astype(np.float64)
    difference = (overlay - photo)[mask]
    mse = float(np.mean(difference ** 2))
    similarity = structural_similarity(overlay, photo, gaussian_weights=True, sigma=_SSIM_SIGMA,
                                       channel_axis=-1, data_range=1.0, full=True)[1]
    return {"l1": float(np.mean(np.abs(difference))),
            "psnr": 10.0 * math.log10(1.0 / mse) if mse else math.inf,
            "ssim": float(similarity[mask].mean())}


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


def mean_row(rows: dict[str, dict]) -> dict[str, float]:
    """Mean of every numeric column over the photos where it is finite; columns without one are left out."""
    means = {}
    for key in _columns(rows):
        values = [row[key] for row in rows.values() if _finite(row.get(key))]
        if values:
            means[key] = float(np.mean(values))
    return means


def write_metrics(folder: str, rows: dict[str, dict], **about) -> None:
    """Writes ``metrics.json`` (strict JSON: a value that is not finite becomes null) and ``metrics.csv``.

    Args:
        folder: an existing folder.
        rows: photo name -> metric name -> number or text, for example ``coarse_l1`` or ``status``.
        about: further entries of the JSON file, for example settings.
    """
    content = {**about, "count": len(rows), "mean": mean_row(rows), "photos": rows}
    with open(os.path.join(folder, "metrics.json"), "w", encoding="utf-8") as file:
        json.dump(_strict(content), file, indent=2, allow_nan=False)
        file.write("\n")
    columns = _columns(rows)
    with open(os.path.join(folder, "metrics.csv"), "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["photo", *columns])
        for name, row in {**rows, "mean": mean_row(rows)}.items():
            writer.writerow([name, *("" if _strict(row.get(key)) is None else row[key] for key in columns)])


def summary_table(rows: dict[str, dict], most: int = 40) -> str:
    """A text table of the photos (the first ``most``) and their mean."""
    columns = _columns(rows)
    shown = dict(list(rows.items())[:most]) | {f"mean of {len(rows)}": mean_row(rows)}
    lines = [["photo", *columns]]
    lines += [[name, *(_cell(row.get(key)) for key in columns)] for name, row in shown.items()]
    name_width, *widths = (max(len(line[i]) for line in lines) for i in range(len(columns) + 1))
    text = []
    for name, *cells in lines:
        text.append("  ".join([name.ljust(name_width), *map(str.rjust, cells, widths)]))
    if len(rows) > most:
        text.insert(-1, f"... {len(rows) - most} more in metrics.csv")
    return "\n".join(text)


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
