"""How a worker becomes one that may be trusted with text: sealed, looked at, verified, and only then told to go on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ondevice_sdk.errors import PrivacyUnavailable
from ondevice_sdk.privacy import elf, policy
from ondevice_sdk.privacy.evidence import (
    Seal,
    Witness,
    capabilities,
    compare_filters,
    read_descriptors,
    read_namespaces,
    read_threads,
    read_yama,
)
from ondevice_sdk.privacy.ledger import Ledger
from ondevice_sdk.privacy.report import build, shortcomings
from ondevice_sdk.runtime import forks, protocol
from ondevice_sdk.runtime.channel import Channel, broken
from ondevice_sdk.runtime.environment import OFFLINE, module_path, readable
from ondevice_sdk.types import PrivacyLevel, PrivacyReport


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is known of a worker after the handshake, and the seconds that its two parts took. Owns the ledger."""

    level: PrivacyLevel
    seal: Seal
    witness: Witness
    variables: frozenset[str]
    path: tuple[str, ...]
    ledger: Ledger | None
    spawn_s: float
    seal_s: float

    def report(self, *, alive: bool) -> PrivacyReport:
        """The report, with the threads and libraries as they are now while the worker lives."""
        witness, libraries = self.witness, None
        if alive:
            threads = read_threads(self.seal.pid)
            witness = replace(witness, threads=threads) if threads else witness
            mapped = elf.mapped_libraries(self.seal.pid, self.path)
            libraries = None if mapped is None else elf.scan(mapped)
        return build(
            self.level,
            "process",
            self.seal,
            witness,
            environment=self.variables,
            offline=set(OFFLINE) <= self.variables,
            attempts=self.ledger.attempts() if self.ledger else (),
            libraries=libraries,
        )

    def close(self) -> None:
        """End the ledger; its rows stay."""
        if self.ledger is not None:
            self.ledger.close()


def seal(
    channel: Channel, level: PrivacyLevel, *, read: Sequence[str], role: protocol.Role, caches: Sequence[str] = ()
) -> Sealed:
    """Have a started worker seal itself, verify it, and tell it where modules lie.

    Args:
        channel: to the worker, which has said nothing yet.
        level: what to seal.
        read: absolute paths that it may read besides Python's and those of the modules.
        role: what it is to do then.
        caches: absolute paths of directories, which must be there, in which it may keep plain files.

    Raises:
        PrivacyUnavailable: strict, and not proved.
        WorkerCrashed: it died, did not answer, or broke the protocol.
    """
    process = channel.process
    pid = process.pid
    protocol.prepare()  # while Python starts
    channel.expect(protocol.Started)
    spawned = time.monotonic()
    path = module_path()
    channel.send(protocol.SealNow(level, (*readable(path), *read), process.home, tuple(caches)))
    closed = channel.expect(protocol.Closed)
    ledger = _ledger(channel, told=closed.told)
    try:
        # Before it hides itself from everybody.
        witness = Witness(
            descriptors=read_descriptors(pid),
            namespaces=read_namespaces(pid),
            yama=read_yama(),
            app_privileged=capabilities() != 0,
        )
        channel.send(protocol.Prove())
        hello = channel.expect(protocol.Hello)
        witness = replace(witness, threads=read_threads(pid))
        if level == "strict":
            digest, same = compare_filters(pid, hello.seal.machine, told=closed.told)
            witness = replace(witness, filter_sha256=digest, read_back=same)
            reasons = shortcomings(hello.seal, witness, pid)
            if reasons:
                raise PrivacyUnavailable("the worker did not prove its seal", reasons=reasons, hint=policy.HINT)
        if ledger is not None:
            ledger.forget()
        sealed = time.monotonic()
        channel.send(protocol.Go(path, role))
    except BaseException:
        process.kill()  # first: it may be waiting for an answer of the ledger
        if ledger is not None:
            ledger.close()
        raise
    spawn_s, seal_s = spawned - process.began, sealed - spawned
    return Sealed(level, hello.seal, witness, process.variables, path, ledger, spawn_s, seal_s)


def _ledger(channel: Channel, *, told: bool) -> Ledger | None:
    with forks.spawning():
        listener = channel.process.take_listener()
        if listener is None:
            if told:
                raise broken()
            return None
        from ondevice_sdk.privacy.sandbox import kernel

        machine = kernel.machine()
        if machine is None:
            raise broken()
        try:
            ledger = Ledger(listener, machine)
        except ValueError:
            raise broken() from None
        forks.watch(ledger)
        return ledger
