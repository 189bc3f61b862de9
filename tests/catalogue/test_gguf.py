from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ondevice_sdk.catalogue import gguf as gguf_module
from ondevice_sdk.catalogue.gguf import read_header
from ondevice_sdk.errors import ModelCorrupt

from ..fuzzing.tiny_model import Gguf, Tensor, array, texts, tiny


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return string(key) + struct.pack("<I", kind) + value


ARCHITECTURE = pair("general.architecture", 8, string("llama"))
PAIRS = [
    ARCHITECTURE,
    pair("numbers", 9, struct.pack("<IQ", 4, 3) + struct.pack("<3I", 1, 2, 3)),
    pair("words", 9, struct.pack("<IQ", 8, 2) + string("a") + string("bc")),
    pair("flag", 7, b"\x01"),
]


def tensor(name: str, *, kind: int = 2, offset: int = 0) -> bytes:
    return string(name) + struct.pack("<I", 2) + struct.pack("<2Q", 32, 1) + struct.pack("<IQ", kind, offset)


def gguf(pairs: list[bytes], tensors: list[bytes], *, version: int = 3, data: int = 256) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + b"\0" * data


GOOD = gguf(PAIRS, [tensor("a"), tensor("b", kind=0, offset=128)])


def write(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return str(path)


def test_reads_what_is_needed(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, GOOD))
    assert header.architecture == "llama"
    assert header.tensor_types == {2: 32, 0: 32}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"GGML" + GOOD[4:],
        gguf(PAIRS, [], version=1),
        gguf(PAIRS, [], version=1 << 24),
        gguf(PAIRS[1:], []),
        gguf([ARCHITECTURE, pair("x", 99, b"")], []),
        gguf([ARCHITECTURE, pair("x", 9, struct.pack("<IQ", 8, 1 << 40))], []),
        gguf([ARCHITECTURE, pair("x", 9, struct.pack("<IQ", 9, 1) * 9)], []),
        gguf([ARCHITECTURE, pair("general.alignment", 4, struct.pack("<I", 0))], []),
        gguf([ARCHITECTURE, pair("general.alignment", 4, struct.pack("<I", 48))], []),
        gguf(PAIRS, [tensor("a", offset=1 << 30)]),
        b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60) + b"\0" * 100,
    ],
)
def test_damage_is_seen(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ModelCorrupt):
        read_header(write(tmp_path, content))


def changed(change: Callable[[Gguf], object]) -> bytes:
    model = tiny()
    change(model)
    return model.encode()


def number_of(key: str, value: int) -> Callable[[Gguf], object]:
    return lambda model: setattr(model.pair(key), "value", struct.pack("<I", value))


def tensor_of(**values: object) -> Callable[[Gguf], object]:
    def change(model: Gguf) -> None:
        for name, value in values.items():
            setattr(model.tensors[3], name, value)

    return change


# Each of these ended the process of llama.cpp 0.3.36, or made it read where nothing of the file is.
REFUSED: dict[str, Callable[[Gguf], object]] = {
    "a key twice": lambda m: m.pairs.append(m.pairs[4]),
    "a tensor twice": lambda m: m.tensors.append(m.tensors[0]),
    "a token twice": lambda m: setattr(m.pair("tokenizer.ggml.tokens"), "value", texts(["a", "b", "a"])),
    "too few token types": lambda m: setattr(m.pair("tokenizer.ggml.token_type"), "value", array(5, 1, bytes(4))),
    "token types as text": lambda m: setattr(m.pair("tokenizer.ggml.token_type"), "value", texts(["a"] * 300)),
    "tokens as numbers": lambda m: setattr(m.pair("tokenizer.ggml.tokens"), "value", array(4, 1, bytes(4))),
    "tokens as one text": lambda m: setattr(m.pair("tokenizer.ggml.tokens"), "kind", 8),
    "alignment of another type": lambda m: setattr(m.pair("general.alignment"), "kind", 5),
    "alignment that no mapping has": number_of("general.alignment", 8),
    "no layers": number_of("llama.block_count", 0),
    "more layers than there can be": number_of("llama.block_count", 513),
    "no context": number_of("llama.context_length", 0),
    "no width": number_of("llama.embedding_length", 0),
    "negative epsilon": lambda m: setattr(
        m.pair("llama.attention.layer_norm_rms_epsilon"), "value", struct.pack("<f", -1.0)
    ),
    "epsilon that is no number": lambda m: setattr(
        m.pair("llama.attention.layer_norm_rms_epsilon"), "value", struct.pack("<f", float("nan"))
    ),
    "overlapping tensors": tensor_of(offset=0),
    "a tensor that is not aligned": tensor_of(offset=33),
    "half a block": tensor_of(sizes=[33, 32]),
    "a side of nothing": tensor_of(sizes=[32, 0]),
    "sides whose product overflows": tensor_of(sizes=[1 << 32, 1 << 32]),
    "a negative side": tensor_of(sizes=[32, -1]),
    "five sides": tensor_of(sizes=[32, 1, 1, 1, 1]),
    "weights of whole numbers": tensor_of(kind=24),
    "weights of doubles": tensor_of(kind=28),
    "a long name": tensor_of(name="x" * 64),
    "beyond the end": tensor_of(offset=1 << 40),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_native_code_would_not_survive(tmp_path: Path, case: str) -> None:
    with pytest.raises(ModelCorrupt):
        read_header(write(tmp_path, changed(REFUSED[case])))


def test_the_model_that_these_are_made_of_is_good(tmp_path: Path) -> None:
    assert read_header(write(tmp_path, tiny().encode())).architecture == "llama"


def test_block_sizes_are_those_of_the_library() -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    library = ctypes.CDLL(str(Path(llama_cpp.__file__).with_name("lib") / "libggml-base.so"))
    library.ggml_blck_size.restype, library.ggml_type_size.restype = ctypes.c_int64, ctypes.c_size_t
    theirs = {kind: (library.ggml_blck_size(kind), library.ggml_type_size(kind)) for kind in range(42)}
    assert {kind: sizes for kind, sizes in theirs.items() if sizes[0]} == gguf_module._BLOCKS


@pytest.mark.parametrize("kind", sorted(gguf_module._BLOCKS.keys() - gguf_module._NOT_FOR_WEIGHTS))
def test_every_quantisation_passes(tmp_path: Path, kind: int) -> None:
    values, size = gguf_module._BLOCKS[kind]
    model = Gguf(tiny().pairs, [Tensor("blk.0.ffn_up.weight", [values * 2, 3], kind, bytes(size * 6))])
    assert read_header(write(tmp_path, model.encode())).tensor_types == {kind: values * 6}


def test_a_header_of_too_many_parts_ends_soon(tmp_path: Path) -> None:
    count = gguf_module._MAX_STEPS + 1
    words = pair("x", 9, struct.pack("<IQ", 8, count) + bytes(8 * count))
    with pytest.raises(ModelCorrupt, match="parts"):
        read_header(write(tmp_path, gguf([ARCHITECTURE, words], [])))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(OSError):
            read_header(str(path))


@given(st.integers(0, len(GOOD) - 257))
def test_every_cut_through_the_header_is_seen(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    with pytest.raises(ModelCorrupt):
        read_header(write(tmp_path_factory.mktemp("cut"), GOOD[:length]))


@given(st.lists(st.tuples(st.integers(4, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_flipped_bytes_never_crash(tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]) -> None:
    content = bytearray(GOOD)
    for at, value in flips:
        content[at] = value
    with suppress(ModelCorrupt):
        read_header(write(tmp_path_factory.getbasetemp(), bytes(content)))
