"""The texture networks and the critic; ``build_face_model``, ``load_trained``: all that a config asks for.

Letters: B images, E embedding width, N vertices of the template, C refiner channels. Layer names
are the released code's TF1 variable scopes with "." for "/", so that its checkpoints can be
carried over (``load_released_weights``).
"""

from __future__ import annotations

import glob
import os

import keras
import numpy as np
from keras import layers, ops

from facegcn.assets.landmark_embedding import ensure_embedding
from facegcn.assets.priors import ensure_priors
from facegcn.assets.regressor_errors import ensure_regressor_errors
from facegcn.assets.starting_weights import StartingWeights
from facegcn.assets.tf1_checkpoint import WEIGHTS_FILE, imported_weights
from facegcn.errors import log
from facegcn.face_model import FaceModel
from facegcn.fitting import CoefficientFitter
from facegcn.graph import ChebConv, MeshPool
from facegcn.networks.frozen import FrozenFaceNet
from facegcn.networks.normalization import BatchNorm, ImageNorm
from facegcn.networks.regressor import build_regressor, feature_count, load_weights
from facegcn.networks.weight_decay import HalfSquares
from facegcn.runs import RunFolder
from mesh_sampling import from_arrays
from utils import init_sampling

LEVELS = 4  # levels below the template that the networks are made for
ORDER = 6  # Chebyshev terms [paper]
DENSE_L2 = 5e-4  # times sum(x^2) / 2 of each dense layer's weights and bias [released code]

#: Feature widths [released code], keyed by (kind, wide). resnet: dense layer, then the decoder's
#: blocks; normal: dense layer, then the decoder's four convolutions.
_DECODER_WIDTHS = {("resnet", False): (32, 16, 16, 16, 3), ("resnet", True): (32, 64, 128, 256, 3),
                   ("normal", False): (32, 16, 16, 16, 16), ("normal", True): (32, 32, 64, 128, 256)}
_REFINER_WIDTHS = {("resnet", False): (16, 32, 32, 16, 3), ("resnet", True): (16, 32, 64, 128, 3),
                   ("normal", False): (16, 32, 64, 128), ("normal", True): (16, 32, 64, 128)}
_CRITIC_WIDTHS = (16, 32, 64, 128, 256, 512)


# ---------------------------------------------------------------- texture networks
def build_texture_network(kind: str, hierarchy, embedding_dim: int, wide: bool = False, nz: int = 512,
                          residual: bool = False, refiner_channels: int = 7) -> keras.Model:
    """Decoder, refiner and combine net: (embedding, what is known of each vertex) -> fine albedo.

    Args:
        kind: ``resnet`` (the paper's) or ``normal`` (the released code's default).
        hierarchy: ``mesh_sampling.MeshHierarchy`` with four levels below the template.
        embedding_dim: E.
        wide: wider feature maps [released code].
        nz: latent width of the ``normal`` refiner.
        residual: the head corrects the coarse albedo, starting exactly there [ours]; else its
            tanh is the albedo [paper].
        refiner_channels: 7; 10 with de-lit samples, 14 also with those of the mirrored vertex, 3 more with
            the completed albedo [ours].

    Returns:
        Keras model with inputs ``[embedding (B, E), refiner_input (B, N, C)]`` and output
        (B, N, 3), fine albedo in [-1, 1]. Refiner channels: coarse albedo 3 and sampled colour 3
        in [-1, 1], visible 1 in [0, 1], de-lit sample 3 in [-1, 1] and 0 where not visible, the
        mirrored vertex's de-lit sample 3 and visible 1, completed albedo 3 in [-1, 1].
        ``sum(network.losses)`` is the L2 regularisation.

    Raises:
        ValueError: unknown kind, another number of levels or channels, or a width below 1.
    """
    if kind not in ("resnet", "normal"):
        raise ValueError(f"kind must be 'resnet' or 'normal', got {kind!r}")
    if len(hierarchy.downsamples) != LEVELS:
        raise ValueError(f"the texture networks need a mesh hierarchy with {LEVELS} levels below the "
                         f"template, got {len(hierarchy.downsamples)}")
    if refiner_channels not in (7, 10, 13, 14, 17):
        raise ValueError(f"refiner_channels must be 7, 10, 13, 14 or 17, got {refiner_channels}")
    if embedding_dim < 1 or nz < 1:
        raise ValueError(f"widths must be above 0, got embedding_dim={embedding_dim}, nz={nz}")
    mesh = _MeshLayers(hierarchy)
    embedding = keras.Input((embedding_dim,), name="embedding")
    refiner_input = keras.Input((mesh.sizes[0], refiner_channels), name="refiner_input")
    known = ops.transpose(refiner_input, (1, 0, 2))  # vertex-major from here on, see facegcn.graph
    decoder_widths, refiner_widths = _DECODER_WIDTHS[kind, wide], _REFINER_WIDTHS[kind, wide]
    if kind == "resnet":
        decoded = _resnet_decoder(mesh, embedding, decoder_widths)
        refined = _resnet_refiner(mesh, known, refiner_widths)
    else:
        decoded = _normal_decoder(mesh, embedding, decoder_widths)
        refined = _normal_refiner(mesh, known, refiner_widths, nz)
    head = _residual_head if residual else _tanh_head
    texture = ops.transpose(head(mesh, decoded, refined, known), (1, 0, 2))
    return keras.Model([embedding, refiner_input], texture, name="mesh_generator")


