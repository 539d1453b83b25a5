"""How soon the alarm comes and how often it is false: the figure and the table of docs/certainty.md.

Simulated checks against a promise of 0.95 agreement at delta 0.05, with a true disagreement of 3%
before the drift. Stores benchmarks/results/watch.json and docs/images/detection_delay.svg; takes about
a minute.

    python benchmarks/watch.py
"""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from pilotfish.infer.watch import simulate

HERE = Path(__file__).parent
RESULT = HERE / "results" / "watch.json"
IMAGE = HERE.parent / "docs" / "images" / "detection_delay.svg"
TARGET, DELTA, BEFORE = 0.05, 0.05, 0.03
RISKS = (0.07, 0.08, 0.10, 0.125, 0.15, 0.20, 0.30, 0.40, 0.60, 0.80)
STARTS = (0, 500, 5_000)
RUNS, LONGEST = 400, 6_000


def delays(risk: float, start: int) -> dict[str, float | None]:
    """Median and 90th percentile of the checks from the drift to the alarm; None where beyond the end."""
    rng = np.random.default_rng([int(1000 * risk), start])
    length = start + min(LONGEST, int(12 / (risk - TARGET) ** 2) + 200)
    risks = np.where(np.arange(length) < start, BEFORE, risk)
    found = simulate(rng.random((RUNS, length)) < risks, TARGET, DELTA)
    after = np.where(found > start, found - start, np.inf)[(found == 0) | (found > start)]
    p50, p90 = np.quantile(after, [0.5, 0.9], method="higher")
    return {
        "risk": risk,
        "start": start,
        "p50": float(p50) if np.isfinite(p50) else None,
        "p90": float(p90) if np.isfinite(p90) else None,
        "found": float(np.isfinite(after).mean()),
    }


def false_alarms() -> dict[str, float]:
    """At the boundary of the promise: days of their own, and one watch over all of the days."""
    rng = np.random.default_rng(0)
    days = simulate(rng.random((1_000, 1_000)) < TARGET, TARGET, DELTA)
    long = simulate(rng.random((400, 100_000)) < TARGET, TARGET, DELTA)
    kept = simulate(rng.random((400, 100_000)) < BEFORE, TARGET, DELTA)
    return {
        "of_1000_days_with_1000_checks": float((days > 0).sum()),
        "share_of_watches_over_1000_days_with_100_checks": float((long > 0).mean()),
        "the_same_where_the_promise_is_kept": float((kept > 0).mean()),
    }


def plot(rows: list[dict[str, float | None]]) -> None:
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    for start, colour, dash in zip(
        STARTS, ("#009e73", "#0072b2", "#d55e00"), (":", "-", "--"), strict=True
    ):
        mine = [row for row in rows if row["start"] == start]
        at = [100 * row["risk"] for row in mine]
        label = "from the first check" if not start else f"after {start:,} checks that kept it"
        axes.plot(at, [row["p50"] or np.nan for row in mine], dash, color=colour, lw=2, label=label)
        nine = [row["p90"] or np.nan for row in mine]
        axes.plot(at, nine, dash, color=colour, lw=1, alpha=0.5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(
        [7, 10, 15, 20, 30, 40, 60, 80], ["7", "10", "15", "20", "30", "40", "60", "80"]
    )
    axes.minorticks_off()
    axes.set_yticks(
        [3, 10, 30, 100, 300, 1000, 3000], ["3", "10", "30", "100", "300", "1,000", "3,000"]
    )
    axes.set_xlabel("disagreement after the drift, in %")
    axes.set_ylabel("checks until the alarm")
    axes.set_title("Alarm at delta 0.05 for agree 0.95: median, and (thin) 9 in 10", fontsize=10)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    IMAGE.parent.mkdir(exist_ok=True)
    matplotlib.rcParams["svg.hashsalt"] = "pilotfish"
    figure.savefig(IMAGE, metadata={"Date": None})


def main() -> None:
    rows = [delays(risk, start) for start in STARTS for risk in RISKS]
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "target": TARGET,
        "delta": DELTA,
        "before": BEFORE,
        "runs": RUNS,
        "false_alarms": false_alarms(),
        "delays": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    plot(rows)
    print(json.dumps(result["false_alarms"], indent=1))
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
