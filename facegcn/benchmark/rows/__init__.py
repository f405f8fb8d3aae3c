"""The rows of the benchmark: what is timed, and beside what.

Rows called NAME are what the function ``NAME_rows(sizes, parts)`` of a module here returns, a list of
``timing.Row``; modules are imported only when their rows are wanted.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

#: What ``--rows`` names, in the order of the default table -> the module that has the function.
TABLE = {"rasterize": "drawing", "laplacian": "graphs", "step": "steps", "hierarchy": "hierarchy", "packing": "packing"}
#: What takes too long for the default table, only by name.
BY_NAME = {"growth": "growth", "photos": "photos", "training_resnet": "training", "training_normal": "training",
           "training_gan": "training", "training_precision": "training", "step_growth": "step_growth"}


def rows_function(name: str) -> Callable:
    """The function of ``timing.Sizes`` and ``timing.Parts`` that measures the rows of this name.

    Raises:
        KeyError: there are none of this name.
    """
    module = (TABLE | BY_NAME)[name]
    return getattr(import_module(f"{__name__}.{module}"), f"{name}_rows")
