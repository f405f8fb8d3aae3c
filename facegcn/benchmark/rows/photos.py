"""The rows of test mode: photos a second and the time to the first result, of a fresh process with all its files."""

from __future__ import annotations

import glob
import os
import resource
import subprocess
import sys
import tempfile
import time

import cv2
import skimage.data

from facegcn.benchmark.rows.timing import Parts, Row, Sizes
from facegcn.config import PROJECT
from facegcn.errors import UserError
from facegcn.reconstruction.results import results_in
from facegcn.report import write_png

_COUNT, _SIDE = 22, 1024  # photos that are made, pixels
_WAIT = 0.02  # seconds between two looks at the folder
_LAST_LINES = 5


def photos_rows(sizes: Sizes, parts: Parts) -> list[Row]:
    """Test mode on the photos of a folder, by default enlarged cut-outs of one portrait that scikit-image has."""
    with tempfile.TemporaryDirectory() as folder:
        photos, output = sizes.photos or os.path.join(folder, "photos"), os.path.join(folder, "out")
        if not sizes.photos:
            make_photos(photos)
        command = [sys.executable, os.path.join(PROJECT, "main.py"), "--config", sizes.config, "--mode", "test",
                   "--input", photos, "--output", output]
        first, whole = seconds_of(command, output)
        count = len(results_in(output))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return [Row(f"test mode, {count} photos: each ({count / whole:.2f} a second)", whole / count, None, "<= 0.25 s"),
            Row(f"  start to first result (peak {peak / 1e9:.2f} GB)", first, None, "<= 6 s")]


def make_photos(folder: str, count: int = _COUNT, side: int = _SIDE) -> None:
    """Writes pictures of one face, each cut out and turned otherwise.

    Args:
        folder: is made.
        count: of pictures.
        side: pixels.
    """
    portrait = skimage.data.astronaut()[:320, 60:380]  # NASA's, of Eileen Collins; public domain
    for number in range(count):
        mirrored = portrait[:, ::-1] if number % 2 else portrait
        turn = cv2.getRotationMatrix2D((160.0, 130.0), 3.0 * (number % 5) - 6.0, side / (300.0 - 4.0 * (number % 7)))
        turn[:, 2] += side / 2.0 - 160.0, side / 2.0 - 150.0
        write_png(os.path.join(folder, f"{number:03d}.png"), cv2.warpAffine(
            mirrored, turn, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT))


def seconds_of(command: list[str], output: str) -> tuple[float, float]:
    """Runs test mode in a process of its own.

    Args:
        command: that runs it.
        output: its folder of results.

    Returns:
        seconds until the first photo's last file was there, and until the process had ended.

    Raises:
        UserError: it failed, or wrote nothing.
    """
    begin, first = time.perf_counter(), None
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        while process.poll() is None:
            if first is None and glob.glob(os.path.join(glob.escape(output), "*.npz")):
                first = time.perf_counter() - begin
            time.sleep(_WAIT)
        whole = time.perf_counter() - begin
        said.seek(0)
        if process.returncode or first is None:
            raise UserError(f"test mode ended with code {process.returncode}: "
                            + " / ".join(said.read().splitlines()[-_LAST_LINES:]))
    return first, whole
