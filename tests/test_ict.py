"""The ICT-FaceKit converter, on a tiny face of the same layout and, where it is, on the real sample."""

import json

import numpy as np
import pytest

from facegcn.assets import __main__ as assets
from facegcn.assets import ict
from facegcn.assets.ict_albedo import IRIS_RADIUS
from facegcn.assets.ict_mesh import orthogonal_basis
from facegcn.assets.ict_source import read_source
from facegcn.errors import UserError
from facegcn.mesh.subdivision import find_edges, loop_subdivision
from facegcn.morphable import MorphableModel
from tests.tiny_ict import EXPRESSIONS, TinyFace


@pytest.fixture(scope="module")
def tiny():
    return TinyFace()


@pytest.fixture
def checkout(tiny, tmp_path):
    return tiny.write(tmp_path)


@pytest.fixture
def extract(tiny, checkout, tmp_path, capsys):
    """The same face as an .npz."""
    source = read_source(str(checkout), tiny.layout)
    path = tmp_path / "extract.npz"
    np.savez(path, mean=source.mean, triangles=source.triangles, identity_basis=source.identity.astype(np.float16),
             expression_basis=source.expression.astype(np.float16), expression_names=EXPRESSIONS,
             landmarks68=source.landmarks, n_narrow=source.narrow, part=source.eye.astype(np.uint8))
    capsys.readouterr()
    return path


# -------------------------------------------------------------------- reading
def test_checkout_is_read_as_written(tiny, checkout, caplog):
    source = read_source(str(checkout.parent), tiny.layout)
    count = tiny.layout.face
    assert np.allclose(source.mean[:count], tiny.vertices[:count], atol=1e-5)
    assert np.allclose(source.identity[:count, :, 2], tiny.modes["identity002"][:count], atol=1e-5)
    assert np.allclose(source.expression[:count, :, 0], tiny.modes["jawOpen"][:count], atol=1e-5)
    assert source.expression_names == EXPRESSIONS and source.narrow == tiny.layout.narrow
    assert np.array_equal(source.landmarks, tiny.landmarks)
    assert np.allclose(source.uv[:count], tiny.vertices[:count, :2] / 40 + 0.5, atol=1e-5)
    assert "warning: a complete checkout has 100 and 53" in caplog.text


def test_only_the_front_of_the_eyeballs_is_kept(tiny, checkout):
    source = read_source(str(checkout), tiny.layout)
    depth = source.mean[source.eye, 2]
    assert 0.3 < source.eye.sum() / (2 * 13 * 16) < 0.6
    assert depth.min() > 8.1 and depth.max() > 10
    a, b, c = source.mean[source.triangles[source.eye[source.triangles].all(axis=1)]].transpose(1, 0, 2)
    assert np.cross(b - a, c - a)[:, 2].min() > 0


@pytest.mark.parametrize("name", ["generic_neutral_mesh.obj", "vertex_indices.json"])
def test_missing_file_is_named_with_the_cure(tiny, checkout, name):
    (checkout / name).unlink()
    with pytest.raises(UserError, match=rf"lacks {name}.*github.com/ICT-VGL/ICT-FaceKit"):
        read_source(str(checkout), tiny.layout)


def test_no_identity_files(tiny, checkout):
    for path in checkout.glob("identity*.obj"):
        path.unlink()
    with pytest.raises(UserError, match="0 identity and 5 expression OBJ files"):
        read_source(str(checkout), tiny.layout)


def test_file_of_another_size_or_not_an_obj(tiny, checkout):
    target = checkout / "identity001.obj"
    target.write_text("v 0 0 0\n")
    with pytest.raises(UserError, match=r"identity001.obj has 1 vertices, ICT-FaceKit's light model has \d+"):
        read_source(str(checkout), tiny.layout)
    target.write_text("v 0 zero 0\n")
    with pytest.raises(UserError, match=r"identity001.obj is not a readable OBJ file"):
        read_source(str(checkout), tiny.layout)


def test_broken_index_file(tiny, checkout):
    path = checkout / "vertex_indices.json"
    path.write_text("{")
    with pytest.raises(UserError, match="vertex_indices.json cannot be read"):
        read_source(str(checkout), tiny.layout)
    path.write_text(json.dumps({"expressions": EXPRESSIONS, "idx_to_landmark_verts": [10 ** 6] * 68}))
    with pytest.raises(UserError, match="idx_to_landmark_verts must lie in"):
        read_source(str(checkout), tiny.layout)


def test_extract_that_lacks_or_bends_an_array(extract, tmp_path):
    arrays = dict(np.load(extract))
    np.savez(tmp_path / "short.npz", **{k: v for k, v in arrays.items() if k != "landmarks68"})
    with pytest.raises(UserError, match="lacks the arrays landmarks68"):
        read_source(str(tmp_path / "short.npz"))
    np.savez(tmp_path / "bent.npz", **{**arrays, "identity_basis": arrays["identity_basis"][:-1]})
    with pytest.raises(UserError, match="array 'identity_basis' has shape"):
        read_source(str(tmp_path / "bent.npz"))


