"""OpenVINO GenAI's continuous-batching pipeline, and what it wants to be told."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ondevice_openvino import notation
from ondevice_openvino.ledger import BLOCK
from ondevice_sdk.backends.api import Grammar, KvType, Sampling

_COLD: Final = 1e-4  # a temperature below is none: OpenVINO's numbers of 32 bits would overflow
_KV_PRECISION: Final = {"f16": "f16", "q8_0": "u8"}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How a pipeline is made: room for tokens and sequences, rows of a pass, threads, how keys and values are kept."""

    tokens: int
    sequences: int
    rows: int
    threads: int
    kv_type: KvType

    @property
    def blocks(self) -> int:
        """Blocks of the cache: each sequence may leave one half empty."""
        return -(-self.tokens // BLOCK) + self.sequences


@dataclass(slots=True)
class Output:
    """What came of a request since it was last read."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False
    starved: bool = False  # the pipeline found no room for it


class Pipeline:
    """One loaded model. All calls come from one thread."""

    def __init__(self, path: str, device: str, sizes: Sizes) -> None:
        """Load; raises what OpenVINO raises."""
        import numpy as np
        import openvino
        import openvino_genai

        self._np = np
        self._tensor = openvino.Tensor
        self._genai = openvino_genai
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_batched_tokens = sizes.rows
        scheduler.num_kv_blocks = sizes.blocks
        scheduler.max_num_seqs = sizes.sequences
        scheduler.enable_prefix_caching = True
        properties: dict[str, Any] = {"sampler_num_threads": sizes.threads}
        if device == "CPU":
            # No pinning: another process on the same cores would hold up the whole pass.
            properties |= {"INFERENCE_NUM_THREADS": sizes.threads, "ENABLE_CPU_PINNING": False}
            # The 16 bits that OpenVINO takes by itself on processors with AMX compute another model: SmolLM2 in Q8_0
            # finds llama.cpp's likeliest token at 67 percent of the places, and at 97 with 32 bits. These decode
            # faster too, by a third (67 and 52 tokens/s on a core), and read prompts at half the speed (970 and 1870).
            properties["INFERENCE_PRECISION_HINT"] = "f32"
            properties["KV_CACHE_PRECISION"] = _KV_PRECISION[sizes.kv_type]
        tokenizer = {"INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
        self._native = openvino_genai.ContinuousBatchingPipeline(path, scheduler, device, properties, tokenizer)
        self._dropped = False

    @property
    def tokenizer(self) -> Any:
        """OpenVINO GenAI's tokeniser."""
        return self._native.get_tokenizer()

    @property
    def end_tokens(self) -> frozenset[int]:
        """Those that the model's own configuration names."""
        config = self._native.get_config()
        return frozenset({*config.stop_token_ids, config.eos_token_id})

    def add(self, number: int, tokens: Sequence[int], config: Any) -> Any:
        """Start a request under a number of its own; gives its handle."""
        ids = self._tensor(self._np.array([tokens], self._np.int64))
        return self._native.add_request(number, ids, config)

    def step(self) -> None:
        """One pass over what runs."""
        self._dropped = False
        self._native.step()

    def read(self, handle: Any) -> Output:
        """What is new of a request."""
        status = handle.get_status()  # before its output: what came with the end is not to be missed
        kinds = self._genai.GenerationStatus
        output = Output(ended=status != kinds.RUNNING, starved=status == kinds.IGNORED)
        while handle.can_read():
            for part in handle.read().values():
                output.tokens += part.generated_ids
                output.logprobs += part.generated_log_probs
        return output

    def drop(self, handle: Any) -> None:
        """End a request early; what it holds is free after the next step."""
        handle.cancel()
        self._dropped = True

    def settle(self) -> None:
        """Free what dropped requests hold, where nothing else runs: costs no pass."""
        if self._dropped:
            self.step()

    # --- what to ask for ----------------------------------------------------------------------------------------------

    def writing(
        self, sampling: Sampling, limit: int, ends: Collection[int], grammar: Grammar | None, *, masked: bool
    ) -> Any:
        """Write up to `limit` tokens; `masked`: none of the ends."""
        config = self._config(limit, ends)
        config.repetition_penalty = sampling.repetition_penalty
        if sampling.temperature > _COLD and sampling.top_k != 1 and sampling.min_p < 1:
            config.do_sample = True
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            config.min_p = sampling.min_p
            if sampling.top_k:
                config.top_k = sampling.top_k
            config.rng_seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
        if grammar is not None:
            config.structured_output_config = self._structure(grammar)
        if masked:
            config.min_new_tokens = limit
        return config

    def reading(self) -> Any:
        """Read a prompt."""
        return self._config(1, ())

    def scoring(self) -> Any:
        """Give the log-probabilities of the tokens of a prompt, as far as they are computed and not in the cache."""
        config = self._config(1, ())
        config.echo = True
        return config

    def forcing(self, others: Collection[int]) -> Any:
        """Write a token that is none of the others, and give its log-probability among all."""
        config = self._config(1, others)
        config.min_new_tokens = 1
        config.logprobs = 1
        return config

    def _config(self, limit: int, ends: Collection[int]) -> Any:
        config = self._genai.GenerationConfig()
        config.max_new_tokens = limit
        config.do_sample = False
        config.apply_chat_template = False
        if ends:
            config.stop_token_ids = set(ends)
        return config

    def _structure(self, grammar: Grammar) -> Any:
        config = self._genai.StructuredOutputConfig()
        if grammar.form == "regex":
            config.regex = grammar.source
        elif grammar.form == "choice":
            config.grammar = notation.alternatives(grammar.choices)
        elif (written := notation.compact(grammar.source)) is not None:
            config.grammar = written
        else:
            config.json_schema = grammar.source
        return config
