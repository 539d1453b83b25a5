"""The recorded outcomes that benchmarks/routing.py reads, and what each answer cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pilotfish.config import Price
from pilotfish.infer.outcome_files import read_outcomes
from pilotfish.infer.outcomes import Outcomes

POOL = {
    "llama3-chatqa-1.5-8b": 8,
    "qwen2.5-7b-instruct": 7,
    "llama3-chatqa-1.5-70b": 70,
    "llama-3.1-nemotron-51b-instruct": 51,
    "mistral-7b-instruct-v0.3": 7,
    "gemma-2-9b-it": 9,
    "llama-3.1-8b-instruct": 8,
    "codegemma-7b": 7,
    "llama-3.3-nemotron-super-49b-v1": 49,
}
PRO = {
    "gemini_15_pro": Price(3.5, 10.5, date="2024-06"),
    "gemini_15_flash": Price(0.35, 1.05, date="2024-06"),
    "llama31_70b": Price(0.9, 0.9, date="2024-08"),
    "llama31_8b": Price(0.2, 0.2, date="2024-08"),
    "qwen15_72b": Price(0.9, 0.9, date="2024-06"),
    "qwen15_7b": Price(0.2, 0.2, date="2024-06"),
    "phi3_mini": Price(0.1, 0.1, date="2024-06"),
    "mistral_7b": Price(0.2, 0.2, date="2024-06"),
}


def two_models(folder: Path, name: str) -> Outcomes:
    models = ["mixtral_8x7b", "gpt_4_1106"]
    recorded = read_outcomes(folder / name, models=models, columns={"quality": "{}"})
    cost = np.tile(np.array([0.24, 24.7], np.float32), (len(recorded), 1))
    return Outcomes(recorded.texts, recorded.models, recorded.quality, cost, groups=recorded.groups)


def pool(folder: Path) -> Outcomes:
    recorded = read_outcomes(
        folder / "llmrouter_pool_train.parquet", models=list(POOL), columns={"quality": "{}"}
    )
    prices = {name: Price(0.01 * size, 0.01 * size) for name, size in POOL.items()}
    return recorded.priced(prices, answer_tokens=300)


def mmlu_pro(folder: Path) -> Outcomes:
    table = pq.read_table(folder / "mmlupro_dev.parquet")
    letters = "ABCDEFGHIJ"
    rows = zip(table["question"].to_pylist(), table["options"].to_pylist(), strict=True)
    prompts = [
        question + "\n" + "\n".join(f"{a}. {option}" for a, option in zip(letters, options))  # noqa: B905
        for question, options in rows
    ]
    path = Path("/tmp") / f"pilotfish-mmlupro-{np.random.default_rng().integers(1 << 40)}.parquet"
    pq.write_table(table.append_column("prompt", pa.array(prompts)), path)
    try:
        recorded = read_outcomes(
            path, models=list(PRO), columns={"quality": "{}", "answer": "{}_answer"}
        )
    finally:
        path.unlink()
    return recorded.priced(PRO)
