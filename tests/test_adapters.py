"""Adapters as an app uses them: on a tiny model in this process, and on the real one in a sealed worker."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ondevice_sdk import AsyncClient, Client, Sentiment, errors, models
from ondevice_sdk.backends.api import LoadOptions, LocalAdapter, LocalModel
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.catalogue.gguf import read_header
from ondevice_sdk.cli.app import app
from ondevice_sdk.fitting import affordable
from ondevice_sdk.store import Store
from ondevice_sdk.types import DeviceProfile

from .backends.lora_files import adapter, random_changes, tiny_base, write

Ask = Callable[..., str]
Make = Callable[..., Client]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("base") / "tiny.gguf", tiny_base())


@pytest.fixture
def install(base: Path, store: Store, tmp_path: Path) -> Callable[..., str]:
    """Installs an adapter for the tiny model; gives its digest."""

    def make(name: str, *, seed: int = 0, architecture: str = "llama") -> str:
        content = adapter(random_changes(base, seed=seed), architecture=architecture)
        return models.add(write(tmp_path / f"{name}-{seed}.gguf", content), name=name, store=store).sha256

    return make


@pytest.fixture
def make(base: Path, store: Store) -> Iterator[Make]:
    """Makes clients of the tiny model, in this process."""
    made: list[Client] = []

    def client(**options: Any) -> Client:
        chosen = {"privacy": "off", "isolation": "thread", **options}
        made.append(Client(base, store=store, **chosen))
        return made[-1]

    yield client
    for each in made:
        each.close()


def text(ai: Client, adapter: str | None = None, **options: Any) -> str:
    small: dict[str, Any] = {"temperature": 0, "max_tokens": 8, "ignore_eos": True, **options}
    return ai.generate("hello", adapter=adapter, **small).text


def test_of_the_client_or_of_a_call(make: Make, install: Ask) -> None:
    install("one", seed=1), install("two", seed=2)
    ai, other = make(), make(adapter="one")
    texts = {name: text(ai, name) for name in (None, "one", "two")}
    assert len(set(texts.values())) == 3
    running = ai._pipeline.running
    assert text(other) == texts["one"]
    assert text(other, "two") == texts["two"]
    assert text(other, "") == texts[None], "without any"
    assert [text(ai, name) for name in texts] == [*texts.values()]
    assert ai._pipeline.running is running, "nothing was loaded again"


def test_every_way_to_ask(make: Make, install: Ask) -> None:
    digest = install("one", seed=1)
    ai = make(adapter="one")
    small: dict[str, Any] = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}
    expected, plain = text(ai), text(ai, "")
    with ai.stream("hello", **small) as stream:
        assert "".join(stream) == expected
    assert [each.text for each in ai.generate_many(["hello"] * 2, **small)] == [expected] * 2
    assert [each.text for each in ai.generate_many(["hello"], adapter="", **small)] == [plain]
    assert ai.chat().send("hello", **small).text == expected
    assert ai.chat().send("hello", adapter="", **small).text == plain
    receipts = [ai.generate("hello", adapter=name, **small).receipt for name in (None, "")]
    assert [receipt and receipt.adapter for receipt in receipts] == [digest, None]
    ai.prewarm("hello " * 35)
    ai.prewarm("hello " * 35, adapter="")
    cached = [ai.generate("hello " * 35 + "a", adapter=name, **small).usage.cached_tokens for name in (None, "")]
    assert min(cached) >= 64


@pytest.mark.anyio
async def test_the_async_client(make: Make, install: Ask, base: Path, store: Store) -> None:
    install("one", seed=1)
    expected = text(make(), "one")
    small: dict[str, Any] = {"temperature": 0, "max_tokens": 8, "ignore_eos": True}
    async with AsyncClient(base, store=store, privacy="off", isolation="thread", adapter="one") as ai:
        assert (await ai.generate("hello", **small)).text == expected
        assert (await ai.generate("hello", adapter="", **small)).text != expected
        await ai.prewarm("hello", adapter="one")
        async with ai.stream("hello", **small) as stream:
            assert "".join([delta async for delta in stream]) == expected


# --- what comes and goes while a client runs --------------------------------------------------------------------------


def test_one_that_was_installed_later(make: Make, install: Ask) -> None:
    ai = make()
    plain = text(ai)
    install("late", seed=1)
    with ai.stream("hello", temperature=0, max_tokens=40, ignore_eos=True) as stream:
        deltas = iter(stream)
        next(deltas)
        with pytest.raises(errors.LoadFailed, match="other calls") as caught:
            text(ai, "late")
        assert caught.value.hint
        assert "".join(deltas), "it goes on"
    changed = text(ai, "late")
    assert changed != plain
    assert text(ai) == plain
    with ai.stream("hello", temperature=0, max_tokens=40, ignore_eos=True) as stream:
        next(iter(stream))
        assert text(ai, "late") == changed, "it is loaded now"


def test_many_threads_ask_at_once_for_one_that_was_installed_later(make: Make, install: Ask) -> None:
    ai = make()
    text(ai)
    install("late", seed=1)
    expected = text(make(), "late")
    barrier, found = threading.Barrier(4), list[object]()

    def ask() -> None:
        barrier.wait()
        try:
            found.append(text(ai, "late"))
        except errors.LoadFailed as error:
            found.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_another_one_under_the_same_name(make: Make, install: Ask, store: Store) -> None:
    ai = make()
    install("one", seed=1)
    first = text(ai, "one")
    models.remove("one", store=store)
    with pytest.raises(errors.ModelNotInstalled):
        text(ai, "one")
    install("one", seed=2)
    second = text(ai, "one")
    assert first != second
    assert text(make(), "one") == second


def test_a_model_is_loaded_again_without_one_that_was_removed(make: Make, install: Ask, store: Store) -> None:
    install("one", seed=1)
    ai = make()
    plain = text(ai)
    models.remove("one", store=store)
    assert ai._pipeline._executor is not None
    ai._pipeline._executor.close()  # as a crash would
    assert text(ai) == plain


# --- what is refused --------------------------------------------------------------------------------------------------


def test_one_that_is_not_installed(make: Make) -> None:
    ai = make()
    for ask in (lambda: text(ai, "a secret name"), lambda: list(ai.generate_many(["hello"], adapter="a secret name"))):
        with pytest.raises(errors.ModelNotInstalled) as caught:
            ask()
        assert "secret" not in str(caught.value)
        assert "models add" in str(caught.value.hint)
    with pytest.raises(errors.ConfigurationError):
        make(adapter=5)


def test_one_for_another_model(make: Make, install: Ask) -> None:
    install("foreign", architecture="qwen2")
    ai = make()
    with pytest.raises(errors.ModelUnsupported, match="foreign is for models of the architecture qwen2"):
        text(ai, "foreign")
    assert text(ai)
    assert make(adapter="foreign").availability("generate").state == "unavailable"
    assert make().availability("generate").state == "available"


def test_a_backend_without_adapters(install: Ask, echo_path: Path, store: Store) -> None:
    install("one")
    with Client(echo_path, store=store, privacy="off", isolation="thread") as ai:
        with pytest.raises(errors.Unsupported) as caught:
            text(ai, "one")
        assert caught.value.capability == "adapter"
        assert text(ai)


def test_as_many_as_memory_allows(base: Path) -> None:
    device = DeviceProfile("linux", "x86_64", "any", (), 1, 1, 1 << 34, 300_000_000)
    model = LocalModel("tiny", "other", "gguf", str(base), "")
    sized = [LocalAdapter(name, "", name, size) for name, size in (("a", 60), ("b", 10**9), ("c", 10**6), ("a", 60))]
    shape, options = read_header(base).shape, LoadOptions(context_tokens=128)
    kept = affordable(sized, model, shape, options, LlamaCppBackend(), device)
    assert [each.name for each in kept] == ["a", "c"]
    poor = replace(device, memory_available_bytes=10_000_000)
    assert affordable(sized, model, shape, options, LlamaCppBackend(), poor) == ()
    assert affordable(sized, model, None, options, LlamaCppBackend(), device) == kept


# --- the real model, in a sealed worker -------------------------------------------------------------------------------

PROMPT = "Write a sentence about the sea."


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Store:
    """A store with adapters for the real model: two that change it much, and one that adds nothing."""
    folder = tmp_path_factory.mktemp("real")
    store = Store.open(folder / "store")
    for seed, name in enumerate(("one", "two")):
        changes = random_changes(model_path, "ffn_down", size=0.5, seed=seed)
        models.add(write(folder / f"{name}.gguf", adapter(changes, alpha=8.0)), store=store)
    nothing = {name: (a, 0 * b) for name, (a, b) in random_changes(model_path, "ffn_down", "attn_q").items()}
    models.add(write(folder / "nothing.gguf", adapter(nothing)), store=store)
    models.add(model_path, name="smol", variant="int4", store=store)
    return store


@pytest.mark.model
@pytest.mark.slow
def test_many_at_once_in_a_sealed_worker(real: Store) -> None:
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 16, "deterministic": True}
    with Client("smol", store=real) as ai:
        names = ("", "one", "two", "nothing")
        alone = {name: ai.generate(PROMPT, adapter=name, **options).text for name in names}
        assert alone["nothing"] == alone[""]
        assert len(set(alone.values())) == 3
        found: dict[tuple[str, int], str] = {}

        def ask(name: str, number: int) -> None:
            found[name, number] = ai.generate(PROMPT, adapter=name, **options).text

        threads = [threading.Thread(target=ask, args=(name, number)) for name in names for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {(name, number): alone[name] for name in names for number in range(2)}
        assert ai.privacy_report().enforced

        review = "The staff were kind, the room was clean, and we will come back."
        plain, adapted = (ai.analyse(review, Sentiment, adapter=name) for name in ("", "one"))
        assert plain.probabilities != adapted.probabilities
        assert ai.analyse(review, Sentiment).probabilities == pytest.approx(plain.probabilities, abs=0.02)
        assert adapted.receipt is not None
        assert adapted.receipt.adapter == models.adapters(store=real)[1].sha256
        assert ai.summarise(review * 3, style="headline", adapter="one").points
        assert ai.redact(review, adapter="one").text == review


@pytest.mark.model
@pytest.mark.slow
def test_commands(real: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONDEVICE_HOME", str(real.root))

    def run(*words: str, given: str = "") -> str:
        done = CliRunner().invoke(app, words, input=given, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    ask = ("--model", "smol", "--temperature", "0", "--max-tokens", "12")
    plain, one = run("generate", PROMPT, *ask), run("generate", PROMPT, *ask, "--adapter", "one")
    assert plain != one
    assert run("chat", *ask, "--adapter", "one", given=f"{PROMPT}\n").strip() == one.strip()
    assert json.loads(run("analyse", "-", "--model", "smol", "--adapter", "one", "--json", given="Fine."))["output"]
    assert run("summarise", "-", "--model", "smol", "--adapter", "one", given="The sea was calm. We sailed.").strip()
    listed = json.loads(run("models", "list", "--json"))
    assert [each["name"] for each in listed if each["format"] == "gguf-lora"] == ["nothing", "one", "two"]
    assert "for models like" in run("models", "list")
