"""A sentence embedder in the folder layout of Sentence Transformers, made into one GGUF file (architecture `bert`).

Read are `config.json`, `vocab.txt`, `model.safetensors` and small files beside them, as data only: the layout may also
hold pickle, which is never looked at. Weights of matrices become F16, all others F32. The bytes that come out depend on
nothing but the bytes that go in, so that a catalogue can vouch for them by a digest.
"""

from __future__ import annotations

import array
import json
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported
from ondevice_sdk.store import gguf_writer
from ondevice_sdk.store.files import require_room, slug, store_errors
from ondevice_sdk.store.gguf_writer import F16, F32, Tensor, Value

T = TypeVar("T")

# What is needed of a folder, and what is looked at where it is there.
NEEDED: Final = ("config.json", "vocab.txt", "model.safetensors")
OPTIONAL: Final = ("1_Pooling/config.json", "modules.json", "sentence_bert_config.json", "tokenizer_config.json")
_MAX_JSON: Final = 1 << 20  # bytes
_MAX_VOCABULARY: Final = 1 << 24  # bytes
_PIECE: Final = 1 << 18  # values converted at a time
_NORMAL, _UNKNOWN, _CONTROL = 1, 2, 3  # ggml's kinds of tokens
_SPECIAL: Final = {  # the words of BERT vocabularies, by the metadata that names them; "seperator" is the format's own
    "tokenizer.ggml.unknown_token_id": "[UNK]",
    "tokenizer.ggml.seperator_token_id": "[SEP]",
    "tokenizer.ggml.eos_token_id": "[SEP]",
    "tokenizer.ggml.padding_token_id": "[PAD]",
    "tokenizer.ggml.cls_token_id": "[CLS]",
    "tokenizer.ggml.bos_token_id": "[CLS]",
    "tokenizer.ggml.mask_token_id": "[MASK]",
}
_POOLING: Final = {"pooling_mode_mean_tokens": 1, "pooling_mode_cls_token": 2}  # llama.cpp's numbers
_LAYER: Final = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


@dataclass(frozen=True, slots=True)
class _Shape:
    layers: int
    width: int
    heads: int
    feed_forward: int
    vocabulary: int
    types: int
    positions: int  # rows of the table
    context: int  # of them used
    epsilon: float


def file_name(name: str) -> str:
    """What the file is called that is made of a model of this name."""
    return f"{slug(name)}-F16.gguf"


def convert(folder: Path, target: Path, name: str, on_bytes: Callable[[int, int], None]) -> None:
    """Write the GGUF file.

    Args:
        folder: of the model.
        target: a new file.
        name: of the model, for the metadata.
        on_bytes: hears bytes written, of how many.

    Raises:
        ModelUnsupported: not an uncased BERT with mean or first-token pooling. ModelCorrupt: a file is missing or
            damaged. StoreError: it cannot be read or written.
    """
    with store_errors("convert a model", target.parent):
        if missing := [each for each in NEEDED if not (folder / each).is_file()]:
            raise ModelCorrupt(f"the folder has no {missing[0]}", expected=missing[0])
        shape = _shape(folder)
        weights = _Safetensors(folder / "model.safetensors")
        words = _vocabulary(folder / "vocab.txt", shape)
        tensors = list(_tensors(weights, shape))
        require_room(target.parent, sum(tensor.length for tensor in tensors))
        gguf_writer.write(target, _metadata(name, shape, _pooling(folder), words), tensors, on_bytes)


def _json(path: Path, kind: type[T]) -> T | None:
    """What a small JSON file says; None where there is no file, or nothing in it."""
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_bytes()) if path.stat().st_size <= _MAX_JSON else None
        if not isinstance(value, kind):
            raise ValueError
    except (ValueError, RecursionError) as error:
        raise ModelCorrupt(f"{path.name} is damaged", expected="JSON") from error
    return value or None


