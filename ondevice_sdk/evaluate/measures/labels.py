"""Closed labels: sentiment, topics, intents, languages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from ondevice_sdk.errors import ConfigurationError
from ondevice_sdk.evaluate import metrics
from ondevice_sdk.evaluate.compare import About, Metric, Outcomes, compare
from ondevice_sdk.evaluate.data import Record
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.metrics import Labelled, Scored
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Prompt, Session
from ondevice_sdk.tasks.forms import Languages

ACCURACY: Final = Metric("accuracy", metrics.accuracy)
MACRO_F1: Final = Metric("macro-F1", metrics.macro_f1)
CALIBRATION: Final = Metric("calibration error", metrics.calibration_error, "lower")
OUT_OF_SCOPE: Final = Metric("out-of-scope AUROC", metrics.auroc)

ANSWER_TOKENS: Final = 24  # of a naive prompt
_FEELINGS = (
    Prompt("sentiment-ask", "{text}\n\nIs this text {labels}? Answer with one word."),
    Prompt("sentiment-first", "What is the sentiment of this text: {labels}?\n\nText: {text}\n\nSentiment:"),
    Prompt("sentiment-classify", 'Classify the sentiment of the following text as {labels}.\n\n"{text}"'),
    Prompt("sentiment-review", "Review: {text}\n\nDid the reviewer like it? Reply only with {labels}."),
)
_CATEGORIES = (
    Prompt("labels-after", "{text}\n\nWhich category fits this text: {labels}? Answer with the category only."),
    Prompt("labels-first", "Classify the text into one of these categories: {labels}.\n\nText: {text}\n\nCategory:"),
    Prompt("labels-pick", 'Categories: {labels}.\n\n"{text}"\n\nPick exactly one of the categories for this text.'),
)
_LANGUAGES = (
    Prompt("language-ask", "{text}\n\nWhich language is this text written in? Answer with one word."),
    Prompt("language-first", "Name the language of this text.\n\nText: {text}\n\nLanguage:"),
    Prompt("language-list", 'Which of these languages is it: {labels}?\n\n"{text}"'),
)


@dataclass(frozen=True, slots=True)
class LabelMeasure:
    """Accuracy, macro-F1 and calibration of labels.

    Args:
        family: the word for `--only`.
        text: the field of the text.
        label: the field of the label.
        labels: what to choose from; empty: all labels of the set.
        outside: the label of rows for which none of the others is right. Such rows count in one figure only: how well
            a low confidence tells them.
        group: the field that rows with a common origin share.
    """

    family: str
    text: str = "text"
    label: str = "label"
    labels: tuple[str, ...] = ()
    outside: str | None = None
    group: str | None = None

    def rows(self, session: Session, sample: Sample) -> list[Row]:
        """Figures of the set."""
        labels = self.labels_of(sample.whole)
        gold = [record.string(self.label) for record in sample.records]
        for record, label in zip(sample.records, gold, strict=True):
            if label not in labels and label != self.outside:
                raise record.fault(f"the label in {self.label!r} is none of the labels")
        texts = [record.string(self.text) for record in sample.records]
        shown, form, prompts = asked_of(self.family, labels)
        answers = session.analyse(texts, form)
        outcomes = [
            Labelled(label, None) if answer is None else Labelled(label, str(answer.output), answer.confidence)
            for label, answer in zip(gold, answers.values, strict=True)
        ]
        inside = [index for index, label in enumerate(gold) if label != self.outside]
        fills = [{"text": texts[index], "labels": listed(list(shown.values()))} for index in inside]
        asked = session.ask(prompts, fills, ANSWER_TOKENS)
        naive = {
            name: [Labelled(gold[index], parse_label(said, shown)) for index, said in zip(inside, given, strict=True)]
            for name, given in asked.answers.items()
        }
        majority = Counter(label for label in gold if label != self.outside).most_common(1)
        trivial = [Labelled(gold[index], majority[0][0]) for index in inside] if inside else []
        groups = [sample.records[index].string(self.group) for index in inside] if self.group else []
        about = About(sample.set, self.family, answers.seconds, asked.seconds, asked.noted(answers.note))
        found: list[Row] = []
        if inside:
            ours = [outcomes[index] for index in inside]
            both = Outcomes(ours, naive, ("majority", trivial), groups)
            found = [compare(about, metric, both) for metric in (ACCURACY, MACRO_F1)]
            found.append(compare(About(sample.set, self.family), CALIBRATION, Outcomes(ours, groups=groups)))
        if self.outside is not None:
            scored = [Scored(row.gold == self.outside, 1 - (row.confidence or 0.0)) for row in outcomes]
            found.append(compare(About(sample.set, self.family), OUT_OF_SCOPE, Outcomes(scored)))
        return found

    def labels_of(self, records: Sequence[Record]) -> tuple[str, ...]:
        """What to choose from: as given, else all labels of these rows but the one outside.

        Raises:
            ConfigurationError: fewer than two.
        """
        found = self.labels or tuple(sorted({record.string(self.label) for record in records} - {self.outside}))
        if len(found) < 2:
            raise ConfigurationError("at least two labels are needed", hint="--labels invoice,letter,contract")
        return found


def parse_label(answer: str, shown: Mapping[str, str]) -> str | None:
    """The label that a free answer names first; of two at one place the longer one."""
    said = answer.casefold().replace("_", " ")
    best: tuple[int, int, str] | None = None
    for label, words in shown.items():
        match = re.search(rf"(?<!\w){re.escape(words.casefold())}(?!\w)", said)
        if match is not None and (best is None or (match.start(), -len(words)) < best[:2]):
            best = (match.start(), -len(words), label)
    return None if best is None else best[2]


def asked_of(family: str, labels: Sequence[str]) -> tuple[dict[str, str], Any, tuple[Prompt, ...]]:
    """The labels as a model reads them, the form for the SDK, and the naive prompts."""
    if family == "languages":
        return {language.value: language.name.title() for language in Languages}, Languages, _LANGUAGES
    prompts = _FEELINGS if family == "sentiment" else _CATEGORIES
    return {label: label.replace("_", " ") for label in labels}, Literal[tuple(labels)], prompts


def listed(words: Sequence[str]) -> str:
    """Words as a choice: "a, b or c"."""
    return f"{', '.join(words[:-1])} or {words[-1]}"
