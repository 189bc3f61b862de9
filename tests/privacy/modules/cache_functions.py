"""Functions that tests of encrypted caches run in sealed workers."""

from __future__ import annotations

import base64
import errno
import os
from collections.abc import Callable
from pathlib import Path

from ondevice_sdk.errors import OnDeviceError
from ondevice_sdk.privacy.vault import EncryptedCache, ScopedKey


def keep(directory: str, key: str, purpose: str, model_digest: str) -> dict[str, object]:
    """Read what the app has left, write, read, replace, fill up, purge nothing."""
    scoped = ScopedKey(base64.b64decode(key), purpose, model_digest)
    try:
        with EncryptedCache(directory, scoped, max_bytes=1 << 20) as cache:
            found = cache.get("from the app")
            first = cache.put("from the worker", b"first")
            second = cache.put("from the worker", b"second " * 50_000)
            there = cache.get("from the worker")
            kept = [cache.put(f"filler {number}", bytes(300_000)) for number in range(4)]
            cache.put("last", b"words")
            return {
                "found": (found or b"").decode(),
                "puts": [first, second, *kept],
                "there": there == b"second " * 50_000,
                "bytes": cache.usage().bytes,
                "deleted": cache.delete("filler 3"),
            }
    except OnDeviceError as error:
        return {"error": error.code, "message": error.message}


def reach(directory: str) -> dict[str, str]:
    """What else a worker can make of a directory that it may keep files in."""

    def outcome(attempt: Callable[[], object]) -> str:
        try:
            attempt()
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "done"

    folder = Path(directory)
    return {
        "file": outcome(lambda: (folder / "file").write_bytes(b"x")),
        "link": outcome(lambda: (folder / "link").symlink_to("/etc/passwd")),
        "folder": outcome(lambda: (folder / "folder").mkdir()),
        "pipe": outcome(lambda: os.mkfifo(folder / "pipe")),
        "beside": outcome(lambda: folder.with_name("beside").write_bytes(b"x")),
    }
