"""Frozen TF1 graphs: against a TF1 session, gradients, every message, and through the pipeline."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import yaml
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

import create_bin
import main
from facegcn import losses
from facegcn.assets import regressor_errors
from facegcn.config import Config
from facegcn.errors import UserError
from facegcn.networks.frozen import FACENET, FrozenFaceNet, FrozenRegressor, read_graph, resize_as_tf1
from facegcn.networks.graph_operations import OPERATIONS
from facegcn.networks.regressor import digest
from facegcn.networks.tf1_control_flow import without_branches
from facegcn.photos.packed_photos import read_packed
from facegcn.training import encoding
from facegcn.training.texture_stage import TextureTrainer
from model import build_face_model
from tests import standin_graphs
from tests.faces import embedded, half_ellipsoid
from tests.standin_graphs import FACENET_WIDTH, REGRESSOR_WIDTH, facenet_graph, regressor_graph, write_standin_graphs

FACENET_OUTPUT = "InceptionResnetV1/Logits/AvgPool_1a_8x8/AvgPool"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("graphs")
    write_standin_graphs(str(path))
    return path


@pytest.fixture(scope="module")
def regressor(folder):
    return FrozenRegressor(str(folder / "FaceReconModel.pb"), 257)


@pytest.fixture(scope="module")
def facenet(folder):
    return FrozenFaceNet(str(folder / "FaceNetModel.pb"))


def write(path, graph_def) -> str:
    path.write_bytes(graph_def.SerializeToString())
    return str(path)


def in_session(path, outputs, feeds):
    """The graph of a file in a TF1 session, as the released code runs it."""
    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return session.run(outputs, feeds)


def photos(rng, count, size):
    """(count, size, size, 3) in [-1, 1], smooth enough that resizing keeps something of them."""
    coarse = rng.uniform(-1, 1, (count, 14, 14, 3)).astype(np.float32)
    return tf.image.resize(coarse, (size, size)).numpy()


# ---------------------------------------------------------------- values
def test_regressor_equals_the_session(regressor, folder, rng):
    rgb = photos(rng, 3, 224)
    coeff, features = regressor(rgb, training=False)
    levels = (rgb[..., ::-1] + 1.0) * 127.5
    expected = in_session(folder / "FaceReconModel.pb", ["coeff:0", "resnet_v1_50/pool5:0"], {"input_imgs:0": levels})
    np.testing.assert_allclose(coeff, expected[0], atol=1e-5)
    np.testing.assert_allclose(features, expected[1][:, 0, 0], atol=1e-5)
    assert features.shape == (3, REGRESSOR_WIDTH) and regressor.feature_count == REGRESSOR_WIDTH
    assert np.abs(coeff - regressor(rgb[..., ::-1])[0]).max() > 1e-2, "the order of the channels matters"


def legacy_bilinear(image, size):
    """TF1's resizing of one image, pixel by pixel."""
    height, width = image.shape[:2]
    result = np.empty((size, size, image.shape[2]))
    for row in range(size):
        for column in range(size):
            y, x = row * height / size, column * width / size
            top, left = int(y), int(x)
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = image[top, left] * (1 - x + left) + image[top, right] * (x - left)
            lower = image[below, left] * (1 - x + left) + image[below, right] * (x - left)
            result[row, column] = upper * (1 - y + top) + lower * (y - top)
    return result


@pytest.mark.parametrize("before, after", [(224, 160), (64, 160), (30, 30)])
def test_resizing_is_that_of_tf1(before, after, rng):
    image = rng.uniform(-1, 1, (before, before, 3)).astype(np.float32)
    np.testing.assert_allclose(resize_as_tf1(image[None], after)[0], legacy_bilinear(image, after), atol=2e-5)


def test_facenet_equals_the_session(facenet, folder, rng):
    rgb = photos(rng, 2, 224)
    levels = np.stack([legacy_bilinear((image + 1.0) * 127.5, 160) for image in rgb])
    expected = in_session(folder / "FaceNetModel.pb", f"{FACENET_OUTPUT}:0",
                          {"input:0": (levels - 127.5) / 128.0, "phase_train:0": False})
    np.testing.assert_allclose(facenet(rgb), expected[:, 0, 0], atol=1e-5)
    trained = in_session(folder / "FaceNetModel.pb", f"{FACENET_OUTPUT}:0",
                         {"input:0": (levels - 127.5) / 128.0, "phase_train:0": True})
    assert np.abs(trained - expected).max() > 1e-2, "phase_train matters in this graph"
    assert facenet.feature_count == FACENET_WIDTH


