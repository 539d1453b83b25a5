"""Files to write: what cannot be is said before the work, and what fails then as an input error."""

from __future__ import annotations

from pathlib import Path

import pytest

import pilotfish as pf
from pilotfish.errors import InputError
from pilotfish.loop.rows import Reject, write_rejects
from pilotfish.sources import writable


def test_a_file_to_write_is_looked_at_first(tmp_path: Path) -> None:
    assert writable(tmp_path / "a.csv", (".csv", ".jsonl")) == tmp_path / "a.csv"
    with pytest.raises(InputError, match=r"expected a file that ends in \.csv, \.jsonl"):
        writable(tmp_path / "a.xml", (".csv", ".jsonl"))
    with pytest.raises(InputError, match=r"there is no folder(?s:.*)mkdir -p"):
        writable(tmp_path / "none" / "a.csv")
    with pytest.raises(InputError, match="Got the folder"):
        writable(tmp_path)
    with pytest.raises(InputError, match="Cannot write '/dev/full': No space left"):
        write_rejects([Reject(1, "not-json", "x")], "/dev/full")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"out": "answers.xml"}, r"ends in \.jsonl"),
        ({"out": "none/answers.jsonl"}, "there is no folder 'none'"),
        ({"out": "answers.jsonl", "rejects": "none/bad.jsonl"}, "there is no folder 'none'"),
    ],
)
def test_answers_that_cannot_be_written_are_not_asked_for(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):  # not that there is no such artifact
        pf.apply("no-such-artifact", "no-such-file.jsonl", **wrong)
