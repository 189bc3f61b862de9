"""The parts that need no model: quick."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from ondevice_openvino import OpenVinoBackend, devices, exact, notation, quiet
from ondevice_openvino.form import Forms
from ondevice_openvino.jobs import Run, foresee
from ondevice_openvino.ledger import BLOCK, Ledger
from ondevice_openvino.source import Source, open_source
from ondevice_sdk.backends.api import DeviceProfile, Grammar, LoadOptions, LocalModel, ModelShape
from ondevice_sdk.engine.gguf import read_file
from ondevice_sdk.errors import ConfigurationError, LoadFailed, ModelCorrupt, ModelUnsupported, OutputInvalid
from ondevice_sdk.errors import SchemaUnsupported as Refused

DEVICE = DeviceProfile("linux", "x86_64", "any", (), 1, 1, 1 << 34, 1 << 33)
SHAPE = ModelShape(135_000_000, 30, 576, 9, 3, 64, 1536, 49152, 8192)

# --- telemetry --------------------------------------------------------------------------------------------------------


def test_telemetry_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, quiet.TELEMETRY, raising=False)
    quiet.hush()
    with pytest.raises(ImportError):
        __import__(quiet.TELEMETRY)


def test_what_the_app_has_imported_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking a module from an app that uses it would break the app, and undo nothing."""
    module = ModuleType(quiet.TELEMETRY)
    monkeypatch.setitem(sys.modules, quiet.TELEMETRY, module)
    quiet.hush()
    assert sys.modules[quiet.TELEMETRY] is module


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["CPU", "AUTO", "AUTO:GPU,CPU"])
def test_devices_that_nothing_speaks_against(name: str) -> None:
    assert devices.obstacle(name) == ""


@pytest.mark.parametrize("name", ["NPU", "NPU.1", "AUTO:NPU,CPU"])
def test_no_npu(name: str) -> None:
    """The pipeline that this backend is built on does not run there."""
    assert "no NPU" in devices.obstacle(name)


@pytest.mark.parametrize("name", ["TPU", "GPU.", "CPU;rm", "AUTO:", "../CPU"])
def test_names_that_are_no_devices(name: str) -> None:
    assert devices.VARIABLE in devices.obstacle(name)


def test_the_environment_names_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.VARIABLE, " nonsense ")
    probe = OpenVinoBackend().probe(DEVICE)
    assert not probe.usable
    assert devices.VARIABLE in probe.hint
    monkeypatch.delenv(devices.VARIABLE)
    assert OpenVinoBackend().probe(DEVICE).usable


