"""Texture network, sampled colours, losses and gradients against one run of the released code."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf

from facegcn import camera, geometry, lighting, losses
from facegcn.config import Config
from facegcn.morphable import MorphableModel
from facegcn.sampling import sample_colors
from facegcn.training.texture_stage import TextureTrainer
from mesh_sampling import MeshHierarchy
from model import FaceModel, build_texture_network, load_released_weights, released_names
from tests import oracle_released as oracle


@pytest.fixture(scope="module")
def case(released_case):
    """Arrays of the reference case by name; ``out/all_loss`` is that of the case's own weights."""
    missing = released_case.get("fold/regularization", 0.0)  # of what the travelling case leaves out
    return {**released_case, "out/all_loss": released_case["out/all_loss"] - missing}


def without_gradient(case):
    """Names of the variables whose gradient the case cannot know: the folded layer of the travelling case."""
    return {"mesh_generator/mesh_decoder/fc/weights"} if "fold/regularization" in case else set()


@pytest.fixture(scope="module")
def morphable(case):
    arrays = {name.removeprefix("model/"): array for name, array in case.items()
              if name.startswith("model/")}
    count = len(arrays["mean_shape"])
    for name in ("id_basis", "exp_basis", "albedo_basis"):
        arrays[name] = arrays[name].reshape(count, 3, -1)
    return MorphableModel(**arrays)


def sampling_of(case):
    """The case's mesh hierarchy."""
    def matrices(name, count):
        parts = [{key: case[f"sampling/{name}{k}/{key}"] for key in ("row", "col", "data", "shape")}
                 for k in range(count)]
        return [sp.csr_matrix((p["data"], (p["row"], p["col"])), shape=p["shape"]) for p in parts]

    return MeshHierarchy([], [], matrices("adjacency", 5), matrices("downsamp_trans", 4),
                         matrices("upsamp_trans", 4), matrices("laplacians", 5))


@pytest.fixture(scope="module")
def network(case):
    network = build_texture_network("resnet", sampling_of(case), case["out/emb"].shape[1])
    load_released_weights(network, {name.removeprefix("w/"): array for name, array in case.items()
                                    if name.startswith("w/")})
    return network


@pytest.fixture(scope="module")
def posed(case, morphable):
    """Projected vertices, posed normals and shading of the two faces."""
    parts = morphable.split(case["out/coeff"])
    vertices = morphable.vertices(parts.id, parts.exp)
    normals = geometry.rotate(geometry.vertex_normals(vertices, morphable.triangles), parts.angles)
    world = geometry.rotate(vertices, parts.angles) + parts.translation[:, None]
    return SimpleNamespace(points=camera.project(world), normals=normals,
                           shading=lighting.shading(normals, parts.gamma))


def reconstructed(case, network, posed):
    """The outputs the losses need, with our network in place of the released one's."""
    known = np.concatenate([case["out/pca_tex"], case["out/proj_color"]], axis=-1)
    fine = network([case["out/emb"], known])
    lit = tf.clip_by_value((fine * 0.5 + 0.5) * posed.shading, 0.0, 1.0)
    return {"coarse_texture": case["out/pca_tex"], "fine_texture": fine,
            "coarse_color": case["out/pca_color"], "fine_color": lit * 2.0 - 1.0,
            "projected_color": case["out/proj_color"], "coarse_render": case["out/pca_render"],
            "fine_render": case["out/gcn_render"]}


def all_losses(case, network, posed, morphable, identity):
    weights = losses.LossWeights(render=case["in/render_lambda"], refine=case["in/refine_lambda"])
    return losses.texture_losses(reconstructed(case, network, posed), case["out/rgba"], morphable, weights,
                                 network=network, identity=identity)


def test_sampled_colours(case, posed):
    facing = tf.cast(posed.normals[..., 2] > 0.0, tf.float32)
    sampled = sample_colors(case["out/rgba"], posed.points, facing, sampling="released")
    np.testing.assert_allclose(sampled, case["out/proj_color"], atol=1e-6)


