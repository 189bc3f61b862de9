"""The conversion itself, as it is called in a worker: memory is bounded by the vocabulary and some rows of a matrix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Final

from ondevice_sdk.errors import ModelUnsupported
from ondevice_sdk.quantise.hugging_face import (
    architecture,
    safetensors,
    sentencepieces,
    settings,
    tensors,
    vocabulary,
)
from ondevice_sdk.store import gguf_writer
from ondevice_sdk.store.gguf_writer import BF16, F16, F32, Tensor, Value

_MOST_TOKENIZER: Final = 1 << 27  # bytes; a vocabulary of 256,000 words with its merges has 35 MB
_FILE_TYPES: Final = {F32: 0, F16: 1, BF16: 32}  # llama.cpp's numbers


def write(*, files: Mapping[str, str], target: str, name: str, licence: str | None) -> Generator[float, None, None]:
    """Write the GGUF file; yields the share that is done, in whole percents.

    The bytes depend on nothing but what is given.

    Args:
        files: paths of the folder's files, by their names.
        target: a path where nothing is yet.
        name: of the model, for the metadata.
        licence: of the weights, for the metadata.

    Raises:
        ModelCorrupt: a file is missing or damaged. ModelUnsupported: a model of another kind. OSError.
    """
    paths = {each: Path(path) for each, path in files.items()}
    config = safetensors.load_object(paths["config.json"], settings.MOST_JSON)
    shape = architecture.read(config)
    planned = tensors.plan(safetensors.read(paths), shape)
    kind = _most(planned)
    metadata: dict[str, Value] = {
        "general.architecture": shape.name,
        "general.name": name.encode("utf-8", "replace").decode(),
        **({} if licence is None else {"general.license": licence}),
        "general.file_type": _FILE_TYPES[kind],
        **shape.metadata(),
        **_tokeniser(paths, config, shape.vocabulary),
    }
    told = 0
    for done, total in gguf_writer.steps(Path(target), metadata, planned):
        if (percent := 100 * done // total) > told:
            told = percent
            yield percent / 100
    if told < 100:  # for the bytes that align the end
        yield 1.0


def _most(planned: list[Tensor]) -> int:
    """The type of most weights."""
    weights: Counter[int] = Counter()
    for tensor in planned:
        if len(tensor.sizes) > 1:
            weights[tensor.kind] += tensor.length
    return weights.most_common(1)[0][0]


def _tokeniser(paths: Mapping[str, Path], config: Mapping[str, object], size: int) -> dict[str, Value]:
    if "tokenizer.json" not in paths:
        raise ModelUnsupported(
            "the folder has no tokenizer.json, without which the model cannot be converted",
            hint="copy it from where the model came from; a tokenizer.model alone is not enough",
        )
    words = _vocabulary(paths, safetensors.load_object(paths["tokenizer.json"], _MOST_TOKENIZER), size)
    template = settings.chat_template(paths)
    return {
        **words.metadata(),
        **settings.special_tokens(paths, config, words),
        **({} if template is None else {"tokenizer.chat_template": template}),
    }


def _vocabulary(paths: Mapping[str, Path], tokenizer: Mapping[str, Any], size: int) -> vocabulary.Vocabulary:
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not model.get("byte_fallback"):
        return vocabulary.read(tokenizer, size)
    if "tokenizer.model" not in paths:
        raise ModelUnsupported(
            "the folder has no tokenizer.model, without which a vocabulary of SentencePiece cannot be converted",
            hint="copy it from where the model came from",
        )
    with paths["tokenizer.model"].open("rb") as file:
        return sentencepieces.read(file.read(sentencepieces.MOST), tokenizer, size)
