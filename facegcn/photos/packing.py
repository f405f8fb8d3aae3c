"""What create_bin.py does: photos -> segmented PNGs -> one packed file, with every rejection named."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice

import numpy as np
import tqdm

from facegcn.config import Config
from facegcn.errors import MaskError, PhotoError, Rejected, UserError
from facegcn.files import check_name, folder_written_whole, write_text
from facegcn.landmarks import LANDMARK_COUNT, five_points, known_dense, points_beside, write_points
from facegcn.photos import packed_file
from facegcn.photos.alignment import align_photo, dense_of_crop
from facegcn.photos.choosing import LARGEST
from facegcn.photos.companions import MaskSource, own_mask
from facegcn.photos.reading import read_image
from facegcn.photos.skin import crop_mask
from facegcn.photos.splits import split_names
from facegcn.report import CROP_TEXT, contact_sheet, draw_points, write_png

log = logging.getLogger("facegcn")

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
        dense: (468, 3) dense landmarks, x and y in pixels of the crop and trust, or None.
    """

    name: str
    rgba: np.ndarray
    points: np.ndarray | None = None
    remark: str = ""
    dense: np.ndarray | None = None


@dataclass
class Summary:
    """What a packing came to.

    Attributes:
        path: the packed file.
        records: what was packed; None = nothing could be.
        split_remark: what the user should know of the split, "" for nothing.
        rejected, remarks: (file name, text).
        sheet: the contact sheet.
        crops: folder of the crops that were made, "" where images were packed as they are.
        seconds: how long it took.
    """

    path: str
    records: packed_file.Records | None = None
    split_remark: str = ""
    rejected: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)
    sheet: str = ""
    crops: str = ""
    seconds: float = 0.0


# ---------------------------------------------------------------- sources
def load_segmented(path: str, size: int) -> Item:
    """Reads one segmented RGBA picture and the points beside it, and finds its dense landmarks.

    Raises:
        Rejected: unreadable, no alpha, another size, no skin at all, or a bad landmark file.
    """
    try:
        rgba, points = read_image(path), points_beside(path)
    except PhotoError as error:
        raise Rejected(str(error)) from error
    return Item(_stem(path), checked_rgba(rgba, size), points, dense=dense_of_crop(rgba, points))


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
               listed: Mapping[str, np.ndarray] | None = None, face: str | int = LARGEST) -> Item:
    """A photo aligned and masked.

    Args:
        path: the photo.
        five_points_3d: (5, 3) of the mean face, decimetre.
        size: width of the crop, pixels.
        masks: where its skin mask comes from.
        listed: points (5, 2) or (68, 2) by file name without ending; a photo that is not in it takes them from the
            file beside it, else from the detector.
        face: which of several faces, see ``choosing.face_choice``.

    Raises:
        Rejected: unreadable, no face, bad points or mask, or a mask without skin.
    """
    try:
        image, points = read_image(path), (listed or {}).get(_stem(path))
        points = points_beside(path) if points is None else points
        aligned = align_photo(image, points, five_points_3d, size, face)
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
    return Item(_stem(path), np.concatenate([aligned.crop.image, mask[..., None]], axis=-1), points, ", ".join(remarks),
                aligned.dense)


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


# ---------------------------------------------------------------- packing
def pack(paths: Iterable, load: Callable[[object], Item], config: Config, out: str, crops: str = "",
         truth_folder: str = "") -> Summary:
    """Loads images in parallel and packs those that can be used, in order, with all that belongs to them.

    Args:
        paths: what ``load`` takes; a path names its image in the summary.
        load: gives the item, or raises ``Rejected``; whatever else it raises rejects the image, too.
        config: ``seed``, ``val_count``, ``test_count``, ``workers``.
        out: the ``.bin`` file. When nothing can be packed it is left as it was.
        crops: a folder where every packed image is also written, NAME.png and NAME.txt; it holds those of this
            packing alone. "" = none.
        truth_folder: of made portraits among the images, see ``packed_file.Records``.

    Raises:
        BinFileError: as ``packed_file.write_bin``.
        OSError: a file cannot be written.
    """
    started, summary, points, shown, paths = time.perf_counter(), Summary(out), [], [], list(paths)
    dense = np.empty((len(paths), *known_dense(None).shape), np.float32)  # memory is taken as rows are filled

    def pictures(items, folder: str) -> Iterator[tuple[str, np.ndarray]]:
        for item in items:
            if folder:
                write_png(os.path.join(folder, item.name + ".png"), item.rgba, CROP_TEXT)
                if item.points is not None:
                    write_points(os.path.join(folder, item.name + ".txt"), item.points)
            dense[len(points)] = known_dense(item.dense)
            points.append(item.points)
            if len(shown) < _SHEET_PHOTOS:
                shown.append(item)
            yield item.name, item.rgba

    def describe(names: list[str]) -> packed_file.Records:
        splits, summary.split_remark = split_names(names, config.val_count, config.test_count, config.seed)
        return packed_file.Records(names, splits, *_point_arrays(points), truth_folder, dense[:len(names)])

    with contextlib.closing(_usable(paths, load, config.workers, summary)) as items:
        first = next(items, None)
        if first is None:
            return summary
        with folder_written_whole(crops) if crops else contextlib.nullcontext("") as folder:
            summary.records = packed_file.write_bin(out, None, pictures(chain([first], items), folder), describe)
    summary.crops = crops
    for part, rows in summary.records.splits.items():
        write_text(packed_file.companion(out, f"{part}.txt"),
                   "".join(summary.records.names[row] + "\n" for row in rows))
    summary.sheet = packed_file.companion(out, "sheet.png")
    write_sheet(shown, summary.sheet)
    summary.seconds = time.perf_counter() - started
    return summary