class _MeshLayers:
    """Makes graph layers of a hierarchy; all take and return vertex-major (N_k, B, F)."""

    def __init__(self, hierarchy):
        self._hierarchy = hierarchy
        self.sizes = [matrix.shape[0] for matrix in hierarchy.laplacians]

    def conv(self, x, filters, level, name, order=ORDER, **options):
        """Chebyshev convolution at a level, without activation unless asked for."""
        return ChebConv(filters, self._hierarchy.laplacians[level], order, vertex_major=True, name=name,
                        **options)(x)

    def down(self, x, level):
        """From ``level`` to the next coarser one."""
        return MeshPool(self._hierarchy.downsamples[level], vertex_major=True)(x)

    def up(self, x, level):
        """From the level below ``level`` to it."""
        return MeshPool(self._hierarchy.upsamples[level], vertex_major=True)(x)

    def block(self, x, filters, level, name):
        """Residual block: conv, ELU, conv, + shortcut, ELU; a bias before each ELU."""
        shortcut = x
        if x.shape[-1] != filters:
            shortcut = self.conv(x, filters, level, f"{name}.shortcut", order=1, use_bias=False)
        y = self.conv(x, filters, level, f"{name}.filter1", activation="elu")
        return ops.elu(self.conv(y, filters, level, f"{name}.filter2") + shortcut)

    def dense(self, x, units, name):
        """ReLU layer with L2 on weights and bias."""
        l2 = HalfSquares(DENSE_L2)
        return layers.Dense(units, activation="relu", kernel_initializer="he_normal",
                            kernel_regularizer=l2, bias_regularizer=l2, name=name)(x)

    def coarsest_features(self, x, features, name):
        """Dense layer (B, E) -> features at the coarsest level, vertex-major."""
        flat = self.dense(x, self.sizes[-1] * features, name)
        return ops.transpose(ops.reshape(flat, (-1, self.sizes[-1], features)), (1, 0, 2))


def _resnet_decoder(mesh, embedding, widths):
    x = mesh.coarsest_features(embedding, widths[0], "mesh_decoder.fc")
    for i, level in enumerate(range(LEVELS - 1, -1, -1)):
        x = mesh.block(mesh.up(x, level), widths[i + 1], level, f"mesh_decoder.resblock{i + 1}")
    return x


def _resnet_refiner(mesh, x, widths):
    x = mesh.block(x, widths[0], 0, "mesh_refiner.resblock1")
    x = mesh.block(mesh.down(x, 0), widths[1], 1, "mesh_refiner.resblock2")
    x = mesh.block(x, widths[2], 1, "mesh_refiner.resblock3")
    x = mesh.block(mesh.up(x, 0), widths[3], 0, "mesh_refiner.resblock4")
    return mesh.block(x, widths[4], 0, "mesh_refiner.resblock5")


