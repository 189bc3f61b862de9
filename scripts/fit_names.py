"""Fit how names are told: the weights in `text/naming.py`, from labelled texts and the scores of an installed model.

    python scripts/fit_names.py MODEL --data DIR [--scores FILE]

Scores are kept in FILE, so that a run that was stopped goes on, and fitting again asks the model nothing. Prints the
figures of cross-validation (by rows; rows of one template together) and the weights. `ondevice evaluate` on the same
texts would flatter the SDK, since the weights were fitted to them; the figures printed here do not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ondevice_sdk import Client
from ondevice_sdk.backends.api import Raw, Request, Result, Score, Scored, Tokenize, Tokenized
from ondevice_sdk.call import run
from ondevice_sdk.evaluate.data import read_records
from ondevice_sdk.evaluate.measures.entities import NAMES, EntityMeasure
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.session import Answers, Asked
from ondevice_sdk.tasks.flow import Flow, Step, run_with
from ondevice_sdk.tasks.names import evidence_of, requests_for
from ondevice_sdk.tasks.quoting import QUOTING
from ondevice_sdk.text import naming
from ondevice_sdk.text.candidates import Candidate, candidates
from ondevice_sdk.text.naming import ASKED, KINDS
from ondevice_sdk.types import Usage

SETS = ("ner_uner_en_ewt", "pii_presidio_synth", "ner_wnut17", "ner_uner_ru_pud", "ner_ja_wikipedia")
KNOWN = {**NAMES, "GPE": "place", "ORGANIZATION": "organisation", "PERSON": "person"}
FOLDS = 5
BATCH = 64


@dataclass(frozen=True)
class Case:
    """A candidate, what it is, and which cases must stay on its side of a split."""

    set: str
    group: str
    row: int
    candidate: Candidate
    kind: str
    requests: tuple[Score, ...]


def cases(folder: Path, name: str) -> tuple[list[Case], set[str]]:
    """The candidates of a set, and its groups, also those without a candidate."""
    found: list[Case] = []
    groups = set()
    for row, line in enumerate((folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()):
        record = json.loads(line)
        kinds = {(one["start"], one["end"]): KNOWN.get(one["type"], "none") for one in record["entities"]}
        group = f"{name}/{record.get('template_id', row)}"
        groups.add(group)
        for candidate in candidates(record["text"]):
            kind = kinds.get((candidate.span.start, candidate.span.end), "none")
            asked = requests_for(record["text"], candidate)
            found.append(Case(name, group, row, candidate, kind if kind in KINDS else "none", asked))
    return found, groups


def fingerprint(request: Score) -> str:
    """A name for a request that holds no text."""
    assert isinstance(request.prompt, Raw)
    said = "".join(segment.text for segment in request.prompt.segments)
    return hashlib.sha256("\0".join((said, *request.continuations)).encode()).hexdigest()[:24]


def collect(model: str, requests: Sequence[Score], path: Path) -> dict[str, list[float]]:
    """The scores of all requests, from the file or the model."""
    known: dict[str, list[float]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            known[entry["key"]] = entry["logprobs"]
    missing = [request for request in dict.fromkeys(requests) if fingerprint(request) not in known]
    if missing:
        print(f"{len(missing)} of {len(requests)} scores are asked of the model", flush=True)

        def flow(batch: Sequence[Score], *, context_tokens: int) -> Flow[list[Scored]]:  # noqa: ARG001
            return [result for result in (yield Step(tuple(batch))) if isinstance(result, Scored)]

        with Client(model, context=2048) as ai, path.open("a", encoding="utf-8") as file:
            for at in range(0, len(missing), BATCH):
                batch = missing[at : at + BATCH]
                for request, result in zip(batch, run(ai._start(flow, batch)), strict=True):
                    known[fingerprint(request)] = list(result.logprobs)
                    file.write(json.dumps({"key": fingerprint(request), "logprobs": result.logprobs}) + "\n")
                file.flush()
    return known


def matrix(found: Sequence[Case], scores: dict[str, list[float]], cues: Sequence[str]) -> Any:
    """A row of numbers for each case: one, the cues, and the evidence, scaled to be about as large."""
    rows = []
    for case in found:
        told = evidence_of([scores[fingerprint(request)] for request in case.requests])
        rows.append([1.0, *(float(cue in case.candidate.cues) for cue in cues), *(value / SCALE for value in told)])
    return np.array(rows)


def train(x: Any, y: Any, penalty: float, prior: Any, steps: int = 600) -> Any:
    """Weights of a multinomial logistic regression, pulled to a prior, "none" held at zero, by Adam."""
    count = len(y)
    target = np.eye(len(KINDS))[y]
    weights, mean, square = prior.copy(), np.zeros_like(prior), np.zeros_like(prior)
    for step in range(1, steps + 1):
        gradient = x.T @ (softmax(x @ weights) - target)
        gradient[1:] += penalty * (weights - prior)[1:]
        gradient[:, 0] = 0
        gradient /= count
        mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
        weights -= 0.1 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
    return weights


def softmax(logits: Any) -> Any:
    """Rows that sum to 1."""
    shares = np.exp(logits - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def cross_validated(x: Any, y: Any, held: Any, penalty: float, prior: Any) -> tuple[Any, list[Any]]:
    """The chances of every case by weights that were fitted without its fold, and the weights of each fold."""
    chances = np.zeros((len(y), len(KINDS)))
    weights = []
    for number in range(FOLDS):
        weights.append(train(x[held != number], y[held != number], penalty, prior))
        chances[held == number] = softmax(x[held == number] @ weights[-1])
    return chances, weights


def table(weights: Any, cues: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Fitted weights as `text.naming` has them."""
    unscaled = weights.copy()
    unscaled[1 + len(cues) :] /= SCALE
    return {name: tuple(row[1:].tolist()) for name, row in zip(("always", *cues, *ASKED), unscaled, strict=True)}


