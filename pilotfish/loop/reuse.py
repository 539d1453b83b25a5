"""Answer reuse: a free-text question gets the recorded answer of the nearest recorded question.

The third kind of small model, for tasks whose answers are texts: it writes nothing, it remembers. A
question is read without its template; the nearest recorded questions of those whose answers it may be
given (:mod:`pilotfish.loop.reuse_scope`) are scored by :mod:`pilotfish.loop.likeness`, and the best one's
answer is given if its score passes the certified threshold. A question that was recorded word for word
(but for case, spaces and closing marks) scores 1 and meets the same threshold: what the large model says
differently each time, or differently each day, is not certified either.

Below the threshold nothing is ever given: the nearest answer to another question is no guess.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ArtifactError
from pilotfish.loop.likeness import (
    UNSUPPORTED,
    Likeness,
    Rarity,
    features,
    normalised,
    same_words,
)
from pilotfish.loop.nearest import Floats, Nearest
from pilotfish.loop.reuse_scope import allows, group_of
from pilotfish.loop.small import Files
from pilotfish.loop.task import Task
from pilotfish.loop.template import Template
from pilotfish.models.load import load_encoder
from pilotfish.models.protocols import Encoder
from pilotfish.records import Completion, Inputs, Request
from pilotfish.store.artifacts import Artifact

FORMAT = 1
CANDIDATES = 5  # near questions that are compared feature by feature
SEPARATE_FIELDS = 4  # templates with more places are embedded as one text
WIDTH = 0.1  # in cosine: how fast a farther question's answer loses its say
NOT_ASKED = -1.0  # the score where there is nothing to reuse


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, as far as reuse looks at it.

    Attributes:
        values: Of the template's places.
        group: Whose answers it may be given; None: nobody's.
        why: Why it is None.
    """

    values: Mapping[str, Any]
    group: str | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """The recorded question that fits best.

    Attributes:
        entry: Its number.
        score: In [0, 1]; -1 where there is none.
        features: Of the pair; empty where the words are the same or there is none.
        why: Why there is none.
    """

    entry: int
    score: float
    features: tuple[float, ...] = ()
    why: str = ""


class Embedding:
    """Questions to unit rows: each place of the template on its own, weighted by what it tells.

    Args:
        encoder: Texts to vectors.
        template: Of the task.
        weights: Of its places, non-negative; their sum is 1.
    """

    def __init__(
        self, encoder: Encoder, template: Template, weights: Sequence[float] | None = None
    ) -> None:
        self.encoder = encoder
        self.template = template
        self.joined = not 1 < len(template.fields) <= SEPARATE_FIELDS
        count = 1 if self.joined else len(template.fields)
        self.weights = tuple(weights) if weights else (1.0 / count,) * count

    def __call__(self, questions: Sequence[Mapping[str, Any]]) -> Floats:
        """Unit rows ``[n, dim]``, or ``[n, places * dim]``; their product is the weighted cosine."""
        if self.joined:
            return self.encoder.encode([self.template.input_text(v) for v in questions])
        parts = [
            np.sqrt(np.float32(weight)) * self.encoder.encode([str(v[name]) for v in questions])
            for name, weight in zip(self.template.fields, self.weights, strict=True)
        ]
        return np.ascontiguousarray(np.concatenate(parts, axis=1), np.float32)