def _shape(folder: Path) -> _Shape:
    config: dict[str, Any] = _json(folder / "config.json", dict) or {}
    if config.get("model_type") != "bert":
        named = str(config.get("model_type"))[:80]
        raise ModelUnsupported("only models of the type bert can be converted", architecture=named)
    if config.get("position_embedding_type", "absolute") != "absolute" or config.get("hidden_act") != "gelu":
        raise ModelUnsupported("a variety of BERT that cannot be converted", architecture="bert")
    tokenizer: dict[str, Any] = _json(folder / "tokenizer_config.json", dict) or {}
    if tokenizer.get("do_lower_case", True) is not True or tokenizer.get("strip_accents") is False:
        raise ModelUnsupported("llama.cpp reads uncased BERT vocabularies only", architecture="bert")

    def number(key: str, most: int) -> int:
        value = config.get(key)
        if type(value) is not int or not 0 < value <= most:
            raise ModelCorrupt(f"config.json: {key} is impossible")
        return int(value)

    positions = number("max_position_embeddings", 1 << 20)
    # The length that the makers of a sentence embedder give it is often less than what its table has room for.
    told = (_json(folder / "sentence_bert_config.json", dict) or {}).get("max_seq_length")
    epsilon = config.get("layer_norm_eps", 1e-12)
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise ModelCorrupt("config.json: layer_norm_eps is impossible")
    return _Shape(
        layers=number("num_hidden_layers", 512),
        width=number("hidden_size", 1 << 16),
        heads=number("num_attention_heads", 1 << 10),
        feed_forward=number("intermediate_size", 1 << 18),
        vocabulary=number("vocab_size", 1 << 20),
        types=number("type_vocab_size", 16),
        positions=positions,
        context=min(positions, told) if type(told) is int and told >= 32 else positions,
        epsilon=epsilon,
    )


def _pooling(folder: Path) -> int:
    """How the vectors of tokens become one; the mean where nothing is said."""
    said: dict[str, Any] = _json(folder / "1_Pooling" / "config.json", dict) or {"pooling_mode_mean_tokens": True}
    modes = [key for key, value in said.items() if key.startswith("pooling_mode_") and value is True]
    extra = [each.get("type", "") for each in _json(folder / "modules.json", list) or [] if isinstance(each, dict)]
    if len(modes) != 1 or modes[0] not in _POOLING or any(str(kind).endswith("Dense") for kind in extra):
        raise ModelUnsupported("its vectors are not the mean or the first of its tokens'", architecture="bert")
    return _POOLING[modes[0]]


def _vocabulary(path: Path, shape: _Shape) -> list[str]:
    if path.stat().st_size > _MAX_VOCABULARY:
        raise ModelCorrupt("vocab.txt is impossibly large")
    try:
        words = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ModelCorrupt("vocab.txt is not UTF-8") from error
    words = [word.removesuffix("\r") for word in words]
    if len(words) != shape.vocabulary or not set(_SPECIAL.values()) <= set(words):
        raise ModelCorrupt("vocab.txt does not belong to this model")
    return words


def _metadata(name: str, shape: _Shape, pooling: int, words: list[str]) -> dict[str, Value]:
    special = set(_SPECIAL.values())
    kinds = [_UNKNOWN if word == "[UNK]" else _CONTROL if word in special else _NORMAL for word in words]
    return {
        "general.architecture": "bert",
        "general.name": name.encode("utf-8", "replace").decode(),
        "general.file_type": 1,  # mostly F16
        "bert.block_count": shape.layers,
        "bert.context_length": shape.context,
        "bert.embedding_length": shape.width,
        "bert.feed_forward_length": shape.feed_forward,
        "bert.attention.head_count": shape.heads,
        "bert.attention.layer_norm_epsilon": shape.epsilon,
        "bert.attention.causal": False,
        "bert.pooling_type": pooling,
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.token_type_count": shape.types,
        "tokenizer.ggml.tokens": [_written(word, special) for word in words],
        "tokenizer.ggml.token_type": kinds,
        **{key: words.index(word) for key, word in _SPECIAL.items()},
    }


def _written(word: str, special: set[str]) -> str:
    """A word as llama.cpp wants it: the begin of a word is marked, where WordPiece marks what goes on."""
    if word in special:
        return word
    return word[2:] if word.startswith("##") else f"▁{word}"


