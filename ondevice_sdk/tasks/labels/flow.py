"""Closed labels: scored, calibrated, never written.

The log-probability of each label below the text, less that of the same label below texts without content (contextual
calibration, Zhao et al. 2021; the difference is the point-wise mutual information of Holtzman et al. 2021), so that
long and frequent labels have no advantage.

Examples are not shown to the model: they are scored as the text is, and a correction is fitted under which their labels
are likeliest: on the page, where they cost tokens in every call, they moved the border between labels at random.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, Final

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.tasks.labels.learned import Lean, Learned, key_of
from ondevice_sdk.tasks.labels.odds import fit, softmax
from ondevice_sdk.tasks.labels.pages import Page, Scores, is_feeling, page_for
from ondevice_sdk.tasks.reading import CHUNK_TOKENS, Room, count_tokens, readable, room_for_text, split_to_fit
from ondevice_sdk.types import Analysis, Usage

LOW_CONFIDENCE: Final = "low confidence"

_CONTENT_FREE: Final = ("[MASK]",)  # better than "N/A" beside it, or eleven others, on 180 sentences
# Of the fit, over ten draws of 16 examples from 290 sentences: 0.752 with 8 for the bias, at worst 0.743, against 0.738
# without examples on the same rows. Stiffer fits gained less.
_STIFF_BIAS: Final = 8.0
_STIFF_SCALE: Final = 4.0
_POLES, _NEUTRAL = ("positive", "negative"), "neutral"
_NEUTRAL_OWN = 0.5  # of its own score; see _between_poles
_NEUTRAL_MARGIN = 0.1  # more than the middle, chosen by eye


def score_labels(
    text: str,
    form: Any,
    labels: Mapping[str, Any],
    *,
    context_tokens: int,
    examples: Sequence[tuple[str, str]],
    abstain_below: float | None,
    learned: Learned | None = None,
) -> Flow[Analysis[Any]]:
    """Decide between labels. A long text is scored in parts in one step, and their log-odds averaged by length.

    Below `abstain_below` the label stays and the warning "low confidence" is added. `learned` keeps what is the same
    for all texts: with it, a text costs as many requests as it has parts.
    """
    page = page_for(form, labels)
    names = list(labels)
    rooms = [Room(page.prompt("", line), line.longest) for line in page.lines]
    chunks = [chunk for chunk in (yield from split_to_fit(text, rooms, context_tokens)) if chunk.text]
    key = key_of(page.name, [(line.beginning, line.words) for line in page.lines], list(examples), context_tokens)
    lean = learned.get(key) if learned is not None else None
    fitting = [] if lean is not None else (yield from _fitting(examples, rooms, context_tokens))
    common = [] if lean is not None else [*_CONTENT_FREE, *(shown for shown, _ in fitting)]
    results = yield Step(tuple(page.requests([*common, *(chunk.text for chunk in chunks)])), "scoring")
    rows, usage = page.read(results)
    if lean is None:
        right = [names.index(label) for _, label in fitting]
        lean = _lean(page, names, rows[: len(common)], right, len(examples) - len(fitting))
        if learned is not None:
            learned.keep(key, lean)
    parts = [_odds(page, names, row, lean.without) for row in rows[len(common) :]]
    odds = _average(parts, [chunk.tokens for chunk in chunks])
    probabilities = dict(zip(labels, softmax(odds if lean.fit is None else lean.fit(odds)), strict=True))
    warnings = []
    if lean.left_out:
        warnings.append(f"{lean.left_out} of {len(examples)} examples did not fit into the context")
    return decided(labels, probabilities, warnings, usage, abstain_below)


def decided(
    labels: Mapping[str, Any],
    probabilities: Mapping[str, float],
    warnings: Sequence[str],
    usage: Usage,
    abstain_below: float | None,
) -> Analysis[Any]:
    """The likeliest label; one that is less likely than `abstain_below` stays, with a warning."""
    best = max(probabilities, key=probabilities.__getitem__)
    doubts = () if abstain_below is None or probabilities[best] >= abstain_below else (LOW_CONFIDENCE,)
    return Analysis(labels[best], probabilities[best], probabilities, (), (*warnings, *doubts), usage)


def check_threshold(abstain_below: object) -> None:
    """Refuse what is no probability.

    Raises:
        ConfigurationError.
    """
    if abstain_below is None:
        return
    if isinstance(abstain_below, bool) or not isinstance(abstain_below, int | float) or not 0 <= abstain_below <= 1:
        raise ConfigurationError("abstain_below must be a probability, from 0 to 1")


def _lean(page: Page, names: Sequence[str], rows: Sequence[Scores], right: Sequence[int], left_out: int) -> Lean:
    """What texts without content say, and what the examples after them teach."""
    free, solved = rows[: len(_CONTENT_FREE)], rows[len(_CONTENT_FREE) :]
    without = tuple(fmean(word) for word in zip(*free, strict=True))
    if not solved:
        return Lean(without, None, left_out)
    odds = [_odds(page, names, row, without) for row in solved]
    return Lean(without, fit(odds, right, stiff_bias=_STIFF_BIAS, stiff_scale=_STIFF_SCALE), left_out)


def _odds(page: Page, names: Sequence[str], scores: Scores, without: Scores) -> list[float]:
    odds = page.odds(scores, without)
    return _between_poles(odds, names) if is_feeling(dict.fromkeys(names)) else odds


def _between_poles(odds: Sequence[float], names: Sequence[str]) -> list[float]:
    """Hold "neutral" near the middle of the two feelings.

    Small models have no idea of it: its own score told the neutral rows of two development sets from the others hardly
    better than chance, the distance between the poles did so a little.
    """
    folded = [name.casefold() for name in names]
    adjusted = list(odds)
    if _NEUTRAL in folded:
        at = folded.index(_NEUTRAL)
        middle = fmean([odds[folded.index(pole)] for pole in _POLES])
        adjusted[at] = middle + _NEUTRAL_OWN * (odds[at] - middle) + _NEUTRAL_MARGIN
    return adjusted


def _average(rows: Sequence[Sequence[float]], tokens: Sequence[int]) -> list[float]:
    total = sum(tokens)
    return [math.fsum(map(operator.mul, tokens, column)) / total for column in zip(*rows, strict=True)]


def _fitting(
    examples: Sequence[tuple[str, str]], rooms: Sequence[Room], context_tokens: int
) -> Flow[list[tuple[str, str]]]:
    """The examples that can be read in one piece."""
    if not examples:
        return []
    texts = [readable(shown) for shown, _ in examples]
    counts, frames = yield from count_tokens(texts, [room.frame for room in rooms])
    most = min(CHUNK_TOKENS, room_for_text(rooms, frames, context_tokens))
    return [(shown, label) for shown, count, (_, label) in zip(texts, counts, examples, strict=True) if count <= most]
