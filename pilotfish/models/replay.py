"""Answers recorded earlier, as a model: experiments and tests without a key, at no cost.

``replay:answers.parquet`` (or ``.jsonl``, ``.csv``) answers by the text of the last user message;
``replay:MODEL`` answers from the configured store by the request's key, as if MODEL were there. What was
not recorded is refused, never made up. Cost and latency are the recorded ones, so savings come out as
they would have been; nothing is waited for.

Memory: the columns stay in Arrow, and the index is two arrays of 64-bit numbers (16 bytes a row): the
prompts' hashes in order and where they came from. Equal hashes are told apart by comparing the prompts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pilotfish.config import Config
from pilotfish.errors import ConfigError, InputError, RequestRefused
from pilotfish.models.settings import RemoteSettings, read_settings
from pilotfish.records import Completion, Request

_ROWS_PER_STEP = 65_536
# A JSON line must fit into one of Arrow's blocks.
_JSON_BLOCK = 64 << 20
_FILE_TYPES = (".parquet", ".jsonl", ".ndjson", ".csv")


class ReplaySettings(RemoteSettings, kw_only=True, frozen=True):
    """Settings of the ``replay`` backend; of the remote ones, only the name counts.

    Attributes:
        prompt: The column with the prompts.
        answer: The column with the answers; a number or truth value counts as its text.
        cost: The column with US dollars, or "" for unknown costs.
        latency: The column with seconds, or "".
        repeats: A prompt with several answers gives the ``"first"`` each time, or all in turn and again
            from the start (``"cycle"``).
    """

    prompt: str = "prompt"
    answer: str = "answer"
    cost: str = ""
    latency: str = ""
    repeats: Literal["first", "cycle"] = "first"


class AnswerSource(Protocol):
    """What is needed of a store; :class:`pilotfish.store.Store` is one."""

    def get(self, keys: Sequence[str]) -> dict[str, Completion]:
        """The answers that are known."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class ReplayModel:
    """Recorded answers from a file.

    Args:
        file: Parquet, JSONL or CSV; the ending says which.
        settings: See :class:`ReplaySettings`.

    Raises:
        InputError: The file is missing or cannot be read.
        ConfigError: It lacks a column, or a setting is wrong.
    """

    def __init__(self, file: str | Path, **settings: Any) -> None:
        self.settings = read_settings("replay", ReplaySettings, settings)
        self.path = Path(file)
        self.name = self.settings.name or self.path.stem
        table = _read(self.path, self.settings)
        self._prompts = _text_column(table[self.settings.prompt])
        self._answers = _text_column(table[self.settings.answer])
        self._costs = _numbers(table, self.settings.cost)
        self._latencies = _numbers(table, self.settings.latency)
        hashes = np.empty(len(self._prompts), dtype=np.int64)
        for start in range(0, len(hashes), _ROWS_PER_STEP):
            part = self._prompts.slice(start, _ROWS_PER_STEP).to_pylist()
            hashes[start : start + len(part)] = [hash(prompt) for prompt in part]
        # Stable, so that rows with the same prompt stay in the file's order.
        self._rows = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._rows]
        self._turns: dict[str, int] = {}

    @staticmethod
    def from_spec(
        rest: str, settings: Mapping[str, Any], config: Config
    ) -> ReplayModel | StoreReplayModel:
        """Build from ``replay:FILE``, or from ``replay:MODEL`` with the configured store."""
        if rest.lower().endswith(_FILE_TYPES):
            return ReplayModel(rest, **settings)
        if not rest:
            raise ConfigError(
                "Got 'replay:' without a source.",
                remedy="Write replay:FILE.parquet or replay:MODEL",
            )
        checked = read_settings("replay", ReplaySettings, settings)
        from pilotfish.store import open_store

        return StoreReplayModel(rest, open_store(config.store), name=checked.name)

    def __len__(self) -> int:
        return len(self._hashes)

    def __repr__(self) -> str:
        return f"ReplayModel({str(self.path)!r}, rows={len(self)})"

    async def complete(self, request: Request) -> Completion:
        """The recorded answer.

        Raises:
            RequestRefused: The prompt was not recorded, or without an answer.
        """
        prompt = request.prompt
        rows = self._find(prompt)
        if not rows:
            raise RequestRefused(
                f"{self.path} has no answer for the prompt {_shortened(prompt)}, only for "
                f"{len(self)} others.",
                remedy=f"Record it first, or check the column: prompt={self.settings.prompt!r}",
            )
        turn = 0
        if self.settings.repeats == "cycle":
            turn = self._turns.get(prompt, 0)
            self._turns[prompt] = (turn + 1) % len(rows)
        row = rows[turn]
        answer = self._answers[row].as_py()
        if answer is None:
            raise RequestRefused(
                f"{self.path} has an empty {self.settings.answer!r} in data row {row + 1}, for the "
                f"prompt {_shortened(prompt)}."
            )
        await asyncio.sleep(0)
        return Completion(
            text=answer,
            model=self.name,
            cost=_number(self._costs, row),
            latency=_number(self._latencies, row) or 0.0,
        )

    def _find(self, prompt: str) -> list[int]:
        """Rows of this prompt, in the file's order."""
        wanted = hash(prompt)
        first, last = np.searchsorted(self._hashes, wanted, "left"), len(self._hashes)
        rows = []
        for position in range(int(first), last):
            if self._hashes[position] != wanted:
                break
            row = int(self._rows[position])
            if self._prompts[row].as_py() == prompt:
                rows.append(row)
                if self.settings.repeats == "first":
                    break
        return rows


