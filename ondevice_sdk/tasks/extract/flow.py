"""Extraction into a schema, field by field: values are pieces of the text, so that none is invented.

The text is indexed in full. Each field is looked up in it: one that is described by a question in the sentences that
share the question's words, any other in the windows that share words of its name and description, or in all of a short
text. What may be a value there is found by rules, and the model's scores say which of it is. A field without a value is
null or left out where the schema allows it; else it has what fits best, with a warning that names its path.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ondevice_sdk.backends.api import Chat, Generate, Generated, Grammar, Sampling
from ondevice_sdk.errors import GenerationFailed, OutputInvalid
from ondevice_sdk.tasks.extract.ask import page_for, windows
from ondevice_sdk.tasks.extract.found import Found, pointer
from ondevice_sdk.tasks.extract.named import SPANNED, read_closed, read_named, read_rows
from ondevice_sdk.tasks.extract.outline import Field, Object, Outline, Path
from ondevice_sdk.tasks.extract.questions import read_questions
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.tasks.schema import parse_json
from ondevice_sdk.text.retrieval import Index
from ondevice_sdk.types import JsonValue, Message, Span

_VALUE_TOKENS = 48  # of a value that has to be written, because nothing of the text may be it


class TooFewItemsError(Exception):
    """A list has to have more items than were found: the form has to be written as a whole."""


def extract(
    text: str, plan: Outline, *, context_tokens: int, examples: Sequence[tuple[str, JsonValue]] = ()
) -> Flow[tuple[JsonValue, Found]]:
    """Read the fields of an outline out of a text of any length.

    Raises:
        InputTooLong: names and descriptions are too long for the context. TooFewItemsError: a list has to have more
            items than were found.
    """
    found = Found()
    index = Index(text)
    every = [*plan.fields, *(each for rows in plan.rows for each in rows.fields)]
    page = page_for(every, [(shown, _solved(plan.fields, answer)) for shown, answer in examples], context_tokens)
    if page.left_out:
        found.warnings.append(f"{page.left_out} of {len(examples)} examples did not fit into the context")
    parts = windows(text, index.sentences, page.chars)
    asked = [each for each in plan.fields if each.question and each.kind in SPANNED]
    named = [each for each in plan.fields if not each.question and each.kind in SPANNED]
    closed = [each for each in plan.fields if each.kind not in SPANNED]
    missed = yield from read_questions(asked, index, found, page, short=len(parts) <= 1)
    missed += yield from read_named(named, index, parts, page, found)
    missed += yield from read_closed(closed, index, parts, page, found)
    yield from _written([each for each in missed if not each.may_lack], parts[0], found)
    for each in missed:
        if each.may_lack and each.required:
            found.put(each, [] if each.many else None)
    output: JsonValue = None
    for held in plan.objects:
        if held.required:
            output = _put(output, held.path, None if held.nullable else {})
    for each in plan.fields:
        if each.path in found.values:
            output = _put(output, each.path, found.values[each.path])
        elif each.nullable and not each.many and isinstance(_at(output, each.path[:-1]), dict):
            output = _put(output, each.path, None)
    for rows in plan.rows:
        records = yield from read_rows(rows, parts, page, found)
        items: list[JsonValue] = []
        for number, record in enumerate(records):
            row = Found()
            for each, span in record:
                row.keep(each, [span])
            item: JsonValue = {}
            for each in rows.fields:
                if each.path in row.values or (each.nullable and each.required):
                    item = _put(item, each.path, row.values.get(each.path))
            items.append(item)
            found.prove([((*rows.path, str(number), *each.path), span) for each, span in record])
        if items or rows.required:
            output = _put(output, rows.path, None if rows.nullable and not items else items)
    for held in reversed(plan.objects):
        output = _completed(output, held, found)
    if any(isinstance(value := _at(output, path), list) and len(value) < least for path, least in plan.least_items):
        raise TooFewItemsError
    return output, found


def _completed(output: JsonValue, held: Object, found: Found) -> JsonValue:
    """The output without an object that may lack and lacks what it has to have: half of it would not be valid."""
    there = _at(output, held.path)
    if not isinstance(there, dict) or held.needs <= set(there) or (held.required and not held.nullable):
        return output
    gone = pointer(held.path) + "/"
    found.evidence = [proof for proof in found.evidence if not proof.path.startswith(gone)]
    if held.required or not held.path:
        return _put(output, held.path, None)
    parent = _at(output, held.path[:-1])
    assert isinstance(parent, dict)
    kept: JsonValue = {name: value for name, value in parent.items() if name != held.path[-1]}
    return _put(output, held.path[:-1], kept)


def _at(output: JsonValue, path: Path) -> JsonValue:
    for step in path:
        output = output.get(step) if isinstance(output, dict) else None
    return output


def _written(fields: Sequence[Field], part: Span, found: Found) -> Flow[None]:
    """Have the model write what has to be there and is nowhere in the text. Each such value is doubtful."""
    requests = tuple(
        Generate(
            Chat((Message("user", f"{part.text}\n\n{each.question or each.name} Answer in JSON."),)),
            _VALUE_TOKENS,
            Sampling(temperature=0.0),
            grammar=Grammar("json_schema", source=json.dumps(_alone(each), separators=(",", ":"))),
        )
        for each in fields
    )
    if not requests:
        return
    results = yield Step(requests, "writing")
    for each, result in zip(fields, results, strict=True):
        if not isinstance(result, Generated):
            raise GenerationFailed("the engine answered a generation with something else")
        found.usage += result.usage
        if result.finish_reason == "cancelled":
            raise OutputInvalid("the analysis was cancelled", raw=result.text)
        found.put(each, parse_json(result.text))
        found.doubt(each.path)


def _alone(each: Field) -> Mapping[str, Any]:
    """The schema of a value, without what asks for a long one."""
    names = ("type", "format", "minLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    schema = {name: each.limits[name] for name in names if name in each.limits}
    if each.kind == "string":
        schema["maxLength"] = min(each.limits.get("maxLength", _VALUE_TOKENS), 2 * _VALUE_TOKENS)
    return schema


def _put(output: JsonValue, path: Path, value: JsonValue) -> JsonValue:
    """The output with a value at a path; objects on the way are made."""
    if not path:
        return value
    held = dict(output) if isinstance(output, dict) else {}
    held[path[0]] = _put(held.get(path[0]), path[1:], value)
    return held


def _solved(fields: Sequence[Field], answer: JsonValue) -> list[tuple[Field, str]]:
    """The fields of an example's answer as text."""
    solved = []
    for each in fields:
        value = _at(answer, each.path)
        items = value if isinstance(value, list) else [value]
        shown = ", ".join(item if isinstance(item, str) else json.dumps(item) for item in items if item is not None)
        solved.append((each, shown or "none"))
    return solved
