"""Single-image 3D face reconstruction with high-fidelity texture: the parts, one concept a file.

The face model, camera, light, renderer, graph networks and training of
J. Lin, Y. Yuan, T. Shao, K. Zhou, "Towards High-Fidelity 3D Face Reconstruction from
In-the-Wild Images Using Graph Convolutional Networks", CVPR 2020.
Modules here never import the scripts at the top level but for the entry points, ``__main__`` and ``api``;
docs/architecture.md shows the families.

    from facegcn import reconstruct
    reconstruct("me.jpg").save("me.glb")
"""

import importlib
import os

from facegcn.backends.kept_loops import find_place

__all__ = ["Reconstruction", "reconstruct"]

find_place(os.path.dirname(os.path.abspath(__file__)))


def __getattr__(name: str):
    if name in __all__:  # looked up when it is asked for: programs that do without it start without it
        return getattr(importlib.import_module("facegcn.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
