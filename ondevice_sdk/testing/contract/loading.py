"""From a file to an engine and back: progress, damaged files, the end."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from ondevice_sdk.backends.api import GREEDY, Backend, Engine, Generate, LocalModel, Tokenize
from ondevice_sdk.errors import ConfigurationError, LoadFailed, ModelCorrupt, ModelUnsupported
from ondevice_sdk.store.formats import is_code
from ondevice_sdk.testing import as_engine, drain
from ondevice_sdk.testing.contract.base import ContractBase
from ondevice_sdk.testing.contract.guard import part


@part()
class Loading(ContractBase):
    """`Backend.load` and `Engine.close`."""

    def test_load_reports_progress(self, backend: Backend, model: LocalModel) -> None:
        """Progress is a share from 0 to 1 that does not fall and ends at 1."""
        seen: list[float] = []
        as_engine(backend.load(model, replace(self.options, on_progress=seen.append))).close()
        assert seen == sorted(seen)
        assert all(0 <= share <= 1 for share in seen)
        assert seen[-1:] == [1]

    def test_load_keeps_to_its_options(self, engine: Engine) -> None:
        """No more context and no more sequences than were asked for."""
        assert 64 <= engine.context_tokens <= (self.options.context_tokens or engine.context_tokens)
        assert 1 <= engine.max_sequences <= self.options.max_sequences

    @pytest.mark.parametrize("damage", ["empty", "random", "text", "short", "half", "missing"])
    def test_damaged_file_is_refused(self, backend: Backend, model: LocalModel, tmp_path: Path, damage: str) -> None:
        """A file that is not whole is an error of the SDK, not a crash; of a folder, each file in its turn."""
        files = [Path(each) for each in model.files or (model.path,)]
        reasons = self.unread_files
        assert files[0].name not in reasons, "a backend reads the first file"
        assert all(reason.strip() for reason in reasons.values()), "each file that is not read has a reason"
        for at, victim in enumerate(files):
            if victim.name in reasons or (damage == "half" and is_code(victim)):
                continue  # the system ends a process that maps half a library; the store has checked its digest
            folder = tmp_path / str(at)
            broken = _relocated(model, folder)
            (folder / victim.name).unlink()
            if damage != "missing":
                (folder / victim.name).write_bytes(_damaged(victim, damage))
            with pytest.raises((ModelCorrupt, LoadFailed, ModelUnsupported)) as caught:
                as_engine(backend.load(broken, self.options)).close()
            typed = _expected(damage, first=at == 0, code=is_code(victim))
            assert isinstance(caught.value, typed), f"{victim.name}: {caught.value.code}"

    def test_close_twice(self, backend: Backend, model: LocalModel) -> None:
        """The second close does nothing."""
        engine = as_engine(backend.load(model, self.options))
        engine.close()
        engine.close()

    def test_use_after_close(self, backend: Backend, model: LocalModel) -> None:
        """A closed engine takes nothing, has nothing to do, and does no harm: also if it was closed in the middle."""
        engine = as_engine(backend.load(model, self.options))
        drain(engine, {"before": Generate(self.prompt, 2, GREEDY)})
        for name in ("a", "b"):
            engine.add_request(name, Generate(self.prompt, 50, GREEDY, ignore_eos=True, stream=True))
        engine.step(16)
        engine.close()
        assert not engine.busy
        assert list(engine.step(16)) == []
        for request in (Generate(self.prompt, 2, GREEDY), Tokenize(texts=("text",))):
            with pytest.raises(ConfigurationError):
                engine.add_request("late", request)
        engine.abort_request("a")
        engine.forget()
        engine.idle()
        engine.close()
        assert not engine.busy


def _relocated(model: LocalModel, folder: Path) -> LocalModel:
    """The model in another folder, its files as links."""
    folder.mkdir()
    files = [Path(each) for each in model.files or (model.path,)]
    for each in files:
        os.symlink(each.resolve(), folder / each.name)  # noqa: PTH211 - a path made by pytest
    moved = tuple(str(folder / each.name) for each in files)
    return replace(model, path=str(folder / Path(model.path).name), files=moved if model.files else ())


def _expected(damage: str, *, first: bool, code: bool) -> tuple[type[Exception], ...]:
    if damage == "missing":
        return (LoadFailed,) if first else (LoadFailed, ModelCorrupt)
    return (LoadFailed, ModelCorrupt) if code else (ModelCorrupt,)


def _damaged(path: Path, damage: str) -> bytes:
    if damage == "empty":
        return b""
    if damage == "random":
        return random.Random(7).randbytes(4096)  # noqa: S311 - the same bytes every time
    if damage == "text":
        return b"<html><body>404 not found</body></html>"
    size = path.stat().st_size
    with path.open("rb") as file:
        return file.read(min(20, size - 1) if damage == "short" else size // 2)
