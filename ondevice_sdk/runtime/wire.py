"""Frames over plain pipes: 4 bytes of length (big-endian), a JSON header, then as many raw bytes as its `blob` says.

Standard library only: the worker loads this file by its path before it is sealed. Nothing is ever unpickled, and no
length is believed: memory grows only with bytes that have arrived, up to a limit.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, NoReturn

_PREFIX: Final = 4
_CHUNK: Final = 1 << 16


class ProtocolError(Exception):
    """The other side sent something that the protocol does not allow. Never reaches the user."""


class Limits(NamedTuple):
    """Most bytes of a header and of a blob."""

    header: int
    blob: int


TO_WORKER: Final = Limits(header=4 << 20, blob=64 << 20)
TO_APP: Final = Limits(header=1 << 20, blob=16 << 20)


class Frame(NamedTuple):
    """One message: its JSON header, still as bytes, and what follows it."""

    header: bytes
    blob: bytes = b""


def pack(header: Mapping[str, object], limits: Limits, blob: bytes = b"") -> bytes:
    """Make the bytes of a frame.

    Raises:
        ProtocolError: it is larger than the other side accepts.
    """
    data = json.dumps({**header, "blob": len(blob)}, allow_nan=False, separators=(",", ":")).encode()
    if len(data) > limits.header or len(blob) > limits.blob:
        raise ProtocolError("the frame is too large")
    return len(data).to_bytes(_PREFIX, "big") + data + blob


def _header_length(prefix: bytes, limits: Limits) -> int:
    length = int.from_bytes(prefix, "big")
    if not 2 <= length <= limits.header:
        raise ProtocolError("the header has an impossible length")
    return length


def _blob_length(header: bytes, limits: Limits) -> int:
    try:
        fields = json.loads(header.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("the header is not JSON") from error
    length = fields.get("blob", 0) if isinstance(fields, dict) else None
    if type(length) is not int or not 0 <= length <= limits.blob:
        raise ProtocolError("the header states an impossible length")
    return length


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(word)


class Decoder:
    """Makes frames of bytes as they arrive, in any pieces. After a `ProtocolError` it must not be used again."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._header: bytes | None = None
        self._need = _PREFIX  # bytes in the buffer before something can be done
        self._in_prefix = True

    @property
    def midway(self) -> bool:
        """Whether a frame has begun and is not complete."""
        return bool(self._buffer) or not self._in_prefix

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes, give the frames they complete.

        Raises:
            ProtocolError: they are not frames.
        """
        self._buffer += data
        while len(self._buffer) >= self._need:
            piece = bytes(self._buffer[: self._need])
            del self._buffer[: self._need]
            if self._in_prefix:
                self._in_prefix, self._need = False, _header_length(piece, self._limits)
            elif self._header is None:
                self._header, self._need = piece, _blob_length(piece, self._limits)
            else:
                yield Frame(self._header, piece)
                self._header, self._in_prefix, self._need = None, True, _PREFIX


def read_frame(fd: int, limits: Limits) -> Frame | None:
    """Read one frame from a blocking pipe and not a byte more; None at its end.

    Raises:
        ProtocolError: it is not a frame, or ends in the middle of one.
    """
    prefix = _read(fd, _PREFIX)
    if not prefix:
        return None
    header = _read(fd, _header_length(_whole(prefix, _PREFIX), limits))
    blob_length = _blob_length(header, limits)
    return Frame(header, _whole(_read(fd, blob_length), blob_length))


def _read(fd: int, length: int) -> bytes:
    pieces, missing = [], length
    while missing:
        piece = os.read(fd, min(missing, _CHUNK))
        if not piece:
            break
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def _whole(data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise ProtocolError("the pipe ended in the middle of a frame")
    return data


def write_all(fd: int, data: bytes) -> None:
    """Write everything to a blocking pipe.

    Raises:
        OSError: nobody reads it any more.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
