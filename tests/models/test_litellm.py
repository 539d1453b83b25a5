"""The litellm backend against the fake server; what needs the library runs where it is installed."""

from __future__ import annotations

import importlib.util
import itertools
from typing import Any

import pytest

from pilotfish.config import Config, Price
from pilotfish.errors import (
    AccessDenied,
    ConfigError,
    MissingExtra,
    ModelError,
    RateLimited,
    RequestRefused,
    Unavailable,
    UnknownName,
)
from pilotfish.models.fake_server import FakeServer, Fault
from pilotfish.models.litellm import LiteLLMModel
from pilotfish.models.load import load_model
from pilotfish.models.openai import OpenAIModel
from pilotfish.records import Completion, Request, Usage

INSTALLED = importlib.util.find_spec("litellm") is not None
needs_litellm = pytest.mark.skipif(
    not INSTALLED, reason="litellm is an optional extra: pip install 'pilotfish[litellm]'"
)
# litellm 1.x warns of its own deprecations and pydantic's while it is imported and used.
pytestmark = [
    pytest.mark.filterwarnings("default::DeprecationWarning"),
    pytest.mark.filterwarnings("default::UserWarning"),
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning"),
]
HELLO = Request.of("Say hello please", temperature=0)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-0123456789")


def quick(server: FakeServer, **settings: Any) -> LiteLLMModel:
    defaults = {"first_delay": 0.01, "max_delay": 0.02}
    return LiteLLMModel("openai/fake", api_base=server.base_url, **{**defaults, **settings})


@pytest.mark.skipif(INSTALLED, reason="says what is missing only where it is missing")
def test_without_the_library_it_names_the_extra() -> None:
    with pytest.raises(MissingExtra, match=r"pilotfish\[litellm\]"):
        load_model("litellm:openai/gpt", Config())


def test_settings_are_checked_before_the_library_is_needed() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'concurrency'"):
        LiteLLMModel("openai/gpt", concurency=1)
    with pytest.raises(ConfigError, match="PROVIDER/MODEL"):
        LiteLLMModel.from_spec("", {}, Config())


@needs_litellm
@pytest.mark.parametrize("stream", [False, True])
async def test_answers_as_the_openai_backend_does(stream: bool) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    with FakeServer(lambda body: {"content": "Hello, friend", "tool_calls": [call]}) as server:
        price = {"input": 1.0, "output": 2.0}
        model = quick(server, price=price)
        direct = OpenAIModel("fake", base_url=server.base_url, price=price)
        got = await (_last(model, HELLO) if stream else model.complete(HELLO))
        expected = await direct.complete(HELLO)
        await direct.aclose()
    assert got.text == "Hello, friend"
    assert got.model == "openai/fake"
    assert got.usage == Usage(prompt_tokens=3, completion_tokens=2)
    assert got.cost == expected.cost == pytest.approx(7e-6)
    assert [dict(c["function"]) for c in got.tool_calls] == [call["function"]]
    assert got.finish_reason == expected.finish_reason == "tool_calls"
    assert server.seen[0].body["temperature"] == 0


@needs_litellm
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "error", "asked"),
    [
        (Fault.BAD_REQUEST, RequestRefused, 1),
        (Fault.UNAUTHORIZED, AccessDenied, 1),
        (Fault.NOT_FOUND, RequestRefused, 1),
        (Fault.RATE_LIMITED, RateLimited, 3),
        (Fault.SERVER_ERROR, Unavailable, 3),
        (Fault.OVERLOADED, Unavailable, 3),
        (Fault.DISCONNECT, Unavailable, 3),
    ],
)
async def test_errors_are_mapped(
    fault: Fault,
    error: type[ModelError],
    asked: int,
    stream: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with FakeServer(faults=itertools.repeat(fault)) as server:
        model = quick(server, max_retries=2)
        with pytest.raises(ModelError) as caught:
            await (_last(model, HELLO) if stream else model.complete(HELLO))
    assert type(caught.value) is error
    assert server.count == asked
    assert "sk-very" not in str(caught.value)
    assert capsys.readouterr().out == ""


@needs_litellm
async def test_a_hanging_endpoint_meets_the_deadline() -> None:
    with FakeServer(faults=[Fault.HANG]) as server, pytest.raises(Unavailable):
        await quick(server, total_timeout=0.5).complete(HELLO)


@needs_litellm
async def test_costs_come_from_the_library_when_it_knows_them() -> None:
    with FakeServer("Hello, friend") as server:
        config = Config(prices={"openai/gpt-4o-mini": Price(99.0, 99.0)})
        model = load_model("litellm:openai/gpt-4o-mini", config, api_base=server.base_url)
        assert isinstance(model, LiteLLMModel)
        whole = await model.complete(HELLO)
        streamed = await _last(model, HELLO)
        unknown = await quick(server).complete(HELLO)
    # Its table says 0.15 and 0.60 US dollars per million tokens.
    assert whole.cost == pytest.approx((3 * 0.15 + 2 * 0.6) / 1e6)
    assert streamed.cost == pytest.approx(whole.cost)
    assert unknown.cost is None


async def _last(model: LiteLLMModel, request: Request) -> Completion:
    pieces = [chunk async for chunk in model.stream(request)]
    completion = pieces[-1].completion
    assert completion is not None
    assert "".join(piece.text for piece in pieces) == completion.text
    return completion
