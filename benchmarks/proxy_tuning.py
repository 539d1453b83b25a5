"""Proxy tuning: how much of direct tuning a tiny tuned model gives a larger one that stays frozen.

    python benchmarks/proxy_tuning.py --draft FOLDER --work FOLDER [--out FILE]

Needs the torch extra and `pilotfish pull smollm2-135m sms-spam banking77`; FOLDER is the draft that
benchmarks/draft.py distilled: layers of the same model, with its vocabulary. The tiny model is tuned on
texts of a domain, the large one on the same texts for the same number of tokens (its last layers; all but
the embeddings of the tiny one; both learning rates chosen on a validation part). Then perplexity on other
texts of the domain with the rule ``large + strength * (tiny tuned - tiny)``, the strength chosen on the
validation part. The share is (base - proxy) / (base - direct) in log-perplexity. Controls: the tiny tuned
model alone, and its best mix with the large one (CombLM). A second run takes what the first one tuned.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from circumstances import with_torch

from pilotfish.config import Config
from pilotfish.distill.language_model import TokenSequence, Tuning, finetune_language_model
from pilotfish.models.datasets import load_dataset
from pilotfish.models.load import load_model
from pilotfish.models.sampling import log_softmax
from pilotfish.models.trimmed_head import HEAD_TOKENS
from pilotfish.reason.rules import Mix, fit_share, proxy
from pilotfish.reason.steered import Steered

RESULTS = Path(__file__).parent / "results"
TARGET = "smollm2-135m"
WINDOW = 128
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
BATCH = 4  # windows a step
LABEL = {"sms-spam": "ham"}  # of the messages, those that people wrote to each other


def windows(model: Any, name: str, tokens: int, held: int, seed: int) -> dict[str, list[Any]]:
    """Texts of a domain, a line each, in windows of one length: to learn, to choose by, to measure on."""
    table = load_dataset(name)
    rows = zip(*(table[key].to_pylist() for key in ("text", "label", "split")), strict=True)
    rows = [(t, s) for t, label, s in rows if label == LABEL.get(name, label)]
    rng = np.random.default_rng(seed)

    def some(split: str, counts: Sequence[int]) -> list[list[Any]]:
        texts = list(dict.fromkeys(" ".join(t.split()) for t, s in rows if s == split))
        ids: list[int] = []
        for i in rng.permutation(len(texts)):
            ids += model.tokenize(texts[i] + "\n")
            if len(ids) >= sum(counts):
                break
        parts, at = [], 0
        for count in counts:
            cut = range(at, at + count - WINDOW + 1, WINDOW)
            parts.append([TokenSequence(np.array(ids[i : i + WINDOW])) for i in cut])
            at += count
        return parts

    [train] = some("train", [tokens])
    choose, measure = some("test", [held // 2, held])
    return {"train": train, "choose": choose, "measure": measure}


def surprisal(model: Any, part: Sequence[TokenSequence]) -> float:
    """Mean nats a token, through the model's own sessions."""
    total, count = 0.0, 0
    for one in part:
        ids = one.tokens.tolist()
        rows = model.session().feed(ids[:-1])
        total -= float(log_softmax(rows)[np.arange(len(ids) - 1), ids[1:]].sum())
        count += len(ids) - 1
    return total / count


def sweep(models: Sequence[Any], part: Sequence[TokenSequence], rules: Sequence[Any]) -> Any:
    """Mean nats a token under each rule, every model reading each text once."""
    totals, count = np.zeros(len(rules)), 0
    for one in part:
        ids = one.tokens.tolist()
        rows = [model.session().feed(ids[:-1]) for model in models]
        count += len(ids) - 1
        for i, rule in enumerate(rules):
            logs = log_softmax(rule(rows))
            totals[i] -= float(logs[np.arange(len(ids) - 1), ids[1:]].sum())
    return totals / count


def tuned(
    model: Any, parts: Any, rates: Sequence[float], options: Any, name: str, seed: int
) -> Any:
    """Tune copies of a model with each learning rate; keep the best on the validation part."""
    found = []
    network = model.network
    for rate in rates:
        model.network = copied(network, options.layers)
        tuning = Tuning(
            epochs=options.epochs, batch=BATCH, learning_rate=rate, seed=seed, save_every=1e6
        )
        began = time.process_time()
        kept = options.work / f"{name}-{seed}-{rate:g}.safetensors"
        finetune_language_model(model.network, parts["train"], tuning, checkpoint=kept)
        seconds = time.process_time() - began
        found.append((surprisal(model, parts["choose"]), rate, model.network))
        nats = found[-1][0]
        print(f"{name}, rate {rate:g}: {nats:.4f} nats, {seconds:.0f} processor s", flush=True)
    model.network = network
    return min(found, key=lambda each: each[0])


