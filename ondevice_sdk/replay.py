"""Asks again what a receipt is of, and says what changed meanwhile and whether the answer is the same.

```python
from ondevice_sdk.replay import client_for, replay

with client_for(receipt) as ai:
    print(replay(receipt, ai, input=text).verdict)
```
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict

from typing_extensions import Unpack

from ondevice_sdk.client import Client
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.receipt import Change, Receipt, changes
from ondevice_sdk.stamp import FORMS, described, digest_of, form_from, input_of, output_digest
from ondevice_sdk.types import Message, PrivacyLevel, Tool

if TYPE_CHECKING:
    from ondevice_sdk.call import ProgressCallback
    from ondevice_sdk.store import Store

__all__ = ["Given", "Replay", "client_for", "is_input", "is_option", "replay"]

_TASKS: Final = ("summarise", "analyse", "redact", "generate", "embed")
_FLAGS: Final = {  # of the command, by option or kind of form; the rest can be given from Python only
    "instructions": "--instructions FILE",
    "context": "--context FILE",
    "examples": "--examples FILE",
    "stop": "--stop TEXT",
    "JSON schema": "--schema FILE",
    "labels": "--labels A,B",
}
_LEAST_CONTEXT: Final = 64  # that a client takes


class Given(TypedDict, total=False):
    """Options that a receipt has only digests of."""

    instructions: str
    context: str
    language: str
    stop: Sequence[str]
    examples: Sequence[tuple[str, Any]]
    tools: Sequence[Callable[..., Any] | Tool]
    form: Any
    output_type: Any


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of asking again.

    `changes` are what is not as it was; `reasons` say why another answer is no fault, and are empty where the same
    bytes were promised. `receipt` and `result` are the new ones.
    """

    same: bool
    changes: tuple[Change, ...]
    reasons: tuple[str, ...]
    receipt: Receipt
    result: Any = field(repr=False)

    @property
    def verdict(self) -> str:
        """In words: "same", "different", or "different, as it may be" with the reasons."""
        if self.same:
            return "same"
        return f"different, as it may be: {'; '.join(self.reasons)}" if self.reasons else "different"


def client_for(
    receipt: Receipt,
    *,
    model: str | None = None,
    privacy: PrivacyLevel = "strict",
    store: Store | None = None,
    on_load: ProgressCallback | None = None,
) -> Client:
    """A client with the model, the backend and the context of a receipt.

    Args:
        receipt: of a call.
        model: another name or path, where the model has moved.
        privacy: as for `Client`.
        store: as for `Client`.
        on_load: as for `Client`.

    Raises:
        ConfigurationError: the receipt says too little, or its backend is unknown here.
    """
    if receipt.environment is None:
        raise _too_little()
    if store is None:
        from ondevice_sdk.store import Store

        store = Store.open()
    then = receipt.model
    if model is None:
        model = then.path if _lies_outside(Path(then.path), store.root) else f"{then.name}:{then.variant}"
    if receipt.task == "embed":
        return Client(embedder=model, privacy=privacy, backends=[then.backend], store=store, on_load=on_load)
    context = max(_LEAST_CONTEXT, receipt.environment.context_tokens)
    return Client(model, privacy=privacy, backends=[then.backend], context=context, store=store, on_load=on_load)


def replay(
    receipt: Receipt,
    client: Client,
    *,
    input: str | Sequence[Message] | Sequence[str] | None = None,  # noqa: A002 - what it is called in the receipt
    on_progress: ProgressCallback | None = None,
    **given: Unpack[Given],
) -> Replay:
    """Make the call of a receipt again.

    Args:
        receipt: of a call. With text in it nothing else is needed, but types and functions of the app.
        client: runs the call; `client_for` makes one. Where it has another model or context, the replay says so.
        input: what the call was given.
        on_progress: as for the task.
        given: the options that the receipt has only digests of, by their names.

    Raises:
        ConfigurationError: something is missing, or is not what the receipt is of; the message names it.
        What the call itself raises.
    """
    if receipt.environment is None or receipt.task not in _TASKS:
        raise _too_little()
    salt = _salt(receipt)
    method = getattr(client, receipt.task)
    known = set(inspect.signature(method).parameters)
    if unknown := sorted(set(receipt.options) - known):
        raise ConfigurationError(f"the receipt has an option that this SDK does not know: {unknown[0]}")
    if foreign := sorted(set(given) - set(receipt.options)):
        raise ConfigurationError(f"the call had no {foreign[0]}")
    source = _input(receipt, input)
    options = {name: _option(receipt, name, given) for name in receipt.options}
    if "adapter" in options:
        options["adapter"] = options["adapter"] or ""  # none, whatever the client's own is
    result = method(source, **options, on_progress=on_progress)
    now: Receipt = result.receipt
    differ = changes(receipt, now)
    same = receipt.output is not None and receipt.output == output_digest(result, salt)
    return Replay(same, differ, _reasons(receipt, differ), now, result)


