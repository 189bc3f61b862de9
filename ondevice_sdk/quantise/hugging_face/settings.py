"""Special tokens, chat template and licence, which lie in small files beside the weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported
from ondevice_sdk.quantise.hugging_face.safetensors import load_object
from ondevice_sdk.quantise.hugging_face.vocabulary import Vocabulary, as_utf8
from ondevice_sdk.store.gguf_writer import Value

MOST_JSON: Final = 1 << 24  # bytes; configurations of tokenisers list their special tokens
_MOST_TEMPLATE: Final = 1 << 20  # bytes, the most that is read of a string of GGUF's
_MOST_CARD: Final = 1 << 16  # bytes of a model card, at whose begin the licence stands
# Tokens by which turns end, and all that llama.cpp takes for the end of an answer by their text alone.
_TURN: Final = ("<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>")
_LICENCE: Final = re.compile(r"^(license|license_name): *[\"']?([^\"'\n#]{1,100})", re.MULTILINE)
_BY_TEXT: Final = frozenset({*_TURN, "<|endoftext|>", "</s>", "<|eom_id|>", "<|end_of_text|>"})


def special_tokens(files: Mapping[str, Path], config: Mapping[str, Any], words: Vocabulary) -> dict[str, Value]:
    """GGUF's metadata on special tokens: numbers, and which of them every text gets.

    Raises:
        ModelCorrupt: a file is damaged, no token ends an answer, or one is named that is not there. ModelUnsupported:
            more is added to a text than GGUF can say.
    """
    settings = _optional(files, "tokenizer_config.json")
    generation = _optional(files, "generation_config.json")
    numbers = {text: number for number, text in enumerate(words.tokens)}

    def named(key: str) -> Iterator[int]:
        """What the tokeniser's settings, those for generation and the model's say, in this order."""
        said = settings.get(f"{key}_token")
        text = said.get("content") if isinstance(said, dict) else said
        if isinstance(text, str) and text:
            if text not in numbers:
                raise ModelCorrupt(f"tokenizer_config.json: its {key}_token is not in the vocabulary")
            yield numbers[text]
        for source in (generation, config):
            found = source.get(f"{key}_token_id")
            for number in found if isinstance(found, list) else [found]:
                if type(number) is int:
                    if not 0 <= number < len(words.tokens):
                        raise ModelCorrupt(f"{key}_token_id is not in the vocabulary")
                    yield number

    ends = list(dict.fromkeys(named("eos")))
    if not ends:
        raise ModelCorrupt("no file says which token ends an answer", expected="eos_token")
    begin = next(named("bos"), None)
    made: dict[str, Value] = {f"tokenizer.ggml.{key}_token_id": number for key, number in _ends(ends, words).items()}
    for key, word in (("bos", "bos"), ("unknown", "unk"), ("padding", "pad")):
        if (number := next(named(word), None)) is not None:
            made[f"tokenizer.ggml.{key}_token_id"] = number
    for key, said, own in (("bos", words.before, begin), ("eos", words.after, ends[0])):
        if said and (own is None or said != (words.tokens[own],)):
            raise ModelUnsupported("the model cannot be converted: its tokeniser adds tokens in an unknown way")
        adds = settings.get(f"add_{key}_token")
        made[f"tokenizer.ggml.add_{key}_token"] = adds if isinstance(adds, bool) and own is not None else bool(said)
    return made


def _ends(ends: list[int], words: Vocabulary) -> dict[str, int]:
    """The tokens that end an answer, the tokeniser's first; those that llama.cpp knows by their text need no name."""
    turn = next((number for number in ends if words.tokens[number] in _TURN), ends[0])
    others = [each for each in ends[1:] if each != turn and words.tokens[each] not in _BY_TEXT]
    if len(others) > 1:
        raise ModelUnsupported("the model cannot be converted: more tokens end its answers than GGUF has names for")
    return {"eos": ends[0], "eot": turn, **dict.fromkeys(["eom"] * len(others), *others)}


def chat_template(files: Mapping[str, Path]) -> str | None:
    """The template by which a conversation becomes text.

    Raises:
        ModelCorrupt: a file is damaged.
    """
    if (path := files.get("chat_template.jinja")) is not None:
        with path.open("rb") as file:
            data = file.read(_MOST_TEMPLATE + 1)
        try:
            return _checked(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise ModelCorrupt("chat_template.jinja is not UTF-8") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        said = _optional(files, name).get("chat_template")
        if isinstance(said, list):  # several by name
            named = {each.get("name"): each.get("template") for each in said if isinstance(each, dict)}
            said = named.get("default")
        if isinstance(said, str) and said:
            return _checked(said)
    return None


def _checked(template: str) -> str:
    if len(as_utf8(template, "the chat template")) > _MOST_TEMPLATE:
        raise ModelCorrupt("the chat template is impossibly long")
    return template


def licence(card: Path) -> str | None:
    """The licence that a model card (`README.md`) names in the block at its begin; None if there is none."""
    try:
        with card.open("rb") as file:
            text = file.read(_MOST_CARD).decode("utf-8", "replace")
    except OSError:
        return None
    block = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    said = dict(_LICENCE.findall(block[1])) if block else {}
    words = said.get("license", "").strip()
    if words == "other":
        words = said.get("license_name", words).strip()
    return "".join(letter if letter.isprintable() else "?" for letter in words) or None


def _optional(files: Mapping[str, Path], name: str) -> dict[str, Any]:
    return load_object(files[name], MOST_JSON) if name in files else {}
