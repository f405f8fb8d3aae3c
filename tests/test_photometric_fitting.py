"""Fitting to colours: derivatives, known faces found again, occluders found out, and what spoils photos."""

import dataclasses

import numpy as np
import pytest

from facegcn import camera, geometry, landmark_fitting, lighting, photometric_fitting, rasterizer, sampling
from facegcn.landmark_fitting import LandmarkFitter, parameter_columns
from facegcn.photometric_fitting import SIZE, LightPrior, PhotometricFitter
from facegcn.photometric_terms import ColorTerms, DetailPrior, between_pixels, facing, harmonics
from facegcn.surface_points import target_points
from tests.faces import half_ellipsoid

LIGHT = LightPrior(np.tile([0.1, 0.0, 0.2, 0, 0, 0, 0, 0, 0], 3), np.eye(27) / 0.15 ** 2)
BLOCKS = ("id", "exp", "angles", "translation", "tex", "gamma")


def faces(model, count, seed=1):
    """Coefficients (count, K) of faces in plain sight, lit from somewhere."""
    rng = np.random.default_rng(seed)
    coeff = np.zeros((count, model.coefficient_count), np.float32)
    parts = model.split(coeff)
    for part in (parts.id, parts.exp, parts.tex):
        part[:] = rng.normal(size=part.shape)
    parts.angles[:] = np.radians(rng.uniform(-1, 1, (count, 3)) * (12, 25, 10))
    parts.translation[:] = rng.normal(size=(count, 3)) * 0.1
    parts.gamma[:] = LIGHT.mean + rng.normal(size=parts.gamma.shape) * 0.12
    return coeff


def posed(model, coeff):
    """World vertices (B, N, 3) by the pipeline's formulas."""
    parts = model.split(coeff)
    return geometry.rotate(model.vertices(parts.id, parts.exp), parts.angles) + parts.translation[:, None]


def photos(model, coeff, size=SIZE):
    """Pictures (B, H, H, 4) in network range, by the pipeline's rasterizer and light."""
    parts, world = model.split(coeff), posed(model, coeff)
    normals = geometry.vertex_normals(world, model.triangles)
    colors = lighting.illuminate(model.albedo(parts.tex) / 255.0, normals, parts.gamma)
    drawn = rasterizer.rasterize(camera.clip_coordinates(world, size, size), model.triangles, size, size)
    picture = rasterizer.interpolate(colors, model.triangles, drawn).numpy()
    return np.concatenate([picture * 2 - 1, np.float32(drawn.triangle_ids.numpy() >= 0)[..., None]], axis=-1)


def landmarks(model, coeff, noise=2.0, seed=3):
    """A landmark fit (B) to the 73 points with an error, pixels."""
    world = posed(model, coeff).numpy()
    surface = target_points(model)
    points = np.stack([camera.to_pixels(camera.project(np.float32(surface.of(one)[None])), 224)[0] for one in world])
    points = points + np.random.default_rng(seed).normal(0, noise, points.shape)
    return LandmarkFitter(model, surface).fit(points)


def shape_errors(model, found, coeff):
    """Mean distance (B,), decimetre, of the unposed neutral faces."""
    difference = model.split(found).id - model.split(coeff).id
    return np.linalg.norm(np.einsum("nik,bk->bni", model.id_basis, difference), axis=2).mean(axis=1)


def pixel_errors(model, found, coeff, seen):
    """Mean distance, pixels, of seen vertices."""
    at = [camera.to_pixels(camera.project(posed(model, np.float32(one))), 224).numpy() for one in (found, coeff)]
    return (np.linalg.norm(at[0] - at[1], axis=2) * seen).sum(axis=1) / seen.sum(axis=1)


def unknowns_of(model, coeff, details=()):
    """Unknowns (U,) float64 of coefficients (K,) and amounts of details."""
    parts = model.split(coeff)
    return np.concatenate([parts.id, parts.exp, parts.angles, parts.translation, parts.tex, details,
                           parts.gamma]).astype(np.float64)


