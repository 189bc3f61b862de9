"""Small flows about prompts themselves: count their tokens, or have a shared beginning processed early."""

from __future__ import annotations

from collections.abc import Sequence

from ondevice_sdk.backends.api import GREEDY, Chat, Generate, Tokenize, Tokenized
from ondevice_sdk.errors import GenerationFailed
from ondevice_sdk.tasks.chat import as_shown, messages_of
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.text.split import check_encodable
from ondevice_sdk.types import Message


def count_tokens(text: str | Sequence[Message], *, context_tokens: int) -> Flow[int]:  # noqa: ARG001
    """Tokens of a text (none of an empty one), or of messages with everything that the template adds.

    Raises:
        ConfigurationError: a lone surrogate, or a wrong message.
    """
    if isinstance(text, str):
        check_encodable(text)
        request = Tokenize(texts=(text,))
    else:
        request = Tokenize(prompts=(Chat(as_shown(messages_of(text))),))
    (result,) = yield Step((request,), "measuring")
    if not isinstance(result, Tokenized) or len(result.counts) != 1:
        raise GenerationFailed("the engine answered a token count with something else")
    return result.counts[0]


def prewarm(prefix: str, *, context_tokens: int) -> Flow[None]:  # noqa: ARG001
    """Process what the prompts of later calls will begin with, for engines that keep prefixes.

    It is taken as the beginning of a user message, as in `generate(prefix + question)`.

    Raises:
        ConfigurationError: an empty prefix or a lone surrogate. InputTooLong.
    """
    yield Step((Generate(Chat(messages_of(prefix)), 1, GREEDY),), "prewarming")
