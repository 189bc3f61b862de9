"""Summarise a text of any length: read all of it, write, and check every statement against the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ondevice_sdk.backends.api import Chat, Generate, Generated, Sampling
from ondevice_sdk.errors import ContractViolation, GenerationFailed
from ondevice_sdk.tasks.contracts import language_of, render, speaks
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.tasks.generate import check_seed
from ondevice_sdk.tasks.picking import Picker
from ondevice_sdk.tasks.plan import NOTES, TOKENS_PER_STATEMENT, Plan, plan_for
from ondevice_sdk.tasks.reading import CHUNK_TOKENS, Room, count_tokens, even_groups, room_for_text, split_to_fit
from ondevice_sdk.tasks.statements import parse, sift
from ondevice_sdk.text.injection import STEERING, find_steering, set_aside, without
from ondevice_sdk.text.shorten import is_whole, shorter
from ondevice_sdk.text.spans import Document
from ondevice_sdk.text.split import check_encodable, check_text, count_words
from ondevice_sdk.types import Coverage, Format, Length, Point, Span, Style, Summary, Usage

_FEW_WORDS = 6  # a text with fewer is its own summary
_FEW_TO_TELL = 20  # words; that the language of so few cannot be told says nothing about it; by eye
_NOTES_TOKENS = TOKENS_PER_STATEMENT * (NOTES + 1)
_REPAIR_TOKENS = 2 * TOKENS_PER_STATEMENT
_EVIDENCE_CHARS = 600  # of the sentences around the one that a statement seems to come from
_REPETITION_PENALTY = 1.05  # enough against loops; more makes small models leave the words of the document


@dataclass(slots=True)
class _Tally:
    """What the flow has used so far."""

    seed: int | None
    usage: Usage = field(default_factory=Usage)
    calls: int = 0

    def ask(self, prompts: Sequence[Chat], max_tokens: int, stage: str) -> Flow[list[Generated]]:
        """Generate after each prompt; equal prompts are asked once."""
        sampling = Sampling(temperature=0.0, repetition_penalty=_REPETITION_PENALTY)
        if self.seed is not None:
            sampling = replace(sampling, temperature=0.7, seed=self.seed)
        distinct = dict.fromkeys(prompts)
        same = self.seed is not None  # a seed is to give the same again, whatever else runs or is cached
        requests = tuple(Generate(prompt, max_tokens, sampling, deterministic=same) for prompt in distinct)
        results = yield Step(requests, stage)
        answers: dict[Chat, Generated] = {}
        for prompt, result in zip(distinct, results, strict=True):
            if not isinstance(result, Generated):
                raise GenerationFailed("the engine answered a generation with something else")
            self.usage += result.usage
            self.calls += 1
            answers[prompt] = result
        return [answers[prompt] for prompt in prompts]


@dataclass(slots=True, repr=False)  # a repr would show the text
class _Task:
    """One summary under way."""

    text: str
    plan: Plan
    context_tokens: int
    tally: _Tally
    document: Document = field(init=False)
    picker: Picker = field(init=False)
    translated: bool = field(init=False)
    shown: str = field(init=False)  # to the model: without passages that would steer it
    warnings: list[str] = field(init=False, default_factory=list)
    noted: list[str] = field(init=False, default_factory=list)  # by the model, and borne out by the part it is of

    def __post_init__(self) -> None:
        steering = find_steering(self.text)
        aside = set_aside(self.text, steering)
        if steering:
            self.warnings.append(f"{STEERING} and left out of the summary" if aside else STEERING)
        self.shown = without(self.text, aside)
        self.document = Document(self.text, aside)
        self.picker = Picker(self.document, self.plan)
        spoken = True if self.plan.language is None else speaks(self.text, self.plan.language)
        untold = spoken is None and language_of(self.text) is None and count_words(self.text[:1000]) < _FEW_TO_TELL
        self.translated = spoken is not True and not untold
        if untold:
            self.warnings.append(
                f"whether the text is in {self.plan.language} cannot be told: the summary is in the text's language"
            )

    def run(self) -> Flow[Summary]:
        points: list[Point] = []
        if self.plan.language is None and count_words(self.text[:1000]) < _FEW_WORDS and len(self.text) < 40:
            points = self.picker.pick([])
        else:
            source = yield from self._read()
            points = yield from self._translate(source) if self.translated else self._write(source)
        if not points:
            raise self._violation("words", [self.picker.central()])
        if self.translated:
            self._check_translation(points)
        return self._summary(points)

    # --- reading ------------------------------------------------------------------------------------------------------

    def _read(self) -> Flow[str]:
        """What the summary is written from: the text itself, or notes of all its parts."""
        plan = self.plan
        rooms = [Room(prompt, plan.answer_tokens) for prompt in (*plan.prompts(""), *plan.prompts("", insist=True))]
        rooms.append(Room(plan.notes_prompt(""), _NOTES_TOKENS))
        chunks = yield from split_to_fit(self.shown, rooms, self.context_tokens)
        if len(chunks) == 1:
            return chunks[0].text
        prompts = [plan.notes_prompt(chunk.text) for chunk in chunks]
        answers = yield from self.tally.ask(prompts, _NOTES_TOKENS, "reading")
        notes: list[str] = []
        for chunk, answer in zip(chunks, answers, strict=True):
            points = self._notes(answer, chunk.text) if chunk.text else []
            self.noted.extend(point.text for point in points if point.status != "extractive")
            notes.extend(point.text for point in points)
        source = yield from self._condense(list(dict.fromkeys(notes)), rooms)
        return source

    def _notes(self, answer: Generated, source: str) -> list[Point]:
        """What the model noted of a part and the part bears out; else what the part itself says."""
        instruction = self.plan.notes_prompt("").messages[-1].content
        said = parse(answer.text, instruction, complete=answer.finish_reason != "length")
        document = Document(source)
        own, _ = sift(said, document, translated=self.translated)
        return Picker(document, self.plan.for_notes).pick(own)

    def _condense(self, notes: list[str], rooms: Sequence[Room]) -> Flow[str]:
        """Bring notes down to what one prompt holds: summarise even groups of them, round by round."""
        while True:
            counts, frames = yield from count_tokens(notes, [room.frame for room in rooms])
            budget = min(CHUNK_TOKENS, room_for_text(rooms, frames, self.context_tokens))
            groups = even_groups(notes, [count + 1 for count in counts], budget)
            if len(groups) == 1:
                return "\n".join(groups[0])
            fewer: list[str] = []
            if len(groups) * NOTES < len(notes):
                sources = ["\n".join(group) for group in groups]
                prompts = [self.plan.notes_prompt(source) for source in sources]
                answers = yield from self.tally.ask(prompts, _NOTES_TOKENS, "writing")
                for source, answer in zip(sources, answers, strict=True):
                    fewer.extend(point.text for point in self._notes(answer, source))
                fewer = list(dict.fromkeys(fewer))
            if not fewer or len(fewer) >= len(notes):  # the context is too small for a tree of notes
                fewer = notes[:: max(2, len(groups))]
                self.warnings.append("the notes of a long text did not fit into the context: some were left out")
            notes = fewer

    # --- writing ------------------------------------------------------------------------------------------------------

    def _write(self, source: str) -> Flow[list[Point]]:
        """Points in the language of the text: the model's, repaired ones, and sentences of the text for the rest."""
        said = yield from self._ask(source)
        headline = self.plan.style == "headline"
        own, failed = sift(said, self.document, headline=headline)
        usable = [point for point in own if self.picker.fits(point)]
        missing = self.plan.statements - len(usable)
        if self.noted and not headline and missing > 0:
            noted, _ = sift(dict.fromkeys(self.noted), self.document)
            usable.extend(point for point in noted if self.picker.fits(point))
            missing = self.plan.statements - len(usable)
        wrong = [*failed, *(point.text for point in own if not self.picker.fits(point))]
        if missing > 0 and (wrong or not self.picker.pick(usable)):
            repaired = yield from self._repair(wrong or [self.picker.central().text], missing)
            usable.extend(repaired)
        meant = [span for statement in failed if (span := self.document.nearest(statement)) is not None]
        return self.picker.pick(usable, meant)

    def _ask(self, source: str, *, insist: bool = False) -> Flow[list[str]]:
        """The statements of all answers."""
        prompts = self.plan.prompts(source, insist=insist)
        answers = yield from self.tally.ask(prompts, self.plan.answer_tokens, "writing")
        return list(dict.fromkeys(statement for answer in answers for statement in self._statements(answer)))

    def _statements(self, answer: Generated) -> list[str]:
        """What an answer says. A sentence that the end of the answer cut is taken in a shorter form, or not at all."""
        plan = self.plan
        complete = answer.finish_reason != "length"
        found = parse(answer.text, plan.instruction, complete=complete, prose=plan.prose)
        if plan.style == "headline":
            return [statement.rstrip(".") or statement for statement in found[:1]]
        if found and not complete and not is_whole(found[-1]) and not answer.text.endswith("\n"):
            found[-1:] = [form for form in shorter(found[-1]) if form != found[-1]][:1]
        if plan.prose:
            found = [statement if is_whole(statement) else f"{statement}." for statement in found]
        return found

    def _repair(self, statements: Sequence[str], most: int) -> Flow[list[Point]]:
        """Have statements written again, once, beside the sentences that they seem to come from."""
        prompts: list[Chat] = []
        for statement in statements:
            span = self.document.nearest(statement)
            if span is not None and len(prompts) < most:
                prompts.append(self.plan.repair_prompt(self._evidence(span), statement))
        if not prompts:
            return []
        _, counts = yield from count_tokens((), prompts)
        room = self.context_tokens - _REPAIR_TOKENS
        prompts = [prompt for prompt, count in zip(prompts, counts, strict=True) if count <= room]
        if not prompts:
            return []
        answers = yield from self.tally.ask(prompts, _REPAIR_TOKENS, "repairing")
        said = [statement for answer in answers for statement in self._statements(answer)[:1]]
        points, _ = sift(said, self.document, headline=self.plan.style == "headline")
        return [replace(point, status="repaired") for point in points]

    def _evidence(self, span: Span) -> str:
        """A sentence with its neighbours, as far as they are short."""
        spans = self.document.sentences
        index = next(index for index, each in enumerate(spans) if each.start == span.start)
        around = spans[max(0, index - 1) : index + 2]
        text = " ".join(each.text for each in around)
        return text if len(text) <= _EVIDENCE_CHARS else span.text

    # --- in another language ------------------------------------------------------------------------------------------

    def _translate(self, source: str) -> Flow[list[Point]]:
        """Points in another language than the text's. No sentence of the text can stand in, so it is asked twice."""
        assert self.plan.language is not None
        own: list[Point] = []
        for insist in (False, True):
            said = yield from self._ask(source, insist=insist)
            spoken = [statement for statement in said if speaks(statement, self.plan.language) is not False]
            points, doubtful = sift(spoken, self.document, translated=True)
            own.extend(points)
            back = yield from self._bring_back(doubtful)
            own.extend(back)
            picked = self.picker.pick(own, quotes=False)
            if len(picked) >= self.plan.statements and speaks(_joined(picked), self.plan.language) is not False:
                break
        return picked or self.picker.pick([])

    def _bring_back(self, statements: Sequence[str]) -> Flow[list[Point]]:
        """Points of translated statements whose translation back into the text's language the text bears out."""
        language = language_of(self.text)
        if not statements or language is None:
            return []
        prompts = [self.plan.back_prompt(statement, language) for statement in statements]
        answers = yield from self.tally.ask(prompts, _REPAIR_TOKENS, "checking")
        points = []
        for statement, answer in zip(statements, answers, strict=True):
            support = self.document.support(" ".join(answer.text.split()))
            if support.supported:
                points.append(Point(statement, support.spans, "supported"))
        return points

    def _check_translation(self, points: list[Point]) -> None:
        """Raise where the language cannot be kept, or not by as many points as were asked for."""
        language = self.plan.language or ""
        if all(point.status == "extractive" for point in points) or speaks(_joined(points), language) is False:
            raise self._violation("language", points)
        if self.plan.words is None and len(points) < min(self.plan.statements, len(self.document.sentences)):
            raise self._violation("points", points)
        if speaks(_joined(points), language) is None:
            self.warnings.append(f"whether the summary is in {language} cannot be told")
        self.warnings.append("statements in another language than the text's were checked by translation or names only")

    # --- the result ---------------------------------------------------------------------------------------------------

    def _summary(self, points: list[Point]) -> Summary:
        quoted = sum(point.status == "extractive" for point in points)
        remarks = [f"{quoted} of {len(points)} statements are sentences of the document itself"] if quoted else []
        coverage = Coverage(len(self.text), len(self.text), self.tally.calls)
        text = render(points, self.plan)
        return Summary(text, tuple(points), coverage, (*self.warnings, *remarks), self.tally.usage)

    def _violation(self, contract: str, best: list[Point]) -> ContractViolation:
        hints = {
            "words": "allow more words: the text has no sentence, and the model wrote none, that is so short",
            "language": "the model does not write this language well enough: take a larger one",
            "points": "ask for fewer points, or take a larger model",
        }
        message = f"the summary cannot keep its promise about {contract}"
        return ContractViolation(message, contract=contract, best=self._summary(best), hint=hints[contract])


