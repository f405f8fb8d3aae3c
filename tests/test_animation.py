"""Clips: their files, Live Link Face's among them, every mistake by itself, and the sample."""

import numpy as np
import pytest

from facegcn.animation import HEAD_COLUMNS, Clip, read_clip, sample_clip, write_clip
from facegcn.assets import __main__ as assets
from facegcn.blendshapes import ARKIT_NAMES
from facegcn.errors import UserError
from facegcn.geometry import rotate

LIVE_LINK = ["Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in ARKIT_NAMES), "HeadYaw",
             "HeadPitch", "HeadRoll", *(f"{side}Eye{turn}" for side in ("Left", "Right")
                                        for turn in ("Yaw", "Pitch", "Roll"))]


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "clip.csv"
    path.write_bytes(text.encode(encoding))
    return str(path)


# ---------------------------------------------------------------- sound files
def test_file_round_trip(tmp_path, rng):
    names = ("eyeBlinkLeft", "jawOpen", "tongueOut")
    for head in (rng.normal(0, 0.3, (20, 3)), None):
        clip = Clip(np.cumsum(rng.uniform(0.01, 0.1, 20)) * (np.arange(20) > 0), names, rng.uniform(size=(20, 3)), head)
        clip.times[1:] += 1e5  # a long recording keeps its milliseconds
        path = str(tmp_path / "new" / "clip.csv")
        write_clip(path, clip)
        again = read_clip(path)
        assert again.names == names
        np.testing.assert_allclose(again.times, clip.times, rtol=0, atol=1e-6)
        np.testing.assert_allclose(again.weights, clip.weights, atol=1e-6)
        assert again.head is None if head is None else np.abs(again.head - head).max() < 1e-5


def test_any_columns_in_any_order_and_case(tmp_path):
    clip = read_clip(written(tmp_path, "\ufeffJAWOPEN, headyaw ,Time\r\n0.5,0.1,2\r\n\r\n1,-0.1,2.5\r\n"))
    assert clip.names == ("jawOpen",) and clip.duration == 0.5 and clip.times.tolist() == [0, 0.5]
    assert clip.weights.tolist() == [[0.5], [1]] and clip.head.tolist() == [[0, 0.1, 0], [0, -0.1, 0]]


def test_frames_are_counted_at_a_rate(tmp_path):
    path = written(tmp_path, "frame,jawOpen\n10,0\n11,1\n13,0\n")
    np.testing.assert_allclose(read_clip(path).times, [0, 1 / 30, 0.1])
    np.testing.assert_allclose(read_clip(path, 24).times, [0, 1 / 24, 0.125])
    with pytest.raises(UserError, match="the frame rate of .* is 0"):
        read_clip(path, 0)


def live_link(frames, changes=()):
    """An export: rows of (timecode, jawOpen, yaw); ``changes`` are whole rows by number."""
    rows = [",".join(LIVE_LINK)]
    for code, jaw, yaw in frames:
        cells = ["0.0"] * 61
        cells[LIVE_LINK.index("JawOpen") - 2], cells[LIVE_LINK.index("HeadYaw") - 2] = str(jaw), str(yaw)
        rows.append(",".join([code, "61", *cells]))
    for number, row in dict(changes).items():
        rows[number] = row
    return "\n".join(rows) + "\n"


def test_live_link_face_is_read_as_it_is(tmp_path, caplog):
    assert len(LIVE_LINK) == 63
    frames = [("16:11:59:58.500", 0.2, 0.1), ("16:11:59:59.500", 0.4, 0.2), ("16:12:00:00.500", 0.6, 0.3),
              ("16:12:00:01.500", 0.8, 0.4)]
    clip = read_clip(written(tmp_path, live_link(frames)))
    np.testing.assert_allclose(clip.times, np.arange(4) / 60, atol=1e-9)  # frame 59 tells of 60 a second
    assert clip.names == ARKIT_NAMES
    np.testing.assert_allclose(clip.weights[:, ARKIT_NAMES.index("jawOpen")], [0.2, 0.4, 0.6, 0.8])
    np.testing.assert_allclose(clip.head[:, 1], [0.1, 0.2, 0.3, 0.4])
    assert not clip.head[:, [0, 2]].any() and clip.lost(["jawOpen"]) == []
    at_100 = read_clip(str(tmp_path / "clip.csv"), 100)
    np.testing.assert_allclose(np.diff(at_100.times), [0.01, 0.41, 0.01], atol=1e-9)
    clip = read_clip(written(tmp_path, live_link(frames, {2: "16:11:59:59.500,0"})))
    assert len(clip.times) == 3 and "1 rows without a face are left out" in caplog.text


def test_weights_outside_are_clipped_with_one_warning(tmp_path, caplog):
    clip = read_clip(written(tmp_path, "time,jawOpen,mouthLeft,mouthRight\n0,1.4,0.5,-0.2\n1,1.0004,-0.0004,0\n"))
    assert clip.weights.tolist() == [[0.5 * 2, 0.5, 0], [1, 0, 0]]
    assert len(caplog.records) == 1 and "jawOpen, mouthRight go beyond 0 to 1 (-0.2 to 1.4)" in caplog.text


def test_weights_in_the_order_of_a_model():
    clip = Clip(np.arange(2.0), ("jawOpen", "tongueOut"), np.array([[0.1, 0.2], [0.3, 0.4]]))
    assert clip.weights_of(["mouthLeft", "jawOpen"]).tolist() == [[0, 0.1], [0, 0.3]]
    assert clip.lost(["mouthLeft", "jawOpen"]) == ["tongueOut"]


