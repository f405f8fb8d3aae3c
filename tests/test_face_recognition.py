"""LightCNN-29 and IR-50: networks against a NumPy oracle, crops, and their metrics in test mode."""

import csv
import json
import math

import keras
import numpy as np
import pytest
from skimage.transform import SimilarityTransform

import main
from facegcn.config import Config
from facegcn.identity import ir50, light_cnn
from facegcn.identity.recognizers import (
    ARCHITECTURES,
    Architecture,
    FaceRecognizer,
    cosine_similarity,
    identity_metrics,
    ir50_transform,
    light_cnn_transform,
    load_recognizers,
    warp_similar,
)
from facegcn.identity.torch_weights import assign_weights, save_converted, weight_slots
from facegcn.landmarks import FIVE_POINT_LANDMARKS
from facegcn.photos.warping import transform_points
from facegcn.report import CROP_TEXT, write_png
from tests import face_networks
from tests.face_networks import SHAPES, random_inputs
from tests.faces import embedded, half_ellipsoid

FACE = np.array([(80.0, 90), (140, 88), (112, 125), (90, 155), (134, 157)])  # eyes, nose, mouth corners


@pytest.fixture(scope="module")
def weights():
    """Random published-like weights by architecture."""
    return {name: face_networks.random_weights(shapes, seed) for seed, (name, shapes) in enumerate(SHAPES.items())}


@pytest.fixture(scope="module")
def converted(weights, tmp_path_factory):
    """Converted files of them by architecture."""
    folder = tmp_path_factory.mktemp("converted")
    for name, arrays in weights.items():
        save_converted(str(folder / f"{name}.npz"), name, arrays)
    return {name: str(folder / f"{name}.npz") for name in weights}


# ---------------------------------------------------------------- networks
@pytest.mark.parametrize("name", SHAPES)
def test_every_published_weight_has_its_place(name):
    slots = weight_slots(ARCHITECTURES[name].build())
    assert {key: slot.shape for key, slot in slots.items()} == SHAPES[name]


@pytest.mark.parametrize("name", SHAPES)
def test_features_match_the_numpy_oracle(name, weights, rng):
    network = ARCHITECTURES[name].build()
    assign_weights(network, weights[name])
    inputs = random_inputs(name, rng)
    found = np.asarray(network(inputs, training=False))
    if name == "ir50":
        wanted = face_networks.ir50_forward(weights[name], inputs[1].transpose(2, 0, 1))
    else:
        wanted = face_networks.light_cnn_forward(weights[name], inputs[1, ..., 0], 2 if name.endswith("v2") else 1)
    assert wanted.shape == ((512,) if name == "ir50" else (256,))
    np.testing.assert_allclose(found[1], wanted, atol=1e-4 * np.abs(wanted).max())
    assert np.abs(found[0] - found[1]).max() > 1e-3 * np.abs(wanted).max(), "the picture matters"


def test_max_feature_map_pairs_channels_half_a_stack_apart():
    found = light_cnn.max_feature_map(keras.ops.convert_to_tensor([[1.0, 5, -3, 2], [4.0, 0, 6, -1]]))
    np.testing.assert_array_equal(found, [[1, 5], [6, 0]])


def test_pools_on_odd_pictures(rng):
    picture = rng.normal(size=(1, 5, 3, 2)).astype(np.float32) - 3.0  # below zero: a zero border would show
    found = np.asarray(light_cnn.ceil_max_pool(picture))[0]
    assert found.shape == (3, 2, 2)
    np.testing.assert_array_equal(found[2, 1], picture[0, 4, 2])
    np.testing.assert_array_equal(found.transpose(2, 0, 1),
                                  face_networks.pool(picture[0].transpose(2, 0, 1), np.nanmax, ceil=True))
    both = np.asarray(light_cnn.max_and_mean_pool(picture))[0]
    np.testing.assert_allclose(both[0, 0], picture[0, :2, :2].max((0, 1)) + picture[0, :2, :2].mean((0, 1)), rtol=1e-6)
    assert both.shape == (2, 1, 2)


@pytest.mark.parametrize(("before", "after", "stride", "size"),
                         [(3, 3, 2, 7), (3, 3, 1, 6), (3, 5, 2, 8), (4, 2, 1, 5)])
def test_a_residual_unit_matches_the_oracle(before, after, stride, size, rng):
    image = keras.Input((size, size, before))
    network = keras.Model(image, ir50.residual_unit(image, after, stride, "u"))
    arrays = face_networks.random_weights({name: slot.shape for name, slot in weight_slots(network).items()}, 5)
    assign_weights(network, arrays)
    picture = rng.normal(size=(size, size, before)).astype(np.float32)
    wanted = face_networks.bottleneck(picture.transpose(2, 0, 1), arrays, "u", stride)
    np.testing.assert_allclose(np.asarray(network(picture[None], training=False))[0].transpose(2, 0, 1), wanted,
                               atol=1e-5)


