"""Whose film it is: frames that show the face well and unlike each other, and the one person of them.

Letters: N vertices, K coefficients.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from facegcn.errors import PhotoError, UserError, log
from facegcn.landmark_fitting import LandmarkFitter
from facegcn.landmarks import landmark_targets
from facegcn.person_fitting import CHANGE, TURN
from facegcn.photos.alignment import align_photo
from facegcn.photos.frames import Film
from facegcn.photos.skin import crop_mask
from facegcn.photos.warping import scale_of
from facegcn.reconstruction.jobs import Photo
from facegcn.reconstruction.merging import sharpness
from facegcn.reconstruction.person import reconstruct_person
from facegcn.surface_points import dense_points

LOOKED_AT, USED = 40, 12  # frames of a film; of them that the person is made of
_BLURRED = 0.5  # of the median sharpness: a frame that has less is not used
_ROUNDS = 6  # of a quick fit that tells pose and expression


class FilmPerson(NamedTuple):
    """The person of a film.

    Attributes:
        coeff: (B, K) coefficients of the frames that are used; identity and albedo are the same in all.
        albedo: (N, 3) in [0, 1], without light.
        trust: (N,) in it; 0 where no frame shows anything.
        photos: the B frames, as the networks see them.
        best: number of the frame that shows most of the face.
        rgba: (S, S, 4) its crop in the networks' range.
        outputs: arrays of the face in it, by the names of ``FaceModel.reconstruct``.
        place: its place among those that are used.
    """

    coeff: np.ndarray
    albedo: np.ndarray
    trust: np.ndarray
    photos: list[Photo]
    best: int
    rgba: np.ndarray
    outputs: dict
    place: int


def person_of(film: Film, face_model, fitter, detail: bool) -> FilmPerson:
    """The person whom most frames show.

    Args:
        film: to be looked at.
        face_model, fitter, detail: as for ``person.PersonFaces``; the fitter's model has an embedding.

    Raises:
        UserError: no frame that was looked at shows a face; or as ``person.PersonFaces``.
    """
    found = _photos(film, face_model.morphable.five_points, face_model.image_size)
    looked = min(LOOKED_AT, len(film))
    if not found:
        raise UserError(f"{film.path}: no face was found in any of {looked} frames spread over it; give a film that "
                        "shows one face larger and in plain sight")
    frames = _unlike(found, fitter.morphable, face_model.image_size)
    photos = [found[index] for index in frames]
    log.info("a face in %d of %d frames that were looked at; the person is made of %d", len(found), looked, len(frames))
    person = reconstruct_person(face_model, fitter, detail, photos,
                                [f"the frame at {film.times[index]:.2f} s" for index in frames])
    best, place, most = None, 0, -1.0
    for faces in person.faces():
        seen = np.asarray(faces.outputs["projected_color"])[..., 3].sum(axis=1)
        k = int(np.argmax(seen))
        if seen[k] > most:
            most, best = seen[k], (np.asarray(faces.rgba)[k], {
                name: np.asarray(value)[k] for name, value in faces.outputs.items() if name != "rasterization"})
            number = place + k
        place += len(seen)
    return FilmPerson(person.coeff, person.albedo, person.trust, [photos[k] for k in person.used],
                      frames[person.used[number]], *best, number)


def _photos(film: Film, five_points, size) -> dict[int, Photo]:
    """What the networks see of the largest face in some frames, by their numbers."""
    wanted = np.unique(np.linspace(0, len(film) - 1, min(LOOKED_AT, len(film))).round().astype(int))
    found = {}
    for index, picture in tqdm(film.frames(wanted), total=len(wanted), desc="looking for the face", unit="frame",
                               dynamic_ncols=True):
        try:
            aligned = align_photo(picture, None, five_points, size)
        except PhotoError:
            continue
        mask = crop_mask(aligned)
        if mask.any():
            found[index] = Photo(np.dstack([aligned.crop.image, mask]), landmark_targets(aligned.points),
                                 aligned.crop.transform, dense=aligned.dense, estimated=True)
    return found


def _unlike(found: dict[int, Photo], morphable, size) -> list[int]:
    """Numbers of up to ``USED`` sharp frames, each as unlike those before in pose and expression as can be."""
    photos = list(found.values())
    sharp = np.array([sharpness(photo.rgba, 1.0 / scale_of(photo.transform)) for photo in photos])
    sharp = np.minimum(sharp / max(float(np.median(sharp)), 1e-9), 1.0)
    dense = np.stack([photo.dense for photo in photos])
    fit = LandmarkFitter(morphable, dense_points(morphable)).fit(dense[..., :2], dense[..., 2], size, rounds=_ROUNDS)
    like = np.concatenate([fit.angles / TURN, fit.exp / (CHANGE * np.sqrt(fit.exp.shape[1]))], axis=1)
    usable = sharp >= _BLURRED
    # The first is the sharpest of those nearest to the frontal pose.
    chosen = [int(np.argmax(usable * sharp / (1.0 + np.linalg.norm(fit.angles / TURN, axis=1))))]
    while len(chosen) < min(USED, int(usable.sum())):
        apart = np.linalg.norm(like[:, None] - like[None, chosen], axis=2).min(axis=1)
        apart[chosen] = -1.0
        chosen.append(int(np.argmax(np.where(usable, apart * sharp, -1.0))))
    return sorted(list(found)[k] for k in chosen)
