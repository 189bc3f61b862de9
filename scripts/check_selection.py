"""Whether the choice is right: what was chosen from predictions, beside what measurements would have chosen.

Models with random weights in three shapes, each as int4 and int8, are measured on this machine: a prompt of 1,000
tokens, decoding after it, the peak of the worker. Then the choice is made from predictions alone, in processes whose
memory is limited by the kernel (a control group where that can be made, else RLIMIT_AS), for every preference. Each
choice is given its score by the same rule with the measured figures, and compared with the best score of all that fit.
Run: `python scripts/check_selection.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from ondevice_sdk import Client, calibration, catalogue
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.bench import prompts
from ondevice_sdk.bench.memory import peak_bytes
from ondevice_sdk.bench.session import Session
from ondevice_sdk.bench.subjects import find
from ondevice_sdk.catalogue import Artifact, ModelSpec, Variant
from ondevice_sdk.catalogue.plain import build
from ondevice_sdk.device import detect
from ondevice_sdk.runtime import open_executor
from ondevice_sdk.runtime.process import ProcessExecutor
from ondevice_sdk.selection import BackendOffer, Need, plan, score, select, speed, usable_memory
from ondevice_sdk.selection.need import TYPICAL_PROMPT
from ondevice_sdk.store import Store
from ondevice_sdk.types import DeviceProfile, Prefer

SHAPES = ("smollm2-135m-instruct", "smollm2-360m-instruct", "llama-3.2-1b-instruct")
LIMITS = (None, 1_600_000_000, 900_000_000, 420_000_000)  # bytes
ENTRY = "ondevice_sdk.backends.llama_cpp:LlamaCppBackend"
CGROUP = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a model really does here."""

    ttft_s: float
    decode_tokens_per_s: float
    peak_bytes: int


def specs() -> list[ModelSpec]:
    """The catalogue's entries of these shapes, with random weights in the place of theirs."""
    made = []
    for name in SHAPES:
        spec = catalogue.get(name)
        variants = []
        for variant in spec.variants:
            (subject,) = find([f"random:{name}:{variant.quantisation}"])
            path = Path(subject.model)
            artifact = Artifact(f"file:{path}", path.stat().st_size)
            variants.append(dataclasses.replace(variant, artifacts=(artifact,), checked=False))
        made.append(dataclasses.replace(spec, variants=tuple(variants)))
    return made


def path_of(variant: Variant) -> str:
    """Where its file is."""
    return variant.artifacts[0].source.removeprefix("file:")


def measure(spec: ModelSpec, variant: Variant, offer: BackendOffer, device: DeviceProfile) -> Measured:
    """Run a model as it would be loaded."""
    from ondevice_sdk.backends.api import LocalModel

    options = plan(device, spec, variant, offer, Need(context=2048)).options
    options = dataclasses.replace(options, threads=calibration.threads(device)[0])
    model = LocalModel(spec.name, variant.name, "gguf", path_of(variant), "0" * 64)
    executor = open_executor(ENTRY, model, options, isolation="process", privacy="strict")
    assert isinstance(executor, ProcessExecutor)
    try:
        session = Session(executor)
        session.generate(["warm up"], 2)
        texts = [prompts.exact(session.count, TYPICAL_PROMPT, seed) for seed in range(2)]
        prompt_s = min(session.generate([text], 48)[0].prompt_s for text in texts)
        peak = peak_bytes(executor.pid)  # before what follows, which has a cache of its own
        # random weights repeat themselves, which drafts would gain by
        decode = max(session.generate([text], 48, stepwise=True)[0].decode_tokens_per_s for text in texts)
        return Measured(prompt_s, decode, peak)
    finally:
        executor.close()


