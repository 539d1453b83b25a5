"""What the gateway costs: throughput, latency and memory beside the bare endpoint and LiteLLM's proxy.

One mock upstream (nginx, static answers) on loopback; before it, in turn within each round, nothing
("direct"), Pilotfish with one worker and recording on, and LiteLLM's proxy with one worker. wrk asks as
fast as it can at 1, 16 and 64 clients; then 500 requests a second arrive, evenly, at
random (Poisson) and in bursts, and are timed from the moment they were due.
The median of the rounds counts.

    apt-get install wrk nginx-light
    python3 -m venv /tmp/litellm && /tmp/litellm/bin/pip install 'litellm[proxy]==1.106.2'
    python benchmarks/gateway.py --litellm /tmp/litellm/bin/litellm --out benchmarks/results/gateway.json
    python benchmarks/gateway.py --quick

LiteLLM runs as its manual says for production, as far as one machine allows: no debug log, no database
(so it records nothing), its price table local. Pilotfish records every request and answer in SQLite.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from itertools import accumulate
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop
from gateway_servers import (
    ANSWER,
    KEY,
    LITELLM,
    free_port,
    idle_upstream,
    nginx_config,
    pilotfish_config,
    running,
    streamed_answer,
    train_router,
    wait_for,
)

from pilotfish.models.http1 import Pool
from pilotfish.models.transport import Address

CLIENTS = (1, 16, 64)
SIZES = {"1 KB": 900, "100 KB": 100_000}


def body(model: str, size: int, stream: bool) -> str:
    message = {"role": "user", "content": ("What is the weather? " * (size // 20))[:size]}
    asked: dict[str, Any] = {"model": model, "messages": [message]}
    return json.dumps({**asked, "stream": True} if stream else asked)


def as_fast_as_it_can(
    folder: Path, url: str, data: str, clients: int, seconds: float
) -> dict[str, float]:
    """Requests per second and latencies in milliseconds, by wrk."""
    (folder / "body.json").write_text(data)
    (folder / "post.lua").write_text(
        f'wrk.method = "POST"\nlocal f = io.open("{folder}/body.json")\nwrk.body = f:read("*a")\n'
        'wrk.headers["content-type"] = "application/json"\n'
        f'wrk.headers["authorization"] = "Bearer {KEY}"\n'
    )
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout", "20s", "--latency"]
    said = subprocess.run(
        [*command, "-s", f"{folder}/post.lua", url], check=True, capture_output=True, text=True
    ).stdout
    units = {"us": 1e-3, "ms": 1.0, "s": 1e3}

    def percentile(name: str) -> float:
        number, unit = re.search(rf"{name}%\s+([\d.]+)(us|ms|s)", said).groups()  # type: ignore[union-attr]
        return round(float(number) * units[unit], 3)

    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    lost = re.search(r"Socket errors: (.*)", said)
    if lost:
        print("    ", lost[0], file=sys.stderr)
    return {
        "requests_per_second": float(rate[1]) if rate else 0.0,
        "p50_ms": percentile("50"),
        "p99_ms": percentile("99"),
        "errors": float(wrong[1]) if wrong else 0.0,
    }


async def paced(url: str, data: str, due: list[float]) -> tuple[list[float], int]:
    """Ask at the given moments; milliseconds from when each request was due, and how many failed.

    A late request is late from the client's side too, so waiting in our own queue counts (no
    "coordinated omission"). The client costs 45 us of this process per request; "direct" shows it.
    """
    where = urlsplit(url)
    pool = Pool(
        Address(str(where.hostname), where.port or 80, where.netloc),
        connect_timeout=10,
        read_timeout=20,
    )
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    took: list[float] = []
    failed = 0

    async def one(at: float) -> None:
        nonlocal failed
        response = await pool.post(where.path, headers, data.encode())
        await response.read()
        failed += response.status != 200
        took.append((time.perf_counter() - at) * 1e3)

    began = time.perf_counter()
    tasks = []
    for offset in due:
        if (wait := began + offset - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(began + offset)))
    await asyncio.gather(*tasks)
    pool.close()
    return took[len(took) // 10 :], failed  # the first tenth warms up


ARRIVALS = {
    "even": lambda rate, n: [i / rate for i in range(n)],
    "random": lambda rate, n: list(
        accumulate(random.Random(7).expovariate(rate) for _ in range(n))
    ),
    "bursts of 25": lambda rate, n: [i // 25 * 25 / rate for i in range(n)],
}


def at_a_rate(url: str, data: str, arrivals: str, rate: int, seconds: float) -> dict[str, float]:
    """Latencies in milliseconds at a given rate of arrivals, on as many connections as it takes."""
    due = ARRIVALS[arrivals](rate, int(rate * seconds))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        took, failed = runner.run(paced(url, data, due))
    took.sort()
    return {
        "p50_ms": round(took[len(took) // 2], 3),
        "p99_ms": round(took[int(len(took) * 0.99)], 3),
        "errors": float(failed),
    }


def resident(pid: int) -> float:
    """Megabytes of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024, 1)  # type: ignore[index]