def _normal_decoder(mesh, embedding, widths):
    x = mesh.coarsest_features(embedding, widths[0], "mesh_decoder.fc")
    for i, level in enumerate(range(LEVELS - 1, -1, -1)):
        x = mesh.conv(mesh.up(x, level), widths[i + 1], level, f"mesh_decoder.upconv{i + 1}",
                      activation="elu")
    return mesh.conv(x, 3, 0, "mesh_decoder", activation="elu")


def _normal_refiner(mesh, x, widths, nz):
    x = mesh.conv(x, widths[0], 0, "mesh_refiner.graph_conv0", use_bias=False)
    skips = []  # encoder features of levels 1, 2, ...
    for i in range(LEVELS):
        x = mesh.conv(mesh.down(x, i), widths[i], i + 1, f"mesh_refiner.graph_conv{i + 1}",
                      activation="elu")
        skips.append(x)
    flat = ops.reshape(ops.transpose(x, (1, 0, 2)), (-1, mesh.sizes[-1] * widths[-1]))
    latent = mesh.dense(flat, nz, "mesh_refiner.fc")
    x = mesh.coarsest_features(latent, widths[-1], "mesh_refiner.fc2")
    for i, level in enumerate(range(LEVELS - 1, -1, -1)):
        x = mesh.up(x, level)
        if i < 2:
            x = ops.concatenate([x, skips[level - 1]], axis=-1)
        x = mesh.conv(x, widths[-1 - i], level, f"mesh_refiner.graph_conv{i + 5}", activation="elu")
    return mesh.conv(x, 3, 0, "mesh_refiner", activation="elu")


def _tanh_head(mesh, decoded, refined, known):
    """Combine net of the paper: concat, one graph convolution, tanh."""
    features = ops.concatenate([decoded, refined], axis=-1)
    return ops.tanh(mesh.conv(features, 3, 0, "mesh_concat", use_bias=False))


def _residual_head(mesh, decoded, refined, known):
    """Coarse, or completed, albedo plus a correction that is zero at the start [ours].

    The convolution also sees how far the visible colour (de-lit where there is one) is from the
    coarse albedo, so that copying a seen colour is one linear step; likewise the mirrored vertex's where
    the vertex itself is hidden.
    """
    coarse, visible = known[..., :3], known[..., 6:7]
    seen = known[..., 7:10] if known.shape[-1] > 7 else known[..., 3:6]
    features = [decoded, refined, seen - visible * coarse, coarse]  # what is seen comes times visible
    base = coarse
    if known.shape[-1] in (13, 17):
        base = known[..., -3:]
        features.append(base - coarse)
    if known.shape[-1] >= 14:
        mirrored, mirrored_visible = known[..., 10:13], known[..., 13:14]
        features.append((1.0 - visible) * (mirrored - mirrored_visible * coarse))
    correction = mesh.conv(ops.concatenate(features, axis=-1), 3, 0, "mesh_concat", use_bias=False,
                           kernel_initializer="zeros")
    return ops.clip(base + correction, -1.0, 1.0)


# ---------------------------------------------------------------- critic
def build_critic(size: int = 224, norm: str = "batch") -> keras.Model:
    """Image critic of WGAN-GP: RGB in [-1, 1] (B, size, size, 3) -> score (B, 1).

    Args:
        size: width and height of the images, pixels, at least 32.
        norm: ``batch`` [released code], ``layer`` (over each image; fits the gradient penalty,
            which looks at one image at a time) or ``none``.

    Raises:
        ValueError: size below 32, or an unknown norm.
    """
    if norm not in ("batch", "layer", "none"):
        raise ValueError(f"norm must be 'batch', 'layer' or 'none', got {norm!r}")
    if size < 2 ** (len(_CRITIC_WIDTHS) - 1):
        raise ValueError(f"the critic needs images of at least {2 ** (len(_CRITIC_WIDTHS) - 1)} pixels, "
                         f"got {size}")
    image = x = keras.Input((size, size, 3), name="image")
    for i, width in enumerate(_CRITIC_WIDTHS):
        if i:
            x = layers.MaxPooling2D(2, padding="same")(x)
        x = layers.Conv2D(width, 3 if i else 1, padding="same", kernel_initializer="he_normal",
                          name=f"conv{i + 1}_1")(x)
        if norm == "batch":
            x = BatchNorm(momentum=0.9, epsilon=0.001, name=f"conv{i + 1}_1.BatchNorm")(x)
        elif norm == "layer":
            x = ImageNorm(name=f"conv{i + 1}_1.LayerNorm")(x)
        x = layers.LeakyReLU(negative_slope=0.2)(x)
    score = layers.Conv2D(1, x.shape[1], padding="valid", kernel_initializer="he_normal", name="outputs")(x)
    return keras.Model(image, layers.Flatten()(score), name="image_disc")


