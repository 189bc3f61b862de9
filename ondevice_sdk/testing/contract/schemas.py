"""Constrained output: valid by construction, or refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Final

import pytest

from ondevice_sdk.backends.api import GREEDY, Capability, Engine, Generate, Generated, Grammar, Sampling
from ondevice_sdk.errors import ConfigurationError, OutputInvalid, SchemaUnsupported
from ondevice_sdk.testing import answer, drain
from ondevice_sdk.testing.contract.base import ContractBase, assert_refused, generated, last
from ondevice_sdk.testing.contract.guard import part

_SCHEMA: Final = json.dumps(
    {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}, "word": {"enum": ["red", "blue"]}},
        "required": ["yes", "word"],
        "additionalProperties": False,
    }
)
_LIST: Final = '{"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3}'


@part()
class Schemas(ContractBase):
    """JSON schemas, regular expressions, choices."""

    @pytest.mark.parametrize("form", ["json_schema", "regex", "choice"])
    def test_without_the_capability_it_is_refused(self, engine: Engine, form: str) -> None:
        """Every form of a constraint, never ignored."""
        if Capability.SCHEMA in engine.capabilities:
            return  # then it has to work, below
        forms = {
            "json_schema": Grammar("json_schema", _SCHEMA),
            "regex": Grammar("regex", "[0-9]+"),
            "choice": Grammar("choice", choices=("a", "b")),
        }
        assert_refused(engine, Generate(self.prompt, 64, GREEDY, grammar=forms[form]), Capability.SCHEMA)

    def test_schema(self, engine: Engine) -> None:
        """The output is a value of the schema."""
        if not _can(engine):
            return
        result = generated(engine, self._ask(Grammar("json_schema", _SCHEMA)))
        assert result.finish_reason == "stop"
        _assert_valid(result)

    def test_schema_holds_at_any_temperature(self, engine: Engine) -> None:
        """Also where the likeliest tokens are not taken, and for several requests at once."""
        if not _can(engine):
            return
        wild = Sampling(temperature=2.0, top_p=1.0, top_k=0, min_p=0.0)
        asked = replace(self._ask(Grammar("json_schema", _SCHEMA)), sampling=wild)
        for events in drain(engine, {f"r{n}": asked for n in range(5)}).values():
            _assert_valid(last(events))

    def test_schema_of_a_list(self, engine: Engine) -> None:
        """Bounds are kept."""
        if not _can(engine):
            return
        value = json.loads(generated(engine, self._ask(Grammar("json_schema", _LIST))).text)
        assert 2 <= len(value) <= 3
        assert all(isinstance(each, int) for each in value)

    def test_regex(self, engine: Engine) -> None:
        """The whole output matches."""
        if not _can(engine):
            return
        result = generated(engine, self._ask(Grammar("regex", "[a-c]{2}-[0-9]{3}")))
        assert re.fullmatch("[a-c]{2}-[0-9]{3}", result.text)

    def test_choice(self, engine: Engine) -> None:
        """One of the strings, as it stands."""
        if not _can(engine):
            return
        assert generated(engine, self._ask(Grammar("choice", choices=("alpha", "beta")))).text in ("alpha", "beta")

    def test_tokens_that_run_out_leave_no_broken_value(self, engine: Engine) -> None:
        """The budget closes the value, or the request fails as `OutputInvalid`."""
        if not _can(engine):
            return
        for tokens in (1, 6, 16, 32):
            try:
                result = generated(engine, replace(self._ask(Grammar("json_schema", _SCHEMA)), max_tokens=tokens))
            except OutputInvalid:
                continue
            assert result.usage.completion_tokens <= tokens
            _assert_valid(result)

    @pytest.mark.parametrize(
        "grammar",
        [
            Grammar("json_schema", "{"),
            Grammar("json_schema", '{"type": "nothing that there is"}'),
            Grammar("regex", "(unclosed"),
            Grammar("choice"),
        ],
        ids=["not JSON", "not a schema", "not a regular expression", "no choices"],
    )
    def test_what_is_no_constraint_is_refused(self, engine: Engine, grammar: Grammar) -> None:
        """Before anything is written, and the engine goes on."""
        if not _can(engine):
            return
        with pytest.raises((SchemaUnsupported, ConfigurationError)):
            answer(engine, self._ask(grammar))
        generated(engine, Generate(self.prompt, 2, GREEDY))

    def _ask(self, grammar: Grammar) -> Generate:
        return Generate(self.prompt, 64, GREEDY, grammar=grammar)


def _can(engine: Engine) -> bool:
    return Capability.SCHEMA in engine.capabilities


def _assert_valid(result: Generated) -> None:
    value = json.loads(result.text)
    assert set(value) == {"yes", "word"}
    assert isinstance(value["yes"], bool)
    assert value["word"] in ("red", "blue")
