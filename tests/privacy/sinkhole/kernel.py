"""The kernel's own account of this network namespace: a second witness beside the sniffer."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_NET: Final = Path("/proc/self/net")
_WANTED: Final = {
    "Ip": ("OutRequests",),
    "Icmp": ("OutMsgs",),
    "Tcp": ("ActiveOpens", "OutSegs"),
    "Udp": ("OutDatagrams",),
}
_WANTED_6: Final = ("Ip6OutRequests", "Udp6OutDatagrams", "Icmp6OutMsgs")
_AT_REST: Final = ("06", "0A")  # TIME_WAIT, LISTEN: in these states nothing is sent by itself


def counters() -> dict[str, int]:
    """What was sent so far, by protocol; `packets` are those of all interfaces together."""
    found = {"packets": 0}
    for line in (_NET / "dev").read_text().splitlines()[2:]:
        found["packets"] += int(line.partition(":")[2].split()[9])
    lines = [line.split() for line in (_NET / "snmp").read_text().splitlines()]
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        group = names[0].rstrip(":")
        found |= {
            f"{group}{name}": int(value)
            for name, value in zip(names[1:], values[1:], strict=True)
            if name in _WANTED.get(group, ())
        }
    if (_NET / "snmp6").exists():
        pairs = (line.split() for line in (_NET / "snmp6").read_text().splitlines())
        found |= {name: int(value) for name, value in pairs if name in _WANTED_6}
    return found


def quiet() -> bool:
    """Whether no TCP connection is left that could still send something."""
    tables = [path for path in (_NET / "tcp", _NET / "tcp6") if path.exists()]
    return all(line.split()[3] in _AT_REST for path in tables for line in path.read_text().splitlines()[1:])
