"""Keys of encrypted caches: derivation, secrecy, keyrings that may and may not be trusted."""

from __future__ import annotations

import base64
import copy
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import chainer, fail, null
from keyring.errors import KeyringLocked, PasswordDeleteError

from ondevice_sdk.errors import BackendUnavailable, ConfigurationError, OnDeviceError, StoreError
from ondevice_sdk.privacy.vault import CallerKey, Key, KeyringKey, MemoryKey, ScopedKey

SECRET = b"\xc3\x5a" + bytes(range(0x40, 0x5E))
DIGEST = "ab" * 32


class Drawer(KeyringBackend):  # type: ignore[misc]  # of a package whose types are not looked at
    """A keyring for tests: the interface of `keyring`, in memory."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        try:
            del self.kept[service, username]
        except KeyError:
            raise PasswordDeleteError from None


class PlaintextKeyring(Drawer):
    """By its name, one that writes passwords down."""


class Locked(Drawer):
    def get_password(self, service: str, username: str) -> str | None:
        raise KeyringLocked("quoting a secret")


class Broken(Drawer):
    def set_password(self, service: str, username: str, password: str) -> None:
        raise RuntimeError(f"quoting {password}")


# --- derivation and secrecy -------------------------------------------------------------------------------------------


def test_keys_in_memory_are_random_and_scopes_are_apart() -> None:
    scopes = [("prompt-state", DIGEST), ("responses", DIGEST), ("prompt-state", "cd" * 32)]
    keys: list[Key] = [MemoryKey(), MemoryKey(), CallerKey(SECRET)]
    revealed = [key.scoped(*scope).reveal() for key in keys for scope in scopes]
    assert len(set(revealed)) == 9
    assert all(len(secret) == 32 and secret != SECRET for secret in revealed)
    assert CallerKey(SECRET).scoped(*scopes[0]).reveal() == CallerKey(bytearray(SECRET)).scoped(*scopes[0]).reveal()
    assert MemoryKey.volatile
    assert not CallerKey.volatile


def test_what_was_revealed_makes_the_same_key_elsewhere() -> None:
    here = MemoryKey().scoped("prompt-state", DIGEST)
    there = ScopedKey(here.reveal(), "prompt-state", DIGEST)
    assert there.entry_id("name") == here.entry_id("name") == here.entry_id(b"name")
    assert there.entry_id("name") != here.entry_id("other")
    assert len(here.entry_id("\ud800")) == 32  # not valid Unicode, yet a name
    assert there.cipher(bytes(32))[1] == here.cipher(bytes(32))[1]
    assert there.cipher(bytes(32))[1] != here.cipher(b"\1" * 32)[1]


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    secret = (SECRET * 2)[:length]
    for make in (CallerKey, lambda secret: ScopedKey(secret, "responses", DIGEST)):
        with pytest.raises(ConfigurationError) as caught:
            make(secret)
        assert str(length) in caught.value.message
        assert_no_secret("".join(traceback.format_exception(caught.value)))
    with pytest.raises(ConfigurationError):
        CallerKey("a password of thirty-two letters")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("purpose", "digest"),
    [
        ("", DIGEST),
        ("Prompt", DIGEST),
        ("a b", DIGEST),
        ("a" * 64, DIGEST),
        ("a", "AB" * 32),
        ("a", "ab" * 31),
        ("a", ""),
    ],
)
def test_unusable_words(purpose: str, digest: str) -> None:
    CallerKey(SECRET).scoped("a" * 63, DIGEST)  # the control
    with pytest.raises(ConfigurationError):
        CallerKey(SECRET).scoped(purpose, digest)
    with pytest.raises(ConfigurationError):
        ScopedKey(SECRET, purpose, digest)


def assert_no_secret(text: str, secret: bytes = SECRET) -> None:
    for needle in (
        secret.hex(),
        base64.b64encode(secret).decode(),
        repr(secret)[2:-1],
        secret[4:20].decode("latin-1"),
        str(list(secret))[1:-1],
    ):
        assert needle not in text


def test_no_key_is_shown_pickled_or_copied() -> None:
    with pytest.raises(AssertionError):
        assert_no_secret(f"leaks {bytearray(SECRET)!r}")  # the control
    drawer = Drawer()
    drawer.kept["app", "cache"] = base64.b64encode(SECRET).decode()
    keys: list[Key | ScopedKey] = [
        CallerKey(SECRET),
        KeyringKey("app", "cache", backend=drawer),
        ScopedKey(SECRET, "responses", DIGEST, origin=CallerKey(SECRET)),
    ]
    for key in keys:
        for text in (repr(key), str(key), f"{key}", f"{[key]}", "%s" % key):  # noqa: UP031
            assert_no_secret(text)
            assert type(key).__name__ in text
        assert not hasattr(key, "__dict__")
        for take in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError) as caught:
                take(key)
            assert_no_secret(str(caught.value))


@pytest.mark.parametrize("make", [MemoryKey, lambda: CallerKey(SECRET)])
def test_a_forgotten_key_is_overwritten_and_of_no_use(make: Callable[[], Key]) -> None:
    key = make()
    held = key._secret
    assert held is not None
    assert any(held)
    with key:
        scoped = key.scoped("responses", DIGEST)
    assert key.forgotten
    assert not any(held)
    key.forget()
    with pytest.raises(StoreError, match="forgotten"):
        key.scoped("responses", DIGEST)
    assert scoped.entry_id("name"), "what was derived lives on until it is forgotten itself"
    scoped.forget()
    for call in (scoped.reveal, lambda: scoped.entry_id("name"), lambda: scoped.cipher(bytes(32))):
        with pytest.raises(StoreError, match="forgotten"):
            call()


# --- the keyring ------------------------------------------------------------------------------------------------------


def test_a_key_is_made_once_and_found_again() -> None:
    drawer = Drawer()
    first = KeyringKey("app", "cache", backend=drawer)
    again = KeyringKey("app", "cache", backend=drawer)
    other = KeyringKey("app", "other", backend=drawer)
    ids = [key.scoped("responses", DIGEST).entry_id("name") for key in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]
    assert len(base64.b64decode(drawer.kept["app", "cache"])) == 32
    assert not first.volatile
    first.destroy()
    first.destroy()
    assert first.forgotten
    assert list(drawer.kept) == [("app", "other")]
    assert KeyringKey("app", "cache", backend=drawer).scoped("responses", DIGEST).entry_id("name") != ids[0]


@pytest.mark.parametrize("unfit", [fail.Keyring, null.Keyring, PlaintextKeyring])
@pytest.mark.parametrize("given", [True, False])
def test_keyrings_that_keep_nothing_or_tell_everybody(
    monkeypatch: pytest.MonkeyPatch, unfit: type[KeyringBackend], given: bool
) -> None:
    backend = unfit()
    monkeypatch.setattr(keyring, "get_keyring", lambda: backend)
    with pytest.raises(BackendUnavailable) as caught:
        KeyringKey("app", "cache", backend=backend if given else None)
    assert unfit.__qualname__ in str(caught.value.reason)
    assert caught.value.hint


def test_only_keyrings_of_the_system_are_taken_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    found: KeyringBackend = Drawer()
    monkeypatch.setattr(keyring, "get_keyring", lambda: found)
    with pytest.raises(BackendUnavailable, match="trusted") as caught:
        KeyringKey("app", "cache")
    assert "operating system" in str(caught.value.reason)
    monkeypatch.setattr(Drawer, "__module__", "keyring.backends.SecretService")
    assert KeyringKey("app", "cache")


def test_of_a_chain_the_first_fit_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    drawers: list[KeyringBackend] = [null.Keyring(), PlaintextKeyring()]
    monkeypatch.setattr(chainer.ChainerBackend, "backends", drawers)
    chain = chainer.ChainerBackend()
    with pytest.raises(BackendUnavailable) as caught:
        KeyringKey("app", "cache", backend=chain)
    assert "PlaintextKeyring" in str(caught.value.reason)
    drawers.append(good := Drawer())
    KeyringKey("app", "cache", backend=chain)
    assert len(good.kept) == 1


@pytest.mark.parametrize("backend", [Locked(), Broken()], ids=["locked", "broken"])
def test_what_a_keyring_says_is_not_repeated(backend: KeyringBackend) -> None:
    with pytest.raises(StoreError) as caught:
        KeyringKey("app", "cache", backend=backend)
    shown = "".join(traceback.format_exception(caught.value))
    assert "quoting" not in str(caught.value)
    assert "quoting" not in shown
    assert type(caught.value) is StoreError


@pytest.mark.parametrize("stored", ["", "a password", base64.b64encode(SECRET[:31]).decode(), "é"])
def test_what_else_lies_in_the_keyring_is_left_alone(stored: str) -> None:
    drawer = Drawer()
    drawer.kept["app", "cache"] = stored
    with pytest.raises(StoreError, match="something else"):
        KeyringKey("app", "cache", backend=drawer)
    assert drawer.kept == {("app", "cache"): stored}
    with pytest.raises(ConfigurationError):
        KeyringKey("", "cache", backend=drawer)


# --- the extra --------------------------------------------------------------------------------------------------------

WITHOUT = """
import sys
for name in ("cryptography", "keyring"):
    sys.modules[name] = None
from ondevice_sdk.errors import BackendUnavailable
from ondevice_sdk.privacy import vault
for call in (lambda: vault.MemoryKey().scoped("responses", "ab" * 32), lambda: vault.KeyringKey("app", "cache")):
    try:
        call()
    except BackendUnavailable as error:
        print(error.reason, "|", error.hint)
"""


def test_without_the_extra_the_line_to_type_is_said_and_nothing_heavy_is_imported() -> None:
    def run(code: str) -> list[str]:
        finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        return finished.stdout.splitlines()

    hint = 'pip install "ondevice-sdk[cache]"'
    assert run(WITHOUT) == [f"no cryptography | {hint}", f"no keyring | {hint}"]
    loaded = "import sys, ondevice_sdk.privacy.vault; print({'cryptography', 'keyring', 'fcntl'} & set(sys.modules))"
    assert run(loaded) == ["set()"]


def test_the_errors_are_of_the_one_tree() -> None:
    from ondevice_sdk.privacy.vault import EntryRefused

    refused = EntryRefused("length")
    assert isinstance(refused, OnDeviceError)
    assert refused.code == StoreError.code
