"""A GGUF file as a source of weights, read block of rows by block of rows.

Source of the names: the GGUF specification (ggml-org/ggml, docs/gguf.md).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondevice_mlc import gguf_tokenizer
from ondevice_mlc.architecture.config import MODEL_TYPES, ModelConfig
from ondevice_mlc.folder import TOKENIZER, TOKENIZER_CONFIG
from ondevice_mlc.sources import Source
from ondevice_sdk.errors import LoadFailed, ModelCorrupt, ModelUnsupported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TENSORS: Final = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER: Final = re.compile(r"model\.layers\.(\d+)\.(.+)")
_ROPE_FACTORS: Final = "rope_freqs.weight"
# What changes the computation in a way that is not known here, unless it has this value.
_NEUTRAL: Final = {
    "expert_count": 0,
    "logit_scale": 1.0,
    "residual_scale": 1.0,
    "embedding_scale": 1.0,
    "attention.scale": 0.0,
    "attention.sliding_window": 0,
    "attention.max_alibi_bias": 0.0,
}


class GgufSource(Source):
    """A GGUF file of the Llama, Qwen2 or Qwen3 architecture in any format that the `gguf` package can dequantise."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            ModelCorrupt: it is damaged. ModelUnsupported: another architecture, or an option that is not known.
        """
        import gguf

        try:
            self._reader = gguf.GGUFReader(path)
            self._fields = {key: field.contents() for key, field in self._reader.fields.items()}
        except OSError as error:
            raise LoadFailed(f"{path.name} cannot be read: {error.strerror}") from error
        except Exception as error:  # the reader trusts the file, and fails in any way
            raise ModelCorrupt(f"{path.name} is no whole GGUF file") from error
        self._dequantize = gguf.quants.dequantize
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.architecture = str(self._fields.get("general.architecture", ""))[:40]
        if self.architecture not in MODEL_TYPES:
            raise ModelUnsupported("there is no definition of this architecture", architecture=self.architecture)
        if int(self._fields.get("split.count", 1)) > 1:
            raise ModelUnsupported("the model is split over several GGUF files: join them first")
        self._check_options()
        self.config = ModelConfig.from_json(self.architecture, self._config())
        self._check_tensors()

    def _check_options(self) -> None:
        for key, value in _NEUTRAL.items():
            if self._get(key, value) != value:
                raise ModelUnsupported(f"models with {key} are not supported", architecture=self.architecture)
        if self._get("rope.scaling.type", "none") not in ("none", "linear"):
            raise ModelUnsupported("this kind of rope scaling is not supported", architecture=self.architecture)

    def _config(self) -> dict[str, Any]:
        heads = int(self._number("attention.head_count"))
        width = int(self._number("embedding_length"))
        head = int(self._number("attention.key_length", width // max(heads, 1)))
        if {int(self._number("rope.dimension_count", head)), int(self._number("attention.value_length", head))} != {
            head
        }:
            raise ModelUnsupported("heads that are rotated in part are not supported", architecture=self.architecture)
        embedding = self._tensor("token_embd.weight")
        return {
            "hidden_size": width,
            "intermediate_size": int(self._number("feed_forward_length")),
            "num_hidden_layers": int(self._number("block_count")),
            "num_attention_heads": heads,
            "num_key_value_heads": int(self._number("attention.head_count_kv", heads)),
            "head_dim": head,
            "vocab_size": int(embedding.shape[-1]),
            "rms_norm_eps": float(self._number("attention.layer_norm_rms_epsilon")),
            "rope_theta": float(self._number("rope.freq_base", 10000.0)),
            "rope_scaling": self._rope_scaling(),
            "tie_word_embeddings": "output.weight" not in self._tensors,
            "attention_bias": "blk.0.attn_q.bias" in self._tensors,
            "context_window_size": int(self._number("context_length")),
        }

    def _rope_scaling(self) -> dict[str, Any] | None:
        if _ROPE_FACTORS in self._tensors:
            factors = self._tensors[_ROPE_FACTORS]
            return {"rope_type": "factors", "factors": [float(each) for each in factors.data.reshape(-1)]}
        factor = float(self._number("rope.scaling.factor", self._number("rope.scale_linear", 1.0)))
        if factor in (0.0, 1.0):
            return None
        return {"rope_type": "linear", "factor": factor}

    def _check_tensors(self) -> None:
        """A tensor of which nothing is known belongs to a model that computes something else."""
        known = {_ROPE_FACTORS}
        for name in _TENSORS.values():
            known |= {f"{name}.weight", f"{name}.bias" if name in ("attn_q", "attn_k", "attn_v") else ""}
        for name in self._tensors:
            if re.sub(r"^blk\.\d+\.", "", name) not in known:
                raise ModelUnsupported(f"models with {name[:40]} are not supported", architecture=self.architecture)

    def _get(self, key: str, default: Any) -> Any:
        return self._fields.get(f"{self.architecture}.{key}", default)

    def _number(self, key: str, default: float | None = None) -> float:
        """A number that all layers have in common."""
        value = self._get(key, default)
        if isinstance(value, list):
            raise ModelUnsupported("layers of different shapes are not supported", architecture=self.architecture)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ModelCorrupt(f"the GGUF file does not say its {key}")
        return value

    def _tensor(self, name: str) -> Any:
        if name not in self._tensors:
            raise ModelCorrupt("the GGUF file lacks a tensor", expected=name)
        return self._tensors[name]

    def _named(self, name: str) -> Any:
        """The tensor of a name of Hugging Face's."""
        stem, _, kind = name.rpartition(".")
        match = _LAYER.fullmatch(stem)
        own = f"blk.{match[1]}.{_TENSORS[match[2]]}" if match else _TENSORS[stem]
        return self._tensor(f"{own}.{kind}")

    def size(self, name: str) -> int:
        """See `Source.size`."""
        return int(self._named(name).shape[-1])  # GGUF gives dimensions the other way round

    def rows(self, name: str, start: int, end: int) -> NDArray[np.float32]:
        """See `Source.rows`.

        Files of the Llama architecture hold the rows of a head's queries and keys so that the two numbers that are
        rotated together are neighbours; elsewhere they are half a head apart.
        """
        import numpy as np

        tensor = self._named(name)
        place: Any = slice(start, end)
        if self.architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
            wanted = np.arange(start, end)
            head, half = self.config.head_dim, self.config.head_dim // 2
            inner = wanted % head
            place = wanted - inner + 2 * (inner % half) + inner // half
        try:
            values = self._dequantize(tensor.data[place], tensor.tensor_type)
        except NotImplementedError as error:
            kind = getattr(tensor.tensor_type, "name", "?")
            raise ModelUnsupported(f"weights in the format {kind} cannot be read") from error
        return np.asarray(values, dtype=np.float32)

    def tokenizer_files(self) -> Mapping[str, bytes]:
        """See `Source.tokenizer_files`."""
        description = gguf_tokenizer.description(self._fields)
        return {
            TOKENIZER: json.dumps(description, ensure_ascii=False, separators=(",", ":")).encode(),
            TOKENIZER_CONFIG: json.dumps(gguf_tokenizer.settings(self._fields), indent=1).encode(),
        }

    def tokens(self) -> Mapping[str, Any]:
        """See `Source.tokens`."""
        return {
            "bos_token_id": self._fields.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": gguf_tokenizer.end_tokens(self._fields),
            "pad_token_id": self._fields.get("tokenizer.ggml.padding_token_id"),
        }
