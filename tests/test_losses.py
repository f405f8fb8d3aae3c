"""Loss terms, schedule, critic losses: known values, totals, gradients, bad input."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from facegcn import losses
from facegcn.losses import LossWeights, schedule, texture_losses
from facegcn.report import overlay
from model import build_critic

SIZE = 32


@pytest.fixture
def scene(rng):
    """Outputs of a reconstruction, photos, and the morphable model's index arrays."""
    def uniform(*shape):
        return rng.uniform(-1, 1, shape).astype(np.float32)

    rgba = np.concatenate([uniform(2, SIZE, SIZE, 3), np.ones((2, SIZE, SIZE, 1), np.float32)], axis=-1)
    rgba[:, :4, :, 3] = 0.0
    outputs = {name: uniform(2, 9, 3) for name in ("coarse_texture", "fine_texture", "coarse_color",
                                                   "fine_color")}
    visible = rng.integers(0, 2, (2, 9, 1)).astype(np.float32)
    outputs["projected_color"] = np.concatenate([uniform(2, 9, 3) * visible, visible], axis=-1)
    coverage = np.zeros((2, SIZE, SIZE, 1), np.float32)
    coverage[:, 8:24, 6:26] = 1.0
    for name in ("coarse_render", "fine_render"):
        colors = uniform(2, SIZE, SIZE, 3)
        outputs[name] = np.concatenate([np.where(coverage > 0, colors, -1.0), coverage], axis=-1)
    morphable = SimpleNamespace(skin_index=np.array([0, 2, 3, 7]), symmetry_pairs=np.array([[0, 1], [2, 5]]))
    return SimpleNamespace(outputs=outputs, rgba=rgba, morphable=morphable)


def test_schedule():
    np.testing.assert_allclose([schedule(epoch) for epoch in (0, 1, 3, 4, 5, 40)],
                               [(0, 1), (0.2, 0.8), (0.6, 0.4), (0.8, 0.2), (1, 0.2), (1, 0.2)])
    assert schedule(0, 1.0) == (1.0, 0.2)


def test_schedule_of_the_paper():
    np.testing.assert_allclose([schedule(epoch, kind="paper") for epoch in (0, 1, 3, 5, 40)],
                               [(0, 1), (0.2, 0.8), (0.6, 0.4), (1, 0), (1, 0)])
    with pytest.raises(ValueError, match="released, paper"):
        schedule(0, kind="cosine")


def test_total_of_the_paper_s_schedule(scene):
    """L = s1 (pixel + 0.2 identity) + s4 (T' against T + lit T' against the samples), and the dense layers' L2."""
    weights = LossWeights(refine=0.7, render=0.3, losses="paper", schedule="paper")
    network = SimpleNamespace(losses=[tf.constant(0.25)])
    terms = texture_losses(scene.outputs, scene.rgba, scene.morphable, weights, network=network, identity=0.5)
    t = {key: float(value) for key, value in terms.items()}
    np.testing.assert_allclose(t["total"], 0.3 * (t["pixel"] + 0.2 * 0.5) + 0.7 * (t["refine"] + t["project"]) + 0.25,
                               rtol=1e-5)
    with pytest.raises(ValueError, match="only the set 'paper' trains"):
        texture_losses(scene.outputs, scene.rgba, scene.morphable, weights._replace(losses="released"))


def test_soft_masks_do_not_darken_what_the_fine_face_is_held_against():
    """Half trusted, a colour is the photo's own; the released code multiplies by the mask twice."""
    color, visible = 0.6, 0.5
    projected = tf.constant([[[color * visible] * 3 + [visible]]])
    same = tf.fill((1, 1, 3), color)
    np.testing.assert_allclose(losses.project_loss(same, same, projected), 0.0, atol=1e-7)
    released = losses.project_loss(same, same, projected, masked_twice=True)
    np.testing.assert_allclose(released, abs(color * visible - color * visible ** 2), rtol=1e-5)

def test_refine_and_variance(scene):
    fine, coarse = scene.outputs["fine_texture"], scene.outputs["coarse_texture"]
    np.testing.assert_allclose(losses.refine_loss(fine, coarse), np.abs(fine - coarse).mean(), rtol=1e-5)
    squared = losses.refine_loss(fine, coarse, squared=True)
    np.testing.assert_allclose(squared, ((fine - coarse) ** 2).mean(), rtol=1e-5)
    np.testing.assert_allclose(losses.variance_loss(fine, scene.morphable.skin_index),
                               fine[:, [0, 2, 3, 7]].var(axis=1).mean(), rtol=1e-5)


