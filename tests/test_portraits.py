"""Made portraits: the truth is the truth, whatever is drawn around and over the face."""

import concurrent.futures
import dataclasses
import os
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from facegcn import camera, geometry, lighting, rasterizer
from facegcn.assets import worlds
from facegcn.config import Config
from facegcn.portraits import details, formation, looks
from facegcn.portraits import maker as portraits
from facegcn.portraits import overlay as portrait_overlay
from facegcn.portraits.__main__ import main
from facegcn.portraits.sampling import CoefficientSampler
from facegcn.training import regressor_stage
from tests.plain_face import plain_face, posed

SIZE = 96


@pytest.fixture(scope="module")
def face():
    return plain_face()


@pytest.fixture(scope="module")
def maker(face):
    return portraits.PortraitMaker(face, size=SIZE, seed=5)


@pytest.fixture(scope="module")
def made(maker):
    return [maker.make(index) for index in range(24)]


# -------------------------------------------------------------------- formulas against TensorFlow
def test_numpy_formulas_agree_with_the_tensorflow_ones(face, rng):
    angles = rng.uniform(-1, 1, 3).astype(np.float32)
    np.testing.assert_allclose(formation.rotation_matrix(angles), geometry.rotation_matrix(angles[None])[0],
                               atol=1e-6)
    vertices = (face.mean_shape + rng.normal(0, 0.01, face.mean_shape.shape)).astype(np.float32)
    normals = geometry.vertex_normals_numpy(vertices, face.triangles)
    np.testing.assert_allclose(normals, geometry.vertex_normals(vertices[None], face.triangles)[0], atol=2e-4)
    gamma = rng.normal(0, 0.3, 27).astype(np.float32)
    expected = lighting.shading(normals[None], gamma[None])[0]
    np.testing.assert_allclose(formation.shading(normals, gamma), expected, atol=1e-5)
    pixels = camera.to_pixels(camera.project(vertices[None]), SIZE)[0]
    np.testing.assert_allclose(formation.to_pixels(vertices, SIZE), pixels, atol=1e-3)


def test_clip_coordinates_project_as_the_camera_and_push_only_changes_depth(face):
    near = formation.clip_coordinates(face.mean_shape)
    far = formation.clip_coordinates(face.mean_shape, 0.5)
    expected = camera.project(face.mean_shape[None])[0].numpy()
    for clip in (near, far):
        np.testing.assert_allclose(clip[:, :2] / clip[:, 3:] * (1, -1), expected, atol=1e-5)
    moved = formation.clip_coordinates(face.mean_shape - np.float32((0, 0, 0.5)))
    np.testing.assert_allclose(far[:, 2] / far[:, 3], moved[:, 2] / moved[:, 3], atol=1e-5)
    assert (far[:, 2] > near[:, 2]).all()


# -------------------------------------------------------------------- regions
def _even_odd(points, corners):
    """Whether points (n, 2) lie in a polygon, by counting the edges that a ray to the right crosses."""
    crossings = np.zeros(len(points), int)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0)):
        for n, (x, y) in enumerate(points):
            if (ay > y) != (by > y):
                crossings[n] += x < ax + (y - ay) / (by - ay) * (bx - ax)
    return crossings % 2 == 1


@pytest.mark.parametrize("corners", [3, 6, 12])
def test_regions_are_polygons_of_the_even_odd_rule(corners, rng):
    """Random outlines cross themselves; an eye's or a lip's must not, but nobody promises it."""
    outline = rng.normal(size=(corners, 2))
    points = rng.normal(size=(300, 2))
    distance = details._signed_distance(points, outline)
    np.testing.assert_array_equal(distance < 0, _even_odd(points, outline))


# -------------------------------------------------------------------- one portrait
def test_shapes_types_and_ranges(face, made):
    for portrait in made:
        assert portrait.rgba.shape == (SIZE, SIZE, 4) and portrait.rgba.dtype == np.uint8
        assert set(np.unique(portrait.rgba[..., 3])) <= {0, 255}
        assert portrait.coeff.shape == (face.coefficient_count,) and portrait.coeff.dtype == np.float32
        assert portrait.albedo.shape == (face.vertex_count, 3) and portrait.albedo.dtype == np.float32
        assert 0 <= portrait.albedo.min() and portrait.albedo.max() <= 255
        assert portrait.landmarks.shape == (68, 2) and portrait.landmarks.dtype == np.float32
        assert portrait.visible.shape == (face.vertex_count,) and portrait.visible.dtype == bool
        angles = np.degrees(face.split(portrait.coeff[None]).angles[0])
        assert (np.abs(angles) <= np.array((20, 40, 20)) + 1e-3).all()
    assert np.mean([(p.rgba[..., 3] > 0).mean() for p in made]) > 0.2
    assert np.std([p.rgba[..., :3].mean() for p in made]) > 5  # bright and dim ones


