"""Exact deduplication beside normal forms made character by character."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotfish.curate.dedup.exact import Exact
from pilotfish.curate.rules.characters import KIND, character_bits
from pilotfish.errors import ConfigError
from tests.curate.dedup.texts import batch, dropped

ALPHABET = "aAäÄ.,¿ \n\u00a0\u3000日। "


def normal(text: str, step: Exact) -> str:
    if step.ignore_case:
        text = text.lower()
    if step.ignore_punctuation:
        text = "".join(c for c in text if character_bits(c) & KIND)
    return " ".join(text.split()) if step.ignore_whitespace else text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.text(ALPHABET, max_size=5), min_size=1, max_size=40),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_the_first_of_each_normal_form_stays(
    tmp_path: Path, texts: list[str], case: bool, space: bool, punctuation: bool
) -> None:
    step = Exact(case, space, punctuation)
    forms = [normal(text, step) for text in texts]
    assert dropped(step, texts, tmp_path) == [
        i for i, form in enumerate(forms) if form in forms[:i]
    ]


def test_which_one_stays(tmp_path: Path) -> None:
    texts = ["A b", "a  b", "a b ", "c", "a   b"]
    same = {"ignore_case": True, "ignore_whitespace": True}
    assert dropped(Exact(**same), texts, tmp_path) == [1, 2, 4]
    assert dropped(Exact(**same, keep="longest"), texts, tmp_path) == [0, 1, 2]
    stars = pa.array([None, 2.0, 5.0, 1.0, 5.0])
    best = Exact(**same, keep="highest", column="stars")
    assert best.reads == {"stars": "double"}
    assert dropped(best, texts, tmp_path, stars=stars) == [0, 1, 4]
    unknown = pa.array([None, np.nan, None, 1.0, None], pa.float64())
    assert dropped(best, texts, tmp_path, stars=unknown) == [1, 2, 4]


def test_tags_name_the_group(tmp_path: Path) -> None:
    step = Exact(tag=True, keep="highest", column="stars")
    rows = batch(["a", "b", "a", "a"], 10, stars=pa.array([1.0, 9.0, 3.0, 2.0]))
    verdict = step.reduce([step.map(rows)], tmp_path).apply(rows)
    assert verdict.reasons is None
    again = "exact.duplicate"
    assert verdict.columns["exact"].to_pylist() == [again, None, None, again]
    assert verdict.columns["exact_group"].to_pylist() == [12, None, 12, 12]


def test_wrong_settings_are_told() -> None:
    with pytest.raises(ConfigError, match="Known: first, longest, highest"):
        Exact(keep="last")
    with pytest.raises(ConfigError, match="needs a column"):
        Exact(keep="highest")
    with pytest.raises(ConfigError, match="no other rule has one"):
        Exact(column="stars")
    with pytest.raises(ConfigError, match="column of numbers"):
        Exact(keep="highest", column="text")
