"""How a backend makes models for itself out of those of others: converts weights, compiles a library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Builder:
    """What a backend makes, of what, and the function that does it.

    `maker` is a generator function, as "module:function", that is called in a process of its own, which has no network
    where the system can refuse it, but may start others, such as a linker. It is called by keyword:

    - `source`: path of the file of the model that a backend is given first, in one of the formats `sources`; its other
      files lie beside it under their own names.
    - `folder`: path of an empty folder, to be filled with the files of the new model and nothing else. Temporary files
      go where `tempfile` puts them.
    - `precision`: one of `precisions`.
    - `target`: what to compile for, in the words of the runtime; None: this processor.
    - `threads`: how many threads to compute with.

    It yields what it is doing, in a word or two for people, and the share of all the work that is done: `("quantise",
    0.25)`. It returns the names of the files in the folder, that which the backend is given first before the others.
    Errors of `ondevice_sdk.errors` that it raises reach the caller, any other as `LoadFailed` that names its type.
    """

    maker: str
    form: str  # format of what it makes, one of those that the backend reads; also ends the name of the variant
    sources: tuple[str, ...]  # formats that it reads
    precisions: tuple[str, ...]  # "int4", "int8"; the first is the default
    library: str  # "tvm 0.26.0": what another version makes is another model
