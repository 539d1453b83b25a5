"""Sample agreement: the small model is asked again, and its answer is as good as its samples agree.

Mixture of thought (Yue et al. 2024): the small model answers several times, through one or several
ways of asking (a chain of thought and a program of thought), and the large one is asked where the
answers do not agree. *Vote*: the share of all samples that give the answer. *Verify*: the majority
answers of the ways must be the same; then, and only then, the answer is kept. Without a closed
answer the agreement of texts counts, as in SelfCheckGPT (Manakul et al. 2023).

Differences: the answer at hand is the first sample of the first way; the paper keeps the majority answer,
and in the vote form these are the same wherever a threshold of a half or more is passed.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from pilotfish.errors import ConfigError
from pilotfish.infer.judges.judge import Bools
from pilotfish.infer.judges.same import Same, majority
from pilotfish.infer.judges.verification import recorded
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.models.protocols import Model
from pilotfish.records import Completion, Request

Way = Callable[[Request], Request]


class SampleAgreement:
    """Asks again and compares.

    Args:
        model: Whose samples count; usually the one that gave the answer.
        samples: Further answers for each way of asking (the paper: 20 in all).
        temperature: Of the samples (the paper: 0.4 to 0.8).
        ways: How to ask, as functions from request to request; default as it was asked.
        form: ``"vote"`` or ``"verify"``, which needs two ways at least.
        pattern: Finds the final answer, see :class:`~pilotfish.infer.judges.same.Same`.

    Raises:
        ConfigError: A number or form that cannot be.
    """

    def __init__(
        self,
        model: Model,
        *,
        samples: int = 5,
        temperature: float = 0.7,
        ways: Sequence[Way] = (),
        form: Literal["vote", "verify"] = "vote",
        pattern: str = "",
    ) -> None:
        if samples < 1:
            raise ConfigError(f"Got samples={samples}, but expected at least 1.")
        if form not in ("vote", "verify") or (form == "verify" and len(ways) < 2):
            raise ConfigError(
                f"Got form={form!r} with {len(ways)} ways, but expected 'vote', or 'verify' with two "
                "ways of asking at least."
            )
        self.name = "sample-agreement"
        self.model = model
        self.samples = samples
        self.temperature = temperature
        self.ways: tuple[Way, ...] = tuple(ways) or (lambda request: request,)
        self.form = form
        self.same = Same(pattern)

    async def score(self, request: Request, completion: Completion) -> float:
        """How far the samples agree with the answer.

        Raises:
            ModelError: A sample was not given.
        """
        asked = [
            _sampled(way(request), self.temperature, i)
            for way in self.ways
            for i in range(self.samples)
        ]
        given = await asyncio.gather(*(self.model.complete(each) for each in asked))
        texts = [each.text for each in given]
        if self.form == "verify":
            groups = [texts[i : i + self.samples] for i in range(0, len(texts), self.samples)]
            return verified(self.same, completion.text, groups)
        return voted(self.same, completion.text, texts)

    def score_many(self, outcomes: Outcomes, asked: Bools | None = None) -> Floats:
        """The recorded signal ``"sample-agreement"``.

        Raises:
            InputError: The outcomes do not have it.
        """
        return recorded(outcomes, asked, self.name)


def voted(same: Same, answer: str, samples: Sequence[str]) -> float:
    """Mean agreement of all samples, the answer included, with the answer.

    >>> voted(Same("[0-9]+"), "so 7", ["7", "it is 7", "8"])
    0.75
    """
    return sum(same.agreement(answer, each) for each in (answer, *samples)) / (len(samples) + 1)


def verified(same: Same, answer: str, groups: Sequence[Sequence[str]]) -> float:
    """1 when the answer is the majority's in every group, else 0."""
    mine = same.final(answer)
    ours = [majority([same.final(each) for each in group])[0] for group in groups]
    return float(mine is not None and all(each == mine for each in ours))


def _sampled(request: Request, temperature: float, sample: int) -> Request:
    params = {**request.params, "temperature": temperature, "seed": sample + 1}
    return dataclasses.replace(request, params=params)
