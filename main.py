"""Trains the face reconstruction, or reconstructs photos.

    python main.py --mode train [--config configs/demo.yaml] [--stage all|rec|render]
    python main.py --mode test  [--input PHOTO_OR_FOLDER_OR_FILM] [--output FOLDER]

Without --config this is the demo world, which needs no file from elsewhere.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the imports below without a traceback; then see guarded

from facegcn.backends import start
from facegcn.config import Config, config_from_arguments
from facegcn.errors import UserError, guarded, log

TEXTURE_SIZE = 2048  # texels a side
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
    add("--devices", default="one", choices=("one", "all"),
        help="train: on one device, or all GPUs of this machine; several machines: set TF_CONFIG (docs/scale.md)")
    add("--input", help="test: a photo, a folder or a film; default: the held-out packed images")
    add("--output", help="test: folder of the results (default results/<run name>)")
    add("--segmented", action="store_true", help="test: the --input images are aligned crops, their alpha the skin")
    add("--face", metavar="N|largest|center", help="test: which of several faces of an --input photo; numbers count "
        "from the left, from 1 (default largest)")
    add("--person", action="store_true", help="test: all photos show one person, who gets one shape and one skin")
    add("--resume", action="store_true", help="test: leave out photos whose results are whole in --output already, of "
        "the same photo, made with the same settings and weights")
    add("--texture", metavar="SIZE", help="test: texels a side of the texture images, 256 to 8192; none = no "
        "textures and what shows them (default 2048 for --input, else none)")
    add("--animate", metavar="CLIP.csv", help="test: also each face animated, as GLB, by a clip of ARKit weights")
    add("--views", action="store_true", help="test: also a strip of each face turned and in other light")
    add("--turntable", choices=("gif", "mp4", "webm"), help="test: also a film of each face turning")
    for name, kind, text in (
            ("name", str, "data set name"), ("suffix", str, "suffix of the run folder's name"),
            ("model", str, "texture network: resnet or normal"), ("root_dir", str, "data folder"),
            ("batch_size", int, "photos a step"), ("epoch", int, "epochs of stage render"),
            ("eval", float, "epochs between validations, 0 = at the end"), ("img_size", int, "crop width, pixels"),
            ("nz", int, "latent width of the normal network"), ("lr", float, "learning rate"),
            ("buffer_size", int, "no effect: an epoch is shuffled as a whole"), ("workers", int, "parallel readers"),
            ("drop_rate", float, "dropout of the embedding"),
            ("adv_lambda", float, "weight of the adversarial loss"), ("seed", int, "random seed")):
        add(f"--{name}", type=kind, help=text)
    add("--deterministic", action="store_const", const=True, help="train to the same weights, bit for bit, each time")
    add("--gan", action="store_const", const=True, help="train against an image critic")
    add("--wide", action="store_const", const=True, help="wider texture networks")
    add("--debug", action="store_true", help="show the traceback of every error")
    return parser.parse_args(arguments)


def train(config: Config, args, begun: list) -> int:
    """Stage rec, stage render, or what is missing of them, in one run folder, which is appended to ``begun``."""
    from facegcn.training.devices import started

    with started(args.devices) as devices:
        return _train_on(devices, config, args, begun)


def _train_on(devices, config: Config, args, begun: list) -> int:
    """``train`` on some devices."""
    import keras
    import tensorflow as tf

    from facegcn.assets.worlds import load_morphable
    from facegcn.photos.packed_photos import read_packed
    from facegcn.runs import RunFolder, frozen_networks
    from facegcn.training import texture_stage
    from facegcn.training.loss_scale import check_devices
    from model import build_critic, build_face_model, load_imported

    morphable, run = load_morphable(config), None
    if args.restore:
        run = RunFolder.latest(config, morphable, "config.yaml")
        if run is None:
            raise UserError(f"--restore: there is no run '*-{config.run_name}' in {config.runs_dir} to continue")
        config = run.continued(args)
        morphable = load_morphable(config)
    check_devices(config.precision, devices.replicas)
    if args.stage != "rec":  # before hours of stage rec
        devices.check_batches(batch_size=config.batch_size)
    packed = read_packed(config, morphable.vertex_count)
    devices.check_same("settings or photos", repr(config), args.stage, args.restore, packed.names)
    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    with devices.scope():
        face_model = build_face_model(config, morphable)
        critic = build_critic(config.img_size, config.critic_norm) if config.gan and args.stage != "rec" else None
    other = _run_with_regressor(config, args.stage, morphable)
    if run is not None:
        run.check_frozen(face_model)
    run = devices.run_folder(config, run)
    begun.append(run)
    run.open_log()
    split_sizes = {name: len(rows) for name, rows in packed.splits.items()}
    run.save_config(config, vertices=morphable.vertex_count, coefficients=morphable.coefficient_count,
                    morphable=morphable.digest, images=split_sizes, frozen_networks=frozen_networks(face_model))
    log.info("run folder %s%s: %s vertices, images %s", run.path, ", continued" if args.restore else "",
             f"{morphable.vertex_count:,}", split_sizes)

    _provide_regressor(config, args.stage, run, other, face_model, packed, devices)
    if args.stage == "rec":
        return 0
    with devices.chief_first():
        encoding, made = _encodings(config, face_model, packed)
    epochs_done = load_imported(run, face_model.texture_network, critic)
    with devices.scope():
        trainer = texture_stage.TextureTrainer(face_model, config, critic)
    log.info("stage render: %d epochs of %d photos, losses '%s'", config.epoch, split_sizes["train"], config.losses)
    texture_stage.train_texture(trainer, config, run, packed, encoding, made, epochs_done, devices)
    if config.fit and devices.chief:
        _save_as_start(config, run, face_model)
    log.info("done; sample sheets are in %s", run.file("samples"))
    return 0


def _encodings(config, face_model, packed):
    """The encoding of the packed photos; and the packed made portraits and theirs, or None without any."""
    from facegcn.assets.worlds import pack_made_portraits
    from facegcn.training.encoding import PhotoEncoder, encode_packed
    from model import coefficient_fitter

    encoder = PhotoEncoder(face_model, coefficient_fitter(config, face_model))
    encoding = encode_packed(encoder, packed)
    if not config.made_portraits:
        return encoding, None
    portraits = pack_made_portraits(config, face_model.morphable)
    return encoding, (portraits, encode_packed(encoder, portraits))


def _save_as_start(config, run, face_model) -> None:
    """Writes the run's texture network as starting weights."""
    from facegcn.assets.landmark_embedding import ensure_embedding
    from facegcn.assets.priors import ensure_priors
    from facegcn.assets.regressor_errors import ensure_regressor_errors
    from facegcn.assets.starting_weights import StartingWeights, save_starting_weights
    from facegcn.networks.regressor import digest
    from mesh_sampling import to_arrays
    from utils import init_sampling

    morphable = face_model.morphable
    hierarchy = StartingWeights(config.texture_start, morphable).hierarchy if config.texture_start else to_arrays(
        init_sampling(morphable.mean_shape, morphable.triangles, config.root_dir))
    save_starting_weights(run.file("texture_start.npz"), face_model.texture_network, morphable, hierarchy,
                          ensure_embedding(config, morphable).embedding,
                          (digest(face_model.regressor), ensure_regressor_errors(config, face_model)),
                          ensure_priors(config, morphable))