# ---------------------------------------------------------------- mistakes
@pytest.mark.parametrize(("text", "words"), [
    ("", "is empty: it needs a header and a row"),
    ("time,jawOpen\n\n", "is empty: it needs a header and a row"),
    ("time,jawopn,smileLeft,Zebra\n0,0,0,0\n",
     "'jawopn' (near: jawOpen"),
    ("time,qqqq\n0,0\n", "unknown columns: 'qqqq'; known are time or frame"),
    ("time;jawOpen\n0;1\n", "parted by commas"),
    ("time,jawOpen,JawOpen\n0,0,0\n", "has the column jawOpen twice"),
    ("jawOpen\n0\n", "has no column that tells time"),
    ("time\n0\n", "tells of nothing but time"),
    ("time,jawOpen\n0,0\n1\n", "clip.csv, line 3: 1 values, but the header has 2 columns"),
    ("time,jawOpen\n\n0,0\n1,0,0\n", "clip.csv, line 4: 3 values, but the header has 2 columns"),
    ("time,jawOpen\n0,0\n1,wide\n", "clip.csv, line 3: jawOpen is 'wide', expected a number"),
    ("time,jawOpen\n0,0\n1,\n", "clip.csv, line 3: jawOpen is '', expected a number"),
    ("time,jawOpen\n0,nan\n", "clip.csv, line 2: jawOpen is 'nan', expected a number"),
    ("time,jawOpen\n0,0\ninf,0\n", "clip.csv, line 3: time is 'inf', expected a number"),
    ("time,jawOpen\n0,0\n1,0\n1,0\n", "clip.csv, line 4: time does not increase"),
    ("frame,jawOpen\n3,0\n\n2,0\n", "clip.csv, line 4: frame does not increase"),
    ("time,headYaw\n0,0\n1,25\n", "clip.csv, line 3: headYaw is 25, expected radians"),
    ("timecode,jawOpen\n1:2:3:4,0\n5 o'clock,0\n", "clip.csv, line 3: the timecode is \"5 o'clock\""),
    ("timecode,jawOpen\n1:2:3:4,0\n1:2:3:300,0\n", "clip.csv, line 3: the timecode counts frame 300 of a second"),
    ('time,jawOpen\n0,"0\n', "is no CSV text file")])
def test_each_mistake_has_one_message(tmp_path, text, words):
    with pytest.raises(UserError) as caught:
        read_clip(written(tmp_path, text))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="the clip .*none.csv cannot be read: No such file"):
        read_clip(str(tmp_path / "none.csv"))
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_clip(str(tmp_path))
    with pytest.raises(UserError, match="is no CSV text file"):
        read_clip(written(tmp_path, "time,jawOpen\n0,0\n", "utf-16"))
    with pytest.raises(UserError, match="'Zebra1', .* and 5 more"):
        read_clip(written(tmp_path, "time," + ",".join(f"Zebra{k}" for k in range(15)) + "\n0\n"))
    rows = live_link([("1:1:1:1", 0, 0)], {1: "1:1:1:1,0"})
    with pytest.raises(UserError, match="saw no face in any row"):
        read_clip(written(tmp_path, rows))


# ---------------------------------------------------------------- the sample
def test_sample_begins_and_ends_neutral_and_shows_what_it_says():
    clip = sample_clip()
    assert clip.duration == 6 and len(clip.times) == 181 and set(clip.names) <= set(ARKIT_NAMES)
    assert clip.weights.min() == 0 and 0.5 < clip.weights.max() <= 1
    for end in (0, -1):
        assert not clip.weights[end].any() and not clip.head[end].any()
    tops = dict(zip(clip.names, clip.weights.max(axis=0)))
    for name in ("eyeBlinkLeft", "mouthSmileRight", "jawOpen", "browInnerUp", "eyeLookOutLeft", "eyeLookInLeft"):
        assert tops[name] > 0.5, name
    assert np.ptp(clip.head, axis=0).min() > 0.05
    assert np.abs(np.diff(clip.weights, axis=0)).max() < 0.6, "no frame jumps"
    assert len(sample_clip(60).times) == 361


def test_gaze_and_head_turn_to_the_same_side():
    """Both to the person's left first: +x."""
    clip = sample_clip()
    left = clip.weights[:, clip.names.index("eyeLookOutLeft")] > 0.5
    ahead = np.float32([[[0, 0, 1]]])
    turned = np.asarray(rotate(ahead, np.float32(clip.head[left].mean(axis=0)[None])))[0, 0]
    assert turned[0] > 0.1
    nod = clip.head[clip.head[:, 0].argmax()]
    assert np.asarray(rotate(ahead, np.float32(nod[None])))[0, 0, 1] < -0.1, "a positive pitch looks down"
    assert HEAD_COLUMNS == ("headPitch", "headYaw", "headRoll")


def test_command_writes_the_sample(tmp_path, capsys):
    out = tmp_path / "sub" / "clip.csv"
    assert assets.main(["clip", "--output", str(out), "--frame-rate", "24"]) == 0
    assert "6.0 seconds, 145 frames" in capsys.readouterr().out
    clip, made = read_clip(str(out)), sample_clip(24)
    np.testing.assert_allclose(clip.weights, made.weights, atol=1e-6)
    assert assets.main(["clip", "--output", str(tmp_path)]) == 2
    assert "is a folder: name a file in it" in capsys.readouterr().err
    for wrong in ("0", "fast"):
        with pytest.raises(SystemExit):
            assets.main(["clip", "--frame-rate", wrong])
        assert f"'{wrong}' is no number from 1 to 1000" in capsys.readouterr().err
