"""Weak-to-strong search on models whose distributions are tables: compared by enumeration."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pilotfish.config import Config, Price
from pilotfish.errors import ConfigError, RequestRefused, Unavailable
from pilotfish.models.fake import FakeModel
from pilotfish.models.load import Models
from pilotfish.reason.beams import Beams, Ranked
from pilotfish.reason.pair import Pair, Text
from pilotfish.reason.weak_to_strong import WeakToStrongSearch, WeakToStrongSettings
from pilotfish.records import Completion, Request, Usage
from tests.reason import tables
from tests.reason.tables import TableModel

REQUEST = Request.of("ab")


def log_probability(model: TableModel, text: str, *, ended: bool) -> float:
    """Of a text as the answer, token by token as the model's own tokenizer cuts it."""
    past = model.prompt_tokens(REQUEST)
    total = 0.0
    for token in [*model.tokenize(text), *([tables.END] if ended else [])]:
        total += math.log(model.probabilities(past)[token])
        past = [*past, token]
    return total


def advantage(tuned: TableModel, untuned: TableModel, text: str, *, ended: bool) -> float:
    return log_probability(tuned, text, ended=ended) - log_probability(untuned, text, ended=ended)


@pytest.fixture
def pair() -> tuple[TableModel, TableModel]:
    """Another vocabulary than the large one's, and one of each their own."""
    return TableModel(("ba",), seed=11, name="tuned"), TableModel(("bb",), seed=12, name="untuned")


def search(large: Any, pair: Sequence[TableModel], **settings: Any) -> WeakToStrongSearch:
    return WeakToStrongSearch(large, *pair, WeakToStrongSettings(**settings))


def ask(model: Any, **params: Any) -> Completion:
    return asyncio.run(model.complete(Request.of("ab", **{"max_tokens": 6, **params})))


def texts_of(model: TableModel, tokens: int) -> dict[tuple[str, bool], float]:
    """Every answer of at most so many tokens, whether it ended by itself, and its probability."""
    found: dict[tuple[str, bool], float] = {}

    def walk(past: list[int], text: str, left: int, p: float) -> None:
        if not left:
            found[text, False] = found.get((text, False), 0.0) + p
            return
        for token, each in model.probabilities(past).items():
            if token == tables.END:
                found[text, True] = found.get((text, True), 0.0) + p * each
            else:
                said = text + model.bytes[token].decode()
                walk([*past, token], said, left - 1, p * each)

    walk(model.prompt_tokens(REQUEST), "", tokens, 1.0)
    return found


def test_one_beam_and_one_sample_is_plain_sampling(pair: tuple[TableModel, TableModel]) -> None:
    large = TableModel(("ab",), ends=-2.0)
    for seed, chunk in itertools.product(range(6), (1, 2, 30, 0)):
        found = ask(
            search(large, pair, beams=1, samples=1, chunk=chunk), seed=seed, temperature=1.0
        )
        plain = ask(large, seed=seed, temperature=1.0)
        assert (found.text, found.finish_reason) == (plain.text, plain.finish_reason)
        assert found.usage.completion_tokens == plain.usage.completion_tokens
        assert found.usage.prompt_tokens == plain.usage.prompt_tokens


def test_the_scores_are_the_pairs_log_ratios(pair: tuple[TableModel, TableModel]) -> None:
    """In rounds, so that most of what is scored was scored before, and in another order."""
    scorer = Pair(*pair).scorer(REQUEST)
    rounds = [["a", "b"], ["aba", "abb", "ab"], ["abbab", "abb", "abbab"], ["b"], ["", "abbaba"]]
    for texts in rounds:
        for ended in (False, True):
            got = scorer.scores([Text(text, ended) for text in texts], lambda: None)
            expected = [advantage(*pair, text, ended=ended) for text in texts]
            np.testing.assert_allclose(got, expected, atol=1e-4)


def test_what_was_scored_before_is_not_read_again(pair: tuple[TableModel, TableModel]) -> None:
    scorer = Pair(*pair).scorer(REQUEST)
    scorer.scores([Text("ab" * 20 + "a"), Text("ab" * 20 + "b")], lambda: None)
    before = pair[0].fed
    scorer.scores([Text("ab" * 20 + "aa"), Text("ab" * 20 + "ab")], lambda: None)
    assert (
        pair[0].fed - before <= 5
    )  # the new tokens, and one before where a text parts from its last


