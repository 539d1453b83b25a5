"""The model that learns: pointers decide who answers, within a second, and privacy marks hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotfish.config import Config
from pilotfish.errors import ConfigError, RequestRefused
from pilotfish.loop.learn import LearnSettings, learn
from pilotfish.loop.learned import LearnedModel
from pilotfish.loop.lessons import Definition, lessons
from pilotfish.loop.marks import Unrecorded
from pilotfish.models.calls import stream, wait
from pilotfish.models.fake import FakeModel
from pilotfish.models.load import load_model
from pilotfish.records import Completion, Request
from pilotfish.store.store import Store, open_store
from tests.loop import traffic
from tests.loop.traffic import large_answer, mixed, recorded

PROMPT = traffic.TEAM_PROMPT.replace("{}", "{text}")
TICKET = traffic.TEAM_PROMPT.format("hello my invoice and the refund of the payment please")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a version that is sure of everything."""
    folder = tmp_path_factory.mktemp("artifact")
    rows = [recorded(i, p, a) for i, (p, a) in enumerate(mixed(900, shares=(1, 0, 0, 0)))]
    definition = Definition("teams", PROMPT, "", "large")
    settings = LearnSettings(students=("tfidf-embedding-linear",), folder=folder)
    with open_store(f"sqlite:///{folder}/s.db") as store:
        store.versions.keep_task("teams", {})
        model = FakeModel("?", name="large")
        known = lessons(definition, rows)
        version = learn(definition, known, store, model, settings, config=Config()).version
    assert version is not None
    return version.artifact


@pytest.fixture
def store(artifact: str) -> Iterator[Store]:
    with open_store(f"sqlite:///{Path('s.db').resolve()}") as opened:
        opened.versions.keep_task("teams", {"prompt": PROMPT, "system": "", "kind": "label"})
        for key in ("a", "b"):
            opened.versions.add("teams", key, artifact, {}, {})
        yield opened


def large() -> FakeModel:
    return FakeModel(lambda request: large_answer(request.prompt), name="large")


def serve(store: Store, **places: object) -> None:
    store.versions.move("teams", "promoted", version=1, evidence={}, **places)


def answer(model: LearnedModel, prompt: str = TICKET, seconds: float = 5.0) -> Completion:
    """The answer once the version that the pointer names is loaded."""
    ends = time.monotonic() + seconds
    while True:
        completion = wait(model.complete(Request.of(prompt)))
        if completion.decisions[-1].reason != "not-loaded" or time.monotonic() > ends:
            return completion
        time.sleep(0.01)


def test_a_version_in_service_answers_its_task_and_no_other(store: Store) -> None:
    serve(store, serving=1)
    model = LearnedModel(large(), store, name="auto")
    small = answer(model)
    assert (small.model, small.text, small.cost) == ("teams@1", "billing", 0.0)
    decision = small.decisions[-1]
    assert (decision.by, decision.chose, decision.rejected) == ("auto", "teams@1", ("large",))
    assert (decision.score or 0) >= (decision.threshold or 2)
    other = answer(model, "Tell me a story.")
    assert (other.model, other.decisions[-1].reason) == ("large", "no-task")


def test_what_a_student_cannot_give_is_the_large_models(store: Store) -> None:
    serve(store, serving=1)
    model = LearnedModel(large(), store)
    answer(model)
    for params in ({"n": 2}, {"logprobs": True}):
        given = wait(model.complete(Request.of(TICKET, **params)))
        assert (given.model, given.decisions[-1].reason) == ("large", "not-plain")
    assert wait(model.complete(Request.of(TICKET, n=1, temperature=0))).model == "teams@1"
    tools = Request.of(TICKET, tools=[{"type": "function"}])
    assert wait(model.complete(tools)).decisions[-1].reason == "no-task"


def test_an_unsure_answer_is_the_large_models(store: Store) -> None:
    serve(store, serving=1)
    model = LearnedModel(large(), store)
    answer(model)
    (loaded,) = model._loaded.values()
    model._loaded = {("teams", 1): type(loaded)(loaded.small, 1.01)}  # type: ignore[call-arg,union-attr]
    unsure = answer(model)
    assert unsure.model == "large"
    assert [d.reason for d in unsure.decisions] == ["score<threshold", "last"]


