"""What create_bin.py does: photos -> segmented PNGs -> one packed file, with every rejection named."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import tqdm

from facegcn.config import Config
from facegcn.errors import MaskError, PhotoError, Rejected
from facegcn.landmarks import LANDMARK_COUNT, five_points, points_beside, write_points
from facegcn.photos import packed_file
from facegcn.photos.alignment import align_photo
from facegcn.photos.companions import MaskSource, own_mask
from facegcn.photos.reading import CROP_TEXT, read_image
from facegcn.photos.skin import crop_mask
from facegcn.report import contact_sheet, draw_points, write_png

_SHEET_PHOTOS, _SHEET_COLUMNS, _SHEET_WIDTH = 48, 4, 160
_AHEAD = 8  # images read ahead for each worker, so that memory does not grow with the folder


@dataclass
class Item:
    """One image on its way into the packed file.

    Attributes:
        name: of the record.
        rgba: (H, W, 4) uint8.
        points: (5, 2) or (68, 2) pixels of the crop, or None.
        remark: what the user should know, "" for nothing.
    """

    name: str
    rgba: np.ndarray
    points: np.ndarray | None = None
    remark: str = ""


@dataclass
class Summary:
    """What a packing came to: record names, the split, rejections and remarks as (name, text)."""

    path: str
    names: list[str] = field(default_factory=list)
    split: packed_file.Split | None = None
    rejected: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)
    sheet: str = ""
    seconds: float = 0.0


# ---------------------------------------------------------------- sources
def load_segmented(path: str, size: int) -> Item:
    """Reads one segmented RGBA picture and the points beside it.

    Raises:
        Rejected: unreadable, no alpha, another size, no skin at all, or a bad landmark file.
    """
    try:
        rgba, points = read_image(path), points_beside(path)
    except PhotoError as error:
        raise Rejected(str(error)) from error
    return Item(_stem(path), checked_rgba(rgba, size), points)


def checked_rgba(rgba: np.ndarray, size: int) -> np.ndarray:
    """The image itself.

    Raises:
        Rejected: no alpha, another size than (size, size), or no skin at all.
    """
    height, width, channels = rgba.shape
    if channels != 4:
        raise Rejected("has no alpha channel; alpha 255 marks skin, 0 the rest. "
                       "create_bin.py --photos FOLDER makes such pictures from photos")
    if (height, width) != (size, size):
        raise Rejected(f"is {width} x {height} pixels, expected {size} x {size}; align it with create_bin.py "
                       "--photos FOLDER, or set --img_size if all are of its size")
    if not rgba[..., 3].any():
        raise Rejected("is transparent everywhere (alpha 0): no pixel is marked as skin")
    return rgba


def load_photo(path: str, five_points_3d: np.ndarray, size: int, masks: MaskSource,
               listed: Mapping[str, np.ndarray] | None = None) -> Item:
    """A photo aligned and masked.

    Args:
        path: the photo.
        five_points_3d: (5, 3) of the mean face, decimetre.
        size: width of the crop, pixels.
        masks: where its skin mask comes from.
        listed: points (5, 2) or (68, 2) by file name without ending; a photo that is not in it takes them from the
            file beside it, else from the detector.

    Raises:
        Rejected: unreadable, no face, bad points or mask, or a mask without skin.
    """
    try:
        image, points = read_image(path), (listed or {}).get(_stem(path))
        points = points_beside(path) if points is None else points
        aligned = align_photo(image, points, five_points_3d, size)
        mask = own_mask(path, image.shape[:2], aligned.crop, masks)
    except (PhotoError, MaskError) as error:
        raise Rejected(str(error)) from error
    own = mask is not None
    if not own:
        mask = crop_mask(aligned, masks.keep_features)
    if not mask.any():
        raise Rejected("its skin mask is empty; give one of your own with --masks FOLDER")
    points = aligned.points if aligned.landmarks is None else aligned.landmarks
    remarks = [] if aligned.status == "ok" else [aligned.status]
    if masks.folder and not own:
        remarks.append("no mask of its own: estimated")
    if listed is not None and _stem(path) not in listed:
        remarks.append("not in the list of landmarks")
    return Item(_stem(path), np.concatenate([aligned.crop.image, mask[..., None]], axis=-1), points, ", ".join(remarks))


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


# ---------------------------------------------------------------- packing
def pack(paths: Iterable, load: Callable[[object], Item], config: Config, out: str,
         keep_in: str | None = None) -> Summary:
    """Loads images in parallel and packs those that can be used, in order, with all that belongs to them.

    Args:
        paths: what ``load`` takes; a path names its image in the summary.
        load: gives the item, or raises ``Rejected``.
        config: ``seed``, ``val_count``, ``test_count``, ``workers``.
        out: the ``.bin`` file. When nothing can be packed it is left as it was.
        keep_in: a folder where every packed image is also written, NAME.png and NAME.txt.

    Raises:
        BinFileError: as ``packed_file.write_bin``.
    """
    started, summary, points, shown = time.perf_counter(), Summary(out), [], []
    items = _usable(paths, load, config.workers, summary)
    first = next(items, None)
    if first is None:
        return summary

    def records() -> Iterator[tuple[str, np.ndarray]]:
        for item in _chained(first, items):
            if keep_in is not None:
                write_png(os.path.join(keep_in, item.name + ".png"), item.rgba, CROP_TEXT)
                if item.points is not None:
                    write_points(os.path.join(keep_in, item.name + ".txt"), item.points)
            points.append(item.points)
            if len(shown) < _SHEET_PHOTOS:
                shown.append(item)
            yield item.name, item.rgba

    summary.names = packed_file.write_bin(out, None, records())
    packed_file.write_landmarks(out, *_point_arrays(points))
    summary.split = packed_file.split_names(summary.names, config.val_count, config.test_count, config.seed)
    packed_file.write_split(out, summary.split)
    summary.sheet = packed_file.companion(out, "sheet.png")
    write_sheet(shown, summary.sheet)
    summary.seconds = time.perf_counter() - started
    return summary


def _chained(first, rest):
    yield first
    yield from rest


def _usable(paths, load, workers: int, summary: Summary) -> Iterator[Item]:
    """Items in order, read ahead by a bounded number; rejections and remarks go to the summary."""
    paths, seen = list(paths), set()

    def attempt(path):
        try:
            return load(path)
        except Rejected as reason:
            return reason

    with ThreadPoolExecutor(workers) as pool, tqdm.tqdm(total=len(paths), unit="image") as progress:
        remaining = iter(paths)
        waiting = [(path, pool.submit(attempt, path)) for path in islice(remaining, _AHEAD * workers)]
        while waiting:
            path, future = waiting.pop(0)
            waiting += [(path_, pool.submit(attempt, path_)) for path_ in islice(remaining, 1)]
            item, label = future.result(), os.path.basename(path) if isinstance(path, str) else f"record {path}"
            progress.update()
            if not isinstance(item, Item):
                summary.rejected.append((label, str(item).removeprefix(f"{path}: ")))
            elif item.name in seen:
                summary.rejected.append((label, f"another file named {item.name} is packed already"))
            else:
                seen.add(item.name)
                if item.remark:
                    summary.remarks.append((label, item.remark))
                yield item


def _point_arrays(points: list) -> tuple[np.ndarray, np.ndarray]:
    """(M, 5, 2) and (M, 68, 2), NaN where unknown."""
    five = np.full((len(points), 5, 2), np.nan, np.float32)
    landmarks = np.full((len(points), LANDMARK_COUNT, 2), np.nan, np.float32)
    for row, known in enumerate(points):
        if known is not None:
            five[row] = five_points(known)
            if len(known) == LANDMARK_COUNT:
                landmarks[row] = known
    return five, landmarks


def write_sheet(items: list[Item], path: str) -> None:
    """A contact sheet: each image's crop with its points, and what its mask keeps."""
    pictures, labels = [], []
    for item in items:
        crop = item.rgba[..., :3]
        marked = crop if item.points is None else draw_points(crop, item.points)
        pictures.append([marked, item.rgba])
        labels.append([item.name, ""])
    rows = [sum(pictures[i:i + _SHEET_COLUMNS], []) for i in range(0, len(pictures), _SHEET_COLUMNS)]
    texts = [sum(labels[i:i + _SHEET_COLUMNS], []) for i in range(0, len(labels), _SHEET_COLUMNS)]
    contact_sheet(rows, texts, path, width=_SHEET_WIDTH)


def report(summary: Summary) -> str:
    """What the user reads at the end."""
    lines = [f"  {name}: {text}" for name, text in summary.rejected]
    if lines:
        lines.insert(0, f"rejected {len(summary.rejected)}:")
    if summary.remarks:
        lines += ["to note:", *(f"  {name}: {text}" for name, text in summary.remarks)]
    if not summary.names:
        return "\n".join([*lines, f"nothing was packed; {summary.path} was not written"])
    size = os.path.getsize(summary.path)
    lines.append(f"packed {len(summary.names):,} of {len(summary.names) + len(summary.rejected):,} images into "
                 f"{summary.path} ({size / 1e6:.1f} MB, {len(summary.names) / summary.seconds:.0f} images/s)")
    if summary.split.remark:
        lines.append(summary.split.remark)
    lines.append(", ".join(f"{part} {len(getattr(summary.split, part)):,}" for part in packed_file.SPLIT_NAMES)
                 + f": lists beside it; look at {summary.sheet}")
    return "\n".join(lines)
