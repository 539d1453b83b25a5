"""Ten thousand malformed requests: each gets an error object or a clean end, none a 500, none a hang.

The cases are those of tests/gateway/malformed*.py (seeded, judged by h11 and by what each case is),
sent over loopback, 16 at a time, to a gateway in this process with a local and a remote model behind
it. Stores benchmarks/results/malformed.json; takes about a minute.

    python benchmarks/malformed.py [--count 10000] [--seed 0]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "malformed.json"
LIMIT = 10.0  # seconds for one case; no answer by then is a hang


def main() -> None:
    sys.path.insert(0, str(HERE.parent))  # the cases are the tests'
    from pilotfish.models.fake_server import FakeServer
    from tests.gateway import malformed_http, malformed_json
    from tests.gateway.malformed import drawn, send_all
    from tests.gateway.serving import remote, serving

    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    makers = (*malformed_http.MAKERS, *malformed_json.MAKERS)
    os.chdir(tempfile.mkdtemp())
    with (
        FakeServer("ok", keep=False) as upstream,
        serving(
            {"fake": {"backend": "fake"}, "far": remote(upstream)},
            max_body=200_000,
            header_timeout=0.6,
            body_timeout=0.6,
        ) as gateway,
    ):
        began = time.perf_counter()
        report = asyncio.run(
            send_all(gateway.port, drawn(makers, asked.count, asked.seed), limit=LIMIT)
        )
        seconds = time.perf_counter() - began
        lives = gateway.chat().status_code == 200
        lost = gateway.gateway.recorder.lost
    faults = Counter(f"{kind}: {fault[:80]}" for kind, _, fault in report.wrong)
    found = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "seed": asked.seed,
        "sent": sum(report.counts.values()),
        "wrong": len(report.wrong),
        "faults": dict(faults.most_common()),
        "seconds": round(seconds, 1),
        "seconds_a_case_may_take": LIMIT,
        "answers_a_good_request_afterwards": lives,
        "records_lost": lost,
        "kinds": dict(sorted(report.counts.items())),
    }
    RESULT.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    sys.exit(bool(report.wrong or lost or not lives))


if __name__ == "__main__":
    main()
