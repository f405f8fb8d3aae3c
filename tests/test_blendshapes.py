"""Named expressions: what each does to a face, in the model's file, and how expressions are put in their words."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from facegcn.assets import ict
from facegcn.assets.check import check_model
from facegcn.assets.ict_blendshapes import arkit_mixture, eyes_turned, sphere_centre
from facegcn.assets.ict_source import read_source
from facegcn.blendshapes import ARKIT_NAMES, BlendshapeFitter, bounded_minimum, expression_weights
from facegcn.errors import ModelFileError
from facegcn.morphable import MorphableModel
from tests.faces import half_ellipsoid
from tests.movements import Measured, movement
from tests.tiny_ict import TinyFace, acting_expressions

OF_ICT = tuple(name for name in ARKIT_NAMES if name != "tongueOut")
NAMES = ("jawOpen", "jawLeft", "jawRight", "mouthSmileLeft", "mouthSmileRight")


def named_face(names=NAMES):
    """A small model whose shapes lie in the span of its expressions; jawRight undoes jawLeft."""
    model = half_ellipsoid(components=(3, 6, 3))
    mixture = np.random.default_rng(3).normal(size=(6, len(names))).astype(np.float32)
    mixture[:, 2] = -mixture[:, 1]
    return dataclasses.replace(model, blendshapes=model.exp_basis @ mixture, blendshape_names=names)


# ---------------------------------------------------------------- what the names do
@pytest.fixture(scope="module")
def acting(tmp_path_factory):
    """The tiny face whose expressions do what they are called, converted, by subdivision step."""
    tiny = TinyFace(acting_expressions())
    folder = tiny.write(tmp_path_factory.mktemp("acting"))
    return [ict.convert_ict(str(folder), subdivide=step, layout=tiny.layout) for step in (0, 1)]


def test_every_name_of_ict_facekit_has_its_place(acting):
    assert len(set(ARKIT_NAMES)) == 52
    for model in acting:
        assert model.blendshape_names == OF_ICT and model.blendshapes.shape == (model.vertex_count, 3, 51)


@pytest.mark.parametrize("step", [0, 1])
def test_every_target_of_a_stand_in_moves_what_its_name_says(acting, step):
    face = Measured(acting[step])
    for name in OF_ICT:
        found = movement(face, name)
        assert min(found.values()) > 0, (name, found)


@pytest.fixture(scope="module")
def real(shared):
    """ICT-FaceKit itself, converted."""
    return Measured(ict.convert_ict(str(shared / "open_face" / "ict_face_eyes.npz")))


@pytest.mark.parametrize("name", OF_ICT)
def test_every_target_of_ict_facekit_moves_what_its_name_says(real, name):
    found = movement(real, name)
    assert min(found.values()) > 0, found


def test_measures_notice_swapped_sides_and_signs(acting):
    """The measures above are no formality."""
    model = acting[0]
    order = [OF_ICT.index(name.replace("Left", "?").replace("Right", "Left").replace("?", "Right")) for name in OF_ICT]
    swapped = Measured(dataclasses.replace(model, blendshapes=model.blendshapes[:, :, order]))
    negated = Measured(dataclasses.replace(model, blendshapes=-model.blendshapes))
    sided = [name for name in OF_ICT if name.endswith(("Left", "Right"))]
    assert len(sided) == 40
    assert all(min(movement(swapped, name).values()) < 0 for name in sided)
    assert all(min(movement(negated, name).values()) < 0 for name in OF_ICT)


# ---------------------------------------------------------------- conversion
def test_shapes_are_the_source_in_decimetres(acting):
    tiny = TinyFace(acting_expressions())
    model, count = acting[0], tiny.layout.narrow
    for name, parts in {"jawOpen": ["jawOpen"], "mouthSmileLeft": ["mouthSmile_L"],
                        "browInnerUp": ["browInnerUp_L", "browInnerUp_R"],
                        "cheekPuff": ["cheekPuff_L", "cheekPuff_R"]}.items():
        wanted = 0.1 * sum(tiny.modes[part][:count] for part in parts)
        np.testing.assert_allclose(model.blendshapes[:count, :, OF_ICT.index(name)], wanted, atol=1e-5)


def test_mouth_surface_and_subdivision_follow(acting):
    coarse, fine = acting
    k = OF_ICT.index("jawOpen")
    count = coarse.vertex_count
    moved = np.abs(fine.blendshapes[count:, 1, k])  # Loop's new vertices: between the old ones
    assert 0.05 < moved.max() <= np.abs(coarse.blendshapes[:, 1, k]).max() + 1e-6
    # the mouth's surface is linked to the skin: it lies in the same span as the expressions
    flat = coarse.exp_basis[-20:].reshape(60, -1)
    left = coarse.blendshapes[-20:, :, k].ravel()
    assert np.abs(left).max() > 0.05
    solution = np.linalg.lstsq(coarse.exp_basis.reshape(3 * count, -1), coarse.blendshapes[:, :, k].ravel(),
                               rcond=None)[0]
    np.testing.assert_allclose(flat @ solution, left, atol=1e-4)


def test_names_are_mapped_merged_and_ordered():
    names, mixture = arkit_mixture(["cheekPuff_R", "pupilDilate_L", "jawOpen", "cheekPuff_L", "eyeBlink_L",
                                    "mouthLeft"])
    assert names == ("eyeBlinkLeft", "jawOpen", "mouthLeft", "cheekPuff")
    expected = np.zeros((6, 4))
    expected[[4, 2, 5, 0, 3], [0, 1, 2, 3, 3]] = 1
    np.testing.assert_array_equal(mixture, expected)
    assert arkit_mixture(["cheekRaiser_L"])[0] == ("cheekSquintLeft",)
    former, mixture = arkit_mixture(["cheekRaiser_L", "cheekSquint_L"])
    assert former == ("cheekSquintLeft",) and mixture.ravel().tolist() == [0, 1]
    assert arkit_mixture(["strange"])[1].shape == (1, 0)


def test_eyes_turn_where_the_source_leaves_them_and_only_there(rng):
    directions = rng.normal(size=(400, 3))
    directions[:, 2] = np.abs(directions[:, 2])
    front = directions / np.linalg.norm(directions, axis=1, keepdims=True) * 0.12
    vertices = np.vstack([front + (0.3, 0, 0.8), front + (-0.3, 0, 0.8), rng.normal(size=(9, 3))])
    eye = np.arange(809) < 800
    np.testing.assert_allclose(sphere_centre(vertices[:400]), (0.3, 0, 0.8), atol=1e-9)
    names = ("eyeLookOutLeft", "eyeLookUpRight", "jawOpen")
    turned = eyes_turned(np.zeros((809, 3, 3)), names, vertices, eye)
    assert not turned[400:, :, 0].any() and not turned[:400, :, 1].any() and not turned[:, :, 2].any()
    assert not turned[800:].any()
    pole = front[:, 2].argmax()  # a chord of the eyeball's radius by the whole angle
    assert np.linalg.norm(turned[pole, :, 0]) == pytest.approx(2 * 0.12 * np.sin(np.radians(15)), rel=0.05)
    assert turned[pole, 0, 0] > 0.05 and turned[400 + pole, 1, 1] > 0.03
    after = np.linalg.norm(vertices[:400] + turned[:400, :, 0] - (0.3, 0, 0.8), axis=1)
    np.testing.assert_allclose(after, 0.12, rtol=1e-9)
    own = np.full((809, 3, 3), 0.02)  # a source that turns its eyes is left alone
    np.testing.assert_array_equal(eyes_turned(own, names, vertices, eye), own)


def test_a_source_without_known_names_makes_a_model_without_shapes(tmp_path):
    tiny = TinyFace({"strange": acting_expressions()["jawOpen"]})
    model = ict.convert_ict(str(tiny.write(tmp_path)), layout=tiny.layout)
    assert model.blendshapes is None and model.blendshape_names == () and model.part_sizes[1] == 1


def test_the_real_checkout_has_the_shapes_of_its_files(shared):
    model = ict.convert_ict(str(shared / "open_face" / "ict_facekit_sample"))
    source = read_source(str(shared / "open_face" / "ict_facekit_sample"))
    assert model.blendshape_names == ("jawOpen", "mouthSmileLeft")
    np.testing.assert_allclose(model.blendshapes[:source.narrow], 0.1 * source.expression[:source.narrow], atol=4e-6)


# ---------------------------------------------------------------- the file
def test_shapes_travel_in_the_file_and_leave_the_digest_alone(tmp_path):
    model = named_face()
    path = str(tmp_path / "model.npz")
    model.save(path)
    check_model(path)
    again = MorphableModel.load(path)
    np.testing.assert_array_equal(again.blendshapes, model.blendshapes)
    assert again.blendshape_names == NAMES and again.blendshapes.dtype == np.float32
    plain = dataclasses.replace(model, blendshapes=None, blendshape_names=())
    assert again.digest == plain.digest == half_ellipsoid(components=(3, 6, 3)).digest
    assert "blendshapes" not in model.arrays()
    plain.save(path)
    check_model(path)
    assert MorphableModel.load(path).blendshapes is None


@pytest.mark.parametrize(("changes", "words"), [
    ({"blendshape_names": None}, "has 'blendshapes' but lacks blendshape_names: give both"),
    ({"blendshapes": None}, "has 'blendshape_names' but lacks blendshapes: give both"),
    ({"blendshape_names": np.array(NAMES[:4])}, r"'blendshapes' has shape (357, 3, 5), expected (N=357, 3, A=4)"),
    ({"blendshape_names": np.arange(5)}, "'blendshape_names' is int64, expected text"),
    ({"blendshape_names": np.array([NAMES])}, r"'blendshape_names' has shape (1, 5), expected (A)"),
    ({"blendshape_names": np.array(["smile", *NAMES[1:]])}, "has 'smile', which is not among ARKit's 52 names"),
    ({"blendshape_names": np.array([*NAMES[:4], "jawOpen"])}, "has jawOpen more than once"),
    ({"blendshapes": np.zeros((357, 3, 0)), "blendshape_names": np.array([], "U1")}, "'blendshape_names' is empty"),
    ({"blendshapes": np.zeros((9, 3, 5))}, "'blendshapes' has shape (9, 3, 5), expected (N=357, 3, A=5)"),
    ({"blendshapes": np.full((357, 3, 5), np.nan)}, "'blendshapes' has values that are not finite"),
    ({"blendshapes": np.full((357, 3, 5), 2.0)}, "a full activation in 'blendshapes' moves a vertex by 3.46")])
def test_mistakes_in_the_file_are_named(tmp_path, changes, words):
    model = named_face()
    arrays = {**model.arrays(), "blendshapes": model.blendshapes, "blendshape_names": np.array(NAMES), **changes}
    path = str(tmp_path / "face.npz")
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ModelFileError) as caught:
        MorphableModel.load(path)
    assert words in str(caught.value) and path in str(caught.value)


# ---------------------------------------------------------------- expressions in named shapes
def test_bounded_minimum_equals_an_independent_solver(rng):
    state = None
    for trial in range(60):
        size = 12 if trial < 30 else rng.integers(1, 20)
        root = rng.normal(size=(size + 3, size)) * 10.0 ** rng.uniform(-1.5, 0.5, size)
        matrix, vector = root.T @ root, root.T @ rng.normal(size=size + 3) * 3
        state = state if state is not None and len(state) == size else None
        found, state = bounded_minimum(matrix, vector, state)
        factor = np.linalg.cholesky(matrix)
        wanted = lsq_linear(factor.T, np.linalg.solve(factor, vector), (0, 1), method="bvls", tol=1e-14).x
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_weights_that_made_an_expression_come_back(rng):
    model = named_face()
    model = dataclasses.replace(model, blendshapes=model.blendshapes[..., :2], blendshape_names=NAMES[:2])
    flat = model.exp_basis.reshape(-1, 6)
    for wanted in ([0.3, 0.8], [0.0, 0.5], [1.0, 0.0]):
        exp = np.linalg.lstsq(flat, (model.blendshapes @ np.float32(wanted)).ravel(), rcond=None)[0]
        found = expression_weights(model, exp)
        np.testing.assert_allclose(found.weights, wanted, atol=0.02)
        assert found.rms == pytest.approx(100 * np.sqrt((found.residual ** 2).sum(axis=1).mean()), rel=1e-3)
        size = 100 * np.sqrt(((model.exp_basis @ exp) ** 2).sum(axis=1).mean())
        assert found.rms < 0.03 * size


def test_opposing_shapes_do_not_cancel_and_nothing_is_nothing(rng):
    weights, rms = BlendshapeFitter(named_face()).weights(rng.normal(size=(40, 6)))
    assert weights.min() >= 0 and weights.max() <= 1 and (rms >= 0).all()
    assert np.minimum(weights[:, 1], weights[:, 2]).max() < 1e-9, "jawLeft and jawRight at once"
    weights, rms = BlendshapeFitter(named_face()).weights(np.zeros((2, 6)))
    assert not weights.any() and not rms.any()


def test_residual_rms_equals_the_vertices(rng):
    model = named_face()
    exp = rng.normal(size=(5, 6))
    weights, rms = BlendshapeFitter(model).weights(exp)
    for row, w, found in zip(exp, weights, rms):
        left = model.exp_basis @ row - model.blendshapes @ w
        assert found == pytest.approx(100 * np.sqrt((left ** 2).sum(axis=1).mean()), rel=1e-4)
        one = expression_weights(model, row)
        np.testing.assert_allclose(one.weights, w, atol=1e-6)
        np.testing.assert_allclose(one.residual, left, atol=1e-5)


def test_what_no_expression_moves_does_not_count(rng):
    """Eyeballs turn by name only: that must not cost the looking lids."""
    model = named_face()
    still = np.arange(357) < 100
    basis, shapes = model.exp_basis.copy(), model.blendshapes.copy()
    basis[still], shapes[still] = 0, 0
    lids = dataclasses.replace(model, exp_basis=basis, blendshapes=shapes)
    shapes = shapes.copy()
    shapes[still] = 0.3
    eyes = dataclasses.replace(lids, blendshapes=shapes)
    exp = rng.normal(size=6)
    with_eyes = expression_weights(eyes, exp)
    np.testing.assert_allclose(with_eyes.weights, expression_weights(lids, exp).weights, atol=1e-9)
    assert not with_eyes.residual[still].any()


def test_models_and_expressions_that_cannot_be_fitted():
    with pytest.raises(ValueError, match="has no blendshapes"):
        BlendshapeFitter(half_ellipsoid())
    with pytest.raises(ValueError, match="moves what its expressions move"):
        BlendshapeFitter(dataclasses.replace(named_face(), blendshapes=np.zeros((357, 3, 5))))
    for exp in (np.zeros((2, 4)), np.zeros(6), np.full((1, 6), np.nan)):
        with pytest.raises(ValueError, match=r"expected finite expressions \(B, 6\)"):
            BlendshapeFitter(named_face()).weights(exp)
    with pytest.raises(ValueError, match="expected one expression"):
        expression_weights(named_face(), np.zeros((1, 6)))
