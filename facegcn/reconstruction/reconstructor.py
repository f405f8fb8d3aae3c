"""Test mode: photos in; renders, overlays, meshes, coefficients and metrics out."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from facegcn import camera
from facegcn.errors import PhotoError, UserError, log
from facegcn.fitting import CoefficientFit
from facegcn.identity.recognizers import identity_metrics
from facegcn.landmarks import known_dense
from facegcn.photos.packed_photos import to_network_range
from facegcn.photos.reading import read_image
from facegcn.photos.refinement import refine_mask
from facegcn.reconstruction import evaluation
from facegcn.reconstruction.detail import DetailStep
from facegcn.reconstruction.face import Face, FaceTools
from facegcn.reconstruction.face_files import OVERVIEW, FaceFiles, Wanted
from facegcn.reconstruction.jobs import Job, Photo, PhotosAhead
from facegcn.reconstruction.journal import Journal
from facegcn.reconstruction.report_pictures import KeptFaces
from facegcn.reconstruction.results import NO_ROOM, Overview, forget_journal, shown
from facegcn.report import overlay, to_uint8
from facegcn.training.encoding import PhotoEncoder

_TRAINED = "texture network"
_COMPLETED = "not trained: the coarse texture completed with the colours seen in the photo"
_EVEN_LIGHT = 0.3  # brings the constant harmonic's 0.8 up to a shading of about 1
_SIDE_ANGLE = np.radians(30.0)  # the overview also shows the fine face from this far to the side
_HEADINGS = ("photo", "coarse", "fine", "fine from 30 degrees")
_FIRST = 2  # photos of the first batch
_WRITERS = 2  # photos whose files are written at a time
_LONGEST_REASON = 500  # letters: TensorFlow's are pages long
_TELL_SECONDS = 60.0  # after which metrics are written anew, of the photos so far


class Faces(NamedTuple):
    """What is found in a batch of photos.

    Attributes:
        rgba: (B, H, W, 4) the photos in the networks' range, estimated masks without what the fit cannot explain.
        coeff: (B, K) coefficients.
        outputs: the dict of ``FaceModel.reconstruct``, the fine face with the photo's detail where that is added.
        fit: what the fit of the coefficients says of itself; None where they are the regressor's.
    """

    rgba: tf.Tensor
    coeff: np.ndarray
    outputs: dict
    fit: CoefficientFit | None

    def outputs_of_each(self) -> list[dict[str, np.ndarray]]:
        """Arrays of each photo's face, as ``face.Face`` takes them."""
        arrays = {key: np.asarray(value) for key, value in self.outputs.items() if key != "rasterization"}
        return [{key: value[i] for key, value in arrays.items()} for i in range(len(self.coeff))]

    def quality(self) -> list[dict[str, float]]:
        """What the fit says of itself, by photo; empty dicts where nothing was fitted."""
        if self.fit is None:
            return [{}] * len(self.coeff)
        columns = {"landmark_residual": self.fit.landmark_residual, "unexplained": self.fit.unexplained,
                   "skin_seen": self.fit.seen}
        return [{name: float(values[i]) for name, values in columns.items()} for i in range(len(self.coeff))]


