"""Colours sampled from the photo: mask morphology, nearest pixels, de-lighting."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from facegcn import camera
from facegcn.rasterizer import interpolate, rasterize
from facegcn.sampling import delit_colors, eroded_mask, sample_colors


def additive_morphology(alpha):
    """The released code's form: 0/1 elements are added before the extremum is taken."""
    small, large = (cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (w, w)).astype(np.float32)[..., None]
                    for w in (5, 9))
    options = dict(strides=[1, 1, 1, 1], padding="SAME", data_format="NHWC", dilations=[1, 1, 1, 1])
    mask = tf.nn.dilation2d(alpha, small, **options) - 1.0
    for _ in range(2):
        mask = tf.nn.erosion2d(mask, large, **options) + 1.0
    return mask


@pytest.mark.parametrize("kind", ["grey", "blobs", "full", "empty"])
def test_eroded_mask_equals_the_released_form(kind, rng):
    noise = rng.uniform(size=(3, 60, 47, 1)).astype(np.float32)
    blobs = np.stack([cv2.GaussianBlur(image, (0, 0), 5) > 0.5 for image in noise])[..., None]
    alpha = {"grey": noise ** 0.05, "blobs": blobs.astype(np.float32), "full": np.ones_like(noise),
             "empty": np.zeros_like(noise)}[kind]
    np.testing.assert_allclose(eroded_mask(alpha), additive_morphology(alpha), atol=1e-6)


def test_released_samples_are_the_rounded_pixels(rng):
    rgba = rng.uniform(-1, 1, (1, 20, 30, 4)).astype(np.float32)
    rgba[..., 3] = 1.0
    pixels = np.array([[23.0, 7.0], [23.4, 7.4], [0.0, 19.0], [-5.0, 40.0], [12.6, 2.0]])  # column, row
    facing = np.array([[1.0, 1.0, 1.0, 1.0, 0.0]])
    sampled = sample_colors(rgba, ((pixels[None] - (15, 10)) / (15, 10)).astype(np.float32), facing,
                            sampling="released").numpy()[0]
    for vertex, (column, row) in enumerate([(23, 7), (23, 7), (0, 19), (0, 19)]):
        np.testing.assert_array_equal(sampled[vertex], rgba[0, row, column])
    np.testing.assert_array_equal(sampled[4], 0.0)


def test_border_of_the_mask_is_not_sampled():
    rgba = np.ones((1, 64, 64, 4), np.float32)
    rgba[:, :, :32, 3] = 0.0
    points = np.array([[[-0.5, 0.0], [0.05, 0.0], [0.5, 0.0]]], np.float32)
    np.testing.assert_array_equal(sample_colors(rgba, points, np.ones((1, 3)))[0, :, 3], [0, 0, 1])


def test_sample_needs_alpha():
    with pytest.raises(ValueError, match=r"\(B, H, W, 4\)"):
        sample_colors(np.ones((1, 8, 8, 3)), np.zeros((1, 2, 2)), np.ones((1, 2)))


def test_delit_colours_undo_the_shading(rng):
    albedo = rng.uniform(0.1, 0.6, (2, 30, 3)).astype(np.float32)
    shading = rng.uniform(0.3, 1.5, (2, 30, 3)).astype(np.float32)
    visible = np.float32(rng.integers(0, 2, (2, 30, 1))) * np.float32([[[1.0]], [[0.5]]])
    seen = np.concatenate([(albedo * shading * 2 - 1) * visible, visible], axis=-1)
    np.testing.assert_allclose(delit_colors(seen, shading), (albedo * 2 - 1) * visible, atol=1e-5)


def test_delit_colours_stay_in_range():
    dark = delit_colors(np.float32([[[1, 1, 1, 1], [-1, -1, -1, 1]]]), np.float32([[[0, -1, 1e-9]] * 2]))
    np.testing.assert_allclose(dark, [[[1, 1, 1], [-1, -1, -1]]], atol=1e-6)
    dim = delit_colors(np.float32([[[-0.96, -0.96, -0.96, 1]]]), np.float32([[[0.05, 0.1, 0.2]]]))
    np.testing.assert_allclose(dim, [[[-0.6, -0.6, -0.8]]], atol=1e-6)  # light below a tenth counts as a tenth


