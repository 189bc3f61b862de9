"""Faithfulness: which summaries of a document say what it does not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.evaluate import metrics
from ondevice_sdk.evaluate.compare import About, Metric, Outcomes, compare
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.metrics import Scored
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Prompt, Session
from ondevice_sdk.text.spans import Document
from ondevice_sdk.text.split import sentences
from ondevice_sdk.text.terms import content_words

BALANCED: Final = Metric("balanced accuracy", metrics.balanced_accuracy)
AUROC: Final = Metric("unfaithful AUROC", metrics.auroc)
CAUGHT: Final = Metric("unfaithful recall at precision 0.9", metrics.recall_at_precision)

_PROMPTS = (  # the document first, so that what is read of it serves all its summaries
    Prompt("claims-ask", "{text}\n\nSummary: {summary}\n\nIs the summary true to the text above? Answer yes or no."),
    Prompt("claims-error", "{text}\n\nSummary: {summary}\n\nDoes the summary contain an error? Answer yes or no."),
    Prompt("claims-facts", "{text}\n\nIs every fact of this summary in the text? {summary}\n\nAnswer yes or no:"),
)
_YES_IS_BAD = frozenset({"claims-error"})


@dataclass(frozen=True, slots=True)
class ClaimMeasure:
    """The SDK's lexical checker against the share of words that a document knows, and against asking the model.

    A summary is held to be unfaithful when one of its sentences is not borne out.

    Args:
        most: summaries of each document that are looked at; all of one document are drawn together for the intervals.
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
        started = time.perf_counter()
        for number, record in enumerate(sample.records):
            text = record.string("text")
            document, known = Document(text), set(content_words(text))
            for entry in record.records("summaries")[: self.most]:
                summary, bad = entry.string("summary"), not entry.number("consistent")
                ours.append(_checked(summary, document, bad))
                said = content_words(summary)
                share = sum(word in known for word in said) / len(said) if said else 1.0
                overlap.append(Scored(bad, 1 - share, share < 1))
                wrong.append(bad)
                groups.append(str(number))
                fills.append({"text": text, "summary": summary})
        seconds = time.perf_counter() - started
        asked = session.ask(_PROMPTS, fills, 8)
        naive = {
            name: [_said(bad, answer, name in _YES_IS_BAD) for bad, answer in zip(wrong, given, strict=True)]
            for name, given in asked.answers.items()
        }
        about = About(
            sample.set, self.family, seconds, asked.seconds, asked.noted("the lexical checker of summaries, no model")
        )
        quiet = About(sample.set, self.family)
        trivial = ("word overlap", overlap)
        return [
            compare(about, BALANCED, Outcomes(ours, naive, trivial, groups)),
            compare(quiet, AUROC, Outcomes(ours, trivial=trivial, groups=groups)),
            compare(quiet, CAUGHT, Outcomes(ours, trivial=trivial, groups=groups)),
        ]


def _checked(summary: str, document: Document, bad: bool) -> Scored:
    supports = [document.support(span.text) for span in sentences(summary)]
    doubts = [1.0 - min(support.score, support.known) + support.contradicted for support in supports]
    return Scored(bad, max(doubts, default=2.0), not all(support.supported for support in supports))


def _said(bad: bool, answer: str, yes_is_bad: bool) -> Scored:
    """No clear answer is taken for trust, as an app that asks would do."""
    words = answer.casefold().split()
    first = next((word.strip(".,!:;\"'") for word in words if word.strip(".,!:;\"'") in ("yes", "no")), None)
    held = first is not None and (first == "yes") == yes_is_bad
    return Scored(bad, float(held), held)
