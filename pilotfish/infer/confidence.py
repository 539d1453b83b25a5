"""How sure an answer is of itself, from what came with it; 0 is not at all, 1 is certain.

What :class:`pilotfish.infer.cascade.Cascade` compares with its thresholds. Each function reads what the
model gave along with its answer: a score or label probabilities, or the log-probabilities of its tokens
(ask for them in the member's settings: ``params = {logprobs = true}``). An answer that carries nothing to
judge by has no confidence (None) and is never kept.

Papers: sequence likelihood and its length-normalised form are the usual baselines of selective generation
(Malinin and Gales 2021, "Uncertainty Estimation in Autoregressive Structured Prediction"; Gupta et al.
2024, "Language Model Cascades: Token-level uncertainty and beyond", who show that the sum favours short
answers and the mean long ones); margins: Scheffer et al. 2001.
"""

from __future__ import annotations

import math

from pilotfish.records import Completion


def top_probability(completion: Completion) -> float:
    """Of a closed-label answer: its score, else its largest label probability, else 0."""
    if "score" in completion.extra:
        return float(completion.extra["score"])
    return max(completion.label_probs.values(), default=0.0) if completion.label_probs else 0.0


def margin(completion: Completion) -> float | None:
    """Of a closed-label answer: the largest label probability less the second largest."""
    if not completion.label_probs:
        return None
    first, second = sorted([*completion.label_probs.values(), 0.0], reverse=True)[:2]
    return first - second


def singleton(completion: Completion) -> float | None:
    """Of a closed-label answer: 1 less the second largest label probability.

    From a conformal threshold on, the prediction set is a single label (Su et al. 2025); see
    :mod:`pilotfish.infer.conformal`.
    """
    if not completion.label_probs:
        return None
    return 1 - sorted([*completion.label_probs.values(), 0.0, 0.0], reverse=True)[1]


def sequence_probability(completion: Completion) -> float | None:
    """The probability of the whole answer: the product over its tokens."""
    logs = _token_logs(completion)
    return math.exp(sum(logs)) if logs else None


def mean_probability(completion: Completion) -> float | None:
    """The geometric mean of its tokens' probabilities: the answer's length does not count."""
    logs = _token_logs(completion)
    return math.exp(sum(logs) / len(logs)) if logs else None


def least_probability(completion: Completion) -> float | None:
    """The probability of its least sure token."""
    logs = _token_logs(completion)
    return math.exp(min(logs)) if logs else None


def _token_logs(completion: Completion) -> list[float]:
    """Log-probabilities, none above 0: endpoints round some to slightly more."""
    return [min(0.0, float(token["logprob"])) for token in completion.logprobs or ()]
