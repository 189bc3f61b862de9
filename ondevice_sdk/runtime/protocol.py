"""What app and worker say to each other, and how it is checked: strict types, no unknown fields, no odd numbers.

pydantic is imported on first use, in both processes, and never with `import ondevice_sdk`.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeVar

from ondevice_sdk.backends.api import ErrorInfo, Event, KvType, LoadOptions, LocalAdapter, LocalModel, Request
from ondevice_sdk.catalogue.plain import build
from ondevice_sdk.errors import ConfigurationError, OnDeviceError, rebuild
from ondevice_sdk.privacy.evidence import Seal
from ondevice_sdk.runtime import wire
from ondevice_sdk.runtime.wire import ProtocolError
from ondevice_sdk.types import PrivacyLevel

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

Role = Literal["model", "function", "maker"]  # what a worker does after its seal

# Errors that a worker may report; every other one is the app's own business.
LOAD_ERRORS: Final = frozenset(
    {"backend_unavailable", "configuration_error", "load_failed", "model_corrupt", "model_unsupported", "unsupported"}
)
REQUEST_ERRORS: Final = frozenset(
    {
        "cancelled",
        "configuration_error",
        "generation_failed",
        "input_too_long",
        "load_failed",
        "model_corrupt",  # its adapter
        "model_unsupported",  # its chat template is refused, or its adapter was made for another model
        "output_invalid",
        "schema_unsupported",
        "unsupported",
    }
)
MAKER_ERRORS: Final = LOAD_ERRORS | {"model_not_installed", "store_error"}
_LONGEST_MESSAGE: Final = 4_000  # characters
_SURROGATES: Final = re.compile("[\ud800-\udfff]")


# --- to the worker ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SealNow:
    """Seal yourself; answered by `Closed`.

    What lies beneath the `read` paths stays readable, what lies beneath `private` also writable. In `caches`, which
    outlive the worker, it may keep plain files.
    """

    level: PrivacyLevel
    read: tuple[str, ...]
    private: str
    caches: tuple[str, ...] = ()
    blob: int = 0
    kind: Literal["seal"] = "seal"


@dataclass(frozen=True, slots=True)
class Prove:
    """You were looked at: hide, and try what is refused; answered by `Hello`."""

    blob: int = 0
    kind: Literal["prove"] = "prove"


@dataclass(frozen=True, slots=True)
class Go:
    """The seal was verified; third-party modules lie here."""

    path: tuple[str, ...]
    role: Role = "model"
    blob: int = 0
    kind: Literal["go"] = "go"


@dataclass(frozen=True, slots=True)
class Run:
    """Call the function at `entry` with these arguments (a JSON object); answered by `Result` or `Refused`."""

    entry: str
    arguments: str = field(repr=False)  # may hold the user's text
    blob: int = 0
    kind: Literal["run"] = "run"


@dataclass(frozen=True, slots=True)
class Handed:
    """A cache on the disk with its key, for this pipe and nothing else."""

    directory: str
    secret: str = field(repr=False)  # base64
    purpose: str
    model_digest: str
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class Load:
    """Load a model with the backend at `entry` ("module:attribute"); answered by `Ready` or `Refused`."""

    entry: str
    model: LocalModel
    context_tokens: int | None
    max_sequences: int
    threads: int | None
    batch_tokens: int
    kv_type: KvType = "f16"
    prefix_cache_bytes: int = 0
    prefixes: Handed | None = None
    adapters: tuple[LocalAdapter, ...] = ()
    blob: int = 0
    kind: Literal["load"] = "load"

    @classmethod
    def of(cls, entry: str, model: LocalModel, options: LoadOptions, prefixes: Handed | None = None) -> Load:
        """The message for these options; their callback stays in the app."""
        return cls(
            entry,
            model,
            options.context_tokens,
            options.max_sequences,
            options.threads,
            options.batch_tokens,
            options.kv_type,
            options.prefix_cache_bytes,
            prefixes,
            options.adapters,
        )

    def options(self, on_progress: Callable[[float], None]) -> LoadOptions:
        """The options again, with the worker's own callback."""
        return LoadOptions(
            self.context_tokens,
            self.max_sequences,
            self.threads,
            self.batch_tokens,
            self.kv_type,
            self.prefix_cache_bytes,
            on_progress,
            self.adapters,
        )


