"""A model folder as a `ModelRunner`, on TVM's virtual machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ondevice_mlc import DEFAULT_CONTEXT, folder, runtime, weights
from ondevice_mlc.cache import Cache
from ondevice_mlc.conversation import chat_template, tokenizer_config
from ondevice_mlc.features import missing_features
from ondevice_mlc.folder import Folder, number
from ondevice_mlc.tokenizer import Vocabulary
from ondevice_sdk.backends.api import Batch, LoadOptions, LocalModel, ModelRunner, Segment
from ondevice_sdk.errors import ConfigurationError, GenerationFailed, LoadFailed, ModelCorrupt, ModelUnsupported

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_LOGITS: Final = 64
_WEIGHTS_SHARE: Final = 0.9  # of the time that loading takes, seen with SmolLM2


class MlcRunner(ModelRunner):
    """One loaded model with a paged KV cache.

    What other sequences hold changes nothing in the results of one. But where sequences share pages, attention is
    computed in two parts that are then added, which changes the last bits: so the isolated sequence has a cache of its
    own, where nothing is shared.
    """

    isolated_sequence: int

    def __init__(self, model: LocalModel, options: LoadOptions) -> None:
        """Load a folder.

        Raises:
            ModelCorrupt, ModelUnsupported, LoadFailed. ConfigurationError: a wrong option.
        """
        found = folder.read(model)
        report = options.on_progress or (lambda _share: None)
        self._words = Vocabulary(folder.read_json(found.files[folder.TOKENIZER]))
        self._library: runtime.Library | None = runtime.Library(found.library, found.made)
        self._describe(found, self._library.metadata)
        self._choose_sizes(self._library.metadata, options)
        runtime.use_threads(options.threads or _usable_cores())
        wanted = weights.parameters(self._library.metadata, self.vocabulary)
        loaded = weights.load(found, wanted, lambda share: report(_WEIGHTS_SHARE * share))
        self._packed: Any = runtime.packed(loaded)  # all parameters as one argument
        self._embed: Any = self._library.require("embed")
        self._batch_prefill: Any = self._library.require("batch_prefill")
        self._batch_decode: Any = self._library.require("batch_decode")
        self._decode: Any = self._library.get("decode") or self._batch_decode
        self._reshape: Any = runtime.function("vm.builtin.reshape")
        self._shared: Cache | None = self._cache(self.max_sequences)
        self._isolated: Cache | None = None
        report(1.0)

    def _describe(self, found: Folder, metadata: Mapping[str, Any]) -> None:
        """What the engine has to know of the model."""
        kind = str(metadata.get("model_type") or found.config.get("model_type") or "")[:40]
        if metadata.get("kv_state_kind", "kv_cache") != "kv_cache":
            raise ModelUnsupported("only models with a KV cache are supported", architecture=kind)
        if number(metadata, "sliding_window_size", -1, least=-1) > 0:
            raise ModelUnsupported("models with a sliding window are not supported", architecture=kind)
        if number(metadata, "tensor_parallel_shards", 1) > 1:
            raise ModelUnsupported("models that are split over several devices are not supported", architecture=kind)
        if missing := missing_features(metadata):
            raise ModelUnsupported(
                f"the library uses instructions that this processor lacks: {', '.join(missing)}",
                hint="compile the model on this machine: ondevice mlc compile MODEL --again",
            )
        inner = found.config.get("model_config")
        inner = inner if isinstance(inner, dict) else {}
        self.vocabulary = number(found.config if "vocab_size" in found.config else inner, "vocab_size")
        if self._words.size > self.vocabulary:
            raise ModelCorrupt("the tokeniser has more words than the model")
        begin = found.config.get("bos_token_id")
        begin = begin if isinstance(begin, int) and 0 <= begin < self.vocabulary else None
        self._begin = begin
        self.end_tokens = self._ends(found.config)
        self.chat_template = chat_template(found)
        self.begin_token = begin if begin is not None and self._begins(found, begin) else None
        ends = found.config.get("eos_token_id")
        end = ends[0] if isinstance(ends, list) and ends else ends
        self.template_variables = {
            "bos_token": self._words.text(begin),
            "eos_token": self._words.text(end if isinstance(end, int) else None),
        }

    def _begins(self, found: Folder, token: int) -> bool:
        """Whether this token is put before a text: as the tokeniser's settings, its pipeline, or MLC's fields say."""
        adds = tokenizer_config(found).get("add_bos_token")
        if isinstance(adds, bool):
            return adds
        template = found.config.get("conv_template")
        prefix = template.get("system_prefix_token_ids") if isinstance(template, dict) else None
        return self._words.begin == token or (isinstance(prefix, list) and token in prefix)

    def _ends(self, config: Mapping[str, Any]) -> frozenset[int]:
        template = config.get("conv_template")
        template = template if isinstance(template, dict) else {}
        found = {
            token
            for value in (config.get("eos_token_id"), template.get("stop_token_ids"))
            for token in (value if isinstance(value, list) else [value])
            if isinstance(token, int) and 0 <= token < self.vocabulary
        }
        stops = template.get("stop_str")
        stops = stops if isinstance(stops, list) else [stops]
        named = {self._words.control.get(stop) for stop in stops if isinstance(stop, str)}
        return frozenset(found | {token for token in named if token is not None})

    def _choose_sizes(self, metadata: Mapping[str, Any], options: LoadOptions) -> None:
        trained = number(metadata, "context_window_size")
        wanted = min(trained, DEFAULT_CONTEXT) if options.context_tokens is None else options.context_tokens
        if wanted < 1 or options.max_sequences < 1 or options.batch_tokens < 1:
            raise ConfigurationError("context_tokens, max_sequences and batch_tokens must be at least 1")
        most = number(metadata, "max_batch_size", _MAX_LOGITS)
        self.cache_tokens = wanted
        self.context_tokens = min(wanted, trained)
        self.max_sequences = min(options.max_sequences, most)
        self.max_batch_tokens = min(options.batch_tokens, wanted, number(metadata, "prefill_chunk_size"))
        self.max_logits = min(_MAX_LOGITS, most)
        self.isolated_sequence = self.max_sequences

    def _cache(self, sequences: int) -> Cache:
        assert self._library is not None
        create = self._library.require("create_tir_paged_kv_cache")
        try:
            return Cache(create, tokens=self.cache_tokens, sequences=sequences, rows=self.max_batch_tokens)
        except Exception as error:  # TVM raises errors of many types
            hint = "use a smaller model, or a smaller context"
            raise LoadFailed("the KV cache could not be made, perhaps for lack of memory", hint=hint) from error

    def tokenize(self, segments: Sequence[Segment]) -> list[int]:
        """See `ModelRunner.tokenize`."""
        return self._words.tokenize(segments)

    def token_bytes(self, token: int) -> bytes:
        """See `ModelRunner.token_bytes`."""
        return self._words.token_bytes(token)

    def grammar_tokenizer(self) -> Any:
        """See `ModelRunner.grammar_tokenizer`."""
        return self._words.for_grammars(self.vocabulary, self.end_tokens, self._begin)

    def forward(self, batch: Batch) -> NDArray[np.float32]:
        """See `ModelRunner.forward`."""
        cache, rows = self._cache_of(batch.sequences), self._rows(batch)
        for sequence, mine in rows.items():
            cache.check(sequence, [batch.positions[row] for row in mine])
        order = [row for mine in rows.values() for row in mine]
        try:
            return self._run(cache, batch, order, {sequence: len(mine) for sequence, mine in rows.items()})
        except Exception as error:
            raise GenerationFailed(f"TVM reported an error ({type(error).__name__})") from error

    def _rows(self, batch: Batch) -> dict[int, list[int]]:
        """The rows of each sequence."""
        rows: dict[int, list[int]] = {}
        for row, sequence in enumerate(batch.sequences):
            rows.setdefault(sequence, []).append(row)
        return rows

    def _run(self, cache: Cache, batch: Batch, order: list[int], counts: Mapping[int, int]) -> NDArray[np.float32]:
        """One pass over the rows in this order, which is that of their sequences."""
        import numpy as np

        tokens = runtime.aligned([len(order)], np.int32)
        tokens[:] = [batch.tokens[row] for row in order]
        wanted = [place for place, row in enumerate(order) if batch.logits[row]]
        cache.begin(counts)
        embedded = self._embed(runtime.tensor(tokens), self._packed)
        width = int(embedded.shape[-1])
        if len(counts) == len(order):
            rows = self._reshape(embedded, runtime.shape([len(order), 1, width]))
            found, _ = (self._decode if len(order) == 1 else self._batch_decode)(rows, cache.state, self._packed)
            logits = runtime.array(found).reshape(len(order), -1)
            logits = logits if len(wanted) == len(order) else logits[wanted]
        else:
            places = runtime.aligned([max(len(wanted), 1)], np.int32)
            places[:] = wanted or [len(order) - 1]  # it computes the logits of at least one row
            rows = self._reshape(embedded, runtime.shape([1, len(order), width]))
            found, _ = self._batch_prefill(rows, runtime.tensor(places), cache.state, self._packed)
            logits = runtime.array(found).reshape(len(places), -1)[: len(wanted)]
        cache.end()
        if order == sorted(order):
            return logits
        return logits[np.argsort([order[place] for place in wanted])]

    def kv_copy(self, source: int, target: int, start: int, end: int) -> None:
        """See `ModelRunner.kv_copy`."""
        if start != 0:
            raise GenerationFailed("a sequence can only be copied from its beginning")
        if self._shared is not None:
            self._shared.copy(source, target, end)

    def kv_remove(self, sequence: int, start: int, end: int | None) -> None:
        """See `ModelRunner.kv_remove`."""
        cache = self._isolated if sequence == self.isolated_sequence else self._shared
        if cache is None:
            return
        if end is not None and end < cache.length(sequence):
            raise GenerationFailed("a sequence can only be cut at its end")
        cache.cut(sequence, start)

    def _cache_of(self, sequences: Sequence[int]) -> Cache:
        if self._shared is None:
            raise GenerationFailed("the model is closed")
        if self.isolated_sequence not in sequences:
            return self._shared
        if self._isolated is None:
            self._isolated = self._cache(1)
        return self._isolated

    def close(self) -> None:
        """Free the cache and the weights; may be called twice."""
        self._shared = self._isolated = self._library = self._packed = None
        # Each function of the library keeps its virtual machine, with all memory that that has pooled.
        self._embed = self._batch_prefill = self._batch_decode = self._decode = self._reshape = None


def _usable_cores() -> int:
    """Cores that this process may run on: TVM's own default is half of the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
