"""Deduplication beside datatrove, rensa and datasketch: CPU time, memory, the same decisions.

A share of the corpus's pages comes a second time with some of their words replaced, and the exact Jaccard
similarity of each such pair is computed from sets of shingles. All tools have the same shingles (five
words), bands (14) and rows (8) and work on the first pages (``curate_scaling.py`` has all of the corpus).
Pilotfish with default settings, reading and writing included, beside datatrove, which does the same;
beside rensa and datasketch, which neither read nor write, the step alone.

The part ``semantic`` needs semhash in the environment of Pilotfish.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from curate_dedup_tools import BANDS, ROWS, SIMILARITY, WORDS, shingled
from curate_pipeline import curated, finished

from pilotfish.curate.dedup.minhash import MinHash
from pilotfish.curate.dedup.shingles import shingles
from pilotfish.curate.rules.documents import pieces

EDITS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)  # shares of words that are replaced
COPIED = 0.2
NEAR = 0.68  # half of the pairs as similar as this share a band
EDGES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999, 1.01)


def pages(files: list[Path]) -> Iterator[str]:
    """Pages of the corpus that hold any text."""
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(500, columns=["text"]):
            yield from (text for text in batch.column(0).to_pylist() if text.strip("\0 \n"))


def with_copies(of: Iterator[str], seed: int = 0) -> Iterator[tuple[str, int]]:
    """The pages with edited copies among them; of a copy the number of what was copied, else -1."""
    draw = random.Random(seed)
    last: list[str] = []
    n = 0
    for page in of:
        for text, origin in ((page, -1), ("", 0)):
            if origin == 0:
                if draw.random() >= COPIED:
                    continue
                back = draw.randrange(len(last)) + 1
                words, origin = last[-back].split(" "), n - back
                for at in draw.sample(range(len(words)), round(draw.choice(EDITS) * len(words))):
                    words[at] = f"edited{draw.randrange(10**9)}"
                text = " ".join(words)
            yield text, origin
            last = [*last[-499:], text]
            n += 1


def write_copies(
    files: list[Path], folder: Path, most: int
) -> tuple[list[Path], list[tuple[int, int]]]:
    """Pages with copies as Parquet files of 20,000, ``most`` or some more; and the pairs of both."""
    made, pairs, n = with_copies(pages(files)), [], 0
    shards: list[Path] = []
    while n < most and (rows := list(itertools.islice(made, 20_000))):
        shards.append(folder / f"{len(shards):03}.parquet")
        table = pa.table(
            {
                "id": [str(n + i) for i in range(len(rows))],
                "text": [text.replace("\0", " ") for text, _ in rows],
            }
        )
        pq.write_table(table, shards[-1], compression="zstd", row_group_size=1000)
        pairs += [(origin, n + i) for i, (_, origin) in enumerate(rows) if origin >= 0]
        n += len(rows)
    return shards, pairs


def head(shards: list[Path], n: int, to: Path) -> pa.Table:
    """The first pages, as Parquet and as JSON lines."""
    tables: list[pa.Table] = []
    while sum(table.num_rows for table in tables) < n and len(tables) < len(shards):
        tables.append(pq.read_table(shards[len(tables)]))
    table = pa.concat_tables(tables).slice(0, n)
    pq.write_table(table, to, compression="zstd", row_group_size=1000)
    with to.with_suffix(".jsonl").open("w") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
    return table


def run(python: Path | str, tool: str, given: Path | str) -> dict[str, Any]:
    """What one tool says of a file, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(__file__).with_name("curate_dedup_tools.py")
        finished([python, script, tool, given, f"{folder}/out.json"])
        found: dict[str, Any] = json.loads(Path(f"{folder}/out.json").read_text())
    n = len(found["groups"]) or int(str(given))
    found["documents"] = n
    found["documents_per_cpu_second"] = round(n / found["cpu_seconds"])
    found["cpu_seconds"] = round(found["cpu_seconds"], 2)
    found["with_imports"] = round(found["with_imports"], 2)
    found["dropped"] = sum(group != row for row, group in enumerate(found["groups"]))
    return found


def by_own_words(one: str, other: str) -> float:
    """The Jaccard similarity of two texts by the shingles of Pilotfish."""
    lower = [pc.utf8_lower(pa.array([text])) for text in (one, other)]
    sets = [set(shingles(next(pieces(text)), WORDS).hashes.tolist()) for text in lower]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1]) if sets[0] or sets[1] else float("nan")


