"""What is wanted, checked before anything is paid; and what it will cost, without asking anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pilotfish.config import Price
from pilotfish.errors import InputError
from pilotfish.infer.certify import Constraint
from pilotfish.loop.discover import SAMPLE
from pilotfish.loop.population import Population, populate
from pilotfish.loop.rows import read_rows
from pilotfish.loop.task import Task
from pilotfish.loop.teach import FIRST_BATCH, FIRST_GAIN
from pilotfish.loop.teacher import Budget
from pilotfish.loop.template import Template
from pilotfish.progress import Progress
from pilotfish.records import Usage

MOST_ANSWERS = 1_600  # to train on without a budget; twice as many take a minute to race
CHARS_PER_TOKEN = 4  # English prose; other scripts cost up to four times more
TOKENS_PER_ANSWER = 4


@dataclass(frozen=True)
class Plan:
    """What is wanted, checked before anything is paid.

    Attributes:
        task: Prompt, kind and labels.
        constraints: What is promised.
        delta: Probability that the promise may fail.
        budget: What may be spent on the large model.
        horizon: Inputs that will profit; None for as many as the file has.
        students: Who races; None for all that fit.
        encoder: Spec of the encoder.
        gold: Column with true labels, "" for none.
        seed: Of every random choice.
    """

    task: Task
    constraints: tuple[Constraint, ...]
    delta: float = 0.05
    budget: Budget = field(default_factory=Budget)
    horizon: int | None = None
    students: tuple[str, ...] | None = None
    encoder: str = "static"
    gold: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task.kind == "text":
            raise InputError(
                "Got kind 'text', but an offload needs labels or a rating.",
                remedy="Recorded answers to free-text questions are reused by: pilotfish learn",
            )
        if not 0 < self.delta < 1:
            raise InputError(f"Got delta {self.delta}, but expected a probability in (0, 1).")

    @property
    def agreement(self) -> Constraint:
        """The agreement constraint, or the first one when there is none."""
        kinds = [c for c in self.constraints if c.kind == "agree"]
        return (kinds or list(self.constraints))[0]

    @property
    def fewest_rows(self) -> int:
        """Calibration rows without which no threshold can be certified, even with no disagreement."""
        share = self.delta / len(self.constraints)
        return int(np.ceil(np.log(share) / np.log(self.agreement.target)))


def plan_of(
    prompt: str,
    *,
    labels: Sequence[str] = (),
    kind: str = "label",
    rating: tuple[float, float] | None = None,
    tolerance: float = 0.0,
    agree: float = 0.95,
    on: str = "all",
    precision: Mapping[str, float] | None = None,
    recall: Mapping[str, float] | None = None,
    delta: float = 0.05,
    budget: str | Budget | None = None,
    horizon: int | None = None,
    students: Sequence[str] | None = None,
    encoder: str = "static",
    gold: str = "",
    system: str = "",
    params: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Plan:
    """Check the settings of :func:`pilotfish.offload`, whose documentation says what each means.

    ``{labels}`` in the prompt stands for the label names, with commas between.

    Raises:
        InputError: One of them cannot be used.
    """
    if kind == "extraction":
        raise InputError(
            "Got kind 'extraction', but an offload needs labels or a rating.",
            remedy="Extraction is learned from the answers recorded in service: pilotfish learn",
        )
    if labels:
        names = ", ".join(labels).replace("{", "{{").replace("}", "}}")
        prompt = prompt.replace("{labels}", names)
    return Plan(
        task=Task(prompt, kind, tuple(labels), tolerance, rating, system, dict(params or {})),
        constraints=constraints(agree, on, precision, recall),
        delta=delta,
        budget=Budget.parse(budget) if isinstance(budget, str) else budget or Budget(),
        horizon=horizon,
        students=tuple(students) if students else None,
        encoder=encoder,
        gold=gold,
        seed=seed,
    )


def constraints(
    agree: float,
    on: str = "all",
    precision: Mapping[str, float] | None = None,
    recall: Mapping[str, float] | None = None,
) -> tuple[Constraint, ...]:
    """The promises that the options ask for; all of them hold together with 1 - delta."""
    if on not in {"all", "served"}:
        raise InputError(f"Got on={on!r}, but expected 'all' or 'served'.")
    wanted = {"agree": agree, **_named("precision", precision), **_named("recall", recall)}
    for name, share in wanted.items():
        if not 0 < share < 1:
            raise InputError(
                f"Got {name} {share:g}, but expected a share between 0 and 1, such as 0.95.",
                remedy="A promise of 1 cannot be tested on a sample; try 0.99.",
            )
    return (
        Constraint("agree", agree, on="served" if on == "served" else "all"),
        *(Constraint("precision", share, label) for label, share in (precision or {}).items()),
        *(Constraint("recall", share, label) for label, share in (recall or {}).items()),
    )


def prepare(plan: Plan, file: Path, progress: Progress) -> Population:
    """Read, validate, deduplicate and split the file; refuse what cannot lead to a certificate.

    Raises:
        InputError: Unreadable, without the prompt's columns, or too few rows.
    """
    template = Template(plan.task.prompt)
    with progress.stage("Reading the file", None):
        rows = read_rows(file, fields=template.fields)
        if plan.gold and plan.gold not in rows.columns:
            raise InputError(
                f"The file has no column {plan.gold!r} with gold labels.",
                remedy=f"Its columns: {', '.join(rows.columns)}",
            )
        population = populate(rows, template, seed=plan.seed, evaluate=bool(plan.gold))
    if len(population.calibrate) < plan.fewest_rows:
        raise InputError(
            f"{file} has {len(rows)} usable rows, too few to certify agree={plan.agreement.target:g} "
            f"at delta={plan.delta:g}: half of them calibrate, and {plan.fewest_rows} calibration rows "
            "are needed even if no answer differs.",
            remedy=f"Give at least {2 * plan.fewest_rows + 20} rows, or lower --agree or raise --delta.",
        )
    return population


def _named(kind: str, shares: Mapping[str, float] | None) -> dict[str, float]:
    return {f"{kind} of {label!r}": share for label, share in (shares or {}).items()}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an offload will take, before anything is asked.

    Attributes:
        rows: Usable rows.
        rejected: Rows that cannot be used.
        unique: Different inputs.
        always_large: Calls without Pilotfish: one per row.
        low: Calls at the least: a first batch and the fewest calibration rows.
        expected: Calls for a task that is learned about as fast as the usual one.
        high: Calls at the most.
        tokens_per_call: Prompt and answer, counted as characters / 4.
        cost_per_call: US dollars, None when the price is unknown.
    """

    rows: int
    rejected: int
    unique: int
    always_large: int
    low: int
    expected: int
    high: int
    tokens_per_call: float
    cost_per_call: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def _taught(limit: int, worth: float) -> int:
    """Training answers when each doubling pays as long as it asks for no more than ``worth``."""
    asked = min(FIRST_BATCH, limit)
    while 0 < (more := min(asked, limit - asked)) <= worth:
        asked += more
    return asked


