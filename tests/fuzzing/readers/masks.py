"""Skin masks of photos: one PNG, or CelebAMask-HQ's parts."""

import os

import numpy as np

from facegcn.errors import MaskError
from facegcn.photos.alignment import Crop
from facegcn.photos.companions import MaskSource, own_mask
from tests.fuzzing import attempts
from tests.fuzzing.pictures import changed_png, png_bytes

_SHAPE, _SIZE = (20, 24), 16


class Reader(attempts.Reader):
    """A mask of the photo's size, of the crop's, and in parts."""

    errors = (MaskError,)

    def seeds(self):
        rng = np.random.default_rng(0)
        whole, crop, skin, nose = (255 * (rng.random(size) < 0.5).astype(np.uint8)
                                   for size in (_SHAPE, (_SIZE, _SIZE), (10, 12), (10, 12)))
        return [{"7.png": png_bytes(whole)}, {"7.png": png_bytes(crop)},
                {"00007_skin.png": png_bytes(skin), "00007_nose.png": png_bytes(nose)}]

    def change(self, rng, name, data, others):
        return changed_png(rng, data, others)

    def read(self, folder):
        crop = Crop(image=np.zeros((_SIZE, _SIZE, 3), np.uint8), inside=np.ones((_SIZE, _SIZE), bool),
                    transform=np.float32([[0.7, 0, -1], [0, 0.7, 1]]))
        labels = (1, 2) if os.path.exists(os.path.join(folder, "00007_skin.png")) else ()
        return own_mask("photos/7.jpg", _SHAPE, crop, MaskSource(folder, labels))

    def wrong(self, answer):
        if answer is None:
            return "no mask, though there is a file"
        good = answer.shape == (_SIZE, _SIZE) and answer.dtype == np.uint8 and set(np.unique(answer)) <= {0, 255}
        return "" if good else f"a mask {answer.dtype} {answer.shape}"
