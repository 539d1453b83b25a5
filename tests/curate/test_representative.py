"""Representative rows and MoDS against brute force over the same embeddings."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pilotfish.curate import Pipeline
from pilotfish.curate.mods import MoDS
from pilotfish.curate.representative import Representative
from pilotfish.curate.step import ROW, TEXT, FittedStep
from pilotfish.curate.vectors import embed, read_vectors
from pilotfish.errors import ConfigError, InputError

TOPICS = {
    "sea": ["river", "fish", "swims", "cold", "water", "wave", "boat", "salt", "tide"],
    "law": ["court", "judge", "appeal", "contract", "party", "lawyer", "verdict", "trial"],
    "food": ["bread", "butter", "cheese", "soup", "dinner", "kitchen", "salad", "bake"],
}


def rows(n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Most are about the sea; quality and the score of a model's answer are random."""
    draw = random.Random(seed)
    made: list[dict[str, Any]] = []
    for _ in range(n):
        topic = draw.choices(list(TOPICS), [0.8, 0.15, 0.05])[0]
        text = " ".join(draw.choices(TOPICS[topic], k=draw.randint(3, 9)))
        made.append({"text": text, "topic": topic, "good": draw.random(), "answer": draw.random()})
    made[7]["good"] = made[11]["answer"] = None
    return made


ROWS = rows(150)


def batch(first: int, last: int) -> pa.RecordBatch:
    part = ROWS[first:last]
    return pa.RecordBatch.from_pydict(
        {
            ROW: pa.array(range(first, last), pa.uint64()),
            TEXT: pa.array([row["text"] for row in part], pa.string()),
            "good": pa.array([row["good"] for row in part], pa.float64()),
            "answer": pa.array([row["answer"] for row in part], pa.float64()),
        }
    )


WHOLE = batch(0, len(ROWS))
VECTORS = read_vectors([embed(WHOLE, "static")])[1].astype(np.float64)


def kept(step: FittedStep, folder: Path) -> tuple[set[int], list[str | None]]:
    """What it keeps when the states come in the wrong order, and all reasons."""
    folder.mkdir(exist_ok=True)
    states = [step.map(batch(i, min(i + 40, len(ROWS)))) for i in range(0, len(ROWS), 40)]
    reasons = step.reduce(states[::-1], folder).apply(WHOLE).reasons
    assert reasons is not None
    found = reasons.to_pylist()
    return {i for i, reason in enumerate(found) if reason is None}, found


def farthest_first(pool: list[int], k: int, centers: list[int]) -> list[int]:
    """Greedy k-centre by brute force, from centres that are there."""
    taken = list(centers)
    for _ in range(k):
        left = [i for i in pool if i not in taken]
        distances = [
            min(float(((VECTORS[i] - VECTORS[c]) ** 2).sum()) for c in taken) for i in left
        ]
        taken.append(left[int(np.argmax(distances))])
    return taken[len(centers) :]


def radius(pool: list[int], centers: set[int]) -> float:
    return max(min(float(((VECTORS[i] - VECTORS[c]) ** 2).sum()) for c in centers) for i in pool)


def test_k_center_covers_as_brute_force_does(tmp_path: Path) -> None:
    chosen, _ = kept(Representative(rows=8, method="k-center", seed=3), tmp_path)
    first = int(np.random.default_rng(3).integers(len(ROWS)))
    other = {first, *farthest_first(list(range(len(ROWS))), 7, [first])}
    assert first in chosen
    everything = list(range(len(ROWS)))
    assert radius(everything, chosen) == pytest.approx(radius(everything, other), rel=1e-3)
    assert {ROWS[i]["topic"] for i in chosen} == set(TOPICS)


