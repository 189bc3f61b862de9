"""The backend where apps use it: behind a real client, in a worker that the kernel keeps from the network."""

from __future__ import annotations

import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import pytest

from ondevice_sdk import Client
from ondevice_sdk.backends import registry
from ondevice_sdk.backends.api import Backend, Capability, LocalModel
from ondevice_sdk.errors import InputTooLong, PrivacyUnavailable, Unsupported
from ondevice_sdk.store import Store
from ondevice_sdk.store.from_builder import add_built
from ondevice_sdk.testing.contract.base import DEVICE, ContractBase
from ondevice_sdk.testing.contract.guard import part

_NAME: Final = "contract-model"


@part("announced", "client")
class Sealed(ContractBase):
    """What only shows in a worker: what it may read there, what it may start, where its threads come from."""

    @pytest.fixture(scope="class")
    @classmethod
    def announced(
        cls, backend: Backend, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[str]:
        """The backend's name, by which a client finds it.

        A plugin that is not installed yet counts as announced by the `pyproject.toml` above its tests; a copy of it
        lies where a worker finds it, which never looks for modules in the current directory.
        """
        with pytest.MonkeyPatch.context() as patch:
            if backend.name not in registry.installed():
                folder = tmp_path_factory.mktemp("announced")
                _announce(entries_above(request.path), folder)
                _copy_package(type(backend).__module__, folder)
                patch.syspath_prepend(str(folder))
            yield backend.name

    @pytest.fixture(scope="class")
    @classmethod
    def client(
        cls, announced: str, model: LocalModel, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Client | PrivacyUnavailable]:
        """A client that is strict, with the model in a store of its own; or why there can be none."""
        store = Store.open(tmp_path_factory.mktemp("store"))
        files = {Path(each).name: Path(each) for each in model.files or (model.path,)}
        add_built(store, files, name=_NAME, variant=model.variant, form=model.format)
        try:
            client = Client(
                _NAME,
                backends=[announced],
                store=store,
                context=cls.options.context_tokens,
                privacy="strict",
            )
        except PrivacyUnavailable as error:
            yield error  # the tests say so; skipped by a fixture, they would count as missing
            return
        with client:
            yield client

    def test_is_announced(self, backend: Backend, announced: str) -> None:
        """The entry point of its name makes this very backend."""
        found = registry.installed()
        assert announced in found, (
            f"no entry point {announced!r} in the group {registry.GROUP!r}: neither of an installed package, "
            "nor in the pyproject.toml above these tests"
        )
        assert type(found[announced].create()) is type(backend)
        (status,) = [each for each in registry.status(DEVICE) if each.name == announced]
        assert status.usable, status.reason

    def test_sealed_worker_answers(self, backend: Backend, client: Client | PrivacyUnavailable) -> None:
        """Strict privacy is in force, proved in that very worker, and the engine works in it."""
        client = _strict(client)
        assert client.count_tokens("some words to count") > 0
        assert client.model.backend == backend.name
        if Capability.CHAT in backend.probe(DEVICE).capabilities:
            try:
                answer = client.generate("Say hello.", max_tokens=12, temperature=0)
            except Unsupported as error:
                assert error.capability == Capability.CHAT  # noqa: PT017 - this model brings no template
            else:
                assert 1 <= answer.usage.completion_tokens <= 12
                with client.stream("Say hello.", max_tokens=12, temperature=0) as stream:
                    assert "".join(stream) == stream.result().text
        report = client.privacy_report()
        assert report.level == "strict"
        assert report.enforced, report.summary
        states = {mechanism.name: mechanism.state for mechanism in report.mechanisms}
        assert states["seccomp network refusal"] == "active"
        assert states["own process"] == "active"

    def test_sealed_worker_survives_refusals(self, client: Client | PrivacyUnavailable) -> None:
        """Errors reach the app with their types, and the worker goes on: no crash, no new process."""
        client = _strict(client)
        count, process = client.count_tokens("a b c"), _process(client)
        with pytest.raises((InputTooLong, Unsupported)):
            client.generate("word " * 20_000, max_tokens=4, temperature=0)
        assert client.count_tokens("a b c") == count
        assert _process(client) == process

    def test_sealed_worker_scores(self, backend: Backend, client: Client | PrivacyUnavailable) -> None:
        """Labels are scored through the worker, where scores are claimed."""
        client = _strict(client)
        if Capability.SCORE not in backend.probe(DEVICE).capabilities:
            return
        analysis = client.analyse("The ferry leaves at noon.", Literal["travel", "cooking"])
        assert analysis.output in ("travel", "cooking")
        assert analysis.probabilities is not None
        assert sum(analysis.probabilities.values()) == pytest.approx(1)


def _strict(client: Client | PrivacyUnavailable) -> Client:
    if isinstance(client, PrivacyUnavailable):
        pytest.skip(f"no strict privacy on this system: {', '.join(client.reasons)}")
    return client


def _process(client: Client) -> str:
    (own,) = [each for each in client.privacy_report().mechanisms if each.name == "own process"]
    return own.detail


def entries_above(test: Path) -> dict[str, str]:
    """Backends in the nearest `pyproject.toml` above a test."""
    for folder in test.parents:
        if (project := folder / "pyproject.toml").is_file():
            points = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {}).get("entry-points", {})
            return {str(name): str(entry) for name, entry in points.get(registry.GROUP, {}).items()}
    return {}


def _copy_package(module: str, folder: Path) -> None:
    root = module.partition(".")[0]
    file = Path(sys.modules[root].__file__ or "")
    if file.name == "__init__.py":
        shutil.copytree(file.parent, folder / root, ignore=shutil.ignore_patterns("__pycache__"))
    elif file.is_file():
        shutil.copy(file, folder)


def _announce(entries: dict[str, str], folder: Path) -> None:
    """Write what an installer leaves of a distribution."""
    info = folder / "contract_of_a_plugin-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: contract-of-a-plugin\nVersion: 0\n")
    lines = [f"[{registry.GROUP}]", *(f"{name} = {entry}" for name, entry in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
