"""The same client for `async` code, on asyncio and trio.

A thin wrapper: calls are started in a short-lived worker thread (starting may have to load a model), then awaited
without holding a thread; whatever cancels the task cancels the request.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from threading import Event
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, cast, overload

from typing_extensions import TypeForm, Unpack

from ondevice_sdk import errors
from ondevice_sdk.backends.calibration import Calibration
from ondevice_sdk.call import Call, ProgressCallback, Window, Work
from ondevice_sdk.chat import ChatHistory, asked
from ondevice_sdk.client import Client
from ondevice_sdk.options import (
    AnalyseManyOptions,
    AnalyseOptions,
    GenerateManyOptions,
    GenerateOptions,
    Prompt,
    RedactOptions,
    SummariseManyOptions,
    SummariseOptions,
    takes,
)
from ondevice_sdk.stream import CANCEL_S, StreamState
from ondevice_sdk.tasks.analyse import analyse as analyse_flow
from ondevice_sdk.tasks.counting import count_tokens as count_tokens_flow
from ondevice_sdk.tasks.counting import prewarm as prewarm_flow
from ondevice_sdk.tasks.embed import embed as embed_flow
from ondevice_sdk.tasks.flow import Flow
from ondevice_sdk.tasks.generate import generate as generate_flow
from ondevice_sdk.tasks.redact import redact as redact_flow
from ondevice_sdk.tasks.summarise import summarise as summarise_flow
from ondevice_sdk.types import (
    Analysis,
    Availability,
    Embeddings,
    Generation,
    JsonValue,
    Message,
    ModelInfo,
    PrivacyReport,
    Progress,
    PromptProgress,
    Redaction,
    Selection,
    StreamEvent,
    Summary,
    TaskName,
    TextDelta,
)

if TYPE_CHECKING:
    from ondevice_sdk.models import Quantised

T = TypeVar("T")
V = TypeVar("V")


class AsyncWaiter:
    """Lets a task sleep until work can go on; woken from any thread."""

    def __init__(self, work: Work) -> None:
        import asyncio

        import anyio

        self._event = anyio.Event()
        self._make_event = anyio.Event
        try:
            self._soon: Callable[[Callable[[], None]], object] = asyncio.get_running_loop().call_soon_threadsafe
        except RuntimeError:  # not asyncio: anyio knows one other
            import trio

            self._soon = trio.lowlevel.current_trio_token().run_sync_soon
        work.set_wakeup(self._wake)

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the event loop may be gone, and with it the task that waited
            self._soon(lambda: self._event.set())

    async def wait(self, timeout: float | None = None) -> None:
        """Sleep until woken or `timeout` seconds passed."""
        import anyio

        with anyio.move_on_after(timeout):
            await self._event.wait()
        self._event = self._make_event()


class AsyncStream(StreamState[T]):
    """As `Stream`, with `async with` and `async for`. Holds no thread. Made in the event loop that reads it."""

    def __init__(self, call: Call[Generation[T]]) -> None:
        super().__init__(call)
        self._waiter = AsyncWaiter(call)

    def __aiter__(self) -> AsyncIterator[str]:
        return AsyncDeltas(self.events())

    def events(self) -> AsyncIterator[StreamEvent]:
        """Typed events: prompt progress, text deltas or the call of a tool, and `Completed` at the end."""
        self._claim()
        return AsyncEvents(self)

    async def _next(self) -> Sequence[PromptProgress | TextDelta]:
        """Wait for the next events; none when the call is over."""
        with self._alone():
            events, ready = self._arrived()
            while not ready:
                await self._waiter.wait(self._call.remaining)
                events, ready = self._arrived()
            return events

    async def result(self) -> Generation[T]:
        """Wait for the end, dropping deltas that nobody has read, and give the whole."""
        self._consumed = True
        while await self._next():
            pass
        return self._call.result()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self._end()
        finally:
            self._call.abandon()

    async def _end(self) -> None:
        import anyio

        self.cancel()
        with anyio.move_on_after(CANCEL_S):
            while not self._call.advance():
                await self._waiter.wait()


# Iterators and no generators: one that is left early needs no `aclose`, which nobody writes around an `async for`.


class AsyncEvents(AsyncIterator[StreamEvent]):
    """The events of a stream."""

    def __init__(self, stream: AsyncStream[Any]) -> None:
        self._stream = stream
        self._arrived = deque[StreamEvent]()
        self._over = False

    async def __anext__(self) -> StreamEvent:
        if not self._arrived and not self._over:
            self._arrived.extend(await self._stream._next())
            if not self._arrived:
                self._over = True
                self._arrived.extend(self._stream._last())
        if not self._arrived:
            raise StopAsyncIteration
        return self._arrived.popleft()


class AsyncDeltas(AsyncIterator[str]):
    """The pieces of text among the events of a stream."""

    def __init__(self, events: AsyncIterator[StreamEvent]) -> None:
        self._events = events

    async def __anext__(self) -> str:
        async for event in self._events:
            if isinstance(event, TextDelta):
                return event.text
        raise StopAsyncIteration


class AsyncResults(AsyncIterator[T]):
    """The results of a window, in order. `aclose`, an error, or being forgotten ends the rest."""

    def __init__(self, open_window: Callable[[], Awaitable[Window[Any]]]) -> None:
        self._open = open_window
        self._window: Window[Any] | None = None
        self._waiter: AsyncWaiter | None = None
        self._over = False

    async def __anext__(self) -> T:
        if self._over:
            raise StopAsyncIteration
        try:
            if self._window is None or self._waiter is None:
                self._window = await self._open()
                self._waiter = AsyncWaiter(self._window)
            while not await in_thread(self._window.advance):
                await self._waiter.wait(self._window.remaining)
            if self._window.finished:
                raise StopAsyncIteration
            return cast("T", self._window.take())
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Cancel what is under way. Idempotent."""
        self._over = True
        if self._window is not None:
            self._window.abandon()


