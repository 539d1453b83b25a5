"""Several workers on one port, several machines on one PostgreSQL: one limit, one record of it all."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from pilotfish.store.keys import Limit
from pilotfish.store.store import open_store
from tests.gateway.running import Running, serving

TOML = """
store = {store!r}
[serve]
keys = "required"
durable = true
[models.fake]
backend = "fake"
"""
ASK = {"model": "fake", "messages": [{"role": "user", "content": "hello"}]}
LIMIT, ASKED = 37, 90


def ask(gateway: Running, key: str) -> httpx.Response:
    """One request on a connection of its own, so that the workers share them."""
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(gateway.chat, json=ASK, headers=headers, timeout=30)


def keep_to_the_limit(gateways: list[Running], url: str, key: str) -> None:
    """Exactly the limit is admitted, and each answer that came is in the one store."""
    with ThreadPoolExecutor(8) as pool:
        asked = [gateways[i % len(gateways)] for i in range(ASKED)]
        answers = list(pool.map(lambda gateway: ask(gateway, key), asked))
    assert Counter(answer.status_code for answer in answers) == {200: LIMIT, 429: ASKED - LIMIT}
    assert all(int(a.headers["retry-after"]) >= 1 for a in answers if a.status_code == 429)
    answered = {a.headers["x-request-id"] for a in answers if a.status_code == 200}
    with open_store(url) as store:
        recorded: list[Any] = list(store.traffic.recent(limit=1000))
        assert answered == {row.id for row in recorded if row.status == 200}


def children(parent: int) -> int:
    """How many processes have this parent, as Linux tells."""
    found = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            found += int(file.read_text().rpartition(")")[2].split()[1]) == parent
    return found


def new_key(url: str) -> str:
    with open_store(url) as store:
        key, _ = store.keys.create("tester", rate=Limit(LIMIT, "month"))
    return key


def test_two_workers_share_a_port_a_store_and_a_limit(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/pilotfish.db"
    key = new_key(url)
    with serving(TOML.format(store=url), "--workers", "2") as gateway:
        keep_to_the_limit([gateway], url, key)
        if sys.platform == "linux":
            assert children(gateway.process.pid) >= 2
        assert gateway.stop() == 0


def test_two_machines_share_postgresql_and_a_limit(request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres").new_database()
    key = new_key(url)
    with ExitStack() as stack:
        gateways = [stack.enter_context(serving(TOML.format(store=url))) for _ in range(2)]
        keep_to_the_limit(gateways, url, key)
        assert [gateway.stop() for gateway in gateways] == [0, 0]
