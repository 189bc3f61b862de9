"""Regular expressions of JSON schemas, so written that llguidance and Python's `re` mean the same by them."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Final

_OUTSIDE: Final = {"D": r"[^\p{Nd}]", "W": r"[^\p{L}\p{M}\p{N}_]", "Z": "$", "/": "/", "-": "-"}
_NEGATED: Final = {"d": r"\p{Nd}", "w": r"\p{L}\p{M}\p{N}_"}
# What Python means by these, in a set and outside.
_SPACES: Final = "\\s\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_EXACT_INSIDE: Final = {"d": r"\p{Nd}", "w": r"\p{L}\p{N}_", "s": _SPACES, "S": f"[^{_SPACES}]"}
_EXACT: Final = {
    "d": r"\p{Nd}",
    "w": r"[\p{L}\p{N}_]",
    "s": f"[{_SPACES}]",
    "S": f"[^{_SPACES}]",
    "D": r"[^\p{Nd}]",
    "W": r"[^\p{L}\p{N}_]",
    "Z": "$",
    "/": "/",
    "-": "-",
}
_AHEAD: Final = re.compile(r"\^\(\?!((?:[^\\()\[\]{}.*+?^$]|\\[^\w])+)\)")
_EXAMPLES: Final = {"d": "0", "w": "a", "s": " ", "D": "a", "W": "-", "S": "a"}
_LEAP_YEARS: Final = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][48]|[13579][26]|[2468]0)00)"
_DATE: Final = (
    "(?:(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)-"
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP_YEARS}-02-29)"
)
_TIME: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"

# Formats as patterns, where llguidance's own take in what strict readers refuse (30 February, a 61st second) or has
# no end (fractions of a second).
FORMATS: Final = {"date": f"^{_DATE}$", "time": f"^{_TIME}$", "date-time": f"^{_DATE}T{_TIME}$"}
LONGEST_FORMAT: Final = 40
_MOST_NEED: Final = 10**9
# Formats that llguidance knows itself. All others are remarks, as JSON Schema has it.
KNOWN_FORMATS: Final = frozenset(("duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"))


def portable(pattern: str) -> str | None:
    r"""The pattern for llguidance, matching nothing that it would not match in Python; None if Python cannot read it.

    llguidance takes digits and letters of ASCII only for `\d` and `\w`. That is less than Python takes, but of what is
    not one of them it would be more.
    """
    return _written(pattern, exact=False)


def of_names(pattern: str) -> str | None:
    """The pattern for llguidance, matching just what it matches in Python; None if Python cannot read it.

    A name that a narrower one did not match would be taken for one of those that are left over.
    """
    return _written(pattern, exact=True)


def _written(pattern: str, *, exact: bool) -> str | None:
    try:
        with warnings.catch_warnings(action="ignore"):  # they would show the pattern
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError):
        return None
    written: list[str] = []
    negated = inside = False
    index = 0
    while index < len(pattern):
        sign = pattern[index]
        if sign == "\\":
            letter = pattern[index + 1 : index + 2]
            index += 2
            if inside and letter in "DW" and letter:
                return None
            if exact:
                table = _EXACT_INSIDE if inside else _EXACT
            else:
                table = _NEGATED if inside and negated else {} if inside else _OUTSIDE
            written.append(table.get(letter, f"\\{letter}"))
            continue
        if inside:
            if sign == "]":
                inside = False
            elif sign in "[&~" and (sign == "[" or pattern[index + 1 : index + 2] == sign):
                sign = f"\\{sign}"  # sets within sets are foreign to Python
        elif sign == "[":
            inside, negated = True, pattern[index + 1 : index + 2] == "^"
            if negated:
                written.append(sign)
                index += 1
                sign = "^"
            if pattern[index + 1 : index + 2] == "]":
                written.append(sign)
                index += 1
                sign = "\\]"
        elif index and pattern[index - 1] in "*+?}" and written[-1] == pattern[index - 1] and sign in "?+":
            if sign == "+":
                return None  # what is taken by it is not given back
            index += 1  # how much is taken first makes no difference to what matches
            continue
        elif sign == "{" and pattern[index + 1 : index + 2] == ",":
            sign = "{0"
        elif sign == "$" and exact:
            sign = "\\n?$"
        written.append(sign)
        index += 1
    return "".join(written)


def either(patterns: Sequence[str]) -> str:
    """A pattern for what matches one of them."""
    return patterns[0] if len(patterns) == 1 else "|".join(f"(?:{pattern})" for pattern in patterns)


def exactly(texts: Iterable[str]) -> str:
    """A pattern for these texts only."""
    return "^(?:" + "|".join(map(_literal, texts)) + ")$"


def of_length(least: int, most: int | None) -> str:
    """A pattern for texts of so many characters."""
    return f"^(?s:.{{{least},{'' if most is None else most}}})$"


def anything_but(texts: Iterable[str]) -> str:
    """A pattern for every text but these."""
    return f"^(?:{_but(sorted(set(texts)))})$"


def without_lead(pattern: str) -> tuple[str, str | None]:
    """A pattern without the texts that it must not begin with, `^(?!one|other)`, and a pattern for these.

    Only plain texts: llguidance cannot look ahead, and the rest is left to it to refuse.
    """
    rest, texts = pattern, list[str]()
    while (found := _AHEAD.match(rest)) is not None:
        texts += [re.sub(r"\\(.)", r"\1", text) for text in found[1].split("|")]
        rest = "^" + rest[found.end() :]
    if not all(texts):
        return pattern, None
    return rest, f"^(?:{_not_led(texts)})$" if texts else None


def _not_led(texts: list[str]) -> str:
    heads: dict[str, list[str]] = {}
    for text in texts:
        heads.setdefault(text[0], []).append(text[1:])
    ways = ["", f"[^{''.join(map(_in_class, heads))}](?s:.*)"]
    ways += [f"{_literal(head)}(?:{_not_led(rest)})" for head, rest in heads.items() if "" not in rest]
    return "|".join(ways)


def _but(texts: list[str]) -> str:
    heads: dict[str, list[str]] = {}
    for text in texts:
        if text:
            heads.setdefault(text[0], []).append(text[1:])
    ways = [] if "" in texts else [""]
    if heads:
        ways.append(f"[^{''.join(map(_in_class, heads))}](?s:.*)")
        ways += [f"{_literal(head)}(?:{_but(rest)})" for head, rest in heads.items()]
    else:
        ways.append("(?s:.+)")
    return "|".join(ways)


def _literal(text: str) -> str:
    return re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", text)


def _in_class(sign: str) -> str:
    return f"\\{sign}" if sign in r"\]^-[&~" else sign


def example(pattern: str) -> str:
    """A short text that may match, for patterns that are little more than such a text.

    Whether it does is not tried: that can take for ever.
    """
    text = re.sub(r"\|[^)]*", "", pattern.replace("\\n?$", "").replace("\\p{Nd}", "0"))
    text = re.sub(r"\(\?[:P][^)(]*?[:>]|\(\?:|[()^$]", "", text)
    text = re.sub(r"\[\^[^\]]*\]", "x", text)
    text = re.sub(r"\[(\\?.)[^\]]*\]", r"\1", text)
    text = re.sub(r"(\\?.)\{([0-9]{1,2})(?:,[0-9]*)?\}", lambda found: found[1] * int(found[2]), text)
    text = re.sub(r"(?<!\\)[*+?]", "", text)
    text = re.sub(r"\\([dwsDWS])", lambda found: _EXAMPLES[found[1]], text)
    return re.sub(r"\\(.)", r"\1", text)


def longest_need(pattern: str) -> int:
    """A bound on how much text a pattern asks for, rather too high than too low."""
    if pattern in FORMATS.values():
        return LONGEST_FORMAT
    counts = [int(count) for count in re.findall(r"\{([0-9]{1,9})", pattern)]
    if "){" in pattern:  # counts may stand within counts
        return min(len(pattern) * math.prod(max(count, 1) for count in counts), _MOST_NEED)
    return len(pattern) + 2 * sum(counts)
