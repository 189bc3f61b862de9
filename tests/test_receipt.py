"""What a receipt says and what it does not, on calls driven with plain values."""

from __future__ import annotations

import enum
import json
import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest

from ondevice_sdk import Entities, Message, Receipt, Tool, errors
from ondevice_sdk.receipt import Environment, ModelInfo, changes
from ondevice_sdk.stamp import Facts, Stamp, output_digest
from ondevice_sdk.tasks.analyse import analyse
from ondevice_sdk.tasks.embed import embed
from ondevice_sdk.tasks.flow import Flow, run_with
from ondevice_sdk.tasks.forms import Entity
from ondevice_sdk.tasks.generate import generate
from ondevice_sdk.tasks.summarise import summarise
from ondevice_sdk.types import Analysis, Coverage, Embeddings, Generation, Point, Span, Summary, Usage

MODEL = ModelInfo("parrot", "int4", "echo", "/models/parrot.echo", "a" * 64)
RAN = Environment(
    "echo 1", "b" * 64, None, 2048, 8, 2, 512, "f16", "linux", "x86_64", "A processor", ("avx2", "avx512f")
)
FACTS = Facts(MODEL, RAN, {"medical": "c" * 64})
WORD = "Zanzibar"  # in every text of the calls


@dataclass
class Answer:
    Zanzibar: str


class Kind(enum.Enum):
    FIRST = WORD
    SECOND = "other"


def rooms(city: str) -> str:
    """Look up the free rooms of Zanzibar."""
    return city


def stamped(
    flow: Callable[..., Flow[Any]], *given: Any, result: Any = None, keep: bool = False, **options: Any
) -> Receipt:
    """The receipt that a call gets when it has given this."""
    made = Generation(f"To {WORD}", f"To {WORD}", Usage(), "stop") if result is None else result
    return receipt_of(Stamp(flow, given, options, keep=keep), made)


def receipt_of(stamp: Stamp, made: Any) -> Receipt:
    def ended() -> Flow[Any]:
        yield from ()
        return made

    receipt = run_with(stamp.on(ended(), lambda: FACTS), lambda request: pytest.fail("asked")).receipt
    assert isinstance(receipt, Receipt)
    return receipt


SUMMARY = Summary(f"To {WORD}", (Point(f"To {WORD}", (Span(0, 8, WORD),), "supported"),), Coverage(8, 8, 1))
MESSAGES = [Message("system", f"You know {WORD}."), Message("user", WORD)]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {WORD: {"type": "string", "description": WORD}}}
CALLS: dict[str, Callable[..., Receipt]] = {
    "generate": lambda **more: stamped(generate, f"About {WORD}", instructions=f"Be {WORD}", stop=[WORD], **more),
    "messages": lambda **more: stamped(generate, MESSAGES, output_type=SCHEMA, **more),
    "regex": lambda **more: stamped(generate, WORD, output_type=re.compile(WORD), **more),
    "labels": lambda **more: stamped(generate, WORD, output_type=Literal["Zanzibar", "other"], **more),
    "enum": lambda **more: stamped(generate, WORD, output_type=Kind, **more),
    "type": lambda **more: stamped(generate, WORD, output_type=Answer, **more),
    "function": lambda **more: stamped(generate, WORD, tools=[rooms], **more),
    "tool": lambda **more: stamped(generate, WORD, tools=[Tool(WORD, WORD, SCHEMA)], **more),
    "summarise": lambda **more: stamped(
        summarise, WORD, context=f"What of {WORD}?", language=WORD, result=SUMMARY, **more
    ),
    "analyse": lambda **more: stamped(
        analyse, WORD, SCHEMA, examples=[(WORD, {WORD: WORD})], result=Analysis({WORD: WORD}), **more
    ),
    "embed": lambda **more: stamped(embed, [WORD, "b"], result=Embeddings((array("f", [1.0]),)), **more),
    "embed one by one": lambda **more: stamped(embed, iter([WORD]), result=Embeddings((array("f", [1.0]),)), **more),
}


@pytest.mark.parametrize("name", CALLS)
def test_no_text_is_in_a_receipt(name: str) -> None:
    receipt = CALLS[name]()
    assert WORD not in receipt.to_json()
    assert WORD not in repr(receipt)
    assert receipt.text is None


@pytest.mark.parametrize("name", CALLS)
def test_texts_are_in_it_where_they_were_asked_for(name: str) -> None:
    receipt = CALLS[name](keep=True)
    assert WORD in receipt.to_json() or name == "embed one by one"  # nobody took its texts
    assert WORD not in repr(receipt)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("name", CALLS)
def test_a_receipt_can_be_read_back(name: str, keep: bool) -> None:
    receipt = CALLS[name](keep=keep)
    assert Receipt.from_json(receipt.to_json()) == receipt
    assert Receipt.from_json(receipt.to_json().encode()) == receipt


def test_what_a_receipt_says() -> None:
    receipt = CALLS["generate"](seed=7, adapter="medical")
    assert (receipt.model, receipt.environment, receipt.adapter) == (MODEL, RAN, "c" * 64)
    assert (receipt.task, receipt.input_form, receipt.finish_reason) == ("generate", "text", "stop")
    options = dict(receipt.options)
    assert (options["seed"], options["temperature"], options["top_k"]) == (7, 0.7, 40)
    assert (options["tools"], options["output_type"]) == ([], None)
    assert set(options["instructions"]) == set(options["stop"]) == {"digest"}
    assert not {"stream", "context_tokens"} & set(options)
    assert receipt.created_at.endswith("+00:00")
    summary = stamped(summarise, "a", style="tldr", language="de", result=SUMMARY).options
    assert (summary["style"], summary["length"], summary["language"]) == ("tldr", "medium", "de")
    assert stamped(analyse, "a", Entities, result=Analysis(Entities(()))).options["form"] == {
        "kind": "built-in",
        "name": "Entities",
    }
    form = CALLS["type"]().options["output_type"]
    assert (form["kind"], form["name"], len(form["digest"])) == ("type", "Answer", 64)
    assert CALLS["messages"]().input_form == "messages"
    assert CALLS["embed"]().input_form == CALLS["embed one by one"]().input_form == "texts"


