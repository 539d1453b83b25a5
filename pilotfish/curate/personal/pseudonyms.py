"""Replace personal data by pseudonyms that can be undone exactly, by who has the mapping.

A pseudonym is twelve digits of a keyed hash of what it stands for (HMAC-SHA-256, RFC 2104), so one value
has one pseudonym in all texts, and nobody without the key can find it by trying values. An e-mail address
becomes one under a domain that cannot exist (``.invalid``, RFC 2606), a phone number one with a country
code that nobody has (+999); other kinds stand in brackets.

All values are collected before any is replaced. So no two get the same pseudonym, and what looks like a
pseudonym in the data is itself replaced: restoring gives back every text, character by character.

The mapping is a file of JSON lines that only its owner may read. It holds the personal data and is never
part of the output; encrypt it, or keep it on an encrypted disk. The work folder holds data as it was
until the run is over. Fitting needs about 300 bytes of memory for each different value.
"""

from __future__ import annotations

import copy
import hmac
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import pyarrow as pa

from pilotfish.curate.personal.search import Search
from pilotfish.curate.step import TEXT, State, Step, Verdict
from pilotfish.errors import ConfigError, InputError
from pilotfish.models.redaction import Found, replace_found

DIGITS = 12
SHAPE = re.compile(
    rf"\[[A-Za-z_]\w*-(?P<a>[0-9]{{{DIGITS}}})\]"
    rf"|u(?P<b>[0-9]{{{DIGITS}}})@pseudonym\.invalid"
    rf"|\+999(?P<c>[0-9]{{{DIGITS}}})"
)
LEAST_KEY = 32  # bytes
_OWNER_ONLY = 0o600
_LIKE_ONE = "text"  # the kind of what looks like a pseudonym and is none


class Entry(msgspec.Struct, frozen=True):
    """One pseudonym.

    Attributes:
        id: Its twelve digits.
        kind: What it stands for.
        value: What stood there.
    """

    id: str
    kind: str
    value: str


def read_mapping(path: str | Path) -> dict[str, str]:
    """The values by the digits of their pseudonyms, from a mapping file.

    Raises:
        InputError: It cannot be read or is none.
    """
    return {entry.id: entry.value for entry in _entries(Path(path).expanduser())}


def restore(text: str, mapping: Mapping[str, str]) -> str:
    """The text as it was before pseudonyms; what is not in the mapping stays.

    Args:
        text: With pseudonyms.
        mapping: From :func:`read_mapping`.

    >>> restore("Write to u000000000001@pseudonym.invalid.", {"000000000001": "jo@example.org"})
    'Write to jo@example.org.'
    """
    return SHAPE.sub(lambda found: mapping.get(_digits(found), found[0]), text)


def _digits(found: re.Match[str]) -> str:
    return found["a"] or found["b"] or found["c"]


