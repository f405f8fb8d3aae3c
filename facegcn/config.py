"""Settings of a run: one flat dataclass, a YAML file of overrides, ``--set key=value``.

Each setting has its meaning, its range and its origin: [paper], [released code] or [ours], the last with a word of
how it was chosen where that is not plain. ``configs/*.yaml`` hold only what differs in a world; everything resolved
is written into the run folder.

Folders that a config file of this project names (those of ``configs/``, and of runs inside the project) are relative
to the project, wherever the program is called from; what is written on the command line, or in a config file
elsewhere, is relative to the working directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import os
import reprlib
from dataclasses import dataclass

import yaml

from facegcn.errors import UserError
from facegcn.files import brief, check_name, write_text

__all__ = ["CHOICES", "Config", "UserError", "config_from_arguments", "load_config", "parse_assignments",
           "read_saved_config", "save_config"]

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOUND = "found"  # key of a saved config under which stands what was found at run time; loading passes over it

PAPER, RELEASED, OURS = "[paper]", "[released code]", "[ours]"
WORLDS = ("demo", "ict", "bfm09")


def setting(default, origin: str, *, least=None, above=None, most=None, below=None, choices=()):
    """A field of ``Config`` with its origin and range; numbers that are not finite are never in it."""
    return dataclasses.field(default=default, metadata={
        "origin": origin, "least": least, "above": above, "most": most, "below": below, "choices": choices})


@dataclass
class Config:
    """Every setting of packing, training and testing, with its default."""

    # ---- world and files
    #: Where the morphable model comes from.
    world: str = setting("demo", OURS, choices=WORLDS)
    #: Data set name; part of the run folder's name.
    name: str = setting("demo", RELEASED)
    #: Appended to the run folder's name; '' = the network, plus _wide and _gan.
    suffix: str = setting("", RELEASED)
    #: Folder of the model, the images and the packed file.
    root_dir: str = setting("data/demo", RELEASED)
    #: Run folders are made here.
    runs_dir: str = setting("runs", OURS)
    #: Morphable model, relative to root_dir; '' = model.npz, in demo the procedural face.
    model_file: str = setting("", OURS)
    #: Folder of your own segmented RGBA PNGs, relative to root_dir; the demo world packs made portraits instead.
    images: str = setting("segmented", OURS)
    #: Packed images, relative to root_dir.
    bin_file: str = setting("faces.bin", OURS)
    #: Width and height of the aligned crop, pixels. Below 32 the critic has no pixel left; above 2048 a batch fills
    #: the memory of any machine.
    img_size: int = setting(224, PAPER, least=32, most=2048)
    #: Every random choice derives from it.
    seed: int = setting(2, RELEASED, least=0, most=2 ** 31 - 1)
    #: Images held out for validation.
    val_count: int = setting(4096, RELEASED, least=0)
    #: Images held out for testing.
    test_count: int = setting(4096, RELEASED, least=0)

    # ---- demo world
    #: Density of the procedural face: vertices, about. Below 2,000 eyes and lips have no triangles of their own;
    #: 8,000 train in minutes.
    demo_vertices: int = setting(8000, OURS, least=2000, most=200_000)
    #: Made portraits that are packed, held-out ones included; as many as ten minutes of training can use.
    demo_portraits: int = setting(448, OURS, least=3, most=1_000_000)

    # ---- regressor
    #: frozen: FaceReconModel.pb [paper]; resnet50: the same network, trained here; small: for laptops.
    regressor: str = setting("small", OURS, choices=("small", "resnet50", "frozen"))
    #: The CNN looks at the crop at this width, which divides img_size; half of 224 costs no accuracy that we saw.
    regressor_pixels: int = setting(112, OURS, least=32, most=2048)
    #: Starting weights (.npz), relative to the project; '' = none.
    regressor_start: str = setting("", OURS)
    #: Starting weights of the texture network (.npz), relative to the project; '' = none.
    texture_start: str = setting("", OURS)
    #: Graph of the 'frozen' regressor, relative to root_dir.
    regressor_file: str = setting("FaceReconModel.pb", RELEASED)
    #: FaceNetModel.pb, relative to root_dir: embedding and identity loss; '' = none.
    facenet_file: str = setting("", PAPER)
    #: Training steps of stage rec.
    rec_steps: int = setting(2000, OURS, least=0, most=10_000_000)
    #: Made portraits a step.
    rec_batch_size: int = setting(32, OURS, least=1, most=4096)
    #: Times each made portrait is learnt from: making one costs more than a step on it.
    rec_reuse: int = setting(3, OURS, least=1, most=100)
    #: Packed photos a step; 0 = made portraits only.
    rec_photo_batch: int = setting(0, OURS, least=0, most=4096)
    #: Share of rec_steps after which photos take part.
    rec_photo_after: float = setting(0.5, OURS, least=0, most=1)
    #: Peak learning rate, cosine decay.
    rec_lr: float = setting(1e-3, OURS, above=0, most=1)
    #: Coefficients are fitted to each photo's landmarks and colours; else the regressor's word is final.
    fit: bool = setting(False, OURS)

    # ---- texture networks
    #: resnet [paper]; normal is the released code's default.
    model: str = setting("resnet", PAPER, choices=("resnet", "normal"))
    #: Wider feature maps.
    wide: bool = setting(False, RELEASED)
    #: Latent width of the 'normal' refiner.
    nz: int = setting(512, RELEASED, least=1, most=65_536)
    #: The head corrects the coarse albedo.
    residual: bool = setting(True, OURS)
    #: The refiner also sees the photo divided by the shading.
    delit: bool = setting(True, OURS)
    #: With delit, it also sees the mirrored vertex's.
    mirror: bool = setting(True, OURS)
    #: The photo's colours count by viewing angle and likelihood.
    trust: bool = setting(True, OURS)
    #: With delit, it also sees the coarse albedo completed with the seen colours, and its head corrects that.
    completed: bool = setting(True, OURS)
    #: Share of what the network adds to the completed albedo that is believed outside training. A network that knows
    #: made portraits alone adds too much to photographs.
    correction: float = setting(1.0, OURS, least=0, most=1)
    #: The fine face's light is fitted anew to its albedo.
    relight: bool = setting(True, OURS)
    #: Width of the ellipse that takes the skin mask's border off, pixels, odd.
    erosion: int = setting(9, RELEASED, least=1, most=63)
    #: depth: nothing in front [ours]; normal: facing the camera only [released code].
    visibility: str = setting("depth", OURS, choices=("depth", "normal"))
    #: Of the photo's colours: bilinear [ours]; released: half a pixel off [released code].
    sampling: str = setting("bilinear", OURS, choices=("bilinear", "released"))

    #: Behind the network, fine detail of the photo is added to the albedo, in test mode.
    detail: bool = setting(True, OURS)

    # ---- training of the texture networks
    #: paper: the pixel loss is trained; released: it is logged only.
    losses: str = setting("paper", PAPER, choices=("paper", "released"))
    #: How the losses' weights change over the epochs, see losses.schedule; 'paper' is second-hand and unverified.
    schedule: str = setting("released", RELEASED, choices=("released", "paper"))
    #: Epochs of stage render.
    epoch: int = setting(50, RELEASED, least=0, most=1_000_000)
    #: Photos a step.
    batch_size: int = setting(4, PAPER, least=1, most=4096)
    #: Adam's learning rate.
    lr: float = setting(1e-4, PAPER, above=0, most=1)
    #: Its factor per epoch, staircase.
    lr_decay: float = setting(0.98, PAPER, above=0, most=1)
    #: Greatest norm of each variable's gradient.
    clip_norm: float = setting(5.0, RELEASED, above=0)
    #: Made portraits mixed with the packed photos, half of the examples; 0 = none.
    made_portraits: int = setting(0, OURS, least=0, most=1_000_000)
    #: Dropout of the embedding while training.
    drop_rate: float = setting(0.0, RELEASED, least=0, below=1)
    #: Added to the epoch's render weight; 1 = image losses at once, which the residual head allows.
    render_start: float = setting(0.0, OURS, least=0, most=1)
    #: Of the pixel loss; trained in the loss set 'paper'.
    pixel_weight: float = setting(1.0, PAPER, least=0)
    #: Of the identity loss.
    identity_weight: float = setting(0.2, PAPER, least=0)
    #: Of the distance from the true albedo, on made portraits only.
    truth_weight: float = setting(3.0, OURS, least=0)
    #: Of its distance from the truth in the light and pose of a second picture, on made portraits only.
    second_view_weight: float = setting(0.0, OURS, least=0)
    #: Of the symmetry loss.
    symmetry_weight: float = setting(0.5, RELEASED, least=0)
    #: Of the variance loss.
    variance_weight: float = setting(0.01, RELEASED, least=0)
    #: Train against the image critic.
    gan: bool = setting(False, RELEASED)
    #: Weight of the adversarial loss.
    adv_lambda: float = setting(1e-3, PAPER, least=0)
    #: Critic steps a generator step.
    critic_steps: int = setting(5, PAPER, least=1, most=1000)
    #: batch [released code]; layer and none fit the gradient penalty better.
    critic_norm: str = setting("batch", RELEASED, choices=("batch", "layer", "none"))

    # ---- running
    #: Epochs between validations and sample sheets, a whole number; 0 = only at the end.
    eval: float = setting(1.0, RELEASED, least=0, most=1_000_000)
    #: Kept for the released code's command lines; every epoch is shuffled as a whole, whatever it is.
    buffer_size: int = setting(256, RELEASED, least=1)
    #: Parallel readers and makers.
    workers: int = setting(2, RELEASED, least=1, most=256)
    #: XLA compiles the critic's losses and gradients, the part of a step that it can (docs/scale.md).
    xla: bool = setting(False, OURS)
    #: Of dense layers and 2D convolutions in training; weights, and test mode, are float32 always (docs/scale.md).
    precision: str = setting("float32", OURS, choices=("float32", "mixed_bfloat16", "mixed_float16"))
    #: Two trainings with the same settings on the same machine give the same weights, bit for bit, interrupted or not.
    deterministic: bool = setting(False, OURS)
    #: A training step with a number that is not finite is undone and its batch passed over, its records named in the
    #: log; else the training stops there. Twenty such batches in a row end it in any case.
    skip_bad_batches: bool = setting(False, OURS)
    #: Training steps between lines of stats.jsonl.
    log_steps: int = setting(20, OURS, least=1)
    #: Seconds of training that a crash may cost: a checkpoint is written after every epoch, and after the first step
    #: that ends later than this behind the one before; 0 = after every step.
    checkpoint_seconds: float = setting(300.0, OURS, least=0, most=1_000_000)
    #: Photos reconstructed at a time.
    test_batch_size: int = setting(8, OURS, least=1, most=4096)
    #: Converted LightCNN-29, relative to root_dir: identity cosine in test mode; '' = none.
    light_cnn_file: str = setting("", PAPER)
    #: Converted face.evoLVe IR-50, relative to root_dir: likewise; '' = none.
    ir50_file: str = setting("", PAPER)

    def path(self, name: str) -> str:
        """Where a file of the data folder is: ``name`` as it is when absolute, else in root_dir."""
        return name if os.path.isabs(name) else os.path.join(self.root_dir, name)

    @property
    def run_name(self) -> str:
        """Name of the run folder after its number: data set, then suffix or network."""
        suffix = self.suffix or self.model + ("_wide" if self.wide else "") + ("_gan" if self.gan else "")
        return f"{self.name}-{suffix}"


_FIELDS = {field.name: field for field in dataclasses.fields(Config)}
CHOICES = {name: field.metadata["choices"] for name, field in _FIELDS.items() if field.metadata["choices"]}
_TYPES = {"str": str, "int": int, "float": float, "bool": bool}
_FOLDERS = ("root_dir", "runs_dir")
_SHOWN = 80  # signs of a value or key in a message
_DEEPEST = 20  # brackets in brackets of a file
_SLIP = 0.8  # likeness, as difflib has it, of a mistyped name; names that merely share a word reach 0.76


def load_config(path: str | None = None, overrides: dict | None = None, source: str = "--set") -> Config:
    """Defaults, then the YAML file, then ``overrides``.

    Args:
        path: YAML file of ``key: value`` lines; None for the defaults of the demo world.
        overrides: values by key; strings are read as YAML scalars ("1e-3", "true").
        source: where the overrides come from, for messages.

    Raises:
        UserError: the file is absent or no mapping; a key is unknown; a value has the wrong type
            or lies outside its range. The message names it and the cure.
    """
    config = Config()
    own = path is None or _in_project(path)
    for key in _FOLDERS:  # the defaults are the project's
        setattr(config, key, _of_project(getattr(config, key)))
    for key, value in _read_yaml(path).items():
        if key != FOUND:
            value = _checked(key, value, path)
            setattr(config, key, _of_project(value) if own and key in _FOLDERS else value)
    for key, value in (overrides or {}).items():
        setattr(config, key, _checked(key, value, source))
    if config.schedule == "paper" and config.losses != "paper":
        raise UserError("schedule 'paper' weighs the pixel loss, which losses 'released' does not train: add "
                        "--set losses=paper")
    if not config.name:
        raise UserError("'name' is empty: it begins the names of run folders; set it, for example --name faces")
    return config


def _in_project(path: str) -> bool:
    return os.path.realpath(path).startswith(os.path.realpath(PROJECT) + os.sep)


def _of_project(folder: str) -> str:
    """A folder relative to the project, as seen from the working directory."""
    if os.path.isabs(folder) or os.path.realpath(os.getcwd()) == os.path.realpath(PROJECT):
        return folder
    return os.path.join(PROJECT, folder)


def parse_assignments(pairs: list[str]) -> dict[str, str]:
    """``["lr=1e-3", ...]`` -> ``{"lr": "1e-3", ...}``.

    Raises:
        UserError: an entry has no ``=``.
    """
    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--set {pair[:_SHOWN]}: write it as key=value, for example --set lr=1e-4")
        values[key.strip()] = value.strip()
    return values


def given_by_hand(args) -> dict:
    """What a command line says of settings: ``args.set``, then flags named like settings that were given."""
    flags = {name: getattr(args, name) for name in _FIELDS if getattr(args, name, None) is not None}
    return {**parse_assignments(args.set), **flags}


def config_from_arguments(args) -> Config:
    """The settings of a command line: ``args.config``, then ``args.set``, then flags named like settings.

    Args:
        args: argparse result; a flag that was not given is None.

    Raises:
        UserError: as ``load_config``.
    """
    return load_config(args.config, given_by_hand(args))


# ---------------------------------------------------------------- files
def save_config(config: Config, path: str, **found) -> None:
    """Writes the resolved settings as YAML, and what was found at run time under the key ``found``.

    The file starts the same run again: ``--config PATH``. Folders inside the project are written relative to it
    when the file lies in it too, else in full.
    """
    values = dataclasses.asdict(config)
    for key in _FOLDERS:
        folder = os.path.abspath(values[key])
        movable = _in_project(path) and _in_project(folder)
        values[key] = os.path.relpath(os.path.realpath(folder), os.path.realpath(PROJECT)) if movable else folder
    write_text(path, yaml.safe_dump({**values, FOUND: found}, sort_keys=False, allow_unicode=True))


def read_saved_config(path: str) -> tuple[Config, dict]:
    """A config that ``save_config`` wrote, and what was found with it.

    Raises:
        UserError: absent, empty, damaged, or of settings that are no more.
    """
    values = _read_yaml(path)
    if not values:
        raise UserError(f"{path} is empty")
    found = values.get(FOUND)
    return load_config(path), found if isinstance(found, dict) else {}


class _Loader(yaml.SafeLoader):
    """Plain values alone, and no deeper than settings are: PyYAML's time grows with the square of the depth."""

    def fetch_flow_collection_start(self, TokenClass):
        if self.flow_level >= _DEEPEST:
            raise yaml.YAMLError(f"brackets are nested more than {_DEEPEST} deep")
        super().fetch_flow_collection_start(TokenClass)


