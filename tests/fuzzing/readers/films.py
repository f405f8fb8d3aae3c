"""Films: what is in their first bytes, and all the rest."""

import os

import cv2
import numpy as np

from facegcn.photos.frames import open_film
from tests.fuzzing import attempts

_SIDE, _FRAMES = 32, 4


class Reader(attempts.Reader):
    """Four small pictures as MP4, AVI and Matroska."""

    def seeds(self):
        made = []
        os.makedirs(self.folder, exist_ok=True)
        for ending, code in ((".mp4", "mp4v"), (".avi", "MJPG"), (".mkv", "FFV1"), (".webm", "VP80")):
            path = os.path.join(self.folder, "film" + ending)
            writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*code), 25, (_SIDE, _SIDE))
            if not writer.isOpened():
                continue
            for k in range(_FRAMES):
                writer.write(np.full((_SIDE, _SIDE, 3), 50 * k, np.uint8))
            writer.release()
            with open(path, "rb") as file:
                made.append({"film.mp4": file.read()})
        return made

    def read(self, folder):
        film = open_film(os.path.join(folder, "film.mp4"))
        return film, [picture for _, picture in film.frames()]

    def wrong(self, answer):
        film, pictures = answer
        if not len(film) or film.times[0] != 0 or not np.isfinite(film.times).all() or (np.diff(film.times) <= 0).any():
            return "moments that do not rise from 0"
        width, height = film.size
        return "" if all(picture.shape == (height, width, 3) for picture in pictures) else "pictures of several sizes"