def test_network_output(case, network, posed):
    outputs = reconstructed(case, network, posed)
    np.testing.assert_allclose(outputs["fine_texture"], case["out/gcn_tex"], atol=2e-5)
    np.testing.assert_allclose(outputs["fine_color"], case["out/gcn_color"], atol=2e-5)


@pytest.mark.parametrize("term, name", [
    ("refine", "refine_loss"), ("project", "proj_loss"), ("pixel", "gcn_loss"), ("coarse_pixel", "pca_loss"),
    ("symmetry", "sym_loss"), ("variance", "var_loss"), ("identity", "perc_loss"), ("total", "all_loss")])
def test_losses(term, name, case, network, posed, morphable):
    terms = all_losses(case, network, posed, morphable, case["out/perc_loss"])
    np.testing.assert_allclose(terms[term], case[f"out/{name}"], rtol=2e-5)


def test_overlay(case):
    if "out/overlay" not in case:
        pytest.skip("the travelling case has no overlay: its renders are rounded")
    seen = (losses.overlay(case["out/gcn_render"], case["out/rgba"]) + 1.0) * 127.5
    np.testing.assert_allclose(seen, case["out/overlay"], atol=1e-3)


def test_gradients(case, network, posed, morphable):
    with tf.GradientTape() as tape:
        total = all_losses(case, network, posed, morphable, identity=None)["total"]
    variables = released_names(network)
    gradients = dict(zip(variables, tape.gradient(total, list(variables.values()))))
    for name in gradients.keys() - without_gradient(case):
        gradient = gradients[name]
        np.testing.assert_allclose(np.linalg.norm(gradient), case[f"gnorm_noid/{name}:0"], rtol=1e-3)
        if f"grad_noid/{name}:0" in case:
            expected = case[f"grad_noid/{name}:0"].reshape(gradient.shape)
            error = np.linalg.norm(gradient - expected) / np.linalg.norm(expected)
            assert error < 2e-3, name


WHOLE = {"vertices": "vert", "coarse_texture": "pca_tex", "coarse_color": "pca_color", "projected_color": "proj_color",
         "fine_texture": "gcn_tex", "fine_color": "gcn_color"}


def test_face_model_as_a_whole(case, network, morphable):
    """From photo, coefficients and embedding alone, everything computed here."""
    model = FaceModel(morphable, network, image_size=224, visibility="normal", sampling="released")
    outputs = model.reconstruct(case["out/rgba"], case["out/coeff"], case["out/emb"])
    for ours, theirs in WHOLE.items():
        np.testing.assert_allclose(outputs[ours], case[f"out/{theirs}"], rtol=1e-4, atol=1e-4, err_msg=ours)
    np.testing.assert_allclose(outputs["landmarks"][:, 17:], case["out/lm"], rtol=1e-4, atol=1e-5)
    for ours, theirs in (("coarse_render", "pca_render"), ("fine_render", "gcn_render")):
        levels = np.abs(outputs[ours] - case[f"out/{theirs}"]).max(axis=-1) * 127.5
        assert (levels <= 2.0).mean() >= 0.999, ours
    weights = losses.LossWeights(render=case["in/render_lambda"], refine=case["in/refine_lambda"])
    terms = losses.texture_losses(outputs, case["out/rgba"], morphable, weights, network=network,
                                  identity=case["out/perc_loss"])
    for ours, theirs in (("total", "all"), ("pixel", "gcn"), ("coarse_pixel", "pca"), ("project", "proj"),
                         ("refine", "refine"), ("variance", "var"), ("symmetry", "sym")):
        np.testing.assert_allclose(terms[ours], case[f"out/{theirs}_loss"], rtol=1e-4, err_msg=ours)


