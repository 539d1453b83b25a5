"""Writing shards: the rows that stayed, as they were, with the columns that steps added.

JSON lines come out byte for byte as they went in when no step added or replaced a column. Parquet and CSV
keep their columns and types. From one format to another, each row is converted by its own fields.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO, cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pilotfish.curate.formats.folder import Folder, writing
from pilotfish.curate.formats.json_lines import merged
from pilotfish.curate.formats.json_values import json_line, python_rows
from pilotfish.curate.step import SOURCE, TEXT
from pilotfish.errors import ConfigError

FORMATS = {"jsonl": ".jsonl", "parquet": ".parquet", "csv": ".csv", "text": ".txt"}
PACKINGS = {"none": "", "gzip": ".gz", "zstd": ".zst"}
ROW_GROUP_BYTES = 2 << 20
OTHER = "other_fields"  # JSON text of the fields that have no column


class OutputOptions(msgspec.Struct, frozen=True):
    """How shards are written.

    Attributes:
        format: One of :data:`FORMATS`.
        packing: One of :data:`PACKINGS`; Parquet packs inside and ignores it.
        text: The name of the text column.
        fields: From JSON lines to columns: field to ``string``, ``int64``, ``double`` or ``bool``.
    """

    format: str
    packing: str
    text: str
    fields: dict[str, str] = {}

    def name(self, number: int) -> str:
        """The file name of a shard."""
        packing = "" if self.format == "parquet" else PACKINGS[self.packing]
        return f"part-{number:05d}{FORMATS[self.format]}{packing}"


def is_shard(name: str) -> bool:
    """Whether a file is called as a shard is.

    >>> is_shard("part-00007.jsonl.zst"), is_shard("part-one.jsonl")
    (True, False)
    """
    return re.fullmatch(r"part-\d{5,}\.\w+(\.\w+)?", name) is not None


class ShardWriter:
    """Writes one shard, which appears when it is finished; a shard without rows is not written.

    Args:
        folder: Where to.
        number: The shard's.
        options: How.
    """

    def __init__(self, folder: Folder, number: int, options: OutputOptions) -> None:
        self._folder = folder
        self.name = options.name(number)
        self._options = options
        self._stack = ExitStack()
        self._sink: Any = None
        self._writer: Any = None
        self._held: list[pa.RecordBatch] = []
        self.rows = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, batch: pa.RecordBatch, changed: Sequence[str]) -> None:
        """Write rows.

        Args:
            batch: The rows, with their source.
            changed: The columns that steps added or replaced.
        """
        self.rows += batch.num_rows
        with writing(self._folder.path(self.name)):
            self._open()
            columns = {self._written(name): _plain(batch.column(name)) for name in changed}
            if self._options.format == "jsonl":
                self._sink.write(self._json(batch, columns))
            elif self._options.format == "text":
                lines = pc.replace_substring_regex(batch.column(TEXT), r"[\r\n]+", " ")
                self._sink.write(("\n".join(lines.to_pylist()) + "\n").encode())
            else:
                self._write_table(self._table(batch, columns))

    def _written(self, name: str) -> str:
        return self._options.text if name == TEXT else name

    def _open(self) -> None:
        if self._sink is not None:
            return
        handle: BinaryIO = self._stack.enter_context(self._folder.put(self.name))
        packing = self._options.packing
        if packing != "none" and self._options.format != "parquet":
            raw = self._stack.enter_context(contextlib.closing(pa.PythonFile(handle, "w")))
            stream = pa.CompressedOutputStream(raw, packing)
            handle = cast(BinaryIO, self._stack.enter_context(contextlib.closing(stream)))
        self._sink = handle

    def _json(self, batch: pa.RecordBatch, columns: Mapping[str, pa.Array]) -> bytes:
        source = _source(batch)
        if source is not None and pa.types.is_binary(source.type):
            return merged(source, columns)
        rows = self._rows(batch, source, columns)
        return b"".join(json_line(row) + b"\n" for row in rows)

    def _rows(
        self, batch: pa.RecordBatch, source: pa.Array | None, columns: Mapping[str, pa.Array]
    ) -> Iterator[dict[str, Any]]:
        if source is None:
            old = [{self._options.text: text} for text in batch.column(TEXT).to_pylist()]
        else:
            old = python_rows(source)
        new = zip(*(column.to_pylist() for column in columns.values()), strict=True)
        for row, cells in zip(old, new if columns else [()] * len(old), strict=True):
            yield row | dict(zip(columns, cells, strict=True))

    def _table(self, batch: pa.RecordBatch, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
        source = _source(batch)
        if source is None:
            table = {self._options.text: batch.column(TEXT)}
        elif pa.types.is_binary(source.type):
            table = json_columns(source.to_pylist(), self._options.fields)
        else:
            names = [field.name for field in source.type]
            table = dict(zip(names, source.flatten(), strict=True))
        return pa.RecordBatch.from_pydict({**table, **columns})

    def _write_table(self, table: pa.RecordBatch) -> None:
        if self._writer is None:
            self._writer = self._stack.enter_context(self._table_writer(table.schema))
        if table.schema != self._writer_schema:
            table = fitted(table, self._writer_schema)
        self._held.append(table)
        if sum(held.nbytes for held in self._held) > ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Write what is held, to Parquet as a row group."""
        if self._held:
            held = pa.Table.from_batches(self._held)
            self._writer.write_table(held, held.num_rows)
            self._held.clear()

    def _table_writer(self, schema: pa.Schema) -> Any:
        self._writer_schema = schema
        if self._options.format == "parquet":
            import pyarrow.parquet

            return pyarrow.parquet.ParquetWriter(self._sink, schema, compression="zstd")
        nested = [field.name for field in schema if pa.types.is_nested(field.type)]
        if nested:
            raise ConfigError(
                f"The column {nested[0]!r} is {schema.field(nested[0]).type}, which CSV cannot hold.",
                remedy="Give --format jsonl or --format parquet",
            )
        import pyarrow.csv

        return pyarrow.csv.CSVWriter(self._sink, schema)

    def finish(self) -> str | None:
        """Make the shard appear; its name, or None when it had no rows."""
        with writing(self._folder.path(self.name)):
            self._flush()
            self._stack.close()
        return self.name if self.rows else None


