"""Instruction sets that a compiled library needs. Imports no runtime."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ondevice_sdk.errors import ModelCorrupt

_CPUINFO: Final = Path("/proc/cpuinfo")


def missing_features(metadata: Mapping[str, Any]) -> list[str]:
    """What a library needs by its `features`, in Linux's words, and this processor lacks.

    Empty for libraries that do not say, as those of others, and where the system does not tell what the processor has.

    Raises:
        ModelCorrupt: `features` is no list of words.
    """
    needed = metadata.get("features") or []
    if not isinstance(needed, list) or not all(isinstance(each, str) for each in needed):
        raise ModelCorrupt("the compiled library does not describe its processor")
    here = present()
    if not here:
        return []
    return [each for each in needed if _plain(each) not in here]


def present() -> frozenset[str]:
    """Features of this processor, as Linux calls them but for punctuation; empty where it is not known."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return frozenset(map(_plain, match[1].split())) if match else frozenset()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]", "", name.lstrip("+"))