def test_two_receipts_of_one_text_do_not_look_alike() -> None:
    first, second = CALLS["generate"](), CALLS["generate"]()
    assert first.salt != second.salt
    assert first.input != second.input
    assert first.output != second.output
    assert first.options["stop"] != second.options["stop"]


@pytest.fixture
def same_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ondevice_sdk.stamp.secrets.token_bytes", bytes)


@pytest.mark.usefixtures("same_salt")
def test_what_the_app_does_to_its_lists_meanwhile_does_not_count() -> None:
    messages, stop = list(MESSAGES), ["end"]
    stamp = Stamp(generate, (messages,), {"stop": stop}, keep=False)
    messages.append(Message("user", "more"))
    stop.append("more")
    receipt = receipt_of(stamp, Generation("a", "a", Usage(), "stop"))
    again = stamped(generate, MESSAGES, stop=["end"])
    assert (receipt.input, receipt.options) == (again.input, again.options)


@pytest.mark.usefixtures("same_salt")
def test_texts_that_come_one_by_one_are_those_of_a_list() -> None:
    made = Embeddings((array("f", [1.0]),))
    whole = stamped(embed, ["a", "bc"], result=made, keep=True)
    stamp = Stamp(embed, (iter(["a", "bc"]),), {}, keep=True)
    assert list(stamp.given[0]) == ["a", "bc"]
    single = receipt_of(stamp, made)
    assert (single.input, single.text, single.output) == (whole.input, whole.text, whole.output)
    assert stamped(embed, ["ab", "c"], result=made).input != whole.input


@pytest.mark.usefixtures("same_salt")
def test_figures_that_rounding_decides_are_no_part_of_an_answer() -> None:
    first, second = (
        Analysis(Entities((Entity("Anna", "person", (Span(0, 4, "Anna"),), confidence),)), confidence)
        for confidence in (0.9, 0.91)
    )
    salt = bytes(16)
    assert output_digest(first, salt) == output_digest(second, salt)
    other = Analysis(Entities((Entity("Anna", "place", (Span(0, 4, "Anna"),), 0.9),)), 0.9)
    assert output_digest(other, salt) != output_digest(first, salt)
    assert output_digest(Analysis({"b", "a"}), salt) == output_digest(Analysis({"a", "b"}), salt)
    assert output_digest(Analysis(object()), salt) is None


# --- reading back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "1", "{}", json.dumps({"schema": 1}), "[" * 100_000, b"\xff", json.dumps({"model": WORD})]
)
def test_what_is_no_receipt(text: str | bytes) -> None:
    with pytest.raises(errors.ConfigurationError, match="this is no receipt"):
        Receipt.from_json(text)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"model": {"name": WORD}}, "model"),
        ({"model": WORD}, "model"),
        ({"environment": {"library": 1}}, "environment"),
        ({"environment": []}, "environment"),
        ({"options": [WORD]}, "options"),
        ({"sdk_version": 1}, "sdk_version"),
        ({"input": None}, "input"),
        ({"input_form": WORD}, "input_form"),
        ({"adapter": 5}, "adapter"),
        ({WORD: 1}, "damaged\n"),
    ],
)
def test_a_damaged_receipt(change: dict[str, Any], place: str) -> None:
    damaged = json.dumps({**json.loads(CALLS["generate"](keep=True).to_json()), **change})
    with pytest.raises(errors.ConfigurationError, match=place) as caught:
        Receipt.from_json(damaged)
    assert WORD not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_receipt_of_a_newer_version() -> None:
    newer = {**json.loads(CALLS["generate"]().to_json()), "schema": 2, "more": 1}
    with pytest.raises(errors.ConfigurationError, match="another version"):
        Receipt.from_json(json.dumps(newer))


# --- comparing --------------------------------------------------------------------------------------------------------


def test_what_changed_is_named() -> None:
    then = CALLS["generate"]()
    assert changes(then, CALLS["summarise"]()) == ()
    moved = replace(then, model=replace(MODEL, path="/elsewhere", name="other", variant="int8"))
    assert changes(then, moved) == ()  # the same file
    whole = {
        "model": replace(then, model=replace(MODEL, sha256="d" * 64)),
        "backend": replace(then, model=replace(MODEL, backend="llama_cpp")),
        "adapter": replace(then, adapter="e" * 64),
        "SDK": replace(then, sdk_version="99"),
    }
    ran: dict[str, dict[str, Any]] = {
        "template": {"template": None}, "recipe": {"recipe": {"sha256": "f" * 64, "words": "Q4_0, plain"}},
        "library": {"library": "echo 2"}, "context": {"context_tokens": 4096}, "sequences": {"sequences": 1},
        "threads": {"threads": 1}, "batch": {"batch_tokens": 64}, "KV cache": {"kv_type": "q8_0"},
        "processor": {"cpu": "another"}, "system": {"system": "macos"},
    }  # fmt: skip
    for what, now in {**whole, **{k: replace(then, environment=replace(RAN, **v)) for k, v in ran.items()}}.items():
        (change,) = changes(then, now)
        assert change.what == what
        assert change.then != change.now
    assert changes(then, Receipt("99", MODEL))[0].what == "SDK"
