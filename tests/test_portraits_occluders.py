"""What is drawn over made portraits: alpha stays the truth of what is face in sight."""

import numpy as np
import pytest

from facegcn.portraits import formation, looks, mouth, occluders, scene, shine
from facegcn.portraits import maker as portraits
from facegcn.portraits import overlay as portrait_overlay
from tests.plain_face import landmark_places, plain_face

SIZE = 160


def _pixels(points):
    """A camera straight before the face: 80 pixels a decimetre."""
    return np.float32(points)[:, :2] * (80, -80) + SIZE / 2


def _marks(gap=0.0):
    """Landmarks (68, 3) of the plain face with this gap between the inner lips, dm."""
    marks = np.concatenate([landmark_places(), np.zeros((68, 1))], axis=1)
    marks[[61, 62, 63], 1], marks[[65, 66, 67], 1] = -0.42 + gap / 2, -0.42 - gap / 2
    marks[[60, 64], 1] = -0.42
    return marks


@pytest.fixture
def overlay():
    return portrait_overlay.Overlay(np.full((SIZE, SIZE, 3), 0.5, np.float32), np.full((SIZE, SIZE), 255, np.uint8))


# -------------------------------------------------------------------- the mouth
def test_an_open_mouth_is_no_face_and_holds_light_teeth_and_dark(overlay, rng):
    light, dark = 0, 0
    for _ in range(20):
        overlay.image[:], overlay.alpha[:] = 0.5, 255
        mouth.add_mouth(overlay, _marks(0.2), _pixels, 1.0, np.zeros((SIZE, SIZE)), rng)
        rows, columns = np.nonzero(overlay.alpha == 0)
        center = np.stack([columns + 0.5, rows + 0.5], axis=1)
        expected = _pixels(_marks(0.2)[60:68])
        assert (center.min(axis=0) >= expected.min(axis=0) - 2).all()
        assert (center.max(axis=0) <= expected.max(axis=0) + 2).all()
        assert 0.7 < rows.size / (34 * 18) < 0.97  # a lens in its box of 32 x 16 pixels, with the pixels it touches
        changed = (overlay.image != 0.5).any(axis=2)
        np.testing.assert_array_equal(overlay.alpha[changed & (np.abs(overlay.image - 0.5).max(axis=2) > 0.05)], 0)
        brightness = overlay.image[rows, columns].mean(axis=1)
        light, dark = light + (brightness > 0.45).mean(), dark + (brightness < 0.2).mean()
    assert light > 3 and dark > 3


def test_a_closed_mouth_is_left_alone(overlay, rng):
    mouth.add_mouth(overlay, _marks(0.005), _pixels, 1.0, np.zeros((SIZE, SIZE)), rng)
    assert (overlay.alpha == 255).all() and (overlay.image == 0.5).all()


