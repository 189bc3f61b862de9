"""Constraints on the output as token masks, by llguidance."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ondevice_sdk.backends.api import Grammar
from ondevice_sdk.engine.closing import Planner, byte_tokenizer
from ondevice_sdk.engine.schemas.bounds import Need
from ondevice_sdk.engine.schemas.patterns import longest_need
from ondevice_sdk.engine.schemas.source import schema_source
from ondevice_sdk.engine.schemas.unique import Shapes, Watch
from ondevice_sdk.errors import ConfigurationError, GenerationFailed, SchemaUnsupported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_REMEMBERED: Final = 16  # sources that need not be written anew for the next request


def available() -> bool:
    """Whether llguidance can be imported."""
    try:
        import llguidance  # noqa: F401
    except ImportError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Source:
    """A grammar for llguidance, and what it leaves to others."""

    text: str
    shapes: Shapes | None  # where items have to differ
    need: Need
    examples: tuple[str, ...] = ()
    json: bool = True

    def planner(self, tokenizer: Any) -> Planner:
        """What finds completions, at the beginning of an output."""
        watch = None if self.shapes is None else Watch(self.shapes)
        return Planner(self.text, tokenizer, watch, json=self.json, examples=self.examples)


class GrammarCompiler:
    """Makes constraints for one vocabulary. The tokenizer is made when the first one is asked for."""

    def __init__(self, make_tokenizer: Callable[[], Any], vocabulary: int, end_tokens: Iterable[int]) -> None:
        self._make_tokenizer = make_tokenizer
        self._tokenizer: Any = None
        self._bytes: Any = None
        self._vocabulary = vocabulary
        self._end_tokens = sorted(end_tokens)
        self._sources: OrderedDict[Grammar, Source] = OrderedDict()

    def compile(self, grammar: Grammar, *, ignore_eos: bool) -> Constraint:
        """A fresh constraint.

        Raises:
            SchemaUnsupported: it cannot be expressed, or nothing satisfies it.
            ConfigurationError: the schema is not JSON, or there are no choices.
        """
        from llguidance import LLMatcher

        if self._tokenizer is None:
            self._tokenizer = self._make_tokenizer()
            self._bytes = byte_tokenizer()
        source = self._sources.get(grammar)
        if source is None:
            source = self._sources[grammar] = self._source(grammar)
        self._sources.move_to_end(grammar)
        while len(self._sources) > _REMEMBERED:
            self._sources.popitem(last=False)
        # Level 0: it would write parts of the schema to standard error.
        matcher = LLMatcher(self._tokenizer, source.text, log_level=0)
        if matcher.is_error():
            raise SchemaUnsupported("the constraint cannot be expressed")
        constraint = Constraint(
            matcher, self._tokenizer, self._bytes, source, self._vocabulary, self._end_tokens, ignore_eos=ignore_eos
        )
        if not matcher.is_accepting() and not constraint.possible():
            raise SchemaUnsupported("nothing satisfies the constraint")
        return constraint

    def forget(self) -> None:
        """Drop the grammars of requests that are over."""
        self._sources.clear()

    def _source(self, grammar: Grammar) -> Source:
        if grammar.form == "json_schema":
            source = Source(*schema_source(grammar.source, lambda text: _fault(self._bytes, text)))
            if source.shapes is not None and source.planner(self._bytes).completion() is None:
                raise SchemaUnsupported("no value was found that satisfies the JSON schema")
            return source
        text = _plain_source(grammar)
        if _fault(self._bytes, text):
            raise SchemaUnsupported("the constraint cannot be expressed")
        if grammar.form == "regex":
            return Source(text, None, Need(math.inf, longest_need(grammar.source)), json=False)
        return Source(text, None, Need(max(len(choice.encode()) for choice in grammar.choices), 0), json=False)


class Constraint:
    """The state of a constraint along one generation."""

    def __init__(
        self,
        matcher: Any,
        tokenizer: Any,
        byte_tokenizer: Any,
        source: Source,
        vocabulary: int,
        end_tokens: list[int],
        *,
        ignore_eos: bool,
    ) -> None:
        import numpy as np
        from llguidance.numpy import allocate_token_bitmask

        self._np = np
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._byte_tokenizer = byte_tokenizer
        self._source = source
        self._vocabulary = vocabulary
        self._all_ends = frozenset(end_tokens)
        self._ends = end_tokens if ignore_eos else []  # what must not come though the constraint allows it
        self._bits = allocate_token_bitmask(1, vocabulary)
        self._bytes = self._bits.view(np.uint8)[0]
        self._watch = None if source.shapes is None else Watch(source.shapes)
        self._planner: Planner | None = None
        self._unplanned: list[int] = []  # tokens that the planner has not followed yet
        self.need = source.need

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
        return token not in self._ends and self._matcher.validate_tokens([token]) == 1 and self.keeps(token)

    def keeps(self, token: int) -> bool:
        """Whether what llguidance cannot follow would be kept after a token of the mask."""
        if self._watch is None:
            return True
        if token in self._all_ends:
            return self._watch.complete()
        return self._watch.allows(self._tokenizer.decode_bytes([token]))

    def fitting(self, tokens: list[int]) -> int:
        """How many of the tokens, from the first one on, may come next one after another."""
        return int(self._matcher.validate_tokens(tokens))

    def forced(self) -> list[int]:
        """The tokens that have to come next.

        They are cut as the tokeniser would cut the text; what could be cut otherwise once more follows is left out, and
        so all is where the tokeniser is not known to be consistent.
        """
        tokens = list(self._matcher.compute_ff_tokens())
        if tokens and self._watch is not None and not self._watch.allows(self._tokenizer.decode_bytes(tokens)):
            return []
        return tokens

    def mask(self, logits: NDArray[np.float32]) -> bool:
        """Exclude what may not come next, in place; False if nothing may.

        What `Watch` follows is left to `keeps`.

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
        self._unplanned.append(token)
        if self._watch is not None:
            self._watch.accept(self._tokenizer.decode_bytes([token]))

    def completes(self, tokens: list[int]) -> bool:
        """Whether these tokens complete the output."""
        matcher = self._matcher.deep_copy()
        if not matcher.consume_tokens(tokens) or not matcher.is_accepting():
            return False
        watch = None if self._watch is None else self._watch.copy()
        text = self._tokenizer.decode_bytes(tokens)
        if watch is None:
            return True
        if not watch.allows(text):
            return False
        watch.accept(text)
        return watch.complete()

    def completion(self, after: int | None = None, *, enough: int) -> list[int] | None:
        """The tokens of a short text that completes the output; None if none is found.

        The first time it costs as much as compiling a constraint, then a millisecond, or fifty where it has to look for
        a shorter text.

        Args:
            after: a token that comes first, and is not in the result.
            enough: tokens that the text may have; a shorter one is looked for if it has more.
        """
        if self._planner is None:
            self._planner = self._source.planner(self._byte_tokenizer)
        self._planner.feed(self._tokenizer.decode_bytes(self._unplanned))
        self._unplanned.clear()
        before = [] if after is None else [after]
        first = self._tokenizer.decode_bytes(before)
        best: list[int] | None = None
        for thorough in (False, True):
            text = self._planner.completion(first, thorough=thorough)
            if text is None:
                break
            tokens = self._cut(before, text)
            if tokens is not None and (best is None or len(tokens) < len(best)):
                best = tokens
            if best is not None and len(best) <= enough:
                break
        return best

    def _cut(self, before: list[int], text: bytes) -> list[int] | None:
        """A text that completes the output as tokens, cut by the tokeniser or, where that adds a space, greedily."""
        tokens = list(self._tokenizer.tokenize_bytes(text))
        if self.completes(before + tokens):
            return tokens
        tokens = list(self._tokenizer.greedy_tokenize(text.decode("utf-8", "ignore")))
        return tokens if self.completes(before + tokens) else None

    def _compute(self) -> None:
        """Set the bits of the tokens that may come next."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        if self._matcher.is_error():
            raise SchemaUnsupported("the constraint is too complex")
        for token in self._ends:
            self._bytes[token >> 3] &= ~(1 << (token & 7)) & 0xFF


def _plain_source(grammar: Grammar) -> str:
    from llguidance import LLMatcher

    if grammar.form == "regex":
        return str(LLMatcher.grammar_from_regex(grammar.source))
    if not grammar.choices or not all(grammar.choices):
        raise ConfigurationError("a choice needs at least one string, none of them empty")
    literals = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in dict.fromkeys(grammar.choices))
    return str(LLMatcher.grammar_from_lark(f"start: {literals}"))


def _fault(tokenizer: Any, source: str) -> str:
    """Why llguidance does not take a source; empty if it does."""
    from llguidance import LLMatcher

    matcher = LLMatcher(tokenizer, source, log_level=0)
    return str(matcher.get_error()) if matcher.is_error() else ""
