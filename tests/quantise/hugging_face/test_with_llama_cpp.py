"""What is made computes what the folder's model computes, and reads text as its tokeniser does: llama.cpp says so."""

from __future__ import annotations

import ctypes
import json
import random
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from ondevice_sdk import Client, models
from ondevice_sdk.catalogue.gguf import read_tensors
from ondevice_sdk.store import Store

from . import pieces, toys
from .test_convert import NAMES, read

pytestmark = pytest.mark.slow

TEXTS = (
    "The quick brown fox doesn't jump; I'LL say WE'RE done, it'S o'clock.",
    "  two spaces\n\n\tfor i in range(10):\n\t\tprint(f'{i:>3}')  # ok\r\n\r\n   \n end   ",
    "1234567890 3.14159 1,000,000 ٣٤٥ ½ Ⅷ x2y3",
    "naïve façade ÉCOLE Straße İstanbul ǅungla e\u0301 o\u0308",
    "日本語のテキスト、漢字とかな。한국어 텍스트 ไทย हिन्दी नमस्ते עברית العربية",
    "🙂👩‍👩‍👧‍👦🇩🇪 ❤️ → ∑ ≠ € \u00a0nbsp\u2003em\u200bzero\ufeffbom",
    "<think> a<think>b </think> <|nothing|> << >> <",
    "a" * 70 + " " * 70 + "\n" * 9 + "==" * 20 + "/**/ // http://a.b/c?d=e&f#g\\h",
    "'s 't 're've 'm'll'd 'S'T'RE 'x ''s",
)


def hard_texts() -> Iterator[str]:
    yield from TEXTS
    chance = random.Random(3)
    old = unicodedata.ucd_3_2_0  # what a letter or a digit is all know alike that is as old as this
    every = [chr(code) for code in range(0xA0, 0x3100) if old.category(chr(code)) == unicodedata.category(chr(code))]
    letters = [letter for letter in every if unicodedata.category(letter)[0] != "C"] + list("\n\r\t 🙂日")
    plain = "aAbBzZ0189 '\n\r\t.,!?/_-"
    for _ in range(150):
        yield "".join(chance.choice(plain if chance.random() < 0.6 else letters) for _ in range(40))


def vocabulary(path: Path) -> Any:
    llama_cpp = pytest.importorskip("llama_cpp")
    return llama_cpp.Llama(str(path), vocab_only=True, verbose=False)


@pytest.mark.parametrize("kind", toys.CONFIGS)
def test_the_logits_are_those_of_the_book(tmp_path: Path, kind: str) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    folder, target = toys.folder(tmp_path / "model", kind), tmp_path / "made.gguf"
    toys.convert(folder, target)
    tokens = [int(each) for each in np.random.default_rng(1).integers(0, 250, 40)]
    model = llama_cpp.Llama(
        str(target), n_ctx=48, n_batch=48, logits_all=True, type_k=0, type_v=0, n_threads=1, verbose=False
    )
    model.eval(tokens)
    found = np.array(model.scores[: len(tokens)])
    model.close()
    said = toys.config(kind)
    expected = toys.logits(said, toys.weights(said), tokens)
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-5  # seen: 1e-6


@pytest.mark.parametrize("name", toys.PRETOKENISERS)
def test_text_is_cut_as_the_tokenizers_library_cuts_it(tmp_path: Path, name: str) -> None:
    """A vocabulary learnt with the very pre-tokeniser, so that where text is cut decides what the tokens are."""
    tokenizers = pytest.importorskip("tokenizers")
    made = toys.tokenizer(name)
    learner = tokenizers.Tokenizer.from_str(json.dumps({**made, "added_tokens": []}))
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=3000, show_progress=False, initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    )
    book = (Path(__file__).parents[3] / "docs/explanation/privacy.md").read_text(encoding="utf-8")
    learner.train_from_iterator([book, *TEXTS * 3], trainer)
    learnt = json.loads(learner.to_str())
    learnt["model"]["ignore_merges"] = made["model"]["ignore_merges"]
    size = len(learnt["model"]["vocab"])
    learnt["added_tokens"] = [{**each, "id": size + place} for place, each in enumerate(made["added_tokens"])]
    reference = tokenizers.Tokenizer.from_str(json.dumps(learnt))
    folder = toys.folder(tmp_path / "model", vocab_size=size + 3)
    toys.dump(folder / "tokenizer.json", learnt)
    toys.convert(folder, tmp_path / "made.gguf")
    model = vocabulary(tmp_path / "made.gguf")
    texts: list[str] = [*hard_texts()]
    if name == "qwen2":  # llama.cpp composes no characters
        texts = [unicodedata.normalize("NFC", text) for text in texts]
    if name == "tekken":  # llama.cpp knows capitals and small letters of ASCII only, and no marks
        cased = ("Lu", "Lt", "Ll", "Mn", "Mc", "Me")
        texts = ["".join(c for c in text if c.isascii() or unicodedata.category(c) not in cased) for text in texts]
    wrong = [
        text
        for text in texts
        if model.tokenize(text.encode(), add_bos=False, special=False)
        != reference.encode(text, add_special_tokens=False).ids
    ]
    assert wrong == []


def test_pieces_are_merged_as_the_tokenizers_library_merges_them(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    learner.pre_tokenizer = tokenizers.pre_tokenizers.Split("▁", "merged_with_next")
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=2500, show_progress=False)
    book = (Path(__file__).parents[3] / "docs/explanation/privacy.md").read_text(encoding="utf-8")
    learner.train_from_iterator([*book.splitlines(), *TEXTS[:4]], trainer)
    learnt = json.loads(learner.to_str())["model"]
    single = [text for text in learnt["vocab"] if len(text) == 1]
    merged = ["".join(pair) for pair in learnt["merges"]]
    words = pieces.vocabulary([word for word in dict.fromkeys([*merged, *single]) if not set(word) & set("\n\r")])
    reference = tokenizers.Tokenizer.from_str(json.dumps(pieces.tokenizer(words)))
    toys.convert(pieces.folder(tmp_path / "model", words), tmp_path / "made.gguf")
    model = vocabulary(tmp_path / "made.gguf")
    wrong = [
        text
        for text in hard_texts()
        if model.tokenize(text.encode(), add_bos=True, special=False) != reference.encode(text).ids
    ]
    assert wrong == []


