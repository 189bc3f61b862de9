"""Caches that hold user text: encrypted files in a private directory, and the keys to them.

The app holds a `Key` and makes of it a `ScopedKey` for one purpose and one model. That one, and the directory, is all
that a sealed worker gets; it needs neither sockets nor a keyring for its `EncryptedCache`.
"""

from __future__ import annotations

from ondevice_sdk.privacy.vault.cache import EncryptedCache, Reader
from ondevice_sdk.privacy.vault.directory import CacheDirectory, Usage
from ondevice_sdk.privacy.vault.keys import CallerKey, Key, KeyringKey, MemoryKey, ScopedKey
from ondevice_sdk.privacy.vault.stream import EntryRefused, Reason

__all__ = [
    "CacheDirectory",
    "CallerKey",
    "EncryptedCache",
    "EntryRefused",
    "Key",
    "KeyringKey",
    "MemoryKey",
    "Reader",
    "Reason",
    "ScopedKey",
    "Usage",
]
