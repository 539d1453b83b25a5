"""Recorded traffic of a text task as rows, and rows as an index of answers.

An entry is a request that the large model answered to the end, whose answer may be shared with somebody.
Of questions with the same words within a group the latest answer stays. What a redaction has gone
through is no entry: its marks would be given out as part of an answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pilotfish.loop.lessons import Definition, is_small
from pilotfish.loop.likeness import Likeness, normalised
from pilotfish.loop.nearest import Nearest
from pilotfish.loop.reuse import Embedding, Question, ReuseModel
from pilotfish.loop.reuse_scope import group_of
from pilotfish.loop.task import Task
from pilotfish.loop.tasks import Matcher, usable
from pilotfish.loop.template import Template
from pilotfish.models.protocols import Encoder
from pilotfish.store.feedback import Check
from pilotfish.store.traffic import Recorded

MOST_ENTRIES = 100_000  # the latest; 100 MB of vectors, and 13 ms of one core for a search
WEIGHED_ON = 500  # questions that tell how much each place of a template matters
LEAST_WEIGHT = 0.05
_REDACTED = re.compile(r"\[(?:email|phone|card|key)\]")


@dataclass(frozen=True, slots=True)
class Asked:
    """A recorded request of the task.

    Attributes:
        row: As recorded.
        question: What it asks, and of whom it may get an answer.
        answer: The large model's own answer; None where a version answered and nobody asked again.
        whole: Whether the answer may be given to others: it ended by itself and shows no redaction.
    """

    row: Recorded
    question: Question
    answer: str | None
    whole: bool


def own_rows(
    definition: Definition, traffic: Iterable[Recorded], checks: Mapping[str, Check], scope: str
) -> list[Asked]:
    """The task's requests, oldest first.

    Args:
        definition: The task.
        traffic: Recorded requests, oldest first.
        checks: Answers of the large model to requests that a version had answered, by request id.
        scope: Whose answers may be given to whom.
    """
    matcher = Matcher({definition.name: (definition.system, definition.prompt)})
    rows = []
    for row in traffic:
        if not usable(row) or row.request is None or row.completion is None:
            continue
        found = matcher.match(row.request)
        if found is None:
            continue
        question = Question(found[1], *group_of(row.request, row.caller, scope))
        answer: str | None = row.completion.text
        whole = row.completion.finish_reason == "stop"
        if is_small(row.completion.model, definition.name):
            check = checks.get(row.id)
            answer, whole = (None, False) if check is None else (check.large_answer, True)
        if answer is not None and not answer.strip():
            answer = None
        whole = whole and answer is not None and not _REDACTED.search(answer)
        rows.append(Asked(row, question, answer, whole))
    return rows


def build(
    definition: Definition,
    rows: Sequence[Asked],
    encoder: Encoder,
    scope: str,
    like: ReuseModel | None = None,
) -> ReuseModel:
    """An index of these rows' answers.

    Args:
        definition: The task.
        rows: Oldest first; those without an answer that may be shared are left out.
        encoder: Of questions.
        scope: As the rows were grouped.
        like: Take the score and the weights of the places from this one.
    """
    task = Task(definition.prompt, "text", system=definition.system)
    template = Template(definition.prompt)
    latest: dict[tuple[str, str], Asked] = {}
    for row in rows:
        if row.whole and row.question.group is not None:
            words = normalised(template.input_text(row.question.values))
            latest[row.question.group, words] = row
    kept = sorted(latest.items(), key=lambda entry: entry[0][0])
    groups = list(dict.fromkeys(group for (group, _), _ in kept))
    sizes = dict.fromkeys(groups, 0)
    for (group, _), _ in kept:
        sizes[group] += 1
    entries = [row for _, row in kept]
    questions = [dict(row.question.values) for row in entries]
    answers = [row.answer or "" for row in entries]
    if like is None:
        embedding = Embedding(encoder, template, place_weights(encoder, template, entries))
    else:
        embedding = like.embedding
    vectors = embedding(questions) if questions else np.zeros((0, encoder.dim), np.float32)
    starts = np.cumsum([0, *(sizes[group] for group in groups)]).astype(np.int64)
    return ReuseModel(
        task,
        definition.name,
        scope=scope,
        embedding=embedding,
        nearest=Nearest(vectors, groups, starts),
        questions=questions,
        answers=answers,
        ids=[row.row.id for row in entries],
        likeness=Likeness() if like is None else like.likeness,
    )


def place_weights(
    encoder: Encoder, template: Template, entries: Sequence[Asked]
) -> tuple[float, ...] | None:
    """How much each place of a template tells about the answer; None for one place, or too few entries.

    Over pairs of recorded questions: the correlation of the place's likeness with that of the answers.
    A customer's name says nothing of the answer and gets the least weight.
    """
    embedding = Embedding(encoder, template)
    if embedding.joined or len(entries) < 20:
        return None
    rng = np.random.default_rng(0)
    some = [entries[i] for i in rng.permutation(len(entries))[:WEIGHED_ON]]
    answers = encoder.encode([row.answer or "" for row in some])
    pairs = np.triu_indices(len(some), 1)
    wanted = (answers @ answers.T)[pairs]
    weights = []
    for name in template.fields:
        vectors = encoder.encode([str(row.question.values[name]) for row in some])
        alike = (vectors @ vectors.T)[pairs]
        spread = float(alike.std() * wanted.std())
        told = float(np.cov(alike, wanted, bias=True)[0, 1]) / spread if spread > 1e-9 else 0.0
        weights.append(max(told, LEAST_WEIGHT))
    return tuple(weight / sum(weights) for weight in weights)
