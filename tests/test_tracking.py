"""One face is followed without a detector, searched when lost, and never exchanged for another."""

import numpy as np
import pytest

from facegcn.photos import tracking
from facegcn.photos.dense_landmarks import DenseLandmarks, Look, landmarks_of
from facegcn.photos.detection import Face

SHAPE = np.random.default_rng(0).normal(size=(468, 3)) * (20, 25, 8)
BLANK = np.zeros((240, 320, 3), np.uint8)


class Stage:
    """Faces by their places; stands in for the networks."""

    def __init__(self):
        self.faces, self.searches, self.looks = [], 0, 0

    def look(self, picture, region):
        self.looks += 1
        near = [place for place in self.faces if np.linalg.norm(np.array(place) - region.centre) < 40]
        if not near:
            return Look(SHAPE + (*region.centre, 0), 0.0)
        return Look(SHAPE + (*near[0], 0), 30.0)

    def dense(self, place):
        everything = np.ones(468, np.float32)
        return DenseLandmarks(np.float32(SHAPE[:, :2] + place), np.float32(SHAPE[:, 2]), everything, everything > 0)

    def find(self, image):
        self.searches += 1
        return [Face(np.zeros((5, 2), np.float32), self.dense(place), (0, 0, 1, 1), 1.0) for place in self.faces]


@pytest.fixture
def stage(monkeypatch):
    stage = Stage()
    monkeypatch.setattr(tracking, "look", stage.look)
    monkeypatch.setattr(tracking, "find_faces", stage.find)
    monkeypatch.setattr(tracking, "landmarks_of", lambda picture, seen: stage.dense(seen.points[:, :2].mean(axis=0)
                                                                                    - SHAPE[:, :2].mean(axis=0)))
    return stage


def place(found):
    return found.dense.points.mean(axis=0) - SHAPE[:, :2].mean(axis=0)


def test_a_face_is_searched_once_and_then_followed(stage):
    tracker = tracking.FaceTracker(lambda image, dense: True)
    for k in range(8):
        stage.faces = [(100 + 6 * k, 120)]
        found = tracker(BLANK, k / 30)
        assert found.anew == (k == 0)
        np.testing.assert_allclose(place(found), stage.faces[0], atol=1e-3)
    assert stage.searches == 1


def test_a_lost_face_is_searched_now_and_then(stage):
    tracker = tracking.FaceTracker(lambda image, dense: True)
    stage.faces = [(100, 120)]
    tracker(BLANK, 0.0)
    stage.faces = []
    assert all(tracker(BLANK, k / 30) is None for k in range(1, 31))
    assert 4 <= stage.searches - 1 <= 12
    stage.faces = [(200, 100)]
    assert any(tracker(BLANK, 1 + k / 30) is not None for k in range(1, 9))


def test_of_several_faces_the_accepted_one_nearest_to_the_last_place_is_followed(stage):
    tracker = tracking.FaceTracker(lambda image, dense: dense.points.mean() > 0)
    stage.faces = [(100, 120)]
    tracker(BLANK, 0.0)
    stage.faces = []
    tracker(BLANK, 0.1)
    stage.faces = [(250, 60), (120, 180)]
    np.testing.assert_allclose(place(tracker(BLANK, 0.5)), (120, 180), atol=1e-3)
    tracker.lose()
    stage.faces = [(-900, -900)]
    assert tracker(BLANK, 0.9) is None


def test_networks_of_this_module_are_the_real_ones():
    assert tracking.landmarks_of is landmarks_of
