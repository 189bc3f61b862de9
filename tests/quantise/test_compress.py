"""llama.cpp's quantisation of a small random model, and importance matrices: made, read, and of use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from gguf.quants import dequantize
from numpy.typing import NDArray

from ondevice_sdk.backends.llama_cpp import compress, importance, matrix, synthetic
from ondevice_sdk.backends.llama_cpp.matrix import Driven
from ondevice_sdk.catalogue import gguf, layout
from ondevice_sdk.errors import ConfigurationError, LoadFailed, ModelCorrupt
from ondevice_sdk.types import ModelShape

from .support import SHAPE

WINDOW = 64
TEXT = "one two three " * 40
DEEP = ModelShape(400_000, 8, 64, 2, 1, 32, 96, 600, 2048)  # in the eighth layer llama.cpp's own choice would differ


def quantised(source: Path, target: Path, name: str, weighed: Path | None = None) -> Path:
    told = list(
        compress.write(
            source=str(source),
            target=str(target),
            quantisation=name,
            importance=None if weighed is None else str(weighed),
            threads=1,
        )
    )
    assert told == sorted(told)
    assert told[-1] == 1
    return target


def collected(source: Path, target: Path, *, tokens: int = 2 * WINDOW, text: str = TEXT) -> Path:
    told = list(
        importance.write(source=str(source), target=str(target), text=text, tokens=tokens, window=WINDOW, threads=1)
    )
    assert told == sorted(told)
    assert told[-1] == 1
    return target


def formats(path: Path) -> dict[str, str]:
    return {tensor.name: layout.NUMBERS[tensor.kind] for tensor in gguf.read_tensors(path)}


def weights(path: Path, name: str) -> NDArray[np.float32]:
    (found,) = (dequantize(each.data, each.tensor_type) for each in GGUFReader(path).tensors if each.name == name)
    return np.asarray(found, np.float32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("F32", {"F32"}), ("BF16", {"BF16", "F32"}), ("Q4_0", {"Q4_0", "Q8_0", "F32"}), ("Q8_0", {"Q8_0", "F32"})],
)
def test_a_quantisation_gives_its_formats_and_keeps_the_rest(tmp_path: Path, name: str, expected: set[str]) -> None:
    source = tmp_path / "source.gguf"
    synthetic.write(source, SHAPE, "Q4_1")
    made = quantised(source, tmp_path / "made.gguf", name)
    assert set(formats(made).values()) == expected
    was, now = (weights(path, "blk.0.ffn_down.weight") for path in (source, made))
    loss = float(np.sqrt(np.square(was - now).mean() / np.square(was).mean()))
    assert loss <= {"F32": 0, "BF16": 0.003, "Q4_0": 0.15, "Q8_0": 0.01}[name]
    (before, after) = ({key: each.contents() for key, each in GGUFReader(p).fields.items()} for p in (source, made))
    changing = {"general.file_type", "general.quantization_version", "GGUF.kv_count", "GGUF.tensor_count"}
    assert {k: v for k, v in before.items() if k not in changing} == {
        k: v for k, v in after.items() if k not in changing
    }


@pytest.mark.parametrize("name", ["Q4_0", "Q5_0", "IQ4_NL"])
def test_an_importance_matrix_changes_no_format_and_no_size(tmp_path: Path, name: str) -> None:
    source = tmp_path / "source.gguf"
    synthetic.write(source, DEEP, "BF16")
    plain = quantised(source, tmp_path / "plain.gguf", name)
    weighed = quantised(source, tmp_path / "weighed.gguf", name, collected(source, tmp_path / "importance.gguf"))
    kinds = [{each.name: each.kind for each in gguf.read_tensors(path)} for path in (plain, weighed)]
    assert kinds[0] == kinds[1]
    assert plain.stat().st_size == weighed.stat().st_size
    assert plain.read_bytes() != weighed.read_bytes()


def test_what_is_driven_strongly_is_rounded_less(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    synthetic.write(source, SHAPE, "BF16")
    name = "blk.1.ffn_up.weight"
    strong = np.arange(SHAPE.width) % 32 < 4
    given = {name: Driven(np.where(strong, 100.0, 1.0), 1)}
    path = tmp_path / "importance.gguf"
    matrix.write(str(path), given, text="made up", windows=1, window=1)
    exact = weights(source, name)
    plain, weighed = (
        np.square(weights(quantised(source, tmp_path / f"{each}.gguf", "Q4_0", each), name) - exact)
        for each in (None, path)
    )
    assert weighed[:, strong].mean() < 0.8 * plain[:, strong].mean()
    assert weighed.mean() > plain.mean()  # which is what it costs
    other = "blk.1.ffn_gate.weight"
    assert (weights(tmp_path / "None.gguf", other) == weights(tmp_path / f"{path}.gguf", other)).all()


def test_the_squares_are_those_of_the_inputs(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    synthetic.write(source, SHAPE, "F32")
    found = matrix.read(str(collected(source, tmp_path / "importance.gguf")))
    layers = {f"blk.{layer}.{name}.weight" for layer in range(SHAPE.layers) for name in NAMES}
    assert set(found) == layers
    assert all(values.size == (SHAPE.feed_forward if "down" in name else SHAPE.width) for name, values in found.items())
    assert all(values.mean() > 0 for values in found.values())
    # The first layer is given the embeddings, normalised; which tokens were read is found by reading them again.
    tokens = tokens_of(source)
    rows = weights(source, "token_embd.weight").astype(np.float64)[tokens]
    rows /= np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + 1e-5)
    expected = np.square(rows).mean(axis=0)
    for name in ("attn_q", "attn_k", "attn_v"):
        assert found[f"blk.0.{name}.weight"] == pytest.approx(expected, rel=1e-3)


NAMES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def tokens_of(source: Path) -> list[int]:
    from ondevice_sdk.backends.api import LoadOptions, LocalModel, Segment
    from ondevice_sdk.backends.llama_cpp.runner import LlamaCppRunner

    model = LocalModel("small", "other", "gguf", str(source), "")
    runner = LlamaCppRunner(model, gguf.read_header(source), LoadOptions(context_tokens=64, max_sequences=1))
    try:
        tokens = runner.tokenize([Segment(f"{TEXT.strip()}\n\n")])[: 2 * WINDOW]
        assert runner.begin_token is not None
        tokens[0] = tokens[WINDOW] = runner.begin_token
    finally:
        runner.close()
    return tokens


def test_the_file_is_as_that_of_llama_cpp(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    synthetic.write(source, SHAPE, "Q8_0")
    reader = GGUFReader(collected(source, tmp_path / "importance.gguf"))
    fields = {key: field.contents() for key, field in reader.fields.items() if key[0] != "G"}
    shared = fields.pop("imatrix.shared")  # ours
    assert set(fields) == {"general.type", "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"}
    assert {tuple(each.split()) for each in shared if each.startswith("blk.1.")} == {
        ("blk.1.attn_k.weight", "blk.1.attn_q.weight"),
        ("blk.1.attn_v.weight", "blk.1.attn_q.weight"),
        ("blk.1.ffn_up.weight", "blk.1.ffn_gate.weight"),
    }
    assert fields["general.type"] == "imatrix"
    assert (fields["imatrix.chunk_count"], fields["imatrix.chunk_size"]) == (2, WINDOW)
    sizes = {each.name: tuple(map(int, each.shape)) for each in reader.tensors}
    assert sizes["blk.0.ffn_down.weight.in_sum2"] == (SHAPE.feed_forward,)
    (counts,) = (each.data for each in reader.tensors if each.name == "blk.1.ffn_down.weight.counts")
    assert counts.tolist() == [2 * WINDOW]  # the last layer has seen every token, too


def test_a_matrix_with_experts_is_read(tmp_path: Path) -> None:
    path = tmp_path / "experts.gguf"
    writer = GGUFWriter(path, "imatrix")
    writer.add_tensor("blk.0.ffn_up_exps.weight.in_sum2", np.array([[2.0, 4.0], [9.0, 9.0]], np.float32))
    writer.add_tensor("blk.0.ffn_up_exps.weight.counts", np.array([[2.0], [0.0]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = matrix.read(str(path))
    assert found["blk.0.ffn_up_exps.weight"].tolist() == [1, 2, 1, 1]  # nothing is known of the second


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\3\0\0\0" + bytes(60), b"\xff" * 4096])
def test_what_is_no_matrix_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "importance.gguf"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="no importance matrix"):
        matrix.read(str(path))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_impossible_squares_are_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "importance.gguf"
    matrix.write(str(path), {"blk.0.x.weight": Driven(np.array([1.0, value]), 1)}, text="", windows=1, window=1)
    with pytest.raises(ConfigurationError, match="no importance matrix"):
        matrix.read(str(path))


def test_bad_requests_name_what_to_do(tmp_path: Path) -> None:
    source, target = tmp_path / "source.gguf", tmp_path / "target.gguf"
    synthetic.write(source, SHAPE, "BF16")
    with pytest.raises(ConfigurationError, match="Q4_7"):
        quantised(source, target, "Q4_7")
    with pytest.raises(ConfigurationError, match="importance matrix"):
        quantised(source, target, "IQ2_XS")
    path = tmp_path / "importance.gguf"
    matrix.write(str(path), {"blk.0.ffn_up.weight": Driven(np.ones(77), 1)}, text="", windows=1, window=1)
    with pytest.raises(ConfigurationError, match="another model"):
        quantised(source, target, "Q4_0", path)
    with pytest.raises(LoadFailed):
        quantised(source, tmp_path / "nowhere" / "target.gguf", "Q4_0")
    with pytest.raises(ConfigurationError, match="tokens"):
        collected(source, path, text="short")
    with pytest.raises(ConfigurationError, match="window"):
        list(importance.write(source=str(source), target=str(path), text=TEXT, tokens=9, window=9999, threads=1))
    source.write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(ModelCorrupt):
        quantised(source, target, "Q4_0")
    with pytest.raises(ModelCorrupt):
        collected(source, path)
