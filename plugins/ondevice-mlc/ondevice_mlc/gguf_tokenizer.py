"""A `tokenizer.json` out of the vocabulary of a GGUF file, which tokenises as llama.cpp does.

Byte-level vocabularies are cut into words by patterns that GGUF files name (`tokenizer.ggml.pre`); SentencePiece's are
merged by scores. Source of the patterns: the tokenisers that the models of these names were published with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ondevice_mlc.tokenizer import SPACE
from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported

_GPT2: Final = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_MODERN: Final = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3: Final = (_MODERN.replace("DIGITS", "{1,3}"),)
_QWEN2: Final = (_MODERN.replace("DIGITS", ""),)
_SMOLLM: Final = (r"\p{N}", _GPT2)
# Patterns by name; each cuts what the one before it left.
_PATTERNS: Final[Mapping[str, Sequence[str]]] = {
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3"), _LLAMA3),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2"), _QWEN2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r"), _SMOLLM),
    **dict.fromkeys(("gpt-2", "phi-2", "olmo"), (_GPT2,)),
}
_WHOLE_WORDS: Final = frozenset({"llama3", "llama-v3", "llama-bpe", "falcon3"})  # taken whole without merging
# Types of tokens, as GGUF numbers them.
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
# Control tokens that end an answer whatever the file says of them.
_ENDS: Final = frozenset(
    {
        "<|eot_id|>",
        "<|im_end|>",
        "<|end|>",
        "<end_of_turn>",
        "<|endoftext|>",
        "<|eom_id|>",
        "<|end_of_text|>",
        "< EOT >",
        "_<EOT>",
        "<|fim_pad|>",
        "<fim_pad>",
        "<|repo_name|>",
        "<reponame>",
        "<|file_sep|>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    }
)


def description(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a `tokenizer.json`.

    Args:
        fields: the metadata of the file, by key.

    Raises:
        ModelUnsupported: a kind of vocabulary that is not known. ModelCorrupt: it is not complete.
    """
    kind, words, types = fields.get("tokenizer.ggml.model"), _words(fields), _types(fields)
    added = [
        _added(token, words[token], special=types[token] != _USER_DEFINED)
        for token in range(len(words))
        if types[token] in (_UNKNOWN, _CONTROL, _USER_DEFINED)
    ]
    # SentencePiece needs its unknown word, for what it has no other for.
    left_out = {each["content"] for each in added if kind != "llama" or types[each["id"]] != _UNKNOWN}
    vocabulary = {word: token for token, word in enumerate(words) if word not in left_out}
    if kind == "gpt2":
        parts = _byte_level(fields, vocabulary)
    elif kind == "llama":
        parts = _sentence_piece(fields, vocabulary)
    else:
        raise ModelUnsupported(f"vocabularies of the kind {str(kind)[:20]!r} are not supported")
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **parts}


def settings(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a `tokenizer_config.json`."""
    words = _words(fields)
    model = fields.get("tokenizer.ggml.model")
    adds = fields.get("tokenizer.ggml.add_bos_token")
    if adds is None:  # what llama.cpp does where the file does not say
        adds = model == "llama" or fields.get("tokenizer.ggml.pre") in _WHOLE_WORDS
    named = {}
    for name, key in (("bos_token", "bos_token_id"), ("eos_token", "eos_token_id")):
        token = fields.get(f"tokenizer.ggml.{key}")
        if isinstance(token, int) and 0 <= token < len(words):
            named[name] = words[token]
    template = fields.get("tokenizer.chat_template")
    chat = {"chat_template": template} if isinstance(template, str) and template else {}
    return {**named, "add_bos_token": bool(adds), "clean_up_tokenization_spaces": False, **chat}


def end_tokens(fields: Mapping[str, Any]) -> list[int]:
    """Tokens that end an answer, that of the file's first."""
    words, types = _words(fields), _types(fields)
    keys = ("eos_token_id", "eot_token_id", "eom_token_id")
    named = [fields.get(f"tokenizer.ggml.{key}") for key in keys]
    found = [token for token in named if isinstance(token, int) and 0 <= token < len(words)]
    marked = [token for token, word in enumerate(words) if word in _ENDS and types[token] in (_CONTROL, _USER_DEFINED)]
    return list(dict.fromkeys([*found, *marked]))


def _words(fields: Mapping[str, Any]) -> list[str]:
    words = fields.get("tokenizer.ggml.tokens")
    if not isinstance(words, list) or not words:
        raise ModelUnsupported("the GGUF file has no vocabulary")
    return words


def _types(fields: Mapping[str, Any]) -> Sequence[int]:
    words, types = _words(fields), fields.get("tokenizer.ggml.token_type")
    if types is None:
        return [1] * len(words)
    if not isinstance(types, list) or len(types) != len(words):
        raise ModelCorrupt("the types of the vocabulary are not as many as its words")
    return types


def _added(token: int, content: str, *, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token, "content": content, "special": special, **flags}


def _byte_level(fields: Mapping[str, Any], vocabulary: dict[str, int]) -> dict[str, Any]:
    name = str(fields.get("tokenizer.ggml.pre", "default"))[:40]
    if name not in _PATTERNS:
        raise ModelUnsupported(f"the pre-tokeniser {name!r} is not supported")
    merges = fields.get("tokenizer.ggml.merges")
    if not isinstance(merges, list):
        raise ModelCorrupt("the GGUF file has no merges of its vocabulary")
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in _PATTERNS[name]
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    pairs = [merge.split(" ", 1) for merge in merges]
    known = [pair for pair in pairs if len(pair) == 2 and {*pair, "".join(pair)} <= vocabulary.keys()]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": name in _WHOLE_WORDS,
        "vocab": vocabulary,
        "merges": known,
    }
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, level]},
        "post_processor": None,
        "decoder": level,
        "model": model,
    }


def _sentence_piece(fields: Mapping[str, Any], vocabulary: dict[str, int]) -> dict[str, Any]:
    scores = fields.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(_words(fields)):
        raise ModelCorrupt("the GGUF file has no scores of its vocabulary")
    unknown = next((word for word, kind in zip(_words(fields), _types(fields), strict=True) if kind == _UNKNOWN), None)
    pairs = [
        (-scores[token], token, word[:cut], word[cut:])
        for word, token in vocabulary.items()
        if word != unknown
        for cut in range(1, len(word))
        if word[:cut] in vocabulary and word[cut:] in vocabulary
    ]
    pairs.sort(key=lambda pair: pair[:2])
    prefix = [{"type": "Prepend", "prepend": SPACE}] if fields.get("tokenizer.ggml.add_space_prefix", True) else []
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": True,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": [[left, right] for _, _, left, right in pairs],
    }
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, spaces]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": model,
    }
