"""Asking the large model for labels: concurrent, cached, within a budget, and the same on every run.

Every answer goes through the store before it is used, so a killed run continues where it was and pays
nothing twice. The budget counts each answer that this run uses, whether it was paid for now or in an
earlier, killed run: only then does a resumed run make the same choices as one that was never killed.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pilotfish.errors import BudgetSpent, InputError, ModelError, RequestRefused
from pilotfish.models.cached import CachedModel
from pilotfish.models.calls import complete_many, wait
from pilotfish.models.labels import LabelModel
from pilotfish.models.protocols import LabelScorer, Model
from pilotfish.progress import Stage
from pilotfish.records import Completion, Request
from pilotfish.store.store import Store

REFUSALS_IN_A_ROW = 5  # so many refused requests before the first answer mean that all will be


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be spent; None for no limit.

    >>> Budget.parse("500"), Budget.parse("$2.50")
    (Budget(calls=500, dollars=None), Budget(calls=None, dollars=2.5))
    """

    calls: int | None = None
    dollars: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``--budget``: a number of calls, or dollars with a ``$``.

        Raises:
            InputError: It is neither.
        """
        match = re.fullmatch(r"(\$?)\s*(\d[\d_,]*(?:\.\d+)?)\s*(usd|calls)?", text.strip(), re.I)
        if match:
            number = match[2].replace(",", "").replace("_", "")
            if match[1] or (match[3] or "").lower() == "usd":
                return cls(dollars=float(number))
            if "." not in number:
                return cls(calls=int(number))
        raise InputError(
            f"Got budget {text!r}, but expected a number of calls or an amount of money.",
            remedy="For example: --budget 500, or --budget '$5'",
        )


def closed_label(model: Model, store: Store, run: str = "", *, resume: bool = True) -> Model:
    """A model that answers with labels, with every paid answer kept in the store.

    A local scorer is cached with its label scores, since they depend on the labels. A remote model is
    cached below the parser, so that another label set reuses the same paid text.
    """
    inner = LabelModel(model) if isinstance(model, LabelScorer) else model
    cached = CachedModel(inner, store, run=run)
    if not resume:
        # Another key for every answer: nothing stored is found, and what is paid now is kept too.
        cached.identity = f"{cached.identity} {uuid.uuid4()}"
    return cached if inner is not model else LabelModel(cached)


class Teacher:
    """The large model, as the source of labels.

    Args:
        model: What :func:`closed_label` returns.
        requests: Input number to its request.
        budget: What may be spent in all.
        concurrency: Requests under way at most.
        recorded: Answers that are there already, by input number (None: no allowed answer); they are
            neither asked for nor counted in a budget.

    Attributes:
        from_records: How many of the answers were recorded.
        discovered: Answers spent on discovering the labels, before this teacher.
        answers: Input number to label; None where the answer did not parse or was refused.
        cost: US dollars so far, None as soon as one price is unknown.
        cached: How many answers were paid for in an earlier run.
        latencies: Seconds of each answer that was asked for now.
        seconds: Wall-clock seconds spent waiting for answers.
    """

    def __init__(
        self,
        model: Model,
        requests: Callable[[int], Request],
        *,
        budget: Budget | None = None,
        concurrency: int = 16,
        recorded: Mapping[int, str | None] | None = None,
    ) -> None:
        self.model = model
        self.recorded = dict(recorded or {})
        self.from_records = 0
        self.requests = requests
        self.budget = budget or Budget()
        self.concurrency = concurrency
        self.answers: dict[int, str | None] = {}
        self.cost: float | None = 0.0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cached = 0
        self.latencies: list[float] = []
        self.seconds = 0.0
        self.reason_unparsed: dict[str, int] = {}
        self.discovered = 0
        self._prepaid: frozenset[int] = frozenset()

    @property
    def bought(self) -> int:
        """Answers that were asked for."""
        return len(self.answers) - self.from_records

    def affordable(self, wanted: int) -> int:
        """How many of ``wanted`` further answers the budget allows.

        Raises:
            InputError: The budget is in money and the model's price is unknown.
        """
        if self.budget.calls is not None:
            wanted = min(wanted, self.budget.calls - self.bought - self.discovered)
        if self.budget.dollars is not None and self.bought:
            if self.cost is None:
                raise InputError(
                    "The budget is in dollars, but the price of the large model is unknown.",
                    remedy="Add [prices.NAME] to pilotfish.toml, or give the budget in calls.",
                )
            each = self.cost / self.bought
            left = self.budget.dollars - self.cost
            wanted = min(wanted, int(left / each + 1e-9) if each > 0 else wanted)
        return max(wanted, 0)

    def adopt(self, earlier: Teacher) -> None:
        """Take over what another teacher of the same run has spent (on discovering the labels)."""
        self.discovered = len(earlier.answers) - earlier.cached
        self._prepaid = frozenset(earlier.answers)
        self.cost = earlier.cost
        self.prompt_tokens, self.completion_tokens = (
            earlier.prompt_tokens,
            earlier.completion_tokens,
        )
        self.cached, self.seconds = earlier.cached, earlier.seconds

    def ask(self, ids: Sequence[int], stage: Stage | None = None) -> list[str | None]:
        """Labels of these inputs, in their order; those known already cost nothing.

        Raises:
            BudgetSpent: The budget does not cover all of them; nothing was asked.
            ModelError: The model cannot be reached or refuses everything; what came before is kept.
        """
        fresh = []
        for i in dict.fromkeys(i for i in ids if i not in self.answers):
            if i in self.recorded:
                self.answers[i] = self.recorded[i]
                self.from_records += 1
            else:
                fresh.append(i)
        if self.affordable(len(fresh)) < len(fresh):
            raise BudgetSpent(
                f"{len(fresh)} answers are needed, but the budget allows "
                f"{self.affordable(len(fresh))} more."
            )
        started = time.monotonic()
        try:
            failed = wait(self._collect(fresh, stage or Stage()))
            if failed:
                failed = wait(self._collect(failed, stage or Stage(), last_try=True))
        finally:
            self.seconds += time.monotonic() - started
        return [self.answers[i] for i in ids]

    async def _collect(self, ids: list[int], stage: Stage, *, last_try: bool = False) -> list[int]:
        failed: list[int] = []
        refusals = 0
        source = (self.requests(i) for i in ids)
        async for position, outcome in complete_many(
            self.model, source, concurrency=self.concurrency
        ):
            if isinstance(outcome, RequestRefused):
                refusals += 1
                if refusals >= min(REFUSALS_IN_A_ROW, len(ids)) and not any(
                    answer is not None for answer in self.answers.values()
                ):
                    raise outcome
                self._unparsed(ids[position], "refused")
            elif isinstance(outcome, ModelError):
                if last_try or not outcome.retryable:
                    raise outcome
                failed.append(ids[position])
                continue
            else:
                self._record(ids[position], outcome)
            stage.advance()
        return failed

    def _record(self, i: int, completion: Completion) -> None:
        label = completion.extra.get("label", completion.text)
        if label is None:
            self._unparsed(i, "unparsed")
        else:
            self.answers[i] = str(label)
        if completion.cached and i in self._prepaid:
            return  # the same text, counted when the labels were discovered
        known = self.cost is not None and completion.cost is not None
        self.cost = self.cost + completion.cost if known else None  # type: ignore[operator]
        self.prompt_tokens += completion.usage.prompt_tokens
        self.completion_tokens += completion.usage.completion_tokens
        if completion.cached:
            self.cached += 1
        self.latencies.append(completion.latency)

    def _unparsed(self, i: int, reason: str) -> None:
        self.answers[i] = None
        self.reason_unparsed[reason] = self.reason_unparsed.get(reason, 0) + 1
