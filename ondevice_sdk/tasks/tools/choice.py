"""Which tool serves a request, if any: by the words they share, and between rivals by what the model finds likelier.

A model of 135M parameters that is asked to choose calls always or never, and neither a yes or no nor the likelihood of
the request told requests that a tool serves from others (areas under the curve of 0.40 to 0.43 on 61 development rows).
What they have in common in words did: 0.91, and the numbers that a tool needs told more. Between several tools
that fit, the request is likelier after the description of the right one (channel scoring, Min et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from ondevice_sdk.backends.api import Raw, Score, Scored
from ondevice_sdk.errors import GenerationFailed
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.tasks.tools.evidence import Evidence, separate, words_of
from ondevice_sdk.tasks.tools.offers import Offer
from ondevice_sdk.tasks.tools.values import wanted_numbers
from ondevice_sdk.types import Segment, Usage

# Of a longer request, beginning and end are weighed: what is wanted stands there, and between them what was pasted.
_WEIGHED: Final = 900  # characters
_DESCRIBED: Final = 600  # characters of a description that is weighed

# Three words in common; the whole name, said, is worth two more. Of 190 development requests that a tool serves 154
# have that, of 50 that none does 0. With two words it would be 173 and 2, with part of a name counting too 165 and 1.
_ENOUGH: Final = 3
_NAME: Final = 2
_RIVAL: Final = 2  # so far behind the best the model is not asked
# What many names begin with says nothing of what the tool is for.
_VERBS: Final = frozenset(
    words_of(
        "get find search calculate compute check retrieve fetch list look lookup function set make create send add "
        "show start open give tell ask new run do info information details data"
    )
)


def choose(request: str, offers: Sequence[Offer]) -> Flow[tuple[Offer | None, Usage]]:
    """The tool that serves a request; None where none seems to."""
    weighed = _ends(request)
    words = frozenset(words_of(weighed))
    numbers = len(Evidence.of(request).numbers)
    fitting = [
        (offer, shared)
        for offer in offers
        if wanted_numbers(offer.schema) <= numbers and (shared := in_common(words, offer)) >= _ENOUGH
    ]
    if not fitting:
        return None, Usage()
    best = max(shared for _, shared in fitting)
    rivals = [offer for offer, shared in fitting if shared > best - _RIVAL]
    if len(rivals) == 1:
        return rivals[0], Usage()
    results = yield Step(tuple(Score(_frame(offer), (f" {weighed}",)) for offer in rivals), "choosing")
    usage = Usage()
    likelihoods: list[float] = []
    for result in results:
        if not isinstance(result, Scored) or len(result.logprobs) != 1:
            raise GenerationFailed("the engine answered a scoring with something else")
        usage += result.usage
        likelihoods.append(result.logprobs[0] if math.isfinite(result.logprobs[0]) else -math.inf)
    return rivals[max(range(len(rivals)), key=likelihoods.__getitem__)], usage


def in_common(words: frozenset[str], offer: Offer) -> int:
    """How many content words a request shares with a tool: its name, its description, its arguments, their options."""
    name = {*words_of(offer.name)} - _VERBS
    own = {*words_of(offer.name), *words_of(offer.description)}
    for argument, part in offer.parameters.items():
        own.update(words_of(argument))
        if isinstance(part, dict):
            own.update(words_of(str(part.get("description", ""))))
            for option in _options(part):
                own.update(words_of(option))
    return len(words & own) + (_NAME if name and name <= words else 0)


def spoken(name: str) -> str:
    """An identifier as words."""
    return " ".join(separate(name).split()).lower() or name


def _options(part: dict[str, object]) -> list[str]:
    items = part.get("items")
    listed = part.get("enum", items.get("enum") if isinstance(items, dict) else None)
    return [option for option in listed if isinstance(option, str)] if isinstance(listed, list) else []


def _frame(offer: Offer) -> Raw:
    said = f"Function: {spoken(offer.name)}\nDescription: {offer.description[:_DESCRIBED]}\nRequest:"
    return Raw((Segment(said),))


def _ends(request: str) -> str:
    if len(request) <= _WEIGHED:
        return request
    return f"{request[: _WEIGHED // 2]} ... {request[-_WEIGHED // 2 :]}"
