from __future__ import annotations

import contextlib
import shutil
import tempfile
import tracemalloc
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ondevice_sdk.backends.llama_cpp import synthetic
from ondevice_sdk.catalogue import gguf
from ondevice_sdk.errors import ConfigurationError, GenerationFailed, ModelCorrupt, ModelUnsupported, StoreError
from ondevice_sdk.quantise import reparametrise
from ondevice_sdk.quantise.architectures import ARCHITECTURES, prove
from ondevice_sdk.quantise.tensors import Rewriter
from ondevice_sdk.types import ModelShape

from . import tiny

ENTRY = "ondevice_sdk.backends.llama_cpp:LlamaCppBackend"
TEXT = "The soup was cold, and nobody came to take it back. " * 4


def made(source: Path, **options: int) -> Path:
    target = source.with_suffix(".made")
    told = list(reparametrise.write(source=str(source), target=str(target), **options))
    assert told == sorted(told)
    assert told[-1] == 1
    return target


def run(steps: Generator[float, None, float]) -> float:
    told = []
    while True:
        try:
            told.append(next(steps))
        except StopIteration as end:
            assert told == sorted(told)
            assert told[-1] == 1
            return float(end.value)


def error(source: Path, changed: Path) -> float:
    """By llama.cpp."""
    check = reparametrise.check(entry=ENTRY, source=str(source), changed=str(changed), text=TEXT, tokens=100, threads=1)
    return run(check)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_function_is_kept_by_every_architecture_that_is_allowed(tmp_path: Path, architecture: str) -> None:
    source = tiny.write(tmp_path / "source.gguf", architecture)
    changed = made(source)
    found = error(source, changed)
    assert found == 0 if architecture.startswith("gemma") else 0 < found <= reparametrise.MOST_ERROR
    scaled = {name.split(".", 2)[2] for name in different(tiny.read(source), tiny.read(changed))}
    assert scaled >= {
        "attn_norm.weight", "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight", "ffn_norm.weight",
        "ffn_gate.weight", "ffn_up.weight", "ffn_down.weight",
    }  # fmt: skip


def different(old: dict[str, NDArray[np.float32]], new: dict[str, NDArray[np.float32]]) -> set[str]:
    assert old.keys() == new.keys()
    return {name for name in old if not np.array_equal(old[name], new[name])}


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"), [(4, 4, 32), (4, 1, 32), (6, 2, 16), (3, 3, 64), (1, 1, 48)]
)
def test_heads_of_any_number_and_size(tmp_path: Path, heads: int, kv_heads: int, head_dim: int) -> None:
    draw = np.random.default_rng(heads)
    change: dict[str, NDArray[np.float32] | None] = {}
    for layer in range(tiny.LAYERS):
        for name, rows, columns in (
            ("attn_q", heads * head_dim, tiny.WIDTH),
            ("attn_k", kv_heads * head_dim, tiny.WIDTH),
            ("attn_v", kv_heads * head_dim, tiny.WIDTH),
            ("attn_output", tiny.WIDTH, heads * head_dim),
        ):
            uneven = np.exp(draw.normal(0, 1, columns))
            change[f"blk.{layer}.{name}.weight"] = (draw.normal(0, 0.1, (rows, columns)) * uneven).astype(np.float32)
        for name in ("attn_q_norm", "attn_k_norm"):
            change[f"blk.{layer}.{name}.weight"] = np.ones(head_dim, np.float32)
    sizes = {
        "attention.head_count": heads, "attention.head_count_kv": kv_heads, "attention.key_length": head_dim,
        "attention.value_length": head_dim, "rope.dimension_count": head_dim,
    }  # fmt: skip
    source = tiny.write(tmp_path / "source.gguf", "qwen3", change=change, replaced=sizes)
    changed = made(source)
    assert 0 < error(source, changed) <= reparametrise.MOST_ERROR
    old, new = (tiny.read(path)["blk.0.attn_v.weight"] for path in (source, changed))
    assert (new / old)[:, 0].std() > 0.1  # each row of the values has a factor of its own


