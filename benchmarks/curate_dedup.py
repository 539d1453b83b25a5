"""Deduplication beside datatrove, rensa, datasketch and semhash: CPU time, memory, the same decisions.

    python benchmarks/curate_dedup.py --corpus FOLDER --datatrove /path/to/python --note "what else ran"

The corpus is made by ``corpus.py``; a share of its pages comes a second time with some of their words
replaced, and the exact Jaccard similarity of each such pair is computed from sets of shingles. All tools
have the same shingles (five words), bands (14) and rows (8). Pilotfish reads all of it, the others its
first pages. A tool needs rensa, datasketch and semhash, or datatrove in an environment of its own:

    pip install rensa datasketch semhash
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import corpus
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from curate import processor
from curate_dedup_tools import BANDS, ROWS, SIMILARITY, WORDS, shingled

from pilotfish.curate.dedup.shingles import shingles
from pilotfish.curate.rules.documents import pieces

RESULT = Path(__file__).parent / "results" / "curate_dedup.json"
EDITS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)  # shares of words that are replaced
COPIED = 0.2
EDGES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999, 1.01)


def texts(folder: Path, most: int) -> list[str]:
    """Pages of the corpus."""
    found: list[str] = []
    for file in sorted(folder.glob("*.parquet")):
        found += pq.read_table(file, columns=["text"]).column(0).to_pylist()
        if len(found) >= most:
            break
    return found[:most]


def with_copies(pages: list[str], seed: int = 0) -> tuple[list[str], list[tuple[int, int]]]:
    """The pages with edited copies among them, and the pairs of page and copy."""
    draw = random.Random(seed)
    made: list[str] = []
    pairs = []
    for page in pages:
        made.append(page)
        if draw.random() < COPIED:
            one = draw.randrange(max(0, len(made) - 500), len(made))
            words = made[one].split(" ")
            for at in draw.sample(range(len(words)), round(draw.choice(EDITS) * len(words))):
                words[at] = f"edited{draw.randrange(10**9)}"
            pairs.append((one, len(made)))
            made.append(" ".join(words))
    return made, pairs


def run(python: Path | str, tool: str, given: Path | str, most: int = 0) -> dict[str, Any]:
    """What one tool says of a file, in a process of its own; of the first ``most`` rows if given."""
    with tempfile.TemporaryDirectory() as folder:
        if most:
            part = pq.read_table(given).slice(0, most)
            pq.write_table(part, f"{folder}/part.parquet", row_group_size=1000)
            given = f"{folder}/part.parquet"
        script = Path(__file__).with_name("curate_dedup_tools.py")
        command = [str(python), str(script), tool, str(given), f"{folder}/out.json"]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        found: dict[str, Any] = json.loads(Path(f"{folder}/out.json").read_text())
    n = len(found["groups"]) or int(str(given))
    found["documents"] = n
    found["documents_per_cpu_second"] = round(n / found["cpu_seconds"])
    found["cpu_seconds"] = round(found["cpu_seconds"], 2)
    found["with_imports"] = round(found["with_imports"], 2)
    found["dropped"] = sum(group != row for row, group in enumerate(found["groups"]))
    print(tool, {key: value for key, value in found.items() if key != "groups"}, file=sys.stderr)
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


def semantic(path: Path, most: int) -> dict[str, Any]:
    """Beside semhash with the same encoder, and how many of all similar pairs clusters miss."""
    from pilotfish.models.load import load_encoder

    ours = run(sys.executable, "pilotfish semantic", path, most)
    theirs = run(sys.executable, "semhash", path, most)
    vectors = load_encoder("static").encode(
        pq.read_table(path).slice(0, most).column("text").to_pylist()
    )
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


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
    if not list(options.corpus.glob("*.parquet")):
        corpus.build(options.corpus, options.megabytes)
    made, pairs = with_copies(texts(options.corpus, options.documents))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.parquet"
        pq.write_table(pa.table({"text": made}), path, row_group_size=1000)
        here = sys.executable
        ours = run(here, "pilotfish minhash", path)
        tenth = run(here, "pilotfish minhash", path, len(made) // 10)
        exact = run(here, "pilotfish exact", path)
        peers = {
            "rensa": run(here, "rensa", path, options.sample),
            "datasketch": run(here, "datasketch", path, options.sample),
            "datatrove": run(options.datatrove, "datatrove", path, options.sample),
            "datatrove by pattern": run(
                options.datatrove, "datatrove by pattern", path, options.sample
            ),
        }
        sample = run(here, "pilotfish minhash", path, options.sample)
        groups = {"pilotfish": sample["groups"], **{k: v["groups"] for k, v in peers.items()}}
        meaning = semantic(path, options.semantic)
    reduces = [run(here, "pilotfish reduce", str(n)) for n in (250_000, 2_500_000)]
    for result in (ours, tenth, exact, sample, *peers.values(), *reduces):
        result.pop("groups")
    speed = ours["documents_per_cpu_second"]
    return {
        "megabytes": round(sum(len(text.encode()) for text in made) / 1e6),
        "exact": exact,
        "minhash": ours,
        "minhash, a tenth of the corpus": tenth,
        "minhash, the sample": sample,
        "peers, the sample": peers,
        "times as fast as": {
            name: round(speed / peer["documents_per_cpu_second"], 1) for name, peer in peers.items()
        },
        "decisions": compare(made, pairs, groups),
        "reduce alone": reduces,
        "semantic": meaning,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--corpus", type=Path, required=True, help="folder; made if it is not there"
    )
    parser.add_argument("--megabytes", type=int, default=1100, help="size, where it must be made")
    parser.add_argument("--datatrove", type=Path, required=True, help="a Python that has it")
    parser.add_argument("--documents", type=int, default=60_000, help="pages, before copies")
    parser.add_argument("--sample", type=int, default=3000, help="documents for the other tools")
    parser.add_argument("--semantic", type=int, default=15_000, help="documents for semantic")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    busy = os.getloadavg()
    measured = measure(options)
    names = ("rensa", "datasketch", "semhash", "numpy", "pyarrow")
    command = "from importlib.metadata import version; print(version('datatrove'))"
    shown = subprocess.run([options.datatrove, "-c", command], capture_output=True, text=True)
    result = {
        "date": date.today().isoformat(),
        "hardware": f"{processor()}, {os.cpu_count()} cores",
        "load before and after": [round(busy[0], 1), round(os.getloadavg()[0], 1)],
        "note": options.note,
        "versions": {**{k: version(k) for k in names}, "datatrove": shown.stdout.strip()},
        **measured,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
