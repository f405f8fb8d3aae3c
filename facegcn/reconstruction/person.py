"""Several photos of one person: one face and one texture of them all.

Identity and albedo coefficients are fitted to all photos together (``person_fitting``), pose, expression and light to
each; the texture is made of what they all show (``merging``), completed by the texture network and given the photos'
detail, as that of a single photo is. Photos go through the networks batch by batch, and only vertex arrays of all of
them are kept, so that a hundred fit into memory. Letters: B photos that are used, N vertices, K coefficients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from facegcn.errors import UserError, log
from facegcn.fitting import CoefficientFit
from facegcn.landmarks import known_dense
from facegcn.lighting import fit_light, shading
from facegcn.person_fitting import PersonFitter
from facegcn.photos.packed_photos import to_network_range
from facegcn.reconstruction.detail import BROAD_POWER, STRENGTH, DetailStep, with_detail
from facegcn.reconstruction.jobs import Photo
from facegcn.reconstruction.merging import Looks, Merged, merge, sharpness, vertex_areas
from facegcn.reconstruction.reconstructor import Faces, PhotosToFaces, refined

BATCH = 8
HEARD = 8  # photos whose features the texture network hears; its answers are averaged
SHARPNESS_POWER = 2.0  # of a photo's sharpness beside the median one's, at most 1
DETAIL_FOCUS = 4.0  # power of what is seen by which the photos' detail is averaged: nearly the best one's


@dataclass(frozen=True)
class Person:
    """One person's face, and what each photo says of it.

    Attributes:
        used: (B,) int places, among the photos that were given, of those that take part.
        coeff: (B, K) coefficients; identity and albedo are the same in all rows.
        albedo: (N, 3) in [0, 1], the fine albedo that all share.
        trust: (N,) in it, in [0, 1]; 0 where no photo shows anything and it was completed.
        report: ``photos``: by name ``used``, ``weight`` (in the joint fit), ``distance`` (from the others, variances),
            ``sharpness`` (beside the median photo's) and, of those left out, ``reason``; ``used`` and ``left_out``:
            their numbers.
    """

    used: np.ndarray
    coeff: np.ndarray
    albedo: np.ndarray
    trust: np.ndarray
    report: dict
    _faces: object

    def faces(self) -> Iterator[Faces]:
        """The faces in the photos that are used, batch by batch, in their order: what ``PhotosToFaces`` gives of
        photos by themselves, with the same keys of ``outputs``, but of one identity, coarse and fine texture."""
        return self._faces()


def reconstruct_person(face_model, fitter, detail: bool, photos: Sequence[Photo],
                       names: Sequence[str] | None = None, batch_size: int = BATCH) -> Person:
    """One person of several photos.

    Args:
        face_model, fitter, detail: as for ``PersonFaces``.
        photos, names: as for its call.
        batch_size: photos that go through the networks together.

    Raises:
        UserError, ValueError: as ``PersonFaces``.
    """
    return PersonFaces(face_model, fitter, detail, batch_size)(photos, names)


class PersonFaces:
    """Makes one person of several photos in memory; of a single one the face that ``PhotosToFaces`` makes.

    Args:
        face_model: with a regressor; without a texture network the texture is completed smoothly.
        fitter: ``fitting.CoefficientFitter``.
        detail: fine detail of the photos is added behind the network.
        batch_size: photos that go through the networks together.

    Raises:
        UserError: there is no fitter.
        ValueError: batch_size is not positive.
    """

    def __init__(self, face_model, fitter, detail: bool = False, batch_size: int = BATCH):
        if fitter is None:
            raise UserError("several photos of one person are fitted together, and this config fits nothing: "
                            "set fit=true")
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        self.face_model, self._batch = face_model, batch_size
        self._single = PhotosToFaces(face_model, fitter, detail)
        self._fitter = PersonFitter(fitter)
        morphable = face_model.morphable
        self._detail = DetailStep(morphable.triangles, morphable.vertex_count) if detail else None

    def __call__(self, photos: Sequence[Photo], names: Sequence[str] | None = None) -> Person:
        """The person whom the photos show.

        Args:
            photos: of one size.
            names: of each, for the report; default: their numbers.

        Raises:
            UserError: there is no photo, or none that shows enough of a face.
            ValueError: there are not as many names as photos.
        """
        if not len(photos):
            raise UserError("there is no photo of the person: give one at least")
        names = [str(i) for i in range(len(photos))] if names is None else list(names)
        if len(names) != len(photos):
            raise ValueError(f"{len(names)} names of {len(photos)} photos")
        coeff, embedding = self._regressed(photos)
        found = self._fitter(_Pictures(photos), coeff, np.stack([photo.targets for photo in photos]),
                             np.stack([known_dense(photo.dense) for photo in photos]))
        used = np.flatnonzero(found.used)
        for name, reason in zip(names, found.reasons):
            if reason:
                log.warning("%s is left out: %s", name, reason)
        photos = [photos[b] for b in used]
        fit = CoefficientFit(*(part[used] for part in found.fit))
        if len(used) == 1:
            return self._of_one(photos[0], used, _report(names, found, used, np.ones(1)))
        coeff, (photos, looks, coarse) = fit.coefficients, self._look(photos, fit.coefficients)
        merged = merge(looks, coarse)
        base = self._completed(embedding[used], looks, merged, coarse)
        fine, left = self._with_detail(photos, coeff, looks, merged, base)
        report = _report(names, found, used, looks.sharpness ** (1 / SHARPNESS_POWER))
        return Person(used, coeff, fine, merged.trust, report,
                      lambda: self._faces(photos, fit, base, fine, left))

    def _of_one(self, photo, used, report) -> Person:
        """The person of a single photo."""
        faces = self._single([photo])
        albedo = np.asarray(faces.outputs["fine_texture"])[0] * 0.5 + 0.5
        return Person(used, faces.coeff, albedo, np.asarray(faces.outputs["projected_color"])[0, :, 3], report,
                      lambda: iter([faces]))

    def _pieces(self, count) -> list[slice]:
        return [slice(start, min(start + self._batch, count)) for start in range(0, count, self._batch)]

    def _regressed(self, photos):
        """Coefficients and embedding of all photos."""
        parts = [self.face_model.regress(to_network_range(np.stack([photo.rgba for photo in photos[piece]])))
                 for piece in self._pieces(len(photos))]
        return tuple(np.concatenate([np.asarray(part) for part in column]) for column in zip(*parts))

    # ---------------------------------------------------------------- the texture
    def _look(self, photos, coeff):
        """The photos, masks refined, what they show, and the coarse albedo (N, 3) in [0, 1]."""
        checked, columns = [], []
        for piece in self._pieces(len(photos)):
            coarse = self.face_model.coarse(coeff[piece])
            some = refined(photos[piece], coarse["coarse_render"])
            outputs = self.face_model.look(_network_input(some), coeff[piece], coarse=coarse)
            sampled = np.asarray(outputs["projected_color"])
            colors = sampled[..., :3] / np.maximum(sampled[..., 3:], 1e-9) * 0.5 + 0.5
            areas = [vertex_areas(one, self.face_model.morphable.triangles) for one in outputs["projected"].numpy()]
            columns.append((colors, sampled[..., 3], np.asarray(outputs["normals"]), np.stack(areas)))
            checked += some
        sharp = np.array([sharpness(photo.rgba, _pixel(photo)) for photo in checked])
        sharp = np.minimum(sharp / max(np.median(sharp), 1e-6), 1.0) ** SHARPNESS_POWER
        gamma = np.array(self.face_model.morphable.split(coeff).gamma)
        colors, trust, normals, areas = (np.concatenate(column) for column in zip(*columns))
        looks = Looks(colors, trust, normals, gamma, np.maximum(sharp, 1e-3), areas)
        return checked, looks, np.asarray(outputs["coarse_texture"])[0] * 0.5 + 0.5

    def _completed(self, embedding, looks: Looks, merged: Merged, coarse) -> np.ndarray:
        """Albedo (N, 3) in [0, 1] of the texture network, which is shown the merged texture in the light of each of
        the photos that show most."""
        most = np.argsort(-looks.trust.sum(axis=1) * looks.sharpness, kind="stable")[:HEARD]
        light = np.asarray(shading(looks.normals[most], merged.gamma[most]))
        lit = np.clip(merged.albedo * light, 0.0, 1.0) * 2.0 - 1.0
        trust = np.broadcast_to(merged.trust[:, None], (*lit.shape[:2], 1))
        same = np.broadcast_to(np.where(trust[0] > 0, merged.albedo * 2.0 - 1.0, 0.0), lit.shape)
        fine = self.face_model.fine_texture({
            "coarse_texture": tf.constant(np.broadcast_to(coarse * 2.0 - 1.0, lit.shape), tf.float32),
            "projected_color": tf.constant(np.concatenate([lit * trust, trust], axis=-1), tf.float32),
            "seen_texture": tf.constant(same, tf.float32)}, embedding[most])
        return np.asarray(fine).mean(axis=0) * 0.5 + 0.5

    def _with_detail(self, photos, coeff, looks: Looks, merged: Merged, base):
        """The albedo (N, 3) with the photos' detail; what each photo shows beside ``base`` (N, 3) and how well."""
        if self._detail is None:
            return base, None
        light, left = self._light(coeff, looks, base), []
        fine, broad = np.zeros_like(base), np.zeros_like(base)
        total, best = np.full(len(base), 1e-9, np.float32), np.zeros(len(base), np.float32)
        for piece in self._pieces(len(photos)):
            raster = self.face_model.geometry(coeff[piece])["rasterization"]
            for i, b in enumerate(range(piece.start, piece.stop)):
                rgba = photos[b].rgba.astype(np.float32) / 255.0
                missing = self._detail.missing(
                    base, light[b], looks.normals[b, :, 2], rgba[..., :3], rgba[..., 3] > 0.5,
                    np.asarray(raster.triangle_ids[i]), np.asarray(raster.barycentrics[i]))
                weight = missing.seen ** DETAIL_FOCUS * looks.sharpness[b]
                fine += weight[:, None] * missing.fine
                broad += merged.weights[b][:, None] * missing.broad
                total, best = total + weight, np.maximum(best, missing.seen)
                left.append((missing.whole, missing.visible))
        believed = merged.trust[:, None] ** BROAD_POWER
        return with_detail(base, STRENGTH * (best / total)[:, None] * fine + believed * broad), left

    def _light(self, coeff, looks: Looks, albedo):
        """Shading (B, N, 3) of each photo, as ``FaceModel.draw_fine`` finds it for an albedo (N, 3)."""
        gamma = np.array(self.face_model.morphable.split(coeff).gamma)
        if self.face_model.relight:
            gamma = np.concatenate([fit_light(albedo[None], looks.normals[b:b + 1], looks.colors[b:b + 1],
                                              looks.trust[b:b + 1], tf.constant(gamma[b:b + 1]))
                                    for b in range(len(gamma))])
        return np.asarray(shading(looks.normals, gamma))

    # ---------------------------------------------------------------- photo by photo
    def _faces(self, photos, fit: CoefficientFit, base, fine, left) -> Iterator[Faces]:
        """As ``Person.faces``; ``base`` and ``fine`` (N, 3) without and with detail, ``left`` of ``_with_detail``."""
        for piece in self._pieces(len(photos)):
            rgba, coeff = _network_input(photos[piece]), fit.coefficients[piece]
            outputs = self.face_model.look(rgba, coeff)
            shape = outputs["coarse_texture"].shape
            outputs["fine_texture"] = tf.constant(np.broadcast_to(base * 2.0 - 1.0, shape), tf.float32)
            self.face_model.draw_fine(outputs, coeff)
            outputs["fine_light"] = tf.maximum(outputs.get("fine_shading", outputs["shading"]), 0.0)
            if left is not None:
                self._add_detail(outputs, rgba, base, fine, left[piece])
            yield Faces(rgba, coeff, outputs, CoefficientFit(*(part[piece] for part in fit)))


    def _add_detail(self, outputs, rgba, base, fine, left) -> None:
        """The fine face with detail, in each photo's light: as ``PhotosToFaces`` adds it."""
        raster, picture = outputs["rasterization"], np.asarray(rgba)
        light = np.asarray(outputs["fine_light"]) * np.stack([self._detail.local_light(base, fine, *one)
                                                              for one in left])
        lit = np.float32(np.stack([self._detail.lit(
            fine * light[i], picture[i, ..., :3] * 0.5 + 0.5, picture[i, ..., 3] > 0.5,
            np.asarray(raster.triangle_ids[i]), np.asarray(raster.barycentrics[i])) for i in range(len(left))]))
        texture = np.broadcast_to(fine * 2.0 - 1.0, lit.shape).astype(np.float32)
        outputs.update(fine_texture=texture, fine_color=lit * 2.0 - 1.0, fine_light=light.astype(np.float32),
                       fine_render=self.face_model.render(raster, lit))


class _Pictures(Sequence):
    """Photos in the networks' range, each made when it is looked at."""

    def __init__(self, photos):
        self._photos = photos

    def __len__(self):
        return len(self._photos)

    def __getitem__(self, index):
        return _network_input([self._photos[index]])[0].numpy()


def _network_input(photos):
    return to_network_range(np.stack([photo.rgba for photo in photos]))


def _pixel(photo) -> float:
    """Width of a pixel of the crop, in pixels of the photo."""
    scale = np.sqrt(abs(np.linalg.det(np.asarray(photo.transform)[:, :2])))
    return 1.0 / max(float(scale), 1e-6)


def _report(names, found, used, sharp) -> dict:
    """What ``Person.report`` holds."""
    sharp = dict(zip(used, sharp))
    photos = {}
    for b, name in enumerate(names):
        row = {"used": bool(found.used[b]), "weight": float(found.weights[b])}
        if np.isfinite(found.distances[b]):
            row["distance"] = float(found.distances[b])
        photos[name] = row | ({"sharpness": float(sharp[b])} if found.used[b] else {"reason": found.reasons[b]})
    return {"photos": photos, "used": len(used), "left_out": len(names) - len(used)}
