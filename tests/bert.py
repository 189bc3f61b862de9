"""BERT sentence embedders for tests: a tiny one with random weights, a forward pass in numpy, and WordPiece in Python.

Written from the papers (Devlin et al. 2018; Reimers and Gurevych 2019), independently of what is tested with it.
"""

from __future__ import annotations

import json
import math
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondevice_sdk.store.from_sentence_bert import convert

Weights = dict[str, NDArray[np.float32]]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    *"abcdefghijklmnopqrstuvwxyz0123456789.,!?",
    *("the", "cat", "sat", "on", "mat", "dog", "ran", "un", "home", "bank", "money"),
    *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    *("##s", "##ing")[1:],
)
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 32,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 80,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": len(SPECIAL) + len(WORDS),
}


def write_folder(
    folder: Path, *, seed: int = 0, kind: str = "F32", pooling: str = "mean_tokens", **change: Any
) -> Path:
    """A model with random weights in a folder as Sentence Transformers has it."""
    folder.mkdir(parents=True)
    config = CONFIG | change
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join((*SPECIAL, *WORDS)) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    draw = np.random.default_rng(seed)
    write_safetensors(
        folder / "model.safetensors",
        {name: draw.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes(config).items()},
        kind,
    )
    return folder


def make_embedder(folder: Path, **change: Any) -> Path:
    """The same as a model file."""
    target = folder.with_suffix(".gguf")
    convert(write_folder(folder, **change), target, "tiny", lambda done, total: None)
    return target


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, wide = config["hidden_size"], config["intermediate_size"]
    found: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
        "pooler.dense.weight": (width, width),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(config["num_hidden_layers"]):
        before = f"encoder.layer.{layer}"
        norms += [f"{before}.attention.output.LayerNorm", f"{before}.output.LayerNorm"]
        for name, rows, columns in (
            *((f"attention.self.{each}", width, width) for each in ("query", "key", "value")),
            ("attention.output.dense", width, width),
            ("intermediate.dense", wide, width),
            ("output.dense", width, wide),
        ):
            found[f"{before}.{name}.weight"], found[f"{before}.{name}.bias"] = (rows, columns), (rows,)
    return found | {f"{norm}.{part}": (width,) for norm in norms for part in ("weight", "bias")}


def write_safetensors(path: Path, weights: Weights, kind: str = "F32") -> None:
    contents: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, values in weights.items():
        if kind == "BF16":
            encoded = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
        else:
            encoded = values.astype("<f2" if kind == "F16" else "<f4").tobytes()
        contents[name] = {"dtype": kind, "shape": values.shape, "data_offsets": [len(data), len(data) + len(encoded)]}
        data += encoded
    head = json.dumps(contents).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


def read_safetensors(path: Path) -> Weights:
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    contents = json.loads(data[8:start])
    return {
        name: np.frombuffer(data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]], "<f4").reshape(
            entry["shape"]
        )
        for name, entry in contents.items()
        if name != "__metadata__" and entry["dtype"] == "F32"
    }


def forward(weights: Weights, ids: list[int], *, heads: int, pooling: str = "mean_tokens") -> NDArray[np.float64]:
    """The vector of a text, of length 1."""
    length, layers = len(ids), sum(name.endswith("query.weight") for name in weights)

    def linear(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return values @ weights[f"{name}.weight"].T.astype(np.float64) + weights[f"{name}.bias"]

    def norm(values: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        centred = values - values.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        result: NDArray[np.float64] = scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
        return result

    table = "embeddings.{}_embeddings.weight"
    values = weights[table.format("word")][ids].astype(np.float64)
    values += weights[table.format("position")][:length] + weights[table.format("token_type")][0]
    values = norm(values, "embeddings.LayerNorm")
    erf = np.vectorize(math.erf)
    for layer in range(layers):
        before = f"encoder.layer.{layer}"
        query, key, value = (
            linear(values, f"{before}.attention.self.{name}").reshape(length, heads, -1).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        mixed = (shares @ value).transpose(1, 0, 2).reshape(length, -1)
        values = norm(
            values + linear(mixed, f"{before}.attention.output.dense"), f"{before}.attention.output.LayerNorm"
        )
        inner = linear(values, f"{before}.intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        values = norm(values + linear(inner, f"{before}.output.dense"), f"{before}.output.LayerNorm")
    pooled = values.mean(0) if pooling == "mean_tokens" else values[0]
    result: NDArray[np.float64] = pooled / np.linalg.norm(pooled)
    return result


def word_pieces(text: str, vocabulary: dict[str, int]) -> list[int]:
    """Token ids of a text with what stands around it: lower case, no accents, the longest piece first."""
    plain = unicodedata.normalize("NFD", text.lower())
    plain = "".join(each for each in plain if unicodedata.category(each) != "Mn")
    spaced = "".join(each if each.isalnum() or each.isspace() else f" {each} " for each in plain)
    ids = [vocabulary["[CLS]"]]
    for word in spaced.split():
        at, pieces = 0, []
        while at < len(word):
            head = "##" if at else ""
            end = next((end for end in range(len(word), at, -1) if head + word[at:end] in vocabulary), 0)
            if not end:
                pieces = [vocabulary["[UNK]"]]
                break
            pieces.append(vocabulary[head + word[at:end]])
            at = end
        ids += pieces
    return [*ids, vocabulary["[SEP]"]]


def read_vocabulary(folder: Path) -> dict[str, int]:
    words = (folder / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return {word: number for number, word in enumerate(words)}
