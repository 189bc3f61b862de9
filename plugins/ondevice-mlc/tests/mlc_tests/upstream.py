"""A tiny model as upstream's compile command would make it: plain modules of TVM's, its default schedules, its names.

Nothing of this package's compiler is used, so that what loads here loads for any library of that form.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .vocabularies import fragments

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, MIDDLE, CONTEXT, CHUNK = 64, 2, 2, 1, 32, 96, 1024, 64


def parameters(vocabulary: int) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the order in which the functions take them."""
    qkv = (HEADS + 2 * KV_HEADS) * HEAD
    found: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (vocabulary, HIDDEN))]
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        found += [
            (f"{name}.self_attn.qkv_proj.weight", (qkv, HIDDEN)),
            (f"{name}.self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD)),
            (f"{name}.mlp.gate_up_proj.weight", (2 * MIDDLE, HIDDEN)),
            (f"{name}.mlp.down_proj.weight", (HIDDEN, MIDDLE)),
            (f"{name}.input_layernorm.weight", (HIDDEN,)),
            (f"{name}.post_attention_layernorm.weight", (HIDDEN,)),
        ]
    return [*found, ("model.norm.weight", (HIDDEN,))]


def compile_library(out: Path, vocabulary: int) -> None:
    """Write the shared library; takes some ten seconds."""
    import tvm
    from tvm import relax
    from tvm.relax.frontend import nn
    from tvm.relax.frontend.nn import op
    from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache, RopeMode, TIRPagedKVCache

    target = tvm.target.Target("llvm")

    class Layer(nn.Module):  # type: ignore[misc]  # TVM is not looked at
        def __init__(self, index: int) -> None:
            self.self_attn = nn.Module()
            self.self_attn.qkv_proj = nn.Linear(HIDDEN, (HEADS + 2 * KV_HEADS) * HEAD, bias=False)
            self.self_attn.o_proj = nn.Linear(HEADS * HEAD, HIDDEN, bias=False)
            self.mlp = nn.Module()
            self.mlp.gate_up_proj = nn.Linear(HIDDEN, 2 * MIDDLE, bias=False)
            self.mlp.down_proj = nn.Linear(MIDDLE, HIDDEN, bias=False)
            self.input_layernorm = nn.RMSNorm(HIDDEN, -1, 1e-5, bias=False)
            self.post_attention_layernorm = nn.RMSNorm(HIDDEN, -1, 1e-5, bias=False)
            self.index = index

        def forward(self, x: Any, cache: Any) -> Any:
            rows, columns, _ = x.shape
            qkv = self.self_attn.qkv_proj(self.input_layernorm(x))
            qkv = op.reshape(qkv, (rows, columns, HEADS + 2 * KV_HEADS, HEAD))
            seen = cache.attention_with_fused_qkv(self.index, qkv, HEADS, sm_scale=HEAD**-0.5)
            x = x + self.self_attn.o_proj(op.reshape(seen, (rows, columns, HEADS * HEAD)))
            gate, up = op.split(self.mlp.gate_up_proj(self.post_attention_layernorm(x)), 2, axis=-1)
            return x + self.mlp.down_proj(op.silu(gate) * up)

    class Inner(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.embed_tokens = nn.Embedding("vocab_size", HIDDEN)
            self.layers = nn.ModuleList([Layer(index) for index in range(LAYERS)])
            self.norm = nn.RMSNorm(HIDDEN, -1, 1e-5, bias=False)

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.model = Inner()

        def run(self, x: Any, cache: Any, places: Any = None) -> Any:
            for layer in self.model.layers:
                x = layer(x, cache)
            x = self.model.norm(x)
            if places is not None:
                x = op.take(x, places, axis=1)
            weight = op.permute_dims(self.model.embed_tokens.weight, (1, 0))
            return op.matmul(x, weight), cache

        def embed(self, input_ids: Any) -> Any:
            return self.model.embed_tokens(input_ids)

        def prefill(self, input_embed: Any, paged_kv_cache: Any) -> Any:
            return self.run(input_embed, paged_kv_cache)

        def decode(self, input_embed: Any, paged_kv_cache: Any) -> Any:
            return self.run(input_embed, paged_kv_cache)

        def batch_prefill(self, input_embeds: Any, logit_positions: Any, paged_kv_cache: Any) -> Any:
            return self.run(input_embeds, paged_kv_cache, logit_positions)

        def batch_decode(self, input_embeds: Any, paged_kv_cache: Any) -> Any:
            return self.run(input_embeds, paged_kv_cache)

        def create_tir_paged_kv_cache(self, batch: Any, tokens: Any, chunk: Any, page: Any, sliding: Any) -> Any:
            return TIRPagedKVCache(
                "mha", batch, tokens, chunk, page, sliding, relax.ShapeExpr([0, LAYERS]), LAYERS, HEADS, KV_HEADS,
                HEAD, HEAD, 0, 0, RopeMode.NORMAL, 1, 10000, {}, relax.prim_value(0), HEAD, False, "float32", target,
            )  # fmt: skip

    cache = nn.spec.Object(object_type=PagedKVCache)
    mode = {"param_mode": "packed", "effect_mode": "none"}
    tokens, many, one = nn.spec.Tensor(["n"], "int32"), ["b", 1, HIDDEN], [1, 1, HIDDEN]
    rows = nn.spec.Tensor([1, "n", HIDDEN], "float32")
    sizes = dict.fromkeys(("batch", "tokens", "chunk", "page", "sliding"), int)
    module, found = Model().export_tvm(
        spec={
            "embed": {"input_ids": tokens, "$": mode},
            "prefill": {"input_embed": rows, "paged_kv_cache": cache, "$": mode},
            "decode": {"input_embed": nn.spec.Tensor(one, "float32"), "paged_kv_cache": cache, "$": mode},
            "batch_prefill": {
                "input_embeds": rows,
                "logit_positions": nn.spec.Tensor(["m"], "int32"),
                "paged_kv_cache": cache,
                "$": mode,
            },
            "batch_decode": {"input_embeds": nn.spec.Tensor(many, "float32"), "paged_kv_cache": cache, "$": mode},
            "create_tir_paged_kv_cache": {**sizes, "$": {"param_mode": "none", "effect_mode": "none"}},
        }
    )
    assert [name for name, _ in found] == [name for name, _ in parameters(vocabulary)]
    words = "vocab_size"  # upstream names the dimension that may be of any size
    described = {
        "model_type": "llama",
        "quantization": "q0f32",
        "context_window_size": CONTEXT,
        "sliding_window_size": -1,
        "attention_sink_size": -1,
        "prefill_chunk_size": CHUNK,
        "tensor_parallel_shards": 1,
        "kv_state_kind": "kv_cache",
        "max_batch_size": 16,
        "params": [
            {"name": name, "shape": [words if size == vocabulary else size for size in shape], "dtype": "float32"}
            for name, shape in parameters(vocabulary)
        ],
        "memory_usage": {},
    }
    builder = relax.BlockBuilder(module)
    with builder.function("_metadata", params=[]):
        builder.emit_func_output(relax.StringImm(json.dumps(described)))
    with target:
        built = tvm.compile(builder.finalize(), target)
    built.export_library(str(out))


CHATML = {
    "name": "chatml",
    "system_template": "<|im_start|>system\n{system_message}<|im_end|>\n",
    "system_message": "You help.",
    "system_prefix_token_ids": None,
    "add_role_after_system_message": True,
    "roles": {"user": "<|im_start|>user", "assistant": "<|im_start|>assistant"},
    "role_templates": {"user": "{user_message}", "assistant": "{assistant_message}", "tool": "{tool_message}"},
    "messages": [],
    "seps": ["<|im_end|>\n"],
    "role_content_sep": "\n",
    "role_empty_sep": "\n",
    "stop_str": ["<|im_end|>"],
    "stop_token_ids": [],
}


def write_folder(folder: Path, library: Path, tokenizer: dict[str, Any], vocabulary: int) -> Path:
    """A folder around a library, with random weights in upstream's encoding; gives its first file."""
    import hashlib
    import math
    import shutil

    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(3)
    listed = parameters(vocabulary)
    shards = []
    for number, part in enumerate((listed[:1], listed[1:])):
        records, data = [], b""
        for name, shape in part:
            weights = np.ones(shape) if "norm" in name else draw.normal(0, 1 / math.sqrt(shape[-1]), shape)
            if "embed" in name:
                weights[fragments(tokenizer["model"]["vocab"])] = 0
            upper = (weights.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).tobytes()
            record = {"name": name, "shape": list(shape), "dtype": "float32", "format": "f32-to-bf16"}
            records.append({**record, "nbytes": len(upper), "byteOffset": len(data)})
            data += upper
        path = folder / f"params_shard_{number}.bin"
        path.write_bytes(data)
        shard = {"dataPath": path.name, "format": "raw-shard", "nbytes": len(data), "records": records}
        shards.append({**shard, "md5sum": hashlib.md5(data).hexdigest()})
    (folder / "tensor-cache.json").write_text(json.dumps({"metadata": {"ParamSize": len(listed)}, "records": shards}))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text("{}")
    ends = {each["content"]: each["id"] for each in tokenizer["added_tokens"]}
    config = {
        "version": "0.1.0",
        "model_type": "llama",
        "quantization": "q0f32",
        "model_config": {"hidden_size": HIDDEN, "vocab_size": vocabulary},
        "vocab_size": vocabulary,
        "context_window_size": CONTEXT,
        "conv_template": CHATML,
        "bos_token_id": ends["<|im_start|>"],
        "eos_token_id": ends["<|endoftext|>"],
    }
    (folder / "mlc-chat-config.json").write_text(json.dumps(config))
    shutil.copy(library, folder / "model.so")
    return folder / "mlc-chat-config.json"
