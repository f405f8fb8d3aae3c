"""Starting weights of a texture network, with all that they go with: the mesh hierarchy, the landmarks' places, how far
the regressor is off, and what a fit expects of lights and albedos.

A network's weights mean something on one template only. Its hierarchy is kept beside them, since decimation takes other
vertices where coordinates differ in their last digit; and so is enough of the face model to tell whether another one is
the same but for such rounding. Letters: N vertices, F triangles.
"""

from __future__ import annotations

import functools
import os

import numpy as np

from facegcn.config import PROJECT
from facegcn.errors import BrokenFile, ModelFileError, UserError
from facegcn.files import finite_as_float32, read_npz, write_npz
from facegcn.fitting import RegressorErrors
from facegcn.mesh.hierarchy_format import check_hierarchy
from facegcn.model_format import check_embedding
from facegcn.photometric_fitting import LightPrior
from facegcn.photometric_terms import DetailPrior
from facegcn.surface_points import LandmarkEmbedding

_SHAPE_TOLERANCE = 0.01  # decimetre; half precision of a coordinate is exact to a tenth of that
_SCALE_TOLERANCE = 0.02  # of a component's size
PRIOR_NAMES = ("light_mean", "light_precision", "detail_mean", "detail_modes")
_BASES = ("id_basis", "exp_basis", "albedo_basis")
_CURE = ("convert the model again with the command's default options (no --albedo, --region or --subdivide), or go "
         "without the weights: --set texture_start= --set regressor_start=, in training and in tests alike")


class StartingWeights:
    """A file of starting weights, checked against a face model.

    Args:
        path: the file, relative to the project.
        morphable: the model that they are to go with.

    Attributes:
        hierarchy: the arrays of the network's mesh hierarchy (``mesh_sampling.from_arrays``).
        embedding: the ``LandmarkEmbedding`` of the model.
        errors: ``fitting.RegressorErrors`` of the regressor whose ``networks.regressor.digest`` is ``regressor``.
        regressor: that digest.
        priors: ``photometric_fitting.LightPrior`` and ``photometric_terms.DetailPrior`` of the model; None where the
            file has none.

    Raises:
        UserError: the file is absent or broken, or is of another face model; says the cure.
    """

    def __init__(self, path: str, morphable):
        self.path = os.path.join(PROJECT, path)
        try:
            file = os.stat(self.path)
            arrays = _read(self.path, (file.st_mtime_ns, file.st_size, file.st_ino))
            self.hierarchy = _under("hierarchy/", arrays)
            check_hierarchy(self.hierarchy)
            landmarks = _under("landmarks/", arrays)
            self.embedding = LandmarkEmbedding(**landmarks)
            self.errors = RegressorErrors(**_under("errors/", arrays))
            self.regressor = str(arrays["regressor"])
            priors = _under("priors/", arrays)
            self.priors = split_priors(priors) if priors else None
            problem = _misfit(arrays, morphable)
            if not problem:
                if self.priors and len(self.priors[1].mean) != morphable.vertex_count:
                    raise ValueError(f"details of {len(self.priors[1].mean)} vertices, not {morphable.vertex_count}")
                check_embedding({f"dense_{name}": array for name, array in landmarks.items()},
                                len(morphable.triangles))
        except FileNotFoundError as error:
            raise UserError(f"the starting weights {self.path} are not there; --set texture_start= goes without "
                            "them") from error
        except (BrokenFile, ModelFileError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"the starting weights {self.path} are damaged, or of another version: {error}; "
                            "--set texture_start= goes without them") from error
        if problem:
            raise UserError(f"the starting weights {self.path} do not fit this face model: {problem}; {_CURE}")
        self._network = _under("network/", arrays)

    def load_into(self, network) -> None:
        """Gives a texture network these weights; all or none.

        Raises:
            UserError: it is another network; names the first misfit and the cure.
        """
        for weight in network.weights:
            given = self._network.get(weight.path)
            if given is None or given.shape != tuple(weight.shape) or given.dtype.kind != "f" \
                    or not finite_as_float32(given):
                have = "none" if given is None else given.shape
                raise UserError(f"the starting weights {self.path} do not fit the texture network: {weight.path} needs "
                                f"shape {tuple(weight.shape)}, the file has {have}; --set texture_start= goes without "
                                "them, other settings of the network need that")
        for weight in network.weights:
            weight.assign(self._network[weight.path].astype(np.float32))


