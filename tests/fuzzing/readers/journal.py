"""The journal of test mode's results, from which ``--resume`` goes on."""

import json
import os

from facegcn.reconstruction.jobs import Job, stamp
from facegcn.reconstruction.journal import Journal
from facegcn.reconstruction.results import JOURNAL
from tests.fuzzing import attempts
from tests.fuzzing.changes import misspelt

_KEY, _NAMES = "0" * 12, ("a", "b", "c")


class Reader(attempts.Reader):
    """Three photos, of which two are done, and a page of the overview."""

    def __init__(self, folder):
        super().__init__(folder)
        os.makedirs(folder, exist_ok=True)
        self._paths = {name: os.path.join(folder, f"{name}.jpg") for name in _NAMES}
        for path in self._paths.values():
            with open(path, "wb") as file:
                file.write(b"photo")
            os.utime(path, (0, 0))

    def seeds(self):
        lines = [{"key": _KEY}]
        lines += [{"name": name, "photo": stamp(self._paths[name]), "status": status, "message": "", "metrics": metrics,
                   "files": files} for name, status, metrics, files in (
                       ("a", "ok", {"fine_psnr": 30.5}, {"a.npz": 5}), ("b", "no face", {}, {}))]
        lines += [{"begun": name, "photo": stamp(self._paths[name]), "alone": name == "b"} for name in "bc"]
        lines.append({"left": "b"})
        lines.append({"page": 0, "names": ["a"], "files": {"overview.png": 3}})
        return [{JOURNAL: "".join(json.dumps(line) + "\n" for line in lines).encode(), "a.npz": b"12345",
                 "overview.png": b"123"}]

    def case(self, rng, seeds):
        files = seeds[0]
        return attempts.Case({**files, JOURNAL: misspelt(rng, files[JOURNAL], [files[JOURNAL]])})

    def read(self, folder):
        jobs = [Job(name, lambda: None, path=path, stamp=stamp(path)) for name, path in self._paths.items()]
        journal = Journal(folder, _KEY, jobs, resume=True)
        return jobs, journal.pages, journal.off_page(jobs)

    def wrong(self, answer):
        jobs, pages, off = answer
        if any(job.written and job.name != "a" for job in jobs) or jobs[2].status not in ("", "failed"):
            return "results that are not there"
        written = {job.name for job in jobs if job.written}
        if {name for page in pages for name in page} | {job.name for job in off} != written:
            return "photos that are on no page, or on one that is not theirs"
        for job in jobs:
            if not all(isinstance(value, (int, float, str, bool, type(None))) for value in job.metrics.values()):
                return f"metrics that are none: {job.metrics}"
        return ""
