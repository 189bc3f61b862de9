"""The built-in forms of `analyse`.

`Sentiment` and `Languages` are closed labels, decided by scores. The others are written by the model and then looked
up in the text: what does not occur there is dropped, so that nothing is invented.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from ondevice_sdk.text.personal import find_personal
from ondevice_sdk.text.phrases import key_phrases
from ondevice_sdk.text.spans import find_all
from ondevice_sdk.text.terms import content_words
from ondevice_sdk.types import JsonValue, Span


class Sentiment(enum.StrEnum):
    """How a text feels about its subject."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    NEUTRAL = "neutral"


class Languages(enum.StrEnum):
    """The main language of a text, as a BCP 47 tag; `und` where there are no words, or none of these languages."""

    ARABIC = "ar"
    CHINESE = "zh"
    CZECH = "cs"
    DANISH = "da"
    DUTCH = "nl"
    ENGLISH = "en"
    FINNISH = "fi"
    FRENCH = "fr"
    GERMAN = "de"
    GREEK = "el"
    HEBREW = "he"
    HINDI = "hi"
    HUNGARIAN = "hu"
    INDONESIAN = "id"
    ITALIAN = "it"
    JAPANESE = "ja"
    KOREAN = "ko"
    NORWEGIAN = "no"
    POLISH = "pl"
    PORTUGUESE = "pt"
    ROMANIAN = "ro"
    RUSSIAN = "ru"
    SPANISH = "es"
    SWEDISH = "sv"
    THAI = "th"
    TURKISH = "tr"
    UKRAINIAN = "uk"
    VIETNAMESE = "vi"
    UNDETERMINED = "und"


_PLAIN = r"^[\w][\w .'’&/-]{1,39}$"  # noqa: RUF001  (an apostrophe)
_SHOWN = "Tom Reed opened the new library in Elm Street on Friday. Hall and Co had built its reading room in a year."


