"""Rounding in which later weights make up for the errors of earlier ones. Works on a file that llama.cpp quantised.

Source: E. Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers,
arXiv:2210.17323. The columns of a matrix are rounded one after the other, those with the strongest inputs first; the
error of one is spread over those to come, by how its input goes together with theirs. Here llama.cpp's scales stay as
they are, and so does the size of the file: only which of the values of a block a weight becomes is chosen anew.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ondevice_sdk.backends.llama_cpp import codes, matrix
from ondevice_sdk.catalogue import gguf, layout
from ondevice_sdk.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DAMPING: Final = 0.01  # of the mean square of the inputs, added to each: the value of the publication
# Columns after which the errors are spread over all that are left, and rows that are worked on at a time: of 8 to 64
# columns 16 were the fastest, with as many rows as stay near the processor (4,864 rows of 896: 0.16 s on one core).
_STEP: Final = 16
_ROWS: Final = 1024


def improve(source: str, target: str, importance: str) -> Generator[float, None, None]:
    """Choose the codes of the matrices of `target` anew; yields the share that is done.

    Args:
        source: the file that it was made of, with the same tensors in more bits.
        target: as llama.cpp wrote it; changed in place.
        importance: a file with products of inputs; matrices without, and those in other formats, stay as they are.

    Raises:
        ConfigurationError: the products are not those of this model's inputs.
    """
    from gguf import GGUFReader
    from gguf.quants import dequantize

    products = matrix.Products(importance)
    wanted = [
        each
        for each in gguf.read_tensors(target)
        if layout.NUMBERS.get(each.kind) in codes.formats() and each.name in products.names
    ]
    # Those with the same inputs after each other: what is prepared for one serves the others.
    wanted.sort(key=lambda each: products.names[each.name])
    exact = {each.name: each for each in GGUFReader(source).tensors}
    done, total = 0, sum(each.values for each in wanted)
    known = ""
    with Path(target).open("r+b") as file:
        for tensor in wanted:
            kind = layout.NUMBERS[tensor.kind]
            if products.names[tensor.name] != known:
                known = products.names[tensor.name]
                order, factors = prepare(products.read(known))
            file.seek(tensor.offset)
            data = _bytes(file.read(tensor.size))
            given = exact[tensor.name]
            weights = dequantize(given.data, given.tensor_type).reshape(tensor.rows, tensor.columns)
            if order.size != tensor.columns:
                raise ConfigurationError(
                    "the importance matrix is that of another model", hint="collect it with the model that is quantised"
                )
            chosen = choose(weights, codes.grid(kind, data, tensor.rows), order, factors)
            file.seek(tensor.offset)
            file.write(codes.replaced(kind, data, chosen).tobytes())
            done += tensor.values
            yield done / total


def prepare(products: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The order in which the columns of each group are rounded, and how their errors spread.

    Args:
        products: mean products of the inputs of each group of columns, (groups, size, size).

    Returns:
        The columns of each group in their order, (groups, size), and the upper factor of the inverse of the products in
        that order, (groups, size, size): U with inverse = U^T U.
    """
    import numpy as np

    groups, size, _ = products.shape
    squares = np.diagonal(products, axis1=1, axis2=2).astype(np.float64)
    order = np.argsort(-squares, axis=1, kind="stable")
    damping = DAMPING * squares.mean(axis=1) + np.finfo(np.float32).tiny
    factors = np.empty(products.shape, np.float32)
    for group in range(groups):
        ordered = products[group][np.ix_(order[group], order[group])].astype(np.float64)
        ordered[np.arange(size), np.arange(size)] += damping[group]
        factors[group] = np.linalg.cholesky(np.linalg.inv(ordered)).T
    return order, factors


def choose(
    weights: NDArray[np.float32], grid: codes.Grid, order: NDArray[np.intp], factors: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Codes of weights on a grid, (rows, columns); see `prepare` for the others."""
    import numpy as np

    made = np.empty(weights.shape, np.uint8)
    for start in range(0, len(weights), _ROWS):
        part = slice(start, start + _ROWS)
        made[part] = _chosen(weights[part], codes.Grid(grid.scale[part], grid.least[part], grid.most), order, factors)
    return made


def _chosen(
    weights: NDArray[np.float32], grid: codes.Grid, order: NDArray[np.intp], factors: NDArray[np.float32]
) -> NDArray[np.uint8]:
    import numpy as np

    rows, columns = weights.shape
    groups, size = order.shape
    places = order + size * np.arange(groups)[:, None]
    every = (weights, *grid.columns(columns))
    left, scale, least = (np.ascontiguousarray(each.T[places]) for each in every)  # (groups, size, rows)
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0)
    chosen = np.empty((groups, size, rows), np.uint8)
    for start in range(0, size, _STEP):
        end = min(start + _STEP, size)
        errors = np.empty((groups, end - start, rows), np.float32)
        for at in range(start, end):
            code = np.clip(np.rint((left[:, at] - least[:, at]) * inverse[:, at]), 0, grid.most)
            error = (left[:, at] - (code * scale[:, at] + least[:, at])) / factors[:, at, at, None]
            chosen[:, at], errors[:, at - start] = code, error
            left[:, at + 1 : end] -= factors[:, at, at + 1 : end, None] * error[:, None]
        left[:, end:] -= factors[:, start:end, end:].transpose(0, 2, 1) @ errors
    made = np.empty((columns, rows), np.uint8)
    made[places.reshape(-1)] = chosen.reshape(columns, rows)
    return np.ascontiguousarray(made.T)


def _bytes(data: bytes) -> NDArray[np.uint8]:
    import numpy as np

    return np.frombuffer(data, np.uint8)


def group_size(columns: int, most: int) -> int:
    """The largest size, at most `most`, of equal groups of that many columns."""
    return max(size for size in range(1, min(columns, most) + 1) if columns % size == 0)
