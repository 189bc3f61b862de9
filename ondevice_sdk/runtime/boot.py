"""The first code of a worker: seals the process before anything that was written by somebody else is imported.

Run as `python -I -S -B boot.py`: isolated, and without `site`, whose `.pth` files could run code before the seal.
The app first looks at the open descriptors of this process from outside, then asks for the seal, then verifies it, and
only then sends the paths where third-party modules lie.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import sys
from types import ModuleType


def _load(name: str, *parts: str) -> ModuleType:
    """Import a file of this package by its path; the package itself is out of reach under `-I -S`."""
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib costs 5 ms of start-up
    spec = importlib.util.spec_from_file_location(name, os.path.join(here, *parts))  # noqa: PTH118
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _private_pipes() -> tuple[int, int]:
    """Move the protocol away from descriptors 0 and 1, so that a library's `printf` cannot corrupt it."""
    inbound, outbound = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0, inheritable=False)
    os.dup2(2, 1, inheritable=False)
    os.close(nothing)
    return inbound, outbound


def main() -> None:
    """Start, show, seal, prove, wait for the word to go on."""
    wire = _load("_ondevice_wire", "wire.py")
    seccomp = _load("_ondevice_seccomp", os.pardir, "privacy", "seccomp.py")
    inbound, outbound = _private_pipes()

    def send(kind: str, **fields: object) -> None:
        wire.write_all(outbound, wire.pack({"kind": kind, **fields}, wire.TO_APP))

    def expect(kind: str) -> dict[str, object]:
        frame = wire.read_frame(inbound, wire.TO_WORKER)
        fields: dict[str, object] = json.loads(frame.header) if frame else {}
        if fields.get("kind") != kind:
            os._exit(0 if frame is None else 70)  # the app is gone, or it is not our app
        return fields

    send("started")
    level = expect("seal")["level"]
    filter_sha256, error = "", ""
    try:
        if level != "off":
            seccomp.harden()
        if level == "strict":
            filter_sha256 = seccomp.install()
    except (OSError, ValueError) as problem:  # ValueError: setrlimit
        error = str(problem)
    now = seccomp.state()
    seal = {
        "pid": os.getpid(),
        "machine": platform.machine(),
        "filter_sha256": filter_sha256,
        "attempts": seccomp.prove() if level == "strict" else [],
        "no_new_privileges": now.no_new_privileges,
        "dumpable": now.dumpable,
        "core_limit": now.core_limit,
        "environment": sorted(os.environ),
        "error": error,
    }
    send("hello", seal=seal)
    go = expect("go")
    paths = go["path"]
    assert isinstance(paths, list)
    sys.path += [path for path in paths if path not in sys.path]
    if go["role"] == "function":
        from ondevice_sdk.runtime.function import run
    else:
        from ondevice_sdk.runtime.worker import run
    run(inbound, outbound)


if __name__ == "__main__":
    main()