def beard(model):
    """A prior of details whose only direction darkens the lower half of the face, and warms it a little."""
    x, y, _ = model.mean_shape.T
    low = 1 / (1 + np.exp(12 * (y - y.mean()) / np.ptp(y)))
    return DetailPrior(np.zeros((len(y), 3), np.float32),
                       (low[:, None] * (-0.2, -0.22, -0.24))[..., None].astype(np.float32))


@pytest.fixture(scope="module")
def model():
    return half_ellipsoid(33, 41)


@pytest.fixture(scope="module")
def world(model):
    """Coefficients, photos, landmark fit and photometric fit of eight faces."""
    coeff = faces(model, 8)
    rgba, before = photos(model, coeff), landmarks(model, coeff)
    return coeff, rgba, before, PhotometricFitter(model, LIGHT).fit(rgba, before)


# ---------------------------------------------------------------- formulas
def test_harmonics_are_the_pipelines_and_their_derivatives_right(rng):
    normals = rng.normal(size=(40, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    values, slopes = harmonics(normals)
    np.testing.assert_allclose(values, lighting.sh_basis(np.float32(normals)[None])[0], atol=1e-6)
    for axis, step in enumerate(1e-6 * np.eye(3)):
        wanted = (harmonics(normals + step)[0] - harmonics(normals - step)[0]) / 2e-6
        np.testing.assert_allclose(slopes[..., axis], wanted, atol=1e-8)


def test_facing_is_the_cosine_of_the_angle_to_the_camera():
    """The camera stands at (0, 0, 10)."""
    world = np.float32([[0, 0, 1], [3, 0, 6], [3, 0, 6], [0, -5, 10]])
    normals = np.float32([[0, 0, 1], [0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    np.testing.assert_allclose(facing(world, normals), [1.0, 0.8, 0.6, -1.0], atol=1e-6)


def test_what_the_basis_lacks_is_added_to_the_albedo(model):
    terms = ColorTerms(model, np.arange(0, model.vertex_count, 50), SIZE)
    u, rows = np.zeros(terms.unknowns), np.arange(0, len(terms.chosen), 2)
    place, photo = terms.place(u), np.zeros((len(rows), 3), np.float32)
    beyond = np.random.default_rng(0).uniform(-0.2, 0.2, (len(terms.chosen), 3)).astype(np.float32)
    plain, changed = terms.errors(u, place, rows, photo), terms.errors(u, place, rows, photo, beyond)
    np.testing.assert_allclose(changed[1], plain[1] + beyond[rows], atol=1e-6)
    np.testing.assert_allclose(changed[0], plain[0] + beyond[rows] * plain[4], atol=1e-6)


def test_values_between_pixels(rng):
    image = rng.random((5, 7, 2)).astype(np.float32)
    centres = np.float32([[0.5, 0.5], [6.5, 4.5], [3.5, 2.5]])
    np.testing.assert_array_equal(between_pixels(image, centres), image[[0, 4, 2], [0, 6, 3]])
    np.testing.assert_allclose(between_pixels(image, np.float32([[2.75, 1.5]]))[0],
                               0.75 * image[1, 2] + 0.25 * image[1, 3], atol=1e-6)
    np.testing.assert_array_equal(between_pixels(image, np.float32([[-9, 9], [99, 99]])), image[[4, 4], [0, 6]])
    np.testing.assert_array_equal(between_pixels(image[:1, :1], np.float32([[0.2, 0.9]])), image[0, :1])


def smooth_photo(pixels):
    """Colours (R, 3), and their derivatives along x and y: waves of 40 to 90 pixels."""
    along = np.array([[0.11, 0.05], [-0.07, 0.12], [0.08, -0.13]])
    phase = pixels @ along.T
    return 0.5 + 0.3 * np.sin(phase), 0.3 * np.cos(phase) * along[:, 0], 0.3 * np.cos(phase) * along[:, 1]


@pytest.mark.parametrize("block", BLOCKS)
def test_derivatives_equal_finite_differences(model, block):
    """At the mean shape, around which normals are linearised, in any pose and light."""
    chosen = np.arange(3, model.vertex_count, 7)
    terms, rng = ColorTerms(model, chosen, SIZE), np.random.default_rng(2)
    sizes = (terms.shape_size, 3, 3, terms.albedo_size, 27)
    u = np.concatenate([np.zeros(sizes[0]), [0.2, -0.5, 0.3], [0.1, -0.2, 0.3], rng.normal(size=sizes[3]),
                        LIGHT.mean + 0.2 * rng.normal(size=27)])
    stops = np.cumsum([0, model.part_sizes[0], model.part_sizes[1], 3, 3, sizes[3], 27])
    rows = np.arange(len(chosen))

    def errors(u):
        place = terms.place(u)
        return terms.errors(u, place, rows, smooth_photo(place["pixels"])[0])[0]

    place = terms.place(u)
    layers = np.hstack([*smooth_photo(place["pixels"]), np.ones((len(rows), 1))]).astype(np.float32)
    found, jacobian = terms.linearised(u, place, rows, layers)
    np.testing.assert_allclose(found, errors(u), atol=1e-6)
    start, stop = stops[BLOCKS.index(block)], stops[BLOCKS.index(block) + 1]
    for k in range(start, stop):
        step = 3e-3 * np.eye(len(u))[k]  # arithmetic of single precision: not less
        wanted = (errors(u + step) - errors(u - step)) / 6e-3
        scale = np.abs(wanted).max()
        assert scale > 1e-3, "this unknown changes nothing"
        np.testing.assert_allclose(jacobian[..., k], wanted, atol=0.01 * scale)


def test_an_overexposed_photo_bounds_the_face_from_below_only(model):
    terms = ColorTerms(model, np.arange(model.vertex_count), SIZE)
    u, rows = np.zeros(terms.unknowns), np.arange(model.vertex_count)
    place, layers = terms.place(u), np.zeros((len(rows), 10), np.float32)
    u[-27:] = np.tile([0.9, 0, 0, 0, 0, 0, 0, 0, 0], 3)  # brighter than white on fair skin
    layers[:, :3] = 1.0
    errors, jacobian = terms.linearised(u, place, rows, layers)
    assert (errors <= 0).all() and (errors < 0).any()
    assert not jacobian[errors == 0].any() and jacobian[errors < 0].any(axis=-1).all()


def test_photo_layers_hold_the_derivatives_of_a_smooth_photo():
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    pixels = np.stack([columns, rows], axis=-1).reshape(-1, 2)
    colors, along_x, along_y = (part.reshape(SIZE, SIZE, 3) for part in smooth_photo(pixels))
    rgba = np.dstack([colors * 2 - 1, np.ones((SIZE, SIZE))]).astype(np.float32)
    layers = photometric_fitting.Layers(rgba).blurred(1.0)[8:-8, 8:-8]
    for found, wanted in zip((layers[..., :3], layers[..., 3:6], layers[..., 6:9]), (colors, along_x, along_y)):
        np.testing.assert_allclose(found, wanted[8:-8, 8:-8], atol=0.03 * np.abs(wanted).max())


def test_vertices_are_seen_as_the_pipeline_sees_them(model):
    """A crumpled surface, most of which lies behind another part of it or beyond the picture."""
    rng = np.random.default_rng(0)
    world = np.float32(model.mean_shape * (1.3, 1.3, 0) + rng.normal(0, 0.5, model.mean_shape.shape) * (0.1, 0.1, 1))
    drawn = rasterizer.rasterize(camera.clip_coordinates(world[None], SIZE, SIZE), model.triangles, SIZE, SIZE)
    wanted = sampling.depth_visible(world[None], camera.project(world[None]), model.triangles, drawn)[0].numpy() > 0
    found = PhotometricFitter(model, LIGHT)._visible(world)
    assert 0.1 < wanted.mean() < 0.9 and np.mean(found != wanted) < 0.005


def test_areas_are_those_of_the_triangles_as_the_camera_sees_them(model, rng):
    world, towards = model.mean_shape + 0.1 * rng.normal(size=model.mean_shape.shape), rng.uniform(-1, 1, len(
        model.mean_shape))
    wanted = np.zeros(len(world))
    for triangle in model.triangles:
        a, b, c = world[triangle]
        wanted[triangle] += np.linalg.norm(np.cross(b - a, c - a))
    wanted *= np.maximum(towards, 0)
    found = PhotometricFitter(model, LIGHT)._areas(world, towards)
    np.testing.assert_allclose(found / found.sum(), wanted / wanted.sum(), rtol=1e-5)


def test_what_a_photo_has_beyond_the_basis_is_found(model):
    """Skin that is 0.06 brighter than the model's, under a known light."""
    coeff, fitter = faces(model, 1), PhotometricFitter(model, LIGHT)
    brighter = dataclasses.replace(model, mean_albedo=model.mean_albedo + np.float32(0.06 * 255))
    u, layers = unknowns_of(model, coeff[0]), photometric_fitting.Layers(photos(brighter, coeff)[0])
    found, weights = fitter.beyond(u, layers, 1.0, fitter.visible(u))
    seen, place = np.flatnonzero(weights), fitter._terms.place(u)
    assert len(seen) > 200 and not found[weights == 0].any()
    assert np.median(found[seen]) == pytest.approx(0.06, abs=0.01)
    light = fitter._terms.errors(u, place, seen, np.zeros((len(seen), 3), np.float32))[-1]
    errors = found[seen] * np.maximum(light, 0.1)
    wanted = light.clip(0).mean(axis=1) ** 2 * place["facing"][seen] / (
        1 + (errors ** 2).mean(axis=1) / (3.0 * 0.05) ** 2) ** 2
    np.testing.assert_allclose(weights[seen], wanted, rtol=1e-4)


# ---------------------------------------------------------------- details beyond the basis
def test_details_are_part_of_the_albedo_and_their_derivatives_right(model, rng):
    chosen = np.arange(3, model.vertex_count, 7)
    details = DetailPrior(rng.uniform(-0.1, 0.1, (model.vertex_count, 3)).astype(np.float32),
                          rng.normal(0, 0.1, (model.vertex_count, 3, 2)).astype(np.float32))
    bare, terms = ColorTerms(model, chosen, SIZE), ColorTerms(model, chosen, SIZE, details)
    assert terms.unknowns == bare.unknowns + 2 and terms.albedo_size == terms.basis_size + 2
    coeff, amounts = faces(model, 1)[0], (0.7, -1.2)
    u, rows = unknowns_of(model, coeff, amounts), np.arange(0, len(chosen), 3)
    place, layers = terms.place(u), np.zeros((len(rows), 9), np.float32)
    plain = bare.errors(unknowns_of(model, coeff), place, rows, layers[:, :3])
    found = terms.errors(u, place, rows, layers[:, :3])
    wanted = plain[1] + details.mean[chosen[rows]] + details.modes[chosen[rows]] @ np.float32(amounts)
    np.testing.assert_allclose(found[1], wanted, atol=1e-6)
    np.testing.assert_allclose(terms.coarse(rows)[0] + terms.coarse(rows)[1] @ model.split(coeff).tex, plain[1],
                               atol=1e-6)
    _, jacobian = terms.linearised(u, place, rows, layers)
    at = len(u) - 27 - 2
    for k in range(2):
        step = np.zeros(len(u))
        step[at + k] = 1e-2
        slope = (terms.errors(u + step, place, rows, layers[:, :3])[0]
                 - terms.errors(u - step, place, rows, layers[:, :3])[0]) / 2e-2
        np.testing.assert_allclose(jacobian[:, :, at + k], slope, atol=2e-5)


def test_a_beard_is_not_taken_for_light(model):
    """A dark lower half under plain light: without details the light comes from above, with them hardly."""
    details, coeff = beard(model), faces(model, 4)
    model.split(coeff).gamma[:] = LIGHT.mean
    bearded = dataclasses.replace(model, mean_albedo=model.mean_albedo + 255 * details.modes[..., 0])
    rgba, before = photos(bearded, coeff), landmarks(model, coeff)
    off = []
    for prior in (None, details):
        found = PhotometricFitter(model, LIGHT, prior).fit(rgba, before)
        assert found.fitted.all() and found.coefficients.shape == coeff.shape
        off.append(np.abs(model.split(found.coefficients).gamma - LIGHT.mean).mean())
    assert off[1] < 0.5 * off[0]


def test_the_coarse_albedo_is_the_bases_best_in_the_found_light(model, monkeypatch):
    """Against least squares over all channels at once, with the weights that the residuals then have: of two photos
    that do not agree, the second of which says less."""
    monkeypatch.setattr(photometric_fitting, "COARSE_ROUNDS", 60)
    monkeypatch.setattr(photometric_fitting, "EVIDENCE", 3.0)  # so that the prior shows
    details, coeff = beard(model), faces(model, 2, seed=5)
    bearded = dataclasses.replace(model, mean_albedo=model.mean_albedo + 255 * details.modes[..., 0])
    fitter = PhotometricFitter(model, LIGHT, details)
    photographed = [(unknowns_of(model, one, [1.0]), photometric_fitting.Layers(rgba), weight)
                    for one, rgba, weight in zip(coeff, photos(bearded, coeff), (1.0, 0.4))]
    found = fitter.coarse_albedo(iter(photographed))
    left, right = [np.eye(len(found))], [np.zeros(len(found))]
    for u, layers, weight in photographed:
        place = fitter._terms.place(u)
        rows, sampled = fitter._sampled(place, layers, 1.0, fitter.visible(u))
        mean, basis = fitter._terms.coarse(rows)
        light = fitter._terms.errors(u, place, rows, sampled[:, :3])[-1]
        errors = (mean + basis @ np.float32(found)) * light - sampled[:, :3]
        known = 1 - ((sampled[:, :3] > 0.97) & (errors > 0))
        root = np.sqrt(weight * photometric_fitting._weights(errors * known, place["facing"][rows],
                                                             len(fitter._terms.chosen)))
        for channel in range(3):
            here = root * known[:, channel]
            left.append(basis[:, channel] * (light[:, channel] * here)[:, None])
            right.append((sampled[:, channel] - mean[:, channel] * light[:, channel]) * here)
    wanted = np.linalg.lstsq(np.concatenate(left), np.concatenate(right), rcond=None)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    tex = model.split(coeff).tex
    assert np.abs(tex[1] - tex[0]).max() > 1 and np.abs(found - tex[0]).max() > 0.3


def test_without_any_amount_of_details_the_coarse_albedo_is_that_of_the_fit(model):
    """In bright light too, where a clipped photo bounds the albedo from below only."""
    details = DetailPrior(np.zeros((model.vertex_count, 3), np.float32),
                          np.full((model.vertex_count, 3, 1), 1e-6, np.float32))
    coeff = faces(model, 4)
    model.split(coeff).gamma[:, [0, 9, 18]] += 0.25
    rgba, before = photos(model, coeff), landmarks(model, coeff)
    assert 0.05 < (rgba[..., :3][rgba[..., 3] > 0] > 0.97).mean() < 0.5
    with_none, plain = (PhotometricFitter(model, LIGHT, prior).fit(rgba, before) for prior in (details, None))
    albedo = [model.albedo(model.split(found.coefficients).tex).numpy() for found in (with_none, plain)]
    assert np.abs(albedo[0] - albedo[1]).mean() < 0.4  # levels
    np.testing.assert_allclose(with_none.color_residual, plain.color_residual, rtol=0.05)


def test_the_quality_is_that_of_the_face_that_is_found(model):
    details, coeff = beard(model), faces(model, 2)
    bearded = dataclasses.replace(model, mean_albedo=model.mean_albedo + 255 * details.modes[..., 0])
    rgba = photos(bearded, coeff)
    fitter, before = PhotometricFitter(model, LIGHT, details), landmarks(model, coeff)
    found = fitter.fit(rgba, before)
    for b in range(2):
        layers = photometric_fitting.Layers(rgba[b])
        u = fitter.descend(layers, *fitter.prior(before.parameters[b], before.precision[b]))
        deviation, unexplained, *_ = fitter.quality(u, layers, model.split(found.coefficients[b]).tex)
        np.testing.assert_allclose((found.color_residual[b], found.unexplained[b]), (deviation, unexplained), rtol=1e-5)
        assert fitter.quality(u, layers)[0] > 1.05 * deviation  # without its beard the basis is too bright


def test_the_prior_of_light_counts_twice(model):
    before = landmarks(model, faces(model, 1))
    _, precision = PhotometricFitter(model, LIGHT).prior(before.parameters[0], before.precision[0])
    np.testing.assert_allclose(precision[-27:, -27:], 2 * LIGHT.precision)


def test_a_mean_without_directions_is_no_part_of_the_coarse_face(model):
    darker = DetailPrior(np.full((model.vertex_count, 3), -0.1, np.float32), np.zeros((model.vertex_count, 3, 0)))
    coeff = faces(model, 1)
    skin = dataclasses.replace(model, mean_albedo=model.mean_albedo - np.float32(0.1 * 255))
    found = PhotometricFitter(model, LIGHT, darker).fit(photos(skin, coeff), landmarks(model, coeff))
    wanted = model.albedo(model.split(coeff).tex).numpy() - 0.1 * 255
    albedo = model.albedo(model.split(found.coefficients).tex).numpy()
    assert np.abs(albedo - wanted)[found.seen].mean() < 0.6 * np.abs(0.1 * 255)


@pytest.mark.parametrize("mean, modes", [((5, 4), (5, 4, 1)), ((5, 1), (5, 1, 1)), ((5,), (5, 3, 1)),
                                         ((5, 3), (4, 3, 1)), ((5, 3), (5, 3)), ((5, 3), (5, 3, 300))])
def test_priors_of_other_shapes_are_refused(mean, modes):
    with pytest.raises(ValueError, match=r"mean \(N, 3\) and modes \(N, 3, D\), D up to 256"):
        DetailPrior(np.zeros(mean), np.zeros(modes))


def test_priors_that_are_not_finite_or_no_precision_are_refused():
    for value in (np.nan, 1e300):
        with pytest.raises(ValueError, match="prior of details is not finite"):
            DetailPrior(np.full((5, 3), value), np.zeros((5, 3, 1)))
        with pytest.raises(ValueError, match="prior of lights is not finite"):
            LightPrior(np.full(27, value), np.eye(27))
    crooked = np.eye(27)
    crooked[0, 1] = 0.5
    for precision in (-np.eye(27), np.zeros((27, 27)), crooked):
        with pytest.raises(ValueError, match="not symmetric and positive definite"):
            LightPrior(np.zeros(27), precision)
    with pytest.raises(ValueError, match="27 coefficients"):
        LightPrior(np.zeros(9), np.eye(9))


def test_the_coarse_albedo_of_photos_that_show_nothing(model):
    fitter, coeff = PhotometricFitter(model, LIGHT, beard(model)), faces(model, 1)
    parts = model.split(coeff)
    own = unknowns_of(model, coeff[0], [1.0])
    nothing = photometric_fitting.Layers(np.full((SIZE, SIZE, 4), -1.0, np.float32) * np.float32((1, 1, 1, 0)))
    np.testing.assert_allclose(fitter.coarse_albedo([(own, nothing, 1.0)]), parts.tex[0])
    np.testing.assert_array_equal(PhotometricFitter(model, LIGHT).coarse_albedo(
        [(unknowns_of(model, coeff[0]), nothing, 1.0)]), parts.tex[0])


def test_coefficients_of_unknowns_are_those_they_were_made_of(model):
    fitter, coeff = PhotometricFitter(model, LIGHT, beard(model)), faces(model, 1)[0]
    np.testing.assert_array_equal(fitter.coefficients(unknowns_of(model, coeff, [0.3])), coeff)
    other = np.arange(len(model.split(coeff).tex))
    found = fitter.coefficients(unknowns_of(model, coeff, [0.3]), other)
    np.testing.assert_array_equal(model.split(found).tex, other)
    np.testing.assert_array_equal(model.split(found).gamma, model.split(coeff).gamma)


# ---------------------------------------------------------------- known faces
def test_known_faces_come_nearer(model, world):
    coeff, _, before, result = world
    start = np.zeros_like(coeff)
    start[:, parameter_columns(model)] = before.parameters
    assert result.fitted.all() and result.coefficients.dtype == np.float32
    first, then = (pixel_errors(model, one, coeff, result.seen) for one in (start, result.coefficients))
    assert then.mean() < 0.6 * first.mean()
    first, then = (shape_errors(model, one, coeff) for one in (start, result.coefficients))
    assert then.mean() < 0.7 * first.mean()
    albedo = [model.albedo(model.split(one).tex).numpy() for one in (coeff, result.coefficients, start)]
    assert np.abs(albedo[1] - albedo[0]).mean() < 0.5 * np.abs(albedo[2] - albedo[0]).mean()


def test_a_face_of_the_model_is_explained(world):
    *_, before, result = world
    np.testing.assert_array_equal(result.landmark_residual, before.residual)
    assert (result.unexplained < 0.02).all() and (result.color_residual < 0.03).all()
    assert result.explained[result.seen].mean() > 0.9
    assert not result.explained[~result.seen].any() and 0.3 < result.seen.mean() < 0.95
    assert result.explained.min() >= 0 and result.explained.max() <= 1


def test_what_covers_a_face_is_found_out_and_changes_less_than_if_it_were_skin(model, world, monkeypatch):
    coeff, rgba, before, clean = world
    covered = rgba.copy()
    covered[:, 120:165, 70:150, :3] = (-0.6, 0.1, 0.7)  # a blue scrap on mouth and cheek
    result = PhotometricFitter(model, LIGHT).fit(covered, before)
    pixels = camera.to_pixels(camera.project(posed(model, result.coefficients)), SIZE).numpy()
    inside = result.seen & ((pixels > (75, 125)) & (pixels < (145, 160))).all(axis=2)
    outside = result.seen & ~((pixels > (65, 115)) & (pixels < (155, 170))).all(axis=2)
    assert inside.any(axis=1).all()
    assert result.explained[inside].mean() < 0.1 and result.explained[outside].mean() > 0.8
    assert (result.unexplained > clean.unexplained + 0.05).all()
    without = PhotometricFitter(model, LIGHT).fit(covered * (1, 1, 1, 0), before)
    monkeypatch.setattr(photometric_fitting, "ROBUST", 1e3)
    believed = PhotometricFitter(model, LIGHT).fit(covered, before)
    found, wanted, misled = (pixel_errors(model, one.coefficients, coeff, outside).mean()
                             for one in (result, without, believed))
    assert found < 1.6 * wanted and found < 0.5 * misled


def test_every_photo_is_fitted_by_itself_and_the_same_again(model, world):
    _, rgba, before, result = world
    again = PhotometricFitter(model, LIGHT).fit(rgba[2:3], pick(before, [2]))
    np.testing.assert_array_equal(again.coefficients[0], result.coefficients[2])
    np.testing.assert_array_equal(again.explained[0], result.explained[2])


def pick(fit, rows):
    """Some photos of a landmark fit."""
    arrays = {name: getattr(fit, name)[rows] for name in ("parameters", "precision", "residual", "median_residual",
                                                          "weights", "rounds", "converged")}
    return landmark_fitting.LandmarkFit(**arrays, sizes=fit.sizes)


@pytest.mark.parametrize("size", [112, 448])
def test_photos_of_any_width(model, world, size):
    coeff, _, before, result = world
    other = PhotometricFitter(model, LIGHT).fit(photos(model, coeff[:2], size), pick(before, [0, 1]))
    found = posed(model, other.coefficients), posed(model, result.coefficients[:2])
    at = [camera.to_pixels(camera.project(one), 224).numpy() for one in found]
    assert np.linalg.norm(at[0] - at[1], axis=2).mean() < 0.7


# ---------------------------------------------------------------- what spoils photos
def spoilt(kind, rgba):
    rgba = rgba.copy()
    if kind == "nothing is skin":
        rgba[..., 3] = 0
    elif kind == "a speck is skin":
        rgba[..., 3] = 0
        rgba[:, 110:114, 110:114, 3] = 1
    elif kind == "not a number":
        rgba[:, 100, 100, 1] = np.nan
    elif kind == "infinite":
        rgba[:, 0, 0, 0] = np.inf
    return rgba


@pytest.mark.parametrize("kind", ["nothing is skin", "a speck is skin", "not a number", "infinite"])
def test_photos_without_colours_keep_the_landmarks_face(model, world, kind):
    _, rgba, before, _ = world
    result = PhotometricFitter(model, LIGHT).fit(spoilt(kind, rgba[:2]), pick(before, [0, 1]))
    parts = model.split(result.coefficients)
    assert not result.fitted.any() and (result.unexplained == 1).all() and np.isnan(result.color_residual).all()
    np.testing.assert_allclose(result.coefficients[:, parameter_columns(model)], before.parameters[:2], atol=1e-6)
    np.testing.assert_array_equal(parts.tex, 0)
    np.testing.assert_allclose(parts.gamma, np.tile(LIGHT.mean, (2, 1)), atol=1e-6)
    assert not result.seen.any() and not result.explained.any()


@pytest.mark.parametrize("light", [-1.0, 1.0])
def test_black_and_white_photos_give_finite_faces(model, world, light):
    _, rgba, before, _ = world
    flat = rgba[:1].copy()
    flat[..., :3] = light
    result = PhotometricFitter(model, LIGHT).fit(flat, pick(before, [0]))
    assert np.isfinite(result.coefficients).all() and np.abs(result.coefficients).max() < 20


def test_colours_alone_find_what_no_landmarks_told(model, world):
    """The prior is all there is beside them; one that allows no change is obeyed."""
    coeff, rgba, _, _ = world
    nothing = LandmarkFitter(model, target_points(model)).fit(np.full((1, 73, 2), np.nan))
    columns = parameter_columns(model)
    near = dataclasses.replace(nothing, parameters=coeff[:1, columns] * 0.8)
    for precision, stays in ((1.0, False), (1e8, True)):
        prior = dataclasses.replace(near, precision=nothing.precision * precision)
        result = PhotometricFitter(model, LIGHT).fit(rgba[:1], prior)
        moved = np.abs(result.coefficients[:, columns] - near.parameters).max()
        assert moved < 1e-4 if stays else moved > 0.1
        assert result.fitted.all() and np.isnan(result.landmark_residual).all()
        assert np.abs(model.split(result.coefficients).tex).max() > 0.1


def test_a_face_behind_the_camera_is_refused(model, world):
    _, rgba, before, _ = world
    away = pick(before, [0])
    away.parameters[0, -1] = 30.0
    result = PhotometricFitter(model, LIGHT).fit(rgba[:1], away)
    assert not result.fitted.any() and np.isfinite(result.coefficients).all()


def test_models_without_components(rng):
    bare = half_ellipsoid(components=(0, 0, 0))
    coeff = faces(bare, 1)
    result = PhotometricFitter(bare, LIGHT).fit(photos(bare, coeff), landmarks(bare, coeff, noise=1.0))
    assert result.fitted.all()
    assert np.abs(result.coefficients - coeff).max() < 0.4


def test_wrong_shapes_and_empty_batches(model, world):
    _, rgba, before, _ = world
    fitter = PhotometricFitter(model, LIGHT)
    for wrong in (rgba[:1], rgba[..., :3], rgba[:, :100], rgba[0]):
        with pytest.raises(ValueError, match="rgba must have shape"):
            fitter.fit(wrong, before)
    empty = fitter.fit(np.zeros((0, 64, 64, 4), np.float32), pick(before, []))
    assert empty.coefficients.shape == (0, model.coefficient_count)


def test_as_many_vertices_take_part_whatever_the_model_and_none_without_a_surface():
    small, large = half_ellipsoid(), half_ellipsoid(61, 81)
    loose = dataclasses.replace(large, triangles=large.triangles[(large.triangles >= 500).all(axis=1)])
    assert len(photometric_fitting._participants(small, 0)) == small.vertex_count
    assert len(photometric_fitting._participants(large, 0)) == photometric_fitting.VERTICES
    chosen = photometric_fitting._participants(loose, 0)
    assert np.isin(chosen, loose.triangles).all() and (np.diff(chosen) > 0).all()
    coeff = faces(loose, 1)
    result = PhotometricFitter(loose, LIGHT).fit(photos(loose, coeff), landmarks(loose, coeff))
    assert result.fitted.all() and np.isfinite(result.coefficients).all()
