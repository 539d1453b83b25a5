"""What a run cost, saved and showed: the facts of the stages become the result.

Savings are net: every answer that was asked for, whatever for, is taken off. A price that is unknown
stays unknown. The waterfall counts calls on the user's own file; the outlook is for later inputs like it.
"""

from __future__ import annotations

import datetime
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pilotfish
from pilotfish.config import Price
from pilotfish.distill.objects import agreement_by_field
from pilotfish.infer.decide import agrees
from pilotfish.loop import result as shown
from pilotfish.loop.population import Population
from pilotfish.loop.settle import Settled
from pilotfish.loop.task import Task
from pilotfish.loop.teach import Round
from pilotfish.loop.teacher import Teacher

EXAMPLES = 40  # disagreements shown, the surest first
MANY_UNPARSED = 0.05
LIBRARIES = ("numpy", "scipy", "scikit-learn", "pyarrow", "xllamacpp", "wordllama")


@dataclass(frozen=True)
class Facts:
    """What the stages of one run left behind; see :mod:`pilotfish.loop.offload`.

    Attributes:
        answers: The student's answer for every unique input ``[u]``.
        scores: Its score ``[u]``.
        asked: Answers per purpose.
        evaluated: Rows compared with gold labels.
        local: The large model runs on this machine.
        command: How the run can be repeated, "" when unknown.
    """

    name: str
    folder: str
    task: Task
    population: Population
    teacher: Teacher
    large: str
    local: bool
    price: Price | None
    rounds: Sequence[Round]
    race: Sequence[shown.RaceEntry]
    settled: Settled
    answers: Sequence[str]
    scores: NDArray[np.float32]
    asked: dict[str, int]
    gold: str
    evaluated: NDArray[np.int64]
    seconds: dict[str, float]
    command: str

    @property
    def served(self) -> NDArray[np.bool_]:
        """Which unique inputs the cascade answers small ``[u]``."""
        threshold = self.settled.certificate.threshold
        if threshold is None:
            return np.zeros(len(self.scores), bool)
        return np.asarray(self.scores >= threshold)

    def agrees(self, unique: int) -> bool:
        """Whether small and large agree on an input that the large model was asked about."""
        return agrees(
            self.answers[unique],
            self.teacher.answers[unique],
            self.task.kind,
            tolerance=self.task.tolerance,
        )


def result_of(facts: Facts) -> shown.OffloadResult:
    """Account for everything and assemble the result."""
    items, saving = waterfall(facts)
    teacher = facts.teacher
    calls = sum(facts.asked.values())
    large_ms = answer_ms(facts)
    chosen = next(entry for entry in facts.race if entry.chosen)
    coverage = saving.future_calls
    mean = large_ms.mean_ms
    return shown.OffloadResult(
        name=facts.name,
        task=shown.TaskInfo(
            prompt=facts.task.prompt,
            kind=facts.task.kind,
            labels=list(facts.task.labels),
            tolerance=facts.task.tolerance,
        ),
        large=shown.LargeModel(
            name=facts.large,
            price=shown.PriceInfo(
                input=facts.price.input, output=facts.price.output, date=facts.price.date
            )
            if facts.price
            else None,
            calls=calls,
            cost=None if facts.local else teacher.cost,
            seconds=teacher.seconds,
            p50_ms=large_ms.p50_ms,
            p95_ms=large_ms.p95_ms,
            local=facts.local,
        ),
        rows=shown.RowCounts(
            read=facts.population.rows.read,
            rejected=len(facts.population.rows.rejects),
            unique=len(facts.population.inputs),
            reject_reasons=facts.population.rows.reasons,
        ),
        asked=shown.Asked(
            **facts.asked,
            unparsed=sum(teacher.reason_unparsed.values()),
            from_cache=teacher.cached,
            cost=None if facts.local else teacher.cost,
            seconds=teacher.seconds,
        ),
        race=list(facts.race),
        certificate=asdict(facts.settled.certificate),
        per_class=per_class(facts),
        latency=shown.Latency(
            small=shown.Percentiles(p50_ms=chosen.p50_ms),
            large=large_ms,
            cascade_mean_ms=(chosen.p50_ms or 0.0) + (1 - coverage) * mean if mean else None,
        ),
        waterfall=items,
        disagreements=disagreements(facts),
        gold=gold(facts),
        saving=saving,
        warnings=warnings(facts),
        hardware=hardware(),
        versions={"pilotfish": pilotfish.__version__, "python": platform.python_version()}
        | {name: version(name) for name in LIBRARIES},
        seconds={stage: round(seconds, 2) for stage, seconds in facts.seconds.items()},
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        artifact=facts.folder,
        command=facts.command,
    )


