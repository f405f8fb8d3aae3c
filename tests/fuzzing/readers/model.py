"""Face models, ``.npz``."""

import dataclasses
import os

import numpy as np

from facegcn.face_parts import FaceParts
from facegcn.model_format import ARRAYS, EMBEDDING_ARRAYS, PART_ARRAYS, TEXTURE_ARRAYS
from facegcn.morphable import MorphableModel
from facegcn.texture_layout import TextureLayout
from tests.faces import embedded, half_ellipsoid
from tests.fuzzing import archives, attempts


class Reader(archives.ArchiveCases, attempts.Reader):
    """A small plain model, and one with all that a model may have."""

    def seeds(self):
        plain, full = half_ellipsoid(13, 17, (2, 2, 2)), embedded(half_ellipsoid(13, 17, (2, 2, 2), seed=1))
        rng, count = np.random.default_rng(0), full.vertex_count
        full = dataclasses.replace(
            full, uv=rng.random((count, 2)), made_by="hand 1", blendshape_names=("jawOpen", "cheekPuff"),
            blendshapes=rng.normal(0, 0.01, (count, 3, 2)), parts=_parts(rng, count),
            texture=TextureLayout(uv=rng.random((count, 2), np.float32), triangles=full.triangles,
                                  vertices=np.arange(count, dtype=np.int32)))
        return [{"model.npz": self._saved(model)} for model in (plain, full)]

    def _saved(self, model):
        path = os.path.join(self.folder, "model.npz")
        model.save(path)
        with open(path, "rb") as file:
            return file.read()

    def read(self, folder):
        return MorphableModel.load(os.path.join(folder, "model.npz"))

    def wrong(self, answer):
        wanted = [(answer, ARRAYS, "")]
        wanted += [(part, formats, prefix) for part, formats, prefix in (
            (answer.embedding, EMBEDDING_ARRAYS, "dense_"), (answer.parts, PART_ARRAYS, "part_"),
            (answer.texture, TEXTURE_ARRAYS, "texture_")) if part is not None]
        for holder, formats, prefix in wanted:
            for name, wanted in formats.items():
                array = getattr(holder, name.removeprefix(prefix))
                if array is None or wanted.text:
                    continue
                if array.dtype != (np.int32 if wanted.index else np.float32) or array.ndim != len(wanted.shape) \
                        or not array.flags.c_contiguous:
                    return f"{name} is {array.dtype} {array.shape}"
                if not np.isfinite(array).all():
                    return f"{name} is not finite"
        for name in ("triangles", "landmarks", "skin_index", "symmetry_pairs"):
            array = getattr(answer, name)
            if array.size and not 0 <= array.min() <= array.max() < answer.vertex_count:
                return f"{name} names a vertex that is not there"
        lengths = {len(answer.mean_shape), len(answer.id_basis), len(answer.exp_basis), len(answer.mean_albedo),
                   len(answer.albedo_basis)}
        return "" if len(lengths) == 1 else "arrays of different numbers of vertices"


def _parts(rng, count):
    return FaceParts(names=("upperTeeth", "eyeballLeft"), of=np.repeat(np.int32([0, 1]), 4),
                     vertices=rng.normal(size=(8, 3)), triangles=np.int32([[0, 1, 2], [4, 5, 6]]),
                     colors=rng.uniform(0, 255, (8, 3)), identity=rng.normal(0, 0.01, (2, 4, 3, 2)),
                     blendshapes=rng.normal(0, 0.01, (8, 3, 2)), replaces=np.int32([0, 2]),
                     recess=rng.uniform(0, 0.1, count))
