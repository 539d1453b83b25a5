"""Traffic as a day of use leaves it: a cascade, a chat model, a local one, and failures."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from pilotfish.records import Completion, Decision, Request, Usage
from pilotfish.store.traffic_rows import Exchange

TICKETS = (
    "My card was charged twice for the same order and nobody answers.",
    "How do I change the delivery address of an order that has not left yet?",
    "The app closes by itself whenever I open the invoices.",
    "Thank you, the replacement arrived today.",
)


def sample_traffic(until: float, minutes: int, *, a_minute: float = 20.0) -> Iterator[Exchange]:
    """Exchanges of the last minutes before a moment (epoch seconds), oldest first; always the same."""
    draw = random.Random(7)
    for minute in range(minutes):
        start = until - (minutes - minute) * 60
        wave = 0.65 + 0.35 * math.sin(minute / minutes * 9)
        moments = sorted(draw.random() * 59 for _ in range(round(a_minute * wave)))
        for number, moment in enumerate(moments):
            yield _one(draw, start + moment, f"req_{minute:08x}{number:08x}00000000")


def _one(draw: random.Random, time: float, identity: str) -> Exchange:
    kind, chance = draw.random(), draw.random()
    text = draw.choice(TICKETS)
    if kind < 0.8:
        question = Request.of(f"Is this ticket urgent? Answer yes or no.\n{text}", task="tickets")
        score = 0.55 + 0.45 * draw.random()
        small = score >= 0.72
        return _exchange(
            identity,
            time,
            "tickets",
            question,
            Completion(
                "yes" if "charged" in text else "no",
                "tickets-small" if small else "gpt-4.1",
                Usage(0, 0) if small else Usage(61, 1),
                cost=0.0 if small else 0.00013,
                decisions=_decisions(score, small),
            ),
            baseline=0.00013,
            latency=draw.lognormvariate(-6.3, 0.4) if small else draw.lognormvariate(-0.6, 0.4),
        )
    if kind < 0.96:
        answer = Completion(
            "Gladly: open Orders, then Address.", "gpt-4.1-mini", Usage(210, 96), 0.00024
        )
        if chance < 0.12:
            status, code = (
                (503, "model_unavailable"),
                (429, "rate_limited"),
                (499, "client_left"),
            )[draw.randrange(3)]
            return _exchange(
                identity, time, "chat", Request.of(text), None, status=status, error=code
            )
        return _exchange(
            identity,
            time,
            "chat",
            Request.of(text),
            answer,
            baseline=0.00024,
            latency=draw.lognormvariate(0.1, 0.5),
            streamed=True,
        )
    answer = Completion("def total(rows): ...", "qwen2.5-coder-1.5b", Usage(88, 140))
    return _exchange(
        identity,
        time,
        "code",
        Request.of("Write it."),
        answer,
        latency=draw.lognormvariate(0.6, 0.3),
    )


def _decisions(score: float, small: bool) -> tuple[Decision, ...]:
    if small:
        return (
            Decision("tickets", "tickets-small", "score>=threshold", score, 0.72, ("gpt-4.1",)),
        )
    return (
        Decision("tickets", "", "score<threshold", score, 0.72, ("tickets-small",)),
        Decision("tickets", "gpt-4.1", "last", rejected=("tickets-small",)),
    )


def _exchange(
    identity: str,
    time: float,
    asked: str,
    request: Request,
    completion: Completion | None,
    *,
    status: int = 200,
    error: str = "",
    baseline: float | None = None,
    latency: float = 0.03,
    streamed: bool = False,
) -> Exchange:
    first = None if completion is None else latency * (0.3 if streamed else 1.0)
    return Exchange(
        id=identity,
        time=time,
        caller="",
        task=request.task,
        asked=asked,
        endpoint="chat",
        streamed=streamed,
        status=status,
        error=error,
        latency=latency,
        first_byte=first,
        request=request,
        completion=completion,
        baseline=baseline,
    )
