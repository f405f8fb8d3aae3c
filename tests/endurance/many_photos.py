"""Test mode on thousands of photos: memory, open files and speed as it goes on, then a kill and --resume.

    python -m tests.endurance.many_photos [--count 2000] [--side 256] [--config FILE] [--texture none] [--every 100]
        [--folder FOLDER]

Every hundredth photo is none, or holds no face. A line each so many photos; at the end the slope of the resident memory
over the second half. Exit code 1 where memory grows by more than a megabyte a hundred photos, or a photo ended the run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

import cv2
import numpy as np

from facegcn.config import PROJECT
from facegcn.reconstruction.results import JOURNAL

_MOST_GROWTH = 1.0  # megabytes a hundred photos
_LOOK = 0.5  # seconds


class Look(NamedTuple):
    """The process after some photos: seconds since the first look, megabytes, open files, threads."""

    photos: int
    seconds: float
    memory: float
    files: int
    threads: int


def make(folder: str, count: int, side: int) -> None:
    """Writes copies of one portrait, each a little otherwise, and among them what is none."""
    from facegcn.benchmark.rows.photos import make_photos

    base = os.path.join(folder, "base")
    make_photos(base, 22, side)
    pictures = [cv2.imread(os.path.join(base, name)) for name in sorted(os.listdir(base))]
    os.makedirs(os.path.join(folder, "in"), exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        path = os.path.join(folder, "in", f"{number:06d}.jpg")
        if number % 200 == 50:
            with open(path, "wb") as file:
                file.write(b"\xff\xd8\xff no picture")
            continue
        picture = pictures[number % len(pictures)] if number % 200 != 150 else np.zeros((side, side, 3), np.uint8)
        brighter = np.clip(picture * rng.uniform(0.7, 1.2), 0, 255).astype(np.uint8)
        cv2.imwrite(path, brighter, [cv2.IMWRITE_JPEG_QUALITY, 90])


def done(output: str) -> int:
    """Photos that the journal knows."""
    try:
        with open(os.path.join(output, JOURNAL), "rb") as file:
            return file.read().count(b'"status"')
    except FileNotFoundError:
        return 0


def look(pid: int, photos: int, begin: float) -> Look:
    """At a running process, by /proc."""
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.split(":", 1) for line in file if ":" in line)
    return Look(photos, time.monotonic() - begin, int(status["VmRSS"].split()[0]) / 1e3,
                len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]))


def watched(command: list[str], output: str, every: int, stop_at: int | None = None) -> tuple[int, list[Look]]:
    """Runs test mode, telling of it; kills it once so many photos are done."""
    looks, begin = [], time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    next_one = done(output) // every * every + every
    while process.poll() is None:
        time.sleep(_LOOK)
        photos = done(output)
        if photos >= next_one:
            try:
                looks.append(look(process.pid, photos, begin))
            except (OSError, KeyError):
                break
            rate = photos - looks[-2].photos if len(looks) > 1 else 0
            seconds = looks[-1].seconds - looks[-2].seconds if len(looks) > 1 else 1.0
            print(f"{photos:7d} photos {looks[-1].memory:8.0f} MB {looks[-1].files:4d} files {looks[-1].threads:4d} "
                  f"threads {rate / seconds:6.2f} photos/s", flush=True)
            next_one = photos // every * every + every
        if stop_at is not None and photos >= stop_at:
            process.send_signal(signal.SIGKILL)
    return process.wait(), looks


def slope(looks: list[Look]) -> float:
    """Megabytes a hundred photos over the second half, least squares; 0 for fewer than three looks."""
    later = looks[len(looks) // 2:]
    if len(later) < 3:
        return 0.0
    return 100.0 * float(np.polyfit([one.photos for one in later], [one.memory for one in later], 1)[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--config", default=os.path.join(PROJECT, "configs", "demo.yaml"))
    parser.add_argument("--texture", default="none")
    parser.add_argument("--every", type=int, default=100, help="photos a line")
    parser.add_argument("--folder", help="where photos and results go and stay; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or temporary
        output = os.path.join(folder, "out")
        make(folder, options.count, options.side)
        command = [sys.executable, os.path.join(PROJECT, "main.py"), "--config", options.config, "--mode", "test",
                   "--input", os.path.join(folder, "in"), "--output", output, "--texture", options.texture]
        code, looks = watched(command, output, options.every, options.count * 9 // 10)
        killed_at = done(output)
        print(f"killed after {killed_at} photos (code {code}); going on with --resume", flush=True)
        code, _ = watched([*command, "--resume"], output, options.every)
        with open(os.path.join(output, "metrics.json"), encoding="utf-8") as file:
            rows = json.load(file)["photos"]
        statuses = [row["status"] for row in rows.values()]
        growth = slope(looks)
        print({status: statuses.count(status) for status in sorted(set(statuses))})
        print(f"code {code}, {len(rows)} of {options.count} photos, memory grows by {growth:.2f} MB a hundred photos")
        return int(code != 0 or len(rows) != options.count or "failed" in statuses or growth > _MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
