"""Sets for which the SDK has no task yet."""

from __future__ import annotations

from dataclasses import dataclass

from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Session


@dataclass(frozen=True, slots=True)
class Missing:
    """A row that says why there is no figure, so that a gap is seen and not forgotten."""

    family: str
    metric: str
    reason: str

    def rows(self, session: Session, sample: Sample) -> list[Row]:  # noqa: ARG002 - as all measures
        """One row without figures."""
        return [Row(sample.set, self.family, self.metric, len(sample.records), note=f"not available: {self.reason}")]
