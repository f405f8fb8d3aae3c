"""Kills the programs at random moments, and checks that the same command, or ``--restore``, goes on as if never killed.

    python -m tests.endurance.kills --count 200 --seed 0 [--phase rec,render] [--folder results/kills]

(--signal TERM and --signal INT ask them to stop in place of that: each must end by itself, with exit code 143 or 130,
one message, no traceback, and a checkpoint of the step before.)

Each start goes on with what the one before left when it was killed, and is killed itself, until the work is done; then
it is compared, bit for bit, with work that nobody killed, and begun anew. A second call with the same folder does the
kills that are missing. At the end, and after Ctrl-C, a table: for each phase the kills, how many of them the next start
went on from, the greatest number of training steps and of seconds of training that were lost, files that were not whole
under a finished name, files left half written (they have names that nothing reads), and the time.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time

import numpy as np

from tests.endurance import programs

_SHARES = {"packing": 0.25, "encoding": 0.2, "rec": 0.125, "render": 0.15, "checkpoint": 0.125, "export": 0.15}
_PATIENCE = 900  # seconds for a start that nobody kills, on a machine that does other work, too
_POLL = 0.002  # seconds between looks at what is killed
_ENDS = {"KILL": -signal.SIGKILL, "TERM": 143, "INT": 130}
_COLUMNS = ("phase", "kills", "continued", "lost steps", "lost s", "broken", "differing", "left over", "seconds")


def parse_arguments(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="kills in all (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--phase", default=",".join(_SHARES), help="which phases, by commas (default all)")
    parser.add_argument("--signal", default="KILL", choices=("KILL", "TERM", "INT"),
                        help="TERM and INT must end each start with 143 or 130, one message and no step lost")
    parser.add_argument("--folder", default=os.path.join("results", "kills"),
                        help="where the worlds and the record of kills lie (default results/kills)")
    return parser.parse_args(arguments)


class Killer:
    """Kills the starts of one phase.

    Args:
        phase: a ``phases.Phase``.
        seed: of its moments.
        record: called with a dict for each kill.
        name: of the signal, see ``--signal``.
    """

    def __init__(self, phase, seed: int, record, name: str = "KILL"):
        self._phase, self._seed, self._record = phase, seed, record
        self._signal, self._ended = signal.Signals[f"SIG{name}"], _ENDS[name]
        self._output = phase.world.path("shown.txt")
        self._begun, self._killed = False, None

    def kill(self, number: int) -> None:
        """Starts until one was killed; ``number`` decides the moment."""
        while True:
            began = time.monotonic()
            rng = np.random.default_rng([self._seed, *self._phase.name.encode(), number])
            if not self._begun:
                self._phase.begin()
                self._phase.expect(self.run)
                self._begun = True
            moment = self._phase.moment(rng)
            program = programs.Program(*self._phase.command(), self._output, self._phase.prepare)
            steps, seen = self._wait(program, moment)
            sent = program.code() is None
            program.signal(self._signal)
            code = program.wait(_PATIENCE)
            wrong = self._account(program.shown(), code)
            if code != self._ended and (code == 0 or not sent):
                if code == 0:
                    wrong = self._phase.at_end() + [f"left over: {path}" for path in self._phase.leftovers()]
                if moment.what == "file":
                    self._phase.ended_early(seen)
                self._end(code, wrong)
                continue
            broken = self._phase.after_kill() + self._rude(program.shown(), code)
            self._killed = {"phase": self._phase.name, "number": number, "moment": list(moment), "broken": broken,
                            "left over": len(self._phase.leftovers()),
                            "at step": steps, "lost s": self._phase.lost_seconds(),
                            "seconds": round(time.monotonic() - began, 2)}
            return

    def _rude(self, shown: str, code: int) -> list[str]:
        """What is wrong with how a program ended that was asked to stop."""
        if self._ended == -signal.SIGKILL:
            return []
        found = [f"exit code {code}"] if code != self._ended else []
        return found + ([shown[-2000:]] if "Traceback" in shown or shown.count("\nstopped") != 1 else [])

    def _account(self, shown: str, code: int) -> list[str]:
        """Completes the record of the kill before, now that it is seen how its work went on."""
        again = self._phase.after_start(shown)
        if self._killed is not None:
            went_on = code in (0, self._ended)
            self._record({**self._killed, "continued": went_on, "lost": self._phase.lost, "again": again,
                          **({} if went_on else {"code": code, "shown": shown[-2000:]})})
            self._killed = None
        return again

    def _end(self, code: int, wrong: list[str]) -> None:
        """The work is done, or has failed: the next start begins anew."""
        self._record({"phase": self._phase.name, "done": code, "differing": wrong})
        self._begun = False

    def finish(self) -> None:
        """Lets the work come to its end, which tells of the last kill."""
        if self._killed is None:
            return
        program = programs.Program(*self._phase.command(), self._output, self._phase.prepare)
        code = program.wait(_PATIENCE)
        self._account(program.shown(), code)
        self._end(code, self._phase.at_end() + self._phase.leftovers() if code == 0 else [program.shown()[-2000:]])

    def _wait(self, program, moment) -> tuple[int, int]:
        """Returns when the moment has come, or the program has ended: (steps of the work, events that were seen)."""
        from tests.endurance.wholeness import names_seen

        limit = time.monotonic() + _PATIENCE
        first, known, seen = self._phase.steps(), names_seen(self._phase.watched()), 0
        while moment.what != "start" and program.code() is None and time.monotonic() < limit:
            if moment.what == "file":
                names = names_seen(self._phase.watched())
                seen, known = seen + len(names - known), names
            else:
                seen = self._phase.steps() - first
            if seen >= moment.count:
                break
            time.sleep(_POLL)
        until = time.monotonic() + moment.delay
        while program.code() is None and time.monotonic() < until:
            time.sleep(min(_POLL, max(0.0, until - time.monotonic())))
        return self._phase.steps(), seen

    def run(self, script: str, arguments: list[str]) -> None:
        """Runs a command that nobody kills."""
        run(script, arguments, self._output)


def run(script: str, arguments: list[str], output: str) -> None:
    """Runs a command to its end; raises RuntimeError when it fails."""
    program = programs.Program(script, arguments, output)
    if program.wait(_PATIENCE):
        raise RuntimeError(f"{script} {' '.join(arguments)} failed:\n{program.shown()}")


# ---------------------------------------------------------------- the record
class Record:
    """One line of JSON for each kill and each work that was done, in a file that is gone on with."""

    def __init__(self, path: str, seed: int, kind: str):
        self._path, self._known, self.lines = path, {"seed": seed, "signal": kind}, []
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.lines = [json.loads(line) for line in file.read().split("\n")[:-1]]
        self.lines = [line for line in self.lines if self._known.items() <= line.items()]

    def __call__(self, line: dict) -> None:
        self.lines.append({**line, **self._known})
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(self.lines[-1]) + "\n")

    def kills(self, phase: str) -> list[dict]:
        """Of a phase."""
        return [line for line in self.lines if line["phase"] == phase and "number" in line]

    def table(self) -> str:
        """All phases, a line each."""
        rows = [_COLUMNS]
        for phase in _SHARES:
            kills = self.kills(phase)
            ends = [line for line in self.lines if line["phase"] == phase and "done" in line]
            lost = [kill["lost"] for kill in kills if kill["lost"] != "-"]
            seconds = [kill["lost s"] for kill in kills if kill["lost s"] is not None]
            rows.append((phase, len(kills), sum(kill["continued"] for kill in kills), max(lost, default="-"),
                         max(seconds, default="-"), sum(len(kill["broken"]) + len(kill["again"]) for kill in kills),
                         f"{sum(bool(end['done'] or end['differing']) for end in ends)} of {len(ends)}",
                         sum(bool(kill["left over"]) for kill in kills),
                         round(sum(kill["seconds"] for kill in kills))))
        widths = [max(len(str(row[column])) for row in rows) for column in range(len(_COLUMNS))]
        return "\n".join("  ".join(str(value).rjust(width) for value, width in zip(row, widths)) for row in rows)


def main(arguments=None) -> int:
    """Returns 0 when every kill was gone on from, no file was broken and no work differs; else 1."""
    args = parse_arguments(arguments)
    folder = os.path.abspath(args.folder)
    os.makedirs(os.path.join(folder, "tmp"), exist_ok=True)
    # What killed programs leave in the folder of temporary files lies with the rest.
    os.environ["TMPDIR"] = tempfile.tempdir = os.path.join(folder, "tmp")
    programs.load()
    from tests.endurance.phases import PHASES, make_base

    record = Record(os.path.join(folder, "kills.jsonl"), args.seed, args.signal)
    wanted = [name for name in _SHARES if name in args.phase.split(",")]
    total = sum(_SHARES[name] for name in wanted)
    counts = {name: round(args.count * _SHARES[name] / total) for name in wanted}
    try:
        base = make_base(os.path.join(folder, "base"), lambda *command: run(
            *command, os.path.join(folder, "base.txt")))
        killers = {}
        for number in range(max(counts.values())):  # all phases go on together
            for name in wanted:
                if len(record.kills(name)) <= number < counts[name]:
                    if name not in killers:
                        killers[name] = Killer(PHASES[name](os.path.join(folder, name), base), args.seed, record,
                                               args.signal)
                    killers[name].kill(number)
        for killer in killers.values():
            killer.finish()
    except KeyboardInterrupt:
        pass
    print(record.table())
    return int(any(not line.get("continued", True) or line.get("broken") or line.get("again") or line.get("done")
                   or line.get("differing") for line in record.lines))


if __name__ == "__main__":
    sys.exit(main())
