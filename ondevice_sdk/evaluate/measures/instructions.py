"""Plain generation: instructions that can be checked by rule, and arithmetic."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ondevice_sdk.evaluate import metrics
from ondevice_sdk.evaluate.compare import About, Metric, Outcomes, compare
from ondevice_sdk.evaluate.data import Record
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.metrics import Counts
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Session

KEPT: Final = Metric("instructions kept", metrics.recall)
SOLVED: Final = Metric("exact answer", metrics.mean)

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")

Check = Callable[[str, Record], bool]


@dataclass(frozen=True, slots=True)
class InstructionMeasure:
    """Share of the instructions that `generate` keeps, of the kinds that a rule can check.

    Instructions of other kinds are left out, and rows that have no others. Generation has no naive baseline: it is one.
    """

    max_tokens: int = 400
    family: str = "instructions"

    def rows(self, session: Session, sample: Sample) -> list[Row]:
        """Figures of the set."""
        checked = [(record, orders) for record in sample.records if (orders := _orders(record))]
        if not checked:
            return []
        answers = session.generate([record.string("prompt") for record, _ in checked], self.max_tokens)
        counts = []
        for answer, (_, orders) in zip(answers.values, checked, strict=True):
            said = answer.text.strip() if answer is not None else ""
            kept = sum(bool(said) and check(said, options) for check, options in orders)
            counts.append(Counts(kept, 0, len(orders)))
        return [compare(About(sample.set, self.family, answers.seconds, note=answers.note), KEPT, Outcomes(counts))]


@dataclass(frozen=True, slots=True)
class ArithmeticMeasure:
    """Share of problems whose last number in the answer is the right one: a check of the whole chain."""

    max_tokens: int = 256
    family: str = "arithmetic"

    def rows(self, session: Session, sample: Sample) -> list[Row]:
        """Figures of the set."""
        answers = session.generate([record.string("question") for record in sample.records], self.max_tokens)
        right = [
            float(answer is not None and last_number(answer.text) == last_number(record.string("answer")))
            for answer, record in zip(answers.values, sample.records, strict=True)
        ]
        return [compare(About(sample.set, self.family, answers.seconds, note=answers.note), SOLVED, Outcomes(right))]


def last_number(text: str) -> float | None:
    """The last number in a text, None without one."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _orders(record: Record) -> list[tuple[Check, Record]]:
    kinds, options = record.strings("instruction_id_list"), record.records("kwargs")
    if len(kinds) != len(options):
        raise record.fault("there must be as many kwargs as instructions")
    return [(CHECKS[kind], each) for kind, each in zip(kinds, options, strict=True) if kind in CHECKS]


def _words(said: str, options: Record) -> bool:
    count, limit = len(re.findall(r"\w+", said)), options.number("num_words")
    return count < limit if options.string("relation") == "less than" else count >= limit


def _frequency(said: str, options: Record) -> bool:
    count = len(re.findall(re.escape(options.string("keyword")), said, re.IGNORECASE))
    limit = options.number("frequency")
    return count < limit if options.string("relation") == "less than" else count >= limit


def _holds(said: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", said, re.IGNORECASE) is not None


def _ends(said: str, options: Record) -> bool:
    return said.rstrip(' "').casefold().endswith(options.string("end_phrase").strip().rstrip('"').casefold())


CHECKS: Final[Mapping[str, Check]] = MappingProxyType(
    {
        "punctuation:no_comma": lambda said, _: "," not in said,
        "length_constraints:number_words": _words,
        "change_case:english_capital": lambda said, _: said.isupper(),
        "change_case:english_lowercase": lambda said, _: said.islower(),
        "keywords:existence": lambda said, options: all(_holds(said, word) for word in options.strings("keywords")),
        "keywords:forbidden_words": lambda said, options: (
            not any(_holds(said, word) for word in options.strings("forbidden_words"))
        ),
        "keywords:frequency": _frequency,
        "startend:end_checker": _ends,
        "startend:quotation": lambda said, _: len(said) > 1 and said[0] == said[-1] == '"',
        "detectable_format:title": lambda said, _: re.search(r"<<[^\n<>]+>>", said) is not None,
    }
)
