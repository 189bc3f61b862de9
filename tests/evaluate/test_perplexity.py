"""Measured in sealed workers: on the echo model, whose distribution is known, and on small random models."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ondevice_sdk.device import detect
from ondevice_sdk.errors import (
    ConfigurationError,
    GenerationFailed,
    InputTooLong,
    LoadFailed,
    ModelNotInstalled,
    NoModelFits,
    OnDeviceError,
    WorkerCrashed,
)
from ondevice_sdk.evaluate.perplexity import (
    MOST_TOKENS,
    Comparison,
    Perplexity,
    divergence,
    joined,
    perplexity,
    rows,
)
from ondevice_sdk.quantise.divergence import read_answer
from ondevice_sdk.quantise.logits import ENTRY, WindowSums
from ondevice_sdk.runtime import protocol
from ondevice_sdk.runtime.probe_worker import run_in_worker
from ondevice_sdk.runtime.wire import ProtocolError
from ondevice_sdk.types import JsonValue, ModelShape, Progress

WINDOW = 64
WORDS = "unlikely private words "
TEXT = WORDS * 20


def echo(folder: Path, **settings: int) -> str:
    path = folder / "model.echo"
    path.write_text(json.dumps({"ondevice-echo": 1, "context_tokens": 256, **settings}))
    return str(path)


def echo_nll(window: Sequence[int]) -> float:
    """What the echo model makes of a window: it expects the first half again, from the second token on."""
    total, middle = 0.0, len(window) // 2
    for at in range(middle, len(window) - 1):
        phase = 78.233 * (31 * (at + 1) + window[at])
        logits = np.sin(np.arange(261) * 12.9898 + phase).astype(np.float32).astype(float)
        logits[window[1 + at - middle]] += 8.0
        total += math.log(np.exp(logits).sum()) - logits[window[at + 1]]
    return total


@pytest.mark.parametrize("word", ["abcdefghijklmnopqrstuvwxyz234567", WORDS])
def test_a_known_distribution(tmp_path: Path, word: str) -> None:
    """The first text repeats itself just as the echo model expects it."""
    text, told = word * 10, list[Progress]()
    found = perplexity(echo(tmp_path), text, tokens=200, window=WINDOW, on_progress=told.append)
    windows = [[256, *text.encode()[start + 1 : start + WINDOW]] for start in (0, 64, 128)]
    assert found.windows == 3
    assert found.tokens == 93
    assert found.perplexity.value == pytest.approx(math.exp(sum(map(echo_nll, windows)) / 93), rel=1e-6)
    assert found.perplexity.low <= found.perplexity.value <= found.perplexity.high
    assert (found.perplexity.value < 2) == (word != WORDS)
    assert told[-1] == Progress("reading", 100, 100, "percent")
    assert [each.done for each in told] == [33, 66, 100]
    assert found.model.backend == "echo"


def test_a_model_against_itself(tmp_path: Path) -> None:
    path = echo(tmp_path)
    found = divergence(path, path, [TEXT, TEXT], tokens=256, window=WINDOW)
    assert found.kl.high == 0
    assert found.top1_agreement.low == 1
    assert found.perplexity == found.source_perplexity == perplexity(path, TEXT, tokens=256, window=WINDOW).perplexity
    assert found.perplexity_ratio.value == 1
    first, *others = rows(found, "words")
    assert first.trivial is not None
    assert first.trivial.figure == found.source_perplexity
    assert [row.better for row in others] == ["lower", "lower", "higher"]
    assert "words" not in repr(found)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"context_tokens": 32}, InputTooLong),
        ({"fail_at_token": 40}, GenerationFailed),
        ({"crash_at_token": 40}, WorkerCrashed),
    ],
)
def test_failures_are_typed_and_hold_no_text(
    tmp_path: Path, settings: dict[str, int], expected: type[OnDeviceError]
) -> None:
    with pytest.raises(expected) as caught:
        perplexity(echo(tmp_path, **settings), TEXT, tokens=128, window=WINDOW)
    assert "private" not in f"{caught.value} {caught.value.data()} {caught.value.__cause__!r}"


def test_a_short_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="100 tokens") as caught:
        perplexity(echo(tmp_path), TEXT[:100], tokens=128, window=WINDOW)
    assert "private" not in str(caught.value)


@pytest.mark.parametrize(("tokens", "window"), [(MOST_TOKENS + 1, 512), (1000, 512), (1000, 4)])
def test_numbers_out_of_range(tokens: int, window: int) -> None:
    with pytest.raises(ConfigurationError):
        perplexity("none.gguf", TEXT, tokens=tokens, window=window)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotInstalled):
        divergence(echo(tmp_path), str(tmp_path / "none.gguf"), TEXT, tokens=128, window=WINDOW)


def random_model(path: Path, vocabulary: int, seed: int = 0) -> str:
    from ondevice_sdk.backends.llama_cpp import synthetic

    synthetic.write(path, ModelShape(100_000, 1, 64, 2, 1, 32, 64, vocabulary, 256), "F32", seed=seed)
    return str(path)


def test_different_vocabularies_are_refused(tmp_path: Path) -> None:
    model, source = random_model(tmp_path / "a.gguf", 300), random_model(tmp_path / "b.gguf", 310)
    with pytest.raises(ConfigurationError, match="different vocabularies \\(300 and 310 tokens\\)"):
        divergence(model, source, TEXT, tokens=128, window=WINDOW)


def test_models_that_fit_only_alone_are_refused(tmp_path: Path) -> None:
    from ondevice_sdk.backends.llama_cpp import synthetic

    model = str(tmp_path / "a.gguf")
    synthetic.write(model, ModelShape(8_000_000, 2, 512, 8, 8, 64, 1536, 300, 256), "F32")  # 28 MB
    scarce = replace(detect(), memory_available_bytes=160_000_000)
    assert perplexity(model, TEXT, tokens=128, window=WINDOW, device=scarce).tokens == 62
    with pytest.raises(NoModelFits) as caught:
        divergence(model, model, TEXT, tokens=128, window=WINDOW, device=scarce)
    assert "0.12 GB can be used" in str(caught.value)


# --- the app's side ---------------------------------------------------------------------------------------------------

GOOD: list[JsonValue] = [31, 10.0, 12.0, 0.5, 30]


def test_an_honest_answer() -> None:
    assert read_answer({"windows": [GOOD, GOOD]}, WINDOW, 2) == [WindowSums(31, 10.0, 12.0, 0.5, 30)] * 2


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"windows": []},
        {"windows": [GOOD]},
        {"windows": [GOOD] * 3},
        {"windows": [GOOD, GOOD[:4]]},
        {"windows": [GOOD, [32, *GOOD[1:]]]},
        {"windows": [GOOD, [31.0, *GOOD[1:]]]},
        {"windows": [GOOD, [*GOOD[:4], 32]]},
        {"windows": [GOOD, [*GOOD[:4], True]]},
        {"windows": [GOOD, [31, -1.0, *GOOD[2:]]]},
        {"windows": [GOOD, [31, math.inf, *GOOD[2:]]]},
        {"windows": [GOOD, [31, math.nan, *GOOD[2:]]]},
        {"windows": [GOOD, [31, "10", *GOOD[2:]]]},
        {"error": "generation_failed"},
        {"error": {"code": "generation_failed", "message": 1, "hint": None, "data": {}}},
        {"error": {"code": "generation_failed", "message": "", "hint": 1, "data": {}}},
        {"error": {"code": "generation_failed", "message": "", "hint": None, "data": {"odd": 1}}},
        {"error": {"code": "privacy_unavailable", "message": "", "hint": None, "data": {}}},
    ],
)
def test_an_answer_that_no_honest_worker_gives(answer: JsonValue) -> None:
    with pytest.raises(WorkerCrashed):
        read_answer(answer, WINDOW, 2)


def test_an_error_of_the_worker() -> None:
    error: JsonValue = {"code": "load_failed", "message": "it is so", "hint": "do that", "data": {}}
    with pytest.raises(LoadFailed, match="it is so") as caught:
        read_answer({"error": error}, WINDOW, 2)
    assert caught.value.hint == "do that"


def test_texts_are_joined_and_cut() -> None:
    assert joined(["one", "two"], 100) == "one\n\ntwo"
    assert joined("one", 2) == "on"
    assert joined(["one", "two", "three"], 6) == "one\n\nt"


def test_the_longest_text_fits_into_a_message() -> None:
    worst = joined("\U0001f98a" * 1_000_000, MOST_TOKENS * 8)
    protocol.to_worker(protocol.Run("a:b", json.dumps({"text": worst})))
    with pytest.raises(ProtocolError):
        protocol.to_worker(protocol.Run("a:b", json.dumps({"text": worst * 2})))
    assert "\\ud83e" not in repr(protocol.Run("a:b", json.dumps({"text": worst})))


# --- the command ------------------------------------------------------------------------------------------------------


def command(*words: str, text: str = TEXT) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "error", "-m", "ondevice_sdk", "perplexity", *words]
    return subprocess.run(line, input=text, capture_output=True, text=True, timeout=240)


def test_the_command(tmp_path: Path) -> None:
    path = echo(tmp_path)
    done = command(path, "--against", path, "--text", "-", "--tokens", "128", "--window", "64", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown.keys() == set(Comparison.__dataclass_fields__)
    assert shown["kl"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert "private" not in done.stdout + done.stderr


@pytest.mark.slow
def test_the_command_with_a_folder_of_data(tmp_path: Path) -> None:
    (tmp_path / "text_state_union.jsonl").write_text(json.dumps({"id": "1", "text": TEXT}))
    done = command(echo(tmp_path), "--data", str(tmp_path), "--tokens", "128", "--window", "64")
    assert done.returncode == 0, done.stderr
    assert "62 tokens scored in 2 windows of 64" in done.stdout


def test_the_command_needs_one_text(tmp_path: Path) -> None:
    both = command(echo(tmp_path), "--text", "-", "--data", str(tmp_path))
    assert (both.returncode, "two things" in both.stderr) == (1, True)


# --- the real model ---------------------------------------------------------------------------------------------------

QUANTISE = """
import ctypes, sys, llama_cpp
silent = llama_cpp.llama_log_callback(lambda *_: None)
llama_cpp.llama_log_set(silent, None)
for kind, path in zip(sys.argv[2::2], sys.argv[3::2]):
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize, params.nthread = int(kind), True, 2
    if llama_cpp.llama_model_quantize(sys.argv[1].encode(), path.encode(), ctypes.byref(params)) != 0:
        sys.exit("not quantised")
