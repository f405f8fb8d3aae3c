"""One reconstructed face: mesh, colours, textures, camera, coefficients, and the scenes that other programs open.

Letters: N vertices, F triangles, M texture vertices, A named expressions, T texels a side, S pixels of the crop.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping

import cv2
import numpy as np

from facegcn import camera
from facegcn.animation import Clip
from facegcn.blendshapes import BlendshapeFitter
from facegcn.errors import UserError
from facegcn.export import gltf, obj, ply
from facegcn.export.photo_camera import crop_camera, photo_camera
from facegcn.export.scene import Animation, Mesh, Morphs, Pose, Scene
from facegcn.files import write_bytes
from facegcn.geometry import rotation_matrix
from facegcn.png import png_bytes
from facegcn.reconstruction.results import write_arrays
from facegcn.texture.baking import BakedFace, BakedTextures, Baker
from facegcn.texture.layout import layout_of
from facegcn.texture.paste import pasted
from facegcn.texture.seen import inverse

TEXTURE_SIZES = (256, 512, 1024, 2048, 4096, 8192)
#: Of textures in glTF files, a fifth of a PNG's size.
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
_COLORS = ("coarse_texture", "fine_texture", "coarse_color", "fine_color")


class FaceTools:
    """What all faces of one model share: texels, named expressions, parts.

    Args:
        morphable: the MorphableModel; a texture layout that it lacks is made (seconds).
        texture_size: T, texels a side of baked textures.

    Raises:
        UserError: a texture size that is not in ``TEXTURE_SIZES``.
    """

    def __init__(self, morphable, texture_size: int = 2048):
        check_texture_size(texture_size)
        self.morphable, self.texture_size = morphable, texture_size

    @functools.cached_property
    def layout(self):
        """The model's ``TextureLayout``."""
        return layout_of(self.morphable)

    @functools.cached_property
    def baker(self) -> Baker:
        """Bakes textures of ``texture_size``."""
        return Baker(self.morphable, self.layout, self.texture_size)

    @functools.cached_property
    def blendshapes(self) -> BlendshapeFitter | None:
        """Explains expressions by named ones; None where the model has none."""
        return None if self.morphable.blendshapes is None else BlendshapeFitter(self.morphable)


def check_texture_size(size: int) -> None:
    """Raises UserError where a texture cannot have this size."""
    if size not in TEXTURE_SIZES:
        *smaller, largest = map(str, TEXTURE_SIZES)
        raise UserError(f"a texture has {', '.join(smaller)} or {largest} texels a side, not {size}")


