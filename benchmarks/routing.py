"""Routing by predicted quality on recorded outcomes: every predictor, ten seeds, the targets beside.

python benchmarks/routing.py --outcomes FOLDER [--data mmlu mmlu-labels mmlu-transformer gsm8k pool
mmlu-pro speed] [--seeds 10] [--papers 10] [--methods NAME ...] [--note TEXT]

FOLDER holds the four files of recorded answers: RouteLLM's MMLU and GSM8K (two models), the training
part of LLMRouter's pool (nine models) and MMLU-Pro (eight models, answers with text). Questions are
split by text; nothing is tuned on the test part: settings that are chosen are chosen by
cross-validation inside the part that was fitted on. Results go to benchmarks/results/routing.json, one
entry a data set, so that parts can be run again by themselves. The methods of single papers are
measured on the first ``--papers`` seeds; the fine-tuned transformer, which needs the torch extra and
minutes a seed, on three, against the forest on the same splits.

Prices. RouteLLM's files: the paper's 24.7 and 0.24 dollars per million tokens. The pool has scores
only: 0.01 dollars per million tokens and billion parameters, and 300 tokens for every answer. MMLU-Pro:
list prices of mid-2024, tokens counted as a quarter of the characters.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from remembered import Remembered
from routing_figures import Found, measure_pair, measure_pool, note, summed
from routing_outcomes import mmlu_pro, pool, two_models

from pilotfish.infer import scoreboard as sb
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.predictors.joined import Joined
from pilotfish.infer.predictors.predictor import fit_predictor
from pilotfish.infer.predictors.stacked import PARTS, Stacked
from pilotfish.models.load import load_encoder

TESTED = 6000  # of MMLU's 12,542 questions that were not fitted on; drawn anew for each seed
RESULTS = Path(__file__).parent / "results" / "routing.json"

OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "stacked": ("stacked", {}),
    "kernel": ("kernel", {}),
    "forest": ("forest", {}),
    "knn": ("knn", {}),
    "stacked, static+bge": ("stacked", {}),
    "forest, static+bge": ("forest", {}),
    "kernel, static+bge": ("kernel", {}),
}
CHOSEN: dict[str, tuple[str, dict[str, Any]]] = {
    "forest, bge+MiniLM": ("forest", {"leaf": 8, "trees": 600}),
}
"""Two encoders that know word order, the second with torch; settings chosen on splits 100 to 107."""
PAPERS: dict[str, tuple[str, dict[str, Any]]] = {
    "logistic": ("logistic", {}),
    "linear (FORC)": ("linear", {}),
    "tags (TagRouter)": ("tags", {}),
    "tags, words only": ("tags", {"source": "words"}),
    "hybrid, transformed (HybridLLM)": ("hybrid", {"labels": "transformed"}),
    "reward-distilled (Zooter)": ("reward-distilled", {}),
    "expert-loss (Tryage)": ("expert-loss", {}),
    "matrix-factorization (RouteLLM)": ("matrix-factorization", {}),
    "bradley-terry (RouteLLM)": ("bradley-terry", {}),
}
LLMROUTER: dict[str, tuple[str, dict[str, Any]]] = {
    "LLMRouter knn": ("knn", {"k": 5, "prior": 0.0}),
    "LLMRouter svm": ("svm", {}),
    "LLMRouter mlp": ("mlp", {}),
    "LLMRouter matrix factorisation": ("matrix-factorization", {"rank": 128}),
    "LLMRouter elo": ("elo", {}),
    "LLMRouter RouterDC": ("contrastive", {}),
    "LLMRouter HybridLLM": ("hybrid", {"labels": "deterministic"}),
}
SMOOTHIE: dict[str, tuple[str, dict[str, Any]]] = {
    "agreement, no labels (Smoothie)": ("agreement", {}),
}
TUNED: dict[str, tuple[str, dict[str, Any]]] = {
    "transformer, fine-tuned": ("transformer", {}),
}
METHODS = OURS | CHOSEN | PAPERS | LLMROUTER | SMOOTHIE | TUNED


def predictions(
    labels: Iterable[str], fit: Outcomes, test: Outcomes, seed: int
) -> Iterator[tuple[str, Any, float]]:
    """Each method's predicted qualities and the seconds that fitting and predicting took.

    The stack's parts without settings of their own are the methods of the same names, fitted on the
    same questions, so they are not fitted again.
    """
    known: dict[str, Any] = {}
    for label in labels:
        name, settings = METHODS[label]
        start = time.perf_counter()
        if label not in known:
            fitted = fit_predictor(name, fit, seed=seed, encoder=encoder_of(label), **settings)
            known[label] = fitted.predict(test.texts).mean
            seconds = time.perf_counter() - start
            if isinstance(fitted.predictor, Stacked):
                tail = label.removeprefix("stacked")
                for part, own in zip(PARTS, fitted.predictor.parts, strict=True):
                    if isinstance(part, str):
                        known[part + tail] = own.predict(test.texts).mean
        else:
            seconds = float("nan")
        yield label, known[label], seconds


def methods_of(seed: int) -> dict[str, tuple[str, dict[str, Any]]]:
    methods = OURS | PAPERS if seed < PAPER_SEEDS else OURS
    return {name: own for name, own in (methods | CHOSEN).items() if name in (ONLY or methods)}


def run_mmlu(folder: Path, seeds: int) -> dict[str, Any]:
    outcomes = two_models(folder, "routellm_mmlu.parquet")
    found: Found = {}
    for seed in range(seeds):
        fit, test = outcomes.split(seed, fit=1500)
        test = test.take(np.random.default_rng(seed).permutation(len(test))[:TESTED])
        rng = np.random.default_rng(seed)
        measure_pair(found, "random", rng.random(len(test)), test)
        measure_pair(found, "oracle", test.quality[:, 1] - test.quality[:, 0], test)
        table = {d: [] for d in set(fit.groups or ())}
        for d, q in zip(fit.groups or (), fit.quality, strict=True):
            table[d].append(q[1] - q[0])
        by_domain = {d: float(np.mean(v)) for d, v in table.items()}
        known = np.array([by_domain.get(d, 0.0) for d in test.groups or ()])
        measure_pair(found, "mean gain of the hidden domain", known, test)
        for label, mean, seconds in predictions(methods_of(seed), fit, test, seed):
            measure_pair(found, label, mean[:, 1] - mean[:, 0], test)
            note(found, label, seconds=seconds)
        say("mmlu", seed, found, "apgr")
    return {
        "questions": len(outcomes),
        "labels": 1500,
        "tested_on": TESTED,
        "methods": summed(found),
    }


def run_labels(folder: Path, seeds: int) -> dict[str, Any]:
    """MMLU again with more labels, on three seeds: how far 1,500 are from enough."""
    outcomes = two_models(folder, "routellm_mmlu.parquet")
    found: Found = {}
    for seed in range(min(seeds, 3)):
        learn, test = outcomes.split(seed, fit=8000)
        for labels in (500, 1500, 3000, 6000, len(learn)):
            few = learn.take(np.random.default_rng(seed).permutation(len(learn))[:labels])
            for label in ("forest", "forest, static+bge"):
                ((_, mean, _),) = predictions([label], few, test, seed)
                measure_pair(found, f"{label}, {labels} labels", mean[:, 1] - mean[:, 0], test)
        say("labels", seed, found, "apgr")
    return {"questions": len(outcomes), "methods": summed(found)}


def run_transformer(folder: Path, seeds: int) -> dict[str, Any]:
    """MMLU with 1,500 labels again, on three seeds: the papers' fine-tuned encoders, in small."""
    outcomes = two_models(folder, "routellm_mmlu.parquet")
    found: Found = {}
    for seed in range(min(seeds, 3)):
        fit, test = outcomes.split(seed, fit=1500)
        test = test.take(np.random.default_rng(seed).permutation(len(test))[:TESTED])
        for label, mean, seconds in predictions(["forest", *TUNED], fit, test, seed):
            measure_pair(found, label, mean[:, 1] - mean[:, 0], test)
            note(found, label, seconds=seconds)
        say("transformer", seed, found, "apgr")
    return {"questions": len(outcomes), "labels": 1500, "methods": summed(found)}


