"""Frozen graphs, ``.pb``."""

import os
from random import Random

import numpy as np
import tensorflow as tf

from facegcn.networks.frozen import FrozenGraph, Interface, read_graph
from facegcn.networks.graph_operations import OPERATIONS
from tests.fuzzing import attempts
from tests.fuzzing.changes import damaged

_NETWORK = Interface("a small network", "input:0", 4, ("out:0", "pooled:0"), {"phase:0": False})
_OTHERS = ("ReadFile", "WriteFile", "PyFunc", "EagerPyFunc", "PyFuncStateless", "StatefulPartitionedCall",
           "LoadDataset", "PartitionedCall", "ShellExec", "MatchingFiles", "SaveV2", "RestoreV2", "Print", "Assert",
           "While", "If", "VarHandleOp", "ReadVariableOp", "Enter", "NextIteration", "RandomUniform", "DecodePng",
           "Save", "XlaLaunch", "QueueDequeueV2", "TensorArrayV3", "SymbolicGradient", "RemoteCall", "_Send", "_Recv",
           "IteratorGetNext")
_NUMBERS = (0, -1, 1, 2, 2 ** 31 - 1, 2 ** 62, -2 ** 62)
_RUN_SHARE = 0.1  # of those that are accepted, which are also run: it takes thousand times as long


def small_graph() -> tf.compat.v1.GraphDef:
    """A convolution, a conditional of TF1, a dense layer."""
    rng = np.random.default_rng(0)
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, (None, 4, 4, 3), "input")
        phase = tf.compat.v1.placeholder(tf.bool, (), "phase")
        kept, changed = tf.raw_ops.Switch(data=image, pred=phase)
        merged = tf.raw_ops.Merge(inputs=[kept * 2.0, changed + 1.0]).output
        merged.set_shape(image.shape)
        x = tf.nn.relu(tf.nn.conv2d(merged, tf.constant(rng.normal(size=(3, 3, 3, 4)), tf.float32), 1, "SAME"))
        pooled = tf.reduce_mean(x, axis=[1, 2], keepdims=True, name="pooled")
        weights = tf.constant(rng.normal(size=(4, 5)), tf.float32)
        tf.matmul(tf.reshape(pooled, (-1, 4)), weights, name="out")
    return graph.as_graph_def()


class Reader(attempts.Reader):
    """A graph that is damaged, or whole with other operations, attributes and inputs."""

    def seeds(self):
        return [{"net.pb": small_graph().SerializeToString(deterministic=True)}]

    def case(self, rng, seeds):
        data = seeds[0]["net.pb"]
        if rng.random() < 0.4:
            return attempts.Case({"net.pb": damaged(rng, data, [data])})
        graph = tf.compat.v1.GraphDef.FromString(data)
        for _ in range(rng.choice((1, 1, 2))):
            _change(rng, graph)
        return attempts.Case({"net.pb": graph.SerializeToString()})

    def read(self, folder):
        path = os.path.join(folder, "net.pb")
        graph, digest, _ = read_graph(path, _NETWORK)
        if Random(digest).random() >= _RUN_SHARE:
            return graph, None
        frozen = FrozenGraph(path, _NETWORK)
        return graph, [output.numpy() for output in frozen(tf.ones((2, 4, 4, 3)))]

    def wrong(self, answer):
        graph, outputs = answer
        others = {node.op for node in graph.node} - OPERATIONS
        if others or graph.library.function:
            return f"operations that are not run here: {others}"
        if outputs is not None and not all(output.dtype == np.float32 for output in outputs):
            return "outputs of another type"
        return ""


def _change(rng, graph):
    node = rng.choice(graph.node)
    way = rng.randrange(7)
    if way == 0:
        node.op = rng.choice((*_OTHERS, *_OTHERS, *sorted(OPERATIONS)))
    elif way == 1 and node.input:
        at = rng.randrange(len(node.input))
        node.input[at] = rng.choice((rng.choice(graph.node).name, "^" + rng.choice(graph.node).name, node.name, "", ":",
                                     rng.choice(graph.node).name + ":7", "x:y"))
    elif way == 2:
        node.input.append(rng.choice(graph.node).name)
    elif way == 3:
        node.name = rng.choice((rng.choice(graph.node).name, "", "a b", "../x", node.name + ":0"))
    elif way == 4:
        _tensor(rng, rng.choice([node for node in graph.node if node.op == "Const"] or [graph.node[0]]))
    elif way == 5 and node.attr:
        _attribute(rng, node.attr[rng.choice(sorted(node.attr))])
    else:
        added = graph.node.add()
        added.name, added.op = "added", rng.choice(_OTHERS)
        node.input.append(rng.choice(("added", "^added")))


def _tensor(rng, node):
    """A constant that says other lengths or types than it has."""
    tensor = node.attr["value"].tensor
    way = rng.randrange(4)
    if way == 0 and tensor.tensor_shape.dim:
        rng.choice(tensor.tensor_shape.dim).size = rng.choice(_NUMBERS)
    elif way == 1:
        tensor.tensor_shape.dim.add().size = rng.choice(_NUMBERS)
    elif way == 2:
        tensor.dtype = rng.choice((0, 1, 3, 7, 8, 10, 20, 21, 101, 999))
    else:
        tensor.tensor_content = rng.randbytes(rng.choice((0, 1, 64)))


def _attribute(rng, value):
    way = rng.randrange(5)
    if way == 0:
        value.i = rng.choice(_NUMBERS)
    elif way == 1:
        value.type = rng.choice((0, 1, 3, 7, 10, 20, 999))
    elif way == 2:
        value.list.i[:] = [rng.choice(_NUMBERS) for _ in range(rng.choice((0, 1, 4, 5)))]
    elif way == 3:
        value.s = rng.choice((b"SAME", b"NHWC", b"NCHW", b"\xff"))
    else:
        value.shape.dim.add().size = rng.choice(_NUMBERS)
