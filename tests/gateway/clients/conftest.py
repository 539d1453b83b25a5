"""A gateway before a large model that knows fish, for clients that people already have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pilotfish.models.fake_server import FakeServer
from tests.gateway.clients.fish_model import SAID, answer
from tests.gateway.serving import Running, remote, serving


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeServer]:
    with FakeServer(answer) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(upstream: FakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = {
        "far": remote(upstream),
        "near": {"backend": "fake", "answers": {"Which fish?": SAID}},
        "either": {"kind": "fallback", "models": ["gone", "far"]},
        "gone": {**remote(upstream), "base_url": "http://127.0.0.1:9/v1", "max_retries": 0},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("gateway"))
        with serving(models) as running:
            yield running
