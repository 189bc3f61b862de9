"""Whether a document bears out a claim, told by what speaks against it: a new number or name, a turned word, a denial.

Retellings of a text use other words, errors often the same ones; so the share of shared words tells the two apart no
better than chance (`faith_summedits`, 696 pairs: balanced accuracy 0.49). Each check here looks for one kind of error
at the place in the document that speaks of the same thing. All are linear in the document and know no model. What they
cannot see: a wrong word that opposes nothing, a role that is swapped, a claim that is new but in plain words.
"""

# ruff: noqa: RUF001, SIM905  (apostrophes of all kinds; word lists read best as words)

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice, pairwise
from typing import Final, Literal

from ondevice_sdk.text.lexicon import opposites, synonyms
from ondevice_sdk.text.split import words
from ondevice_sdk.text.terms import amounts, clauses, is_function_word, is_negation, names, numbers, stem
from ondevice_sdk.types import Span

__all__ = ["DOUBTFUL_FROM", "Doubt", "Evidence", "doubt_of"]

DoubtKind = Literal["number", "unit", "name", "negation", "denied", "opposite", "contrast", "modifier"]

# How sure each kind of doubt is: the share of unfaithful summaries among those that have it, both classes weighing the
# same, on the development half of faith_summedits (25 documents), rounded. The last two were 0.6 and 0.65: they order
# claims (AUROC 0.79, without modifiers 0.78), but are weighed so as to refute none, which cost as many as it caught.
_WEIGHTS: Final[dict[DoubtKind, float]] = {
    "number": 0.9,
    "unit": 0.85,
    "name": 0.95,
    "negation": 0.9,
    "denied": 0.8,
    "opposite": 0.75,
    "contrast": 0.4,
    "modifier": 0.15,
}
DOUBTFUL_FROM: Final = 0.5  # a claim with this doubt is not held to be the document's

