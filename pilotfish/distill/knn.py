"""The nearest labelled texts vote (Cover and Hart 1967; weights: Dudani 1976).

A vote weighs ``exp((similarity - 1) / WIDTH)`` times the example's weight, so near ones count most and
far ones next to nothing; ``PRIOR`` votes go to all classes by how common they are, so that a text
that resembles nothing gets an unsure answer. The number of neighbours is the one of
:data:`NEIGHBOURS` with the least leave-one-out log loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.distill.calibrate import log_loss
from pilotfish.distill.linear import embed
from pilotfish.distill.recipe import Floats, Lesson, Recipe, Scorer, State
from pilotfish.models.logistic import as_matrix
from pilotfish.models.protocols import Encoder
from pilotfish.models.tfidf import batches
from pilotfish.records import Inputs

NEIGHBOURS = (3, 7, 15, 31)
WIDTH = 0.1  # in cosine
PRIOR = 0.02  # of one identical neighbour
EDGE = 1e-6


class NeighbourScorer:
    """Cosine nearest neighbours over the encoder's unit rows.

    Args:
        memory: Embeddings of the examples ``[m, dim]``.
        votes: Their answers times their weights ``[m, classes]``.
        mass: Their weights ``[m]``, mean 1.
        prior: Share of each class ``[classes]``.
        k: Neighbours that vote.
        multilabel: Whether logits are log-odds.
        encoder: Embeds the texts.
    """

    def __init__(
        self,
        memory: Floats,
        votes: Floats,
        mass: Floats,
        prior: Floats,
        k: int,
        *,
        multilabel: bool,
        encoder: Encoder,
    ) -> None:
        self.memory, self.votes, self.mass, self.prior = memory, votes, mass, prior
        self.k = k
        self.multilabel = multilabel
        self.encoder = encoder

    def logits(self, inputs: Inputs) -> Floats:
        """Logarithm (or log-odds) of the vote, ``[n, classes]``."""
        out = np.empty((len(inputs), len(self.prior)), np.float32)
        for part in batches(inputs.texts):
            similarity = embed(self.encoder, inputs.texts[part]) @ self.memory.T
            share = np.clip(self.vote(similarity, self.k), EDGE, 1 - EDGE)
            out[part] = np.log(share)
            if self.multilabel:
                out[part] -= np.log1p(-share)
        return out

    def vote(self, similarity: Floats, k: int) -> Floats:
        """Vote shares ``[n, classes]`` from similarities ``[n, m]`` (-inf: may not vote)."""
        if k < similarity.shape[1]:
            near = np.argpartition(similarity, -k, axis=1)[:, -k:]
            weight = np.exp((np.take_along_axis(similarity, near, axis=1) - 1) / WIDTH)
            summed = np.einsum("nk,nkc->nc", weight, self.votes[near], optimize=False)
            total = (weight * self.mass[near]).sum(axis=1, keepdims=True)
        else:
            weight = np.exp((similarity - 1) / WIDTH)
            summed = weight @ self.votes
            total = weight @ self.mass[:, None]
        shares: Floats = (summed + PRIOR * self.prior) / (total + PRIOR)
        return shares

    def state(self) -> State:
        """The examples' embeddings, votes and weights."""
        settings = {"k": self.k, "multilabel": self.multilabel}
        arrays = {"memory": self.memory, "votes": self.votes, "mass": self.mass}
        return settings, {**arrays, "prior": self.prior}


def _fit(lesson: Lesson, settings: Sequence[float]) -> list[Scorer]:
    assert lesson.encoder is not None  # fit_student checked
    answers = as_matrix(lesson.targets, lesson.classes)
    mass = (lesson.weights / lesson.weights.mean()).astype(np.float32)
    prior = (
        (mass @ answers + 1) / (mass.sum() + (2 if lesson.multilabel else lesson.classes))
    ).astype(np.float32)
    memory = embed(lesson.encoder, lesson.inputs.texts)
    scorer = NeighbourScorer(
        memory,
        answers * mass[:, None],
        mass,
        prior,
        1,
        multilabel=lesson.multilabel,
        encoder=lesson.encoder,
    )
    sample = np.random.default_rng(lesson.seed).permutation(len(memory))[:1000]
    similarity = memory[sample] @ memory.T
    similarity[np.arange(len(sample)), sample] = -np.inf
    scorer.k = min(
        NEIGHBOURS, key=lambda k: log_loss(scorer.vote(similarity, k), lesson.targets[sample])
    )
    return [scorer]


def _restore(
    settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], encoder: Encoder | None
) -> NeighbourScorer:
    assert encoder is not None  # load_student checked
    return NeighbourScorer(
        arrays["memory"],
        arrays["votes"],
        arrays["mass"],
        arrays["prior"],
        int(settings["k"]),
        multilabel=bool(settings["multilabel"]),
        encoder=encoder,
    )


KNN = Recipe(_fit, _restore, embeds=True)
