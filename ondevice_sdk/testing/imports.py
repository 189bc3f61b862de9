"""What the modules of a plugin import of the SDK, read from their source."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

__all__ = ["COMMANDS", "SEAM", "strange_imports"]

SEAM: Final = ("ondevice_sdk.backends.api", "ondevice_sdk.engine", "ondevice_sdk.types", "ondevice_sdk.errors")
COMMANDS: Final = ("ondevice_sdk", "ondevice_sdk.models")  # besides the seam, for modules that are commands


def strange_imports(folder: Path, *, commands: Collection[str] = ()) -> list[str]:
    """Imports from outside of the seam, as "file:line: module", in a package and all below it.

    `ondevice_sdk.engine` stands for what lies in it, too. Imports for type checking count: what is not public may
    change.

    Args:
        folder: of the package.
        commands: names of files, relative to it, that are commands: they may use what apps use.
    """
    found = []
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        allowed = {*SEAM, *(COMMANDS if name in commands else ())}
        for line, module in _imported(ast.parse(path.read_text(encoding="utf-8"))):
            if module not in allowed and not module.startswith("ondevice_sdk.engine."):
                found.append(f"{name}:{line}: {module}")
    return found


def _imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Modules of the SDK with the line that names them. Of `from ondevice_sdk import x` that may be a module: it is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.partition(".")[0] == "ondevice_sdk":
                    yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            if node.module == "ondevice_sdk":
                yield from ((node.lineno, _of_package(name.name)) for name in node.names)
            elif node.module == "ondevice_sdk.backends":
                yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)
            elif node.module.startswith("ondevice_sdk."):
                yield node.lineno, node.module
        elif isinstance(node, ast.Call) and _is_import_call(node):
            (first, *_) = node.args
            if isinstance(first, ast.Constant) and str(first.value).partition(".")[0] == "ondevice_sdk":
                yield node.lineno, str(first.value)


def _of_package(name: str) -> str:
    return f"ondevice_sdk.{name}" if name.islower() and name != "models" else "ondevice_sdk"


def _is_import_call(node: ast.Call) -> bool:
    function = node.func
    called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return called in ("import_module", "__import__") and bool(node.args)
