"""The rows of the mesh hierarchy."""

from __future__ import annotations

from facegcn.benchmark.references import naive_decimate
from facegcn.benchmark.rows.timing import STEP_REPETITIONS, Parts, Row, Sizes, bumpy_mesh, compare
from facegcn.mesh.decimation import decimate


def hierarchy_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """The whole hierarchy; and one decimation to a quarter of a small mesh, beside the naive one."""
    small, large = bumpy_mesh(sizes.small_mesh), bumpy_mesh(sizes.vertices)
    target = -(-len(small[0]) // 4)
    ours, naive = compare(lambda: decimate(*small, target), lambda: naive_decimate(*small, target),
                          sizes.repetitions)
    levels = len(parts.hierarchy(*large).downsamples)
    whole, _ = compare(lambda: parts.hierarchy(*large), lambda: None, min(sizes.repetitions, STEP_REPETITIONS))
    return [Row(f"mesh hierarchy, {len(large[0]):,} vertices, {levels} levels", whole, None, "<= 5 s"),
            Row(f"  decimation, {len(small[0]):,} vertices to {target:,}", ours, naive, "")]
