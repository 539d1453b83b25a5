"""A gateway as users run it: ``pilotfish serve`` in a process of its own, on a free port."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SERVE = "import sys; from pilotfish.cli.main import main; sys.argv = ['pilotfish', *sys.argv[1:]]; main()"


@dataclass(frozen=True)
class Running:
    """A gateway that listens.

    Attributes:
        url: Its base URL, ``/v1`` included.
        process: The process.
        folder: Its working folder, with pilotfish.toml and the store.
    """

    url: str
    process: subprocess.Popen[str]
    folder: Path

    @property
    def chat(self) -> str:
        """Where chats are asked."""
        return f"{self.url}/chat/completions"

    def stop(self, seconds: float = 30) -> int:
        """Stop it as a service manager does; its exit status."""
        self.process.terminate()
        return self.process.wait(seconds)


@contextmanager
def serving(toml: str, *options: str, **environment: str) -> Iterator[Running]:
    """Run ``pilotfish serve`` with a configuration until the block ends."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pilotfish.toml").write_text(toml)
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", SERVE, "serve", "--port", "0", "--json", *options],
                cwd=folder,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            assert process.stdout is not None
            with process.stdout:
                try:
                    line = process.stdout.readline()
                    assert line, f"It did not start: {(folder / 'log').read_text()}"
                    yield Running(json.loads(line)["url"], process, folder)
                finally:
                    if process.poll() is None:
                        process.terminate()
                        try:
                            process.wait(20)
                        except subprocess.TimeoutExpired:
                            process.kill()
                            process.wait()
