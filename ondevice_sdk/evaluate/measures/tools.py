"""Tools: whether the right function is called with accepted arguments, and none where no function fits."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ondevice_sdk.evaluate.compare import About, Metric, Outcomes, compare
from ondevice_sdk.evaluate.data import Record
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Prompt, Session
from ondevice_sdk.types import JsonValue, Tool, ToolCall

_ANSWER_TOKENS: Final = 160
_LONGEST_CALL: Final = 2000  # characters of a written call
_PROMPTS: Final = (
    Prompt(
        "call-json",
        "Functions:\n{tools}\n\nRequest: {text}\n\nAnswer with a JSON object that has the fields name and arguments, "
        "or with NONE if no function fits.",
    ),
    Prompt(
        "call-first",
        'You can call these functions: {tools}\nReply with the call only, as {{"name": ..., "arguments": {{...}}}}. If '
        "none of them fits, reply in words.\n\n{text}",
    ),
    Prompt(
        "call-python",
        "{text}\n\nFunctions:\n{tools}\n\nWrite the call of the function that answers this, in Python: "
        "name(argument=value). Write NONE if no function fits.",
    ),
)
_IGNORED = re.compile(r"[ ,./\-_*^]")  # of strings that are compared

Accepted = Mapping[str, JsonValue]  # per argument the list of accepted values; "" among them: it may be left out


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row: whether a call was wanted, whether one was made, and whether it was the right one."""

    wanted: bool
    called: bool = False
    function: bool = False
    valid: bool = False


def _share(kind: str, *, wanted: bool) -> Metric[Outcome]:
    names = {"valid": "valid calls", "function": "right function", "called": "false calls"}

    def figure(rows: Sequence[Outcome]) -> float:
        held = [getattr(row, kind) for row in rows if row.wanted is wanted]
        return sum(held) / len(held) if held else 0.0

    return Metric(names[kind], figure, "higher" if wanted else "lower")


VALID: Final = _share("valid", wanted=True)
FUNCTION: Final = _share("function", wanted=True)
FALSE_CALLS: Final = _share("called", wanted=False)


@dataclass(frozen=True, slots=True)
class ToolMeasure:
    """Calls of a set in the form of the Berkeley function-calling leaderboard, by its rules for equal values.

    The naive prompts show the functions as JSON; what is a call in their answers is read generously.
    """

    family: str = "tools"

    def rows(self, session: Session, sample: Sample) -> list[Row]:
        """Figures of the set."""
        cases = [_Case.of(record) for record in sample.records]
        answers = session.call([(case.text, case.tools) for case in cases], _ANSWER_TOKENS)
        ours = [
            case.failed() if answer is None else case.outcome(next(iter(answer.tool_calls), None))
            for case, answer in zip(cases, answers.values, strict=True)
        ]
        fills = [{"text": case.text, "tools": _shown(case.tools)} for case in cases]
        asked = session.ask(_PROMPTS, fills, _ANSWER_TOKENS)
        naive = {
            name: [
                case.outcome(written_call(said, case.tools)) if said.strip() else case.failed()
                for case, said in zip(cases, given, strict=True)
            ]
            for name, given in asked.answers.items()
        }
        about = About(sample.set, self.family, answers.seconds, asked.seconds, asked.noted(answers.note))
        both = Outcomes(ours, naive)
        kinds = {case.accepted is not None for case in cases}
        metrics = [*((VALID, FUNCTION) if True in kinds else ()), *((FALSE_CALLS,) if False in kinds else ())]
        return [compare(about, metric, both, ranked_by=VALID if True in kinds else FALSE_CALLS) for metric in metrics]


