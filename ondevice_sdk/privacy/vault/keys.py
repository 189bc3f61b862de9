"""Keys of encrypted caches: where they come from, what is derived from them, how they are forgotten.

Sources: RFC 5869 (HKDF); NIST SP 800-38D section 8 (how often a key may be used with AES-GCM).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import re
import secrets
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NoReturn, Self

from ondevice_sdk.errors import BackendUnavailable, ConfigurationError, StoreError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from keyring.backend import KeyringBackend

KEY_BYTES: Final = 32
NONCE_PREFIX_BYTES: Final = 7
HINT: Final = 'pip install "ondevice-sdk[cache]"'
_PURPOSE: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_LABEL: Final = b"ondevice-sdk cache 1 "  # a change of any derivation changes the number

# The keyrings of operating systems. Others may write a plain file, which is no better than a key beside the cache.
_SYSTEM_KEYRINGS: Final = frozenset(
    f"keyring.backends.{name}" for name in ("macOS", "SecretService", "Windows", "kwallet", "libsecret")
)


class _Secret:
    """Bytes that are in no repr, pickle, copy or exception, and that are overwritten when they are forgotten.

    Overwriting is the best that Python can do: copies that libraries made for their work lie in freed memory.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: bytes | bytearray | memoryview) -> None:
        if not isinstance(secret, bytes | bytearray | memoryview):
            raise ConfigurationError(f"a key is {KEY_BYTES} bytes, not {type(secret).__name__}")
        self._secret: bytearray | None = bytearray(secret)
        if len(self._secret) != KEY_BYTES:
            length = len(self._secret)
            self.forget()
            raise ConfigurationError(f"a key has {KEY_BYTES} bytes, this one {length}")

    def _known(self) -> bytearray:
        if self._secret is None:
            raise StoreError("this key was forgotten", hint="make a new one; what was encrypted with it is lost")
        return self._secret

    @property
    def forgotten(self) -> bool:
        """Whether `forget` was called."""
        return self._secret is None

    def forget(self) -> None:
        """Overwrite it. Idempotent."""
        if self._secret is not None:
            self._secret[:] = bytes(len(self._secret))
            self._secret = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.forget()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{' (forgotten)' if self.forgotten else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied")


class Key(_Secret):
    """The key of an app. It stays in the app; caches work with what is derived from it."""

    __slots__ = ()
    volatile = False  # whether it is lost with this process

    def scoped(self, purpose: str, model_digest: str) -> ScopedKey:
        """The key for one purpose and one model, which says nothing about this one nor about those of other scopes.

        Args:
            purpose: what is cached, such as "prompt-state": small letters, digits and "-".
            model_digest: SHA-256 of the model, 64 hexadecimal digits.

        Raises:
            ConfigurationError: a word is unusable. BackendUnavailable: `cryptography` is not installed.
            StoreError: the key was forgotten.
        """
        scope = _scope(purpose, model_digest)
        return ScopedKey(_expand(self._known(), b"scope " + scope), purpose, model_digest, origin=self)


class MemoryKey(Key):
    """A random key that nobody else has and nothing keeps: what was encrypted with it is lost with this process."""

    __slots__ = ()
    volatile = True

    def __init__(self) -> None:
        super().__init__(secrets.token_bytes(KEY_BYTES))


class CallerKey(Key):
    """A key that the app brings along: 32 bytes of high entropy, never a password."""

    __slots__ = ()


class KeyringKey(Key):
    """A key kept by the keyring of the operating system; made on first use. For the app: a sealed worker has none."""

    __slots__ = ("_backend", "_name", "_service")

    def __init__(self, service: str, name: str, *, backend: KeyringBackend | None = None) -> None:
        """Get it from the keyring, or make it and put it there.

        Args:
            service: the app, as the keyring lists it.
            name: which of its keys.
            backend: a keyring that you trust; by default one of the operating system, and no other.

        Raises:
            BackendUnavailable: `keyring` is not installed, or no keyring here can be trusted; the reason says why.
            StoreError: the keyring is locked or failed, or holds something else under that name.
        """
        if not service or not name:
            raise ConfigurationError("a key in the keyring needs a service and a name")
        self._backend = _usable_keyring(backend)
        self._service, self._name = service, name
        with _keyring_errors():
            stored = self._backend.get_password(service, name)
            if stored is None:
                made = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
                self._backend.set_password(service, name, made)
                stored = self._backend.get_password(service, name)  # another process may have put its own there since
        super().__init__(_decoded(stored))

    def destroy(self) -> None:
        """Delete it from the keyring too: what was encrypted with it is lost for everybody. Idempotent.

        Raises:
            StoreError: the keyring is locked or failed.
        """
        with _keyring_errors():
            if self._backend.get_password(self._service, self._name) is not None:
                self._backend.delete_password(self._service, self._name)
        self.forget()


class ScopedKey(_Secret):
    """The key to the entries of one purpose and one model: all that a worker gets.

    `key.scoped(...)` makes one in the app; a worker makes its own of the `reveal()`ed bytes.
    """

    __slots__ = ("_origin", "model_digest", "purpose", "scope")

    def __init__(
        self, secret: bytes | bytearray | memoryview, purpose: str, model_digest: str, *, origin: Key | None = None
    ) -> None:
        """Take over what `reveal` gave.

        Raises:
            ConfigurationError: not 32 bytes, or a word is unusable.
        """
        self.scope = _scope(purpose, model_digest)
        self.purpose = purpose
        self.model_digest = model_digest
        self._origin = origin
        super().__init__(secret)

    def reveal(self) -> bytes:
        """The bytes to hand to a worker, over its pipe and nothing else.

        Raises:
            StoreError: the key was forgotten.
        """
        return bytes(self._known())

    def entry_id(self, name: bytes | str) -> bytes:
        """32 bytes that stand for a name and tell nothing of it without this key."""
        data = name.encode("utf-8", "surrogatepass") if isinstance(name, str) else name
        return hmac.digest(_expand(self._known(), b"name"), data, "sha256")

    def cipher(self, salt: bytes) -> tuple[AESGCM, bytes]:
        """The cipher of one file and the beginning of its nonces; a random salt of 32 bytes makes both its own."""
        _require_cryptography()
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        derived = _expand(self._known(), b"file", salt=salt, length=KEY_BYTES + NONCE_PREFIX_BYTES)
        return AESGCM(derived[:KEY_BYTES]), derived[KEY_BYTES:]

    def erase(self) -> None:
        """Forget it, and the key that it comes from, if that one is in memory only; other keys are let be."""
        if self._origin is not None and self._origin.volatile:
            self.forget()
            self._origin.forget()


def _scope(purpose: str, model_digest: str) -> bytes:
    if not _PURPOSE.fullmatch(purpose):
        raise ConfigurationError('a purpose has small letters, digits and "-", at most 63 of them')
    if not _DIGEST.fullmatch(model_digest):
        raise ConfigurationError("a model digest is a SHA-256: 64 hexadecimal digits")
    return bytes.fromhex(model_digest) + purpose.encode()  # only the last one varies in length


def _expand(secret: bytearray, info: bytes, *, salt: bytes | None = None, length: int = KEY_BYTES) -> bytes:
    _require_cryptography()
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length, salt, _LABEL + info).derive(secret)


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise BackendUnavailable(
            "encrypted caches need a package that is not installed", reason="no cryptography", hint=HINT
        ) from error


