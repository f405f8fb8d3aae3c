"""Identity metrics of the paper: cosine similarity of face-recognition features of photo and overlay.

LightCNN-29 and face.evoLVe IR-50, each from a weight file that the user converts once from the
published PyTorch checkpoint (``python -m facegcn.assets light-cnn`` and ``ir50``). Converting needs
an optional package, PyTorch or safetensors; test mode needs neither.

What is verified against the two projects' public sources: layer tables, names and shapes of the
weights; LightCNN's input (grey / 255, 128 pixels; its test images have eyes level, the eyes' middle in
row 40 and 48 rows above the mouth's, and in the middle column); IR-50's input (RGB, mean and standard
deviation 0.5, so [-1, 1]), its five template points, its enlargement of the 112 picture to 128 of which
the middle is seen (training sees random parts), and its default of adding the feature of the mirrored
picture. What is not: the paper does not say how it cropped, which version of LightCNN-29 it used, or
whether it mirrored; nothing here was checked against its numbers or the published weights. ArcFace's
paper divides by 128 where face.evoLVe divides by 127.5.

Letters: B photos, S side of a network's input, pixels count from the picture's corner.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import keras
import numpy as np

from facegcn.config import Config
from facegcn.errors import UserError
from facegcn.files import digest
from facegcn.identity import ir50, light_cnn
from facegcn.identity.torch_weights import (
    assign_weights,
    fitting_arrays,
    load_converted,
    read_state_dict,
    save_converted,
)
from facegcn.landmarks import FIVE_POINT_LANDMARKS

#: ArcFace's template, pixel centres of a 112 picture: eyes, nose tip, mouth corners.
ARCFACE_TEMPLATE = ((38.29459953, 51.69630051), (73.53179932, 51.50139999), (56.02519989, 71.73660278),
                    (41.54930115, 92.3655014), (70.72990036, 92.20410156))
_ENLARGED = 128  # pixels: what face.evoLVe makes of 112, and sees the middle 112 of
_LIGHT_CNN_EYES = (64.0, 40.0)  # pixel centre, column and row of the eyes' middle in a 128 picture
_LIGHT_CNN_EYES_TO_MOUTH = 48.0  # pixels
_SUPERFLUOUS = ("num_batches_tracked",)


# ---------------------------------------------------------------- alignment
def light_cnn_transform(points: np.ndarray) -> np.ndarray | None:
    """LightCNN's alignment of five points (5, 2): the eyes level, eyes and mouth at fixed rows.

    Returns:
        (2, 3) similarity to pixels of its 128 picture; None when the points lie on each other or
        the mouth is not below the eyes.
    """
    points = np.asarray(points, np.float64)
    eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
    along = points[1] - points[0]
    length = np.linalg.norm(along)
    if not length > 0.0:
        return None
    cosine, sine = along / length
    rotation = np.array([[cosine, sine], [-sine, cosine]])
    below = rotation[1] @ (mouth - eyes)
    if not below > 1e-3 * length:
        return None
    matrix = rotation * (_LIGHT_CNN_EYES_TO_MOUTH / below)
    return np.column_stack([matrix, np.add(_LIGHT_CNN_EYES, 0.5) - matrix @ eyes])


def ir50_transform(points: np.ndarray) -> np.ndarray | None:
    """IR-50's alignment of five points (5, 2): the similarity nearest to ArcFace's template, enlarged.

    Least squares over template pixels, without reflection (S. Umeyama 1991).

    Returns:
        (2, 3) to pixels of the middle 112 of the enlarged picture; None when the points lie on each other.
    """
    template = (np.array(ARCFACE_TEMPLATE) + 0.5) * (_ENLARGED / ir50.INPUT_SIZE)
    template -= (_ENLARGED - ir50.INPUT_SIZE) / 2
    # A similarity of the plane is a product and a sum of complex numbers.
    there, here = (np.asarray(p, np.float64) @ (1.0, 1.0j) for p in (template, points))
    centred = here - here.mean()
    spread = np.sum(np.abs(centred) ** 2)
    if not spread > 0.0:
        return None
    factor = np.vdot(centred, there) / spread
    offset = there.mean() - factor * here.mean()
    return np.array([[factor.real, -factor.imag, offset.real], [factor.imag, factor.real, offset.imag]])


def warp_similar(image: np.ndarray, transform: np.ndarray, size: int) -> np.ndarray:
    """A picture (H, W, 3) float32 carried through a (2, 3) similarity onto (size, size, 3); zero where it ends."""
    scale = np.sqrt(abs(np.linalg.det(transform[:, :2])))
    finer = max(1, int(1.0 / scale)) if scale > 0 else 1  # a strong reduction averages, so that no pixel is skipped
    moved = transform * finer
    # OpenCV counts from the first pixel's centre.
    moved[:, 2] += moved[:, :2] @ (0.5, 0.5) - 0.5
    warped = cv2.warpAffine(image, moved, (size * finer, size * finer), flags=cv2.INTER_LINEAR)
    return cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA) if finer > 1 else warped


# ---------------------------------------------------------------- networks
@dataclass(frozen=True)
class Architecture:
    """A face-recognition network and how its project feeds it.

    Attributes:
        title: for messages.
        command: subcommand of ``python -m facegcn.assets`` that converts its weights.
        build: makes the Keras network.
        size: S of its input.
        transform: five points (5, 2) -> (2, 3) or None.
        prepare: RGB (B, S, S, 3) in [0, 1] -> the network's input.
        mirrored: whether the features of picture and mirror image are added.
        superfluous: ends of names in published weights that are of no use here.
    """

    title: str
    command: str
    build: Callable[[], keras.Model]
    size: int
    transform: Callable[[np.ndarray], np.ndarray | None]
    prepare: Callable[[np.ndarray], np.ndarray]
    mirrored: bool
    superfluous: tuple[str, ...]


def _grey(images: np.ndarray) -> np.ndarray:
    """ITU-R BT.601 luma, as the grey pictures that LightCNN learnt from."""
    return (images @ np.float32([0.299, 0.587, 0.114]))[..., None]


def _signed(images: np.ndarray) -> np.ndarray:
    return images * 2.0 - 1.0


def _light_cnn(title, version):
    return Architecture(title, "light-cnn", functools.partial(light_cnn.build_light_cnn, version),
                        light_cnn.INPUT_SIZE, light_cnn_transform, _grey, False,
                        (*_SUPERFLUOUS, "fc2.weight", "fc2.bias"))


ARCHITECTURES = {
    "light_cnn_29": _light_cnn("LightCNN-29", 1),
    "light_cnn_29_v2": _light_cnn("LightCNN-29 v2", 2),
    "ir50": Architecture("face.evoLVe IR-50", "ir50", ir50.build_ir50, ir50.INPUT_SIZE, ir50_transform, _signed,
                         True, _SUPERFLUOUS)}


def convert_recognizer(command: str, source: str, out: str) -> str:
    """Converts a published checkpoint; the version of LightCNN-29 is recognised by its feature layer.

    Args:
        command: ``light-cnn`` or ``ir50``.
        source: PyTorch checkpoint or ``.safetensors``.
        out: ``.npz`` to write, see ``facegcn.identity.torch_weights.save_converted``.

    Returns:
        the key of ``ARCHITECTURES``.

    Raises:
        UserError: source cannot be read or does not fit; out cannot be written.
    """
    arrays = read_state_dict(source)
    name = command
    if command == "light-cnn":
        name = "light_cnn_29" if "fc.filter.weight" in arrays else "light_cnn_29_v2"
    architecture = ARCHITECTURES[name]
    kept = fitting_arrays(architecture.build(), arrays, source, architecture.title, architecture.superfluous)
    save_converted(out, name, kept)
    return name


class FaceRecognizer:
    """A face-recognition network with its project's cropping and scaling.

    Args:
        architecture: see ``ARCHITECTURES``.
        network: its Keras model, with weights.
    """

    def __init__(self, architecture: Architecture, network: keras.Model):
        self._architecture, self._network = architecture, network

    @functools.cached_property
    def digest(self) -> str:
        """Changes with the weights."""
        return digest(*map(np.asarray, self._network.weights))

    @classmethod
    def load(cls, path: str, command: str) -> FaceRecognizer:
        """Reads a converted weight file.

        Raises:
            UserError: absent, not converted, of another network, or unfit; says how to convert.
        """
        try:
            name, arrays = load_converted(path)
        except UserError as error:
            raise UserError(f"{error}: convert the published checkpoint with\n"
                            f"  python -m facegcn.assets {command} --source CHECKPOINT --out {path}") from error
        if name not in ARCHITECTURES or ARCHITECTURES[name].command != command:
            raise UserError(f"{path} holds the weights of '{name}', expected what "
                            f"'python -m facegcn.assets {command}' writes")
        architecture = ARCHITECTURES[name]
        network = architecture.build()
        assign_weights(network, fitting_arrays(network, arrays, path, architecture.title))
        return cls(architecture, network)

    def crops(self, images: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The network's inputs, cut out of pictures.

        Args:
            images: (B, H, W, 3) RGB in [-1, 1].
            points: (B, 5, 2) eyes, nose tip, mouth corners, pixels.

        Returns:
            inputs (B, S, S, channels), and (B,) bool: whether the points allow a crop.
        """
        size, transforms = self._architecture.size, [self._architecture.transform(p) for p in points]
        images = np.ascontiguousarray(np.clip(np.asarray(images) * 0.5 + 0.5, 0.0, 1.0), np.float32)
        cut = [np.zeros((size, size, 3), np.float32) if t is None else warp_similar(image, t, size)
               for image, t in zip(images, transforms)]
        return self._architecture.prepare(np.stack(cut)), np.array([t is not None for t in transforms])

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """Features (B, E) of inputs (B, S, S, channels); not normalised."""
        both = np.concatenate([inputs, inputs[:, :, ::-1]]) if self._architecture.mirrored else inputs
        found = np.asarray(self._network(both, training=False))
        return found[:len(inputs)] + found[len(inputs):] if self._architecture.mirrored else found


