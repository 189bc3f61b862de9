"""The child process of `from_hub`: lists a repository and downloads files with `huggingface_hub`.

A process of its own, because that library reads its settings when it is imported, loads a native module, and needs
its telemetry switched off by environment variables that are not ours to set in the app. It stands alone: it is run by
its path, and imports nothing of the SDK. Lines of JSON on standard output; the last one tells the end.
"""

from __future__ import annotations

import json
import sys
from typing import NoReturn


def main(repository: str, revision: str, names: list[str], directory: str) -> None:
    """With names: download them into the directory. Without: list what there is."""
    try:
        from huggingface_hub import HfApi
    except ImportError:
        _end(kind="missing")
    api = HfApi(library_name="ondevice-sdk")
    try:
        if names:
            for name in names:
                api.hf_hub_download(repository, name, revision=revision, local_dir=directory)
            _end(kind="done")
        info = api.model_info(repository, revision=revision, files_metadata=True)
        for sibling in info.siblings or []:
            digest = sibling.lfs.sha256 if sibling.lfs else None
            _say(name=sibling.rfilename, size=sibling.size, sha256=digest)
        _end(kind="listed", commit=info.sha)
    except Exception as error:  # noqa: BLE001 (whatever it is, it is told across the pipe)
        response = getattr(error, "response", None)
        kinds = [cls.__name__ for cls in type(error).__mro__]
        number = getattr(error, "errno", None)
        _end(kind="error", error=kinds, status=getattr(response, "status_code", None), errno=number)


def _say(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")


def _end(**values: object) -> NoReturn:
    _say(**values)
    sys.stdout.flush()
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[4:], sys.argv[3])
