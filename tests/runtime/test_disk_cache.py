"""Prefixes on the disk, from the client down to the sealed worker that encrypts them."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest

from ondevice_sdk import AsyncClient, Client, MemoryKey, PrefixCache, errors
from ondevice_sdk.backends.api import LoadOptions, LocalModel
from ondevice_sdk.backends.echo import EchoBackend
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend, synthetic
from ondevice_sdk.backends.llama_cpp.runner import LlamaCppRunner
from ondevice_sdk.privacy.vault import CallerKey, ScopedKey
from ondevice_sdk.runtime import Executor, prefixes, protocol
from ondevice_sdk.runtime.prefixes import Prefixes, binding
from ondevice_sdk.runtime.probe_worker import Returned, run_in_worker
from ondevice_sdk.runtime.wire import TO_APP, TO_WORKER, Decoder, ProtocolError
from ondevice_sdk.store import Store
from ondevice_sdk.types import Isolation, JsonValue, ModelShape

from .conftest import PATIENCE, Opener, answer, local_model

LIMIT = 1 << 24
TEXT = "The works make 300 bicycles a week. Half of them go to Norway. " * 20


# --- what a state is bound to -----------------------------------------------------------------------------------------


def echo_model(tmp_path: Path, *files: str) -> LocalModel:
    path = tmp_path / "model.echo"
    path.write_text('{"ondevice-echo": 1, "context_tokens": 1024}')
    return LocalModel("echo", "int4", "echo", str(path), "ab" * 32, (str(path), *files))


def test_a_state_is_bound_to_everything_that_it_depends_on(tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.write_text("weights")
    model, options = echo_model(tmp_path, str(part)), LoadOptions()
    runner = EchoBackend().load(model, options)
    bound = {binding(model, options, runner)}
    assert bound == {binding(model, replace(options, threads=3, max_sequences=2, batch_tokens=64), runner)}
    bound.add(binding(model, replace(options, kv_type="q8_0"), runner))
    changes: dict[str, Any] = {
        "state_version": "echo 2", "vocabulary": 300, "begin_token": None, "end_tokens": frozenset({7}),
    }  # fmt: skip
    for name, value in changes.items():
        other = EchoBackend().load(model, options)
        setattr(other, name, value)
        bound.add(binding(model, options, other))
    part.write_text("other weights")
    bound.add(binding(model, options, runner))
    assert len(bound) == 3 + len(changes)


def test_the_versions_of_package_and_grid_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, options = echo_model(tmp_path), LoadOptions()
    runner = EchoBackend().load(model, options)
    bound = {binding(model, options, runner)}
    with monkeypatch.context() as patch:
        patch.setattr("ondevice_sdk._version.__version__", "99")
        bound.add(binding(model, options, runner))
    monkeypatch.setattr("ondevice_sdk.engine.prefix.GRID", 32)
    bound.add(binding(model, options, runner))
    assert len(bound) == 3


def test_states_of_a_runner_that_says_nothing_of_them_are_not_kept(tmp_path: Path) -> None:
    model, options = echo_model(tmp_path), LoadOptions()
    runner = EchoBackend().load(model, options)
    with MemoryKey() as key:
        given = Prefixes(str(tmp_path / "cache"), key.scoped(prefixes.PURPOSE, model.sha256), LIMIT)
        opened = given.open(model, options, runner)
        assert opened is not None, "the control"
        opened.close()
        runner.state_version = ""
        assert given.open(model, options, runner) is None


def test_models_whose_rotation_depends_on_the_context_have_states_of_their_own_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = ModelShape(1_000_000, 2, 256, 4, 2, 64, 512, 600, 512)
    plain, scaled = tmp_path / "plain.gguf", tmp_path / "scaled.gguf"
    synthetic.write(plain, shape, "Q8_0")
    original = gguf.GGUFWriter.add_head_count_kv

    def scaling(self: gguf.GGUFWriter, count: int) -> None:
        original(self, count)
        self.add_rope_scaling_orig_ctx_len(128)

    monkeypatch.setattr(gguf.GGUFWriter, "add_head_count_kv", scaling)
    synthetic.write(scaled, shape, "Q8_0")

    def version(path: Path, context: int) -> str:
        options = LoadOptions(context_tokens=context, max_sequences=1, threads=1)
        runner = LlamaCppBackend().load(LocalModel("random", "", "gguf", str(path), ""), options)
        assert isinstance(runner, LlamaCppRunner)
        runner.close()
        return runner.state_version

    library = f"llama.cpp {importlib.metadata.version('llama-cpp-python')}"
    assert version(plain, 256) == version(plain, 512) == library
    assert len({library, version(scaled, 256), version(scaled, 512)}) == 3


# --- the key on its way -----------------------------------------------------------------------------------------------


def test_the_key_is_shown_nowhere() -> None:
    secret = secrets.token_bytes(32)
    given = Prefixes("/cache", ScopedKey(secret, prefixes.PURPOSE, "ab" * 32), LIMIT)
    message = protocol.Load.of("a:b", local_model(), LoadOptions(), prefixes.hand(given))
    shown = repr([given, message, message.prefixes])
    for form in (repr(secret)[2:-1], secret.hex(), base64.b64encode(secret).decode()):
        assert form not in shown
    (frame,) = Decoder(TO_WORKER).feed(protocol.to_worker(message))
    arrived = protocol.from_app(frame)
    assert arrived == message
    assert isinstance(arrived, protocol.Load)
    assert arrived.prefixes is not None
    assert prefixes.take(arrived.prefixes).key.reveal() == secret


# --- the sealed worker ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_sealed_worker_keeps_states_and_another_finds_them(tmp_path: Path) -> None:
    model = echo_model(tmp_path)
    directory = tmp_path / "cache"
    cache = PrefixCache(CallerKey(secrets.token_bytes(32)), directory, LIMIT)
    directory.mkdir(mode=0o700)

    def run(digest: str = model.sha256, kv_type: str = "f16", granted: bool = True) -> Returned:
        handed = prefixes.hand(Prefixes(str(directory), cache.key.scoped(prefixes.PURPOSE, digest), LIMIT))
        arguments: dict[str, JsonValue] = {
            "model": model.path, "digest": digest, "directory": handed.directory, "secret": handed.secret,
            "limit_bytes": LIMIT, "kv_type": kv_type,
        }  # fmt: skip
        return run_in_worker(
            "disk_functions:keep_and_find", privacy="strict", arguments=arguments, read=[model.path],
            caches=[str(directory)] if granted else [],
        )  # fmt: skip

    first = run()
    assert isinstance(first.value, dict)
    files = {mechanism.name: mechanism.state for mechanism in first.report.mechanisms}["filesystem sandbox"]
    kept = {"cells": 272, "failures": 0, "beside": files != "active"}
    assert first.value == {"found": 0, "tokens": None, **kept}
    assert first.report.attempts == ()
    assert run().value == {"found": 256, "tokens": 272, **kept}
    assert run(kv_type="q8_0").value == {"found": 0, "tokens": None, **kept}
    assert run(digest="cd" * 32).value == {"found": 0, "tokens": None, **kept}
    assert cache.usage().entries == 3
    if files == "active":
        with pytest.raises(errors.LoadFailed):
            run(granted=False)
    assert cache.purge() == 3
    assert run().value == {"found": 0, "tokens": None, **kept}


# --- forgetting -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["process", "thread"])
def isolation(request: pytest.FixtureRequest) -> Isolation:
    value: Isolation = request.param
    return value


@pytest.fixture
def make(opener: Opener, isolation: Isolation) -> Callable[..., Executor]:
    privacy = "strict" if isolation == "process" else "guarded"
    return lambda name="fake": opener(name, isolation=isolation, privacy=privacy)


def test_an_engine_is_told_to_forget_before_the_call_returns(make: Opener) -> None:
    executor = make()
    assert answer(executor, "!forgotten") == "0"
    executor.forget()
    executor.forget()
    assert answer(executor, "!forgotten") == "2"
    executor.close()
    executor.forget()


@pytest.mark.slow
def test_one_that_cannot_forget_is_ended(make: Opener) -> None:
    executor = make("stubborn")
    assert executor.alive
    executor.forget()
    assert not executor.alive


def test_a_worker_that_says_so_unasked_has_broken_the_protocol(opener: Opener) -> None:
    executor: Any = opener()
    (frame,) = Decoder(TO_APP).feed(protocol.to_app(protocol.Forgotten()))
    with pytest.raises(ProtocolError):
        executor._link._handle(frame)


# --- the client -------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> PrefixCache:
    return PrefixCache(CallerKey(secrets.token_bytes(32)), tmp_path / "cache")


def cached(cache: PrefixCache | None, model: Path, text: str = TEXT, **options: Any) -> int:
    """Tokens of the prompt that a new client, and so a new process, need not read."""
    with Client(model, prefix_cache=cache, **options) as ai:
        return ai.generate(text, temperature=0, max_tokens=2).usage.cached_tokens


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"isolation": "thread", "privacy": "guarded"}], ids=["sealed", "thread"])
def test_a_later_client_need_not_read_again(cache: PrefixCache, echo_path: Path, options: dict[str, Any]) -> None:
    assert cached(None, echo_path, **options) == cached(cache, echo_path, **options) == 0
    assert cache.usage().entries == 1
    assert cached(None, echo_path, **options) == 0
    assert cached(cache, echo_path, **options) > len(TEXT) - 64
    assert cached(cache, echo_path, "Another text.", **options) == 0


@pytest.mark.slow
def test_another_model_or_key_does_not_find_it(cache: PrefixCache, echo_path: Path, tmp_path: Path) -> None:
    assert cached(cache, echo_path) == 0
    assert cached(replace(cache, key=CallerKey(bytes(32))), echo_path) == 0
    other = tmp_path / "other.echo"
    other.write_text(echo_path.read_text().replace("2048", "2049"))
    assert cached(cache, other) == 0
    assert cached(cache, echo_path) > 0


def test_a_purge_reaches_the_memory_of_workers(cache: PrefixCache, echo_path: Path) -> None:
    with Client(echo_path, prefix_cache=cache) as ai:

        def ask() -> int:
            return ai.generate(TEXT, temperature=0, max_tokens=2).usage.cached_tokens

        assert ask() == 0
        assert ask() > 0
        cache.purge()
        assert ask() == 0
        cache.purge()
    assert cache.usage().entries == 0


@pytest.mark.slow
def test_a_worker_of_a_client_that_unloads_comes_back_to_it(echo_path: Path, tmp_path: Path) -> None:
    with MemoryKey() as key, Client(echo_path, prefix_cache=PrefixCache(key, tmp_path / "cache"), keep_alive=0) as ai:
        counts = []
        for _ in range(2):
            counts.append(ai.generate(TEXT, temperature=0, max_tokens=2).usage.cached_tokens)
            ai._pipeline.unload_idle()
        assert counts[0] == 0
        assert counts[1] > 0


def test_the_report_says_that_it_is_on(cache: PrefixCache, echo_path: Path) -> None:
    def limits(cache: PrefixCache | None) -> set[str]:
        with Client(echo_path, prefix_cache=cache) as ai:
            return set(ai.privacy_report().limits)

    (said,) = limits(cache) - limits(None)
    assert "prefix cache" in said


def test_a_key_that_was_forgotten_is_refused(cache: PrefixCache, echo_path: Path) -> None:
    cache.key.forget()
    with Client(echo_path, prefix_cache=cache) as ai, pytest.raises(errors.StoreError, match="forgotten"):
        ai.prewarm()


def test_a_directory_that_is_not_private_is_refused(cache: PrefixCache, echo_path: Path) -> None:
    cache.path.mkdir(mode=0o755)
    with Client(echo_path, prefix_cache=cache) as ai, pytest.raises(errors.StoreError, match="private"):
        ai.prewarm()


@pytest.mark.anyio
async def test_the_async_client_takes_it_too(cache: PrefixCache, echo_path: Path) -> None:
    async with AsyncClient(echo_path, prefix_cache=cache) as ai:
        await ai.generate(TEXT, temperature=0, max_tokens=2)
    assert cache.usage().entries == 1


SECOND = """
import sys
from pathlib import Path
from ondevice_sdk import CallerKey, Client, PrefixCache
text, secret = sys.stdin.read().split("\\0")
cache = PrefixCache(CallerKey(bytes.fromhex(secret)), Path(sys.argv[2]))
with Client(sys.argv[1], prefix_cache=cache) as ai:
    result = ai.generate(text, temperature=0, max_tokens=24)
    print(result.usage.cached_tokens, result.usage.prompt_tokens, ascii(result.text))