@pytest.mark.parametrize("with_default", [False, True])
def test_phase_train_may_have_a_default(facenet, with_default, tmp_path, rng):
    network = FrozenFaceNet(write(tmp_path / "net.pb", facenet_graph(with_default=with_default)))
    rgb = photos(rng, 2, 160)
    np.testing.assert_allclose(network(rgb), facenet(rgb), atol=1e-6)


@pytest.mark.parametrize("count", [1, 4, 6])
def test_a_fixed_batch_size_is_filled_up(regressor, count, tmp_path, rng):
    fixed = FrozenRegressor(write(tmp_path / "fixed.pb", regressor_graph(batch=4)), 257)
    rgb = photos(rng, count, 224)
    for ours, expected in zip(tf.function(fixed)(rgb), regressor(rgb)):
        assert ours.shape == expected.shape
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_what_lies_behind_the_input_does_not_matter(facenet, tmp_path, rng):
    """Graphs that were exported with their input queue have an identity in the placeholder's place."""
    graph_def = facenet_graph()
    image = next(node for node in graph_def.node if node.name == "input")
    image.op = "Identity"
    image.input.append("batch_join")
    del image.attr["shape"], image.attr["dtype"]
    image.attr["T"].type = tf.float32.as_datatype_enum
    graph_def.node.add(name="batch_join", op="QueueOfLongAgo").device = "/gpu:7"
    norm = next(node for node in graph_def.node if node.name.endswith("moving_mean"))
    norm.attr["_class"].list.s.append(b"loc:@a/variable/that/freezing/removed")
    rgb = photos(rng, 1, 160)
    np.testing.assert_allclose(FrozenFaceNet(write(tmp_path / "net.pb", graph_def))(rgb), facenet(rgb), atol=1e-6)


def conditional_graph():
    """Conditionals on ``phase`` (one negated, one nested, one with a bare constant) and one on ``other``."""
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (3,), "x")
        phase, other = (tf.compat.v1.placeholder(tf.bool, (), name) for name in ("phase", "other"))

        def cond(pred, data, when_true, when_false):
            if_false, if_true = tf.raw_ops.Switch(data=data, pred=tf.identity(pred))
            return tf.raw_ops.Merge(inputs=[when_false(if_false), when_true(if_true)]).output

        def constant_branch(branch):
            with tf.control_dependencies([tf.identity(branch)]):
                return tf.constant([7.0, 8.0, 9.0])

        inner = cond(phase, x, lambda b: cond(other, b, lambda c: c + 5.0, lambda c: c * 2.0), lambda b: b - 1.0)
        negated = cond(tf.logical_not(phase), x, lambda b: b * 3.0, constant_branch)
        both = cond(phase, x, lambda b: cond(phase, b, tf.exp, tf.sin), lambda b: cond(phase, b, tf.cos, tf.tanh))
        tf.identity(inner + 10.0 * negated + 100.0 * both, name="result")
    return graph.as_graph_def()


@pytest.mark.parametrize("phase", [False, True])
@pytest.mark.parametrize("other", [False, True])
def test_decided_branches_leave_the_values_alone(phase, other):
    def run(graph_def):
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(graph_def, name="")
            with tf.compat.v1.Session(graph=graph) as session:
                return session.run("result:0", {"x:0": [0.1, 0.2, 0.3], "phase:0": phase, "other:0": other})

    graph_def = conditional_graph()
    reversed_def = tf.compat.v1.GraphDef(versions=graph_def.versions, node=reversed(graph_def.node))
    for decided in (without_branches(graph_def, {"phase": phase}), without_branches(reversed_def, {"phase": phase})):
        np.testing.assert_allclose(run(decided), run(graph_def), rtol=1e-6)
        kept = [node for node in decided.node if node.op in ("Switch", "Merge")]
        assert len(kept) == (2 if phase else 0), "only the conditional on 'other' is left, where its branch runs"
        assert not {node.op for node in decided.node} & ({"Tanh", "Cos", "Sin"} if phase else {"Exp", "Cos", "Sin"})
    everything = without_branches(graph_def, {"phase": phase, "other": other})
    assert not any(node.op in ("Switch", "Merge") for node in everything.node)
    np.testing.assert_allclose(run(everything), run(graph_def), rtol=1e-6)