def answer_ms(facts: Facts) -> shown.Percentiles:
    """Times of one answer; a local model scores many at once, so only their mean is known."""
    fresh = sum(facts.asked.values()) - facts.teacher.cached
    if facts.local:
        return shown.Percentiles(mean_ms=facts.teacher.seconds / fresh * 1e3 if fresh > 0 else None)
    return _percentiles(facts.teacher.latencies)


def waterfall(facts: Facts) -> tuple[list[shown.WaterfallItem], shown.Saving]:
    """Calls, money and seconds on this file, and the outlook for later inputs."""
    population, teacher = facts.population, facts.teacher
    rows = len(population.rows)
    served = facts.served
    asked = np.zeros(len(served), bool)
    asked[list(teacher.answers)] = True
    small = int(population.counts[served & ~asked].sum())
    escalated = int((~served & ~asked).sum())
    spent = sum(facts.asked.values())
    repeated = rows - small - escalated - int(asked.sum())
    each_cost = teacher.cost / spent if teacher.cost is not None and spent else None
    if facts.local:
        each_cost = None
    fresh = spent - teacher.cached
    each_second = teacher.seconds / fresh if fresh > 0 else None

    def item(name: str, calls: int) -> shown.WaterfallItem:
        return shown.WaterfallItem(
            item=name,
            calls=calls,
            cost=None if each_cost is None else calls * each_cost,
            seconds=None if each_second is None else calls * each_second,
        )

    training = facts.asked["discover"] + facts.asked["train"]
    items = [
        item("always-large", rows),
        item("answered small", small),
        item("repeated inputs", repeated),
        item("teacher labels", training),
        item("calibration", facts.asked["calibrate"]),
        item("comparison", facts.asked["evaluate"]),
        item("escalated", escalated),
        item("net", spent + escalated),
    ]
    coverage = float(population.counts[served].sum() / rows)
    saved = rows - spent - escalated
    return items, shown.Saving(
        file_calls=saved / rows,
        future_calls=coverage,
        file_cost=None if each_cost is None else saved * each_cost,
        future_cost=None if each_cost is None else 1000 * coverage * each_cost,
        break_even=int(np.ceil(spent / coverage)) if coverage > 0 else None,
    )


def per_class(facts: Facts) -> list[shown.ClassRow]:
    """Per answer of the student: its share, how much of it is served, and how the served agree.

    Agreement is over the calibration rows that were asked and are served; these are few per class, so
    it is a hint, not a promise.
    """
    population, served = facts.population, facts.served
    if facts.task.kind == "extraction":
        return per_field(facts)
    share: Counter[str] = Counter()
    small: Counter[str] = Counter()
    for answer, count, is_served in zip(facts.answers, population.counts, served, strict=True):
        share[answer] += int(count)
        small[answer] += int(count) * bool(is_served)
    seen: Counter[str] = Counter()
    agreed: Counter[str] = Counter()
    for row in facts.settled.asked:
        unique = int(population.unique_of[row])
        if served[unique]:
            seen[facts.answers[unique]] += 1
            agreed[facts.answers[unique]] += facts.agrees(unique)
    return [
        shown.ClassRow(
            label=label,
            share=count / len(population.rows),
            served=small[label] / count,
            agreement=agreed[label] / seen[label] if seen[label] else None,
            n=seen[label],
        )
        for label, count in share.most_common()
    ]


