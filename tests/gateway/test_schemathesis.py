"""The gateway keeps to its own OpenAPI document: schemathesis finds nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pilotfish.store.store import open_store
from tests.gateway.serving import serving

# Whether tokens, several streamed prompts or so many dimensions are taken depends on the model, which no
# schema can say: those requests may be refused. All else is checked for them as well.
SETTINGS = """
[[operations]]
include-name = ["POST /v1/completions", "POST /v1/embeddings"]
checks.positive_data_acceptance.enabled = false
"""


@pytest.mark.parametrize("keys", ["off", "required"])
def test_schemathesis_finds_nothing(keys: str) -> None:
    """Valid requests are accepted, wrong ones refused, and every answer is as the document says.

    Where keys are demanded, it also asks without one and with a wrong one, and expects a 401.
    """
    with serving({"chat": {"backend": "fake"}}, keys=keys) as running:
        Path("schemathesis.toml").write_text(SETTINGS)
        store = open_store(running.store_url)
        key, _ = store.keys.create("tester")
        store.close()
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            *("run", f"http://127.0.0.1:{running.port}/openapi.json"),
            *("--max-examples", "8", "--seed", "1", "--no-color", "--suppress-health-check", "all"),
            *("--phases", "coverage,fuzzing,stateful"),
            *(("--header", f"Authorization: Bearer {key}") if keys == "required" else ()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "12/12" in done.stdout, done.stdout[-2000:]
