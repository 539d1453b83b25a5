"""Do certified cascades keep their promise on recorded answers of real models?

For every pair of a small and a large model: a TF-IDF and logistic regression, trained on 40% of the
questions, predicts from the question alone whether the small model will do; the other 60% are the inputs.
Calibration rows are drawn from them with replacement, so that the promise's truth, the risk on all of
them, is known exactly and not estimated on yet another sample. 200 splits: 10 trainings with 20 draws
each.

A disagreement is, where answers were recorded as choices (mmlupro): the two choices differ; where only
grades were recorded (routellm, llmrouter): the large model's grade is better, that is, escalating would
have helped.

    python benchmarks/outcomes.py --outcomes FOLDER
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from pilotfish.infer.calibration import Calibration
from pilotfish.infer.certify import Constraint, certify, threshold_grid

# file, text column, small, large, how disagreement is read, share that must hold
PAIRS = [
    ("routellm_mmlu", "prompt", "mixtral_8x7b", "gpt_4_1106", "grade", 0.95),
    ("routellm_gsm8k", "prompt", "mixtral_8x7b", "gpt_4_1106", "grade", 0.90),
    ("mmlupro_dev", "question", "llama31_70b", "gemini_15_pro", "choice", 0.90),
    ("mmlupro_dev", "question", "gemini_15_flash", "gemini_15_pro", "choice", 0.90),
    ("mmlupro_dev", "question", "llama31_8b", "llama31_70b", "choice", 0.80),
    (
        "llmrouter_pool_train", "question", "llama-3.1-8b-instruct",
        "llama-3.3-nemotron-super-49b-v1", "grade", 0.95,
    ),
]  # fmt: skip
DELTA, ANSWERS, TRAININGS, DRAWS = 0.05, 1000, 10, 20


def load(folder: Path, file: str, text: str, small: str, large: str, how: str) -> Any:
    table = pq.read_table(folder / f"{file}.parquet")

    def column(name: str) -> np.ndarray:
        return np.array(table[name].to_pylist(), dtype=object)

    if how == "choice":
        wrong = column(f"{small}_pred") != column(f"{large}_pred")
    else:
        wrong = column(small).astype(float) < column(large).astype(float)
    return column(text), wrong.astype(bool)


def measure(folder: Path, pair: tuple[Any, ...]) -> list[dict[str, Any]]:
    file, text, small, large, how, target = pair
    texts, wrong = load(folder, file, text, small, large, how)
    alpha = round(1 - target, 12)
    constraint = Constraint("agree", target)
    runs: dict[str, list[Any]] = {"binomial, all answers": [], "adaptive": [], "oracle": []}
    for training in range(TRAININGS):
        rng = np.random.default_rng(training)
        order = rng.permutation(len(texts))
        fit, rest = order[: int(0.4 * len(texts))], order[int(0.4 * len(texts)) :]
        words = TfidfVectorizer(
            sublinear_tf=True, min_df=2, ngram_range=(1, 2), max_features=50_000
        )
        model = LogisticRegression(max_iter=300).fit(words.fit_transform(texts[fit]), ~wrong[fit])
        scores = model.predict_proba(words.transform(texts[rest]))[:, 1]
        reference = model.predict_proba(words.transform(texts[fit]))[:, 1]
        grid, lost = threshold_grid(reference, 100), wrong[rest]

        def truth(threshold: float | None, scores: Any = scores, lost: Any = lost) -> Any:
            served = scores >= (2.0 if threshold is None else threshold)
            return served.mean(), (served & lost).mean() > alpha

        best = [t for t in np.unique(scores) if not truth(t)[1]]
        runs["oracle"].append((truth(min(best, default=None))[0], False, 0))
        for draw in range(DRAWS):
            rows = rng.integers(len(rest), size=ANSWERS)
            fixed = certify(
                scores[rows],
                ~lost[rows],
                constraints=(constraint,),
                delta=DELTA,
                thresholds=grid,
                curve=0,
            )
            runs["binomial, all answers"].append((*truth(fixed.threshold), fixed.asked))
            calibration = Calibration(
                scores[rows], constraints=(constraint,), delta=DELTA, thresholds=grid,
                remaining=20_000, seed=draw,
            )  # fmt: skip
            while (ask := calibration.next(25)).size:
                calibration.tell(ask, ~lost[rows][ask])
            certificate = calibration.certificate(curve=0)
            runs["adaptive"].append((*truth(certificate.threshold), certificate.asked))
    results = []
    for key, values in runs.items():
        means = np.mean(np.asarray(values, dtype=float), axis=0)
        results.append(
            {
                "file": file, "small": small, "large": large, "disagreement": how, "target": target,
                "base_rate": round(float(wrong.mean()), 4), "how": key,
                "coverage": round(float(means[0]), 4), "broken": round(float(means[1]), 4),
                "answers": round(float(means[2]), 1), "splits": len(values),
            }
        )  # fmt: skip
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--outcomes", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "outcomes.json"
    )
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for pair in PAIRS:
        begun = time.perf_counter()
        rows += measure(options.outcomes, pair)
        print(
            f"{pair[0]} {pair[2]} -> {pair[3]}: {time.perf_counter() - begun:.0f} s",
            file=sys.stderr,
        )
        for row in rows[-3:]:
            print({k: row[k] for k in ("how", "coverage", "broken", "answers")}, file=sys.stderr)
    facts = {
        "date": date.today().isoformat(),
        "hardware": f"{platform.machine()}, 2 cores, Python {platform.python_version()}",
        "delta": DELTA,
        "calibration_rows": ANSWERS,
        "results": rows,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(facts, indent=1) + "\n")
    lines = [
        f"# Certified cascades on recorded answers ({facts['date']}; {facts['hardware']})", "",
        f"delta {DELTA}, {ANSWERS} calibration rows, {TRAININGS * DRAWS} splits. Base rate: how often",
        "they disagree if the small model serves everything. Broken must stay below delta.", "",
        "| file | small -> large | promise | base rate | how | answers | coverage | broken |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {r['file']} | {r['small']} -> {r['large']} | {r['target']} by {r['disagreement']} "
        f"| {r['base_rate']:.3f} | {r['how']} | {r['answers']:.0f} | {r['coverage']:.3f} "
        f"| {r['broken']:.3f} |"
        for r in rows
    ]
    options.out.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
