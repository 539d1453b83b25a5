"""From a prompt and a file of inputs to a certified small model: the main job, stage by stage.

validate -> deduplicate and split -> discover labels -> ask for training answers -> race students ->
certify -> compare with gold labels -> package and report. Each stage is one call below; every answer of
the large model goes through the store, so the whole job can be killed anywhere and started again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.config import Config, load_config
from pilotfish.infer.certify import Certificate
from pilotfish.loop.account import Facts, result_of
from pilotfish.loop.artifact import pack
from pilotfish.loop.certified import certify_small
from pilotfish.loop.discover import discover
from pilotfish.loop.plan import MOST_ANSWERS, Plan, plan_of, prepare
from pilotfish.loop.population import Population
from pilotfish.loop.race import candidates
from pilotfish.loop.report import render_report
from pilotfish.loop.result import OffloadResult
from pilotfish.loop.rows import write_rejects
from pilotfish.loop.small import Small
from pilotfish.loop.task import Task
from pilotfish.loop.teach import teach
from pilotfish.loop.teacher import Budget, Teacher, closed_label
from pilotfish.models.load import load_encoder, load_model
from pilotfish.models.protocols import Encoder, LabelScorer, Model
from pilotfish.progress import Progress
from pilotfish.records import canonical_json
from pilotfish.store.store import open_store

COMPARE_SHARE = 0.2  # of a budget, when there are gold labels
TRAIN_SHARE = 0.6  # of what is left; the rest calibrates
LOCAL_BATCH = 64  # answers that a local model scores in one go


def offload(
    prompt: str,
    inputs: str | Path,
    *,
    large: str | Model,
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
    out: str | Path | None = None,
    name: str = "",
    seed: int = 0,
    store: str | None = None,
    resume: bool = True,
    command: str = "",
    config: Config | None = None,
    progress: Progress | None = None,
) -> OffloadResult:
    """Make a small model that answers a prompt's traffic like a large one, with a certificate.

    Args:
        prompt: What is sent to the large model, with ``{column}`` for columns of the file and
            ``{labels}`` for the label names.
        inputs: JSONL, CSV or Parquet; rows that cannot be used are listed in the artifact's folder.
        large: Spec of the large model (``openai:gpt-4.1-mini``, ``qwen2.5-coder-1.5b``), or a model.
        labels: The closed answer set; empty lets the large model's own answers show it.
        kind: ``"label"``, ``"labels"`` (several may hold) or ``"rating"``.
        rating: Lowest and highest value of a continuous rating.
        tolerance: Ratings that differ by no more than this agree.
        agree: Share of answers that must be what the large model would have said, in (0, 1).
        on: ``"all"``: of all answers; ``"served"``: of those that the small model gives.
        precision: Label to the share of small answers with it that must be right.
        recall: Label to the share of inputs with it that must be found.
        delta: Probability that the promise may fail, in (0, 1).
        budget: Calls (``"500"``) or money (``"$5"``) for training, calibration and comparison.
        horizon: Inputs that will profit from the result; default: as many as the file has.
        students: Names of :data:`pilotfish.distill.STUDENTS`; default: all that fit.
        encoder: Encoder spec.
        gold: Column with true labels, to compare large, small and cascade with the truth.
        system: System prompt.
        params: Further parameters for the large model.
        out: The artifact's folder; default ``<file>-offload`` beside the working folder.
        name: The artifact's name; default the folder's.
        seed: Of every random choice; the same seed and answers give the same result.
        store: URL of the store; default the configuration's.
        resume: Use answers that the store already has; False asks (and pays) again.
        command: How the run can be repeated, for the report.
        config: Default: what :func:`~pilotfish.config.load_config` finds.
        progress: Watches.

    Returns:
        What was asked, learned and promised; also in the artifact, with the HTML report.

    Raises:
        InputError: The prompt, the file or a setting cannot be used; nothing was paid.
        ModelError: The large model cannot be reached; what was answered is kept.
    """
    config = config or load_config()
    plan = plan_of(
        prompt,
        labels=labels,
        kind=kind,
        rating=rating,
        tolerance=tolerance,
        agree=agree,
        on=on,
        precision=precision,
        recall=recall,
        delta=delta,
        budget=budget,
        horizon=horizon,
        students=students,
        encoder=encoder,
        gold=gold,
        system=system,
        params=params,
        seed=seed,
    )
    folder = Path(out) if out else Path(f"{Path(inputs).stem}-offload")
    job = _Job(plan, Path(inputs), folder, name or folder.name, config, progress, command)
    return job.run(large, store or config.store, resume=resume)


class _Job:
    """One offload under way: the stages in order, and the time each took."""

    def __init__(
        self,
        plan: Plan,
        file: Path,
        folder: Path,
        name: str,
        config: Config,
        progress: Progress | None,
        command: str,
    ) -> None:
        self.plan = plan
        self.file = file
        self.folder = folder
        self.name = name
        self.config = config
        self.progress = progress or Progress()
        self.seconds: dict[str, float] = {}
        self.large = ""
        self.command = command
        self.concurrency = 16

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what happens inside to a stage's seconds."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - started

    def run(self, large: str | Model, store: str, *, resume: bool) -> OffloadResult:
        """Do all of it; see :func:`offload`."""
        plan = self.plan
        with self.timed("read"):
            population = prepare(plan, self.file, self.progress)
            encoder = load_encoder(plan.encoder, self.config)
            candidates(plan.students, population.inputs, encoder)
        model = load_model(large, self.config) if isinstance(large, str) else large
        self.large = large if isinstance(large, str) else model.name
        if isinstance(model, LabelScorer):
            self.concurrency = LOCAL_BATCH
        else:
            self.concurrency = int(getattr(model, "concurrency", self.concurrency))
        with open_store(store) as database:
            key = hashlib.sha256(
                canonical_json([plan.task.to_dict(), model.name, population.fingerprint]).encode()
            ).hexdigest()
            settings = {"file": str(self.file), "large": model.name, "out": str(self.folder)}
            with database.run("offload", key, settings) as run:
                teacher = self.teacher(
                    population, closed_label(model, database, run.id, resume=resume)
                )
                result = self.stages(population, encoder, model, teacher)
                run.finish({"artifact": str(self.folder), "certificate": result.certificate})
        return result

    def teacher(
        self,
        population: Population,
        model: Model,
        task: Task | None = None,
        *,
        open_ended: bool = False,
    ) -> Teacher:
        """Whoever asks the large model, about the plan's task or another."""
        wanted = task or self.plan.task
        return Teacher(
            model,
            lambda i: wanted.request(population.row(i), open_ended=open_ended),
            budget=self.plan.budget,
            concurrency=self.concurrency,
        )

    def stages(
        self, population: Population, encoder: Encoder, model: Model, teacher: Teacher
    ) -> OffloadResult:
        """The stages in which the large model is asked, and the package."""
        plan, watch = self.plan, self.progress
        horizon = plan.horizon or len(population.rows)
        with self.timed("discover"):
            task = plan.task
            if task.kind != "rating" and not task.labels:
                asker = self.teacher(population, teacher.model, open_ended=True)
                task = discover(population, task, asker, seed=plan.seed, progress=watch)
                teacher = self.teacher(population, teacher.model, task)
                teacher.adopt(asker)
        with self.timed("ask"):
            kept = self.kept(population, teacher)
            limit = teacher.affordable(len(population.train_ids) + kept) - kept
            limit = (
                min(limit, MOST_ANSWERS) if plan.budget == Budget() else int(TRAIN_SHARE * limit)
            )
            ids, rounds = teach(
                population,
                task,
                teacher,
                encoder,
                plan.agreement,
                limit=limit,
                horizon=horizon,
                seed=plan.seed,
                progress=watch,
            )
        trained = len(teacher.answers)
        done = certify_small(
            plan,
            task,
            population,
            teacher,
            encoder,
            ids,
            name=self.name,
            horizon=horizon,
            affordable=lambda: teacher.affordable(len(population.calibrate) + kept) - kept,
            timed=self.timed,
            progress=watch,
        )
        certified = len(teacher.answers)
        with self.timed("compare"):
            evaluated = self.compare(population, teacher)
        facts = Facts(
            name=self.name,
            folder=str(self.folder),
            task=task,
            population=population,
            teacher=teacher,
            large=model.name,
            local=isinstance(model, LabelScorer),
            price=self.config.prices.get(model.name),
            rounds=rounds,
            race=done.entries,
            settled=done.settled,
            answers=done.answers,
            scores=done.scores,
            asked={
                "discover": teacher.discovered,
                "train": trained,
                "calibrate": certified - trained,
                "evaluate": len(teacher.answers) - certified,
            },
            gold=plan.gold,
            evaluated=evaluated,
            seconds=self.seconds,
            command=self.command,
        )
        return self.package(facts, done.small, done.settled.certificate)

    def kept(self, population: Population, teacher: Teacher) -> int:
        """Answers that a budget keeps for the comparison with gold labels."""
        wanted = len(population.evaluate)
        if self.plan.budget == Budget():
            return wanted
        return min(wanted, int(COMPARE_SHARE * teacher.affordable(10**9)))

    def compare(self, population: Population, teacher: Teacher) -> NDArray[np.int64]:
        """Ask about the rows kept for gold labels, as far as the budget goes."""
        rows = population.evaluate
        if not len(rows):
            return rows
        rows = rows[: teacher.affordable(len(rows))]
        with self.progress.stage("Comparing with gold labels", len(rows)) as stage:
            teacher.ask([int(population.unique_of[row]) for row in rows], stage)
        return rows

    def package(self, facts: Facts, small: Small, certificate: Certificate) -> OffloadResult:
        """Write the artifact with its report, and the list of rejected rows."""
        with self.timed("package"):
            result = result_of(facts)
            plain = result.to_dict()
            pack(
                self.folder,
                name=self.name,
                task=facts.task,
                small=small,
                certificate=certificate,
                learned_from={
                    "large": self.large,
                    "data": facts.population.fingerprint,
                    "rows": len(facts.population.rows),
                    "answers": facts.asked,
                },
                quality={"saving": plain["saving"], "gold": plain["gold"]},
                result=plain,
                report=render_report(result),
            )
            if facts.population.rows.rejects:
                rejects = self.folder.with_name(f"{self.folder.name}.rejects.jsonl")
                write_rejects(facts.population.rows, rejects)
        return result
