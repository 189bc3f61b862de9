"""Ways to make a model file hostile. Each takes a model and a source of chance, and gives the bytes of a file."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

from . import tiny_model
from .tiny_model import ARRAY, BOOL, FLOAT32, INT32, STRING, UINT32, UINT64, Gguf, Pair, Tensor, array, text, texts

Mutation = Callable[[Gguf, random.Random], bytes]

ODD = (
    *(0, 1, 2, 3, 7, 31, 33, 64, 127, 128, 255, 256, 1 << 15, (1 << 16) - 1, 1 << 16, 1 << 20, (1 << 31) - 1, 1 << 31),
    *((1 << 32) - 1, 1 << 32, 1 << 40, 1 << 61, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 32, (1 << 64) - 1),
)
_KINDS = (*range(13), 14, 99, 1 << 31, (1 << 32) - 1)
_TENSOR_KINDS = (*range(45), 99, 1 << 31, (1 << 32) - 1)
_TEMPLATES = (
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}{{ messages[0].content }}",
    "{{ 'x' * 1000000000 }}{{ messages[0].content }}",
    "{{ '%1000000000d' % 1 }}{{ messages[0].content }}",
    "{{ '%1000000000d' | format(1) }}{{ messages[0].content }}",
    "{{ 'x' | center(1000000000) }}{{ messages[0].content }}",
    "{{ 9 ** 9 ** 9 }}{{ messages[0].content }}",
    "{{ messages.__class__.__mro__[1].__subclasses__() }}{{ messages[0].content }}",
    "{{ cycler.__init__.__globals__.os.popen('true') }}{{ messages[0].content }}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}{{ messages[0].content }}",
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}{{ messages[0].content }}",
    "{{ " + "-" * 20000 + "1 }}{{ messages[0].content }}",
    "{% if a %}" * 2000,
    "{% include '/etc/passwd' %}{{ messages[0].content }}",
    "{{ messages[0].content",
    "\0" * 100,
    "",
    "x" * 100_000,
)


def flip_bits(model: Gguf, chance: random.Random) -> bytes:
    data = bytearray(model.encode())
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def flip_bits_of_the_head(model: Gguf, chance: random.Random) -> bytes:
    data = bytearray(model.encode())
    end = len(model.head())
    for _ in range(chance.choice((1, 1, 2, 8))):
        data[chance.randrange(4, end)] ^= 1 << chance.randrange(8)
    return bytes(data)


def flip_bits_of_the_short_pairs(model: Gguf, chance: random.Random) -> bytes:
    pair = chance.choice([pair for pair in model.pairs if len(pair.value) <= 8])
    value = bytearray(pair.value)
    value[chance.randrange(len(value))] ^= 1 << chance.randrange(8)
    pair.value = bytes(value)
    return model.encode()


def bytes_of_the_tensor_list(model: Gguf, chance: random.Random) -> bytes:
    data = bytearray(model.encode())
    start = data.index(text(model.tensors[0].name))
    for _ in range(chance.choice((1, 2, 4))):
        data[chance.randrange(start, len(model.head()))] = chance.choice(
            (0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256))
        )
    return bytes(data)


def cut(model: Gguf, chance: random.Random) -> bytes:
    data = model.encode()
    return data[: chance.randrange(len(data))]


def extend(model: Gguf, chance: random.Random) -> bytes:
    return model.encode() + chance.randbytes(chance.randrange(1, 5000))


def insert(model: Gguf, chance: random.Random) -> bytes:
    data = model.encode()
    at = chance.randrange(len(data))
    return data[:at] + chance.randbytes(chance.randrange(1, 40)) + data[at:]


def remove(model: Gguf, chance: random.Random) -> bytes:
    data = model.encode()
    at = chance.randrange(len(data))
    return data[:at] + data[at + chance.randrange(1, 200) :]


def swap_pieces(model: Gguf, chance: random.Random) -> bytes:
    data = bytearray(model.encode())
    size = chance.choice((1, 4, 8, 32, 256))
    one, two = (chance.randrange(4, len(data) - size) for _ in range(2))
    data[one : one + size], data[two : two + size] = data[two : two + size], data[one : one + size]
    return bytes(data)


def false_counts(model: Gguf, chance: random.Random) -> bytes:
    counts = [len(model.tensors), len(model.pairs)]
    which = chance.randrange(2)
    counts[which] = chance.choice((counts[which] - 1, counts[which] + 1, *ODD))
    model.counts = counts[0], counts[1]
    return model.encode()


def other_version(model: Gguf, chance: random.Random) -> bytes:
    model.version = chance.choice((0, 1, 2, 4, 1 << 24, 3 << 24, (1 << 32) - 1))
    return model.encode()


def odd_alignment(model: Gguf, chance: random.Random) -> bytes:
    pair = model.pair("general.alignment")
    alignment = chance.choice((*ODD, 8, 16, 64, 4096))
    if chance.random() < 0.3:
        pair.kind, pair.value = chance.choice(((INT32, struct.pack("<I", 32)), (UINT64, struct.pack("<Q", 32))))
    else:
        pair.value = struct.pack("<I", alignment % (1 << 32))
        if alignment in (8, 16, 64, 4096) and chance.random() < 0.8:
            model.alignment = alignment
            model.lay_out()
    return model.encode()


def odd_number(model: Gguf, chance: random.Random) -> bytes:
    pair = chance.choice([pair for pair in model.pairs if pair.kind == UINT32])
    pair.value = struct.pack("<I", chance.choice(ODD) % (1 << 32))
    return model.encode()


def several_odd_numbers(model: Gguf, chance: random.Random) -> bytes:
    for _ in range(3):
        odd_number(model, chance)
    return model.encode()


def odd_fraction(model: Gguf, chance: random.Random) -> bytes:
    pair = chance.choice([pair for pair in model.pairs if pair.kind == FLOAT32])
    value = chance.choice((0.0, -0.0, -1.0, 1e-45, 3e38, float("inf"), float("-inf"), float("nan")))
    pair.value = struct.pack("<f", value)
    return model.encode()


def wrong_kind(model: Gguf, chance: random.Random) -> bytes:
    pair = chance.choice(model.pairs)
    pair.kind = chance.choice(_KINDS)
    return model.encode()


def other_value(model: Gguf, chance: random.Random) -> bytes:
    """A value of another type that is well formed."""
    pair = chance.choice(model.pairs)
    pair.kind, pair.value = chance.choice(
        (
            (UINT32, struct.pack("<I", 1)),
            (UINT64, struct.pack("<Q", 1 << 40)),
            (INT32, struct.pack("<i", -1)),
            (FLOAT32, struct.pack("<f", 1.5)),
            (BOOL, chance.choice((b"\0", b"\1", b"\2", b"\xff"))),
            (STRING, text(chance.choice(("", "llama", "x" * 1000, "\0", "\N{GRINNING FACE}")))),
            (ARRAY, array(UINT32, 0, b"")),
            (ARRAY, array(INT32, 2, struct.pack("<2i", -1, 1))),
            (ARRAY, texts(["a", "", "\0"])),
            (ARRAY, array(ARRAY, 1, array(UINT32, 1, struct.pack("<I", 1)))),
        )
    )
    return model.encode()


def missing_pair(model: Gguf, chance: random.Random) -> bytes:
    model.pairs.remove(chance.choice(model.pairs))
    return model.encode()


def double_pair(model: Gguf, chance: random.Random) -> bytes:
    pair = chance.choice(model.pairs)
    model.pairs.insert(chance.randrange(len(model.pairs)), Pair(pair.key, pair.kind, pair.value))
    return model.encode()


def new_pair(model: Gguf, chance: random.Random) -> bytes:
    """Settings that loaders know and this model does without."""
    key = chance.choice(
        (
            *("llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.attention.key_length"),
            *(
                "llama.attention.value_length",
                "llama.expert_count",
                "llama.expert_used_count",
                "split.count",
                "split.no",
            ),
            *("llama.rope.scaling.original_context_length", "tokenizer.ggml.unknown_token_id", "llama.pooling_type"),
            *("tokenizer.ggml.padding_token_id", "tokenizer.ggml.precompiled_charsmap", "tokenizer.ggml.scores"),
            *("tokenizer.ggml.eot_token_id", "tokenizer.ggml.add_space_prefix", "llama.attention.sliding_window"),
            *("general.quantization_version", "llama.attention.causal", "llama.rope.dimension_sections", "x" * 70000),
            *("llama.leading_dense_block_count", "llama.attention.layer_norm_epsilon", "llama.attention.clamp_kqv"),
        )
    )
    model.pairs.append(Pair(key, UINT32, struct.pack("<I", chance.choice(ODD) % (1 << 32))))
    if chance.random() < 0.5:
        return other_value(Gguf([model.pairs[-1]], []), chance) if chance.random() < 0.1 else _odd_last(model, chance)
    return model.encode()


def _odd_last(model: Gguf, chance: random.Random) -> bytes:
    pair = model.pairs[-1]
    pair.kind, pair.value = chance.choice(
        (
            (STRING, text("linear")),
            (FLOAT32, struct.pack("<f", chance.choice((0.0, -1.0, float("nan"), 1e38)))),
            (ARRAY, array(INT32, 4, struct.pack("<4i", 1, -1, 1 << 30, 0))),
            (ARRAY, array(FLOAT32, 3, struct.pack("<3f", 0, 1, 2))),
            (BOOL, b"\1"),
        )
    )
    return model.encode()


def other_architecture(model: Gguf, chance: random.Random) -> bytes:
    """The name of another architecture, with the settings renamed so that it finds them."""
    name = chance.choice(
        (
            *("qwen2", "qwen3", "gemma", "gemma3", "gpt2", "bert", "t5", "mamba", "rwkv6", "phi2", "phi3", "falcon"),
            *("deepseek2", "granite", "olmo2", "clip", "bloom", "mpt", "starcoder2", "command-r", "nemotron", "llama4"),
            *("lfm2", "jamba", "dream", "nonsense", "LLAMA", "", "a" * 2000, "../../x", "%s%s%n"),
        )
    )
    model.pair("general.architecture").value = text(name)
    if chance.random() < 0.8:
        for pair in model.pairs:
            if pair.key.startswith("llama."):
                pair.key = name + pair.key[len("llama") :]
    return model.encode()


def hostile_tokens(model: Gguf, chance: random.Random) -> bytes:
    pair = model.pair("tokenizer.ggml.tokens")
    tokens = [f"t{index}" for index in range(chance.choice((0, 1, 3, 100, 267, 268, 269, 1000)))]
    for _ in range(chance.randrange(1, 6)):
        if tokens:
            tokens[chance.randrange(len(tokens))] = chance.choice(
                ("", "\0", "x" * 100_000, "\ud7ff\uffff", "<|im_start|>", "<0x0A>", "\N{LOWER ONE EIGHTH BLOCK}", " ")
            )
    pair.value = texts(tokens)
    if chance.random() < 0.3:
        pair.value = pair.value[:12] + b"".join(struct.pack("<Q", 3) + b"\xff\xfe\xc0" for _ in tokens)
    return model.encode()


def hostile_token_kinds(model: Gguf, chance: random.Random) -> bytes:
    count = chance.choice((0, 1, 100, 267, 268, 269, 5000))
    kinds = [chance.choice((0, 1, 2, 3, 4, 5, 6, 7, -1, 1 << 30)) for _ in range(count)]
    item = chance.choice((INT32, INT32, INT32, UINT32, FLOAT32, BOOL, UINT64))
    data = b"".join(struct.pack("<i", kind) * {BOOL: 1, UINT64: 2}.get(item, 1) for kind in kinds)
    model.pair("tokenizer.ggml.token_type").value = array(item, count, data[:count] if item == BOOL else data)
    return model.encode()


def hostile_merges(model: Gguf, chance: random.Random) -> bytes:
    merges = [
        chance.choice(("", " ", "a", "a b", "a  b", "\0 \0", "x" * 1000, "th e", "nothing known", " a", "a "))
        for _ in range(chance.choice((0, 1, 50, 2000)))
    ]
    pair = model.pair("tokenizer.ggml.merges")
    pair.value = texts(merges) if chance.random() < 0.8 else array(UINT32, 3, bytes(12))
    return model.encode()


def other_tokenizer(model: Gguf, chance: random.Random) -> bytes:
    model.pair("tokenizer.ggml.model").value = text(
        chance.choice(("llama", "bert", "t5", "rwkv", "plamo2", "no_vocab", "none", "", "gpt2\0", "x" * 300))
    )
    if chance.random() < 0.5:
        model.pair("tokenizer.ggml.pre").value = text(
            chance.choice(("llama-bpe", "qwen2", "", "x", "smollm", "gpt-4o"))
        )
    if chance.random() < 0.7:
        count = chance.choice((0, 1, 268, 300))
        scores = struct.pack(f"<{count}f", *(chance.choice((0.0, -1.0, float("nan"), 1e38)) for _ in range(count)))
        model.pairs.append(Pair("tokenizer.ggml.scores", ARRAY, array(FLOAT32, count, scores)))
    if chance.random() < 0.3:
        charsmap = chance.randbytes(chance.choice((0, 3, 8, 100)))
        model.pairs.append(Pair("tokenizer.ggml.precompiled_charsmap", ARRAY, array(0, len(charsmap), charsmap)))
    return model.encode()


def special_tokens(model: Gguf, chance: random.Random) -> bytes:
    for key in ("bos", "eos"):
        model.pair(f"tokenizer.ggml.{key}_token_id").value = struct.pack("<I", chance.choice(ODD) % (1 << 32))
    model.pair("tokenizer.ggml.add_bos_token").value = b"\1"
    return model.encode()


def hostile_template(model: Gguf, chance: random.Random) -> bytes:
    template = chance.choice(_TEMPLATES)
    if chance.random() < 0.3:
        good = tiny_model.CHATML
        at = chance.randrange(len(good))
        template = good[:at] + chance.choice("{}%|'()[]#~*\0\n") * chance.randrange(1, 4) + good[at + 1 :]
    model.pair("tokenizer.chat_template").value = text(template)
    return model.encode()


def odd_sizes(model: Gguf, chance: random.Random) -> bytes:
    tensor = chance.choice(model.tensors)
    tensor.sizes[chance.randrange(len(tensor.sizes))] = chance.choice((*ODD, *(32 * size for size in (0, 1, 2, 9))))
    return model.encode()


def sizes_whose_product_overflows(model: Gguf, chance: random.Random) -> bytes:
    tensor = chance.choice(model.tensors)
    half = chance.choice((1 << 31, 1 << 32, 1 << 33, 3 << 30))
    tensor.sizes = chance.choice(([half, half], [half, half, 2], [1 << 16] * 4, [32, 1 << 59], [1 << 63, 2]))
    return model.encode()


def number_of_sizes(model: Gguf, chance: random.Random) -> bytes:
    tensor = chance.choice(model.tensors)
    tensor.sizes = chance.choice(([], [32], [32, 1, 1, 1], [32, 1, 1, 1, 1], [1] * 100, [32, 32, 32], [-1, 32]))
    return model.encode()


def other_tensor_kind(model: Gguf, chance: random.Random) -> bytes:
    for tensor in model.tensors if chance.random() < 0.2 else [chance.choice(model.tensors)]:
        tensor.kind = chance.choice(_TENSOR_KINDS)
    return model.encode()


def other_precision(model: Gguf, chance: random.Random) -> bytes:
    """A tensor of another type that is well formed, which a runtime may or may not compute with."""
    tensor = chance.choice(model.tensors)
    values = 1
    for size in tensor.sizes:
        values *= size
    tensor.kind, each = chance.choice(((0, 4), (1, 2), (24, 1), (25, 2), (26, 4), (27, 8), (28, 8), (30, 2)))
    tensor.data = chance.randbytes(values * each)
    model.lay_out()
    return model.encode()


def odd_offset(model: Gguf, chance: random.Random) -> bytes:
    tensor = chance.choice(model.tensors)
    tensor.offset = chance.choice((*ODD, tensor.offset + 1, tensor.offset + 32, tensor.offset - 32))
    return model.encode()


def overlapping_tensors(model: Gguf, chance: random.Random) -> bytes:
    one, two = chance.sample(model.tensors, 2)
    one.offset = two.offset
    return model.encode()


def double_tensor(model: Gguf, chance: random.Random) -> bytes:
    model.tensors.append(chance.choice(model.tensors))
    model.tensors[-1] = Tensor(**vars(model.tensors[-1]))
    model.lay_out()
    return model.encode()


def missing_tensor(model: Gguf, chance: random.Random) -> bytes:
    model.tensors.remove(chance.choice(model.tensors))
    model.lay_out()
    return model.encode()


def shuffled_tensors(model: Gguf, chance: random.Random) -> bytes:
    chance.shuffle(model.tensors)
    if chance.random() < 0.5:
        model.lay_out()
    return model.encode()


def other_tensor_name(model: Gguf, chance: random.Random) -> bytes:
    chance.choice(model.tensors).name = chance.choice(
        (
            "",
            "x" * 63,
            "x" * 64,
            "x" * 5000,
            "a\0b",
            "blk.0.attn_q.bias",
            "output.weight",
            "rope_freqs.weight",
            "\xff" * 9,
        )
    )
    return model.encode()


def hostile_weights(model: Gguf, chance: random.Random) -> bytes:
    fill = chance.choice((b"\xff\xff\xff\xff", b"\0\0\xc0\x7f", b"\0\0\x80\x7f", b"\0\0\0\0", b"\xff\x7b\xff\x7b"))
    for tensor in model.tensors if chance.random() < 0.3 else [chance.choice(model.tensors)]:
        tensor.data = (fill * len(tensor.data))[: len(tensor.data)]
    return model.encode()


def random_weights(model: Gguf, chance: random.Random) -> bytes:
    for tensor in model.tensors:
        tensor.data = chance.randbytes(len(tensor.data))
    return model.encode()


def nothing(model: Gguf, chance: random.Random) -> bytes:
    return model.encode()


MUTATIONS: tuple[Mutation, ...] = (
    *(flip_bits, flip_bits_of_the_head, flip_bits_of_the_short_pairs, bytes_of_the_tensor_list, cut, extend, insert),
    *(remove, swap_pieces, false_counts, other_version, odd_alignment, odd_number, several_odd_numbers, odd_fraction),
    *(wrong_kind, other_value, missing_pair, double_pair, new_pair, other_architecture, hostile_tokens),
    *(hostile_token_kinds, hostile_merges, other_tokenizer, special_tokens, hostile_template, odd_sizes),
    *(sizes_whose_product_overflows, number_of_sizes, other_tensor_kind, other_precision, odd_offset),
    *(overlapping_tensors, double_tensor, missing_tensor, shuffled_tensors, other_tensor_name, hostile_weights),
    *(random_weights, nothing),
)
