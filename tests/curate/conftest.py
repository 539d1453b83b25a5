"""A corpus in several files, with rows that cannot be used among the others."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tests.curate.corpus import as_lines, documents


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    wanted = documents(3000)
    (folder / "a.jsonl").write_bytes(as_lines(wanted[:2000]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(as_lines(wanted[2000:2900]) + b"no json\n"))
    (folder / "c.jsonl").write_bytes(b'{"body": 1}\n' + as_lines(wanted[2900:]))
    (folder / "d.jsonl").write_bytes(b"")
    return folder
