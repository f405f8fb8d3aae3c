"""The released path against its slow oracle: networks, meshes, masks and loss weights of many kinds."""

import itertools
from dataclasses import fields
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import scipy.sparse as sp
import tensorflow as tf
from scipy.spatial import Delaunay

from facegcn import losses
from facegcn.config import Config
from facegcn.morphable import MorphableModel
from facegcn.sampling import eroded_mask
from facegcn.training.optimizer import adam
from facegcn.training.texture_stage import TextureTrainer
from mesh_sampling import generate_transform_matrices
from model import FaceModel, build_critic, build_texture_network, load_released_weights, released_names
from tests import oracle_released as oracle
from tests.faces import half_ellipsoid

EMBEDDING, NZ = 24, 20
LEARNING_RATE = 1000.0  # of plain descent: weights move by so many gradients, well above rounding
SAFE_MARGIN = 5e-5  # pixels; nearer to a boundary single and double precision may choose otherwise


# ---------------------------------------------------------------- made cases
def scattered_face(rng, count=900):
    """A face-like bulge over random points: no grid, up to a dozen triangles at a vertex."""
    points = rng.uniform(-1, 1, (2 * count, 2))
    points = points[np.linalg.norm(points, axis=1) < 1][:count] * [0.8, 0.95]
    triangles = Delaunay(points).simplices.copy()
    along, across = (points[triangles[:, k]] - points[triangles[:, 0]] for k in (1, 2))
    clockwise = along[:, 0] * across[:, 1] < along[:, 1] * across[:, 0]
    triangles[clockwise] = triangles[clockwise][:, ::-1]
    count = len(points)
    height = 0.7 * np.exp(-(points ** 2).sum(axis=1)) + 0.2 * np.exp(-((points / 0.15) ** 2).sum(axis=1))

    def basis(components, size):
        waves = np.sin(points @ rng.normal(size=(2, components)) * 2 + rng.uniform(0, 6, components))
        return waves[:, None, :] * rng.normal(size=(1, 3, components)) * size

    return MorphableModel(
        mean_shape=np.concatenate([points, height[:, None]], axis=1) + [0.1, -0.2, 0.4],
        id_basis=basis(5, 0.03), exp_basis=basis(3, 0.02), mean_albedo=rng.uniform(60, 230, (count, 3)),
        albedo_basis=basis(4, 40.0), triangles=triangles, landmarks=rng.integers(0, count, 68),
        skin_index=rng.integers(0, count, 300), symmetry_pairs=rng.integers(0, count, (200, 2)))


def random_sampling(hierarchy, rng):
    """The same levels with up-sampling weights like those of a least-squares fit: rows need not sum to 1."""
    ups = []
    for matrix in hierarchy.upsamples:
        rows, columns = np.repeat(np.arange(matrix.shape[0]), 3), rng.integers(0, matrix.shape[1], 3 * matrix.shape[0])
        ups.append(sp.coo_matrix((rng.uniform(-0.2, 0.8, len(rows)).astype(np.float32), (rows, columns)),
                                 shape=matrix.shape))
    return hierarchy._replace(upsamples=ups)


def photos(rng, count, size, soft):
    """Noisy RGB in [-1, 1] and an alpha with holes; ``soft`` alpha takes all values between 0 and 1."""
    y, x = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    rgba = rng.uniform(-1, 1, (count, size, size, 4))
    for picture in rgba:
        reach = 1.3 - (x / 0.95) ** 2 - y ** 2
        picture[..., 3] = np.clip(reach * 3, 0, 1) if soft else reach > 0
        for row, column in rng.integers(0, size, (4, 2)):
            picture[row:row + 2, column:column + 3, 3] = rng.uniform() if soft else 0.0
        if soft:
            picture[..., 3] *= rng.uniform(0.7, 1.0, (size, size))
    return rgba.astype(np.float32)


