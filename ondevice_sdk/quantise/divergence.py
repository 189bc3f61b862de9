"""How far a model strays from its source on a text: both are read side by side in one sealed worker.

The worker gives sums for each window of text, of which the intervals are made here. The text reaches it over the pipe
and no disk.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeGuard, cast

from ondevice_sdk.backends.api import ErrorInfo, LocalModel
from ondevice_sdk.errors import WorkerCrashed
from ondevice_sdk.intervals import Interval, bootstrap
from ondevice_sdk.quantise import logits
from ondevice_sdk.quantise.logits import LEAST_WINDOWS, WindowSums
from ondevice_sdk.runtime import protocol
from ondevice_sdk.runtime.probe_worker import run_in_worker
from ondevice_sdk.runtime.wire import ProtocolError
from ondevice_sdk.types import JsonValue, PrivacyLevel

_SILENCE_S: Final = 900.0  # for loading the models, and for one window
_MOST_NLL: Final = 700.0  # nats a token: of more there is no exponential


def read_windows(
    models: Sequence[tuple[str, LocalModel]],
    text: str,
    *,
    tokens: int,
    window: int,
    threads: int,
    privacy: PrivacyLevel,
    worker_command: Sequence[str] | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> list[WindowSums]:
    """What one model thinks of a text, or two: the second is then the source of the first.

    Args:
        models: for each the backend as "module:attribute", and the files. The memory for all is there.
        text: what they read.
        tokens: most of it that are read.
        window: tokens that are read with one context.
        threads: that each runs with.
        privacy: of the worker.
        worker_command: the command that starts a Python.
        on_progress: called on this thread with the share that is done.

    Raises:
        ConfigurationError: the text is too short, or the vocabularies differ. ModelCorrupt, ModelUnsupported,
        BackendUnavailable, LoadFailed. InputTooLong: the window is larger than a model's context. Unsupported: a
        backend gives no logits. GenerationFailed: the logits are not finite. PrivacyUnavailable. WorkerCrashed.
    """
    arguments: dict[str, JsonValue] = {
        "model": to_load(*models[0]),
        "source": to_load(*models[1]) if len(models) > 1 else None,
        "text": text,
        "tokens": tokens,
        "window": window,
        "threads": threads,
    }
    returned = run_in_worker(
        logits.ENTRY,
        privacy=privacy,
        arguments=arguments,
        read=[path for _, model in models for path in (model.path, *model.files)],
        timeout_s=_SILENCE_S,
        worker_command=worker_command,
        on_progress=on_progress,
    )
    return read_answer(returned.value, window, tokens // window)


def divergence_of(windows: Sequence[WindowSums]) -> Interval:
    """Mean over the tokens of KL(source || model) over the whole vocabulary, in nats; drawn from windows."""
    return bootstrap(windows, lambda drawn: mean(drawn, lambda each: each.kl))


def perplexity_of(windows: Sequence[WindowSums]) -> Interval:
    """The exponential of the model's mean negative log-likelihood of a token; drawn from windows."""
    return bootstrap(windows, lambda drawn: _exponential(mean(drawn, lambda each: each.nll)))


@dataclass(frozen=True, slots=True)
class Figures:
    """What two models that read the same windows are worth beside each other; the intervals are drawn from windows.

    The ratio is that of the model's perplexity by its source's, the agreement the share of the tokens at which both
    find the same one most likely.
    """

    perplexity: Interval
    source_perplexity: Interval
    perplexity_ratio: Interval
    kl: Interval
    top1_agreement: Interval


def figures_of(windows: Sequence[WindowSums]) -> Figures:
    """All figures of a comparison."""

    def drawn_from(figure: Callable[[WindowSums], float], then: Callable[[float], float]) -> Interval:
        return bootstrap(windows, lambda drawn: then(mean(drawn, figure)))

    return Figures(
        perplexity=perplexity_of(windows),
        source_perplexity=drawn_from(lambda each: each.source_nll, _exponential),
        perplexity_ratio=drawn_from(lambda each: each.nll - each.source_nll, _exponential),
        kl=divergence_of(windows),
        top1_agreement=drawn_from(lambda each: each.agreed, float),
    )


def _exponential(nll: float) -> float:
    return math.exp(nll) if nll < _MOST_NLL else math.inf


def mean(drawn: Sequence[WindowSums], value: Callable[[WindowSums], float]) -> float:
    """Mean over tokens: the ratio of the sums over windows."""
    return sum(map(value, drawn)) / sum(each.tokens for each in drawn)


def to_load(entry: str, model: LocalModel) -> JsonValue:
    """A model and its backend as a worker is told of them."""
    return {"entry": entry, "model": {**dataclasses.asdict(model), "files": list(model.files)}}


def read_answer(value: JsonValue, window: int, most: int) -> list[WindowSums]:
    """The sums that a worker, which is not trusted, gave for at most so many windows.

    Raises:
        WorkerCrashed: no honest worker answers this. Otherwise the error that it reports.
    """
    answer = value if isinstance(value, dict) else {}
    if "error" in answer:
        raise reported(answer["error"])
    rows = answer.get("windows")
    if not isinstance(rows, list) or not LEAST_WINDOWS <= len(rows) <= most:
        raise _broken()
    return [_sums(row, logits.scored(window)) for row in rows]


def _sums(row: JsonValue, tokens: int) -> WindowSums:
    if not isinstance(row, list) or len(row) != 5:
        raise _broken()
    count, nll, source_nll, kl, agreed = row
    if type(count) is not int or type(agreed) is not int or count != tokens or not 0 <= agreed <= tokens:
        raise _broken()
    if not (_is_amount(nll) and _is_amount(source_nll) and _is_amount(kl)):
        raise _broken()
    return WindowSums(count, nll, source_nll, kl, agreed)


def _is_amount(value: JsonValue) -> TypeGuard[float]:
    return type(value) is float and math.isfinite(value) and value >= 0


def reported(value: JsonValue) -> Exception:
    """The error that a worker, which is not trusted, tells of."""
    fields = value if isinstance(value, dict) else {}
    code, message, hint, data = (fields.get(name) for name in ("code", "message", "hint", "data"))
    if not isinstance(code, str) or not isinstance(message, str) or not isinstance(data, dict):
        return _broken()
    if hint is not None and not isinstance(hint, str):
        return _broken()
    try:
        info = ErrorInfo(code, message, hint, cast("dict[str, str | int | None]", data))
        return protocol.restore(info, protocol.MAKER_ERRORS | protocol.REQUEST_ERRORS)
    except ProtocolError:
        return _broken()


def _broken() -> WorkerCrashed:
    return WorkerCrashed("the worker gave an answer that is none")
