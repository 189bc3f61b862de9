"""Phrases that a text repeats or names: runs of content words between function words and punctuation marks.

After RAKE (Rose, Engel, Cramer and Cowley 2010), with frequency in the place of its word graph.
"""

from __future__ import annotations

import re
from collections import Counter

from ondevice_sdk.text.split import sentences
from ondevice_sdk.text.terms import content_words

_WORD = re.compile(r"\w+(?:['’-]\w+)*")  # noqa: RUF001  (an apostrophe)
_LONGEST = 3  # words
_READ = 100_000  # characters


def key_phrases(text: str, most: int) -> list[str]:
    """The best phrases as the text writes them, most telling first; those inside a better one are left out."""
    counts: Counter[str] = Counter()
    written: dict[str, str] = {}
    for sentence in sentences(text[:_READ]):
        for run in _runs(sentence.text):
            counts[run.casefold()] += 1
            written.setdefault(run.casefold(), run)
    ranked = sorted(counts, key=lambda phrase: -counts[phrase] * (1 + phrase.count(" ")))
    chosen: list[str] = []
    for phrase in ranked:
        if len(chosen) == most:
            break
        if len(phrase) > 2 and not any(phrase in other or other in phrase for other in chosen):
            chosen.append(phrase)
    return [written[phrase] for phrase in chosen]


def _runs(sentence: str) -> list[str]:
    """Runs of at most three content words with nothing but one space between them."""
    runs: list[str] = []
    start = end = -1
    length = 0
    for match in [*_WORD.finditer(sentence), None]:
        joins = match is not None and bool(content_words(match.group())) and not match.group()[0].isdigit()
        if start >= 0 and (not joins or match is None or length == _LONGEST or sentence[end : match.start()] != " "):
            runs.append(sentence[start:end])
            start, length = -1, 0
        if joins and match is not None:
            start = match.start() if start < 0 else start
            end, length = match.end(), length + 1
    return runs
