"""What a summary promises beside its facts: the language it is in, and a form that shows as it was meant."""

# ruff: noqa: RUF001, SIM905  (marks of other scripts; word lists read best as words)

from __future__ import annotations

import re
from collections.abc import Sequence

from ondevice_sdk.tasks.plan import Plan, language_name, language_tag
from ondevice_sdk.text.languages import language_shares
from ondevice_sdk.types import Point

__all__ = ["language_of", "render", "speaks"]

_TOLD = frozenset(
    "ar cs da de el en es fi fr he hi hu id it ja ko nl no nb pl pt ro ru sv th tr uk vi zh".split()
)  # that `language_shares` knows
# Both chosen by eye.
_SURE_FROM = 0.3  # share of the best language, below which short words tell nothing
_NEAR = 0.5  # of the best share: enough for a language, since near ones share their short words

_UNSPACED_ENDS = "。！？｡"
_ACTIVE = re.compile(r"[\\`*_\[\]<>~|]|&(?=#?\w{1,31};)")
_BLOCK = re.compile(  # what starts a list or heading: "-" becomes "\\-", "12." becomes "12\\."
    r"\A(?:[-+#=]|\d{1,9}(?=[.)](?:\s|\Z)))"
)


def speaks(text: str, language: str) -> bool | None:
    """Whether a text is in a language (by its English name); None where that cannot be told."""
    tag = language_tag(language)
    shares = language_shares(text)
    most = max(shares.values(), default=0.0)
    if tag not in _TOLD or most < _SURE_FROM:
        return None
    return shares.get("no" if tag == "nb" else tag, 0.0) >= _NEAR * most


def language_of(text: str) -> str | None:
    """The English name of a text's language, where it can be told."""
    shares = language_shares(text)
    tag = max(shares, key=lambda each: shares[each], default="")
    return language_name(tag) if shares.get(tag, 0.0) >= _SURE_FROM else None


def render(points: Sequence[Point], plan: Plan) -> str:
    """The summary as one text: a line per point, a title, or running text."""
    said = [point.text if plan.format == "plain" else _escaped(point.text) for point in points]
    markdown = plan.format == "markdown"
    if plan.style == "headline":
        return ("# " if markdown else "") + said[0]
    if plan.style == "key_points":
        return "\n".join(("- " if markdown else "") + text for text in said)
    text = ""
    for each in said:
        text += ("" if not text or text[-1] in _UNSPACED_ENDS else " ") + each
    return text


def _escaped(text: str) -> str:
    """Text whose signs mean themselves in CommonMark: no emphasis, link, HTML, list, heading or entity by accident."""
    text = _ACTIVE.sub(lambda sign: "\\" + sign.group(), text)
    return _BLOCK.sub(lambda sign: f"{sign.group()}\\" if sign.group()[0].isdigit() else f"\\{sign.group()}", text)
