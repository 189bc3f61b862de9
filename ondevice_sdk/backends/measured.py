"""What was measured of an installed model with a backend on this device: through the engine, by the app's own clock."""

from __future__ import annotations

from dataclasses import dataclass

from ondevice_sdk.intervals import middle, ranked
from ondevice_sdk.types import MeasuredSpeed


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of one turn: until the first token after the long prompt, and for each token of an answer."""

    first_s: float
    token_s: float


@dataclass(frozen=True, slots=True)
class ModelSpeed:
    """The rounds of one model with one backend, its library and a number of threads.

    All that took part in a `session` took turns: their rounds can be compared one by one. The first token was waited
    for after `prompt_tokens`, and tokens were written at about the position `position`. Where `failed` says why the
    model could not be run, there are no rounds.
    """

    name: str
    variant: str
    backend: str
    library: str  # "llama.cpp 0.3.36"
    threads: int
    session: str
    prompt_tokens: int = 0
    position: int = 0
    rounds: tuple[Round, ...] = ()
    failed: str = ""

    @property
    def typical(self) -> Round:
        """The medians of the rounds."""
        rounds = self.rounds
        return Round(middle([each.first_s for each in rounds]), middle([each.token_s for each in rounds]))

    def figures(self) -> MeasuredSpeed:
        """What people are shown of it: tokens/s as they were measured."""
        return MeasuredSpeed(
            library=self.library,
            threads=self.threads,
            rounds=len(self.rounds),
            prompt_tokens=self.prompt_tokens,
            prefill_tokens_per_s=ranked([self.prompt_tokens / each.first_s for each in self.rounds]),
            decode_tokens_per_s=ranked([1.0 / each.token_s for each in self.rounds]),
        )
