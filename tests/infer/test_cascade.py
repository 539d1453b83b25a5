"""The cascade: who answers, what it costs, and that it is a model like any other."""

from __future__ import annotations

import pytest

import pilotfish as pf
from pilotfish.errors import ConfigError, Unavailable
from pilotfish.models.calls import stream
from pilotfish.records import Completion, Request

REQUEST = Request.of("x")


def sure(name: str, score: float, cost: float | None = 0.0) -> pf.FakeModel:
    answer = Completion(f"by {name}", name, cost=cost, latency=0.5, extra={"score": score})
    return pf.FakeModel(lambda request: answer, name=name)


async def test_small_answers_at_its_threshold() -> None:
    large = sure("large", 1.0, cost=2.0)
    cascade = pf.Cascade([sure("small", 0.9), large], [0.9])
    answer = await cascade.complete(REQUEST)
    assert (answer.text, answer.model, answer.cost) == ("by small", "small", 0.0)
    decision = answer.decisions[-1]
    assert (decision.chose, decision.score, decision.threshold) == ("small", 0.9, 0.9)
    assert not large.requests


async def test_unsure_small_goes_up_and_both_are_paid() -> None:
    cascade = pf.Cascade([sure("small", 0.89, 1.0), sure("large", 0.0, 2.0)], [0.9])
    answer = await cascade.complete(REQUEST)
    assert (answer.text, answer.cost, answer.latency) == ("by large", 3.0, 1.0)
    assert [d.reason for d in answer.decisions] == ["score<threshold", "last"]


async def test_unknown_cost_stays_unknown() -> None:
    cascade = pf.Cascade([sure("small", 0.1, 1.0), sure("large", 0.0, None)], [0.9])
    assert (await cascade.complete(REQUEST)).cost is None


async def test_member_without_certificate_is_not_asked() -> None:
    small = sure("small", 1.0)
    answer = await pf.Cascade([small, sure("large", 0.0)], [None]).complete(REQUEST)
    assert answer.text == "by large"
    assert not small.requests
    assert answer.decisions[0].reason == "not-certified"


async def test_cascades_nest() -> None:
    inner = pf.Cascade([sure("tiny", 0.2), sure("small", 0.5)], [0.9], name="inner")
    answer = await pf.Cascade([inner, sure("large", 0.0)], [0.9], name="outer").complete(REQUEST)
    assert answer.text == "by large"
    assert [d.by for d in answer.decisions] == ["outer", "outer"]


async def test_streams_the_same_answer() -> None:
    for score in (0.1, 0.95):
        cascade = pf.Cascade([sure("small", score), sure("large", 0.0)], [0.9])
        chunks = [chunk async for chunk in stream(cascade, REQUEST)]
        whole = await cascade.complete(REQUEST)
        assert "".join(chunk.text for chunk in chunks) == whole.text
        assert chunks[-1].completion == whole


async def test_errors_of_the_last_member_are_not_hidden() -> None:
    broken = pf.FakeModel("x", faults=[Unavailable("down")])
    with pytest.raises(Unavailable):
        await pf.Cascade([sure("small", 0.1), broken], [0.9]).complete(REQUEST)


def test_thresholds_must_fit() -> None:
    with pytest.raises(ConfigError, match="2 models and 2 thresholds"):
        pf.Cascade([sure("a", 1), sure("b", 1)], [0.1, 0.2])