def save_starting_weights(path: str, network, morphable, hierarchy, embedding: LandmarkEmbedding,
                          regressor: tuple[str, RegressorErrors], priors: tuple[LightPrior, DetailPrior]) -> None:
    """Writes such a file, weights and albedo's details in half precision; whole or not at all.

    Args:
        path: the file.
        network: a trained texture network.
        morphable: its face model.
        hierarchy: the arrays of its mesh hierarchy (``mesh_sampling.to_arrays``).
        embedding: the model's landmark embedding.
        regressor: digest of the regressor that the network was trained with (``networks.regressor.digest``), and its
            errors.
        priors: what a fit expects of lights, and of the model's albedos beyond its basis.

    Raises:
        UserError: a weight is not finite or too large.
        OSError: as ``files.written_whole``.
    """
    with np.errstate(over="ignore"):  # what is too large is infinite, and found below
        arrays = {f"network/{weight.path}": weight.numpy().astype(np.float16) for weight in network.weights}
        arrays.update({f"priors/{name}": array.astype(np.float16 if name.startswith("detail") else np.float32)
                       for name, array in join_priors(*priors).items()})
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{path} was not written: {name} is not finite in "
                            f"{'half' if array.dtype == np.float16 else 'single'} precision")
    arrays.update({f"hierarchy/{name}": _small(array) for name, array in hierarchy.items()})
    arrays.update({f"landmarks/{name}": _small(array) for name, array in vars(embedding).items()})
    arrays["regressor"] = np.array(regressor[0])
    arrays.update({f"errors/{name}": _small(array) for name, array in vars(regressor[1]).items()})
    arrays.update({f"model/{name}": array for name, array in _fingerprint(morphable).items()})
    write_npz(path, arrays)


@functools.lru_cache(maxsize=1)
def _read(path, _state):
    """The file's arrays: one start needs them several times, and they are not changed."""
    return read_npz(path)


def join_priors(light: LightPrior, details: DetailPrior) -> dict[str, np.ndarray]:
    """Arrays of ``PRIOR_NAMES`` that ``split_priors`` takes."""
    return dict(zip(PRIOR_NAMES, (light.mean, light.precision, details.mean, details.modes)))


def split_priors(arrays) -> tuple[LightPrior, DetailPrior]:
    """The priors of arrays of ``join_priors``.

    Raises:
        KeyError: one is missing.
        ValueError: they are no priors.
    """
    light_mean, light_precision, *details = (np.asarray(arrays[name]) for name in PRIOR_NAMES)
    return LightPrior(light_mean.astype(np.float64), light_precision.astype(np.float64)), DetailPrior(*details)


def _under(prefix, arrays):
    """The arrays whose names begin with a prefix, without it; numbers as float32 or int32."""
    return {name.removeprefix(prefix): array.astype(np.float32) if array.dtype == np.float16 else array
            for name, array in arrays.items() if name.startswith(prefix)}


def _small(array):
    """Floating point numbers as float32, integers as int32."""
    array = np.asarray(array)
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)


def _fingerprint(morphable):
    """What tells a face model: its mean shape, triangles, landmarks, and the size of each component."""
    scales = [np.sqrt((np.asarray(getattr(morphable, name), np.float64) ** 2).mean(axis=(0, 1))) for name in _BASES]
    return {"mean_shape": morphable.mean_shape, "triangles": morphable.triangles, "landmarks": morphable.landmarks,
            **{f"{name}_scale": scale.astype(np.float32) for name, scale in zip(_BASES, scales)}}


def _misfit(arrays, morphable) -> str:
    """Why weights are not of this model; "" where they are."""
    for name, own in _fingerprint(morphable).items():
        given = arrays[f"model/{name}"]
        if given.shape != own.shape:
            return f"{name} has shape {own.shape}, theirs {given.shape}"
        if own.dtype.kind == "i" and (given != own).any():
            return f"{name} are others"
        if name == "mean_shape" and np.abs(given - own).max() > _SHAPE_TOLERANCE:
            return "the mean face is another"
        if name.endswith("_scale") and (np.abs(given - own) > _SCALE_TOLERANCE * np.abs(given).max(initial=0)).any():
            return f"{name.removesuffix('_scale')} is another"
    return ""
