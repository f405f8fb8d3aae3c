"""Packs segmented faces, or raw photos, into the one .bin file that training reads.

    python create_bin.py                                        the demo world's made portraits
    python create_bin.py --config configs/ict.yaml --photos DIR photos -> aligned, masked -> packed
    python create_bin.py --config configs/ict.yaml --input DIR  segmented RGBA PNGs -> packed

A photo's points come from --landmarks, else from NAME.lm68.txt or NAME.txt beside it (5 or 68 rows "x y"),
else MTCNN finds them. Lists of train, validation and test images and a contact sheet are written beside the file.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys

from facegcn.assets.worlds import ensure_demo_portraits, load_morphable
from facegcn.config import Config, config_from_arguments
from facegcn.errors import BinFileError, Rejected, UserError
from facegcn.landmarks import read_landmark_list
from facegcn.photos import packed_file, packing
from facegcn.photos.companions import label_numbers
from utils import find_images

DEFAULT_CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs", "demo.yaml")


def parse_arguments(arguments=None):
    """The command line. Flags left out keep the config's value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", default=DEFAULT_CONFIG, help="YAML file of settings")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override any setting; repeatable")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--input", metavar="DIR", help="segmented RGBA PNGs (default: the config's images)")
    source.add_argument("--photos", metavar="DIR", help="raw photos; their crops are kept in the config's images")
    source.add_argument("--legacy-float32", metavar="FILE", help="convert a file of the released code's layout")
    add("--landmarks", metavar="FILE", help="with --photos: lines of a file name and x, y of 5 or 68 points, such as "
        "CelebA's list_landmarks_celeba.txt")
    add("--masks", metavar="DIR", help="with --photos: your own skin masks, NAME.png, or CelebAMask-HQ's NAME_skin.png "
        "and so on; they win")
    add("--skin-labels", metavar="1,2,...", help="with --masks: the grey values that mean skin, or names of "
        "CelebAMask-HQ's parts: skin,nose,...")
    add("--skin-only", action="store_true", help="with --photos: estimated masks leave out eyes, brows and mouth")
    add("--out", metavar="FILE.bin", help="the packed file (default: the config's bin_file)")
    for name, kind, text in (("root_dir", str, "data folder"), ("img_size", int, "crop width, pixels"),
                             ("seed", int, "seed of the split"), ("workers", int, "parallel readers")):
        add(f"--{name}", type=kind, help=text)
    return parser.parse_args(arguments)


def pack_photos(config: Config, args, out: str) -> packing.Summary:
    """Photos -> segmented PNGs in the config's images folder -> packed file."""
    masks = packing.MaskSource(args.masks or "", label_numbers(args.skin_labels), not args.skin_only)
    if masks.folder and not os.path.isdir(masks.folder):
        raise UserError(f"--masks {masks.folder}: there is no such folder")
    listed = read_landmark_list(args.landmarks) if args.landmarks else None
    paths = find_images(args.photos, "--photos")
    load = functools.partial(packing.load_photo, five_points_3d=load_morphable(config).five_points,
                             size=config.img_size, masks=masks, listed=listed)
    return packing.pack(paths, load, config, out, keep_in=config.path(config.images))


def pack_segmented(config: Config, folder: str | None, out: str) -> packing.Summary:
    """A folder of segmented PNGs -> packed file; without one, the config's, made first in the demo world."""
    flag = "--input"
    if folder is None:
        flag = "images"
        folder = ensure_demo_portraits(config) if config.world == "demo" else config.path(config.images)
        if not os.path.isdir(folder):
            raise UserError(f"there are no segmented images at {folder}: make them from photos with "
                            "--photos DIR, or give a folder of RGBA PNGs with --input DIR")
    paths = find_images(folder, flag)
    return packing.pack(paths, functools.partial(packing.load_segmented, size=config.img_size), config, out)


def pack_legacy(config: Config, path: str, out: str) -> packing.Summary:
    """A file of the released code's float32 layout -> packed file."""
    records = packed_file.open_legacy(path, config.img_size)

    def load(index):
        try:
            rgba = packed_file.legacy_to_uint8(records[index])
        except BinFileError as error:
            raise Rejected(str(error)) from error
        return packing.Item(f"record_{index:06d}", packing.checked_rgba(rgba, config.img_size))

    return packing.pack(range(len(records)), load, config, out)


def main(arguments=None) -> int:
    """Returns the exit code: 0, 1 when nothing could be packed, 2 for a mistake the user can mend."""
    args = parse_arguments(arguments)
    try:
        config = config_from_arguments(args)
        out = args.out or config.path(config.bin_file)
        if (args.masks or args.skin_only or args.landmarks) and not args.photos:
            raise UserError("--landmarks, --masks and --skin-only go with --photos; segmented PNGs are aligned and "
                            "carry their mask as alpha")
        if args.skin_labels and not args.masks:
            raise UserError("--skin-labels says which values of your own masks mean skin: it goes with --masks DIR")
        if args.photos:
            summary = pack_photos(config, args, out)
        elif args.legacy_float32:
            summary = pack_legacy(config, args.legacy_float32, out)
        else:
            summary = pack_segmented(config, args.input, out)
    except (UserError, BinFileError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(packing.report(summary))
    return 0 if summary.names else 1


if __name__ == "__main__":
    sys.exit(main())