def test_biases_everywhere(tmp_path: Path) -> None:
    source = tiny.write(tmp_path / "source.gguf", "llama", tiny.BIASED)
    changed = made(source)
    assert error(source, changed) <= reparametrise.MOST_ERROR
    biases = {name for name in different(tiny.read(source), tiny.read(changed)) if name.endswith(".bias")}
    assert biases == {f"blk.{layer}.{name}.bias" for layer in (0, 1) for name in ("attn_v", "ffn_up")}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "gemma3"])
def test_what_is_not_scaled_is_as_it_was(tmp_path: Path, kind: str) -> None:
    source = tiny.write(tmp_path / "source.gguf", kind)
    changed = made(source)
    kept = tiny.read(source).keys() - different(tiny.read(source), tiny.read(changed))
    assert {name.split(".")[-2] for name in kept} == {
        "token_embd",
        "output_norm",
        *({"output", "rope_freqs"} if kind == "llama" else ()),
        *({"attn_q", "attn_k"} if kind == "qwen2" else ()),  # their biases
        *({"attn_q_norm", "attn_k_norm"} if kind in ("qwen3", "gemma3") else ()),
        *({"post_attention_norm", "post_ffw_norm"} if kind == "gemma3" else ()),
    }


@pytest.mark.parametrize("form", tiny.HALF)
def test_metadata_and_order_are_those_of_the_source(tmp_path: Path, form: str) -> None:
    more = {"tokenizer.chat_template": "{{ messages }}", "general.tags": ["a", "b"], "general.alignment": 64}
    source = tiny.write(tmp_path / "source.gguf", form=form, settings=more)
    changed = made(source)
    before, after = GGUFReader(source), GGUFReader(changed)
    assert [(each.name, list(each.shape)) for each in before.tensors] == [
        (each.name, list(each.shape)) for each in after.tensors
    ]
    heads = [{key: field.contents() for key, field in each.fields.items()} for each in (before, after)]
    assert heads[0].pop("general.file_type") == 1
    assert heads[1].pop("general.file_type") == 0
    assert heads[0].pop("GGUF.version") <= heads[1].pop("GGUF.version")
    assert heads[0] == heads[1]
    assert set(gguf.read_header(changed).tensor_types) == {0}
    assert error(source, changed) <= reparametrise.MOST_ERROR
    assert sorted(each.name for each in tmp_path.iterdir()) == ["source.gguf", "source.made"]


@pytest.mark.parametrize("form", ["F32", *tiny.HALF])
def test_without_turns_the_values_are_kept_to_the_last_bit(tmp_path: Path, form: str) -> None:
    source = tiny.write(tmp_path / "source.gguf", "qwen2", form=form)
    changed = made(source, order=0)
    assert not different(tiny.read(source), tiny.read(changed))
    assert error(source, changed) == 0


def test_the_scales_even_out_what_is_rounded(tmp_path: Path) -> None:
    source = tiny.write(tmp_path / "source.gguf")
    old, new = tiny.read(source), tiny.read(made(source))

    def unevenness(matrix: NDArray[np.float32]) -> float:
        return float(np.log(matrix.std(axis=0)).std())

    for names in (("ffn_down",), ("attn_q", "attn_k", "attn_v"), ("ffn_gate", "ffn_up")):
        before, after = (np.vstack([each[f"blk.0.{name}.weight"] for name in names]) for each in (old, new))
        assert unevenness(after) < 0.6 * unevenness(before)


def test_the_same_source_gives_the_same_file(tmp_path: Path) -> None:
    source = tiny.write(tmp_path / "source.gguf")
    first = made(source).read_bytes()
    (tmp_path / "source.made").unlink()
    assert made(source).read_bytes() == first


