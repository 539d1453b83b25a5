"""The servers that benchmarks/gateway.py measures: mock upstream, Pilotfish, LiteLLM, and their files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEY = "sk-bench-1234"
STREAMED_EVENTS = 20

ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "mock",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello! How can I help you today?"},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21},
}


def streamed_answer() -> str:
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "m",
    }
    pieces: list[dict[str, Any]] = [
        {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
    ]
    pieces += [
        {"index": 0, "delta": {"content": f"word{i} "}, "finish_reason": None}
        for i in range(STREAMED_EVENTS)
    ]
    pieces.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events = [{**head, "choices": [piece]} for piece in pieces]
    events.append({**head, "choices": [], "usage": ANSWER["usage"]})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[int]:
    """A process, by its id, that is stopped in the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, cwd=log.parent, env={**os.environ, **environment}
        )
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(timeout=30)


def wait_for(url: str, log: Path, seconds: float = 90) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with contextlib.suppress(OSError):
            request = urllib.request.Request(url, headers={"authorization": f"Bearer {KEY}"})
            with urllib.request.urlopen(request, timeout=2):
                return
        time.sleep(0.2)
    sys.exit(f"{url} does not answer:\n{log.read_text()[-2000:]}")


def nginx_config(folder: Path, port: int) -> str:
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; {temporary}
  client_max_body_size 10m; client_body_buffer_size 1m;
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location = /v1/models {{ return 200 '{{}}'; }}
    root {folder}/answers; error_page 405 =200 $uri;  # a POST gets the file
    location /v1/ {{ default_type application/json; }}
    location /s/ {{ default_type text/event-stream; }}
  }} }}"""


def pilotfish_config(folder: Path, upstream: int, idle: int, port: int) -> str:
    def remote(name: str, path: str, at: int = upstream) -> str:
        url = f"http://127.0.0.1:{at}{path}/v1"
        return f'[models.{name}]\nbackend = "openai"\nmodel = "mock"\nbase_url = "{url}"\n'

    return f"""store = "sqlite:///{folder}/gateway.db"
[serve]
port = {port}
max_active = 5000
{remote("mock", "")}
{remote("large", "")}
{remote("mock-stream", "/s")}
{remote("idle", "", idle)}
[models.cascade]
kind = "cascade"
models = ["mock", "large"]
thresholds = [0.5]
[models.router]
kind = "router"
models = ["mock", "large"]
by = "{folder}/router"
[prices]
mock = {{ input = 1.0, output = 2.0, date = "2026-11-01" }}
"""


def train_router(folder: Path) -> None:
    """A classifier from texts to members, as a user's would be: TF-IDF and static embeddings."""
    import numpy as np

    from pilotfish.config import Config
    from pilotfish.distill.student import fit_student, student_files
    from pilotfish.models.load import load_encoder
    from pilotfish.records import Inputs
    from pilotfish.store.artifacts import Card, save_artifact

    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 400)
    words = (("weather", "hello", "time"), ("prove", "integral", "theorem"))
    texts = [" ".join(rng.choice(words[t], 5)) for t in targets]
    encoder = load_encoder("static", Config())
    student = fit_student(
        "tfidf-embedding-linear",
        Inputs(texts),
        targets,
        classes=("mock", "large"),
        encoder=encoder,
        seed=0,
    )
    card, arrays, files = student_files(student)
    save_artifact(
        folder / "router",
        Card.new(name="router", kind="classifier"),
        tensors={"student": arrays},
        json_files={"student.json": card},
        files=files,
    )


LITELLM = """model_list:
  - model_name: mock
    litellm_params: {{model: openai/mock, api_base: "http://127.0.0.1:{port}/v1", api_key: x}}
  - model_name: mock-stream
    litellm_params: {{model: openai/mock, api_base: "http://127.0.0.1:{port}/s/v1", api_key: x}}
general_settings: {{master_key: {key}}}
litellm_settings: {{set_verbose: false, num_retries: 0}}
"""


async def idle_upstream(port: int) -> None:
    """A model that says one word and then nothing for ever."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        event = b'data: {"choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
        writer.write(head + event)
        await reader.read(1 << 20)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()
