"""What benchmarks/cascades.py says of its runs: means over seeds, promises kept, and the page."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import beta


def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for name in runs[0]["policies"]:
        each = [run["policies"][name] for run in runs if name in run["policies"]]
        gain = np.array(
            [row["quality"] - run["large"] for row, run in zip(each, runs, strict=True)]
        )
        row = {
            "policy": name,
            "quality": round(float(np.mean([e["quality"] for e in each])), 4),
            "gain_over_large": round(float(gain.mean()), 4),
            "spread_of_gain": round(float(gain.std(ddof=1)) if len(gain) > 1 else 0.0, 4),
            "seeds_at_or_above_large": int((gain >= 0).sum()),
            "seeds": len(gain),
        }
        for key in ("cost_share", "strong_share", "models_asked"):
            row[key] = round(float(np.mean([e[key] for e in each])), 3)
        rows.append(row)
    return rows


def kept(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for name in runs[0]["policies"]:
        each = [run["policies"][name].get("promises") for run in runs if name in run["policies"]]
        if not each or each[0] is None:
            continue
        for k, promise in enumerate(each[0]):
            joined = {
                key: np.concatenate([e[k][key] for e in each]).astype(float)
                for key in ("broken", "strong_share", "quality", "cost_share")
            }
            rows.append(
                {"policy": name, "risk": promise["risk"], "target": promise["target"]}
                | {"splits": len(joined["broken"])}
                | {"kept": round(float(1 - joined["broken"].mean()), 4)}
                | {"kept_interval": interval(joined["broken"] == 0)}
                | {
                    key: round(float(joined[key].mean()), 4)
                    for key in ("strong_share", "quality", "cost_share")
                }
            )
    return rows


def interval(held: np.ndarray) -> list[float]:
    """Clopper and Pearson's 95% interval of a share."""
    yes, n = int(held.sum()), len(held)
    low = beta.ppf(0.025, yes, n - yes + 1) if yes else 0.0
    high = beta.ppf(0.975, yes + 1, n - yes) if yes < n else 1.0
    return [round(float(low), 4), round(float(high), 4)]


def page(facts: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [f"# Cascades over answer texts, MMLU-Pro ({facts['date']}; {facts['hardware']})", ""]
    for title in ("input and output tokens", "output tokens only"):
        part = facts[title]
        lines += [
            f"## Prices of {title}", "",
            f"Always {facts['large']}: quality {part['large_quality']:.4f}, cost 1. The cheapest right "
            f"answer, if it were known: {part['oracle']['quality']:.4f} at "
            f"{part['oracle']['cost_share']:.3f}.", "",
            "| policy @ budget | quality | gain over the large model | spread over seeds "
            "| seeds at or above it | cost share | large model asked | models asked |",
            "|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        lines += [
            f"| {r['policy']} | {r['quality']:.4f} | {r['gain_over_large']:+.4f} "
            f"| {r['spread_of_gain']:.4f} "
            f"| {r['seeds_at_or_above_large']} of {r['seeds']} | {r['cost_share']:.3f} "
            f"| {r['strong_share']:.3f} | {r['models_asked']:.2f} |"
            for r in part["policies"]
        ]
        lines.append("")
        if part["promises"]:
            lines += [
                f"Promises at delta {facts['delta']}, {facts['calibration_rows']} calibration rows "
                "(the policy was chosen for a quarter of the cost):", "",
                "| policy | agreement of | promised | splits | kept | 95% interval | quality "
                "| cost share | large model asked |",
                "|---|---|---|---|---|---|---|---|---|",
            ]  # fmt: skip
            lines += [
                f"| {r['policy']} | {r['risk']} | {r['target']:.2f} | {r['splits']} | {r['kept']:.3f} "
                f"| {r['kept_interval'][0]:.3f} to {r['kept_interval'][1]:.3f} "
                f"| {r['quality']:.4f} | {r['cost_share']:.3f} | {r['strong_share']:.3f} |"
                for r in part["promises"]
            ]
            lines.append("")
    return "\n".join(lines)