def compare(
    made: list[str], pairs: list[tuple[int, int]], groups: dict[str, list[int]]
) -> dict[str, Any]:
    """By the true similarity of pairs: how many theory finds and each tool found, and who differs."""
    n = min(map(len, groups.values()))
    pairs = [pair for pair in pairs if max(pair) < n]
    true = []
    for one, other in pairs:
        a, b = set(shingled(made[one])), set(shingled(made[other]))
        true.append(len(a & b) / len(a | b) if a or b else float("nan"))
    similarity = np.array(true)
    chance = 1 - (1 - similarity**ROWS) ** BANDS
    # In scripts without blanks Pilotfish takes characters for words, so that it sees other similarities.
    own_similarity = np.array([by_own_words(made[one], made[other]) for one, other in pairs])
    own_chance = np.nan_to_num(1 - (1 - own_similarity**ROWS) ** BANDS, nan=1.0)
    found = {
        name: np.array([of[one] == of[other] for one, other in pairs])
        for name, of in groups.items()
    }
    rows = []
    for low, high in itertools.pairwise(EDGES):
        own = (similarity >= low) & (similarity < high)
        if own.any():
            rows.append(
                {
                    "similarity": f"{low} to {min(high, 1.0)}",
                    "pairs": int(own.sum()),
                    "theory": round(float(chance[own].sum()), 1),
                    "theory, words as Pilotfish cuts them": round(float(own_chance[own].sum()), 1),
                    **{name: int(said[own].sum()) for name, said in found.items()},
                }
            )
    short = np.isnan(similarity)
    sure = ~short & (np.minimum(chance, own_chance) > 0.9999)
    sure |= ~short & (np.maximum(chance, own_chance) < 0.0001)
    expected = own_chance * (1 - chance) + chance * (1 - own_chance)
    ours = found["pilotfish"]
    differs = {}
    for name, said in found.items():
        if name != "pilotfish":
            differs[name] = {
                "pairs that differ": int((said != ours)[~short].sum()),
                "expected of independent permutations": round(float(expected[~short].sum()), 1),
                "differ though theory is sure": int((said != ours)[sure].sum()),
            }
    return {
        "documents": n,
        "planted pairs": len(pairs),
        "pairs of fewer than five words": int(short.sum()),
        "of these joined": {name: int(said[short].sum()) for name, said in found.items()},
        "pairs whose similarity is another by Pilotfish's words": int(
            (np.abs(similarity - own_similarity) > 0.01).sum()
        ),
        "found by similarity": rows,
        "differences": differs,
        "rows dropped": {
            name: sum(of[row] != row for row in range(n)) for name, of in groups.items()
        },
    }


def s_curve(made: list[str], pairs: list[tuple[int, int]]) -> dict[str, Any]:
    """Pairs that share a band, beside what theory says of their true similarity."""
    texts = [made[row] for pair in pairs for row in pair]
    rows = pa.array(range(len(texts)), pa.uint64())
    state = MinHash(WORDS, BANDS, ROWS).map(pa.record_batch({"row": rows, "text": texts}))
    bands = np.zeros((len(texts), BANDS), np.uint64)
    at = state.column("row").to_numpy()
    bands[at] = state.column("bands").flatten().to_numpy().reshape(-1, BANDS)
    found = (bands[::2] == bands[1::2]).any(axis=1) & np.isin(np.arange(0, len(texts), 2), at)
    similarity = np.array([by_own_words(made[one], made[other]) for one, other in pairs])
    known = ~np.isnan(similarity)
    similarity, found = similarity[known], found[known]
    chance = 1 - (1 - similarity**ROWS) ** BANDS
    near = similarity >= NEAR
    by = []
    for low, high in itertools.pairwise(EDGES):
        own = (similarity >= low) & (similarity < high)
        if own.any():
            spread = float(np.sqrt((chance * (1 - chance))[own].sum()))
            off = float(found[own].sum() - chance[own].sum())
            by.append(
                {
                    "similarity": f"{low} to {min(high, 1.0)}",
                    "pairs": int(own.sum()),
                    "theory": round(float(chance[own].sum()), 1),
                    "found": int(found[own].sum()),
                    "standard deviations off": round(off / spread, 2) if spread > 0.05 else None,
                }
            )
    return {
        "pairs": len(similarity),
        f"recall, of pairs of {NEAR} and above": round(float(found[near].mean()), 4),
        "recall by theory": round(float(chance[near].mean()), 4),
        f"precision, of {NEAR} and above among found": round(float(near[found].mean()), 4),
        "precision by theory": round(float(chance[near].sum() / chance.sum()), 4),
        "by similarity": by,
    }