# -------------------------------------------------------------------- conversion
@pytest.fixture(scope="module")
def converted(tiny, tmp_path_factory):
    """Models of the tiny face by subdivision step, and their source."""
    folder = tiny.write(tmp_path_factory.mktemp("ict"))
    models = [ict.convert_ict(str(folder), subdivide=step, layout=tiny.layout) for step in (0, 1)]
    return models, read_source(str(folder), tiny.layout)


def test_model_is_complete(converted, tiny):
    for model in converted[0]:
        assert model.part_sizes[:2] == (3, 5) and model.part_sizes[2] >= 40
        assert 0 <= model.mean_albedo.min() and model.mean_albedo.max() <= 255
        assert len(model.symmetry_pairs) > 0.4 * model.vertex_count
        assert 0.5 * model.vertex_count < len(model.skin_index) < 0.95 * model.vertex_count
        assert model.uv is not None
        mirrored = model.mean_shape[model.symmetry_pairs[:, 1]] * (-1, 1, 1)
        assert np.abs(model.mean_shape[model.symmetry_pairs[:, 0]] - mirrored).max() < 2e-3
    expected = tiny.vertices[tiny.landmarks] * 0.1
    assert np.allclose(converted[0][0].mean_shape[converted[0][0].landmarks], expected, atol=1e-5)


def test_only_the_rim_and_the_eyes_have_borders(converted, tiny):
    model = converted[0][0]
    edges = find_edges(model.triangles)
    border = np.unique(edges.ends[edges.sides == 1])
    mouth = tiny.vertices[tiny.landmarks[60:68], :2].mean(axis=0) * 0.1
    assert edges.sides.max() == 2
    assert np.linalg.norm(model.mean_shape[border, :2] - mouth, axis=1).min() > 0.3


def test_bases_are_orthogonal_and_ordered(converted):
    model = converted[0][0]
    for basis in (model.id_basis, model.exp_basis, model.albedo_basis):
        flat = basis.reshape(-1, basis.shape[2]).astype(np.float64)
        sizes = np.linalg.norm(flat, axis=0)
        cosines = flat.T @ flat / np.outer(sizes, sizes)
        assert np.abs(cosines - np.eye(len(sizes))).max() < 1e-4, sizes
        assert (np.diff(sizes) <= 1e-5 * sizes[0]).all()


def test_every_face_of_the_source_is_in_the_span(converted, rng):
    (model, _), source = converted
    kept = np.flatnonzero(source.eye | (np.arange(len(source.mean)) < source.narrow))
    for modes, basis in ((source.identity, model.id_basis), (source.expression, model.exp_basis)):
        target = (modes[kept] @ rng.normal(size=modes.shape[2]) * 0.1).ravel()
        flat = basis[:len(kept)].reshape(target.size, -1)
        solution = np.linalg.lstsq(flat, target, rcond=None)[0]
        assert np.abs(flat @ solution - target).max() < 1e-4


def test_orthogonal_basis_keeps_the_covariance(rng):
    modes = rng.normal(size=(20, 3, 4))
    basis = orthogonal_basis(modes)
    flat, new = modes.reshape(60, 4), basis.reshape(60, 4)
    assert np.allclose(flat @ flat.T, new @ new.T)
    twice = orthogonal_basis(np.concatenate([modes, modes], axis=2))
    assert twice.shape == (20, 3, 4), "components without variance are left out"


def test_sides_of_an_expression_act_together():
    names = ["mouthSmile_L", "mouthSmile_R", "eyeLookIn_L", "eyeLookOut_R", "eyeLookIn_R", "jawOpen"]
    root = ict.activation_spread(names)
    covariance = root @ root.T
    deviation = np.sqrt(np.diag(covariance))
    assert np.allclose(deviation, [0.25] * 5 + [0.2])
    correlation = covariance / np.outer(deviation, deviation)
    expected = np.eye(6)
    expected[0, 1] = expected[1, 0] = expected[2, 3] = expected[3, 2] = 0.8
    assert np.allclose(correlation, expected)


def test_subdivision_refines_mean_and_bases_alike(converted):
    coarse, fine = converted[0]
    assert fine.vertex_count == coarse.vertex_count + len(find_edges(coarse.triangles).ends)
    assert len(fine.triangles) == 4 * len(coarse.triangles)
    assert np.array_equal(fine.landmarks, coarse.landmarks)
    step = loop_subdivision(coarse.vertex_count, coarse.triangles)
    for name in ("mean_shape", "id_basis", "exp_basis", "uv"):
        assert np.allclose(getattr(fine, name), step.apply(getattr(coarse, name)), atol=1e-4), name


def test_eyes_have_an_iris_and_are_no_skin(converted):
    model = converted[0][1]
    distance = np.linalg.norm(model.mean_shape[:, :2] - (0.3, 0.35), axis=1)
    ball = model.mean_shape[:, 2] > 0.97  # nothing else of the tiny face is so far in front
    pupil = np.flatnonzero(ball & (distance < 0.5 * IRIS_RADIUS))
    white = np.flatnonzero(ball & (np.abs(distance - 1.3 * IRIS_RADIUS) < 0.006))
    assert len(pupil) and len(white)
    assert model.mean_albedo[pupil].max() < 110 < 130 < model.mean_albedo[white].min()
    assert not np.isin(np.concatenate([pupil, white]), model.skin_index).any()


