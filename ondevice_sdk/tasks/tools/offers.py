"""What an app offers as tools: typed functions, or names with JSON schemas, checked before anything is asked."""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NotRequired, Required

from typing_extensions import TypedDict

from ondevice_sdk.errors import ConfigurationError, OutputInvalid, SchemaUnsupported
from ondevice_sdk.tasks.schema import grammar_for, parse
from ondevice_sdk.text.split import check_encodable
from ondevice_sdk.types import Tool, ToolCall

_LONGEST_NAME: Final = 128

_SECTION = re.compile(r"^[ \t]*(?:Args|Arguments|Parameters|Returns?|Raises|Yields|Examples?|Notes?):", re.MULTILINE)
_ARGUMENT = re.compile(r"^[ \t]*(?::param (?:[\w.]+ )?)?\*{0,2}(\w+)(?: ?\([^()\n]*\))?:[ \t]+(\S.*)$", re.MULTILINE)

_UNFIT: Final = {
    inspect.Parameter.POSITIONAL_ONLY: "is positional-only",
    inspect.Parameter.VAR_POSITIONAL: "takes any number of arguments",
    inspect.Parameter.VAR_KEYWORD: "takes any keyword arguments",
}


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool as the flow uses it. `form` is what arguments are validated with."""

    name: str
    description: str = field(repr=False)
    schema: Mapping[str, Any] = field(repr=False)
    form: Any = field(repr=False)
    function: Callable[..., Any] | None = field(default=None, repr=False)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The schema of each argument."""
        listed = self.schema.get("properties")
        return listed if isinstance(listed, Mapping) else {}

    def call(self, raw: str) -> ToolCall:
        """The call with the arguments that the model wrote.

        Raises:
            OutputInvalid: they are not those of the tool.
        """
        arguments = parse(self.form, raw)
        if not isinstance(arguments, dict):
            raise OutputInvalid("the arguments of a tool are an object", raw=raw)
        return ToolCall(self.name, arguments, self.function)


def offers_of(tools: Sequence[Callable[..., Any] | Tool]) -> tuple[Offer, ...]:
    """The tools of a call.

    Raises:
        ConfigurationError: what is no tool, naming the parameter. SchemaUnsupported: a type without a JSON schema.
    """
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Iterable):
        raise ConfigurationError(f"tools must be a sequence of functions, not {type(tools).__name__}")
    offers = tuple(_of_schema(tool) if isinstance(tool, Tool) else _of_function(tool) for tool in tools)
    names = [offer.name for offer in offers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"two tools have the name {name!r}")
    return offers


def _of_schema(tool: Tool) -> Offer:
    if not isinstance(tool.name, str) or not tool.name.strip() or len(tool.name) > _LONGEST_NAME:
        raise ConfigurationError(f"the name of a tool is a text of 1 to {_LONGEST_NAME} characters")
    if not isinstance(tool.description, str):
        raise ConfigurationError(f"the description of the tool {tool.name!r} must be a str")
    check_encodable(tool.name, "the name of a tool")
    check_encodable(tool.description, f"the description of the tool {tool.name!r}")
    if not isinstance(tool.parameters, Mapping) or tool.parameters.get("type", "object") != "object":
        raise ConfigurationError(f"the parameters of the tool {tool.name!r} must be the JSON schema of an object")
    schema = {"properties": {}, **_schema_of(tool.parameters), "type": "object"}
    if not isinstance(schema["properties"], dict):
        raise ConfigurationError(f"the properties of the tool {tool.name!r} must be an object of schemas")
    return Offer(tool.name, tool.description, schema, schema)


def _of_function(function: Callable[..., Any]) -> Offer:
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise ConfigurationError(
            f"a tool must be a function, a method or a Tool, not {type(function).__name__}",
            hint="wrap it in a def with type hints",
        )
    name = function.__name__
    if not name.isidentifier():
        raise ConfigurationError("a tool must have a name: a lambda has none", hint="write it as a def")
    fields: dict[str, Any] = {}
    hints = _hints(function)
    for parameter in inspect.signature(function).parameters.values():
        which = f"the parameter {parameter.name!r} of the tool {name!r}"
        if parameter.kind in _UNFIT:
            raise ConfigurationError(f"{which} {_UNFIT[parameter.kind]}", hint="name every argument of a tool")
        if parameter.name not in hints:
            raise ConfigurationError(f"{which} has no type hint", hint=f"write {parameter.name}: str, for example")
        hint = hints[parameter.name]
        try:
            grammar_for(hint)
        except SchemaUnsupported as error:
            raise SchemaUnsupported(
                f"{which} has a type without a JSON schema", path=f"$.{parameter.name}", keyword=error.keyword
            ) from error
        fields[parameter.name] = Required[hint] if parameter.default is parameter.empty else NotRequired[hint]
    make: Any = TypedDict  # made of what is known at run time only
    form = make(name, fields)
    description, described = _read_docstring(inspect.getdoc(function) or "")
    schema = _schema_of(form)
    properties = {
        part: {"description": described[part], **rule} if part in described else rule
        for part, rule in schema.get("properties", {}).items()
    }
    return Offer(name, description, {**schema, "properties": properties}, form, function)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        unknown = error.name
    except (TypeError, SyntaxError, AttributeError):
        unknown = None
    which = getattr(function, "__name__", "")
    raise ConfigurationError(
        f"a type hint of the tool {which!r} " + (f"is the unknown name {unknown!r}" if unknown else "is no type"),
        hint="hints must be importable at the level of the module",
    )


def _schema_of(form: Any) -> dict[str, Any]:
    grammar = grammar_for(form)
    assert grammar is not None
    schema: dict[str, Any] = json.loads(grammar.source)
    return schema


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """What a function is for, and what its docstring says of each argument."""
    section = _SECTION.search(text)
    field_list = text.find("\n:")
    ends = [end for end in (section.start() if section else -1, field_list) if end >= 0]
    what = text[: min(ends)] if ends else text
    return " ".join(what.split()), {match.group(1): match.group(2).strip() for match in _ARGUMENT.finditer(text)}