@dataclass(frozen=True, slots=True)
class Submit:
    """Start a request."""

    request_id: str
    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a request early."""

    request_id: str
    blob: int = 0
    kind: Literal["cancel"] = "cancel"


@dataclass(frozen=True, slots=True)
class Forget:
    """Drop what is kept of requests that are over; answered by `Forgotten`."""

    blob: int = 0
    kind: Literal["forget"] = "forget"


@dataclass(frozen=True, slots=True)
class Close:
    """Free the model and exit."""

    blob: int = 0
    kind: Literal["close"] = "close"


@dataclass(frozen=True, slots=True)
class _SubmitHeader:
    request_id: str
    blob: int
    kind: Literal["submit"] = "submit"


# --- to the app -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The interpreter runs, nothing is sealed yet."""

    blob: int = 0
    kind: Literal["started"] = "started"


@dataclass(frozen=True, slots=True)
class Closed:
    """Everything is given up. `told`: the kernel's reports were handed over."""

    told: bool
    blob: int = 0
    kind: Literal["closed"] = "closed"


@dataclass(frozen=True, slots=True)
class Hello:
    """The worker's account of its seal."""

    seal: Seal
    blob: int = 0
    kind: Literal["hello"] = "hello"


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """Share of the weights loaded, or of the work of a function done, 0 to 1; `stage`: of a maker, what it is at."""

    fraction: float
    stage: str = ""
    blob: int = 0
    kind: Literal["load_progress"] = "load_progress"


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded."""

    context_tokens: int
    max_sequences: int
    capabilities: frozenset[str]
    import_s: float  # seconds from `Go` until the runtime library was imported
    load_s: float  # seconds from then on
    template: str | None = None  # SHA-256 of the chat template
    blob: int = 0
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Refused:
    """The model could not be loaded."""

    error: ErrorInfo
    blob: int = 0
    kind: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Nothing is kept of requests that are over."""

    blob: int = 0
    kind: Literal["forgotten"] = "forgotten"


@dataclass(frozen=True, slots=True)
class Result:
    """What a function returned, as JSON."""

    value: str
    blob: int = 0
    kind: Literal["result"] = "result"


@dataclass(frozen=True, slots=True)
class Events:
    """What the engine's last step brought."""

    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class _EventsHeader:
    blob: int
    kind: Literal["events"] = "events"


ToWorker = SealNow | Prove | Go | Run | Load | Submit | Cancel | Forget | Close
ToApp = Started | Closed | Hello | LoadProgress | Ready | Refused | Result | Events | Forgotten

_WorkerHeader = SealNow | Prove | Go | Run | Load | _SubmitHeader | Cancel | Forget | Close
_AppHeader = Started | Closed | Hello | LoadProgress | Ready | Refused | Result | _EventsHeader | Forgotten


@dataclass(frozen=True, slots=True)
class _Adapters:
    to_worker: TypeAdapter[_WorkerHeader]
    to_app: TypeAdapter[_AppHeader]
    request: TypeAdapter[Request]
    events: TypeAdapter[tuple[Event, ...]]


@functools.cache
def _adapters() -> _Adapters:
    from pydantic import ConfigDict, Field, TypeAdapter

    config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="constants")
    kind = Field(discriminator="kind")
    return _Adapters(
        TypeAdapter(Annotated[_WorkerHeader, kind], config=config),
        TypeAdapter(Annotated[_AppHeader, kind], config=config),
        TypeAdapter(Annotated[Request, kind], config=config),
        TypeAdapter(tuple[Annotated[Event, kind], ...], config=config),
    )


def prepare() -> None:
    """Import what reads messages now, while there is something to wait for: it takes longer than to start Python."""
    _adapters()


# --- encoding and decoding --------------------------------------------------------------------------------------------


def to_worker(message: ToWorker) -> bytes:
    """The frame of a message to the worker.

    Raises:
        ConfigurationError: a request is larger than a frame may be, or holds a value that is not of its type.
    """
    adapters = _adapters()
    if isinstance(message, Submit):
        blob = _request_blob(message.request)
        header = _SubmitHeader(message.request_id, len(blob))
        return wire.pack(adapters.to_worker.dump_python(header, mode="json"), wire.TO_WORKER, blob)
    return wire.pack(adapters.to_worker.dump_python(message, mode="json"), wire.TO_WORKER)


