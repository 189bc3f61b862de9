"""What all measures have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ondevice_sdk.evaluate.data import Record
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Session


@dataclass(frozen=True, slots=True)
class Sample:
    """The rows of a set that are measured, and all rows of it, from which labels and fields are read.

    `beside` are the rows of other sets that these refer to, such as documents.
    """

    set: str
    records: Sequence[Record]
    whole: Sequence[Record]
    beside: Mapping[str, Sequence[Record]] = field(default_factory=dict)


class Measure(Protocol):
    """Figures of one kind of task."""

    @property
    def family(self) -> str:
        """The word for `--only`."""

    def rows(self, session: Session, sample: Sample) -> list[Row]:
        """Measure. Rows with a wrong form are errors; calls that fail count as wrong.

        Raises:
            ConfigurationError: a row lacks a field.
        """
