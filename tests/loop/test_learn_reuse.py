"""Reused answers are certified on later requests, against the truth that the traffic was made with."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pilotfish.config import Config, Price
from pilotfish.errors import InputError
from pilotfish.loop.certified_reuse import LEAST_SCORE, certify_reuse
from pilotfish.loop.equivalence import EquivalenceJudge
from pilotfish.loop.learn import LearnSettings, Outcome
from pilotfish.loop.learn_reuse import TextTask, learn_text
from pilotfish.loop.learned import load_version
from pilotfish.loop.lessons import Definition
from pilotfish.loop.reuse import ReuseModel
from pilotfish.loop.teacher import Budget
from pilotfish.models.calls import wait
from pilotfish.models.fake import FakeModel
from pilotfish.records import Request
from pilotfish.store.store import Store, open_store
from pilotfish.store.traffic import Exchange, Recorded
from tests.loop import faq

FAQ = Definition("faq", "{text}", faq.SYSTEM, "large")
SETTINGS = LearnSettings(folder=Path("learned"))
DRAWS = 100
PRICE = Price(input=2.0, output=8.0)


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store("sqlite:///s.db") as opened:
        opened.versions.keep_task("faq", {"prompt": "{text}", "kind": "text"})
        yield opened


def keep(store: Store, rows: Sequence[Recorded]) -> list[Recorded]:
    """Record requests, as the gateway does."""
    store.traffic.add(
        Exchange(
            id=row.id, time=row.time, caller=row.caller, task="", asked="auto", endpoint="chat",
            streamed=False, status=200, error="", latency=0.1, first_byte=None,
            request=row.request, completion=row.completion, baseline=None,
        )
        for row in rows
    )  # fmt: skip
    return list(rows)


def run(
    store: Store,
    rows: Sequence[Recorded],
    large: faq.Large | None = None,
    marks: Mapping[str, Any] | None = None,
    settings: LearnSettings = SETTINGS,
    **options: Any,
) -> Outcome:
    model = FakeModel(large or faq.Large(), name="large", price=PRICE)
    given = {"reuse": "all"} if marks is None else marks
    task = TextTask(FAQ, given, store, model, model, settings, Config())
    return learn_text(task, rows, **options)


def truth(small: ReuseModel, threshold: float, seed: int = 99) -> tuple[float, float]:
    """Share of fresh questions that are answered, and how many of these answers are right."""
    rng = random.Random(seed)
    asked = [faq.question(rng)[0] for _ in range(1500)]
    tags = [{"fields": {"text": text}, "reuse": "all"} for text in asked]
    answers, scores = small.answer_requests([Request((), tags=tag) for tag in tags])
    served = [
        faq.equivalent(said, faq.answer(text))
        for text, said, score in zip(asked, answers, scores, strict=True)
        if score >= threshold
    ]
    return len(served) / len(asked), sum(served) / max(len(served), 1)


def test_paraphrases_are_answered_and_the_promise_is_true(store: Store) -> None:
    large = faq.Large()
    outcome = run(store, keep(store, list(faq.traffic(1200))), large)
    assert outcome.version is not None
    assert (outcome.reason, outcome.recorded) == ("certified", 1200)
    loaded = load_version(outcome.version)
    assert isinstance(loaded.small, ReuseModel)
    assert loaded.threshold >= LEAST_SCORE
    coverage, right = truth(loaded.small, loaded.threshold)
    assert coverage > 0.6
    assert abs(coverage - outcome.coverage) < 0.1
    assert right >= 0.95
    # All answers were recorded; verdicts were bought, each once, and are the judge's in the account.
    assert large.answers == 0
    assert 0 < large.verdicts == outcome.asked == store.count()
    day = sum(d.judge_cost for d in store.ledger.days("faq"))
    assert day == pytest.approx(outcome.cost)
    assert sum(d.lessons for d in store.ledger.days("faq")) == 0
    # Who is killed and starts again pays nothing, and finds the same version.
    again = run(store, list(faq.traffic(1200)), large)
    assert again.version == outcome.version
    assert large.verdicts == outcome.asked


def test_numbers_names_and_negations_that_differ_are_no_match(store: Store) -> None:
    """Half of the traffic looks alike and means something else; the cosine alone would not do."""
    outcome = run(store, keep(store, list(faq.traffic(1200))))
    assert outcome.version is not None
    loaded = load_version(outcome.version)
    assert isinstance(loaded.small, ReuseModel)
    for text in (
        "Can I return boots 71 days after I bought them?",
        "How long does delivery to Zurich take?",
        "Why do you not repair boots?",
    ):
        text += " I write from my car. It is new, thank you."
        request = Request((), tags={"fields": {"text": text}, "reuse": "all"})
        question = loaded.small.question(request)
        (match,) = loaded.small.match([question])
        vector, span = loaded.small.embedding([question.values]), (0, len(loaded.small.ids))
        _, cosines = loaded.small.nearest.search(vector, span, 1)
        assert cosines[0, 0] > 0.6  # there is a question that looks like it
        assert match.score < loaded.threshold


def test_what_the_judge_finds_different_is_not_certified(store: Store) -> None:
    """An answer that is another each time: also the same words get no old one."""
    rng = random.Random(3)
    rows = []
    for row in faq.traffic(600):
        assert row.completion is not None
        completion = dataclasses.replace(row.completion, text=f"fact n{rng.randrange(10**9)}")
        rows.append(dataclasses.replace(row, completion=completion))
    outcome = run(store, keep(store, rows))
    assert (outcome.version, outcome.coverage) == (None, 0.0)
    assert outcome.reason in ("no-threshold", "too-few-answers")


def test_users_get_their_own_answers_only(store: Store) -> None:
    rows = keep(store, list(faq.traffic(1500, users=3)))
    outcome = run(store, rows, marks={})
    assert outcome.version is not None
    loaded = load_version(outcome.version)
    assert isinstance(loaded.small, ReuseModel)
    owner = {row.id: row.request.user for row in rows if row.request is not None}
    for row in faq.traffic(200, seed=5, users=4):  # the fourth is new
        assert row.request is not None
        request = dataclasses.replace(row.request, tags={"fields": {"text": row.request.prompt}})
        answer = wait(loaded.small.complete(request))
        if row.request.user == "user-3":
            assert (answer.text, answer.extra["score"]) == ("", -1.0)
        else:
            assert owner[answer.extra["reused"]] == row.request.user


def test_requests_that_name_nobody_are_not_learned_from_unless_that_is_allowed(
    store: Store,
) -> None:
    large = faq.Large()
    rows = keep(store, list(faq.traffic(600)))
    for marks, scope in (({}, "user"), ({"reuse": "key"}, "key"), ({"reuse": "never"}, "never")):
        with pytest.raises(InputError, match=rf"--reuse {scope}, and only 0 .* --reuse all"):
            run(store, rows, large, marks)
    assert (large.answers, large.verdicts) == (0, 0)
    with pytest.raises(InputError, match="too few to certify"):
        run(store, rows[:100], large)


def test_answers_that_are_missing_are_bought_once(store: Store) -> None:
    """The later half was answered by a version: its answers prove nothing, the large model's do."""
    rows = list(faq.traffic(900))
    for i in range(450, 900):
        completion = rows[i].completion
        assert completion is not None
        completion = dataclasses.replace(completion, text="fact made-up.", model="faq@1")
        rows[i] = dataclasses.replace(rows[i], model="faq@1", completion=completion)
    large = faq.Large()
    outcome = run(store, keep(store, rows), large)
    assert outcome.version is not None
    loaded = load_version(outcome.version)
    assert isinstance(loaded.small, ReuseModel)
    assert not [answer for answer in loaded.small.answers if "made-up" in answer]
    assert truth(loaded.small, loaded.threshold)[1] >= 0.95
    assert large.answers > 0
    assert large.answers + large.verdicts == store.count()
    assert sum(day.lessons for day in store.ledger.days("faq")) == large.answers


