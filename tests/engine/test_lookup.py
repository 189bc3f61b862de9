from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice_sdk.backends.api import Batch
from ondevice_sdk.engine.lookup import MOST_DRAFTED, Drafter, Lookup, PassCosts

TOKENS = st.lists(st.integers(0, 4), max_size=60)
Curve = Callable[[int], float]


def cheap(rows: int) -> float:
    return 1 + 0.1 * (rows - 1)


def steep(rows: int) -> float:
    return 1 + 0.5 * (rows - 1)


def dear(rows: int) -> float:
    return float(rows)


def batch(rows: int, sequences: int = 1) -> Batch:
    made = Batch()
    for row in range(rows):
        made.add(row % sequences, row, 0, True)
    return made


def known(curve: Curve) -> PassCosts:
    costs = PassCosts()
    for _ in range(40):
        for rows in (1, 2, 4, 8, 12):
            costs.observe(batch(rows), curve(rows))
    return costs


def differing(one: list[int], other: list[int]) -> int:
    return sum(a != b for a, b in zip(one, other, strict=True))


@given(TOKENS, TOKENS)
def test_a_match_is_a_match_and_drafts_what_followed(start: list[int], rest: list[int]) -> None:
    lookup, text = Lookup(start), list(start)
    for token in rest:
        guess = lookup.draft(1)
        assert lookup.append(token) == (guess == [token])
        text.append(token)
        assert len(lookup) == len(text)
        draft = lookup.draft(5)
        assert len(draft) == (5 if lookup.match else 0)
        if size := lookup.match:
            ends = [end for end in range(size, len(text)) if differing(text[end - size : end], text[-size:]) <= 1]
            assert any((text + draft)[end : end + 5] == draft for end in ends)


@given(TOKENS, TOKENS)
def test_what_occurred_before_is_found(start: list[int], rest: list[int]) -> None:
    lookup, text = Lookup(start), list(start)
    for token in rest:
        lookup.append(token)
        text.append(token)
        pairs = list(pairwise(text))
        if pairs and pairs[-1] in pairs[:-1]:
            assert lookup.match >= 2
    built = Lookup(text)
    pairs = list(pairwise(text))
    assert (built.match >= 2) == (bool(pairs) and pairs[-1] in pairs[:-1])


def test_three_tokens_count_more_than_two_and_late_more_than_early() -> None:
    assert Lookup([1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3]).draft(1) == [7]
    assert Lookup([1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3]).draft(1) == [8]


def test_a_repetition_goes_on() -> None:
    assert Lookup([5, 6, 7, 6, 7, 6, 7]).draft(5) == [6, 7, 6, 7, 6]


def test_a_copy_goes_on_behind_a_replaced_token() -> None:
    lookup = Lookup([*range(20), 50, *range(10)])
    lookup.append(99)
    assert lookup.draft(3) == [11, 12, 13]


@pytest.mark.parametrize("curve", [cheap, steep, dear])
def test_costs_are_learnt(curve: Curve) -> None:
    costs = known(curve)
    for rows, more in ((1, 1), (1, 3), (1, 7), (1, 11), (4, 4)):
        assert costs.added(rows, more) == pytest.approx(curve(rows + more) / curve(rows) - 1, rel=0.2, abs=0.1)


def test_one_slow_pass_changes_little_and_is_forgotten() -> None:
    costs = known(cheap)
    before = costs.added(1, 3)
    costs.observe(batch(4), 1000.0)
    after = costs.added(1, 3)
    assert before < after < before + 0.5
    for _ in range(20):
        costs.observe(batch(1), 1.0)
        costs.observe(batch(4), cheap(4))
    assert costs.added(1, 3) == pytest.approx(before, abs=0.1)


def test_a_bad_measurement_fades_without_drafts() -> None:
    costs = known(lambda rows: 1.0 if rows == 1 else 40.0)
    assert costs.added(1, 3) == pytest.approx(3, rel=0.1), "never longer than one after another"
    for _ in range(600):
        costs.observe(batch(1), 1.0)
    assert costs.added(1, 3) == pytest.approx(PassCosts().added(1, 3), rel=0.1)


