"""Analyse a text: pick a label by scores, or fill a form under a constraint."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ondevice_sdk.backends.api import Chat, Generate, Generated, Grammar, Sampling
from ondevice_sdk.errors import ConfigurationError, GenerationFailed, OutputInvalid, SchemaUnsupported
from ondevice_sdk.tasks.extract.check import Check
from ondevice_sdk.tasks.extract.flow import TooFewItemsError, extract
from ondevice_sdk.tasks.extract.outline import outline
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.tasks.forms import Languages, TextForm
from ondevice_sdk.tasks.generate import check_seed
from ondevice_sdk.tasks.labels.flow import check_threshold, score_labels
from ondevice_sdk.tasks.labels.learned import Learned
from ondevice_sdk.tasks.languages import detect_language
from ondevice_sdk.tasks.quoting import QUOTING
from ondevice_sdk.tasks.reading import Room, count_tokens, split_to_fit
from ondevice_sdk.tasks.schema import close_json, dump, grammar_for, json_schema, labels_of, parse, parse_json
from ondevice_sdk.text.injection import steering_warning
from ondevice_sdk.text.split import check_text
from ondevice_sdk.types import Analysis, JsonValue, Message, Usage

# Tokens of a filled form, at least and at most (less in a small context). Chosen by eye.
_LEAST_ANSWER = 64
_ANSWER_TOKENS = 512


def analyse(
    text: str,
    form: Any,
    *,
    context_tokens: int,
    examples: Sequence[tuple[str, Any]] = (),
    abstain_below: float | None = None,
    seed: int | None = None,
    learned: Learned | None = None,
) -> Flow[Analysis[Any]]:
    """Answer in a form.

    Labels (`Literal`, `Enum`, `Sentiment`) are scored, `Languages` where script and words leave it open:
    `probabilities` sum to 1, `confidence` is that of the output, and below `abstain_below` the warning "low confidence"
    is added. A form with fields is filled field by field with pieces of the text (`extract`), however long it is; one
    that is no list of fields (recursive, with alternatives, free) is written under a constraint and then held against
    the text. Either way `evidence` has the places of values, what the text does not bear out is null or left out where
    the form allows that, and else a warning names its path. A text that does not fit is analysed in parts: labels by
    averaged scores; of what is written, lists are joined without duplicates, objects field by field, and of single
    values the first that the text bears out counts. `learned` keeps what label scoring finds out once for all texts.
    A text that tries to steer the model brings a warning.

    Raises:
        ConfigurationError: an empty text or a wrong option. SchemaUnsupported: a form that cannot be a constraint.
        OutputInvalid: the model did not complete the form, not even without the item that it was at. InputTooLong: form
            and examples leave no room.
    """
    check_text(text)
    check_seed(seed)
    check_threshold(abstain_below)
    pairs = _checked_examples(examples)
    result = yield from _answer(text, form, pairs, context_tokens, abstain_below, seed, learned)
    warning = steering_warning(text)
    return result if warning is None else replace(result, warnings=(*result.warnings, warning))


def _answer(
    text: str,
    form: Any,
    pairs: list[tuple[str, Any]],
    context_tokens: int,
    abstain_below: float | None,
    seed: int | None,
    learned: Learned | None,
) -> Flow[Analysis[Any]]:
    labels = labels_of(form)
    if labels is not None:
        solved = [(shown, dump(form, answer)) for shown, answer in pairs]
        decide = detect_language if form is Languages else score_labels
        return (
            yield from decide(
                text,
                form,
                labels,
                context_tokens=context_tokens,
                examples=solved,
                abstain_below=abstain_below,
                learned=learned,
            )
        )
    quote = QUOTING.get(form) if isinstance(form, type) else None
    if quote is not None:
        if pairs:
            raise ConfigurationError("a form that quotes the text takes no examples")
        return (yield from quote(text, context_tokens=context_tokens))
    return (yield from _fill(text, form, context_tokens, pairs, seed))


def merge(values: Sequence[JsonValue], borne: Callable[[JsonValue], bool] = lambda _: True) -> JsonValue:
    """One value of several parts of a text: lists joined without duplicates, objects by field, else the first `borne`.

    Where none is borne out, the first that is not empty.
    """
    present = [value for value in values if value not in (None, "", [], {})]
    if not present:
        return values[0]
    first = present[0]
    if isinstance(first, list):
        joined: dict[str, JsonValue] = {}
        for value in present:
            for item in value if isinstance(value, list) else ():
                joined.setdefault(json.dumps(item, sort_keys=True), item)
        return list(joined.values())
    if isinstance(first, dict):
        objects = [value for value in values if isinstance(value, dict)]
        names = dict.fromkeys(name for value in objects for name in value)
        return {name: merge([value[name] for value in objects if name in value], borne) for name in names}
    return next((value for value in present if borne(value)), first)


def _fill(
    text: str, form: Any, context_tokens: int, examples: list[tuple[str, Any]], seed: int | None
) -> Flow[Analysis[Any]]:
    built_in = form if isinstance(form, type) and issubclass(form, TextForm) else None
    target = built_in.schema if built_in is not None else form
    grammar = grammar_for(target)
    if grammar is None or grammar.form == "regex":
        raise SchemaUnsupported("analyse needs labels or a form with parts", path="$", keyword="string")
    plan = outline(json_schema(form)) if built_in is None else None
    if plan is not None:
        solved = [(shown, parse_json(dump(form, answer))) for shown, answer in examples]
        with suppress(TooFewItemsError):
            value, found = yield from extract(text, plan, context_tokens=context_tokens, examples=solved)
            output = value if isinstance(form, Mapping) else parse(form, json.dumps(value))
            proofs, notes = tuple(found.evidence), tuple(found.warnings)
            return Analysis(output, evidence=proofs, warnings=notes, usage=found.usage)
    check = Check(text, json_schema(target)) if built_in is None else None
    if check is not None and _is_open_list(check.schema):
        grammar = Grammar("json_schema", source=json.dumps({**check.schema, "minItems": 1}, separators=(",", ":")))
    instruction = f"{built_in.instruction} Answer in JSON." if built_in is not None else _instruction(target)
    warnings: list[str] = []
    if built_in is not None and not examples:
        examples = [built_in.shown]
    kept = yield from _fitting(examples, target, instruction, context_tokens)
    if len(kept) < len(examples):
        warnings.append(f"{len(examples) - len(kept)} of {len(examples)} examples did not fit into the context")
    turns = tuple(message for pair in kept for message in pair)
    answer_tokens = min(_ANSWER_TOKENS, context_tokens // 3)
    if built_in is not None:  # quotes the text: what is much longer than it goes round in circles
        answer_tokens = min(answer_tokens, _LEAST_ANSWER + 3 * len(text.encode()) // 4)

    def prompt(part: str) -> Chat:
        return Chat((*turns, Message("user", f"{part}\n\n{instruction}")))

    chunks = yield from split_to_fit(text, [Room(prompt(""), answer_tokens)], context_tokens)
    sampling = Sampling(temperature=0.0 if seed is None else 0.7, seed=seed)
    prompts = dict.fromkeys(prompt(chunk.text) for chunk in chunks if chunk.text)
    results = yield Step(tuple(Generate(p, answer_tokens, sampling, grammar=grammar) for p in prompts), "reading")
    output, usage, unfinished = _joined(results, grammar, target, check)
    if unfinished:
        warnings.append(
            f"{unfinished} of {len(results)} answers ran out of tokens: their last, unfinished item is left out"
        )
    if built_in is not None:
        output = built_in.of(output, text)
    evidence = tuple(check.evidence) if check is not None else ()
    return Analysis(output, evidence=evidence, warnings=(*warnings, *(check.warnings if check else ())), usage=usage)


def _joined(results: Sequence[object], grammar: Grammar, form: Any, check: Check | None) -> tuple[Any, Usage, int]:
    """The value of all answers, as far as it is borne out, what they used, and how many ran out of tokens."""
    usage = Usage()
    raws: list[str] = []
    unfinished = 0
    for result in results:
        if not isinstance(result, Generated):
            raise GenerationFailed("the engine answered a generation with something else")
        usage += result.usage
        if result.finish_reason == "cancelled":
            raise OutputInvalid("the analysis was cancelled", raw=result.text)
        closed = close_json(result.text) if result.finish_reason == "length" and not _is_json(result.text) else None
        unfinished += closed is not None
        raws.append(result.text if closed is None else closed)
    if grammar.form != "json_schema" or (check is None and len(raws) == 1):
        return parse(form, raws[0]), usage, unfinished
    values = [parse_json(raw) for raw in raws]
    merged = merge(values, check.bears) if check is not None else merge(values)
    merged = check.kept(merged) if check is not None else merged
    return (merged if isinstance(form, Mapping) else parse(form, _dumped(merged))), usage, unfinished


def _dumped(value: JsonValue) -> str:
    try:
        return json.dumps(value)
    except RecursionError:
        pass
    raise OutputInvalid("the output is nested too deeply", raw="")


def _is_json(raw: str) -> bool:
    try:
        parse_json(raw)
    except OutputInvalid:
        return False
    return True


def _instruction(form: Any) -> str:
    schema = json_schema(form)
    fields = schema.get("properties") if isinstance(schema, dict) else None
    if not fields:
        if _is_open_list(schema):
            return "List what the text above names, each exactly as it is written there. Answer in JSON."
        description = schema.get("description") if isinstance(schema, dict) else None
        return f"{description or 'Extract the answer from the text above.'} Answer in JSON."
    shown = [
        f'"{name}" ({part["description"]})' if isinstance(part, dict) and "description" in part else f'"{name}"'
        for name, part in fields.items()
    ]
    return f"Extract from the text above, as JSON with the fields {', '.join(shown)}."


def _is_open_list(schema: Any) -> bool:
    """Whether a form is a list of strings and says no more, for which small models find nothing unless they have to."""
    items = schema.get("items") if isinstance(schema, dict) else None
    said = isinstance(schema, dict) and {"description", "minItems", "maxItems", "title"}.intersection(schema)
    return isinstance(items, dict) and items.get("type") == "string" and not said


def _checked_examples(examples: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for index, example in enumerate(examples):
        if not isinstance(example, (tuple, list)) or len(example) != 2:
            raise ConfigurationError(f"examples[{index}] must be a pair of a text and its answer")
        check_text(example[0], f"examples[{index}]")
        pairs.append((example[0], example[1]))
    return pairs


def _fitting(
    examples: Sequence[tuple[str, Any]], form: Any, instruction: str, context_tokens: int
) -> Flow[list[tuple[Message, Message]]]:
    """The first examples that take half of the context at most, as turns."""
    turns = [
        (Message("user", f"{shown}\n\n{instruction}"), Message("assistant", dump(form, answer)))
        for shown, answer in examples
    ]
    if not turns:
        return []
    _, counts = yield from count_tokens((), [Chat(turn) for turn in turns])
    kept: list[tuple[Message, Message]] = []
    filled = 0
    for turn, count in zip(turns, counts, strict=True):
        filled += count
        if filled > context_tokens // 2:
            break
        kept.append(turn)
    return kept
