"""Picture files -> arrays, by Pillow: turned upright, in sRGB, 8 bits, whole or refused with the reason.

One table says which kinds of picture are read; a folder is searched for the same endings.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from facegcn.errors import PhotoError
from facegcn.report import CROP_TEXT

log = logging.getLogger("facegcn")

#: Endings by Pillow's name of the format. Nothing else is tried: Pillow would start Ghostscript for an EPS.
_FORMATS = {"PNG": (".png", ".apng"), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "MPO": (".mpo",), "WEBP": (".webp",),
            "BMP": (".bmp", ".dib"), "TIFF": (".tif", ".tiff"), "GIF": (".gif",), "AVIF": (".avif",),
            "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx"), "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
            "HEIF": (".heic", ".heif")}
IMAGE_ENDINGS = tuple(ending for endings in _FORMATS.values() for ending in endings)
#: Pixels that a picture may have: the largest phone cameras make 16,320 x 12,240. Decoded it takes 0.8 GB.
PIXEL_LIMIT = 200_000_000
_HALF = 128  # alpha from which a pixel counts as shown
_DEEP_GREYS = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes for grey of more than 8 bits
_ORIENTATION, _SAMPLE_FORMAT, _FLOATS = 0x0112, 339, 3  # EXIF tag; TIFF tag, and its value for floating point
_UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90}  # what undoes each EXIF orientation [EXIF 2.3, 4.6.4 A]
_PROFILE_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour space of a profile -> mode it is for
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # [ISO/IEC 23008-12]

# Pillow refuses twice this number by itself, also inside of files; what lies between is refused below.
Image.MAX_IMAGE_PIXELS = PIXEL_LIMIT
# Its remarks on odd metadata are no news about the picture.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class Photo(NamedTuple):
    """A picture file's content.

    Attributes:
        image: uint8 RGB (H, W, 3), or RGBA (H, W, 4) where the file has transparency.
        says_crop: the file says that it is an aligned crop with a skin mask (``CROP_TEXT``).
    """

    image: np.ndarray
    says_crop: bool

    def is_crop(self, size: int) -> bool:
        """Whether it is an aligned crop of (size, size) pixels whose alpha is a skin mask."""
        return self.says_crop and self.image.shape == (size, size, 4)


def read_photo(path: str) -> Photo:
    """Reads a picture: the first one of an animation, turned as its EXIF tag says, in sRGB.

    Grey becomes RGB, 16 bits become 8 (the upper ones), any kind of transparency becomes alpha. Data behind the
    picture's end, such as the film of a motion photo, is passed over. A colour profile that cannot be used is
    noted in the log and left out.

    Raises:
        PhotoError: absent, no file, no picture, damaged, cut short, too large, or of values that are no colours.
    """
    picture = _decoded(path)
    says_crop = picture.format == "PNG" and all(picture.info.get(key) == text for key, text in CROP_TEXT.items())
    with _damage_named(path):
        return Photo(_colors(_turned(picture), picture.info.get("icc_profile"), path), says_crop)


def read_image(path: str) -> np.ndarray:
    """The picture alone, see ``read_photo``."""
    return read_photo(path).image


def read_grey(path: str, exact: bool = True) -> np.ndarray:
    """A mask or label map (H, W) uint8, its values as they are stored.

    Args:
        path: the file.
        exact: refuse what is not 8-bit grey; otherwise colours become grey.

    Raises:
        PhotoError: as ``read_photo``; with ``exact``, no 8-bit grey picture.
    """
    picture = _decoded(path)
    if picture.mode in _DEEP_GREYS or exact and picture.mode not in ("L", "1"):
        raise PhotoError(f"{path}: is no 8-bit grey picture", "unreadable")
    with _damage_named(path):
        return np.array(picture.convert("L"))


def opaque(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) of an RGB or RGBA picture; what is more transparent than not becomes black."""
    return image if image.shape[2] == 3 else image[..., :3] * (image[..., 3:] >= _HALF)


def shown_part(image: np.ndarray) -> np.ndarray:
    """(H, W) uint8: 255 where an RGB or RGBA picture is, 0 where it is more transparent than not."""
    if image.shape[2] == 3:
        return np.full(image.shape[:2], 255, np.uint8)
    return np.where(image[..., 3] >= _HALF, 255, 0).astype(np.uint8)


# ---------------------------------------------------------------- opening
def _decoded(path: str) -> Image.Image:
    """The decoded picture; every way in which a file fails becomes a PhotoError that names it."""
    data = _content(path)
    try:
        with _damage_named(path):
            picture = Image.open(io.BytesIO(data), formats=[name for name in _FORMATS if name in _openers()])
            width, height = picture.size
            if width * height > PIXEL_LIMIT:
                raise Image.DecompressionBombError
            picture.load()
            return picture
    except UnidentifiedImageError as error:
        if _is_heic(data) and "HEIF" not in _openers():
            raise PhotoError(f"{path}: is a HEIC picture: pip install pillow-heif, or save it as JPEG",
                             "unreadable") from ImportError("pillow_heif")
        raise PhotoError(f"{path}: {_why_no_picture(data)}", "unreadable") from error


