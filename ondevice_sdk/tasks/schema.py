"""Types as constraints: what an output type asks of the engine, and its value read back from the text."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from ondevice_sdk.backends.api import Grammar
from ondevice_sdk.errors import ConfigurationError, OutputInvalid, SchemaUnsupported

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_LARGEST_INTEGER = 2**53 - 1  # what every reader of JSON takes exactly (RFC 8259, section 6)
_BOUNDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "enum", "const", "multipleOf"})
_INLINE_FLAGS = {re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s", re.VERBOSE: "x"}


def labels_of(form: Any) -> dict[str, Any] | None:
    """The labels of a closed set and the values they stand for; None for any other form.

    Raises:
        ConfigurationError: no labels, or two that look alike as text.
    """
    if get_origin(form) is Literal:
        values = list(get_args(form))
        labels = [str(value.value if isinstance(value, enum.Enum) else value) for value in values]
    elif isinstance(form, type) and issubclass(form, enum.Enum):
        values = list(form)
        labels = [member.value if isinstance(member.value, str) else member.name for member in form]
    else:
        return None
    if not labels or any(not label.strip() for label in labels):
        raise ConfigurationError("a form of labels needs at least one label, and none that is empty")
    if len(set(labels)) < len(labels):
        raise ConfigurationError("two labels of the form look the same as text")
    return dict(zip(labels, values, strict=True))


def grammar_for(form: Any) -> Grammar | None:
    """The constraint that forces an output into a form; None for `str`, which needs none.

    Args:
        form: a pydantic model, dataclass, TypedDict, `Literal`, `Enum`, builtin or generic type, a compiled regular
            expression, or a mapping, which is a JSON schema.

    Raises:
        SchemaUnsupported: the type has no JSON schema. What the engine cannot enforce of a schema, it refuses itself.
        ConfigurationError: the form is no type at all.
    """
    if form is str:
        return None
    if isinstance(form, re.Pattern):
        return Grammar("regex", source=_regex_source(form))
    labels = labels_of(form)
    if labels is not None:
        return Grammar("choice", choices=tuple(labels))
    schema = json_schema(form)
    if not isinstance(form, Mapping):
        schema = _closed(schema)
    return Grammar("json_schema", source=json.dumps(schema, separators=(",", ":")))


def json_schema(form: Any) -> Any:
    """The JSON schema of a form.

    Raises:
        SchemaUnsupported, ConfigurationError: as `grammar_for`.
    """
    if isinstance(form, Mapping):
        schema = dict(form)
        try:
            return json.loads(json.dumps(schema, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"the JSON schema is not valid JSON: {error}") from error
    from pydantic.errors import PydanticUserError

    try:
        return _adapter(form).json_schema()
    except PydanticUserError as error:  # PydanticInvalidForJsonSchema is one
        raise SchemaUnsupported(
            f"the type has no JSON schema: {error.code}", path="$", keyword=_name(form), hint="use a pydantic model"
        ) from error


def parse(form: Any, raw: str) -> Any:
    """Read the value of a form back from the output.

    Raises:
        OutputInvalid: the text does not have the form; `.raw` holds it.
    """
    if form is str:
        return raw
    if isinstance(form, re.Pattern):
        if form.fullmatch(raw) is None:
            raise OutputInvalid("the output does not match the regular expression", raw=raw)
        return raw
    labels = labels_of(form)
    if labels is not None:
        if raw not in labels:
            raise OutputInvalid("the output is none of the labels", raw=raw)
        return labels[raw]
    if isinstance(form, Mapping):
        return parse_json(raw)
    return _validated(form, raw)


def parse_json(raw: str) -> Any:
    """Read JSON.

    Raises:
        OutputInvalid: it is none, for example because it ended too early.
    """
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        fault = "the output is not complete JSON"
    raise OutputInvalid(fault, raw=raw)  # outside the handler: the decoder's error carries the text


def close_json(raw: str) -> str | None:
    """JSON that ran out of tokens, without its unfinished part and with its brackets closed; None if nothing is left.

    Cut after the last complete item of a list or field of an object, so that what is left was written in full.
    """
    open_brackets: list[str] = []
    cut: tuple[int, str] | None = None
    quoted = escaped = False
    for index, sign in enumerate(raw):
        if quoted:
            quoted = escaped or sign != '"'
            escaped = not escaped and sign == "\\"
        elif sign == '"':
            quoted = True
        elif sign in "[{":
            open_brackets.append("]" if sign == "[" else "}")
        elif sign in "]}," and open_brackets:
            if sign != ",":
                open_brackets.pop()
            if "]" not in open_brackets or open_brackets[-1] == "]":  # no half object as the last item of a list
                cut = (index if sign == "," else index + 1, "".join(reversed(open_brackets)))
    return None if cut is None else raw[: cut[0]] + cut[1]


def dump(form: Any, value: Any) -> str:
    """A value of a form as the text that the model would write for it.

    Raises:
        ConfigurationError: the value does not have the form.
    """
    labels = labels_of(form)
    if labels is not None:
        for label, meaning in labels.items():
            if value in (meaning, label):
                return label
        raise ConfigurationError("the answer of an example is none of the labels")
    try:
        if isinstance(form, Mapping):
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        adapter = _adapter(form)
        return adapter.dump_json(adapter.validate_python(value)).decode()
    except (TypeError, ValueError):
        fault = "the answer of an example does not have the form"
    raise ConfigurationError(fault)


def _closed(schema: Any) -> Any:
    """Leave nothing open that the type does not name: a small model may not find the end of it.

    Integers are bounded, and objects have no fields but their own.
    """
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(part) for name, part in schema.items()}
    if schema.get("type") == "integer" and not _BOUNDS.intersection(schema):
        closed |= {"minimum": -_LARGEST_INTEGER, "maximum": _LARGEST_INTEGER}
    if schema.get("type") == "object" and "properties" in schema:
        closed.setdefault("additionalProperties", False)
    return closed


def _validated(form: Any, raw: str) -> Any:
    from pydantic import ValidationError

    adapter = _adapter(form)
    try:
        return adapter.validate_json(raw)
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        fault = str(faults[0]["type"])
    raise OutputInvalid(f"the output does not have the form: {fault}", raw=raw)  # pydantic's error carries the text


def _adapter(form: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

    if form is None or isinstance(form, (str, bytes, int, float)):
        raise ConfigurationError(f"an output form must be a type or a JSON schema, not {type(form).__name__}")
    try:
        return TypeAdapter(form)
    except PydanticUndefinedAnnotation as error:
        raise SchemaUnsupported(
            f"the type refers to the unknown name {error.name}", path="$", keyword=_name(form)
        ) from error
    except PydanticUserError as error:  # PydanticSchemaGenerationError is one
        hint = "use typing_extensions.TypedDict" if error.code == "typed-dict-version" else "use a pydantic model"
        raise SchemaUnsupported(
            f"pydantic has no schema for {_name(form)}", path="$", keyword=_name(form), hint=hint
        ) from error


def _name(form: Any) -> str:
    return str(getattr(form, "__name__", type(form).__name__))


def _regex_source(pattern: re.Pattern[Any]) -> str:
    if not isinstance(pattern.pattern, str):
        raise SchemaUnsupported("a regular expression of bytes cannot constrain text", path="$", keyword="bytes")
    flags = re.RegexFlag(pattern.flags) & ~re.UNICODE
    inline = "".join(letter for flag, letter in _INLINE_FLAGS.items() if pattern.flags & flag)
    unknown = flags & ~re.RegexFlag(sum(flag.value for flag in _INLINE_FLAGS))
    if unknown:
        raise SchemaUnsupported("a flag of the regular expression cannot be expressed", path="$", keyword=str(unknown))
    return f"(?{inline}){pattern.pattern}" if inline else pattern.pattern
