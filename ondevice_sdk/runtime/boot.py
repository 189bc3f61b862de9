"""The first code of a worker: seals the process before anything that was written by somebody else is imported.

Run as `python -I -S -B boot.py [descriptor]`: isolated, and without `site`, whose `.pth` files could run code before
the seal. The descriptor is a socket that serves to hand the kernel's reports over, and is closed then. The app looks at
this process from outside before and after the seal, verifies it, and only then sends the paths where third-party
modules lie.
"""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import sys
import time
from types import ModuleType


def _load(name: str, *parts: str) -> ModuleType:
    """Import a file or folder of this package by its path; the package itself is out of reach under `-I -S`."""
    module = _make(name, *parts)
    _run(module)
    return module


def _run(module: ModuleType) -> None:
    assert module.__spec__ is not None
    assert module.__spec__.loader is not None
    module.__spec__.loader.exec_module(module)


def _make(name: str, *parts: str) -> ModuleType:
    """A module whose code has not run yet."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), *parts)  # noqa: PTH100, PTH118, PTH120 - start-up
    folder = None if path.endswith(".py") else [path]
    spec = importlib.util.spec_from_file_location(
        name, f"{path}/__init__.py" if folder else path, submodule_search_locations=folder
    )
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    return module


def _bare_package() -> None:
    """Make the parts of this package importable without its `__init__`, which imports all of the app's side.

    It runs all the same as soon as somebody asks for a name that is no part.
    """
    package = _make("ondevice_sdk", os.pardir)

    def complete(name: str) -> object:
        if importlib.util.find_spec(f"ondevice_sdk.{name}") is not None:
            raise AttributeError(name)  # and so it is imported
        package.__dict__.pop("__getattr__", None)
        _run(package)
        return getattr(package, name)

    package.__getattr__ = complete  # type: ignore[method-assign]


def _private_pipes() -> tuple[int, int]:
    """Move the protocol away from descriptors 0 and 1, so that a library's `printf` cannot corrupt it."""
    inbound, outbound = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0, inheritable=False)
    os.dup2(2, 1, inheritable=False)
    os.close(nothing)
    return inbound, outbound


def _hand_over() -> int | None:
    """The socket that the app named, if a launcher in between has passed it on."""
    try:
        descriptor = int(sys.argv[1])
        return descriptor if stat.S_ISSOCK(os.fstat(descriptor).st_mode) else None
    except (IndexError, OSError, ValueError):
        return None


def main() -> None:
    """Start, show, seal, prove, wait for the word to go on."""
    wire = _load("_ondevice_wire", "wire.py")
    _load("_ondevice_sandbox", os.pardir, "privacy", "sandbox")
    order = importlib.import_module("_ondevice_sandbox.order")
    hand_over = _hand_over()
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
    wanted = expect("seal")
    level, read, private = wanted["level"], wanted["read"], wanted["private"]
    account = order.close(level, read, private, hand_over, wanted["caches"])
    send("closed", told=account["told"])
    expect("prove")
    seal = {
        "pid": os.getpid(),
        "machine": os.uname().machine,
        "environment": sorted(os.environ),
        **account,
        **order.prove(level, private),
    }
    send("hello", seal=seal)
    go = expect("go")
    began = time.monotonic()
    paths = go["path"]
    assert isinstance(paths, list)
    sys.path += [path for path in paths if path not in sys.path]
    _bare_package()
    if go["role"] == "function":
        from ondevice_sdk.runtime import function

        function.run(inbound, outbound)
    elif go["role"] == "maker":
        from ondevice_sdk.runtime import maker

        maker.run(inbound, outbound)
    else:
        from ondevice_sdk.runtime import worker

        worker.run(inbound, outbound, began)


if __name__ == "__main__":
    main()
