"""Where a config's morphable model comes from, and the demo world's own data."""

from __future__ import annotations

import concurrent.futures
import glob
import logging
import os

import cv2
import numpy as np
from tqdm import tqdm

from facegcn import files
from facegcn.assets import bfm09, bfm_files
from facegcn.config import Config
from facegcn.errors import BinFileError, BrokenFile, ModelFileError, UserError
from facegcn.landmarks import known_dense, landmark_targets
from facegcn.morphable import MorphableModel
from facegcn.photos import packed_file
from facegcn.photos.packed_photos import PackedPhotos

log = logging.getLogger("facegcn")

_DEMO_SEED = 0  # of the procedural face
_TRUTH = ("coeff", "albedo", "landmarks", "visible")

_CURES = {
    "ict": "convert a checkout of ICT-FaceKit (https://github.com/ICT-VGL/ICT-FaceKit, MIT) with\n"
           "  python -m facegcn.assets ict --source ICT-FaceKit --out {path}",
    "bfm09": "make it from the licensed Basel Face Model 2009 and its companion files (docs/bfm09.md) with\n"
             "  python -m facegcn.assets bfm09 --source DIR --out {path}",
}
#: What is kept of packed made portraits beside their pictures, as ``PackedPhotos`` has it.
_MADE = ("albedo", "dense", "second")


def load_morphable(config: Config) -> MorphableModel:
    """The morphable model of a config; the demo world's own, and BFM09's where its official files are in the
    data folder, are made on first use (seconds).

    Raises:
        UserError: the model file is absent or broken; says how to get it.
    """
    if config.world == "demo" and not config.model_file:
        return _demo_model(config)
    path = config.path(config.model_file or "model.npz")
    if config.world == "bfm09" and not config.model_file and not os.path.exists(path) \
            and bfm_files.has_sources(config.root_dir):
        log.info("making %s from the official files in %s", path, config.root_dir)
        bfm09.convert_bfm09(config.root_dir).save(path)
    if not os.path.exists(path):
        cure = own_model_cure(config.world) if config.model_file else _CURES[config.world].format(path=path)
        raise UserError(f"the morphable model {path} is not there: {cure}")
    return _loaded(path)


def own_model_cure(world: str) -> str:
    """What to do where the file that ``model_file`` names is absent or broken."""
    return ("correct model_file, or convert a model (docs/model_format.md)"
            + ", or set model_file: '' for the procedural face" * (world == "demo"))


# ---------------------------------------------------------------- the demo world's pictures
def ensure_demo_portraits(config: Config) -> list[str]:
    """The RGBA PNGs of the demo world's made portraits; what is absent or damaged of them is made (a minute or two).

    Their folder's name holds a digest of the face model, size, seed and the code that makes them.
    """
    from facegcn.portraits.maker import PortraitMaker, Stream, portrait_name, write_portraits

    morphable = load_morphable(config)
    folder = config.path(f"portraits-{_portraits_key(config, morphable, Stream.PACKED)}")
    numbers = range(config.demo_portraits)
    missing = [number for number in numbers if not _is_whole(folder, portrait_name(number))]
    if missing:
        log.info("making %d portraits with known truth in %s", len(missing), folder)
        others = [other for other in glob.glob(config.path("portraits-*")) if other != folder]
        if others:
            log.info("those of another model, size, seed or version stay: delete %s when no packed file needs them",
                     ", ".join(sorted(others)))
        write_portraits(PortraitMaker(morphable, config.img_size, config.seed), folder, missing, config.workers)
    return [os.path.join(folder, portrait_name(number) + ".png") for number in numbers]


def _portraits_key(config: Config, morphable: MorphableModel, stream) -> str:
    return files.digest(morphable.digest, config.img_size, config.seed, int(stream),
                        files.code_version("facegcn.portraits.maker"))


