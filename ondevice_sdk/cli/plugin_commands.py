"""Commands that plugins add, by the entry-point group `ondevice_sdk.commands`: each a `typer.Typer`, under its name.

Nothing of a plugin is imported before one of its commands is run, so that a broken one breaks no other command.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from ondevice_sdk.errors import BackendUnavailable

GROUP = "ondevice_sdk.commands"


class PluginCommands(TyperGroup):
    """A group of commands to which plugins add; the SDK's own win over a plugin's of the same name.

    What is annotated as Any is click's, which typer gets from elsewhere in each of its versions.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        """The SDK's own, then those of plugins."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in _found() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command of ours, or what stands for a plugin's in the help."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        point = _found().get(cmd_name)
        return None if point is None else _Announced(point)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is to be run."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, _Announced) else command, rest


class _Announced(TyperCommand):
    """A plugin's commands before they are imported; the help has the summary of its distribution."""

    def __init__(self, point: EntryPoint) -> None:
        summary = point.dist.metadata["Summary"] if point.dist is not None else None
        super().__init__(point.name, help=summary or f"Commands of {_origin(point)}.", rich_help_panel="Plugins")
        self._point = point

    def load(self) -> TyperGroup:
        """Import them.

        Raises:
            BackendUnavailable: the plugin is broken; the reason names the distribution.
        """
        point, problem = self._point, "is no typer.Typer"
        try:
            found = point.load()
            if isinstance(found, typer.Typer):
                return get_group(found)
        except Exception as error:  # foreign code: importing it may raise anything
            problem = f"raised {type(error).__name__}"
            if isinstance(error, ImportError) and error.name:
                problem += f" ({error.name[:100]})"
            raise _broken(point, problem) from error
        raise _broken(point, problem)


def _found() -> dict[str, EntryPoint]:
    """All that are announced, sorted by name; of two with one name that of the first distribution."""
    points = sorted(entry_points(group=GROUP), key=lambda point: (point.name, _origin(point)), reverse=True)
    return dict(sorted({point.name: point for point in points}.items()))


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown distribution"


def _broken(point: EntryPoint, problem: str) -> BackendUnavailable:
    reason = f"{point.value} {problem}"
    return BackendUnavailable(
        f"the command {point.name!r} of {_origin(point)} is broken: {reason}",
        reason=reason,
        hint=f"install {_origin(point)} again, or remove it",
    )
