"""Placeholders in the place of text, and the map back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ondevice_sdk.types import Replacement, Span

__all__ = ["Cut", "redacted", "without_overlaps"]

_UNFIT = re.compile(r"[^A-Z0-9]+")


@dataclass(frozen=True, slots=True)
class Cut:
    """A range to take out, what it is, and how sure that is."""

    span: Span
    kind: str
    confidence: float


def without_overlaps(cuts: Iterable[Cut]) -> list[Cut]:
    """In order. Of ranges that overlap, the surest stays (of equal ones the longer), made to cover the others too.

    Nothing that any of them covers comes to light again.
    """
    joined: list[list[Cut]] = []
    for cut in sorted(cuts, key=lambda cut: (cut.span.start, -cut.span.end)):
        if joined and cut.span.start < max(other.span.end for other in joined[-1]):
            joined[-1].append(cut)
        else:
            joined.append([cut])
    found = []
    for group in joined:
        best = max(group, key=lambda cut: (cut.confidence, cut.span.end - cut.span.start))
        whole = group[0].span
        for cut in group[1:]:
            if cut.span.end > whole.end:
                whole = Span(whole.start, cut.span.end, whole.text + cut.span.text[whole.end - cut.span.start :])
        found.append(Cut(whole, best.kind, best.confidence))
    return found


def redacted(text: str, cuts: Sequence[Cut]) -> tuple[str, tuple[Replacement, ...]]:
    """The text with a placeholder for every cut, and what each stands for, in order of first appearance.

    The same string gets the same placeholder everywhere. No placeholder occurs in the text itself.

    Args:
        text: the whole text.
        cuts: in order and without overlaps.
    """
    spans: dict[str, list[Span]] = {}
    kinds: dict[str, str] = {}
    for cut in cuts:
        spans.setdefault(cut.span.text, []).append(cut.span)
        kinds.setdefault(cut.span.text, cut.kind)
    capitals = text.upper()  # "[name_1]" in the text is too near to "[NAME_1]"
    counts: Counter[str] = Counter()
    replacements = {}
    for original, kind in kinds.items():
        name = _UNFIT.sub("_", kind.upper()).strip("_") or "ITEM"
        placeholder = ""
        while not placeholder or placeholder in capitals:
            counts[name] += 1
            placeholder = f"[{name}_{counts[name]}]"
        replacements[original] = Replacement(placeholder, original, kind, tuple(spans[original]))
    pieces = []
    at = 0
    for cut in cuts:
        pieces += [text[at : cut.span.start], replacements[cut.span.text].placeholder]
        at = cut.span.end
    return "".join([*pieces, text[at:]]), tuple(replacements.values())
