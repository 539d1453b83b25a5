"""The heuristic filter sets beside datatrove's.

Four sets with their published thresholds, in the order of FineWeb's own pipeline, what one drops not seen
by the next. Pilotfish reads the whole corpus; datatrove a random sample of it, once as shipped (spaCy
cuts words and sentences) and once with its tokenizer replaced by the pattern of our own words and
sentence ends. Time is that of one CPU, reading of the Parquet file included. Then each set judges each
document of
the sample on its own, and decisions, reasons and C4's rewritten texts are compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import corpus
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pilotfish.curate.rules.c4 import C4
from pilotfish.curate.rules.characters import word_pattern
from pilotfish.curate.rules.fineweb import FineWeb
from pilotfish.curate.rules.gopher_quality import GopherQuality
from pilotfish.curate.rules.gopher_repetition import GopherRepetition

SETS = (GopherRepetition(), GopherQuality(), C4(), FineWeb())
ROWS = 256
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


def peak_megabytes() -> float:
    """The most memory this process has held. Not ``ru_maxrss``, which begins with that of the parent."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def chain(files: list[Path]) -> dict[str, Any]:
    """Time, memory and what is left, all sets in a chain; runs in a process of its own."""
    read = kept = n_bytes = 0
    reasons: Counter[str] = Counter()
    steps = dict.fromkeys((step.name for step in SETS), 0.0)
    began = time.process_time()
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(ROWS, columns=["text"], use_threads=False):
            read += len(batch)
            n_bytes += batch.column(0).nbytes
            for step in SETS:
                start = time.process_time()
                verdict = step.apply(batch)
                reasons.update(verdict.reasons.to_pylist())
                texts = verdict.columns.get("text", batch.column(0))
                left = pa.record_batch({"text": texts}).filter(verdict.reasons.is_null())
                steps[step.name] += time.process_time() - start
                batch = left
            kept += len(batch)
    seconds = time.process_time() - began
    reasons.pop(None, None)
    return {
        "documents": read,
        "cpu_seconds": round(seconds, 2),
        "documents_per_cpu_second": round(read / seconds),
        "megabytes_per_cpu_second": round(n_bytes / 1e6 / seconds, 1),
        "cpu_seconds_of_each": {name: round(spent, 2) for name, spent in steps.items()},
        "peak_megabytes": round(peak_megabytes()),
        "kept": kept,
        "dropped": dict(reasons.most_common()),
    }


def in_own_process(files: list[Path]) -> dict[str, Any]:
    """:func:`chain`, so that its memory is nobody else's."""
    command = [sys.executable, __file__, *map(str, files)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def draw(folder: Path, n: int, to: Path, seed: int = 0) -> pa.Table:
    """A simple random sample of the corpus, written to a file."""
    files = sorted(folder.glob("*.parquet"))
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
    pq.write_table(table, to)
    return table


def peer(python: Path, sample: Path, pattern: str | None, work: Path) -> dict[str, Any]:
    """What datatrove says of the sample, and what it takes."""
    settings, out = work / "settings.json", work / "out.json"
    settings.write_text(
        json.dumps({"tokenizer": pattern, "sentence": SENTENCE_END, "decide": True})
    )
    script = Path(__file__).with_name("curate_datatrove.py")
    subprocess.run([python, script, sample, settings, out], check=True)
    return dict(json.loads(out.read_text()))


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--datatrove", type=Path, required=True, help="a Python that has datatrove")
    parser.add_argument(
        "--shipped", type=int, default=4000, help="documents for datatrove as shipped"
    )
    parser.add_argument("--regex", type=int, default=20000, help="and with a pattern for tokenizer")


def measure(options: argparse.Namespace) -> dict[str, Any]:
    made = corpus.build(options.corpus, options.megabytes)
    files = sorted(options.corpus.glob("*.parquet"))
    asked = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in %r}))"
    asked %= (["datatrove", "spacy", "numpy", "pyarrow"],)
    versions = subprocess.run(
        [options.datatrove, "-c", asked], check=True, capture_output=True, text=True
    )
    result: dict[str, Any] = {
        "corpus": made,
        "versions": {
            "pilotfish": {name: version(name) for name in ("pilotfish", "numpy", "pyarrow")},
            "datatrove": json.loads(versions.stdout),
        },
    }
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as aside:
        # Beside the others, on the second core; time is that of the CPU.
        whole = aside.submit(in_own_process, files)
        tenth = aside.submit(in_own_process, files[: max(1, round(len(files) / 10))])
        work = Path(folder)
        for name, n, pattern in (
            ("datatrove as shipped", options.shipped, None),
            ("datatrove with a pattern for tokenizer", options.regex, word_pattern()),
        ):
            sample = work / "sample.parquet"
            table = draw(options.corpus, n, sample)
            same = in_own_process([sample])
            theirs = peer(options.datatrove, sample, pattern, work)
            decided = theirs.pop("decided")
            speed = len(table) / theirs["cpu_seconds"]
            result[name] = {
                "documents": len(table),
                "cpu_seconds": round(theirs["cpu_seconds"], 2),
                "documents_per_cpu_second": round(speed, 1),
                "peak_megabytes": round(theirs["peak_megabytes"]),
                "kept in the chain": theirs["kept"],
                "pilotfish on the same documents": same,
                "times faster, same documents": round(same["documents_per_cpu_second"] / speed, 1),
                "decisions": compare(table, decided),
            }
            print(name, {k: v for k, v in result[name].items() if k != "decisions"}, flush=True)
        result["pilotfish"] = whole.result()
        result["pilotfish, the first tenth"] = tenth.result()
    return result


if __name__ == "__main__":
    print(json.dumps(chain([Path(name) for name in sys.argv[1:]])))