def test_memory_is_that_of_a_layer_and_not_of_the_model(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    synthetic.write(source, ModelShape(3_000_000, 4, 256, 4, 2, 64, 512, 600, 512), "BF16")
    layer = 4 * sum(tensor.values for tensor in gguf.read_tensors(source) if tensor.name.startswith("blk.0."))
    tracemalloc.start()
    try:
        made(source)
        assert tracemalloc.get_traced_memory()[1] < 2 * layer
    finally:
        tracemalloc.stop()


# --- what the check is for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["attn_v.weight", "attn_v.bias", "attn_q_norm.weight", "ffn_down.weight", "attn_norm.weight"]
)
def test_a_fault_in_one_tensor_of_the_last_layer_is_seen(tmp_path: Path, name: str) -> None:
    kind = tiny.Kind(tiny.ARCHITECTURES["qwen3"].norms, biases=("attn_q", "attn_k", "attn_v"))
    source = tiny.write(tmp_path / "source.gguf", "qwen3", kind)
    values = tiny.tensors(kind)[f"blk.1.{name}"]
    values[: len(values) // 2] *= 1.001
    changed = tiny.write(tmp_path / "changed.gguf", "qwen3", kind, change={f"blk.1.{name}": values})
    with pytest.raises(GenerationFailed, match="relative error"):
        error(source, changed)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["changed.gguf", "source.gguf"]


def test_too_little_text_and_other_vocabularies(tmp_path: Path) -> None:
    source = tiny.write(tmp_path / "source.gguf", form="BF16")
    changed = made(source)
    arguments: dict[str, Any] = {"entry": ENTRY, "source": str(source), "tokens": 100, "threads": 1}
    with pytest.raises(ConfigurationError, match="tokens are read"):
        run(reparametrise.check(**arguments, changed=str(changed), text=""))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["source.gguf", "source.made"]
    words = [f"<0x{value:02X}>" for value in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *reversed(words), *(f"▁v{index}" for index in range(41))]
    other = tiny.write(tmp_path / "other.gguf", tokens=tokens)
    with pytest.raises(ConfigurationError, match="different vocabularies"):
        run(reparametrise.check(**arguments, changed=str(other), text=TEXT))


# --- what is refused --------------------------------------------------------------------------------------------------

WIDE = np.ones((tiny.HIDDEN, tiny.WIDTH), np.float32)
EXPERTS = np.ones((4, tiny.HIDDEN, tiny.WIDTH), np.float32)


def vector(size: int) -> NDArray[np.float32]:
    return np.ones(size, np.float32)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"blk.1.ffn_gate.weight": None}, "layer 1 has no ffn_gate.weight"),
        ({"blk.0.attn_norm.weight": None}, "layer 0 has no attn_norm.weight"),
        ({"blk.0.attn_q.weight": None, "blk.0.attn_qkv.weight": WIDE}, "attn_qkv"),
        ({"blk.0.ffn_gate_exps.weight": EXPERTS}, "ffn_gate_exps"),
        ({"blk.0.ffn_gate_inp.weight": WIDE}, "ffn_gate_inp"),
        ({"blk.0.attn_norm.bias": vector(tiny.WIDTH)}, "attn_norm.bias"),
        ({"blk.0.attn_norm_2.weight": vector(tiny.WIDTH)}, "attn_norm_2"),
        ({"blk.0.attn_sub_norm.weight": vector(tiny.WIDTH)}, "attn_sub_norm"),
        ({"blk.0.attn_sinks.weight": vector(tiny.HEADS)}, "attn_sinks"),
        ({"blk.0.attn_v.scale": vector(1)}, "attn_v.scale"),
        ({"blk.00.attn_q.bias": vector(128)}, "blk.00"),
        ({"blk.2.attn_q.bias": vector(128)}, "blk.2"),
        ({"v.blk.0.attn_q.weight": WIDE}, "v.blk.0"),
        ({"blk.0.attn_v.weight": np.ones((128, tiny.WIDTH), np.float32)}, "sizes of blk.0.attn_v.weight"),
        ({"blk.0.attn_v.bias": vector(32)}, "sizes of blk.0.attn_v.bias"),
        ({"blk.0.attn_norm.weight": vector(32)}, "sizes of blk.0.attn_norm.weight"),
        ({"blk.1.ffn_gate.weight": np.ones((32, tiny.WIDTH), np.float32)}, "sizes of blk.1.ffn_gate.weight"),
        ({"blk.1.ffn_up.weight": EXPERTS}, "sizes of blk.1.ffn_up.weight"),
        ({"blk.1.ffn_down.weight": WIDE}, "sizes of blk.1"),
    ],
)
def test_layers_that_nothing_is_proved_of(
    tmp_path: Path, change: dict[str, NDArray[np.float32] | None], reason: str
) -> None:
    refused(tiny.write(tmp_path / "source.gguf", change=change), reason)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"{arch}.expert_count": 8}, "expert_count"),
        ({"{arch}.attention.clamp_kqv": 8.0}, "clamp_kqv"),
        ({"{arch}.use_parallel_residual": True}, "use_parallel_residual"),
        ({"{arch}.residual_scale": 0.5}, "residual_scale"),
        ({"{arch}.pooling_type": 3}, "pooling_type"),
        ({"general.type": "adapter"}, "no model"),
        ({"split.count": 2}, "several files"),
    ],
)
def test_settings_that_nothing_is_proved_of(tmp_path: Path, more: dict[str, Any], reason: str) -> None:
    refused(tiny.write(tmp_path / "source.gguf", settings=more), reason)


