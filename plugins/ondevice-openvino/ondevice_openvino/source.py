"""A model on the disk, looked at before native code reads it: a GGUF file, or a folder in OpenVINO's format (IR)."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from ondevice_openvino import exact
from ondevice_openvino.sizes import DEFAULT_CONTEXT
from ondevice_sdk.backends.api import LocalModel
from ondevice_sdk.engine.gguf import GgufFile, GgufTensor, read_file
from ondevice_sdk.errors import LoadFailed, ModelCorrupt, ModelUnsupported

_ARCHITECTURES: Final = frozenset({"llama", "qwen2", "qwen3"})  # that OpenVINO GenAI's GGUF reader builds
# Tensor types that it takes: F32 F16 Q4_0 Q4_1 Q8_0 Q4_K Q6_K BF16
_KINDS: Final = frozenset({0, 1, 2, 3, 8, 12, 14, 30})
_BEGINS: Final = frozenset({"llama-bpe", "llama3", "llama-v3"})  # vocabularies that want a begin token if not told
_IR: Final = ("openvino_model", "openvino_tokenizer", "openvino_detokenizer")


@dataclass(frozen=True, slots=True)
class Source:
    """What the pipeline is to load.

    Attributes:
        path: a GGUF file, or a folder.
        context_tokens: that the model was made for.
        rows: how many logits the model gives.
        begin: whether a raw prompt begins with the begin token; None: as the tokeniser says.
        architecture: its name, for errors.
        tensors: of a GGUF file.
    """

    path: Path
    context_tokens: int
    rows: int
    begin: bool | None
    architecture: str
    tensors: tuple[GgufTensor, ...] = ()

    @contextlib.contextmanager
    def to_load(self) -> Iterator[str]:
        """A path for the pipeline, good while it loads.

        OpenVINO GenAI knows GGUF files by their names, which end in `.gguf`, and opens them for writing: it gets a
        copy, as the store's files have other names, and are nobody's to write to. The copy is gone once it is read. In
        it are weights that come through unchanged: see `exact`.
        """
        if self.path.is_dir():
            yield str(self.path)
            return
        with tempfile.TemporaryDirectory(prefix="openvino-") as folder:
            copy = Path(folder, "model.gguf")
            try:
                if any(exact.is_changed(tensor.kind) for tensor in self.tensors):
                    exact.rewrite(self.path, copy)
                else:
                    shutil.copyfile(self.path, copy)
            except OSError as error:
                raise LoadFailed(f"the model cannot be copied for OpenVINO: {error.strerror}") from error
            except ValueError as error:
                raise ModelCorrupt("the model file was cut while it was copied", expected="GGUF") from error
            yield str(copy)


def open_source(model: LocalModel) -> Source:
    """Check a model's files.

    Raises:
        ModelCorrupt, ModelUnsupported, LoadFailed.
    """
    try:
        return _gguf(model) if model.format == "gguf" else _folder(model)
    except OSError as error:
        raise LoadFailed(f"the model cannot be read: {error.strerror}") from error


def _gguf(model: LocalModel) -> Source:
    file = read_file(model.path)
    header, tensors = file.header, file.tensors
    if header.architecture not in _ARCHITECTURES or header.embeds:
        raise ModelUnsupported(
            f"OpenVINO GenAI runs no GGUF files of the architecture {header.architecture!r}",
            architecture=header.architecture,
        )
    if not set(header.tensor_types) <= _KINDS:
        raise ModelUnsupported(
            "OpenVINO GenAI does not know a format of these weights: it takes Q4_0, Q4_1, Q4_K, Q6_K, Q8_0, F16, BF16",
            architecture=header.architecture,
        )
    context = DEFAULT_CONTEXT if header.shape is None else header.shape.context_tokens
    widths = {tensor.name: tensor.rows for tensor in tensors}
    rows = widths.get("output.weight") or widths.get("token_embd.weight")
    if rows is None:
        raise ModelCorrupt("the model file has no embeddings")
    return Source(Path(model.path), context, rows, _wants_begin(file), header.architecture, tensors)


def _wants_begin(file: GgufFile) -> bool:
    """What the metadata says of the begin token, which OpenVINO's tokeniser ignores."""
    if file.header.architecture.startswith("qwen"):
        return False
    flag = file.metadata.get("tokenizer.ggml.add_bos_token")
    return file.metadata.get("tokenizer.ggml.pre") in _BEGINS if flag is None else bool(flag)


def _folder(model: LocalModel) -> Source:
    files = [Path(each) for each in model.files or (model.path,)]
    folder = Path(model.path).parent
    there = {each.name for each in files} if model.files else {each.name for each in folder.iterdir()}
    rows = 0
    for name in _IR:
        for suffix in (".xml", ".bin"):
            if f"{name}{suffix}" not in there:
                raise LoadFailed(f"the folder has no {name}{suffix}")
        graph = _read_graph(folder / f"{name}.xml")
        size = (folder / f"{name}.bin").stat().st_size
        if size < graph.weights:
            raise ModelCorrupt(f"{name}.bin is damaged or cut", expected=str(graph.weights), actual=str(size))
        rows = rows or graph.logits
    values: dict[str, dict[str, Any]] = {}
    for path in files:
        if path.suffix == ".json":
            values[path.name] = _check_json(path)
    config = values.get("config.json", {})
    text = config.get("text_config")
    limits = [each.get("max_position_embeddings") for each in (config, text if isinstance(text, dict) else {})]
    context = next((each for each in limits if isinstance(each, int) and each > 0), DEFAULT_CONTEXT)
    kinds = config.get("architectures")
    architecture = str(kinds[0]) if isinstance(kinds, list) and kinds else str(config.get("model_type") or "")
    if not rows:
        raise ModelUnsupported("the model has no output of logits of a known size", architecture=architecture)
    return Source(folder, context, rows, None, architecture)


@dataclass(slots=True)
class _Graph:
    weights: int = 0  # bytes that it needs
    logits: int = 0  # values of its output of this name


def _read_graph(path: Path) -> _Graph:
    graph, root = _Graph(), ""
    try:
        for _, element in ElementTree.iterparse(path):  # noqa: S314 - expat refuses what grows without bounds
            root = element.tag
            if element.tag == "data" and "offset" in element.attrib:
                end = int(element.attrib["offset"]) + int(element.attrib.get("size", 0))
                graph.weights = max(graph.weights, end)
            elif element.tag == "port" and "logits" in element.attrib.get("names", "").split(","):
                graph.logits = max(0, int([dim.text or "" for dim in element.iter("dim")][-1]))
            if element.tag == "layer":
                element.clear()
    except (ElementTree.ParseError, ValueError, IndexError) as error:
        raise ModelCorrupt(f"{path.name} is damaged or cut: it is no graph", expected="XML") from error
    if root != "net":
        raise ModelCorrupt(f"{path.name} is no OpenVINO model", expected="net", actual=root[:40])
    return graph


def _check_json(path: Path) -> dict[str, Any]:
    values: object = None
    with contextlib.suppress(ValueError, RecursionError):
        values = json.loads(path.read_bytes())
    if not isinstance(values, dict):
        raise ModelCorrupt(f"{path.name} is damaged or cut: it is no JSON object", expected="JSON")
    return values
