"""Test mode: photos in; renders, overlays, meshes, coefficients and metrics out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from facegcn import camera, export
from facegcn.errors import PhotoError
from facegcn.identity.recognizers import identity_metrics
from facegcn.landmarks import LANDMARK_COUNT, landmark_targets, points_beside
from facegcn.photos import packed_file
from facegcn.photos.alignment import align_photo
from facegcn.photos.packed_photos import PackedPhotos, to_network_range
from facegcn.photos.reading import read_photo
from facegcn.photos.skin import crop_mask
from facegcn.reconstruction import evaluation
from facegcn.reconstruction.completion import complete_texture
from facegcn.report import contact_sheet, overlay, to_uint8, write_png
from facegcn.sampling import delit_colors
from facegcn.training.encoding import PhotoEncoder

_TRAINED = "texture network"
_COMPLETED = "not trained: the coarse texture completed with the colours seen in the photo"
_SHEET_PHOTOS = 24  # rows of the overview picture
_EVEN_LIGHT = 0.3  # brings the constant harmonic's 0.8 up to a shading of about 1
_SIDE_ANGLE = np.radians(30.0)  # the overview also shows the fine face from this far to the side


@dataclass
class Job:
    """One photo on its way through test mode.

    Attributes:
        name: stem of the output files.
        status: ``ok``, ``several faces, the largest used``, ``no face``, ``unreadable``,
            ``bad points``, ``no skin``.
        message: why there is no result, and the cure.
        rgba: (S, S, 4) uint8 aligned crop with skin alpha; None without a result.
        targets: (73, 2) landmark targets, pixels of the crop.
        transform: (2, 3) photo pixels -> crop pixels; the identity for segmented input.
        truth: arrays of a made portrait's truth, or None.
        metrics: filled in by ``Reconstructor``.
    """

    name: str
    status: str
    message: str = ""
    rgba: np.ndarray | None = None
    targets: np.ndarray = field(default_factory=lambda: landmark_targets(None))
    transform: np.ndarray = field(default_factory=lambda: np.eye(2, 3, dtype=np.float32))
    truth: dict | None = None
    metrics: dict = field(default_factory=dict)


def load_jobs(paths: list[str], morphable, size: int) -> list[Job]:
    """Reads images; two that differ in their ending only keep it in their names, so that no result is lost."""
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    names = [os.path.basename(path) if stems.count(stem) > 1 else stem for path, stem in zip(paths, stems)]
    return [load_job(path, name, morphable, size)
            for path, name in zip(tqdm(paths, desc="aligning photos", unit="photo", dynamic_ncols=True), names)]


def load_job(path: str, name: str, morphable, size: int) -> Job:
    """Reads one image: what says that it is an aligned crop of ours as it is, any other photo aligned and masked."""
    try:
        photo = read_photo(path)
        points = points_beside(path)
        if photo.is_crop(size):
            truth = _truth(path, os.path.splitext(os.path.basename(path))[0])
            # A made portrait's exact landmarks are for measuring; no photo comes with such.
            targets = _targets(points) if truth is None else landmark_targets(None)
            return Job(name, "ok", rgba=photo.image, targets=targets, truth=truth)
        aligned = align_photo(photo.image, points, morphable.five_points, size)
        mask = crop_mask(aligned)
    except PhotoError as error:
        return Job(name, error.status, message=str(error))
    if not mask.any():
        return Job(name, "no skin", message="its skin mask is empty; give a PNG whose alpha marks the skin")
    rgba = np.concatenate([aligned.crop.image, mask[..., None]], axis=-1)
    return Job(name, aligned.status, rgba=rgba, targets=landmark_targets(aligned.points, aligned.landmarks),
               transform=aligned.crop.transform)


def _targets(points: np.ndarray | None) -> np.ndarray:
    """(73, 2) targets of a segmented crop's 5 or 68 points, or of none."""
    if points is None or len(points) != LANDMARK_COUNT:
        return landmark_targets(points)
    return landmark_targets(None, points)


def packed_jobs(packed: PackedPhotos, indices, image_folder: str) -> list[Job]:
    """Jobs of packed photos; a made portrait's truth is looked up in the folder it was packed from."""
    records = packed_file.read_records(packed.path, indices)
    return [Job(packed.names[i], "ok", rgba=record, targets=packed.targets[i],
                truth=_truth(os.path.join(image_folder, packed.names[i]), packed.names[i]))
            for i, record in zip(indices, records)]


