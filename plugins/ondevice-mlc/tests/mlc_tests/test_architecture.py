"""The configuration of models, and the layout of quantised weights."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ondevice_mlc.architecture.config import ModelConfig
from ondevice_mlc.quantisation import Precision, dequantise, groups, per_word, quantise, zero_point
from ondevice_sdk.errors import ModelUnsupported

PLAIN = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_a_configuration_survives_being_written(kind: str) -> None:
    config = ModelConfig.from_json(kind, PLAIN | {"rope_theta": 500000.0, "tie_word_embeddings": True})
    assert ModelConfig.from_json(kind, config.to_json()) == config
    assert config.rope_theta == 500000.0
    assert config.attention_bias == (kind == "qwen2")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 72},
        {"num_key_value_heads": 3},
        {"hidden_act": "gelu"},
        {"use_sliding_window": True},
        {"mlp_bias": True},
        {"rope_scaling": {"rope_type": "longrope"}},
        {"rope_scaling": {"rope_type": "llama3", "factor": 8}},
        {"vocab_size": None},
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0}},
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e6}}},
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        {"rope_parameters": [1e6]},
        {"partial_rotary_factor": 0.5},
    ],
)
def test_what_the_kernels_cannot_do_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ModelUnsupported):
        ModelConfig.from_json("llama", PLAIN | change)


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(ModelUnsupported) as caught:
        ModelConfig.from_json("mamba", PLAIN)
    assert caught.value.architecture == "mamba"


def test_llama_3_stretches_long_waves_only() -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    shape = PLAIN | {"head_dim": 128, "rope_theta": 500000.0}
    plain = ModelConfig.from_json("llama", shape).rope_frequencies()
    stretched = ModelConfig.from_json("llama", shape | {"rope_scaling": scaling}).rope_frequencies()
    for before, after in zip(plain, stretched, strict=True):
        wave = 2 * math.pi / before
        if wave < 8192 / 4:
            assert after == before
        elif wave > 8192:
            assert after == pytest.approx(before / 8)
        else:
            assert before / 8 < after < before


def test_newer_configurations_say_the_same_of_rotations_in_one_place() -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    }
    before = ModelConfig.from_json("llama", PLAIN | {"rope_theta": 100000.0, "rope_scaling": scaling})
    newer = {"rope_parameters": scaling | {"rope_theta": 100000.0, "partial_rotary_factor": 1.0}}
    after = ModelConfig.from_json("llama", PLAIN | newer)
    assert after.rope_frequencies() == before.rope_frequencies()
    assert ModelConfig.from_json("llama", after.to_json()) == after
    plain = ModelConfig.from_json("llama", PLAIN | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})
    assert plain.rope_theta == 5e5


def test_rope_factors_and_linear_scaling() -> None:
    plain = ModelConfig.from_json("llama", PLAIN).rope_frequencies()
    linear = ModelConfig.from_json("llama", PLAIN | {"rope_scaling": {"type": "linear", "factor": 4}})
    assert linear.rope_frequencies() == pytest.approx([each / 4 for each in plain])
    factors = [1.0 + index for index in range(8)]
    given = ModelConfig.from_json("llama", PLAIN | {"rope_scaling": {"rope_type": "factors", "factors": factors}})
    assert given.rope_frequencies() == pytest.approx([a / b for a, b in zip(plain, factors, strict=True)])


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_quantised_weights_are_close(precision: Precision) -> None:
    weight = np.random.default_rng(3).normal(size=(6, 96)).astype(np.float32)
    weight[2, 32:64] = 0
    parts = quantise(weight, precision)
    assert parts["q_weight"].dtype == np.uint32
    assert parts["q_weight"].shape == (6, 96 // per_word(precision))
    assert parts["q_scale"].shape == (6, 3)
    again = dequantise(parts, precision)
    largest = np.abs(weight).reshape(6, 3, 32).max(axis=2)
    plain = np.repeat(largest / zero_point(precision), 32, axis=1)
    rounded = np.rint(weight / np.where(plain == 0, 1, plain)) * plain
    assert np.square(again - weight).sum() <= np.square(rounded - weight).sum() * 1.0001
    assert np.abs(again - weight).max() <= largest.max() / 7
    assert (again[2, 32:64] == 0).all()


@pytest.mark.parametrize(("precision", "bits"), [("int4", 4), ("int8", 8)])
def test_the_first_input_is_in_the_lowest_bits(precision: Precision, bits: int) -> None:
    scale = np.float32(0.5)
    numbers = np.arange(32) % (2 * zero_point(precision) + (precision == "int4") + 1)
    words = [
        sum(int(number) << (bits * place) for place, number in enumerate(numbers[first : first + per_word(precision)]))
        for first in range(0, 32, per_word(precision))
    ]
    parts = {"q_weight": np.asarray([words], dtype=np.uint32), "q_scale": np.asarray([[scale]])}
    assert dequantise(parts, precision)[0].tolist() == ((numbers - zero_point(precision)) * scale).tolist()


def test_parameters_come_from_the_tensors_of_the_model() -> None:
    config = ModelConfig.from_json("qwen2", PLAIN | {"tie_word_embeddings": True})
    made = groups(config, "int4")
    sources = [name for group in made for name in group.sources]
    assert len(sources) == len(set(sources))
    assert "lm_head.weight" not in sources
    fused = next(group for group in made if group.outputs[0].name.endswith("c_attn.q_weight"))
    assert [name.split(".")[-2] for name in fused.sources] == ["q_proj", "k_proj", "v_proj"]
    arrays = [np.ones((rows, 64), dtype=np.float32) for rows in (64, 32, 32)]
    assert [array.shape for array in fused.make(arrays)] == [(128, 8), (128, 2)]
    with pytest.raises(ValueError, match="shape"):
        fused.make(arrays[:2])
