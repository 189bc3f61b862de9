"""Faithfulness: which summaries of a document say what it does not."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.evaluate import metrics
from ondevice_sdk.evaluate.compare import About, Metric, Outcomes, compare
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.metrics import Scored
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Prompt, Session
from ondevice_sdk.text.claims import DOUBTFUL_FROM
from ondevice_sdk.text.spans import Document
from ondevice_sdk.text.split import sentences
from ondevice_sdk.text.terms import content_words

BALANCED: Final = Metric("balanced accuracy", metrics.balanced_accuracy)
AUROC: Final = Metric("unfaithful AUROC", metrics.auroc)
OVER_WORDS: Final = Metric("balanced accuracy over words", metrics.balanced_accuracy)
CAUGHT: Final = Metric("unfaithful recall at precision 0.9", metrics.recall_at_precision)

_PROMPTS = (  # the document first, so that what is read of it serves all its summaries
    Prompt("claims-ask", "{text}\n\nSummary: {summary}\n\nIs the summary true to the text above? Answer yes or no."),
    Prompt("claims-error", "{text}\n\nSummary: {summary}\n\nDoes the summary contain an error? Answer yes or no."),
    Prompt("claims-facts", "{text}\n\nIs every fact of this summary in the text? {summary}\n\nAnswer yes or no:"),
)
_YES_IS_BAD = frozenset({"claims-error"})
_OVERLAP = "word overlap"


@dataclass(frozen=True, slots=True)
class ClaimMeasure:
    """The SDK's checker of claims against the share of words that a document knows, and against asking the model.

    A summary is held to be unfaithful when enough speaks against it. The row "over words" has the overlap where a naive
    prompt would stand, so that the difference is paired. Of unfaithful summaries with one kind of edit there is a row
    each: the share of them that is caught; of the faithful ones, the share that passes.

    Args:
        most: summaries of each document that are looked at, unless all rows of the set are; all of one document are
            drawn together for the intervals.
    """

    most: int = 6
    family: str = "faithfulness"

    def rows(self, session: Session, sample: Sample) -> list[Row]:
        """Figures of the set."""
        ours: list[Scored] = []
        overlap: list[Scored] = []
        groups: list[str] = []
        fills: list[dict[str, str]] = []
        wrong: list[bool] = []
        edits: list[tuple[str, ...]] = []
        most = None if len(sample.records) == len(sample.whole) > 1 else self.most
        started = time.perf_counter()
        for number, record in enumerate(sample.records):
            text = record.string("text")
            document, known = Document(text), set(content_words(text))
            for entry in record.records("summaries")[:most]:
                summary, bad = entry.string("summary"), not entry.number("consistent")
                ours.append(_checked(summary, document, bad))
                said = content_words(summary)
                share = sum(word in known for word in said) / len(said) if said else 1.0
                overlap.append(Scored(bad, 1 - share, share < 1))
                wrong.append(bad)
                edits.append(entry.strings("edit_types") if entry.values.get("edit_types") else ())
                groups.append(str(number))
                fills.append({"text": text, "summary": summary})
        seconds = time.perf_counter() - started
        asked = session.ask(_PROMPTS, fills, 8)
        naive = {
            name: [_said(bad, answer, name in _YES_IS_BAD) for bad, answer in zip(wrong, given, strict=True)]
            for name, given in asked.answers.items()
        }
        about = About(
            sample.set, self.family, seconds, asked.seconds, asked.noted("the checker of summaries, no model")
        )
        quiet = About(sample.set, self.family)
        words = {_OVERLAP: overlap}
        return [
            compare(about, BALANCED, Outcomes(ours, naive, (_OVERLAP, overlap), groups)),
            compare(quiet, OVER_WORDS, Outcomes(ours, words, groups=groups)),
            compare(quiet, AUROC, Outcomes(ours, words, groups=groups)),
            compare(quiet, CAUGHT, Outcomes(ours, words, groups=groups)),
            *_by_edit(quiet, ours, overlap, groups, edits),
        ]


def _by_edit(
    about: About,
    ours: Sequence[Scored],
    overlap: Sequence[Scored],
    groups: Sequence[str],
    edits: Sequence[tuple[str, ...]],
) -> list[Row]:
    """Of the summaries with each kind of edit the share that is held to be what it is."""
    held: defaultdict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(ours):
        for name in [f"caught: {edit}" for edit in edits[index]] if row.positive else ["faithful passed"]:
            held[name].append(index)

    def right(rows: Sequence[Scored], chosen: list[int]) -> list[float]:
        return [float(rows[index].decided == rows[index].positive) for index in chosen]

    return [
        compare(
            about,
            Metric(name, metrics.mean),
            Outcomes(
                right(ours, chosen), {_OVERLAP: right(overlap, chosen)}, groups=[groups[index] for index in chosen]
            ),
        )
        for name, chosen in sorted(held.items())
    ]


def _checked(summary: str, document: Document, bad: bool) -> Scored:
    doubts = [document.support(span.text).doubt for span in sentences(summary)]
    doubt = 1.0 - math.prod(1.0 - each for each in doubts)
    return Scored(bad, doubt, doubt >= DOUBTFUL_FROM)


def _said(bad: bool, answer: str, yes_is_bad: bool) -> Scored:
    """No clear answer is taken for trust, as an app that asks would do."""
    words = answer.casefold().split()
    first = next((word.strip(".,!:;\"'") for word in words if word.strip(".,!:;\"'") in ("yes", "no")), None)
    held = first is not None and (first == "yes") == yes_is_bad
    return Scored(bad, float(held), held)
