"""The parts of baking's inner loop beside NumPy's: logarithms, exponentials, sharp and averaged colours, trust."""

import numpy as np
import pytest

from facegcn.backends import baking_kernel


def test_logarithms_and_exponentials_are_those_of_float32():
    rng = np.random.default_rng(0)
    values = np.exp(rng.uniform(-60, 60, 5000)).astype(np.float32)
    found, scratch = np.empty_like(values), np.empty_like(values)
    baking_kernel.logarithms(values, scratch, found)
    np.testing.assert_allclose(found, np.log(values.astype(np.float64)), rtol=3e-7, atol=3e-7)
    values = np.concatenate([[0.0], rng.uniform(-80, 80, 5000)]).astype(np.float32)
    found, scratch = np.empty_like(values), np.empty_like(values)
    baking_kernel.exponentials(values, scratch, found)
    np.testing.assert_allclose(found, np.exp(values.astype(np.float64)), rtol=4e-7)
    assert found[0] == 1.0


def packed(picture):
    """Pixels of a picture (h, w, 3) as the kernel has them."""
    rows, columns = picture.shape[:2]
    bytes_ = np.concatenate([picture, np.full((rows, columns, 1), 99, np.uint8)], axis=-1)
    return bytes_.view(np.uint32).ravel()


def catmull_rom(x):
    """The kernel function of Keys (1981) with a = -1/2."""
    x = np.abs(x)
    outer = -0.5 * x ** 3 + 2.5 * x ** 2 - 4 * x + 2
    return np.where(x < 1, 1.5 * x ** 3 - 2.5 * x ** 2 + 1, np.where(x < 2, outer, 0))


@pytest.mark.parametrize("rows, columns", [(9, 13), (2, 3), (1, 1)])
def test_sharp_colors_are_cubic(rows, columns):
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (rows, columns, 3)).astype(np.uint8)
    x, y = rng.uniform(-1, columns + 1, 300), rng.uniform(-1, rows + 1, 300)
    found = np.empty((3, 300), np.float32)
    baking_kernel._sharp(packed(picture), rows, columns, x, y, *found)
    for k in range(300):
        px, py = np.clip(x[k] - 0.5, 0, columns - 1), np.clip(y[k] - 0.5, 0, rows - 1)
        beside, below = np.floor(px) + np.arange(-1, 3), np.floor(py) + np.arange(-1, 3)
        pixels = picture[np.clip(below, 0, rows - 1).astype(int)][:, np.clip(beside, 0, columns - 1).astype(int)]
        wanted = np.einsum("j,i,jic->c", catmull_rom(below - py), catmull_rom(beside - px), pixels.astype(float))
        np.testing.assert_allclose(found[:, k], np.clip(wanted, 0, 255), atol=1e-3)


def test_averaged_colors_are_linear_between_pixels_and_levels():
    """Slopes, another one in each channel: every level shows them, so that any level says the same as the finest."""
    rows, columns = np.mgrid[:64, :64].astype(np.uint8)
    slope = np.stack([2 * rows, 2 * columns, 2 * rows + 2 * columns], axis=-1)
    wanted = np.array([2 * 31.7 - 1, 2 * 20.3 - 1, 2 * 31.7 + 2 * 20.3 - 2])
    half = (slope[::2, ::2].astype(int) + slope[1::2, 1::2]) // 2
    colors = np.concatenate([packed(slope), packed(half.astype(np.uint8))])
    places = np.array([[0, 64, 64], [64 * 64, 32, 32]], np.int64)
    found = np.empty(3, np.float32)
    for level in (0.25, 0.5, 1.0, 3.0):
        baking_kernel._averaged(colors, places, level, 20.3, 31.7, found)
        np.testing.assert_allclose(found, wanted, atol=1e-3)
    colors[64 * 64:] = packed(np.full((32, 32, 3), 200, np.uint8))  # and each level has its share
    baking_kernel._averaged(colors, places, 0.25, 20.3, 31.7, found)
    np.testing.assert_allclose(found, 0.75 * wanted + 0.25 * 200, atol=1e-3)


def test_what_is_seen_and_trusted_follows_depth_slope_angle_and_place():
    """The steeper a surface, the further behind the nearest one it may lie and still be it."""
    rng, count = np.random.default_rng(2), 500
    facing, behind, by_place = (rng.uniform(low, 1, count).astype(np.float32) for low in (-0.2, 0, 0))
    behind *= np.float32(0.05)
    px, py, x, y = rng.uniform(-1, 11, (4, count))
    view, limits = np.zeros(13), np.array([0.005, 0.008, 0.03, 0.15, 0.4, 1.6, 0.78, 0.01])
    view[10:] = 9.0, 8.0, 10.0  # the photo's width and height, the fine view's side
    seen, trust, zero = np.empty(count, np.float32), by_place.copy(), np.zeros(count, np.float32)
    baking_kernel._trusted(zero, facing, behind, view, px, py, x, y, limits, seen, trust)
    slope = np.tan(np.arccos(np.maximum(facing, 0.05)))
    reaches = (np.minimum(x, y) >= 0) & (np.maximum(x, y) <= 10) & (np.minimum(px, py) >= 0) & (px <= 9) & (py <= 8)
    wanted = np.clip(2 - behind / np.minimum(0.005 + 0.008 * slope, 0.03), 0, 1) * ((facing > 0) & reaches)
    assert min((wanted == 1).sum(), (wanted == 0).sum(), ((wanted > 0) & (wanted < 1)).sum()) > 20
    np.testing.assert_allclose(seen, wanted, atol=1e-5)
    turned = np.clip((facing - 0.15) / 0.25, 0, 1)
    np.testing.assert_allclose(trust, by_place * wanted * (3 * turned ** 2 - 2 * turned ** 3), atol=1e-5)


def test_places_that_are_no_numbers_are_looked_up_within_the_picture():
    """Of NaN an integer would be made that lies gigabytes away: the process would end."""
    nowhere, view = np.full(3, np.nan), np.full((8, 8), 0.5, np.float32)
    nearest, trust = np.empty(3, np.float32), np.empty(3, np.float32)
    baking_kernel._looked_up(nowhere, nowhere, view, view, nearest, trust)
    np.testing.assert_array_equal([nearest, trust], np.full((2, 3), 0.5))
    found = np.empty((3, 3), np.float32)
    baking_kernel._sharp(packed(np.full((4, 5, 3), 7, np.uint8)), 4, 5, nowhere, nowhere, *found)
    np.testing.assert_array_equal(found, np.full((3, 3), 7.0))
