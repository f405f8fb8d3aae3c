"""Writes made portraits of a morphable model, with their truth: ``python -m facegcn.portraits``."""

from __future__ import annotations

import argparse
import os
import sys

import cv2

from facegcn.errors import ModelFileError, UserError
from facegcn.morphable import MorphableModel
from facegcn.portraits.maker import PortraitMaker, contact_sheet, write_portraits


def main(arguments=None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m facegcn.portraits", description=(
        "Writes made portraits of a morphable model, with their truth."))
    parser.add_argument("--model", required=True, help="morphable model, .npz")
    parser.add_argument("--out", required=True, help="folder to write to")
    parser.add_argument("--count", type=int, default=64, help="how many portraits")
    parser.add_argument("--first", type=int, default=0, help="number of the first portrait")
    parser.add_argument("--seed", type=int, default=0, help="series of portraits")
    parser.add_argument("--size", type=int, default=224, help="width and height, pixels")
    parser.add_argument("--workers", type=int, default=2, help="threads")
    parser.add_argument("--sheet", help="also write a contact sheet of them to this .png")
    options = parser.parse_args(arguments)
    try:
        if options.count < 1 or options.size < 1 or options.first < 0 or options.seed < 0:
            raise UserError("--count and --size must be above 0, --first and --seed 0 or more")
        maker = PortraitMaker(MorphableModel.load(options.model), options.size, options.seed)
        names = write_portraits(maker, options.out, options.first, options.count, options.workers)
        print(f"wrote {len(names)} portraits to {options.out}")
        if options.sheet:
            pictures = [cv2.imread(os.path.join(options.out, name + ".png"))[..., :3] for name in names[:64]]
            os.makedirs(os.path.dirname(os.path.abspath(options.sheet)), exist_ok=True)
            if not cv2.imwrite(options.sheet, contact_sheet(pictures)):
                raise UserError(f"cannot write {options.sheet}")
            print(f"contact sheet: {options.sheet}")
    except (UserError, ModelFileError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
