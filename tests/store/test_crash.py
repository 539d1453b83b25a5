"""Several processes at once, and processes that are killed while they write."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from pilotfish.store.store import open_store
from tests.store.test_store import entry

WRITE_SAME = """
import sys
from pilotfish.records import Completion, Request
from pilotfish.store.store import open_store
url, me = sys.argv[1:]
order = range(1000) if me == "a" else range(999, -1, -1)
requests = [Request.of(f"question {i}", temperature=0) for i in order]
with open_store(url) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for start in range(0, 1000, 50):
        batch = requests[start : start + 50]
        store.put([(r.key("m"), r, Completion(f"{me} {r.prompt}", "m")) for r in batch], run=me)
"""

WRITE_FOR_EVER = """
import itertools, sys
from pilotfish.records import Completion, Request
from pilotfish.store.store import open_store
store = open_store(sys.argv[1])
for start in itertools.count(0, 20):
    requests = [Request.of(f"question {i}", temperature=0) for i in range(start, start + 20)]
    store.put([(r.key("m"), r, Completion("answer", "m")) for r in requests])
    print(start + 20, flush=True)
"""


def _python(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_write_the_same_keys(url):
    """Both open an empty database at once, then write the same keys in opposite order."""
    writers = [_python(WRITE_SAME, url, name) for name in ("a", "b")]
    assert [w.stdout.readline() for w in writers] == ["ready\n"] * 2
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
    with open_store(url) as store:
        keys = [entry(i)[0] for i in range(1000)]
        found = store.get(keys)
        assert len(found) == store.count() == 1000
        assert store.count(run="a") + store.count(run="b") == 1000
        for batch in store.calls():
            for key, run in zip(batch["key"].to_pylist(), batch["run"].to_pylist(), strict=True):
                assert found[key].text.startswith(run)


@pytest.mark.parametrize("batches", [1, 20])
def test_what_put_returned_for_survives_a_kill(url, batches):
    writer = _python(WRITE_FOR_EVER, url)
    confirmed = 0
    for _ in range(batches):
        confirmed = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    rest, _ = writer.communicate()
    confirmed = int((rest.split() or [confirmed])[-1])
    with open_store(url) as store:
        assert len(store.get([entry(i)[0] for i in range(confirmed)])) == confirmed
        assert store.count() % 20 == 0, "a batch is there as a whole or not at all"
        store.put([entry(10**9)])
        assert sum(batch.num_rows for batch in store.calls()) == store.count()
