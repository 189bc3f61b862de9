"""The version of TVM that models are compiled with and run on."""

from __future__ import annotations

from typing import Final

TVM_VERSION: Final = "0.26.0"


def installed_tvm() -> str:
    """The version that is installed; empty if there is none."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("apache-tvm")
    except PackageNotFoundError:
        return ""
