"""Rewrite a text with the options of the W3C Rewriter, and say what a reader should check.

The words are the model's, the checks are code: numbers that were lost or added, and a length that did not change as
wanted. A small model drops a detail now and then; an app shows the warnings beside the text, or keeps the original.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from ondevice_sdk import Client

Tone = Literal["as-is", "more-formal", "more-casual"]
Format = Literal["as-is", "plain-text", "markdown"]
Length = Literal["as-is", "shorter", "longer"]

TONES = {
    "more-formal": "more formal and professional",
    "more-casual": "more friendly and casual",
}
LENGTHS = {"shorter": "more concise", "longer": "longer and more detailed"}
FORMATS = {"plain-text": " Write plain text without any marks.", "markdown": " Write markdown."}


@dataclass(frozen=True)
class Rewritten:
    """A rewritten text, and what the checks found."""

    text: str = field(repr=False)
    warnings: tuple[str, ...]


def rewrite(
    ai: Client,
    text: str,
    *,
    tone: Tone = "as-is",
    format: Format = "as-is",  # noqa: A002 - the word of the W3C
    length: Length = "as-is",
    context: str = "",
) -> Rewritten:
    aims = [word for word in (TONES.get(tone), LENGTHS.get(length)) if word]
    aim = f"to make it {' and '.join(aims)}" if aims else "in other words"
    instructions = (
        f"You are an assistant for rewriting. Rewrite the input text {aim} while keeping what it says. "
        f"Answer with the rewritten text only.{FORMATS.get(format, '')}{f' Context: {context}' if context else ''}"
    )
    words = len(text.split())
    answer = ai.generate(text, instructions=instructions, temperature=0, max_tokens=64 + 4 * words)
    return Rewritten(answer.text.strip(), tuple(_warnings(text, answer.text, length, answer.finish_reason)))


def _warnings(before: str, after: str, length: Length, finish_reason: str) -> list[str]:
    found = []
    lost, added = (
        ", ".join((Counter(numbers(one)) - Counter(numbers(other))).elements())
        for one, other in ((before, after), (after, before))
    )
    if lost:
        found.append(f"numbers that are gone: {lost}")
    if added:
        found.append(f"numbers that are new: {added}")
    change = len(after.split()) - len(before.split())
    if (length == "shorter" and change >= 0) or (length == "longer" and change <= 0):
        found.append(f"the text did not become {length}")
    if finish_reason == "length":
        found.append("the text ended before it was complete")
    return found


def numbers(text: str) -> list[str]:
    return re.findall(r"\d+(?:[.,:]\d+)*", text)


LETTER = (
    "hey, just a quick heads up that the meeting about the harbour moved to 14 March at 9:30. sorry for the mess! "
    "bring the 3 drafts if you can, otherwise we can't really decide anything. cheers, Priya"
)


def main() -> None:
    with Client() as ai:
        for name, made in (
            ("more-formal", rewrite(ai, LETTER, tone="more-formal")),
            ("shorter", rewrite(ai, LETTER, length="shorter")),
        ):
            print(f"[{name}]\n{made.text}")
            for warning in made.warnings:
                print(f"  check: {warning}")


if __name__ == "__main__":
    main()
