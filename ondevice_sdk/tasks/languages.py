"""The language of a text: script and common words decide where they can, the model where they leave it open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ondevice_sdk.tasks.flow import Flow
from ondevice_sdk.tasks.labels.flow import decided, score_labels
from ondevice_sdk.tasks.labels.learned import Learned
from ondevice_sdk.text.languages import language_shares
from ondevice_sdk.text.split import count_words
from ondevice_sdk.types import Analysis, Usage

_UNDETERMINED = "und"
# All but `_SHARP` chosen by eye.
_CLEAR_FROM = 0.5  # share of the evidence, from which the model is not asked
_READ = 2000  # characters that the model reads
_FEW_WORDS = 12  # fewer may well have no common word, so that nothing can be told from that
_FLOOR = 0.02  # weight of languages with no evidence
_UNLISTED = 0.1  # weight of all languages that are not in the list
_SHARP = 2.0  # power of the weights: with 1 a sure answer was called 84 % sure (250 paragraphs and 240 sentences)


def detect_language(
    text: str,
    form: Any,
    labels: Mapping[str, Any],
    *,
    context_tokens: int,
    examples: Sequence[tuple[str, str]],
    abstain_below: float | None,
    learned: Learned | None = None,
) -> Flow[Analysis[Any]]:
    """Decide between languages; `und` where the text has no words, or many that are common in none of them.

    The probabilities are ranked, and `und` comes last: what is left to languages that are not in the list.
    """
    shares = language_shares(text)
    weights = {label: shares.get(label, 0.0) for label in labels}
    usage, warnings = Usage(), []
    if not any(sign.isalpha() for sign in text):
        weights[_UNDETERMINED] = 1.0
    elif max(weights.values()) >= _CLEAR_FROM:
        weights[_UNDETERMINED] = max(0.0, 1 - sum(weights.values()))
    else:
        known = {label: value for label, value in labels.items() if label != _UNDETERMINED}
        scored = yield from score_labels(
            text.strip()[:_READ],
            form,
            known,
            context_tokens=context_tokens,
            examples=[each for each in examples if each[1] in known],
            abstain_below=None,
            learned=learned,
        )
        usage, warnings = scored.usage, list(scored.warnings)
        for label, probability in (scored.probabilities or {}).items():
            weights[label] = (weights[label] + _FLOOR) * probability**0.5
        if count_words(text) >= _FEW_WORDS:
            weights[_UNDETERMINED] = _UNLISTED
    sharp = {label: weight**_SHARP for label, weight in weights.items()}
    total = sum(sharp.values())
    ranked = sorted(sharp, key=lambda label: (label == _UNDETERMINED, -sharp[label]))
    probabilities = {label: sharp[label] / total for label in ranked}
    return decided(labels, probabilities, warnings, usage, abstain_below)