def test_the_same_number_gives_the_same_portrait_in_any_order_and_thread(face, maker, made):
    other = portraits.PortraitMaker(face, size=SIZE, seed=5)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        again = list(pool.map(other.make, range(7, -1, -1)))[::-1]
    for first, second in zip(made, again):
        for field in (field.name for field in dataclasses.fields(portraits.Portrait)):
            np.testing.assert_array_equal(getattr(first, field), getattr(second, field))
    assert np.abs(made[0].coeff - made[1].coeff).max() > 0.1
    elsewhere = portraits.PortraitMaker(face, size=SIZE, seed=6).make(0)
    assert np.abs(made[0].coeff - elsewhere.coeff).max() > 0.1


def test_coefficients_do_not_depend_on_the_size(face, made):
    large = portraits.PortraitMaker(face, size=2 * SIZE, seed=5).make(3)
    np.testing.assert_array_equal(large.coeff, made[3].coeff)
    np.testing.assert_allclose(large.landmarks, 2 * made[3].landmarks, atol=1e-3)


def test_the_face_is_formed_as_the_pipeline_forms_it(face, maker, monkeypatch):
    monkeypatch.setattr(portrait_overlay, "photograph",
                        lambda image, rng: np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8))
    monkeypatch.setattr(looks.GLOSS, "chance", 0.0)  # these three are no part of the pipeline's light
    monkeypatch.setattr(looks.SHADOW, "chance", 0.0)
    monkeypatch.setattr(looks.OCCLUDER, "shadow", (0.0, 0.0))
    close, count = 0, 0
    for number in range(30, 42):
        portrait = maker.make(number)
        vertices, normals = posed(face, portrait)
        gamma = face.split(portrait.coeff[None]).gamma
        colors = lighting.illuminate(portrait.albedo[None] / 255, normals, gamma)
        samples = rasterizer.rasterize(camera.clip_coordinates(vertices, 2 * SIZE, 2 * SIZE), face.triangles,
                                       2 * SIZE, 2 * SIZE)
        picture = rasterizer.interpolate(colors, face.triangles, samples)[0].numpy()
        picture = cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        seen = portrait.rgba[..., 3] == 255
        difference = np.abs(picture[seen] * 255 - portrait.rgba[seen, :3]).max(axis=1)
        close, count = close + (difference < 2).sum(), count + seen.sum()
    assert count > 10000
    assert close / count > 0.99


def test_landmarks_are_the_projected_landmark_vertices(face, made):
    for portrait in made[:6]:
        vertices, _ = posed(face, portrait)
        pixels = camera.to_pixels(camera.project(vertices), SIZE)[0].numpy()
        np.testing.assert_allclose(portrait.landmarks, pixels[face.landmarks], atol=1e-2)


def test_visible_vertices_face_the_camera_and_lie_on_unhidden_pixels(face, made):
    for portrait in made[:8]:
        vertices, normals = posed(face, portrait)
        pixels = camera.to_pixels(camera.project(vertices), SIZE)[0].numpy()
        columns, rows = np.clip(np.floor(pixels).astype(int), 0, SIZE - 1).T
        view = np.array((0, 0, camera.CAMERA_DISTANCE)) - vertices[0].numpy()
        facing = (view * normals[0].numpy()).sum(axis=1)
        assert (portrait.rgba[rows, columns, 3][portrait.visible] == 255).all()
        assert (facing[portrait.visible] > -1e-3).all()
        hidden = (portrait.rgba[rows, columns, 3] == 255) & (facing > 0.3 * np.linalg.norm(view, axis=1))
        assert portrait.visible[hidden].mean() > 0.9  # the rest is behind the nose


