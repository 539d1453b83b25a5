"""Asking for labels: budgets, failures, order, and what counts as an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

import pilotfish as pf
from pilotfish.config import Price
from pilotfish.errors import AccessDenied, BudgetSpent, InputError, RequestRefused, Unavailable
from pilotfish.loop.discover import label_set
from pilotfish.loop.task import Task
from pilotfish.loop.teacher import Budget, Teacher, closed_label

TASK = Task("{x}", labels=("even", "odd"))


def parity(request: pf.Request) -> str:
    return "even" if int(request.prompt) % 2 == 0 else "odd"


def teacher(tmp_path: Path, model: pf.FakeModel, **settings: object) -> Teacher:
    store = pf.open_store(f"sqlite:///{tmp_path}/store.db")
    return Teacher(closed_label(model, store), lambda i: TASK.request({"x": str(i)}), **settings)  # type: ignore[arg-type]


def test_answers_come_in_the_order_asked_and_once(tmp_path: Path) -> None:
    model = pf.FakeModel(parity)
    asker = teacher(tmp_path, model)
    assert asker.ask([3, 2, 3, 8]) == ["odd", "even", "odd", "even"]
    assert asker.ask([2, 5]) == ["even", "odd"]
    assert len(model.requests) == 4


def test_a_second_run_pays_nothing(tmp_path: Path) -> None:
    teacher(tmp_path, pf.FakeModel(parity)).ask(range(50))
    model = pf.FakeModel(parity)
    again = teacher(tmp_path, model)
    assert again.ask(range(50))[:2] == ["even", "odd"]
    assert not model.requests
    assert again.cached == 50


def test_another_label_set_reuses_what_a_remote_model_said(tmp_path: Path) -> None:
    store = pf.open_store(f"sqlite:///{tmp_path}/store.db")
    model = pf.FakeModel("even")
    for labels in (("even", "odd"), ("even", "odd", "none")):
        task = Task("{x}", labels=labels)
        Teacher(closed_label(model, store), lambda i, t=task: t.request({"x": i})).ask([1])  # type: ignore[misc]
    assert len(model.requests) == 1


def test_an_answer_outside_the_set_is_no_label_but_is_paid(tmp_path: Path) -> None:
    asker = teacher(tmp_path, pf.FakeModel("maybe", price=Price(1e6, 1e6)))
    assert asker.ask([1]) == [None]
    assert asker.reason_unparsed == {"unparsed": 1}
    assert asker.cost
    assert asker.cost > 0


def test_call_budget_is_never_exceeded(tmp_path: Path) -> None:
    model = pf.FakeModel(parity)
    asker = teacher(tmp_path, model, budget=Budget(calls=10))
    asker.ask(range(8))
    assert asker.affordable(5) == 2
    with pytest.raises(BudgetSpent):
        asker.ask(range(8, 11))
    assert len(model.requests) == 8


def test_money_budget_needs_a_price(tmp_path: Path) -> None:
    asker = teacher(tmp_path, pf.FakeModel(parity), budget=Budget(dollars=1.0))
    asker.ask([1])
    with pytest.raises(InputError, match="price"):
        asker.affordable(1)


def test_money_budget_follows_the_average_cost(tmp_path: Path) -> None:
    asker = teacher(
        tmp_path, pf.FakeModel(parity, price=Price(1e5, 1e5)), budget=Budget(dollars=2.0)
    )
    asker.ask(range(4))  # two words each at $0.1: $0.2 a call
    assert asker.cost == pytest.approx(0.8)
    assert asker.affordable(100) == 6


def test_transient_failures_are_asked_again(tmp_path: Path) -> None:
    model = pf.FakeModel(parity, faults=[Unavailable("x"), None, Unavailable("y")])
    assert teacher(tmp_path, model).ask(range(4)) == ["even", "odd", "even", "odd"]


def test_an_endpoint_that_stays_away_stops_the_run_but_keeps_the_answers(tmp_path: Path) -> None:
    model = pf.FakeModel(parity, faults=[None, None, *[Unavailable("gone")] * 20])
    asker = teacher(tmp_path, model)
    with pytest.raises(Unavailable):
        asker.ask(range(8))
    assert len(asker.answers) == 2


def test_a_wrong_key_stops_at_once(tmp_path: Path) -> None:
    model = pf.FakeModel(parity, faults=[AccessDenied("no")] * 99)
    with pytest.raises(AccessDenied):
        teacher(tmp_path, model, concurrency=1).ask(range(50))
    assert len(model.requests) == 1


def test_one_refused_input_is_no_answer_but_all_refused_is_an_error(tmp_path: Path) -> None:
    model = pf.FakeModel(parity, faults=[None, RequestRefused("too long")])
    assert teacher(tmp_path, model, concurrency=1).ask([1, 2, 3]) == ["odd", None, "odd"]
    refusing = pf.FakeModel(parity, name="other", faults=[RequestRefused("no such model")] * 99)
    with pytest.raises(RequestRefused):
        teacher(tmp_path, refusing).ask(range(50))


@pytest.mark.parametrize("text", ["", "-5", "5.5", "many", "$", "€5"])
def test_bad_budgets(text: str) -> None:
    with pytest.raises(InputError, match="--budget"):
        Budget.parse(text)


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("1,000", Budget(calls=1000)),
        ("300 calls", Budget(calls=300)),
        ("2.5 USD", Budget(dollars=2.5)),
    ],
)
def test_budgets(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


def test_label_set_refuses_free_text_and_constants() -> None:
    with pytest.raises(InputError, match="free text"):
        label_set([f"An answer about {i}" for i in range(40)])
    with pytest.raises(InputError, match="same answer"):
        label_set(["yes"] * 40)
