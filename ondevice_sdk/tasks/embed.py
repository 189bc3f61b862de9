"""Text embeddings: a vector for each text, whatever its length."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, TypeVar

from ondevice_sdk.backends.api import Embed, Embedded, Tokenize, Tokenized
from ondevice_sdk.errors import ConfigurationError, GenerationFailed
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.text.split import check_text, sentences
from ondevice_sdk.types import Embeddings, Usage

AT_A_TIME: Final = 256  # texts that are taken and measured together: what an endless source costs in memory
PER_REQUEST: Final = 32  # texts; what runs in one request is cancelled and told of as one
MARGIN: Final = 16  # tokens of the context for what the model puts around a text, and for borders inside it
_TOKENS_PER_CHARACTER: Final = 4  # the most, of tokenisers that fall back to bytes

T = TypeVar("T")


def embed(texts: str | Iterable[str], *, context_tokens: int) -> Flow[Embeddings]:
    """A vector of length 1 for each text; texts are taken as they are needed.

    A text that is longer than the context is read in parts, of whole sentences where these fit; its vector is the mean
    of theirs, weighted by their tokens. A warning says so.

    Raises:
        ConfigurationError: a text is empty, no str, or has a lone surrogate; the message says which by its number.
    """
    several = [texts] if isinstance(texts, str) else texts
    _check_source(several)
    total = len(several) if isinstance(several, Sequence) else None
    limit = max(1, context_tokens - MARGIN)
    source = _checked(several)
    done = _Done(total=total)
    while taken := list(islice(source, AT_A_TIME)):
        parts = yield from _parts(taken, limit)
        done.in_parts += sum(len(each) > 1 for each in parts)
        flat = [part for each in parts for part in each]
        vectors = yield from _vectors([part.text for part in flat], done, len(taken))
        rest = iter(vectors)
        for each in parts:
            own = list(islice(rest, len(each)))
            done.vectors.append(own[0] if len(own) == 1 else _mean(own, [part.tokens for part in each]))
    warnings: tuple[str, ...] = ()
    if done.in_parts:
        many = f"{done.in_parts} texts are" if done.in_parts > 1 else "1 text is"
        warnings = (f"{many} longer than the {limit} tokens that the model reads at once, and read in parts",)
    return Embeddings(tuple(done.vectors), warnings, done.usage)


@dataclass(slots=True)
class _Done:
    """What there is so far."""

    total: int | None  # texts, where it is known
    vectors: list[array[float]] = field(default_factory=list)
    in_parts: int = 0
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class _Part:
    text: str = field(repr=False)
    tokens: int = 1


def _check_source(texts: object) -> None:
    if isinstance(texts, bytes | dict) or not isinstance(texts, Iterable):
        raise ConfigurationError(f"texts must be a str or several, not {type(texts).__name__}")


def _checked(texts: Iterable[str]) -> Iterator[str]:
    """The texts; where there are all of them already, each is looked at before the first is used."""
    if isinstance(texts, Sequence):
        for number, text in enumerate(texts):
            check_text(text, f"text {number}")
        yield from texts
        return
    for number, text in enumerate(texts):
        check_text(text, f"text {number}")
        yield text


def _vectors(texts: list[str], done: _Done, whole: int) -> Flow[list[array[float]]]:
    """A vector for each of these, which are parts of so many texts."""
    found: list[array[float]] = []
    for some in batches(texts, AT_A_TIME):
        requests = tuple(Embed(tuple(each)) for each in batches(some, PER_REQUEST))
        before = whole * len(found) // len(texts)
        gain = whole * (len(found) + len(some)) // len(texts) - before
        told = len(done.vectors) + before
        results = yield Step(requests, "embedding", done=told, gain=gain, total=done.total, unit="texts")
        for result in results:
            if not isinstance(result, Embedded):
                raise GenerationFailed("the engine answered a request for embeddings with something else")
            for vector in result.vectors:
                known = found or done.vectors
                found.append(_unit(vector, len(known[0]) if known else 0))
            done.usage += result.usage
    return found


def _parts(texts: list[str], limit: int) -> Flow[list[list[_Part]]]:
    """Each text as the parts that are embedded: one, or as many as its length asks for."""
    long = [text for text in texts if len(text) * _TOKENS_PER_CHARACTER > limit]
    # A text with so many characters is not worth measuring as a whole: few tokens are as long as that.
    measured = [text for text in long if len(text) <= limit * 16]
    counts = dict(zip(measured, (yield from _count(measured)), strict=True))
    found = []
    for text in texts:
        if text not in long or counts.get(text, limit + 1) <= limit:
            found.append([_Part(text)])
        else:
            found.append((yield from _split(text, limit)))
    return found


def _split(text: str, limit: int) -> Flow[list[_Part]]:
    """Neighbouring sentences together as far as they fit; a sentence that is too long itself in pieces."""
    starts = [span.start for span in sentences(text, longest=limit)]
    atoms = list(zip(starts, [*starts[1:], len(text)], strict=True))  # what is between sentences may be tokens too
    counts = yield from _count([text[start:end] for start, end in atoms])
    if any(count > limit for count in counts):
        small = max(1, limit // _TOKENS_PER_CHARACTER)
        pieces: list[tuple[int, int]] = []
        for (start, end), count in zip(atoms, counts, strict=True):
            step = small if count > limit else end - start
            pieces += [(at, min(at + step, end)) for at in range(start, end, step)]
        atoms = pieces
        counts = yield from _count([text[start:end] for start, end in atoms])
    found: list[_Part] = []
    begin, tokens = atoms[0][0], 0
    before = begin
    for (start, end), count in zip(atoms, counts, strict=True):
        if tokens and tokens + count > limit:
            found.append(_Part(text[begin:before], tokens))
            begin, tokens = start, 0
        tokens += count
        before = end
    found.append(_Part(text[begin:before], max(1, tokens)))
    return found


def _count(texts: list[str]) -> Flow[list[int]]:
    if not texts:
        return []
    results = yield Step(tuple(Tokenize(tuple(each)) for each in batches(texts, AT_A_TIME)), "measuring")
    counts: list[int] = []
    for result in results:
        if not isinstance(result, Tokenized):
            raise GenerationFailed("the engine answered a token count with something else")
        counts += result.counts
    return counts


def _unit(vector: Sequence[float], width: int) -> array[float]:
    """The vector with length 1.

    Raises:
        GenerationFailed: it has no direction, or another width than those before (0: there are none).
    """
    length = math.hypot(*vector)
    if not 0 < length < math.inf or width not in (0, len(vector)):
        raise GenerationFailed("the engine gave a vector without a direction, or of another width")
    return array("f", vector if abs(length - 1) < 1e-3 else (value / length for value in vector))


def _mean(vectors: list[array[float]], weights: list[int]) -> array[float]:
    """The weighted mean, of length 1; the first of them where they cancel out."""
    sums = [0.0] * len(vectors[0])
    for vector, weight in zip(vectors, weights, strict=True):
        sums = [total + weight * value for total, value in zip(sums, vector, strict=True)]
    length = math.sqrt(sum(value * value for value in sums))
    return array("f", (value / length for value in sums)) if length else vectors[0]


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items, so many at a time."""
    return (items[at : at + size] for at in range(0, len(items), size))
