"""How many calibration answers a promise takes: the table and the plot of docs/certainty.md.

For a true disagreement rate and a promise, the smallest sample that is certified with probability 0.9 by
the exact binomial test. Computed, not simulated; takes seconds.

    python benchmarks/answers_needed.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

IMAGE = Path(__file__).parent.parent / "docs" / "images" / "answers_needed.svg"


def needed(rate: float, alpha: float, delta: float, power: float = 0.9) -> int | None:
    """Smallest n, to 2%, with P(certified) >= power; None above 200,000."""
    n = max(10, int(np.log(delta) / np.log(1 - alpha)))
    while n < 200_000:
        most = int(stats.binom.ppf(delta, n, alpha))
        most -= stats.binom.cdf(most, n, alpha) > delta
        if most >= 0 and stats.binom.cdf(most, n, rate) >= power:
            return n
        n = max(n + 1, int(n * 1.02))
    return None


def main() -> None:
    for alpha in (0.1, 0.05, 0.02):
        shares = [0.0, 0.2, 0.4, 0.6, 0.8, 0.9]
        print(alpha, [needed(share * alpha, alpha, 0.05) for share in shares])
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    shares = np.linspace(0.0, 0.92, 40)
    for alpha, colour, dash in (
        (0.02, "#0072b2", "-"),
        (0.05, "#d55e00", "--"),
        (0.1, "#009e73", ":"),
    ):
        counts = [needed(share * alpha, alpha, 0.05) or np.nan for share in shares]
        axes.plot(100 * shares, counts, dash, color=colour, lw=2, label=f"agree {1 - alpha:.2f}")
    axes.set_yscale("log")
    axes.set_yticks([100, 1000, 10_000, 100_000], ["100", "1,000", "10,000", "100,000"])
    axes.set_xlabel("true disagreement, in % of what the promise allows")
    axes.set_ylabel("answers needed")
    axes.set_title(
        "Calibration answers for a promise at delta 0.05, found 9 times in 10", fontsize=10
    )
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    IMAGE.parent.mkdir(exist_ok=True)
    matplotlib.rcParams["svg.hashsalt"] = "pilotfish"
    figure.savefig(IMAGE, metadata={"Date": None})


if __name__ == "__main__":
    main()