# ---------------------------------------------------------------- weights of the released code
_TF1_SUFFIXES = {"kernel": "weights", "bias": "bias", "beta": "beta", "moving_mean": "moving_mean",
                 "moving_variance": "moving_variance"}


def released_names(network: keras.Model) -> dict:
    """TF1 variable name -> Keras variable, for every variable of a texture network or critic."""
    names = {}
    for layer in network.layers:
        for variable in layer.variables:
            scope = layer.name
            if variable.name == "bias":  # a residual block's biases have scopes of their own
                scope = scope.replace(".filter", ".bias_relu")
            suffix = _TF1_SUFFIXES.get(variable.name, variable.name)
            names[f"{network.name}/{scope.replace('.', '/')}/{suffix}"] = variable
    return names


def load_released_weights(network: keras.Model, arrays) -> None:
    """Fills a texture network or critic with weights of the released code.

    Args:
        network: from ``build_texture_network`` (not residual) or ``build_critic``.
        arrays: mapping of TF1 variable names (``mesh_generator/...`` or ``image_disc/...``, with or
            without ``:0``) to arrays; names of other networks and of the optimiser are left alone.

    Raises:
        ValueError: variables are missing or have another shape; all of them are named, and nothing
            is loaded.
    """
    given = {name.removesuffix(":0"): np.asarray(array) for name, array in arrays.items()}
    problems = []
    for name, variable in released_names(network).items():
        if name not in given:
            problems.append(f"{name} is missing")
        elif tuple(n for n in given[name].shape if n != 1) != tuple(n for n in variable.shape if n != 1):
            problems.append(f"{name} has shape {given[name].shape}, expected {tuple(variable.shape)}")
    if problems:
        raise ValueError(f"these weights do not fit the network '{network.name}':\n  "
                         + "\n  ".join(problems))
    for name, variable in released_names(network).items():
        variable.assign(given[name].reshape(variable.shape))


# ---------------------------------------------------------------- the whole
def build_face_model(config, morphable, with_texture: bool = True) -> FaceModel:
    """The FaceModel of a config, untrained but for the starting weights.

    Args:
        config: facegcn.config.Config.
        morphable: the MorphableModel.
        with_texture: False leaves the texture network out.

    Raises:
        UserError: the starting weights, or the files of the frozen networks, are absent or do not fit.
    """
    regressor = build_regressor(config.regressor, morphable, config.img_size, config.regressor_pixels,
                                config.path(config.regressor_file))
    if config.regressor_start and config.regressor != "frozen":
        load_weights(regressor, os.path.join(os.path.dirname(os.path.abspath(__file__)), config.regressor_start))
    facenet = FrozenFaceNet(config.path(config.facenet_file)) if config.facenet_file else None
    model = FaceModel(morphable, None, regressor, config.img_size, config.visibility, config.delit, config.mirror,
                      config.erosion, config.relight, facenet, config.sampling, config.trust,
                      config.completed, config.correction)
    if with_texture:
        start = StartingWeights(config.texture_start, morphable) if config.texture_start else None
        hierarchy = from_arrays(start.hierarchy) if start else init_sampling(
            morphable.mean_shape, morphable.triangles, config.root_dir)
        width = feature_count(regressor) + (facenet.feature_count if facenet else 0)
        model.texture_network = build_texture_network(config.model, hierarchy, width, config.wide, config.nz,
                                                      config.residual, model.refiner_channels)
        if start:
            start.load_into(model.texture_network)
    return model