def test_project_counts_every_vertex_once(scene):
    fine, coarse = scene.outputs["fine_color"], scene.outputs["coarse_color"]
    projected = scene.outputs["projected_color"]
    total = 0.0
    for b, n, c in np.ndindex(fine.shape):
        seen = projected[b, n, 3] == 1
        total += abs(fine[b, n, c] - (projected if seen else coarse)[b, n, c]) * (1.0 if seen else 0.3)
    np.testing.assert_allclose(losses.project_loss(fine, coarse, projected), total / fine.size, rtol=1e-5)


def test_symmetry_is_smooth_where_both_sides_agree():
    pairs = np.array([[0, 1], [2, 3]])
    texture = tf.constant([[[0.5, 0.1, 0.2], [0.5, 0.1, 0.2], [0, 0, 0], [3, 4, 0]]])
    with tf.GradientTape() as tape:
        tape.watch(texture)
        loss = losses.symmetry_loss(texture, pairs)
    np.testing.assert_allclose(loss, 2.5, rtol=1e-6)
    gradient = tape.gradient(loss, texture)[0]
    np.testing.assert_allclose(gradient, [[0, 0, 0], [0, 0, 0], [-0.3, -0.4, 0], [0.3, 0.4, 0]], atol=1e-6)


def test_pixel_loss_of_a_constant_difference():
    render = tf.constant([0.2, 0.1, -0.1, 1.0]) * tf.ones((2, 8, 8, 1))
    rgba = tf.constant([0.5, -0.3, -0.1, 1.0]) * tf.ones((2, 8, 8, 1))
    mask = np.zeros((2, 8, 8, 1), np.float32)
    assert float(losses.pixel_loss(render, rgba, mask)) == 0.0  # an empty mask
    mask[0, 2:5] = 1.0
    np.testing.assert_allclose(losses.pixel_loss(render, rgba, mask), 0.7, rtol=1e-5)
    np.testing.assert_allclose(losses.pixel_loss(render, rgba, mask, euclidean=True), 0.5, rtol=1e-5)


