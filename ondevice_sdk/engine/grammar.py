"""Constraints on the output as token masks, by llguidance."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ondevice_sdk.backends.api import Grammar
from ondevice_sdk.errors import ConfigurationError, GenerationFailed, SchemaUnsupported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# JSON without free white space, which small models spend their tokens on.
_COMPACT = {"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"}


def available() -> bool:
    """Whether llguidance can be imported."""
    try:
        import llguidance  # noqa: F401
    except ImportError:
        return False
    return True


class GrammarCompiler:
    """Makes constraints for one vocabulary. The tokenizer is made when the first one is asked for."""

    def __init__(self, make_tokenizer: Callable[[], Any], vocabulary: int, end_tokens: Iterable[int]) -> None:
        self._make_tokenizer = make_tokenizer
        self._tokenizer: Any = None
        self._vocabulary = vocabulary
        self._end_tokens = sorted(end_tokens)

    def compile(self, grammar: Grammar, *, ignore_eos: bool) -> Constraint:
        """A fresh constraint.

        Raises:
            SchemaUnsupported: llguidance cannot express it, or nothing satisfies it.
            ConfigurationError: the schema is not JSON, or there are no choices.
        """
        from llguidance import LLMatcher

        source = _source(grammar)
        if self._tokenizer is None:
            self._tokenizer = self._make_tokenizer()
        # Level 0: it would write parts of the schema to standard error.
        matcher = LLMatcher(self._tokenizer, source, log_level=0)
        if matcher.is_error():
            raise _refusal(grammar, matcher.get_error())
        constraint = Constraint(matcher, self._vocabulary, self._end_tokens, ignore_eos=ignore_eos)
        if not matcher.is_accepting() and not constraint.possible():
            raise SchemaUnsupported("nothing satisfies the constraint")
        return constraint


class Constraint:
    """The state of a constraint along one generation."""

    def __init__(self, matcher: Any, vocabulary: int, end_tokens: list[int], *, ignore_eos: bool) -> None:
        import numpy as np
        from llguidance.numpy import allocate_token_bitmask

        self._np = np
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._ends = end_tokens if ignore_eos else []  # what must not come though the constraint allows it
        self._bits = allocate_token_bitmask(1, vocabulary)
        self._bytes = self._bits.view(np.uint8)[0]

    @property
    def finished(self) -> bool:
        """Whether nothing more may follow."""
        return bool(self._matcher.is_stopped())

    def possible(self) -> bool:
        """Whether some token may come next."""
        self._compute()
        return bool(self._bits.any())

    def allows(self, token: int) -> bool:
        """Whether this token may come next; much less work than a mask."""
        return token not in self._ends and self._matcher.validate_tokens([token]) == 1

    def fitting(self, tokens: list[int]) -> int:
        """How many of the tokens, from the first one on, may come next one after another."""
        return int(self._matcher.validate_tokens(tokens))

    def forced(self) -> list[int]:
        """The tokens that have to come next.

        They are cut as the tokeniser would cut the text; what could be cut otherwise once more follows is left out, and
        so all is where the tokeniser is not known to be consistent.
        """
        return list(self._matcher.compute_ff_tokens())

    def mask(self, logits: NDArray[np.float32]) -> bool:
        """Exclude what may not come next, in place; False if nothing may.

        Raises:
            SchemaUnsupported: the constraint became too complex for llguidance.
        """
        self._compute()
        if not self._bits.any():
            return False
        excluded = self._np.unpackbits(~self._bytes, count=self._vocabulary, bitorder="little")
        logits[excluded.view(self._np.bool_)] = -self._np.inf
        return True

    def accept(self, token: int) -> None:
        """Move on by a token that the constraint allows.

        Raises:
            GenerationFailed: the token does not fit.
        """
        if not self._matcher.consume_token(token):
            raise GenerationFailed("the output left its constraint")

    def _compute(self) -> None:
        """Set the bits of the tokens that may come next."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            raise SchemaUnsupported("the constraint is too complex")
        for token in self._ends:
            self._bytes[token >> 3] &= ~(1 << (token & 7)) & 0xFF


def _source(grammar: Grammar) -> str:
    from llguidance import LLMatcher

    if grammar.form == "json_schema":
        try:
            schema = json.loads(grammar.source)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError("the JSON schema is not valid JSON") from error
        if not isinstance(schema, dict | bool):
            raise ConfigurationError("a JSON schema is an object, true or false")
        try:
            return str(LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_COMPACT))
        except ValueError as error:
            raise SchemaUnsupported("the JSON schema cannot be expressed") from error
    if grammar.form == "regex":
        return str(LLMatcher.grammar_from_regex(grammar.source))
    if not grammar.choices or not all(grammar.choices):
        raise ConfigurationError("a choice needs at least one string, none of them empty")
    literals = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in dict.fromkeys(grammar.choices))
    return str(LLMatcher.grammar_from_lark(f"start: {literals}"))


def _refusal(grammar: Grammar, message: str) -> SchemaUnsupported:
    """The refusal without llguidance's words, which quote the schema."""
    if grammar.form != "json_schema":
        return SchemaUnsupported("the constraint cannot be expressed")
    if "nsatisfiable" in message:
        return SchemaUnsupported("nothing satisfies the JSON schema")
    schema = json.loads(grammar.source)
    for word in re.findall(r"[$\w-]+", message):
        path = _find(schema, word)
        if path is not None and word in _KEYWORDS:
            return SchemaUnsupported(f"the keyword {word!r} cannot be expressed", path=path, keyword=word)
    return SchemaUnsupported("the JSON schema cannot be expressed")


# Keywords of JSON Schema that llguidance knows or refuses by name.
_KEYWORDS = frozenset(
    {
        *("$anchor", "$dynamicRef", "$recursiveRef", "$ref", "additionalItems", "additionalProperties", "allOf"),
        "anyOf",
        *("const", "contains", "contentEncoding", "contentMediaType", "dependencies", "dependentRequired"),
        *("dependentSchemas", "else", "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "if", "items"),
        *("maxContains", "maxItems", "maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength"),
        *("minProperties", "minimum", "multipleOf", "not", "oneOf", "pattern", "patternProperties", "prefixItems"),
        *("properties", "propertyNames", "required", "then", "type", "unevaluatedItems", "unevaluatedProperties"),
        "uniqueItems",
    }
)


def _find(schema: Any, keyword: str) -> str | None:
    """JSON pointer of the first object that has the keyword."""
    pending: list[tuple[str, Any]] = [("", schema)]
    while pending:
        path, value = pending.pop(0)
        if isinstance(value, dict):
            if keyword in value:
                return path
            pending += [(f"{path}/{_escape(name)}", inner) for name, inner in value.items()]
        elif isinstance(value, list):
            pending += [(f"{path}/{index}", inner) for index, inner in enumerate(value)]
    return None


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
