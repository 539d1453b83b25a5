"""Tasks are found in traffic with the right kind, size and cost, in linear time."""

from __future__ import annotations

import random
import time

import pytest

from pilotfish.loop.answers import kind_of, object_in
from pilotfish.loop.tasks import FoundTask, Matcher, clusters, find_tasks, flat, repeated
from pilotfish.models.load import load_encoder
from pilotfish.records import Request
from tests.loop import traffic
from tests.loop.traffic import mixed, recorded

PROMPTS = {
    "label": traffic.TEAM_PROMPT,
    "rating": traffic.URGENCY_PROMPT,
    "extraction": traffic.ORDER_PROMPT,
    "text": traffic.STORY_PROMPT,
}


@pytest.fixture(scope="module")
def found() -> list[FoundTask]:
    rows = [
        recorded(i, p, a, cost=0.002 if "JSON" in p else 0.001)
        for i, (p, a) in enumerate(mixed(800))
    ]
    return find_tasks(rows, encoder=load_encoder("static"))


def test_the_four_tasks_come_back_exactly(found: list[FoundTask]) -> None:
    assert {task.kind: task.prompt.replace("{text}", "{}") for task in found} == PROMPTS
    assert len({task.name for task in found}) == 4


def test_size_and_cost_are_counted_and_ranked(found: list[FoundTask]) -> None:
    counts = dict.fromkeys(PROMPTS, 0)
    for prompt, _ in mixed(800):
        kind = next(k for k, p in PROMPTS.items() if prompt.startswith(p.split("{}")[0]))
        counts[kind] += 1
    assert {task.kind: task.requests for task in found} == counts
    for task in found:
        each = 0.002 if task.kind == "extraction" else 0.001
        assert task.cost == pytest.approx(each * task.requests)
    assert [task.cost for task in found] == sorted((t.cost for t in found), reverse=True)
    assert all(task.models == {"auto": task.requests} for task in found)


def test_kinds_carry_what_learning_needs(found: list[FoundTask]) -> None:
    by_kind = {task.kind: task for task in found}
    assert set(by_kind["label"].labels) == set(traffic.TEAMS)
    assert by_kind["rating"].labels[:2] == ("1", "2")
    assert set(by_kind["extraction"].keys) == {"number", "city"}
    assert by_kind["label"].task().labels == by_kind["label"].labels


def test_a_learnable_task_is_estimated_above_one_that_is_not(found: list[FoundTask]) -> None:
    by_kind = {task.kind: task for task in found}
    assert (by_kind["label"].servable or 0) > 0.6
    assert by_kind["text"].servable == pytest.approx(0.0, abs=0.05)
    assert by_kind["label"].saving == pytest.approx(
        by_kind["label"].cost * (by_kind["label"].servable or 0)
    )


def test_system_prompts_tell_tasks_apart() -> None:
    rng = random.Random(1)
    rows = []
    for i in range(120):
        system = ("You are a triage bot of a shop.", "You translate whatever comes into French.")[
            i % 2
        ]
        text = traffic.ticket(rng, "billing")
        rows.append(recorded(i, text, "bonjour" if i % 2 else "billing", system=system))
    found = find_tasks(rows, encoder=None)
    assert {(task.system, task.prompt, task.requests) for task in found} == {
        ("You are a triage bot of a shop.", "{text}", 60),
        ("You translate whatever comes into French.", "{text}", 60),
    }


def test_known_tasks_keep_their_names() -> None:
    rows = [recorded(i, p, a) for i, (p, a) in enumerate(mixed(300))]
    prompt = traffic.TEAM_PROMPT.replace("{}", "{ticket}")
    found = find_tasks(rows, known={"triage": ("", prompt)})
    assert {task.name: task.prompt for task in found}["triage"] == prompt
    assert len(found) == 4


def test_texts_without_a_template_are_put_together_by_meaning() -> None:
    rng = random.Random(2)

    def one(i: int) -> str:
        what, without = rng.choice(["bread", "cake", "pie"]), rng.choice(["eggs", "milk", "yeast"])
        return f"\x1eHow do I bake {what} without {without} {i}"

    def two(i: int) -> str:
        language = rng.choice(["Python", "Java", "Rust"])
        return f"\x1e{language} compiler exception in line {i} of function {rng.choice('abcdef')}"

    texts = [one(i) for i in range(40)] + [two(i) for i in range(40)]
    groups = clusters(texts, load_encoder("static"), fewest=10)
    assert len(groups) >= 2
    for members in groups:
        assert len({i < 40 for i in members}) == 1


def test_matching_is_exact() -> None:
    matcher = Matcher(
        {"a": ("", "Is {text} a fish?"), "b": ("", "Is {text} a fish? Or is {other} one?")}
    )
    assert matcher.match(Request.of("Is it a fish?")) == ("a", {"text": "it"})
    assert matcher.match(Request.of("Is it a fish? Or is he one?")) == (
        "b",
        {"text": "it", "other": "he"},
    )
    assert matcher.match(Request.of("Is it a fish?", system="x")) is None
    assert matcher.match(Request.of("What is it?")) is None
    assert (
        flat(Request(({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})))
        is None
    )
    assert flat(Request.of("a", tools=[{}])) is None


def test_kinds_from_answers() -> None:
    assert kind_of(["yes", "No", "yes."] * 30).labels == ("yes", "No")
    assert kind_of([f"{i / 7:.2f}" for i in range(100)]).range == (0.0, 14.14)
    assert kind_of(['{"a": 1, "b": 2}', '```json\n{"a": 3}\n```'] * 10).keys == ("a", "b")
    assert kind_of(["yes"] * 100).kind == "text"  # one answer is nothing to learn
    assert kind_of([]).kind == "text"
    assert kind_of([f"w{i}" for i in range(100)]).kind == "text"
    assert kind_of(["yes", "no"] * 50).parse(" Yes. ") == "yes"
    assert kind_of(["yes", "no"] * 50).parse("perhaps") is None
    assert object_in("[1]") is None
    assert object_in("{broken") is None
    assert repeated(["a", "a", "b", "a"]) == 0.5


def test_time_is_linear_in_requests() -> None:
    def seconds(count: int) -> float:
        rows = [recorded(i, p, a) for i, (p, a) in enumerate(mixed(count))]
        began = time.process_time()
        assert len(find_tasks(rows, mined=1000)) == 4
        return time.process_time() - began

    assert min(seconds(4000) for _ in range(2)) < 8 * min(seconds(1000) for _ in range(2))
