"""Clips of expressions, CSV."""

import os

import numpy as np

from facegcn.animation import Clip, read_clip, write_clip
from facegcn.blendshapes import ARKIT_NAMES
from tests.fuzzing import attempts
from tests.fuzzing.changes import misspelt


class Reader(attempts.Reader):
    """By time, by frame, and as Live Link Face writes them."""

    def seeds(self):
        rng, path = np.random.default_rng(0), os.path.join(self.folder, "clip.csv")
        write_clip(path, Clip(np.arange(6) / 30, ARKIT_NAMES[:4], rng.random((6, 4)), rng.normal(0, 0.1, (6, 3))))
        with open(path, "rb") as file:
            timed = file.read()
        framed = b"frame,jawOpen\n0,0.5\n1,0.25\n3,1\n"
        head = ",".join(["Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in ARKIT_NAMES),
                         "HeadYaw", "HeadPitch", "HeadRoll"])
        rows = [",".join([f"10:20:30:{frame}.5", "52", *(f"{value:.4f}" for value in rng.random(55))])
                for frame in (1, 2, 29)]
        return [{"clip.csv": data} for data in (timed, framed, "\n".join([head, *rows]).encode())]

    def change(self, rng, name, data, others):
        return misspelt(rng, data, others)

    def read(self, folder):
        return read_clip(os.path.join(folder, "clip.csv"))

    def wrong(self, answer):
        times, weights, head = answer.times, answer.weights, answer.head
        if not len(times) or times[0] != 0 or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
            return "moments that do not rise from 0"
        if weights.shape != (len(times), len(answer.names)) or not ((weights >= 0) & (weights <= 1)).all():
            return "weights that are none"
        if not set(answer.names) <= set(ARKIT_NAMES) or len(set(answer.names)) != len(answer.names):
            return "names of no expressions"
        if head is not None and (head.shape != (len(times), 3) or not (np.abs(head) <= 2 * np.pi).all()):
            return "angles of no head"
        return ""
