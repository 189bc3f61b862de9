"""An app that uses every feature with random words in all its texts. Run as `python -m tests.privacy.canary_app ORDER`.

The order is JSON: `model` and `embedder`, files; `echo`, whether the model repeats what it is told; `slow`, `failing`,
`crashing`: echo models; `words`, the random words by name; `record` and `outputs`, files to write. Directories of
workers are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import json
import logging
import os
import re
import resource
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from ondevice_sdk import AsyncClient, CallerKey, Client, PrefixCache, Receipt
from ondevice_sdk.replay import replay
from ondevice_sdk.runtime.home import PrivateDirectory
from ondevice_sdk.tasks import forms
from ondevice_sdk.tasks.analyse import analyse as analyse_flow
from ondevice_sdk.tasks.counting import count_tokens as count_tokens_flow
from ondevice_sdk.tasks.generate import generate as generate_flow
from ondevice_sdk.tasks.summarise import summarise as summarise_flow
from ondevice_sdk.types import Message, Style, TextDelta
from tests.privacy.canary_record import Record, in_memory

STYLES: tuple[Style, ...] = ("key_points", "tldr", "teaser", "headline", "paragraph")
FORMS = (forms.Sentiment, forms.Topics, forms.Entities, forms.KeyPhrases, forms.PersonalData, forms.Languages)
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)
CONTEXT = 1024
LONG = ("summarise long", "summarise more", "generate all")  # what takes long with a real model is left to the other


class App:
    """The texts, and what is done with them."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.words: dict[str, str] = order["words"]
        self.record = Record(Path(order["record"]))
        self.outputs: list[str] = []
        word = self.words
        self.document = (
            f"The {word['document']} works in Leeds opened in March 2019. It makes 300 bicycles a week. "
            f"Its owner Anna Hill, who writes from anna.{word['address']}@example.com, began with two helpers. "
            "Last year the works moved to a larger hall by the river. Half of the bicycles go to Norway. "
            "In spring she will hire 12 more people."
        )
        self.prompt = f"Tell me what you know about {word['prompt']} and why it matters."
        self.system = f"You are a guide called {word['system']}."
        self.schema: dict[str, Any] = {
            "type": "object",
            "properties": {word["schema"]: {"type": "integer", "description": f"number of {word['schema']}"}},
            "required": [word["schema"]],
        }
        label = word["label"]
        self.labels: Any = Literal[label, "other"]
        functional: Any = enum.StrEnum
        self.kinds = functional("Kinds", {"FIRST": label, "SECOND": "other"})
        self.output_type: Any = dataclasses.make_dataclass("Answer", [("name", str), ("count", int)])
        self.small: dict[str, Any] = {"max_tokens": 16, "temperature": 0}

    # --- the features of a client -------------------------------------------------------------------------------------

    def tasks(self, ai: Client) -> Iterator[tuple[str, Callable[[], object]]]:
        text, word, small = self.document, self.words, self.small
        any_ai: Any = ai
        for style in STYLES:
            yield f"summarise {style}", partial(ai.summarise, text, style=style, length="short")
        yield (
            "summarise more",
            lambda: ai.summarize(
                text, length=20, format="markdown", language="de", context=f"What about {word['prompt']}?", seed=1
            ),
        )
        yield "summarise long", lambda: ai.summarise("\n\n".join([text] * 6), style="headline")
        for form in FORMS:
            yield f"analyse {form.__name__}", partial(any_ai.analyse, text, form)
        examples: Any = [(f"Of {word['example']}.", "other")]
        yield "analyse labels", lambda: ai.analyze(text, self.labels, examples=examples, abstain_below=0.99)
        yield "analyse enum", lambda: ai.analyse(text, self.kinds)
        yield "analyse schema", lambda: ai.analyse(text, self.schema, examples=[(text, {word["schema"]: 3})])
        yield "analyse type", lambda: ai.analyse(text, self.output_type)
        yield "generate", lambda: ai.generate(self.prompt, instructions=self.system, stop=[word["stop"]], **small)
        yield "generate all", lambda: ai.generate(self.prompt, temperature=0, max_tokens=150)
        yield "generate messages", lambda: ai.generate(self.messages(), max_tokens=16, seed=2)
        yield "generate schema", lambda: ai.generate(self.prompt, output_type=self.schema, **small)
        yield (
            "generate regex",
            lambda: ai.generate(self.prompt, output_type=re.compile(f"{word['stop']} [a-z]"), max_tokens=200),
        )
        yield "generate tools", lambda: self.tooled(ai)
        yield "stream", lambda: self.streamed(ai)
        yield "events", lambda: list(ai.stream(self.prompt, **small).events())
        yield "stream cancelled", lambda: self.cancelled(ai)
        yield "chat", lambda: self.talk(ai)
        yield "summarise_many", lambda: list(ai.summarise_many([text, "", text], length=8, on_error="return"))
        yield "analyse_many", lambda: list(ai.analyse_many([text, ""], forms.Sentiment, on_error="return"))
        yield "generate_many", lambda: list(ai.generate_many([self.prompt, ""], on_error="return", **small))
        yield "generate_many raise", lambda: list(ai.generate_many([self.prompt, " "], **small))
        yield "count_tokens", lambda: [ai.count_tokens(text), ai.count_tokens(self.messages())]
        yield "prewarm", lambda: ai.prewarm(f"A beginning with {word['prefix']}.")
        yield "embed", lambda: ai.embed([text, self.prompt, text * 5])
        if hasattr(ai, "redact"):  # where there is such a feature
            yield "redact", partial(ai.redact, text)

    def errors(self, ai: Client) -> Iterator[tuple[str, Callable[[], object]]]:
        text, word = self.document, self.words
        any_ai: Any = ai
        any_client: Any = Client
        yield "too long", lambda: ai.generate(text * 100)
        yield "too long context", lambda: ai.summarise(text, context=text * 100)
        yield "too long prefix", lambda: ai.prewarm(text * 100)
        yield "too long messages", lambda: ai.generate([Message("user", text * 100)], instructions=self.system)
        stop_early: Any = {"max_tokens": 2, "temperature": 0}
        yield "invalid regex", lambda: ai.generate(text, output_type=re.compile(word["stop"] * 2), **stop_early)
        yield "invalid json", lambda: ai.generate(text, output_type=list[int], **stop_early)
        yield "invalid type", lambda: ai.generate(text, output_type=self.output_type, **stop_early)
        yield "half a tool call", lambda: self.half_called(ai)
        yield "deadline", lambda: ai.generate(text, timeout=0)
        yield "deadline of a stream", lambda: ai.stream(text, timeout=0).result()
        yield "schema pattern", lambda: ai.generate(text, output_type=re.compile(f"(?={word['schema']})"))
        yield "schema keyword", lambda: ai.analyse(text, {"type": "object", "not": {"const": word["schema"]}})
        yield "schema loop", lambda: ai.analyse(text, {"$ref": f"#/$defs/{word['schema']}"})
        yield "schema enum", lambda: ai.analyse(text, {"enum": [word["schema"]], "type": "integer"})
        yield "schema value", lambda: any_ai.analyse(text, {"default": {1j: word["schema"]}})
        yield "example label", lambda: ai.analyse(text, forms.Sentiment, examples=[(text, word["label"])])
        yield "example form", lambda: ai.analyse(text, self.output_type, examples=[(text, {"name": text})])
        yield "example pair", lambda: any_ai.analyse(text, forms.Sentiment, examples=[text])
        yield "surrogate", lambda: ai.generate(text + "\ud800")
        yield "surrogate system", lambda: ai.generate(text, instructions=self.system + "\ud800")
        yield "surrogate document", lambda: ai.summarise(text + "\udfff")
        yield "role", lambda: any_ai.generate([Message(text, text)])  # type: ignore[arg-type]
        yield "no message", lambda: any_ai.generate([text])
        yield "surrogate to embed", lambda: ai.embed([text, self.prompt + "\ud800"])
        yield "bytes to embed", lambda: any_ai.embed([text.encode()])
        yield "no embedder", lambda: Client(self.order["model"], embedder="no-such-embedder").embed(text)
        yield "bytes", lambda: any_ai.summarise(text.encode())
        yield "tools", lambda: ai.generate(text, tools=[len])
        yield "adapter", lambda: ai.generate(text, adapter="no-such-adapter")
        yield "wrong adapter", lambda: any_ai.generate(text, adapter=[text])
        yield "quantise", lambda: ai.quantise(method="imatrix", text=text * 10)
        wrong: tuple[tuple[str, str], ...] = (
            *(("summarise", option) for option in ("style", "length", "format", "language", "seed", "context_tokens")),
            *(("generate", option) for option in ("max_tokens", "temperature", "top_k", "timeout", "nonsense")),
            *(("summarise_many", option) for option in ("on_error", "window")),
        )
        for method, option in wrong:  # a text in the wrong place
            for value in (text, word["option"], [text], {text: text}):
                yield f"wrong {option}", partial(self.taken, getattr(any_ai, method), text, **{option: value})
        yield "wrong examples", lambda: any_ai.analyse(text, forms.Sentiment, examples=text)
        yield "wrong form", lambda: any_ai.analyse(text, text)
        yield "wrong threshold", lambda: any_ai.analyse(text, forms.Sentiment, abstain_below=text)
        yield "wrong task", lambda: any_ai.availability(text)
        yield "wrong task to explain", lambda: any_ai.explain(text, text)
        for option in ("privacy", "isolation", "prefer", "context", "keep_alive", "backends", "worker_command"):
            yield f"wrong {option}", partial(any_client, **{option: text})
        yield "callback", lambda: ai.generate(self.prompt, on_progress=self.fault, **self.small)

    def taken(self, method: Callable[..., Any], text: str, **options: object) -> object:
        result: Any = method(text, **options)
        return list(result) if hasattr(result, "__next__") else result

    def fault(self, progress: object) -> None:
        raise KeyError("callback")

    def messages(self) -> list[Message]:
        return [Message("system", self.system), Message("user", self.document), Message("assistant", self.prompt),
                Message("user", self.prompt)]  # fmt: skip

    def streamed(self, ai: Client) -> object:
        with ai.stream(self.prompt, instructions=self.system, on_progress=self.progress, **self.small) as stream:
            deltas = list(stream)
            self.record.value("open stream", stream)
            return [stream, stream.result(), *map(TextDelta, deltas)]

    def half_called(self, ai: Client) -> object:
        def rooms(city: str) -> None:
            """Look up the free rooms of a city."""

        return ai.generate(f"Which rooms are free in the city of {self.words['prompt']}?", tools=[rooms], max_tokens=2)

    def cancelled(self, ai: Client) -> object:
        with ai.stream(self.prompt, ignore_eos=True, max_tokens=400, temperature=0) as stream:
            next(iter(stream))
            stream.cancel()
            return stream.result()

    def tooled(self, ai: Client) -> object:
        def rooms(city: str) -> str:
            """Look up the free rooms of a city."""
            return f"two in {city}"

        chat = ai.chat(self.system)
        answer = chat.send(f"Which rooms are free in the city of {self.words['prompt']}?", tools=[rooms], max_tokens=60)
        (call,) = answer.tool_calls
        self.record.value("tool call", [call, call.run(), call.reply(call.run())])
        return [answer, call, chat.send(call.reply(call.run()), **self.small)]

    def receipted(self, ai: Client) -> object:
        """A receipt that holds the texts shows none of them, nor does the error of one that was damaged."""
        answer = ai.generate(self.prompt, instructions=self.system, stop=[self.words["stop"]], **self.small)
        receipt = answer.receipt
        assert receipt is not None
        kept = receipt.to_json()
        assert self.prompt in kept
        self.record.value("receipt", [receipt, Receipt.from_json(kept)])
        self.record.attempt("damaged receipt", lambda: Receipt.from_json(kept.replace('"salt"', '"sugar"')))
        self.record.attempt("replay of another text", lambda: replay(receipt, ai, input=self.document))
        self.record.value("replay", replay(receipt, ai))
        return answer

    def talk(self, ai: Client) -> object:
        chat = ai.chat(self.system)
        answer = chat.send(self.prompt, **self.small)
        other = chat.clone()
        with other.stream(self.document, **self.small) as stream:
            for _ in stream:
                pass
        self.record.value("messages", other.messages)
        other.undo()
        self.record.attempt("chat too long", lambda: other.send(self.document * 100))
        return [answer, chat, other, *chat.messages]

    def progress(self, progress: object) -> None:
        self.record.value("progress", progress)

    # --- runs ---------------------------------------------------------------------------------------------------------

    def use(self, name: str, use: Callable[[], object]) -> None:
        """Use a feature, and keep what the model wrote, to be looked for as well."""
        result = self.record.attempt(name, use)
        for item in result if isinstance(result, list) else [result]:
            texts = [getattr(item, "text", None), getattr(item, "raw", None)]
            self.outputs += [text for text in texts if isinstance(text, str)]

    def run(self) -> None:
        model = self.order["model"]
        embedder = self.order["embedder"]
        with Client(model, context=CONTEXT, embedder=embedder, on_load=self.progress) as ai:
            ai.prewarm()
            self.record.value("client", [ai, ai._pipeline, ai._pipeline._executor, vars(ai).keys()])
            for name, use in (*self.tasks(ai), *self.errors(ai)):
                if self.order["echo"] or name not in LONG:
                    self.use(name, use)
            self.record.process(self.worker(ai))
            facts = [ai.model, ai.availability("summarise"), ai.explain("generate", 100), ai.context_length]
            report = ai.privacy_report()
            self.record.value("facts", [*facts, report])
            self.record.note("report", f"{report.summary} {json.dumps(dataclasses.asdict(report))}")
            self.record.note("ledger", repr(report.attempts))
            executor: Any = ai._pipeline._executor
            self.record.note("standard error of the worker", executor._link.process._ring.decode())
        with Client(self.order["slow"] if self.order["echo"] else model) as ai:
            for number in SIGNALS:
                self.use(f"killed by {number.name}", partial(self.killed, ai, number))
        with Client(model, receipt_text=True) as ai:
            self.use("text in the receipt", lambda: self.receipted(ai))
        self.use("closed", lambda: ai.generate(self.prompt))
        self.keep_prefixes(model)
        self.use("closed meanwhile", self.closed_meanwhile)
        self.inner_values()
        asyncio.run(self.run_async(model), debug=True)

    def keep_prefixes(self, model: str) -> None:
        """Have texts kept on the disk, where they are looked for."""
        cache = PrefixCache(CallerKey(os.urandom(32)))
        for name in ("kept first", "kept again"):
            with Client(model, context=2 * CONTEXT, prefix_cache=cache) as ai:
                ask = partial(ai.generate, self.document * 2, instructions=self.system, **self.small)
                self.use(name, ask)
                self.record.value("kept report", ai.privacy_report())
                if name == "kept first":
                    cache.purge()
                    self.use(name, ask)
        shown = [cache.key, cache.directory, cache.path, cache.limit_bytes, cache.usage()]
        self.record.value("prefix cache", [cache, ai._pipeline, *shown])
        self.record.note("outcome", f"entries kept: {cache.usage().entries}")

    def worker(self, ai: Client) -> int:
        executor: Any = ai._pipeline.executor()
        pid: int = executor.pid
        return pid

    def killed(self, ai: Client, number: signal.Signals) -> object:
        """The worker dies while it writes, with the text in its memory."""
        with ai.stream(self.document, ignore_eos=True, max_tokens=600, temperature=0) as stream:
            deltas = iter(stream)
            next(deltas)
            pid = self.worker(ai)
            self.record.note("outcome", f"held {number.name}: {in_memory(pid, self.words['document'])}")
            os.kill(pid, number)
            return list(deltas)

    def closed_meanwhile(self) -> object:
        with Client(self.order["slow"]) as ai:
            ai.prewarm()
            threading.Timer(0.3, ai.close).start()
            return ai.generate(self.document * 4, temperature=0)

    def inner_values(self) -> None:
        """Requests and results of the inner parts, which a debugger or a log line might show."""
        room: Any = {"context_tokens": CONTEXT}
        flows: list[Any] = [
            summarise_flow(self.document, **room),
            analyse_flow(self.document, self.labels, **room),
            analyse_flow(self.document, self.schema, **room),
            generate_flow(self.prompt, instructions=self.system, output_type=self.schema, stop=["x"], **room),
            generate_flow(self.prompt, output_type=self.labels, **room),
            count_tokens_flow(self.document, **room),
        ]
        for flow in flows:
            step = next(flow)
            self.record.value("step", [flow, step, *step.requests])
            flow.close()

    def echo_only(self) -> None:
        for name in ("failing", "crashing"):
            with Client(self.order[name]) as ai:
                self.use(name, partial(ai.generate, self.document, temperature=0))
        with Client(self.order["slow"]) as ai:
            self.use("deadline midway", lambda: ai.generate(self.document, temperature=0, timeout=1.0))
        with Client(self.order["model"], privacy="guarded", isolation="thread") as ai:
            self.use("in a thread", lambda: ai.generate(self.document, temperature=0))

    async def run_async(self, model: str) -> None:
        asyncio.get_running_loop().slow_callback_duration = 0  # logs every callback with its arguments
        text, small = self.document, self.small

        async def attempt(name: str, use: Any) -> None:
            try:
                result: object = await use
            except Exception as error:  # noqa: BLE001 - see `Record.attempt`
                result = error
            self.use(f"async {name}", lambda: self.given(result))

        async def many(results: Any) -> list[object]:
            return [result async for result in results]

        async with AsyncClient(model, context=CONTEXT, embedder=self.order["embedder"]) as ai:
            await attempt("prewarm", ai.prewarm(f"A beginning with {self.words['prefix']}."))
            await attempt("summarise", ai.summarise(text, style="tldr"))
            await attempt("analyse", ai.analyse(text, self.labels))
            await attempt("generate", ai.generate(self.prompt, instructions=self.system, **small))
            await attempt("count_tokens", ai.count_tokens(text))
            await attempt("too long", ai.generate(text * 100))
            await attempt("deadline", ai.generate(text, timeout=0))
            await attempt("embed", ai.embed([text]))
            if hasattr(ai, "redact"):
                await attempt("redact", ai.redact(text))
            texts = [text, ""]
            await attempt("summarise_many", many(ai.summarise_many(texts, length=8, on_error="return")))
            await attempt("analyse_many", many(ai.analyse_many(texts, forms.Sentiment, on_error="return")))
            await attempt("generate_many", many(ai.generate_many(texts, on_error="return", **small)))
            await attempt("generate_many raise", many(ai.generate_many(texts, **small)))
            chat = ai.chat(self.system)
            await attempt("chat", chat.send(self.prompt, **small))
            async with chat.clone().stream(text, **small) as stream:
                async for _ in stream:
                    break
            async with ai.stream(self.prompt, **small) as stream:
                await attempt("events", many(stream.events()))
            task = asyncio.create_task(ai.generate(text, ignore_eos=True, max_tokens=500), name="a")
            await asyncio.sleep(0.2)
            self.record.note("task", f"{task!r} {[repr(each) for each in asyncio.all_tasks()]}")
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            facts = [await ai.model(), await ai.availability("analyse"), await ai.explain(), await ai.context_length()]
            self.record.value("async facts", [ai, chat, stream, *facts, await ai.privacy_report()])
            await attempt("killed", self.killed_async(ai))
        await attempt("closed", ai.generate(text))

    async def killed_async(self, ai: AsyncClient) -> object:
        async with ai.stream(self.document, ignore_eos=True, max_tokens=600, temperature=0) as stream:
            pid = self.worker(ai._client)
            async for _ in stream:
                with contextlib.suppress(ProcessLookupError):  # more of the stream may have come before it died
                    os.kill(pid, signal.SIGABRT)
        return None

    @staticmethod
    def given(result: object) -> object:
        if isinstance(result, Exception):
            raise result
        return result


def keep_directories(place: Path) -> None:
    """Let what a worker wrote outlive it, to be searched."""

    def keep(self: PrivateDirectory) -> None:
        if Path(self.path).exists():
            Path(self.path).rename(place / Path(self.path).name)
        self.release()

    PrivateDirectory.remove = keep  # type: ignore[method-assign]


def main() -> None:
    order = json.loads(Path(sys.argv[1]).read_text())
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    logging.captureWarnings(True)
    warnings.simplefilter("always")
    tempfile.gettempdir()  # tries with a file of its own whether one can be written there
    keep_directories(Path(order["kept"]))
    app = App(order)
    app.record.watch_writes()
    app.run()
    if order["echo"]:
        app.echo_only()
    Path(order["outputs"]).write_text(json.dumps(app.outputs, ensure_ascii=True))


if __name__ == "__main__":
    main()
