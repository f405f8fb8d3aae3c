"""Eyeballs and teeth beside a face: read from a stand-in checkout, in the model's file, moving as they should."""

import dataclasses

import numpy as np
import pytest

from facegcn.assets import ict
from facegcn.assets.check import check_model
from facegcn.assets.ict_source import read_source
from facegcn.errors import ModelFileError
from facegcn.model_format import PART_ARRAYS
from facegcn.morphable import MorphableModel
from tests.tiny_ict import TinyFace, acting_expressions

NAMES = ("eyeballLeft", "eyeballRight", "upperTeeth", "lowerTeeth")


@pytest.fixture(scope="module")
def tiny():
    return TinyFace(acting_expressions())


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    return str(tiny.write(tmp_path_factory.mktemp("parts")))


@pytest.fixture(scope="module")
def models(tiny, folder):
    """Converted, by subdivision step."""
    return [ict.convert_ict(folder, subdivide=step, layout=tiny.layout) for step in (0, 1)]


def moved(model, part, shape):
    """Displacements of a part by a named shape."""
    return model.parts.blendshapes[model.parts.part(part)[0]][..., model.blendshape_names.index(shape)]


def test_parts_are_those_of_the_files(tiny, models):
    for model in models:
        parts = model.parts
        assert parts.names == NAMES
        for name, start, stop in tiny.layout.parts:
            chosen, triangles = parts.part(name)
            np.testing.assert_allclose(parts.vertices[chosen], 0.1 * tiny.vertices[start:stop], atol=1e-5)
            assert triangles.min() == 0 and triangles.max() == stop - start - 1
            assert len(triangles) == 2 * sum(start <= face[0] < stop for face in tiny.faces)
        np.testing.assert_array_equal(parts.vertices, models[0].parts.vertices)
    with pytest.raises(ValueError, match="no part 'nose'; it has eyeballLeft"):
        models[0].parts.part("nose")


def test_parts_follow_the_identity(tiny, folder, models, rng):
    """Coefficients of the model move parts as the source's own coefficients do."""
    source = read_source(folder, tiny.layout)
    own = rng.normal(size=3)
    kept = np.flatnonzero(source.eye | (np.arange(len(source.mean)) < source.narrow))
    wanted = 0.1 * (source.identity[kept] @ own)
    basis = models[0].id_basis[:len(kept)].reshape(3 * len(kept), -1)
    id = np.linalg.lstsq(basis, wanted.ravel(), rcond=None)[0]
    expected = 0.1 * (source.parts.vertices + source.parts.identity @ own)
    for model in models:  # coefficients mean the same on both
        np.testing.assert_allclose(model.parts.shaped(id), expected, atol=2e-5)
    np.testing.assert_allclose(models[0].parts.shaped(np.zeros(3)), models[0].parts.vertices)


def test_jaw_moves_the_lower_teeth_alone(models):
    lower, upper = moved(models[0], "lowerTeeth", "jawOpen"), moved(models[0], "upperTeeth", "jawOpen")
    np.testing.assert_allclose(lower, np.broadcast_to((0, -0.25, -0.05), lower.shape), atol=1e-5)
    assert not upper.any() and not moved(models[0], "lowerTeeth", "mouthSmileLeft").any()


def test_whole_eyeballs_turn_about_their_centres(models):
    for side, sign in (("Left", 1), ("Right", -1)):
        chosen, _ = models[0].parts.part(f"eyeball{side}")
        ball, centre = models[0].parts.vertices[chosen], np.array([sign * 0.3, 0.35, 0.82])
        step = moved(models[0], f"eyeball{side}", f"eyeLookOut{side}")
        np.testing.assert_allclose(np.linalg.norm(ball + step - centre, axis=1), 0.2, atol=1e-5)
        front, back = ball[:, 2].argmax(), ball[:, 2].argmin()
        assert sign * step[front, 0] == pytest.approx(0.1, rel=0.02) == -sign * step[back, 0]
        assert not moved(models[0], f"eyeball{side}", f"eyeLookOut{'Right' if side == 'Left' else 'Left'}").any()
        assert moved(models[0], f"eyeball{side}", f"eyeLookUp{side}")[front, 1] > 0.05