# ---------------------------------------------------------------- gradients
@pytest.mark.parametrize("compiled", [False, True])
def test_facenet_gradient_is_that_of_finite_differences(facenet, compiled, rng):
    rgb = tf.constant(photos(rng, 2, 64))
    direction = tf.constant(photos(rng, 2, 64))
    others = facenet(rgb[::-1])

    def identity(image):
        return losses.identity_loss(others, facenet(image))

    def gradient(image):
        with tf.GradientTape() as tape:
            tape.watch(image)
            value = identity(image)
        return tape.gradient(value, image)

    slope = tf.reduce_sum((tf.function(gradient) if compiled else gradient)(rgb) * direction)
    step = 0.02
    expected = (identity(rgb + step * direction) - identity(rgb - step * direction)) / (2 * step)
    assert abs(float(expected)) > 1e-4
    np.testing.assert_allclose(slope, expected, rtol=0.02)


def test_regressor_gradient_and_none_for_its_weights(regressor, rng):
    rgb = tf.constant(photos(rng, 1, 224))
    direction = photos(rng, 1, 224)
    with tf.GradientTape() as tape:
        tape.watch(rgb)
        value = tf.reduce_sum(regressor(rgb)[0])
    slope = np.sum(tape.gradient(value, rgb) * direction)
    shifted = [np.sum(regressor(rgb + step * direction)[0]) for step in (0.02, -0.02)]
    np.testing.assert_allclose(slope, (shifted[0] - shifted[1]) / 0.04, rtol=0.02)


# ---------------------------------------------------------------- mistakes
def renamed(graph_def, old, new):
    for node in graph_def.node:
        if node.name == old:
            node.name = new
        node.input[:] = [new if source == old else source for source in node.input]
    return graph_def


def saved_model():
    saved = saved_model_pb2.SavedModel(saved_model_schema_version=1)
    saved.meta_graphs.add().graph_def.CopyFrom(facenet_graph())
    return saved.SerializeToString()


@pytest.mark.parametrize("content, words", [
    (b"", ["is empty"]),
    (bytes(range(255, 0, -1)) * 40, ["is not a frozen TensorFlow graph", "10,200 bytes"]),
    (b"\x00\x01\x02" * 100, ["is not a frozen TensorFlow graph"]),
    (b'node {\n  name: "input"\n  op: "Placeholder"\n}\n', ["text file that begins with 'node {", "not a binary"]),
    (b"<!DOCTYPE html><html>Sign in</html>", ["text file that begins with '<!DOCTYPE html>"]),
    (b"version https://git-lfs.github.com/spec/v1\n", ["text file", "Git LFS pointer"]),
    ("saved model", ["is a SavedModel, not a frozen graph"]),
    ("cut short", ["is not a frozen TensorFlow graph"])])
def test_files_that_are_no_graph(content, words, folder, tmp_path):
    if content == "saved model":
        content = saved_model()
    elif content == "cut short":
        content = (folder / "FaceNetModel.pb").read_bytes()[:-1000]
    path = tmp_path / "FaceNetModel.pb"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        FrozenFaceNet(str(path))
    assert all(word in str(caught.value) for word in [str(path), "FaceNet, Inception-ResNet v1", *words])


def test_an_absent_file_and_a_folder(tmp_path):
    with pytest.raises(UserError, match="FaceReconModel.pb is not there: the regressor of Deng.*assets check"):
        FrozenRegressor(str(tmp_path / "FaceReconModel.pb"), 257)
    with pytest.raises(UserError, match="is a folder"):
        FrozenFaceNet(str(tmp_path))


def test_missing_tensors_are_all_named_with_what_is_near(tmp_path):
    graph_def = renamed(renamed(facenet_graph(), "phase_train", "phase_training"), FACENET_OUTPUT, "embeddings")
    with pytest.raises(UserError) as caught:
        FrozenFaceNet(write(tmp_path / "net.pb", graph_def))
    message = str(caught.value)
    assert "phase_train:0 (near: phase_training" in message and f"{FACENET_OUTPUT}:0 (" in message
    assert "input:0" not in message.replace("_input:0", "") and "Its inputs are: input, phase_training" in message


def test_the_wrong_one_of_the_two_files(folder):
    with pytest.raises(UserError, match="is not the regressor of Deng") as caught:
        FrozenRegressor(str(folder / "FaceNetModel.pb"), 257)
    assert all(name in str(caught.value) for name in ("input_imgs:0", "coeff:0", "resnet_v1_50/pool5:0"))


