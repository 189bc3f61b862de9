"""Small real model files, catalogue entries for them, and a real HTTP server on loopback with faults on demand."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import struct
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ondevice_sdk.catalogue.spec import Artifact, ModelSpec, Variant
from ondevice_sdk.types import ModelShape


def gguf(payload: int = 4096, *, file_type: int = 2, seed: bytes = b"x") -> bytes:
    """A GGUF file with one F32 tensor of about `payload` bytes."""

    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text)) + text.encode()

    values = payload // 4
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 3)
    header += string("general.architecture") + struct.pack("<I", 8) + string("llama")
    header += string("general.file_type") + struct.pack("<II", 4, file_type)
    header += string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("b")
    header += string("t") + struct.pack("<IQIQ", 1, values, 0, 0)
    header += bytes(-len(header) % 32)
    body = b"".join(hashlib.sha256(seed + bytes(str(i), "ascii")).digest() for i in range(values * 4 // 32 + 1))
    return header + body[: values * 4]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def spec(*artifacts: Artifact, must_accept: bool = False, name: str = "tiny") -> ModelSpec:
    return ModelSpec(
        name=name,
        title="Tiny",
        shape=ModelShape(1000, 1, 32, 1, 1, 32, 64, 100, 128),
        variants=(Variant("int4", "gguf", "Q4_0", 4.5, artifacts),),
        licence="Tiny Terms",
        licence_url="https://tiny.invalid/terms",
        must_accept=must_accept,
        languages=("en",),
    )


def wheel(directory: Path, package: str, version: str, members: dict[str, bytes]) -> Path:
    """A real wheel that carries files."""
    directory.mkdir(exist_ok=True)
    path = directory / f"{package}-{version}-py3-none-any.whl"
    info = f"{package}-{version}.dist-info"
    texts = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (members | texts).items():
            archive.writestr(name, data)
    return path


@dataclass
class Server:
    """What the server does and what it was asked. `cuts`: after so many bytes the next answers break off."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    false_length: int | None = None
    send_etag: bool = True
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, Range
    answered: threading.Event = field(default_factory=threading.Event)
    stall: threading.Event | None = None  # the answer stops in its middle until this is set

    def respond(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path = handler.path
        self.requests.append((handler.command, path, handler.headers.get("Range", "")))
        if self.statuses.get(path):
            self.empty(handler, self.statuses[path].pop(0))
        elif path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[path])
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        elif path not in self.files:
            self.empty(handler, 404)
        else:
            self.send_file(handler, self.files[path])

    def empty(self, handler: http.server.BaseHTTPRequestHandler, status: int) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def send_file(
        self, handler: http.server.BaseHTTPRequestHandler, data: bytes, headers: dict[str, str] | None = None
    ) -> None:
        etag = f'"{sha(data)}"'
        wanted = handler.headers.get("Range")
        start = 0
        if wanted and handler.headers.get("If-Range", etag) == etag:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            handler.send_response(200)
        body = data[start:]
        handler.send_header("Content-Length", str(self.false_length or len(body)))
        if self.send_etag:
            handler.send_header("ETag", etag)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if self.stall is not None:
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            self.answered.set()
            self.stall.wait(60)
            handler.close_connection = True
        elif self.cuts:
            handler.wfile.write(body[: self.cuts.pop(0)])
            handler.close_connection = True
        else:
            handler.wfile.write(body)


@contextlib.contextmanager
def serve(server: Server) -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):
                server.respond(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        server.url = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            if server.stall is not None:
                server.stall.set()
            listening.shutdown()
            thread.join()


def leftovers(root: Path) -> list[str]:
    """Files in the store besides locks and stamps."""
    kept = {"locks", "stamps"}
    return sorted(
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and path.relative_to(root).parts[0] not in kept
    )


def writable(path: Path | str) -> Path:
    """A file of the store, as its owner can make it: open to changes."""
    path = Path(path)
    path.chmod(0o600)
    return path
