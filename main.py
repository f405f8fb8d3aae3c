"""Trains the face reconstruction, or reconstructs photos.

    python main.py --mode train [--config configs/demo.yaml] [--stage all|rec|render]
    python main.py --mode test  [--input PHOTO_OR_FOLDER] [--output FOLDER]

Without --config this is the demo world, which needs no file from elsewhere.
"""

from __future__ import annotations

import argparse
import os
import sys

from facegcn.config import Config, UserError, config_from_arguments

DEFAULT_CONFIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs", "demo.yaml")


def parse_arguments(arguments=None):
    """The command line. Flags left out keep the config's value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--mode", default="train", choices=("train", "test"))
    add("--config", default=DEFAULT_CONFIG, help="YAML file of settings")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override any setting; repeatable")
    add("--stage", default="all", choices=("all", "rec", "render"),
        help="train the regressor (rec), the texture networks (render), or what is missing (all)")
    add("--restore", action="store_true", help="continue the latest run of this name and network")
    add("--input", help="test: a photo or a folder; default: the held-out packed images")
    add("--output", help="test: folder of the results (default results/<run name>)")
    for name, kind, text in (
            ("name", str, "data set name"), ("suffix", str, "suffix of the run folder's name"),
            ("model", str, "texture network: resnet or normal"), ("root_dir", str, "data folder"),
            ("batch_size", int, "photos a step"), ("epoch", int, "epochs of stage render"),
            ("eval", float, "epochs between validations"), ("img_size", int, "crop width, pixels"),
            ("nz", int, "latent width of the normal network"), ("lr", float, "learning rate"),
            ("buffer_size", int, "shuffle buffer, images"), ("workers", int, "parallel readers"),
            ("drop_rate", float, "dropout of the embedding"),
            ("adv_lambda", float, "weight of the adversarial loss"), ("seed", int, "random seed")):
        add(f"--{name}", type=kind, help=text)
    add("--gan", action="store_const", const=True, help="train against an image critic")
    add("--wide", action="store_const", const=True, help="wider texture networks")
    return parser.parse_args(arguments)


def train(config: Config, args) -> int:
    """Stage rec, stage render, or what is missing of them, in one run folder."""
    import keras

    from facegcn import training
    from facegcn.encoding import PhotoEncoder, encode_packed
    from facegcn.packed import read_packed
    from facegcn.worlds import load_morphable, pack_made_portraits
    from model import build_critic, build_face_model
    from utils import RunFolder

    morphable = load_morphable(config)
    packed = read_packed(config, morphable.vertex_count)
    run = RunFolder.latest(config, morphable, "config.yaml") if args.restore else RunFolder.create(config)
    if run is None:
        raise UserError(f"--restore: there is no run '*-{config.run_name}' in {config.runs_dir} to continue")
    if args.restore:
        config = run.with_architecture(config)
    keras.utils.set_random_seed(config.seed)
    face_model = build_face_model(config, morphable)
    split_sizes = {name: len(rows) for name, rows in packed.splits.items()}
    run.save_config(config, vertices=morphable.vertex_count, coefficients=morphable.coefficient_count,
                    morphable=morphable.digest, images=split_sizes)
    run.log(f"run folder {run.path}: {morphable.vertex_count:,} vertices, images {split_sizes}")

    _provide_regressor(config, args, run, face_model, packed)
    if args.stage == "rec":
        return 0
    encoder, made = PhotoEncoder(face_model, config.fit_steps), None
    encoding = encode_packed(encoder, packed)
    if config.made_portraits:
        portraits = pack_made_portraits(config, morphable)
        made = (portraits, encode_packed(encoder, portraits))
    critic = build_critic(config.img_size, config.critic_norm) if config.gan else None
    trainer = training.TextureTrainer(face_model, config, critic)
    run.log(f"stage render: {config.epoch} epochs of {split_sizes['train']} photos, losses '{config.losses}'")
    training.train_texture(trainer, config, run, packed, encoding, made)
    run.log(f"done; sample sheets are in {run.file('samples')}")
    return 0


def _provide_regressor(config, args, run, face_model, packed) -> None:
    """Trains the regressor, or takes the one of this run or of the latest run that has one."""
    from facegcn import rec_training
    from facegcn.regressor import load_weights, save_weights
    from utils import RunFolder

    own = run.file("regressor.npz")
    finished = RunFolder.latest(config, face_model.morphable, "regressor.npz", any_network=True)
    if args.stage != "rec" and finished is not None:
        load_weights(face_model.regressor, finished.file("regressor.npz"))
        run.log(f"regressor: from {finished.path} (--stage rec trains it anew)")
    elif args.stage == "render":
        raise UserError(f"--stage render needs a trained regressor, and no run of '{config.name}' in "
                        f"{config.runs_dir} has one: run --stage rec first, or --stage all")
    else:
        run.log(f"stage rec: {config.rec_steps} steps of {config.rec_batch_size} made portraits")
        rec_training.train_regressor(face_model, config, run, packed)
    if not os.path.exists(own):
        # A run folder holds everything that its textures depend on.
        save_weights(face_model.regressor, own)
        load_weights(face_model.regressor, own)


def test(config: Config, args) -> int:
    """Reconstructs --input, or the held-out packed images; 1 when nothing could be reconstructed."""
    from facegcn.packed import read_packed
    from facegcn.reconstruction import Reconstructor, load_job, packed_jobs, print_summary
    from facegcn.worlds import load_morphable
    from model import build_face_model
    from utils import RunFolder, find_images, init_sampling

    morphable = load_morphable(config)
    texture_run = RunFolder.latest(config, morphable, "texture.weights.h5")
    config = texture_run.with_architecture(config) if texture_run else config
    face_model = build_face_model(config, morphable, with_texture=texture_run is not None)
    _load_trained(config, face_model, texture_run)
    if args.input:
        jobs = [load_job(path, morphable, config.img_size) for path in find_images(args.input)]
    else:
        packed = read_packed(config, morphable.vertex_count)
        jobs = packed_jobs(packed, packed.splits["test"], config.path(config.images))
    output = args.output or os.path.join("results", config.run_name)
    adjacency = None
    if texture_run is None:
        hierarchy = init_sampling(morphable.mean_shape, morphable.triangles, config.root_dir)
        adjacency = hierarchy.adjacencies[0]
    rows = Reconstructor(face_model, adjacency, output, config.fit_steps).run(jobs, config.test_batch_size)
    print_summary(rows, jobs, output)
    return 0 if any(job.rgba is not None for job in jobs) else 1


def _load_trained(config, face_model, texture_run) -> None:
    """Loads what was trained, and says plainly what was not."""
    from facegcn.regressor import load_weights
    from utils import RunFolder

    run = texture_run or RunFolder.latest(config, face_model.morphable, "regressor.npz", any_network=True)
    if run is not None:
        load_weights(face_model.regressor, run.file("regressor.npz"))
        print(f"regressor: {run.path}")
    elif not config.regressor_start:
        print("regressor: not trained, so every face starts from the mean face and is fitted to its "
              "photo; train one with: python main.py --mode train --stage rec")
    if texture_run is not None:
        face_model.texture_network.load_weights(texture_run.file("texture.weights.h5"))
        print(f"texture network: {texture_run.path}")
    else:
        print("texture network: not trained; the coarse texture is completed with the colours seen in "
              "the photo. Train one with: python main.py --mode train")


def main(arguments=None) -> int:
    """Returns the exit code: 0, 1 when test mode wrote nothing, 2 for a user's mistake, 130 when interrupted."""
    args = parse_arguments(arguments)
    try:
        config = config_from_arguments(args)
        return train(config, args) if args.mode == "train" else test(config, args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; --restore continues a training from its last checkpoint", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
