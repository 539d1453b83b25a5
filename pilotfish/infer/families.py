"""A policy with its dial: every setting of one kind of policy, fitted on recorded outcomes.

A kind is named in one line, ``NAME[:JUDGE][,SETTING=VALUE...]``:

- a quality predictor, ``stacked`` or ``knn:k=5``: routing by price over what it predicts,
  at every weight;
- ``cascade:JUDGE``: the frontier of all chains, order and thresholds chosen together (FrugalGPT, IDK
  cascades, AutoMix's threshold form with ``cascade:self-verification``; Data Shunt with
  ``max_stages=2``); settings ``max_stages`` and ``answer`` (``last`` or ``all``);
- ``synergy:JUDGE``: all models but the large one in the first stage (Synergy of Thoughts);
- ``cascade-routing:JUDGE`` (Dekoninck et al. 2025; ``family=one`` or ``prefix``),
  ``reservation:JUDGE`` (Weitzman 1979), ``verification-pomdp:JUDGE`` (AutoMix): at every weight; the
  first two with what a ``predictor`` expects of the question;
- ``single``: each model alone; ``random``: routing by lot.

JUDGE is ``learned``, ``pairwise``, ``model-agreement`` or the name of a recorded signal; all further
settings are the judge's (``pattern`` finds the final answer). Nothing is chosen on answers that a
judge learned from: it is fitted on one half, and what depends on its scores on the other.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError, UnknownName
from pilotfish.infer import scoreboard as sb
from pilotfish.infer.judged_chains import judged_chains, scores_alone
from pilotfish.infer.judges.judge import AnswerJudge
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.policies.beliefs import spread
from pilotfish.infer.policies.cascade_routing import CascadeRouting
from pilotfish.infer.policies.chain import Chain
from pilotfish.infer.policies.policy import Play, Policy, play
from pilotfish.infer.policies.reservation import Reservation
from pilotfish.infer.policies.verification_pomdp import VerificationPomdp
from pilotfish.infer.policies.weighted import Weighted
from pilotfish.infer.predictors import PREDICTORS
from pilotfish.infer.predictors.predictor import Prediction, fit_predictor
from pilotfish.infer.predictors.settings import AtLeastOne, check_settings
from pilotfish.infer.stored_judges import FITTED, fit_judge
from pilotfish.models.protocols import Encoder

JUDGED = ("cascade", "synergy", "cascade-routing", "reservation", "verification-pomdp")
PLAIN = ("single", "random")
WEIGHTS = 200  # of a router, which costs nothing to replay
JUDGED_WEIGHTS = 20
LATENCY_WEIGHTS = 12


@dataclass(frozen=True, eq=False)
class Family:
    """All settings of one kind of policy, and what they look at.

    Attributes:
        name: As it was named.
        settings: The policies, the one first that is believed to be best.
        cost: What asking each model is believed to cost ``[m]``; without recorded costs 0, and 1 for the
            large model.
        latency: Seconds that asking each is believed to take ``[m]``, 0 where unknown.
        quality: Mean quality of each model ``[m]``, for policies without a predictor.
        large: Position of the large model.
        predictor: Expects qualities before asking, or None.
        judge: Scores answers, or None.
        unordered: Whether two prices are traded, so that the settings have no one order.
    """

    name: str
    settings: tuple[Policy, ...]
    cost: Floats
    latency: Floats
    quality: Floats
    large: int
    predictor: Any = None
    judge: AnswerJudge | None = None
    unordered: bool = False

    @property
    def models(self) -> tuple[str, ...]:
        """The models of all settings."""
        return self.settings[0].models

    def expected(self, outcomes: Outcomes) -> Floats:
        """Quality expected before asking ``[n, m]`` or ``[m]``."""
        if self.predictor is None:
            return self.quality
        found: Floats = self.predictor.predict(outcomes.texts).mean
        return found

    def replayer(self, outcomes: Outcomes, *, seed: int = 0) -> Callable[[Policy], Play]:
        """A function that plays any policy of these models on the outcomes; texts are read once."""
        expected = self.expected(outcomes)

        def replay(policy: Policy) -> Play:
            return play(
                policy,
                outcomes,
                expected,
                self.judge,
                cost=self.cost,
                latency=self.latency,
                seed=seed,
            )

        return replay


def fit_family(
    name: str,
    learn: Outcomes,
    *,
    seed: int = 0,
    encoder: Encoder | None = None,
    large: str = "",
    latency: bool = False,
) -> Family:
    """Fit every setting of a policy.

    Args:
        name: As in the module's text.
        learn: To fit on.
        seed: Of every random choice.
        encoder: For predictors that embed; default the static one.
        large: Name of the large model; default the best on these questions.
        latency: Whether settings that trade seconds are wanted as well.

    Raises:
        UnknownName: There is no such policy, judge, signal or model.
        ConfigError: A setting that there is not.
        InputError: The outcomes do not hold what the policy needs.
    """
    kind, judge, settings = check_name(name, learn)
    if large and large not in learn.models:
        raise UnknownName("large model", large, learn.models)
    quality = np.nan_to_num(learn.mean_quality())
    top = learn.models.index(large) if large else int(quality.argmax())
    cost = learn.mean_cost()
    if np.isnan(cost).any():
        cost = np.zeros(len(cost), np.float32)
        cost[top] = 1
    seconds = np.zeros_like(cost)
    if learn.latency is not None:
        known = ~np.isnan(learn.latency)
        seconds = np.where(known, learn.latency, 0).sum(0) / np.maximum(known.sum(0), 1)
    basis = Family(name, (Weighted(learn.models),), cost, seconds.astype(np.float32), quality, top)
    if kind == "single":
        best = [int(j) for j in np.argsort(-quality, kind="stable")]
        alone = tuple(Chain(learn.models, ((j,),), ()) for j in best)
        return dataclasses.replace(basis, settings=alone)
    if kind in JUDGED:
        timed = latency and learn.latency is not None
        return _judged(kind, judge, settings, learn, basis, seed, encoder, timed=timed)
    if kind == "random":
        predictor: Any = Lots(learn.models, seed)
    else:
        predictor = fit_predictor(kind, learn, seed=seed, encoder=encoder, **settings)
    slow = price_weights(basis.latency, LATENCY_WEIGHTS) if latency else [0.0]
    weighted = [
        Weighted(learn.models, float(weight), float(wait))
        for wait in slow
        for weight in price_weights(cost, WEIGHTS if len(slow) == 1 else JUDGED_WEIGHTS, top=2.0)
    ]
    made = tuple(weighted)
    return dataclasses.replace(basis, settings=made, predictor=predictor, unordered=len(slow) > 1)


def check_name(
    name: str, outcomes: Outcomes, *, also: Sequence[str] = ()
) -> tuple[str, str, dict[str, Any]]:
    """Kind, judge and settings of a policy's name, before anything is fitted.

    Args:
        name: The name.
        outcomes: For the names of signals.
        also: Further names that the message lists.

    Raises:
        UnknownName: There is no such policy, judge or signal.
        InputError: A setting is not NAME=VALUE.
    """
    kind, _, rest = name.partition(":")
    if kind in JUDGED:
        judge, _, rest = rest.partition(",")
        if judge not in FITTED and judge not in outcomes.signals:
            raise UnknownName("judge", judge, [*FITTED, *outcomes.signals])
        return kind, judge, parse_settings(rest)
    if kind not in PREDICTORS and kind not in PLAIN:
        raise UnknownName(
            "policy", kind, [*PREDICTORS, *PLAIN, *also, *(f"{each}:JUDGE" for each in JUDGED)]
        )
    return kind, "", parse_settings(rest)


def parse_settings(text: str) -> dict[str, Any]:
    """``k=5,labels=soft`` as settings; values are JSON where they can be, else texts.

    >>> parse_settings("k=5,labels=soft")
    {'k': 5, 'labels': 'soft'}

    Raises:
        InputError: A part is not NAME=VALUE.
    """
    import json

    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise InputError(f"Got {part!r}, but expected NAME=VALUE.")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


class Lots:
    """Draws each model's quality by lot, the same for the same text: the baseline that knows nothing.

    Args:
        models: Their names.
        seed: Of the lots.
    """

    def __init__(self, models: tuple[str, ...], seed: int) -> None:
        self.models = models
        self._salt = str(seed)

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Uniform numbers in [0, 1)."""
        rows = [self._draw(text) for text in texts]
        mean = np.array(rows, np.float32).reshape(len(texts), len(self.models))
        return Prediction(mean, np.zeros_like(mean))

    def _draw(self, text: str) -> NDArray[np.float64]:
        salted = f"{self._salt} {text}".encode("utf-8", "surrogatepass")
        number = int.from_bytes(hashlib.sha256(salted).digest()[:8], "big")
        return np.random.default_rng(number).random(len(self.models))


