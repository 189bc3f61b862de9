"""Puts a receipt on the result of a call: described when it begins, written when it ends well."""

from __future__ import annotations

import hmac
import inspect
import json
import re
import secrets
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal, TypeVar, get_args, get_origin
from weakref import WeakKeyDictionary

from ondevice_sdk._version import __version__
from ondevice_sdk.receipt import Environment, InputForm, ModelInfo, Receipt
from ondevice_sdk.tasks import forms
from ondevice_sdk.tasks.flow import Flow
from ondevice_sdk.tasks.plan import language_name, language_tag
from ondevice_sdk.tasks.schema import json_schema, labels_of
from ondevice_sdk.types import Analysis, Embeddings, Generation, Redaction, Summary, Tool

R = TypeVar("R")

SALT_BYTES: Final = 16  # two receipts never have the same by chance
BUILT_IN: Final[Mapping[str, Any]] = {
    each.__name__: each
    for each in (
        *(forms.Sentiment, forms.Topics, forms.Entities, forms.KeyPhrases, forms.PersonalData, forms.Languages),
        *(str, int, float, bool),
    )
}
FORMS: Final = frozenset({"form", "output_type"})  # options that say what the output is to be

_WORDS: Final = frozenset({"style", "length", "format", "kinds", "adapter"})  # checked to be the SDK's, or names
_INNER: Final = frozenset({"context_tokens", "stream", "learned"})  # of a flow, which the client sets


@dataclass(frozen=True, slots=True)
class Facts:
    """What is the same for all calls on one loaded model. `adapters` are the digests by name."""

    model: ModelInfo
    environment: Environment
    adapters: Mapping[str, str]


class Stamp:
    """One call. What it was given is held as it was at the beginning, whatever the app does with its lists meanwhile.

    Args:
        flow: the task.
        given: its positional arguments: the input, and the form of `analyse`.
        options: its keyword arguments.
        keep: whether texts are to be in the receipt.
    """

    def __init__(
        self, flow: Callable[..., Flow[Any]], given: Sequence[Any], options: Mapping[str, Any], *, keep: bool
    ) -> None:
        self._flow = flow
        self._salt = secrets.token_bytes(SALT_BYTES)
        self._keep = keep
        self._options = {name: _held(value) for name, value in options.items() if name not in _INNER}
        self.given = tuple(given)
        if flow.__name__ == "analyse":
            self._options["form"] = given[1]
        source = given[0]
        self._texts: _Texts | None = None
        if flow.__name__ == "embed" and isinstance(source, Iterable) and not isinstance(source, Sequence | Mapping):
            self._texts = _Texts(source, self._salt, keep=keep)
            self.given = (self._texts, *given[1:])
        self._source = _held(source)

    def on(self, flow: Flow[R], facts: Callable[[], Facts]) -> Flow[R]:
        """The flow, whose result has the receipt."""
        result = yield from flow
        made: Any = result
        stamped: R = replace(made, receipt=self._receipt(made, facts()))
        return stamped

    def _receipt(self, result: Any, facts: Facts) -> Receipt:
        form: InputForm = "texts"
        if self._texts is None:
            form, content = input_of(self._source, self._flow.__name__)
            digest = digest_of(content, self._salt)
        else:
            content, digest = self._texts.kept, self._texts.digest()
        options, kept = {}, {}
        for name, value in {**_defaults(self._flow), **self._options}.items():
            options[name], behind = described(name, value, self._salt)
            if behind is not None:
                kept[name] = behind
        adapter = options.get("adapter")
        return Receipt(
            sdk_version=__version__,
            model=facts.model,
            environment=facts.environment,
            task=self._flow.__name__,
            options=options,
            adapter=None if adapter is None else facts.adapters.get(adapter),
            input_form=form,
            salt=self._salt.hex(),
            input=digest,
            output=output_digest(result, self._salt),
            finish_reason=getattr(result, "finish_reason", None),
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            text={"input": content, **kept, "output": output_of(result)} if self._keep else None,
        )


class _Texts:
    """Texts that are taken one by one and known only afterwards; there may be very many."""

    def __init__(self, source: Iterable[Any], salt: bytes, *, keep: bool) -> None:
        self._source = source
        self._digest = hmac.new(salt, digestmod="sha256")
        self.kept: list[str] | None = [] if keep else None

    def __iter__(self) -> Iterator[Any]:
        for text in self._source:
            if isinstance(text, str):
                self._digest.update(_framed(text))
                if self.kept is not None:
                    self.kept.append(text)
            yield text

    def digest(self) -> str:
        """Of those that were taken."""
        return self._digest.hexdigest()


# --- what is said of a call -------------------------------------------------------------------------------------------


def input_of(source: Any, task: str) -> tuple[InputForm, Any]:
    """The input of a call that was accepted, as plain values, and their form."""
    if task == "embed":
        return "texts", [source] if isinstance(source, str) else list(source)
    if isinstance(source, str):
        return "text", source
    return "messages", [[message.role, message.content] for message in source]