def test_passes_that_say_nothing() -> None:
    costs = PassCosts()
    assert costs.crowded
    one = batch(1)
    costs.observe(one, 1.0)
    assert not costs.crowded
    costs.observe(one, 50.0)  # reported by another request of the same pass
    costs.observe(batch(1), 1.0)
    assert costs.added(1, 40) == float("inf")
    assert costs.added(1, 1) == PassCosts().added(1, 1)
    costs.observe(batch(5, sequences=5), 1.0)
    assert costs.crowded
    costs.observe(batch(2, sequences=2), 1.0)
    assert not costs.crowded
    reading = batch(2, sequences=2)
    reading.add(0, 1, 0, False)
    costs.observe(reading, 1.0)
    assert costs.crowded, "a prompt is read beside it"


def speed(prompt: list[int], answer: list[int], curve: Curve, costs: PassCosts, *, others: int = 0) -> float:
    """How many times as fast an answer is with drafts, with passes that cost as the curve says."""
    drafter, held, pending, done, seconds = Drafter(costs), list(prompt), [answer[0]], 1, 0.0
    while done < len(answer):
        draft = drafter.draft(held, pending, len(answer) - done - 1)
        assert len(draft) <= min(MOST_DRAFTED, max(0, len(answer) - done - 1))
        drafter.start(1, len(draft))
        rows = Batch()
        for row in range(1 + len(draft)):
            rows.add(0, row, 0, True)
        for other in range(others):
            rows.add(1 + other, 0, 0, True)
        right = 0
        while right < len(draft) and draft[right] == answer[done + right]:
            right += 1
        seconds += curve(len(rows))
        drafter.learn(rows, curve(len(rows)), right)
        held += pending + draft[:right]
        done += 1 + right
        pending = [answer[done - 1]]
    return (len(answer) - 1) * curve(1 + others) / seconds


def prose(words: int, seed: int) -> list[int]:
    """Tokens with the frequencies of words (Zipf), each mostly followed by one of a few."""
    rng = random.Random(seed)
    text = [0]
    for _ in range(words):
        choices = random.Random(text[-1])
        likely = [int(choices.paretovariate(0.8)) % 3000 for _ in range(4)]
        text.append(rng.choice(likely) if rng.random() < 0.4 else int(rng.paretovariate(0.8)) % 3000)
    return text


@pytest.mark.parametrize(("curve", "least"), [(cheap, 2.5), (steep, 1.15), (dear, 0.95)])
@pytest.mark.parametrize("seed", range(4))
def test_copies_gain(curve: Curve, least: float, seed: int) -> None:
    text = prose(600, seed)
    assert speed(text, text[200:330], curve, PassCosts()) >= least
    assert speed(text, text[200:330], curve, known(curve)) >= least


@pytest.mark.parametrize("curve", [cheap, steep, dear])
@pytest.mark.parametrize("seed", range(8))
def test_free_text_loses_nothing_that_matters(curve: Curve, seed: int) -> None:
    text = prose(900, seed)
    assert speed(text[:700], text[700:850], curve, known(curve)) >= 0.97


@pytest.mark.parametrize("seed", range(4))
def test_it_stops_where_guesses_fail(seed: int) -> None:
    # Every pair has been there before, and something else follows each time.
    rng = random.Random(seed)
    text = [rng.randrange(12) for _ in range(2000)]
    assert speed(text[:1500], text[1500:1700], steep, known(steep)) >= 0.97


def test_it_starts_again_where_guesses_get_right() -> None:
    rng = random.Random(1)
    text = [rng.randrange(12) for _ in range(500)]
    copied = [100 + token for token in prose(200, 3)]
    answer = text[300:] + copied
    assert speed(text[:300] + copied, answer, cheap, known(cheap)) > 1.4


def test_the_cost_to_others_counts() -> None:
    text = prose(600, 5)
    costs = known(steep)
    alone = speed(text, text[200:330], steep, costs)
    assert alone > 1.2
    costs.observe(batch(5, sequences=5), steep(5))
    assert speed(text, text[200:330], steep, costs, others=4) == 1.0
