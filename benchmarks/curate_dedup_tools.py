"""One tool's deduplication of a file; curate_dedup.py runs it, each tool in a process of its own.

    python benchmarks/curate_dedup_tools.py TOOL CORPUS.parquet OUT.json

TOOL is a name of :data:`TOOLS`, run by a Python that has it. OUT gets CPU seconds, peak memory, and the
number of each row's group, the same for rows that the tool takes for duplicates. All shingles are five
words; all signatures 14 bands of 8. datatrove reads and writes with its own reader and writer, and may
be given JSON lines; the others are given texts. datatrove 0.10 needs ``xxhash<4``.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from curate_pipeline import peak_megabytes

if TYPE_CHECKING:
    import pyarrow as pa

WORDS, BANDS, ROWS = 5, 14, 8
WORD = re.compile(r"\w+")
BATCH = 512
SIMILARITY = 0.95  # of the semantic tools


def batches(path: str) -> Iterator[pa.RecordBatch]:
    """Batches with row numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    at, file = 0, pq.ParquetFile(path)
    # Group by group: iter_batches holds more the longer the file is, which would hide what tools hold.
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, ["text"], use_threads=False).combine_chunks()
        for batch in table.to_batches(BATCH):
            rows = pa.array(range(at, at + len(batch)), pa.uint64())
            yield pa.record_batch({"row": rows, "text": batch.column(0)})
            at += len(batch)


def shingled(text: str) -> list[str]:
    """The shingles of a text, by a regular expression."""
    words = WORD.findall(text.lower())
    return [" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)]


def joined(pairs: Iterable[tuple[int, int]], n: int) -> list[int]:
    """The smallest row of each row's group."""
    parent = list(range(n))

    def find(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for one, other in pairs:
        a, b = find(one), find(other)
        parent[max(a, b)] = min(a, b)
    return [find(row) for row in range(n)]


class OnDisk:
    """States as the pipeline keeps them."""

    def __init__(self, path: Path, states: Iterator[pa.RecordBatch]) -> None:
        import pyarrow as pa

        self.path = path
        first = next(states)
        options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 1))
        with pa.ipc.new_stream(str(path), first.schema, options=options) as writer:
            writer.write_batch(first)
            for state in states:
                writer.write_batch(state)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        with pa.OSFile(str(self.path)) as file, pa.ipc.open_stream(file) as reader:
            yield from reader


def by_step(step: Any, path: str) -> tuple[list[int], dict[str, float]]:
    """Map, reduce and apply of a step of Pilotfish, without reading, as of the other libraries."""
    spent = {"map": 0.0, "reduce": 0.0, "apply": 0.0}

    def mapped() -> Iterator[pa.RecordBatch]:
        for batch in batches(path):
            start = time.process_time()
            state = step.map(batch)
            spent["map"] += time.process_time() - start
            yield state

    with tempfile.TemporaryDirectory() as folder:
        states = OnDisk(Path(folder) / "states.arrow", mapped())
        start = time.process_time()
        fitted = step.reduce(states, Path(folder))
        spent["reduce"] = time.process_time() - start
        groups: list[int] = []
        for batch in batches(path):
            start = time.process_time()
            column = fitted.apply(batch).columns[f"{step.name}_group"]
            spent["apply"] += time.process_time() - start
            rows = batch.column("row").to_pylist()
            found = zip(rows, column.to_pylist(), strict=True)
            groups += [row if kept is None else kept for row, kept in found]
    return groups, spent


def pilotfish_minhash(path: str) -> tuple[list[int], dict[str, float]]:
    from pilotfish.curate.dedup.minhash import MinHash

    return by_step(MinHash(WORDS, BANDS, ROWS, tag=True), path)


def pilotfish_exact(path: str) -> tuple[list[int], dict[str, float]]:
    from pilotfish.curate.dedup.exact import Exact

    return by_step(Exact(tag=True), path)


