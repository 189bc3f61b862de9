"""Ending in time: the shortest text that completes an output, and when to turn to it."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from json import dumps
from typing import TYPE_CHECKING, Any, Final, Protocol

from ondevice_sdk.engine.schemas.bounds import ALWAYS, Need
from ondevice_sdk.errors import OutputInvalid

if TYPE_CHECKING:
    from ondevice_sdk.engine.schemas.unique import Watch

_END: Final = 256  # of the byte vocabulary
_MOST_BYTES: Final = 2048  # of a completion that is looked for
_MOST_STEPS: Final = 4000  # bytes that are tried for one completion: some 60 ms
_MOST_FORKS: Final = 12  # other ways that are tried where the text may go on in several
_PREFERRED: Final = {byte: rank for rank, byte in enumerate(b'}],"0123456789ntf[{-')}
_IN_TEXT: Final = {ord(sign): rank for rank, sign in enumerate("abc.-:/_@ " + string.ascii_letters[3:] + string.digits)}
_SIGNS: Final = b"a0A.-/:}])>*#"
_OFTEN: Final = 200  # times that a byte is preferred outside of strings, where a way may lead round in circles
_UNKNOWN: Final = 16  # tokens until a completion is looked for again, where none was found


class _Bytes:
    """A vocabulary of single bytes, as llguidance asks for one."""

    eos_token_id = _END
    bos_token_id = None
    special_token_ids = (_END,)
    tokens = (*(bytes((value,)) for value in range(_END)), b"<end>")

    def __call__(self, text: str | bytes) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())


def byte_tokenizer() -> Any:
    """A tokenizer of single bytes."""
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_Bytes()))


@dataclass(slots=True)
class _Walk:
    """A text that is tried: the state of the constraint after it, and what was written."""

    matcher: Any
    watch: Watch | None
    json: bool = True
    written: bytearray = field(default_factory=bytearray)
    forks: list[tuple[int, list[int]]] = field(default_factory=list)  # where, and which other bytes could come
    quoted: bool = False
    escaped: bool = False
    before: frozenset[int] = frozenset()
    used: Counter[int] = field(default_factory=Counter)
    helped: bool = False  # whether examples were tried in this string

    def copy(self) -> _Walk:
        watch = None if self.watch is None else self.watch.copy()
        return replace(
            self,
            matcher=self.matcher.deep_copy(),
            watch=watch,
            written=bytearray(self.written),
            forks=[],
            used=Counter(self.used),
        )

    def add(self, data: bytes) -> bool:
        """Write on; False if that does not fit."""
        if self.watch is not None:
            if not self.watch.allows(data):
                return False
            self.watch.accept(data)
        if not self.matcher.consume_tokens(list(data)):
            return False
        self.written += data
        for byte in data:
            if self.escaped:
                self.escaped = False
            elif byte == 0x5C and self.quoted:
                self.escaped = True
            elif byte == 0x22:
                self.quoted = not self.quoted
                self.helped = False
        return True


class Planner:
    """Finds the shortest text that completes an output: nearly the shortest, byte by byte, at a bounded cost.

    It goes the way that looks shortest, which closes what is open and repeats nothing. Then it tries the other ways at
    the places where there were some, and goes on from the best.
    """

    def __init__(
        self, source: str, tokenizer: Any, watch: Watch | None, *, json: bool, examples: Sequence[str]
    ) -> None:
        """Stand at the beginning.

        Args:
            source: the grammar, for llguidance.
            tokenizer: of single bytes.
            watch: follows items that have to differ.
            json: whether the output is.
            examples: of texts that the grammar may ask for.
        """
        import numpy as np
        from llguidance import LLMatcher
        from llguidance.numpy import allocate_token_bitmask

        self._np = np
        self._bits = allocate_token_bitmask(1, _END + 1)
        self._walk = _Walk(LLMatcher(tokenizer, source, log_level=0), watch, json)
        self._steps = 0
        self._examples = [dumps(text, ensure_ascii=False)[1:].encode() for text in examples]

    def feed(self, data: bytes) -> None:
        """Follow what was written."""
        self._walk.add(data)
        self._walk.written.clear()

    def completion(self, after: bytes = b"", *, thorough: bool = False) -> bytes | None:
        """A short text that completes what was written and these bytes; None if none was found.

        Args:
            after: bytes that come first, and are not in the result.
            thorough: try other ways than the one that looks shortest.
        """
        start = self._walk.copy()
        start.written.clear()
        if after and not start.add(after):
            return None
        start.written.clear()
        self._steps = _MOST_STEPS
        best = self._straight(start, _MOST_BYTES)
        length = 0 if best is None else len(best.written)
        tried = 0
        while thorough and best is not None and tried < len(best.forks):
            at, others = best.forks[tried]
            tried += 1
            stem = start.copy()
            if not stem.add(bytes(best.written[:at])):
                break
            for byte in others[:_MOST_FORKS]:
                way = stem.copy()
                way.before = frozenset()
                if self._steps <= 0 or not way.add(bytes((byte,))):
                    continue
                done = self._straight(way, length - 1)
                if done is not None:
                    done.forks = best.forks[:tried] + done.forks
                    best, length = done, len(done.written)
        return None if best is None else bytes(best.written)

    def _straight(self, walk: _Walk, most: int) -> _Walk | None:
        """Go the way that looks shortest from here; the walk is used up."""
        walk = walk.copy()
        matcher = walk.matcher
        while not (matcher.is_accepting() and (walk.watch is None or walk.watch.complete())):
            if len(walk.written) >= most or self._steps <= 0 or matcher.is_error():
                return None
            self._steps -= 1
            forced = matcher.compute_ff_bytes()
            if forced:
                if not walk.add(forced):
                    return None
                continue
            possible = self._possible(matcher)
            if walk.json and walk.quoted and 0x22 not in possible and self._help(walk, possible):
                continue
            ranked = sorted(possible, key=lambda byte: _rank(walk, byte))
            walk.before = possible
            for index, byte in enumerate(ranked):
                if walk.watch is not None and not walk.watch.allows(bytes((byte,))):
                    continue
                rest = _worth_trying(ranked[index + 1 :])
                if rest:
                    walk.forks.append((len(walk.written), rest))
                walk.used[byte] += 1
                walk.add(bytes((byte,)))
                break
            else:
                return None
        return walk if len(walk.written) <= most else None

    def _help(self, walk: _Walk, possible: frozenset[int]) -> bool:
        """End a string by one more character, by two, or by the shortest example that does."""
        signs = [byte for byte in possible if byte < 0x80 and byte != 0x5C]
        if not signs:
            return False  # within a character
        fits = walk.matcher.validate_tokens
        endings = [bytes((byte, 0x22)) for byte in signs if fits([byte, 0x22]) == 2]
        if not endings and not walk.helped:
            walk.helped = True
            endings = [bytes((one, two, 0x22)) for one in signs for two in _SIGNS if fits([one, two, 0x22]) == 3]
            ends = [text[start:] for text in self._examples for start in range(len(text) - 1)]
            endings += [text for text in ends if fits(list(text)) == len(text)]
        endings.sort(key=lambda text: (len(text), not text[:1].isalnum()))
        return any(walk.add(text) for text in endings)

    def _possible(self, matcher: Any) -> frozenset[int]:
        matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        bits = self._np.unpackbits(self._bits.view(self._np.uint8)[0], count=_END, bitorder="little")
        return frozenset(self._np.flatnonzero(bits).tolist())


def _rank(walk: _Walk, byte: int) -> tuple[int, ...]:
    """What to try first: in a string its end, then what has just become possible, then what was written least."""
    if walk.json and not walk.quoted:
        known = byte in _PREFERRED and walk.used[byte] < _OFTEN
        return (0, _PREFERRED[byte]) if known else (1, walk.used[byte], byte)
    if walk.json and byte == 0x22 and not walk.escaped:
        return (0,)
    fresh = bool(walk.before) and byte not in walk.before
    return 1, not fresh, walk.used[byte], fresh and chr(byte).isalnum(), _IN_TEXT.get(byte, byte + len(_IN_TEXT))


def _worth_trying(ranked: Sequence[int]) -> list[int]:
    """Other bytes that may lead to something shorter; none of a free string's."""
    return [] if len(ranked) > 2 * _MOST_FORKS else list(ranked)


