"""Films are read frame by frame, whatever their header says; what is none is refused in one message."""

import logging

import numpy as np
import pytest

from facegcn.errors import UserError
from facegcn.photos.frames import is_film, open_film, rising
from tests.clips import write_clip


def levels(count, size=(48, 64)):
    """Pictures whose grey tells their number."""
    for k in range(count):
        yield np.full((*size, 3), 10 * k, np.uint8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("films") / "clip.mp4"
    write_clip(path, levels(12), rate=24.0)
    return str(path)


def test_frames_come_in_their_order_with_their_times(clip):
    film = open_film(clip)
    assert len(film) == 12 and film.size == (64, 48) and film.step == pytest.approx(1 / 24, abs=1e-3)
    np.testing.assert_allclose(film.times, np.arange(12) / 24, atol=2e-3)
    found = list(film.frames())
    assert [index for index, _ in found] == list(range(12))
    assert all(abs(float(picture.mean()) - 10 * index) < 4 for index, picture in found)
    assert [index for index, _ in film.frames([7, 2])] == [2, 7]


def test_colours_are_red_green_blue(tmp_path):
    write_clip(tmp_path / "red.mp4", [np.full((48, 64, 3), (200, 20, 20), np.uint8)] * 2)
    _, picture = next(open_film(str(tmp_path / "red.mp4")).frames())
    assert picture[..., 0].mean() > 150 and picture[..., 2].mean() < 80


def test_a_film_of_one_frame_is_a_film(tmp_path):
    write_clip(tmp_path / "one.mp4", levels(1))
    film = open_film(str(tmp_path / "one.mp4"))
    assert len(film) == 1 and film.times.tolist() == [0.0] and film.step > 0


def test_a_missing_end_is_told_and_the_rest_is_read(tmp_path, caplog, rng):
    noisy = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(40)]
    write_clip(tmp_path / "whole.avi", noisy, codec="MJPG")
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[:len(data) // 2])
    with caplog.at_level(logging.WARNING):
        film = open_film(str(tmp_path / "cut.avi"))
    assert 5 < len(film) < 35 and len(list(film.frames())) >= len(film) - 1
    assert np.all(np.diff(film.times) > 0)


@pytest.mark.parametrize("content", [b"", b"no film at all" * 50])
def test_what_is_no_film_is_refused_in_one_message(tmp_path, content, capfd):
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(UserError, match="no film that can be read"):
        open_film(str(path))
    assert "moov" not in capfd.readouterr().err


def test_a_cut_mp4_and_an_absent_file_are_refused(clip, tmp_path):
    with open(clip, "rb") as file:
        data = file.read()
    (tmp_path / "cut.mp4").write_bytes(data[:len(data) // 2])
    with pytest.raises(UserError, match="broken"):
        open_film(str(tmp_path / "cut.mp4"))
    with pytest.raises(UserError, match="there is no file"):
        open_film(str(tmp_path / "none%02d.mp4"))


def test_times_that_do_not_rise_are_mended():
    np.testing.assert_allclose(rising([0.0, 0.0, 0.0, 0.0], 25.0), np.arange(4) / 25)
    np.testing.assert_allclose(rising([1.0, 1.1, 1.05, 1.3], 25.0), [0.0, 0.1, 0.275, 0.525], atol=0.08)
    assert (np.diff(rising([1.0, 1.1, 1.05, 1.3], 0.0)) > 0).all()
    np.testing.assert_allclose(rising([0.0, np.nan, np.nan], np.inf), np.arange(3) / 30)


def test_films_are_known_by_their_ending():
    assert is_film("a/B.MP4") and is_film("x.webm") and not is_film("x.png") and not is_film("mp4")