def test_coefficients_that_do_not_fit_the_morphable_model(folder):
    with pytest.raises(UserError, match=r"gives 257 coefficients a picture \(shape \(1, 257\)\), the morphable model "
                                        "takes 48"):
        FrozenRegressor(str(folder / "FaceReconModel.pb"), 48)


def test_inputs_of_another_size(tmp_path):
    path = write(tmp_path / "small.pb", regressor_graph(image_size=128))
    with pytest.raises(UserError, match=r"input_imgs:0 has shape \(\?, 128, 128, 3\), expected \(\?, 224, 224, 3\)"):
        FrozenRegressor(path, 257)


@pytest.mark.parametrize("shape, words", [
    ((None, 160, 160, 1), r"\(\?, 160, 160, 1\), expected \(\?, 160, 160, 3\)"),
    ((None, 3, 160, 160), r"\(\?, 3, 160, 160\)"), ((None, 76800), r"\(\?, 76800\)")])
def test_inputs_of_another_layout(shape, words, tmp_path):
    graph_def = facenet_graph()
    image = next(node for node in graph_def.node if node.name == "input")
    image.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())
    with pytest.raises(UserError, match=words):
        FrozenFaceNet(write(tmp_path / "net.pb", graph_def))


def test_a_network_for_other_channels_whose_input_does_not_say_so(tmp_path):
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, None, "input")
        tf.compat.v1.placeholder(tf.bool, (), "phase_train")
        x = tf.nn.conv2d(image, tf.ones((3, 3, 4, 8)), 8, "SAME")
        tf.reduce_mean(x, axis=[1, 2], keepdims=True, name=FACENET_OUTPUT)
    with pytest.raises(UserError, match="cannot run on 160 x 160 RGB pictures"):
        FrozenFaceNet(write(tmp_path / "net.pb", graph.as_graph_def()))


@pytest.mark.parametrize("pooled, words", [
    (lambda x: tf.zeros((1, 1, 1, 5)), "its outputs do not depend on its input input:0"),
    (lambda x: tf.reduce_mean(x, axis=[1, 2]), r"has shape \(1, 3\) for one picture, expected \(1, 1, 1, E\)"),
    (lambda x: x[:, :2, :2], r"has shape \(1, 2, 2, 3\)"),
    (lambda x: tf.zeros((8, 1, 1, 5)) + tf.reduce_mean(x),
     r"has shape \(8, 1, 1, 5\) for one picture: .*fixed number of pictures")])
def test_features_of_another_shape(pooled, words, tmp_path):
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, (None, 160, 160, 3), "input")
        tf.compat.v1.placeholder(tf.bool, (), "phase_train")
        tf.identity(pooled(image), name=FACENET_OUTPUT)
    with pytest.raises(UserError, match=words):
        FrozenFaceNet(write(tmp_path / "net.pb", graph.as_graph_def()))


def test_graphs_that_are_not_frozen_or_not_closed(tmp_path):
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.float32, (None, 160, 160, 3), "input")
        tf.compat.v1.placeholder(tf.bool, (), "phase_train")
        scale = tf.compat.v1.get_variable("scale", (3,), use_resource=False)
        shift = tf.compat.v1.placeholder(tf.float32, (3,), "keep_prob")
        tf.reduce_mean(image * scale, axis=[1, 2], keepdims=True, name=FACENET_OUTPUT)
        tf.reduce_mean(image + shift, axis=[1, 2], keepdims=True, name="other")
    graph_def = graph.as_graph_def()
    with pytest.raises(UserError, match="is not frozen: its weights .scale"):
        FrozenFaceNet(write(tmp_path / "net.pb", graph_def))
    graph_def = renamed(renamed(graph_def, FACENET_OUTPUT, "first"), "other", FACENET_OUTPUT)
    with pytest.raises(UserError, match="inputs that the known network has not: keep_prob"):
        FrozenFaceNet(write(tmp_path / "net.pb", graph_def))


# ---------------------------------------------------------------- graphs that do more than compute
def test_an_operation_that_tensorflow_does_not_know(tmp_path):
    graph_def = regressor_graph()
    next(node for node in graph_def.node if node.op == "Elu").op = "EluOfAnotherLibrary"
    with pytest.raises(UserError, match="operations .* not run here: EluOfAnotherLibrary"):
        FrozenRegressor(write(tmp_path / "net.pb", graph_def), 257)


