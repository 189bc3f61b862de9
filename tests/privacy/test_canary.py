"""Text stays private: every feature is used with random words in all texts, and everything that is left is searched.

Logs, warnings, standard streams, errors with all that they were raised from, `repr` of values, files of app and worker,
what /proc shows, the ledger, the privacy report, core files. By design the words are in answers, in `OutputInvalid.raw`
and in the messages of a chat, and in what a command prints as its answer.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from ondevice_sdk import AsyncClient, Client, PrefixCache, errors
from ondevice_sdk.chat import Chat
from ondevice_sdk.privacy import policy
from ondevice_sdk.stream import Stream
from tests.bert import make_embedder

from .canary_run import ROOT, SHARED, Ran, beginnings, environment, run_app
from .canary_search import Search, disguises, random_word

try:
    policy.check_available("strict")
except errors.PrivacyUnavailable as _error:
    pytest.skip(f"strict privacy cannot be had here: {_error.reasons}", allow_module_level=True)

HERE = Path(__file__).parent
KINDS = ("document", "address", "prompt", "system", "schema", "label", "stop", "example", "option", "prefix", "file")
SENTENCE = "It makes 300 bicycles a week"  # of the app's document, which has no word of its own


# --- the search itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", disguises("x" * 30))
def test_a_word_is_found_in_every_disguise(how: str, tmp_path: Path) -> None:
    word = random_word("word")
    search = Search({"word": word, "other": random_word("other")})
    planted = tmp_path / "some" / "file"
    planted.parent.mkdir()
    planted.write_bytes(b"\x00\xff" + disguises(word)[how] + b"more")
    assert search.in_folder(tmp_path) == {str(planted): {f"word as {how}"}}


@pytest.mark.parametrize("before", range(4))
def test_a_word_is_found_in_base64_at_any_place(before: int) -> None:
    word = random_word("word")
    text = base64.b64encode(b"p" * before + word.encode() + b" and the rest")
    assert Search({"word": word}).in_bytes(text)
    assert not Search({"word": random_word("word")}).in_bytes(text)


def test_a_word_is_found_at_the_border_of_two_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.privacy.canary_search._CHUNK", 64)
    word = random_word("word")
    for before in range(64):
        (tmp_path / "file").write_bytes(b"." * before + word.encode())
        assert Search({"word": word}).in_file(tmp_path / "file")


def test_what_is_not_searched_for_is_not_found() -> None:
    word = random_word("word")
    assert not Search({"word": word}).in_bytes(zlib.compress(word.encode() * 9)), "compressed text is not looked into"


LEAKS = (
    *("stdout", "stderr", "log", "warning", "repr", "message", "attribute", "note", "cause", "context", "returned"),
    *("home", "temporary", "cache", "config", "store", "directory", "name", "link", "worker", "shared", "brief"),
    *("argument", "variable"),
)


def test_a_leak_is_found_in_every_place(tmp_path: Path) -> None:
    """The control: an app that leaks everywhere is searched in the same way."""
    shared = SHARED / f"ondevice-canary-{os.getpid()}"
    try:
        ran = run_app(tmp_path, "canary_leaks", {name: random_word(name) for name in LEAKS}, shared=str(shared))
        hits = ran.hits()
    finally:
        shared.unlink(missing_ok=True)
    found = {
        name: {place for place, seen in hits.items() if any(s.startswith(f"{name} as") for s in seen)} for name in LEAKS
    }
    assert all(found.values()), [name for name, places in found.items() if not places]
    searched = ran.searched
    expected = {
        "stdout": str(searched / "stdout"), "log": str(searched / "stderr"), "warning": str(searched / "stderr"),
        "home": str(searched / "home" / "leak"), "worker": str(searched / "kept" / "leak"), "shared": str(shared),
        "repr": "values Shown", "context": "context ValueError", "argument": "process cmdline",
        "variable": "process environ", "brief": "written",
    }  # fmt: skip
    for name, place in expected.items():
        assert place in found[name]


# --- every feature ----------------------------------------------------------------------------------------------------

# What has to have happened, so that nothing is proved by a run in which nothing did.
ENDS = {
    "InputTooLong", "OutputInvalid", "Cancelled", "DeadlineExceeded", "WorkerCrashed", "ClientClosed",
    "ModelNotInstalled", "SchemaUnsupported", "ConfigurationError", "TypeError", "KeyError",
}  # fmt: skip


def words() -> dict[str, str]:
    return {"sentence": SENTENCE, **{kind: random_word(kind) for kind in KINDS}}


@pytest.fixture(scope="module")
def echo_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("models")

    def make(name: str, **settings: float) -> str:
        path = place / f"{name}.echo"
        path.write_text(json.dumps({"ondevice-echo": 1, "context_tokens": 2048, **settings}))
        return str(path)

    return {
        "echo": make("echo"),
        "slow": make("slow", delay_s=0.01),
        "failing": make("failing", fail_at_token=500),
        "crashing": make("crashing", crash_at_token=500),
        "embedder": str(make_embedder(place / "tiny")),
    }


@pytest.fixture(
    scope="module",
    params=["echo", pytest.param("smollm2", marks=pytest.mark.model)],
)
def ran(request: pytest.FixtureRequest, echo_models: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Ran:
    echo = request.param == "echo"
    model = echo_models["echo"] if echo else str(request.getfixturevalue("model_path"))
    others = {name: path for name, path in echo_models.items() if name != "echo"}
    return run_app(tmp_path_factory.mktemp("app"), "canary_app", words(), model=model, echo=echo, **others)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_text_is_left_anywhere(ran: Ran) -> None:
    assert ran.hits() == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_everything_was_used(ran: Ran) -> None:
    outcomes = dict(line.split(": ", 1) for line in ran.lines("outcome"))
    assert set(outcomes.values()) >= (ENDS | {"Unsupported"} if ran.echo else ENDS)
    for name in ("summarise tldr", "analyse Topics", "analyse labels", "analyse schema", "generate", "stream",
                 "events", "stream cancelled", "chat", "generate_many", "count_tokens", "prewarm",
                 "embed", "async embed", "async chat"):  # fmt: skip
        assert outcomes[name] == "returned", outcomes[name]
    for name in ("too long", "too long context", "too long prefix", "chat too long", "async too long"):
        assert outcomes[name] == "InputTooLong"
    for name in ("killed by SIGKILL", "killed by SIGSEGV", "killed by SIGABRT", "async killed"):
        assert outcomes[name] == "WorkerCrashed"
    assert outcomes["kept again"] == "returned"
    assert outcomes["entries kept"] != "0"
    assert not [name for name, outcome in outcomes.items() if name.startswith("wrong") and outcome == "returned"]
    assert "True" in {outcomes[f"held {name}"] for name in ("SIGSEGV", "SIGABRT")} or os.geteuid() != 0
    assert len(ran.outputs) >= 20
    assert len(beginnings(ran.outputs)) >= 8
    assert any(ran.lines("process cmdline"))
    assert any("XDG_CACHE_HOME" in line or line == "hidden" for line in ran.lines("process environ"))
    assert "DEBUG:asyncio" in (ran.searched / "stderr").read_text()
    assert any("Summary(" in line for line in ran.lines("summarise tldr Summary"))
    for name in ("summarise tldr", "analyse labels", "analyse schema", "generate", "generate regex",
                 "stream", "chat", "generate_many", "embed", "redact", "async chat", "async embed"):  # fmt: skip
        assert any('"input"' in line for line in ran.lines(f"receipt of {name}")) or not ran.echo, name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_model_says_the_words(ran: Ran) -> None:
    """For else nothing would have been there to leak."""
    said = "".join(ran.outputs)
    assert all(ran.words[kind] in said for kind in ("document", "address", "prompt", "sentence")) or not ran.echo
    assert any(ran.words[kind][:12] in said for kind in ("document", "stop")), "the summaries quote the document"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_written_but_by_name(ran: Ran) -> None:
    """Files that are gone before anybody looks for them are seen when they are opened."""
    places = {str(Path(path).resolve()) for path in ran.lines("written") if not path.isdigit()}
    allowed = (str(ran.searched / "store"), "/dev/null")
    unknown = [path for path in places if not path.startswith(allowed) and "private/outputs" not in path]
    assert unknown == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_leave_no_file(ran: Ran) -> None:
    kept = [*(ran.searched / "kept").iterdir()]
    assert len(kept) >= 4, "one for each that was killed, and more"
    assert [path for folder in kept for path in folder.rglob("*")] == []


def test_every_public_feature_is_in_the_app() -> None:
    """A new feature has to be added to `canary_app.py`."""
    app = (HERE / "canary_app.py").read_text()
    for owner in (Client, AsyncClient, Chat, Stream, PrefixCache):
        for name in {*dir(owner)} - {"calibrate"}:  # which takes no text and starts no model of the user's
            alias = name.replace("ze", "se")
            assert name.startswith("_") or f".{name}" in app or f".{alias}" in app or f'"{name}"' in app, name


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_shows_text_as_its_answer_only(tmp_path: Path, echo_models: dict[str, str]) -> None:
    kinds = words()
    searched = tmp_path / "searched"
    env = {**environment(searched), "PYTHONDEVMODE": "1"}
    text = f"The {kinds['document']} works opened in 2019. {SENTENCE}. It grows. It sells to Norway every year."
    source, schema = tmp_path / f"{kinds['file']}.txt", tmp_path / "schema.json"
    source.write_text(text)
    schema.write_text(json.dumps({"type": "object", "properties": {kinds["schema"]: {"type": "integer"}}}))
    long = tmp_path / f"long-{kinds['file']}.txt"
    long.write_text(text * 100)
    prompt, system = f"About {kinds['prompt']}", f"You are {kinds['system']}"
    told, receipt = tmp_path / "told", str(searched / "receipt")
    told.write_text(system)
    lines: list[tuple[list[str], str]] = [
        *((["summarise", str(source), "--style", style], "") for style in ("key_points", "headline", "paragraph")),
        (["summarise", "-", "--json", "--context", kinds["option"]], text),
        (["summarise", str(source), "--sources"], ""),
        *((["analyse", str(source), "--form", form], "") for form in ("sentiment", "topics", "personal_data")),
        (["analyse", str(source), "--labels", f"{kinds['label']},other", "--json"], ""),
        (["analyse", str(source), "--schema", str(schema)], ""),
        (["generate", prompt, "--instructions", system, "--stop", kinds["stop"], "--max-tokens", "40"], ""),
        (["generate", "-", "--json"], prompt),
        (["generate", "-"], text * 100),
        (["generate", "-", "--json"], text * 100),
        (["generate", "-", "--temperature", "0", "--model", echo_models["crashing"]], text * 9),
        (["generate", "-", "--temperature", "0", "--model", echo_models["failing"]], text * 9),
        (["chat", "--instructions", system, "--max-tokens", "40"], f"{prompt}\n/undo\n{text}\n"),
        (["chat", "--json"], f"{prompt}\n{text * 100}\n"),
        (["summarise", str(long), "--style", "tldr"], ""),
        (["generate", "-", "--temperature", "0", "--instructions", system, "--receipt", receipt], prompt),
        (["replay", receipt, "--input", "-", "--instructions", str(told)], prompt),
    ]
    search = Search(kinds)
    codes = []
    answers = b""
    for words_of_line, typed in lines:
        model = [] if "--model" in words_of_line else ["--model", echo_models["echo"]]
        done = subprocess.run([sys.executable, "-m", "ondevice_sdk", *words_of_line, *model], env=env, cwd=searched,
                              input=typed.encode(), capture_output=True, timeout=120)  # fmt: skip
        codes.append(done.returncode)
        answers += done.stdout
        assert search.in_bytes(done.stderr) == set(), (words_of_line[:1], done.stderr)
        if done.returncode:
            assert done.stderr.startswith((b"error: ", b'{"error"')), done.stderr
    assert search.in_folder(searched) == {}
    assert codes.count(1) == 5, codes
    assert kinds["document"].encode() in answers
    assert kinds["prompt"].encode() in answers


# --- core files -------------------------------------------------------------------------------------------------------


def cores_are_files() -> bool:
    """Whether this machine writes core files to where a process is."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    return resource.getrlimit(resource.RLIMIT_CORE)[1] != 0 and bool(pattern) and pattern[0] not in "|/"