def test_visible_vertices_tests_depth():
    near = np.float32([(-0.5, -0.5, 0.5), (0.5, -0.5, 0.5), (0, 0.6, 0.5), (0, 0, 0.3), (0.7, 0.7, 0)])
    triangles = np.int32([(0, 1, 2)])
    ids, barycentrics, _ = rasterizer.rasterize_numpy(formation.clip_coordinates(near), triangles, 64, 64)
    seen = formation.visible_vertices(formation.to_pixels(near, 32), 10 - near[:, 2], np.ones(5, bool), ids,
                                      barycentrics, triangles, np.full((32, 32), 255, np.uint8), 2, 0.03)
    assert not seen[3] and not seen[4]  # behind the triangle; beside it, where nothing is drawn
    np.testing.assert_array_equal(formation.visible_vertices(
        np.float32([(16, 16)]), np.float32([9.49] * 5), np.ones(1, bool), ids, barycentrics, triangles,
        np.full((32, 32), 255, np.uint8), 2, 0.03), [True])


# -------------------------------------------------------------------- sampling
def test_translation_is_what_a_five_point_alignment_leaves(face, made):
    five_mean = np.hstack([face.five_points, np.ones((5, 1))])
    groups = (range(36, 42), range(42, 48), (30,), (48,), (54,))
    for portrait in made:
        points = np.stack([portrait.landmarks[list(g)].mean(axis=0) for g in groups]) * 224 / SIZE
        fit = np.linalg.lstsq(five_mean, points, rcond=None)[0]
        assert np.linalg.norm(fit[:3], axis=0).mean() == pytest.approx(102, rel=0.09)
        np.testing.assert_allclose(fit[3], 112, atol=6.5)


def test_light_is_mostly_from_the_front_and_never_extreme(face, rng):
    sampler = CoefficientSampler(face, 0.7, 1.0)
    front = np.float32([(0, 0, 1), (0, 0.5, 0.866), (0, -0.5, 0.866), (0.6, 0, 0.8), (-0.6, 0, 0.8)])
    shades = np.stack([formation.shading(front, sampler.light(0.55, rng)) for _ in range(200)])
    assert 0.7 < shades.mean() < 1.2
    assert shades[:, 1].mean() > shades[:, 2].mean()  # from above
    assert np.percentile(np.abs(shades[:, 3] - shades[:, 4]).mean(axis=1), 90) > 0.4  # strong side light
    dim, bright = np.percentile(shades.mean(axis=(1, 2)), (2, 98))
    assert dim < 0.8 and bright > 1.0


def test_albedo_stays_in_the_range_of_human_skin(face, rng):
    wild = dataclasses.replace(face, albedo_basis=np.broadcast_to(
        np.float32([(90, 20), (5, 60), (60, -60)]), (face.vertex_count, 3, 2)))
    sampler = CoefficientSampler(wild, 0.7, 1.0)
    for _ in range(100):
        red, green, blue = wild.mean_albedo[0] + wild.albedo_basis[0] @ sampler.person(rng)["tex"]
        assert 55 <= red <= 245 and 0.49 * red < green < 0.94 * red and 0.29 * green < blue < 1.03 * green


# -------------------------------------------------------------------- details
def test_details_lie_outside_the_albedo_basis(face, maker, made):
    basis = face.albedo_basis.reshape(-1, face.albedo_basis.shape[2])
    for portrait in made[:6]:
        offset = (portrait.albedo - face.mean_albedo).ravel()
        best = basis @ np.linalg.lstsq(basis, offset, rcond=None)[0]
        assert np.abs(offset - best).mean() > 1.5


def test_details_are_where_they_belong(face, rng):
    painter = details.AlbedoDetails(face)
    flat = np.full((face.vertex_count, 3), 180.0, np.float32)
    painted = np.mean([painter.paint(flat, np.float32((30, 22, 18)), rng)[0] for _ in range(160)], axis=0)
    darker = 180 - painted.mean(axis=1)
    xy = face.mean_shape[:, :2]
    brow = np.linalg.norm(xy - (0.3, 0.5), axis=1) < 0.06
    lips = np.linalg.norm(xy - (0.12, -0.37), axis=1) < 0.05
    forehead = np.linalg.norm(xy - (0.0, 0.8), axis=1) < 0.1
    cheek = np.linalg.norm(xy - (0.4, -0.1), axis=1) < 0.06
    chin = np.linalg.norm(xy - (0.0, -0.65), axis=1) < 0.07
    assert darker[brow].mean() > darker[forehead].mean() + 25
    assert darker[lips].mean() > darker[forehead].mean() + 10
    assert darker[chin].mean() > darker[cheek].mean() + 5  # beards
    assert (painted[lips] @ (1, -1, 0)).mean() > (painted[forehead] @ (1, -1, 0)).mean() + 5  # redder


