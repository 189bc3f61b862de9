"""`models.quantise`, end to end with a small random model, and what ends it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ondevice_sdk import AsyncClient, Client, models
from ondevice_sdk.backends.llama_cpp import synthetic
from ondevice_sdk.catalogue import gguf
from ondevice_sdk.cli.app import app
from ondevice_sdk.errors import (
    ConfigurationError,
    ModelNotInstalled,
    ModelUnsupported,
    NoModelFits,
    OnDeviceError,
    StoreError,
    Unsupported,
)
from ondevice_sdk.models import Quantised
from ondevice_sdk.quantise import quality, workers
from ondevice_sdk.store import Store
from ondevice_sdk.store.recipes import Trial
from ondevice_sdk.types import Progress

from .hugging_face import toys
from .support import SHAPE, exactly

RUN = CliRunner()
TEXT = "".join(f"Sentence {number} of a text that nobody wrote. " for number in range(100))


def made_of(store: Store, folder: Path, kind: str = "BF16", **options: Any) -> Quantised:
    path = folder / "small.gguf"
    if not path.exists():
        synthetic.write(path, SHAPE, kind)
    return models.quantise(path, store=store, text=TEXT, **options)


def traces(store: Store) -> list[str]:
    """What lies in the store besides locks and stamps."""
    parts = (path.relative_to(store.root).parts for path in store.root.rglob("*") if path.is_file())
    return ["/".join(each) for each in parts if each[0] not in ("locks", "stamps")]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read no more than is needed to see that it is read."""
    monkeypatch.setattr(quality, "TOKENS", 4 * quality.WINDOW)
    monkeypatch.setattr(quality, "TRIAL_TOKENS", 2 * quality.TRIAL_WINDOW)


@pytest.mark.slow
def test_all_of_it(store: Store, tmp_path: Path, short: None) -> None:
    told: list[Progress] = []
    made = made_of(store, tmp_path, on_progress=told.append)
    source = tmp_path / "small.gguf"
    assert (made.name, made.variant, made.quantisation, made.made) == ("small", "int4-presinq-imatrix", "Q4_0", True)
    assert (made.method, made.requantised, made.source) == ("presinq+imatrix", False, "small:bf16")
    assert made.size == Path(made.path).stat().st_size < 0.5 * source.stat().st_size
    assert gguf.read_header(made.path).precision == "int4"
    found = made.quality
    assert found is not None
    assert found.self_check is not None
    assert 0 <= found.self_check <= 1e-5
    assert found.trial is not None
    assert made.used == ("presinq+imatrix" if found.trial.kept else "imatrix")
    assert found.kl.low > 0
    assert 0 < found.top1_agreement.value <= 1
    assert (found.windows, found.tokens, found.requantised) == (4, 4 * 127, False)
    stages = {each.stage.split(",")[0] for each in told}
    assert {"reading", "writing Q4_0", "scaling (pre-SINQ)", "quality report"} <= stages
    assert all(each.total == 100 and 0 <= each.done <= 100 for each in told)

    known = models.list(store=store)[0].quantised
    assert known is not None
    assert (known.digest, known.quality) == (made.recipe, found)
    assert (known.recipe.source.quantisation, known.recipe.order, known.recipe.block) == ("BF16", 16, 64)
    assert [each.ok for each in models.verify(store=store)] == [True]
    told.clear()
    again = made_of(store, tmp_path, on_progress=told.append)
    assert (again, told) == (dataclasses.replace(made, made=False), [])
    with Client("small", store=store) as ai:
        assert ai.model.variant == made.variant
        assert ai.generate("a", max_tokens=2).text is not None
    models.remove("small", store=store)
    assert traces(store) == []


