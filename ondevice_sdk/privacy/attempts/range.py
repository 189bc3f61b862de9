"""The app's side of the attempts: everything there is to reach, and whether it was reached.

Listeners on the loopback address, UNIX sockets, a process to steer, files with secrets, a terminal. What was reached is
seen here, independently of what the attempt says of itself. Nothing is left behind: every object made by an attempt is
looked for by the token in its name, and removed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from ondevice_sdk.privacy.attempts import objects
from ondevice_sdk.privacy.attempts.attempt import Attempt, Reach
from ondevice_sdk.privacy.attempts.hostage import Hostage

_PATIENCE_S: Final = 0.2  # for what is on its way on the loopback interface


class Range:
    """One range serves one attempt at a time."""

    def __init__(self, python: Sequence[str]) -> None:
        """Set it up.

        Args:
            python: the command that starts a Python, for the victim.
        """
        self._python = tuple(python)
        self._shot = 0
        with contextlib.ExitStack() as stack:
            self.root = Path(tempfile.mkdtemp(prefix="ondevice-range-"))
            stack.callback(shutil.rmtree, self.root, ignore_errors=True)
            self._secret = secrets.token_hex(12)
            self._in_memory = secrets.token_hex(12)
            held = self.root / "held"
            held.write_text(self._secret)
            self._listeners = {name: stack.enter_context(sock) for name, sock in self._listen()}
            self._giver = stack.enter_context(_unix(self.root / "giver", socket.SOCK_STREAM))
            self._giving = str(held)
            threading.Thread(target=self._give, name="ondevice-range", daemon=True).start()
            stack.callback(self._giver.shutdown, socket.SHUT_RDWR)  # wakes the thread
            self._hostage = Hostage(self._python, self._port("udp4"), held, self._in_memory)
            stack.callback(lambda: self._hostage.close())
            self._stack = stack.pop_all()

    def __enter__(self) -> Range:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    # --- what there is to reach ---------------------------------------------------------------------------------------

    def _listen(self) -> Iterator[tuple[str, socket.socket]]:
        yield "tcp4", socket.create_server(("127.0.0.1", 0), backlog=64)
        yield "udp4", _bound(socket.AF_INET, "127.0.0.1")
        if socket.has_ipv6:
            with contextlib.suppress(OSError):  # switched off in this system
                yield "tcp6", socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=64)
                yield "udp6", _bound(socket.AF_INET6, "::1")
        yield "stream", _unix(self.root / "stream", socket.SOCK_STREAM)
        yield "abstract", _unix(f"\0{self.root.name}", socket.SOCK_STREAM)
        yield "datagram", _unix(self.root / "datagram", socket.SOCK_DGRAM)

    def _port(self, name: str) -> int:
        sock = self._listeners.get(name)
        return int(sock.getsockname()[1]) if sock is not None else 0

    def _give(self) -> None:
        """Pass a descriptor of the secret to whoever connects."""
        while True:
            try:
                asker, _ = self._giver.accept()
            except OSError:
                return
            with asker, contextlib.suppress(OSError), open(self._giving, "rb") as file:
                socket.send_fds(asker, [b"x"], [file.fileno()])

    @contextlib.contextmanager
    def shot(self, *, control: bool) -> Iterator[Shot]:
        """A fresh set of files and a terminal for one try; the listeners are emptied."""
        self._received()
        self._shot += 1
        place = self.root / str(self._shot)
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            self._lay_out(place)
            terminal = stack.enter_context(objects.Terminal())
            reach = Reach(
                token=secrets.token_hex(8),
                control=control,
                **{name: self._port(name) for name in ("tcp4", "tcp6", "udp4", "udp6")},
                unix_stream=str(self.root / "stream"),
                unix_abstract=self.root.name,
                unix_datagram=str(self.root / "datagram"),
                unix_giver=str(self.root / "giver"),
                victim=self._hostage.about,
                outside=str(place),
                secret=str(place / "secret"),
                home=str(place / "home"),
                link=str(place / "link"),
                model=str(place / "model"),
                terminal=terminal.path,
                key=0x0D0C0000 | secrets.randbelow(1 << 16),
            )
            stack.callback(objects.remove, reach)
            yield Shot(self, reach, terminal, _snapshot(place))

    def _lay_out(self, place: Path) -> None:
        for directory in (place, place / "home", place / "home" / ".ssh", place / "model"):
            directory.mkdir(mode=0o700)
        (place / "secret").touch(mode=0o600)
        (place / "secret").write_text(self._secret)
        (place / "home" / ".ssh" / "id_ed25519").write_text(self._secret)
        (place / "home" / f"letter-{self._secret}").touch()
        (place / "model" / "model.gguf").write_bytes(b"GGUF")
        (place / "link").symlink_to(f"/nonexistent/{self._secret}")
        with contextlib.suppress(OSError):  # a file system without them
            os.setxattr(place / "secret", "user.origin", self._secret.encode())

    # --- what was reached ---------------------------------------------------------------------------------------------

    def _received(self) -> bytes:
        """Everything that has arrived at the listeners."""
        data = bytearray()
        for sock in self._listeners.values():
            sock.settimeout(0)
            with contextlib.suppress(OSError):
                while True:
                    if sock.type == socket.SOCK_DGRAM:
                        data += sock.recv(1 << 16)
                        continue
                    peer, _ = sock.accept()
                    peer.settimeout(_PATIENCE_S)
                    with peer, contextlib.suppress(OSError):
                        while part := peer.recv(1 << 16):
                            data += part
        return bytes(data)

    def known(self) -> tuple[str, ...]:
        """What must not come out."""
        facts = [self._secret, self._in_memory, f"0100007F:{self._port('tcp4'):04X}"]
        for path, lines in (("/etc/passwd", 1), ("/etc/machine-id", 1)):
            with contextlib.suppress(OSError):
                facts += Path(path).read_text(encoding="utf-8", errors="replace").splitlines()[:lines]
        for card in Path("/sys/class/net").glob("*/address"):
            with contextlib.suppress(OSError):
                facts.append(card.read_text().strip())
        return tuple(fact for fact in facts if len(fact) > 8)

    def victim_changed(self) -> bool:
        """Whether the victim is not as it was; it is replaced then."""
        if self._hostage.unchanged():
            return False
        self._hostage.close()
        self._hostage = Hostage(self._python, self._port("udp4"), Path(self._giving), self._in_memory)
        return True


@dataclasses.dataclass(frozen=True, slots=True)
class Shot:
    """One try: where it may aim, and what it hit."""

    range: Range
    reach: Reach
    terminal: objects.Terminal
    before: Mapping[str, tuple[object, ...]]

    def evidence(self, text: str, *, claim: bool) -> frozenset[str]:
        """Every kind of proof that there is, by its name in `Attempt.proof`. Ask once, after the worker has ended."""
        place = Path(self.reach.outside)
        found = {
            "claim": claim,
            "contact": self.reach.token.encode() in self.range._received(),
            "content": any(fact in text for fact in self.range.known()),
            "victim": self.range.victim_changed(),
            "file": _snapshot(place) != self.before or objects.loose_file(self.reach),
            "object": objects.exist(self.reach),
            "terminal": self.terminal.typed(),
        }
        return frozenset(kind for kind, is_true in found.items() if is_true)

    def proved(self, attempt: Attempt, evidence: frozenset[str]) -> bool:
        """Whether the evidence is of the kind that this attempt has to give."""
        return attempt.proof in evidence


def _snapshot(place: Path) -> dict[str, tuple[object, ...]]:
    """What a change of a file would show in."""
    seen: dict[str, tuple[object, ...]] = {}
    for path in (place, *place.rglob("*")):
        try:
            status = path.lstat()
            names = tuple(os.listxattr(path, follow_symlinks=False))
        except OSError as error:
            seen[str(path)] = (error.errno,)
            if error.errno not in (errno.ENOENT, errno.ENOTSUP):
                raise
            continue
        seen[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns, names)
    return seen


def _bound(family: socket.AddressFamily, host: str) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


def _unix(path: Path | str, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(str(path))
    if kind == socket.SOCK_STREAM:
        sock.listen(16)
    return sock
