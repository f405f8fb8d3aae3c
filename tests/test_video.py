"""A film of one person: its movement is found, smoothed, and written; bad films are told in one message.

The detector is a stand-in that knows the truth: each frame holds its number in its corner.
"""

import dataclasses
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import main
from facegcn import camera
from facegcn.animation import read_clip
from facegcn.export.photo_camera import pixels_of
from facegcn.geometry import rotate
from facegcn.landmark_fitting import project, rotation
from facegcn.landmarks import FIVE_POINT_DENSE
from facegcn.lighting import shading
from facegcn.photos import alignment, litert, tracking
from facegcn.photos.dense_landmarks import DenseLandmarks, Look
from facegcn.photos.detection import Face
from facegcn.photos.frames import open_film
from facegcn.photos.warping import inverse, similarity, turn
from facegcn.reconstruction.film_camera import FilmCamera
from facegcn.reconstruction.frame_fitting import Fitted, person_model, turned_light
from facegcn.reconstruction.video_files import FilmFiles
from facegcn.reconstruction.video_track import FILLED, MISSING, SEEN, Track
from facegcn.surface_points import dense_points
from tests import clips
from tests.faces import embedded, half_ellipsoid
from tests.gltf_files import accessor, glb_parts

SIZE, COUNT, RATE = 96, 24, 12.0
NAMES = ("jawOpen", "browInnerUp", "mouthSmileLeft", "eyeBlinkRight")
NO_FACE = 8 * COUNT + 40  # the number of a frame without one
JITTER = 0.6  # pixels, standard deviation of the stand-in's landmarks


# ---------------------------------------------------------------- parts
@pytest.mark.parametrize("degrees", [0.0, 40.0, -120.0])
def test_a_pose_before_another_camera_shows_the_same_picture(rng, degrees):
    shape, pose = rng.uniform(-0.8, 0.8, (60, 3)), np.array([0.1, -0.3, 0.05, 0.1, -0.2, 0.4])
    where = similarity(0.45, degrees, np.array([410.0, 200.0]), np.full(2, 112.0))
    film = FilmCamera.of([similarity(0.5, 0.0, np.zeros(2), np.zeros(2))], 224, (640, 480))
    found = film.pose(shape, pose, where)

    def seen(at):
        return project(shape, np.zeros((60, 3, 0)), at, slopes=False)[0]

    back = inverse(where)
    pixels = seen(pose) @ back[:, :2].T + back[:, 2]
    world = shape @ rotation(found[:3])[0].T + found[3:]
    assert np.abs(film.pixels(world) - pixels).max() < 3.0  # another perspective: not quite the same
    np.testing.assert_allclose(pixels_of(film.camera(), world, film.size), film.pixels(world), atol=1e-3)
    roll = np.eye(3)
    roll[:2, :2] = turn(degrees)  # the crop is turned upright, the film is not
    tilted = rotation(found[:3])[0] @ (roll @ rotation(pose[:3])[0]).T
    assert np.degrees(np.arccos(np.clip((np.trace(tilted) - 1) / 2, -1, 1))) < 25