def pilotfish_semantic(path: str) -> tuple[list[int], dict[str, float]]:
    from pilotfish.curate.dedup.semantic import Semantic

    return by_step(Semantic(SIMILARITY, keep="first", tag=True), path)


def semhash(path: str) -> tuple[list[int], dict[str, float]]:
    """With the same encoder. Its records must differ, so equal texts are one record."""
    from semhash import SemHash

    from pilotfish.models.load import load_encoder

    marks = [time.process_time()]
    texts = [text for batch in batches(path) for text in batch.column("text").to_pylist()]
    hashed = SemHash.from_records(texts, model=load_encoder("static"))
    marks.append(time.process_time())
    kept = set(hashed.self_deduplicate(SIMILARITY).selected)
    marks.append(time.process_time())
    seen: dict[str, int] = {}
    groups = []
    for row, text in enumerate(texts):
        first = seen.setdefault(text, row)
        groups.append(row if text in kept and first == row else -1)
    return groups, dict(zip(("encode and index", "query"), np.diff(marks).tolist(), strict=True))


def rensa(path: str) -> tuple[list[int], dict[str, float]]:
    """Regex shingles; its own hashing of strings and signatures; bands in a dictionary."""
    from rensa import RMinHash

    seen: dict[tuple[int, bytes], int] = {}
    pairs, at, spent = [], 0, dict.fromkeys(("shingles", "signatures", "index"), 0.0)
    for batch in batches(path):
        start = time.process_time()
        sets = [shingled(text) for text in batch.column("text").to_pylist()]
        spent["shingles"] += time.process_time() - start
        start = time.process_time()
        matrix = RMinHash.digest_matrix_from_token_sets(sets, BANDS * ROWS, 1)
        digests = np.array(matrix.to_rows(), np.uint32)
        spent["signatures"] += time.process_time() - start
        start = time.process_time()
        for i, digest in enumerate(digests):
            if sets[i]:
                for band in range(BANDS):
                    key = (band, digest[band * ROWS : (band + 1) * ROWS].tobytes())
                    first = seen.setdefault(key, at + i)
                    if first != at + i:
                        pairs.append((first, at + i))
        spent["index"] += time.process_time() - start
        at += len(sets)
    return joined(pairs, at), spent


def datasketch(path: str) -> tuple[list[int], dict[str, float]]:
    """Regex shingles, update_batch and MinHashLSH."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    pairs, row, spent = [], 0, dict.fromkeys(("shingles", "signatures", "index"), 0.0)
    for batch in batches(path):
        for text in batch.column("text").to_pylist():
            marks = [time.process_time()]
            tokens = [shingle.encode() for shingle in shingled(text)]
            marks.append(time.process_time())
            signature = MinHash(num_perm=BANDS * ROWS, seed=1)
            signature.update_batch(tokens)
            marks.append(time.process_time())
            if tokens:
                pairs += [(other, row) for other in index.query(signature)]
                index.insert(row, signature)
            marks.append(time.process_time())
            for name, seconds in zip(spent, np.diff(marks).tolist(), strict=True):
                spent[name] += seconds
            row += 1
    return joined(pairs, row), spent


def _datatrove(path: str, pattern: bool) -> tuple[list[int], dict[str, float]]:
    from curate_datatrove import reader, writer
    from datatrove.pipeline.dedup import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from loguru import logger

    logger.remove()
    config = MinhashConfig(n_grams=WORDS, num_buckets=BANDS, hashes_per_bucket=ROWS)
    with tempfile.TemporaryDirectory() as folder:
        sign = MinhashDedupSignature(f"{folder}/signatures", config)
        if pattern:
            sign.word_tokenizer = type("ByPattern", (), {"word_tokenize": WORD.findall})()
        sign.get_shingles("One sentence, to load what is loaded once.")
        marks = [time.process_time()]
        sign.run(reader(Path(path)).run())
        marks.append(time.process_time())
        for rank in range(BANDS):
            pair = MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/pairs", config=config)
            pair.run(None, rank, BANDS)
        marks.append(time.process_time())
        MinhashDedupCluster(f"{folder}/pairs", f"{folder}/out", config, save_cluster_id=True).run()
        marks.append(time.process_time())
        kept = MinhashDedupFilter(f"{folder}/out").run(reader(Path(path)).run())
        n = sum(1 for _ in writer(Path(path), f"{folder}/kept").run(kept))
        marks.append(time.process_time())
        clusters = Path(folder) / "out" / "000000.clusters"  # none where there are no duplicates
        found = (
            np.fromfile(clusters, np.uint32).reshape(-1, 2).tolist() if clusters.exists() else []
        )
        removed = Path(folder) / "out" / "000000.remove"
        n += removed.stat().st_size // 4 if removed.exists() else 0
    first: dict[int, int] = {}
    pairs = [(first.setdefault(cluster, row), row) for row, cluster in found]
    names = ("signatures", "buckets", "cluster", "filter")
    return joined(pairs, n), dict(zip(names, np.diff(marks).tolist(), strict=True))


def datatrove(path: str) -> tuple[list[int], dict[str, float]]:
    """As shipped, with spaCy's words."""
    return _datatrove(path, pattern=False)


