"""Similarity by meaning inside other tasks: used where an embedding model is installed, left out where there is none.

A flow asks with `similarities`, which gives None where nothing can answer: the task then works with words alone.
`best_passages` is that for a search in a long text.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul
from typing import Final

from ondevice_sdk.backends.api import Embed, Embedded
from ondevice_sdk.errors import InputTooLong, ModelNotInstalled, Unsupported
from ondevice_sdk.tasks.embed import PER_REQUEST, batches
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.text.retrieval import Index, Passage

# Weight of the cosine beside the score by words (the best: 1). On 26 English and 4 Japanese questions about books and
# 52 about encyclopaedia paragraphs 0.25 to 0.5 was never worse than words alone at 1, 3, 5, 10 or 20 sentences, and at
# most 4 points better; 2 and more, ranks instead of scores, and meaning alone were worse in places, most of all in a
# language that the model does not know.
_MEANING: Final = 0.5
WIDE: Final = 40  # sentences that are looked at again: about a second of one core


def similarities(question: str, passages: Sequence[str]) -> Flow[list[float] | None]:
    """Cosine of the question and each passage, -1 to 1; None where there is no embedding model.

    The passages are sentences or small paragraphs: None too where one is longer than the model reads at once.
    """
    vectors = yield from vectors_of([question, *passages])
    if vectors is None:
        return None
    asked, *others = vectors
    return [sum(map(mul, asked, other)) for other in others]


def best_passages(index: Index, question: str, most: int, *, wide: int = WIDE) -> Flow[list[Passage]]:
    """As `Index.search`, with a second look by meaning at the first `wide` where there is an embedding model."""
    found = index.search(question, wide)
    close = yield from similarities(question, [passage.span.text for passage in found])
    if close is None:
        return found[:most]
    return reranked(found, close)[:most]


def reranked(found: Sequence[Passage], close: Sequence[float]) -> list[Passage]:
    """Passages in the order of words and meaning together; their scores stay those of the words."""
    best = max((passage.score for passage in found), default=0.0) or 1.0
    fit = [passage.score / best + _MEANING * cosine for passage, cosine in zip(found, close, strict=True)]
    return [found[at] for at in sorted(range(len(found)), key=lambda at: (-fit[at], at))]


def vectors_of(texts: Sequence[str]) -> Flow[list[tuple[float, ...]] | None]:
    """Vectors of length 1 for texts that are not empty; None as for `similarities`."""
    try:
        results = yield Step(tuple(Embed(tuple(each)) for each in batches(texts, PER_REQUEST)), "comparing")
    except (Unsupported, ModelNotInstalled, InputTooLong):
        return None
    vectors = [vector for result in results if isinstance(result, Embedded) for vector in result.vectors]
    return vectors if len(vectors) == len(texts) else None