def _run_with_regressor(config, stage, morphable):
    """The latest run with a trained regressor of the config's kind; None without one, or when it is frozen.

    Raises UserError where the stage does not go with that.
    """
    from facegcn.runs import RunFolder

    if config.regressor == "frozen":
        if stage == "rec":
            raise UserError(f"--stage rec trains a regressor, and this config's is frozen "
                            f"({config.path(config.regressor_file)}): there is nothing to train. Run --stage render "
                            "or all, or choose another with --set regressor=resnet50")
        return None
    run = RunFolder.latest(config, morphable, "regressor.npz", any_network=True)
    if stage == "render" and run is None:
        raise UserError(f"--stage render needs a trained regressor, and no run of '{config.name}' in "
                        f"{config.runs_dir} has one: run --stage rec first, or --stage all")
    return run


def _provide_regressor(config, stage, run, other, face_model, packed, devices) -> None:
    """Leaves a trained regressor in the model and in the run folder, which holds all its textures depend on.

    The run's own comes first, then one that the run has begun to train, then another run's, then a new one.
    A frozen one is in its file already.
    """
    from facegcn.networks.regressor import load_weights, save_weights
    from facegcn.training import regressor_stage

    if config.regressor == "frozen":
        log.info("regressor: %s, frozen", face_model.regressor.path)
        return
    own = run.file("regressor.npz")
    begun = os.path.isdir(run.file("checkpoints", "regressor"))
    if stage != "rec" and os.path.exists(own):
        log.info("regressor: the run's own")
    elif stage != "rec" and other is not None and not begun:
        load_weights(face_model.regressor, other.file("regressor.npz"))
        if devices.chief:
            save_weights(face_model.regressor, own)
        log.info("regressor: from %s (--stage rec trains it anew)", other.path)
    else:
        log.info("stage rec: %d steps of %d made portraits", config.rec_steps, config.rec_batch_size)
        regressor_stage.train_regressor(face_model, config, run, packed, devices)
        if devices.chief:
            save_weights(face_model.regressor, own)
    devices.from_chief()  # it has written them
    load_weights(face_model.regressor, own)


