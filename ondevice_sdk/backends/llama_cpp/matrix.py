"""Importance matrices as files, in the format of llama.cpp's own tools: what those write is read, and the reverse.

A matrix of weights multiplies inputs; an input that is driven strongly makes an error of its column weigh more. For
each matrix the file has the sum of the squares of each input over all tokens that were read, and how many they were.

The SDK's own files also have the products of inputs with each other, summed in the same way, for groups of neighbouring
columns; other tools pass over them. Matrices with the same inputs share them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ondevice_sdk.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SUMS: Final = ".in_sum2"
_COUNTS: Final = ".counts"
_PRODUCTS: Final = ".in_products"
_SHARED: Final = "imatrix.shared"  # "name other": the matrix `name` has the inputs of `other`


@dataclass(slots=True)
class Driven:
    """What the inputs of one matrix were, over so many tokens.

    Attributes:
        sums: of the squares of each, in double precision.
        tokens: how many.
        products: sums of products, (groups, size, size); None: they were not collected, or those of `shared` are its.
        shared: the name of a matrix with the same inputs; empty: none.
    """

    sums: NDArray[np.float64]
    tokens: int = 0
    products: NDArray[np.float32] | None = None
    shared: str = ""


def write(path: str, found: Mapping[str, Driven], *, text: str, windows: int, window: int) -> None:
    """Write a file.

    Args:
        path: of the file.
        found: by the name of the matrix.
        text: a name for what was read.
        windows: that were read.
        window: tokens of each.
    """
    import gguf
    import numpy as np

    class Writer(gguf.GGUFWriter):  # type: ignore[misc]  # it has no types
        def add_architecture(self) -> None:
            """A matrix has none."""

    with contextlib.closing(Writer(path, "")) as writer:
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", [text])
        writer.add_uint32("imatrix.chunk_count", windows)
        writer.add_uint32("imatrix.chunk_size", window)
        if shared := [f"{name} {driven.shared}" for name, driven in sorted(found.items()) if driven.shared]:
            writer.add_array(_SHARED, shared)
        for name, driven in sorted(found.items()):
            writer.add_tensor(name + _SUMS, driven.sums.astype(np.float32))
            writer.add_tensor(name + _COUNTS, np.array([driven.tokens], np.float32))
            if driven.products is not None:
                writer.add_tensor(name + _PRODUCTS, driven.products)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def read(path: str) -> dict[str, NDArray[np.float32]]:
    """Mean squares of the inputs of each matrix; those of the experts of one follow each other.

    Raises:
        ConfigurationError: the file is no importance matrix.
    """
    import gguf
    import numpy as np

    try:
        tensors = {each.name: each.data for each in gguf.GGUFReader(path).tensors}
        made: dict[str, NDArray[np.float32]] = {}
        for name, sums in tensors.items():
            if name.endswith(_SUMS):
                counts = tensors[name.removesuffix(_SUMS) + _COUNTS].reshape(-1, 1).astype(np.float64)
                rows = sums.reshape(len(counts), -1).astype(np.float64)
                # An expert that no token went to: all its inputs matter the same.
                means = np.divide(rows, counts, out=np.ones_like(rows), where=counts > 0)
                made[name.removesuffix(_SUMS)] = means.astype(np.float32).reshape(-1)
    except (OSError, ValueError, KeyError, IndexError, OverflowError, MemoryError, UnicodeDecodeError) as error:
        raise _none() from error
    if not made or not all(np.isfinite(values).all() and (values >= 0).all() for values in made.values()):
        raise _none()
    return made


class Products:
    """The products of inputs in a file that `read` has accepted; they are read when they are wanted.

    Attributes:
        names: for each matrix whose inputs are known, the one that they are kept for.
    """

    def __init__(self, path: str) -> None:
        import gguf

        reader = gguf.GGUFReader(path)
        self._tensors = {each.name: each.data for each in reader.tensors}
        whole = [name.removesuffix(_PRODUCTS) for name in self._tensors if name.endswith(_PRODUCTS)]
        self.names = {name: name for name in whole if {name + _SUMS, name + _COUNTS} <= self._tensors.keys()}
        field = reader.fields.get(_SHARED)
        for pair in [] if field is None else field.contents():
            name, _, other = pair.partition(" ")
            if other in self.names:
                self.names[name] = other

    def read(self, name: str) -> NDArray[np.float32]:
        """Mean products, (groups, size, size), for one of the values of `names`.

        Raises:
            ConfigurationError: they are no products.
        """
        import numpy as np

        data, squares = self._tensors[name + _PRODUCTS], self._tensors[name + _SUMS].reshape(-1)
        made: NDArray[np.float32] = data / np.float32(max(1.0, float(self._tensors[name + _COUNTS].reshape(-1)[0])))
        if made.ndim != 3 or made.shape[1] != made.shape[2] or made.shape[0] * made.shape[1] != squares.size:
            raise _none()
        if not np.isfinite(made).all():
            raise _none()
        return made


def _none() -> ConfigurationError:
    return ConfigurationError("this is no importance matrix", hint="collect one with the backend")