@dataclass(frozen=True, slots=True)
class _Case:
    text: str = field(repr=False)
    tools: tuple[Tool, ...]
    right: str = ""
    accepted: Accepted | None = field(default=None, repr=False)  # None: no call is right

    @classmethod
    def of(cls, record: Record) -> _Case:
        text = "\n\n".join(message.string("content") for message in record.records("messages"))
        tools = tuple(
            Tool(tool.string("name"), tool.string("description"), tool.mapping("parameters"))
            for tool in record.records("tools")
        )
        calls = record.records("ground_truth")
        if not calls:
            return cls(text, tools)
        if len(calls) > 1 or len(calls[0].values) != 1:
            raise record.fault("there must be one right call at most")
        (name,) = calls[0].values
        if name not in {tool.name for tool in tools}:
            raise record.fault("the right call is of none of the tools")
        return cls(text, tools, name, calls[0].mapping(name))

    def failed(self) -> Outcome:
        """Of no answer at all: wrong, also where a call is not wanted."""
        wanted = self.accepted is not None
        return Outcome(wanted, called=not wanted)

    def outcome(self, call: ToolCall | None) -> Outcome:
        if call is None:
            return Outcome(self.accepted is not None)
        if self.accepted is None:
            return Outcome(wanted=False, called=True)
        function = call.name == self.right
        return Outcome(True, True, function, function and is_accepted(call.arguments, self.accepted))


def is_accepted(arguments: Mapping[str, JsonValue], accepted: Accepted) -> bool:
    """Whether every argument has an accepted value, and none is missing that may not be left out."""
    if not accepted.keys() >= arguments.keys():
        return False
    return all(
        any(_same(arguments[name], value) for value in _values(values)) if name in arguments else "" in _values(values)
        for name, values in accepted.items()
    )


def written_call(answer: str, tools: Sequence[Tool]) -> ToolCall | None:
    """The first call of one of the functions in a free answer, as JSON or as Python; None without one."""
    known = {tool.name: tool for tool in tools}
    decoder = json.JSONDecoder()
    for match in re.finditer(r"\{", answer):
        try:
            value = decoder.raw_decode(answer, match.start())[0]
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and (call := _json_call(value, known)):
            return call
    names = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    for match in re.finditer(rf"(?<!def )(?<![\w.])({names})\(", answer):
        if call := _python_call(known[match.group(1)], answer[match.end() - 1 :][:_LONGEST_CALL]):
            return call
    return None


def _json_call(value: Mapping[str, JsonValue], known: Mapping[str, Tool]) -> ToolCall | None:
    name = value.get("name", value.get("function"))
    arguments = value.get("arguments", value.get("parameters"))
    if isinstance(name, str) and name in known and isinstance(arguments, dict):
        return ToolCall(name, arguments)
    if len(value) == 1:
        (name, arguments), *_ = value.items()
        if name in known and isinstance(arguments, dict):
            return ToolCall(name, arguments)
    return None


def _python_call(tool: Tool, text: str) -> ToolCall | None:
    """A call whose text begins with the bracket: up to the first closing one at which it is Python."""
    ends = [match.end() for match in re.finditer(r"\)", text)][:8]
    for end in ends:
        try:
            call = ast.parse(f"f{text[:end]}", mode="eval").body
            if not isinstance(call, ast.Call):
                return None
            given = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg is not None}
            listed = tool.parameters.get("properties")
            names = list(listed) if isinstance(listed, dict) else []
            given |= {name: ast.literal_eval(value) for name, value in zip(names, call.args, strict=False)}
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return ToolCall(tool.name, given)
    return None


def _shown(tools: Sequence[Tool]) -> str:
    return "\n".join(
        json.dumps({"name": tool.name, "description": tool.description, "parameters": tool.parameters})
        for tool in tools
    )


def _values(values: JsonValue) -> list[JsonValue]:
    return values if isinstance(values, list) else [values]


def _same(said: object, value: JsonValue) -> bool:
    """Equal values: of strings the letters and digits count, of objects every field may have several values."""
    if isinstance(said, bool) or isinstance(value, bool):
        return said is value
    if isinstance(said, int | float) and isinstance(value, int | float):
        return abs(said - value) <= 1e-9 * max(abs(said), abs(value))
    if isinstance(said, str) and isinstance(value, str):
        return _plain(said) == _plain(value)
    if isinstance(said, list | tuple) and isinstance(value, list):
        return len(said) == len(value) and all(_same(mine, other) for mine, other in zip(said, value, strict=True))
    if isinstance(said, dict) and isinstance(value, dict):
        return is_accepted(said, value)
    return said is None and value is None


def _plain(text: str) -> str:
    return _IGNORED.sub("", text).replace('"', "'").casefold()
