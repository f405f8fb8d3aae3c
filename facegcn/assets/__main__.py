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

from facegcn.config import config_from_arguments
from facegcn.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Runs one subcommand; returns the exit code, 2 after a mistake that the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m facegcn.assets", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_check(commands)
    _add_ict(commands)
    _add_bfm09(commands)
    _add_bfm17(commands)
    _add_light_cnn(commands)
    _add_ir50(commands)
    _add_tf1_checkpoint(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options) or 0
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _add_check(commands):
    command = commands.add_parser(
        "check", help="list every file a config needs, and whether it is there and sound",
        description="Lists every file a config needs: present, absent or broken, where it belongs, its official "
                    "name, where it comes from, licence, use and content. Exit code 0 when all is there, else 2.")
    command.add_argument("--config", metavar="FILE.yaml", help="settings (default: the demo world)")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override any setting")
    command.set_defaults(run=_run_check)


def _run_check(options):
    from facegcn.assets.check import list_assets, table

    config = config_from_arguments(options)
    assets = list_assets(config)
    print(table(config, assets))
    return 2 if any(asset.missed for asset in assets) else 0


def _add_ict(commands):
    command = commands.add_parser(
        "ict", help="convert ICT-FaceKit (MIT licence)",
        description="Converts a checkout of https://github.com/ICT-VGL/ICT-FaceKit (light model, MIT licence).")
    command.add_argument("--source", required=True, metavar="DIR|FILE.npz",
                         help="the checkout, its FaceXModel folder, or an .npz extracted from it")
    command.add_argument("--albedo", metavar="FILE",
                         help=".npz with measured skin colours: mean (n, 3) and basis (n, 3, K), sRGB 0..1; "
                              "without it the skin is made up")
    command.add_argument("--region", choices=("narrow", "face"), default="narrow",
                         help="narrow: the front of the face (default, best over photos); "
                              "face: with ears and the front of the neck")
    command.add_argument("--subdivide", type=int, choices=(0, 1), default=0,
                         help="1: about 31,000 vertices instead of 7,800; finer textures, about four times "
                              "the work (default 0)")
    command.add_argument("--out", default="data/ict/model.npz", metavar="FILE",
                         help="where the model is written (default %(default)s)")
    command.set_defaults(run=_run_ict)


def _run_ict(options):
    from facegcn.assets.ict import convert  # TensorFlow takes seconds to import; --help need not wait

    _save(convert(options.source, options.albedo, options.region, options.subdivide), options.out)


def _save(model, path):
    """Writes a model and tells what it is."""
    try:
        model.save(path)
    except OSError as error:
        raise UserError(f"cannot write --out {path}: {error.strerror}") from error
    identity, expression, albedo = model.part_sizes[:3]
    print(f"{path}: {model.vertex_count} vertices, {len(model.triangles)} triangles, "
          f"{identity} identity, {expression} expression and {albedo} albedo components, "
          f"{len(model.skin_index)} skin vertices, {len(model.symmetry_pairs)} left/right pairs")


def _add_bfm09(commands):
    command = commands.add_parser(
        "bfm09", help="convert the Basel Face Model 2009 (licensed)",
        description="Converts the official files of BFM09, its expression basis and the index files "
                    "(docs/bfm09.md tells where to get them), or a finished BFM_model_front.mat.")
    command.add_argument("--source", required=True, metavar="DIR|FILE.mat",
                         help="folder of the files, under their official names or the released code's; or "
                              "BFM_model_front.mat, with the other files beside it")
    command.add_argument("--out", default="data/bfm09/model.npz", metavar="FILE",
                         help="where the model is written (default %(default)s)")
    command.set_defaults(run=_run_bfm09)


def _run_bfm09(options):
    from facegcn.assets.bfm09 import convert

    _save(convert(options.source), options.out)


def _add_bfm17(commands):
    command = commands.add_parser(
        "bfm17", help="convert the Basel Face Model 2017 (licensed)",
        description="Converts model2017-1_bfm_nomouth.h5 or model2017-1_face12_nomouth.h5.")
    command.add_argument("--source", required=True, metavar="FILE.h5", help="the model")
    command.add_argument("--landmarks", metavar="FILE",
                         help="text file with the 68 vertex numbers, from 0, of the iBUG landmarks")
    command.add_argument("--out", default="data/bfm17/model.npz", metavar="FILE",
                         help="where the model is written (default %(default)s)")
    command.set_defaults(run=_run_bfm17)


