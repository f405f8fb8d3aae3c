"""PNGs of our own: what Pillow and OpenCV read is what was written."""

import io
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from facegcn import png
from facegcn.png import png_bytes


def picture(*shape):
    """Noise over a slope: every filter byte and every difference occurs."""
    slope = np.linspace(0, 255, int(np.prod(shape))).reshape(shape)
    return (slope + np.random.default_rng(0).integers(0, 40, shape)).astype(np.int64).astype(np.uint8)


@pytest.mark.parametrize("shape", [(7, 5), (1, 1), (300, 2, 3), (2, 300, 3), (64, 48, 4), (1, 9, 4)])
@pytest.mark.parametrize("deflate", [png._deflate, zlib], ids=["fast", "zlib"])
def test_others_read_what_was_written(shape, deflate, monkeypatch):
    monkeypatch.setattr(png, "_deflate", deflate)
    image = picture(*shape)
    data = png_bytes(image)
    with Image.open(io.BytesIO(data)) as found:
        assert found.format == "PNG" and found.mode == {2: "L", 3: {3: "RGB", 4: "RGBA"}.get(shape[-1])}[len(shape)]
        np.testing.assert_array_equal(np.asarray(found), image)
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[shape[2] if len(shape) == 3 else 1]
    np.testing.assert_array_equal(found.reshape(*shape[:2], -1), image.reshape(*shape[:2], -1)[..., order])


def test_strided_pictures_and_text():
    image = picture(20, 30, 4)[::2, ::3, :3]
    with Image.open(io.BytesIO(png_bytes(image, {"facegcn": "aligned crop", "Title": "café"}))) as found:
        assert found.text == {"facegcn": "aligned crop", "Title": "café"}
        np.testing.assert_array_equal(np.asarray(found), image)


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros(4, np.uint8),
                                   np.zeros((0, 4), np.uint8), np.zeros((1, 4, 4, 3), np.uint8)])
def test_other_arrays_are_refused(image):
    with pytest.raises(ValueError, match="a PNG is made of"):
        png_bytes(image)