def test_patches_of_other_pigment_lie_on_the_skin_only(face, monkeypatch, rng):
    monkeypatch.setattr(looks.SKIN, "strength", (0.0, 0.0))
    monkeypatch.setattr(looks.SKIN, "flush", (0.0, 0.0))
    monkeypatch.setattr(looks.BLUSH, "chance", 0.0)
    painter, shares, kinds = details.AlbedoDetails(face), [], set()
    for chance in [1.0] * 30 + [0.0]:
        monkeypatch.setattr(looks.PATCHES, "chance", chance)
        flat = np.full((face.vertex_count, 3), 150.0, np.float32)
        painter._skin_texture(flat, rng)
        changed = np.abs(flat - 150).max(axis=1) > 3
        assert set(np.flatnonzero(changed)) <= set(face.skin_index)
        shares.append(changed.mean())
        kinds.update(np.sign(flat[changed].mean(axis=1) - 150))
    assert shares[-1] == 0 and 0.02 < np.mean(shares[:-1]) < 0.4 and np.max(shares) < 0.7
    assert kinds == {-1, 1}


def test_nostrils_are_dark_where_the_model_has_any(face, rng):
    assert not details.AlbedoDetails(face)._nostrils.any()
    shape = face.mean_shape
    near = np.flatnonzero((np.abs(shape[:, 0]) < 0.25) & (np.abs(shape[:, 1] + 0.12) < 0.15))
    model = SimpleNamespace(mean_shape=np.concatenate([shape, shape[near] - np.float32((0, 0, 0.25))]),
                            landmarks=face.landmarks, skin_index=np.arange(len(shape)))
    painter = details.AlbedoDetails(model)
    dark = np.flatnonzero(painter._nostrils > 0.5)
    assert dark.size and dark.min() >= len(shape)  # of two layers the hidden one
    places, wings = model.mean_shape[dark], shape[face.landmarks[[32, 34]]]
    assert np.abs(places[:, None, 0] - wings[:, 0]).min(axis=1).max() < 0.1
    flat = np.full((len(model.mean_shape), 3), 180.0, np.float32)
    painted = np.mean([painter.paint(flat, np.float32((30, 22, 18)), rng)[0] for _ in range(20)], axis=0)
    assert painted[dark].mean() < 110


def test_the_input_albedo_is_left_alone(face, rng):
    flat = np.full((face.vertex_count, 3), 180.0, np.float32)
    details.AlbedoDetails(face).paint(flat, np.float32((30, 22, 18)), rng)
    assert (flat == 180).all()


def test_drawn_things_clear_alpha_where_they_are():
    image, alpha = np.full((64, 64, 3), 0.5, np.float32), np.full((64, 64), 255, np.uint8)
    overlay = portrait_overlay.Overlay(image, alpha)
    overlay.fill(np.float32([(10, 10), (30, 10), (30, 30), (10, 30)]), np.zeros(3), 1.0)
    assert image[20, 20].max() < 1e-6 and alpha[20, 20] == 0
    assert image[40, 40].min() == 0.5 and alpha[40, 40] == 255
    assert 400 <= (alpha == 0).sum() <= 23 ** 2  # an outline may touch the pixels it borders on
    overlay.lines([np.float32([(0, 50), (63, 50)])], np.ones(3), 1, 0.5)
    assert (alpha[49:52] == 0).any(axis=0).all()


# -------------------------------------------------------------------- many portraits
def test_bad_arguments_are_refused(face):
    with pytest.raises(ValueError, match="size must be positive"):
        portraits.PortraitMaker(face, size=0)


def test_each_use_has_a_stream_of_its_own(face, made):
    """However many steps stage rec runs, it meets no portrait that is packed or mixed with photos."""
    streams = {stream: portraits.PortraitMaker(face, size=32, seed=5, stream=stream) for stream in portraits.Stream}
    assert len(streams) == 3
    coeff = np.stack([maker.make(index).coeff for maker in streams.values() for index in (0, 1, 2, 1_000_000)])
    np.testing.assert_array_equal(coeff[:3], [portrait.coeff for portrait in made[:3]])
    distances = np.abs(coeff[:, None] - coeff).max(axis=2) + np.eye(len(coeff))
    assert distances.min() > 0.1


