"""Photos of every kind that is read."""

import io
import os

import numpy as np
from PIL import Image, ImageCms

from facegcn.errors import PhotoError
from facegcn.photos import reading
from tests.fuzzing import attempts
from tests.fuzzing.pictures import changed_png

_SIDE = 12
_KINDS = (("PNG", "RGB", {}), ("PNG", "RGBA", {}), ("PNG", "P", {}), ("PNG", "I;16", {}), ("PNG", "L", {"icc": True}),
          ("JPEG", "RGB", {}), ("JPEG", "CMYK", {}), ("JPEG", "RGB", {"progressive": True, "exif": True, "icc": True}),
          ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True, "exif": True}), ("BMP", "RGB", {}), ("BMP", "P", {}),
          ("TIFF", "RGB", {}), ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "CMYK", {}),
          ("TIFF", "L", {"compression": "jpeg"}), ("TIFF", "1", {"compression": "group4"}),
          ("TIFF", "RGB", {"compression": "tiff_adobe_deflate", "icc": True}), ("GIF", "P", {}),
          ("GIF", "P", {"append_images": True, "save_all": True}), ("AVIF", "RGB", {}), ("JPEG2000", "RGB", {}),
          ("JPEG2000", "L", {"no_jp2": True}), ("PPM", "RGB", {}), ("PPM", "L", {}), ("PPM", "1", {}))


def picture_files():
    """A small file of each kind."""
    rng, found = np.random.default_rng(0), []
    base = Image.fromarray(rng.integers(0, 256, (_SIDE, _SIDE, 3)).astype(np.uint8))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    for form, mode, options in _KINDS:
        picture = base.convert("L") if mode == "I;16" else base.convert(mode)
        if mode == "I;16":
            picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
        options = {key: exif if key == "exif" else [picture] if key == "append_images" else value
                   for key, value in options.items()}
        if options.pop("icc", False):
            options["icc_profile"] = profile
        held = io.BytesIO()
        picture.save(held, form, **options)
        found.append(held.getvalue())
    return found


class Reader(attempts.Reader):
    """One file, whose content tells its kind."""

    errors = (PhotoError,)

    def seeds(self):
        return [{"photo.png": content} for content in picture_files()]

    def case(self, rng, seeds):
        data = rng.choice(seeds)["photo.png"]
        return attempts.Case({"photo.png": changed_png(rng, data, [rng.choice(seeds)["photo.png"], data])})

    def read(self, folder):
        path = os.path.join(folder, "photo.png")
        try:
            reading.read_grey(path)
        except PhotoError:
            pass
        return reading.read_photo(path)

    def wrong(self, answer):
        image = answer.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (3, 4) or not image.size:
            return f"a picture {image.dtype} {image.shape}"
        return "" if image.shape[0] * image.shape[1] <= reading.PIXEL_LIMIT else f"a picture of {image.shape}"