"""


@pytest.mark.model
@pytest.mark.slow
def test_the_real_model_goes_on_after_a_restart_as_if_it_had_read_the_text(
    installed_store: Store, model_path: Path, tmp_path: Path
) -> None:
    word = f"canary{secrets.token_hex(8)}"
    document = f"Report of the {word} works. " + TEXT * 2
    secret = secrets.token_bytes(32)

    def run(question: str, place: str) -> tuple[int, int, str]:
        line = [sys.executable, "-W", "error", "-c", SECOND, str(model_path), str(tmp_path / place)]
        env = {**os.environ, "ONDEVICE_HOME": str(installed_store.root)}
        told = f"{document}{question}\0{secret.hex()}"
        done = subprocess.run(line, input=told, env=env, capture_output=True, text=True, timeout=PATIENCE * 4)
        assert done.returncode == 0, done.stderr
        found, read, text = done.stdout.split(" ", 2)
        return int(found), int(read), text

    assert run("How many bicycles?", "cache")[0] == 0
    found, read, text = run("Where do they go?", "cache")
    assert found >= read - 64 - 40
    cold, _, control = run("Where do they go?", "other")
    assert cold == 0
    assert text == control
    files = [*(tmp_path / "cache").iterdir()]
    assert files
    assert not [path for path in files if word.encode() in path.read_bytes()]
    tokens = json.dumps(word)[1:-1].encode("utf-16-le")
    assert not [path for path in files if tokens in path.read_bytes()]
