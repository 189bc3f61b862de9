"""Every figure against values worked out by hand."""

from __future__ import annotations

import pytest

from ondevice_sdk.evaluate import metrics
from ondevice_sdk.evaluate.metrics import Counts, Labelled, Ranked, Scored


def test_accuracy_counts_no_answer_as_wrong() -> None:
    rows = [Labelled("a", "a"), Labelled("a", None), Labelled("b", "b"), Labelled("b", "a")]
    assert metrics.accuracy(rows) == 0.5


def test_macro_f1_by_hand() -> None:
    # a: 2 right, 3 given, 2 wanted: 4/5. b: 1 right, 1 given, 2 wanted: 2/3. c: never given: 0.
    rows = [*[Labelled("a", "a")] * 2, Labelled("b", "b"), Labelled("b", "a"), Labelled("c", None)]
    assert metrics.macro_f1(rows) == pytest.approx((4 / 5 + 2 / 3 + 0) / 3)


def test_macro_f1_ignores_classes_that_are_only_predicted() -> None:
    assert metrics.macro_f1([Labelled("a", "a"), Labelled("a", "z")]) == pytest.approx(2 / 3)


def test_calibration_error_by_hand() -> None:
    # bin (0.8, 0.9]: two rows of 0.9, one right: |1.8 - 1|; bin (0.5, 0.6]: 0.6, right: |0.6 - 1|.
    rows = [Labelled("a", "a", 0.9), Labelled("a", "b", 0.9), Labelled("a", "a", 0.6)]
    assert metrics.calibration_error(rows) == pytest.approx((0.8 + 0.4) / 3)


@pytest.mark.parametrize(("confidence", "predicted", "error"), [(1.0, "a", 0.0), (1.0, "b", 1.0), (0.0, "b", 0.0),
                                                                 (None, "a", 1.0)])  # fmt: skip
def test_calibration_error_at_the_ends(confidence: float | None, predicted: str, error: float) -> None:
    assert metrics.calibration_error([Labelled("a", predicted, confidence)]) == error


def test_counts_are_summed_over_rows() -> None:
    rows = [Counts(2, 3, 4, invented=1), Counts(0, 1, 0)]
    assert metrics.precision(rows) == pytest.approx(2 / 4)
    assert metrics.recall(rows) == pytest.approx(2 / 4)
    assert metrics.f1(rows) == pytest.approx(2 * 2 / 8)
    assert metrics.invented(rows) == pytest.approx(1 / 4)


def test_nothing_wanted_and_nothing_given_is_perfect() -> None:
    rows = [Counts(0, 0, 0)]
    assert (metrics.precision(rows), metrics.recall(rows), metrics.f1(rows), metrics.invented(rows)) == (1, 1, 1, 0)


def test_giving_nothing_is_no_precision_where_something_was_wanted() -> None:
    assert metrics.precision([Counts(0, 0, 2)]) == 0
    assert metrics.precision([Counts(0, 0, 2), Counts(1, 1, 1)]) == 1


def test_auroc_by_hand() -> None:
    # pairs: (0.9 > 0.1), (0.9 > 0.5), (0.5 > 0.1), (0.5 = 0.5): 3.5 of 4.
    rows = [Scored(True, 0.9), Scored(True, 0.5), Scored(False, 0.5), Scored(False, 0.1)]
    assert metrics.auroc(rows) == pytest.approx(3.5 / 4)
    assert metrics.auroc([Scored(not row.positive, row.score) for row in rows]) == pytest.approx(0.5 / 4)
    assert metrics.auroc(rows[:2]) == 0.5


def test_recall_at_precision_by_hand() -> None:
    rows = [Scored(True, 0.9), Scored(True, 0.8), Scored(False, 0.7), Scored(True, 0.6)]
    assert metrics.recall_at_precision(rows, 0.9) == pytest.approx(2 / 3)
    assert metrics.recall_at_precision(rows, 0.7) == 1.0


def test_recall_at_precision_cannot_split_equal_scores() -> None:
    assert metrics.recall_at_precision([Scored(True, 0.9), Scored(False, 0.9)]) == 0.0
    assert metrics.recall_at_precision([Scored(False, 0.9)]) == 0.0


def test_ranked_recall_by_hand() -> None:
    # 0.9: two of two right; 0.8: one of two, three of four in all; 0.5: one of one, four of five. Five are wanted.
    rows = [Ranked(((0.9, True), (0.8, False)), 2), Ranked(((0.9, True), (0.8, True), (0.5, True)), 3)]
    assert metrics.ranked_recall(rows, 0.9) == pytest.approx(2 / 5)
    assert metrics.ranked_recall(rows, 0.75) == pytest.approx(4 / 5)
    assert metrics.ranked_recall([Ranked(((0.9, True), (0.9, False)), 1)]) == 0
    assert metrics.ranked_recall([Ranked((), 0)]) == 1


def test_balanced_accuracy_by_hand() -> None:
    rows = [Scored(True, decided=True), Scored(True), Scored(False), Scored(False), Scored(False, decided=True)]
    assert metrics.balanced_accuracy(rows) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert metrics.balanced_accuracy(rows[:2]) == 0.5


def test_rouge_takes_the_best_reference_and_stems() -> None:
    assert metrics.rouge_1("the cats slept", ["nothing alike", "the cat slept"]) == 1.0
    # "the cat" against "the cat slept": precision 1, recall 2/3
    assert metrics.rouge_1("the cat", ["the cat slept"]) == pytest.approx(0.8)
    assert metrics.rouge_1("", ["the cat"]) == 0.0


def test_rouge_at_equal_length_gives_nothing_for_more_words() -> None:
    reference = ["one two three four"]
    assert metrics.rouge_1("one two nine ten", reference, 2) == 1.0
    assert metrics.rouge_1("nine ten one two", reference, 2) == 0.0
