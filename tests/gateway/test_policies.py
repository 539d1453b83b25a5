"""Fitted policies behind the gateway, as users serve them: sockets, headers, records, streams."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotfish.infer.operating import Dials
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.certified import Certified
from pilotfish.infer.routing import Narrowing, Routing, fit_routing
from pilotfish.models.fake_server import FakeServer
from pilotfish.records import Decision
from pilotfish.store.traffic import Recorded
from tests.gateway.serving import Running, remote, serving

PRICES = {"small": {"input": 0.1, "output": 0.1}, "large": {"input": 10.0, "output": 10.0}}
COST = np.array([0.001, 0.1], np.float32)


def recorded(n: int = 900, seed: int = 0) -> Outcomes:
    """Sums that both can do, and theorems of which the small one says nothing to the point."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n) < 0.5
    numbers, others = rng.integers(10, 99, n), rng.permutation(10_000)[:n]
    texts = tuple(
        f"{'prove the theorem' if h else 'add the numbers'} {k} of {i}"
        for i, h, k in zip(others, hard, numbers, strict=True)
    )
    answers = np.array([[small(t), large(t)] for t in texts], object)
    quality = np.stack([~hard, np.ones(n, bool)], axis=1).astype(np.float32)
    sure = np.stack([np.where(hard, 0.1, 0.9), np.full(n, 0.9)], axis=1).astype(np.float32)
    sure = np.clip(sure + 0.05 * rng.normal(size=sure.shape), 0, 1).astype(np.float32)
    signals = {"self-verification": sure, "sample-agreement": sure, "top_probability": sure}
    cost = np.tile(COST, (n, 1))
    return Outcomes(texts, ("small", "large"), quality, cost, answers=answers, signals=signals)


def number(text: str) -> int:
    return int(re.findall(r"[0-9]+", text)[0])


def small(text: str) -> str:
    return f"It is {number(text)}" if "add" in text else "I do not know what to say"


def large(text: str) -> str:
    return f"It is {number(text)}"


def parts() -> list[Outcomes]:
    rows = recorded()
    return [rows.take(slice(i, i + 300)) for i in (0, 300, 600)]


def save(folder: Path, policy: str, dials: Dials | None = None, **settings: Any) -> Routing:
    made = fit_routing(*parts(), policy=policy, dials=dials, **settings)
    made.save(folder)
    return made


@contextmanager
def gateway(
    folder: Path, faults: Sequence[str] = (), **policy: Any
) -> Iterator[tuple[Running, FakeServer, FakeServer]]:
    """A policy over two servers; the small one gives verdicts too."""

    def reply(body: dict[str, Any]) -> str:
        said: str = body["messages"][-1]["content"]
        if "Verdict" not in said:
            return small(said)
        asked = said.rsplit("Answer: ", 1)[1]
        return f"Verdict: {'correct' if 'It is' in asked else 'incorrect'}"

    with (
        FakeServer(reply, faults=faults) as one,
        FakeServer(lambda body: large(body["messages"][-1]["content"])) as two,
    ):
        models = {
            "small": remote(one, price=PRICES["small"]),
            "large": remote(two, price=PRICES["large"]),
            "assistant": {
                "kind": "policy",
                "models": ["small", "large"],
                "by": str(folder),
                **policy,
            },
        }
        with serving(models, default="assistant") as running:
            yield running, one, two


def decisions(row: Recorded) -> tuple[Decision, ...]:
    assert row.completion is not None
    return row.completion.decisions


EASY, HARD = "add the numbers 41 of 600", "prove the theorem 41 of 600"


def test_a_router_says_who_was_chosen_and_why(tmp_path: Path) -> None:
    made = save(tmp_path / "p", "logistic:strength=10.0", Dials(min_quality=0.95))
    with gateway(tmp_path / "p") as (running, one, two):
        for text, name in ((EASY, "small"), (HARD, "large")):
            answer = running.chat(text, model="assistant")
            assert answer.status_code == 200, answer.text
            head = answer.headers
            assert head["x-pilotfish-model"] == name
            assert head["x-pilotfish-reason"] == "chosen"
            expected = made.look([text]).expected[0, made.classes.index(name)]
            assert float(head["x-pilotfish-score"]) == pytest.approx(expected, abs=1e-5)
            saving = float(head["x-pilotfish-saving"])
            assert saving > 0 if name == "small" else saving == pytest.approx(0, abs=1e-12)
        assert (one.count, two.count) == (1, 1)
        pieces = running.events(model="assistant", messages=[{"role": "user", "content": HARD}])
        assert len(pieces) > 3, "what was chosen beforehand is streamed"
        assert len(running.records(3)) == 3
        decided = [decisions(row)[-1] for row in running.records(3)]
        assert [d.chose for d in decided] == ["small", "large", "large"]
        assert decided[0].rejected == ("large",)


