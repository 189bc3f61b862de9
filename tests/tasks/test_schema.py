"""Types as constraints on the output."""

from __future__ import annotations

import json

from pydantic import BaseModel

from ondevice_sdk.tasks.schema import grammar_for


def test_objects_have_no_fields_but_their_own() -> None:
    class Inner(BaseModel):
        properties: dict[str, int]
        type: str

    class Open(BaseModel, extra="allow"):
        inner: Inner

    grammar = grammar_for(Open)
    assert grammar is not None
    schema = json.loads(grammar.source)
    assert schema["additionalProperties"] is True
    inner = schema["$defs"]["Inner"]
    assert inner["additionalProperties"] is False
    assert set(inner["properties"]) == {"properties", "type"}
    assert inner["properties"]["properties"]["additionalProperties"] != False  # noqa: E712  # the values' schema stays
