"""Learn one task from its recorded answers: curate, teach, certify, and compare with who is in service.

The answers that the large model gave in service train and certify the student; it is asked only for what
is missing. What comes out is a version: an artifact with its certificate, which enters in shadow. Nothing
is made when no threshold can be certified, or when the version in service does as well.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pilotfish.config import Config
from pilotfish.errors import ArtifactError, InputError
from pilotfish.loop.account import Facts, result_of
from pilotfish.loop.artifact import OffloadedModel, pack
from pilotfish.loop.certified import CertifiedStudent, answer_all, certify_small
from pilotfish.loop.lessons import Definition, Lessons, Parsed
from pilotfish.loop.plan import MOST_ANSWERS, Plan, constraints
from pilotfish.loop.report import render_report
from pilotfish.loop.teach import EVEN_BATCH, FIRST_BATCH, teach, teach_evenly
from pilotfish.loop.teacher import Budget, Teacher
from pilotfish.models.cached import CachedModel
from pilotfish.models.load import load_encoder
from pilotfish.models.protocols import Encoder, Model
from pilotfish.progress import Progress
from pilotfish.records import canonical_json
from pilotfish.store.store import Store
from pilotfish.store.versions import Version

REFERENCE = 500  # inputs whose vectors are kept to notice a drift of the inputs
LEAST = 0.05  # share that a first version must serve; less is not worth its checks
BETTER = 0.02  # share of the inputs that a new version must serve more than the one in service


@dataclass(frozen=True)
class LearnSettings:
    """How tasks are learned and brought into service.

    Attributes:
        agree: Share of answers that must be what the large model would have said, in (0, 1).
        on: ``"all"``: of all answers of the task; ``"served"``: of those that are answered small.
        delta: Probability that a promise may fail; also that a watch ever raises a false alarm.
        students: Who races; None for all that fit.
        encoder: Spec of the encoder.
        judge: Spec of the model that compares texts; "" for the large model.
        budget: What may be spent on the large model for one version.
        horizon: Requests that will profit; default as many as were recorded.
        folder: Where artifacts go.
        seed: Of every random choice.
    """

    agree: float = 0.95
    on: str = "all"
    delta: float = 0.05
    students: tuple[str, ...] | None = None
    encoder: str = "static"
    judge: str = ""
    budget: Budget = field(default_factory=Budget)
    horizon: int | None = None
    folder: Path = Path("learned")
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What came of learning a task.

    Attributes:
        reason: ``"certified"``; or why there is no new version: ``"no-threshold"``,
            ``"too-few-answers"``, ``"budget"``, ``"too-little"``, ``"no-better"``.
        version: The new version, None without one.
        rows: Requests that were learned from.
        recorded: Answers that were there already.
        asked: Answers that were bought.
        cost: US dollars of these, None when unknown.
        coverage: Share that the certificate lets the new student answer.
        seconds: How long it took.
    """

    reason: str
    version: Version | None
    rows: int
    recorded: int
    asked: int
    cost: float | None
    coverage: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = {
            name: getattr(self, name)
            for name in ("reason", "rows", "recorded", "asked", "cost", "coverage", "seconds")
        }
        return plain | {"version": None if self.version is None else self.version.version}


