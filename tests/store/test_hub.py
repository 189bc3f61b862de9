"""The hub client as its users have it, against a server that speaks the hub's protocol."""

from __future__ import annotations

import http.server
import json
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ondevice_sdk import models
from ondevice_sdk.catalogue.spec import Artifact
from ondevice_sdk.errors import (
    BackendUnavailable,
    ConfigurationError,
    DownloadFailed,
    LicenceNotAccepted,
    ModelCorrupt,
)
from ondevice_sdk.store import Store
from ondevice_sdk.types import Progress

from .helpers import Server, gguf, leftovers, serve, sha, spec

DATA = gguf(200_000)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = "hf:acme/tiny-GGUF/tiny-q4_0.gguf"


@dataclass
class Hub(Server):
    """`files` are those of the repository acme/tiny-GGUF."""

    refuse: tuple[int, str] | None = None  # status, error word
    false_digest: str | None = None

    def respond(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = urllib.parse.urlsplit(handler.path).path
        self.requests.append((handler.command, path, handler.headers.get("Range", "")))
        if self.refuse is not None:
            handler.send_response(self.refuse[0])
            handler.send_header("X-Error-Code", self.refuse[1])
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        elif path.startswith("/api/models/acme/tiny-GGUF"):
            siblings = [
                {
                    "rfilename": name,
                    "size": len(data),
                    "lfs": {"size": len(data), "sha256": self.digest(data), "pointerSize": 1},
                }
                for name, data in self.files.items()
            ]
            body = json.dumps({"id": "acme/tiny-GGUF", "sha": COMMIT, "siblings": siblings}).encode()
            handler.send_response(200)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
        elif path.startswith(f"/acme/tiny-GGUF/resolve/{COMMIT}/"):
            data = self.files[path.split("/", 5)[5]]
            linked = {"X-Linked-Etag": f'"{self.digest(data)}"', "X-Linked-Size": str(len(data))}
            self.send_file(handler, data, {"X-Repo-Commit": COMMIT, **linked})
        else:
            self.empty(handler, 404)

    def digest(self, data: bytes) -> str:
        return self.false_digest or sha(data)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub", reason="the hub extra is not installed")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with serve(Hub()) as running:
        assert isinstance(running, Hub)
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield running


def test_pull(hub: Hub, store: Store) -> None:
    hub.files = {"tiny-q4_0.gguf": DATA, "README.md": b"hello"}
    heard: list[Progress] = []
    made = models.pull("tiny", spec=spec(Artifact(SOURCE, len(DATA), sha(DATA))), store=store, on_progress=heard.append)
    assert (made.sha256, made.digest_origin, made.source) == (sha(DATA), "catalogue", SOURCE)
    assert leftovers(store.root) == [f"blobs/sha256/{sha(DATA)}", "manifests/tiny/int4.json"]
    assert not any("README" in path for _, path, _ in hub.requests)
    asked = len(hub.requests)
    models.pull("tiny", spec=spec(Artifact(SOURCE)), store=store)
    assert len(hub.requests) == asked


def test_a_model_outside_the_catalogue_by_pattern_at_a_commit(hub: Hub, store: Store) -> None:
    hub.files = {"sub/tiny-q4_0.gguf": DATA, "sub/tiny-q8_0.gguf": gguf(64)}
    made = models.pull("mine", source=f"hf:acme/tiny-GGUF@{COMMIT}/*q4_0*", store=store)
    assert (made.name, made.variant, made.digest_origin, made.licence) == ("mine", "int4", "first_use", "unknown")
    assert hub.requests[0][1] == f"/api/models/acme/tiny-GGUF/revision/{COMMIT}"


def test_splits_come_together(hub: Hub, store: Store) -> None:
    hub.files = {f"m-0000{n}-of-00002.gguf": gguf(64 * n) for n in (1, 2)}
    models.pull("mine", source="hf:acme/tiny-GGUF/m-00001-of-00002.gguf", store=store)
    names = [Path(path).name for path in store.resolve("mine").files]
    assert names == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert all(result.ok for result in store.verify())


@pytest.mark.slow
def test_a_cut_connection_is_tried_again(hub: Hub, store: Store) -> None:
    hub.files = {"tiny-q4_0.gguf": DATA}
    hub.cuts = [80_000]
    models.pull("tiny", spec=spec(Artifact(SOURCE, len(DATA), sha(DATA))), store=store)
    assert len([path for method, path, _ in hub.requests if method == "GET" and "resolve" in path]) == 2
    assert store.verify("tiny")[0].ok


@pytest.mark.parametrize("known", [sha(DATA), None])
def test_a_wrong_digest(hub: Hub, store: Store, known: str | None) -> None:
    """By the catalogue, or, where that says nothing, by the hub itself."""
    hub.files = {"tiny-q4_0.gguf": gguf(200_000, seed=b"evil")}
    hub.false_digest = sha(DATA)
    with pytest.raises(ModelCorrupt) as caught:
        models.pull("tiny", spec=spec(Artifact(SOURCE, None, known)), store=store)
    assert caught.value.expected == sha(DATA)
    assert leftovers(store.root) == []


def test_a_wrong_size_is_refused_before_the_download(hub: Hub, store: Store) -> None:
    hub.files = {"tiny-q4_0.gguf": DATA}
    with pytest.raises(ModelCorrupt, match="size"):
        models.pull("tiny", spec=spec(Artifact(SOURCE, 5)), store=store)
    assert not any("resolve" in path for _, path, _ in hub.requests)


def test_gated(hub: Hub, store: Store) -> None:
    hub.refuse = (401, "GatedRepo")
    with pytest.raises(LicenceNotAccepted) as caught:
        models.pull("tiny", spec=spec(Artifact(SOURCE)), store=store)
    assert caught.value.licence == "acme/tiny-GGUF"
    assert leftovers(store.root) == []


@pytest.mark.parametrize(("status", "word"), [(404, "RepoNotFound"), (403, ""), (500, "")])
def test_refused(hub: Hub, store: Store, status: int, word: str) -> None:
    hub.refuse = (status, word)
    with pytest.raises(DownloadFailed) as caught:
        models.pull("tiny", spec=spec(Artifact(SOURCE)), store=store)
    assert (caught.value.status, caught.value.host) == (status, "127.0.0.1")


def test_no_such_file(hub: Hub, store: Store) -> None:
    hub.files = {"other.gguf": DATA}
    with pytest.raises(DownloadFailed) as caught:
        models.pull("tiny", spec=spec(Artifact(SOURCE)), store=store)
    assert caught.value.status == 404


def test_a_pattern_that_fits_several_files(hub: Hub, store: Store) -> None:
    hub.files = {"a.gguf": DATA, "b.gguf": DATA}
    with pytest.raises(ConfigurationError, match="2 files"):
        models.pull("mine", source="hf:acme/tiny-GGUF/*.gguf", store=store)


def test_names_that_lead_out_of_the_directory_do_not_exist(hub: Hub, store: Store) -> None:
    hub.files = {"../tiny-q4_0.gguf": DATA, "/tiny-q4_0.gguf": DATA, "a/../../tiny-q4_0.gguf": DATA}
    with pytest.raises(DownloadFailed):
        models.pull("mine", source="hf:acme/tiny-GGUF/*", store=store)


def test_offline(hub: Hub, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadFailed, match="offline"):
        models.pull("tiny", spec=spec(Artifact(SOURCE)), store=store)
    assert hub.requests == []


def test_without_the_hub_client(hub: Hub, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = tmp_path / "hidden" / "huggingface_hub"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(hidden.parent))
    with pytest.raises(BackendUnavailable) as caught:
        models.pull("tiny", spec=spec(Artifact(SOURCE)), store=store)
    assert caught.value.hint == 'pip install "ondevice-sdk[hub]"'


@pytest.mark.parametrize("rest", ["tiny", "acme/tiny", "acme/tiny/", "a b/c/d"])
def test_a_source_that_is_none(store: Store, rest: str) -> None:
    with pytest.raises(ConfigurationError, match="not a source"):
        models.pull("tiny", spec=spec(Artifact(f"hf:{rest}")), store=store)
