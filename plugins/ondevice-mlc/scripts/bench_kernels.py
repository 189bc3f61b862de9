"""Measure the compiled functions on this machine, for the shape of SmolLM2-135M with random weights.

Compares each product of a layer with what TVM makes of the same computation by its own rules for processors, as a
library of upstream MLC has it, and measures whole passes. The best of several runs counts: other work on the machine
only ever slows a run down. Run it with `TVM_NUM_THREADS` set to the number of threads.

    TVM_NUM_THREADS=2 TVM_BIND_THREADS=0 python scripts/bench_kernels.py --precision int4
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ondevice_mlc import compiler
from ondevice_mlc.architecture.config import GROUP, ModelConfig
from ondevice_mlc.kernels.activations import Record
from ondevice_mlc.kernels.activations import quantise as quantise_rows
from ondevice_mlc.kernels.products import Product
from ondevice_mlc.kernels.simd import Simd
from ondevice_mlc.quantisation import BITS, TABLE, Precision, groups, per_word, quantise, zero_point
from ondevice_mlc.target import level

SHAPE = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
}
PRODUCTS = {"qkv": (960, 576), "out": (576, 576), "gate, up": (3072, 576), "down": (576, 1536), "logits": (49152, 576)}


def best(run: Callable[[], object], seconds: float) -> float:
    """Shortest time of a run, in seconds."""
    run()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while not times or time.perf_counter() < until:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def plain_product(rows: int, outputs: int, inputs: int, precision: Precision, target: Any) -> Any:
    """The product as a formula, scheduled by TVM's own rules where they apply."""
    import tvm
    from tvm import te
    from tvm.s_tir import Schedule, dlight

    count, bits, zero = per_word(precision), BITS[precision], zero_point(precision)
    values = te.placeholder((rows, inputs), "float32", name="values")
    weight = te.placeholder((outputs, inputs // count), "uint32", name="weight")
    scale = te.placeholder((outputs, inputs // GROUP), "float32", name="scale")

    def number(row: Any, column: Any) -> Any:
        shift = (column % count * bits).astype("uint32")
        stored = (weight[row, column // count] >> shift) & tvm.tirx.const((1 << bits) - 1, "uint32")
        return (stored.astype("float32") - float(zero)) * scale[row, column // GROUP]

    matrix = te.compute((outputs, inputs), number, name="matrix")
    column = te.reduce_axis((0, inputs), name="column")
    result = te.compute((rows, outputs), lambda i, j: te.sum(values[i, column] * matrix[j, column], axis=column))
    schedule = Schedule(te.create_prim_func([values, weight, scale, result]).with_attr("global_symbol", "main"))
    schedule.compute_inline(schedule.get_sblock("matrix"))
    with target:
        module = dlight.ApplyDefaultSchedule(dlight.cpu.GEMV())(schedule.mod)
    return tvm.tirx.build(module, target=target)["main"]


def measure_products(precision: Precision, counts: Sequence[int]) -> None:
    """Print a table of the products, TVM's and ours."""
    import json

    import tvm

    name = compiler.target_string(None)
    target = tvm.target.Target(json.loads(name))
    draw = np.random.default_rng(0)
    print(f"{'product':>10} {'rows':>5} {'TVM, us':>10} {'ours, us':>10} {'times':>6}")
    for label, (outputs, inputs) in PRODUCTS.items():
        precision = TABLE if label == "logits" else precision
        parts = quantise(draw.normal(size=(outputs, inputs)).astype(np.float32), precision)
        weight, scale = tvm.runtime.tensor(parts["q_weight"]), tvm.runtime.tensor(parts["q_scale"])
        simd = Simd(level(name))
        module = tvm.IRModule(
            {
                "product": Product(outputs, inputs, precision, simd).function().with_attr("global_symbol", "product"),
                "round": quantise_rows(inputs, precision, simd).with_attr("global_symbol", "round"),
            }
        )
        with target, tvm.transform.PassContext(opt_level=3, config=compiler.PASSES):
            library = tvm.tirx.build(module, target=target)
        ours, rounded = library["product"], library["round"]
        for rows in counts:
            if label == "logits" and rows > 8:
                continue
            values = tvm.runtime.tensor(draw.normal(size=(rows, inputs)).astype(np.float32))
            records = tvm.runtime.empty((rows, Record(inputs, precision).words), "int32")
            rounded(values, records)
            result = tvm.runtime.empty((rows, outputs), "float32")
            plain = plain_product(rows, outputs, inputs, precision, target)
            theirs_s = best(lambda: plain(values, weight, scale, result), 0.5)  # noqa: B023 - called at once
            ours_s = best(lambda: ours(records, weight, scale, result), 0.5)  # noqa: B023 - called at once
            print(f"{label:>10} {rows:>5} {theirs_s * 1e6:>10.0f} {ours_s * 1e6:>10.0f} {theirs_s / ours_s:>6.1f}")


def measure_model(precision: Precision) -> None:
    """Print speeds of a whole model."""
    import tvm
    from tvm import relax

    config = ModelConfig.from_json("llama", SHAPE)
    shape = tvm.runtime.ShapeTuple
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.so"
        start = time.perf_counter()
        compiler.compile(config, precision, None, path, lambda *_: None)
        print(f"compiled in {time.perf_counter() - start:.1f} s, {path.stat().st_size / 1e6:.1f} MB")
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
    draw = np.random.default_rng(0)
    values = []
    for spec in [spec for group in groups(config, precision) for spec in group.outputs]:
        array: Any = np.full(spec.shape, 0.01 if len(spec.shape) == 2 else 1.0, dtype=np.float32)
        if spec.dtype == "uint32":
            array = draw.integers(0, 2**32, spec.shape, dtype=np.uint32)
        values.append(tvm.runtime.tensor(array))
    parameters = tvm.runtime.convert(values)
    cache = machine["create_tir_paged_kv_cache"](*[shape([each]) for each in (16, 16384, 512, 16, 0)])

    def state(name: str, *arguments: Any) -> None:
        tvm.get_global_func(f"vm.builtin.kv_state_{name}")(cache, *arguments)

    def forward(name: str, sequences: int, count: int) -> None:
        tokens = tvm.runtime.tensor(draw.integers(0, config.vocab_size, sequences * count, dtype=np.int32))
        embeds = machine["embed"](tokens, parameters)
        wanted = (sequences, 1, config.hidden_size) if name.endswith("decode") else (1, count, config.hidden_size)
        embeds = tvm.runtime.tensor(embeds.numpy().reshape(wanted))
        state("begin_forward", shape(list(range(sequences))), shape([count] * sequences))
        machine[name](embeds, cache, parameters)[0].numpy()
        state("end_forward")

    def prefill(count: int) -> None:
        forward("prefill", 1, count)
        state("popn", 0, count)

    def decode(sequences: int) -> None:
        forward("batch_decode", sequences, 1)
        for each in range(sequences):
            state("popn", each, 1)

    state("add_sequence", 0)
    for count in (16, 64, 128, 512):
        print(f"prefill of {count}: {count / best(lambda: prefill(count), 3):.0f} tokens/s")  # noqa: B023
    for context in (16, 512):
        forward("prefill", 1, context)
        print(f"decode after {context}: {1 / best(lambda: decode(1), 2):.1f} tokens/s")
        state("popn", 0, context)
    forward("prefill", 1, 512)
    print(f"prefill of 512 after 512: {512 / best(lambda: prefill(512), 3):.0f} tokens/s")
    state("popn", 0, 512)
    for sequences in (2, 4, 8, 16):
        for each in range(sequences // 2, sequences):
            state("add_sequence", each)
        print(f"decode of {sequences} sequences: {sequences / best(lambda: decode(sequences), 2):.0f} tokens/s")  # noqa: B023


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=("int4", "int8"), default="int4")
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 128])
    arguments = parser.parse_args()
    if arguments.rows:
        measure_products(arguments.precision, arguments.rows)
    measure_model(arguments.precision)


if __name__ == "__main__":
    main()
