"""The seam for runtimes: what a backend, an engine and a model runner are.

A backend package needs this module, `ondevice_sdk.engine`, `ondevice_sdk.types` and `ondevice_sdk.errors`, no other.
Implement `ModelRunner` for a runtime that gives logits; the SDK's `BatchedEngine` then brings batching, sampling, stop
strings, constraints and scoring. Implement `Engine` for a runtime that schedules requests itself.
"""

from __future__ import annotations

import enum
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from ondevice_sdk.backends.builder import Builder
from ondevice_sdk.backends.calibration import Calibrator
from ondevice_sdk.backends.compressor import Compressor
from ondevice_sdk.backends.relayer import Relayer
from ondevice_sdk.backends.requests import (
    GREEDY,
    Chat,
    Done,
    Embed,
    Embedded,
    ErrorInfo,
    Event,
    Failed,
    Generate,
    Generated,
    Grammar,
    Prompt,
    PromptProgress,
    Raw,
    Request,
    Result,
    Sampling,
    Score,
    Scored,
    TextDelta,
    Tokenize,
    Tokenized,
)
from ondevice_sdk.errors import Unsupported
from ondevice_sdk.types import DeviceProfile, Message, ModelShape, Segment, Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "PREFIX_CACHE_BYTES",
    "GREEDY",
    "RUNNER_CAPABILITIES",
    "Backend",
    "Batch",
    "Builder",
    "Calibrator",
    "Capability",
    "Chat",
    "Compressor",
    "DeviceProfile",
    "Done",
    "Embed",
    "Embedded",
    "Engine",
    "ErrorInfo",
    "Event",
    "Failed",
    "Footprint",
    "Generate",
    "Generated",
    "Grammar",
    "KvType",
    "LoadOptions",
    "LocalAdapter",
    "LocalModel",
    "Message",
    "ModelRunner",
    "ModelShape",
    "Probe",
    "Prompt",
    "PromptProgress",
    "Raw",
    "Relayer",
    "Request",
    "Result",
    "Sampling",
    "Score",
    "Scored",
    "Segment",
    "TextDelta",
    "Tokenize",
    "Tokenized",
    "Usage",
    "unsupported",
]


class Capability(enum.StrEnum):
    """What an engine can do. What is not listed is refused with `Unsupported`, never ignored."""

    GENERATE = "generate"
    BATCH = "batch"  # several requests at a time
    SCHEMA = "schema"  # constrained output
    SCORE = "score"
    EMBED = "embed"
    PREFIX_CACHE = "prefix_cache"
    ADAPTER = "adapter"
    SEED = "seed"  # same seed, same text
    DETERMINISTIC = "deterministic"  # same bytes alone, batched, cached or cold
    CHAT = "chat"  # the model brings a chat template


def unsupported(capability: Capability) -> Unsupported:
    """The error of a request that needs what an engine does not claim."""
    return Unsupported(f"the engine cannot do this: {capability.value}", capability=capability.value)


# What the SDK's own engine gives to every model runner.
RUNNER_CAPABILITIES = frozenset(
    {Capability.GENERATE, Capability.SCORE, Capability.SEED, Capability.PREFIX_CACHE, Capability.DETERMINISTIC}
)


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a backend works on this machine; if not, the reason and the line to type."""

    usable: bool
    reason: str = ""
    hint: str = ""
    capabilities: frozenset[Capability] = frozenset()


@dataclass(frozen=True, slots=True)
class Footprint:
    """Predicted bytes of a worker with a loaded model at its peak; `process` is Python and the runtime's libraries."""

    weights: int
    kv_cache: int
    work_buffers: int
    process: int = 90_000_000

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.work_buffers + self.process


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model on this disk, checked by the store. `path` is its first or only file."""

    name: str
    variant: str
    format: str
    path: str
    sha256: str
    files: tuple[str, ...] = ()

    def size(self) -> int:
        """Bytes of all its files, looked up on the disk."""
        return sum(os.stat(name).st_size for name in self.files or (self.path,))  # noqa: PTH116 - paths are strings here


@dataclass(frozen=True, slots=True)
class LocalAdapter:
    """A LoRA adapter on this disk, checked by the store. `size` is in bytes."""

    name: str
    path: str
    sha256: str
    size: int = 0


KvType = Literal["f32", "f16", "q8_0"]  # how keys and values are kept: 32 bits each, 16, or 8.5


PREFIX_CACHE_BYTES: Final = 256_000_000


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a model.

    `context_tokens` is the room of all sequences together; None: the backend's default. `kv_type` is one of the
    backend's `kv_types`, which are worth choosing, or one that only serves to compare models exactly. `adapters` are
    those that requests may name; one that turns out not to be usable is an error of these requests, not of the load.
    """

    context_tokens: int | None = None
    max_sequences: int = 8
    threads: int | None = None
    batch_tokens: int = 512  # most tokens of one forward pass
    kv_type: KvType = "f16"
    prefix_cache_bytes: int = PREFIX_CACHE_BYTES  # most that states of finished requests take, besides the KV cache
    on_progress: Callable[[float], None] | None = field(default=None, compare=False)  # share of the weights loaded
    adapters: tuple[LocalAdapter, ...] = ()


