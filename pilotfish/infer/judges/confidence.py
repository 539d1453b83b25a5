"""The answer's own probability: of its label, of its margin, or of its tokens.

The scores of the plain cascade (Wang et al. 2017), of the Bayesian margin (Scheffer et al. 2001), and
sequence likelihood with and without normalisation by length (Malinin and Gales 2021; Gupta et al. 2024).
The formulas are :data:`pilotfish.infer.CONFIDENCES`; this makes judges of them. An answer with nothing to
judge by scores 0, so that no threshold above 0 keeps it.
"""

from __future__ import annotations

import numpy as np

from pilotfish.errors import InputError
from pilotfish.infer import CONFIDENCES
from pilotfish.infer.judges.judge import Bools, only, seen
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.records import Completion, Request


class ConfidenceJudge:
    """How sure an answer is of itself.

    Args:
        confidence: A name of :data:`pilotfish.infer.CONFIDENCES`, which is the name of the judge too.
        signal: Where recorded outcomes keep it; default the same name.

    Raises:
        UnknownName: There is no such confidence.
    """

    def __init__(self, confidence: str = "top_probability", *, signal: str = "") -> None:
        self.name = confidence
        self.signal = signal or confidence
        self._of = CONFIDENCES.load(confidence)

    async def score(self, request: Request, completion: Completion) -> float:
        """The confidence, 0 when there is nothing to judge by."""
        found = self._of(completion)
        return 0.0 if found is None else float(min(max(found, 0.0), 1.0))

    def score_many(self, outcomes: Outcomes, asked: Bools | None = None) -> Floats:
        """The recorded signal.

        Raises:
            InputError: The outcomes do not have it.
        """
        if self.signal not in outcomes.signals:
            raise InputError(
                f"The outcomes have no signal {self.signal!r}.",
                remedy=f"Recorded: {', '.join(outcomes.signals) or 'none'}",
            )
        scores = np.clip(outcomes.signals[self.signal], 0.0, 1.0)
        return only(scores, seen(outcomes, asked))
