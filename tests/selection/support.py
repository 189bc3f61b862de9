"""Devices, specs and a backend for the tests of the choice."""

from __future__ import annotations

from ondevice_sdk.backends.api import Footprint, LoadOptions
from ondevice_sdk.catalogue import Artifact, ModelSpec, Precision, Variant
from ondevice_sdk.selection import BackendOffer
from ondevice_sdk.types import DeviceProfile, ModelShape

MB = 1_000_000
GB = 1000 * MB


def estimate(shape: ModelShape, weights_bytes: int, options: LoadOptions) -> Footprint:
    """Weights, a 16-bit KV cache, and a little work space: the arithmetic that backends do."""
    context = options.context_tokens or shape.context_tokens
    cache = shape.kv_bytes_per_token() * context
    if options.kv_type == "q8_0":
        cache = cache * 17 // 32
    return Footprint(weights_bytes, cache, 20 * MB + 4 * 64 * shape.vocabulary)


def offer(name: str = "llama_cpp", *, usable: bool = True, reason: str = "", form: str = "gguf") -> BackendOffer:
    return BackendOffer(name, frozenset({form}), usable, reason, estimate=estimate)


def device(available: int = 12 * GB, bandwidth: float | None = 40e9, cores: int = 4) -> DeviceProfile:
    return DeviceProfile(
        system="linux",
        machine="x86_64",
        cpu_name="test",
        instruction_sets=("avx2", "fma", "avx512_vnni"),
        physical_cores=cores,
        usable_cores=cores,
        memory_bytes=max(available, 1),
        memory_available_bytes=available,
        read_bandwidth=bandwidth,
    )


def spec(
    name: str, parameters: int, quality: float, *, context: int = 8192, chat: bool = True, form: str = "gguf"
) -> ModelSpec:
    def variant(precision: Precision, quantisation: str, bits: float) -> Variant:
        return Variant(precision, form, quantisation, bits, (Artifact(f"hf:o/r/{name}-{precision}.gguf"),))

    return ModelSpec(
        name=name,
        title=name,
        shape=ModelShape(parameters, 24, 1024, 16, 4, 64, 4096, 32_000, context),
        variants=(variant("int4", "Q4_K_M", 5.0), variant("int8", "Q8_0", 8.5)),
        licence="MIT",
        licence_url="https://example.org",
        must_accept=False,
        languages=("en",),
        chat=chat,
        quality=quality,
    )
