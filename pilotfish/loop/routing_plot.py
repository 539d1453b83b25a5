"""The curves of ``pilotfish replay``: mean quality against mean cost, one line a policy.

A diamond is the setting that a dial chose; it lies off the curve, which is drawn in hindsight.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pilotfish.errors import InputError
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.replay import Score
from pilotfish.sources import writable, writing

LINES = ("-", "--", "-.", ":")
ENDINGS = (".svg", ".png", ".pdf")


def check_costs(outcomes: Outcomes) -> None:
    """Whether there can be a plot; to be asked before the work.

    Raises:
        InputError: Costs are unknown.
    """
    unknown = np.isnan(outcomes.cost)
    if unknown.any():
        raise InputError(
            f"A plot needs the cost of every answer, but {int(unknown.sum()):,} of {unknown.size:,} are "
            "unknown.",
            remedy="Add cost columns, give --price MODEL=INPUT,OUTPUT, or leave models out (--models)",
        )


def draw_curves(scores: Sequence[Score], outcomes: Outcomes, path: str | Path) -> None:
    """Draw to ``.svg``, ``.png`` or ``.pdf``; the single models are points with their names.

    Args:
        scores: Of :func:`pilotfish.infer.replay.replay`.
        outcomes: What they were replayed on.
        path: Where to.

    Raises:
        InputError: Costs are unknown, the file's ending is not one of these, or it cannot be written.
    """
    from matplotlib.figure import Figure

    path = writable(path, ENDINGS)
    check_costs(outcomes)
    figure = Figure(figsize=(8, 5), layout="constrained")
    ax = figure.add_subplot()
    for i, score in enumerate(scores):
        cost, quality = score.curve.T
        seen = np.flatnonzero(~np.isnan(quality))
        marker = "s" if len(seen) == 1 else ""
        style = LINES[i % len(LINES)]
        (line,) = ax.plot(cost, quality, ls=style, marker=marker, lw=1.8, label=score.policy)
        if score.point is not None:
            ax.plot(*score.point, "D", ms=8, mec="white", color=line.get_color())
    if any(score.point is not None for score in scores):
        ax.plot([], [], "D", ms=8, mec="white", color="0.35", label="chosen by the dial")
    cost, quality = outcomes.mean_cost(), outcomes.mean_quality()
    ax.plot(cost, quality, "o", ms=5, color="0.35")
    for name, x, y in zip(outcomes.models, cost.tolist(), quality.tolist(), strict=True):
        ax.annotate(name, (x, y), xytext=(4, -10), textcoords="offset points", fontsize=7)
    if cost.min() > 0 and cost.max() > 20 * cost.min():
        ax.set_xscale("log")
    ax.set(xlabel="mean cost of a request", ylabel="mean quality")
    top = max(float(np.nanmax(score.curve[:, 1])) for score in scores)
    ax.set_ylim(top=min(1.0, top + 0.02))
    ax.legend(frameon=False, fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    # Same input, same file: no date in it, and identifiers that do not change.
    import matplotlib as mpl

    with writing(path), mpl.rc_context({"svg.hashsalt": "pilotfish"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)
