"""The large model behind an artifact, asked as it was asked when the artifact was certified.

A certificate says how often the cascade differs from *the label that the large model gave*: scored over
the closed set where it runs here, asked for by name and parsed strictly elsewhere. If the gateway then
sent the bare prompt, an escalated "osx" would come back as "OS X", and clients would have to understand
two languages. So a request that fits the task's template is asked as a row of the task; any other goes
through unchanged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

from pilotfish.errors import BadAnswer
from pilotfish.loop.rows import Template
from pilotfish.loop.task import Task
from pilotfish.models.calls import closing, stream
from pilotfish.models.labels import LabelModel, canonical_answer
from pilotfish.models.protocols import LabelScorer, Model
from pilotfish.records import Chunk, Completion, Request

# A request that says how its answer should look has its own wishes; the label alone would not meet them.
OWN_WISHES = ("labels", "answer", "range", "tools", "response_format", "logprobs", "n", "functions")


class AsLearned:
    """A model that answers a task's requests with labels, and all others as it likes.

    Args:
        model: The large model.
        task: The task of the artifact.
    """

    def __init__(self, model: Model, task: Task) -> None:
        self.name = model.name
        self.model = model
        self.task = task
        self._template = Template(task.prompt)
        self._scorer = LabelModel(model) if isinstance(model, LabelScorer) else None

    async def complete(self, request: Request) -> Completion:
        """A label where the request is one of the task's, else the model's own answer.

        An answer that is none of the labels stays as it came: it was paid for, and says more than an
        error would.
        """
        asked = self._asked(request)
        if asked is None:
            return await self.model.complete(request)
        if self._scorer is not None:
            return await self._scorer.complete(asked)
        answer = await self.model.complete(self._bare(asked))
        try:
            return dataclasses.replace(answer, text=canonical_answer(answer.text, asked.params))
        except BadAnswer:
            return answer

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """As :meth:`complete`; a label comes in one piece."""
        if self._asked(request) is not None:
            answer = await self.complete(request)
            yield Chunk(text=answer.text, completion=answer)
            return
        async with closing(stream(self.model, request)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _bare(self, asked: Request) -> Request:
        form = ("labels", "answer", "range", "blanks")
        params = {name: value for name, value in asked.params.items() if name not in form}
        return dataclasses.replace(asked, params=params)

    def _asked(self, request: Request) -> Request | None:
        if any(request.params.get(name) for name in OWN_WISHES) or not (
            self.task.labels or self.task.range
        ):
            return None
        row = self._template.match(request.prompt)
        if row is None:
            return None
        learned = self.task.request(row)
        # The client's other parameters (seed, user, ...) stay; what the label depends on is the task's.
        return dataclasses.replace(request, params={**request.params, **learned.params})