@pytest.mark.parametrize("kind", ["GPU", "GPU.1"])
def test_a_device_without_a_driver(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {name: (str(tmp_path / name), pattern) for name, (_, pattern) in devices._NODES.items()}
    monkeypatch.setattr(devices, "_NODES", nodes)
    monkeypatch.setattr(sys, "platform", "linux")
    assert "there is no" in devices.obstacle(kind)
    name = kind.partition(".")[0]
    (tmp_path / name).mkdir()
    (tmp_path / name / nodes[name][1].replace("*", "128")).touch()
    assert devices.obstacle(kind) == ""


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino_genai", None)
    probe = OpenVinoBackend().probe(DEVICE)
    assert (probe.usable, probe.reason) == (False, "not installed: openvino_genai")
    assert "pip install" in probe.hint


def test_a_longer_context_of_fewer_bits_is_smaller() -> None:
    options = LoadOptions(context_tokens=8192)
    backend = OpenVinoBackend()
    exact_ = backend.estimate(SHAPE, 10**8, options)
    assert backend.estimate(SHAPE, 10**8, replace(options, kv_type="q8_0")).kv_cache < exact_.kv_cache


def test_sizes_without_a_meaning(tmp_path: Path) -> None:
    model = LocalModel("m", "int4", "gguf", str(tmp_path / "none"), "")
    with pytest.raises(ConfigurationError):
        OpenVinoBackend().load(model, LoadOptions(max_sequences=0))


# --- the ledger of the prefix cache -----------------------------------------------------------------------------------


def test_whole_blocks_are_found_again() -> None:
    ledger, tokens = Ledger(100), list(range(3 * BLOCK + 5))
    assert ledger.cached(tokens) == 0
    ledger.add(tokens)
    assert ledger.cached(tokens) == 3 * BLOCK
    assert ledger.cached(tokens[: 2 * BLOCK]) == 2 * BLOCK - 1  # the last token is always computed
    assert ledger.cached([*tokens[: BLOCK + 3], -1, *tokens[BLOCK + 4 :]]) == BLOCK
    assert ledger.cached([-1, *tokens[1:]]) == 0
    ledger.clear()
    assert ledger.cached(tokens) == 0


def test_the_oldest_blocks_go() -> None:
    ledger = Ledger(4)
    texts = [[number] * (2 * BLOCK + 1) for number in range(3)]
    for tokens in texts[:2]:
        ledger.add(tokens)
    ledger.add(texts[0])
    ledger.add(texts[2])
    assert [ledger.cached(tokens) for tokens in texts] == [2 * BLOCK, 0, 2 * BLOCK]


def test_prompts_that_would_share_a_begun_block() -> None:
    """They go on from where one text ended, or from where another prompt has just been read to."""
    ledger, text = Ledger(100), list(range(2 * BLOCK + 10))
    ledger.add(text)
    one, other = [*text, -1, -2], [*text, -3]
    assert ledger.forks(one, other, 0)
    assert ledger.forks(one, one, 0)
    assert not ledger.forks(one[: BLOCK + 5], [*text[: BLOCK + 5], -3], 0)  # no text ended there
    assert not ledger.forks([*text[: 2 * BLOCK], -1], [*text[: 2 * BLOCK], -2], 0)  # whole blocks are never written to
    assert not ledger.forks([-1, *one], [-2, *other], 0)
    ledger.clear()
    assert not ledger.forks(one, other, 0)
    assert ledger.forks(one, other, 2 * BLOCK + 3)
    assert not ledger.forks(one, other, 2 * BLOCK)


def test_begun_blocks_are_known() -> None:
    """Where a text ended a prompt may begin in the midst of a block."""
    ledger, text = Ledger(100), list(range(2 * BLOCK + 10))
    assert not ledger.begun(text, 2 * BLOCK)
    ledger.add(text)
    assert ledger.begun(text, 2 * BLOCK)
    assert ledger.begun([*text, -1], 2 * BLOCK)
    assert not ledger.begun([*text[:-1], -1], 2 * BLOCK)
    assert not ledger.begun(text, BLOCK)


def test_how_much_of_each_prompt_is_read() -> None:
    """What comes after a prompt that ends is not exact: that may have needed less."""

    def run(number: int, length: int, *, reading: bool = True) -> Run:
        return Run([0] * length, length, None, number=number, reading=reading, exact=True)

    first, second, third = run(2, 100), run(3, 50), run(4, 500)
    runs = [third, first, second, run(1, 9, reading=False)]
    foresee(runs, 65)
    assert [(each.read, each.exact) for each in (first, second, third)] == [(64, True), (0, True), (0, True)]
    foresee(runs, 65)
    assert [(each.read, each.exact) for each in (first, second, third)] == [(100, True), (28, False), (0, False)]


# --- weights ----------------------------------------------------------------------------------------------------------


def file_of(
    kind: int, data: bytes, values: int, path: Path, *, note: bytes = b"the tensor b.weight", first: str = "a.weight"
) -> Path:
    """A GGUF file with a tensor of a kind between two of 32 bits."""

    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text)) + text.encode()

    def described(name: str, columns: int, kind: int, offset: int) -> bytes:
        return string(name) + struct.pack("<I2QIQ", 2, columns, 1, kind, offset)

    plain = np.arange(8, dtype=np.float32).tobytes()
    middle = 32 + len(data) + -len(data) % 32
    head = b"GGUF" + struct.pack("<IQQ", 3, 3, 2)
    head += string("general.architecture") + struct.pack("<I", 8) + string("llama")
    head += string("note") + struct.pack("<I", 8) + struct.pack("<Q", len(note)) + note
    head += described(first, 8, 0, 0) + described("b.weight", values, kind, 32) + described("c", 8, 0, middle)
    path.write_bytes(head + bytes(-len(head) % 32) + plain + data + bytes(-len(data) % 32) + plain)
    return path


