"""The header of a GGUF file, for backends: native code that trusts a file gets none that was not looked at."""

from __future__ import annotations

from ondevice_sdk.catalogue.gguf import GgufFile, GgufHeader, GgufTensor, read_file, read_header, read_tensors

__all__ = ["GgufFile", "GgufHeader", "GgufTensor", "read_file", "read_header", "read_tensors"]