def test_what_the_face_gives_way_with(models):
    """The eyes' fronts alone are replaced; the mouth's surface alone goes back."""
    for model in models:
        corners = np.unique(model.triangles[model.parts.replaces])
        centres = np.where(model.mean_shape[corners, :1] > 0, 1, -1) * (0.3, 0, 0) + (0, 0.35, 0.82)
        distance = np.linalg.norm(model.mean_shape[corners] - centres, axis=1)
        assert len(corners) > 100 and 0.18 < distance.min() <= distance.max() < 0.2001
        assert not np.isin(corners, model.skin_index).any()
        back = np.flatnonzero(model.parts.recess > 1e-6)
        assert len(back) and model.parts.recess.min() >= -1e-6 and model.parts.recess.max() < 0.4
        assert np.abs(model.mean_shape[back, :2] - (0, -0.4)).max() < 0.4
        assert not np.isin(back, corners).any()


def test_colors_tell_iris_white_and_teeth(models):
    parts = models[0].parts
    chosen, _ = parts.part("eyeballLeft")
    offset = np.linalg.norm(parts.vertices[chosen, :2] - (0.3, 0.35), axis=1)
    front = parts.vertices[chosen, 2] > 0.9
    assert parts.colors[chosen][front & (offset < 0.02)].max() < 60
    assert parts.colors[chosen][front & (offset > 0.1)].min() > 100
    assert parts.colors[parts.part("upperTeeth")[0]].min() > 180


def test_file_round_trip_and_digest(tmp_path, models):
    path = str(tmp_path / "model.npz")
    models[0].save(path)
    check_model(path)
    again = MorphableModel.load(path)
    for name, array in vars(models[0].parts).items():
        np.testing.assert_array_equal(getattr(again.parts, name), array)
    assert again.parts.of.dtype == np.int32 and again.parts.identity.dtype == np.float32
    plain = dataclasses.replace(models[0], parts=None)
    assert again.digest == plain.digest
    plain.save(path)
    assert MorphableModel.load(path).parts is None


@pytest.mark.parametrize(("changes", "words"), [
    ({"part_colors": None}, "has 'part_names' but lacks part_colors: give all arrays 'part_...'"),
    ({"blendshapes": None, "blendshape_names": None}, "has parts ('part_...') but no 'blendshapes' that move them"),
    ({"part_vertices": np.zeros((7, 3))}, "array 'part_vertices' has shape (7, 3), expected (M="),
    ({"part_identity": np.zeros((4, 4, 3, 9))}, "has shape (4, 4, 3, 9), expected (Q=4, 4, 3, Ki=3)"),
    ({"part_names": np.arange(4)}, "array 'part_names' is int64, expected text"),
    ({"part_triangles": np.full((3, 3), 10 ** 6)}, "array 'part_triangles' must hold whole numbers from 0 to"),
    ({"part_replaces": np.array([-1])}, "array 'part_replaces' must hold whole numbers from 0 to"),
    ({"part_recess": np.zeros(5)}, "array 'part_recess' has shape (5,), expected (N=")])
def test_mistakes_in_the_file_are_named(tmp_path, models, changes, words):
    model = models[0]
    arrays = {**model.arrays(), "blendshapes": model.blendshapes, "blendshape_names": model.blendshape_names,
              **{name: getattr(model.parts, name.removeprefix("part_")) for name in PART_ARRAYS}, **changes}
    path = str(tmp_path / "face.npz")
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ModelFileError) as caught:
        MorphableModel.load(path)
    assert words in str(caught.value)


def test_extract_and_checkout_without_parts(tmp_path, tiny, folder):
    bare = dataclasses.replace(tiny.layout, parts=(("upperTeeth", 10 ** 6, 2 * 10 ** 6),))
    assert read_source(folder, bare).parts is None
    assert ict.convert_ict(folder, layout=bare).parts is None
