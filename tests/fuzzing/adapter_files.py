"""Uses adapters one after the other, in a sealed worker: each as a client would that was given this one."""

from __future__ import annotations

from collections.abc import Generator

from ondevice_sdk.backends.api import (
    GREEDY,
    Done,
    Generate,
    Generated,
    LoadOptions,
    LocalAdapter,
    LocalModel,
    Raw,
    Segment,
)
from ondevice_sdk.errors import OnDeviceError
from ondevice_sdk.runtime.loading import load_engine
from ondevice_sdk.testing import drain

ENTRY = "tests.fuzzing.adapter_files:use"
TOKENS = 4
_LLAMA = "ondevice_sdk.backends.llama_cpp:LlamaCppBackend"


def use(base: str, paths: list[str]) -> Generator[float, None, list[str]]:
    """What happened with each: the code of an error, or "generated"."""
    outcomes = []
    for number, path in enumerate(paths):
        yield number / len(paths)  # of a worker that dies, the last one is that of the file
        adapter = LocalAdapter("fuzzed", path, "0" * 64)
        options = LoadOptions(context_tokens=128, max_sequences=2, threads=1, adapters=(adapter,))
        engine = load_engine(_LLAMA, LocalModel("tiny", "other", "gguf", base, "0" * 64), options)
        request = Generate(Raw((Segment("hello"),)), TOKENS, GREEDY, ignore_eos=True, adapter="fuzzed")
        try:
            last = drain(engine, {"a": request})["a"][-1]
        except OnDeviceError as error:
            outcomes.append(error.code)
        else:
            whole = isinstance(last, Done) and isinstance(last.result, Generated)
            outcomes.append("generated" if whole else getattr(getattr(last, "error", None), "code", "odd"))
        engine.close()
    return outcomes
