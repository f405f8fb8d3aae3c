"""The model that joins morphable model, networks and renderer: photo -> textured face.

Letters: B images, E embedding width, N vertices of the template, K coefficients.
"""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from facegcn import camera
from facegcn.completion import TextureCompletion, angle_weight, correction_weight, likelihood_weight
from facegcn.geometry import rotate, vertex_normals
from facegcn.lighting import fit_light, shading
from facegcn.rasterizer import rasterize
from facegcn.renderer import render_colors
from facegcn.sampling import (
    EROSION,
    SAMPLINGS,
    delit_colors,
    depth_visible,
    eroded_mask,
    sample_colors,
    seen_colors01,
)


class FaceModel:
    """Photo -> textured 3D face: the morphable model, the networks and the renderer, joined.

    Colours and textures are RGB in [-1, 1], geometry is in decimetre (facegcn.morphable),
    image row 0 is the top.

    Args:
        morphable: a facegcn.morphable.MorphableModel.
        texture_network: from ``model.build_texture_network``; without one the fine texture is the coarse one, with
            ``delit`` completed with the seen colours (``completion.TextureCompletion``).
        regressor: RGB -> [coefficients, features], see facegcn.networks.regressor; needed by ``regress`` only.
        image_size: width and height of the aligned crop, pixels.
        visibility: ``depth`` (facing the camera, nothing in front) or ``normal`` (facing only,
            as the released code).
        delit: the refiner sees ten channels: the seven of the paper and the sampled colour
            divided by the estimated shading. Ours.
        mirror: with ``delit``, the refiner sees fourteen: also the de-lit colour of the mirrored vertex, and
            whether the photo shows that; a side that is turned away can then be like the other. Ours.
        trust: the photo's colours count by the angle at which they are seen, and less where they are unlike what the
            coarse face explains (``completion``). Ours.
        completed: with ``delit``, the refiner also sees the coarse albedo completed with the seen colours
            (``completion.TextureCompletion``), and its head corrects that. Ours.
        correction: share of what the network adds to the completed albedo, else to the coarse one, that is believed
            outside training. Ours.
        erosion: how much of the skin mask's border is not trusted, see ``sampling.eroded_mask``.
        relight: the fine face is drawn in the light that best explains the photo with the fine
            albedo (``lighting.fit_light``), so that a better albedo need not look worse. Ours.
        facenet: frozen network RGB -> identity features (``networks.frozen.FrozenFaceNet``), which then are
            the last part of the embedding; or None.
        sampling: ``bilinear`` or ``released``, see ``sampling.sample_colors``.

    Raises:
        ValueError: visibility is neither ``depth`` nor ``normal``, or sampling is unknown.
    """

    def __init__(self, morphable, texture_network=None, regressor=None, image_size=224,
                 visibility="depth", delit=False, mirror=False, erosion=EROSION, relight=False, facenet=None,
                 sampling="bilinear", trust=False, completed=False, correction=1.0):
        if visibility not in ("depth", "normal"):
            raise ValueError(f"visibility must be 'depth' or 'normal', got {visibility!r}")
        if sampling not in SAMPLINGS:
            raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}, got {sampling!r}")
        self.morphable = morphable
        self.texture_network = texture_network
        self.regressor = regressor
        self.image_size = image_size
        self.visibility = visibility
        self.delit = delit
        self.mirror = delit and mirror
        self.trust = trust
        self.completed = delit and completed
        self.correction = correction
        self.erosion = erosion
        self.relight = relight
        self.facenet = facenet
        self.sampling = sampling

    def regress(self, rgba):
        """Coefficients (B, K) and embedding (B, E) of photos (B, H, W, 4), RGB in [-1, 1].

        The embedding is the regressor's features, then FaceNet's where the model has it [paper].

        Raises:
            ValueError: the model was built without a regressor.
        """
        if self.regressor is None:
            raise ValueError("this FaceModel has no regressor")
        coeff, features = self.regressor(rgba[..., :3], training=False)
        if self.facenet is not None:
            features = tf.concat([features, self.facenet(rgba[..., :3])], axis=-1)
        return coeff, features

    def geometry(self, coeff):
        """Everything that follows from the coefficients alone.

        Args:
            coeff: (B, K) coefficients.

        Returns:
            dict: ``vertices`` (B, N, 3) before pose, ``world`` after it, ``normals`` (B, N, 3)
            world unit normals, ``coarse_texture`` (B, N, 3) in [-1, 1], ``shading`` (B, N, 3),
            ``projected`` (B, N, 2) in [-1, 1], x right, y down, ``landmarks`` (B, 68, 2) likewise,
            ``rasterization``.
        """
        morphable = self.morphable
        parts = morphable.split(coeff)
        vertices = morphable.vertices(parts.id, parts.exp)
        world = rotate(vertices, parts.angles) + parts.translation[:, None, :]
        normals = rotate(vertex_normals(vertices, morphable.triangles), parts.angles)
        projected = camera.project(world)
        clip = camera.clip_coordinates(world, self.image_size, self.image_size)
        return {"vertices": vertices, "world": world, "normals": normals,
                "coarse_texture": morphable.albedo(parts.tex) / 127.5 - 1.0,
                "shading": shading(normals, parts.gamma), "projected": projected,
                "landmarks": tf.gather(projected, morphable.landmarks, axis=1),
                "rasterization": rasterize(clip, morphable.triangles, self.image_size, self.image_size)}

    def coarse(self, coeff):
        """The coarse face of coefficients (B, K): the dict of ``geometry`` and ``coarse_color`` and ``coarse_render``,
        as ``reconstruct`` describes them; no photo is needed for it."""
        outputs = self.geometry(coeff)
        self._draw(outputs, "coarse", outputs["shading"])
        return outputs

    def reconstruct(self, rgba, coeff, embedding=None, visibility=None, training=False, coarse=None):
        """Coarse and fine textured faces and their renders.

        Args:
            rgba: (B, H, W, 4) photos, RGB in [-1, 1], skin alpha in [0, 1].
            coeff: (B, K) coefficients.
            embedding: (B, E) features of the photo, for the texture network.
            visibility: overrides the model's own.
            training: passed to the texture network.
            coarse: what ``coarse`` gives for these coefficients, where it is known already.

        Returns:
            the dict of ``geometry`` and: ``coarse_texture``, ``fine_texture`` (B, N, 3) albedo,
            ``coarse_color``, ``fine_color`` (B, N, 3) lit, ``projected_color`` (B, N, 4): colour of
            the photo at each vertex times visible, and visible in [0, 1], or the trust in it;
            ``skin_mask`` (B, H, W, 1) without its border, ``coarse_render``, ``fine_render``
            (B, H, W, 4): RGB in [-1, 1] on -1, coverage 0 / 1.
        """
        outputs = self.look(rgba, coeff, visibility, coarse)
        outputs["fine_texture"] = self.fine_texture(outputs, embedding, training)
        self.draw_fine(outputs, coeff)
        return outputs

    def look(self, rgba, coeff, visibility=None, coarse=None):
        """What a photo shows of the coarse face.

        Args:
            rgba, coeff, visibility, coarse: as for ``reconstruct``.

        Returns:
            the dict of ``coarse`` with ``projected_color`` and ``skin_mask``, as ``reconstruct`` describes them, and,
            with ``delit``, ``seen_texture`` (B, N, 3): the de-lit colours in [-1, 1], 0 where nothing is seen.
        """
        outputs = self.coarse(coeff) if coarse is None else dict(coarse)
        visible = self._visible(outputs, visibility or self.visibility)
        outputs["skin_mask"] = mask = eroded_mask(tf.convert_to_tensor(rgba, tf.float32)[..., 3:], self.erosion)
        outputs["projected_color"], seen = self._seen(outputs, rgba, visible, mask)
        if seen is not None:
            outputs["seen_texture"] = seen
        return outputs

    def fine_texture(self, outputs, embedding=None, training=False):
        """Fine albedo (B, N, 3) in [-1, 1] of what ``look`` found; the texture network's, else the completed one.

        Args:
            outputs: with ``coarse_texture``, ``projected_color`` and, with ``delit``, ``seen_texture``.
            embedding, training: as for ``reconstruct``.
        """
        sampled, seen = outputs["projected_color"], outputs.get("seen_texture")
        if self.texture_network is not None:
            known = self._refiner_input(outputs, sampled, seen)
            fine = self.texture_network([tf.convert_to_tensor(embedding), known], training=training)
            return fine if training else self._believed(fine, outputs["coarse_texture"], known, sampled[..., 3])
        if self.delit:
            return self._completion(outputs["coarse_texture"], seen, sampled[..., 3])
        return outputs["coarse_texture"]

    def draw_fine(self, outputs, coeff) -> None:
        """Adds the light, colours and picture of the fine face to outputs that hold ``fine_texture``, of coefficients
        (B, K)."""
        light, sampled = outputs["shading"], outputs["projected_color"]
        if self.relight:
            gamma = fit_light(outputs["fine_texture"] * 0.5 + 0.5, outputs["normals"], seen_colors01(sampled),
                              sampled[..., 3], tf.convert_to_tensor(self.morphable.split(coeff).gamma))
            light = outputs["fine_shading"] = shading(outputs["normals"], gamma)
        self._draw(outputs, "fine", light)

    def _believed(self, fine, coarse, known, trust):
        """The network's albedo (B, N, 3) as far as its additions are believed outside training."""
        if not self.completed:
            return fine if self.correction == 1.0 else coarse + self.correction * (fine - coarse)
        completed = known[..., -3:]
        return completed + self.correction * correction_weight(coarse, completed, trust) * (fine - completed)

    def _draw(self, outputs, kind, light):
        """Adds a face's lit colours and its picture to outputs that have its texture."""
        lit = tf.clip_by_value((outputs[f"{kind}_texture"] * 0.5 + 0.5) * light, 0.0, 1.0)
        outputs[f"{kind}_color"] = lit * 2.0 - 1.0
        outputs[f"{kind}_render"] = self.render(outputs["rasterization"], lit)

    def render(self, rasterization, colors01):
        """(B, H, W, 4): vertex colours (B, N, 3) in [0, 1] drawn; RGB in [-1, 1], coverage 0 / 1."""
        picture = render_colors(rasterization, self.morphable.triangles, colors01)
        return tf.concat([picture[..., :3] * 2.0 - 1.0, picture[..., 3:]], axis=-1)

    def _visible(self, outputs, visibility):
        """(B, N) 1.0 where the vertex faces the camera and, for 'depth', nothing lies in front."""
        facing = tf.cast(outputs["normals"][..., 2] > 0.0, tf.float32)
        if visibility == "normal":
            return facing
        return facing * depth_visible(outputs["world"], outputs["projected"], self.morphable.triangles,
                                      outputs["rasterization"])

    def _seen(self, outputs, rgba, visible, mask):
        """``projected_color`` (B, N, 4), and the de-lit colours (B, N, 3) in [-1, 1], 0 where nothing is seen."""
        weight = visible * angle_weight(outputs["normals"]) if self.trust else visible
        sampled = sample_colors(rgba, outputs["projected"], weight, mask, self.sampling)
        if not self.delit:
            return sampled, None
        seen = tf.math.divide_no_nan(delit_colors(sampled, outputs["shading"]), sampled[..., 3:])
        if self.trust:
            sampled *= likelihood_weight(outputs["coarse_texture"], seen)[..., None]
        return sampled, seen

    def _refiner_input(self, outputs, sampled, seen):
        """(B, N, C): coarse albedo, sampled colour, visible; and what else ``refiner_channels`` counts."""
        channels = [outputs["coarse_texture"], sampled]
        if self.delit:
            channels.append(seen * sampled[..., 3:])
        if self.mirror:
            own = tf.concat([channels[-1], sampled[..., 3:]], axis=-1)
            channels.append(tf.gather(own, mirror_index(self.morphable), axis=1))
        if self.completed:
            channels.append(self._completion(outputs["coarse_texture"], seen, sampled[..., 3]))
        return tf.concat(channels, axis=-1)

    @functools.cached_property
    def _completion(self):
        return TextureCompletion(self.morphable.triangles, mirror_index(self.morphable))

    @property
    def refiner_channels(self) -> int:
        """What the refiner sees of each vertex: 7; 3 more are de-lit colours, 4 the mirrored vertex's, 3 completed."""
        return 7 + 3 * self.delit + 4 * self.mirror + 3 * self.completed


def mirror_index(morphable) -> np.ndarray:
    """(N,) index of each vertex's mirror image; itself where it has none, as on the midline."""
    index = np.arange(morphable.vertex_count)
    left, right = morphable.symmetry_pairs.T
    index[left], index[right] = right, left
    return index
