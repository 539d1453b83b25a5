"""The loop closes by itself, over real sockets: find, learn, prove, serve, watch, alarm, learn again.

A client sends requests of four tasks to the gateway; the large model is a scripted server; ``learn
--watch`` is a process of its own beside them. In the middle the meaning of one label changes. The run of
20,000 requests is ``benchmarks/loop.py``; here it is smaller and checks more often, to be quick.
"""

from __future__ import annotations

import pytest

from tests.loop.closing import Report, drive


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return drive(
        tmp_path_factory.mktemp("closing"),
        before=2400,
        after=2400,
        options=(
            *("--student", "tfidf-embedding-linear", "--fewest", "200", "--trial", "60"),
            *("--check-share", "0.3", "--canary", "0.5"),
        ),
        pace=0.02,  # clients that never pause would take the learner's share of two cores
    )


def test_no_request_failed(report: Report) -> None:
    assert report.failed == 0
    assert report.recorded == report.counted == report.requests


def test_closed_labels_are_served_small_and_agree(report: Report) -> None:
    """Once the version is in service, and until the drift."""
    share, agreement = report.settled
    assert share >= 0.7
    assert agreement >= 0.95


def test_the_whole_run_agrees(report: Report) -> None:
    assert report.agreement >= 0.95


def test_the_alarm_comes_soon(report: Report) -> None:
    assert report.affected_until_alarm is not None
    assert report.affected_until_alarm <= 500


def test_the_incident_has_its_evidence(report: Report) -> None:
    (alarm,) = [event for event in report.events if event.kind == "alarm"]
    assert alarm.evidence["p_value"] <= alarm.evidence["delta"]
    assert alarm.evidence["requests"]
    assert alarm.evidence["inputs"]["p_value"] > 0.001  # the meaning moved, not the inputs


def test_learning_again_follows_without_a_restart(report: Report) -> None:
    kinds = [event.kind for event in report.events]
    after = kinds[kinds.index("alarm") + 1 :]
    assert after[:3] == ["shadow", "canary", "promoted"]
    share, agreement = report.last
    assert share >= 0.5
    assert agreement >= 0.95


def test_the_account_is_net_and_positive(report: Report) -> None:
    assert report.saving > 0
    assert report.paid_twice == 0