def idle_streams(port: int, pid: int, count: int) -> dict[str, float]:
    """Memory while so many streams are open and silent, and how long the gateway takes to answer then."""
    before = resident(pid)
    data = body("idle", 100, stream=True).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(
        data
    )
    with contextlib.ExitStack() as stack:
        streams = []
        for _ in range(count):
            stream = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            stream.sendall(head + data)
            streams.append(stream)
        for stream in streams:
            got = b""
            while b"word" not in got:
                got += stream.recv(4096)
        held = resident(pid)
    return {"streams": count, "before_mb": before, "open_mb": held}


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    nginx, idle, ours, theirs = (free_port() for _ in range(4))
    seconds = 2.0 if arguments.quick else arguments.seconds
    (folder / "nginx.conf").write_text(nginx_config(folder, nginx))
    for path, answer in (("v1", json.dumps(ANSWER)), ("s/v1", streamed_answer())):
        (folder / "answers" / path / "chat").mkdir(parents=True)
        (folder / "answers" / path / "chat" / "completions").write_text(answer)
    (folder / "pilotfish.toml").write_text(pilotfish_config(folder, nginx, idle, ours))
    (folder / "litellm.yaml").write_text(LITELLM.format(port=nginx, key=KEY))
    train_router(folder)
    results: dict[str, Any] = {"cells": [], "composites": [], "steady": []}
    with contextlib.ExitStack() as stack:
        start = stack.enter_context
        command = ["nginx", "-c", f"{folder}/nginx.conf", "-e", f"{folder}/nginx.log"]
        start(running(command, folder / "nginx.out"))
        start(
            running([sys.executable, __file__, "--idle-upstream", str(idle)], folder / "idle.out")
        )
        wait_for(f"http://127.0.0.1:{nginx}/v1/models", folder / "nginx.out")
        command = [sys.executable, "-m", "pilotfish.cli.main", "serve", "--config"]
        pid = start(running([*command, f"{folder}/pilotfish.toml"], folder / "pilotfish.out"))
        wait_for(f"http://127.0.0.1:{ours}/healthz", folder / "pilotfish.out")
        servers = {"direct": nginx, "pilotfish": ours}
        if arguments.litellm:
            command = [
                arguments.litellm,
                "--config",
                f"{folder}/litellm.yaml",
                "--host",
                "127.0.0.1",
            ]
            command += ["--port", str(theirs), "--num_workers", "1"]
            environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
            start(running(command, folder / "litellm.out", **environment))
            wait_for(f"http://127.0.0.1:{theirs}/health/liveliness", folder / "litellm.out")
            servers["litellm"] = theirs
        results["memory"] = {"started_mb": resident(pid)}
        results["idle_streams_at_start"] = idle_streams(ours, pid, 1000)
        print(json.dumps(results["idle_streams_at_start"]), file=sys.stderr)
        for size in () if arguments.steady else ("1 KB",) if arguments.quick else SIZES:
            for stream in (False, True):
                for clients in CLIENTS:
                    row = {"body": size, "stream": stream, "clients": clients}
                    row |= in_turn(
                        folder, servers, SIZES[size], stream, clients, seconds, arguments.rounds
                    )
                    results["cells"].append(row)
                    print(json.dumps(row), file=sys.stderr)
        chat = f"http://127.0.0.1:{ours}/v1/chat/completions"
        for model in () if arguments.steady else ("mock", "cascade", "router"):
            for clients in (1, 16):
                data = body(model, 900, stream=False)
                got = as_fast_as_it_can(folder, chat, data, clients, seconds)
                results["composites"].append({"model": model, "clients": clients, **got})
                print(json.dumps(results["composites"][-1]), file=sys.stderr)
        for name, port in servers.items():
            rate = 50 if name == "litellm" else 500
            url = f"http://127.0.0.1:{port}/v1/chat/completions"
            for arrivals in ARRIVALS:
                data = body("mock", 900, stream=False)
                got = at_a_rate(url, data, arrivals, rate, max(4, 2 * seconds))
                row = {"who": name, "asked_per_second": rate, "arrivals": arrivals, **got}
                results["steady"].append(row)
                print(json.dumps(row), file=sys.stderr)
        if arguments.steady:
            return results
        results["memory"] |= memory_over(folder, chat, pid, 20_000 if arguments.quick else 200_000)
        results["idle_streams"] = idle_streams(ours, pid, 100 if arguments.quick else 1000)
        print(json.dumps([results["memory"], results["idle_streams"]]), file=sys.stderr)
    return results


