"""Public calls that only have to type-check: `mypy --strict` reads this file, nothing runs it."""

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, assert_type

from pydantic import BaseModel

from ondevice_sdk import (
    Analysis,
    AsyncClient,
    CallerKey,
    Client,
    Embeddings,
    Entities,
    Generation,
    JsonValue,
    Message,
    PrefixCache,
    Receipt,
    Redaction,
    Selection,
    Sentiment,
    Summary,
    Tool,
    ToolCall,
    models,
)
from ondevice_sdk.replay import Replay, client_for, replay


class Invoice(BaseModel):
    number: str
    total: float


@dataclass
class Person:
    name: str
    age: int


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def kept() -> Client:
    cache = PrefixCache(CallerKey(bytes(32)), limit_bytes=1_000_000)
    assert_type(cache.usage().bytes, int)
    assert_type(cache.purge(), int)
    return Client(prefix_cache=cache)


def sync(ai: Client) -> None:
    assert_type(ai.summarise("text"), Summary)
    assert_type(ai.summarise("text", style="tldr", length=40, format="markdown", language="de", seed=1), Summary)
    assert_type(ai.summarize("text"), Summary)
    assert_type(ai.analyse("text", Sentiment), Analysis[Sentiment])
    assert_type(ai.analyze("text", Entities), Analysis[Entities])
    assert_type(ai.redact("text", kinds=["name"], min_confidence=0.4), Redaction)
    assert_type(ai.redact("text").restore(), str)
    assert_type(ai.analyse("text", Colour, examples=[("sky", Colour.BLUE)]), Analysis[Colour])
    assert_type(ai.analyse("text", Literal["spam", "ham"]), Analysis[Literal["spam", "ham"]])
    assert_type(ai.analyse("text", Invoice, abstain_below=0.5), Analysis[Invoice])
    assert_type(ai.analyse("text", list[Person]), Analysis[list[Person]])
    assert_type(ai.analyse("text", {"type": "object"}), Analysis[JsonValue])
    assert_type(ai.generate("prompt"), Generation[str])
    assert_type(ai.generate([Message("user", "hello")], max_tokens=5, stop=["\n"]), Generation[str])
    assert_type(ai.generate("prompt", output_type=Invoice), Generation[Invoice])
    assert_type(ai.generate("prompt", output_type=Literal["a", "b"], seed=1), Generation[Literal["a", "b"]])
    assert_type(ai.generate("prompt", output_type=re.compile("[a-z]+")), Generation[str])
    assert_type(ai.generate("prompt", output_type=int | None).output, int | None)
    with ai.stream("prompt", temperature=0.0) as stream:
        for delta in stream:
            assert_type(delta, str)
        assert_type(stream.result(), Generation[str])
    assert_type(ai.summarise_many(["a", "b"], on_error="return", window=2), Iterator[Summary])
    assert_type(ai.analyse_many(["a"], Sentiment), Iterator[Analysis[Sentiment]])
    assert_type(ai.analyse_many(["a"], {"type": "object"}), Iterator[Analysis[JsonValue]])
    assert_type(ai.generate_many(["a"], max_tokens=3), Iterator[Generation[str]])
    assert_type(ai.generate_many(["a"], output_type=Invoice), Iterator[Generation[Invoice]])
    assert_type(ai.chat("be brief").send("hello"), Generation[str])
    answer = ai.generate("prompt", tools=[len, Tool("name", "what for", {"type": "object"})])
    assert_type(answer, Generation[str])
    assert_type(answer.tool_calls, tuple[ToolCall, ...])
    assert_type(ai.chat(messages=[Message("user", "a")]).send(answer.tool_calls[0].reply(5)), Generation[str])
    assert_type(ai.explain("summarise", 8000), Selection)
    assert_type(ai.embed(["one", "two"]), Embeddings)
    assert_type(ai.embed(f"text {number}" for number in range(3)).nearest([0.5, 0.5]), tuple[tuple[int, float], ...])
    assert_type(ai.count_tokens("text"), int)
    assert_type(ai.context_length, int)


async def asynchronous(ai: AsyncClient) -> None:
    assert_type(await ai.summarise("text"), Summary)
    assert_type(await ai.analyse("text", Sentiment), Analysis[Sentiment])
    assert_type(await ai.analyse("text", Literal["spam", "ham"]), Analysis[Literal["spam", "ham"]])
    assert_type(await ai.generate("prompt", output_type=Person), Generation[Person])
    assert_type((await ai.embed("text")).dimensions, int)
    async with ai.stream("prompt") as stream:
        async for delta in stream:
            assert_type(delta, str)
    async with ai.stream("prompt", output_type=Invoice) as typed:
        assert_type((await typed.result()).output, Invoice)
    async for summary in ai.summarise_many(["a"]):
        assert_type(summary, Summary)


def receipts(ai: Client, receipt: Receipt) -> None:
    assert_type(ai.generate("prompt").receipt, Receipt | None)
    assert_type(Receipt.from_json(receipt.to_json()), Receipt)
    assert_type(replay(receipt, ai, input="prompt", output_type=Invoice, stop=["x"]), Replay)
    assert_type(client_for(receipt, model="smollm2-135m-instruct"), Client)


def store() -> None:
    model = models.pull("smollm2-135m-instruct", accept_licence=False, on_progress=None)
    assert_type(model.name, str)
    assert_type([installed.sha256 for installed in models.list()], list[str])
    models.verify()
    assert_type(models.optimise("smollm2-135m-instruct", variant="int4"), models.Optimised)
    assert_type([installed.optimised.path for installed in models.list() if installed.optimised], list[str])
    models.remove(model.name)
