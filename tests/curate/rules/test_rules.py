"""Every rule set against plain Python, on texts that hypothesis puts together."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotfish.curate.rules.c4 import C4
from pilotfish.curate.rules.ccnet import CCNet
from pilotfish.curate.rules.checks import RuleSet
from pilotfish.curate.rules.documents import pieces
from pilotfish.curate.rules.fineweb import FineWeb
from pilotfish.curate.rules.gopher_quality import GopherQuality
from pilotfish.curate.rules.gopher_repetition import GopherRepetition
from pilotfish.curate.step import Verdict
from pilotfish.errors import ConfigError, InputError
from tests.curate.rules import reference
from tests.curate.rules.texts import any_text

SETS = (GopherQuality, GopherRepetition, FineWeb, C4, CCNet)
batches = st.lists(any_text, min_size=1, max_size=6)


def batch_of(texts: list[str | None], kind: Any = None) -> pa.RecordBatch:
    return pa.record_batch({"text": pa.array(texts, kind or pa.string())})


def apply(step: RuleSet, texts: list[str]) -> Verdict:
    return step.apply(batch_of(texts))


def reasons(step: RuleSet, texts: list[str]) -> list[str | None]:
    found = apply(step, texts).reasons
    assert found is not None
    given = found.to_pylist()
    assert all(reason is None or reason.startswith(f"{step.name}.") for reason in given)
    return [reason and reason.partition(".")[2] for reason in given]


@given(batches)
@settings(max_examples=150)
def test_gopher_quality_is_that_of_plain_python(texts: list[str]) -> None:
    assert reasons(GopherQuality(), texts) == [reference.gopher_quality(t) for t in texts]
    few = GopherQuality(min_words=2)
    assert reasons(few, texts) == [reference.gopher_quality(t, 2) for t in texts]


@given(batches)
@settings(max_examples=200)
def test_gopher_repetition_is_that_of_plain_python(texts: list[str]) -> None:
    assert reasons(GopherRepetition(), texts) == [reference.gopher_repetition(t) for t in texts]


@given(batches)
@settings(max_examples=100)
def test_measures_of_repetition_are_those_of_plain_python(texts: list[str]) -> None:
    # One limit so low that nothing is far from it: the exact share is measured, not a bound.
    off = dict.fromkeys(
        f"max_repeated_{x}" for x in ("paragraphs", "paragraph_chars", "lines", "line_chars")
    )
    grams = dict.fromkeys(f"max_repeated_{n}_grams" for n in range(5, 11))
    for n in (5, 7):
        only = {**grams, f"max_repeated_{n}_grams": 0.0}
        step = GopherRepetition(
            scores=True, max_top_2_gram=9e9, max_top_3_gram=9e9, max_top_4_gram=9e9, **off, **only
        )
        columns = apply(step, texts).columns
        for i, text in enumerate(texts):
            words, length = reference.WORD.findall(text), len(text) or 1
            expected = reference.repeated_gram_chars(words, n) / length
            assert columns[f"gopher_repetition.repeated_{n}_grams"][i].as_py() == expected
            for top in (2, 3, 4):
                expected = reference.top_gram_chars(words, top) / length
                assert columns[f"gopher_repetition.top_{top}_gram"][i].as_py() == expected


@given(batches)
@settings(max_examples=150)
def test_fineweb_is_that_of_plain_python(texts: list[str]) -> None:
    assert reasons(FineWeb(), texts) == [reference.fineweb(t) for t in texts]


@given(batches)
@settings(max_examples=200)
def test_c4_is_that_of_plain_python(texts: list[str]) -> None:
    for step, least, strict in (
        (C4(), 5, True),
        (C4(min_sentences=1), 1, True),
        (C4(min_sentences=0, end_marks=(), end_ellipsis=True, min_words_per_line=0), 0, False),
    ):
        expected = [reference.c4(text, least, strict) for text in texts]
        assert reasons(step, texts) == [reason for reason, _ in expected]
        written = apply(step, texts).columns["text"].to_pylist()
        assert written == [text for _, text in expected]


@given(batches)
@settings(max_examples=100)
def test_ccnet_is_that_of_plain_python(texts: list[str]) -> None:
    for step, least in ((CCNet(), 300), (CCNet(min_chars=3), 3)):
        expected = [reference.ccnet(text, least) for text in texts]
        assert reasons(step, texts) == [reason for reason, _ in expected]
        assert apply(step, texts).columns["text"].to_pylist() == [text for _, text in expected]


@pytest.mark.parametrize("kind", SETS)
@given(texts=batches, size=st.integers(1, 200))
@settings(max_examples=40)
def test_a_verdict_does_not_depend_on_the_neighbours(
    kind: type[RuleSet], texts: list[str], size: int
) -> None:
    step = kind(scores=True)
    together = apply(step, texts)
    for i, text in enumerate(texts):
        alone = apply(step, [text])
        assert together.reasons is not None
        assert alone.reasons is not None
        assert together.reasons[i].as_py() == alone.reasons[0].as_py()
        assert together.margin is not None
        assert alone.margin is not None
        assert together.margin[i].as_py() == alone.margin[0].as_py()
        for name, column in alone.columns.items():
            np.testing.assert_equal(together.columns[name][i].as_py(), column[0].as_py())
    cut = list(pieces(batch_of(texts).column(0), size))
    assert b"".join(documents.data for documents in cut) == "".join(texts).encode()
    failed = np.concatenate([step.judge(documents).failed for documents in cut])
    assert (failed >= 0).tolist() == pa.compute.is_valid(together.reasons).to_pylist()


@pytest.mark.parametrize("kind", SETS)
def test_columns_of_any_string_type_with_nulls_and_slices(kind: type[RuleSet]) -> None:
    texts = ["The one and the other. " * 30, None, "", "\n".join(map(str, range(99))), "é" * 400]
    step = kind()
    plain = step.apply(batch_of([text or "" for text in texts])).reasons
    for other in (pa.string(), pa.large_string(), pa.string_view()):
        whole = batch_of(["before", *texts, "after"], other)
        verdict = step.apply(whole.slice(1, len(texts)))
        assert verdict.reasons is not None
        assert verdict.reasons.to_pylist() == plain.to_pylist()
        if "text" in verdict.columns:
            assert verdict.columns["text"].type == other


@pytest.mark.parametrize("kind", SETS)
def test_tags_instead_of_drops_and_survives_pickling(kind: type[RuleSet]) -> None:
    texts = ["", "The one and the other, that is it.\n" * 40]
    step = pickle.loads(pickle.dumps(kind(tag=True)))
    tagged, dropped = apply(step, texts), apply(kind(), texts)
    assert tagged.reasons is None
    assert dropped.reasons is not None
    assert tagged.columns[step.name].to_pylist() == dropped.reasons.to_pylist()
    assert dropped.reasons[0].is_valid


def test_thresholds_can_be_moved_and_switched_off() -> None:
    text = ["one two three four five"]
    assert reasons(GopherQuality(), text) == ["too_few_words"]
    assert reasons(GopherQuality(min_words=5), text) == ["too_few_stop_words"]
    loose = GopherQuality(min_words=0, min_stop_words=None, max_mean_word_chars=float("inf"))
    assert reasons(loose, text) == [None]
    assert reasons(GopherQuality(min_words=5, stop_words=("one", "two")), text) == [None]
    assert reasons(C4(min_sentences=0, javascript=False), ["We like javascript here."]) == [None]


def test_the_margin_is_the_share_of_the_deciding_threshold() -> None:
    prose = "The cat and the dog have to be with us. "  # 10 words and a full stop
    verdict = apply(GopherQuality(), [prose * 4, prose * 6])
    assert verdict.margin is not None
    assert verdict.margin[0].as_py() == pytest.approx(10 / 50)
    # The nearest of the checks it passed: a mean word of 2.9 letters against at least 3.
    near = apply(GopherQuality(min_mean_word_chars=2.8), [prose * 6]).margin
    assert near is not None
    assert near[0].as_py() == pytest.approx((2.9 - 2.8) / 2.8, rel=0.1)


def test_bad_words_stand_alone(tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("darn\nbad phrase\n", encoding="utf-8")
    step = C4(min_sentences=0, bad_words=("c++",), bad_words_file=str(words))
    texts = [
        "Well, Darn it all.",
        "He darned the sock.",
        "What a bad phrase.",
        "C++ is what we speak.",
        "Über_darn is one word.",
    ]
    expected = ["bad_word", None, "bad_word", "bad_word", None]
    assert reasons(step, texts) == expected
    with pytest.raises(InputError, match="bad_words_file"):
        C4(bad_words_file=str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("kind", "setting", "value"),
    [
        (GopherQuality, "min_words", -1),
        (GopherRepetition, "max_top_2_gram", float("nan")),
        (GopherQuality, "stop_words", ("don't",)),
        (GopherQuality, "stop_words", ("",)),
        (GopherQuality, "stop_words", ("the", "the")),
        (GopherQuality, "min_stop_words", 9),
        (C4, "policy_phrases", ("cookies", " ")),
    ],
)
def test_wrong_settings_are_refused(kind: type[RuleSet], setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=kind.name):
        kind(**{setting: value})


def test_a_text_of_megabytes_without_a_space() -> None:
    texts = ["x" * 3_000_000, "ab " * 300_000]
    assert reasons(GopherRepetition(), texts) == [None, "top_2_gram"]
    assert reasons(C4(), texts) == ["too_few_sentences"] * 2
    assert reasons(GopherQuality(), texts) == ["too_few_words", "too_many_words"]
