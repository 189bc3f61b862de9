"""What the embedding model is good for: speed, labels by the likeness of their names, and finding passages.

Run: `python scripts/check_embeddings.py DATA`, the folder of the evaluation sets. Finding: for each question of
`long_qa` the sentences of its document are ranked by words (BM25), by vectors, and by both; for
each of `long_needles` those of a document with the sentence put into its middle. Recall at k is the share of questions
for which one of the k first sentences overlaps the evidence. Intervals are 95 % bootstrap intervals over questions.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ondevice_sdk import Client, Embeddings
from ondevice_sdk.intervals import mean
from ondevice_sdk.text.retrieval import Index, Passage

MEANING = 0.5  # weight of the cosine beside the score by words (the best: 1)
WIDE = 40  # sentences that are looked at again
WAYS = ("words", "vectors", "both")
AT = (1, 3, 5, 10, 20)


def rows(data: Path, name: str) -> list[dict[str, Any]]:
    with (data / f"{name}.jsonl").open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def speed(ai: Client, texts: Sequence[str]) -> str:
    ai.embed(texts[:8])
    start = time.perf_counter()
    found = ai.embed(texts)
    seconds = time.perf_counter() - start
    tokens = found.usage.prompt_tokens
    return (
        f"{len(texts)} sentences of {tokens / len(texts):.0f} tokens: {len(texts) / seconds:.0f} texts/s, "
        f"{tokens / seconds:.0f} tokens/s; {found.usage.prefill_s / seconds:.0%} of the time in the model"
    )


def labels(ai: Client, data: Path) -> str:
    """Accuracy of topics where the label is the one whose name is most like the text; no examples, no writing model."""
    texts = rows(data, "topic_sib200_en")
    names = sorted({row["label"] for row in texts})
    known = ai.embed([f"This text is about {name}." for name in names])
    vectors = ai.embed([row["text"] for row in texts]).vectors
    right = [
        float(names[known.nearest(vector, 1)[0][0]] == row["label"]) for vector, row in zip(vectors, texts, strict=True)
    ]
    return f"topic_sib200_en by names of labels: accuracy {mean(right)} on {len(right)} rows"


def reranked(found: Sequence[Passage], close: Sequence[float]) -> list[Passage]:
    """Passages in the order of words and meaning together."""
    best = max((passage.score for passage in found), default=0.0) or 1.0
    fit = [passage.score / best + MEANING * cosine for passage, cosine in zip(found, close, strict=True)]
    return [found[at] for at in sorted(range(len(found)), key=lambda at: (-fit[at], at))]


class Searched:
    """A document whose sentences are looked up in all ways; `known` has the vectors of sentences met before."""

    def __init__(self, ai: Client, text: str, known: dict[str, Sequence[float]]) -> None:
        self.index = Index(text)
        new = [each for each in dict.fromkeys(span.text for span in self.index.sentences) if each not in known]
        known |= dict(zip(new, ai.embed(new).vectors, strict=True))
        self.vectors = Embeddings(tuple(known[sentence.text] for sentence in self.index.sentences))
        self.numbers = {sentence.start: number for number, sentence in enumerate(self.index.sentences)}

    def rankings(self, question: str, vector: Sequence[float], most: int = 60) -> dict[str, list[int]]:
        """Numbers of sentences, best first, in each way."""
        near = dict(self.vectors.nearest(vector, len(self.vectors.vectors)))
        found = self.index.search(question, most)
        again = reranked(found[:WIDE], [near[self.numbers[passage.span.start]] for passage in found[:WIDE]])
        ways = {"words": found, "both": again + found[WIDE:]}
        numbers = {way: [self.numbers[passage.span.start] for passage in each] for way, each in ways.items()}
        return {**numbers, "vectors": [*near][:most]}

    def rank(self, ranking: Sequence[int], start: int, end: int) -> int:
        """The place of the first sentence that overlaps the range; very far where there is none."""
        for place, number in enumerate(ranking):
            sentence = self.index.sentences[number]
            if sentence.start < end and start < sentence.end:
                return place
        return 1 << 30


def finding(ai: Client, data: Path) -> list[str]:
    documents = {row["doc_id"]: row["text"] for row in rows(data, "long_docs")}
    asked = rows(data, "long_qa")
    known: dict[str, Sequence[float]] = {}
    places: dict[str, list[int]] = {way: [] for way in WAYS}
    for name, text in documents.items():
        mine = [row for row in asked if row["doc_id"] == name]
        searched = Searched(ai, text, known)
        for row, vector in zip(mine, ai.embed([row["question"] for row in mine]).vectors, strict=True):
            for way, ranking in searched.rankings(row["question"], vector).items():
                end = row["evidence_start"] + len(row["evidence"])
                places[way].append(searched.rank(ranking, row["evidence_start"], end))
    lines = [f"long_qa, {way}: {recalls(found)}" for way, found in places.items()]
    text = max(documents.values(), key=len)
    middle = text.index("\n\n", len(text) // 2)
    places = {way: [] for way in WAYS}
    for row in rows(data, "long_needles"):
        searched = Searched(ai, f"{text[:middle]}\n\n{row['needle']}{text[middle:]}", known)
        (vector,) = ai.embed(row["question"]).vectors
        for way, ranking in searched.rankings(row["question"], vector).items():
            places[way].append(searched.rank(ranking, middle + 2, middle + 2 + len(row["needle"])))
    return lines + [f"long_needles, {way}: {recalls(found)}" for way, found in places.items()]


def recalls(places: Sequence[int]) -> str:
    found = (f"@{most} {mean([float(place < most) for place in places])}" for most in AT)
    return f"recall {', '.join(found)} ({len(places)} questions)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--embedder", default=None)
    chosen = parser.parse_args()
    with Client(embedder=chosen.embedder) as ai:
        print(speed(ai, [row["text"] for row in rows(chosen.data, "topic_sib200_en")]), flush=True)
        print(labels(ai, chosen.data), flush=True)
        print("\n".join(finding(ai, chosen.data)))


if __name__ == "__main__":
    main()