def _usable(paths: list, load, workers: int, summary: Summary) -> Iterator[Item]:
    """Items in order, read ahead by a bounded number; rejections and remarks go to the summary."""
    taken = set()
    pool = ThreadPoolExecutor(workers)
    try:
        with tqdm.tqdm(total=len(paths), unit="image", dynamic_ncols=True) as progress:
            remaining = iter(paths)
            waiting = deque((path, pool.submit(_attempt, load, path)) for path in islice(remaining, _AHEAD * workers))
            while waiting:
                path, future = waiting.popleft()
                waiting += [(path_, pool.submit(_attempt, load, path_)) for path_ in islice(remaining, 1)]
                item, label = future.result(), _label(path)
                progress.update()
                reason = item if isinstance(item, str) else _named(item, path, taken)
                if reason:
                    summary.rejected.append((label, _printable(reason.removeprefix(f"{path}: "))))
                    continue
                taken.add(item.name)
                if item.remark:
                    summary.remarks.append((label, item.remark))
                yield item
    finally:  # Ctrl-C waits for the images in hand, not for those ahead
        pool.shutdown(cancel_futures=True)


def _attempt(load, path) -> Item | str:
    """The item, or why there is none: one bad photo of 200,000 ends nothing."""
    if isinstance(path, str) and not os.path.isfile(path):
        return "is no file but a folder, a pipe or a device, or is not there any more"
    try:
        return load(path)
    except Rejected as reason:
        return str(reason)
    except Exception as error:
        log.debug("%s was rejected for a reason that nobody foresaw:", _label(path), exc_info=True)
        words = str(error).strip().splitlines() or ["without a word"]
        return f"cannot be used ({type(error).__name__}: {words[0]}); --debug shows where"


def _named(item: Item, path, taken: set[str]) -> str:
    """Gives an item whose name is taken that of its file with the ending; returns "", or why it has no name."""
    if item.name in taken and isinstance(path, str):
        item.name = os.path.basename(path)
    try:
        check_name(item.name, "its name")
    except UserError as error:
        return str(error)
    return f"another image named {item.name} is packed already" if item.name in taken else ""


def _label(path) -> str:
    """How the summary calls an image."""
    return _printable(os.path.basename(path)) if isinstance(path, str) else f"record {path}"


def _printable(text: str) -> str:
    """A text on one line, letters that no terminal can show spelt out."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


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
    if summary.records is None:
        return "\n".join([*lines, f"nothing was packed; {summary.path} was not written"])
    size, packed, splits = os.path.getsize(summary.path), len(summary.records.names), summary.records.splits
    lines.append(f"packed {packed:,} of {packed + len(summary.rejected):,} images into "
                 f"{summary.path} ({size / 1e6:.1f} MB, {packed / summary.seconds:.0f} images/s)")
    if summary.split_remark:
        lines.append(summary.split_remark)
    if summary.crops:
        lines.append(f"the crops and their masks are in {summary.crops}")
    lines.append(f"{packed_file.companion(summary.path)} goes with it: names, points, and "
                 + ", ".join(f"{part} {len(rows):,}" for part, rows in splits.items())
                 + f" (also as lists, {packed_file.companion(summary.path, 'train.txt')} and so on); "
                 f"look at {summary.sheet}")
    return "\n".join(lines)
