"""A run that is killed goes on where it was, and writes the bytes of a run that was left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from pilotfish.curate import Pipeline
from pilotfish.curate.scores.length import Length
from pilotfish.curate.step import Verdict
from pilotfish.errors import ConfigError, InputError
from tests.conftest import REPOSITORY
from tests.curate.corpus import Killed, Quality, Unique, Upper, as_lines, documents
from tests.curate.runs import counted, shards

SHARD = 40_000
SCRIPT = """
import sys
from pilotfish.curate import Pipeline
from tests.curate.test_resume import pipeline, SHARD
if __name__ == "__main__":
    corpus, out, engine = sys.argv[1:]
    pipeline().run(corpus, out, engine=engine, workers=2, shard_bytes=SHARD)
    print("finished")
"""


def pipeline() -> Pipeline:
    return Pipeline([Length(min_chars=30), Quality(), Unique(), Upper()])


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(as_lines(documents(4000)) + b"no json\n")
    return path


def start(corpus: Path, out: Path, engine: str) -> subprocess.Popen[str]:
    script = out.parent / "run.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), str(corpus), str(out), engine],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )


@pytest.mark.parametrize("engine", ["local", "processes"])
def test_killed_at_any_moment_and_started_again(corpus: Path, tmp_path: Path, engine: str) -> None:
    whole = pipeline().run(corpus, tmp_path / "whole", shard_bytes=SHARD)
    out = tmp_path / "out"
    marks = out / "_work"
    # Killed when so many pieces are done, in the first pass and then in the second.
    moments = ((0, 2), (0, 5), (1, 1), (1, 4)) if engine == "local" else ((0, 3), (1, 2))
    for passed, done in moments:
        process = start(corpus, out, engine)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(marks.glob(f"pass-{passed}/done-*.json"))) >= done:
                break
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.stdout is not None
        ended = "finished" in process.stdout.read()
        process.wait()
        process.stdout.close()
        assert not ended, "the run was over before it could be killed"
        assert not (out / "_report.json").exists()
    result = pipeline().run(corpus, out, engine=engine, workers=2, shard_bytes=SHARD)
    assert result.resumed >= 5
    assert shards(out) == shards(tmp_path / "whole")
    assert counted(result) == counted(whole)
    assert not marks.exists()


def test_workers_end_with_the_run_that_was_killed(corpus: Path, tmp_path: Path) -> None:
    process = start(corpus, tmp_path / "out", "processes")
    deadline = time.monotonic() + 60
    while len(found := children(process.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)  # two workers and the resource tracker
    assert len(found) >= 3
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    while any(map(alive, found)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, found))


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_that_is_killed_is_told_and_the_run_goes_on(corpus: Path, tmp_path: Path) -> None:
    armed = tmp_path / "armed"
    armed.touch()
    deadly = Pipeline([Length(min_chars=30), Killed(3 << 40 | 5, str(armed))])
    with pytest.raises(InputError, match=r"worker process was killed(?s:.*)--workers"):
        deadly.run(corpus, tmp_path / "out", engine="processes", workers=2, shard_bytes=SHARD)
    armed.unlink()
    result = deadly.run(corpus, tmp_path / "out", engine="local", shard_bytes=SHARD)
    assert result.resumed >= 1
    deadly.run(corpus, tmp_path / "whole", shard_bytes=SHARD)
    assert shards(tmp_path / "out") == shards(tmp_path / "whole")


def test_ctrl_c_ends_it_at_once_and_without_a_word_from_workers(
    corpus: Path, tmp_path: Path
) -> None:
    corpus.write_bytes(corpus.read_bytes() * 30)
    (tmp_path / "p.toml").write_text('[[steps]]\nstep = "gopher_repetition"\n')
    command = [sys.executable, "-m", "pilotfish.cli.main", "curate", str(tmp_path / "p.toml")]
    process = subprocess.Popen(
        [*command, str(corpus), str(tmp_path / "out"), "--workers", "2", "--shard-size", "1M"],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("_work/*/done-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Run the same command again" in said
    assert "Traceback" not in said


def test_a_finished_run_is_not_done_again(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = pipeline().run(corpus, out, shard_bytes=SHARD)
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    again = pipeline().run(corpus, out, shard_bytes=SHARD)
    assert again == first
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times


def test_another_run_is_not_mixed_into_one(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pipeline().run(corpus, out, shard_bytes=SHARD)
    for other in (
        lambda: Pipeline([Length(min_chars=31), Quality(), Unique(), Upper()]).run(
            corpus, out, shard_bytes=SHARD
        ),
        lambda: pipeline().run(corpus, out, shard_bytes=2 * SHARD),
        lambda: pipeline().run(corpus, out, shard_bytes=SHARD, format="parquet"),
    ):
        with pytest.raises(ConfigError, match="holds another run"):
            other()
    os.utime(corpus, ns=(0, 0))
    with pytest.raises(ConfigError, match="holds another run"):
        pipeline().run(corpus, out, shard_bytes=SHARD)


class Broken:
    """A step of the user's that fails at once."""

    name = "broken"

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        raise InputError("This step is broken.")


def test_a_run_that_failed_at_once_leaves_its_folder_to_the_mended_one(
    corpus: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="broken"):
        Pipeline([Broken()]).run(corpus, tmp_path / "out", shard_bytes=SHARD)
    assert (tmp_path / "out" / "_work" / "run.json").exists()
    pipeline().run(corpus, tmp_path / "out", shard_bytes=SHARD)
    pipeline().run(corpus, tmp_path / "whole", shard_bytes=SHARD)
    assert shards(tmp_path / "out") == shards(tmp_path / "whole")


def test_two_runs_at_once_are_refused(corpus: Path, tmp_path: Path) -> None:
    from pilotfish.curate.finishing import claimed

    with (
        claimed(tmp_path / "out" / "_work"),
        pytest.raises(InputError, match="Another run is at work"),
    ):
        pipeline().run(corpus, tmp_path / "out", shard_bytes=SHARD)
