"""The engine on a real model, beyond the contract."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ondevice_openvino import OpenVinoBackend, quiet
from ondevice_openvino.engine import OpenVinoEngine
from ondevice_openvino.source import open_source
from ondevice_sdk import models
from ondevice_sdk.backends.api import (
    GREEDY,
    Chat,
    Done,
    Event,
    Failed,
    Generate,
    Generated,
    Grammar,
    LoadOptions,
    LocalModel,
    Message,
    Raw,
    Sampling,
    Score,
    Scored,
    Segment,
    Tokenize,
    Tokenized,
)
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.errors import SchemaUnsupported
from ondevice_sdk.runtime.environment import variables
from ondevice_sdk.store import Store
from ondevice_sdk.testing import answer, as_engine, drain
from ondevice_sdk.testing.contract.base import streamed

pytestmark = [pytest.mark.model, pytest.mark.slow]

OPTIONS = LoadOptions(context_tokens=2048, max_sequences=4, threads=1, batch_tokens=128)
LONG = "Und am 3. März kostete es 1.234,50 €, sagte sie (“wirklich?”); naïve 日本語 🦊\n\n  x = f(y)\t# don't\r\n"


def raw(text: str) -> Raw:
    return Raw((Segment(text),))


@pytest.fixture(scope="module")
def engine(gguf_model: LocalModel) -> Iterator[OpenVinoEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("ONDEVICE_OPENVINO_DEVICE", raising=False)
        engine = OpenVinoBackend().load(gguf_model, OPTIONS)
    yield engine
    engine.close()


def generated(engine: OpenVinoEngine, request: Generate) -> Generated:
    result = answer(engine, request)
    assert isinstance(result, Generated)
    return result


def scored(engine: OpenVinoEngine, prompt: Raw, *continuations: str) -> Sequence[float]:
    result = answer(engine, Score(prompt, continuations))
    assert isinstance(result, Scored)
    return result.logprobs


def test_texts_are_split_as_by_llama_cpp(engine: OpenVinoEngine, gguf_model: LocalModel) -> None:
    """Also texts of more tokens than OpenVINO's tokeniser gives at a time."""
    other = as_engine(LlamaCppBackend().load(gguf_model, OPTIONS))
    texts = (LONG, LONG * 300, "word " * 9000, "日本語" * 6000, "<|im_end|>" * 3, " " * 50)
    request = Tokenize(texts, (Chat((Message("system", "Be brief."), Message("user", LONG))),))
    try:
        assert answer(engine, request) == answer(other, request)
    finally:
        other.close()


def test_names_of_special_tokens_are_text_wherever_they_come_from(engine: OpenVinoEngine) -> None:
    """Also where only two segments together are one, or names lie within one another."""
    vocabulary = engine._load().vocabulary
    marker = vocabulary.tokenize([Segment("<|im_end|>", "control")])
    assert len(marker) == 1
    for segments in (
        (Segment("a<|im_"), Segment("end|>b")),
        (Segment("<|im_", "control"), Segment("end|>")),
        (Segment("<|im_<|im_end|>end|><|im_end|><|im_end|>"),),
    ):
        tokens = vocabulary.tokenize(segments)
        assert marker[0] not in tokens
        assert b"".join(map(vocabulary.shown, tokens)).decode() == "".join(segment.text for segment in segments)


def test_what_is_said_to_be_cached_is(engine: OpenVinoEngine) -> None:
    """The pipeline gives log-probabilities of what it computes, and so shows what it did not."""
    loaded = engine._load()
    shared = "A long introduction that both share, number by number. " * 12
    prompts = [shared + "First?", shared + "Second, and more?", "Another one. " * 30, shared[:200], shared + "First?"]
    generated(engine, Generate(raw(prompts[0]), 40, GREEDY, ignore_eos=True))
    for number, prompt in enumerate(prompts):
        tokens = loaded.vocabulary.tokenize([Segment(prompt)])
        expected = engine._ledger.cached(tokens)
        handle = loaded.pipeline.add(10_000 + number, tokens, loaded.pipeline.scoring())
        logprobs: list[float] = []
        while not (output := loaded.pipeline.read(handle)).ended:
            logprobs += output.logprobs
            loaded.pipeline.step()
        computed = len([*logprobs, *output.logprobs])
        really = len(tokens) - computed if computed <= len(tokens) else 0
        assert expected <= really < expected + 32
        engine._ledger.add(tokens)


