"""`ondevice cache ...`: what clients with a prefix cache have kept on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from ondevice_sdk import prefix_cache
from ondevice_sdk.cli import output

app = typer.Typer(help="Prefixes that were read and kept on the disk, encrypted.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Directory = Annotated[
    Optional[Path],  # noqa: UP045  # typer reads the annotation
    typer.Option(help="Of the cache. Default: the one in the store."),
]


@app.command()
def info(directory: Directory = None, as_json: Json = False) -> None:
    """Show where the cache is, how many entries it has, and their size; needs no key."""
    path = directory or prefix_cache.default_directory()
    used = prefix_cache.usage(path)
    if as_json:
        output.show_json({"directory": str(path), "entries": used.entries, "bytes": used.bytes})
        return
    print(f"{path}: {used.entries} entries, {output.size(used.bytes)}")


@app.command()
def purge(directory: Directory = None, as_json: Json = False) -> None:
    """Delete everything in it; needs no key. Workers that run keep what they hold in memory."""
    path = directory or prefix_cache.default_directory()
    removed = prefix_cache.purge(path)
    if as_json:
        output.show_json({"directory": str(path), "removed": removed})
        return
    print(f"{path}: {removed} files deleted")
