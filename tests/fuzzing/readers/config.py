"""Settings: YAML files, those of runs, and ``--set``."""

import dataclasses
import os

from facegcn.config import Config, load_config, parse_assignments, read_saved_config, save_config
from tests.fuzzing import attempts
from tests.fuzzing.changes import misspelt

_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join(['*' + before] * 9)}]\n" for before, after in zip("abcdefgh", "bcdefghi"))
_ODD = (_BOMB, "found:\n  " + _BOMB.replace("\n", "\n  ") + "\nlr: *h\n", "lr: !!python/name:os.system\n",
        "world: !!python/object/apply:os.system ['false']\n", "seed: !!set {a}\n", "name: 2020-01-01\n",
        "? [a, b]\n: c\n", "lr: 1e-3\nlr: 2e-3\n", "<<: {lr: 1}\n", "&a seed: *a\n", "&a [*a]", "a: &a {b: *a}\n",
        "seed: 0o17\n", "seed: 1:30\n", "lr: .inf\n", "name: !!binary aGk=\n",
        "seed: 0x" + "f" * 4000 + "\n", "world: |\n  demo\n", "--- \nlr: 1e-3\n--- \nlr: 1\n", "%YAML 9.9\n---\nlr: 1",
        "!!timestamp 9999-99-99", "name: 9999-99-99\n", "lr: 1" + "0" * 5000 + "\n")


class Reader(attempts.Reader):
    """A file of settings with what the command line adds."""

    def seeds(self):
        path = os.path.join(self.folder, "config.yaml")
        save_config(Config(), path, vertices=3, frozen_networks={"regressor_file": "0" * 16})
        with open(path, "rb") as file:
            saved = file.read()
        short = b"world: ict\nname: me  # mine\nroot_dir: data/ict\nlr: 1e-3\nwide: true\nseed: 7\n"
        settings, found, rest = saved.partition(b"found:")
        some = b"".join(settings.splitlines(keepends=True)[::9]) + found + rest
        return [{"config.yaml": text, "set.txt": b"lr=1e-4\nname=a\nwide=no\nerosion=7\n"} for text in (short, some)]

    def case(self, rng, seeds):
        if rng.random() < 0.05:
            odd = rng.choice(_ODD).encode()
            return attempts.Case({**seeds[0], "config.yaml": odd if rng.random() < 0.5 else misspelt(rng, odd, [odd])})
        return super().case(rng, seeds)

    def change(self, rng, name, data, others):
        return misspelt(rng, data, others)

    def read(self, folder):
        path = os.path.join(folder, "config.yaml")
        with open(os.path.join(folder, "set.txt"), encoding="utf-8", errors="surrogateescape") as file:
            pairs = file.read().split("\n")[:-1]
        saved, found = read_saved_config(path)
        return saved, load_config(path, parse_assignments(pairs)), found

    def wrong(self, answer):
        for config in answer[:2]:
            for field in dataclasses.fields(Config):
                if type(getattr(config, field.name)).__name__ != field.type:
                    return f"{field.name} is {getattr(config, field.name)!r}"
            if config.name in ("", "..") or "/" in config.name + config.suffix or "\0" in config.name + config.suffix:
                return f"a run's folder called {config.name!r} {config.suffix!r}"
            if any("\0" in value for value in vars(config).values() if isinstance(value, str)):
                return "a path with a null character"
        return "" if isinstance(answer[2], dict) else "what was found is no mapping"
