"""Makes the procedural face model and writes it: ``python -m facegcn.demo --out FILE.npz``."""

from __future__ import annotations

import argparse
import sys

from facegcn.demo.face import make_demo_face
from facegcn.demo.preview import write_preview


def main(arguments=None) -> int:
    """Writes the model, and a preview picture if wanted; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m facegcn.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="model file to write (.npz)")
    parser.add_argument("--vertices", type=int, default=8000, help="density of the mesh")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated faces")
    parser.add_argument("--preview", help="contact sheet to write (.png)")
    args = parser.parse_args(arguments)
    model = make_demo_face(args.vertices, args.seed)
    model.save(args.out)
    if args.preview:
        write_preview(model, args.preview)
    print(f"{args.out}: {model.vertex_count} vertices, components {model.part_sizes[:3]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
