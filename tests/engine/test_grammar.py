from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ondevice_sdk.backends.api import GREEDY, Failed, Generate, Generated, Grammar, Sampling
from ondevice_sdk.testing import answer, drain

from .support import chat, echo_engine, generated, raw

HOT = Sampling(temperature=3.0, top_k=0, top_p=1.0, min_p=0.0, seed=3)


def schema(value: object) -> Grammar:
    return Grammar("json_schema", json.dumps(value))


def write(
    tmp_path: Path, grammar: Grammar, text: str = "?", sampling: Sampling = GREEDY, tokens: int = 300
) -> Generated:
    return generated(drain(echo_engine(tmp_path), {"a": Generate(chat(text), tokens, sampling, grammar=grammar)})["a"])


def refusal(tmp_path: Path, grammar: Grammar) -> Failed:
    (event,) = drain(echo_engine(tmp_path), {"a": Generate(chat("x"), 9, grammar=grammar)})["a"]
    assert isinstance(event, Failed)
    return event


def test_json_is_compact_and_ends_by_itself(tmp_path: Path) -> None:
    grammar = schema(
        {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 1, "maximum": 9}, "b": {"enum": ["x", "y"]}},
            "required": ["a", "b"],
            "additionalProperties": False,
        }
    )
    result = write(tmp_path, grammar, '{"a": 1, "b": "y"}')
    assert result.text == '{"a":1,"b":"y"}' or json.loads(result.text)
    assert " " not in result.text
    assert result.finish_reason == "stop"


@pytest.mark.parametrize("seed", range(5))
def test_every_draw_satisfies_the_schema(tmp_path: Path, seed: int) -> None:
    grammar = schema({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4})
    value = json.loads(write(tmp_path, grammar, sampling=Sampling(temperature=3.0, seed=seed)).text)
    assert 2 <= len(value) <= 4
    assert all(isinstance(item, bool) for item in value)


def test_regex(tmp_path: Path) -> None:
    text = write(tmp_path, Grammar("regex", "[a-f]{3,6}-[0-9]{2}"), sampling=HOT).text
    assert re.fullmatch("[a-f]{3,6}-[0-9]{2}", text)


@pytest.mark.parametrize(
    "choices", [("yes", "no"), ("a", "ab"), ('quo"te\\', "line\nbreak", "é🦊"), ("/x/", "# y", "<|end|>")]
)
def test_choice(tmp_path: Path, choices: tuple[str, ...]) -> None:
    for wanted in choices:
        result = write(tmp_path, Grammar("choice", choices=choices), wanted)
        assert result.text == wanted
        assert result.finish_reason == "stop"


def test_too_few_tokens_end_by_length(tmp_path: Path) -> None:
    result = write(tmp_path, Grammar("regex", "[0-9]{20}"), tokens=5)
    assert result.finish_reason == "length"
    assert len(result.text) == 5


def test_ignore_eos_with_a_grammar_ends_where_nothing_may_follow(tmp_path: Path) -> None:
    request = Generate(chat("aaaa"), 50, GREEDY, grammar=Grammar("regex", "a{2,9}"), ignore_eos=True)
    result = answer(echo_engine(tmp_path), request)
    assert isinstance(result, Generated)
    assert result.text == "a" * 9


def test_refusal_names_keyword_and_path_but_no_text(tmp_path: Path) -> None:
    event = refusal(
        tmp_path,
        schema({"type": "object", "properties": {"secret/a": {"type": "array", "contains": {"const": "hidden"}}}}),
    )
    assert event.error.code == "schema_unsupported"
    assert event.error.data == {"path": "/properties/secret~1a", "keyword": "contains"}
    assert "hidden" not in event.error.message


@pytest.mark.parametrize(
    ("grammar", "code"),
    [
        (Grammar("json_schema", "{not json"), "configuration_error"),
        (Grammar("json_schema", "[1]"), "configuration_error"),
        (schema(False), "schema_unsupported"),
        (schema({"type": "integer", "minimum": 5, "maximum": 1}), "schema_unsupported"),
        (schema({"type": "object", "required": ["a"], "properties": {"a": False}}), "schema_unsupported"),
        (schema({"$ref": "#/nowhere"}), "schema_unsupported"),
        (Grammar("regex", "(unclosed"), "schema_unsupported"),
        (Grammar("choice"), "configuration_error"),
        (Grammar("choice", choices=("a", "")), "configuration_error"),
    ],
)
def test_what_cannot_be_expressed_is_refused(
    tmp_path: Path, grammar: Grammar, code: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert refusal(tmp_path, grammar).error.code == code
    assert capfd.readouterr() == ("", ""), "llguidance must not write parts of a schema"


def test_constrained_and_free_requests_run_together(tmp_path: Path) -> None:
    events = drain(
        echo_engine(tmp_path),
        {
            "free": Generate(chat("hello"), 20, GREEDY),
            "choice": Generate(chat("no"), 20, GREEDY, grammar=Grammar("choice", choices=("yes", "no"))),
            "raw": Generate(raw("ab"), 20, GREEDY, grammar=Grammar("regex", "x+y"), stop=("xx",)),
        },
    )
    assert generated(events["free"]).text == "hello"
    assert generated(events["choice"]).text == "no"
    assert set(generated(events["raw"]).text) <= {"x", "y"}
