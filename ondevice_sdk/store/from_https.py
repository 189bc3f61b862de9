"""Source `https://...`: the standard library's client, with resuming, retries and strict redirects."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ondevice_sdk.catalogue.spec import Artifact
from ondevice_sdk.errors import ConfigurationError, DownloadFailed, ModelCorrupt
from ondevice_sdk.store.files import CHUNK, private_dir, require_room, store_errors
from ondevice_sdk.store.place import Fetched, OnBytes, Place

_TIMEOUT = 60.0  # seconds without a byte
_ATTEMPTS = 5  # in a row without progress
_LIMIT = 1 << 40  # bytes, where the size is not known
_TRY_AGAIN = {408, 429, 500, 502, 503, 504}
_CUT = (ConnectionError, TimeoutError, http.client.HTTPException)


def fetch(rest: str, artifact: Artifact, place: Place) -> tuple[Fetched, ...]:
    """Download, going on where an earlier attempt (also of an earlier process) was cut."""
    url = f"{artifact.source.partition(':')[0]}:{rest}"
    _require_private(url)
    host = urllib.parse.urlsplit(url).hostname or ""
    with store_errors("keep a download", place.partial):
        private_dir(place.partial)
    transfer = _Transfer(url, host, place.partial / "data", artifact.size, place.on_bytes)
    failures = 0
    while True:
        before = transfer.done
        try:
            transfer.attempt()
            break
        except _Interrupted as cut:
            failures = 0 if transfer.done > before else failures + 1
            if failures >= _ATTEMPTS:
                what = f"the download from {host} was cut" if transfer.done or cut.status else f"{host} does not answer"
                raise DownloadFailed(
                    f"{what}, {failures} attempts in a row", host=host, status=cut.status
                ) from cut.__cause__
            time.sleep(cut.wait or min(0.5 * 2**failures, 20.0))
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    return (Fetched(transfer.path, name),)


class _Interrupted(Exception):
    """Worth another attempt, after `wait` seconds if the server asked for that."""

    def __init__(self, status: int | None = None, wait: float = 0.0) -> None:
        super().__init__()
        self.status = status
        self.wait = wait


@dataclass(slots=True)
class _Transfer:
    url: str
    host: str
    path: Path
    size: int | None  # as the catalogue says
    on_bytes: OnBytes

    @property
    def done(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def attempt(self) -> None:
        """Ask for what is missing.

        Raises:
            _Interrupted: it may work the next time. DownloadFailed, ModelCorrupt, StoreError: it will not.
        """
        start, validator = self.done, self._validator()
        if start and not validator:  # it might have become another file
            self.path.unlink()
            start = 0
        headers = {"User-Agent": "ondevice-sdk", "Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": validator}
        try:
            with _opener().open(urllib.request.Request(self.url, headers=headers), timeout=_TIMEOUT) as answer:  # noqa: S310 (the scheme is checked)
                self._receive(answer, start)
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error, start)
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise DownloadFailed(f"the certificate of {self.host} is not trusted", host=self.host) from error
            raise _Interrupted from error
        except http.client.InvalidURL as error:
            raise ConfigurationError("not a usable address: it has blanks or control characters") from error
        except _CUT as error:
            raise _Interrupted from error

    def _refused(self, error: urllib.error.HTTPError, start: int) -> None:
        if error.code == 416 and start:  # the kept part is not a beginning of that file, or already all of it
            if start == self.size:
                return
            self.path.unlink()
            raise _Interrupted(error.code) from error
        if error.code in _TRY_AGAIN:
            asked = error.headers.get("Retry-After", "")
            raise _Interrupted(error.code, min(float(asked), 30.0) if asked.isdigit() else 0.0) from error
        raise DownloadFailed(f"{self.host} answered {error.code}", host=self.host, status=error.code) from error

    def _receive(self, answer: http.client.HTTPResponse, start: int) -> None:
        if answer.status == 206:
            if not (answer.headers.get("Content-Range") or "").startswith(f"bytes {start}-"):
                self.path.unlink(missing_ok=True)
                raise _Interrupted(answer.status)
        elif answer.status == 200:
            start = 0
        else:
            raise DownloadFailed(f"{self.host} answered {answer.status}", host=self.host, status=answer.status)
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length is not None and length.isdigit() else None
        self._check_size(total)
        require_room(self.path.parent, (total or self.size or 0) - start)
        with store_errors("keep a download", self.path.parent):
            self._remember(answer.headers.get("ETag") or "", answer.headers.get("Last-Modified") or "")
            file = self.path.open("ab" if start else "wb")
        done = start
        with contextlib.closing(file):
            while chunk := answer.read1(CHUNK):
                done += len(chunk)
                if done > (self.size or _LIMIT):
                    self._check_size(done, exactly=False)
                with store_errors("keep a download", self.path.parent):
                    file.write(chunk)
                    file.flush()
                self.on_bytes(done, total or self.size)
        if total is not None and done < total:
            raise _Interrupted(answer.status)
        self._check_size(done)

    def _check_size(self, size: int | None, *, exactly: bool = True) -> None:
        limit = self.size or _LIMIT
        if size is None or size == self.size or (size <= limit and (self.size is None or not exactly)):
            return
        self.path.unlink(missing_ok=True)
        raise ModelCorrupt(
            f"what {self.host} sends has not the size that it should have",
            expected=f"{limit} bytes",
            actual=f"{size} bytes",
        )

    def _remember(self, etag: str, modified: str) -> None:
        validator = etag if etag and not etag.startswith("W/") else modified
        self.path.with_suffix(".json").write_text(json.dumps({"url": self.url, "validator": validator}))

    def _validator(self) -> str:
        try:
            value = json.loads(self.path.with_suffix(".json").read_bytes())
        except (OSError, ValueError):
            return ""
        if not isinstance(value, dict) or value.get("url") != self.url:
            return ""
        validator = value.get("validator")
        return validator if isinstance(validator, str) else ""


class _StrictRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if new.scheme != "https" and not (old.scheme == new.scheme == "http" and _is_loopback(new.hostname)):
            raise DownloadFailed(
                f"{old.hostname} redirects to an address that is not https", host=old.hostname, status=code
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> Any:
    """A client of our own: what the app installed with `install_opener` is none of our business."""
    return urllib.request.build_opener(_StrictRedirects())


def _require_private(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        private = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))
        usable = bool(parts.hostname) and (parts.port or 1) > 0 and "@" not in parts.netloc
    except ValueError as error:
        raise ConfigurationError("not a usable address") from error
    if not private:
        raise ConfigurationError(f"not an https address: {parts.scheme}://{parts.hostname}", hint="use https://")
    if not usable:
        raise ConfigurationError("not a usable address: it needs a host, and may not carry a user name")


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host or "").is_loopback
    return False
