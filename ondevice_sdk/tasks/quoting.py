"""Forms that quote the text: names, personal data and key phrases, each with exact places."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from ondevice_sdk.tasks.flow import Flow
from ondevice_sdk.tasks.forms import Entities, Entity, KeyPhrase, KeyPhrases, PersonalData, PersonalItem
from ondevice_sdk.tasks.names import Named, find_names
from ondevice_sdk.text.dates import find_dates
from ondevice_sdk.text.keyphrases import ranked_phrases
from ondevice_sdk.text.personal import find_personal
from ondevice_sdk.text.redaction import Cut
from ondevice_sdk.types import Analysis, Span

__all__ = ["QUOTING", "find_entities", "find_key_phrases", "find_personal_data"]

ENTITY_LEAST: Final = 0.3  # chance of an entity, and of a piece of personal data: best F1 of cross-validation, flat
PERSONAL_LEAST: Final = 0.3  # from 0.25 to 0.4; what is taken out in vain does less harm than what is overlooked
_PHRASES = 10  # of a text; by eye
_KINDS = MappingProxyType({"person": "name", "place": "place", "organisation": "organisation"})
_POSTCODE = re.compile(r" (\d{4,6}|\d{3} \d{2}|\d{4}-\d{3})(?![\w.,-]*\d|\w)", re.ASCII)
_YEAR = re.compile(r"(?:19|20)\d\d")
_AFTER_PLACE = 0.9  # what looks like a postcode after a place is one, nearly as surely as that is a place; by eye


def find_entities(text: str, *, context_tokens: int) -> Flow[Analysis[Entities]]:
    """People, places and organisations that the model takes for such, and dates by their form."""
    named, usage = yield from find_names(text, context_tokens=context_tokens)
    cuts = [Cut(span, "date", 1.0) for span in find_dates(text)]
    cuts += [Cut(name.span, name.kind, name.confidence) for name in named if name.confidence >= ENTITY_LEAST]
    entities = [Entity(said, kind, spans, sure) for said, kind, spans, sure in _grouped(_apart(cuts))]
    return Analysis(Entities(tuple(entities)), usage=usage)


def find_personal_data(
    text: str, *, context_tokens: int, least: float = PERSONAL_LEAST, kinds: Collection[str] | None = None
) -> Flow[Analysis[PersonalData]]:
    """What has the form of personal data, and names of people, places and organisations; of some `kinds`, or of all.

    What is of another kind hides nothing of these kinds that it overlaps.
    """
    named, usage = yield from find_names(text, context_tokens=context_tokens)
    formal = [Cut(found.span, found.kind, found.confidence) for found in find_personal(text)]
    names = [Cut(name.span, _KINDS[name.kind], name.confidence) for name in named]
    every = (cut for cut in [*formal, *names, *_postcodes(text, named)] if cut.confidence >= least)
    cuts = [cut for cut in every if kinds is None or cut.kind in kinds]
    checked = {(cut.span.text, cut.kind) for cut in formal}
    items = [
        PersonalItem(said, kind, spans, (said, kind) in checked, sure)
        for said, kind, spans, sure in _grouped(_apart(cuts))
    ]
    return Analysis(PersonalData(tuple(items)), usage=usage)


def find_key_phrases(text: str, *, context_tokens: int) -> Flow[Analysis[KeyPhrases]]:  # noqa: ARG001
    """Phrases by statistics of the text alone."""
    phrases = tuple(KeyPhrase(phrase.text, phrase.spans) for phrase in ranked_phrases(text, _PHRASES))
    return Analysis(KeyPhrases(phrases))
    yield  # a flow, though it asks the model nothing


QUOTING: Final[Mapping[Any, Callable[..., Flow[Analysis[Any]]]]] = MappingProxyType(
    {Entities: find_entities, PersonalData: find_personal_data, KeyPhrases: find_key_phrases}
)


def _postcodes(text: str, named: Iterable[Named]) -> Iterable[Cut]:
    for name in named:
        code = _POSTCODE.match(text, name.span.end) if name.kind == "place" else None
        if code is not None and not _YEAR.fullmatch(code[1]):
            yield Cut(Span(*code.span(1), code[1]), "address", _AFTER_PLACE * name.confidence)


def _apart(cuts: Iterable[Cut]) -> list[Cut]:
    """The cuts without those that overlap one before them in the list: what is told by its form comes first."""
    kept: list[Cut] = []
    taken: dict[int, Cut] = {}
    for cut in cuts:
        if all(at not in taken for at in range(cut.span.start, cut.span.end)):
            taken.update(dict.fromkeys(range(cut.span.start, cut.span.end), cut))
            kept.append(cut)
    return sorted(kept, key=lambda cut: cut.span.start)


def _grouped(cuts: Iterable[Cut]) -> list[tuple[str, str, tuple[Span, ...], float]]:
    """What is said, its kind, all its places and the highest confidence, in order of first appearance."""
    groups: dict[tuple[str, str], list[Cut]] = {}
    for cut in cuts:
        groups.setdefault((cut.span.text, cut.kind), []).append(cut)
    return [
        (said, kind, tuple(cut.span for cut in group), max(cut.confidence for cut in group))
        for (said, kind), group in groups.items()
    ]
