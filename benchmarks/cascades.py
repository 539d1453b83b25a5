"""Do cascades over real answer texts reach the largest model's quality at half its cost, with a promise?

MMLU-Pro, eight models with their answers as text. Ten seeds; each splits the questions, 60% to fit
on and 40% to test on, and nothing is tuned on the test part. On the fit part a quality predictor
(the question alone) and a judge (question, answer, agreement with the other answers asked for) are
fitted on all thirds but one in turn, each scoring the third it has not seen; on those scores every
policy chooses its order, thresholds or weight for a budget, cascades a coin between two plans too.
Then predictor and judge are fitted on the whole fit part, and the policy is replayed on the test part.

Promises: the policy's answer is the large model's (or is no worse than it) on a share of all
questions, delta .05. As calibration 1,000 rows are drawn from the test part with replacement, so
that the truth, the risk on the whole test part, is known exactly: 100 draws for each of the
ten seeds are 1,000 splits. The share that kept the promise has a Clopper-Pearson interval of 95%.

Prices are an assumption: dollars for a million tokens, input and output, in the range of what
providers listed in 2024; tokens are counted as characters / 4, the question with its options being
all of the input. A second table counts output tokens only.

    python benchmarks/cascades.py --outcomes FOLDER
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from cascades_tables import kept, page, summary
from remembered import Remembered

from pilotfish.config import Price
from pilotfish.errors import InputError
from pilotfish.infer.judges import answer_features
from pilotfish.infer.judges.learned import LearnedScorer
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.beliefs import spread
from pilotfish.infer.policies.cascade_routing import CascadeRouting
from pilotfish.infer.policies.certified import agreements, certify_policy
from pilotfish.infer.policies.chain_search import search_chains
from pilotfish.infer.policies.mixed import Mixed, spend
from pilotfish.infer.policies.policy import Play, Policy, play
from pilotfish.infer.policies.reservation import Reservation
from pilotfish.infer.policies.weighted import Weighted
from pilotfish.infer.predictors.predictor import fit_predictor

PRICES = {
    "gemini_15_pro": (1.25, 5.00),
    "gemini_15_flash": (0.075, 0.30),
    "llama31_70b": (0.88, 0.88),
    "llama31_8b": (0.18, 0.18),
    "qwen15_72b": (0.90, 0.90),
    "qwen15_7b": (0.20, 0.20),
    "phi3_mini": (0.10, 0.10),
    "mistral_7b": (0.20, 0.20),
}
LARGE = "gemini_15_pro"
PATTERN = r"answer is \(?([A-J])\b"
BUDGETS = (0.25, 0.5, 0.75)
PROMISES = (("answer", 0.80), ("answer", 0.90), ("quality", 0.95))
DELTA, ROWS, DRAWS, SEEDS, FOLDS = 0.05, 1000, 100, 10, 3


def load(folder: Path) -> Outcomes:
    table = pq.read_table(folder / "mmlupro_dev.parquet")
    names = tuple(PRICES)
    questions = [
        "\n".join([question, *(f"({chr(65 + i)}) {text}" for i, text in enumerate(options))])
        for question, options in zip(
            table["question"].to_pylist(), table["options"].to_pylist(), strict=True
        )
    ]
    quality = np.array([table[name].to_pylist() for name in names], np.float32).T
    answers = np.array([table[f"{name}_answer"].to_pylist() for name in names], object).T
    return Outcomes(tuple(questions), names, quality, answers=answers)


def priced(outcomes: Outcomes, output_only: bool) -> Outcomes:
    return outcomes.priced(
        {name: Price(0.0 if output_only else price[0], price[1]) for name, price in PRICES.items()}
    )


def remember_statistics() -> None:
    """Compute the statistics of each text once."""
    known: dict[str, np.ndarray] = {}
    compute = answer_features.text_statistics

    def remembered(texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, compute(new), strict=True))
        return np.stack([known[text] for text in texts])

    answer_features.text_statistics = remembered


@dataclass
class Part:
    """Questions with what is expected of them and a judge that has not seen them."""

    outcomes: Outcomes
    expected: np.ndarray
    judge: LearnedScorer
    known: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def score(self, outcomes: Outcomes, asked: np.ndarray | None) -> np.ndarray:
        """The judge's scores ``[n, m]``; each set of answers to a question is judged only once."""
        if asked is None:
            asked = np.ones(outcomes.quality.shape, bool)
        sets = asked @ (1 << np.arange(asked.shape[1]))
        out = np.full(asked.shape, np.nan, np.float32)
        for one in np.unique(sets):
            rows = sets == one
            empty = np.zeros(len(sets), bool), np.full(asked.shape, np.nan, np.float32)
            done, scores = self.known.setdefault(int(one), empty)
            if (new := rows & ~done).any():
                scores[new] = self.judge.score_many(outcomes, asked & new[:, None])[new]
                done |= new
            out[rows] = scores[rows]
        return out

    def alone(self) -> np.ndarray:
        """The judge's score of each answer when it is the only one ``[n, m]``."""
        n, m = self.outcomes.quality.shape
        columns = []
        for j in range(m):
            asked = np.zeros((n, m), bool)
            asked[:, j] = True
            columns.append(self.score(self.outcomes, asked)[:, j])
        return np.stack(columns, axis=1)

    def after(self, asked: Sequence[int]) -> np.ndarray:
        """Scores when these have answered ``[n, m]``."""
        seen = np.zeros(self.outcomes.quality.shape, bool)
        seen[:, list(asked)] = True
        return self.score(self.outcomes, seen)

    def play(self, policy: Policy, cost: np.ndarray) -> Play:
        """Replay a policy that believes in these mean costs."""
        return play(policy, self.outcomes, self.expected, self.score, cost=cost)