needs_cores = pytest.mark.skipif(
    not cores_are_files(), reason="no core files here: they are piped away, or not allowed"
)


def with_cores() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))


CRASH = """
import os, sys
text = sys.stdin.read()
os.kill(os.getpid(), int(sys.argv[1]))
"""


@needs_cores
@pytest.mark.parametrize("number", [6, 11])
def test_a_core_file_holds_the_text_of_a_process(number: int, tmp_path: Path) -> None:
    """The control of this machine: what dies here leaves its memory on the disk."""
    word = random_word("core")
    done = subprocess.run([sys.executable, "-I", "-c", CRASH, str(number)], input=word, text=True, cwd=tmp_path,
                          preexec_fn=with_cores)  # fmt: skip
    assert done.returncode == -number
    assert any(word.encode() in path.read_bytes() for path in tmp_path.iterdir())


WORKER = """
import os, resource, signal, sys
from pathlib import Path
from ondevice_sdk import Client, errors
from ondevice_sdk.runtime.home import PrivateDirectory
from tests.privacy.canary_app import keep_directories
keep_directories(Path("."))
word = sys.stdin.read()
with Client(sys.argv[1], privacy=sys.argv[2]) as ai:
    try:
        for delta in ai.stream(word + " is secret." * 50, temperature=0):
            os.kill(ai._pipeline._executor.pid, int(sys.argv[3]))
    except errors.WorkerCrashed as error:
        print(error.signal)
"""


@needs_cores
@pytest.mark.slow
@pytest.mark.parametrize("number", [6, 11])
@pytest.mark.parametrize("privacy", ["off", "guarded", "strict"])
def test_a_worker_that_is_sealed_leaves_no_core_file(
    privacy: str, number: int, tmp_path: Path, echo_models: dict[str, str]
) -> None:
    word = random_word("core")
    line = [sys.executable, "-c", WORKER, echo_models["slow"], privacy, str(number)]
    env = {"PATH": os.defpath, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": ROOT}
    done = subprocess.run(line, input=word, text=True, cwd=tmp_path, env=env, preexec_fn=with_cores,
                          capture_output=True, timeout=120)  # fmt: skip
    assert done.stdout == {6: "SIGABRT\n", 11: "SIGSEGV\n"}[number], done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    hits = [path for path in files if word.encode() in path.read_bytes()]
    if privacy == "off":
        assert hits, "the control: the text was in the memory of the worker"
    else:
        assert not hits
        assert not [path.name for path in files if "core" in path.name]
