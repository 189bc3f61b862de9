"""The decoder-only transformer, defined for TVM on quantised weights: Llama, Qwen2 and Qwen3."""

from __future__ import annotations

from typing import Any, Final

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache

from ondevice_mlc.architecture import cache as pages
from ondevice_mlc.architecture.config import GROUP, ModelConfig
from ondevice_mlc.kernels import activations, rows
from ondevice_mlc.kernels.products import Product
from ondevice_mlc.kernels.simd import Simd
from ondevice_mlc.quantisation import TABLE, Precision, per_word

_CACHE_SIZES: Final = (
    "max_batch_size",
    "max_total_seq_len",
    "prefill_chunk_size",
    "page_size",
    "support_sliding_window",
)


class _Build:
    """What all parts need to know."""

    def __init__(self, config: ModelConfig, precision: Precision, simd: Simd) -> None:
        self.config, self.precision, self.simd = config, precision, simd

    def record(self, inputs: int) -> int:
        """Words of a row of activations."""
        return activations.Record(inputs, self.precision).words

    def table(self) -> _Build:
        """The same for the table of tokens and the logits."""
        return _Build(self.config, TABLE, self.simd)


class _Weights(nn.Module):  # type: ignore[misc]  # TVM has no types
    """A quantised matrix."""

    def __init__(self, outputs: int, inputs: int, build: _Build) -> None:
        self.q_weight = nn.Parameter((outputs, inputs // per_word(build.precision)), "uint32")
        self.q_scale = nn.Parameter((outputs, inputs // GROUP), "float32")


class _Linear(_Weights):
    """A product with a quantised matrix."""

    def __init__(self, outputs: int, inputs: int, build: _Build, *, bias: bool = False) -> None:
        super().__init__(outputs, inputs, build)
        if bias:
            self.bias = nn.Parameter((outputs,), "float32")
        self._shape, self._build, self._biased = (outputs, inputs), build, bias

    def forward(self, records: nn.Tensor, residual: nn.Tensor | None = None) -> nn.Tensor:
        """`records (n, words) [, residual (n, outputs)] -> (n, outputs)`."""
        bias = [self.bias] if self._biased else []
        return _product(self, self._shape, self._build, records, bias, residual)


class _Embedding(_Weights):
    """The table of tokens, which tied models use for the logits too."""

    def __init__(self, build: _Build) -> None:
        self._shape, self._build = (build.config.vocab_size, build.config.hidden_size), build
        super().__init__(*self._shape, build)

    def forward(self, tokens: nn.Tensor) -> nn.Tensor:
        """`tokens (n) -> (n, hidden)`."""
        function = rows.embedding(*self._shape, self._build.precision)
        return _call(function, [tokens, self.q_weight, self.q_scale], (tokens.shape[0], self._shape[1]))

    def logits(self, records: nn.Tensor) -> nn.Tensor:
        """`records (n, words) -> (n, vocabulary)`."""
        return _product(self, self._shape, self._build, records, [], None)


class _Norm(nn.Module):  # type: ignore[misc]  # TVM has no types
    """Normalisation by the root mean square, for the product that follows."""

    def __init__(self, build: _Build) -> None:
        self.weight = nn.Parameter((build.config.hidden_size,), "float32")
        self._build = build

    def forward(self, values: nn.Tensor) -> nn.Tensor:
        """`(n, hidden) -> records (n, words)`."""
        config, width = self._build.config, self._build.config.hidden_size
        function = activations.norm_quantise(width, config.rms_norm_eps, self._build.precision, self._build.simd)
        shape = (values.shape[0], self._build.record(width))
        return _call(function, [values, self.weight], shape, "int32")


class _HeadNorm(nn.Module):  # type: ignore[misc]  # TVM has no types
    """The weight of a normalisation per head."""

    def __init__(self, width: int) -> None:
        self.weight = nn.Parameter((width,), "float32")


class _Attention(nn.Module):  # type: ignore[misc]  # TVM has no types
    def __init__(self, build: _Build) -> None:
        config = build.config
        self._build, self._inner = build, config.num_attention_heads * config.head_dim
        projection = _Linear(config.qkv_size, config.hidden_size, build, bias=config.attention_bias)
        setattr(self, config.attention_name, projection)
        self.o_proj = _Linear(config.hidden_size, self._inner, build)
        if config.head_norms:
            self.q_norm, self.k_norm = _HeadNorm(config.head_dim), _HeadNorm(config.head_dim)

    def forward(self, records: nn.Tensor, residual: nn.Tensor, cache: PagedKVCache, layer: int) -> nn.Tensor:
        config, build = self._build.config, self._build
        queries, keys, width = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        count = records.shape[0]
        heads = getattr(self, config.attention_name)(records).reshape(count, queries + 2 * keys, width)
        if config.head_norms:
            function = rows.head_norms(queries, keys, width, config.rms_norm_eps, build.simd)
            heads = _call(function, [heads, self.q_norm.weight, self.k_norm.weight], heads.shape)
        seen = pages.attend(cache, layer, heads, queries).reshape(count, self._inner)
        function = activations.quantise(self._inner, build.precision, build.simd)
        return self.o_proj(_call(function, [seen], (count, build.record(self._inner)), "int32"), residual)


class _FeedForward(nn.Module):  # type: ignore[misc]  # TVM has no types
    def __init__(self, build: _Build) -> None:
        config = build.config
        self._build = build
        self.gate_up_proj = _Linear(2 * config.intermediate_size, config.hidden_size, build)
        self.down_proj = _Linear(config.hidden_size, config.intermediate_size, build)

    def forward(self, records: nn.Tensor, residual: nn.Tensor) -> nn.Tensor:
        build, middle = self._build, self._build.config.intermediate_size
        both = self.gate_up_proj(records)
        function = activations.silu_quantise(middle, build.precision, build.simd)
        return self.down_proj(_call(function, [both], (both.shape[0], build.record(middle)), "int32"), residual)


class _Layer(nn.Module):  # type: ignore[misc]  # TVM has no types
    def __init__(self, build: _Build) -> None:
        self.self_attn = _Attention(build)
        self.mlp = _FeedForward(build)
        self.input_layernorm = _Norm(build)
        self.post_attention_layernorm = _Norm(build)

    def forward(self, values: nn.Tensor, cache: PagedKVCache, layer: int) -> nn.Tensor:
        values = self.self_attn(self.input_layernorm(values), values, cache, layer)
        return self.mlp(self.post_attention_layernorm(values), values)


class _Layers(nn.Module):  # type: ignore[misc]  # TVM has no types
    def __init__(self, build: _Build) -> None:
        self.embed_tokens = _Embedding(build.table())
        self.layers = nn.ModuleList([_Layer(build) for _ in range(build.config.num_hidden_layers)])
        self.norm = _Norm(build.table())

    def forward(self, values: nn.Tensor, cache: PagedKVCache) -> nn.Tensor:
        for index, layer in enumerate(self.layers):
            values = layer(values, cache, index)
        return values


class CausalModel(nn.Module):  # type: ignore[misc]  # TVM has no types
    """The functions that a compiled library exports; names and parameters are those of upstream's libraries."""

    def __init__(self, config: ModelConfig, precision: Precision, simd: Simd) -> None:
        self._build = _Build(config, precision, simd)
        self.model = _Layers(self._build)
        if not config.tie_word_embeddings:
            self.lm_head = _Linear(config.vocab_size, config.hidden_size, self._build.table())

    def embed(self, input_ids: nn.Tensor) -> nn.Tensor:
        """Vectors of tokens."""
        return self.model.embed_tokens(input_ids)

    def prefill(self, input_embed: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """Rows of one sequence; logits of the last."""
        values = self._run(input_embed, paged_kv_cache)
        function = rows.last(self._build.config.hidden_size, self._build.simd)
        values = _call(function, [values], (1, self._build.config.hidden_size))
        return self._logits(values, 1, 1), paged_kv_cache

    def decode(self, input_embed: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """One row of one sequence."""
        return self._logits(self._run(input_embed, paged_kv_cache), 1, 1), paged_kv_cache

    def batch_prefill(self, input_embeds: nn.Tensor, logit_positions: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """Rows of several sequences, one after another; logits of the chosen ones."""
        values = self._run(input_embeds, paged_kv_cache)
        count, width = logit_positions.shape[0], self._build.config.hidden_size
        values = _call(rows.take(width, self._build.simd), [values, logit_positions], (count, width))
        return self._logits(values, 1, count), paged_kv_cache

    def batch_decode(self, input_embeds: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """One row of each sequence."""
        return self._logits(self._run(input_embeds, paged_kv_cache), input_embeds.shape[0], 1), paged_kv_cache

    def batch_verify(self, input_embeds: nn.Tensor, paged_kv_cache: PagedKVCache) -> Any:
        """Rows of several sequences; logits of all."""
        return self._logits(self._run(input_embeds, paged_kv_cache), 1, input_embeds.shape[1]), paged_kv_cache

    def create_tir_paged_kv_cache(
        self, max_batch_size: Any, max_total_seq_len: Any, prefill_chunk_size: Any, page_size: Any,
        support_sliding_window: Any,
    ) -> PagedKVCache:  # fmt: skip
        """Make an empty cache."""
        sizes = [max_batch_size, max_total_seq_len, prefill_chunk_size, page_size, support_sliding_window]
        return pages.create(self._build.config, self._build.simd, sizes)

    def specification(self) -> dict[str, Any]:
        """The parameters of the functions, as TVM's exporter takes them."""
        hidden = self._build.config.hidden_size
        packed = {"param_mode": "packed", "effect_mode": "none"}
        cache = nn.spec.Object(object_type=PagedKVCache)

        def embeds(*shape: int | str) -> Any:
            return nn.spec.Tensor([*shape, hidden], "float32")

        return {
            "embed": {"input_ids": nn.spec.Tensor(["seq_len"], "int32"), "$": packed},
            "prefill": {"input_embed": embeds(1, "seq_len"), "paged_kv_cache": cache, "$": packed},
            "decode": {"input_embed": embeds(1, 1), "paged_kv_cache": cache, "$": packed},
            "batch_prefill": {
                "input_embeds": embeds(1, "seq_len"),
                "logit_positions": nn.spec.Tensor(["batch_size"], "int32"),
                "paged_kv_cache": cache,
                "$": packed,
            },
            "batch_decode": {"input_embeds": embeds("batch_size", 1), "paged_kv_cache": cache, "$": packed},
            "batch_verify": {"input_embeds": embeds(1, "seq_len"), "paged_kv_cache": cache, "$": packed},
            "create_tir_paged_kv_cache": {
                **dict.fromkeys(_CACHE_SIZES, int),
                "$": {"param_mode": "none", "effect_mode": "none"},
            },
        }

    def _run(self, embeds: nn.Tensor, cache: PagedKVCache) -> nn.Tensor:
        first, second, width = embeds.shape
        count = second if isinstance(first, int) and first == 1 else first
        return self.model(embeds.reshape(count, width), cache)

    def _logits(self, values: nn.Tensor, first: Any, second: Any) -> nn.Tensor:
        records = self.model.norm(values)
        tied = self._build.config.tie_word_embeddings
        logits = self.model.embed_tokens.logits(records) if tied else self.lm_head(records)
        return logits.reshape(first, second, self._build.config.vocab_size)


def _product(
    weights: _Weights, shape: tuple[int, int], build: _Build, records: nn.Tensor, bias: list[nn.Tensor],
    residual: nn.Tensor | None,
) -> nn.Tensor:  # fmt: skip
    extras = bias + ([] if residual is None else [residual])
    product = Product(*shape, build.precision, build.simd, bias=bool(bias), residual=residual is not None)
    arguments = [records, weights.q_weight, weights.q_scale, *extras]
    return _call(product.function(), arguments, (records.shape[0], shape[0]))


def _call(function: Any, arguments: list[nn.Tensor], shape: tuple[Any, ...], dtype: str = "float32") -> nn.Tensor:
    """Call a function that writes one tensor."""
    result = nn.Tensor.placeholder(list(shape), dtype)
    name = str(function.attrs["global_symbol"]) if function.attrs and "global_symbol" in function.attrs else "kernel"
    return nn.op.tensor_ir_op(function, name, arguments, out=result)