def fitted(learn: Outcomes, other: Outcomes, encoder: Any) -> Part:
    predictor = fit_predictor("logistic", learn, encoder=encoder, ngrams=False)
    judge = LearnedScorer.fit(learn, encoder=encoder, pattern=PATTERN)
    return Part(other, predictor.predict(other.texts).mean, judge)


def chosen(parts: list[Part], fit: Outcomes) -> dict[str, Any]:
    """For each policy a function from a budget to the policy that keeps it on the fit part."""
    names, cost = fit.models, fit.mean_cost()
    moves = spread(np.vstack([p.expected for p in parts]), np.vstack([p.alone() for p in parts]))
    quality = np.vstack([p.outcomes.quality for p in parts])
    costs = np.vstack([p.outcomes.cost for p in parts])
    plans = search_chains(
        names,
        quality,
        costs,
        lambda asked: np.vstack([p.after(asked) for p in parts]),
        answer="all",
    )

    def mean_cost(policy: Policy) -> float:
        return float(np.mean(np.concatenate([p.play(policy, cost).cost for p in parts])))

    def by_weight(policy_of: Any) -> Any:
        return lambda budget: spend(policy_of, mean_cost, budget, halvings=9)

    def chain(budget: float) -> Policy:
        count = sum(plan.cost <= budget for plan in plans)
        if not count:
            raise InputError(f"No cascade costs {budget:g} or less.")
        cheap, dear = plans[count - 1], plans[min(count, len(plans) - 1)]
        if dear.cost <= budget:
            return dear.chain
        return Mixed(dear.chain, cheap.chain, (budget - cheap.cost) / (dear.cost - cheap.cost))

    return {
        "routing": by_weight(lambda w: Weighted(names, w)),
        "cascade": chain,
        "cascade routing": by_weight(lambda w: CascadeRouting(names, moves, w)),
        "reservation values": by_weight(lambda w: Reservation(names, moves, w)),
    }


def promises(policy: Policy, played: Play, test: Outcomes, seed: int) -> list[dict[str, Any]]:
    """Certify on drawn rows; the truth is the risk on all of the test part."""
    large = test.models.index(LARGE)
    found = []
    for risk, target in PROMISES:
        agreed = agreements(played, test, large, risk, PATTERN)
        margin = np.where(played.asked[:, large], 1.0, played.margin)
        broken, share, good, cost = [], [], [], []
        for draw in range(DRAWS):
            rows = np.random.default_rng([seed, draw]).integers(len(test), size=ROWS)
            taken = Play(
                played.answered[rows], played.asked[rows], played.quality[rows], played.cost[rows],
                played.latency[rows], played.margin[rows],
            )  # fmt: skip
            certified = certify_policy(
                policy, taken, test.take(rows), LARGE, agree=target, risk=risk, delta=DELTA,
                pattern=PATTERN,
            )  # fmt: skip
            at = 2.0 if certified.threshold is None else certified.threshold
            own = (margin >= at) & ~played.asked[:, large]
            both = played.asked[:, large]
            broken.append(float((own & ~agreed).mean()) > 1 - target + 1e-12)
            share.append(float((~own).mean()))
            answer = np.where(own, played.quality, test.quality[:, large])
            good.append(float(answer.mean()))
            spent = played.cost + np.where(own | both, 0.0, test.cost[:, large])
            spent = test.cost[:, large] if certified.threshold is None else spent
            cost.append(float(spent.mean() / test.cost[:, large].mean()))
        found.append(
            {
                "risk": risk, "target": target, "broken": broken,
                "strong_share": share, "quality": good, "cost_share": cost,
            }
        )  # fmt: skip
    return found


