"""TF1's conditionals in a frozen graph, decided once: ``Switch`` and ``Merge`` whose condition is known go.

A TF1 graph that can train and infer (``phase_train``) sends its tensors through ``Switch`` nodes
into two branches and joins them with ``Merge``, which takes the one that ran. TensorFlow 2 still
executes that, but its gradients fail on the branch that did not run; so the choice is made here.
"""

from __future__ import annotations

from collections import deque

import tensorflow as tf


def node_name(tensor: str) -> str:
    """Name of the node behind a tensor or an input: "a/b:0", "^a/b" and "a/b" are all node "a/b"."""
    return tensor.removeprefix("^").partition(":")[0]


def without_branches(graph_def, known: dict[str, bool]):
    """A graph in which the conditionals that depend on known booleans alone are gone.

    Args:
        graph_def: a TF1 GraphDef, whose functions are left out; not changed.
        known: values of boolean nodes by name.

    Returns:
        GraphDef without those ``Switch`` nodes and the nodes that never run, their ``Merge`` nodes
        replaced by ``Identity``. A conditional that depends on anything else stays as it is.
    """
    branches = _Branches(known)
    for node in _in_order(graph_def):
        branches.visit(node)
    result = tf.compat.v1.GraphDef(versions=graph_def.versions)
    for node in graph_def.node:
        if node.name in branches.gone:
            continue
        kept = result.node.add()
        kept.CopyFrom(node)
        sources = [branches.source(source) for source in node.input]
        kept.input[:] = [source for source in sources if node_name(source) not in branches.gone]
        if node.name in branches.joined:
            kept.op = "Identity"
            kept.attr.pop("N", None)
    return result


class _Branches:
    """What is known of the nodes visited so far; each node is visited after those it depends on.

    Attributes:
        gone: nodes that never run, and ``Switch`` nodes that are decided.
        joined: ``Merge`` nodes of which one input is left.
    """

    def __init__(self, known):
        self._known = dict(known)
        self._dead = set()  # nodes that never run, and outputs of a Switch that never come
        self._passed = {}  # outputs of decided Switch nodes -> the tensor that they pass on
        self.gone, self.joined = set(), set()

    def source(self, tensor):
        """The tensor that takes a tensor's place."""
        return self._passed.get(_canonical(tensor), tensor)

    def visit(self, node):
        sources = [self.source(source) for source in node.input]
        dead = [node_name(source) in self._dead or _canonical(source) in self._dead for source in sources]
        if node.op == "Merge" and any(dead) and dead.count(False) == 1:
            self.joined.add(node.name)
        elif all(dead) and dead or any(dead) and node.op != "Merge":
            self.gone.add(node.name)
            self._dead.add(node.name)
        elif node.op == "Switch" and len(sources) > 1 and node_name(sources[1]) in self._known:
            taken = int(self._known[node_name(sources[1])])
            self.gone.add(node.name)
            self._passed[f"{node.name}:{taken}"] = sources[0]
            self._dead.add(f"{node.name}:{1 - taken}")
        elif node.op in ("Identity", "LogicalNot") and sources and node_name(sources[0]) in self._known:
            self._known[node.name] = self._known[node_name(sources[0])] == (node.op == "Identity")


def _canonical(tensor):
    """A tensor's name with its output's number; control inputs are as they are."""
    return tensor if tensor.startswith("^") or ":" in tensor else f"{tensor}:0"


def _in_order(graph_def):
    """Nodes, each after those it depends on; nodes of a loop come last."""
    nodes = {node.name: node for node in graph_def.node}
    users, waiting = {name: [] for name in nodes}, {}
    for node in graph_def.node:
        sources = {node_name(source) for source in node.input} & nodes.keys()
        waiting[node.name] = len(sources)
        for source in sources:
            users[source].append(node.name)
    ready, order = deque(name for name, count in waiting.items() if count == 0), []
    while ready:
        name = ready.popleft()
        order.append(nodes[name])
        for user in users[name]:
            waiting[user] -= 1
            if waiting[user] == 0:
                ready.append(user)
    return order + [nodes[name] for name, count in waiting.items() if count > 0]