_ENDINGS = ("ings", "ing", "edly", "ed", "ies", "es", "s")
_DERIVED = tuple(
    "ization isation ational ation ition tion sion ement ment iness ness ability ibility ivity ility ity ively ically "
    "ally ably ful less able ible ive ical ic al ance ence ancy ency ant ent or er ly y ist ism ise ize".split()
)
_CONTRASTS = frozenset(
    "but however instead although though despite unless only rather except excluding unlike solely exclusively".split()
)
_SPECIAL = re.compile(r"(?<!\w)(?:[A-ZÀ-ÖØ-ÞА-ЯΑ-Ω]{2}\w*+|[A-Z][a-z]++[A-Z]\w*+)")  # acronyms, CamelCase
_BEFORE, _BEHIND = 2, 4  # words around a negation that it may deny (2 to 3 and 3 to 5 do as well within 0.005)
# What follows was chosen by eye.
_REACH = 4  # words around a negation of the document
_BESIDE = 3  # content words beside a word that tell what it is said of
_QUESTION = ("?", "？", "؟")
_LOOKED_AT = 400  # sentences of the document that are compared for one word: bounds the work on a long text
_NOUNS_FROM = 0.2  # share of capitals inside sentences from which they mark nouns, as in German, and not names
_MOST_CAPITALS = 0.6  # a claim with more is a headline in title case


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something that speaks against a claim."""

    kind: DoubtKind
    word: str = field(repr=False)


def doubt_of(doubts: Iterable[Doubt]) -> float:
    """All doubts as one number from 0 to 1, as if they were independent; a kind counts once."""
    return 1 - math.prod(1 - _WEIGHTS[kind] for kind in {doubt.kind for doubt in doubts})


class Evidence:
    """The words of a document by sentence, indexed to look claims up."""

    def __init__(self, sentences: Sequence[Span]) -> None:
        self._sentences = sentences
        self._roots: dict[str, str] = {}  # of words seen, kept here: a cache of the module would outlive the text
        self._words = [[word.replace("’", "'") for word in words(span.text)] for span in sentences]
        self._content = [self._content_of(line) for line in self._words]
        self._denying = [any(is_negation(word) for word in line) for line in self._words]
        self._where: defaultdict[str, list[int]] = defaultdict(list)
        for index, roots in enumerate(self._content):
            for root in dict.fromkeys(roots):
                self._where[root].append(index)
        self._by_family: defaultdict[int, list[int]] = defaultdict(list)
        for root, places in self._where.items():
            for number in _families().get(root, ()):
                self._by_family[number].extend(places)
        self._numbers: frozenset[str] = frozenset().union(*(numbers(span.text) for span in sentences))
        self._amounts: frozenset[tuple[str, str]] = frozenset().union(*(amounts(span.text) for span in sentences))
        self._initials = " ".join("".join(word[0] for word in line) for line in self._words)
        capitals = sum(len(names(span.text)) for span in islice(sentences, 200))
        self._nouns = capitals > _NOUNS_FROM * sum(len(line) for line in self._words[:200])

    def has(self, word: str) -> bool:
        """Whether the document uses a word, in any form."""
        return self._root(word) in self._where

    def means(self, word: str) -> bool:
        """Whether it uses a word, or one that stands for it."""
        root = self._root(word)
        return root in self._where or any(number in self._by_family for number in _families().get(root, ()))

    def means_in(self, word: str, index: int) -> bool:
        """The same, in one of its sentences."""
        return any(_alike(self._root(word), other) for other in self._content[index])

    def doubts(self, claim: str, sources: Sequence[int]) -> list[Doubt]:
        """What speaks against a claim, given the sentences that are closest to it."""
        said = [word.replace("’", "'") for word in words(claim)]
        return [
            *(Doubt("number", number) for number in numbers(claim) - self._numbers),
            *self._other_units(claim),
            *self._new_names(claim),
            *(Doubt("negation", word) for word in self._new_negations(said)),
            *(Doubt("denied", "") for index in sources[:1] if self._denies(index, said)),
            *(Doubt("opposite", word) for word in self._turned(said)),
            *(Doubt("contrast", word) for word in said if word in _CONTRASTS and not self._near(word, sources)),
            *(Doubt("modifier", word) for word in self._new_modifiers(said)),
        ]

    def _root(self, word: str) -> str:
        root = self._roots.get(word)
        if root is None:
            root = self._roots[word] = _root_of(word)
        return root

    def _content_of(self, line: Iterable[str]) -> list[str]:
        return [self._root(word) for word in line if _is_content(word)]

    def _near(self, word: str, sources: Sequence[int]) -> bool:
        return any(
            word in self._words[index]
            for source in sources
            for index in range(max(0, source - 1), min(len(self._words), source + 2))
        )

    def _other_units(self, claim: str) -> Iterator[Doubt]:
        for number, unit in amounts(claim) - self._amounts:
            if number in self._numbers:
                yield Doubt("unit", f"{number} {unit}")

    def _new_names(self, claim: str) -> Iterator[Doubt]:
        marked = [] if self._nouns else names(claim)
        if len(marked) > _MOST_CAPITALS * len(claim.split()):
            marked = []
        for name in dict.fromkeys([*marked, *_SPECIAL.findall(claim)]):
            plain = name.casefold().replace("’", "'").removesuffix("'s")
            if is_function_word(plain) or all(self.has(part) for part in words(plain)):
                continue
            short = name.rstrip("s").casefold()
            if not (name[:2].isupper() and len(short) > 1 and short in self._initials):  # "EU" of a European Union
                yield Doubt("name", name)

    def _new_negations(self, said: Sequence[str]) -> Iterator[str]:
        """Negations of what the document never denies."""
        for index, word in enumerate(said):
            if is_negation(word):
                about = set(self._content_of(said[max(0, index - _BEFORE) : index + _BEHIND + 1]))
                if not any(self._denied_near(place, about) for place in self._places(about, self._denying)):
                    yield word

    def _denied_near(self, place: int, about: set[str]) -> bool:
        line = self._words[place]
        for index, word in enumerate(line):
            if is_negation(word):
                denied = self._content_of(line[max(0, index - _REACH) : index + _REACH + 1])
                if any(_alike(one, other) for one in denied for other in about):
                    return True
        return False

    def _places(self, about: Iterable[str], wanted: Sequence[bool]) -> list[int]:
        """Sentences with, or right after, one of some words or what stands for them."""
        found: set[int] = set()
        for root in about:
            places = [*self._where.get(root, ())]
            for number in _families().get(root, ()):
                places.extend(self._by_family.get(number, ()))
            found.update(near for place in places for near in (place, place + 1) if near < len(wanted) and wanted[near])
        return sorted(found)[:_LOOKED_AT]

    def _denies(self, index: int, said: Sequence[str]) -> bool:
        """Whether a sentence denies what a claim without a negation says."""
        if not self._denying[index] or any(is_negation(word) for word in said):
            return False
        claimed = set(self._content_of(said))
        for clause in clauses(self._sentences[index].text):
            line = [word.replace("’", "'") for word in words(clause)]
            if any(is_negation(word) for word in line):
                about = set(self._content_of(line))
                shared = len(about & claimed)
                if shared and 2 * shared >= len(about) and 3 * shared >= len(claimed):
                    return True
        return False

    def _turned(self, said: Sequence[str]) -> Iterator[str]:
        """Words whose opposite the document says of the same thing, and never the words themselves."""
        content = [(word, self._root(word)) for word in said if _is_content(word)]
        for index, (word, root) in enumerate(content):
            against = _against().get(root, frozenset())
            if not against:
                continue
            beside = {other for _, other in content[max(0, index - _BESIDE) : index + _BESIDE + 1]} - against - {root}
            opposed = {place for other in against for place in self._where.get(other, ())}
            about = {place for other in beside for place in self._where.get(other, ())}
            if not opposed & about:
                continue
            meant = {*self._where.get(root, ())}
            for number in _families().get(root, ()):
                meant.update(self._by_family.get(number, ()))
            if any(self._says(place, root, beside, against) for place in sorted(meant & about)[:_LOOKED_AT]):
                continue
            if any(self._opposes(place, against, beside) for place in sorted(opposed & about)[:_LOOKED_AT]):
                yield word

    def _new_modifiers(self, said: Sequence[str]) -> Iterator[str]:
        """Words that neither the document nor the thesaurus has, right before one that the document has."""
        for word, following in pairwise(said):
            plain = (
                _is_content(word) and _is_content(following) and not word[0].isdigit() and not following[0].isdigit()
            )
            if plain and self._root(word) not in _families() and not self.has(word) and self.has(following):
                yield word

    def _says(self, place: int, root: str, beside: set[str], against: frozenset[str]) -> bool:
        line = self._content[place]
        return any(
            other not in against and _alike(root, other) and not beside.isdisjoint(self._beside(line, index))
            for index, other in enumerate(line)
        )

    def _opposes(self, place: int, against: frozenset[str], beside: set[str]) -> bool:
        """Whether a sentence says the opposite; a question does not."""
        if self._sentences[place].text.endswith(_QUESTION):
            return False
        line = self._content[place]
        return any(
            other in against and not beside.isdisjoint(self._beside(line, index)) for index, other in enumerate(line)
        )

    @staticmethod
    def _beside(line: Sequence[str], index: int) -> list[str]:
        return [*line[max(0, index - _BESIDE - 1) : index], *line[index + 1 : index + _BESIDE + 2]]


def _is_content(word: str) -> bool:
    return (
        not is_function_word(word) and not is_negation(word) and (len(word) > 1 or not word.isascii() or word.isdigit())
    )


def _root_of(word: str) -> str:
    """What the forms of an English word share, "reduc" of reduction and reduces; elsewhere a stem."""
    if not word.isascii() or word[:1].isdigit() or stem(word)[:1].isdigit():
        return stem(word)
    word = word.removesuffix("'s")
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)] + ("y" if ending == "ies" else "")
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
        word = word[:-1]
    if len(word) > 3:
        word = word.removesuffix("e")
    for ending in _DERIVED:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            word = word[: -len(ending)]
            break
    return word[:7]


def _alike(left: str, right: str) -> bool:
    families = _families()
    return left == right or not families.get(left, _NONE).isdisjoint(families.get(right, _NONE))


_NONE: Final[frozenset[int]] = frozenset()


@cache
def _families() -> dict[str, frozenset[int]]:
    found: defaultdict[str, set[int]] = defaultdict(set)
    for word, numbers_of in synonyms().items():
        found[_root_of(word)].update(numbers_of)
    return {root: frozenset(numbers_of) for root, numbers_of in found.items()}


@cache
def _against() -> dict[str, frozenset[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for word, others in opposites().items():
        found[_root_of(word)].update(_root_of(other) for other in others)
    return {root: frozenset(others - {root}) for root, others in found.items()}
