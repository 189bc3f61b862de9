"""One of several processes that use one cache at the same time.

Run as a script: `cache_neighbour.py directory number`. Prints a JSON object of what it saw.
"""

from __future__ import annotations

import json
import random
import sys

from ondevice_sdk.privacy.vault import CallerKey, EncryptedCache

MAX_BYTES = 200_000


def main(directory: str, number: int) -> None:
    choose = random.Random(number)
    key = CallerKey(bytes(32)).scoped("responses", "ab" * 32)
    hits = wrong = 0
    with EncryptedCache(directory, key, max_bytes=MAX_BYTES, chunk_bytes=4096) as cache:
        for _ in range(150):
            name = f"entry {choose.randrange(12)}"
            if choose.random() < 0.4:
                cache.put(name, name.encode() * choose.randrange(1, 4000))
            elif choose.random() < 0.05:
                cache.delete(name)
            else:
                content = cache.get(name)
                hits += content is not None
                wrong += content is not None and content != name.encode() * (len(content) // len(name))
        print(json.dumps({"hits": hits, "wrong": wrong, "refused": dict(cache.refused)}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
