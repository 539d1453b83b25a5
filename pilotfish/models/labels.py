"""Closed labels from any model: scored by likelihood where it runs here, parsed strictly elsewhere.

:class:`LabelModel` wraps a model and is one. A request says in its parameters what its answer may be:

- ``labels``: the closed set; ``answer``: ``"label"`` (one of them, the default), ``"labels"`` (any number
  of them) or ``"rating"`` (the labels are values in ascending order).
- ``range``: ``[low, high]`` of a continuous rating, instead of labels.
- ``blanks``: the prompt with content-free inputs, a list of texts: a scorer subtracts what the labels get
  there (contextual calibration, see :mod:`pilotfish.models.llamacpp`).

They are taken out before the wrapped model sees the request. Requests without them pass through.
"""

from __future__ import annotations

import asyncio
import json
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pilotfish.errors import BadAnswer, InputError, ModelError
from pilotfish.models.parse import check_labels, parse_label, parse_labels, parse_rating
from pilotfish.models.protocols import Floats, LabelScorer, Model
from pilotfish.records import Completion, Request, Usage

__all__ = ["LabelModel", "parse_label", "parse_labels", "parse_rating"]

KINDS = ("label", "labels", "rating")
MAX_BATCH = 64
GATHER = 0.002  # seconds to wait for others before a batch starts; a model call takes 50 and more
_CONTROLS = ("labels", "answer", "range")
_SCORING = ("blanks",)  # for scorers only
YES_NO = ("yes", "no")


@dataclass(frozen=True, slots=True)
class _Form:
    """What an answer may be."""

    kind: str
    labels: tuple[str, ...]
    scale: tuple[float, float] | None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> _Form:
        """Read a request's ``answer``, ``labels`` and ``range``."""
        kind, labels, scale = (params.get(k) for k in ("answer", "labels", "range"))
        kind = kind or "label"
        if kind not in KINDS:
            raise InputError(f"Got answer={kind!r}, but expected one of {', '.join(KINDS)}.")
        if scale is not None:
            if kind != "rating" or labels or len(scale) != 2:
                raise InputError(
                    f"Got range={scale!r} with answer={kind!r}, but expected a range [low, high] "
                    "with answer='rating' and no labels."
                )
            parse_rating(str(scale[0]), scale=(float(scale[0]), float(scale[1])))
            return cls(kind, (), (float(scale[0]), float(scale[1])))
        known = tuple(check_labels(labels or ()).values())
        if kind == "rating":
            parse_rating(known[0], known)
        return cls(kind, known, None)

    def parse(self, text: str) -> str:
        """The canonical answer.

        Raises:
            BadAnswer: The text is none.
        """
        if self.kind == "label":
            return parse_label(text, self.labels)
        if self.kind == "labels":
            return json.dumps(parse_labels(text, self.labels), ensure_ascii=False)
        return parse_rating(text, self.labels, scale=self.scale)


def canonical_answer(text: str, params: Mapping[str, Any]) -> str:
    """An answer as a request's ``labels``, ``answer`` and ``range`` name it.

    Raises:
        BadAnswer: The text is none of them.

    >>> canonical_answer("The answer is: Linux.", {"labels": ["osx", "linux"]})
    'linux'
    """
    return _Form.of(params).parse(text)