@contextlib.contextmanager
def _damage_named(path: str) -> Iterator[None]:
    """Makes a PhotoError of what Pillow raises, for all but a file that no decoder takes."""
    try:
        yield
    except (PhotoError, UnidentifiedImageError):
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise PhotoError(f"{path}: has more than {PIXEL_LIMIT // 1_000_000} megapixels, or more than this machine's "
                         "memory holds; make it smaller", "unreadable") from error
    # Decoders raise what they please for a damaged file: OSError, ValueError, SyntaxError, struct.error, ...
    except Exception as error:
        cut = isinstance(error, EOFError) or "truncated" in str(error).lower()
        reason = "is cut short; fetch it again" if cut else f"is damaged ({error}); fetch it again"
        raise PhotoError(f"{path}: {reason}", "unreadable") from error


def _content(path: str) -> bytes:
    """All bytes of a regular file."""
    try:
        # A pipe would be waited for without end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise PhotoError(f"{path}: is no file but a folder, a pipe or a device", "unreadable")
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        raise PhotoError(f"{path}: cannot be read: {reason}", "unreadable") from error


@functools.cache
def _openers() -> frozenset[str]:
    """Names of the formats that this Pillow reads; HEIF where the package pillow-heif is installed."""
    Image.init()
    with contextlib.suppress(ImportError):
        from pillow_heif import register_heif_opener
        register_heif_opener()
    return frozenset(Image.OPEN)


def _why_no_picture(data: bytes) -> str:
    """Why no decoder takes a file, and the cure."""
    if not data:
        return "is empty"
    if _is_heic(data):
        return "is a damaged HEIC picture; fetch it again"
    if _is_float_tiff(data):
        return "has floating-point values; save it with 8 or 16 bits"
    accepts = (Image.OPEN[name][1] for name in _FORMATS if name in _openers())
    if any(accept is not None and accept(data[:16]) is True for accept in accepts):
        return "is cut short or damaged; fetch it again"
    return "is no picture that Pillow can read; save it as PNG or JPEG"


def _is_heic(data: bytes) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS


def _is_float_tiff(data: bytes) -> bool:
    """Whether a file is a TIFF of floating-point samples, of which Pillow knows no kind but grey."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return False
    try:
        stream = io.BytesIO(data)
        tags = ImageFileDirectory_v2(stream.read(8))
        stream.seek(tags.next)
        tags.load(stream)
        return _FLOATS in np.ravel(tags.get(_SAMPLE_FORMAT, 0))
    except Exception:  # as in _decoded: this file is broken somehow
        return False


# ---------------------------------------------------------------- colours
def _turned(picture: Image.Image) -> Image.Image:
    """The picture as a viewer shows it; an EXIF block that cannot be read turns nothing."""
    try:
        turn = _UPRIGHT.get(picture.getexif().get(_ORIENTATION))
    except Exception as error:  # Pillow's parser raises what comes
        log.info("an EXIF block that cannot be read (%s) is passed over", error)
        return picture
    return picture if turn is None else picture.transpose(turn)


def _colors(picture: Image.Image, profile: bytes | None, path: str) -> np.ndarray:
    """uint8 sRGB (H, W, 3) or (H, W, 4) of a picture of any mode."""
    if picture.mode == "F":
        raise PhotoError(f"{path}: has floating-point values; save it with 8 or 16 bits", "unreadable")
    if picture.mode in _DEEP_GREYS:
        picture = Image.fromarray(_upper_bits(picture, path))
    alpha = None
    if picture.has_transparency_data:
        grey = picture.mode in ("L", "LA")
        picture = picture.convert("RGBA")
        alpha = picture.getchannel("A")
        picture = picture.getchannel("R") if grey else picture.convert("RGB")
    elif picture.mode in ("1", "P", "RGBX", "YCbCr", "HSV"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    if profile:
        picture = _in_srgb(picture, profile, path)
    try:
        image = np.array(picture.convert("RGB"))
    except ValueError as error:
        raise PhotoError(f"{path}: has colours of the kind {picture.mode}; save it as RGB", "unreadable") from error
    return image if alpha is None else np.dstack([image, np.asarray(alpha)])


def _upper_bits(picture: Image.Image, path: str) -> np.ndarray:
    """(H, W) uint8 of 16-bit grey; Pillow keeps some of it as 32-bit numbers."""
    values = np.asarray(picture)
    if values.size and not 0 <= values.min() <= values.max() < 1 << 16:
        raise PhotoError(f"{path}: has 32-bit values; save it with 8 or 16 bits", "unreadable")
    return (values >> 8).astype(np.uint8)


def _in_srgb(picture: Image.Image, profile: bytes, path: str) -> Image.Image:
    """The picture carried from its colour profile to sRGB, or itself where the profile does not serve."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if _PROFILE_SPACES.get(space) != picture.mode:
            raise ImageCms.PyCMSError(f"it is for {space}, the picture is {picture.mode}")
        return ImageCms.profileToProfile(picture, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        log.info("%s: its colour profile cannot be used (%s): colours are taken for sRGB", path, error)
        return picture
