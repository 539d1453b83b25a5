"""Health, readiness, metrics and the OpenAPI document, over real sockets; and who may look."""

from __future__ import annotations

import base64
import time
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families

from pilotfish.errors import StoreError
from pilotfish.gateway import metrics, pages
from pilotfish.gateway.refusals import Refusal
from pilotfish.store import open_store
from tests.gateway.sample_traffic import sample_traffic
from tests.gateway.serving import Running, serving

MODELS = {
    "tickets": {"backend": "fake"},
    "chat": {"backend": "fake"},
    "code": {"backend": "fake"},
}


def samples(text: str, parse: Any = text_string_to_metric_families) -> dict[tuple[str, ...], float]:
    """Name and sorted label values to value, as Prometheus' own parser reads them."""
    return {
        (sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def scrape(running: Running) -> dict[tuple[str, ...], float]:
    answer = running.client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return samples(answer.text)


def test_health_and_readiness() -> None:
    with serving(MODELS) as running:
        health = running.client.get("/healthz")
        assert health.json()["status"] == "ok"
        assert 0 <= health.json()["uptime_seconds"] < 60
        ready = running.client.get("/readyz")
        assert (ready.status_code, ready.json()) == (
            200,
            {"status": "ready", "reasons": [], "warnings": []},
        )
        head = running.client.head("/readyz")
        assert (head.content, head.headers["content-length"]) == (b"", str(len(ready.content)))
        assert running.client.post("/readyz").status_code == 405


def test_readiness_names_each_part_that_fails_and_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(MODELS) as running:
        gateway = running.gateway

        def broken() -> None:
            raise StoreError("Cannot write /secret/place/pilotfish.db: disk full")

        monkeypatch.setattr(gateway.store, "check", broken)
        gateway.recorder.failing = True
        answer = running.client.get("/readyz")
        assert answer.status_code == 503
        assert "secret" not in answer.text
        reasons = answer.json()["reasons"]
        assert [reason.split(":")[0] for reason in reasons] == ["store", "recorder"]
        assert int(answer.headers["retry-after"]) > 0
        gateway.recorder.failing = False
        assert running.client.get("/healthz").status_code == 200


def test_an_open_breaker_is_a_warning_and_of_all_models_a_reason() -> None:
    with serving({"one": {"backend": "fake"}, "two": {"backend": "fake"}}) as running:
        served = running.gateway.served
        breakers = {name: SimpleNamespace(state="closed") for name in ("one", "two")}
        for name, breaker in breakers.items():
            running.chat(model=name)
            served.started()[name].breaker = breaker
        breakers["one"].state = "open"
        seen = running.client.get("/readyz")
        assert (seen.status_code, seen.json()["reasons"]) == (200, [])
        assert "model one" in seen.json()["warnings"][0]
        assert scrape_value(running, "pilotfish_breaker_state", model="one", state="open") == 1.0
        assert scrape_value(running, "pilotfish_breaker_state", model="two", state="open") == 0.0
        breakers["two"].state = "open"
        time.sleep(2.1)  # a verdict is kept for two seconds
        seen = running.client.get("/readyz")
        assert seen.status_code == 503
        assert len(seen.json()["reasons"]) == 2


def scrape_value(running: Running, name: str, **labels: str) -> float:
    wanted = {f"{k}={v}" for k, v in labels.items()}
    [value] = [v for key, v in scrape(running).items() if key[0] == name and wanted <= set(key)]
    return value


def test_metrics_equal_the_traffic_and_hold_across_restarts() -> None:
    now = time.time()
    exchanges = list(sample_traffic(now, 90))  # older and newer than what is settled
    with serving(MODELS) as running:
        store = open_store(running.store_url)
        store.traffic.add(exchanges[:-50])
        scrape(running)
        store.traffic.add(exchanges[-50:])
        seen = scrape(running)
        assert scrape(running)[("pilotfish_waiting_requests", _worker(seen))] == 0.0
        text = running.client.get(
            "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
        )
        assert text.headers["content-type"].startswith("application/openmetrics-text")
        assert samples(text.text, parse_openmetrics)
        store.close()
    for status in (200, 429, 499, 503):
        total = sum(
            v
            for k, v in seen.items()
            if k[0] == "pilotfish_requests_total" and f"status={status}" in k
        )
        assert total == sum(x.status == status for x in exchanges)
    small = ("asked=tickets", "model=tickets-small")
    mine = [x for x in exchanges if x.completion and x.completion.model == "tickets-small"]
    for bound in (0.0105, 0.0336):
        [(key, value)] = [
            (k, v)
            for k, v in seen.items()
            if k[0] == "pilotfish_request_duration_seconds_bucket"
            and set(small) <= set(k)
            and any(p.startswith(f"le={bound}") for p in k)
        ]
        edge = float(next(p for p in key if p.startswith("le="))[3:])
        assert value == pytest.approx(sum(x.latency <= edge for x in mine), abs=2)  # rounded edges
    assert seen["pilotfish_request_duration_seconds_count", *small] == len(mine)
    seconds = seen["pilotfish_request_duration_seconds_sum", *small]
    assert seconds == pytest.approx(sum(x.latency for x in mine))
    saved = sum(x.baseline - x.completion.cost for x in mine)  # type: ignore[operator, union-attr]
    assert seen["pilotfish_saved_dollars", "asked=tickets"] == pytest.approx(saved)
    cost = sum(v for k, v in seen.items() if k[0] == "pilotfish_cost_dollars_total")
    assert cost == pytest.approx(sum(x.completion.cost or 0 for x in exchanges if x.completion))


def _worker(seen: dict[tuple[str, ...], float]) -> str:
    return next(k[1] for k in seen if k[0] == "pilotfish_active_requests")


def test_what_clients_write_is_no_label_and_models_are_bounded() -> None:
    with serving(MODELS) as running:
        for name in ("evil-1", 'evil"2\n', "evil-3"):
            assert running.chat(model=name).status_code == 404
        running.records(3)
        text = running.client.get("/metrics").text
        assert "evil" not in text
        assert samples(text)["pilotfish_requests_total", "asked=", "model=", "status=404"] == 3
        counters = metrics.Counters(running.gateway.store.statistics, ["chat"])
        names = {counters._model(f"m{i}") for i in range(metrics.MOST_MODELS + 50)}
        assert len(names) == metrics.MOST_MODELS + 1
        assert metrics.OTHER in names


def test_openapi_document_is_valid_and_names_every_path() -> None:
    with serving(MODELS) as running:
        document = running.client.get("/openapi.json").json()
        validate(document)
        assert document["openapi"].startswith("3.1")
        from pilotfish.gateway.app import ASKED
        from pilotfish.gateway.app import pages as all_pages

        known = {*ASKED, *all_pages(), "/v1/models/{model}"}
        hidden = {"/dashboard/style.css", "/dashboard/script.js"}
        assert set(document["paths"]) == known - hidden
        body = document["components"]["schemas"]["ChatBody"]
        assert body["required"] == ["messages"]
        assert body.get("additionalProperties", True) is True


class Keys:
    """Access with two keys and, where they are not demanded, everybody as an administrator."""

    def __init__(self, *, demanded: bool) -> None:
        self.demanded = demanded

    async def admit(self, authorization: str | None) -> Any:
        if not self.demanded:
            return SimpleNamespace(id="", name="", admin=True)
        if authorization not in ("Bearer pf-admin", "Bearer pf-user"):
            raise Refusal(401, "invalid_api_key", "No valid key.")
        return SimpleNamespace(id="k1", name="me", admin=authorization == "Bearer pf-admin")


def test_admin_keys_open_the_pages_and_other_keys_do_not() -> None:
    with serving(MODELS, keys="required") as running:
        with open_store(running.store_url) as store:
            admin, _ = store.keys.create("me", admin=True)
            other, _ = store.keys.create("app")
        for path in ("/dashboard", "/dashboard/data", "/metrics"):
            refused = running.client.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Basic")
            bearer = {"authorization": f"Bearer {other}"}
            assert running.client.get(path, headers=bearer).status_code == 403
            assert running.client.get(path, auth=("any", admin)).status_code == 200
        for path in ("/healthz", "/readyz", "/openapi.json", "/dashboard/style.css"):
            assert running.client.get(path).status_code == 200


async def looked(
    access: Keys, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    async def secret(gateway: Any, scope: Any, receive: Any, send: Any) -> None:
        await pages.reply(scope, send, b"texts", "text/plain")

    gateway = SimpleNamespace(access=access, settings=SimpleNamespace(host="127.0.0.1"))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await pages.page(secret, private=True)(gateway, scope, receive, send)

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        answer = await client.request(method, "/dashboard", headers=headers)
    return answer.status_code, dict(answer.headers), answer.content


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("", 401),
        ("Bearer wrong", 401),
        ("Basic !!!", 401),
        ("Bearer pf-user", 403),
        (basic("x", "pf-user"), 403),
        ("Bearer pf-admin", 200),
        (basic("anyone", "pf-admin"), 200),
        (basic("pf-admin", ""), 200),
    ],
)
async def test_only_administrators_see_the_traffic(authorization: str, status: int) -> None:
    headers = {"authorization": authorization} if authorization else {}
    seen, got, body = await looked(Keys(demanded=True), **headers)
    assert seen == status
    assert (body == b"texts") == (status == 200)
    assert got.get("www-authenticate", "").startswith("Basic") == (status == 401)
    assert "default-src 'none'" in got["content-security-policy"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("localhost:8080", 200),
        ("[::1]:8080", 200),
        ("192.168.1.5:8080", 200),
        ("rebound.example.com:8080", 403),
        ("127.0.0.1.example.com", 403),
    ],
)
async def test_without_keys_no_foreign_name_reads_the_traffic(host: str, status: int) -> None:
    assert (await looked(Keys(demanded=False), host=host))[0] == status


async def test_pages_are_only_looked_at() -> None:
    status, headers, _ = await looked(Keys(demanded=False), "DELETE")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
