"""Predictions of speed: from what was measured on this device, else roughly from its description, for ranking.

Best is the model itself, measured with the backend: only the length of the prompt is then to be scaled. Next is a
backend whose times per weight, layer and token were measured; last a guess, as follows.

Decoding one token reads all weights and the keys and values so far once, so that memory bandwidth bounds it; prefill
works on many tokens at a time, so that arithmetic bounds it (the roofline model: Williams, Waterman, Patterson, CACM
52 (4), 2009; for transformer decoding: Pope et al., arXiv 2211.05102). The constants were fitted to llama.cpp with
models of 0.1 and 0.5 billion parameters on two x86 cores with AVX-512 VNNI; there, predictions lie within a third of
what was measured, elsewhere they may be off by more.
"""

from __future__ import annotations

from dataclasses import dataclass

from ondevice_sdk.backends.calibration import Calibration
from ondevice_sdk.backends.measured import ModelSpeed, Round
from ondevice_sdk.catalogue.spec import Variant
from ondevice_sdk.selection import calibrated
from ondevice_sdk.types import DeviceProfile, ModelShape

# Share of the read bandwidth that decoding reaches; measured for Q8_0 and Q4_0.
_BANDWIDTH_SHARE = {"Q8_0": 0.75, "Q4_0": 0.62}
_OTHER_SHARE = 0.60

# Seconds per layer and token for what is no reading: starting and joining the threads, norms, small products.
_LAYER_SECONDS = 0.12e-3

# Multiply-adds of quantised weights per core, in 1e9 operations/s (two per multiply-add), by the best instruction set
# present. Measured for avx512_vnni; the others are scaled by vector width and by having a dot-product instruction.
_GIGAOPS = (
    ("avx512_vnni", 90.0),
    ("i8mm", 60.0),
    ("avx_vnni", 60.0),
    ("avx512f", 45.0),
    ("avx2", 40.0),
    ("dotprod", 30.0),
    ("neon", 12.0),
    ("avx", 10.0),
)
_OTHER_GIGAOPS = 4.0

# What the layout of the quantised blocks makes of it: measured for Q4_0, Q8_0 and Q4_1 (the 0.5, used for all others);
# Q4_K_M is put between, as newer kernels interleave its blocks.
_LAYOUT_FACTOR = {"Q4_0": 1.3, "Q8_0": 1.0, "Q4_K_M": 0.8}
_OTHER_LAYOUT = 0.5


@dataclass(frozen=True, slots=True)
class Speed:
    """What is expected of one sequence after a prompt; `calibrated` says that it comes from a measurement."""

    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    ttft_s: float
    calibrated: bool

    def answer_s(self, tokens: int) -> float:
        """Seconds until so many tokens were written."""
        return self.ttft_s + tokens / self.decode_tokens_per_s

    def times(self, prompt: float, decode: float) -> Speed:
        """The speed of what is so many times as fast."""
        first = 1.0 / self.decode_tokens_per_s
        return Speed(
            self.prefill_tokens_per_s * prompt,
            self.decode_tokens_per_s * decode,
            (self.ttft_s - first) / prompt + first / decode,
            self.calibrated,
        )


def predict(
    device: DeviceProfile, shape: ModelShape, variant: Variant, prompt_tokens: int, calibration: Calibration | None
) -> Speed:
    """The speed of a variant with a prompt of this length."""
    if calibration is not None:
        work = calibrated.work(shape, variant.quantisation)
        prompt = calibrated.prefill_s(calibration, work, prompt_tokens)
        token = calibrated.decode_s(calibration, work, prompt_tokens)
        if prompt is not None and token is not None:
            return Speed(max(1, prompt_tokens) / prompt, 1.0 / token, prompt + token, calibrated=True)
    prefill = prefill_tokens_per_s(device, shape, variant, prompt_tokens)
    decode = decode_tokens_per_s(device, shape, variant, variant.size(shape), prompt_tokens)
    return Speed(prefill, decode, prompt_tokens / prefill + 1.0 / decode, calibrated=False)


def measured(
    shape: ModelShape, weights_bytes: int, found: ModelSpeed, prompt_tokens: int, round_: Round | None = None
) -> Speed:
    """What was measured of this very model, of its typical round or the one given, for a prompt of another length.

    Scaled by the shape alone, in the same way for every backend: reading a prompt by the operations of its tokens,
    writing by the bytes read for a token. So backends measured with one file keep their order at every length.
    (SmolLM2 with llama.cpp read a prompt of 3,629 tokens at 0.67 times the speed of one of 512; by this rule 0.68.)
    """
    at, tokens = round_ or found.typical, max(1, prompt_tokens)
    reads = bytes_per_token(shape, weights_bytes, prompt_tokens) / bytes_per_token(shape, weights_bytes, found.position)
    token = at.token_s * reads
    work = tokens * _operations(shape, tokens // 2, output=False)
    known = found.prompt_tokens * _operations(shape, found.prompt_tokens // 2, output=False)
    first = max(at.first_s * work / known, at.token_s)  # no pass is shorter than that for one token
    return Speed(tokens / first, 1.0 / token, first, calibrated=True)


def decode_tokens_per_s(
    device: DeviceProfile, shape: ModelShape, variant: Variant, weights_bytes: int, position: int
) -> float:
    """Tokens/s of one sequence after `position` tokens.

    1 / (max(bytes / (share * bandwidth), operations / arithmetic) + layers * 0.12 ms).
    """
    share = _BANDWIDTH_SHARE.get(variant.quantisation, _OTHER_SHARE)
    reading = bytes_per_token(shape, weights_bytes, position) / (share * device.cpu_bandwidth)
    computing = _operations(shape, position, output=True) / _operations_per_s(device, variant)
    return 1.0 / (max(reading, computing) + shape.layers * _LAYER_SECONDS)


def prefill_tokens_per_s(device: DeviceProfile, shape: ModelShape, variant: Variant, prompt_tokens: int) -> float:
    """Tokens/s of reading a prompt: arithmetic of all cores over the operations of a token halfway through it."""
    return _operations_per_s(device, variant) / _operations(shape, prompt_tokens // 2, output=False)


def bytes_per_token(shape: ModelShape, weights_bytes: int, position: int) -> int:
    """Bytes read to decode one token after `position` tokens."""
    return weights_bytes + position * shape.kv_bytes_per_token()


def _operations(shape: ModelShape, position: int, *, output: bool) -> float:
    """Floating-point operations for one token: two per weight, and attention over `position` tokens.

    The input embedding is looked up, not multiplied; the output layer runs only for tokens whose logits are wanted.
    """
    embedding = shape.vocabulary * shape.width
    weights = max(1, shape.parameters - (0 if output else embedding))
    return 2.0 * weights + 4.0 * shape.layers * shape.heads * shape.head_dim * position


def _operations_per_s(device: DeviceProfile, variant: Variant) -> float:
    per_core = next((rate for name, rate in _GIGAOPS if name in device.instruction_sets), _OTHER_GIGAOPS)
    return per_core * 1e9 * device.usable_cores * _LAYOUT_FACTOR.get(variant.quantisation, _OTHER_LAYOUT)
