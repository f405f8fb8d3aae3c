"""Frozen TF1 graphs (``.pb``) under TensorFlow 2: the regressor and the face recognition network of the paper.

``FrozenRegressor`` runs ``FaceReconModel.pb`` (Deng et al. 2019), ``FrozenFaceNet`` runs
``FaceNetModel.pb`` (davidsandberg/facenet, Inception-ResNet v1). Both take what the networks here
exchange, RGB in [-1, 1], and can be differentiated with respect to it. Tensor names, input ranges
and resizing: the released code. Letters: B images, K coefficients, E feature width, S pixels.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from facegcn.errors import UserError
from facegcn.networks.graph_operations import check_operations
from facegcn.networks.tf1_control_flow import node_name, without_branches


class Interface(NamedTuple):
    """What a frozen network takes and gives.

    Attributes:
        what: what the file is, in words; part of the messages.
        image: name of the image input; fed (B, S, S, 3) float32.
        pixels: S.
        outputs: names of the wanted outputs.
        switches: values of boolean inputs by name, fixed once and for all.
    """

    what: str
    image: str
    pixels: int
    outputs: tuple[str, ...]
    switches: dict[str, bool]


#: FaceReconModel.pb
RECON = Interface("the regressor of Deng et al. 2019 (github.com/microsoft/Deep3DFaceReconstruction, the "
                  "TensorFlow version)", "input_imgs:0", 224, ("coeff:0", "resnet_v1_50/pool5:0"), {})
#: FaceNetModel.pb
FACENET = Interface("FaceNet, Inception-ResNet v1 (github.com/davidsandberg/facenet), frozen into one file", "input:0",
                    160, ("InceptionResnetV1/Logits/AvgPool_1a_8x8/AvgPool:0",), {"phase_train:0": False})

_VARIABLE_OPS = ("Variable", "VariableV2", "VarHandleOp", "AutoReloadVariable")
#: Constants of at least so many numbers become inputs, so that no copy of a graph repeats them: with a
#: graph of 218 MB a process took 1.5 GB instead of 7.6.
_LIFTED_SIZE = 1024
_NEAR_MATCHES = 3


class FrozenGraph:
    """The part of a frozen graph between one image input and some outputs, as a differentiable function.

    Args:
        path: the binary GraphDef.
        interface: its tensors.

    Attributes:
        digest: hash of the file, 16 hexadecimal digits.
        output_shapes: of each output for one image, as it was computed.

    Raises:
        UserError: as ``read_graph``; or TensorFlow cannot run it on one picture.
    """

    def __init__(self, path: str, interface: Interface):
        self.path = path
        what, image, pixels, outputs, switches = interface
        graph_def, self.digest, self._batch = read_graph(path, interface)
        try:
            graph_def, self._weights = _rewritten(
                graph_def, node_name(image), (self._batch, pixels, pixels, 3),
                {node_name(name): value for name, value in switches.items()})
            self._function = _wrapped(graph_def, image, self._weights, outputs)
            found = self(tf.zeros((1, pixels, pixels, 3)))
        except (ValueError, TypeError, KeyError, tf.errors.OpError) as error:
            raise UserError(f"{path} ({what}) cannot run on {pixels} x {pixels} RGB pictures in TensorFlow "
                            f"{tf.__version__}: {_first_line(error)}") from error
        self.output_shapes = [tuple(output.shape) for output in found]
        for name, shape in zip(outputs, self.output_shapes):
            if not shape or shape[0] != 1:
                raise UserError(f"{path}: {name} has shape {shape} for one picture: the graph was frozen for a fixed "
                                "number of pictures; freeze it with a placeholder of unknown batch size")

    def __call__(self, images) -> list[tf.Tensor]:
        """The outputs for images (B, S, S, 3); a graph frozen for a fixed batch gets zeros to fill it up."""
        images = tf.cast(images, tf.float32)
        if self._batch is None:
            return list(self._function(images, *self._weights.values()))
        count = tf.shape(images)[0]
        padded = tf.pad(images, [[0, tf.math.floormod(-count, self._batch)], [0, 0], [0, 0], [0, 0]])
        groups = tf.reshape(padded, (-1, self._batch, *images.shape[1:]))
        found = tf.map_fn(lambda group: tuple(self._function(group, *self._weights.values())), groups,
                          fn_output_signature=tuple(spec.dtype for spec in self._function.outputs))
        return [tf.reshape(output, (-1, *spec.shape[1:]))[:count]
                for output, spec in zip(found, self._function.outputs)]


class FrozenRegressor:
    """``FaceReconModel.pb``: RGB (B, S, S, 3) in [-1, 1] -> [coefficients (B, K), pooled features (B, E)].

    The network sees BGR, 0..255, 224 pixels wide; other widths are resized as TF1 did.

    Args:
        path: the ``.pb`` file.
        coefficient_count: K of the morphable model that its coefficients are for (257 for BFM09).

    Attributes:
        feature_count: E, 2048 for the ResNet-50 of the paper.
        digest: hash of the file.

    Raises:
        UserError: as ``FrozenGraph``; or the number of coefficients is not the morphable model's.
    """

    def __init__(self, path: str, coefficient_count: int):
        self._graph = FrozenGraph(path, RECON)
        self.path, self.digest = path, self._graph.digest
        coefficients, features = self._graph.output_shapes
        if coefficients != (1, coefficient_count):
            raise UserError(f"{path}: coeff:0 gives {coefficients[-1]} coefficients a picture (shape {coefficients}), "
                            f"the morphable model takes {coefficient_count}: they do not belong together. "
                            "FaceReconModel.pb needs the BFM09 model that python -m facegcn.assets bfm09 makes (257)")
        self.feature_count = _pooled_width(path, RECON.outputs[1], features)

    def __call__(self, rgb, training: bool = False) -> list[tf.Tensor]:
        """[coefficients, features]; ``training`` changes nothing, it is there because Keras models take it."""
        levels = (resize_as_tf1(rgb, RECON.pixels) + 1.0) * 127.5
        coefficients, features = self._graph(levels[..., ::-1])
        return [coefficients, tf.reshape(features, (-1, self.feature_count))]


class FrozenFaceNet:
    """``FaceNetModel.pb``: RGB (B, S, S, 3) in [-1, 1] -> features of the face's identity (B, E).

    The network sees (x - 127.5) / 128 of RGB levels x, 160 pixels wide, with ``phase_train`` false;
    its features are those before the bottleneck. Nothing is clipped or rounded on the way.

    Args:
        path: the ``.pb`` file.

    Attributes:
        feature_count: E, 1792 for the network of the paper.
        digest: hash of the file.

    Raises:
        UserError: as ``FrozenGraph``.
    """

    def __init__(self, path: str):
        self._graph = FrozenGraph(path, FACENET)
        self.path, self.digest = path, self._graph.digest
        self.feature_count = _pooled_width(path, FACENET.outputs[0], self._graph.output_shapes[0])

    def __call__(self, rgb) -> tf.Tensor:
        """Features (B, E)."""
        levels = (resize_as_tf1(rgb, FACENET.pixels) + 1.0) * 127.5
        features, = self._graph((levels - 127.5) / 128.0)
        return tf.reshape(features, (-1, self.feature_count))


def resize_as_tf1(images, pixels: int) -> tf.Tensor:
    """Images (B, H, W, C) at (B, pixels, pixels, C), as ``tf.image.resize_images`` of TF1 gave them.

    Bilinear between the four pixels at row * H / pixels, column * W / pixels (not half-pixel
    centres), without smoothing before shrinking: the released code resizes so for FaceNet.
    """
    images = tf.cast(images, tf.float32)
    if tuple(images.shape[1:3]) == (pixels, pixels):
        return images
    return tf.raw_ops.ResizeBilinear(images=images, size=(pixels, pixels), align_corners=False,
                                     half_pixel_centers=False)


# ---------------------------------------------------------------- reading
def read_graph(path: str, interface: Interface) -> tuple[tf.compat.v1.GraphDef, str, int | None]:
    """A frozen network's graph between the image input and the outputs of ``interface``, checked but not yet run.

    Branches that the switches rule out, functions, and what the outputs do not depend on are left out.

    Returns:
        (graph, hash of the file as 16 hexadecimal digits, batch size that it was frozen for; None = any).

    Raises:
        UserError: the file is absent or no frozen graph, lacks some of the tensors (all are named), or
            takes pictures of another size or channel count; is not frozen, needs other inputs, or asks for
            operations that are not run here (``facegcn.networks.graph_operations``).
    """
    what, image, pixels, outputs, switches = interface
    graph_def, digest = _graph_file(path, what)
    nodes = {node.name: node for node in graph_def.node}
    if len(nodes) < len(graph_def.node):
        raise UserError(f"{path} has two nodes of one name: the file is damaged; take it anew from its source")
    _check_names(path, what, nodes, (image, *switches, *outputs))
    batch = _declared_batch(path, nodes[node_name(image)], pixels)
    inputs = {node_name(name) for name in (image, *switches)}
    graph_def = without_branches(_cut(graph_def, outputs, inputs),
                                 {node_name(name): value for name, value in switches.items()})
    graph_def = _cut(graph_def, outputs, inputs)
    _check_names(path, what, {node.name: node for node in graph_def.node}, outputs)  # some may never run
    _check_closed(path, graph_def, node_name(image), inputs)
    check_operations(path, graph_def)
    return graph_def, digest, batch


def _graph_file(path, what):
    """(GraphDef, digest) of a file; raises UserError that says what the file is instead."""
    if not os.path.exists(path):
        raise UserError(f"the frozen network {path} is not there: {what}. "
                        "python -m facegcn.assets check lists every file that the config needs")
    wanted = f"needed is the binary frozen graph of {what}"
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; {wanted}")
    with open(path, "rb") as file:
        content = file.read()
    if not content:
        raise UserError(f"{path} is empty; {wanted}")
    if _is_text(content):
        raise UserError(f"{path} is a text file that begins with {content[:30].decode(errors='replace')!r} (a graph in "
                        f"text form, a saved web page or a Git LFS pointer), not a binary graph; {wanted}")
    try:
        graph_def = tf.compat.v1.GraphDef.FromString(content)
    except DecodeError:
        graph_def = None
    if graph_def is None or not any(node.op for node in graph_def.node):
        kind = "is a SavedModel, not a frozen graph" if _is_saved_model(content) else "is not a frozen TensorFlow graph"
        raise UserError(f"{path} {kind} ({len(content):,} bytes; damaged or another kind of file); {wanted}")
    return graph_def, hashlib.sha256(content).hexdigest()[:16]


def _is_text(content):
    """Whether a file begins with plain text; a binary graph has control characters in its first few bytes."""
    head = content[:256]
    return all(byte >= 32 or byte in b"\t\r\n" for byte in head)


def _is_saved_model(content):
    try:
        saved = saved_model_pb2.SavedModel.FromString(content)
    except DecodeError:
        return False
    return saved.saved_model_schema_version > 0 and len(saved.meta_graphs) > 0


# ---------------------------------------------------------------- checks
def _check_names(path, what, nodes, tensors):
    """Raises UserError naming every tensor that the graph does not have, with the nearest that it has."""
    missing = []
    for tensor in tensors:
        if node_name(tensor) not in nodes:
            near = difflib.get_close_matches(node_name(tensor), nodes, _NEAR_MATCHES)
            missing.append(f"{tensor} " + (f"(near: {', '.join(near)})" if near else "(nothing similar)"))
    if missing:
        inputs = [node.name for node in nodes.values() if node.op.startswith("Placeholder")]
        raise UserError(f"{path} is not {what}: these tensors are missing:\n  " + "\n  ".join(missing)
                        + f"\nIts inputs are: {', '.join(inputs) or 'none'}")


def _declared_shape(node):
    """Shape that an input was frozen with, -1 where unknown; None when nothing is known."""
    shape = node.attr["shape"].shape
    if node.op.startswith("Placeholder") and shape.dim and not shape.unknown_rank:
        return tuple(dim.size for dim in shape.dim)
    return None  # TF1 wrote an empty shape for an unknown one


def _declared_batch(path, node, pixels):
    """Batch size of an image input, None when free; raises UserError where it takes other pictures."""
    declared = _declared_shape(node)
    if declared is None:
        return None
    fits = len(declared) == 4 and all(size in (-1, wanted) for size, wanted in zip(declared[1:], (pixels, pixels, 3)))
    if not fits:
        shown = tuple("?" if size < 0 else size for size in declared)
        raise UserError(f"{path}: the input {node.name}:0 has shape ({', '.join(map(str, shown))}), expected "
                        f"(?, {pixels}, {pixels}, 3): this is another network, or it was frozen for other pictures")
    return None if declared[0] < 0 else declared[0]


def _check_closed(path, graph_def, image, inputs):
    """Raises UserError where a graph has variables, inputs that nobody feeds, or no use for the image."""
    if all(node.name != image for node in graph_def.node):
        raise UserError(f"{path}: its outputs do not depend on its input {image}:0: this is another network")
    variables = [node.name for node in graph_def.node if node.op in _VARIABLE_OPS]
    if variables:
        raise UserError(f"{path} is not frozen: its weights ({variables[0]} and {len(variables) - 1} more) are "
                        "variables that live in a checkpoint; freeze the graph first (TF1's freeze_graph)")
    unfed = [node.name for node in graph_def.node if node.op == "Placeholder" and node.name not in inputs]
    if unfed:
        raise UserError(f"{path} has inputs that the known network has not: {', '.join(unfed)}")


def _pooled_width(path, name, shape):
    """E of a pooled feature's shape (1, 1, 1, E)."""
    if len(shape) != 4 or shape[:3] != (1, 1, 1):
        raise UserError(f"{path}: {name} has shape {shape} for one picture, expected (1, 1, 1, E): "
                        "pooled over the whole picture")
    return shape[3]


