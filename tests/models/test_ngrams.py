"""Vectorised hashing against n-grams that are built one by one as strings."""

from __future__ import annotations

import re
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from pilotfish.models.ngrams import MAX_CHARS, hash_ngrams, pack
from pilotfish.models.tfidf import BITS, Vocabulary, batches

TEXTS = st.lists(
    st.text(st.sampled_from("abcé日本 \t\n.,-_😀ßİ1"), max_size=20) | st.text(max_size=8),
    max_size=6,
)


def buckets(texts: list[str], **kind: object) -> list[list[list[int]]]:
    """Per text and n-gram length, the buckets."""
    blocks = hash_ngrams(pack(texts), bits=30, **kind)  # type: ignore[arg-type]
    return [
        [b.buckets[b.indptr[i] : b.indptr[i + 1]].tolist() for b in blocks]
        for i in range(len(texts))
    ]


def char_ngrams(text: str, n: int) -> list[str]:
    text = f" {text} "
    grams = [text[i : i + n] for i in range(len(text) - n + 1)]
    return [g for g in grams if " " not in g[1:-1] and g.strip()]


@given(TEXTS)
def test_equal_ngrams_and_only_those_share_buckets(texts: list[str]) -> None:
    import unicodedata

    texts = [" ".join(unicodedata.normalize("NFKC", t).lower().split()) for t in texts]
    got = buckets(texts, words=0, chars=(2, 5))
    seen: dict[int, str] = {}
    for text, blocks in zip(texts, got, strict=True):
        for n, found in zip(range(2, 6), blocks, strict=True):
            expected = char_ngrams(text, n)
            assert len(found) == len(expected)
            for gram, bucket in zip(expected, found, strict=True):
                assert seen.setdefault(bucket, gram) == gram
    assert len(set(seen.values())) == len(seen)


def test_words_pairs_and_scripts_without_spaces() -> None:
    (one, two), *_ = buckets(["red car, red_car's"], words=2, chars=(0, 0))
    words = re.findall(r"\w+", "red car, red_car's")
    assert len(one) == len(words) == 4
    assert len(set(one)) == 4
    assert len(two) == 3
    same = buckets(["a b", "b a", "a  B!", ""], words=2, chars=(0, 0))
    assert same[0] == same[2] != same[1]
    assert same[0][0] == same[1][0][::-1]
    assert same[3] == [[], []]
    cjk, cjk2 = buckets(["日本語", "本"], words=2, chars=(0, 0))
    assert len(cjk[0]) == 3
    assert cjk2[0][0] == cjk[0][1]
    hindi = buckets(["नमस्ते दुनिया"], words=1, chars=(0, 0))[0]
    assert len(hindi[0]) == 2


@given(TEXTS)
def test_a_text_hashes_alike_alone_and_in_a_batch(texts: list[str]) -> None:
    together = buckets(texts, words=2, chars=(3, 4))
    for text, found in zip(texts, together, strict=True):
        assert buckets([text], words=2, chars=(3, 4))[0] == found


def test_buckets_are_spread_evenly() -> None:
    words = [f"word{i}" for i in range(20_000)]
    for kind in ({"words": 1, "chars": (0, 0)}, {"words": 0, "chars": (5, 5)}):
        blocks = hash_ngrams(pack(words), bits=16, **kind)  # type: ignore[arg-type]
        distinct = np.unique(hash_ngrams(pack(words), bits=31, **kind)[0].buckets)  # type: ignore[arg-type]
        filled = len(np.unique(blocks[0].buckets))
        expected = 65536 * (1 - np.exp(-len(distinct) / 65536))
        assert filled == pytest.approx(expected, rel=0.05)


def test_a_megabyte_costs_milliseconds_and_surrogates_pass() -> None:
    start = time.process_time()
    blocks = hash_ngrams(pack(["word " * 200_000]), words=2, chars=(2, 5), bits=BITS)
    assert time.process_time() - start < 0.5
    assert len(blocks[0].buckets) == MAX_CHARS // 5
    assert len(hash_ngrams(pack(["\ud800 x"]), words=1, chars=(0, 0), bits=BITS)[0].buckets) >= 1
    assert hash_ngrams(pack([]), words=2, chars=(2, 5), bits=BITS)[0].indptr.tolist() == [0]


def test_matrix_equals_scikit_learn_where_no_ngram_repeats() -> None:
    texts = ["red green blue", "blue sky", "red sky at night", "green tea"]
    ours = Vocabulary.learn(texts, words=2, max_columns=10**6).matrix(texts)
    theirs = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+").fit_transform(texts)
    assert (ours @ ours.T).toarray() == pytest.approx((theirs @ theirs.T).toarray(), abs=1e-6)


@pytest.mark.parametrize("kind", [{"words": 2}, {"chars": (2, 5)}])
def test_scores_equal_the_matrix_product(kind: dict[str, object]) -> None:
    rng = np.random.default_rng(0)
    texts = ["red green blue", "blue blue sky", "", "unseen words", "green tea tea tea"]
    vocabulary = Vocabulary.learn(texts[:3], max_columns=10**6, **kind)  # type: ignore[arg-type]
    coefficients = rng.standard_normal((len(vocabulary.buckets), 3)).astype(np.float32)
    table = vocabulary.score_table(coefficients)
    expected = vocabulary.matrix(texts) @ coefficients
    assert vocabulary.scores(pack(texts), table) == pytest.approx(expected, abs=1e-5)
    for i, text in enumerate(texts):
        assert vocabulary.scores(pack([text]), table)[0] == pytest.approx(expected[i], abs=1e-5)


def test_max_columns_keeps_the_most_frequent() -> None:
    texts = ["common rare1", "common rare2", "common often", "often x"]
    small = Vocabulary.learn(texts, words=1, max_columns=2)
    assert (small.matrix(texts) > 0).sum(axis=1).tolist() == [1, 1, 2, 1]


@given(st.lists(st.integers(0, 30_000), max_size=3000))
def test_batches_cover_everything_once_within_their_limits(lengths: list[int]) -> None:
    texts = ["x" * n for n in lengths]
    parts = list(batches(texts))
    assert [i for p in parts for i in range(p.start, p.stop)] == list(range(len(texts)))
    assert all(p.stop - p.start <= 1024 for p in parts)
    sizes = [sum(min(len(t), MAX_CHARS) for t in texts[p]) for p in parts]
    assert all(s <= 200_000 for s in sizes)
    assert not Counter(p.start for p in parts) - Counter({p.start for p in parts})
