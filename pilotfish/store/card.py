"""An artifact's card: what it is, what it learned from, how good it is, and what it is made of.

The card is JSON that people can read. ``format`` changes only when an old reader would misread a new
card; what a newer Pilotfish adds besides is kept and written back (:attr:`Card.unknown`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from pilotfish import __version__
from pilotfish.errors import ArtifactError
from pilotfish.records import Json

FORMAT = 1
CARD_NAME = "card.json"
MAX_CARD_BYTES = 4 * 2**20

_LIBRARIES = ("numpy", "scipy", "scikit-learn", "safetensors", "skops")


@dataclass(frozen=True, slots=True)
class Card:
    """What ``card.json`` says.

    Attributes:
        name: The artifact's name.
        kind: What it is, e.g. ``"offload"``; says which code may load it.
        created: ISO time, UTC.
        pilotfish: The Pilotfish version that made it.
        task: Prompt template, labels, kind of task.
        learned_from: Models, counts, hash of the data.
        quality: Measured quality.
        certificate: What is promised, or None when nothing is.
        versions: Versions of the libraries it was made with.
        files: File name to ``{"sha256": hex, "bytes": size}``; filled in when it is saved.
        extra: Whatever its kind needs besides.
        format: Version of the card's layout.
        unknown: Entries that a newer Pilotfish wrote; kept as they are.
    """

    name: str
    kind: str
    created: str
    pilotfish: str
    task: Json = field(default_factory=dict)
    learned_from: Json = field(default_factory=dict)
    quality: Json = field(default_factory=dict)
    certificate: Json | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Json] = field(default_factory=dict)
    extra: Json = field(default_factory=dict)
    format: int = FORMAT
    unknown: Json = field(default_factory=dict)

    @classmethod
    def new(cls, *, name: str, kind: str, **values: Any) -> Card:
        """A card made now, by this Pilotfish, with these libraries; ``values`` are its other fields.

        >>> Card.new(name="topics", kind="offload").format
        1
        """
        made = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "pilotfish": __version__,
            "versions": {library: metadata.version(library) for library in _LIBRARIES},
        }
        return cls(name=name, kind=kind, **{**made, **values})

    def to_json(self) -> dict[str, Any]:
        """As JSON values; :meth:`from_json` is the inverse."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "unknown"}
        return {**self.unknown, **known}

    @classmethod
    def from_json(cls, values: Any, where: str = CARD_NAME) -> Card:
        """Check and read a card.

        Raises:
            ArtifactError: It is no card, or of a format that this Pilotfish does not know.
        """
        if not isinstance(values, dict):
            raise ArtifactError(f"{where}: got {_kind(values)}, but expected a JSON object.")
        version = values.get("format")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise ArtifactError(
                f"{where}: got format {version!r}, but expected a number from 1 to {FORMAT}.",
                remedy="Is this folder an artifact of Pilotfish?",
            )
        if version > FORMAT:
            raise ArtifactError(
                f"{where} has format {version}, but this Pilotfish ({__version__}) knows formats up "
                f"to {FORMAT}.",
                remedy=f'pip install "pilotfish>={values.get("pilotfish", "")}"',
            )
        known = {f.name for f in fields(cls)} - {"unknown"}
        for name, kind in _TYPES.items():
            if name not in values:
                raise ArtifactError(f"{where}: the entry {name!r} is missing.")
            if not isinstance(values[name], kind):
                raise ArtifactError(f"{where}: the entry {name!r} is {_kind(values[name])}.")
        for name, entry in values["files"].items():
            if not _is_file_entry(entry):
                raise ArtifactError(
                    f"{where}: got {entry!r} for the file {name!r}, but expected sha256 and bytes."
                )
        unknown = {name: value for name, value in values.items() if name not in known}
        return cls(**{name: values[name] for name in known if name in values}, unknown=unknown)


_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "kind", "created", "pilotfish"), str),
    **dict.fromkeys(("task", "learned_from", "quality", "versions", "files", "extra"), dict),
    "certificate": (dict, type(None)),
}


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"


def _is_file_entry(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    digest, size = entry.get("sha256"), entry.get("bytes")
    return (
        isinstance(digest, str)
        and len(digest) == 64
        and set(digest) <= set("0123456789abcdef")
        and type(size) is int
        and size >= 0
    )


def write_json(values: Any, where: str) -> bytes:
    """Readable JSON that any reader accepts.

    Raises:
        ArtifactError: There is something in it that JSON has no word for.
    """
    try:
        text = json.dumps(_plain(values), indent=1, ensure_ascii=False, allow_nan=False)
        return text.encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps(_plain(values), indent=1, allow_nan=False).encode("ascii") + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{where} cannot be written as JSON: {error}.") from error


def read_json(blob: bytes, where: str) -> Any:
    """Parse JSON.

    Raises:
        ArtifactError: It is none, or nested too deeply.
    """
    try:
        return json.loads(blob)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{where} is not valid JSON: {error}.") from error


def _plain(value: Any) -> Any:
    """Mappings and tuples as dicts and lists; NaN and infinities, which JSON lacks, as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
