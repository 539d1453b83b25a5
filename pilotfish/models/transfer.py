"""Fetching one URL into one file: resumable, verified, flat in memory.

A partial file is continued with a Range request; a server that ignores Range is read again from its
start. Bytes are hashed as they pass, so verifying costs no second reading. Cut connections and server
errors are tried again with growing pauses for as long as bytes keep coming.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import httpx2

from pilotfish.errors import SourceFailed

CHUNK = 1 << 18
ATTEMPTS = 4  # in a row without a single new byte
FIRST_PAUSE = 0.4  # seconds; doubles with every attempt that brought nothing
CONNECT_ATTEMPTS = 2  # a host that cannot be reached at all is given up sooner
REPORT_EVERY = 0.1  # seconds

_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a pull is.

    Attributes:
        name: The catalogue name.
        stage: ``"hub"``, ``"packages"``, ``"verifying"`` or ``"waiting"`` (another pull has the lock).
        done: Bytes that are here, of ``total``.
        total: Bytes to transfer; 0 when unknown.
        rate: Bytes per second lately; 0.0 before anything came.
        seconds_left: Estimate, or None when there is no rate yet.
    """

    name: str
    stage: str
    done: int = 0
    total: int = 0
    rate: float = 0.0
    seconds_left: float | None = None


Report = Callable[[Progress], None]


class Meter:
    """Counts the bytes of one pull and reports them at most ten times a second."""

    def __init__(self, name: str, report: Report | None) -> None:
        self.name = name
        self._report = report
        self.start("waiting", 0)

    def start(self, stage: str, total: int) -> None:
        """Begin a stage of ``total`` bytes."""
        self.stage, self.total, self.done = stage, total, 0
        self._rate, self._since, self._fresh = 0.0, time.monotonic(), 0
        self._reported = 0.0

    def already(self, count: int) -> None:
        """Count bytes that an earlier run had brought (negative: they had to be dropped)."""
        self.done = max(0, self.done + count)

    def add(self, count: int) -> None:
        """Count bytes that came just now."""
        now = time.monotonic()
        if self._rate == 0 and self._fresh == 0:
            self._since = now  # finding the server is no part of the rate
        self.done += count
        self._fresh += count
        if now - self._since >= 1:
            latest = self._fresh / (now - self._since)
            # Half the old rate: steady enough to read, and right again within a few seconds.
            self._rate = latest if self._rate == 0 else (self._rate + latest) / 2
            self._since, self._fresh = now, 0
        if now - self._reported >= REPORT_EVERY:
            self._reported = now
            self.report()

    def report(self) -> None:
        """Report now."""
        if self._report is None:
            return
        left = (self.total - self.done) / self._rate if self._rate and self.total else None
        self._report(
            Progress(
                self.name, self.stage, self.done, self.total, self._rate, left and max(0.0, left)
            )
        )


def hash_file(path: Path, digest: hashlib._Hash | None = None) -> hashlib._Hash:
    """SHA-256 of a file, or the given digest continued with it; a missing file is empty."""
    digest = digest or hashlib.sha256()
    if path.exists():
        with path.open("rb") as stream:
            while block := stream.read(CHUNK):
                digest.update(block)
    return digest


def download(
    client: httpx2.Client,
    url: str,
    target: Path,
    *,
    sha256: str | None,
    meter: Meter,
    size: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Bring a URL's bytes into ``target``, continuing what is there.

    Args:
        client: Sends the requests; follows redirects.
        url: What to fetch.
        target: The partial file; complete and verified when this returns.
        sha256: The hash it must have, or None when nobody said one.
        meter: Told of every byte.
        size: The size it must have, when known: another is refused before its bytes are read.
        headers: Sent besides Range.

    Raises:
        SourceFailed: Not reachable, refused, another size, or the hash is wrong (``target`` is then
            removed; after any other failure it is kept, to be continued).
        OSError: The disk is full or not writable.
    """
    attempts, pause = 0, FIRST_PAUSE
    resumed = target.exists() and target.stat().st_size > 0
    digest = hash_file(target)
    meter.already(target.stat().st_size if target.exists() else 0)
    while True:
        before = target.stat().st_size if target.exists() else 0
        try:
            digest = _once(client, url, target, digest, meter, size, headers or {})
        except httpx2.TransportError as error:
            connecting = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            reason, limit = _say(error), CONNECT_ATTEMPTS if connecting else ATTEMPTS
        except httpx2.HTTPStatusError as error:
            code = error.response.status_code
            reason = f"HTTP {code} {error.response.reason_phrase}".strip()
            limit = ATTEMPTS if code >= 500 or code in _PASSING else 0
        else:
            if sha256 is None or digest.hexdigest() == sha256:
                return
            meter.already(-target.stat().st_size)
            target.unlink()
            if not resumed:
                raise SourceFailed(
                    f"hash mismatch: got sha256 {digest.hexdigest()}, but expected {sha256}"
                )
            # What an earlier run left may have been damaged since: once more, from nothing.
            resumed, digest = False, hashlib.sha256()
            continue
        grew = (target.stat().st_size if target.exists() else 0) > before
        attempts, pause = (1, FIRST_PAUSE) if grew else (attempts + 1, pause * 2)
        if attempts >= limit:
            raise SourceFailed(reason)
        time.sleep(pause)
        digest = hash_file(target)


def _once(
    client: httpx2.Client,
    url: str,
    target: Path,
    digest: hashlib._Hash,
    meter: Meter,
    size: int | None,
    headers: Mapping[str, str],
) -> hashlib._Hash:
    """One request; returns the digest of the complete file."""
    have = target.stat().st_size if target.exists() else 0
    if size is not None and have == size:
        return digest
    wanted = {"Accept-Encoding": "identity", **headers}
    if have:
        wanted["Range"] = f"bytes={have}-"
    with client.stream("GET", url, headers=wanted) as response:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if _total(response) == have:
                return digest  # it was complete, only nobody had seen that yet
            _drop(target, have, meter)
            raise httpx2.RemoteProtocolError("the file is shorter than what was here before")
        response.raise_for_status()
        if response.status_code != HTTPStatus.PARTIAL_CONTENT or _start(response) != have:
            if have:
                _drop(target, have, meter)
            have, digest = 0, hashlib.sha256()
        total = _total(response)
        if size is not None and total is not None and total != size:
            raise SourceFailed(f"got a file of {total:,} bytes, but expected {size:,}")
        with target.open("ab") as out:
            have += _pour(response, out, digest, meter)
    if total is not None and have != total:
        raise httpx2.RemoteProtocolError(f"cut off after {have:,} of {total:,} bytes")
    return digest


def _pour(response: httpx2.Response, out: BinaryIO, digest: hashlib._Hash, meter: Meter) -> int:
    count = 0
    for block in response.iter_raw():  # a chunk size would hold back bytes that a cut then loses
        out.write(block)
        digest.update(block)
        meter.add(len(block))
        count += len(block)
    return count


def _drop(target: Path, have: int, meter: Meter) -> None:
    meter.already(-have)
    target.unlink(missing_ok=True)


def _start(response: httpx2.Response) -> int:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _total(response: httpx2.Response) -> int | None:
    """The size of the whole file, as far as the server says it."""
    if match := re.search(r"/(\d+)$", response.headers.get("Content-Range", "")):
        return int(match[1])
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() and response.status_code == HTTPStatus.OK else None


def _say(error: httpx2.TransportError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