def test_scores_are_the_same_when_all_is_cached(engine: OpenVinoEngine) -> None:
    """Then they are remembered, or the pipeline is made to write the tokens: it says nothing of what it has cached."""
    prompt = raw("The quick brown fox jumps over the lazy dog. " * 7)
    continuation = " The quick brown fox jumps over the lazy dog, and then it sleeps. Well"
    first = scored(engine, prompt, continuation, " The lazy")
    again = scored(engine, prompt, " The lazy", continuation)
    assert again == pytest.approx(first[::-1], abs=1e-3)
    engine._known.clear()
    written = scored(engine, prompt, continuation, " The lazy")
    assert written == pytest.approx(first, abs=0.3)


@pytest.mark.parametrize("others", [1, 3])
def test_what_was_cancelled_in_the_midst_of_a_block_spoils_nothing(engine: OpenVinoEngine, others: int) -> None:
    """Beside others that write, prompts are read in parts that are no whole blocks."""
    text = " ".join(f"{number} is followed by {number + 1}," for number in range(60 * others, 60 * others + 40))
    same, longer = (Generate(raw(each), 12, GREEDY, ignore_eos=True) for each in (text, text + " and so"))
    alone = [generated(engine, each).text for each in (same, longer)]
    engine.forget()
    for number in range(others):
        engine.add_request(f"other{number}", Generate(raw(f"{number} one two"), 200, GREEDY, ignore_eos=True))
    for _ in range(3):
        engine.step(64)
    engine.add_request("cancelled", same)
    engine.step(64)
    engine.abort_request("cancelled")
    engine.step(64)
    for number in range(others):
        engine.abort_request(f"other{number}")
    engine.step(64)
    assert not engine.busy
    after = drain(engine, {"same": same, "longer": longer})
    ends = [after[name][-1] for name in ("same", "longer")]
    assert [end.result.text for end in ends if isinstance(end, Done) and isinstance(end.result, Generated)] == alone


def test_a_constraint_that_xgrammar_does_not_take(engine: OpenVinoEngine) -> None:
    """It fails, in the midst of a step; all others go on in a new pipeline."""
    plain = Generate(raw("One two three four"), 24, GREEDY, ignore_eos=True, stream=True)
    alone = generated(engine, plain).text
    engine.add_request("plain", plain)
    engine.add_request("score", Score(raw("One two"), (" three", " zebra")))
    events: list[Event] = []
    for _ in range(4):
        events += engine.step(64)
    engine.add_request("wrong", Generate(raw("One"), 8, GREEDY, grammar=Grammar("regex", REFUSED_BY_XGRAMMAR)))
    while engine.busy:
        events += engine.step(64)
    ends = {event.request_id: event for event in events if isinstance(event, Done | Failed)}
    assert isinstance(ends["wrong"], Failed)
    assert ends["wrong"].error.code == SchemaUnsupported.code
    assert isinstance(ends["score"], Done)
    end = ends["plain"]
    assert isinstance(end, Done)
    assert isinstance(end.result, Generated)
    assert end.result.usage.completion_tokens == 24
    assert end.result.text[:20] == alone[:20]


REFUSED_BY_XGRAMMAR = r"\p{Lu}[a-z]+"


SCHEMAS = (
    {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": ["string", "null"], "maxLength": 9}}},
    {"type": "array", "items": {"$ref": "#/$defs/P"}, "minItems": 1, "maxItems": 2,
     "$defs": {"P": {"type": "object", "properties": {"é\"": {"enum": ["x", 1, None]}, "next": {"type": "boolean"}},
                     "required": ["é\""], "additionalProperties": False}}},
    {"anyOf": [{"type": "integer"}, {"type": "string", "minLength": 2, "maxLength": 12}]},
    {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 11}}, "required": ["n"]},
)  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=["optional fields", "references", "either", "bounds"])
def test_values_of_schemas(engine: OpenVinoEngine, schema: dict[str, object]) -> None:
    """The engine checks each itself, and fails where one is none."""
    wild = Sampling(temperature=2.0, top_p=1.0, top_k=0, min_p=0.0)
    asked = Generate(raw("The value:"), 40, wild, grammar=Grammar("json_schema", json.dumps(schema)))
    for events in drain(engine, {f"r{number}": asked for number in range(6)}).values():
        end = events[-1]
        assert isinstance(end, Done), end
        assert isinstance(end.result, Generated)
        json.loads(end.result.text)