def described(name: str, value: Any, salt: bytes) -> tuple[Any, Any]:
    """An option as the receipt shows it, and where that is a digest, the text behind it."""
    if name in FORMS and value is not None:
        kind, shown, content = form_of(value)
        if kind == "built-in":
            return {"kind": kind, "name": shown}, None
        return {"kind": kind, "name": shown, "digest": digest_of(content, salt)}, content
    if value is None or isinstance(value, bool | int | float):
        return value, None
    if name in _WORDS or (name == "language" and language_tag(language_name(value))):
        return (value if isinstance(value, str) else sorted(value)), None
    if isinstance(value, Iterator):  # the call has emptied it
        return {"digest": None}, None
    content = content_of(name, value)
    return ({"digest": digest_of(content, salt)}, content) if content else (content, None)


def content_of(name: str, value: Any) -> Any:
    """An option that is text, as plain values."""
    if isinstance(value, str):
        return [value] if name == "stop" else value
    if name == "tools":
        return [_tool(tool) for tool in value]
    if name == "examples":
        return [[text, plain(answer)] for text, answer in value]
    return list(value)


def form_of(form: Any) -> tuple[str, str, Any]:
    """Kind and name of a form, and what it is made of.

    A "type" of the app cannot be made again from that; all the others can, by `form_from`.
    """
    if isinstance(form, Mapping):
        return "JSON schema", "schema", json_schema(form)
    if isinstance(form, re.Pattern):
        return "regular expression", "pattern", [form.pattern, int(form.flags)]
    name = str(getattr(form, "__name__", type(form).__name__))
    if BUILT_IN.get(name) is form:
        return "built-in", name, None
    if get_origin(form) is Literal and all(type(label) is str for label in get_args(form)):
        return "labels", "Literal", list(get_args(form))
    return "type", name, _of_type(form)


def form_from(kind: str, name: str, content: Any) -> Any:
    """The form again.

    Raises:
        ValueError, TypeError, LookupError: nothing of the kind, or a type of the app.
    """
    if kind == "built-in":
        return BUILT_IN[name]
    if kind == "labels":
        return Literal[tuple(content)]
    if kind == "JSON schema":
        return dict(content)
    if kind == "regular expression":
        try:
            return re.compile(*content)
        except re.error as error:
            raise ValueError(kind) from error
    raise ValueError(kind)


def output_of(result: Any) -> Any:
    """What a result answers, as plain values, without figures that only rounding decides; None: there is no such form.

    Vectors are not among it: they are figures, and many.
    """
    match result:
        case Summary(text=text, points=points):
            places = [[point.text, point.status, [[s.start, s.end] for s in point.sources]] for point in points]
            return [text, places]
        case Generation(text=text, tool_calls=calls):
            return [text, [[call.name, plain(call.arguments)] for call in calls]]
        case Redaction(text=text, replacements=replacements):
            return [text, [[each.placeholder, each.kind] for each in replacements]]
        case Analysis(output=forms.Entities() | forms.PersonalData() as output):
            items = output.entities if isinstance(output, forms.Entities) else output.items
            return [[item.text, item.kind, [[s.start, s.end] for s in item.spans]] for item in items]
        case Analysis(output=output):
            return plain(output)
    return None


def output_digest(result: Any, salt: bytes) -> str | None:
    """The digest of what a result answers; None where it has no plain form."""
    if isinstance(result, Embeddings):
        digest = hmac.new(salt, digestmod="sha256")
        for vector in result.vectors:
            digest.update(array("f", vector).tobytes())
        return digest.hexdigest()
    content = output_of(result)
    return None if content is None else digest_of(content, salt)


def plain(value: Any) -> Any:
    """A value as JSON has it; None where it has no such form."""
    if isinstance(value, str):
        return str(value)
    from pydantic_core import to_json, to_jsonable_python

    try:
        if isinstance(value, set | frozenset):  # which has no order of its own
            return sorted((to_jsonable_python(item) for item in value), key=to_json)
        return to_jsonable_python(value)
    except Exception:  # noqa: BLE001 - a type of the app may raise anything
        return None


def digest_of(content: Any, salt: bytes) -> str:
    """HMAC-SHA-256 of plain values; of several texts as of one after the other."""
    if isinstance(content, list) and all(type(item) is str for item in content):
        return hmac.digest(salt, b"".join(map(_framed, content)), "sha256").hex()
    data = _framed(content) if isinstance(content, str) else json.dumps(content, separators=(",", ":")).encode()
    return hmac.digest(salt, data, "sha256").hex()


def _framed(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"%d:%b" % (len(data), data)


def _tool(tool: Any) -> list[Any]:
    if isinstance(tool, Tool):
        return [tool.name, tool.description, plain(tool.parameters)]
    return [tool.__name__, inspect.getdoc(tool) or "", str(inspect.signature(tool))]


def _held(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@cache
def _defaults(flow: Callable[..., Flow[Any]]) -> dict[str, Any]:
    return {
        parameter.name: parameter.default
        for parameter in inspect.signature(flow).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in _INNER
    }


_TYPES: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()  # a schema takes pydantic longer than all the rest


def _of_type(form: Any) -> Any:
    try:
        if form not in _TYPES:
            labels = labels_of(form)
            _TYPES[form] = json_schema(form) if labels is None else list(labels)
        return _TYPES[form]
    except TypeError:  # not hashable
        return json_schema(form)
