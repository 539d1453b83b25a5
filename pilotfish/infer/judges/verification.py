"""Self-verification: a model is asked several times whether an answer is correct.

AutoMix (Aggarwal et al. 2024) shows the small model its own answer in a few-shot prompt, samples ``k``
verdicts, and takes the share of "correct" as the confidence. In its threshold form a cascade compares
that share with a threshold; its POMDP form is :mod:`pilotfish.infer.policies.verification_pomdp`.

Differences: the paper verifies answers against a context paragraph and stops each verdict at its
first line; here the context is whatever the request holds, and the verdict is the last "correct" or
"incorrect" (or yes or no) of what was said. A verdict that is neither counts as none; without any
verdict the score is 0.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import numpy as np

from pilotfish.errors import ConfigError, InputError, ModelError
from pilotfish.infer.judges.judge import Bools, only, seen
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.models.protocols import Model
from pilotfish.records import Completion, Request

EXAMPLES: tuple[tuple[str, str, str], ...] = (
    (
        "How many legs do two spiders have?",
        "16",
        "A spider has 8 legs, 2 x 8 = 16. Verdict: correct",
    ),
    ("Which is the largest planet?", "Saturn", "Jupiter is larger than Saturn. Verdict: incorrect"),
)
VERDICT = re.compile(
    r"((?:\bnot|n['\u2019]t)\s+(?:(?:quite|entirely|fully|completely|totally)\s+)?)?"
    r"\b(?:(in)?correct|(yes)|(no))\b",
    re.IGNORECASE,
)


class SelfVerification:
    """Asks a model for verdicts on an answer.

    Args:
        model: Gives the verdicts; in AutoMix the model that gave the answer.
        samples: How many verdicts, ``k`` (the paper: 8).
        temperature: Of the verdicts (the paper: 0.7); with one sample 0 does.
        examples: Question, answer and verdict of each example shown.
        max_tokens: Of a verdict.

    Raises:
        ConfigError: ``samples`` is below 1.
    """

    def __init__(
        self,
        model: Model,
        *,
        samples: int = 8,
        temperature: float = 0.7,
        examples: Sequence[tuple[str, str, str]] = EXAMPLES,
        max_tokens: int = 128,
    ) -> None:
        if samples < 1:
            raise ConfigError(f"Got samples={samples}, but expected at least 1.")
        self.name = "self-verification"
        self.model = model
        self.samples = samples
        self.temperature = temperature
        self.examples = tuple(examples)
        self.max_tokens = max_tokens

    def ask_about(self, request: Request, answer: str, sample: int = 0) -> Request:
        """The request for one verdict; samples differ by their seed, so that a cache keeps them apart."""
        question = "\n".join(
            str(m.get("content") or "") for m in request.messages if m.get("role") != "system"
        )
        shown = [_form(q, a) + v for q, a, v in self.examples]
        prompt = "\n\n".join([_INSTRUCTION, *shown, _form(question, answer)])
        return Request.of(
            prompt, temperature=self.temperature, max_tokens=self.max_tokens, seed=sample
        )

    async def score(self, request: Request, completion: Completion) -> float:
        """The share of verdicts that say "correct".

        Raises:
            ModelError: No verdict was given at all.
        """
        asked = [self.ask_about(request, completion.text, i) for i in range(self.samples)]
        given = await asyncio.gather(
            *(self.model.complete(each) for each in asked), return_exceptions=True
        )
        verdicts, failed = [], []
        for each in given:
            if isinstance(each, Completion):
                verdicts.append(verdict(each.text))
            elif isinstance(each, ModelError):
                failed.append(each)
            else:
                raise each
        if not verdicts:
            raise failed[0]
        clear = [each for each in verdicts if each is not None]
        return sum(clear) / len(clear) if clear else 0.0

    def score_many(self, outcomes: Outcomes, asked: Bools | None = None) -> Floats:
        """The recorded signal ``"self-verification"``.

        Raises:
            InputError: The outcomes do not have it.
        """
        return recorded(outcomes, asked, self.name)


_INSTRUCTION = (
    "Decide whether the answer to a question is correct. Think briefly, then end with "
    '"Verdict: correct" or "Verdict: incorrect".'
)


def _form(question: str, answer: str) -> str:
    return f"Question: {question}\nAnswer: {answer}\nVerification: "


def verdict(text: str) -> bool | None:
    """Whether the last verdict in a text is that the answer is right; None without one.

    >>> verdict("It seems correct at first. Verdict: incorrect"), verdict("Hm.")
    (False, None)
    """
    found = [*VERDICT.finditer(text)]
    if not found:
        return None
    denied, wrong, yes, no = found[-1].groups()
    if yes or no:
        return bool(yes)
    return bool(denied) == bool(wrong)


def recorded(outcomes: Outcomes, asked: Bools | None, signal: str) -> Floats:
    """A signal that a judge left in the outcomes.

    Raises:
        InputError: The outcomes do not have it.
    """
    if signal not in outcomes.signals:
        raise InputError(
            f"The outcomes have no signal {signal!r}.",
            remedy="Record it as a column of that name; see docs/guides/routing.md",
        )
    return only(np.clip(outcomes.signals[signal], 0.0, 1.0), seen(outcomes, asked))
