"""Proofread a text: corrections as spans of the original, in the shape of the W3C Proofreader.

The model reads one sentence at a time and writes it again; code compares the two. A sentence that came back with more
than a few words changed was rewritten, not corrected, and is left alone.
"""

import re
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from ondevice_sdk import Client

INSTRUCTIONS = (
    "You correct spelling and grammar. Answer with the corrected sentence only, and change nothing that is right."
)
SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
TOKEN = re.compile(r"\w+(?:'\w+)*|[^\w\s]")
MOST_CHANGED = 0.34  # of the words of a sentence


@dataclass(frozen=True)
class Correction:
    """`text[start:end]` should be `correction`."""

    start: int
    end: int
    correction: str = field(repr=False)


def proofread(ai: Client, text: str) -> list[Correction]:
    sentences = [match for match in SENTENCE.finditer(text) if match.group().strip()]
    asked = [match.group().strip() for match in sentences]
    answers = ai.generate_many(asked, instructions=INSTRUCTIONS, temperature=0, max_tokens=100)
    found = []
    for match, sentence, answer in zip(sentences, asked, answers, strict=True):
        start = match.start() + match.group().index(sentence)
        if answer.finish_reason == "stop":
            found += corrections(sentence, answer.text.strip(), start)
    return found


def corrections(sentence: str, answer: str, start: int) -> list[Correction]:
    """The differences of two sentences, word by word; none where it is another sentence."""
    before, after = list(TOKEN.finditer(sentence)), list(TOKEN.finditer(answer))
    matcher = SequenceMatcher(
        None, [token.group() for token in before], [token.group() for token in after], autojunk=False
    )
    changes = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    if sum(max(b - a, d - c) for _, a, b, c, d in changes) > MOST_CHANGED * len(before):
        return []
    found = []
    for _, first, last, other_first, other_last in changes:
        if first == last:  # words were put in: shown with the word before them, or after
            first, other_first = (first - 1, other_first - 1) if first else (first, other_first)
            last, other_last = (last, other_last) if first != last else (last + 1, other_last + 1)
        said = answer[after[other_first].start() : after[other_last - 1].end()] if other_first < other_last else ""
        found.append(Correction(start + before[first].start(), start + before[last - 1].end(), said))
    return found


def corrected(text: str, found: list[Correction]) -> str:
    for correction in sorted(found, key=lambda each: -each.start):
        text = text[: correction.start] + correction.correction + text[correction.end :]
    return text


NOTE = (
    "She go to school by bus every day. The bridge was opened in 1932. He have two brothers and a sister. "
    "I recieved your letter."
)


def main() -> None:
    with Client() as ai:
        found = proofread(ai, NOTE)
    for correction in found:
        print(
            f"{correction.start}-{correction.end}: {NOTE[correction.start : correction.end]} -> {correction.correction}"
        )
    print(corrected(NOTE, found))


if __name__ == "__main__":
    main()
