"""What quantising cost a model: source and result read a text side by side in a sealed worker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from ondevice_sdk import calibration
from ondevice_sdk.backends.api import Footprint, LoadOptions, LocalModel
from ondevice_sdk.errors import NoModelFits
from ondevice_sdk.quantise import layouts, logits
from ondevice_sdk.quantise.divergence import divergence_of, figures_of, mean, read_windows
from ondevice_sdk.quantise.logits import WindowSums
from ondevice_sdk.quantise.recipe import CHARACTERS_PER_TOKEN
from ondevice_sdk.quantise.runtimes import Compressing
from ondevice_sdk.quantise.search import reading
from ondevice_sdk.selection import usable_memory
from ondevice_sdk.store.files import readable
from ondevice_sdk.store.recipes import Quality, Trial
from ondevice_sdk.types import DeviceProfile

WINDOW: Final = 256  # tokens that are read with one context
TOKENS: Final = 28 * WINDOW  # all of the packaged text, for the report
# For deciding whether pre-SINQ helps: on SmolLM2 it takes off a quarter of the KL, and for a model of 0.6B with a large
# vocabulary each 128 tokens that are scored take 9 s.
TRIAL_WINDOW: Final = 128
TRIAL_TOKENS: Final = 6 * TRIAL_WINDOW

OnShare = Callable[[float], None] | None


def check_memory(runtime: Compressing, source: LocalModel, size: int, device: DeviceProfile) -> None:
    """Refuse where the source and what is made of it, of so many bytes, do not fit into memory side by side.

    Raises:
        NoModelFits.
    """
    found = layouts.read_source(source.path)
    options = LoadOptions(context_tokens=WINDOW, max_sequences=1, batch_tokens=WINDOW)
    if found is None:
        needed = Footprint(source.size() + size, 0, 0).total
    else:
        both = [runtime.backend.estimate(found.shape, each, options) for each in (source.size(), size)]
        needed = both[0].total + both[1].total - both[1].process + logits.working_bytes(found.shape.vocabulary)
    room = usable_memory(device)
    if needed > room:
        label = f"{source.name}:{source.variant}"
        reason = f"beside what is made of it {readable(needed)} are needed, {readable(room)} can be used"
        hint = "close other programs, or do it on another machine and carry the result over: ondevice models export"
        raise NoModelFits(f"{label}: {reason}", rejections={label: reason}, hint=hint)


def trial(
    runtime: Compressing,
    source: LocalModel,
    scaled: LocalModel,
    plain: LocalModel,
    text: str,
    threads: int,
    on_progress: OnShare,
) -> Trial:
    """Whether pre-SINQ helps: both, rounded in the same plain way, read the calibration text beside their source.

    With an importance matrix each would take minutes to make, and the two differ less.
    """

    def read(made: LocalModel, part: int) -> list[WindowSums]:
        tell = None if on_progress is None else lambda share: on_progress((part + share) / 2)
        return _read(runtime, made, source, text, TRIAL_TOKENS, TRIAL_WINDOW, threads, tell)

    with_it, without = read(scaled, 0), read(plain, 1)
    return Trial(
        with_presinq=divergence_of(with_it),
        without=divergence_of(without),
        tokens=sum(each.tokens for each in with_it),
        kept=_kl(with_it) <= _kl(without),
    )


def report(
    runtime: Compressing,
    source: LocalModel,
    made: LocalModel,
    threads: int,
    *,
    requantised: bool,
    self_check: float | None,
    trial: Trial | None,
    on_progress: OnShare,
) -> Quality:
    """The figures, on the text that comes with the package for it, which calibrates nothing."""
    text = reading()
    windows = _read(runtime, made, source, text, TOKENS, WINDOW, threads, on_progress)
    figures = figures_of(windows)
    return Quality(
        perplexity=figures.perplexity,
        source_perplexity=figures.source_perplexity,
        perplexity_ratio=figures.perplexity_ratio,
        kl=figures.kl,
        top1_agreement=figures.top1_agreement,
        tokens=sum(each.tokens for each in windows),
        windows=len(windows),
        window=WINDOW,
        text_sha256=hashlib.sha256(text.encode()).hexdigest(),
        requantised=requantised,
        self_check=self_check,
        trial=trial,
    )


def _read(
    runtime: Compressing,
    made: LocalModel,
    source: LocalModel,
    text: str,
    tokens: int,
    window: int,
    threads: int,
    tell: OnShare,
) -> list[WindowSums]:
    return read_windows(
        [(runtime.entry, made), (runtime.entry, source)],
        text[: CHARACTERS_PER_TOKEN * tokens],
        tokens=tokens,
        window=window,
        threads=threads,
        privacy=calibration.best_privacy(),
        on_progress=tell,
    )


def _kl(windows: Sequence[WindowSums]) -> float:
    return mean(windows, lambda each: each.kl)
