"""A tiny shape and tiny sizes: enough to run everything."""

from __future__ import annotations

from ondevice_sdk.bench import Sizes
from ondevice_sdk.catalogue import Artifact, ModelSpec, Variant
from ondevice_sdk.types import ModelShape

SIZES = Sizes(
    prompt_tokens=140, decode_prompt_tokens=20, decode_tokens=8, first_token_prompt_tokens=20, cached_tokens=100,
    batch_sizes=(1, 3), batch_tokens=8, documents=2, document_tokens=30, answer_tokens=4,
)  # fmt: skip

SHAPE = ModelShape(
    parameters=2_000_000, layers=2, width=256, heads=4, kv_heads=2, head_dim=64, feed_forward=512, vocabulary=2048,
    context_tokens=2048,
)  # fmt: skip

_VARIANT = Variant("int4", "gguf", "Q4_0", 4.5, (Artifact("file:/none.gguf"),))
TINY = ModelSpec("tiny-test-model", "Tiny", SHAPE, (_VARIANT,), "none", "", must_accept=False, languages=())
