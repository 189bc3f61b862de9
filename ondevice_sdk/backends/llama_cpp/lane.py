"""A llama.cpp context: a KV cache and the computation on it."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ondevice_sdk.backends.api import KvType
from ondevice_sdk.backends.llama_cpp import state
from ondevice_sdk.backends.llama_cpp.sizes import ROWS_AT_A_TIME
from ondevice_sdk.errors import GenerationFailed, LoadFailed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LaneOptions:
    """Sizes of a context, in tokens, sequences, rows and threads, and how its keys and values are kept.

    With several `parts` there are as many sequences, and each has its share of the tokens to itself.
    """

    tokens: int
    sequences: int
    rows: int
    logits: int
    threads: int
    kv_type: KvType = "f16"
    parts: int = 1


class Lane:
    """One context. Batches go through preallocated arrays that llama.cpp reads in place."""

    def __init__(self, model: Any, options: LaneOptions, vocabulary: int) -> None:
        import llama_cpp
        import numpy as np

        self._np = np
        self._lib = llama_cpp
        self._vocabulary = vocabulary
        self.parts = options.parts
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = options.tokens
        params.n_batch = min(options.rows, options.tokens)
        params.n_ubatch = min(ROWS_AT_A_TIME, params.n_batch)
        params.n_seq_max = options.sequences if options.parts == 1 else options.parts
        # Logits of all rows of a batch would take n_batch * vocabulary floats twice; nothing here needs so many.
        params.n_outputs_max = min(options.logits, params.n_batch)
        params.kv_unified = options.parts == 1
        # Flash attention reads prompts a little faster on a CPU, but decodes at half the speed on a long context.
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if options.kv_type == "q8_0":  # values of 8 bits need it
            params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
            params.type_k = params.type_v = llama_cpp.GGML_TYPE_Q8_0
        elif options.kv_type == "f32":
            params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
        params.swa_full = True  # a sliding-window cache could not give back an earlier prefix
        params.no_perf = True
        params.n_threads = params.n_threads_batch = options.threads
        self._context = llama_cpp.llama_init_from_model(model, params)
        if not self._context:
            raise LoadFailed("llama.cpp could not make a context", hint="use a smaller model, or a smaller context")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._adapter: Any = None
        self.tokens: int = llama_cpp.llama_n_ctx(self._context)
        self.rows = rows = int(llama_cpp.llama_n_batch(self._context))
        self._tokens = np.zeros(rows, np.int32)
        self._positions = np.zeros(rows, np.int32)
        self._sequences = np.zeros(rows, np.int32)
        self._counts = np.ones(rows, np.int32)  # every row belongs to one sequence
        self._pointers = self._sequences.ctypes.data + 4 * np.arange(rows, dtype=np.uintp)
        self._wanted = np.zeros(rows, np.int8)
        fields = dict(llama_cpp.llama_batch._fields_)
        self._batch = llama_cpp.llama_batch(n_tokens=0)
        for name, array in (
            ("token", self._tokens),
            ("pos", self._positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._pointers),
            ("logits", self._wanted),
        ):
            setattr(self._batch, name, ctypes.cast(array.ctypes.data, fields[name]))

    def forward(
        self,
        sequences: Sequence[int] | int,
        positions: Sequence[int],
        tokens: Sequence[int],
        logits: Sequence[bool],
        adapter: Any = None,
    ) -> NDArray[np.float32]:
        """Run the rows, with a loaded adapter; the logits are a view that the next call overwrites.

        Raises:
            GenerationFailed: llama.cpp reported an error.
        """
        count = len(tokens)
        if count > self.rows:
            raise GenerationFailed(f"a batch has at most {self.rows} rows")
        if adapter is not self._adapter:
            self._use(adapter)
        self._tokens[:count] = tokens
        self._positions[:count] = positions
        self._sequences[:count] = sequences
        self._wanted[:count] = logits
        self._batch.n_tokens = count
        status = self._lib.llama_decode(self._context, self._batch)
        if status != 0:
            raise GenerationFailed(f"llama.cpp could not run the batch (status {status})")
        rows = [row for row, wanted in enumerate(logits) if wanted]
        if not rows:
            # The arrays must not change while they are still read, and a step is timed.
            self._lib.llama_synchronize(self._context)
            return self._np.empty((0, self._vocabulary), self._np.float32)
        pointers = [self._lib.llama_get_logits_ith(self._context, row) for row in rows]
        if not all(pointers):
            raise GenerationFailed("llama.cpp gave no logits")
        addresses = [ctypes.addressof(pointer.contents) for pointer in pointers]
        stride = 4 * self._vocabulary
        if all(address == addresses[0] + index * stride for index, address in enumerate(addresses)):
            return self._np.ctypeslib.as_array(pointers[0], (len(rows), self._vocabulary))
        return self._np.stack([self._np.ctypeslib.as_array(pointer, (self._vocabulary,)) for pointer in pointers])

    def _use(self, adapter: Any) -> None:
        count = 0 if adapter is None else 1
        handles = (self._lib.llama_adapter_lora_p_ctypes * count)(*[adapter][:count])
        if self._lib.llama_set_adapters_lora(self._context, handles, count, (ctypes.c_float * count)(*[1.0][:count])):
            raise GenerationFailed("llama.cpp could not change the adapter")
        self._adapter = adapter

    def copy(self, source: int, target: int, start: int, end: int) -> None:
        """Share cached positions [start, end); where every sequence has its own cells they are copied, from 0."""
        if self.parts == 1:
            self._lib.llama_memory_seq_cp(self._memory, source, target, start, end)
            return
        self.load(target, self.save(source))  # llama.cpp's own copy waits for the next pass, and may come too late
        self.remove(target, end, None)

    def remove(self, sequence: int, start: int, end: int | None) -> None:
        """Forget cached positions."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, start, -1 if end is None else end)

    def save(self, sequence: int) -> bytes:
        """State of a sequence, as of a shared cache."""
        size = self._lib.llama_state_seq_get_size(self._context, sequence)
        buffer = (ctypes.c_uint8 * size)()
        written = self._lib.llama_state_seq_get_data(self._context, buffer, size, sequence)
        data = memoryview(buffer).cast("B")[:written]
        return state.from_part(data, sequence, self.parts) if self.parts > 1 else bytes(data)

    def load(self, sequence: int, data: bytes) -> None:
        """Put a state back.

        Raises:
            GenerationFailed: the data is not a state of this model, or does not fit.
        """
        if self.parts > 1:
            data = state.to_part(data, self.parts)
        buffer = ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_uint8))  # read only
        if not self._lib.llama_state_seq_set_data(self._context, buffer, len(data), sequence):
            raise GenerationFailed("the saved state does not fit this model")

    @property
    def can_move(self) -> bool:
        """Whether states can be put into caches of other parts. No sequence holds anything yet."""
        size = self._lib.llama_state_seq_get_size(self._context, 0)
        buffer = (ctypes.c_uint8 * size)()
        written = self._lib.llama_state_seq_get_data(self._context, buffer, size, 0)
        return state.is_understood(bytes(memoryview(buffer)[:written]), self.parts)

    def close(self) -> None:
        """Free the context; may be called twice."""
        if self._context:
            self._lib.llama_free(self._context)
            self._context = self._memory = None