async def in_thread(function: Callable[[], V]) -> V:
    """Run what may have to wait, in a thread of the pool."""
    from anyio import to_thread

    return await to_thread.run_sync(function)


async def until_cancelled(function: Callable[[ProgressCallback], V], on_progress: ProgressCallback | None) -> V:
    """Run long work, which tells how far it is, in a thread; cancelling ends it, and waits until it has cleared up."""
    from anyio import CancelScope, to_thread

    begun, stopped, over = Event(), Event(), Event()

    def tell(progress: Progress) -> None:
        if stopped.is_set():
            raise errors.Cancelled("the work was cancelled")
        if on_progress is not None:
            on_progress(progress)

    def work() -> V:
        begun.set()
        try:
            return function(tell)
        finally:
            over.set()

    try:
        return await to_thread.run_sync(work, abandon_on_cancel=True)
    except BaseException:
        stopped.set()
        if begun.is_set():
            with CancelScope(shield=True):
                await in_thread(over.wait)
        raise


class AsyncClient:
    """`Client` with `await`; the arguments are the same, and so are results and errors."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._client = Client(*args, **options)

    @takes(summarise_flow, "adapter", "on_progress")
    async def summarise(self, text: str, **options: Unpack[SummariseOptions]) -> Summary:
        """See `Client.summarise`."""
        return await self._run(summarise_flow, text, **options)

    summarize = summarise

    @overload
    async def analyse(self, text: str, form: TypeForm[T], **options: Unpack[AnalyseOptions]) -> Analysis[T]: ...
    @overload
    async def analyse(
        self, text: str, form: Mapping[str, JsonValue], **options: Unpack[AnalyseOptions]
    ) -> Analysis[JsonValue]: ...
    @takes(analyse_flow, "adapter", "on_progress")
    async def analyse(self, text: str, form: Any, **options: Unpack[AnalyseOptions]) -> Analysis[Any]:
        """See `Client.analyse`."""
        learned = self._client._learned
        return await self._run(analyse_flow, text, form, learned=learned, **options)

    analyze = analyse

    @takes(redact_flow, "adapter", "on_progress")
    async def redact(self, text: str, **options: Unpack[RedactOptions]) -> Redaction:
        """See `Client.redact`."""
        return await self._run(redact_flow, text, **options)

    @overload
    async def generate(
        self,
        prompt: Prompt,
        *,
        output_type: re.Pattern[str] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Generation[str]: ...
    @overload
    async def generate(
        self, prompt: Prompt, *, output_type: TypeForm[T], **options: Unpack[GenerateOptions]
    ) -> Generation[T]: ...
    @overload
    async def generate(
        self,
        prompt: Prompt,
        *,
        output_type: Mapping[str, JsonValue],
        **options: Unpack[GenerateOptions],
    ) -> Generation[JsonValue]: ...
    @takes(generate_flow, "adapter", "timeout", "on_progress")
    async def generate(self, prompt: Prompt, **options: Any) -> Generation[Any]:
        """See `Client.generate`."""
        return await self._run(generate_flow, prompt, stream=False, **options)

    @overload
    def stream(
        self, prompt: Prompt, *, output_type: re.Pattern[str] | None = None, **options: Unpack[GenerateOptions]
    ) -> AbstractAsyncContextManager[AsyncStream[str]]: ...
    @overload
    def stream(
        self, prompt: Prompt, *, output_type: TypeForm[T], **options: Unpack[GenerateOptions]
    ) -> AbstractAsyncContextManager[AsyncStream[T]]: ...
    @overload
    def stream(
        self, prompt: Prompt, *, output_type: Mapping[str, JsonValue], **options: Unpack[GenerateOptions]
    ) -> AbstractAsyncContextManager[AsyncStream[JsonValue]]: ...
    @takes(generate_flow, "adapter", "timeout", "on_progress")
    @asynccontextmanager
    async def stream(self, prompt: Prompt, **options: Any) -> AsyncIterator[AsyncStream[Any]]:
        """See `Client.stream`; use it as `async with ai.stream(...) as stream`."""
        call = await self._begin(generate_flow, prompt, stream=True, **options)
        async with AsyncStream(call) as stream:
            yield stream

    @takes(summarise_flow, "adapter", "on_progress", "on_error", "window")
    def summarise_many(self, texts: Iterable[str], **options: Unpack[SummariseManyOptions]) -> AsyncIterator[Summary]:
        """See `Client.summarise_many`."""
        return self._many(summarise_flow, texts, (), **options)

    summarize_many = summarise_many

    @overload
    def analyse_many(
        self, texts: Iterable[str], form: TypeForm[T], **options: Unpack[AnalyseManyOptions]
    ) -> AsyncIterator[Analysis[T]]: ...
    @overload
    def analyse_many(
        self, texts: Iterable[str], form: Mapping[str, JsonValue], **options: Unpack[AnalyseManyOptions]
    ) -> AsyncIterator[Analysis[JsonValue]]: ...
    @takes(analyse_flow, "adapter", "on_progress", "on_error", "window")
    def analyse_many(
        self, texts: Iterable[str], form: Any, **options: Unpack[AnalyseManyOptions]
    ) -> AsyncIterator[Analysis[Any]]:
        """See `Client.analyse_many`."""
        return self._many(analyse_flow, texts, (form,), learned=self._client._learned, **options)

    analyze_many = analyse_many

    @overload
    def generate_many(
        self, prompts: Iterable[Prompt], *, output_type: None = None, **options: Unpack[GenerateManyOptions]
    ) -> AsyncIterator[Generation[str]]: ...
    @overload
    def generate_many(
        self, prompts: Iterable[Prompt], *, output_type: TypeForm[T], **options: Unpack[GenerateManyOptions]
    ) -> AsyncIterator[Generation[T]]: ...
    @overload
    def generate_many(
        self,
        prompts: Iterable[Prompt],
        *,
        output_type: Mapping[str, JsonValue],
        **options: Unpack[GenerateManyOptions],
    ) -> AsyncIterator[Generation[JsonValue]]: ...
    @takes(generate_flow, "adapter", "timeout", "on_progress", "on_error", "window")
    def generate_many(self, prompts: Iterable[Prompt], **options: Any) -> AsyncIterator[Generation[Any]]:
        """See `Client.generate_many`."""
        return self._many(generate_flow, prompts, (), stream=False, **options)

    async def embed(self, texts: str | Iterable[str], *, on_progress: ProgressCallback | None = None) -> Embeddings:
        """See `Client.embed`; `on_progress` is called on another thread."""
        return await self._run(embed_flow, texts, on_progress=on_progress)

    def chat(self, instructions: str | None = None, *, messages: Sequence[Message] = ()) -> AsyncChat:
        """See `Client.chat`."""
        return AsyncChat(self, instructions, messages)

    async def count_tokens(self, text: str | Sequence[Message]) -> int:
        """See `Client.count_tokens`."""
        return await self._run(count_tokens_flow, text)

    async def context_length(self) -> int:
        """See `Client.context_length`; a method here, because it may have to load the model."""
        return await in_thread(lambda: self._client.context_length)

    async def model(self) -> ModelInfo:
        """See `Client.model`; a method here, because it reads the disk."""
        return await in_thread(lambda: self._client.model)

    async def prewarm(self, prefix: str | None = None, *, adapter: str | None = None) -> None:
        """See `Client.prewarm`."""
        if prefix is None:
            await in_thread(self._client.prewarm)
        else:
            await self._run(prewarm_flow, prefix, adapter=adapter)

    async def availability(self, task: TaskName) -> Availability:
        """See `Client.availability`."""
        return await in_thread(lambda: self._client.availability(task))

    async def explain(self, task: TaskName | None = None, tokens: int | None = None) -> Selection:
        """See `Client.explain`."""
        return await in_thread(lambda: self._client.explain(task, tokens))

    async def calibrate(
        self, *, again: bool = False, on_progress: ProgressCallback | None = None
    ) -> tuple[Calibration, ...]:
        """See `Client.calibrate`; `on_progress` is called on another thread."""
        return await in_thread(lambda: self._client.calibrate(again=again, on_progress=on_progress))

    async def quantise(
        self,
        *,
        to: str = "int4",
        method: str = "presinq+imatrix",
        quantisation: str | None = None,
        text: str | None = None,
        name: str | None = None,
        again: bool = False,
        on_progress: ProgressCallback | None = None,
    ) -> Quantised:
        """See `Client.quantise`; `on_progress` is called on another thread. Cancelling ends the work."""
        make = partial(self._client.quantise, to=to, method=method, quantisation=quantisation, text=text, name=name)
        return await until_cancelled(lambda tell: make(again=again, on_progress=tell), on_progress)

    async def privacy_report(self) -> PrivacyReport:
        """See `Client.privacy_report`."""
        return await in_thread(self._client.privacy_report)

    async def close(self) -> None:
        """See `Client.close`."""
        import anyio

        with anyio.CancelScope(shield=True):
            await in_thread(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- inner steps --------------------------------------------------------------------------------------------------

    async def _begin(self, flow: Callable[..., Flow[V]], *args: object, **options: Any) -> Call[V]:
        return await in_thread(partial(self._client._start, flow, *args, **options))

    async def _run(self, flow: Callable[..., Flow[V]], *args: object, **options: Any) -> V:
        call = await self._begin(flow, *args, **options)
        try:
            waiter = AsyncWaiter(call)
            while not await in_thread(call.advance):
                await waiter.wait(call.remaining)
            return call.result()
        finally:
            call.abandon()

    def _many(
        self, flow: Callable[..., Flow[Any]], items: Iterable[object], args: tuple[object, ...], **options: Any
    ) -> AsyncIterator[Any]:
        make = partial(self._client._window, flow, items, args, **options)
        return AsyncResults(lambda: in_thread(make))

    def __reduce__(self) -> NoReturn:
        self._client.__reduce__()


class AsyncChat(ChatHistory):
    """As `Chat`, with `await`."""

    def __init__(self, client: AsyncClient, instructions: str | None = None, messages: Sequence[Message] = ()) -> None:
        super().__init__(instructions, messages)
        self._client = client

    async def send(self, text: str | Message, **options: Unpack[GenerateOptions]) -> Generation[str]:
        """See `Chat.send`."""
        turn = asked(text)
        with self._alone():
            answer = await self._client.generate(self._prompt(turn), **options)
            self._remember(turn, answer)
        return answer

    @asynccontextmanager
    async def stream(self, text: str | Message, **options: Unpack[GenerateOptions]) -> AsyncIterator[AsyncStream[str]]:
        """See `Chat.stream`."""
        turn = asked(text)
        with self._alone():
            async with self._client.stream(self._prompt(turn), **options) as stream:
                yield stream
                stream.cancel()
                self._remember(turn, await stream.result())

    def clone(self) -> AsyncChat:
        """See `Chat.clone`."""
        return AsyncChat(self._client, self._instructions, self._messages)

    __copy__ = clone
