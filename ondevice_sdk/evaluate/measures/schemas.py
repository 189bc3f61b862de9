"""JSON schemas: which are accepted, and whether what is written under them is valid."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ondevice_sdk.errors import ConfigurationError, OnDeviceError, OutputInvalid, SchemaUnsupported
from ondevice_sdk.evaluate.compare import About, Metric, Outcomes, compare
from ondevice_sdk.evaluate.measures.extraction import first_json
from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Prompt, Session
from ondevice_sdk.types import Generation, JsonValue

_TASK = "Write a short example document."
_SHOWN = 3000  # characters of a schema in a naive prompt: a longer one is cut, as an app would have to
_PROMPTS = (
    Prompt("schema-after", "{schema}\n\nWrite a short JSON document that is valid under the schema above."),
    Prompt("schema-first", "Write only JSON, no explanation. It has to fit this JSON schema: {schema}"),
    Prompt("schema-example", "Give an example of JSON for this schema.\n\nSchema: {schema}\n\nJSON:"),
)


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a schema: was it accepted, was a value written to its end, and does that fit the schema.

    Where no value of the schema is as short as it would have to be, nothing is written.
    """

    accepted: bool
    finished: bool
    valid: bool
    too_long: bool = False


def _acceptance(rows: Sequence[Written]) -> float:
    return sum(row.accepted for row in rows) / len(rows)


def _validity(rows: Sequence[Written]) -> float:
    return sum(row.valid for row in rows) / len(rows)


def _closed(rows: Sequence[Written]) -> float:
    possible = [row for row in rows if row.accepted and not row.too_long]
    return sum(row.valid for row in possible) / len(possible) if possible else 0.0


def _kept(rows: Sequence[Written]) -> float:
    finished = [row for row in rows if row.finished]
    return sum(row.valid for row in finished) / len(finished) if finished else 0.0


ACCEPTANCE: Final = Metric("schema acceptance", _acceptance)
VALIDITY: Final = Metric("valid output", _validity)
KEPT: Final = Metric("validity of finished", _kept)
# Few enough that tokens run out in most schemas, many enough that some values fit.
CLOSED: Final = {tokens: Metric(f"valid within {tokens} tokens", _closed) for tokens in (16, 48)}


@dataclass(frozen=True, slots=True)
class SchemaMeasure:
    """Acceptance, and validity as the jsonschema package sees it.

    An answer that is not complete is not finished, and not valid. References to other documents are not followed.
    Values are asked for with very few tokens too: of the schemas that have a value so short, all are to get one.

    Args:
        family: the word for `--only`.
        schema: the field of the schema.
        max_tokens: of an answer.
    """

    family: str = "schema"
    schema: str = "schema"
    max_tokens: int = 256

    def rows(self, session: Session, sample: Sample) -> list[Row]:
        """Figures of the set."""
        schemas = [record.mapping(self.schema) for record in sample.records]
        tasks = [(_TASK, schema) for schema in schemas]
        results, seconds = session.fill(tasks, self.max_tokens)
        ours = [_written(schema, result) for schema, result in zip(schemas, results, strict=True)]
        fills = [{"schema": json.dumps(schema, separators=(",", ":"))[:_SHOWN]} for schema in schemas]
        asked = session.ask(_PROMPTS, fills, self.max_tokens)
        naive = {
            name: [_read(schema, said) for said, schema in zip(given, schemas, strict=True)]
            for name, given in asked.answers.items()
        }
        about = About(sample.set, self.family, seconds, asked.seconds, asked.noted(_note(results)))
        quiet = About(sample.set, self.family)
        rows = [
            compare(quiet, ACCEPTANCE, Outcomes(ours)),
            compare(quiet, KEPT, Outcomes(ours)),
            compare(about, VALIDITY, Outcomes(ours, naive)),
        ]
        for tokens, metric in CLOSED.items():
            short = session.fill(tasks, tokens)[0]
            cut = [_written(schema, result) for schema, result in zip(schemas, short, strict=True)]
            noted = About(sample.set, self.family, note=f"{sum(row.too_long for row in cut)} have no value so short")
            rows.append(compare(noted, metric, Outcomes(cut)))
        return rows


def is_valid(value: JsonValue, schema: Mapping[str, JsonValue]) -> bool:
    """Whether a value fits a schema of whatever draft it names, the newest if none. Opens no connection.

    A schema that is none itself, or with a pattern or reference that cannot be followed here, fits nothing.

    Raises:
        ConfigurationError: the package for it is missing.
    """
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError, UnknownType, ValidationError
        from jsonschema.validators import validator_for
        from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]
        from referencing.exceptions import Unresolvable
    except ImportError as error:
        raise ConfigurationError("jsonschema is not installed", hint="pip install 'ondevice-sdk[evaluate]'") from error
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        # With a registry of its own jsonschema never fetches what a schema refers to.
        kind.check_schema(schema)
        kind(schema, registry=REGISTRY).validate(value)
    except (ValidationError, SchemaError, UnknownType, Unresolvable, RecursionError, re.error):
        return False
    return True


def _read(schema: Mapping[str, JsonValue], said: str) -> Written:
    """A free answer: JSON as a whole, which may be a mere string or number, or JSON somewhere in it."""
    try:
        value = json.loads(said)
    except (ValueError, RecursionError):
        value = first_json(said)
        if value is None:
            return Written(accepted=True, finished=False, valid=False)
    return Written(accepted=True, finished=True, valid=is_valid(value, schema))


def _written(schema: Mapping[str, JsonValue], result: Generation[JsonValue] | OnDeviceError) -> Written:
    if isinstance(result, OutputInvalid) and not result.raw:
        return Written(accepted=True, finished=False, valid=False, too_long=True)
    if isinstance(result, OnDeviceError):
        return Written(not isinstance(result, SchemaUnsupported), finished=False, valid=False)
    return Written(accepted=True, finished=True, valid=is_valid(result.output, schema))


def _note(results: Sequence[Generation[JsonValue] | OnDeviceError]) -> str:
    kinds = Counter(result.code for result in results if isinstance(result, OnDeviceError))
    return ", ".join(f"{count} {code}" for code, count in sorted(kinds.items()))
