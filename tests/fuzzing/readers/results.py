"""Results that are read back: arrays of a photo, ``metrics.json``, the report that is made of them, a made truth."""

import json
import os

import numpy as np

from facegcn.errors import BrokenFile
from facegcn.reconstruction.jobs import TRUTH_ARRAYS, _truth
from facegcn.reconstruction.report_faces import NEEDED, FacePacker, read_face
from facegcn.reconstruction.report_page import write_report
from tests.fuzzing import archives, attempts
from tests.fuzzing.changes import damaged, misspelt
from tests.fuzzing.pictures import png_bytes

_COUNT = 12
_NAMES = ("../x", "/etc/passwd", "</script><script>x</script>", "\ud800", "a\0b", "..", "", "b/c", "a" * 300)


def _face(rng):
    lengths = {"N": _COUNT, "F": 6}
    arrays = {name: rng.normal(size=[lengths.get(length, length) for length in shape]).astype(np.float32)
              for name, shape in NEEDED.items()}
    return {**arrays, "triangles": rng.integers(0, _COUNT, (6, 3)).astype(np.int32), "visible": np.ones(_COUNT, bool),
            "camera_fov_y": np.float32(0.2)}


class Reader(archives.ArchiveCases, attempts.Reader):
    """A folder of two photos' results, of which one file is changed."""

    errors = (BrokenFile, *attempts.Reader.errors)

    def seeds(self):
        rng = np.random.default_rng(0)
        metrics = {"photos": {"a": {"status": "ok", "fine_psnr": 30.5}, "b": {"status": "no face", "reason": "none"}},
                   "count": 1, "mean": {"fine_psnr": 30.5}, "fine_texture": "network"}
        truth = {"landmarks": np.zeros((68, 2), np.float32), "albedo": np.ones((_COUNT, 3), np.float32),
                 "visible": np.ones(_COUNT, bool)}
        layout = {"texture_vertices": np.arange(_COUNT, dtype=np.int32), "texture_uv": rng.random((_COUNT, 2)),
                  "texture_triangles": rng.integers(0, _COUNT, (6, 3)), "blendshape_weights": np.zeros(2)}
        picture = png_bytes(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8))
        return [{"a.npz": archives.packed_arrays(arrays), "metrics.json": json.dumps(metrics).encode(),
                 "truth/a.npz": archives.packed_arrays(truth), "a_input.png": picture}
                for arrays in (_face(rng), {**_face(rng), **layout})]

    def case(self, rng, seeds):
        way, files = rng.random(), rng.choice(seeds)
        if way < 0.9:
            return super().case(rng, seeds)
        files = {**files, "page": b""}  # so many milliseconds are for some
        if way < 0.93:
            name = "a_input.png"
            return attempts.Case({**files, name: damaged(rng, files[name], [files[name]])})
        name = "metrics.json"
        if way < 0.96:
            metrics = json.loads(files[name])
            metrics["photos"][rng.choice(_NAMES)] = {"status": rng.choice(("ok", 3, None, [], "</script>"))}
            return attempts.Case({**files, name: json.dumps(metrics).encode()})
        return attempts.Case({**files, name: misspelt(rng, files[name], [files[name]])})

    def read(self, folder):
        truth, remark = _truth(os.path.join(folder, "truth"), "a", _COUNT)
        if os.path.exists(os.path.join(folder, "page")):
            os.remove(write_report(folder))
        face = read_face(os.path.join(folder, "a.npz"))
        FacePacker().pack(face)
        if remark:
            raise BrokenFile(folder, remark)
        return face, truth

    def wrong(self, answer):
        face, truth = answer
        if not 0 <= face["triangles"].min() <= face["triangles"].max() < len(face["vertices"]):
            return "triangles of vertices that are not there"
        if not all(np.isfinite(array).all() for array in face.values()):
            return "arrays that are not finite"
        if set(truth) != set(TRUTH_ARRAYS) or not all(array.dtype.kind in "biuf" for array in truth.values()):
            return "a truth of no numbers"
        return ""