def test_identity():
    a, b = tf.constant([[1.0, 0.0], [3.0, 0.0]]), tf.constant([[2.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(losses.identity_loss(a, b), 0.5, rtol=1e-6)


def test_totals(scene):
    weights = LossWeights(refine=0.7, render=0.4, identity=0.2, symmetry=0.5, variance=0.01, pixel=0.3)
    network = SimpleNamespace(losses=[tf.constant(0.25), tf.constant(0.5)])
    found = {}
    for name in losses.LOSS_SETS:
        terms = texture_losses(scene.outputs, scene.rgba, scene.morphable, weights._replace(losses=name),
                               network=network, identity=0.125)
        assert set(terms) == {"refine", "project", "pixel", "coarse_pixel", "identity", "symmetry",
                              "variance", "regularization", "total"}
        t = found[name] = {key: float(value) for key, value in terms.items()}
        pixel = 0.3 * t["pixel"] if name == "paper" else 0.0
        np.testing.assert_allclose(t["total"], 0.7 * t["refine"] + 0.75 + 0.4 * (
            t["project"] + 0.2 * 0.125 + 0.5 * t["symmetry"] + 0.01 * t["variance"] + pixel), rtol=1e-5)
    assert found["paper"]["pixel"] < found["released"]["pixel"]


def test_terms_that_are_not_asked_for_are_absent(scene):
    terms = texture_losses(scene.outputs, scene.rgba, scene.morphable, LossWeights())
    assert "identity" not in terms and "regularization" not in terms
    np.testing.assert_allclose(terms["total"], terms["refine"])


def test_pixel_loss_looks_at_covered_eroded_skin_only(scene):
    terms = texture_losses(scene.outputs, scene.rgba, scene.morphable, LossWeights())
    mask = scene.outputs["fine_render"][..., 3].copy()
    mask[:, :12] = 0.0  # alpha ends at row 4, dilated to row 2, eroded twice by 4: row 10 is out
    changed = {**scene.outputs, "fine_render": scene.outputs["fine_render"].copy()}
    changed["fine_render"][:, :10, :, :3] = 0.5
    again = texture_losses(changed, scene.rgba, scene.morphable, LossWeights())
    np.testing.assert_allclose(again["pixel"], terms["pixel"])
    changed["fine_render"][:, 13, 10, :3] += 0.5
    assert texture_losses(changed, scene.rgba, scene.morphable, LossWeights())["pixel"] != terms["pixel"]
    changed["fine_render"][:, 13, 10, 3] = 0.0  # not covered
    bare = texture_losses(changed, scene.rgba, scene.morphable, LossWeights())["pixel"]
    changed["fine_render"][:, 13, 10, :3] = 9.0
    np.testing.assert_array_equal(texture_losses(changed, scene.rgba, scene.morphable, LossWeights())["pixel"], bare)
    changed["skin_mask"] = np.zeros((2, SIZE, SIZE, 1), np.float32)
    assert float(texture_losses(changed, scene.rgba, scene.morphable, LossWeights())["pixel"]) == 0.0


def test_overlay_is_the_render_inside_coverage_and_skin(scene):
    render, rgba = scene.outputs["fine_render"], scene.rgba
    inside = render[..., 3:] * rgba[..., 3:] > 0
    wanted = np.where(inside, render[..., :3], rgba[..., :3])
    np.testing.assert_allclose(overlay(render, rgba), wanted, atol=1e-6)
    np.testing.assert_allclose(overlay(tf.constant(render), tf.constant(rgba)), wanted, atol=1e-6)


def test_unknown_loss_set_is_named(scene):
    with pytest.raises(ValueError, match="released, paper, got 'l3'"):
        texture_losses(scene.outputs, scene.rgba, scene.morphable, LossWeights(losses="l3"))


class LinearCritic:
    """score = slope * sum of the pixels, so the gradient's norm is known."""

    def __init__(self, slope):
        self.slope = slope

    def __call__(self, images, training):
        assert training
        return self.slope * tf.reduce_sum(images, axis=[1, 2, 3])[:, None]


def test_critic_losses_of_a_linear_critic(scene):
    slope = 0.01
    terms = losses.critic_losses(LinearCritic(slope), scene.outputs["fine_render"], scene.rgba)
    fake = losses.overlay(scene.outputs["fine_render"], scene.rgba)
    distance = slope * (scene.rgba[..., :3].sum(axis=(1, 2, 3)) - fake.sum(axis=(1, 2, 3))).mean()
    penalty = 10.0 * (slope * np.sqrt(SIZE * SIZE * 3) - 1.0) ** 2
    np.testing.assert_allclose(terms["wasserstein"], distance, rtol=1e-3)
    np.testing.assert_allclose(terms["gradient_penalty"], penalty, rtol=1e-4)
    np.testing.assert_allclose(terms["critic"], penalty - distance, rtol=1e-3)
    score = losses.generator_adversarial_loss(LinearCritic(slope), scene.outputs["fine_render"], scene.rgba)
    np.testing.assert_allclose(score, -slope * fake.sum(axis=(1, 2, 3)).mean(), rtol=1e-3)


def test_gradient_penalty_of_a_quadratic_critic(rng):
    """Where score = |image|^2 / 2, the gradient at a point between two images is that point."""
    real, fake = rng.normal(size=(2, 3, 4, 4, 3)).astype(np.float32)
    share = np.float32([0.1, 0.5, 0.8])[:, None, None, None]

    def critic(images, training):
        return tf.reduce_sum(tf.square(images), axis=[1, 2, 3])[:, None] / 2.0

    lengths = np.linalg.norm((share * real + (1 - share) * fake).reshape(3, -1), axis=1)
    found = losses.gradient_penalty(critic, *map(tf.constant, (real, fake, share)))
    np.testing.assert_allclose(found, 10.0 * np.mean((lengths - 1.0) ** 2), rtol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_critic_can_be_trained_inside_tf_function(norm, scene):
    critic = build_critic(SIZE, norm)

    @tf.function
    def step(fake_render, rgba):
        with tf.GradientTape() as tape:
            terms = losses.critic_losses(critic, fake_render, rgba)
        return tape.gradient(terms["critic"], critic.trainable_variables)

    gradients = step(scene.outputs["fine_render"], scene.rgba)
    assert all(np.isfinite(g).all() for g in gradients)
    assert sum(np.abs(g).max() > 0 for g in gradients) >= len(gradients) // 2


def test_truth_loss_counts_known_rows_only(rng):
    texture = rng.uniform(-1, 1, (2, 5, 3)).astype(np.float32)
    truth = rng.uniform(-1, 1, (2, 5, 3)).astype(np.float16)
    truth[1] = np.nan
    wanted = np.abs(texture[0] - truth[0]).mean()
    np.testing.assert_allclose(losses.truth_loss(texture, truth), wanted, rtol=1e-4)
    assert losses.truth_loss(texture, np.full_like(truth, np.nan)) == 0.0
    with tf.GradientTape() as tape:
        variable = tf.Variable(texture)
        value = losses.truth_loss(variable, truth)
    gradient = tape.gradient(value, variable).numpy()
    assert np.isfinite(gradient).all() and not gradient[1].any() and gradient[0].any()