class Backend(ABC):
    """A runtime library. Made without arguments; importing its module must not import the runtime itself."""

    name: ClassVar[str]
    formats: ClassVar[frozenset[str]]
    kv_types: ClassVar[tuple[KvType, ...]] = ("f16",)  # the most exact first
    # Of the formats those in one file that nobody else knows, and how it begins: the store tells them by that. At least
    # four bytes; native code, pickle and what begins like JSON are not looked at.
    magic: ClassVar[Mapping[str, bytes]] = MappingProxyType({})

    @abstractmethod
    def probe(self, device: DeviceProfile) -> Probe:
        """Say whether the runtime works here: quick, silent, without importing it, and never raising."""

    @abstractmethod
    def estimate(self, shape: ModelShape, weights_bytes: int, options: LoadOptions) -> Footprint:
        """Predict the memory of a loaded model."""

    def library(self) -> str:
        """What its speed depends on besides model and device, for people: "llama.cpp 0.3.36". Without importing it.

        What was measured with another one is measured anew. By default the plugin and the versions of all that it
        requires; a backend that is given settings which change its speed adds them.
        """
        from ondevice_sdk.backends import versions  # slow to import, and workers have no use for it

        return versions.of_plugin(type(self).__module__)

    def calibrator(self) -> Calibrator | None:
        """How to measure it on this device; None: its speeds are guessed from the device's description."""
        return None

    def relayer(self) -> Relayer | None:
        """How to write a model in formats that are faster here; None: it cannot."""
        return None

    def builder(self) -> Builder | None:
        """How to make models for it out of others; None: it cannot. Quick, and without importing the runtime."""
        return None

    def compressor(self) -> Compressor | None:
        """How to write a model in fewer bits; None: it cannot. Quick, and without importing the runtime."""
        return None

    def import_runtime(self) -> None:
        """Import what `load` needs, where that takes long: called before it, and measured apart. May raise anything."""
        return

    @abstractmethod
    def load(self, model: LocalModel, options: LoadOptions) -> Engine | ModelRunner:
        """Load a local file; never a URL or a hub name.

        Raises:
            ModelCorrupt, ModelUnsupported, LoadFailed, BackendUnavailable.
        """


