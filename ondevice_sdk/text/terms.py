"""The words of a text that carry its meaning: stems, numbers with what they count, names, denials."""

# ruff: noqa: RUF001, SIM905  (apostrophes of all kinds; word lists read best as words)

from __future__ import annotations

import re

from ondevice_sdk.text.split import sentences, words

__all__ = [
    "amounts",
    "clauses",
    "content_words",
    "counted",
    "dangles",
    "denies",
    "is_function_word",
    "is_negation",
    "is_number",
    "names",
    "numbers",
    "stem",
]

_FUNCTION_WORDS = frozenset(
    "a an the and or but nor so yet if then than that this these those there here it its he she they we you i him her "
    "them us me my your his our their who whom whose which what when where why how is are was were be been being am do "
    "does did done has have had having will would shall should can could may might must of in on at by for with from "
    "to into onto about over under as also just only very more most some any each all both such own same other another "
    "not no never none text article document author passage says said according".split()
)
_NEGATIONS = frozenset(
    "not no never none nobody nothing neither nor without cannot can't won't don't doesn't didn't isn't aren't wasn't "
    "weren't hasn't haven't hadn't wouldn't shouldn't couldn't nicht kein keine keinen keiner nie ne pas jamais sin "
    "nunca não nem non mai не ни нет никогда".split()
)
_LACKS = frozenset("unable fail fails failed failing refuse refuses refused lack lacks lacked lacking".split())
_DANGLING = frozenset(
    "it he she they his her their its this that these those such so then there but and or yet also however therefore "
    "thus moreover furthermore instead otherwise meanwhile similarly er sie es dies diese il elle ils elles cela él "
    "ella он она они это".split()
)
_NUMBER_WORDS = {
    word: str(value)
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split()
    )
}
_NUMBER = re.compile(r"\d++(?:[.,]\d++)*")
_GROUPED = re.compile(r"\d{1,3}(?:[.,]\d{3})+")
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)")
_YEAR = re.compile(r"1\d{3}|2[01]\d{2}")
_NAME = re.compile(r"(?<![.!?:])\s[\"'“(]*+([A-ZÀ-ÖØ-ÞА-ЯΑ-Ω][\w’']++)")
_AMOUNT = re.compile(
    rf"(?<![\w.,])(\d++(?:[.,]\d++)*|(?:{'|'.join(word for word in _NUMBER_WORDS if word != 'one')})\b)[ -]?+"
    r"(days?|weeks?|months?|years?|hours?|minutes?|seconds?|percent|per cent|%|euros?|dollars?|pounds?|cents?|thousand|"
    r"million|billion|times)(?!\w)",
    re.IGNORECASE,
)
_FIRST_WORD = re.compile(r"\W*+\w++")
_CLAUSE_END = re.compile(r"[,;:.!?()–—][\"'”’»)]*+\s|\s(?:and|but|while|und|aber|et|mais|y|pero)\s")


def content_words(text: str) -> list[str]:
    """Stems of the words that carry meaning; function words and stray letters left out."""
    return [
        stem(word)
        for word in words(text)
        if word not in _FUNCTION_WORDS and (len(word) > 1 or not word.isascii() or word.isdigit())
    ]


def numbers(text: str) -> frozenset[str]:
    """The numbers in a text, thousands marks taken out, small number words as digits."""
    found = {_NUMBER_WORDS[word] for word in words(text) if word in _NUMBER_WORDS and word != "one"}
    for match in _NUMBER.finditer(text):
        found.add(_plain_number(match.group()))
    return frozenset(found - {"1"})


def amounts(text: str) -> frozenset[tuple[str, str]]:
    """Numbers with an English unit of time, money or share right behind them."""
    found: set[tuple[str, str]] = set()
    for number, unit in _AMOUNT.findall(text):
        plain = unit.casefold().removesuffix("s")
        value = _NUMBER_WORDS.get(number.casefold()) or _plain_number(number)
        found.add((value, "%" if plain in ("percent", "per cent") else plain))
    return frozenset(found)


def is_number(term: str) -> bool:
    """Whether a content word is a number that `numbers` would tell."""
    return term[0].isdigit() and term != "1"


def counted(text: str) -> list[tuple[str, str, str]]:
    """Every number in its clause with the word of whatever does it, and that of what it counts; "" where there is none.

    They are the word before it and the word behind it. A year counts nothing: the word before it is what it dates.
    """
    found: list[tuple[str, str, str]] = []
    for clause in clauses(text):
        terms = ["", *content_words(clause), ""]
        for index, term in enumerate(terms):
            if term and is_number(term):
                before, behind = terms[index - 1], terms[index + 1]
                found.append((term, "", before or behind) if _YEAR.fullmatch(term) else (term, before, behind))
    return found


def clauses(text: str) -> list[str]:
    """Rough clauses: what stands between commas, stops, dashes and the commonest conjunctions."""
    return [clause for clause in _CLAUSE_END.split(text) if clause.strip()]


def names(text: str) -> list[str]:
    """Capitalised words that do not start a sentence."""
    found = [match.group(1) for span in sentences(text) for match in _NAME.finditer(_without_first_word(span.text))]
    return [name for name in found if name.casefold().split("'")[0] not in _FUNCTION_WORDS]


def denies(text: str) -> bool:
    """Whether a text has a word of negation."""
    return not _NEGATIONS.isdisjoint(word.replace("’", "'") for word in words(text))


def is_negation(word: str) -> bool:
    """Whether a word in lower case denies or says that something is lacking."""
    return word in _NEGATIONS or word in _LACKS or word.endswith("n't")


def is_function_word(word: str) -> bool:
    """Whether a word in lower case carries no meaning of its own."""
    return word in _FUNCTION_WORDS


def dangles(text: str) -> bool:
    """Whether a sentence leans on the one before it: it starts with a pronoun or a connective."""
    first = _FIRST_WORD.match(text)
    return first is not None and first.group().strip("\"'“‘«(").casefold() in _DANGLING


def stem(word: str) -> str:
    """A rough stem: English endings off, then the first seven letters, which joins most inflected forms elsewhere."""
    word = _NUMBER_WORDS.get(word, word)
    if word[:1].isdigit():
        return _plain_number(word)
    for ending in ("'s", "’s", "ing", "edly", "ed", "es", "s", "ly"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls":
        word = word[:-1]
    return word.removesuffix("e")[:7] if len(word) > 3 else word


def _plain_number(number: str) -> str:
    ordinal = _ORDINAL.fullmatch(number)
    if ordinal is not None:
        return ordinal.group(1).lstrip("0") or "0"
    if _GROUPED.fullmatch(number):
        return re.sub(r"[.,]", "", number)
    whole, point, rest = number.replace(",", ".").partition(".")
    rest = rest.rstrip("0") if "." not in rest else rest
    return (whole.lstrip("0") or "0") + (point + rest if rest else "")


def _without_first_word(sentence: str) -> str:
    match = _FIRST_WORD.match(sentence)
    return sentence[match.end() :] if match else sentence