def load_recognizers(config: Config) -> dict[str, FaceRecognizer]:
    """The recognizers a config names, by their metrics' name (``light_cnn``, ``ir50``); none by default.

    Raises:
        UserError: files are absent or unfit; one message for all.
    """
    recognizers, faults = {}, []
    for name, file, command in (("light_cnn", config.light_cnn_file, "light-cnn"), ("ir50", config.ir50_file, "ir50")):
        if file:
            try:
                recognizers[name] = FaceRecognizer.load(config.path(file), command)
            except UserError as error:
                faults.append(f"{name}_file: {error}")
    if faults:
        raise UserError("\n".join(faults))
    return recognizers


def identity_metrics(recognizers: Mapping[str, FaceRecognizer], photos: np.ndarray, overlays: Mapping[str, np.ndarray],
                     landmarks: np.ndarray) -> list[dict[str, float]]:
    """Cosine similarity of every recognizer's feature of overlays with that of their photo.

    All pictures of a face are cropped alike, by the reconstruction's landmarks.

    Args:
        recognizers: by name.
        photos: (B, H, W, 3) RGB in [-1, 1].
        overlays: likewise, by kind (``coarse``, ``fine``).
        landmarks: (B, 68, 2) projected, pixels.

    Returns:
        of each photo, ``KIND_NAME`` -> cosine in [-1, 1]; NaN where the landmarks allow no crop.
    """
    rows = [{} for _ in photos]
    points = np.stack([landmarks[:, list(group)].mean(axis=1) for group in FIVE_POINT_LANDMARKS], axis=1)
    for name, recognizer in recognizers.items():
        (inputs, usable), *others = (recognizer.crops(images, points) for images in (photos, *overlays.values()))
        first, *rest = np.split(recognizer.features(np.concatenate([inputs, *(cut for cut, _ in others)])),
                                1 + len(others))
        for kind, features in zip(overlays, rest):
            for row, cosine, possible in zip(rows, cosine_similarity(first, features), usable):
                row[f"{kind}_{name}"] = float(cosine) if possible else float("nan")
    return rows


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(B,) cosine of the angle between rows of (B, E) arrays; NaN for a row of zeros."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.divide(np.sum(a * b, axis=-1), lengths, out=np.full(lengths.shape, np.nan), where=lengths > 0)
