"""`ondevice models optimise`, `list` and `explain`, on a store where a copy was made before."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ondevice_sdk import errors, models
from ondevice_sdk.cli.app import app
from ondevice_sdk.store import Store

from .test_optimise import with_copy as with_copy

RUN = CliRunner()


@pytest.fixture
def home(store: Store, with_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("ONDEVICE_HOME", str(store.root))
    return store


def test_the_result_as_json(home: Store, with_copy: Path) -> None:
    done = RUN.invoke(app, ["models", "optimise", "small", "--json"])
    assert done.exit_code == 0
    printed = json.loads(done.stdout)
    assert (printed["path"], printed["made"], printed["layout"]) == (str(with_copy), False, "Q8_0")
    assert printed["speed_up"]["score"]["value"] == 1.5
    assert printed["kl"]["high"] == 0.001


def test_the_result_for_people(home: Store, with_copy: Path) -> None:
    done = RUN.invoke(app, ["models", "optimise", "small", "--variant", "int4"])
    assert done.exit_code == 0
    assert str(with_copy) in done.stdout
    assert "1.50 times as fast" in done.stdout
    listed = RUN.invoke(app, ["models", "list"])
    assert "Q8_0, " in listed.stdout
    assert json.loads(RUN.invoke(app, ["models", "list", "--json"]).stdout)[0]["optimised"]["layout"] == "Q8_0"


def test_what_is_not_here(home: Store) -> None:
    done = RUN.invoke(app, ["models", "optimise", "nothing"])
    assert isinstance(done.exception, errors.ModelNotInstalled)


def test_explain_names_the_copy(home: Store, with_copy: Path) -> None:
    """Under a name of the catalogue, where it is weighed with the rest."""
    name = "smollm2-135m-instruct"
    (small,) = models.list(store=home)
    home.add(small.path, name=name, variant="int4")
    found = home.copies.find("small", "int4")
    assert found is not None
    with home.space.session() as work:
        assert home.copies.keep(dataclasses.replace(found, name=name), None, work)
    done = RUN.invoke(app, ["explain", "--no-calibrate", "--model", name, "--json"])
    assert done.exit_code == 0
    found_all = json.loads(done.stdout)["candidates"]
    candidates = {each["variant"]: each for each in found_all if each["backend"] == "llama_cpp"}
    assert (candidates["int4"]["layout"], candidates["int4"]["installed"]) == ("Q8_0", True)
    assert candidates["int8"]["layout"] is None
    assert "yes, as Q8_0" in RUN.invoke(app, ["explain", "--no-calibrate", "--model", name]).stdout
