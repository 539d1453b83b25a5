"""Labelled data sets: from the files of the catalogue to texts with labels in words.

Their packages store them in whatever form suited their authors; a reader per form turns them into
:class:`Row` values. Numbers are replaced by the labels' names. Three sets are mended, because as packed
they would mislead whoever measures on them: TREC's label names (:data:`TREC_NAMES`), the header of 20
Newsgroups, which names the group (:func:`_newsgroups`), and line breaks in Yahoo! Answers.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pilotfish.config import Config, load_config
from pilotfish.errors import DownloadError, InputError
from pilotfish.models.catalogue import CATALOGUE, Entry, File, folder, locate

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("train", "test")


class Row(NamedTuple):
    """One labelled text; ``split`` is ``"train"`` or ``"test"``."""

    text: str
    label: str
    split: str


def load_dataset(name: str, config: Config | None = None) -> pa.Table:
    """A pulled data set as a table with string columns ``text``, ``label`` and ``split``.

    Raises:
        UnknownName: The catalogue has no such name.
        InputError: The name is a model's.
        MissingModel: It was not pulled yet.
    """
    import pyarrow as pa

    config = config or load_config()
    entry = CATALOGUE[name]
    if entry.kind != "data":
        known = ", ".join(e.name for e in CATALOGUE.values() if e.kind == "data")
        raise InputError(f"{name!r} is no data set, but a {entry.kind}.", remedy=f"Known: {known}")
    locate(name, config)
    rows = list(read(entry, folder(entry, config)))
    columns = {key: [getattr(row, key) for row in rows] for key in Row._fields}
    return pa.table(columns, schema=pa.schema([(key, pa.string()) for key in Row._fields]))


def read(entry: Entry, place: Path) -> Iterator[Row]:
    """The rows of an entry whose files lie in ``place``."""
    reader = READERS[entry.reader]
    for file in entry.files:
        yield from reader(place / file.name, file)


def paths(place: Path) -> list[Path]:
    """The JSONL files that :func:`materialise` wrote, train first."""
    return [path for split in SPLITS if (path := place / f"{split}.jsonl").exists()]


def materialise(entry: Entry, place: Path, to: Path | None = None) -> list[Path]:
    """Write ``train.jsonl`` and ``test.jsonl``, a line ``{"text", "label"}`` per row.

    Args:
        entry: The data set.
        place: The folder its pulled files lie in.
        to: Where to write; default ``place``, where files that are already written are kept.

    Returns:
        The files; a set without one of the two splits has one file.

    Raises:
        DownloadError: A file cannot be written.
    """
    target = to or place
    wanted = [place / file.name for file in entry.files]
    if to is None and (written := paths(place)) and _newer(written, wanted):
        return written
    partial = {split: target / f".{split}.jsonl.partial" for split in SPLITS}
    try:
        target.mkdir(parents=True, exist_ok=True)
        used = set()
        streams = {split: partial[split].open("w", encoding="utf-8") for split in SPLITS}
        try:
            for row in read(entry, place):
                line = json.dumps({"text": row.text, "label": row.label}, ensure_ascii=False)
                streams[row.split].write(f"{line}\n")
                used.add(row.split)
        finally:
            for stream in streams.values():
                stream.close()
        for split in SPLITS:
            if split in used:
                os.replace(partial[split], target / f"{split}.jsonl")
            else:
                partial[split].unlink()
    except OSError as error:
        raise DownloadError(
            f"{entry.name} could not be written to {target}: {error.strerror or error}.",
            remedy="Make room there, or name another folder with --to.",
        ) from error
    return paths(target)


def _newer(written: list[Path], sources: list[Path]) -> bool:
    oldest = min(path.stat().st_mtime_ns for path in written)
    return all(path.stat().st_mtime_ns <= oldest for path in sources)


def _delimited(path: Path, delimiter: str) -> Iterator[list[str]]:
    """The rows behind the header; fields may be as long as they like."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream, delimiter=delimiter)
        next(rows)
        yield from rows


