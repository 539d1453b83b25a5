"""What could be served: against trying every threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.loop.estimate import disagreement_curve, servable
from pilotfish.loop.plan import MOST_ANSWERS, estimate, plan_of
from pilotfish.loop.teach import FIRST_BATCH
from pilotfish.progress import Progress

cases = st.lists(
    st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.9]), st.booleans(), st.integers(1, 4)),
    min_size=1,
    max_size=30,
)


@given(cases, st.sampled_from([0.5, 0.8, 0.95]), st.sampled_from(["all", "served"]))
def test_servable_equals_brute_force(
    case: list[tuple[float, bool, int]], target: float, on: str
) -> None:
    scores, agreed, weights = (np.array(column) for column in zip(*case, strict=True))
    best = 0.0
    for threshold in np.unique(scores):
        served = scores >= threshold
        wrong = weights[served & ~agreed].sum()
        base = weights[served].sum() if on == "served" else weights.sum()
        if wrong <= (1 - target) * base + 1e-9:
            best = max(best, weights[served].sum() / weights.sum())
    assert servable(scores, agreed, weights.astype(float), target=target, on=on) == pytest.approx(
        best
    )


def test_nothing_to_serve() -> None:
    assert servable(np.zeros(0), np.zeros(0, bool), np.zeros(0), target=0.9) == 0.0


def test_disagreement_falls_with_the_score_and_follows_the_truth() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 1, 20_000)
    agreed = rng.uniform(0, 1, 20_000) < scores
    at = np.linspace(0.05, 0.95, 19)
    curve = disagreement_curve(scores, agreed, np.ones(20_000))(at)
    assert (np.diff(curve) <= 0).all()
    assert np.abs(curve - (1 - at)).max() < 0.05
    assert (curve > 0).all()


@pytest.mark.parametrize(("budget", "taught"), [(None, MOST_ANSWERS), ("100000", 2_000)])
def test_the_dry_run_knows_where_training_stops(
    tmp_path: Path, budget: str | None, taught: int
) -> None:
    """Without a budget no more answers are asked to train on than a race takes."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f'{{"text": "row {i}"}}\n' for i in range(4_000)))
    plan = plan_of("Topic? {text}", labels=["a", "b"], budget=budget, horizon=10**6)
    found = estimate(plan, file, None, Progress())
    assert found.high == taught + 18 * plan.fewest_rows
    assert found.low == FIRST_BATCH + plan.fewest_rows
    assert found.low < found.expected <= found.high
