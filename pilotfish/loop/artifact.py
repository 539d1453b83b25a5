"""The artifact of an offload, and the model that it becomes when it is loaded.

The folder holds the card, the student's arrays (safetensors) and settings (JSON), the result and the
report. Loading it reads numbers and text only; nothing in it can run. The large model is named, not
stored, and is started the first time an answer is not certain enough.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.config import Config
from pilotfish.distill.student import Student, load_student, student_files
from pilotfish.errors import ArtifactError, UnknownName
from pilotfish.infer.cascade import Cascade
from pilotfish.infer.certify import Certificate
from pilotfish.infer.decide import decide
from pilotfish.loop.as_learned import AsLearned
from pilotfish.loop.rows import Template
from pilotfish.loop.small import SMALL, Files, OfStudent, Small
from pilotfish.loop.task import Task
from pilotfish.models.calls import closing, stream
from pilotfish.models.load import load_encoder, load_model
from pilotfish.models.protocols import Model
from pilotfish.records import Chunk, Completion, Inputs, Request
from pilotfish.store.artifacts import Artifact, Card, load_artifact, save_artifact

KIND = "offload"


class StudentModel(OfStudent[Student]):
    """A student as a model: it reads its input out of the rendered prompt.

    Args:
        student: Gives class probabilities.
        task: Says how probabilities become an answer.
        name: The name its answers carry.
    """

    @classmethod
    def restore(cls, artifact: Artifact, task: Task, name: str) -> StudentModel:
        """The student of an artifact; see :meth:`pilotfish.loop.small.Small.restore`."""
        return cls(load_student(artifact, load_encoder), task, name)

    def files(self) -> Files:
        """What to store of it."""
        return student_files(self.student)

    def answer(self, inputs: Inputs) -> tuple[list[str], NDArray[np.float32]]:
        """Answers and scores of many inputs at once."""
        proba = self.student.predict_proba(inputs)
        return decide(proba, self.student.classes, self.task.kind, tolerance=self.task.tolerance)

    async def complete(self, request: Request) -> Completion:
        """Answer one request; a prompt that is not this task's gets a score below any threshold."""
        fields: Mapping[str, Any] | None = request.tags.get("fields")
        if fields is None:
            fields = self.template.match(request.prompt)
        if fields is None:
            return Completion("", self.name, cost=0.0, extra={"score": -1.0, "label": None})
        inputs = Inputs([self.template.input_text(fields)], {k: [v] for k, v in fields.items()})
        proba = self.student.predict_proba(inputs)
        classes = self.student.classes
        answers, scores = decide(proba, classes, self.task.kind, tolerance=self.task.tolerance)
        return Completion(
            answers[0],
            self.name,
            cost=0.0,
            label_probs=dict(zip(classes, map(float, proba[0]), strict=True)),
            extra={"score": float(scores[0]), "label": answers[0]},
        )


class Deferred:
    """A model that is started when it is first asked, in a thread: a file of gigabytes takes seconds.

    Args:
        name: Its name.
        start: Builds it.
    """

    def __init__(self, name: str, start: Callable[[], Model]) -> None:
        self.name = name
        self._start = start
        self._model: Model | None = None
        self._lock = threading.Lock()

    @property
    def model(self) -> Model:
        """The model itself, started if need be."""
        with self._lock:
            if self._model is None:
                self._model = self._start()
            return self._model

    async def complete(self, request: Request) -> Completion:
        """Ask the model."""
        return await (await self._started()).complete(request)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Stream the model's answer."""
        async with closing(stream(await self._started(), request)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _started(self) -> Model:
        started = self._model
        return await asyncio.to_thread(lambda: self.model) if started is None else started


class OffloadedModel:
    """A certified cascade, loaded from an artifact: small where it is sure, large elsewhere.

    Args:
        artifact: The verified folder.
        large: Spec of the large model; default the one that the artifact was certified against.
        config: Where the large model is looked up.

    Raises:
        ArtifactError: It is no offload artifact, or its encoder is another one here.
    """

    def __init__(
        self, artifact: Artifact, *, large: str | None = None, config: Config | None = None
    ) -> None:
        card = artifact.card
        if card.kind != KIND:
            raise ArtifactError(
                f"Got an artifact of kind {card.kind!r}, but expected {KIND!r}: {artifact.folder}."
            )
        self.card = card
        self.name = card.name
        self.task = Task.from_dict(card.task)
        self.template = Template(self.task.prompt)
        self.certificate = Certificate.from_json(json.dumps(card.certificate))
        self.threshold = self.certificate.threshold
        self.large = large or str(card.learned_from["large"])
        answering = SMALL.load(self.task.kind)
        self.small: Small = answering.restore(
            artifact, self.task, f"{card.name}/{card.extra['student']}"
        )
        self.teacher = Deferred(self.large, lambda: load_model(self.large, config))
        escalated = Deferred(self.large, lambda: AsLearned(self.teacher.model, self.task))
        self.cascade = Cascade([self.small, escalated], [self.threshold], name=self.name)

    @classmethod
    def load(
        cls, folder: str | Path, *, large: str | None = None, config: Config | None = None
    ) -> OffloadedModel:
        """Load an artifact's folder; every file is checked against the card first."""
        return cls(load_artifact(Path(folder)), large=large, config=config)

    @classmethod
    def from_spec(cls, rest: str, settings: Mapping[str, Any], config: Config) -> OffloadedModel:
        """Build from ``artifact:FOLDER`` with the optional setting ``large``.

        Raises:
            UnknownName: Another setting.
        """
        known = ("large", "name")
        for given in settings:
            if given not in known:
                raise UnknownName("artifact setting", given, known)
        return cls.load(rest, large=settings.get("large"), config=config)

    def start_with(self, load: Callable[[str], Model]) -> None:
        """Take the large model from where others take theirs, when it is needed."""
        self.teacher = Deferred(self.large, lambda: load(self.large))

    def answer(self, inputs: Inputs) -> tuple[list[str], NDArray[np.float32], NDArray[np.bool_]]:
        """Small answers, scores, and which of them the certificate lets through."""
        answers, scores = self.small.answer(inputs)
        if self.threshold is None:
            return answers, scores, np.zeros(len(answers), bool)
        return answers, scores, scores >= self.threshold

    async def complete(self, request: Request) -> Completion:
        """Answer small where certified, else large; ``decisions`` says which and why."""
        return await self.cascade.complete(request)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Stream the answer."""
        async with closing(self.cascade.stream(request)) as chunks:
            async for chunk in chunks:
                yield chunk


def pack(
    folder: Path,
    *,
    name: str,
    task: Task,
    small: Small,
    certificate: Certificate,
    learned_from: Mapping[str, Any],
    quality: Mapping[str, Any],
    result: Mapping[str, Any],
    report: str,
    tensors: Mapping[str, Mapping[str, NDArray[Any]]] | None = None,
) -> Artifact:
    """Write the artifact; an older one of ours at that place is replaced in one step.

    ``tensors`` are further arrays to keep with it, by file name without its suffix.
    """
    settings, arrays, files = small.files()
    card = Card.new(
        name=name,
        kind=KIND,
        task=task.to_dict(),
        learned_from=dict(learned_from),
        quality=dict(quality),
        certificate=asdict(certificate),
        extra={"student": small.technique},
    )
    return save_artifact(
        folder,
        card,
        tensors={"student": arrays, **(tensors or {})},
        json_files={"student.json": settings, "result.json": dict(result)},
        files={"report.html": report.encode("utf-8"), **files},
    )
