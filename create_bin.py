"""Packs segmented faces, or raw photos, into the one .bin file that training reads.

    python create_bin.py                                        the demo world's made portraits
    python create_bin.py --config configs/ict.yaml --photos DIR photos -> aligned, masked -> packed
    python create_bin.py --config configs/ict.yaml --input DIR  segmented RGBA PNGs -> packed

A photo's points come from --landmarks, else from NAME.lm68.txt or NAME.txt beside it (5 or 68 rows "x y"),
else they are found in it. The file beside the packed one, NAME.records.npz, holds names, points and the split into
train, validation and test images; lists of these and a contact sheet are written for the eye.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports below without a traceback; then see guarded

from facegcn.backends import start
from facegcn.config import Config, config_from_arguments
from facegcn.errors import BinFileError, Rejected, UserError, guarded, log
from facegcn.files import check_writable

DEFAULT_CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs", "demo.yaml")
EXIT_NOTHING_PACKED = 1


def parse_arguments(arguments=None):
    """The command line. Flags left out keep the config's value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", default=DEFAULT_CONFIG, help="YAML file of settings")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override any setting; repeatable")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--input", metavar="DIR", help="segmented RGBA PNGs (default: the config's images; in the "
                        "demo world its made portraits)")
    source.add_argument("--photos", metavar="DIR", help="raw photos; their crops are kept in crops-NAME beside "
                        "NAME.bin")
    source.add_argument("--made", action="store_true", help="made portraits of the world's face model, as many as "
                        "demo_portraits says")
    source.add_argument("--legacy-float32", metavar="FILE", help="convert a file of the released code's layout")
    add("--landmarks", metavar="FILE", help="with --photos: lines of a file name and x, y of 5 or 68 points, such as "
        "CelebA's list_landmarks_celeba.txt")
    add("--masks", metavar="DIR", help="with --photos: your own skin masks, NAME.png, or CelebAMask-HQ's NAME_skin.png "
        "and so on; they win")
    add("--skin-labels", metavar="1,2,...", help="with --masks: the grey values that mean skin, or names of "
        "CelebAMask-HQ's parts: skin,nose,...")
    add("--face", metavar="N|largest|center", help="with --photos: which of several faces; numbers count from the "
        "left, from 1 (default largest)")
    add("--skin-only", action="store_true", help="with --photos: estimated masks leave out eyes, brows and mouth")
    add("--out", metavar="FILE.bin", help="the packed file (default: the config's bin_file)")
    for name, kind, text in (("root_dir", str, "data folder"), ("img_size", int, "crop width, pixels"),
                             ("seed", int, "seed of the split"), ("workers", int, "parallel readers")):
        add(f"--{name}", type=kind, help=text)
    add("--debug", action="store_true", help="show where in the program a mistake came up")
    return parser.parse_args(arguments)


def check_arguments(args) -> None:
    """Raises UserError where the flags do not go together."""
    for flag in ("--input", "--photos", "--legacy-float32", "--landmarks", "--masks", "--skin-labels", "--out",
                 "--root_dir"):
        if getattr(args, flag[2:].replace("-", "_")) == "":
            raise UserError(f"{flag} is empty: write a value behind it, or leave it out")
    if (args.masks or args.skin_only or args.landmarks or args.face is not None) and not args.photos:
        raise UserError("--landmarks, --masks, --face and --skin-only go with --photos; segmented PNGs are aligned and "
                        "carry their mask as alpha")
    if args.skin_labels and not args.masks:
        raise UserError("--skin-labels says which values of your own masks mean skin: it goes with --masks DIR")
    if args.masks and not os.path.isdir(args.masks):
        raise UserError(f"--masks {args.masks}: there is no such folder")


def pack_photos(config: Config, args, out: str):
    """Photos -> segmented PNGs in a folder of this packed file's own -> packed file."""
    from facegcn.assets.worlds import load_morphable
    from facegcn.landmarks import read_landmark_list
    from facegcn.photos import packing
    from facegcn.photos.choosing import LARGEST, face_choice
    from facegcn.photos.companions import label_numbers
    from utils import find_images

    masks = packing.MaskSource(args.masks or "", label_numbers(args.skin_labels), not args.skin_only)
    listed = read_landmark_list(args.landmarks) if args.landmarks else None
    face = face_choice(LARGEST if args.face is None else args.face)
    paths = find_images(args.photos, "--photos")
    folder, name = os.path.split(os.path.abspath(out))
    crops = os.path.join(folder, f"crops-{os.path.splitext(name)[0]}")
    if os.path.realpath(os.path.dirname(os.path.abspath(paths[0]))) == os.path.realpath(crops):
        raise UserError(f"{crops} holds crops that an earlier packing made: pack them with --input, or their photos "
                        "with --photos")
    load = functools.partial(packing.load_photo, five_points_3d=load_morphable(config).five_points,
                             size=config.img_size, masks=masks, listed=listed, face=face)
    return packing.pack(paths, load, config, out, crops=crops)


def pack_segmented(config: Config, folder: str | None, out: str, made: bool = False):
    """A folder of segmented PNGs -> packed file; without one, the config's, or made portraits, as the demo world's."""
    from facegcn.assets.worlds import ensure_demo_portraits
    from facegcn.photos import packing
    from utils import find_images

    if folder is None and (made or config.world == "demo"):
        paths = ensure_demo_portraits(config)
    elif folder is None:
        folder = config.path(config.images)
        if not os.path.isdir(folder):
            raise UserError(f"there are no segmented images at {folder}: pack photos with --photos DIR, or a folder "
                            "of RGBA PNGs with --input DIR")
        paths = find_images(folder, "images")
    else:
        paths = find_images(folder, "--input")
    truth = os.path.join(os.path.dirname(paths[0]), "truth")
    return packing.pack(paths, functools.partial(packing.load_segmented, size=config.img_size), config, out,
                        truth_folder=truth if os.path.isdir(truth) else "")


def pack_legacy(config: Config, path: str, out: str):
    """A file of the released code's float32 layout -> packed file."""
    from facegcn.photos import packing, released_layout

    records = released_layout.open_legacy(path, config.img_size)

    def load(index):
        try:
            rgba = released_layout.legacy_to_uint8(records[index])
        except BinFileError as error:
            raise Rejected(str(error)) from error
        return packing.Item(f"record_{index:06d}", packing.checked_rgba(rgba, config.img_size))

    return packing.pack(range(len(records)), load, config, out)


def run(args) -> int:
    """Packs what the command line asks for; returns the exit code."""
    if args.debug:
        log.setLevel(logging.DEBUG)
    check_arguments(args)
    config = config_from_arguments(args)
    out = args.out or config.path(config.bin_file)
    check_writable(out)
    start.tensorflow()
    from facegcn.photos import litert, packing

    litert.check()
    if args.photos:
        summary = pack_photos(config, args, out)
    elif args.legacy_float32:
        summary = pack_legacy(config, args.legacy_float32, out)
    else:
        summary = pack_segmented(config, args.input, out, args.made)
    log.info("%s", packing.report(summary))
    return 0 if summary.records else EXIT_NOTHING_PACKED


def main(arguments=None) -> int:
    """Returns the exit code: 0, 1 when nothing could be packed, else as ``errors.guarded``."""
    args = parse_arguments(arguments)
    return guarded(lambda: run(args), args.debug, lambda: "nothing was packed; what was there is as it was")


if __name__ == "__main__":
    sys.exit(main())
