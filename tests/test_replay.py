"""Calls asked again: through the real worker on the echo backend, on the real model, and from the command line."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from ondevice_sdk import AsyncClient, Client, Entities, Message, Receipt, Sentiment, Tool, errors
from ondevice_sdk.replay import Replay, client_for, replay
from ondevice_sdk.store import Store

TEXT = "The works in Leeds opened in March 2019. It makes 300 bicycles a week. Anna Hill owns it."
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"week": {"type": "integer"}}, "required": ["week"]}


@dataclass
class Answer:
    week: int


def rooms(city: str) -> str:
    """Look up the free rooms of a city."""
    return city


def write_echo(path: Path, **settings: int) -> Path:
    path.write_text(json.dumps({"ondevice-echo": 1, "context_tokens": 2048, **settings}))
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def echo(store: Store) -> Iterator[Client]:
    model = write_echo(store.root.with_name("parrot.echo"))
    with Client(model, store=store, privacy="off", isolation="thread") as client:
        yield client


@pytest.fixture(scope="module")
def keeping(store: Store, echo: Client) -> Iterator[Client]:
    """The same, with texts in the receipts."""
    with Client(echo.model.path, store=store, privacy="off", isolation="thread", receipt_text=True) as client:
        yield client


def of(result: Any) -> Receipt:
    """The receipt, as it comes back from a file."""
    assert isinstance(result.receipt, Receipt)
    return Receipt.from_json(result.receipt.to_json())


# --- with the texts given again ---------------------------------------------------------------------------------------


def test_a_call_is_the_same_again(echo: Client) -> None:
    receipt = of(echo.generate("one two three", instructions="Be brief.", stop=["three"], temperature=0))
    found = replay(receipt, echo, input="one two three", instructions="Be brief.", stop=["three"])
    assert (found.same, found.verdict, found.changes) == (True, "same", ())
    assert found.result.text == "one two "
    assert "two" not in repr(found)
    assert found.receipt.salt != receipt.salt


def test_every_task(echo: Client) -> None:
    first: list[tuple[Any, Any, dict[str, Any]]] = [
        (echo.summarise(TEXT, style="tldr", context="Which works?"), TEXT, {"context": "Which works?"}),
        (echo.analyse(TEXT, Sentiment), TEXT, {}),
        (echo.analyse(TEXT, Entities), TEXT, {}),
        (echo.analyse(TEXT, Literal["works", "other"]), TEXT, {"form": Literal["works", "other"]}),
        (echo.analyse(TEXT, SCHEMA, examples=[("5 a week", {"week": 5})]), TEXT,
         {"form": SCHEMA, "examples": [("5 a week", {"week": 5})]}),
        (echo.redact(TEXT, kinds=["name"]), TEXT, {}),
        (echo.generate("7", output_type=int, temperature=0), "7", {}),
        (echo.generate("abc", output_type=re.compile("[a-c]*"), temperature=0), "abc",
         {"output_type": re.compile("[a-c]*")}),
    ]  # fmt: skip
    for result, text, given in first:
        assert replay(of(result), echo, input=text, **given).same, given


def test_streams_chats_and_many(echo: Client) -> None:
    with echo.stream("a b", temperature=0) as stream:
        assert "".join(stream) == "a b"
    assert replay(of(stream.result()), echo, input="a b").same
    chat = echo.chat("Be brief.")
    chat.send("first", temperature=0)
    answer = chat.send("second", temperature=0)
    turns = [Message("system", "Be brief."), *chat.messages[:-1]]
    assert replay(of(answer), echo, input=turns).same
    for number, each in enumerate(echo.generate_many(["a 0", "a 1"], temperature=0)):
        assert replay(of(each), echo, input=f"a {number}").same
    with echo.stream("a b c d", temperature=0) as stream:
        stream.cancel()
        cut = of(stream.result())
    assert "the call was cancelled" in replay(cut, echo, input="a b c d").verdict


def test_calls_of_async_code(echo: Client, store: Store) -> None:
    async def ask() -> list[Any]:
        async with AsyncClient(echo.model.path, store=store, privacy="off", isolation="thread") as ai:
            async with ai.stream("b", temperature=0) as stream:
                streamed = await stream.result()
            many = [each async for each in ai.generate_many(["c"], temperature=0)]
            return [await ai.generate("a", temperature=0), streamed, *many]

    for result, text in zip(asyncio.run(ask()), "abc", strict=True):
        assert replay(of(result), echo, input=text).same


# --- with the texts in the receipt ------------------------------------------------------------------------------------


def test_a_receipt_with_text_needs_nothing_else(keeping: Client) -> None:
    tool = Tool("rooms", "Look up the free rooms of a city.", {"properties": {"city": {"type": "string"}}})
    results: list[Any] = [
        keeping.generate("one two", instructions="Be brief.", stop=["x"], temperature=0),
        keeping.generate([Message("user", "a"), Message("assistant", "b"), Message("user", "c")], temperature=0),
        keeping.generate("works", output_type=Literal["works", "other"], temperature=0),
        keeping.generate("7", output_type=SCHEMA, temperature=0),
        keeping.generate("a", tools=[tool], temperature=0),
        keeping.analyse(TEXT, Literal["works", "other"], examples=[("It works", "works")]),
        keeping.summarise(TEXT, seed=3),
    ]
    for result in results:
        assert replay(of(result), keeping).same, result


def test_what_is_the_apps_own_has_to_be_given(keeping: Client) -> None:
    typed = of(keeping.generate("7", output_type=Answer, temperature=0))
    with pytest.raises(errors.ConfigurationError, match="output_type is a type of the app") as caught:
        replay(typed, keeping)
    assert caught.value.hint == "from Python: replay(receipt, client, output_type=...)"
    assert replay(typed, keeping, output_type=Answer).same
    tooled = of(keeping.generate("7", tools=[rooms], temperature=0))
    with pytest.raises(errors.ConfigurationError, match="tools"):
        replay(tooled, keeping)
    assert replay(tooled, keeping, tools=[rooms]).same


def test_a_text_that_was_changed_in_the_file_is_noticed(keeping: Client) -> None:
    receipt = of(keeping.generate("one two", temperature=0))
    with pytest.raises(errors.ConfigurationError, match="the input is not that of the receipt"):
        replay(replace(receipt, text={**(receipt.text or {}), "input": "two one"}), keeping)


# --- honest verdicts --------------------------------------------------------------------------------------------------


def wrong(result: Any) -> Receipt:
    """The receipt of a call that gave something else."""
    return replace(of(result), output="0" * 64)


def test_another_answer_is_a_fault_where_the_same_was_promised(echo: Client) -> None:
    for result in (
        echo.generate("a b", temperature=0, deterministic=True),
        echo.generate("a b", seed=1, deterministic=True),
    ):
        found = replay(wrong(result), echo, input="a b")
        assert (found.same, found.verdict) == (False, "different")
    assert replay(wrong(echo.summarise(TEXT, seed=1)), echo, input=TEXT).verdict == "different"


def test_another_answer_is_excused_where_nothing_was_promised(echo: Client) -> None:
    def verdict(result: Any, text: str, **given: Any) -> str:
        found = replay(wrong(result), echo, input=text, **given)
        assert not found.same
        return found.verdict

    start = "different, as it may be: "
    assert verdict(echo.generate("a"), "a") == f"{start}it was sampled without a seed"
    for result, text, given in (
        (echo.generate("a", temperature=0), "a", {}),
        (echo.generate("a", seed=1), "a", {}),
        (echo.summarise(TEXT), TEXT, {}),
        (echo.generate("a", temperature=0, deterministic=True, tools=[rooms]), "a", {"tools": [rooms]}),
    ):
        assert verdict(result, text, **given).startswith(f"{start}rounding depends on what else ran")


def test_what_changed_excuses_another_answer(echo: Client, store: Store, tmp_path: Path) -> None:
    receipt = wrong(echo.generate("a b", temperature=0, deterministic=True))
    other = write_echo(tmp_path / "other.echo", delay_s=0)
    with Client(other, store=store, privacy="off", isolation="thread", context=1024) as ai:
        found = replay(receipt, ai, input="a b")
    assert [change.what for change in found.changes][:1] == ["model"]
    assert {"model", "context"} <= {change.what for change in found.changes}
    assert found.verdict.startswith("different, as it may be: another model")


def test_an_answer_that_cannot_be_compared_is_not_called_the_same(echo: Client) -> None:
    receipt = replace(of(echo.generate("a", temperature=0, deterministic=True)), output=None)
    assert "cannot be compared" in replay(receipt, echo, input="a").verdict


# --- what cannot be replayed ------------------------------------------------------------------------------------------


def test_what_is_missing_or_wrong_is_named(echo: Client) -> None:
    receipt = of(echo.generate("one two", instructions="Be brief.", temperature=0))
    for given, message in (
        ({}, "only a digest of the input"),
        ({"input": "one  two"}, "the input is not that of the receipt"),
        ({"input": [Message("user", "one two")]}, "the input is not that of the receipt"),
        ({"input": 5}, "the input is not that of the receipt"),
        ({"input": "one two"}, "instructions is in the receipt as a digest only"),
        ({"input": "one two", "instructions": "Be long."}, "instructions is not that of the receipt"),
        ({"input": "one two", "instructions": 5}, "instructions is not that of the receipt"),
        ({"input": "one two", "instructions": "Be brief.", "stop": ["x"]}, "stop is not that of the receipt"),
        ({"input": "one two", "instructions": "Be brief.", "form": Sentiment}, "the call had no form"),
    ):
        with pytest.raises(errors.ConfigurationError, match=message) as caught:
            replay(receipt, echo, **given)
        assert "one" not in str(caught.value).replace("only", "")
    for odd, message in (
        (Receipt(receipt.sdk_version, receipt.model), "does not say how the call was made"),
        (replace(receipt, task="close"), "does not say how the call was made"),
        (replace(receipt, salt="xyz"), "damaged: salt"),
        (replace(receipt, options={**receipt.options, "future": 1}), "an option that this SDK does not know: future"),
    ):
        with pytest.raises(errors.ConfigurationError, match=message):
            replay(odd, echo, input="one two", instructions="Be brief.")


def test_a_client_is_found_for_a_receipt(echo: Client, store: Store) -> None:
    receipt = of(echo.generate("a", temperature=0))
    with client_for(receipt, store=store, privacy="off") as ai:
        assert ai.model == echo.model
        assert ai._pipeline.resolve().options.context_tokens == 2048
    moved = replace(receipt, model=replace(receipt.model, path=str(store.root / "gone.echo")))
    with client_for(moved, store=store, privacy="off") as ai, pytest.raises(errors.OnDeviceError):
        replay(moved, ai, input="a")
    with client_for(moved, model=echo.model.path, store=store, privacy="off") as ai:
        assert ai.model == echo.model
    strange = replace(receipt, model=replace(receipt.model, backend="abacus"))
    with client_for(strange, store=store, privacy="off") as ai, pytest.raises(errors.ConfigurationError):
        replay(strange, ai, input="a")
    with pytest.raises(errors.ConfigurationError):
        client_for(Receipt("1", receipt.model), store=store)


# --- the command ------------------------------------------------------------------------------------------------------


def ondevice(*words: object, stdin: str = "", code: int = 0) -> str:
    line = [sys.executable, "-W", "error", "-m", "ondevice_sdk", *map(str, words)]
    done = subprocess.run(line, input=stdin, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    model, receipt = write_echo(tmp_path / "parrot.echo"), tmp_path / "receipt.json"
    source, told = tmp_path / "input", tmp_path / "told"
    source.write_text("one secret\n")  # of which the prompt had no end of line
    told.write_text("Be secret.")
    asked = ["generate", "one secret", "--instructions", "Be secret.", "--temperature", 0, "--model", model]
    assert "one secret" in ondevice(*asked, "--receipt", receipt)
    assert receipt.stat().st_mode & 0o777 == 0o600
    assert "secret" not in receipt.read_text()
    said = ondevice("replay", receipt, "--input", source, "--instructions", told)
    assert said.endswith("same\n")
    assert "nothing changed" in said
    assert "secret" not in said
    assert "give it: input=, or --input FILE" in ondevice("replay", receipt, code=1)
    missing = ondevice("replay", receipt, "--input", source, code=1)
    assert "give it: instructions=, or --instructions FILE" in missing
    shown = json.loads(ondevice("replay", receipt, "--input", source, "--instructions", told, "--json"))
    assert (shown["verdict"], shown["same"], shown["changes"]) == ("same", True, [])
    assert shown["result"]["text"] == "one secret"
    values = json.loads(receipt.read_text())
    receipt.write_text(json.dumps({**values, "output": "0" * 64, "sdk_version": "0"}))
    said = ondevice("replay", receipt, "--input", source, "--instructions", told, code=1)
    assert "SDK: 0 -> " in said
    assert "different, as it may be: another SDK" in said
    receipt.write_text("{}")
    assert "this is no receipt" in ondevice("replay", receipt, code=1)
    assert "cannot be written" in ondevice(*asked, "--receipt", tmp_path / "no" / "receipt", code=1)


@pytest.mark.slow
def test_the_command_with_text_in_the_receipt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    receipt = tmp_path / "receipt.json"
    model = ["--model", write_echo(tmp_path / "parrot.echo"), "--receipt", receipt]
    for words in (["summarise", "-", "--json"], ["analyse", "-", "--labels", "works,other"], ["redact", "-"]):
        ondevice(*words, "--receipt-text", *model, stdin=TEXT)
        assert ondevice("replay", receipt).endswith("same\n")
    ondevice("analyse", "-", "--labels", "works,other", *model, stdin=TEXT)
    assert ondevice("replay", receipt, "--input", "-", "--labels", "works, other", stdin=TEXT).endswith("same\n")


# --- the real model ---------------------------------------------------------------------------------------------------


@pytest.mark.model
@pytest.mark.slow
def test_the_real_model(installed_store: Store) -> None:
    """Asked in a crowd, and again alone in a new worker."""
    prompts = [f"Write two sentences about the number {number}." for number in range(4)]
    options: dict[str, Any] = {"max_tokens": 40, "deterministic": True}
    with Client("smollm2-135m-instruct", backends=("llama_cpp",), store=installed_store) as ai:
        results: list[Any] = list(ai.generate_many(prompts, seed=5, **options))
        results.append(ai.summarise(TEXT, style="tldr", seed=2))
        receipts = [of(result) for result in results]
        assert receipts[0].environment is not None
        assert receipts[0].environment.library.startswith("llama.cpp ")
        assert re.fullmatch("[0-9a-f]{64}", receipts[0].environment.template or "")
    found: list[Replay] = []
    with client_for(receipts[0], store=installed_store) as ai:
        found += [replay(receipt, ai, input=text) for receipt, text in zip(receipts, [*prompts, TEXT], strict=True)]
    assert [each.verdict for each in found] == ["same"] * 5
    assert [each.changes for each in found] == [()] * 5