def test_a_change_holds_within_a_second_and_a_roll_back_too(store: Store) -> None:
    """With requests all the while: none fails, and none is answered by the old version after 1 s."""
    serve(store, serving=1)
    model = LearnedModel(large(), store)
    answer(model)
    seen: list[tuple[float, str]] = []

    async def ask(until: float) -> None:
        while time.monotonic() < until:
            completion = await model.complete(Request.of(TICKET))
            seen.append((time.monotonic(), completion.model))
            await asyncio.sleep(0.01)

    async def run() -> tuple[float, float]:
        clients = [asyncio.create_task(ask(time.monotonic() + 3.4)) for _ in range(4)]
        await asyncio.sleep(0.3)
        await asyncio.to_thread(serve, store, serving=2, previous=1)
        promoted = time.monotonic()
        await asyncio.sleep(1.5)
        await asyncio.to_thread(store.versions.roll_back, "teams")
        back = time.monotonic()
        await asyncio.gather(*clients)
        return promoted, back

    promoted, back = wait(run())
    assert not [m for t, m in seen if promoted + 1 < t < back and m == "teams@1"]
    assert "teams@2" in {m for t, m in seen if promoted < t < back}
    assert not [m for t, m in seen if t > back + 1 and m == "teams@2"]
    assert "teams@1" in {m for t, m in seen if t > back}


def test_a_canary_answers_its_share(store: Store) -> None:
    serve(store, serving=1, canary=2, share=0.25)
    draws = iter([0.1, 0.3, 0.9, 0.2] * 100)
    model = LearnedModel(large(), store, draw=lambda: next(draws))
    for _ in range(4):  # until both are loaded
        answer(model)
        time.sleep(0.3)
    models = [answer(model).model for _ in range(40)]
    assert models.count("teams@2") == 20
    assert models.count("teams@1") == 20


def test_local_only_never_reaches_the_large_model(store: Store) -> None:
    store.versions.keep_task("teams", marks={"local_only": True})
    teacher, here = large(), FakeModel("from here", name="here")
    with pytest.raises(RequestRefused, match="local-only"):
        wait(LearnedModel(teacher, store).complete(Request.of(TICKET)))
    assert (
        wait(LearnedModel(teacher, store, local=here).complete(Request.of(TICKET))).text
        == "from here"
    )
    serve(store, serving=1)
    model = LearnedModel(teacher, store, local=here)
    assert answer(model).model == "teams@1"
    assert teacher.requests == []


def shout(text: str) -> str:
    """A redaction for the test."""
    return text.replace("invoice", "[document]")


def test_what_is_to_be_redacted_is_redacted_before_it_leaves(store: Store) -> None:
    store.versions.keep_task("teams", marks={"redact": "tests.loop.test_learned:shout"})
    teacher = large()
    model = LearnedModel(teacher, store)
    wait(model.complete(Request.of(TICKET)))

    async def drain() -> None:
        async for _ in stream(model, Request.of(TICKET)):
            pass

    wait(drain())
    parts = ({"role": "user", "content": [{"type": "text", "text": TICKET}]},)
    wait(model.complete(Request(parts)))  # not the task's form: nothing is known of it
    sent = [request.prompt for request in teacher.requests]
    assert ["invoice" in text for text in sent] == [False, False, True]
    assert "[document]" in sent[0]


def test_unrecorded_tasks_are_told_to_the_recorder(store: Store) -> None:
    private = Unrecorded(store)
    assert not private(Request.of(TICKET))
    store.versions.keep_task("teams", marks={"unrecorded": True})
    time.sleep(0.6)
    assert private(Request.of(TICKET))
    assert not private(Request.of("Something else"))


def test_a_version_that_cannot_be_loaded_leaves_the_task_to_the_large_model(store: Store) -> None:
    store.versions.add("teams", "gone", "/no/such/folder", {}, {})
    serve(store, serving=3)
    model = LearnedModel(large(), store)
    assert answer(model, seconds=1.0).model == "large"


def test_declared_in_the_configuration(store: Store) -> None:
    models = {
        "auto": {"kind": "learned", "models": ["large"]},
        "large": {"backend": "fake", "answers": {"Hi": "Hello"}},
    }
    config = Config(store=store.url, models=models)
    model = load_model("auto", config)
    assert wait(model.complete(Request.of("Hi"))).text == "Hello"
    wait(model.aclose())  # type: ignore[attr-defined]
    models["three"] = {"kind": "learned", "models": ["large", "large", "large"]}
    with pytest.raises(ConfigError, match="3 models"):
        load_model("three", config)
