"""Packed photos: the ``.bin`` file and the one beside it."""

import os

import numpy as np

from facegcn.errors import UserError
from facegcn.photos import packed_file
from tests.fuzzing import archives, attempts
from tests.fuzzing.changes import damaged

_SIZE = 4


class Reader(attempts.Reader):
    """Two packed files of three and five records; read as training does: header, what is beside, every record."""

    checksums = True

    def seeds(self):
        rng, made = np.random.default_rng(0), []
        for count in (3, 5):
            path = os.path.join(self.folder, "faces.bin")
            images = rng.integers(0, 256, (count, _SIZE, _SIZE, 4)).astype(np.uint8)
            points = rng.normal(size=(count, 5, 2))
            packed_file.write_bin(path, [f"photo {k}" for k in range(count)], images, lambda names, points=points:
                                  packed_file.Records(names, {"train": [0], "val": np.arange(1, len(names) - 1),
                                                              "test": [len(names) - 1]}, points))
            made.append({})
            for name in ("faces.bin", "faces.records.npz"):
                with open(os.path.join(self.folder, name), "rb") as file:
                    made[-1][name] = file.read()
        return made

    def case(self, rng, seeds):
        name = "faces.records.npz"
        if rng.random() < 0.3:
            files = rng.choice(seeds)
            return attempts.Case({**files, name: archives.forged(rng, files[name], rng.choice(seeds)[name])})
        files = dict(rng.choice(seeds))
        name = "faces.bin" if rng.random() < 0.6 else name
        if name == "faces.bin" and rng.random() < 0.4:  # the header alone
            content = files[name]
            changed = damaged(rng, content[:packed_file.HEADER_BYTES], [other[name][:64] for other in seeds])
            return attempts.Case({**files, name: changed + content[packed_file.HEADER_BYTES:]}, True)
        return attempts.Case({**files, name: damaged(rng, files[name], [other[name] for other in seeds])}, True)

    def read(self, folder):
        path = os.path.join(folder, "faces.bin")
        header, records = packed_file.read_header(path), packed_file.read_companion(path)
        if header.shape != (_SIZE, _SIZE, 4):  # as packed_photos.read_packed
            raise UserError("another size")
        return records, packed_file.Reader(path)(np.arange(header.count))

    def wrong(self, answer):
        records, images = answer
        if images.shape != (len(records.names), _SIZE, _SIZE, 4) or images.dtype != np.uint8:
            return f"pictures {images.dtype} {images.shape}"
        for name in records.names:
            if not name or "/" in name or "\0" in name or name in (".", ".."):
                return f"a record called {name!r}"
        if records.mistake():
            return records.mistake()
        dense = records.dense
        if not (records.points.dtype == records.landmarks.dtype == dense.dtype == np.float32):
            return "points of another type"
        return ""