def estimate(plan: Plan, file: Path, price: Price | None, progress: Progress) -> Estimate:
    """Estimate calls and cost; nothing is asked and nothing is loaded.

    The range is wide on purpose. Below: the first batch and as many calibration answers as a student
    without disagreements needs. Above: training is doubled as long as the stopping rule could allow,
    and three times as many calibration answers as usual are needed.
    """
    population = prepare(plan, file, progress)
    rows = len(population.rows)
    horizon = plan.horizon or rows
    trainable = len(population.train_ids)
    fixed = len(population.evaluate)
    if plan.task.kind != "rating" and not plan.task.labels:
        fixed += SAMPLE
    limit = min(trainable, MOST_ANSWERS) if plan.budget == Budget() else trainable
    most = _taught(limit, FIRST_GAIN * horizon)
    usual = _taught(limit, FIRST_GAIN / 2 * horizon)
    calls = {
        "low": fixed + min(FIRST_BATCH, limit) + plan.fewest_rows,
        "expected": fixed + usual + min(6 * plan.fewest_rows, rows // 2),
        "high": fixed + most + min(18 * plan.fewest_rows, rows // 2),
    }
    if plan.budget.calls is not None:
        calls = {name: min(value, plan.budget.calls) for name, value in calls.items()}
    sample = range(0, len(population.inputs), max(1, len(population.inputs) // 1000))
    prompts = [plan.task.request(population.row(i)).prompt for i in sample]
    size = (
        float(np.mean([len(text) for text in prompts])) + len(plan.task.system)
    ) / CHARS_PER_TOKEN
    usage = Usage(round(size), TOKENS_PER_ANSWER)
    return Estimate(
        rows=rows,
        rejected=len(population.rows.rejects),
        unique=len(population.inputs),
        always_large=rows,
        tokens_per_call=size + TOKENS_PER_ANSWER,
        cost_per_call=price.cost(usage) if price else None,
        **calls,
    )
