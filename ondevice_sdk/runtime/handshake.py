"""How a worker becomes one that may be trusted with text: looked at, sealed, verified, and only then told to go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ondevice_sdk.errors import PrivacyUnavailable
from ondevice_sdk.privacy import policy
from ondevice_sdk.privacy.evidence import Seal, Witness, read_descriptors, read_threads
from ondevice_sdk.privacy.report import build, shortcomings
from ondevice_sdk.runtime import protocol
from ondevice_sdk.runtime.channel import Channel
from ondevice_sdk.runtime.child import WorkerProcess
from ondevice_sdk.runtime.environment import OFFLINE, module_path
from ondevice_sdk.types import PrivacyLevel, PrivacyReport


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is known of a worker after the handshake."""

    level: PrivacyLevel
    seal: Seal
    witness: Witness

    def report(self, process: WorkerProcess, *, alive: bool) -> PrivacyReport:
        """The report, with the threads as they are now while the worker lives."""
        witness = self.witness
        if alive and (threads := read_threads(process.pid)):
            witness = Witness(threads, witness.descriptors)
        return build(
            self.level,
            "process",
            self.seal,
            witness,
            environment=process.variables,
            offline=set(OFFLINE) <= process.variables,
        )


def seal(channel: Channel, level: PrivacyLevel, *, read: Sequence[str], role: protocol.Role) -> Sealed:
    """Have a started worker seal itself, verify it, and tell it where modules lie.

    Args:
        channel: to the worker, which has said nothing yet.
        level: what to seal.
        read: absolute paths that it may read besides Python's and those of the modules.
        role: what it is to do then.

    Raises:
        PrivacyUnavailable: strict, and not proved.
        WorkerCrashed: it died, did not answer, or broke the protocol.
    """
    pid = channel.process.pid
    channel.expect(protocol.Started)
    descriptors = read_descriptors(pid)  # before the seal, which hides them from everybody
    path = module_path()
    channel.send(protocol.SealNow(level, read=(*path, *read)))
    hello = channel.expect(protocol.Hello)
    witness = Witness(read_threads(pid), descriptors)
    if level == "strict":
        reasons = shortcomings(hello.seal, witness, pid)
        if reasons:
            raise PrivacyUnavailable("the worker did not prove its seal", reasons=reasons, hint=policy.HINT)
    channel.send(protocol.Go(path, role))
    return Sealed(level, hello.seal, witness)
