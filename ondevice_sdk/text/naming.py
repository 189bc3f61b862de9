"""How much the shape of a candidate and the model's scores say for each kind of name: a fixed weighing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

__all__ = ["ASKED", "KINDS", "LABELS", "SORTS", "WEIGHTS", "evidence", "probabilities"]

KINDS: Final = ("none", "person", "place", "organisation")
LABELS: Final = (
    "person",
    "place",
    "organization",
    "product",
    "word",
)  # what the model is offered for a name in its text
SORTS: Final[Mapping[str, str]] = MappingProxyType(  # and for a name alone, with the group that each counts for
    {
        **dict.fromkeys(("woman", "man"), "given name"),
        "family": "family name",
        **dict.fromkeys(("city", "village"), "town"),
        "country": "country",
        **dict.fromkeys(("street", "place"), "spot"),
        "company": "company",
        **dict.fromkeys(("team", "school", "group"), "body"),
        "product": "product",
        "word": "word",
    }
)
_GROUPS = tuple(dict.fromkeys(SORTS.values()))
ASKED: Final = (*(f"in its text: {label}" for label in LABELS), *(f"alone: {group}" for group in _GROUPS))

# For person, place and organisation; "none" is zero. Fitted by scripts/fit_names.py to shapes and to the scores of
# SmolLM2-135M-Instruct int4: a multinomial logistic regression, its penalty and its cues chosen by cross-validation.
WEIGHTS: Final[Mapping[str, tuple[float, float, float]]] = MappingProxyType(
    {
        "always": (0.54, -3.07, -4.15),
        "acronym": (-0.57, 0.81, 0.01),
        "company": (-0.55, -0.34, 1.23),
        "honorific": (1.28, -0.50, -0.51),
        "japanese": (0.01, 0.49, 0.45),
        "japanese_body": (-0.38, 0.53, 1.40),
        "japanese_dotted": (1.62, 0.11, 0.47),
        "japanese_kanji": (0.48, -0.23, -0.08),
        "japanese_katakana": (1.04, 1.17, 0.67),
        "japanese_latin": (-0.54, -0.60, -0.00),
        "japanese_long": (0.50, 0.89, 0.80),
        "japanese_mixed": (-0.97, 0.15, -0.14),
        "japanese_name": (0.11, 0.12, 0.56),
        "japanese_place": (0.07, 2.04, -0.12),
        "japanese_quoted": (-0.16, -0.41, 0.39),
        "japanese_short": (-0.60, -0.53, -0.91),
        "located": (-0.54, 2.13, 0.66),
        "not_latin": (1.32, 1.08, 0.64),
        "one": (0.18, 1.00, 0.14),
        "owner": (-0.26, -0.14, 0.81),
        "shouted": (0.18, 0.30, -0.36),
        "start": (-0.47, -0.37, -0.87),
        "titled": (-0.83, -0.76, 0.27),
        "two": (0.74, 0.05, -0.18),
        "in its text: person": (0.50, -0.08, -0.11),
        "in its text: place": (-0.29, 0.38, -0.04),
        "in its text: organization": (0.22, 0.17, 0.61),
        "in its text: product": (-0.20, -0.10, -0.06),
        "in its text: word": (-0.14, -0.16, -0.34),
        "alone: given name": (0.56, -0.08, -0.24),
        "alone: family name": (0.14, 0.05, -0.03),
        "alone: town": (0.45, 0.24, 0.09),
        "alone: country": (0.03, 0.22, 0.09),
        "alone: spot": (-0.11, 0.14, -0.02),
        "alone: company": (-0.18, -0.24, 0.13),
        "alone: body": (-0.18, -0.17, -0.04),
        "alone: product": (0.25, 0.06, 0.01),
        "alone: word": (-0.24, -0.32, -0.17),
    }
)

_LEAST = -20.0  # of a log-probability; what is less likely is not told apart


def evidence(alone: Sequence[float], in_text: Sequence[float] | None) -> list[float]:
    """Log-probabilities for each of `ASKED`, of the model's scores of `SORTS` and of `LABELS`.

    Those of one question sum to 1, as if there were no other answers. A question that was not asked says nothing.
    """
    shares = dict.fromkeys(_GROUPS, 0.0)
    for (_, group), logprob in zip(SORTS.items(), _among_themselves(alone), strict=True):
        shares[group] += math.exp(logprob)
    told = [0.0] * len(LABELS) if in_text is None else [max(value, _LEAST) for value in _among_themselves(in_text)]
    return [*told, *(max(math.log(share), _LEAST) if share else _LEAST for share in shares.values())]


def _among_themselves(logprobs: Sequence[float]) -> list[float]:
    held = [-1e4 if math.isnan(value) else min(max(value, -1e4), 0.0) for value in logprobs]
    highest = max(held)
    total = highest + math.log(math.fsum(math.exp(value - highest) for value in held))
    return [value - total for value in held]


def probabilities(cues: Iterable[str], scores: Sequence[float]) -> list[float]:
    """The chance of each of `KINDS`.

    Args:
        cues: of the candidate.
        scores: the evidence.
    """
    logits = [0.0, *WEIGHTS["always"]]
    weighed = [(name, 1.0) for name in cues if name in WEIGHTS]
    weighed += [(name, value) for name, value in zip(ASKED, scores, strict=True)]
    for name, value in weighed:
        for index, weight in enumerate(WEIGHTS[name], 1):
            logits[index] += weight * value
    highest = max(logits)
    shares = [math.exp(value - highest) for value in logits]
    total = math.fsum(shares)
    return [share / total for share in shares]