@pytest.mark.parametrize(("kind", "bytes_"), [(3, 20), (12, 144)], ids=["Q4_1", "Q4_K"])
def test_weights_with_offsets_come_through(kind: int, bytes_: int, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (40, bytes_), np.uint8)
    units = random.uniform(-2, 2, (40, 2)).astype(np.float16)
    blocks[:, :4] = units.view(np.uint8)
    blocks[0, :4] = 0  # nothing but zeros
    values = 40 * (32 if kind == 3 else 256)
    source = file_of(kind, blocks.tobytes(), values, tmp_path / "old.gguf")
    assert exact.is_changed(kind)
    exact.rewrite(source, tmp_path / "new.gguf")
    old = {each.name: each for each in gguf.GGUFReader(source).tensors}
    new = {each.name: each for each in gguf.GGUFReader(tmp_path / "new.gguf").tensors}
    assert int(new["b.weight"].tensor_type) == 8
    for name in ("a.weight", "c"):
        assert new[name].data.tobytes() == old[name].data.tobytes()
    right = gguf.dequantize(old["b.weight"].data, old["b.weight"].tensor_type).reshape(-1, 32)
    got = gguf.dequantize(new["b.weight"].data, new["b.weight"].tensor_type).reshape(-1, 32)
    steps = np.abs(right).max(axis=1, keepdims=True) / 127
    assert np.all(np.abs(got - right) <= 0.6 * steps + 1e-6)


@pytest.mark.parametrize("before", ["", "general.alignment", "b.weight"])
def test_metadata_is_read_where_it_lies(before: str, tmp_path: Path) -> None:
    """A text that looks like it, or like a tensor, changes nothing; nor does the place of the data."""
    key = before.encode()
    decoy = struct.pack("<Q", len(key)) + key + struct.pack("<IIQ", 4, 3 << 30, 7) if key else b""
    blocks = np.random.default_rng(0).integers(0, 255, (4, 20), np.uint8)
    blocks[:, :4] = np.ones((4, 2), np.float16).view(np.uint8)
    source = file_of(3, blocks.tobytes(), 128, tmp_path / "old.gguf", note=decoy)
    exact.rewrite(source, tmp_path / "new.gguf")
    old, new = read_file(source), read_file(tmp_path / "new.gguf")
    assert new.pairs == old.pairs
    assert [each.name for each in new.tensors] == [each.name for each in old.tensors]
    assert [each.kind for each in new.tensors] == [0, 8, 0]
    assert (tmp_path / "new.gguf").stat().st_size < source.stat().st_size + 200


def test_a_file_that_is_cut_while_it_is_copied(tmp_path: Path) -> None:
    path = file_of(3, bytes(20), 32, tmp_path / "m.gguf")
    whole = path.read_bytes()
    source = Source(path, 64, 8, False, "llama", read_file(path).tensors)
    path.write_bytes(whole[:-40])
    with pytest.raises(ModelCorrupt), source.to_load():
        pass


def test_the_begin_token_is_what_the_header_says(tmp_path: Path) -> None:
    """Not what a text before it seems to say."""
    decoy = struct.pack("<Q", 28) + b"tokenizer.ggml.add_bos_token" + struct.pack("<IB", 7, 1)
    path = file_of(2, bytes(18), 32, tmp_path / "m.gguf", note=decoy, first="output.weight")
    assert open_source(LocalModel("m", "int4", "gguf", str(path), "")).begin is False


