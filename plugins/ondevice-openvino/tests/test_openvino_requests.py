"""What becomes of requests, by a pipeline that follows a script in place of a model: quick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from ondevice_openvino.engine import OpenVinoEngine
from ondevice_openvino.pipeline import Output, Sizes
from ondevice_sdk.backends.api import (
    GREEDY,
    Done,
    Event,
    Failed,
    Generate,
    Generated,
    Grammar,
    PromptProgress,
    Raw,
    Segment,
    TextDelta,
)
from ondevice_sdk.testing.contract.base import streamed

END, ROWS, BLOCK = 256, 64, 32


class Bytes:
    """A tokeniser with a token for each byte, and one that ends a text."""

    chat_template = ""

    def encode(self, texts: Sequence[str], **_: Any) -> Any:
        rows = [[END] if text == "</s>" else list(text.encode()) for text in texts]
        width = max(map(len, rows))
        ids = [row + [0] * (width - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        return SimpleNamespace(
            input_ids=SimpleNamespace(data=np.array(ids)), attention_mask=SimpleNamespace(data=np.array(mask))
        )

    def decode(self, tokens: Sequence[Sequence[int]], *, skip_special_tokens: bool) -> list[str]:
        return ["x" if token != END else "" if skip_special_tokens else "</s>" for (token,) in tokens]

    def get_vocab(self) -> dict[bytes, int]:
        return {**{bytes((value,)): value for value in range(END)}, b"</s>": END}

    def get_original_chat_template(self) -> str:
        return ""

    def get_bos_token(self) -> str:
        return ""

    def get_eos_token(self) -> str:
        return "</s>"

    def get_bos_token_id(self) -> int:
        return -1


@dataclass(eq=False)
class Handle:
    left: int  # of the prompt
    config: Any
    new: list[int] = field(default_factory=list)
    written: int = 0
    cancelled: bool = False


class Scripted:
    """Reads prompts as the real one does, and writes the alphabet; refuses or breaks where it is told to."""

    tokenizer = Bytes()
    end_tokens: frozenset[int] = frozenset()
    refuses: ClassVar[bool] = False

    def __init__(self) -> None:
        self.handles: list[Handle] = []

    def writing(self, sampling: Any, limit: int, ends: Any, grammar: Any, *, masked: bool) -> Any:
        return SimpleNamespace(limit=limit, breaks=grammar is not None)

    def add(self, number: int, tokens: Sequence[int], config: Any) -> Handle:
        if self.refuses:
            raise RuntimeError("refused")
        self.handles.append(Handle(len(tokens), config))
        return self.handles[-1]

    def step(self) -> None:
        self.handles = [each for each in self.handles if not each.cancelled and each.written < each.config.limit]
        if any(each.config.breaks and each.left <= ROWS for each in self.handles):
            raise RuntimeError("broken")
        room = ROWS - sum(not each.left for each in self.handles)
        for each in self.handles:
            count = min(room, each.left) if each.left else 0
            room -= count
            each.left -= count
            if not each.left:
                each.new.append(ord("a") + each.written % 26)
                each.written += 1

    def read(self, handle: Handle) -> Output:
        tokens, handle.new = handle.new, []
        return Output(tokens, ended=handle.written >= handle.config.limit)

    def drop(self, handle: Handle) -> None:
        handle.cancelled = True

    def settle(self) -> None:
        self.handles = [each for each in self.handles if not each.cancelled]


@pytest.fixture
def pipelines() -> list[Scripted]:
    """Those that were loaded."""
    return []


@pytest.fixture
def engine(pipelines: list[Scripted]) -> OpenVinoEngine:
    def make() -> Any:
        pipelines.append(Scripted())
        return pipelines[-1]

    return OpenVinoEngine(make, Sizes(4096, 4, ROWS, 1, "f16"), context_tokens=4096, rows=END + 1, begin=False)


def asked(text: str, tokens: int = 12, **more: Any) -> Generate:
    return Generate(Raw((Segment(text),)), tokens, GREEDY, ignore_eos=True, stream=True, **more)


def steps(engine: OpenVinoEngine, most: int = 200) -> list[Event]:
    events: list[Event] = []
    while engine.busy:
        assert (most := most - 1), "the engine is busy for ever"
        events += engine.step(64)
    return events


def test_no_event_comes_twice_when_all_is_forgotten(engine: OpenVinoEngine, pipelines: list[Scripted]) -> None:
    engine.add_request("a", asked("prompt"))
    events = [*engine.step(64)]
    engine.forget()
    assert len(pipelines) == 1
    events += steps(engine)
    (end,) = [event for event in events if isinstance(event, Done)]
    assert isinstance(end.result, Generated)
    assert streamed(events) == end.result.text == "abcdefghijkl"


def test_a_request_that_the_pipeline_refuses_is_over(
    engine: OpenVinoEngine, pipelines: list[Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scripted, "refuses", True)
    engine.add_request("a", asked("prompt"))
    (event,) = steps(engine)
    assert isinstance(event, Failed)
    engine.forget()
    monkeypatch.setattr(Scripted, "refuses", False)
    engine.add_request("a", asked("prompt"))
    assert isinstance(steps(engine)[-1], Done)


def test_no_progress_of_a_prompt_after_its_text_has_begun(engine: OpenVinoEngine, pipelines: list[Scripted]) -> None:
    """Also where it has to be read again, with what was written, as another request has broken the pipeline."""
    engine.add_request("a", asked("p" * 100))
    events = [*engine.step(64), *engine.step(64), *engine.step(64)]
    engine.add_request("b", asked("x", grammar=Grammar("regex", "[ab]+")))
    events += steps(engine)
    assert len(pipelines) == 2
    mine = [event for event in events if event.request_id == "a"]
    kinds = [type(event) for event in mine]
    first = kinds.index(TextDelta)
    assert PromptProgress in kinds[:first]
    assert PromptProgress not in kinds[first:]
    assert all(event.done <= event.total == 100 for event in mine if isinstance(event, PromptProgress))
    end = mine[-1]
    assert isinstance(end, Done)
    assert isinstance(end.result, Generated)
    assert end.result.usage.completion_tokens == 12


def test_what_was_cancelled_fails_no_others(engine: OpenVinoEngine, pipelines: list[Scripted]) -> None:
    """Its constraint shows as broken when its prompt has been read, beside theirs."""
    engine.add_request("a", asked("p" * 50))
    engine.step(64)
    engine.add_request("b", asked("x" * 300, grammar=Grammar("regex", "[ab]+")))
    engine.step(64)
    engine.abort_request("b")
    ends = {event.request_id: event for event in steps(engine) if isinstance(event, Done | Failed)}
    assert len(pipelines) == 2
    assert isinstance(ends["a"], Done)
    assert isinstance(ends["b"], Done)


@pytest.mark.parametrize(("others", "kept"), [(0, False), (1, True)])
def test_a_prompt_is_not_given_up_in_the_midst_of_a_block(
    engine: OpenVinoEngine, pipelines: list[Scripted], others: int, kept: bool
) -> None:
    """The block would stay in the pipeline's cache as a whole one. What ends with a block is given up at once."""
    for number in range(others):
        engine.add_request(f"other{number}", asked("x", 3))
        engine.step(64)
    engine.add_request("a", asked("p" * 300))
    engine.step(64)
    (handle,) = [each for each in pipelines[0].handles if each.left]
    assert (300 - handle.left) % BLOCK == (BLOCK - others) % BLOCK
    engine.abort_request("a")
    ends = [event for event in engine.step(64) if event.request_id == "a"]
    assert isinstance(ends[-1], Done)
    steps(engine)
    assert handle.cancelled is not kept
    engine.add_request("next", asked("y" * 300))
    assert isinstance(steps(engine)[-1], Done)
    assert handle.cancelled
    assert bool(handle.left) is not kept
