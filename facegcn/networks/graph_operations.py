"""Which operations of a frozen graph are run: those that compute numbers from numbers, and no others.

TensorFlow runs whatever a graph asks for, also writing files (``WriteFile``) and calling back into Python
(``PyFunc``), and a frozen network is a file from somewhere. The list is that of convolutional networks as TF-Slim
and Keras built them: the two of the paper use less than half of it. It is a list of what is allowed because TensorFlow
has some 1,500 operations and gets more with each version.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

from facegcn.errors import UserError

OPERATIONS = frozenset((
    # inputs, constants, and TF1's conditionals
    "Placeholder PlaceholderWithDefault Const Identity IdentityN StopGradient NoOp Switch Merge "
    # layers
    "Conv2D DepthwiseConv2dNative Conv2DBackpropInput BiasAdd BiasAddV1 MatMul BatchMatMul BatchMatMulV2 MaxPool "
    "MaxPoolV2 AvgPool LRN FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 BatchNormWithGlobalNormalization Relu "
    "Relu6 LeakyRelu Elu Selu Softplus Softsign Sigmoid Tanh Softmax LogSoftmax L2Loss "
    # arithmetic
    "Abs Add AddV2 AddN Sub Mul MulNoNan Div DivNoNan RealDiv FloorDiv FloorMod Mod Neg Sign Square SquaredDifference "
    "Sqrt Rsqrt Reciprocal Inv Exp Expm1 Log Log1p Pow Erf Sin Cos Maximum Minimum Floor Ceil Round Rint ClipByValue "
    "Mean Sum Prod Max Min All Any ArgMax ArgMin "
    # comparison and choice
    "LogicalNot LogicalAnd LogicalOr Equal NotEqual Greater GreaterEqual Less LessEqual Select SelectV2 Where "
    # shapes
    "Cast Reshape Squeeze ExpandDims Shape ShapeN Size Rank Slice StridedSlice Pack Unpack Concat ConcatV2 Split "
    "SplitV Transpose Pad PadV2 MirrorPad Tile Fill Range ZerosLike OnesLike Gather GatherV2 GatherNd ReverseV2 "
    "BroadcastTo ResizeBilinear ResizeNearestNeighbor SpaceToBatchND BatchToSpaceND SpaceToDepth DepthToSpace").split())
#: Numbers that one constant may declare: a gigabyte. The largest of FaceReconModel.pb has 2.4 million.
_MOST_NUMBERS = 1 << 28
#: What a node may compute with. A constant of another type (a handle, say) than it says ends the process.
_TYPES = frozenset(kind.as_datatype_enum for kind in (
    tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.int8, tf.uint8, tf.int16, tf.uint16, tf.int32, tf.uint32,
    tf.int64, tf.uint64, tf.bool))


def check_operations(path: str, graph_def) -> None:
    """Checks every node of a graph that is to be run; functions are not known here, so calling one is no operation.

    Args:
        path: for the message.
        graph_def: GraphDef, cut to what will run.

    Raises:
        UserError: names all operations that are not run, each with a node; or a node of other than numbers and
            booleans, or a constant of impossible size.
    """
    others = {node.op: node.name for node in reversed(graph_def.node) if node.op not in OPERATIONS}
    if others:
        asked = ", ".join(f"{op} (node {name})" for op, name in sorted(others.items()))
        raise UserError(f"{path} asks for operations that no known network of this kind has, and that are not run "
                        f"here: {asked}. Take the file anew from its source; a graph that runs other programs or "
                        "touches files is not to be trusted")
    for node in graph_def.node:
        _check_types(path, node)
        lengths = [dim.size for dim in node.attr["value"].tensor.tensor_shape.dim] if node.op == "Const" else []
        if min(lengths, default=0) < 0 or np.prod(lengths, dtype=np.float64) > _MOST_NUMBERS:
            raise UserError(f"{path}: the constant {node.name} says that its shape is {tuple(lengths)}: the file is "
                            "damaged; take it anew from its source")


def _check_types(path, node) -> None:
    """Raises UserError where a node is of other types than numbers and booleans, or a constant of two."""
    found = {kind for value in node.attr.values() for kind in (value.type, *value.list.type)} - {0}
    if node.op == "Const":
        found |= {node.attr["value"].tensor.dtype, node.attr["dtype"].type}
    if not found <= _TYPES or node.op == "Const" and len(found) != 1:
        names = ", ".join(sorted(types_pb2.DataType.Name(kind) if kind in types_pb2.DataType.values() else str(kind)
                                 for kind in found))
        raise UserError(f"{path}: the node {node.name} ({node.op}) computes with {names or 'no type'}, which no known "
                        "network of this kind does: the file is damaged; take it anew from its source")
