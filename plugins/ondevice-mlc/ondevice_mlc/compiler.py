"""From a model's configuration to a shared library that holds its functions."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ondevice_mlc.architecture.config import ModelConfig
from ondevice_mlc.quantisation import FORMATS, Precision, groups
from ondevice_mlc.target import cpu_features, level, target_string
from ondevice_sdk.errors import BackendUnavailable, LoadFailed

__all__ = ["PASSES", "compile", "cpu_features", "define", "target_string"]

# Kernels name what is used twice themselves: TVM's search for common parts takes longer than all other passes. They
# also allocate buffers whose size is found just before, which its reuse of memory would move above that.
PASSES: Final = {"tirx.disable_cse_tir": True, "tirx.disable_storage_rewrite": True}
Progress = Callable[[str, float], None]


def compile(  # noqa: A001 - what it does
    config: ModelConfig, precision: Precision, target: str | None, out: Path, on_progress: Progress
) -> None:
    """Write the library of a model; its weights are not in it.

    Args:
        config: the model.
        precision: of its weights.
        target: as TVM writes it; None: this processor.
        out: the file to write.
        on_progress: called with what is being done, and the share of the whole that is done before it.

    Raises:
        BackendUnavailable: there is no C compiler, which links the library.
        ConfigurationError: the target.
        ModelUnsupported: the model.
    """
    linker = _linker()
    on_progress("defining", 0.0)
    import tvm

    chosen = target_string(target)
    parsed = tvm.target.Target(json.loads(chosen))
    module = define(config, precision, chosen)
    on_progress("optimising", 0.15)
    with parsed, tvm.transform.PassContext(opt_level=3, config=PASSES):
        module = _lower(module, _metadata(config, precision, chosen))
        on_progress("generating code", 0.4)
        executable = tvm.relax.build(module, target=parsed, relax_pipeline=None)
    on_progress("linking", 0.9)
    from tvm.support import cc

    try:
        # A compiler for C does not add the library of logarithms by itself, as one for C++ does.
        options = ["-Wl,--no-as-needed", "-lm"] if sys.platform == "linux" else []
        executable.export_library(str(out), fcompile=cc.create_shared, cc=linker, options=options)
    except RuntimeError as error:
        raise LoadFailed("the compiled model could not be linked") from error
    on_progress("done", 1.0)


def define(config: ModelConfig, precision: Precision, target: str) -> Any:
    """The model as TVM's module, before any pass."""
    from ondevice_mlc.architecture.model import CausalModel
    from ondevice_mlc.kernels.simd import Simd

    model = CausalModel(config, precision, Simd(level(target)))
    module, parameters = model.export_tvm(spec=model.specification())
    made = [(name, tuple(map(int, each.shape)), str(each.dtype)) for name, each in parameters]
    stored = [(each.name, each.shape, each.dtype) for group in groups(config, precision) for each in group.outputs]
    if made != stored:
        raise AssertionError("the definition and the conversion disagree about the parameters")
    limits = {"seq_len": config.prefill_chunk_size, "batch_size": config.max_batch_size}
    for name, function in module.functions_items():
        if name.name_hint in model.specification():
            module[name] = function.with_attr("tir_var_upper_bound", limits)
    return module


def _lower(module: Any, metadata: dict[str, Any]) -> Any:
    """Plan memory, put the metadata in, and turn calls into those of the virtual machine."""
    from tvm import ir, relax

    steps = relax.transform
    module = ir.transform.Sequential(
        [
            steps.ToNonDataflow(),
            steps.RemovePurityChecking(),
            steps.CallTIRRewrite(),
            steps.StaticPlanBlockMemory(),
        ]
    )(module)
    metadata["memory_usage"] = _memory(module)
    builder = relax.BlockBuilder(module)
    with builder.function("_metadata", params=[]):
        builder.emit_func_output(relax.StringImm(json.dumps(metadata)))
    return ir.transform.Sequential(
        [
            steps.LowerAllocTensor(),
            steps.KillAfterLastUse(),
            steps.LowerRuntimeBuiltin(),
            steps.ComputePrimValue(),
            steps.VMShapeLower(),
            steps.AttachGlobalSymbol(),
        ]
    )(builder.finalize())


def _memory(module: Any) -> dict[str, int]:
    """Bytes that each function allocates for its results in between."""
    from tvm import relax

    usage: dict[str, int] = {}
    for name, function in module.functions_items():
        if not isinstance(function, relax.Function):
            continue
        total = 0

        def visit(node: Any) -> None:
            nonlocal total
            if isinstance(node, relax.Call) and getattr(node.op, "name", "") == "relax.memory.alloc_storage":
                total += int(node.args[0].values[0])

        relax.analysis.post_order_visit(function.body, visit)
        usage[name.name_hint] = total
    return usage


def _metadata(config: ModelConfig, precision: Precision, target: str) -> dict[str, Any]:
    import tvm

    return {
        "model_type": config.model_type,
        "quantization": FORMATS[precision],
        "context_window_size": config.context_window_size,
        "sliding_window_size": -1,
        "attention_sink_size": -1,
        "prefill_chunk_size": config.prefill_chunk_size,
        "max_batch_size": config.max_batch_size,
        "tensor_parallel_shards": 1,
        "kv_state_kind": "kv_cache",
        "kv_cache": {
            "num_hidden_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "num_key_value_heads": config.num_key_value_heads,
            "head_dim": config.head_dim,
        },
        "params": [
            {"name": each.name, "shape": list(each.shape), "dtype": each.dtype}
            for group in groups(config, precision)
            for each in group.outputs
        ],
        "tvm": tvm.__version__,
        "target": target,
        "features": list(cpu_features(target)),
    }


def _linker() -> str:
    """The C compiler that links."""
    from tvm.support import cc

    found = cc.get_cc()
    if found is None or shutil.which(found) is None:
        raise BackendUnavailable(
            "compiling a model needs a C compiler as the linker",
            reason="there is no C compiler",
            hint="apt install gcc",
        )
    return str(found)