class Face:
    """One reconstructed face.

    Args:
        tools: of its model.
        picture: (h, w, 3) uint8 RGB, the original photo, of any size.
        transform: (2, 3) photo pixels -> crop pixels.
        mask: (S, S) bool, skin of the crop.
        coeff: (K,) coefficients.
        outputs: arrays of this face as ``FaceModel.reconstruct`` names them, colours in [-1, 1].
        metrics: what was measured, by name.
        textures: that were baked already; default: of this picture.
        remark: what the user should know of the photo, or "".

    Attributes:
        picture, transform, mask, coeff, metrics, remark: the same.
        vertices: (N, 3) decimetre, neither posed nor moved; expression included.
        vertices_posed: (N, 3) decimetre, as the camera sees them.
        normals: (N, 3) unit, of these.
        triangles: (F, 3) int32.
        albedo, coarse_albedo: (N, 3) in [0, 1], without light.
        lit: (N, 3) in [0, 1], in the photo's light.
        coefficients: parts of ``coeff`` by name: id, exp, tex, angles, gamma, translation.
    """

    def __init__(self, tools: FaceTools, picture, transform, mask, coeff, outputs: Mapping[str, np.ndarray],
                 metrics: Mapping[str, float] | None = None, remark: str = "", textures: BakedTextures | None = None):
        self._tools, self.picture, self.transform = tools, picture, np.asarray(transform, np.float64)
        self.mask, self.coeff, self.metrics, self.remark = mask, np.asarray(coeff), dict(metrics or {}), remark
        self.triangles = tools.morphable.triangles
        self.vertices, self.vertices_posed, self.normals = (
            np.asarray(outputs[name]) for name in ("vertices", "world", "normals"))
        self.albedo, self.coarse_albedo, self.lit = (
            np.clip(np.asarray(outputs[name]) * 0.5 + 0.5, 0.0, 1.0)
            for name in ("fine_texture", "coarse_texture", "fine_color"))
        self._outputs, self._files, self._given = outputs, {}, textures
        self.coefficients = {name: part[0] for name, part in
                             tools.morphable.split(self.coeff[None])._asdict().items()}

    # ---------------------------------------------------------------- textures
    @property
    def layout(self):
        """Where the surface lies in textures, a ``TextureLayout``."""
        return self._tools.layout

    @functools.cached_property
    def textures(self) -> BakedTextures:
        """Albedo, lit colours, visibility and confidence as square images, baked when first asked for."""
        if self._given is not None:
            return self._given
        return self._tools.baker(BakedFace(self.vertices_posed, self.normals, self.albedo,
                                           np.asarray(self._outputs["fine_light"]), self.picture, self.transform,
                                           self.mask))

    @functools.cached_property
    def pasted(self) -> np.ndarray:
        """(h, w, 3) uint8: the face drawn back into the original photo."""
        return pasted(self.picture, self.vertices_posed, self.layout, self.textures.lit, self.transform,
                      self.mask.astype(np.uint8) * np.uint8(255))

    # ---------------------------------------------------------------- cameras and pose
    @functools.cached_property
    def cameras(self) -> tuple:
        """glTF cameras: of the photo, and of the aligned crop."""
        height, width = self.picture.shape[:2]
        return (photo_camera(self.vertices_posed, self.transform, len(self.mask), (width, height)), crop_camera())

    @functools.cached_property
    def rotation(self) -> np.ndarray:
        """(3, 3) of the head, for column vectors."""
        return np.asarray(rotation_matrix(self.coefficients["angles"][None]))[0].astype(np.float64)

    def photo_pixels(self, points) -> np.ndarray:
        """(n, 2) pixels of the original photo where the camera sees world points (n, 3)."""
        crop = np.asarray(camera.to_pixels(camera.project(np.asarray(points, np.float32)[None])[0], len(self.mask)))
        back = inverse(self.transform)
        return crop @ back[:, :2].T + back[:, 2]

    # ---------------------------------------------------------------- expressions
    @functools.cached_property
    def expression(self) -> np.ndarray | None:
        """(A,) weights in [0, 1] of the model's named expressions that explain the photo's; None without such."""
        fitter = self._tools.blendshapes
        return None if fitter is None else fitter.weights(self.coefficients["exp"][None])[0][0]

    @property
    def neutral(self) -> np.ndarray:
        """(N, 3) decimetre, this person without expression, neither posed nor moved."""
        morphable = self._tools.morphable
        exp = np.zeros((1, len(self.coefficients["exp"])), np.float32)
        return np.asarray(morphable.vertices(self.coefficients["id"][None], exp))[0]

    # ---------------------------------------------------------------- scenes
    def scene(self, kind: str = "albedo") -> Scene:
        """What a glTF file shows of this face, with its cameras.

        Args:
            kind: ``albedo`` or ``lit`` (textured, the photo's expression), ``colors`` (vertex colours), or ``rig``: the
                neutral person with a morph target for each named expression, open in that of the photo, with eyeballs
                and teeth where the model has them.

        Raises:
            UserError: no such kind; a rig of a model without named expressions.
        """
        if kind == "colors":
            mesh = Mesh("face", self.vertices_posed, self.triangles, self.normals, colors=self.albedo)
            return Scene([mesh], self.cameras, extras=self._extras())
        if kind == "rig":
            pose = Pose(self.rotation, self.coefficients["translation"])
            return Scene(self._rigged(), self.cameras, pose, extras=self._extras())
        if kind not in ("albedo", "lit"):
            raise UserError(f"a scene is albedo, lit, colors or rig, not {kind!r}")
        mesh = Mesh("face", self.vertices_posed, self.triangles, self.normals,
                    texture=self._jpeg(kind), unlit=kind == "lit")
        return Scene([self._laid_out(mesh)], self.cameras, extras=self._extras())

    def animated(self, clip: Clip, turned: bool = True) -> Scene:
        """The rig moved by a clip, seen by the crop's camera.

        Args:
            clip: weights of named expressions over time; names that the model lacks do nothing.
            turned: the head begins upright and frontal; else each pose of the clip is applied to the photo's.

        Raises:
            UserError: as ``scene``.
        """
        translation = self.coefficients["translation"]
        base = np.eye(3) if turned else self.rotation
        rotations = None
        if clip.head is not None:
            rotations = gltf.quaternions(np.asarray(rotation_matrix(clip.head), np.float64) @ base)
        names = [name for name in self._tools.morphable.blendshape_names if name in clip.names]
        animation = Animation(clip.times, names, clip.weights_of(names) if names else None, rotations)
        return Scene(self._rigged(), [crop_camera()], Pose(base, translation), animation, self._extras())

    def acted(self, animation: Animation, head: Pose, cameras) -> Scene:
        """The rig moved by an animation, seen by cameras of its own.

        Args:
            animation: of the head and named expressions.
            head: the pose in which the file opens.
            cameras: glTF cameras that the poses are meant for.

        Raises:
            UserError: as ``scene``.
        """
        return Scene(self._rigged(), cameras, head, animation, self._extras())

    def _rigged(self):
        """Meshes with morph targets: the face, and parts beside it."""
        morphable = self._tools.morphable
        if morphable.blendshapes is None:
            raise UserError("this face model has no named expressions, so it cannot be animated: convert ICT-FaceKit "
                            "(python -m facegcn.assets ict --source ...), whose expressions have names, or add arrays "
                            "'blendshapes' to the model (docs/model_format.md)")
        names, weights, parts = morphable.blendshape_names, self.expression, morphable.parts
        triangles, vertices = self.triangles, self.neutral
        layout = self.layout
        corners = layout.triangles
        if parts is not None:
            kept = np.setdiff1d(np.arange(len(triangles)), parts.replaces)
            triangles, corners = triangles[kept], corners[kept]
            vertices = vertices - parts.recess[:, None] * (0.0, 0.0, 1.0)
        mesh = Mesh("face", vertices, triangles, texture=self._jpeg("albedo"),
                    morphs=Morphs(names, np.moveaxis(morphable.blendshapes, 2, 0), weights))
        meshes = [gltf.with_layout(mesh, layout.uv, corners, layout.vertices)]
        for name in () if parts is None else parts.names:
            chosen, own = parts.part(name)
            shaped = parts.shaped(self.coefficients["id"])[chosen] - morphable.mean_shape.mean(axis=0)
            meshes.append(Mesh(name, shaped, own, colors=np.clip(parts.colors[chosen] / 255.0, 0.0, 1.0),
                               morphs=Morphs(names, np.moveaxis(parts.blendshapes[chosen], 2, 0), weights)))
        return meshes

    def _laid_out(self, mesh):
        layout = self.layout
        return gltf.with_layout(mesh, layout.uv, layout.triangles, layout.vertices)

    def _extras(self) -> dict:
        """Numbers that go with a scene."""
        names = self._tools.morphable.blendshape_names
        return {"coefficients": {name: np.asarray(part, np.float64).round(6) for name, part in
                                 self.coefficients.items()},
                "units": {"vertices": "metre", "translation": "decimetre", "angles": "radian"},
                "crop_transform": self.transform, "crop_size": len(self.mask),
                **({} if self.expression is None else {"expression": {
                    name: round(float(weight), 4) for name, weight in zip(names, self.expression) if weight > 0}})}

    # ---------------------------------------------------------------- files
    def save(self, path: str, kind: str = "albedo") -> None:
        """Writes one file; its ending says which: .glb, .obj (with .mtl and .png beside it), .ply, .npz, .png or .jpg.

        Args:
            path: the file; its folder must be there.
            kind: ``albedo`` (no light) or ``lit`` (the photo's): what a texture, vertex colours or a picture show; of a
                .glb also ``rig`` or ``colors``, see ``scene``.

        Raises:
            UserError: an ending or kind that is not known.
            OSError: the file cannot be written.
        """
        ending = os.path.splitext(path)[1].lower()
        if ending == ".glb":
            gltf.write_glb(path, self.scene(kind))
            return
        if kind not in ("albedo", "lit"):
            raise UserError(f"a {ending} file shows albedo or lit, not {kind!r}")
        if ending == ".obj":
            obj.write_textured_obj(path, self.vertices_posed, self.triangles, self.layout.uv, self.png(kind),
                                   self.layout.triangles)
        elif ending == ".ply":
            colors = self.albedo if kind == "albedo" else self.lit
            ply.write_ply(path, self.vertices_posed, self.triangles, colors, self.normals)
        elif ending == ".npz":
            write_arrays(path, {**self.arrays(), **self.layout_arrays()})
        elif ending == ".png":
            write_bytes(path, self.png(kind))
        elif ending in (".jpg", ".jpeg"):
            write_bytes(path, self._jpeg(kind))
        else:
            raise UserError(f"{path}: a face is saved as .glb, .obj, .ply, .npz, .png or .jpg")

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything numeric about this face, see the README's table of output files."""
        named = {} if self.expression is None else {"blendshape_weights": self.expression.astype(np.float32)}
        size = len(self.mask)
        return {
            "coeff": self.coeff, **{f"coeff_{name}": part for name, part in self.coefficients.items()},
            "vertices": self.vertices, "vertices_posed": self.vertices_posed, "normals": self.normals,
            "triangles": self.triangles, **{name: self._outputs[name] for name in _COLORS},
            "visible": self._outputs["projected_color"][..., 3],
            "landmarks": np.asarray(camera.to_pixels(self._outputs["landmarks"], size)), **named,
            "camera_position": np.float32([0, 0, camera.CAMERA_DISTANCE]), "camera_fov_y": np.float32(camera.FOV_Y),
            "image_size": np.int32(size), "crop_transform": np.float32(self.transform)}

    def layout_arrays(self) -> dict[str, np.ndarray]:
        """The texture layout by the names of the model format: ``texture_uv``, ``texture_triangles`` and
        ``texture_vertices``."""
        return {f"texture_{name}": array for name, array in vars(self.layout).items()}

    def png(self, kind: str) -> bytes:
        """The PNG file of a texture: ``albedo``, ``lit``, ``visibility`` or ``confidence``."""
        return self._encoded(kind, png_bytes)

    def _jpeg(self, kind):
        return self._encoded(kind, _jpeg_bytes)

    def _encoded(self, kind, encode) -> bytes:
        """A texture's file, kept: several files hold the same."""
        if (kind, encode) not in self._files:
            self._files[kind, encode] = encode(getattr(self.textures, kind))
        return self._files[kind, encode]


def _jpeg_bytes(image) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), _JPEG)[1].tobytes()