@pytest.mark.slow
def test_a_requantised_source_is_said_so_by_the_command_too(
    store: Store, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDEVICE_HOME", str(store.root))
    path, text = tmp_path / "small.gguf", tmp_path / "text.txt"
    synthetic.write(path, SHAPE, "Q4_1")
    text.write_text(TEXT)
    store.add(path, name="small", variant="int4")
    words = ["quantise", "small", "--method", "presinq", "--text", str(text)]
    done = RUN.invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert {field.name for field in dataclasses.fields(Quantised)} == set(printed)
    assert (printed["variant"], printed["source"], printed["requantised"]) == ("int4-presinq", "small:int4", True)
    assert printed["quality"]["requantised"] is True
    assert 0 <= printed["quality"]["self_check"] <= 1e-5

    shown = RUN.invoke(app, words)
    assert shown.exit_code == 0
    assert "requantised: small:int4 was quantised before" in shown.stdout
    assert "made before by the same recipe" in shown.stdout
    assert "KL(source || made)" in shown.stdout
    listed = RUN.invoke(app, ["models", "list"])
    assert "from small:int4 (requantised), KL " in listed.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kept", [True, False])
def test_presinq_is_kept_only_where_it_helps(
    store: Store, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    compared: list[list[bytes]] = []

    def trial(runtime: Any, source: Any, scaled: Any, plain: Any, *_: Any) -> Trial:
        compared.append([Path(each.path).read_bytes() for each in (scaled, plain)])
        return Trial(exactly(0.1), exactly(0.2 if kept else 0.05), 10, kept)

    monkeypatch.setattr(quality, "trial", trial)
    made = made_of(store, tmp_path, method="presinq")
    ((scaled, plain),) = compared
    assert Path(made.path).read_bytes() == (scaled if kept else plain)
    assert (made.variant, made.method, made.used) == ("int4-presinq", "presinq", "presinq" if kept else "plain")
    assert not made_of(store, tmp_path, method="presinq").made  # that it was left out is no other recipe


def read_with(kls: dict[str, float]) -> Callable[..., list[Any]]:
    from ondevice_sdk.quantise.logits import WindowSums

    def read(models: Any, *_: Any, **__: Any) -> list[WindowSums]:
        return [WindowSums(10, 1.0, 1.0, kls[models[0][1].path], 5) for _ in range(4)]

    return read


@pytest.mark.parametrize(("scaled", "plain", "kept"), [(0.1, 0.2, True), (0.1, 0.1, True), (0.2, 0.1, False)])
def test_the_trial_weighs_both_on_the_same_windows(
    monkeypatch: pytest.MonkeyPatch, scaled: float, plain: float, kept: bool
) -> None:
    from ondevice_sdk.backends.api import LocalModel
    from ondevice_sdk.backends.registry import installed
    from ondevice_sdk.device import detect
    from ondevice_sdk.quantise.runtimes import compressing

    def local(path: str) -> LocalModel:
        return LocalModel("m", "int4", "gguf", path, "", (path,))

    monkeypatch.setattr(quality, "read_windows", read_with({"scaled": scaled, "plain": plain}))
    runtime = compressing(installed(), detect())
    found = quality.trial(runtime, local("source"), local("scaled"), local("plain"), TEXT, 1, None)
    assert found == Trial(exactly(scaled / 10), exactly(plain / 10), 40, kept)


@pytest.mark.slow
def test_whatever_ends_it_leaves_nothing_behind(store: Store, tmp_path: Path, short: None) -> None:
    begun: list[str] = []

    def interrupt(progress: Progress) -> None:
        begun.append(progress.stage)
        if progress.stage == "comparing with and without pre-SINQ":  # both are there
            assert len(list((store.root / "tmp").rglob("made.gguf"))) == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_of(store, tmp_path, method="presinq", on_progress=interrupt)
    assert traces(store) == []
    assert "quality report" not in begun

    async def cancelled() -> None:
        async with AsyncClient(tmp_path / "small.gguf", store=store) as ai:
            work = asyncio.create_task(ai.quantise(method="plain", text=TEXT, on_progress=lambda _: begun.append("x")))
            while "x" not in begun:
                await asyncio.sleep(0.01)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work

    asyncio.run(cancelled())
    assert traces(store) == []


@pytest.mark.slow
def test_a_client_makes_it_of_its_own_model(store: Store, tmp_path: Path, short: None) -> None:
    path = tmp_path / "small.gguf"
    synthetic.write(path, SHAPE, "F16")
    store.add(path, name="small", variant="f16")
    with Client("small", store=store) as ai:
        made = ai.quantise(to="int8", method="plain")
        assert (made.source, made.variant, made.quantisation) == ("small:f16", "int8-plain", "Q8_0")
        assert ai.model.variant == "f16"  # it goes on with what it has
        with pytest.raises(ConfigurationError, match="text has"):
            ai.quantise(method="imatrix", text="Not much.")
    assert {each.variant for each in models.list(store=store)} == {"f16", "int8-plain"}


def test_what_cannot_be_quantised(store: Store, tmp_path: Path, echo_path: Path) -> None:
    with pytest.raises(ModelNotInstalled):
        models.quantise("nothing", store=store)
    with pytest.raises(Unsupported) as caught:
        models.quantise(echo_path, store=store)
    assert caught.value.capability == "quantise"
    with pytest.raises(ConfigurationError, match="not a method"):
        made_of(store, tmp_path, method="magic")
    with pytest.raises(ConfigurationError, match="not a precision"):
        made_of(store, tmp_path, to="int2")
    assert traces(store) == []


def test_a_name_that_another_model_has(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    synthetic.write(path, SHAPE, "Q4_0")
    store.add(path, name="small", variant="int4-plain")
    with pytest.raises(StoreError, match="another model is installed as small:int4-plain") as caught:
        made_of(store, tmp_path, method="plain")
    assert "ondevice models remove" in (caught.value.hint or "")


def test_a_full_disk_is_told_in_numbers_before_anything_is_written(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("ondevice_sdk.store.files.shutil.disk_usage", lambda _: Usage)
    monkeypatch.setattr(workers, "run_in_worker", lambda *_, **__: pytest.fail("a worker was started"))
    with pytest.raises(StoreError, match=r"MB are needed, 1 kB are free"):
        made_of(store, tmp_path)
    assert traces(store) == []


def test_where_source_and_result_do_not_fit_into_memory(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "usable_memory", lambda _: 50_000_000)
    with pytest.raises(NoModelFits, match="50 MB can be used") as caught:
        made_of(store, tmp_path)
    assert list(caught.value.rejections) == ["small:bf16"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--method", "magic"], 2),
        (["--to", "int3"], 2),
        (["--rows", "none"], 1),
        (["--text", "no such file"], 1),
        ([], 1),
    ],
)
def test_bad_words_on_the_command_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int
) -> None:
    monkeypatch.setenv("ONDEVICE_HOME", str(store.root))
    done = RUN.invoke(app, ["quantise", "nothing", *words])
    assert done.exit_code == code
    assert code == 2 or isinstance(done.exception, OnDeviceError)


def test_no_other_error_is_made_of_what_a_worker_reports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`typed` runs in the worker: what it returns is what the app raises."""
    from ondevice_sdk.quantise import typed

    def last(entry: str, **arguments: Any) -> Any:
        steps = typed.call(entry=entry, arguments=arguments)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    entry = "ondevice_sdk.quantise.reparametrise:write"
    path = tmp_path / "small.gguf"
    synthetic.write(path, SHAPE, "Q4_1")
    value = last(entry, source=str(path), target=str(tmp_path / "made.gguf"))
    monkeypatch.setattr(workers, "run_in_worker", lambda *_, **__: type("R", (), {"value": value}))
    with pytest.raises(ModelUnsupported, match="not in 16 or 32 bits"):
        workers.call(entry, {}, read=[], folder=tmp_path)


@pytest.mark.slow
def test_a_folder_in_the_form_of_the_hub(store: Store, tmp_path: Path, short: None) -> None:
    folder = toys.folder(tmp_path / "Toy Qwen", "qwen2", form="BF16", max_position_embeddings=512)
    made = models.quantise(folder, to="int8", method="presinq", text=TEXT, store=store)
    assert (made.name, made.variant, made.source) == ("toy-qwen", "int8-presinq", "toy-qwen:bf16")
    assert made.quality is not None
    assert made.quality.self_check is not None
    assert made.quality.self_check <= 1e-5
    assert not models.quantise(folder, to="int8", method="presinq", text=TEXT, store=store).made
    assert [each.variant for each in models.list(store=store)] == ["int8-presinq"]