def test(config: Config, args) -> int:
    """Reconstructs --input, or the held-out packed images; 1 when nothing could be reconstructed."""
    from facegcn.assets.worlds import load_morphable
    from facegcn.identity.recognizers import load_recognizers
    from facegcn.photos import litert
    from facegcn.photos.choosing import LARGEST, face_choice
    from facegcn.photos.frames import is_film
    from facegcn.reconstruction.face import FaceTools
    from facegcn.reconstruction.jobs import PhotosAhead
    from facegcn.reconstruction.person_files import PersonReconstructor
    from facegcn.reconstruction.reconstructor import Reconstructor
    from facegcn.reconstruction.report_page import kept_faces
    from facegcn.reconstruction.results import log_summary, prepare_output
    from facegcn.texture.layout import ensure_layout
    from model import find_trained, load_trained

    if args.input is not None and is_film(args.input):
        return _test_film(config, args)
    if args.face is not None and (args.input is None or args.segmented):
        raise UserError("--face chooses among the faces of photos: it goes with --input, and not with --segmented")
    face = face_choice(LARGEST if args.face is None else args.face)
    if args.resume and (args.input is None or args.person):
        raise UserError("--resume goes on with --input photos, each on its own: leave it out "
                        + ("with --person" if args.person else "without --input"))
    paths = None if args.input is None else _photos(args.input)
    if paths is not None:
        litert.check()
    output = os.path.join("results", config.run_name) if args.output is None else args.output
    prepare_output(output, args.input)
    morphable, recognizers = load_morphable(config), load_recognizers(config)
    size, wanted = _wanted(args, morphable)
    config, run = find_trained(config, morphable)
    jobs = _jobs(config, paths, morphable, args.segmented, face)
    with contextlib.ExitStack() as stack:
        def ahead(begun=None):
            return stack.enter_context(PhotosAhead(jobs, config.test_batch_size, begun))
        photos = None if args.resume else ahead()  # the first are read while the networks are built
        face_model, fitter = load_trained(config, morphable, run)
        journal = None if args.person or paths is None else _journal(
            output, jobs, config, face_model, recognizers, args,
            (wanted.texture, size, face, fitter.digest if fitter else "no fit"))
        if journal is not None:
            stack.callback(journal.note_end)  # when nothing is read any more
        photos = photos or ahead(journal.note_begun)  # what an earlier run did is left out
        tools = FaceTools(ensure_layout(config, morphable) if wanted.texture else morphable, size)
        kind, kept = PersonReconstructor if args.person else Reconstructor, kept_faces(output, morphable, len(jobs))
        reconstructor = kind(face_model, output, fitter, recognizers, args.debug, config.detail, tools, wanted, kept,
                             journal)
        rows = reconstructor.run(photos)
    log_summary(rows, jobs, output, reconstructor.overview, [reconstructor.name] if args.person else [])
    written = sum(job.written for job in jobs)
    if written:
        _report(output, written, morphable, config, run, kept)
    return 0 if written else 1


def _journal(output, jobs, config, face_model, recognizers, args, chosen):
    """The ``journal.Journal`` of a run, by all that its results depend on, choices of the user among them."""
    from facegcn.networks.regressor import digest, says_anything
    from facegcn.reconstruction.journal import Journal, key_of

    regressor = digest(face_model.regressor) if says_anything(face_model.regressor) else "untrained"
    clip = None
    if args.animate is not None:
        with open(args.animate, "rb") as file:
            clip = file.read()
    known = [recognizer.digest for recognizer in recognizers.values()]
    key = key_of(config, face_model, regressor, *chosen, *known, args.segmented, clip, args.views, args.turntable)
    return Journal(output, key, jobs, args.resume)


