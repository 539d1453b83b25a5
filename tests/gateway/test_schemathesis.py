"""The gateway keeps to its own OpenAPI document: schemathesis finds nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.gateway.serving import serving

# Whether tokens, several streamed prompts or so many dimensions are taken depends on the model, which no
# schema can say: those requests may be refused. All else is checked for them as well.
SETTINGS = """
[[operations]]
include-name = ["POST /v1/completions", "POST /v1/embeddings"]
checks.positive_data_acceptance.enabled = false
"""


def test_schemathesis_finds_nothing() -> None:
    """Valid requests are accepted, wrong ones refused, and every answer is as the document says."""
    with serving({"chat": {"backend": "fake"}}) as running:
        Path("schemathesis.toml").write_text(SETTINGS)
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            *("run", f"http://127.0.0.1:{running.port}/openapi.json"),
            *("--max-examples", "8", "--seed", "1", "--no-color", "--suppress-health-check", "all"),
            *("--phases", "coverage,fuzzing"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "12/12" in done.stdout, done.stdout[-2000:]
