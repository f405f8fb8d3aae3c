"""How fast the costly parts are, each beside a plain reference, in one run.

    python -m facegcn.benchmark [--rows rasterize,laplacian,step,hierarchy,packing] [--vertices 35721] [--json FILE]

What is timed is what the programs run: the texture networks are ``model``'s, the hierarchy is ``mesh_sampling``'s.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys

from facegcn.backends.start import tensorflow
from facegcn.errors import guarded, log
from facegcn.files import write_text

ROW_NAMES = ("rasterize", "laplacian", "step", "hierarchy", "packing")
BASEL_FACE_MODEL = 35_721  # vertices
SMALLEST_MESH = 576  # vertices; below, the coarsest of five meshes has no triangle


def table_line(row) -> str:
    """One line of the table for a ``rows.Row``."""
    naive, ratio = ("", "") if row.naive is None else (_duration(row.naive), f"{row.naive / row.ours:.1f}x")
    return f"{row.work:52s}{_duration(row.ours):>10s}{naive:>10s}{ratio:>8s}   {row.bar}".rstrip()


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def peak_memory() -> int:
    """The largest resident memory of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def parts():
    """The root modules' functions that are timed, as ``rows.Parts``."""
    import mesh_sampling
    import model
    from facegcn.benchmark.rows import Parts
    return Parts(mesh_sampling.generate_transform_matrices, mesh_sampling.adjacency, mesh_sampling.graph_laplacian,
                 model.build_texture_network)


def main(arguments=None) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m facegcn.benchmark",
                                     description="Time the costly parts beside plain references.")
    parser.add_argument("--rows", default=",".join(ROW_NAMES), help=f"comma-separated, of {', '.join(ROW_NAMES)}")
    parser.add_argument("--vertices", type=int, default=BASEL_FACE_MODEL, help="vertices of the mesh")
    parser.add_argument("--json", metavar="FILE", help="also write the table, times in seconds, to this file")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    options = parser.parse_args(arguments)
    for name in options.rows.split(","):
        if name not in ROW_NAMES:
            parser.error(f"--rows: there is no row '{name}'; choose from {', '.join(ROW_NAMES)}")
    if options.vertices < SMALLEST_MESH:
        parser.error(f"--vertices {options.vertices}: at least {SMALLEST_MESH} are needed")
    return guarded(lambda: _print_table(options), options.debug)


def _print_table(options) -> int:
    version = tensorflow().__version__
    from facegcn.benchmark.rows import ROWS, Sizes
    log.info("TensorFlow %s, %s cores, %s vertices; medians, ours and naive timed in turn",
             version, os.cpu_count(), f"{options.vertices:,}")
    log.info(f"{'work':52s}{'ours':>10s}{'naive':>10s}{'ratio':>8s}   bar")
    rows = []
    for name in options.rows.split(","):
        for row in ROWS[name](Sizes(vertices=options.vertices), parts()):
            log.info(table_line(row))
            rows.append(row)
    peak = peak_memory()
    log.info("peak memory of this process, references included: %.2f GB", peak / 1e9)
    if options.json:
        found = {"tensorflow": version, "python": platform.python_version(), "cores": os.cpu_count(),
                 "vertices": options.vertices, "peak_memory_bytes": peak,
                 "rows": [{"work": row.work.strip(), "ours_s": row.ours, "naive_s": row.naive, "bar": row.bar}
                          for row in rows]}
        write_text(options.json, json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
