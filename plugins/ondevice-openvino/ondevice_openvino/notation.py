"""Constraints in XGrammar's own notation.

Its reading of a JSON schema lets any white space stand between the parts of a value, on which small models spend all
their tokens. So schemas of the usual keywords are written out here, without any; others are left to XGrammar.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

_KNOWN: Final = frozenset(
    {
        *("type", "properties", "required", "additionalProperties", "items", "minItems", "maxItems", "enum", "const"),
        *("anyOf", "$ref", "$defs", "definitions", "minLength", "maxLength"),
        *("title", "description", "default", "examples", "$schema", "$id", "$comment"),
    }
)
_DIGITS: Final = 15  # of a number, which every reader of JSON takes exactly
_SCALARS: Final = {
    "boolean": '("true" | "false")',
    "null": '"null"',
    "integer": f'("-"? ("0" | [1-9] [0-9]{{0,{_DIGITS - 1}}}))',
    "number": f'("-"? ("0" | [1-9] [0-9]{{0,{_DIGITS - 1}}}) ("." [0-9]{{1,{_DIGITS}}})?)',
}
_SIGN: Final = 'sign ::= [^"\\\\\\x00-\\x1F] | "\\\\" ["\\\\bfnrt]'


def alternatives(choices: Sequence[str]) -> str:
    """One of some strings."""
    return "root ::= " + " | ".join(map(_literal, dict.fromkeys(choices)))


def compact(source: str) -> str | None:
    """A JSON schema; None where it has keywords that are not written out here."""
    try:
        return _Writer(json.loads(source)).text()
    except (_Unusual, RecursionError):
        return None


class _Unusual(Exception):
    pass


class _Writer:
    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._rules: dict[str, str] = {}
        self._named: dict[str, str] = {}  # the rules of references

    def text(self) -> str:
        """The whole grammar."""
        self._rules["root"] = self._value(self._schema)
        return "\n".join([*(f"{name} ::= {rule}" for name, rule in self._rules.items()), _SIGN])

    def _value(self, schema: Any) -> str:
        if not isinstance(schema, dict) or not schema.keys() <= _KNOWN:
            raise _Unusual
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        if "const" in schema or "enum" in schema:
            values = [schema["const"]] if "const" in schema else schema["enum"]
            dumped = [json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in values]
            return f"({' | '.join(map(_literal, dumped))})"
        if "anyOf" in schema:
            if schema.keys() & {"type", "properties", "items"}:
                raise _Unusual
            return f"({' | '.join(map(self._value, schema['anyOf']))})"
        kinds = schema.get("type")
        if isinstance(kinds, list) and kinds:
            return f"({' | '.join(self._of(kind, schema) for kind in kinds)})"
        return self._of(kinds, schema)

    def _of(self, kind: Any, schema: Mapping[str, Any]) -> str:
        if kind == "string":
            return f'("\\"" sign{_times(schema.get("minLength", 0), schema.get("maxLength"))} "\\"")'
        if kind == "array" and "items" in schema:
            return self._array(self._value(schema["items"]), schema.get("minItems", 0), schema.get("maxItems"))
        if kind == "object" and isinstance(schema.get("properties"), dict):
            return self._object(schema["properties"], schema.get("required", ()))
        if isinstance(kind, str) and kind in _SCALARS:
            return _SCALARS[kind]
        raise _Unusual

    def _array(self, item: str, least: int, most: int | None) -> str:
        if most == 0:
            return '"[]"'
        name = self._rule(item)
        more = f'({name} ("," {name}){_times(max(least - 1, 0), None if most is None else most - 1)})'
        return f'("[" {more}{"" if least else "?"} "]")'

    def _object(self, fields: Mapping[str, Any], required: Sequence[str]) -> str:
        """One rule for what may follow each field, and one for what may come where none has come yet."""
        if not set(required) <= set(fields):
            raise _Unusual
        first = rest = '""'
        for field, schema in reversed(list(fields.items())):
            key = _literal(json.dumps(field, ensure_ascii=False) + ":")
            entry = f"{key} {self._rule(self._value(schema))} {self._rule(rest)}"
            if field in required:
                first, rest = entry, f'"," {entry}'
            else:
                first, rest = f"{entry} | {self._rule(first)}", f'"," {entry} | {self._rule(rest)}'
        return f'("{{" {self._rule(first)} "}}")'

    def _reference(self, target: Any) -> str:
        if not isinstance(target, str) or not target.startswith("#/"):
            raise _Unusual
        if target not in self._named:
            name = self._named[target] = self._rule("")
            found: Any = self._schema
            for part in target[2:].split("/"):
                found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
            self._rules[name] = self._value(found)
        return self._named[target]

    def _rule(self, text: str) -> str:
        name = f"r{len(self._rules)}"
        self._rules[name] = text
        return name


def _times(least: Any, most: Any) -> str:
    if not isinstance(least, int) or not (most is None or isinstance(most, int)):
        raise _Unusual
    if most is None:
        return "*" if least == 0 else f"{{{least},}}"
    return f"{{{least},{most}}}"


def _literal(text: str) -> str:
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(sign: str) -> str:
    if sign in '"\\':
        return f"\\{sign}"
    return sign if sign.isprintable() else f"\\U{ord(sign):08x}"
