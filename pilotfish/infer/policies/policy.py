"""What a policy is, and how one is replayed on recorded outcomes.

A policy looks at what is known of a request (which models were asked, what the judge said of their
answers, what is expected of the others, what asking costs) and names the next model to ask, or
stops and names the answer to give. Routing asks once and stops; a cascade follows an order; cascade
routing goes anywhere. The step is written on arrays, so that the same object decides for one live
request and replays 10,000 recorded ones, and cannot see in the replay what it would not know in
service.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError
from pilotfish.infer.judges.judge import AnswerJudge
from pilotfish.infer.outcomes import Floats, Outcomes

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Scores = Callable[[Outcomes, Bools], Floats]

STOP = -1


@dataclass(frozen=True)
class View:
    """What is known of ``n`` requests, with ``m`` models.

    Attributes:
        asked: Who was asked ``[n, m]``.
        expected: Quality expected before asking, in [0, 1], ``[n, m]``.
        scores: What the judge says of the answers there are, in [0, 1], ``[n, m]``; NaN elsewhere, and
            below 0 for a model that failed, whose answer cannot be given.
        cost: What asking is expected to cost ``[n, m]``.
        latency: Seconds that asking is expected to take ``[n, m]``, 0 where unknown.
        dice: One uniform number in [0, 1) for each request ``[n]``, for policies that mix.
    """

    asked: Bools
    expected: Floats
    scores: Floats
    cost: Floats
    latency: Floats
    dice: NDArray[np.float64]

    def take(self, rows: Any) -> View:
        """The same for some of the requests."""
        return View(
            self.asked[rows], self.expected[rows], self.scores[rows], self.cost[rows],
            self.latency[rows], self.dice[rows],
        )  # fmt: skip

    def judged(self) -> Floats:
        """Score of each answer there is; its expected quality where it has none; -inf where not asked."""
        scores = np.where(np.isnan(self.scores), self.expected, self.scores)
        out: Floats = np.where(self.asked, scores, -np.inf).astype(np.float32)
        return out


@dataclass(frozen=True)
class Step:
    """What a policy does next.

    Attributes:
        ask: Position of the model to ask, or -1 to stop, ``[n]``.
        answer: Position of the model whose answer is given where it stops, ``[n]``; -1 elsewhere.
        margin: How sure it is of that answer, in [0, 1], ``[n]``.
    """

    ask: Ints
    answer: Ints
    margin: Floats


def dice(text: str) -> float:
    """A number in [0, 1) for a request, the same whenever the same is asked, for policies that mix."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2.0**48


@runtime_checkable
class Policy(Protocol):
    """Decides who is asked next."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models it knows, in the order of the columns."""
        ...

    def step(self, view: View) -> Step:
        """What to do next for each request."""
        ...


@dataclass(frozen=True)
class Play:
    """What a policy did on ``n`` recorded questions.

    Attributes:
        answered: Position of the model whose answer was given ``[n]``.
        asked: Who was asked ``[n, m]``.
        quality: Of the answers given ``[n]``, NaN where it was not recorded.
        cost: Of everything asked ``[n]``, NaN where a part is unknown.
        latency: Seconds, one after the other ``[n]``, NaN where unknown.
        margin: How sure the policy was of each answer, in [0, 1], ``[n]``.
    """

    answered: Ints
    asked: Bools
    quality: Floats
    cost: Floats
    latency: Floats
    margin: Floats

    def strong_share(self, large: int) -> float:
        """Share of the questions on which the model at this position was asked."""
        return float(self.asked[:, large].mean()) if len(self.asked) else 0.0


def play(
    policy: Policy,
    outcomes: Outcomes,
    expected: NDArray[Any] | None = None,
    scores: AnswerJudge | Scores | NDArray[Any] | None = None,
    *,
    cost: NDArray[Any] | None = None,
    latency: NDArray[Any] | None = None,
    seed: int = 0,
) -> Play:
    """Replay a policy.

    Args:
        policy: What decides.
        outcomes: The recorded answers, with the policy's models in its order.
        expected: Quality expected before asking ``[n, m]`` or ``[m]``; default 0.5 of all.
        scores: The judge; or a function of outcomes and of who was asked ``[n, m]``; or its scores, where
            they do not depend on what else was asked. Default: answers have no score.
        cost: What the policy believes asking costs, ``[m]`` or ``[n, m]``. It should come from other
            questions. Default: the mean cost of each model in these outcomes.
        latency: Likewise for seconds.
        seed: Of the dice.

    Raises:
        InputError: The models differ, or the policy asks a model twice or gives an answer not asked for.
    """
    if policy.models != outcomes.models:
        raise InputError(
            f"The policy knows the models {', '.join(policy.models)}, but the outcomes are of "
            f"{', '.join(outcomes.models)}.",
            remedy="outcomes.select(policy.models)",
        )
    n, m = outcomes.quality.shape
    asked = np.zeros((n, m), bool)
    answered = np.full(n, STOP, np.int64)
    margin = np.zeros(n, np.float32)
    dice: NDArray[np.float64] = np.asarray(np.random.default_rng(seed).random(size=n))
    view = View(
        asked,
        _wide(0.5 if expected is None else expected, n, m),
        np.full((n, m), np.nan, np.float32),
        _wide(_finite(outcomes.mean_cost()) if cost is None else cost, n, m),
        _wide(_finite(_mean(outcomes.latency, m)) if latency is None else latency, n, m),
        dice,
    )
    going = np.arange(n)
    for _ in range(m + 1):
        step = policy.step(view.take(going))
        stops = step.ask < 0
        rows, given = going[stops], step.answer[stops]
        answered[rows], margin[rows] = given, step.margin[stops]
        if not np.all(asked[rows, given] & (given >= 0)):
            raise InputError("The policy gave an answer that nobody was asked for.")
        going, next_ = going[~stops], step.ask[~stops]
        if not going.size:
            break
        if np.any(asked[going, next_]):
            raise InputError("The policy asked a model that had answered already.")
        asked[going, next_] = True
        found = _scores(scores, outcomes, asked)
        view.scores[going] = np.where(asked, found, np.nan)[going]
    rows = np.arange(n)
    spent = np.where(asked, outcomes.cost, 0.0).sum(axis=1)
    unknown = np.full(n, np.nan, np.float32)
    waited = None if outcomes.latency is None else np.where(asked, outcomes.latency, 0.0).sum(1)
    return Play(
        answered,
        asked,
        outcomes.quality[rows, answered],
        spent.astype(np.float32),
        unknown if waited is None else waited.astype(np.float32),
        np.clip(margin, 0.0, 1.0),
    )


def _scores(scores: Any, outcomes: Outcomes, asked: Bools) -> Floats:
    if scores is None:
        return np.full(asked.shape, np.nan, np.float32)
    if isinstance(scores, np.ndarray):
        return scores
    found: Floats = (scores.score_many if isinstance(scores, AnswerJudge) else scores)(
        outcomes, asked
    )
    return found


def _wide(values: Any, n: int, m: int) -> Floats:
    return np.broadcast_to(np.asarray(values, np.float32), (n, m))


def _finite(values: Floats) -> Floats:
    return np.nan_to_num(values, nan=0.0)


def _mean(values: Floats | None, m: int) -> Floats:
    if values is None:
        return np.zeros(m, np.float32)
    known = ~np.isnan(values)
    return np.where(known, values, 0).sum(0) / np.maximum(known.sum(0), 1)  # type: ignore[no-any-return]
