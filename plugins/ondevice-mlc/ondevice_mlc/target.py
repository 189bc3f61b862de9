"""For which processor a library is compiled."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any, Final

from ondevice_mlc.kernels.simd import Level
from ondevice_sdk.errors import ConfigurationError

# Levels of x86-64, the best first: what LLVM calls them, and the features that a processor then must have, by LLVM's
# names. A level instead of this processor's own name: a library runs on all processors of the level, and what it needs
# can be said in a few words.
_LEVELS: Final[tuple[tuple[Level, str, tuple[str, ...]], ...]] = (
    ("avx512vnni", "x86-64-v4", ("avx512vnni",)),
    ("avxvnni", "x86-64-v3", ("avxvnni",)),
    ("avx2", "x86-64-v3", ()),
    ("generic", "x86-64", ()),
)
# What the kernel of Linux calls the features of each level of x86-64.
_FLAGS: Final = {
    "x86-64": ("sse2",),
    "x86-64-v3": ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "popcnt", "sse4_2"),
    "x86-64-v4": ("avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"),
}
_LLVM_NAMES: Final = {"x86-64-v3": "avx2", "x86-64-v4": "avx512vl"}  # the feature that stands for a level
_EXAMPLE: Final = 'write it as JSON: {"kind": "llvm", "mcpu": "x86-64-v3"}'
_FLAG_NAMES: Final = {"avx512vnni": "avx512_vnni", "avxvnni": "avx_vnni"}


def target_string(target: str | None) -> str:
    """A target as TVM writes it; None: the best level of this processor.

    Raises:
        ConfigurationError: TVM does not know the target, or it is not one for processors.
    """
    import tvm

    if target is None:
        return _string(tvm.target.Target(_host()))
    try:
        parsed = tvm.target.Target(json.loads(target) if target.lstrip().startswith("{") else target)
    except Exception as error:
        raise ConfigurationError("TVM does not know this target", hint=_EXAMPLE) from error
    if parsed.kind.name != "llvm":
        raise ConfigurationError("models are compiled for processors only")
    return _string(parsed)


def cpu_features(target: str) -> tuple[str, ...]:
    """What the processor of a target must have, as `/proc/cpuinfo` spells it; empty if that is not known."""
    options = json.loads(target)
    flags = set(_FLAGS.get(options.get("mcpu", ""), ()))
    if options.get("mcpu") == "x86-64-v4":
        flags.update(_FLAGS["x86-64-v3"])
    for feature in options.get("mattr", ()):
        if feature.startswith("+"):
            flags.add(_FLAG_NAMES.get(feature[1:], feature[1:]))
    return tuple(sorted(flags))


def level(target: str) -> Level:
    """The instruction set that kernels for a target are written for."""
    from tvm.target import Target
    from tvm.target.codegen import target_has_features

    parsed = Target(json.loads(target))
    if parsed.attrs.get("mtriple", platform.machine()).split("-")[0] in ("x86_64", "AMD64"):
        if target_has_features(["avx512vnni", "avx512vl"], parsed):
            return "avx512vnni"
        if target_has_features(["avxvnni"], parsed):
            return "avxvnni"
        if target_has_features(["avx2"], parsed):
            return "avx2"
    return "generic"


def _host() -> dict[str, Any]:
    from tvm.target import Target, codegen

    cpu = codegen.llvm_get_system_cpu()
    if platform.machine() not in ("x86_64", "AMD64"):
        return {"kind": "llvm", "mcpu": cpu}
    for _, name, extra in _LEVELS:
        options: dict[str, Any] = {"kind": "llvm", "mcpu": name}
        if extra:
            options["mattr"] = [f"+{each}" for each in extra]
        host = Target({"kind": "llvm", "mcpu": cpu})
        known = codegen.target_has_features([_LLVM_NAMES.get(name, "sse2"), *extra], host)
        if known and _kernel_agrees(cpu_features(json.dumps(options))):
            return options
    return {"kind": "llvm", "mcpu": "x86-64"}


def _kernel_agrees(flags: tuple[str, ...]) -> bool:
    """Whether the system lists the features: a virtual machine may hide some that the processor's name implies."""
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", errors="replace").splitlines()
    except OSError:
        return True
    listed = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    return listed is None or set(flags) <= set(listed)


def _string(target: Any) -> str:
    return json.dumps(_given(json.loads(str(target))), sort_keys=True)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """All that makes a target, without what TVM concludes from it and its name."""
    kept = {key: value for key, value in options.items() if key != "tag" and not key.startswith("feature.")}
    return {key: _given(value) if key == "host" else value for key, value in kept.items()}
