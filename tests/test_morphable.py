"""The morphable model: evaluation against plain NumPy, its file format, and every mistake by itself."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facegcn import files
from facegcn.assets.check import check_model
from facegcn.errors import ModelFileError
from facegcn.landmarks import FIVE_POINT_LANDMARKS
from facegcn.model_format import ARRAYS, check_model_file
from facegcn.morphable import MorphableModel
from tests.faces import half_ellipsoid


def arrays(rng=None):
    """Arrays of a valid model of 357 vertices."""
    values = half_ellipsoid(components=(5, 4, 6)).arrays()
    return {**values, "uv": np.random.default_rng(1).uniform(size=(357, 2)).astype(np.float32)}


def test_evaluation_against_loops(rng):
    model = MorphableModel(**arrays())
    coeff = rng.normal(size=(2, model.coefficient_count)).astype(np.float32)
    parts = model.split(coeff)
    assert [p.shape[1] for p in parts] == [5, 4, 6, 3, 27, 3]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), coeff)
    shape, albedo = model.vertices(parts.id, parts.exp), model.albedo(parts.tex)
    for b in range(2):
        for v in range(0, 357, 7):
            point = (model.mean_shape[v] + model.id_basis[v] @ parts.id[b] + model.exp_basis[v] @ parts.exp[b]
                     - model.mean_shape.mean(axis=0))
            np.testing.assert_allclose(shape[b, v], point, rtol=1e-4, atol=1e-5)
            colour = np.clip(model.mean_albedo[v] + model.albedo_basis[v] @ parts.tex[b], 0, 255)
            np.testing.assert_allclose(albedo[b, v], colour, rtol=1e-4, atol=1e-3)


def test_wrong_coefficient_count():
    model = MorphableModel(**arrays())
    with pytest.raises(ValueError, match="expected 48 coefficients"):
        model.split(np.zeros((1, 47), np.float32))


def test_five_points_are_means_of_landmarks():
    model = MorphableModel(**arrays())
    centred = model.mean_shape - model.mean_shape.mean(axis=0)
    for point, group in zip(model.five_points, FIVE_POINT_LANDMARKS):
        np.testing.assert_allclose(point, centred[model.landmarks[list(group)]].mean(axis=0), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------- sound files
def _written(tmp_path, **changes):
    """Path of a model file; a change of None leaves an array out."""
    path = str(tmp_path / "face.npz")
    np.savez(path, **{name: value for name, value in {**arrays(), **changes}.items() if value is not None})
    return path


def test_file_round_trip(tmp_path):
    model = MorphableModel(**arrays(), made_by="bfm09 0123456789ab")
    model.save(str(tmp_path / "sub" / "model.npz"))
    again = MorphableModel.load(str(tmp_path / "sub" / "model.npz"))
    for name, value in vars(model).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["model.npz"]


def test_every_array_counts_in_the_digest():
    values = arrays()
    digest = MorphableModel(**values).digest
    assert MorphableModel(**values).digest == digest and len(digest) == 12
    for name, value in values.items():
        changed = np.array(value)
        changed.flat[0] = changed.flat[0] + 1 if changed.flat[0] < 30 else changed.flat[0] - 1
        assert MorphableModel(**{**values, name: changed}).digest != digest, name
    assert MorphableModel(**{**values, "uv": None}).digest != digest


def test_uv_may_be_absent_and_unknown_arrays_are_left_alone(tmp_path):
    path = _written(tmp_path, uv=None, notes=np.array("mine"))
    check_model(path)
    model = MorphableModel.load(path)
    assert model.uv is None and model.made_by == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float64, ">f4"])
def test_check_and_loader_accept_the_same_types(tmp_path, dtype):
    """The check refused a uint8 albedo that the loader took."""
    path = _written(tmp_path, mean_albedo=arrays()["mean_albedo"].astype(dtype))
    check_model(path)
    model = MorphableModel.load(path)
    assert model.mean_albedo.dtype == np.float32 and model.mean_albedo.max() > 200


@pytest.mark.parametrize("dtype", [np.uint16, np.int64, np.float64])
def test_vertex_numbers_of_any_type(tmp_path, dtype):
    path = _written(tmp_path, **{name: arrays()[name].astype(dtype) for name in ARRAYS if ARRAYS[name].index})
    check_model(path)
    assert MorphableModel.load(path).digest == MorphableModel(**arrays()).digest


@pytest.mark.parametrize("basis", ["id_basis", "exp_basis", "albedo_basis"])
def test_a_basis_may_have_no_components(tmp_path, basis):
    path = _written(tmp_path, **{basis: np.zeros((357, 3, 0), np.float32)})
    check_model(path)
    model = MorphableModel.load(path)
    parts = model.split(np.ones((2, model.coefficient_count), np.float32))
    assert model.vertices(parts.id, parts.exp).shape == model.albedo(parts.tex).shape == (2, 357, 3)
    model.save(path)
    assert MorphableModel.load(path).part_sizes == model.part_sizes


# ---------------------------------------------------------------- mistakes
def _scaled(factor):
    return {name: arrays()[name] * np.float32(factor) for name in ("mean_shape", "id_basis", "exp_basis")}


def _turned(*rows):
    """x, y and z replaced by signed axes."""
    turn = np.array(rows, np.float32)
    return {"mean_shape": arrays()["mean_shape"] @ turn.T}


def _swapped_eyes():
    marks = arrays()["landmarks"]
    return {"landmarks": marks[[*range(36), *range(42, 48), *range(36, 42), *range(48, 68)]]}


FORMAT_MISTAKES = [
    ({"id_basis": None, "landmarks": None}, "lacks the arrays id_basis, landmarks"),
    ({"exp_basis": np.zeros((39, 3, 4))}, r"'exp_basis' has shape \(39, 3, 4\), expected \(N=357, 3, Ke\)"),
    ({"mean_shape": np.zeros((357, 2))}, r"'mean_shape' has shape \(357, 2\)"),
    ({"mean_shape": np.float32(3)}, r"'mean_shape' has shape \(\)"),
    ({"landmarks": np.zeros(51, int)}, r"'landmarks' has shape \(51,\), expected \(68\)"),
    ({"triangles": np.zeros((0, 3), int)}, "'triangles' is empty"),
    ({"triangles": np.full((3, 3), 357)}, r"'triangles' has an index outside 0..356: 357..357"),
    ({"triangles": half_ellipsoid().triangles + 1}, "outside 0..356: 1..357; numbers count from 0: subtract 1"),
    ({"triangles": np.full((3, 3), 2 ** 32 + 1)}, "'triangles' has an index outside"),
    ({"symmetry_pairs": np.full((3, 2), -1)}, "'symmetry_pairs' has an index outside"),
    ({"skin_index": np.array([0.5])}, "'skin_index' must hold vertex numbers, but has some that are not whole"),
    ({"skin_index": np.array([np.nan])}, "'skin_index' has values that are not finite"),
    ({"mean_albedo": np.full((357, 3), np.nan)}, "'mean_albedo' has values that are not finite"),
    ({"mean_shape": np.full((357, 3), np.inf)}, "'mean_shape' has values that are not finite"),
    ({"mean_shape": np.full((357, 3), 1e200)}, "'mean_shape' has values that are not finite"),
    ({"mean_albedo": np.full((357, 3), "red")}, "'mean_albedo' is <U3, expected float32"),
    ({"skin_index": np.ones(357, bool)}, "'skin_index' is bool, expected int32"),
    ({"mean_shape": np.zeros((357, 3), complex)}, "mean_shape.* is .*complex128")]
CONVENTION_MISTAKES = [
    (_scaled(100), r"58.57 apart, .*multiply 'mean_shape', 'id_basis' and 'exp_basis' by 0.01$"),
    (_scaled(10), "5.857.* by 0.1$"),
    (_scaled(0.1), "0.05857.* by 10$"),
    (_scaled(1e5), r" by 1e-05$"),
    (_scaled(3), "1.757.* by 0.36$"),
    ({"mean_shape": np.zeros((357, 3))}, "the eyes .* lie 0 apart.*are the landmarks in iBUG order"),
    (_turned((-1, 0, 0), (0, 1, 0), (0, 0, -1)), r"does not look along \+z with y up.*order of 'landmarks'"),
    (_turned((1, 0, 0), (0, -1, 0), (0, 0, -1)), r"from mouth to eyes is \(0.00, -\d.*\), expected \+y"),
    (_turned((1, 0, 0), (0, 0, 1), (0, -1, 0)), r"expected z above 0: turn"),
    (_turned((1, 0, 0), (0, 1, 0), (0, 0, -1)), r"from the eyes to the nose tip is \(.*, -0.\d+\), expected z above 0"),
    (_swapped_eyes(), r"to the right is \(-0.59, .*\), expected \+x"),
    ({"landmarks": np.zeros(68, int)}, "names only 1 different vertices for 68 points, the same for eyes"),
    ({"landmarks": np.resize(half_ellipsoid().landmarks[[36, 45, 30, 48, 54]], 68)}, "different vertices"),
    ({"triangles": half_ellipsoid().triangles[:, ::-1]}, r"clockwise .*triangles\[:, ::-1\]"),
    ({"mean_albedo": half_ellipsoid().mean_albedo / 255}, "from 0.392 to 0.863, .*multiply .* by 255$"),
    ({"mean_albedo": half_ellipsoid().mean_albedo / 127.5 - 1.7}, r"by 255 \(first bring them from \[-1, 1\]"),
    ({"mean_albedo": half_ellipsoid().mean_albedo * 257}, "levels from 0 to 255: divide .* by 222"),
    ({"exp_basis": half_ellipsoid().exp_basis * 100}, "a component of 'exp_basis' moves a vertex by .*in decimetres"),
    ({"id_basis": half_ellipsoid().id_basis * 100}, "a component of 'id_basis' moves a vertex by")]


@pytest.mark.parametrize(("change", "words"), FORMAT_MISTAKES + CONVENTION_MISTAKES)
def test_mistakes_are_named_with_the_cure(tmp_path, change, words):
    path = _written(tmp_path, **change)
    with pytest.raises(ModelFileError, match=words) as loaded:
        MorphableModel.load(path)
    assert str(loaded.value).startswith(f"{path}: ")
    if not {"exp_basis", "id_basis"} & change.keys() or "moves" not in words:
        with pytest.raises(ModelFileError, match=words):
            check_model(path)


def test_a_whole_head_may_be_closed(tmp_path):
    """The area of a closed surface facing forwards is nothing: the winding is judged where the landmarks are."""
    values = arrays()
    back = values["mean_shape"] * (1, 1, -1)
    doubled = {name: np.concatenate([values[name]] * 2) for name in ("id_basis", "exp_basis", "mean_albedo",
                                                                    "albedo_basis", "uv")}
    doubled["mean_shape"] = np.concatenate([values["mean_shape"], back])
    doubled["triangles"] = np.concatenate([values["triangles"], values["triangles"][:, ::-1] + 357])
    MorphableModel.load(_written(tmp_path, **doubled))
    doubled["triangles"] = doubled["triangles"][:, ::-1]
    with pytest.raises(ModelFileError, match="clockwise"):
        MorphableModel.load(_written(tmp_path, **doubled))


def test_models_made_in_code_are_checked_alike():
    with pytest.raises(ModelFileError, match="'exp_basis' has shape"):
        MorphableModel(**{**arrays(), "exp_basis": np.zeros((3, 3, 4))})
    reversed_ = MorphableModel(**{**arrays(), "triangles": arrays()["triangles"][:, ::-1]})
    with pytest.raises(ModelFileError, match="^the triangles are clockwise"):
        reversed_.check_conventions()


# ---------------------------------------------------------------- files that are no model
def test_files_that_are_no_model(tmp_path):
    with pytest.raises(ModelFileError, match="there is no morphable model"):
        MorphableModel.load(str(tmp_path / "absent.npz"))
    for content in (b"", b"no zip at all", b"PK\x03\x04broken"):
        path = tmp_path / "junk.npz"
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match="junk.npz"):
            MorphableModel.load(str(path))


def test_pickled_arrays_are_refused(tmp_path):
    path = _written(tmp_path, landmarks=np.array([{}] * 68, dtype=object))
    with pytest.raises(ModelFileError, match="face.npz"):
        MorphableModel.load(path)


def test_declared_sizes_are_not_believed(tmp_path, monkeypatch):
    """Neither a header of 10^15 numbers nor zeros that unpack to gigabytes are given memory."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10 ** 15, 3)})
    path = _written(tmp_path, mean_shape=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("mean_shape.npy", header.getvalue() + bytes(100))
    with pytest.raises(ModelFileError, match="mean_shape.npy is no whole array"):
        MorphableModel.load(path)
    path = _written(tmp_path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("zeros.npy", "w") as file:
        for _ in range(20):
            file.write(bytes(1 << 20))
    monkeypatch.setattr(files, "_NPZ_RATIO", 20)
    monkeypatch.setattr(np, "load", None)  # not asked
    with pytest.raises(ModelFileError, match="unpacks to 21,...,... bytes"):
        MorphableModel.load(path)


# ---------------------------------------------------------------- whatever is done to a file
def _whole_bytes():
    content = io.BytesIO()
    np.savez(content, **arrays())
    return content.getvalue()


WHOLE = _whole_bytes()
DTYPES = st.sampled_from(["f4", "f8", "f2", "i4", "u1", "i8", "?", "c8", "U2", "M8[s]"])


def _check_that_it_loads_or_says(path):
    """Passes when loader and check both accept, or the loader gives its one error (the check skips bases' numbers)."""
    try:
        MorphableModel.load(str(path))
    except ModelFileError as error:
        assert str(path) in str(error)
        return
    check_model(str(path))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(list(ARRAYS)), dtype=DTYPES, drop=st.booleans(), data=st.data())
def test_any_array_exchanged(tmp_path, name, dtype, drop, data):
    values = arrays()
    if drop:
        del values[name]
    else:
        shape = data.draw(st.one_of(st.just(values[name].shape), st.lists(st.integers(0, 5), max_size=4).map(tuple)))
        fill = data.draw(st.sampled_from([0, 1, -1, 400]))
        values[name] = np.full(shape, fill).astype(dtype) if dtype != "U2" else np.full(shape, "a", "U2")
    np.savez(tmp_path / "any.npz", **values)
    _check_that_it_loads_or_says(tmp_path / "any.npz")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.one_of(st.just(len(WHOLE)), st.integers(0, len(WHOLE))), data=st.data())
