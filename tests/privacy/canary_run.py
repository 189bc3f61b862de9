"""Runs an app in a home of its own, and gathers what is left of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .canary_search import Search, everything

ROOT = str(Path(__file__).parents[2])
SHARED = Path("/dev/shm")
PATIENCE_S = 840.0  # for the real model on a busy machine; about a minute on an idle one
FOLDERS = {
    "HOME": "home",
    "TMPDIR": "tmp",
    "XDG_CACHE_HOME": "cache",
    "XDG_CONFIG_HOME": "config",
    "XDG_DATA_HOME": "data",
    "XDG_STATE_HOME": "state",
    "XDG_RUNTIME_DIR": "runtime",
    "ONDEVICE_HOME": "store",
}


@dataclass(frozen=True, slots=True)
class Ran:
    """What is left of an app. `searched` has all but what is private by design."""

    searched: Path
    words: dict[str, str]
    outputs: list[str]
    shared_before: frozenset[Path]
    echo: bool

    def lines(self, place: str) -> list[str]:
        """What was written down of a place."""
        with (self.searched / "record").open() as file:
            rows = [json.loads(line) for line in file]
        return [text for seen, text in rows if seen == place]

    def hits(self) -> dict[str, set[str]]:
        """Where anything was found: path or place, and what."""
        search = Search({**self.words, **beginnings(self.outputs)})
        found = search.in_folder(self.searched, skip=[self.searched / "record"])
        found |= search.in_folder(SHARED, skip=self.shared_before)
        with (self.searched / "record").open() as file:
            for line in file:
                place, text = json.loads(line)
                if seen := search.in_text(text):
                    found[place] = found.get(place, set()) | seen
        return found


def beginnings(outputs: Sequence[str]) -> dict[str, str]:
    """The first words of what a model wrote, where they are enough to be told from other texts."""
    firsts = (" ".join(output.split()[:5]) for output in outputs)
    return {f"output {number}": first for number, first in enumerate(firsts) if len(first) >= 20}


def run_app(place: Path, script: str, words: dict[str, str], **order: Any) -> Ran:
    searched, private = place / "searched", place / "private"
    env = environment(searched)
    private.mkdir()
    for name in ("kept", "cwd"):
        (searched / name).mkdir()
    paths = {"record": searched / "record", "kept": searched / "kept", "outputs": private / "outputs"}
    told = private / "order"
    before = frozenset(everything(SHARED))
    told.write_text(json.dumps({**order, "words": words, **{name: str(path) for name, path in paths.items()}}))
    with (searched / "stdout").open("wb") as out, (searched / "stderr").open("wb") as err:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-m", f"tests.privacy.{script}", str(told)],
            env=env, cwd=searched / "cwd", stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=PATIENCE_S,
        )  # fmt: skip
    assert done.returncode == 0, (searched / "stderr").read_text()[-4000:]
    return Ran(searched, words, json.loads(paths["outputs"].read_text()), before, bool(order.get("echo")))


def environment(searched: Path) -> dict[str, str]:
    """Home and everything else in a folder of its own."""
    for name in FOLDERS.values():
        (searched / name).mkdir(parents=True)
    return {
        "PATH": os.defpath,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": ROOT,
        **{variable: str(searched / name) for variable, name in FOLDERS.items()},
    }
