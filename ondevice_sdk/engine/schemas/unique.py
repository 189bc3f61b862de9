"""What a grammar cannot remember or compute, followed while JSON is written.

Items and names that have to differ, and numbers that have to be multiples of a step in floating-point arithmetic.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from ondevice_sdk.engine.schemas.plain import DIFFERENT, REFERENCE, STEP, Plain, canonical, values_of

_LITERALS: Final = {"t": "true", "f": "false", "n": "null"}
Node = tuple[dict[str, Any], ...]


class Shapes:
    """Where in a plain schema items or names have to differ (`DIFFERENT` marks both), or numbers are tried (`STEP`)."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._definitions: dict[str, Plain] = schema.get("$defs", {})
        self.root: Node = ({"prefixItems": [schema], "items": False},)  # as if the whole were an item
        self._inner: dict[tuple[int, object], Node] = {}
        self._kept: list[Node] = [self.root]  # so that their ids stay theirs

    def field(self, node: Node, name: str) -> Node:
        """What a field of an object may be."""
        return self._cached(node, name, lambda part: _fields(part, name))

    def item(self, node: Node, index: int) -> Node:
        """What an item of an array may be."""
        return self._cached(node, index, lambda part: _items(part, index))

    def choices(self, node: Node) -> tuple[tuple[bytes, str], ...]:
        """All items that an array can have, where they are few: as text, and canonical."""
        for part in node:
            if "items" not in part or "prefixItems" in part:
                continue
            values = values_of(part["items"], self._definitions)
            if values and not any(isinstance(value, list | dict | float) for value in values):
                return tuple((json.dumps(value, ensure_ascii=False).encode(), canonical(value)) for value in values)
        return ()

    def _cached(self, node: Node, step: object, inner: Any) -> Node:
        if not node:
            return node
        key = (id(node), step)
        if key not in self._inner:
            found = self._spread([schema for part in node for schema in inner(part)])
            self._inner[key] = found
            self._kept.append(found)
        return self._inner[key]

    def _spread(self, schemas: Sequence[Plain]) -> Node:
        """The schemas and those that they bring in at the same place."""
        found: list[dict[str, Any]] = []
        pending = list(schemas)
        while pending:
            schema = pending.pop()
            if not isinstance(schema, dict) or any(schema is each for each in found):
                continue
            found.append(schema)
            pending += [*schema.get("allOf", ()), *schema.get("anyOf", ())]
            if "$ref" in schema:
                pending.append(self._definitions.get(schema["$ref"].removeprefix(REFERENCE), True))
        return tuple(found)


def _fields(part: dict[str, Any], name: str) -> list[Plain]:
    named: list[Plain] = [part["properties"][name]] if name in part.get("properties", ()) else []
    return [*named, *part.get("patternProperties", {}).values(), part.get("additionalProperties", True)]


def _items(part: dict[str, Any], index: int) -> list[Plain]:
    leading = part.get("prefixItems", ())
    return [leading[index] if index < len(leading) else part.get("items", True)]


@dataclass(frozen=True, slots=True)
class _Frame:
    """An array or object that is open."""

    array: bool
    node: Node
    unique: bool
    seen: frozenset[str] = frozenset()
    start: int = -1  # of the present item or name; -1 between them
    index: int = 0
    name: str | None = None  # of the present field; None while it is written
    number: int = -1  # where the present number starts
    steps: tuple[float, ...] = ()  # that it is a multiple of
    choices: tuple[
        tuple[bytes, str], ...
    ] = ()  # all items that there can be, where they are few: as text, and canonical


@dataclass(frozen=True, slots=True)
class _State:
    frames: tuple[_Frame, ...]
    quoted: bool = False
    escaped: bool = False


