"""Model files with random weights: to measure speed and memory of any shape and format, never quality."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ondevice_sdk.catalogue import layout
from ondevice_sdk.errors import BackendUnavailable, ConfigurationError, StoreError
from ondevice_sdk.types import ModelShape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DEVIATION: Final = 0.02  # of the weights, as in trained models: the logits stay finite
_UNIT: Final = 1 << 20  # values made at random; larger tensors repeat them
_TEMPLATE: Final = "{% for message in messages %}{{ message.content }}\n{% endfor %}"


def write(
    path: Path | str,
    shape: ModelShape,
    quantisation: str,
    *,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Write a GGUF file of the Llama architecture with random weights and a vocabulary of bytes and made-up words.

    Needs memory for the largest tensor. The file appears under its name when it is whole.

    Args:
        path: where; its directory exists.
        shape: dimensions; a parameter count below that of two vocabulary matrices ties the embeddings.
        quantisation: as llama.cpp's tool names it, such as Q4_K_M.
        seed: of the weights.
        on_progress: called with the share of the bytes written.

    Raises:
        ConfigurationError: the quantisation is not known, or the rows do not divide into its blocks.
        BackendUnavailable: numpy or gguf is not installed. StoreError: the file cannot be written.
    """
    if not layout.is_known(quantisation):
        raise ConfigurationError(
            f"no random model in {quantisation!r}", hint=f"one of {', '.join(layout.FILE_TYPES.values())}"
        )
    try:
        import gguf
        import numpy as np
    except ImportError as error:
        hint = "pip install 'ondevice-sdk[llama-cpp]'"
        raise BackendUnavailable("gguf is not installed", reason=str(error), hint=hint) from error
    path = Path(path)
    tensors = layout.tensors(shape, quantisation)
    total, done = sum(tensor.size for tensor in tensors), 0
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(descriptor)
        temporary = Path(name)
        try:
            with contextlib.closing(gguf.GGUFWriter(temporary, "llama")) as writer:  # also when it is interrupted
                _describe(writer, shape, _file_type(quantisation))
                units = {kind: _unit(kind, seed) for kind in {tensor.format for tensor in tensors if tensor.rows > 1}}
                for tensor in tensors:
                    values, size = layout.BLOCKS[tensor.format]
                    row = tensor.columns // values * size
                    dimensions = (tensor.rows, row) if tensor.rows > 1 else (row,)
                    kind = gguf.GGMLQuantizationType[tensor.format]
                    writer.add_tensor_info(tensor.name, dimensions, np.dtype(np.uint8), tensor.size, kind)
                writer.write_header_to_file()
                writer.write_kv_data_to_file()
                writer.write_ti_data_to_file()
                for tensor in tensors:
                    writer.write_tensor_data(_data(tensor, units))
                    done += tensor.size
                    if on_progress is not None:
                        on_progress(done / total)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"the random model {path.name} cannot be written: {error.strerror}") from error


def _file_type(quantisation: str) -> int:
    return next((number for number, name in layout.FILE_TYPES.items() if name == quantisation), 0)


def _data(tensor: layout.Tensor, units: dict[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    import numpy as np

    if tensor.rows == 1:  # the weights of a norm
        return np.ones(tensor.values, np.float32).view(np.uint8)
    return np.resize(units[tensor.format], tensor.size)


def _unit(kind: str, seed: int) -> NDArray[np.uint8]:
    """Bytes of a million random weights in this format."""
    import gguf
    import numpy as np

    draw = np.random.default_rng(seed)
    values, size = layout.BLOCKS[kind]
    if values == 256:
        blocks = draw.integers(0, 256, (_UNIT // values, size), np.uint8)
        for start, scale in _SCALES[kind]:
            blocks[:, start : start + 2] = np.array([scale], np.float16).view(np.uint8)
        return blocks.reshape(-1)
    weights = draw.normal(0.0, _DEVIATION, (_UNIT // 1024, 1024)).astype(np.float32)
    packed = weights if kind == "F32" else gguf.quants.quantize(weights, gguf.GGMLQuantizationType[kind])
    data: NDArray[np.uint8] = packed.view(np.uint8).reshape(-1)
    return data


# Where a block of 256 keeps its 16-bit scales, and values for them that give weights of about the right size.
_SCALES: Final = {
    "Q3_K": ((108, 3e-4),),
    "Q4_K": ((0, 8e-5), (2, 6e-4)),
    "Q5_K": ((0, 4e-5), (2, 6e-4)),
    "Q6_K": ((208, 1.5e-5),),
}


def _describe(writer: Any, shape: ModelShape, file_type: int) -> None:
    writer.add_name("random")
    writer.add_file_type(file_type)
    writer.add_context_length(shape.context_tokens)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(500_000.0)
    writer.add_vocab_size(shape.vocabulary)
    control = ["<unk>", "<s>", "</s>"]
    spelled = [f"<0x{value:02X}>" for value in range(256)]
    words = [f"▁w{index}" for index in range(shape.vocabulary - len(control) - len(spelled))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*control, *spelled, *words][: shape.vocabulary])
    writer.add_token_scores([0.0] * shape.vocabulary)
    writer.add_token_types(([2, 3, 3] + [6] * len(spelled) + [1] * len(words))[: shape.vocabulary])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(_TEMPLATE)
