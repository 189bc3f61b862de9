"""Programs among the model files: pickle is never read, native code only where this installation vouches for it."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import socket
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ondevice_sdk import Client, models
from ondevice_sdk.errors import ConfigurationError, ModelCorrupt, ModelNotInstalled, StoreError
from ondevice_sdk.store import Store, compiled, formats
from ondevice_sdk.store.from_builder import add_built, add_pinned

from .helpers import gguf, leftovers, sha

ELF = b"\x7fELF\x02\x01\x01" + bytes(500)
WEIGHTS = gguf()


# --- pickle -----------------------------------------------------------------------------------------------------------


class Payload:
    """Runs a function when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def touch(name: str) -> None:
    Path(name).touch()


def connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port)).close()


def torch_archive(payload: bytes) -> bytes:
    """The layout that torch.save has written since its version 1.6."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("model/data.pkl", payload)
        archive.writestr("model/version", "3\n")
        archive.writestr("model/data/0", bytes(64))
    return data.getvalue()


def numpy_array(payload: bytes) -> bytes:
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + payload


def safetensors(payload: bytes) -> bytes:
    head = json.dumps({"__metadata__": {}, "w": {"dtype": "U8", "shape": [len(payload)], "data_offsets": [0, 1]}})
    return len(head).to_bytes(8, "little") + head.encode() + payload


DISGUISES: dict[str, Callable[[bytes], bytes]] = {
    "model.pkl": lambda payload: payload,
    "pytorch_model.bin": torch_archive,
    "model.pt": torch_archive,
    "model.pth": lambda payload: payload,
    "model.gguf": lambda payload: payload,
    "archive.gguf": torch_archive,
    "weights.npy": numpy_array,
    "weights.gguf": numpy_array,
    "model.safetensors": safetensors,
}


def unpickle(data: bytes) -> None:
    """What a careless loader would do with one of them."""
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = archive.read("model/data.pkl")
    elif data.startswith(b"\x93NUMPY"):
        data = data[10 + int.from_bytes(data[8:10], "little") :]
    pickle.loads(data)


@pytest.mark.parametrize("name", DISGUISES)
def test_pickle_is_refused_everywhere_and_never_run(store: Store, tmp_path: Path, name: str) -> None:
    proof = tmp_path / "it-ran"
    path = tmp_path / name
    path.write_bytes(DISGUISES[name](pickle.dumps(Payload(touch, str(proof)))))
    source = f"file:{path}"
    for attempt in (
        lambda: formats.inspect(path),
        lambda: models.add(path, name="m", store=store),
        lambda: models.pull("m", source=source, store=store),
        lambda: store.from_path(path),
        lambda: Client(str(path), store=store).prewarm(),
        lambda: add_built(store, {"w.bin": path}, name="m", variant="int4", form="mlc"),
    ):
        if name == "model.safetensors" and attempt.__code__.co_names[0] == "add_built":
            continue  # data, which a builder may use
        with pytest.raises(ModelCorrupt) as caught:
            attempt()
        word = "safetensors" if name == "model.safetensors" else "pickle"
        assert word in caught.value.message
        assert caught.value.hint
    assert not proof.exists()
    assert leftovers(store.root) == []
    if name != "model.safetensors":  # the control: the payload works
        unpickle(path.read_bytes())
        assert proof.exists()


def test_a_pickle_that_connects(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        path.write_bytes(pickle.dumps(Payload(connect, server.getsockname()[1])))
        with pytest.raises(ModelCorrupt, match="pickle"):
            models.add(path, store=store)
        with pytest.raises(BlockingIOError):
            server.accept()
        pickle.loads(path.read_bytes())  # the control
        server.accept()[0].close()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(pickle.dumps({"w": [1.0]}, protocol))
    with pytest.raises(ModelCorrupt, match="pickle"):
        formats.inspect(path)


# --- native code ------------------------------------------------------------------------------------------------------

CODE = {
    "elf": ELF,
    "pe": b"MZ\x90" + bytes(500),
    "macho": b"\xcf\xfa\xed\xfe" + bytes(500),
    "fat macho": b"\xca\xfe\xba\xbe" + bytes(500),
    "archive": b"!<arch>\n" + bytes(500),
    "bitcode": b"BC\xc0\xde" + bytes(500),
    "script": b"#!/bin/sh\ntrue\n",
}


@pytest.mark.parametrize("kind", CODE)
@pytest.mark.parametrize("name", ["model.gguf", "libmodel.so"])
def test_native_code_is_no_model(store: Store, tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(CODE[kind])
    for attempt in (
        lambda: models.add(path, name="m", store=store),
        lambda: models.pull("m", source=f"file:{path}", store=store),
        lambda: Client(str(path), store=store).prewarm(),
    ):
        with pytest.raises(ModelCorrupt, match=r"compiled|script"):
            attempt()
    assert leftovers(store.root) == []


def test_a_real_library_is_no_model(store: Store, tmp_path: Path) -> None:
    true = shutil.which("true")
    assert true is not None
    shutil.copy(true, tmp_path / "m.gguf")
    with pytest.raises(ModelCorrupt, match="ELF"):
        models.add(tmp_path / "m.gguf", store=store)
    assert subprocess.run([true], check=False).returncode == 0  # the control: a program indeed


@pytest.mark.parametrize("name", ["lib.so", "lib.so.1.2", "LIB.DLL", "lib.dylib", "x.pyd", "x.exe"])
def test_data_that_is_named_as_code(store: Store, tmp_path: Path, name: str) -> None:
    """A loader that goes by names would take it for code."""
    path = tmp_path / name
    path.write_bytes(WEIGHTS)
    with pytest.raises((StoreError, ModelCorrupt)):
        models.add(path, name="m", store=store)
    assert leftovers(store.root) == []


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "built").mkdir()
    parts = {"lib.so": tmp_path / "built" / "lib.so", "params.bin": tmp_path / "built" / "params"}
    parts["lib.so"].write_bytes(ELF)
    parts["params.bin"].write_bytes(bytes(1000))
    return parts


def test_a_built_library_is_given_to_the_backend(store: Store, parts: dict[str, Path]) -> None:
    made = add_built(store, parts, name="m", variant="int4", form="mlc")
    assert (made.name, made.format) == ("m", "mlc")
    assert made.sha256 == sha(f"{sha(ELF)}\n{sha(bytes(1000))}".encode())
    found = store.resolve("m")
    assert [Path(file).name for file in found.files] == ["lib.so", "params.bin"]
    assert Path(found.path).read_bytes() == ELF
    assert [file.code for file in store.manifest("m").files] == ["built", None]
    assert store.verify("m")[0].ok
    assert (store.root / "installation.key").stat().st_mode & 0o777 == 0o600


def test_a_pinned_library_is_given_to_the_backend(store: Store, parts: dict[str, Path]) -> None:
    add_pinned(store, parts, {"lib.so": sha(ELF)}, name="m", variant="int4", form="mlc")
    assert Path(store.resolve("m").path).read_bytes() == ELF
    assert store.manifest("m").files[0].code == "pinned"


def test_pins_that_do_not_hold(store: Store, parts: dict[str, Path]) -> None:
    with pytest.raises(ConfigurationError, match="digest"):
        add_pinned(store, parts, {"params.bin": sha(bytes(1000))}, name="m", variant="int4", form="mlc")
    with pytest.raises(ModelCorrupt, match="pinned"):
        add_pinned(store, parts, {"lib.so": sha(b"other")}, name="m", variant="int4", form="mlc")
    with pytest.raises(ModelCorrupt, match="no compiled library"):
        add_built(store, {"lib.so": parts["params.bin"]}, name="m", variant="int4", form="mlc")
    with pytest.raises(ModelNotInstalled):
        add_built(store, {"lib.so": parts["lib.so"].with_name("none")}, name="m", variant="int4", form="mlc")
    with pytest.raises(ConfigurationError):
        add_built(store, {"../lib.so": parts["lib.so"]}, name="m", variant="int4", form="mlc")
    assert leftovers(store.root) == []


def edit(store: Store, change: Callable[[dict[str, object]], object]) -> None:
    path = store.space.manifest("m", "int4")
    value = json.loads(path.read_bytes())
    change(value["files"][0])
    path.write_text(json.dumps(value))


FORGERIES: dict[str, Callable[[dict[str, object]], object]] = {
    "a mark of zeros": lambda file: file.update(mark="0" * 64),
    "pinned instead of built": lambda file: file.update(code="pinned"),
    "no word and no mark": lambda file: file.update(code=None, mark=None),
    "no word, no mark, another name": lambda file: file.update(code=None, mark=None, name="params0.bin"),
    "another name": lambda file: file.update(name="other.so"),
    "no mark": lambda file: file.update(mark=None),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_a_mark_cannot_be_forged(store: Store, parts: dict[str, Path], case: str) -> None:
    add_built(store, {"lib.so": parts["lib.so"]}, name="m", variant="int4", form="mlc")
    store.resolve("m")
    edit(store, FORGERIES[case])
    with pytest.raises(ModelCorrupt):
        store.resolve("m")


def test_a_changed_library_is_not_loaded_whatever_its_stamp_says(store: Store, parts: dict[str, Path]) -> None:
    add_built(store, {"lib.so": parts["lib.so"]}, name="m", variant="int4", form="mlc")
    blob = store.space.blob(sha(ELF))
    blob.chmod(0o600)
    blob.write_bytes(ELF[:-1] + b"!")
    store.space.stamp(sha(ELF), blob, sha(ELF))
    with pytest.raises(ModelCorrupt, match="changed"):
        store.resolve("m")


def test_a_store_copied_without_its_key_vouches_for_nothing(
    store: Store, parts: dict[str, Path], tmp_path: Path
) -> None:
    add_built(store, {"lib.so": parts["lib.so"]}, name="m", variant="int4", form="mlc")
    other = Store.open(tmp_path / "other")
    for folder in ("blobs", "manifests"):
        shutil.copytree(store.root / folder, other.root / folder)
    with pytest.raises(ModelCorrupt, match="not built or pinned here"):
        other.resolve("m")
    compiled.own_key(other.space)  # nor with a key of its own
    with pytest.raises(ModelCorrupt, match="not built or pinned here"):
        other.resolve("m")


def bundle(tmp_path: Path, library: bytes, name: str, **values: object) -> Path:
    """A bundle that claims what it likes."""
    file = {"digest": sha(library), "size": len(library), "name": name, **values}
    model = {
        "schema": 1,
        "name": "m",
        "variant": "int4",
        "format": "gguf",
        "files": [file],
        "source": "x",
        "licence": "x",
        "accepted_at": None,
        "installed_at": "x",
        "digest_origin": "first_use",
    }
    head = json.dumps({"bundle": 1, "models": [model], "blobs": {sha(library): len(library)}}).encode()
    path = tmp_path / "b.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for member, data in (("manifest.json", head), (f"blobs/sha256/{sha(library)}", library)):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_no_bundle_brings_code(store: Store, tmp_path: Path, parts: dict[str, Path]) -> None:
    add_built(store, {"lib.so": parts["lib.so"]}, name="built", variant="int4", form="mlc")
    mark = store.manifest("built").files[0].mark  # even a true one of this very installation
    for name, values in (
        ("lib.so", {}),
        ("lib.so", {"code": "built", "mark": mark}),
        ("lib.so", {"code": "pinned", "mark": mark}),
        ("m.gguf", {"code": "built", "mark": mark}),
        ("m.gguf", {}),
    ):
        with pytest.raises(ModelCorrupt):
            models.import_bundle(bundle(tmp_path, ELF, name, **values), store=store)
    with pytest.raises(ModelCorrupt):  # weights that claim to be code
        models.import_bundle(bundle(tmp_path, WEIGHTS, "m.gguf", code="built", mark=mark), store=store)
    models.import_bundle(bundle(tmp_path, WEIGHTS, "m.gguf"), store=store)  # the control


def test_the_file_of_a_pull_that_is_code_by_its_name(store: Store) -> None:
    for name in ("pytorch_model.bin", "lib.so", "model.safetensors"):
        with pytest.raises(ModelCorrupt):
            formats.refuse_name(name)
    formats.refuse_name("model-Q4_0.gguf")


def test_marks_are_of_one_file_of_one_model(store: Store, parts: dict[str, Path]) -> None:
    add_built(store, {"lib.so": parts["lib.so"]}, name="m", variant="int4", form="mlc")
    found = store.manifest("m")
    key = compiled.own_key(store.space)
    marks = {
        compiled.mark(key, each, file)
        for each in (found, replace(found, name="n"), replace(found, variant="v"), replace(found, format="f"))
        for file in (found.files[0], replace(found.files[0], digest="0" * 64), replace(found.files[0], name="x"))
    }
    assert len(marks) == 12
