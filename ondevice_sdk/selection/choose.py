"""The choice itself: every model, variant and backend weighed for this device.

Pure: no I/O; the same inputs give the same answer.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from ondevice_sdk.backends.measured import ModelSpeed, Round
from ondevice_sdk.catalogue.spec import ModelSpec, Variant
from ondevice_sdk.errors import NoModelFits
from ondevice_sdk.selection import copies as copying
from ondevice_sdk.selection import rivals, speed
from ondevice_sdk.selection import score as scoring
from ondevice_sdk.selection.memory import Plan, plan, usable_memory
from ondevice_sdk.selection.need import BackendOffer, CopyOffer, Need
from ondevice_sdk.selection.rivals import Weighed
from ondevice_sdk.selection.speed import Speed
from ondevice_sdk.types import Candidate, DeviceProfile, Prefer, Selection

LEAST_DECODE = 4.0  # tokens/s, about as fast as people read; below it a model is not offered unless asked for

_TOO_SLOW = "too slow"
_WHY: dict[Prefer, str] = {
    "quality": "the best quality",
    "balanced": "the best balance of quality, speed and memory",
    "speed": "the best speed",
    "memory": "the least memory for what it can do",
    "battery": "the least energy for what it can do",
}


def select(
    device: DeviceProfile,
    specs: Sequence[ModelSpec],
    backends: Sequence[BackendOffer],
    installed: frozenset[tuple[str, str]],
    need: Need,
    copies: Sequence[CopyOffer] = (),
    speeds: Sequence[ModelSpeed] = (),
) -> Selection:
    """Weigh all candidates: those that can run, best first, then the others with the reason against each.

    `installed` has (model, variant); it is noted on the candidates and does not change the order (see
    `choose_installed`). A model that `need` names is only measured against its own variants, and is not refused for
    being slow or no chat model: the app asked for it. With an optimised copy in `copies` a candidate has its memory and
    speed, where it fits. `speeds` are what was measured on this device of models with backends: they go before all
    predictions (see `rivals`). Models that give embeddings are weighed for the task "embed", and for no other.
    """
    found = {(each.name, each.variant, each.backend): each for each in speeds}
    weighed = rivals.order(_weigh_all(device, specs, backends, installed, need, copies, found))
    accepted = [candidate for candidate in weighed if candidate.rejected is None]
    rejected = [candidate for candidate in weighed if candidate.rejected is not None]
    ranked = [dataclasses.replace(candidate, rank=rank) for rank, candidate in enumerate(accepted, start=1)]
    chosen = ranked[0] if ranked else None
    return Selection(chosen, (*ranked, *rejected), _reason(need, ranked, rejected))


def choose_installed(selection: Selection) -> Candidate | None:
    """The best candidate that is on this disk."""
    return next((each for each in selection.candidates if each.rank is not None and each.installed), None)


def no_model_fits(selection: Selection) -> NoModelFits:
    """The error that says why nothing was chosen; `.rejections` has every candidate."""
    rejections = {f"{each.name}:{each.variant} ({each.backend})": each.rejected or "" for each in selection.candidates}
    return NoModelFits(selection.reason, rejections=rejections, hint="see `ondevice explain`")


def _weigh_all(
    device: DeviceProfile,
    specs: Sequence[ModelSpec],
    backends: Sequence[BackendOffer],
    installed: frozenset[tuple[str, str]],
    need: Need,
    copies: Sequence[CopyOffer],
    speeds: Mapping[tuple[str, str, str], ModelSpeed],
) -> Iterator[Weighed]:
    for spec in specs:
        # of models for the other kind of work only the one is shown, with the reason, that was asked for
        if spec.name != need.model and (need.model is not None or spec.embeds != (need.task == "embed")):
            continue
        for variant in spec.variants:
            if need.variant is not None and variant.name != need.variant:
                continue
            for offer in _readers(variant, backends):
                if need.backends is None or offer.name in need.backends:
                    made = (copy for copy in copies if (copy.name, copy.variant) == (spec.name, variant.name))
                    copy = next((each for each in made if each.backend == offer.name), None)
                    here = (spec.name, variant.name) in installed
                    measured = None if spec.embeds else speeds.get((spec.name, variant.name, offer.name))
                    yield _weigh(device, spec, variant, offer, here, need, copy, measured)


def _readers(variant: Variant, backends: Sequence[BackendOffer]) -> Sequence[BackendOffer]:
    """The backends that read the variant's format; all of them where none does, so that the reason can be shown."""
    return [offer for offer in backends if variant.format in offer.formats] or backends


