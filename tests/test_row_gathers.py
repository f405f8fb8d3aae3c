"""facegcn.backends.row_gathers: images side by side in threads, and the check of an index."""

import threading
import time

import numpy as np
import pytest

from facegcn.backends import row_gathers
from facegcn.backends.row_gathers import aligned_empty, check_index, map_images


@pytest.mark.parametrize("count", (0, 1, 2, 17))
def test_each_image_is_done_once(count):
    done = []
    map_images(done.append, count)
    assert sorted(done) == list(range(count))


def test_images_run_side_by_side(monkeypatch):
    monkeypatch.setattr(row_gathers, "cores", lambda: 2)
    both = threading.Barrier(2, timeout=20)
    map_images(lambda image: both.wait(), 2)  # of one thread alone, the barrier breaks


def test_images_of_images_do_not_wait_for_each_other(monkeypatch):
    """More at once than the pool has workers: who waits works itself."""
    monkeypatch.setattr(row_gathers, "cores", lambda: 8)
    done = []
    map_images(lambda outer: map_images(lambda inner: (time.sleep(1e-3), done.append((outer, inner))), 8), 8)
    assert sorted(done) == [(outer, inner) for outer in range(8) for inner in range(8)]


@pytest.mark.parametrize("bad", range(3))
def test_an_error_in_any_thread_is_the_caller_s(bad):
    def function(image):
        if image == bad:
            raise ValueError("broken")
        time.sleep(1e-2)

    with pytest.raises(ValueError, match="broken"):
        map_images(function, 3)


def test_aligned_arrays():
    for shape in ((3, 5), (1,), ()):
        array = aligned_empty(shape, np.float32)
        assert array.shape == shape and array.dtype == np.float32 and array.ctypes.data % 64 == 0


@pytest.mark.parametrize("index, fits", (([[0, 4]], True), ([], True), ([5], False), ([-1, 2], False)))
def test_index_is_within_the_rows(index, fits):
    if fits:
        check_index("corners", np.int32(index), 5)
    else:
        with pytest.raises(ValueError, match="corners.*0..4"):
            check_index("corners", np.int32(index), 5)
