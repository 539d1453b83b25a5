"""MinHash beside theory, exact Jaccard similarities, and shingles cut by ``re``."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from pilotfish.curate.dedup.minhash import MinHash
from pilotfish.curate.dedup.shingles import shingles
from pilotfish.curate.rules.characters import word_pattern
from pilotfish.curate.rules.documents import pieces
from pilotfish.errors import ConfigError
from tests.curate.dedup.test_groups import plainly
from tests.curate.dedup.texts import batch, dropped, near_duplicates

ALONE = re.compile("[\u0e00-\u0eff\u1000-\u10bf\u1780-\u17ff\u3040-\u9fff]")
WORD = re.compile(word_pattern())


def words(text: str) -> list[str]:
    """Words by the pattern, where scripts without blanks give a word for each character."""
    found = [word for word in WORD.findall(text) if re.match(r"\w", word)]
    return [
        piece for word in found for piece in ALONE.sub(lambda c: f" {c.group()} ", word).split()
    ]


def shingle_set(text: str, n: int) -> set[tuple[str, ...]]:
    found = words(text.lower())
    runs = {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}
    return runs or ({tuple(found)} if found else set())


ODD = [
    *("", " . ", "one", "one two", "one, two; three!", "one two three four five six one two"),
    *(
        "日本語 のテキスト。ok",
        "สวัสดี ครับ",
        "a日b",
        "naïve größe привет мир",
        "हिन्दी शब्द",
        "x_1 2.5",
    ),
    *("日", "ab日本", "မြန်မာ", "ខ្មែរ abc", "한국어 텍스트 입니다"),
]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_shingles_are_those_of_the_pattern(n: int) -> None:
    import pyarrow as pa

    texts = [*ODD, *near_duplicates(60, seed=n, longest=30), *ODD[::-1]]
    names: dict[int, tuple[str, ...]] = {}
    numbers: dict[tuple[str, ...], int] = {}
    for size in (1 << 20, 200):
        at = 0
        for documents in pieces(pa.array(texts), size):
            found = shingles(documents, n)
            cut = np.split(found.hashes, found.starts[1:]) if len(found.starts) else []
            own = dict(zip(found.documents.tolist(), cut, strict=True))
            for i in range(len(documents)):
                cutted = words(texts[at + i])
                runs = [tuple(cutted[k : k + n]) for k in range(max(len(cutted) - n + 1, 0))]
                runs = runs or ([tuple(cutted)] if cutted else [])
                hashes = own[i].tolist() if i in own else []
                assert len(hashes) == len(runs)
                for number, run in zip(hashes, runs, strict=True):
                    assert names.setdefault(number, run) == run
                    assert numbers.setdefault(run, number) == number
            at += len(documents)
        assert at == len(texts)


def pairs(shared: int, n: int, size: int, seed: int) -> list[str]:
    """Texts of which each two neighbours have so many words in common, and no other two any."""
    texts = []
    for i in range(n):
        draw = random.Random(f"{seed} {i}")
        vocabulary = [f"w{draw.getrandbits(64):x}" for _ in range(2 * size - shared)]
        own = vocabulary[shared:]
        for part in (own[: size - shared], own[size - shared :]):
            text = vocabulary[:shared] + part
            draw.shuffle(text)
            texts.append(" ".join(text))
    return texts


@pytest.mark.parametrize("similarity", [0.5, 0.6, 0.7, 0.8, 0.9])
@pytest.mark.parametrize(("bands", "rows"), [(14, 8), (20, 5)])
def test_it_finds_as_many_as_theory_says(
    similarity: float, bands: int, rows: int, tmp_path: Path
) -> None:
    n, size = 600, 190
    shared = round(2 * size * similarity / (1 + similarity))
    similarity = shared / (2 * size - shared)
    step = MinHash(words=1, bands=bands, rows=rows)
    texts = pairs(shared, n, size, seed=rows)
    found = dropped(step, texts, tmp_path)
    assert all(row % 2 for row in found), "only pairs have anything in common"
    low, high = binom.interval(0.9999, n, step.found(similarity))
    assert low <= len(found) <= high
    # Each of the bands alone agrees as often as s**rows says.
    hashes = step.map(batch(texts)).column("bands").flatten().to_numpy().reshape(n, 2, bands)
    agree = int((hashes[:, 0] == hashes[:, 1]).sum())
    spread = 5 * np.sqrt(n * bands * similarity**rows)  # bands of a pair are nearly independent
    assert abs(agree - n * bands * similarity**rows) < spread


def test_real_similarities_and_theory(tmp_path: Path) -> None:
    """Texts of words that repeat, shingles of three: exact Jaccard similarity by sets."""
    step = MinHash(words=3, bands=10, rows=4)
    texts = near_duplicates(900, seed=3)
    hashes = step.map(batch(texts)).column("bands").flatten().to_numpy().reshape(-1, 10)
    sets = [shingle_set(text, 3) for text in texts]
    expected = variance = found = false = 0.0
    for i in range(len(texts)):
        for j in range(i):
            shared = len(sets[i] & sets[j])
            meets = bool((hashes[i] == hashes[j]).any())
            if not shared:
                false += meets
                continue
            chance = step.found(shared / len(sets[i] | sets[j]))
            expected += chance
            variance += chance * (1 - chance)
            found += meets
    assert expected > 300
    assert false == 0
    # Pairs of one family of texts are not independent, so the interval is wide.
    assert abs(found - expected) < 10 * np.sqrt(variance)


def test_groups_are_all_that_share_a_band(tmp_path: Path) -> None:
    step = MinHash(words=2, bands=10, rows=3)
    texts = near_duplicates(400, seed=4)
    hashes = step.map(batch(texts)).column("bands").to_pylist()
    groups = plainly(list(range(400)), [[(one,) for one in own] for own in hashes])
    lost = [row for row, first in groups.items() if row != first]
    assert len(lost) > 50
    assert dropped(step, texts, tmp_path) == lost
    # The longest of each group, and the first of the longest.
    best: dict[int, int] = {}
    for row, first in groups.items():
        if first not in best or len(texts[row]) > len(texts[best[first]]):
            best[first] = row
    lost = [row for row in groups if row not in best.values()]
    assert dropped(MinHash(2, 10, 3, keep="longest"), texts, tmp_path) == lost


def test_small_texts_and_case(tmp_path: Path) -> None:
    texts = ["", " ", "...", "Two words", "two, WORDS!", "two words more", "日本", "日本。", "two"]
    assert dropped(MinHash(), texts, tmp_path) == [4, 7]
    assert dropped(MinHash(ignore_case=False), texts, tmp_path) == [7]
    assert dropped(MinHash(), ["", "?"], tmp_path) == []


def test_the_table_in_the_module_is_true() -> None:
    from pilotfish.curate.dedup import minhash

    lines = (minhash.__doc__ or "").splitlines()
    row = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    at, found = row["similarity"], row["found"]
    assert [f"{MinHash().found(float(s)):.2f}".lstrip("0") for s in at] == found
    assert MinHash().found(0.68) == pytest.approx(0.5, abs=0.02)


def test_wrong_settings_are_told() -> None:
    with pytest.raises(ConfigError, match="bands = 0"):
        MinHash(bands=0)
