"""What a schema asks for, field by field: the part of it that can be read out of a text piece by piece.

Objects, nested ones too, lists of values and lists of flat objects are fields. What else a schema can say (alternatives
other than null, recursion, patterns, free keys) is no outline: such a form is written by the model as a whole.
"""

# ruff: noqa: SIM905  (word lists read best as words)

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["string", "number", "integer", "boolean", "label", "date"]
Path = tuple[str, ...]

_MOST_FIELDS = 64  # more are asked faster in one go
_DEEPEST = 8  # objects in objects: bounds the work
_MOST_ITEMS = 100  # of a list, whatever its limit; that there are more is told
_PLAIN = frozenset(
    "$schema $id $defs $ref $comment $anchor title description default examples type properties required items anyOf "
    "allOf enum const format minLength maxLength minimum maximum exclusiveMinimum exclusiveMaximum minItems maxItems "
    "additionalProperties readOnly writeOnly deprecated definitions".split()
)
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_QUESTION = re.compile(r"\s*(?:(?:\w+ )?(?:what|which|whom?|whose|who)|where|when|why|how)\b", re.IGNORECASE)


class _NotFlatError(Exception):
    """The schema has something that is no field."""


@dataclass(frozen=True, slots=True)
class Field:
    """A value to be read: where it goes, what it is called, and what it may be."""

    path: Path
    name: str  # as words
    description: str
    kind: Kind
    nullable: bool
    required: bool
    limits: Mapping[str, Any] = field(repr=False)
    least: int = 0  # items of a list
    labels: tuple[Any, ...] = ()
    many: bool = False
    most: int = 1

    @property
    def question(self) -> str:
        """The description, where it is a question, else empty."""
        said = self.description.strip()
        return said if said.endswith(("?", "？")) or _QUESTION.match(said) else ""  # noqa: RUF001

    @property
    def may_lack(self) -> bool:
        """Whether the schema allows that there is no value."""
        return self.nullable or not self.required or self.many

    def allows(self, value: str | float) -> bool:
        """Whether a value keeps the limits of its schema."""
        if isinstance(value, str):
            return bool(self.limits.get("minLength", 0) <= len(value) <= self.limits.get("maxLength", len(value)))
        if self.kind == "integer" and value != int(value):
            return False
        low, high = self.limits.get("minimum", value), self.limits.get("maximum", value)
        above, below = self.limits.get("exclusiveMinimum", value - 1), self.limits.get("exclusiveMaximum", value + 1)
        return bool(low <= value <= high and above < value < below)


@dataclass(frozen=True, slots=True)
class Rows:
    """A list of objects: one for each line or sentence that holds something of it."""

    path: Path
    fields: tuple[Field, ...]  # paths from the item on
    required: bool
    nullable: bool
    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Object:
    """An object on the way to fields, and which of its keys it has to have."""

    path: Path
    needs: frozenset[str]
    required: bool
    nullable: bool


@dataclass(frozen=True, slots=True)
class Outline:
    """All fields of a schema, in its order, and the objects that they are in, outer ones first.

    `least_items` are the lists that must not be shorter than a number.
    """

    fields: tuple[Field, ...]
    rows: tuple[Rows, ...]
    objects: tuple[Object, ...]
    least_items: tuple[tuple[Path, int], ...] = ()


def outline(schema: Any) -> Outline | None:
    """The fields of a schema; None if it has parts that are none, or too many."""
    fields: list[Field] = []
    rows: list[Rows] = []
    objects: list[Object] = []
    try:
        for found in _walk(schema, schema, (), "", True, 0):
            if isinstance(found, Field):
                fields.append(found)
            elif isinstance(found, Rows):
                rows.append(found)
            else:
                objects.append(found)
            if len(fields) + sum(len(each.fields) for each in rows) > _MOST_FIELDS:
                return None
    except (_NotFlatError, TypeError, ValueError):  # keywords of a wrong type are for the engine to refuse
        return None
    named = all(each.name or each.description for each in fields)
    if not named or not (fields or rows):
        return None
    lists: list[Field | Rows] = [*fields, *rows]
    sizes = tuple((each.path, each.least) for each in lists if each.least)
    return Outline(tuple(fields), tuple(rows), tuple(objects), sizes)


def words_of_name(name: str) -> str:
    """A key as a reader would say it: `partySize` and `party_size` are "party size"."""
    return " ".join(_CAMEL.sub(" ", name).replace("_", " ").replace("-", " ").split()).lower()