@contextmanager
def limited(limit: int | None) -> Iterator[tuple[DeviceProfile, str]]:
    """This device as a process under the limit sees it, and how it was limited."""
    if limit is None:
        yield detect(), "none"
        return
    group = CGROUP / f"ondevice-check-{limit}"
    code = "import sys, json, dataclasses; from ondevice_sdk.device import detect; "
    tell = "print(json.dumps(dataclasses.asdict(detect())))"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
    except OSError:
        how = "RLIMIT_AS"
        prefix = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit})); "
    else:
        how = "control group"
        prefix = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0'); "
    try:
        run = subprocess.run([sys.executable, "-c", prefix + code + tell], capture_output=True, text=True, check=True)
    finally:
        if group.exists():
            group.rmdir()
    yield build(DeviceProfile, json.loads(run.stdout), "device"), how


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with Client(privacy="off", backends=("llama_cpp",)) as ai:
        ai.calibrate()
    device, backend = detect(), LlamaCppBackend()
    calibrator = backend.calibrator()
    assert calibrator is not None
    kept = calibration.kept(Store.open().root / "calibration", calibrator, device)
    offer = BackendOffer(
        backend.name,
        backend.formats,
        usable=True,
        kv_types=backend.kv_types,
        calibration=kept,
        estimate=backend.estimate,
    )
    models = specs()
    measured: dict[tuple[str, str], Measured] = {}
    for spec in models:
        for variant in spec.variants:
            print(f"  measuring {spec.name}:{variant.name}", file=sys.stderr, flush=True)
            measured[spec.name, variant.name] = measure(spec, variant, offer, device)
    rows = list(cases(models, offer, measured))
    if options.json:
        print(json.dumps(rows))
        return
    for (name, kind), found in measured.items():
        figures = f"first token {found.ttft_s:5.1f} s, {found.decode_tokens_per_s:6.1f} tokens/s"
        print(f"{name}:{kind:5} {figures}, {found.peak_bytes / 1e6:6,.0f} MB")
    for row in rows:
        print(
            f"{row['limit']:>14} {row['prefer']:9} chose {row['chosen']:32} best {row['best']:32} {row['worse']:7.1%}"
        )
    print(f"largest loss {max(float(str(row['worse'])) for row in rows):.1%} in {len(rows)} cases")


def cases(
    models: Sequence[ModelSpec], offer: BackendOffer, measured: dict[tuple[str, str], Measured]
) -> Iterator[dict[str, object]]:
    """Every preference under every limit."""
    for limit in LIMITS:
        with limited(limit) as (device, how):
            pass
        for prefer in get_args(Prefer):
            selection = select(device, models, [offer], frozenset(), Need(prefer=prefer, context=2048))
            scores = dict(real_scores(models, measured, prefer, usable_memory(device)))
            assert selection.chosen is not None, selection.reason
            chosen = (selection.chosen.name, selection.chosen.variant)
            best = max(scores, key=lambda key: scores[key])
            yield {
                "limit": "none" if limit is None else f"{limit / 1e6:.0f} MB",
                "by": how,
                "prefer": prefer,
                "chosen": ":".join(chosen),
                "fits": chosen in scores,
                "best": ":".join(best),
                "worse": 1 - scores.get(chosen, 0.0) / scores[best],
            }


def real_scores(
    models: Sequence[ModelSpec], measured: dict[tuple[str, str], Measured], prefer: Prefer, room: int
) -> Iterator[tuple[tuple[str, str], float]]:
    """What the rule of the choice gives with measured figures, for those that really fit."""
    for spec in models:
        for variant in spec.variants:
            found = measured[spec.name, variant.name]
            if found.peak_bytes <= room:
                value = score.score(
                    prefer,
                    quality=score.effective_quality(spec, variant),
                    answer_seconds=found.ttft_s + score.TYPICAL_ANSWER / found.decode_tokens_per_s,
                    memory_bytes=found.peak_bytes,
                    bytes_per_token=speed.bytes_per_token(spec.shape, variant.size(spec.shape), TYPICAL_PROMPT),
                )
                yield (spec.name, variant.name), value


if __name__ == "__main__":
    main()
