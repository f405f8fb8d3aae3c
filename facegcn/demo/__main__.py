"""Makes the procedural face model and writes it: ``python -m facegcn.demo --out FILE.npz``."""

from __future__ import annotations

import argparse
import sys

from facegcn.backends import start
from facegcn.config import load_config
from facegcn.errors import UserError, guarded, log
from facegcn.files import check_writable


def parse_arguments(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m facegcn.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="model file to write (.npz)")
    parser.add_argument("--vertices", type=int, default=8000, help="density of the mesh")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated faces")
    parser.add_argument("--preview", help="contact sheet to write (.png)")
    parser.add_argument("--debug", action="store_true", help="show where in the program a mistake came up")
    return parser.parse_args(arguments)


def run(args) -> int:
    """Writes the model, and a preview picture if wanted; returns the exit code."""
    if not args.out.endswith(".npz"):
        raise UserError(f"--out '{args.out}' must name a file that ends in .npz")
    if args.preview is not None and not args.preview.endswith(".png"):
        raise UserError(f"--preview '{args.preview}' must name a file that ends in .png")
    # The ranges are those of the settings.
    load_config(None, {"demo_vertices": args.vertices}, source="--vertices")
    load_config(None, {"seed": args.seed}, source="--seed")
    for path in filter(None, (args.out, args.preview)):
        check_writable(path)
    start.tensorflow()
    from facegcn.demo.face import make_demo_face
    from facegcn.demo.preview import write_preview

    model = make_demo_face(args.vertices, args.seed)
    model.save(args.out)
    if args.preview:
        write_preview(model, args.preview)
    log.info("%s: %s vertices, components %s", args.out, model.vertex_count, model.part_sizes[:3])
    return 0


def main(arguments=None) -> int:
    """Returns the exit code, as ``errors.guarded``."""
    args = parse_arguments(arguments)
    return guarded(lambda: run(args), args.debug)


if __name__ == "__main__":
    sys.exit(main())