def control_dependency(graph_def, make):
    """The output depends on what ``make`` adds."""
    with tf.Graph().as_default() as graph:
        make()
    graph_def.node.extend(graph.as_graph_def().node)
    next(node for node in graph_def.node if node.name == FACENET_OUTPUT).input.append("^evil")
    graph_def.library.CopyFrom(graph.as_graph_def().library)
    return graph_def


@pytest.mark.parametrize("operation", ["WriteFile", "ReadFile", "PyFunc", "EagerPyFunc", "PartitionedCall", "Function",
                                       "Print", "MatchingFiles", "SaveV2"])
def test_operations_that_do_more_than_compute_are_refused_before_they_run(operation, tmp_path):
    """A control dependency on ``WriteFile`` wrote its file while the graph was loaded."""
    victim = str(tmp_path / "written_by_the_graph")

    @tf.function
    def hidden():
        tf.io.write_file(victim, "owned")
        return tf.constant(1.0)

    def effect():
        tf.constant(0.0, name="evil") if operation == "Function" else {
            "WriteFile": lambda: tf.raw_ops.WriteFile(filename=victim, contents="owned", name="evil"),
            "ReadFile": lambda: tf.raw_ops.ReadFile(filename="/etc/hostname", name="evil"),
            "PyFunc": lambda: tf.raw_ops.PyFunc(input=[], token="pyfunc_0", Tout=[tf.float32], name="evil"),
            "EagerPyFunc": lambda: tf.raw_ops.EagerPyFunc(input=[], token="pyfunc_0", Tout=[tf.float32], name="evil"),
            "PartitionedCall": lambda: tf.raw_ops.StatefulPartitionedCall(
                args=[], Tout=[tf.float32], f=hidden.get_concrete_function(), name="evil"),
            "Print": lambda: tf.raw_ops.PrintV2(input="owned", name="evil"),
            "MatchingFiles": lambda: tf.raw_ops.MatchingFiles(pattern="/*", name="evil"),
            "SaveV2": lambda: tf.raw_ops.SaveV2(prefix=victim, tensor_names=["a"], shape_and_slices=[""],
                                                tensors=[tf.ones(1)], name="evil")}[operation]()
        if operation == "PartitionedCall":
            tf.compat.v1.get_default_graph()._add_function_recursive(hidden.get_concrete_function())

    graph_def = control_dependency(facenet_graph(), effect)
    if operation == "Function":  # a node may be called by a function's own name
        evil = next(node for node in graph_def.node if node.name == "evil")
        evil.op = "__inference_hidden_7"
        evil.attr.clear()
    path = write(tmp_path / "FaceNetModel.pb", graph_def)
    with pytest.raises(UserError, match=r"not run here: \w+ \(node evil\)"):
        FrozenFaceNet(path)
    with pytest.raises(UserError, match="not run here"):  # what ``assets check`` asks
        read_graph(path, FACENET)
    assert not any("written" in entry.name for entry in tmp_path.iterdir())


def test_what_the_outputs_do_not_need_is_never_imported(facenet, tmp_path, rng):
    """Savers and summaries of training lie in many files; functions and gradients of the file's own do not count."""
    graph_def = facenet_graph()
    with tf.Graph().as_default() as graph:
        tf.raw_ops.WriteFile(filename=str(tmp_path / "written_by_the_graph"), contents="owned", name="save/evil")
    graph_def.node.extend(graph.as_graph_def().node)
    graph_def.library.gradient.add(function_name="Conv2D", gradient_func="evil_gradient")
    for node in graph_def.node:
        if node.op == "Conv2D":
            node.attr["_gradient_op_type"].s = b"EvilGradient"
    network = FrozenFaceNet(write(tmp_path / "net.pb", graph_def))
    rgb = tf.constant(photos(rng, 1, 160))
    np.testing.assert_allclose(network(rgb), facenet(rgb), atol=1e-6)
    with tf.GradientTape() as tape:
        tape.watch(rgb)
        value = tf.reduce_sum(network(rgb))
    assert np.abs(tape.gradient(value, rgb)).max() > 0
    assert not (tmp_path / "written_by_the_graph").exists()


def test_a_constant_of_impossible_size(tmp_path):
    graph_def = facenet_graph()
    weights = next(node for node in graph_def.node if node.op == "Const" and node.attr["value"].tensor.tensor_content)
    weights.attr["value"].tensor.tensor_shape.dim.add().size = 10 ** 12
    with pytest.raises(UserError, match="says that its shape is .*1000000000000"):
        FrozenFaceNet(write(tmp_path / "net.pb", graph_def))