def test_hair_stays_before_the_mouth(overlay, rng):
    hair = np.zeros((SIZE, SIZE))
    hair[:, :SIZE // 2] = 1
    mouth.add_mouth(overlay, _marks(0.2), _pixels, 1.0, hair, rng)
    assert (overlay.alpha[:, :SIZE // 2] == 255).all() and (overlay.image[:, :SIZE // 2] == 0.5).all()
    assert (overlay.alpha[:, SIZE // 2:] == 0).any()
    overlay.alpha[:] = 255
    mouth.add_mouth(overlay, _marks(0.2), _pixels, 1.0, np.ones((SIZE, SIZE)), rng)
    assert (overlay.alpha == 255).all()


def test_teeth_are_as_white_as_teeth(overlay, rng):
    """No colour channel runs away from the others."""
    for _ in range(20):
        overlay.image[:], overlay.alpha[:] = 0.5, 255
        mouth.add_mouth(overlay, _marks(0.12), _pixels, 1.0, np.zeros((SIZE, SIZE)), rng)
        inside = overlay.image[overlay.alpha == 0]
        red, green, blue = inside[inside.mean(axis=1) > 0.5].reshape(-1, 3).T
        assert (red >= green - 0.02).all() and (green >= blue - 0.02).all()


# -------------------------------------------------------------------- things
_SKIN = np.float32((0.7, 0.5, 0.4))


def _draw(overlay, kind, rng):
    overlay.image[:], overlay.alpha[:] = 0.5, 255
    occluders.add_occluder(overlay, kind, _marks(), _pixels, _SKIN, rng)
    return np.abs(overlay.image - 0.5).max(axis=2), overlay.alpha == 0


@pytest.mark.parametrize("kind", [kind for kind in looks.OCCLUDERS if kind != "none"])
def test_a_thing_clears_alpha_where_it_is_and_only_there(overlay, monkeypatch, rng, kind):
    monkeypatch.setattr(looks.OCCLUDER, "shadow", (0.0, 0.0))
    shares = []
    for _ in range(12):
        difference, hidden = _draw(overlay, kind, rng)
        assert difference[~hidden].max() <= 0.5 * 12 / 255 + 1e-6  # but for the faintest rim
        shares.append(hidden.mean())
        if hidden.any():
            assert (difference[hidden] > 0.01).mean() > 0.5
    assert np.mean(shares) > 0.01 and max(shares) < 0.7


@pytest.mark.parametrize("kind", ["hand", "microphone", "mask", "scarf"])
def test_the_shadow_of_a_thing_darkens_the_face_and_leaves_it_in_sight(overlay, monkeypatch, rng, kind):
    monkeypatch.setattr(looks.OCCLUDER, "shadow", (0.5, 0.5))
    difference, hidden = _draw(overlay, kind, rng)
    beside = ~hidden & (difference > 0.02)
    assert beside.sum() > 50
    assert (overlay.image[beside].max(axis=1) < 0.5).mean() > 0.97  # the others are the thing's faint rim


def test_no_thing_changes_nothing(overlay, rng):
    difference, hidden = _draw(overlay, "none", rng)
    assert difference.max() == 0 and not hidden.any()


def test_masks_hide_the_mouth_and_show_the_eyes(overlay, rng):
    places = np.floor(_pixels(_marks())).astype(int)
    for _ in range(10):
        _, hidden = _draw(overlay, "mask", rng)
        assert hidden[places[48:68, 1], places[48:68, 0]].all()
        assert not hidden[places[36:48, 1], places[36:48, 0]].any()


def test_hands_scarfs_and_microphones_reach_the_face(overlay, rng):
    marks = _pixels(_marks())
    inside = np.zeros((SIZE, SIZE), bool)
    low, high = marks[:17].min(axis=0).astype(int), marks[:17].max(axis=0).astype(int)
    inside[low[1]:high[1], low[0]:high[0]] = True
    for kind in ("hand", "scarf", "microphone"):
        reach = [(_draw(overlay, kind, rng)[1] & inside).sum() / inside.sum() for _ in range(20)]
        assert np.mean(np.array(reach) > 0.01) > 0.7, kind


def test_the_chances_of_things_and_shadows_are_whole():
    for table in (looks.OCCLUDERS, looks.SHADOW.kinds, looks.STYLES):
        assert sum(table.values()) == pytest.approx(1)


def test_caps_have_brims_before_the_forehead(monkeypatch, rng):
    monkeypatch.setattr(looks, "STYLES", {"cap": 1.0})
    marks = plain_face().mean_shape[plain_face().landmarks]
    reach = {}
    for chance in (0.0, 1.0):
        monkeypatch.setattr(looks.HEAD, "brim_chance", chance)
        pieces = [scene.head_surfaces(marks, np.zeros((0, 3)), _SKIN, np.zeros(3), rng)[-1] for _ in range(8)]
        assert all(piece.group == scene.CLOTH for piece in pieces)
        reach[chance] = np.mean([piece.vertices[:, 2].max() for piece in pieces])
    assert reach[1.0] > reach[0.0] + 0.2


# -------------------------------------------------------------------- light
def test_skin_shines_halfway_between_the_main_light_and_the_camera(rng):
    gamma = np.zeros((3, 9), np.float32)
    gamma[:, 3] = -0.5  # brighter towards +x
    normals = rng.normal(size=(4000, 3))
    normals = np.float32(normals / np.linalg.norm(normals, axis=1, keepdims=True))
    lit = formation.shading(normals, gamma.ravel()).mean(axis=1)
    assert normals[lit.argmax(), 0] > 0.99
    added = _gloss(normals, gamma, rng)
    best = normals[added.argmax()]
    np.testing.assert_allclose(best, np.array((1, 0, 1)) / np.sqrt(2), atol=0.08)
    assert added.min() >= 0 and added.max() <= 1.5 * looks.GLOSS.strength[1]
    assert (added[normals[:, 0] + normals[:, 2] < 0] == 0).all()
    np.testing.assert_allclose(_gloss(normals, 0 * gamma, rng), 0, atol=1e-2)


def _gloss(normals, gamma, rng):
    return shine.gloss(normals, gamma.ravel(), rng)[:, 0]


def test_a_cast_shadow_darkens_the_person_only(rng):
    subject = np.zeros((SIZE, SIZE), bool)
    subject[20:150, 30:130] = True
    shares, borders = [], []
    for _ in range(40):
        image = np.full((SIZE, SIZE, 3), 0.5, np.float32)
        shine.cast_shadow(image, subject, _pixels(_marks()), rng)
        assert (image[~subject] == 0.5).all()
        assert image.max() <= 0.5 and image.min() >= 0.5 * (1 - looks.SHADOW.depth[1] * (1 + looks.SHADOW.blue)) - 1e-5
        shares.append((image[subject].mean(axis=1) < 0.45).mean())
        borders.append(np.abs(np.diff(image[40:140, 40:120, 1], axis=1)).max())
    assert 0.15 < np.mean(shares) < 0.8
    assert np.percentile(borders, 90) > 0.1 > np.percentile(borders, 10)  # hard and soft ones


def test_shadows_and_shine_change_neither_truth_nor_alpha(monkeypatch):
    def made(chance):
        for table in (looks.SHADOW, looks.GLOSS):
            monkeypatch.setattr(table, "chance", chance)
        monkeypatch.setattr(portraits, "add_occluder", lambda *arguments: None)
        for name in ("add_strands", "add_glasses", "add_beard"):
            monkeypatch.setattr(portrait_overlay, name, lambda *arguments: None)
        monkeypatch.setattr(portraits, "add_mouth", lambda *arguments: None)
        return portraits.PortraitMaker(plain_face(), size=64, seed=5).make(3)

    plain, lit = made(0.0), made(1.0)
    np.testing.assert_array_equal(plain.coeff, lit.coeff)
    np.testing.assert_array_equal(plain.albedo, lit.albedo)
    np.testing.assert_array_equal(plain.visible, lit.visible)
    np.testing.assert_array_equal(plain.rgba[..., 3], lit.rgba[..., 3])
    assert np.abs(plain.rgba[..., :3].astype(int) - lit.rgba[..., :3])[plain.rgba[..., 3] > 0].mean() > 2
