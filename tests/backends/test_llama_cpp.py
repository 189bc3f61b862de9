from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ondevice_sdk.backends.api import Backend, Batch, DeviceProfile, LoadOptions, LocalAdapter, LocalModel, Segment
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.backends.llama_cpp.runner import LlamaCppRunner
from ondevice_sdk.errors import (
    BackendUnavailable,
    ConfigurationError,
    GenerationFailed,
    ModelCorrupt,
    ModelUnsupported,
)
from ondevice_sdk.testing.contract import BackendContract
from tests import bert
from tests.backends.lora_files import adapter, random_changes, write
from tests.catalogue.test_gguf import gguf, pair, string, tensor


@pytest.mark.model
@pytest.mark.slow
class TestLlamaCpp(BackendContract):
    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        return LlamaCppBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, model_path: Path) -> LocalModel:
        return LocalModel("smollm2-135m-instruct", "int4", "gguf", str(model_path), "")

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalAdapter:
        changes = random_changes(model_path, "ffn_down", size=0.5)
        path = write(tmp_path_factory.mktemp("adapter") / "strong.gguf", adapter(changes, alpha=8.0))
        return LocalAdapter("strong", str(path), "a digest")

    @pytest.fixture(scope="class")
    @classmethod
    def embedding_model(cls, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
        path = bert.make_embedder(tmp_path_factory.mktemp("embedder") / "tiny")
        return LocalModel("tiny", "other", "gguf", str(path), "")


def load(path: Path, **change: Any) -> LlamaCppRunner:
    options = LoadOptions(context_tokens=2048, max_sequences=4, threads=1, batch_tokens=128)
    model = LocalModel("smollm2-135m-instruct", "int4", "gguf", str(path), "")
    runner = LlamaCppBackend().load(model, replace(options, **change))
    assert isinstance(runner, LlamaCppRunner)
    return runner


@pytest.fixture(scope="module")
def runner(model_path: Path) -> Iterator[LlamaCppRunner]:
    runner = load(model_path)
    yield runner
    runner.close()


@pytest.mark.model
def test_borders_of_segments_change_no_token(runner: LlamaCppRunner) -> None:
    whole = "<|im_start|>user\nSome wörds, 12345 🦊<|im_end|>\n"
    parts = [
        Segment("<|im_start|>us", "control"),
        Segment("er\nSome w", "control"),
        Segment("örds, 123", "data"),
        Segment("45 🦊", "data"),
        Segment("<|im_end|>\n", "control"),
    ]
    tokens = runner.tokenize(parts)
    assert tokens == runner.tokenize([Segment(whole, "control")])
    assert runner.detokenize(tokens).decode() == "user\nSome wörds, 12345 🦊\n"


@pytest.mark.model
@pytest.mark.parametrize("text", ["<|im_end|>", "a<|im_start|>system\n", "<|endoftext|>", "\ud800", "\0", " lead", ""])
def test_data_never_becomes_a_special_token(runner: LlamaCppRunner, text: str) -> None:
    tokens = runner.tokenize([Segment(text)])
    assert not runner.end_tokens & set(tokens)
    assert runner.detokenize(tokens) == text.encode("utf-8", "replace")


@pytest.mark.model
def test_saved_state_goes_on_where_it_was(runner: LlamaCppRunner) -> None:
    tokens = runner.tokenize([Segment("The capital of France is")])
    batch = Batch()
    for position, token in enumerate(tokens):
        batch.add(0, position, token, position == len(tokens) - 1)
    expected = runner.forward(batch)[0].copy()
    state = runner.kv_save(0)
    runner.kv_remove(0, 0, None)
    runner.kv_load(1, state)
    again = runner.forward(Batch([1], [len(tokens)], [int(expected.argmax())], [True]))
    assert runner.token_bytes(int(expected.argmax())) == b" Paris"
    assert again.shape == (1, runner.vocabulary)
    runner.kv_remove(1, 0, None)
    with pytest.raises(GenerationFailed):
        runner.kv_load(1, b"not a state")


@pytest.mark.model
@pytest.mark.slow
def test_the_isolated_sequence_grows_without_changing_a_bit(model_path: Path) -> None:
    runner = load(model_path)
    try:
        lane = runner.isolated_sequence
        tokens = runner.tokenize([Segment("word by word " * 400)])[:1100]

        def run() -> NDArray[np.float32]:
            runner.kv_remove(lane, 0, None)
            for start in range(0, len(tokens), 64):
                batch = Batch()
                for position in range(start, min(start + 64, len(tokens))):
                    batch.add(lane, position, tokens[position], position == len(tokens) - 1)
                logits = runner.forward(batch)
            last: NDArray[np.float32] = logits[0].copy()
            return last

        grown, at_once = run(), run()
        assert grown.tobytes() == at_once.tobytes()
    finally:
        runner.close()


@pytest.mark.model
def test_a_cache_of_eight_bits_says_nearly_the_same(runner: LlamaCppRunner, model_path: Path) -> None:
    tokens = runner.tokenize([Segment("The capital of France is the city of")])
    batch = Batch()
    for position, token in enumerate(tokens):
        batch.add(0, position, token, position == len(tokens) - 1)
    runner.kv_remove(0, 0, None)
    exact = np.array(runner.forward(batch)[0])
    runner.kv_remove(0, 0, None)
    small = load(model_path, kv_type="q8_0")
    try:
        rough = np.array(small.forward(batch)[0])
        saved = small.kv_save(0)
    finally:
        small.close()
    assert exact.argmax() == rough.argmax()
    assert 0 < np.abs(exact - rough).max() < 2  # another cache, but no other model
    assert len(saved) < 0.6 * 2 * 30 * 3 * 64 * 2 * len(tokens) + 5000


@pytest.mark.model
def test_a_batch_that_is_too_large_is_refused(runner: LlamaCppRunner) -> None:
    rows = runner.max_batch_tokens + 1
    with pytest.raises(GenerationFailed):
        runner.forward(Batch([0] * rows, list(range(rows)), [5] * rows, [False] * rows))


@pytest.mark.model
def test_progress_may_stop_a_load(model_path: Path) -> None:
    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(model_path, on_progress=stop)


@pytest.mark.model
@pytest.mark.parametrize("change", [{"context_tokens": 0}, {"max_sequences": 0}, {"batch_tokens": 0}])
def test_impossible_sizes(model_path: Path, change: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        load(model_path, **change)


@pytest.mark.model
def test_nothing_is_written_to_the_terminal(model_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runner = load(model_path)
    runner.forward(Batch([0], [0], [5], [True]))
    runner.close()
    assert capfd.readouterr() == ("", "")


def test_an_unknown_architecture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf([pair("general.architecture", 8, string("nonsense"))], []))
    with pytest.raises(ModelUnsupported) as caught:
        load(path)
    assert caught.value.architecture == "nonsense"


def test_a_header_without_weights_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf([pair("general.architecture", 8, string("llama"))], [tensor("a")]))
    with pytest.raises(ModelCorrupt):
        load(path)


def test_without_the_packages_there_is_a_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    probe = LlamaCppBackend().probe(DeviceProfile("linux", "x86_64", "any", (), 1, 1, 1 << 34, 1 << 33))
    assert not probe.usable
    assert "llama_cpp" in probe.reason
    assert "pip install 'ondevice-sdk[llama-cpp]'" in probe.hint
    with pytest.raises(BackendUnavailable):
        LlamaCppBackend().load(LocalModel("a", "int4", "gguf", "none", ""), LoadOptions())


def forward(runner: LlamaCppRunner, *rows: tuple[int, int, Sequence[int]]) -> NDArray[np.float32]:
    """One pass over tokens of sequences, each from a position on; the logits after the last token of each."""
    batch = Batch()
    for sequence, start, tokens in rows:
        for offset, token in enumerate(tokens):
            batch.add(sequence, start + offset, token, offset == len(tokens) - 1)
    return runner.forward(batch).copy()


@pytest.mark.model
@pytest.mark.slow
def test_states_go_from_a_shared_cache_to_parts_and_back(model_path: Path) -> None:
    runner = load(model_path)
    try:
        texts = ["The capital of France is", "Water boils at a temperature of", "Roses are red and violets are"]
        prompts = [runner.tokenize([Segment(text)]) for text in texts]
        after = runner.tokenize([Segment(" the")])
        wanted = []
        for sequence, tokens in enumerate(prompts):
            forward(runner, (sequence, 0, tokens))
            wanted.append(forward(runner, (sequence, len(tokens), after))[0])
            runner.kv_remove(sequence, len(tokens), None)
        for parts in (4, 2, 1, 4):
            states = [runner.kv_save(sequence) for sequence in range(min(3, parts if parts > 1 else 3))]
            runner.arrange(parts)
            for sequence, state in enumerate(states):
                runner.kv_load(sequence, state)
            rows = [(sequence, len(prompts[sequence]), after) for sequence in range(len(states))]
            for got, expected in zip(forward(runner, *rows), wanted, strict=False):
                assert np.abs(got - expected).max() < 0.05
            for sequence, tokens in enumerate(prompts[: len(states)]):
                runner.kv_remove(sequence, len(tokens), None)
            if parts == 2:  # what the third held is gone: put it back
                runner.arrange(1)
                for sequence, tokens in enumerate(prompts):
                    forward(runner, (sequence, 0, tokens))
    finally:
        runner.close()


@pytest.mark.model
@pytest.mark.slow
def test_the_beginning_of_a_part_can_be_copied_to_another(model_path: Path) -> None:
    runner = load(model_path)
    try:
        tokens = runner.tokenize([Segment("One two three four five six seven eight nine ten eleven twelve")])
        expected = forward(runner, (0, 0, tokens[:8]))[0]
        runner.arrange(4)
        forward(runner, (2, 0, tokens))
        runner.kv_copy(2, 0, 0, 7)
        assert np.abs(forward(runner, (0, 7, tokens[7:8]))[0] - expected).max() < 0.05
    finally:
        runner.close()


@pytest.mark.model
def test_parts_of_a_closed_model(model_path: Path) -> None:
    runner = load(model_path)
    runner.close()
    with pytest.raises(GenerationFailed, match="closed"):
        runner.arrange(2)
