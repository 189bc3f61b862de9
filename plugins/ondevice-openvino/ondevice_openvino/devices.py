"""On what OpenVINO is to run models."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

VARIABLE: Final = "ONDEVICE_OPENVINO_DEVICE"
_NAME: Final = re.compile(r"(?:CPU|(?:GPU|NPU)(?:\.\d+)?|AUTO(?::[A-Z]+(?:\.\d+)?(?:,[A-Z]+(?:\.\d+)?)*)?)")
# Where Linux shows what the GPU and NPU drivers serve.
_NODES: Final = {"GPU": ("/dev/dri", "renderD*"), "NPU": ("/dev/accel", "accel*")}


def chosen() -> str:
    """The name of the device, as the environment says it; the processor where it says nothing."""
    return os.environ.get(VARIABLE, "").strip().upper() or "CPU"


def obstacle(name: str) -> str:
    """Why nothing can run on a device, as far as can be seen without OpenVINO; empty if nothing speaks against it."""
    if not _NAME.fullmatch(name):
        return f"{VARIABLE} names no device that OpenVINO knows: CPU, GPU, GPU.1, NPU, AUTO ..."
    kind = name.partition(".")[0]
    if kind in _NODES and sys.platform == "linux":
        folder, pattern = _NODES[kind]
        nodes = sorted(Path(folder).glob(pattern))
        if not nodes:
            return f"there is no {kind} here: no {folder}/{pattern}"
        if not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
            return f"this user may not use the {kind}: no access to {folder}/{pattern}"
    return ""