def coefficients(model, rng, count, size):
    """Random poses, light and shapes in which no vertex lies on the edge of a decision."""
    widths = [basis.shape[-1] for basis in (model.id_basis, model.exp_basis, model.albedo_basis)]
    for _ in itertools.repeat(None, 200):
        parts = [rng.normal(size=(count, width)) for width in widths]
        parts += [rng.normal(size=(count, 3)) * 0.25, rng.normal(size=(count, 27)) * 0.15,
                  rng.normal(size=(count, 3)) * 0.1]
        coeff = np.concatenate(parts, axis=1).astype(np.float32)
        found = oracle.geometry(model, coeff)
        if oracle.decisions_margin(found["projected"], found["normals"], size) > SAFE_MARGIN:
            return coeff
    raise AssertionError("no pose without a vertex on the edge of a decision")


DEFAULTS = dict(render=0.6, refine=0.4, symmetry=0.5, variance=0.01, adversarial=1e-3)
CASES = {
    "resnet": dict(kind="resnet"),
    "resnet wide, scattered mesh, one photo": dict(kind="resnet", wide=True, scattered=True, count=1),
    "resnet, first epoch": dict(kind="resnet", scattered=True, render=0.0, refine=1.0),
    "resnet, odd size and sampling": dict(kind="resnet", size=65, odd_sampling=True, soft=True, variance=0.7),
    "resnet, critic, compiled": dict(kind="resnet", critic=True, adversarial=0.3, soft=True, compiled=True),
    "normal": dict(kind="normal", count=3, soft=True),
    "normal, scattered mesh": dict(kind="normal", scattered=True, render=1.0, refine=0.2, symmetry=2.0),
    "normal wide": dict(kind="normal", wide=True, count=1, variance=3.0, symmetry=0.0),
    "normal wide, odd sampling, critic": dict(kind="normal", wide=True, odd_sampling=True, critic=True, soft=True),
}


@pytest.fixture(scope="module")
def meshes():
    """(model, hierarchy) of the grid and of the scattered face."""
    models = [half_ellipsoid(29, 31), scattered_face(np.random.default_rng(5))]
    return [(model, generate_transform_matrices(model.mean_shape, model.triangles)) for model in models]


@pytest.fixture(scope="module", params=CASES)
def run(request, meshes):
    """One case: what the oracle says of it, and our trainer with the same weights and photos."""
    options = {"wide": False, "count": 2, "size": 64, "scattered": False, "soft": False, "odd_sampling": False,
               "critic": False, "compiled": False, **DEFAULTS, **CASES[request.param]}
    rng = np.random.default_rng(sorted(CASES).index(request.param))
    model, hierarchy = meshes[options["scattered"]]
    if options["odd_sampling"]:
        hierarchy = random_sampling(hierarchy, rng)
    weights = oracle.random_weights(oracle.texture_variables(
        options["kind"], options["wide"], hierarchy.sizes[4], EMBEDDING, NZ), rng)
    if options["critic"]:
        weights |= oracle.random_weights(oracle.critic_variables(options["size"]), rng, gain=1.5)
    rgba = photos(rng, options["count"], options["size"], options["soft"])
    coeff = coefficients(model, rng, options["count"], options["size"])
    embedding = rng.normal(size=(options["count"], EMBEDDING)).astype(np.float32)
    critic = oracle.Critic({n: w for n, w in weights.items() if "image_disc" in n}) if options["critic"] else None
    outputs, terms, gradients = oracle.released_run(model, hierarchy, weights, rgba, coeff, embedding, options,
                                                    critic=critic)
    trainer, batch = released_trainer(model, hierarchy, weights, options), (rgba, coeff, embedding)
    our_terms, our_outputs = trainer.generator_terms(*batch)
    return SimpleNamespace(trainer=trainer, compiled=options["compiled"], weights=weights, batch=batch,
                           our_terms=our_terms, our_outputs=our_outputs,
                           outputs=outputs, terms=terms, gradients=gradients)


