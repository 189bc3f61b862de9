"""The whole SDK where nothing can leave the machine and every packet is counted: strict privacy sends none.

The positive control is a backend whose runtime library phones home in nine ways: without the seal each of them is seen.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from ondevice_sdk.backends import registry
from ondevice_sdk.device import detect
from ondevice_sdk.errors import ModelNotInstalled
from ondevice_sdk.store import Store

from . import sinkhole
from .sinkhole import packets

ROOT: Final = Path(__file__).parents[2]
APP: Final = str(Path(sinkhole.__file__).parent / "app" / "whole_sdk.py")
NOBODY: Final = 65534

# What chatty_runtime says, by the moment at which it does.
ON_IMPORT: Final = frozenset(
    {
        "lookup url.import.invalid",
        "tcp url.import.invalid:80",
        "lookup lookup.import.invalid",
        "tcp 203.0.113.1:443",  # by a forked child
    }
)
POLITE: Final = frozenset({"lookup polite.import.invalid", "tcp polite.import.invalid:80"})
ON_LOAD: Final = frozenset({"tcp 203.0.113.2:443", "udp 203.0.113.3:8125", "udp 2001:db8::1:8125"})
ON_STEP: Final = frozenset({"tcp 203.0.113.5:443", "udp 203.0.113.4:8125"})

MUTING: Final = ("CI", "TELEMETRY", "TRACK", "OFFLINE")  # parts of the names of variables that make telemetry be quiet


class Engine(NamedTuple):
    """A backend and a model that it runs. `tries_nothing`: its library does not even try to reach anybody."""

    backend: str
    model: str
    tries_nothing: bool


ENGINES: Final = [
    Engine("llama_cpp", "smollm2-135m-instruct", tries_nothing=True),
    Engine("openvino", "smollm2-135m-instruct", tries_nothing=True),  # its telemetry is never even imported
]


def watch(
    home: Path, *app: str, servers: list[list[str]] | None = None, code: int = 0, **environment: str
) -> sinkhole.Record:
    """Run an app whose environment asks nobody to be quiet."""
    variables = {"PATH": os.defpath, "HOME": str(home), "ONDEVICE_HOME": str(home / "store"), **environment}
    try:
        record = sinkhole.watch(
            [sys.executable, *app], environment=variables, servers=servers or (), directory=ROOT if servers else "/"
        )
    except sinkhole.Unavailable as error:
        pytest.skip(str(error))
    assert record.code == code, record.errors
    assert_complete(record)
    return record


def assert_complete(record: sinkhole.Record) -> None:
    """The sniffer and the kernel have to agree about the number of packets, phase by phase."""
    assert [len(phase.packets) for phase in record.phases] == [phase.counters["packets"] for phase in record.phases]


def chatter(home: Path, echo_path: Path, **wanted: object) -> sinkhole.Record:
    """Run the app with the chatty backend."""
    default = {"model": str(echo_path), "backend": "chatty", "isolation": "process"}
    record = watch(home, APP, json.dumps(default | wanted))
    assert not [name for name in record.told["environment"] if any(part in name for part in MUTING)]
    assert all(record[name].silent for name in ("start", "import", "look"))
    return record


@pytest.mark.slow
@pytest.mark.parametrize(
    ("privacy", "isolation", "polite"),
    [("off", "process", POLITE), ("off", "thread", POLITE), ("guarded", "process", frozenset())],
)
def test_without_the_seal_all_that_phones_home_is_seen(
    tmp_path: Path, echo_path: Path, privacy: str, isolation: str, polite: frozenset[str]
) -> None:
    """That guarded privacy silences the well-behaved one alone is why it promises nothing."""
    record = chatter(tmp_path, echo_path, privacy=privacy, isolation=isolation)
    on_load = {contact for contact in ON_LOAD if record.ipv6 or "2001:db8" not in contact}
    assert sinkhole.contacts(record["load"].packets, record.names) == ON_IMPORT | on_load | polite
    assert sinkhole.contacts(record["prewarm"].packets, record.names) == ON_STEP
    assert record.contacts() == ON_IMPORT | on_load | ON_STEP | polite
    assert not record.told["enforced"]


@pytest.mark.slow
@pytest.mark.parametrize("bare", [False, True], ids=["all layers", "no namespace of its own"])
def test_strict_sends_nothing_whatever_the_runtime_tries(tmp_path: Path, echo_path: Path, bare: bool) -> None:
    """In the second row nothing stands between the worker and the sinkhole but the filter."""
    record = chatter(tmp_path, echo_path, privacy="strict", bare=bare)
    assert all(phase.silent for phase in record.phases)
    assert record.told["enforced"]
    assert record.told["states"]["own namespaces"] == ("not_available" if bare else "active")
    tried = {(row["call"], row["family"], row["type"]): row["count"] for row in record.told["attempts"]}
    assert tried[("socket", "AF_INET", "SOCK_STREAM")] >= 1
    assert tried[("socket", "AF_INET", "SOCK_DGRAM")] >= 4  # look-ups, and two datagrams
    assert tried[("socket", "AF_INET6", "SOCK_DGRAM")] == 1
    assert sum(tried.get((call, "", ""), 0) for call in ("fork", "vfork", "clone")) >= 2  # a child, and a program


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.backend)
def test_a_real_model_is_pulled_from_its_hub_and_nothing_else_is_sent(
    installed_store: Store, tmp_path: Path, engine: Engine
) -> None:
    pytest.importorskip("huggingface_hub", reason="the hub extra is not installed")
    usable = {status.name: status for status in registry.status(detect())}
    if engine.backend not in usable:
        pytest.skip("this backend is not installed")
    if not usable[engine.backend].usable:
        pytest.skip(usable[engine.backend].reason)
    try:
        model = installed_store.resolve(engine.model)
    except ModelNotInstalled as error:
        pytest.skip(str(error))
    record = watch(
        tmp_path,
        APP,
        json.dumps(
            {
                "model": model.name,
                "variant": model.variant,
                "backend": engine.backend,
                "privacy": "strict",
                "isolation": "process",
                "source": "hf:acme/tiny-GGUF/model.gguf",
            }
        ),
        servers=[[sys.executable, "-m", "tests.privacy.sinkhole.hub", "8080", f"model.gguf={model.path}"]],
        HF_ENDPOINT="http://hub.invalid:8080",
    )
    assert not [name for name in record.told["environment"] if any(part in name for part in MUTING)]
    pull = record["pull"]
    assert sinkhole.contacts(pull.packets, record.names) == {"lookup hub.invalid", "tcp hub.invalid:8080"}
    assert {record.names.get(packet.destination) for packet in pull.packets if packet.protocol == "tcp"} == {
        "hub.invalid"
    }
    assert all(phase.silent for phase in record.phases if phase.name != "pull")  # the hub is still there
    assert record.told["enforced"]
    assert record.told["states"]["ledger of attempts"] == "active"
    if engine.tries_nothing:
        assert record.told["attempts"] == []


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize(("privacy", "isolation"), [("off", "process"), ("off", "thread"), ("guarded", "thread")])
def test_telemetry_of_openvino_never_starts(
    installed_store: Store, tmp_path: Path, privacy: str, isolation: str
) -> None:
    """Also where nothing refuses it, and no variable asks it to be quiet."""
    skip_without_openvino()
    model = tmp_path / "model.gguf"
    model.symlink_to(installed_store.resolve("smollm2-135m-instruct").path)
    wanted = {"model": str(model), "backend": "openvino", "privacy": privacy, "isolation": isolation}
    record = watch(tmp_path, APP, json.dumps(wanted))
    assert not [name for name in record.told["environment"] if any(part in name for part in MUTING)]
    assert all(phase.silent for phase in record.phases)
    assert not (tmp_path / "intel").exists()  # where it would keep its identifier of the machine


@pytest.mark.slow
def test_telemetry_of_openvino_is_seen_where_it_is_let(tmp_path: Path) -> None:
    """The control: what importing OpenVINO does without the plugin."""
    skip_without_openvino()
    record = watch(tmp_path, "-c", "import openvino")
    assert any(contact.startswith("lookup ") and "google" in contact for contact in record.contacts())
    assert (tmp_path / "intel").exists()


def skip_without_openvino() -> None:
    usable = {status.name: status for status in registry.status(detect())}
    if "openvino" not in usable or not usable["openvino"].usable:
        pytest.skip("the OpenVINO backend is not installed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "code"),
    [("explain", 0), ("backends", 0), ("models list", 0), ("models verify", 0), ("generate hello", 1)],
)
def test_commands_that_do_not_pull_send_nothing(tmp_path: Path, command: str, code: int) -> None:
    """Nor is a model fetched that is missing."""
    record = watch(tmp_path, "-m", "ondevice_sdk", *command.split(), code=code)
    assert all(phase.silent for phase in record.phases)


@pytest.mark.slow
def test_attempts_of_the_doctor_stay_on_the_loopback_address(tmp_path: Path) -> None:
    """They are made without a seal too, as controls."""
    code = (
        "from ondevice_sdk.privacy.attempts.catalogue import ATTEMPTS; from ondevice_sdk.trials import run_trials;"
        "made = run_trials([a.id for a in ATTEMPTS.values() if a.group in ('net', 'dns')]);"
        "assert made.control_succeeded > 9 and not made.escaped, made"
    )
    record = watch(tmp_path, "-c", code)
    addressed = {packet.destination for packet in record.packets if packet.destination}
    assert addressed == ({"127.0.0.1", "::1"} if record.ipv6 else {"127.0.0.1"})
    frames = {packet.protocol for packet in record.packets if not packet.destination}
    assert frames <= {"ethertype 0x0800"}  # that of py_packet: it has no address and stays on its interface


# --- the sinkhole itself ----------------------------------------------------------------------------------------------

SENDER: Final = r"""
import socket, struct, sys
def mark(name):
    print("mark", name, flush=True); sys.stdin.readline()
