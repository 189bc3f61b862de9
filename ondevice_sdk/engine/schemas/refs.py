"""Places in a JSON schema, and what its references point to. Nothing outside the document is ever read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import unquote, urldefrag, urljoin

from ondevice_sdk.errors import SchemaUnsupported

NEWEST: Final = 2020
_OLDEST: Final = 4
_DRAFTS: Final = {
    **{f"http://json-schema.org/draft-0{number}/schema": number for number in (3, 4, 6, 7)},
    "https://json-schema.org/draft/2019-09/schema": 2019,
}
# Since when and until when a keyword means something; before and after, it is a remark.
_SINCE: Final = {
    **dict.fromkeys(("const", "contains", "propertyNames"), 6),
    **dict.fromkeys(("if", "then", "else"), 7),
    **dict.fromkeys(("dependentRequired", "dependentSchemas", "minContains", "maxContains", "$recursiveRef"), 2019),
    **dict.fromkeys(("unevaluatedItems", "unevaluatedProperties"), 2019),
    **dict.fromkeys(("$dynamicRef", "prefixItems"), 2020),
}
_UNTIL: Final = {"dependencies": 7, "additionalItems": 2019, "$recursiveRef": 2019}
# What holds schemas: one, a list of them, or a mapping to them.
_ONE: Final = frozenset(
    ("additionalItems", "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then")
) | {"unevaluatedItems", "unevaluatedProperties"}
_LIST: Final = frozenset(("allOf", "anyOf", "items", "oneOf", "prefixItems"))
_MAP: Final = frozenset(("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"))


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A schema, where it stands, and what its relative references are relative to.

    Args:
        schema: an object or a boolean.
        path: JSON pointer in the document.
        base: of the resource that it belongs to.
        scope: bases of the resources on the way to it, outermost first; kept only where `$dynamicRef` is used.
    """

    schema: Any
    path: str = ""
    base: str = ""
    scope: tuple[str, ...] = ()

    def inner(self, *names: str | int) -> Place:
        """The schema under a keyword, or in a list or mapping under it."""
        schema, path = self.schema, self.path
        for name in names:
            schema = schema[name]
            path += f"/{escape(str(name))}"
        return replace(self, schema=schema, path=path, base=_base(schema, self.base))

    def refuse(self, keyword: str, why: str = "") -> SchemaUnsupported:
        """The error for a keyword of this schema that cannot be kept."""
        message = why or f"the keyword {keyword!r} cannot be expressed here"
        return SchemaUnsupported(message, path=self.path, keyword=keyword)


