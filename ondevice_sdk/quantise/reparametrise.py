"""pre-SINQ: the same function with weights that are easier to round. Runs in a worker, on numpy.

Source: the pre-SINQ variant of L. Müller et al., SINQ, arXiv:2509.22944: factors of columns that even out a matrix are
multiplied into what makes its input, the norm or the matrix before, so that no trace of them is left when the model
runs. `architectures` says why that changes nothing. Attention with fewer heads of values than of queries, and the
feed-forward's second matrix, are included.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from ondevice_sdk.backends.api import Batch, LoadOptions, LocalModel, ModelRunner, Segment
from ondevice_sdk.catalogue import gguf
from ondevice_sdk.errors import ConfigurationError, GenerationFailed, ModelCorrupt
from ondevice_sdk.quantise import sinkhorn
from ondevice_sdk.quantise.architectures import Layer, Proved, prove
from ondevice_sdk.quantise.logits import check_vocabularies, load_runner
from ondevice_sdk.quantise.preserving import BLOCK, ORDER
from ondevice_sdk.quantise.tensors import Array, Rewriter
from ondevice_sdk.store.files import store_errors

LEAST_TOKENS: Final = 8  # attention to several positions
MOST_ERROR: Final = 1e-5  # of logits, by the largest: what computing in 32 bits leaves is some 1e-6


def write(*, source: str, target: str, order: int = ORDER, block: int = BLOCK) -> Generator[float, None, None]:
    """Make `target` of `source` in 32 bits, one layer after the other; yields the share done, in whole percents.

    Metadata is copied, and tensors that are not scaled keep their values. Needs memory for less than two layers in 32
    bits. When it fails or is closed, no file is left.

    Args:
        source: a GGUF file whose matrices are in 32 or 16 bits.
        target: a path where nothing is yet.
        order: most turns of balancing; 0 scales nothing.
        block: columns that are balanced together.

    Raises:
        ModelUnsupported: nothing proves that the function of this model would be kept, or its weights are quantised.
        ModelCorrupt: the source is no whole GGUF file, or has weights that are not finite.
        ConfigurationError: `order` or `block` is impossible. StoreError: the target cannot be written.
    """
    if order < 0 or block < 1:
        raise ConfigurationError("order must be at least 0, and block at least 1")
    path = Path(target)
    with store_errors("make a model", path.parent):
        model = prove(source)
        with Rewriter(Path(source), path, model.file) as rewriter:
            yield from _percents(_steps(model, rewriter, order, block))


def check(
    *, entry: str, source: str, changed: str, text: str, tokens: int, threads: int
) -> Generator[float, None, float]:
    """Read a text with a model and with what `write` made of it, all in 32 bits; yields the share that is done.

    Where the source is in 16 bits, a copy of it in 32 lies beside `changed` meanwhile: a runtime would else round what
    it multiplies with its weights to 16 bits, too.

    Args:
        entry: a backend that gives logits, as "module:attribute".
        source: a GGUF file.
        changed: what was made of it; in a folder that may be written to.
        text: what they read.
        tokens: most of it that are read, in one context.
        threads: that they run with.

    Returns:
        The largest difference of two logits, by the largest logit of the source.

    Raises:
        GenerationFailed: it is larger than `MOST_ERROR`, or the logits are no numbers. ConfigurationError: the text is
        too short, or the vocabularies differ. Errors of `write`, and of loading the models.
    """
    with contextlib.ExitStack() as stack:
        path = Path(source)
        with store_errors("make a model", Path(changed).parent):
            if set(gguf.read_header(source).tensor_types) != {0}:
                path = Path(changed).with_suffix(".source")
                stack.callback(path.unlink, missing_ok=True)
                for share in write(source=source, target=str(path), order=0):
                    yield 0.3 * share
        options = LoadOptions(
            context_tokens=tokens, max_sequences=1, threads=threads, batch_tokens=tokens, kv_type="f32"
        )
        ours, theirs = (load_runner(entry, _local(each), options, stack) for each in (changed, str(path)))
        check_vocabularies(ours, theirs)
        read = _tokens(theirs, text, tokens)
        difference = largest = 0.0
        most = min(ours.max_batch_tokens, ours.max_logits, theirs.max_batch_tokens, theirs.max_logits)
        for start in range(0, len(read), most):
            stop = min(start + most, len(read))
            batch = Batch()
            for position in range(start, stop):
                batch.add(0, position, read[position], logits=True)
            a, b = theirs.forward(batch), ours.forward(batch)
            difference = max(difference, float(np.abs(a - b).max()))
            largest = max(largest, float(np.abs(a).max()))
            if not (np.isfinite(a).all() and np.isfinite(b).all()):
                raise GenerationFailed("the model gave logits that are not finite numbers")
            yield 0.3 + 0.7 * stop / len(read)
    error = difference / max(largest, float(np.finfo(np.float32).tiny))
    if not error <= MOST_ERROR:
        raise GenerationFailed(
            f"the re-parametrised model strays from its source: relative error {error:.2g}, at most {MOST_ERROR:.0g}",
            hint="quantise it without pre-SINQ (plain or imatrix)",
        )
    return error


def _local(path: str) -> LocalModel:
    return LocalModel(Path(path).stem, "f32", "gguf", path, "", (path,))


def _tokens(runner: ModelRunner, text: str, most: int) -> list[int]:
    found = runner.tokenize([Segment(text)])
    begin = [] if runner.begin_token is None else [runner.begin_token]
    read = (begin + found)[: min(most, runner.context_tokens)]
    if len(read) < LEAST_TOKENS:
        raise ConfigurationError(f"at least {LEAST_TOKENS} tokens are read", hint="give more text")
    return read


def _steps(model: Proved, rewriter: Rewriter, order: int, block: int) -> Iterator[float]:
    total = sum(tensor.values for tensor in model.file.tensors)
    done = 0
    in_layers: set[str] = set()
    for layer in model.layers:
        _rewrite(layer, model, rewriter, order, block)
        in_layers |= {tensor.name for tensor in layer.tensors.values()}
        done += sum(tensor.values for tensor in layer.tensors.values())
        yield done / total
    for tensor in model.file.tensors:
        if tensor.name not in in_layers:
            for count in rewriter.copy(tensor):
                done += count
                yield done / total


def _rewrite(layer: Layer, model: Proved, rewriter: Rewriter, order: int, block: int) -> None:
    weights = {name: rewriter.read(tensor) for name, tensor in layer.tensors.items()}
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise ModelCorrupt(f"{layer.tensors[name].name} has values that are not finite numbers")
    if order:
        _scale(weights, model, order, block)
    for name, tensor in layer.tensors.items():
        rewriter.write(tensor, weights[name])


def _percents(shares: Iterator[float]) -> Generator[float, None, None]:
    told = 0
    for share in shares:
        if int(100 * share) > told:
            told = int(100 * share)
            yield told / 100
    if told < 100:
        yield 1.0


def _scale(weights: Mapping[str, Array], model: Proved, order: int, block: int) -> None:
    """Scale the arrays of a layer in place."""

    def factors(*matrices: Array) -> Array:
        t = sinkhorn.column_factors(matrices, order, block)
        return (np.exp2(np.rint(np.log2(t))) if model.rounding else t).astype(np.float32)

    # Values and the matrix after attention: the columns of all query heads that read the same values share a factor.
    output = weights["attn_output.weight"]
    shared = model.heads // model.kv_heads
    by_head = output.reshape(-1, model.kv_heads, shared, model.head_dim)
    t = factors(by_head.transpose(0, 2, 1, 3).reshape(-1, model.kv_heads * model.head_dim))
    _rows(weights, "attn_v", t)
    by_head /= t.reshape(1, model.kv_heads, 1, model.head_dim)

    t = factors(weights["ffn_down.weight"])
    _rows(weights, "ffn_up", t)
    _columns(weights, ["ffn_down"], t)

    inputs = ["attn_q", "attn_k", "attn_v"]
    t = factors(*(weights[f"{name}.weight"] for name in inputs))
    _norm(weights, "attn_norm", inputs, t)

    inputs = ["ffn_gate", "ffn_up"]
    t = factors(*(weights[f"{name}.weight"] for name in inputs))
    _norm(weights, "ffn_norm", inputs, t)


def _rows(weights: Mapping[str, Array], name: str, t: Array) -> None:
    weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
    weight *= t[:, None]
    if bias is not None:
        bias *= t


def _columns(weights: Mapping[str, Array], names: Sequence[str], t: Array) -> None:
    for name in names:
        weight = weights[f"{name}.weight"]
        weight /= t


def _norm(weights: Mapping[str, Array], name: str, inputs: Sequence[str], t: Array) -> None:
    norm = weights[f"{name}.weight"]
    norm *= t
    _columns(weights, inputs, t)
