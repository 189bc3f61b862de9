"""What models think of every token of a text. Runs in the sealed worker, on model runners.

The text is read in windows that know nothing of each other. The first half of a window is context; every token after it
is predicted from all before it in the window. This is the convention of llama.cpp's perplexity tool, so that figures
can be put side by side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypedDict

from ondevice_sdk.backends.api import Batch, LoadOptions, LocalModel, ModelRunner, Segment
from ondevice_sdk.errors import ConfigurationError, GenerationFailed, InputTooLong, OnDeviceError, Unsupported
from ondevice_sdk.runtime import protocol
from ondevice_sdk.runtime.loading import load_model
from ondevice_sdk.types import JsonValue

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ENTRY: Final = "ondevice_sdk.quantise.logits:measure"
LEAST_WINDOWS: Final = 2  # an interval is drawn from windows

_ROWS: Final = 8  # worked on at a time: few enough to stay near the processor, for a vocabulary of 100,000 some 10 MB
_ARRAYS: Final = 8  # of doubles, one value for each row and word


class ModelToLoad(TypedDict):
    """A backend's entry string and the fields of a `LocalModel`."""

    entry: str
    model: dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class WindowSums:
    """Sums over the scored tokens of a window, in nats; without a source the last three are 0.

    Attributes:
        tokens: how many were scored.
        nll: negative log-likelihood by the model.
        source_nll: the same by the source.
        kl: divergence of the model's distribution from the source's, KL(source || model).
        agreed: tokens at which both find the same word most likely.
    """

    tokens: int
    nll: float
    source_nll: float
    kl: float
    agreed: int


def scored(window: int) -> int:
    """How many tokens of a window are scored."""
    return window - 1 - window // 2


def working_bytes(vocabulary: int) -> int:
    """Memory of the arithmetic, besides that of the models."""
    return _ROWS * _ARRAYS * 8 * vocabulary


def measure(
    *, model: ModelToLoad, source: ModelToLoad | None, text: str, tokens: int, window: int, threads: int
) -> Generator[float, None, dict[str, JsonValue]]:
    """Load the models and read the text; yields the share that is done, in whole percents.

    The answer has either `windows`, the sums of each as a list, or `error`, that of the SDK.
    """
    try:
        options = LoadOptions(context_tokens=window, max_sequences=1, threads=threads, batch_tokens=window)
        with ExitStack() as stack:
            ours = _load(model, options, stack)
            theirs = None if source is None else _load(source, options, stack)
            if theirs is not None:
                check_vocabularies(ours, theirs)
            windows = split(theirs or ours, text, tokens, window)
            sums: list[JsonValue] = []
            told = 0
            for each in windows:
                sums.append(list(dataclasses.astuple(window_sums(ours, theirs, each))))
                percent = 100 * len(sums) // len(windows)
                if percent > told:
                    told = percent
                    yield percent / 100
            return {"windows": sums}
    except OnDeviceError as error:
        return {"error": dataclasses.asdict(protocol.describe(error))}


def _load(wanted: ModelToLoad, options: LoadOptions, stack: ExitStack) -> ModelRunner:
    loaded = load_runner(wanted["entry"], local_model(wanted["model"]), options, stack)
    wanted_tokens = options.context_tokens or 0
    if loaded.context_tokens < wanted_tokens:
        raise InputTooLong(
            f"the window has {wanted_tokens} tokens, the model reads {loaded.context_tokens}",
            tokens=wanted_tokens,
            limit=loaded.context_tokens,
            hint="use a smaller window",
        )
    return loaded


def load_runner(entry: str, model: LocalModel, options: LoadOptions, stack: ExitStack) -> ModelRunner:
    """Load a model that gives logits; closed with the stack.

    Raises:
        Unsupported: the backend gives none. Errors of `load_model`.
    """
    loaded = load_model(entry, model, options)
    stack.callback(loaded.close)
    if not isinstance(loaded, ModelRunner):
        raise Unsupported("the backend schedules requests itself and gives no logits", capability="logits")
    return loaded


def local_model(fields: Mapping[str, JsonValue]) -> LocalModel:
    """The model that a worker was told of."""
    words = {name: str(value) for name, value in fields.items() if name != "files"}
    files = fields["files"]
    assert isinstance(files, list)
    return LocalModel(**words, files=tuple(map(str, files)))


