"""From the next-token logits of several models to those that are sampled from.

The papers differ in three things: what is added (logits, log-probabilities or probabilities), with which
weights, and which tokens are plausible enough to be considered. So there is one rule, :class:`Mix`, and a
paper is a setting of it:

===============================================  =============  ==================  =========
technique, members in their order                space          weights             plausible
===============================================  =============  ==================  =========
contrastive decoding, open text (Li 2023):       log            1, -1               0.1
  expert, amateur
the same for reasoning (O'Brien & Lewis 2023)    logits         1 + b, -b           0.1
source contrast (Sennrich 2024):                 log            1, -l               0
  right source, wrong source
DExperts (Liu 2021): base, expert, anti-expert   logits         1, a, -a            0
proxy tuning (Liu 2024), emulated fine-tuning    logits         1, a, -a            0
  (Mitchell 2024): large, tuned, untuned
CombLM (Ormazabal 2023): large, small            linear or log  fitted              0
CP-Delta (Vyas 2023) with the largest            least          none                0
  divergence; with KL: log, 1/2 and 1/2
===============================================  =============  ==================  =========
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pilotfish.errors import ConfigError
from pilotfish.models.protocols import Floats
from pilotfish.models.sampling import log_softmax

Space = Literal["logits", "log", "linear", "least"]

FAR = np.float32(1000.0)  # nats below the last plausible token; exp(-1000) is 0
LOWEST = np.float32(100.0)  # nats below its likeliest token that a subtracted member's view counts


@dataclass(frozen=True)
class Mix:
    """A weighted sum of what several models say of the next token.

    Args:
        weights: One for each member; with ``space="linear"`` none below 0, and they add up to 1; with
            ``"least"`` only their number counts.
        space: What is added: ``"logits"``; ``"log"``-probabilities; ``"linear"``: probabilities;
            ``"least"``: nothing, the smallest of the members' probabilities is taken.
        plausible: Only tokens that the first member gives at least this share of its likeliest token's
            probability, in [0, 1); 0 allows all.
        temperatures: Divide each member's logits, > 0; default 1 (Li 2023 cools the amateur by 0.5).

    Raises:
        ConfigError: A number is out of its range.
    """

    weights: tuple[float, ...]
    space: Space = "logits"
    plausible: float = 0.0
    temperatures: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        wrong = None
        if not self.weights or not all(map(np.isfinite, self.weights)):
            wrong = f"weights = {self.weights}, but expected a finite number for each member"
        elif self.space not in ("logits", "log", "linear", "least"):
            wrong = f"space = {self.space!r}, but expected logits, log, linear or least"
        elif self.space == "linear" and (
            min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-6
        ):
            wrong = f"weights = {self.weights}, but expected shares of at least 0 that add up to 1"
        elif not 0 <= self.plausible < 1:
            wrong = f"plausible = {self.plausible}, but expected a share in [0, 1)"
        elif self.temperatures and (
            len(self.temperatures) != len(self.weights) or min(self.temperatures) <= 0
        ):
            wrong = f"temperatures = {self.temperatures}, but expected one above 0 for each member"
        if wrong:
            raise ConfigError(f"Got {wrong}.")

    def __call__(self, rows: Sequence[Floats]) -> Floats:
        """Logits ``[..., vocab]`` of the mix from each member's; -inf where a token is impossible."""
        raw = [np.asarray(row, np.float32) for row in rows]
        if self.temperatures:
            cooled = [row / np.float32(t) for row, t in zip(raw, self.temperatures, strict=True)]
        else:
            cooled = raw
        said = cooled if self.space == "logits" else [log_softmax(row) for row in cooled]
        if self.space == "least":
            mixed = np.minimum.reduce(said)
        elif self.space == "linear":
            mixed = _log_of_sum(said, self.weights)
        else:
            mixed = _sum(said, self.weights)
        if self.plausible:
            mixed = _only_plausible(mixed, raw[0], self.plausible)
        return np.asarray(mixed, np.float32)


def _only_plausible(mixed: Floats, first: Floats, share: float) -> Floats:
    """Implausible tokens fall so far below that none is drawn while a grammar leaves a plausible one.

    Among them the first member's order counts: -inf for all would leave a grammar that forbids every
    plausible token with nothing to choose by.
    """
    top = first.max(axis=-1, keepdims=True)
    fine = first >= top + np.float32(np.log(share))
    lowest = np.where(fine, mixed, np.float32(np.inf)).min(axis=-1, keepdims=True)
    return np.where(fine, mixed, lowest - FAR + first - top)


def _sum(rows: Sequence[Floats], weights: Sequence[float]) -> Floats:
    total = np.zeros_like(rows[0])
    for row, weight in zip(rows, weights, strict=True):
        if weight < 0:  # what a subtracted member excludes must not become infinitely likely
            row = np.maximum(row, row.max(axis=-1, keepdims=True) - LOWEST)
        if weight:  # a weight of 0 says nothing even of what is impossible
            total = total + np.float32(weight) * row
    return total


def _log_of_sum(rows: Sequence[Floats], weights: Sequence[float]) -> Floats:
    total = sum(
        weight * np.exp(row.astype(np.float64)) for row, weight in zip(rows, weights, strict=True)
    )
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(total), np.float32)


def contrast(
    strength: float = 1.0,
    plausible: float = 0.1,
    *,
    form: Literal["open", "reasoning"] = "open",
    temperature: float = 1.0,
) -> Mix:
    """Contrastive decoding of an expert and an amateur.

    Args:
        strength: ``form="open"``: weight of the amateur's log-probability (Li et al. 2023 use 1);
            ``"reasoning"``: beta of O'Brien and Lewis 2023, who use 0.5.
        plausible: Their alpha.
        form: Which paper's formula.
        temperature: The amateur's (Li et al. 2023).
    """
    if form == "reasoning":
        weights, space = (1 + strength, -strength), "logits"
    else:
        weights, space = (1.0, -strength), "log"
    cooled = () if temperature == 1 else (1.0, temperature)
    return Mix(weights, space, plausible, cooled)  # type: ignore[arg-type]


def proxy(strength: float = 1.0) -> Mix:
    """Proxy tuning, emulated fine-tuning and DExperts: base, tuned (expert), untuned (anti-expert)."""
    return Mix((1.0, strength, -strength))


def least() -> Mix:
    """CP-Delta for two members and the largest divergence: no token is likelier than both allow."""
    return Mix((1.0, 1.0), "least")


def fit_share(
    first: Floats, second: Floats, tokens: Sequence[int], *, space: Space = "linear"
) -> float:
    """The second member's share in [0, 1] that makes a text likeliest (CombLM's constant scalar).

    Args:
        first: Logits ``[n, vocab]`` of the first member before each token.
        second: Those of the second.
        tokens: The ``n`` tokens of the text.
        space: ``"linear"`` or ``"log"``.

    Returns:
        The share, within 1e-4; the log-likelihood is concave in it.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(tokens))
    a, b = log_softmax(np.asarray(first)), log_softmax(np.asarray(second))
    chosen = np.asarray(tokens)

    def loss(share: float) -> float:
        if space == "linear":
            pair = np.stack([a[rows, chosen] + _log(1 - share), b[rows, chosen] + _log(share)])
            return -float(np.logaddexp.reduce(pair).sum())
        return -float(log_softmax((1 - share) * a + share * b)[rows, chosen].sum())

    return float(minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 1e-4}).x)


def _log(share: float) -> float:
    return float(np.log(max(share, 1e-12)))
