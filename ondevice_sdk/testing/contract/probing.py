"""The backend before a model is loaded: what it says of itself, and what saying so costs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from ondevice_sdk.backends.api import Backend, Capability, Engine, ModelShape
from ondevice_sdk.testing.contract.base import DEVICE, ContractBase
from ondevice_sdk.testing.contract.guard import part
from ondevice_sdk.testing.imports import strange_imports

_SHAPE: Final = ModelShape(135_000_000, 30, 576, 9, 3, 64, 1536, 49152, 8192)

# Runs in a process of its own; prints the modules that came in, and nothing else may be printed.
_LOOK: Final = """
import sys
sys.path[:] = {path!r}
import ondevice_sdk.backends.registry, ondevice_sdk.backends.api as api, importlib.util, importlib.metadata, json
before = set(sys.modules)
import {module}
backend = {module}.{attribute}()
device = api.DeviceProfile("linux", "x86_64", "any", (), 1, 1, 1 << 34, 1 << 33)
probe = backend.probe(device)
shape = api.ModelShape(135_000_000, 30, 576, 9, 3, 64, 1536, 49152, 8192)
backend.estimate(shape, 10**8, api.LoadOptions(context_tokens=1024))
for seam in ("library", "calibrator", "relayer", "builder"):
    getattr(backend, seam)()
print(json.dumps([probe.usable, sorted(set(sys.modules) - before)]))
"""


@part()
class Probing(ContractBase):
    """Quick, silent, honest."""

    def test_name_and_formats(self, backend: Backend) -> None:
        """The name is a word that a user can type; the formats are how models find the backend."""
        assert re.fullmatch(r"[a-z][a-z0-9_]{0,39}", backend.name)
        assert backend.formats
        assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,39}", each) for each in backend.formats)
        assert backend.kv_types
        assert set(backend.magic) <= backend.formats
        assert all(len(magic) >= 4 and not magic.lstrip().startswith(b"{") for magic in backend.magic.values())

    def test_probe_says_usable_and_what_it_can(self, backend: Backend) -> None:
        """The probe does not raise, says the same again, and claims at least generation."""
        probe = backend.probe(DEVICE)
        assert probe.usable, probe.reason
        assert probe == backend.probe(DEVICE)
        assert Capability.GENERATE in probe.capabilities
        assert all(isinstance(each, Capability) for each in probe.capabilities)

    def test_importing_and_probing_load_no_runtime(self, backend: Backend) -> None:
        """Nothing but the plugin's own modules, the SDK's and Python's come in, in a fresh process that stays silent.

        Every app that lists backends or chooses a model pays for what is imported here.
        """
        module, attribute = type(backend).__module__, type(backend).__qualname__
        path = [str(Path(entry).absolute()) for entry in sys.path]
        code = _LOOK.format(path=path, module=module, attribute=attribute)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stderr == ""
        usable, came = json.loads(done.stdout)
        assert usable
        own = {"ondevice_sdk", module.partition(".")[0], *sys.stdlib_module_names}
        strange = [name for name in came if name.partition(".")[0] not in own]
        assert strange == []

    def test_imports_only_the_seam(self, backend: Backend) -> None:
        """Of the SDK a plugin imports what is promised to stay."""
        root = type(backend).__module__.partition(".")[0]
        package = Path(sys.modules[root].__file__ or "")
        if root == "ondevice_sdk" or package.name != "__init__.py":
            return  # built in, or a class of a test module
        assert strange_imports(package.parent, commands=_commands(root)) == []

    def test_engine_can_what_the_probe_says(self, backend: Backend, engine: Engine) -> None:
        """A capability that depends on the model (chat, embedding) may be missing; no other, and none is added."""
        claimed = backend.probe(DEVICE).capabilities
        assert claimed - engine.capabilities <= {Capability.CHAT, Capability.EMBED}
        assert engine.capabilities <= claimed

    def test_estimate_grows_with_the_context(self, backend: Backend) -> None:
        """A longer context takes more memory, and weights are counted."""
        small = backend.estimate(_SHAPE, 10**8, replace(self.options, context_tokens=1024))
        large = backend.estimate(_SHAPE, 10**8, replace(self.options, context_tokens=8192))
        assert small.weights >= 10**8
        assert large.total > small.total
        assert min(small.kv_cache, small.work_buffers, small.process) >= 0

    def test_what_it_makes_it_can_read(self, backend: Backend) -> None:
        """What is measured, written or built for the backend is in one of its formats; makers are named, not loaded."""
        writers = [each for each in (backend.calibrator(), backend.relayer()) if each is not None]
        made = [(each.writer, each.model_format, each.library) for each in writers]
        if (builder := backend.builder()) is not None:
            made.append((builder.maker, builder.form, builder.library))
            assert builder.sources
            assert set(builder.precisions) <= {"int4", "int8"}
        for entry, form, library in made:
            assert re.fullmatch(r"[\w.]+:\w+", entry)
            assert form in backend.formats
            assert library


def _commands(root: str) -> set[str]:
    """Files of the package that the distribution announces as commands."""
    from importlib.metadata import entry_points

    modules = {point.module for point in entry_points(group="ondevice_sdk.commands")}
    names = {each.removeprefix(f"{root}.").replace(".", "/") for each in modules if each.startswith(f"{root}.")}
    return {f"{name}.py" for name in names} | {f"{name}/__init__.py" for name in names}
