"""Plain text: how well the model predicts it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ondevice_sdk.evaluate.measures.measure import Sample
from ondevice_sdk.evaluate.report import Row
from ondevice_sdk.evaluate.session import Session


@dataclass(frozen=True, slots=True)
class PredictionMeasure:
    """Perplexity in a worker of its own, as private as the client's. Cases are windows of the text."""

    text: str = "text"
    tokens: int = 4096
    family: str = "perplexity"

    def rows(self, session: Session, sample: Sample) -> list[Row]:
        """Figures of the set."""
        from ondevice_sdk.evaluate import perplexity  # starts workers by itself, which no other measure needs

        texts = [record.string(self.text) for record in sample.records]
        result = perplexity.perplexity(
            session.client.model.path,
            texts,
            tokens=self.tokens,
            privacy=session.client.privacy_report().level,
            on_progress=lambda _: session.tick(),
        )
        return [
            dataclasses.replace(row, seconds=round(result.seconds, 2)) for row in perplexity.rows(result, sample.set)
        ]
