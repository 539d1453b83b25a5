"""Starting and stopping the gateway: one port, one or several worker processes, signals.

Several workers share one listening socket that the parent process opened, so a port that is taken
is said at once, and a worker that dies is replaced while the others go on. On SIGTERM or SIGINT
nothing new is accepted, answers under way get ``shutdown_timeout`` seconds to end, and what was
recorded reaches the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess

from pilotfish.config import Config, load_config
from pilotfish.errors import ConfigError
from pilotfish.gateway.app import App
from pilotfish.gateway.protocol import GatewayProtocol
from pilotfish.gateway.redaction import find_redactor
from pilotfish.gateway.served import Served
from pilotfish.gateway.settings import ServeSettings, read_serve_settings
from pilotfish.store.store import open_store

_WORKER = "PILOTFISH_WORKER"  # what a worker is told: the configuration's path, and options
BACKLOG = 2048


class Server(uvicorn.Server):
    """uvicorn's server; it ends well when it is told to end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM, without raising them again at the end as uvicorn does."""
        if threading.current_thread() is not threading.main_thread():
            yield  # as in tests; only the main thread may take signals
            return
        handlers = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; asked twice, cut off what is under way, but still write what is to be recorded."""
        await super().shutdown(sockets)
        if self.force_exit:
            tasks = set(self.server_state.tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=1)
            await self.lifespan.shutdown()


def serve(
    config_path: Path | None = None,
    *,
    ready: Callable[[str, Config, ServeSettings, Served], None] = lambda *_: None,
    **options: Any,
) -> None:
    """Serve until told to stop.

    Args:
        config_path: pilotfish.toml; default: what :func:`pilotfish.config.load_config` finds.
        ready: Called with the URL and what will be served, once the port is ours.
        options: Settings over those under ``[serve]``; None: not given.

    Raises:
        ConfigError: A setting is wrong, or the port is taken.
        PilotfishError: The store cannot be opened.
    """
    config = load_config(config_path)
    settings = read_serve_settings(config.serve, **options)
    served = Served(config, default=settings.default)
    find_redactor(settings.redact)
    open_store(config.store).close()
    listener = listen(settings.host, settings.port)
    try:
        ready(url_of(listener, settings.host), config, settings, served)
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        if settings.workers == 1:
            _serve_here(App(config, settings), settings, listener)
        else:
            told = {"config": str(config_path) if config_path else None, "options": options}
            os.environ[_WORKER] = json.dumps(told)
            settings_of_all = uvicorn_config("pilotfish.gateway.serve:worker", settings)
            settings_of_all.workers = settings.workers
            supervisor = Multiprocess(settings_of_all, sockets=[listener])
            supervisor.run()
            if any(process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
                raise ConfigError("A worker could not start; its message is above.")
    finally:
        listener.close()


def worker() -> App:
    """The application of a worker process, as its parent told it by the environment."""
    told = json.loads(os.environ[_WORKER])
    config = load_config(told["config"])
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    return App(config, read_serve_settings(config.serve, **told["options"]))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: The address is not ours, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.ExitStack() as failing:
            failing.callback(listener.close)
            listener.bind(address)
            listener.listen(BACKLOG)
            failing.pop_all()
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {host} port {port}: {error.strerror or error}.",
            remedy="Choose another with --port, or --port 0 for a free one.",
        ) from None
    listener.set_inheritable(True)
    return listener


def url_of(listener: socket.socket, host: str) -> str:
    """What clients are given as base URL, ``/v1`` included."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    if ":" in name and not name.startswith("["):
        name = f"[{name}]"
    return f"http://{name}:{listener.getsockname()[1]}/v1"


def _serve_here(app: App, settings: ServeSettings, listener: socket.socket) -> None:
    server = Server(uvicorn_config(app, settings))
    gc.collect()
    gc.freeze()  # what lives as long as the process is not looked at again
    try:
        server.run(sockets=[listener])
    except SystemExit:
        if app.failure is None:
            raise
    if app.failure is not None:
        raise app.failure


def uvicorn_config(app: App | str, settings: ServeSettings) -> uvicorn.Config:
    """What uvicorn is told: our protocol, no log of its own, the settings' times."""
    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        http=_protocol(settings),
        ws="none",
        lifespan="on",
        loop="auto" if sys.platform != "win32" else "asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(settings.idle_timeout),
        timeout_graceful_shutdown=int(settings.shutdown_timeout) or 1,
        backlog=BACKLOG,
    )


def _protocol(settings: ServeSettings) -> type[asyncio.Protocol]:
    GatewayProtocol.header_seconds = settings.header_timeout
    return GatewayProtocol
