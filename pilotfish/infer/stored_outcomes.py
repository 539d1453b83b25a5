"""Outcomes out of the gateway's own store: what was asked, who answered, and what was said of it.

Three things tell how good an answer was. Feedback gives the answer that was served a score in
[0, 1]. A check held a small model's answer against the large one's: agreeing counts as 1 for the
small model and differing as 0, and the large model counts as 1, since it is what the small one is
to be as good as. A request that was asked again is another question. Feedback goes before checks.
Requests about which nothing was said are left out, and so are those whose texts were not kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import numpy as np

from pilotfish.errors import InputError
from pilotfish.infer.outcomes import Outcomes
from pilotfish.records import Request, from_dict
from pilotfish.store.store import Store

CHECKS_AT_MOST = 1_000_000


def read_stored_outcomes(
    store: Store, *, since: datetime | None = None, task: str | None = None
) -> tuple[Outcomes, list[float]]:
    """The outcomes in the order in which they came, and when each came (seconds since 1970).

    Args:
        store: The gateway's.
        since: Only requests that came at or after this moment (with a time zone).
        task: Only this task's.

    Raises:
        InputError: Nothing was said of any answer.
    """
    checks = {check.request_id: check for check in store.checks.recent(CHECKS_AT_MOST)}
    texts: list[str] = []
    times: list[float] = []
    rows: list[dict[str, tuple[float, float, float]]] = []
    texts_of: list[dict[str, str | None]] = []
    for page in store.traffic.read(since=since, task=task):
        said = {
            word.request_id: word.score
            for word in store.feedback.about(page.column("id").to_pylist())
            if word.score is not None
        }
        for one in _requests(page):
            found: dict[str, tuple[float, float, float]] = {}
            wrote: dict[str, str | None] = {one["model"]: one["answer"]}
            cost = float("nan") if one["cost"] is None else float(one["cost"])
            if (check := checks.get(one["id"])) is not None:
                paid = float("nan") if check.cost is None else check.cost
                found[check.large] = (1.0, paid, float("nan"))
                found[check.small] = (float(check.agreed), cost, float(one["latency"]))
                wrote |= {check.small: check.small_answer, check.large: check.large_answer}
            if one["id"] in said and one["model"]:
                found[one["model"]] = (float(said[one["id"]]), cost, float(one["latency"]))
            if found:
                texts.append(one["prompt"])
                times.append(one["time"].timestamp())
                rows.append(found)
                texts_of.append(wrote)
    if not rows:
        raise InputError(
            "The store holds no request whose answer somebody judged.",
            remedy="Let callers send feedback (POST /v1/feedback), or check a share of the small "
            "answers: check_share = 0.05 in [serve]",
        )
    models = tuple(dict.fromkeys(name for found in rows for name in found))
    table = np.full((3, len(rows), len(models)), np.nan, np.float32)
    for i, found in enumerate(rows):
        for name, values in found.items():
            table[:, i, models.index(name)] = values
    answers = np.empty((len(rows), len(models)), object)
    for i, wrote in enumerate(texts_of):
        answers[i] = [wrote.get(name) for name in models]
    kept = answers if any(text is not None for text in answers.ravel()) else None
    outcomes = Outcomes(tuple(texts), models, table[0], table[1], latency=table[2], answers=kept)
    return outcomes, times


def _requests(page: Any) -> Iterator[dict[str, Any]]:
    for row in page.to_pylist():
        if row["request"] is None or row["status"] >= 400:
            continue
        request = from_dict(Request, json.loads(row["request"]))
        said = None if row["completion"] is None else json.loads(row["completion"]).get("text")
        yield {**row, "prompt": request.prompt, "answer": said or None}