class Watch:
    """Follows JSON as it is written."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._state = _State((_Frame(True, shapes.root, False),))
        self._text = ""
        self._rest = b""  # of a character that is not complete

    def copy(self) -> Watch:
        """Another one at the same place."""
        other = Watch(self._shapes)
        other._state, other._text, other._rest = self._state, self._text, self._rest
        return other

    def allows(self, data: bytes) -> bool:
        """Whether all would still differ after this."""
        return self._after(data) is not None

    def complete(self) -> bool:
        """Whether the output may end here."""
        return self._fits(self._state.frames[0], self._text)

    def accept(self, data: bytes) -> None:
        """Move on."""
        after = self._after(data)
        if after is not None:
            self._state, self._text, self._rest = after

    def _after(self, data: bytes) -> tuple[_State, str, bytes] | None:
        whole = self._rest + data
        for cut in range(min(4, len(whole) + 1)):
            try:
                added = whole[: len(whole) - cut].decode()
            except UnicodeDecodeError:
                continue
            state: _State | None = self._state
            text = self._text + added
            for position in range(len(self._text), len(text)):
                state = self._step(state, text, position)
                if state is None:
                    return None
            assert state is not None
            rest = whole[len(whole) - cut :]
            return (state, text, rest) if self._open_choice(state, text, rest) else None
        return self._state, self._text, whole

    def _step(self, state: _State | None, text: str, position: int) -> _State | None:
        """The state after one character; None if something is twice."""
        assert state is not None
        sign, frames = text[position], state.frames
        if state.quoted:
            if state.escaped:
                return replace(state, escaped=False)
            if sign == "\\":
                return replace(state, escaped=True)
            return state if sign != '"' else self._close_text(replace(state, quoted=False), text, position)
        top = frames[-1]
        if sign in "]},":
            if not self._fits(top, text[:position]):
                return None
            top = replace(top, number=-1)
            frames = (*frames[:-1], top)
        if sign in "]}":
            closed = self._end_item(top, text[:position]) if sign == "]" else top
            return None if closed is None else self._close_value(_State(frames[:-1]), text[: position + 1])
        if sign == ",":
            ended = self._end_item(top, text[:position]) if top.array else top
            if ended is None:
                return None
            return _State((*frames[:-1], replace(ended, start=-1, index=ended.index + 1, name=None)))
        if sign == ":":
            return state
        if sign in "-0123456789" and top.number < 0:
            top = replace(top, number=position, steps=_steps(self._value(top)))
            frames = (*frames[:-1], top)
        if top.start < 0 and (top.array or top.name is None):
            if top.array and top.unique and sign in _LITERALS and _LITERALS[sign] in top.seen:
                return None
            top = replace(top, start=position)
            frames = (*frames[:-1], top)
        if sign in "[{":
            return _State((*frames, self._open(top, array=sign == "[")))
        return _State(frames, quoted=sign == '"')

    def _value(self, top: _Frame) -> Node:
        """What the present value may be."""
        return self._shapes.item(top.node, top.index) if top.array else self._shapes.field(top.node, top.name or "")

    def _open(self, top: _Frame, *, array: bool) -> _Frame:
        node = self._value(top)
        unique = any(DIFFERENT in part for part in node)
        return _Frame(array, node, unique, choices=self._shapes.choices(node) if unique and array else ())

    def _fits(self, top: _Frame, text: str) -> bool:
        """Whether a number that ends here is a multiple."""
        return top.number < 0 or not top.steps or _is_multiple(text[top.number :], top.steps)

    def _close_text(self, state: _State, text: str, position: int) -> _State | None:
        top = state.frames[-1]
        if top.start < 0:
            return state
        if top.array:
            return self._close_value(state, text[: position + 1])
        if top.name is not None:
            return state
        name = str(json.loads(text[top.start : position + 1]))
        if top.unique and name in top.seen:
            return None
        top = replace(top, name=name, seen=top.seen | {name} if top.unique else top.seen, start=-1)
        return replace(state, frames=(*state.frames[:-1], top))

    def _close_value(self, state: _State, text: str) -> _State | None:
        """A string, an array or an object ends: as an item it may be there already."""
        top = state.frames[-1]
        if not top.array or not top.unique:
            return state
        return None if canonical(json.loads(text[top.start :])) in top.seen else state

    def _end_item(self, top: _Frame, text: str) -> _Frame | None:
        if not top.unique or top.start < 0:
            return top
        item = canonical(json.loads(text[top.start :]))
        return None if item in top.seen else replace(top, seen=top.seen | {item})

    def _open_choice(self, state: _State, text: str, rest: bytes) -> bool:
        """Whether the present item can still become one that is not there yet, and a number a multiple."""
        top = state.frames[-1]
        if top.number >= 0 and top.steps and not _may_become_multiple(text[top.number :], top.steps):
            return False
        if not top.choices or not top.unique:
            return True
        begun = text[top.start :].encode() + rest if top.start >= 0 else b""
        if not any(choice.startswith(begun) for choice, _ in top.choices):
            return True  # written in another way than expected
        if top.start < 0 and not text.endswith(","):
            return True
        return any(choice.startswith(begun) and item not in top.seen for choice, item in top.choices)


def _steps(node: Node) -> tuple[float, ...]:
    return tuple(part[STEP] for part in node if STEP in part)


def _is_multiple(number: str, steps: Sequence[float]) -> bool:
    """Whether the quotients are whole, as validators compute them."""
    value = json.loads(number)
    return all((value / step).is_integer() for step in steps)


def _may_become_multiple(number: str, steps: Sequence[float]) -> bool:
    """Whether it is one, or there is room for more digits."""
    digits = len(number.partition(".")[2])
    room = any(digits < -int(Decimal(repr(step)).as_tuple().exponent) for step in steps)
    return room or _is_multiple(number, steps)