def _is_whole(folder: str, name: str) -> bool:
    """Whether all of a portrait is there and can be read; says which file cannot."""
    picture, truth = os.path.join(folder, name + ".png"), os.path.join(folder, "truth", name + ".npz")
    if not all(os.path.exists(path) for path in (picture, os.path.join(folder, name + ".txt"), truth)):
        return False
    try:
        files.read_npz(truth, _TRUTH)
        if cv2.imread(picture, cv2.IMREAD_UNCHANGED) is None:
            raise BrokenFile(picture, "is no picture")
    except BrokenFile as error:
        log.warning("%s is damaged (%s); it is made anew", error.path, error.reason)
        return False
    return True


def pack_made_portraits(config: Config, morphable: MorphableModel) -> PackedPhotos:
    """Made portraits of a world's model, packed for the texture networks; made on first use.

    The file's name holds a digest of the model, size, seed and the code that makes them; a damaged one is made anew.
    """
    from facegcn.portraits.maker import Stream

    count = config.made_portraits
    path = config.path(f"made-{count}-{_portraits_key(config, morphable, Stream.MIXED)}.bin")
    truth_path = packed_file.companion(path, "truth.npz")
    if os.path.exists(path):
        try:
            packed_file.verify(path)
            names = packed_file.read_companion(path).names
            return _made_photos(path, names, files.read_npz(truth_path, _MADE))
        except (BinFileError, BrokenFile, FileNotFoundError) as error:
            log.warning("the kept portraits cannot be used and are made anew: %s", error)
    log.info("making %d portraits with known truth: %s", count, path)
    names, found = [f"made_{number:06d}" for number in range(count)], {name: [] for name in _MADE}
    packed_file.write_bin(path, names, _pictures(config, morphable, count, found))
    made = {name: np.stack(rows) for name, rows in found.items()}
    files.write_npz(truth_path, made, compressed=False)
    return _made_photos(path, names, made)


def _pictures(config: Config, morphable: MorphableModel, count: int, found: dict[str, list]):
    """Pictures of made portraits, one by one; appends to ``found`` what ``_MADE`` names of each."""
    from facegcn.photos.alignment import dense_of_crop
    from facegcn.portraits.maker import PortraitMaker, Stream

    maker = PortraitMaker(morphable, config.img_size, config.seed, Stream.MIXED)
    def make(number):
        portrait = maker.make(number)
        return portrait, known_dense(dense_of_crop(portrait.rgba))

    make(0)  # compiles the kernels before the threads need them
    pool = concurrent.futures.ThreadPoolExecutor(config.workers)
    try:
        for number, (portrait, dense) in enumerate(tqdm(pool.map(make, range(count)), total=count,
                                                        desc="made portraits", dynamic_ncols=True)):
            found["albedo"].append((portrait.albedo / 127.5 - 1.0).astype(np.float16))
            found["dense"].append(dense)
            found["second"].append(maker.coefficients(number, 1))
            yield portrait.rgba
    finally:
        pool.shutdown(cancel_futures=True)


def _made_photos(path: str, names: list[str], made: dict[str, np.ndarray]) -> PackedPhotos:
    targets = np.stack([landmark_targets(None)] * len(names))
    rows = np.arange(len(names), dtype=np.int32)
    return PackedPhotos(path, names, {"train": np.arange(len(names))}, targets, made["albedo"], rows,
                        dense=made["dense"], second=made["second"])


# ---------------------------------------------------------------- the demo world's face
def _demo_model(config: Config) -> MorphableModel:
    """The procedural face of the asked density, made on first use, and anew when the file is damaged."""
    from facegcn.demo.face import make_demo_face

    key = files.digest(_DEMO_SEED, files.code_version("facegcn.demo.face"))
    path = config.path(f"demo_face-{config.demo_vertices}-{key}.npz")
    if os.path.exists(path):
        try:
            return MorphableModel.load(path)
        except ModelFileError as error:
            log.warning("%s; it is made anew", error)
    log.info("making the procedural face model %s", path)
    model = make_demo_face(vertices=config.demo_vertices, seed=_DEMO_SEED)
    model.save(path)
    return model


def _loaded(path: str) -> MorphableModel:
    try:
        return MorphableModel.load(path)
    except ModelFileError as error:
        raise UserError(str(error)) from error