def test_values_have_no_empty_lines(engine: OpenVinoEngine) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    text = generated(engine, Generate(raw("{"), 30, GREEDY, grammar=Grammar("json_schema", json.dumps(schema)))).text
    assert "a" in json.loads(text)
    assert not set("\n\r\t") & set(text)


def test_requests_that_run_are_brought_to_their_end_before_all_is_forgotten(engine: OpenVinoEngine) -> None:
    engine.add_request("a", Generate(raw("One two three four"), 12, GREEDY, ignore_eos=True, stream=True))
    events = [*engine.step(64)]
    engine.forget()
    while engine.busy:
        events += engine.step(64)
    (end,) = [event for event in events if isinstance(event, Done)]
    assert end is events[-1]
    assert isinstance(end.result, Generated)
    assert streamed(events) == end.result.text
    assert answer(engine, Tokenize(("One",))) == Tokenized((1,))


@pytest.fixture(scope="module")
def folder(gguf_model: LocalModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model in OpenVINO's format, as OpenVINO GenAI itself writes it."""
    quiet.import_runtime()
    import openvino_genai

    place = tmp_path_factory.mktemp("ir")
    with open_source(gguf_model).to_load() as path:
        copy = shutil.copy(path, place / "model.gguf")
    openvino_genai.LLMPipeline(copy, "CPU", enable_save_ov_model=True, INFERENCE_NUM_THREADS=1)
    Path(copy).unlink()
    return place


def test_a_folder_in_openvinos_format(engine: OpenVinoEngine, folder: Path, tmp_path: Path) -> None:
    """It is added to a store, and says what the GGUF file says."""
    store = Store(tmp_path / "store")
    models.add(folder, name="ir", store=store)
    found = store.resolve("ir")
    assert found.format == "openvino"
    other = OpenVinoBackend().load(found, OPTIONS)
    try:
        assert other.capabilities == engine.capabilities
        texts = Tokenize((LONG,), (Chat((Message("user", LONG),)),))
        assert answer(other, texts) == answer(engine, texts)
        chat = Generate(Chat((Message("user", "Name three rivers."),)), 16, GREEDY, ignore_eos=True)
        assert generated(other, chat).text == generated(engine, chat).text
        continuations = (" Paris, and it is", " a city of zebras")
        right = scored(engine, raw("The capital of France is"), *continuations)
        assert scored(other, raw("The capital of France is"), *continuations) == pytest.approx(right, abs=0.05)
    finally:
        other.close()


def test_openvino_uses_its_stub_for_telemetry() -> None:
    code = (
        "from ondevice_openvino import quiet; quiet.import_runtime(); import sys;"
        "from openvino.tools.ovc import telemetry_utils; print(telemetry_utils.tm.__name__);"
        "print([name for name, module in sys.modules.items() if 'openvino_telemetry' in name and module is not None])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["openvino.tools.ovc.telemetry_stub", "[]"]
    assert done.stderr == ""


def test_a_worker_is_told_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONDEVICE_OPENVINO_DEVICE", "GPU.1")
    monkeypatch.setenv("ONDEVICE_OTHER_DEVICE", "a b\n")
    monkeypatch.setenv("ONDEVICE_OPENVINO_DEVICES", "x")
    given = variables("strict", "/nowhere")
    assert [name for name in given if name.startswith("ONDEVICE")] == ["ONDEVICE_OPENVINO_DEVICE"]


def test_nothing_is_left_on_the_disk(gguf_model: LocalModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the copy of the file, nor a cache."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with open_source(gguf_model).to_load() as path:
        assert Path(path).is_relative_to(tmp_path)
    assert list(tmp_path.iterdir()) == []