def test_training_code_as_a_whole(case, network, morphable):
    """Photo, coefficients and embedding in; every loss and every gradient of a compiled training step out."""
    config = Config(losses="released", model="resnet", residual=False, delit=False, relight=False, visibility="normal",
                    sampling="released")
    model = FaceModel(morphable, network, image_size=config.img_size, visibility=config.visibility,
                      delit=config.delit, erosion=config.erosion, relight=config.relight, sampling=config.sampling)
    trainer = TextureTrainer(model, config)
    trainer.render_weight.assign(case["in/render_lambda"])
    trainer.refine_weight.assign(case["in/refine_lambda"])
    variables = released_names(network)

    @tf.function
    def step(rgba, coeff, embedding):
        with tf.GradientTape() as tape:
            terms, _ = trainer.generator_terms(rgba, coeff, embedding, training=True)
        return terms, tape.gradient(terms["total"], list(variables.values()))

    terms, gradients = step(*(tf.constant(case[f"out/{name}"]) for name in ("rgba", "coeff", "emb")))
    identity = config.identity_weight * case["in/render_lambda"] * case["out/perc_loss"]
    np.testing.assert_allclose(terms["total"] + identity, case["out/all_loss"], rtol=1e-4)
    for ours, theirs in (("pixel", "gcn"), ("coarse_pixel", "pca"), ("project", "proj"), ("refine", "refine"),
                         ("variance", "var"), ("symmetry", "sym")):
        np.testing.assert_allclose(terms[ours], case[f"out/{theirs}_loss"], rtol=1e-4, err_msg=ours)
    known = variables.keys() - without_gradient(case)
    assert {f"gnorm_noid/{name}:0" for name in known} == {key for key in case if key.startswith("gnorm_noid/")}
    for name, gradient in zip(variables, gradients):
        if name not in known:
            continue
        np.testing.assert_allclose(np.linalg.norm(gradient), case[f"gnorm_noid/{name}:0"], rtol=1e-2, err_msg=name)
        if f"grad_noid/{name}:0" in case:
            expected = case[f"grad_noid/{name}:0"].reshape(gradient.shape)
            assert np.linalg.norm(gradient - expected) < 1e-2 * np.linalg.norm(expected), name


def test_the_oracle_of_the_other_parity_tests(case, morphable):
    """The slow double-precision oracle gives the released code's own numbers too."""
    weights = {name.removeprefix("w/"): array for name, array in case.items() if name.startswith("w/")}
    assert {name: array.shape for name, array in weights.items()} == oracle.texture_variables(
        "resnet", False, int(case["sampling/adjacency4/shape"][0]), case["out/emb"].shape[1])
    lambdas = {"render": float(case["in/render_lambda"]), "refine": float(case["in/refine_lambda"]),
               "symmetry": 0.5, "variance": 0.01}
    outputs, terms, gradients = oracle.released_run(
        morphable, sampling_of(case), weights, case["out/rgba"], case["out/coeff"], case["out/emb"], lambdas,
        identity=0.2 * float(case["out/perc_loss"]))
    for ours, theirs in {**WHOLE, "coarse_render": "pca_render", "fine_render": "gcn_render"}.items():
        np.testing.assert_allclose(outputs[ours], case[f"out/{theirs}"], atol=1e-4, err_msg=ours)
    for ours, theirs in (("total", "all"), ("pixel", "gcn"), ("coarse_pixel", "pca"), ("project", "proj"),
                         ("refine", "refine"), ("variance", "var"), ("symmetry", "sym")):
        np.testing.assert_allclose(terms[ours], case[f"out/{theirs}_loss"], rtol=1e-4, err_msg=ours)
    for name, gradient in gradients.items():
        if name.removesuffix(":0") in without_gradient(case):
            continue
        np.testing.assert_allclose(np.linalg.norm(gradient), case[f"gnorm_noid/{name}"], rtol=1e-2, err_msg=name)
        if f"grad_noid/{name}" in case:
            expected = case[f"grad_noid/{name}"]
            assert np.linalg.norm(gradient - expected) < 1e-2 * np.linalg.norm(expected), name
