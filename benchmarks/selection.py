"""Which inputs to ask about: selection against random, by the student that results.

    python benchmarks/selection.py --data FOLDER

Data as for ``benchmarks/students.py``; gold labels stand for the large model's answers. Every seed
draws a pool of 4,000 training texts. First batches: each method chooses 100, 300 or 1,000. Later
batches: from a first batch of 100, to 300, to 1,000, the student of the round before saying what it
is unsure of. Measured on 1,000 test texts: accuracy, and the share of texts that the student could
serve with 95% of the answers right (most certain first).
"""

from __future__ import annotations

import argparse
import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from students import task
from threadpoolctl import threadpool_limits

from pilotfish.curate.selection.select import FIRST, representative, uncertain_and_diverse
from pilotfish.distill import STUDENTS
from pilotfish.distill.calibrate import to_proba
from pilotfish.distill.crossfit import fit_scorer, make_lesson
from pilotfish.models.load import load_encoder
from pilotfish.records import Inputs

RESULT = Path(__file__).parent / "results" / "select.json"
TASKS = ("stackoverflow", "TREC", "banking")
SIZES = (100, 300, 1000)
LATER = (
    "random",
    "top margin",
    "k-means margin",
    "k-center margin",
    "k-means entropy",
    "k-means least",
)
STUDENT = "tfidf-embedding-linear"


class Arena:
    """One task, one pool: measures what a choice of texts teaches."""

    def __init__(self, folder: Path, name: str, seed: int, encoder: Any) -> None:
        texts, target, fresh, self.test, self.classes = task(folder / name, 1000)
        pool = np.random.default_rng(seed).permutation(len(texts))[:4000]
        self.texts, self.target = [texts[i] for i in pool], target[pool]
        self.fresh = Inputs(fresh)
        self.vectors = encoder.encode(self.texts)
        self.encoder = encoder

    def teach(self, chosen: Any) -> Any:
        """A student of these texts."""
        recipe, lesson = make_lesson(
            STUDENT,
            Inputs([self.texts[i] for i in chosen]),
            self.target[chosen],
            classes=self.classes,
            multilabel=False,
            weights=None,
            seed=0,
            encoder=self.encoder,
        )
        return fit_scorer(recipe, lesson)

    def measure(self, scorer: Any) -> tuple[float, float]:
        """Accuracy, and the share that it could serve with 95% right."""
        proba = to_proba(scorer.logits(self.fresh), multilabel=False)
        right = proba.argmax(axis=1) == self.test
        order = np.argsort(-proba.max(axis=1))
        rate = np.cumsum(right[order]) / np.arange(1, len(right) + 1)
        good = np.flatnonzero(rate >= 0.95)
        return float(right.mean()), float((good[-1] + 1) / len(right)) if len(good) else 0.0


def one_seed(folder: Path, name: str, seed: int, encoder: Any) -> dict[str, tuple[float, float]]:
    arena = Arena(folder, name, seed, encoder)
    out = {}
    for method in FIRST:
        for size in SIZES:
            chosen = representative(arena.vectors, size, seed=seed, method=method)
            scorer = arena.teach(chosen)
            out[f"first {method} {size}"] = arena.measure(scorer)
    for first in ("k-means", "random"):
        start = representative(arena.vectors, SIZES[0], seed=seed, method=first)
        begin = arena.teach(start)
        for later in LATER:
            if first == "random" and later.startswith(("k-means e", "k-means l", "k-center")):
                continue
            method, _, kind = later.partition(" ")
            chosen, scorer = start, begin
            for size in SIZES[1:]:
                proba = to_proba(scorer.logits(Inputs(arena.texts)), multilabel=False)
                more = uncertain_and_diverse(
                    proba,
                    arena.vectors,
                    size - len(chosen),
                    exclude=chosen,
                    seed=seed,
                    method=method,
                    kind=kind or "margin",
                )
                chosen = np.concatenate([chosen, more])
                scorer = arena.teach(chosen)
                out[f"{first} then {later} {size}"] = arena.measure(scorer)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    STUDENTS.load(STUDENT)
    threadpool_limits(1)
    encoder = load_encoder("static")
    results: dict[str, Any] = {}
    for name in options.tasks:
        runs = [one_seed(options.data, name, seed, encoder) for seed in range(options.seeds)]
        results[name] = {}
        for key in runs[0]:
            acc, share = np.array([run[key] for run in runs]).T
            spread = float(acc.std(ddof=1)) if len(acc) > 1 else 0.0
            results[name][key] = {
                "acc": round(float(acc.mean()), 4),
                "acc_sd": round(spread, 4),
                "at95": round(float(share.mean()), 4),
            }
            print(name, key, results[name][key], flush=True)
    stored = {
        "date": date.today().isoformat(),
        "hardware": f"{os.cpu_count()} cores, one thread used",
        "seeds": options.seeds,
        "student": STUDENT,
        "results": results,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