class Completing(Protocol):
    """What a budget needs of a constraint."""

    need: Need

    def completes(self, tokens: list[int]) -> bool:
        """Whether these tokens complete the output."""

    def completion(self, after: int | None = None, *, enough: int) -> list[int] | None:
        """The tokens of a text that completes the output (and one more token), as few as are enough if possible."""


class Budget:
    """Sees to it that a constrained output is complete when its tokens run out.

    Far from the end it does nothing. It looks for a completion when one might not fit any more, next when that might
    have changed, and at last for every token, and lets no token pass after which none would fit. Where something is
    watched that no grammar says, it does so from the first token on, as what is allowed may lead to where nothing is.
    """

    def __init__(self, constraint: Completing, limit: int) -> None:
        """Check the whole.

        Raises:
            OutputInvalid: no value fits into the limit.
        """
        self._constraint = constraint
        self._limit = limit
        self._plan: list[int] | None = None
        self.closed = False  # whether the output is another for want of room
        self._due = self._far(limit)
        if self._due > 0:
            return
        plan = constraint.completion(enough=limit)
        if plan is None:
            self._due = _UNKNOWN
            return
        if len(plan) > limit:
            raise OutputInvalid(
                "no value of the form fits into so few tokens", hint=f"max_tokens has to be at least {len(plan)}"
            )
        self._plan = plan

    def steer(self, token: int, count: int) -> int | None:
        """The token to write after so many, if need be another than was chosen; None to end here."""
        if count < self._due:
            return token
        left = self._limit - count
        plan = self._plan if self._plan is not None else self._constraint.completion(enough=left)
        self._plan = None
        if plan is None or self._far(left - len(plan)) > 0:
            self._due = count + (_UNKNOWN if plan is None else self._far(left - len(plan)))
            return token
        if plan and token == plan[0]:
            self._plan = plan[1:]
            return token
        # In most places one token stands for another of its kind, or before it.
        after = next((each for each in (plan, plan[1:]) if self._completes(token, each, left)), None)
        lacking = False
        if after is None:
            found = self._constraint.completion(token, enough=left - 1)
            lacking = found is not None and len(found) >= left
            after = found if found is not None and self._completes(token, found, left) else None
        if after is not None:
            self._plan = after
            return token
        # Where nothing completes the token, it was not for want of room that it could not be written.
        self.closed = self.closed or lacking or self._constraint.need != ALWAYS
        if not plan:
            return None
        self._plan = plan[1:]
        return plan[0]

    def _completes(self, token: int, after: list[int], left: int) -> bool:
        """Whether the token and these complete the output in time."""
        return len(after) < left and self._constraint.completes([token, *after])

    def forced(self, tokens: list[int]) -> list[int]:
        """The tokens to write of those that have to come next: near the end those that the completion has too."""
        if self._plan is None:
            return tokens
        pairs = zip(tokens, self._plan, strict=False)
        shared = min(len(tokens), len(self._plan))
        count = next((index for index, (one, other) in enumerate(pairs) if one != other), shared)
        self._plan = self._plan[count:]
        return tokens[:count]

    def _far(self, slack: int) -> int:
        """After how many tokens at the earliest none might be left, of so many that are not needed now."""
        need = self._constraint.need
        return max(0, int((slack - need.most) // (need.growth + 1))) if need.most < slack else 0
