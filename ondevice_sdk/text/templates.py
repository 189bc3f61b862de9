"""Chat templates: messages laid out as segments, so that what users wrote stays data."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ondevice_sdk.errors import ModelUnsupported
from ondevice_sdk.types import Message, Segment

if TYPE_CHECKING:
    from jinja2 import Template

_MAX_CHARACTERS = 1_000_000  # of what the template itself adds
_MAX_ITERATIONS = 100_000  # of all loops and calls of one rendering
_BUDGET = "ondevice_budget"


class _Refused(Exception):
    """The template refuses these messages, or does too much."""


def render(
    template: str, messages: Sequence[Message], *, variables: Mapping[str, str], answer_prefix: str = ""
) -> tuple[Segment, ...]:
    """Lay out a conversation with a model's chat template.

    The template sees an unguessable word in place of every content, and the output is cut at these words: nothing that
    a user wrote can become control text, whatever it contains. A template that refuses a system message (some models
    know none) gets its content at the beginning of the first user message.

    Args:
        template: Jinja source, as model files carry it.
        messages: the turns.
        variables: texts of special tokens, such as `bos_token`.
        answer_prefix: the beginning of the answer; data, put last.

    Raises:
        ModelUnsupported: the template is not valid, refuses the messages, drops, repeats or changes a content, or does
            too much.
    """
    turns = [(message.role, (message.content,)) for message in messages]
    try:
        segments = _render(template, turns, variables)
    except _Refused as refusal:
        if not (len(turns) > 1 and turns[0][0] == "system" and turns[1][0] == "user"):
            raise _unusable() from refusal
        merged = [("user", (turns[0][1][0], "\n\n", turns[1][1][0])), *turns[2:]]
        try:
            segments = _render(template, merged, variables)
        except _Refused as error:
            raise _unusable() from error
    if answer_prefix:
        segments.append(Segment(answer_prefix))
    return tuple(segments)


def _unusable() -> ModelUnsupported:
    return ModelUnsupported("the model's chat template does not accept these messages, or is not usable")


def _render(template: str, turns: Sequence[tuple[str, tuple[str, ...]]], variables: Mapping[str, str]) -> list[Segment]:
    # Letters of both cases and no white space: trimming leaves the word alone, any other change is noticed.
    words = {f"Qz{secrets.token_hex(16)}Zq": contents for _, contents in turns}
    conversation = [{"role": role, "content": word} for (role, _), word in zip(turns, words, strict=True)]
    pieces: list[str] = []
    size = 0
    allowed = _MAX_CHARACTERS
    try:
        for piece in _compiled(template).generate(
            messages=conversation,
            add_generation_prompt=True,
            tools=None,
            documents=None,
            **{_BUDGET: _Budget()},
            **variables,
        ):
            size += len(piece)
            if size > allowed:
                raise _Refused
            pieces.append(piece)
    except _Refused:
        raise
    except Exception as error:  # template code is foreign code: it may raise anything
        raise _unusable() from error
    return _cut("".join(pieces), words)


def _cut(text: str, words: Mapping[str, tuple[str, ...]]) -> list[Segment]:
    segments: list[Segment] = []
    left = set(words)
    parts = re.split(f"({'|'.join(words)})", text) if words else [text]
    for part in parts:
        if part in words:
            if part not in left:
                raise ModelUnsupported("the model's chat template repeats a message")
            left.discard(part)
            segments += [Segment(content) for content in words[part] if content]
        elif part:
            segments.append(Segment(part, "control"))
    if left:
        raise ModelUnsupported("the model's chat template drops or changes a message")
    return segments


class _Budget:
    """Counts what one rendering does, so that it ends."""

    def __init__(self) -> None:
        self._left = _MAX_ITERATIONS

    def spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise _Refused

    def iterate(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.spend()
            yield item


@lru_cache(maxsize=8)
def _compiled(template: str) -> Template:
    """Compile in a sandbox whose loops, calls and strings are bounded."""
    from jinja2 import nodes
    from jinja2.ext import loopcontrols
    from jinja2.runtime import Context
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import pass_context
    from jinja2.visitor import NodeTransformer

    class Environment(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "**"})

        def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
            context[_BUDGET].spend()
            return super().call(context, obj, *args, **kwargs)

        def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
            if operator != "+":
                sizes = [len(value) if isinstance(value, str | list | tuple) else abs(value) for value in (left, right)]
                most = _MAX_CHARACTERS if operator == "*" else 100
                if sizes[0] * sizes[1] > most:
                    raise _Refused
            return _short(super().call_binop(context, operator, left, right))

    class Bound(NodeTransformer):
        def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - the visitor's naming
            self.generic_visit(node)
            node.iter = nodes.Filter(node.iter, "ondevice_bounded", [], [], None, None, lineno=node.lineno)
            return node

        def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802 - the visitor's naming
            self.generic_visit(node)
            return nodes.Filter(node, "ondevice_short", [], [], None, None, lineno=node.lineno)

    @pass_context
    def bounded(context: Context, items: Iterable[Any]) -> Iterator[Any]:
        budget: _Budget = context[_BUDGET]
        return budget.iterate(items)

    def raise_exception(message: str) -> None:  # noqa: ARG001 - may quote the conversation
        raise _Refused

    # Undefined names are empty, as everywhere: real templates ask for `message.tool_calls` without a test.
    environment = Environment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["ondevice_bounded"] = bounded
    environment.filters["ondevice_short"] = _short
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = _strftime_now
    try:
        tree = environment.parse(template)
        return environment.from_string(Bound().visit(tree))
    except Exception as error:
        raise ModelUnsupported("the model's chat template is not valid") from error


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _MAX_CHARACTERS:
        raise _Refused
    return value


def _strftime_now(layout: str) -> str:
    from datetime import datetime

    return datetime.now().astimezone().strftime(layout)
