"""Narrow, then decide: a small model keeps what it is sure of and leaves a short list for the large one.

Closed labels only. Where the small model's best label reaches the threshold, it is the answer.
Elsewhere the large model is asked to choose, from the small one's ``top`` labels instead of all.

- Filter-then-rerank (Ma et al. 2023): the small model filters, the large one reranks hard samples
as a choice among the top labels. ``top = 3, hint = false``. - Data Shunt+ (Chen et al. 2024):
prompt pruning cuts the labels to what the small model holds possible, and prompt transferring tells
the large one what it thinks. ``hint = true``.

A true label outside the list is lost, so ``top`` is also a promise about the small model's
top-``top`` accuracy.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pilotfish.config import Config
from pilotfish.errors import ConfigError, ModelError
from pilotfish.infer.fuse import added
from pilotfish.infer.trail import Trail, failure_reason
from pilotfish.models.labels import LabelModel
from pilotfish.models.protocols import Model
from pilotfish.models.settings import Count, read_settings
from pilotfish.records import Completion, Request


class NarrowSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of a ``narrow`` in pilotfish.toml, besides ``models``: the small one and the large one.

    Attributes:
        threshold: The small model's label is kept from this probability on.
        top: How many labels the large model chooses from.
        hint: Whether it is told what the small model holds likeliest.
        large: The model that would answer everything without it, for the saving; default the last.
    """

    threshold: float = 0.9
    top: Count = 3
    hint: bool = False
    large: str = ""


class Narrow:
    """A small model that scores labels, and a large one that chooses from the best.

    Args:
        models: The small one and the large one.
        threshold: The small model's label is kept from this probability on.
        top: How many labels are left to the large one.
        hint: Whether it is told the small one's probabilities.
        name: The name of the composite.

    Raises:
        ConfigError: There are not two models, or ``top`` is below 1.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        threshold: float = 0.9,
        top: int = 3,
        hint: bool = False,
        name: str = "narrow",
    ) -> None:
        if len(models) != 2 or top < 1:
            raise ConfigError(
                f"Got {len(models)} models and top = {top}, but expected a small and a large model and "
                "a top of 1 at least."
            )
        self.models = list(models)
        self.threshold = threshold
        self.top = top
        self.hint = hint
        self.name = name
        self._small, self._large = (
            model if isinstance(model, LabelModel) else LabelModel(model) for model in models
        )

    @classmethod
    def from_members(
        cls, name: str, members: Sequence[Model], settings: Mapping[str, Any], config: Config
    ) -> Narrow:
        """Build from ``[models.NAME]`` with ``kind = "narrow"``; see :class:`NarrowSettings`."""
        checked = read_settings("narrow", NarrowSettings, settings)
        return cls(
            members,
            threshold=checked.threshold,
            top=checked.top,
            hint=checked.hint,
            name=name,
        )

    async def complete(self, request: Request) -> Completion:
        """A label of the small model, or the large one's choice from the small one's best.

        Raises:
            ModelError: The large model did not answer, or the request is wrong.
        """
        trail = Trail(self.name)
        asked = request
        if request.params.get("labels"):
            began = time.perf_counter()
            try:
                answer = await self._small.complete(request)
            except ModelError as error:
                reason = failure_reason(error)
                if reason is None:
                    raise
                trail.fail(self._small.name, reason, time.perf_counter() - began)
            else:
                probs = answer.label_probs or {}
                score = max(probs.values(), default=None)
                if score is not None and score >= self.threshold:
                    trail.settle(answer, "score>=threshold", score, self.threshold)
                    return trail.result()
                reason = "no-score" if score is None else "score<threshold"
                trail.refuse(answer, self._small.name, reason, score, self.threshold)
                if request.params.get("answer", "label") == "label" and probs:
                    asked = narrowed(request, probs, self.top, hint=self.hint)
        trail.settle(await self._large.complete(asked), "last")
        return trail.result()


def narrowed(
    request: Request, probs: Mapping[str, float], top: int, *, hint: bool = False
) -> Request:
    """The request with the ``top`` likeliest labels only, in the order of likelihood.

    >>> asked = narrowed(Request.of("x", labels=["a", "b", "c"]), {"a": 0.2, "b": 0.5, "c": 0.3}, 2)
    >>> asked.params["labels"], asked.prompt.splitlines()[-1]
    (['b', 'c'], 'The answer is one of these: b; c.')
    """
    kept = sorted(probs, key=lambda label: -probs[label])[:top]
    told = f"The answer is one of these: {'; '.join(kept)}."
    if hint:
        told += " A smaller model gives them these probabilities: "
        told += ", ".join(f"{label} {probs[label]:.2f}" for label in kept) + "."
    params = {**request.params, "labels": kept}
    params.pop("blanks", None)  # they were made for the whole set
    return dataclasses.replace(request, messages=added(request, told), params=params)
