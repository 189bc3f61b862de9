from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ondevice_sdk.catalogue import lora
from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported, OnDeviceError

from ..backends.lora_files import adapter, random_changes, tiny_base, write
from ..fuzzing.tiny_model import ARRAY, FLOAT32, STRING, UINT32, Gguf, Pair, Tensor, array, number, text

DOWN = "blk.0.ffn_down.weight"
F64 = 12  # of metadata
INVOKED = "adapter.alora.invocation_tokens"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("base") / "tiny.gguf", tiny_base())


def test_what_is_read(base: Path, tmp_path: Path) -> None:
    content = adapter(random_changes(base, "attn_q", "ffn_down"), alpha=8.0)
    found = lora.read(write(tmp_path / "a.gguf", content))
    assert (found.architecture, found.alpha, found.rank) == ("llama", 8.0, 4)
    assert {name.partition(".")[2][2:] for name in found.pairs} == {"attn_q.weight", "ffn_down.weight"}
    assert (found.pairs[DOWN].a, found.pairs[DOWN].b) == ((64, 4), (4, 32))
    assert lora.misfit(found, lora.read_base([str(base)])) is None


def test_without_a_strength_the_change_is_taken_as_it_is(base: Path, tmp_path: Path) -> None:
    assert lora.read(write(tmp_path / "a.gguf", adapter(random_changes(base, DOWN)))).alpha is None


def test_rank_one(base: Path, tmp_path: Path) -> None:
    found = lora.read(write(tmp_path / "a.gguf", adapter(random_changes(base, rank=1))))
    assert found.rank == 1
    assert lora.misfit(found, lora.read_base([str(base)])) is None


def replaced(key: str, kind: int, value: bytes) -> Callable[[Gguf], None]:
    def change(content: Gguf) -> None:
        content.pairs = [pair for pair in content.pairs if pair.key != key] + [Pair(key, kind, value)]

    return change


def reshaped(half: int, sizes: list[int]) -> Callable[[Gguf], None]:
    def change(content: Gguf) -> None:
        content.tensors[half] = Tensor(content.tensors[half].name, sizes, lora.F32, bytes(4 * int(np.prod(sizes))))
        content.lay_out()

    return change


def renamed(half: int, name: str) -> Callable[[Gguf], None]:
    def change(content: Gguf) -> None:
        content.tensors[half].name = name

    return change


def retyped(content: Gguf) -> None:
    content.tensors[0] = Tensor(content.tensors[0].name, [64, 4], 2, bytes(2 * 4 * 18))  # Q4_0
    content.lay_out()


def cut(content: Gguf) -> None:
    content.tensors.pop()


def emptied(content: Gguf) -> None:
    content.tensors.clear()


REFUSED: list[tuple[str, Callable[[Gguf], None], type[OnDeviceError]]] = [
    ("a model", replaced("general.type", STRING, text("model")), ModelUnsupported),
    ("a number as type", replaced("general.type", UINT32, number(1)), ModelUnsupported),
    ("another kind", replaced("adapter.type", STRING, text("dora")), ModelUnsupported),
    ("a kind that is a number", replaced("adapter.type", UINT32, number(1)), ModelUnsupported),
    (
        "in the middle",
        replaced("adapter.alora.invocation_tokens", ARRAY, array(UINT32, 1, number(7))),
        ModelUnsupported,
    ),
    ("alpha of 64 bits", replaced("adapter.lora.alpha", F64, struct.pack("<d", 8.0)), ModelCorrupt),
    ("alpha a whole number", replaced("adapter.lora.alpha", UINT32, number(8)), ModelCorrupt),
    ("alpha a text", replaced("adapter.lora.alpha", STRING, text("8")), ModelCorrupt),
    *(
        (f"alpha {value}", replaced("adapter.lora.alpha", FLOAT32, struct.pack("<f", value)), ModelCorrupt)
        for value in (float("nan"), float("inf"), 0.0, -1.0)
    ),
    ("no architecture", replaced("general.architecture", STRING, text("")), ModelCorrupt),
    ("half a pair", cut, ModelCorrupt),
    ("nothing", emptied, ModelCorrupt),
    ("ranks", reshaped(1, [3, 32]), ModelCorrupt),
    ("not transposed", reshaped(0, [4, 64]), ModelCorrupt),
    ("experts", reshaped(0, [64, 4, 2]), ModelUnsupported),
    ("a whole tensor", renamed(0, "blk.0.ffn_norm.weight"), ModelUnsupported),
    ("an odd suffix", renamed(0, f"{DOWN}.lora_c"), ModelUnsupported),
    ("numbers of 4 bits", retyped, ModelUnsupported),
]


@pytest.mark.parametrize(("change", "kind"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_is_no_adapter_is_refused(
    base: Path, tmp_path: Path, change: Callable[[Gguf], None], kind: type[OnDeviceError]
) -> None:
    content = adapter(random_changes(base, DOWN), alpha=8.0)
    change(content)
    with pytest.raises(kind):
        lora.read(write(tmp_path / "a.gguf", content))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_cut_file_is_refused(base: Path, tmp_path: Path, kept: float) -> None:
    data = adapter(random_changes(base)).encode()
    path = tmp_path / "a.gguf"
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ModelCorrupt):
        lora.read(path)


MISFITS: list[tuple[str, Callable[[Gguf], None], str]] = [
    ("another architecture", replaced("general.architecture", STRING, text("qwen2")), "architecture qwen2"),
    ("longer rows", reshaped(0, [96, 4]), "made for another model"),
    ("more rows", reshaped(1, [4, 48]), "made for another model"),
    ("swapped", lambda content: (reshaped(0, [32, 4])(content), reshaped(1, [4, 64])(content))[0], "another model"),
]


@pytest.mark.parametrize(("change", "reason"), [row[1:] for row in MISFITS], ids=[row[0] for row in MISFITS])
def test_one_for_another_model_does_not_fit(
    base: Path, tmp_path: Path, change: Callable[[Gguf], None], reason: str
) -> None:
    content = adapter(random_changes(base, DOWN))
    change(content)
    said = lora.misfit(lora.read(write(tmp_path / "a.gguf", content)), lora.read_base([str(base)]))
    assert said is not None
    assert reason in said


@pytest.mark.parametrize("name", ["blk.9.ffn_down.weight", "blk.0.ffn_norm.weight", "output.weight"])
def test_a_matrix_that_is_not_there_does_not_fit(base: Path, tmp_path: Path, name: str) -> None:
    changes = random_changes(base, DOWN)
    content = adapter({name: changes[DOWN]})
    assert lora.misfit(lora.read(write(tmp_path / "a.gguf", content)), lora.read_base([str(base)])) is not None


def test_the_vocabulary_matrix_fits_where_it_does_not_write(base: Path, tmp_path: Path) -> None:
    own = lora.read_base([str(base)])
    width, words = own.sizes["token_embd.weight"]
    change = (np.zeros((words, 4), np.float32), np.zeros((width, 4), np.float32))
    found = lora.read(write(tmp_path / "a.gguf", adapter({"token_embd.weight": change})))
    assert "also writes with" in str(lora.misfit(found, own))
    untied = lora.Base(own.architecture, {**own.sizes, "output.weight": (width, words)})
    assert lora.misfit(found, untied) is None
