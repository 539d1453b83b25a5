"""Progress: the steps that are told add up to the total, in every pass and after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pilotfish.cli.progress import _Lines
from pilotfish.curate import Pipeline
from pilotfish.curate.meter import MEGABYTE
from pilotfish.curate.scores.length import Length
from pilotfish.progress import Progress, Stage
from tests.curate.corpus import Killed, Unique, as_lines, documents


class Recorded(Progress, Stage):
    def __init__(self) -> None:
        self.stages: list[list[object]] = []

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
        self.stages.append([title, total, 0])
        yield self

    def advance(self, steps: int = 1) -> None:
        self.stages[-1][2] += steps  # type: ignore[operator]


@pytest.mark.parametrize("engine", ["local", "processes"])
def test_stages_end_at_their_totals(tmp_path: Path, engine: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(as_lines(documents(20_000)))
    size = (tmp_path / "a.jsonl").stat().st_size
    seen = Recorded()
    pipeline = Pipeline([Length(min_chars=30), Unique()])
    result = pipeline.run(
        tmp_path / "a.jsonl",
        tmp_path / "out",
        engine=engine,
        workers=2,
        shard_bytes=size // 3,
        progress=seen,
    )
    first, fit, second = seen.stages
    assert first == ["length (1 of 2), MB", -(-size // MEGABYTE), size // MEGABYTE]
    assert fit[0] == "fit unique"
    left = result.steps[0].rows_out
    assert second == ["unique (2 of 2), rows", left, left]


def test_what_was_done_before_counts_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_bytes(as_lines(documents(20_000)))
    size = (tmp_path / "a.jsonl").stat().st_size
    armed = tmp_path / "armed"
    armed.touch()

    def stop(pid: int, number: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.kill", stop)
    pipeline = Pipeline([Killed(1 << 40, str(armed))])
    seen = Recorded()
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(tmp_path / "a.jsonl", tmp_path / "out", shard_bytes=size // 3, progress=seen)
    armed.unlink()
    assert seen.stages[0][2] < size // MEGABYTE  # type: ignore[operator]
    pipeline.run(tmp_path / "a.jsonl", tmp_path / "out", shard_bytes=size // 3, progress=seen)
    assert seen.stages[1] == ["killed, MB", -(-size // MEGABYTE), size // MEGABYTE]


def test_without_a_terminal_a_line_tells_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    lines = _Lines("length, MB", 1000)
    lines.advance(400)  # done by an earlier run
    lines.note("1,234 rows/s")
    now = 120.0
    lines.advance(100)
    assert capsys.readouterr().err == "length, MB: 500 of 1000, 100 s left, 1,234 rows/s\n"
