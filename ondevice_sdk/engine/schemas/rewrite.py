"""A JSON schema as one that llguidance takes, every value of which is valid under the original.

What llguidance cannot express is said in other words: a condition as two cases, `not` and `oneOf` by what a value has
instead, `unevaluated...` by what the case at hand leaves over. Where there are no such words for all that is meant, a
part of it is meant: an item that `contains` asks for comes early, say. See docs/how-to/schemas.md for these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

from ondevice_sdk.engine.schemas.base import base, contained, pattern_of
from ondevice_sdk.engine.schemas.deny import Denial
from ondevice_sdk.engine.schemas.names import allowed_names
from ondevice_sdk.engine.schemas.outer import outer
from ondevice_sdk.engine.schemas.patterns import either
from ondevice_sdk.engine.schemas.plain import REFERENCE, Definitions, Plain, both, disjoint, union
from ondevice_sdk.engine.schemas.refs import NEWEST, Document, Place

_MOST_CASES: Final = 64  # of one schema with `unevaluated...`
_MOST_DEPTH: Final = 24  # of references that such a schema is spread over
_EARLY: Final = 3  # among how many first items the one is that `contains` asks for
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_JOINING: Final = frozenset(("$ref", "$dynamicRef", "$recursiveRef", "allOf", "anyOf", "oneOf"))
_REMARKS: Final = frozenset(
    ("$ref", "$defs", "definitions", "$schema", "$id", "id", "title", "description", "$comment")
)
_LEFT_OVER: Final = ("unevaluatedProperties", "unevaluatedItems")


@dataclass(frozen=True, slots=True)
class Seen:
    """What schemas have had a look at, of an object or an array."""

    names: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()
    all_names: bool = False
    items: int = 0
    all_items: bool = False

    def __or__(self, other: Seen) -> Seen:
        return Seen(
            self.names | other.names,
            self.patterns | other.patterns,
            self.all_names or other.all_names,
            max(self.items, other.items),
            self.all_items or other.all_items,
        )


Case = tuple[tuple[Plain, ...], Seen]


class Rewriter:
    """Writes one document anew.

    Args:
        schema: the document, from JSON.
        bounded: hold numbers to what a model can end.
        joined: take patterns of names that may overlap as one.
        written_out: write what a reference points to in its place where it stands beside other keywords. llguidance
            joins the two itself, but not in a circle of such references.
    """

    def __init__(self, schema: Any, *, bounded: bool = True, joined: bool = False, written_out: bool = False) -> None:
        self._document = Document(schema)
        self._bounded, self._joined, self._written_out = bounded, joined, written_out
        self._names: dict[tuple[int, tuple[str, ...], bool], str] = {}
        self.definitions = Definitions()
        self.denial = Denial(self)

    def whole(self) -> Plain:
        """The whole document as a plain schema.

        Raises:
            SchemaUnsupported: with the place and the keyword that cannot be kept.
        """
        try:
            plain = self.schema(self._document.root)
        except RecursionError as error:
            raise self._document.root.refuse("$ref", "the JSON schema is too deep, or has too many cases") from error
        if isinstance(plain, bool) or not self.definitions:
            return plain
        return {**plain, "$defs": self.definitions}

    def schema(self, place: Place) -> Plain:
        """The plain schema of a place."""
        schema = place.schema
        if isinstance(schema, bool):
            return schema
        if not isinstance(schema, dict):
            raise place.refuse("type", "a JSON schema is an object, true or false")
        if any(keyword in schema for keyword in _LEFT_OVER):
            return union(both(parts) for parts, _ in self._cases(place))
        if self._written_out and len(schema) > 1 and _JOINING.intersection(schema):
            return self._defined(place, lambda: both([self.own(place), *self._others(place)]), joined=True)
        return both([self.own(place), *self._others(place)])

    def own(self, place: Place) -> Plain:
        """What a place says with its own keywords."""
        return base(place, self.schema, self._document.draft, bounded=self._bounded, joined=self._joined)

    def resolve(self, place: Place, keyword: str) -> Place:
        """What a reference points to, in the end."""
        seen: list[Any] = []
        target = self._document.resolve(place, keyword)
        while isinstance(target.schema, dict) and "$ref" in target.schema and _REMARKS.issuperset(target.schema):
            if any(target.schema is each for each in seen):
                raise place.refuse(keyword, "a reference leads to itself")
            seen.append(target.schema)
            target = self._document.resolve(target, "$ref")
        return target

    def reference(self, place: Place, keyword: str) -> Plain:
        """A reference to a definition, which is written when it is first met."""
        target = self.resolve(place, keyword)
        if isinstance(target.schema, bool):
            return target.schema
        return self._defined(target, lambda: self.schema(target))

    def _defined(self, place: Place, write: Callable[[], Plain], *, joined: bool = False) -> Plain:
        """A reference to what is written for a place, once."""
        key = (id(place.schema), place.scope, joined)
        if key not in self._names:
            self._names[key] = name = f"d{len(self._names)}"
            self.definitions[name] = True
            self.definitions[name] = write()
        plain = self.definitions[self._names[key]]
        return False if plain is False else {"$ref": REFERENCE + self._names[key]}

    def all_of(self, place: Place, keyword: str) -> list[Plain]:
        """The plain schemas of a list."""
        return [self._joined_in(each) for each in self.places(place, keyword)]

    def _joined_in(self, place: Place) -> Plain:
        """The plain schema of a place that others are joined with."""
        if self._written_out and isinstance(place.schema, dict) and place.schema.keys() == {"$ref"}:
            return self.schema(self.resolve(place, "$ref"))
        return self.schema(place)

    def places(self, place: Place, keyword: str) -> list[Place]:
        """The places of a list."""
        if not isinstance(place.schema[keyword], list):
            raise place.refuse(keyword)
        return [place.inner(keyword, index) for index in range(len(place.schema[keyword]))]

    def _others(self, place: Place) -> list[Plain]:
        """What the keywords say that bring other schemas in, in their order."""
        written: list[Plain] = []
        for keyword in place.schema:
            if keyword in _REFERENCES and self._written_out and len(place.schema) > 1:
                written.append(self.schema(self.resolve(place, keyword)))
            elif keyword in _REFERENCES:
                written.append(self.reference(place, keyword))
            elif keyword == "allOf":
                written += self.all_of(place, keyword)
            elif keyword == "anyOf":
                written.append(union(self.all_of(place, keyword)))
            elif keyword == "oneOf":
                written.append(self._one_of(place))
            elif keyword in _SIMPLE:
                written += _SIMPLE[keyword](self, place)
        return written

    def _one_of(self, place: Place) -> Plain:
        cases = [self._alone(place, index) for index in range(len(self.places(place, "oneOf")))]
        if not any(cases):
            raise place.refuse("oneOf")
        return union(both(case) for case in cases if case)

    def _alone(self, place: Place, chosen: int) -> list[Plain]:
        """That one schema of `oneOf` fits and no other; nothing if that cannot be."""
        places = self.places(place, "oneOf")
        parts = [own := self.schema(places[chosen])]
        for index, other in enumerate(places):
            if index != chosen and not disjoint(own, outer(other, self.resolve), self.definitions):
                ways = [way for way in self.denial.ways(other) if not disjoint(own, way, self.definitions)]
                parts.append(union(ways))
        return [] if False in parts else parts

    def _not(self, place: Place) -> list[Plain]:
        return [self.denial.required(place, place.inner("not"), "not")]

    def _condition(self, place: Place) -> list[Plain]:
        return [union(both(parts) for parts, _ in self._condition_cases(place, self._flat))]

    def _condition_cases(self, place: Place, spread: Callable[[Place], list[Case]]) -> list[Case]:
        """The case that the condition holds, and the other."""
        schema, condition = place.schema, place.inner("if")
        then = spread(place.inner("then")) if "then" in schema else [((), Seen())]
        otherwise = spread(place.inner("else")) if "else" in schema else [((), Seen())]
        cases = _product(spread(condition), then)
        denied = union(self.denial.ways(condition))
        if denied is not False:
            cases += _product([((denied,), Seen())], otherwise)
        return cases

    def _flat(self, place: Place) -> list[Case]:
        plain = self.schema(place)
        return [] if plain is False else [((plain,), Seen())]

    def _dependent_required(self, place: Place, keyword: str = "dependentRequired") -> list[Plain]:
        written: list[Plain] = []
        for name, names in _mapping(place, keyword).items():
            if isinstance(names, list):
                written.append(union(({"properties": {name: False}}, {"required": [name, *names]})))
        return written

    def _dependent_schemas(self, place: Place, keyword: str = "dependentSchemas") -> list[Plain]:
        return [
            union(both(parts) for parts, _ in self._dependent_cases(place, keyword, name, self._flat))
            for name, value in _mapping(place, keyword).items()
            if not isinstance(value, list)
        ]

    def _dependent_cases(
        self, place: Place, keyword: str, name: str, spread: Callable[[Place], list[Case]]
    ) -> list[Case]:
        present: Case = (({"required": [name]},), Seen())
        absent: Case = (({"properties": {name: False}},), Seen())
        return [absent, *_product([present], spread(place.inner(keyword, name)))]

    def _dependencies(self, place: Place) -> list[Plain]:
        return self._dependent_required(place, "dependencies") + self._dependent_schemas(place, "dependencies")

    def _contains(self, place: Place) -> list[Plain]:
        schema, item = place.schema, self.schema(place.inner("contains"))
        least, most = contained(place, "minContains") or 0, contained(place, "maxContains")
        if most is None and least == 0:
            return []
        others = True if most is None else union(self.denial.ways(place.inner("contains")))
        prefix = len(schema.get("prefixItems", ()))
        if most is None and least == 1:
            early = max(_EARLY, min(prefix + 1, 2 * _EARLY))
            return [union(_leading([True] * before + [item]) for before in range(early))]
        if most is None:
            return [_leading([item] * least)]
        counts = range(least, min(most, least + _EARLY) + 1)
        ways: list[Plain] = [{"maxItems": most, **_leading([item] * least)}]
        if others is not False:
            ways += [{**_leading([item] * count), "items": others} for count in counts]
        return [union(ways)]

    def _property_names(self, place: Place) -> list[Plain]:
        allowed = allowed_names(place.inner("propertyNames"), self.resolve)
        if allowed is None:
            return []
        texts, patterns = allowed
        named = {"patternProperties": {either(patterns): True}} if patterns else {}
        fields: dict[str, Any] = {"properties": dict.fromkeys(texts, True), **named}
        return [{**fields, "additionalProperties": False}]

    def _cases(self, place: Place, depth: int = 0) -> list[Case]:
        """The ways to fit a schema, each with what it has looked at."""
        schema = place.schema
        if isinstance(schema, bool):
            return [((), Seen())] if schema else []
        if depth > _MOST_DEPTH:
            raise place.refuse("$ref", "a reference leads to itself under 'unevaluated...'")

        def spread(inner: Place) -> list[Case]:
            return self._cases(inner, depth + 1)

        cases: list[Case] = [((self.own(place),), self._own_view(place))]
        for keyword in schema:
            ways: list[Case] | None = None
            if keyword in _REFERENCES:
                ways = spread(self.resolve(place, keyword))
            elif keyword == "allOf":
                for inner in self.places(place, keyword):
                    cases = _product(cases, spread(inner))
            elif keyword == "anyOf":
                ways = _any_of([spread(inner) for inner in self.places(place, keyword)])
            elif keyword == "oneOf":
                ways = self._one_of_cases(place, spread)
            elif keyword == "if":
                ways = self._condition_cases(place, spread)
            elif keyword in ("dependentSchemas", "dependencies"):
                for name, value in _mapping(place, keyword).items():
                    if not isinstance(value, list):
                        cases = _product(cases, self._dependent_cases(place, keyword, name, spread))
            elif keyword == "contains" and schema.get("minContains", 1) and "maxContains" not in schema:
                least = contained(place, "minContains") or 0
                view = Seen(items=least if self._document.draft >= NEWEST else 0)
                ways = [((_leading([self.schema(place.inner(keyword))] * least),), view)]
            elif keyword in _SIMPLE:
                ways = [(tuple(_SIMPLE[keyword](self, place)), Seen())]
            if keyword == "dependencies":
                cases = _product(cases, [(tuple(self._dependent_required(place, keyword)), Seen())])
            cases = cases if ways is None else _product(cases, ways)
            if len(cases) > _MOST_CASES:
                raise place.refuse(keyword, "there are too many cases under 'unevaluated...'")
        return [self._finish(place, case) for case in cases]

    def _own_view(self, place: Place) -> Seen:
        schema = place.schema
        listed = schema.get("prefixItems", schema["items"] if isinstance(schema.get("items"), list) else ())
        return Seen(
            frozenset(schema.get("properties", ())),
            frozenset(
                pattern_of(place, pattern, "patternProperties") for pattern in schema.get("patternProperties", ())
            ),
            "additionalProperties" in schema,
            len(listed),
            isinstance(schema.get("items"), dict | bool)
            or (isinstance(schema.get("items"), list) and "additionalItems" in schema),
        )

    def _one_of_cases(self, place: Place, spread: Callable[[Place], list[Case]]) -> list[Case]:
        cases: list[Case] = []
        for index, inner in enumerate(self.places(place, "oneOf")):
            alone = self._alone(place, index)
            if alone:
                cases += _product(spread(inner), [(tuple(alone[1:]), Seen())])
        return cases

    def _finish(self, place: Place, case: Case) -> Case:
        """A case with what `unevaluated...` says of the rest."""
        parts, seen = case
        schema = place.schema
        if "unevaluatedProperties" in schema:
            rest = self.schema(place.inner("unevaluatedProperties"))
            if not seen.all_names:
                fields: dict[str, Any] = {"properties": dict.fromkeys(sorted(seen.names), True)}
                if seen.patterns:
                    fields["patternProperties"] = dict.fromkeys(sorted(seen.patterns), True)
                parts = (*parts, {**fields, "additionalProperties": rest})
            seen |= Seen(all_names=True)
        if "unevaluatedItems" in schema:
            rest = self.schema(place.inner("unevaluatedItems"))
            if not seen.all_items:
                parts = (*parts, {"prefixItems": [True] * seen.items, "items": rest})
            seen |= Seen(all_items=True)
        return parts, seen


_SIMPLE: Final[dict[str, Callable[[Rewriter, Place], list[Plain]]]] = {
    "not": Rewriter._not,
    "if": Rewriter._condition,
    "dependentRequired": Rewriter._dependent_required,
    "dependentSchemas": Rewriter._dependent_schemas,
    "dependencies": Rewriter._dependencies,
    "contains": Rewriter._contains,
    "propertyNames": Rewriter._property_names,
}


def _leading(items: Sequence[Plain]) -> dict[str, Any]:
    """An array that begins with such items."""
    return {"prefixItems": list(items), "minItems": len(items)} if items else {}


def _mapping(place: Place, keyword: str) -> dict[str, Any]:
    value = place.schema[keyword]
    if not isinstance(value, dict):
        raise place.refuse(keyword)
    return value


def _product(first: Sequence[Case], second: Sequence[Case]) -> list[Case]:
    return [((*parts, *more), seen | also) for parts, seen in first for more, also in second]


def _any_of(ways: Sequence[Sequence[Case]]) -> list[Case]:
    """Each schema of `anyOf` for itself, and all of them that are few together."""
    cases = [case for each in ways for case in each]
    possible = [each for each in ways if each]
    for size in range(2, len(possible) + 1 if len(possible) <= _EARLY else 2):
        for chosen in combinations(possible, size):
            together: list[Case] = [((), Seen())]
            for each in chosen:
                together = _product(together, each)
            cases += together
    return cases