def _weigh(
    device: DeviceProfile,
    spec: ModelSpec,
    variant: Variant,
    offer: BackendOffer,
    installed: bool,
    need: Need,
    copy: CopyOffer | None,
    measured: ModelSpeed | None,
) -> Weighed:
    """A candidate without its rank, and its score."""
    shape, weights = spec.shape, variant.size(spec.shape)
    planned = plan(device, spec, variant, offer, need)
    known = measured if measured is not None and measured.rounds else None
    usable, memory = usable_memory(device), planned.memory_bytes
    against = None if copy is None else copying.objection(device, shape, copy, planned, offer, need.prefer)
    used = copy if against is None else None

    def expected(round_: Round | None = None) -> Speed:
        if known is not None:
            own = speed.measured(shape, weights, known, need.prompt_tokens, round_)
        else:
            own = speed.predict(device, shape, variant, need.prompt_tokens, offer.calibration)
        return own if used is None else own.times(used.prompt, used.decode)

    typical = expected()
    if used is not None:
        memory = copying.memory_bytes(shape, used, planned, offer)
    candidate = Candidate(
        name=spec.name,
        variant=variant.name,
        backend=offer.name,
        memory_bytes=memory,
        ttft_s=_three_digits(typical.ttft_s),
        prefill_tokens_per_s=_three_digits(typical.prefill_tokens_per_s),
        decode_tokens_per_s=0.0 if spec.embeds else _three_digits(typical.decode_tokens_per_s),
        installed=installed,
        calibrated=typical.calibrated,
        rejected=_objection(spec, variant, offer, need, planned, usable, typical.decode_tokens_per_s),
        layout=None if used is None else used.layout,
        notes=tuple(_notes(against, measured)),
        measured=None if known is None else known.figures(),
    )
    bytes_per_token = speed.bytes_per_token(shape, weights if used is None else used.size, need.prompt_tokens)

    def score(seconds: float) -> float:
        return scoring.score(
            need.prefer,
            quality=scoring.effective_quality(spec, variant),
            answer_seconds=seconds,
            memory_bytes=memory,
            bytes_per_token=bytes_per_token,
            on_battery=bool(device.on_battery),
        )

    seconds = typical.answer_s(scoring.TYPICAL_ANSWER)
    rounds = () if known is None else known.rounds
    return Weighed(
        candidate,
        precision=variant.precision,
        built_in=offer.built_in,
        trust=_trust(typical, measured),
        too_slow=(candidate.rejected or "").startswith(_TOO_SLOW),
        seconds=seconds,
        rounds=tuple(expected(each).answer_s(scoring.TYPICAL_ANSWER) for each in rounds),
        session="" if known is None else known.session,
        total=score(seconds),
        score=score,
    )


def _trust(expected: Speed, measured: ModelSpeed | None) -> rivals.Trust:
    if measured is not None and measured.failed:
        return rivals.FAILED
    return rivals.KNOWN if expected.calibrated else rivals.GUESSED


def _notes(against: str | None, measured: ModelSpeed | None) -> Iterator[str]:
    if against is not None:
        yield against
    if measured is not None:
        failed = f"it did not run when it was to be measured: {measured.failed}"
        yield failed if measured.failed else "measured here"


def _objection(
    spec: ModelSpec, variant: Variant, offer: BackendOffer, need: Need, planned: Plan, usable: int, decode: float
) -> str | None:
    """The first thing that speaks against a candidate, with its numbers."""
    if spec.embeds != (need.task == "embed"):
        return "gives embeddings, and writes no text" if spec.embeds else "writes text, and gives no embeddings"
    if not offer.usable:
        return f"backend not usable: {offer.reason or 'no reason given'}"
    if variant.format not in offer.formats:
        return f"format {variant.format} is not among those of {offer.name}: {', '.join(sorted(offer.formats))}"
    wanted = planned.options.context_tokens or 0
    if wanted > spec.shape.context_tokens:
        return f"context {spec.shape.context_tokens} < {wanted} needed"
    if not planned.fits:
        return f"needs {_size(planned.memory_bytes)}, {_size(usable)} can be used"
    if need.model is not None or spec.embeds:
        return None
    if not spec.chat:
        return "not a chat model"
    if decode < LEAST_DECODE and need.prefer != "quality":
        return f"{_TOO_SLOW}: about {decode:.1f} tokens/s, {LEAST_DECODE:g} are wanted"
    return None


def _reason(need: Need, ranked: Sequence[Candidate], rejected: Sequence[Candidate]) -> str:
    if ranked:
        best = ranked[0]
        speed_here = best.decode_tokens_per_s or best.prefill_tokens_per_s
        why = f"{_WHY[need.prefer]} of {len(ranked)} that can run" if len(ranked) > 1 else "the only one that can run"
        copy = "" if best.layout is None else f", as its optimised copy in {best.layout}"
        return (
            f"{best.name}:{best.variant} with {best.backend} is {why} here: about {speed_here:.0f} "
            f"tokens/s in {_size(best.memory_bytes)}{copy}.{_beside(best, ranked)}"
        )
    if rejected:
        nearest = min(rejected, key=lambda each: (each.memory_bytes, each.name, each.variant, each.backend))
        return f"Nothing can run here; the smallest, {nearest.name}:{nearest.variant}: {nearest.rejected}."
    what = ":".join(part for part in (need.model, need.variant) if part) or "models"
    where = f" with {' or '.join(need.backends)}" if need.backends is not None else ""
    return f"There is nothing to choose from for {what}{where}."


def _beside(best: Candidate, ranked: Sequence[Candidate]) -> str:
    """What the other backends did with the same model, where that was measured."""
    if best.measured is None:
        return ""
    others: dict[str, Candidate] = {}
    for each in ranked:
        if each.name == best.name and each.backend != best.backend and each.measured is not None:
            others.setdefault(each.backend, each)
    told = [f"{each.decode_tokens_per_s:.0f} with {name} ({each.variant})" for name, each in others.items()]
    return f" Measured beside it: {', '.join(told)}." if told else ""


def _three_digits(value: float) -> float:
    """Predictions are not better than that."""
    return round(value, max(0, 2 - math.floor(math.log10(value)))) if value > 0 else 0.0


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
