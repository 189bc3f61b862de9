"""One side of a conversation with a worker: messages in, messages out, and nothing believed that is not one."""

from __future__ import annotations

import time
from collections import deque
from typing import Final, TypeVar

from ondevice_sdk.errors import WorkerCrashed
from ondevice_sdk.runtime import protocol, wire
from ondevice_sdk.runtime.child import WorkerProcess
from ondevice_sdk.runtime.wire import ProtocolError

START_S: Final = 60.0  # a cold disk and a busy machine

M = TypeVar("M", bound=protocol.ToApp)


class Channel:
    """Speaks with a worker, a message at a time, on the calling thread."""

    def __init__(self, process: WorkerProcess) -> None:
        self.process = process
        self.decoder = wire.Decoder(wire.TO_APP)
        self.frames: deque[wire.Frame] = deque()

    def send(self, message: protocol.ToWorker) -> None:
        """Write a message.

        Raises:
            WorkerCrashed: the worker has ended, or does not read.
        """
        try:
            self.process.write(protocol.to_worker(message), START_S)
        except OSError as error:
            raise self.process.crash(self.process.last_words() or None) from error

    def receive(self, timeout: float, *, quote: bool = True) -> protocol.ToApp:
        """The next message.

        Args:
            timeout: seconds.
            quote: whether an error may have its last words: not once it was given the user's text.

        Raises:
            WorkerCrashed: the worker has ended, did not answer in `timeout` seconds, or sent what is no message.
        """
        deadline = time.monotonic() + timeout
        try:
            while not self.frames:
                data = self.process.read(max(0.0, deadline - time.monotonic()))
                if data is None:
                    raise WorkerCrashed(f"the worker did not answer within {timeout:.0f} s")
                if not data:
                    raise self.process.crash((quote and self.process.last_words()) or None)
                self.frames.extend(self.decoder.feed(data))
            return protocol.from_worker(self.frames.popleft())
        except ProtocolError:
            raise broken() from None

    def expect(self, kind: type[M], timeout: float = START_S) -> M:
        """The next message, which has to be of this kind.

        Raises:
            WorkerCrashed: it is not; and as `receive`.
        """
        answer = self.receive(timeout)
        if not isinstance(answer, kind):
            raise broken()
        return answer


def broken() -> WorkerCrashed:
    """The error for a worker that does not keep to the protocol."""
    return WorkerCrashed("the worker broke the protocol and was ended")
