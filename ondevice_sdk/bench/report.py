"""What a benchmark found out, as plain frozen values; units are in the names. Holds no text of anybody."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from ondevice_sdk import intervals
from ondevice_sdk.bench.conditions import Conditions, Sizes
from ondevice_sdk.intervals import Interval
from ondevice_sdk.types import DeviceProfile

Better = Literal["more", "less", "neither"]

NOISY_SPREAD: Final = 0.15  # interquartile range over the median


@dataclass(frozen=True, slots=True)
class Kind:
    """What a figure is: its title for people, its unit, and in which direction it is good."""

    title: str
    unit: str
    better: Better


KINDS: Final[Mapping[str, Kind]] = {
    "file_bytes": Kind("File", "bytes", "less"),
    "prompt_tokens_per_s": Kind("Prompt", "tokens/s", "more"),
    "decode_tokens_per_s": Kind("Decode", "tokens/s", "more"),
    "decode_in_model_share": Kind("Decode time inside the model", "share", "neither"),
    "read_bandwidth_share": Kind("Decode, share of read bandwidth", "share", "more"),
    "first_token_warm_s": Kind("First token, loaded", "s", "less"),
    "first_token_cached_s": Kind("First token, beginning cached", "s", "less"),
    "streamed_tokens_per_s": Kind("Stream, greedy", "tokens/s", "more"),
    "sampled_tokens_per_s": Kind("Stream, default sampling", "tokens/s", "more"),
    "schema_tokens_per_s": Kind("Stream, held to a schema", "tokens/s", "more"),
    "documents_per_minute": Kind("Documents", "documents/min", "more"),
    "first_token_cold_s": Kind("First token, cold", "s", "less"),
    "app_import_s": Kind("Python start and import of the SDK", "s", "less"),
    "choose_s": Kind("Cold: choose the model", "s", "less"),
    "seal_s": Kind("Start and seal of an empty worker", "s", "less"),
    "worker_start_s": Kind("Cold: worker start, seal, library", "s", "less"),
    "load_s": Kind("Cold: load", "s", "less"),
    "first_prompt_s": Kind("Cold: prompt", "s", "less"),
    "peak_memory_bytes": Kind("Peak memory", "bytes", "less"),
    "peak_worker_bytes": Kind("Peak memory of the worker", "bytes", "less"),
    "peak_app_bytes": Kind("Peak memory of the app", "bytes", "less"),
}
_BATCHED: Final = re.compile(r"batched_(\d+)_tokens_per_s")


def kind(name: str) -> Kind:
    """What the figure of that name is; KeyError for none."""
    if match := _BATCHED.fullmatch(name):
        return Kind(f"Decode, {match[1]} at a time", "tokens/s", "more")
    return KINDS[name]


def batched_name(sequences: int) -> str:
    """The name of the figure for that many sequences at a time."""
    return f"batched_{sequences}_tokens_per_s"


def batched_size(name: str) -> int | None:
    """How many sequences a figure is about; None where it is another figure."""
    match = _BATCHED.fullmatch(name)
    return int(match[1]) if match else None


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of one subject: the median of its samples with an interval, and the same of the bare library beside it.

    `ratio` is the median of ours / the library's, pair by pair; the library's values are absent where it has no
    counterpart.
    """

    unit: str
    better: Better
    median: Interval
    samples: tuple[float, ...]
    library: Interval | None = None
    library_samples: tuple[float, ...] = ()
    ratio: Interval | None = None

    @classmethod
    def of(cls, name: str, samples: tuple[float, ...], library: tuple[float, ...]) -> Figure:
        """Make it from the samples, in which the pairs have the same place."""
        about = kind(name)
        median = intervals.median(samples)
        if len(library) != len(samples):
            return cls(about.unit, about.better, median, samples)
        return cls(
            about.unit,
            about.better,
            median,
            samples,
            intervals.median(library),
            library,
            intervals.ratio(samples, library) if all(library) else None,
        )

    @property
    def spread(self) -> float:
        """Interquartile range of the samples over their median: how unquiet the machine was."""
        if len(self.samples) < 3 or not self.median.value:
            return 0.0
        low, _, high = statistics.quantiles(self.samples, n=4, method="inclusive")
        return (high - low) / abs(self.median.value)


@dataclass(frozen=True, slots=True)
class SubjectResult:
    """What was measured of one model. `random` weights say nothing of quality."""

    label: str
    name: str
    variant: str
    quantisation: str
    backend: str
    sha256: str
    file_bytes: int
    random: bool
    context_tokens: int
    threads: int
    weights_read_bytes: int | None  # by decoding one token, without the cache; None where the format is not known
    figures: Mapping[str, Figure] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def noisy(self) -> tuple[str, ...]:
        """Names of the figures whose samples lie far apart."""
        return tuple(name for name, figure in self.figures.items() if figure.spread > NOISY_SPREAD)


@dataclass(frozen=True, slots=True)
class Report:
    """One run: what was measured, where, under which conditions, and what may have disturbed it."""

    date: str  # ISO 8601, UTC
    command: str
    sdk_version: str
    library_versions: Mapping[str, str]
    device: DeviceProfile
    conditions: Conditions
    sizes: Sizes
    pairs: int
    seconds: float
    subjects: tuple[SubjectResult, ...]
    warnings: tuple[str, ...]


def shown(value: float, unit: str) -> str:
    """A value of a figure for people, with three digits."""
    if unit == "bytes":
        return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
    if unit == "share":
        return f"{value:.0%}"
    if unit == "s":
        return f"{_digits(value)} s" if value >= 1 else f"{_digits(1000 * value)} ms"
    return f"{_digits(value)}"


def against(ratio: float, unit: str) -> str:
    """A ratio for people: of sizes the change in percent, of speeds and times how many times as much."""
    return f"{_ratio(ratio, unit)} %" if unit == "bytes" else f"{_ratio(ratio, unit)}x"


def between(ratio: Interval, unit: str) -> str:
    """The ends of a ratio's interval, as `against` says it."""
    return f"{_ratio(ratio.low, unit)} to {_ratio(ratio.high, unit)}"


def _ratio(value: float, unit: str) -> str:
    return f"{100 * (value - 1):+.1f}" if unit == "bytes" else f"{value:.2f}"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