def to_app(message: ToApp) -> bytes:
    """The frame of a message to the app.

    Raises:
        ProtocolError: it is larger than a frame may be.
    """
    if isinstance(message, LoadProgress):  # sent while pydantic is being imported
        return wire.pack(asdict(message), wire.TO_APP)
    adapters = _adapters()
    if isinstance(message, Events):
        blob = _dump(adapters.events, message.events)
        return wire.pack(adapters.to_app.dump_python(_EventsHeader(len(blob)), mode="json"), wire.TO_APP, blob)
    return wire.pack(adapters.to_app.dump_python(message, mode="json"), wire.TO_APP)


def from_app(frame: wire.Frame) -> ToWorker:
    """Read a frame in the worker.

    Raises:
        ProtocolError: it is not a message.
    """
    header = _check(_adapters().to_worker, frame.header)
    if isinstance(header, _SubmitHeader):
        return Submit(header.request_id, _check(_adapters().request, frame.blob))
    return _without_blob(header, frame)


def load_from_app(frame: wire.Frame) -> Load:
    """Read the first message in the worker of a model, without pydantic: that is imported while the model is loaded.

    Raises:
        ProtocolError: it is not `Load`.
    """
    try:
        return _without_blob(build(Load, json.loads(frame.header), "load"), frame)
    except (ConfigurationError, ValueError, RecursionError):
        raise ProtocolError("the message is not the one that loads a model") from None


def from_worker(frame: wire.Frame) -> ToApp:
    """Read a frame in the app.

    Raises:
        ProtocolError: it is not a message.
    """
    header = _check(_adapters().to_app, frame.header)
    if isinstance(header, _EventsHeader):
        return Events(_check(_adapters().events, frame.blob))
    return _without_blob(header, frame)


def _dump(adapter: TypeAdapter[T], value: T) -> bytes:
    try:
        return adapter.dump_json(value, warnings="none")
    except ValueError:
        # Half of a surrogate pair is no character and has no UTF-8. One replacement character for each keeps every
        # offset into the text as it was.
        plain = json.dumps(adapter.dump_python(value, warnings="none"), ensure_ascii=False)
        return _SURROGATES.sub("\ufffd", plain).encode()


def _request_blob(request: Request) -> bytes:
    """The request as JSON, checked here: one that the worker cannot read would end all the others too."""
    adapter = _adapters().request
    try:
        blob = _dump(adapter, request)
        _check(adapter, blob)
    except (ProtocolError, TypeError, ValueError):  # not chained: the foreign error quotes its input
        raise ConfigurationError("the request holds a value of a wrong type, or a number that is not finite") from None
    if len(blob) > wire.TO_WORKER.blob:
        raise ConfigurationError(f"one request may have at most {wire.TO_WORKER.blob >> 20} MiB")
    return blob


def _check(adapter: TypeAdapter[T], data: bytes) -> T:
    try:
        return adapter.validate_json(data)
    except (ValueError, RecursionError):
        # The foreign error quotes its input, which may be the user's text: it is not chained.
        raise ProtocolError("the message has not the form that the protocol says") from None


def _without_blob(header: T, frame: wire.Frame) -> T:
    if frame.blob:
        raise ProtocolError("the message has bytes that do not belong to it")
    return header


# --- errors -----------------------------------------------------------------------------------------------------------


def describe(error: OnDeviceError) -> ErrorInfo:
    """An error as plain data, within the limits that `restore` sets."""
    data = {name: value for name, value in error.data().items() if _plain(value)}
    hint = error.hint and error.hint[:_LONGEST_MESSAGE]
    return ErrorInfo(error.code, error.message[:_LONGEST_MESSAGE], hint, data)


def restore(info: ErrorInfo, allowed: frozenset[str]) -> OnDeviceError:
    """The error that a worker reported.

    Raises:
        ProtocolError: no honest worker reports this.
    """
    if info.code not in allowed or max(len(info.message), len(info.hint or "")) > _LONGEST_MESSAGE:
        raise ProtocolError("an error that a worker cannot have")
    if not all(_plain(value) for value in info.data.values()):
        raise ProtocolError("an error with odd data")
    error = rebuild(info.code, info.message, info.hint, info.data)
    if error.code != info.code or set(info.data) - set(error.fields):
        raise ProtocolError("an error with data that do not belong to it")
    return error


def _plain(value: object) -> bool:
    return value is None or type(value) in (str, int)