"""
PROSE = Path(__file__).parents[2] / "examples" / "data" / "harbour_bridge.txt"


@pytest.fixture(scope="session")
def variants(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The real model in other precisions; in a process of its own, since the library may end it."""
    folder = tmp_path_factory.mktemp("variants")
    numbers = {"F16": 1, "Q8_0": 7, "Q4_0": 2}
    paths = {name: str(folder / f"{name}.gguf") for name in numbers}
    words = [word for name, number in numbers.items() for word in (str(number), paths[name])]
    subprocess.run([sys.executable, "-c", QUANTISE, str(model_path), *words], check=True)
    return paths


def compared(model: str, source: str) -> Comparison:
    return divergence(model, source, PROSE.read_text(encoding="utf-8"), tokens=512, window=128)


@pytest.mark.model
@pytest.mark.slow
def test_fewer_bits_stray_farther(variants: dict[str, str]) -> None:
    itself, fine, coarse = (compared(variants[name], variants["F16"]) for name in ("F16", "Q8_0", "Q4_0"))
    assert itself.kl.value < 1e-6
    assert itself.top1_agreement.value == 1
    assert 0 < fine.kl.value < coarse.kl.value / 10
    assert fine.top1_agreement.value > coarse.top1_agreement.value
    assert fine.perplexity_ratio.value == pytest.approx(1, abs=0.02)
    assert itself.source_perplexity == fine.source_perplexity == coarse.source_perplexity
    assert itself.tokens == 4 * 63


