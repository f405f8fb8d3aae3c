"""The procedural face: its mesh, symmetry, proportions, bases and looks that can be measured."""

import numpy as np
import pytest

from facegcn.demo import expressions, face, mesh, parts
from facegcn.demo.shapes import Rig
from facegcn.morphable import MorphableModel

UPPER_LIDS, LOWER_LIDS = ([37, 38, 43, 44], [41, 40, 47, 46])


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return face.make_demo_face(3000, seed=0)


@pytest.fixture(scope="module")
def template():
    return mesh.make_template(8000)


@pytest.fixture(scope="module")
def small_template():
    return mesh.make_template(3000)


@pytest.fixture(scope="module")
def rig(template) -> Rig:
    return Rig(template)


def _landmark_distance(points, landmarks, a, b):
    return np.linalg.norm(points[landmarks[a]] - points[landmarks[b]], axis=-1)


def _skin_normals(points, triangles, part):
    corners = points[triangles[(part[triangles] == parts.SKIN).all(axis=1)]]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


# ------------------------------------------------------------------ mesh
def test_vertex_count_is_the_one_asked_for(small_template, template):
    assert len(small_template.points) in (3000, 3001) and len(template.points) in (8000, 8001)


def test_a_dense_template_is_a_clean_mesh():
    template = mesh.make_template(35000)
    assert len(template.points) in (35000, 35001)
    assert np.isfinite(template.points).all()
    _check_manifold(template)


def test_too_few_vertices_are_refused():
    with pytest.raises(ValueError, match="at least 2000"):
        mesh.make_template(500)


def test_template_is_a_clean_mesh(template):
    _check_manifold(template)


def _check_manifold(template):
    """Every vertex is used; every edge has one triangle on each side, or is a border."""
    triangles = template.triangles
    assert set(np.unique(triangles)) == set(range(len(template.points)))
    directed = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    assert len(np.unique(directed, axis=0)) == len(directed), "two triangles run the same way along an edge"
    corners = template.points[triangles]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    assert areas.min() > 1e-5


def test_skin_has_only_its_outer_border_open(template):
    """Lids, nostrils and lips hang on the skin: its only open edges are the face's border and fold ends."""
    triangles = template.triangles
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    keys, counts = np.unique(np.sort(edges, axis=1), axis=0, return_counts=True)
    open_skin = keys[counts == 1]
    open_skin = open_skin[(template.part[open_skin] == parts.SKIN).all(axis=1)]
    s, t = template.st[np.unique(open_skin)].T
    assert (np.hypot(s / 70, (t + 25) / 70) > 0.85).all()


def test_symmetry_is_exact(model):
    left, right = model.symmetry_pairs.T
    flip = np.array([-1, 1, 1], np.float32)
    np.testing.assert_array_equal(model.mean_shape[left], model.mean_shape[right] * flip)
    np.testing.assert_array_equal(model.mean_albedo[left], model.mean_albedo[right])
    assert (model.mean_shape[left, 0] < 0).all()
    middle = np.setdiff1d(np.arange(model.vertex_count), model.symmetry_pairs)
    assert len(middle) + 2 * len(left) == model.vertex_count
    np.testing.assert_array_equal(model.mean_shape[middle, 0], 0)
    np.testing.assert_allclose(model.uv[left, 0], 1 - model.uv[right, 0], atol=1e-6)


def test_triangles_mirror_each_other(template):
    partner = np.arange(len(template.points))
    left, right = template.pairs.T
    partner[left], partner[right] = right, left
    mirrored = np.sort(partner[template.triangles], axis=1)
    assert set(map(tuple, mirrored)) == set(map(tuple, np.sort(template.triangles, axis=1)))


def test_texture_coordinates_are_in_range_and_do_not_fold(template):
    uv = template.uv
    assert uv.min() >= 0 and uv.max() <= 1
    skin = template.triangles[(template.part[template.triangles] == parts.SKIN).all(axis=1)]
    a, b, c = uv[skin].transpose(1, 0, 2)
    turn = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (turn > 0).mean() > 0.998


# ------------------------------------------------------------------ looks that can be measured
def test_skin_faces_outwards(template):
    normals = _skin_normals(template.points, template.triangles, template.part)
    assert (normals[:, 2] > 0).mean() > 0.997


