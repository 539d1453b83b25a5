"""A model that says what the test wants: scripted answers, faults, latency, probabilities.

It ships with the library so that users can test what they build on Pilotfish without a key, a network or
a mock. Everything is deterministic. For what happens on the wire there is
:class:`pilotfish.models.fake_server.FakeServer`.

>>> from pilotfish.models.calls import ask
>>> model = FakeModel({"2+2?": "4"})
>>> ask(model, "2+2?").text, [request.prompt for request in model.requests]
('4', ['2+2?'])
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pilotfish.config import Config, Price
from pilotfish.errors import InputError, ModelError, RequestRefused
from pilotfish.models.fake_replies import split_words
from pilotfish.models.protocols import Floats
from pilotfish.models.settings import RemoteSettings, find_price, read_settings
from pilotfish.records import Chunk, Completion, Request, Usage

Answer = str | Completion
Answers = str | Sequence[Answer] | Mapping[str, Answer] | Callable[[Request], Answer]
LabelProbs = Mapping[str, Mapping[str, float]] | Callable[[Request], Mapping[str, float]]


class FakeSettings(RemoteSettings, kw_only=True, frozen=True):
    """Settings of the ``fake`` backend in pilotfish.toml; of the remote ones, name and price count.

    Attributes:
        answers: Prompt to answer; without it every answer is the text of the spec.
        latency: Seconds each answer takes.
    """

    answers: dict[str, str] | None = None
    latency: float = 0.0


class FakeModel:
    """A scripted model; it can stream, word by word.

    Args:
        answers: One text for everything; or a list, used once each in order; or a mapping from prompt to
            answer; or a function of the request. An answer is a text or a whole completion.
        name: The name that answers carry.
        latency: Seconds before an answer, or a function of the request; also its reported latency.
        faults: What each request in turn meets: an error, which is raised, or None. After the last one
            all is well; ``itertools.cycle`` makes a pattern endless.
        label_probs: Probability per label, by prompt or as a function of the request; put into
            ``Completion.label_probs``.
        price: Gives every answer a cost; usage counts words.

    Attributes:
        requests: Every request seen, in order, those that met a fault included.
        active: Requests under way.
        max_active: The most that were ever under way at once.
    """

    def __init__(
        self,
        answers: Answers = "",
        *,
        name: str = "fake",
        latency: float | Callable[[Request], float] = 0.0,
        faults: Iterable[ModelError | None] = (),
        label_probs: LabelProbs | None = None,
        price: Price | None = None,
    ) -> None:
        self.name = name
        self.requests: list[Request] = []
        self.active = self.max_active = 0
        self._answers = answers
        self._script = _script(answers)
        self._latency = latency
        self._faults = iter(faults)
        self._label_probs = label_probs
        self._price = price

    @classmethod
    def from_spec(cls, rest: str, settings: Mapping[str, Any], config: Config) -> FakeModel:
        """Build from ``fake:TEXT``: every answer is TEXT, unless ``answers`` says otherwise."""
        checked = read_settings("fake", FakeSettings, settings)
        name = checked.name or "fake"
        return cls(
            rest if checked.answers is None else checked.answers,
            name=name,
            latency=checked.latency,
            price=find_price(checked, config, name),
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, requests={len(self.requests)})"

    async def complete(self, request: Request) -> Completion:
        """Answer by the script.

        Raises:
            ModelError: The scripted fault; ``RequestRefused`` when the script has no answer.
        """
        fault = self._note(request)
        self.active += 1
        self.max_active = max(self.max_active, self.active)
        try:
            latency = self._latency(request) if callable(self._latency) else self._latency
            # Always a turn of the loop, so that concurrency is seen as with a real model.
            await asyncio.sleep(latency)
            if fault is not None:
                raise fault
            return self._completion(request, latency)
        finally:
            self.active -= 1

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Answer word by word; the last chunk carries the whole completion."""
        completion = await self.complete(request)
        for word in split_words(completion.text):
            await asyncio.sleep(0)
            yield Chunk(text=word, delta={"content": word}, model=self.name)
        yield Chunk(completion=completion)

    def _note(self, request: Request) -> ModelError | None:
        self.requests.append(request)
        return next(self._faults, None)

    def _completion(self, request: Request, latency: float) -> Completion:
        answer = self._answer(request)
        if isinstance(answer, str):
            asked = sum(len(str(m.get("content") or "").split()) for m in request.messages)
            usage = Usage(prompt_tokens=asked, completion_tokens=len(split_words(answer)))
            cost = self._price.cost(usage) if self._price else None
            answer = Completion(answer, self.name, usage=usage, cost=cost, latency=latency)
        if self._label_probs is not None:
            answer = replace(answer, label_probs=self._probabilities(request))
        return answer

    def _answer(self, request: Request) -> Answer:
        if callable(self._answers):
            return self._answers(request)
        if isinstance(self._answers, str):
            return self._answers
        if isinstance(self._answers, Mapping):
            if request.prompt in self._answers:
                return self._answers[request.prompt]
            raise RequestRefused(
                f"{self.name} has no answer for the prompt {request.prompt[:200]!r}.",
                remedy=f"Add it to its {len(self._answers)} scripted answers.",
            )
        answer = next(self._script, None) if self._script else None
        if answer is None:
            raise RequestRefused(
                f"{self.name} has {len(self._answers)} scripted answers, but was asked once more.",
                remedy="Add an answer to the list, or give a function.",
            )
        return answer

    def _probabilities(self, request: Request) -> Mapping[str, float]:
        if callable(self._label_probs):
            return self._label_probs(request)
        if self._label_probs is None or request.prompt not in self._label_probs:
            raise RequestRefused(
                f"{self.name} has no label probabilities for the prompt {request.prompt[:200]!r}.",
                remedy="Add them to label_probs, or give a function.",
            )
        return self._label_probs[request.prompt]


class FakeScorer(FakeModel):
    """A fake that also scores closed label sets, a :class:`~pilotfish.models.protocols.LabelScorer`.

    It is a class of its own because callers ask by protocol whether a model can score. Needs
    ``label_probs``.
    """

    async def score_labels(self, requests: Sequence[Request], labels: Sequence[str]) -> Floats:
        """Log-probability of each label: ``[n, labels]``, rows normalised over the labels asked for.

        Raises:
            InputError: A request's probabilities lack a label, or all of them are 0.
            ModelError: The scripted fault of one of the requests.
        """
        rows = np.zeros((len(requests), len(labels)), dtype=np.float64)
        for position, request in enumerate(requests):
            fault = self._note(request)
            if fault is not None:
                raise fault
            known = self._probabilities(request)
            missing = [label for label in labels if label not in known]
            if missing:
                raise InputError(f"Got no probability for the labels {missing}.")
            rows[position] = [known[label] for label in labels]
        totals = rows.sum(axis=1, keepdims=True)
        if (totals <= 0).any():
            raise InputError("Got label probabilities that sum to 0, but expected a positive sum.")
        with np.errstate(divide="ignore"):
            logs: Floats = np.log(rows / totals).astype(np.float32)
        return logs


def _script(answers: Answers) -> Iterator[Answer] | None:
    """The answers one by one, when they are a list."""
    if isinstance(answers, (str, Mapping)) or callable(answers):
        return None
    return iter(answers)