def test_camera_rasterizer_and_sampler_agree_where_a_pixel_is(rng):
    """Each vertex's own place is drawn as its colour and sampled back: one rule for pixels in all three."""
    size, side = 96, 160
    axis = np.linspace(-0.8, 0.8, side)
    world = np.stack([*np.meshgrid(axis, -axis), 0.1 * np.outer(np.cos(3 * axis), np.sin(2 * axis))], axis=-1)
    world = (world.reshape(1, -1, 3) + rng.normal(size=(1, side * side, 3)) * 5e-4).astype(np.float32)
    index = np.arange(side * side).reshape(side, side)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]))
    triangles = np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)]).astype(np.int32)
    points = camera.project(world)
    pixels = camera.to_pixels(points, size)
    raster = rasterize(camera.clip_coordinates(world, size, size), triangles, size, size)
    places = tf.concat([pixels, tf.zeros_like(pixels[..., :1])], axis=-1)
    drawn = tf.concat([interpolate(places, triangles, raster), tf.ones((1, size, size, 1))], axis=-1)
    covered = tf.cast(raster.triangle_ids >= 0, tf.float32)[..., None]
    inside = (np.abs(points[0]) < 0.6).all(axis=1)  # away from the border of the surface
    found = {sampling: (sample_colors(drawn, points, np.ones((1, len(world[0]))), covered, sampling)[0, :, :2]
                        - pixels[0]).numpy()[inside] for sampling in ("bilinear", "released")}
    assert inside.sum() > 1000
    assert np.sqrt((found["bilinear"] ** 2).mean()) < 0.02 and np.abs(found["bilinear"].mean(axis=0)).max() < 0.01
    np.testing.assert_allclose(found["released"].mean(axis=0), 0.5, atol=0.05)  # the released code's half pixel


def test_bilinear_samples_equal_a_slow_loop(rng):
    rgba = rng.uniform(-1, 1, (2, 7, 5, 4)).astype(np.float32)
    mask = rng.uniform(0.1, 1, (2, 7, 5, 1)).astype(np.float32)
    points = rng.uniform(-1.2, 1.2, (2, 40, 2)).astype(np.float32)
    facing = rng.integers(0, 2, (2, 40)).astype(np.float32)
    found = sample_colors(rgba, points, facing, mask).numpy()
    for image in range(2):
        for vertex in range(40):
            x, y = points[image, vertex] * (2.5, 3.5) + (2.5, 3.5) - 0.5
            sums = np.zeros(4)
            for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                for row in (int(np.floor(y)), int(np.floor(y)) + 1):
                    r, c = min(max(row, 0), 6), min(max(column, 0), 4)
                    share = (1 - abs(x - column)) * (1 - abs(y - row)) * mask[image, r, c, 0]
                    sums += share * np.append(rgba[image, r, c, :3], 1.0)
            np.testing.assert_allclose(found[image, vertex], facing[image, vertex] * sums, atol=1e-5)


def test_nothing_bleeds_in_from_outside_the_mask():
    rgba = np.full((1, 4, 4, 4), -1.0, np.float32)
    rgba[:, :, :2] = (0.5, 0.2, -0.3, 1.0)
    sampled = sample_colors(rgba, np.float32([[[0.0, 0.0]]]), np.ones((1, 1)), np.float32(rgba[..., 3:] > 0))[0, 0]
    np.testing.assert_allclose(sampled[3], 0.5)
    np.testing.assert_allclose(sampled[:3] / sampled[3], (0.5, 0.2, -0.3), atol=1e-6)


def test_unknown_sampling_is_named():
    with pytest.raises(ValueError, match="bilinear, released"):
        sample_colors(np.ones((1, 8, 8, 4)), np.zeros((1, 2, 2)), np.ones((1, 2)), sampling="nearest")
