"""A film of one person: one identity and albedo, and pose, expression and light of every frame.

First some frames that show the face well make the person (``video_person``). Then the film is read once more, frame by
frame, and each is fitted with identity and albedo held (``video_track``); nothing of a frame is kept but numbers, which
are smoothed in time. A last reading draws the overlay (``video_files``). So memory does not grow with the film.
"""

from __future__ import annotations

import os

import numpy as np

from facegcn.errors import UserError, log
from facegcn.photos.frames import Film
from facegcn.reconstruction import evaluation
from facegcn.reconstruction.face import Face, FaceTools
from facegcn.reconstruction.face_files import FaceFiles, Wanted
from facegcn.reconstruction.film_camera import FilmCamera
from facegcn.reconstruction.results import forget_journal, result_names
from facegcn.reconstruction.video_files import FilmFiles
from facegcn.reconstruction.video_person import person_of
from facegcn.reconstruction.video_track import FILLED, SEEN, track_film


def reconstruct_video(config, face_model, fitter, tools: FaceTools, film: Film, output: str,
                      wanted: Wanted | None = None) -> dict:
    """Reconstructs a film and writes its files, each whole or not at all.

    Args:
        config: facegcn.config.Config; says whether detail is added.
        face_model: with a regressor.
        fitter: ``fitting.CoefficientFitter``.
        tools: what files of this model's faces need.
        film: see ``frames.open_film``.
        output: folder of the results; there.
        wanted: which files of the best frame's face, and whether any that show its texture.

    Returns:
        what was measured: ``frames``, ``seen``, ``filled``, ``landmark_residual`` in pixels of a 224 crop.

    Raises:
        UserError: the film shows no face, or none that can be followed; config fits nothing; or the model lacks dense
            landmarks.
        OSError: a file cannot be written.
    """
    wanted = Wanted() if wanted is None else wanted
    if fitter is None or fitter.morphable.embedding is None:
        raise UserError("a film is followed by dense landmarks, and this config fits nothing to them: set fit=true")
    name = result_names([os.path.splitext(os.path.basename(film.path))[0]])[0]
    person = person_of(film, face_model, fitter, config.detail)
    camera = FilmCamera.of([photo.transform for photo in person.photos], face_model.image_size, film.size)
    measured, picture = track_film(film, fitter, person, camera)
    track = measured.smoothed()
    face = Face(tools, picture, person.photos[person.place].transform, person.rgba[..., 3] > 0.5,
                person.coeff[person.place], person.outputs)
    forget_journal(output)
    _, metrics = FaceFiles(output, wanted).write(name, face, person.rgba, person.outputs)
    figures = {"frames": len(film), "seen": int((track.state == SEEN).sum()),
               "filled": int((track.state == FILLED).sum()),
               "landmark_residual": float(np.nanmedian(measured.residual))}
    evaluation.write_metrics(output, {name: {"status": "ok", **metrics, **figures}})
    files = FilmFiles(os.path.join(output, name), film, camera, face, tools, measured, track)
    files.write_numbers()
    if wanted.texture:
        files.write_acting()
        files.write_overlay(person.trust)
    log.info("%d frames: %d with the face, %d filled in; written to %s", figures["frames"], figures["seen"],
             figures["filled"], output)
    return figures
