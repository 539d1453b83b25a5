"""Semantic deduplication beside all similarities of all pairs; and the clusters that spare them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pilotfish.curate.dedup import semantic as module
from pilotfish.curate.dedup.clusters import clusters, record_type
from pilotfish.curate.dedup.semantic import Semantic, first_before
from pilotfish.errors import ConfigError
from pilotfish.models.load import load_encoder
from tests.curate.dedup.texts import batch, dropped, near_duplicates

SAME = [
    "The train to the coast leaves at nine in the morning.",
    "At nine in the morning the train leaves to the coast.",
    "The train to the coast leaves at nine in the morning!",
    "Butter, flour and eggs are all that this cake needs.",
    "",
    "",
]


def unit(texts: list[str]) -> NDArray[np.float32]:
    """The vectors as the step has them: rounded to 16 bits, of length 1."""
    vectors = load_encoder("static").encode(texts).astype(np.float16).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def plainly(vectors: NDArray[np.float32], order: list[int], most: float) -> list[int]:
    """What is dropped: each that has one before it, dropped or not, that is more similar."""
    lost = []
    for place, i in enumerate(order):
        if any(float(vectors[i] @ vectors[j]) > most for j in order[:place]):
            lost.append(i)
    return sorted(lost)


@pytest.mark.parametrize("keep", ["farthest", "first", "longest", "highest"])
def test_one_cluster_is_all_pairs(keep: str, tmp_path: Path) -> None:
    texts = near_duplicates(300, seed=1, longest=40)
    stars = np.random.default_rng(0).random(300)
    vectors = unit(texts)
    key = {
        "farthest": np.round(vectors @ vectors.mean(axis=0), 4),
        "first": np.zeros(300),
        "longest": -np.array([len(text) for text in texts]),
        "highest": -stars,
    }[keep]
    most = 0.97
    # No similarity may lie so near to the threshold that rounding decides.
    all_pairs = (vectors @ vectors.T)[np.triu_indices(300, 1)]
    while np.abs(all_pairs - most).min() < 1e-5:
        most += 1e-4
    settings: dict[str, Any] = {"column": "stars"} if keep == "highest" else {}
    step = Semantic(most, keep=keep, **settings)
    expected = plainly(vectors, np.lexsort((np.arange(300), key)).tolist(), most)
    assert len(expected) > 50
    assert dropped(step, texts, tmp_path, stars=pa.array(stars)) == expected


def test_who_stands_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain: each near its neighbours only; all but the first are dropped, and it stands for all."""
    angles = np.array([0.0, 0.2, 2.0, 0.4, 0.6, 2.1])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert first_before(vectors, np.cos(0.25)).tolist() == [0, 0, 2, 0, 0, 2]
    monkeypatch.setattr(module, "BLOCK", 1)
    assert first_before(vectors, np.cos(0.25)).tolist() == [0, 0, 2, 0, 0, 2]
    equal = np.tile(vectors[:1], (20, 1))
    assert first_before(equal, 0.9).tolist() == [0] * 20


def test_sentences(tmp_path: Path) -> None:
    assert dropped(Semantic(0.95, keep="first"), SAME, tmp_path) == [1, 2]
    step = Semantic(0.95, keep="first", tag=True)
    rows = batch(SAME, 7)
    verdict = step.reduce([step.map(rows)], tmp_path).apply(rows)
    assert verdict.columns["semantic_group"].to_pylist() == [7, 7, 7, None, None, None]
    assert dropped(Semantic(), ["", " "], tmp_path) == []


def records(vectors: NDArray[np.float32], path: Path) -> np.dtype[np.void]:
    kind = record_type(vectors.shape[1])
    made = np.zeros(len(vectors), kind)
    made["row"] = np.arange(len(vectors))
    made["vector"] = vectors
    np.random.default_rng(0).permutation(made).tofile(path)
    return kind


def test_clusters_are_small_and_lose_no_row(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    centers = draw.normal(size=(60, 16))
    vectors = centers[draw.integers(0, 60, 20_000)] + 0.3 * draw.normal(size=(20_000, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kind = records(vectors.astype(np.float32), tmp_path / "v.bin")
    found = list(clusters(tmp_path / "v.bin", kind, 500, seed=1))
    assert not list(tmp_path.iterdir())
    assert max(map(len, found)) <= 500
    assert all((np.diff(part["row"].astype(np.int64)) > 0).all() for part in found)
    rows = np.concatenate([part["row"] for part in found])
    assert np.array_equal(np.sort(rows), np.arange(20_000))
    # Neighbours are together: within clusters vectors are far more alike than all are.
    within = np.mean([np.mean(part["vector"].astype(float) @ part["vector"][0]) for part in found])
    assert within > 0.6 > abs(np.mean(vectors @ vectors[0])) + 0.3


def test_equal_vectors_do_not_cut_forever(tmp_path: Path) -> None:
    vectors = np.zeros((3000, 4), np.float32)
    vectors[:, 0] = 1
    vectors[:10] = [0, 1, 0, 0]
    kind = records(vectors, tmp_path / "v.bin")
    found = sorted(map(len, clusters(tmp_path / "v.bin", kind, 100, seed=1)))
    assert found == [10, 2990]


def test_clusters_change_little(tmp_path: Path) -> None:
    """Duplicates lie together, so that hardly any is missed; and nothing else is dropped."""
    texts = near_duplicates(3000, seed=2, longest=40)
    vectors = unit(texts)
    step = Semantic(0.99, keep="first", cluster_size=200)
    lost = dropped(step, texts, tmp_path)
    near = np.tril(vectors @ vectors.T > 0.99, -1).any(axis=1)
    expected = set(np.flatnonzero(near).tolist())
    assert set(lost) <= expected | set(
        np.flatnonzero(np.tril(vectors @ vectors.T > 0.98999, -1).any(axis=1)).tolist()
    )
    assert len(lost) > 0.95 * len(expected) > 500


def test_neither_order_nor_use_changes_what_is_pickled(tmp_path: Path) -> None:
    step = Semantic(cluster_size=20)
    before = pickle.dumps(step)
    dropped(step, near_duplicates(100, seed=3), tmp_path)
    assert pickle.dumps(step) == before


def test_wrong_settings_are_told() -> None:
    with pytest.raises(ConfigError, match="step 'exact'"):
        Semantic(1.0)
    with pytest.raises(ConfigError, match="cluster_size = 1"):
        Semantic(cluster_size=1)
    with pytest.raises(ConfigError, match="Known: farthest, first"):
        Semantic(keep="nearest")
