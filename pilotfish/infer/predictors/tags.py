"""Models are good at tags: a table of scores, added up over a question's tags.

TagRouter (Chen et al. 2025) gives each query tags, scores each model on each tag by the queries that
carry it (a win counts 1, a tie a part of it, a loss -1), and routes by the sum of the scores. Nothing
is trained but the table, and a new model needs a new column only.

Differences: :mod:`~pilotfish.infer.predictors.tagging` says where tags come from; the default needs no
model. A score is the model's quality on the tag less its overall quality, shrunk as if ``prior`` more
questions had shown no difference; reported is the overall quality plus the mean score, clipped to [0, 1].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, get_args

import numpy as np

from pilotfish.errors import ConfigError
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.features import embed
from pilotfish.infer.predictors.fitted import Arrays, Fitted, State
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.infer.predictors.settings import AtLeastOne, NotNegative, Share
from pilotfish.infer.predictors.tagging import (
    ModelTagger,
    Source,
    cluster_centres,
    merge_alike,
    nearest_centres,
    words_of,
)
from pilotfish.models.protocols import Encoder, Model


@dataclass(eq=False)
class Tags(Fitted):
    """A table of scores.

    Attributes:
        source: Where tags come from.
        spec: What loads the model that writes them; empty without one.
        tags: The tags, in the order of the table's rows.
        merged: Other tags with the tag that they count as.
        centres: Of the clusters, ``[k, dim]`` of each kind; none without clusters.
        scores: ``[tags, models]``.
        errors: Standard error of each score ``[tags, models]``.
        mean: Overall quality ``[models]``.
        encoder: Embeds questions for clusters, and tags to merge those that mean the same.
    """

    embeds: ClassVar[bool] = True

    source: str
    spec: str
    tags: list[str]
    merged: dict[str, str]
    centres: list[Floats]
    scores: Floats
    errors: Floats
    mean: Floats
    encoder: Encoder
    tagger: ModelTagger | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._row = {tag: i for i, tag in enumerate(self.tags)}

    @property
    def waits(self) -> bool:
        """Whether predicting waits for a model."""
        return self.tagger is not None

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        source: Source = "words+clusters",
        tagger: Model | None = None,
        spec: str = "",
        min_count: AtLeastOne = 5,
        max_share: Share = 0.2,
        prior: NotNegative = 10.0,
    ) -> Self:
        """Fill the table.

        Args:
            outcomes: What was recorded.
            encoder: For clusters, and to merge a model's tags.
            seed: Of the clusters.
            source: Where tags come from; a tagger or a spec means ``"model"``.
            tagger: The model that writes tags; default: what ``spec`` loads.
            spec: For example ``openai:gpt-4.1-nano``; stored, to load the model again.
            min_count: Questions that a tag must occur in.
            max_share: Share of the questions that it may occur in at most; clusters always count.
            prior: Questions without a difference that each score is shrunk by.

        Raises:
            ConfigError: There is no such source, or no model to write tags.
            ModelError: The model could not be asked.
        """
        assert encoder is not None  # fit_predictor brings one
        if tagger is not None or spec:
            source = "model"
        if source not in get_args(Source):
            known = ", ".join(get_args(Source))
            raise ConfigError(f"Got tags by {source!r}, but expected one of {known}.")
        if source == "model" and tagger is None:
            if not spec:
                raise ConfigError(
                    "Got neither a model nor a spec to write tags.",
                    remedy="For example: --policy tags:spec=NAME, with [models.NAME] in pilotfish.toml",
                )
            tagger = _load(spec)
        nothing = np.zeros((0, len(outcomes.models)), np.float32)
        mean = outcomes.mean_quality()
        made = cls(outcomes.models, source, spec, [], {}, [], nothing, nothing, mean, encoder)
        if "clusters" in source:
            made.centres = cluster_centres(embed(encoder, outcomes.texts), seed)
        made.tagger = None if tagger is None else ModelTagger(tagger)
        found = made.tags_of(outcomes.texts, strict=True)
        if source == "model":
            made.merged = {a: b for a, b in merge_alike(found, encoder).items() if a != b}
            found = [made._counted_as(tags) for tags in found]
        made._score(found, outcomes, min_count, max_share * len(found), prior)
        return made

    def _score(
        self,
        found: Sequence[Sequence[str]],
        outcomes: Outcomes,
        least: int,
        most: float,
        prior: float,
    ) -> None:
        count = Counter(tag for tags in found for tag in tags)
        clusters = {tag for tag in count if "/" in tag} if self.centres else set()
        self.tags = sorted(
            tag for tag, times in count.items() if tag in clusters or least <= times <= most
        )
        self._row = row = {tag: i for i, tag in enumerate(self.tags)}
        known = ~np.isnan(outcomes.quality)
        gain = np.where(known, outcomes.quality - self.mean, 0)
        total, square, seen = (np.zeros((len(row), len(self.mean))) for _ in range(3))
        for i, tags in enumerate(found):
            rows = [row[tag] for tag in tags if tag in row]
            total[rows] += gain[i]
            square[rows] += gain[i] ** 2
            seen[rows] += known[i]
        self.scores = (total / (seen + prior)).astype(np.float32)
        self.errors = np.sqrt(square / np.maximum(seen, 1) / (seen + prior)).astype(np.float32)

    def _counted_as(self, tags: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(self.merged.get(tag, tag) for tag in tags))

    def tags_of(self, texts: Sequence[str], *, strict: bool = False) -> list[list[str]]:
        """Each text's tags, whether they are in the table or not.

        Raises:
            ModelError: The model that writes tags could not be asked, and ``strict``.
        """
        if self.tagger is not None:
            return [self._counted_as(tags) for tags in self.tagger.tags(texts, strict=strict)]
        found: list[list[str]] = [[] for _ in texts]
        if "words" in self.source:
            found = [words_of(text) for text in texts]
        if self.centres and len(texts):
            rows = embed(self.encoder, texts)
            near = nearest_centres(rows, self.centres)
            found = [words + names for words, names in zip(found, near, strict=True)]
        return found

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Overall quality plus the mean score of the text's tags, ``[n, models]``."""
        mean = np.repeat(self.mean[None], len(texts), axis=0)
        std = np.repeat(np.sqrt(self.mean * (1 - self.mean))[None], len(texts), axis=0)
        for i, tags in enumerate(self.tags_of(texts)):
            rows = [self._row[tag] for tag in tags if tag in self._row]
            if rows:
                mean[i] += self.scores[rows].mean(axis=0)
                std[i] = np.sqrt((self.errors[rows] ** 2).sum(axis=0)) / len(rows)
        return Prediction(np.clip(mean, 0, 1), std)

    def state(self) -> State:
        """The table; the model that writes tags is not stored.

        Raises:
            ConfigError: It was fitted without a spec, so nothing could load the model again.
        """
        if self.tagger is not None and not self.spec:
            raise ConfigError(
                "This predictor was fitted with a model without its spec.",
                remedy="Fit it with spec='NAME' to be able to store it.",
            )
        return super().state()

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from :meth:`state`; loads the model that writes tags."""
        made = super().restore(settings, arrays, encoder)
        made.tagger = ModelTagger(_load(made.spec)) if made.spec else None
        return made


def _load(spec: str) -> Model:
    from pilotfish.models.load import load_model

    return load_model(spec)