JUDGES = {
    "learned": {},
    "pairwise": {},
    "model-agreement": {},
    "self-verification": {"samples": 3},
    "sample-agreement": {"samples": 2},
}


@pytest.mark.parametrize("judge", ["learned", "self-verification", "sample-agreement"])
@pytest.mark.parametrize("kind", ["cascade", "reservation", "verification-pomdp"])
def test_a_judge_is_asked_live(tmp_path: Path, kind: str, judge: str) -> None:
    settings = "".join(f",{name}={value}" for name, value in JUDGES[judge].items())
    if kind == "reservation":
        settings += ",predictor=average"  # so that the question says nothing, and the judge all
    save(tmp_path / "p", f"{kind}:{judge}{settings}", Dials(min_quality=0.95))
    asking = judge in ("self-verification", "sample-agreement")
    with gateway(tmp_path / "p", **({"judge_model": "small"} if asking else {})) as got:
        running, one, two = got
        easy, hard = (running.chat(text, model="assistant") for text in (EASY, HARD))
        assert easy.status_code == hard.status_code == 200, (easy.text, hard.text)
        assert easy.headers["x-pilotfish-model"] == "small"
        assert easy.headers["x-pilotfish-reason"] == "good-enough"
        assert float(easy.headers["x-pilotfish-score"]) > 0.6
        said = hard.json()["choices"][0]["message"]["content"]
        if judge == "sample-agreement":  # the small one repeats itself, and so is believed
            assert said == small(HARD)
            assert one.count == 2 * (1 + 2)
            return
        assert said == large(HARD)
        small_row, large_row = running.records(2)
        if kind == "reservation":  # which compares both answers at the end
            assert hard.headers["x-pilotfish-reason"] == "best-of-asked"
            assert [d.reason for d in decisions(large_row)] == ["not-best", "best-of-asked"]
            return
        assert hard.headers["x-pilotfish-reason"] == "not-sure"
        assert float(hard.headers["x-pilotfish-score"]) < 0.4
        verdicts = 3 if judge == "self-verification" else 0
        assert one.count == 2 * (1 + verdicts)
        assert two.count == 1, "the last answer is given, and so it is not judged"
        assert [d.reason for d in decisions(large_row)] == ["not-sure", "last"]
        assert [d.by for d in decisions(large_row)] == ["assistant", "assistant"]
        # Judging is paid for by the request that it is done for.
        alone = float(easy.headers["x-pilotfish-cost"])
        assert small_row.cost == pytest.approx(alone)
        plain = running.chat(EASY, model="small").headers["x-pilotfish-cost"]
        assert alone > 3 * float(plain) if verdicts else alone == pytest.approx(float(plain))


@pytest.mark.parametrize("policy", ["logistic:strength=10.0", "cascade:learned"])
def test_a_certified_policy_keeps_its_promise_in_service(tmp_path: Path, policy: str) -> None:
    made = save(tmp_path / "p", policy, Dials(agree=0.9))
    assert isinstance(made.policy, Certified)
    assert made.policy.threshold is not None
    with gateway(tmp_path / "p") as (running, _, _two):
        agreed, asked = [], []
        for text in recorded(40, seed=5).texts:
            answer = running.chat(text, model="assistant")
            agreed.append(answer.json()["choices"][0]["message"]["content"] == large(text))
            asked.append(answer.headers["x-pilotfish-model"] == "large")
        assert statistics.mean(agreed) >= 0.9
        assert 0 < statistics.mean(asked) < 0.8
        row = running.records(40)[0]
        thresholds = {d.threshold for d in decisions(row)}
        assert thresholds <= {None, made.policy.threshold}