def test_random_faces_keep_their_skin_unfolded(model, small_template, rng):
    template = small_template
    for _ in range(10):
        coefficients = np.clip(rng.normal(size=model.id_basis.shape[2]), -2.5, 2.5)
        points = model.mean_shape + model.id_basis @ coefficients
        assert (_skin_normals(points, template.triangles, template.part)[:, 2] > 0).mean() > 0.985


@pytest.mark.parametrize("name, a, b, low, high", [
    ("intercanthal width", 39, 42, 28, 36), ("biocular width", 36, 45, 84, 98),
    ("nose height", 27, 33, 46, 60), ("mouth width", 48, 54, 46, 58),
    ("nasion to gnathion", 27, 8, 105, 132), ("width at the ears", 0, 16, 125, 148),
    ("upper lip", 51, 62, 6, 14), ("lower lip", 57, 66, 7, 14)])
def test_proportions_are_human(model, name, a, b, low, high):
    assert low < 100 * _landmark_distance(model.mean_shape, model.landmarks, a, b) < high, name


def test_landmarks_lie_where_ibug_has_them(model):
    x, y, z = model.mean_shape[model.landmarks].T
    assert (np.diff(x[:17]) > -0.01).all() and y[:17].argmin() == 8  # upright before the ears
    assert (np.diff(x[17:27]) > 0).all()
    assert (np.diff(y[27:31]) < 0).all() and z.argmax() == 30
    assert (np.diff(x[31:36]) > 0).all()
    for corner, inner in ((36, 39), (42, 45)):
        assert x[corner] < x[corner + 1] < x[corner + 2] < x[inner] > x[inner + 1] > x[inner + 2]
    assert (y[UPPER_LIDS] > y[LOWER_LIDS]).all()
    assert (np.diff(x[48:55]) > 0).all() and (np.diff(x[55:60]) < 0).all()
    assert (np.diff(x[60:65]) > 0).all() and (np.diff(x[65:68]) < 0).all()
    assert y[21] > y[39] > y[30] > y[51] > y[57] > y[8]
    assert len(set(model.landmarks)) == 68


def test_nose_sticks_out(model):
    z = model.mean_shape[model.landmarks][:, 2]
    assert 0.15 < z[30] - z[33] < 0.26  # decimetre


def test_face_fills_the_picture(model):
    points = model.mean_shape - model.mean_shape.mean(axis=0)
    assert 1.7 < np.ptp(points[:, 1]) < 2.2 and np.abs(points[:, 1]).max() < 1.15
    eyes, mouth = points[model.landmarks[36:48], 1].mean(), points[model.landmarks[[48, 54]], 1].mean()
    assert 0.2 < eyes < 0.4 and -0.5 < mouth < -0.3


def test_skin_region_has_no_eyes_and_no_mouth(model, small_template):
    np.testing.assert_array_equal(small_template.part[model.skin_index], parts.SKIN)
    assert 0.6 * model.vertex_count < len(model.skin_index) < model.vertex_count


# ------------------------------------------------------------------ bases
def test_bases_have_full_rank_and_orthogonal_components(model):
    for basis, least in ((model.id_basis, 40), (model.exp_basis, 15), (model.albedo_basis, 40)):
        count = basis.shape[2]
        assert count >= least
        gram = basis.reshape(-1, count).T.astype(float) @ basis.reshape(-1, count)
        size = np.sqrt(np.diag(gram))
        np.testing.assert_allclose(gram / np.outer(size, size), np.eye(count), atol=1e-3)
        assert size.min() > 0.02 * size[1]  # the first of the albedo is the skin tone, far above the rest
        assert (np.diff(size) <= 1e-5 * size[0]).all()


def test_the_same_seed_gives_the_same_model_and_another_seed_another(monkeypatch):
    monkeypatch.setattr(face, "FACES", 60)
    same, other = face.make_demo_face(2000, seed=3), face.make_demo_face(2000, seed=3)
    for name in ("mean_shape", "id_basis", "exp_basis", "mean_albedo", "albedo_basis", "triangles", "uv"):
        np.testing.assert_array_equal(getattr(same, name), getattr(other, name), err_msg=name)
    template = mesh.make_template(2000)
    monkeypatch.setattr(mesh, "make_template", lambda vertices: template)
    different = face.make_demo_face(2000, seed=4)
    np.testing.assert_array_equal(same.triangles, different.triangles)
    assert np.abs(same.mean_albedo - different.mean_albedo).max() > 1


def test_model_survives_a_file(model, tmp_path):
    path = str(tmp_path / "face.npz")
    model.save(path)
    np.testing.assert_array_equal(MorphableModel.load(path).exp_basis, model.exp_basis)