def test_of_enough_samples_the_best_of_all_answers_is_found(
    pair: tuple[TableModel, TableModel],
) -> None:
    """With 64 x 64 whole answers of at most two tokens each of the few texts is surely among them."""
    large = TableModel((), ends=-1.0)
    possible = texts_of(large, 2)
    best = max(possible, key=lambda each: advantage(*pair, each[0], ended=each[1]))
    assert min(possible.values()) > 0.003  # else 4,096 samples might miss one
    found = ask(search(large, pair, beams=64, samples=64, chunk=0), seed=1, max_tokens=2)
    assert (found.text, found.finish_reason == "stop") == best
    score = found.decisions[-1].score
    assert score == pytest.approx(advantage(*pair, best[0], ended=best[1]), abs=1e-4)


def test_best_of_n_follows_the_distribution_of_the_best_of_n(
    pair: tuple[TableModel, TableModel],
) -> None:
    """One beam, two samples: an answer's probability is that of its being the better of two."""
    large = TableModel(("ab",), ends=0.0)
    possible = texts_of(large, 2)
    scores = {each: advantage(*pair, each[0], ended=each[1]) for each in possible}
    expected = dict.fromkeys(possible, 0.0)
    for first, second in itertools.product(possible, repeat=2):
        better = first if scores[first] >= scores[second] else second
        expected[better] += possible[first] * possible[second]
    model = search(large, pair, beams=1, samples=2, chunk=0)
    draws = 600
    seen = dict.fromkeys(possible, 0)
    for seed in range(draws):
        found = ask(model, seed=seed, max_tokens=2)
        seen[found.text, found.finish_reason == "stop"] += 1
    chi = sum((seen[e] - draws * p) ** 2 / (draws * p) for e, p in expected.items() if p > 0)
    freedom = sum(p > 0 for p in expected.values()) - 1
    assert chi < freedom + 4 * math.sqrt(2 * freedom)  # four standard deviations


def test_the_expected_score_of_the_beams_is_that_of_the_enumeration(
    pair: tuple[TableModel, TableModel],
) -> None:
    """Two beams, one sample each, chunks of one token: all draws of two rounds are enumerated."""
    large = TableModel((), ends=0.3)
    opening = large.prompt_tokens(REQUEST)

    def score(text: str, ended: bool) -> float:
        return advantage(*pair, text, ended=ended)

    def steps(past: list[int], text: str) -> list[tuple[float, tuple[str, bool, list[int]]]]:
        found = []
        for token, p in large.probabilities(past).items():
            ended = token == tables.END
            said = text if ended else text + large.bytes[token].decode()
            found.append((p, (said, ended, [*past, token])))
        return found

    expected = 0.0
    for (p, one), (q, two) in itertools.product(steps(opening, ""), repeat=2):
        grown = []
        for text, ended, past in (one, two):
            later = [(1.0, (text, True, past))] if ended else steps(past, text)
            grown.append([(r, score(each[0], each[1])) for r, each in later])
        for (r, first), (s, second) in itertools.product(*grown):
            expected += p * q * r * s * max(first, second)
    model = search(large, pair, beams=2, samples=1, chunk=1)
    found = [ask(model, seed=seed, max_tokens=2).decisions[-1].score or 0.0 for seed in range(500)]
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - expected) < 4 * error


def test_the_search_raises_the_score_and_more_of_it_more(
    pair: tuple[TableModel, TableModel],
) -> None:
    large = TableModel(("ab",), ends=-3.0)
    means = []
    for beams, samples in ((1, 1), (2, 2), (4, 4)):
        model = search(large, pair, beams=beams, samples=samples, chunk=2)
        scores = [ask(model, seed=s, max_tokens=12).decisions[-1].score or 0.0 for s in range(20)]
        means.append(float(np.mean(scores)))
    assert means[0] + 1 < means[1] < means[2]


def test_seeds_reproduce_and_differ(pair: tuple[TableModel, TableModel]) -> None:
    model = search(TableModel(("ab",), ends=-3.0), pair, beams=2, samples=2, chunk=2)
    texts = [ask(model, seed=seed, max_tokens=12).text for seed in (5, 6, 5)]
    assert texts[0] == texts[2] != texts[1]