@dataclass
class Offline:
    """Answers what `EntityMeasure` asks a session from saved scores; each row by weights fitted without its group."""

    scores: dict[str, list[float]]
    weights: Sequence[Any]
    folds: Sequence[int]  # of the rows

    def analyse(self, texts: Sequence[str], form: Any) -> Answers[Any]:
        """One analysis per text."""
        values: list[Any] = []
        for text, fold in zip(texts, self.folds, strict=True):
            naming.WEIGHTS = self.weights[fold]  # type: ignore[misc]
            values.append(run_with(QUOTING[form](text, context_tokens=2048), self.answer))
        return Answers(values, 0.0, {})

    def answer(self, request: Request) -> Result:
        """As the model did."""
        if isinstance(request, Score):
            logprobs = tuple(self.scores[fingerprint(request)])
            return Scored(logprobs, (1,) * len(logprobs), Usage())
        assert isinstance(request, Tokenize)
        return Tokenized((1,) * (len(request.texts) + len(request.prompts)))

    def ask(self, *_: object) -> Asked:
        """No naive prompts."""
        return Asked({})


def whole(
    folder: Path, name: str, scores: dict[str, list[float]], weights: Sequence[Any], fold: dict[str, int]
) -> None:
    """The figures of `ondevice evaluate` for a set, cross-validated."""
    records = read_records(folder / f"{name}.jsonl")
    groups = [f"{name}/{record.values.get('template_id', row)}" for row, record in enumerate(records)]
    session: Any = Offline(scores, weights, [fold[group] for group in groups])
    personal = name.startswith("pii")
    measure = EntityMeasure("pii", group="template_id") if personal else EntityMeasure()
    for row in measure.rows(session, Sample(name, records, records)):
        against = f"; {row.best_naive.name} {row.best_naive.figure}" if row.best_naive else ""
        print(f"  {name:20} {row.metric}: {row.sdk}{against}{f'; more by {row.difference}' if row.difference else ''}")


PRIORS = {  # what needs no data: "Dr." stands before a person, "Ltd" in the name of a company
    "honorific": (0.0, 1.5, -0.5, -0.5),
    "company": (0.0, -0.5, -0.5, 1.5),
}
SCALE = 3.0  # of the log-probabilities, so that one penalty fits them and the cues
LEAST_SEEN = 8  # cases with a cue, below which it gets no weight


def main() -> None:
    """Collect, fit, report, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--scores", type=Path, default=Path("name_scores.jsonl"))
    parser.add_argument("--penalty", type=float, default=3.0)
    options = parser.parse_args()
    found: list[Case] = []
    groups: set[str] = set()
    for name in options.sets.split(","):
        more, theirs = cases(options.data, name)
        found += more
        groups |= theirs
    scores = collect(options.model, [request for case in found for request in case.requests], options.scores)
    seen = Counter(cue for case in found for cue in case.candidate.cues)
    cues = sorted(cue for cue, count in seen.items() if count >= LEAST_SEEN)
    x = matrix(found, scores, cues)
    y = np.array([KINDS.index(case.kind) for case in found])
    names = sorted(groups)
    order = np.random.default_rng(0).permutation(len(names))
    fold = {name: int(order[index]) % FOLDS for index, name in enumerate(names)}
    held = np.array([fold[case.group] for case in found])
    prior = np.zeros((x.shape[1], len(KINDS)))
    for index, cue in enumerate(cues, 1):
        prior[index] = PRIORS.get(cue, (0.0,) * len(KINDS))
    for title, columns in (("shape alone", x[:, : 1 + len(cues)]), ("shape and model", x)):
        chances, weights = cross_validated(columns, y, held, options.penalty, prior[: columns.shape[1]])
        likely = -float(np.mean(np.log(chances[np.arange(len(y)), y])))
        print(f"{title}: {len(y)} candidates, log loss {likely:.4f}")
        missing = x.shape[1] - columns.shape[1]
        tables = [table(np.vstack([each, np.zeros((missing, len(KINDS)))]), cues) for each in weights]
        for name in options.sets.split(","):
            whole(options.data, name, scores, tables, fold)
    print("WEIGHTS = {")
    for name, row in table(train(x, y, options.penalty, prior), cues).items():
        print(f'    "{name}": ({", ".join(f"{value:.2f}" for value in row)}),')
    print("}")


if __name__ == "__main__":
    main()
