"""What a learned judge reads of a question, one model's answer, and the other answers asked for.

Alone: embeddings of question and answer (reduced), how close they are, statistics of both surfaces,
and whether a final answer is there. Together: for every other model, whether it was asked and
agrees, or was asked and does not. A linear map of the latter is the weighted vote of independent
voters, so that agreement is learned with the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.judges.same import Same
from pilotfish.infer.outcomes import Floats
from pilotfish.infer.predictors.text_statistics import text_statistics
from pilotfish.models.protocols import Encoder

DIMENSIONS = 48  # of each embedding, after the reduction
CLIP = 4.0
STEP = (
    0.3  # what one standard deviation counts for, so that one strength of regularisation fits all
)


@dataclass(frozen=True, eq=False)
class QuestionFeatures:
    """What is read of ``k`` questions.

    Attributes:
        statistics: Of the surface ``[k, statistics]``.
        embedded: Unit rows ``[k, dim]``, or None without an encoder.
        reduced: The same on the principal axes ``[k, kept]``.
    """

    statistics: Floats
    embedded: Floats | None
    reduced: Floats | None

    def take(self, rows: NDArray[np.int64]) -> QuestionFeatures:
        """The same for some of the questions."""
        return QuestionFeatures(
            self.statistics[rows],
            None if self.embedded is None else self.embedded[rows],
            None if self.reduced is None else self.reduced[rows],
        )


@dataclass(frozen=True, eq=False)
class AnswerFeatures:
    """Fitted scales of the features.

    Attributes:
        encoder: Embeds, or None without embeddings.
        same: Compares answers.
        axes: Principal axes of the embeddings ``[2, dim, kept]``, of questions and of answers.
        center: Their means ``[2, dim]``.
        location: Mean of each dense feature ``[width]``.
        scale: Standard deviation of each.
    """

    encoder: Encoder | None
    same: Same
    axes: Floats
    center: Floats
    location: Floats
    scale: Floats

    @classmethod
    def fit(
        cls, questions: Sequence[str], answers: Sequence[str], encoder: Encoder | None, pattern: str
    ) -> Self:
        """Learn axes and scales from questions and answers ``[k]`` each."""
        axes, center = np.zeros((2, 0, 0), np.float32), np.zeros((2, 0), np.float32)
        if encoder is not None:
            parts = [_axes(encoder.encode(list(texts))) for texts in (questions, answers)]
            axes = np.stack([part[0] for part in parts])
            center = np.stack([part[1] for part in parts])
        unit = np.zeros(0, np.float32)
        raw = cls(encoder, Same(pattern), axes, center, unit, unit)
        dense = raw._dense(raw.questions(questions), answers)
        scale = dense.std(axis=0)
        scale = np.where(scale > 1e-6, scale, 1.0).astype(np.float32)
        return cls(encoder, raw.same, axes, center, dense.mean(axis=0), scale)

    def questions(self, texts: Sequence[str]) -> QuestionFeatures:
        """What is read of questions alone; the same for all models' answers to them."""
        embedded = None if self.encoder is None else self.encoder.encode(list(texts))
        reduced = None if embedded is None else (embedded - self.center[0]) @ self.axes[0]
        return QuestionFeatures(text_statistics(list(texts)), embedded, reduced)

    def alone(self, questions: QuestionFeatures, answers: Sequence[str]) -> Floats:
        """Features of each question with its answer ``[k, width]``."""
        dense = (self._dense(questions, answers) - self.location) / self.scale
        out: Floats = (np.clip(dense, -CLIP, CLIP) * STEP).astype(np.float32)
        return out

    def together(
        self,
        same: Floats,
        asked: NDArray[np.bool_],
        model: int,
        logits: Floats,
        support: Floats | None = None,
    ) -> Floats:
        """Features of a model's answers among others.

        Args:
            same: Agreement of every two answers ``[n, m, m]``.
            asked: Which others may be looked at ``[n, m]``.
            model: Whose answers.
            logits: How sure one may be of each answer alone, as log-odds ``[n, m]``.
            support: :func:`votes_for` of the same, where it is wanted for several models.

        Returns:
            ``[n, 4 * m + 4]``: who agrees, who differs, both times how sure of them one may be, the mean
            agreement, the support of the strongest rival, of the answer itself, and whether others were
            asked.
        """
        others = asked.copy()
        others[:, model] = False
        agree = same[:, model] * others
        differ = (1.0 - same[:, model]) * others
        count = np.maximum(others.sum(axis=1, keepdims=True), 1)
        sure = np.clip(logits, -CLIP, CLIP) / 2
        own_vote = _votes(logits[:, [model]], asked[:, [model]])
        support = (votes_for(same, asked, logits) if support is None else support) - (
            same[:, :, model] * own_vote
        )
        rival = (support * differ).max(axis=1, keepdims=True)
        own = support[:, [model]]
        others_asked = others.any(axis=1, keepdims=True)
        parts = [agree, differ, agree * sure, differ * sure, agree.sum(1, keepdims=True) / count]
        return np.hstack([*parts, rival, own, others_asked]).astype(np.float32)

    def _dense(self, questions: QuestionFeatures, answers: Sequence[str]) -> Floats:
        final = [self.same.final(text) is not None for text in answers]
        parts = [questions.statistics, text_statistics(list(answers))]
        parts.append(np.array(final, np.float32)[:, None])
        if self.encoder is not None:
            assert questions.embedded is not None
            assert questions.reduced is not None
            embedded = self.encoder.encode(list(answers))
            parts.append((questions.embedded * embedded).sum(axis=1, keepdims=True))
            parts += [questions.reduced, (embedded - self.center[1]) @ self.axes[1]]
        return np.hstack(parts).astype(np.float32)

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """JSON values and arrays; :meth:`restore` is the inverse."""
        arrays = {
            "answers.axes": self.axes,
            "answers.center": self.center,
            "answers.location": self.location,
            "answers.scale": self.scale,
        }
        return {"pattern": self.same.pattern, "embeds": self.encoder is not None}, arrays

    @classmethod
    def restore(
        cls,
        settings: Mapping[str, Any],
        arrays: Mapping[str, NDArray[Any]],
        encoder: Encoder | None,
    ) -> Self:
        """Rebuild from :meth:`state`."""
        parts = [arrays[f"answers.{name}"] for name in ("axes", "center", "location", "scale")]
        used = encoder if settings["embeds"] else None
        return cls(used, Same(settings["pattern"]), *parts)


def votes_for(same: Floats, asked: NDArray[np.bool_], logits: Floats) -> Floats:
    """Sum of the probabilities of all answers asked for that agree with each ``[n, m]``."""
    found: Floats = np.matmul(same, _votes(logits, asked)[:, :, None])[:, :, 0]
    return found


def _votes(logits: Floats, asked: NDArray[np.bool_]) -> Floats:
    found: Floats = (0.5 * (1 + np.tanh(0.5 * logits)) * asked).astype(np.float32)
    return found


def _axes(rows: Floats) -> tuple[Floats, Floats]:
    center = rows.mean(axis=0)
    _, vectors = np.linalg.eigh(((rows - center).T @ (rows - center)).astype(np.float64))
    return vectors[:, ::-1][:, :DIMENSIONS].astype(np.float32), center