def test_streams_say_what_is_certain_and_nothing_else(
    pair: tuple[TableModel, TableModel],
) -> None:
    model = search(TableModel(("ab",), ends=-4.0), pair, beams=2, samples=2, chunk=3)

    async def pieces(seed: int) -> list[Any]:
        request = Request.of("ab", max_tokens=40, seed=seed)
        return [chunk async for chunk in model.stream(request)]

    several = 0
    for seed in range(5):
        chunks = asyncio.run(pieces(seed))
        whole = chunks[-1].completion
        assert whole is not None
        assert "".join(chunk.text for chunk in chunks) == whole.text
        assert whole.text == ask(model, seed=seed, max_tokens=40).text
        assert chunks[0].decisions[-1].reason == "weak-to-strong-search"
        several += len(chunks) > 3
    assert several


def test_stops_grammars_and_log_probabilities_hold(pair: tuple[TableModel, TableModel]) -> None:
    large = TableModel(("ab", "ba"), ends=-3.0)
    model = search(large, pair, beams=2, samples=3, chunk=2)
    for seed in range(5):
        stopped = ask(model, seed=seed, max_tokens=30, stop=["bab"])
        assert "bab" not in stopped.text
        grammar = 'root ::= "a" [ab] "b" "b" "a"'
        found = ask(model, seed=seed, max_tokens=30, grammar=grammar, logprobs=True)
        assert found.text in ("aabba", "abbba")
        assert found.finish_reason == "stop"
        said = "".join(entry["token"] for entry in found.logprobs or ())
        assert said == found.text
        short = ask(model, seed=seed, max_completion_tokens=None, max_tokens=1)
        assert short.extra["answer_usage"][1] <= 1
    with pytest.raises(RequestRefused, match="cannot do what tools"):
        ask(model, tools=[{}])
    with pytest.raises(RequestRefused, match="seed=-1"):
        ask(model, seed=-1)


def test_all_that_was_sampled_and_read_is_paid_for() -> None:
    large = TableModel((), ends=-50.0, price=Price(1.0, 10.0))
    pair = [TableModel((), seed=s, price=Price(0.5, 1.0)) for s in (1, 2)]
    found = ask(search(large, pair, beams=2, samples=2, chunk=3), seed=0, max_tokens=6)
    # Four first chunks of three tokens, then two of each of two beams.
    assert found.usage == Usage(4, 24, 0)
    assert found.extra["answer_usage"] == [4, 6, 0]
    read = sum(model.fed for model in pair)
    assert found.cost == pytest.approx((4 + 240 + 0.5 * read) / 1e6)
    free = TableModel((), ends=-50.0)
    assert ask(search(free, pair, beams=1, samples=2, chunk=3)).cost is None


def test_beams_keep_the_best_and_the_finished() -> None:
    class Said:
        def __init__(self, text: str, done: bool = False) -> None:
            self.text, self.done = text, done

    beams: Beams[Said] = Beams(2, 3)
    beams.keep(
        [Ranked(Said("the cat"), 1.0), Ranked(Said("the cow", True), 3.0), Ranked(Said("a"), 0)]
    )
    assert [ranked.answer.text for ranked in beams.kept] == ["the cow", "the cat"]
    assert [answer.text for answer in beams.open] == ["the cat"]
    assert beams.certain == "the c"
    beams.keep([Ranked(Said("the cats"), 2.0), Ranked(Said("the cater"), 4.0)])
    assert beams.best.answer.text == "the cater"
    assert [ranked.answer.text for ranked in beams.kept] == ["the cater", "the cow"]


class Endpoint(FakeModel):
    """Continues a script from where the last assistant message ends, some tokens at a time."""

    def __init__(self, script: dict[int, str], **settings: Any) -> None:
        super().__init__(self._reply, name="remote", **settings)
        self.script = script

    def _reply(self, request: Request) -> Completion:
        whole = self.script[int(request.params.get("seed") or 0) % len(self.script)]
        last = request.messages[-1]
        so_far = str(last["content"]) if last["role"] == "assistant" else ""
        size = int(request.params.get("max_tokens") or 999)
        text = whole[len(so_far) :][:size]
        ended = len(so_far) + size >= len(whole)
        usage = Usage(3 + len(so_far), len(text))
        return Completion(text, "remote", usage, 0.001, finish_reason="stop" if ended else "length")


