"""Models that are folders: told by their content, whole or refused, with native code only where its digest is given."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ondevice_sdk import Client, models
from ondevice_sdk.errors import BackendUnavailable, ConfigurationError, ModelCorrupt, ModelNotInstalled, StoreError
from ondevice_sdk.store import Store, folders

from .helpers import leftovers, sha, writable

ELF = b"\x7fELF\x02\x01\x01" + bytes(500)
SHARDS = {"params_shard_0.bin": b"\x80\x04" + bytes(100), "params_shard_1.bin": b"MZ\x90" + bytes(300)}


def mlc(folder: Path, quantization: str = "q4f32_1", cache: str = "tensor-cache.json") -> Path:
    """A folder as MLC writes it; its weights begin like programs, as weights may."""
    folder.mkdir(parents=True)
    config = {"model_type": "llama", "quantization": quantization, "tokenizer_files": ["tokenizer.json"]}
    (folder / "mlc-chat-config.json").write_text(json.dumps(config))
    records = [
        {"dataPath": name, "format": "raw-shard", "nbytes": len(data), "records": []} for name, data in SHARDS.items()
    ]
    (folder / cache).write_text(json.dumps({"metadata": {}, "records": records}))
    for name, data in SHARDS.items():
        (folder / name).write_bytes(data)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("not a part of it")
    (folder / ".gitattributes").write_text("nor this")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps([1]))  # nor this: nothing names it
    return folder


def compiled(folder: Path) -> Path:
    (mlc(folder) / "lib.so").write_bytes(ELF)
    return folder


GRAPH = """<?xml version="1.0"?>
<net name="Model0" version="11">
<layers>
<layer id="0" name="a" type="Const" version="opset1">
<data element_type="{kind}" shape="32, 64" offset="0" size="1024" />
</layer>
<layer id="1" name="b" type="Const" version="opset1">
<data element_type="f16" shape="" offset="1024" size="2" />
</layer>
</layers>
</net>
"""


def openvino(folder: Path, kind: str = "u4") -> Path:
    folder.mkdir(parents=True)
    for name in ("openvino_model", "openvino_tokenizer"):
        (folder / f"{name}.xml").write_text(GRAPH.format(kind=kind))
        (folder / f"{name}.bin").write_bytes(b"\x80\x02" + bytes(1024))
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def safetensors(folder: Path, name: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True)
    head = json.dumps({"__metadata__": {}, "w": {"dtype": "F16", "shape": [32], "data_offsets": [0, 64]}}).encode()
    (folder / name).write_bytes(len(head).to_bytes(8, "little") + head + bytes(64))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


MLC_FILES = ["mlc-chat-config.json", "tensor-cache.json", "params_shard_0.bin", "params_shard_1.bin"]
OPENVINO_FILES = [f"openvino_{name}.{end}" for name in ("model", "tokenizer") for end in ("xml", "bin")]
KINDS: dict[str, tuple[Callable[[Path], Path], str, list[str]]] = {
    "mlc": (mlc, "int4-mlc", [*MLC_FILES, "tokenizer.json"]),
    "openvino": (openvino, "int4-openvino", [*OPENVINO_FILES, "config.json", "tokenizer_config.json"]),
    "safetensors": (safetensors, "other-safetensors", ["config.json", "model.safetensors", "tokenizer.json"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_added_listed_verified_removed(store: Store, tmp_path: Path, kind: str) -> None:
    make, variant, names = KINDS[kind]
    folder = make(tmp_path / "My Model")
    added = models.add(folder, licence="Toy Terms", store=store)
    assert (added.name, added.variant, added.format, added.licence) == ("my-model", variant, kind, "Toy Terms")
    assert models.list(store=store) == (added,)
    found = store.resolve("my-model")
    assert [Path(file).name for file in found.files] == names
    assert len({Path(file).parent for file in found.files}) == 1  # together, under their own names
    assert found.path == found.files[0]
    for file in found.files:
        assert Path(file).read_bytes() == (folder / Path(file).name).read_bytes()
    assert [each.ok for each in models.verify(store=store)] == [True]
    assert models.add(folder, store=store).sha256 == added.sha256
    models.remove("my-model", store=store)
    assert leftovers(store.root) == []


@pytest.mark.parametrize("kind", KINDS)
def test_used_where_it_lies(store: Store, tmp_path: Path, kind: str) -> None:
    make, variant, names = KINDS[kind]
    folder = make(tmp_path / "model")
    found = store.from_path(folder)
    assert (found.name, found.variant, found.format) == ("model", variant, kind)
    assert [Path(file) for file in found.files] == [folder / name for name in names]
    joint = sha("\n".join(sha((folder / name).read_bytes()) for name in names).encode())
    assert found.sha256 == joint  # the first file may be a configuration that two models share
    added = models.add(folder, store=store)
    assert (added.sha256, store.resolve(added.name).sha256) == (joint, joint)
    with Client(str(folder), store=store, backends=["echo"]) as ai, pytest.raises(BackendUnavailable, match=kind):
        ai.prewarm()


@pytest.mark.parametrize(
    ("named", "precision"), [("q4f16_1", "int4"), ("q8f32_1", "int8"), ("q0f32", "other"), ("q3f16_1", "other")]
)
def test_the_precision_of_mlc(tmp_path: Path, named: str, precision: str) -> None:
    assert folders.find(mlc(tmp_path / "m", named)).precision == precision


@pytest.mark.parametrize(("kind", "precision"), [("u4", "int4"), ("i8", "int8"), ("bf16", "other")])
def test_the_precision_of_openvino(tmp_path: Path, kind: str, precision: str) -> None:
    assert folders.find(openvino(tmp_path / "m", kind)).precision == precision


def test_older_and_split_folders(tmp_path: Path) -> None:
    assert "ndarray-cache.json" in folders.find(mlc(tmp_path / "m", cache="ndarray-cache.json")).files
    folder = safetensors(tmp_path / "s", "model-00001-of-00001.safetensors")
    shutil.copy(folder / "model-00001-of-00001.safetensors", folder / "other.safetensors")
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "other.safetensors" not in folders.find(folder).files
    (folder / "model-00001-of-00001.safetensors").unlink()
    with pytest.raises(ModelCorrupt, match="has no"):
        folders.find(folder)


def edit_json(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "no shard": (mlc, lambda folder: (folder / "params_shard_1.bin").unlink()),
    "a cut shard": (mlc, lambda folder: cut(folder / "params_shard_1.bin")),
    "no list of shards": (mlc, lambda folder: (folder / "tensor-cache.json").unlink()),
    "an empty list": (mlc, lambda folder: edit_json(folder / "tensor-cache.json", lambda v: v.update(records=[]))),
    "a shard elsewhere": (
        mlc,
        lambda folder: edit_json(
            folder / "tensor-cache.json", lambda v: v.update(records=[{"dataPath": "../x", "nbytes": 1}])
        ),
    ),
    "a list of words": (mlc, lambda folder: edit_json(folder / "tensor-cache.json", lambda v: v.update(records=["x"]))),
    "no JSON": (mlc, lambda folder: (folder / "mlc-chat-config.json").write_text("{")),
    "no weights": (openvino, lambda folder: (folder / "openvino_model.bin").unlink()),
    "cut weights": (openvino, lambda folder: cut(folder / "openvino_model.bin")),
    "no graph": (openvino, lambda folder: (folder / "openvino_tokenizer.xml").write_text("<html></html>")),
    "cut safetensors": (safetensors, lambda folder: cut(folder / "model.safetensors")),
    "no safetensors": (safetensors, lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100)),
    "nothing": (safetensors, lambda folder: (folder / "config.json").unlink()),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_not_whole_is_refused(store: Store, tmp_path: Path, case: str) -> None:
    make, damage = DAMAGE[case]
    folder = make(tmp_path / "m")
    damage(folder)
    for attempt in (lambda: models.add(folder, store=store), lambda: store.from_path(folder)):
        with pytest.raises(ModelCorrupt):
            attempt()
    assert leftovers(store.root) == []


def test_no_folder(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ModelNotInstalled):
        models.add(tmp_path / "none", store=store)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelCorrupt, match="no model folder"):
        models.add(tmp_path / "empty", store=store)
    with pytest.raises(ConfigurationError, match="folder"):
        models.add(tmp_path / "none", pin={"x": "0" * 64}, store=store)


# --- native code ------------------------------------------------------------------------------------------------------


def test_code_is_installed_by_its_digest_only(store: Store, tmp_path: Path) -> None:
    folder = compiled(tmp_path / "m")
    with pytest.raises(ConfigurationError, match=r"lib\.so is native code") as caught:
        models.add(folder, store=store)
    assert sha(ELF) not in str(caught.value)  # whoever knows it has it from elsewhere
    with pytest.raises(ModelCorrupt, match="pinned"):
        models.add(folder, pin={"lib.so": sha(b"another")}, store=store)
    with pytest.raises(ConfigurationError, match="no such file"):
        models.add(folder, pin={"lib.so": sha(ELF), "lib.dll": sha(ELF)}, store=store)
    with pytest.raises(ConfigurationError, match="no SHA-256"):
        models.add(folder, pin={"lib.so": "yes"}, store=store)
    with pytest.raises(ModelCorrupt, match=r"lib\.so"):
        store.from_path(folder)
    assert leftovers(store.root) == []
    added = models.add(folder, pin={"lib.so": sha(ELF).upper()}, store=store)
    assert [(code.name, code.sha256, code.origin) for code in added.code] == [("lib.so", sha(ELF), "pinned")]
    assert "lib.so" in {Path(file).name for file in store.resolve("m").files}


def test_code_in_disguise(store: Store, tmp_path: Path) -> None:
    for number, name in enumerate(("tokenizer.json", "params_shard_0.bin")):
        folder = mlc(tmp_path / str(number))
        (folder / name).write_bytes(ELF)
        if name.endswith(".bin"):  # of the size that it should have
            records = [{"dataPath": name, "nbytes": len(ELF)}]
            (folder / "tensor-cache.json").write_text(json.dumps({"records": records}))
        with pytest.raises(ConfigurationError, match="native code"):
            models.add(folder, store=store)
        with pytest.raises(ModelCorrupt, match="native code"):
            store.from_path(folder)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [1, 5_000])
def test_pickle_in_disguise(store: Store, tmp_path: Path, protocol: int, size: int) -> None:
    folder = mlc(tmp_path / "m")
    data = pickle.dumps([[number] for number in range(size)], protocol)
    (folder / "vocab.json").write_bytes(data)
    with pytest.raises(ModelCorrupt, match="pickle"):
        models.add(folder, store=store)
    (folder / "vocab.json").unlink()
    (folder / "params_shard_0.bin").write_bytes(data)
    records = [{"dataPath": "params_shard_0.bin", "nbytes": len(data)}]
    (folder / "tensor-cache.json").write_text(json.dumps({"records": records}))
    with pytest.raises(ModelCorrupt, match="pickle"):
        models.add(folder, store=store)
    assert leftovers(store.root) == []


def test_verify_notices_a_forged_mark(store: Store, tmp_path: Path) -> None:
    models.add(compiled(tmp_path / "m"), pin={"lib.so": sha(ELF)}, store=store)
    path = store.space.manifest("m", "int4-mlc")
    value = json.loads(path.read_bytes())
    for file in value["files"]:
        if file["mark"]:
            file["mark"] = "0" * 64
    path.write_text(json.dumps(value))
    (result,) = store.verify("m")
    assert not result.ok
    assert "not built or pinned here" in result.reason


def test_one_changed_byte_of_a_folder(store: Store, tmp_path: Path) -> None:
    models.add(openvino(tmp_path / "m"), store=store)
    weights = writable(store.resolve("m").files[1])
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(ModelCorrupt, match=r"openvino_model\.bin"):
        store.resolve("m")
    assert not store.verify("m")[0].ok


# --- bundles ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_folders_travel_in_bundles(store: Store, tmp_path: Path, kind: str) -> None:
    make, variant, names = KINDS[kind]
    models.add(make(tmp_path / "m"), store=store)
    path = models.export_bundle(["m"], tmp_path / "b", store=store)
    assert str(tmp_path).encode() not in path.read_bytes()
    other = Store.open(tmp_path / "other")
    (got,) = models.import_bundle(path, store=other)
    assert (got.name, got.variant, got.format) == ("m", variant, kind)
    assert [Path(file).name for file in other.resolve("m").files] == names


def test_code_in_a_bundle_is_bound_to_where_it_was_built(store: Store, tmp_path: Path) -> None:
    models.add(compiled(tmp_path / "m"), pin={"lib.so": sha(ELF)}, store=store)
    path = models.export_bundle(["m"], tmp_path / "b", store=store)
    mark = next(file.mark for file in store.manifest("m").files if file.mark)
    assert mark.encode() not in path.read_bytes()
    other = Store.open(tmp_path / "other")
    with pytest.raises(ModelCorrupt, match="bound to the installation that built it") as caught:
        models.import_bundle(path, store=other)
    assert "--pin lib.so=SHA256" in (caught.value.hint or "")
    with pytest.raises(ModelCorrupt, match="not the file that was pinned"):
        models.import_bundle(path, pin={"lib.so": sha(b"another")}, store=other)
    with pytest.raises(ConfigurationError, match="no such file"):
        models.import_bundle(path, pin={"lib.so": sha(ELF), "x": sha(ELF)}, store=other)
    with pytest.raises(ModelCorrupt):  # this very installation, too: the bundle may have been changed meanwhile
        models.import_bundle(path, store=store)
    assert leftovers(other.root) == []
    (got,) = models.import_bundle(path, pin={"lib.so": sha(ELF)}, store=other)
    assert [code.origin for code in got.code] == ["pinned"]
    assert other.resolve("m").sha256 == store.resolve("m").sha256


def rewritten(path: Path, change: Callable[[dict[str, object]], object]) -> Path:
    """A bundle whose manifest says something else of the first model's files."""
    target = path.with_name("rewritten")
    with tarfile.open(path) as source, tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as archive:
        for member in source:
            data = source.extractfile(member)
            assert data is not None
            content = data.read()
            if member.name == "manifest.json":
                head = json.loads(content)
                for file in head["models"][0]["files"]:
                    change(file)
                content = json.dumps(head).encode()
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return target


