"""Fields that are described by a question: the answer is looked up in the sentences that share its words."""

from __future__ import annotations

from collections.abc import Sequence

from ondevice_sdk.backends.api import Score
from ondevice_sdk.tasks.extract.ask import Page, ask_question
from ondevice_sdk.tasks.extract.found import Found, reading, scored
from ondevice_sdk.tasks.extract.outline import Field
from ondevice_sdk.tasks.flow import Flow
from ondevice_sdk.text.answers import Answer, Question
from ondevice_sdk.text.retrieval import Index, Passage
from ondevice_sdk.types import Span

# Share of a question's words in a sentence, below which the text is held not to answer it. Of 36 invented facts in
# 400,000 characters the least was 0.76; without the facts in the text the most was 0.37. In a short text words are too
# few to tell which are rare: there a tenth of the questions about encyclopaedia paragraphs had less than 0.29.
_SHARE = 0.38
_SHARE_SHORT = 0.2
_PASSAGES = 3  # sentences that a question is put to
_ANSWERS = 8  # of all of these that the model scores
_FIT = 4.0  # weight of how well a sentence fits (the best: 1) beside the form of the answer; 1.5 to 4 differ little
# Weight of the mean log-probability per token: on 42 questions about encyclopaedia paragraphs answer F1 was 0.36 and
# 0.34 with 0.25 and 0.5, 0.32 without the model; the score less that without the passage was worse than no score.
_MODEL = 0.4


def read_questions(
    fields: Sequence[Field], index: Index, found: Found, page: Page, *, short: bool
) -> Flow[list[Field]]:
    """Answer them; returned are those that the text does not answer."""
    held: list[tuple[Field, list[Answer]]] = []
    requests: list[Score] = []
    missed: list[Field] = []
    for each in fields:
        passages = index.search(each.question, _PASSAGES)
        least = _SHARE_SHORT if short else _SHARE
        if not passages or index.share(each.question, passages[0].span) < least:
            passages = []
        best = [answer for answer in _answers(each, passages) if page.fits(answer.span)][:_ANSWERS]
        if not best:
            missed.append(each)
            continue
        requests.append(
            ask_question(_shown(passages, page.chars), each.question, [answer.span.text for answer in best])[0]
        )
        held.append((each, best))
    rows = yield from scored(requests, found, per_token=True)
    for (each, best), row in zip(held, rows, strict=True):
        scores = [answer.score + _MODEL * logprob for answer, logprob in zip(best, row, strict=True)]
        found.keep(each, [best[max(range(len(best)), key=lambda at: (scores[at], -at))].span])
    return missed


def _answers(each: Field, passages: Sequence[Passage]) -> list[Answer]:
    question = Question(each.question)
    found: dict[str, Answer] = {}
    for passage in passages:
        for answer in question.answers(passage.span.text, passage.span.start):
            known = found.get(answer.span.text)
            score = answer.score + _FIT * passage.score / passages[0].score
            if reading(each, answer.span) is not None and (known is None or known.score < score):
                found[answer.span.text] = Answer(answer.span, score)
    return sorted(found.values(), key=lambda answer: (-answer.score, answer.span.start))


def _shown(passages: Sequence[Passage], chars: int) -> str:
    """The passages in the order of the text; the best one alone, or its beginning, if they are too long."""
    spans: list[Span] = sorted((passage.span for passage in passages), key=lambda span: span.start)
    shown = " ".join(span.text for span in spans)
    if len(shown.encode()) > chars:
        shown = passages[0].span.text.encode()[:chars].decode(errors="ignore")
    return shown