def beside_datatrove(python: Path, tool: str, sample: Path) -> dict[str, Any]:
    """The whole of a deduplication, files to files, from both formats; and datatrove's groups."""
    found: dict[str, Any] = {}
    for name, path in (("JSON lines", sample.with_suffix(".jsonl")), ("Parquet", sample)):
        ours, theirs = curated("minhash", [path]), run(python, tool, path)
        groups = theirs.pop("groups")
        times = ours["documents_per_cpu_second"] / theirs["documents_per_cpu_second"]
        found[name] = {"pilotfish": ours, tool: theirs, "times as fast": round(times, 1)}
    return found | {"groups": groups}


def measure(options: argparse.Namespace, files: list[Path]) -> dict[str, Any]:
    """All but the semantic step; ``files`` are the corpus."""
    here, peers = sys.executable, options.datatrove
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shards, pairs = write_copies(files, folder, options.more)
        few, more = folder / "few.parquet", folder / "more.parquet"
        tables = {
            path: head(shards, n, path) for path, n in ((few, options.few), (more, options.more))
        }
        alone = {"pilotfish": run(here, "pilotfish minhash", more)}
        alone |= {tool: run(peers, tool, more) for tool in ("rensa", "datasketch")}
        alone["pilotfish, again"] = run(here, "pilotfish minhash", more)
        exact = run(here, "pilotfish exact", more)
        shipped = beside_datatrove(peers, "datatrove", few)
        pattern = beside_datatrove(peers, "datatrove by pattern", more)
        groups = {tool: found.pop("groups") for tool, found in alone.items()}
        groups.pop("pilotfish, again")
        exact.pop("groups")
        groups["datatrove by pattern"] = pattern.pop("groups")
        few_groups = {
            "pilotfish": run(here, "pilotfish minhash", few)["groups"],
            "datatrove": shipped.pop("groups"),
        }
        made = tables[more].column("text").to_pylist()
    reduces = [run(here, "pilotfish reduce", str(n)) for n in (250_000, 2_500_000)]
    for found in reduces:
        found.pop("groups")
    speed = alone["pilotfish"]["documents_per_cpu_second"]
    return {
        "the step alone, without reading and writing": alone,
        "times as fast, the step alone": {
            tool: round(speed / alone[tool]["documents_per_cpu_second"], 1)
            for tool in ("rensa", "datasketch")
        },
        "files to files, datatrove as shipped": shipped,
        "files to files, datatrove with a pattern for tokenizer": pattern,
        "exact, the step alone": exact,
        "decisions": {
            "by pattern": compare(made, pairs, groups),
            "as shipped": compare(made, pairs, few_groups),
        },
        "S-curve": s_curve(made, [pair for pair in pairs if max(pair) < len(made)]),
        "reduce alone": reduces,
    }


def measure_semantic(options: argparse.Namespace, files: list[Path]) -> dict[str, Any]:
    """Beside semhash with the same encoder, and how many of all similar pairs clusters miss."""
    from pilotfish.models.load import load_encoder

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "sample.parquet"
        shards, _ = write_copies(files, Path(name), options.semantic)
        texts = head(shards, options.semantic, path).column("text").to_pylist()
        ours = run(sys.executable, "pilotfish semantic", path)
        theirs = run(sys.executable, "semhash", path)
    vectors = load_encoder("static").encode(texts)
    vectors = vectors.astype(np.float16).astype(np.float32)
    near = np.zeros(len(vectors), bool)
    for start in range(0, len(vectors), 1000):
        stop = min(start + 1000, len(vectors))
        before = vectors[start:stop] @ vectors[:stop].T > SIMILARITY
        before &= np.arange(stop) < np.arange(start, stop)[:, None]
        near[start:stop] = before.any(axis=1)
    ours_dropped = np.array([group != row for row, group in enumerate(ours.pop("groups"))])
    theirs.pop("groups")
    return {
        "max_similarity": SIMILARITY,
        "pilotfish": ours,
        "semhash": theirs,
        "rows with a similar one before them, all pairs compared": int(near.sum()),
        "of these dropped": int((near & ours_dropped).sum()),
        "dropped beside these": int((ours_dropped & ~near).sum()),
    }
