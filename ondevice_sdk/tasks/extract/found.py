"""What an extraction has found so far: values by path, where the text bears them out, and what is to be told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ondevice_sdk.backends.api import Score, Scored
from ondevice_sdk.errors import GenerationFailed
from ondevice_sdk.tasks.extract.outline import Field, Path
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.text.values import dates, numbers
from ondevice_sdk.types import Evidence, JsonValue, Span, Usage

_LOWEST = -1e4  # stands in for a log-probability that is no number


@dataclass(slots=True)
class Found:
    """Filled by the flows that read fields."""

    values: dict[Path, JsonValue] = field(default_factory=dict, repr=False)
    evidence: list[Evidence] = field(default_factory=list, repr=False)
    warnings: list[str] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)

    def keep(self, each: Field, spans: Sequence[Span]) -> None:
        """Take spans that can be read as values of a field."""
        values = [reading(each, span) for span in spans]
        kept = [(value, span) for value, span in zip(values, spans, strict=True) if value is not None]
        if not kept:
            return
        if each.many:
            self.put(each, [value for value, _ in kept])
            self.prove([((*each.path, str(at)), span) for at, (_, span) in enumerate(kept)])
        else:
            self.put(each, kept[0][0])
            self.prove([(each.path, kept[0][1])])

    def put(self, each: Field, value: JsonValue) -> None:
        """A value of a field."""
        self.values[each.path] = value

    def prove(self, places: Sequence[tuple[Path, Span]]) -> None:
        """Where the text bears out the values at some paths."""
        self.evidence += [Evidence(span.start, span.end, span.text, pointer(path)) for path, span in places]

    def doubt(self, path: Path) -> None:
        """Say that the text hardly bears a value out."""
        self.warnings.append(doubtful(path))

    def cut(self, path: Path, kept: int, there: int) -> None:
        """Say that a list lacks items of the text, if it does."""
        if kept < there:
            self.warnings.append(f"{pointer(path)}: {kept} of {there} items only")


def doubtful(path: Path) -> str:
    """The warning that a value is in doubt: it names the place, never the value."""
    return f"{pointer(path) or 'the value'}: not clearly borne out by the text"


def pointer(path: Sequence[str]) -> str:
    """A path as a JSON pointer (RFC 6901)."""
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in path)


def reading(each: Field, span: Span) -> str | int | float | None:
    """The value of a field that a span stands for; None if it is no such value, or outside the limits."""
    value: str | float | None
    if each.kind in {"number", "integer"}:
        value = next((number for _, number in numbers(span.text)), None)
    elif each.kind == "date":
        value = next((day for _, day in dates(span.text)), None)
    else:
        value = " ".join(span.text.split())
    if value is None or not each.allows(value):
        return None
    return int(value) if isinstance(value, float | int) and value == int(value) else value


def scored(requests: Sequence[Score], found: Found, *, per_token: bool = False) -> Flow[list[list[float]]]:
    """Log-probabilities for each of some requests, all of them numbers; `per_token` their means."""
    if not requests:
        return []
    results = yield Step(tuple(requests), "reading")
    rows: list[list[float]] = []
    for request, result in zip(requests, results, strict=True):
        if not isinstance(result, Scored) or len(result.logprobs) != len(request.continuations):
            raise GenerationFailed("the engine answered a scoring with something else")
        found.usage += result.usage
        row = [_LOWEST if math.isnan(each) else min(max(each, _LOWEST), 0.0) for each in result.logprobs]
        if per_token:
            row = [each / max(1, count) for each, count in zip(row, result.token_counts, strict=True)]
        rows.append(row)
    return rows
