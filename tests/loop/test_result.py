"""The outcome survives JSON, and what is not an outcome is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.errors import ArtifactError
from pilotfish.loop import result as r


def test_json_round_trip_of_a_full_outcome(outcome):
    full = outcome()
    assert r.OffloadResult.from_json(full.to_json()) == full
    assert json.loads(full.to_json()) == full.to_dict()
    assert full.version == 1
    assert full.asked.calls == 1650


def test_the_least_there_is_round_trips_and_later_keys_are_ignored():
    least = r.OffloadResult(name="n", task=r.TaskInfo(prompt="{t}"), large=r.LargeModel(name="m"))
    assert r.OffloadResult.from_json(least.to_json()) == least
    data = json.loads(least.to_json()) | {"added_later": 1}
    data["large"]["added_later"] = [1]
    assert r.OffloadResult.from_json(json.dumps(data)) == least
    assert least.large.cost is None  # unknown, not 0


def test_a_later_version_and_other_files_are_refused(outcome):
    later = dataclasses.replace(outcome(), version=2).to_json()
    with pytest.raises(ArtifactError, match="version 2, but this Pilotfish reads up to 1"):
        r.OffloadResult.from_json(later)
    for text in ("", "[]", "{}", '{"name": 3}', "\xff", "[" * 100_000):
        with pytest.raises(ArtifactError, match="not the result of an offload run"):
            r.OffloadResult.from_json(text)


@given(
    text=st.text(st.characters(codec="utf-8")),
    cost=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    counts=st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(0, 2**53)),
)
def test_any_text_and_number_survives(text, cost, counts):
    made = r.OffloadResult(
        name=text,
        task=r.TaskInfo(prompt=text, labels=[text]),
        large=r.LargeModel(name=text, cost=cost),
        rows=r.RowCounts(reject_reasons=counts),
        disagreements=[r.Disagreement(text=text, small="a", large="b", score=0.5)],
    )
    assert r.OffloadResult.from_json(made.to_json()) == made


def test_a_figure_that_is_not_finite_becomes_unknown():
    entry = r.RaceEntry(student="s", log_loss=float("nan"), ece=float("inf"))
    made = r.OffloadResult(
        name="n", task=r.TaskInfo(prompt="{t}"), large=r.LargeModel(name="m"), race=[entry]
    )
    back = r.OffloadResult.from_json(made.to_json()).race[0]
    assert (back.log_loss, back.ece) == (None, None)
