"""Runs an app where nothing can leave the machine, and counts and names every packet that it tried to send.

The app runs in a network namespace where every address is local (`namespace`), beside a sniffer (`sniffer`), the
kernel's counters (`kernel`) and a server that answers for every name (`answerer`). A process of its own, the warden
(`__main__`), holds all of these. The app divides its life into phases: it writes a line `mark NAME`, and waits for a
line in answer; by then its connections are closed, and the packets of the phase have been counted. A line `told JSON`
is what it wants to hand over. Standard library only, and no privileges where user namespaces are open to everybody.

Packets only: what goes over UNIX sockets, to a resolver or a proxy on the same machine, is not seen here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .namespace import Unavailable
from .packets import Packet

__all__ = ["Packet", "Phase", "Record", "Unavailable", "contacts", "watch"]

_HERE: Final = Path(__file__).parent
_LOOK_UP_PORTS: Final = {53, 5353, 5355}


@dataclass(frozen=True, slots=True)
class Phase:
    """What was sent between two marks, as the sniffer saw it and as the kernel counted it."""

    name: str
    packets: tuple[Packet, ...]
    counters: Mapping[str, int]

    @property
    def silent(self) -> bool:
        """Whether both witnesses say that nothing was sent."""
        return not self.packets and not any(self.counters.values())


@dataclass(frozen=True, slots=True)
class Record:
    """All phases of an app.

    `names` are those that were answered for, by their addresses; without `ipv6` the system cannot send by it at all.
    """

    phases: tuple[Phase, ...]
    ipv6: bool
    names: Mapping[str, str]
    told: Any
    code: int
    errors: str

    def __getitem__(self, name: str) -> Phase:
        return next(phase for phase in self.phases if phase.name == name)

    @property
    def packets(self) -> tuple[Packet, ...]:
        """Those of all phases."""
        return tuple(packet for phase in self.phases for packet in phase.packets)

    def contacts(self) -> frozenset[str]:
        """What the app asked for and where it went, in words."""
        return contacts(self.packets, self.names)


def contacts(packets: Iterable[Packet], names: Mapping[str, str]) -> frozenset[str]:
    """Who was to be reached, as `"lookup NAME"`, `"tcp HOST:PORT"`, `"udp HOST:PORT"`, `"icmp HOST"`; no answers."""
    found = set()
    for packet in packets:
        host = names.get(packet.destination, packet.destination)
        if packet.name:
            found.add(f"lookup {packet.name}")
        elif packet.opens and not {packet.port, packet.source_port} & _LOOK_UP_PORTS:
            found.add(f"{packet.protocol} {host}:{packet.port}" if packet.port else f"{packet.protocol} {host}".strip())
    return frozenset(found)


def watch(
    app: Sequence[str],
    *,
    environment: Mapping[str, str],
    servers: Sequence[Sequence[str]] = (),
    directory: str | Path = "/",
    python: str = sys.executable,
    package: Path = _HERE,
    user: int | None = None,
    timeout_s: float = 240.0,
) -> Record:
    """Run an app to its end.

    Args:
        app: its command.
        environment: all of its environment.
        servers: commands that are started before it, in the same namespace; each prints a line when it is
            ready, and ends when its standard input does.
        directory: where app and servers run.
        python: runs the warden.
        package: where this package lies, or a copy of it that `user` can read.
        user: another user to become; for the administrator.
        timeout_s: after which it has failed.

    Raises:
        Unavailable: the system gives no such namespace; a test is skipped then.
    """
    if sys.platform != "linux":
        raise Unavailable("network namespaces are Linux")
    wanted = {"app": app, "environment": environment, "servers": servers, "directory": str(directory)}
    done = subprocess.run(
        [python, "-m", package.name],
        input=json.dumps(wanted),
        cwd=package.parent,
        env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        user=user,
        group=user,
        extra_groups=None if user is None else (),
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    if "unavailable" in told:
        raise Unavailable(told["unavailable"])
    phases = tuple(
        Phase(phase["name"], tuple(Packet(*packet) for packet in phase["packets"]), phase["counters"])
        for phase in told["phases"]
    )
    return Record(phases, told["ipv6"], told["names"], told["told"], told["code"], told["errors"])
