"""The built-in forms of `analyse`.

`Sentiment` and `Languages` are closed labels, decided by scores. `Entities`, `PersonalData` and `KeyPhrases` quote the
text: they are found in it by code and judged by scores of the model, so that nothing is invented. `Topics` are written.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from ondevice_sdk.text.keyphrases import ranked_phrases
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
    """A form that the model writes, in JSON."""

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
        return cls(tuple(found.values()) or tuple(phrase.text for phrase in ranked_phrases(text, 3)))


@dataclass(frozen=True, slots=True)
class KeyPhrase:
    """A phrase of the text and where it occurs."""

    text: str = field(repr=False)
    spans: tuple[Span, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyPhrases:
    """Phrases that carry the text, most telling first."""

    phrases: tuple[KeyPhrase, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Entity:
    """Something with a name, and where the text names it. `confidence` is the chance that it is of this kind."""

    text: str = field(repr=False)
    kind: str  # person, organisation, place or date
    spans: tuple[Span, ...] = field(repr=False)
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Entities:
    """People, organisations, places and dates that the text names, in its order."""

    entities: tuple[Entity, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PersonalItem:
    """A piece of personal data and every place of it. `checked`: found by its form, not judged by the model.

    `confidence` is the chance that it is just this.
    """

    text: str = field(repr=False)
    kind: str  # one of PERSONAL_KINDS
    spans: tuple[Span, ...] = field(repr=False)
    checked: bool = False
    confidence: float = 1.0


PERSONAL_KINDS = (
    *("email", "phone", "url", "ip", "iban", "card", "identity number", "address", "birth date", "date", "age"),
    *("name", "place", "organisation"),  # judged by the model
)


@dataclass(frozen=True, slots=True)
class PersonalData:
    """Personal data in a text, in its order: what patterns and check digits find, and names."""

    items: tuple[PersonalItem, ...] = field(repr=False)


def _strings(value: JsonValue) -> list[str]:
    return [item for item in value if isinstance(item, str) and item.strip()] if isinstance(value, list) else []
