"""Shorter forms of a sentence that are sentences still: without asides and openings, without later clauses and phrases.

Rules for English; in another language a sentence is parted at semicolons and dashes only, in scripts without spaces
also at commas. Nothing is added but a full stop, and no condition, exception or negation is left off.
"""

# ruff: noqa: RUF001, SIM905  (dashes and commas of other scripts; word lists read best as words)

from __future__ import annotations

import re

from ondevice_sdk.text.split import CLOSERS, SENTENCE_ENDS, count_words
from ondevice_sdk.text.terms import content_words

__all__ = ["is_whole", "shorter"]

# All three chosen by eye.
_LEAST_TERMS = 4  # content words of what is left: with fewer it says little
_LEAST_JOINED = 3  # words from the last "and" on: with fewer it is half a clause
_LEAST_REST = 15  # characters after an opening that is left out

_ASIDE = re.compile(r"(?:\s|(?=\[\d))[(\[][^()\[\]]{0,300}[)\]]")
_CONDITION = re.compile(
    r"\b(?:unless|except(?:ing)?|excluding|apart from|other than|but not|only|if|until|without|provid(?:ed|ing)|"
    r"as long as)\b",
    re.IGNORECASE,
)
_DENIED = re.compile(r"\b(?:not|no|nor|never|none|(?<=.)but)\b|n['’]t\b", re.IGNORECASE)
_OPENING = re.compile(
    r"\A(?:in|on|at|to|for|with|from|by|as|after|before|since|while|although|though|however|moreover|furthermore|"
    r"therefore|thus|hence|here|also|additionally|finally|first|second|third|specifically|particularly|motivated|"
    r"inspired|based|given|using|instead|recently|currently|unlike|towards?|and|but|so|well|yeah|okay|ok|um|uh|ah|oh|"
    r"now|indeed|overall|meanwhile|nevertheless|consequently|similarly)\b[^,;:]{0,100},\s+(?=(?:we|i|they|he|she|it|you|there|the|an?|this|that|these|"
    r"those|our|my|your|his|her|its|their|each|every|all|both|some|many|most|no)\s)",
    re.IGNORECASE,
)
_STRONG = re.compile(r"[;；]\s*|\s[–—]\s")
_UNSPACED = re.compile(r"[，；、]")
_BORDER = re.compile(
    r"[,;:]\s+|\s[–—-]\s|\s(?=(?:and|but|or|while|which|because|so that|whereas|although|since|by|in|with|using|via|"
    r"through|based|for|on|where|from|at|such|into|over|across|against|towards?|who|whose|including|leading|resulting)"
    r"\s)"
)
_KEPT = re.compile(r"(?:unless|except|only|if|until|when|without|not|nor|never|but not|than)\b", re.IGNORECASE)
_PAIRED = re.compile(r"\b(?:both|between|either|neither)\b", re.IGNORECASE)
_SUBJECTS = "we i they he she it you there"
_VERBS = frozenset(
    f"{_SUBJECTS} is are was were has have had can could will would may might must should do does did says said shows "
    "makes made takes took gives gave gets got goes went comes came keeps kept becomes became begins began costs runs "
    "ran finds found thinks thought wants needs uses stands stood lies lay holds held brings brought leads led meets "
    "met pays paid sees saw tells told wins won loses lost means remains includes provides offers expects plans hopes "
    "helps allows proposes presents introduces describes suggests explains demonstrates argues".split()
)
_HANGING = frozenset(
    "a an the of and or but to for in on by with from at as that which who is are was were be been has have had can "
    "will would could should may might we i they he she our their its his her my your this these those such not no "
    "very more most than into if both either show shows prove find finds use uses using say says said demonstrate "
    "demonstrates depend depends rely relies provide provides include includes allow allows require requires make "
    "makes take takes give gives need needs want wants get put keep let help become ensure enable concentrate "
    "empirically also just like uh um because so".split()
)
_JOINING = frozenset(("and", "or", "but"))
_BEFORE_GERUND = frozenset("by in with via through for on when while where from at of to and or".split())


def shorter(sentence: str, most: int | None = None) -> list[str]:
    """The sentence and its shorter forms of at most `most` words, the longest first."""
    found: list[str] = []
    for form in _forms(sentence):
        found.append(form)
        end = form[-1] if form[-1:] in SENTENCE_ENDS else "."
        for border in _borders(form):
            beginning = form[: border.start()].rstrip(" ,;:–—-，；、")
            if not _KEPT.match(form, border.end()) and not _CONDITION.search(form, border.end()) and _stands(beginning):
                found.append(beginning + ("。" if "。" in form[-1:] else end))
    counted = {form: count_words(form) for form in dict.fromkeys(found)}
    return sorted((form for form in counted if most is None or counted[form] <= most), key=lambda form: -counted[form])


def is_whole(text: str) -> bool:
    """Whether a text ends like a sentence."""
    return text.rstrip(CLOSERS)[-1:] in SENTENCE_ENDS


def _forms(sentence: str) -> list[str]:
    """The sentence; the same without asides; the same without its opening too."""
    forms = [sentence]
    bare = " ".join(_ASIDE.sub(_dropped, sentence).split())
    if bare != sentence and len(bare) > _LEAST_REST:
        forms.append(bare)
    opened = _OPENING.sub(_dropped, forms[-1])
    if opened != forms[-1] and len(opened) > _LEAST_REST and not _KEPT.match(sentence):
        forms.append(opened[0].upper() + opened[1:])
    return forms


def _dropped(part: re.Match[str]) -> str:
    """Nothing in the place of an aside or an opening, unless it limits what is said."""
    said = part.group()
    return said if _CONDITION.search(said) or _DENIED.search(said) else ""


def _borders(form: str) -> list[re.Match[str]]:
    if not form.isascii() and _UNSPACED.search(form):
        return list(_UNSPACED.finditer(form))
    return list((_BORDER if _has_verb(form) else _STRONG).finditer(form))


def _has_verb(text: str) -> bool:
    """Whether a verb or the pronoun before one is among the words: a list of the commonest, and those in -ed."""
    said = [word.strip(".,;:'\"()").lower() for word in text.split()]
    return any(word in _VERBS or (len(word) > 4 and word.endswith("ed")) for word in said)


def _stands(beginning: str) -> bool:
    """Whether the beginning of a sentence can stand alone."""
    said = beginning.lower().split()
    if not said or said[-1].strip("'\"") in _HANGING or len(content_words(beginning)) < _LEAST_TERMS:
        return False
    if not _JOINING.isdisjoint(said[-_LEAST_JOINED:]):
        return False  # "... and stands", "..., and one": the beginning of what was joined on
    if said[-1].endswith("ing") and len(said) > 1 and said[-2] in _BEFORE_GERUND:
        return False
    if any(beginning.count(opening) != beginning.count(closing) for opening, closing in ("()", "[]", "“”", "«»")):
        return False
    if beginning.count('"') % 2 or _PAIRED.search(beginning):
        return False
    clause = beginning.rpartition(" that ")[2] if " that " in beginning else ""
    return not beginning.isascii() or (_has_verb(beginning) and (not clause or _may_have_verb(clause)))


def _may_have_verb(clause: str) -> bool:
    """Whether a clause after "that" is likely to have its verb: "that the model wins again", not "that the model"."""
    said = clause.lower().split()
    return _has_verb(clause) or any(len(word) > 3 and word.endswith("s") for word in said[:-1])
