"""Metrics against their definitions, strict files, the summary table."""

import csv
import json
import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from facegcn.reconstruction import evaluation


@pytest.fixture
def pair(rng):
    """Two pictures in [0, 1] and a mask."""
    photo = rng.random((24, 20, 3))
    overlay = np.clip(photo + rng.normal(0, 0.1, photo.shape), 0, 1)
    mask = np.zeros((24, 20), bool)
    mask[8:16, 6:14] = True
    return overlay, photo, mask


def _ssim_oracle(a, b, row, column):
    """SSIM of one pixel from its formula, with explicit loops over the window."""
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5 ** 2))
    weights /= weights.sum()
    values = []
    for channel in range(3):
        x = a[row - 5:row + 6, column - 5:column + 6, channel]
        y = b[row - 5:row + 6, column - 5:column + 6, channel]
        mx, my = (weights * x).sum(), (weights * y).sum()
        unbiased = 121 / 120  # scikit-image's sample covariance
        vx, vy = (weights * x * x).sum() - mx ** 2, (weights * y * y).sum() - my ** 2
        vxy = (weights * x * y).sum() - mx * my
        c1, c2 = 0.01 ** 2, 0.03 ** 2
        values.append((2 * mx * my + c1) * (2 * unbiased * vxy + c2)
                      / ((mx ** 2 + my ** 2 + c1) * (unbiased * (vx + vy) + c2)))
    return np.mean(values)


def test_metrics_follow_their_definitions(pair):
    overlay, photo, mask = pair
    found = evaluation.image_metrics(overlay, photo, mask)
    difference = (overlay - photo)[mask]
    assert found["l1"] == pytest.approx(np.abs(difference).mean(), rel=1e-9)
    assert found["psnr"] == pytest.approx(10 * np.log10(1 / np.mean(difference ** 2)), rel=1e-9)
    oracle = np.mean([_ssim_oracle(overlay, photo, r, c) for r, c in np.argwhere(mask)])
    assert found["ssim"] == pytest.approx(oracle, rel=1e-6)


def test_known_values(pair):
    _, photo, mask = pair
    photo = photo * 0.5
    found = evaluation.image_metrics(photo + 0.1, photo, mask)
    assert found["l1"] == pytest.approx(0.1) and found["psnr"] == pytest.approx(20.0)
    same = evaluation.image_metrics(photo, photo, mask)
    assert same["l1"] == 0 and same["psnr"] == math.inf and same["ssim"] == pytest.approx(1.0)


def test_pixels_outside_the_mask_do_not_count_in_l1_and_psnr(pair):
    overlay, photo, mask = pair
    changed = np.where(mask[..., None], overlay, 0.0)
    before, after = (evaluation.image_metrics(o, photo, mask) for o in (overlay, changed))
    assert (before["l1"], before["psnr"]) == (after["l1"], after["psnr"])


@pytest.mark.parametrize("corner", [(0, 0), (9, 40), (47, 3), (63, 63)])
def test_structural_similarity_is_that_of_the_whole_picture(rng, corner):
    photo = rng.random((64, 64, 3))
    overlay, mask = np.clip(photo + rng.normal(0, 0.1, photo.shape), 0, 1), np.zeros((64, 64), bool)
    mask[corner[0]:corner[0] + 20, corner[1]:corner[1] + 13] = True
    whole = structural_similarity(overlay, photo, gaussian_weights=True, sigma=1.5, channel_axis=-1, data_range=1.0,
                                  full=True)[1]
    assert evaluation.image_metrics(overlay, photo, mask)["ssim"] == pytest.approx(whole[mask].mean(), abs=1e-12)


def test_empty_mask_gives_nan_and_bad_input_is_refused(pair):
    overlay, photo, mask = pair
    assert all(math.isnan(v) for v in evaluation.image_metrics(overlay, photo, mask & False).values())
    with pytest.raises(ValueError, match="do not fit"):
        evaluation.image_metrics(overlay[:-1], photo, mask)
    with pytest.raises(ValueError, match=r"overlay must lie in \[0, 1\]"):
        evaluation.image_metrics(overlay * 255, photo, mask)
    with pytest.raises(ValueError, match="window"):
        evaluation.image_metrics(overlay[:8], photo[:8], mask[:8])