def learn(
    definition: Definition,
    known: Lessons,
    store: Store,
    model: Model,
    settings: LearnSettings,
    *,
    config: Config,
    since: float = 0.0,
    in_service: Version | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Learn a task; a run that was killed goes on where it was and pays nothing twice.

    Args:
        definition: The task.
        known: Its recorded traffic.
        store: Where bought answers and the version go.
        model: The large model.
        settings: What is promised, and who races.
        config: Prices.
        since: When the stretch of traffic begins, 0 for all there is: answers that were bought for an
            earlier one are not used again.
        in_service: What the new version must beat; None after an alarm, and in the beginning.
        progress: Watches.

    Raises:
        InputError: There are too few requests to certify anything.
        ModelError: The large model cannot be reached; what was answered is kept.
    """
    job = _Learning(definition, known, settings, progress or Progress())
    return job.run(store, model, config, since, in_service)


class _Learning:
    """One version of a task being made."""

    def __init__(
        self, definition: Definition, known: Lessons, settings: LearnSettings, progress: Progress
    ) -> None:
        self.definition = definition
        self.known = known
        self.settings = settings
        self.progress = progress
        self.seconds: dict[str, float] = {}
        self.plan = Plan(
            known.task,
            constraints(settings.agree, settings.on),
            delta=settings.delta,
            budget=settings.budget,
            horizon=settings.horizon,
            students=settings.students,
            encoder=settings.encoder,
            seed=settings.seed,
        )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what happens inside to a stage's seconds."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.monotonic() - began

    def run(
        self,
        store: Store,
        model: Model,
        config: Config,
        since: float,
        in_service: Version | None,
    ) -> Outcome:
        """Ask for what is missing, certify, and keep the version if it is better."""
        began = time.monotonic()
        known, plan = self.known, self.plan
        population = known.population
        if len(population.calibrate) < plan.fewest_rows:
            raise InputError(
                f"The task {self.definition.name!r} has {len(known.ids)} recorded requests, too few to "
                f"certify agree={plan.agreement.target:g} at delta={plan.delta:g}.",
                remedy=f"Wait until there are {2 * plan.fewest_rows + 20}, or promise less.",
            )
        key = self._key(since)
        with store.run(
            "learn", f"{self.definition.name} {key}", {"task": self.definition.name}
        ) as run:
            cached = CachedModel(model, store, task=self.definition.name, run=run.id)
            if since:
                cached.identity = f"{cached.identity} since {since:.3f}"
            teacher = Teacher(
                Parsed(cached, known.kind),
                lambda i: known.requests[i],
                budget=plan.budget,
                concurrency=int(getattr(model, "concurrency", 16)),
                recorded=known.recorded,
            )
            encoder = load_encoder(plan.encoder, config)
            done, trained = self.certify(teacher, encoder)
            certificate = done.settled.certificate
            reason = certificate.reason
            certified = certificate.threshold is not None
            if certified and not self.is_better(certificate.coverage, in_service):
                reason = "too-little" if in_service is None else "no-better"
            version = None
            if reason == "certified":
                facts = self.facts(done, teacher, model, config, trained)
                version = self.keep(facts, done, store, encoder, model, key)
            outcome = Outcome(
                reason=reason,
                version=version,
                rows=len(known.ids),
                recorded=teacher.from_records,
                asked=teacher.bought,
                cost=teacher.cost,
                coverage=certificate.coverage if certified else 0.0,
                seconds=time.monotonic() - began,
            )
            run.finish(outcome.to_dict())
        return outcome

    def certify(self, teacher: Teacher, encoder: Encoder) -> tuple[CertifiedStudent, int]:
        """The certified student, and how many answers its training bought."""
        known, plan, population = self.known, self.plan, self.known.population
        horizon = plan.horizon or len(known.ids)
        answered = [int(i) for i in population.train_ids if known.recorded.get(int(i)) is not None]
        if len(answered) > MOST_ANSWERS:
            rng = np.random.default_rng(plan.seed)
            answered = sorted(rng.choice(answered, MOST_ANSWERS, replace=False).tolist())
        with self.timed("ask"):
            teacher.ask(answered)
            if not known.kind.closed:
                more = teach_evenly(
                    population,
                    teacher,
                    answered,
                    limit=max(EVEN_BATCH - len(answered), 0),
                    seed=plan.seed,
                    progress=self.progress,
                )
                answered = [*answered, *more]
            elif len(answered) < min(FIRST_BATCH, len(population.train_ids)):
                more, _ = teach(
                    population,
                    known.task,
                    teacher,
                    encoder,
                    plan.agreement,
                    limit=min(MOST_ANSWERS, teacher.affordable(len(population.train_ids))),
                    horizon=horizon,
                    seed=plan.seed,
                    progress=self.progress,
                )
                answered = list(dict.fromkeys([*answered, *more]))
        trained = teacher.bought
        done = certify_small(
            plan,
            known.task,
            population,
            teacher,
            encoder,
            answered,
            name=self.definition.name,
            horizon=horizon,
            affordable=lambda: (
                len(population.calibrate)
                if plan.budget == Budget()
                else teacher.affordable(len(population.calibrate))
            ),
            timed=self.timed,
            progress=self.progress,
        )
        return done, trained

    def is_better(self, coverage: float, in_service: Version | None) -> bool:
        """Whether a new version serves clearly more of the calibration rows than the one in service."""
        if in_service is None:
            return coverage >= LEAST
        population = self.known.population
        try:
            old = OffloadedModel.load(in_service.artifact)
        except ArtifactError:
            return True
        if old.threshold is None:
            return True
        _, scores = answer_all(old.small, population, self.progress)
        rows = population.unique_of[population.calibrate]
        return coverage >= float((scores[rows] >= old.threshold).mean()) + BETTER

    def facts(
        self, done: CertifiedStudent, teacher: Teacher, model: Model, config: Config, trained: int
    ) -> Facts:
        """What the report tells."""
        return Facts(
            name=self.definition.name,
            folder="",
            task=self.known.task,
            population=self.known.population,
            teacher=teacher,
            large=model.name,
            local=False,
            price=config.prices.get(model.name),
            rounds=(),
            race=done.entries,
            settled=done.settled,
            answers=done.answers,
            scores=done.scores,
            asked={
                "discover": 0,
                "train": trained,
                "calibrate": teacher.bought - trained,
                "evaluate": 0,
            },
            gold="",
            evaluated=np.zeros(0, np.int64),
            seconds=self.seconds,
            command="",
        )

    def keep(
        self,
        facts: Facts,
        done: CertifiedStudent,
        store: Store,
        encoder: Encoder,
        model: Model,
        key: str,
    ) -> Version:
        """Write the artifact, then the version that names it."""
        known, name = self.known, self.definition.name
        folder = (self.settings.folder / name / key[:12]).resolve()
        folder.parent.mkdir(parents=True, exist_ok=True)
        result = result_of(facts)
        plain = result.to_dict()
        population = known.population
        step = max(1, len(population.inputs) // REFERENCE)
        texts = list(population.inputs.texts[::step])[:REFERENCE]
        with self.timed("package"):
            pack(
                folder,
                name=name,
                task=known.task,
                small=done.small,
                certificate=done.settled.certificate,
                learned_from={
                    "large": self.definition.large or model.name,
                    "data": population.fingerprint,
                    "rows": len(known.ids),
                    "answers": {**facts.asked, "recorded": facts.teacher.from_records},
                },
                quality={"saving": plain["saving"], "gold": None},
                result=plain,
                report=render_report(result),
                tensors={"reference": {"vectors": encoder.encode(texts).astype(np.float32)}},
            )
        card = plain["certificate"]
        used = set(facts.teacher.answers)
        learned = [
            request_id
            for request_id, unique in zip(known.ids, population.unique_of, strict=True)
            if int(unique) in used
        ]
        return store.versions.add(
            name,
            key,
            str(folder),
            {k: v for k, v in card.items() if k != "curve"},
            {"agree": self.settings.agree, "on": self.settings.on, "delta": self.settings.delta},
            learned,
        )

    def _key(self, since: float) -> str:
        known = self.known
        settings: Mapping[str, Any] = {
            "agree": self.settings.agree,
            "on": self.settings.on,
            "delta": self.settings.delta,
            "students": list(self.settings.students or ()),
            "encoder": self.settings.encoder,
            "seed": self.settings.seed,
        }
        labels: Sequence[Any] = sorted(known.recorded.items())
        parts = [known.task.to_dict(), known.population.fingerprint, labels, since, settings]
        return hashlib.sha256(canonical_json(parts).encode("utf-8", "surrogatepass")).hexdigest()
