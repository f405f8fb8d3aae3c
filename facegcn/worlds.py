"""Where a config's morphable model comes from, and the demo world's own data."""

from __future__ import annotations

import concurrent.futures
import os

import numpy as np
from tqdm import tqdm

from facegcn import binfile
from facegcn.config import Config, UserError
from facegcn.fitting import landmark_targets
from facegcn.morphable import ModelFileError, MorphableModel
from facegcn.packed import PackedPhotos

_CURES = {
    "ict": "convert a checkout of ICT-FaceKit (https://github.com/ICT-VGL/ICT-FaceKit, MIT) with\n"
           "  python -m facegcn.assets ict --source ICT-FaceKit --out {path}",
    "bfm09": "it is made from the licensed Basel Face Model 2009 and its companion files;\n"
             "docs/model_format.md tells how to bring a model of your own",
}


def load_morphable(config: Config) -> MorphableModel:
    """The morphable model of a config; the demo world's is made on first use (seconds).

    Raises:
        UserError: the model file is absent or broken; says how to get it.
    """
    path = config.path(config.model_file)
    if config.world == "demo":
        return _demo_model(path, config)
    if not os.path.exists(path):
        raise UserError(f"the morphable model {path} is not there: " + _CURES[config.world].format(path=path))
    try:
        return MorphableModel.load(path)
    except ModelFileError as error:
        raise UserError(str(error)) from None


def ensure_demo_portraits(config: Config) -> str:
    """The folder of the demo world's made portraits; they are made when absent (a minute or two).

    Returns:
        the folder of RGBA PNGs (``config.images``).
    """
    from facegcn.portraits import PortraitMaker, write_portraits

    folder = config.path(config.images)
    maker = PortraitMaker(load_morphable(config), size=config.img_size, seed=config.seed)
    missing = [i for i in range(config.demo_portraits)
               if not os.path.exists(os.path.join(folder, f"portrait_{i:06d}.png"))]
    if missing:
        print(f"making {config.demo_portraits} portraits with known truth in {folder}")
        write_portraits(maker, folder, first=0, count=config.demo_portraits, workers=config.workers)
    return folder


def pack_made_portraits(config: Config, morphable: MorphableModel) -> PackedPhotos:
    """Made portraits of a world's model, packed for the texture networks; made on first use.

    The file's name holds the model's hash, so portraits of another model are never used.
    """
    from facegcn.portraits import PortraitMaker

    path = config.path(f"made-{config.made_portraits}-{config.img_size}-{config.seed}-{morphable.digest}.bin")
    names = [f"made_{number:06d}" for number in range(config.made_portraits)]
    truth_path = binfile.companion(path, "truth.npz")
    if not os.path.exists(path):
        maker, albedo = PortraitMaker(morphable, size=config.img_size, seed=config.seed), []

        def pictures():
            maker.make(0)  # compiles the kernels before the threads need them
            with concurrent.futures.ThreadPoolExecutor(config.workers) as pool:
                for portrait in tqdm(pool.map(maker.make, range(len(names))), total=len(names),
                                     desc="made portraits", dynamic_ncols=True):
                    albedo.append((portrait.albedo / 127.5 - 1.0).astype(np.float16))
                    yield portrait.rgba

        # The truth is complete before the packed file appears, so neither is met without the other.
        binfile.write_bin(path + ".making", names, pictures())
        np.savez(truth_path, albedo=np.stack(albedo))
        os.replace(binfile.companion(path + ".making", "names.txt"), binfile.companion(path, "names.txt"))
        os.replace(path + ".making", path)
    with np.load(truth_path) as data:
        truth = data["albedo"]
    targets = np.stack([landmark_targets(None)] * len(names))
    return PackedPhotos(path, names, {"train": np.arange(len(names))}, targets, truth)


def _demo_model(path: str, config: Config) -> MorphableModel:
    """Loads the procedural face, making it anew when absent or of another density."""
    from facegcn.demo_face import make_demo_face

    if os.path.exists(path):
        try:
            model = MorphableModel.load(path)
        except ModelFileError as error:
            raise UserError(f"{error}; delete the file and it is made anew") from None
        if abs(model.vertex_count - config.demo_vertices) <= 0.1 * config.demo_vertices:
            return model
    print(f"making the procedural face model {path}")
    model = make_demo_face(vertices=config.demo_vertices, seed=0)
    model.save(path)
    return model
