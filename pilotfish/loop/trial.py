"""The steps of a version: shadow, canary, promoted, watched; and what lets it take each.

Everything here is arithmetic on counts, so that it can be simulated and so that a process which takes
up the state goes on exactly. Evidence comes row by row: whether the version would have answered the
request and differed from the large model. A step is taken when the certificate's promise has held on so
many fresh requests; it is refused when the e-process says that it is broken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pilotfish.infer.bounds import clopper_pearson_upper
from pilotfish.infer.watch import Watch

SHADOW, CANARY, SERVING = "shadow", "canary", "serving"
LAST_WRONG = 20  # disagreements kept as evidence
PATIENCE = 5  # times the rows of a step: then it is refused if the rate is still above the promise
LEAD = 2.0  # targets above the target: what the bet that dates a drift is best against


@dataclass
class Evidence:
    """What fresh requests say about one version in one role.

    Attributes:
        version: Its number.
        role: ``"shadow"``, ``"canary"`` or ``"serving"``.
        watch: The e-process.
        wrong: Ids of the last requests on which it differed.
        run_up: Log wealth of a small bet since it was last at its lowest: where it rose is where a drift
            probably began.
        since: Time of the request after that lowest point.
        rows_since: Requests of the task since then.
    """

    version: int
    role: str
    watch: Watch
    wrong: list[str] = field(default_factory=list)
    run_up: float = 0.0
    since: float = 0.0
    rows_since: int = 0

    @classmethod
    def start(cls, version: int, role: str, target: float, delta: float) -> Evidence:
        """No evidence yet."""
        return cls(version, role, Watch(target, delta))

    def count_row(self) -> None:
        """A request of the task went by."""
        self.rows_since += 1

    def add(self, disagreed: bool, request_id: str, time: float) -> None:
        """A request on which the version can be judged."""
        target = self.watch.target
        self.run_up += math.log1p(LEAD / (1.0 - target) * (float(disagreed) - target))
        if self.run_up <= 0.0:
            self.run_up, self.since, self.rows_since = 0.0, 0.0, 0
        elif not self.since:
            self.since, self.rows_since = time, 1
        if disagreed:
            self.wrong = [*self.wrong, request_id][-LAST_WRONG:]
        self.watch.observe(disagreed)

    def summary(self) -> dict[str, Any]:
        """For the event that a step leaves behind."""
        checks, wrong = self.watch.checks, self.watch.disagreements
        bound = float(clopper_pearson_upper(wrong, checks, self.watch.delta)) if checks else 1.0
        return {
            "compared": checks,
            "disagreed": wrong,
            "rate": self.watch.rate,
            "upper_bound": bound,
            "target": self.watch.target,
            "delta": self.watch.delta,
            "wealth": self.watch.peak,
            "p_value": self.watch.p_value,
            "requests": list(self.wrong),
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        names = ("version", "role", "wrong", "run_up", "since", "rows_since")
        return {name: getattr(self, name) for name in names} | {"watch": self.watch.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evidence:
        """Inverse of :meth:`to_dict`."""
        given = dict(values)
        return cls(watch=Watch.from_dict(given.pop("watch")), **given)


def verdict(evidence: Evidence, rows: int) -> str:
    """What a version in shadow or canary has earned: ``"pass"``, ``"refuse"`` or ``""`` (wait).

    It passes when it was judged on ``rows`` fresh requests and differed on no more of them than was
    promised, while the e-process has not refuted the promise.
    """
    watch = evidence.watch
    if watch.alarm:
        return "refuse"
    if watch.checks < rows:
        return ""
    if (watch.rate or 0.0) <= watch.target:
        return "pass"
    return "refuse" if watch.checks >= PATIENCE * rows else ""


@dataclass(frozen=True)
class Attempt:
    """Learning that is under way, or was cut off.

    Attributes:
        rows: Requests of the task when it began.
        last: Number of the last recorded request that is learned from.
        bought: Lessons bought for the task until it was begun the last time.
        cut_off: How many times it was cut off before anything else was bought.
    """

    rows: int
    last: int
    bought: int
    cut_off: int = 0

    def again(self, bought: int) -> Attempt:
        """Begun once more; what was bought meanwhile was a step forward.

        >>> Attempt(300, 900, 5).again(25).cut_off, Attempt(300, 900, 5).again(5).cut_off
        (0, 1)
        """
        fruitless = bought == self.bought
        return replace(self, bought=bought, cut_off=self.cut_off + fruitless)


@dataclass
class TaskState:
    """What is known of a task between two looks at the traffic.

    Attributes:
        since: Where the stretch of traffic begins that is learned from; 0: everything.
        rows: Its requests so far.
        tried: How many there were at the last attempt to learn, 0 without one.
        scope: Whose answers might be reused at that attempt, "" before one.
        attempt: Learning that is under way.
        made: The outcome of learning whose version has not entered in shadow yet.
        large_cost: US dollars of the answers of the large model whose price is known.
        large_priced: How many these were.
        trial: Evidence on the version in shadow or canary.
        serving: Evidence on the version in service.
    """

    since: float = 0.0
    rows: int = 0
    tried: int = 0
    scope: str = ""
    large_cost: float = 0.0
    large_priced: int = 0
    attempt: Attempt | None = None
    made: Mapping[str, Any] | None = None
    trial: Evidence | None = None
    serving: Evidence | None = None

    @property
    def each(self) -> float | None:
        """US dollars of an answer of the large model, None when unknown."""
        return self.large_cost / self.large_priced if self.large_priced else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        names = ("since", "rows", "tried", "scope", "large_cost", "large_priced", "made")
        plain = {name: getattr(self, name) for name in names}
        plain["attempt"] = None if self.attempt is None else asdict(self.attempt)
        for name in ("trial", "serving"):
            evidence = getattr(self, name)
            plain[name] = None if evidence is None else evidence.to_dict()
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> TaskState:
        """Inverse of :meth:`to_dict`; None is a task that was just found."""
        given = dict(values or {})
        if given.get("attempt") is not None:
            given["attempt"] = Attempt(**given["attempt"])
        for name in ("trial", "serving"):
            if given.get(name) is not None:
                given[name] = Evidence.from_dict(given[name])
        return cls(**given)
