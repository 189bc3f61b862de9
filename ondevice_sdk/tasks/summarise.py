"""Summarise a text of any length: read all of it, write, and check every statement against the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ondevice_sdk.backends.api import Chat, Generate, Generated, Sampling
from ondevice_sdk.errors import GenerationFailed
from ondevice_sdk.tasks.flow import Flow, Step
from ondevice_sdk.tasks.generate import check_seed
from ondevice_sdk.tasks.plan import NOTES, TOKENS_PER_STATEMENT, Plan, plan_for
from ondevice_sdk.tasks.reading import CHUNK_TOKENS, Chunk, Room, count_tokens, room_for_text, split_to_fit
from ondevice_sdk.tasks.statements import beginnings, check, parse, quote, shorten
from ondevice_sdk.text.spans import Document
from ondevice_sdk.text.split import check_encodable, check_text, count_words
from ondevice_sdk.types import Coverage, Format, Length, Point, Style, Summary, Usage

_FEW_WORDS = 6  # a text with fewer is its own summary
_NOTES_TOKENS = TOKENS_PER_STATEMENT * (NOTES + 1)
_UNSPACED_ENDS = "。！？｡"  # noqa: RUF001
_TRIED = 12  # sentences, for one that keeps to a limit of words
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
        results = yield Step(tuple(Generate(prompt, max_tokens, sampling) for prompt in distinct), stage)
        answers: dict[Chat, Generated] = {}
        for prompt, result in zip(distinct, results, strict=True):
            if not isinstance(result, Generated):
                raise GenerationFailed("the engine answered a generation with something else")
            self.usage += result.usage
            self.calls += 1
            answers[prompt] = result
        return [answers[prompt] for prompt in prompts]


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
    ("writing"). Statements that the text does not bear out give way to its own sentences. A text with fewer sentences
    than points asked for gives fewer points. `length` as a number of words is never passed: statements are left out,
    and only a single sentence that is still too long is cut, with a warning. With `language`, a statement in another
    language than the text's can be checked by its numbers and names only, which a warning says.

    Raises:
        ConfigurationError: an empty text, a lone surrogate or a wrong option. InputTooLong: `context` leaves no room.
    """
    check_text(text)
    for name, value in (("language", language), ("context", context)):
        if isinstance(value, str):
            check_encodable(value, name)
    check_seed(seed)
    plan = plan_for(style, length, format, language, context)
    document = Document(text)
    tally = _Tally(seed)
    warnings: list[str] = []
    if language is None and count_words(text[:1000]) < _FEW_WORDS and len(text) < 40:
        points = [quote(span) for span in document.sentences[: plan.statements]]
    else:
        rooms = (Room(plan.prompt(""), plan.answer_tokens), Room(plan.notes_prompt(""), _NOTES_TOKENS))
        chunks = yield from split_to_fit(text, rooms, context_tokens)
        source = chunks[0].text
        if len(chunks) > 1:
            notes = yield from _read(chunks, plan, tally)
            source = yield from _condense(notes, plan, rooms, context_tokens, tally, warnings)
        (answer,) = yield from tally.ask([plan.prompt(source)], plan.answer_tokens, "writing")
        points = check(
            _statements(answer, plan),
            document,
            plan.statements,
            translated=plan.language is not None,
            headline=plan.style == "headline",
        )
    points = _keep_to_limit(points, plan, document, warnings)
    warnings.extend(_remarks(points, plan))
    coverage = Coverage(len(text), len(text), tally.calls)
    return Summary(_render(points, plan), tuple(points), coverage, tuple(warnings), tally.usage)


def _statements(answer: Generated, plan: Plan) -> list[str]:
    found = parse(answer.text, plan.instruction, complete=answer.finish_reason != "length", prose=plan.prose)
    return [statement.rstrip(".") for statement in found[:1]] if plan.style == "headline" else found


def _read(chunks: Sequence[Chunk], plan: Plan, tally: _Tally) -> Flow[list[str]]:
    """Notes of every part, each checked against its part, so that the summary is written from facts."""
    answers = yield from tally.ask([plan.notes_prompt(chunk.text) for chunk in chunks], _NOTES_TOKENS, "reading")
    notes: list[str] = []
    for chunk, answer in zip(chunks, answers, strict=True):
        if chunk.text:
            notes.extend(_notes(answer, chunk.text, plan))
    return list(dict.fromkeys(notes))