def _truth(path: str, name: str) -> dict | None:
    """The truth file of a made portrait, where there is one."""
    file = os.path.join(os.path.dirname(path), "truth", f"{name}.npz")
    if not os.path.exists(file):
        return None
    with np.load(file, allow_pickle=False) as data:
        return {key: data[key] for key in data.files}


class Reconstructor:
    """Runs photos through a FaceModel in batches and writes every file of test mode.

    Args:
        face_model: with a regressor; without a texture network the coarse texture is completed
            with the colours seen in the photo (facegcn.reconstruction.completion).
        adjacency: (N, N) sparse adjacency of the template, for the completion.
        output: folder; made when absent.
        fit_steps: steps of fitting after regression; 0 = none.
        recognizers: measure identity (facegcn.identity.recognizers.load_recognizers); none by default.
    """

    def __init__(self, face_model, adjacency, output: str, fit_steps: int = 0, recognizers=None):
        self._model, self._adjacency, self._output = face_model, adjacency, output
        self._recognizers = recognizers or {}
        self._encode = PhotoEncoder(face_model, fit_steps)
        self.completed = face_model.texture_network is None
        self._rows = {}
        os.makedirs(output, exist_ok=True)

    def run(self, jobs: list[Job], batch_size: int) -> dict[str, dict]:
        """Reconstructs the jobs that have an image; writes ``metrics.json`` / ``.csv`` and the overview.

        Returns:
            the metrics of each photo by name.
        """
        ready = [job for job in jobs if job.rgba is not None]
        with tqdm(total=len(ready), desc="reconstructing", unit="photo", dynamic_ncols=True) as bar:
            for start in range(0, len(ready), batch_size):
                batch = ready[start:start + batch_size]
                self._batch(batch)
                bar.update(len(batch))
        rows = {job.name: {"status": job.status, **job.metrics} for job in jobs}
        evaluation.write_metrics(self._output, rows, fine_texture=_COMPLETED if self.completed else _TRAINED)
        if self._rows:
            contact_sheet(list(self._rows.values()), list(self._rows), os.path.join(self._output, "overview.png"),
                          headings=("photo", "coarse", "fine", "fine from 30 degrees"))
        return rows

    def _batch(self, jobs):
        rgba = to_network_range(np.stack([job.rgba for job in jobs]))
        targets = np.stack([job.targets for job in jobs])
        coeff, embedding = self._encode(rgba, targets)
        outputs = self._reconstruct(rgba, coeff, embedding)
        side = self._side_view(outputs, coeff)
        identity = self._identity(np.asarray(rgba), outputs)
        for i, job in enumerate(jobs):
            single = {key: np.asarray(value[i]) for key, value in outputs.items() if key != "rasterization"}
            self._write(job, np.asarray(rgba[i]), coeff[i], single, side[i])
            job.metrics.update(identity[i])

    def _identity(self, rgba, outputs):
        """Identity metrics of each photo's overlays, as dicts; empty ones without recognizers."""
        overlays = {kind: np.asarray(overlay(outputs[f"{kind}_render"], rgba)) for kind in ("coarse", "fine")}
        landmarks = self._pixels(np.asarray(outputs["landmarks"]))
        return identity_metrics(self._recognizers, rgba[..., :3], overlays, landmarks)

    def _pixels(self, points):
        """Projected points from [-1, 1] to pixels of the crop."""
        return points * (self._model.image_size / 2) + self._model.image_size / 2

    def _reconstruct(self, rgba, coeff, embedding):
        """FaceModel.reconstruct, with the completed texture in place of the network's when untrained."""
        outputs = self._model.reconstruct(rgba, coeff, embedding)
        if self.completed:
            sampled = outputs["projected_color"]
            fine = complete_texture(outputs["coarse_texture"], delit_colors(sampled, outputs["shading"]),
                                    sampled[..., 3], self._adjacency, self._model.morphable.symmetry_pairs)
            lit = tf.clip_by_value((fine * 0.5 + 0.5) * outputs["shading"], 0.0, 1.0)
            outputs.update(fine_texture=fine, fine_color=lit * 2.0 - 1.0,
                           fine_render=self._model.render(outputs["rasterization"], lit))
        return outputs

    def _side_view(self, outputs, coeff):
        """Renders (B, H, W, 4) of the fine face turned to the side, under an even light."""
        size = sum(self._model.morphable.part_sizes[:3])
        turned = np.array(coeff)
        turned[:, size:] = 0.0
        turned[:, size + 3:size + 30:9] = _EVEN_LIGHT
        turned[:, size + 1] = np.where(coeff[:, size + 1] > 0, -_SIDE_ANGLE, _SIDE_ANGLE)
        geometry = self._model.geometry(turned)
        lit = tf.clip_by_value((outputs["fine_texture"] * 0.5 + 0.5) * geometry["shading"], 0.0, 1.0)
        return self._model.render(geometry["rasterization"], lit).numpy()

    def _write(self, job, rgba, coeff, outputs, side):
        """All files of one photo, and its metrics."""
        def path(suffix):
            return os.path.join(self._output, f"{job.name}{suffix}")
        photo, mask = rgba[..., :3], rgba[..., 3] > 0.5
        write_png(path("_input.png"), to_uint8(photo))
        write_png(path("_mask.png"), np.where(mask, 255, 0).astype(np.uint8))
        row = [to_uint8(photo)]
        for kind in ("coarse", "fine"):
            render = outputs[f"{kind}_render"]
            covered = overlay(render, rgba)
            alpha = np.round(render[..., 3:] * 255).astype(np.uint8)
            write_png(path(f"_{kind}.png"), np.concatenate([to_uint8(render[..., :3]), alpha], axis=-1))
            write_png(path(f"_{kind}_overlay.png"), to_uint8(covered))
            found = evaluation.image_metrics(covered * 0.5 + 0.5, photo * 0.5 + 0.5,
                                             mask & (render[..., 3] > 0.5))
            job.metrics.update({f"{kind}_{name}": value for name, value in found.items()})
            export.write_obj(path(f"_{kind}.obj"), outputs["world"], self._model.morphable.triangles,
                             outputs[f"{kind}_texture"] * 0.5 + 0.5)
            row.append(to_uint8(covered))
        export.write_glb(path("_fine.glb"), outputs["world"], self._model.morphable.triangles,
                         outputs["fine_texture"] * 0.5 + 0.5)
        self._write_arrays(path(".npz"), job, coeff, outputs)
        if job.truth is not None:
            job.metrics.update(truth_metrics(job.truth, outputs, self._model.image_size))
        if len(self._rows) < _SHEET_PHOTOS:
            self._rows[job.name] = [*row, to_uint8(side[..., :3])]

    def _write_arrays(self, path, job, coeff, outputs):
        """Everything numeric about one face, see the README's table of output files."""
        parts = self._model.morphable.split(coeff[None])
        np.savez_compressed(
            path, coeff=coeff, **{f"coeff_{name}": part[0] for name, part in parts._asdict().items()},
            vertices=outputs["vertices"], vertices_posed=outputs["world"], normals=outputs["normals"],
            triangles=self._model.morphable.triangles,
            **{key: outputs[key] for key in ("coarse_texture", "fine_texture", "coarse_color", "fine_color")},
            visible=outputs["projected_color"][..., 3],
            landmarks=self._pixels(outputs["landmarks"]),
            camera_position=np.float32([0, 0, camera.CAMERA_DISTANCE]),
            camera_fov_y=np.float32(camera.FOV_Y), image_size=np.int32(self._model.image_size),
            crop_transform=job.transform)


