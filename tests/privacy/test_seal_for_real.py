"""The filter in the kernel of this machine, in a process of its own, since it cannot be taken off again."""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import json, os, threading, sys
from pathlib import Path
from ondevice_sdk.privacy import seccomp

old = []
hold, go = threading.Event(), threading.Event()
def before():
    hold.set(); go.wait()
    old.append(seccomp.prove())
thread = threading.Thread(target=before); thread.start(); hold.wait()
before_seal = seccomp.prove()
seccomp.harden()
digest = seccomp.install()
go.set(); thread.join()
status = Path("/proc/thread-self/status").read_text()
child = os.fork()
if child == 0:
    os._exit(0 if all(r for _, r in seccomp.prove()) else 1)
print(json.dumps({
    "before": before_seal, "after": seccomp.prove(), "old_thread": old[0], "digest": digest,
    "state": seccomp.state(), "mode": status.split("Seccomp:")[1].split()[0],
    "child": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]),
}))
"""


def test_sealed_process() -> None:
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    seen = json.loads(run.stdout)
    assert not any(refused for name, refused in seen["before"] if name.startswith(("socket AF_INET", "socket AF_UNIX")))
    assert len(seen["after"]) >= 8
    assert all(refused for _, refused in seen["after"])
    assert all(refused for _, refused in seen["old_thread"]), "the filter holds for threads that ran before"
    assert seen["child"] == 0, "and for children"
    assert seen["mode"] == "2"
    assert seen["state"] == [True, False, 0]
    assert len(seen["digest"]) == 64