def test_a_budget_is_kept(store: Store) -> None:
    rows = keep(store, list(faq.traffic(900)))
    large = faq.Large()
    run(store, rows, large, settings=dataclasses.replace(SETTINGS, budget=Budget(calls=60)))
    assert 0 < large.verdicts <= 60
    large = faq.Large()
    settings = dataclasses.replace(SETTINGS, budget=Budget(dollars=0.05), seed=1)
    outcome = run(store, rows, large, settings=settings)
    assert outcome.cost is not None
    assert 0 < outcome.cost <= 0.06


def test_what_is_forgotten_while_it_is_learned_is_in_no_version(store: Store) -> None:
    rows = keep(store, list(faq.traffic(900)))
    large, counted = faq.Large(), iter(range(10**6))

    def forgetful(request: Request) -> str:
        if next(counted) == 30:
            store.ledger.forget(request_id=rows[0].id)
        return large(request)

    model = FakeModel(forgetful, name="large")
    task = TextTask(FAQ, {"reuse": "all"}, store, model, model, SETTINGS, Config())
    rows[0] = dataclasses.replace(rows[0], request=Request.of("Only here?", system=faq.SYSTEM))
    outcome = learn_text(task, rows)
    assert (outcome.reason, outcome.version) == ("forgotten", None)
    (version,) = store.versions.versions("faq")
    assert not Path(version.artifact).exists()
    assert [event.kind for event in store.versions.events("faq")] == ["withdrawn"]