def test_each_stage_draws_from_its_stream(face, monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(portraits.PortraitMaker, "__init__", lambda self, *a, **k: made.append((a, k)) or 1 / 0)
    config = Config(root_dir=str(tmp_path), made_portraits=3)
    for use in (lambda: worlds.pack_made_portraits(config, face),
                lambda: regressor_stage.train_regressor(SimpleNamespace(morphable=face), config, None, None)):
        with pytest.raises(ZeroDivisionError):
            use()
    uses = [{*a[3:], *k.values()} for a, k in made]
    assert portraits.Stream.MIXED in uses[0] and portraits.Stream.REGRESSOR in uses[1]


def test_command_line_writes_pictures_landmarks_and_truth(face, made, tmp_path, capsys):
    model, out = tmp_path / "model.npz", tmp_path / "made"
    face.save(str(model))
    code = main(["--model", str(model), "--count", "3", "--first", "1", "--seed", "5",
                 "--size", str(SIZE), "--out", str(out), "--sheet", str(tmp_path / "sheet.png")])
    assert code == 0 and "3 portraits" in capsys.readouterr().out
    names = [f"portrait_00000{k}" for k in (1, 2, 3)]
    assert {p.name for p in out.iterdir()} == {"truth", *(f"{n}.{end}" for n in names for end in ("png", "txt"))}
    bgra = cv2.imread(str(out / "portrait_000002.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(bgra[..., [2, 1, 0, 3]], made[2].rgba)
    np.testing.assert_allclose(np.loadtxt(out / "portrait_000002.txt"), made[2].landmarks, atol=1e-3)
    with np.load(out / "truth" / "portrait_000002.npz", allow_pickle=False) as truth:
        for field in ("coeff", "albedo", "visible", "landmarks"):
            np.testing.assert_array_equal(truth[field], getattr(made[2], field))
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape[0] > SIZE and sheet.shape[1] >= 3 * SIZE


@pytest.mark.parametrize("arguments, message", [
    (["--model", "no.npz"], "no.npz"), (["--count", "0"], "--count"), (["--count", "99999999999"], "--count"),
    (["--size", "7"], "--size"), (["--size", "1000000"], "--size"), (["--first", "-1"], "--first"),
    (["--seed", "-1"], "--seed"), (["--workers", "0"], "--workers"), (["--workers", "100000000000"], "--workers"),
    (["--out", ""], "--out"), (["--sheet", ""], "--sheet"), (["--out", "/proc/x"], "/proc/x"),
    (["--out", "file"], "file")])
def test_command_line_names_what_is_wrong(face, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    face.save("model.npz")
    (tmp_path / "file").write_text("")
    assert main(["--model", "model.npz", "--out", "made", "--count", "1", "--size", "32", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


def test_a_portrait_with_a_truth_is_complete(maker, tmp_path, monkeypatch):
    """The disk is full after the picture: no file is cut, and none says that the portrait is made."""
    monkeypatch.setattr(portraits, "write_text", lambda path, text: (_ for _ in ()).throw(OSError(28, "full", path)))
    with pytest.raises(OSError, match="full"):
        portraits.write_portraits(maker, str(tmp_path), [4])
    assert sorted(os.listdir(tmp_path)) == ["portrait_000004.png"]


# -------------------------------------------------------------------- what is kept of them
@pytest.fixture
def world(face, tmp_path):
    """A config of the demo world around the small model."""
    face.save(str(tmp_path / "model.npz"))
    return Config(root_dir=str(tmp_path), model_file="model.npz", demo_portraits=3, made_portraits=2, img_size=32)


def _stamps(paths):
    return {path: os.stat(path).st_mtime_ns for path in paths}


def test_kept_portraits_are_used_again_and_those_of_other_settings_never(face, world, tmp_path, caplog):
    caplog.set_level("INFO", "facegcn")
    paths = worlds.ensure_demo_portraits(world)
    assert [os.path.basename(path) for path in paths] == [f"portrait_00000{k}.png" for k in range(3)]
    before = _stamps(paths)
    assert _stamps(worlds.ensure_demo_portraits(world)) == before
    assert worlds.ensure_demo_portraits(dataclasses.replace(world, demo_portraits=2)) == paths[:2]
    assert _stamps(worlds.ensure_demo_portraits(dataclasses.replace(world, demo_portraits=4))).items() >= before.items()
    dataclasses.replace(face, skin_index=face.skin_index[:-9]).save(str(tmp_path / "other.npz"))
    others = [dataclasses.replace(world, seed=5), dataclasses.replace(world, img_size=48),
              dataclasses.replace(world, model_file="other.npz")]
    folders = {os.path.dirname(worlds.ensure_demo_portraits(config)[0]) for config in (world, *others)}
    assert len(folders) == 4
    assert cv2.imread(worlds.ensure_demo_portraits(others[1])[0]).shape == (48, 48, 3)
    assert any("stay" in record.message and os.path.dirname(paths[0]) in record.message for record in caplog.records)


def test_portraits_of_another_version_of_the_code_are_not_used(world, monkeypatch):
    before = worlds.ensure_demo_portraits(world)
    monkeypatch.setattr(worlds.files, "code_version", lambda *modules: "changed")
    assert not set(before) & set(worlds.ensure_demo_portraits(world))


@pytest.mark.parametrize("name", ["portrait_000001.png", "truth/portrait_000001.npz"])
def test_a_damaged_portrait_is_made_anew_and_said(world, caplog, name):
    paths = worlds.ensure_demo_portraits(world)
    damaged = os.path.join(os.path.dirname(paths[0]), name)
    with open(damaged, "rb") as file:
        whole = file.read()
    with open(damaged, "wb") as file:
        file.write(whole[:40])
    before = _stamps(paths)
    after = _stamps(worlds.ensure_demo_portraits(world))
    assert [path for path in paths if after[path] != before[path]] == [paths[1]]
    assert "portrait_000001" in caplog.text and "made anew" in caplog.text
    if name.endswith("png"):
        with open(damaged, "rb") as file:
            assert file.read() == whole


@pytest.fixture
def no_networks(monkeypatch):
    """Dense landmarks are not looked for, where they do not matter: it takes a tenth of a second a picture."""
    monkeypatch.setattr("facegcn.photos.alignment.dense_of_crop", lambda rgba, points=None: None)


def test_packed_made_portraits_are_kept_by_all_they_depend_on(face, world, no_networks):
    first = worlds.pack_made_portraits(world, face)
    assert first.truth.shape == (2, face.vertex_count, 3) and first.truth_row.tolist() == [0, 1]
    stamp = _stamps([first.path])
    assert _stamps([worlds.pack_made_portraits(world, face).path]) == stamp
    others = [(dataclasses.replace(world, seed=5), face), (dataclasses.replace(world, img_size=48), face),
              (dataclasses.replace(world, made_portraits=3), face),
              (world, dataclasses.replace(face, landmarks=np.roll(face.landmarks, 1))),
              (world, dataclasses.replace(face, skin_index=face.skin_index[5:]))]
    assert len({first.path, *(worlds.pack_made_portraits(*other).path for other in others)}) == 6


@pytest.mark.parametrize("ending, damage", [(".bin", "cut"), (".bin", "flip"), (".records.npz", "cut"),
                                            (".truth.npz", "cut"), (".truth.npz", "gone"), (".records.npz", "gone")])
def test_damaged_packed_portraits_are_made_anew_and_said(face, world, no_networks, caplog, ending, damage):
    first = worlds.pack_made_portraits(world, face)
    pixels, truth = first.photos([0, 1]).numpy(), first.truth
    path = first.path.removesuffix(".bin") + ending
    with open(path, "rb") as file:
        content = bytearray(file.read())
    os.remove(path)
    if damage != "gone":
        content[-9] ^= 4
        with open(path, "wb") as file:
            file.write(content[:-3] if damage == "cut" else content)
    again = worlds.pack_made_portraits(world, face)
    np.testing.assert_array_equal(again.photos([0, 1]), pixels)
    np.testing.assert_array_equal(again.truth, truth)
    assert "made anew" in caplog.text and os.path.basename(path) in caplog.text


def test_the_procedural_face_is_kept_by_its_code_and_a_damaged_one_made_anew(face, tmp_path, monkeypatch, caplog):
    from facegcn.demo import face as demo_face

    calls = []
    monkeypatch.setattr(demo_face, "make_demo_face", lambda **arguments: calls.append(arguments) or face)
    config = Config(root_dir=str(tmp_path), demo_vertices=2000)
    for _ in range(2):
        assert worlds.load_morphable(config).digest == face.digest
    assert len(calls) == 1
    kept, = tmp_path.glob("demo_face-2000-*.npz")
    kept.write_bytes(kept.read_bytes()[:500])
    assert worlds.load_morphable(config).digest == face.digest and len(calls) == 2
    assert kept.name in caplog.text and "made anew" in caplog.text
    worlds.load_morphable(dataclasses.replace(config, demo_vertices=2001))
    monkeypatch.setattr(worlds.files, "code_version", lambda *modules: "changed")
    worlds.load_morphable(config)
    assert len(calls) == 4 and len(list(tmp_path.glob("demo_face-*.npz"))) == 3
