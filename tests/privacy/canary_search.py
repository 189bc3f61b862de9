"""Looks for random words, in every plain disguise that a file, a log or memory may have them in."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

_CHUNK = 1 << 24


def random_word(kind: str) -> str:
    """A word that occurs nowhere else; letters and digits only, so that JSON, `repr` and URLs leave it as it is."""
    return f"canary{kind}{secrets.token_hex(12)}"


def disguises(word: str) -> dict[str, bytes]:
    """The bytes to look for, by the name of the encoding."""
    plain = word.encode()
    forms = {
        "utf-8": plain,
        "utf-16-le": word.encode("utf-16-le"),
        "utf-16-be": word.encode("utf-16-be"),
        "utf-32-le": word.encode("utf-32-le"),
        "hex": plain.hex().encode(),
        "HEX": plain.hex().upper().encode(),
        "reversed": plain[::-1],
        "percent": "".join(f"%{byte:02X}" for byte in plain).encode(),
    }
    for shift in range(3):  # base64 looks different at each of three distances from its beginning
        encoded = base64.b64encode(bytes(shift) + plain)
        certain = encoded[4 if shift else 0 : len(encoded) - 4]  # without what the neighbours have a part in
        forms[f"base64 at {shift}"] = certain
    return forms


class Search:
    """Finds words, by name, in bytes, texts and folders."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._forms = {
            form: f"{name} as {how}" for name, word in words.items() for how, form in disguises(word).items()
        }
        self._pattern = re.compile(b"|".join(re.escape(form) for form in sorted(self._forms, key=len, reverse=True)))
        self._longest = max(map(len, self._forms))

    def in_bytes(self, data: bytes) -> set[str]:
        """What occurs, as "name as encoding"."""
        return {self._forms[match.group()] for match in self._pattern.finditer(data)}

    def in_text(self, text: str) -> set[str]:
        """The same of a text."""
        return self.in_bytes(text.encode("utf-8", "surrogatepass"))

    def in_file(self, path: Path) -> set[str]:
        """The same of a file of any size."""
        found: set[str] = set()
        tail = b""
        with path.open("rb") as file:
            while part := file.read(_CHUNK):
                found |= self.in_bytes(tail + part)
                tail = part[-self._longest :]
        return found

    def in_folder(self, folder: Path, skip: Collection[Path] = ()) -> dict[str, set[str]]:
        """What occurs in names, contents, targets of links and notes on files, by path."""
        hits: dict[str, set[str]] = {}
        for path in everything(folder):
            if path not in skip:
                with contextlib.suppress(FileNotFoundError):  # somebody else's, and gone
                    if found := self._at(path):
                        hits[str(path)] = found
        return hits

    def _at(self, path: Path) -> set[str]:
        found = self.in_bytes(os.fsencode(path.name))
        if path.is_symlink():
            return found | self.in_bytes(os.fsencode(path.readlink()))
        if path.is_file():
            found |= self.in_file(path)
        for note in os.listxattr(path):
            found |= self.in_bytes(note.encode() + os.getxattr(path, note))
        return found


def everything(folder: Path) -> Iterator[Path]:
    """Every file and folder below a folder."""
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(root, name)