def test_expression_basis_holds_the_movements(model, small_template):
    rig = Rig(small_template)
    fields = expressions.movement_fields(rig)
    flat = model.exp_basis.reshape(-1, model.exp_basis.shape[2])
    for strengths in ({"jaw open": 0.6}, {"blink left": 0.8, "blink right": 0.8},
                      {"smile left": 0.7, "smile right": 0.7}):
        wanted = expressions.expression(rig, fields, strengths).ravel() / 100
        found = flat @ np.linalg.lstsq(flat, wanted, rcond=None)[0]
        assert np.linalg.norm(found - wanted) < 0.3 * np.linalg.norm(wanted), strengths


# ------------------------------------------------------------------ expressions
def _posed(rig, **strengths):
    names = {name.replace("_", " "): value for name, value in strengths.items()}
    return rig.template.points + expressions.expression(rig, expressions.movement_fields(rig), names)


def test_blink_closes_the_eye_and_the_lid_stays_over_the_eyeball(rig):
    template = rig.template
    opened = np.linalg.norm(template.points[template.landmarks[UPPER_LIDS]]
                            - template.points[template.landmarks[LOWER_LIDS]], axis=1)
    closed = _posed(rig, blink_left=1.0, blink_right=1.0)
    gap = np.linalg.norm(closed[template.landmarks[UPPER_LIDS]] - closed[template.landmarks[LOWER_LIDS]], axis=1)
    assert (gap < 0.2 * opened).all()
    for strength in (0.3, 0.6, 1.0):
        rim = _posed(rig, blink_left=strength, blink_right=strength)[template.landmarks[UPPER_LIDS]]
        assert (rim[:, 2] > parts.eye_depth(np.abs(rim[:, 0]), rim[:, 1]) + 0.5).all()


def test_one_eye_can_blink_alone(rig):
    points, landmarks = _posed(rig, blink_left=1.0), rig.template.landmarks
    left, right = (points[landmarks[a], 1] - points[landmarks[b], 1] for a, b in ((37, 41), (44, 46)))
    assert left < 2 < 6 < right  # millimetre; landmark 37 is at the left in the picture, x < 0
    np.testing.assert_allclose(points[rig.sign > 0], rig.template.points[rig.sign > 0], atol=1e-9)


def test_jaw_opens_the_mouth_and_leaves_the_upper_face(rig):
    points, landmarks = _posed(rig, jaw_open=1.0), rig.template.landmarks
    assert points[landmarks[62], 1] - points[landmarks[66], 1] > 15
    still = rig.template.points[:, 1] > -15
    assert np.abs(points - rig.template.points)[still].max() < 2.5


def test_smile_lifts_the_corners(rig):
    moved = _posed(rig, smile_left=1.0, smile_right=1.0) - rig.template.points
    corners = moved[rig.template.landmarks[[48, 54]]]
    assert (corners[:, 1] > 3).all() and corners[0, 0] < -3 and corners[1, 0] > 3


def test_an_unknown_movement_is_refused(rig):
    with pytest.raises(KeyError, match="wink"):
        expressions.expression(rig, {}, {"wink": 1.0})


# ------------------------------------------------------------------ skin
def test_skin_tones_reach_from_dark_to_light(model, rng):
    skin = model.skin_index
    mean = model.mean_albedo[skin].mean(axis=0)
    assert 120 < mean[0] < 215 and mean[0] > mean[1] > mean[2]
    tones = [np.clip(model.mean_albedo + model.albedo_basis @ rng.normal(size=model.albedo_basis.shape[2]), 0, 255)[
        skin].mean(axis=0) for _ in range(200)]
    red = np.array(tones)[:, 0]
    assert red.min() < 100 and red.max() > 205
    assert np.mean(np.array(tones)[:, 0] > np.array(tones)[:, 2]) > 0.97


def test_lips_are_redder_and_eyes_whiter_than_skin(small_template):
    template = small_template
    color = face.Painter(template).paint(np.random.default_rng(0))
    skin = color[template.part == parts.SKIN].mean(axis=0)
    lip = color[template.landmarks[[51, 57]]].mean(axis=0)
    assert lip[0] / lip[1] > skin[0] / skin[1]
    sclera = color[(template.part == parts.EYE) & (template.depth > 8) & (np.abs(template.points[:, 0]) > 36)]
    assert sclera.min(axis=1).mean() > 120 and np.ptp(sclera, axis=1).mean() < 40
