"""Figures of quality as pure functions of outcomes, one outcome a row."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

BINS: Final = 10  # of the calibration error, equally wide


@dataclass(frozen=True, slots=True)
class Labelled:
    """A row with one right label. `predicted` is None where the answer was none of the labels."""

    gold: str
    predicted: str | None
    confidence: float | None = None

    @property
    def right(self) -> bool:
        """Whether the label is the right one."""
        return self.predicted == self.gold


@dataclass(frozen=True, slots=True)
class Counts:
    """A row with several right answers: how many were found, given, and there to be found."""

    right: int
    given: int
    wanted: int
    invented: int = 0  # given, but not in the text at all


@dataclass(frozen=True, slots=True)
class Scored:
    """A row that is of the class looked for or not, and how strongly it is held to be (higher: more likely)."""

    positive: bool
    score: float = field(default=0.0)
    decided: bool = False  # what the system says without a threshold of ours


@dataclass(frozen=True, slots=True)
class Ranked:
    """A row with several right answers: how sure the system is of each answer it gives, and whether it is right."""

    found: tuple[tuple[float, bool], ...]
    wanted: int


def accuracy(rows: Sequence[Labelled]) -> float:
    """Share of right labels; no answer is a wrong one."""
    return sum(row.right for row in rows) / len(rows)


def macro_f1(rows: Sequence[Labelled]) -> float:
    """Mean F1 over the labels that occur in the gold standard of these rows."""
    right: defaultdict[str, int] = defaultdict(int)
    given: defaultdict[str, int] = defaultdict(int)
    wanted: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        wanted[row.gold] += 1
        right[row.gold] += row.right
        if row.predicted is not None:
            given[row.predicted] += 1
    return sum(2 * right[label] / (given[label] + wanted[label]) for label in wanted) / len(wanted)


def calibration_error(rows: Sequence[Labelled]) -> float:
    """Expected calibration error in ten bins of equal width (Naeini et al. 2015): 0 is best.

    A row without a confidence counts as one of 0. A confidence on a border belongs to the lower bin.
    """
    bins: defaultdict[int, list[tuple[float, bool]]] = defaultdict(list)
    for row in rows:
        confidence = row.confidence or 0.0
        bins[max(0, math.ceil(confidence * BINS) - 1)].append((confidence, row.right))
    gaps = (abs(sum(confidence - right for confidence, right in held)) for held in bins.values())
    return sum(gaps) / len(rows)


def precision(rows: Sequence[Counts]) -> float:
    """Right of given, over all rows. Where nothing was given: 1 if nothing was wanted either, else 0."""
    given = sum(row.given for row in rows)
    if not given:
        return float(not any(row.wanted for row in rows))
    return sum(row.right for row in rows) / given


def recall(rows: Sequence[Counts]) -> float:
    """Found of wanted, over all rows; 1 where nothing was wanted."""
    wanted = sum(row.wanted for row in rows)
    return sum(row.right for row in rows) / wanted if wanted else 1.0


def f1(rows: Sequence[Counts]) -> float:
    """Micro F1; 1 where nothing was wanted and nothing given."""
    total = sum(row.given + row.wanted for row in rows)
    return 2 * sum(row.right for row in rows) / total if total else 1.0


def invented(rows: Sequence[Counts]) -> float:
    """Share of what was given that the text does not hold."""
    given = sum(row.given for row in rows)
    return sum(row.invented for row in rows) / given if given else 0.0


def mean(rows: Sequence[float]) -> float:
    """The plain mean; for yes and no the share of yes."""
    return sum(rows) / len(rows)


def auroc(rows: Sequence[Scored]) -> float:
    """Chance that a positive row has a higher score than a negative one; equal scores count half. 0.5 without both."""
    ordered = sorted(rows, key=lambda row: row.score)
    positives = sum(row.positive for row in rows)
    negatives = len(rows) - positives
    if not positives or not negatives:
        return 0.5
    won, below, at = 0.0, 0, 0
    while at < len(ordered):
        end = at
        while end < len(ordered) and ordered[end].score == ordered[at].score:
            end += 1
        tied = sum(row.positive for row in ordered[at:end])
        others = end - at - tied
        won += tied * (below + others / 2)
        below += others
        at = end
    return won / (positives * negatives)


def recall_at_precision(rows: Sequence[Scored], least: float = 0.9) -> float:
    """The largest share of positives above any threshold at which `least` of what is above it are positive."""
    ordered = sorted(rows, key=lambda row: -row.score)
    positives = sum(row.positive for row in rows)
    best = right = 0
    for index, row in enumerate(ordered):
        right += row.positive
        border = index + 1 == len(ordered) or ordered[index + 1].score < row.score
        if border and right >= least * (index + 1):
            best = right
    return best / positives if positives else 0.0


def ranked_recall(rows: Sequence[Ranked], least: float = 0.9) -> float:
    """The largest share of all that is wanted above any confidence at which `least` of what is above it is right."""
    found = Counter(pair for row in rows for pair in row.found)
    wanted = sum(row.wanted for row in rows)
    best = right = given = 0
    for confidence in sorted({confidence for confidence, _ in found}, reverse=True):
        right += found[confidence, True]
        given += found[confidence, True] + found[confidence, False]
        if right >= least * given:
            best = right
    return best / wanted if wanted else 1.0


def balanced_accuracy(rows: Sequence[Scored]) -> float:
    """Mean of the shares of positives and negatives decided rightly; one kind alone counts alone."""
    shares = []
    for kind in (True, False):
        held = [row.decided == kind for row in rows if row.positive == kind]
        if held:
            shares.append(sum(held) / len(held))
    return sum(shares) / len(shares)


def first_words(text: str, most: int) -> str:
    """The beginning of a text: words are what stands between white space."""
    return " ".join(text.split()[:most])


def rouge_1(text: str, references: Sequence[str], most: int | None = None) -> float:
    """ROUGE-1 F against the best of the references, stemmed, by the rouge-score package.

    Its tokeniser knows Latin letters and digits only. With `most`, text and references are cut to so many words, so
    that no system wins by its length.
    """
    if most is not None:
        text, references = first_words(text, most), [first_words(reference, most) for reference in references]
    scorer = _scorer()
    return max(float(scorer.score(reference, text)["rouge1"].fmeasure) for reference in references)


@lru_cache(maxsize=1)
def _scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1"], use_stemmer=True)
