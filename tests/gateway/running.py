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
from typing import Any

from pilotfish.models.fake_server import FakeServer

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


def remote(name: str, server: FakeServer, **settings: Any) -> str:
    """A remote model for pilotfish.toml, impatient and without retries unless told otherwise."""
    lines = [f"[models.{name}]", 'backend = "openai"', f'base_url = "{server.base_url}"']
    settings = {"max_retries": 0, "read_timeout": 1.0, **settings}
    lines += [f"{key} = {written(value)}" for key, value in settings.items()]
    return "\n".join(lines) + "\n"


def written(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {written(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)


def body(model: str, **options: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **options}


def words_of(parts: list[Any]) -> str:
    """The text of a stream's events."""
    choices = (part["choices"] for part in parts if part != "[DONE]" and part.get("choices"))
    return "".join(choice[0]["delta"].get("content") or "" for choice in choices)
