"""Vocabularies, special tokens and templates: what can be proved is taken, anything else is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported, OnDeviceError
from ondevice_sdk.quantise.hugging_face import pretokenisers, settings, vocabulary

from . import toys

SIZE = 271


@pytest.mark.parametrize("name", toys.PRETOKENISERS)
def test_names_of_pretokenisers(name: str) -> None:
    assert vocabulary.read(toys.tokenizer(name), SIZE).pre == name


def test_a_sequence_of_one_is_that_one() -> None:
    made = toys.tokenizer("qwen2")
    made["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFC"}]}
    made["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [made["pre_tokenizer"]]}
    assert pretokenisers.name_of(made) == "qwen2"


def _deep(inner: str) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "Sequence", inner: []}
    for _ in range(5000):
        made = {"type": "Sequence", inner: [made]}
    return made


def _pattern(made: dict[str, Any], change: Callable[[str], str]) -> None:
    cut = made["pre_tokenizer"]["pretokenizers"][0]["pattern"]
    cut["Regex"] = change(cut["Regex"])


OTHERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "digits by two": lambda made: _pattern(made, lambda text: text.replace("{1,3}", "{1,2}")),
    "marks": lambda made: _pattern(made, lambda text: text.replace(r"\p{L}+|", r"[\p{L}\p{M}]+|")),
    "a text, not a pattern": lambda made: made["pre_tokenizer"]["pretokenizers"][0].update(pattern={"String": " "}),
    "removed": lambda made: made["pre_tokenizer"]["pretokenizers"][0].update(behavior="Removed"),
    "inverted": lambda made: made["pre_tokenizer"]["pretokenizers"][0].update(invert=True),
    "prefix": lambda made: made["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True),
    "pattern twice": lambda made: made["pre_tokenizer"]["pretokenizers"][1].update(use_regex=True),
    "one more": lambda made: made["pre_tokenizer"]["pretokenizers"].append({"type": "Punctuation"}),
    "none": lambda made: made.update(pre_tokenizer=None),
    "no sequence": lambda made: made["pre_tokenizer"].pop("pretokenizers"),
    "lower case": lambda made: made.update(normalizer={"type": "Lowercase"}),
    "composed": lambda made: made.update(normalizer={"type": "NFC"}),
    "broken": lambda made: made.update(pre_tokenizer=5),
    "deep": lambda made: made.update(normalizer=_deep("normalizers")),
    "unhashable": lambda made: made.update(normalizer={"type": ["NFC"]}),
    "unigram": lambda made: made["model"].update(type="Unigram"),
    "dropout": lambda made: made["model"].update(dropout=0.1),
    "sentence pieces": lambda made: made["model"].update(byte_fallback=True),
    "suffix": lambda made: made["model"].update(end_of_word_suffix="</w>"),
    "decoder": lambda made: made.update(decoder={"type": "Metaspace"}),
    "no decoder": lambda made: made.pop("decoder"),
    "a byte is missing": lambda made: made["model"]["vocab"].pop("!"),
    "a line end is missing": lambda made: made["model"]["vocab"].pop("Ċ"),
    "another alphabet": lambda made: made["model"]["vocab"].update({"▁the": 269}),
    "empty word": lambda made: made["model"]["vocab"].update({"": 269}),
    "strips": lambda made: made["added_tokens"][0].update(rstrip=True),
    "processor": lambda made: made.update(post_processor={"type": "BertProcessing"}),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_llama_cpp_would_read_otherwise_is_refused(case: str) -> None:
    made = toys.tokenizer("llama-bpe")
    vocabulary.read(made, SIZE)  # the control
    OTHERS[case](made)
    with pytest.raises(ModelUnsupported):
        vocabulary.read(made, SIZE)


DAMAGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "no model": lambda made: made.pop("model"),
    "no vocabulary": lambda made: made["model"].pop("vocab"),
    "no merges": lambda made: made["model"].pop("merges"),
    "one number twice": lambda made: made["model"]["vocab"].update({"th": 3}),
    "a number of text": lambda made: made["model"]["vocab"].update({"th": "3"}),
    "a number below": lambda made: made["model"]["vocab"].update({"th": -1}),
    "a number above": lambda made: made["model"]["vocab"].update({"th": SIZE}),
    "added above": lambda made: made["added_tokens"][0].update(id=SIZE),
    "added twice": lambda made: made["added_tokens"].append(made["added_tokens"][0]),
    "added over": lambda made: made["added_tokens"][0].update(id=3),
    "added with two numbers": lambda made: made["added_tokens"][0].update(content="th"),
    "added without text": lambda made: made["added_tokens"][0].update(content=""),
    "half a character": lambda made: made["added_tokens"][0].update(content="\ud800"),
    "added list": lambda made: made.update(added_tokens={"a": 1}),
    "added entry": lambda made: made["added_tokens"].append(7),
    "called like a gap": lambda made: made["added_tokens"][0].update(content="[PAD270]"),
    "merge of three": lambda made: made["model"]["merges"].append("t h e"),
    "merge of one": lambda made: made["model"]["merges"].append("the"),
    "merge of numbers": lambda made: made["model"]["merges"].append([1, 2]),
    "merge to nothing": lambda made: made["model"]["merges"].append("z z"),
    "merge of nothing": lambda made: made["model"]["merges"].append(["", "the"]),
    "merge twice": lambda made: made["model"]["merges"].append("t h"),
    "template": lambda made: made.update(post_processor={"type": "TemplateProcessing", "single": [7]}),
    "deep": lambda made: made.update(post_processor=_deep("processors")),
    "no template": lambda made: made.update(post_processor={"type": "TemplateProcessing"}),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_vocabularies_that_contradict_themselves(case: str) -> None:
    made = toys.tokenizer()
    DAMAGED[case](made)
    with pytest.raises(ModelCorrupt):
        vocabulary.read(made, SIZE)


def test_bytes_that_no_text_has_may_be_missing() -> None:
    made = toys.tokenizer()
    for letter in "ÀÁñòõö÷øùúûüýþÿĄĆēĔĖĝ":  # as SmolLM2 has it
        del made["model"]["vocab"][letter]
    assert vocabulary.read(made, SIZE).kinds.count(5) == 2 + 21


def test_merges_as_pairs_are_the_same() -> None:
    made = toys.tokenizer()
    before = vocabulary.read(made, SIZE)
    made["model"]["merges"] = [merge.split(" ") for merge in made["model"]["merges"]]
    assert vocabulary.read(made, SIZE) == before


def special(folder: Path, said: dict[str, Any] | None = None, **parts: Any) -> dict[str, Any]:
    """GGUF's metadata on special tokens, by the last word but one of its keys."""
    folder.mkdir(exist_ok=True)
    names = {"settings": "tokenizer_config.json", "generation": "generation_config.json"}
    files = {}
    for part, content in parts.items():
        if part in names:
            files[names[part]] = folder / names[part]
            toys.dump(files[names[part]], content)
    tokenizer = {**toys.tokenizer(), "post_processor": parts.get("processor")}
    found = settings.special_tokens(files, said or {}, vocabulary.read(tokenizer, SIZE))
    return {key.removeprefix("tokenizer.ggml.").removesuffix("_token_id"): value for key, value in found.items()}


