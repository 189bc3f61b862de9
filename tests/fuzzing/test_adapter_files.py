"""Damaged and hostile adapters: an error with a reason, or one that works; never the end of the worker."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from pathlib import Path

import pytest

from ondevice_sdk.catalogue import lora
from ondevice_sdk.errors import ModelCorrupt, ModelUnsupported
from ondevice_sdk.runtime.probe_worker import run_in_worker
from ondevice_sdk.store import formats

from ..backends.lora_files import adapter, random_changes, tiny_base, write
from . import adapter_files
from .mutations import MUTATIONS

FILES = 600
REFUSED = {"model_corrupt", "model_unsupported", "load_failed"}
WORKED = {"generated", "generation_failed"}  # of finite numbers so large that their products are not


@pytest.mark.slow
def test_every_outcome_is_a_typed_error_or_a_working_adapter(tmp_path: Path) -> None:
    base = write(tmp_path / "base.gguf", tiny_base())
    good = adapter(random_changes(base), alpha=8.0)
    outcomes: Counter[str] = Counter()
    taken: list[str] = []
    for number in range(FILES):
        path, chance = tmp_path / f"{number}.gguf", random.Random(number)
        content = None
        while content is None:  # some mutations are of a vocabulary, which an adapter has not
            mutation = chance.choice(MUTATIONS)
            with contextlib.suppress(StopIteration, IndexError, ValueError):
                content = mutation(good.copy(), chance)
        path.write_bytes(content)
        try:
            assert formats.inspect(path).format in (lora.FORMAT, "gguf")
            taken.append(str(path))
        except (ModelCorrupt, ModelUnsupported) as error:
            outcomes[f"not installed: {error.code}"] += 1
    reached: list[float] = []
    arguments = {"base": str(base), "paths": [*taken]}
    made = run_in_worker(
        adapter_files.ENTRY,
        privacy="strict",
        arguments=arguments,  # type: ignore[arg-type]  # a list of texts is one of values
        read=(str(tmp_path),),
        on_progress=reached.append,
    )
    assert isinstance(made.value, list)
    outcomes.update(map(str, made.value))
    assert len(made.value) == len(taken)
    assert set(made.value) <= REFUSED | WORKED
    assert min(outcomes["not installed: model_corrupt"], outcomes["generated"]) > 20, outcomes
    assert outcomes["generation_failed"] < outcomes["generated"] // 4, outcomes
