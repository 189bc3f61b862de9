"""Texts that tokenisers are compared on."""

# ruff: noqa: RUF001 - characters of many scripts

from __future__ import annotations

import random

PLAIN = (
    "",
    " ",
    "  \n\n\t  ",
    "Hello, world!",
    "It's what they'll've SAID: I'M, WE'RE, he'D, 'tis ''s 'S",
    "0 12 345 6789 1234567890 3.14159 1,000,000 ½ Ⅷ ٣٤",
    "line one\nline two\r\n\r\nline  three \n \n",
    "    indented\n\tand tabbed\n        def f(x):\n            return x ** 2  # why\n",
    "naïve café Zürich Ærøskøbing ŁÓDŹ",
    "日本語のテキスト。中文字符，標點！한국어 텍스트",
    "Привет, мир! Γειά σου Κόσμε שלום עולם مرحبا بالعالم",
    "🦊👩‍👩‍👧‍👦🇩🇪 ❤️ e\u0301 \u200b\u00a0\u2003\ufeff",
    "<|im_start|>user\n<|im_end|><|endoftext|> </s> <s> <think> [INST]",
    "http://example.org/a?b=c&d=%20#e _snake_case_ CamelCase ++--==>>",
    "\x00\x01\x1b\x7f\x85\u2028\u2029",
    "word " * 50 + " \t" * 20,
)
_ALPHABETS = (
    "abcdefghij XYZ'",
    "0123456789 .,",
    " \t\n\r\u00a0\u3000",
    "'sStTrReEvVmMlLdD ",
    '!"#$%&()*+-/:;<=>?@[]^_`{|}~ ',
    "äöüßéñçøåł αβγ жщя",
    "日本語中文한국어אבגعرب",
    "🦊👍🏽🇫🇷\u200d\ufe0f\u0301\u0308",
)


def mixed(count: int, seed: int = 7) -> list[str]:
    """Random texts of several alphabets and of any characters at all."""
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        pieces = []
        for _ in range(draw.randint(1, 8)):
            if draw.random() < 0.15:
                pieces.append("".join(chr(_code(draw)) for _ in range(draw.randint(1, 6))))
            else:
                alphabet = draw.choice(_ALPHABETS)
                pieces.append("".join(draw.choice(alphabet) for _ in range(draw.randint(1, 12))))
        texts.append("".join(pieces))
    return texts


def _code(draw: random.Random) -> int:
    while True:
        first, last = draw.choice(((0x20, 0x2FFF), (0x3000, 0xFFFF), (0x1F000, 0x1FFFF)))
        code = draw.randrange(first, last)
        if not 0xD800 <= code < 0xE000:
            return code