def released_trainer(model, hierarchy, weights, options):
    """The trainer of a released config, as the training stage makes it, at the case's loss weights."""
    config = Config(losses="released", model=options["kind"], wide=options["wide"], nz=NZ, residual=False, delit=False,
                    relight=False, visibility="normal", sampling="released", img_size=options["size"], critic_steps=1,
                    symmetry_weight=options["symmetry"], variance_weight=options["variance"],
                    adv_lambda=options["adversarial"])
    network = build_texture_network(config.model, hierarchy, EMBEDDING, config.wide, config.nz, config.residual)
    load_released_weights(network, weights)
    critic = None
    if options["critic"]:
        critic = build_critic(config.img_size)
        load_released_weights(critic, weights)
    face_model = FaceModel(model, network, image_size=config.img_size, visibility=config.visibility,
                           delit=config.delit, erosion=config.erosion, relight=config.relight, sampling=config.sampling)
    trainer = TextureTrainer(face_model, config, critic)
    trainer.render_weight.assign(options["render"])
    trainer.refine_weight.assign(options["refine"])
    return trainer


# ---------------------------------------------------------------- ours against the oracle
def relative(ours, expected):
    """Length of the difference over the length of what is expected."""
    return np.linalg.norm(np.asarray(ours, np.float64).ravel() - np.ravel(expected)) / np.linalg.norm(expected)


def test_outputs(run):
    outputs = run.our_outputs
    for name in ("vertices", "world", "normals", "coarse_texture", "shading", "projected", "projected_color",
                 "skin_mask", "fine_texture", "coarse_color", "fine_color"):
        np.testing.assert_allclose(outputs[name], run.outputs[name], rtol=1e-4, atol=1e-4, err_msg=name)
    for name in ("coarse_render", "fine_render"):
        wrong = np.abs(outputs[name] - run.outputs[name]).max(axis=-1) > 1e-3
        assert wrong.mean() <= 1e-3, name


def test_losses(run):
    for name in set(run.terms) - {"adversarial", "total"}:
        np.testing.assert_allclose(run.our_terms[name], run.terms[name], rtol=1e-4, err_msg=name)
    if run.trainer.critic is None:
        np.testing.assert_allclose(run.our_terms["total"], run.terms["total"], rtol=1e-4)


class RestingOptimizer:
    """Applies nothing, so that the critic of a step is the one that was loaded."""

    learning_rate = tf.Variable(0.0)

    def apply_gradients(self, pairs):
        assert all(gradient is not None for gradient, _ in pairs)


def test_one_training_step_moves_every_weight_along_its_gradient(run):
    """The step that training runs, with plain descent in Adam's place and a critic that rests."""
    trainer = run.trainer
    trainer.compile(optimizer=keras.optimizers.SGD(LEARNING_RATE))
    trainer.critic_optimizer = RestingOptimizer()
    step = tf.function(trainer.train_step) if run.compiled else trainer.train_step
    found = step(tuple(tf.constant(part) for part in run.batch))
    np.testing.assert_allclose(found["total"], run.terms["total"], rtol=1e-4)
    after = {f"{name}:0": variable.numpy() for name, variable in released_names(trainer.network).items()}
    assert set(after) == set(run.gradients)
    for name, expected in run.gradients.items():
        gradient = (run.weights[name].reshape(after[name].shape) - after[name]) / LEARNING_RATE
        assert np.linalg.norm(expected) > 0, name
        np.testing.assert_allclose(np.linalg.norm(gradient), np.linalg.norm(expected), rtol=1e-3, err_msg=name)
        assert relative(gradient, expected) < 1e-3, name


