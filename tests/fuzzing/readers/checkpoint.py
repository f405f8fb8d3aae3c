"""TF1 checkpoints of the released code: index and data."""

import os

import numpy as np
import tensorflow as tf

from facegcn.assets.tf1_checkpoint import read_checkpoint, recognised_settings
from tests.fuzzing import attempts

_NAMES = ("mesh_generator/mesh_decoder/resblock1/filter1/weights", "mesh_generator/mesh_decoder/fc/weights",
          "image_disc/c1/weights", "mesh_generator/mesh_decoder/fc/weights/Adam", "global_step")


class Reader(attempts.Reader):
    """Two checkpoints of a few variables; data have checksums, and so has the index."""

    checksums = True

    def seeds(self):
        made = []
        for seed in (0, 1):
            rng, folder = np.random.default_rng(seed), os.path.join(self.folder, str(seed))
            os.makedirs(folder, exist_ok=True)
            with tf.Graph().as_default(), tf.compat.v1.Session() as session:
                variables = [tf.compat.v1.get_variable(name, initializer=rng.normal(size=(2, 3)).astype(np.float32))
                             for name in _NAMES]
                session.run(tf.compat.v1.global_variables_initializer())
                prefix = os.path.join(folder, "model-3")
                tf.compat.v1.train.Saver(variables).save(session, prefix, write_meta_graph=False)
            made.append({})
            for name in sorted(os.listdir(folder)):
                with open(os.path.join(folder, name), "rb") as file:
                    made[-1][name] = file.read()
            made[-1]["checkpoint"] = b'model_checkpoint_path: "model-3"\nall_model_checkpoint_paths: "model-3"\n'
        return made

    def case(self, rng, seeds):
        files = rng.choice(seeds)
        name = rng.choice([name for name in files if name != "checkpoint"] * 3 + ["checkpoint"])
        others = [other[name] for other in seeds]
        return attempts.Case({**files, name: self.change(rng, name, files[name], others)}, True)

    def read(self, folder):
        arrays = read_checkpoint(folder)
        return arrays, recognised_settings(arrays)

    def wrong(self, answer):
        arrays, _ = answer
        if set(arrays) != {name for name in _NAMES if name.startswith(("mesh", "image")) and "Adam" not in name}:
            return f"other variables: {sorted(arrays)}"
        return "" if all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values()) \
            else "variables that are not finite"
