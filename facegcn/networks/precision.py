"""In which type networks compute while they are trained. Their weights, and what they give, stay float32.

Micikevicius et al. 2018 (mixed precision): products in sixteen bits, weights and sums in thirty-two.
"""

from __future__ import annotations

import keras
from keras import layers

from facegcn.graph import ChebConv
from facegcn.morphable import PART_SCALES

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
#: What takes and gives sixteen bits; normalisations take their moments in float32 whatever they are given.
_MIXED = (layers.Dense, layers.Conv2D, layers.MaxPooling2D, layers.ZeroPadding2D, layers.BatchNormalization,
          layers.ReLU, layers.LeakyReLU, layers.Activation, layers.Add)
_LAST = frozenset((*PART_SCALES, "mesh_concat", "outputs"))  # layers whose result is the network's


def compute_in(network: keras.Model, precision: str) -> None:
    """Has a network compute so from its next call on; what is compiled already stays as it is.

    Dense layers, 2D convolutions and what lies between these take and give sixteen bits, graph convolutions take them
    in their dense products alone. Each network's last layer, and everything else, is float32; so are all weights.

    Args:
        network: a texture network, a critic or a regressor that can be trained.
        precision: ``float32``, ``mixed_bfloat16`` or ``mixed_float16``.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    policy = keras.DTypePolicy(precision)
    for layer in network._flatten_layers():
        if layer.name in _LAST:
            continue
        if isinstance(layer, ChebConv):
            layer.product_dtype = policy.compute_dtype
        elif isinstance(layer, _MIXED):
            layer.dtype_policy = policy
