"""Extraction tasks: a student that answers objects of one schema, learned and restored.

What is different from labels is only how answers are made and compared: an object counts as right when
every field is what the large model would have said. The rest of the loop is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pilotfish.distill.calibrate import expected_calibration_error
from pilotfish.distill.extraction import NAME, Extraction, Objects, fit_extraction
from pilotfish.distill.objects import asked_schema, is_schema
from pilotfish.errors import InputError
from pilotfish.loop.certified import Candidate
from pilotfish.loop.estimate import servable
from pilotfish.loop.plan import Plan
from pilotfish.loop.population import Population
from pilotfish.loop.race import speed
from pilotfish.loop.result import RaceEntry
from pilotfish.loop.small import Files, OfStudent
from pilotfish.loop.task import Task
from pilotfish.loop.teacher import Teacher
from pilotfish.models.load import load_encoder
from pilotfish.models.protocols import Encoder
from pilotfish.progress import Progress
from pilotfish.records import Completion, Inputs, Request, canonical_json
from pilotfish.store.artifacts import Artifact

Scores = NDArray[np.float32]

NOT_MINE = -1.0  # below any threshold
OWN_SCHEMA = 0.9  # share of the requests that must ask for one schema, for it to be the task's


def asks_for(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The request parameters that ask for a schema; none without one."""
    if schema is None:
        return {}
    named = {"name": "answer", "schema": dict(schema)}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


class ExtractionModel(OfStudent[Extraction]):
    """An extraction student as a model.

    Args:
        student: Gives objects and scores.
        task: What it answers.
        name: The name its answers carry.
    """

    @classmethod
    def restore(cls, artifact: Artifact, task: Task, name: str) -> ExtractionModel:
        """The student of an artifact; see :meth:`pilotfish.loop.small.Small.restore`."""
        card, arrays = artifact.json("student"), artifact.tensors("student")
        return cls(Extraction.restore(card, arrays, load_encoder), task, name)

    def files(self) -> Files:
        """What to store of it."""
        return self.student.files()

    def answer(self, inputs: Inputs) -> tuple[list[str], Scores]:
        """Answers and scores of many inputs at once."""
        return self.student.predict(inputs)

    def answer_requests(self, requests: Sequence[Request]) -> tuple[list[str], Scores]:
        """The same of requests; one that asks for another schema gets a score below any threshold."""
        fields = [self._fields(request) for request in requests]
        texts = ["" if one is None else self.template.input_text(one) for one in fields]
        answers, scores = self.student.predict(texts)
        # 0 is what the schema that is asked for does not allow: never served, whatever the threshold.
        scores[np.array([one is None for one in fields], bool) | (scores <= 0)] = NOT_MINE
        return answers, scores

    async def complete(self, request: Request) -> Completion:
        """Answer one request; one that is not this task's gets a score below any threshold."""
        answers, scores = self.answer_requests([request])
        return Completion(answers[0], self.name, cost=0.0, extra={"score": float(scores[0])})

    def _fields(self, request: Request) -> Mapping[str, Any] | None:
        wanted = asked_schema(request.params)
        if wanted is not None and (
            self.student.asked is None
            or canonical_json(wanted) != canonical_json(dict(self.student.asked))
        ):
            return None
        fields: Mapping[str, Any] | None = request.tags.get("fields")
        return self.template.match(request.prompt) if fields is None else fields


def schema_asked(requests: Sequence[Request]) -> dict[str, Any] | None:
    """The JSON schema that nearly all requests ask for; None where there is none, or it is no schema."""
    schemas = [asked_schema(request.params) for request in requests]
    texts = [None if schema is None else canonical_json(schema) for schema in schemas]
    usual = max(set(texts), key=texts.count) if texts else None
    if usual is None or texts.count(usual) < OWN_SCHEMA * len(texts):
        return None
    schema = schemas[texts.index(usual)] or {}
    return schema if is_schema(schema) else None


def objects_from(
    population: Population, teacher: Teacher, ids: Sequence[int]
) -> tuple[Inputs, Objects, NDArray[np.float64]]:
    """Inputs, recorded objects and weights of the training rows that were answered with an object."""
    parsed = [i for i in ids if teacher.answers.get(i) is not None]
    objects = Objects.of([str(teacher.answers[i]) for i in parsed])
    return population.inputs.take(parsed), objects, population.train_weights[parsed]


def learn_fields(
    plan: Plan,
    task: Task,
    population: Population,
    teacher: Teacher,
    encoder: Encoder,
    ids: list[int],
    *,
    name: str,
    progress: Progress,
) -> Candidate:
    """Fit the student, field by field, on the answers of ``ids``.

    Arguments as of :func:`pilotfish.loop.certified.race_students`.

    Raises:
        InputError: A field cannot be learned; the message says which and why.
    """
    inputs, objects, weights = objects_from(population, teacher, ids)
    asked = schema_asked([teacher.requests(i) for i in ids])
    began = perf_counter()
    # Small matrices: more threads make these fits slower.
    with progress.stage("Learning each field", None), threadpool_limits(limits=1):
        fitted = fit_extraction(
            inputs, objects, weights=weights, encoder=encoder, asked=asked, seed=plan.seed
        )
    seconds = perf_counter() - began
    scores, agreed = fitted.scores, fitted.agreed
    target = plan.agreement
    share = servable(scores, agreed, weights, target=target.target, on=target.on)
    right = np.clip(scores, 1e-7, 1 - 1e-7)
    per_second, p50_ms = speed(fitted.student.predict, inputs)
    entry = RaceEntry(
        student=NAME,
        agreement=float(np.average(agreed, weights=weights)),
        coverage=share,
        log_loss=float(-np.log(np.where(agreed, right, 1 - right)).mean()),
        ece=expected_calibration_error(scores, agreed),
        fit_seconds=seconds,
        per_second=per_second,
        p50_ms=p50_ms,
        chosen=True,
    )
    small = ExtractionModel(fitted.student, task, name)
    return Candidate(small, [entry], scores, agreed, weights, share)


def try_extraction(
    texts: Sequence[str], answers: Sequence[str], encoder: Encoder, *, target: float = 0.95
) -> tuple[float | None, str]:
    """The share that a student could answer, cross-fitted on recorded answers; or why there is none.

    Args:
        texts: ``n`` different inputs.
        answers: What the large model said.
        encoder: For the classifiers.
        target: Agreement in (0, 1).

    Returns:
        The share in [0, 1] and "", or None and the reason.
    """
    try:
        with threadpool_limits(limits=1):
            fitted = fit_extraction(Inputs(texts), Objects.of(answers), encoder=encoder)
    except InputError as error:
        return None, error.message
    ones = np.ones(len(texts))
    return servable(fitted.scores, fitted.agreed, ones, target=target), ""
