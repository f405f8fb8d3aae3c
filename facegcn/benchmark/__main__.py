"""How fast the costly parts are, each beside a plain reference; or how good what is found is, beside the truth.

    python -m facegcn.benchmark [--rows rasterize,laplacian,step,hierarchy,packing] [--vertices 35721] [--json FILE]
    python -m facegcn.benchmark --rows growth                 # or step_growth, training_resnet, training_normal, ...
    python -m facegcn.benchmark --rows photos [--config configs/demo.yaml] [--photos FOLDER]
    python -m facegcn.benchmark quality [--config configs/demo.yaml] [--count 32] [--json FILE]

What is timed is what the programs run: the texture networks are ``model``'s, the hierarchy is ``mesh_sampling``'s. What
is measured by ``quality`` is what test mode would use: the latest trained run of the config, or what stands in for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import platform
import resource
import sys

from facegcn.backends.start import tensorflow
from facegcn.benchmark.rows import BY_NAME, TABLE, rows_function
from facegcn.config import PROJECT, config_from_arguments
from facegcn.errors import guarded, log
from facegcn.files import write_text

BASEL_FACE_MODEL = 35_721  # vertices
DEFAULT_CONFIG = os.path.join(PROJECT, "configs", "demo.yaml")
PEOPLE = 32  # made ones, of two pictures each
SMALLEST_MESH = 576  # vertices; below, the coarsest of five meshes has no triangle


def table_line(row) -> str:
    """One line of the table for a ``rows.timing.Row``."""
    naive, ratio = ("", "") if row.naive is None else (_duration(row.naive), f"{row.naive / row.ours:.1f}x")
    return f"{row.work:52s}{_duration(row.ours):>10s}{naive:>10s}{ratio:>8s}   {row.bar}".rstrip()


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def peak_memory() -> int:
    """The largest resident memory of this process so far, bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def parts():
    """The root modules' functions that are timed, as ``rows.timing.Parts``."""
    import mesh_sampling
    import model
    from facegcn.benchmark.rows.timing import Parts
    return Parts(mesh_sampling.generate_transform_matrices, mesh_sampling.adjacency, mesh_sampling.graph_laplacian,
                 model.build_texture_network, model.build_critic)


def main(arguments=None) -> int:
    """Prints the table; returns the exit code."""
    names = [*TABLE, *BY_NAME]
    parser = argparse.ArgumentParser(prog="python -m facegcn.benchmark",
                                     description="Time the costly parts beside plain references, or measure quality.")
    parser.add_argument("--rows", default=",".join(TABLE),
                        help=f"comma-separated, of {', '.join(names)} (default: {','.join(TABLE)})")
    parser.add_argument("--vertices", type=int, default=BASEL_FACE_MODEL, help="vertices of the mesh")
    parser.add_argument("--config", default=DEFAULT_CONFIG, help="of test mode, for the rows photos")
    parser.add_argument("--photos", metavar="FOLDER", default="", help="for the rows photos; default: made ones")
    parser.add_argument("--json", metavar="FILE", help="also write the table, times in seconds, to this file")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    _add_quality(parser.add_subparsers(dest="what", metavar="quality", help="measure texture and shape instead"))
    options = parser.parse_args(arguments)
    for name in options.rows.split(","):
        if name not in names:
            parser.error(f"--rows: there is no row '{name}'; choose from {', '.join(names)}")
    if options.vertices < SMALLEST_MESH:
        parser.error(f"--vertices {options.vertices}: at least {SMALLEST_MESH} are needed")
    if options.what == "quality" and options.count < 1:
        parser.error(f"--count {options.count}: at least one person is needed")
    return guarded(lambda: (_measure_quality if options.what else _print_table)(options), options.debug)


def _add_quality(commands) -> None:
    """The command ``quality``."""
    parser = commands.add_parser("quality", description="Measure texture and shape on made portraits of the config's "
                                 "face model that nothing else uses, each person seen in two pictures.")
    parser.add_argument("--config", default=argparse.SUPPRESS, help="YAML file of settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override any setting")
    parser.add_argument("--count", type=int, default=PEOPLE, help=f"people (default {PEOPLE})")
    # What stands before the command counts, too.
    parser.add_argument("--json", metavar="FILE", default=argparse.SUPPRESS,
                        help="also write the means and each person's values to this file")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS,
                        help="show the traceback of an error")


def _print_table(options) -> int:
    version = tensorflow().__version__
    from facegcn.benchmark.rows.timing import Sizes
    log.info("TensorFlow %s, %s cores, %s vertices; medians, ours and naive timed in turn",
             version, os.cpu_count(), f"{options.vertices:,}")
    log.info(f"{'work':52s}{'ours':>10s}{'naive':>10s}{'ratio':>8s}   bar")
    rows, sizes = [], Sizes(vertices=options.vertices, config=options.config, photos=options.photos)
    for name in options.rows.split(","):
        for row in rows_function(name)(sizes, parts()):
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


# ---------------------------------------------------------------- quality
def _measure_quality(options) -> int:
    config = config_from_arguments(options)
    tensorflow()
    from facegcn.assets.check import require_assets
    from facegcn.photos import litert

    require_assets(config, "train")  # without the networks that measure identity
    litert.check()
    from facegcn.benchmark import quality

    config, faces_of, run = _test_mode(config)
    model = faces_of.face_model
    maker = quality.made_people(model.morphable, config.img_size, config.seed)
    log.info("%d people in two pictures each, made of the face model of '%s': series %d, which nothing else uses",
             options.count, config.world, maker.seed)
    rows = quality.measure(faces_of, maker, options.count, config.test_batch_size)
    mean = quality.means(rows)
    log.info("%s", quality.table(mean))
    log.info("the found faces cover %.1f %% of the true ones in their pictures; a face was seen in %.0f %% of these",
             100 * mean["covered"], 100 * mean["seen"])
    if options.json:
        found = {"config": os.path.abspath(options.config), "settings": dataclasses.asdict(config), "run": run,
                 "morphable": model.morphable.digest, "series": maker.seed, "count": options.count,
                 "mean": _strict(mean), "people": [_strict(row) for row in rows]}
        write_text(options.json, json.dumps(found, indent=2, allow_nan=False) + "\n")
    return 0


def _strict(row: dict) -> dict:
    """Numbers as strict JSON has them: None where they are not finite."""
    return {name: value if math.isfinite(value) else None for name, value in row.items()}


def _test_mode(config):
    """The config with the trained run's network, the reconstruction as test mode has it, and the run's folder or None.
    """
    import model
    from facegcn.assets.worlds import load_morphable
    from facegcn.reconstruction.reconstructor import PhotosToFaces

    morphable = load_morphable(config)
    config, run = model.find_trained(config, morphable)
    face_model, fitter = model.load_trained(config, morphable, run)
    return config, PhotosToFaces(face_model, fitter, config.detail), None if run is None else run.path


if __name__ == "__main__":
    sys.exit(main())
