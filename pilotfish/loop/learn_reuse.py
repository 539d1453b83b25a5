"""Learn a free-text task: which recorded answers may be given again, with a certificate.

The recorded requests are split by time, as they will be used. The oldest are the index; on the next ones
the score is fitted (their nearest entry's answer against their own, as the judge sees it); with these the
index is closed, and the latest rows calibrate: each is looked up in the very index that will serve, so
it is to that index what a request of tomorrow is, and none of them is in it. (Leaving each row out of one
index in turn would test an index that never serves, with pairs that share their entries.)

The promise is about the reused answers: of these, at least the target share would be judged equivalent
to what the large model says to the question itself, with probability 1 - delta. Of all answers it would
be an empty promise where few are reused.

A row that was answered small has no answer of the large model's own; where its verdict is needed, that is
bought first. All calls are kept, so a run that was killed pays nothing twice.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.config import Config
from pilotfish.errors import ArtifactError, InputError
from pilotfish.infer.certify import Certificate
from pilotfish.loop.certified_reuse import certify_reuse, fewest_of
from pilotfish.loop.equivalence import EquivalenceJudge
from pilotfish.loop.estimate import disagreement_curve, servable
from pilotfish.loop.forgetting import withdraw
from pilotfish.loop.learn import BETTER, LEAST, REFERENCE, LearnSettings, Outcome
from pilotfish.loop.learned import as_asked, load_version
from pilotfish.loop.lessons import Definition
from pilotfish.loop.likeness import Likeness
from pilotfish.loop.reuse import ReuseModel
from pilotfish.loop.reuse_rows import MOST_ENTRIES, Asked, build, own_rows
from pilotfish.loop.reuse_scope import scope_of
from pilotfish.loop.verdicts import Verdicts
from pilotfish.models.cached import CachedModel
from pilotfish.models.load import load_encoder
from pilotfish.models.protocols import Encoder, Model
from pilotfish.models.redaction import find_redactor
from pilotfish.progress import Progress
from pilotfish.records import Request, canonical_json
from pilotfish.store.artifacts import Card, save_artifact
from pilotfish.store.feedback import Check
from pilotfish.store.store import Store
from pilotfish.store.traffic import Recorded
from pilotfish.store.versions import Version

Floats = NDArray[np.float64]

CALIBRATING = 0.35  # of the rows, the latest; at most
MOST_CALIBRATING = 3_000
FITTING = 0.15  # of the rows, those before; at most
MOST_FITTING = 2_000
FIT_PAIRS = 200  # judged to fit the score: eight coefficients with a prior
FIT_SHARE = 0.4  # of a budget


@dataclass(frozen=True)
class TextTask:
    """What a text task is learned from and with.

    Attributes:
        definition: The task.
        marks: Its privacy marks.
        store: Where calls and the version go.
        large: The large model.
        judge: Who compares answers.
        settings: What is promised.
        config: Declares the encoder.
        most: Requests at most, the latest.
    """

    definition: Definition
    marks: Mapping[str, Any]
    store: Store
    large: Model
    judge: Model
    settings: LearnSettings
    config: Config
    most: int = MOST_ENTRIES


def learn_text(
    task: TextTask,
    traffic: Iterable[Recorded],
    *,
    checks: Mapping[str, Check] | None = None,
    since: float = 0.0,
    in_service: Version | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Learn which recorded answers may be reused.

    Args:
        task: What, and with what.
        traffic: Recorded requests, oldest first; others than the task's are passed over.
        checks: Answers of the large model to requests that a version had answered, by request id.
        since: When the stretch of traffic begins, 0 for all there is.
        in_service: What the new version must beat.
        progress: Watches.

    Raises:
        InputError: There are too few requests whose answers may be reused.
        ModelError: The large model or the judge cannot be reached; what was answered is kept.
    """
    rows = own_rows(task.definition, traffic, checks or {}, scope_of(task.marks))
    rows = rows[-task.most :]
    return _Learning(task, rows, progress or Progress(), since).run(in_service)


