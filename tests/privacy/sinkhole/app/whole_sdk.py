"""An app that uses the whole SDK, and says where it is. Its argument is JSON; see `main`."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import os
import sys
from typing import Any

TEXT = "The harbour will be rebuilt from March. The work costs 32 million euros and takes two years."


def mark(name: str) -> None:
    """End a phase; the answer comes when it has been counted."""
    print(f"mark {name}", flush=True)
    if not sys.stdin.readline():
        sys.exit("nobody watches")


def main() -> None:
    """Run through the SDK.

    `model`: a name or path. `backend`, `privacy`, `isolation`: of the client. `source`: where to pull the model from,
    and which `variant`. `bare`: workers get no namespaces of their own.
    """
    wanted = json.loads(sys.argv[1])
    if wanted.get("bare"):
        refuse_namespaces()
    mark("start")
    import ondevice_sdk

    for name in ondevice_sdk.__all__:
        getattr(ondevice_sdk, name)
    mark("import")
    look()
    mark("look")
    if "source" in wanted:
        pull(wanted)
        mark("pull")
    use(wanted)
    mark("close")


def refuse_namespaces() -> None:
    """Have the kernel refuse unshare(2) to this process and its children, as container engines do."""
    from ondevice_sdk.privacy.sandbox import calls, kernel
    from ondevice_sdk.privacy.sandbox.filter import ALLOW, Instruction, assemble

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    column = kernel.MACHINES[os.uname().machine].column
    refusal = 0x00050000 | errno.EPERM
    program = [
        Instruction(0x20, 0, 0, 0),  # load the number of the call
        Instruction(0x15, 0, 1, calls.number("unshare", column)),
        Instruction(0x06, 0, 0, refusal),
        Instruction(0x06, 0, 0, ALLOW),
    ]
    request = Program(len(program), assemble(program))
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.call(calls.number("seccomp", column), 1, 0, ctypes.addressof(request))


def look() -> None:
    """Everything that may be asked before there is a model."""
    from ondevice_sdk import Client, models
    from ondevice_sdk.backends import registry
    from ondevice_sdk.device import detect

    assert detect(measure=True).usable_cores
    assert registry.status(detect())
    assert not models.list()
    with Client() as ai:
        assert ai.explain("summarise").candidates
        assert ai.availability("summarise").state == "downloadable"


def pull(wanted: dict[str, Any]) -> None:
    from dataclasses import replace

    from ondevice_sdk import catalogue, models
    from ondevice_sdk.catalogue import Artifact

    spec = catalogue.get(wanted["model"])
    variant = next(each for each in spec.variants if each.name == wanted["variant"])
    known = variant.artifacts[0]
    there = replace(variant, artifacts=(Artifact(wanted["source"], known.size, known.sha256),))
    made = models.pull(spec.name, spec=replace(spec, variants=(there,)))
    assert models.verify(made.name)[0].ok


def use(wanted: dict[str, Any]) -> None:
    from ondevice_sdk import AsyncClient, Client, Sentiment, errors

    options = {key: wanted[key] for key in ("privacy", "isolation")}
    with Client(wanted["model"], backends=[wanted["backend"]], **options) as ai:
        assert ai.availability("generate").state == "available"
        ai.prewarm()
        mark("load")
        ai.prewarm("A short story:")
        mark("prewarm")
        assert ai.summarise(TEXT, style="headline", length="short").points
        mark("summarise")
        assert ai.analyse("The soup was cold and the waiter rude.", Sentiment).output
        mark("analyse")
        assert ai.generate("Name a colour.", max_tokens=4).usage.decode_s >= 0
        assert len(list(ai.generate_many(["One.", "Two."], max_tokens=2))) == 2
        mark("generate")
        with ai.stream("Tell me a story.", max_tokens=4) as stream:
            assert "".join(stream)
        mark("stream")
        chat = ai.chat("Be brief.")
        chat.send("Hello.", max_tokens=4)
        assert len(chat.messages) == 2
        mark("chat")
        assert ai.count_tokens(TEXT)
        for name, given in {"redact": TEXT, "embed": [TEXT]}.items():  # of versions and models that have them
            if hasattr(ai, name):
                with contextlib.suppress(errors.Unsupported, errors.ModelNotInstalled, errors.BackendUnavailable):
                    getattr(ai, name)(given)
        mark("others")
        report = ai.privacy_report()

    async def ask() -> str:
        async with AsyncClient(wanted["model"], backends=[wanted["backend"]], **options) as other:
            return (await other.generate("Name a colour.", max_tokens=4)).finish_reason

    assert asyncio.run(ask())
    mark("async")
    told = {
        "enforced": report.enforced,
        "states": {mechanism.name: mechanism.state for mechanism in report.mechanisms},
        "attempts": report.attempts,
        "environment": sorted(os.environ),
    }
    print(f"told {json.dumps(told)}", flush=True)


if __name__ == "__main__":
    main()