@pytest.mark.parametrize("size, count", [(64, 3), (70, 2)])
def test_critic(size, count, rng):
    """Scores, WGAN-GP terms and every gradient; a size whose max-pools are padded too."""
    weights = oracle.random_weights(oracle.critic_variables(size), rng, gain=1.5)
    critic = build_critic(size)
    load_released_weights(critic, weights)
    rgba, other = photos(rng, count, size, soft=True), photos(rng, count, size, soft=True)
    render = np.concatenate([other[..., :3], (other[..., 3:] > 0.5)], axis=-1).astype(np.float32)
    np.testing.assert_allclose(critic(rgba[..., :3])[:, 0], oracle.Critic(weights, training=False)(rgba[..., :3]),
                               rtol=1e-4, atol=1e-4)
    tf.random.set_seed(7)
    share = tf.random.uniform((count, 1, 1, 1)).numpy()
    tf.random.set_seed(7)  # the same place between photo and overlay is drawn again
    with tf.GradientTape() as tape:
        terms = losses.critic_losses(critic, render, rgba)
    expected, expected_gradients = oracle.Critic(weights).losses(rgba[..., :3], oracle.overlay(render, rgba), share)
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
    variables = {f"{n}:0": v for n, v in released_names(critic).items() if v.trainable}
    gradients = dict(zip(variables, tape.gradient(terms["critic"], list(variables.values()))))
    assert set(gradients) == set(expected_gradients)
    largest = max(np.linalg.norm(g) for g in expected_gradients.values())
    for name, value in expected_gradients.items():
        if np.linalg.norm(value) < 1e-9 * largest:  # a bias before batch norm: nothing depends on it
            assert np.linalg.norm(gradients[name]) < 1e-4 * largest, name
        else:
            assert relative(gradients[name], value) < 1e-3, name


def test_critic_and_optimiser_step_as_in_the_released_code(meshes, rng):
    """Adam by its formula (epsilon 1e-8, clipped norm), on 1e-3 times the critic's loss, at the generator's rate."""
    model, hierarchy = meshes[0]
    options = {**DEFAULTS, "kind": "normal", "wide": False, "size": 64, "critic": True}
    weights = oracle.random_weights(oracle.texture_variables("normal", False, hierarchy.sizes[4], EMBEDDING, NZ), rng)
    weights |= oracle.random_weights(oracle.critic_variables(64), rng, gain=1.5)
    trainer = released_trainer(model, hierarchy, weights, options)
    trainer.compile(optimizer=adam(2e-3, 5.0))
    rgba, coeff = photos(rng, 2, 64, True), coefficients(model, rng, 2, 64)
    embedding = rng.normal(size=(2, EMBEDDING)).astype(np.float32)
    _, outputs = trainer.generator_terms(rgba, coeff, embedding)
    # The places between photo and overlay that the first critic step draws.
    share = tf.random.stateless_uniform((2, 1, 1, 1), trainer._random_seed(1)).numpy()
    trainer.train_step((rgba, coeff, embedding))
    fake = oracle.overlay(outputs["fine_render"].numpy(), rgba)
    _, gradients = oracle.Critic({n: w for n, w in weights.items() if "disc" in n}).losses(rgba[..., :3], fake, share)
    for name, variable in released_names(trainer.critic).items():
        gradient = 1e-3 * gradients.get(f"{name}:0", np.zeros(1))
        sure = np.abs(gradient) > 1e-3 * np.abs(gradient).max()  # the first step is all but the sign
        if "moving" in name or np.linalg.norm(gradient) < 1e-9:
            continue
        step = 2e-3 * gradient * np.sqrt(1e-3) / (np.sqrt(1e-3) * np.abs(gradient) + 1e-8)
        moved = variable.numpy() - weights[f"{name}:0"]
        np.testing.assert_allclose(moved[sure], -step[sure], rtol=2e-2, atol=1e-7, err_msg=name)


