"""A learned scorer of (question, answer): how likely an answer is right.

FrugalGPT (Chen, Zaharia and Zou 2023) fine-tunes DistilBERT to regress whether an answer is correct
on the question and the answer; here it is a logistic regression for each model on embeddings, the
surfaces of both texts, and the agreement with the other answers asked for. It is fitted with random
sets of other answers, so that one judge serves every stage of a cascade: alone with the first
answer, and better the more there are.

The paper's scorer sees one answer at a time: ``together=False``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError
from pilotfish.infer.judges.answer_features import AnswerFeatures
from pilotfish.infer.judges.judge import Bools, only, present, seen
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.models.logistic import fit_logistic
from pilotfish.models.protocols import Encoder
from pilotfish.records import Completion, Request

COPIES = 3  # random sets of other answers for each question
STRENGTH = 0.1  # scikit-learn's C


class LearnedScorer:
    """Scores answers of models that it was fitted on.

    Args:
        models: Their names.
        features: What it reads.
        coefficients: ``[m, width]``.
        bias: ``[m]``.
        together: Whether it looks at other models' answers.
    """

    def __init__(
        self,
        models: tuple[str, ...],
        features: AnswerFeatures,
        coefficients: Floats,
        bias: Floats,
        together: bool,
    ) -> None:
        self.name = "learned"
        self.models = models
        self.features = features
        self.coefficients = coefficients
        self.bias = bias
        self.together = together
        self._last: tuple[Outcomes, list[Floats], Floats] | None = None

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        *,
        encoder: Encoder | None = None,
        pattern: str = "",
        together: bool = True,
        strength: float = STRENGTH,
        seed: int = 0,
    ) -> Self:
        """Learn from recorded answers and their quality.

        Args:
            outcomes: With answers; qualities between 0 and 1 are soft labels.
            encoder: Embeds questions and answers; default not.
            pattern: Finds the final answer, see :class:`~pilotfish.infer.judges.same.Same`.
            together: Whether agreement with other answers counts.
            strength: How much the data count against the prior.
            seed: Of the random sets.

        Raises:
            InputError: There are no answers, or none of some model.
        """
        if outcomes.answers is None:
            raise InputError(
                "A learned scorer reads answers, but the outcomes hold none.",
                remedy="Record the answers' texts: a column 'answer', or 'answer:NAME' for each model",
            )
        rng = np.random.default_rng(seed)
        n, m = outcomes.quality.shape
        texts = _texts(outcomes)
        known = seen(outcomes, None) & ~np.isnan(outcomes.quality)
        sample = rng.permutation(n * m)[: min(n * m, 4000)]
        features = AnswerFeatures.fit(
            [outcomes.texts[i // m] for i in sample],
            [texts[i // m, i % m] for i in sample],
            encoder,
            pattern,
        )
        same = (
            features.same.matrix(outcomes.answers) if together else np.zeros((n, m, m), np.float32)
        )
        columns, biases = [], []
        asked = features.questions(outcomes.texts)
        for j, name in enumerate(outcomes.models):
            rows = np.flatnonzero(known[:, j])
            if not rows.size:
                raise InputError(f"No quality was recorded of {name}.")
            own = features.alone(asked.take(rows), list(texts[rows, j]))
            blocks, targets = [], []
            for copy in range(COPIES if together and m > 1 else 1):
                share = rng.random((len(rows), 1)) * (copy > 0)  # the first time alone
                others = known[rows] & (rng.random((len(rows), m)) < share)
                blocks.append(np.hstack([own, features.together(same[rows], others, j)]))
                targets.append(outcomes.quality[rows, j])
            ((weights, bias),) = fit_logistic(
                [np.vstack(blocks)],
                np.concatenate(targets)[:, None].astype(np.float32),
                np.ones(len(rows) * len(blocks)),
                multilabel=True,
                strengths=[strength],
            )
            columns.append(weights[0][:, 0])
            biases.append(bias[0])
        return cls(
            outcomes.models, features, np.stack(columns), np.array(biases, np.float32), together
        )

    async def score(self, request: Request, completion: Completion) -> float:
        """The probability that an answer is right, nothing else having been asked."""
        return (await self.score_together(request, {completion.model: completion}))[
            completion.model
        ]

    async def score_together(
        self, request: Request, completions: Mapping[str, Completion]
    ) -> dict[str, float]:
        """The probability that each answer is right, given all of them.

        Raises:
            InputError: It was not fitted on one of the models.
        """
        if unknown := sorted(set(completions) - set(self.models)):
            raise InputError(
                f"The scorer was not fitted on {', '.join(unknown)}.",
                remedy=f"It knows {', '.join(self.models)}",
            )
        texts = np.array([[None] * len(self.models)], object)
        for name, completion in completions.items():
            texts[0, self.models.index(name)] = completion.text
        quality = np.full(texts.shape, np.nan, np.float32)
        scores = self.score_many(Outcomes((request.prompt,), self.models, quality, answers=texts))
        return {name: float(scores[0, self.models.index(name)]) for name in completions}

    def score_many(self, outcomes: Outcomes, asked: Bools | None = None) -> Floats:
        """The same for recorded answers; what does not depend on ``asked`` is kept from call to call.

        Raises:
            InputError: There are no answers, or other models.
        """
        if outcomes.answers is None or outcomes.models != self.models:
            raise InputError(
                f"Got outcomes of {', '.join(outcomes.models)}"
                + (" without answers" if outcomes.answers is None else "")
                + f", but the scorer reads answers of {', '.join(self.models)}."
            )
        visible = seen(outcomes, asked)
        if self._last is None or self._last[0] is not outcomes:
            texts = _texts(outcomes)
            asked_of = self.features.questions(outcomes.texts)
            own = []
            for j in range(len(self.models)):
                alone = self.features.alone(asked_of, list(texts[:, j]))
                own.append(alone @ self.coefficients[j, : alone.shape[1]] + self.bias[j])
            self._last = (outcomes, own, self.features.same.matrix(outcomes.answers))
        _, own, same = self._last
        logits = np.stack(own, axis=1)
        if self.together:
            for j in range(len(self.models)):
                others = self.features.together(same, visible, j)
                logits[:, j] += others @ self.coefficients[j, -others.shape[1] :]
        return only(0.5 * (1 + np.tanh(0.5 * logits)), visible)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """JSON values and arrays; :meth:`restore` is the inverse."""
        settings, arrays = self.features.state()
        values = {"models": list(self.models), "together": self.together, "features": settings}
        return values, {**arrays, "coefficients": self.coefficients, "bias": self.bias}

    @classmethod
    def restore(
        cls,
        settings: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        encoder: Encoder | None,
    ) -> Self:
        """Rebuild from :meth:`state`; the encoder is the one that it was fitted with."""
        features = AnswerFeatures.restore(settings["features"], arrays, encoder)
        models = tuple(settings["models"])
        return cls(
            models, features, arrays["coefficients"], arrays["bias"], bool(settings["together"])
        )


def _texts(outcomes: Outcomes) -> NDArray[np.object_]:
    assert outcomes.answers is not None
    return np.where(present(outcomes.answers), outcomes.answers, "")