def per_field(facts: Facts) -> list[shown.ClassRow]:
    """Per field of extracted objects: in how many it is, and how often the served ones agree on it."""
    served, counts = facts.served, facts.population.counts
    ids = [int(facts.population.unique_of[row]) for row in facts.settled.asked]
    pairs = [(facts.answers[i], facts.teacher.answers[i]) for i in ids if served[i]]
    small = float(counts[served].sum() / counts.sum())
    return [
        shown.ClassRow(label=name, share=n / len(pairs), served=small, agreement=same / n, n=n)
        for name, (same, n) in agreement_by_field(pairs).items()
    ]


def disagreements(facts: Facts) -> list[shown.Disagreement]:
    """Held-out inputs that small and large answer differently, the surest first."""
    asked = [*facts.settled.asked, *map(int, facts.evaluated)]
    ids = dict.fromkeys(int(facts.population.unique_of[row]) for row in asked)
    wrong = sorted((i for i in ids if not facts.agrees(i)), key=lambda i: -facts.scores[i])
    served = facts.served
    return [
        shown.Disagreement(
            text=facts.population.inputs.texts[i],
            small=facts.answers[i],
            large=facts.teacher.answers[i] or "(no allowed answer)",
            score=float(facts.scores[i]),
            served=bool(served[i]),
        )
        for i in wrong[:EXAMPLES]
    ]


def gold(facts: Facts) -> shown.Gold | None:
    """Accuracy of large, student and cascade against the user's own labels, on the same rows."""
    rows = facts.evaluated
    if not len(rows):
        return None
    truth = [str(facts.population.rows.columns[facts.gold][row]) for row in rows]
    ids = [int(facts.population.unique_of[row]) for row in rows]
    large = [facts.teacher.answers[i] for i in ids]
    small = [facts.answers[i] for i in ids]
    served = facts.served
    cascade = [s if served[i] else big for i, s, big in zip(ids, small, large, strict=True)]
    everything = [str(label) for label in facts.population.rows.columns[facts.gold]]

    def accuracy(answers: Sequence[str | None]) -> float:
        right = [
            answer is not None
            and agrees(answer, label, facts.task.kind, tolerance=facts.task.tolerance)
            for answer, label in zip(answers, truth, strict=True)
        ]
        return float(np.mean(right))

    return shown.Gold(
        column=facts.gold,
        n=len(rows),
        large=accuracy(large),
        student=accuracy(small),
        cascade=accuracy(cascade),
        baseline=Counter(everything).most_common(1)[0][1] / len(everything),
    )


def warnings(facts: Facts) -> list[str]:
    """What the user should know besides what the headline says."""
    found = []
    unparsed = sum(facts.teacher.reason_unparsed.values())
    calls = max(sum(facts.asked.values()), 1)
    if unparsed > MANY_UNPARSED * calls:
        found.append(
            f"{unparsed} of {calls} answers of the large model were no allowed answer; they count as "
            "disagreements. Name the labels in the prompt."
        )
    seen = {label for label in facts.teacher.answers.values() if label is not None}
    missing = [
        label for label in facts.task.labels if facts.task.kind == "label" and label not in seen
    ]
    if missing:
        found.append(
            f"The large model never answered: {', '.join(missing)}. No student can learn these."
        )
    if len(seen) == 1:
        found.append(f"Every answer was {next(iter(seen))!r}: there is nothing to tell apart.")
    return found


def hardware() -> dict[str, Any]:
    """This machine, as results are stored with it."""
    name = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            models = [
                line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
            ]
        name = models[0] if models else name
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return {
        "cpu": name,
        "cores": os.cpu_count(),
        "memory_gb": memory,
        "platform": platform.platform(),
    }


def _percentiles(seconds: Sequence[float]) -> shown.Percentiles:
    if not seconds:
        return shown.Percentiles()
    p50, p95 = np.percentile(seconds, [50, 95]) * 1e3
    mean = float(np.mean(seconds)) * 1e3
    return shown.Percentiles(p50_ms=float(p50), p95_ms=float(p95), mean_ms=mean)
