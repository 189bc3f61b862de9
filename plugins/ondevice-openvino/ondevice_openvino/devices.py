"""On what OpenVINO is to run models."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Final

VARIABLE: Final = "ONDEVICE_OPENVINO_DEVICE"
_NAME: Final = re.compile(r"(?:CPU|(?:GPU|NPU)(?:\.\d+)?|AUTO(?::[A-Z]+(?:\.\d+)?(?:,[A-Z]+(?:\.\d+)?)*)?)")
_NODES: Final = {"GPU": ("/dev/dri", "renderD*")}  # where Linux shows what the drivers serve


def chosen() -> str:
    """The name of the device, as the environment says it; the processor where it says nothing."""
    return os.environ.get(VARIABLE, "").strip().upper() or "CPU"


def obstacle(name: str) -> str:
    """Why nothing can run on a device, as far as can be seen without OpenVINO; empty if nothing speaks against it."""
    if not _NAME.fullmatch(name):
        return f"{VARIABLE} names no device that OpenVINO knows: CPU, GPU, GPU.1, AUTO ..."
    if "NPU" in name:  # its pipeline for one there is another, for one request at a time
        return "OpenVINO GenAI's continuous batching, on which this backend is built, runs on CPU and GPU and on no NPU"
    kind = name.partition(".")[0]
    if kind in _NODES and sys.platform == "linux":
        folder, pattern = _NODES[kind]
        nodes = sorted(Path(folder).glob(pattern))
        if not nodes:
            return f"there is no {kind} here: no {folder}/{pattern}"
        if not any(os.access(node, os.R_OK | os.W_OK) for node in nodes):
            return f"this user may not use the {kind}: no access to {folder}/{pattern}"
    return ""