class PhotosToFaces:
    """Test mode without its files: coefficients, textured faces and their renders of photos in memory.

    Args:
        face_model: with a regressor; without a texture network the coarse texture is completed
            with the colours seen in the photo, where the model has ``delit``.
        fitter: fits the regressed coefficients to the photo (``fitting.CoefficientFitter``); None = they stay.
        detail: fine detail of the photo is added behind the network (facegcn.reconstruction.detail).
    """

    def __init__(self, face_model, fitter=None, detail: bool = False):
        self.face_model = face_model
        self._encode = PhotoEncoder(face_model, fitter)
        morphable = face_model.morphable
        self._detail = DetailStep(morphable.triangles, morphable.vertex_count) if detail else None

    def __call__(self, photos: Sequence[Photo]) -> Faces:
        """The faces of some photos, found together."""
        rgba = to_network_range(np.stack([photo.rgba for photo in photos]))
        (coeff, embedding), fit = self._encode(rgba, np.stack([photo.targets for photo in photos]),
                                               np.stack([known_dense(photo.dense) for photo in photos]))
        coarse = self.face_model.coarse(coeff)
        if fit is not None:
            checked = refined(photos, coarse["coarse_render"])
            if any(one.rgba is not other.rgba for one, other in zip(photos, checked)):
                rgba = to_network_range(np.stack([photo.rgba for photo in checked]))
        outputs = self.face_model.reconstruct(rgba, coeff, embedding, coarse=coarse)
        return Faces(rgba, coeff, self._detailed(rgba, outputs), fit)

    def _detailed(self, rgba, outputs):
        """Outputs of FaceModel.reconstruct after the detail step, with ``fine_light`` (B, N, 3): the light that
        its albedo is seen in, what makes up a single photo's noise and gloss aside."""
        if self._detail is None:
            outputs["fine_light"] = tf.maximum(outputs.get("fine_shading", outputs["shading"]), 0.0)
            return outputs
        raster = outputs["rasterization"]
        shading = outputs.get("fine_shading", outputs["shading"])
        rgba, ids, barycentrics, albedo, shading, normals, sampled = (np.asarray(array) for array in (
            rgba, raster.triangle_ids, raster.barycentrics, outputs["fine_texture"], shading, outputs["normals"],
            outputs["projected_color"]))
        found = [self._detail(albedo[i] * 0.5 + 0.5, shading[i], normals[i, :, 2], sampled[i, :, 3],
                              rgba[i, ..., :3] * 0.5 + 0.5, rgba[i, ..., 3] > 0.5, ids[i], barycentrics[i])
                 for i in range(len(rgba))]
        fine = np.stack([detail.albedo for detail in found])
        light = np.float32(np.maximum(shading, 0.0) * np.stack([detail.light for detail in found]))
        lit = np.float32(np.stack([detail.lit for detail in found]))
        outputs.update(fine_texture=(fine * 2.0 - 1.0).astype(np.float32), fine_color=lit * 2.0 - 1.0,
                       fine_light=light, fine_render=self.face_model.render(raster, lit))
        return outputs