@pytest.mark.parametrize(
    ("replaced", "reason"),
    [
        ({"attention.head_count": 3}, "no multiple"),
        ({"attention.head_count_kv": [2, 1]}, "attention.head_count_kv"),
        ({"attention.value_length": 16}, "sizes of blk.0.attn_v.weight"),
        ({"block_count": 3}, "layer 2 has no"),
        ({"block_count": 1}, "blk.1"),
    ],
)
def test_sizes_that_do_not_fit(tmp_path: Path, replaced: dict[str, Any], reason: str) -> None:
    refused(tiny.write(tmp_path / "source.gguf", replaced=replaced), reason)


@pytest.mark.parametrize("architecture", ["phi3", "qwen2moe", "gemma3n", "llama4", "olmo2", "Llama", "x" * 9000])
def test_architectures_that_nothing_is_proved_of(tmp_path: Path, architecture: str) -> None:
    refused(tiny.write(tmp_path / "source.gguf", architecture), "architecture")


def test_weights_that_are_quantised(tmp_path: Path) -> None:
    refused(tiny.write(tmp_path / "source.gguf", form="Q8_0"), "Q8_0, not in 16 or 32 bits")


def test_zeros_for_what_is_not_there_are_no_reason_to_refuse(tmp_path: Path) -> None:
    none = {"{arch}.expert_count": 0, "{arch}.attention.clamp_kqv": 0.0, "general.type": "model"}
    source = tiny.write(tmp_path / "source.gguf", settings=none)
    assert error(source, made(source)) <= reparametrise.MOST_ERROR


def refused(source: Path, reason: str) -> None:
    before = set(source.parent.iterdir())
    with pytest.raises(ModelUnsupported, match="re-parametrised") as caught:
        made(source)
    assert reason in str(caught.value)
    assert "without pre-SINQ" in (caught.value.hint or "")
    assert len(str(caught.value)) < 500
    assert set(source.parent.iterdir()) == before


# --- files that are damaged, and disks --------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_weights_that_are_not_numbers(tmp_path: Path, value: float) -> None:
    values = tiny.tensors(tiny.ARCHITECTURES["llama"])["blk.1.ffn_up.weight"]
    values[3, 4] = value
    source = tiny.write(tmp_path / "source.gguf", change={"blk.1.ffn_up.weight": values})
    with pytest.raises(ModelCorrupt, match=r"blk\.1\.ffn_up\.weight"):
        made(source)
    assert list(tmp_path.iterdir()) == [source]


