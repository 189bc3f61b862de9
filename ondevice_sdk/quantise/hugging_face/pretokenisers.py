"""How a `tokenizer.json` cuts text into words before it merges bytes, and the name that llama.cpp has for that way.

A name is found by comparing the whole definition, never by that of the model: two that look alike may cut numbers or
spaces in other ways, and the model would read text that it was not made for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ondevice_sdk.errors import ModelUnsupported

_WORDS: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3: Final = _WORDS.replace("DIGITS", "{1,3}")
_QWEN2: Final = _WORDS.replace("DIGITS", "")
_TEKKEN: Final = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_Step = tuple[object, ...]
_Definition = tuple[tuple[object, ...], tuple[_Step, ...], bool]  # normalisers, steps, whole words before merges


def _split(pattern: str) -> tuple[_Step, ...]:
    return (("Split", pattern, "Isolated", False), ("ByteLevel", False))


# Tried with every one: the tokenizers library and llama.cpp give the same tokens, but for capitals beyond ASCII, which
# llama.cpp does not tell from small letters in "tekken" (tests/quantise/hugging_face).
_NAMES: Final[Mapping[_Definition, str]] = {
    ((), (("ByteLevel", True),), False): "gpt-2",
    ((), (("Digits", True), ("ByteLevel", True)), False): "smollm",
    ((), _split(_LLAMA3), True): "llama-bpe",
    ((), _split(_LLAMA3), False): "smaug-bpe",
    ((), _split(_QWEN2), False): "qwen2",
    # llama.cpp composes no characters: text that is not in the form NFC is read as it is.
    (("NFC",), _split(_QWEN2), False): "qwen2",
    ((), _split(_TEKKEN), True): "tekken",
}


def name_of(tokenizer: Mapping[str, Any]) -> str:
    """llama.cpp's name of the way in which a byte-level tokeniser cuts text.

    Raises:
        ModelUnsupported: it has none that is known here.
    """
    try:
        whole_words = tokenizer["model"].get("ignore_merges", False)
        definition = (
            tuple(each["type"] for each in flat(tokenizer.get("normalizer"), "normalizers")),
            tuple(_step(each) for each in flat(tokenizer.get("pre_tokenizer"), "pretokenizers")),
            whole_words is True,
        )
        name = _NAMES.get(definition)
    except (AttributeError, KeyError, TypeError, RecursionError):
        name = None
    if name is None:
        raise ModelUnsupported(
            "the model cannot be converted: its tokeniser cuts text in a way that is not known here",
            hint=f"known are those of {', '.join(sorted(set(_NAMES.values())))}; a GGUF file may be found ready-made",
        )
    return name


def flat(part: Any, inner: str) -> list[Mapping[str, Any]]:
    """The parts of a sequence, in order; of nothing, none."""
    if part is None:
        return []
    return [each for one in part[inner] for each in flat(one, inner)] if part["type"] == "Sequence" else [part]


def _step(part: Mapping[str, Any]) -> _Step:
    match part["type"]:
        case "ByteLevel" if part.get("add_prefix_space") is False:
            return "ByteLevel", part.get("use_regex", True)
        case "Digits":
            return "Digits", part.get("individual_digits", False)
        case "Split":
            return "Split", part["pattern"]["Regex"], part["behavior"], part["invert"]
    return ("unknown",)
