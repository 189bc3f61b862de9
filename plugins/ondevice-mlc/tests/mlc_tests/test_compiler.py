"""Compiled models compute what the models say; every kernel of every instruction set takes part in one of these."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondevice_mlc import compiler
from ondevice_mlc.architecture.config import ModelConfig
from ondevice_mlc.quantisation import Precision, groups
from ondevice_sdk.errors import BackendUnavailable, ConfigurationError

from .library import Library
from .reference import Array, Reference, parameters, random_weights

pytestmark = pytest.mark.slow

VOCABULARY = 101
TINY = {
    "intermediate_size": 96,  # neither is a multiple of a vector of 16 words: the narrower ones take part
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCABULARY,
    "prefill_chunk_size": 64,
    "max_batch_size": 8,
    "context_window_size": 256,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# Name: model type, what differs from TINY, precision, target.
CASES: Mapping[str, tuple[str, Mapping[str, Any], Precision, str | None]] = {
    "llama-int4": ("llama", {}, "int4", None),
    "llama-int8-tied": ("llama", {"tie_word_embeddings": True, "rope_scaling": LLAMA_3}, "int8", None),
    "qwen2-int4": ("qwen2", {"head_dim": 64, "num_attention_heads": 2}, "int4", None),
    "qwen3-int8": ("qwen3", {"head_dim": 48, "num_key_value_heads": 4}, "int8", None),
    "avx2-int4": ("llama", {"intermediate_size": 224}, "int4", '{"kind": "llvm", "mcpu": "x86-64-v3"}'),
    "avx2-int8": ("qwen3", {}, "int8", '{"kind": "llvm", "mcpu": "x86-64-v3"}'),
    "plain-int4": ("llama", {}, "int4", "llvm"),
}
CLOSE = 0.06  # of the logits' spread. An activation that is rounded the other way makes up to 0.02; a bug makes 1.

Compiled = tuple[Library, Array, list[int]]


@pytest.fixture(scope="module", params=CASES)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Compiled]:
    """A tiny model: makes a fresh library with an empty cache, all logits of a text, and the text."""
    kind, changes, precision, target = CASES[request.param]
    config = ModelConfig.from_json(kind, {**TINY, **changes})
    path = tmp_path_factory.mktemp("library") / "model.so"
    stages: list[tuple[str, float]] = []
    compiler.compile(config, precision, target, path, lambda stage, share: stages.append((stage, share)))
    assert [share for _, share in stages] == sorted(share for _, share in stages)
    assert stages[0][1] == 0.0
    assert stages[-1][1] == 1.0
    weights = random_weights(config, seed=1)
    values = parameters(config, precision, weights)
    tokens = np.random.default_rng(2).integers(0, VOCABULARY, 160).tolist()
    expected = Reference(config, precision, weights).logits(tokens)
    return lambda: (Library(path, values), expected, tokens)


def check(given: Array, expected: Array) -> None:
    """Whether logits are the expected ones."""
    assert np.abs(given - expected).max() < CLOSE * expected.std()


def test_a_prompt_in_chunks_then_decoding(compiled: Callable[[], Compiled]) -> None:
    library, expected, tokens = compiled()
    library.add(0)
    check(library.prefill(tokens[:50], 0), expected[49])
    check(library.prefill(tokens[50:51], 0), expected[50])
    check(library.prefill(tokens[51:115], 0), expected[114])
    for position in range(115, 120):
        check(library.decode({0: tokens[position]})[0], expected[position])


def test_sequences_together(compiled: Callable[[], Compiled]) -> None:
    library, expected, tokens = compiled()
    for sequence in range(3):
        library.add(sequence)
    texts = {0: tokens[:20], 1: tokens[:3], 2: tokens[:33]}
    check(library.batch_prefill(texts, [19, 22, 55, 5]), expected[[19, 2, 32, 5]])
    check(library.verify({2: tokens[33:40], 1: tokens[3:4]}), expected[[*range(33, 40), 3]])
    check(library.decode({0: tokens[20], 2: tokens[40], 1: tokens[4]}), expected[[20, 40, 4]])
    check(library.batch_prefill({1: tokens[5:40], 0: tokens[21:22]}, [34, 35]), expected[[39, 21]])


def test_shared_and_forgotten_positions(compiled: Callable[[], Compiled]) -> None:
    library, expected, tokens = compiled()
    library.add(0)
    library.prefill(tokens[:60], 0)
    library.fork(0, 1, 37)
    library.fork(0, 2)
    check(library.prefill(tokens[37:52], 1), expected[51])
    check(library.decode({1: tokens[52], 0: tokens[60], 2: tokens[60]}), expected[[52, 60, 60]])
    library.pop(2, 21)
    check(library.verify({2: tokens[40:48]}), expected[40:48])
    check(library.decode({2: tokens[48], 1: tokens[53]}), expected[[48, 53]])


def test_a_row_gives_the_same_bits_in_any_batch(compiled: Callable[[], Compiled]) -> None:
    library, _, tokens = compiled()
    for sequence in range(5):
        library.add(sequence)
        library.prefill(tokens[:30], sequence)
    alone = library.decode({0: tokens[30]})[0]
    library.pop(0, 1)
    together = library.decode(dict.fromkeys(range(5), tokens[30]))
    assert all((row == alone).all() for row in together)


def test_what_the_library_says(compiled: Callable[[], Compiled]) -> None:
    library, _, _ = compiled()
    described = library.metadata()
    assert described["model_type"] in ("llama", "qwen2", "qwen3")
    assert described["quantization"] in ("q4f32_1", "q8f32_1")
    assert {"embed", "prefill", "decode", "batch_prefill", "batch_decode"} <= described["memory_usage"].keys()
    assert all(each.keys() == {"name", "shape", "dtype"} for each in described["params"])


def test_without_a_linker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BackendUnavailable) as caught:
        compiler.compile(ModelConfig.from_json("llama", TINY), "int4", None, tmp_path / "model.so", lambda *_: None)
    assert caught.value.hint


def test_targets_are_handed_on_as_they_are() -> None:
    given = {"kind": "llvm", "mcpu": "x86-64-v3", "opt-level": 2, "num-cores": 4, "mattr": ["+avxvnni"]}
    handed_on = json.loads(compiler.target_string(json.dumps(given)))
    assert handed_on | given == handed_on
    by_tag = compiler.target_string("raspberry-pi/4b-aarch64")
    assert (json.loads(by_tag)["mcpu"], json.loads(by_tag)["num-cores"]) == ("cortex-a72", 4)
    assert compiler.target_string(by_tag) == by_tag


@pytest.mark.parametrize("target", ["abacus", "cuda", "{", "llvm -mcpu=x86-64-v3"])
def test_targets_that_are_none(target: str) -> None:
    with pytest.raises(ConfigurationError):
        compiler.target_string(target)


def test_the_processor_at_hand_has_what_its_target_needs() -> None:
    flags = Path("/proc/cpuinfo").read_text("ascii", errors="replace").split("flags", 1)[1].splitlines()[0].split()
    assert set(compiler.cpu_features(compiler.target_string(None))) <= set(flags)


def test_the_definition_takes_the_parameters_of_the_conversion() -> None:
    config = ModelConfig.from_json("qwen3", TINY)
    module = compiler.define(config, "int8", compiler.target_string("llvm"))
    count = sum(len(group.outputs) for group in groups(config, "int8"))
    assert len(module["prefill"].params[-1].ty.fields) == count