def _test_film(config: Config, args) -> int:
    """Reconstructs the person of a film, who moves."""
    from facegcn.assets.worlds import load_morphable
    from facegcn.photos import litert
    from facegcn.photos.frames import open_film
    from facegcn.reconstruction.face import FaceTools
    from facegcn.reconstruction.results import prepare_output
    from facegcn.reconstruction.video import reconstruct_video
    from facegcn.texture.layout import ensure_layout
    from model import find_trained, load_trained

    for flag in ("face", "segmented", "person", "animate", "resume"):
        if getattr(args, flag):
            raise UserError(f"--{flag} is for photos: leave it out with a film")
    litert.check()
    film = open_film(args.input)
    output = os.path.join("results", config.run_name) if args.output is None else args.output
    prepare_output(output, args.input)
    morphable = load_morphable(config)
    size, wanted = _wanted(args, morphable)
    config, run = find_trained(config, morphable)
    face_model, fitter = load_trained(config, morphable, run)
    tools = FaceTools(ensure_layout(config, morphable) if wanted.texture else morphable, size)
    reconstruct_video(config, face_model, fitter, tools, film, output, wanted)
    _report(output, 1, morphable, config, run)
    return 0


def _report(output, written, morphable, config, run, kept=None) -> None:
    """Writes ``report.html``, where that is not too much for one page."""
    from facegcn.reconstruction.report_page import LARGEST, write_report

    if written > LARGEST:
        log.info("no report.html: %d faces are more than a page of %d", written, LARGEST)
        return
    about = {"config": config.name, "run": run.path if run else "none: starting weights"}
    log.info("every face to turn, light and move: %s", write_report(output, morphable, about, kept))


def _wanted(args, morphable):
    """Texels a side of textures, and ``face_files.Wanted``; checked before anything long begins."""
    from facegcn.animation import read_clip
    from facegcn.reconstruction.face import check_texture_size
    from facegcn.reconstruction.face_files import Wanted

    asked = args.texture or (str(TEXTURE_SIZE) if args.input is not None else "none")
    textured = asked != "none"
    if textured and not asked.isdecimal():
        raise UserError(f"--texture {asked}: give the texels a side, such as {TEXTURE_SIZE}, or none")
    size = int(asked) if textured else TEXTURE_SIZE
    check_texture_size(size)
    for flag in ("animate", "views", "turntable"):
        if getattr(args, flag) and not textured:
            raise UserError(f"--{flag} shows the texture: it does not go with --texture none, and without --input "
                            f"it needs --texture {TEXTURE_SIZE}")
    clip = None if args.animate is None else read_clip(args.animate)
    if clip is not None:
        if morphable.blendshapes is None:
            raise UserError("--animate needs a face model with named expressions, and this one has none: convert "
                            "ICT-FaceKit (python -m facegcn.assets ict --source ...) and use configs/ict.yaml")
        if lost := clip.lost(morphable.blendshape_names):
            log.warning("--animate %s: this face model has no %s; the rest moves", args.animate, ", ".join(lost))
    return size, Wanted(textured, clip, args.views, args.turntable or "")


def _photos(given: str) -> list[str]:
    """The image files of --input, without those that test mode wrote itself."""
    from facegcn.reconstruction.results import without_results
    from utils import find_images

    if not given:
        raise UserError("--input '' names no photo and no folder; leave the flag out for the held-out packed images")
    paths = find_images(given)
    photos = without_results(paths) if os.path.isdir(given) else paths
    if not photos:
        raise UserError(f"--input {given}: all {len(paths)} images in this folder are results of test mode")
    return photos


def _jobs(config, paths, morphable, segmented, face):
    """What is to be reconstructed: image files, or the held-out packed images."""
    from facegcn.photos.packed_photos import read_packed
    from facegcn.reconstruction.jobs import packed_jobs, photo_jobs

    if paths is not None:
        return photo_jobs(paths, morphable, config.img_size, segmented, face)
    packed = read_packed(config, morphable.vertex_count)
    return packed_jobs(packed, packed.splits["test"], morphable.vertex_count)


def main(arguments=None) -> int:
    """Returns the exit code: 0, 1 when test mode wrote nothing, others as ``errors.guarded``."""
    args, begun = parse_arguments(arguments), []

    def program() -> int:
        config = config_from_arguments(args)
        start.tensorflow()  # behind everything that --help needs
        from facegcn.assets.check import require_assets
        from facegcn.photos.packed_file import damage_named
        from facegcn.training.interruption import pipelines_ended

        require_assets(config, args.mode)
        with pipelines_ended(), damage_named():
            return train(config, args, begun) if args.mode == "train" else test(config, args)

    return guarded(program, args.debug, lambda: _what_is_kept(args.mode, begun))


def _what_is_kept(mode: str, begun: list) -> str:
    """What of an interrupted program's work is there."""
    if mode == "test":
        return "the photos that were written are whole"
    if not begun:
        return "nothing had begun"
    if begun[0].has_checkpoint():
        return f"--restore continues {begun[0].path} from its last checkpoint"
    return f"{begun[0].path} has no checkpoint yet: --restore begins it anew"


if __name__ == "__main__":
    sys.exit(main())