@pytest.mark.model
@pytest.mark.slow
def test_prose_is_better_predicted_than_its_words_in_disorder(model_path: Path) -> None:
    prose = PROSE.read_text(encoding="utf-8")
    words = prose.split()
    np.random.default_rng(1).shuffle(words)
    ordered, disordered = (
        perplexity(str(model_path), text, tokens=512, window=128) for text in (prose, " ".join(words))
    )
    assert isinstance(ordered, Perplexity)
    assert ordered.perplexity.high * 5 < disordered.perplexity.low


@pytest.mark.model
@pytest.mark.slow
def test_the_worker_attempts_nothing(model_path: Path) -> None:
    arguments: dict[str, JsonValue] = {
        "model": {
            "entry": "ondevice_sdk.backends.llama_cpp:LlamaCppBackend",
            "model": {
                "name": "a", "variant": "int4", "format": "gguf", "path": str(model_path), "sha256": "", "files": [],
            },
        },
        "source": None,
        "text": PROSE.read_text(encoding="utf-8"),
        "tokens": 256,
        "window": 128,
        "threads": 1,
    }  # fmt: skip
    returned = run_in_worker(ENTRY, privacy="strict", arguments=arguments, read=[str(model_path)])
    assert len(read_answer(returned.value, 128, 2)) == 2
    assert returned.report.enforced
    assert returned.report.attempts == ()


@pytest.mark.model
@pytest.mark.slow
def test_a_model_of_another_family_is_refused(model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="different vocabularies"):
        divergence(random_model(tmp_path / "a.gguf", 300), str(model_path), TEXT, tokens=128, window=WINDOW)
