"""Converts face models that users have into our ``.npz`` format (docs/model_format.md), and checks what is there.

    python -m facegcn.assets check --config configs/bfm09.yaml
    python -m facegcn.assets ict --source ICT-FaceKit
    python -m facegcn.assets bfm09 --source DIR
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from facegcn.backends.start import tensorflow
from facegcn.config import config_from_arguments
from facegcn.errors import UserError, guarded, log
from facegcn.files import check_writable

_SET = ("--set", {"action": "append", "default": [], "metavar": "KEY=VALUE", "help": "override any setting; "
                                                                                      "repeatable"})


class Command(NamedTuple):
    """One subcommand.

    Attributes:
        run: takes the options, returns the exit code or None for 0.
        help: one line for the list of commands.
        description: what it does.
        arguments: (flag, keywords of ``add_argument``).
    """

    run: Callable
    help: str
    description: str
    arguments: tuple[tuple[str, dict], ...]


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; returns the exit code, see ``facegcn.errors.guarded``."""
    parser = argparse.ArgumentParser(prog="python -m facegcn.assets", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        added = commands.add_parser(name, help=command.help, description=command.description)
        for flag, keywords in command.arguments:
            added.add_argument(flag, **keywords)
        added.add_argument("--debug", action="store_true", help="show the traceback of every error")
        added.set_defaults(run=command.run, command=name)
    options = parser.parse_args(arguments)

    def program():
        tensorflow()
        return options.run(options) or 0

    return guarded(program, options.debug)


# ---------------------------------------------------------------- the commands
def _check(options):
    from facegcn.assets.check import list_assets, table

    config = config_from_arguments(options)
    assets = list_assets(config)
    log.info(table(config, assets))
    return 2 if any(asset.missed for asset in assets) else 0


def _ict(options):
    from facegcn.assets.ict import convert_ict

    _save(convert_ict(options.source, options.albedo, options.region, options.subdivide), options.out)


def _bfm09(options):
    from facegcn.assets.bfm09 import convert_bfm09

    _save(convert_bfm09(options.source), options.out)


def _bfm17(options):
    from facegcn.assets.bfm17 import convert_bfm17

    _save(convert_bfm17(options.source, options.landmarks), options.out)


def _save(model, path):
    """Writes a model that will load again, and tells what it is."""
    model.check_conventions()
    try:
        model.save(path)
    except OSError as error:
        raise UserError(f"cannot write --out {path}: {error.strerror}") from error
    identity, expression, albedo = model.part_sizes[:3]
    log.info("%s: %s vertices, %s triangles, %s identity, %s expression and %s albedo components, %s skin vertices, "
             "%s left/right pairs", path, model.vertex_count, len(model.triangles), identity, expression, albedo,
             len(model.skin_index), len(model.symmetry_pairs))


def _landmarks(options):
    from facegcn.assets.landmark_embedding import learn_embedding
    from facegcn.morphable import MorphableModel

    morphable = MorphableModel.load(options.model)
    check_writable(options.out or options.model)
    morphable.embedding = learn_embedding(morphable, count=options.count, workers=options.workers)
    morphable.save(options.out or options.model)
    noise = morphable.embedding.noise[morphable.embedding.triangles >= 0]
    log.info("%s: %d of %d dense landmarks lie on the model, each known to %.1f pixels of a 224 crop (median) beside "
             "what they share", options.out or options.model, len(noise), len(morphable.embedding.noise),
             float(np.median(noise)))


def _clip(options):
    from facegcn.animation import sample_clip, write_clip

    check_writable(options.output)
    clip = sample_clip(options.frame_rate)
    write_clip(options.output, clip)
    log.info("%s: %.1f seconds, %d frames, %d named expressions and the head's rotation", options.output, clip.duration,
             len(clip.times), len(clip.names))


def _frame_rate(text):
    """A frame rate that a clip of seconds can have."""
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 1 <= rate <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000")
    return rate


def _recognizer(options):
    from facegcn.identity.recognizers import ARCHITECTURES, convert_recognizer

    architecture = ARCHITECTURES[convert_recognizer(options.command, options.source, options.out)]
    log.info("%s: %s; for its identity metrics in test mode:\n  python main.py --mode test --set %s_file=%s",
             options.out, architecture.title, options.command.replace("-", "_"), os.path.abspath(options.out))


def _tf1_checkpoint(options):
    from facegcn.assets.tf1_checkpoint import FULL_RENDER_EPOCH, import_checkpoint
    from facegcn.config import load_config, parse_assignments

    settings = parse_assignments(options.set)
    asked = load_config(options.config, settings)
    epochs_done = FULL_RENDER_EPOCH if options.epochs_done is None else options.epochs_done
    run, config = import_checkpoint(asked, options.source, released_shapes, epochs_done)
    # Where the checkpoint decided otherwise, what was asked for would not find the run again.
    kept = [f"{key}={value}" for key, value in settings.items()
            if key not in ("model", "wide", "gan") and getattr(asked, key) == getattr(config, key)]
    flags = "".join([f" --config {shlex.quote(options.config)}", *(f" --set {shlex.quote(pair)}" for pair in kept),
                     f" --model {config.model}", " --wide" * config.wide, " --gan" * config.gan])
    kind = f"{'wide ' * config.wide}'{config.model}' texture network{' and critic' * config.gan}"
    log.info("%s: %s of %s. Use it with\n  python main.py --mode test%s\n  python main.py --mode train --restore%s",
             run.path, kind, options.source, flags, flags)


def released_shapes(config, morphable, embedding_dim: int) -> dict[str, tuple[int, ...]]:
    """Shape of each variable of a config's texture network and critic, by TF1 name, from the networks themselves."""
    from model import build_critic, build_texture_network, released_names
    from utils import init_sampling

    hierarchy = init_sampling(morphable.mean_shape, morphable.triangles, config.root_dir)
    networks = [build_texture_network(config.model, hierarchy, embedding_dim, config.wide, config.nz)]
    if config.gan:
        networks.append(build_critic(config.img_size))
    return {name: tuple(variable.shape) for network in networks for name, variable in released_names(network).items()}


# ---------------------------------------------------------------- their command lines
def _source(metavar, text):
    return "--source", {"required": True, "metavar": metavar, "help": text}


def _out(default, what="the model is"):
    return "--out", {"default": default, "metavar": "FILE", "help": f"where {what} written (default %(default)s)"}


def _recognizer_command(name, title, official, description):
    return Command(
        _recognizer, f"convert {title}, for identity metrics",
        f"Converts {description}; needs PyTorch 2.6 or later (pip install torch), or safetensors.",
        (_source("FILE", f"the checkpoint, for example {official}, or its state dict as .safetensors"),
         _out(f"data/{name.replace('-', '_')}.npz", "the weights are")))


COMMANDS = {
    "check": Command(
        _check, "list every file a config needs, and whether it is there and sound",
        "Lists every file a config needs: present, absent or broken, where it belongs, its official name, where it "
        "comes from, licence, use and content. Exit code 0 when all is there, else 2.",
        (("--config", {"metavar": "FILE.yaml", "help": "settings (default: the demo world)"}), _SET)),
    "ict": Command(
        _ict, "convert ICT-FaceKit (MIT licence)",
        "Converts a checkout of https://github.com/ICT-VGL/ICT-FaceKit (light model, MIT licence).",
        (_source("DIR|FILE.npz", "the checkout, its FaceXModel folder, or an .npz extracted from it"),
         ("--albedo", {"metavar": "FILE", "help": ".npz with measured skin colours: mean (n, 3) and basis (n, 3, K), "
                       "sRGB 0..1; without it the skin is made up"}),
         ("--region", {"choices": ("narrow", "face"), "default": "narrow",
                       "help": "narrow: the front of the face (default, best over photos); face: with ears and the "
                               "front of the neck"}),
         ("--subdivide", {"type": int, "choices": (0, 1), "default": 0,
                          "help": "1: about 31,000 vertices instead of 7,800; finer textures, about four times the "
                                  "work (default 0)"}),
         _out("data/ict/model.npz"))),
    "bfm09": Command(
        _bfm09, "convert the Basel Face Model 2009 (licensed)",
        "Converts the official files of BFM09, its expression basis and the index files (docs/bfm09.md tells where to "
        "get them), or a finished BFM_model_front.mat.",
        (_source("DIR|FILE.mat", "folder of the files, under their official names or the released code's; or "
                                 "BFM_model_front.mat, with the other files beside it"),
         _out("data/bfm09/model.npz"))),
    "bfm17": Command(
        _bfm17, "convert the Basel Face Model 2017 (licensed)",
        "Converts model2017-1_bfm_nomouth.h5 or model2017-1_face12_nomouth.h5.",
        (_source("FILE.h5", "the model"),
         ("--landmarks", {"metavar": "FILE",
                          "help": "text file with the 68 vertex numbers, from 0, of the iBUG landmarks"}),
         _out("data/bfm17/model.npz"))),
    "landmarks": Command(
        _landmarks, "learn where the dense landmarks lie on a face model, into its file",
        "Learns from made portraits of a face model where the 468 dense landmarks lie on it and what they are worth, "
        "and writes it into the model's file. Models without it learn it on first use and keep it beside them.",
        (("--model", {"required": True, "metavar": "FILE", "help": "the model (.npz)"}),
         ("--out", {"metavar": "FILE", "help": "where the model is written (default: into --model)"}),
         ("--count", {"type": int, "default": 1000, "metavar": "N",
                      "help": "made portraits to learn from (default %(default)s)"}),
         ("--workers", {"type": int, "default": 2, "metavar": "N", "help": "threads (default %(default)s)"}))),
    "clip": Command(
        _clip, "write a sample animation (CSV of ARKit weights)",
        "Writes a six-second clip made here: blinks, a smile, the jaw, vowels, brows, gaze, a nod and a turn. "
        "docs/animation.md describes the format.",
        (("--output", {"default": "clip.csv", "metavar": "FILE.csv", "help": "where it is written (default "
                       "%(default)s)"}),
         ("--frame-rate", {"type": _frame_rate, "default": 30.0, "metavar": "N",
                           "help": "frames a second (default %(default)g)"}))),
    "light-cnn": _recognizer_command(
        "light-cnn", "LightCNN-29", "LightCNN_29Layers_checkpoint.pth.tar",
        "the checkpoint of LightCNN-29 or LightCNN-29 v2 from https://github.com/AlfredXiangWu/LightCNN"),
    "ir50": _recognizer_command(
        "ir50", "face.evoLVe IR-50", "backbone_ir50_ms1m_epoch120.pth",
        "a checkpoint of the backbone IR_50 (input 112) from https://github.com/ZhaoJ9014/face.evoLVe"),
    "tf1-checkpoint": Command(
        _tf1_checkpoint, "carry over a checkpoint of the released code",
        "Makes a run folder out of a TF1 checkpoint of the released code: its texture network and, where it has one, "
        "its critic.",
        (_source("PREFIX", "prefix of the checkpoint's files (checkpoints/NAME/model-12345), or their folder"),
         ("--config", {"default": os.path.join("configs", "bfm09.yaml"), "metavar": "FILE",
                       "help": "YAML file of settings (default %(default)s)"}), _SET,
         ("--epochs-done", {"type": int, "metavar": "N",
                            "help": "--restore continues at this epoch of the schedule (default: the first with full "
                                    "image losses)"}))),
}


if __name__ == "__main__":
    sys.exit(main())