def _usable_keyring(chosen: KeyringBackend | None) -> KeyringBackend:
    try:
        import keyring
    except ImportError as error:
        raise BackendUnavailable(
            "keys in the keyring need a package that is not installed", reason="no keyring", hint=HINT
        ) from error
    found = keyring.get_keyring() if chosen is None else chosen
    chain = getattr(found, "backends", None)  # the chainer asks each in turn
    candidates: list[KeyringBackend] = list(chain) if isinstance(chain, list | tuple) else [found]
    reasons = []
    for candidate in candidates:
        reason = _unfit(candidate, trusted=chosen is not None)
        if reason is None:
            return candidate
        reasons.append(reason)
    raise BackendUnavailable(
        "there is no keyring here that can be trusted with a key",
        reason="; ".join(dict.fromkeys(reasons)) or "no keyring at all",
        hint="use a key in memory (the default) or one of your own, or give backend=",
    )


def _unfit(backend: KeyringBackend, *, trusted: bool) -> str | None:
    kind = type(backend)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__ in ("keyring.backends.fail", "keyring.backends.null"):
        return f"{name} keeps nothing"
    if "plaintext" in name.lower():
        return f"{name} writes the key down in plain text"
    if not trusted and kind.__module__ not in _SYSTEM_KEYRINGS:
        return f"{name} is not one of the operating system"
    return None


def _decoded(stored: str | None) -> bytes:
    try:
        secret = base64.b64decode(stored or "", validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != KEY_BYTES:
        raise StoreError(
            "the keyring holds something else under that name", hint="use another name, or delete it from the keyring"
        )
    return secret


@contextlib.contextmanager
def _keyring_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - keyrings also raise what their systems raise
        # Not its message, which may quote what the keyring was given; nor is it chained.
        raise StoreError(f"the keyring failed: {type(error).__name__}", hint="unlock it and try again") from None