NO_ADDING = {"add_bos_token": False, "add_eos_token": False}


def test_special_tokens_by_the_tokeniser_first(tmp_path: Path) -> None:
    ends = {"eos_token_id": [4, 267], "bos_token_id": 7}
    settled = {"bos_token": "<|begin|>", "eos_token": {"content": "th"}, "unk_token": None, "pad_token": "<|im_end|>"}
    found = special(tmp_path, {"eos_token_id": 9}, settings=settled, generation={**ends, "eos_token_id": [267]})
    assert found == {"bos": 266, "eos": 256, "eot": 267, "eom": 9, "padding": 267, **NO_ADDING}
    found = special(tmp_path, {"eos_token_id": 9, "bos_token_id": 5})
    assert found == {"bos": 5, "eos": 9, "eot": 9, **NO_ADDING}
    with pytest.raises(ModelUnsupported, match="more tokens end"):
        special(tmp_path, {"eos_token_id": 9}, settings=settled, generation=ends)


def test_special_tokens_that_are_not_there(tmp_path: Path) -> None:
    for wrong in ({"eos_token_id": SIZE}, {"eos_token_id": -1}, {}, {"eos_token_id": True}, {"eos_token_id": "2"}):
        with pytest.raises(ModelCorrupt):
            special(tmp_path, dict(wrong))
    with pytest.raises(ModelCorrupt):
        special(tmp_path, {"eos_token_id": 1}, settings={"bos_token": "<nothing>"})


def template(*names: str) -> dict[str, Any]:
    parts = [{"SpecialToken": {"id": name}} if name != "A" else {"Sequence": {"id": "A"}} for name in names]
    level = {"type": "ByteLevel"}
    return {"type": "Sequence", "processors": [level, {"type": "TemplateProcessing", "single": parts}]}


def test_what_every_text_gets(tmp_path: Path) -> None:
    named = {"bos_token": "<|begin|>", "eos_token": "<|im_end|>"}

    def adds(*names: str, **settled: bool) -> tuple[bool, bool]:
        found = special(tmp_path, settings={**named, **settled}, processor=template(*names))
        return found["add_bos_token"], found["add_eos_token"]

    assert adds("A") == (False, False)
    assert adds("<|begin|>", "A") == (True, False)
    assert adds("<|begin|>", "A", "<|im_end|>") == (True, True)
    assert adds("A", add_bos_token=True) == (True, False)
    assert adds("<|begin|>", "A", add_bos_token=False) == (False, False)
    for others in (("<think>", "A"), ("<|begin|>", "<|begin|>", "A"), ("A", "<|begin|>")):
        with pytest.raises(ModelUnsupported):
            adds(*others)
    with pytest.raises(ModelCorrupt):
        adds("A", "A")


def test_chat_templates(tmp_path: Path) -> None:
    def found(**contents: Any) -> str | None:
        files = {}
        for name, content in contents.items():
            path = tmp_path / name.replace("_DOT_", ".")
            path.write_text(content if isinstance(content, str) else json.dumps(content))
            files[path.name] = path
        return settings.chat_template(files)

    several = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    assert found() is None
    assert found(tokenizer_config_DOT_json={"chat_template": "c"}) == "c"
    assert found(tokenizer_config_DOT_json={"chat_template": several}) == "d"
    assert found(tokenizer_config_DOT_json={"chat_template": 5}) is None
    assert found(tokenizer_config_DOT_json={"chat_template": "c"}, chat_template_DOT_json={"chat_template": "o"}) == "o"
    assert found(tokenizer_config_DOT_json={"chat_template": "c"}, chat_template_DOT_jinja="ä") == "ä"
    for bad in ({"chat_template": "x" * (1 << 20 | 1)}, {"chat_template": "\ud800"}):
        with pytest.raises(OnDeviceError):
            found(tokenizer_config_DOT_json=bad)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelCorrupt):
        settings.chat_template({"chat_template.jinja": tmp_path / "chat_template.jinja"})