def test_all_operations_exist_and_none_keeps_state():
    """The list against TensorFlow's own knowledge: a stateful operation has no business in a frozen network."""
    for name in OPERATIONS:
        definition = op_def_registry.get(name)
        assert definition is not None, name
        assert not definition.is_stateful and not definition.allows_uninitialized_input, name


def inception_and_resnet_layers():
    """Layers of the two architectures as TF-Slim and Keras write them, in one graph."""
    image = tf.compat.v1.placeholder(tf.float32, (None, 160, 160, 3), "input")
    tf.compat.v1.placeholder(tf.bool, (), "phase_train")
    x = tf.pad(image - tf.constant([1.0, 2.0, 3.0]), [[0, 0], [3, 3], [3, 3], [0, 0]])
    x = tf.nn.bias_add(tf.nn.conv2d(x, tf.ones((7, 7, 3, 4)), 2, "VALID"), tf.zeros(4))
    ones, zeros = tf.ones(4), tf.zeros(4)
    x, *_ = tf.compat.v1.nn.fused_batch_norm(x, ones, zeros, zeros, ones, is_training=False)
    x = tf.nn.max_pool2d(tf.nn.relu(x), 3, 2, "SAME")
    x = tf.concat([x, x * 0.17 + x], axis=-1)
    x = tf.squeeze(x[:, None], 1) / tf.sqrt(tf.constant(2.0))
    flat = tf.reshape(tf.reduce_mean(x, [1, 2]), (tf.shape(x)[0], -1)) @ tf.constant(np.eye(8, dtype=np.float32))
    tf.identity(flat[:, None, None], name=FACENET_OUTPUT)


def test_layers_of_both_architectures_are_allowed(tmp_path, rng):
    with tf.Graph().as_default() as graph:
        inception_and_resnet_layers()
    graph_def = graph.as_graph_def()
    for version in (None, "FusedBatchNorm"):  # graphs of 2018 have the first version
        for node in graph_def.node:
            if version and node.op.startswith("FusedBatchNorm"):
                node.op = version
                del node.attr["U"]
        network = FrozenFaceNet(write(tmp_path / "net.pb", graph_def))
        assert network(photos(rng, 2, 160)).shape == (2, 8)


# ---------------------------------------------------------------- in the face model
SIZE = 64