def _run_bfm17(options):
    from facegcn.assets.bfm17 import convert

    _save(convert(options.source, options.landmarks), options.out)


def _add_light_cnn(commands):
    command = commands.add_parser(
        "light-cnn", help="convert LightCNN-29, for identity metrics",
        description="Converts the checkpoint of LightCNN-29 or LightCNN-29 v2 from "
                    "https://github.com/AlfredXiangWu/LightCNN; needs PyTorch (pip install torch), or safetensors.")
    _add_recognizer_arguments(command, "light-cnn", "LightCNN_29Layers_checkpoint.pth.tar")


def _add_ir50(commands):
    command = commands.add_parser(
        "ir50", help="convert face.evoLVe IR-50, for identity metrics",
        description="Converts a checkpoint of the backbone IR_50 (input 112) from "
                    "https://github.com/ZhaoJ9014/face.evoLVe; needs PyTorch (pip install torch), or safetensors.")
    _add_recognizer_arguments(command, "ir50", "backbone_ir50_ms1m_epoch120.pth")


def _add_recognizer_arguments(command, recognizer, official):
    name = recognizer.replace("-", "_")
    command.add_argument("--source", required=True, metavar="FILE",
                         help=f"the checkpoint, for example {official}, or its state dict as .safetensors")
    command.add_argument("--out", default=f"data/{name}.npz", metavar="FILE",
                         help="where the weights are written (default %(default)s)")
    command.set_defaults(run=_run_recognizer, recognizer=recognizer, setting=f"{name}_file")


def _run_recognizer(options):
    from facegcn.identity.recognizers import ARCHITECTURES, convert

    architecture = ARCHITECTURES[convert(options.recognizer, options.source, options.out)]
    print(f"{options.out}: {architecture.title}; for its identity metrics in test mode:\n"
          f"  python main.py --mode test --set {options.setting}={os.path.abspath(options.out)}")


def _add_tf1_checkpoint(commands):
    command = commands.add_parser(
        "tf1-checkpoint", help="carry over a checkpoint of the released code",
        description="Makes a run folder out of a TF1 checkpoint of the released code: its texture network and, where "
                    "it has one, its critic.")
    command.add_argument("--source", required=True, metavar="PREFIX",
                         help="prefix of the checkpoint's files (checkpoints/NAME/model-12345), or their folder")
    command.add_argument("--config", default=os.path.join("configs", "bfm09.yaml"), metavar="FILE",
                         help="YAML file of settings (default %(default)s)")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                         help="override any setting; repeatable")
    command.add_argument("--epochs-done", type=int, metavar="N",
                         help="--restore continues at this epoch of the schedule (default: the first with full image "
                              "losses)")
    command.set_defaults(run=_run_tf1_checkpoint)


def _run_tf1_checkpoint(options):
    from facegcn.assets.tf1_checkpoint import FULL_RENDER_EPOCH, import_checkpoint
    from facegcn.config import load_config, parse_assignments

    settings = parse_assignments(options.set)
    asked = load_config(options.config, settings)
    epochs_done = FULL_RENDER_EPOCH if options.epochs_done is None else options.epochs_done
    run, config = import_checkpoint(asked, options.source, epochs_done)
    # Where the checkpoint decided otherwise, what was asked for would not find the run again.
    kept = [f"{key}={value}" for key, value in settings.items()
            if key not in ("model", "wide", "gan") and getattr(asked, key) == getattr(config, key)]
    flags = "".join([f" --config {shlex.quote(options.config)}", *(f" --set {shlex.quote(pair)}" for pair in kept),
                     f" --model {config.model}", " --wide" * config.wide, " --gan" * config.gan])
    kind = f"{'wide ' * config.wide}'{config.model}' texture network{' and critic' * config.gan}"
    print(f"{run.path}: {kind} of {options.source}. Use it with\n"
          f"  python main.py --mode test{flags}\n"
          f"  python main.py --mode train --restore{flags}")


if __name__ == "__main__":
    sys.exit(main())