def _first_line(error):
    return str(error).strip().splitlines()[0]


# ---------------------------------------------------------------- making it run
def _cut(graph_def, outputs, inputs):
    """The nodes that the outputs depend on: the inputs, where the outputs need them, but nothing behind them."""
    nodes = {node.name: node for node in graph_def.node}
    needed, waiting = set(), [node_name(output) for output in outputs]
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in needed:
            needed.add(name)
            waiting.extend(node_name(source) for source in nodes[name].input if name not in inputs)
    result = tf.compat.v1.GraphDef(versions=graph_def.versions)  # without its functions
    for node in graph_def.node:
        if node.name in needed:
            result.node.add().CopyFrom(node)
            if node.name in inputs:
                del result.node[-1].input[:]
    return result


def _rewritten(graph_def, image, image_shape, switches):
    """A graph with a plain input, constant switches and large weights taken out.

    Returns:
        (GraphDef, weights by the name of the placeholder that takes them).
    """
    result, weights = tf.compat.v1.GraphDef(versions=graph_def.versions), {}
    for node in graph_def.node:
        if node.name == image:
            _add_placeholder(result, image, tf.float32, image_shape)
        elif node.name in switches:
            value = tf.make_tensor_proto(switches[node.name], tf.bool)
            result.node.add(name=node.name, op="Const").attr["value"].tensor.CopyFrom(value)
            result.node[-1].attr["dtype"].type = tf.bool.as_datatype_enum
        elif node.op == "Const" and _is_large(node):
            # Weights are inputs, shared by every copy of the graph that tracing and gradients make;
            # StopGradient keeps their own gradients from being computed.
            source = f"{node.name}/weights_of_graph"
            weights[source] = tf.constant(tf.make_ndarray(node.attr["value"].tensor))
            _add_placeholder(result, source, weights[source].dtype, weights[source].shape)
            controls = [name for name in node.input if name.startswith("^")]
            stop = result.node.add(name=node.name, op="StopGradient", input=[source, *controls])
            stop.attr["T"].CopyFrom(node.attr["dtype"])
        else:
            kept = result.node.add()
            kept.CopyFrom(node)
            kept.device = ""  # the machine it was frozen on
            for hint in [key for key in kept.attr if key.startswith("_")]:
                del kept.attr[hint]  # colocation with variables that freezing removed, other gradients, compilers
    return result, weights