class Document:
    """A whole schema with what is named in it, without the keywords that its draft does not know."""

    def __init__(self, schema: Any) -> None:
        schema = json.loads(json.dumps(schema))  # is changed below
        self.draft = _draft(schema)
        self._clean_ids(schema)
        if self.draft < _OLDEST:
            raise Place(schema).refuse("$schema", "the draft of the JSON schema is too old")
        self._met: set[int] = set()
        self._anchors: dict[tuple[str, str], Place] = {}
        self._dynamic: set[tuple[str, str]] = set()
        self.dynamic = False
        self._recursive = False
        base = _base(schema, "")
        self.root = Place(schema, "", base)
        self._resources: dict[str, Place] = {"": self.root, base: self.root}
        self._meet(self.root)
        if self.dynamic:
            self.root = replace(self.root, scope=(base,))

    def resolve(self, place: Place, keyword: str) -> Place:
        """What the reference under a keyword points to.

        Raises:
            SchemaUnsupported: nothing in this document.
        """
        reference = place.schema[keyword]
        if not isinstance(reference, str):
            raise place.refuse(keyword)
        if keyword == "$recursiveRef":
            if self._recursive and len({id(each.schema) for each in self._resources.values()}) > 1:
                raise place.refuse(keyword)  # it would lead to the outermost of them
            reference = "#"
        url, fragment = urldefrag(reference)
        base = place.base if not url else _join(place.base, url)
        resource = self._resources.get(base)
        if resource is None:
            raise place.refuse(keyword, "a reference leads out of the schema")
        fragment = unquote(fragment)
        target: Place | None
        if fragment and not fragment.startswith("/"):
            target = self._anchors.get((base, fragment))
            if keyword == "$dynamicRef" and (base, fragment) in self._dynamic:
                outer = next((each for each in place.scope if (each, fragment) in self._dynamic), base)
                target = self._anchors[outer, fragment]
        else:
            target = _walk(resource, fragment)
        if target is None or not isinstance(target.schema, dict | bool):
            raise place.refuse(keyword, "a reference leads to no schema")
        if isinstance(target.schema, dict) and id(target.schema) not in self._met:
            self._meet(target)  # it stands where no schema has to be
        scope = place.scope
        if self.dynamic and target.base not in scope:
            scope = (*scope, target.base)
        return replace(target, scope=scope)

    def _meet(self, root: Place) -> None:
        for place in _schemas(root):
            if id(place.schema) not in self._met:
                self._met.add(id(place.schema))
                self._clean(place.schema)
                self._name(place)

    def _clean_ids(self, schema: Any) -> None:
        """Leave out what names no resource in this draft."""
        for place in _schemas(Place(schema)):
            place.schema.pop("$id" if self.draft < 6 else "id", None)
            if self.draft < 2019 and "$ref" in place.schema:
                place.schema.pop("$id", None)
                place.schema.pop("id", None)

    def _clean(self, schema: dict[str, Any]) -> None:
        """Leave out what means nothing in this draft."""
        beside = self.draft < 2019 and "$ref" in schema
        for keyword in list(schema):
            unknown = not _SINCE.get(keyword, 0) <= self.draft <= _UNTIL.get(keyword, NEWEST)
            if unknown or (beside and keyword not in ("$ref", "$defs", "definitions")):
                del schema[keyword]
        if isinstance(schema.get("required"), bool):  # as draft 3 has it
            del schema["required"]

    def _name(self, place: Place) -> None:
        schema = place.schema
        name = _own_id(schema)
        if name is not None and name.startswith("#"):  # how the oldest drafts wrote an anchor
            self._anchors[place.base, name[1:]] = place
        elif name is not None:
            self._resources.setdefault(place.base, place)
        for keyword in ("$anchor", "$dynamicAnchor"):
            if isinstance(schema.get(keyword), str):
                self._anchors[place.base, schema[keyword]] = place
        if isinstance(schema.get("$dynamicAnchor"), str):
            self._dynamic.add((place.base, schema["$dynamicAnchor"]))
        self.dynamic = self.dynamic or "$dynamicRef" in schema
        self._recursive = self._recursive or schema.get("$recursiveAnchor") is True


def escape(name: str) -> str:
    """A name as a step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def _draft(schema: Any) -> int:
    named = schema.get("$schema") if isinstance(schema, dict) else None
    return _DRAFTS.get(named.rstrip("#"), NEWEST) if isinstance(named, str) else NEWEST


def _own_id(schema: Any) -> str | None:
    name = schema.get("$id", schema.get("id")) if isinstance(schema, dict) else None
    return name if isinstance(name, str) and name else None


def _base(schema: Any, base: str) -> str:
    name = _own_id(schema)
    if name is None or name.startswith("#"):
        return base
    return _join(base, urldefrag(name)[0])


def _join(base: str, url: str) -> str:
    return urljoin(base, url) if ":" not in url.split("/", 1)[0] else url


def _schemas(root: Place) -> Iterator[Place]:
    """Every schema at a place where one has to be."""
    pending = [root]
    while pending:
        place = pending.pop()
        if not isinstance(place.schema, dict):
            continue
        yield place
        for keyword, value in place.schema.items():
            if keyword in _MAP and isinstance(value, dict):
                pending += [place.inner(keyword, name) for name in value]
            elif keyword in _LIST and isinstance(value, list):
                pending += [place.inner(keyword, index) for index in range(len(value))]
            elif keyword in _ONE:
                pending.append(place.inner(keyword))


def _walk(resource: Place, pointer: str) -> Place | None:
    place = resource
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(place.schema, dict) and name in place.schema:
            place = place.inner(name)
        elif isinstance(place.schema, list) and name.isdecimal() and int(name) < len(place.schema):
            place = place.inner(int(name))
        else:
            return None
    return place
