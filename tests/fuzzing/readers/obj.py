"""OBJ files and the index file of an ICT-FaceKit checkout."""

import json

import numpy as np

from facegcn.assets.ict_source import Layout, read_checkout
from tests.fuzzing import attempts
from tests.fuzzing.changes import misspelt

_LAYOUT = Layout(total=16, narrow=6, face=9, skin_faces=4, eyeballs=((9, 12), (12, 16)),
                 parts=(("eyeballLeft", 9, 12), ("upperTeeth", 12, 16)))
_FACES = ("f 1/1 2/2 5/5 4/4", "f 2/2 3/3 6/6 5/5", "f 4/4 5/5 8/8 7/7", "f 5/5 6/6 9/9 8/8", "f 10/1 11/2 12/3",
          "f 13 14 15", "f 13 15 16")


class Reader(attempts.Reader):
    """A face of sixteen vertices, one identity and one expression."""

    def seeds(self):
        rng = np.random.default_rng(0)
        x, y = np.meshgrid(np.arange(3), np.arange(3))
        skin = np.stack([x.ravel(), y.ravel(), np.zeros(9)], axis=1)
        rows = np.vstack([skin, rng.normal(size=(7, 3)) + [0, 0, 1]])
        files = {}
        for name in ("generic_neutral_mesh", "identity000", "jawOpen"):
            places = rows + 0.1 * rng.normal(size=rows.shape) * (name != "generic_neutral_mesh")
            files[f"{name}.obj"] = "\n".join([
                "# comment", "mtllib x.mtl", *("v {:.6f} {:.6f} {:.6f}".format(*p) for p in places),
                *(f"vt {u:.4f} {v:.4f}" for u, v in rng.random((16, 2))), "usemtl M", *_FACES, ""]).encode()
        facts = {"expressions": ["jawOpen", "mouthLeft"], "idx_to_landmark_verts": [k % 9 for k in range(68)]}
        return [{**files, "vertex_indices.json": json.dumps(facts).encode()}]

    def change(self, rng, name, data, others):
        return misspelt(rng, data, others)

    def read(self, folder):
        return read_checkout(folder, _LAYOUT)

    def wrong(self, answer):
        count = len(answer.mean)
        if answer.mean.shape != (count, 3) or answer.identity.shape[:2] != (count, 3) \
                or answer.expression.shape != (count, 3, len(answer.expression_names)):
            return "modes of another shape"
        for name in ("mean", "identity", "expression"):
            if not np.isfinite(getattr(answer, name)).all():
                return f"{name} is not finite"
        for index in (answer.triangles, answer.landmarks):
            if index.dtype != np.int32 or not 0 <= index.min() <= index.max() < count:
                return "vertices that are not there"
        if answer.uv is not None and answer.uv.shape != (count, 2):
            return "texture coordinates of another shape"
        return ""
