"""What tasks came to, as Prometheus' own parser reads it."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from pilotfish.models.fake_server import FakeServer
from pilotfish.store.ledger import Day
from tests.gateway.serving import remote, serving


def test_the_books_are_in_the_metrics() -> None:
    with FakeServer("hello") as upstream, serving({"fake": remote(upstream)}) as running:
        running.gateway.store.ledger.commit(
            {},
            [
                Day("teams", 20_000, 10, 6, 0.04, 0.10, 0, 2, 1, 0.01),
                Day("teams", 20_001, 5, 5, 0.0, 0.05),
                Day("urgency", 20_000, 3, 0, 0.03, 0.03, checks=1, checks_cost=0.02),
                Day("local", 20_000, 9, 8, unknown=9, checks=2, unpriced=2),
            ],
        )
        text = running.client.get("/metrics").text
    found = {
        (sample.name, sample.labels["task"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "task" in sample.labels
    }
    assert found["pilotfish_task_requests_total", "teams"] == 15
    assert found["pilotfish_task_small_requests_total", "teams"] == 11
    assert found["pilotfish_task_disagreements_total", "teams"] == 1
    assert abs(found["pilotfish_task_saved_dollars", "teams"] - 0.10) < 1e-9
    assert abs(found["pilotfish_task_saved_dollars", "urgency"] + 0.02) < 1e-9
    assert found["pilotfish_task_avoided_calls", "local"] == 6
    assert found["pilotfish_task_unknown_requests_total", "local"] == 9
    assert found["pilotfish_task_unpriced_calls_total", "local"] == 2
    assert ("pilotfish_task_saved_dollars", "local") not in found  # unknown is not 0