class _Learning:
    """One version of a text task being made."""

    def __init__(
        self, task: TextTask, rows: Sequence[Asked], progress: Progress, since: float
    ) -> None:
        self.task = task
        self.settings = task.settings
        self.progress = progress
        self.rows = rows
        late = min(int(CALIBRATING * len(rows)), MOST_CALIBRATING)
        middle = min(int(FITTING * len(rows)), MOST_FITTING)
        cut = len(rows) - late
        self.first, self.fit_rows = rows[: cut - middle], rows[cut - middle : cut]
        self.calibrating = rows[cut:]
        self.fewest = fewest_of(task.settings.agree, task.settings.delta)
        self.key = self._key(since)
        self.since = since

    def run(self, in_service: Version | None) -> Outcome:
        """Fit, certify, and keep the version if it is better."""
        began = time.monotonic()
        task, settings = self.task, self.settings
        self._check_enough()
        name = task.definition.name
        with task.store.run("learn", f"{name} {self.key}", {"task": name}) as run:
            cached = CachedModel(task.large, task.store, task=name, run=run.id)
            if self.since:
                cached.identity = f"{cached.identity} since {self.since:.3f}"
            redact = find_redactor(str(task.marks.get("redact") or ""))
            judge = EquivalenceJudge(task.judge, task.store, name, redact)
            concurrency = int(getattr(task.judge, "concurrency", 16))
            self.verdicts = Verdicts(
                cached, judge, task.marks, budget=settings.budget, concurrency=concurrency
            )
            encoder = load_encoder(settings.encoder, task.config)
            small, certificate = self.certify(encoder)
            certified = certificate.threshold is not None
            reason = certificate.reason
            if certified and not self.is_better(certificate.coverage, in_service):
                reason = "too-little" if in_service is None else "no-better"
            version = None
            if reason == "certified":
                version = self.keep(small, certificate, encoder)
                reason = reason if version is not None else "forgotten"
            outcome = Outcome(
                reason=reason,
                version=version,
                rows=len(self.rows),
                recorded=sum(row.answer is not None for row in self.rows),
                asked=self.verdicts.calls,
                cost=self.verdicts.cost,
                coverage=certificate.coverage if certified else 0.0,
                seconds=time.monotonic() - began,
            )
            run.finish(outcome.to_dict())
        return outcome

    def _check_enough(self) -> None:
        name = self.task.definition.name
        able = [row for row in self.calibrating if row.question.group is not None]
        if len(self.calibrating) >= self.fewest > len(able):
            scope = scope_of(self.task.marks)
            raise InputError(
                f"The answers of the task {name!r} may be reused with --reuse {scope}, and only "
                f"{len(able)} of the {len(self.calibrating)} latest requests tell enough for that. If "
                f"its answers may be given to everybody: pilotfish tasks {name} --reuse all",
            )
        if len(able) < self.fewest:
            raise InputError(
                f"The task {name!r} has {len(self.rows)} recorded requests, too few to certify "
                f"agree={self.settings.agree:g} at delta={self.settings.delta:g}.",
                remedy=f"Wait until there are {int(self.fewest / CALIBRATING) + 20}, or promise less.",
            )

    def certify(self, encoder: Encoder) -> tuple[ReuseModel, Certificate]:
        """The model that would serve, and what may be promised of it."""
        early = build(self.task.definition, self.first, encoder, scope_of(self.task.marks))
        with self.progress.stage("Judging pairs of answers", None):
            likeness, curve, guess = self.fit(early)
        early = replace_likeness(early, likeness)
        reference = self.scores(early, self.fit_rows)
        scope, entries = scope_of(self.task.marks), [*self.first, *self.fit_rows]
        small = build(self.task.definition, entries, encoder, scope, early)
        found = small.match([row.question for row in self.calibrating])
        scores = np.clip([match.score for match in found], 0.0, 1.0)

        def ask(chosen: Sequence[int]) -> list[bool]:
            return self.verdicts.of([(self.calibrating[i], small, found[i].entry) for i in chosen])

        certificate = certify_reuse(
            scores,
            reference,
            ask,
            agree=self.settings.agree,
            delta=self.settings.delta,
            expected=curve,
            servable=guess,
            horizon=self.horizon,
            affordable=self.verdicts.affordable(len(scores)),
            seed=self.settings.seed,
            progress=self.progress,
        )
        return small, certificate

    @property
    def horizon(self) -> int:
        """Requests that will profit."""
        return self.settings.horizon or len(self.rows)

    def scores(self, small: ReuseModel, rows: Sequence[Asked]) -> Floats:
        """Scores ``[n]`` in [0, 1]; 0 where nothing can be reused."""
        found = small.match([row.question for row in rows])
        return np.clip([match.score for match in found], 0.0, 1.0)

    def fit(self, early: ReuseModel) -> tuple[Likeness, Any, float]:
        """The score, how often it errs, and the share that it might serve; from judged pairs."""
        found = early.match([row.question for row in self.fit_rows])
        usable = [i for i, match in enumerate(found) if match.entry >= 0]
        usable.sort(key=lambda i: found[i].score)
        count = min(FIT_PAIRS, len(usable), int(FIT_SHARE * self.verdicts.affordable(10**9)))
        chosen = [usable[int(at)] for at in np.linspace(0, len(usable) - 1, count)]
        said = self.verdicts.of([(self.fit_rows[i], early, found[i].entry) for i in chosen])
        pairs = [(found[i].features, yes) for i, yes in zip(chosen, said, strict=True)]
        near = [(features, yes) for features, yes in pairs if features]
        likeness = early.likeness
        if near:
            rows = np.array([features for features, _ in near])
            likeness = Likeness.fit(rows, np.array([yes for _, yes in near], bool))
        fitted = [
            float(likeness.score(np.array([found[i].features]))[0]) if found[i].features else 1.0
            for i in chosen
        ]
        scores, right = np.array(fitted), np.array(said, bool)
        curve = disagreement_curve(scores, right, np.ones(len(scores)))
        guess = servable(
            scores, right, np.ones(len(scores)), target=self.settings.agree, on="served"
        )
        return likeness, curve, guess * len(usable) / max(len(self.fit_rows), 1)

    # What is kept.

    def is_better(self, coverage: float, in_service: Version | None) -> bool:
        """Whether it serves clearly more of the calibration rows than the version in service."""
        if in_service is None:
            return coverage >= LEAST
        try:
            old = load_version(in_service)
        except ArtifactError:
            return True
        if not isinstance(old.small, ReuseModel):
            return True
        asked: list[Request] = []
        for row in self.calibrating:
            assert row.row.request is not None
            values = row.question.values
            asked.append(as_asked(row.row.request, values, self.task.marks, row.row.caller))
        _, scores = old.small.answer_requests(asked)
        return coverage >= float((scores >= old.threshold).mean()) + BETTER

    def keep(self, small: ReuseModel, certificate: Certificate, encoder: Encoder) -> Version | None:
        """Write the artifact, then the version; None if one of its sources was forgotten meanwhile."""
        task, name = self.task, self.task.definition.name
        folder = (self.settings.folder / name / self.key[:12]).resolve()
        folder.parent.mkdir(parents=True, exist_ok=True)
        settings, arrays, _ = small.files()
        promise = asdict(certificate)
        figures = {
            "entries": len(small.ids),
            "calibrated_on": certificate.draws,
            "judged": self.verdicts.judged,
            "bought": self.verdicts.bought,
            "cost": self.verdicts.cost,
            "judge": task.judge.name,
            "scope": small.scope,
            "likeness": small.likeness.to_dict(),
        }
        step = max(1, len(small.texts) // REFERENCE)
        vectors = encoder.encode(small.texts[::step][:REFERENCE]).astype(np.float32)
        card = Card.new(
            name=name,
            kind="offload",
            task=small.task.to_dict(),
            learned_from={
                "large": task.definition.large or task.large.name,
                "data": self.key,
                "rows": len(self.rows),
                "answers": {"bought": self.verdicts.bought, "judged": self.verdicts.judged},
            },
            quality={key: figures[key] for key in ("entries", "scope", "judge")},
            certificate=promise,
            extra={"student": small.technique},
        )
        save_artifact(
            folder,
            card,
            tensors={"student": arrays, "reference": {"vectors": vectors}},
            json_files={"student.json": settings, "result.json": figures},
        )
        learned = list(dict.fromkeys([*small.ids, *self.verdicts.about]))
        version = task.store.versions.add(
            name,
            self.key,
            str(folder),
            {key: value for key, value in promise.items() if key != "curve"},
            {
                "agree": self.settings.agree,
                "on": "served",
                "delta": self.settings.delta,
                "kind": "text",
                "judge": self.settings.judge,
            },
            learned,
        )
        if len(task.store.traffic.known(learned)) < len(learned):
            withdraw(task.store, version, "forgotten while it was learned")
            return None
        return version

    def _key(self, since: float) -> str:
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(canonical_json([row.row.id, row.answer]).encode("utf-8", "surrogatepass"))
        settings = self.settings
        parts = [
            digest.hexdigest(), since, scope_of(self.task.marks), self.task.judge.name,
            settings.agree, settings.delta, settings.encoder, settings.seed,
        ]  # fmt: skip
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def replace_likeness(small: ReuseModel, likeness: Likeness) -> ReuseModel:
    """The same entries under another score."""
    return ReuseModel(
        small.task, small.name, scope=small.scope, embedding=small.embedding, nearest=small.nearest,
        questions=small.questions, answers=small.answers, ids=small.ids, likeness=likeness,
        rarity=small.rarity,
    )  # fmt: skip
