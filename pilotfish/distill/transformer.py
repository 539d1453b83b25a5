"""A small transformer, fine-tuned whole (Devlin et al. 2019): the student for torch and patience.

Where the other students read which words occur, this one reads their order. It costs a thousand times
as much to fit and to serve, so it takes part in a race only where the torch extra and the packaged
encoder are, and only when a few timed steps say that it will not hold the others up.

It starts from a linear probe on the encoder's own vectors (Kumar et al. 2022): the head is right before
the layers below it move, so a few epochs are enough and small sets do not wreck what was pretrained.
How many is its dial, chosen by out-of-fold log loss; 0 leaves the probe alone. That stops early on
answers the fit did not see, without setting any aside. Three folds instead of five: each costs a
fine-tuning, and out-of-fold scores only choose the student and its temperature; the certificate has
answers of its own.

This module needs no torch; :mod:`pilotfish.distill.finetune` does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from pilotfish.distill.recipe import Lesson, Recipe, Scorer
from pilotfish.errors import MissingExtra, MissingModel
from pilotfish.models.catalogue import locate
from pilotfish.models.protocols import Encoder
from pilotfish.records import Inputs

if TYPE_CHECKING:
    from pilotfish.distill.finetune import TransformerScorer

BASE = "all-MiniLM-L6-v2"  # the only encoder of the catalogue whose weights torch can train
EPOCHS = (0.0, 2.0, 4.0)
FOLDS = 3
_LIBRARIES = ("torch", "transformers")


def base_folder() -> Path:
    """Where the encoder that is fine-tuned lies.

    Raises:
        MissingModel: It was not pulled.
    """
    return locate(BASE)


def unavailable_library() -> bool:
    """Whether torch or transformers is not installed; looks, and imports nothing."""
    return any(importlib.util.find_spec(name) is None for name in _LIBRARIES)


def _unavailable(inputs: Inputs) -> str:
    if unavailable_library():
        return 'needs torch: pip install "pilotfish[torch]"'
    try:
        base_folder()
    except MissingModel as missing:
        return f"needs its encoder: {missing.remedy}"
    return ""


def _require() -> None:
    if unavailable_library():
        raise MissingExtra("The student 'transformer'", "torch")


def _fit(lesson: Lesson, settings: Sequence[float]) -> list[Scorer]:
    _require()
    from pilotfish.distill.finetune import fine_tune, load_base

    return list(fine_tune(load_base(base_folder()), lesson, settings, of=EPOCHS[-1]))


def _restore(
    settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], encoder: Encoder | None
) -> TransformerScorer:
    _require()
    from pilotfish.distill.finetune import TransformerScorer

    return TransformerScorer.restore(settings, arrays)


def _seconds(lesson: Lesson) -> float:
    _require()
    from pilotfish.distill.finetune import load_base, seconds_per_text

    # Every fold leaves 1 / FOLDS of the texts out, and the last fit none: FOLDS times all texts. Each fit
    # also embeds them, and each setting is tried on what was left out, at a quarter of a step each.
    passes = FOLDS * EPOCHS[-1] + (FOLDS + len(EPOCHS)) / 4
    return len(lesson.inputs) * passes * seconds_per_text(load_base(base_folder()), lesson)


TRANSFORMER = Recipe(_fit, _restore, _unavailable, settings=EPOCHS, folds=FOLDS, seconds=_seconds)