def _read_yaml(path: str | None) -> dict:
    if path is None:
        return {}
    try:
        with open(path, encoding="utf-8-sig") as file:
            values = yaml.load(file, _Loader) or {}  # a SafeLoader
    except OSError as error:
        raise UserError(f"cannot read the config {path}: {error.strerror}; "
                        "the ones that come with the project are in configs/") from error
    # What stands for a date, a number or a set raises what Python's own types raise; nesting has an end, too.
    except Exception as error:
        raise UserError(f"{path} is not valid YAML: {brief(error)}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold 'key: value' lines")
    return values


# ---------------------------------------------------------------- checks
def _checked(key, value, source):
    """The value in its field's type; raises UserError naming key, source and cure."""
    if key not in _FIELDS:
        key = key if isinstance(key, str) else _shown(key)
        near = difflib.get_close_matches(key[:_SHOWN], _FIELDS, n=1, cutoff=_SLIP)
        hint = f"did you mean '{near[0]}'?" if near else "facegcn/config.py lists all settings"
        raise UserError(f"{source}: unknown setting '{key[:_SHOWN]}'; {hint}")
    field, wanted = _FIELDS[key], _TYPES[_FIELDS[key].type]
    value = _converted(value, wanted)
    if type(value) is not wanted:
        raise UserError(f"{source}: '{key}' must be of type {field.type}, got {_shown(value)}")
    choices = field.metadata["choices"]
    if choices and value not in choices:
        raise UserError(f"{source}: '{key}' must be one of {', '.join(choices)}, got {_shown(value)}")
    if wanted in (int, float) and not _in_range(value, field.metadata):
        raise UserError(f"{source}: '{key}' must be {_range(field.metadata)}, got {_shown(value)}")
    if key in ("name", "suffix") and value:
        check_name(value, f"{source}: '{key}'")
    if key == "erosion" and value % 2 == 0:
        raise UserError(f"{source}: 'erosion' is the width of an ellipse around a pixel: it must be odd, got {value}")
    if key == "eval" and value != int(value):
        raise UserError(f"{source}: 'eval' counts epochs: it must be a whole number, got {value!r}")
    return value


