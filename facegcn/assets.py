"""Converts face models that users have into our ``.npz`` format (docs/model_format.md).

    python -m facegcn.assets ict --source ICT-FaceKit
"""

from __future__ import annotations

import argparse
import sys

from facegcn.config import UserError


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; returns the exit code, 2 after a mistake that the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m facegcn.assets", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_ict(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _add_ict(commands):
    command = commands.add_parser(
        "ict", help="convert ICT-FaceKit (MIT licence)",
        description="Converts a checkout of https://github.com/ICT-VGL/ICT-FaceKit (light model, MIT licence).")
    command.add_argument("--source", required=True, metavar="DIR|FILE.npz",
                         help="the checkout, its FaceXModel folder, or an .npz extracted from it")
    command.add_argument("--albedo", metavar="FILE",
                         help=".npz with measured skin colours: mean (n, 3) and basis (n, 3, K), sRGB 0..1; "
                              "without it the skin is made up")
    command.add_argument("--region", choices=("narrow", "face"), default="narrow",
                         help="narrow: the front of the face (default, best over photos); "
                              "face: with ears and the front of the neck")
    command.add_argument("--subdivide", type=int, choices=(0, 1), default=0,
                         help="1: about 31,000 vertices instead of 7,800; finer textures, about four times "
                              "the work (default 0)")
    command.add_argument("--out", default="data/ict/model.npz", metavar="FILE",
                         help="where the model is written (default %(default)s)")
    command.set_defaults(run=_run_ict)


def _run_ict(options):
    from facegcn.ict import convert  # TensorFlow takes seconds to import; --help need not wait

    model = convert(options.source, options.albedo, options.region, options.subdivide)
    try:
        model.save(options.out)
    except OSError as error:
        raise UserError(f"cannot write --out {options.out}: {error.strerror}") from None
    identity, expression, albedo = model.part_sizes[:3]
    print(f"{options.out}: {model.vertex_count} vertices, {len(model.triangles)} triangles, "
          f"{identity} identity, {expression} expression and {albedo} albedo components")


if __name__ == "__main__":
    sys.exit(main())
