"""Rank and fuse, and the two ways to leave the large model a short list."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from pilotfish.config import Config
from pilotfish.errors import ConfigError, ModelError, RequestRefused, Unavailable
from pilotfish.infer.fuse import Fuse
from pilotfish.infer.judges.model_agreement import ModelAgreement
from pilotfish.infer.narrow import Narrow
from pilotfish.models.fake import FakeModel
from pilotfish.models.load import load_model
from pilotfish.records import Completion, Request


def candidates(*texts: str) -> list[FakeModel]:
    return [FakeModel(text, name=f"m{i}", latency=0.01 * (i + 1)) for i, text in enumerate(texts)]


async def test_the_fuser_is_shown_the_top_answers_and_the_request() -> None:
    fuser = FakeModel("Paris, on the Seine.", name="fuser")
    models = [*candidates("Paris", "Lyon", "Paris indeed", "Rome"), fuser]
    fuse = Fuse(models, judge=ModelAgreement(pattern="Paris|Lyon|Rome"), top=2)
    answer = await fuse.complete(Request.of("Capital of France?", system="Be brief."))
    assert (answer.text, answer.model) == ("Paris, on the Seine.", "fuser")
    asked = fuser.requests[0]
    assert asked.messages[0] == {"role": "system", "content": "Be brief."}
    assert asked.prompt.startswith(
        "Capital of France?\n\nCandidate 1:\nParis\n\nCandidate 2:\nParis indeed"
    )
    assert "Lyon" not in asked.prompt
    reasons = {d.rejected[0]: d.reason for d in answer.decisions[:-1]}
    assert reasons == {"m0": "fused", "m2": "fused", "m1": "ranked-lower", "m3": "ranked-lower"}
    assert answer.latency == pytest.approx(0.04, abs=0.001), "asked at the same time"


async def test_top_one_gives_the_best_as_it_is() -> None:
    fuser = FakeModel("x", name="fuser")
    fuse = Fuse([*candidates("no", "yes", "yes"), fuser], top=1)
    answer = await fuse.complete(Request.of("?"))
    assert (answer.text, answer.model, fuser.requests) == ("yes", "m1", [])


async def test_the_judge_ranks_by_the_names_of_models() -> None:
    class Last:
        name = "last"

        async def score(self, request: Request, completion: Completion) -> float:
            return float(completion.model[-1])

    fuse = Fuse([*candidates("a", "b", "c"), FakeModel("x", name="fuser")], judge=Last(), top=1)
    assert (await fuse.complete(Request.of("?"))).text == "c"


async def test_members_that_fail_are_left_out() -> None:
    gone = FakeModel("x", name="gone", faults=itertools.repeat(Unavailable("gone")))
    fuser = FakeModel("fused", name="fuser")
    answer = await Fuse([gone, *candidates("a", "a"), fuser]).complete(Request.of("?"))
    assert answer.text == "fused"
    assert answer.decisions[0].reason == "unavailable"
    with pytest.raises(Unavailable):
        await Fuse([gone, gone, fuser]).complete(Request.of("?"))
    wrong = FakeModel("x", name="wrong", faults=itertools.repeat(RequestRefused("no")))
    with pytest.raises(RequestRefused):
        await Fuse([wrong, *candidates("a"), fuser]).complete(Request.of("?"))


def test_a_fuse_needs_someone_to_answer() -> None:
    with pytest.raises(ConfigError, match="1 models"):
        Fuse([FakeModel("x")])


# Narrow

LABELS = ["cat", "dog", "fox", "owl"]


def small(**probs: float) -> FakeModel:
    return FakeModel(
        max(probs, key=probs.__getitem__), name="small", label_probs=lambda request: probs
    )


def asked(**more: Any) -> Request:
    return Request.of("Which animal?", labels=LABELS, **more)


async def test_a_sure_label_is_kept() -> None:
    large = FakeModel("dog", name="large")
    answer = await Narrow([small(cat=0.95, dog=0.05), large]).complete(asked())
    assert (answer.text, answer.model, large.requests) == ("cat", "small", [])
    assert (answer.decisions[-1].score, answer.decisions[-1].threshold) == (0.95, 0.9)


@pytest.mark.parametrize("hint", [False, True])
async def test_an_unsure_one_leaves_the_top_labels(hint: bool) -> None:
    """Ma et al. 2023 without the hint; Data Shunt+ with it."""
    large = FakeModel("dog", name="large")
    unsure = small(cat=0.4, dog=0.35, fox=0.2, owl=0.05)
    answer = await Narrow([unsure, large], top=2, hint=hint).complete(asked())
    assert (answer.text, answer.model) == ("dog", "large")
    prompt = large.requests[0].prompt
    assert "one of these: cat; dog." in prompt
    assert "owl" not in prompt
    assert ("cat 0.40, dog 0.35" in prompt) == hint
    assert [d.reason for d in answer.decisions] == ["score<threshold", "last"]


async def test_a_label_outside_the_list_is_no_label() -> None:
    large = FakeModel("owl", name="large")
    answer = await Narrow([small(cat=0.4, dog=0.35, owl=0.25), large], top=2).complete(asked())
    assert answer.extra["label"] is None


async def test_without_labels_or_without_the_small_model_the_large_one_is_asked_as_it_was() -> None:
    large = FakeModel("anything", name="large")
    narrow = Narrow([small(cat=0.95), large])
    assert (await narrow.complete(Request.of("Hi"))).text == "anything"
    gone = FakeModel("x", name="small", faults=itertools.repeat(Unavailable("gone")))
    large = FakeModel("fox", name="large")
    answer = await Narrow([gone, large]).complete(asked())
    assert answer.text == "fox"
    assert large.requests[0].prompt == "Which animal?"
    both = Narrow(
        [gone, FakeModel("x", name="large", faults=itertools.repeat(Unavailable("gone")))]
    )
    with pytest.raises(ModelError):
        await both.complete(asked())


def test_they_are_declared_in_the_configuration() -> None:
    member = {"backend": "fake", "model": "yes"}
    config = Config(
        models={
            "a": member,
            "b": member,
            "n": {"kind": "narrow", "models": ["a", "b"], "top": 2, "hint": True},
            "f": {"kind": "fuse", "models": ["a", "b", "n"], "top": 1},
        }
    )
    narrow = load_model("n", config)
    assert isinstance(narrow, Narrow)
    assert (narrow.top, narrow.hint) == (2, True)
    assert isinstance(load_model("f", config), Fuse)
    with pytest.raises(ConfigError, match="3 models"):
        Narrow([FakeModel("x")] * 3)
