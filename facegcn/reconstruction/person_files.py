"""Person mode's files: those of each photo, with one identity and albedo, and of the person whom all show."""

from __future__ import annotations

import json
import os

import numpy as np

from facegcn.errors import UserError, log
from facegcn.files import write_text
from facegcn.person_fitting import FAR
from facegcn.reconstruction.face import Face
from facegcn.reconstruction.jobs import Job, Photo
from facegcn.reconstruction.person import Person, reconstruct_person
from facegcn.reconstruction.reconstructor import Reconstructor
from facegcn.reconstruction.results import result_names
from facegcn.texture.baking import BakedTextures

_NAME = "person"  # of the merged face's files
_LEFT_OUT = "left out"
_SHARPEST = 4.0  # power of a texel's confidence by which photos are averaged: nearly the best one's
_LITTLE = 1e-3  # confidence where no photo shows a texel: all have the same there


class PersonReconstructor(Reconstructor):
    """Writes test mode's files of several photos that show one person, and those of the person.

    Arguments as for ``Reconstructor``; the fitter is needed.

    Attributes:
        name: stem of the person's own files.
    """

    def __init__(self, face_model, output, fitter=None, recognizers=None, debug=False, detail=False, tools=None,
                 wanted=None, kept=None, journal=None):
        super().__init__(face_model, output, fitter, recognizers, debug, detail, tools, wanted, kept, journal)
        self._how, self.name = (face_model, fitter, detail), _NAME
        self._merged, self._best, self._done = None, None, False

    def _run(self, photos, pool, bar):
        self.name = result_names([*(job.name for job in photos.jobs), _NAME])[-1]
        writing = pool.submit(self._files.prepare, self._tools)
        pairs = [pair for batch in self._batches(photos) for pair in batch]
        if not pairs:
            writing.result()
            return
        person = reconstruct_person(*self._how, [photo for _, photo in pairs], [job.name for job, _ in pairs])
        writing.result()
        self._note(person, [job for job, _ in pairs])
        places = iter(person.used)
        for faces in person.faces():
            for result in self._results(faces):
                job, photo = pairs[next(places)]
                try:
                    self.overview.add(job.name, self._write(job, photo, *result))
                except OSError as error:
                    self._failed(job, error)
                    raise
                bar.update()
        bar.update(len(photos.jobs) - bar.n)
        self._write_person(person)

    def _finish(self, jobs):
        """Metrics and overview of the photos, and in them the person's own line."""
        own = Job(self.name, Photo, status="ok", message=f"one face of {sum(job.written for job in jobs)} photos")
        return super()._finish([*jobs, own] if self._done else jobs)

    def _note(self, person: Person, jobs) -> None:
        """Says of each photo whether it takes part."""
        for job in jobs:
            row = person.report["photos"][job.name]
            if not row["used"]:
                job.status, job.message = _LEFT_OUT, row["reason"]
        apart = [row["distance"] for row in person.report["photos"].values() if row["used"] and "distance" in row]
        if apart and np.median(apart) > FAR:
            log.warning("these photos may not show one person: they are %.1f variances apart in the median, where up "
                        "to %g are usual. Look at each, and leave out others' photos", np.median(apart), FAR)
        log.info("one person of %d photos%s", person.report["used"],
                 f", {person.report['left_out']} left out" if person.report["left_out"] else "")

    def _face(self, photo, rgba, coeff, outputs) -> Face:
        face = super()._face(photo, rgba, coeff, outputs)
        seen = float(np.asarray(outputs["projected_color"])[..., 3].sum())
        if self._best is None or seen > self._best[0]:
            self._best = (seen, face, rgba, outputs)
        if self._wanted.texture:
            self._merge(face.textures)
        return face

    def _merge(self, textures: BakedTextures) -> None:
        """Adds a photo's texels to the person's, by their confidence."""
        confidence = textures.confidence.astype(np.float32)[..., None] / 255.0
        weight = confidence ** _SHARPEST + _LITTLE ** _SHARPEST
        if self._merged is None:
            self._merged = [np.zeros(textures.albedo.shape, np.float32), np.zeros_like(weight), np.zeros_like(
                textures.visibility), np.zeros_like(textures.confidence)]
        albedo, total, visibility, most = self._merged
        albedo += weight * textures.albedo
        total += weight
        np.maximum(visibility, textures.visibility, out=visibility)
        np.maximum(most, textures.confidence, out=most)

    def _write_person(self, person: Person) -> None:
        """The merged face, as the photo that shows most of it has it, and what the photos had to say."""
        if self._best is None:
            raise UserError("no photo of the person could be used")
        _, face, rgba, outputs = self._best
        if self._wanted.texture:
            albedo, total, visibility, confidence = self._merged
            textures = BakedTextures(np.uint8(np.round(albedo / total)), face.textures.lit, visibility, confidence)
            face = Face(self._tools, face.picture, face.transform, face.mask, face.coeff, outputs, textures=textures)
        self._files.write(self.name, face, rgba, outputs)
        write_text(os.path.join(self._output, f"{self.name}.json"), json.dumps(person.report, indent=2) + "\n")
        self._done = True