def test_any_bytes_changed(tmp_path, cut, data):
    content = bytearray(WHOLE[:cut])
    # Most of a file is numbers; headers and the directory at the end are where a change can do harm.
    near = st.one_of(st.integers(0, 400), st.integers(max(0, len(content) - 1500), max(0, len(content) - 1)),
                     st.integers(0, max(0, len(content) - 1)))
    for place, value in data.draw(st.lists(st.tuples(near, st.integers(0, 255)), max_size=6)):
        if place < len(content):
            content[place] = value
    (tmp_path / "any.npz").write_bytes(bytes(content))
    _check_that_it_loads_or_says(tmp_path / "any.npz")


@pytest.mark.parametrize("rows, columns", [(5, 9), (13, 15), (17, 21), (25, 31), (41, 41), (57, 57)])
def test_small_test_faces_pass(tmp_path, rows, columns):
    path = str(tmp_path / "small.npz")
    face = half_ellipsoid(rows, columns)
    face.save(path)
    if rows == 5:  # too coarse: several alignment points fall onto one vertex
        with pytest.raises(ModelFileError, match="different vertices"):
            MorphableModel.load(path)
    else:
        check_model(path)
        assert MorphableModel.load(path).digest == face.digest


# ---------------------------------------------------------------- the landmark embedding
def embedding_arrays(**changes):
    """Arrays of a sound embedding of ``arrays()`` in which half of the landmarks lie on the surface."""
    rng = np.random.default_rng(2)
    triangles = rng.integers(0, len(arrays()["triangles"]), 468).astype(np.int32)
    triangles[::2] = -1
    values = {"dense_triangles": triangles, "dense_barycentrics": rng.dirichlet((1, 1, 1), 468).astype(np.float32),
              "dense_bias": rng.normal(size=(468, 2)).astype(np.float32), "dense_noise": np.ones(468, np.float32),
              "dense_factors": rng.normal(size=(468, 2, 3)).astype(np.float32)}
    return {**values, **changes}