def _tsv(path: Path, file: File) -> Iterator[Row]:
    for text, label in _delimited(path, "\t"):
        yield Row(text, label, file.split)


def _trec(path: Path, file: File) -> Iterator[Row]:
    for row in _tsv(path, file):
        yield row._replace(label=TREC_NAMES[row.label])


def _yahoo(path: Path, file: File) -> Iterator[Row]:
    for row in _tsv(path, file):
        yield row._replace(text=row.text.replace("\\n", "\n"))


def _newsgroups(path: Path, file: File) -> Iterator[Row]:
    """Cut the header: "Newsgroup:sci.spaceDocument_id: 6" is the label in the text."""
    for row in _tsv(path, file):
        header = rf"Newsgroup:\s*{re.escape(row.label)}\s*document_id:\s*\d+"
        yield row._replace(text=re.sub(header, "", row.text, count=1, flags=re.IGNORECASE))


def _sst2(path: Path, file: File) -> Iterator[Row]:
    import pyarrow as pa

    names = ("negative", "positive")
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()
        for sentence, label in zip(
            table["sentence"].to_pylist(), table["label"].to_pylist(), strict=True
        ):
            yield Row(sentence.strip(), names[label], file.split)


def _imdb(path: Path, file: File) -> Iterator[Row]:
    for number, (text, label) in enumerate(_delimited(path, ",")):
        yield Row(text.replace("<br />", "\n"), label, "train" if number < 25_000 else "test")


def _sms(path: Path, file: File) -> Iterator[Row]:
    for number, (_, spam, text) in enumerate(_delimited(path, ",")):
        yield Row(text, "spam" if spam == "1" else "ham", "test" if number % 5 == 4 else "train")


READERS: dict[str, Callable[[Path, File], Iterator[Row]]] = {
    "tsv": _tsv,
    "tsv-trec": _trec,
    "tsv-yahoo": _yahoo,
    "tsv-newsgroups": _newsgroups,
    "arrow-sst2": _sst2,
    "csv-imdb": _imdb,
    "csv-sms": _sms,
}

# The package numbered TREC's classes in one published order and named them in another, so that every
# "Who ...?" is called ENTY:color. Position by position, the left name (theirs) means the right one;
# reading questions of each of the 47 confirms it.
TREC_NAMES = {
    "ABBR:abb": "manner",
    "ABBR:exp": "creative work",
    "ENTY:animal": "animal",
    "ENTY:body": "expansion of abbreviation",
    "ENTY:color": "person",
    "ENTY:cremat": "group or organisation",
    "ENTY:currency": "title",
    "ENTY:dismed": "definition",
    "ENTY:event": "date",
    "ENTY:food": "reason",
    "ENTY:instru": "event",
    "ENTY:lang": "state",
    "ENTY:letter": "description",
    "ENTY:other": "count",
    "ENTY:plant": "other",
    "ENTY:product": "letter",
    "ENTY:religion": "religion",
    "ENTY:sport": "food",
    "ENTY:substance": "country",
    "ENTY:symbol": "color",
    "ENTY:techmeth": "equivalent term",
    "ENTY:termeq": "city",
    "ENTY:veh": "body part",
    "ENTY:word": "disease or medicine",
    "DESC:def": "mountain",
    "DESC:desc": "money",
    "DESC:manner": "product",
    "DESC:reason": "period",
    "HUM:gr": "substance",
    "HUM:ind": "sport",
    "HUM:title": "plant",
    "HUM:desc": "technique",
    "LOC:city": "size",
    "LOC:country": "instrument",
    "LOC:mount": "abbreviation",
    "LOC:other": "speed",
    "LOC:state": "word",
    "NUM:code": "language",
    "NUM:count": "percentage",
    "NUM:date": "code",
    "NUM:dist": "distance",
    "NUM:money": "temperature",
    "NUM:ord": "symbol",
    "NUM:other": "rank",
    "NUM:period": "vehicle",
    "NUM:perc": "weight",
    "NUM:speed": "currency",
}