def test_region_face_keeps_the_sides(tiny, checkout):
    wide = ict.convert_ict(str(checkout), region="face", layout=tiny.layout)
    assert wide.mean_shape[:, 0].max() == pytest.approx(0.9, abs=1e-4)
    narrow = ict.convert_ict(str(checkout), layout=tiny.layout)
    assert narrow.mean_shape[:, 0].max() < 0.79
    with pytest.raises(UserError, match="--region is one of narrow, face"):
        ict.convert_ict(str(checkout), region="wide", layout=tiny.layout)


# -------------------------------------------------------------------- measured skin
def test_measured_albedo_is_used(tiny, checkout, tmp_path, rng):
    count = tiny.layout.face
    basis = np.zeros((count, 3, 2))
    basis[:, :, 0] = 0.2
    basis[:, 0, 1] = np.sin(tiny.flat[:, 1])
    np.savez(tmp_path / "albedo.npz", mean=np.full((count, 3), (0.6, 0.4, 0.3)), basis=basis)
    model = ict.convert_ict(str(checkout), albedo=str(tmp_path / "albedo.npz"), layout=tiny.layout)
    low = model.landmarks[8]
    assert np.allclose(model.mean_albedo[low], (153, 102, 76.5), atol=0.5)
    skin = np.arange(tiny.layout.narrow)
    front = model.mean_shape[skin, 2] > model.mean_shape[model.landmarks[[36, 45]], 2].mean() - 0.2
    front = skin[front]
    target = np.zeros((len(front), 3))
    target[:, 0] = np.sin(tiny.flat[front, 1]) * 255
    flat = model.albedo_basis[front].reshape(target.size, -1)
    fitted = flat @ np.linalg.lstsq(flat, target.ravel(), rcond=None)[0]
    assert np.abs(fitted - target.ravel()).max() < 0.5


def test_albedo_that_does_not_fit(tiny, checkout, tmp_path):
    path = tmp_path / "albedo.npz"
    np.savez(path, mean=np.zeros((5, 3)), basis=np.zeros((5, 3, 1)))
    with pytest.raises(UserError, match=r"has colours for 5 vertices; this region needs \d+"):
        ict.convert_ict(str(checkout), albedo=str(path), layout=tiny.layout)
    np.savez(path, mean=np.zeros((5, 3)))
    with pytest.raises(UserError, match="must be an .npz with the arrays 'mean' and 'basis'"):
        ict.convert_ict(str(checkout), albedo=str(path), layout=tiny.layout)


# -------------------------------------------------------------------- command line
def test_command_writes_a_model(extract, tmp_path, capsys):
    out = tmp_path / "new" / "model.npz"
    assert assets.main(["ict", "--source", str(extract), "--out", str(out)]) == 0
    model = MorphableModel.load(str(out))
    assert f"{model.vertex_count} vertices" in capsys.readouterr().out


@pytest.mark.parametrize("source, message", [
    ("nowhere", "there is no such folder or file"), (".", "lacks generic_neutral_mesh.obj and vertex_indices.json")])
def test_command_names_the_cure(source, message, tmp_path, capsys):
    assert assets.main(["ict", "--source", str(tmp_path / source)]) == 2
    error = capsys.readouterr().err
    assert message in error and "github.com/ICT-VGL/ICT-FaceKit" in error


# -------------------------------------------------------------------- the real thing
def test_real_checkout_equals_the_extract(shared):
    sample = read_source(str(shared / "open_face" / "ict_facekit_sample"))
    extract = read_source(str(shared / "open_face" / "ict_face_eyes.npz"))
    assert np.array_equal(sample.mean, extract.mean) and np.array_equal(sample.triangles, extract.triangles)
    assert np.array_equal(sample.eye, extract.eye) and np.array_equal(sample.landmarks, extract.landmarks)
    assert np.abs(sample.identity - extract.identity[:, :, :2]).max() < 1e-3
    columns = [extract.expression_names.index(name) for name in sample.expression_names]
    assert np.abs(sample.expression - extract.expression[:, :, columns]).max() < 2e-3


def test_real_face_with_measured_skin(shared):
    folder = shared / "open_face"
    model = ict.convert_ict(str(folder / "ict_facekit_sample"), albedo=str(folder / "ict_albedo.npz"))
    edges = find_edges(model.triangles)
    assert model.vertex_count == 7812 and edges.sides.max() == 2
    assert model.part_sizes[2] >= 40 and len(model.symmetry_pairs) == (7812 - 114) // 2
    eyes = model.five_points[:2]
    assert eyes[0, 0] == pytest.approx(-eyes[1, 0], abs=1e-4) and 0.5 < np.ptp(eyes[:, 0]) < 0.75
    assert np.isin(model.landmarks[[27, 28, 29, 30]], model.skin_index).all()
