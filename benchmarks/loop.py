"""The closed loop over sockets: 20,000 mixed requests of four tasks, and a label whose meaning drifts.

A scripted large model behind HTTP, the gateway, ``pilotfish learn --watch`` killed every 30 seconds,
and eight clients. Stores benchmarks/results/loop.json; takes about five minutes on two cores.

    python -m benchmarks.loop
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.loop.closing import CLIENTS, drive

RESULT = Path(__file__).parent / "results" / "loop.json"
OPTIONS = ("--check-share", "0.1", "--student", "tfidf-embedding-linear")
PACE = 0.025  # seconds that each client waits: about 200 requests a second in all
KILL_EVERY = 30.0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        report = drive(Path(folder), 8_500, 8_500, OPTIONS, pace=PACE, kill_every=KILL_EVERY)
        moves = [
            {
                "task": event.task,
                "version": event.version,
                "kind": event.kind,
                "evidence": {k: v for k, v in event.evidence.items() if k != "requests"},
            }
            for event in report.events
        ]
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, shared with other work",
        "clients": CLIENTS,
        "options": " ".join(OPTIONS),
        **report.to_dict(),
        "moves": moves,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "moves"}, indent=1))


if __name__ == "__main__":
    main()
