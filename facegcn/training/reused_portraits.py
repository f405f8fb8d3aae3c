"""The examples of stage ``rec``: portraits that are made on the fly, each used several times."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from concurrent.futures import Future

import numpy as np
import tensorflow as tf

from facegcn.portraits.maker import PortraitMaker
from facegcn.training.devices import WHOLE, Share

_BACKGROUND_DROP = 0.25  # share of examples whose background is blanked, as in segmented PNGs
_REUSE_BATCHES = 12  # the uses of a portrait are spread over about this many batches


class ReusedPortraits:
    """Endless examples of made portraits; what example number k is depends on the seed and k only.

    Each portrait is used ``rec_reuse`` times, far apart, since making one costs more than a training step on it.
    The series goes in blocks of portraits: while block b is used for the first time, block b - 1 is used for the
    second time, in another order, and so on.

    Args:
        maker: makes portrait 0, 1, ... at the width the CNN works at.
        config: ``rec_batch_size``, ``rec_reuse``, ``seed``, ``workers``.
    """

    def __init__(self, maker: PortraitMaker, config):
        self._maker, self._seed, self._workers = maker, config.seed, config.workers
        self._batch_size, self._uses = config.rec_batch_size, config.rec_reuse
        spread = self._uses * max(1, self._uses - 1)
        self._block = max(1, round(_REUSE_BATCHES * config.rec_batch_size / spread)) if self._uses > 1 else 1
        self._kept: OrderedDict[int, Future] = OrderedDict()
        self._lock = threading.Lock()
        self._order = functools.lru_cache(4 * self._uses)(self._order)

    def portrait_of(self, example: int) -> int:
        """Number of the portrait that an example shows."""
        place, use = divmod(example, self._uses)
        block, place = divmod(place, self._block)
        age = self._uses - 1 - use
        return (block + age) * self._block + int(self._order(block, use)[place])

    def _order(self, block: int, use: int) -> np.ndarray:
        return np.random.default_rng([self._seed, block, use]).permutation(self._block)

    def batches(self, image_size: int, step: int = 0, share: Share = WHOLE) -> tf.data.Dataset:
        """Batches (RGB (B, H, W, 3) in [-1, 1], coefficients (B, K)), from that of training step ``step`` on.

        Args:
            image_size: the pictures are enlarged to this width, by repeating pixels: the regressor's averaging takes
                that back exactly, and small portraits are made four times faster.
            step: steps before, whose portraits are not made.
            share: of each batch, one replica's part at a time.
        """
        size, repeat = self._maker.size, image_size // self._maker.size
        numbers, kept = tf.data.Dataset.counter(step * self._batch_size), share.kept(self._batch_size)
        if kept is not None:
            numbers = numbers.filter(kept)

        def load(numbers):
            rgb, coeff = tf.numpy_function(self._examples, [numbers], [tf.uint8, tf.float32], stateful=False)
            return (tf.ensure_shape(rgb, (self._uses, size, size, 3)),
                    tf.ensure_shape(coeff, (self._uses, self._maker.morphable.coefficient_count)))

        def to_network_range(rgb, coeff):
            rgb = tf.repeat(tf.repeat(rgb, repeat, axis=1), repeat, axis=2)
            return tf.cast(rgb, tf.float32) / 127.5 - 1.0, coeff

        # As many examples at a time as a portrait has uses: one portrait of them is new.
        return (numbers.batch(self._uses)
                .map(load, num_parallel_calls=self._workers, deterministic=True).unbatch()
                .batch(share.part(self._batch_size), drop_remainder=True)
                .map(to_network_range).prefetch(4))

    def _examples(self, numbers) -> tuple[np.ndarray, np.ndarray]:
        """Pictures (RGB) and coefficients of examples."""
        examples = [int(number) for number in numbers]
        pictures, coefficients = zip(*(self._portrait(self.portrait_of(example)) for example in examples))
        return np.stack([self._shown(rgba, example) for rgba, example in zip(pictures, examples)]), \
            np.stack(coefficients)

    def _shown(self, rgba, example: int) -> np.ndarray:
        """RGB (H, W, 3) uint8 of an example, some on black."""
        rgb = rgba[..., :3]
        if np.random.default_rng([self._seed, example]).random() < _BACKGROUND_DROP:
            rgb = np.where(rgba[..., 3:] == 0, np.uint8(0), rgb)
        return rgb

    def _portrait(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """(RGBA, coefficients); made once while it is used, whichever thread asks first."""
        with self._lock:
            made = self._kept.get(number)
            mine = made is None
            if mine:
                made = self._kept[number] = Future()
                while len(self._kept) > (self._uses + 1) * self._block + self._workers:
                    self._kept.popitem(last=False)
        if mine:
            try:
                portrait = self._maker.make(number)
                made.set_result((portrait.rgba, portrait.coeff))
            except BaseException as error:
                made.set_exception(error)
                raise
        return made.result()
