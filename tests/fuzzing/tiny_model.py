"""A whole GGUF model of random weights in some 40 KB, in parts that a test can damage one by one."""

from __future__ import annotations

import copy
import random
import struct
from dataclasses import dataclass, field

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 5, 6, 7, 8, 9, 10
F32, F16, Q4_0, Q8_0 = 0, 1, 2, 8
_BLOCKS = {F32: (1, 4), F16: (1, 2), Q4_0: (32, 18), Q8_0: (32, 34)}
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_WIDTH, _HEADS, _KV_HEADS, _FEED_FORWARD, _LAYERS = 32, 2, 1, 64, 2


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def number(value: int) -> bytes:
    return struct.pack("<I", value)


def array(item: int, count: int, data: bytes) -> bytes:
    return struct.pack("<IQ", item, count) + data


def texts(values: list[str]) -> bytes:
    return array(STRING, len(values), b"".join(map(text, values)))


@dataclass
class Pair:
    key: str
    kind: int
    value: bytes

    def encode(self) -> bytes:
        return text(self.key) + number(self.kind) + self.value


@dataclass
class Tensor:
    name: str
    sizes: list[int]
    kind: int
    data: bytes = field(repr=False)
    offset: int = 0

    def encode(self) -> bytes:
        sizes = b"".join(struct.pack("<Q", size % (1 << 64)) for size in self.sizes)
        place = struct.pack("<IQ", self.kind % (1 << 32), self.offset % (1 << 64))
        return text(self.name) + number(len(self.sizes)) + sizes + place


@dataclass
class Gguf:
    pairs: list[Pair]
    tensors: list[Tensor]
    version: int = 3
    alignment: int = 32
    counts: tuple[int, int] | None = None  # of tensors and pairs, where the header is to lie

    def copy(self) -> Gguf:
        return copy.deepcopy(self)

    def pair(self, key: str) -> Pair:
        return next(pair for pair in self.pairs if pair.key == key)

    def lay_out(self) -> None:
        """Give every tensor its place."""
        at = 0
        for tensor in self.tensors:
            tensor.offset = at
            at += len(tensor.data) + -len(tensor.data) % self.alignment

    def head(self) -> bytes:
        counts = self.counts or (len(self.tensors), len(self.pairs))
        head = b"GGUF" + struct.pack("<IQQ", self.version, *counts)
        pairs, tensors = (b"".join(part.encode() for part in parts) for parts in (self.pairs, self.tensors))
        return head + pairs + tensors

    def encode(self) -> bytes:
        head = self.head()
        body = b"".join(tensor.data + bytes(-len(tensor.data) % self.alignment) for tensor in self.tensors)
        return head + bytes(-len(head) % self.alignment) + body


def tiny(seed: int = 0, *, template: str = CHATML, weights: int = Q8_0) -> Gguf:
    """A llama model with a byte-level vocabulary that loads and generates."""
    source = random.Random(seed)
    tokens, merges = _vocabulary()
    kinds = [1] * (len(tokens) - 3) + [3, 3, 3]
    end = len(tokens) - 1
    pairs = [
        Pair("general.architecture", STRING, text("llama")),
        Pair("general.name", STRING, text("tiny")),
        Pair("general.alignment", UINT32, number(32)),
        Pair("general.file_type", UINT32, number(7)),
        Pair("llama.block_count", UINT32, number(_LAYERS)),
        Pair("llama.context_length", UINT32, number(128)),
        Pair("llama.embedding_length", UINT32, number(_WIDTH)),
        Pair("llama.feed_forward_length", UINT32, number(_FEED_FORWARD)),
        Pair("llama.attention.head_count", UINT32, number(_HEADS)),
        Pair("llama.attention.head_count_kv", UINT32, number(_KV_HEADS)),
        Pair("llama.attention.layer_norm_rms_epsilon", FLOAT32, struct.pack("<f", 1e-5)),
        Pair("llama.rope.dimension_count", UINT32, number(_WIDTH // _HEADS)),
        Pair("llama.rope.freq_base", FLOAT32, struct.pack("<f", 10000.0)),
        Pair("llama.vocab_size", UINT32, number(len(tokens))),
        Pair("tokenizer.ggml.model", STRING, text("gpt2")),
        Pair("tokenizer.ggml.pre", STRING, text("default")),
        Pair("tokenizer.ggml.tokens", ARRAY, texts(tokens)),
        Pair("tokenizer.ggml.token_type", ARRAY, array(INT32, len(kinds), struct.pack(f"<{len(kinds)}i", *kinds))),
        Pair("tokenizer.ggml.merges", ARRAY, texts(merges)),
        Pair("tokenizer.ggml.bos_token_id", UINT32, number(end - 2)),
        Pair("tokenizer.ggml.eos_token_id", UINT32, number(end)),
        Pair("tokenizer.ggml.add_bos_token", BOOL, b"\0"),
        Pair("tokenizer.chat_template", STRING, text(template)),
    ]
    kv_width = _WIDTH // _HEADS * _KV_HEADS
    shapes: list[tuple[str, list[int]]] = [("token_embd.weight", [_WIDTH, len(tokens)])]
    for layer in range(_LAYERS):
        shapes += [
            (f"blk.{layer}.attn_norm.weight", [_WIDTH]),
            (f"blk.{layer}.attn_q.weight", [_WIDTH, _WIDTH]),
            (f"blk.{layer}.attn_k.weight", [_WIDTH, kv_width]),
            (f"blk.{layer}.attn_v.weight", [_WIDTH, kv_width]),
            (f"blk.{layer}.attn_output.weight", [_WIDTH, _WIDTH]),
            (f"blk.{layer}.ffn_norm.weight", [_WIDTH]),
            (f"blk.{layer}.ffn_gate.weight", [_WIDTH, _FEED_FORWARD]),
            (f"blk.{layer}.ffn_up.weight", [_WIDTH, _FEED_FORWARD]),
            (f"blk.{layer}.ffn_down.weight", [_FEED_FORWARD, _WIDTH]),
        ]
    shapes.append(("output_norm.weight", [_WIDTH]))
    tensors = []
    for name, sizes in shapes:
        kind = F32 if len(sizes) == 1 else weights
        count = sizes[0] * (sizes[1] if len(sizes) > 1 else 1)
        tensors.append(Tensor(name, sizes, kind, _weights(source, kind, count)))
    model = Gguf(pairs, tensors)
    model.lay_out()
    return model


def _weights(source: random.Random, kind: int, count: int) -> bytes:
    block_values, block_bytes = _BLOCKS[kind]
    if kind in (F32, F16):
        return struct.pack(f"<{count}{'f' if kind == F32 else 'e'}", *(source.gauss(0.5, 0.3) for _ in range(count)))
    scale = struct.pack("<e", 0.01 if kind == Q8_0 else 0.1)
    return b"".join(scale + source.randbytes(block_bytes - 2) for _ in range(count // block_values))


def _vocabulary() -> tuple[list[str], list[str]]:
    """Tokens and merges: all bytes as byte-level vocabularies write them, a few words, three control tokens last."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    tokens = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
    merges = ["t h", "th e", "i n", "a n", "an d", "h e", "l l", "he ll", "hell o"]
    tokens += [merge.replace(" ", "") for merge in merges]
    tokens += ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return tokens, merges
