"""How well a model predicts a text, and how far a variant strays from the model it was made of.

Everything is computed in one worker, sealed as those that serve clients; it gives back sums for each window of text, of
which the intervals are made here. The text reaches the worker over the pipe and no disk.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.backends.api import Footprint, LoadOptions
from ondevice_sdk.catalogue import gguf
from ondevice_sdk.chooser import Chooser, Chosen, Settings
from ondevice_sdk.errors import ConfigurationError, NoModelFits
from ondevice_sdk.evaluate.report import Baseline, Row, model_name
from ondevice_sdk.intervals import Interval
from ondevice_sdk.quantise import logits
from ondevice_sdk.quantise.divergence import figures_of, perplexity_of, read_windows
from ondevice_sdk.quantise.logits import LEAST_WINDOWS, WindowSums
from ondevice_sdk.selection import usable_memory
from ondevice_sdk.store import Store
from ondevice_sdk.types import DeviceProfile, ModelInfo, PrivacyLevel, Progress

__all__ = ["Comparison", "Perplexity", "divergence", "perplexity", "rows"]

TOKENS: Final = 8192
WINDOW: Final = 512
LEAST_WINDOW: Final = 16
# A character takes at most 14 bytes in a message to a worker (one outside of Unicode's first plane, escaped twice): so
# many of them always fit into one.
MOST_TOKENS: Final = 32_768
_CHARACTERS_PER_TOKEN: Final = 8  # no more are sent for each token that is wanted; English has between 4 and 5


@dataclass(frozen=True, slots=True)
class Perplexity:
    """How well a model predicts a text; the intervals are drawn from windows.

    Attributes:
        model: what was measured.
        tokens: how many were scored, over all windows.
        windows: how many windows of `window` tokens were read; the second half of each was scored.
        window: tokens of one.
        perplexity: the exponential of the mean negative log-likelihood of a token; lower is better. Only figures of
            models with the same vocabulary can be compared.
        seconds: that it took, with loading.
    """

    model: ModelInfo
    tokens: int
    windows: int
    window: int
    perplexity: Interval
    seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far a model strays from its source on a text; the intervals are drawn from windows, paired.

    Attributes:
        model: the variant.
        source: what it was made of, or the most exact variant there is.
        tokens: how many were scored, over all windows.
        windows: how many windows of `window` tokens were read; the second half of each was scored.
        window: tokens of one.
        perplexity: of the model.
        source_perplexity: of the source, on the same tokens.
        perplexity_ratio: the model's by the source's; 1 is no loss.
        kl: mean over the tokens of KL(source || model) over the whole vocabulary, in nats; 0 is no difference.
        top1_agreement: share of the tokens at which both find the same token most likely.
        seconds: that it took, with loading.
    """

    model: ModelInfo
    source: ModelInfo
    tokens: int
    windows: int
    window: int
    perplexity: Interval
    source_perplexity: Interval
    perplexity_ratio: Interval
    kl: Interval
    top1_agreement: Interval
    seconds: float


def rows(result: Perplexity | Comparison, name: str) -> tuple[Row, ...]:
    """A result as rows of a report; a row counts windows, and the source stands where a trivial rule would.

    Args:
        result: of `perplexity` or `divergence`.
        name: of the text.
    """

    def row(metric: str, value: Interval, better: str, trivial: Baseline | None = None) -> Row:
        return Row(name, "perplexity", metric, result.windows, value, trivial=trivial, better=better, note=note)

    note = f"{result.tokens} tokens scored in {result.windows} windows of {result.window}"
    if isinstance(result, Perplexity):
        return (row("perplexity", result.perplexity, "lower"),)
    note += f", against {model_name(result.source)}"
    return (
        row("perplexity", result.perplexity, "lower", Baseline("source", result.source_perplexity)),
        row("perplexity / source's", result.perplexity_ratio, "lower"),
        row("KL(source || model), nats/token", result.kl, "lower"),
        row("same most likely token, share", result.top1_agreement, "higher"),
    )