# --- models that are refused ------------------------------------------------------------------------------------------


def test_gguf_files_that_openvino_does_not_run(tmp_path: Path) -> None:
    source = file_of(2, bytes(18), 32, tmp_path / "m.gguf")
    model = LocalModel("m", "int4", "gguf", str(source), "")
    with pytest.raises(ModelCorrupt, match="embeddings"):
        open_source(model)
    other = tmp_path / "other.gguf"
    other.write_bytes(source.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba"))
    with pytest.raises(ModelUnsupported) as caught:
        open_source(replace(model, path=str(other)))
    assert caught.value.architecture == "mamba"
    strange = file_of(10, bytes(84), 256, tmp_path / "strange.gguf")  # Q2_K
    with pytest.raises(ModelUnsupported, match="format"):
        open_source(replace(model, path=str(strange)))


GRAPH = (
    '<?xml version="1.0"?><net name="m"><layers><layer id="0" type="Const"><data offset="0" size="{size}"/></layer>'
    '<layer id="1" type="MatMul"><output><port id="2" names="{names}"><dim>-1</dim><dim>-1</dim><dim>{rows}</dim>'
    "</port></output></layer></layers></net>"
)


@pytest.fixture
def folder(tmp_path: Path) -> LocalModel:
    """What looks like a model in OpenVINO's format."""
    files = {"config.json": json.dumps({"max_position_embeddings": 77, "architectures": ["LlamaForCausalLM"]}).encode()}
    for name, port in (("model", "logits"), ("tokenizer", "ids"), ("detokenizer", "text")):
        files[f"openvino_{name}.xml"] = GRAPH.format(size=16, names=port, rows=99).encode()
        files[f"openvino_{name}.bin"] = bytes(16)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    order = sorted(files, key=lambda name: name != "openvino_model.xml")
    paths = tuple(str(tmp_path / name) for name in order)
    return LocalModel("m", "int4-openvino", "openvino", paths[0], "", paths)


def test_a_folder_is_described(folder: LocalModel) -> None:
    source = open_source(folder)
    assert (source.context_tokens, source.rows, source.begin) == (77, 99, None)
    assert source.architecture == "LlamaForCausalLM"
    with source.to_load() as path:
        assert path == str(Path(folder.path).parent)


@pytest.mark.parametrize(
    ("victim", "damage"),
    [
        ("openvino_model.xml", lambda data: data[: len(data) // 2]),
        ("openvino_model.xml", lambda data: b"<html></html>"),
        ("openvino_model.xml", lambda data: data.replace(b'size="16"', b'size="17"')),
        ("openvino_model.xml", lambda data: data.replace(b'size="16"', b'size="x"')),
        ("openvino_model.bin", lambda data: data[:8]),
        ("openvino_tokenizer.bin", lambda data: b""),
        ("openvino_detokenizer.xml", lambda data: b"\xff\xfe"),
        ("config.json", lambda data: data[:9]),
        ("config.json", lambda data: b"[]"),
    ],
)
def test_a_damaged_folder(folder: LocalModel, victim: str, damage: Callable[[bytes], bytes]) -> None:
    path = Path(folder.path).parent / victim
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelCorrupt):
        open_source(folder)


def test_a_folder_without_all_files(folder: LocalModel) -> None:
    rest = tuple(each for each in folder.files if "detokenizer" not in each)
    with pytest.raises(LoadFailed, match="detokenizer"):
        open_source(replace(folder, files=rest))


def test_a_model_without_logits(folder: LocalModel) -> None:
    Path(folder.path).write_text(GRAPH.format(size=16, names="hidden", rows=99))
    with pytest.raises(ModelUnsupported):
        open_source(folder)


# --- constrained output -----------------------------------------------------------------------------------------------

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["name", "n"],
        "additionalProperties": False,
    }
)


@pytest.fixture(scope="module")
def forms() -> Forms:
    """Of a tokeniser whose tokens are bytes."""
    return Forms(lambda texts: [list(text.encode()) for text in texts])


