"""Labels: likelihood against brute force on a tiny model, calls scored together, refusals.

Tolerance as in test_llamacpp.py: cached keys and values are float16, so log-probabilities agree to about
0.01 per token; 0.05 covers labels of several tokens.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.errors import InputError, RequestRefused, Unavailable
from pilotfish.models.calls import ask, complete_many, wait
from pilotfish.models.fake import FakeModel
from pilotfish.models.labels import LabelModel
from pilotfish.models.llamacpp import LlamaModel, LlamaSettings
from pilotfish.models.protocols import Floats
from pilotfish.models.trie import nodes, undecided
from pilotfish.records import Completion, Request
from tests.models import tiny_gguf

WEIGHTS = tiny_gguf.random_weights(1)
LABELS = ("a", "ab", "abc", "there", "other", "no", "Grüße", "x, y", "7")
CLOSE = {"atol": 0.05, "rtol": 0.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    path = tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", WEIGHTS)
    model = LlamaModel(path, LlamaSettings(threads=1, tolerance=0))
    yield model
    model.close()


def brute_force(model: LlamaModel, prompt: str, labels: Sequence[str]) -> np.ndarray:
    """Log-likelihood of each label and the end of the turn, by the NumPy network; not normalised."""
    start = model.prompt_tokens(Request.of(prompt))
    totals = []
    for label in labels:
        path = [*model.tokenize(label), tiny_gguf.END]
        logits = tiny_gguf.forward(WEIGHTS, start + path)[len(start) - 1 : -1]
        logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        totals.append(logp[np.arange(len(path)), path].sum())
    return np.array(totals)


def normalised(scores: np.ndarray) -> np.ndarray:
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


PROMPTS = ["Topic: cab", "Topic: the other cab is there", "Topic: 12", "Another beginning", "T"]


def scored(model: LlamaModel, prompts: Sequence[str], labels: Sequence[str]) -> Floats:
    return wait(model.score_labels([Request.of(p) for p in prompts], labels))


def test_label_scores_equal_brute_force(model: LlamaModel) -> None:
    expected = normalised(np.stack([brute_force(model, p, LABELS) for p in PROMPTS]))
    got = scored(model, PROMPTS, LABELS)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, **CLOSE)
    one_by_one = np.concatenate([scored(model, [p], LABELS) for p in PROMPTS])
    np.testing.assert_allclose(one_by_one, expected, **CLOSE)
    np.testing.assert_allclose(np.exp(got).sum(axis=1), 1, atol=1e-5)


def test_many_inputs_and_five_hundred_labels(model: LlamaModel) -> None:
    labels = [f"label {i}" for i in range(500)]
    prompts = [f"Number {i}" for i in range(3)]
    expected = normalised(np.stack([brute_force(model, p, labels[::50]) for p in prompts]))
    got = scored(model, prompts, labels)[:, ::50].astype(np.float64)
    np.testing.assert_allclose(normalised(got), expected, **CLOSE)
    many = [f"Input number {i} of many" for i in range(150)]
    together = scored(model, many, ["a", "ab"])
    np.testing.assert_allclose(together[::30], scored(model, many[::30], ["a", "ab"]), **CLOSE)


def test_sessions_keep_their_cells_while_labels_are_scored(model: LlamaModel) -> None:
    tokens = model.tokenize("the other cab")
    session = model.session()
    session.feed(tokens[:4])
    scored(model, PROMPTS, LABELS)
    np.testing.assert_allclose(
        session.feed(tokens[4:]), tiny_gguf.forward(WEIGHTS, tokens)[4:], atol=0.03
    )


def test_leaving_labels_at_their_bound_changes_little(model: LlamaModel) -> None:
    labels = [f"{a}{b}" for a in "abcdefghij" for b in ("", "x", " yes")]
    exact = np.exp(scored(model, PROMPTS, labels))
    model.tolerance = 0.05
    try:
        near = np.exp(scored(model, PROMPTS, labels))
    finally:
        model.tolerance = 0.0
    np.testing.assert_array_equal(near.argmax(1), exact.argmax(1))
    assert np.abs(near - exact).max() < 0.06


@given(
    st.lists(st.floats(-12, 0), min_size=1, max_size=30),
    st.sampled_from([0.01, 0.1]),
    st.randoms(use_true_random=False),
)
def test_what_is_left_out_is_within_the_tolerance(
    bounds: list[float], tolerance: float, random: object
) -> None:
    scores = np.array(bounds)
    truth = scores - np.array([random.expovariate(1.0) for _ in bounds])  # type: ignore[attr-defined]
    exact = np.zeros(len(bounds), dtype=bool)
    while len(chosen := undecided(scores, exact, tolerance)):
        assert not exact[chosen].any()
        scores[chosen], exact[chosen] = truth[chosen], True
    left = np.exp(scores[~exact]).sum()
    assert left <= tolerance * np.exp(scores[exact]).sum() * (1 + 1e-9)
    assert exact[truth.argmax()]
    assert len(undecided(np.array(bounds), np.zeros(len(bounds), bool), 0)) == len(bounds)


def test_blanks_subtract_the_labels_prior(model: LlamaModel) -> None:
    blanks = ["Topic: N/A", "Topic: "]
    prior = np.mean([brute_force(model, b, LABELS) for b in blanks], axis=0)
    expected = normalised(brute_force(model, PROMPTS[0], LABELS) - prior)
    requests = [Request.of(PROMPTS[0], blanks=blanks), Request.of(PROMPTS[0])]
    got = wait(model.score_labels(requests, LABELS))
    np.testing.assert_allclose(got[0], expected, **CLOSE)
    plain = normalised(brute_force(model, PROMPTS[0], LABELS))
    np.testing.assert_allclose(got[1], plain, **CLOSE)


def test_inputs_that_do_not_fit_are_refused_alone(model: LlamaModel) -> None:
    labelled = LabelModel(model)
    requests = [Request.of(p, labels=list(LABELS)) for p in (*PROMPTS, "x" * 3000)]

    async def all_of_them() -> dict[int, object]:
        return {i: answer async for i, answer in complete_many(labelled, requests)}

    answers = wait(all_of_them())
    assert isinstance(answers[5], RequestRefused)
    for i, prompt in enumerate(PROMPTS):
        answer = answers[i]
        assert isinstance(answer, Completion)
        assert answer.label_probs is not None
        expected = normalised(brute_force(model, prompt, LABELS))
        np.testing.assert_allclose(np.log(list(answer.label_probs.values())), expected, **CLOSE)
        assert answer.text == LABELS[int(expected.argmax())] == answer.extra["label"]


def test_trie_nodes_are_shared() -> None:
    tree = nodes([[1, 2, 3], [1, 2], [4]], [0, 1])
    assert [(n.token, n.depth, n.labels) for n in tree] == [
        (1, 0, (0, 1)),
        (2, 1, (0, 1)),
        (3, 2, (0,)),
    ]


class Scorer:
    """A scorer of known answers that records its batches."""

    name = "scorer"

    def __init__(self, error: Exception | None = None) -> None:
        self.batches: list[int] = []
        self.error = error
        self.cancelled = 0

    async def complete(self, request: Request) -> Completion:
        return Completion("7.25", self.name, extra={"params": dict(request.params)})

    async def score_labels(self, requests: Sequence[Request], labels: Sequence[str]) -> Floats:
        assert not any({"labels", "answer", "range"} & set(r.params) for r in requests)
        self.batches.append(len(requests))
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        rows = [[float(label in r.prompt) * 3 for label in labels] for r in requests]
        p = np.exp(np.array(rows))
        return np.log(p / p.sum(1, keepdims=True)).astype(np.float32)


async def answers(model: LabelModel, requests: Sequence[Request]) -> list[Completion]:
    return list(await asyncio.gather(*(model.complete(r) for r in requests)))


def test_concurrent_calls_are_scored_together() -> None:
    scorer = Scorer()
    requests = [
        Request.of(f"a {'red' if i % 2 else 'blue'} fish", labels=["red", "blue"])
        for i in range(100)
    ]
    got = wait(answers(LabelModel(scorer), requests))
    assert [c.text for c in got] == ["red" if i % 2 else "blue" for i in range(100)]
    assert scorer.batches == [64, 36]


def test_multi_label_asks_yes_or_no_per_label() -> None:
    class YesNo(Scorer):
        async def score_labels(self, requests: Sequence[Request], labels: Sequence[str]) -> Floats:
            assert labels == ("yes", "no")
            assert not any(r.params for r in requests)
            yes = [
                0.9 if "'red' apply" in r.prompt or "'x, y' apply" in r.prompt else 0.2
                for r in requests
            ]
            return np.log(np.array([[p, 1 - p] for p in yes])).astype(np.float32)

    got = ask(
        LabelModel(YesNo()), "a fish", labels=["x, y", "blue", "red"], answer="labels", blanks=["a"]
    )
    assert json.loads(got.text) == ["x, y", "red"]
    assert got.label_probs == pytest.approx({"x, y": 0.9, "blue": 0.2, "red": 0.9})


def test_ratings_and_ranges_on_a_scorer() -> None:
    model = LabelModel(Scorer())
    assert ask(model, "give 4", labels=["1", "2", "3", "4", "5"], answer="rating").text == "4"
    ranged = ask(model, "give a number", range=[0, 10], answer="rating", temperature=0)
    assert (ranged.text, ranged.extra["label"]) == ("7.25", "7.25")
    assert ranged.extra["params"] == {"temperature": 0}


def test_errors_reach_every_caller_and_the_next_call_works() -> None:
    for error, kind in ((Unavailable("down"), Unavailable), (ValueError("bug"), ValueError)):
        scorer = Scorer(error)
        model = LabelModel(scorer)
        request = Request.of("red", labels=["red", "blue"])

        async def three(model: LabelModel = model, request: Request = request) -> list[object]:
            calls = (model.complete(request) for _ in range(3))
            return list(await asyncio.gather(*calls, return_exceptions=True))

        assert [type(e) for e in wait(three())] == [kind] * 3
        scorer.error = None
        assert ask(model, request).text == "red"


def test_scoring_stops_when_nobody_waits() -> None:
    scorer = Scorer()
    model = LabelModel(scorer)

    async def give_up() -> None:
        tasks = [
            asyncio.ensure_future(model.complete(Request.of("red", labels=["red", "blue"])))
            for _ in range(3)
        ]
        while not scorer.batches:
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)

    wait(give_up())
    assert scorer.cancelled == 1
    assert ask(model, "red", labels=["red", "blue"]).text == "red"


def test_written_answers_are_parsed_and_bad_ones_kept() -> None:
    fake = FakeModel({"q1": ' "RED." ', "q2": "red or blue", "q3": "blue, red", "q4": "**4**/5"})
    model = LabelModel(fake)
    good, bad = (
        ask(model, q, labels=["red", "blue"], blanks=["-"], temperature=0) for q in ("q1", "q2")
    )
    assert (good.text, good.extra["label"], good.extra["raw"]) == ("red", "red", ' "RED." ')
    assert (bad.text, bad.extra["label"], bad.extra["raw"]) == ("red or blue", None, "red or blue")
    assert all(r.params == {"temperature": 0} for r in fake.requests)
    several = ask(model, "q3", labels=["red", "blue", "green"], answer="labels")
    assert several.text == '["red", "blue"]'
    plain = ask(model, "q1", max_tokens=5)
    assert plain.text == ' "RED." '
    assert "label" not in plain.extra


@pytest.mark.parametrize(
    "params",
    [
        {"labels": []},
        {"labels": ["a", "A"]},
        {"labels": ["a", " "]},
        {"labels": "ab"},
        {"labels": ["a", "b"], "answer": "lable"},
        {"labels": ["low", "high"], "answer": "rating"},
        {"range": [5, 1], "answer": "rating"},
        {"range": [1, 5]},
    ],
)
def test_unusable_label_sets_are_refused(params: dict[str, object]) -> None:
    for model in (FakeModel("a"), Scorer()):
        with pytest.raises(InputError, match=r"Got (labels|answer|range|ratings|the range)"):
            ask(LabelModel(model), "q", **params)


@pytest.mark.pulled
def test_a_pulled_model_tells_sentiment_from_topic() -> None:
    from pilotfish.models.load import load_model

    model = LabelModel(load_model("qwen2.5-coder-0.5b"))
    prompt = "Is this film review positive or negative? Answer with one word.\n\nReview: {}"
    reviews = {"A wonderful, moving film.": "positive", "Boring and badly acted.": "negative"}
    for review, label in reviews.items():
        got = ask(model, prompt.format(review), labels=["positive", "negative"])
        assert got.text == label
        assert got.label_probs is not None
        assert got.label_probs[label] > 0.8
