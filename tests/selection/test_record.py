from __future__ import annotations

import json

import pytest

from ondevice_sdk import catalogue
from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.selection import Need, record, replay, select

from .support import device, estimate, offer

INPUTS = (device(), catalogue.load(), [offer()], frozenset({("qwen3-0.6b", "int4")}), Need(task="generate", tokens=100))


def test_the_whole_catalogue_survives_json() -> None:
    text = json.dumps(record(*INPUTS))
    assert replay(json.loads(text), {"llama_cpp": estimate}) == select(*INPUTS)


def test_a_missing_prediction() -> None:
    with pytest.raises(ConfigurationError, match="no memory prediction for the backend 'llama_cpp'"):
        replay(record(*INPUTS), {})


@pytest.mark.parametrize("change", [{"format": 2}, {"colour": "red"}, {"device": None}, {"need": {"prefer": "beauty"}}])
def test_what_is_no_record(change: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        replay(record(*INPUTS) | change, {"llama_cpp": estimate})


@pytest.mark.parametrize("recorded", [None, [], "text", {}])
def test_what_is_no_table(recorded: object) -> None:
    with pytest.raises(ConfigurationError):
        replay(recorded, {"llama_cpp": estimate})
