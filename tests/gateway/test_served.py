"""What is served, how it is started, and what "always large" would have cost."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pilotfish.config import Config, load_config
from pilotfish.errors import ConfigError, UnknownName
from pilotfish.gateway.refusals import refusal_of
from pilotfish.gateway.served import Baseline, Served, ServedModel
from pilotfish.models import BACKENDS
from pilotfish.models.calls import stream
from pilotfish.models.fake import FakeModel
from pilotfish.records import Completion, Request, Usage
from tests.contract_models import artifact_folder

DECLARED = """
[models.small]
backend = "fake"
answers = { hi = "small says hi" }

[models.large]
backend = "fake"
model = "gpt"
answers = { hi = "large says hi" }

[models.both]
kind = "cascade"
models = ["small", "large"]
thresholds = [0.5]

[models.chain]
kind = "cascade"
models = ["small", "both"]
thresholds = ["never"]

[prices.gpt]
input = 1.0
output = 10.0
"""


def declared(text: str = DECLARED, **settings: Any) -> Served:
    Path("pilotfish.toml").write_text(text)
    return Served(load_config(), **settings)


def names(served: Served) -> list[str]:
    return [row.name for row in served.names()]


async def test_a_configuration_serves_what_it_declares_and_the_encoders() -> None:
    served = declared()
    assert names(served)[:5] == ["small", "large", "both", "chain", "static"]
    assert [row.kind for row in served.names()][:3] == ["fake", "fake", "cascade"]
    assert all(isinstance(row, ServedModel) and row.created > 0 for row in served.names())
    answer = await served.model("both").complete(Request.of("hi"))
    assert (answer.text, answer.model) == ("large says hi", "large")
    await served.aclose()


async def test_members_are_shared_between_composites() -> None:
    served = declared()
    chain, both = await served.ready("chain"), await served.ready("both")
    assert chain.models[1] is both  # type: ignore[attr-defined]
    assert chain.models[0] is await served.ready("small")  # type: ignore[attr-defined]
    assert set(served.started()) == {"small", "large", "both", "chain"}


async def test_without_a_configuration_artifacts_are_found(tmp_path: Path) -> None:
    folder = artifact_folder()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "card.json").write_text("{}")
    (tmp_path / "model").symlink_to(folder)
    served = Served(Config(cache_dir=tmp_path), folder=tmp_path)
    name = json.loads((folder / "card.json").read_text())["name"]
    assert names(served) == [name, "static"]
    assert [row.kind for row in served.names()] == ["artifact", "encoder"]
    assert len(served.skipped) == 1
    assert "broken" in served.skipped[0]
    assert served.resolve("") == name  # the only one
    answer = await served.model(name).complete(Request.of("Topic? my invoice refund"))
    assert answer.text == "billing"


async def test_an_encoder_encodes_and_is_no_model() -> None:
    served = declared()
    encoder = await served.encoder("static")
    assert encoder is await served.encoder("static")
    assert encoder.encode(["hello"]).shape == (1, encoder.dim)
    with pytest.raises(UnknownName, match="model 'static'"):
        served.model("static")
    with pytest.raises(UnknownName, match="encoder 'small'"):
        await served.encoder("small")


def test_unknown_and_default_names() -> None:
    served = declared()
    with pytest.raises(UnknownName, match="Did you mean 'large'"):
        served.resolve("lage")
    with pytest.raises(UnknownName):
        served.resolve("")
    assert declared(default="both").resolve("") == "both"
    with pytest.raises(ConfigError, match="default"):
        declared(default="none")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "has no backend"),
        ("backend = 'opnai'", "Did you mean 'openai'"),
        ("kind = 'cascad'\nmodels = ['fake:x']", "Did you mean 'cascade'"),
        ("kind = 'cascade'\nmodels = ['smal', 'fake:x']", "Did you mean 'small'"),
        ("kind = 'cascade'\nmodels = ['small', 'it']", "it -> it"),
        ("kind = 'fallback'", "models = None"),
        (
            "kind = 'cascade'\nmodels = ['small', 'fake:x']\nthresholds = [1, 2]",
            r"\[models.it\].*2 thr",
        ),
        ("backend = 'openai'\nconcurrency = 0", r"\[models.it\].*setting concurrency is wrong"),
    ],
)
def test_a_wrong_table_is_said_at_the_start(table: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        declared(f"[models.small]\nbackend = 'fake'\n[models.it]\n{table}")


async def test_a_mistake_in_a_table_is_not_the_clients() -> None:
    served = declared("[models.it]\nbackend = 'llama.cpp'\npat = 'x.gguf'")
    with pytest.raises(ConfigError, match="setting 'pat'") as wrong:
        await served.model("it").complete(Request.of("x"))
    assert refusal_of(wrong.value).status == 500


async def test_breakers_can_be_looked_at() -> None:
    served = declared(
        """
        [models.remote]
        backend = "openai"
        base_url = "http://127.0.0.1:9/v1"
        breaker = {}
        [models.chain]
        kind = "fallback"
        models = ["remote", "fake:x"]
        [models.plain]
        backend = "fake"
        """
    )
    assert served.breakers() == {}
    for name in ("chain", "plain"):
        await served.ready(name)
    states = {name: breaker.state for name, breaker in served.breakers().items()}
    assert states == dict.fromkeys(("remote", "chain/remote", "chain/fake"), "closed")
    await served.aclose()


class Slow(FakeModel):
    """A model that takes a while to load, in its own thread."""

    built: ClassVar[list[str]] = []
    gate = threading.Event()
    fails = 0

    @classmethod
    def from_spec(cls, rest: str, settings: Any, config: Config) -> Slow:
        cls.built.append(threading.current_thread().name)
        assert cls.gate.wait(10)
        if cls.fails:
            cls.fails -= 1
            raise ConfigError("not this time")
        return cls("done", name=rest)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> type[Slow]:
    monkeypatch.setitem(BACKENDS._entries, "slow", "tests.gateway.test_served:Slow")
    monkeypatch.setattr(Slow, "built", [])
    monkeypatch.setattr(Slow, "gate", threading.Event())
    monkeypatch.setattr(Slow, "fails", 0)
    return Slow


async def test_the_first_requests_share_one_start_off_the_loop(slow: type[Slow]) -> None:
    served = declared("[models.s]\nbackend = 'slow'")
    model = served.model("s")
    asked = [asyncio.create_task(model.complete(Request.of("x"))) for _ in range(20)]
    await asyncio.sleep(0.05)  # the loop is free while the model loads
    asked[0].cancel()
    slow.gate.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert {answer.text for answer in answers[1:] if isinstance(answer, Completion)} == {"done"}
    assert len(slow.built) == 1
    assert slow.built[0] != threading.main_thread().name
    assert isinstance(served.model("s"), Slow)
    assert [c.text async for c in stream(model, Request.of("x"))] == ["done", ""]


async def test_a_failed_start_is_tried_again(slow: type[Slow]) -> None:
    slow.gate.set()
    slow.fails = 1
    served = declared("[models.s]\nbackend = 'slow'")
    with pytest.raises(ConfigError, match="not this time"):
        await served.ready("s")
    assert (await served.ready("s")).name == "s"


def spent(prompt: int, completion: int, cost: float | None = 0.0, **extra: Any) -> Completion:
    return Completion("yes", "m", Usage(prompt, completion), cost, extra=extra)


def test_baselines() -> None:
    served = declared()
    usage = spent(1000, 100)
    assert served.baseline("both", usage) == pytest.approx(1000e-6 + 100 * 10e-6)
    assert served.baseline("chain", usage) == served.baseline("both", usage)  # large of large
    # What the small one used is no part of what the large one would have used.
    escalated = spent(2000, 200, answer_usage=[1000, 100, 0])
    assert served.baseline("both", escalated) == served.baseline("both", usage)
    # Alone, a model saves nothing.
    assert served.baseline("large", spent(10, 1, cost=0.5)) == 0.5
    assert served.baseline("small", spent(10, 1, cost=None)) is None


def test_a_baseline_without_token_counts_is_an_estimate_and_says_so() -> None:
    served = declared()
    free = Completion("x" * 8, "student", cost=0.0)
    assert served.baseline("both", free) is None
    found = served.baseline_of("both", free, Request.of("y" * 4000))
    assert found == Baseline(1000e-6 + 2 * 10e-6, estimated=True)


def test_the_large_model_can_be_named_and_may_have_no_price() -> None:
    named = DECLARED.replace('kind = "cascade"', 'kind = "cascade"\nlarge = "small"', 1)
    assert declared(named).baseline("both", spent(10, 1)) is None
