"""MLC's pieces of a conversation, as the template that the SDK renders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ondevice_mlc.conversation import chat_template, to_jinja
from ondevice_mlc.folder import Folder
from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported
from ondevice_sdk.text.templates import render
from ondevice_sdk.types import Message

from .upstream import CHATML

TURNS = (Message("user", "Hi {{ 1 }}"), Message("assistant", "Ho"), Message("user", "So?"))


def laid_out(turns: tuple[Message, ...], **changes: Any) -> str:
    return "".join(segment.text for segment in render(to_jinja({**CHATML, **changes}), turns, variables={}))


def test_chatml() -> None:
    assert laid_out(TURNS) == (
        "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nHi {{ 1 }}<|im_end|>\n"
        "<|im_start|>assistant\nHo<|im_end|>\n<|im_start|>user\nSo?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_system_message_takes_the_place_of_the_default() -> None:
    text = laid_out((Message("system", "Rhyme."), TURNS[0]))
    assert text.startswith("<|im_start|>system\nRhyme.<|im_end|>\n<|im_start|>user\nHi")
    assert "You help" not in text


def test_the_first_role_is_left_out_after_a_system_message() -> None:
    changes = {
        "system_template": "[INST] <<SYS>>\n{system_message}\n<</SYS>>\n\n",
        "add_role_after_system_message": False,
        "roles": {"user": "<s>[INST]", "assistant": "[/INST]"},
        "seps": [" ", " </s>"],
        "role_content_sep": " ",
        "role_empty_sep": " ",
    }
    assert laid_out(TURNS, **changes) == (
        "[INST] <<SYS>>\nYou help.\n<</SYS>>\n\nHi {{ 1 }} [/INST] Ho </s><s>[INST] So? [/INST] "
    )


def test_no_system_message_at_all() -> None:
    assert laid_out(TURNS[:1], system_template="{system_message}", system_message="") == (
        "<|im_start|>user\nHi {{ 1 }}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_what_stands_around_a_message() -> None:
    roles = {"user": "### In: {user_message} ###", "assistant": "{assistant_message}"}
    assert "### In: So? ###" in laid_out(TURNS, role_templates=roles)


def test_texts_are_written_as_they_are() -> None:
    odd = 'a"b\\n{% raw %} 🦊 \u2028'
    assert laid_out(TURNS[:1], seps=[odd]).count(odd) == 1


def test_of_several_templates_the_default(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer_config.json"
    named = [{"name": ["no", "name"]}, {"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]
    for found, expected in ((named, "b"), (named[:2], None)):
        path.write_text(json.dumps({"chat_template": found}))
        assert chat_template(Folder({}, (), {path.name: path}, tmp_path)) == expected


def test_a_role_that_the_model_does_not_have() -> None:
    with pytest.raises(ModelUnsupported):
        laid_out((*TURNS, Message("tool", "4")))


@pytest.mark.parametrize(
    "change",
    [
        {"roles": {"user": "u"}},
        {"roles": [1]},
        {"seps": "x"},
        {"seps": ["a", "b", "c"]},
        {"role_templates": {"user": "no place"}},
        {"system_template": 3},
    ],
)
def test_unknown_forms(change: dict[str, Any]) -> None:
    with pytest.raises(ModelCorrupt):
        to_jinja({**CHATML, **change})
