from __future__ import annotations

import time

import pytest

from ondevice_sdk import models
from ondevice_sdk.catalogue.spec import Artifact
from ondevice_sdk.errors import ConfigurationError, DownloadFailed, ModelCorrupt
from ondevice_sdk.store import Store
from ondevice_sdk.types import Progress

from .helpers import Server, gguf, leftovers, sha, spec

DATA = gguf(300_000)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def artifact(server: Server, path: str = "/m.gguf", *, known: bool = True) -> Artifact:
    return Artifact(server.url + path, len(DATA) if known else None, sha(DATA) if known else None)


def test_pull_checks_and_installs(server: Server, store: Store) -> None:
    server.files["/m.gguf"] = DATA
    heard: list[Progress] = []
    made = models.pull("tiny", spec=spec(artifact(server)), store=store, on_progress=heard.append)
    assert (made.name, made.variant, made.format, made.size) == ("tiny", "int4", "gguf", len(DATA))
    assert (made.sha256, made.digest_origin, made.licence) == (sha(DATA), "catalogue", "Tiny Terms")
    assert heard[-1] == Progress("download", len(DATA), len(DATA), "bytes")
    assert [p.done for p in heard] == sorted(p.done for p in heard)
    found = store.resolve("tiny")
    with open(found.path, "rb") as file:  # noqa: PTH123
        assert file.read() == DATA
    assert leftovers(store.root) == [f"blobs/sha256/{sha(DATA)}", "manifests/tiny/int4.json"]


def test_a_second_pull_asks_nobody(server: Server, store: Store) -> None:
    server.files["/m.gguf"] = DATA
    models.pull("tiny", spec=spec(artifact(server)), store=store)
    asked = len(server.requests)
    models.pull("tiny", spec=spec(artifact(server)), store=store)
    models.pull("tiny:int4", store=store)
    assert len(server.requests) == asked


def test_an_unknown_digest_is_recorded_on_first_use(server: Server, store: Store) -> None:
    server.files["/m.gguf"] = DATA
    made = models.pull("tiny", spec=spec(artifact(server, known=False)), store=store)
    assert (made.sha256, made.digest_origin) == (sha(DATA), "first_use")


def test_a_cut_connection_is_resumed(server: Server, store: Store) -> None:
    server.files["/m.gguf"] = DATA
    server.cuts = [100_000, 50_000]
    models.pull("tiny", spec=spec(artifact(server)), store=store)
    assert [r[2] for r in server.requests] == ["", "bytes=100000-", "bytes=150000-"]
    assert store.verify("tiny")[0].ok


def test_a_later_pull_resumes_what_an_earlier_one_kept(server: Server, store: Store) -> None:
    server.files["/m.gguf"] = DATA
    server.cuts = [100_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed) as caught:
        models.pull("tiny", spec=spec(artifact(server)), store=store)
    assert caught.value.host == "127.0.0.1"
    assert store.installed() == ()
    server.requests.clear()
    models.pull("tiny", spec=spec(artifact(server)), store=store)
    assert server.requests == [("GET", "/m.gguf", "bytes=100000-")]


def test_a_file_that_changed_meanwhile_is_not_mixed(server: Server, store: Store) -> None:
    other = gguf(300_000, seed=b"other")
    server.files["/m.gguf"] = other
    server.cuts = [100_000, 0, 0, 0, 0, 0]
    with pytest.raises(DownloadFailed):
        models.pull("tiny", spec=spec(artifact(server)), store=store)
    server.files["/m.gguf"] = DATA
    assert models.pull("tiny", spec=spec(artifact(server)), store=store).sha256 == sha(DATA)


def test_without_a_validator_the_download_begins_again(server: Server, store: Store) -> None:
    server.files["/m.gguf"] = DATA
    server.send_etag = False
    server.cuts = [100_000]
    models.pull("tiny", spec=spec(artifact(server)), store=store)
    assert [r[2] for r in server.requests] == ["", ""]


def test_a_wrong_digest_leaves_nothing(server: Server, store: Store) -> None:
    server.files["/m.gguf"] = gguf(300_000, seed=b"evil")
    with pytest.raises(ModelCorrupt) as caught:
        models.pull("tiny", spec=spec(artifact(server)), store=store)
    assert (caught.value.expected, caught.value.actual) == (sha(DATA), sha(server.files["/m.gguf"]))
    assert leftovers(store.root) == []


@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_size_is_refused_before_it_is_read(server: Server, store: Store, change: int) -> None:
    server.files["/m.gguf"] = DATA + b"x" if change > 0 else DATA[:change]
    heard: list[Progress] = []
    with pytest.raises(ModelCorrupt, match="size"):
        models.pull("tiny", spec=spec(artifact(server)), store=store, on_progress=heard.append)
    assert heard == []
    assert "data" not in "".join(leftovers(store.root))