def test_texture_errors_on_visible_and_hidden_vertices():
    truth = np.zeros((4, 3))
    albedo = np.array([[3.0, 0, 0], [6, 6, 6], [-9, 9, 9], [0, 0, 0]])
    visible = np.array([True, True, False, False])
    assert evaluation.texture_errors(albedo, truth, visible) == {"visible": 3.5, "hidden": 4.5}
    assert math.isnan(evaluation.texture_errors(albedo, truth, visible | True)["hidden"])
    with pytest.raises(ValueError, match="do not fit"):
        evaluation.texture_errors(albedo[:3], truth, visible)


def _table(folder):
    with open(folder / "metrics.csv", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_files_are_strict_and_means_leave_out_what_is_not_finite(tmp_path):
    rows = {"a": {"status": "ok", "l1": np.float32(0.5), "psnr": math.inf},
            "b": {"status": "no face"}, "c": {"status": "ok", "l1": 0.25, "psnr": 20.0},
            "d": {"status": "ok", "l1": math.nan}}
    evaluation.write_metrics(str(tmp_path), rows, size=np.int32(224))

    def refuse(token):
        raise AssertionError(f"{token} is not strict JSON")

    content = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert content["mean"] == {"l1": 0.375, "psnr": 20.0} and content["size"] == 224
    assert content["count"] == 4 and content["mean_of"] == 2
    assert content["photos"]["a"] == {"status": "ok", "l1": 0.5, "psnr": None}
    table = _table(tmp_path)
    assert table[0] == ["photo", "kind", "status", "l1", "psnr"] and table[2] == ["b", "photo", "no face", "", ""]
    assert table[1] == ["a", "photo", "ok", "0.5", ""] and table[4] == ["d", "photo", "ok", "", ""]
    assert table[-1] == ["", "mean of 2", "", "0.375", "20.0"]


def test_a_photo_called_mean_is_a_photo(tmp_path):
    evaluation.write_metrics(str(tmp_path), {"mean": {"status": "ok", "l1": 0.5}, "b": {"status": "ok", "l1": 0.25}})
    table = _table(tmp_path)
    assert [line[:2] for line in table[1:]] == [["mean", "photo"], ["b", "photo"], ["", "mean of 2"]]
    assert table[1][3] == "0.5" and table[-1][3] == "0.375"
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["photos"]["mean"]["l1"] == 0.5 and content["mean"]["l1"] == 0.375


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_text_of_the_table_is_a_formula(tmp_path, name):
    evaluation.write_metrics(str(tmp_path), {name: {"status": "ok", "reason": name, "l1": -0.5}})
    row = _table(tmp_path)[1]
    assert row[0] == row[3] == "'" + name and row[4] == "-0.5"
    assert list(json.loads((tmp_path / "metrics.json").read_text())["photos"]) == [name]


def test_truth_metrics_are_distances_in_pixels_and_levels():
    truth = {"landmarks": np.zeros((68, 2)), "albedo": np.full((2, 3), 127.5), "visible": np.array([True, False])}
    textures = {"coarse_texture": np.float32([[0.0] * 3, [1.0] * 3]), "fine_texture": np.zeros((2, 3), np.float32)}
    found = evaluation.truth_metrics(truth, np.tile([3.0, 4.0], (68, 1)), textures)
    assert found == {"landmark_error": 5.0, "coarse_albedo_visible": 0.0, "coarse_albedo_hidden": 127.5,
                     "fine_albedo_visible": 0.0, "fine_albedo_hidden": 0.0}


def test_summary_table_is_aligned_and_cut_and_counts_what_it_averages():
    rows = {f"photo{i}": {"status": "ok", "l1": i / 7, "psnr": math.nan} for i in range(5)}
    rows["photo5"] = {"status": "unreadable", "reason": "long"}
    lines = evaluation.summary_table(rows, most=3).splitlines()
    assert len(lines) == 6 and "3 more" in lines[-2]
    assert lines[0].split() == ["photo", "status", "l1", "psnr"]
    assert lines[1].split() == ["photo0", "ok", "0", "-"] and lines[-1].split()[:3] == ["mean", "of", "5"]
    assert lines[1].rindex("-") == lines[0].rindex("r")


def test_ten_thousand_photos_are_not_printed_whole():
    rows = {f"photo{i}": {"status": "ok", "l1": 0.5} for i in range(10_000)}
    lines = evaluation.summary_table(rows).splitlines()
    assert len(lines) == 53 and "9950 more in metrics.csv" in lines[-2]
