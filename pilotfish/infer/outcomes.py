"""Recorded outcomes: what each model answered to each question, how good it was and what it cost.

Everything that routes is fitted on outcomes and replayed on others, so that a policy is judged without
asking any model again (RouterBench, Hu et al. 2024). What was not recorded is NaN, never 0: a model that
was not asked is unknown, not wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.config import Price
from pilotfish.errors import InputError
from pilotfish.records import Usage

Floats = NDArray[np.float32]
Rows = NDArray[np.integer[Any]] | NDArray[np.bool_] | Sequence[int] | slice

CHARS_PER_TOKEN = 4.0


@dataclass(frozen=True, eq=False)
class Outcomes:
    """``n`` questions and ``m`` models.

    Attributes:
        texts: The questions ``[n]``.
        models: The models' names ``[m]``.
        quality: How good each answer was, in [0, 1], ``[n, m]``; NaN where it was not recorded.
        cost: US dollars of each answer ``[n, m]``, NaN where unknown; relative units do as well, if they
            are the same for all models. Default: all unknown.
        latency: Seconds to each whole answer ``[n, m]``, NaN where unknown; None without any.
        answers: The answers' texts ``[n, m]``, None where there is none; None without any.
        signals: What a judge said of each answer, by the signal's name, ``[n, m]``, NaN where unknown;
            for example ``"probability"``, the answer's own probability.
        groups: The category of each question ``[n]``; None without any.

    Raises:
        InputError: The shapes do not fit together, or a quality is outside [0, 1].
    """

    texts: tuple[str, ...]
    models: tuple[str, ...]
    quality: Floats
    cost: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    latency: Floats | None = None
    answers: NDArray[np.object_] | None = None
    signals: Mapping[str, Floats] = field(default_factory=dict)
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.texts), len(self.models))
        if len(set(self.models)) != len(self.models):
            raise InputError(f"Got models {self.models}, but expected names that differ.")
        self._set("quality", np.asarray(self.quality, np.float32))
        if self.cost.size == 0:
            self._set("cost", np.full(shape, np.nan, np.float32))
        self._set("cost", np.asarray(self.cost, np.float32))
        parts: dict[str, Any] = {
            "quality": self.quality,
            "cost": self.cost,
            "latency": self.latency,
        }
        parts |= {"answers": self.answers, **self.signals}
        for name, part in parts.items():
            if part is not None and part.shape != shape:
                raise InputError(
                    f"Got {name} of shape {part.shape}, but expected {shape} for {shape[0]} questions "
                    f"and {shape[1]} models."
                )
        if self.groups is not None and len(self.groups) != shape[0]:
            raise InputError(f"Got {len(self.groups)} groups for {shape[0]} questions.")
        known = self.quality[~np.isnan(self.quality)]
        if known.size and not (known.min() >= 0 and known.max() <= 1):
            raise InputError(
                f"Got a quality of {known.min() if known.min() < 0 else known.max():g}, but expected "
                "numbers from 0 (worst) to 1 (best).",
                remedy="Scale the scores to [0, 1] first, for all models alike.",
            )
        if np.any(self.cost < 0):
            raise InputError(f"Got a cost of {np.nanmin(self.cost):g}, but expected none below 0.")

    def __len__(self) -> int:
        return len(self.texts)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def take(self, rows: Rows) -> Outcomes:
        """The questions at these positions, or where the mask is True, in that order."""
        at = np.arange(len(self))[np.asarray(rows) if not isinstance(rows, slice) else rows]
        return self._part(at, np.arange(len(self.models)))

    def select(self, models: Sequence[str]) -> Outcomes:
        """These models only, in this order.

        Raises:
            InputError: One of them was not recorded.
        """
        if missing := [name for name in models if name not in self.models]:
            raise InputError(
                f"There are no outcomes of {', '.join(missing)}.",
                remedy=f"Recorded: {', '.join(self.models)}",
            )
        columns = np.array([self.models.index(name) for name in models], int)
        return self._part(np.arange(len(self)), columns)

    def _part(self, rows: NDArray[Any], columns: NDArray[Any]) -> Outcomes:
        cut = np.ix_(rows, columns)
        return Outcomes(
            texts=tuple(self.texts[i] for i in rows),
            models=tuple(self.models[j] for j in columns),
            quality=self.quality[cut],
            cost=self.cost[cut],
            latency=None if self.latency is None else self.latency[cut],
            answers=None if self.answers is None else self.answers[cut],
            signals={name: values[cut] for name, values in self.signals.items()},
            groups=None if self.groups is None else tuple(self.groups[i] for i in rows),
        )

    def split(self, seed: int, *, fit: float = 0.5) -> tuple[Outcomes, Outcomes]:
        """A part to fit on and a part to test on; rows with the same text stay together.

        Args:
            seed: Of the shuffle.
            fit: Share of the rows for the first part (below 1), or their number; it gets at most that.

        Raises:
            InputError: One of the parts would be empty.
        """
        wanted = round(fit * len(self)) if 0 < fit < 1 else int(fit)
        unique, of_row = np.unique(np.array(self.texts, object), return_inverse=True)
        order = np.random.default_rng(seed).permutation(len(unique))
        sizes = np.bincount(of_row, minlength=len(unique))
        first = order[np.cumsum(sizes[order]) <= wanted]
        mask = np.isin(of_row, first)
        if mask.all() or not mask.any():
            raise InputError(
                f"Got fit = {fit:g} for {len(self)} questions ({len(unique)} different ones), but both "
                "parts need some."
            )
        return self.take(mask), self.take(~mask)

    def fold_of(self, seed: int, count: int) -> NDArray[np.int64]:
        """The fold of each row ``[n]``, 0 to ``count - 1``; rows with the same text share one."""
        unique, of_row = np.unique(np.array(self.texts, object), return_inverse=True)
        fold = np.random.default_rng(seed).permutation(len(unique)) % count
        out: NDArray[np.int64] = fold[of_row]
        return out

    def folds(self, seed: int, count: int) -> list[tuple[Outcomes, Outcomes]]:
        """``count`` pairs of a part to fit on and one to test on; each question is tested once."""
        fold = self.fold_of(seed, count)
        return [(self.take(fold != k), self.take(fold == k)) for k in range(count)]

    def priced(
        self,
        prices: Mapping[str, Price],
        *,
        answer_tokens: float = np.nan,
        chars_per_token: float = CHARS_PER_TOKEN,
    ) -> Outcomes:
        """The same with costs from a price list, tokens being counted by the length of the texts.

        Args:
            prices: Model name to price; a model without one has an unknown cost.
            answer_tokens: Tokens of an answer whose text was not recorded; default unknown.
            chars_per_token: Characters that make a token.
        """
        cost = np.full(self.quality.shape, np.nan)
        asked = np.array([len(text) for text in self.texts]) / chars_per_token
        for j, name in enumerate(self.models):
            if name not in prices:
                continue
            said = np.full(len(self), answer_tokens)
            if self.answers is not None:
                texts = self.answers[:, j]
                known = np.array([text is not None for text in texts], bool)
                said[known] = [len(text) / chars_per_token for text in texts[known]]
            per_question = prices[name].cost(Usage(1_000_000, 0)) / 1e6
            per_answer = prices[name].cost(Usage(0, 1_000_000)) / 1e6
            # A free answer of unknown length costs nothing.
            cost[:, j] = asked * per_question + (said * per_answer if per_answer else 0)
        cost[np.isnan(self.quality)] = np.nan
        return dataclasses.replace(self, cost=cost.astype(np.float32))

    def filled(self) -> Outcomes:
        """The same, where an unknown cost or latency is the mean of its model's known ones.

        A policy's mean cost over the questions where all that it asks is known would be that of the
        questions on which those models happened to be recorded. Of a model without any it stays unknown.
        """
        mean = self.mean_cost()
        cost = np.where(np.isnan(self.cost), mean, self.cost)
        latency = self.latency
        if latency is not None:
            latency = np.where(np.isnan(latency), _mean(latency), latency)
        return dataclasses.replace(self, cost=cost, latency=latency)

    def recorded(self) -> Outcomes:
        """The questions of which an answer of one of the models is known, or what it is worth."""
        known: NDArray[np.bool_] = np.asarray(~np.isnan(self.quality).all(axis=1))
        for values in self.signals.values():
            known |= ~np.isnan(values).all(axis=1)
        if self.answers is not None:
            said = [any(text is not None for text in row) for row in self.answers]
            known |= np.array(said, bool)
        return self if known.all() else self.take(np.flatnonzero(known))

    def mean_cost(self) -> Floats:
        """Mean known cost of each model ``[m]``; NaN for a model without any."""
        return _mean(self.cost)

    def mean_quality(self) -> Floats:
        """Mean known quality of each model ``[m]``; NaN for a model without any."""
        return _mean(self.quality)


def _mean(values: Floats) -> Floats:
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0, dtype=np.float64)
    mean: Floats = np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)
    return mean.astype(np.float32)
