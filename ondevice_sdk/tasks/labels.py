"""Closed labels: scored, calibrated, never written.

A raw layout ("Review: ..." and on the next line "Sentiment:"), and the log-probability of each label after it, less
that of the same label after a text without content (contextual calibration, Zhao et al. 2021; the difference is the
point-wise mutual information of Holtzman et al. 2021, so that long and frequent labels have no advantage).
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ondevice_sdk.backends.api import Raw, Score, Scored
from ondevice_sdk.errors import GenerationFailed
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.tasks.reading import Room, count_tokens, split_to_fit
from ondevice_sdk.types import Analysis, Segment, Usage

_CONTENT_FREE = "[MASK]"  # better than "N/A" and an empty text on 120 development rows
_SENTIMENT_WORDS = frozenset({"positive", "negative", "neutral", "mixed"})
_POLES, _NEUTRAL = ("positive", "negative"), "neutral"
_NEUTRAL_OWN = 0.5  # of its own score; see _between_poles
_NEUTRAL_MARGIN = 0.1
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")

LOW_CONFIDENCE = "low confidence"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a text and its label stand on the page, after the examples."""

    text_name: str
    label_name: str
    examples: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def prompt(self, text: str) -> Raw:
        """Everything up to the label. All of it is data: nothing becomes a special token."""
        shown = "".join(self.example(*example) for example in self.examples)
        return Raw((Segment(f"{shown}{self.text_name}: "), Segment(text), Segment(f"\n{self.label_name}:")))

    def example(self, text: str, word: str) -> str:
        """A solved one."""
        return f"{self.text_name}: {text.strip()}\n{self.label_name}: {word}\n\n"


def score_labels(
    text: str,
    form: Any,
    labels: Mapping[str, Any],
    *,
    context_tokens: int,
    examples: Sequence[tuple[str, str]],
    abstain_below: float | None,
) -> Flow[Analysis[Any]]:
    """Decide between labels. A long text is scored in parts in one step, and their log-odds averaged by length.

    Below `abstain_below` the label stays and the warning "low confidence" is added.
    """
    words = {label: word_of(form, label, value) for label, value in labels.items()}
    warnings: list[str] = []
    layout = layout_for(form, labels)
    kept = yield from _fitting(layout, [(shown, words[label]) for shown, label in examples], context_tokens)
    if len(kept) < len(examples):
        warnings.append(f"{len(examples) - len(kept)} of {len(examples)} examples did not fit into the context")
    layout = Layout(layout.text_name, layout.label_name, tuple(kept))
    continuations = tuple(f" {word}" for word in words.values())
    room = Room(layout.prompt(""), max(len(continuation.encode()) for continuation in continuations))
    chunks = [chunk for chunk in (yield from split_to_fit(text, [room], context_tokens)) if chunk.text]
    prompts = [layout.prompt(_CONTENT_FREE), *(layout.prompt(chunk.text) for chunk in chunks)]
    results = yield Step(tuple(Score(prompt, continuations) for prompt in prompts), "scoring")
    usage = Usage()
    rows: list[list[float]] = []
    for result in results:
        if not isinstance(result, Scored) or len(result.logprobs) != len(continuations):
            raise GenerationFailed("the engine answered a scoring with something else")
        usage += result.usage
        rows.append([_finite(logprob) for logprob in result.logprobs])
    odds = _combine(rows[0], rows[1:], [chunk.tokens for chunk in chunks])
    if {*_POLES, _NEUTRAL} <= set(labels) <= _SENTIMENT_WORDS:
        odds = _between_poles(odds, list(labels))
    probabilities = dict(zip(labels, softmax(odds), strict=True))
    best = max(probabilities, key=probabilities.__getitem__)
    confidence = probabilities[best]
    if abstain_below is not None and confidence < abstain_below:
        warnings.append(LOW_CONFIDENCE)
    return Analysis(labels[best], confidence, probabilities, (), tuple(warnings), usage)


def layout_for(form: Any, labels: Mapping[str, Any]) -> Layout:
    """The page that fits the labels: a review for feelings, else a text and the name of the enumeration."""
    if set(labels) <= _SENTIMENT_WORDS:
        return Layout("Review", "Sentiment")
    if isinstance(form, type):
        name = _CAMEL.sub(" ", form.__name__).replace("_", " ").strip().capitalize()
        return Layout("Text", {"Languages": "Language"}.get(name, name))
    return Layout("Text", "Category")


def word_of(form: Any, label: str, value: Any) -> str:
    """The label as the model reads it: language tags and identifiers as words."""
    if isinstance(form, type) and form.__name__ == "Languages" and isinstance(value, enum.Enum):
        return value.name.title()
    word = label.replace("_", " ").strip()
    named = isinstance(value, enum.Enum) and not isinstance(value.value, str)
    return word.lower() if named else word


def softmax(odds: Sequence[float]) -> list[float]:
    """Log-odds as probabilities that sum to 1."""
    highest = max(odds)
    weights = [math.exp(value - highest) for value in odds]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _combine(prior: Sequence[float], rows: Sequence[Sequence[float]], tokens: Sequence[int]) -> list[float]:
    total = sum(tokens)
    return [
        math.fsum(weight * row[index] for weight, row in zip(tokens, rows, strict=True)) / total - prior[index]
        for index in range(len(prior))
    ]


def _between_poles(odds: Sequence[float], labels: Sequence[str]) -> list[float]:
    """Hold "neutral" near the middle of the two feelings.

    Small models have no idea of it: its own score told the neutral rows of two development sets from the others hardly
    better than chance, the distance between the poles did so a little.
    """
    adjusted = list(odds)
    at = labels.index(_NEUTRAL)
    middle = sum(odds[labels.index(pole)] for pole in _POLES) / 2
    adjusted[at] = middle + _NEUTRAL_OWN * (odds[at] - middle) + _NEUTRAL_MARGIN
    return adjusted


def _finite(logprob: float) -> float:
    return -1e4 if math.isnan(logprob) else min(max(logprob, -1e4), 0.0)


def _fitting(layout: Layout, examples: list[tuple[str, str]], context_tokens: int) -> Flow[list[tuple[str, str]]]:
    """The first examples that take half of the context at most."""
    if not examples:
        return []
    counts, _ = yield from count_tokens([layout.example(*example) for example in examples])
    kept: list[tuple[str, str]] = []
    filled = 0
    for example, count in zip(examples, counts, strict=True):
        filled += count
        if filled > context_tokens // 2:
            break
        kept.append(example)
    return kept