def bfm_like():
    """A small model with BFM09's 257 coefficients."""
    return embedded(half_ellipsoid(25, 31, (80, 64, 80)))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A packed small world with frozen networks; its folder and the flags that point to it."""
    folder = tmp_path_factory.mktemp("frozen_world")
    model = bfm_like()
    model.save(str(folder / "data" / "model.npz"))
    write_standin_graphs(str(folder / "data"), model.coefficient_count)
    settings = {"name": "frozen", "root_dir": str(folder / "data"), "runs_dir": str(folder / "runs"),
                "model_file": "model.npz", "regressor": "frozen", "facenet_file": "FaceNetModel.pb",
                "demo_portraits": 10, "val_count": 2, "test_count": 2, "img_size": SIZE, "regressor_pixels": 32,
                "epoch": 1, "batch_size": 2, "log_steps": 1, "buffer_size": 8, "render_start": 1.0,
                "losses": "released", "residual": False, "delit": False, "relight": False, "visibility": "normal"}
    (folder / "frozen.yaml").write_text(yaml.safe_dump(settings))
    flags = ["--config", str(folder / "frozen.yaml")]
    assert create_bin.main(flags) == 0
    return folder, flags, dataclasses.replace(Config(), **settings)


@pytest.fixture(scope="module")
def face_model(world):
    keras.utils.set_random_seed(0)  # some starts of the released head are saturated, and have no gradient
    return build_face_model(world[2], bfm_like())


def test_embedding_is_pooled_features_then_facenet(face_model, rng):
    rgba = np.concatenate([photos(rng, 2, SIZE), np.ones((2, SIZE, SIZE, 1), np.float32)], axis=-1)
    coeff, embedding = face_model.regress(rgba)
    assert embedding.shape == (2, 3840) and coeff.shape == (2, face_model.morphable.coefficient_count)
    np.testing.assert_array_equal(embedding[:, 2048:], face_model.facenet(rgba[..., :3]))
    np.testing.assert_array_equal(embedding[:, :2048], face_model.regressor(rgba[..., :3])[1])
    assert face_model.texture_network.inputs[0].shape == (None, 3840)
    projected = np.asarray(face_model.geometry(coeff)["landmarks"])
    assert np.abs(projected).max() < 1.0, "the stand-in's faces are in the picture"


@pytest.mark.parametrize("kind", ["small", "frozen"])
def test_facenet_goes_with_any_regressor(kind, world):
    config = dataclasses.replace(world[2], regressor=kind, regressor_start="")
    for facenet_file, extra in (("", 0), ("FaceNetModel.pb", FACENET_WIDTH)):
        model = build_face_model(dataclasses.replace(config, facenet_file=facenet_file), bfm_like())
        width = {"small": 160, "frozen": REGRESSOR_WIDTH}[kind] + extra
        assert model.texture_network.inputs[0].shape == (None, width)


class CountingFaceNet:
    """FaceNet that remembers the pictures it was shown."""

    def __init__(self, network):
        self.network, self.feature_count, self.digest, self.seen = network, network.feature_count, network.digest, []

    def __call__(self, rgb):
        self.seen.append(rgb)
        return self.network(rgb)


def test_identity_term_sees_only_the_overlay_each_step(world, face_model, monkeypatch):
    config = dataclasses.replace(world[2], drop_rate=0.5)
    packed = read_packed(config, face_model.morphable.vertex_count)
    encoded = encoding.encode_packed(encoding.PhotoEncoder(face_model), packed)
    rgba, coeff, embedding = packed.photos([0, 1]), encoded.coeff[:2], encoded.embedding[:2]
    counting = CountingFaceNet(face_model.facenet)
    monkeypatch.setattr(face_model, "facenet", counting)
    trainer = TextureTrainer(face_model, config)
    trainer.render_weight.assign(1.0)
    terms, outputs = trainer.generator_terms(rgba, coeff, embedding)
    assert len(counting.seen) == 1
    inside = (outputs["fine_render"][..., 3:] * rgba[..., 3:]).numpy()
    shown = outputs["fine_render"][..., :3] * inside + rgba[..., :3] * (1 - inside)
    np.testing.assert_allclose(counting.seen[0], shown, atol=1e-6)
    expected = losses.identity_loss(counting.network(rgba[..., :3]), counting.network(shown))
    np.testing.assert_allclose(terms["identity"], expected, rtol=1e-4)
    assert 1e-4 < float(terms["identity"]) < 2.0
    trainer.compile(optimizer="adam")
    stepped = trainer.train_step((rgba, coeff, embedding))  # dropout leaves the photo's side alone
    np.testing.assert_allclose(stepped["identity"], expected, rtol=0.5)
    assert "identity" not in TextureTrainer(
        face_model, dataclasses.replace(config, identity_weight=0.0)).generator_terms(rgba, coeff, embedding)[0]


def test_identity_gradient_reaches_the_texture_network(world, face_model):
    packed = read_packed(world[2], face_model.morphable.vertex_count)
    rgba = packed.photos([0, 1])
    coeff, embedding = face_model.regress(rgba)
    trainer = TextureTrainer(face_model, world[2])
    with tf.GradientTape() as tape:
        identity = trainer.generator_terms(rgba, coeff, embedding)[0]["identity"]
    gradients = tape.gradient(identity, trainer.network.trainable_variables)
    assert sum(float(tf.norm(gradient)) > 1e-7 for gradient in gradients) > len(gradients) / 2


def test_errors_of_the_frozen_regressor_are_measured_and_kept_without_facenet(world, face_model, tmp_path, monkeypatch):
    config = dataclasses.replace(world[2], root_dir=str(tmp_path))
    monkeypatch.setattr(regressor_errors, "COUNT", 5)
    monkeypatch.setattr(face_model, "facenet", None)
    errors = regressor_errors.ensure_regressor_errors(config, face_model)
    assert len(errors.bias) == 80 + 64 + 6 and np.abs(errors.bias).max() > 0.1
    monkeypatch.setattr(face_model, "regressor", FrozenRegressor(face_model.regressor.path,
                                                                 face_model.morphable.coefficient_count))
    monkeypatch.setattr(regressor_errors, "measure_errors", None)
    np.testing.assert_array_equal(regressor_errors.ensure_regressor_errors(config, face_model).bias, errors.bias)


def test_the_encoding_is_kept_until_a_network_changes(world, face_model, tmp_path, monkeypatch):
    packed = read_packed(world[2], face_model.morphable.vertex_count)
    encoder = encoding.PhotoEncoder(face_model)
    key = encoding._key(encoder, packed)
    assert encoding.encode_packed(encoder, packed).embedding.shape == (10, 3840)
    monkeypatch.setattr(face_model, "regress", None)  # not called again: the result is read
    assert encoding.encode_packed(encoder, packed).embedding.shape == (10, 3840)
    other = FrozenFaceNet(write(tmp_path / "net.pb", facenet_graph(seed=5)))
    assert other.digest != face_model.facenet.digest
    monkeypatch.setattr(face_model, "facenet", other)
    assert encoding._key(encoder, packed) != key
    monkeypatch.setattr(face_model, "facenet", None)
    assert encoding._key(encoder, packed) != key
    assert digest(face_model.regressor) == face_model.regressor.digest


# ---------------------------------------------------------------- the commands
@pytest.fixture(scope="module")
def untrained(world):
    folder, flags, _ = world
    assert main.main([*flags, "--mode", "test", "--output", str(folder / "untrained")]) == 0
    return json.loads((folder / "untrained" / "metrics.json").read_text())


@pytest.fixture(scope="module")
def trained(world, untrained):
    folder, flags, _ = world
    assert main.main([*flags, "--mode", "train", "--gan", "--set", "critic_steps=1"]) == 0
    return folder / "runs" / "00000-frozen-resnet_gan"


def test_before_training_the_frozen_regressor_is_used(untrained):
    assert "not trained" in untrained["fine_texture"] and untrained["mean"]["coarse_psnr"] > 5


def test_training_goes_straight_to_the_textures(trained):
    stats = [json.loads(line) for line in (trained / "stats.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in stats} == {"render"}
    assert {"identity", "critic", "gradient_penalty"} <= set(stats[0]) and "val_identity" in stats[-1]
    assert "FaceReconModel.pb, frozen" in (trained / "log.txt").read_text()
    assert not (trained / "regressor.npz").exists() and (trained / "texture.weights.h5").exists()


def test_restored_and_tested(world, trained, capsys):
    folder, flags, _ = world
    flags = [*flags, "--gan"]
    assert main.main([*flags, "--mode", "train", "--restore", "--stage", "render", "--epoch", "2",
                      "--set", "critic_steps=1", "--set", "fit=true"]) == 0
    epochs = [json.loads(line).get("epoch") for line in (trained / "stats.jsonl").read_text().splitlines()]
    assert max(epochs) == 1
    # A config without FaceNet or with another regressor does not matter: the run knows its networks.
    assert main.main([*flags, "--mode", "test", "--output", str(folder / "tested"), "--set", "regressor=small",
                      "--set", "facenet_file="]) == 0
    printed = capsys.readouterr().out
    assert "FaceReconModel.pb, frozen" in printed and "texture network: " in printed
    assert json.loads((folder / "tested" / "metrics.json").read_text())["fine_texture"] == "texture network"


@pytest.mark.parametrize("setting, file", [("facenet_file", "FaceNetModel.pb"),
                                           ("regressor_file", "FaceReconModel.pb")])
def test_another_network_than_the_one_trained_with_is_refused(world, trained, setting, file, capsys):
    folder, flags, _ = world
    write_standin_graphs(str(folder / "other"), seed=11)
    other = ["--set", f"{setting}={folder / 'other' / file}"]
    for mode in (["--mode", "test"], ["--mode", "train", "--restore"]):
        assert main.main([*flags, "--gan", *mode, *other]) == 2
        error = capsys.readouterr().err
        assert str(trained) in error and f"another {setting}" in error


@pytest.mark.parametrize("flags, words", [
    (["--mode", "train", "--stage", "rec"], ["--stage rec", "is frozen", "--set regressor=resnet50"]),
    (["--mode", "train", "--set", "facenet_file=nowhere.pb"], ["absent: ", "nowhere.pb"]),
    (["--mode", "test", "--set", "regressor_file=model.npz"], ["broken: ", "model.npz"])])
def test_mistakes_end_with_one_message(world, flags, words, capsys):
    assert main.main([*world[1], *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and all(word in error for word in words)


def test_standins_are_the_same_for_the_same_seed(tmp_path):
    for name in ("a", "b"):
        write_standin_graphs(str(tmp_path / name), seed=3)
    for file in ("FaceReconModel.pb", "FaceNetModel.pb"):
        first, second = (tf.compat.v1.GraphDef.FromString((tmp_path / name / file).read_bytes()) for name in ("a", "b"))
        assert first == second
    assert sum(count for count, _ in standin_graphs.POSE_AND_LIGHT.values()) == 33