def price_weights(
    price: Floats, count: int, *, low: float = 1e-4, top: float = 10.0
) -> list[float]:
    """Weights of a price from none to more than any quality is worth; none if all prices are equal.

    Args:
        price: Of each model ``[m]``.
        count: Weights but for 0; where a few models are far dearer than others, half as many more.
        low: Quality that the least of them takes from the dearest model.
        top: Quality that a weight must take from it; the largest one takes 1, which is all there is, from
            the second cheapest as well, so that nothing but the cheapest is asked.
    """
    ordered = np.unique(price.astype(np.float64))
    span = float(ordered[-1] - ordered[0])
    if not span:
        return [0.0]
    found = [0.0, *(np.geomspace(low, top, count) / span)]
    dearer = ordered[
        ordered > 1.01 * ordered[0]
    ]  # what is as cheap but for a hundredth need not be told apart
    most = 1.01 / float(dearer[0] - ordered[0]) if len(dearer) else 0.0
    if most > found[-1]:
        found += np.geomspace(found[-1], most, count // 2 + 1)[1:].tolist()
    return found


def _judged(
    kind: str,
    judge: str,
    settings: Mapping[str, Any],
    learn: Outcomes,
    basis: Family,
    seed: int,
    encoder: Encoder | None,
    *,
    timed: bool,
) -> Family:
    own = {name: settings[name] for name in settings if name in _OWN[kind]}
    check_settings(f"The policy {kind!r}", _OWN[kind], own)
    rest = {name: value for name, value in settings.items() if name not in own}
    learn = learn.filled()
    unknown = np.isnan(np.hstack([learn.quality, learn.cost])).any(axis=1)
    complete = learn.take(np.flatnonzero(~unknown))
    if len(complete) < 4:
        raise InputError(
            f"The policy {kind!r} is chosen on questions of which every model's quality is known, and "
            f"needs some cost of every model; there are {len(complete)} of {len(learn)}.",
            remedy="Leave models out (--models), add costs (--price), or take a router",
        )
    first, second = complete.split(seed, fit=0.5)
    used = fit_judge(judge, first, rest, None, seed)
    chosen_on = second if judge in FITTED else complete
    family = dataclasses.replace(basis, judge=used)
    if kind in ("cascade", "synergy"):
        found = judged_chains(kind, used, chosen_on, basis.large, own, timed=timed)
        return dataclasses.replace(family, settings=tuple(found), unordered=timed)
    weights = price_weights(basis.cost, JUDGED_WEIGHTS)
    if kind == "verification-pomdp":
        order, alone = _order(basis), scores_alone(used, chosen_on)
        policies: list[Policy] = [
            VerificationPomdp.fit(
                learn.models,
                order,
                chosen_on.quality,
                np.nan_to_num(alone),
                basis.cost,
                weight=float(weight),
                **own,
            )
            for weight in weights
        ]
        return dataclasses.replace(family, settings=tuple(policies))
    expects = own.pop("predictor", "logistic")
    predictor = fit_predictor(str(expects), first, seed=seed, encoder=encoder)
    # Of questions that neither it nor a fitted judge saw, else the moves look smaller than they are.
    moves = spread(predictor.predict(second.texts).mean, scores_alone(used, second))
    method: Any = CascadeRouting if kind == "cascade-routing" else Reservation
    if own.get("family") == "prefix":
        own["order"] = tuple(int(j) for j in np.argsort(basis.cost, kind="stable"))
    waits: list[dict[str, float]] = [{}]
    if timed and kind == "reservation":
        waits = [{"latency_weight": w} for w in price_weights(basis.latency, LATENCY_WEIGHTS)]
        family = dataclasses.replace(family, unordered=True)
    policies = [
        method(learn.models, moves, float(weight), **wait, **own)
        for wait in waits
        for weight in weights
    ]
    return dataclasses.replace(family, settings=tuple(policies), predictor=predictor)


_OWN: dict[str, dict[str, Any]] = {
    "cascade": {"max_stages": AtLeastOne, "answer": Literal["last", "all"]},
    "synergy": {},
    "cascade-routing": {
        "predictor": str,
        "family": Literal["any", "one", "prefix"],
        "max_size": AtLeastOne,
    },
    "reservation": {"predictor": str},
    "verification-pomdp": {"bins": AtLeastOne},
}


def _order(basis: Family) -> tuple[int, ...]:
    """From the cheapest to the large model, leaving out what is dearer and no better; three at most."""
    kept: list[int] = []
    for j in np.argsort(basis.cost, kind="stable"):
        if j != basis.large and (not kept or basis.quality[j] > basis.quality[kept[-1]]):
            kept.append(int(j))
    return (*kept[:2], basis.large)


def points_of(family: Family, outcomes: Outcomes, *, seed: int = 0) -> sb.Points:
    """The curve of all settings, replayed on these outcomes."""
    replay = family.replayer(outcomes, seed=seed)
    played = [replay(policy) for policy in family.settings]
    dial = [float(getattr(policy, "weight", i)) for i, policy in enumerate(family.settings)]
    return sb.Points(
        quality=np.stack([one.quality for one in played]),
        cost=np.stack([one.cost for one in played]),
        strong=np.stack([one.asked[:, family.large] for one in played]),
        dial=np.array(dial, np.float32),
        latency=np.stack([one.latency for one in played]),
    )