def test_a_bundle_that_lies_about_code(store: Store, tmp_path: Path) -> None:
    folder = compiled(tmp_path / "m")
    (folder / "tokenizer.json").write_bytes(ELF + b"x")
    pin = {"lib.so": sha(ELF), "tokenizer.json": sha(ELF + b"x")}
    models.add(folder, pin=pin, store=store)
    path = models.export_bundle(["m"], tmp_path / "b", store=store)
    other = Store.open(tmp_path / "other")
    hidden = rewritten(path, lambda file: file.update(code=None))
    with pytest.raises(ModelCorrupt, match=r"tokenizer\.json is native code"):
        models.import_bundle(hidden, pin={"lib.so": sha(ELF)}, store=other)
    claimed = rewritten(path, lambda file: file.update(code="built"))
    everything = {path.name: sha(path.read_bytes()) for path in folder.iterdir()}
    names = {Path(file).name for file in store.resolve("m").files}
    with pytest.raises(ModelCorrupt, match="no compiled library"):
        models.import_bundle(claimed, pin={name: everything[name] for name in names}, store=other)
    assert leftovers(other.root) == []
    models.import_bundle(path, pin=pin, store=other)  # the control


def test_a_folder_is_no_other_model(store: Store, tmp_path: Path) -> None:
    models.add(openvino(tmp_path / "m"), store=store)
    other = openvino(tmp_path / "other" / "m", "i4")
    with pytest.raises(StoreError, match="another model"):
        models.add(other, name="m", variant="int4-openvino", store=store)


@pytest.mark.slow
def test_what_openvino_itself_writes(store: Store, tmp_path: Path) -> None:
    openvino_library = pytest.importorskip("openvino")
    import numpy as np

    ops = openvino_library.opset13
    given = ops.parameter([-1, 32], openvino_library.Type.f32)
    weights = ops.constant(np.ones((32, 64), np.int8))
    graph = openvino_library.Model([ops.matmul(given, ops.convert(weights, "f32"), False, False)], [given], "m")
    (tmp_path / "m").mkdir()
    openvino_library.save_model(graph, tmp_path / "m" / "openvino_model.xml")
    found = folders.find(tmp_path / "m")
    assert (found.precision, list(found.files)) == ("int8", ["openvino_model.xml", "openvino_model.bin"])
    models.add(tmp_path / "m", store=store)
    read = openvino_library.Core().read_model(store.resolve("m").path)
    assert read.get_ops()
    cut(tmp_path / "m" / "openvino_model.bin")
    with pytest.raises(ModelCorrupt, match="cut"):
        folders.find(tmp_path / "m")
