"""Requests to the gateway as rows of the store, and the minutes that sum them up.

The time spent here is taken from the gateway's own: one interpreter runs one thread at a time. So a
record is encoded by msgspec (1 microsecond, where ``json`` takes 6), and compressed only above
:data:`COMPRESS_ABOVE` bytes: zlib at level 1 makes it a third of its size, for 10 to 30 microseconds and
two hand-overs of the interpreter's lock.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from math import isfinite
from typing import Any

import msgspec

from pilotfish.errors import StoreError
from pilotfish.records import Completion, Request
from pilotfish.store.encoding import escape, pack_record
from pilotfish.store.gateway_schema import MAX_LABEL
from pilotfish.store.latency import bucket_of

COMPRESS_ABOVE = 2048  # bytes
_MOST = 2**53  # tokens: a provider's nonsense must not overflow a sum


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request to the gateway and what came of it.

    Attributes:
        id: ``"req_"`` and hexadecimal digits; unique.
        time: When it came in, seconds since 1970.
        caller: Id of the API key, or "".
        task: The task it belongs to, or "".
        asked: The name of the model that was asked for.
        endpoint: ``"chat"``, ``"completions"``, ``"embeddings"`` or ``"responses"``.
        streamed: Whether the answer was streamed.
        status: HTTP status; 499 when the client left before the end.
        error: Stable code, or "".
        latency: Seconds to the last byte.
        first_byte: Seconds to the first byte of the answer, None when there was none.
        request: What was asked; None where texts are not kept.
        completion: What was answered, or None. Where texts are not kept, its text is "".
        baseline: US dollars that the large model would have cost, None when unknown.
    """

    id: str
    time: float
    caller: str
    task: str
    asked: str
    endpoint: str
    streamed: bool
    status: int
    error: str
    latency: float
    first_byte: float | None
    request: Request | None
    completion: Completion | None
    baseline: float | None


def new_request_id(time: float) -> str:
    """``"req_"`` and 24 hexadecimal digits: the milliseconds of a moment (12), then random ones.

    Later ids sort behind earlier ones, so that the store's index of ids grows at its end. With 160,000
    requests stored and groups of 50, that is 24 microseconds of processor time a request instead of 59.

    >>> new_request_id(1790000000.0)[:16]
    'req_01a0c4506c00'
    """
    return f"req_{int(time * 1000):012x}{os.urandom(6).hex()}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"Got a {type(value).__name__} in a record, but expected JSON values.")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def pack(record: Request | Completion) -> bytes:
    """A record as JSON, compressed where that pays; :func:`unpack` is the inverse.

    Raises:
        TypeError: It holds something that is no JSON value.
    """
    try:
        # msgspec writes null for what JSON has no number for, and log-probabilities may be -inf.
        exact = isinstance(record, Request) or not (record.logprobs or record.label_probs)
        blob = _encode(record) if exact else pack_record(record)
    except (UnicodeEncodeError, OverflowError):  # lone surrogates; integers beyond 64 bits
        blob = pack_record(record)
    return zlib.compress(blob, 1) if len(blob) > COMPRESS_ABOVE else blob


def unpack(blob: bytes) -> bytes:
    """The JSON text that :func:`pack` made; UTF-8, but for lone surrogates (see ``encoding``)."""
    blob = bytes(blob)
    return zlib.decompress(blob) if blob[:1] == b"\x78" else blob


@lru_cache(4096)
def label(name: str) -> str:
    """A name as it is stored: escaped, and cut at ``MAX_LABEL`` characters."""
    return escape(name[:MAX_LABEL])


def _dollars(amount: float | None) -> float | None:
    return amount if amount is not None and isfinite(amount) else None


def _count(tokens: int) -> int:
    return tokens if 0 <= tokens <= _MOST else 0 if tokens < 0 else _MOST


def decided(completion: Completion) -> str:
    """The outermost decision as ``by|chose|reason``, "" without one."""
    if not completion.decisions:
        return ""
    last = completion.decisions[-1]
    return escape(f"{last.by[:MAX_LABEL]}|{last.chose[:MAX_LABEL]}|{last.reason[:MAX_LABEL]}")


def escalated(completion: Completion) -> bool:
    """Whether an answer of some member was refused as not good enough (not: failed, or skipped)."""
    return any(not d.chose and d.threshold is not None for d in completion.decisions)