@pytest.mark.parametrize(
    ("schema", "keyword", "path"),
    [
        ({"type": "integer", "multipleOf": 3}, "multipleOf", ""),
        (
            {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}},
            "uniqueItems",
            "/properties/a",
        ),
        ({"anyOf": [{"type": "string"}, {"type": "integer", "not": {"const": 3}}]}, "not", "/anyOf/1"),
    ],
)
def test_what_xgrammar_ignores_is_refused(forms: Forms, schema: object, keyword: str, path: str) -> None:
    with pytest.raises(Refused) as caught:
        forms.make(Grammar("json_schema", json.dumps(schema)), 100)
    assert (caught.value.keyword, caught.value.path) == (keyword, path)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"not": {"type": "string"}, "if": {"type": "boolean"}}},
        {"enum": [{"multipleOf": 3}]},
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": False},
    ],
)
def test_names_and_values_are_no_keywords(forms: Forms, schema: object) -> None:
    forms.make(Grammar("json_schema", json.dumps(schema)), 100)


def test_white_space_between_the_parts_is_no_matter(forms: Forms) -> None:
    form = forms.make(Grammar("json_schema", SCHEMA), 200)
    text = '{\n "name" : "a  b\\" {c}",\t"n":  12 }'
    assert [form.follow(sign.encode(), 190) for sign in text] == [None] * len(text)
    assert form.finished
    assert form.holds(text)


def test_another_way_to_write_the_same_value_holds(forms: Forms) -> None:
    form = forms.make(Grammar("json_schema", SCHEMA), 200)
    text = '{"name":"\\u0061","n":12}'
    for sign in text:
        form.follow(sign.encode(), 190)
    assert not form.finished  # it is not followed any more
    assert form.holds(text)
    assert not form.holds(text.replace("12", "true"))
    assert not form.holds(text[:-1])


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "a+"},
        {"type": "integer", "minimum": 3},
        {"type": "object"},
        {"type": "array"},
        {"$ref": "other.json"},
        {"$ref": "#/$defs/none"},
        True,
        {"type": "object", "properties": {}, "required": ["a"]},
    ],
)
def test_schemas_that_are_left_to_xgrammar(schema: object) -> None:
    assert notation.compact(json.dumps(schema)) is None


def test_fields_may_be_left_out_in_any_way() -> None:
    fields = {name: {"const": number} for number, name in enumerate("abc")}
    grammar = notation.compact(json.dumps({"type": "object", "properties": fields, "required": ["b"]}))
    assert grammar is not None
    rules = dict(line.split(" ::= ") for line in grammar.splitlines())

    def texts(rule: str) -> set[str]:
        """All that a rule without repetitions may write."""
        found = set()
        for way in rule.split(" | "):
            made = {""}
            for part in way.split():
                tails = {json.loads(part)} if part[0] == '"' else texts(rules[part].strip("()"))
                made = {head + tail for head in made for tail in tails}
            found |= made
        return found

    written = texts(rules["root"].strip("()"))
    assert written == {'{"b":1}', '{"a":0,"b":1}', '{"b":1,"c":2}', '{"a":0,"b":1,"c":2}'}


@pytest.mark.parametrize("limit", [20, 21, 24, 30, 60])
def test_what_would_be_cut_is_completed(forms: Forms, limit: int) -> None:
    """A writer who never comes to an end, one byte at a time."""
    form = forms.make(Grammar("json_schema", SCHEMA), limit)
    written = b""
    for count, byte in enumerate(b'{"name":"' + b"x" * 100, 1):
        closing = form.follow(bytes((byte,)), limit - count)
        if closing is not None:
            written += closing
            break
        written += bytes((byte,))
    value = json.loads(written)
    assert set(value) == {"name", "n"}
    assert len(written) <= limit


def test_too_few_tokens_for_any_value(forms: Forms) -> None:
    with pytest.raises(OutputInvalid):
        forms.make(Grammar("json_schema", SCHEMA), 10)
