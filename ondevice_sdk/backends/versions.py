"""Which versions a plugin runs with, read from the metadata of what is installed: nothing of it is imported."""

from __future__ import annotations

import functools
import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution, entry_points

GROUP = "ondevice_sdk.backends"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@functools.cache
def of_plugin(module: str) -> str:
    """The distribution that announces a backend in this module's package, and what it requires, each with its version.

    "ondevice-mlc 0.1.0, apache-tvm 0.26.0". Requirements that are not installed here, and the SDK, are left out.
    """
    package = module.partition(".")[0]
    for point in entry_points(group=GROUP):
        if point.dist is not None and point.module.partition(".")[0] == package:
            return ", ".join((_described(point.dist), *_required(point.dist)))
    return f"{package}, version unknown"


def _required(plugin: Distribution) -> list[str]:
    found = []
    for requirement in plugin.requires or ():
        wanted, _, marker = requirement.partition(";")
        name = _NAME.match(wanted)
        if name is None or "extra" in marker or name[0].lower().replace("_", "-") == "ondevice-sdk":
            continue
        try:
            found.append(_described(distribution(name[0])))
        except PackageNotFoundError:  # for another system
            continue
    return sorted(found)


def _described(each: Distribution) -> str:
    return f"{each.name} {each.version}"