def ask(name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", 1, 1)
def datagram(family, host, port, data):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.sendto(data, (host, port))
mark("nothing")
assert socket.gethostbyname("a.invalid") == socket.gethostbyname("a.invalid") != socket.gethostbyname("b.invalid")
mark("names")
with socket.create_connection(("192.0.2.1", 53)) as sock:
    query = ask("stream.invalid")
    sock.sendall(len(query).to_bytes(2, "big") + query)
    assert b"stream" in sock.recv(1000)
try:
    socket.create_connection(("c.invalid", 443))
except ConnectionRefusedError:
    pass
mark("streams")
datagram(socket.AF_INET, "198.51.100.1", 9, b"x")
datagram(socket.AF_INET, "224.0.0.251", 5353, ask("printer.local"))
try:
    datagram(socket.AF_INET6, "2001:db8::1", 9, b"x")
except OSError:
    pass
mark("datagrams")
try:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 47) as sock:
        sock.sendto(b"GRE", ("203.0.113.1", 0))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.sendto(b"\x08\0\xf7\xff" + bytes(4), ("203.0.113.2", 0))
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"frame", ("lo", 0x88B5, 0, 0, bytes(6)))
    print("told true", flush=True)
except PermissionError:
    print("told false", flush=True)
mark("raw")
"""


@pytest.fixture
def readable() -> Iterator[Path]:
    """A copy of the sinkhole that everybody can read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        shutil.copytree(Path(sinkhole.__file__).parent, Path(name, "sinkhole"))
        yield Path(name, "sinkhole")