def _source(batch: pa.RecordBatch) -> pa.Array | None:
    return batch.column(SOURCE) if SOURCE in batch.schema.names else None


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def fitted(table: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with the shard's schema: a column that is missing is null.

    Raises:
        ConfigError: A step gave a column another type, or adds columns only sometimes.
    """
    strange = [name for name in table.schema.names if name not in schema.names]
    if strange:
        raise ConfigError(
            f"The column {strange[0]!r} is only in some batches of a shard; a step must add the same "
            "columns to every batch."
        )
    columns = []
    for field in schema:
        if field.name not in table.schema.names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            columns.append(table.column(field.name).cast(field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ConfigError(
                f"The column {field.name!r} is {field.type} in one batch and "
                f"{table.schema.field(field.name).type} in another of a shard: {error}."
            ) from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def field_types(lines: Sequence[bytes]) -> dict[str, str]:
    """The columns that JSON lines become: field to type, by a sample.

    Texts, numbers and truth values keep their type where all values of the sample agree; everything else
    becomes JSON text.

    >>> field_types([b'{"a": 1, "b": [1]}', b'{"a": 2.5}'])
    {'a': 'double', 'b': 'string'}
    """
    names = {str: "string", bool: "bool", int: "int64", float: "double"}
    found: dict[str, set[str]] = {}
    for line in lines:
        for name, raw in _fields(line).items():
            kinds = found.setdefault(name, set())
            try:
                value = msgspec.json.decode(raw)
            except msgspec.DecodeError:  # a number that is too large for any column
                kinds.add("json")
                continue
            if value is not None:
                kinds.add(names.get(type(value), "json"))
    types = {}
    for name, kinds in found.items():
        if kinds == {"int64", "double"}:
            kinds = {"double"}
        types[name] = kinds.pop() if len(kinds) == 1 and kinds != {"json"} else "string"
    return types


def json_columns(lines: Sequence[bytes], fields: Mapping[str, str]) -> dict[str, pa.Array]:
    """JSON lines as columns; what does not fit its column goes to :data:`OTHER`, as JSON text."""
    decoders: dict[str, Any] = {
        name: msgspec.json.Decoder({"int64": int, "double": float, "bool": bool}.get(kind, str))
        for name, kind in fields.items()
    }
    columns: dict[str, list[Any]] = {name: [] for name in fields}
    others: list[str | None] = []
    for line in lines:
        row = _fields(line)
        for name, decoder in decoders.items():
            value = row.pop(name, None)
            cell = None
            if value is not None and bytes(value) != b"null":
                try:
                    cell = decoder.decode(value)
                    if fields[name] == "int64" and not -(2**63) <= cell < 2**63:
                        raise msgspec.ValidationError
                except msgspec.DecodeError:
                    cell = None
                    if fields[name] == "string":
                        cell = bytes(value).decode()
                    else:
                        row[name] = value
            columns[name].append(cell)
        others.append(msgspec.json.encode(row).decode() if row else None)
    arrays = {name: pa.array(cells, fields[name]) for name, cells in columns.items()}
    return arrays | {OTHER: pa.array(others, pa.string())}


def _fields(line: bytes) -> dict[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except ValueError:  # NaN, which only Python's own reader takes; it becomes null
        return msgspec.json.decode(
            msgspec.json.encode(json.loads(line)), type=dict[str, msgspec.Raw]
        )