def summarise(
    text: str,
    *,
    context_tokens: int,
    style: Style = "key_points",
    length: Length = "medium",
    format: Format = "plain",  # noqa: A002
    language: str | None = None,
    context: str | None = None,
    seed: int | None = None,
) -> Flow[Summary]:
    """Summarise a text.

    A text that does not fit is read in parts ("reading"), whose notes are joined, in several rounds if need be
    ("writing"). A statement that the text does not bear out is written again once ("repairing"), else sentences of the
    text stand in. A text with fewer sentences than points asked for gives fewer points. `length` as a number of words
    is never passed and no sentence is cut: later clauses and asides are left out, or whole statements. With `language`,
    a statement in another language than the text's is checked by numbers and names, or translated back ("checking").
    Passages that try to steer the model are left out, which a warning says.

    Raises:
        ConfigurationError: an empty text, a lone surrogate or a wrong option. InputTooLong: `context` leaves no room.
        ContractViolation: no sentence is short enough for `length`, or the model does not write the `language`;
            `.best` is the nearest summary.
    """
    check_text(text)
    for name, value in (("language", language), ("context", context)):
        if isinstance(value, str):
            check_encodable(value, name)
    check_seed(seed)
    plan = plan_for(style, length, format, language, context)
    summary = yield from _Task(text, plan, context_tokens, _Tally(seed)).run()
    return summary


def _joined(points: Sequence[Point]) -> str:
    return " ".join(point.text for point in points)
