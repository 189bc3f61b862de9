"""What a summary is to be: the option words of the W3C Writing Assistance APIs, checked, and their prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from ondevice_sdk.backends.api import Chat
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.types import Format, Length, Message, Style

_POINTS = {"short": 3, "medium": 5, "long": 7}
_SENTENCES = {"short": 1, "medium": 3, "long": 5}
_HEADLINE_WORDS = {"short": 12, "medium": 17, "long": 22}
_PARAGRAPH_SENTENCES = {"short": 3, "medium": 5, "long": 8}  # ours: the specification has no paragraphs
_WORDS_PER_STATEMENT = 18  # of English summaries; turns a limit of words into a number of statements
_WORDS_PER_SHORT_ONE = 8  # with a limit of words, so short statements may fill it up

TOKENS_PER_STATEMENT = 56  # reserved for the answer
NOTES = 3  # statements kept of each part of a long document
_ASKED_TWICE = 3  # statements: up to so many are asked for in two ways, since much depends on each

_NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight")


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked request for a summary. `statements` are its points or sentences, `words` the most words of all."""

    style: Style
    statements: int
    words: int | None
    format: Format
    language: str | None
    context: str | None = field(repr=False)

    @property
    def prose(self) -> bool:
        """Whether the statements are sentences of one text, not points or a title."""
        return self.style in ("tldr", "teaser", "paragraph")

    @property
    def most_statements(self) -> int:
        """A limit of words may be filled with more and shorter statements than were asked for."""
        if self.words is None or self.style == "headline":
            return self.statements
        return max(self.statements, self.words // _WORDS_PER_SHORT_ONE)

    @property
    def answer_tokens(self) -> int:
        """Room for the answer: one statement more than asked for, as some may be dropped."""
        return TOKENS_PER_STATEMENT * (self.statements + 1)

    def prompt(self, text: str) -> Chat:
        """Ask for the summary. The document comes first: small models heed what they read last."""
        prefix = {"key_points": "1. ", "headline": "Headline:"}.get(self.style, "")
        return self._ask(text, self.instruction, prefix)

    def prompts(self, text: str, *, insist: bool = False) -> tuple[Chat, ...]:
        """Ways to ask for the summary, which share the document as their beginning.

        `insist`: for the second time, as the first answer was in a wrong language.
        """
        asked = [self.prompt(text)]
        if self.style in ("tldr", "paragraph") and self.statements <= _ASKED_TWICE:
            asked.append(self._ask(text, self._plainly, ""))
        if not insist or self.language is None:
            return tuple(asked)
        more = f" The whole answer must be in {self.language}, whatever language the text is in."
        return tuple(Chat((Message("user", chat.messages[0].content + more),), chat.answer_prefix) for chat in asked)

    def back_prompt(self, statement: str, language: str) -> Chat:
        """Ask for a statement in the language of the text, in which it can be checked."""
        return Chat((Message("user", f"{statement}\n\nTranslate the sentence above into {language}."),))

    @property
    def for_notes(self) -> Plan:
        """The same reader's notes of a part."""
        return Plan("key_points", NOTES, None, "plain", None, self.context)

    def repair_prompt(self, evidence: str, statement: str) -> Chat:
        """Ask for a statement again, beside the sentences that it may come from."""
        limit = "" if self.words is None else f" of at most {max(1, self.words // self.statements)} words"
        asked = f"Write one short sentence{limit} that says the same as far as the text above bears it out."
        return self._ask(evidence, f"Statement: {statement}\n\n{asked}", "")

    def notes_prompt(self, text: str) -> Chat:
        """Ask for the notes of one part of a long document."""
        return self._ask(text, _key_points(NOTES), "1. ")

    @property
    def _plainly(self) -> str:
        return f"What is the main point of the text above? Answer in {_short_sentences(self.statements)}."

    @property
    def instruction(self) -> str:
        """The question, without language and context."""
        if self.style == "key_points":
            return _key_points(self.statements)
        if self.style == "headline":
            return f"Write a headline for the text above in at most {self.words} words."
        if self.style == "teaser":
            what = f"Write a teaser of {_sentences(self.statements)} that makes people want to read the text above."
        elif self.style == "tldr":
            what = f"Summarise the text above in {_sentences(self.statements)}."
        else:
            what = f"Summarise the text above in one paragraph of {_sentences(self.statements)}."
        return what if self.words is None else f"{what} Use at most {self.words} words."

    def _ask(self, text: str, instruction: str, prefix: str) -> Chat:
        parts = [instruction, "Use only facts from the text."]
        if self.context:
            parts.append(self.context)
        if self.language:
            parts.append(f"Write in {self.language}.")
        return Chat((Message("user", f"{text}\n\n{' '.join(parts)}"),), answer_prefix=prefix)


def plan_for(style: Style, length: Length, format: Format, language: str | None, context: str | None) -> Plan:  # noqa: A002
    """Check the options.

    Raises:
        ConfigurationError: a word that does not exist, a limit under one word, an unknown language tag.
    """
    _check_word("style", style, get_args(Style))
    _check_word("format", format, get_args(Format))
    for name, value in (("language", language), ("context", context)):
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise ConfigurationError(f"{name} must be None or a string that is not empty")
    language = language_name(language) if language else None
    if isinstance(length, bool) or not isinstance(length, (str, int)):
        raise ConfigurationError("length must be 'short', 'medium', 'long' or a number of words")
    if isinstance(length, int):
        if length < 1:
            raise ConfigurationError(f"length as a number of words must be at least 1, not {length}")
        wanted = 1 if style == "headline" else max(1, min(8, round(length / _WORDS_PER_STATEMENT)))
        return Plan(style, wanted, length, format, language, context)
    _check_word("length", length, tuple(_POINTS))
    if style == "headline":
        return Plan(style, 1, _HEADLINE_WORDS[length], format, language, context)
    counts = {"key_points": _POINTS, "paragraph": _PARAGRAPH_SENTENCES}.get(style, _SENTENCES)
    return Plan(style, counts[length], None, format, language, context)


_LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "ms": "Malay", "nb": "Norwegian",
    "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "th": "Thai",
    "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


def language_name(language: str) -> str:
    """The English name of a language given as a BCP 47 tag ("de", "pt-BR") or already as a name ("German").

    Raises:
        ConfigurationError: a tag that is not in the table, or something that is no name.
    """
    tag = language.strip().replace("_", "-").split("-")[0].lower()
    if tag in _LANGUAGES:
        return _LANGUAGES[tag]
    if len(tag) <= 3 or len(language) > 40 or not all(part.isalpha() for part in language.split()):
        hint = "give the English name, for example 'German'"
        raise ConfigurationError("the language tag is not known", hint=hint)  # without it: the value may be a text
    return language.strip()


def language_tag(name: str) -> str:
    """The tag of a language by its English name; empty where the table does not have it."""
    return next((tag for tag, each in _LANGUAGES.items() if each.casefold() == name.casefold()), "")


def _check_word(name: str, value: object, words: tuple[str, ...]) -> None:
    if value not in words:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, words))}")  # the value may be a text


def _key_points(count: int) -> str:
    facts = "most important fact" if count == 1 else f"{count} most important facts"
    return f"List the {facts} of the text above as short sentences, one per line."


def _sentences(count: int) -> str:
    return "one sentence" if count == 1 else f"{_NUMERALS[count]} sentences"


def _short_sentences(count: int) -> str:
    return "one short sentence" if count == 1 else f"{_NUMERALS[count]} short sentences"
