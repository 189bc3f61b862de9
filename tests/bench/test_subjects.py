from __future__ import annotations

from pathlib import Path

import pytest

from ondevice_sdk import ConfigurationError, ModelNotInstalled, Progress
from ondevice_sdk.bench import find, random_models, remove_random_models
from ondevice_sdk.bench.stations import read_per_token
from ondevice_sdk.catalogue import gguf, layout
from ondevice_sdk.store import Store
from tests.bench.support import SHAPE, TINY


def test_words_are_models_of_a_client(store: Store, echo_path: Path) -> None:
    name, path = find(["smollm2-135m-instruct:int4", str(echo_path)], store=store)
    assert (name.label, name.model, name.random) == ("smollm2-135m-instruct:int4", "smollm2-135m-instruct:int4", False)
    assert (path.label, path.model) == ("model.echo", str(echo_path))  # no path of this machine in the label


def test_no_words_are_all_that_is_installed(store: Store, echo_path: Path) -> None:
    with pytest.raises(ModelNotInstalled) as caught:
        find([], store=store)
    assert "models pull" in (caught.value.hint or "")
    store.add(echo_path, name="parrot", variant="int4")
    assert [subject.model for subject in find([], store=store)] == ["parrot:int4"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("random:llama-3.2-1b", "no random model"),
        ("random::Q4_0", "no random model"),
        ("random:llama-3.2-1b:Q4_0:x", "no random model"),
        ("random:llama-3.2:Q4_0", "several models"),
        ("random:nonsense:Q4_0", "no model of the catalogue"),
        ("random:llama-3.2-1b:Q9_9", "Q9_9"),
    ],
)
def test_words_that_are_no_random_model(store: Store, word: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        find([word], store=store)
    assert caught.value.hint
    assert not store.root.exists()


def test_a_model_named_twice_is_refused(store: Store) -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        find(["one", "one"], store=store)


def test_random_models_are_made_when_asked_for_kept_and_removed(store: Store) -> None:
    seen: list[Progress] = []
    (made,) = find(["random:tiny:Q8_0"], store=store, specs=[TINY], on_progress=seen.append)
    assert made.random
    path = Path(made.model)
    assert path.parent == store.root / "random"
    header = gguf.read_header(path)
    assert header.shape is not None
    assert (header.shape.layers, header.shape.width, header.shape.vocabulary) == (2, 256, 2048)
    assert seen
    assert seen[-1].done == seen[-1].total
    before = path.stat().st_mtime_ns
    assert find(["random:tiny:Q8_0"], store=store, specs=[TINY]) == (made,)
    assert path.stat().st_mtime_ns == before
    assert [model.path for model in random_models(store)] == [str(path)]
    assert [model.path for model in remove_random_models(store)] == [str(path)]
    assert not path.exists()
    assert random_models(store) == ()


def test_what_a_killed_process_left_is_removed(store: Store) -> None:
    folder = store.root / "random"
    folder.mkdir(parents=True)
    left = folder / ".tiny-test-model-Q8_0.gguf.abc"
    left.write_bytes(b"half")
    find(["random:tiny:Q8_0"], store=store, specs=[TINY])
    assert not left.exists()


def test_an_interrupted_making_leaves_nothing(store: Store) -> None:
    def interrupt(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find(["random:tiny:Q4_0"], store=store, specs=[TINY], on_progress=interrupt)
    assert list((store.root / "random").iterdir()) == []


@pytest.mark.parametrize("quantisation", ["Q8_0", "BF16", "Q4_0"])
def test_the_bytes_that_a_token_reads(store: Store, quantisation: str) -> None:
    (made,) = find([f"random:tiny:{quantisation}"], store=store, specs=[TINY])
    read = read_per_token(gguf.read_header(made.model))
    tensors = layout.tensors(SHAPE, quantisation)
    all_bytes = sum(tensor.size for tensor in tensors)
    looked_up = sum(tensor.size for tensor in tensors if tensor.name == "token_embd.weight")
    assert read is not None
    assert layout.tied(SHAPE) == (len([tensor for tensor in tensors if tensor.name == "output.weight"]) == 0)
    expected = all_bytes if layout.tied(SHAPE) else all_bytes - looked_up
    assert read == pytest.approx(expected, rel=0.05)