def _walk(
    schema: Any, root: Any, path: Path, description: str, required: bool, depth: int
) -> Iterator[Field | Rows | Object]:
    part, nullable = _resolved(schema, root, depth)
    said = str(part.get("description") or description)
    kind = part.get("type")
    if kind == "object":
        properties = part.get("properties")
        if not isinstance(properties, Mapping) or not properties:
            raise _NotFlatError
        wanted = part.get("required") or ()
        if not set(wanted) <= set(properties):
            raise _NotFlatError
        yield Object(path, frozenset(wanted), required, nullable)
        for name, each in properties.items():
            yield from _walk(each, root, (*path, name), "", required and not nullable and name in wanted, depth + 1)
        return
    if kind == "array":
        item, empty = _resolved(part.get("items"), root, depth + 1)
        if empty:
            raise _NotFlatError
        least, most = int(part.get("minItems", 0)), min(int(part.get("maxItems", _MOST_ITEMS)), _MOST_ITEMS)
        if item.get("type") == "object":
            inner = tuple(_walk(item, root, (), "", True, depth + 2))
            fields = tuple(each for each in inner if isinstance(each, Field))
            if len(fields) + 1 < len(inner) or any(each.many or len(each.path) > 1 for each in fields):
                raise _NotFlatError
            if any(each.kind in {"label", "boolean"} for each in fields):
                raise _NotFlatError  # of a line alone a small model knows too little to decide
            yield Rows(path, fields, required, nullable, least, most)
            return
        if item.get("type") == "array":
            raise _NotFlatError
        said = said or str(item.get("description") or "")
        yield _field(item, path, said, nullable, required, many=True, least=least, most=most)
        return
    yield _field(part, path, said, nullable, required)


def _field(
    part: Mapping[str, Any],
    path: Path,
    description: str,
    nullable: bool,
    required: bool,
    *,
    many: bool = False,
    least: int = 0,
    most: int = 1,
) -> Field:
    labels: tuple[Any, ...] = ()
    kind: Kind
    if "const" in part:
        kind, labels = "label", (part["const"],)
    elif "enum" in part:
        kind, labels = "label", tuple(label for label in part["enum"] if label is not None)
        nullable = nullable or None in part["enum"]
    elif part.get("type") == "string" and part.get("format") == "date":
        kind = "date"
    elif part.get("type") == "string" and "format" not in part:
        kind = "string"
    elif part.get("type") in {"number", "integer", "boolean"}:
        kind = part["type"]
    else:
        raise _NotFlatError
    if kind == "label" and (not labels or not all(_is_of(label, part.get("type")) for label in labels)):
        raise _NotFlatError
    if any(not isinstance(part.get(name, 0), int) for name in ("minLength", "maxLength")):
        raise _NotFlatError
    if any(isinstance(part.get(name, 0), bool | str) for name in _BOUNDS):
        raise _NotFlatError
    title = str(part.get("title") or "")
    name = words_of_name(path[-1]) if path else title.lower()
    return Field(path, name, description, kind, nullable, required, part, least, labels, many, most)


def _is_of(label: Any, kind: Any) -> bool:
    """Whether a label is a single value of the type that the schema names, if it names one."""
    types: dict[Any, Any] = {"string": str, "integer": int, "number": int | float, "boolean": bool}
    if isinstance(label, bool):
        return kind in {None, "boolean"}
    return isinstance(label, types.get(kind, str | int | float))


def _resolved(schema: Any, root: Any, depth: int) -> tuple[Mapping[str, Any], bool]:
    """A schema without references and without null as an alternative, and whether it had that."""
    nullable = False
    for _ in range(_DEEPEST):
        if not isinstance(schema, Mapping) or depth > _DEEPEST or not _PLAIN.issuperset(schema):
            break
        if "$ref" in schema:
            rest = {name: value for name, value in schema.items() if name not in {"$ref", "$defs", "definitions"}}
            schema = {**_pointed(schema["$ref"], root), **rest}
            continue
        parts = schema.get("anyOf")
        if parts is not None:
            others = [part for part in parts if part != {"type": "null"}]
            if len(others) != 1:
                break
            nullable = nullable or len(others) < len(parts)
            schema = {**{name: value for name, value in schema.items() if name != "anyOf"}, **_mapping(others[0])}
            continue
        parts = schema.get("allOf")
        if parts is not None:
            if len(parts) != 1:
                break
            schema = {**_mapping(parts[0]), **{name: value for name, value in schema.items() if name != "allOf"}}
            continue
        kind = schema.get("type")
        if isinstance(kind, list):
            others = [each for each in kind if each != "null"]
            if len(others) != 1:
                break
            nullable = nullable or "null" in kind
            schema = {**schema, "type": others[0]}
        return schema, nullable
    raise _NotFlatError


def _pointed(pointer: Any, root: Any) -> Mapping[str, Any]:
    if not isinstance(pointer, str) or not pointer.startswith("#"):
        raise _NotFlatError
    target = root
    for step in pointer[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, Mapping) or name not in target:
            raise _NotFlatError
        target = target[name]
    return _mapping(target)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _NotFlatError
    return value
