"""OpenVINO without its telemetry.

`import openvino` imports `openvino.tools.ovc`, which imports `openvino_telemetry`, which sends an event to a web
service, and writes an identifier of the machine into the user's home directory. Where that package cannot be imported,
OpenVINO uses a stub of its own that does nothing: so it is made impossible to import, for the life of the process.
"""

from __future__ import annotations

import sys
from types import ModuleType

TELEMETRY = "openvino_telemetry"


def hush() -> None:
    """Make OpenVINO's telemetry impossible to import, unless somebody else has imported it already."""
    if not isinstance(sys.modules.get(TELEMETRY), ModuleType):
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # what `import` takes for "there is none"


def import_runtime() -> None:
    """Import OpenVINO and OpenVINO GenAI, silently."""
    hush()
    import openvino  # noqa: F401
    import openvino_genai  # noqa: F401