def run_gsm8k(folder: Path, seeds: int) -> dict[str, Any]:
    outcomes = two_models(folder, "routellm_gsm8k.parquet")
    found: Found = {}
    for seed in range(seeds):
        fold = outcomes.fold_of(seed, 5)
        rng = np.random.default_rng(seed)
        measure_pair(found, "random", rng.random(len(outcomes)), outcomes)
        measure_pair(found, "oracle", outcomes.quality[:, 1] - outcomes.quality[:, 0], outcomes)
        scores: dict[str, Any] = {label: np.zeros(len(outcomes)) for label in methods_of(seed)}
        for k in range(5):
            fit, test = outcomes.take(fold != k), outcomes.take(fold == k)
            for label, mean, _ in predictions(scores, fit, test, seed):
                scores[label][fold == k] = mean[:, 1] - mean[:, 0]
        for label, score in scores.items():
            measure_pair(found, label, score, outcomes)
        say("gsm8k", seed, found, "apgr")
    return {"questions": len(outcomes), "folds": 5, "methods": summed(found)}


def run_many(name: str, outcomes: Outcomes, seeds: int) -> dict[str, Any]:
    found: Found = {}
    for seed in range(seeds):
        fit, test = outcomes.split(seed, fit=2000)
        best = int(fit.mean_quality().argmax())
        single = float(test.mean_quality()[best])
        note(
            found,
            "best single model",
            quality=single,
            cost=float(test.mean_cost()[best]),
            quality_at_single_cost=single,
        )
        top = sb.oracle(test)
        note(found, "oracle", quality=float(top.quality.mean()), cost=float(top.cost.mean()))
        methods = methods_of(seed) | LLMROUTER
        if outcomes.answers is not None:
            methods = methods | SMOOTHIE
        for label, mean, seconds in predictions(methods, fit, test, seed):
            measure_pool(found, label, mean, fit, test)
            note(found, label, seconds=seconds)
        say(name, seed, found, "quality_at_single_cost")
    own = summed(found)
    if ONLY:
        return {"methods": own}
    rivals = [own[label]["quality"]["mean"] for label in LLMROUTER]
    single = own["best single model"]["quality"]["mean"]
    gap = max(rivals) - single
    shares = {
        label: round((own[label]["quality"]["mean"] - single) / gap, 3) if gap > 0 else None
        for label in OURS | PAPERS
        if label in own
    }
    return {
        "questions": len(outcomes),
        "fitted_on": 2000,
        "models": dict(
            zip(outcomes.models, outcomes.mean_quality().round(4).tolist(), strict=True)
        ),
        "mean_cost": dict(zip(outcomes.models, map(float, outcomes.mean_cost()), strict=True)),
        "best_of_llmrouter_over_best_single": round(gap, 4),
        "share_of_that_gap": shares,
        "methods": own,
    }


