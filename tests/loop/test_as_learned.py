"""The large model behind an artifact answers in labels where the request is the task's."""

from __future__ import annotations

import pytest

from pilotfish.loop.as_learned import AsLearned
from pilotfish.loop.task import Task
from pilotfish.models.calls import stream, wait
from pilotfish.models.fake import FakeModel, FakeScorer
from pilotfish.models.fake_server import FakeServer
from pilotfish.models.openai import OpenAIModel
from pilotfish.records import Completion, Request

TASK = Task("Which system? {text}", labels=("osx", "linux"))


def test_a_local_scorer_answers_with_a_label_of_the_set() -> None:
    def likely(request: Request) -> dict[str, float]:
        mac = 0.9 if "mac" in request.prompt else 0.1
        return {"osx": mac, "linux": 1 - mac}

    model = AsLearned(FakeScorer("Mac OS X", label_probs=likely), TASK)
    answer = wait(model.complete(Request.of("Which system? my mac is slow")))
    assert answer.text == "osx"
    assert wait(model.complete(Request.of("Which system? my apt is slow"))).text == "linux"


def test_a_remote_model_is_asked_for_a_label_and_parsed() -> None:
    with FakeServer("Linux.") as server:
        model = AsLearned(OpenAIModel("m", base_url=server.base_url), TASK)
        answer = wait(model.complete(Request.of("Which system? my apt is slow", seed=7)))
        [seen] = server.seen
    assert answer.text == "linux"
    assert seen.body["seed"] == 7
    assert seen.body["temperature"] == 0
    assert not {"labels", "answer", "blanks"} & set(seen.body)


def test_an_answer_that_is_no_label_stays_as_it_came_and_is_paid_once() -> None:
    with FakeServer("I cannot say, it could be anything") as server:
        model = AsLearned(OpenAIModel("m", base_url=server.base_url), TASK)
        answer = wait(model.complete(Request.of("Which system? hello")))
        asked = [request.body["messages"] for request in server.seen]
    assert answer.text == "I cannot say, it could be anything"
    assert asked == [[{"role": "user", "content": "Which system? hello"}]]


@pytest.mark.parametrize(
    "request_",
    [
        Request.of("Tell me a joke"),
        Request.of("Which system? my mac", tools=[{"type": "function"}]),
        Request.of("Which system? my mac", response_format={"type": "json_object"}),
        Request.of("Which system? my mac", n=2),
    ],
)
def test_other_requests_go_through_unchanged(request_: Request) -> None:
    seen: list[Request] = []

    def answer(request: Request) -> str:
        seen.append(request)
        return "free text"

    assert wait(AsLearned(FakeModel(answer), TASK).complete(request_)).text == "free text"
    assert seen == [request_]


def test_a_label_is_streamed_whole_and_other_answers_in_pieces() -> None:
    async def pieces(prompt: str) -> tuple[list[str], Completion | None]:
        model = AsLearned(FakeModel(lambda _: "osx it is, surely"), TASK)
        chunks = [chunk async for chunk in stream(model, Request.of(prompt))]
        return [chunk.text for chunk in chunks if chunk.text], chunks[-1].completion

    texts, whole = wait(pieces("Tell me a joke"))
    assert "".join(texts) == "osx it is, surely"
    assert whole is not None

    async def label() -> list[str]:
        model = AsLearned(FakeModel(lambda _: "osx"), TASK)
        return [c.text async for c in stream(model, Request.of("Which system? my mac"))]

    assert wait(label()) == ["osx"]
