"""An app that leaks on purpose, once in every place that is looked at: `python -m tests.privacy.canary_leaks ORDER`.

The order is as for `canary_app.py`; `words` has one word for each place.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from tests.privacy.canary_record import Record


@dataclass
class Shown:
    """A value that shows its text."""

    text: str


class Worded(Exception):
    """An error with an attribute."""

    def __init__(self, text: str) -> None:
        super().__init__("no text")
        self.detail = text


def main() -> None:
    order = json.loads(Path(sys.argv[1]).read_text())
    words: dict[str, str] = order["words"]
    record = Record(Path(order["record"]))
    record.watch_writes()
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    logging.captureWarnings(True)
    warnings.simplefilter("always")

    print(words["stdout"])
    print(words["stderr"], file=sys.stderr)
    logging.getLogger("some.library").debug("prompt: %s", words["log"])
    warnings.warn(words["warning"], stacklevel=1)

    record.value("values", [Shown(words["repr"])])
    record.attempt("message", lambda: raised(ValueError(words["message"])))
    record.attempt("attribute", lambda: raised(Worded(words["attribute"])))
    noted = ValueError("no text")
    noted.add_note(words["note"])
    record.attempt("note", lambda: raised(noted))
    record.attempt("cause", lambda: raised(ValueError("no text"), ValueError(words["cause"])))
    record.attempt("context", lambda: hidden(words["context"]))
    record.attempt("returned", lambda: [ValueError(words["returned"])])

    for place, variable in (("home", "HOME"), ("temporary", "TMPDIR"), ("cache", "XDG_CACHE_HOME"),
                            ("config", "XDG_CONFIG_HOME"), ("store", "ONDEVICE_HOME")):  # fmt: skip
        Path(os.environ[variable], "leak").write_text(f"...{words[place]}...")
    Path("leak").write_bytes(words["directory"].encode("utf-16"))
    Path(os.environ["TMPDIR"], words["name"]).touch()
    Path(os.environ["TMPDIR"], "link").symlink_to(f"/nowhere/{words['link']}")
    Path(order["kept"], "leak").write_text(words["worker"].encode().hex())
    Path(order["shared"]).write_text(words["shared"])
    brief = Path(os.environ["TMPDIR"], f"brief-{words['brief']}")
    brief.touch()
    brief.unlink()

    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()", words["argument"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PROMPT": words["variable"]},
    )
    assert child.stdout is not None
    child.stdout.readline()  # it is what it will be
    record.process(child.pid)
    child.communicate(b"\n")
    Path(order["outputs"]).write_text("[]")


def raised(error: Exception, cause: Exception | None = None) -> None:
    raise error from cause


def hidden(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        raise ValueError("no text") from None


if __name__ == "__main__":
    main()
