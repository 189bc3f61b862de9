"""The client: tasks on a private model, from ordinary (blocking) code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self, TypeVar, overload

from typing_extensions import TypeForm, Unpack

from ondevice_sdk import errors
from ondevice_sdk.backends.calibration import Calibration
from ondevice_sdk.call import Call, ProgressCallback, Window, run, run_window
from ondevice_sdk.chooser import Chooser, Settings
from ondevice_sdk.options import (
    AnalyseManyOptions,
    AnalyseOptions,
    GenerateManyOptions,
    GenerateOptions,
    Prompt,
    RedactOptions,
    SummariseManyOptions,
    SummariseOptions,
    check_adapter,
    check_count,
    check_seconds,
    check_several,
    check_word,
    takes,
)
from ondevice_sdk.pipeline import Pipeline
from ondevice_sdk.prefix_cache import PrefixCache
from ondevice_sdk.stamp import Stamp
from ondevice_sdk.stream import Stream
from ondevice_sdk.tasks.analyse import analyse as analyse_flow
from ondevice_sdk.tasks.counting import count_tokens as count_tokens_flow
from ondevice_sdk.tasks.counting import prewarm as prewarm_flow
from ondevice_sdk.tasks.embed import embed as embed_flow
from ondevice_sdk.tasks.flow import Flow
from ondevice_sdk.tasks.generate import generate as generate_flow
from ondevice_sdk.tasks.labels.learned import Learned
from ondevice_sdk.tasks.redact import redact as redact_flow
from ondevice_sdk.tasks.summarise import summarise as summarise_flow
from ondevice_sdk.types import (
    Analysis,
    Availability,
    Embeddings,
    Generation,
    Isolation,
    JsonValue,
    Message,
    ModelInfo,
    Prefer,
    PrivacyLevel,
    PrivacyReport,
    Redaction,
    Selection,
    Summary,
    TaskName,
)

if TYPE_CHECKING:
    from ondevice_sdk.catalogue import ModelSpec
    from ondevice_sdk.chat import Chat
    from ondevice_sdk.quantise.results import Quantised
    from ondevice_sdk.store import Store
    from ondevice_sdk.types import DeviceProfile

T = TypeVar("T")
V = TypeVar("V")

_ADAPTED: Final = frozenset({summarise_flow, analyse_flow, redact_flow, generate_flow, prewarm_flow})
_WITH_RECEIPT: Final = frozenset({summarise_flow, analyse_flow, redact_flow, generate_flow, embed_flow})


class Client:
    """Tasks on the best installed model for this device, with no network.

    Making a client is cheap; the first call chooses the model, starts the worker process and loads. A client may be
    used from many threads at once. Close it, or use it in a `with` block.

    Args:
        model: a catalogue name, `name:int4`, or a path; None takes the best installed model.
        privacy: "strict" has the kernel refuse the network in the worker and raises where it cannot; "guarded" only
            asks libraries to stay offline; "off" does nothing.
        isolation: "process" runs the model in a worker process; "thread" in this one (not with "strict").
        backends: names of the backends that may be used; None: all that are installed.
        prefer: what matters when the model is chosen.
        context: tokens of prompt and answer together; None: the model's own, at most 8,192.
        keep_alive: seconds after the last call until the model is unloaded (it comes back by itself); None: never.
        embedder: the model of `embed`, named like `model`; None takes the best embedding model that is installed. It
            has a worker of its own, sealed in the same way and started when it is first needed.
        adapter: the installed LoRA adapter that tasks run with where a call names no other; None: the model as it is.
        prefix_cache: keeps what the model has read on the disk, encrypted; None: nothing is kept there.
        receipt_text: whether the receipts of results hold the texts themselves, so that `replay` needs nothing else.
        worker_command: how to start Python for the worker, where `sys.executable` is not Python.
        on_load: told how far the load of the model is.
        store: another store of models.
        device: another description of this machine.
        specs: another catalogue.

    Raises:
        ConfigurationError: a wrong argument. PrivacyUnavailable: this system cannot enforce "strict".
    """

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        privacy: PrivacyLevel = "strict",
        isolation: Isolation = "process",
        backends: Sequence[str] | None = None,
        prefer: Prefer = "balanced",
        context: int | None = None,
        keep_alive: float | None = None,
        embedder: str | Path | None = None,
        adapter: str | None = None,
        prefix_cache: PrefixCache | None = None,
        receipt_text: bool = False,
        worker_command: Sequence[str] | None = None,
        on_load: ProgressCallback | None = None,
        store: Store | None = None,
        device: DeviceProfile | None = None,
        specs: Sequence[ModelSpec] | None = None,
    ) -> None:
        check_word("privacy", privacy, PrivacyLevel)
        check_word("isolation", isolation, Isolation)
        check_word("prefer", prefer, Prefer)
        if isolation == "thread" and privacy == "strict":
            raise errors.ConfigurationError(
                'isolation="thread" cannot be strict: a thread shares the network of the app',
                hint='use isolation="process", or say privacy="guarded"',
            )
        for name, value in (("model", model), ("embedder", embedder)):
            if not isinstance(value, str | Path | None):
                raise errors.ConfigurationError(f"{name} must be a name or a path, not {type(value).__name__}")
        check_adapter(adapter)
        if context is not None:
            check_count("context", context, 64)
        if keep_alive is not None:
            check_seconds("keep_alive", keep_alive)
        if not isinstance(prefix_cache, PrefixCache | None):
            raise errors.ConfigurationError(f"prefix_cache must be a PrefixCache, not {type(prefix_cache).__name__}")
        if not isinstance(receipt_text, bool):
            raise errors.ConfigurationError(f"receipt_text must be True or False, not {type(receipt_text).__name__}")
        for name, words in (("backends", backends), ("worker_command", worker_command)):
            if words is not None:
                check_several(name, words)
        if privacy == "strict":
            from ondevice_sdk.privacy.policy import check_available

            check_available(privacy)
        settings = Settings(
            model=None if model is None else str(model),
            embedder=None if embedder is None else str(embedder),
            adapter=adapter or None,
            privacy=privacy,
            isolation=isolation,
            backends=None if backends is None else tuple(backends),
            prefer=prefer,
            context=context,
            keep_alive=keep_alive,
            worker_command=None if worker_command is None else tuple(worker_command),
            prefix_cache=prefix_cache,
        )
        self._embedding = Pipeline(
            Chooser(replace(settings, prefix_cache=None), store, device, specs, embeds=True), on_load
        )
        self._pipeline = Pipeline(Chooser(settings, store, device, specs), on_load)
        self._adapter = adapter or None
        self._learned = Learned()
        self._receipt_text = receipt_text

    # --- tasks --------------------------------------------------------------------------------------------------------

    @takes(summarise_flow, "adapter", "on_progress")
    def summarise(self, text: str, **options: Unpack[SummariseOptions]) -> Summary:
        """Summarise a text of any length; every point names the sentences that it stands on.

        Args:
            text: read in full; longer than the context, it is read in parts and the notes are joined.
            options: `style` key_points (3/5/7 points), tldr or teaser (1/3/5 sentences), headline (12/17/22 words) or
                paragraph; `length` short, medium, long or a limit of words; `format` plain or markdown; `language` of
                the summary, None for that of the text; `context` what the reader wants to know; `seed` samples
                instead of taking the likeliest words; `adapter` as in `generate`; `on_progress` is told of parts that
                have been read.

        Raises:
            ConfigurationError: an empty text or a wrong option. ContractViolation: the limit of words or the language
                cannot be kept; `.best` is the nearest summary. ModelNotInstalled, WorkerCrashed, ...
        """
        return run(self._start(summarise_flow, text, **options))

    summarize = summarise

    @overload
    def analyse(self, text: str, form: TypeForm[T], **options: Unpack[AnalyseOptions]) -> Analysis[T]: ...
    @overload
    def analyse(
        self, text: str, form: Mapping[str, JsonValue], **options: Unpack[AnalyseOptions]
    ) -> Analysis[JsonValue]: ...
    @takes(analyse_flow, "adapter", "on_progress")
    def analyse(self, text: str, form: Any, **options: Unpack[AnalyseOptions]) -> Analysis[Any]:
        """Answer in a given form: a label, a list, an object.

        Args:
            text: what to analyse.
            form: a built-in kind (`Sentiment`, `Topics`, `Entities`, `KeyPhrases`, `PersonalData`, `Languages`), a
                `Literal` or `Enum` of labels, a pydantic model, dataclass or other type, or a JSON schema.
            options: `examples` are pairs of text and answer; `abstain_below` warns when the probability of the label
                is lower; `seed` samples where text is written (labels are scored); `adapter` as in `generate`;
                `on_progress`.

        Raises:
            SchemaUnsupported: the form cannot be expressed. OutputInvalid: the model did not complete the form.
        """
        return run(self._start(analyse_flow, text, form, learned=self._learned, **options))

    analyze = analyse

    @takes(redact_flow, "adapter", "on_progress")
    def redact(self, text: str, **options: Unpack[RedactOptions]) -> Redaction:
        """Take personal data out of a text: placeholders such as "[NAME_1]" stand in its place; `restore` undoes it.

        Args:
            text: read in full.
            options: `kinds` of `PersonalData` to take out, None for all; `min_confidence`, below which something
                stays: less takes out more; `adapter` as in `generate`; `on_progress`.

        Raises:
            ConfigurationError: an empty text or a wrong option. ModelNotInstalled, WorkerCrashed, ...
        """
        return run(self._start(redact_flow, text, **options))

    @overload
    def generate(
        self,
        prompt: Prompt,
        *,
        output_type: re.Pattern[str] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Generation[str]: ...
    @overload
    def generate(
        self, prompt: Prompt, *, output_type: TypeForm[T], **options: Unpack[GenerateOptions]
    ) -> Generation[T]: ...
    @overload
    def generate(
        self,
        prompt: Prompt,
        *,
        output_type: Mapping[str, JsonValue],
        **options: Unpack[GenerateOptions],
    ) -> Generation[JsonValue]: ...
    @takes(generate_flow, "adapter", "timeout", "on_progress")
    def generate(self, prompt: Prompt, **options: Any) -> Generation[Any]:
        """Write text, or a value of `output_type`.

        Args:
            prompt: a text, or the messages of a conversation.
            options: `instructions` is the system message; `output_type` a type, JSON schema or compiled regular
                expression that the output is forced into; `tools` are typed functions (or `Tool` values) that the
                model may ask to call: the answer then has `tool_calls`, and nothing runs by itself; `max_tokens` is the
                most that is written; `temperature` (0 is greedy), `top_p`, `top_k`, `min_p`, `repetition_penalty` and
                `seed` say how; `stop` strings end the text and are no part of it; `ignore_eos` goes on when the model
                wants to end; `adapter` is the name of an installed one (None: that of the client, "": none); `timeout`
                is in seconds; `deterministic` gives the same bytes alone, batched or cached; `on_progress` is told of
                prompt tokens processed.

        Raises:
            InputTooLong, SchemaUnsupported, OutputInvalid, DeadlineExceeded, Unsupported, WorkerCrashed, ...
        """
        return run(self._start(generate_flow, prompt, stream=False, **options))

    @overload
    def stream(
        self,
        prompt: Prompt,
        *,
        output_type: re.Pattern[str] | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Stream[str]: ...
    @overload
    def stream(self, prompt: Prompt, *, output_type: TypeForm[T], **options: Unpack[GenerateOptions]) -> Stream[T]: ...
    @overload
    def stream(
        self,
        prompt: Prompt,
        *,
        output_type: Mapping[str, JsonValue],
        **options: Unpack[GenerateOptions],
    ) -> Stream[JsonValue]: ...
    @takes(generate_flow, "adapter", "timeout", "on_progress")
    def stream(self, prompt: Prompt, **options: Any) -> Stream[Any]:
        """As `generate`, but give the text piece by piece. Use it in a `with` block; see `Stream`."""
        return Stream(self._start(generate_flow, prompt, stream=True, **options))

    # --- many ---------------------------------------------------------------------------------------------------------

    @takes(summarise_flow, "adapter", "on_progress", "on_error", "window")
    def summarise_many(self, texts: Iterable[str], **options: Unpack[SummariseManyOptions]) -> Iterator[Summary]:
        """Summarise texts as they come: a lazy iterator in order, batched inside; closing it cancels the rest.

        Args:
            texts: taken as needed, at most `window` ahead.
            options: as `summarise`, and `window`, the most texts under way (None: as many as keep the model busy), and
                `on_error`: "raise" ends at the first error, "return" gives the error in the place of the result.
        """
        return self._many(summarise_flow, texts, (), **options)

    summarize_many = summarise_many

    @overload
    def analyse_many(
        self, texts: Iterable[str], form: TypeForm[T], **options: Unpack[AnalyseManyOptions]
    ) -> Iterator[Analysis[T]]: ...
    @overload
    def analyse_many(
        self, texts: Iterable[str], form: Mapping[str, JsonValue], **options: Unpack[AnalyseManyOptions]
    ) -> Iterator[Analysis[JsonValue]]: ...
    @takes(analyse_flow, "adapter", "on_progress", "on_error", "window")
    def analyse_many(
        self, texts: Iterable[str], form: Any, **options: Unpack[AnalyseManyOptions]
    ) -> Iterator[Analysis[Any]]:
        """Analyse texts as they come; see `summarise_many`."""
        return self._many(analyse_flow, texts, (form,), learned=self._learned, **options)

    analyze_many = analyse_many

    @overload
    def generate_many(
        self, prompts: Iterable[Prompt], *, output_type: None = None, **options: Unpack[GenerateManyOptions]
    ) -> Iterator[Generation[str]]: ...
    @overload
    def generate_many(
        self, prompts: Iterable[Prompt], *, output_type: TypeForm[T], **options: Unpack[GenerateManyOptions]
    ) -> Iterator[Generation[T]]: ...
    @overload
    def generate_many(
        self,
        prompts: Iterable[Prompt],
        *,
        output_type: Mapping[str, JsonValue],
        **options: Unpack[GenerateManyOptions],
    ) -> Iterator[Generation[JsonValue]]: ...
    @takes(generate_flow, "adapter", "timeout", "on_progress", "on_error", "window")
    def generate_many(self, prompts: Iterable[Prompt], **options: Any) -> Iterator[Generation[Any]]:
        """Answer prompts as they come; see `summarise_many`."""
        return self._many(generate_flow, prompts, (), stream=False, **options)

    def embed(self, texts: str | Iterable[str], *, on_progress: ProgressCallback | None = None) -> Embeddings:
        """Turn texts into vectors, whose product says how near two texts are in meaning.

        Runs on an embedding model, in a worker of its own; the client's other model is not loaded for it.

        Args:
            texts: one text, or several: taken as needed and batched inside, so that there may be very many.
            on_progress: is told of the texts that are done.

        Raises:
            ModelNotInstalled: no embedding model is here; the hint has the line that gets one.
            ConfigurationError: a text is empty or no text. Unsupported: `embedder` names a model that writes text.
        """
        return run(self._start(embed_flow, texts, on_progress=on_progress))

    def chat(self, instructions: str | None = None, *, messages: Sequence[Message] = ()) -> Chat:
        """Begin a conversation that remembers its turns, or go on with the `messages` of an earlier one."""
        from ondevice_sdk.chat import Chat

        return Chat(self, instructions, messages)

    # --- facts --------------------------------------------------------------------------------------------------------

    def count_tokens(self, text: str | Sequence[Message]) -> int:
        """Tokens of a text, or of messages with everything the chat template adds."""
        return run(self._start(count_tokens_flow, text))

    @property
    def context_length(self) -> int:
        """Tokens that a prompt and its answer may have together. Loads the model."""
        with self._pipeline.loaded() as executor:
            return executor.loaded.context_tokens

    @property
    def model(self) -> ModelInfo:
        """The model that this client uses; chosen now if it was not before, but not loaded."""
        self._pipeline.check_open()
        return self._pipeline.resolve().info

    def prewarm(self, prefix: str | None = None, *, adapter: str | None = None) -> None:
        """Load the model now, and process the beginning that later prompts (with this adapter) will share."""
        with self._pipeline.loaded():
            if prefix is not None:
                run(self._start(prewarm_flow, prefix, adapter=adapter))

    def availability(self, task: TaskName) -> Availability:
        """Whether a task can run now, could after a download, or not at all, with the reasons."""
        self._pipeline.check_open()
        check_word("task", task, TaskName)
        return self._chooser(task).availability(task)

    def explain(self, task: TaskName | None = None, tokens: int | None = None) -> Selection:
        """Every model weighed for this device, with figures and reasons; works with no model installed."""
        self._pipeline.check_open()
        if task is not None:
            check_word("task", task, TaskName)
        if tokens is not None:
            check_count("tokens", tokens, 0)
        return self._chooser(task).explain(task, tokens)

    def calibrate(self, *, again: bool = False, on_progress: ProgressCallback | None = None) -> tuple[Calibration, ...]:
        """Measure how fast this device computes, some seconds for each backend; kept, and not done twice.

        From then on the speeds that `explain` shows, and the choice of int4 or int8, stand on these figures. Installed
        models for which several backends compete are then run with each of them, in turns: their figures are
        `Candidate.measured` of `explain`.

        Raises:
            LoadFailed, WorkerCrashed: the measuring failed. StoreError: the figures cannot be kept.
        """
        self._pipeline.check_open()
        return self._pipeline.chooser.calibrate(again=again, on_progress=on_progress)

    def quantise(
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
        """Make this client's model in fewer bits, with a report of what that costs; see `models.quantise`.

        It is made of the variant that the client was given, else of the most exact one that is installed. This client
        goes on with the model that it has; one that is made afterwards may choose the new one.
        """
        from ondevice_sdk import models

        self._pipeline.check_open()
        chooser = self._pipeline.chooser
        return models.quantise(
            chooser.settings.model or self.model.name,
            to=to,
            method=method,
            quantisation=quantisation,
            text=text,
            name=name,
            again=again,
            on_progress=on_progress,
            store=chooser.inventory.store,
        )

    def privacy_report(self) -> PrivacyReport:
        """What protects the text in this client's worker, proved there. Loads the model.

        While the worker of `embed` runs too, the report says of each protection what holds in both.
        """
        from ondevice_sdk.privacy.report import joined

        try:
            with self._pipeline.loaded() as executor:
                own = executor.report()
        except (errors.ModelNotInstalled, errors.Unsupported) as error:  # it may be here to embed only
            try:
                with self._embedding.loaded() as executor:
                    return executor.report()
            except (errors.ModelNotInstalled, errors.Unsupported):
                raise error from None

        embedding = self._embedding.running
        return own if embedding is None else joined(own, embedding.report())

    def close(self) -> None:
        """Stop the workers; calls in flight fail with `Cancelled`. Idempotent."""
        try:
            self._embedding.close()
        finally:
            self._pipeline.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Client holds a worker process and cannot be pickled; make one in each process")

    # --- inner steps, shared with AsyncClient -------------------------------------------------------------------------

    def _start(
        self,
        flow: Callable[..., Flow[V]],
        *args: object,
        adapter: str | None = None,
        on_progress: ProgressCallback | None = None,
        timeout: float | None = None,
        **options: object,
    ) -> Call[V]:
        flow(*args, context_tokens=0, **options).close()  # a wrong option is a TypeError before a model is loaded
        check_adapter(adapter)
        if timeout is not None:
            check_seconds("timeout", timeout)
        named = (self._adapter if adapter is None else adapter or None) if flow in _ADAPTED else None
        said = {**options, "adapter": named} if flow in _ADAPTED else options
        stamp = Stamp(flow, args, said, keep=self._receipt_text) if flow in _WITH_RECEIPT else None
        given = args if stamp is None else stamp.given

        def make_flow(context_tokens: int) -> Flow[V]:
            if named is not None and "learned" in options:
                options["learned"] = self._learned.apart(self._pipeline.adapters[named].sha256)
            return flow(*given, context_tokens=context_tokens, **options)

        pipeline = self._embedding if flow is embed_flow else self._pipeline
        return pipeline.begin(make_flow, stamp=stamp, adapter=named, on_progress=on_progress, timeout=timeout)

    def _chooser(self, task: TaskName | None) -> Chooser:
        return (self._embedding if task == "embed" else self._pipeline).chooser

    def _window(
        self,
        flow: Callable[..., Flow[V]],
        items: Iterable[object],
        args: tuple[object, ...],
        *,
        on_error: Literal["raise", "return"] = "raise",
        window: int | None = None,
        **options: Any,
    ) -> Window[V]:
        check_several("items", items)
        if window is not None:
            check_count("window", window, 1)
        check_word("on_error", on_error, Literal["raise", "return"])
        with self._pipeline.loaded() as executor:
            size = window or 2 * executor.loaded.max_sequences
        starts = (partial(self._start, flow, item, *args, **options) for item in items)
        return Window(starts, size, on_error)

    def _many(
        self, flow: Callable[..., Flow[V]], items: Iterable[object], args: tuple[object, ...], **options: Any
    ) -> Iterator[Any]:
        yield from run_window(self._window(flow, items, args, **options))
