"""A subject made ready to be measured: a worker with its model loaded, or a client, and the bare library beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from ondevice_sdk import Client
from ondevice_sdk.bench import library, prompts
from ondevice_sdk.bench.conditions import Conditions, Sizes, device_with
from ondevice_sdk.bench.library import BareLibrary
from ondevice_sdk.bench.session import Session
from ondevice_sdk.bench.subjects import Subject
from ondevice_sdk.catalogue import gguf, layout
from ondevice_sdk.catalogue.gguf import GgufHeader
from ondevice_sdk.chooser import Chooser, Chosen, Settings
from ondevice_sdk.runtime import open_executor
from ondevice_sdk.store import Store
from ondevice_sdk.types import DeviceProfile, ModelShape

T = TypeVar("T")

_SEQUENCES = 8  # as a client loads
_BARE_CONTEXT = 4096  # tokens, where the client leaves it to the backend


@dataclass(frozen=True, slots=True)
class Target:
    """A subject with everything that is decided before it is loaded."""

    subject: Subject
    chosen: Chosen
    shape: ModelShape | None
    weights_read_bytes: int | None
    quantisation: str
    file_bytes: int
    device: DeviceProfile
    conditions: Conditions
    sizes: Sizes
    store: Store

    @classmethod
    def of(cls, subject: Subject, device: DeviceProfile, conditions: Conditions, sizes: Sizes, store: Store) -> Target:
        """Resolve a subject as a client would.

        Raises:
            ModelNotInstalled, NoModelFits, ModelCorrupt, BackendUnavailable, ConfigurationError.
        """
        settings = Settings(
            subject.model, privacy=conditions.privacy, backends=conditions.backends, context=conditions.context_tokens
        )
        chosen = Chooser(settings, store, device).resolve()
        header = gguf.read_header(chosen.model.path) if chosen.model.format == "gguf" else None
        return cls(
            subject,
            chosen,
            header.shape if header else None,
            read_per_token(header) if header and len(chosen.model.files) <= 1 else None,
            quantisation(header) if header else chosen.model.format,
            chosen.model.size(),
            device,
            conditions,
            sizes,
            store,
        )

    @property
    def context_tokens(self) -> int:
        """Of the bare library, and of ours where it says so."""
        return self.chosen.context_tokens or _BARE_CONTEXT

    @property
    def compared(self) -> bool:
        """Whether the bare library runs beside it."""
        return self.conditions.against_library and library.can_run(self.chosen.backend)

    @property
    def memory_bytes(self) -> int:
        """About what it takes while it is measured, with the bare library."""
        cache = self.shape.kv_bytes_per_token() * self.context_tokens if self.shape else 0
        return (self.file_bytes + cache + 300_000_000) * (2 if self.compared else 1)

    def bare(self, sequences: int = 1) -> BareLibrary:
        """The bare library with this model, loaded."""
        return BareLibrary(
            self.chosen.model.path,
            threads=self.device.threads,
            context_tokens=self.context_tokens,
            sequences=sequences,
        )

    def client(self) -> Client:
        """A client of this model."""
        return Client(
            self.subject.model,
            privacy=self.conditions.privacy,
            backends=self.conditions.backends,
            context=self.conditions.context_tokens,
            device=device_with(self.conditions.threads),
            store=self.store,
        )


class Station:
    """What every station has: the target, the bare library or None, and a fresh seed for each text."""

    def __init__(self, target: Target, bare: BareLibrary | None) -> None:
        self.target = target
        self.bare = bare
        self._seed = 0

    def both(self, turn: int, ours: Callable[[], T], theirs: Callable[[BareLibrary], T]) -> tuple[T, T | None]:
        """Run ours and the library's one after the other; which goes first changes from turn to turn."""
        bare = self.bare
        if bare is None:
            return ours(), None
        if turn % 2:
            first = theirs(bare)
            return ours(), first
        mine = ours()
        return mine, theirs(bare)

    def seed(self) -> int:
        """Another number each time, the same ones for every target."""
        self._seed += 1
        return self._seed


class Loaded(Station):
    """A sealed worker with the model loaded."""

    def __init__(self, target: Target, bare: BareLibrary | None, session: Session) -> None:
        super().__init__(target, bare)
        self.session = session

    def prompt(self, tokens: int) -> str:
        """A new prompt of exactly so many tokens."""
        return prompts.exact(self.session.count, tokens, self.seed())


class Served(Station):
    """A client, as an app has one."""

    def __init__(self, target: Target, bare: BareLibrary | None, ai: Client) -> None:
        super().__init__(target, bare)
        self.ai = ai

    def document(self, tokens: int) -> str:
        """A new text of exactly so many tokens."""
        return prompts.exact(lambda texts: [self.ai.count_tokens(text) for text in texts], tokens, self.seed(), fan=1)


@contextmanager
def loaded(target: Target) -> Iterator[Loaded]:
    """Load the model in a worker, and in the bare library."""
    sequences = max(_SEQUENCES, *target.sizes.batch_sizes)
    with ExitStack() as stack:
        executor = open_executor(
            target.chosen.entry,
            target.chosen.model,
            replace(target.chosen.options, max_sequences=sequences, threads=target.device.threads),
            isolation="process",
            privacy=target.conditions.privacy,
        )
        stack.callback(executor.close)
        bare = stack.enter_context(target.bare(sequences)) if target.compared else None
        yield Loaded(target, bare, Session(executor))


@contextmanager
def served(target: Target) -> Iterator[Served]:
    """Make a client, and load the bare library."""
    with ExitStack() as stack:
        ai = stack.enter_context(target.client())
        ai.prewarm()
        bare = stack.enter_context(target.bare()) if target.compared else None
        yield Served(target, bare, ai)


@contextmanager
def nothing_loaded(target: Target) -> Iterator[Station]:
    """For what starts cold."""
    yield Station(target, None)


def read_per_token(header: GgufHeader) -> int | None:
    """Bytes of weights that decoding a token reads; None where the file has tensors of other formats.

    All of them once, except for an embedding table that is not the output matrix too: of that one row is read.
    """
    if header.shape is None or not all(number in layout.NUMBERS for number in header.tensor_types):
        return None
    size = 0
    for number, values in header.tensor_types.items():
        block, count = layout.BLOCKS[layout.NUMBERS[number]]
        size += values // block * count
    if not layout.tied(header.shape):
        size -= size * header.shape.vocabulary * header.shape.width // header.shape.parameters
    return size


def quantisation(header: GgufHeader) -> str:
    """The format of most of the weights, as llama.cpp's tools name it."""
    number = max(header.tensor_types, key=lambda kind: header.tensor_types[kind], default=0)
    most = layout.NUMBERS.get(number, f"type {number}")
    return {14: "Q4_K_S", 15: "Q4_K_M", 17: "Q5_K_M"}.get(header.file_type or 0, most)
