"""Keys through the running gateway: who is let in, what it costs, and that no secret is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilotfish.store.keys import Limit
from pilotfish.store.store import open_store
from tests.gateway.serving import serving

MODELS = {"small": {"backend": "fake"}, "large": {"backend": "fake"}}


@pytest.fixture
def make():
    """Makes keys in the store that the gateway will use; gives the header that carries one."""

    def create(name: str, **values) -> dict[str, str]:
        with open_store("sqlite:///gateway.db") as store:
            secret, _ = store.keys.create(name, **values)
        return {"authorization": f"Bearer {secret}"}

    return create


def ask(gateway, headers, model="small", **params):
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **params}
    return gateway.client.post("/v1/chat/completions", json=body, headers=headers)


def test_who_is_let_in(make):
    app, boss = make("app", models=["small"]), make("boss", admin=True)
    with serving(MODELS) as gateway:
        assert ask(gateway, app).status_code == 200
        for headers in ({}, {"authorization": "Bearer pf-wrong"}):
            refused = ask(gateway, headers)
            assert refused.status_code == 401
            assert refused.json()["error"]["type"] == "authentication_error"
            assert refused.headers["x-request-id"].startswith("req_")
        assert ask(gateway, app, "large").status_code == 403
        assert ask(gateway, boss).status_code == 403
        models = gateway.client.get("/v1/models", headers=app).json()["data"]
        assert [m["id"] for m in models] == ["small"]
        for path in ("/dashboard", "/metrics"):
            assert gateway.client.get(path, headers=app).status_code == 403
            assert gateway.client.get(path).status_code == 401
            assert gateway.client.get(path, headers=boss).status_code == 200
        assert gateway.gateway.access.denied >= 2
        rows = gateway.records(3)
    assert sorted(r.status for r in rows) == [200, 403, 403], "strangers are not recorded"


@pytest.mark.parametrize("stream", [False, True])
def test_a_rate_limit(make, stream):
    app = make("app", rate=Limit(3, "day"))
    with serving(MODELS) as gateway:
        answers = [ask(gateway, app, stream=stream) for _ in range(5)]
        assert [a.status_code for a in answers] == [200, 200, 200, 429, 429]
        assert 1 <= int(answers[3].headers["retry-after"]) <= 86_400
        assert answers[3].json()["error"]["code"] == "rate_limit_exceeded"


def test_a_spend_limit(make):
    app = make("app", spend=Limit(0.001, "day"))
    price = {"input": 100.0, "output": 100.0}
    with serving({"small": {"backend": "fake", "price": price}}) as gateway:
        statuses = [ask(gateway, app).status_code for _ in range(10)]
        rows = gateway.records(10)
    assert statuses[0] == 200
    assert statuses[-1] == 429
    assert statuses == sorted(statuses)
    spent = sum(r.cost for r in rows if r.cost)
    most = max(r.cost for r in rows if r.cost)
    assert 0.001 <= spent < 0.001 + most + 1e-9


def test_revoking_ends_it_within_five_seconds(make):
    app = make("app")
    with serving(MODELS) as gateway:
        assert ask(gateway, app).status_code == 200
        with open_store("sqlite:///gateway.db") as store:
            store.keys.revoke("app")
        access = gateway.gateway.access
        access._read -= 5.0  # in place of waiting
        access._tried -= 5.0
        assert ask(gateway, app).status_code == 401


def test_no_key_is_left_behind(make, caplog, capfd):
    headers = make("app", rate=Limit(2, "day"))
    secret = headers["authorization"].removeprefix("Bearer ")
    with serving(MODELS) as gateway:
        said = [ask(gateway, headers, model).text for model in ("small", "none", "small", "small")]
        said.append(ask(gateway, {"authorization": f"Bearer {secret}x"}).text)
        gateway.records(4)
        disk = b"".join(path.read_bytes() for path in Path().glob("gateway.db*"))
    out, err = capfd.readouterr()
    for text in (*said, caplog.text, out, err):
        assert secret[3:] not in text
    assert secret[3:].encode() not in disk
