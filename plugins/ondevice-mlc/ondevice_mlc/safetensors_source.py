"""A folder in Hugging Face's form as a source: `config.json`, safetensors files and a `tokenizer.json`.

Source of the format: the safetensors documentation (a length of 8 bytes, a JSON header, the values).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondevice_mlc.architecture.config import ModelConfig
from ondevice_mlc.conversation import TEMPLATE_FILE
from ondevice_mlc.folder import TOKENIZER, TOKENIZER_CONFIG, read_json
from ondevice_mlc.quantisation import groups
from ondevice_mlc.sources import Source
from ondevice_sdk.errors import LoadFailed, ModelCorrupt, ModelUnsupported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TYPES: Final = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_MOST_HEADER: Final = 1 << 26  # bytes
_INDEX: Final = "model.safetensors.index.json"
_COMPUTED: Final = ".rotary_emb.inv_freq"  # what old files hold though it follows from the configuration
_SAME: Final = {"mistral": "llama"}  # architectures that compute the same, by their names


@dataclass(frozen=True, slots=True)
class _Tensor:
    data: NDArray[Any]  # in the file
    halved: bool  # bfloat16


class SafetensorsSource(Source):
    """A folder of the Llama, Mistral, Qwen2 or Qwen3 architecture in 32 or 16 bits."""

    def __init__(self, folder: Path) -> None:
        """Read the headers.

        Raises:
            ModelCorrupt: a file is missing or damaged. ModelUnsupported: another architecture.
        """
        self._folder = folder
        config = read_json(folder / "config.json")
        kind = str(config.get("model_type", ""))[:40]
        if config.get("quantization_config"):
            raise ModelUnsupported("the weights are quantised already: take the original model", architecture=kind)
        if kind == "mistral" and config.get("sliding_window"):
            raise ModelUnsupported("models with a sliding window are not supported", architecture=kind)
        self.config = ModelConfig.from_json(_SAME.get(kind, kind), config)
        self._settings = config
        self._tensors: dict[str, _Tensor] = {}
        for file in _files(folder):
            self._tensors.update(_read(file))
        self._check_tensors()

    def _check_tensors(self) -> None:
        """A tensor that nothing here uses belongs to a model that computes something else."""
        used = {name for group in groups(self.config, "int8") for name in group.sources}
        if self.config.tie_word_embeddings:
            used.add("lm_head.weight")  # the table of words once more
        for name in self._tensors:
            if name not in used and not name.endswith(_COMPUTED):
                raise ModelUnsupported(
                    f"models with {name[:80]} are not supported", architecture=self.config.model_type
                )

    def size(self, name: str) -> int:
        """See `Source.size`."""
        return len(self._tensor(name).data)

    def rows(self, name: str, start: int, end: int) -> NDArray[np.float32]:
        """See `Source.rows`."""
        import numpy as np

        tensor = self._tensor(name)
        values = np.array(tensor.data[start:end])
        if tensor.halved:
            return np.left_shift(values.astype(np.uint32), 16).view(np.float32)
        return values.astype(np.float32)

    def _tensor(self, name: str) -> _Tensor:
        if name not in self._tensors:
            raise ModelCorrupt("the model lacks a tensor", expected=name)
        return self._tensors[name]

    def tokenizer_files(self) -> Mapping[str, bytes]:
        """See `Source.tokenizer_files`."""
        files = {}
        for name in (TOKENIZER, TOKENIZER_CONFIG, TEMPLATE_FILE):
            path = self._folder / name
            if path.is_file():
                files[name] = path.read_bytes()
        if TOKENIZER not in files:
            raise ModelUnsupported(f"the folder has no {TOKENIZER}, without which the model cannot be used")
        return files

    def tokens(self) -> Mapping[str, Any]:
        """See `Source.tokens`: what ends an answer may stand in `generation_config.json` only."""
        found: dict[str, Any] = {key: self._settings.get(key) for key in ("bos_token_id", "pad_token_id")}
        path = self._folder / "generation_config.json"
        generation = read_json(path) if path.is_file() else {}
        ends: list[int] = []
        for value in (self._settings.get("eos_token_id"), generation.get("eos_token_id"), self._end_of_turn()):
            ends += [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int)]
        return {**found, "eos_token_id": list(dict.fromkeys(ends))}

    def _end_of_turn(self) -> int | None:
        """The token that the tokeniser's settings call the end: that of a turn, in models for chats."""
        path = self._folder / TOKENIZER_CONFIG
        end = read_json(path).get("eos_token") if path.is_file() else None
        end = end.get("content") if isinstance(end, dict) else end
        added = read_json(self._folder / TOKENIZER).get("added_tokens") or []
        return next((each["id"] for each in added if each.get("content") == end), None)


def _files(folder: Path) -> list[Path]:
    """Those that hold the model. Others may lie beside them: the same model in another form, an adapter."""
    index = folder / _INDEX
    if index.is_file():
        listed = read_json(index).get("weight_map")
        names = {*listed.values()} if isinstance(listed, dict) and all(map(_is_name, listed.values())) else set()
        if not names:
            raise ModelCorrupt(f"{_INDEX} lists no files")
        return [folder / name for name in sorted(names)]
    whole = folder / "model.safetensors"
    files = [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelCorrupt("the folder has no safetensors file")
    return files


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.endswith(".safetensors") and Path(value).name == value


def _read(path: Path) -> dict[str, _Tensor]:
    import numpy as np

    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(_MOST_HEADER, path.stat().st_size):
                raise ModelCorrupt(f"{path.name} is no whole safetensors file")
            header = json.loads(file.read(length))
        content = np.memmap(path, np.uint8, "r", offset=8 + length)
        return {name: _view(content, entry) for name, entry in header.items() if name != "__metadata__"}
    except OSError as error:
        raise LoadFailed(f"{path.name} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelCorrupt(f"{path.name} is no whole safetensors file") from error


def _view(content: NDArray[np.uint8], entry: Mapping[str, Any]) -> _Tensor:
    dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in _TYPES:
        raise ModelUnsupported(f"weights of type {str(dtype)[:20]} cannot be read")
    if not 0 <= start <= end <= len(content) or end - start != math.prod(shape) * int(_TYPES[dtype][-1]):
        raise ValueError
    return _Tensor(content[start:end].view(_TYPES[dtype]).reshape(shape), dtype == "BF16")