def _shown(value) -> str:
    """A value for a message: YAML's aliases make of a few lines what fills any screen, and any memory."""
    try:
        text = reprlib.repr(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"


def _in_range(value, limits) -> bool:
    least, above, most, below = (limits[name] for name in ("least", "above", "most", "below"))
    return ((type(value) is int or math.isfinite(value))  # a whole number may be too large for a float
            and (least is None or value >= least) and (above is None or value > above)
            and (most is None or value <= most) and (below is None or value < below))


def _range(limits) -> str:
    words = [f"{limits[name]:,} or more" if name == "least" else f"{name if name != 'most' else 'at most'} "
             f"{limits[name]:,}" for name in ("least", "above", "most", "below") if limits[name] is not None]
    return " and ".join(words) or "a finite number"


def _converted(value, wanted):
    """Reads a string as the wanted scalar; an int will do for a float. Else the value unchanged."""
    if wanted is str:
        return value
    if isinstance(value, str):
        try:
            # YAML 1.1 takes "1e-4" for a string, so numbers are read by Python.
            value = wanted(value) if wanted is not bool else yaml.load(value, _Loader)
        except Exception:  # as in _read_yaml
            return value
    if wanted is float and type(value) is int:
        with contextlib.suppress(OverflowError):
            return float(value)
    return value
