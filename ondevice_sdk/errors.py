"""Every error that the SDK raises, in one tree.

```
OnDeviceError
├── ConfigurationError (also ValueError)    a wrong argument or setting
├── ClientClosed                            the client was used after close()
├── PrivacyUnavailable    .reasons          this system cannot enforce the privacy asked for
├── NetworkDenied (also PermissionError)    something tried to open a connection where none may be opened
├── NoModelFits           .rejections       no model of the catalogue fits this device
├── ModelNotInstalled     .model            the model is not in the store
├── ModelCorrupt          .expected .actual a file differs from what its digest or format promises
├── ModelUnsupported      .architecture     the backend cannot run this kind of model
├── LicenceNotAccepted    .licence          the model's terms have to be accepted first
├── DownloadFailed        .host .status     a download could not be completed
├── StoreError                              the store of models cannot be read or written
├── BackendUnavailable    .reason           the backend is not installed or not usable here
├── LoadFailed                              a model could not be loaded
├── Unsupported           .capability       the engine lacks what the call asks for
├── SchemaUnsupported     .path .keyword    the schema cannot be expressed as a constraint
├── InputTooLong          .tokens .limit    the input does not fit into the context
├── OutputInvalid         .raw              the output does not have the form that was asked for
├── ContractViolation     .contract .best   a hard promise about the output could not be kept
├── GenerationFailed                        the engine failed while it worked on a request
├── WorkerCrashed         .signal .exit_code  the worker process died
├── Cancelled                               the call was cancelled
└── DeadlineExceeded                        the call's timeout passed
```

Data that a program may need is on the exception (`.tokens`, `.limit`, ...); messages are for people and never carry
the user's text. `.code` is a stable word for logs and `--json`, `.retryable` says whether the same call may work later,
`.hint` is the next step, often a line to type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

__all__ = [
    "BackendUnavailable",
    "Cancelled",
    "ClientClosed",
    "ConfigurationError",
    "ContractViolation",
    "DeadlineExceeded",
    "DownloadFailed",
    "GenerationFailed",
    "InputTooLong",
    "LicenceNotAccepted",
    "LoadFailed",
    "ModelCorrupt",
    "ModelNotInstalled",
    "ModelUnsupported",
    "NetworkDenied",
    "NoModelFits",
    "OnDeviceError",
    "OutputInvalid",
    "PrivacyUnavailable",
    "SchemaUnsupported",
    "StoreError",
    "Unsupported",
    "WorkerCrashed",
]


class OnDeviceError(Exception):
    """Base of all errors of the SDK."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    fields: ClassVar[tuple[str, ...]] = ()  # names of the data attributes

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip().splitlines()[0]
        self.hint = hint
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    def data(self) -> dict[str, Any]:
        """The data attributes by name, as plain values."""
        return {name: getattr(self, name) for name in self.fields}


class ConfigurationError(OnDeviceError, ValueError):
    """An argument or a setting is wrong."""

    code = "configuration_error"


class ClientClosed(OnDeviceError):
    """The client is closed."""

    code = "client_closed"