# --- the real model, turned back into a folder ----------------------------------------------------------------------


def _unplaced(values: NDArray[Any], head: int) -> NDArray[Any]:
    """Rows of queries and keys out of GGUF's order: first the even ones of a head, then the odd ones."""
    rows = np.arange(len(values)).reshape(-1, head)
    made: NDArray[Any] = values[np.concatenate([rows[:, 0::2], rows[:, 1::2]], 1).ravel()]
    return made


def back_into_a_folder(source: Path, folder: Path) -> None:
    """The folder that a GGUF file of the Llama architecture could have come from, with its matrices in F16."""
    folder.mkdir()
    reader = gguf.GGUFReader(source)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    said = {key.removeprefix("llama."): value for key, value in fields.items() if key.startswith("llama.")}
    toys.dump(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": said["embedding_length"],
            "intermediate_size": said["feed_forward_length"],
            "num_hidden_layers": said["block_count"],
            "num_attention_heads": said["attention.head_count"],
            "num_key_value_heads": said["attention.head_count_kv"],
            "max_position_embeddings": said["context_length"],
            "vocab_size": len(fields["tokenizer.ggml.tokens"]),
            "rms_norm_eps": said["attention.layer_norm_rms_epsilon"],
            "rope_theta": said["rope.freq_base"],
            "tie_word_embeddings": True,
        },
    )
    old = {new: name for name, new in NAMES.items()}
    head = said["embedding_length"] // said["attention.head_count"]
    parts: dict[str, dict[str, NDArray[Any]]] = {f"model-0000{number}-of-00002.safetensors": {} for number in (1, 2)}
    for place, tensor in enumerate(reader.tensors):
        *layer, inner, end = tensor.name.split(".")
        name = f"model.layers.{layer[1]}.{old[inner]}.{end}" if layer else f"{old[inner]}.{end}"
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        values = values.astype(np.float16 if values.ndim > 1 else np.float32)
        values = _unplaced(values, head) if inner in ("attn_q", "attn_k") else values
        parts[f"model-0000{1 + place % 2}-of-00002.safetensors"][name] = values
    for name, tensors in parts.items():
        toys.write_safetensors(folder / name, tensors, None)
    placed = {tensor: name for name, tensors in parts.items() for tensor in tensors}
    toys.dump(folder / "model.safetensors.index.json", {"weight_map": placed})
    _tokenizer(fields, folder)


def _tokenizer(fields: dict[str, Any], folder: Path) -> None:
    words, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    _, cut, whole = toys.PRETOKENISERS[fields["tokenizer.ggml.pre"]]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": number, "content": word, "special": kind == 3, **flags}
        for number, (word, kind) in enumerate(zip(words, kinds, strict=True))
        if kind in (3, 4)
    ]
    vocabulary = {word: number for number, word in enumerate(words) if kinds[number] in (1, 3, 4)}
    merges = fields["tokenizer.ggml.merges"]
    model = {"type": "BPE", "ignore_merges": whole, "vocab": vocabulary, "merges": merges}
    parts = {"added_tokens": added, "normalizer": None, "pre_tokenizer": cut, "decoder": toys.BYTE_LEVEL}
    toys.dump(folder / "tokenizer.json", {**parts, "model": model})
    named = {f"{key}_token": words[fields[f"tokenizer.ggml.{key}_token_id"]] for key in ("bos", "eos")}
    toys.dump(folder / "tokenizer_config.json", named)
    (folder / "chat_template.jinja").write_text(fields["tokenizer.chat_template"])
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")


def test_the_real_model_there_and_back(tmp_path: Path, model_path: Path, store: Store) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    back_into_a_folder(model_path, tmp_path / "SmolLM2")
    heard: list[float] = []
    made = models.add(tmp_path / "SmolLM2", store=store, on_progress=lambda event: heard.append(event.done))
    assert (made.name, made.variant, made.format, made.licence) == ("smollm2", "f16", "gguf", "apache-2.0")
    assert heard == sorted(heard)
    assert heard[-1] == 100
    ours = Path(store.resolve("smollm2:f16").path)

    theirs = tmp_path / "f16.gguf"  # what llama.cpp makes of the file that the folder came from
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize, params.nthread = llama_cpp.LLAMA_FTYPE_MOSTLY_F16, True, 1
    assert llama_cpp.llama_model_quantize(str(model_path).encode(), str(theirs).encode(), ctypes.byref(params)) == 0
    expected, found = read(theirs), read(ours)
    assert expected.keys() == found.keys()
    for tensor in read_tensors(theirs):
        assert found[tensor.name] == expected[tensor.name], tensor.name

    one, other = vocabulary(model_path), vocabulary(ours)
    for text in hard_texts():
        tokens = one.tokenize(text.encode(), add_bos=False, special=True)
        assert other.tokenize(text.encode(), add_bos=False, special=True) == tokens
        assert one.detokenize(tokens) == other.detokenize(tokens)

    answers = []
    for path in (theirs, ours):
        with Client(str(path), context=512) as ai:
            answers.append(ai.generate("Name three rivers.", temperature=0, deterministic=True, max_tokens=40).text)
    assert answers[0] == answers[1]
    assert answers[0]