def datatrove_by_pattern(path: str) -> tuple[list[int], dict[str, float]]:
    """With the regular expression in place of its tokenizer."""
    return _datatrove(path, pattern=True)


def candidates(count: str) -> tuple[list[int], dict[str, float]]:
    """Only ``reduce`` of MinHash, on so many rows of made-up band hashes; one in a hundred is a copy."""
    from pilotfish.curate.dedup.minhash import MinHash

    class Made:
        def __iter__(self) -> Iterator[pa.RecordBatch]:
            import pyarrow as pa

            draw = np.random.default_rng(0)
            for start in range(0, int(count), 5000):
                rows = np.arange(start, start + 5000, dtype=np.uint64)
                hashes = draw.integers(0, 1 << 64, (5000, BANDS), np.uint64)
                hashes[50:100] = hashes[:50]
                flat = pa.array(hashes.ravel())
                bands = pa.FixedSizeListArray.from_arrays(flat, BANDS)
                yield pa.record_batch({"row": pa.array(rows), "bands": bands})

    next(iter(Made()))  # what is loaded once is not the making of rows
    before = time.process_time()
    for _ in Made():
        pass
    making = time.process_time() - before
    with tempfile.TemporaryDirectory() as folder:
        before = time.process_time()
        fitted = MinHash(tag=True).reduce(Made(), Path(folder))
        spent = time.process_time() - before - 2 * making
        assert len(fitted._found[0]) == 1 + int(count) // 50
    return [], {"reduce": spent}


TOOLS: dict[str, Callable[[str], tuple[list[int], dict[str, float]]]] = {
    "pilotfish minhash": pilotfish_minhash,
    "pilotfish exact": pilotfish_exact,
    "pilotfish semantic": pilotfish_semantic,
    "pilotfish reduce": candidates,
    "semhash": semhash,
    "rensa": rensa,
    "datasketch": datasketch,
    "datatrove": datatrove,
    "datatrove by pattern": datatrove_by_pattern,
}


def main() -> None:
    tool, corpus, out = sys.argv[1:]
    if Path(corpus).suffix == ".parquet" and not tool.startswith("datatrove"):
        next(batches(corpus))  # what is loaded once, by the first reading of any file
    began = time.process_time()
    groups, spent = TOOLS[tool](corpus)
    Path(out).write_text(
        json.dumps(
            {
                "cpu_seconds": sum(spent.values()),
                "cpu_seconds_of_each": {name: round(value, 2) for name, value in spent.items()},
                "with_imports": time.process_time() - began,
                "peak_megabytes": round(peak_megabytes()),
                "groups": groups,
            }
        )
    )


if __name__ == "__main__":
    main()