def _lies_outside(path: Path, root: Path) -> bool:
    """Whether a model is here, and not in the store, where it may have another place by now."""
    try:
        return not path.is_relative_to(root) and path.exists()
    except OSError:  # too long for a file name
        return False


def is_input(receipt: Receipt, source: Any) -> bool:
    """Whether this is the input that a receipt is of."""
    try:
        form, content = input_of(source, receipt.task)
        return (form, digest_of(content, _salt(receipt))) == (receipt.input_form, receipt.input)
    except (TypeError, AttributeError):  # it is no input at all
        return False


def is_option(receipt: Receipt, name: str, value: Any) -> bool:
    """Whether this is an option of the call that a receipt is of."""
    try:
        return bool(described(name, value, _salt(receipt))[0] == receipt.options.get(name))
    except (TypeError, ValueError, AttributeError):
        return False


def _too_little() -> ConfigurationError:
    return ConfigurationError(
        "the receipt does not say how the call was made", hint="only receipts of results can be replayed"
    )


def _salt(receipt: Receipt) -> bytes:
    try:
        return bytes.fromhex(receipt.salt)
    except ValueError as error:
        raise ConfigurationError("the receipt is damaged: salt", hint="use the file as it was written") from error


def _input(receipt: Receipt, given: object) -> Any:
    """The input, known to be that of the receipt."""
    source: Any = given
    if source is None:
        source = None if receipt.text is None else receipt.text.get("input")
        if source is None:
            raise ConfigurationError(
                "the receipt has only a digest of the input", hint="give it: input=, or --input FILE"
            )
    if given is None and receipt.input_form == "messages":
        with suppress(TypeError, ValueError):
            source = [Message(role, content) for role, content in source]
    if not is_input(receipt, source):
        raise ConfigurationError(
            "the input is not that of the receipt", hint=f"it was given as {receipt.input_form}; every character counts"
        )
    return source


def _option(receipt: Receipt, name: str, given: Given) -> Any:
    """An option, known to be that of the receipt."""
    shown = receipt.options[name]
    flag = _FLAGS.get(shown.get("kind", name)) if isinstance(shown, Mapping) else None
    hint = f"from Python: replay(receipt, client, {name}=...)" if flag is None else f"give it: {name}=, or {flag}"
    if name in given:
        value: Any = given[name]  # type: ignore[literal-required]  # checked to be an option of the call
    elif not isinstance(shown, Mapping):
        return shown
    else:
        try:
            value = _again(name, shown, (receipt.text or {}).get(name))
        except (TypeError, ValueError, LookupError):
            what = "is a type of the app" if shown.get("kind") == "type" else "is in the receipt as a digest only"
            raise ConfigurationError(f"{name} {what}", hint=hint) from None
    if not is_option(receipt, name, value):
        raise ConfigurationError(f"{name} is not that of the receipt", hint=hint)
    return value


def _again(name: str, shown: Mapping[str, Any], text: Any) -> Any:
    """What a receipt has the text of, as it is given to a task.

    Raises:
        TypeError, ValueError, LookupError: it has not, or a part of it is the app's own.
    """
    if name in FORMS:
        return form_from(shown["kind"], shown["name"], text)
    if text is None:
        raise LookupError(name)
    if name == "tools":
        return [Tool(tool, description, dict(parameters)) for tool, description, parameters in text]
    if name == "examples":
        return [(example, answer) for example, answer in text]
    return text


def _reasons(receipt: Receipt, differ: Sequence[Change]) -> tuple[str, ...]:
    """Why another answer is no fault."""
    reasons = [f"another {change.what}" for change in differ]
    if receipt.output is None:
        reasons.append("an answer of this type cannot be compared")
    if receipt.finish_reason == "cancelled":
        reasons.append("the call was cancelled")
    options = receipt.options
    if receipt.task == "generate" and options.get("temperature") and options.get("seed") is None:
        reasons.append("it was sampled without a seed")
    elif not _promised(receipt):
        reasons.append("rounding depends on what else ran, and can change a word, unless a call is deterministic")
    return tuple(reasons)


def _promised(receipt: Receipt) -> bool:
    """Whether the same machine and library give the same bytes: docs/reference/python.md, "Reproducible output"."""
    options = receipt.options
    if receipt.task == "generate":
        return bool(options.get("deterministic")) and not options.get("tools")  # which are chosen by scores
    return receipt.task == "summarise" and options.get("seed") is not None
