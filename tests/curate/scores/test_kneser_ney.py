"""The n-gram model against the formula as it stands in the paper, word by word in plain Python."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pilotfish.curate.scores.kneser_ney import KneserNey, hash_columns, windows


def reference(texts: list[list[int]], order: int):
    """Chen and Goodman 1999, equations for interpolated modified Kneser-Ney, from strings of words."""
    tops: Counter[tuple[int, ...]] = Counter()
    for text in texts:
        padded = [0] * (order - 1) + text
        for i in range(len(text)):
            tops[tuple(padded[i : i + order])] += 1
    counts = {order: tops}
    for k in range(order - 1, 0, -1):
        counts[k] = Counter(gram[1:] for gram in counts[k + 1])
    words = {gram[-1] for gram in tops}

    def taken(k: int) -> tuple[float, float, float]:
        n = Counter(counts[k].values())
        if not all(n[i] for i in (1, 2, 3, 4)):
            return 0.5, 1.0, 1.5
        y = n[1] / (n[1] + 2 * n[2])
        found = tuple(i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3))
        return found if all(0 <= d <= i + 1 for i, d in enumerate(found)) else (0.5, 1.0, 1.5)

    discounts = {k: taken(k) for k in counts}

    def probability(word: int, context: tuple[int, ...]) -> float:
        k = len(context) + 1
        lower = probability(word, context[1:]) if context else 1 / (len(words) + 1)
        following = {g: c for g, c in counts[k].items() if g[:-1] == context}
        if not following:
            return lower
        total = sum(following.values())
        d = discounts[k]
        left = sum(d[min(c, 3) - 1] for c in following.values()) / total
        count = following.get((*context, word), 0)
        return (count - d[min(count, 3) - 1] if count else 0) / total + left * lower

    return probability, words


def corpus(seed: int, texts: int, vocabulary: int) -> list[list[int]]:
    draw = random.Random(seed)
    weights = [1 / (i + 1) for i in range(vocabulary)]
    return [
        [w + 10 for w in draw.choices(range(vocabulary), weights, k=draw.randint(0, 12))]
        for _ in range(texts)
    ]


def flat(texts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    words = np.array([word for text in texts for word in text], np.uint32)
    return words, np.cumsum([0, *map(len, texts)])


def fit(texts: list[list[int]], order: int) -> KneserNey:
    columns = windows(*flat(texts), order)
    _, first, counts = np.unique(
        hash_columns(columns, len(columns[0])), return_index=True, return_counts=True
    )
    return KneserNey.fit([column[first] for column in columns], counts)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [3, 60])
def test_probabilities_are_those_of_the_paper(order: int, size: int) -> None:
    texts = corpus(1, size, 12)
    model = fit(texts, order)
    probability, words = reference(texts, order)
    assert model.words == len(words)
    others = [
        *corpus(2, 15, 14),
        [9999, 10, 10],
        [],
    ]  # also words and contexts that were never seen
    found = model.log_probabilities(*flat(others))
    expected = []
    for text in others:
        padded = [0] * (order - 1) + text
        for i, word in enumerate(text):
            expected.append(probability(word, tuple(padded[i : i + order - 1])))
    assert np.exp(found) == pytest.approx(expected, rel=1e-9)


def test_probabilities_of_all_words_sum_to_one() -> None:
    texts = corpus(3, 80, 15)
    model = fit(texts, 3)
    vocabulary = sorted({word for text in texts for word in text})
    for context in ([], [10], [10, 11], [10, 9999], [24, 23]):
        total = 0.0
        for word in [*vocabulary, 123456]:  # the last one was never seen
            total += float(np.exp(model.log_probabilities(*flat([[*context, word]]))[-1]))
        assert total == pytest.approx(1, abs=1e-9)


def test_a_model_comes_back_from_its_file(tmp_path: Path) -> None:
    texts = corpus(4, 30, 10)
    model = fit(texts, 3)
    model.save(tmp_path / "model.npz")
    again = KneserNey.load(tmp_path / "model.npz")
    assert (again.log_probabilities(*flat(texts)) == model.log_probabilities(*flat(texts))).all()