class Pseudonyms:
    """Replace personal data by pseudonyms.

    Args:
        key_file: Holds the key, at least 32 random bytes. The same key gives the same pseudonyms.
        mapping: The file that is needed to restore, outside the output. One that exists is added to.
        kinds: What to look for; all of :data:`~pilotfish.models.redaction.KINDS` by default.
        finder: A function that finds more; see :class:`~pilotfish.curate.personal.search.Search`.
        model: A model that finds more, such as ``rampart``; see :class:`PersonalData
            <pilotfish.curate.personal.data.PersonalData>`.
        min_confidence: How sure it must be, above 0 to 1.
        natural: E-mail addresses and phone numbers keep their form; else all stand in brackets.

    Raises:
        ConfigError: The key is missing or short, the mapping's folder is missing, or a setting is wrong.
        UnknownName: There is no such kind or model.
        MissingModel: The model was not pulled.
    """

    name = "pseudonyms"

    def __init__(
        self,
        key_file: str,
        mapping: str,
        kinds: list[str] | None = None,
        finder: str = "",
        natural: bool = True,
        model: str = "",
        min_confidence: float = 0.5,
    ) -> None:
        mapping = os.path.expanduser(mapping)
        try:
            self._key = Path(key_file).expanduser().read_bytes()
        except OSError as error:
            raise ConfigError(
                f"The step 'pseudonyms': cannot read the key {key_file!r}: {error.strerror}.",
                remedy=f"To make one: (umask 077; head -c 32 /dev/urandom > {key_file})",
            ) from None
        if len(self._key) < LEAST_KEY:
            raise ConfigError(
                f"The step 'pseudonyms': got a key of {len(self._key)} bytes, but expected at least "
                f"{LEAST_KEY} random ones."
            )
        if not Path(mapping).absolute().parent.is_dir():  # here, not after the data were read
            raise ConfigError(
                f"The step 'pseudonyms': got mapping = {mapping!r}, but there is no such folder.",
                remedy=f"mkdir -p {Path(mapping).parent}",
            )
        self.mapping = mapping
        self._key_file = key_file
        self.natural = natural
        self.search = Search(self.name, kinds, finder, model, min_confidence)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Files that must not be part of the output."""
        return self._key_file, self.mapping

    def map(self, batch: pa.RecordBatch) -> State:
        """The different values of these rows."""
        texts = batch.column(TEXT).to_pylist()
        values = {
            (kind, text[start:end])
            for text, found in zip(texts, find_values(texts, self.search), strict=True)
            for start, end, kind in found
        }
        kinds, found = zip(*sorted(values), strict=True) if values else ((), ())
        columns = [pa.array(kinds, pa.string()), pa.array(found, pa.string())]
        return pa.RecordBatch.from_arrays(columns, ["kind", "value"])

    def reduce(self, states: Iterable[State], folder: Path) -> Replace:
        """Give every value its pseudonym and write the mapping.

        Raises:
            InputError: The mapping cannot be read or written.
        """
        path = Path(self.mapping)
        entries = _entries(path) if path.exists() else []
        values = {
            (kind, value)
            for state in states
            for kind, value in zip(*(column.to_pylist() for column in state.columns), strict=True)
        }
        known = {(entry.kind, entry.value): entry.id for entry in entries}
        taken = set(known.values())
        exceptions: dict[tuple[str, str], str] = {}
        for kind, value in sorted(values):
            plain = keyed_digits(self._key, kind, value)
            digits, tries = known.get((kind, value), plain), 0
            if (kind, value) not in known:
                while digits in taken:
                    tries += 1
                    digits = keyed_digits(self._key, kind, value, tries)
                taken.add(digits)
                entries.append(Entry(digits, kind, value))
            if digits != plain:
                exceptions[kind, value] = digits
        _write(path, entries)
        return Replace(self.search, self._key, exceptions, self.natural)

    def rehearse(
        self, states: Iterable[State], folder: Path, share: float, ask: bool
    ) -> tuple[Step, str]:
        """As the whole; the mapping is read but not written."""
        step = copy.copy(self)
        step.mapping = str(folder / "mapping.jsonl")
        if Path(self.mapping).exists():
            _write(Path(step.mapping), _entries(Path(self.mapping)))
        return step.reduce(states, folder), ""


class Replace:
    """Replaces what is found by its pseudonym.

    Args:
        search: Finds it.
        key: Of the hash.
        exceptions: The digits of values whose hash another value has.
        natural: As of :class:`Pseudonyms`.
    """

    name = Pseudonyms.name

    def __init__(
        self, search: Search, key: bytes, exceptions: Mapping[tuple[str, str], str], natural: bool
    ) -> None:
        self.search = search
        self._key = key
        self._exceptions = dict(exceptions)
        self.natural = natural

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Replace in each text; the report shows the new ones."""
        before = batch.column(TEXT).to_pylist()
        found = find_values(before, self.search)
        texts = [self._replaced(*pair) for pair in zip(before, found, strict=True)]
        return Verdict({TEXT: pa.array(texts, pa.string())}, private=True)

    def replaced(self, text: str) -> str:
        """The text with pseudonyms, from which :func:`restore` makes it again."""
        return self._replaced(text, find_values([text], self.search)[0])

    def _replaced(self, text: str, found: list[Found]) -> str:
        if not found:
            return text
        used: dict[str, str] = {}

        def write(kind: str, value: str, natural: bool) -> str:
            digits = self._exceptions.get((kind, value)) or keyed_digits(self._key, kind, value)
            used[digits] = value
            if natural and kind == "email":
                return f"u{digits}@pseudonym.invalid"
            return f"+999{digits}" if natural and kind == "phone" else f"[{kind}-{digits}]"

        if self.natural:
            new = replace_found(text, found, lambda kind, value: write(kind, value, True))
            # What stands beside it could make one look like another; brackets end where they end.
            if restore(new, used) == text and all(_digits(m) in used for m in SHAPE.finditer(new)):
                return new
        return replace_found(text, found, lambda kind, value: write(kind, value, False))


def keyed_digits(key: bytes, kind: str, value: str, tries: int = 0) -> str:
    """The digits of a value's pseudonym; ``tries`` gives others where they are taken."""
    message = f"{kind}\0{tries}\0{value}".encode()
    return f"{int.from_bytes(hmac.digest(key, message, 'sha256')) % 10**DIGITS:0{DIGITS}d}"


def find_values(texts: list[str], search: Search) -> list[list[Found]]:
    """What gets a pseudonym: first what looks like one, then personal data, in order."""
    values = []
    for text, found in zip(texts, search(texts), strict=True):
        alike = [Found(m.start(), m.end(), _LIKE_ONE) for m in SHAPE.finditer(text)]
        apart = [f for f in found if all(f.end <= a.start or f.start >= a.end for a in alike)]
        values.append(sorted(alike + apart) if alike else found)
    return values


def _entries(path: Path) -> list[Entry]:
    try:
        return [msgspec.json.decode(line, type=Entry) for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise InputError(f"Cannot read the mapping {str(path)!r}: {error.strerror}.") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{str(path)!r} is no mapping of pseudonyms: {error}.") from error


def _write(path: Path, entries: Iterable[Entry]) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    lines = b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
    try:
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
        with os.fdopen(handle, "wb") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise InputError(f"Cannot write the mapping {str(path)!r}: {error.strerror}.") from error