def _tensors(weights: _Safetensors, shape: _Shape) -> Iterator[Tensor]:
    width, wide = shape.width, shape.feed_forward

    def matrix(name: str, source: str, rows: int, columns: int, kind: int, used: int | None = None) -> Tensor:
        return weights.tensor(name, kind, source, (rows, columns), used or rows)

    def pair(name: str, source: str, length: int) -> Iterator[Tensor]:
        for part in ("weight", "bias"):
            yield weights.tensor(f"{name}.{part}", F32, f"{source}.{part}", (length,), length)

    yield matrix("token_embd.weight", "embeddings.word_embeddings.weight", shape.vocabulary, width, F16)
    yield matrix("token_types.weight", "embeddings.token_type_embeddings.weight", shape.types, width, F32)
    position = "embeddings.position_embeddings.weight"
    yield matrix("position_embd.weight", position, shape.positions, width, F32, shape.context)
    yield from pair("token_embd_norm", "embeddings.LayerNorm", width)
    for layer in range(shape.layers):
        for source, name in _LAYER.items():
            origin, place = f"encoder.layer.{layer}.{source}", f"blk.{layer}.{name}"
            if name.endswith("norm"):
                yield from pair(place, origin, width)
                continue
            rows, columns = (wide if name == "ffn_up" else width), (wide if name == "ffn_down" else width)
            yield matrix(f"{place}.weight", f"{origin}.weight", rows, columns, F16)
            yield weights.tensor(f"{place}.bias", F32, f"{origin}.bias", (rows,), rows)


class _Safetensors:
    """A file of weights: 8 bytes of length, a JSON table of contents, then the numbers (little-endian)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        size = path.stat().st_size
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if not 2 <= length <= min(size - 8, 16 * _MAX_JSON):
                    raise ValueError
                contents = json.loads(file.read(length))
            if not isinstance(contents, dict):
                raise ValueError
        except (ValueError, RecursionError) as error:
            raise ModelCorrupt("model.safetensors is damaged or cut", expected="safetensors") from error
        self._contents: Mapping[str, Any] = contents
        self._start, self._end = 8 + length, size

    def tensor(self, name: str, kind: int, source: str, shape: tuple[int, ...], rows: int) -> Tensor:
        """The first `rows` rows of a tensor of this shape; names may have `bert.` before them."""
        found: Any = self._contents.get(source) or self._contents.get(f"bert.{source}")
        try:
            form, (begin, end) = found["dtype"], found["data_offsets"]
            decode, bytes_each = _DECODERS[form]
            values = bytes_each
            for each in shape:
                values *= each
            start = self._start + begin
            if type(begin) is not int or begin < 0 or end - begin != values or start + values > self._end:
                raise ValueError
            if tuple(found["shape"]) != shape:
                raise ValueError
        except (KeyError, TypeError, ValueError) as error:
            raise ModelCorrupt(f"model.safetensors: {source} is missing, or not as config.json says") from error
        columns = shape[-1] if len(shape) > 1 else 1
        count = rows * columns
        sizes = (columns, rows) if len(shape) > 1 else (rows,)
        return Tensor(name, kind, sizes, lambda: self._read(start, count, bytes_each, decode, kind))

    def _read(
        self, start: int, count: int, bytes_each: int, decode: Callable[[bytes], Iterable[float]], kind: int
    ) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            file.seek(start)
            while count:
                piece = min(count, _PIECE)
                try:
                    values = decode(file.read(piece * bytes_each))
                    data = struct.pack(f"<{piece}{'e' if kind == F16 else 'f'}", *values)
                except (struct.error, ValueError, OverflowError) as error:
                    raise ModelCorrupt("model.safetensors holds numbers that cannot be") from error
                yield data
                count -= piece


def _from_f32(data: bytes) -> Iterable[float]:
    values = array.array("f", data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _from_f16(data: bytes) -> Iterable[float]:
    return struct.unpack(f"<{len(data) // 2}e", data)


def _from_bf16(data: bytes) -> Iterable[float]:
    """The upper halves of 32-bit numbers."""
    whole = bytearray(2 * len(data))
    whole[2::4], whole[3::4] = data[0::2], data[1::2]
    return _from_f32(bytes(whole))


_DECODERS: Final[Mapping[str, tuple[Callable[[bytes], Iterable[float]], int]]] = {
    "F32": (_from_f32, 4),
    "F16": (_from_f16, 2),
    "BF16": (_from_bf16, 2),
}