def test_prelu_has_one_slope_a_channel():
    found = np.asarray(keras.layers.PReLU(shared_axes=[1, 2], alpha_initializer="ones")(-np.ones((1, 2, 2, 3))))
    np.testing.assert_array_equal(found, -1.0)
    values = np.array([[[-2.0, 3.0]], [[4.0, -5.0]]])
    np.testing.assert_array_equal(face_networks.prelu(values, np.array([0.5, -1.0])), [[[-1, 3]], [[4, 5]]])


# ---------------------------------------------------------------- crops and metrics
def _umeyama(source, target):
    """scikit-image's similarity, by the interface that this version has."""
    if hasattr(SimilarityTransform, "from_estimate"):
        return SimilarityTransform.from_estimate(source, target).params[:2]
    transform = SimilarityTransform()
    transform.estimate(source, target)
    return transform.params[:2]


def test_light_cnn_crops_have_level_eyes_in_row_40_and_the_mouth_48_lower():
    for turn in (0.0, 0.4, -2.8):
        matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * 1.7
        moved = transform_points(FACE @ matrix.T + (5.0, -3.0), light_cnn_transform(FACE @ matrix.T + (5.0, -3.0)))
        np.testing.assert_allclose(moved[:2].mean(axis=0), (64.5, 40.5), atol=1e-3)
        assert moved[0, 1] == pytest.approx(moved[1, 1], abs=1e-3) and moved[0, 0] < moved[1, 0]
        assert moved[3:, 1].mean() - moved[:2, 1].mean() == pytest.approx(48.0, abs=1e-3)


def test_ir50_crops_are_nearest_to_the_enlarged_template():
    published = np.array([(30.29459953, 51.69630051), (65.53179932, 51.50139999), (48.02519989, 71.73660278),
                          (33.54930115, 92.3655014), (62.72990036, 92.20410156)]) + (8.0, 0.0)  # 96 to 112 wide
    corner = (published + 0.5) * 128 / 112 - 8.0
    np.testing.assert_allclose(ir50_transform(FACE), _umeyama(FACE, corner), rtol=1e-6)
    np.testing.assert_allclose(ir50_transform(corner), np.eye(2, 3), atol=1e-9)


@pytest.mark.parametrize(("transform", "points"), [
    (ir50_transform, np.ones((5, 2))), (light_cnn_transform, np.ones((5, 2))),
    (light_cnn_transform, FACE[[0, 1, 2, 0, 1]]), (light_cnn_transform, FACE[[3, 4, 2, 0, 1]]),
    (light_cnn_transform, FACE * np.nan), (ir50_transform, FACE * np.nan)])
def test_points_that_fix_no_crop(transform, points):
    assert transform(points) is None


def test_warped_pictures_keep_positions_average_and_end_in_black():
    x, y = np.meshgrid(np.arange(40.0) + 0.5, np.arange(30.0) + 0.5)
    ramp = np.stack([x, y, x + y], axis=-1).astype(np.float32)
    turned = np.array([[0.0, -1.0, 25.0], [1.0, 0.0, -5.0]])  # (x, y) -> (25 - y, x - 5)
    found = warp_similar(ramp, turned, 20)
    np.testing.assert_allclose(found[7, 11], (12.5, 13.5, 26.0), atol=1e-4)
    dots = np.zeros((32, 32, 3), np.float32)
    dots[::4, ::4] = 1.0  # between them, plain interpolation would see nothing
    np.testing.assert_allclose(warp_similar(dots, np.eye(2, 3) * 0.25, 8), 1 / 16, atol=1e-3)
    assert not warp_similar(ramp + 1.0, np.array([[1.0, 0, 50], [0, 1.0, 0]]), 20).any()


def test_networks_see_grey_or_signed_colour(converted):
    photo = np.full((1, 224, 224, 3), (1.0, -1.0, 0.0), np.float32)
    grey, usable = FaceRecognizer.load(converted["light_cnn_29"], "light-cnn").crops(photo, FACE[None])
    assert grey.shape == (1, 128, 128, 1) and usable.tolist() == [True]
    assert grey[0, 64, 64, 0] == pytest.approx(0.299 + 0.114 / 2, abs=1e-3)
    colour, _ = FaceRecognizer.load(converted["ir50"], "ir50").crops(photo, FACE[None])
    assert colour.shape == (1, 112, 112, 3)
    np.testing.assert_allclose(colour[0, 56, 56], (1.0, -1.0, 0.0), atol=1e-3)


def test_cosines():
    found = cosine_similarity([[3, 4], [1, 0], [1, 1], [0, 0]], [[6, 8], [0, 2], [-1, -1], [1, 1]])
    np.testing.assert_allclose(found, [1.0, 0.0, -1.0, np.nan], atol=1e-12)


def _flat_recognizer(mirrored=False):
    """A 'network' whose feature is its 4 x 4 picture, cut from the left upper corner."""
    def transform(points):
        return None if np.isnan(points).any() else np.eye(2, 3)
    image = keras.Input((4, 4, 3))
    architecture = Architecture("flat", "flat", None, 4, transform, lambda images: images, mirrored, ())
    return FaceRecognizer(architecture, keras.Model(image, keras.layers.Flatten()(image)))


