"""What a receipt says: everything that decided a result, so that the same can be asked again, and no text.

Texts are in it as digests with a salt of their own in every receipt. Whoever has a receipt and guesses a text can check
the guess, but cannot read the text, nor tell whether two receipts are of one text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from ondevice_sdk.errors import ConfigurationError

__all__ = ["Change", "Environment", "InputForm", "ModelInfo", "Receipt", "changes"]

SCHEMA: Final = 1
_SHOWN_DIGITS: Final = 12  # of a digest, for people

InputForm = Literal["text", "messages", "texts"]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The model that a client uses. `sha256` is the digest of its weights file."""

    name: str
    variant: str
    backend: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Environment:
    """What a call ran on, besides the model's own file.

    `library` has the versions of the runtime library; `template` is the SHA-256 of the chat template, None where the
    model has none; `recipe` says how the model was quantised where that was done here. Then how it was loaded, and the
    device.
    """

    library: str
    template: str | None
    recipe: Mapping[str, Any] | None
    context_tokens: int
    sequences: int
    threads: int | None
    batch_tokens: int
    kv_type: str
    system: str
    machine: str
    cpu: str
    instruction_sets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What produced a result: enough to ask the same again, and no text.

    `options` are those of the call with their defaults, sampler and seed among them. What is text in them is replaced
    by `{"digest": ...}`; a form is named by its kind, its name and a digest. `input` and `output` are digests too, all
    HMAC-SHA-256 (RFC 2104) with `salt` as the key; `output` is None where the result has no plain form. `adapter` is
    the SHA-256 of the adapter's file. `created_at` is UTC in ISO 8601.

    `text` has the texts themselves, where the app asked for them with `Client(receipt_text=True)`.
    """

    sdk_version: str
    model: ModelInfo
    environment: Environment | None = field(default=None, repr=False)  # a result's `repr` is for people
    task: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    adapter: str | None = None
    input_form: InputForm = field(default="text", repr=False)
    salt: str = field(default="", repr=False)
    input: str = field(default="", repr=False)
    output: str | None = field(default=None, repr=False)
    finish_reason: str | None = None
    created_at: str = ""
    text: Mapping[str, Any] | None = field(default=None, repr=False)
    schema: int = SCHEMA

    def to_json(self) -> str:
        """The receipt as JSON text, for `from_json` and `ondevice replay`."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @staticmethod
    def from_json(text: str | bytes) -> Receipt:
        """Read a receipt back.

        Raises:
            ConfigurationError: it is none, damaged, or of a newer version of the SDK.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or not {"schema", "sdk_version", "model"} <= set(values):
            raise ConfigurationError("this is no receipt", hint="`--receipt FILE` of a command writes one")
        if values["schema"] != SCHEMA:
            raise ConfigurationError("the receipt is of another version of the SDK", hint="update ondevice-sdk")
        from pydantic import ConfigDict, TypeAdapter

        config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
        adapter: TypeAdapter[Receipt | None] = TypeAdapter(Receipt | None, config=config)  # heeds it for a union only
        try:
            receipt = adapter.validate_json(text)
            assert receipt is not None
            return receipt
        except (ValueError, RecursionError) as error:
            place = _place(error)
        # Outside the handler: the foreign error quotes its input, which may be text.
        raise ConfigurationError(f"the receipt is damaged{place}", hint="use the file as it was written")


def _place(error: Exception) -> str:
    """Where a receipt is damaged, by the names of our own fields only."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return ""
    path = error.errors(include_input=False, include_url=False, include_context=False)[0]["loc"]
    known = {*Receipt.__dataclass_fields__, *Environment.__dataclass_fields__, *ModelInfo.__dataclass_fields__}
    names = [str(name) for name in path if name in known]
    return f": {'.'.join(names)}" if names else ""


@dataclass(frozen=True, slots=True)
class Change:
    """Something that is not as it was when a receipt was written."""

    what: str
    then: str
    now: str


def changes(then: Receipt, now: Receipt) -> tuple[Change, ...]:
    """What differs between the environments of two receipts; the call itself is not looked at."""
    before, after = _facts(then), _facts(now)
    return tuple(
        Change(what, shown, after[what][1])
        for what, (fact, shown) in before.items()
        if what in after and fact != after[what][0]
    )


def _facts(receipt: Receipt) -> dict[str, tuple[object, str]]:
    """Each fact as what is compared, and what is shown of it."""
    model, ran = receipt.model, receipt.environment
    facts: dict[str, tuple[object, str]] = {
        "model": (model.sha256, f"{model.name}:{model.variant} {model.sha256[:_SHOWN_DIGITS]}"),
        "adapter": _digest(receipt.adapter),
        "backend": (model.backend, model.backend),
        "SDK": (receipt.sdk_version, receipt.sdk_version),
    }
    if ran is None:
        return facts
    recipe = ran.recipe or {}
    processor = (ran.machine, ran.cpu, ran.instruction_sets)
    return {
        **facts,
        "template": _digest(ran.template),
        "recipe": (recipe.get("sha256"), str(recipe.get("words", recipe.get("sha256", "none")))),
        "library": (ran.library, ran.library),
        "context": (ran.context_tokens, f"{ran.context_tokens} tokens"),
        "sequences": (ran.sequences, str(ran.sequences)),
        "threads": (ran.threads, str(ran.threads)),
        "batch": (ran.batch_tokens, f"{ran.batch_tokens} tokens"),
        "KV cache": (ran.kv_type, ran.kv_type),
        "processor": (processor, f"{ran.cpu} ({ran.machine}, {' '.join(ran.instruction_sets)})"),
        "system": (ran.system, ran.system),
    }


def _digest(sha256: str | None) -> tuple[object, str]:
    return sha256, "none" if sha256 is None else sha256[:_SHOWN_DIGITS]