def test_policies_nest(tmp_path: Path) -> None:
    """A policy in a chain, in a policy: the decisions of all of them come with the answer."""
    save(tmp_path / "p", "cascade:learned", Dials(min_quality=0.95))
    with (
        FakeServer(lambda body: small(body["messages"][-1]["content"])) as one,
        FakeServer(lambda body: large(body["messages"][-1]["content"])) as two,
    ):
        inner = {"kind": "policy", "models": ["small", "large"], "by": str(tmp_path / "p")}
        rows = recorded()
        outer = Outcomes(
            rows.texts, ("inner", "steady"), rows.quality, rows.cost, answers=rows.answers
        )
        learn, choose, check = (outer.take(slice(i, i + 300)) for i in (0, 300, 600))
        fit_routing(learn, choose, check, policy="logistic").save(tmp_path / "q")
        models = {
            "small": remote(one),
            "large": remote(two),
            "inner": inner,
            "steady": {"kind": "fallback", "models": ["inner", "large"]},
            "outer": {
                "kind": "policy",
                "models": ["inner", "steady"],
                "by": str(tmp_path / "q"),
            },
        }
        with serving(models) as running:
            answer = running.chat(HARD, model="outer")
            assert answer.json()["choices"][0]["message"]["content"] == large(HARD)
            (row,) = running.records(1)
            assert [d.by for d in decisions(row)] == ["inner", "inner", "steady", "outer"]
            assert answer.headers["x-pilotfish-reason"] == "chosen"


def test_the_large_one_chooses_from_what_the_small_one_holds_likely(tmp_path: Path) -> None:
    """Filter-then-rerank as a policy: the cascade's escalated question is cut down."""
    from pilotfish.config import Config
    from pilotfish.infer.policy_model import PolicyModel
    from pilotfish.models.calls import wait
    from pilotfish.models.fake import FakeModel
    from pilotfish.records import Completion, Request

    made = save(
        tmp_path / "p",
        "cascade:top_probability",
        Dials(min_quality=0.95),
        narrowing=Narrowing(2, hint=True),
    )
    assert made.narrowing == Narrowing(2, hint=True)
    probs = {"a": 0.4, "b": 0.35, "c": 0.25}

    class Scores:
        name = "small"

        async def complete(self, request: Request) -> Completion:
            return Completion("a", "small", label_probs=probs)

    asked = FakeModel("b", name="large")
    table = {"kind": "policy", "models": ["small", "large"], "by": str(tmp_path / "p")}
    config = Config(models={"both": table, "small": {}, "large": {}})
    settings = {"by": table["by"]}
    model = PolicyModel.from_members("both", [Scores(), asked], settings, config)
    answer = wait(model.complete(Request.of("Which?", labels=["a", "b", "c"])))
    assert answer.text == "b"
    [request] = asked.requests
    assert "one of these: a; b." in request.prompt
    assert "a 0.40, b 0.35" in request.prompt
    assert [d.reason for d in answer.decisions] == ["not-sure", "last"]


def test_a_policy_without_its_models_or_its_judges_model_says_so(tmp_path: Path) -> None:
    save(tmp_path / "p", "cascade:self-verification", Dials(min_quality=0.95))
    with gateway(tmp_path / "p") as (running, _, _two):
        answer = running.chat(EASY, model="assistant")
        assert answer.status_code == 500
        assert "judge_model" in answer.json()["error"]["message"]
    save(tmp_path / "q", "average")
    with FakeServer("x") as one:
        wrong = {"kind": "policy", "models": ["a", "b"], "by": str(tmp_path / "q")}
        with serving({"a": remote(one), "b": remote(one), "p": wrong}) as running:
            message = running.chat(EASY, model="p").json()["error"]["message"]
            assert "asks small, large" in message


def test_a_member_that_fails_in_service_is_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "p", "logistic:strength=10.0", Dials(min_quality=0.95))
    with gateway(tmp_path / "p", faults=["server-error"] * 50) as (running, _, _two):
        answer = running.chat(EASY, model="assistant")
        assert answer.headers["x-pilotfish-model"] == "large"
        (row,) = running.records(1)
        assert decisions(row)[0].reason == "unavailable"
        pieces = running.events(model="assistant", messages=[{"role": "user", "content": EASY}])
        text = "".join(
            p["choices"][0]["delta"].get("content") or "" for p in pieces[:-1] if p["choices"]
        )
        assert text == large(EASY), "before the first word nothing is lost"
