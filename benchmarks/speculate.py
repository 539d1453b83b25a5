"""Claim: speculation is never slower than plain decoding, and >= 1.5 times as fast where answers copy.

Two backends: torch in float32 and llama.cpp in 4 bits, the same weights (smollm2-135m); and for llama.cpp
a larger target (qwen2.5-coder-0.5b) with smollm2-135m, of another vocabulary, as its draft. Drafts:
lookup in the prompt, a small model, and with ``--draft`` one of the target's own vocabulary. In the same
run on the same torch weights the transformers library: its plain decoding, its prompt lookup, and its
assisted generation with the same draft.

Every prompt is answered by every setting in turn (by the other library every second one), the order
changing from prompt to prompt; a pair is one prompt's plain time over its speculative time. What is
timed is the writing of the answer, greedy, after the prompt was read; a draft model reads the prompt
within that time. Medians of the pairs with a 95% bootstrap interval. Each answer is compared with the
plain one.

    pilotfish pull smollm2-135m qwen2.5-coder-0.5b
    python benchmarks/speculate.py [--pairs 30] [--tokens 64] [--draft FOLDER] [--only torch llama qwen]
    python benchmarks/speculate.py --only torch --device cuda --dtype bfloat16 --random 24x2048
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from speculate_prompts import prompts

from pilotfish.config import Config, default_cache_dir
from pilotfish.infer.speculate.cost import measure, measured
from pilotfish.infer.speculate.speculative import Speculative, model_draft
from pilotfish.loop.account import hardware
from pilotfish.models.load import load_model
from pilotfish.records import Request

RESULTS = Path(__file__).parent / "results" / "speculate.json"
THEIRS = "transformers plain"
SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
Answer = Callable[[str, int], tuple[float, str]]
Floats = NDArray[np.float64]


def ours(model: Any) -> Answer:
    """Seconds to write an answer, and its text."""

    def answer(prompt: str, tokens: int) -> tuple[float, str]:
        asyncio.run(model.complete(Request.of(prompt, max_tokens=1)))  # the prompt is read
        done = asyncio.run(model.complete(Request.of(prompt, max_tokens=tokens)))
        return done.latency, done.text

    return answer


def theirs(model: Any, **how: Any) -> Answer:
    """The same by ``generate`` of the transformers library."""
    import torch

    def answer(prompt: str, tokens: int) -> tuple[float, str]:
        ids = torch.tensor([model.prompt_tokens(Request.of(prompt))], device=model.device)
        with torch.inference_mode():
            read = model.network(ids[:, :-1], use_cache=True, logits_to_keep=1).past_key_values
            began = time.perf_counter()
            done = model.network.generate(
                ids, past_key_values=read, attention_mask=torch.ones_like(ids), do_sample=False,
                max_new_tokens=tokens, eos_token_id=sorted(model._ends), pad_token_id=0, **how,
            )  # fmt: skip
            took = time.perf_counter() - began
        said = [t for t in done[0, ids.shape[1] :].tolist() if not model.ends(t)]
        return took, b"".join(map(model.token_bytes, said)).decode("utf-8", "replace")

    return answer


def random_llama(folder: Path, size: str) -> Path:
    """A Llama of random weights and a vocabulary of bytes; LAYERSxWIDTH."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    layers, width = map(int, size.split("x"))
    letters = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    config = LlamaConfig(
        vocab_size=49152, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=width // 64, num_key_value_heads=max(1, width // 256), eos_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    bpe = Tokenizer(BPE({letter: i for i, letter in enumerate(letters)}, []))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|end|>").save_pretrained(folder)
    return folder


def speculators(load: Callable[[], Any], draft: Any, cache: Path) -> dict[str, Speculative]:
    """Each with a target of its own: in a shared context not every bit is computed alike."""
    found = {"lookup": Speculative(load(), cache=cache)}
    if draft is not None:
        target = load()
        small = model_draft(draft, target, cache)
        name = "draft" if small.same else "draft of another vocabulary"
        found[name] = Speculative(target, small, cache=cache)
    return found


def race(answers: dict[str, Answer], options: argparse.Namespace) -> dict[str, Any]:
    """Every prompt by every setting, every second one by the other library's."""
    names, found = list(answers), {}
    for answer in answers.values():
        answer("What is this?", 16)  # warm
    for group, rows in prompts(options.pairs).items():
        times = {name: np.full(len(rows), np.nan) for name in names}
        same: dict[str, list[bool]] = {name: [] for name in names}
        for at, (_, prompt) in enumerate(rows):
            turn, said = at % len(names), dict[str, str]()
            for name in names[turn:] + names[:turn]:
                if at % 2 == 0 or not name.startswith("transformers"):
                    times[name][at], said[name] = answers[name](prompt, options.tokens)
            for name, text in said.items():
                same[name].append(text == said[names[0]])
        kinds = np.asarray([kind for kind, _ in rows])
        found[group] = {
            name: paired(times[names[0]], times[name], kinds)
            | {"identical": round(float(np.mean(same[name])), 3)}
            for name in names
        }
        for name in names:
            if name.startswith("transformers ") and name != THEIRS:
                own = paired(times[THEIRS], times[name], kinds)
                found[group][name]["to_its_own_plain"] = [own["ratio"], *own["interval"]]
    return found


def paired(plain: Floats, fast: Floats, kinds: Any) -> dict[str, Any]:
    """Median of the ratios of pairs, all and by kind, with a bootstrap interval."""
    ran = ~np.isnan(fast)
    ratios, kinds = (plain / fast)[ran], kinds[ran]
    rng = np.random.default_rng(0)
    draws = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
    return {
        "ratio": round(float(np.median(ratios)), 3),
        "interval": [round(float(x), 3) for x in np.quantile(draws, [0.025, 0.975])],
        "by_kind": {
            kind: round(float(np.median(ratios[kinds == kind])), 3)
            for kind in sorted(set(kinds.tolist()))
        },
        "seconds": round(float(np.median(fast[ran])), 3),
        "whole_ratio": round(float(plain[ran].sum() / fast[ran].sum()), 3),
        "pairs": len(ratios),
    }


def setting(
    name: str, load: Callable[[], Any], draft: Any, options: argparse.Namespace
) -> dict[str, Any]:
    """One target with its drafts; on torch beside the library's own ways."""
    cache, target = Path(options.cache), load()
    curve = measured(target, cache)
    print(f"{name}: {curve.table()}", flush=True)
    fast = speculators(load if name != "torch" else lambda: target, draft, cache)
    answers = {"plain": ours(target)} | {key: ours(model) for key, model in fast.items()}
    if name == "torch":
        answers[THEIRS] = theirs(target)
        answers["transformers lookup"] = theirs(target, prompt_lookup_num_tokens=10)
        if draft is not None:
            answers["transformers assisted"] = theirs(target, assistant_model=draft.network)
    began = time.perf_counter()
    rows = race(answers, options)
    for group, found in rows.items():
        for key, row in found.items():
            print(f"  {group:8}{key:30}{row['ratio']:6.2f}x {row['interval']} {row['by_kind']} "
                  f"{row['seconds']:.2f} s, identical {row['identical']:.2f}", flush=True)  # fmt: skip
    figures = {key: vars(model.figures) for key, model in fast.items()}
    print(f"  {figures}  {time.perf_counter() - began:.0f} s", flush=True)
    after = measure(target)
    targets = {id(model.target): model.target for model in fast.values()} | {id(target): target}
    for model in (*fast.values(), *targets.values()):
        model.close()
    return {
        "target": target.name,
        "cost_ms": {k: round(1e3 * s, 2) for k, s in curve.seconds.items()},
        "cost_afterwards_ms": {k: round(1e3 * s, 2) for k, s in after.seconds.items()},
        "groups": rows,
        "figures": figures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--only", nargs="+", default=["torch", "llama", "qwen"])
    parser.add_argument("--draft", type=Path, help="folder of a draft of the target's vocabulary")
    parser.add_argument(
        "--model", default=SMALL, help="the target: a name, a folder or a .gguf file"
    )
    parser.add_argument(
        "--random", metavar="LAYERSxWIDTH", help="a target of random weights, on torch"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--cache", default=str(default_cache_dir()), help="where curves are kept")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    config, on = Config(), {"device": options.device, "dtype": options.dtype}
    stored: dict[str, Any] = {
        "date": date.today().isoformat(),
        "hardware": hardware() | {"device": options.device},
        "pairs": options.pairs,
        "tokens": options.tokens,
        "settings": {},
    }
    if options.device.startswith("cuda"):
        import torch

        stored["hardware"]["gpu"] = torch.cuda.get_device_name()
    options.out.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        torch_model = options.model
        if options.random:
            torch_model = str(random_llama(Path(folder), options.random))
        for name in options.only:
            spec, how, draft = f"llama.cpp:{LARGE if name == 'qwen' else options.model}", {}, None
            if name == "torch":
                spec, how = f"transformers:{torch_model}", on
            if name == "qwen":
                draft = load_model(f"llama.cpp:{SMALL}", config)
            elif options.draft:
                draft = load_model(f"transformers:{options.draft}", config, **on)
            load = functools.partial(load_model, spec, config, **how)
            stored["settings"][name] = setting(name, load, draft, options)
            if draft is not None:
                draft.close()
            options.out.write_text(json.dumps(stored, indent=2) + "\n")


if __name__ == "__main__":
    main()
