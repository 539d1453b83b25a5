"""Generated texts and steps for the tests of curation; importable by worker processes and Ray actors."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pilotfish.curate.step import ROW, TEXT, State, Step, Verdict

WORDS = [
    *(
        "the",
        "a",
        "of",
        "river",
        "stone",
        "light",
        "small",
        "large",
        "fish",
        "swims",
        "under",
        "cold",
    ),
    *(
        "water",
        "keeps",
        "größe",
        "naïve",
        "日本語",
        "привет",
        '"quoted"',
        "back\\slash",
        "tab\there",
    ),
]


def documents(n: int, seed: int = 0, longest: int = 60) -> list[dict[str, Any]]:
    """Rows with a text, an id, a number and something nested; every tenth text occurs twice."""
    draw = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for i in range(n):
        text = " ".join(draw.choices(WORDS, k=draw.randint(0, longest)))
        if i % 10 == 9:
            text = rows[draw.randrange(len(rows))]["text"]
        rows.append(
            {"id": f"d{i}", "text": text, "stars": draw.randint(0, 5) / 2, "meta": {"a": [i]}}
        )
    return rows


def as_lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


class Quality:
    """A score that the text alone decides, a tag, and a threshold."""

    name = "quality"
    reads = {"stars": "double"}  # noqa: RUF012  (as a user would write it)

    def __init__(self, least: float = 0.3) -> None:
        self.least = least

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        digests = [hashlib.md5(text.encode()).digest() for text in batch.column(TEXT).to_pylist()]
        score = np.array([int.from_bytes(digest[:4], "big") / 2**32 for digest in digests])
        score += 0.01 * batch.column("stars").fill_null(0).to_numpy(zero_copy_only=False)
        low = score < self.least
        tag = pa.array(np.where(score > 0.6, "good", "fair")).dictionary_encode()
        return Verdict(
            {"quality": pa.array(score), "grade": tag},
            pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(len(low), np.int8), mask=~low), pa.array(["quality.too_low"])
            ),
            pa.array(np.abs(score - self.least)),
        )


class Unique:
    """Of equal texts the first one stays."""

    name = "unique"

    def map(self, batch: pa.RecordBatch) -> State:
        hashes = [
            int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
            for text in batch.column(TEXT).to_pylist()
        ]
        return pa.record_batch(
            {"row": batch.column(ROW), "hash": pa.array(np.array(hashes, np.uint64))}
        )

    def reduce(self, states: Iterable[State], folder: Path) -> Step:
        table = pa.Table.from_batches(states)
        table = table.sort_by([("hash", "ascending"), ("row", "ascending")])
        hashes, rows = table["hash"].to_numpy(), table["row"].to_numpy()
        again = np.concatenate([[False], hashes[1:] == hashes[:-1]])
        np.save(folder / "rows.npy", np.sort(rows[again]))
        return Drop(folder / "rows.npy")


class Drop:
    """Drops the rows whose numbers stand in a file."""

    name = "unique"

    def __init__(self, path: Path) -> None:
        self.path = path

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        drop = np.isin(batch.column(ROW).to_numpy(), np.load(self.path, mmap_mode="r"))
        return Verdict({}, pa.array(np.where(drop, "unique.again", None), pa.string()))


class Upper:
    """Rewrites the text."""

    name = "upper"

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        return Verdict({TEXT: pa.array([t.upper() for t in batch.column(TEXT).to_pylist()])})


class Killed:
    """Kills its process, as want of memory does, when it meets a row; once, if a file says so."""

    name = "killed"

    def __init__(self, row: int, armed: str) -> None:
        self.row = row
        self.armed = armed

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        rows = batch.column(ROW).to_numpy()
        if rows[0] <= self.row <= rows[-1] and os.path.exists(self.armed):
            os.kill(os.getpid(), signal.SIGKILL)
        return Verdict({})


class SlowToFit:
    """Burns so many seconds of the processor for each batch that it maps, and to reduce."""

    name = "slow"

    def __init__(self, map_seconds: float, reduce_seconds: float) -> None:
        self.map_seconds = map_seconds
        self.reduce_seconds = reduce_seconds

    def map(self, batch: pa.RecordBatch) -> State:
        _burn(self.map_seconds)
        return pa.record_batch({"n": pa.array([len(batch)])})

    def reduce(self, states: Iterable[State], folder: Path) -> Step:
        _burn(self.reduce_seconds)
        return Upper()


def _burn(seconds: float) -> None:
    started = time.process_time()
    while time.process_time() < started + seconds:
        pass
