"""A worker that says what it likes: run in place of Python by `worker_command`. Needs nothing of the package.

Follows the protocol up to the point that its first argument names, then sends the file that its second names.
"""

import json
import os
import sys
from pathlib import Path

POINT, DATA = sys.argv[1], Path(sys.argv[2]).read_bytes()


def send(header: dict[str, object]) -> None:
    data = json.dumps(header).encode()
    os.write(1, len(data).to_bytes(4, "big") + data)


def receive() -> None:
    length = int.from_bytes(os.read(0, 4), "big")
    header = os.read(0, length)
    blob = json.loads(header).get("blob", 0) if header else 0
    while blob > 0:
        blob -= len(os.read(0, blob))


def reach(point: str) -> None:
    if point == POINT:
        rest = DATA
        while rest:
            rest = rest[os.write(1, rest) :]
        while os.read(0, 65536):  # live on, as if nothing had happened
            pass
        os._exit(0)


reach("start")
send({"kind": "started"})
receive()
reach("seal")
send({"kind": "closed", "told": False})
receive()
reach("prove")
seal = {
    "pid": os.getpid(),
    "machine": "x",
    "attempts": [],
    "files": [],
    "app_out_of_reach": False,
    "landlock": 0,
    "landlock_lack": "",
    "namespaces_lack": "",
    "told": False,
    "told_lack": "",
    "no_new_privileges": False,
    "dumpable": True,
    "core_limit": 0,
    "environment": [],
    "error": "",
    "hiding_error": "",
}
send({"kind": "hello", "seal": seal})
receive()
receive()
reach("load")
send({"kind": "ready", "context_tokens": 100, "max_sequences": 1, "capabilities": [], "import_s": 0.1, "load_s": 0.1})
receive()
reach("serve")