def _add_placeholder(graph_def, name, dtype, shape):
    node = graph_def.node.add(name=name, op="Placeholder")
    node.attr["dtype"].type = tf.as_dtype(dtype).as_datatype_enum
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())


def _is_large(node):
    """Whether a constant holds weights, rather than a size or an axis that shapes depend on."""
    tensor = node.attr["value"].tensor
    floating = tf.as_dtype(node.attr["dtype"].type).is_floating
    return floating and np.prod([dim.size for dim in tensor.tensor_shape.dim]) >= _LIFTED_SIZE


def _wrapped(graph_def, image, weights, outputs):
    """ConcreteFunction (images, *weights) -> outputs of a graph."""
    whole = tf.compat.v1.wrap_function(lambda: tf.compat.v1.import_graph_def(graph_def, name=""), [])
    for operation in whole.graph.get_operations():
        ranks = {tensor.shape.rank for tensor in operation.inputs} - {None} if operation.type == "Merge" else ()
        if len(ranks) > 1:  # what comes first would go on, and a layer that meets no picture ends the process
            raise ValueError(f"{operation.name} joins tensors of {' and '.join(map(str, sorted(ranks)))} dimensions")
    feeds = [whole.graph.get_tensor_by_name(name) for name in (image, *(f"{name}:0" for name in weights))]
    return whole.prune(feeds, [whole.graph.get_tensor_by_name(name) for name in outputs])
