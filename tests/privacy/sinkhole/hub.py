"""A model hub beside an app: run with `PORT NAME=PATH...`, it serves files until its standard input ends."""

from __future__ import annotations

import contextlib
import http.server
import sys
import threading
from pathlib import Path

from tests.store.test_hub import Hub


def main(port: int, files: dict[str, bytes]) -> None:
    """Listen at every address of the namespace."""
    hub = Hub(files=files)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):
                hub.respond(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("", port), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print("ready", flush=True)
        sys.stdin.read()
        server.shutdown()


if __name__ == "__main__":
    named = (word.partition("=") for word in sys.argv[2:])
    main(int(sys.argv[1]), {name: Path(path).read_bytes() for name, _, path in named})
