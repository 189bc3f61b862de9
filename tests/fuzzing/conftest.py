from __future__ import annotations

import pytest

FILES, SEED = 4_000, 20261122


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take effect where this folder is named on the command line: `pytest tests/fuzzing --fuzz-files 100000`."""
    group = parser.getgroup("fuzzing")
    group.addoption("--fuzz-files", type=int, default=FILES, help="how many damaged model files to try")
    group.addoption("--fuzz-seed", type=int, default=SEED, help="the seed that they are made from")


@pytest.fixture
def fuzz_files(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("--fuzz-files", FILES))


@pytest.fixture
def fuzz_seed(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("--fuzz-seed", SEED))
