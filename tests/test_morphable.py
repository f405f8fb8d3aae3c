"""The morphable model: evaluation against plain NumPy, and its file format."""

import numpy as np
import pytest

from facegcn.errors import ModelFileError
from facegcn.morphable import FIVE_POINT_LANDMARKS, MorphableModel


def arrays(rng, vertices=40, triangles=60):
    """Random arrays of a valid model."""
    return dict(
        mean_shape=rng.normal(size=(vertices, 3)), id_basis=rng.normal(size=(vertices, 3, 5)),
        exp_basis=rng.normal(size=(vertices, 3, 4)), mean_albedo=rng.uniform(0, 255, (vertices, 3)),
        albedo_basis=rng.normal(size=(vertices, 3, 6)) * 40,
        triangles=rng.integers(0, vertices, (triangles, 3)), landmarks=rng.integers(0, vertices, 68),
        skin_index=np.arange(10), symmetry_pairs=rng.integers(0, vertices, (7, 2)),
        uv=rng.uniform(size=(vertices, 2)))


def test_evaluation_against_loops(rng):
    model = MorphableModel(**arrays(rng))
    coeff = rng.normal(size=(2, model.coefficient_count)).astype(np.float32)
    parts = model.split(coeff)
    assert [p.shape[1] for p in parts] == [5, 4, 6, 3, 27, 3]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), coeff)
    shape, albedo = model.vertices(parts.id, parts.exp), model.albedo(parts.tex)
    for b in range(2):
        for v in range(0, 40, 7):
            point = (model.mean_shape[v] + model.id_basis[v] @ parts.id[b] + model.exp_basis[v] @ parts.exp[b]
                     - model.mean_shape.mean(axis=0))
            np.testing.assert_allclose(shape[b, v], point, rtol=1e-4, atol=1e-5)
            colour = np.clip(model.mean_albedo[v] + model.albedo_basis[v] @ parts.tex[b], 0, 255)
            np.testing.assert_allclose(albedo[b, v], colour, rtol=1e-4, atol=1e-3)


def test_wrong_coefficient_count(rng):
    model = MorphableModel(**arrays(rng))
    with pytest.raises(ValueError, match="expected 48 coefficients"):
        model.split(np.zeros((1, 47), np.float32))


def test_five_points_are_means_of_landmarks(rng):
    model = MorphableModel(**arrays(rng))
    centred = model.mean_shape - model.mean_shape.mean(axis=0)
    for point, group in zip(model.five_points, FIVE_POINT_LANDMARKS):
        np.testing.assert_allclose(point, centred[model.landmarks[list(group)]].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_file_round_trip(rng, tmp_path):
    model = MorphableModel(**arrays(rng))
    model.save(str(tmp_path / "sub" / "model.npz"))
    again = MorphableModel.load(str(tmp_path / "sub" / "model.npz"))
    for name, value in vars(model).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["model.npz"]


def test_every_array_counts_in_the_digest(rng):
    values = arrays(rng)
    digest = MorphableModel(**values).digest
    assert MorphableModel(**values).digest == digest and len(digest) == 12
    for name, value in values.items():
        changed = np.array(value)
        changed.flat[0] = changed.flat[0] + 1 if changed.flat[0] < 30 else changed.flat[0] - 1
        assert MorphableModel(**{**values, name: changed}).digest != digest, name
    assert MorphableModel(**{**values, "uv": None}).digest != digest


def test_uv_may_be_absent(rng, tmp_path):
    values = arrays(rng)
    values.pop("uv")
    MorphableModel(**values).save(str(tmp_path / "m.npz"))
    assert MorphableModel.load(str(tmp_path / "m.npz")).uv is None


@pytest.mark.parametrize(("change", "words"), [
    (lambda a: a.pop("id_basis"), "lacks the arrays id_basis"),
    (lambda a: a.update(exp_basis=np.zeros((39, 3, 4))), r"'exp_basis' has shape \(39, 3, 4\)"),
    (lambda a: a.update(mean_shape=np.zeros((40, 2))), "'mean_shape'"),
    (lambda a: a.update(landmarks=np.zeros(51, int)), r"'landmarks' has shape \(51,\), expected \(68,\)"),
    (lambda a: a.update(triangles=np.full((3, 3), 40)), r"'triangles' has an index outside 0..39"),
    (lambda a: a.update(symmetry_pairs=np.full((3, 2), -1)), "'symmetry_pairs' has an index outside"),
    (lambda a: a["mean_albedo"].__setitem__((0, 0), np.nan), "'mean_albedo' has values that are not finite")])
def test_broken_files_are_named(rng, tmp_path, change, words):
    values = arrays(rng)
    change(values)
    path = tmp_path / "broken.npz"
    np.savez(path, **values)
    with pytest.raises(ModelFileError, match=words) as caught:
        MorphableModel.load(str(path))
    assert "broken.npz" in str(caught.value)


def test_files_that_are_no_model(tmp_path):
    with pytest.raises(ModelFileError, match="there is no morphable model"):
        MorphableModel.load(str(tmp_path / "absent.npz"))
    for content in (b"", b"no zip at all", b"PK\x03\x04broken"):
        path = tmp_path / "junk.npz"
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match="junk.npz"):
            MorphableModel.load(str(path))


def test_pickled_arrays_are_refused(rng, tmp_path):
    values = arrays(rng)
    values["landmarks"] = np.array([{}] * 68, dtype=object)
    np.savez(tmp_path / "pickle.npz", **values)
    with pytest.raises(ModelFileError, match="pickle.npz"):
        MorphableModel.load(str(tmp_path / "pickle.npz"))
