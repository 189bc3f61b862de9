"""Whether the backends compute the same model: each one beside llama.cpp, teacher-forced, on 20 prompts of 64 tokens.

llama.cpp runs the model's GGUF file of the store. Every usable backend runs what of the same model is installed for it
(`int4-mlc`, `int8-openvino` ...; `ondevice models build` makes such variants) and what of the GGUF files it reads
itself. Files of fewer bits than the source cannot agree wholly; 8 bits made from it should.
Run: `python scripts/check_parity.py`, with `--tokens 16 --prompts 5` for a first look.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator

from ondevice_sdk.backends import registry
from ondevice_sdk.backends.api import Backend, LoadOptions, LocalModel, ModelRunner
from ondevice_sdk.cli import output
from ondevice_sdk.device import detect
from ondevice_sdk.errors import OnDeviceError
from ondevice_sdk.runtime.environment import OFFLINE
from ondevice_sdk.store import Store
from ondevice_sdk.testing import parity

REFERENCE = "llama_cpp"


def subjects(model: str, variant: str | None, wanted: list[str]) -> Iterator[tuple[str, Backend, LocalModel]]:
    """Each usable backend with each installed variant of the model that it reads; the reference's own file first."""
    store, device = Store.open(), detect()
    source = store.resolve(model, variant)
    rest = [each for each in store.installed() if each.name == source.name and each.variant != source.variant]
    for name, registration in registry.installed().items():
        try:
            backend = registration.create()
        except OnDeviceError as error:
            print(f"{name}: {error.message}", file=sys.stderr)
            continue
        if (wanted and name not in wanted) or not backend.probe(device).usable:
            continue
        for each in [source, *(store.resolve(other.name, other.variant) for other in rest)]:
            if each.format in backend.formats:
                yield name, backend, each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="name, or name:variant of the reference")
    parser.add_argument("--backend", action="append", default=[], help="only these; may be given several times")
    parser.add_argument("--prompts", type=int, default=len(parity.PROMPTS))
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=detect().threads)
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    os.environ.update(OFFLINE)  # libraries run here, outside of a sealed worker

    name, _, variant = words.model.partition(":")
    options = LoadOptions(context_tokens=1024, max_sequences=8, threads=words.threads, batch_tokens=128)
    store = Store.open()
    reference = registry.installed()[REFERENCE].create().load(store.resolve(name, variant or None), options)
    assert isinstance(reference, ModelRunner)
    rows = []
    for backend_name, backend, model in subjects(name, variant or None, words.backend):
        print(f"  {backend_name} {model.variant}", file=sys.stderr, flush=True)
        began, row = time.monotonic(), {"backend": backend_name, "variant": model.variant, "format": model.format}
        try:
            loaded = backend.load(model, options)
            try:
                found = parity.compare(reference, loaded, parity.PROMPTS[: words.prompts], tokens=words.tokens)
            finally:
                loaded.close()
            figures = {each: getattr(found, each) for each in parity.Parity.__slots__}
        except OnDeviceError as error:
            figures = {"error": f"{error.code}: {error.message}"}
        rows.append({**row, **figures, "seconds": round(time.monotonic() - began, 1)})
    reference.close()
    if words.json:
        print(json.dumps(rows, indent=2))
    else:
        show(rows)


def show(rows: list[dict[str, object]]) -> None:
    """As a table; surprise is in nats a token."""
    made = output.table(
        "backend", "variant", ">positions", ">skipped", ">same top token", ">KL, nats", ">surprise", ">same tokens", ""
    )
    for row in rows:
        figures = [
            f"{row['agreement']:.2%}" if "agreement" in row else "",
            f"{row['divergence']:.5f}" if row.get("divergence") is not None else "",
            f"{row['surprise']:+.4f}" if row.get("surprise") is not None else "",
            f"{row['tokenised_alike']:.0%}" if "tokenised_alike" in row else "",
        ]
        counts = [str(row.get("positions", "")), str(row.get("skipped", ""))]
        made.add_row(str(row["backend"]), str(row["variant"]), *counts, *figures, str(row.get("error", "")))
    output.show(made)


if __name__ == "__main__":
    main()