class Engine(ABC):
    """One loaded model that serves requests. One thread makes, steps and closes it."""

    capabilities: frozenset[Capability]
    context_tokens: int  # most tokens of one request, prompt and answer together
    max_sequences: int = 1
    chat_template: str | None = None  # Jinja source that chats are laid out with; receipts have its digest

    @abstractmethod
    def add_request(self, request_id: str, request: Request) -> None:
        """Queue a request. A bad one gets a `Failed` event from the next `step`; this never raises for its content."""

    @abstractmethod
    def abort_request(self, request_id: str) -> None:
        """End a request at the next `step`.

        A generation gets `Done` with `finish_reason="cancelled"` and its partial text, any other request `Failed` with
        code `cancelled`. An id that is unknown or finished is ignored.
        """

    @abstractmethod
    def step(self, token_budget: int) -> Sequence[Event]:
        """Advance: one token for every active sequence, and prefill of at most `token_budget` tokens."""

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether `step` has something to do."""

    def idle(self) -> None:
        """Called when there is nothing to do, after the results were sent; may take some 100 ms."""
        return

    def forget(self) -> None:
        """Drop what is kept of requests that are over, on the disk too; those that run go on."""
        return

    @abstractmethod
    def close(self) -> None:
        """Free everything; may be called twice."""


@dataclass(slots=True)
class Batch:
    """Rows of one forward pass: parallel lists. `logits[i]` says whether the logits of row i are wanted.

    `adapter` is the digest of the adapter that all of them run with, empty: none.
    """

    sequences: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logits: list[bool] = field(default_factory=list)
    adapter: str = ""

    def add(self, sequence: int, position: int, token: int, logits: bool) -> None:
        """Append a row."""
        self.sequences.append(sequence)
        self.positions.append(position)
        self.tokens.append(token)
        self.logits.append(logits)

    def sort(self) -> None:
        """Put the rows into the order of their sequences; rows of one keep theirs."""
        order = sorted(range(len(self)), key=self.sequences.__getitem__)
        self.sequences = [self.sequences[index] for index in order]
        self.positions = [self.positions[index] for index in order]
        self.tokens = [self.tokens[index] for index in order]
        self.logits = [self.logits[index] for index in order]

    def __len__(self) -> int:
        return len(self.tokens)


class ModelRunner(ABC):
    """A loaded model seen as tokens in, logits out. `engine.BatchedEngine` makes an `Engine` of it."""

    context_tokens: int  # most tokens of one sequence
    cache_tokens: int  # room of the KV cache, shared by all sequences
    max_sequences: int
    max_batch_tokens: int  # most rows of one `forward`
    max_logits: int = 64  # most rows of one `forward` whose logits are wanted; at least `max_sequences`
    # A sequence beyond `max_sequences` with a cache of its own, for runtimes where what the others hold in the shared
    # cache changes the last bits of a result. None: it changes nothing. No `kv_copy` from it or to it.
    isolated_sequence: int | None = None
    vocabulary: int
    end_tokens: frozenset[int]  # tokens that end an answer
    begin_token: int | None = None  # put before a raw prompt
    chat_template: str | None = None  # Jinja source
    template_variables: Mapping[str, str] = MappingProxyType({})  # bos_token, eos_token ... as text
    special_capabilities: frozenset[Capability] = frozenset()  # beyond what the engine gives every runner
    # What the states of `kv_save` depend on besides the model, such as "llama.cpp 0.3.36". Empty: no state outlives
    # the process.
    state_version: str = ""
    most_parts: int = 1  # into how many parts `arrange` can split the KV cache

    @abstractmethod
    def tokenize(self, segments: Sequence[Segment]) -> list[int]:
        """Token ids of the segments; special tokens are recognised in `control` segments only. Adds no begin token."""

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for in the output; empty for control tokens."""

    def detokenize(self, tokens: Sequence[int]) -> bytes:
        """The bytes of several tokens."""
        return b"".join(self.token_bytes(token) for token in tokens)

    @abstractmethod
    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """Run the rows; give the logits of the rows that want them, shape (wanted, vocabulary), in row order.

        The array may be a view that the next call overwrites.

        Raises:
            GenerationFailed: the runtime reported an error; the sequences of the batch are then undefined.
        """

    @abstractmethod
    def kv_copy(self, source: int, target: int, start: int, end: int) -> None:
        """Make `target` share the cached positions [start, end) of `source`."""

    @abstractmethod
    def kv_remove(self, sequence: int, start: int, end: int | None) -> None:
        """Forget cached positions [start, end); None: to the end."""

    def arrange(self, parts: int) -> None:
        """Forget all sequences, and split the KV cache.

        Args:
            parts: 1: all `max_sequences` share its cells, and attention runs over what any of them holds. More: the
                sequences 0 to `parts` - 1 have `cache_tokens // parts` cells each, and there are no others.

        Raises:
            GenerationFailed: there is no memory for it; all share the cells now. MemoryError: the runner is lost.
        """
        raise NotImplementedError

    def kv_save(self, sequence: int) -> bytes:
        """State of a sequence, for `kv_load` of the same model."""
        raise NotImplementedError

    def kv_load(self, sequence: int, data: bytes) -> None:
        """Put back what `kv_save` gave."""
        raise NotImplementedError

    def adapter_digest(self, name: str) -> str:
        """The SHA-256 of an adapter that passes may run with; only with `Capability.ADAPTER`.

        Raises:
            ConfigurationError: the model was loaded with none of this name.
            ModelUnsupported, ModelCorrupt, LoadFailed: it was, and the adapter is not usable.
        """
        raise NotImplementedError

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One vector per text; only with `Capability.EMBED` in `special_capabilities`."""
        raise NotImplementedError

    def grammar_tokenizer(self) -> Any:
        """The vocabulary as an `llguidance.LLTokenizer`; called once, when a constraint is first asked for."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None:
        """Free everything; may be called twice."""
