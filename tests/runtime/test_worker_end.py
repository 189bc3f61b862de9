"""However the worker or the app ends: nobody waits for ever, and nothing is left."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ondevice_sdk import errors
from ondevice_sdk.backends.api import Failed, Generated, LoadOptions
from ondevice_sdk.runtime import open_executor
from ondevice_sdk.runtime.process import ProcessExecutor

from .conftest import FAKE, MODULES, PATIENCE, Opener, answer, ask, drain, finish, local_model

APP = f"""
import os, signal, sys, threading, time
sys.path.append({str(MODULES)!r})
from ondevice_sdk.backends.api import *
from ondevice_sdk.runtime import open_executor
executor = open_executor({FAKE!r}, LocalModel("fake", "int4", "fake", "/x", ""), LoadOptions(),
                         isolation="process", privacy="strict")
request = Generate(Raw((Segment("!prefill"),)), 5)
"""


def gone(pid: int) -> bool:
    """Wait for a process that is not ours to end."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], PATIENCE)[0])
    finally:
        os.close(fd)


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def run_app(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", APP + code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("command", "signal_name", "exit_code"),
    [
        ("!abort", "SIGABRT", None),
        ("!kill 9", "SIGKILL", None),
        ("!kill 11", "SIGSEGV", None),
        ("!exhaust", "SIGKILL", None),
        ("!exit 3", None, 3),
    ],
)
def test_a_dead_worker_fails_what_was_in_flight(
    opener: Opener, command: str, signal_name: str | None, exit_code: int | None
) -> None:
    executor = opener()
    other = executor.submit(ask("!prefill"))
    last = finish(executor, ask(command))
    for end in (last, drain(other)[-1]):
        assert isinstance(end, Failed)
        assert end.error.code == "worker_crashed"
        assert end.error.data == {"signal": signal_name, "exit_code": exit_code}
    assert isinstance(last, Failed)
    if signal_name == "SIGKILL":
        assert "memory" in last.error.message
    assert not executor.alive
    with pytest.raises(errors.WorkerCrashed) as caught:
        executor.submit(ask("x"))
    assert (caught.value.signal, caught.value.exit_code) == (signal_name, exit_code)
    executor.report()
    executor.close()
    with pytest.raises(errors.ClientClosed):
        executor.submit(ask("x"))
    assert answer(opener(), "a new one works") == "a new one works"


def test_a_worker_that_dies_while_it_loads(opener: Opener) -> None:
    with pytest.raises(errors.WorkerCrashed) as caught:
        opener("aborting")
    assert caught.value.signal == "SIGABRT"


@pytest.mark.slow
def test_a_stopped_worker_blocks_no_caller_and_no_close(opener: Opener) -> None:
    executor = opener()
    assert isinstance(executor, ProcessExecutor)
    os.kill(executor.pid, signal.SIGSTOP)
    tickets = [executor.submit(ask("x" * 100_000)) for _ in range(20)]  # many times what a pipe holds
    executor.close()
    assert all(isinstance(drain(ticket)[-1], Failed) for ticket in tickets)
    assert not Path(f"/proc/{executor.pid}").exists()


def test_a_forgotten_executor_leaves_nothing(modules: None) -> None:
    executor = open_executor(FAKE, local_model(), LoadOptions(), isolation="process", privacy="strict")
    assert isinstance(executor, ProcessExecutor)
    pid, home = executor.pid, Path(answer(executor, "!home"))
    ticket = executor.submit(ask("!prefill"))
    del executor
    gc.collect()
    assert isinstance(drain(ticket)[-1], Failed)
    assert not Path(f"/proc/{pid}").exists()
    assert not home.exists()


def test_no_descriptor_is_left(opener: Opener) -> None:
    opener().close()  # whatever is opened once
    before = descriptors()
    for _ in range(3):
        opener().close()
    with pytest.raises(errors.ModelCorrupt):
        opener("corrupt")
    assert descriptors() == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_app_leaves_no_worker(number: int) -> None:
    code = "executor.submit(request)\nprint(executor.pid, flush=True)\ntime.sleep(1000)"
    with run_app(code) as app:
        assert app.stdout is not None
        pid = int(app.stdout.readline())
        app.send_signal(number)
        app.wait(PATIENCE)
        assert gone(pid)


def test_an_app_that_forgets_to_close_leaves_no_worker() -> None:
    with run_app("executor.submit(request)\nprint(executor.pid, flush=True)") as app:
        assert app.stdout is not None
        pid = int(app.stdout.readline())
        assert app.wait(PATIENCE) == 0
        assert gone(pid)


def test_ctrl_c_in_the_middle_leaves_no_worker_and_does_not_reach_it() -> None:
    code = """
signal.signal(signal.SIGINT, signal.default_int_handler)
ticket = executor.submit(request)
arrived = threading.Event()
ticket.set_wakeup(arrived.set)
arrived.wait()
assert os.getsid(executor.pid) == executor.pid
try:
    print(executor.pid, flush=True)  # in here: the signal may come at once
    time.sleep(1000)
except KeyboardInterrupt:
    assert executor.alive
    ticket.cancel()
    while not any(isinstance(e, Done) for e in ticket.take()):
        time.sleep(0.001)
    print("cancelled", flush=True)
    raise
"""
    with run_app(code) as app:
        assert app.stdout is not None
        pid = int(app.stdout.readline())
        app.send_signal(signal.SIGINT)
        assert app.stdout.readline() == "cancelled\n"
        assert app.wait(PATIENCE) != 0
        assert gone(pid)


