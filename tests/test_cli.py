"""The `ondevice` command as a user types it: in a process of its own, with a store of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ondevice_sdk.store import Store

from .store.helpers import sha
from .store.test_folders import ELF, compiled


class Command:
    """Runs `ondevice` against one store."""

    def __init__(self, home: Path) -> None:
        self.env = {**os.environ, "ONDEVICE_HOME": str(home)}

    def __call__(self, *words: str, stdin: bytes = b"", code: int = 0) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(self.line(words), input=stdin, env=self.env, capture_output=True, timeout=240)
        assert done.returncode == code, done.stderr.decode()
        return done

    def line(self, words: Sequence[str]) -> list[str]:
        return [sys.executable, "-W", "error", "-m", "ondevice_sdk", *words]


@pytest.fixture
def ondevice(tmp_path: Path) -> Command:
    return Command(tmp_path / "home")


@pytest.mark.slow
def test_models_add_list_verify_remove(ondevice: Command, echo_path: Path) -> None:
    added = json.loads(ondevice("models", "add", str(echo_path), "--name", "parrot", "--json").stdout)
    assert added["name"] == "parrot"
    (listed,) = json.loads(ondevice("models", "list", "--json").stdout)
    assert listed["sha256"] == added["sha256"]
    assert b"parrot" in ondevice("models", "list").stdout
    (checked,) = json.loads(ondevice("models", "verify", "--json").stdout)
    assert checked["ok"]
    ondevice("models", "remove", "parrot")
    assert json.loads(ondevice("models", "list", "--json").stdout) == []


def test_a_damaged_model_makes_verify_fail(ondevice: Command, echo_path: Path) -> None:
    added = json.loads(ondevice("models", "add", str(echo_path), "--name", "parrot", "--json").stdout)
    path = Path(added["path"])
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"2048", b"2047"))
    assert b"CORRUPT" in ondevice("models", "verify", code=1).stdout


@pytest.mark.slow
def test_export_and_import(ondevice: Command, echo_path: Path, tmp_path: Path) -> None:
    ondevice("models", "add", str(echo_path), "--name", "parrot")
    ondevice("models", "export", "parrot", "--to", str(tmp_path / "models.bundle"))
    other = Command(tmp_path / "other")
    (installed,) = json.loads(other("models", "import", str(tmp_path / "models.bundle"), "--json").stdout)
    assert installed["name"] == "parrot"


@pytest.mark.slow
def test_folders_with_native_code(ondevice: Command, tmp_path: Path) -> None:
    folder, digest = compiled(tmp_path / "m"), sha(ELF)
    refused = ondevice("models", "add", str(folder), code=1).stderr.decode()
    assert "lib.so is native code" in refused
    assert "--pin lib.so=SHA256" in refused
    assert digest not in refused
    assert b"FILE=SHA256" in ondevice("models", "add", str(folder), "--pin", "lib.so", code=1).stderr
    added = json.loads(ondevice("models", "add", str(folder), "--pin", f"lib.so={digest}", "--json").stdout)
    assert added["code"] == [{"name": "lib.so", "sha256": digest, "origin": "pinned"}]
    assert b"mlc, pinned code" in ondevice("models", "list").stdout
    bundle = str(tmp_path / "models.bundle")
    assert f"--pin lib.so={digest}" in ondevice("models", "export", "m", "--to", bundle).stdout.decode()
    other = Command(tmp_path / "other")
    assert b"bound to the installation" in other("models", "import", bundle, code=1).stderr
    assert b"m:int4-mlc" in other("models", "import", bundle, "--pin", f"lib.so={digest}").stdout


def test_explain_with_no_model_installed(ondevice: Command) -> None:
    selection = json.loads(ondevice("explain", "--json", "--no-calibrate").stdout)
    assert selection["chosen"]["rank"] == 1
    assert all((c["rank"] is None) != (c["rejected"] is None) for c in selection["candidates"])
    table = ondevice("explain", "--task", "summarise", "--tokens", "8000", "--no-calibrate").stdout.decode()
    assert "smollm2-135m-instruct" in table


def test_backends(ondevice: Command) -> None:
    backends = {backend["name"]: backend for backend in json.loads(ondevice("backends", "--json").stdout)}
    assert backends["llama_cpp"]["usable"]
    assert set(backends["echo"]) == {"name", "usable", "reason", "hint", "capabilities"}
    assert b"llama_cpp" in ondevice("backends").stdout


@pytest.mark.slow
def test_generate_and_standard_input(ondevice: Command, echo_path: Path) -> None:
    model = ("--model", str(echo_path), "--temperature", "0")
    assert ondevice("generate", "hello", *model).stdout == b"hello\n"
    assert ondevice("generate", "-", *model, stdin="grüße".encode()).stdout.decode() == "grüße\n"
    assert json.loads(ondevice("generate", "hello", *model, "--json").stdout)["text"] == "hello"


def test_chat_reads_lines(ondevice: Command, echo_path: Path) -> None:
    done = ondevice("chat", "--model", str(echo_path), "--temperature", "0", stdin=b"one\n\n/undo\ntwo\n/quit\nthree\n")
    assert done.stdout == b"one\ntwo\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "stdin", "message"),
    [
        (("summarise", "/no/such/file"), b"", "No such file"),
        (("summarise", "-"), b"\xff\xfe broken", "not UTF-8"),
        (("summarise", "-"), b"some text", "models pull"),
        (("analyse", "-", "--form", "mood"), b"text", "no built-in form"),
        (("analyse", "-", "--labels", "one"), b"text", "two labels"),
        (("models", "add", "/no/such.gguf"), b"", "/no/such.gguf"),
        (("models", "pull", "no-such-model"), b"", "no-such-model"),
        (("models", "remove", "no-such-model"), b"", "no-such-model"),
    ],
)
def test_errors_are_one_message_and_the_next_step(
    ondevice: Command, words: tuple[str, ...], stdin: bytes, message: str
) -> None:
    done = ondevice(*words, stdin=stdin, code=1)
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    as_json = json.loads(ondevice(*words, "--json", stdin=stdin, code=1).stderr)
    assert as_json["error"]["code"]


def test_a_licence_has_to_be_accepted(ondevice: Command) -> None:
    done = ondevice("models", "pull", "llama-3.2-1b-instruct", code=1)
    assert b"--accept-licence" in done.stderr


def test_home_unset_or_read_only(ondevice: Command, tmp_path: Path) -> None:
    ondevice.env["ONDEVICE_HOME"] = "/proc/nowhere"
    assert b"ONDEVICE_HOME" in ondevice("models", "pull", "smollm2-135m-instruct", code=1).stderr
    for name in ("ONDEVICE_HOME", "HOME", "XDG_DATA_HOME"):
        ondevice.env.pop(name, None)
    ondevice("explain", "--no-calibrate")


@pytest.mark.slow
def test_ctrl_c_ends_quietly(ondevice: Command, tmp_path: Path) -> None:
    slow = tmp_path / "slow.echo"
    slow.write_text('{"ondevice-echo": 1, "context_tokens": 2048, "delay_s": 0.05}')
    words = ("generate", "x" * 1000, "--model", str(slow), "--temperature", "0")
    with subprocess.Popen(
        ondevice.line(words), env=ondevice.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as app:
        assert app.stdout is not None
        assert app.stderr is not None
        assert app.stdout.read(1) == b"x"
        app.send_signal(signal.SIGINT)
        assert app.wait(30) == 130
        assert b"Traceback" not in app.stderr.read()


@pytest.mark.model
@pytest.mark.slow
def test_tasks_on_the_real_model(installed_store: Store) -> None:
    ondevice = Command(installed_store.root)
    document = Path(__file__).parent.parent / "examples" / "data" / "harbour_bridge.txt"
    text = document.read_text(encoding="utf-8")
    summary = json.loads(ondevice("summarise", str(document), "--length", "short", "--json").stdout)
    assert 1 <= len(summary["points"]) <= 3
    for point in summary["points"]:
        assert all(text[span["start"] : span["end"]] == span["text"] for span in point["sources"])
    label = ondevice("analyse", "-", "--labels", "weather,sport", stdin=b"It will rain all day and be windy.").stdout
    assert label.decode().splitlines()[0] in ("weather", "sport")


@pytest.mark.slow
def test_this_device_is_measured_once(ondevice: Command) -> None:
    first = ondevice("calibrate", "--json")
    (made,) = json.loads(first.stdout)
    assert made["rates"]
    assert json.loads(ondevice("calibrate", "--json").stdout) == [made]
    assert "GFLOP/s" in ondevice("calibrate").stdout.decode()
    table = ondevice("explain").stdout.decode()
    assert "~" not in table  # no speed is a guess any more
