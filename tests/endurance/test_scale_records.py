"""The check with as many records as CelebA, on few; ``python -m tests.endurance.scale_records`` takes all."""

import pytest

from tests.endurance import scale_records


@pytest.mark.long
@pytest.mark.parametrize("flags", [[], ["--sparse"]])
def test_records_are_encoded_on_after_a_kill_and_trained_on(flags, tmp_path):
    assert scale_records.main(["--out", str(tmp_path / "scale"), "--records", "3000", "--pixels", "64", "--steps", "30",
                               "--most", "2", *flags]) == 0


def test_a_verdict_needs_memory_parts_and_exit_code():
    good = {"parts_kept": "6 of 6", "exit_code": 143, "peaks_gb": {"encoding": [1.0, 0.5], "training": [1.9, 0.6]}}
    assert scale_records.passed(good, 2.0) and scale_records.passed({**good, "parts_kept": "all was whole"}, 2.0)
    for change in ({"parts_kept": "5 of 6"}, {"exit_code": 1}, {"peaks_gb": {"training": [2.1, 0.1]}}):
        assert not scale_records.passed({**good, **change}, 2.0)
