"""Writes made portraits of a morphable model, with their truth: ``python -m facegcn.portraits``."""

from __future__ import annotations

import argparse
import os
import sys

from facegcn.backends import start
from facegcn.config import Config
from facegcn.errors import UserError, guarded, log
from facegcn.files import check_writable, make_folder

_SHEET_PORTRAITS, _SHEET_COLUMNS = 64, 8
_MOST_WORKERS = 256
_LIMITS = {"count": (1, 1_000_000), "first": (0, 2 ** 31), "seed": (0, 2 ** 31 - 1), "size": (32, 2048),
           "workers": (1, _MOST_WORKERS)}


def parse_arguments(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m facegcn.portraits", description=(
        "Writes made portraits of a morphable model, with their truth."))
    parser.add_argument("--model", required=True, help="morphable model, .npz")
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--count", type=int, default=64, help="how many portraits")
    parser.add_argument("--first", type=int, default=0, help="number of the first portrait")
    parser.add_argument("--seed", type=int, default=0, help="series of portraits")
    parser.add_argument("--size", type=int, default=Config.img_size, help="width and height, pixels")
    parser.add_argument("--workers", type=int, default=2, help="threads")
    parser.add_argument("--sheet", help="also write a contact sheet of them to this .png")
    parser.add_argument("--debug", action="store_true", help="show where in the program a mistake came up")
    return parser.parse_args(arguments)


def run(options) -> int:
    """Writes the portraits; returns the exit code."""
    for name, (least, most) in _LIMITS.items():
        if not least <= getattr(options, name) <= most:
            raise UserError(f"--{name} must be {least:,} to {most:,}, got {getattr(options, name):,}")
    if not options.out or options.sheet == "":
        raise UserError("--out and --sheet name where to write: they cannot be empty")
    make_folder(options.out)
    if options.sheet:
        check_writable(options.sheet)
    start.tensorflow()
    from facegcn.morphable import MorphableModel
    from facegcn.photos.reading import read_image
    from facegcn.portraits.maker import PortraitMaker, write_portraits
    from facegcn.report import contact_sheet

    maker = PortraitMaker(MorphableModel.load(options.model), options.size, options.seed)
    numbers = range(options.first, options.first + options.count)
    names = write_portraits(maker, options.out, numbers, options.workers)
    log.info("wrote %d portraits to %s", len(names), options.out)
    if options.sheet:
        pictures = [read_image(os.path.join(options.out, name + ".png"))[..., :3] for name in names[:_SHEET_PORTRAITS]]
        rows = [pictures[i:i + _SHEET_COLUMNS] for i in range(0, len(pictures), _SHEET_COLUMNS)]
        labels = [names[i:i + _SHEET_COLUMNS] for i in range(0, len(pictures), _SHEET_COLUMNS)]
        contact_sheet(rows, labels, options.sheet, width=options.size)
        log.info("contact sheet: %s", options.sheet)
    return 0


def main(arguments=None) -> int:
    """Returns the exit code, as ``errors.guarded``."""
    options = parse_arguments(arguments)
    return guarded(lambda: run(options), options.debug, lambda: f"the portraits in {options.out} are whole")


if __name__ == "__main__":
    sys.exit(main())
