"""All attempts, by group."""

from __future__ import annotations

from typing import Final

from ondevice_sdk.privacy.attempts import dns, execute, files, kernel, native, net, process, undo, unix
from ondevice_sdk.privacy.attempts.attempt import Attempt

GROUPS: Final = tuple(module.GROUP for module in (net, dns, native, execute, unix, process, kernel, undo, files))
ATTEMPTS: Final[dict[str, Attempt]] = {attempt.id: attempt for group in GROUPS for attempt in group.attempts}
