"""Weights: starting weights of the texture network with their hierarchy, the regressor's, and recognition networks'."""

import os
from types import SimpleNamespace

import keras
import numpy as np

from facegcn.assets.starting_weights import StartingWeights, save_starting_weights
from facegcn.fitting import RegressorErrors
from facegcn.identity.torch_weights import fitting_arrays, load_converted, save_converted
from facegcn.networks.regressor import load_weights
from facegcn.photometric_fitting import LightPrior
from facegcn.photometric_terms import DetailPrior
from mesh_sampling import from_arrays, generate_transform_matrices, to_arrays
from tests.faces import embedded, half_ellipsoid
from tests.fuzzing import archives, attempts


class _Weight:
    """What a Keras variable is to who fills it."""

    def __init__(self, path, shape):
        self.path, self.shape, self.value = path, shape, np.zeros(shape, np.float32)

    def assign(self, value):
        assert value.shape == self.shape and value.dtype == np.float32
        self.value = value

    def numpy(self):
        return self.value


def _network():
    return SimpleNamespace(weights=[_Weight("a/kernel", (3, 4)), _Weight("a/bias", (4,)), _Weight("b/gamma", ())])


class Reader(archives.ArchiveCases, attempts.Reader):
    """One file of three kinds."""

    def __init__(self, folder):
        super().__init__(folder)
        self._model = embedded(half_ellipsoid(9, 13, (2, 2, 2)))
        self._recognizer = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False, name="x")])

    def seeds(self):
        rng, network, path = np.random.default_rng(0), _network(), os.path.join(self.folder, "w.npz")
        for weight in network.weights:
            weight.value = rng.normal(size=weight.shape).astype(np.float32)
        hierarchy = to_arrays(generate_transform_matrices(self._model.mean_shape, self._model.triangles, (2, 2)))
        errors = RegressorErrors(rng.normal(size=3).astype(np.float32), np.eye(3, dtype=np.float32))
        details = DetailPrior(*(rng.normal(0, 0.1, (self._model.vertex_count, *shape)).astype(np.float32)
                                for shape in ((3,), (3, 2))))
        save_starting_weights(path, network, self._model, hierarchy, self._model.embedding, ("0" * 12, errors),
                              (LightPrior(rng.normal(size=27), np.eye(27)), details))
        starting = self._content(path)
        plain = archives.packed_arrays({weight.path: weight.value for weight in network.weights}, compressed=False)
        save_converted(path, "ir50", {"x.weight": rng.normal(size=(2, 2)).astype(np.float32)})
        return [{"starting.npz": starting}, {"regressor.npz": plain}, {"converted.npz": self._content(path)}]

    @staticmethod
    def _content(path):
        with open(path, "rb") as file:
            return file.read()

    def read(self, folder):
        name, = os.listdir(folder)
        path, network = os.path.join(folder, name), _network()
        if name == "converted.npz":
            kind, arrays = load_converted(path)
            return kind, fitting_arrays(self._recognizer, arrays, path, "a recognition network")
        if name == "regressor.npz":
            load_weights(network, path)
            return [weight.value for weight in network.weights]
        weights = StartingWeights(path, self._model)
        weights.load_into(network)
        hierarchy = from_arrays(weights.hierarchy)
        return [weight.value for weight in network.weights], weights.errors, weights.embedding, weights.regressor, \
            to_arrays(hierarchy), weights.priors

    def wrong(self, answer):
        if isinstance(answer, list):
            return _wrong_weights(answer)
        if isinstance(answer[0], str):
            return ""
        values, errors, embedding, _, hierarchy, priors = answer
        if priors is not None and priors[1].modes.shape[:2] != (self._model.vertex_count, 3):
            return "details of other vertices"
        held = embedding.triangles >= 0
        if not (embedding.triangles.shape == embedding.noise.shape == (468,) and embedding.bias.shape == (468, 2)
                and embedding.barycentrics.shape == (468, 3) and embedding.factors.shape[:2] == (468, 2)
                and embedding.triangles.max() < len(self._model.triangles) and (embedding.noise[held] > 0).all()):
            return "landmarks that lie nowhere"
        meshes = [hierarchy[name] for name in sorted(hierarchy) if name.startswith("triangles")]
        if any(mesh.ndim != 2 or mesh.shape[1] != 3 or mesh.dtype.kind != "i" for mesh in meshes):
            return "triangles that are none"
        counts = [len(hierarchy[f"vertices{k}"]) for k in range(len(meshes))]
        for k, mesh in enumerate(meshes):
            if mesh.size and not 0 <= mesh.min() <= mesh.max() < counts[k]:
                return "triangles of vertices that are not there"
            if tuple(hierarchy[f"laplacians{k}_shape"]) != (counts[k], counts[k]):
                return "a Laplacian of another mesh"
            if k and tuple(hierarchy[f"upsamp_trans{k - 1}_shape"]) != (counts[k - 1], counts[k]):
                return "an upsampling of other meshes"
        for name, array in hierarchy.items():
            if not np.isfinite(array).all():
                return f"{name} is not finite"
        return _wrong_weights(values) or ("" if np.isfinite(errors.covariance).all() else "errors that are not finite")


def _wrong_weights(values):
    return "" if all(np.isfinite(value).all() for value in values) else "weights that are not finite"


