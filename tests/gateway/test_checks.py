"""Checks of small answers: which are checked, what counts as the same, and that no user notices."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pilotfish.config import Config, load_config
from pilotfish.errors import StoreError
from pilotfish.gateway.checks import MOST_WAITING, Check, Checks, Form
from pilotfish.gateway.served import Served
from pilotfish.infer.watch import is_checked
from pilotfish.models.deadline import deadline
from pilotfish.models.fake_server import FakeServer
from pilotfish.records import Completion, Decision, Request
from pilotfish.store.store import open_store
from tests.contract_models import artifact_folder

REQUEST = Request.of("Is it spam?")
DECIDED = (Decision("both", "small", "score>=threshold", 0.9, 0.5),)


def small(text: str = "Yes.", **values: Any) -> Completion:
    return Completion(text, "small", cost=0.0, decisions=DECIDED, **values)


def declared(server: FakeServer) -> Served:
    Path("pilotfish.toml").write_text(
        f"""
        [models.small]
        backend = "fake"
        [models.large]
        backend = "openai"
        model = "gpt"
        base_url = "{server.base_url}"
        max_retries = 0
        [models.both]
        kind = "cascade"
        models = ["small", "large"]
        thresholds = [0.5]
        [prices.gpt]
        input = 1.0
        output = 10.0
        """
    )
    return Served(load_config())


async def checked(
    served: Served, *answers: Completion, share: float = 1.0, asked: str = "both", **options: Any
) -> tuple[Checks, list[Check]]:
    written: list[Check] = []
    checks = Checks(served, written.append, share=share, **options)
    for number, answer in enumerate(answers):
        checks.consider(f"req_{number}", asked, REQUEST, answer)
    await checks.aclose(20)
    await served.aclose()
    return checks, written


async def test_a_check_compares_with_the_large_model_and_counts_its_cost() -> None:
    with FakeServer(["yes", "No"]) as server:
        checks, written = await checked(declared(server), small(), small())
    assert checks.done == 2
    assert sorted(check.agreed for check in written) == [False, True]
    first = next(check for check in written if check.agreed)
    assert (first.asked, first.small, first.large) == ("both", "small", "large")
    assert (first.small_answer, first.large_answer) == ("Yes.", "yes")
    assert first.cost == pytest.approx((3 * 1.0 + 1 * 10.0) / 1e6)
    assert abs(first.time - time.time()) < 60


async def test_what_the_large_model_answered_is_not_checked() -> None:
    escalated = Completion("no", "large", decisions=(Decision("both", "large", "last"),))
    alone = Completion("no", "small")
    calls = small(tool_calls=({"id": "1"},))
    with FakeServer() as server:
        _, written = await checked(declared(server), escalated, alone, calls)
        assert server.count == 0
    assert written == []


async def test_the_share_is_kept_and_follows_from_the_id() -> None:
    with FakeServer("yes") as server:
        checks, written = await checked(declared(server), *[small()] * 200, share=0.25)
    expected = {f"req_{n}" for n in range(200) if is_checked(f"req_{n}", 0.25)}
    assert {check.request_id for check in written} == expected
    assert 20 < len(expected) < 80
    assert checks.dropped == 0


async def test_a_failing_large_model_and_a_failing_store_are_counted_only() -> None:
    with FakeServer(faults=["server-error", "garbage", None]) as server:
        served = declared(server)

        def fails(check: Check) -> None:
            raise StoreError("the disk is full")

        checks = Checks(served, fails, share=1.0)
        for number in range(3):
            checks.consider(f"req_{number}", "both", REQUEST, small())
        await checks.aclose(20)
        await served.aclose()
    assert (checks.done, checks.failed) == (0, 3)


async def test_a_hanging_large_model_is_given_up() -> None:
    with FakeServer(faults=["hang"]) as server:
        checks, _ = await checked(declared(server), small(), seconds=0.1)
    assert checks.failed == 1


async def test_checks_are_bounded_and_never_make_anyone_wait() -> None:
    with FakeServer("yes", latency=0.02) as server:
        served = declared(server)
        await served.large("both")
        checks = Checks(served, lambda check: None, share=1.0)
        began = time.perf_counter()
        for number in range(MOST_WAITING + 50):
            checks.consider(f"req_{number}", "both", REQUEST, small())
        assert time.perf_counter() - began < 1
        assert checks.dropped == 50
        await checks.aclose(30)
        assert checks.done == MOST_WAITING
        assert server.max_active <= 4
        await served.aclose()


async def test_the_users_deadline_is_none_of_the_checks() -> None:
    with FakeServer("yes", latency=0.1) as server:
        served = declared(server)
        checks = Checks(served, lambda check: None, share=1.0)
        with deadline(0.01):
            checks.consider("req_1", "both", REQUEST, small())
        await checks.aclose(20)
        await served.aclose()
    assert checks.done == 1


async def test_a_check_reaches_the_store() -> None:
    store = open_store("sqlite:///checks.db")
    with FakeServer("yes") as server:
        served = declared(server)
        checks = Checks(served, store.checks.add, share=1.0)
        checks.consider("req_1", "both", REQUEST, small())
        await checks.aclose(20)
        await served.aclose()
    (check,) = store.checks.recent()
    assert (check.request_id, check.agreed, check.large_answer) == ("req_1", True, "yes")
    store.close()


async def test_the_store_is_written_in_a_thread() -> None:
    names: list[str] = []
    with FakeServer("yes") as server:
        served = declared(server)
        checks = Checks(
            served, lambda check: names.append(threading.current_thread().name), share=1.0
        )
        checks.consider("req_1", "both", REQUEST, small())
        await checks.aclose(20)
        await served.aclose()
    assert names
    assert names[0] != threading.main_thread().name


async def test_stopping_does_not_wait_for_ever() -> None:
    with FakeServer(faults=["hang"]) as server:
        served = declared(server)
        checks = Checks(served, lambda check: None, share=1.0)
        checks.consider("req_1", "both", REQUEST, small())
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await checks.aclose(0.1)
        assert time.monotonic() - began < 5
        await served.aclose()


async def test_an_artifact_is_checked_by_its_own_labels(tmp_path: Path) -> None:
    with FakeServer("  Label: BILLING") as server:
        large = {"backend": "openai", "base_url": server.base_url}
        artifact = {"backend": "artifact", "model": str(artifact_folder()), "large": "large"}
        served = Served(Config(models={"large": large, "topics": artifact}))
        request = Request.of("Topic? refund my invoice card")
        answer = await served.model("topics").complete(request)
        written: list[Check] = []
        checks = Checks(served, written.append, share=1.0)
        checks.consider("req_1", "topics", request, answer)
        await checks.aclose(20)
        await served.aclose()
    assert answer.text == "billing"
    assert [check.agreed for check in written] == [True]
    assert written[0].large == "large"


@pytest.mark.parametrize(
    ("form", "one", "other", "same"),
    [
        (Form(), ' "Yes,  it is." ', "yes, it is", True),
        (Form(), "yes", "no", False),
        (Form(), "ﬁne", "fine", True),  # a ligature
        (Form("label", ("spam", "ham")), "spam", "Answer: Spam.", True),
        (Form("label", ("spam", "ham")), "spam", "neither", False),
        (Form("labels", ("a", "b", "c")), '["a", "b"]', "b, a", True),
        (Form("labels", ("a", "b", "c")), '["a"]', "b, a", False),
        (Form("rating", ("1", "2", "3")), "2", "2", True),
        (Form("rating", ("1", "2", "3"), tolerance=1.0), "2", "3", True),
        (Form("rating", (), (0.0, 10.0), 0.5), "7", "7.4", True),
        (Form("rating", (), (0.0, 10.0), 0.5), "7", "8", False),
    ],
)
def test_when_two_answers_are_the_same(form: Form, one: str, other: str, same: bool) -> None:
    assert form.same(one, other) == same


def test_the_form_of_an_answer() -> None:
    model: Any = object()
    labels = Request.of("x", labels=["a", "b"])
    assert Form.of(model, labels, small("a")) == Form("label", ("a", "b"))
    rated = Request.of("x", answer="rating", range=[0, 5])
    assert Form.of(model, rated, small("3")) == Form("rating", (), (0, 5))
    scored = small("a", label_probs={"a": 0.9, "b": 0.1})
    assert Form.of(model, REQUEST, scored) == Form("label", ("a", "b"))
    assert Form.of(model, REQUEST, small("anything")) == Form()
