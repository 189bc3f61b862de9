"""Constrained output, followed beside the pipeline, which holds to it by XGrammar.

XGrammar takes a JSON schema and leaves out what it does not know; and it stops where the tokens end, in the middle of a
value. The SDK's own grammar follows what is written, byte by byte: it knows at each point a short text that completes
the output, and whether a whole output is one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from ondevice_sdk.backends.api import Grammar
from ondevice_sdk.engine.closing import byte_tokenizer
from ondevice_sdk.engine.grammar import GrammarCompiler
from ondevice_sdk.errors import GenerationFailed, OutputInvalid, SchemaUnsupported

if TYPE_CHECKING:
    from ondevice_sdk.engine.grammar import Constraint

_END: Final = 256  # of the vocabulary of bytes
_AMPLE: Final = 64  # tokens in which an output that cannot be followed any more mostly comes to its own end
_SPACE: Final = b" \t\n\r"
# Keywords that XGrammar warns about, or reads as if they said less. Where they stand their schemas are not looked into.
_IGNORED: Final = frozenset(
    {
        *("multipleOf", "uniqueItems", "contains", "minContains", "maxContains", "not", "if", "then", "else"),
        *("dependentRequired", "dependentSchemas", "dependencies", "$dynamicRef", "$recursiveRef"),
    }
)
_NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions"})  # names, and a schema for each
_VALUES: Final = frozenset({"enum", "const", "default", "examples"})  # no schemas, whatever they look like


class Forms:
    """Makes what follows one output each."""

    def __init__(self, encode: Callable[[Sequence[str]], list[list[int]]]) -> None:
        """Be ready; `encode` counts tokens of a completion."""
        self._encode = encode
        self._compiler = GrammarCompiler(byte_tokenizer, _END + 1, (_END,))

    def make(self, grammar: Grammar, limit: int) -> Form:
        """Follow an output of at most so many tokens.

        Raises:
            SchemaUnsupported, ConfigurationError: it is no constraint, or cannot be kept.
            OutputInvalid: no value fits into so few tokens.
        """
        constraint = self._compiler.compile(grammar, ignore_eos=False)
        if grammar.form == "json_schema":
            for path, keyword in _ignored(json.loads(grammar.source), ""):
                raise SchemaUnsupported(f"XGrammar ignores the keyword {keyword!r}", path=path, keyword=keyword)
        return Form(grammar, constraint, limit, self._encode, lambda: self._compiler.compile(grammar, ignore_eos=False))

    def forget(self) -> None:
        """Drop the grammars of requests that are over."""
        self._compiler.forget()


class Form:
    """Follows one output."""

    def __init__(
        self,
        grammar: Grammar,
        constraint: Constraint,
        limit: int,
        encode: Callable[[Sequence[str]], list[list[int]]],
        again: Callable[[], Constraint],
    ) -> None:
        self._json = grammar.form == "json_schema"
        self._closes_itself = self._json and _kind(grammar.source) in ("object", "array")
        self._constraint = constraint
        self._encode = encode
        self._again = again
        self._quoted = self._escaped = False
        self._lost = False  # whether the output is written in another way than the SDK's grammar writes it
        self._plan: bytes | None = None  # completes what was written, in time
        if not self._far(limit):
            self._plan = self._completion(limit)
            if self._plan is not None and (needed := self._tokens(self._plan)) > limit:
                raise OutputInvalid(
                    "no value of the form fits into so few tokens", hint=f"max_tokens has to be at least {needed}"
                )

    @property
    def closes_itself(self) -> bool:
        """Whether an output ends with a bracket, so that it need not be said that it ends."""
        return self._closes_itself

    @property
    def finished(self) -> bool:
        """Whether nothing more may follow."""
        return not self._lost and self._constraint.finished

    def follow(self, data: bytes, left: int) -> bytes | None:
        """Take note of what a token writes, after which `left` more may come.

        Returns:
            None to go on. Else what completes the output in place of this token, as nothing would complete it in time.
        """
        before = self._plan
        self._advance(data)
        if self._far(left):
            self._plan = None
            return None
        self._plan = None if self._lost else self._completion(left)
        if self._plan is not None and self._tokens(self._plan) <= left:
            return None
        return before if self._plan is not None or left < _AMPLE else None

    def holds(self, text: str) -> bool:
        """Whether this whole output is one."""
        if not self._lost:
            return self._constraint.completes([])
        if not self._json:
            return False
        try:
            value = json.loads(text)
            plain = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except (ValueError, RecursionError):
            return False
        return self._again().completes(list(plain))

    def _far(self, left: int) -> bool:
        """Whether any token may come, and there would be room to complete the output after it."""
        need = self._constraint.need
        return left - need.most >= need.growth + 2

    def _completion(self, left: int) -> bytes | None:
        found = self._constraint.completion(enough=2 * left)  # a token has two bytes at least, mostly
        return None if found is None else bytes(found)

    def _tokens(self, plan: bytes) -> int:
        return len(self._encode([plan.decode("utf-8", "replace")])[0]) if plan else 0

    def _advance(self, data: bytes) -> None:
        for byte in self._compact(data) if self._json else data:
            if self._lost:
                return
            try:
                self._constraint.accept(byte)
            except GenerationFailed:
                self._lost = True

    def _compact(self, data: bytes) -> Iterator[int]:
        """JSON without the white space between its parts, which the SDK's grammar does not write."""
        for byte in data:
            if self._quoted:
                if self._escaped:
                    self._escaped = False
                elif byte == 0x5C:
                    self._escaped = True
                elif byte == 0x22:
                    self._quoted = False
            elif byte in _SPACE:
                continue
            elif byte == 0x22:
                self._quoted = True
            yield byte


def _kind(source: str) -> Any:
    schema = json.loads(source)
    return schema.get("type") if isinstance(schema, dict) else None


def _ignored(schema: Any, path: str) -> Iterator[tuple[str, str]]:
    """Where a schema has a keyword that would not be kept."""
    if isinstance(schema, list):
        for number, part in enumerate(schema):
            yield from _ignored(part, f"{path}/{number}")
    if not isinstance(schema, dict):
        return
    for name, value in schema.items():
        if name in _VALUES:
            continue
        if name in _NAMED and isinstance(value, dict):
            for key, part in value.items():
                yield from _ignored(part, f"{path}/{name}/{key.replace('~', '~0').replace('/', '~1')}")
        elif (name in _IGNORED and value is not False) or (name == "allOf" and len(value) > 1):
            yield path, name
        else:
            yield from _ignored(value, f"{path}/{name}")
