"""Plain functions in the place of a model."""

from __future__ import annotations

from collections.abc import Callable

from ondevice_sdk.backends.api import (
    Chat,
    Generate,
    Generated,
    Prompt,
    Request,
    Result,
    Score,
    Scored,
    Tokenize,
    Tokenized,
    Usage,
)
from ondevice_sdk.text.split import sentences

Answer = Callable[[str], str]


def prompt_text(prompt: Prompt) -> str:
    if isinstance(prompt, Chat):
        return "\n".join(message.content for message in prompt.messages)
    return "".join(segment.text for segment in prompt.segments)


def tokens(text: str) -> int:
    """One token per four bytes: about what real tokenizers need."""
    return (len(text.encode()) + 3) // 4


class FakeModel:
    """Answers generations with a function of the prompt, scores with a function of prompt and label."""

    def __init__(
        self,
        answer: Answer = lambda prompt: "",
        score: Callable[[str, str], float] = lambda prompt, label: -1.0,
        finish_reason: str = "stop",
        context_tokens: int = 1 << 30,
    ) -> None:
        self.answer = answer
        self.score = score
        self.finish_reason = finish_reason
        self.context_tokens = context_tokens
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Result:
        self.requests.append(request)
        if isinstance(request, Tokenize):
            texts = [tokens(text) for text in request.texts]
            return Tokenized((*texts, *(tokens(prompt_text(prompt)) + 10 for prompt in request.prompts)))
        if isinstance(request, Generate):
            shown = prompt_text(request.prompt)
            assert tokens(shown) + 10 + request.max_tokens <= self.context_tokens
            return Generated(self.answer(shown), self.finish_reason, Usage(tokens(shown), 5))  # type: ignore[arg-type]
        if isinstance(request, Score):
            shown = prompt_text(request.prompt)
            assert tokens(shown) + 10 <= self.context_tokens
            scores = tuple(self.score(shown, label) for label in request.continuations)
            return Scored(scores, tuple(1 for _ in scores), Usage(tokens(shown), 0))
        raise AssertionError("no flow embeds")

    @property
    def generations(self) -> list[Generate]:
        return [request for request in self.requests if isinstance(request, Generate)]

    @property
    def scorings(self) -> list[Score]:
        return [request for request in self.requests if isinstance(request, Score)]


def first_sentences(prompt: str) -> str:
    return "\n".join(f"- {span.text}" for span in sentences(prompt.rsplit("\n\n", 1)[0])[:9])


def echo(prompt: str) -> str:
    return prompt.rsplit("\n\n", 1)[-1]


def garbage(prompt: str) -> str:
    return "- Zxq 77 blorp Vantage!\n1. \x00\x00\n**\n- - -\n" + "<|im_end|>" * 3


ANSWERS: dict[str, Answer] = {
    "first": first_sentences,
    "echo": echo,
    "garbage": garbage,
    "empty": lambda prompt: "",
    "copy": lambda prompt: prompt,
}
