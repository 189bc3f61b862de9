"""Take personal data out of a text, with placeholders and the map back."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.tasks.flow import Flow
from ondevice_sdk.tasks.forms import PERSONAL_KINDS, PersonalItem
from ondevice_sdk.tasks.quoting import PERSONAL_LEAST, find_personal_data
from ondevice_sdk.text.redaction import Cut, redacted, without_overlaps
from ondevice_sdk.text.split import check_text
from ondevice_sdk.types import Redaction, Span

__all__ = ["redact"]

_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_NOT_REPEATED = frozenset({"age", "date", "address"})  # "42" is an age in one place and a price in another


def redact(
    text: str,
    *,
    context_tokens: int,
    kinds: Collection[str] | None = None,
    min_confidence: float = PERSONAL_LEAST,
) -> Flow[Redaction]:
    """Replace what `PersonalData` finds, in the whole text, by "[NAME_1]" and the like.

    The same string gets the same placeholder wherever it stands as a whole word, also where it was not found by itself.

    Args:
        text: of any length.
        context_tokens: of the model.
        kinds: what to take out, of `PERSONAL_KINDS`; None: all.
        min_confidence: what is less likely stays.

    Raises:
        ConfigurationError: an empty text or a wrong option. InputTooLong: the context is too small for a line of text.
    """
    check_text(text)
    wanted = _checked_kinds(kinds)
    if isinstance(min_confidence, bool) or not isinstance(min_confidence, int | float) or not 0 <= min_confidence <= 1:
        raise ConfigurationError("min_confidence must be a probability, from 0 to 1")
    analysis = yield from find_personal_data(
        text, context_tokens=context_tokens, least=float(min_confidence), kinds=wanted
    )
    items = analysis.output.items
    cuts = without_overlaps([*_found(items), *_repeated(text, items)])
    replaced, replacements = redacted(text, cuts)
    return Redaction(replaced, replacements, usage=analysis.usage)


def _checked_kinds(kinds: Collection[str] | None) -> frozenset[str]:
    if kinds is None:
        return frozenset(PERSONAL_KINDS)
    wanted = frozenset([kinds]) if isinstance(kinds, str) else frozenset(kinds)
    if not wanted <= set(PERSONAL_KINDS):
        raise ConfigurationError(f"kinds must be some of {', '.join(PERSONAL_KINDS)}")
    return wanted


def _found(items: Sequence[PersonalItem]) -> Iterator[Cut]:
    for item in items:
        for span in item.spans:
            yield Cut(span, item.kind, item.confidence)


def _repeated(text: str, items: Sequence[PersonalItem]) -> Iterator[Cut]:
    """All places of what was found, as whole words and in the same letter case, in one pass over the text."""
    by_beginning: dict[str, dict[int, dict[str, PersonalItem]]] = {}  # two characters -> length -> text
    for item in sorted(items, key=lambda item: -len(item.text)):
        if item.kind not in _NOT_REPEATED and len(item.text) > 1:
            sizes = by_beginning.setdefault(item.text[:2], {})
            sizes.setdefault(len(item.text), {}).setdefault(item.text, item)
    if not by_beginning:
        return
    end = 0
    for match in re.finditer(f"(?=({'|'.join(map(re.escape, by_beginning))}))", text):
        start = match.start()
        for size, same in by_beginning[match[1]].items() if start >= end else ():
            known = same.get(text[start : start + size])
            if known is not None and _is_whole(text, start, start + size):
                end = start + size
                yield Cut(Span(start, end, known.text), known.kind, known.confidence)
                break


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether a range is no part of a longer word; scripts without spaces know no such borders."""
    if _UNSPACED.search(text, start, end):
        return True
    before, after = text[start - 1 : start] if start else "", text[end : end + 1]
    return not (before.isalnum() and text[start].isalnum()) and not (after.isalnum() and text[end - 1].isalnum())
