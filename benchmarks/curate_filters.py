"""The heuristic filter sets beside datatrove's.

Four sets with their published thresholds, in the order of FineWeb's own pipeline, what one drops not seen
by the next, on random samples of the corpus (``curate_scaling.py`` has all of it). Pilotfish as a user
would run it, with default settings; datatrove once as shipped (spaCy cuts words and sentences) and once
with its tokenizer replaced by the pattern of our own words and sentence ends, with its own reader and
writer. On the same samples both are run in turns, from Parquet and from JSON lines. Time is that of the
CPU, reading and writing included. Then each set judges each document of the sample on its own, and
decisions, reasons and C4's rewritten texts are compared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from curate_pipeline import curated, finished

from pilotfish.curate.rules.c4 import C4
from pilotfish.curate.rules.characters import word_pattern
from pilotfish.curate.rules.fineweb import FineWeb
from pilotfish.curate.rules.gopher_quality import GopherQuality
from pilotfish.curate.rules.gopher_repetition import GopherRepetition

SETS = (GopherRepetition(), GopherQuality(), C4(), FineWeb())
CHAIN = ",".join(step.name for step in SETS)
SENTENCE_END = r"""[.?!]["')\]]{0,3}(?=[ \t\n\r\x0b\x0c\x1c-\x1f]|\Z)"""
SAME = {
    "gopher_repetition": {
        "dup_para_frac": "repeated_paragraphs",
        "dup_para_char_frac": "repeated_paragraph_chars",
        "dup_line_frac": "repeated_lines",
        "dup_line_char_frac": "repeated_line_chars",
        **{f"top_{n}_gram": f"top_{n}_gram" for n in (2, 3, 4)},
        **{f"duplicated_{n}_n_grams": f"repeated_{n}_grams" for n in range(5, 11)},
    },
    "gopher_quality": {
        "gopher_short_doc": "too_few_words",
        "gopher_long_doc": "too_many_words",
        "gopher_below_avg_threshold": "words_too_short",
        "gopher_above_avg_threshold": "words_too_long",
        "gopher_too_many_hashes": "too_many_hashes",
        "gopher_too_many_ellipsis": "too_many_ellipses",
        "gopher_too_many_bullets": "too_many_bullet_lines",
        "gopher_too_many_end_ellipsis": "too_many_ellipsis_lines",
        "gopher_below_alpha_threshold": "too_few_alphabetic_words",
        "gopher_enough_stop_words": "too_few_stop_words",
    },
    "c4": {},
    "fineweb": {
        "line_punct_ratio": "too_few_punctuated_lines",
        "short_line_ratio": "too_many_short_lines",
        "char_dup_ratio": "repeated_line_chars",
        "list_ratio": "too_many_new_lines",
    },
}


def draw(files: list[Path], n: int, to: Path, seed: int = 0) -> pa.Table:
    """A simple random sample of the corpus, written to a file, and beside it as JSON lines."""
    rows = np.array([pq.ParquetFile(file).metadata.num_rows for file in files])
    chosen = np.sort(
        np.random.default_rng(seed).choice(rows.sum(), min(n, rows.sum()), replace=False)
    )
    first = np.concatenate(([0], np.cumsum(rows)))
    parts = []
    for i, file in enumerate(files):
        own = chosen[(chosen >= first[i]) & (chosen < first[i + 1])] - first[i]
        parts.append(pq.read_table(file).take(pa.array(own)))
    table = pa.concat_tables(parts, promote_options="permissive")
    table = table.set_column(1, "kind", table.column("kind").cast(pa.string()))
    pq.write_table(table, to, compression="zstd", row_group_size=2000)
    with to.with_suffix(".jsonl").open("w") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
    return table


def peer(python: Path, sample: Path, pattern: str | None, decide: bool) -> dict[str, Any]:
    """What datatrove says of the sample, and what it takes."""
    settings, out = sample.with_name("settings.json"), sample.with_name("out.json")
    settings.write_text(
        json.dumps({"tokenizer": pattern, "sentence": SENTENCE_END, "decide": decide})
    )
    script = Path(__file__).with_name("curate_datatrove.py")
    finished([python, script, sample, settings, out])
    return dict(json.loads(out.read_text()))


def in_turns(python: Path, sample: Path, pattern: str | None, decide: bool) -> dict[str, Any]:
    """Both tools on one file."""
    ours = curated(CHAIN, [sample])
    theirs = peer(python, sample, pattern, decide)
    speed = ours["documents"] / theirs["cpu_seconds"]
    return {
        "datatrove": {
            "cpu_seconds": round(theirs["cpu_seconds"], 2),
            "documents_per_cpu_second": round(speed, 1),
            "peak_megabytes": round(theirs["peak_megabytes"]),
            "kept": theirs["kept"],
        },
        "pilotfish": ours,
        "times as fast": round(ours["documents_per_cpu_second"] / speed, 1),
        "decided": theirs.get("decided"),
    }


def compare(table: pa.Table, decided: list[dict[str, Any]]) -> dict[str, Any]:
    """How often each set decides alike, gives the same reason, and writes the same text."""
    batch = table.select(["text"]).combine_chunks().to_batches()[0]
    agreement: dict[str, Any] = {}
    for step in SETS:
        verdict = step.apply(batch)
        ours = [
            reason.partition(".")[2] if reason else "" for reason in verdict.reasons.to_pylist()
        ]
        names = SAME[step.name]
        theirs = [names.get(said[step.name], said[step.name]) for said in decided]
        pairs = list(zip(ours, theirs, strict=True))
        found = agreement[step.name] = {
            "decided alike": sum((a == "") == (b == "") for a, b in pairs),
            "same reason": sum(a == b for a, b in pairs),
            "of": len(pairs),
            "differences (ours, theirs)": {
                f"{a or 'keep'}, {b or 'keep'}": n
                for (a, b), n in Counter(p for p in pairs if p[0] != p[1]).most_common(12)
            },
        }
        if "text" in verdict.columns:
            texts = verdict.columns["text"].to_pylist()
            both = [i for i, (a, b) in enumerate(pairs) if a == b == ""]
            found["kept by both"] = len(both)
            found["same text"] = sum(texts[i] == decided[i]["text"] for i in both)
    return agreement


def measure(options: argparse.Namespace, files: list[Path]) -> dict[str, Any]:
    """All of it; ``files`` are the corpus."""
    result: dict[str, Any] = {}
    for name, n, pattern in (
        ("datatrove as shipped", options.shipped, None),
        ("datatrove with a pattern for tokenizer", options.pattern, word_pattern()),
    ):
        with tempfile.TemporaryDirectory() as folder:
            sample = Path(folder) / "sample.parquet"
            table = draw(files, n, sample)
            lines = in_turns(options.datatrove, sample.with_suffix(".jsonl"), pattern, False)
            columns = in_turns(options.datatrove, sample, pattern, True)
        lines.pop("decided")
        result[name] = {
            "documents": len(table),
            "megabytes": round(table.column("text").nbytes / 1e6, 1),
            "Parquet": columns,
            "JSON lines": lines,
            "decisions": compare(table, columns.pop("decided")),
        }
    return result
