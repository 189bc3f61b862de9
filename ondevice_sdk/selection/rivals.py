"""What the figures of different backends for one model are worth beside each other. Pure.

Candidates of one model in one precision differ in their backend, so that speed and memory decide between them, and two
rules keep a figure from deciding more than it can:

* what is known comes before what is guessed: a guess never puts a candidate before one of another backend whose speed
  was measured, or predicted from measurements of that backend; and what could not be run comes after both. Nor does a
  guess keep a model in the choice that is known to be too slow;
* a backend that comes with the SDK, and so has the longer record, is left only for one that is clearly faster: where
  the rounds of a measurement cannot tell the two apart, they count as equally fast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ondevice_sdk.intervals import Interval, ranked
from ondevice_sdk.types import Candidate

Trust = Literal[0, 1, 2]  # measured, or predicted from measurements; guessed; could not be run
KNOWN: Final = 0
GUESSED: Final = 1
FAILED: Final = 2

PREDICTION: Final = 0.17  # of a speed: by so much the worst of 24 predictions was off what was then measured


@dataclass(frozen=True, slots=True)
class Weighed:
    """A candidate without its rank, its score, and what that stands on.

    `too_slow` says that it was refused for that alone. `seconds` is what a typical answer takes, `rounds` the same for
    each round of the `session` in which the model was measured; `score` gives the total for other seconds.
    """

    candidate: Candidate
    precision: str
    built_in: bool
    trust: Trust
    too_slow: bool
    seconds: float
    rounds: tuple[float, ...]
    session: str
    total: float
    score: Callable[[float], float]

    @property
    def accepted(self) -> bool:
        """Whether it can run at all."""
        return self.candidate.rejected is None

    def noted(self, note: str, total: float) -> Weighed:
        """With another score, and why."""
        candidate = dataclasses.replace(self.candidate, notes=(*self.candidate.notes, note))
        return dataclasses.replace(self, candidate=candidate, total=total)


def order(weighed: Iterable[Weighed]) -> list[Candidate]:
    """The candidates, best first, by their scores and the rules above."""
    groups: dict[tuple[str, str], list[Weighed]] = {}
    for each in weighed:
        groups.setdefault((each.candidate.name, each.precision), []).append(each)
    settled = [each for group in groups.values() for each in _capped(_evened(_without_hope(group)))]
    return [each.candidate for each in sorted(settled, key=_place)]


def _without_hope(group: Sequence[Weighed]) -> list[Weighed]:
    """A guess is refused where the only figures that are known say that the model is too slow here."""
    known = [each for each in group if each.trust == KNOWN]
    slow = next((each.candidate for each in known if each.too_slow), None)
    if slow is None or any(each.accepted for each in known):
        return list(group)
    why = f"not measured; with {slow.backend} {slow.rejected}"
    return [
        dataclasses.replace(each, candidate=dataclasses.replace(each.candidate, rejected=why))
        if each.accepted and each.trust != KNOWN
        else each
        for each in group
    ]


def _evened(group: Sequence[Weighed]) -> list[Weighed]:
    """Those that are not clearly faster than the fastest built-in backend count as equally fast."""
    known = [each for each in group if each.accepted and each.trust == KNOWN]
    reference = min((each for each in known if each.built_in), key=lambda each: each.seconds, default=None)
    if reference is None:
        return list(group)
    note = f"not clearly faster than {reference.candidate.backend}"

    def even(each: Weighed) -> Weighed:
        if each not in known or each.built_in or each.seconds >= reference.seconds or _is_faster(each, reference):
            return each
        return each.noted(note, each.score(reference.seconds))

    return [even(each) for each in group]


def _is_faster(one: Weighed, other: Weighed) -> bool:
    """Whether the measurements say so: round by round where the two took turns, else by what they lie between."""
    if one.session and one.session == other.session:
        return ranked([mine / its for mine, its in zip(one.rounds, other.rounds, strict=False)]).high < 1
    return _range(one).high < _range(other).low


def _range(each: Weighed) -> Interval:
    if each.rounds:
        return ranked(each.rounds)
    return Interval(each.seconds, each.seconds * (1 - PREDICTION), each.seconds * (1 + PREDICTION))


def _capped(group: Sequence[Weighed]) -> list[Weighed]:
    """What is trusted less gets no better score than anything that is trusted more."""
    made = []
    for each in group:
        # What cannot run holds nobody back; among what cannot, the order is the same.
        better = [rival for rival in group if rival.trust < each.trust and (rival.accepted or not each.accepted)]
        least = min((rival.total for rival in better), default=each.total)
        if each.total <= least:
            made.append(each)
        elif each.accepted and each.trust == GUESSED:
            names = " and ".join(sorted({rival.candidate.backend for rival in better}))
            made.append(each.noted(f"not measured: comes after {names}", least))
        else:
            made.append(dataclasses.replace(each, total=least))
    return made


def _place(each: Weighed) -> tuple[float, int, bool, int, str, str, str]:
    found = each.candidate
    return (-each.total, each.trust, not each.built_in, found.memory_bytes, found.name, found.variant, found.backend)
