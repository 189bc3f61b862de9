from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ondevice_sdk.backends.api import GREEDY, Failed, Generate, Generated, Grammar, Sampling
from ondevice_sdk.engine.grammar import Constraint, GrammarCompiler
from ondevice_sdk.testing import answer, drain

from .support import chat, echo_engine, echo_runner, generated, raw

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


def test_an_output_is_complete_when_its_tokens_run_out(tmp_path: Path) -> None:
    result = write(tmp_path, Grammar("regex", "[0-9]{20}x*"), tokens=25, sampling=HOT)
    assert re.fullmatch("[0-9]{20}x*", result.text)
    item = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    grammar = schema({"type": "array", "items": {**item, "additionalProperties": False}})
    result = write(tmp_path, grammar, '[{"name":"a very long name that does not end in time"}]', tokens=30)
    assert (result.text, result.finish_reason) == ('[{"name":"a very long name "}]', "length")


def test_too_few_tokens_for_any_output_are_refused_before_it_is_begun(tmp_path: Path) -> None:
    grammar = Grammar("regex", "[0-9]{20}")
    (event,) = drain(echo_engine(tmp_path), {"a": Generate(chat("x"), 5, grammar=grammar)})["a"]
    assert isinstance(event, Failed)
    assert event.error.code == "output_invalid"
    assert event.error.hint == "max_tokens has to be at least 20"
    assert write(tmp_path, grammar, tokens=20).text.isdecimal()


def test_ignore_eos_with_a_grammar_ends_where_nothing_may_follow(tmp_path: Path) -> None:
    request = Generate(chat("aaaa"), 50, GREEDY, grammar=Grammar("regex", "a{2,9}"), ignore_eos=True)
    result = answer(echo_engine(tmp_path), request)
    assert isinstance(result, Generated)
    assert result.text == "a" * 9


def test_refusal_names_keyword_and_path_but_no_text(tmp_path: Path) -> None:
    event = refusal(
        tmp_path,
        schema({"type": "object", "properties": {"secret/a": {"type": "string", "pattern": "\\p{hidden}"}}}),
    )
    assert event.error.code == "schema_unsupported"
    assert event.error.data == {"path": "/properties/secret~1a", "keyword": "pattern"}
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


def constraint(tmp_path: Path, grammar: Grammar, *, ignore_eos: bool = False) -> Constraint:
    runner = echo_runner(tmp_path)
    compiler = GrammarCompiler(runner.grammar_tokenizer, runner.vocabulary, runner.end_tokens)
    return compiler.compile(grammar, ignore_eos=ignore_eos)


def allowed(state: Constraint) -> NDArray[np.intp]:
    logits = np.zeros(261, np.float32)
    possible = state.mask(logits)
    tokens = np.flatnonzero(np.isfinite(logits))
    return tokens if possible else tokens[:0]


RECORD = schema(
    {
        "type": "object",
        "properties": {
            "größe": {"enum": ["klein", "groß", "🦊"]},
            "n": {"type": "number", "minimum": -5, "maximum": 12},
            "kind": {"const": "é"},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
        },
        "required": ["größe", "n", "kind", "tags"],
        "additionalProperties": False,
    }
)


@pytest.mark.parametrize("ignore_eos", [False, True])
@pytest.mark.parametrize("grammar", [RECORD, Grammar("regex", "a{2,9}b?"), Grammar("choice", choices=("a", "ab", "x"))])
@pytest.mark.parametrize("seed", range(6))
def test_the_quick_answers_agree_with_the_mask(tmp_path: Path, grammar: Grammar, ignore_eos: bool, seed: int) -> None:
    state, random, text = constraint(tmp_path, grammar, ignore_eos=ignore_eos), np.random.default_rng(seed), b""
    jumps = 0
    for _ in range(80):
        tokens = allowed(state)
        assert [token for token in range(261) if state.allows(token)] == tokens.tolist()
        if not len(tokens):
            break
        forced = state.forced()
        jumps += len(forced)
        token = int(random.choice(tokens))
        assert state.fitting([token]) == 1
        assert state.fitting([token, 257]) <= 1, "a special token never fits"
        if forced:
            assert tokens.tolist() == [forced[0]]
            assert state.fitting(forced) == len(forced)
        if token == 260:
            assert not ignore_eos
            break
        state.accept(token)
        text += bytes((token,))
        if state.finished:
            break
    text.decode()
    if grammar is RECORD:
        assert jumps > 20
        assert json.loads(text)["kind"] == "é"


def test_a_number_of_tokens_that_fills_no_word(tmp_path: Path) -> None:
    # 261 tokens are not a multiple of 32: the bits behind them must not make a dead end look open.
    state = constraint(tmp_path, Grammar("regex", "ab"), ignore_eos=True)
    for token in b"ab":
        assert state.possible()
        state.accept(token)
    assert not state.possible()
    assert not state.mask(np.zeros(261, np.float32))
    assert state.forced() == []


def test_an_engine_that_forgets_keeps_no_schema(tmp_path: Path) -> None:
    engine = echo_engine(tmp_path)
    drain(engine, {"a": Generate(chat("x"), 9, grammar=schema({"const": "a secret"}))})
    assert engine._grammars is not None
    assert engine._grammars._sources
    engine.forget()
    assert not engine._grammars._sources


@pytest.mark.parametrize("seed", range(4))
def test_a_way_out_of_a_dead_end_is_no_lack_of_room(tmp_path: Path, seed: int) -> None:
    grammar = schema({"type": "array", "uniqueItems": True, "items": {"pattern": "^[ab]$", "type": "string"}})
    hot = Sampling(temperature=3.0, top_k=0, top_p=1.0, min_p=0.0, seed=seed)
    result = write(tmp_path, grammar, '["a","a","b"]', hot)
    items = json.loads(result.text)
    assert result.finish_reason == "stop"
    assert len(set(items)) == len(items) <= 2
