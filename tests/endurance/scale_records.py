"""A packed file of as many photos as CelebA has is encoded, killed, encoded on, trained on: how much memory that takes.

    python -m tests.endurance.scale_records --out DIR [--records 200000] [--pixels 224] [--sparse] [--steps 200]

The frozen networks are stand-ins with the paper's 257 coefficients and 3,840 features, which say quickly what they
say; all else is what a user runs: ``main.py --mode train``, with dense landmarks known of every record. ``--sparse``
keeps black pictures in a file that takes no room on the disk; otherwise made portraits are repeated, and their bytes
are really there. Exit code 1 when the program took more memory than ``--most``, or did not go on where it was killed.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import yaml

from facegcn.files import write_npz
from facegcn.photos import packed_file
from facegcn.photos.splits import split_names
from tests.conftest import ROOT
from tests.faces import embedded, half_ellipsoid
from tests.standin_graphs import write_standin_graphs

_PORTRAITS = 32
_SPARE = 240  # seconds a program may do nothing that is seen
_SETTINGS = {"name": "scale", "model_file": "model.npz", "regressor": "frozen", "facenet_file": "FaceNetModel.pb",
             "fit": False, "regressor_pixels": 32, "epoch": 1, "batch_size": 4, "log_steps": 10, "render_start": 1.0,
             "losses": "released", "residual": False, "delit": False, "relight": False, "visibility": "normal"}


# ---------------------------------------------------------------- the world
def make_world(args) -> str:
    """Model, networks, packed photos and the config file, whose path is returned."""
    model = embedded(half_ellipsoid(25, 31, (80, 64, 80)))
    data = os.path.join(args.out, "data")
    model.save(os.path.join(data, "model.npz"))
    write_standin_graphs(data, model.coefficient_count)
    path, names = os.path.join(data, "faces.bin"), [f"{number:06d}" for number in range(1, args.records + 1)]
    if args.sparse:
        write_sparse(path, names, args.pixels)
    else:
        from facegcn.portraits.maker import PortraitMaker
        maker = PortraitMaker(model, size=args.pixels)
        pictures = [maker.make(number).rgba for number in range(min(_PORTRAITS, args.records))]
        packed_file.write_bin(path, names, (pictures[i % len(pictures)] for i in range(args.records)),
                              lambda written: described(written, args.pixels))
    config = os.path.join(args.out, "scale.yaml")
    with open(config, "w", encoding="utf-8") as file:
        yaml.safe_dump({**_SETTINGS, "img_size": args.pixels, "root_dir": data,
                        "runs_dir": os.path.join(args.out, "runs")}, file)
    return config


def described(names: list[str], pixels: int) -> packed_file.Records:
    """CelebA's split, points and dense landmarks of every record."""
    rng, count = np.random.default_rng(0), len(names)
    splits, _ = split_names(names, min(4096, count // 10), min(4096, count // 10), 0)
    dense = np.empty((count, 468, 3), np.float32)
    for row in dense:
        row[:, :2], row[:, 2] = rng.random((468, 2), np.float32) * pixels, 1
    return packed_file.Records(names, splits, rng.random((count, 5, 2), np.float32) * pixels, dense=dense)


def write_sparse(path: str, names: list[str], pixels: int) -> None:
    """What ``packed_file.write_bin`` writes of black, transparent pictures, which the disk does not keep."""
    size = pixels * pixels * 4
    checksums = np.full(len(names), zlib.crc32(bytes(size)), np.uint32)
    identity = packed_file._identity(names, checksums)
    with open(path, "wb") as file:
        file.write(packed_file._LAYOUT.pack(packed_file.MAGIC, packed_file.VERSION, len(names), pixels, pixels, 4,
                                            b"uint8", identity, bytes(8)))
        file.truncate(packed_file.HEADER_BYTES + len(names) * size)
    write_npz(packed_file.companion(path), packed_file._arrays(path, described(names, pixels), checksums, identity),
              compressed=False)


# ---------------------------------------------------------------- the program
class Watched:
    """``main.py --mode train`` in a process of its own, whose memory is looked at while it is waited for.

    Attributes:
        peaks: greatest (all, its own) resident bytes by phase; what is not its own are pages of mapped files, which
            the system takes back when it needs them.
    """

    def __init__(self, config: str, shown: str, *flags: str):
        self._shown = open(shown, "a", encoding="utf-8")  # noqa: SIM115 - as long as the program
        words = [sys.executable, str(ROOT / "main.py"), "--mode", "train", "--config", config, *flags]
        self.process = subprocess.Popen(words, stdout=self._shown, stderr=subprocess.STDOUT)
        self.peaks: dict[str, tuple[int, int]] = {}

    def wait(self, phase: str, until) -> float:
        """Seconds until ``until()`` gives a new value of True; raises RuntimeError where nothing changes for long."""
        begin = seen = time.monotonic()
        last = None
        while self.process.poll() is None:
            self._look(phase)
            now = until()
            if now is True:
                return time.monotonic() - begin
            if now != last:
                last, seen = now, time.monotonic()
            if time.monotonic() - seen > _SPARE:
                self.process.kill()
                raise RuntimeError(f"{phase}: nothing happened for {_SPARE} s")
            time.sleep(0.2)
        raise RuntimeError(f"{phase}: the program ended by itself, {self.process.returncode}")

    def end(self, number: int) -> int:
        """Sends a signal; returns the exit code."""
        self.process.send_signal(number)
        code = self.process.wait(_SPARE)
        self._shown.close()
        return code

    def _look(self, phase: str) -> None:
        try:
            with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
                sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in file if line.startswith(("VmRSS",
                                                                                                            "RssAnon"))}
        except (FileNotFoundError, ProcessLookupError):
            return
        if len(sizes) == 2:
            before = self.peaks.get(phase, (0, 0))
            self.peaks[phase] = max(before[0], sizes["VmRSS"]), max(before[1], sizes["RssAnon"])


def check(args) -> dict:
    """Packs, encodes, kills, encodes on and trains; returns what was measured."""
    begin = time.monotonic()
    config = make_world(args)
    found = {"records": args.records, "pixels": args.pixels, "sparse": args.sparse,
             "packing_s": time.monotonic() - begin}
    data, shown = os.path.join(args.out, "data"), os.path.join(args.out, "shown.txt")

    def parts() -> list[str]:
        return sorted(glob.glob(os.path.join(data, "faces.bin.encoding-*.parts", "0*.npz")))

    def whole() -> bool | int:
        return bool(glob.glob(os.path.join(data, "faces.bin.encoding-*.npy"))) and not parts() or len(parts())

    half = -(-args.records // 1024) // 2
    first = Watched(config, shown)
    found["to_half_s"] = first.wait("encoding", lambda: len(parts()) >= half or len(parts()))
    first.end(signal.SIGKILL)
    kept = {path: os.stat(path).st_mtime_ns for path in parts()}

    def same() -> list[str]:
        return [path for path, stamp in kept.items() if os.path.exists(path) and os.stat(path).st_mtime_ns == stamp]

    second = Watched(config, shown, "--restore")
    second.wait("encoding", lambda: len(parts()) > len(kept) or whole() is True or len(parts()))
    found["parts_kept"] = f"{len(same())} of {len(kept)}" if parts() else "all was whole before it was looked at"
    found["to_whole_s"] = second.wait("encoding", whole)

    def trained() -> bool | int:
        lines = [line for path in glob.glob(os.path.join(args.out, "runs", "*", "stats.jsonl"))
                 for line in open(path, encoding="utf-8") if line.endswith("\n")]
        steps = [json.loads(line)["step"] for line in lines]
        return max(steps, default=0) >= args.steps or len(steps)

    found["training_s"] = second.wait("training", trained)
    found["exit_code"] = second.end(signal.SIGTERM)
    found["peaks_gb"] = {phase: [round(size / 1e9, 2) for size in peak] for phase, peak in
                         {**first.peaks, **{f"{phase}, continued" if phase in first.peaks else phase: peak
                                            for phase, peak in second.peaks.items()}}.items()}
    return found


def passed(found: dict, most: float) -> bool:
    """Whether no phase took more than ``most`` GB, all parts were kept, and the program ended as it was asked to."""
    kept, _, before = found["parts_kept"].partition(" of ")
    return (max(peak[0] for peak in found["peaks_gb"].values()) <= most and found["exit_code"] == 143
            and (not before or kept == before))


def main(arguments=None) -> int:
    """Prints the figures as JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of all that is made; emptied before")
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--pixels", type=int, default=224)
    parser.add_argument("--sparse", action="store_true", help="black pictures that take no room on the disk")
    parser.add_argument("--steps", type=int, default=200, help="of training")
    parser.add_argument("--most", type=float, default=8.0, help="GB of resident memory")
    args = parser.parse_args(arguments)
    args.out = os.path.abspath(args.out)
    shutil.rmtree(args.out, ignore_errors=True)
    found = check(args)
    print(json.dumps(found, indent=1))
    return int(not passed(found, args.most))


if __name__ == "__main__":
    sys.exit(main())
