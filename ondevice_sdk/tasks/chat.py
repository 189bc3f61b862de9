"""Prompts as messages: checked, complete, in the order of the conversation. No turn is ever dropped to make room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.text.split import check_encodable
from ondevice_sdk.types import Message, Role


def messages_of(prompt: str | Sequence[Message], instructions: str | None = None) -> tuple[Message, ...]:
    """The messages of a prompt, with the instructions as (or before) its system message.

    A conversation longer than the context is the engine's `InputTooLong`.

    Raises:
        ConfigurationError: nothing to answer, an unknown role, a system message in the middle, a lone surrogate.
    """
    if not isinstance(prompt, Sequence):
        raise ConfigurationError(f"prompt must be a str or messages, not {type(prompt).__name__}")
    messages = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
    for index, message in enumerate(messages):
        if not isinstance(message, Message):
            raise ConfigurationError(f"prompt[{index}] must be a Message, not {type(message).__name__}")
        if message.role not in get_args(Role):
            raise ConfigurationError(f"prompt[{index}] has an unknown role")
        if not isinstance(message.content, str):
            raise ConfigurationError(f"the content of prompt[{index}] must be a str")
        if message.role == "system" and index:
            raise ConfigurationError("a system message can only be the first")
        if message.role == "tool" and (not index or messages[index - 1].role not in ("assistant", "tool")):
            raise ConfigurationError(f"prompt[{index}] is the result of a tool, but no turn before it called one")
        check_encodable(message.content, "prompt" if isinstance(prompt, str) else f"prompt[{index}]")
    if not any(message.content.strip() for message in messages if message.role != "system"):
        raise ConfigurationError("prompt is empty")
    if instructions is not None:
        if not isinstance(instructions, str):
            raise ConfigurationError("instructions must be a str")
        check_encodable(instructions, "instructions")
        if instructions.strip():
            own = messages.pop(0).content if messages[0].role == "system" else ""
            messages.insert(0, Message("system", f"{instructions}\n\n{own}" if own.strip() else instructions))
    return tuple(messages)


def as_shown(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages for a chat template, of which few know tools: what a tool gave is told by the user."""
    shown: list[Message] = []
    for message in messages:
        if message.role != "tool":
            shown.append(message)
        elif shown and shown[-1].role == "user":  # templates want turns to alternate
            shown[-1] = Message("user", f"{shown[-1].content}\n{message.content}")
        else:
            shown.append(Message("user", message.content))
    return tuple(shown)