def test_texts_are_redacted_before_a_judge_sees_them(store: Store) -> None:
    model = FakeModel(" equivalent. ", name="judge")
    judge = EquivalenceJudge(model, store, "faq", lambda text: text.replace("Ann", "[name]"))
    verdict = wait(judge.compare("I am Ann?", "Yes, Ann.", "Ann, yes!", ["req_1"]))
    assert verdict.equivalent
    assert "Ann" not in str([request.messages for request in model.requests])


def test_the_judge_is_asked_once_for_a_pair_and_not_at_all_for_equal_answers(store: Store) -> None:
    model = FakeModel("different", name="judge")
    judge = EquivalenceJudge(model, store, "faq")
    assert wait(judge.compare("Q?", "It is  so.", "it is so.")).equivalent
    assert not wait(judge.compare("Q?", "It is so.", " ")).equivalent
    assert not model.requests
    for pair in (("a", "b"), ("b", "a"), ("a", "b")):
        assert not wait(judge.compare("Q?", *pair)).equivalent
    assert len(model.requests) == 1
    unsure = EquivalenceJudge(FakeModel("They are equivalent, I think", name="u"), store, "faq")
    assert not wait(unsure.compare("Q?", "c", "d")).equivalent


def population(rng: np.random.Generator, n: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Scores as they look: some 1, some 0, the others spread; overconfident by a tenth."""
    scores = np.where(rng.random(n) < 0.2, 1.0, rng.beta(2, 1, n))
    scores[rng.random(n) < 0.2] = 0.0
    chance = np.where(scores == 1.0, 0.99, np.clip(scores - 0.1, 0, 1) ** 0.3)
    return scores, rng.random(n) < chance


def test_the_promise_is_broken_no_more_often_than_delta() -> None:
    """On synthetic scores: over many draws, the true rate of reused answers is below the target."""
    rng = np.random.default_rng(7)
    broken = certified = 0
    wide_scores, wide_right = population(rng, 200_000)
    for seed in range(DRAWS):
        scores, right = population(rng, 500)
        reference, _ = population(rng, 200)
        certificate = certify_reuse(
            scores,
            reference,
            lambda rows, right=right: [bool(right[i]) for i in rows],  # type: ignore[misc]
            agree=0.9,
            delta=0.1,
            expected=lambda s: np.clip(1.0 - s, 0.01, 0.99),
            servable=0.5,
            horizon=2000,
            affordable=500,
            seed=seed,
        )
        if certificate.threshold is not None:
            certified += 1
            broken += float(wide_right[wide_scores >= certificate.threshold].mean()) < 0.9
    assert certified > 0.7 * DRAWS
    assert broken <= 0.1 * DRAWS + 2.33 * np.sqrt(DRAWS * 0.1 * 0.9)