def test_light_turns_with_its_axes(rng):
    gamma, spin = rng.normal(size=27) * 0.3, rotation(np.array([0.3, -0.5, 0.2]))[0]
    normals = rng.normal(size=(50, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    before = shading(normals[None], gamma[None].astype(np.float32))
    after = shading((normals @ spin.T)[None], turned_light(gamma, spin)[None].astype(np.float32))
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_a_persons_own_model_is_the_person(rng):
    model = half_ellipsoid()
    coeff = rng.normal(size=model.coefficient_count).astype(np.float32)
    parts = model.split(coeff)
    own, beside = person_model(model, coeff, np.full((model.vertex_count, 3), 0.5))
    assert own.part_sizes[:3] == (0, model.part_sizes[1], 0)
    wanted = np.asarray(model.vertices(parts.id[None], parts.exp[None]))[0]
    found = np.asarray(own.vertices(np.zeros((1, 0), np.float32), parts.exp[None]))[0]
    np.testing.assert_allclose(found + beside, wanted, atol=1e-5)


def moving(count=60, gap=()):
    """A track of an even movement, measured with noise, not in some frames."""
    rng, track = np.random.default_rng(0), Track.empty(np.arange(count) / 30.0, 2)
    seconds = track.times
    for index in set(range(count)) - set(gap):
        track.see(index, Fitted(np.array([np.sin(3 * seconds[index]), 0.0]) + 0.05 * rng.normal(size=2),
                                np.array([0.0, 0.4 * np.sin(2 * seconds[index]), 0.0]) + 0.02 * rng.normal(size=3),
                                np.zeros(3), np.zeros(27), 1.0, 1.0))
    return track


def test_short_gaps_are_filled_and_long_ones_are_marked():
    short, long = moving(gap=range(20, 30)).smoothed(), moving(gap=range(20, 40)).smoothed()
    assert set(short.state[20:30]) == {FILLED} and (short.state == SEEN).sum() == 50
    np.testing.assert_allclose(short.exp[20:30, 0], np.sin(3 * short.times[20:30]), atol=0.15)
    assert set(long.state[20:40]) == {MISSING} and np.isnan(long.exp[20:40]).all()
    assert np.isfinite(long.exp[long.known]).all()
    assert moving(gap=range(3)).smoothed().state[:3].tolist() == [MISSING] * 3


def test_smoothing_brings_a_track_nearer_to_the_truth():
    track = moving()
    after = track.smoothed()
    truth = 0.4 * np.sin(2 * track.times)
    errors = [np.sqrt(np.mean((one.angles[:, 1] - truth) ** 2)) for one in (track, after)]
    assert errors[1] < 0.6 * errors[0]
    assert np.abs(np.diff(after.angles, 2, axis=0)).mean() < 0.2 * np.abs(np.diff(track.angles, 2, axis=0)).mean()


def test_what_was_somebody_elses_is_forgotten():
    track = moving()
    track.unsee(slice(10, 60))
    assert (track.state == SEEN).sum() == 10 and np.isnan(track.angles[10:]).all()


def test_frames_of_uneven_times_come_at_an_even_rate():
    film = SimpleNamespace(times=np.array([0.0, 0.1, 0.4, 0.5, 0.52, 0.6]), step=0.1)
    files = FilmFiles("x", film, None, None, None, None, None)
    assert list(files._evenly((k, k) for k in range(6))) == [0, 1, 1, 1, 2, 4, 5]


# ---------------------------------------------------------------- a film from end to end
def person_of_the_film():
    model = embedded(half_ellipsoid(33, 41), noise=0.6)
    corners = model.mean_shape[model.triangles[:, 0]] - model.mean_shape.mean(axis=0)
    for group, point in zip(FIVE_POINT_DENSE, model.five_points):  # what alignment takes for eyes, nose and mouth
        for row in group:
            model.embedding.triangles[row] = np.argmin(((corners - point) ** 2).sum(axis=1))
            model.embedding.barycentrics[row] = (1.0, 0.0, 0.0)
    return dataclasses.replace(model, blendshapes=np.ascontiguousarray(4.0 * model.exp_basis), blendshape_names=NAMES)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Flags of a small world, a folder for films, the model and the coefficients of a film's frames."""
    folder = tmp_path_factory.mktemp("world")
    model = person_of_the_film()
    model.save(str(folder / "model.npz"))
    (folder / "small.yaml").write_text(yaml.safe_dump({
        "model_file": "model.npz", "root_dir": str(folder), "runs_dir": str(folder / "runs"), "img_size": SIZE,
        "regressor_pixels": 32, "regressor_start": "", "test_batch_size": 2, "fit": True}))
    seconds = np.arange(COUNT) / RATE
    person = np.zeros(model.coefficient_count, np.float32)
    model.split(person).id[:] = 0.5
    moves = np.zeros((COUNT, 4))
    moves[:, 0], moves[:, 2] = 2.0 * clips.hump(seconds, 0.8, 0.6), 1.5 * clips.hump(seconds, 1.4, 0.5)
    coeff = clips.coefficients(model, COUNT, RATE, moves, person)
    return ["--config", str(folder / "small.yaml"), "--mode", "test", "--texture", "256"], folder, model, coeff


def write_film(path, model, coeff, numbers):
    """A film whose frames hold their numbers."""
    def pictures():
        for number, picture in zip(numbers, clips.drawn(model, coeff, SIZE)):
            picture[:16, :16] = number
            yield picture
    clips.write_clip(path, pictures(), RATE)


@pytest.fixture
def detector(world, monkeypatch):
    """The stand-in, in place of the networks."""
    _, _, model, coeff = world
    rng, surface, everything = np.random.default_rng(0), dense_points(model), np.ones(468, np.float32)
    parts = model.split(coeff)
    world_points = np.asarray(rotate(model.vertices(parts.id, parts.exp), parts.angles)) + parts.translation[:, None]
    pixels = np.asarray(camera.to_pixels(camera.project(world_points), SIZE))

    def dense(image):
        number = round(float(image[4:12, 4:12].mean()) / 8.0)
        if number >= COUNT:
            return None
        points = np.full((468, 2), SIZE / 2.0, np.float32)
        points[surface.rows] = surface.of(pixels[number]) + JITTER * rng.normal(size=(len(surface.rows), 2))
        return DenseLandmarks(points, np.zeros(468, np.float32), everything, everything > 0)

    def find(image):
        found = dense(image)
        return [] if found is None else [Face(found.five_points(), found, (9.0, 9.0, 70.0, 70.0), 1.0)]

    def look(picture, region):
        found = dense(picture.level(1.0)[0])
        return Look(np.zeros((468, 3)), 0.0) if found is None else Look(
            np.column_stack([found.points, found.depth]).astype(np.float64), 30.0)

    monkeypatch.setattr(alignment, "find_faces", find)
    monkeypatch.setattr(tracking, "find_faces", find)
    monkeypatch.setattr(tracking, "look", look)
    monkeypatch.setattr(tracking, "landmarks_of", lambda picture, seen: dense(picture.level(1.0)[0]))
    monkeypatch.setattr(litert, "check", lambda: None)


def run(world, film, output, *more):
    return main.main([*world[0], "--input", str(film), "--output", str(output), *more])


def test_a_film_becomes_an_animation_weights_and_an_overlay(world, detector, tmp_path):
    _, _, model, coeff = world
    numbers = 8 * np.arange(COUNT)
    numbers[15:18] = NO_FACE
    write_film(tmp_path / "me.mp4", model, coeff, numbers)
    out = tmp_path / "out"
    assert run(world, tmp_path / "me.mp4", out) == 0
    with np.load(out / "me_film.npz") as arrays:
        found = dict(arrays)
    assert found["found"][:15].tolist() == [SEEN] * 15 and found["found"][19:].tolist() == [SEEN] * 5
    assert found["found"][15:18].tolist() == [FILLED] * 3  # and one more, in which it is not searched
    truth = model.split(coeff)
    assert np.abs(found["coeff_exp"] - truth.exp).mean() < 0.5
    assert np.corrcoef(found["coeff_exp"][:, 0], truth.exp[:, 0])[0, 1] > 0.8
    assert np.corrcoef(found["coeff_angles"][:, 1], truth.angles[:, 1])[0, 1] > 0.95
    jitter = [np.nanmean(np.abs(np.diff(found[f"{kind}_angles"][:15], 2, axis=0))) for kind in ("measured", "coeff")]
    assert jitter[1] < jitter[0]

    clip = read_clip(str(out / "me_weights.csv"))
    assert clip.names == tuple(sorted(NAMES, key=clip.names.index)) and len(clip.times) == COUNT
    np.testing.assert_allclose(clip.head, found["coeff_angles"], atol=1e-4)
    tree, binary = glb_parts(out / "me_animated.glb")
    paths = {channel["target"]["path"] for channel in tree["animations"][0]["channels"]}
    assert paths == {"weights", "rotation", "translation"} and tree["cameras"][0]["name"] == "film"
    times = accessor(tree, binary, tree["animations"][0]["samplers"][0]["input"])
    np.testing.assert_allclose(times.ravel(), found["times"], atol=1e-5)

    before, after = (dict(open_film(str(path)).frames()) for path in (tmp_path / "me.mp4", out / "me_overlay.mp4"))
    assert len(after) == COUNT
    changed = np.abs(after[5].astype(float) - before[5]).mean(axis=2)
    assert changed[30:66, 30:66].mean() < 30 and changed[:8, 40:].mean() < 6  # the face looks as it did, the rest is it
    rows = json.loads((out / "metrics.json").read_text())
    assert "me" in str(rows) and (out / "me_rig.glb").exists() and (out / "report.html").exists()


def test_a_film_of_one_frame_is_a_photo_that_moves_little(world, detector, tmp_path):
    write_film(tmp_path / "one.mp4", world[2], world[3][:1], [0])
    assert run(world, tmp_path / "one.mp4", tmp_path / "out") == 0
    assert len(open_film(str(tmp_path / "out" / "one_overlay.mp4"))) == 1
    assert (tmp_path / "out" / "one_animated.glb").exists()


def test_a_film_without_a_face_leaves_nothing(world, detector, tmp_path, capsys):
    write_film(tmp_path / "none.mp4", world[2], world[3][:6], [NO_FACE] * 6)
    assert run(world, tmp_path / "none.mp4", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "no face was found" in said and "Traceback" not in said
    assert not os.listdir(tmp_path / "out")


def test_what_is_no_film_and_flags_of_photos_are_told(world, tmp_path, capsys):
    (tmp_path / "x.mp4").write_bytes(b"nothing of a film")
    assert run(world, tmp_path / "x.mp4", tmp_path / "out") == 2
    assert "no film that can be read" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert run(world, tmp_path / "x.mp4", tmp_path / "out", "--person") == 2
    assert "--person is for photos" in capsys.readouterr().err


def test_a_model_without_named_expressions_has_no_animation(world, detector, tmp_path, capsys):
    flags, folder, model, coeff = world
    plain = dataclasses.replace(model, blendshapes=None, blendshape_names=())
    plain.save(str(folder / "plain.npz"))
    write_film(tmp_path / "me.mp4", model, coeff[:8], 8 * np.arange(8))
    assert run((flags,), tmp_path / "me.mp4", tmp_path / "out", "--set", "model_file=plain.npz") == 0
    assert "no named expressions" in capsys.readouterr().err
    assert not (tmp_path / "out" / "me_animated.glb").exists() and (tmp_path / "out" / "me_overlay.mp4").exists()
