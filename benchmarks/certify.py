"""Calls avoided and promises broken: Pilotfish beside the package `bargain` 0.1.3, in one run.

Each repetition draws a data set from a known shape, gives both the same scores, answers, target and
delta, and counts the answers that were never asked of the large model. bargain reads its records one
by one through thread pools; here it gets the whole columns at once, so that the seconds are those of the
two algorithms. Its promises are about the very file; ours are given for the file (same definition) and
for inputs drawn like it (our default, the stronger promise: new inputs are covered too).

    pip install bargain==0.1.3 && python benchmarks/certify.py --reps 200
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from pilotfish.infer.calibration import Calibration
from pilotfish.infer.certify import Constraint, certify, threshold_grid

# No seed below this one was looked at while the methods and their defaults were chosen: the numbers
# that are stored are of draws that nothing was tuned on.
FIRST_SEED = 1_000_000

Rng = np.random.Generator
Draw = tuple[np.ndarray, np.ndarray]


def beta(rng: Rng, n: int) -> Draw:
    scores = rng.beta(4, 1, n)
    return scores, 1 - scores


def sharp(rng: Rng, n: int) -> Draw:
    sure = rng.random(n) < 0.75
    scores = np.where(sure, rng.uniform(0.97, 1, n), rng.uniform(0.3, 0.97, n))
    return scores, 1 - scores


def flat(rng: Rng, n: int) -> Draw:
    return rng.random(n), np.full(n, 0.03)


def hopeless(rng: Rng, n: int) -> Draw:
    return rng.random(n), np.full(n, 0.3)


def adversarial(rng: Rng, n: int) -> Draw:
    """The most confident twentieth is wrong half of the time."""
    scores = rng.random(n)
    return scores, np.where(scores > 0.95, 0.5, 0.3 * (1 - scores) ** 2)


SHAPES: dict[str, tuple[Callable[[Rng, int], Draw], int]] = {
    "beta-calibrated": (beta, 10_000),
    "sharp": (sharp, 10_000),
    "flat, good": (flat, 10_000),
    "flat, hopeless": (hopeless, 10_000),
    "adversarial": (adversarial, 10_000),
    "small beta": (beta, 500),
    "small sharp": (sharp, 500),
}
POSITIVES: dict[str, tuple[float, float, int]] = {
    "balanced": (2.0, 2.0, 10_000),
    "bimodal": (0.3, 0.7, 10_000),
    "sparse": (0.05, 1.5, 10_000),
    "small bimodal": (0.3, 0.7, 1_000),
}


def finish(
    calibration: Calibration, agreed: np.ndarray, large: Any = None, k: int = 25
) -> np.ndarray:
    """Run a calibration to its end; returns which rows were asked."""
    asked = np.zeros(agreed.size, dtype=bool)
    while (rows := calibration.next(k)).size:
        calibration.tell(rows, agreed[rows], None if large is None else large[rows])
        asked[rows] = True
    return asked


def ours_file(scores: np.ndarray, wrong: np.ndarray, alpha: float, delta: float, seed: int) -> Any:
    calibration = Calibration(
        scores,
        constraints=(Constraint("agree", 1 - alpha),),
        delta=delta,
        population="file",
        seed=seed,
    )
    asked = finish(calibration, ~wrong)
    threshold = calibration.certificate(curve=0).threshold
    served = np.zeros(wrong.size, dtype=bool) if threshold is None else scores >= threshold
    kept = served & ~asked
    return kept.mean(), (kept & wrong).mean() > alpha + 1e-12


def ours_inputs(
    scores: np.ndarray,
    wrong: np.ndarray,
    alpha: float,
    delta: float,
    seed: int,
    risk: Any,
    method: Any,
) -> Any:
    """A random fifth (at least 400 rows) calibrates, the rest is served."""
    n = min(max(len(scores) // 5, 400), len(scores) * 4 // 5)
    order = np.random.default_rng(seed + 10_000).permutation(len(scores))
    rows, rest = order[:n], order[n:]
    calibration = Calibration(
        scores[rows],
        constraints=(Constraint("agree", 1 - alpha),),
        delta=delta,
        method=method,
        expected_disagreement=np.clip(1 - scores[rows], 0, 1) if method == "betting" else None,
        remaining=len(rest),
        reference=scores[rest],
        seed=seed,
    )
    asked = finish(calibration, ~wrong[rows])
    threshold = calibration.certificate(curve=0).threshold
    if threshold is None:
        return 0.0, False
    saved = (scores[rest] >= threshold).sum() + ((scores[rows] >= threshold) & ~asked).sum()
    return saved / len(scores), risk(threshold) > alpha


def bargain_classes() -> Any:
    from BARGAIN import BARGAIN_A, BARGAIN_P, BARGAIN_R, Oracle, Proxy

    class Scores(Proxy):
        def __init__(self, predictions: np.ndarray, scores: np.ndarray) -> None:
            super().__init__(verbose=False)
            self.columns = predictions, scores

        def get_preds_and_scores(self, indxs: Any, data_records: Any) -> Any:
            rows = np.asarray(indxs, dtype=int)
            return self.columns[0][rows], self.columns[1][rows]

    class Answers(Oracle):
        def __init__(self, truth: np.ndarray) -> None:
            super().__init__(verbose=False)
            self.truth, self.seen = truth, np.zeros(truth.size, dtype=bool)

        def get_pred(self, data_records: Any, indxs: Any = None) -> Any:
            rows = np.asarray(data_records, dtype=int)
            self.seen[rows] = True
            return self.truth[rows]

        def is_answer_correct(self, data_indxs: Any, data_records: Any, proxy_output: Any) -> Any:
            rows = np.asarray(data_indxs, dtype=int)
            self.seen[rows] = True
            return self.truth[rows] == proxy_output

    return BARGAIN_A, BARGAIN_P, BARGAIN_R, Scores, Answers


def accuracy(name: str, target: float, delta: float, reps: int) -> list[dict[str, Any]]:
    shape, n = SHAPES[name]
    alpha = round(1 - target, 12)
    bargain_a, _, _, proxy, oracle = bargain_classes()
    many, errors = shape(np.random.default_rng(99), 400_000)

    def risk(threshold: float) -> float:
        return float(np.mean((many >= threshold) * errors))

    def bargain(scores: np.ndarray, wrong: np.ndarray, rep: int) -> Any:
        model = bargain_a(
            proxy(wrong.astype(int), scores),
            oracle(np.zeros(n, dtype=int)),
            target=target,
            delta=delta,
            verbose=False,
            seed=rep,
        )
        output, used = model.process(np.arange(n), return_oracle_usage=True)
        return 1 - np.mean(used), np.mean(np.asarray(output) != 0) > alpha + 1e-12

    callers: dict[str, Callable[..., Any]] = {
        "bargain, file": bargain,
        "pilotfish, file": lambda s, w, rep: ours_file(s, w, alpha, delta, rep),
        "pilotfish, inputs, binomial": lambda s, w, rep: ours_inputs(
            s, w, alpha, delta, rep, risk, "binomial"
        ),
        "pilotfish, inputs, betting": lambda s, w, rep: ours_inputs(
            s, w, alpha, delta, rep, risk, "betting"
        ),
    }
    runs: dict[str, list[Any]] = {key: [] for key in callers}
    for rep in range(FIRST_SEED, FIRST_SEED + reps):
        rng = np.random.default_rng([rep, n])
        scores, chance = shape(rng, n)
        wrong = rng.random(n) < chance
        for key, call in callers.items():
            begun = time.perf_counter()
            runs[key].append((*call(scores, wrong, rep), time.perf_counter() - begun))
    return [summary("accuracy", name, n, target, delta, key, runs[key]) for key in runs]


def summary(
    kind: str, shape: str, n: int, target: float, delta: float, who: str, values: list[Any]
) -> dict[str, Any]:
    table = np.asarray(values, dtype=float)
    return {
        "promise": kind, "shape": shape, "rows": n, "target": target, "delta": delta, "who": who,
        "utility": round(float(table[:, 0].mean()), 4),
        "broken": round(float(table[:, 1].mean()), 4),
        "seconds": round(float(table[:, 2].mean()), 4),
        "repetitions": len(values),
    }  # fmt: skip


def classes(kind: str, name: str, target: float, delta: float, reps: int) -> list[dict[str, Any]]:
    """Precision: share of the positives found with 400 answers. Recall: rows that need no look."""
    a, b, n = POSITIVES[name]
    _, bargain_p, bargain_r, proxy, oracle = bargain_classes()
    ways = ["pilotfish"] if kind == "precision" else ["pilotfish, uniform", "pilotfish, active"]
    runs: dict[str, list[Any]] = {key: [] for key in ["bargain", *ways]}
    for rep in range(FIRST_SEED, FIRST_SEED + reps):
        rng = np.random.default_rng([rep, n, 7])
        chance = rng.beta(a, b, n)
        truth = (rng.random(n) < chance).astype(int)
        ones = np.ones(n, dtype=int)

        begun = time.perf_counter()
        model = bargain_p if kind == "precision" else bargain_r
        found = model(
            proxy(ones, chance),
            oracle(truth),
            delta=delta,
            target=target,
            budget=min(400, n),
            seed=rep,
        ).process(np.arange(n))
        chosen = np.zeros(n, dtype=bool)
        chosen[found] = True
        runs["bargain"].append((*judged(kind, chosen, truth, target), time.perf_counter() - begun))

        for way in ways:
            begun = time.perf_counter()
            chosen = OURS[way](chance, truth, target, delta, rep)
            runs[way].append((*judged(kind, chosen, truth, target), time.perf_counter() - begun))
    return [summary(kind, name, n, target, delta, key, values) for key, values in runs.items()]


def judged(kind: str, chosen: np.ndarray, truth: np.ndarray, target: float) -> tuple[float, bool]:
    hits = (chosen & (truth == 1)).sum()
    if kind == "precision":
        return hits / max(truth.sum(), 1), bool(chosen.any() and hits / chosen.sum() < target)
    return 1 - chosen.mean(), bool(hits < target * truth.sum())


def ours_precision(
    chance: np.ndarray, truth: np.ndarray, target: float, delta: float, rep: int
) -> np.ndarray:
    """What is left of the budget goes to the likeliest rows below the threshold, as in bargain."""
    n, budget = truth.size, min(400, truth.size)
    calibration = Calibration(
        chance, small=["yes"] * n, constraints=(Constraint("precision", target, "yes"),),
        delta=delta, budget=budget, population="file", expected_disagreement=1 - chance, seed=rep,
    )  # fmt: skip
    asked = finish(calibration, truth == 1)
    threshold = calibration.certificate(curve=0).threshold
    served = np.zeros(n, dtype=bool) if threshold is None else chance >= threshold
    rest = np.flatnonzero(~served & ~asked)
    asked[rest[np.argsort(-chance[rest])][: budget - int(asked.sum())]] = True
    return (served & ~(asked & (truth == 0))) | (asked & (truth == 1))


def ours_recall_uniform(
    chance: np.ndarray, truth: np.ndarray, target: float, delta: float, rep: int
) -> np.ndarray:
    """400 answers for rows drawn evenly; the small model says "no" everywhere."""
    rows = np.random.default_rng(rep).integers(truth.size, size=400)
    certificate = certify(
        1 - chance[rows], truth[rows] == 0, constraints=(Constraint("recall", target, "yes"),),
        delta=delta, thresholds=threshold_grid(1 - chance, 200), small=["no"] * 400,
        large=np.where(truth[rows] == 1, "yes", "no"), curve=0,
    )  # fmt: skip
    return kept(certificate.threshold, rows, chance, truth)


def ours_recall_active(
    chance: np.ndarray, truth: np.ndarray, target: float, delta: float, rep: int
) -> np.ndarray:
    """Up to 400 answers, asked more often where a positive is likelier."""
    n = truth.size
    rows = np.random.default_rng(rep).integers(n, size=n)
    calibration = Calibration(
        1 - chance[rows], small=["no"] * n, constraints=(Constraint("recall", target, "yes"),),
        delta=delta, budget=400, method="betting", expected_disagreement=chance[rows],
        thresholds=threshold_grid(1 - chance, 100), seed=rep,
    )  # fmt: skip
    asked = finish(calibration, truth[rows] == 0, np.where(truth[rows] == 1, "yes", "no"))
    return kept(calibration.certificate(curve=0).threshold, rows[asked], chance, truth)


def kept(threshold: float | None, seen: np.ndarray, chance: np.ndarray, truth: np.ndarray) -> Any:
    """Rows that remain in question: not set aside, or asked about and positive."""
    known = np.zeros(truth.size, dtype=bool)
    known[seen] = True
    dropped = np.zeros(truth.size, dtype=bool) if threshold is None else 1 - chance >= threshold
    return (~dropped & ~(known & (truth == 0))) | (known & (truth == 1))


OURS: dict[str, Callable[..., np.ndarray]] = {
    "pilotfish": ours_precision,
    "pilotfish, uniform": ours_recall_uniform,
    "pilotfish, active": ours_recall_active,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reps", type=int, default=200)
    parser.add_argument("--delta", type=float, default=0.05)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "certify.json"
    )
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for target in (0.9, 0.95):
        for name in SHAPES:
            if options.only in f"accuracy {name}":
                rows += accuracy(name, target, options.delta, options.reps)
                show(rows[-4:])
    for kind in ("precision", "recall"):
        for name in POSITIVES:
            if options.only in f"{kind} {name}":
                rows += classes(kind, name, 0.9, options.delta, options.reps)
                show(rows[-3:] if kind == "recall" else rows[-2:])
    if options.only:
        return
    facts = {
        "date": date.today().isoformat(),
        "hardware": f"{platform.machine()}, 2 cores, Python {platform.python_version()}",
        "numpy": np.__version__,
        "results": rows,
    }
    options.out.write_text(json.dumps(facts, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(markdown(facts))


def show(rows: list[dict[str, Any]]) -> None:
    for r in rows:
        print(
            f"{r['promise']:9} {r['target']} {r['shape']:16} {r['who']:26} utility {r['utility']:.3f} "
            f"broken {r['broken']:.3f} {r['seconds']:.3f} s",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def markdown(facts: dict[str, Any]) -> str:
    lines = [
        f"# Calls avoided and promises broken ({facts['date']}; {facts['hardware']})", "",
        "Utility: for accuracy, the share of rows that the large model never sees; for precision, the",
        "share of positives found with 400 answers; for recall, the share of rows set aside after 400.",
        "Broken: share of repetitions in which the promise failed; delta allows 0.05.",
        "", "| promise | target | shape | rows | who | utility | broken | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in facts["results"]:
        lines.append(
            f"| {r['promise']} | {r['target']} | {r['shape']} | {r['rows']} | {r['who']} "
            f"| {r['utility']:.3f} | {r['broken']:.3f} | {r['seconds']:.3f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