class Group:
    """Exchanges that are written together: their rows, and their sums by minute.

    Args:
        exchanges: The second one of an id is left out.

    Attributes:
        rows: Id to the row, a tuple in the order of the table's columns without ``id``.
        minutes: Key of the minute's row to its :class:`Sums`.
        refused: Id to the error of each exchange that holds something that is no JSON value.
    """

    def __init__(self, exchanges: Iterable[Exchange]) -> None:
        self.rows: dict[str, tuple[Any, ...]] = {}
        self.minutes: dict[tuple[Any, ...], Sums] = {}
        self.refused: dict[str, StoreError] = {}
        self._exchanges: dict[str, Exchange] = {}
        for exchange in exchanges:
            if exchange.id in self.rows:
                continue
            try:
                self._add(exchange)
            except (TypeError, ValueError, RecursionError) as error:
                # Without its cause, which would quote the texts.
                self.refused[exchange.id] = StoreError(
                    f"The exchange {exchange.id} cannot be written: {type(error).__name__} in its "
                    "request or answer, but expected JSON values."
                )
            else:
                self._exchanges[exchange.id] = exchange

    def without(self, ids: Collection[str]) -> Group:
        """The group without these exchanges."""
        return Group(x for x in self._exchanges.values() if x.id not in ids)

    def _add(self, x: Exchange) -> None:
        request, completion = x.request, x.completion
        latency = x.latency if isfinite(x.latency) else 0.0
        baseline = _dollars(x.baseline)
        asked, task = label(x.asked), label(x.task)
        model, cost, reason = "", None, ""
        prompt = answered = cached = 0
        if completion is not None:
            model, cost, reason = label(completion.model), _dollars(completion.cost), ""
            usage = completion.usage
            prompt, answered = _count(usage.prompt_tokens), _count(usage.completion_tokens)
            cached = _count(usage.cached_tokens)
            if completion.decisions:
                reason = decided(completion)
        self.rows[x.id] = (
            x.id,
            x.time,
            label(x.caller),
            task,
            asked,
            x.endpoint,
            model,
            x.streamed,
            x.status,
            label(x.error),
            prompt,
            answered,
            cached,
            cost,
            baseline,
            latency,
            x.first_byte,
            reason,
            None if request is None else pack(request),
            None if completion is None else pack(completion),
        )
        # Names that nothing is served under are whatever a client sends: they must not make rows.
        known = asked if x.error != "model_not_found" else ""
        key = (int(x.time // 60), known, model, task, x.status)
        sums = self.minutes.get(key)
        if sums is None:
            sums = self.minutes[key] = Sums()
        sums.requests += 1
        sums.errors += x.status >= 400
        sums.latency += latency
        bucket = bucket_of(latency)
        sums.histogram[bucket] = sums.histogram.get(bucket, 0) + 1
        if completion is not None:
            sums.prompt_tokens += prompt
            sums.completion_tokens += answered
            if cost is None:
                sums.unpriced += 1
            else:
                sums.cost += cost
                if baseline is not None:
                    sums.compared += 1
                    sums.compared_cost += cost
                    sums.compared_baseline += baseline
            if completion.decisions and escalated(completion):
                sums.escalated += 1
        if baseline is None:
            sums.baseline_unknown += 1
        else:
            sums.baseline += baseline


@dataclass(slots=True)
class Sums:
    """What the requests of one minute, model, task and status come to.

    Attributes:
        requests: How many.
        errors: Those with an HTTP status of 400 and more.
        escalated: Those for which a smaller model's answer was not good enough.
        prompt_tokens: Sum.
        completion_tokens: Sum.
        cost: US dollars, where known.
        unpriced: Answers of unknown cost; requests without an answer do not count.
        baseline: US dollars that the large model would have cost, where known.
        baseline_unknown: Requests where it is not.
        compared: Requests of which both cost and baseline are known.
        compared_cost: The cost of these.
        compared_baseline: The baseline of these.
        latency: Sum of seconds.
        histogram: Latencies, see :mod:`pilotfish.store.latency`.
    """

    requests: int = 0
    errors: int = 0
    escalated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0
    baseline: float = 0.0
    baseline_unknown: int = 0
    compared: int = 0
    compared_cost: float = 0.0
    compared_baseline: float = 0.0
    latency: float = 0.0
    histogram: dict[int, int] = field(default_factory=dict)


ADDED = tuple(f.name for f in fields(Sums) if f.name != "histogram")
"""The columns of a minute that are added up by the database."""