def run_speed(folder: Path, seeds: int) -> dict[str, Any]:
    """Decisions of one core, embedding included: one at a time, and in batches of 256."""
    outcomes = two_models(folder, "routellm_mmlu.parquet")
    fit, test = outcomes.split(0, fit=1500)
    texts = list(test.texts[:2000])
    encoder = load_encoder("static")
    found: dict[str, Any] = {"mean_characters": round(float(np.mean([len(t) for t in texts])))}
    for label in ("stacked", "kernel", "logistic", "forest", "knn"):
        predictor = fit_predictor((OURS | PAPERS)[label][0], fit, seed=0, encoder=encoder)
        for text in texts[:50]:
            predictor.predict([text])
        each = []
        for text in texts[:1000]:
            start = time.perf_counter()
            predictor.predict([text])
            each.append(time.perf_counter() - start)
        start = time.perf_counter()
        for at in range(0, len(texts), 256):
            predictor.predict(texts[at : at + 256])
        rate = len(texts) / (time.perf_counter() - start)
        found[label] = {
            "single_median_ms": round(1e3 * float(np.median(each)), 3),
            "single_p99_ms": round(1e3 * float(np.quantile(each, 0.99)), 3),
            "batches_per_second": round(rate),
        }
        print("speed", label, found[label], flush=True)
    return found


def say(data: str, seed: int, found: Found, key: str) -> None:
    line = " ".join(f"{n}={np.mean(v[key]):.4f}" for n, v in found.items() if key in v)
    print(data, seed, line, flush=True)


RUNS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "speed": run_speed,
    "gsm8k": run_gsm8k,
    "mmlu": run_mmlu,
    "mmlu-labels": run_labels,
    "mmlu-transformer": run_transformer,
    "mmlu-pro": lambda folder, seeds: run_many("mmlu-pro", mmlu_pro(folder), seeds),
    "pool": lambda folder, seeds: run_many("pool", pool(folder), seeds),
}

DEFAULT = [name for name in RUNS if name != "mmlu-transformer"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outcomes", type=Path, required=True)
    parser.add_argument("--data", nargs="+", default=DEFAULT, choices=list(RUNS))
    parser.add_argument("--methods", nargs="+", help="measure these only, and keep other results")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--papers", type=int, default=10)
    parser.add_argument("--note", default="", help="what to say of the machine")
    parser.add_argument("--embeddings", type=Path, help="folder that keeps the slow embeddings")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    global PAPER_SEEDS, CACHE, ONLY
    PAPER_SEEDS, CACHE = arguments.papers, arguments.embeddings
    ONLY = frozenset(arguments.methods or ())
    for name in arguments.data:
        start = time.perf_counter()
        entry = RUNS[name](arguments.outcomes, arguments.seeds)
        for encoder in ENCODERS.values():
            encoder.keep()
        entry["minutes"] = round((time.perf_counter() - start) / 60, 1)
        entry["date"] = datetime.now(UTC).date().isoformat()
        entry["machine"] = f"{platform.machine()}, one thread, Python {platform.python_version()}"
        entry["machine"] += arguments.note
        known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
        if ONLY and name in known:
            methods = known[name]["methods"] | entry["methods"]
            entry = {**known[name], "methods": methods, "machine": entry["machine"]}
        arguments.out.write_text(json.dumps({**known, name: entry}, indent=1) + "\n")


def encoder_of(label: str) -> Any:
    def remembered(name: str) -> Remembered:
        if name not in ENCODERS:
            slow = CACHE if name != "static" else None
            ENCODERS[name] = Remembered(
                name, slow / f"{name.rpartition(':')[2]}.npz" if slow else None
            )
        return ENCODERS[name]

    if label.endswith("bge+MiniLM"):
        transformer = "sentence-transformers:all-MiniLM-L6-v2"
        return Joined([remembered("bge-small-en-v1.5"), remembered(transformer)])
    if label.endswith("bge"):
        return Joined([remembered("static"), remembered("bge-small-en-v1.5")])
    return remembered("static")


PAPER_SEEDS = 10
ONLY: frozenset[str] = frozenset()
CACHE: Path | None = None
ENCODERS: dict[str, Remembered] = {}

if __name__ == "__main__":
    main()
