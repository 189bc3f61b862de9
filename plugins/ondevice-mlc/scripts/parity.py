"""How near compiled models are to llama.cpp on the same weights, teacher-forced: 20 prompts x 64 tokens.

`python scripts/parity.py GGUF FOLDER...`: the folders are compiled models, as `ondevice mlc compile` installs them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ondevice_mlc import MlcBackend
from ondevice_sdk.backends.api import LoadOptions, LocalModel
from ondevice_sdk.backends.llama_cpp import LlamaCppBackend
from ondevice_sdk.backends.llama_cpp.runner import LlamaCppRunner
from ondevice_sdk.testing.parity import PROMPTS, compare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("folder", type=Path, nargs="+")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    parser.add_argument("--tokens", type=int, default=64)
    arguments = parser.parse_args()
    options = LoadOptions(context_tokens=512, max_sequences=1, batch_tokens=64)
    reference = LlamaCppBackend().load(LocalModel("m", "reference", "gguf", str(arguments.gguf), ""), options)
    assert isinstance(reference, LlamaCppRunner)
    for folder in arguments.folder:
        runner = MlcBackend().load(LocalModel("m", "mlc", "mlc", str(folder / "mlc-chat-config.json"), ""), options)
        found = compare(reference, runner, PROMPTS[: arguments.prompts], tokens=arguments.tokens)
        runner.close()
        print(
            f"{folder}: agreement {found.agreement:.4f} of {found.positions} positions, KL {found.divergence:.5f}, "
            f"tokenised alike {found.tokenised_alike:.2f}"
        )
    reference.close()


if __name__ == "__main__":
    main()
