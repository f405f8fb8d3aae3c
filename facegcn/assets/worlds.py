"""Where a config's morphable model comes from, and the demo world's own data."""

from __future__ import annotations

import concurrent.futures
import os

import numpy as np
from tqdm import tqdm

from facegcn.assets import bfm09, bfm_files
from facegcn.config import Config
from facegcn.errors import ModelFileError, UserError
from facegcn.fitting import landmark_targets
from facegcn.morphable import MorphableModel
from facegcn.photos import packed_file
from facegcn.photos.packed_photos import PackedPhotos

#: Number of the first portrait that is mixed with photos: far from the packed ones and stage rec's.
_FIRST_MADE = 2_000_000

_CURES = {
    "ict": "convert a checkout of ICT-FaceKit (https://github.com/ICT-VGL/ICT-FaceKit, MIT) with\n"
           "  python -m facegcn.assets ict --source ICT-FaceKit --out {path}",
    "bfm09": "make it from the licensed Basel Face Model 2009 and its companion files (docs/bfm09.md) with\n"
             "  python -m facegcn.assets bfm09 --source DIR --out {path}",
}


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
        print(f"making {path} from the official files in {config.root_dir}")
        bfm09.convert(config.root_dir).save(path)
    if not os.path.exists(path):
        cure = own_model_cure(config.world) if config.model_file else _CURES[config.world].format(path=path)
        raise UserError(f"the morphable model {path} is not there: {cure}")
    return _loaded(path)


def own_model_cure(world: str) -> str:
    """What to do where the file that ``model_file`` names is absent or broken."""
    return ("correct model_file, or convert a model (docs/model_format.md)"
            + ", or set model_file: '' for the procedural face" * (world == "demo"))


def ensure_demo_portraits(config: Config) -> str:
    """The folder of the demo world's made portraits; they are made when absent (a minute or two).

    Returns:
        the folder of RGBA PNGs (``config.images``).
    """
    from facegcn.portraits.maker import PortraitMaker, write_portraits

    folder = config.path(config.images)
    maker = PortraitMaker(load_morphable(config), size=config.img_size, seed=config.seed)
    missing = [i for i in range(config.demo_portraits)
               if not os.path.exists(os.path.join(folder, "truth", f"portrait_{i:06d}.npz"))]
    if missing:
        print(f"making {config.demo_portraits} portraits with known truth in {folder}")
        write_portraits(maker, folder, first=0, count=config.demo_portraits, workers=config.workers)
    return folder


def pack_made_portraits(config: Config, morphable: MorphableModel) -> PackedPhotos:
    """Made portraits of a world's model, packed for the texture networks; made on first use.

    The file's name holds the model's hash, so portraits of another model are never used.
    """
    from facegcn.portraits.maker import PortraitMaker

    path = config.path(f"made-{config.made_portraits}-{config.img_size}-{config.seed}-{morphable.digest}.bin")
    names = [f"made_{number:06d}" for number in range(config.made_portraits)]
    truth_path = packed_file.companion(path, "truth.npz")
    if not os.path.exists(path):
        maker, albedo = PortraitMaker(morphable, size=config.img_size, seed=config.seed), []

        def pictures():
            maker.make(0)  # compiles the kernels before the threads need them
            with concurrent.futures.ThreadPoolExecutor(config.workers) as pool:
                made = pool.map(maker.make, range(_FIRST_MADE, _FIRST_MADE + len(names)))
                for portrait in tqdm(made, total=len(names), desc="made portraits", dynamic_ncols=True):
                    albedo.append((portrait.albedo / 127.5 - 1.0).astype(np.float16))
                    yield portrait.rgba

        # The truth is complete before the packed file appears, so neither is met without the other.
        packed_file.write_bin(path + ".making", names, pictures())
        np.savez(truth_path, albedo=np.stack(albedo))
        os.replace(packed_file.companion(path + ".making", "names.txt"), packed_file.companion(path, "names.txt"))
        os.replace(path + ".making", path)
    with np.load(truth_path) as data:
        truth = data["albedo"]
    targets = np.stack([landmark_targets(None)] * len(names))
    return PackedPhotos(path, names, {"train": np.arange(len(names))}, targets, truth,
                        np.arange(len(names), dtype=np.int32))


def _demo_model(config: Config) -> MorphableModel:
    """The procedural face of the asked density, made on first use."""
    from facegcn.demo.face import make_demo_face

    path = config.path(f"demo_face-{config.demo_vertices}.npz")
    if os.path.exists(path):
        return _loaded(path)
    print(f"making the procedural face model {path}")
    model = make_demo_face(vertices=config.demo_vertices, seed=0)
    model.save(path)
    return model


def _loaded(path: str) -> MorphableModel:
    try:
        return MorphableModel.load(path)
    except ModelFileError as error:
        raise UserError(str(error)) from error
