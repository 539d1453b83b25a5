"""The fakes that ship with the library do what their docstrings say."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time

import httpx
import numpy as np
import pytest

from pilotfish.config import Config, Price
from pilotfish.errors import InputError, RateLimited, RequestRefused, Unavailable, UnknownName
from pilotfish.models.calls import complete_many
from pilotfish.models.fake import FakeModel, FakeScorer
from pilotfish.models.fake_server import FakeServer, Fault
from pilotfish.models.load import load_model
from pilotfish.models.protocols import LabelScorer, Model, StreamingModel
from pilotfish.records import Completion, Request, Usage

ASK = Request.of("2+2?")


async def test_scripts_of_every_kind() -> None:
    whole = Completion("4", "other", cost=1.0)
    assert (await FakeModel("four").complete(ASK)).text == "four"
    assert (await FakeModel({"2+2?": "4"}).complete(ASK)).text == "4"
    assert await FakeModel({"2+2?": whole}).complete(ASK) == whole
    assert (await FakeModel(lambda request: request.prompt[::-1]).complete(ASK)).text == "?2+2"
    script = FakeModel(["a", whole])
    assert [(await script.complete(ASK)).text for _ in range(2)] == ["a", "4"]
    with pytest.raises(RequestRefused, match="2 scripted answers"):
        await script.complete(ASK)
    with pytest.raises(RequestRefused, match=r"2\+2"):
        await FakeModel({"3+3?": "6"}).complete(ASK)


async def test_usage_counts_words_and_gives_a_cost() -> None:
    got = await FakeModel("one two three", price=Price(1.0, 10.0)).complete(Request.of("a b"))
    assert got.usage == Usage(prompt_tokens=2, completion_tokens=3)
    assert got.cost == pytest.approx(32e-6)
    assert (await FakeModel("x").complete(ASK)).cost is None


async def test_faults_come_in_turn_and_requests_are_recorded() -> None:
    model = FakeModel("ok", faults=[None, RateLimited("slow down"), Unavailable("gone")])
    outcomes = [o async for _, o in complete_many(model, [ASK] * 4, concurrency=1)]
    assert [type(o) for o in outcomes] == [Completion, RateLimited, Unavailable, Completion]
    assert model.requests == [ASK] * 4
    endless = FakeModel("ok", faults=itertools.cycle([None, Unavailable("odd")]))
    outcomes = [o async for _, o in complete_many(endless, [ASK] * 10, concurrency=1)]
    assert sum(isinstance(o, Unavailable) for o in outcomes) == 5


async def test_latency_and_concurrency() -> None:
    model = FakeModel("ok", latency=lambda request: 0.02 * len(request.prompt))
    began = time.monotonic()
    short, long = await asyncio.gather(
        model.complete(Request.of("a")), model.complete(Request.of("aaaaa"))
    )
    assert 0.1 <= time.monotonic() - began < 1
    assert (short.latency, long.latency) == pytest.approx((0.02, 0.1))
    assert model.max_active == 2
    assert model.active == 0


async def test_streams_word_by_word() -> None:
    model = FakeModel("one  two\nthree")
    chunks = [chunk async for chunk in model.stream(ASK)]
    assert [chunk.text for chunk in chunks] == ["one", "  two", "\nthree", ""]
    assert chunks[-1].completion is not None
    assert chunks[-1].completion.text == "one  two\nthree"


async def test_only_the_scorer_scores() -> None:
    assert isinstance(FakeModel(), Model)
    assert isinstance(FakeModel(), StreamingModel)
    assert not isinstance(FakeModel(), LabelScorer)
    scorer = FakeScorer("yes", label_probs={"2+2?": {"yes": 0.6, "no": 0.2, "maybe": 0.2}})
    assert isinstance(scorer, LabelScorer)
    scores = await scorer.score_labels([ASK, ASK], ["no", "yes"])
    assert scores.dtype == np.float32
    np.testing.assert_allclose(np.exp(scores), [[0.25, 0.75]] * 2, rtol=1e-6)
    assert (await scorer.complete(ASK)).label_probs == {"yes": 0.6, "no": 0.2, "maybe": 0.2}
    with pytest.raises(InputError, match="'never'"):
        await scorer.score_labels([ASK], ["never"])
    with pytest.raises(RequestRefused, match="label probabilities"):
        await scorer.score_labels([Request.of("?")], ["yes"])


async def test_from_a_spec() -> None:
    config = Config(
        models={"f": {"backend": "fake", "answers": {"2+2?": "4"}}}, prices={"f": Price(1.0, 1.0)}
    )
    fixed = load_model("fake:always this", config)
    assert (await fixed.complete(ASK)).text == "always this"
    scripted = await load_model("f", config).complete(ASK)
    assert (scripted.text, scripted.model, scripted.cost) == ("4", "f", pytest.approx(2e-6))
    with pytest.raises(UnknownName, match="latency"):
        load_model("fake:x", config, latencies=3)


def post(server: FakeServer, **body: object) -> httpx.Response:
    json = {"messages": [{"role": "user", "content": "hi"}], **body}
    return httpx.post(f"{server.base_url}/chat/completions", json=json)


def test_the_server_speaks_plain_http() -> None:
    with FakeServer(["a", "b"], models=["m1", "m2"]) as server:
        listed = httpx.get(f"{server.base_url}/models").json()
        assert [model["id"] for model in listed["data"]] == ["m1", "m2"]
        assert httpx.get(f"{server.base_url}/nothing").status_code == 404
        texts = [post(server).json()["choices"][0]["message"]["content"] for _ in range(3)]
        assert texts == ["a", "b", "a"]
        lines = post(server, stream=True).text.split("\n\n")
        assert lines[-2] == "data: [DONE]"
    assert server.count == server.answered == 4
    with pytest.raises(httpx.ConnectError):
        post(server)


@pytest.mark.parametrize("first", [True, False])
def test_an_outage_is_a_real_refusal(first: bool) -> None:
    faults = [Fault.REFUSE] if first else [None, Fault.REFUSE]
    with FakeServer(faults=faults, refuse_seconds=0.3) as server:
        if not first:
            assert post(server).status_code == 200
        time.sleep(0.05)
        with socket.socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", server.port))
        time.sleep(0.5)
        assert post(server).status_code == 200


def test_faults_have_public_names() -> None:
    with FakeServer(faults=["rate-limited", "server-error"], retry_after="7") as server:
        limited, broken = post(server), post(server)
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "7")
    assert (broken.status_code, "retry-after" in broken.headers) == (500, False)
    assert len(set(Fault)) == len(list(Fault)) == 25


def test_one_connection_serves_many_requests() -> None:
    with FakeServer() as server, httpx.Client() as client:
        ports = set()
        for _ in range(50):
            with client.stream("POST", f"{server.base_url}/chat/completions", json={}) as reply:
                ports.add(reply.extensions["network_stream"].get_extra_info("client_addr"))
                reply.read()
        assert len(ports) == 1
    assert server.answered == 50
