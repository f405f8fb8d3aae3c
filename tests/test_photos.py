"""Picture files of every kind: what is read, how it is turned and coloured, and why the rest is refused."""

import io
import os
import struct
import subprocess
import sys
import types
import zlib

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

import utils
from facegcn.errors import PhotoError, UserError
from facegcn.files import check_name
from facegcn.photos import reading
from facegcn.report import write_png
from tests.conftest import ROOT

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
              pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")]


def _gradient(height=32, width=48):
    """(H, W, 3) uint8, smooth, without symmetry."""
    rows, columns = np.indices((height, width))
    levels = [rows * 255 // height, columns * 255 // width, (rows + 2 * columns) % 60 + 40]
    return np.stack(levels, axis=-1).astype(np.uint8)


def _read(data: bytes, folder, name="photo"):
    path = folder / name
    path.write_bytes(data)
    return reading.read_image(str(path))


def _encoded(picture, kind, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


# ---------------------------------------------------------------- kinds and modes
def test_every_depth_becomes_8_bit_rgb(tmp_path, rng):
    rgb = rng.integers(0, 256, (9, 7, 3), np.uint8)
    bgr, grey = rgb[..., ::-1], rgb[..., 0]
    alpha = np.dstack([bgr, grey])
    pictures = {"colour.png": (bgr, rgb), "grey.png": (grey, np.dstack([grey] * 3)), "deep.png": (
        bgr.astype(np.uint16) * 257, rgb), "alpha.png": (alpha, np.dstack([rgb, grey])),
        "deepalpha.png": (alpha.astype(np.uint16) * 257, np.dstack([rgb, grey])), "colour.bmp": (bgr, rgb),
        "colour.tiff": (bgr, rgb), "greydeep.tif": (grey.astype(np.uint16) * 257 + 255 - grey, np.dstack([grey] * 3)),
        "greydeep.png": (grey.astype(np.uint16) * 256 + 200, np.dstack([grey] * 3)),
        "deep.tif": (bgr.astype(np.uint16) * 257, rgb), "colour.ppm": (bgr, rgb),
        "grey.pgm": (grey, np.dstack([grey] * 3))}
    for name, (stored, expected) in pictures.items():
        path = str(tmp_path / name)
        assert cv2.imwrite(path, stored)
        image = reading.read_image(path)
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, expected, err_msg=name)


@pytest.mark.parametrize("mode, channels", [("1", 3),
                                            ("L", 3), ("LA", 4), ("P", 3), ("RGB", 3), ("RGBA", 4),
                                            ("CMYK", 3), ("YCbCr", 3)])
def test_every_colour_mode_becomes_rgb_or_rgba(tmp_path, mode, channels):
    rgb = _gradient()
    picture = Image.fromarray(rgb)
    if mode in ("LA", "RGBA"):
        picture.putalpha(Image.fromarray(rgb[..., 1]))
    picture = picture.convert(mode)
    kind, options = {"CMYK": ("TIFF", {}), "YCbCr": ("JPEG", {"quality": 100, "subsampling": 0})}.get(mode, ("PNG", {}))
    image = _read(_encoded(picture, kind, **options), tmp_path)
    assert image.shape == (32, 48, channels) and image.dtype == np.uint8
    expected = np.asarray(picture.convert("L" if mode in ("1", "L", "LA") else "RGB").convert("RGB"), np.int32)
    assert np.abs(image[..., :3] - expected).max() <= 3
    if channels == 4:
        np.testing.assert_array_equal(image[..., 3], rgb[..., 1])


def test_a_palettes_transparent_colour_becomes_alpha(tmp_path):
    picture = Image.fromarray(np.repeat([[0], [1], [2]], 4, axis=1).astype(np.uint8), "P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for kind in ("PNG", "GIF"):
        image = _read(_encoded(picture, kind, transparency=1), tmp_path)
        np.testing.assert_array_equal(image[:, 0, 3], [255, 0, 255])
        np.testing.assert_array_equal(image[0, 0, :3], [255, 0, 0])
    image = _read(_encoded(picture, "PNG", transparency=bytes([255, 90, 7])), tmp_path)
    np.testing.assert_array_equal(image[:, 0, 3], [255, 90, 7])


@pytest.mark.parametrize("kind, options", [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_an_animation_gives_its_first_picture(tmp_path, kind, options):
    frames = [Image.fromarray(np.full((20, 30, 3), level, np.uint8)) for level in (10, 120, 240)]
    image = _read(_encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options), tmp_path)
    assert image.shape[:2] == (20, 30) and np.abs(image[..., :3].astype(int) - 10).max() <= 2


@pytest.mark.parametrize("kind, ending", [("JPEG", "jpe"), ("JPEG", "jfif"), ("JPEG2000", "jp2"), ("GIF", "gif"),
                                          ("PPM", "ppm"), ("WEBP", "webp"), ("AVIF", "avif")])
def test_what_is_listed_in_a_folder_is_read(tmp_path, kind, ending):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow has no {kind}")
    (tmp_path / f"face.{ending.upper()}").write_bytes(_encoded(Image.fromarray(_gradient()), kind))
    (path,) = utils.find_images(str(tmp_path))
    assert np.abs(reading.read_image(path).astype(int) - _gradient()).mean() < 25


# ---------------------------------------------------------------- orientation and colour
@pytest.mark.parametrize("mode, kind", [("RGB", "JPEG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("L", "PNG"), ("LA", "PNG"),
                                        ("RGB", "WEBP"), ("RGBA", "WEBP"), ("RGB", "TIFF"), ("I;16", "PNG")])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed_in_every_mode(tmp_path, mode, kind, orientation):
    rgb = np.zeros((32, 48, 3), np.uint8)
    rgb[:16, :16] = 255
    rgb[16:, :8] = 120
    picture = Image.fromarray(rgb).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = _read(_encoded(picture, kind, exif=exif), tmp_path)
    upright = {1: rgb, 2: rgb[:, ::-1], 3: rgb[::-1, ::-1], 4: rgb[::-1], 5: rgb.swapaxes(0, 1),
               6: np.rot90(rgb, -1), 7: rgb[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(rgb)}[orientation]
    assert image.shape[:2] == upright.shape[:2]
    assert np.abs(image[..., :3].astype(int) - upright).mean() < 4


def test_a_broken_exif_block_turns_nothing_and_loses_nothing(tmp_path):
    jpeg = _encoded(Image.fromarray(_gradient()), "JPEG")
    block = b"Exif\0\0II*\0" + struct.pack("<I", 8) + b"\xff\xff" + b"\x12\x01" * 20
    data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]
    np.testing.assert_array_equal(_read(data, tmp_path), _read(jpeg, tmp_path))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_carried_from_their_profile_to_srgb(tmp_path, mode):
    """A linear-light profile made here: a value v shows as the sRGB value of light v."""
    profile = _linear_profile()
    levels = np.arange(0, 256, 16, dtype=np.uint8)
    picture = Image.fromarray(np.repeat(levels[None, :, None], 3, axis=2)).convert(mode, palette=Image.Palette.ADAPTIVE)
    image = _read(_encoded(picture, "PNG", icc_profile=profile), tmp_path)
    light = levels / 255.0
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(image[0, :, :3] - expected[:, None]).max() <= 3
    assert mode != "RGBA" or (image[..., 3] == 255).all()


def _linear_profile() -> bytes:
    """sRGB's profile with straight tone curves."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    for i in range(count):
        name, offset, _ = struct.unpack(">4sII", profile[132 + 12 * i:144 + 12 * i])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            profile[offset:offset + 16] = b"para" + bytes(8) + struct.pack(">i", 1 << 16)  # type 0: Y = X ** 1
    return bytes(profile)


@pytest.mark.parametrize("profile", [b"no profile at all", b"", bytes(200)])
def test_a_broken_profile_is_left_out_and_noted(tmp_path, caplog, profile):
    data = _encoded(Image.fromarray(_gradient()), "PNG", icc_profile=profile)
    caplog.set_level("INFO", "facegcn")
    np.testing.assert_array_equal(_read(data, tmp_path), _gradient())
    assert not profile or "colour profile cannot be used" in caplog.text


# ---------------------------------------------------------------- damage
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.97])
def test_a_cut_file_is_refused_in_one_way_and_nothing_else_is_written(tmp_path, capfd, kind, part):
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    data = _encoded(Image.fromarray(skimage.data.astronaut()[:200, :200]), kind, **options)
    with pytest.raises(PhotoError, match="photo.png: is (cut short|damaged)") as raised:
        _read(data[:int(len(data) * part)], tmp_path, "photo.png")
    assert raised.value.status == "unreadable"
    assert capfd.readouterr() == ("", "")


def test_a_progressive_photo_that_is_cut_is_refused(tmp_path):
    data = _encoded(Image.fromarray(skimage.data.astronaut()), "JPEG", progressive=True)
    with pytest.raises(PhotoError, match="cut short"):
        _read(data[:len(data) * 3 // 4], tmp_path)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_data_behind_the_end_is_passed_over(tmp_path, kind, rng):
    """As in a motion photo, whose film follows the picture."""
    data = _encoded(Image.fromarray(_gradient()), kind)
    film = rng.integers(0, 255, 200_000, np.uint8).tobytes().replace(b"\xff\xd9", b"\xff\xd8")
    np.testing.assert_array_equal(_read(data + film, tmp_path), _read(data, tmp_path))


def _png_that_declares(width, height) -> bytes:
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) \
        + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(20_000, 10_001), (60_000, 60_000)])
def test_a_bomb_is_refused_by_what_it_declares(tmp_path, size):
    with pytest.raises(PhotoError, match="more than 200 megapixels.*make it smaller"):
        _read(_png_that_declares(*size), tmp_path)


def test_reading_writes_nothing_to_the_terminal(tmp_path):
    """In a process of its own: here pytest hears Pillow's warnings."""
    (tmp_path / "bomb.png").write_bytes(_png_that_declares(20_000, 10_001))
    (tmp_path / "cut.tif").write_bytes(_encoded(Image.fromarray(_gradient()), "TIFF")[:-3000])
    code = ("import sys\nfrom facegcn.errors import PhotoError\nfrom facegcn.photos import reading\n"
            "for path in sys.argv[1:]:\n    try:\n        reading.read_image(path)\n"
            "    except PhotoError as error:\n        print(error.status)\n")
    done = subprocess.run([sys.executable, "-c", code, *(str(tmp_path / name) for name in ("bomb.png", "cut.tif"))],
                          capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("unreadable\nunreadable\n", "")


def test_what_is_no_picture_says_why(tmp_path, capfd):
    cases = {"text.jpg": (b"no picture", "is no picture that Pillow can read; save it as PNG or JPEG"),
             "page.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
             "empty.png": (b"", "is empty"),
             "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC.*pip install pillow-heif, or save it as JPEG")}
    for name, (data, reason) in cases.items():
        with pytest.raises(PhotoError, match=f"{name}: .*{reason}") as raised:
            _read(data, tmp_path, name)
        assert raised.value.status == "unreadable"
    for name, values in (("float.tiff", np.zeros((4, 4, 3), np.float32)), ("grey.tiff", np.zeros((4, 4), np.float32)),
                         ("double.tiff", np.zeros((4, 4, 3), np.float64))):
        cv2.imwrite(str(tmp_path / name), values)
        with pytest.raises(PhotoError, match=f"{name}: has floating-point values; save it with 8 or 16 bits"):
            reading.read_image(str(tmp_path / name))
    with pytest.raises(PhotoError, match="32-bit values"):
        _read(_encoded(Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "TIFF"), tmp_path)
    with pytest.raises(PhotoError, match="absent.png: cannot be read: No such file"):
        reading.read_image(str(tmp_path / "absent.png"))
    with pytest.raises(PhotoError, match="is no file but a folder"):
        reading.read_image(str(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_heic_is_read_where_its_package_is(tmp_path, monkeypatch):
    """By a stand-in for the package that registers a reader as the real one does."""
    def register():
        def opened(file, name):
            picture = Image.new("RGB", (5, 4), (200, 100, 50))
            picture.format = "HEIF"
            return picture
        Image.register_open("HEIF", opened, lambda head: head[4:12] == b"ftypheic")

    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register))
    reading._openers.cache_clear()
    try:
        image = _read(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", tmp_path)
        np.testing.assert_array_equal(image[0, 0], [200, 100, 50])
    finally:
        reading._openers.cache_clear()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_give_a_picture_or_a_photo_error(tmp_path_factory, data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"]))
    content = bytearray(_encoded(Image.fromarray(_gradient(8, 9)), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = _read(bytes(content), tmp_path_factory.mktemp("bytes"))
    except PhotoError as error:
        assert error.status == "unreadable"
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (3, 4)


# ---------------------------------------------------------------- crops of ours, transparency
def test_only_a_png_that_says_so_is_an_aligned_crop(tmp_path, rng):
    rgba = rng.integers(0, 255, (64, 64, 4), np.uint8)
    write_png(str(tmp_path / "ours.png"), rgba, reading.CROP_TEXT)
    write_png(str(tmp_path / "other.png"), rgba)
    write_png(str(tmp_path / "open.png"), rgba[..., :3], reading.CROP_TEXT)
    write_png(str(tmp_path / "else.png"), rgba, {"facegcn": "render"})
    photo = reading.read_photo(str(tmp_path / "ours.png"))
    np.testing.assert_array_equal(photo.image, rgba)
    assert photo.is_crop(64) and not photo.is_crop(224)
    for name in ("other", "open", "else"):
        assert not reading.read_photo(str(tmp_path / f"{name}.png")).is_crop(64), name


def test_what_is_more_transparent_than_not_becomes_black_and_is_not_there():
    image = np.full((1, 3, 4), 200, np.uint8)
    image[0, :, 3] = 0, 127, 128
    np.testing.assert_array_equal(reading.opaque(image)[0, :, 0], [0, 0, 200])
    np.testing.assert_array_equal(reading.shown_part(image)[0], [0, 0, 255])
    assert (reading.shown_part(image[..., :3]) == 255).all()


def test_masks_keep_their_values(tmp_path):
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    name = str(tmp_path / "Maske-\u00e4\u6f22.png")
    write_png(name, labels)
    np.testing.assert_array_equal(reading.read_grey(name), labels)
    write_png(str(tmp_path / "rgb.png"), np.dstack([labels] * 3))
    np.testing.assert_array_equal(reading.read_grey(str(tmp_path / "rgb.png"), exact=False), labels)
    with pytest.raises(PhotoError, match="rgb.png: is no 8-bit grey picture"):
        reading.read_grey(str(tmp_path / "rgb.png"))
    cv2.imwrite(str(tmp_path / "deep.png"), labels.astype(np.uint16) * 256)
    with pytest.raises(PhotoError, match="deep.png: is no 8-bit grey picture"):
        reading.read_grey(str(tmp_path / "deep.png"), exact=False)


# ---------------------------------------------------------------- folders
_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")


@_pipes
def test_a_folder_is_searched_for_pictures_and_nothing_that_only_looks_like_one(tmp_path):
    names = ["a.JPG", "b.heic", "c.gif", "d.avif", "e.jp2", "f.PPM", "g.jpe", "h.jfif", "i.heif", "j.webp", "k.tif"]
    for name in [*names, "._a.JPG", ".hidden.png", "notes.txt", "clip.mp4"]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere.png")
    assert [os.path.basename(path) for path in utils.find_images(str(tmp_path))] == sorted([*names, "lost.png"])
    with pytest.raises(PhotoError, match="lost.png: cannot be read"):
        reading.read_image(str(tmp_path / "lost.png"))


@_pipes
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    pipe = str(tmp_path / "pipe.png")
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="--input .*pipe.png: it is a pipe or a device"):
        utils.find_images(pipe)
    with pytest.raises(PhotoError, match="a pipe or a device"):
        reading.read_image(pipe)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names there are always text")
def test_a_name_that_is_no_text_is_listed_and_can_be_rejected(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.png"), "wb") as file:
        file.write(_encoded(Image.fromarray(_gradient()), "PNG"))
    (path,) = utils.find_images(str(tmp_path))
    assert reading.read_image(path).shape == (32, 48, 3)
    with pytest.raises(UserError, match="rename it"):
        check_name(os.path.basename(path))
