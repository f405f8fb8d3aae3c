"""Colours sampled from the photo: mask morphology, nearest pixels, de-lighting."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

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


def test_samples_are_the_nearest_pixels(rng):
    rgba = rng.uniform(-1, 1, (1, 20, 20, 4)).astype(np.float32)
    rgba[..., 3] = 1.0
    pixels = np.array([[3.0, 7.0], [3.4, 7.4], [0.0, 19.0], [-5.0, 40.0], [12.6, 2.0]])  # column, row
    facing = np.array([[1.0, 1.0, 1.0, 1.0, 0.0]])
    sampled = sample_colors(rgba, (pixels[None].astype(np.float32) - 10) / 10, facing).numpy()[0]
    for vertex, (column, row) in enumerate([(3, 7), (3, 7), (0, 19), (0, 19)]):
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
