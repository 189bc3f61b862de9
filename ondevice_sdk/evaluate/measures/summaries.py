"""Summaries: nearness to what people wrote, words asked for, and what the text bears out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.evaluate import metrics
from ondevice_sdk.evaluate.compare import About, Metric, Outcomes, compare
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.metrics import Counts
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Prompt, Session
from ondevice_sdk.text.spans import Document
from ondevice_sdk.text.split import count_words, sentences
from ondevice_sdk.types import Summary

ROUGE: Final = Metric("ROUGE-1", metrics.mean)
WITHIN: Final = Metric("word-limit rate", metrics.mean)
BORNE_OUT: Final = Metric("supported claims", metrics.precision)
OWN_WORDS: Final = Metric("points in own words", metrics.precision)

_TOKENS_PER_WORD = 2
_PROMPTS = (
    Prompt("summary-after", "{text}\n\nSummarise the text above in at most {words} words.{query}"),
    Prompt("summary-first", "Summarise this text in at most {words} words.{query}\n\nText: {text}\n\nSummary:"),
    Prompt("summary-tldr", "{text}\n\nTL;DR ({words} words):{query}"),
)


@dataclass(frozen=True, slots=True)
class SummaryMeasure:
    """ROUGE-1 at equal length, the rate of summaries within the limit, and supported statements.

    "supported claims" is the share of statements that the SDK's own lexical checker finds in the text: it is what the
    SDK works by, so it compares others with it and proves nothing about meaning.

    Args:
        words: the limit that is asked for, and to which everything is cut before it is compared.
        query: the field of what the reader wants to know.
    """

    words: int = 60
    text: str = "text"
    references: str = "references"
    query: str | None = None
    group: str | None = None
    family: str = "summarise"

    def rows(self, session: Session, sample: Sample) -> list[Row]:
        """Figures of the set."""
        records = sample.records
        texts = [record.string(self.text) for record in records]
        references = [record.strings(self.references) for record in records]
        queries = [record.optional(self.query) if self.query else None for record in records]
        answers = session.summarise(texts, words=self.words, contexts=queries)
        fills = [
            {"text": text, "words": str(self.words), "query": f" {query}" if query else ""}
            for text, query in zip(texts, queries, strict=True)
        ]
        asked = session.ask(_PROMPTS, fills, _TOKENS_PER_WORD * self.words + 16)
        ours = [answer.text if answer is not None else "" for answer in answers.values]
        lead = [metrics.first_words(text, self.words) for text in texts]
        groups = [record.string(self.group) for record in records] if self.group else []

        def rouge(system: Sequence[str]) -> list[float]:
            return [metrics.rouge_1(said, right, self.words) for said, right in zip(system, references, strict=True)]

        def within(system: Sequence[str]) -> list[float]:
            return [float(bool(said.strip()) and count_words(said) <= self.words) for said in system]

        documents = [Document(text) for text in texts]

        def borne_out(system: Sequence[str]) -> list[Counts]:
            return [_supported(said, document) for said, document in zip(system, documents, strict=True)]

        about = About(sample.set, self.family, answers.seconds, asked.seconds, asked.noted(answers.note))
        quiet = About(sample.set, self.family)
        return [
            compare(
                about,
                ROUGE,
                Outcomes(rouge(ours), {n: rouge(s) for n, s in asked.answers.items()}, ("lead", rouge(lead)), groups),
            ),
            compare(
                quiet, WITHIN, Outcomes(within(ours), {n: within(s) for n, s in asked.answers.items()}, None, groups)
            ),
            compare(
                quiet,
                BORNE_OUT,
                Outcomes(borne_out(ours), {n: borne_out(s) for n, s in asked.answers.items()}, None, groups),
            ),
            compare(quiet, OWN_WORDS, Outcomes([_own(answer) for answer in answers.values], groups=groups)),
        ]


def _supported(text: str, document: Document) -> Counts:
    said = [span.text for span in sentences(text)]
    supported = sum(document.support(statement).supported for statement in said)
    return Counts(supported, len(said), max(1, len(said)))  # an empty summary is no faithful one


def _own(summary: Summary | None) -> Counts:
    points = summary.points if summary is not None else ()
    return Counts(sum(point.status != "extractive" for point in points), len(points), max(1, len(points)))