def test_an_embedding_survives_the_file_and_leaves_the_digest_alone(tmp_path):
    path, again = _written(tmp_path, **embedding_arrays()), str(tmp_path / "again.npz")
    MorphableModel.load(path).save(again)
    model = MorphableModel.load(again)
    for name, value in embedding_arrays().items():
        np.testing.assert_array_equal(getattr(model.embedding, name.removeprefix("dense_")), value)
    assert model.digest == MorphableModel(**arrays()).digest
    assert "dense_noise" not in model.arrays() and MorphableModel(**arrays()).embedding is None
    assert "dense_noise" in check_model_file(again)


@pytest.mark.parametrize("changes, message", [
    ({"dense_noise": None}, "has 'dense_triangles' but lacks dense_noise"),
    ({"dense_triangles": np.full(468, 640)}, "triangle numbers from 0 to 639, or -1"),
    ({"dense_triangles": np.full(468, -2)}, "triangle numbers"),
    ({"dense_triangles": np.full(468, 0.5)}, "triangle numbers"),
    ({"dense_triangles": np.zeros(67, np.int32)}, r"shape \(67,\), expected \(468\)"),
    ({"dense_barycentrics": np.full((468, 3), 0.5)}, "sum 1"),
    ({"dense_noise": np.zeros(468)}, "above 0"),
    ({"dense_factors": np.full((468, 2, 1), np.nan)}, "'dense_factors' has values that are not finite"),
    ({"dense_factors": np.zeros((468, 3, 1))}, "dense_factors"),
])
def test_a_broken_embedding_is_refused(tmp_path, changes, message):
    path = _written(tmp_path, **embedding_arrays(**changes))
    for read in (MorphableModel.load, check_model_file):
        with pytest.raises(ModelFileError, match=message):
            read(path)


def test_landmarks_on_no_surface_need_no_weights(tmp_path):
    weights = embedding_arrays()["dense_barycentrics"]
    weights[::2] = 0.0
    noise = np.ones(468)
    noise[::2] = 0.0
    assert MorphableModel.load(_written(tmp_path, **embedding_arrays(dense_barycentrics=weights, dense_noise=noise)))