def one_seed(outcomes: Outcomes, seed: int, encoder: Any) -> list[dict[str, Any]]:
    """Results with input and output tokens, and with output tokens only; fitted once."""
    fit, test = outcomes.split(seed, fit=0.6)
    parts = [fitted(learn, other, encoder) for learn, other in fit.folds(seed + 1000, FOLDS)]
    final = fitted(fit, test, encoder)
    results = []
    for output_only in (False, True):
        own = [
            replace(part, outcomes=priced(part.outcomes, output_only)) for part in (*parts, final)
        ]
        results.append(
            with_prices(own[:-1], own[-1], priced(fit, output_only), seed, certify=not output_only)
        )
    return results


def with_prices(
    parts: list[Part], final: Part, fit: Outcomes, seed: int, certify: bool
) -> dict[str, Any]:
    begun = time.perf_counter()
    test = final.outcomes
    choices = chosen(parts, fit)
    large = test.models.index(LARGE)
    whole = float(test.cost[:, large].mean())
    budget_of = float(fit.mean_cost()[large])
    result: dict[str, Any] = {
        "large": float(test.quality[:, large].mean()),
        "singles": test.mean_quality().tolist(),
        "policies": {},
    }
    for name, choose in choices.items():
        for share in BUDGETS:
            try:
                policy = choose(share * budget_of)
            except InputError:
                continue
            played = final.play(policy, fit.mean_cost())
            row: dict[str, Any] = {
                "quality": float(played.quality.mean()),
                "cost_share": float(played.cost.mean()) / whole,
                "strong_share": played.strong_share(large),
                "models_asked": float(played.asked.sum(axis=1).mean()),
            }
            if certify and share == 0.25:
                row["promises"] = promises(policy, played, test, seed)
            result["policies"][f"{name} @ {share:.0%}"] = row
    # What no policy can beat: the cheapest right answer, known beforehand.
    right = np.where(test.quality == 1, test.cost, np.inf)
    best = np.where(np.isinf(right).all(1), test.cost.argmin(1), right.argmin(1))
    rows = np.arange(len(test))
    result["oracle"] = {
        "quality": float(test.quality[rows, best].mean()),
        "cost_share": float(test.cost[rows, best].mean()) / whole,
    }
    result["seconds"] = round(time.perf_counter() - begun, 1)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--outcomes", type=Path, required=True, help="folder of Parquet files")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "cascades.json"
    )
    parser.add_argument("--note", default="", help="what to say of the machine")
    options = parser.parse_args()
    encoder = Remembered("static")
    remember_statistics()
    facts: dict[str, Any] = {
        "date": date.today().isoformat(),
        "hardware": f"{platform.machine()}, 2 cores, Python {platform.python_version()}{options.note}",
        "prices": PRICES, "large": LARGE, "delta": DELTA, "calibration_rows": ROWS,
    }  # fmt: skip
    bare = load(options.outcomes)
    both: list[list[dict[str, Any]]] = [[], []]
    for seed in range(options.seeds):
        begun = time.perf_counter()
        for runs, run in zip(both, one_seed(bare, seed, encoder), strict=True):
            runs.append(run)
            brief = {
                k: (round(v["quality"], 4), round(v["cost_share"], 3))
                for k, v in run["policies"].items()
            }
            print(seed, run["seconds"], "s", round(run["large"], 4), brief, file=sys.stderr)
        print(round(time.perf_counter() - begun), "s", file=sys.stderr)
        report(facts, bare, both, options.out)


def report(
    facts: dict[str, Any], bare: Outcomes, both: list[list[dict[str, Any]]], out: Path
) -> None:
    for output_only, runs in zip((False, True), both, strict=True):
        outcomes = priced(bare, output_only)
        means = {
            key: round(float(np.mean([run["oracle"][key] for run in runs])), 4)
            for key in ("quality", "cost_share")
        }
        facts["output tokens only" if output_only else "input and output tokens"] = {
            "large_quality": round(float(np.mean([run["large"] for run in runs])), 4),
            "singles": dict(
                zip(
                    PRICES,
                    np.mean([r["singles"] for r in runs], axis=0).round(4).tolist(),
                    strict=True,
                )
            ),
            "mean_cost_share": dict(
                zip(
                    PRICES,
                    (outcomes.mean_cost() / outcomes.mean_cost()[0]).round(3).tolist(),
                    strict=True,
                )
            ),
            "oracle": means,
            "policies": summary(runs),
            "promises": kept(runs),
        }
    out.write_text(json.dumps(facts, indent=1) + "\n")
    out.with_suffix(".md").write_text(page(facts))


if __name__ == "__main__":
    main()
