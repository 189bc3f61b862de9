from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from ondevice_sdk.backends.api import Backend, Batch, LoadOptions, LocalModel
from ondevice_sdk.backends.echo import EchoBackend
from ondevice_sdk.errors import ModelCorrupt
from ondevice_sdk.testing.contract import BackendContract


class TestEcho(BackendContract):
    exemptions: ClassVar[Mapping[str, str]] = {
        "test_a_score_is_the_sum_of_its_tokens": "it repeats its prompt: where that ends counts, not the text alone"
    }

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls) -> Backend:
        return EchoBackend()

    @pytest.fixture(scope="class")
    @classmethod
    def model(cls, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
        path: Path = tmp_path_factory.mktemp("echo") / "model.echo"
        path.write_text('{"ondevice-echo": 1, "context_tokens": 1024}')
        return LocalModel("echo", "int4", "echo", str(path), "")


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"ondevice-echo": 2}',
        '{"ondevice-echo": 1, "surprise": 1}',
        '{"ondevice-echo": 1, "context_tokens": "many"}',
        '{"ondevice-echo": 1, "context_tokens": 0}',
        '{"ondevice-echo": 1, "delay_s": -1}',
    ],
)
def test_a_file_that_is_no_echo_model(tmp_path: Path, content: str) -> None:
    path = tmp_path / "model.echo"
    path.write_text(content)
    with pytest.raises(ModelCorrupt):
        EchoBackend().load(LocalModel("echo", "int4", "echo", str(path), ""), LoadOptions())


def test_saved_state_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "model.echo"
    path.write_text('{"ondevice-echo": 1}')
    runner = EchoBackend().load(LocalModel("echo", "int4", "echo", str(path), ""), LoadOptions())
    first = Batch()
    for position, token in enumerate(b"abc"):
        first.add(0, position, token, position == 2)
    runner.forward(first)
    runner.kv_load(1, runner.kv_save(0))
    both = Batch([0, 1], [3, 3], [97, 97], [True, True])
    one, two = runner.forward(both)
    assert one.tolist() == two.tolist()