def test_facility_location_beats_random_at_what_it_maximises(tmp_path: Path) -> None:
    def value(chosen: set[int]) -> float:
        return float((VECTORS @ VECTORS[sorted(chosen)].T).max(axis=1).mean())

    best, reasons = kept(Representative(share=0.05), tmp_path / "a")
    assert len(best) == round(0.05 * len(ROWS))
    assert set(reasons) == {None, "representative.not_chosen"}
    others = [
        kept(Representative(share=0.05, method="random", seed=i), tmp_path / str(i))[0]
        for i in range(5)
    ]
    assert value(best) > max(map(value, others))


def test_nearest_takes_what_points_the_way_of_the_target(tmp_path: Path) -> None:
    (tmp_path / "target.txt").write_text("cheese soup\nbutter bread\n")
    step = Representative(rows=5, method="nearest", target=str(tmp_path / "target.txt"))
    chosen, _ = kept(step, tmp_path / "fit")
    texts = pa.array(["cheese soup", "butter bread"])
    goal = embed(pa.record_batch({ROW: pa.array([0, 1], pa.uint64()), TEXT: texts}), "static")
    direction = read_vectors([goal])[1].mean(axis=0)
    assert chosen == set(np.argsort(-(VECTORS @ direction))[:5].tolist())
    assert {ROWS[i]["topic"] for i in chosen} == {"food"}


def test_mods_is_quality_then_coverage_then_necessity(tmp_path: Path) -> None:
    good = [i for i, row in enumerate(ROWS) if row["good"] is not None and row["good"] >= 0.3]
    seed, reasons = kept(MoDS("good", 0.3, 6), tmp_path / "seed")
    low = {i for i, reason in enumerate(reasons) if reason == "mods.low_quality"}
    assert low == set(range(len(ROWS))) - set(good)
    first = good[int(np.random.default_rng(0).integers(len(good)))]
    assert radius(good, seed) == pytest.approx(
        radius(good, {first, *farthest_first(good, 5, [first])}), rel=1e-3
    )
    step = MoDS("good", 0.3, 6, answer_score="answer", max_answer_score=0.4, needed_rows=10)
    assert step.reads == {"good": "double", "answer": "double"}
    both, reasons = kept(step, tmp_path / "both")
    bad = [
        i
        for i in good
        if i not in seed and ROWS[i]["answer"] is not None and ROWS[i]["answer"] < 0.4
    ]
    assert seed < both
    assert both - seed <= set(bad)
    assert len(both) == 16
    picked = farthest_first(bad, 10, sorted(seed))
    assert radius(bad, both) == pytest.approx(radius(bad, seed | set(picked)), rel=1e-3)
    needless = {i for i, reason in enumerate(reasons) if reason == "mods.not_needed"}
    assert needless == set(good) - seed - set(bad)


def test_mods_in_a_pipeline_reads_the_scores_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "pipeline.toml").write_text(
        '[[steps]]\nstep = "mods"\nquality = "good"\nmin_quality = 0.3\nseed_rows = 6\n'
    )
    result = Pipeline.from_file(tmp_path / "pipeline.toml").run(
        tmp_path / "in.jsonl", tmp_path / "out"
    )
    seed, _ = kept(MoDS("good", 0.3, 6), tmp_path / "seed")
    lines = (tmp_path / "out" / "part-00000.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == [ROWS[i]["text"] for i in sorted(seed)]
    assert result.rows_kept == 6


def test_settings_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for settings in (
        {},
        {"rows": 3, "share": 0.1},
        {"rows": 3, "method": "nearest"},
        {"rows": 3, "target": "x.txt"},
    ):
        with pytest.raises(ConfigError, match="representative"):
            Representative(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="together"):
        MoDS("good", 0.3, 6, answer_score="answer")
    with pytest.raises(ConfigError, match="seed_rows"):
        MoDS("good", 0.3, 0)
    (tmp_path / "target.jsonl").write_text('{"body": "soup"}\n')
    step = Representative(rows=5, method="nearest", target=str(tmp_path / "target.jsonl"))
    with pytest.raises(InputError, match="target_text"):
        kept(step, tmp_path / "fit")
