"""Pictures of textured faces, seen by the face camera.

Letters: N vertices, F triangles, T texels a side, H W pixels, C channels.
"""

from __future__ import annotations

import cv2
import numpy as np

from facegcn.backends import kernels, texture_kernels
from facegcn.rasterizer import rasterize_numpy
from facegcn.texture.seen import clip_coordinates
from facegcn.texture_layout import TextureLayout, signed_areas

_COARSEST = 2.0  # texels a pixel up to which interpolation between four of them does; above, a smaller texture is drawn


class Drawing:
    """One face in one picture, rasterized once for any number of textures.

    Args:
        world: (N, 3) posed vertices, decimetre.
        layout: of their model.
        height, width: of the picture, pixels.
        transform: (2, 3) pixels of the square crop to pixels of the picture; None: the picture is the camera's square
            view, whatever its size.
        crop_size: width of that crop, pixels.

    Attributes:
        covered: (H, W) bool, the face is there.
    """

    def __init__(self, world, layout: TextureLayout, height: int, width: int, transform=None, crop_size: float = 1.0):
        self._layout, self._triangles = layout, layout.vertices[layout.triangles]
        clip = clip_coordinates(world, transform, crop_size, height, width)
        self._ids, self._shares, _ = rasterize_numpy(clip, self._triangles, height, width)
        self.covered = self._ids >= 0
        self._texels_a_pixel = self._density(clip, height, width)

    def _density(self, clip, height, width):
        """Texels of a texture of side 1 along the side of a pixel, the median over what is drawn."""
        drawn = np.unique(self._ids[self.covered])
        pixels = clip[:, :2] / clip[:, 3:] * (width / 2.0, height / 2.0)
        in_picture = np.abs(signed_areas(pixels, self._triangles[drawn]))
        in_texture = np.abs(signed_areas(self._layout.uv.astype(np.float64), self._layout.triangles[drawn]))
        return float(np.sqrt(np.median(in_texture / np.maximum(in_picture, 1e-9)))) if len(drawn) else 0.0

    def colors(self, texture: np.ndarray) -> np.ndarray:
        """The face in a texture's colours.

        Args:
            texture: (T, T, C) uint8 or float32, gaps filled.

        Returns:
            (H, W, C) float32 in the texture's range, interpolated between texels; 0 where the face is not.
        """
        texture = np.asarray(texture)
        while self._texels_a_pixel * len(texture) > _COARSEST and len(texture) > 1:
            half = (len(texture) + 1) // 2
            texture = cv2.resize(texture, (half, half), interpolation=cv2.INTER_AREA)
        texture = np.ascontiguousarray(texture.reshape(*texture.shape[:2], -1))
        picture = np.empty((*self._ids.shape, texture.shape[2]), np.float32)
        places = self._layout.texels(len(texture)).astype(np.float32)
        texture_kernels.draw_textured(self._ids, self._shares, self._layout.triangles, places, texture, picture)
        return picture

    def attributes(self, values: np.ndarray) -> np.ndarray:
        """(H, W, C) float32: vertex attributes (N, C), such as shading, between their corners; 0 where the face is
        not."""
        values = np.ascontiguousarray(values, np.float32)
        picture = np.empty((*self._ids.shape, values.shape[1]), np.float32)
        kernels.interpolate(values, self._triangles, self._ids, self._shares, picture)
        return picture

    def relit(self, albedo: np.ndarray, shading: np.ndarray) -> np.ndarray:
        """The face in another light.

        Args:
            albedo: (T, T, 3) uint8 texture.
            shading: (N, 3) factor of the albedo at the vertices (``lighting.shading`` of this pose's normals).

        Returns:
            (H, W, 3) uint8, 0 where the face is not.
        """
        return to_bytes(self.colors(albedo) * self.attributes(shading))


def to_bytes(picture) -> np.ndarray:
    """Levels rounded to uint8, clipped to 0 to 255."""
    return np.clip(np.round(picture), 0.0, 255.0).astype(np.uint8)


def draw_textured(world, layout: TextureLayout, texture: np.ndarray, size: int) -> np.ndarray:
    """A face with a texture as it is, seen by the face camera.

    Args:
        world: (N, 3) posed vertices, decimetre.
        layout: of their model.
        texture: (T, T, 3) uint8, such as the lit one.
        size: width and height of the picture, pixels.

    Returns:
        (size, size, 4) uint8: RGB, and 255 where the face is.
    """
    drawing = Drawing(world, layout, size, size)
    alpha = np.where(drawing.covered, 255, 0).astype(np.uint8)
    return np.dstack([to_bytes(drawing.colors(texture)), alpha])
