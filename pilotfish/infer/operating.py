"""The operating point of a policy: found on some questions by a user's dials, measured on others.

A dial says what a user wants: at most so much for a request (``max_cost``, ``strong_share``,
``max_latency``), at least so good (``min_quality``), or a promise (``agree``: this share of all
requests is answered as the large model would have answered, or as well). Limits are kept in the mean
on the questions that the setting is chosen on. A promise is certified on questions of its own
(:mod:`pilotfish.infer.certify`), and what cannot be certified goes to the large model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ConfigError, InputError
from pilotfish.infer import scoreboard as sb
from pilotfish.infer.certificate import Certificate
from pilotfish.infer.families import Family
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.policies.certified import Certified, agreements, certify_policy
from pilotfish.infer.policies.dials import Setting, pick, setting_of
from pilotfish.infer.policies.mixed import Mixed
from pilotfish.infer.policies.policy import Play, Policy

SAMPLES = 500
TRIALS = 40  # settings that a promise is tried with
_COUNTED = {"max_cost": "cost", "strong_share": "strong_share", "max_latency": "latency"}
_LIMITS = ("max_cost", "strong_share", "min_quality", "max_latency")


@dataclass(frozen=True, kw_only=True)
class Dials:
    """What a user wants of a policy; nothing: the best quality, whatever it costs.

    Attributes:
        max_cost: Mean cost of a request, at most, in the unit of the outcomes.
        strong_share: Share of requests on which the large model is asked, at most, in [0, 1].
        min_quality: Mean quality, at least, at the least cost, in [0, 1].
        max_latency: Mean seconds until a whole answer, at most.
        agree: Share of requests promised to be as the large model would have had it, in (0, 1).
        agree_on: What that means: the answer is as good as the large model's (``"quality"``), or is the
            same (``"answer"``).
        pattern: Finds the final answer for ``"answer"``, see :class:`~pilotfish.infer.judges.same.Same`.
        delta: Allowed probability that the promise is broken.

    Raises:
        ConfigError: A value out of range, or dials that exclude one another.
    """

    max_cost: float | None = None
    strong_share: float | None = None
    min_quality: float | None = None
    max_latency: float | None = None
    agree: float | None = None
    agree_on: Literal["quality", "answer"] = "quality"
    pattern: str = ""
    delta: float = 0.05

    def __post_init__(self) -> None:
        shares = {"strong_share": self.strong_share, "min_quality": self.min_quality}
        for name, value in shares.items():
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"Got {_option(name)} {value:g}, but expected 0 to 1.")
        for name in ("max_cost", "max_latency"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(f"Got {_option(name)} {value:g}, but expected 0 or more.")
        if self.agree is None:
            return
        if not 0 < self.agree < 1:
            raise ConfigError(f"Got --agree {self.agree:g}, but expected a share between 0 and 1.")
        if self.agree_on not in ("quality", "answer"):
            raise ConfigError(f"Got --agree-on {self.agree_on!r}, but expected quality or answer.")
        if others := [_option(name) for name in _LIMITS if getattr(self, name) is not None]:
            raise ConfigError(
                f"Got --agree with {' and '.join(others)}: a promise costs what it must, so no limit can "
                "be kept beside it.",
                remedy="Take --agree alone, which looks for the least cost, or the limits without it.",
            )

    @property
    def limits(self) -> dict[str, float]:
        """The limits that were given."""
        found = {name: getattr(self, name) for name in _LIMITS}
        return {name: value for name, value in found.items() if value is not None}

    def __bool__(self) -> bool:
        return bool(self.limits) or self.agree is not None


@dataclass(frozen=True)
class Measured:
    """What a policy did on questions that it was not chosen on.

    Attributes:
        questions: How many there were.
        measures: By name, each with its 95% interval by bootstrap over the questions: ``quality``,
            ``cost``, ``latency``, ``strong_share``, ``agreement`` with the large model where that was
            promised, and ``large_quality``, ``large_cost``, what the large model alone has. What was not
            recorded is not there.
    """

    questions: int
    measures: Mapping[str, sb.Interval]

    def value(self, name: str) -> float:
        """A measure without its interval; NaN where it is not there."""
        found = self.measures.get(name)
        return float("nan") if found is None else found.value


def operate(
    family: Family,
    choose: Outcomes,
    dials: Dials,
    *,
    certify_on: Outcomes | None = None,
    seed: int = 0,
) -> Policy:
    """The policy that the dials mean.

    Args:
        family: All settings; fitted on other questions.
        choose: To choose the setting on.
        dials: What the user wants.
        certify_on: For ``agree``: questions that nothing was fitted to or chosen on.
        seed: Of the dice of policies that mix.

    Raises:
        InputError: No setting keeps the limits, or what a dial counts was not recorded of a model.
        ConfigError: ``agree`` without questions to certify on.
    """
    replay = family.replayer(choose.filled(), seed=seed)
    if dials.agree is not None:
        if certify_on is None:
            raise ConfigError("A promise needs questions of its own to be certified on.")
        policy = _cheapest_promise(family, choose, replay, dials)
        played = family.replayer(certify_on, seed=seed)(policy)
        return _promise(family, policy, played, certify_on, dials)
    _check_recorded(family, choose, dials)
    each_played = [replay(each) for each in family.settings]
    settings = [
        setting_of(policy, one, family.large)
        for policy, one in zip(family.settings, each_played, strict=True)
    ]
    if family.unordered:  # then by what is believed of the answers, which needs no grade
        order = np.argsort([-float(one.margin.mean()) for one in each_played], kind="stable")
        settings = [settings[i] for i in order]
    return first_within(_smoothed(settings), dials.limits)


def _check_recorded(family: Family, choose: Outcomes, dials: Dials) -> None:
    """Refuse a limit on what is unknown of a model: the mean of the others would keep it for nothing."""
    counted = (("max_cost", "cost", choose.cost), ("max_latency", "latency", choose.latency))
    for name, what, values in counted:
        if values is None or getattr(dials, name) is None:
            continue
        known: NDArray[np.bool_] = np.asarray((~np.isnan(values)).any(axis=0))
        if known.any() and not known.all():
            missing = [each for each, has in zip(family.models, known, strict=True) if not has]
            raise InputError(
                f"Got {_option(name)}, but no {what} was recorded of {', '.join(missing)}.",
                remedy="Leave these models out (--models), add a column of that name, or (costs) give "
                "--price MODEL=INPUT,OUTPUT",
            )


def first_within(settings: Sequence[Setting], limits: Mapping[str, float]) -> Policy:
    """The first setting that keeps the limits; for a budget, mixed with the one before to spend it all.

    Settings come with the one first that is believed to be best. A few hundred graded questions tell
    costs well, but not which of two settings is better; to take the best measured one would be to
    take the luckiest. So grades only decide whether ``min_quality`` is reached.

    Args:
        settings: The best first.
        limits: As in :attr:`Dials.limits`.

    Raises:
        InputError: No setting keeps them; the message says what can be had.
    """
    cheapest = pick(settings, **limits)  # says why, if none does
    if "min_quality" in limits:
        return cheapest.policy
    upper = {_COUNTED[name]: most for name, most in limits.items()}
    kept = [all(getattr(s, name) <= most for name, most in upper.items()) for s in settings]
    at = kept.index(True) if True in kept else settings.index(cheapest)
    found = settings[at]
    if at == 0 or set(upper) - {"cost", "strong_share"} or len(upper) != 1:
        return found.policy
    ((name, most),) = upper.items()
    before = settings[at - 1]
    spent, more = getattr(found, name), getattr(before, name)
    return Mixed(before.policy, found.policy, (most - spent) / (more - spent))


def measure(
    family: Family,
    policy: Policy,
    outcomes: Outcomes,
    dials: Dials | None = None,
    *,
    samples: int = SAMPLES,
    seed: int = 0,
) -> Measured:
    """Replay a policy on questions that it was not chosen on; an unknown cost counts as its model's mean.

    Args:
        family: What the policy looks at.
        policy: The policy.
        outcomes: The questions.
        dials: Whether agreement is of interest, and what it means.
        samples: Bootstrap draws; 0 gives intervals of no width.
        seed: Of the dice.
    """
    played = family.replayer(outcomes.filled(), seed=seed)(policy)
    columns = columns_of(family, played, outcomes, dials)
    measures = {name: _interval(column, samples) for name, column in columns.items()}
    return Measured(len(outcomes), {k: v for k, v in measures.items() if not np.isnan(v.value)})


def columns_of(
    family: Family, played: Play, outcomes: Outcomes, dials: Dials | None
) -> dict[str, Floats]:
    """What :class:`Measured` is the mean of, question by question ``[n]``; NaN where unknown."""
    strong = played.asked[:, family.large].astype(np.float32)
    found = {
        "quality": played.quality,
        "cost": played.cost,
        "latency": played.latency,
        "strong_share": strong,
        "large_quality": outcomes.quality[:, family.large],
        "large_cost": outcomes.cost[:, family.large],
    }
    if dials is not None and dials.agree is not None:
        same = agreements(played, outcomes, family.large, dials.agree_on, dials.pattern)
        found["agreement"] = same.astype(np.float32)
    return found


def certificate_of(policy: Policy) -> Certificate | None:
    """What a policy promises, or None."""
    return policy.certificate if isinstance(policy, Certified) else None


def _smoothed(settings: Sequence[Setting]) -> list[Setting]:
    """Grades that do not rise towards settings that are believed to be worse: isotonic regression."""
    from scipy.optimize import isotonic_regression

    grades = np.nan_to_num([each.quality for each in settings])
    smooth = isotonic_regression(grades, increasing=False).x
    return [
        dataclasses.replace(each, quality=float(value))
        for each, value in zip(settings, smooth, strict=True)
    ]


def _cheapest_promise(
    family: Family, choose: Outcomes, replay: Callable[[Policy], Play], dials: Dials
) -> Policy:
    """The setting that keeps the promise at the least cost on these questions; not yet certified."""
    at = np.unique(np.linspace(0, len(family.settings) - 1, TRIALS).astype(int))
    best: tuple[float, float] | None = None
    found = family.settings[0]
    for policy in (family.settings[i] for i in at):
        tried = _promise(family, policy, replay(policy), choose, dials)
        if tried.threshold is None:
            continue
        done = setting_of(tried, replay(tried), family.large)
        rank = (done.strong_share if np.isnan(done.cost) else done.cost, -done.quality)
        if best is None or rank < best:
            best, found = rank, policy
    return found


def _promise(
    family: Family, policy: Policy, played: Play, outcomes: Outcomes, dials: Dials
) -> Certified:
    assert dials.agree is not None
    return certify_policy(
        policy,
        played,
        outcomes,
        family.models[family.large],
        agree=dials.agree,
        risk=dials.agree_on,
        delta=dials.delta,
        pattern=dials.pattern,
    )


def _interval(column: Floats, samples: int) -> sb.Interval:
    known = column[~np.isnan(column)].astype(np.float64)
    if not known.size:
        return sb.Interval(float("nan"), float("nan"), float("nan"))
    if not samples:
        mean = float(known.mean())
        return sb.Interval(mean, mean, mean)
    return sb.bootstrap(lambda w: float(w @ known / w.sum()), known.size, samples=samples)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def dials_of(values: Mapping[str, Any]) -> Dials:
    """Dials from stored values; what another version knew besides is left out."""
    known = {field.name for field in dataclasses.fields(Dials)}
    return Dials(**{name: value for name, value in values.items() if name in known})