def test_a_server_that_promises_more_than_it_sends(server: Server, store: Store) -> None:
    server.files["/m.gguf"] = DATA
    server.false_length = len(DATA) + 5
    server.cuts = [len(DATA)] * 20
    with pytest.raises((DownloadFailed, ModelCorrupt)):
        models.pull("tiny", spec=spec(artifact(server, known=False)), store=store)
    assert store.installed() == ()


def test_what_is_no_model_is_refused(server: Server, store: Store) -> None:
    server.files["/m.gguf"] = b"<html>please log in</html>"
    with pytest.raises(ModelCorrupt, match="format"):
        models.pull("tiny", spec=spec(artifact(server, known=False)), store=store)
    assert leftovers(store.root) == []


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (403, 1), (410, 1), (503, 5)])
def test_status(server: Server, store: Store, status: int, asked: int) -> None:
    server.statuses["/m.gguf"] = [status] * 10
    with pytest.raises(DownloadFailed) as caught:
        models.pull("tiny", spec=spec(artifact(server)), store=store)
    assert (caught.value.status, caught.value.host) == (status, "127.0.0.1")
    assert len(server.requests) == asked


def test_a_busy_server_is_asked_again(server: Server, store: Store) -> None:
    server.files["/m.gguf"] = DATA
    server.statuses["/m.gguf"] = [503, 429]
    assert models.pull("tiny", spec=spec(artifact(server)), store=store).sha256 == sha(DATA)


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/m", "file:///etc/passwd", "http://model.invalid/m"])
def test_redirects_to_what_is_not_private_are_refused(server: Server, store: Store, target: str) -> None:
    server.redirects["/m.gguf"] = target
    with pytest.raises(DownloadFailed):
        models.pull("tiny", spec=spec(artifact(server)), store=store)
    assert len(server.requests) == 1
    assert leftovers(store.root) == []


def test_a_redirect_on_loopback_is_followed(server: Server, store: Store) -> None:
    server.files["/real"] = DATA
    server.redirects["/m.gguf"] = "/real"
    assert models.pull("tiny", spec=spec(artifact(server)), store=store).sha256 == sha(DATA)


@pytest.mark.parametrize(
    "url",
    [
        "http://model.invalid/m.gguf",
        "https:///m.gguf",
        "http://127.0.0.1.model.invalid/m",
        "https://user:secret@model.invalid/m",
        "https://model.invalid:x/m",
        "https://[::1/m",
    ],
)
def test_only_https_addresses(store: Store, url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        models.pull("tiny", spec=spec(Artifact(url)), store=store)
    assert "secret" not in str(caught.value)


def test_a_key_in_the_address_is_not_written_down(server: Server, store: Store) -> None:
    server.files["/m.gguf?key=secret"] = DATA
    made = models.pull("tiny", spec=spec(artifact(server, "/m.gguf?key=secret")), store=store)
    assert made.source == f"{server.url}/m.gguf"
    assert "secret" not in store.space.manifest("tiny", "int4").read_text()


def test_nobody_there(store: Store, server: Server) -> None:
    url = server.url.rpartition(":")[0] + ":1"
    with pytest.raises(DownloadFailed) as caught:
        models.pull("tiny", spec=spec(Artifact(f"{url}/m.gguf")), store=store)
    assert caught.value.retryable


class Stop(BaseException):
    """What Ctrl-C is: no `Exception`."""


def test_an_interrupted_pull_keeps_only_what_can_be_resumed(server: Server, store: Store) -> None:
    server.files["/m.gguf"] = DATA
    server.cuts = [100_000]

    def stop(progress: Progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        models.pull("tiny", spec=spec(artifact(server)), store=store, on_progress=stop)
    assert all(name.startswith("partial/") for name in leftovers(store.root))
    models.pull("tiny", spec=spec(artifact(server)), store=store)
    assert leftovers(store.root) == [f"blobs/sha256/{sha(DATA)}", "manifests/tiny/int4.json"]


def test_the_splits_of_a_file_stay_files_with_their_names(server: Server, store: Store) -> None:
    first, second = gguf(64), gguf(96)
    server.files = {"/m-00001-of-00002.gguf": first, "/m-00002-of-00002.gguf": second}
    sources = [Artifact(server.url + name, len(data), sha(data)) for name, data in server.files.items()]
    models.pull("tiny", spec=spec(*sources), store=store)
    found = store.resolve("tiny")
    assert [path.rpartition("/")[2] for path in found.files] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert found.path == found.files[0]
    store.removal("tiny").execute()
    assert leftovers(store.root) == []


def test_pieces_are_joined_in_order(server: Server, store: Store) -> None:
    server.files = {"/m.part2": DATA[200_000:], "/m.part1": DATA[:200_000]}
    pieces = [
        Artifact(f"{server.url}/m.part{n}", len(part), sha(part))
        for n, part in ((1, DATA[:200_000]), (2, DATA[200_000:]))
    ]
    made = models.pull("tiny", spec=spec(*pieces), store=store)
    assert (made.sha256, made.digest_origin) == (sha(DATA), "catalogue")
