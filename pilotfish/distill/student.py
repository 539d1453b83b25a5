"""Fitting, storing and loading students.

:func:`fit_student` fits one and calibrates it on out-of-fold answers; :func:`fit_and_crossfit` gives the
out-of-fold probabilities as well, for the price of one. :func:`student_files` and
:func:`restore_student` are the way to disk and back: JSON and arrays, nothing that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, Unpack

import numpy as np
from numpy.typing import NDArray

from pilotfish.distill import STUDENTS
from pilotfish.distill.crossfit import About, calibrate, fit_scorer, make_lesson
from pilotfish.distill.recipe import ConstantScorer, Floats, Recipe, Student
from pilotfish.errors import ArtifactError
from pilotfish.models.protocols import Encoder
from pilotfish.records import Inputs

__all__ = [
    "Student",
    "fit_and_crossfit",
    "fit_seconds",
    "fit_student",
    "load_student",
    "restore_student",
    "student_files",
    "unavailable",
]

FORMAT = 1


def fit_and_crossfit(
    name: str, inputs: Inputs, targets: NDArray[Any], **about: Unpack[About]
) -> tuple[Student, Floats]:
    """Fit a student on all answers, and give its calibrated out-of-fold probabilities.

    Args:
        name: A name of :data:`pilotfish.distill.STUDENTS`.
        inputs: ``n`` inputs.
        targets: Class indices ``[n]``, or memberships ``[n, classes]`` when multi-label.
        **about: ``classes`` (names, must be given), ``multilabel``, ``weights``, ``seed``, ``encoder``:
            see :class:`~pilotfish.distill.crossfit.About`.

    Returns:
        The student, and probabilities ``[n, classes]``.

    Raises:
        UnknownName: No student has that name.
        ConfigError: It needs an encoder and got none, or its libraries or weights are not here.
        InputError: The arguments do not fit together, or there is nothing to learn from.
    """
    recipe, lesson = make_lesson(name, inputs, targets, **about)
    classes = about["classes"]
    if lesson.constant:
        student = Student(name, classes, lesson.multilabel, ConstantScorer.fit(lesson))
        return student, student.predict_proba(inputs)
    best = calibrate(recipe, lesson)
    scorer = fit_scorer(recipe, lesson, best.setting)
    used = lesson.encoder if recipe.embeds else None
    student = Student(name, classes, lesson.multilabel, scorer, best.temperature, used)
    return student, best.proba


def fit_student(
    name: str, inputs: Inputs, targets: NDArray[Any], **about: Unpack[About]
) -> Student:
    """Fit and calibrate a student; see :func:`fit_and_crossfit`."""
    return fit_and_crossfit(name, inputs, targets, **about)[0]


def fit_seconds(name: str, inputs: Inputs, targets: NDArray[Any], **about: Unpack[About]) -> float:
    """Seconds that :func:`fit_and_crossfit` will take, from a small part; 0 when nobody need know."""
    recipe, lesson = make_lesson(name, inputs, targets, **about)
    return 0.0 if recipe.seconds is None or lesson.constant else recipe.seconds(lesson)


def unavailable(name: str, inputs: Inputs, encoder: Encoder | None) -> str:
    """Why this student cannot take part with these inputs, or "".

    Raises:
        UnknownName: No student has that name.
    """
    recipe: Recipe = STUDENTS.load(name)
    if recipe.embeds and encoder is None:
        return "no encoder"
    return recipe.unavailable(inputs)


def student_files(
    student: Student,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]], dict[str, bytes]]:
    """What to store: JSON settings, arrays (for safetensors), and other files (none so far)."""
    settings, arrays = student.scorer.state()
    encoder = student.encoder
    card = {
        "format": FORMAT,
        "student": student.name,
        "classes": list(student.classes),
        "multilabel": student.multilabel,
        "temperature": student.temperature,
        "constant": isinstance(student.scorer, ConstantScorer),
        "encoder": None
        if encoder is None
        else {"name": encoder.name, "fingerprint": getattr(encoder, "fingerprint", "")},
        "scorer": settings,
    }
    return card, {k: np.ascontiguousarray(v) for k, v in arrays.items()}, {}


def restore_student(
    card: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    load_encoder: Callable[[str], Encoder],
) -> Student:
    """Rebuild a student from what :func:`student_files` gave.

    Args:
        card: The settings.
        arrays: The arrays.
        load_encoder: Called with the encoder's name when the student embeds.

    Raises:
        ArtifactError: Another format, a part is missing, or this machine's encoder is another one.
    """
    if card.get("format") != FORMAT:
        raise ArtifactError(
            f"Got a student of format {card.get('format')!r}, but this version reads {FORMAT}.",
            remedy="Install the version of pilotfish that the card names, or offload again.",
        )
    encoder = None
    if card["encoder"] is not None:
        encoder = load_encoder(card["encoder"]["name"])
        here = getattr(encoder, "fingerprint", "")
        if here != card["encoder"]["fingerprint"]:
            raise ArtifactError(
                f"The student was fitted on encoder {card['encoder']['name']!r} with fingerprint "
                f"{card['encoder']['fingerprint']!r}, but here it is {here!r}.",
                remedy="Install the version of the encoder that the card names, or offload again.",
            )
    recipe: Recipe = STUDENTS.load(card["student"])
    try:
        restore = ConstantScorer.restore if card["constant"] else recipe.restore
        scorer = restore(card["scorer"], arrays, encoder)
    except KeyError as missing:
        raise ArtifactError(
            f"The student's files lack {missing}.", remedy="Fetch the artifact again."
        ) from missing
    return Student(
        card["student"],
        tuple(card["classes"]),
        bool(card["multilabel"]),
        scorer,
        float(card["temperature"]),
        encoder,
    )


class StudentArtifact(Protocol):
    """The part of :class:`pilotfish.store.artifacts.Artifact` that a student is read from."""

    def json(self, name: str) -> Any:
        """The JSON values of a file."""
        ...

    def tensors(self, stem: str) -> Mapping[str, NDArray[Any]]:
        """The arrays of a file by name."""
        ...


def load_student(artifact: StudentArtifact, load_encoder: Callable[[str], Encoder]) -> Student:
    """The student of an artifact: ``student.json`` and ``student.safetensors``."""
    return restore_student(artifact.json("student"), artifact.tensors("student"), load_encoder)
