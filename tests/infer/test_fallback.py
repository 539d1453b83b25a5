"""The fallback chain: when it goes on, when it must not, and what it says of it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator

import pytest

import pilotfish as pf
from pilotfish.config import Config
from pilotfish.errors import (
    AccessDenied,
    BadAnswer,
    ConfigError,
    ModelError,
    RateLimited,
    RequestRefused,
    Unavailable,
)
from pilotfish.infer.fallback import Fallback
from pilotfish.models.calls import stream
from pilotfish.models.deadline import deadline
from pilotfish.models.fake_server import FakeServer
from pilotfish.models.load import load_model
from pilotfish.models.settings import BreakerSettings
from pilotfish.records import Chunk, Completion, Request

REQUEST = Request.of("hi")
QUICK = BreakerSettings(minimum=3, open_seconds=1000)


def failing(error: ModelError, name: str = "first") -> pf.FakeModel:
    return pf.FakeModel("never said", name=name, faults=itertools.repeat(error))


async def streamed(model: Fallback, request: Request = REQUEST) -> list[Chunk]:
    return [chunk async for chunk in model.stream(request)]


async def test_the_first_answers_while_it_can() -> None:
    second = pf.FakeModel("two", name="second")
    answer = await Fallback([pf.FakeModel("one", name="first"), second]).complete(REQUEST)
    assert (answer.text, answer.decisions[-1].reason) == ("one", "first")
    assert not second.requests


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unavailable("down"), "unavailable"),
        (RateLimited("slowly"), "rate-limited"),
        (BadAnswer("{{{"), "bad-answer"),
        (AccessDenied("no credit"), "access-denied"),
    ],
)
async def test_the_next_answers_when_one_cannot(error: ModelError, reason: str) -> None:
    chain = Fallback([failing(error), pf.FakeModel("two words", name="second")], name="chain")
    answer = await chain.complete(REQUEST)
    assert (answer.text, answer.model) == ("two words", "second")
    assert [(d.by, d.chose, d.reason, d.rejected) for d in answer.decisions] == [
        ("chain", "", reason, ("first",)),
        ("chain", "second", "failover", ()),
    ]
    chunks = await streamed(chain)
    assert "".join(chunk.text for chunk in chunks) == "two words"
    assert chunks[-1].completion is not None
    assert [d.reason for d in chunks[-1].completion.decisions] == [reason, "failover"]


async def test_a_wrong_request_is_asked_of_nobody_else() -> None:
    second = pf.FakeModel("two", name="second")
    chain = Fallback([failing(RequestRefused("too long")), second])
    with pytest.raises(RequestRefused):
        await chain.complete(REQUEST)
    with pytest.raises(RequestRefused):
        await streamed(chain)
    assert not second.requests


async def test_when_all_fail_the_last_error_is_raised() -> None:
    chain = Fallback([failing(Unavailable("down")), failing(BadAnswer("???"), "second")])
    with pytest.raises(BadAnswer, match=r"\?\?\?"):
        await chain.complete(REQUEST)


class Breaking:
    """Streams some pieces and then fails."""

    name = "breaking"

    def __init__(self, *pieces: Chunk) -> None:
        self.pieces = pieces
        self.closed = 0

    async def complete(self, request: Request) -> Completion:
        raise Unavailable("broke off")

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        try:
            for piece in self.pieces:
                yield piece
                await asyncio.sleep(0)
            raise Unavailable("broke off")
        finally:
            self.closed += 1


ROLE = Chunk(delta={"role": "assistant", "content": ""})


async def test_a_stream_that_breaks_before_its_first_word_is_replaced() -> None:
    broken = Breaking(ROLE)
    chunks = await streamed(Fallback([broken, pf.FakeModel("two", name="second")]))
    assert "".join(chunk.text for chunk in chunks) == "two"
    assert broken.closed == 1
    assert all(chunk is not ROLE for chunk in chunks), "of a failed member nothing is seen"


@pytest.mark.parametrize(
    "piece",
    [
        Chunk(text="Once", delta={"content": "Once"}),
        Chunk(delta={"tool_calls": [{"index": 0, "function": {"name": "f"}}]}),
        Chunk(delta={"reasoning_content": "Hm"}),
    ],
)
async def test_after_the_first_word_nobody_else_goes_on(piece: Chunk) -> None:
    second = pf.FakeModel("two", name="second")
    seen: list[Chunk] = []

    async def read() -> None:
        async for chunk in Fallback([Breaking(ROLE, piece), second]).stream(REQUEST):
            seen.append(chunk)

    with pytest.raises(Unavailable, match="broke off"):
        await read()
    assert [(c.text, c.delta) for c in seen] == [(c.text, c.delta) for c in (ROLE, piece)]
    assert seen[0].decisions[-1].reason == "first"
    assert not second.requests


async def test_leaving_a_stream_closes_the_members() -> None:
    member = Breaking(*[Chunk(text="word ")] * 100)
    chunks = Fallback([member]).stream(REQUEST)
    async for _ in chunks:
        break
    await chunks.aclose()  # type: ignore[attr-defined]
    assert member.closed == 1


async def test_one_that_keeps_failing_is_passed_over() -> None:
    first = failing(Unavailable("down"))
    chain = Fallback([first, pf.FakeModel("two", name="second")], breaker=QUICK)
    for _ in range(20):
        assert (await chain.complete(REQUEST)).text == "two"
    assert len(first.requests) == 3
    assert chain.breakers[0].state == "open"
    assert chain.breakers[1].state == "closed"
    decisions = (await chain.complete(REQUEST)).decisions
    assert [d.reason for d in decisions] == ["breaker-open", "failover"]


async def test_one_that_recovers_is_asked_again() -> None:
    faults = [Unavailable("down")] * 3
    first = pf.FakeModel("one", name="first", faults=faults)
    settings = BreakerSettings(minimum=3, open_seconds=0.05)
    chain = Fallback([first, pf.FakeModel("two", name="second")], breaker=settings)
    for _ in range(5):
        assert (await chain.complete(REQUEST)).text == "two"
    await asyncio.sleep(0.06)
    for _ in range(3):
        assert (await chain.complete(REQUEST)).text == "one"


async def test_streams_tell_the_breaker_too() -> None:
    broken = Breaking(Chunk(text="Once"))
    chain = Fallback([broken, pf.FakeModel("two")], breaker=QUICK)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await streamed(chain)
    assert chain.breakers[0].state == "open"
    well = Fallback([pf.FakeModel("well", name="first")], breaker=QUICK)
    for _ in range(5):
        async for chunk in well.stream(REQUEST):
            if chunk.completion is not None:
                break  # as a careless caller does
    assert well.breakers[0].state == "closed"


async def test_without_breakers_everyone_is_asked_each_time() -> None:
    first = failing(Unavailable("down"))
    chain = Fallback([first, pf.FakeModel("two")], breaker=None)
    for _ in range(20):
        await chain.complete(REQUEST)
    assert len(first.requests) == 20


async def test_retry_after_is_honoured_by_asking_the_other() -> None:
    patient = pf.FakeModel("one", name="first", faults=[RateLimited("wait", retry_after=0.1)])
    chain = Fallback([patient, pf.FakeModel("two", name="second")])
    assert [(await chain.complete(REQUEST)).text for _ in range(3)] == ["two"] * 3
    assert len(patient.requests) == 1
    await asyncio.sleep(0.11)
    assert (await chain.complete(REQUEST)).text == "one"


async def test_when_every_breaker_is_open_the_error_says_when_to_come_back() -> None:
    chain = Fallback([failing(Unavailable("a")), failing(Unavailable("b"))], breaker=QUICK)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await chain.complete(REQUEST)
    with pytest.raises(Unavailable, match="No member of fallback was asked") as caught:
        await chain.complete(REQUEST)
    assert caught.value.retry_after == pytest.approx(1000, abs=5)


async def test_patience_with_one_that_hangs_but_not_with_the_last() -> None:
    slow = pf.FakeModel("slow", name="slow", latency=0.2)
    chain = Fallback([pf.FakeModel("x", name="hanging", latency=30), slow], patience=0.05)
    began = time.monotonic()
    answer = await chain.complete(REQUEST)
    assert (answer.text, answer.decisions[0].reason) == ("slow", "unavailable")
    assert [c.text for c in await streamed(chain)] == ["slow", ""]
    assert time.monotonic() - began < 10
    assert answer.latency >= 0.25  # what was waited for in vain counts


async def test_patience_is_for_the_beginning_of_a_stream() -> None:
    class Slowly(Breaking):
        async def stream(self, request: Request) -> AsyncIterator[Chunk]:
            for piece in self.pieces:
                yield piece
                await asyncio.sleep(0.05)

    whole = Completion("a b c", "slowly")
    pieces = [Chunk(text="a"), Chunk(text=" b"), Chunk(text=" c"), Chunk(completion=whole)]
    chunks = await streamed(Fallback([Slowly(*pieces), pf.FakeModel("two")], patience=0.08))
    assert "".join(chunk.text for chunk in chunks) == "a b c"


async def test_when_the_callers_time_is_over_nobody_else_is_asked() -> None:
    second = pf.FakeModel("two", name="second")
    with FakeServer(faults=["hang"]) as server:
        first = pf.load_model("openai:m", Config(), base_url=server.base_url)
        chain = Fallback([first, second], breaker=QUICK)
        with deadline(0.1), pytest.raises(Unavailable, match="the caller gave"):
            await chain.complete(REQUEST)
        await first.aclose()
    assert not second.requests
    assert chain.breakers[0].state == "closed"


async def test_chains_nest_in_cascades_and_cascades_in_chains() -> None:
    unsure = pf.FakeModel(lambda r: Completion("?", "small", extra={"score": 0.1}), name="small")
    inner = Fallback([failing(Unavailable("down")), pf.FakeModel("two", name="second")])
    cascade = pf.Cascade([unsure, inner], [0.9])
    chain = Fallback([failing(Unavailable("down"), "zero"), cascade], name="outer")
    for answer in (await chain.complete(REQUEST), (await streamed(chain))[-1].completion):
        assert answer is not None
        assert (answer.text, answer.model) == ("two", "second")
        assert [d.by for d in answer.decisions] == [
            *("fallback", "fallback", "cascade", "cascade", "outer", "outer")
        ]


async def test_a_cascade_goes_on_when_a_small_member_fails() -> None:
    cascade = pf.Cascade([failing(Unavailable("down"), "small"), pf.FakeModel("two")], [0.9])
    answer = await cascade.complete(REQUEST)
    assert [d.reason for d in answer.decisions] == ["unavailable", "last"]
    assert [c.text async for c in stream(cascade, REQUEST)] == ["two", ""]
    with pytest.raises(RequestRefused):
        await pf.Cascade([failing(RequestRefused("no")), pf.FakeModel("x")], [0.9]).complete(
            REQUEST
        )


def test_settings() -> None:
    members = {name: {"backend": "fake", "model": name} for name in ("a", "b")}
    table = {"kind": "fallback", "models": ["a", "b"]}

    def build(**settings: object) -> Fallback:
        chain = load_model("c", Config(models={**members, "c": {**table, **settings}}))
        assert isinstance(chain, Fallback)
        return chain

    assert build().breakers[0].settings == BreakerSettings()
    assert build(breaker="off").breakers == []
    assert build(breaker={"minimum": 2}).breakers[1].settings.minimum == 2
    assert build(patience=3).patience == 3
    for wrong in ({"breaker": {"minimun": 2}}, {"patience": 0}, {"breaker": "on"}):
        with pytest.raises(ConfigError):
            build(**wrong)
    with pytest.raises(ConfigError, match="without models"):
        Fallback([])