def test_ir50_alone_adds_the_feature_of_the_mirrored_picture(rng):
    pictures = rng.random((2, 4, 4, 3), np.float32)
    found = _flat_recognizer(mirrored=True).features(pictures)
    np.testing.assert_allclose(found, (pictures + pictures[:, :, ::-1]).reshape(2, -1), rtol=1e-6)
    assert {name for name, architecture in ARCHITECTURES.items() if architecture.mirrored} == {"ir50"}


def test_metrics_compare_each_overlay_with_its_own_photo(rng):
    photos, fine = rng.uniform(-1, 1, (2, 3, 6, 6, 3)).astype(np.float32)
    landmarks = rng.uniform(0, 6, (3, 68, 2))
    landmarks[2, FIVE_POINT_LANDMARKS[0][1]] = np.nan
    found = identity_metrics({"flat": _flat_recognizer()}, photos, {"coarse": photos, "fine": fine}, landmarks)
    for i in (0, 1):
        a, b = (p[i, :4, :4].ravel().astype(np.float64) * 0.5 + 0.5 for p in (photos, fine))
        assert found[i]["coarse_flat"] == pytest.approx(1.0)
        assert found[i]["fine_flat"] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)), rel=1e-5)
    assert math.isnan(found[2]["coarse_flat"]) and list(found[2]) == ["coarse_flat", "fine_flat"]
    assert identity_metrics({}, photos, {"coarse": photos}, landmarks) == [{}, {}, {}]


# ---------------------------------------------------------------- test mode
@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A small world with two segmented pictures, and the flags of test mode."""
    folder = tmp_path_factory.mktemp("world")
    model = embedded(half_ellipsoid(25, 31))  # its landmarks need not be learnt
    model.save(str(folder / "model.npz"))
    (folder / "in").mkdir()
    rows, columns = np.indices((64, 64))
    for number in (0, 1):
        picture = np.stack([rows * 3, columns * 2 + 60 * number, 255 - rows - columns,
                            255 * (np.hypot(rows - 32, columns - 32) < 22)], axis=-1)
        write_png(str(folder / "in" / f"face{number}.png"), picture.astype(np.uint8), CROP_TEXT)
    settings = {"model_file": "model.npz", "root_dir": folder, "runs_dir": folder / "runs", "img_size": 64,
                "regressor_pixels": 32, "regressor_start": ""}
    return folder, ["--mode", "test", "--input", str(folder / "in"),
                    *(part for key, value in settings.items() for part in ("--set", f"{key}={value}"))]


def _metrics(world, out, *flags):
    assert main.main([*world[1], "--output", str(out), *flags]) == 0
    return json.loads((out / "metrics.json").read_text())


def test_metrics_files_hold_the_cosines_only_when_weights_are_given(world, converted, tmp_path, capsys):
    plain = _metrics(world, tmp_path / "plain")
    assert not any("cnn" in key or "ir50" in key for key in plain["mean"])
    capsys.readouterr()
    found = _metrics(world, tmp_path / "out", "--set", f"light_cnn_file={converted['light_cnn_29_v2']}",
                     "--set", f"ir50_file={converted['ir50']}")
    columns = ["coarse_light_cnn", "fine_light_cnn", "coarse_ir50", "fine_ir50"]
    assert all(column in capsys.readouterr().out for column in columns[:1])
    for row in found["photos"].values():
        assert list(row)[-4:] == columns and all(-1.0 <= row[column] < 1.0 for column in columns)
        assert row["coarse_ir50"] != row["fine_ir50"]
    for name, row in plain["photos"].items():
        assert {key: found["photos"][name][key] for key in row} == row
    with open(tmp_path / "out" / "metrics.csv", encoding="utf-8", newline="") as file:
        assert next(csv.reader(file))[-4:] == columns


def test_a_texture_network_is_measured_too(world, converted, tmp_path):
    from facegcn.assets.worlds import load_morphable
    from facegcn.reconstruction.jobs import PhotosAhead, photo_jobs
    from facegcn.reconstruction.reconstructor import Reconstructor
    from model import build_face_model
    config = Config(model_file="model.npz", root_dir=str(world[0]), img_size=64, regressor_pixels=32,
                    light_cnn_file=converted["light_cnn_29"])
    face_model = build_face_model(config, load_morphable(config))
    jobs = photo_jobs([str(world[0] / "in" / "face0.png")], face_model.morphable, 64)
    with PhotosAhead(jobs, 2) as photos:
        rows = Reconstructor(face_model, str(tmp_path), recognizers=load_recognizers(config)).run(photos)
    assert json.loads((tmp_path / "metrics.json").read_text())["fine_texture"] == "texture network"
    # The residual head starts at the coarse albedo; the relit fine face stays near the coarse one.
    assert rows["face0"]["fine_light_cnn"] == pytest.approx(rows["face0"]["coarse_light_cnn"], abs=0.2)
    assert rows["face0"]["fine_light_cnn"] < 1.0
