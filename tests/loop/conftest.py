"""A full outcome for the report's tests, with figures that fit together."""

from __future__ import annotations

import math

import pytest

from pilotfish.loop import result as r


def sample_outcome(**changes):
    """A certified run over 10,000 support messages; ``changes`` replace whole fields."""
    classes = ["card_arrival", "lost_card", "exchange_rate", "refund", "pin_blocked", "top_up"]
    shares = [0.31, 0.24, 0.17, 0.13, 0.1, 0.05]
    served = [0.82, 0.79, 0.71, 0.55, 0.62, 0.31]
    curve = []
    for i in range(60):
        coverage = (i + 1) / 60
        risk = 0.116 * coverage**3.4
        bound = risk + 0.004 + 0.03 * math.sqrt(risk)
        curve.append(
            {"threshold": 1 - coverage, "coverage": coverage, "risk": risk, "bound": bound}
        )

    def money(calls):
        return calls * 0.0004

    def bar(item, calls):
        return r.WaterfallItem(item=item, calls=calls, cost=money(calls), seconds=calls * 0.3)

    base = {
        "name": "support-intents",
        "task": r.TaskInfo(
            prompt="Which intent has this message?\n\n{text}\n\nAnswer with one label.",
            labels=classes,
        ),
        "large": r.LargeModel(
            name="gpt-4.1",
            price=r.PriceInfo(input=2.0, output=8.0, date="2026-11-01"),
            calls=1650,
            cost=money(1650),
            seconds=61.0,
            p50_ms=640.0,
            p95_ms=1480.0,
        ),
        "rows": r.RowCounts(
            read=10_012,
            rejected=12,
            unique=9_420,
            reject_reasons={"empty-text": 9, "bad-encoding": 3},
        ),
        "asked": r.Asked(
            train=800, calibrate=550, evaluate=300, unparsed=7, cost=money(1650), seconds=61.0
        ),
        "race": [
            r.RaceEntry(
                student="tfidf-linear",
                agreement=0.912,
                coverage=0.66,
                log_loss=0.312,
                ece=0.021,
                fit_seconds=2.1,
                per_second=41_000.0,
                p50_ms=0.21,
            ),
            r.RaceEntry(
                student="embedding-linear",
                agreement=0.934,
                coverage=0.71,
                log_loss=0.248,
                ece=0.016,
                fit_seconds=3.4,
                per_second=24_000.0,
                p50_ms=0.38,
                chosen=True,
            ),
            r.RaceEntry(
                student="knn",
                agreement=0.871,
                coverage=0.44,
                log_loss=0.51,
                ece=0.05,
                fit_seconds=0.4,
            ),
            r.RaceEntry(student="transformer", note="needs the torch extra"),
        ],
        "certificate": {
            "constraints": [{"kind": "agree", "target": 0.95, "label": "", "on": "all"}],
            "delta": 0.05,
            "method": "betting",
            "threshold": 0.7312,
            "coverage": 0.7083,
            "risk": 0.0359,
            "bound": 0.0456,
            "draws": 3100,
            "asked": 550,
            "reason": "certified",
            "curve": curve,
            "population": "inputs",
        },
        "per_class": [
            r.ClassRow(label=c, share=s, served=v, agreement=0.99 - 0.03 * i, n=120 - 18 * i)
            for i, (c, s, v) in enumerate(zip(classes, shares, served, strict=True))
        ],
        "latency": r.Latency(
            small=r.Percentiles(p50_ms=0.38, p95_ms=0.71),
            large=r.Percentiles(p50_ms=640.0, p95_ms=1480.0),
            cascade_mean_ms=201.0,
        ),
        "waterfall": [
            bar("always-large", 10_000),
            bar("answered small", 5_610),
            bar("repeated inputs", 580),
            bar("teacher labels", 800),
            bar("calibration", 550),
            bar("comparison", 300),
            bar("escalated", 2_160),
            bar("net", 3_810),
        ],
        "disagreements": [
            r.Disagreement(
                text="my card was eaten by the machine <script>alert('x')</script> & it's gone",
                small="lost_card",
                large="card_arrival",
                score=0.93,
                served=True,
            ),
            r.Disagreement(
                text="Where is the money that you promised me? " * 30,
                small="refund",
                large="top_up",
                score=0.81,
                served=True,
            ),
            r.Disagreement(
                text="was kostet der wechsel", small="top_up", large="exchange_rate", score=0.4
            ),
        ],
        "gold": r.Gold(
            column="label",
            n=300,
            large=0.943,
            student=0.887,
            cascade=0.93,
            baseline=0.31,
        ),
        "saving": r.Saving(
            file_calls=0.619,
            future_calls=0.7083,
            file_cost=money(6_190),
            future_cost=money(708.3),
            break_even=2_330,
        ),
        "warnings": ["7 of 1650 answers of the large model were no allowed answer."],
        "hardware": {"cpu": "Xeon", "cores": 2, "memory_gb": 7.8, "platform": "Linux-6.1"},
        "versions": {"pilotfish": "0.1.0", "python": "3.11.9", "numpy": "2.4.6"},
        "seconds": {"read": 0.4, "ask": 61.0, "race": 9.3, "certify": 4.1},
        "created": "2026-11-21T10:00:00+00:00",
        "artifact": "artifacts/support intents",
        "command": "pilotfish offload messages.jsonl --prompt-file intent.txt --large openai:gpt-4.1",
    }
    return r.OffloadResult(**(base | changes))


@pytest.fixture
def outcome():
    """Builds the sample outcome, with changed fields."""
    return sample_outcome