# ---------------------------------------------------------------- trained
def find_trained(config, morphable) -> tuple:
    """The config with the network settings of the latest run that trained textures, and the run; else itself and None.

    Says which trained runs the config does not mean, so that a forgotten ``--gan`` is noticed.

    Args:
        config: facegcn.config.Config.
        morphable: the MorphableModel.
    """
    run = RunFolder.latest(config, morphable, "texture.weights.h5", WEIGHTS_FILE)
    if run is not None:
        return run.with_architecture(config), run
    trained = glob.glob(os.path.join(glob.escape(config.runs_dir), f"[0-9]*-{glob.escape(config.name)}-*",
                                     "texture.weights.h5"))
    folders = sorted(os.path.dirname(path) for path in trained)
    named = [folder for folder in folders if os.path.basename(folder).partition("-")[2] == config.run_name]
    if named:
        log.info("note: the trained run called '%s', %s, is of another face model, or damaged; it is not used",
                 config.run_name, ", ".join(named))
    elif folders:
        log.info("note: no trained run is called '%s' for this face model, but there is %s: give test mode the flags "
                 "of training (--model, --wide, --gan, --suffix)", config.run_name, ", ".join(folders))
    return config, None


def load_trained(config, morphable, run) -> tuple:
    """All that reconstructs photos: the FaceModel with what was trained, and what fits coefficients to photos.

    Says plainly what was not trained.

    Args:
        config, run: of ``find_trained``.
        morphable: the MorphableModel.

    Returns:
        the FaceModel, and its ``fitting.CoefficientFitter`` or None.

    Raises:
        UserError: as ``build_face_model``; or the run was trained with other frozen networks.
    """
    face_model = build_face_model(config, morphable, bool(run or config.texture_start))
    if run is not None:
        run.check_frozen(face_model)
    _load_regressor(config, face_model, run)
    if run is None and config.texture_start:
        log.info("texture network: its starting weights, %s", config.texture_start)
    elif run is None:
        log.info("texture network: not trained; the coarse texture is completed with the colours seen in "
                 "the photo. Train one with: python main.py --mode train")
    elif os.path.exists(run.file("texture.weights.h5")):
        face_model.texture_network.load_weights(run.file("texture.weights.h5"))
        log.info("texture network: %s", run.path)
    else:
        load_imported(run, face_model.texture_network)
    return face_model, coefficient_fitter(config, face_model)


def _load_regressor(config, face_model, run) -> None:
    """Loads the regressor of the run, or another's where no starting network is bound to its own."""
    if run is None and not config.texture_start:  # a starting network knows the features of its own regressor only
        run = RunFolder.latest(config, face_model.morphable, "regressor.npz", any_network=True)
    if config.regressor == "frozen":
        log.info("regressor: %s, frozen", face_model.regressor.path)
    elif run is not None:
        load_weights(face_model.regressor, run.file("regressor.npz"))
        log.info("regressor: %s", run.path)
    elif config.regressor_start:
        log.info("regressor: its starting weights, %s", config.regressor_start)
    else:
        log.info("regressor: not trained, so every face begins at the mean face%s; train one with: python main.py "
                 "--mode train --stage rec", " and is fitted to its photo" if config.fit else "")


def load_imported(run, network, critic=None) -> int:
    """Loads the weights of a run that was imported from the released code; the epochs behind them, 0 without any.

    Args:
        run: a ``runs.RunFolder``.
        network: the texture network.
        critic: likewise, where there is one.
    """
    arrays = imported_weights(run)
    if not arrays:
        return 0
    load_released_weights(network, arrays)
    loaded = "texture network"
    if critic is not None and any(name.startswith("image_disc/") for name in arrays):
        load_released_weights(critic, arrays)
        loaded += " and critic"
    log.info("%s: %s", loaded, run.file(WEIGHTS_FILE))
    return int(arrays["epochs_done"])


def coefficient_fitter(config, face_model) -> CoefficientFitter | None:
    """What fits coefficients to photos; None where the config has the regressor's word final."""
    if not config.fit:
        return None
    morphable = ensure_embedding(config, face_model.morphable)
    light, details = ensure_priors(config, morphable)
    return CoefficientFitter(morphable, light, ensure_regressor_errors(config, face_model), details)