def perplexity(
    model: str,
    texts: str | Sequence[str],
    *,
    tokens: int = TOKENS,
    window: int = WINDOW,
    privacy: PrivacyLevel = "strict",
    store: Store | None = None,
    device: DeviceProfile | None = None,
    worker_command: Sequence[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Perplexity:
    """Measure how well a model predicts texts, which are read as one with blank lines between.

    Args:
        model: a catalogue name, a name with variant, or a path.
        texts: what to predict.
        tokens: most tokens that are read; up to 32768, of which half are scored.
        window: tokens that are read with one context. Windows know nothing of each other.
        privacy: of the worker.
        store: where models lie; the user's own by default.
        device: this machine, where it is known.
        worker_command: the command that starts a Python.
        on_progress: called on this thread.

    Raises:
        ConfigurationError: the texts are too short, or a number is out of range. NoModelFits: it needs more memory than
        there is. ModelNotInstalled, ModelCorrupt, ModelUnsupported, BackendUnavailable, LoadFailed. InputTooLong: the
        window is larger than the model's context. Unsupported: the backend gives no logits. GenerationFailed: the
        logits are not finite. PrivacyUnavailable. WorkerCrashed.
    """
    run = _Run(tokens, window, privacy, store, device, worker_command, on_progress)
    started = time.monotonic()
    (chosen,), windows = run.measure([model], texts)
    return Perplexity(
        model=chosen.info,
        tokens=sum(each.tokens for each in windows),
        windows=len(windows),
        window=window,
        perplexity=perplexity_of(windows),
        seconds=time.monotonic() - started,
    )


def divergence(
    model: str,
    source: str,
    texts: str | Sequence[str],
    *,
    tokens: int = TOKENS,
    window: int = WINDOW,
    privacy: PrivacyLevel = "strict",
    store: Store | None = None,
    device: DeviceProfile | None = None,
    worker_command: Sequence[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Comparison:
    """Measure how far a model strays from its source on texts. Both are loaded at a time.

    Arguments and errors are those of `perplexity`; besides it raises ConfigurationError where the two have different
    vocabularies. `source` names what to compare with, as `model` does.
    """
    run = _Run(tokens, window, privacy, store, device, worker_command, on_progress)
    started = time.monotonic()
    (chosen, given), windows = run.measure([model, source], texts)
    figures = figures_of(windows)
    return Comparison(
        model=chosen.info,
        source=given.info,
        tokens=sum(each.tokens for each in windows),
        windows=len(windows),
        window=window,
        perplexity=figures.perplexity,
        source_perplexity=figures.source_perplexity,
        perplexity_ratio=figures.perplexity_ratio,
        kl=figures.kl,
        top1_agreement=figures.top1_agreement,
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """One call of `perplexity` or `divergence`: from names to the sums of windows."""

    tokens: int
    window: int
    privacy: PrivacyLevel
    store: Store | None
    device: DeviceProfile | None
    worker_command: Sequence[str] | None
    on_progress: Callable[[Progress], None] | None

    def measure(self, names: Sequence[str], texts: str | Sequence[str]) -> tuple[list[Chosen], list[WindowSums]]:
        """The models, and what they think of the text; the second, if there is one, is the source."""
        self._check()
        device = self.device or _detect()
        settings = Settings(privacy=self.privacy, context=self.window)
        chosen = [Chooser(dataclasses.replace(settings, model=name), self.store, device).resolve() for name in names]
        self._check_memory(chosen, device)
        sums = read_windows(
            [(each.entry, each.model) for each in chosen],
            joined(texts, self.tokens * _CHARACTERS_PER_TOKEN),
            tokens=self.tokens,
            window=self.window,
            threads=device.threads,
            privacy=self.privacy,
            worker_command=self.worker_command,
            on_progress=self._report,
        )
        return chosen, sums

    def _check(self) -> None:
        if self.window < LEAST_WINDOW:
            raise ConfigurationError(f"window must be at least {LEAST_WINDOW} tokens")
        if not LEAST_WINDOWS * self.window <= self.tokens <= MOST_TOKENS:
            raise ConfigurationError(
                f"tokens must be between {LEAST_WINDOWS} windows of {self.window} and {MOST_TOKENS}",
                hint=f"{TOKENS} give a good interval",
            )

    def _check_memory(self, chosen: Sequence[Chosen], device: DeviceProfile) -> None:
        """Refuse what would not fit together; each alone was weighed when it was resolved."""
        footprints = [self._footprint(each) for each in chosen]
        process = max(each.process for each in footprints)  # they are in one worker
        needed = process + sum(each.total - each.process for each in footprints)
        room = usable_memory(device)
        if needed > room:
            names = " and ".join(f"{each.model.name}:{each.model.variant}" for each in chosen)
            reason = f"needs {needed / 1e9:.2f} GB, {room / 1e9:.2f} GB can be used"
            raise NoModelFits(f"{names} {reason}", rejections={names: reason}, hint="compare smaller variants")

    def _footprint(self, chosen: Chosen) -> Footprint:
        from ondevice_sdk.backends import registry

        size = chosen.model.size()
        shape = gguf.read_header(chosen.model.path).shape if chosen.model.format == "gguf" else None
        if shape is None:
            return Footprint(size, 0, 0)
        options = LoadOptions(context_tokens=self.window, max_sequences=1, batch_tokens=self.window)
        made = registry.installed()[chosen.backend].create().estimate(shape, size, options)
        return dataclasses.replace(made, work_buffers=made.work_buffers + logits.working_bytes(shape.vocabulary))

    def _report(self, fraction: float) -> None:
        if self.on_progress is not None:
            self.on_progress(Progress("reading", round(100 * fraction), 100, "percent"))


def _detect() -> DeviceProfile:
    from ondevice_sdk.device import detect

    return detect()


def joined(texts: str | Sequence[str], most: int) -> str:
    """The texts as one with blank lines between, up to `most` characters."""
    if isinstance(texts, str):
        return texts[:most]
    pieces: list[str] = []
    for text in texts:
        if most <= 0:
            break
        pieces.append(text[:most])
        most -= len(text) + 2
    return "\n\n".join(pieces)