def _notes(answer: Generated, source: str, plan: Plan) -> list[str]:
    said = parse(answer.text, plan.notes_prompt("").messages[-1].content, complete=answer.finish_reason != "length")
    return [point.text for point in check(said, Document(source), NOTES, translated=plan.language is not None)]


def _condense(
    notes: list[str], plan: Plan, rooms: Sequence[Room], context_tokens: int, tally: _Tally, warnings: list[str]
) -> Flow[str]:
    """Bring notes down to what one prompt holds: summarise groups of them, round by round."""
    while True:
        counts, frames = yield from count_tokens(notes, [room.frame for room in rooms])
        budget = min(CHUNK_TOKENS, room_for_text(rooms, frames, context_tokens))
        groups = _groups(notes, [count + 1 for count in counts], budget)
        if len(groups) == 1:
            return "\n".join(groups[0])
        fewer: list[str] = []
        if len(groups) * NOTES < len(notes):
            prompts = [plan.notes_prompt("\n".join(group)) for group in groups]
            answers = yield from tally.ask(prompts, _NOTES_TOKENS, "writing")
            for group, answer in zip(groups, answers, strict=True):
                fewer.extend(_notes(answer, "\n".join(group), plan))
            fewer = list(dict.fromkeys(fewer))
        if not fewer or len(fewer) >= len(notes):  # the context is too small for a tree of notes
            fewer = notes[:: max(2, len(groups))]
            warnings.append("the notes of a long text did not fit into the context: some were left out")
        notes = fewer


def _groups(notes: Sequence[str], counts: Sequence[int], budget: int) -> list[list[str]]:
    """Neighbouring notes that fit together. One that fills the budget alone is shortened to a safe size."""
    groups: list[list[str]] = [[]]
    filled = 0
    for note, count in zip(notes, counts, strict=True):
        if groups[-1] and filled + count > budget:
            groups.append([])
            filled = 0
        groups[-1].append(note if count <= budget else note[: max(1, budget // 4)])
        filled += count
    return groups


def _keep_to_limit(points: list[Point], plan: Plan, document: Document, warnings: list[str]) -> list[Point]:
    if plan.style == "headline":
        points = [replace(point, text=point.text.rstrip(".") or point.text) for point in points]
    if plan.words is None:
        return points
    points = list(points)
    while len(points) > 1 and not _within(points, plan):
        quoted = [index for index, point in enumerate(points) if point.status == "extractive"]
        del points[quoted[-1] if quoted else -1]
    if _within(points, plan):
        return points
    for count in range(1, _TRIED + 1):  # the most central one that fits, not the first in the document
        for whole in map(quote, document.central(count)):
            for text in (whole.text, *beginnings(whole.text)):
                if _within([replace(whole, text=text)], plan):
                    return [replace(whole, text=text)]
    warnings.append(f"a sentence was cut to keep to {plan.words} words")
    most = max(1, plan.words - _markers(points, plan))
    return [replace(points[0], text=shorten(points[0].text, most))]


def _within(points: Sequence[Point], plan: Plan) -> bool:
    said = sum(count_words(point.text) for point in points)
    return plan.words is None or said <= max(1, plan.words - _markers(points, plan))


def _markers(points: Sequence[Point], plan: Plan) -> int:
    """Signs of Markdown count as words, since a reader of the raw text may count them."""
    return 0 if plan.format == "plain" or plan.prose else len(points)


def _render(points: Sequence[Point], plan: Plan) -> str:
    markdown = plan.format == "markdown"
    if plan.style == "headline":
        return ("# " if markdown else "") + points[0].text
    if plan.style == "key_points":
        return "\n".join(("- " if markdown else "") + point.text for point in points)
    text = ""
    for point in points:
        text += ("" if not text or text[-1] in _UNSPACED_ENDS else " ") + point.text
    return text


def _remarks(points: Sequence[Point], plan: Plan) -> list[str]:
    remarks = []
    quoted = sum(point.status == "extractive" for point in points)
    if quoted:
        remarks.append(f"{quoted} of {len(points)} statements are sentences of the document itself")
    if plan.language is not None:
        remarks.append(
            f"statements in {plan.language} about a text in another language were checked by numbers and names only; "
            "sentences of the document keep its language"
        )
    return remarks
