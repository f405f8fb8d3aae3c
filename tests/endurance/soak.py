"""Lets a training, or test mode, run for long in one process, and tells what grows.

    python -m tests.endurance.soak --what train --minutes 60 [--config configs/demo.yaml] [--folder results/soak]
    python -m tests.endurance.soak --what test  --minutes 60 [--config configs/ict.yaml] [--photos DIR]

Each 30 s memory (RSS), open files, threads, and the steps or photos done go into ``train.csv`` or ``test.csv``; at the
end the program is asked to stop, must do so with exit code 143, and slopes behind the warm-up are printed. Test mode
gets as many photos as it may ask for, names of a few real ones; results are removed a while after they are written, so
that an hour of them needs no more room than a minute.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import numpy as np
import skimage.data
import skimage.io

from facegcn.config import load_config

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_WARM_UP = 0.2  # share of the samples that count for no slope: caches fill, kernels compile
_KEPT = 60.0  # seconds that results lie in their folder
_NAMES = 20_000  # photos, more than an hour can take
_PATIENCE = 300.0  # seconds for the end


class Sample(NamedTuple):
    """One look at the program: seconds since its start, MB of memory, open files, threads, work done so far."""

    seconds: float
    memory: float
    files: int
    threads: int
    done: int


def parse_arguments(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", required=True, choices=("train", "test"))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=30.0, help="seconds between samples")
    parser.add_argument("--config", default=os.path.join(ROOT, "configs", "demo.yaml"))
    parser.add_argument("--stage", default="render", choices=("rec", "render"), help="train: which stage")
    parser.add_argument("--photos", help="test: a folder of photos (default: one of scikit-image's)")
    parser.add_argument("--folder", default=os.path.join("results", "soak"))
    parser.add_argument("flags", nargs="*", help="further flags of main.py, behind --")
    return parser.parse_args(arguments)


# ---------------------------------------------------------------- what runs
def command(args) -> list[str]:
    """The program that runs until it is stopped."""
    start = [sys.executable, os.path.join(ROOT, "main.py"), "--config", args.config, "--mode", args.what]
    if args.what == "test":
        return [*start, "--input", _many_photos(args), "--output", os.path.join(args.folder, "results"), *args.flags]
    long = {"runs_dir": os.path.join(args.folder, "runs"), "rec_steps": 1_000_000 if args.stage == "rec" else 2,
            "epoch": 100_000, "log_steps": 1}
    settings = [word for key, value in long.items() for word in ("--set", f"{key}={value}")]
    return [*start, "--stage", "rec" if args.stage == "rec" else "all", *settings, *args.flags]


def prepare(args) -> None:
    """Packs what a training reads, where that is not done."""
    if args.what == "train" and not os.path.exists((config := load_config(args.config)).path(config.bin_file)):
        subprocess.run([sys.executable, os.path.join(ROOT, "create_bin.py"), "--config", args.config], check=True)


def _many_photos(args) -> str:
    """A folder with more names of photos than the time allows to reconstruct."""
    source, folder = args.photos or os.path.join(args.folder, "source"), os.path.join(args.folder, "photos")
    if not args.photos:
        os.makedirs(source, exist_ok=True)
        skimage.io.imsave(os.path.join(source, "astronaut.png"), skimage.data.astronaut())
    os.makedirs(folder)
    found = [name for name in sorted(os.listdir(source)) if re.search(r"\.(jpe?g|png|webp)$", name, re.IGNORECASE)]
    for number in range(_NAMES):
        name = found[number % len(found)]
        os.symlink(os.path.abspath(os.path.join(source, name)), os.path.join(folder, f"{number:06d}-{name}"))
    return folder


class Work:
    """Counts what the program has done, and makes room for what it will.

    Args:
        what: ``train`` or ``test``.
        folder: of the soak.
    """

    def __init__(self, what: str, folder: str):
        self._what, self._folder, self._names, self._read, self._lines = what, folder, set(), {}, 0

    def done(self) -> int:
        """Training steps, or photos written."""
        return self._steps() if self._what == "train" else self._photos()

    def _steps(self) -> int:
        for root, _, names in os.walk(os.path.join(self._folder, "runs")):
            if "stats.jsonl" in names:
                path = os.path.join(root, "stats.jsonl")
                with open(path, encoding="utf-8") as file:
                    file.seek(self._read.get(path, 0))
                    lines = file.read()
                    self._read[path] = self._read.get(path, 0) + lines.rfind("\n") + 1
                # Lines of validation have no loss of their own.
                self._lines += sum("total" in json.loads(line) for line in lines[:lines.rfind("\n") + 1].splitlines())
        return self._lines

    def _photos(self) -> int:
        folder = os.path.join(self._folder, "results")
        for entry in os.scandir(folder) if os.path.isdir(folder) else ():
            if not re.match(r"\d{6}-", entry.name):  # half written, or of all photos
                continue
            if entry.name.endswith(".npz"):
                self._names.add(entry.name)
            if time.time() - entry.stat().st_mtime > _KEPT:
                os.remove(entry.path)
        return len(self._names)


# ---------------------------------------------------------------- looking
def look(process: int, began: float, work: Work) -> Sample:
    """One sample of a process of this machine."""
    with open(f"/proc/{process}/status", encoding="ascii") as file:
        found = dict(re.findall(r"(VmRSS|Threads):\s+(\d+)", file.read()))
    return Sample(round(time.monotonic() - began, 1), round(int(found["VmRSS"]) / 1024, 1),
                  len(os.listdir(f"/proc/{process}/fd")), int(found["Threads"]), work.done())


def watch(args, path: str) -> tuple[list[Sample], int]:
    """Runs the program for the asked time; (samples, its exit code)."""
    work, samples, began = Work(args.what, args.folder), [], time.monotonic()
    with open(os.path.join(args.folder, "shown.txt"), "w") as shown, open(path, "w", newline="") as table:
        process = subprocess.Popen(command(args), stdout=shown, stderr=subprocess.STDOUT, cwd=ROOT)
        rows = csv.writer(table)
        rows.writerow(Sample._fields)
        try:
            due = began
            while process.poll() is None and time.monotonic() - began < 60.0 * args.minutes:
                time.sleep(1.0)
                if time.monotonic() >= due:
                    due += args.every
                    samples.append(look(process.pid, began, work))
                    rows.writerow(samples[-1])
                    table.flush()
                else:
                    work.done()  # makes room
            process.send_signal(signal.SIGTERM)
            return samples, process.wait(_PATIENCE)
        finally:
            process.kill()


# ---------------------------------------------------------------- what grows
def summary(samples: list[Sample], unit: str) -> str:
    """Slopes behind the warm-up, and the speed at both ends."""
    first = next((k for k, sample in enumerate(samples) if sample.done), len(samples))
    steady = samples[first + int(_WARM_UP * (len(samples) - first)):]
    if len(steady) < 4:
        return f"{len(steady)} samples behind the warm-up are too few: let it run longer, or look more often (--every)"
    hours = np.array([sample.seconds for sample in steady]) / 3600.0
    lines = [f"{len(steady)} samples from {steady[0].seconds:.0f} to {steady[-1].seconds:.0f} s"]
    for name, per in (("memory", "MB"), ("files", ""), ("threads", "")):
        values = np.array([getattr(sample, name) for sample in steady], float)
        slope = np.polyfit(hours, values, 1)[0]
        lines.append(f"{name:>8}: {values[0]:.0f} at first, {values[-1]:.0f} at last, {values.max():.0f} at most; "
                     f"{slope:+.1f} {per} an hour".replace("  ", " "))
    tenth = max(1, (len(steady) - 1) // 10)
    ends = [(steady[0], steady[tenth]), (steady[-1 - tenth], steady[-1])]
    early, late = ((b.done - a.done) / (b.seconds - a.seconds) for a, b in ends)
    change = f"{100.0 * (late / early - 1.0):+.1f} %" if early else "-"
    lines.append(f"   speed: {early:.3f} {unit}/s in the first tenth, {late:.3f} in the last ({change}); "
                 f"{steady[-1].done:,} {unit} in all")
    return "\n".join(lines)


def main(arguments=None) -> int:
    """Returns 0 when the program ran all the time and stopped as it should."""
    args = parse_arguments(arguments)
    args.folder = os.path.abspath(args.folder)
    shutil.rmtree(os.path.join(args.folder, args.what), ignore_errors=True)
    args.folder = os.path.join(args.folder, args.what)
    os.makedirs(args.folder)
    prepare(args)
    path = os.path.join(args.folder, f"{args.what}.csv")
    samples, code = watch(args, path)
    print(f"{path}\n{summary(samples, 'steps' if args.what == 'train' else 'photos')}\nexit code {code}")
    if code != 143:
        with open(os.path.join(args.folder, "shown.txt"), encoding="utf-8", errors="replace") as file:
            print(file.read()[-3000:])
    return int(code != 143)


if __name__ == "__main__":
    sys.exit(main())
