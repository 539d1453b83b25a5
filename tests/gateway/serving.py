"""A gateway on a real port, in a thread of this process, and raw sockets to talk to it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from pilotfish.config import Config
from pilotfish.gateway.app import App
from pilotfish.gateway.serve import Server, listen, uvicorn_config
from pilotfish.gateway.settings import read_serve_settings
from pilotfish.models.fake_server import FakeServer
from pilotfish.store.store import open_store
from pilotfish.store.traffic import Recorded


class Running:
    """A gateway that runs, and a client of it."""

    def __init__(self, app: App, port: int, store: str) -> None:
        self.app = app
        self.port = port
        self.store_url = store
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)

    @property
    def gateway(self) -> Any:
        assert self.app.gateway is not None
        return self.app.gateway

    def chat(self, content: Any = "hello", *, model: str = "fake", **params: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": content}], **params}
        return self.client.post("/v1/chat/completions", json=body)

    def events(self, **body: Any) -> list[Any]:
        """The decoded events of a streamed chat, ``"[DONE]"`` included."""
        body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], **body}
        with self.client.stream(
            "POST", "/v1/chat/completions", json={**body, "stream": True}
        ) as response:
            assert response.status_code == 200, response.read()
            lines = [line for line in response.iter_lines() if line.startswith("data: ")]
        said = [line.removeprefix("data: ") for line in lines]
        return [data if data == "[DONE]" else json.loads(data) for data in said]

    def raw(self, data: bytes, *, half_close: bool = False, timeout: float = 10.0) -> bytes:
        """Send bytes; everything that comes back until the gateway closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as connection:
            connection.sendall(data)
            if half_close:
                connection.shutdown(socket.SHUT_WR)
            got = b""
            while piece := connection.recv(1 << 16):
                got += piece
        return got

    def records(self, count: int) -> list[Recorded]:
        """The newest records, the oldest first, once there are so many."""
        store = open_store(self.store_url)
        try:
            for _ in range(200):
                rows = list(store.traffic.recent(limit=1000))
                if len(rows) >= count:
                    return sorted(rows, key=lambda row: row.time)
                threading.Event().wait(0.02)
        finally:
            store.close()
        raise AssertionError(f"{len(rows)} records, but expected {count}")


@contextmanager
def serving(
    models: Mapping[str, Mapping[str, Any]],
    *,
    prices: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """Serve these models."""
    store = f"sqlite:///{Path('gateway.db').resolve()}"
    config = Config(store=store, models=models, prices=prices or {})
    given = read_serve_settings({"port": 0, "shutdown_timeout": 5.0, **settings})
    listener = listen(given.host, given.port)
    app = App(config, given)
    server = Server(uvicorn_config(app, given))
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve(sockets=[listener])), name="gateway"
    )
    thread.start()
    while not server.started and thread.is_alive():
        threading.Event().wait(0.005)
    if app.failure is not None:
        thread.join()
        raise app.failure
    running = Running(app, listener.getsockname()[1], store)
    try:
        yield running
    finally:
        server.should_exit = True
        thread.join()
        running.client.close()
        listener.close()


def remote(server: FakeServer, **settings: Any) -> dict[str, Any]:
    """A model's table for a fake server; it retries fast."""
    quick = {"first_delay": 0.01, "max_delay": 0.02, "read_timeout": 5.0}
    return {
        "backend": "openai",
        "model": "upstream-name",
        "base_url": server.base_url,
        **quick,
        **settings,
    }
