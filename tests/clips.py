"""Films of a model's face with known pose, expression and light, for tests."""

import cv2
import numpy as np

from facegcn.face_model import FaceModel

_GROUND = np.array([96.0, 110.0, 120.0])


def coefficients(morphable, count, rate, moves, person, light=0.0):
    """(T, K) of one person who turns, nods, blinks and opens the mouth.

    Args:
        morphable: the face model.
        count: T.
        rate: frames a second.
        moves: (T, Ke) expression coefficients.
        person: (K,) whose identity, albedo and light are taken.
        light: how much brighter the light gets until the end.
    """
    coeff = np.repeat(np.asarray(person, np.float32)[None], count, axis=0)
    parts = morphable.split(coeff)  # views
    seconds = np.arange(count) / rate
    parts.exp[:] = moves
    parts.angles[:] = np.stack([0.10 * np.sin(2 * np.pi * seconds / 2.3), 0.45 * np.sin(2 * np.pi * seconds / 4.0),
                                0.08 * np.sin(2 * np.pi * seconds / 3.1)], axis=1)
    parts.translation[:] = np.stack([0.25 * np.sin(2 * np.pi * seconds / 3.7), 0.1 * np.sin(2 * np.pi * seconds / 2.9),
                                     0.4 * np.sin(2 * np.pi * seconds / 5.3)], axis=1)
    parts.gamma[:] += (light * seconds / max(seconds[-1], 1e-9))[:, None] * (np.arange(27) % 9 == 0)
    return coeff


def hump(seconds, centre, width):
    """1 at ``centre``, 0 from ``width`` seconds away on, smooth."""
    share = np.clip(1 - np.abs(seconds - centre) / width, 0, 1)
    return share * share * (3 - 2 * share)


def drawn(morphable, coeff, size=224, noise=2.0, seed=0, colors=None):
    """Pictures (size, size, 3) uint8 of faces (T, K) before a plain ground, one at a time.

    Args:
        colors: (N, 3) albedo in [0, 1] in place of the coefficients'.
    """
    rng, model = np.random.default_rng(seed), FaceModel(morphable, image_size=size)
    rows = np.linspace(0.8, 1.15, size)[:, None, None]
    for row in coeff:
        outputs = model.coarse(row[None])
        render = np.asarray(outputs["coarse_render"])[0]
        if colors is not None:
            lit = np.clip(colors * np.asarray(outputs["shading"])[0], 0, 1)[None].astype(np.float32)
            render = np.asarray(model.render(outputs["rasterization"], lit))[0]
        covered = cv2.GaussianBlur(render[..., 3], (0, 0), 0.7)[..., None]
        picture = (render[..., :3] + 1) * 127.5 * covered + _GROUND * rows * (1 - covered)
        yield np.uint8(np.clip(picture + noise * rng.normal(size=picture.shape) + 0.5, 0, 255))


def write_clip(path, pictures, rate=30.0, codec="mp4v"):
    """Writes pictures (h, w, 3) RGB as a film."""
    writer = None
    for picture in pictures:
        if writer is None:
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, picture.shape[1::-1])
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.release()