def test_layers_of_nothing(tmp_path: Path) -> None:
    nothing = {name: np.zeros_like(values) for name, values in tiny.tensors(tiny.ARCHITECTURES["llama"]).items()
               if name.startswith("blk.0.")}  # fmt: skip
    source = tiny.write(tmp_path / "source.gguf", change=nothing)
    assert error(source, made(source)) <= reparametrise.MOST_ERROR


def test_a_file_that_is_cut_or_none(tmp_path: Path) -> None:
    whole = tiny.write(tmp_path / "whole.gguf").read_bytes()
    for length in (0, 3, 20, 5_000, len(whole) // 2, len(whole) - 40):
        (tmp_path / "source.gguf").write_bytes(whole[:length])
        with pytest.raises(ModelCorrupt):
            made(tmp_path / "source.gguf")
    (tmp_path / "source.gguf").write_bytes(whole[::-1])
    with pytest.raises(ModelCorrupt):
        made(tmp_path / "source.gguf")
    assert not (tmp_path / "source.made").exists()


def test_a_file_that_is_cut_while_it_is_read(tmp_path: Path) -> None:
    source, target = tiny.write(tmp_path / "source.gguf"), tmp_path / "target.gguf"
    model = prove(str(source))
    source.write_bytes(source.read_bytes()[:-100_000])
    last = max(model.file.tensors, key=lambda tensor: tensor.offset)
    with pytest.raises(ModelCorrupt, match="cut"), Rewriter(source, target, model.file) as rewriter:
        rewriter.read(last)
    assert not target.exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny.write(tmp_path_factory.mktemp("whole") / "whole.gguf", form="BF16").read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=3))
def test_a_header_with_other_bytes_is_refused_or_read(whole: bytes, changes: list[tuple[float, bytes]]) -> None:
    head = whole.index(b"blk.1.ffn_down.weight") + 60
    data = bytearray(whole)
    for place, put in changes:
        at = int(place * head)
        data[at : at + len(put)] = put
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.gguf")
        source.write_bytes(data)
        with contextlib.suppress(ModelUnsupported, ModelCorrupt):
            changed = made(source)
            before, after = gguf.read_file(source), gguf.read_file(changed)
            assert before.sizes == after.sizes
            assert before.metadata.keys() == after.metadata.keys()
        assert {each.name for each in Path(folder).iterdir()} <= {"source.gguf", "source.made"}


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    source = tiny.write(tmp_path / "source.gguf")
    with pytest.raises(StoreError):
        list(reparametrise.write(source=str(source), target=str(tmp_path / "nowhere" / "target.gguf")))
    occupied = tmp_path / "occupied.gguf"
    shutil.copy(source, occupied)
    with pytest.raises(StoreError):
        list(reparametrise.write(source=str(source), target=str(occupied)))
    assert occupied.read_bytes() == source.read_bytes()
    with pytest.raises(StoreError):
        list(reparametrise.write(source=str(tmp_path / "missing.gguf"), target=str(tmp_path / "target.gguf")))


def test_an_end_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    source, target = tiny.write(tmp_path / "source.gguf"), tmp_path / "target.gguf"
    steps = reparametrise.write(source=str(source), target=str(target))
    next(steps)
    assert target.exists()
    steps.close()
    assert not target.exists()


@pytest.mark.parametrize("options", [{"order": -1}, {"block": 0}])
def test_impossible_options(tmp_path: Path, options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        made(tiny.write(tmp_path / "source.gguf"), **options)


@pytest.mark.parametrize(("order", "block"), [(1, 1), (3, 7), (50, 32), (16, 1000)])
def test_whatever_the_options_the_function_is_kept(tmp_path: Path, order: int, block: int) -> None:
    source = tiny.write(tmp_path / "source.gguf", "qwen2")
    assert error(source, made(source, order=order, block=block)) <= reparametrise.MOST_ERROR
