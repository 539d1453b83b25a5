"""Ask the large model only about the rows that decide the threshold, and stop when it is decided.

The scores of all calibration rows are free; each answer costs a call. :class:`Calibration` walks the rows
in random order, asks about those that the threshold in hand would serve, tests after every batch, moves
on to the next threshold, and stops when another answer is no longer worth its price. It can be killed and
resumed anywhere.

What keeps the promise true (docs/certainty.md has the long form): the order and the coins are drawn
before any answer is seen; whether a row is asked depends on its score and its coin, never on its
answer; a threshold is tested only on a gapless prefix of the order; each test may be looked at any
number of times; and thresholds are certified from the safest down. Which threshold is looked at next,
and when to stop, is then free.

After: sequential tests of Waudby-Smith and Ramdas 2024; active asking with inverse-probability weights as
in Xu, Karampatziakis and Mineiro 2024; lazy, threshold-by-threshold asking as in BARGAIN (Zeighami et
al. 2025). Differences are listed in docs/papers.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pilotfish.errors import InputError
from pilotfish.infer import certify as choosing
from pilotfish.infer import planning
from pilotfish.infer.certificate import Certificate
from pilotfish.infer.constraints import (
    Answers,
    Bools,
    Constraint,
    Floats,
    Ints,
    checked_labels,
    checked_scores,
    checked_setting,
    checked_thresholds,
    terms,
    threshold_grid,
)
from pilotfish.infer.sequential import Tester, checked_procedure, tester_for

Method = Literal["binomial", "betting"]
FORMAT = 1


class Calibration:
    """A calibration under way: ``next`` says what to ask, ``tell`` takes the answers.

    Args:
        scores: The small model's scores of the calibration rows, ``[n]`` in [0, 1].
        small: Its labels, for promises about a class.
        constraints: The promises; several share ``delta`` equally.
        delta: Allowed probability that a certified promise is broken.
        thresholds: Candidates, chosen without these rows' answers (and, for promises about
            ``"inputs"``, without their scores). Default: :func:`threshold_grid`.
        expected_disagreement: The predicted chance that small and large differ, per row ``[n]`` or
            as a function of the scores, fitted on other rows. With ``method="betting"`` rows that
            surely agree are then asked less often. Default: every row that is needed is asked.
        budget: Most answers to ask for; None: no limit but the rows.
        remaining: Inputs that the cascade is to serve afterwards: asking stops when the coverage
            still to be gained is worth fewer calls than it costs. None: goes on while there is hope.
        method: ``"binomial"``: exact, every needed row asked. ``"betting"``: unequal probabilities.
        population: ``"inputs"``: the promise is about inputs drawn like these rows. ``"file"``: it
            is about these very rows (agree and precision, method binomial): answers asked for
            replace the small model's, and sampling without replacement counts.
        reference: Scores of rows outside the sample; see :func:`pilotfish.infer.certify.certify`.
        seed: Decides the order and the coins.

    Raises:
        InputError: As :func:`pilotfish.infer.certify.certify`.

    >>> calibration = Calibration(np.linspace(0, 1, 2000), delta=0.05)
    >>> while (rows := calibration.next(50)).size:
    ...     calibration.tell(rows, agreed=rows > 600)
    >>> certificate = calibration.certificate()
    >>> certificate.reason, certificate.asked < 2000, 0.25 < certificate.threshold < 0.32
    ('certified', True, True)
    """

    def __init__(
        self,
        scores: ArrayLike,
        *,
        small: Sequence[Any] | NDArray[Any] | None = None,
        constraints: Sequence[Constraint] = (Constraint("agree", 0.95),),
        delta: float = 0.05,
        thresholds: ArrayLike | None = None,
        expected_disagreement: ArrayLike | Callable[[Floats], ArrayLike] | None = None,
        budget: int | None = None,
        remaining: float | None = None,
        method: Method = "binomial",
        population: Literal["inputs", "file"] = "inputs",
        reference: ArrayLike | None = None,
        seed: int = 0,
    ) -> None:
        values = checked_scores(scores)
        n = values.size
        self.constraints = checked_setting(constraints, delta, small, None, later=True)
        self.delta, self.method, self.population = delta, method, population
        self.budget, self.remaining, self.seed = budget, remaining, seed
        checked_procedure(self.constraints, method, population, budget)
        labels = checked_labels(small, n, "small")
        foreseen = expected_disagreement is not None
        self._active = foreseen and method == "betting"
        self._expected = planning.checked_expected(expected_disagreement, values)
        finite = population == "file"
        if thresholds is None and finite:
            thresholds = threshold_grid(values, 60)
        self._grid = checked_thresholds(thresholds)
        rng = np.random.default_rng(seed)
        order = rng.permutation(n)
        coins = rng.random(n)
        self._share = delta / len(self.constraints)
        given = np.zeros(0) if reference is None else checked_scores(reference)
        others, other_labels = given, None
        if finite:
            others, other_labels = values, labels
        elif choosing.set_aside(self.constraints, reference):
            aside, order = order[: -(-n // 10)], order[-(-n // 10) :]
            others, other_labels = values[aside], None if labels is None else labels[aside]
        self._rows: Ints = order
        self._place = {int(row): k for k, row in enumerate(order)}
        self._scores = values
        m = order.size
        self._bins = choosing.threshold_bins(self._grid, values[order])
        self._ordered_expected = self._expected[order]
        ordered_labels = None if labels is None else labels[order]
        self._probability = np.ones(m)
        if self._active:
            foreseen_rows = (self._expected[order], ordered_labels, self._share)
            self._probability = planning.asking_probability(self.constraints, *foreseen_rows)
        self._wanted: Bools = coins[order] < self._probability
        if ordered_labels is not None and all(c.kind == "precision" for c in self.constraints):
            # no promise depends on rows that are called something else
            self._wanted &= np.isin(ordered_labels, [c.label for c in self.constraints])
        self._answered: Bools = np.zeros(m, dtype=bool)
        self._pending: Bools = np.zeros(m, dtype=bool)
        self._agreed: Bools = np.zeros(m, dtype=bool)
        self._large = np.full(m, None, dtype=object)
        self._small = ordered_labels
        floor = (
            planning.least_probability(self.constraints, m, self._share) if self._active else 1.0
        )
        early = remaining is not None or finite
        self._testers = []
        for c in self.constraints:
            shares = choosing.counted_shares(c, self._grid, others, other_labels)
            setting = (method, population, self._share, floor, early, self._bins, ordered_labels)
            self._testers.append(tester_for(c, *setting, shares))
        self._passed = np.zeros((len(self._testers), self._grid.size), dtype=bool)
        self._start = max(int(np.argmax(t.levels > 0)) for t in self._testers)
        self._target: int | None = None
        self._reached = 0
        self._planned_at: int | None = None
        self._log: list[list[Any]] = []
        self._settings = {
            "format": FORMAT,
            "scores": values.tolist(),
            "small": None if labels is None else list(labels),
            "constraints": [asdict(c) for c in self.constraints],
            "delta": delta,
            "thresholds": self._grid.tolist(),
            "expected_disagreement": self._expected.tolist() if foreseen else None,
            "budget": budget,
            "remaining": remaining,
            "method": method,
            "population": population,
            "reference": None if reference is None else given.tolist(),
            "seed": seed,
        }

    @property
    def asked(self) -> int:
        """Answers taken so far."""
        return int(self._answered.sum())

    @property
    def done(self) -> bool:
        """Whether nothing more is to be asked (answers under way may still be told)."""
        self._plan()
        return self._target is None and not self._pending.any()

    def next(self, k: int) -> Ints:
        """Up to ``k`` row indices to ask the large model about now; empty: nothing more.

        Rows handed out and not yet told are not handed out again; after a resume they are.
        """
        self._plan()
        if self._target is None:
            return np.zeros(0, dtype=np.int64)
        left = (
            k
            if self.budget is None
            else min(k, self.budget - self.asked - int(self._pending.sum()))
        )
        waiting = self._wanted & ~self._answered & ~self._pending
        places = np.flatnonzero(waiting & self._needs(self._target))[: max(left, 0)]
        self._pending[places] = True
        return np.asarray(self._rows[places], dtype=np.int64)

    def tell(
        self,
        rows: Iterable[int],
        agreed: ArrayLike,
        large: Sequence[Any] | NDArray[Any] | None = None,
    ) -> None:
        """Take answers, in any order; one that is known already is ignored.

        Args:
            rows: Row indices.
            agreed: Whether small and large agree; False where the large model could not answer.
            large: Its labels (None: it could not answer); needed for recall.

        Raises:
            InputError: A row that does not exist, or lengths that differ.
        """
        indices = [int(r) for r in rows]
        same = np.asarray(agreed).astype(bool).ravel()
        if same.size != len(indices):
            raise InputError(f"Got {len(indices)} rows, but {same.size} answers.")
        named = checked_labels(large, len(indices), "large")
        if large is None and any(c.kind == "recall" for c in self.constraints) and indices:
            raise InputError("A recall promise needs the large model's labels (large=...).")
        for i, row in enumerate(indices):
            if not 0 <= row < self._scores.size:
                raise InputError(f"Got row {row}, but the sample has {self._scores.size} rows.")
            place = self._place.get(row)
            if place is None or self._answered[place]:
                continue
            self._answered[place], self._pending[place] = True, False
            self._agreed[place] = same[i]
            self._large[place] = None if named is None else named[i]
            self._log.append([row, bool(same[i]), self._large[place]])
        self._advance()

    def _needs(self, index: int) -> Bools:
        """Rows whose answer the test of one threshold uses."""
        if any(c.kind == "recall" for c in self.constraints):
            return np.ones(self._bins.size, dtype=bool)
        return np.asarray(self._bins <= index)

    def _prefix(self, index: int) -> int:
        """How many rows from the start of the order are fully known for this threshold."""
        gaps = self._wanted & ~self._answered & self._needs(index)
        return int(np.argmax(gaps)) if gaps.any() else gaps.size

    def _answers(self, rows: Any = slice(None)) -> Answers:
        return Answers(
            self._agreed,
            self._answered & self._wanted,
            self._probability,
            np.ones(self._bins.size),
            self._small,
            self._large,
        ).take(rows)

    @property
    def _certified(self) -> int:
        """Index of the lowest threshold that keeps every promise; -1 if none does."""
        found = choosing.lowest(np.logical_and.reduce(self._passed))
        return -1 if found is None else found

    def _advance(self) -> None:
        """Certify as far as the answers allow, up to the threshold in hand."""
        if self._target is None:
            return
        last = self._target
        for tester, passed in zip(self._testers, self._passed, strict=True):

            def passes(index: int, level: float, tester: Tester = tester) -> bool:
                prefix = self._prefix(index)
                parts = terms(tester.constraint, self._answers(slice(0, prefix)))
                return tester.passes(index, level, parts, self._bins[:prefix])

            # wealth and error counts only get worse below, so passing there is passing above
            if tester.constraint.monotone and not passed[last] and passes(last, self._share):
                passed[: last + 1] = True
            choosing.fallback(tester.levels[: last + 1], passes, passed)

    def _plan(self) -> None:
        """Choose the threshold to go for; again when it is certified, used up, or much was learnt."""
        if self._planned_at is not None:
            if self._target is None:
                return
            fresh = self.asked - self._planned_at
            waiting = np.any(self._wanted & ~self._answered & self._needs(self._target))
            if fresh < 20 + 0.05 * self.asked and waiting and self._certified < self._target:
                return
        self._planned_at = self.asked
        n = self._bins.size
        finite = self.population == "file"
        errors = (~self._agreed).astype(float)
        expected, doubt = planning.relearned(self._ordered_expected, self._answered, errors)
        expected = np.where(self._answered, errors, expected)
        doubt = np.where(self._answered, 0.0, doubt)
        size, q = self._grid.size, self._probability
        outlooks = [
            (
                planning.outlook(t.constraint, expected, doubt, q, self._bins, size, self._small),
                t.needs(planning.SHARES),
            )
            for t in self._testers
        ]
        self._target = planning.next_target(
            outlooks, self._bins, self._wanted, self._answered, self._certified, self._start,
            remaining=self.remaining, finite=finite,
            budget=float(n) if self.budget is None else float(self.budget - self.asked),
        )  # fmt: skip
        self._reached = self._reached if self._target is None else self._target

    def certificate(self, *, curve: int | None = None) -> Certificate:
        """What is certified by now; valid at any moment, also before it is ``done``.

        Args:
            curve: Most points of the certificate's curve; default: none until it is done.
        """
        reach = self._certified if self._certified >= 0 else self._reached
        size = reach + 1
        prefix = self._prefix(reach)
        known, bins = self._answers(slice(0, prefix)), self._bins[:prefix]
        parts = [terms(c, known) for c in self.constraints]
        served = np.cumsum(np.bincount(self._bins, minlength=self._grid.size + 1))[:size]

        def bound(j: int) -> float:
            upper = self._testers[0].upper(j, parts[0], bins)
            # what was refuted at an earlier look stays refuted
            return min(upper, self.constraints[0].alpha) if self._passed[0, j] else upper

        spent = self.budget is not None and self.asked >= self.budget
        reason = "budget" if spent else "no-threshold" if self._winnable() else "too-few-answers"
        return choosing.conclude(
            self._grid[:size],
            served / max(self._bins.size, 1),
            None if self._certified < 0 else self._certified,
            parts[0],
            np.minimum(bins, size),
            bound,
            points=(choosing.CURVE_POINTS if self._target is None else 0)
            if curve is None
            else curve,
            constraints=self.constraints,
            delta=self.delta,
            method=self.method,
            draws=prefix,
            asked=self.asked,
            reason=reason,
            population=self.population,
        )

    def _winnable(self) -> bool:
        """Whether perfect agreement on every row would have been certified."""
        n, last = self._bins.size, self._grid.size - 1
        one, same = np.ones(n), self._small
        perfect = Answers(one.astype(bool), self._wanted, self._probability, one, same, same)
        return all(
            t.passes(last, self._share, terms(t.constraint, perfect), self._bins)
            for t in self._testers
        )

    def to_json(self) -> str:
        """Everything needed to go on after a kill; :meth:`from_json` reads it."""
        passed = [np.flatnonzero(row).tolist() for row in self._passed]
        progress = {
            "log": self._log,
            "passed": passed,
            "target": self._target,
            "reached": self._reached,
        }
        return json.dumps({"settings": self._settings, **progress, "planned_at": self._planned_at})

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Resume: same order, same coins, every answer kept; rows under way are handed out again.

        Raises:
            InputError: The text was not written by :meth:`to_json`.
        """
        try:
            state = json.loads(text)
            settings = dict(state["settings"])
            if settings.pop("format") != FORMAT:
                raise InputError("This calibration was saved by another version of Pilotfish.")
            settings["constraints"] = [Constraint(**c) for c in settings["constraints"]]
            resumed = cls(settings.pop("scores"), **settings)
            for row, agreed, large in state["log"]:
                resumed.tell([row], [agreed], [large])
            for row, indices in zip(resumed._passed, state["passed"], strict=True):
                row[indices] = True
            resumed._target, resumed._planned_at = state["target"], state["planned_at"]
            resumed._reached = int(state["reached"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"This is no saved calibration: {error}.") from error
        return resumed