def check_vocabularies(model: ModelRunner, source: ModelRunner) -> None:
    """Refuse to compare models whose tokens do not stand for the same bytes.

    Raises:
        ConfigurationError.
    """
    size = source.vocabulary
    if model.vocabulary != size or any(model.token_bytes(each) != source.token_bytes(each) for each in range(size)):
        raise ConfigurationError(
            f"the models have different vocabularies ({model.vocabulary} and {size} tokens)",
            hint="compare variants of one model",
        )


def split(runner: ModelRunner, text: str, tokens: int, window: int) -> list[list[int]]:
    """Windows of the text's first tokens; what is left at the end is not used. The begin token takes the first place.

    Raises:
        ConfigurationError: the text is too short.
    """
    found = runner.tokenize([Segment(text)])
    count = min(len(found), tokens) // window
    if count < LEAST_WINDOWS:
        raise ConfigurationError(
            f"the text has {len(found)} tokens; at least {LEAST_WINDOWS} windows of {window} are needed",
            hint="give more text, or use a smaller window",
        )
    windows = [found[start : start + window] for start in range(0, count * window, window)]
    if runner.begin_token is not None:
        for each in windows:
            each[0] = runner.begin_token
    return windows


def window_sums(model: ModelRunner, source: ModelRunner | None, tokens: Sequence[int]) -> WindowSums:
    """Read one window with the model, and side by side with the source.

    Raises:
        GenerationFailed: a runtime failed, or gave logits that are not finite.
    """
    runners = [model] if source is None else [model, source]
    nll = source_nll = kl = 0.0
    agreed = 0
    for batch in _batches(tokens, runners):
        logits = [runner.forward(batch) for runner in runners]
        targets = [tokens[at + 1] for at, wanted in zip(batch.positions, batch.logits, strict=True) if wanted]
        for start in range(0, len(targets), _ROWS):
            rows = slice(start, start + _ROWS)
            probabilities = _Rows(logits[0][rows])
            nll += probabilities.nll(targets[rows])
            if source is not None:
                given = _Rows(logits[1][rows])
                source_nll += given.nll(targets[rows])
                kl += given.divergence(probabilities)
                agreed += given.agreement(probabilities)
    for runner in runners:
        runner.kv_remove(0, 0, None)
    return WindowSums(scored(len(tokens)), nll, source_nll, kl, agreed)


def _batches(tokens: Sequence[int], runners: Sequence[ModelRunner]) -> Iterator[Batch]:
    """The rows of a window but its last token, which is only predicted; logits from the middle on."""
    most_rows = min(runner.max_batch_tokens for runner in runners)
    most_logits = min(most_rows, *(runner.max_logits for runner in runners))
    middle, end, at = len(tokens) // 2, len(tokens) - 1, 0
    while at < end:
        stop = min(at + most_rows, middle) if at < middle else min(at + most_logits, end)
        batch = Batch()
        for position in range(at, stop):
            batch.add(0, position, tokens[position], at >= middle)
        yield batch
        at = stop


class _Rows:
    """Distributions over the vocabulary, one a row, in double precision."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        import numpy as np

        self._np = np
        if not np.isfinite(logits).all():
            raise GenerationFailed("the model gave logits that are not finite numbers")
        self.best = logits.argmax(axis=1)
        self.logs = logits.astype(np.float64)
        self.logs -= self.logs.max(axis=1, keepdims=True)
        self.shares = np.exp(self.logs)
        total = self.shares.sum(axis=1, keepdims=True)
        self.shares /= total
        self.logs -= np.log(total)

    def nll(self, targets: Sequence[int]) -> float:
        """Negative log-likelihood of one token a row, in all."""
        return -float(self.logs[self._np.arange(len(targets)), targets].sum())

    def divergence(self, other: _Rows) -> float:
        """KL(self || other), in all; what rounding makes less than nothing is nothing."""
        rows = (self.shares * (self.logs - other.logs)).sum(axis=1)
        return float(self._np.maximum(rows, 0.0).sum())

    def agreement(self, other: _Rows) -> int:
        """Rows whose most likely word is the same."""
        return int((self.best == other.best).sum())
