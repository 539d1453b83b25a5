"""Asking the judge about rows of a text task: concurrent, within a budget, and each call paid once.

The budget counts each call whose answer is used, whether it was paid for now or by an earlier, killed
run: only then does a run that goes on make the same choices as one that was never killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from pilotfish.errors import InputError, RequestRefused
from pilotfish.loop.equivalence import EquivalenceJudge
from pilotfish.loop.learned import to_send
from pilotfish.loop.reuse import ReuseModel
from pilotfish.loop.reuse_rows import Asked
from pilotfish.loop.teacher import Budget
from pilotfish.models.calls import wait
from pilotfish.models.protocols import Model
from pilotfish.records import canonical_json

Pair = tuple[Asked, ReuseModel, int]  # a row, and an entry of an index


class Verdicts:
    """Whether an entry's answer is equivalent to a row's own.

    Args:
        large: The large model, with its memory: for rows that have no answer of its own.
        judge: Compares.
        marks: The task's.
        budget: What may be spent in all.
        concurrency: Calls under way at most.

    Attributes:
        bought: Answers of the large model that were used.
        judged: Verdicts of the judge that were used.
        about: Ids of the rows that were asked about.
    """

    def __init__(
        self,
        large: Model,
        judge: EquivalenceJudge,
        marks: Mapping[str, Any],
        *,
        budget: Budget,
        concurrency: int = 16,
    ) -> None:
        self.bought = self.judged = 0
        self.about: list[str] = []
        self._large = large
        self._judge = judge
        self._marks = marks
        self._budget = budget
        self._concurrency = concurrency
        self._counted: set[str] = set()
        self._spent = 0.0
        self._unpriced = 0

    @property
    def calls(self) -> int:
        """Calls that were used."""
        return self.bought + self.judged

    @property
    def cost(self) -> float | None:
        """US dollars of these, None when one is unknown."""
        return None if self._unpriced else self._spent

    def affordable(self, wanted: int) -> int:
        """How many further calls the budget allows, of ``wanted``.

        Raises:
            InputError: The budget is in money and a price is unknown.
        """
        if self._budget.calls is not None:
            wanted = min(wanted, self._budget.calls - self.calls)
        if self._budget.dollars is not None and self.calls:
            if self.cost is None:
                raise InputError(
                    "The budget is in dollars, but the price of the judge or the large model is unknown.",
                    remedy="Add [prices.NAME] to pilotfish.toml, or give the budget in calls.",
                )
            each = self.cost / self.calls
            left = self._budget.dollars - self.cost
            wanted = min(wanted, int(left / each + 1e-9) if each > 0 else wanted)
        return max(wanted, 0)

    def of(self, pairs: Sequence[Pair]) -> list[bool]:
        """The verdicts, in order; False where the large model or the judge refuses the question.

        Raises:
            ModelError: One of them cannot be reached; what was answered is kept.
        """
        return wait(self._all(pairs))

    async def _all(self, pairs: Sequence[Pair]) -> list[bool]:
        places = asyncio.Semaphore(self._concurrency)

        async def one(row: Asked, small: ReuseModel, entry: int) -> bool:
            async with places:
                try:
                    return await self._one(row, small, entry)
                except RequestRefused:
                    return False

        return list(await asyncio.gather(*(one(*pair) for pair in pairs)))

    async def _one(self, row: Asked, small: ReuseModel, entry: int) -> bool:
        request = row.row.request
        assert request is not None
        self.about.append(row.row.id)
        answer = row.answer
        if answer is None:
            completion = await self._large.complete(to_send(request, self._marks))
            self.bought += self._pay(completion.cost, request.key("answer"))
            answer = completion.text
        about = [row.row.id, small.ids[entry]]
        verdict = await self._judge.compare(request.prompt, small.answers[entry], answer, about)
        if verdict.completion is not None:
            pair = canonical_json([request.prompt, *sorted((small.answers[entry], answer))])
            self.judged += self._pay(verdict.completion.cost, pair)
        return verdict.equivalent

    def _pay(self, cost: float | None, call: str) -> bool:
        """Count a call, once; whether it is the first of its kind."""
        if call in self._counted:
            return False
        self._counted.add(call)
        self._spent += cost or 0.0
        self._unpriced += cost is None
        return True
