"""Summaries: nearness to what people wrote, words asked for, and what the text bears out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from ondevice_sdk.types import PointStatus, Summary

ROUGE: Final = Metric("ROUGE-1", metrics.mean)
WITHIN: Final = Metric("word-limit rate", metrics.mean)
BORNE_OUT: Final = Metric("supported claims", metrics.precision)
REFUTED: Final = Metric("refuted claims", metrics.precision, "lower")
STATUSES: Final[Mapping[PointStatus, Metric[Counts]]] = {
    "supported": Metric("points supported", metrics.precision),
    "repaired": Metric("points repaired", metrics.precision),
    "extractive": Metric("points extractive", metrics.precision, "lower"),
}
COPIED: Final = Metric("points word for word", metrics.precision, "lower")

_TOKENS_PER_WORD = 2
_LEADS = (1, 2, 3, 5, 8)  # sentences of the lead baselines; beside them the first words of the text
_PROMPTS = (
    Prompt("summary-after", "{text}\n\nSummarise the text above in at most {words} words.{query}"),
    Prompt("summary-first", "Summarise this text in at most {words} words.{query}\n\nText: {text}\n\nSummary:"),
    Prompt("summary-tldr", "{text}\n\nTL;DR ({words} words):{query}"),
)


@dataclass(frozen=True, slots=True)
class SummaryMeasure:
    """ROUGE-1 at equal length, the rate of summaries within the limit, supported and refuted statements.

    "supported claims" is the share of sentences that the SDK's own lexical checker finds in the text, "refuted claims"
    of those that it finds a fault in: it is what the SDK works by, so it compares others with it and proves nothing
    about meaning. Then how the points of our summaries came about, and how many are sentences of the text as they
    stand. The trivial rule is the best of the first sentences, or words, of the text on these very rows.

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
        groups = [record.string(self.group) for record in records] if self.group else []

        def rouge(system: Sequence[str]) -> list[float]:
            return [metrics.rouge_1(said, right, self.words) for said, right in zip(system, references, strict=True)]

        def within(system: Sequence[str]) -> list[float]:
            return [float(bool(said.strip()) and count_words(said) <= self.words) for said in system]

        documents = [Document(text) for text in texts]
        name, lead = _best_lead(texts, rouge)

        def verdicts(system: Sequence[str]) -> list[_Verdict]:
            return [_judge(said, document) for said, document in zip(system, documents, strict=True)]

        judged = verdicts(ours)
        naive = {prompt: verdicts(system) for prompt, system in asked.answers.items()}
        about = About(sample.set, self.family, answers.seconds, asked.seconds, asked.noted(answers.note))
        quiet = About(sample.set, self.family)
        asked_rouge = {prompt: rouge(system) for prompt, system in asked.answers.items()}
        asked_within = {prompt: within(system) for prompt, system in asked.answers.items()}
        supported = {prompt: [each.supported for each in of] for prompt, of in naive.items()}
        refuted = {prompt: [each.refuted for each in of] for prompt, of in naive.items()}
        return [
            compare(about, ROUGE, Outcomes(rouge(ours), asked_rouge, (name, lead), groups)),
            compare(quiet, WITHIN, Outcomes(within(ours), asked_within, None, groups)),
            compare(quiet, BORNE_OUT, Outcomes([each.supported for each in judged], supported, None, groups)),
            compare(quiet, REFUTED, Outcomes([each.refuted for each in judged], refuted, None, groups)),
            *(
                compare(quiet, metric, Outcomes([_share(answer, status) for answer in answers.values], groups=groups))
                for status, metric in STATUSES.items()
            ),
            compare(quiet, COPIED, Outcomes([_copied(answer) for answer in answers.values], groups=groups)),
        ]


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What the checker says of the sentences of a summary."""

    supported: Counts
    refuted: Counts


def _judge(text: str, document: Document) -> _Verdict:
    found = [document.support(span.text) for span in sentences(text)]
    if not found:  # no summary is no faithful one: it counts as one wrong statement
        return _Verdict(Counts(0, 1, 1), Counts(1, 1, 1))
    return _Verdict(
        Counts(sum(each.supported for each in found), len(found), len(found)),
        Counts(sum(not each.faithful for each in found), len(found), len(found)),
    )


def _best_lead(texts: Sequence[str], rouge: Callable[[Sequence[str]], list[float]]) -> tuple[str, list[float]]:
    """The beginning of every text, by the number of sentences that does best; ROUGE cuts it to the limit of words."""
    leads = {"lead words": rouge(texts)}
    for count in _LEADS:
        beginnings = [" ".join(span.text for span in sentences(text)[:count]) for text in texts]
        leads[f"lead-{count}"] = rouge(beginnings)
    best = max(leads, key=lambda name: metrics.mean(leads[name]))
    return best, leads[best]


def _share(summary: Summary | None, status: PointStatus) -> Counts:
    points = summary.points if summary is not None else ()
    return Counts(sum(point.status == status for point in points), len(points), max(1, len(points)))


def _copied(summary: Summary | None) -> Counts:
    points = summary.points if summary is not None else ()
    copied = sum(any(_plain(point.text) in _plain(span.text) for span in point.sources) for point in points)
    return Counts(copied, len(points), max(1, len(points)))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(".")
