"""Out-of-fold probabilities: each comes from a fit that did not see its answer.

Identical inputs are always in the same fold, and every class is spread over the folds as evenly as
its size allows. The temperature, and the student's one dial where it has one (a choice of three), are
fitted on all out-of-fold logits, so that a probability depends on its own answer through these two alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Required, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from pilotfish.distill import STUDENTS
from pilotfish.distill.calibrate import fit_temperature, log_loss, to_proba
from pilotfish.distill.recipe import ConstantScorer, Floats, Lesson, Recipe, Scorer
from pilotfish.errors import ConfigError, InputError
from pilotfish.models.protocols import Encoder
from pilotfish.records import Inputs


class About(TypedDict, total=False):
    """What is known of the answers beside themselves; only ``classes`` must be given.

    Attributes:
        classes: Class names.
        multilabel: Whether several classes may hold.
        weights: How many inputs each stands for ``[n]``, positive; default all alike.
        seed: Of every random choice.
        encoder: For students that read embeddings.
    """

    classes: Required[tuple[str, ...]]
    multilabel: bool
    weights: NDArray[np.floating[Any]] | None
    seed: int
    encoder: Encoder | None


def make_lesson(
    name: str, inputs: Inputs, targets: NDArray[Any], **about: Unpack[About]
) -> tuple[Recipe, Lesson]:
    """Check the arguments of a fit.

    Raises:
        UnknownName: No student has that name.
        ConfigError: It needs an encoder and got none.
        InputError: Lengths differ, there is nothing to learn from, a class index is out of range, or
            a weight is not positive and finite.
    """
    classes, multilabel = about["classes"], about.get("multilabel", False)
    weights, encoder = about.get("weights"), about.get("encoder")
    recipe: Recipe = STUDENTS.load(name)
    if recipe.embeds and encoder is None:
        raise ConfigError(
            f"The student {name!r} reads embeddings, but got no encoder.",
            remedy="Pass encoder=StaticEncoder(), or use the student 'tfidf-linear'.",
        )
    targets = np.asarray(targets)
    n = len(inputs)
    shape = (n, len(classes)) if multilabel else (n,)
    if not n or not classes or targets.shape != shape:
        raise InputError(
            f"Got {n} inputs, {len(classes)} classes and targets of shape {targets.shape}, but "
            f"expected at least one of each and targets of shape {shape}."
        )
    targets = targets.astype(bool if multilabel else np.int64)
    if not multilabel and not (targets.min() >= 0 and targets.max() < len(classes)):
        raise InputError(f"Got a class index outside 0..{len(classes) - 1}.")
    w = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (n,) or not (np.isfinite(w).all() and (w > 0).all()):
        raise InputError(f"Got weights that are not {n} positive finite numbers.")
    seed = about.get("seed", 0)
    return recipe, Lesson(inputs, targets, w, len(classes), multilabel, seed, encoder)


def fit_scorer(recipe: Recipe, lesson: Lesson, setting: float | None = None) -> Scorer:
    """Fit without calibration, by default at the middle setting; identical answers give a constant."""
    if lesson.constant:
        return ConstantScorer.fit(lesson)
    if setting is None:
        setting = recipe.settings[len(recipe.settings) // 2]
    return recipe.fit(lesson, [setting])[0]


def fold_of(lesson: Lesson, folds: int) -> NDArray[np.int64]:
    """The fold of each input, ``[n]``: grouped by identical input, stratified by answer."""
    n = len(lesson.inputs)
    columns = [list(map(repr, c)) for c in lesson.inputs.fields.values()]
    keys: dict[tuple[str, ...], int] = {}
    group = np.array(
        [keys.setdefault(key, len(keys)) for key in zip(lesson.inputs.texts, *columns, strict=True)]
    )
    first = np.full(len(keys), n)
    np.minimum.at(first, group, np.arange(n))
    answers = lesson.targets[first].reshape(len(first), -1)
    stratum = np.unique(answers, axis=0, return_inverse=True)[1].ravel()
    order = np.lexsort((np.random.default_rng(lesson.seed).random(len(first)), stratum))
    fold = np.empty(len(first), np.int64)
    fold[order] = np.arange(len(first)) % folds
    of_input: NDArray[np.int64] = fold[group]
    return of_input


def out_of_fold(recipe: Recipe, lesson: Lesson) -> Floats:
    """Out-of-fold logits ``[settings, n, classes]``, not calibrated.

    With fewer distinct inputs than folds there are fewer folds; with one, the logits are those of
    the class frequencies.
    """
    fold = fold_of(lesson, recipe.folds)
    logits = np.empty((len(recipe.settings), len(fold), lesson.classes), np.float32)
    used = np.unique(fold)
    if len(used) < 2:
        logits[:] = ConstantScorer.fit(lesson).logits(lesson.inputs)
        return logits
    for i in used:
        test, train = np.flatnonzero(fold == i), np.flatnonzero(fold != i)
        part, held = lesson.take(train), lesson.inputs.take(test)
        if part.constant:
            logits[:, test] = ConstantScorer.fit(part).logits(held)
            continue
        for j, scorer in enumerate(recipe.fit(part, recipe.settings)):
            logits[j, test] = scorer.logits(held)
    return logits


@dataclass(frozen=True)
class Calibrated:
    """What the out-of-fold answers say.

    Attributes:
        proba: Probabilities ``[n, classes]`` at the best setting and temperature.
        temperature: Divides the logits.
        setting: The value of the student's dial.
    """

    proba: Floats
    temperature: float
    setting: float


def calibrate(recipe: Recipe, lesson: Lesson) -> Calibrated:
    """Cross-fit, and choose the setting and temperature with the least log loss."""
    if lesson.constant:
        proba = np.repeat(ConstantScorer.fit(lesson).proba[None], len(lesson.inputs), axis=0)
        return Calibrated(proba, 1.0, recipe.settings[0])
    tried = []
    for setting, logits in zip(recipe.settings, out_of_fold(recipe, lesson), strict=True):
        temperature = fit_temperature(
            logits, lesson.targets, multilabel=lesson.multilabel, weights=lesson.weights
        )
        proba = to_proba(logits, multilabel=lesson.multilabel, temperature=temperature)
        loss = log_loss(proba, lesson.targets, lesson.weights)
        tried.append((loss, Calibrated(proba, temperature, setting)))
    return min(tried, key=lambda pair: pair[0])[1]


def crossfit(name: str, inputs: Inputs, targets: NDArray[Any], **about: Unpack[About]) -> Floats:
    """Calibrated out-of-fold probabilities ``[n, classes]``; arguments as in ``fit_student``."""
    return calibrate(*make_lesson(name, inputs, targets, **about)).proba