class TextForm:
    """A form whose items are looked up in the text."""

    instruction: ClassVar[str]
    schema: ClassVar[Mapping[str, JsonValue]]
    shown: ClassVar[tuple[str, JsonValue]]  # a text and its answer, without which a small model does not see the point

    @classmethod
    def of(cls, value: JsonValue, text: str) -> Self:
        """Make the form from the model's JSON, keeping what the text bears out."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Topics(TextForm):
    """What a text is about, in a few words each; these need not occur in the text."""

    topics: tuple[str, ...] = field(repr=False)

    instruction: ClassVar[str] = "List the main topics of the text above, one to five, each in one to three words."
    schema: ClassVar[Mapping[str, JsonValue]] = {
        "type": "array",
        "items": {"type": "string", "pattern": _PLAIN},
        "minItems": 1,
        "maxItems": 5,
    }
    shown = (_SHOWN, ["public libraries", "building works"])

    @classmethod
    def of(cls, value: JsonValue, text: str) -> Self:
        """Make the form; repeated topics are dropped, and what was shown to the model where the text is not of it."""
        foreign = set(content_words(" ".join((cls.shown[0], *_strings(cls.shown[1]))))) - set(content_words(text))
        topics = [topic.strip() for topic in _strings(value) if foreign.isdisjoint(content_words(topic))]
        found = {topic.casefold(): topic for topic in topics}
        return cls(tuple(found.values()) or tuple(key_phrases(text, 3)))


@dataclass(frozen=True, slots=True)
class KeyPhrase:
    """A phrase of the text and where it occurs."""

    text: str = field(repr=False)
    spans: tuple[Span, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyPhrases(TextForm):
    """Phrases that carry the text, most frequent first."""

    phrases: tuple[KeyPhrase, ...] = field(repr=False)

    instruction: ClassVar[str] = "List the key phrases of the text above, each exactly as it is written there."
    schema: ClassVar[Mapping[str, JsonValue]] = {
        "type": "array",
        "items": {"type": "string", "pattern": _PLAIN},
        "minItems": 1,
        "maxItems": 10,
    }
    shown = (_SHOWN, ["new library", "Elm Street", "reading room"])

    @classmethod
    def of(cls, value: JsonValue, text: str) -> Self:
        """Make the form; phrases that do not occur in the text are dropped; without any, its own stand in."""
        wanted = _strings(value)
        found = [KeyPhrase(spans[0].text, spans) for _, _, spans in _found(((s, "") for s in wanted), text)]
        if not found:
            wanted = key_phrases(text, 5)
            found = [KeyPhrase(spans[0].text, spans) for _, _, spans in _found(((s, "") for s in wanted), text)]
        return cls(tuple(sorted(found, key=lambda phrase: -len(phrase.spans))))


@dataclass(frozen=True, slots=True)
class Entity:
    """Something with a name, and where the text names it."""

    text: str = field(repr=False)
    kind: str  # person, organisation, place, date or other
    spans: tuple[Span, ...] = field(repr=False)


def _items(kinds: tuple[str, ...]) -> Mapping[str, JsonValue]:
    return {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "text": {"type": "string", "minLength": 1, "maxLength": 80},
                "kind": {"type": "string", "enum": list(kinds)},
            },
            "required": ["text", "kind"],
            "additionalProperties": False,
        },
        "maxItems": 20,
    }


@dataclass(frozen=True, slots=True)
class Entities(TextForm):
    """People, organisations, places and dates that the text names, in its order."""

    entities: tuple[Entity, ...] = field(repr=False)

    instruction: ClassVar[str] = (
        "List the people, organisations, places and dates that the text above names, each exactly as it is written."
    )
    schema: ClassVar[Mapping[str, JsonValue]] = _items(("person", "organisation", "place", "date", "other"))
    shown = (
        _SHOWN,
        [
            {"text": "Tom Reed", "kind": "person"},
            {"text": "Elm Street", "kind": "place"},
            {"text": "Friday", "kind": "date"},
            {"text": "Hall and Co", "kind": "organisation"},
        ],
    )

    @classmethod
    def of(cls, value: JsonValue, text: str) -> Self:
        """Make the form; names that do not occur in the text are dropped."""
        found = [Entity(name, kind, spans) for name, kind, spans in _found(_pairs(value), text)]
        return cls(tuple(sorted(found, key=lambda entity: entity.spans[0].start)))


@dataclass(frozen=True, slots=True)
class PersonalItem:
    """A piece of personal data and every place of it. `checked`: found by its form, not by the model."""

    text: str = field(repr=False)
    kind: str  # email, phone, url, ip, iban, card; from the model: name, address, birth date, identity number, other
    spans: tuple[Span, ...] = field(repr=False)
    checked: bool = False


@dataclass(frozen=True, slots=True)
class PersonalData(TextForm):
    """Personal data in a text, in its order: what patterns and check digits find, and what the model names."""

    items: tuple[PersonalItem, ...] = field(repr=False)

    instruction: ClassVar[str] = (
        "List the names of people, postal addresses, birth dates and identity numbers in the text above, each exactly "
        "as it is written. Give an empty list if there are none."
    )
    schema: ClassVar[Mapping[str, JsonValue]] = _items(("name", "address", "birth date", "identity number", "other"))
    shown = (_SHOWN, [{"text": "Tom Reed", "kind": "name"}])

    @classmethod
    def of(cls, value: JsonValue, text: str) -> Self:
        """Make the form; what the model names but the text does not hold is dropped."""
        patterns: dict[tuple[str, str], list[Span]] = {}
        for kind, span in find_personal(text):
            patterns.setdefault((kind, span.text), []).append(span)
        items = [PersonalItem(found, kind, tuple(spans), checked=True) for (kind, found), spans in patterns.items()]
        known = {item.text for item in items}
        items += [PersonalItem(*entry) for entry in _found(_pairs(value), text) if entry[0] not in known]
        return cls(tuple(sorted(items, key=lambda item: item.spans[0].start)))


def _strings(value: JsonValue) -> list[str]:
    return [item for item in value if isinstance(item, str) and item.strip()] if isinstance(value, list) else []


def _pairs(value: JsonValue) -> list[tuple[str, str]]:
    entries = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    return [(str(item.get("text", "")), str(item.get("kind", "other"))) for item in entries]


def _found(wanted: Iterable[tuple[str, str]], text: str) -> list[tuple[str, str, tuple[Span, ...]]]:
    """Each wanted string that occurs, once, as the text spells it, with its kind and places."""
    found: dict[str, tuple[str, str, tuple[Span, ...]]] = {}
    for string, kind in wanted:
        spans = tuple(find_all(text, string))
        if spans:
            found.setdefault(spans[0].text, (spans[0].text, kind, spans))
    return list(found.values())
