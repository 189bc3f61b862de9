"""A backend that makes echo models out of GGUF files, with every fault that a maker can have, named as the target."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import ClassVar

from ondevice_sdk.backends.api import Builder
from ondevice_sdk.backends.echo import EchoBackend
from ondevice_sdk.errors import BackendUnavailable, ModelUnsupported

Steps = Generator[tuple[str, float], None, list[str]]


class ToyBackend(EchoBackend):
    name: ClassVar[str] = "toy"

    def builder(self) -> Builder:
        return Builder("toy_backend:make", "echo", ("gguf", "safetensors"), ("int4", "int8"), "toys 1")


def make(source: str, folder: str, precision: str, target: str | None, threads: int) -> Steps:
    place = Path(folder)
    assert not list(place.iterdir())
    yield "read", 0.0
    size = Path(source).stat().st_size
    model = {"ondevice-echo": 1, "context_tokens": 512 + (precision == "int8")}
    if target and (fault := FAULTS.get(target.partition(" ")[0])):
        fault(place, target.partition(" ")[2])
    yield "write", 0.5
    (place / "model.echo").write_text(json.dumps(model))
    (place / "notes.json").write_text(json.dumps({"size": size, "target": target, "threads": threads}))
    yield "write", 1.0
    if target == "names":
        return ["model.echo"]
    if target == "none":
        return []
    if target == "numbers":
        return [1]  # type: ignore[list-item]
    return ["model.echo", "notes.json", *sorted(path.name for path in place.glob("lib*"))]


def _network(place: Path, port: str) -> None:
    """Write down what came of every way out, also from a program that is started."""

    def attempt(way: Callable[[], object]) -> str:
        try:
            way()
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "done"

    child = (
        "import socket\n"
        f"try: socket.create_connection(('127.0.0.1', {port})); print('done')\n"
        "except OSError as error: print(error.errno)"
    )
    found = {
        "tcp": attempt(lambda: socket.create_connection(("127.0.0.1", int(port)))),
        "udp": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
        "unix": attempt(lambda: socket.socket(socket.AF_UNIX)),
        "child": subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout.strip(),
        "elsewhere": attempt(lambda: Path(place.parents[2] / "elsewhere").write_text("x")),
        "read": attempt(lambda: Path("/etc/hostname").read_bytes()),
        "temporary": attempt(lambda: Path(os.environ["TMPDIR"], "x").write_text("x")),
    }
    (place / "libfound.json").write_text(json.dumps(found))


def _hang(place: Path, note: str) -> None:
    """Start a program that would never end, say who there is, and wait for ever."""
    child = subprocess.Popen(["sleep", "600"])
    Path(os.environ["TMPDIR"], "scratch").write_text("x")
    (place / "half").write_text("x")
    part = Path(os.environ["TMPDIR"], "pids")
    part.write_text(json.dumps([os.getpid(), child.pid, note]))
    time.sleep(600)


def _compile(place: Path, _: str) -> None:
    """A real library, by this machine's compiler and linker."""
    source = Path(os.environ["TMPDIR"], "toy.c")
    source.write_text("int answer(void) { return 42; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(place / "libtoy.so"), str(source)], check=True)


def _typed(_: Path, word: str) -> None:
    if word == "architecture":
        raise ModelUnsupported("toys of this kind are not made", architecture="bert", hint="take another")
    raise BackendUnavailable("no linker", reason="cc was not found", hint="apt install gcc")


def _raise(_: Path, word: str) -> None:
    if word == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if word == "memory":
        raise MemoryError
    if word == "exit":
        sys.exit(3)
    raise ValueError(f"a toy broke:\n{word}")


def _link(place: Path, _: str) -> None:
    (place / "libx").symlink_to("/etc/hostname")


def _abort(_: Path, __: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"toys: assertion failed\n")
    os.abort()


def _chatty(_: Path, __: str) -> None:
    print("a library that prints to standard output", flush=True)
    os.write(1, b"and past Python\n")


FAULTS: dict[str, Callable[[Path, str], None]] = {
    "network": _network,
    "hang": _hang,
    "compile": _compile,
    "typed": _typed,
    "raise": _raise,
    "link": _link,
    "abort": _abort,
    "chatty": _chatty,
}