class LabelModel:
    """A model whose answers are labels.

    ``Completion.extra`` gets ``label``, the canonical answer or None when the model's answer did not
    parse, and ``raw``, what it wrote; ``text`` is the label, else the raw text. A bad answer raises
    nothing: it was paid for. For ``"labels"`` the canonical answer is a JSON list in the set's order.

    With a :class:`~pilotfish.models.protocols.LabelScorer`, labels and rating values are scored by
    likelihood and ``label_probs`` is filled; concurrent calls are batched. ``"labels"`` then asks one
    yes/no question per label and keeps those whose "yes" is likelier than "no"; ``label_probs`` are
    these probabilities.

    Args:
        model: The model that answers.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.name = model.name
        self._batchers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Batcher] = (
            weakref.WeakKeyDictionary()
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    async def complete(self, request: Request) -> Completion:
        """Answer with a label.

        Raises:
            InputError: The label set, range or kind is unusable.
            ModelError: The model did not answer.
        """
        if not any(key in request.params for key in ("labels", "range")):
            return await self.model.complete(_without(request, (*_CONTROLS, *_SCORING)))
        form = _Form.of(request.params)
        if isinstance(self.model, LabelScorer) and form.labels:
            return await self._scored(request, form)
        completion = await self.model.complete(_without(request, (*_CONTROLS, *_SCORING)))
        try:
            label: str | None = form.parse(completion.text)
        except BadAnswer:
            label = None
        extra = {**completion.extra, "label": label, "raw": completion.text}
        text = completion.text if label is None else label
        return replace(completion, text=text, extra=extra)

    async def _scored(self, request: Request, form: _Form) -> Completion:
        started = time.monotonic()
        batcher = self._batcher()
        plain = _without(request, _CONTROLS)
        if form.kind == "labels":
            # The blanks are of the user's question, not of these.
            alone = _without(plain, _SCORING)
            questions = [_about(alone, label) for label in form.labels]
            rows = await asyncio.gather(*(batcher.score(q, YES_NO) for q in questions))
            p = np.exp(np.stack(rows)[:, 0])
            chosen = [label for label, each in zip(form.labels, p, strict=True) if each > 0.5]
            text = json.dumps(chosen, ensure_ascii=False)
        else:
            p = np.exp(await batcher.score(plain, form.labels))
            text = form.labels[int(p.argmax())]
        usage = Usage(prompt_tokens=self._tokens(plain))
        price = getattr(self.model, "price", None)
        return Completion(
            text=text,
            model=self.name,
            usage=usage,
            cost=price.cost(usage) if price else None,
            latency=time.monotonic() - started,
            label_probs={k: float(v) for k, v in zip(form.labels, p, strict=True)},
            extra={"label": text, "raw": text},
        )

    def _tokens(self, request: Request) -> int:
        count = getattr(self.model, "prompt_tokens", None)
        return len(count(request)) if count else 0

    def _batcher(self) -> _Batcher:
        loop = asyncio.get_running_loop()
        if loop not in self._batchers:
            assert isinstance(self.model, LabelScorer)
            self._batchers[loop] = _Batcher(self.model)
        return self._batchers[loop]


class _Batcher:
    """Collects the calls that are waiting and scores them together; one per event loop."""

    def __init__(self, scorer: LabelScorer) -> None:
        self._scorer = scorer
        self._waiting: dict[tuple[str, ...], list[tuple[Request, asyncio.Future[Floats]]]] = {}
        self._under_way: list[tuple[Request, asyncio.Future[Floats]]] = []
        self._task: asyncio.Task[None] | None = None
        self._scoring: asyncio.Task[Floats] | None = None

    async def score(self, request: Request, labels: Sequence[str]) -> Floats:
        """Log-probabilities ``[labels]`` of one request."""
        future: asyncio.Future[Floats] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tuple(labels), []).append((request, future))
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._drain())
            self._task.add_done_callback(self._fail)
        return await future

    def _fail(self, task: asyncio.Task[None]) -> None:
        """Pass on what ended the batches: whoever waits must not wait for ever."""
        error = None if task.cancelled() else task.exception()
        for _, future in [*self._under_way, *(p for q in self._waiting.values() for p in q)]:
            if not future.done() and (error is not None or task.cancelled()):
                future.cancel() if error is None else future.set_exception(error)
        self._under_way = []

    def _stop_if_alone(self, _: asyncio.Future[Floats]) -> None:
        """When nobody waits for the batch any more, its work stops as well."""
        if self._scoring and all(future.cancelled() for _, future in self._under_way):
            self._scoring.cancel()

    async def _drain(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER)
            labels = next(iter(self._waiting))
            queue = [pair for pair in self._waiting.pop(labels) if not pair[1].done()]
            if queue[MAX_BATCH:]:
                self._waiting[labels] = queue[MAX_BATCH:]
            self._under_way = queue[:MAX_BATCH]
            await self._answer(self._under_way, labels)

    async def _answer(
        self, batch: list[tuple[Request, asyncio.Future[Floats]]], labels: tuple[str, ...]
    ) -> None:
        if not batch:
            return
        call = self._scorer.score_labels([request for request, _ in batch], labels)
        self._scoring = asyncio.ensure_future(call)
        for _, future in batch:
            future.add_done_callback(self._stop_if_alone)
        try:
            rows = await self._scoring
        except ModelError as error:
            if len(batch) == 1:
                if not batch[0][1].done():
                    batch[0][1].set_exception(error)
                return
            # One of them cannot be answered; the others must not suffer for it.
            for pair in batch:
                self._under_way = [pair]
                await self._answer([pair], labels)
            return
        except asyncio.CancelledError:
            return
        for (_, future), row in zip(batch, rows, strict=True):
            if not future.done():
                future.set_result(row)


def _without(request: Request, names: Sequence[str]) -> Request:
    params = {k: v for k, v in request.params.items() if k not in names}
    return request if len(params) == len(request.params) else replace(request, params=params)


def _about(request: Request, label: str) -> Request:
    """The yes/no question whether one label of a multi-label task holds."""
    last = max(i for i, m in enumerate(request.messages) if m.get("role") == "user")
    question = f"{request.prompt}\n\nDoes the label {label!r} apply? Answer yes or no."
    messages = [
        {**m, "content": question} if i == last else m for i, m in enumerate(request.messages)
    ]
    return replace(request, messages=tuple(messages))
