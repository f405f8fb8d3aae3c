"""The files of a film: numbers of every frame, weights of named expressions, the person's rig acting, an overlay.

Letters: T frames, N vertices, A named expressions.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from tqdm import tqdm

from facegcn.animation import Clip, write_clip
from facegcn.errors import log
from facegcn.export import gltf
from facegcn.export.scene import Animation, Pose
from facegcn.geometry import vertex_normals_numpy
from facegcn.landmark_fitting import rotation
from facegcn.lighting import shading
from facegcn.photos.frames import Film
from facegcn.reconstruction.face import Face, FaceTools
from facegcn.reconstruction.film_camera import FilmCamera
from facegcn.reconstruction.results import write_arrays
from facegcn.reconstruction.video_track import Track
from facegcn.reconstruction.views import write_film
from facegcn.texture.paste import drawn_over

_OVERLAY_TEXTURE = 1024  # texels a side, at most: frames show no more
_SURE = 0.3  # trust of a vertex from which on the overlay shows it in full


class FilmFiles:
    """Writes the files of one film.

    Args:
        stem: of their paths.
        film: the film.
        camera: of the film.
        face: the person, as its best frame has it.
        tools: of the face's model.
        measured, track: before and after they are smoothed.
    """

    def __init__(self, stem: str, film: Film, camera: FilmCamera, face: Face, tools: FaceTools, measured: Track,
                 track: Track):
        self._stem, self._film, self._camera, self._face, self._tools = stem, film, camera, face, tools
        self._measured, self._track = measured, track

    def write_numbers(self) -> None:
        """``_film.npz``: see docs/video.md. Raises OSError."""
        arrays = {"times": self._track.times, "found": self._track.state, "residual": self._measured.residual}
        for name in ("exp", "angles", "translation", "gamma"):
            arrays[f"coeff_{name}"] = getattr(self._track, name)
            arrays[f"measured_{name}"] = getattr(self._measured, name)
        camera = self._camera.camera()
        arrays.update(
            coeff_id=self._face.coefficients["id"], coeff_tex=self._face.coefficients["tex"],
            crop_transform=self._camera.transform, crop_size=np.int32(self._camera.crop_size),
            picture_size=np.int32(self._film.size), camera_fov_y=np.float64(np.degrees(camera.fov_y)))
        write_arrays(f"{self._stem}_film.npz", arrays)

    def write_acting(self) -> None:
        """``_weights.csv`` and ``_animated.glb``; says why where the model has no named expressions. Raises OSError."""
        fitter, track = self._tools.blendshapes, self._track
        if fitter is None:
            log.warning("no animated GLB and no CSV of weights: this face model has no named expressions; convert "
                        "ICT-FaceKit (python -m facegcn.assets ict --source ...) and use configs/ict.yaml")
            return
        known, names = track.known, self._tools.morphable.blendshape_names
        weights, _ = fitter.weights(track.exp[known])
        write_clip(f"{self._stem}_weights.csv",
                   Clip(track.times[known], tuple(names), weights, track.angles[known].astype(np.float64)))
        turns = np.stack([rotation(angles)[0] for angles in track.angles[known].astype(np.float64)])
        animation = Animation(track.times[known], names, weights, gltf.quaternions(turns), track.translation[known])
        gltf.write_glb(f"{self._stem}_animated.glb", self._face.acted(
            animation, Pose(turns[0], track.translation[known][0]), [self._camera.camera()]))

    def write_overlay(self, trust: np.ndarray) -> None:
        """``_overlay.mp4``: the face drawn over every frame, frame by frame; the film's sound is not in it.

        Args:
            trust: (N,) in the person's albedo: what no frame showed is not drawn.

        Raises:
            UserError: this OpenCV writes no such films.
            OSError: the file cannot be written.
        """
        width, height = (length // 2 * 2 for length in self._film.size)  # the codec knows even sizes only
        pictures = (picture[:height, :width] for picture in self._evenly(self._overlaid(trust)))
        write_film(f"{self._stem}_overlay.mp4", pictures, "mp4", 1.0 / self._film.step, (width, height))

    def _evenly(self, pictures) -> Iterator[np.ndarray]:
        """Pictures at an even rate, however the film's frames come: the container has but one."""
        times, step, written = self._film.times, self._film.step, 0
        ends = np.append(times[1:], times[-1] + step)
        for index, picture in pictures:
            due = round(ends[index] / step)
            for _ in range(due - written):
                yield picture
            written = max(written, due)

    def _overlaid(self, trust) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers and pictures of frames with the face."""
        track, morphable, layout = self._track, self._tools.morphable, self._tools.layout
        albedo, share = self._face.textures.albedo, np.clip(trust / _SURE, 0.0, 1.0)
        if len(albedo) > _OVERLAY_TEXTURE:
            albedo = cv2.resize(albedo, (_OVERLAY_TEXTURE, _OVERLAY_TEXTURE), interpolation=cv2.INTER_AREA)
        moves = morphable.exp_basis.reshape(3 * morphable.vertex_count, -1)
        for index, picture in tqdm(self._film.frames(), total=len(self._film), desc="drawing the overlay",
                                   unit="frame", dynamic_ncols=True):
            if track.known[index]:
                shape = self._face.neutral + (moves @ track.exp[index]).reshape(-1, 3)
                turn = rotation(track.angles[index])[0].astype(np.float32)
                normals = vertex_normals_numpy(shape.astype(np.float32), morphable.triangles) @ turn.T
                light = np.asarray(shading(normals[None], track.gamma[index][None]))[0]
                picture = drawn_over(picture, shape @ turn.T + track.translation[index], layout, albedo,
                                     np.maximum(light, 0.0), share, self._camera.transform, self._camera.crop_size)
            yield index, picture