def truth_metrics(truth: dict, outputs: dict, size: int) -> dict[str, float]:
    """Distances of a reconstruction from a made portrait's truth.

    Returns:
        ``landmark_error`` (pixels, mean of 68) and, coarse and fine, ``albedo_visible`` /
        ``albedo_hidden``: mean absolute difference in levels of 255 on vertices that the portrait
        shows / does not show.
    """
    pixels = outputs["landmarks"] * (size / 2) + size / 2
    found = {"landmark_error": float(np.linalg.norm(pixels - truth["landmarks"], axis=1).mean())}
    for kind in ("coarse", "fine"):
        predicted = (outputs[f"{kind}_texture"] + 1.0) * 127.5
        errors = evaluation.texture_errors(predicted, truth["albedo"], truth["visible"])
        found.update({f"{kind}_albedo_{name}": value for name, value in errors.items()})
    return found


def print_summary(rows: dict[str, dict], jobs: list[Job], output: str) -> None:
    """The table of metrics, the reason for each photo without a result, and where the files are."""
    if not jobs:
        print("there was nothing to reconstruct")
        return
    print(evaluation.summary_table(rows))
    for job in jobs:
        if job.message:
            print(f"{job.name}: {job.message}")
    done = sum(job.rgba is not None for job in jobs)
    if done:
        print(f"{done} of {len(jobs)} written to {output}; look at {os.path.join(output, 'overview.png')}")
    else:
        print(f"nothing was written to {output}: none of the {len(jobs)} photos could be used")