@pytest.mark.parametrize("user", [None, NOBODY], ids=["this user", "a user without privileges"])
def test_everything_that_is_sent_is_seen_and_named(readable: Path, user: int | None) -> None:
    python = sys.executable if user is None else python_for(user)
    try:
        record = sinkhole.watch(
            [python, "-I", "-S", "-c", SENDER], environment={}, python=python, package=readable, user=user
        )
    except sinkhole.Unavailable as error:
        pytest.skip(str(error))
    assert record.code == 0, record.errors
    assert_complete(record)
    seen = {phase.name: sinkhole.contacts(phase.packets, record.names) for phase in record.phases}
    raw = {"ip 47 203.0.113.1", "icmp 203.0.113.2", "ethertype 0x88b5"}
    assert seen == {
        "servers": frozenset(),
        "nothing": frozenset(),
        "names": {"lookup a.invalid", "lookup b.invalid"},
        "streams": {"lookup stream.invalid", "lookup c.invalid", "tcp c.invalid:443"},
        "datagrams": {"udp 198.51.100.1:9", "lookup printer.local"} | ({"udp 2001:db8::1:9"} if record.ipv6 else set()),
        "raw": raw if record.told else frozenset(),
        "end": frozenset(),
    }
    assert record.told == (user is None and os.geteuid() == 0)


def python_for(user: int) -> str:
    """A Python that this user can start."""
    if os.geteuid() != 0:
        pytest.skip("needs the administrator, to become another user")
    for name in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError):
            code = "import sys; sys.exit(sys.version_info < (3, 11))"
            if subprocess.run([name, "-c", code], user=user, cwd="/", stderr=subprocess.DEVNULL).returncode == 0:
                return name
    pytest.skip("no Python that another user can start")


@pytest.mark.parametrize("ethertype", [0x0800, 0x86DD, 0x0806])
@pytest.mark.parametrize("data", [b"", b"\x45", b"\x45" + bytes(8) + b"\x11" + bytes(10), bytes(6) + b"\0" + bytes(33)])
def test_a_packet_that_cannot_be_read_counts_as_one(ethertype: int, data: bytes) -> None:
    assert packets.parse(ethertype, data).protocol


def test_only_questions_have_names() -> None:
    query = b"\0\7\1\0\0\1\0\0\0\0\0\0\4Name\7invalid\0\0\1\0\1"
    answer = query[:2] + b"\x81" + query[3:]
    for message, name in ((query, "name.invalid"), (answer, ""), (query[:20], "")):
        header = b"\x45" + bytes(8) + b"\x11" + bytes(10) + b"\x12\x34\0\x35" + bytes(4)
        packet = packets.parse(0x0800, header + message)
        assert (packet.port, packet.name) in ((53, name), (0, ""))