class Reconstructor:
    """Runs photos through a FaceModel in batches and writes every file of test mode.

    No photo ends the others: one that cannot be loaded, reconstructed or written gets a status and a reason. While a
    batch is reconstructed, others write the files of the batch before, and another loads the photos of the next.

    Args:
        face_model, fitter, detail: as for ``PhotosToFaces``.
        output: folder; made when absent.
        recognizers: measure identity (facegcn.identity.recognizers.load_recognizers); none by default.
        debug: show the traceback of each failure.
        tools: what files of this model's faces need (``face.FaceTools``); default: textures of the usual size.
        wanted: which files (``face_files.Wanted``).
        kept: keeps what ``report.html`` will show (``report_page.kept_faces``), where it is to be written.
        journal: is told of each photo that is done; what it knows of an earlier run stays.

    Attributes:
        overview: pages of pictures of the photos, ``results.Overview``.
    """

    def __init__(self, face_model, output: str, fitter=None, recognizers=None, debug: bool = False, detail=False,
                 tools: FaceTools | None = None, wanted: Wanted | None = None, kept: KeptFaces | None = None,
                 journal: Journal | None = None):
        self._model, self._output = face_model, output
        self._tools, self._wanted = tools or FaceTools(face_model.morphable), wanted or Wanted()
        self._files = FaceFiles(output, self._wanted, kept)
        self._recognizers, self._debug = recognizers or {}, debug
        self._faces_of = PhotosToFaces(face_model, fitter, detail)
        self._completed = face_model.texture_network is None
        os.makedirs(output, exist_ok=True)
        self._journal, self._told = journal, time.monotonic()
        self.overview = Overview(output, _HEADINGS, *(() if journal is None else (journal.pages, journal.add_page)))

    def run(self, photos: PhotosAhead) -> dict[str, dict]:
        """Reconstructs the jobs of photos; writes ``metrics.json`` / ``.csv`` and the overview, after an interruption,
        too.

        Returns:
            by name, status, reason and metrics of each photo whose turn came.

        Raises:
            OSError: the disk is full or read-only; what was written before is whole.
        """
        jobs = photos.jobs
        self.overview.expect([job.name for job in jobs])
        try:
            with photos, ThreadPoolExecutor(1, "facegcn-files") as pool, \
                    tqdm(total=len(jobs), desc="reconstructing", unit="photo", dynamic_ncols=True) as bar:
                self._run(photos, pool, bar)
        except BaseException:
            if any(job.status for job in jobs):  # else what is there still holds
                with contextlib.suppress(OSError):
                    self._finish(jobs)
            log.warning("%d of %d photos were written to %s before the end", sum(job.written for job in jobs),
                        len(jobs), self._output)
            raise
        rows = self._finish(jobs)
        if self._journal is not None:
            self._journal.begin()  # where nothing was overwritten
        self.overview.tidy()
        return rows

    def _run(self, photos, pool, bar):
        """Reconstructs batch by batch here, and writes them in a pool's one thread; returns when all is written."""
        ending = threading.Event()

        def written(writing):
            writing.result()
            bar.update(sum(bool(job.status) for job in photos.jobs) - bar.n)  # photos that were not to be written, too

        try:
            writing = pool.submit(self._files.prepare, self._tools)  # while the first batch is reconstructed
            self._show_again(photos.jobs)
            for batch in self._batches(photos):
                if not batch:
                    written(writing)
                    self._tell(photos.jobs)
                    continue
                found = self._reconstructed(batch)
                written(writing)  # one batch at a time waits in memory to be written
                writing = pool.submit(self._write_batch, found, ending, bar)
                if time.monotonic() > self._told + _TELL_SECONDS:
                    self._tell(photos.jobs)
            written(writing)
        except BaseException:
            ending.set()
            raise

    def _show_again(self, jobs) -> None:
        """Takes photos that an earlier run did, but for those on its whole pages, into the overview."""
        for job in () if self._journal is None else self._journal.off_page(jobs):
            with contextlib.suppress(PhotoError):  # a damaged picture costs its row alone
                self.overview.add(job.name, self._row_again(job.name))

    def _row_again(self, name) -> list[np.ndarray]:
        """A photo's row of the overview as an earlier run kept it; or of its files, without the view from the side."""
        try:
            return self.overview.kept(name)
        except PhotoError:
            return [read_image(os.path.join(self._output, f"{name}_{kind}.png")) for kind in OVERVIEW]

    def _finish(self, jobs):
        """Writes metrics and the last overview page."""
        rows = self._tell(jobs)
        self.overview.finish()
        return rows

    def _tell(self, jobs):
        """Writes metrics of all photos whose turn came."""
        rows = {job.name: {"status": job.status, **({"reason": shown(job.message)} if job.message else {}),
                           **job.metrics} for job in jobs if job.status}
        about = {"fine_texture": _COMPLETED if self._completed else _TRAINED}
        if len(rows) < len(jobs):
            about["interrupted_before"] = len(jobs) - len(rows)
        evaluation.write_metrics(self._output, rows, **about)
        self._told = time.monotonic()
        return rows

    # ---------------------------------------------------------------- photo by photo
    def _batches(self, photos) -> Iterator[list[tuple[Job, Photo]]]:
        """Pairs of jobs and their photos, as many at a time as are reconstructed together; at first a few, so that
        results appear, and files are written beside what follows, early. An empty list where all must be written before
        the next photo, a suspect, is loaded."""
        ready, size = [], min(_FIRST, photos.batch_size)
        for job, photo in tqdm(photos, desc="reading photos", total=len(photos.jobs), unit="photo", dynamic_ncols=True,
                               leave=False):
            ready += self._loaded(job, photo)
            del photo
            if len(ready) == size:
                yield ready
                ready, size = [], photos.batch_size
        if ready:
            yield ready
        if any(job.suspect for job in photos.jobs):
            yield []
        for job, photo in photos.alone():
            if ready := self._loaded(job, photo):
                yield ready
            yield []

    def _loaded(self, job, photo) -> list[tuple[Job, Photo]]:
        """A job and its photo, of which ``photo`` is the Future; nothing where it cannot be used."""
        try:
            return [(job, photo.result())]
        except PhotoError as error:
            job.status, job.message = error.status, shown(str(error))
            if _may_pass(error):
                self._leave(job)
            else:
                self._record(job)
        except Exception as error:
            self._failed(job, error)
        return []

    def _failed(self, job, error) -> None:
        """Notes that a photo cannot be used for an unforeseen reason."""
        job.status, job.written = "failed", False
        foreseen = isinstance(error, (OSError, UserError))
        words = str(error) if foreseen else f"{type(error).__name__}: {' '.join(str(error).split())}"
        job.message = shown(words)[:_LONGEST_REASON]
        self._leave(job)
        if self._debug:
            log.warning("%s:", job.name, exc_info=error)

    def _reconstructed(self, pairs: list[tuple[Job, Photo]]) -> list[tuple]:
        """Arguments of ``_write`` of some photos, reconstructed together; when they fail together, each on its own."""
        try:
            faces = self._faces_of([photo for _, photo in pairs])
            return [(*pair, *result) for pair, result in zip(pairs, self._results(faces))]
        except Exception as error:
            if len(pairs) == 1:
                self._failed(pairs[0][0], error)
                return []
        return [found for pair in pairs for found in self._reconstructed([pair])]

    def _write_batch(self, results: list[tuple], ending: threading.Event, bar: tqdm) -> None:
        """Writes results until the end of the run has come; raises OSError where no other can be written, either."""
        def write(job, *result):
            return None if ending.is_set() else self._write(job, *result)

        with ThreadPoolExecutor(_WRITERS, "facegcn-files") as writers:
            writing = [(result[0], writers.submit(write, *result)) for result in results]
            for job, written in writing:
                try:
                    row = written.result()
                except Exception as error:
                    self._failed(job, error)
                    if isinstance(error, OSError) and error.errno in NO_ROOM:
                        ending.set()
                        raise
                    row = None
                if row is not None:
                    self.overview.add(job.name, row)
                if job.status:
                    bar.update()

    # ---------------------------------------------------------------- networks
    def _results(self, faces: Faces) -> Iterator[tuple]:
        """Of each photo: in network range, coefficients, outputs of the model, side view, what is measured so far."""
        rgba, side = faces.rgba.numpy(), self._side_view(faces.outputs, faces.coeff)
        measured = zip(faces.quality(), self._identity(rgba, faces.outputs))
        for i, (single, (quality, identity)) in enumerate(zip(faces.outputs_of_each(), measured)):
            yield rgba[i], faces.coeff[i], single, side[i], {**quality, **identity}

    def _identity(self, rgba, outputs):
        """Identity metrics of each photo's overlays, as dicts; empty ones without recognizers."""
        overlays = {kind: np.asarray(overlay(outputs[f"{kind}_render"], rgba)) for kind in ("coarse", "fine")}
        return identity_metrics(self._recognizers, rgba[..., :3], overlays, self._pixels(outputs["landmarks"]))

    def _pixels(self, points):
        """Projected points from [-1, 1] to pixels of the crop."""
        return camera.to_pixels(points, self._model.image_size).numpy()

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

    # ---------------------------------------------------------------- files
    def _record(self, job) -> None:
        if self._journal is not None:
            self._journal.add(job)

    def _leave(self, job) -> None:
        if self._journal is not None:
            self._journal.note_left(job)

    def _face(self, photo, rgba, coeff, outputs) -> Face:
        return Face(self._tools, photo.picture(), photo.transform, rgba[..., 3] > 0.5, coeff, outputs)

    def _write(self, job, photo, rgba, coeff, outputs, side, measured):
        """All files of one photo and its metrics; returns its row of the overview."""
        face = self._face(photo, rgba, coeff, outputs)
        if self._journal is None:
            forget_journal(self._output)
        else:
            self._journal.begin()
        pictures, metrics = self._files.write(job.name, face, rgba, outputs)
        if photo.truth is not None:
            metrics.update(evaluation.truth_metrics(photo.truth, self._pixels(outputs["landmarks"]), outputs))
        job.status, job.written = photo.status, True
        job.message = "; ".join(filter(None, (job.remark, photo.remark)))
        job.metrics = {**metrics, **measured}
        row = [*pictures, to_uint8(side[..., :3])]
        self.overview.keep(job.name, row)
        self._record(job)
        return row


def _may_pass(error: PhotoError) -> bool:
    """Whether a photo that cannot be used now may be another time, unchanged: the system refused to read it, had no
    memory left, or a package is missing. What decoders say of damaged files has no number of an error."""
    cause = error.__cause__
    return isinstance(cause, (MemoryError, ImportError)) or isinstance(cause, OSError) and cause.errno is not None


def refined(photos: Sequence[Photo], renders) -> list[Photo]:
    """The photos, estimated masks without what the coarse face, drawn (B, H, W, 4), cannot explain; never empty."""
    found = []
    for photo, render in zip(photos, np.asarray(renders)):
        if photo.estimated:
            mask = refine_mask(photo.rgba, to_uint8(render[..., :3]), render[..., 3], dense=photo.dense)
            if mask.any() and (mask != photo.rgba[..., 3]).any():
                photo = photo._replace(rgba=np.dstack([photo.rgba[..., :3], mask]))
        found.append(photo)
    return found
