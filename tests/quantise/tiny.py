"""Model files of a few hundred kilobytes, of any architecture: two layers with random weights that spread unevenly."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, VOCABULARY = 2, 128, 4, 2, 32, 96, 300
HALF = ("F16", "BF16")

_MATRICES = {
    "attn_q": (HEADS * HEAD_DIM, WIDTH),
    "attn_k": (KV_HEADS * HEAD_DIM, WIDTH),
    "attn_v": (KV_HEADS * HEAD_DIM, WIDTH),
    "attn_output": (WIDTH, HEADS * HEAD_DIM),
    "ffn_gate": (HIDDEN, WIDTH),
    "ffn_up": (HIDDEN, WIDTH),
    "ffn_down": (WIDTH, HIDDEN),
}
_NORMS = {"attn_norm": WIDTH, "ffn_norm": WIDTH}
_HEAD_NORMS = {"attn_q_norm": HEAD_DIM, "attn_k_norm": HEAD_DIM}
_RESULT_NORMS = {"post_attention_norm": WIDTH, "post_ffw_norm": WIDTH}


@dataclass(frozen=True)
class Kind:
    """What a layer has besides the usual."""

    norms: Mapping[str, int]
    biases: Collection[str] = ()
    rope_freqs: bool = False
    tied: bool = True


ARCHITECTURES = {
    "llama": Kind(_NORMS, rope_freqs=True, tied=False),
    "qwen2": Kind(_NORMS, biases=("attn_q", "attn_k", "attn_v")),
    "qwen3": Kind(_NORMS | _HEAD_NORMS),
    "gemma": Kind(_NORMS),
    "gemma2": Kind(_NORMS | _RESULT_NORMS),
    "gemma3": Kind(_NORMS | _RESULT_NORMS | _HEAD_NORMS),
}
_SETTINGS: dict[str, Any] = {
    "context_length": 512,
    "embedding_length": WIDTH,
    "block_count": LAYERS,
    "feed_forward_length": HIDDEN,
    "attention.head_count": HEADS,
    "attention.head_count_kv": KV_HEADS,
    "attention.key_length": HEAD_DIM,
    "attention.value_length": HEAD_DIM,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "attention.sliding_window": 64,
    "rope.dimension_count": HEAD_DIM,
    "rope.freq_base": 10_000.0,
    "vocab_size": VOCABULARY,
}
_TOKENS = ("<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), *(f"▁w{n}" for n in range(41)))
# A llama may have all of them.
BIASED = Kind(_NORMS, biases=("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"))


def tensors(kind: Kind, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    """The weights by their names."""
    draw = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> NDArray[np.float32]:
        uneven = np.exp(draw.normal(0, 0.5, columns)) * np.exp(draw.normal(0, 0.3, (rows, 1)))
        values: NDArray[np.float32] = (draw.normal(0, 0.5 / np.sqrt(columns), (rows, columns)) * uneven).astype(
            np.float32
        )
        return values

    def vector(size: int, around: float) -> NDArray[np.float32]:
        return (around + draw.normal(0, 0.2, size)).astype(np.float32)

    made = {"token_embd.weight": matrix(VOCABULARY, WIDTH), "output_norm.weight": vector(WIDTH, 1)}
    if not kind.tied:
        made["output.weight"] = matrix(VOCABULARY, WIDTH)
    if kind.rope_freqs:
        made["rope_freqs.weight"] = 1 + np.arange(HEAD_DIM // 2, dtype=np.float32)
    for layer in range(LAYERS):
        made |= {f"blk.{layer}.{name}.weight": vector(size, 1) for name, size in kind.norms.items()}
        made |= {f"blk.{layer}.{name}.weight": matrix(*sizes) for name, sizes in _MATRICES.items()}
        made |= {f"blk.{layer}.{name}.bias": vector(_MATRICES[name][0], 0) for name in kind.biases}
    return made


def write(
    path: Path,
    architecture: str = "llama",
    kind: Kind | None = None,
    *,
    form: str = "F32",
    change: Mapping[str, NDArray[np.float32] | None] | None = None,
    settings: Mapping[str, Any] | None = None,
    replaced: Mapping[str, Any] | None = None,
    tokens: Sequence[str] | None = None,
) -> Path:
    """Write a model.

    Args:
        path: where.
        architecture: what it says that it is; one not known here has the layers of a llama.
        kind: of its layers.
        form: in which its matrices are.
        change: tensors that it has besides, or None for those that it has not.
        settings: metadata that it has besides; "{arch}" stands for the architecture.
        replaced: settings of the architecture that are not the usual ones.
        tokens: its vocabulary.
    """
    kind = kind or ARCHITECTURES.get(architecture, ARCHITECTURES["llama"])
    described = {f"{{arch}}.{key}": value for key, value in (_SETTINGS | dict(replaced or {})).items()}
    with contextlib.closing(gguf.GGUFWriter(path, architecture)) as writer:
        for key, value in (described | dict(settings or {})).items():
            if key == "general.alignment":
                writer.add_custom_alignment(value)
                continue
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add.get(type(value), writer.add_array)(key.replace("{arch}", architecture), value)
        _add_vocabulary(writer, tokens or _TOKENS)
        for name, values in (tensors(kind) | dict(change or {})).items():
            if values is None:
                continue
            if values.ndim > 1 and form != "F32":
                packed = gguf.GGMLQuantizationType[form]
                writer.add_tensor(name, gguf.quants.quantize(values, packed), raw_dtype=packed)
            else:
                writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    return path


def read(path: Path) -> dict[str, NDArray[np.float32]]:
    """The weights of a file by their names, in 32 bits."""
    return {each.name: gguf.quants.dequantize(each.data, each.tensor_type) for each in gguf.GGUFReader(path).tensors}


def _add_vocabulary(writer: gguf.GGUFWriter, tokens: Sequence[str]) -> None:
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * VOCABULARY)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - 259))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_file_type(1)
