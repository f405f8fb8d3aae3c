"""Pictures for people: overlays of the render on the photo, PNGs, contact sheets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from facegcn.files import write_bytes
from facegcn.png import png_bytes

#: The text chunk by which a PNG says that it is an aligned crop whose alpha is a skin mask.
CROP_TEXT = {"facegcn": "aligned crop"}
SHEET_WIDTH = 224  # pixels of a picture on a contact sheet
_LABEL_HEIGHT = 18  # pixels of the line above a picture
_GAP = 4  # pixels between pictures
_PAPER, _INK = 255, (40, 40, 40)


def overlay(render, rgba):
    """The render inside coverage and skin mask, the photo elsewhere.

    Args:
        render: (..., H, W, 4), RGB in [-1, 1], alpha = coverage.
        rgba: photo of the same shape, RGB in [-1, 1], alpha = skin in [0, 1].

    Returns:
        (..., H, W, 3) RGB in [-1, 1]; a tensor of tensors, an array of arrays, differentiable in both.
    """
    inside = render[..., 3:] * rgba[..., 3:]
    return render[..., :3] * inside + rgba[..., :3] * (1.0 - inside)


def to_uint8(image) -> np.ndarray:
    """RGB in [-1, 1] -> 0..255."""
    return np.clip(np.round((np.asarray(image) + 1.0) * 127.5), 0, 255).astype(np.uint8)


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], labels: Sequence[str | Sequence[str]], path: str,
                  headings: Sequence[str] = (), width: int = SHEET_WIDTH) -> None:
    """Writes rows of pictures as one PNG.

    Args:
        rows: each row's pictures, uint8 (H, W), (H, W, 3) RGB or (H, W, 4) RGBA.
        labels: what is written above each row: one text, or one text a picture.
        path: the PNG file; its folder is made.
        headings: one text a column, written at the top.
        width: width of every picture on the sheet, pixels.

    Raises:
        ValueError: no row, or not one label per row.
        OSError: the file cannot be written.
    """
    if not rows or len(rows) != len(labels):
        raise ValueError(f"expected at least one row and one label each, got {len(rows)} and {len(labels)}")
    columns = max(len(row) for row in rows)
    full_width = columns * (width + _GAP) + _GAP
    strips = [_text_line(headings, full_width, width + _GAP)] if headings else []
    for row, label in zip(rows, labels):
        pictures = [fitted(image, width) for image in row]
        height = max(picture.shape[0] for picture in pictures)
        strip = np.full((height + _GAP, full_width, 3), _PAPER, np.uint8)
        for column, picture in enumerate(pictures):
            left = _GAP + column * (width + _GAP)
            strip[:picture.shape[0], left:left + width] = picture
        strips += [_text_line([label] if isinstance(label, str) else label, full_width, width + _GAP), strip]
    write_png(path, np.concatenate(strips))


def write_png(path: str, image: np.ndarray, text: Mapping[str, str] | None = None) -> None:
    """Writes uint8 (H, W), RGB or RGBA as PNG, whole; its folder is made.

    Args:
        path: the file.
        image: the picture.
        text: chunks of text that go with it, by key, such as ``CROP_TEXT``.

    Raises:
        ValueError: it is no such picture.
        OSError: the file cannot be written.
    """
    write_bytes(path, png_bytes(image, text))


def draw_points(image: np.ndarray, points: np.ndarray, color=(0, 255, 0)) -> np.ndarray:
    """A copy of an RGB picture with a dot at each of the points (P, 2); NaN points are left out."""
    image = np.ascontiguousarray(image[..., :3]).copy()
    for x, y in points[np.isfinite(points).all(axis=1)]:
        # Points count from the pixel's corner, OpenCV from its centre.
        cv2.circle(image, (round(float(x) - 0.5), round(float(y) - 0.5)), 1, color, -1, cv2.LINE_AA)
    return image


def fitted(image: np.ndarray, width: int) -> np.ndarray:
    """A picture as contact sheets show it: uint8 RGB of some width in pixels; RGBA is laid on a checkerboard."""
    image = np.atleast_3d(image)
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    if image.shape[2] == 4:
        board = np.where((np.indices(image.shape[:2]) // 8).sum(axis=0) % 2, 150, 190)[..., None]
        alpha = image[..., 3:] / 255.0
        image = np.rint(image[..., :3] * alpha + board * (1.0 - alpha)).astype(np.uint8)
    height = max(1, round(image.shape[0] * width / image.shape[1]))
    mode = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_CUBIC
    return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=mode)


def _text_line(texts: Sequence[str], full_width: int, step: int) -> np.ndarray:
    """A strip with texts at every ``step`` pixels."""
    strip = np.full((_LABEL_HEIGHT, full_width, 3), _PAPER, np.uint8)
    for column, text in enumerate(texts):
        text = text.encode("ascii", "replace").decode()  # OpenCV's font has no other letters
        cv2.putText(strip, text, (_GAP + column * step, _LABEL_HEIGHT - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4,
                    _INK, 1, cv2.LINE_AA)
    return strip