class ReuseModel:
    """Gives recorded answers to questions like the recorded ones.

    Args:
        task: Its template.
        name: The name that its answers carry.
        scope: Whose answers may be given to whom.
        embedding: Of questions.
        nearest: The entries' vectors by group.
        questions: The entries' values ``[n]``.
        answers: Their answers ``[n]``.
        ids: The requests that they are from ``[n]``.
        likeness: Scores a pair.
        rarity: Of words; default counted from the questions.
    """

    technique = "reuse"

    def __init__(
        self,
        task: Task,
        name: str,
        *,
        scope: str,
        embedding: Embedding,
        nearest: Nearest,
        questions: Sequence[Mapping[str, Any]],
        answers: Sequence[str],
        ids: Sequence[str],
        likeness: Likeness,
        rarity: Rarity | None = None,
    ) -> None:
        self.task = task
        self.name = name
        self.template = embedding.template
        self.scope = scope
        self.embedding = embedding
        self.nearest = nearest
        self.questions = questions
        self.answers = answers
        self.ids = ids
        self.likeness = likeness
        self.texts = [self.template.input_text(values) for values in questions]
        self.rarity = rarity or Rarity.of(self.texts)

    @cached_property
    def _same(self) -> dict[tuple[str, str], int]:
        """Group and words to the entry."""
        found = {}
        for at, name in enumerate(self.nearest.groups):
            for entry in range(int(self.nearest.starts[at]), int(self.nearest.starts[at + 1])):
                found[name, normalised(self.texts[entry])] = entry
        return found

    def sources(self, answer: str) -> tuple[str, ...]:
        """The requests that an answer is from."""
        return tuple(self._sources.get(answer, ()))

    @cached_property
    def _sources(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for answer, request_id in zip(self.answers, self.ids, strict=True):
            found.setdefault(answer, []).append(request_id)
        return found

    @cached_property
    def known(self) -> frozenset[str]:
        """The requests whose answers it holds."""
        return frozenset(self.ids)

    def renamed(self, name: str) -> Self:
        """The same under another name."""
        return type(self)(
            self.task, name, scope=self.scope, embedding=self.embedding, nearest=self.nearest,
            questions=self.questions, answers=self.answers, ids=self.ids, likeness=self.likeness,
            rarity=self.rarity,
        )  # fmt: skip

    def question(self, request: Request) -> Question:
        """What a request asks.

        ``tags`` may hold ``fields`` (the values of the template's places), ``caller`` (the API key's id)
        and ``reuse`` (the task's scope now; a narrower one than that of this version stops it).
        """
        values = request.tags.get("fields")
        if values is None:
            values = self.template.match(request.prompt)
        if values is None:
            return Question({}, None, "no-task")
        scope = str(request.tags.get("reuse") or self.scope)
        if not allows(scope, self.scope):
            return Question(values, None, "not-shared")
        return Question(
            values, *group_of(request, str(request.tags.get("caller") or ""), self.scope)
        )

    def match(self, questions: Sequence[Question]) -> list[Match]:
        """The best entry for each question."""
        found: list[Match | None] = [self._at_once(question) for question in questions]
        searched: dict[str, list[int]] = {}
        for i, (question, match) in enumerate(zip(questions, found, strict=True)):
            if match is None:
                assert question.group is not None
                searched.setdefault(question.group, []).append(i)
        for group, at in searched.items():
            vectors = self.embedding([questions[i].values for i in at])
            rows, cosines = self.nearest.search(vectors, self.nearest.span(group), CANDIDATES)
            for i, near, similar in zip(at, rows, cosines, strict=True):
                found[i] = self._best(self.template.input_text(questions[i].values), near, similar)
        return [match for match in found if match is not None]

    def _at_once(self, question: Question) -> Match | None:
        """What needs no search."""
        if question.group is None:
            return Match(-1, NOT_ASKED, why=question.why)
        start, stop = self.nearest.span(question.group)
        if start == stop:
            return Match(-1, NOT_ASKED, why="nothing-near")
        key = (question.group, normalised(self.template.input_text(question.values)))
        entry = self._same.get(key)
        return None if entry is None else Match(entry, 1.0)

    def _best(self, text: str, near: NDArray[np.int64], similar: Floats) -> Match:
        votes = np.exp((similar - similar.max()) / WIDTH)
        rows = [
            features(
                text, self.texts[entry], float(cosine), self._support(j, near, votes), self.rarity
            )
            for j, (entry, cosine) in enumerate(zip(near, similar, strict=True))
        ]
        scores = self.likeness.score(np.array(rows))
        best = int(scores.argmax())
        return Match(int(near[best]), float(scores[best]), tuple(rows[best]))

    def _support(self, j: int, near: NDArray[np.int64], votes: Floats) -> float:
        """How far the other near questions' answers use the same words as this one's."""
        others = [i for i in range(len(near)) if i != j]
        total = float(votes[others].sum())
        if not others or total <= 0.0:
            return UNSUPPORTED
        own = self.answers[near[j]]
        said = sum(float(votes[i]) * same_words(own, self.answers[near[i]]) for i in others)
        return said / total

    def answer_requests(self, requests: Sequence[Request]) -> tuple[list[str], NDArray[np.float32]]:
        """Answers and scores of many requests at once; "" and -1 where there is none."""
        found = self.match([self.question(request) for request in requests])
        answers = ["" if match.entry < 0 else self.answers[match.entry] for match in found]
        return answers, np.array([match.score for match in found], np.float32)

    def answer(self, inputs: Inputs) -> tuple[list[str], NDArray[np.float32]]:
        """The same for inputs of which nothing but the values is known: who asks is nobody."""
        requests = []
        for i in range(len(inputs)):
            values = {name: column[i] for name, column in inputs.fields.items()}
            requests.append(Request((), tags={"fields": values}))
        return self.answer_requests(requests)

    async def complete(self, request: Request) -> Completion:
        """Answer one request with ``extra["score"]``, and ``extra["why"]`` where there is no answer.

        Words that were recorded are looked up at once; a search runs in a thread, because a large index
        takes milliseconds that other requests need not wait for.
        """
        question = self.question(request)
        match = self._at_once(question)
        if match is None:
            match = (await asyncio.to_thread(self.match, [question]))[0]
        extra: dict[str, Any] = {"score": match.score}
        if match.entry < 0:
            return Completion("", self.name, cost=0.0, extra={**extra, "why": match.why})
        extra["reused"] = self.ids[match.entry]
        return Completion(self.answers[match.entry], self.name, cost=0.0, extra=extra)

    def files(self) -> Files:
        """What to store: JSON and arrays."""
        encoder = self.embedding.encoder
        settings: dict[str, Any] = {
            "format": FORMAT,
            "scope": self.scope,
            "encoder": {"name": encoder.name, "fingerprint": getattr(encoder, "fingerprint", "")},
            "weights": list(self.embedding.weights),
            "groups": list(self.nearest.groups),
            "likeness": self.likeness.to_dict(),
            "entries": [
                {"id": i, "question": dict(q), "answer": a}
                for i, q, a in zip(self.ids, self.questions, self.answers, strict=True)
            ],
        }
        arrays: dict[str, NDArray[Any]] = {
            "vectors": self.nearest.vectors,
            "starts": self.nearest.starts,
        }
        return settings, arrays, {}

    @classmethod
    def restore(cls, artifact: Artifact, task: Task, name: str) -> Self:
        """Rebuild it from an artifact.

        Raises:
            ArtifactError: A part is missing, of another format, or this machine's encoder is another one.
        """
        settings, arrays = artifact.json("student"), artifact.tensors("student")
        if settings.get("format") != FORMAT:
            raise ArtifactError(
                f"Got reused answers of format {settings.get('format')!r}, but this version reads "
                f"{FORMAT}.",
                remedy="pilotfish learn makes new ones.",
            )
        try:
            encoder = load_encoder(settings["encoder"]["name"])
            here, there = getattr(encoder, "fingerprint", ""), settings["encoder"]["fingerprint"]
            if here != there:
                raise ArtifactError(
                    f"The questions were embedded by {encoder.name!r} with fingerprint {there!r}, but "
                    f"here it is {here!r}.",
                    remedy="pilotfish learn makes new ones.",
                )
            entries = settings["entries"]
            vectors = np.asarray(arrays["vectors"], np.float32)
            starts = np.asarray(arrays["starts"], np.int64)
            return cls(
                task,
                name,
                scope=str(settings["scope"]),
                embedding=Embedding(encoder, Template(task.prompt), settings["weights"]),
                nearest=Nearest(vectors, settings["groups"], starts),
                questions=[entry["question"] for entry in entries],
                answers=[entry["answer"] for entry in entries],
                ids=[entry["id"] for entry in entries],
                likeness=Likeness.from_dict(settings["likeness"]),
            )
        except KeyError as missing:
            raise ArtifactError(
                f"{artifact.folder} lacks {missing}.", remedy="pilotfish learn makes new ones."
            ) from missing
