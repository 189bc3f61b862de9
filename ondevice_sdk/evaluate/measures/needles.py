"""Invented facts in long documents, asked by a schema after one reading: the right words from the right place."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.evaluate import metrics
from ondevice_sdk.evaluate.compare import About, Metric, Outcomes, compare
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.measures.questions import answer_f1, held, said, schema_of
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Session
from ondevice_sdk.types import Analysis, JsonValue

LENGTHS: Final = (10_000, 40_000, 100_000)  # tokens
DEPTHS: Final = 5  # from the beginning to the end, equally far apart

_LANGUAGE = "en"


@dataclass(frozen=True, slots=True)
class Fact:
    """A sentence, its question and what is right."""

    needle: str
    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NeedleMeasure:
    """All facts are put into one document as paragraphs and asked by one schema.

    So many documents as there are depths, for each length: in every next one each fact stands one depth further on.
    """

    documents: str = "long_docs"
    lengths: tuple[int, ...] = LENGTHS
    family: str = "questions"

    def rows(self, session: Session, sample: Sample) -> list[Row]:
        """Figures for each length."""
        facts = [
            Fact(record.string("needle"), record.string("question"), record.strings("answers"))
            for record in sample.records
        ]
        books = [each.string("text") for each in sample.beside[self.documents] if each.string("lang") == _LANGUAGE]
        paragraphs = [part for book in books for part in book.split("\n\n") if part.strip()]
        rate = len("\n\n".join(paragraphs)) / session.client.count_tokens("\n\n".join(paragraphs))
        schema = schema_of([fact.question for fact in facts])
        groups = [fact.question for _ in range(DEPTHS) for fact in facts]
        rows = []
        for length in self.lengths:
            texts = [hidden(facts, within(paragraphs, int(length * rate)), turn) for turn in range(DEPTHS)]
            started = time.perf_counter()
            answers = session.analyse(texts, schema)
            seconds = (time.perf_counter() - started) / DEPTHS
            pairs = list(zip(texts, answers.values, strict=True))
            note = f"{seconds:.1f} s a document; {answers.note}".removesuffix("; ")
            about = About(sample.set, self.family, answers.seconds, note=note)
            located = [float(is_right(fact, n, text, got)) for text, got in pairs for n, fact in enumerate(facts)]
            exact = [answer_f1(said(got, n), fact.answers) for _, got in pairs for n, fact in enumerate(facts)]
            name = f"{length // 1000}k tokens"
            figures = (("right and located", located), ("answer F1", exact))
            rows += [
                compare(about, Metric(f"{what}, {name}", metrics.mean), Outcomes(values, groups=groups))
                for what, values in figures
            ]
        return rows


def within(paragraphs: Sequence[str], chars: int) -> list[str]:
    """Paragraphs from the beginning on until there are so many characters; over again where they are too few."""
    chosen: list[str] = []
    size = 0
    while size < chars:
        part = paragraphs[len(chosen) % len(paragraphs)]
        chosen.append(part)
        size += len(part) + 2
    return chosen


def hidden(facts: Sequence[Fact], paragraphs: Sequence[str], turn: int) -> str:
    """The document with every fact as a paragraph at its depth of this turn."""
    parts = list(paragraphs)
    depths = [((number + turn) % DEPTHS, number) for number in range(len(facts))]
    for depth, number in sorted(depths, reverse=True):  # from the end, so that places stay right
        parts.insert(depth * len(paragraphs) // (DEPTHS - 1), facts[number].needle)
    return "\n\n".join(parts)


def is_right(fact: Fact, number: int, text: str, answer: Analysis[JsonValue] | None) -> bool:
    """Whether the answer holds a right one and its evidence lies in the fact."""
    if answer is None or not held(said(answer, number), fact.answers):
        return False
    start = text.index(fact.needle)
    proofs = [each for each in answer.evidence if each.path == f"/answer_{number}"]
    return bool(proofs) and all(
        start <= each.start <= each.end <= start + len(fact.needle) and text[each.start : each.end] == each.text
        for each in proofs
    )
