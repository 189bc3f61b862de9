"""Names and personal data: exact span and kind.

Personal data is measured by its recall at a precision of 0.9 too: everything that a system finds in all rows is ranked
by the confidence it gives, whatever the kind, and the threshold is put as low as 0.9 of what lies above it allow; what
has the same confidence goes together. The share of all marked items that lie above it counts. A system without
confidences has one threshold only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from ondevice_sdk.evaluate import metrics
from ondevice_sdk.evaluate.compare import About, Metric, Outcomes, compare
from ondevice_sdk.evaluate.data import Record
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.metrics import Counts, Ranked
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Answers, Prompt, Session
from ondevice_sdk.tasks.forms import Entities, PersonalData
from ondevice_sdk.text.personal import find_personal
from ondevice_sdk.text.spans import find_all

Place = tuple[int, int, str]  # start, end, kind
Found = frozenset[Place]

F1: Final = Metric("entity F1", metrics.f1)
PRECISION: Final = Metric("entity precision", metrics.precision)
RECALL: Final = Metric("entity recall", metrics.recall)
COVERED: Final = Metric("covered characters", metrics.recall)
AT_PRECISION: Final = Metric("recall at precision 0.9", metrics.ranked_recall)

_ANSWER_TOKENS = 96
_PROMPTS = (
    Prompt("spans-lines", "{text}\n\nList the {kinds} in the text above, one per line, as: kind: name"),
    Prompt(
        "spans-first", "Find all {kinds} in this text.\n\nText: {text}\n\nWrite each on a line of its own as kind: name"
    ),
    Prompt("spans-json", '{text}\n\nList the {kinds} in the text as JSON: [{{"kind": "...", "text": "..."}}]'),
)
_LINE = re.compile(r"^\W*(.{1,40}?)\W*[:|=]\W*(.{1,200}?)\W*$", re.MULTILINE)
_OBJECT = re.compile(r'"(?:kind|type)"\s*:\s*"([^"]{1,40})"\s*,\s*"(?:text|name)"\s*:\s*"([^"]{1,200})"')

# What each set calls the kinds that the SDK knows too. Kinds of neither list are left out on both sides.
NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "person": "person", "PER": "person", "PERSON": "person",
        "location": "place", "LOC": "place", "place": "place", "facility": "place", "GPE": "place",
        "organisation": "organisation", "organization": "organisation", "ORG": "organisation", "group": "organisation",
        "corporation": "organisation", "political_org": "organisation", "other_org": "organisation",
        "date": "date",
    }
)  # fmt: skip
PERSONAL: Final[Mapping[str, str]] = MappingProxyType(
    {
        "PERSON": "name", "STREET_ADDRESS": "address", "ZIP_CODE": "address", "PHONE_NUMBER": "phone",
        "US_SSN": "identity number", "IP_ADDRESS": "ip", "IBAN_CODE": "iban", "DOMAIN_NAME": "url",
        "CREDIT_CARD": "card", "EMAIL_ADDRESS": "email", "GPE": "place", "ORGANIZATION": "organisation",
        "DATE_TIME": "date", "AGE": "age",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EntityMeasure:
    """Spans with a kind.

    Args:
        family: "entities" or "pii".
        text: the field of the text.
        entities: the field of the entities, each with `type`, `start` and `end` in code points.
        group: the field that rows with a common origin share.
    """

    family: str = "entities"
    text: str = "text"
    entities: str = "entities"
    group: str | None = None

    def rows(self, session: Session, sample: Sample) -> list[Row]:
        """Figures of the set."""
        personal = self.family == "pii"
        texts = [record.string(self.text) for record in sample.records]
        marked = [self._marked(record) for record in sample.whole]
        kinds = {kind for found in marked for _, _, kind in found}  # a set need not know all kinds of the SDK
        gold = [self._marked(record) for record in sample.records]
        form: Any = PersonalData if personal else Entities
        answers: Answers[Any] = session.analyse(texts, form)
        read: Callable[[Any], Mapping[Place, float]] = _items if personal else _entities
        ranked = [_known(kinds, read(answer.output)) if answer is not None else {} for answer in answers.values]
        ours = [frozenset(each) for each in ranked]
        fills = [{"text": text, "kinds": ", ".join(sorted(kinds))} for text in texts]
        asked = session.ask(_PROMPTS, fills, _ANSWER_TOKENS)
        naive = {
            name: [_of(kinds, parse_spans(said, text, kinds)) for said, text in zip(given, texts, strict=True)]
            for name, given in asked.answers.items()
        }
        by_rules = [_known(kinds, _rules(text)) for text in texts] if personal else None
        rules = None if by_rules is None else [frozenset(each) for each in by_rules]
        groups = [str(record.values.get(self.group)) for record in sample.records] if self.group else []

        def outcomes(count: Callable[[Found, Found], Counts]) -> Outcomes[Counts]:
            def all_of(system: Sequence[Found]) -> list[Counts]:
                return [count(wanted, given) for wanted, given in zip(gold, system, strict=True)]

            trivial = None if rules is None else ("rules alone", all_of(rules))
            return Outcomes(all_of(ours), {name: all_of(each) for name, each in naive.items()}, trivial, groups)

        about = About(sample.set, self.family, answers.seconds, asked.seconds, asked.noted(answers.note))
        found = [compare(about, metric, outcomes(exact), ranked_by=F1) for metric in (F1, PRECISION, RECALL)]
        if by_rules is None:
            return found
        lines = {"rules alone": [ranked_by_confidence(*pair) for pair in zip(gold, by_rules, strict=True)]}
        mine = [ranked_by_confidence(*pair) for pair in zip(gold, ranked, strict=True)]
        at_precision = compare(about, AT_PRECISION, Outcomes(mine, lines, None, groups))
        return [*found, compare(about, COVERED, outcomes(covered)), at_precision]

    def _marked(self, record: Record) -> Found:
        found = set()
        known = PERSONAL if self.family == "pii" else NAMES
        text = record.string(self.text)
        for entity in record.records(self.entities):
            kind = known.get(entity.string("type"))
            start, end = int(entity.number("start")), int(entity.number("end"))
            if not 0 <= start < end <= len(text):
                raise record.fault("an entity lies outside of the text")
            if kind is not None:
                found.add((start, end, kind))
        return frozenset(found)


def exact(gold: Found, given: Found) -> Counts:
    """Span and kind have to be the same."""
    return Counts(len(gold & given), len(given), len(gold))


def ranked_by_confidence(gold: Found, given: Mapping[Place, float]) -> Ranked:
    """What a system found in a row, with its confidence and whether it is exactly right."""
    return Ranked(tuple((confidence, place in gold) for place, confidence in given.items()), len(gold))


def covered(gold: Found, given: Found) -> Counts:
    """Characters, whatever the kind: what a blacked-out copy would hide."""
    wanted = {at for start, end, _ in gold for at in range(start, end)}
    hidden = {at for start, end, _ in given for at in range(start, end)}
    return Counts(len(wanted & hidden), len(hidden), len(wanted))


def parse_spans(answer: str, text: str, kinds: Iterable[str]) -> Iterable[tuple[int, int, str]]:
    """Spans of a free answer: objects of JSON, or lines of kind and name in either order, looked up in the text."""
    pairs = _OBJECT.findall(answer) or _LINE.findall(answer)
    known = sorted(kinds, key=lambda kind: (kind == "address", kind))  # "email address" is an email
    for left, right in pairs:
        for said, name in ((left, right), (right, left)):
            heard = said.casefold().replace("organiz", "organis").replace("location", "place")
            kind = next((kind for kind in known if re.search(rf"\b{kind}", heard)), None)
            if kind is not None:
                for part in re.split(r"[,;]\s*", name.strip(" \"'")):
                    yield from ((span.start, span.end, kind) for span in find_all(text, part))
                break


def _of(kinds: set[str], spans: Iterable[tuple[int, int, str]]) -> Found:
    return frozenset(span for span in spans if span[2] in kinds)


def _known(kinds: set[str], found: Mapping[Place, float]) -> dict[Place, float]:
    return {place: confidence for place, confidence in found.items() if place[2] in kinds}


def _entities(output: Entities) -> dict[Place, float]:
    return {(span.start, span.end, one.kind): one.confidence for one in output.entities for span in one.spans}


def _items(output: PersonalData) -> dict[Place, float]:
    return {(span.start, span.end, one.kind): one.confidence for one in output.items for span in one.spans}


def _rules(text: str) -> dict[Place, float]:
    return {(found.span.start, found.span.end, found.kind): found.confidence for found in find_personal(text)}