def in_turn(
    folder: Path,
    servers: dict[str, int],
    size: int,
    stream: bool,
    clients: int,
    seconds: float,
    rounds: int,
) -> dict[str, Any]:
    """One cell: each server in turn, round by round; medians over the rounds."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, port in servers.items():
            path = "/s/v1" if stream and name == "direct" else "/v1"
            data = body("mock-stream" if stream else "mock", size, stream)
            url = f"http://127.0.0.1:{port}{path}/chat/completions"
            taken[name].append(as_fast_as_it_can(folder, url, data, clients, seconds))
    return {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in taken.items()
    }


def memory_over(folder: Path, url: str, pid: int, requests: int) -> dict[str, Any]:
    """Resident memory at every tenth of so many requests, after the first tenth has warmed it up."""
    data, held, done = body("mock", 900, stream=False), [], 0
    for step in range(11):
        while done < step * requests / 10:
            rate = as_fast_as_it_can(folder, url, data, 16, 2)["requests_per_second"]
            done += int(rate * 2)
        held.append(resident(pid))
    return {"requests": done, "held_mb": held}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litellm", default="", help="The litellm command of its own environment.")
    parser.add_argument("--seconds", type=float, default=6.0, help="Of each measurement.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="Two seconds each, 1 KB only.")
    parser.add_argument("--steady", action="store_true", help="Only 500 requests a second.")
    parser.add_argument("--out", type=Path, help="Where the results go. Default: stdout.")
    parser.add_argument("--idle-upstream", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.idle_upstream:
        asyncio.run(idle_upstream(arguments.idle_upstream))
        return
    for needed in ("wrk", "nginx"):
        if shutil.which(needed) is None:
            sys.exit(f"{needed} is not here: apt-get install wrk nginx-light")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # nginx's worker is another user
        results = measure(arguments, Path(folder))
    results |= {
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "load_average": os.getloadavg(),
        "seconds": arguments.seconds,
        "rounds": arguments.rounds,
    }
    text = json.dumps(results, indent=1) + "\n"
    if arguments.out:
        arguments.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