def test_a_model_that_only_answers_gives_whole_answers(
    pair: tuple[TableModel, TableModel],
) -> None:
    script = {0: "abab", 1: "bb", 2: "aaaa"}
    remote = Endpoint(script)
    model = search(remote, pair, beams=3, samples=3)
    assert model.chunk == 0
    found = ask(model, seed=7, temperature=0.5)
    best = max(script.values(), key=lambda text: advantage(*pair, text, ended=True))
    assert found.text == best
    assert len(remote.requests) == 9
    assert remote.requests[0].params == {"max_tokens": 6, "seed": 7, "temperature": 0.5}
    assert len({request.params["seed"] for request in remote.requests}) == 9
    assert found.usage.prompt_tokens == 27
    assert found.cost is None  # nobody says what the pair costs
    assert found.decisions[-1].chose == "remote"


@pytest.mark.parametrize("form", ["continue-final-message", "prefix", "prefill"])
def test_an_endpoint_continues_what_was_chosen(
    pair: tuple[TableModel, TableModel], form: str
) -> None:
    """All answers are one text, so each chunk continues it; the endpoint is told in its own way."""
    remote = Endpoint({0: "abbabaab"})
    model = search(remote, pair, beams=2, samples=1, chunk=3, continuation=form)

    async def pieces() -> list[Any]:
        return [chunk async for chunk in model.stream(Request.of("ab", max_tokens=7, seed=1))]

    chunks = asyncio.run(pieces())
    assert [chunk.text for chunk in chunks] == ["abb", "aba", "a", ""]
    whole = chunks[-1].completion
    assert (whole.text, whole.finish_reason) == ("abbabaa", "length")
    assert whole.usage.completion_tokens == 2 * 7
    assert whole.extra["answer_usage"][1] == 7
    first, later = remote.requests[0], remote.requests[-1]
    assert first.messages == ({"role": "user", "content": "ab"},)
    assert [r.params["max_tokens"] for r in remote.requests] == [3, 3, 3, 3, 1, 1]
    last = {"role": "assistant", "content": "abbaba"}
    assert later.messages[-1] == (last | {"prefix": True} if form == "prefix" else last)
    told = {"continue_final_message", "add_generation_prompt"} <= set(later.params)
    assert told == (form == "continue-final-message")
    assert not {"continue_final_message", "add_generation_prompt"} & set(first.params)


def test_a_stop_string_in_two_pieces_ends_an_endpoints_answer(
    pair: tuple[TableModel, TableModel],
) -> None:
    remote = Endpoint({0: "abbabaab"})
    model = search(remote, pair, beams=1, samples=2, chunk=3, continuation="prefill")
    found = ask(model, stop="ba", max_tokens=20)
    assert (found.text, found.finish_reason) == ("ab", "stop")

    async def pieces() -> list[str]:
        request = Request.of("ab", stop="ba", max_tokens=20)
        return [chunk.text async for chunk in model.stream(request)]

    assert "".join(asyncio.run(pieces())) == "ab"  # and what begins it was not shown


def test_what_a_search_over_answers_cannot_do_is_refused(
    pair: tuple[TableModel, TableModel],
) -> None:
    chunks = search(Endpoint({0: "ab"}), pair, chunk=3, continuation="prefill")
    form = {"type": "json_object"}
    with pytest.raises(RequestRefused, match="set chunk = 0"):
        ask(chunks, response_format=form)
    with pytest.raises(RequestRefused, match="tools"):
        ask(chunks, tools=[{"type": "function"}])
    assert ask(search(Endpoint({0: "ab"}), pair), response_format=form).text == "ab"
    with pytest.raises(ConfigError, match=r"continuation to one of continue-final-message, prefix"):
        search(Endpoint({0: "ab"}), pair, chunk=3)
    failing = Endpoint({0: "ab"}, faults=[None, Unavailable("gone"), None])
    with pytest.raises(Unavailable, match="gone"):
        ask(search(failing, pair, beams=1, samples=3))


@pytest.mark.parametrize(
    ("models", "settings", "match"),
    [
        (["a", "a"], {}, "expected the large one, a tuned and an untuned"),
        (["a", "a", "a"], {}, "cannot score by a, which gives no logits"),
        (["a", "a", "a"], {"beams": 0}, "setting beams is wrong"),
    ],
)
def test_the_table_says_what_it_needs(
    models: list[str], settings: dict[str, Any], match: str
) -> None:
    toml = {
        "a": {"backend": "fake"},
        "s": {"kind": "weak-to-strong-search", "models": models, **settings},
    }
    with pytest.raises(ConfigError, match=match):
        Models(Config(models=toml)).load("s")
