"""``pilotfish serve`` as a process: what it prints, several workers, signals, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pilotfish.cli.main import main
from pilotfish.models.fake_server import FakeServer, Fault
from pilotfish.store.store import open_store

COMMAND = [sys.executable, "-m", "pilotfish.cli.main", "serve"]


def configure(upstream: FakeServer) -> None:
    Path("pilotfish.toml").write_text(
        f'store = "sqlite:///{Path("gateway.db").resolve()}"\n'
        '[models.small]\nbackend = "fake"\n'
        f'[models.far]\nbackend = "openai"\nbase_url = "{upstream.base_url}"\n'
    )


@contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            assert process.stderr is not None
            raise AssertionError(process.stderr.read())
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


def ask(url: str, model: str = "far", **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
    return httpx.post(f"{url}/chat/completions", json=body, timeout=20)


def children(pid: int) -> list[int]:
    said = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(word) for word in said.stdout.split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_and_ends_well_with_what_was_under_way(number: signal.Signals) -> None:
    with FakeServer("word " * 20, faults=[None, Fault.SLOW_DRIP], drip_seconds=0.05) as upstream:
        configure(upstream)
        with started("--durable") as (process, told):
            assert told["models"][:2] == [
                {"id": "small", "kind": "fake"},
                {"id": "far", "kind": "openai"},
            ]
            assert told["durable"] is True
            assert ask(told["url"]).status_code == 200
            body = {"model": "far", "messages": [{"role": "user", "content": "x"}], "stream": True}
            with httpx.stream("POST", f"{told['url']}/chat/completions", json=body) as stream:
                process.send_signal(number)
                assert list(stream.iter_lines())[-2] == "data: [DONE]"
            assert process.wait(15) == 0
    store = open_store(f"sqlite:///{Path('gateway.db').resolve()}")
    try:
        assert [row.status for row in store.traffic.recent(limit=10)] == [200, 200]
    finally:
        store.close()


def test_stopped_twice_it_ends_at_once_and_says_and_records_so() -> None:
    slow = [None, *[Fault.SLOW_DRIP] * 5]
    with FakeServer("word " * 20, faults=slow, drip_seconds=1) as upstream:
        configure(upstream)
        with started() as (process, told):
            assert ask(told["url"]).status_code == 200
            body = {"model": "far", "messages": [{"role": "user", "content": "x"}], "stream": True}
            with httpx.stream("POST", f"{told['url']}/chat/completions", json=body) as stream:
                process.send_signal(signal.SIGINT)
                time.sleep(0.3)
                process.send_signal(signal.SIGINT)
                assert "shutting_down" in "".join(stream.iter_lines())
            assert process.wait(10) == 0
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()
    store = open_store(f"sqlite:///{Path('gateway.db').resolve()}")
    try:
        assert [row.status for row in store.traffic.recent(limit=10)] == [503, 200]
    finally:
        store.close()


def test_workers_share_the_port_and_are_replaced() -> None:
    with FakeServer("ok", keep=False) as upstream:
        configure(upstream)
        with started("--workers", "2") as (process, told):
            for _ in range(200):  # the port is open before the workers are up
                if ask(told["url"], "small").status_code == 200:
                    break
            for _ in range(40):
                assert ask(told["url"]).status_code == 200
            workers = children(process.pid)
            assert len(workers) >= 2
            os.kill(max(workers), signal.SIGKILL)
            ends = time.monotonic() + 20
            answered = 0
            while answered < 20 and time.monotonic() < ends:
                # A request that the dead worker had accepted is lost with it.
                try:
                    answered += ask(told["url"]).status_code == 200
                except httpx.TransportError:
                    answered = 0
            assert answered == 20
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    store = open_store(f"sqlite:///{Path('gateway.db').resolve()}")
    try:
        assert len(list(store.traffic.recent(limit=1000))) >= 41
    finally:
        store.close()


def test_a_taken_port_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "--port", str(port)], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "--port" in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[serve]\nprot = 1\n", "Did you mean 'port'"),
        ("[serve]\nworkers = 'x'\n", "setting workers is wrong"),
        ("[models.x]\nbackend = 'fake'\n[serve]\ndefault = 'y'\n", "default model 'y'"),
        ("store = 'sqlite:////nowhere/at/all.db'\n", "nowhere"),
        ("[serve]\nredact = 'no_module:function'\n", "no_module"),
        ("[models.x]\nbackend = 'openai'\nbase_ulr = 'http://x'\n", "Did you mean 'base_url'"),
    ],
)
def test_wrong_settings_are_said(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In this process: the six starts of Python took longer than all that they showed."""
    Path("pilotfish.toml").write_text(text)
    monkeypatch.setattr(sys, "argv", ["pilotfish", "serve", "--port", "0"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capfd.readouterr().err
    assert ended.value.code in (1, 2), said
    assert said.count("Error: ") == 1
    assert words in said
    assert "Traceback" not in said
    assert "Pilotfish serves" not in said


def test_without_a_configuration_it_says_what_to_try() -> None:
    process = subprocess.Popen(
        [*COMMAND, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("curl http://127.0.0.1:")
        command = line.split("'")
        url = line.split()[1]
        got = httpx.post(url, content=command[3], timeout=30)
        assert got.status_code == 200
        assert len(got.json()["data"][0]["embedding"]) > 10
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "pilotfish pull" in said
    assert "dashboard" in said
