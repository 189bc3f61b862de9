"""The filters in the kernel of this machine, in a process of its own, since they cannot be taken off again."""

from __future__ import annotations

import json
import subprocess
import sys

from ondevice_sdk.privacy.sandbox import trial

CODE = """
import json, threading
from pathlib import Path
from ondevice_sdk.privacy.sandbox import confine, seccomp, trial

old = []
hold, go = threading.Event(), threading.Event()
def before():
    hold.set(); go.wait()
    old.append(trial.network())
thread = threading.Thread(target=before); thread.start(); hold.wait()
before_seal = trial.network()
confine.no_core_file()
confine.no_new_privileges()
filtered = seccomp.install(None)
confine.not_dumpable()
go.set(); thread.join()
new = []
young = threading.Thread(target=lambda: new.append(trial.network())); young.start(); young.join()
status = Path("/proc/thread-self/status").read_text()
print(json.dumps({
    "before": before_seal, "after": trial.network(), "old_thread": old[0], "new_thread": new[0],
    "told": filtered, "state": confine.state(), "mode": status.split("Seccomp:")[1].split()[0],
}))
"""


def test_sealed_process() -> None:
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    seen = json.loads(run.stdout)
    assert not any(refused for name, refused in seen["before"] if name.startswith(("socket AF_INET", "socket AF_UNIX")))
    assert len(seen["after"]) >= 16
    assert all(refused for _, refused in seen["after"])
    assert all(refused for _, refused in seen["old_thread"]), "the filter holds for threads that ran before"
    assert all(refused for _, refused in seen["new_thread"]), "and for those that are made after"
    assert seen["mode"] == "2"
    assert seen["state"] == [True, False, 0]
    assert seen["told"][0] is False


def test_nothing_is_refused_here_without_a_filter() -> None:
    """The positive control: unsealed, at least the plain sockets can be had."""
    attempts = dict(trial.network())
    assert attempts["socket AF_INET"] is False
    assert attempts["socket AF_INET with high bits"] is False
    assert attempts["socket AF_UNIX"] is False
    assert attempts["execve"] is False
    assert attempts["signal to the app"] is False
