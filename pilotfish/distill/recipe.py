"""What a student is, and what a kind of student must bring.

A student gives logits; one temperature, fitted on answers it did not see, turns them into
probabilities. Its whole state is JSON values and numeric arrays, so loading one runs no code and
does not depend on the version of the library that fitted it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pilotfish.distill.calibrate import to_proba
from pilotfish.models.protocols import Encoder
from pilotfish.records import Inputs

Floats = NDArray[np.float32]
State = tuple[dict[str, Any], dict[str, NDArray[Any]]]


class Scorer(Protocol):
    """What a fit gives: logits, and a state that can be stored."""

    def logits(self, inputs: Inputs) -> Floats:
        """Unnormalised log-probabilities (log-odds when multi-label), ``[n, classes]``."""
        ...

    def state(self) -> State:
        """JSON settings and arrays that :attr:`Recipe.restore` rebuilds it from."""
        ...


@dataclass(frozen=True)
class Lesson:
    """What a student is fitted on.

    Attributes:
        inputs: ``n`` inputs.
        targets: Class indices ``[n]``, or memberships ``[n, classes]`` (bool).
        weights: ``[n]``, positive.
        classes: Number of classes.
        multilabel: Whether several classes may hold.
        seed: Of every random choice.
        encoder: For students that read embeddings, else None.
    """

    inputs: Inputs
    targets: NDArray[Any]
    weights: NDArray[np.float64]
    classes: int
    multilabel: bool
    seed: int = 0
    encoder: Encoder | None = None

    def take(self, indices: NDArray[np.integer[Any]]) -> Lesson:
        """The part of it at these positions."""
        return Lesson(
            self.inputs.take(indices),
            self.targets[indices],
            self.weights[indices],
            self.classes,
            self.multilabel,
            self.seed,
            self.encoder,
        )

    @property
    def constant(self) -> bool:
        """Whether every answer is the same, so that there is nothing to tell apart."""
        return len(self.targets) < 2 or bool((self.targets == self.targets[0]).all())


@dataclass(frozen=True)
class Recipe:
    """A kind of student.

    Attributes:
        fit: Learns from a lesson whose answers are not all the same; one scorer for each setting given.
        restore: Rebuilds a scorer from its state; the encoder is the one it was fitted with.
        unavailable: Why it cannot take part with these inputs, or "".
        embeds: Whether it needs an encoder.
        settings: Values of its one dial; the cross-fit chooses by log loss.
        folds: Parts of its cross-fit.
        seconds: Time that fitting and cross-fitting will take, measured on a small part of the lesson;
            None for students whose time nobody needs to know beforehand.
    """

    fit: Callable[[Lesson, Sequence[float]], list[Scorer]]
    restore: Callable[[Mapping[str, Any], Mapping[str, NDArray[Any]], Encoder | None], Scorer]
    unavailable: Callable[[Inputs], str] = lambda inputs: ""
    embeds: bool = False
    settings: tuple[float, ...] = (1.0,)
    folds: int = 5
    seconds: Callable[[Lesson], float] | None = None


class ConstantScorer:
    """One answer, whatever the input: all that identical answers can teach.

    Its probability is Laplace's rule of succession, ``(count + 1) / (n + classes)``; with a single
    class the rest, ``1 / (n + 2)``, belongs to answers never seen, so its rows sum to less than 1.

    Args:
        proba: ``[classes]``.
        multilabel: Whether the probabilities are separate.
    """

    def __init__(self, proba: NDArray[np.floating[Any]], multilabel: bool) -> None:
        self.proba = np.asarray(proba, np.float32)
        self.multilabel = multilabel

    @classmethod
    def fit(cls, lesson: Lesson) -> ConstantScorer:
        """Count the answers."""
        n = len(lesson.targets)
        if lesson.multilabel:
            return cls((lesson.targets.sum(axis=0) + 1) / (n + 2), True)
        counts = np.bincount(lesson.targets, minlength=lesson.classes)
        return cls((counts + 1) / (n + max(lesson.classes, 2)), False)

    @classmethod
    def restore(
        cls,
        settings: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        encoder: Encoder | None = None,
    ) -> ConstantScorer:
        """Rebuild from :meth:`state`."""
        return cls(arrays["proba"], bool(settings["multilabel"]))

    def logits(self, inputs: Inputs) -> Floats:
        """The same row for every input."""
        row = np.log(self.proba)
        if self.multilabel:
            row = row - np.log1p(-self.proba)
        return np.repeat(row[None], len(inputs), axis=0)

    def state(self) -> State:
        """Its probabilities."""
        return {"multilabel": self.multilabel}, {"proba": self.proba}


@dataclass(frozen=True)
class Student:
    """A small classifier that was taught by a large model.

    Attributes:
        name: Its name in :data:`pilotfish.distill.STUDENTS`.
        classes: Class names, in the order of the columns.
        multilabel: Whether several classes may hold.
        scorer: Gives logits.
        temperature: Divides the logits; fitted on out-of-fold answers.
        encoder: What it embeds with, or None.
    """

    name: str
    classes: tuple[str, ...]
    multilabel: bool
    scorer: Scorer
    temperature: float = 1.0
    encoder: Encoder | None = None

    def predict_proba(self, inputs: Inputs | Sequence[str]) -> Floats:
        """Probabilities ``[n, classes]`` in [0, 1].

        Rows sum to 1 unless it is multi-label, or there is one class (see :class:`ConstantScorer`).
        Plain texts are accepted too, which makes it a :class:`pilotfish.models.protocols.Classifier`.
        """
        if not isinstance(inputs, Inputs):
            inputs = Inputs(inputs)
        if isinstance(self.scorer, ConstantScorer):
            return np.repeat(self.scorer.proba[None], len(inputs), axis=0)
        logits = self.scorer.logits(inputs)
        return to_proba(logits, multilabel=self.multilabel, temperature=self.temperature)
