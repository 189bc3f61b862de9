"""Commands of a plugin."""

from __future__ import annotations

import typer

from ondevice_sdk.errors import ModelUnsupported

NUMBER = 3
app = typer.Typer()


@app.command()
def hello(name: str) -> None:
    """Say hello."""
    if name == "nobody":
        raise ModelUnsupported("nobody is here", hint="call somebody")
    print(f"hello {name}")
