"""The yardsticks of quality: the truth passes them, copies and constants are treated as they say, the command works."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from facegcn import geometry
from facegcn.benchmark import __main__ as benchmark
from facegcn.benchmark import quality
from facegcn.face_model import FaceModel
from facegcn.portraits import formation
from facegcn.portraits.maker import PortraitMaker, Stream
from facegcn.rasterizer import rasterize_numpy
from tests.faces import half_ellipsoid
from tests.plain_face import plain_face

SIZE = 64


class Seen:
    """A face with a random albedo, turned by an angle, in random light from a side, -1 to 1."""

    def __init__(self, degrees, side, seed, albedo=None):
        rng, face = np.random.default_rng(seed), half_ellipsoid(25, 31)
        angles = np.float32((0.0, np.radians(degrees), 0.0))
        points = (face.mean_shape - face.mean_shape.mean(axis=0)) @ formation.rotation_matrix(angles).T
        normals = geometry.vertex_normals_numpy(np.ascontiguousarray(points, np.float32), face.triangles)
        self.albedo = rng.uniform(0.2, 0.8, (face.vertex_count, 3)) if albedo is None else albedo
        self.harmonics = formation.sh_basis(normals)
        gamma = rng.normal(0.0, 0.03, (3, 9)) + np.eye(1, 9) * 0.7 + np.eye(1, 9, 3) * side
        self.shading = self.harmonics @ gamma.T
        ids, barycentrics, _ = rasterize_numpy(formation.clip_coordinates(points), face.triangles, SIZE, SIZE)
        self.pixels = quality.face_pixels(face.triangles, ids, barycentrics)
        self.colors = np.clip(self.pixels.draw(self.albedo * self.shading), 0.0, 1.0)

    def psnr(self, albedo):
        return quality.relit_psnr(albedo, self.harmonics, self.pixels, self.colors)


@pytest.fixture(scope="module")
def pair():
    """One albedo seen from two sides in two lights."""
    first = Seen(-20, 0.3, 1)
    return first, Seen(25, -0.3, 2, first.albedo)


# ---------------------------------------------------------------- drawing
def test_pixels_draw_the_mix_of_their_corners():
    ids = np.array([[-1, 1], [0, 1]])
    weights = np.zeros((2, 2, 3))
    weights[0, 1], weights[1, 0], weights[1, 1] = (0.5, 0.5, 0.0), (1.0, 0.0, 0.0), (0.0, 0.25, 0.75)
    values = np.float32([[1], [2], [4], [8]])
    triangles = np.array([[0, 1, 2], [1, 2, 3]])
    np.testing.assert_allclose(quality.face_pixels(triangles, ids, weights).draw(values), [[3], [1], [7]])
    masked = quality.face_pixels(triangles, ids, weights, [[True, True], [False, True]])
    np.testing.assert_allclose(masked.draw(values), [[3], [7]])


def test_two_pixels_of_the_alphas_border_do_not_count():
    alpha = np.zeros((20, 20), np.uint8)
    alpha[:12, 4:16] = 255
    alpha[5, 9] = 254  # half covered
    inner = quality.inner_alpha(alpha)
    assert not inner[:2].any() and not inner[10:].any() and not inner[:, :6].any() and not inner[:, 14:].any()
    assert inner[2, 6] and inner[2, 13] and inner[9, 13] and not inner[3:8, 9].any() and inner[5, 12]


# ---------------------------------------------------------------- texture
def test_psnr_is_its_formula():
    assert quality.psnr(np.full((4, 3), 0.6), np.full((4, 3), 0.5)) == pytest.approx(20.0)
    assert quality.psnr(np.ones((2, 3)), np.ones((2, 3))) == math.inf
    assert math.isnan(quality.psnr(np.zeros((0, 3)), np.zeros((0, 3))))


def test_the_true_albedo_explains_both_pictures(pair):
    assert all(seen.psnr(seen.albedo) > 60 for seen in pair)


def test_a_gain_of_the_albedo_is_taken_by_the_light(pair):
    assert all(seen.psnr(seen.albedo * (0.5, 0.8, 1.2)) > 60 for seen in pair)


def test_a_copy_with_its_light_explains_its_own_picture_only(pair):
    """Nine new harmonics undo most of nine old ones, so that of smooth light alone the true light tells more."""
    first, second = pair
    smooth = first.albedo * first.shading
    shadow = smooth * np.where(np.arange(len(smooth)) < len(smooth) // 2, 0.5, 1.0)[:, None]  # the upper half
    for copy, most in ((smooth, 45), (shadow, 25)):
        assert quality.relit_psnr(copy, first.harmonics, first.pixels, first.pixels.draw(copy)) > 60
        assert second.psnr(copy) < most
        drawn = second.pixels.draw(copy * second.shading)
        assert quality.gain_psnr(drawn, second.pixels.draw(second.albedo * second.shading)) < 25


def test_noise_of_the_albedo_costs_what_it_weighs(pair, rng):
    first, _ = pair
    found = [first.psnr(first.albedo + rng.normal(0, size, first.albedo.shape)) for size in (0.1, 0.01)]
    assert found[1] - found[0] == pytest.approx(20.0, abs=1.5)  # a tenth of the error is 20 dB


def test_light_is_fitted_by_least_squares(rng):
    """Against the normal equations of one channel, with a picture that no light explains."""
    albedo, harmonics, colors = rng.uniform(0.2, 0.9, (60, 3)), rng.normal(size=(60, 9)), rng.uniform(0.4, 0.6, (60, 3))
    pixels = quality.Pixels(np.arange(60)[:, None].repeat(3, axis=1), np.full((60, 3), 1 / 3))
    drawn = np.empty_like(colors)
    for c in range(3):
        design = albedo[:, [c]] * harmonics
        drawn[:, c] = design @ np.linalg.solve(design.T @ design, design.T @ colors[:, c])
    wanted = -10 * math.log10(np.mean((np.clip(drawn, 0, 1) - colors) ** 2))
    assert quality.relit_psnr(albedo, harmonics, pixels, colors) == pytest.approx(wanted)


def test_one_gain_a_channel_costs_nothing_and_a_gradient_does(rng):
    truth = rng.uniform(0, 1.2, (500, 3))
    assert quality.gain_psnr(truth, truth) > 60
    assert quality.gain_psnr(truth * (0.3, 1.5, 0.9), truth) > 60
    assert quality.gain_psnr(truth * np.linspace(0.7, 1.3, 500)[:, None], truth) < 25
    # No gain makes 0 and 1 of 0.5: the best is a half, and the mean square of what is left is a quarter.
    assert quality.gain_psnr(np.full((2, 3), 0.5), [[0.0] * 3, [1.0] * 3]) == pytest.approx(10 * math.log10(4))
    assert quality.gain_psnr(np.zeros((2, 3)), np.full((2, 3), 0.1)) == pytest.approx(20.0)


# ---------------------------------------------------------------- shape, landmarks, light
def test_a_similarity_of_the_shape_costs_nothing(rng):
    truth = rng.normal(size=(50, 3))
    rotation = formation.rotation_matrix(np.float32((0.3, -1.2, 2.0)))
    assert quality.shape_error(truth, truth) == pytest.approx(0.0, abs=1e-9)
    assert quality.shape_error(1.7 * truth @ rotation.T + (1, 2, 3), truth) == pytest.approx(0.0, abs=1e-4)


def test_shape_errors_are_millimetres_and_mirrored_shapes_are_others():
    cube = np.float64([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    dented = cube * (1, 1, 1.02)  # the nearest similarity makes 1.0 and 1.02 of it nearly alike
    spread = np.array([1, 1, 1.02]) * (3.02 / (2 + 1.02 ** 2))
    assert quality.shape_error(dented, cube) == pytest.approx(100 * np.linalg.norm(spread - 1))
    hand = np.float64([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])
    assert quality.shape_error(hand * (-1, 1, 1), hand) > 10


def test_landmark_and_light_errors_are_means():
    points = np.zeros((68, 2))
    assert quality.landmark_error(points, points) == 0
    assert quality.landmark_error(points + (3, 4), points) == pytest.approx(5.0)
    light = np.ones((4, 3))
    other = light + np.float64([[0.1], [0.3], [7.0], [7.0]])
    assert quality.light_error(light, light, np.ones(4, bool)) == 0
    assert quality.light_error(other, light, np.arange(4) < 2) == pytest.approx(0.2)
    assert math.isnan(quality.light_error(other, light, np.zeros(4, bool)))


A, B = np.zeros((5, 3)), np.zeros((6, 3))
PIXELS = quality.Pixels(np.zeros((7, 3), int), np.zeros((7, 3)))


@pytest.mark.parametrize("function, arguments", [
    (quality.psnr, (A, B)),
    (quality.gain_psnr, (A, B)),
    (quality.gain_psnr, (A[0], A[0])),
    (quality.relit_psnr, (A, np.zeros((6, 9)), PIXELS, np.zeros((7, 3)))),
    (quality.relit_psnr, (A, np.zeros((5, 9)), PIXELS, np.zeros((8, 3)))),
    (quality.shape_error, (A, B)),
    (quality.shape_error, (A[:, :2], A[:, :2])),
    (quality.landmark_error, (A, B)),
    (quality.light_error, (A, B, np.ones(5, bool))),
    (quality.light_error, (A, A, np.ones(6, bool))),
    (quality.face_pixels, (np.zeros((1, 3), int), np.zeros((4, 4), int), np.zeros((4, 5, 3)))),
    (quality.face_pixels, (np.zeros((1, 3), int), np.zeros((4, 4), int), np.zeros((4, 4, 3)), np.ones((3, 4), bool))),
])
def test_wrong_shapes_are_told(function, arguments):
    with pytest.raises(ValueError, match="fit"):
        function(*arguments)


# ---------------------------------------------------------------- people
def test_people_are_of_a_series_far_from_the_configs():
    maker = quality.made_people(half_ellipsoid(), 48, 2)
    assert (maker.seed, maker.stream, maker.size) == (1_000_005, Stream.PACKED, 48)


@pytest.mark.parametrize("yaw, wanted", [(0.4, (0, -40, -70)), (-0.4, (0, 40, 70)), (0.0, (0, 40, 70))])
def test_faces_are_turned_to_the_side_that_the_picture_hides(yaw, wanted):
    face = half_ellipsoid()
    coeff = np.random.default_rng(0).normal(size=face.coefficient_count).astype(np.float32)
    place = sum(face.part_sizes[:3]) + 1
    coeff[place] = yaw
    turned = quality.turned_to_hidden(face, coeff)
    np.testing.assert_allclose(np.degrees(turned[:, place]), wanted, atol=1e-4)
    np.testing.assert_array_equal(np.delete(turned, place, axis=1), np.tile(np.delete(coeff, place), (3, 1)))


class Told:
    """Stands for a reconstruction that is told the truth, or something else in its place."""

    def __init__(self, maker, change=lambda truth: truth):
        self.face_model, self._change = FaceModel(maker.morphable, image_size=maker.size), change
        self._truth = {maker.make(i, k).rgba.tobytes(): maker.make(i, k) for i in range(2) for k in range(2)}

    def __call__(self, photos):
        portraits = [self._truth[photo.rgba.tobytes()] for photo in photos]
        outputs = self.face_model.geometry(np.stack([portrait.coeff for portrait in portraits]))
        albedo = np.stack([portrait.albedo for portrait in portraits]) / 127.5 - 1.0
        outputs |= {"coarse_texture": albedo, "fine_texture": self._change(albedo)}
        return SimpleNamespace(outputs=outputs)


@pytest.fixture(scope="module")
def maker():
    return PortraitMaker(plain_face(), SIZE, 1_000_003)


@pytest.fixture
def no_landmarks(monkeypatch):
    monkeypatch.setattr(quality, "dense_of_crop", lambda rgba: None)


def test_the_truth_passes_every_yardstick(maker, no_landmarks):
    rows = quality.measure(Told(maker), maker, 2, batch_size=2)
    assert len(rows) == 2
    for row in rows:
        assert all(row[f"fine_{view}"] > 60 for view in quality.VIEWS)
        assert row["fine_visible"] < 1e-3 and row["fine_hidden"] < 1e-3 and row["seen"] == 0
        assert row["shape"] < 1e-3 < row["mean_face_shape"] and row["landmarks"] < 0.01 and row["fine_light"] < 1e-4
        assert row["covered"] > 0.99
        assert row["fine_swap"] == pytest.approx(row["fine_own"])  # one albedo in all pictures
        assert row["fine_swap"] == pytest.approx(row["true_swap"], abs=0.01)
        assert row["fine_swap"] > row["mean_face_swap"]
        assert all(row[f"mean_face_{view}"] < 40 for view in quality.VIEWS)


def test_people_do_not_depend_on_how_many_are_reconstructed_together(maker, no_landmarks):
    together, alone = (quality.measure(Told(maker), maker, 2, size) for size in (4, 1))
    for one, other in zip(together, alone, strict=True):
        assert one.keys() == other.keys() and one["coarse_own"] == pytest.approx(other["coarse_own"], abs=1e-3)


def test_a_worse_texture_is_worse_by_every_yardstick_of_texture(maker, no_landmarks):
    half_dark = np.where(np.arange(maker.morphable.vertex_count) % 2, 1.0, 0.5)[:, None]
    told = Told(maker, lambda albedo: (albedo + 1.0) * half_dark - 1.0)
    mean = quality.means(quality.measure(told, maker, 1))
    for name in ("own", "swap", *quality.VIEWS):
        assert mean[f"fine_{name}"] < mean[f"coarse_{name}"] - 3
    for name in ("visible", "hidden"):
        assert mean[f"fine_{name}"] > mean[f"coarse_{name}"] + 3


# ---------------------------------------------------------------- the command
def test_means_pass_over_what_is_not_known():
    rows = [{"a": 1.0, "b": math.nan, "c": math.nan}, {"a": 3.0, "b": 5.0, "c": math.nan}]
    mean = quality.means(rows)
    assert (mean["a"], mean["b"]) == (2.0, 5.0) and math.isnan(mean["c"])


def test_table_has_a_line_for_each_yardstick():
    mean = {"coarse_own": 30.0, "fine_own": 33.25, "mean_face_own": 22.0, "true_own": 36.0,
            "coarse_light": 0.05, "fine_light": 0.0625, "shape": 1.75, "mean_face_shape": 2.5, "landmarks": 1.25}
    lines = [line.split() for line in quality.table(mean).splitlines()]
    assert lines[0][-5:] == ["coarse", "fine", "mean", "face", "true"]
    ends = {line[0]: line[-3:] for line in lines}
    assert lines[1][-4:] == ["30.00", "33.25", "22.00", "36.00"] and ends["shape"] == ["1.75", "1.75", "2.50"]
    assert ends["shading"][-2:] == ["0.050", "0.062"] and ends["landmark"][-2:] == ["1.25", "1.25"]


def test_a_count_of_nobody_is_named(capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(["quality", "--count", "0"])
    assert stopped.value.code == 2 and "--count 0" in capsys.readouterr().err


def test_a_config_that_is_not_there_is_a_users_mistake(capsys):
    assert benchmark.main(["quality", "--config", "nowhere.yaml"]) == 2
    assert "nowhere.yaml" in capsys.readouterr().err


def test_the_demo_world_is_measured_untrained(tmp_path, capsys, monkeypatch):
    from facegcn.assets import landmark_embedding
    learn = landmark_embedding.learn_embedding
    monkeypatch.setattr(landmark_embedding, "learn_embedding", lambda *given, **more: learn(*given, **more, count=60))
    path = tmp_path / "quality.json"
    settings = {"root_dir": tmp_path / "data", "runs_dir": tmp_path / "runs", "demo_vertices": 2000,
                "regressor_start": ""}
    flags = [flag for name, value in settings.items() for flag in ("--set", f"{name}={value}")]
    assert benchmark.main(["--json", str(path), "quality", *flags, "--count", "2"]) == 0
    printed = capsys.readouterr().out
    assert "series 1000005" in printed and "true face and light, from the front, dB" in printed
    written = json.loads(path.read_text())
    assert written["run"] is None and written["count"] == len(written["people"]) == 2
    mean = written["mean"]
    for name, value in mean.items():
        assert value == pytest.approx(np.mean([row[name] for row in written["people"]]))
    assert mean["fine_own"] > 25 and mean["fine_own"] > mean["mean_face_own"] and mean["landmarks"] < 6
    assert mean["seen"] > 0.7 and mean["covered"] > 0.9 and 0 < mean["fine_light"] < 1
    assert 0 < mean["shape"] < 10 and 0 < mean["fine_visible"] < 128
