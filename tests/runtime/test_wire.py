from __future__ import annotations

import json
import os
import random
import threading

import pytest

from ondevice_sdk.runtime import wire
from ondevice_sdk.runtime.wire import Decoder, Frame, Limits, ProtocolError

SMALL = Limits(header=64, blob=128)


def test_frames_survive_any_cutting() -> None:
    blobs = [b"", b"x", bytes(128), b"\x00\x00\x00\x02{}"]
    stream = b"".join(wire.pack({"kind": "k", "n": n}, SMALL, blob) for n, blob in enumerate(blobs))
    dice = random.Random(1)
    for _ in range(200):
        frames: list[Frame] = []
        decoder, at = Decoder(SMALL), 0
        while at < len(stream):
            size = dice.choice((1, 2, 3, 7, 50, 1000))
            frames += decoder.feed(stream[at : at + size])
            at += size
        assert [frame.blob for frame in frames] == blobs
        assert [json.loads(frame.header)["n"] for frame in frames] == [0, 1, 2, 3]
        assert not decoder.midway


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff",
        (65).to_bytes(4, "big"),
        (0).to_bytes(4, "big"),
        (2).to_bytes(4, "big") + b"[]",
        (2).to_bytes(4, "big") + b"{x",
        (3).to_bytes(4, "big") + b"\xff\xfe\xfd",
        (10).to_bytes(4, "big") + b'{"blob":-1',
        (13).to_bytes(4, "big") + b'{"blob":true}',
        (12).to_bytes(4, "big") + b'{"blob":129}',
        (12).to_bytes(4, "big") + b'{"blob":1.0}',
        (12).to_bytes(4, "big") + b'{"blob":NaN}',
        (12).to_bytes(4, "big") + b'{"blob":"1"}',
        (64).to_bytes(4, "big") + b"[" * 64,
    ],
)
def test_odd_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Decoder(SMALL).feed(data))
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
        os.close(writer)
        with pytest.raises(ProtocolError):
            wire.read_frame(reader, SMALL)
    finally:
        os.close(reader)


def test_a_stated_length_takes_no_memory() -> None:
    decoder = Decoder(wire.TO_APP)
    header = b'{"blob":16777216}'
    assert list(decoder.feed(len(header).to_bytes(4, "big") + header + b"x")) == []
    assert decoder.midway


def test_what_is_too_large_is_not_sent() -> None:
    with pytest.raises(ProtocolError):
        wire.pack({"a": "x" * 64}, SMALL)
    with pytest.raises(ProtocolError):
        wire.pack({}, SMALL, bytes(129))
    with pytest.raises(ValueError):
        wire.pack({"a": float("nan")}, SMALL)


def test_reading_from_a_pipe_takes_one_frame_and_no_more() -> None:
    reader, writer = os.pipe()
    frames = wire.pack({"n": 1}, wire.TO_APP, bytes(300_000)) + wire.pack({"n": 2}, wire.TO_APP)

    def send() -> None:
        wire.write_all(writer, frames)
        os.close(writer)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        first = wire.read_frame(reader, wire.TO_APP)
        assert first is not None
        assert first.blob == bytes(300_000)
        assert wire.read_frame(reader, wire.TO_APP) == Frame(b'{"n":2,"blob":0}', b"")
        assert wire.read_frame(reader, wire.TO_APP) is None
    finally:
        sender.join()
        os.close(reader)
