"""Personal data in letters, chats and forms: what patterns find, and what a model finds beside them.

    pilotfish pull rampart
    python benchmarks/personal_data.py

Texts are generated with known places of what is personal (``tests/curate/personal/personal_letters.py``,
by the authors of the step, who did not look at these when they wrote the patterns). A value is covered
when each of its letters and digits lies in something that was found, of whatever kind; what is left is
counted too. A find is right when it touches something personal. Intervals are exact binomial ones at 95%;
values of one text are not independent, so they are a little too narrow. Time is that of the processor,
one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pyarrow as pa
from circumstances import load_now, one_thread
from scipy.stats import binomtest

from pilotfish.curate.personal.data import PersonalData
from pilotfish.curate.personal.search import Search
from pilotfish.curate.step import ROW, TEXT
from tests.curate.personal.personal_letters import letters

RESULT = Path(__file__).parent / "results" / "personal_data.json"
SETTINGS: dict[str, dict[str, Any]] = {
    "patterns": {},
    "patterns and rampart, from 0.5": {"model": "rampart"},
    "patterns and rampart, from 0.3": {"model": "rampart", "min_confidence": 0.3},
    "patterns and rampart, from 0.1": {"model": "rampart", "min_confidence": 0.1},
}


def share(right: int, of: int) -> dict[str, Any]:
    if not of:
        return {"of": 0}
    low, high = binomtest(right, of).proportion_ci()
    return {"share": round(right / of, 4), "interval": [round(low, 4), round(high, 4)], "of": of}


def measure(texts: int, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    rows = letters(texts, seed)
    started = time.process_time()
    places = Search("benchmark", **settings)([text for text, _ in rows])
    seconds = time.process_time() - started
    covered: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    right: Counter[str] = Counter()
    found: Counter[str] = Counter()
    leaked = characters = 0
    wrong: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for (text, labels), finds in zip(rows, places, strict=True):
        hidden = {i for f in finds for i in range(f.start, f.end)}
        for start, end, kind in labels:
            open_ = [i for i in range(start, end) if text[i].isalnum() and i not in hidden]
            characters += sum(c.isalnum() for c in text[start:end])
            leaked += len(open_)
            seen[kind] += 1
            covered[kind] += not open_
        for f in finds:
            touches = any(f.start < end and f.end > start for start, end, _ in labels)
            found[f.kind] += 1
            right[f.kind] += touches
            if not touches:
                wrong[f.kind][text[f.start : f.end]] += 1
    size = sum(len(text.encode()) for text, _ in rows)
    return {
        "covered": {kind: share(covered[kind], n) for kind, n in sorted(seen.items())}
        | {"all": share(covered.total(), seen.total())},
        "letters and digits left": round(leaked / characters, 4),
        "right": {kind: share(right[kind], n) for kind, n in sorted(found.items())}
        | {"all": share(right.total(), found.total())},
        "most frequent mistakes": {k: dict(c.most_common(4)) for k, c in wrong.items()},
        "kilobytes per CPU-second": round(size / 1000 / seconds, 1),
        "texts per CPU-second": round(texts / seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--note", default="", help="what else the machine was doing")
    options = parser.parse_args()
    batch = pa.RecordBatch.from_pydict(
        {ROW: pa.array([0], pa.uint64()), TEXT: ["Anna, 12 High St"]}
    )
    PersonalData(model="rampart").apply(batch)  # the model is loaded
    before = load_now()
    stored = {
        "texts": options.texts,
        "seed": options.seed,
        "with": {name: measure(options.texts, options.seed, s) for name, s in SETTINGS.items()},
        "run": one_thread(before, options.note),
    }
    RESULT.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(stored, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