def test_adam_clips_and_divides_as_tensorflow_1_did():
    """Three steps on made gradients against the formula: small ones feel epsilon, a large one is clipped to 5."""
    start = np.float32([0.3, -0.2])
    for scale in (1e-8, 1e-6, 1.0, 40.0):
        weights, first, second = start.astype(float), np.zeros(2), np.zeros(2)
        variable, optimizer = tf.Variable(start), adam(0.01, 5.0)
        for t, direction in enumerate(([0.6, 0.8], [0.8, 0.6], [0.0, -1.0]), 1):
            gradient = scale * np.array(direction)
            optimizer.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
            gradient *= min(1.0, 5.0 / scale)
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient ** 2
            rate = 0.01 * np.sqrt(1 - 0.999 ** t) / (1 - 0.9 ** t)
            weights -= rate * first / (np.sqrt(second) + 1e-8)
        np.testing.assert_allclose(variable - start, weights - start, rtol=1e-4, err_msg=str(scale))


@pytest.mark.parametrize("size", [12, 31, 64])
def test_mask_morphology(size, rng):
    """Alpha of any value, borders of the picture included."""
    for alpha in (rng.uniform(0, 1, (2, size, size)), rng.uniform(0, 1, (2, size, size)) > 0.02,
                  np.ones((1, size, size)), np.zeros((1, size, size))):
        np.testing.assert_allclose(eroded_mask(np.float32(alpha)[..., None])[..., 0], oracle.eroded_mask(alpha),
                                   atol=1e-6)


def test_vertices_in_no_triangle_spoil_nothing(meshes, rng):
    """The released code divides by zero there; we give no normal, no sample and finite gradients."""
    model, _ = meshes[1]
    kept = (model.triangles != 400).all(axis=1) & (model.triangles != 17).all(axis=1)
    model = MorphableModel(**{**vars_of(model), "triangles": model.triangles[kept]})
    hierarchy = generate_transform_matrices(model.mean_shape, model.triangles)
    options = dict(kind="normal", wide=False, size=64, critic=False, **DEFAULTS)
    weights = oracle.random_weights(oracle.texture_variables("normal", False, hierarchy.sizes[4], EMBEDDING, NZ), rng)
    trainer = released_trainer(model, hierarchy, weights, options)
    coeff = rng.normal(size=(1, model.coefficient_count)).astype(np.float32) * 0.2
    with tf.GradientTape() as tape:
        terms, outputs = trainer.generator_terms(photos(rng, 1, 64, False), coeff, np.ones((1, EMBEDDING), np.float32))
    assert not outputs["normals"].numpy()[0, [17, 400]].any() and not outputs["projected_color"].numpy()[0, 17].any()
    assert all(np.isfinite(value) for value in terms.values())
    for gradient in tape.gradient(terms["total"], trainer.network.trainable_variables):
        assert np.isfinite(gradient).all()
    identity_rows = hierarchy.laplacians[0].toarray()[[17, 400]]
    np.testing.assert_array_equal(identity_rows, np.eye(model.vertex_count)[[17, 400]])


def vars_of(model):
    """The constructor's arguments of a model."""
    return {field.name: getattr(model, field.name) for field in fields(model)}


@pytest.mark.parametrize("kind, wide", [("resnet", False), ("resnet", True), ("normal", False), ("normal", True)])
def test_names_and_shapes_of_the_weights(kind, wide, meshes):
    """Every variable has its TF1 name, and that of nothing else; shapes are TF1's but for biases' ones."""
    hierarchy = meshes[0][1]
    expected = oracle.texture_variables(kind, wide, hierarchy.sizes[4], EMBEDDING, NZ)
    names = released_names(build_texture_network(kind, hierarchy, EMBEDDING, wide, NZ))
    assert {f"{name}:0" for name in names} == set(expected)
    for name, variable in names.items():
        assert tuple(variable.shape) == expected[f"{name}:0"][2 * (len(expected[f"{name}:0"]) == 3):], name


def test_names_of_the_critic():
    names = released_names(build_critic(224))
    assert {f"{name}:0": tuple(v.shape) for name, v in names.items()} == oracle.critic_variables(224)
