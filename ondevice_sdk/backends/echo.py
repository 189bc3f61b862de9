"""A deterministic double of a model: it repeats what it is told, byte by byte.

For tests of everything around a model, in the SDK and in apps. It is a complete backend: chat template, tokeniser with
control tokens, prefix cache, logits with a mild spread, so that sampling, seeds, scores and constraints mean something.

A model file is a small JSON object: `{"ondevice-echo": 1, "context_tokens": 2048}`. To test what happens in bad
weather it may also have `delay_s` (seconds that every forward pass takes), `fail_at_token` and `crash_at_token` (a pass
over this position of a sequence fails, or kills the process), `allocate_bytes` (memory taken while it is loaded).
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from ondevice_sdk.backends.api import (
    RUNNER_CAPABILITIES,
    Backend,
    Batch,
    Capability,
    DeviceProfile,
    Footprint,
    LoadOptions,
    LocalModel,
    ModelRunner,
    ModelShape,
    Probe,
    Segment,
)
from ondevice_sdk.errors import ConfigurationError, GenerationFailed, LoadFailed, ModelCorrupt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["EchoBackend"]

_MARKER = "ondevice-echo"
_SPECIAL = ("<|bos|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_BEGIN, _SYSTEM, _USER, _ASSISTANT, _END = range(256, 256 + len(_SPECIAL))
_VOCABULARY = 256 + len(_SPECIAL)
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message.role + '|>' + message.content + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_LEAD = 8.0  # by how much the logit of the expected token exceeds the others


@dataclass(frozen=True, slots=True)
class _Settings:
    context_tokens: int = 2048
    delay_s: float = 0.0
    fail_at_token: int = -1
    crash_at_token: int = -1
    allocate_bytes: int = 0


class EchoBackend(Backend):
    """Answers a chat with the last user message, and a raw prompt with the prompt."""

    name: ClassVar[str] = "echo"
    formats: ClassVar[frozenset[str]] = frozenset({"echo"})

    def probe(self, device: DeviceProfile) -> Probe:  # noqa: ARG002 - it works everywhere
        """Usable wherever numpy is."""
        if importlib.util.find_spec("numpy") is None:
            return Probe(False, "not installed: numpy", "pip install numpy")
        capabilities = {*RUNNER_CAPABILITIES, Capability.CHAT, Capability.BATCH}
        if importlib.util.find_spec("llguidance") is not None:
            capabilities.add(Capability.SCHEMA)
        return Probe(True, capabilities=frozenset(capabilities))

    def estimate(self, shape: ModelShape, weights_bytes: int, options: LoadOptions) -> Footprint:
        """Next to nothing: the cache is lists of tokens."""
        return Footprint(weights_bytes, 36 * (options.context_tokens or shape.context_tokens), 1_000_000, 60_000_000)

    def library(self) -> str:
        """Itself; the SDK is all that it needs."""
        return f"{self.name} 1"

    def load(self, model: LocalModel, options: LoadOptions) -> ModelRunner:
        """Read the JSON file.

        Raises:
            ModelCorrupt: it is not such a file. LoadFailed: it cannot be read.
        """
        if options.on_progress is not None:
            options.on_progress(0.0)
        runner = _EchoRunner(_read(model.path), options)
        if options.on_progress is not None:
            options.on_progress(1.0)
        return runner


def _read(path: str) -> _Settings:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise LoadFailed(f"the model file cannot be read: {error.strerror}") from error
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelCorrupt("this is not an echo model: not JSON") from error
    if not isinstance(values, dict) or values.pop(_MARKER, None) != 1:
        raise ModelCorrupt("this is not an echo model", expected=f'{{"{_MARKER}": 1}}')
    known = _Settings.__dataclass_fields__
    for name, value in values.items():
        number = isinstance(value, int) or (name == "delay_s" and isinstance(value, float))
        if name not in known or not number or isinstance(value, bool):
            raise ModelCorrupt("an echo model has a setting that is unknown or not a number")
    settings = _Settings(**values)
    if settings.context_tokens < 1 or settings.delay_s < 0 or settings.allocate_bytes < 0:
        raise ModelCorrupt("an echo model has a setting that is out of range")
    return settings


class _EchoRunner(ModelRunner):
    vocabulary = _VOCABULARY
    end_tokens = frozenset({_END})
    begin_token = _BEGIN
    state_version = "echo 1"
    chat_template = _TEMPLATE
    template_variables: Mapping[str, str] = MappingProxyType({"bos_token": _SPECIAL[0], "eos_token": _SPECIAL[-1]})

    def __init__(self, settings: _Settings, options: LoadOptions) -> None:
        import numpy as np

        self._np = np
        self._settings = settings
        wanted = settings.context_tokens if options.context_tokens is None else options.context_tokens
        if min(wanted, options.max_sequences, options.batch_tokens) < 1:
            raise ConfigurationError("context_tokens, max_sequences and batch_tokens must be at least 1")
        self.cache_tokens = wanted
        self.context_tokens = min(settings.context_tokens, self.cache_tokens)
        self.max_sequences = options.max_sequences
        self.max_batch_tokens = options.batch_tokens
        self.max_logits = max(64, options.max_sequences)
        # Per sequence the tokens, and whether logits were wanted there: the answer begins after the first that was.
        self._cache: dict[int, list[tuple[int, bool]]] = {index: [] for index in range(options.max_sequences)}
        self.most_parts, self._parts = options.max_sequences, 1
        self._spread = np.arange(_VOCABULARY) * 12.9898
        self._ballast: bytearray | None = bytearray(b"\x01") * settings.allocate_bytes

    def tokenize(self, segments: Sequence[Segment]) -> list[int]:
        tokens: list[int] = []
        for segment in segments:
            parts = re.split(r"(<\|[a-z]+\|>)", segment.text) if segment.kind == "control" else [segment.text]
            for part in parts:
                if segment.kind == "control" and part in _SPECIAL:
                    tokens.append(256 + _SPECIAL.index(part))
                else:
                    tokens += part.encode("utf-8", "replace")
        return tokens

    def token_bytes(self, token: int) -> bytes:
        return bytes((token,)) if token < 256 else b""

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        settings = self._settings
        if settings.delay_s:
            time.sleep(settings.delay_s)
        if len(batch) > self.max_batch_tokens or sum(batch.logits) > self.max_logits:
            raise GenerationFailed("the batch is too large")
        if settings.crash_at_token in batch.positions:
            os.abort()
        if settings.fail_at_token in batch.positions:
            raise GenerationFailed("the echo model was told to fail here")
        rows: list[NDArray[np.float32]] = []
        for sequence, position, token, wanted in zip(
            batch.sequences, batch.positions, batch.tokens, batch.logits, strict=True
        ):
            cached = self._cache[sequence]
            if position != len(cached):
                raise GenerationFailed("a position of the batch does not follow what is cached")
            cached.append((token, wanted))
            if wanted:
                rows.append(self._logits(cached))
        self._check_room()
        return self._np.stack(rows) if rows else self._np.empty((0, _VOCABULARY), self._np.float32)

    def arrange(self, parts: int) -> None:
        self._parts = parts
        self._cache = {index: [] for index in range(parts if parts > 1 else self.max_sequences)}

    def kv_copy(self, source: int, target: int, start: int, end: int) -> None:
        self._cache[target][start:end] = self._cache[source][start:end]

    def kv_remove(self, sequence: int, start: int, end: int | None) -> None:
        del self._cache[sequence][start:end]

    def kv_save(self, sequence: int) -> bytes:
        return json.dumps(self._cache[sequence]).encode()

    def kv_load(self, sequence: int, data: bytes) -> None:
        self._cache[sequence] = [(int(token), bool(wanted)) for token, wanted in json.loads(data)]

    def grammar_tokenizer(self) -> Any:
        from llguidance import LLTokenizer, TokenizerWrapper

        return LLTokenizer(TokenizerWrapper(_Bytes()))

    def close(self) -> None:
        self._cache.clear()
        self._ballast = None

    def _check_room(self) -> None:
        """Refuse more cells than there are; what one sequence shares with another counts once."""
        if self._parts > 1:
            if max(map(len, self._cache.values())) > self.cache_tokens // self._parts:
                raise GenerationFailed("a part of the cache is full")
            return
        if sum(map(len, self._cache.values())) > self.cache_tokens:
            cells = {id(cell) for cached in self._cache.values() for cell in cached}
            if len(cells) > self.cache_tokens:
                raise GenerationFailed("the cache is full")

    def _logits(self, cached: list[tuple[int, bool]]) -> NDArray[np.float32]:
        last = cached[-1][0]
        phase = 78.233 * (31 * len(cached) + last)
        logits: NDArray[np.float32] = self._np.sin(self._spread + phase).astype(self._np.float32)
        logits[_expected(cached)] += _LEAD
        return logits


def _expected(cached: list[tuple[int, bool]]) -> int:
    """The token that an echo gives next."""
    tokens = [token for token, _ in cached]
    if _ASSISTANT in tokens:
        answer = len(tokens) - tokens[::-1].index(_ASSISTANT)
        users = [at for at, token in enumerate(tokens[:answer]) if token == _USER]
        start = users[-1] + 1 if users else answer
        end = tokens.index(_END, start, answer) if _END in tokens[start:answer] else start
        echoed = tokens[start:end]
    else:
        answer = len(tokens)
        while answer > 1 and cached[answer - 2][1]:
            answer -= 1
        echoed = [token for token in tokens[:answer] if token < 256]
    written = len(tokens) - answer
    return echoed[written] if written < len(echoed) else _END


class _Bytes:
    """The vocabulary as llguidance's wrapper wants it."""

    eos_token_id = _END
    bos_token_id = _BEGIN
    tokens: ClassVar[list[bytes]] = [bytes((value,)) for value in range(256)] + [text.encode() for text in _SPECIAL]
    special_token_ids: ClassVar[list[int]] = list(range(256, _VOCABULARY))

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)