class StoreReplayModel:
    """What a model answered earlier, from a store.

    Args:
        model: The identity under which the answers were kept: the recorded model's name.
        store: Where they are.
        name: The name that answers carry; default: the model's.
    """

    def __init__(self, model: str, store: AnswerSource, *, name: str = "") -> None:
        self.model = model
        self.name = name or model
        self._store = store

    def __repr__(self) -> str:
        return f"StoreReplayModel({self.model!r})"

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    async def complete(self, request: Request) -> Completion:
        """The recorded answer, with its recorded cost and latency.

        Raises:
            RequestRefused: The store has no answer to this request from this model.
        """
        key = request.key(self.model)
        found = (await asyncio.to_thread(self._store.get, [key])).get(key)
        if found is None:
            raise RequestRefused(
                f"The store has no answer of {self.model!r} for the prompt "
                f"{_shortened(request.prompt)} with the parameters {dict(request.params)}.",
                remedy=f"Ask {self.model} with the same parameters first, or name the model as then.",
            )
        return replace(found, model=self.name)


def _read(path: Path, settings: ReplaySettings) -> pa.Table:
    columns = [settings.prompt, settings.answer, settings.cost, settings.latency]
    wanted = [column for column in dict.fromkeys(columns) if column]
    try:
        names, table = _load(path, wanted)
    except FileNotFoundError:
        raise InputError(f"No recorded answers at {str(path)!r}.") from None
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
    missing = [column for column in wanted if column not in names]
    if missing or table is None:
        raise ConfigError(
            f"{path} has the columns {names}, but not {missing}.",
            remedy="Name them: prompt=..., answer=..., cost=..., latency=...",
        )
    return table


def _load(path: Path, wanted: list[str]) -> tuple[list[str], pa.Table | None]:
    """Column names, and the wanted columns unless one is missing."""
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as pq

        names = pq.read_schema(path).names
        return names, pq.read_table(path, columns=wanted) if set(wanted) <= set(names) else None
    if path.suffix.lower() == ".csv":
        from pyarrow import csv

        # Prompts may span lines; an empty field is an empty text.
        table = csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True))
    else:
        from pyarrow import json

        table = json.read_json(path, read_options=json.ReadOptions(block_size=_JSON_BLOCK))
    names = table.column_names
    return names, table.select(wanted) if set(wanted) <= set(names) else None


def _text_column(column: pa.ChunkedArray) -> pa.Array:
    # 64-bit offsets: a million prompts may be more than the 2 GB that 32 bits address.
    array = pc.cast(column, pa.large_string()).combine_chunks()
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _numbers(table: pa.Table, column: str) -> pa.ChunkedArray | None:
    return pc.cast(table[column], pa.float64()) if column else None


def _number(column: pa.ChunkedArray | None, row: int) -> float | None:
    value = None if column is None else column[row].as_py()
    return None if value is None else float(value)


def _shortened(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 200 else prompt[:200] + "...")