def copied(network: Any, last: int) -> Any:
    """A copy whose last layers move, and its output layer unless tied; all else is shared."""
    network.requires_grad_(False)
    layers = network.base_model.layers
    fixed = [network.get_input_embeddings(), *layers[: max(0, len(layers) - last)]]
    twin = copy.deepcopy(network, {id(module): module for module in fixed})
    twin.requires_grad_(True)
    for module in fixed:
        module.requires_grad_(False)
    return twin


def measured(large: Any, tiny: Any, expert: Any, name: str, options: Any, seed: int) -> Any:
    """One domain, one draw of its texts."""
    parts = windows(large, name, options.tokens, options.held, seed)
    _, tiny_rate, expert.network = tuned(
        tiny, parts, options.tiny_rates, options, f"{name}-tiny", seed
    )
    rules = [proxy(strength) for strength in STRENGTHS]
    choose = sweep([large, expert, tiny], parts["choose"], rules)
    strength = STRENGTHS[int(choose.argmin())]
    steered = Steered([large, expert, tiny], proxy(strength))
    logs = {
        "base": surprisal(large, parts["measure"]),
        "proxy": surprisal(steered, parts["measure"]),
        "proxy, strength 1": surprisal(Steered([large, expert, tiny], proxy()), parts["measure"]),
        "tiny": surprisal(tiny, parts["measure"]),
        "tiny tuned": surprisal(expert, parts["measure"]),
    }
    rows = [
        np.concatenate([m.session().feed(s.tokens[:-1].tolist()) for s in parts["choose"][:16]])
        for m in (large, expert)
    ]
    share = fit_share(*rows, np.concatenate([s.tokens[1:] for s in parts["choose"][:16]]).tolist())
    mixed = Steered([large, expert], Mix((1 - share, share), "linear"))
    logs["mix with tiny tuned"] = surprisal(mixed, parts["measure"])
    frozen = large.network
    _, large_rate, network = tuned(
        large, parts, options.large_rates, options, f"{name}-large", seed
    )
    large.network = network
    logs["direct"] = surprisal(large, parts["measure"])
    large.network = frozen
    for model in (steered, mixed):
        model.close()
    return {
        "domain": name,
        "seed": seed,
        "tokens": {part: sum(s.learned for s in some) for part, some in parts.items()},
        "strength": strength,
        "choosing_nats": dict(zip(map(str, STRENGTHS), np.round(choose, 4).tolist(), strict=True)),
        "mix_share": round(share, 3),
        "rates": {"tiny": tiny_rate, "large": large_rate},
        "perplexity": {name: round(float(np.exp(nats)), 2) for name, nats in logs.items()},
        "share": round((logs["base"] - logs["proxy"]) / (logs["base"] - logs["direct"]), 3),
        "share_strength_1": round(
            (logs["base"] - logs["proxy, strength 1"]) / (logs["base"] - logs["direct"]), 3
        ),
        "share_mix": round(
            (logs["base"] - logs["mix with tiny tuned"]) / (logs["base"] - logs["direct"]), 3
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draft", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--domains", nargs="*", default=["sms-spam", "banking77"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=12_800, help="of a domain that are learned")
    parser.add_argument("--held", type=int, default=5_120, help="that are measured; half to choose")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--layers", type=int, default=10, help="of the large one, that are tuned")
    parser.add_argument("--large", default=f"transformers:{TARGET}")
    parser.add_argument("--tiny-rates", type=float, nargs="+", default=[1e-3, 3e-4])
    parser.add_argument("--large-rates", type=float, nargs="+", default=[1e-4, 3e-5])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only-large", action="store_true", help="tune the large one ahead")
    parser.add_argument("--note", default="")
    parser.add_argument("--out", type=Path, default=RESULTS / "proxy_tuning.json")
    options = parser.parse_args()
    config = Config()
    large: Any = load_model(options.large, config, threads=options.threads)
    if options.only_large:
        for name, seed in itertools.product(options.domains, range(options.seeds)):
            parts = windows(large, name, options.tokens, options.held, seed)
            tuned(large, parts, options.large_rates, options, f"{name}-large", seed)
        return
    whole = options.work / "tiny"  # the draft with all of its vocabulary
    shutil.copytree(options.draft, whole, dirs_exist_ok=True)
    (whole / HEAD_TOKENS).unlink(missing_ok=True)
    tiny, expert = (load_model(f"transformers:{whole}", config) for _ in range(2))
    weights = {
        name: sum(p.numel() for p in model.network.parameters())  # type: ignore[attr-defined]
        for name, model in (("large", large), ("tiny", tiny))
    }
    rows = []
    for name, seed in itertools.product(options.domains, range(options.seeds)):
        rows.append(measured(large, tiny, expert, name, options, seed))
        print(json.dumps(rows[-1]), flush=True)
        result = {
            **with_torch(options.note),
            "large": options.large,
            "large_layers_tuned": options.layers,
            "weights": weights,
            "epochs": options.epochs,
            "windows_a_step": BATCH,
            "runs": rows,
        }
        options.out.parent.mkdir(exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
