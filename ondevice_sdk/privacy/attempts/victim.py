"""A process that stands for the app: it holds a secret and a connection, and tells what was done to it.

Run as a script with the port of a UDP listener and the path of a file as arguments; never imported. Each line on
its standard input is answered with its state.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys

SIZE = 32


def main() -> None:
    """Tell where the secret is, then answer."""
    port, path = int(sys.argv[1]), sys.argv[2]
    secret = ctypes.create_string_buffer(os.environ["SECRET"].encode()[:SIZE], SIZE)
    canary = ctypes.create_string_buffer(SIZE)
    signals: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: signals.append(number))
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(2**64 - 1), 0, 0, 0)  # let Yama not be what protects it
    connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    connection.connect(("127.0.0.1", port))
    file = os.open(path, os.O_RDONLY)

    def tell(**fields: object) -> None:
        print(json.dumps(fields), flush=True)  # noqa: T201 - its protocol

    tell(
        pid=os.getpid(),
        secret_address=ctypes.addressof(secret),
        canary_address=ctypes.addressof(canary),
        size=SIZE,
        socket=connection.fileno(),
        file=file,
    )
    while sys.stdin.readline():
        with open("/proc/self/oom_score_adj", encoding="ascii") as score:
            tell(
                canary=canary.raw.hex(),
                signals=signals,
                files=resource.getrlimit(resource.RLIMIT_NOFILE),
                priority=os.getpriority(os.PRIO_PROCESS, 0),
                cores=sorted(os.sched_getaffinity(0)),
                scheduler=os.sched_getscheduler(0),
                oom_score=score.read(),
            )


if __name__ == "__main__":
    main()
