"""Calls of tools: chosen by scores, their arguments written under the tool's schema, never run here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from ondevice_sdk.backends.api import GREEDY, Generate, Generated, Grammar, Raw
from ondevice_sdk.errors import Cancelled, GenerationFailed, OutputInvalid
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.tasks.tools.choice import choose, spoken
from ondevice_sdk.tasks.tools.evidence import Evidence
from ondevice_sdk.tasks.tools.offers import Offer
from ondevice_sdk.tasks.tools.values import narrowed
from ondevice_sdk.types import Generation, Message, Segment, Usage

# Shows how an argument is taken from a request.
_SHOWN: Final = (
    "Function: book table\n"
    "Description: Reserve a table in a restaurant.\n"
    "Parameters:\n"
    "- restaurant: The name of the restaurant.\n"
    "- guests: How many people will come.\n"
    "- day: The day of the week.\n"
    "Request: Please get us a table for four at Luigi's Kitchen this Friday.\n"
    'Arguments: {"restaurant":"Luigi\'s Kitchen","guests":4,"day":"Friday"}\n\n'
)


def call_tool(
    messages: Sequence[Message], offers: Sequence[Offer], *, max_tokens: int, deterministic: bool
) -> Flow[tuple[Generation[Any] | None, Usage]]:
    """Propose a call, where one of the tools serves the last request; None where the answer is a text.

    A tool that has answered this request already is not asked again. Arguments are the likeliest, whatever the sampling
    of texts.

    Raises:
        OutputInvalid: the arguments need more than `max_tokens`.
    """
    request, answered = _request(messages)
    open_to_ask = [offer for offer in offers if offer.name not in answered]
    if not open_to_ask:
        return None, Usage()
    try:
        offer, usage = yield from choose(request[0], open_to_ask)
    except Cancelled:
        return Generation("", None, Usage(), "cancelled"), Usage()
    if offer is None:
        return None, usage
    text = "\n".join(request)
    schema = narrowed(offer.schema, Evidence.of(text))
    grammar = Grammar("json_schema", source=json.dumps(schema, separators=(",", ":")))
    prompt = _prompt(offer, schema, text)
    writing = Generate(prompt, max_tokens, GREEDY, grammar=grammar, deterministic=deterministic)
    (result,) = yield Step((writing,), "calling")
    if not isinstance(result, Generated):
        raise GenerationFailed("the engine answered a generation with something else")
    usage += result.usage
    if result.finish_reason == "cancelled":
        return Generation(result.text, None, usage, "cancelled"), usage
    if result.finish_reason == "length":  # closed or not, its last value may be half of one
        raise OutputInvalid("max_tokens is too small for the arguments of the tool", raw=result.text)
    call = offer.call(result.text)
    said = f'{{"name":{json.dumps(offer.name, ensure_ascii=False)},"arguments":{result.text}}}'
    return Generation(said, None, usage, "tool_call", (call,)), usage


def _request(messages: Sequence[Message]) -> tuple[list[str], set[str]]:
    """The last request with what tools gave for it, and the names of these tools."""
    start = max((index for index, message in enumerate(messages) if message.role == "user"), default=0)
    given = [messages[start].content]
    answered: set[str] = set()
    for before, message in zip(messages[start:], messages[start + 1 :], strict=False):
        if message.role == "tool":
            given.append(message.content)
            answered.add(_called(before))
    return given, answered


def _called(message: Message) -> str:
    """The tool that a turn of the model called."""
    try:
        value = json.loads(message.content)
    except (ValueError, RecursionError):
        return ""
    name = value.get("name") if isinstance(value, dict) else None
    return name if isinstance(name, str) else ""


def _prompt(offer: Offer, schema: dict[str, Any], request: str) -> Raw:
    described = [
        f"- {name}: {part.get('description', '') if isinstance(part, dict) else ''}"
        for name, part in schema["properties"].items()
    ]
    frame = "\n".join(
        [f"Function: {spoken(offer.name)}", f"Description: {offer.description}", "Parameters:", *described, "Request: "]
    )
    return Raw((Segment(_SHOWN + frame), Segment(request), Segment("\nArguments: ")))