def test_ctrl_c_while_loading_leaves_no_worker() -> None:
    code = """
signal.signal(signal.SIGINT, signal.default_int_handler)
from ondevice_sdk.runtime import process
make = process.WorkerProcess
def tell(*a):
    child = make(*a); print(child.pid, flush=True); return child
process.WorkerProcess = tell
hanging = LocalModel("hanging", "int4", "fake", "/x", "")
loading = lambda p: p.done == 100 and print("loading", flush=True)
try:
    open_executor("ondevice_fake:FakeBackend", hanging, LoadOptions(), isolation="process", privacy="strict",
                  on_progress=loading)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.readline()
"""
    with run_app(code) as app:
        assert app.stdout is not None
        assert app.stdin is not None
        pid = int(app.stdout.readline())
        assert app.stdout.readline() == "loading\n"
        app.send_signal(signal.SIGINT)
        assert app.stdout.readline() == "interrupted\n"
        assert not Path(f"/proc/{pid}").exists()  # at once, while the app lives on
        app.stdin.close()


FORK = """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks with threads, which is the point here
def ask(ex, text):
    ticket = ex.submit(Generate(Raw((Segment(text),)), 50)); event = threading.Event(); ticket.set_wakeup(event.set)
    while True:
        event.wait(); event.clear()
        for e in ticket.take():
            if isinstance(e, Done): return e.result.text
            if isinstance(e, Failed): return e.error.code
def open_pipes():
    targets = {entry.name: os.readlink(entry) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry)}
    return {target for fd, target in targets.items() if int(fd) > 2 and target.startswith("pipe:")}
parents_pipes = open_pipes()
in_flight = executor.submit(request)
child = os.fork()
if child == 0:
    from ondevice_sdk.errors import WorkerCrashed, ClientClosed
    code = 1
    try:
        assert not executor.alive
        try: executor.submit(request)
        except WorkerCrashed: pass
        else: raise AssertionError
        assert in_flight.take()[-1].error.code == "worker_crashed"
        assert len(parents_pipes) >= 3 and not open_pipes() & parents_pipes
        executor.close()
        new = open_executor("ondevice_fake:FakeBackend", LocalModel("fake", "int4", "fake", "/x", ""), LoadOptions(),
                            isolation="process", privacy="strict")
        assert new.pid != executor.pid
        assert ask(new, "in the child") == "in the child"
        new.close()
        code = 0
    except BaseException:
        import traceback; traceback.print_exc()
    sys.exit(code)   # the exit handlers run in the child too, and must leave the parent's worker alone
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert executor.alive
assert ask(executor, "in the parent") == "in the parent"
print("fine", flush=True)
"""


def test_a_forked_child_gets_its_own_and_leaves_the_parents_alone() -> None:
    with run_app(FORK) as app:
        assert app.stdout is not None
        assert app.stdout.read() == "fine\n"
        assert app.wait(PATIENCE) == 0


def test_the_worker_ends_with_its_app_though_a_forked_child_lives_on() -> None:
    code = """
child = os.fork()
if child == 0:
    sys.stdin.readline()   # lives until the test is over
    os._exit(0)
print(executor.pid, flush=True)
signal.pause()
"""
    with run_app(code) as app:
        assert app.stdout is not None
        assert app.stdin is not None
        pid = int(app.stdout.readline())
        app.kill()
        assert gone(pid)
        with contextlib.suppress(BrokenPipeError):
            app.stdin.close()


def test_a_command_that_is_no_python(opener: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigurationError):
        opener(worker_command=[str(tmp_path / "missing")])
    with pytest.raises(errors.ConfigurationError):
        opener(worker_command=[])
    with pytest.raises(errors.WorkerCrashed):
        opener(worker_command=["/bin/true"])
    monkeypatch.setenv("ONDEVICE_PYTHON", str(tmp_path / "missing"))
    with pytest.raises(errors.ConfigurationError):
        opener()
    monkeypatch.setenv("ONDEVICE_PYTHON", sys.executable)
    monkeypatch.setattr(sys, "executable", "")
    assert answer(opener(), "a frozen app") == "a frozen app"
    monkeypatch.delenv("ONDEVICE_PYTHON")
    with pytest.raises(errors.ConfigurationError) as caught:
        opener()
    assert "ONDEVICE_PYTHON" in str(caught.value)


def test_cancelled_generations_say_so(opener: Opener) -> None:
    executor = opener()
    ticket = executor.submit(ask("!prefill"))
    ticket.cancel()
    last = drain(ticket)[-1]
    assert not isinstance(last, Failed)
    assert isinstance(getattr(last, "result", None), Generated)
