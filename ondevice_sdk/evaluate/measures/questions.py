"""Questions about a text, asked by a schema: a field for each question, the question as its description."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.evaluate import metrics
from ondevice_sdk.evaluate.compare import About, Metric, Outcomes, compare
from ondevice_sdk.evaluate.data import Record
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Prompt, Session
from ondevice_sdk.types import Analysis, JsonValue

ANSWER_F1: Final = Metric("answer F1", metrics.mean)
HELD: Final = Metric("answer held", metrics.mean)

_ANSWER_TOKENS = 40
_PROMPTS = (
    Prompt("question-after", "{text}\n\nQuestion: {question}\nAnswer:"),
    Prompt("question-first", "Answer the question in a few words.\n\nQuestion: {question}\n\nText: {text}\n\nAnswer:"),
    Prompt("question-short", "{text}\n\n{question} Answer with words of the text above only."),
)
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0eff]")
_MORE = 6  # words that an answer may have beyond those that are right, to hold them


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a text and what is right."""

    text: str
    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QuestionMeasure:
    """Questions about one text are asked at once, in one schema.

    Args:
        text: the field of the text, or, with `documents`, of the name of a document of that set.
        questions: a field with a list of questions and answers; None: the row is one question.
        documents: the set that holds the texts.
    """

    text: str = "context"
    questions: str | None = None
    documents: str | None = None
    family: str = "questions"

    def rows(self, session: Session, sample: Sample) -> list[Row]:
        """Figures of the set."""
        asked = [each for record in sample.records for each in self._asked(record, sample)]
        texts = list(dict.fromkeys(each.text for each in asked))
        of_text = {text: [each for each in asked if each.text == text] for text in texts}
        answers = session.analyse_each([(text, schema_of([q.question for q in of_text[text]])) for text in texts])
        answered: dict[tuple[str, str], str] = {}
        for text, answer in zip(texts, answers.values, strict=True):
            for number, each in enumerate(of_text[text]):
                answered[(text, each.question)] = said(answer, number)
        ours = [answered[(each.text, each.question)] for each in asked]
        prompts = () if self.documents is not None else _PROMPTS  # a whole book fits into no prompt
        fills = [{"text": each.text, "question": each.question} for each in asked]
        plain = session.ask(prompts, fills, _ANSWER_TOKENS)
        about = About(sample.set, self.family, answers.seconds, plain.seconds, plain.noted(answers.note))
        groups = [str(texts.index(each.text)) for each in asked]
        rows = []
        for metric, figure in ((ANSWER_F1, answer_f1), (HELD, held)):
            naive = {
                name: [figure(answer, each.answers) for answer, each in zip(given, asked, strict=True)]
                for name, given in plain.answers.items()
            }
            mine = [figure(answer, each.answers) for answer, each in zip(ours, asked, strict=True)]
            rows.append(compare(about, metric, Outcomes(mine, naive, groups=groups)))
        return rows

    def _asked(self, record: Record, sample: Sample) -> list[Asked]:
        text = record.string(self.text)
        if self.documents is not None:
            known = {each.string(self.text): each for each in sample.beside[self.documents]}
            if text not in known:
                raise record.fault(f"{self.documents} has no document of that name")
            text = known[text].string("text")
        questions = [record] if self.questions is None else record.records(self.questions)
        return [Asked(text, each.string("question"), each.strings("answers")) for each in questions]


def schema_of(questions: Sequence[str]) -> Mapping[str, JsonValue]:
    """A form with a field for each question, which may be null."""
    return {
        "type": "object",
        "properties": {
            f"answer_{number}": {"type": ["string", "null"], "description": question}
            for number, question in enumerate(questions)
        },
        "additionalProperties": False,
    }


def said(answer: Analysis[JsonValue] | None, number: int) -> str:
    """What was answered to a question of `schema_of`; empty without an answer."""
    output = answer.output if answer is not None else None
    return str(output.get(f"answer_{number}") or "") if isinstance(output, dict) else ""


def answer_f1(said: str, answers: Sequence[str]) -> float:
    """F1 of the words of an answer (of scripts without spaces: characters) against the best right one."""
    return max(_overlap(_words(said), _words(answer)) for answer in answers)


def held(said: str, answers: Sequence[str]) -> float:
    """Whether a right answer stands in what was said, with a few words more at most."""
    given = _words(said)
    for answer in answers:
        wanted = _words(answer)
        if len(given) <= len(wanted) + _MORE and f" {' '.join(wanted)} " in f" {' '.join(given)} ":
            return 1.0
    return 0.0


def _overlap(given: Sequence[str], wanted: Sequence[str]) -> float:
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted)) if shared else 0.0


def _words(text: str) -> list[str]:
    spaced = _UNSPACED.sub(lambda sign: f" {sign.group()} ", text.casefold())
    return [word for word in re.findall(r"\w+", spaced) if word not in {"a", "an", "the"}]
