"""Cascades: models in stages, and the score from which each stage's answer is kept.

FrugalGPT (Chen, Zaharia and Zou 2023) and IDK cascades (Wang et al. 2017) are stages of one model
each; Synergy of Thoughts (Shang et al. 2024) has several small models in the first stage and judges
their agreement. :mod:`pilotfish.infer.policies.chain_search` chooses the order and the thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pilotfish.errors import ConfigError
from pilotfish.infer.outcomes import Floats
from pilotfish.infer.policies.policy import STOP, Bools, Ints, Step, View


@dataclass(frozen=True)
class Chain:
    """Asks stage after stage.

    Attributes:
        models: The models.
        stages: Positions of the models of each stage, which are asked one after the other; no model
            stands in two stages.
        thresholds: One for each stage but the last: the answer is kept from this score on.
        answer: Whose answer is given: the best scored of the ``"last"`` stage asked (as in FrugalGPT), or
            of ``"all"`` that were asked.

    Raises:
        ConfigError: The stages and thresholds do not fit.
    """

    models: tuple[str, ...]
    stages: tuple[tuple[int, ...], ...]
    thresholds: tuple[float, ...]
    answer: Literal["last", "all"] = "last"

    def __post_init__(self) -> None:
        flat = [position for stage in self.stages for position in stage]
        if len(set(flat)) != len(flat) or not all(self.stages) or not self.stages:
            raise ConfigError(f"Got stages {self.stages}, but expected each model once at most.")
        if flat and not 0 <= min(flat) <= max(flat) < len(self.models):
            raise ConfigError(f"Got stages {self.stages} for {len(self.models)} models.")
        if len(self.thresholds) != len(self.stages) - 1:
            raise ConfigError(
                f"Got {len(self.stages)} stages and {len(self.thresholds)} thresholds, but expected one "
                "for each stage but the last."
            )

    @classmethod
    def of(
        cls,
        models: Sequence[str],
        stages: Sequence[str | Sequence[str]],
        thresholds: Sequence[float],
        answer: Literal["last", "all"] = "last",
    ) -> Chain:
        """Build from names; a stage is a name or several."""
        names = tuple(models)
        groups = [[stage] if isinstance(stage, str) else stage for stage in stages]
        positions = tuple(tuple(names.index(name) for name in group) for group in groups)
        return cls(names, positions, tuple(thresholds), answer)

    def step(self, view: View) -> Step:
        """Ask whoever of the present stage was not asked; else compare, and stop or go on."""
        n = len(view.asked)
        ask: Ints = np.full(n, STOP, np.int64)
        answer: Ints = np.full(n, STOP, np.int64)
        margin = np.zeros(n, np.float32)
        going: Bools = np.ones(n, bool)
        judged = view.judged()
        for number, stage in enumerate(self.stages):
            members = np.array(stage)
            missing = ~view.asked[:, members]
            asks = going & missing.any(axis=1)
            ask[asks] = members[missing.argmax(axis=1)][asks]
            going &= ~asks
            pool = members
            if self.answer == "all":
                pool = np.array(
                    [position for group in self.stages[: number + 1] for position in group]
                )
            best = pool[judged[:, pool].argmax(axis=1)]
            stage_score: Floats = judged[:, members].max(axis=1)
            last = number == len(self.stages) - 1
            if last:
                keeps = going
            else:
                # Where a later stage was asked, this one was refused, whatever its score has become.
                later = np.array([j for group in self.stages[number + 1 :] for j in group])
                refused = view.asked[:, later].any(axis=1)
                keeps = going & ~refused & (stage_score >= self.thresholds[number])
            answer[keeps] = best[keeps]
            margin[keeps] = judged[np.arange(n), best][keeps]
            going = going & ~keeps
            if last:
                break
        return Step(ask, answer, margin)


def synergy_of_thoughts(
    models: Sequence[str], small: Sequence[str], large: str, *, agree: float = 1.0
) -> Chain:
    """All small models answer; where they do not agree, the large one does (Shang et al. 2024).

    To be judged by :class:`~pilotfish.infer.judges.model_agreement.ModelAgreement`, ``agree`` being the
    weighted share that must say the same.
    """
    return Chain.of(models, [tuple(small), large], [agree])


def data_shunt(models: Sequence[str], small: str, large: str, *, confidence: float = 0.9) -> Chain:
    """The small model keeps what it is confident of (Data Shunt, Chen et al. 2024).

    The plus, that the large model is told the small one's best labels, is the composite ``narrow``
    (:mod:`pilotfish.infer.narrow`).
    """
    return Chain.of(models, [small, large], [confidence])