class PrivacyUnavailable(OnDeviceError):
    """This system cannot enforce the privacy level that was asked for."""

    code = "privacy_unavailable"
    fields = ("reasons",)

    def __init__(self, message: str = "", *, reasons: Sequence[str] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reasons = tuple(reasons)


class NetworkDenied(OnDeviceError, PermissionError):
    """A connection was refused."""

    code = "network_denied"


class NoModelFits(OnDeviceError):
    """No model fits this device."""

    code = "no_model_fits"
    fields = ("rejections",)

    def __init__(
        self, message: str = "", *, rejections: Mapping[str, str] | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.rejections = dict(rejections or {})  # "name:variant (backend)" -> reason


class ModelNotInstalled(OnDeviceError):
    """The model is not installed."""

    code = "model_not_installed"
    fields = ("model",)

    def __init__(self, message: str = "", *, model: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.model = model


class ModelCorrupt(OnDeviceError):
    """A model file is not what it should be."""

    code = "model_corrupt"
    fields = ("expected", "actual")

    def __init__(
        self, message: str = "", *, expected: str | None = None, actual: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.expected = expected
        self.actual = actual


class ModelUnsupported(OnDeviceError):
    """The backend cannot run this kind of model."""

    code = "model_unsupported"
    fields = ("architecture",)

    def __init__(self, message: str = "", *, architecture: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.architecture = architecture


class LicenceNotAccepted(OnDeviceError):
    """The licence of the model has to be accepted first."""

    code = "licence_not_accepted"
    fields = ("licence",)

    def __init__(self, message: str = "", *, licence: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.licence = licence


class DownloadFailed(OnDeviceError):
    """A download could not be completed."""

    code = "download_failed"
    retryable = True
    fields = ("host", "status")

    def __init__(
        self, message: str = "", *, host: str | None = None, status: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.host = host
        self.status = status


class StoreError(OnDeviceError):
    """The store of models cannot be read or written."""

    code = "store_error"


class BackendUnavailable(OnDeviceError):
    """The backend is not usable here."""

    code = "backend_unavailable"
    fields = ("reason",)

    def __init__(self, message: str = "", *, reason: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class LoadFailed(OnDeviceError):
    """The model could not be loaded."""

    code = "load_failed"


class Unsupported(OnDeviceError):
    """The engine lacks what the call asks for."""

    code = "unsupported"
    fields = ("capability",)

    def __init__(self, message: str = "", *, capability: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.capability = capability


class SchemaUnsupported(OnDeviceError):
    """The schema cannot be expressed as a constraint on the output."""

    code = "schema_unsupported"
    fields = ("path", "keyword")

    def __init__(
        self, message: str = "", *, path: str | None = None, keyword: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.keyword = keyword


class InputTooLong(OnDeviceError):
    """The input does not fit into the context."""

    code = "input_too_long"
    fields = ("tokens", "limit")

    def __init__(self, message: str = "", *, tokens: int = 0, limit: int = 0, hint: str | None = None) -> None:
        super().__init__(message or f"the input has {tokens} tokens, the context holds {limit}", hint=hint)
        self.tokens = tokens
        self.limit = limit


class OutputInvalid(OnDeviceError):
    """The output does not have the form that was asked for. `.raw` holds it; the message never does."""

    code = "output_invalid"
    retryable = True
    fields = ("raw",)

    def __init__(self, message: str = "", *, raw: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.raw = raw


class ContractViolation(OnDeviceError):
    """A hard promise about the output could not be kept. `.best` is the nearest attempt."""

    code = "contract_violation"
    fields = ("contract", "best")

    def __init__(self, message: str = "", *, contract: str = "", best: Any = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.contract = contract
        self.best = best


class GenerationFailed(OnDeviceError):
    """The engine failed while it worked on the request."""

    code = "generation_failed"


class WorkerCrashed(OnDeviceError):
    """The worker process died; the next call starts a new one."""

    code = "worker_crashed"
    retryable = True
    fields = ("signal", "exit_code")

    def __init__(
        self, message: str = "", *, signal: str | None = None, exit_code: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.signal = signal
        self.exit_code = exit_code


class Cancelled(OnDeviceError):
    """The call was cancelled."""

    code = "cancelled"


class DeadlineExceeded(OnDeviceError):
    """The timeout of the call passed."""

    code = "deadline_exceeded"
    retryable = True


_BY_CODE: dict[str, type[OnDeviceError]] = {cls.code: cls for cls in OnDeviceError.__subclasses__()}


def rebuild(code: str, message: str, hint: str | None, data: Mapping[str, Any]) -> OnDeviceError:
    """Make an error again from what crossed a process border; an unknown code becomes `GenerationFailed`."""
    cls = _BY_CODE.get(code, GenerationFailed)
    return cls(message, hint=hint, **{name: data[name] for name in cls.fields if name in data})
